package satchel_test

import (
	"context"
	"errors"
	"testing"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/guardtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// unconfirmed makes a key server lose every confirm.
func unconfirmed(servers *guardtest.Servers, names ...string) {
	servers.Before(func(server string, r protocol.Request) error {
		for _, name := range names {
			if _, ok := r.Payload.(protocol.Confirm); ok && server == name {
				return guardtest.ErrNetwork
			}
		}
		return nil
	})
}

// pinOnly returns a protected backup that only a PIN opens.
func pinOnly(t *testing.T) (*guardtest.Servers, *storetest.Faulty, *mem.Store, satchel.Config, *satchel.Backup, *satchel.Owner) {
	t.Helper()
	ctx := context.Background()
	servers := guardtest.New(t, 3)
	inner := &mem.Store{}
	st := &storetest.Faulty{Inner: inner}
	cfg := config(t, st)
	cfg.Guardians = servers.Client()
	b, err := satchel.Create(ctx, cfg, satchel.Plan{Label: "Samantha", Keys: newKeys(t),
		PIN: &satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	slots, err := b.PINSlots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ow, _, err := b.UnlockPIN(ctx, slots[0], pin("3717"), secret.Bytes{})
	if err != nil {
		t.Fatal(err)
	}
	return servers, st, inner, cfg, b, ow
}

// anyPIN reports whether some slot in the places opens with one of the PINs.
func anyPIN(t *testing.T, cfg satchel.Config, pins ...string) bool {
	t.Helper()
	ctx := context.Background()
	found, err := satchel.Find(ctx, newDevice(t, cfg))
	if err != nil || len(found) == 0 {
		return false
	}
	slots, err := found[0].PINSlots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, typed := range pins {
		for _, s := range slots {
			if _, _, err := found[0].OpenPIN(ctx, s, pin(typed), secret.Bytes{}); err == nil {
				return true
			} else {
				t.Logf("%s with %s: %v", s.ID, typed, err)
			}
		}
	}
	return false
}

// A new PIN at other key servers that is taken back while it is pending must not end the
// accounts of the PIN that stays.
func TestAudit4RemovePending(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, _, _, cfg, b, ow := pinOnly(t)
	fresh := []string{servers.Add(t), servers.Add(t), servers.Add(t)}
	unconfirmed(servers, fresh[2])
	info, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("9062"), Servers: fresh, Threshold: 2})
	if !errors.Is(err, guard.ErrPending) {
		t.Fatalf("%v", err)
	}
	away(servers)
	if err := ow.RemoveSlot(ctx, info.ID); err != nil {
		t.Logf("removing the pending one: %v", err)
	}
	save(t, b, item("labels", "2"))
	if _, err := b.Sync(ctx); err != nil {
		return // It says so.
	}
	if !anyPIN(t, cfg, "3717", "9062") {
		t.Errorf("Protected, and no PIN opens it: %+v", b.Status())
	}
}

// The same at the same key servers, where one of three already took the new account for
// the old one, of two that are needed: neither is to be removed for the other.
func TestAudit4RemovePendingHalf(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, _, _, cfg, b, ow := pinOnly(t)
	unconfirmed(servers, servers.Names[2])
	info, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2})
	if !errors.Is(err, guard.ErrPending) {
		t.Fatalf("%v", err)
	}
	away(servers)
	if err := ow.RemoveSlot(ctx, info.ID); err != nil {
		t.Logf("removing the pending one: %v", err)
		return
	}
	save(t, b, item("labels", "2"))
	if !anyPIN(t, cfg, "3717", "9062") {
		t.Errorf("Protected, and no PIN opens it: %+v", b.Status())
	}
}

// The old PIN is removed while the new one is pending: the new one must still come about.
func TestAudit4RemoveOldWhilePending(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, _, _, cfg, b, ow := pinOnly(t)
	old := b.Slots()[0].ID
	unconfirmed(servers, servers.Names...)
	if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2}); !errors.Is(err, guard.ErrPending) {
		t.Fatalf("%v", err)
	}
	away(servers)
	if err := ow.RemoveSlot(ctx, old); err != nil {
		t.Logf("removing the old one: %v", err)
	}
	_, err := b.Sync(ctx)
	t.Logf("%v, %+v", err, b.Status())
	if !anyPIN(t, cfg, "3717", "9062") {
		t.Errorf("no PIN opens it: %+v", b.Status())
	}
}

// A backup with nothing but a PIN, of which one key server forgot its account before it
// was told: two of three open it, and the only way in must not be taken out.
func TestAudit4OnlySlotDropped(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers := guardtest.New(t, 3)
	cfg := config(t, &mem.Store{})
	cfg.Guardians = servers.Client()
	unconfirmed(servers, servers.Names[2])
	b, err := satchel.Create(ctx, cfg, satchel.Plan{Label: "Samantha", Keys: newKeys(t),
		PIN: &satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}})
	if b == nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !anyPIN(t, cfg, "3717") {
		t.Fatal("it does not open to begin with")
	}
	// OpenPIN of a stranger tells the others, never the third.
	servers.Later(8 * 24 * time.Hour)
	away(servers)
	_, err = b.Sync(ctx)
	t.Logf("%v, %+v", err, b.Status())
	if len(b.Slots()) == 0 {
		t.Errorf("the only way in was taken out: %v", err)
	}
	if !anyPIN(t, cfg, "3717") {
		t.Error("the PIN opened it, with two of three, and does not any more")
	}
}

// A delete that no place takes must not end the only way into a backup that goes on.
func TestAudit4DeleteFails(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, st, _, cfg, b, ow := pinOnly(t)
	st.Choose(func(storetest.Op, string) storetest.Fault { return storetest.Unreachable })
	if _, err := ow.Delete(ctx); err == nil {
		t.Fatal("deleted from a place that is away")
	}
	st.Choose(nil)
	r, err := b.Save(ctx, item("labels", "2"))
	t.Logf("%+v, %v", r, err)
	if err == nil && r.Protected && !anyPIN(t, cfg, "3717") {
		t.Error("Protected, and the PIN, its only way in, does not open it any more")
	}
}

// A device that dies in a change of the PIN, and comes back after another took over: the
// place hides what the other wrote. The other's only way in must not end.
func TestAudit4SettleAfterTakeover(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, st, inner, cfg, b, ow := pinOnly(t)
	before := inner.Clone()
	unconfirmed(servers, servers.Names...)
	if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2}); !errors.Is(err, guard.ErrPending) {
		t.Fatalf("%v", err)
	}
	_ = st
	away(servers)
	// The other device is shown the place as it was before.
	other := newDevice(t, cfg)
	other.Places = []store.Place{{Address: cfg.Places[0].Address, Store: before}}
	o, _, err := openPIN(t, other, "3717", "")
	if err != nil {
		t.Fatal(err)
	}
	d, out, err := o.Restore(ctx, other, satchel.RestoreOptions{AcceptProblem: true})
	if err != nil || !out.Protected {
		t.Fatalf("%+v, %v", out, err)
	}
	defer d.Close()
	save(t, d, item("labels", "of the new device"))
	// The first goes on.
	_, err = b.Save(ctx, item("labels", "of the old device"))
	t.Logf("the old device: %v, %+v", err, b.Status())
	if err == nil {
		t.Error("a device that another took over from says Protected")
	}
	if _, err := b.Sync(ctx); err == nil {
		t.Errorf("it goes on with its PIN: %+v", b.Status())
	}
	save(t, d, item("labels", "newest"))
	if s := d.Status(); s.Protected && !anyPIN(t, other, "3717", "9062") {
		t.Errorf("the new device is Protected, and nothing opens its backup")
	}
}
