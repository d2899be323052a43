package satchel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store"
)

// Moment is one snapshot in the history of a backup.
type Moment struct {
	Snapshot   string // its name, for Opened.At and Owner.Revert
	Epoch      uint64
	Generation uint64
	Device     string
	Places     []string  // addresses of those that list it
	Size       int64     // bytes of its object, as a place tells
	Modified   time.Time // as a place tells; zero where it does not
	Newest     bool      // the newest state of the backup
	Branch     bool      // not in the history of the newest: another device wrote on

	// Of a backup that is open, for those that were read:
	Read     bool
	Saved    time.Time // by the clock of the device that wrote it
	Software string
	Whole    bool     // a checkpoint, which lists all items
	Changed  []string // names of the items that it brought
	Removed  []string // names of the items that it removed
	Err      error    // why it cannot be read
}

// History lists the snapshots that the places hold, newest first, by their names: what
// is in them only Opened.History tells. If a place could not be listed err says so,
// beside what the others hold.
func (b *Backup) History(ctx context.Context) ([]Moment, error) {
	if err := b.begin(ctx); err != nil {
		return nil, err
	}
	defer b.end()
	d := b.dev
	var lists [][]store.Object
	var addresses []string
	var errs []error
	for _, p := range b.cfg.Places {
		list, err := p.Store.List(ctx, d.info.Folder+"/snapshots/")
		if err != nil {
			errs = append(errs, fmt.Errorf("looking into %s: %w", p.Address, err))
			continue
		}
		for i := range list {
			list[i].Name = below(d.info.Folder, list[i].Name)
		}
		lists, addresses = append(lists, list), append(addresses, p.Address)
	}
	alien := func(n seal.SnapshotName) bool { return d.strangers[n] }
	return moments(lists, addresses, alien, func(names []seal.SnapshotName) (seal.SnapshotName, map[seal.SnapshotName]bool) {
		newest, past := d.head(), d.past
		if len(names) > 0 && d.foreign(names[0]) {
			newest, past = names[0], pastOf(names)
		}
		return newest, branchesOf(names, newest, past, nil)
	}), errors.Join(errs...)
}

// pastOf guesses the past of the newest of the names, which come newest first: of each
// earlier epoch its newest device's last snapshot below what a later one began with.
func pastOf(names []seal.SnapshotName) []seal.SnapshotName {
	var past []seal.SnapshotName
	lowest := uint64(seal.MaxGeneration + 1)
	for i := 0; i < len(names); {
		epoch := names[i:]
		if end := slices.IndexFunc(epoch, func(n seal.SnapshotName) bool { return n.Epoch != names[i].Epoch }); end >= 0 {
			epoch = epoch[:end]
		}
		last := slices.IndexFunc(epoch, func(n seal.SnapshotName) bool { return n.Device == names[i].Device && n.Generation < lowest })
		if i > 0 && last >= 0 {
			past = append(past, epoch[last])
		}
		i += len(epoch)
		lowest = min(lowest, epoch[len(epoch)-1].Generation)
	}
	slices.Reverse(past)
	return past
}

// moments puts the listings of several places together. tell returns which of the names,
// newest first, is the newest, and which are beside its history.
func moments(lists [][]store.Object, addresses []string, alien func(seal.SnapshotName) bool, tell func([]seal.SnapshotName) (seal.SnapshotName, map[seal.SnapshotName]bool)) []Moment {
	byName := map[seal.SnapshotName]*Moment{}
	for i, list := range lists {
		for _, o := range list {
			n, ok := seal.ParseSnapshotPath(o.Name)
			if !ok || alien(n) {
				continue
			}
			m := byName[n]
			if m == nil {
				m = &Moment{
					Snapshot: n.String(), Epoch: n.Epoch, Generation: n.Generation, Device: n.Device.String(),
					Size: o.Size, Modified: o.Modified,
				}
				byName[n] = m
			}
			if !slices.Contains(m.Places, addresses[i]) {
				m.Places = append(m.Places, addresses[i])
			}
		}
	}
	names := slices.SortedFunc(maps.Keys(byName), func(a, b seal.SnapshotName) int {
		return cmp.Or(b.Compare(a), strings.Compare(a.String(), b.String()))
	})
	newest, branches := tell(names)
	history := make([]Moment, len(names))
	for i, n := range names {
		history[i] = *byName[n]
		history[i].Newest = n == newest
		history[i].Branch = branches[n] && n != newest
	}
	return history
}

// History lists the snapshots that the places hold, newest first, and reads the most
// recent of them, at most so many as read says. One that cannot be read has an Err.
func (o *Opened) History(ctx context.Context, read int) ([]Moment, error) {
	addresses := make([]string, len(o.reader.places))
	for i, p := range o.reader.places {
		addresses[i] = p.Address
	}
	branches, err := o.branches(ctx)
	if err != nil {
		return nil, err
	}
	history := moments(o.reader.lists, addresses, func(n seal.SnapshotName) bool { return o.aliens[n] },
		func([]seal.SnapshotName) (seal.SnapshotName, map[seal.SnapshotName]bool) { return o.newest, branches })
	line := map[string]bool{} // of the newest, as far as it was read
	for i := range history[:min(read, len(history))] {
		m := &history[i]
		o.reader.cfg.progress(Searching, "", i, min(read, len(history)))
		n, err := seal.ParseSnapshotName(m.Snapshot)
		if err != nil {
			return nil, err
		}
		s, err := o.snapshot(ctx, n)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if m.Err = err; err != nil {
			continue
		}
		m.Read, m.Saved, m.Software, m.Whole = true, s.Time, s.Software, s.Kind == seal.Checkpoint
		if m.Newest || line[m.Snapshot] {
			line[s.Parent.String()] = true
			m.Branch = false // By its name it could have been; what it is part of decides.
		}
		for _, it := range s.Items {
			switch {
			case it.Version != s.Generation:
			case it.Removed:
				m.Removed = append(m.Removed, it.Name)
			default:
				m.Changed = append(m.Changed, it.Name)
			}
		}
	}
	return history, nil
}

