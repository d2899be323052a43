package satchel_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// R16: two processes that share a directory write one history, each seeing what the
// other did before it writes.
func TestShared(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	cfg.Shared = true
	a, _, way := create(t, cfg, item("labels", "0"))
	b, err := satchel.Open(cfg)
	if err != nil {
		t.Fatalf("a second process: %v", err)
	}
	defer b.Close()
	for i := range 5 {
		save(t, a, item("labels", fmt.Sprint("a", i)))
		save(t, b, item("contacts", fmt.Sprint("b", i)))
	}
	if err := a.Refresh(); err != nil {
		t.Fatal(err)
	}
	want := here(t, a)
	if want["labels"] != "a4" || want["contacts"] != "b4" {
		t.Errorf("got %q, %q", want["labels"], want["contacts"])
	}
	if g := a.Status().Generation; g != 11 || !a.Status().Protected {
		t.Errorf("generation %d, protected %v", g, a.Status().Protected)
	}
	mustRead(t, want, way, st)

	// At once, and with a third that keeps the directory for itself now and then.
	var wg sync.WaitGroup
	for i, w := range []*satchel.Backup{a, b} {
		wg.Go(func() {
			for n := range 20 {
				if _, err := w.Save(ctx, item(fmt.Sprint("settings/", i), fmt.Sprint(n))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	own := cfg
	own.Shared = false
	c, err := satchel.Open(own)
	if err != nil {
		t.Fatal(err)
	}
	save(t, c, item("labels", "c"))
	c.Close()
	if err := b.Refresh(); err != nil || here(t, b)["labels"] != "c" || b.Status().Generation != 52 {
		t.Errorf("after the third: %v, %q, generation %d", err, here(t, b)["labels"], b.Status().Generation)
	}
	mustRead(t, here(t, b), way, st)

	// Other places: whoever does not know them must not write on.
	more := append(cfg.Places, store.Place{Address: "mem:1", Store: &mem.Store{}})
	if _, err := a.SetPlaces(ctx, more, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Save(ctx, item("labels", "d")); !errors.Is(err, satchel.ErrReplaced) {
		t.Errorf("other places: got %v, want %v", err, satchel.ErrReplaced)
	}
	if _, err := a.Save(ctx, item("labels", "e")); err != nil {
		t.Error(err)
	}
	if err := a.Forget(); err != nil {
		t.Fatal(err)
	}
	if err := b.Refresh(); !errors.Is(err, satchel.ErrNoDevice) {
		t.Errorf("forgotten by the other: got %v, want %v", err, satchel.ErrNoDevice)
	}
	if _, err := a.Save(ctx, item("labels", "f")); err == nil {
		t.Error("saved after it was forgotten")
	}
}

// slowly is a store that takes a second for each object it gives or deletes.
type slowly struct{ store.Store }

func (s slowly) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	time.Sleep(time.Second)
	return s.Store.Get(ctx, name, want, limit)
}

func (s slowly) Delete(ctx context.Context, o store.Object) error {
	time.Sleep(time.Second)
	return s.Store.Delete(ctx, o)
}

// A check or a pruning that takes minutes keeps nobody from saving, and what was saved
// meanwhile is checked too.
func TestLongOperations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		st := &mem.Store{}
		cfg := config(t, st)
		cfg.Shared, cfg.Settle = true, -1
		a, _, way := create(t, cfg)
		defer a.Close()
		for i := range 40 {
			save(t, a, item(fmt.Sprint("file/", i), strings.Repeat(fmt.Sprint(i), 2000)))
		}
		slow := cfg
		slow.Places = []store.Place{{Address: cfg.Places[0].Address, Store: slowly{st}}}
		b, err := satchel.Open(slow)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()

		changes := 0
		during := func(what string, do func() error) {
			t.Helper()
			done := make(chan error, 1)
			began := time.Now()
			go func() { done <- do() }()
			for n := 0; ; n++ {
				time.Sleep(5 * time.Second)
				select {
				case err := <-done:
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
					if took := time.Since(began); n < 5 {
						t.Errorf("%s: %d changes in %v, want more", what, n, took)
					}
					return
				default:
				}
				if what == "prune" && n == 2 {
					if _, err := a.Prune(ctx, 1); err != nil {
						t.Errorf("pruning at the same time: %v", err)
					}
				}
				began := time.Now()
				changes++
				_, err := a.Save(ctx, item("settings/x", fmt.Sprint(changes)), item("labels", strings.Repeat(fmt.Sprint(changes), 3000)))
				if took := time.Since(began); err != nil || took > 3*time.Second {
					t.Errorf("%s: a change took %v: %v", what, took, err)
				}
			}
		}
		during("check", func() error {
			r, err := b.Check(ctx)
			if r.Objects < len(a.Objects()) {
				err = cmp.Or(err, fmt.Errorf("%d objects compared, want %d", r.Objects, len(a.Objects())))
			}
			return err
		})
		if st := b.Status(); !st.Protected || st.Places[0].Generation != st.Generation {
			t.Errorf("after the check: %+v", st)
		}
		for range 3 {
			if _, err := a.Compact(ctx); err != nil {
				t.Fatal(err)
			}
			save(t, a, item("labels", "again"+fmt.Sprint(changes)))
			changes++
		}
		during("prune", func() error { _, err := b.Prune(ctx, 1); return err })
		if err := a.Refresh(); err != nil {
			t.Fatal(err)
		}
		if r, err := a.Check(ctx); err != nil {
			t.Errorf("after the pruning: %v, %v", r, err)
		}
		mustRead(t, here(t, a), way, st)
	})
}

// A place that is removed while it is checked is not known to hold anything afterwards.
func TestCheckRemovedPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		st, second := &mem.Store{}, &mem.Store{}
		cfg := config(t, st, second)
		cfg.Settle = -1
		cfg.Places[1].Store = slowly{second}
		b, _, way := create(t, cfg, item("labels", "1"))
		defer b.Close()
		done := make(chan error, 1)
		go func() { _, err := b.Check(ctx); done <- err }()
		time.Sleep(1500 * time.Millisecond)
		if _, err := b.SetPlaces(ctx, cfg.Places[:1], 1); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, satchel.ErrReplaced) {
			t.Errorf("got %v, want %v", err, satchel.ErrReplaced)
		}
		empty := &mem.Store{}
		if _, err := b.SetPlaces(ctx, append(cfg.Places[:1:1], store.Place{Address: cfg.Places[1].Address, Store: empty}), 2); err != nil {
			t.Fatal(err)
		}
		mustRead(t, here(t, b), way, empty)
	})
}

