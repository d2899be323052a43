package satchel_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// R1: one store under two addresses is one copy. Addresses do not tell (an alias of rclone,
// a synced folder and its cloud, two names of a server); what is put at one and stands at
// the other does.
func TestAttack5OneStoreIsOneCopy(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	first := &mem.Store{}
	cfg := config(t, first)
	b, _, _ := create(t, cfg, item("labels", "1"))
	defer b.Close()
	two := append(slices.Clone(cfg.Places), store.Place{Address: "rclone:alias:", Store: first})
	if r, err := b.SetPlaces(ctx, two, 2); err == nil && r.Protected {
		t.Error("two copies are asked for, there is one, and it says protected")
	} else if !errors.Is(err, satchel.ErrSamePlace) || satchel.CodeOf(err) != satchel.CodeUsage {
		t.Errorf("got %v, want ErrSamePlace", err)
	}
	if s := b.Status(); len(s.Places) != 1 || !s.Protected {
		t.Errorf("after that: %+v", s)
	}
	// A copy is another place, also one that has all of it.
	two[1].Store = clone(t, first)
	if r, err := b.SetPlaces(ctx, two, 2); err != nil || !r.Protected {
		t.Errorf("a copy: %+v, %v", r, err)
	}
	save(t, b, item("labels", "2"))
	// So is one that was left out for a while.
	if _, err := b.SetPlaces(ctx, two[:1], 1); err != nil {
		t.Fatal(err)
	}
	if r, err := b.SetPlaces(ctx, two, 2); err != nil || !r.Protected {
		t.Errorf("taken in again: %+v, %v", r, err)
	}
}

// What does not tell whether it has the newest state is not taken in as one more copy.
func TestAttack5AliasThatFails(t *testing.T) {
	t.Parallel()
	first := &mem.Store{}
	cfg := config(t, first)
	b, _, _ := create(t, cfg, item("labels", "1"))
	defer b.Close()
	alias := &storetest.Faulty{Inner: first}
	alias.Set(storetest.Get, storetest.Unreachable)
	two := append(slices.Clone(cfg.Places), store.Place{Address: "rclone:alias:", Store: alias})
	if _, err := b.SetPlaces(context.Background(), two, 2); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
	if s := b.Status(); len(s.Places) != 1 || s.Copies != 1 || !s.Protected {
		t.Errorf("after that: %+v", s)
	}
}
