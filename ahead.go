package satchel

import (
	"context"
	"slices"
	"sync"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store"
)

const (
	aheadCalls    = 8         // objects that were begun and not asked for yet
	aheadSize     = 512 << 10 // of one: of a larger one, such as most packs, the bytes take longer than the way, and would take memory
	aheadFailures = 8         // after so many each object is fetched when it is asked for
)

// ahead is a store that fetches objects before they are asked for, in an order that is
// known: of many small ones in a place far away each would otherwise be waited for. What
// was fetched is given out once. What could not be is asked for again, as if nothing had
// been tried before, so that errors are those of the store.
//
// Get is called by one goroutine at a time, and no other method changes what it keeps.
type ahead struct {
	store.Store
	plan     []planned // what was not begun
	begun    []*flight // in the order of the plan
	failures int

	ctx     context.Context // ends the flights
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// planned is an object that will be asked for.
type planned struct {
	name string
	size int64 // as the store lists it; no more is read ahead of the question
}

// flight is one that is being fetched.
type flight struct {
	planned
	done chan struct{} // closed when the two below are set
	data []byte
	err  error
}

// newAhead begins to fetch. Whoever calls it calls stop.
func newAhead(ctx context.Context, s store.Store, plan []planned) *ahead {
	a := &ahead{Store: s, plan: plan}
	a.ctx, a.cancel = context.WithCancel(ctx)
	a.begin()
	return a
}

// stop ends what is being fetched, and waits for it.
func (a *ahead) stop() {
	a.cancel()
	a.running.Wait()
	a.plan, a.begun = nil, nil
}

// begin fetches more, as far as the bounds allow.
func (a *ahead) begin() {
	for len(a.plan) > 0 && len(a.begun) < aheadCalls {
		f := &flight{planned: a.plan[0], done: make(chan struct{})}
		a.plan, a.begun = a.plan[1:], append(a.begun, f)
		a.running.Go(func() {
			defer close(f.done)
			f.data, f.err = a.Store.Get(a.ctx, f.name, hashOf(f.name), f.size)
		})
	}
}

// Get implements store.Store.
func (a *ahead) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	i := slices.IndexFunc(a.begun, func(f *flight) bool { return f.name == name })
	if i < 0 || want != hashOf(name) || a.begun[i].size > limit {
		return a.Store.Get(ctx, name, want, limit)
	}
	f := a.begun[i]
	a.begun = slices.Delete(a.begun, 0, i+1) // Those before are not wanted after all.
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if f.err == nil {
		a.begin()
		return f.data, nil
	}
	if a.failures++; a.failures >= aheadFailures {
		a.stop()
	}
	data, err := a.Store.Get(ctx, name, want, limit)
	a.begin()
	return data, err
}

// readAhead makes the first place fetch what restoreValue will ask for, item after item,
// until stop is called.
func (o *Opened) readAhead(ctx context.Context, names []string) (stop func()) {
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = o.carrierPath(o.state.items[name])
	}
	return o.reader.ahead(ctx, paths)
}

// fetchAhead makes the first place fetch snapshots that will be read in this order, until
// stop is called.
func (o *Opened) fetchAhead(ctx context.Context, names []seal.SnapshotName) (stop func()) {
	paths := make([]string, len(names))
	for i, n := range names {
		paths[i] = n.Path()
	}
	return o.reader.ahead(ctx, paths)
}

func (r *reader) ahead(ctx context.Context, paths []string) (stop func()) {
	if r.cfg.inTurn {
		return func() {}
	}
	listed := make(map[string]int64, len(r.lists[0]))
	for _, ob := range r.lists[0] {
		listed[ob.Name] = ob.Size
	}
	var plan []planned
	last := ""
	for _, path := range paths {
		if size, ok := listed[path]; ok && size <= aheadSize && path != last {
			plan = append(plan, planned{r.folder + "/" + path, size})
		}
		last = path
	}
	before := r.places
	a := newAhead(ctx, before[0].Store, plan)
	r.places = slices.Clone(before)
	r.places[0].Store = a
	return func() {
		a.stop()
		r.places = before
	}
}

// carrierPath returns the path of the object that restoreValue fetches for an entry, ""
// if none.
func (o *Opened) carrierPath(e *entry) string {
	l := &e.line
	if l.Removed {
		return ""
	}
	if !l.In.IsZero() {
		return l.In.Path()
	}
	if e.value != nil && l.Pack.Hash == "" {
		return ""
	}
	obj, ok := o.keys.ItemObject(l)
	if !ok {
		return ""
	}
	return obj.Path()
}
