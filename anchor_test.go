package satchel_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/guardtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// pinned returns a backup whose PIN two of three key servers guard.
func pinned(t *testing.T) (*guardtest.Servers, *mem.Store, satchel.Config, *satchel.Backup, *satchel.Owner) {
	t.Helper()
	servers := guardtest.New(t, 3)
	st := &mem.Store{}
	cfg := config(t, st)
	cfg.Guardians = servers.Client()
	b, _, way := create(t, cfg, item("labels", "1"))
	ow := unlock(t, b, way)
	if _, err := ow.SetPIN(context.Background(), satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	return servers, st, cfg, b, ow
}

// away makes some key servers not answer.
func away(servers *guardtest.Servers, names ...string) {
	servers.Before(func(server string, _ protocol.Request) error {
		for _, name := range names {
			if server == name {
				return guardtest.ErrNetwork
			}
		}
		return nil
	})
}

// The key servers learn of every state that is protected; where they are away nothing
// waits for them, and one that missed some catches up.
func TestAnchored(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, _, cfg, b, _ := pinned(t)
	if s := b.Status(); !s.Anchored || s.AnchorErr != nil {
		t.Fatalf("after the PIN was set: %+v", s)
	}
	away(servers, servers.Names[0])
	save(t, b, item("labels", "2"))
	if s := b.Status(); !s.Anchored {
		t.Errorf("with one of three away: %+v", s)
	}
	away(servers, servers.Names[:2]...)
	save(t, b, item("labels", "3"))
	if s := b.Status(); s.Anchored || !s.Protected || !errors.Is(s.AnchorErr, guard.ErrUnreachable) {
		t.Errorf("with two of three away: %+v", s)
	}
	sent := servers.Sent()
	save(t, b, item("labels", "4"))
	if servers.Sent() != sent {
		t.Error("key servers that are away are asked again at once")
	}
	b.Close()
	away(servers)
	b, err := satchel.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if s := b.Status(); s.Anchored || s.AnchorErr == nil {
		t.Errorf("a new process: %+v", s)
	}
	if _, err := b.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if s := b.Status(); !s.Anchored || s.AnchorErr != nil {
		t.Errorf("after all are back: %+v", s)
	}
	sent = servers.Sent()
	if _, err := b.Sync(ctx); err != nil || servers.Sent() != sent {
		t.Errorf("nothing new, and the key servers are asked: %v", err)
	}
}

// A place that is put back to an older day shows, whatever opens the backup; who takes
// the older state nevertheless is the writer.
func TestOlderThanAnchored(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, st, cfg, b, _ := pinned(t)
	old := st.Clone()
	save(t, b, item("labels", "2"))
	newest := st.Clone()
	b.Close()

	other := newDevice(t, cfg)
	other.Places[0].Store = newest
	o, _, err := openPIN(t, other, "3717", "")
	if err != nil || o.Preview().Problem != nil || len(o.Preview().Warnings) > 0 {
		t.Fatalf("the newest: %v, %+v", err, o.Preview())
	}
	other.Places[0].Store = old
	o, _, err = openPIN(t, other, "3717", "")
	if err != nil {
		t.Fatal(err)
	}
	isErr(t, o.Preview().Problem, satchel.ErrOlder, satchel.CodeOlder)
	if _, _, err := o.Restore(ctx, other, satchel.RestoreOptions{}); !errors.Is(err, satchel.ErrOlder) {
		t.Errorf("restored without a word: %v", err)
	}
	d, out, err := o.Restore(ctx, other, satchel.RestoreOptions{AcceptProblem: true})
	if err != nil || !out.Protected {
		t.Fatalf("%+v, %v", out, err)
	}
	defer d.Close()
	save(t, d, item("labels", "3"))
	if s := d.Status(); !s.Anchored || !s.Protected {
		t.Errorf("%+v", s)
	}
	// The state that was lost is older now, in the eyes of all.
	third := newDevice(t, cfg)
	third.Places[0].Store = newest
	o, _, err = openPIN(t, third, "3717", "")
	if err != nil {
		t.Fatal(err)
	}
	isErr(t, o.Preview().Problem, satchel.ErrOlder, satchel.CodeOlder)
}

// A device that goes on writing while another one looks is no sign of an old copy: the
// places were listed a moment before the key servers were asked.
func TestNotOlderBesideWriter(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers := guardtest.New(t, 3)
	st := &mem.Store{}
	cfg := config(t, st)
	cfg.Guardians = servers.Client()
	b, _, way := create(t, cfg, item("labels", "1"))
	if _, err := unlock(t, b, way).SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	old := st.Clone()
	other := newDevice(t, cfg)
	found, err := satchel.Find(ctx, other)
	if err != nil {
		t.Fatal(err)
	}
	var wrote atomic.Bool
	servers.Before(func(string, protocol.Request) error {
		if !wrote.Swap(true) { // Its own head goes to the key servers too.
			_, err := b.Save(ctx, item("labels", "2"))
			return err
		}
		return nil
	})
	o, err := found[0].Open(ctx, way)
	if err != nil {
		t.Fatal(err)
	}
	p, s := o.Preview(), b.Status()
	if !wrote.Load() || p.Problem != nil || len(p.Warnings) > 0 || p.Generation != s.Generation {
		t.Errorf("generation %d, want %d: %v, %v", p.Generation, s.Generation, p.Problem, p.Warnings)
	}
	got, _, err := o.Restore(ctx, other, satchel.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if v, err := got.Get("labels"); err != nil || string(v.Open()) != "2" {
		t.Errorf("got %q, %v", v.Open(), err)
	}
	// Where the second look shows no more than the first, it is older.
	other = newDevice(t, cfg)
	other.Places[0].Store = old
	if found, err = satchel.Find(ctx, other); err != nil {
		t.Fatal(err)
	}
	if o, err = found[0].Open(ctx, way); err != nil {
		t.Fatal(err)
	}
	isErr(t, o.Preview().Problem, satchel.ErrOlder, satchel.CodeOlder)
}

// A recovery code shows it too; key servers that nobody trusts are not asked, and it is
// said.
func TestOlderByCode(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers := guardtest.New(t, 3)
	st := &mem.Store{}
	cfg := config(t, st)
	cfg.Guardians = servers.Client()
	b, _, way := create(t, cfg, item("labels", "1"))
	if _, err := unlock(t, b, way).SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	old := st.Clone()
	save(t, b, item("labels", "2"))
	other := newDevice(t, cfg)
	other.Places[0].Store = old
	open := func() satchel.Preview {
		t.Helper()
		found, err := satchel.Find(ctx, other)
		if err != nil {
			t.Fatal(err)
		}
		o, err := found[0].Open(ctx, way)
		if err != nil {
			t.Fatal(err)
		}
		return o.Preview()
	}
	isErr(t, open().Problem, satchel.ErrOlder, satchel.CodeOlder)
	away(servers, servers.Names[:2]...)
	if p := open(); !errors.Is(p.Problem, satchel.ErrOlder) {
		t.Errorf("one signed head is proof enough: %+v", p)
	}
	away(servers, servers.Names...)
	if p := open(); p.Problem != nil || len(p.Warnings) != 1 {
		t.Errorf("all away: %+v", p)
	}
	away(servers)
	client := servers.Client()
	client.Trusted = nil
	other.Guardians = client
	sent := servers.Sent()
	if p := open(); p.Problem != nil || len(p.Warnings) != 1 || servers.Sent() != sent {
		t.Errorf("not trusted: %+v", p)
	}
}

// A device that another took over from is stopped by the key servers, where no place
// shows it: here each has a cloud of its own that began as the same. It stays stopped.
func TestFenced(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, st, cfg, b, ow := pinned(t)
	other := newDevice(t, cfg)
	other.Places[0].Store = st.Clone()
	o, _, err := openPIN(t, other, "3717", "")
	if err != nil {
		t.Fatal(err)
	}
	d, out, err := o.Restore(ctx, other, satchel.RestoreOptions{})
	if err != nil || !out.Protected || len(out.Warnings) > 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	defer d.Close()
	_, err = b.Save(ctx, item("labels", "mine"))
	isErr(t, err, satchel.ErrOtherDevice, satchel.CodeOtherDevice)
	fenced := func() {
		t.Helper()
		if s := b.Status(); s.Protected || s.Places[0].Health != satchel.HealthOtherDevice {
			t.Errorf("%+v", s)
		}
		_, err := b.Sync(ctx)
		isErr(t, err, satchel.ErrOtherDevice, satchel.CodeOtherDevice)
	}
	fenced()
	away(servers, servers.Names...)
	fenced()
	b.Close()
	if b, err = satchel.Open(cfg); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	fenced()
	away(servers)
	fenced()
	_, err = ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2})
	if err == nil {
		t.Error("a stopped device changes the PIN")
	}
	save(t, d, item("labels", "2"))
	if s := d.Status(); !s.Anchored {
		t.Errorf("%+v", s)
	}
}

