package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/wallet"
)

func (a *app) statusCommand() *cobra.Command {
	var holding string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show whether the wallet is protected",
		Long: `Shows what this device knows of the backup, without asking any place: whether it
is protected and since when, how each place stands and what to do about it, the
ways in, the limit, and what would make the wallet safer. With several wallets on
this device it shows all of them, or the one that --wallet names. "satchel check"
asks the places.

It looks at what "satchel watch" watches, too. If something there is not saved as it
stands, because it cannot be read or is not there, it says so and the exit code is 3.
If neither an agent nor a "satchel watch" runs it says so, and compares the files with what is saved: if
one is new or changed, the code is 3 then. A Lightning node that is backed up is asked for its
channels; if one is not in the backup, or the node does not answer, the code is 3; so it is if
a restore of the node was cut short.

With --holding it also says whether that amount is above the limit that "satchel
limit" set; then the exit code is 3.

JSON, one object a wallet: id, name, label, folder, network, kind (of
the keys: bip39, aezeed, xprv), fingerprint ("" for aezeed), created, device, epoch, generation, saved, items, protected, verified, deleted,
copies, places (address, health, generation, verified, error, code), slots (id,
kind), missing (items), keys_dropped, words_written (when, or null), drilled (when a
restore was last tried and passed, or null), drill_due (when the next is due), limit
(satoshi, 0 if none), next, next_command, rekeying (a directory, if new keys were
begun and not finished), pin_pending (not all key servers know of a new PIN), pin_ending
(key servers that are still to be told that an earlier one ended), pin_lost (key servers
that have no part of the PIN any more), pin_undone (the last change was given up),
anchored (the key servers of the PIN know the newest generation), anchor_error (why they
do not), pin_dead (the PIN, the only way in, opens nothing any more), watched (paths),
left_out (path, error, failed, unsaved), watching (whether an agent or a "satchel watch"
keeps it up to date), lnd (the Lightning node, as of "satchel lnd status"; unconnected if
the keys are those of a node and none is connected, and kept if a backup of its channels
is kept), and with
--holding also holding and above.`,
		Example: `  satchel status
  satchel status --wallet Samantha
  satchel status --holding 0.02btc
  satchel status --json || mail -s "wallet not protected" me@example.org`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly,
			satchel.CodeDamaged),
		RunE: func(cmd *cobra.Command, _ []string) error {
			held, err := parseHolding(holding)
			if err != nil {
				return err
			}
			return a.status(cmd.Context(), held)
		},
	}
	cmd.Flags().StringVar(&holding, "holding", "", holdingHelp)
	return cmd
}

