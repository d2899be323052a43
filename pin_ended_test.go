package satchel_test

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/guardtest"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// An account whose PIN is past must end, whatever came between: with a copy of its slot it
// would stand for a part of that PIN for ever.

// pinsIn returns the PIN slots that a place holds, also those that no snapshot lists.
func pinsIn(t *testing.T, st store.Store) (list []*guard.Slot) {
	t.Helper()
	objects, err := st.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		dir, base := filepath.Split(o.Name)
		n, ok := seal.ParseSlotPath("slots/" + base)
		if !ok || filepath.Base(dir) != "slots" || n.Kind != string(slot.KindPIN) {
			continue
		}
		data, err := st.Get(t.Context(), o.Name, "", seal.MaxSlot)
		if err != nil {
			t.Fatal(err)
		}
		s, err := slot.ReadPIN(data, guard.ID{})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

// there returns the key servers that have an account for a slot.
func there(t *testing.T, servers *guardtest.Servers, s *guard.Slot) (names []string) {
	t.Helper()
	list, err := servers.Client().Status(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		if g := &list[i]; !errors.Is(g.Err, guard.ErrGone) {
			names = append(names, g.Server)
		}
	}
	return names
}

// cloudEnds ends an account of a slot that was not confirmed: whoever has the slot can.
func cloudEnds(t *testing.T, servers *guardtest.Servers, s *guard.Slot, server string) {
	t.Helper()
	for _, g := range s.Guardians {
		if g.Server == server {
			p := &guard.Plan{Accounts: []guard.Planned{{Server: server, Access: g.Access[:]}}}
			if err := servers.Client().Abandon(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// newest returns the one PIN slot of a place that is not this one.
func newest(t *testing.T, st store.Store, old *guard.Slot) *guard.Slot {
	t.Helper()
	for _, s := range pinsIn(t, st) {
		if s.Hash() != old.Hash() {
			return s
		}
	}
	t.Fatal("there is no new PIN slot")
	return nil
}

// givenUp is a backup in the middle of a change of its PIN, to one that the third key
// server was never told of; old is the slot of before.
func givenUp(t *testing.T) (servers *guardtest.Servers, st *mem.Store, cfg satchel.Config, way slot.Secret, old *guard.Slot) {
	t.Helper()
	servers, st = guardtest.New(t, 3), &mem.Store{}
	cfg = config(t, st)
	cfg.Guardians = servers.Client()
	b, _, way := create(t, cfg, item("labels", "1"))
	ow := unlock(t, b, way)
	if _, err := ow.SetPIN(t.Context(), satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	old = pinsIn(t, st)[0]
	unconfirmed(servers, servers.Names[2])
	if _, err := ow.SetPIN(t.Context(), satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2}); !errors.Is(err, guard.ErrPending) {
		t.Fatalf("%v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return servers, st, cfg, way, old
}

// The next change gives up a key server that does not answer, and the process dies when the
// old slot is out and nothing says yet that the change before ended. What the first PIN has
// at that server ends all the same, when it answers again.
func TestConcludedPINEnds(t *testing.T) {
	t.Parallel()
	var kill int64 // the record that is not written any more; 0 for none
	for range 2 {
		servers, st, cfg, way, old := givenUp(t)
		gone := servers.Names[2]
		plan := satchel.PINPlan{PIN: pin("5550"), Servers: []string{servers.Names[0], servers.Names[1], servers.Add(t)}, Threshold: 2}
		var written, made atomic.Int64 // records so far, and before the first new account
		var dead atomic.Bool
		servers.Before(func(server string, r protocol.Request) error {
			if dead.Load() || server == gone {
				return guardtest.ErrNetwork
			}
			if _, ok := r.Payload.(protocol.Create); ok {
				made.CompareAndSwap(0, written.Load())
			}
			return nil
		})
		change := func(cfg satchel.Config) error {
			b, err := satchel.Open(cfg)
			if err != nil {
				return err
			}
			defer b.Close()
			ow, err := b.Unlock(t.Context(), way)
			if err != nil {
				return err
			}
			_, err = ow.SetPIN(t.Context(), plan)
			return err
		}
		mortal := cfg
		mortal.SetHook(func(s durable.Step) error {
			if s.Op == durable.OpAppend && !s.Done && written.Add(1) == kill {
				dead.Store(true)
			}
			if dead.Load() {
				return errKilled
			}
			return nil
		})
		err := change(mortal)
		if kill == 0 {
			if err != nil {
				t.Fatal(err)
			}
			kill = made.Load() - 1 // The last record before it is the one of the plan.
			continue
		}
		dead.Store(false)
		b, err := satchel.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if s := b.Status(); !s.PINPending || len(s.Slots) != 2 {
			t.Fatalf("killed at another step: %+v", s)
		}
		save(t, b, item("labels", "2"))
		if _, err := b.Compact(t.Context()); err != nil { // The old slot is swept.
			t.Fatal(err)
		}
		b.Close()
		if err := change(cfg); err != nil {
			t.Fatal(err)
		}
		away(servers)
		if b, err = satchel.Open(cfg); err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if _, err := b.Sync(t.Context()); err != nil || len(b.Status().PINEnding) > 0 {
			t.Errorf("%v, %+v", err, b.Status())
		}
		if names := there(t, servers, old); len(names) > 0 {
			t.Errorf("the first PIN has accounts at %v", names)
		}
		if list := pinsIn(t, st); len(list) != 1 || len(there(t, servers, list[0])) != 3 {
			t.Errorf("%d PIN slots in the place", len(list))
		}
	}
}

// The cloud ends a new account before it is confirmed, as whoever holds the slot can: the
// old one that it was to take the place of ends all the same, for one alone opens there.
func TestLostAccountEnds(t *testing.T) {
	t.Parallel()
	servers, st := guardtest.New(t, 3), &mem.Store{}
	cfg := config(t, st)
	cfg.Guardians = servers.Client()
	b, _, way := create(t, cfg)
	ow := unlock(t, b, way)
	if _, err := ow.SetPIN(t.Context(), satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 1}); err != nil {
		t.Fatal(err)
	}
	old := pinsIn(t, st)[0]
	unconfirmed(servers, servers.Names[2])
	if _, err := ow.SetPIN(t.Context(), satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2}); !errors.Is(err, guard.ErrPending) {
		t.Fatalf("%v", err)
	}
	away(servers)
	cloudEnds(t, servers, newest(t, st, old), servers.Names[2])
	if _, err := b.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := b.Status(); s.PINPending || len(s.PINLost) != 1 || len(s.PINEnding) > 0 {
		t.Errorf("%+v", s)
	}
	if names := there(t, servers, old); len(names) > 0 {
		t.Errorf("the old PIN has accounts at %v", names)
	}
	if !anyPIN(t, cfg, "9062") {
		t.Error("the new PIN does not open it")
	}
}

// The same to so many that the change is given up: the account that was confirmed by then
// is of a PIN that is not to be.
func TestUndonePINEnds(t *testing.T) {
	t.Parallel()
	servers, st, cfg, b, ow := pinned(t)
	old := pinsIn(t, st)[0]
	unconfirmed(servers, servers.Names[1:]...)
	if _, err := ow.SetPIN(t.Context(), satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2}); !errors.Is(err, guard.ErrPending) {
		t.Fatalf("%v", err)
	}
	away(servers)
	fresh := newest(t, st, old)
	cloudEnds(t, servers, fresh, servers.Names[1])
	cloudEnds(t, servers, fresh, servers.Names[2])
	if _, err := b.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := b.Status(); s.PINPending || !s.PINUndone || len(s.PINEnding) > 0 {
		t.Errorf("%+v", s)
	}
	if names := there(t, servers, fresh); len(names) > 0 {
		t.Errorf("the PIN that is not to be has accounts at %v", names)
	}
	if !anyPIN(t, cfg, "3717") {
		t.Error("the PIN before does not open it")
	}
}

// Two of two key servers: after one of the two confirms neither PIN would have two accounts,
// and the cloud could end the last one. So nothing is confirmed before both answer, and the
// PIN before opens.
func TestBothPINsDoNotEnd(t *testing.T) {
	t.Parallel()
	servers, st := guardtest.New(t, 2), &mem.Store{}
	cfg := config(t, st)
	cfg.Guardians = servers.Client()
	b, _, way := create(t, cfg)
	ow := unlock(t, b, way)
	if _, err := ow.SetPIN(t.Context(), satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	old := pinsIn(t, st)[0]
	// From the first confirm on, or the question before it, the second does not answer.
	var made atomic.Int64
	servers.Before(func(server string, r protocol.Request) error {
		if _, ok := r.Payload.(protocol.Create); ok {
			made.Add(1)
		} else if made.Load() == 2 && server == servers.Names[1] {
			return guardtest.ErrNetwork
		}
		return nil
	})
	if _, err := ow.SetPIN(t.Context(), satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2}); !errors.Is(err, guard.ErrPending) {
		t.Fatalf("%v", err)
	}
	away(servers)
	if names := there(t, servers, old); len(names) != 2 {
		t.Errorf("the old PIN has accounts at %v", names)
	}
	cloudEnds(t, servers, newest(t, st, old), servers.Names[1])
	if _, err := b.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	if s := b.Status(); s.PINPending || !s.PINUndone {
		t.Errorf("%+v", s)
	}
	if !anyPIN(t, cfg, "3717") {
		t.Error("no PIN opens it")
	}
	// Once both answer it is done in one go.
	if _, err := ow.SetPIN(t.Context(), satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	if names := there(t, servers, old); len(names) > 0 || !anyPIN(t, cfg, "9062") {
		t.Errorf("the old PIN has accounts at %v", names)
	}
}

// New keys with a PIN, which is set when the process dies; then something is saved with the
// old ones, and what was begun is put away. Its PIN ends too, though nobody has the keys of
// that backup any more: at once, or when the key servers answer again.
func TestWithdrawnPINEnds(t *testing.T) {
	t.Parallel()
	for _, reachable := range []bool{true, false} {
		servers, st := guardtest.New(t, 3), &mem.Store{}
		cfg := config(t, st)
		cfg.Guardians = servers.Client()
		b, _, way := create(t, cfg)
		b.Close()
		dir := filepath.Join(filepath.Dir(cfg.Dir), "renewed")
		var dead atomic.Bool
		mortal := cfg
		mortal.SetHook(func(s durable.Step) error {
			if s.Op == durable.OpRename && s.Path == dir {
				dead.Store(true)
			}
			if dead.Load() {
				return errKilled
			}
			return nil
		})
		rekey := func(cfg satchel.Config, p satchel.RekeyPlan) (*satchel.Backup, error) {
			b, err := satchel.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			nb, _, err := unlock(t, b, way).Rekey(t.Context(), dir, p)
			if nb != nil {
				t.Fatalf("there are new keys: %v", err)
			}
			return b, err
		}
		b, err := rekey(mortal, satchel.RekeyPlan{PIN: &satchel.PINPlan{PIN: pin("9062"), Servers: servers.Names, Threshold: 2}})
		b.Close()
		fresh := pinsIn(t, st)
		if !dead.Load() || len(fresh) != 1 || len(there(t, servers, fresh[0])) != 3 {
			t.Fatalf("%d PIN slots, %v", len(fresh), err)
		}
		if b, err = satchel.Open(cfg); err != nil {
			t.Fatal(err)
		}
		save(t, b, item("labels", "2"))
		b.Close()
		if !reachable {
			away(servers, servers.Names...)
		}
		b, err = rekey(cfg, satchel.RekeyPlan{}) // It puts away what was begun.
		if err == nil {
			t.Fatal("it began without a way in")
		}
		defer b.Close()
		if s := b.Status(); s.Rekeying != "" || len(s.PINEnding) > 0 == reachable {
			t.Errorf("reachable %v: %v, %+v", reachable, err, s)
		}
		away(servers)
		if _, err := b.Sync(t.Context()); err != nil || len(b.Status().PINEnding) > 0 {
			t.Errorf("reachable %v: %v, %+v", reachable, err, b.Status())
		}
		if names := there(t, servers, fresh[0]); len(names) > 0 || len(pinsIn(t, st)) > 0 {
			t.Errorf("reachable %v: the PIN that is not to be has accounts at %v", reachable, names)
		}
	}
}
