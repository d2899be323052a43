package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// 5. A device whose directory was put back to an older day writes so much while the place
// is away that a checkpoint comes: the fork goes unnoticed, and what was acknowledged
// before is history that an owner's prune deletes.
func TestAudit2RolledBackDevice(t *testing.T) {
	ctx := context.Background()
	inner := &mem.Store{}
	st := &storetest.Faulty{Inner: inner}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"))
	b.Close()
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	b, err := satchel.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	save(t, b, item("lightning/scb", "precious"))
	lost := b.Head()
	b.Close()
	remove(t, cfg.Dir)
	if err := os.CopyFS(cfg.Dir, os.DirFS(copied)); err != nil {
		t.Fatal(err)
	}
	b, err = satchel.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	st.Set(storetest.Any, storetest.Unreachable)
	for i := range 70 {
		if _, err := b.Save(ctx, item("settings", fmt.Sprint(i))); !errors.Is(err, satchel.ErrNotProtected) {
			t.Fatal(err)
		}
	}
	st.Set(storetest.Any, storetest.None)
	r, err := b.Sync(ctx)
	t.Logf("sync: protected %v, %v; chain from %d", r.Protected, err, b.Chain()[0].Generation)
	rep, checkErr := b.Check(ctx)
	o := openOnly(t, way, satchel.Config{Settle: -1, Places: cfg.Places})
	p := o.Preview()
	t.Logf("check: %+v, %v; restore: %v, %v, %v", rep.Findings, checkErr, p.Problem, p.Warnings, p.Others)
	if err == nil && checkErr == nil && p.Problem == nil && len(p.Warnings) == 0 {
		t.Errorf("generation %d, which was protected, is in no history, and nobody says so", lost.Generation)
	}
	_, err = unlock(t, b, way).Prune(ctx, satchel.PruneOptions{Keep: 1})
	if !slices.Contains(snapshots(t, inner), lost) {
		t.Errorf("and pruning deleted it: %v", err)
	}
}