// status shows one wallet or all. held, if not nil, is compared with the limit.
func (a *app) status(ctx context.Context, held *int64) error {
	devices, err := a.devices()
	if err != nil {
		return err
	}
	if len(devices) <= 1 || a.walletName != "" || held != nil {
		d, err := a.device()
		if err != nil {
			return err
		}
		devices = []device{d}
	}
	var first error
	for i, d := range devices {
		if i > 0 {
			a.say("")
			a.say("%s", strings.Repeat("─", helpWidth))
		}
		keys := false
		s, seen, ok := a.statusByAgent(ctx, d)
		if !ok || s.KeysDropped && !a.json { // The agent reads no words.
			b, err := a.openDevice(ctx, d)
			if err != nil {
				if len(devices) == 1 {
					return err
				}
				a.note("%s: %s", d.name, errorText(err))
				if first == nil {
					first = err
				}
				continue
			}
			s = b.Status()
			if s.KeysDropped { // Reading them takes longer than all the rest.
				_, err := b.Keys()
				keys = err == nil
			}
			items, scb := b.Items(), keptSCB(b)
			b.Close()
			seen = a.watched(ctx, d, items, scb)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(devices) > 1 && !a.json {
			a.say("--wallet %s", d.name) // Labels may be the same.
		}
		if err := a.oneStatus(d, s, keys, seen, held); err != nil {
			return err
		}
		if (!s.Protected || s.Deleted || above(s, held) || seen.failed() > 0 || seen.Node.failed()) && first == nil {
			first = errPartly
		}
	}
	if a.broken != nil && a.walletName == "" && (first == nil || errors.Is(first, errPartly)) {
		return a.broken
	}
	return first
}

// busyLook is how long a wallet must be in use before the agent is asked how it stands: it
// may be waiting for a place that hangs, and needs not wait to tell.
const busyLook = 500 * time.Millisecond

// statusByAgent asks the agent how a wallet stands that it has in use for long. ok is false
// if the wallet is free, or the agent does not know.
func (a *app) statusByAgent(ctx context.Context, d device) (s satchel.Status, seen watchedNow, ok bool) {
	if !a.agentRuns() {
		return s, seen, false
	}
	for began := time.Now(); ; pauseFor(ctx, busyPause) {
		lock, err := durable.Disk{}.Lock(filepath.Join(d.dir, "lock"))
		if err == nil {
			lock.Unlock()
		}
		if !errors.Is(err, durable.ErrLocked) || ctx.Err() != nil {
			return s, seen, false
		}
		if time.Since(began) > busyLook {
			break
		}
	}
	var w walletJSON
	if err := a.askAgent(ctx, "/v1/wallets/"+url.PathEscape(d.name), &w); err != nil || w.Status == nil || w.State != sessionWatching {
		return s, seen, false
	}
	return w.Status.status(), w.Status.watchedNow, true
}

// deletedText is what is left of a wallet after "satchel delete".
const deletedText = "The backup was deleted; the wallet is on this device only"

// replacedText is what is left of a wallet after "satchel rekey" was cut short.
const replacedText = "Replaced by a backup with new keys; what is here is left over"

// lookTime is how long a status may take to look at what is watched.
const lookTime = 5 * time.Second

// watchedNow is how what is watched stands.
type watchedNow struct {
	Paths []string   `json:"watched"`
	Left  []leftJSON `json:"left_out"`
	// An agent or a satchel watch keeps the wallet up to date.
	Watching bool `json:"watching"`
	// Node is the Lightning node, if there is one.
	Node *lndNow `json:"lnd,omitempty"`

	err error // it could not be looked at
}

// failed counts what is meant to be saved and is not.
func (w watchedNow) failed() int {
	n := 0
	for _, l := range w.Left {
		if l.Failed {
			n++
		}
	}
	return n
}

// watched looks at what is watched for a wallet, and if nobody does it compares that
// with the items. The Lightning node is asked, and compared with its backup that is kept.
func (a *app) watched(ctx context.Context, d device, items []satchel.ItemInfo, scb func() (keptBackup, error)) (seen watchedNow) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	w := &watch{app: a, name: d.name}
	rec, err := w.read()
	seen = watchedNow{Paths: append([]string{}, rec.all()...), Left: []leftJSON{}, err: err}
	if err != nil {
		return seen
	}
	if seen.Watching, seen.err = w.running(); seen.Watching || seen.err != nil {
		items = nil // What runs saves what changed.
	} else {
		items = append([]satchel.ItemInfo{}, items...)
	}
	seen.Node = a.lndLook(ctx, rec.LND, d.name, scb)
	if seen.Node == nil && d.info.Kind == wallet.KindAezeed && rec.Moved == "" && !a.rekeying(d.name) {
		seen.Node = lndUnconnected(d.info.Network, scb)
	}
	left, err := w.look(ctx, rec, items)
	seen.Left = append(seen.Left, left...)
	if seen.err == nil {
		seen.err = err
	}
	return seen
}

