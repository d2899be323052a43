package satchel

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
)

// Opened is a backup that was opened with a slot, and not yet restored.
type Opened struct {
	found       *Found
	reader      *reader
	keys        *seal.Keys
	used        seal.SlotName               // the slot that opened
	names       []seal.SnapshotName         // all snapshots by name, newest first
	aliens      map[seal.SnapshotName]bool  // those that are whole and not written with our key
	bad         map[seal.SnapshotName]error // those that no state can be made of
	leftOut     []seal.SnapshotName         // those of places that were left out
	epoch       uint64                      // the latest that key servers know
	heard       []protocol.Head             // the newest states that they know
	dead        []seal.SlotName             // PIN slots that open nothing any more
	ending      []guard.Step                // what ends what is left of them
	state       *state
	newest      seal.SnapshotName          // of the state that load found
	past, made  []seal.SnapshotName        // of that state: state.past and state.chain
	beside      map[seal.SnapshotName]bool // see branches; nil if not known yet
	wallet      *wallet.Keys               // nil if the keys could not be read
	descriptors wallet.Descriptors
	preview     Preview
	warnings    []string
}

// state is what a chain of snapshots adds up to.
type state struct {
	name  seal.SnapshotName
	top   *seal.Snapshot      // the newest of the chain, without its items
	chain []seal.SnapshotName // newest first
	past  []seal.SnapshotName // where the history left earlier epochs; see seal.Snapshot
	items map[string]*entry
	slots []seal.SlotName
	notes []string // what a person should know of how it came about
}

// Preview describes what Restore would bring back.
type Preview struct {
	ID               string
	Label            string
	Network          wallet.Network
	Kind             wallet.Kind
	Fingerprint      string   // of the keys, compared with the descriptors; "" if they cannot be read, and for an lnd node's words (aezeed)
	Addresses        []string // first receive addresses (BIP 84), recomputed; none if a passphrase is needed, or only lnd can tell
	KeysDropped      bool     // the backup does not hold the keys: its owner keeps the words elsewhere
	PassphraseNeeded bool     // the keys need a passphrase that is not in the backup
	Epoch            uint64
	Generation       uint64
	Snapshot         string    // its name
	Saved            time.Time // by the clock of the device that wrote it
	Software         string
	Device           string
	Items            []ItemInfo
	Slots            []SlotInfo

	// Problem is why the newest state cannot be taken without the user's
	// decision: damaged, missing, forged, forked, written in a newer format. What
	// is described above is then the newest state that is whole. Nil if all is
	// well.
	Problem error
	// Warnings are things that a person should know and that stop nothing: a
	// missing slot file, an older device that went on writing, a place that lags.
	Warnings []string
	// Others are older states and other branches that could be restored instead,
	// newest first, at most 20.
	Others []Candidate
}

// Candidate is a state that could be restored, by the name of its snapshot.
type Candidate struct {
	Snapshot   string
	Epoch      uint64
	Generation uint64
	Device     string
}

const maxOthers = 20

// Open opens a found backup with the secret of a slot and verifies its newest
// state. Errors: ErrNoSlot, slot.ErrWrongSecret, ErrSlotDamaged, or those of
// the places. A problem with the newest state is not an error of Open as long as
// some state is whole: see Preview.Problem.
func (f *Found) Open(ctx context.Context, s slot.Secret) (*Opened, error) {
	r, warnings, err := f.reader(ctx)
	if err != nil {
		return nil, err
	}
	f.cfg.progress(OpeningKey, "", 0, 0)
	keys, used, err := r.openSlot(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", f.Folder, err)
	}
	return f.opened(ctx, r, warnings, keys, used)
}

// reader returns a reader of all places that hold the backup, with warnings.
func (f *Found) reader(ctx context.Context) (*reader, []string, error) {
	var places []store.Place
	for _, p := range f.Places {
		places = append(places, p.Place)
	}
	r, warnings, err := newReader(ctx, f.cfg, f.Folder, places)
	if err != nil {
		return nil, nil, err
	}
	for _, err := range f.unlisted {
		warnings = append(warnings, fmt.Sprintf("%v; it may hold a newer backup", err))
		r.unlisted = errors.Join(r.unlisted, err)
	}
	return r, warnings, nil
}

