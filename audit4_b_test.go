package satchel_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard/guardtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

type hanging struct {
	*guardtest.Servers
	hangs sync.Map // names of servers: requests go on after a call returned
}

func (h *hanging) Send(ctx context.Context, server string, b []byte) ([]byte, error) {
	if _, ok := h.hangs.Load(server); ok {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.Servers.Send(ctx, server, b)
}

// One of three key servers takes requests and never answers: the two others keep the
// head, and a Save waits for the third once, not every time.
func TestAudit4Hangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		servers := guardtest.New(t, 3)
		cfg := config(t, &mem.Store{})
		client := servers.Client()
		h := &hanging{Servers: servers}
		client.Transport = h
		cfg.Guardians = client
		b, _, way := create(t, cfg, item("labels", "1"))
		if _, err := unlock(t, b, way).SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}); err != nil {
			t.Fatal(err)
		}
		h.hangs.Store(servers.Names[2], true)
		began := time.Now()
		for i := range 10 {
			save(t, b, item("labels", string(rune('a'+i))))
		}
		if d := time.Since(began); d > 20*time.Second {
			t.Errorf("ten saves took %v, with one of three key servers that hangs", d)
		}
		if s := b.Status(); !s.Anchored {
			t.Errorf("%+v", s)
		}
		b.Close()
	})
}

// Key servers that were put back from an older copy and then do not answer do not stop the
// only writer.
func TestAudit4FencedByBehind(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, _, cfg, b, _ := pinned(t)
	b.Close()
	// Two of three key servers are put back: they never heard of the new epoch.
	old := func(server string, r protocol.Request) error {
		if _, ok := r.Payload.(protocol.InstallEpoch); ok && server != servers.Names[2] {
			return guardtest.ErrNetwork
		}
		return nil
	}
	servers.Before(old)
	other := newDevice(t, cfg)
	o, _, err := openPIN(t, other, "3717", "")
	if err != nil {
		t.Fatal(err)
	}
	d, out, err := o.Restore(ctx, other, satchel.RestoreOptions{})
	if d == nil {
		t.Fatal(err)
	}
	defer d.Close()
	t.Logf("%v, %+v", err, out)
	r, err := d.Save(ctx, item("labels", "2"))
	if err != nil || !r.Protected {
		t.Errorf("nobody else writes, and the only writer is stopped: %v, %+v", err, r)
	}
}

// A device that was stopped stays so when it is opened without key servers.
func TestAudit4FenceWithoutGuardians(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, st, cfg, b, _ := pinned(t)
	other := newDevice(t, cfg)
	other.Places = []store.Place{{Address: cfg.Places[0].Address, Store: st.Clone()}}
	o, _, err := openPIN(t, other, "3717", "")
	if err != nil {
		t.Fatal(err)
	}
	d, _, err := o.Restore(ctx, other, satchel.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, err = b.Save(ctx, item("labels", "mine"))
	isErr(t, err, satchel.ErrOtherDevice, satchel.CodeOtherDevice)
	b.Close()
	cfg.Guardians = nil
	if b, err = satchel.Open(cfg); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if r, err := b.Save(ctx, item("labels", "mine again")); err == nil || r.Protected {
		t.Errorf("a stopped device says Protected: %+v, %v", r, err)
	}
}

// The same with key servers, in a new process, by nothing but what they say.
func TestAudit4FencedReopened(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, st, cfg, b, _ := pinned(t)
	other := newDevice(t, cfg)
	other.Places = []store.Place{{Address: cfg.Places[0].Address, Store: st.Clone()}}
	o, _, err := openPIN(t, other, "3717", "")
	if err != nil {
		t.Fatal(err)
	}
	d, _, err := o.Restore(ctx, other, satchel.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, err = b.Save(ctx, item("labels", "mine"))
	isErr(t, err, satchel.ErrOtherDevice, satchel.CodeOtherDevice)
	for range 2 {
		b.Close()
		away(servers, servers.Names...)
		if b, err = satchel.Open(cfg); err != nil {
			t.Fatal(err)
		}
		_, err = b.Save(ctx, item("labels", "mine again"))
		isErr(t, err, satchel.ErrOtherDevice, satchel.CodeOtherDevice)
		if s := b.Status(); s.Protected {
			t.Errorf("%+v", s)
		}
	}
	b.Close()
}

// A key server that is gone for good between create and confirm is replaced like any other.
func TestAudit4PendingForEver(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, _, cfg, b, ow := pinned(t)
	unconfirmed(servers, servers.Names[2])
	if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2}); err == nil {
		t.Fatal("no error")
	}
	away(servers, servers.Names[2]) // It never comes back.
	names := []string{servers.Names[0], servers.Names[1], servers.Add(t)}
	if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("5550"), Servers: names, Threshold: 2}); err != nil {
		t.Errorf("the PIN can never be changed: %v", err)
	}
	save(t, b, item("labels", "2"))
	if s := b.Status(); !s.Anchored || s.PINPending {
		t.Errorf("no head is ever put again: pending %v, %v", s.PINPending, s.AnchorErr)
	}
	if !anyPIN(t, cfg, "5550") {
		t.Error("the new PIN does not open it")
	}
}

// A device dies in a change of the PIN, and the owner restores with the recovery code:
// the key servers of the PIN that is there still know of what is saved.
func TestAudit4AnchorAfterDeadChange(t *testing.T) {
	t.Parallel()
	rounds := 3 // The order of the two slots is random.
	if large() {
		rounds = 8
	}
	for range rounds {
		if anchorAfterDeadChange(t); t.Failed() {
			return
		}
	}
}

// A cloud that is put back to a day before the PIN was changed: the key servers have no
// account of that PIN any more, which says that there is something newer.
func TestAudit4OlderBeforeChange(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers := guardtest.New(t, 3)
	st := &mem.Store{}
	cfg := config(t, st)
	cfg.Guardians = servers.Client()
	b, _, way := create(t, cfg, item("labels", "1"))
	ow := unlock(t, b, way)
	if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	older := st.Clone()
	if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	save(t, b, item("labels", "2"))
	third := newDevice(t, cfg)
	third.Places = []store.Place{{Address: cfg.Places[0].Address, Store: older}}
	if p := openOnly(t, way, third).Preview(); !slices.ContainsFunc(p.Warnings, func(w string) bool { return strings.Contains(w, "may be an old copy") }) {
		t.Errorf("an older state passes for the newest, with warnings %q", p.Warnings)
	}
}

func anchorAfterDeadChange(t *testing.T) {
	ctx := context.Background()
	servers := guardtest.New(t, 3)
	st := &mem.Store{}
	cfg := config(t, st)
	cfg.Guardians = servers.Client()
	b, _, way := create(t, cfg, item("labels", "1"))
	ow := unlock(t, b, way)
	if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	unconfirmed(servers, servers.Names...)
	if _, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2}); err == nil {
		t.Fatal("no error")
	}
	b.Close()
	away(servers)
	other := newDevice(t, cfg)
	d := restore(t, other, way)
	save(t, d, item("labels", "2"))
	older := st.Clone()
	save(t, d, item("labels", "3"))
	if s := d.Status(); !s.Anchored {
		t.Errorf("not anchored: %v", s.AnchorErr)
	}
	d.Close()
	// The cloud is put back.
	third := newDevice(t, cfg)
	third.Places = []store.Place{{Address: cfg.Places[0].Address, Store: older}}
	p := openOnly(t, way, third).Preview()
	if p.Problem == nil {
		t.Errorf("an older state passes for the newest, with warnings %q", p.Warnings)
	}
}
