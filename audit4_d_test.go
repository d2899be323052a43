package satchel_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/guardtest"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store/mem"
)

// The right PIN with a mistyped passphrase besides: trying the passphrase again costs no
// guess (guard.Opened.FileKey), so nobody loses the PIN by it.
func TestAudit4PassphraseTypos(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers := guardtest.New(t, 3)
	cfg := config(t, &mem.Store{})
	cfg.Guardians = servers.Client()
	b, _, way := create(t, cfg, item("labels", "1"))
	if _, err := unlock(t, b, way).SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Passphrase: pin("besides"), Servers: servers.Names, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	slots, err := b.PINSlots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		_, _, err := b.UnlockPIN(ctx, slots[0], pin("3717"), pin("beside"))
		if !errors.Is(err, guard.ErrPassphrase) {
			t.Fatalf("typo %d of the passphrase, with the right PIN: %v", i+1, err)
		}
	}
	if _, _, err := b.UnlockPIN(ctx, slots[0], pin("3717"), pin("besides")); err != nil {
		t.Error(err)
	}
}

// The right PIN while too few key servers answer: trying it again asks those that answered
// for no other guess (guard.Recovery.Open), so nobody loses the PIN by it.
func TestAudit4RetriesWhileAway(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, _, _, b, _ := pinned(t)
	slots, err := b.PINSlots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	away(servers, servers.Names[1:]...)
	for range 12 {
		if _, _, err := b.UnlockPIN(ctx, slots[0], pin("3717"), secret.Bytes{}); err == nil {
			t.Fatal("it opens with one key server")
		}
		servers.Later(100 * time.Hour) // The user tries every few days.
	}
	away(servers, servers.Names[2])
	if _, _, err := b.UnlockPIN(ctx, slots[0], pin("3717"), secret.Bytes{}); err != nil {
		t.Errorf("the right PIN, tried again while key servers were away, used up its guesses: %v", err)
	}
}

// slow is a key server that takes requests and never answers, as an HTTP client sees it.
type slow struct {
	*guardtest.Servers
	hangs sync.Map // names of servers: requests go on after a call returned
}

func (h *slow) Send(ctx context.Context, server string, b []byte) ([]byte, error) {
	if _, ok := h.hangs.Load(server); ok {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(15 * time.Second): // guard/https.
			return nil, context.DeadlineExceeded
		}
	}
	return h.Servers.Send(ctx, server, b)
}

// One of three key servers hangs: a restore with the PIN does not wait for minutes.
func TestAudit4RestoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		servers := guardtest.New(t, 3)
		cfg := config(t, &mem.Store{})
		client := servers.Client()
		h := &slow{Servers: servers}
		client.Transport = h
		cfg.Guardians = client
		b, _, way := create(t, cfg, item("labels", "1"))
		if _, err := unlock(t, b, way).SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2}); err != nil {
			t.Fatal(err)
		}
		b.Close()
		h.hangs.Store(servers.Names[0], true)
		other := newDevice(t, cfg)
		began := time.Now()
		lap := func(what string) {
			t.Logf("%s: %v", what, time.Since(began))
		}
		found, err := satchel.Find(ctx, other)
		if err != nil {
			t.Fatal(err)
		}
		slots, err := found[0].PINSlots(ctx)
		if err != nil {
			t.Fatal(err)
		}
		lap("before the PIN is asked for")
		o, _, err := found[0].OpenPIN(ctx, slots[0], pin("3717"), secret.Bytes{})
		if err != nil {
			t.Fatal(err)
		}
		lap("opened")
		d, _, err := o.Restore(ctx, other, satchel.RestoreOptions{})
		if err != nil {
			t.Fatal(err)
		}
		lap("restored")
		if took := time.Since(began); took > time.Minute {
			t.Errorf("with one of three key servers hanging a restore takes %v", took)
		}
		d.Close()
	})
}

// A PIN was removed, and one key server hangs for ever: who saves does not wait for it
// half a minute every time.
func TestAudit4EndingHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		servers := guardtest.New(t, 3)
		cfg := config(t, &mem.Store{})
		client := servers.Client()
		h := &slow{Servers: servers}
		client.Transport = h
		cfg.Guardians = client
		b, _, way := create(t, cfg, item("labels", "1"))
		ow := unlock(t, b, way)
		info, err := ow.SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: 2})
		if err != nil {
			t.Fatal(err)
		}
		h.hangs.Store(servers.Names[0], true)
		if err := ow.RemoveSlot(ctx, info.ID); err != nil {
			t.Fatal(err)
		}
		for range 3 { // Each `satchel backup` is a process of its own.
			b.Close()
			if b, err = satchel.Open(cfg); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			save(t, b, item("labels", began.String()))
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("a save takes %v, for an account that is to be ended some day", took)
			}
		}
		b.Close()
	})
}
