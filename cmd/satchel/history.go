package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
)

var historyExits = []satchel.Code{satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeWrongSecret, satchel.CodeLocked, satchel.CodeErased, satchel.CodeFewServers,
	satchel.CodeServerLied, satchel.CodeSlotDamaged,
	satchel.CodeDamaged, satchel.CodeNewer, satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeUnreachable, satchel.CodeInterrupted}

const defaultMoments = 20

func (a *app) historyCommand() *cobra.Command {
	var open bool
	var n int
	cmd := &cobra.Command{
		Use:   "history [flags]",
		Short: "List the earlier states of the wallet, and look into one",
		Long: `Lists the states that the places hold, newest first: the generation, when it came
to a place, the device that wrote it, and where it is not in all places. A state
that is not in the history of the newest is a branch: another device wrote it on
its own. It is kept, and shown.

Without a secret the names in the places tell all this. With --open, which asks for
a secret, each state is read: when it was saved by the clock of its device, by which
software, and what changed.

"history show" and "history get" look into one state; "satchel revert" brings it
back.

JSON, one object a state: snapshot, epoch, generation, device, this_device, modified,
size, places, newest, branch, and with --open also saved, software, checkpoint,
changed, removed, error.`,
		Example: `  satchel history
  satchel history --open -n 5
  satchel history show 12
  satchel history get 12 labels -o labels-then.jsonl`,
		Args:        noSuchCommand,
		Annotations: exits(historyExits...),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n < 1 {
				return usagef("-n is 1 or more")
			}
			return a.history(cmd.Context(), open, n)
		},
	}
	cmd.Flags().BoolVar(&open, "open", false, "ask for a secret and say what changed in each")
	cmd.Flags().IntVarP(&n, "number", "n", defaultMoments, "how `many` states, from the newest on")
	a.secretFlag(cmd, "a secret of the backup, for --open,")
	a.passphraseFlag(cmd)
	cmd.AddCommand(a.historyShowCommand(), a.historyGetCommand())
	return cmd
}

func (a *app) history(ctx context.Context, open bool, n int) error {
	b, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	var moments []satchel.Moment
	if open {
		o, err := a.look(ctx, b)
		if err != nil {
			return err
		}
		if moments, err = o.History(ctx, n); err != nil {
			return err
		}
	} else if moments, err = b.History(ctx); len(moments) == 0 && err != nil {
		return err
	}
	a.progress.pause()
	s := b.Status()
	all := len(moments)
	shown := moments[:min(n, all)]
	for _, m := range shown {
		if err := a.emit(toMomentJSON(m, s)); err != nil {
			return err
		}
	}
	a.sayMoments(shown, s)
	if all > n {
		a.say("and %s: -n shows more", count(all-n, "older one"))
	}
	a.sayBranches(moments, s)
	return err
}

type momentJSON struct {
	Snapshot   string     `json:"snapshot"`
	Epoch      uint64     `json:"epoch"`
	Generation uint64     `json:"generation"`
	Device     string     `json:"device"`
	ThisDevice bool       `json:"this_device"`
	Modified   *time.Time `json:"modified"`
	Size       int64      `json:"size"`
	Places     []string   `json:"places"`
	Newest     bool       `json:"newest"`
	Branch     bool       `json:"branch"`
	*readJSON
}

// readJSON is of a state that was read.
type readJSON struct {
	Saved      *time.Time `json:"saved"`
	Software   string     `json:"software"`
	Checkpoint bool       `json:"checkpoint"`
	Changed    []string   `json:"changed"`
	Removed    []string   `json:"removed"`
	Error      string     `json:"error,omitempty"`
}

func toMomentJSON(m satchel.Moment, s satchel.Status) momentJSON {
	j := momentJSON{m.Snapshot, m.Epoch, m.Generation, m.Device, m.Device == s.Device, stamp(m.Modified), m.Size,
		append([]string{}, m.Places...), m.Newest, m.Branch, nil}
	switch {
	case m.Err != nil:
		j.readJSON = &readJSON{Changed: []string{}, Removed: []string{}, Error: errorText(m.Err)}
	case m.Read:
		j.readJSON = &readJSON{stamp(m.Saved), m.Software, m.Whole, append([]string{}, m.Changed...), append([]string{}, m.Removed...), ""}
	}
	return j
}

