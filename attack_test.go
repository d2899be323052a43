package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// A. The new folder vanished between the two calls; finishing deletes the old one too.
func TestAttackRekeyResumeLeavesNone(t *testing.T) {
	ctx := context.Background()
	bad := newBroken()
	cfg := config(t, bad)
	b, _, way := create(t, cfg, item("labels", "1"))
	ow := unlock(t, b, way)
	want := here(t, b)
	dir := filepath.Join(filepath.Dir(cfg.Dir), "rekeyed")
	code, _ := slot.NewRecoveryCode()
	nb, _, err := ow.Rekey(bad.arm(strike{op: storetest.Delete, fault: storetest.NotApplied}), dir, satchel.RekeyPlan{Slots: []slot.Secret{code}})
	if nb == nil || err == nil {
		t.Fatal(err)
	}
	folder := nb.Status().Folder
	nb.Close()
	bad.disarm()
	for name := range objects(t, bad.inner, folder+"/") { // R8: the place lost the new folder
		replace(t, bad.inner, name, nil)
	}
	nb, r, err := ow.Rekey(ctx, dir, satchel.RekeyPlan{})
	if nb != nil {
		defer nb.Close()
		t.Logf("deleted %d, protected %v, err %v, objects left in place %d", r.Objects, nb.Status().Protected, err, len(objects(t, bad.inner, seal.FolderPrefix)))
	}
	_, e1 := independent(way, bad.inner)
	got, e2 := independent(code, bad.inner)
	if e1 != nil && (e2 != nil || len(got) != len(want)) {
		t.Errorf("neither opens: old %v, new %v", e1, e2)
	}
}

// B. Another device took over and saved during the rekey; its changes are deleted.
func TestAttackRekeyDeletesOtherDevice(t *testing.T) {
	ctx := context.Background()
	st := &mem.Store{}
	f := &storetest.Faulty{Inner: st}
	cfg := config(t, f)
	b, _, way := create(t, cfg, item("labels", "1"))
	ow := unlock(t, b, way)
	old := b.Status().Folder
	done := false
	f.Choose(func(op storetest.Op, n string) storetest.Fault {
		if op == storetest.Put && !strings.HasPrefix(n, old) && !done {
			done = true
			c2 := newDevice(t, cfg)
			c2.Places = []store.Place{{Address: "mem:x", Store: st}}
			d := restore(t, c2, way)
			save(t, d, item("lightning/scb", "precious"))
		}
		return storetest.None
	})
	code, _ := slot.NewRecoveryCode()
	nb, r, err := ow.Rekey(ctx, filepath.Join(filepath.Dir(cfg.Dir), "rekeyed"), satchel.RekeyPlan{Slots: []slot.Secret{code}})
	if nb != nil {
		defer nb.Close()
	}
	t.Log(done, r, err)
	f.Choose(nil)
	a, _ := independent(way, st)
	c, _ := independent(code, st)
	if a["lightning/scb"] != "precious" && c["lightning/scb"] != "precious" {
		t.Errorf("what the other device was told is protected is in no backup: %v %v", short(a), short(c))
	}
}

// C. A second object of one name, with other bytes and size, stops pruning.
func TestAttackPruneDuplicate(t *testing.T) {
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, _ := create(t, cfg, item("file/big", strings.Repeat("0", 5000)))
	changeOften(t, b, 140, false)
	st.Add(b.Status().Folder+"/"+b.Objects()[len(b.Slots())], []byte("torn"))
	if _, err := b.Check(ctx); err != nil {
		t.Fatalf("check: %v", err)
	}
	if p, err := b.Prune(ctx, 1); err != nil {
		t.Errorf("check is well, prune: %+v %v", p, err)
	}
}

