package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
)

type restoreFlags struct {
	from     []string
	list     bool
	preview  bool
	yes      bool
	accept   bool
	lacking  bool
	aside    bool
	snapshot string

	// fits, if not nil, may refuse a backup before it is taken over.
	fits     func(context.Context, *satchel.Opened) error
	restored func(*satchel.Opened) // if not nil, is told what was restored
}

func (a *app) restoreCommand() *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore [flags] [BACKUP]",
		Short: "Bring a wallet back from its backup",
		Long: `Looks for backups, opens one with its PIN, a recovery code, a passphrase or the words of
the wallet, shows what is in it, and after a yes restores it to this device. Then
fingerprint and addresses are computed anew and compared.

A PIN is guarded by key servers. Those that this device does not know are shown and
asked about first, and nothing is sent to them before. It says how many guesses are left,
or until when it is locked; a wrong PIN costs one guess, any other failure none.

It looks in every folder of this machine that is kept in sync (Nextcloud,
Dropbox, iCloud …), on drives that are plugged in, in clouds that this device is
signed in to, and in the places of wallets that are here already; or in the places
that --from names: folders, or addresses such as gdrive:, to which it signs in first
("satchel store add --help" lists them). BACKUP is a label, a folder or an id from
the list, or the beginning of one.

If the words are not in the backup because its owner took them out of the cloud, it
asks for them, or restores the rest without them.

A required item that is in no place stops a restore before anything is taken over:
another place may hold it. --incomplete restores the rest without it.

This device then becomes the one that writes the backup; another device that
still uses it stops writing and says so. Nothing on this device is overwritten.

JSON: with --list, one object a backup: label, folder, id, network, created,
modified, epoch, generation, fingerprint ("" if sealed), here, slots, places.
Otherwise: id, label, network, kind, fingerprint, addresses, saved, snapshot, epoch, generation,
software, device, passphrase_needed, keys_dropped, items, slots, problem, warnings, others
(snapshot, epoch, generation, device), and after a restore also restored,
compared, protected, missing, and guardians (guardian, error, wrong) if a PIN opened it.`,
		Example: `  satchel restore
  satchel restore --list
  satchel restore --from /media/usb
  satchel restore --from gdrive:
  satchel restore --preview Samantha
  satchel restore --from /srv/backup --yes --json --secret-fd 3 3<code
  satchel restore --from /srv/backup --yes --guardian https://a.example \
      --guardian https://b.example --guardian https://c.example --pin-fd 3 3<pin`,
		Args: args(cobra.MaximumNArgs(1)),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly, satchel.CodeNoBackup,
			satchel.CodeOtherDevice, satchel.CodeWrongSecret, satchel.CodeLocked, satchel.CodeErased, satchel.CodeFewServers,
			satchel.CodeServerLied, satchel.CodeSlotDamaged, satchel.CodeDamaged, satchel.CodeOlder,
			satchel.CodeNewer, satchel.CodeWrongWallet, satchel.CodeIncomplete, satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount,
			satchel.CodeUnreachable, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return a.restore(cmd, f, name)
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringArrayVar(&f.from, "from", nil, "a `place` to look in: a folder, or an address as \"satchel store add\" takes it; repeat it for several")
	fl.BoolVar(&f.list, "list", false, "list the backups that are found, and nothing else")
	fl.BoolVar(&f.preview, "preview", false, "open a backup and show what is in it, and nothing else")
	fl.StringVar(&f.snapshot, "snapshot", "", "restore this older or other state, by its `name` in the preview")
	fl.BoolVar(&f.accept, "accept-problem", false, "restore the newest whole state although newer ones cannot be")
	fl.BoolVar(&f.lacking, "incomplete", false, "restore the rest although required items are missing, such as the wallet's keys")
	fl.BoolVar(&f.aside, "set-aside", false, "move a wallet away that is here and cannot be opened")
	fl.BoolVar(&f.yes, "yes", false, "restore without asking")
	fl.IntVar(&a.wordsFD, "words-fd", noFD, "read the words of the wallet, where the backup does not hold them, from file descriptor `N`, one line")
	a.secretFlag(cmd, "the secret")
	a.guardianFlag(cmd, "a key server, by its `URL`, that may be asked for what the PIN guards; repeat it for several")
	fl.BoolVar(&a.trustGuardians, "trust-guardians", false, "ask the key servers that the backup names, also unknown ones")
	a.passphraseFlag(cmd)
	a.passwordFlag(cmd)
	return cmd
}