// sayWatched says what is watched, and what of it is not saved.
func (a *app) sayWatched(w watchedNow) {
	failed := w.failed()
	switch {
	case failed == 0 && errors.Is(w.err, context.DeadlineExceeded):
		a.sayField("Watched", count(len(w.Paths), "path")+", not looked at to the end: it takes long; `satchel watch --list` takes its time")
	case failed == 0 && w.err != nil:
		a.sayField("Watched", "not known: "+errorText(w.err))
	case len(w.Paths) == 0:
	case failed > 0:
		text := fmt.Sprintf("%s; %d not saved as it stands: ", count(len(w.Paths), "path"), failed)
		named := 0
		for _, l := range w.Left {
			if l.Failed && named < maxNamed {
				if named++; named > 1 {
					text += ", "
				}
				text += printable(l.Path)
			}
		}
		if failed > named {
			text += " and more"
		}
		a.sayField("Watched", text+"; `satchel watch --list` says why")
	default:
		text := count(len(w.Paths), "path")
		if len(w.Left) > 0 {
			text += fmt.Sprintf("; %d left out, such as links and folders of backups: see `satchel watch --list`", len(w.Left))
		}
		a.sayField("Watched", text)
	}
	if len(w.Paths) > 0 && !w.Watching {
		a.sayField("", notRunning)
	}
	if w.Node != nil {
		a.sayField("Lightning", w.Node.text())
		if !w.Watching && !w.Node.Unconnected {
			a.sayField("", nodeAlone)
		}
	}
}

// statusJSON is how a wallet stands, for a program.
type statusJSON struct {
	ID           string         `json:"id"`
	Name         string         `json:"name"`
	Label        string         `json:"label"`
	Folder       string         `json:"folder"`
	Network      wallet.Network `json:"network"`
	Kind         wallet.Kind    `json:"kind"`
	Fingerprint  string         `json:"fingerprint"`
	Created      *time.Time     `json:"created"`
	Device       string         `json:"device"`
	Epoch        uint64         `json:"epoch"`
	Generation   uint64         `json:"generation"`
	Saved        *time.Time     `json:"saved"`
	Items        int            `json:"items"`
	Protected    bool           `json:"protected"`
	Verified     *time.Time     `json:"verified"`
	Deleted      bool           `json:"deleted"`
	Copies       int            `json:"copies"`
	Places       []placeJSON    `json:"places"`
	Slots        []slotJSON     `json:"slots"`
	Missing      []string       `json:"missing"`
	KeysDropped  bool           `json:"keys_dropped"`
	WordsWritten *time.Time     `json:"words_written"`
	Drilled      *time.Time     `json:"drilled"`
	DrillDue     *time.Time     `json:"drill_due"`
	Limit        int64          `json:"limit"`
	nextJSON
	Rekeying string `json:"rekeying"`
	*holdingJSON
	watchedNow
	PINPending bool     `json:"pin_pending"`
	PINEnding  []string `json:"pin_ending"`
	PINLost    []string `json:"pin_lost"`
	PINUndone  bool     `json:"pin_undone"`
	Anchored   bool     `json:"anchored"`
	AnchorErr  string   `json:"anchor_error,omitempty"`
	PINDead    bool     `json:"pin_dead,omitempty"`
}

func toStatusJSON(name string, s satchel.Status, seen watchedNow, held *int64) statusJSON {
	anchorErr := ""
	if s.AnchorErr != nil {
		anchorErr = errorText(s.AnchorErr)
	}
	return statusJSON{s.ID, name, s.Label, s.Folder, s.Network, s.Kind, s.Fingerprint, stamp(s.Created), s.Device, s.Epoch,
		s.Generation, stamp(s.Saved), s.Items, s.Protected, stamp(s.Verified), s.Deleted, s.Copies, placesJSON(s.Places), slotsJSON(s.Slots),
		append([]string{}, s.Missing...), s.KeysDropped, stamp(s.WordsWritten), stamp(s.Drilled), stamp(agent.DrillDueAt(s, 0)), s.Limit, toNextJSON(s.Next), s.Rekeying,
		toHoldingJSON(held, above(s, held)), seen, s.PINPending, append([]string{}, s.PINEnding...), append([]string{}, s.PINLost...), s.PINUndone, s.Anchored, anchorErr, s.PINDead}
}

