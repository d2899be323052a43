package satchel_test

import (
	"context"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// 5. A file of somebody else's that only has the name of a second snapshot of some
// generation makes the honest one a branch, for ever: readers are warned of a device that
// never wrote, nothing is pruned, and no rekey begins.
func TestAudit3AlienTwin(t *testing.T) {
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"))
	changeOften(t, b, 3, false)
	n := b.Head()
	n.Generation--
	junk := []byte("junk")
	n.Hash = store.Sum(junk)
	b.Close()
	d := restore(t, newDevice(t, cfg), way)
	st.Add(d.Status().Folder+"/"+n.Path(), junk)
	for _, w := range openOnly(t, way, cfg).Preview().Warnings {
		if strings.Contains(w, "went on writing") {
			t.Errorf("warning: %s", w)
		}
	}
	if _, err := unlock(t, d, way).Prune(ctx, satchel.PruneOptions{Keep: 1}); err != nil {
		t.Errorf("prune: %v", err)
	}
	nb, _, _, err := rekeyOf(t, d, way)
	if nb != nil {
		nb.Close()
	}
	if err != nil {
		t.Errorf("rekey: %v", err)
	}
}