func (a *app) restore(cmd *cobra.Command, f restoreFlags, name string) error {
	ctx := cmd.Context()
	if a.term == nil && !f.list && a.secretFD == noFD && a.pinFD == noFD {
		return needFlag("the secret of the backup", "--secret-fd N or --pin-fd N")
	}
	if err := a.checkGuardianFlags(); err != nil {
		return err
	}
	if a.term == nil && !f.list && !f.preview && !f.yes {
		return needFlag("a confirmation", "--yes")
	}
	places, found, findErr := a.search(ctx, f)
	if len(found) == 0 {
		return findErr
	}
	if f.list {
		if err := a.listFound(found); err != nil {
			return err
		}
		return findErr
	}
	if findErr != nil {
		// What was found can be restored; what was not seen is said.
		a.note("%s", errorText(findErr))
	}
	chosen, err := a.pick(ctx, found, name)
	if err != nil {
		return err
	}
	if !f.preview {
		if err := a.foundHere(ctx, *chosen); err != nil {
			return err
		}
	}
	var bip39 satchel.RestoreOptions
	var o *satchel.Opened
	if a.term != nil && a.secretFD == noFD && a.pinFD == noFD {
		a.term.print("\nOpening %s with %s.\n", a.term.strong(foundName(*chosen)), wayNames(chosen.Slots))
	}
	pin := pinWay{chosen.PINSlots, func(ctx context.Context, s satchel.PINSlot, pin, passphrase secret.Bytes) (told []guard.Told, err error) {
		o, told, err = chosen.OpenPIN(ctx, s, pin, passphrase)
		return told, err
	}}
	typed, err := a.openWith(ctx, chosen.Slots, pin, func(way slot.Secret) (err error) {
		a.unknown.take() // Those of slots that nothing has vouched for.
		a.progress.update(satchel.Progress{Stage: satchel.OpeningKey})
		o, err = chosen.Open(ctx, way)
		return err
	})
	if err != nil {
		return err
	}
	a.progress.pause()
	bip39.BIP39Passphrase = typed.bip39Passphrase
	if o, err = a.askNewest(ctx, chosen, o, typed, f.yes); err != nil {
		return err
	}
	if f.snapshot != "" {
		if o, err = o.At(ctx, f.snapshot); err != nil {
			return err
		}
		a.progress.pause()
	}
	p := o.Preview()
	a.sayPreview(p, missingOf(ctx, o))
	if f.preview {
		if err := a.emit(toPreviewJSON(p)); err != nil {
			return err
		}
		return p.Problem
	}
	if err := a.settle(ctx, &p, &o, f, &bip39); err != nil {
		return err
	}
	if p.PassphraseNeeded && p.Kind != wallet.KindAezeed && bip39.BIP39Passphrase.Empty() {
		if bip39.BIP39Passphrase, err = a.askNeededPassphrase(ctx); err != nil {
			return err
		}
	}
	if p.KeysDropped {
		if bip39.Keys, err = a.droppedKeys(ctx, p, typed); err != nil {
			return err
		}
	}
	if f.fits != nil {
		if err := f.fits(ctx, o); err != nil {
			return err
		}
	}
	return a.bringBack(ctx, o, p, f, bip39, places, chosen, typed.told)
}

// askNewest opens a backup again if key servers can say whether it is the newest, that this
// device does not know, and the user lets them be asked. That they are its own is certain
// here, since the state that was opened names them; they learn that somebody asks.
func (a *app) askNewest(ctx context.Context, f *satchel.Found, o *satchel.Opened, typed opened, yes bool) (*satchel.Opened, error) {
	servers, refused := a.unknown.take()
	if len(servers) == 0 || !typed.pin.Empty() {
		return o, nil
	}
	switch {
	case a.trustGuardians:
	case a.term == nil || yes || refused:
		a.note("whether this is the newest state was not checked: this device does not know the key servers that could say so: %s; name each with --guardian, or say --trust-guardians", strings.Join(servers, ", "))
		return o, nil
	default:
		a.term.print("\nThe key servers of its PIN could say whether this is the newest state, and this\ndevice does not know them:\n")
		for _, name := range servers {
			a.term.print("  %s\n", printable(name))
		}
		ok, err := a.term.yes(ctx, "Ask them? They learn that somebody asks, and nothing else.", false)
		if err != nil {
			return nil, err
		}
		if !ok {
			a.unknown.refuse(servers)
			a.term.print("They were not asked: if this is an old copy, that does not show.\n")
			return o, nil
		}
	}
	a.allowed = append(a.allowed, servers...)
	o, err := f.Open(ctx, typed.way)
	a.progress.pause()
	return o, err
}