// status is what a statusJSON was made of, as far as it is shown to a person.
func (j statusJSON) status() satchel.Status {
	at := func(t *time.Time) time.Time {
		if t == nil {
			return time.Time{}
		}
		return *t
	}
	s := satchel.Status{
		ID: j.ID, Label: j.Label, Folder: j.Folder, Network: j.Network, Kind: j.Kind, Fingerprint: j.Fingerprint, Created: at(j.Created), Device: j.Device, Epoch: j.Epoch,
		Generation: j.Generation, Saved: at(j.Saved), Items: j.Items, Protected: j.Protected, Verified: at(j.Verified), Deleted: j.Deleted, Copies: j.Copies,
		Missing: j.Missing, KeysDropped: j.KeysDropped, WordsWritten: at(j.WordsWritten), Drilled: at(j.Drilled), Limit: j.Limit, Next: j.Next, Rekeying: j.Rekeying,
		PINPending: j.PINPending, PINEnding: j.PINEnding, PINLost: j.PINLost, PINUndone: j.PINUndone, PINDead: j.PINDead, Anchored: j.Anchored,
	}
	if j.AnchorErr != "" {
		s.AnchorErr = errors.New(j.AnchorErr)
	}
	for _, p := range j.Places {
		place := satchel.PlaceStatus{Address: p.Address, Health: p.Health, Generation: p.Generation, Verified: at(p.Verified), Branch: p.Branch}
		if p.Error != "" {
			place.Err = errors.New(p.Error)
		}
		s.Places = append(s.Places, place)
	}
	for _, w := range j.Slots {
		s.Slots = append(s.Slots, satchel.SlotInfo{Kind: w.Kind, ID: w.ID})
	}
	return s
}

func (a *app) oneStatus(d device, s satchel.Status, keys bool, seen watchedNow, held *int64) error {
	if s.Deleted && seen.Node != nil && seen.Node.Unconnected && !seen.Node.Restoring {
		seen.Node = nil // There is no backup that channels could be in.
	}
	if a.json {
		return a.emit(toStatusJSON(d.name, s, seen, held))
	}
	a.say("%s (%s), %s", a.bold(printable(s.Label)), s.Network, whichWallet(s.Kind, s.Fingerprint))
	switch {
	case s.Deleted && s.Rekeying != "":
		a.say("%s", a.bold(replacedText))
	case s.Deleted:
		a.say("%s", a.bold(deletedText))
	case s.Protected:
		a.say("Protected: generation %d, verified %s, %s", s.Generation, moment(s.Verified), count(s.Items, "item"))
	case otherDevice(s):
		a.say("%s from here: another device writes this backup now", a.bold("Not protected"))
		a.say("Last verified: %s", moment(s.Verified))
	case len(s.Missing) > 0:
		a.say("%s: an item is missing, see below", a.bold("Not protected"))
		a.say("Last verified: %s", moment(s.Verified))
	default:
		a.say("%s: generation %d of %s is %s", a.bold("Not protected"), s.Generation, moment(s.Saved),
			notProtected(s.Generation, s.Places, s.Copies))
		a.say("Last verified: %s", moment(s.Verified))
	}
	a.say("Meant for everyday amounts.")
	a.say("")
	a.say("Each place has the folder %s:", printable(s.Folder))
	a.say("")
	a.sayPlaces(s.Places)
	a.say("")
	for _, p := range s.Places {
		if p.Branch != "" {
			a.sayField("Branch", fmt.Sprintf("%s holds %s, which another device wrote beside this history: %s", printable(p.Address), p.Branch, hintFor(satchel.ErrBranch)))
		}
	}
	for i, w := range s.Slots {
		title := ""
		if i == 0 {
			title = "Ways in"
		}
		a.say("%-9s %-18s  slot %s", title, wayName(w.Kind), w.ID)
	}
	a.sayKeyServers(s)
	a.sayWords(s, keys)
	a.sayDrill(s)
	if held != nil {
		a.sayField("Limit", limitText(s, held))
	} else if s.Limit > 0 {
		a.sayField("Limit", amount(s.Limit))
	}
	a.sayWatched(seen)
	for _, name := range s.Missing {
		text := ": a restore had to go on without it; `satchel put` or `satchel backup` with a new value ends that"
		switch name {
		case seal.ItemKeys:
			text = ": a restore had to go on without the words of the wallet. They have to come from paper (`satchel import` makes a wallet of them), or from another place that still holds them (`satchel forget`, then `satchel restore --from`)"
		case seal.ItemDescriptors:
			text = ": a restore had to go on without it. It has to come from another place that still holds it (`satchel forget`, then `satchel restore --from`), or from the words (`satchel import`)"
		}
		a.sayField("Missing", printable(name)+text)
	}
	if s.Rekeying != "" {
		a.sayField("New keys", "begun and not finished: `satchel rekey` finishes or undoes it")
	}
	if !s.Deleted {
		a.sayNext(s.Next)
	}
	return nil
}

