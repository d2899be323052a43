package satchel_test

import (
	"context"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// 17. A branch, which stops nothing, hides what matters: a check that finds the place
// damaged too ends with the code of another device.
func TestAudit3BranchHidesDamage(t *testing.T) {
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"), item("file/a", strings.Repeat("a", 5000)))
	n := b.Head()
	b.Close()
	d := restore(t, newDevice(t, cfg), way)
	junk := []byte("junk")
	n.Generation, n.Hash = 9, store.Sum(junk)
	st.Add(d.Status().Folder+"/"+n.Path(), junk)
	replace(t, st, d.Status().Folder+"/"+d.Objects()[len(d.Slots())], nil)
	_, err := d.Check(ctx)
	if err == nil || satchel.CodeOf(err) == satchel.CodeOtherDevice {
		t.Errorf("code %d: %v", satchel.CodeOf(err), err)
	}
}

// 18. A file that only has the name of an older snapshot is known to be somebody else's
// when the backup is opened. The device that is restored is not told: for ever it says that
// another device wrote beside its history, no check is well, and nothing is pruned, also
// after the owner decided.
func TestAudit3AlienBranch(t *testing.T) {
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"))
	b.Close()
	junk := []byte("junk")
	fake := seal.SnapshotName{Epoch: 1, Generation: 1, Device: seal.NewDeviceID(), Hash: store.Sum(junk)}
	st.Add(b.Status().Folder+"/"+fake.Path(), junk)
	d := restore(t, newDevice(t, cfg), way)
	changeOften(t, d, 140, false)
	if _, err := unlock(t, d, way).Prune(ctx, satchel.PruneOptions{Keep: 1, Branches: true}); err != nil {
		t.Fatal(err)
	}
	if p := d.Status().Places[0]; p.Branch != "" {
		t.Errorf("branch %s", p.Branch)
	}
	if _, err := d.Check(ctx); err != nil {
		t.Errorf("check: %v", err)
	}
	if _, err := d.Prune(ctx, 1); err != nil {
		t.Errorf("prune: %v", err)
	}
}