// searchPlaces opens the places to look in.
func (a *app) searchPlaces(ctx context.Context, from []string) ([]store.Place, error) {
	var places []store.Place
	for _, address := range from {
		p, err := a.choosePlace(ctx, address, false)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(places, func(q store.Place) bool { return q.Address == p.Address }) {
			places = append(places, p)
		}
	}
	if len(from) > 0 {
		return places, nil
	}
	places, err := a.likelyPlaces()
	if err != nil {
		return nil, err
	}
	if len(places) > 0 || a.term == nil {
		if len(places) == 0 {
			return nil, &hintedError{
				fmt.Errorf("no folder that is kept in sync and no drive was found on this machine: %w", satchel.ErrNoBackup),
				"say where the backup is: satchel restore --from FOLDER",
			}
		}
		return places, nil
	}
	a.term.print("No folder of Nextcloud, Dropbox, iCloud, Google Drive, OneDrive or Syncthing\nand no drive was found on this machine. Where is the backup? It is a folder\nwhose name begins with %s.\n\n", seal.FolderPrefix)
	for {
		typed, err := a.askAddress(ctx)
		if err != nil {
			return nil, err
		}
		if typed == "" {
			continue
		}
		p, err := a.choosePlace(ctx, typed, false)
		if err == nil {
			return []store.Place{p}, nil
		}
		a.term.print("%s\n", didNotWork(err))
	}
}

// search looks for backups. On a terminal, if there are none, it asks for another
// folder to look in, and never offers a new wallet (R6).
func (a *app) search(ctx context.Context, f restoreFlags) ([]store.Place, []satchel.Found, error) {
	from := f.from
	for {
		places, err := a.searchPlaces(ctx, from)
		if err != nil {
			return nil, nil, err
		}
		found, err := satchel.Find(ctx, satchel.Config{Places: places, Progress: a.progress.update, Now: a.now, Guardians: a.guardClient()})
		a.progress.pause()
		if len(found) > 0 || ctx.Err() != nil {
			return places, found, err
		}
		err = plainly(err, places)
		if errors.Is(err, satchel.ErrNoBackup) && len(from) > 0 {
			err = &hintedError{err, "is it another account or another folder, or not synced yet? without --from, satchel looks in all folders it knows; a backup can also be copied here, its folder as it is"}
		}
		if a.term == nil || f.list {
			return nil, nil, err
		}
		a.term.print("%s\n%s\n\n", wrap("No backup there: "+errorText(err)+"."), wrap("Next: "+hintFor(err)+"."))
		typed, lineErr := a.term.line(ctx, "Another folder or address to look in (Enter to stop): ")
		if lineErr != nil {
			return nil, nil, lineErr
		}
		if typed == "" {
			return nil, nil, err
		}
		from = []string{a.expandHome(typed)}
	}
}

// plainly says of folders that are empty or not there just that.
func plainly(err error, places []store.Place) error {
	if !errors.Is(err, store.ErrUnreachable) {
		return err
	}
	var texts []string
	for _, p := range places {
		dir, ok := strings.CutPrefix(p.Address, "folder:")
		if !ok {
			return err
		}
		entries, dirErr := os.ReadDir(dir)
		switch {
		case errors.Is(dirErr, fs.ErrNotExist):
			texts = append(texts, "the folder "+printable(dir)+" is not there")
		case dirErr == nil && len(entries) == 0:
			texts = append(texts, "the folder "+printable(dir)+" is empty")
		default:
			return err // More is to be said.
		}
	}
	return &hintedError{&plainError{strings.Join(texts, "; "), err},
		"is its drive connected, has it been synced? this does not mean that there is no backup; --from names another folder"}
}

// plainError is an error in plain words.
type plainError struct {
	text string
	err  error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }

func foundName(f satchel.Found) string {
	if f.Label == "" {
		return printable(f.Folder)
	}
	return printable(f.Label)
}

func foundTime(f satchel.Found) time.Time {
	if !f.Modified.IsZero() {
		return f.Modified
	}
	return f.Created
}

// foundList is the numbered list of backups.
func (a *app) foundList(found []satchel.Found) string {
	devices, _ := a.devices()
	var b strings.Builder
	for i, f := range found {
		whose := "fingerprint sealed"
		if d := deviceOf(devices, f); d != nil {
			whose = whichWallet(d.info.Kind, d.info.Fingerprint) + " (on this device)"
		}
		network := ""
		if f.Network != "" && f.Network != wallet.Mainnet {
			network = " (" + printable(string(f.Network)) + ")"
		}
		fmt.Fprintf(&b, "%3d  %s%s\n", i+1, a.bold(foundName(f)), network)
		fmt.Fprintf(&b, "     saved %s, generation %d, %s\n", moment(foundTime(f)), f.Generation, whose)
		fmt.Fprintf(&b, "     opens with %s\n", wayNames(f.Slots))
		for _, p := range f.Places {
			late := ""
			if p.Generation < f.Generation || p.Epoch < f.Epoch {
				late = fmt.Sprintf(" (only generation %d)", p.Generation)
			}
			fmt.Fprintf(&b, "     %s%s\n", printable(p.Place.Address), late)
		}
		fmt.Fprintf(&b, "     %s\n", printable(f.Folder))
	}
	return b.String()
}

