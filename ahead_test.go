package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// far is a store in which each item takes a second, and knows how many are fetched at
// once.
type far struct {
	*mem.Store
	block func(ctx context.Context, name string) error // instead of the second, if not nil

	mu               sync.Mutex
	now, most        int            // calls; guarded by mu
	nowSize, maxSize int            // bytes; guarded by mu
	gets             map[string]int // guarded by mu
}

func (s *far) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	data, err := s.Store.Get(ctx, name, want, limit)
	if !strings.Contains(name, "/items/") {
		return data, err
	}
	s.mu.Lock()
	if s.gets == nil {
		s.gets = map[string]int{}
	}
	s.gets[name]++
	s.now, s.nowSize = s.now+1, s.nowSize+len(data)
	s.most, s.maxSize = max(s.most, s.now), max(s.maxSize, s.nowSize)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.now, s.nowSize = s.now-1, s.nowSize-len(data)
	}()
	if s.block != nil {
		if err := s.block(ctx, name); err != nil {
			return nil, err
		}
		return data, err
	}
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return data, err
}

// manyObjects saves items such that each is an object of its own.
func manyObjects(t *testing.T, b *satchel.Backup, n, size int) {
	t.Helper()
	const few = 15 // More would be packed.
	for from := 0; from < n; from += few {
		var list []satchel.Change
		for i := from; i < min(from+few, n); i++ {
			list = append(list, item(fmt.Sprintf("file/%03d", i), fmt.Sprintf("%03d", i)+strings.Repeat("x", size)))
		}
		save(t, b, list...)
	}
}

// A restore of many objects from a place far away does not wait for each: eight come at
// once, and no more, each one time.
func TestRestoreAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &far{Store: &mem.Store{}}
		cfg := config(t, cloud.Store)
		b, _, way := create(t, cfg)
		manyObjects(t, b, 80, 3000)
		want := here(t, b)
		b.Close()

		there := newDevice(t, cfg)
		there.Places[0].Store = cloud
		o := openOnly(t, way, there)
		cloud.gets = nil
		start := time.Now()
		r, out, err := o.Restore(t.Context(), there, satchel.RestoreOptions{})
		if err != nil || !out.Protected {
			t.Fatalf("%+v, %v", out, err)
		}
		defer r.Close()
		if got := here(t, r); !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", short(got), short(want))
		}
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("80 objects took %v, want 10 s and a little", took)
		}
		if cloud.most != 8 {
			t.Errorf("%d were fetched at once, want 8", cloud.most)
		}
		for name, n := range cloud.gets {
			if n > 1 {
				t.Errorf("%s was fetched %d times", name, n)
			}
		}
		// A drill does the same.
		start = time.Now()
		if report, err := r.Drill(t.Context(), way); err != nil || report.Objects != len(want) {
			t.Errorf("drill: %+v, %v", report, err)
		}
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("the drill took %v", took)
		}
	})
}

// What is large is not held in memory before it is needed.
func TestRestoreAheadMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &far{Store: &mem.Store{}}
		cfg := config(t, cloud.Store)
		b, _, way := create(t, cfg)
		manyObjects(t, b, 4, 2<<20)
		b.Close()
		there := newDevice(t, cfg)
		there.Places[0].Store = cloud
		restore(t, there, way).Close()
		if cloud.maxSize > 5<<19 {
			t.Errorf("%d objects with %d bytes were fetched at once, want one large one at the most", cloud.most, cloud.maxSize)
		}
	})
}

// Errors, and what is restored in spite of them, are those of a restore that fetches one
// after another.
func TestRestoreAheadErrors(t *testing.T) {
	t.Parallel()
	place := &mem.Store{}
	cfg := config(t, place)
	b, _, way := create(t, cfg)
	manyObjects(t, b, 12, 3000)
	save(t, b, item("labels", "carried by a snapshot"))
	one := string(b.Line("file/007").Object)
	b.Close()

	for _, fault := range []storetest.Fault{storetest.Absent, storetest.Truncate, storetest.Flip, storetest.NotApplied, storetest.SignIn} {
		for _, where := range []string{one, "/items/"} { // one object, or all
			// With a second place that is whole, and without.
			for _, whole := range []bool{false, true} {
				lies := fault == storetest.Flip
				wantBack, wantErr := restoreAhead(t, cfg, way, place, fault, where, lies, whole, true)
				back, err := restoreAhead(t, cfg, way, place, fault, where, lies, whole, false)
				if fmt.Sprint(err) != fmt.Sprint(wantErr) || !maps.Equal(back, wantBack) {
					t.Errorf("%s of %.7s, another place %v: got %d items, %v; want %d, %v", fault, where, whole, len(back), err, len(wantBack), wantErr)
				}
			}
		}
	}
}

