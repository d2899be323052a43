package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/guardtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
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
	servers.Before = func(server string, _ protocol.Request) error {
		if server == servers.Names[0] {
			return guardtest.ErrNetwork
		}
		return nil
	}
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

// A PIN that is removed opens nothing any more, from a copy of the folder either; one key
// server that is away does not keep it.
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
	away := 2 // key servers
	servers.Before = func(server string, _ protocol.Request) error {
		for _, name := range servers.Names[:away] {
			if server == name {
				return guardtest.ErrNetwork
			}
		}
		return nil
	}
	if err := ow.RemoveSlot(ctx, info.ID); err == nil || len(b.Slots()) != 2 {
		t.Errorf("removed with two of three key servers away: %v", err)
	}
	away = 1
	if err := ow.RemoveSlot(ctx, info.ID); err != nil || len(b.Slots()) != 1 {
		t.Errorf("with one away: %v", err)
	}
	away = 0
	if n := len(objects(t, st, b.Status().Folder+"/slots/pin-")); n != 0 {
		t.Errorf("%d PIN slots in the place", n)
	}
	dead := newDevice(t, cfg)
	dead.Places[0].Store = copied
	if _, _, err := openPIN(t, dead, "3717", ""); err == nil {
		t.Error("a copy of the slot opens")
	}
}

// Key servers and places that fail, at any request, in a change of the PIN: always the old
// PIN or the new one opens, and when all is back the change can be made.
func TestChangePINFails(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for k := 0; ; k++ {
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
			servers.Before = func(string, protocol.Request) error {
				if fails() {
					return guardtest.ErrNetwork
				}
				return nil
			}
			st.Choose = func(op storetest.Op, name string) storetest.Fault {
				if fails() {
					return storetest.Unreachable
				}
				return storetest.None
			}
			_, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2})
			done = err == nil && n.Load() <= int64(k)
			// The device dies.
			b.Close()
			servers.Before, st.Choose = nil, nil
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