// bold is for results: only where they go to a terminal.
func (a *app) bold(s string) string {
	if _, tty := asTerminal(a.stdout); !tty || a.term == nil {
		return s
	}
	return a.term.strong(s)
}

func (a *app) listFound(found []satchel.Found) error {
	if !a.json {
		a.say("%s", strings.TrimRight(a.foundList(found), "\n"))
		return nil
	}
	type foundPlaceJSON struct {
		Address    string `json:"address"`
		Epoch      uint64 `json:"epoch"`
		Generation uint64 `json:"generation"`
	}
	type foundJSON struct {
		Label       string           `json:"label"`
		Folder      string           `json:"folder"`
		ID          string           `json:"id"`
		Network     wallet.Network   `json:"network"`
		Created     *time.Time       `json:"created"`
		Modified    *time.Time       `json:"modified"`
		Epoch       uint64           `json:"epoch"`
		Generation  uint64           `json:"generation"`
		Fingerprint string           `json:"fingerprint"`
		Here        bool             `json:"here"`
		Slots       []slot.Kind      `json:"slots"`
		Places      []foundPlaceJSON `json:"places"`
	}
	devices, _ := a.devices()
	for _, f := range found {
		fingerprint := ""
		d := deviceOf(devices, f)
		if d != nil {
			fingerprint = d.info.Fingerprint
		}
		j := foundJSON{f.Label, f.Folder, f.ID, f.Network, stamp(f.Created), stamp(f.Modified), f.Epoch, f.Generation,
			fingerprint, d != nil, append([]slot.Kind{}, f.Slots...), []foundPlaceJSON{}}
		for _, p := range f.Places {
			j.Places = append(j.Places, foundPlaceJSON{p.Place.Address, p.Epoch, p.Generation})
		}
		if err := a.emit(j); err != nil {
			return err
		}
	}
	return nil
}

// pick chooses one of the backups that were found.
func (a *app) pick(ctx context.Context, found []satchel.Found, name string) (*satchel.Found, error) {
	match := found
	if name != "" {
		match = matchingFound(found, name)
	}
	switch {
	case len(match) == 0:
		return nil, &usageError{text: "no backup of this name was found: " + printable(name), hint: "`satchel restore --list` lists them"}
	case len(match) == 1 && (name != "" || a.term == nil):
		return &match[0], nil
	case a.term == nil:
		var names []string
		for _, f := range match {
			names = append(names, printable(f.Folder))
		}
		return nil, &usageError{text: "there are several backups", hint: "say which: satchel restore " + orList(names)}
	}
	a.term.print("%s:\n\n%s\n", upperFirst(isAre(len(match), "backup")), a.foundList(match))
	if len(match) == 1 {
		ok, err := a.term.yes(ctx, "Open this one?", true)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, &hintedError{errDeclined, "to look elsewhere: satchel restore --from FOLDER"}
		}
		return &match[0], nil
	}
	for {
		typed, err := a.term.line(ctx, "Which one? Number: ")
		if err != nil {
			return nil, err
		}
		var n int
		if _, err := fmt.Sscanf(typed, "%d", &n); err == nil && n >= 1 && n <= len(match) {
			return &match[n-1], nil
		}
		a.term.print("Please type a number from 1 to %d.\n", len(match))
	}
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func matchingFound(found []satchel.Found, name string) []satchel.Found {
	var exact, prefix []satchel.Found
	for _, f := range found {
		names := []string{f.Label, f.Folder, strings.TrimPrefix(f.Folder, seal.FolderPrefix), f.ID}
		if slices.Contains(names, name) {
			exact = append(exact, f)
		}
		if slices.ContainsFunc(names, func(s string) bool { return strings.HasPrefix(s, name) }) {
			prefix = append(prefix, f)
		}
	}
	if len(exact) > 0 {
		return exact
	}
	return prefix
}

type candidateJSON struct {
	Snapshot   string `json:"snapshot"`
	Epoch      uint64 `json:"epoch"`
	Generation uint64 `json:"generation"`
	Device     string `json:"device"`
}

type problemJSON struct {
	Error string `json:"error"`
	Code  int    `json:"code"`
}

type previewJSON struct {
	ID               string          `json:"id"`
	Label            string          `json:"label"`
	Network          wallet.Network  `json:"network"`
	Kind             wallet.Kind     `json:"kind"`
	Fingerprint      string          `json:"fingerprint"`
	Addresses        []string        `json:"addresses"`
	PassphraseNeeded bool            `json:"passphrase_needed"`
	KeysDropped      bool            `json:"keys_dropped"`
	Snapshot         string          `json:"snapshot"`
	Epoch            uint64          `json:"epoch"`
	Generation       uint64          `json:"generation"`
	Saved            *time.Time      `json:"saved"`
	Software         string          `json:"software"`
	Device           string          `json:"device"`
	Items            []itemJSON      `json:"items"`
	Slots            []slotJSON      `json:"slots"`
	Problem          *problemJSON    `json:"problem"`
	Warnings         []string        `json:"warnings"`
	Others           []candidateJSON `json:"others"`
}