// Of two devices that restore at the same time from clouds that show neither the other,
// one writes at most, and both keep what they have.
func TestRace(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, st, cfg, b, _ := pinned(t)
	b.Close()
	var opened []*satchel.Opened
	var cfgs []satchel.Config
	for range 2 {
		c := newDevice(t, cfg)
		c.Places = []store.Place{{Address: c.Places[0].Address, Store: st.Clone()}}
		o, _, err := openPIN(t, c, "3717", "")
		if err != nil {
			t.Fatal(err)
		}
		opened, cfgs = append(opened, o), append(cfgs, c)
	}
	var devices []*satchel.Backup
	for i, o := range opened {
		d, _, err := o.Restore(ctx, cfgs[i], satchel.RestoreOptions{})
		if d == nil {
			t.Fatal(err)
		}
		defer d.Close()
		devices = append(devices, d)
	}
	for range 3 {
		for _, d := range devices {
			d.Save(ctx, item("labels", d.Status().Device))
		}
	}
	writers := 0
	for _, d := range devices {
		s, got := d.Status(), here(t, d)["labels"]
		if s.Protected {
			writers++
		}
		// Who is stopped changes nothing any more.
		if got != s.Device && (s.Protected || got != "1") {
			t.Errorf("got %q of %+v", got, s)
		}
	}
	if writers != 1 {
		t.Errorf("%d devices write", writers)
	}
}

// Key servers that are further than a device's record says, though nobody took over, such
// as liars: the owner removes the PIN, and goes on.
func TestFencedByLiars(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, st, cfg, b, ow := pinned(t)
	other := newDevice(t, cfg)
	other.Places[0].Store = st.Clone()
	o, _, err := openPIN(t, other, "3717", "")
	if err != nil {
		t.Fatal(err)
	}
	if d, _, err := o.Restore(ctx, other, satchel.RestoreOptions{}); err != nil {
		t.Fatal(err)
	} else {
		d.Close()
	}
	if _, err := b.Sync(ctx); err != nil { // Nothing new is told.
		t.Fatal(err)
	}
	_, err = b.Save(ctx, item("labels", "mine"))
	isErr(t, err, satchel.ErrOtherDevice, satchel.CodeOtherDevice)
	for _, s := range b.Slots() {
		if s.Kind == "pin" {
			if err := ow.RemoveSlot(ctx, s.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	save(t, b, item("labels", "mine again"))
	if s := b.Status(); !s.Protected || s.AnchorErr != nil {
		t.Errorf("%+v", s)
	}
}