// opened finds the newest state with keys that a slot gave.
func (f *Found) opened(ctx context.Context, r *reader, warnings []string, keys *seal.Keys, used seal.SlotName) (*Opened, error) {
	o := &Opened{found: f, reader: r, keys: keys, used: used, warnings: warnings}
	if f.ID != "" && f.ID != keys.ID().String() {
		o.warnings = append(o.warnings, "backup.json names another backup; what the slot says counts")
	}
	if err := o.load(ctx, used); err != nil {
		return nil, fmt.Errorf("opening %s: %w", f.Folder, err)
	}
	return o, nil
}

// openSlot tries the secret on every slot of its kind.
func (r *reader) openSlot(ctx context.Context, s slot.Secret) (*seal.Keys, seal.SlotName, error) {
	slots := r.slots(func(n seal.SlotName) bool { return n.Kind == string(s.Kind()) })
	if len(slots) == 0 {
		err := fmt.Errorf("%w: %s", ErrNoSlot, s.Kind())
		if len(r.slots(func(n seal.SlotName) bool { return !slot.Kind(n.Kind).Known() })) > 0 {
			err = fmt.Errorf("%w; there are others: %w", err, slot.ErrNewerKind)
		}
		if r.unlisted != nil {
			err = fmt.Errorf("%w where it could be looked for: %w", err, r.unlisted)
		}
		return nil, seal.SlotName{}, err
	}
	// What is no slot at all costs little to find out, and the cheapest are tried
	// first: whoever can write to the place could add any number of others.
	// odd are files with the bytes that their names promise, which Satchel did not
	// write: they only matter where nothing else was found.
	var errs, odd []error
	fail := func(n seal.SlotName, err error) {
		list := &errs
		if errors.Is(err, errOddSlot) || errors.Is(err, slot.ErrParameters) || errors.Is(err, slot.ErrKind) {
			list = &odd
		}
		if len(*list) < maxOthers {
			*list = append(*list, slotError(n, err))
		}
	}
	work := map[seal.SlotName]int{}
	for _, n := range slots {
		data, err := r.fetch(ctx, n.Path(), seal.MaxSlot)
		if ctx.Err() != nil {
			return nil, seal.SlotName{}, ctx.Err()
		}
		if err != nil {
			fail(n, err)
			continue
		}
		var ok bool
		if work[n], ok = slot.WorkFactor(data); !ok {
			delete(work, n)
			fail(n, errOddSlot)
		}
	}
	slots = slices.DeleteFunc(slots, func(n seal.SlotName) bool { _, ok := work[n]; return !ok })
	slices.SortStableFunc(slots, func(a, b seal.SlotName) int { return work[a] - work[b] })
	spent := 0
	for i, n := range slots {
		if spent += 1 << min(work[n], 30); i > 0 && spent > maxWork {
			errs = append(errs, fmt.Errorf("%d more slots were not tried: they would take too long", len(slots)-i))
			break
		}
		data, err := r.fetch(ctx, n.Path(), seal.MaxSlot)
		if err == nil {
			var keys *seal.Keys
			if keys, err = seal.OpenSlot(data, s.Identity()); err == nil {
				return keys, n, nil
			}
		}
		if ctx.Err() != nil {
			return nil, seal.SlotName{}, ctx.Err()
		}
		fail(n, err)
	}
	if len(errs) == 0 {
		errs = odd
	}
	return nil, seal.SlotName{}, errors.Join(errs...)
}

// errOddSlot says that a file is named like a slot and is none.
var errOddSlot = fmt.Errorf("not a slot: %w", seal.ErrDamaged)

// maxWork bounds the rounds of scrypt spent on the slots of one kind: 32 of the
// most expensive that Satchel writes, a minute or so.
const maxWork = 32 << 18

// slotError marks damage of a slot as such. A wrong secret stays one.
func slotError(n seal.SlotName, err error) error {
	switch {
	case errors.Is(err, slot.ErrWrongSecret), errors.Is(err, seal.ErrNewer):
		return err
	case errors.Is(err, seal.ErrDamaged), errors.Is(err, slot.ErrKind), errors.Is(err, slot.ErrParameters), errors.Is(err, ErrMissing):
		return fmt.Errorf("%w: %s: %w", ErrSlotDamaged, n.Path(), err)
	}
	return err
}