func toPreviewJSON(p satchel.Preview) previewJSON {
	j := previewJSON{p.ID, p.Label, p.Network, p.Kind, p.Fingerprint, append([]string{}, p.Addresses...), p.PassphraseNeeded, p.KeysDropped, p.Snapshot, p.Epoch,
		p.Generation, stamp(p.Saved), p.Software, p.Device, []itemJSON{}, slotsJSON(p.Slots), nil,
		append([]string{}, p.Warnings...), []candidateJSON{}}
	for _, i := range p.Items {
		j.Items = append(j.Items, toItemJSON(i))
	}
	for _, c := range p.Others {
		j.Others = append(j.Others, candidateJSON{c.Snapshot, c.Epoch, c.Generation, c.Device})
	}
	if p.Problem != nil {
		j.Problem = &problemJSON{errorText(p.Problem), int(codeOf(p.Problem))}
	}
	return j
}

// sayPreview describes a state of a backup.
func (a *app) sayPreview(p satchel.Preview, missing missingItems) {
	a.say("")
	a.say("Wallet        %s (%s)", a.bold(printable(p.Label)), p.Network)
	switch {
	case p.Kind == wallet.KindAezeed:
		a.say("Keys          %s", lndWords)
	case p.Fingerprint != "":
		a.say("Fingerprint   %s", a.bold(p.Fingerprint))
	case p.PassphraseNeeded:
		a.say("Fingerprint   needs the BIP 39 passphrase of the wallet")
	default:
		a.say("Fingerprint   cannot be read")
	}
	if len(p.Addresses) > 0 {
		a.say("First address %s", p.Addresses[0])
	}
	a.say("Saved         %s, generation %d", moment(p.Saved), p.Generation)
	a.say("Written by    %s on device %s", printable(p.Software), shortID(p.Device))
	a.say("Opens with    %s", wayNames(slotKinds(p.Slots)))
	a.say("")
	a.sayItems(p.Items)
	for _, w := range p.Warnings {
		a.say("")
		a.say("%s", wrap("Note: "+strings.TrimSuffix(printable(w), ".")+"."))
	}
	if p.Problem != nil {
		a.say("")
		a.say("%s", wrap("Problem: the newest state cannot be restored as it is: "+errorText(p.Problem)+"."))
		if len(missing.names) == 0 {
			a.say("What is described above is the newest state that is whole.")
		} else {
			a.say("%s", wrap("What is described above is not whole: no place holds "+missing.text()+"."))
		}
	}
	if len(p.Others) > 0 && (p.Problem != nil || a.verbose) {
		a.say("")
		a.say("Other states that can be restored with --snapshot:")
		for _, c := range p.Others {
			a.say("  generation %d of device %s", c.Generation, shortID(c.Device))
			a.say("    %s", c.Snapshot)
		}
	}
	a.say("")
}

func shortID(id string) string {
	if len(id) > 4 {
		return id[:4]
	}
	return printable(id)
}

// missingItems are the required items of a state with a problem that no place holds.
type missingItems struct {
	names []string
	cause bool // one of them is the problem
}

// missingOf looks which required items of a state that has a problem cannot be had.
func missingOf(ctx context.Context, o *satchel.Opened) (m missingItems) {
	p := o.Preview()
	if p.Problem == nil {
		return m // Restore finds out.
	}
	for _, i := range p.Items {
		if !i.Required && !seal.OwnerItem(i.Name) {
			continue
		}
		_, err := o.Value(ctx, i.Name)
		for _, fact := range []error{satchel.ErrMissing, seal.ErrDamaged, seal.ErrForged, seal.ErrNotOurs, seal.ErrNewer} {
			if errors.Is(err, fact) {
				m.names = append(m.names, i.Name)
				m.cause = m.cause || err.Error() == p.Problem.Error()
				break
			}
		}
	}
	return m
}

func (m missingItems) text() string {
	var list []string
	for _, name := range m.names {
		text := "the item " + printable(name)
		switch name {
		case seal.ItemKeys:
			text += ", the words of the wallet, without which nothing can be spent"
		case seal.ItemDescriptors:
			text += ", which say what its addresses are"
		}
		list = append(list, text)
	}
	return strings.Join(list, "; ")
}

// incompleteHint says what to do about required items that are in no place.
const incompleteHint = "nothing was restored or taken over: look in another place (--from), or at an older state (--preview, --snapshot); --incomplete restores the rest without what is missing"

