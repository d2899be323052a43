package satchel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store"
)

// Pruned is what a Prune did.
type Pruned struct {
	Objects int
	Bytes   int64
	Kept    int      // checkpoints that are kept, each with all that it and what came after it needs
	Left    []string // addresses and names of what was not proven this backup's
}

// retirement is a checkpoint of this device with the objects that were needed before
// it and are not any more: no state from there on refers to them, because a value is
// never put back but as a new object.
type retirement struct {
	gen   uint64
	paths []string
}

// maxRetired bounds the paths that a device remembers in order to prune them. Those
// beyond it are left to the owner.
const maxRetired = 20_000

// retire notes what a checkpoint with these lines makes unneeded, of what this device
// wrote: a branch that an older device made may need what is older. It returns the list
// to go into the record with the checkpoint.
func (d *device) retire(gen uint64, slots []seal.SlotName, steps []step, entries []*entry) []retirement {
	list := slices.Clone(d.retired)
	var gone []string
	if len(d.chain) > 0 {
		next := device{key: d.key, slots: slots, chain: steps, items: make(map[string]*entry, len(entries))}
		for _, e := range entries {
			next.items[e.line.Name] = e
		}
		keep := map[string]bool{}
		for _, p := range next.liveObjects(0) {
			keep[p] = true
		}
		old := d.liveObjects(0)
		for _, s := range d.chain {
			old = append(old, s.objects...)
		}
		for _, p := range old {
			if !keep[p] && !isSlot(p) && d.own(p) {
				keep[p] = true // Each once.
				gone = append(gone, p)
			}
		}
	}
	list = append(list, retirement{gen, gone})
	n := 0
	for i, r := range slices.Backward(list) {
		if n += len(r.paths); n > maxRetired {
			list[i] = retirement{gen: r.gen}
		}
	}
	return list
}

// own reports whether this device wrote an object in its epoch.
func (d *device) own(path string) bool {
	if n, ok := seal.ParseSnapshotPath(path); ok {
		return n.Epoch == d.key.Epoch() && n.Device == d.key.Device()
	}
	n, ok := seal.ParseObjectPath(path)
	return ok && n.Version >= d.began()
}

// Prune deletes from the places what only states older than the newest keep
// checkpoints need: of those objects only that this device's own record proves its own
// and unneeded. It needs no secret, so an unattended device can do it; what older
// devices left is for Owner.Prune. A place is pruned only if it holds the newest
// generation whole, looked at again just before. While there are two branches nothing
// is pruned (ErrForked).
//
// Prune may be called again after an error: what is left goes then. While it waits for
// a place, other operations may go on.
func (b *Backup) Prune(ctx context.Context, keep int) (Pruned, error) {
	var done Pruned
	if keep < 1 {
		return done, errors.New("pruning: at least one checkpoint is kept")
	}
	if err := b.begin(ctx); err != nil {
		return done, err
	}
	defer b.end()
	looks, err := b.pruneBegin(ctx)
	if err != nil {
		return done, err
	}
	d := b.dev
	done.Kept = min(len(d.retired), keep)
	oldest := len(d.retired) - keep
	if oldest < 1 {
		return done, nil
	}
	kept := d.retired[oldest].gen
	doomed := map[string]bool{}
	for _, r := range d.retired[:oldest+1] {
		for _, p := range r.paths {
			doomed[p] = true
		}
	}
	var errs []error
	for _, l := range looks {
		err := cmp.Or(l.err, b.prunePlace(ctx, l.place, false, &done, func(_ context.Context, ob store.Object, path string) (bool, error) {
			return doomed[path], nil
		}))
		if err != nil {
			errs = append(errs, fmt.Errorf("pruning %s: %w", l.place.Address, err))
		}
		if errors.Is(err, errInterrupted) {
			break
		}
	}
	if len(errs) > 0 {
		return done, errors.Join(errs...)
	}
	// Others may have added some meanwhile, or pruned.
	left := slices.DeleteFunc(slices.Clone(d.retired), func(r retirement) bool { return r.gen < kept })
	if len(left) == 0 {
		return done, nil
	}
	left[0].paths = nil
	if err := d.append(record{Retired: retiredRecords(left)}); err != nil {
		return done, fmt.Errorf("pruning: %w", err)
	}
	b.change(func() { d.retired = left })
	b.tidy()
	return done, nil
}

