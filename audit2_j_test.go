package satchel_test

import (
	"context"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// 10. What an older device saved in a place that was away at the restore is told by nobody
// when the place is back: not by Save, nor by Check, nor by Status (R16).
func TestAudit2BranchUntold(t *testing.T) {
	ctx := context.Background()
	a, c := &mem.Store{}, &mem.Store{}
	cfg := config(t, a, c)
	b, _, way := create(t, cfg, item("labels", "1"))
	off := cfg
	off.Places = cfg.Places[1:] // a is away
	b.Close()
	b, err := satchel.Open(off)
	if err != nil {
		t.Fatal(err)
	}
	save(t, b, item("lightning/scb", "precious")) // Protected, in c.
	b.Close()
	fc := &storetest.Faulty{Inner: c}
	fc.Set(storetest.Any, storetest.Unreachable)
	cfg2 := newDevice(t, cfg)
	cfg2.Places[1].Store = fc
	found, _ := satchel.Find(ctx, cfg2)
	o, err := found[0].Open(ctx, way)
	if err != nil {
		t.Fatal(err)
	}
	d, out, err := o.Restore(ctx, cfg2, satchel.RestoreOptions{})
	if d == nil {
		t.Fatal(err)
	}
	defer d.Close()
	t.Logf("restore: problem %v, warnings %v, err %v", out.Problem, out.Warnings, err)
	fc.Set(storetest.Any, storetest.None)
	r, saveErr := d.Save(ctx, item("settings", "s"))
	rep, checkErr := d.Check(ctx)
	if saveErr == nil && checkErr == nil && len(rep.Findings) == 0 {
		t.Errorf("protected %v, places %+v: nothing tells of the branch in the place that is back", r.Protected, r.Places)
	}
}