// settleMissing lets the user decide about required items that cannot be had.
func (a *app) settleMissing(ctx context.Context, m missingItems, f restoreFlags) error {
	if len(m.names) == 0 || f.lacking {
		return nil
	}
	if a.term == nil || f.yes {
		return &hintedError{&satchel.IncompleteError{Items: m.names}, incompleteHint}
	}
	ok, err := a.term.yes(ctx, wrap("No place holds "+m.text()+". This device would take over the backup without that.")+"\nRestore the rest?", false)
	if err != nil {
		return err
	}
	if !ok {
		return &hintedError{errDeclined, incompleteHint}
	}
	return nil
}

// settle lets the user decide about a newest state that cannot be taken as it
// is. There is never a silent fallback, and what is missing is accepted for itself.
func (a *app) settle(ctx context.Context, p *satchel.Preview, o **satchel.Opened, f restoreFlags, opts *satchel.RestoreOptions) error {
	missing := missingOf(ctx, *o)
	opts.AcceptProblem = f.lacking
	if p.Problem == nil {
		return nil
	}
	if f.accept || f.snapshot != "" || f.lacking && missing.cause {
		opts.AcceptProblem = true
		return a.settleMissing(ctx, missing, f)
	}
	if a.term == nil || f.yes {
		if missing.cause {
			return a.settleMissing(ctx, missing, f)
		}
		return &hintedError{p.Problem, "the newest whole state was shown; take it with --accept-problem, or another one with --snapshot NAME"}
	}
	for {
		options := []string{fmt.Sprintf("Restore what is described above: generation %d of %s", p.Generation, moment(p.Saved))}
		for _, c := range p.Others {
			options = append(options, fmt.Sprintf("Look at generation %d of device %s", c.Generation, shortID(c.Device)))
		}
		options = append(options, "Restore nothing now (nothing is lost by waiting)")
		n, err := a.term.choose(ctx, "What would you like to do?", options, len(options)-1)
		switch {
		case err != nil:
			return err
		case n == len(options)-1:
			return &hintedError{p.Problem, "nothing was restored or changed; another place may hold a whole copy"}
		case n == 0:
			opts.AcceptProblem = true
			return a.settleMissing(ctx, missing, f)
		}
		other, err := (*o).At(ctx, p.Others[n-1].Snapshot)
		a.progress.pause()
		if err != nil {
			a.term.print("%s\n\n", wrap("That one cannot be restored: "+errorText(err)+"."))
			continue
		}
		problem := p.Problem
		*o, *p, missing = other, other.Preview(), missingOf(ctx, other)
		a.sayPreview(*p, missing)
		if p.Problem == nil {
			p.Problem = problem // what the user decides about is still there
		}
	}
}

func (a *app) askNeededPassphrase(ctx context.Context) (p secret.Bytes, err error) {
	if a.passphraseFD != noFD {
		return a.fromFD(ctx, a.passphraseFD, "--passphrase-fd")
	}
	if a.term == nil {
		a.note("the wallet also needs its BIP 39 passphrase, which is not in the backup: nothing can be compared")
		return p, nil
	}
	a.term.print("This wallet also needs its BIP 39 passphrase, which is not in the backup. With it\nthe wallet can be compared; it is not kept.\n")
	return a.term.secret(ctx, "BIP 39 passphrase (not shown; Enter to go on without): ")
}

// droppedKeys are the keys of a wallet whose backup does not hold them. None means to
// restore the rest without them.
func (a *app) droppedKeys(ctx context.Context, p satchel.Preview, typed opened) (wallet.Keys, error) {
	if typed.words.Count() == 0 && a.wordsFD == noFD {
		if a.term == nil {
			a.note("the words are not in this backup: without --words-fd the wallet is not compared, and cannot spend here")
			return wallet.Keys{}, nil
		}
		a.term.print("The words of this wallet are not in the backup: its owner wrote them down. With\nthem it can spend and is compared; they are kept on this device only.\n")
		ok, err := a.term.yes(ctx, "Type them now? (Without them the rest is restored.)", true)
		if err != nil || !ok {
			return wallet.Keys{}, err
		}
	}
	return a.keysOf(ctx, p.Kind, p.Network, p.Fingerprint, typed, true)
}