// pruneBegin looks at the places and brings them up to date: what is behind is not
// pruned.
func (b *Backup) pruneBegin(ctx context.Context) ([]look, error) {
	looks, err := b.look(ctx)
	if err == nil {
		err = b.sync(ctx, looks)
	}
	if err != nil {
		return nil, fmt.Errorf("pruning: %w", err)
	}
	for i, l := range looks {
		if st := b.dev.places[l.place.Address]; l.err == nil && st.verified != b.dev.head() {
			looks[i].err = fmt.Errorf("it does not hold the newest generation: %w", cmp.Or(st.err, ErrNotProtected))
		}
	}
	return looks, nil
}

// prunePlace deletes from one place the objects that are doomed, once it is seen to
// hold the newest generation. Snapshots go before the objects that they name, and each
// before the older one that it builds on. A crash on the way leaves more than is
// needed, never less.
func (b *Backup) prunePlace(ctx context.Context, p store.Place, branches bool, done *Pruned, doomed func(context.Context, store.Object, string) (bool, error)) error {
	d := b.dev
	list, err := p.Store.List(ctx, d.info.Folder+"/")
	if err != nil {
		return err
	}
	for _, o := range list {
		n, ok := seal.ParseSnapshotPath(below(d.info.Folder, o.Name))
		if ok && d.foreign(n) {
			return d.foreignError(p, n)
		}
		if ok && d.beside(n) && !branches {
			return fmt.Errorf("%w: %s is in no history of the newest, and nothing is pruned while it is there", ErrForked, n.Path())
		}
	}
	// The present is proven before the past goes: all of it is read and compared.
	var r Report
	if err := b.checkPlace(ctx, p, &r); err != nil {
		return err
	}
	r.Findings = slices.DeleteFunc(r.Findings, func(f Finding) bool { return errors.Is(f.Err, errSlotBack) || errors.Is(f.Err, ErrBranch) })
	if len(r.Findings) > 0 {
		return fmt.Errorf("object %s: %w", r.Findings[0].Object, r.Findings[0].Err)
	}
	list = slices.DeleteFunc(list, func(o store.Object) bool {
		path := below(d.info.Folder, o.Name)
		_, isSnapshot := seal.ParseSnapshotPath(path)
		_, isObject := seal.ParseObjectPath(path)
		return !isSnapshot && !isObject
	})
	slices.SortStableFunc(list, func(a, b store.Object) int {
		x, isX := seal.ParseSnapshotPath(below(d.info.Folder, a.Name))
		y, isY := seal.ParseSnapshotPath(below(d.info.Folder, b.Name))
		switch {
		case isX && isY:
			return y.Compare(x)
		case isX:
			return -1
		case isY:
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	for i, o := range list {
		b.cfg.progress(Pruning, p.Address, i, len(list))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		ok, err := doomed(ctx, o, below(d.info.Folder, o.Name))
		if err == nil && ok {
			// Nothing that others add meanwhile needs what is doomed.
			err = b.apart(ctx, p, func() error { return p.Store.Delete(ctx, o) })
		}
		if err != nil {
			return err
		}
		if st := d.places[p.Address]; st != nil && st.health == HealthOtherDevice {
			return fmt.Errorf("%s: %w", p.Address, ErrOtherDevice)
		}
		if ok {
			done.Objects, done.Bytes = done.Objects+1, done.Bytes+o.Size
		}
	}
	b.cfg.progress(Pruning, p.Address, len(list), len(list))
	return nil
}

// branches returns the snapshots that are not in the history of the newest state. What
// only has such a name, and is not of this backup, is left out.
func (o *Opened) branches(ctx context.Context) (map[seal.SnapshotName]bool, error) {
	if o.beside != nil {
		return o.beside, nil
	}
	names := slices.DeleteFunc(slices.Clone(o.names), func(n seal.SnapshotName) bool { return o.aliens[n] })
	branches := branchesOf(names, o.newest, o.past, o.made)
	tried, aliens := 0, map[seal.SnapshotName]bool{}
	for _, n := range slices.SortedFunc(maps.Keys(branches), func(a, b seal.SnapshotName) int { return b.Compare(a) }) {
		if tried++; tried > maxTries {
			break
		}
		switch _, err := o.snapshot(ctx, n); {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, errAlien):
			aliens[n], o.aliens[n] = true, true
		}
	}
	if len(aliens) > 0 { // What stood beside one of them alone does not any more.
		names = slices.DeleteFunc(names, func(n seal.SnapshotName) bool { return aliens[n] })
		branches = branchesOf(names, o.newest, o.past, o.made)
	}
	o.beside = branches
	return branches, nil
}

// beside reports whether a snapshot is, by its name, in no history of the newest one,
// whose past that is. One that is newer by its name is not: it is damaged, or on its way.
func beside(n, newest seal.SnapshotName, past []seal.SnapshotName) bool {
	end := newest
	if n.Epoch != newest.Epoch {
		i, ok := slices.BinarySearchFunc(past, n.Epoch, func(p seal.SnapshotName, epoch uint64) int { return cmp.Compare(p.Epoch, epoch) })
		switch {
		case n.Epoch > newest.Epoch:
			return false
		case !ok && i == 0 && len(past) == seal.MaxPast:
			return n.Generation >= past[0].Generation // What came before is not told.
		case !ok:
			return true // The history passed it over.
		}
		end = past[i]
	}
	return n.Device != end.Device || n.Generation > end.Generation || n.Generation == end.Generation && n != end
}

// branchesOf returns the snapshots that are beside the newest one's history. Where one
// device wrote two of a generation, that is the one which the newest state is not made of,
// or both if it is made of neither.
func branchesOf(names []seal.SnapshotName, newest seal.SnapshotName, past, made []seal.SnapshotName) map[seal.SnapshotName]bool {
	twins := map[seal.SnapshotName]int{} // by all of the name but the hash
	bare := func(n seal.SnapshotName) seal.SnapshotName { n.Hash = ""; return n }
	for _, n := range names {
		twins[bare(n)]++
	}
	branches := map[seal.SnapshotName]bool{}
	for _, n := range names {
		if beside(n, newest, past) || twins[bare(n)] > 1 && !slices.Contains(made, n) {
			branches[n] = true
		}
	}
	return branches
}

// PruneOptions say what Owner.Prune keeps.
type PruneOptions struct {
	Keep int // checkpoints, at least one
	// Branches says that what other devices wrote beside the history of the newest
	// state goes too: the user has seen it, and decided.
	Branches bool
}

// Prune is Backup.Prune for all that the places hold of this backup, also what older
// devices wrote and what a crash left: everything that no state from the oldest kept
// checkpoint on needs, that is older than it, and that opens with the backup's key
// (R3). A channel backup that only a branch holds is made an item of this history before
// the branch goes (R21).
func (o *Owner) Prune(ctx context.Context, opts PruneOptions) (Pruned, error) {
	var done Pruned
	b := o.b
	if opts.Keep < 1 {
		return done, errors.New("pruning: at least one checkpoint is kept")
	}
	if err := b.begin(ctx); err != nil {
		return done, err
	}
	defer b.end()
	looks, op, branches, err := o.pruneBegin(ctx)
	if err != nil {
		return done, err
	}
	if len(branches) > 0 && opts.Branches {
		// A node's channels that only the branch knows must not go with it (R21).
		if some, err := o.keepChannels(ctx, op); err != nil {
			return done, fmt.Errorf("pruning: %w", err)
		} else if some {
			if looks, op, branches, err = o.pruneBegin(ctx); err != nil {
				return done, err
			}
		}
	}
	if err := b.setStrangers(op.aliens); err != nil {
		return done, fmt.Errorf("pruning: %w", err)
	}
	if len(branches) > 0 && !opts.Branches {
		n := slices.MaxFunc(slices.Collect(maps.Keys(branches)), seal.SnapshotName.Compare)
		return done, fmt.Errorf("pruning: %w: %s is in no history of the newest, and nothing is pruned while it is there", ErrForked, n.Path())
	}
	needed, oldest, err := op.needed(ctx, opts.Keep, branches)
	if err != nil {
		return done, fmt.Errorf("pruning: %w", err)
	}
	done.Kept = oldest.kept
	head := b.dev.head().Generation
	for i, l := range looks {
		if l.err == nil && !slices.ContainsFunc(op.reader.places, func(p store.Place) bool { return p.Address == l.place.Address }) {
			// What it holds was not looked at, and may be a branch.
			looks[i].err = cmp.Or(op.reader.unlisted, store.ErrListing)
		}
	}
	var errs []error
	for _, l := range looks {
		err := cmp.Or(l.err, b.prunePlace(ctx, l.place, true, &done, func(ctx context.Context, ob store.Object, path string) (bool, error) {
			old := false
			if n, ok := seal.ParseSnapshotPath(path); ok {
				if n.Epoch < b.dev.key.Epoch() && !slices.Contains(op.names, n) {
					return false, fmt.Errorf("%w: %s came meanwhile", ErrForked, n.Path())
				}
				old = n.Generation < oldest.generation || branches[n]
			} else if n, ok := seal.ParseObjectPath(path); ok {
				// A younger one may belong to a snapshot that is still on its way.
				old = n.Version < oldest.generation || opts.Branches && n.Version <= head
			}
			if !old || needed[path] {
				return false, nil
			}
			ours, err := o.ours(ctx, l.place.Store, ob, false)
			if err == nil && !ours {
				done.Left = append(done.Left, l.place.Address+": "+ob.Name)
			}
			return ours, err
		}))
		if err != nil {
			errs = append(errs, fmt.Errorf("pruning %s: %w", l.place.Address, err))
		} else {
			b.setBranch(l.place, seal.SnapshotName{}) // The next look tells if one is left.
		}
		if errors.Is(err, errInterrupted) {
			break
		}
	}
	return done, errors.Join(append(errs, b.dev.savePlaces())...)
}

// pruneBegin is that of the Backup, and opens the backup as the places hold it then.
func (o *Owner) pruneBegin(ctx context.Context) (looks []look, op *Opened, branches map[seal.SnapshotName]bool, err error) {
	if looks, err = o.b.pruneBegin(ctx); err != nil {
		return nil, nil, nil, err
	}
	if op, err = o.opened(ctx); err == nil && op.state.name != o.b.dev.head() {
		err = fmt.Errorf("the newest that opens is generation %d: %w", op.state.name.Generation, cmp.Or(op.preview.Problem, ErrOlder))
	}
	if err == nil {
		branches, err = op.branches(ctx)
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("pruning: %w", err)
	}
	return looks, op, branches, nil
}

// setStrangers records snapshots that are known not to be of this backup.
func (b *Backup) setStrangers(aliens map[seal.SnapshotName]bool) error {
	d := b.dev
	var r record
	for n := range aliens {
		if !d.strangers[n] && len(d.strangers)+len(r.Strangers) < maxStrangers {
			r.Strangers = append(r.Strangers, n.String())
		}
	}
	if len(r.Strangers) == 0 {
		return nil
	}
	if err := d.append(r); err != nil {
		return fmt.Errorf("recording it on this device: %w", err)
	}
	b.change(func() {
		for n := range aliens {
			if len(d.strangers) < maxStrangers {
				d.strangers[n] = true
			}
		}
	})
	return nil
}

// oldestKept is the oldest state that a pruning leaves whole.
type oldestKept struct {
	generation uint64
	kept       int // checkpoints
}

// needed returns the paths of all that the states from the keep-th newest checkpoint on
// need. A snapshot that is in no place, because
// it was pruned before or never got there, is passed over.
func (o *Opened) needed(ctx context.Context, keep int, branches map[seal.SnapshotName]bool) (map[string]bool, oldestKept, error) {
	paths := map[string]bool{}
	var oldest oldestKept
	for n := o.state.name; !n.IsZero() && oldest.kept < keep; {
		s, err := o.snapshot(ctx, n)
		if errors.Is(err, ErrMissing) && oldest.kept > 0 && o.reader.unlisted == nil {
			older := seal.SnapshotName{}
			for _, m := range o.names {
				if !o.aliens[m] && !branches[m] && m.Compare(n) < 0 && m.Compare(older) > 0 {
					older = m
				}
			}
			n = older
			continue
		}
		if err != nil {
			return nil, oldest, err
		}
		paths[n.Path()] = true
		for i := range s.Items {
			l := &s.Items[i]
			if obj, ok := o.keys.ItemObject(l); ok {
				paths[obj.Path()] = true
			}
			if !l.In.IsZero() {
				paths[l.In.Path()] = true
			}
		}
		if s.Kind == seal.Checkpoint {
			oldest.generation, oldest.kept = n.Generation, oldest.kept+1
		}
		n = s.Parent
	}
	return paths, oldest, nil
}
