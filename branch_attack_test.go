package satchel_test

import (
	"context"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// D2. After D1 a branch that the older device writes later counts as history, and goes
// without anybody having decided.
func TestAttackBranchGoesUnseen(t *testing.T) {
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"))
	changeOften(t, b, 80, false)
	before := clone(t, st)
	d := restore(t, newDevice(t, cfg), way)
	first := d.Head()
	changeOften(t, d, 140, false)
	junk := []byte("junk")
	fake := d.Status().Folder + "/" + seal.SnapshotName{Epoch: first.Epoch, Generation: 2, Device: first.Device, Hash: store.Sum(junk)}.Path()
	st.Add(fake, junk)
	if _, err := unlock(t, d, way).Prune(ctx, satchel.PruneOptions{Keep: 1, Branches: true}); err != nil {
		t.Fatal(err)
	}
	replace(t, st, fake, nil)
	// The older device was offline: it saves to a place that only it sees, which then syncs.
	off := cfg
	off.Places = []store.Place{{Address: "mem:0", Store: before}}
	b.Close()
	old, err := satchel.Open(off)
	if err != nil {
		t.Fatal(err)
	}
	save(t, old, item("lightning/scb", "only here"))
	branch := old.Head()
	old.Close()
	for name, data := range objects(t, before, "") {
		if _, ok := objects(t, st, "")[name]; !ok && (name == d.Status().Folder+"/"+branch.Path()) {
			st.Add(name, []byte(data))
		}
	}
	p, err := unlock(t, d, way).Prune(ctx, satchel.PruneOptions{Keep: 1})
	there := false
	for _, n := range snapshots(t, st) {
		there = there || n == branch
	}
	t.Logf("%+v, %v", p, err)
	if !there {
		t.Errorf("the branch %v was deleted, and nobody decided", branch)
	}
}
