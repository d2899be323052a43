package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/guardtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

func pin(s string) secret.Bytes { return secret.FromString(s) }

// openPIN finds the backup and opens it with a PIN.
func openPIN(t *testing.T, cfg satchel.Config, typed, passphrase string) (*satchel.Opened, []guard.Told, error) {
	t.Helper()
	ctx := context.Background()
	found, err := satchel.Find(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	slots, err := found[0].PINSlots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(slots) == 0 {
		return nil, nil, satchel.ErrNoSlot
	}
	return found[0].OpenPIN(ctx, slots[0], pin(typed), pin(passphrase))
}

// A PIN opens the backup on a new device, with one of three key servers away; a wrong one
// does not, and says how many guesses are left.
func TestPIN(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers := guardtest.New(t, 3)
	cfg := config(t, &mem.Store{}, &mem.Store{})
	cfg.Guardians = servers.Client()
	b, _, way := create(t, cfg, item("labels", "1"))
	info, err := unlock(t, b, way).SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2})
	if err != nil || b.Status().PINPending || len(b.Slots()) != 2 {
		t.Fatalf("%+v, %v, %+v", info, err, b.Status())
	}
	save(t, b, item("labels", "2"))
	if _, err := b.Check(ctx); err != nil {
		t.Error(err)
	}
	servers.Before(func(server string, _ protocol.Request) error {
		if server == servers.Names[0] {
			return guardtest.ErrNetwork
		}
		return nil
	})
	other := newDevice(t, cfg)
	_, _, err = openPIN(t, other, "3718", "")
	isErr(t, err, guard.ErrWrongPIN, satchel.CodeWrongSecret)
	o, told, err := openPIN(t, other, "3717", "")
	if err != nil || len(told) != 3 {
		t.Fatalf("%+v, %v", told, err)
	}
	d, _, err := o.Restore(ctx, other, satchel.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := here(t, d)["labels"]; got != "2" {
		t.Errorf("got %q", got)
	}
	slots, err := d.PINSlots(ctx)
	if err != nil || len(slots) != 1 {
		t.Fatalf("%+v, %v", slots, err)
	}
	if _, _, err := d.UnlockPIN(ctx, slots[0], pin("3717"), secret.Bytes{}); err != nil {
		t.Error(err)
	}
}

// After a change only the new PIN opens, and of the old slot nothing is left in a place.
func TestChangePIN(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers := guardtest.New(t, 3)
	st := &mem.Store{}
	cfg := config(t, st)
	cfg.Guardians = servers.Client()
	b, _, way := create(t, cfg)
	ow := unlock(t, b, way)
	if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	old := objects(t, st, "")
	// Other servers, and a passphrase besides.
	names := []string{servers.Names[1], servers.Names[2], servers.Add(t)}
	if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("9062"), Passphrase: pin("besides"), Servers: names, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	if s := b.Status(); s.PINPending || len(s.Slots) != 2 || !s.Protected {
		t.Errorf("%+v", s)
	}
	if n := len(objects(t, st, b.Status().Folder+"/slots/pin-")); n != 1 {
		t.Errorf("%d PIN slots in the place", n)
	}
	other := newDevice(t, cfg)
	_, _, err := openPIN(t, other, "3717", "besides")
	isErr(t, err, guard.ErrWrongPIN, satchel.CodeWrongSecret)
	_, _, err = openPIN(t, other, "9062", "something")
	isErr(t, err, guard.ErrPassphrase, satchel.CodeWrongSecret)
	if _, _, err := openPIN(t, other, "9062", "besides"); err != nil {
		t.Error(err)
	}
	// The old slot, from a copy of the place, is dead.
	copied := &mem.Store{}
	for name, data := range old {
		copied.Add(name, []byte(data))
	}
	dead := newDevice(t, cfg)
	dead.Places[0].Store = copied
	if _, _, err := openPIN(t, dead, "3717", ""); err == nil {
		t.Error("the old slot with the old PIN opens")
	}
}

