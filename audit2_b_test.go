package satchel_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// 2. One listing that fails at the wrong moment makes the owner's prune delete a branch
// that is in that place only, though Branches is not set.
func TestAudit2PruneUnlistedBranch(t *testing.T) {
	ctx := context.Background()
	a, cin := &mem.Store{}, &mem.Store{}
	c := &storetest.Faulty{Inner: cin}
	cfg := config(t, a, c)
	b, _, way := create(t, cfg, item("labels", "1"))
	// Another device takes over where c is away; the older one saves to c only.
	cfg2 := newDevice(t, cfg)
	cfg2.Places = cfg.Places[:1]
	d := restore(t, cfg2, way)
	off := cfg
	off.Places = cfg.Places[1:]
	b.Close()
	old, err := satchel.Open(off)
	if err != nil {
		t.Fatal(err)
	}
	save(t, old, item("lightning/scb", "precious"))
	branch := old.Head()
	old.Close()
	changeOften(t, d, 140, false)
	if _, err := d.SetPlaces(ctx, cfg.Places, 2); err != nil {
		t.Fatal(err)
	}
	ow := unlock(t, d, way)
	if _, err := ow.Prune(ctx, satchel.PruneOptions{Keep: 1}); !errors.Is(err, satchel.ErrForked) {
		t.Fatalf("prune: %v, want ErrForked", err)
	}
	n := 0
	c.Choose(func(op storetest.Op, _ string) storetest.Fault {
		if op == storetest.List {
			if n++; n == 2 {
				return storetest.Unreachable
			}
		}
		return storetest.None
	})
	p, err := ow.Prune(ctx, satchel.PruneOptions{Keep: 1})
	t.Logf("%+v, %v", p, err)
	if !slices.Contains(snapshots(t, cin), branch) {
		t.Errorf("the branch %v was deleted, and nobody decided", branch)
	}
}
