package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

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