// D1. A junk file with a low generation of the newest epoch neither stops pruning nor
// makes it delete what is needed, nor hide what an older device writes afterwards.
func TestAttackBelowTheFirst(t *testing.T) {
	for _, branches := range []bool{false, true} {
		t.Run(fmt.Sprint(branches), func(t *testing.T) {
			ctx := context.Background()
			st := &mem.Store{}
			cfg := config(t, st)
			b, _, way := create(t, cfg, item("labels", "1"))
			changeOften(t, b, 80, false)
			d := restore(t, newDevice(t, cfg), way)
			first := d.Head()
			changeOften(t, d, 140, false)
			junk := []byte("junk")
			fake := seal.SnapshotName{Epoch: first.Epoch, Generation: 2, Device: first.Device, Hash: store.Sum(junk)}
			st.Add(d.Status().Folder+"/"+fake.Path(), junk)
			_, err := d.Prune(ctx, 1)
			t.Logf("journal prune: %v", err)
			if err != nil {
				t.Errorf("junk without any key blocks pruning: %v", err)
			}
			p, err := unlock(t, d, way).Prune(ctx, satchel.PruneOptions{Keep: 1, Branches: branches})
			t.Logf("owner prune: %+v %v", p, err)
			if err != nil {
				t.Errorf("junk blocks the owner's pruning: %v", err)
			}
			mustRead(t, here(t, d), way, st)
			if rep, err := d.Check(ctx); err != nil {
				t.Errorf("after pruning: %+v, %v", rep.Findings, err)
			}
			// What the older device wrote meanwhile, in a place that comes back, is told.
			old := b.Head()
			old.Generation, old.Hash = old.Generation+1, store.Sum([]byte("branch"))
			st.Add(d.Status().Folder+"/"+old.Path(), []byte("branch"))
			if _, err := d.Check(ctx); !errors.Is(err, satchel.ErrBranch) {
				t.Errorf("a branch: got %v, want %v", err, satchel.ErrBranch)
			}
			if s := d.Status(); s.Places[0].Branch != old.String() || !s.Protected {
				t.Errorf("status: %+v, protected %v", s.Places, s.Protected)
			}
		})
	}
}

// E. A place that is full turns each save of a new process into a checkpoint.
func TestAttackCheckpointEachSave(t *testing.T) {
	st, full := &mem.Store{}, &storetest.Faulty{Inner: &mem.Store{}}
	cfg := config(t, st, full)
	cfg.Copies = 1
	b, _, way := create(t, cfg, item("labels", "1"))
	full.Set(storetest.Put, storetest.Full)
	changeOften(t, b, 70, false) // Past a checkpoint.
	b.Close()
	for i := range 20 {
		b, err := satchel.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := b.Save(context.Background(), item("settings", fmt.Sprint("v", i))); err != nil {
			t.Fatal(r, err)
		}
		b.Close()
	}
	look, err := openOnly(t, way, satchel.Config{Settle: -1, Places: cfg.Places[:1]}).History(context.Background(), 100)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range look {
		if m.Whole {
			n++
		}
	}
	if n > 3 {
		t.Errorf("%d snapshots, %d are checkpoints", len(look), n)
	}
}

// F. Shared: Get after another process replaced a large value.
func TestAttackSharedGet(t *testing.T) {
	st := &mem.Store{}
	cfg := config(t, st)
	cfg.Shared = true
	a, _, _ := create(t, cfg, item("file/big", strings.Repeat("0", 5000)))
	b, err := satchel.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	save(t, b, item("file/big", strings.Repeat("1", 5000)))
	if _, err := b.Compact(context.Background()); err != nil {
		t.Fatal(err)
	}
	changeOften(t, b, 70, true)
	if v, err := a.Get("file/big"); err != nil {
		t.Errorf("Get: %q %v", v, err)
	}
}

// G. Keep: a snapshot that all places lost in between makes the owner's prune keep fewer
// checkpoints than asked for, without an error.
func TestAttackKeepFewer(t *testing.T) {
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"))
	changeOften(t, b, 400, false)
	ns := snapshots(t, st)
	before := len(ns)
	lost := ns[len(ns)-100]
	replace(t, st, b.Status().Folder+"/"+lost.Path(), nil)
	p, err := unlock(t, b, way).Prune(ctx, satchel.PruneOptions{Keep: 100})
	t.Logf("%d snapshots, %+v, %v", before, p, err)
	if p.Objects > 0 {
		t.Errorf("asked to keep 100 checkpoints (all): %d objects deleted, %d kept", p.Objects, p.Kept)
	}
}