// load finds the newest state and describes it.
func (o *Opened) load(ctx context.Context, used seal.SlotName) error {
	first := *o
	problem, err := o.newestWhole(ctx)
	if err != nil {
		return err
	}
	warning := o.heads(ctx)
	headErr := o.compareHeads()
	if errors.Is(headErr, ErrOlder) && problem == nil {
		// The places were listed before the key servers were asked, and a device that
		// writes goes on meanwhile: what is listed after their answer counts.
		later := first
		later.epoch, later.heard = o.epoch, o.heard
		var more []string
		if later.reader, more, err = o.found.reader(ctx); err == nil {
			more = slices.DeleteFunc(more, func(w string) bool { return slices.Contains(first.warnings, w) })
			later.warnings = append(slices.Clone(first.warnings), more...)
			// If a place does not answer any more, the first look may have seen more.
			if now, err := later.newestWhole(ctx); err == nil && later.newest.Compare(o.newest) > 0 {
				*o, problem, headErr = later, now, later.compareHeads()
			}
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case headErr == nil && warning != "":
		o.warnings = append(o.warnings, warning)
	case problem == nil:
		problem = headErr
	case headErr != nil:
		o.warnings = append(o.warnings, headErr.Error()) // What is wrong here says more.
	}
	return o.describe(ctx, used, problem)
}

// newestWhole finds the newest state that is whole. problem is why a newer one is not, or
// why it cannot be taken as it is; err says that there is none.
func (o *Opened) newestWhole(ctx context.Context) (problem, err error) {
	for {
		whole, bad, badErr := o.choose(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		problem, o.bad = cmp.Or(problem, badErr), bad
		if len(whole) > 0 {
			o.state, o.newest = whole[0], whole[0].name
			o.past, o.made = o.state.past, o.state.chain
			if len(whole) > 1 {
				problem = cmp.Or(problem, fmt.Errorf("%w: there are %d snapshots of generation %d", ErrForked, len(whole), o.state.name.Generation))
			}
			break
		}
		if len(bad)+len(o.aliens) < maxTries || len(o.reader.places) == 1 {
			if problem == nil && len(o.aliens) > 0 {
				problem = fmt.Errorf("%d snapshots, and none that was looked at is of this backup: %w", len(o.names), seal.ErrNotOurs)
			}
			if problem == nil {
				problem = fmt.Errorf("the slot opens, and there is no snapshot: %w", ErrMissing)
			}
			if o.reader.unlisted != nil {
				problem = fmt.Errorf("%w; %w", problem, o.reader.unlisted)
			}
			return nil, problem
		}
		// A place full of rubbish must not hide what others hold.
		paths := map[string]bool{}
		for n := range bad {
			paths[n.Path()] = true
		}
		for n := range o.aliens {
			paths[n.Path()] = true
		}
		address, alone := o.reader.leaveOut(paths)
		o.leftOut = append(o.leftOut, alone...)
		o.warnings = append(o.warnings, fmt.Sprintf("%s is left out: it holds very many snapshots that are damaged or not of this backup", address))
	}
	if len(o.aliens) > 0 {
		o.warnings = append(o.warnings, fmt.Sprintf("%d files in snapshots are not of this backup and are left alone, among them %s",
			len(o.aliens), slices.MinFunc(slices.Collect(maps.Keys(o.aliens)), seal.SnapshotName.Compare)))
	}
	if problem == nil && o.newest.Epoch == seal.MaxEpoch {
		problem = ErrEnded
	}
	if problem == nil {
		problem = o.rival(ctx)
	}
	return problem, nil
}

// Bounds of the work on a folder full of bad snapshots.
const (
	maxTries  = 600   // states that are tried
	maxAliens = 20000 // snapshots of others that are looked at; more costs too much time
	maxRivals = 16    // snapshots beside the newest that are looked at
)

// errAlien says that a snapshot is whole and was not written with our key.
var errAlien = errors.New("not a snapshot of this backup")

// choose finds the newest states that are whole: one, or several of one
// generation. err says why a newer one is not. bad are the snapshots that a state
// could not be made of, for whatever reason.
func (o *Opened) choose(ctx context.Context) (whole []*state, bad map[seal.SnapshotName]error, err error) {
	o.names, o.aliens, bad = nil, map[seal.SnapshotName]bool{}, map[seal.SnapshotName]error{}
	o.reader.each(func(path string) {
		if n, ok := seal.ParseSnapshotPath(path); ok {
			o.names = append(o.names, n)
		}
	})
	slices.SortFunc(o.names, func(a, b seal.SnapshotName) int {
		return cmp.Or(b.Compare(a), cmp.Compare(a.Hash, b.Hash), bytes.Compare(a.Device[:], b.Device[:]))
	})
	tried := 0
	for _, n := range o.names {
		if bad[n] != nil {
			continue // Its child told.
		}
		if len(whole) > 0 && n.Compare(whole[0].name) != 0 || tried > maxTries || len(o.aliens) > maxAliens {
			break
		}
		st, chainErr := o.chain(ctx, n, bad)
		switch {
		case chainErr == nil:
			whole = append(whole, st)
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case errors.Is(chainErr, errAlien):
			// Whoever can write to the place can add that, and cannot make ours
			// look like it.
			o.aliens[n] = true
		default:
			tried++
			err = cmp.Or(err, chainErr)
		}
	}
	return whole, bad, err
}

// rival returns ErrForked if a snapshot of the newest epoch is not in the
// history of the newest state: two devices wrote at once, and one was ahead.
func (o *Opened) rival(ctx context.Context) error {
	top := o.state.name
	twice := map[uint64]int{}
	for _, n := range o.names {
		if n.Epoch == top.Epoch && !o.aliens[n] {
			twice[n.Generation]++
		}
	}
	oldest := o.state.chain[len(o.state.chain)-1].Generation
	inChain := map[seal.SnapshotName]bool{}
	for _, n := range o.state.chain {
		inChain[n] = true
	}
	looked, pair := 0, map[uint64]bool{}
	for _, n := range o.names {
		if n.Epoch != top.Epoch || o.aliens[n] || inChain[n] || n.Compare(top) > 0 || n.Device == top.Device && twice[n.Generation] < 2 && n.Generation < oldest {
			continue
		}
		if looked++; looked > maxRivals {
			return nil
		}
		if _, err := o.snapshot(ctx, n); err != nil {
			continue
		}
		if n.Device != top.Device || n.Generation >= oldest || pair[n.Generation] {
			return fmt.Errorf("%w: device %s wrote generation %d, and another device or a copy of it went on to generation %d",
				ErrForked, n.Device, n.Generation, top.Generation)
		}
		pair[n.Generation] = true
	}
	return nil
}

// snapshot fetches, opens and verifies one snapshot.
func (o *Opened) snapshot(ctx context.Context, n seal.SnapshotName) (*seal.Snapshot, error) {
	data, err := o.reader.fetch(ctx, n.Path(), seal.MaxObject)
	if err != nil {
		return nil, err
	}
	s, err := o.keys.OpenSnapshot(n, data)
	if errors.Is(err, seal.ErrNewer) {
		return nil, err
	}
	if err != nil {
		// Its bytes are those that its name promises, so this is not damage.
		return nil, errors.Join(errAlien, err)
	}
	for i := range s.Items {
		if err := o.keys.Verify(&s.Items[i]); err != nil {
			return nil, fmt.Errorf("snapshot %s: %w", n, err)
		}
	}
	return s, nil
}

// chain verifies the snapshots from n back to a checkpoint and adds them up. bad,
// if not nil, are snapshots that are known to lead nowhere; those that are found
// to are added.
func (o *Opened) chain(ctx context.Context, n seal.SnapshotName, bad map[seal.SnapshotName]error) (st *state, err error) {
	st = &state{name: n, items: map[string]*entry{}}
	defer func() {
		if err != nil && bad != nil && !errors.Is(err, errAlien) {
			for _, n := range st.chain {
				bad[n] = err
			}
			st = nil
		}
	}()
	hasSlots := false
	for {
		if err := bad[n]; err != nil {
			return st, err
		}
		st.chain = append(st.chain, n)
		s, err := o.snapshot(ctx, n)
		if err != nil {
			if len(st.chain) > 1 && errors.Is(err, errAlien) {
				// A parent is named by its child, so this is not another's.
				return st, fmt.Errorf("parent of generation %d: %w: %v", n.Generation+1, seal.ErrDamaged, err)
			}
			return st, err
		}
		if st.top == nil {
			st.top = s
		}
		// From the newest to the oldest: what is known already is newer.
		for i := range s.Items {
			l := &s.Items[i]
			newer := st.items[l.Name]
			if newer == nil {
				st.items[l.Name] = newEntry(l, n)
			} else if l.Required && !newer.line.Required {
				// The owner may do that; so may who stole a device key.
				st.notes = append(st.notes, fmt.Sprintf("item %s was required, and is not any more since generation %d", l.Name, newer.line.Version))
			}
		}
		if s.HasSlots && !hasSlots {
			hasSlots, st.slots = true, s.Slots
		}
		s.Items = nil
		if s.Kind == seal.Checkpoint {
			st.past = s.Past
			break
		}
		if len(st.chain) > seal.MaxDeltas || len(st.items) > 2*seal.MaxItems {
			return st, fmt.Errorf("more than %d deltas, or %d items: %w", seal.MaxDeltas, 2*seal.MaxItems, seal.ErrDamaged)
		}
		n = s.Parent
	}
	maps.DeleteFunc(st.items, func(name string, e *entry) bool { return e.line.Removed && !seal.OwnerItem(name) })
	return st, nil
}

// newEntry returns the entry of a line of a snapshot.
func newEntry(l *seal.Item, in seal.SnapshotName) *entry {
	e := &entry{line: *l}
	if l.Inline {
		e.value = l.Data
		e.line.Inline, e.line.Data, e.line.In = false, nil, in
	}
	return e
}

// describe fills the preview of the state and adds what a person should know.
func (o *Opened) describe(ctx context.Context, used seal.SlotName, problem error) error {
	st := o.state
	p := Preview{
		ID: o.keys.ID().String(), Label: o.found.Label,
		Epoch: st.name.Epoch, Generation: st.name.Generation, Snapshot: st.name.String(),
		Saved: st.top.Time, Software: st.top.Software, Device: st.name.Device.String(),
		Items: itemInfos(st.items), Slots: slotInfos(st.slots), Warnings: slices.Clone(o.warnings),
	}
	err := o.describeKeys(ctx, &p)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.Problem = cmp.Or(problem, err)
	p.Warnings = append(p.Warnings, o.slotWarnings(used)...)
	p.Warnings = append(p.Warnings, o.placeWarnings()...)
	p.Warnings = append(p.Warnings, st.notes[:min(len(st.notes), maxOthers)]...)
	if p.Problem == nil && st.name.Generation >= seal.MaxGeneration {
		p.Problem = fmt.Errorf("generation %d is the last there can be, which no honest device reaches: %w", st.name.Generation, seal.ErrDamaged)
	}
	o.describeOthers(ctx, &p)
	o.preview = p
	return nil
}

// describeKeys recomputes fingerprint and addresses from the keys and compares
// them with the descriptors (R15).
func (o *Opened) describeKeys(ctx context.Context, p *Preview) error {
	o.wallet, o.descriptors = nil, wallet.Descriptors{}
	desc, err := o.value(ctx, seal.ItemDescriptors)
	if err != nil {
		return err
	}
	d, err := wallet.ParseDescriptors(desc)
	if err != nil {
		return err
	}
	o.descriptors, p.Network, p.Fingerprint = d, d.Network(), d.Fingerprint()
	p.Kind = kindOf(d.Kind())
	if e := o.state.items[seal.ItemKeys]; e != nil && e.line.Removed {
		p.KeysDropped = true
		p.Warnings = append(p.Warnings, "the words are not in this backup: its owner keeps them elsewhere")
		return nil
	}
	text, err := o.value(ctx, seal.ItemKeys)
	if err != nil {
		return err
	}
	k, err := wallet.ParseKeys(secret.New(text))
	if err != nil {
		return err
	}
	p.Kind = k.Kind()
	switch err := k.Matches(d); {
	case errors.Is(err, wallet.ErrPassphraseNeeded):
		p.PassphraseNeeded = true
	case err != nil:
		return fmt.Errorf("%w: %w", ErrWrongWallet, err)
	case k.Kind() == wallet.KindAezeed:
		p.PassphraseNeeded = k.PassphraseState() == wallet.NeededPassphrase
	default:
		a, err := k.Account(wallet.BIP84, 0)
		if err != nil {
			return err
		}
		if p.Addresses, err = a.Addresses(false, wallet.FirstAddresses); err != nil {
			return err
		}
	}
	o.wallet = &k
	return nil
}

// slotWarnings compares the slots in the places with those that the newest
// state lists.
func (o *Opened) slotWarnings(used seal.SlotName) []string {
	var w []string
	unlisted := 0
	there := map[string]bool{}
	o.reader.each(func(path string) {
		n, ok := seal.ParseSlotPath(path)
		if !ok {
			return
		}
		there[path] = true
		if slices.Contains(o.state.slots, n) {
			return
		}
		if unlisted++; unlisted <= maxOthers {
			w = append(w, fmt.Sprintf("%s is not in the list of slots: it was removed and came back, or is not of this backup", path))
		}
	})
	if unlisted > maxOthers {
		w = append(w, fmt.Sprintf("so are %d more", unlisted-maxOthers))
	}
	for _, n := range o.state.slots {
		if !there[n.Path()] {
			w = append(w, fmt.Sprintf("%s is missing", n.Path()))
		}
	}
	if !slices.Contains(o.state.slots, used) && !used.ID.IsZero() {
		w = append(w, fmt.Sprintf("the slot that was opened, %s, is not in the list of slots", used.Path()))
	}
	return w
}

// placeWarnings names the places that lack the newest state.
func (o *Opened) placeWarnings() []string {
	var w []string
	for i, p := range o.reader.places {
		if !slices.ContainsFunc(o.reader.lists[i], func(ob store.Object) bool { return ob.Name == o.state.name.Path() }) {
			w = append(w, fmt.Sprintf("%s does not hold generation %d", p.Address, o.state.name.Generation))
		}
	}
	return w
}

// describeOthers lists other states: all if there is a problem, and the branches that
// an older device made by writing on.
func (o *Opened) describeOthers(ctx context.Context, p *Preview) {
	branches, err := o.branches(ctx)
	if err != nil {
		p.Warnings = append(p.Warnings, fmt.Sprintf("whether another device wrote on could not be found out: %v", err))
	}
	branches = maps.Clone(branches)
	for _, n := range o.state.chain {
		delete(branches, n)
	}
	ends := map[uint64]uint64{} // epoch → highest generation of a branch
	for _, n := range o.names {
		if o.aliens[n] {
			continue
		}
		if branches[n] && n.Epoch < o.state.name.Epoch {
			ends[n.Epoch] = max(ends[n.Epoch], n.Generation)
		}
		if n != o.state.name && o.bad[n] == nil && (branches[n] || p.Problem != nil) && len(p.Others) < maxOthers {
			p.Others = append(p.Others, Candidate{Snapshot: n.String(), Epoch: n.Epoch, Generation: n.Generation, Device: n.Device.String()})
		}
	}
	for i, e := range slices.Sorted(maps.Keys(ends)) {
		if i == maxOthers {
			break
		}
		p.Warnings = append(p.Warnings, fmt.Sprintf("a device of epoch %d went on writing, up to generation %d, after another had taken over; its branch is kept", e, ends[e]))
	}
}

// Preview describes the state that Restore would bring back.
func (o *Opened) Preview() Preview { return o.preview }

// At returns the same backup at another state, named by a Candidate's Snapshot.
func (o *Opened) At(ctx context.Context, snapshot string) (*Opened, error) {
	n, err := seal.ParseSnapshotName(snapshot)
	if err != nil || !slices.Contains(o.names, n) {
		return nil, fmt.Errorf("snapshot: %w", ErrMissing)
	}
	other := *o
	if other.state, err = other.chain(ctx, n, nil); err != nil {
		return nil, err
	}
	return &other, other.describe(ctx, seal.SlotName{}, nil)
}

// Value fetches and verifies the value of one item.
func (o *Opened) Value(ctx context.Context, name string) (secret.Bytes, error) {
	v, err := o.value(ctx, name)
	return secret.New(v), err
}

func (o *Opened) value(ctx context.Context, name string) ([]byte, error) {
	e := o.state.items[name]
	if e == nil || e.line.Removed {
		return nil, fmt.Errorf("%w: %s", ErrNoItem, name)
	}
	return o.valueOf(ctx, e)
}

// valueOf is value for an entry, of the state or of another one.
func (o *Opened) valueOf(ctx context.Context, e *entry) ([]byte, error) {
	if e.value != nil {
		return e.value, nil
	}
	l, name := &e.line, e.line.Name
	if obj, ok := o.keys.ItemObject(l); ok {
		data, err := o.reader.fetch(ctx, obj.Path(), seal.MaxObject)
		if err != nil {
			return nil, fmt.Errorf("item %s: %w", name, err)
		}
		v, err := o.keys.OpenItem(l, data)
		if err != nil {
			return nil, fmt.Errorf("item %s: %w", name, err)
		}
		return v, nil
	}
	s, err := o.snapshot(ctx, l.In)
	if err != nil {
		return nil, fmt.Errorf("item %s: %w", name, err)
	}
	return carriedValue(l, s.Items)
}