// keysOf makes the keys of a known wallet from its words: those that opened the backup,
// or that are typed now. If they are optional, none at all are no keys.
func (a *app) keysOf(ctx context.Context, kind wallet.Kind, network wallet.Network, fingerprint string, typed opened, optional bool) (wallet.Keys, error) {
	if kind == wallet.KindAezeed {
		return a.nodeWords(ctx, network, optional)
	}
	words, passphrase := typed.words, typed.bip39Passphrase
	for try := 1; ; try++ {
		var err error
		switch {
		case words.Count() > 0:
		case a.wordsFD != noFD:
			line, lineErr := a.fromFD(ctx, a.wordsFD, "--words-fd")
			if lineErr != nil {
				return wallet.Keys{}, lineErr
			}
			words, err = wallet.ParseWords(line)
		default:
			words, err = a.typeWords(ctx, optional)
		}
		if err != nil || words.Count() == 0 {
			return wallet.Keys{}, err
		}
		keys, err := wallet.Import(words, wallet.ImportConfig{Network: network, Passphrase: passphrase})
		if err == nil && keys.Fingerprint() != fingerprint && passphrase.Empty() {
			if passphrase, err = a.perhapsPassphrase(ctx); err == nil && !passphrase.Empty() {
				keys, err = wallet.Import(words, wallet.ImportConfig{Network: network, Passphrase: passphrase})
			}
		}
		if err != nil {
			return wallet.Keys{}, err
		}
		if keys.Fingerprint() == fingerprint {
			return keys, nil
		}
		other := fmt.Errorf("%w: these words have the fingerprint %s, the backup is of %s", satchel.ErrWrongWallet, keys.Fingerprint(), fingerprint)
		if a.term == nil || a.wordsFD != noFD || try == askTries {
			return wallet.Keys{}, other
		}
		a.term.print("%s\n", wrap("Not yet: "+errorText(other)+"."))
		words, passphrase = wallet.Words{}, secret.Bytes{}
	}
}

// perhapsPassphrase asks for a BIP 39 passphrase that the wallet may have: empty if
// nobody can be asked.
func (a *app) perhapsPassphrase(ctx context.Context) (secret.Bytes, error) {
	if a.passphraseFD != noFD {
		return a.fromFD(ctx, a.passphraseFD, "--passphrase-fd")
	}
	if a.term == nil || a.wordsFD != noFD {
		return secret.Bytes{}, nil
	}
	a.term.print("These words are well-formed, but alone they are another wallet.\n")
	return a.term.secret(ctx, "BIP 39 passphrase of the wallet (not shown; Enter if it has none): ")
}

// bringBack restores what was opened.
func (a *app) bringBack(ctx context.Context, o *satchel.Opened, p satchel.Preview, f restoreFlags, opts satchel.RestoreOptions, places []store.Place, chosen *satchel.Found, told []guard.Told) error {
	broken, err := a.alreadyHere(ctx, p.ID)
	if err != nil {
		return err
	}
	if broken != nil && !f.aside {
		if a.term == nil {
			return &usageError{
				text: "this wallet is on this device, and cannot be opened here",
				hint: "--set-aside moves it away before the restore; nothing of it is deleted",
			}
		}
		ok, err := a.term.yes(ctx, "This wallet is on this device already, but cannot be opened here. Move that\naside (nothing is deleted) and restore?", false)
		if err != nil {
			return err
		}
		if !ok {
			return errDeclined
		}
	}
	if !f.yes {
		if a.term == nil {
			return needFlag("a confirmation", "--yes")
		}
		if chosen.Epoch > 0 {
			a.term.print("This device becomes the one that writes this backup. If another device still\nuses it, that one will stop.\n")
		}
		ok, err := a.term.yes(ctx, "Restore this wallet to this device?", true)
		if err != nil {
			return err
		}
		if !ok {
			return errDeclined
		}
	}
	wallets, err := a.walletsDir()
	if err != nil {
		return err
	}
	name, err := folderName(p.Label, p.ID)
	if err != nil {
		return err
	}
	if broken != nil {
		to, err := a.setAside(*broken)
		if err != nil {
			return err
		}
		a.note("what was here is now in %s", to)
	}
	var holding []store.Place
	for _, fp := range chosen.Places {
		holding = append(holding, fp.Place)
	}
	if len(holding) == 0 {
		holding = places
	}
	cfg, err := a.config(filepath.Join(wallets, name), holding)
	if err != nil {
		return err
	}
	// Objects of 4 MB come one after another, and most of the memory is what is left of
	// those before: it is collected sooner, which costs little while the network is waited
	// for.
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	b, outcome, err := o.Restore(ctx, cfg, opts)
	a.progress.pause()
	if b == nil && errors.Is(err, satchel.ErrIncomplete) {
		return &hintedError{err, incompleteHint}
	}
	if b == nil {
		return err
	}
	defer b.Close()
	// Those of the PIN that the backup itself lists are known from now on: not those of a
	// slot that somebody put into the folder.
	if keepErr := a.keepGuardians(b.Guardians()); keepErr != nil {
		a.note("the key servers could not be remembered: %s", errorText(keepErr))
	}
	if f.restored != nil {
		f.restored(o)
	}
	return a.restored(b, outcome, told, err)
}