// Look opens the backup as the places hold it, to read its history and its older
// states. It changes nothing.
func (o *Owner) Look(ctx context.Context) (*Opened, error) {
	if err := o.b.begin(ctx); err != nil {
		return nil, err
	}
	defer o.b.end()
	return o.opened(ctx)
}

// opened is Look for who holds the operation.
func (o *Owner) opened(ctx context.Context) (*Opened, error) {
	b := o.b
	f := &Found{Folder: b.dev.info.Folder, Label: b.dev.info.Label, cfg: b.cfg}
	for _, p := range b.cfg.Places {
		f.Places = append(f.Places, FoundPlace{Place: p})
	}
	r, warnings, err := newReader(ctx, b.cfg, f.Folder, b.cfg.Places)
	if err != nil {
		return nil, err
	}
	op := &Opened{found: f, reader: r, keys: o.keys, used: o.slot, warnings: warnings}
	if err := op.load(ctx, o.slot); err != nil {
		return nil, fmt.Errorf("opening %s: %w", f.Folder, err)
	}
	return op, nil
}

// Reverted is what Revert did, by the names of items.
type Reverted struct {
	Result
	Restored []string // have the value again that they had
	Removed  []string // were not there at that time
	Kept     []string // stay as they are: never put back
}

// Difference says what Revert would do, and changes nothing. Errors as for Revert.
func (o *Owner) Difference(ctx context.Context, snapshot string) (Reverted, error) {
	var r Reverted
	if err := o.b.begin(ctx); err != nil {
		return r, err
	}
	defer o.b.end()
	_, err := o.difference(ctx, snapshot, &r)
	if err != nil {
		err = fmt.Errorf("comparing with an older state: %w", err)
	}
	return r, err
}

// difference returns the changes that make the device's items those of a snapshot.
func (o *Owner) difference(ctx context.Context, snapshot string, r *Reverted) ([]Change, error) {
	op, err := o.opened(ctx)
	if err == nil {
		op, err = op.At(ctx, snapshot)
	}
	if err != nil {
		return nil, err
	}
	return op.differences(ctx, o.b.dev, r)
}

// Revert brings an older state back as a new generation: the items, but for the keys
// and descriptors, which the owner makes, and everything below "lightning/": old channel
// state must not come back (R21). It needs every value that differs (IncompleteError);
// errors otherwise as for Save. What there was before stays in the history.
func (o *Owner) Revert(ctx context.Context, snapshot string) (Reverted, error) {
	var r Reverted
	b := o.b
	if err := b.begin(ctx); err != nil {
		return r, err
	}
	defer b.end()
	looks, err := b.look(ctx)
	if err != nil {
		return r, err
	}
	changes, err := o.difference(ctx, snapshot, &r)
	if err == nil && len(changes) > 0 {
		err = b.commitChanges(o.keys, changes, nil, nil)
	}
	if err != nil {
		return r, fmt.Errorf("bringing an older state back: %w", err)
	}
	err = b.sync(ctx, looks)
	r.Result = b.result(len(changes))
	return r, err
}

// differences returns what makes the device's items those of the state.
func (o *Opened) differences(ctx context.Context, d *device, r *Reverted) ([]Change, error) {
	var changes []Change
	var missing []string
	var last carrier
	for _, name := range o.inOrder() {
		then, now := o.state.items[name], d.items[name]
		switch {
		case then.line.Removed, now != nil && !now.lost && now.line.Size == then.line.Size && now.line.SHA256 == then.line.SHA256 && now.line.Required == then.line.Required:
		case seal.OwnerItem(name) || neverBack(name):
			r.Kept = append(r.Kept, name)
		default:
			v, err := o.restoreValue(ctx, then, &last)
			if err != nil && !gone(err) {
				return nil, err
			}
			if err != nil {
				missing = append(missing, name)
				continue
			}
			changes = append(changes, Change{Name: name, Value: slices.Clone(v), Required: then.line.Required})
			r.Restored = append(r.Restored, name)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, &IncompleteError{Items: missing}
	}
	for name, now := range d.items {
		switch {
		case o.state.items[name] != nil || now.line.Removed:
		case seal.OwnerItem(name) || neverBack(name):
			r.Kept = append(r.Kept, name)
		default:
			changes = append(changes, Change{Name: name, Remove: true})
			r.Removed = append(r.Removed, name)
		}
	}
	for _, names := range [][]string{r.Restored, r.Removed, r.Kept} {
		slices.Sort(names)
	}
	return changes, nil
}

// neverBack reports whether an older value of an item must not take the place of a
// newer one.
func neverBack(name string) bool { return strings.HasPrefix(name, "lightning/") }
