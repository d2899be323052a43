package satchel_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard/guardtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// A single key server that says no proves nothing (docs/protocol.md: more than half are
// needed): half of them do not stop the only writer.
func TestAudit4HalfLies(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, n := range []int{2, 4} {
		servers := guardtest.New(t, n)
		cfg := config(t, &mem.Store{})
		cfg.Guardians = servers.Client()
		b, _, way := create(t, cfg, item("labels", "1"))
		if _, err := unlock(t, b, way).SetPIN(ctx, satchel.PINPlan{PIN: pin("3717"), Servers: servers.Names, Threshold: n/2 + 1}); err != nil {
			t.Fatal(err)
		}
		servers.After(func(server string, r protocol.Request, reply []byte) ([]byte, error) {
			if _, ok := r.Payload.(protocol.PutHead); !ok {
				return reply, nil
			}
			for _, liar := range servers.Names[:n/2] {
				if server == liar {
					return (&protocol.Refusal{Code: protocol.CodeConflict}).Reply(), nil
				}
			}
			return reply, nil
		})
		r, err := b.Save(ctx, item("labels", "2"))
		if err != nil || !r.Protected {
			t.Errorf("%d of %d key servers lie, with a head that nobody signed, and the only writer is stopped: %v", n/2, n, err)
		}
	}
}

// A stopped device does not pass a check.
func TestAudit4CheckFenced(t *testing.T) {
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
	if _, err := b.Check(ctx); !errors.Is(err, satchel.ErrOtherDevice) {
		t.Errorf("a stopped device passes the check: %v", err)
	}
}

// stuck is a key server that answers when the test ends.
type stuck struct {
	*guardtest.Servers
	server string
	end    chan bool
	in     chan bool // closed when it was asked
	once   sync.Once
}

func (h *stuck) Send(ctx context.Context, server string, b []byte) ([]byte, error) {
	if server == h.server {
		h.once.Do(func() { close(h.in) })
		select {
		case <-h.end:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return h.Servers.Send(ctx, server, b)
}

// Who asks how the PIN stands, of a key server that hangs, keeps nobody from saving.
func TestAudit4StandingBlocksSave(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, _, cfg, b, _ := pinned(t)
	b.Close()
	client := servers.Client()
	h := &stuck{Servers: servers, server: servers.Names[0], in: make(chan bool), end: make(chan bool)}
	client.Transport = h
	cfg.Guardians = client
	b, err := satchel.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan bool)
	go func() {
		b.PINSlots(ctx)
		close(asked)
	}()
	<-h.in
	limited, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	saved := make(chan error, 1)
	go func() {
		_, err := b.Save(limited, satchel.Change{Name: "labels", Value: []byte("2")})
		saved <- err
	}()
	select {
	case <-saved:
	case <-time.After(4 * time.Second):
		t.Error("a save waits for somebody who only asks key servers how they stand, and longer than its context says")
	}
	close(h.end)
	<-asked
	b.Close()
}

// Rekey was interrupted after the old PIN ended; something was saved with the old backup,
// and the next Rekey fails too: the old one is said to be as it was.
func TestAudit4RekeyTwice(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	servers, _, _, cfg, b, ow := pinOnly(t)
	_ = b
	// The key servers of the new PIN are others, and the last confirm is lost for ever.
	fresh := []string{servers.Add(t), servers.Add(t), servers.Add(t)}
	unconfirmed(servers, fresh[2])
	dir := cfg.Dir + "-renewed"
	nb, _, err := ow.Rekey(ctx, dir, satchel.RekeyPlan{PIN: &satchel.PINPlan{PIN: pin("9062"), Servers: fresh, Threshold: 2}})
	if err == nil {
		t.Fatal("no error")
	}
	if nb != nil {
		nb.Close()
	}
	t.Logf("rekey: %v", err)
	away(servers)
	save(t, b, item("labels", "2"))
	if !anyPIN(t, cfg, "3717") {
		t.Error("the old PIN does not open the old backup")
	}
}