// sayMoments prints a table of states.
func (a *app) sayMoments(moments []satchel.Moment, s satchel.Status) {
	epochs := slices.ContainsFunc(moments, func(m satchel.Moment) bool { return m.Epoch != moments[0].Epoch })
	read := slices.ContainsFunc(moments, func(m satchel.Moment) bool { return m.Read || m.Err != nil })
	epoch := func(text string) string {
		if !epochs {
			return ""
		}
		return fmt.Sprintf("  %5s", text)
	}
	when := "in a place since"
	if read {
		when = "saved"
	}
	a.say("generation%s  %-16s  device  %8s", epoch("epoch"), when, "size")
	for _, m := range moments {
		at := m.Modified
		if m.Read {
			at = m.Saved
		}
		var notes []string
		if m.Newest {
			notes = append(notes, "newest")
		}
		if m.Branch {
			notes = append(notes, "branch")
		}
		if len(m.Places) < len(s.Places) {
			notes = append(notes, fmt.Sprintf("in %d of %d places", len(m.Places), len(s.Places)))
		}
		line := fmt.Sprintf("%10d%s  %-16s  %-6s  %8s  %s", m.Generation, epoch(strconv.FormatUint(m.Epoch, 10)), known(at), deviceName(m.Device, s), size(m.Size), strings.Join(notes, ", "))
		a.say("%s", strings.TrimRight(line, " "))
		a.sayNames("             changed: ", m.Changed)
		a.sayNames("             removed: ", m.Removed)
		if m.Read && m.Software != "" && m.Software != "satchel/"+satchel.Version {
			a.say("             by %s", printable(m.Software))
		}
		if m.Err != nil {
			a.sayHanging("             cannot be read: ", errorText(m.Err))
		}
	}
}

func (a *app) sayNames(title string, names []string) {
	if len(names) > 0 {
		a.sayHanging(title, printable(strings.Join(names, ", ")))
	}
}

// known prints a time, if there is one.
func known(t time.Time) string {
	if t.IsZero() {
		return "not known"
	}
	return moment(t)
}

// deviceName is how a device is called in a table.
func deviceName(id string, s satchel.Status) string {
	if id == s.Device {
		return "this"
	}
	return shortID(id)
}

// sayBranches explains the branches: the newest state of each device that made one.
func (a *app) sayBranches(moments []satchel.Moment, s satchel.Status) {
	seen := map[string]bool{}
	for _, m := range moments {
		if !m.Branch || seen[m.Device] {
			continue
		}
		seen[m.Device] = true
		who := "Device " + shortID(m.Device)
		if m.Device == s.Device {
			who = "This device, or a copy of it,"
		}
		which := selector(moments, m)
		a.say("")
		text := fmt.Sprintf("%s wrote on its own up to generation %d: that branch is not in the history of the newest state. `satchel history show %s` shows what is in it", who, m.Generation, which)
		if stopped(s, moments) == nil {
			text += fmt.Sprintf(", `satchel revert %s` brings it back. Once nothing of it is needed, `satchel prune --all --branches` deletes it.", which)
		} else {
			text += ", `satchel history get` takes an item out. Only the device that writes this backup now can bring it back or delete it."
		}
		a.say("%s", wrap(text))
	}
}

// stopped returns an error if another device writes the backup now, as far as this one
// knows or the states in the places show: then it is for nothing to ask for a secret.
func stopped(s satchel.Status, moments []satchel.Moment) error {
	if ended(s) {
		return satchel.ErrEnded
	}
	if otherDevice(s) || slices.ContainsFunc(moments, func(m satchel.Moment) bool { return m.Newest && m.Device != s.Device && m.Epoch > s.Epoch }) {
		return satchel.ErrOtherDevice
	}
	return nil
}

// selector is the shortest text that findMoment takes for a state.
func selector(moments []satchel.Moment, m satchel.Moment) string {
	alone := func(fits func(satchel.Moment) bool) bool {
		return !slices.ContainsFunc(moments, func(other satchel.Moment) bool { return other.Snapshot != m.Snapshot && fits(other) })
	}
	if alone(func(o satchel.Moment) bool { return o.Generation == m.Generation }) {
		return strconv.FormatUint(m.Generation, 10)
	}
	// The beginning of the name: epoch, generation, and some of the device.
	for n := strings.Index(m.Snapshot, m.Device); n >= 0 && n < len(m.Snapshot); n += 4 {
		if prefix := m.Snapshot[:n]; alone(func(o satchel.Moment) bool { return strings.HasPrefix(o.Snapshot, prefix) }) {
			return strings.TrimSuffix(prefix, "-")
		}
	}
	return m.Snapshot
}

// findMoment finds the state that is meant by its generation, or by its name in the
// places or the beginning of that.
func findMoment(moments []satchel.Moment, text string) (satchel.Moment, error) {
	generation, err := strconv.ParseUint(text, 10, 64)
	isGeneration := err == nil
	var match []satchel.Moment
	for _, m := range moments {
		if isGeneration && m.Generation == generation || !isGeneration && text != "" && strings.HasPrefix(m.Snapshot, text) {
			match = append(match, m)
		}
	}
	switch len(match) {
	case 1:
		return match[0], nil
	case 0:
		return satchel.Moment{}, &usageError{text: "no such state: " + printable(text), hint: "`satchel history` lists them"}
	}
	var names []string
	for _, m := range match[:min(4, len(match))] {
		names = append(names, fmt.Sprintf("%s (device %s)", selector(moments, m), shortID(m.Device)))
	}
	return satchel.Moment{}, &usageError{text: "several states are called so: " + printable(text), hint: "say which: " + orList(names)}
}

