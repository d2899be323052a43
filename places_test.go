package satchel_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// A place that is added receives everything, one that is taken out keeps what it
// has and holds nothing up; both survive a restart.
func TestSetPlaces(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	first, second := &mem.Store{}, &storetest.Faulty{Inner: &mem.Store{}}
	cfg := config(t, first)
	b, _, way := create(t, cfg, item("labels", "1"), item("file/x", "22"))
	save(t, b, item("labels", "2"))

	second.Set(storetest.Any, storetest.Unreachable)
	both := append(slices.Clone(cfg.Places), store.Place{Address: "mem:second", Store: second})
	r, err := b.SetPlaces(ctx, both, 2)
	if !errors.Is(err, satchel.ErrNotProtected) || !errors.Is(err, store.ErrUnreachable) || r.Protected {
		t.Fatalf("got %+v, %v: two copies are asked for and one place is away", r, err)
	}
	second.Set(storetest.Any, "")
	if r, err := b.Sync(ctx); err != nil || !r.Protected {
		t.Fatalf("%+v, %v", r, err)
	}
	mustRead(t, here(t, b), way, second.Inner)
	if info, err := satchel.ReadDevice(cfg.Dir); err != nil || !slices.Equal(info.Places, []string{"mem:0", "mem:second"}) || info.Copies != 2 {
		t.Errorf("recorded %+v, %v", info, err)
	}

	// The first one is taken out: it is neither written nor waited for.
	before := objects(t, first, "")
	if r, err := b.SetPlaces(ctx, both[1:], 1); err != nil || !r.Protected || len(r.Places) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	save(t, b, item("labels", "3"))
	if len(objects(t, first, "")) != len(before) {
		t.Error("a place that was taken out was written")
	}
	b.Close()
	cfg.Places = both[1:]
	if b, err = satchel.Open(cfg); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !b.Status().Protected {
		t.Error("not protected after a restart")
	}

	// Taken in again, it gets what it missed.
	if r, err := b.SetPlaces(ctx, both, 2); err != nil || !r.Protected {
		t.Fatalf("%+v, %v", r, err)
	}
	mustRead(t, here(t, b), way, first)
	for _, bad := range []struct {
		places []store.Place
		copies int
	}{{nil, 1}, {both, 3}, {append(slices.Clone(both), both[0]), 1}} {
		if _, err := b.SetPlaces(ctx, bad.places, bad.copies); err == nil {
			t.Errorf("%d places and %d copies were taken", len(bad.places), bad.copies)
		}
	}
	if len(b.Status().Places) != 2 {
		t.Error("a refused change changed something")
	}
}

// R16, R3: a place in which another device has taken over is not taken in.
func TestSetPlacesOtherDevice(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	here, there := &mem.Store{}, &mem.Store{}
	cfg := config(t, here)
	b, _, way := create(t, cfg)
	for name, data := range objects(t, here, "") {
		there.Add(name, []byte(data))
	}
	other := newDevice(t, cfg)
	other.Places = []store.Place{{Address: "mem:there", Store: there}}
	restore(t, other, way)

	_, err := b.SetPlaces(ctx, append(slices.Clone(cfg.Places), other.Places...), 1)
	isErr(t, err, satchel.ErrOtherDevice, satchel.CodeOtherDevice)
	if st := b.Status(); len(st.Places) != 1 || !st.Protected {
		t.Errorf("%+v", st)
	}
	save(t, b, item("labels", "goes on"))
}

// Places are looked at and written at once: each waits here until all are asked.
func TestPlacesAtOnce(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const n = 3
	var meeting sync.Map // by operation: *meet
	choose := func(op storetest.Op, _ string) storetest.Fault {
		if m, ok := meeting.Load(op); ok {
			m.(*meet).wait(ctx)
		}
		return storetest.None
	}
	var stores []store.Store
	for range n {
		st := &storetest.Faulty{Inner: &mem.Store{}}
		st.Choose(choose)
		stores = append(stores, st)
	}
	cfg := config(t, stores...)
	b, _, way := create(t, cfg, item("labels", "1"))
	defer b.Close()

	for _, op := range []storetest.Op{storetest.List, storetest.Put, storetest.Get} {
		meeting.Store(op, newMeet(n))
	}
	save(t, b, item("labels", "2"))
	meeting.Clear()
	meeting.Store(storetest.List, newMeet(n))
	found, err := satchel.Find(ctx, satchel.Config{Places: cfg.Places, Settle: -1})
	if err != nil || len(found) != 1 || len(found[0].Places) != n {
		t.Fatalf("got %v, %v", found, err)
	}
	meeting.Store(storetest.List, newMeet(n))
	if _, err := found[0].Open(ctx, way); err != nil {
		t.Error(err)
	}
	if ctx.Err() != nil {
		t.Error("places were asked one after another")
	}
}

// meet lets nobody go on before all are there, the first time.
type meet struct {
	all  sync.WaitGroup
	mu   sync.Mutex
	left int // guarded by mu
}

func newMeet(n int) *meet {
	m := &meet{left: n}
	m.all.Add(n)
	return m
}

func (m *meet) wait(ctx context.Context) {
	m.mu.Lock()
	if m.left > 0 {
		m.left--
		m.all.Done()
	}
	m.mu.Unlock()
	done := make(chan struct{})
	go func() { m.all.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// The bytes of a large object on their way are shown, those of small ones are not.
func TestProgressOfBytes(t *testing.T) {
	t.Parallel()
	slow := &telling{Store: &mem.Store{}}
	cfg := config(t, slow)
	var mu sync.Mutex
	var seen []satchel.Progress
	cfg.Progress = func(p satchel.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Bytes > 0 {
			seen = append(seen, p)
		}
	}
	b, _, way := create(t, cfg, item("labels", "1"))
	if len(seen) != 0 {
		t.Errorf("small objects show bytes: %+v", seen)
	}
	save(t, b, item("file/large", strings.Repeat("0123456789abcdef", 3<<16)))
	last := satchel.Progress{}
	for _, p := range seen {
		if p.Stage != satchel.Uploading || p.Place != "mem:0" || p.Size < 3<<20 || p.Bytes > p.Size || p.Bytes < last.Bytes {
			t.Errorf("got %+v after %+v", p, last)
		}
		last = p
	}
	if len(seen) < 4 || last.Bytes != last.Size {
		t.Errorf("shown %d times, the last time %+v", len(seen), last)
	}
	seen = nil
	cfg.Places[0].Store = slow
	cfg = newDevice(t, cfg)
	restore(t, cfg, way)
	if len(seen) == 0 || seen[0].Stage != satchel.Restoring || seen[0].Size != 0 {
		t.Errorf("restoring: got %+v", seen)
	}
}

// telling is a store that tells of the bytes on their way, in parts.
type telling struct{ store.Store }

func (s *telling) Put(ctx context.Context, name string, data []byte) error {
	tell(ctx, len(data))
	return s.Store.Put(ctx, name, data)
}

func (s *telling) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	data, err := s.Store.Get(ctx, name, want, limit)
	tell(ctx, len(data))
	return data, err
}

func tell(ctx context.Context, n int) {
	for ; n > 0; n -= 100_000 {
		store.Moved(ctx, min(n, 100_000))
	}
}