// Whoever let others in and finds the wallet gone says so, and changes nothing.
func TestLongOperationGone(t *testing.T) {
	t.Parallel()
	for what, do := range map[string]func(context.Context, *satchel.Backup) error{
		"check": func(ctx context.Context, b *satchel.Backup) error { _, err := b.Check(ctx); return err },
		"prune": func(ctx context.Context, b *satchel.Backup) error { _, err := b.Prune(ctx, 1); return err },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				st := &mem.Store{}
				cfg := config(t, st)
				cfg.Shared, cfg.Settle = true, -1
				a, _, _ := create(t, cfg)
				for i := range 20 {
					save(t, a, item(fmt.Sprint("file/", i%10), strings.Repeat(fmt.Sprint(i), 2000)))
				}
				for i := range 3 {
					if _, err := a.Compact(ctx); err != nil {
						t.Fatal(err)
					}
					save(t, a, item("labels", fmt.Sprint(i)))
				}
				slow := cfg
				slow.Places = []store.Place{{Address: cfg.Places[0].Address, Store: slowly{st}}}
				b, err := satchel.Open(slow)
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				done := make(chan error, 1)
				go func() { done <- do(ctx, b) }()
				time.Sleep(3500 * time.Millisecond)
				if err := a.Forget(); err != nil {
					t.Fatal(err)
				}
				if err := <-done; !errors.Is(err, satchel.ErrNoDevice) {
					t.Errorf("got %v, want %v", err, satchel.ErrNoDevice)
				}
			})
		})
	}
}
