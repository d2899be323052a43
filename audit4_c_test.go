package satchel_test

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard/guardtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// Two PINs open a backup, since a device died while it changed the PIN. A change that
// fails before anything was made leaves both.
func TestAudit4FailedChangeEndsOther(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, _, _, cfg, b, ow := pinOnly(t)
	fresh := []string{servers.Add(t), servers.Add(t), servers.Add(t)}
	unconfirmed(servers, fresh...)
	if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("9062"), Servers: fresh, Threshold: 2}); err == nil {
		t.Fatal("no error")
	}
	b.Close()
	away(servers)
	other := newDevice(t, cfg)
	found, err := satchel.Find(ctx, other)
	if err != nil {
		t.Fatal(err)
	}
	slots, err := found[0].PINSlots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var o *satchel.Opened
	for _, s := range slots {
		if got, _, err := found[0].OpenPIN(ctx, s, pin("9062"), secret.Bytes{}); err == nil {
			o = got
		}
	}
	if o == nil {
		t.Fatal("the new PIN does not open it")
	}
	d, _, err := o.Restore(ctx, other, satchel.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if !anyPIN(t, cfg, "9062") || !anyPIN(t, cfg, "3717") {
		t.Fatal("only one is alive")
	}
	if slots, err = d.PINSlots(ctx); err != nil {
		t.Fatal(err)
	}
	var owner *satchel.Owner
	for _, s := range slots {
		if owner == nil {
			owner, _, _ = d.UnlockPIN(ctx, s, pin("9062"), secret.Bytes{})
		}
	}
	gone := servers.Add(t)
	away(servers, gone)
	if _, err := owner.SetPIN(ctx, satchel.PINPlan{PIN: pin("5550"), Servers: []string{gone}, Threshold: 1}); err == nil {
		t.Fatal("no error")
	}
	away(servers)
	if _, err := d.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	for _, typed := range []string{"3717", "9062"} {
		if !anyPIN(t, cfg, typed) {
			t.Errorf("after a change that failed before it began the PIN %s does not open it any more: %+v", typed, d.Status())
		}
	}
}

// New keys, and the places go away in the middle: the old backup is not deleted, goes on,
// and must still open, or not say Protected.
func TestAudit4RekeyFails(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, st, _, cfg, b, ow := pinOnly(t)
	var cut atomic.Bool
	st.Choose(func(op storetest.Op, _ string) storetest.Fault {
		if op == storetest.Delete {
			cut.Store(true) // The old one begins to go, and the place with it.
		}
		if cut.Load() {
			return storetest.Unreachable
		}
		return storetest.None
	})
	dir := filepath.Join(filepath.Dir(cfg.Dir), "renewed")
	nb, _, err := ow.Rekey(ctx, dir, satchel.RekeyPlan{PIN: &satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2}})
	if err == nil {
		t.Fatal("no error")
	}
	if nb != nil {
		nb.Close()
	}
	t.Logf("rekey: %v", err)
	st.Choose(nil)
	r, err := b.Save(ctx, item("labels", "newest"))
	if err != nil || !r.Protected {
		return // It says so.
	}
	found, err := satchel.Find(ctx, newDevice(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	for i := range found {
		slots, err := found[i].PINSlots(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range slots {
			for _, typed := range []string{"3717", "9062"} {
				if o, _, err := found[i].OpenPIN(ctx, s, pin(typed), secret.Bytes{}); err == nil {
					if v, err := o.Value(ctx, "labels"); err == nil && string(v.Open()) == "newest" {
						return
					}
				}
			}
		}
	}
	t.Error("what was saved, and said to be Protected, opens with nothing")
}

// The recovery code is not to go while the PIN that would be left is not settled: the PIN
// may come to nothing.
func TestAudit4RemoveCodeWhilePending(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers := guardtest.New(t, 3)
	st := &mem.Store{}
	cfg := config(t, st)
	cfg.Guardians = servers.Client()
	b, _, way := create(t, cfg, item("labels", "1"))
	ow := unlock(t, b, way)
	unconfirmed(servers, servers.Names...)
	if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}); err == nil {
		t.Fatal("no error")
	}
	err := ow.RemoveSlot(ctx, ow.Slot().ID)
	t.Logf("removing the code: %v", err)
	b.Close()
	servers.Later(8 * 24 * time.Hour) // The device was lost. A week later:
	away(servers)
	if n := len(objects(t, st, b.Status().Folder+"/slots/recovery-code-")); n == 0 {
		if !anyPIN(t, cfg, "3717") {
			t.Errorf("the code was taken out, and the PIN is nothing: removing it said %v", err)
		}
	}
}

// Heads that may be old, since the key servers were put back from copies, prove nothing:
// who restores is told.
func TestAudit4Unproven(t *testing.T) {
	t.Parallel()
	servers, _, cfg, b, _ := pinned(t)
	b.Close()
	servers.After(func(_ string, r protocol.Request, reply []byte) ([]byte, error) {
		if _, ok := r.Payload.(protocol.AskStatus); ok && reply[1] == 0 {
			reply[len(reply)-1] = 1
		}
		return reply, nil
	})
	o, _, err := openPIN(t, newDevice(t, cfg), "3717", "")
	if err != nil {
		t.Fatal(err)
	}
	if p := o.Preview(); p.Problem == nil && len(p.Warnings) == 0 {
		t.Error("all heads are unproven, and nothing is said")
	}
}

// A PIN that is the only way in and was erased by somebody's guesses opens nothing: Check
// and the next Save do not say that all is well.
func TestAudit4ErasedOnlyWay(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, _, _, cfg, b, _ := pinOnly(t)
	found, err := satchel.Find(ctx, newDevice(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		slots, err := found[0].PINSlots(ctx)
		if err != nil {
			t.Fatal(err)
		}
		found[0].OpenPIN(ctx, slots[0], pin("0001"), secret.Bytes{})
		servers.Later(100 * time.Hour)
	}
	if anyPIN(t, cfg, "3717") {
		t.Fatal("not erased")
	}
	r, err := b.Save(ctx, item("labels", "2"))
	_, checkErr := b.Check(ctx)
	if s := b.Status(); err == nil && r.Protected && checkErr == nil {
		t.Errorf("nothing opens it, and it says Protected %v, Anchored %v, Next %q; Check is content", s.Protected, s.Anchored, s.Next)
	}
}