// foundHere returns an error if the backup is of a wallet that is on this device and
// works: before a secret is typed for nothing. Where folder and id do not tell, it is
// seen once the backup is open.
func (a *app) foundHere(ctx context.Context, f satchel.Found) error {
	devices, err := a.devices()
	if err != nil {
		return err
	}
	d := deviceOf(devices, f)
	if i := slices.IndexFunc(devices, func(d device) bool { return d.info.Folder == f.Folder && d.info.ID == f.ID }); i >= 0 {
		d = &devices[i]
	}
	if d == nil {
		return nil
	}
	_, err = a.alreadyHere(ctx, d.info.ID)
	return err
}

// alreadyHere returns an error if the wallet is on this device and works, or may
// work again, and the device if its key is lost or it is damaged.
func (a *app) alreadyHere(ctx context.Context, id string) (*device, error) {
	devices, err := a.devices()
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		if d.info.ID != id {
			continue
		}
		b, err := a.openDevice(ctx, d)
		if err == nil {
			b.Close()
			return nil, &hintedError{
				alreadyError(printable(d.name)),
				"to restore it anew, first `satchel forget --wallet " + d.name + "`; the backup stays where it is",
			}
		}
		for _, lost := range []error{satchel.ErrDeviceKey, seal.ErrDamaged, durable.ErrCorrupt} {
			if errors.Is(err, lost) {
				return &d, nil
			}
		}
		return nil, err
	}
	return nil, nil
}

// alreadyError says that the wallet of this name is on this device. Its code is that
// of a wallet that is not overwritten.
type alreadyError string

func (e alreadyError) Error() string        { return string(e) + " is on this device already" }
func (e alreadyError) Is(target error) bool { return target == satchel.ErrWrongWallet }

// watchAgain says how the files of a wallet that was restored are saved again.
func (a *app) watchAgain(name string) string {
	w := &watch{app: a, name: name}
	rec, err := w.read()
	running, lockErr := w.running()
	switch {
	case err != nil || lockErr != nil || len(rec.all()) == 0:
		return "Nothing is watched here yet: once they are where they belong, `satchel watch PATH...` saves them again at every change"
	case running:
		return "It is watched here, and that goes on with " + count(len(rec.all()), "path")
	}
	return "Start `satchel watch` again, or the agent (`satchel agent install`): it saves them at every change, and goes on with what was watched here before"
}

func (a *app) restored(b *satchel.Backup, outcome satchel.Outcome, told []guard.Told, err error) error {
	type restoredJSON struct {
		previewJSON
		Restored  bool     `json:"restored"`
		Compared  bool     `json:"compared"`
		Protected bool     `json:"protected"`
		Missing   []string `json:"missing"`

		Guardians []toldJSON `json:"guardians,omitempty"`
	}
	if e := a.emit(restoredJSON{toPreviewJSON(outcome.Preview), true, outcome.Compared, outcome.Protected,
		append([]string{}, outcome.Missing...), toToldJSON(told)}); e != nil {
		return e
	}
	a.say("%s", a.bold("Restored."))
	a.say("")
	a.say("Wallet         %s (%s)", printable(outcome.Label), outcome.Network)
	if outcome.Fingerprint != "" || outcome.Kind == wallet.KindAezeed {
		a.sayWhose(outcome.Kind, outcome.Fingerprint)
	}
	for i, address := range outcome.Addresses {
		title := ""
		if i == 0 {
			title = "Addresses"
		}
		a.say("%-14s %s", title, address)
	}
	if outcome.Compared && outcome.Kind == wallet.KindAezeed {
		a.say("Compared       yes: the words are whole, and those that were backed up; what they")
		a.say("               stand for only lnd can tell")
	} else if outcome.Compared {
		a.say("Compared       yes: fingerprint and addresses were computed anew and are the")
		a.say("               same as when it was backed up")
	} else if outcome.PassphraseNeeded {
		a.say("Compared       no: that needs the BIP 39 passphrase")
	} else {
		a.say("Compared       no: the words are not there to compute them from")
	}
	for _, name := range outcome.Missing {
		a.say("Missing        %s: it could not be had, the rest was restored", printable(name))
	}
	if outcome.Protected {
		a.say("Protected      yes, since %s", moment(b.Status().Verified))
	} else {
		a.say("Protected      no: the places do not know of this device yet")
	}
	if s := b.Status(); len(s.Places) == 1 {
		a.say("Kept in        %s alone, as far as this device knows. A place that", printable(s.Places[0].Address))
		a.say("               the wallet had besides: `satchel store add PLACE --copies 2`")
	}
	if files, err := chooseItems(b.Items(), []string{filesPrefix}); err == nil {
		a.say("Files          %d saved beside the wallet: `satchel get --into DIR` writes", len(files))
		a.say("               them to a folder")
		if name, err := folderName(outcome.Label, outcome.ID); err == nil {
			a.sayHanging("               ", a.watchAgain(name))
		}
	}
	return err
}
