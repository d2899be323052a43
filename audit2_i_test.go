package satchel_test

import (
	"context"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// 9. One damaged file with a high epoch in its name, and a user who accepts it, and the
// backup can be restored once and never again.
func TestAudit2LastEpoch(t *testing.T) {
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"))
	junk := seal.SnapshotName{Epoch: seal.MaxEpoch - 1, Generation: 7, Device: b.Head().Device, Hash: store.Sum([]byte("x"))}
	st.Add(b.Status().Folder+"/"+junk.Path(), []byte("not x"))
	b.Close()
	cfg2 := newDevice(t, cfg)
	d, _, err := openOnly(t, way, cfg2).Restore(ctx, cfg2, satchel.RestoreOptions{AcceptProblem: true})
	if d == nil {
		t.Fatal(err)
	}
	save(t, d, item("settings", "s"))
	d.Close()
	cfg3 := newDevice(t, cfg)
	e, _, err := openOnly(t, way, cfg3).Restore(ctx, cfg3, satchel.RestoreOptions{AcceptProblem: true})
	if e == nil {
		t.Errorf("the backup cannot be restored any more: %v", err)
	} else {
		e.Close()
	}
}
