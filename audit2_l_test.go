package satchel_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// 12. Every way in is lost, here and in the only place: the backup opens with nothing, and
// the device calls it protected.
func TestAudit2NoSlotLeft(t *testing.T) {
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"))
	p := "slots/" + filepath.Base(name(t, st, "/slots/"))
	hash := strings.TrimSuffix(p, ".age")
	hash = hash[len(hash)-32:]
	remove(t, filepath.Join(cfg.Dir, "objects", hash))
	replace(t, st, b.Status().Folder+"/"+p, nil)
	r, err := b.Save(ctx, item("settings", "s"))
	rep, checkErr := b.Check(ctx)
	t.Logf("save %v, %v; check %v, %v", r.Protected, err, rep.Findings, checkErr)
	_, read := independent(way, st)
	if read != nil && (err == nil || b.Status().Protected) {
		t.Errorf("protected %v, after the check %v: and a restore says: %v", r.Protected, b.Status().Protected, read)
	}
}

// 13. Revert, Compact and Prune with several processes: another process compacts and
// prunes between two looks; what this one then saves and checks is whole.
func TestAudit2SharedPrune(t *testing.T) {
	ctx := context.Background()
	st, st2 := &mem.Store{}, &mem.Store{}
	cfg := config(t, st, st2)
	cfg.Shared = true
	a, _, way := create(t, cfg, item("labels", "1"), item("file/big", strings.Repeat("x", 5000)))
	b, err := satchel.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for i := range 6 {
		changeOften(t, a, 30, true)
		if _, err := b.Compact(ctx); err != nil {
			t.Fatal(err)
		}
		save(t, a, item("file/big", strings.Repeat(fmt.Sprint(i), 5000)))
		if _, err := b.Prune(ctx, 1); err != nil {
			t.Fatal(err)
		}
		if r, err := a.Check(ctx); err != nil {
			t.Fatal(r.Findings, err)
		}
		if i == 3 {
			if _, err := unlock(t, a, way).Prune(ctx, satchel.PruneOptions{Keep: 1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range []store.Store{st, st2} {
		mustRead(t, here(t, a), way, s)
	}
}