// sayKeyServers says what of a PIN is not as it should be.
func (a *app) sayKeyServers(s satchel.Status) {
	if s.PINPending {
		a.sayField("PIN", "not all key servers know of the new one yet: `satchel backup` goes on with it; until then the one before, if there was one, opens too")
	}
	if s.PINDead {
		a.sayField("PIN", "erased after wrong guesses, or gone, and there is no other way in: NOTHING opens the backup any more. This device still has the wallet: `satchel export words`, and `satchel import` makes a new backup")
	}
	if s.PINUndone {
		a.sayField("PIN", "the last change was given up: too many key servers lost their part before they could be told. Whether the PIN before opens it, if there was one, `satchel guardian status` shows; `satchel pin set` or `pin change` tries again")
	}
	if len(s.PINLost) > 0 {
		a.sayField("PIN", strings.Join(s.PINLost, ", ")+" has no part of it any more: it opens with the others; `satchel pin change` sets it anew")
	}
	if len(s.PINEnding) > 0 {
		a.sayField("PIN", strings.Join(s.PINEnding, ", ")+" still has an account of an earlier one, and is told when it answers")
	}
	if s.AnchorErr != nil && !otherDevice(s) {
		a.sayField("Newest", "not all key servers know of the newest state: an older copy of the folder would not show on a restore. `satchel backup` tells them")
		text := errorText(s.AnchorErr)
		if advice := certificateAdvice(text); advice != "" {
			a.sayHanging("  next: ", advice)
		}
		a.sayHanging("  last error: ", text)
	}
}

// sayWords says where the words of the wallet are. keys says that they are here though
// they are not in the backup.
func (a *app) sayWords(s satchel.Status, keys bool) {
	switch {
	case s.KeysDropped && keys:
		a.sayField("Words", "not in the backup: on this device, and where they were written down")
	case s.KeysDropped:
		a.sayField("Words", "neither in the backup nor here: only where they were written down; `satchel words keep` takes them to this device")
	case !s.WordsWritten.IsZero():
		a.sayField("Words", "in the backup, and written down: typed back "+moment(s.WordsWritten))
	}
}

// sayDrill says when a restore was last tried. What is compared every day proves that the
// backup is there, and not that its owner still has what opens it.
func (a *app) sayDrill(s satchel.Status) {
	if s.Deleted {
		return
	}
	text := "no restore was tried yet with these ways in"
	if !s.Drilled.IsZero() {
		text = "a restore was tried " + ago(a.now().Sub(s.Drilled))
	}
	switch {
	case s.Drilled.IsZero():
		text += ": `satchel drill` shows that you have what opens it"
	case !a.now().Before(agent.DrillDueAt(s, 0)):
		text += ": time for the next, `satchel drill`"
	}
	a.sayField("Drill", text)
}

// above reports whether an amount, if one was given, is above the limit.
func above(s satchel.Status, held *int64) bool {
	return held != nil && s.Limit > 0 && *held > s.Limit
}

// otherDevice reports whether another device has become the writer of the backup.
func otherDevice(s satchel.Status) bool {
	return slices.ContainsFunc(s.Places, func(p satchel.PlaceStatus) bool { return p.Health == satchel.HealthOtherDevice })
}