// A PIN that is removed opens nothing any more, from a copy of the folder either; key
// servers that are away are told later.
func TestRemovePIN(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers := guardtest.New(t, 3)
	st := &mem.Store{}
	cfg := config(t, st)
	cfg.Guardians = servers.Client()
	b, _, way := create(t, cfg)
	ow := unlock(t, b, way)
	info, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	copied := st.Clone()
	var away atomic.Int64 // key servers
	away.Store(2)
	servers.Before(func(server string, _ protocol.Request) error {
		for _, name := range servers.Names[:away.Load()] {
			if server == name {
				return guardtest.ErrNetwork
			}
		}
		return nil
	})
	if err := ow.RemoveSlot(ctx, info.ID); !errors.Is(err, guard.ErrUnreachable) || len(b.Slots()) != 1 || len(b.Status().PINEnding) != 2 {
		t.Errorf("removed with two of three key servers away: %v, %+v", err, b.Status())
	}
	away.Store(1)
	b.Close()
	if b, err = satchel.Open(cfg); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.Sync(ctx); err != nil || len(b.Status().PINEnding) != 1 {
		t.Errorf("with one away: %v, %+v", err, b.Status())
	}
	away.Store(0)
	if _, err := b.Sync(ctx); err != nil || len(b.Status().PINEnding) != 0 {
		t.Errorf("with all: %v, %+v", err, b.Status())
	}
	if n := len(objects(t, st, b.Status().Folder+"/slots/pin-")); n != 0 {
		t.Errorf("%d PIN slots in the place", n)
	}
	dead := newDevice(t, cfg)
	dead.Places[0].Store = copied
	if _, _, err := openPIN(t, dead, "3717", ""); err == nil {
		t.Error("a copy of the slot opens")
	}
}

// Key servers and places that fail, from some request on, in a change of the PIN: always the
// old PIN or the new one opens, and when all is back the change can be made. About a third
// of the requests are tried.
func TestChangePINFails(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for k := rand.IntN(3); ; k += 1 + rand.IntN(5) {
		done := false
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			servers := guardtest.New(t, 3)
			st := &storetest.Faulty{Inner: &mem.Store{}}
			cfg := config(t, st)
			cfg.Guardians = servers.Client()
			b, _, way := create(t, cfg)
			ow := unlock(t, b, way)
			if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}); err != nil {
				t.Fatal(err)
			}
			var n atomic.Int64 // steps of the network so far; the k-th and all after it fail
			fails := func() bool { return n.Add(1) > int64(k) }
			servers.Before(func(string, protocol.Request) error {
				if fails() {
					return guardtest.ErrNetwork
				}
				return nil
			})
			st.Choose(func(op storetest.Op, name string) storetest.Fault {
				if fails() {
					return storetest.Unreachable
				}
				return storetest.None
			})
			_, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2})
			done = err == nil && n.Load() <= int64(k)
			// The device dies.
			b.Close()
			servers.Before(nil)
			st.Choose(nil)
			opened := 0
			for _, typed := range []string{"3717", "9062"} {
				found, err := satchel.Find(ctx, newDevice(t, cfg))
				if err != nil {
					t.Fatal(err)
				}
				slots, err := found[0].PINSlots(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range slots {
					if _, _, err := found[0].OpenPIN(ctx, s, pin(typed), secret.Bytes{}); err == nil {
						opened++
					}
				}
			}
			if opened == 0 {
				t.Errorf("neither PIN opens after %v", err)
			}
			b, err = satchel.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if _, err := b.Sync(ctx); err != nil {
				t.Error(err)
			}
			if _, err := unlock(t, b, way).SetPIN(ctx, satchel.PINPlan{PIN: pin("5550"), Servers: servers.Names, Threshold: 2}); err != nil {
				t.Fatalf("the next change: %v", err)
			}
			if _, _, err := openPIN(t, newDevice(t, cfg), "5550", ""); err != nil {
				t.Errorf("after the next change: %v", err)
			}
			if len(b.Slots()) != 2 || b.Status().PINPending {
				t.Errorf("%+v", b.Status())
			}
		})
		if done || t.Failed() {
			return
		}
		if k > 200 {
			t.Fatal(errors.New("it never ends"))
		}
	}
}

