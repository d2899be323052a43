package keyserver_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/recordtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

func count(t *testing.T, r keyserver.Records) (n int) {
	t.Helper()
	list, err := r.Scan(t.Context(), keyserver.ID{}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// replacement makes an account that is to take the place of old, not confirmed yet.
func (w *world) replacement(old *client) *client {
	w.Helper()
	c := w.client()
	c.owner, c.head = old.owner, old.head
	c.seq.Store(uint64(w.now.Load()))
	c.must(c.ask(0, protocol.Create{Blinded: blind(pin).Blinded, Limit: 10, Replaces: old.account, By: protocol.ByOwner,
		Allowed: protocol.AllowReplace(old.owner, old.account, c.account)}, new(protocol.Created)))
	return c
}

// What was never confirmed goes from the database, with what names it, and nothing else.
// What is to take the place of an active account stays with it, and goes once that was
// erased.
func TestTendExpired(t *testing.T) {
	onAll(t, 1, func(w *world) {
		for range 3 {
			c := w.client()
			c.must(c.ask(0, protocol.Create{Blinded: blind(pin).Blinded, Limit: 2}, new(protocol.Created)))
		}
		stays, erased := w.client().enrol(10), w.client().enrol(1)
		next := w.replacement(stays)
		w.replacement(erased)
		for range 2 {
			erased.guess(0, "0000")
			w.later(11 * time.Minute)
			erased.seq.Store(uint64(w.now.Load()))
		}
		if s := erased.status(); s.State != protocol.StateErased {
			w.Fatalf("got %+v", s)
		}
		tended, err := w.servers[0].Tend(w.Context())
		if err != nil || tended.Expired != 0 || tended.Records != 7 {
			w.Errorf("got %+v, %v", tended, err)
		}
		w.later(protocol.PendingLife + time.Millisecond)
		tended, err = w.servers[0].Tend(w.Context())
		if err != nil || tended.Expired != 4 {
			w.Errorf("got %+v, %v", tended, err)
		}
		if n := count(w.T, w.records); n != 3 {
			w.Errorf("%d records are left, want 3", n)
		}
		stays.seq.Store(uint64(w.now.Load()))
		if _, right, err := stays.guess(0, pin); err != nil || !right {
			w.Errorf("the other account: %v, %v", right, err)
		}
		next.seq.Store(uint64(w.now.Load()))
		next.must(next.confirm())
	})
}

// However often accounts take each other's place, or are deleted, nothing stays behind.
func TestNoAliasStays(t *testing.T) {
	onAll(t, 1, func(w *world) {
		first := w.client().enrol(10)
		now := first
		for range 3 {
			w.replacement(now) // Given up for another one.
			next := w.replacement(now)
			next.must(next.confirm())
			next.output = nil
			now = next
			if n := count(w.T, w.records); n != 2 {
				w.Fatalf("%d records, want the one and its alias", n)
			}
		}
		last := w.replacement(now)
		last.must(last.ask(0, protocol.Delete{}, nil))
		if n := count(w.T, w.records); n != 2 {
			w.Errorf("%d records, want 2", n)
		}
		w.replacement(now)
		now.must(now.ask(0, protocol.NewDelete(now.owner, now.account, protocol.ByOwner), nil))
		if n := count(w.T, w.records); n != 0 {
			w.Errorf("%d records, want none", n)
		}
	})
}

func keys(seeds ...byte) (list []secret.Bytes) {
	for _, s := range seeds {
		list = append(list, secret.New(bytes.Repeat([]byte{s}, keyserver.MasterSize)))
	}
	return list
}

// Records are sealed under a new master key while clients come, and the old one is then
// worth nothing.
func TestRotate(t *testing.T) {
	onAll(t, 2, func(w *world) {
		var clients []*client
		for range 6 {
			clients = append(clients, w.client().enrol(10))
		}
		clients = append(clients, w.replacement(clients[0]))
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(w.Context())
		for i, c := range clients[1:4] {
			wg.Go(func() {
				for ctx.Err() == nil {
					a, right, err := c.guess(i, pin)
					if err != nil || !right {
						w.Errorf("%v, %v", right, err)
						return
					}
					if _, err := c.finish(a); err != nil {
						w.Error(err)
						return
					}
				}
			})
		}
		if err := w.master.Set(keys(2, 1)...); err != nil {
			w.Fatal(err)
		}
		total := 0
		for round := 0; ; round++ {
			tended, err := w.servers[0].Tend(w.Context())
			if err != nil || round > 20 || tended.Unreadable > 0 {
				w.Fatal(tended, err)
			}
			total += tended.Resealed
			if tended.Resealed == 0 && tended.Older == 0 {
				break
			}
		}
		cancel()
		wg.Wait()
		if total < 5 {
			w.Errorf("%d records were sealed anew", total)
		}
		if err := w.master.Set(keys(2)...); err != nil {
			w.Fatal(err)
		}
		for _, c := range clients[:6] {
			if _, right, err := c.guess(0, pin); err != nil || !right {
				w.Errorf("with the new key alone: %v, %v", right, err)
			}
		}
		if _, err := keyserver.New(w.Context(), keyserver.Config{Records: w.records, Master: master(w, 1)}); !errors.Is(err, keyserver.ErrMaster) {
			w.Errorf("with the old key alone: %v", err)
		}
	})
}

// A server that meets a record under a key which it has not got looks for it, and one that
// cannot be opened does not keep the rest from being tended.
func TestMissingKey(t *testing.T) {
	m := &recordtest.Memory{}
	w := newWorld(t, m, 1)
	c := w.client().enrol(10)
	w.client().enrol(10)
	if err := w.master.Set(keys(2, 1)...); err != nil {
		t.Fatal(err)
	}
	if _, err := w.servers[0].Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	late := master(t, 1)
	asked := 0
	cfg := keyserver.Config{Records: m, Master: late, Now: func() time.Time { return time.UnixMilli(w.now.Load()) }, Missing: func() {
		asked++
		late.Set(keys(2, 1)...)
	}}
	s, err := keyserver.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.servers = append(w.servers, s)
	if _, right, err := c.guess(1, pin); err != nil || !right || asked != 1 {
		t.Errorf("%v, %v, asked %d times", right, err, asked)
	}
	bad := m.Snapshot()
	e := bad[keyserver.ID(c.account)]
	e.Data[40] ^= 1
	m.Restore(bad)
	tended, err := s.Tend(t.Context())
	if err != nil || tended.Unreadable != 1 || tended.Records != 2 {
		t.Errorf("got %+v, %v", tended, err)
	}
}

// A write that failed halfway can be seen before it is durable. No answer says what is
// only seen: it is written again first.
func TestRepeatsAreDurable(t *testing.T) {
	m := &recordtest.Memory{}
	w := newWorld(t, m, 1)
	c := w.client()
	b, a := blind(pin), attempt()
	made := protocol.Create{Blinded: b.Blinded, Limit: 3}
	next := w.client()
	for i, ask := range []func() error{
		func() error { return c.ask(0, made, new(protocol.Created)) },
		func() error { return c.confirm() },
		func() error {
			return c.ask(0, protocol.Evaluate{Attempt: a, Blinded: b.Blinded, Slot: c.slot}, new(protocol.Evaluated))
		},
		func() error { _, err := c.finish(a); return err },
		func() error {
			return c.ask(0, protocol.PutHead{Head: protocol.NewHead(c.head, 1, 1, [16]byte{}, 0)}, new(protocol.Head))
		},
		func() error { return c.ask(0, protocol.NewInstallEpoch(c.owner, 2, public(next.head)), nil) },
	} {
		lost := errors.New("the standby did not answer")
		m.Fault = func([]keyserver.Write) (error, bool) { return lost, true }
		for range 2 {
			c.refused(ask(), protocol.CodeUnavailable)
		}
		m.Fault = nil
		if err := ask(); err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if s := c.status(); s.Left != 3 || s.Life != 0 || s.Epoch != 2 {
		t.Errorf("got %+v", s)
	}
}

func TestCheck(t *testing.T) {
	m := &recordtest.Memory{}
	w := newWorld(t, m, 1)
	c := w.client().enrol(10)
	if err := w.servers[0].Check(t.Context()); err != nil {
		t.Error(err)
	}
	// Another server is told of a copy that was put back: this one hears of it.
	w.server(true)
	if err := w.servers[0].Check(t.Context()); err != nil {
		t.Error(err)
	}
	if s := c.status(); s.Left != 2 || s.Unproven != 1 {
		t.Errorf("got %d guesses left, unproven %d, want 2 and 1", s.Left, s.Unproven)
	}
	full := errors.New("the disk is full")
	m.Fault = func([]keyserver.Write) (error, bool) { return full, false }
	if err := w.servers[0].Check(t.Context()); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}
