package satchel_test

import (
	"context"
	"errors"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// 8. A device that saw that another one took over goes on, and calls itself protected, as
// soon as the place that showed it is away (format.md 8: it MUST stop writing).
func TestAudit2StoppedGoesOn(t *testing.T) {
	ctx := context.Background()
	a, cin := &mem.Store{}, &mem.Store{}
	fa := &storetest.Faulty{Inner: a}
	cfg := config(t, fa, cin)
	b, _, way := create(t, cfg, item("labels", "1"))
	cfg2 := newDevice(t, cfg)
	cfg2.Places = cfg.Places[:1]
	d := restore(t, cfg2, way)
	save(t, d, item("settings", "d"))
	if _, err := b.Save(ctx, item("lightning/scb", "1")); !errors.Is(err, satchel.ErrOtherDevice) {
		t.Fatal(err)
	}
	fa.Set(storetest.Any, storetest.Unreachable)
	r, err := b.Save(ctx, item("lightning/scb", "2"))
	if err == nil || r.Protected || b.Status().Protected {
		t.Errorf("after ErrOtherDevice: generation %d, protected %v, %v", r.Generation, r.Protected, err)
	}
}
