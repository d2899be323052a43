package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/slot"
)

// printable returns text with everything replaced that could move the cursor or
// hide something: labels, folders and software names come from places.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsControl(r) || unicode.In(r, unicode.Cf) || r == '\u2028' || r == '\u2029' {
			return '\ufffd'
		}
		return r
	}, s)
}

// moment prints a time as people read it here.
func moment(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format("2006-01-02 15:04")
}

// ago says in whole days how long something is ago.
func ago(d time.Duration) string {
	if d < 24*time.Hour {
		return "today"
	}
	return count(int(d/(24*time.Hour)), "day") + " ago"
}

// stamp is a time in JSON: nil for none.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// size prints a number of bytes.
func size(n int64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d B", n)
	case n < 10_000_000:
		return fmt.Sprintf("%d KB", n/1000)
	}
	return fmt.Sprintf("%d MB", n/1_000_000)
}

// wayName is how people call a kind of slot.
func wayName(k slot.Kind) string {
	switch k {
	case slot.KindRecoveryCode:
		return "recovery code"
	case slot.KindPassphrase:
		return "passphrase"
	case slot.KindWords:
		return "the wallet's words"
	case slot.KindPIN:
		return "PIN"
	}
	return printable(string(k))
}

// wayNames lists kinds of slots, each once, as in "a recovery code or a passphrase".
func wayNames(kinds []slot.Kind) string {
	var names []string
	for _, k := range kinds {
		name := wayName(k)
		if k != slot.KindWords {
			name = "a " + name
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return orList(names)
}

// orList joins names as in "a, b or c".
func orList(names []string) string {
	switch len(names) {
	case 0:
		return ""
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

func slotKinds(slots []satchel.SlotInfo) []slot.Kind {
	var kinds []slot.Kind
	for _, s := range slots {
		kinds = append(kinds, s.Kind)
	}
	return kinds
}

type slotJSON struct {
	ID   string    `json:"id"`
	Kind slot.Kind `json:"kind"`
}

func slotsJSON(slots []satchel.SlotInfo) []slotJSON {
	out := []slotJSON{}
	for _, s := range slots {
		out = append(out, slotJSON{s.ID, s.Kind})
	}
	return out
}

type placeJSON struct {
	Address    string         `json:"address"`
	Health     satchel.Health `json:"health"`
	Generation uint64         `json:"generation"`
	Verified   *time.Time     `json:"verified"`
	Error      string         `json:"error,omitempty"`
	Code       int            `json:"code,omitempty"`
	Branch     string         `json:"branch,omitempty"`
}

func placesJSON(places []satchel.PlaceStatus) []placeJSON {
	out := []placeJSON{}
	for _, p := range places {
		j := placeJSON{Address: p.Address, Health: p.Health, Generation: p.Generation, Verified: stamp(p.Verified), Branch: p.Branch}
		if p.Err != nil {
			j.Error, j.Code = errorText(p.Err), int(codeOf(p.Err))
			if c, ok := healthCodes[p.Health]; ok && j.Code == int(satchel.CodeFailed) {
				j.Code = int(c) // After a while only the text of the error is left.
			}
		}
		out = append(out, j)
	}
	return out
}

// healthCodes are what places that stand like this end commands with.
var healthCodes = map[satchel.Health]satchel.Code{
	satchel.HealthUnreachable: satchel.CodeUnreachable, satchel.HealthSignIn: satchel.CodeSignIn, satchel.HealthWrongAccount: satchel.CodeWrongAccount,
	satchel.HealthFull: satchel.CodeFull, satchel.HealthDamaged: satchel.CodeDamaged, satchel.HealthMissing: satchel.CodeDamaged,
	satchel.HealthOtherDevice: satchel.CodeOtherDevice,
}

// sayPlaces prints a table of the places, and under each what to do about it.
func (a *app) sayPlaces(places []satchel.PlaceStatus) {
	const rest = len("  newest  last verified     another device writes")
	width := len("place")
	for _, p := range places {
		if n := columns(printable(p.Address)); n <= helpWidth-rest {
			width = max(width, n)
		}
	}
	a.say("%-*s  newest  last verified     health", width, "place")
	for _, p := range places {
		address := printable(p.Address)
		if columns(address) > width {
			a.say("%s", address) // on a line of its own
			address = ""
		}
		newest := "-"
		if p.Generation > 0 {
			newest = strconv.FormatUint(p.Generation, 10)
		}
		a.say("%s%s  %6s  %-16s  %s", address, strings.Repeat(" ", width-columns(address)), newest, moment(p.Verified), healthName(p))
		if hint := healthHint(p); hint != "" && !errors.Is(p.Err, satchel.ErrDeleted) {
			a.sayHanging("  next: ", hint)
		}
		if p.Err != nil {
			a.sayHanging("  last error: ", errorText(p.Err))
		}
	}
}

// readOnly reports whether nothing may be written to a place. After a while only the
// text of its error is left.
func readOnly(p satchel.PlaceStatus) bool {
	if p.Health != satchel.HealthFailed || p.Err == nil {
		return false
	}
	text := p.Err.Error()
	return errors.Is(p.Err, syscall.EROFS) || errors.Is(p.Err, fs.ErrPermission) ||
		strings.Contains(text, "the folder can only be read") || strings.Contains(text, "the folder's permissions forbid it")
}

// healthName is how a place stands, for a person.
func healthName(p satchel.PlaceStatus) string {
	if readOnly(p) {
		return "read-only"
	}
	return string(p.Health)
}

func healthHint(p satchel.PlaceStatus) string {
	if readOnly(p) {
		return "allow writing there (the drive's switch, the folder's permissions), then satchel backup"
	}
	if dir, ok := strings.CutPrefix(p.Address, "folder:"); ok && p.Health == satchel.HealthUnreachable && emptied(p.Err) {
		return "connect its drive, then satchel backup; if it was really emptied, satchel heal --emptied " + shellQuote(dir)
	}
	if k := cloudOf(p.Address); k != nil {
		switch {
		case p.Health == satchel.HealthFull && k.scheme == "keychain":
			return "a keychain is for small wallets that seldom change: satchel prune makes room, or satchel store remove " + p.Address
		case p.Health == satchel.HealthSignIn && k.signing == account:
			return "sign in there with that program, then satchel backup"
		case p.Health == satchel.HealthSignIn && k.signing == none, p.Health == satchel.HealthUnreachable && placeFact(p.Err) != "":
			return cmp.Or(placeFact(p.Err), "sign in there with that program") + "; then satchel backup"
		case p.Health == satchel.HealthSignIn, p.Health == satchel.HealthWrongAccount:
			return "satchel store signin " + shellQuote(p.Address)
		case p.Health == satchel.HealthUnreachable && emptied(p.Err):
			return "if it was really emptied, satchel heal --emptied " + shellQuote(p.Address)
		case p.Health == satchel.HealthUnreachable:
			return "is this machine online? then satchel backup"
		}
	}
	return healthHints[p.Health]
}

// sayHanging prints text that begins with a title and goes on below its beginning.
func (a *app) sayHanging(title, text string) { a.say("%s", hanging(title, text)) }

// hanging breaks text that begins with a title and goes on below its beginning.
func hanging(title, text string) string {
	indent := "\n" + strings.Repeat(" ", columns(title))
	return title + strings.ReplaceAll(wrapAt(text, helpWidth-columns(title)), "\n", indent)
}

// sayField prints a named value, broken to fit.
func (a *app) sayField(name, text string) {
	a.sayHanging(fmt.Sprintf("%-9s ", name), text)
}

// holding counts the places that hold a generation, as far as is known. One that
// cannot be reached just now counts.
func holding(generation uint64, places []satchel.PlaceStatus) int {
	n := 0
	for _, p := range places {
		switch p.Health {
		case satchel.HealthMissing, satchel.HealthDamaged, satchel.HealthOtherDevice, satchel.HealthWrongAccount:
		default:
			if p.Generation == generation {
				n++
			}
		}
	}
	return n
}

// notProtected says where a generation is that too few places hold. copies is how many
// were asked for, 0 if that is not to be said.
func notProtected(generation uint64, places []satchel.PlaceStatus, copies int) string {
	n := holding(generation, places)
	lost := slices.ContainsFunc(places, func(p satchel.PlaceStatus) bool { return p.Generation == generation })
	switch {
	case n == 0 && lost:
		return "in no place whole"
	case n == 0:
		return "on this device only"
	case n < copies:
		return fmt.Sprintf("in %s only, %d asked for", count(n, "place"), copies)
	}
	return "in " + count(n, "place") + " only"
}

// save saves changes and prints what became of them. If another device writes the backup
// it says whether they are kept here.
func (a *app) save(ctx context.Context, b *satchel.Backup, changes ...satchel.Change) error {
	r, err := b.Save(ctx, changes...)
	if errors.Is(err, satchel.ErrOtherDevice) {
		kept := map[string][32]byte{}
		for _, i := range b.Items() {
			kept[i.Name] = i.SHA256
		}
		var lost []string
		for _, c := range changes {
			if sum, ok := kept[c.Name]; ok == c.Remove || ok && sum != sha256.Sum256(c.Value) {
				lost = append(lost, c.Name)
			}
		}
		if len(lost) > 0 {
			return fmt.Errorf("not saved, neither in a place nor on this device: %s: %w", itemNames("", lost), err)
		}
		return fmt.Errorf("kept on this device only: %w", err)
	}
	return a.saved(b, r, err)
}

// saved prints what became of a save.
func (a *app) saved(b *satchel.Backup, r satchel.Result, err error) error {
	type saveJSON struct {
		Generation uint64      `json:"generation"`
		Changed    int         `json:"changed"`
		Protected  bool        `json:"protected"`
		Places     []placeJSON `json:"places"`
		Healed     []string    `json:"healed,omitempty"`
	}
	if err != nil && !errors.Is(err, satchel.ErrNotProtected) {
		return err // Nothing was changed.
	}
	if e := a.emit(saveJSON{r.Generation, r.Changed, r.Protected, placesJSON(r.Places), r.Healed}); e != nil {
		return e
	}
	what := "nothing new"
	if r.Changed > 0 {
		what = count(r.Changed, "item") + " saved"
	}
	if r.Protected {
		a.say("%s, generation %d: protected", what, r.Generation)
	} else {
		a.say("%s, generation %d: %s, not protected yet", what, r.Generation, notProtected(r.Generation, r.Places, b.Status().Copies))
	}
	for _, p := range r.Places {
		a.say("  %s: %s", printable(p.Address), healthName(p))
		if p.Err != nil {
			a.sayHanging("    ", errorText(p.Err))
		}
		if slices.Contains(r.Healed, p.Address) {
			a.say("    it had lost something, and has it again")
		}
	}
	return err
}

// wrap breaks text into lines that fit the screen.
func wrap(text string) string { return wrapAt(text, helpWidth) }

func wrapAt(text string, limit int) string {
	var b strings.Builder
	width := 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case width+1+n > limit:
			b.WriteByte('\n')
			width = 0
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += n
	}
	return b.String()
}

// box frames lines.
func box(title string, lines ...string) string {
	width := columns(title) + 2
	for _, l := range lines {
		width = max(width, columns(l))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  ┌─ %s %s┐\n", title, strings.Repeat("─", width+1-columns(title)))
	for _, l := range lines {
		fmt.Fprintf(&b, "  │  %s%s  │\n", l, strings.Repeat(" ", width-columns(l)))
	}
	fmt.Fprintf(&b, "  └%s┘\n", strings.Repeat("─", width+4))
	return b.String()
}

// columns is the width of a line on the screen, bold or not.
func columns(s string) int {
	return utf8.RuneCountInString(strings.NewReplacer(boldOn, "", boldOff, "").Replace(s))
}

// userNames are what an attacker would guess of this user.
func userNames() []string {
	u, err := user.Current()
	if err != nil {
		return nil
	}
	return []string{u.Username, u.Name}
}
