package satchel_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// A device remembers when a drill last passed, and forgets it with the way in that the
// drill went by.
func TestDrilled(t *testing.T) {
	ctx := t.Context()
	cloud := &storetest.Faulty{Inner: &mem.Store{}}
	cfg := config(t, cloud)
	var clock time.Time
	cfg.Now = func() time.Time { return clock }
	set := func(day int) { clock = time.Date(2026, 11, day, 12, 0, 0, 0, time.UTC) }
	set(1)
	b, _, way := create(t, cfg)
	defer func() { b.Close() }()
	want := func(day int) {
		t.Helper()
		var at time.Time
		if day > 0 {
			at = time.Date(2026, 11, day, 12, 0, 0, 0, time.UTC)
		}
		if got := b.Status().Drilled; !got.Equal(at) {
			t.Fatalf("drilled %v, want %v", got, at)
		}
	}
	again := func() {
		t.Helper()
		b.Close()
		var err error
		if b, err = satchel.Open(cfg); err != nil {
			t.Fatal(err)
		}
	}
	want(0)
	set(2)
	if _, err := b.Drill(ctx, way); err != nil {
		t.Fatal(err)
	}
	want(2)
	again()
	want(2)

	// What fails is none.
	set(3)
	other, _ := slot.NewRecoveryCode()
	if _, err := b.Drill(ctx, other); !errors.Is(err, slot.ErrWrongSecret) {
		t.Fatalf("got %v, want %v", err, slot.ErrWrongSecret)
	}
	cloud.Set(storetest.Get, storetest.Unreachable)
	if _, err := b.Drill(ctx, way); !errors.Is(err, store.ErrUnreachable) {
		t.Fatalf("got %v, want %v", err, store.ErrUnreachable)
	}
	cloud.Set(storetest.Get, storetest.None)
	want(2)

	// It outlives a log that is written anew.
	set(4)
	for i := range 100 {
		save(t, b, satchel.Change{Name: "labels", Value: bytes.Repeat([]byte{byte(i)}, 2000)})
	}
	again()
	want(2)

	// With another way in that nobody tried it counts no more.
	owner, err := b.Unlock(ctx, way)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := owner.AddSlot(ctx, other); err != nil {
		t.Fatal(err)
	}
	want(2)
	if err := owner.RemoveSlot(ctx, owner.Slot().ID); err != nil {
		t.Fatal(err)
	}
	want(0)
	set(5)
	if _, err := b.Drill(ctx, other); err != nil {
		t.Fatal(err)
	}
	want(5)
}

// As many places must pass a drill as must hold a change.
func TestDrilledInPlaces(t *testing.T) {
	ctx := t.Context()
	first, second := &storetest.Faulty{Inner: &mem.Store{}}, &storetest.Faulty{Inner: &mem.Store{}}
	for copies, want := range map[int]bool{1: true, 2: false} {
		cfg := config(t, first, second)
		cfg.Copies = copies
		b, _, way := create(t, cfg)
		second.Set(storetest.Any, storetest.Unreachable)
		if _, err := b.Drill(ctx, way); !errors.Is(err, store.ErrUnreachable) {
			t.Errorf("%d copies: got %v, want %v", copies, err, store.ErrUnreachable)
		}
		if got := !b.Status().Drilled.IsZero(); got != want {
			t.Errorf("%d copies: drilled %v, want %v", copies, got, want)
		}
		second.Set(storetest.Any, storetest.None)
		b.Close()
	}
}

// A restore is a drill: what opened was tried. One that found less than all is none.
func TestRestoreIsDrill(t *testing.T) {
	ctx := t.Context()
	cloud := &mem.Store{}
	b, _, way := create(t, config(t, cloud))
	save(t, b, satchel.Change{Name: "labels", Value: bytes.Repeat([]byte("x"), 5000)})
	b.Close()
	if b := restore(t, config(t, cloud), way); b.Status().Drilled.IsZero() {
		t.Error("a restore did not count")
	} else {
		b.Close()
	}
	list, err := cloud.List(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list {
		if strings.Contains(o.Name, "/items/") && strings.Contains(o.Name, "/0000000002-") {
			if err := cloud.Delete(ctx, o); err != nil {
				t.Fatal(err)
			}
		}
	}
	cfg := config(t, cloud)
	b, out, err := openOnly(t, way, cfg).Restore(ctx, cfg, satchel.RestoreOptions{AcceptProblem: true})
	if !errors.Is(err, satchel.ErrIncomplete) {
		t.Fatalf("got %v, want %v", err, satchel.ErrIncomplete)
	}
	defer b.Close()
	if !b.Status().Drilled.IsZero() {
		t.Errorf("a restore without %v counts", out.Missing)
	}
}