// restoreAhead restores from a place with a fault, and returns what there is then.
func restoreAhead(t *testing.T, cfg satchel.Config, way slot.Secret, place store.Store, fault storetest.Fault, where string, lies, whole, inTurn bool) (map[string]string, error) {
	t.Helper()
	faulty := &storetest.Faulty{Inner: clone(t, place)}
	faulty.Lies(lies)
	cfg = newDevice(t, cfg)
	cfg.Places = []store.Place{{Address: "mem:faulty", Store: faulty}}
	if whole {
		cfg.Places = append(cfg.Places, store.Place{Address: "mem:whole", Store: clone(t, place)})
	}
	if inTurn {
		cfg.SetHook(func(durable.Step) error { return nil })
	}
	o := openOnly(t, way, cfg)
	faulty.Choose(func(op storetest.Op, name string) storetest.Fault {
		if op == storetest.Get && strings.Contains(name, where) {
			return fault
		}
		return storetest.None
	})
	b, _, err := o.Restore(t.Context(), cfg, satchel.RestoreOptions{AcceptProblem: true})
	if b == nil {
		return nil, err
	}
	defer b.Close()
	missing := b.Status().Missing
	values := map[string]string{"missing": fmt.Sprint(missing)}
	for _, it := range b.Items() {
		if !slices.Contains(missing, it.Name) {
			v, getErr := b.Get(it.Name)
			values[it.Name] = string(v.Open()) + fmt.Sprint(getErr)
		}
	}
	return values, err
}

// prefixes is a store that remembers what it was asked to list.
type prefixes struct {
	store.Store

	mu   sync.Mutex
	list []string // guarded by mu
}

func (s *prefixes) List(ctx context.Context, prefix string) ([]store.Object, error) {
	s.mu.Lock()
	s.list = append(s.list, prefix)
	s.mu.Unlock()
	return s.Store.List(ctx, prefix)
}

// Whether another device wrote in the meantime is seen in the snapshots: only taking over
// lists all, which WebDAV does with a request for each item that is an object.
func TestRestoreListsSnapshots(t *testing.T) {
	t.Parallel()
	cloud := &prefixes{Store: &mem.Store{}}
	cfg := config(t, cloud)
	b, _, way := create(t, cfg)
	folder := b.Status().Folder
	b.Close()
	there := newDevice(t, cfg)
	o := openOnly(t, way, there)
	cloud.list = nil
	r, _, err := o.Restore(t.Context(), there, satchel.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if want := []string{folder + "/snapshots/", folder + "/", folder + "/snapshots/"}; !slices.Equal(cloud.list, want) {
		t.Errorf("listed %q, want %q", cloud.list, want)
	}
}

// small is a store whose listing says that objects are smaller than they are.
type small struct{ store.Store }

func (s small) List(ctx context.Context, prefix string) ([]store.Object, error) {
	list, err := s.Store.List(ctx, prefix)
	for i := range list {
		list[i].Size /= 2
	}
	return list, err
}

// What could not be fetched before it was asked for is asked for then: a listing that is
// wrong about sizes, which are the bound of what is held, makes no object damaged, and
// costs few requests.
func TestRestoreAheadSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &far{Store: &mem.Store{}}
		cfg := config(t, cloud.Store)
		b, _, way := create(t, cfg)
		manyObjects(t, b, 40, 3000)
		b.Close()
		cfg.Places[0].Store = small{cloud}
		b, err := satchel.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		cloud.gets = nil
		if _, err := b.Drill(t.Context(), way); err != nil {
			t.Error(err)
		}
		n := 0
		for _, gets := range cloud.gets {
			n += gets
		}
		if most := 42 + 2 + 2*8; n > most { // The keys and the descriptors were asked for to show them.
			t.Errorf("%d requests for 42 objects, want %d at the most", n, most)
		}
	})
}

// A restore that is called off ends what it began to fetch, waits for it, and leaves
// nothing.
func TestRestoreAheadCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &far{Store: &mem.Store{}}
		cfg := config(t, cloud.Store)
		b, _, way := create(t, cfg)
		manyObjects(t, b, 40, 3000)
		b.Close()
		there := newDevice(t, cfg)
		there.Places[0].Store = cloud
		o := openOnly(t, way, there)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		served := 0
		cloud.block = func(ctx context.Context, name string) error {
			cloud.mu.Lock()
			served++
			n := served
			cloud.mu.Unlock()
			if n <= 10 {
				return nil
			}
			<-ctx.Done()
			time.Sleep(100 * time.Millisecond) // A connection takes a moment to close.
			return ctx.Err()
		}
		go func() {
			synctest.Wait() // Until all that is fetched hangs.
			cancel()
		}()
		r, _, err := o.Restore(ctx, there, satchel.RestoreOptions{})
		if r != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, %v", r, err)
		}
		if cloud.now != 0 {
			t.Errorf("%d objects are still being fetched", cloud.now)
		}
		if _, err := os.Stat(there.Dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("there is a wallet: %v", err)
		}
	})
}
