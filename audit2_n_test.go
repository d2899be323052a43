package satchel_test

import (
	"context"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel/store/mem"
)

// Format.md 8: a writer that prunes MUST first see that the store holds its newest state
// whole. A damaged object of the same length does not keep it from pruning.
func TestAudit2PruneDamagedPresent(t *testing.T) {
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("file/big", strings.Repeat("0", 5000)))
	changeOften(t, b, 140, false)
	save(t, b, item("file/big", strings.Repeat("1", 5000)))
	changeOften(t, b, 140, false)
	line := b.Line("file/big")
	obj, _ := b.DeviceKey().ItemObject(&line)
	name := b.Status().Folder + "/" + obj.Path()
	data := []byte(objects(t, st, "")[name])
	data[len(data)/2] ^= 0x10
	replace(t, st, name, data)
	if _, err := independent(way, st); err == nil {
		t.Fatal("not damaged")
	}
	if p, err := b.Prune(ctx, 1); err == nil && p.Objects > 0 {
		t.Errorf("%d objects of older states went, and the newest is damaged", p.Objects)
	}
}
