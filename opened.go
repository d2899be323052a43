package satchel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

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
	names       []seal.SnapshotName // all snapshots by name, newest first
	state       *state
	wallet      *wallet.Keys // nil if the keys could not be read
	descriptors wallet.Descriptors
	preview     Preview
	warnings    []string
}

// state is what a chain of snapshots adds up to.
type state struct {
	name  seal.SnapshotName
	top   *seal.Snapshot // the newest of the chain
	chain []seal.SnapshotName
	sizes []int // bytes of their objects
	items map[string]*entry
	slots []seal.SlotName
}

// Preview describes what Restore would bring back.
type Preview struct {
	ID               string
	Label            string
	Network          wallet.Network
	Fingerprint      string   // of the keys, compared with the descriptors; "" if they cannot be read
	Addresses        []string // first receive addresses (BIP 84), recomputed; none if a passphrase is needed
	PassphraseNeeded bool     // the keys need a BIP 39 passphrase that is not in the backup
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
	var places []store.Place
	for _, p := range f.Places {
		places = append(places, p.Place)
	}
	r, warnings, err := newReader(ctx, f.cfg, f.Folder, places)
	if err != nil {
		return nil, err
	}
	f.cfg.progress(OpeningKey, "", 0, 0)
	keys, used, err := r.openSlot(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", f.Folder, err)
	}
	o := &Opened{found: f, reader: r, keys: keys, warnings: warnings}
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
	var slots []seal.SlotName
	newer := false
	r.each(func(path string) {
		n, ok := seal.ParseSlotPath(path)
		switch {
		case !ok:
		case n.Kind == string(s.Kind()):
			slots = append(slots, n)
		case !slot.Kind(n.Kind).Known():
			newer = true
		}
	})
	if len(slots) == 0 {
		if newer {
			return nil, seal.SlotName{}, fmt.Errorf("%w (%s); the others need a newer Satchel: %w", ErrNoSlot, s.Kind(), slot.ErrNewerKind)
		}
		return nil, seal.SlotName{}, fmt.Errorf("%w: %s", ErrNoSlot, s.Kind())
	}
	var errs []error
	for _, n := range slots {
		data, err := r.fetch(ctx, n.Path())
		if err == nil {
			var keys *seal.Keys
			if keys, err = seal.OpenSlot(data, s.Identity()); err == nil {
				return keys, n, nil
			}
		}
		errs = append(errs, slotError(n, err))
	}
	return nil, seal.SlotName{}, errors.Join(errs...)
}

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
	o.reader.each(func(path string) {
		if n, ok := seal.ParseSnapshotPath(path); ok {
			o.names = append(o.names, n)
		}
	})
	slices.SortFunc(o.names, func(a, b seal.SnapshotName) int {
		if c := b.Compare(a); c != 0 {
			return c
		}
		return slices.Compare([]byte(a.Hash), []byte(b.Hash))
	})
	if len(o.names) == 0 {
		return fmt.Errorf("the slot opens, and there is no snapshot: %w", ErrMissing)
	}
	var problem error
	var whole []*state
	tried := 0
	for i, n := range o.names {
		if len(whole) > 0 && n.Compare(whole[0].name) != 0 {
			break
		}
		if tried++; tried > maxTries {
			break
		}
		st, err := o.chain(ctx, n)
		switch {
		case err == nil:
			whole = append(whole, st)
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errAlien):
			// Whole, and not written with our key: whoever can write to the
			// place can add that, and cannot make ours look like it.
			o.warnings = append(o.warnings, fmt.Sprintf("%s is not of this backup and is left alone", o.names[i].Path()))
			tried--
			if len(o.warnings) > maxTries {
				return fmt.Errorf("%d snapshots are not of this backup: %w", len(o.warnings), seal.ErrNotOurs)
			}
		case problem == nil:
			problem = err
		}
	}
	if len(whole) == 0 {
		if problem == nil {
			problem = fmt.Errorf("no snapshot of this backup: %w", ErrMissing)
		}
		return problem
	}
	o.state = whole[0]
	if len(whole) > 1 {
		problem = fmt.Errorf("%w: there are %d snapshots of generation %d", ErrForked, len(whole), o.state.name.Generation)
	}
	return o.describe(ctx, used, problem)
}

// maxTries bounds the work on a folder full of bad snapshots.
const maxTries = 600

// errAlien says that a snapshot is whole and was not written with our key.
var errAlien = errors.New("not a snapshot of this backup")

// snapshot fetches, opens and verifies one snapshot.
func (o *Opened) snapshot(ctx context.Context, n seal.SnapshotName) (*seal.Snapshot, int, error) {
	data, err := o.reader.fetch(ctx, n.Path())
	if err != nil {
		return nil, 0, err
	}
	s, err := o.keys.OpenSnapshot(n, data)
	if errors.Is(err, seal.ErrNewer) {
		return nil, 0, err
	}
	if err != nil {
		// Its bytes are those that its name promises, so this is not damage.
		return nil, 0, errors.Join(errAlien, err)
	}
	for i := range s.Items {
		if err := o.keys.Verify(&s.Items[i]); err != nil {
			return nil, 0, fmt.Errorf("snapshot %s: %w", n, err)
		}
	}
	return s, len(data), nil
}

