package satchel_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// 1. Rekey deletes a branch that an older device made, and nobody decided.
func TestAudit2RekeyDeletesBranch(t *testing.T) {
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"))
	d := restore(t, newDevice(t, cfg), way)
	save(t, d, item("settings", "new device"))
	// The older device was offline: it saves to a folder that something syncs later.
	off := clone(t, st)
	for name := range objects(t, off, d.Status().Folder+"/snapshots/000002") {
		replace(t, off, name, nil)
	}
	c := cfg
	c.Places = []store.Place{{Address: "mem:0", Store: off}}
	b.Close()
	old, err := satchel.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	save(t, old, item("lightning/scb", "precious")) // Protected.
	branch := old.Head()
	old.Close()
	for name, data := range objects(t, off, "") {
		if _, ok := objects(t, st, "")[name]; !ok {
			st.Add(name, []byte(data))
		}
	}
	if _, err := unlock(t, d, way).Prune(ctx, satchel.PruneOptions{Keep: 1}); !errors.Is(err, satchel.ErrForked) {
		t.Fatalf("prune: %v", err)
	}
	code, _ := slot.NewRecoveryCode()
	nb, r, err := unlock(t, d, way).Rekey(ctx, filepath.Join(filepath.Dir(d.Dir()), "rekeyed"), satchel.RekeyPlan{Slots: []slot.Secret{code}})
	if nb != nil {
		defer nb.Close()
	}
	t.Logf("rekey: %+v, %v", r, err)
	if !slices.Contains(snapshots(t, st), branch) {
		t.Errorf("the branch %v with the only lightning/scb was deleted, and nobody decided", branch)
	}
}