// A PIN alone is a way in from the first moment on; it counts as one when all key servers
// know that it is there to stay.
func TestCreateWithPIN(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers := guardtest.New(t, 3)
	st := &mem.Store{}
	cfg := config(t, st)
	cfg.Guardians = servers.Client()
	plan := satchel.Plan{Label: "Samantha", Keys: newKeys(t), PIN: &satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}}

	away(servers, servers.Names[2])
	if b, err := satchel.Create(ctx, cfg, plan); b != nil || !errors.Is(err, guard.ErrUnreachable) {
		t.Fatalf("with a key server away: %v, %v", b, err)
	}
	if len(objects(t, st, "")) != 0 {
		t.Error("something was left in the place")
	}
	servers.Before(func(server string, r protocol.Request) error {
		if _, ok := r.Payload.(protocol.Confirm); ok && server == servers.Names[2] {
			return guardtest.ErrNetwork
		}
		return nil
	})
	b, err := satchel.Create(ctx, cfg, plan)
	if b == nil || !errors.Is(err, satchel.ErrNotProtected) || !errors.Is(err, guard.ErrPending) {
		t.Fatalf("with a key server that goes away: %v", err)
	}
	defer b.Close()
	if s := b.Status(); s.Protected || !s.PINPending {
		t.Errorf("%+v", s)
	}
	away(servers)
	if _, err := b.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if s := b.Status(); !s.Protected || s.PINPending || len(s.Slots) != 1 || !s.Anchored {
		t.Errorf("%+v", s)
	}
	slots, err := b.PINSlots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.DrillPIN(ctx, slots[0], pin("3718"), secret.Bytes{}); !errors.Is(err, guard.ErrWrongPIN) {
		t.Errorf("drill with a wrong PIN: %v", err)
	}
	if r, told, err := b.DrillPIN(ctx, slots[0], pin("3717"), secret.Bytes{}); err != nil || r.Objects == 0 || len(told) != 3 || told[0].Wrong != 1 {
		t.Errorf("%+v, %+v, %v", r, told, err)
	}
	o, _, err := openPIN(t, newDevice(t, cfg), "3717", "")
	if err != nil || o.Preview().Problem != nil {
		t.Errorf("%v, %+v", err, o)
	}
}

// A rekeyed backup has the new PIN, and the old one opens nothing, from a copy either. Of a
// backup that is deleted no PIN is left.
func TestRekeyPIN(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, st, cfg, _, ow := pinned(t)
	copied := st.Clone()
	dir := filepath.Join(filepath.Dir(cfg.Dir), "renewed")
	b, r, err := ow.Rekey(ctx, dir, satchel.RekeyPlan{PIN: &satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2}})
	if err != nil || len(r.Left) > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	defer b.Close()
	if s := b.Status(); !s.Protected || s.PINPending || len(s.PINEnding) > 0 || !s.Anchored {
		t.Errorf("%+v", s)
	}
	o, _, err := openPIN(t, newDevice(t, cfg), "9062", "")
	if err != nil || o.Preview().Problem != nil {
		t.Fatalf("%v, %+v", err, o)
	}
	dead := newDevice(t, cfg)
	dead.Places[0].Store = copied
	if _, _, err := openPIN(t, dead, "3717", ""); err == nil {
		t.Error("a copy of the old one opens with the old PIN")
	}
	copied = st.Clone()
	slots, err := b.PINSlots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	owner, _, err := b.UnlockPIN(ctx, slots[0], pin("9062"), secret.Bytes{})
	if err != nil {
		t.Fatal(err)
	}
	if del, err := owner.Delete(ctx); err != nil || len(del.Left) > 0 {
		t.Errorf("%+v, %v", del, err)
	}
	dead.Places[0].Store = copied
	if _, _, err := openPIN(t, dead, "9062", ""); err == nil {
		t.Error("a copy of what was deleted opens")
	}
}