// chain verifies the snapshots from n back to a checkpoint and adds them up.
func (o *Opened) chain(ctx context.Context, n seal.SnapshotName) (*state, error) {
	st := &state{name: n, items: map[string]*entry{}}
	var list []*seal.Snapshot
	for {
		s, size, err := o.snapshot(ctx, n)
		if err != nil {
			if len(list) > 0 && errors.Is(err, errAlien) {
				// A parent is named by its child, so this is not another's.
				return nil, fmt.Errorf("parent of generation %d: %w: %v", n.Generation+1, seal.ErrDamaged, err)
			}
			return nil, err
		}
		list = append(list, s)
		st.chain = append(st.chain, n)
		st.sizes = append(st.sizes, size)
		if s.Kind == seal.Checkpoint {
			break
		}
		if len(list) > seal.MaxDeltas {
			return nil, fmt.Errorf("more than %d deltas: %w", seal.MaxDeltas, seal.ErrDamaged)
		}
		n = s.Parent
	}
	slices.Reverse(list)
	slices.Reverse(st.chain)
	slices.Reverse(st.sizes)
	for i, s := range list {
		for j := range s.Items {
			st.apply(&s.Items[j], st.chain[i])
		}
		if s.HasSlots {
			st.slots = s.Slots
		}
	}
	st.top = list[len(list)-1]
	return st, nil
}

// apply adds one line of a snapshot.
func (st *state) apply(l *seal.Item, in seal.SnapshotName) {
	if l.Removed && !seal.OwnerItem(l.Name) {
		delete(st.items, l.Name)
		return
	}
	e := &entry{line: *l}
	if l.Inline {
		e.value = l.Data
		e.line.Inline, e.line.Data, e.line.In = false, nil, in
	}
	st.items[l.Name] = e
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
	o.describeOthers(&p)
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
	if e := o.state.items[seal.ItemKeys]; e != nil && e.line.Removed {
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
	switch err := k.Matches(d); {
	case errors.Is(err, wallet.ErrPassphraseNeeded):
		p.PassphraseNeeded = true
	case err != nil:
		return fmt.Errorf("%w: %w", ErrWrongWallet, err)
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
	there := map[string]bool{}
	o.reader.each(func(path string) {
		n, ok := seal.ParseSlotPath(path)
		if !ok {
			return
		}
		there[path] = true
		if !slices.Contains(o.state.slots, n) {
			w = append(w, fmt.Sprintf("%s is not in the list of slots: it was removed and came back, or is not of this backup", path))
		}
	})
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

// describeOthers lists other states. Snapshots of an older epoch at or above
// the generation in which a later one began are a branch: an older device went
// on writing.
func (o *Opened) describeOthers(p *Preview) {
	began := map[uint64]uint64{} // epoch → lowest generation
	for _, n := range o.names {
		if g, ok := began[n.Epoch]; !ok || n.Generation < g {
			began[n.Epoch] = n.Generation
		}
	}
	branches := map[uint64]uint64{}
	for _, n := range o.names {
		branch := false
		for e, g := range began {
			branch = branch || e > n.Epoch && n.Generation >= g
		}
		if branch {
			branches[n.Epoch] = max(branches[n.Epoch], n.Generation)
		}
		if n != o.state.name && (branch || p.Problem != nil) && len(p.Others) < maxOthers {
			p.Others = append(p.Others, Candidate{Snapshot: n.String(), Epoch: n.Epoch, Generation: n.Generation, Device: n.Device.String()})
		}
	}
	for _, e := range slices.Sorted(maps.Keys(branches)) {
		p.Warnings = append(p.Warnings, fmt.Sprintf("a device of epoch %d went on writing, up to generation %d, after another had taken over; its branch is kept", e, branches[e]))
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
	if other.state, err = other.chain(ctx, n); err != nil {
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
	if e.value != nil {
		return e.value, nil
	}
	l := &e.line
	if obj, ok := o.keys.ItemObject(l); ok {
		data, err := o.reader.fetch(ctx, obj.Path())
		if err != nil {
			return nil, fmt.Errorf("item %s: %w", name, err)
		}
		v, err := o.keys.OpenItem(l, data)
		if err != nil {
			return nil, fmt.Errorf("item %s: %w", name, err)
		}
		return v, nil
	}
	s, _, err := o.snapshot(ctx, l.In)
	if err != nil {
		return nil, fmt.Errorf("item %s: %w", name, err)
	}
	for i := range s.Items {
		it := &s.Items[i]
		if it.Name == name && it.Inline && it.Version == l.Version && l.Matches(it.Data) {
			return it.Data, nil
		}
	}
	return nil, fmt.Errorf("item %s: it is not in snapshot %s: %w", name, l.In, ErrMissing)
}
