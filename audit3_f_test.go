package satchel_test

import (
	"context"
	"path/filepath"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store/mem"
)

// Two rekeys in a row, and a device that was away from the first one.
func TestAudit3TwoRekeys(t *testing.T) {
	ctx := context.Background()
	st, st2 := &mem.Store{}, &mem.Store{}
	cfg := config(t, st, st2)
	b, _, way := create(t, cfg, item("labels", "1"))
	d := restore(t, newDevice(t, cfg), way)
	nb, _, code, err := rekeyOf(t, d, way)
	if err != nil {
		t.Fatal(err)
	}
	e := restore(t, newDevice(t, cfg), code)
	save(t, e, item("labels", "2"))
	code2, _ := slot.NewRecoveryCode()
	nb2, _, err := unlock(t, e, code).Rekey(ctx, filepath.Join(filepath.Dir(e.Dir()), "again"), satchel.RekeyPlan{Slots: []slot.Secret{code2}})
	if err != nil {
		t.Fatal(err)
	}
	defer nb2.Close()
	for _, old := range []*satchel.Backup{b, nb} {
		_, err := old.Save(ctx, item("labels", "3"))
		isErr(t, err, satchel.ErrOtherDevice, satchel.CodeOtherDevice)
	}
	save(t, nb2, item("labels", "4"))
	if found, err := satchel.Find(ctx, cfg); err != nil || len(found) != 1 {
		t.Errorf("%d, %v", len(found), err)
	}
	o := openOnly(t, code2, cfg)
	if p := o.Preview(); p.Problem != nil || len(p.Warnings) > 0 {
		t.Errorf("%v %q", p.Problem, p.Warnings)
	}
	if _, err := unlock(t, nb2, code2).Delete(ctx); err != nil {
		t.Error(err)
	}
	nb.Close()
}