// R13: a key server that is gone for good is replaced: the change ends, and what could not be
// told there is not forgotten.
func TestReplaceDeadServer(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, _, cfg, b, ow := pinned(t)
	gone := servers.Names[0]
	names := append(append([]string{}, servers.Names[1:]...), servers.Add(t))
	away(servers, gone)
	if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Servers: names, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	if s := b.Status(); s.PINPending || len(s.PINEnding) != 1 || s.PINEnding[0] != gone || len(s.Slots) != 2 || !s.Anchored {
		t.Errorf("%+v", s)
	}
	if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("9062"), Servers: names, Threshold: 2}); err != nil {
		t.Fatalf("the next change: %v", err)
	}
	if _, _, err := openPIN(t, newDevice(t, cfg), "9062", ""); err != nil {
		t.Error(err)
	}
	away(servers)
	if _, err := b.Sync(ctx); err != nil || len(b.Status().PINEnding) != 0 {
		t.Errorf("%v, %+v", err, b.Status())
	}
}

// A device that dies at some request of a change leaves two PIN slots at most: who restores
// with the one that opens has one, and can change it.
func TestRestoreAfterDeadChange(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for k := rand.IntN(3); ; k += 1 + rand.IntN(3) {
		servers, _, cfg, b, ow := pinned(t)
		var n atomic.Int64
		servers.Before(func(string, protocol.Request) error {
			if n.Add(1) > int64(k) {
				return guardtest.ErrNetwork
			}
			return nil
		})
		_, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2})
		ended := err == nil
		b.Close()
		servers.Before(nil)
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
		for _, typed := range []string{"9062", "3717"} {
			for _, s := range slots {
				if o == nil {
					if o, _, err = found[0].OpenPIN(ctx, s, pin(typed), secret.Bytes{}); err != nil {
						o = nil
					}
				}
			}
		}
		if o == nil {
			t.Fatalf("request %d: no PIN opens: %v", k, err)
		}
		d, _, err := o.Restore(ctx, other, satchel.RestoreOptions{})
		if err != nil {
			t.Fatalf("request %d: %v", k, err)
		}
		slots, err = d.PINSlots(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var owner *satchel.Owner
		for _, typed := range []string{"9062", "3717"} {
			for _, s := range slots {
				if owner == nil {
					owner, _, _ = d.UnlockPIN(ctx, s, pin(typed), secret.Bytes{})
				}
			}
		}
		if owner == nil {
			t.Fatalf("request %d: no PIN opens after the restore", k)
		}
		if _, err := owner.SetPIN(ctx, satchel.PINPlan{PIN: pin("5550"), Servers: servers.Names, Threshold: 2}); err != nil {
			t.Fatalf("request %d: the next change: %v", k, err)
		}
		pins := 0
		for _, s := range d.Slots() {
			if s.Kind == slot.KindPIN {
				pins++
			}
		}
		if s := d.Status(); pins != 1 || s.PINPending || len(s.PINEnding) > 0 || !s.Anchored {
			t.Errorf("request %d: %+v", k, s)
		}
		d.Close()
		if ended {
			return
		}
	}
}

// A PIN that a thief's guesses erased, and that is the only way in, is no protection, and
// that is said with the next save; another way in is.
func TestErasedPIN(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, _, _, cfg, b, _ := pinOnly(t)
	for range 10 {
		servers.Later(100 * time.Hour)
		if _, _, err := openPIN(t, newDevice(t, cfg), "1739", ""); errors.Is(err, guard.ErrErased) {
			break
		}
	}
	_, err := b.Save(ctx, item("labels", "2"))
	isErr(t, err, satchel.ErrNotProtected, satchel.CodeErased)
	if s := b.Status(); s.Protected || !s.PINDead {
		t.Errorf("%+v", s)
	}
	b.Close()
	if b, err = satchel.Open(cfg); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if s := b.Status(); s.Protected || !s.PINDead {
		t.Errorf("a new process: %+v", s)
	}
	if _, err := b.Sync(ctx); !errors.Is(err, guard.ErrErased) {
		t.Errorf("got %v", err)
	}
	// That stays known while the key servers are away.
	away(servers, servers.Names...)
	if _, err := b.Save(ctx, item("labels", "3")); !errors.Is(err, guard.ErrErased) || b.Status().Protected {
		t.Errorf("with all away: %v", err)
	}
}