// look asks for a secret and opens the backup as the places hold it.
func (a *app) look(ctx context.Context, b *satchel.Backup) (*satchel.Opened, error) {
	owner, err := a.unlock(ctx, b, "Older states are sealed: they open with a secret of the backup.")
	if err != nil {
		return nil, err
	}
	return owner.Look(ctx)
}

// momentOf finds a state in the places, of the moments that it also returns. That it is there in one of them is enough.
func (a *app) momentOf(ctx context.Context, b *satchel.Backup, text string) (satchel.Moment, []satchel.Moment, error) {
	moments, listErr := b.History(ctx)
	a.progress.pause()
	if len(moments) == 0 && listErr != nil {
		return satchel.Moment{}, nil, listErr
	}
	m, err := findMoment(moments, text)
	if err != nil && listErr != nil {
		return m, moments, errors.Join(listErr, err)
	}
	return m, moments, err
}

// stateAt opens the backup at one of its states.
func (a *app) stateAt(ctx context.Context, b *satchel.Backup, text string) (*satchel.Opened, error) {
	if a.term == nil && a.secretFD == noFD && a.pinFD == noFD {
		return nil, needFlag("a secret of the backup", "--secret-fd N")
	}
	m, _, err := a.momentOf(ctx, b, text)
	if err != nil {
		return nil, err
	}
	o, err := a.look(ctx, b)
	if err != nil {
		return nil, err
	}
	defer a.progress.pause()
	return o.At(ctx, m.Snapshot)
}

func (a *app) historyShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show GENERATION|SNAPSHOT",
		Short: "Show what is in an earlier state",
		Long: `Shows a state of the backup: when it was saved, by which device, and its items. It
is named by its generation, or where that is not enough by the beginning of the
name of its snapshot. It asks for a secret, and changes nothing.

JSON: as of "satchel restore --preview".`,
		Example: `  satchel history show 12
  satchel history show 12 --json --secret-fd 3 3<code`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeMoments,
		Annotations:       exits(historyExits...),
		RunE: func(cmd *cobra.Command, got []string) error {
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			o, err := a.stateAt(cmd.Context(), b, got[0])
			if err != nil {
				return err
			}
			p := o.Preview()
			p.Others = nil
			a.sayPreview(p, missingOf(cmd.Context(), o))
			return a.emit(toPreviewJSON(p))
		},
	}
	a.secretFlag(cmd, "a secret of the backup")
	a.passphraseFlag(cmd)
	return cmd
}

func (a *app) historyGetCommand() *cobra.Command {
	var out string
	var yes bool
	cmd := &cobra.Command{
		Use:   "get GENERATION|SNAPSHOT ITEM",
		Short: "Print an item as it was in an earlier state",
		Long: `Prints the value that an item had, byte for byte, or writes it to a new file that
only you can read. The state is named as for "history show". It asks for a secret,
and changes nothing.

JSON: name, generation (that wrote the value), size, sha256, required, value
(base64).`,
		Example: `  satchel history get 12 labels
  satchel history get 12 file/notes.txt -o notes-then.txt`,
		Args: args(cobra.ExactArgs(2)),
		ValidArgsFunction: func(cmd *cobra.Command, got []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(got) == 1 {
				return a.completeItems()
			}
			return a.completeMoments(cmd, got, begun)
		},
		Annotations: exits(historyExits...),
		RunE: func(cmd *cobra.Command, got []string) error {
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			o, err := a.stateAt(cmd.Context(), b, got[0])
			if err != nil {
				return err
			}
			value, err := o.Value(cmd.Context(), got[1])
			a.progress.pause()
			if err != nil {
				return err
			}
			defer value.Wipe()
			if now, err := b.Get(got[1]); strings.HasPrefix(got[1], "lightning/") && (err != nil || !now.Equal(value)) {
				a.note("%s is not so any more: old channel state may lack channels, and must not take the place of the newest", printable(got[1]))
			}
			return a.sayValue(cmd.Context(), got[1], o.Preview().Items, value, out, yes)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write to this new `file`, mode 0600")
	cmd.Flags().BoolVar(&yes, "yes", false, "print keys without asking")
	a.secretFlag(cmd, "a secret of the backup")
	a.passphraseFlag(cmd)
	return cmd
}

// completeMoments completes the first argument to a generation.
func (a *app) completeMoments(cmd *cobra.Command, got []string, _ string) ([]string, cobra.ShellCompDirective) {
	b, ok := a.glance()
	if !ok || len(got) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer b.Close()
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	moments, _ := b.History(ctx)
	var names []string
	for _, m := range moments[:min(defaultMoments, len(moments))] {
		names = append(names, selector(moments, m))
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}
