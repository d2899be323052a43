package satchel_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// rekeyOf begins a rekey with a new code, and returns what came of it and its directory.
func rekeyOf(t *testing.T, b *satchel.Backup, way slot.Secret) (nb *satchel.Backup, dir string, code slot.Secret, err error) {
	t.Helper()
	code, _ = slot.NewRecoveryCode()
	dir = filepath.Join(filepath.Dir(b.Dir()), "rekeyed")
	nb, _, err = unlock(t, b, way).Rekey(context.Background(), dir, satchel.RekeyPlan{Slots: []slot.Secret{code}})
	return nb, dir, code, err
}

// 1. The end is torn on its way to the place. The device then takes it for another
// device's, and the rekey can never be finished.
func TestAudit3TornEnd(t *testing.T) {
	for _, fault := range []storetest.Fault{storetest.Torn, storetest.Truncate, storetest.Other} {
		t.Run(string(fault), func(t *testing.T) {
			ctx := context.Background()
			inner := &mem.Store{}
			st := &storetest.Faulty{Inner: inner}
			b, _, way := create(t, config(t, st), item("labels", "1"))
			once := false
			st.Choose(func(op storetest.Op, name string) storetest.Fault {
				if op == storetest.Put && strings.Contains(name, "/snapshots/999999-") && !once {
					once = true
					return fault
				}
				return storetest.None
			})
			nb, dir, _, err := rekeyOf(t, b, way)
			if nb == nil || !once {
				t.Fatalf("%v, %v", nb, err)
			}
			nb.Close()
			for range 2 {
				if err == nil {
					return
				}
				if nb, _, err = unlock(t, b, way).Rekey(ctx, dir, satchel.RekeyPlan{}); nb != nil {
					nb.Close()
				}
			}
			if err == nil {
				return
			}
			t.Errorf("the rekey does not end any more: %v", err)
		})
	}
}

// 2. A rekey that a place interrupted is finished later: each call makes an end of its own.
// Who opens both, because a slot came back, is told that two devices wrote at once.
func TestAudit3TwoEnds(t *testing.T) {
	ctx := context.Background()
	one, inner := &mem.Store{}, &mem.Store{}
	two := &storetest.Faulty{Inner: inner}
	cfg := config(t, one, two)
	b, _, way := create(t, cfg, item("labels", "1"))
	folder := b.Status().Folder
	slotName := name(t, one, folder+"/slots/")
	slotData := objects(t, one, slotName)[slotName]
	two.Set(storetest.Delete, storetest.Unreachable)
	nb, dir, _, err := rekeyOf(t, b, way)
	if nb == nil || err == nil {
		t.Fatalf("%v, %v", nb, err)
	}
	nb.Close()
	two.Set(storetest.Delete, storetest.None)
	if nb, _, err = unlock(t, b, way).Rekey(ctx, dir, satchel.RekeyPlan{}); err != nil {
		t.Fatal(err)
	}
	nb.Close()
	one.Add(slotName, []byte(slotData))
	found, err := satchel.Find(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Folder == folder {
			o, err := f.Open(ctx, way)
			if err != nil {
				t.Fatal(err)
			}
			isErr(t, o.Preview().Problem, satchel.ErrEnded, satchel.CodeOtherDevice)
		}
	}
}

// 3. The account is over its limit, as when photos fill it: it takes nothing until
// something goes. The end does not fit, so nothing goes, so the end never fits.
func TestAudit3EndInFullPlace(t *testing.T) {
	ctx := context.Background()
	inner := &mem.Store{}
	st := &storetest.Faulty{Inner: inner}
	b, _, way := create(t, config(t, st), item("file/big", strings.Repeat("x", 1<<20)))
	folder := b.Status().Folder
	var armed atomic.Bool
	st.Choose(func(op storetest.Op, name string) storetest.Fault {
		if op == storetest.Delete {
			armed.Store(true) // From the first deletion on.
		}
		if op == storetest.Put && armed.Load() {
			list, _ := inner.List(ctx, folder+"/items/") // What would make room is there still.
			for _, o := range list {
				if o.Size > 1<<20 {
					return storetest.Full
				}
			}
		}
		return storetest.None
	})
	nb, dir, _, err := rekeyOf(t, b, way)
	for range 3 {
		if nb != nil {
			nb.Close()
		}
		if err == nil {
			return
		}
		nb, _, err = unlock(t, b, way).Rekey(ctx, dir, satchel.RekeyPlan{})
	}
	if nb != nil {
		nb.Close()
	}
	if err != nil {
		t.Errorf("what is left of the old backup stays for ever: %v", err)
	}
}

// 4. While one place of the old backup is still to be emptied, what an older device wrote
// comes there. Neither finishing nor deciding about it is possible any more.
func TestAudit3BranchAfterDeletionBegan(t *testing.T) {
	ctx := context.Background()
	one, inner := &mem.Store{}, &mem.Store{}
	two := &storetest.Faulty{Inner: inner}
	cfg := config(t, one, two)
	b, _, way := create(t, cfg, item("labels", "1"))
	off := inner.Clone()
	d := restore(t, newDevice(t, cfg), way)
	b.Close()
	c := cfg
	c.Places = []store.Place{{Address: "mem:0", Store: off}, {Address: "mem:1", Store: &mem.Store{}}}
	old, err := satchel.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	save(t, old, item("lightning/scb", "precious"))
	branch := old.Head()
	old.Close()
	two.Set(storetest.Delete, storetest.Unreachable)
	nb, dir, _, err := rekeyOf(t, d, way)
	if nb == nil || err == nil {
		t.Fatalf("%v, %v", nb, err)
	}
	nb.Close()
	two.Set(storetest.Delete, storetest.None)
	path := d.Status().Folder + "/" + branch.Path()
	inner.Add(path, []byte(objects(t, off, path)[path]))
	nb, _, finish := unlock(t, d, way).Rekey(ctx, dir, satchel.RekeyPlan{})
	if nb != nil {
		nb.Close()
	}
	_, decide := unlock(t, d, way).Prune(ctx, satchel.PruneOptions{Keep: 1, Branches: true})
	_, del := unlock(t, d, way).Delete(ctx)
	if finish != nil && decide != nil && del != nil {
		t.Errorf("stuck:\nfinishing: %v\ndeciding: %v\ndeleting: %v", finish, decide, del)
	}
}
