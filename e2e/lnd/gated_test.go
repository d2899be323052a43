package lnd

import (
	"fmt"
	"testing"
)

// A channel that "satchel lnd open" opens is never paid without a backup that knows it,
// and no coins are lost or locked, wherever satchel is killed, lnd with it or not. (Point 2)
func TestGatedOpen(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	p := newCloud(t)
	r := newRunner(t, c, p.place)
	bob := newNode(t, c, t.TempDir(), "bob", "maxpendingchannels=100")
	r.fund(t, 100_000_000)
	r.connectNode(t)
	r.connect(t, bob)
	open := []string{"lnd", "open", bob.id + "@" + bob.peer, "200000", "--macaroon-file", r.macaroonPath(), "--yes", "--json"}
	resume := []string{"lnd", "open", "--resume", "--macaroon-file", r.macaroonPath(), "--json"}
	abandon := []string{"lnd", "open", "--abandon", "--macaroon-file", r.macaroonPath(), "--json"}
	var points []string
	whole := t

	// sent is the transactions that were published and are in no block.
	sent := func(t *testing.T) int { t.Helper(); return len(c.pool(t)) }
	// ended looks at what a command left, which finished an open or undid it.
	ended := func(t *testing.T, a answer, before int64) (opened bool) {
		t.Helper()
		var e struct {
			Opened bool
			Point  string `json:"channel_point"`
			Undone bool
		}
		a.json(t, &e)
		if e.Opened == e.Undone || e.Opened && a.code != 0 {
			t.Fatalf("%s", a)
		}
		if e.Opened {
			if sent(t) != 1 {
				t.Errorf("%d transactions were sent, want 1", sent(t))
			}
			r.knows(t, e.Point)
			opened := append(points, e.Point)
			c.mine(t, 6)
			r.active(t, e.Point)
			bob.active(t, e.Point)
			points = opened
			return true
		}
		if n := sent(t); n != 0 {
			t.Errorf("%d transactions were sent for a channel that was undone", n)
		}
		if p := r.pending(t); len(p.Opening) > 0 {
			t.Errorf("lnd still waits for %+v", p.Opening)
		}
		if n := r.leases(t); n != 0 {
			t.Errorf("%d coins are still reserved", n)
		}
		if got := r.confirmed(t); got != before {
			t.Errorf("%d sats are in the wallet, want %d", got, before)
		}
		return false
	}

	// What is certain after a death at each step: paid says that the transaction may be out.
	for i, step := range []struct {
		at     string
		paid   bool
		opened []bool // how it may end
	}{
		{"begun", false, []bool{false}},
		{"offered", false, []bool{false}},
		{"reserved", false, []bool{false}},
		{"verified", false, []bool{false}},
		{"finalized", false, []bool{false}},
		{"signed", false, []bool{false}},
		{"agreed", false, []bool{false, true}},
		{"pending", false, []bool{true}},
		{"protected", false, []bool{true}},
		{"publishing", false, []bool{true}},
		{"published", true, []bool{true}},
		{"released", true, []bool{true}},
	} {
		for _, lndToo := range []bool{false, true} {
			name := step.at
			if lndToo {
				if i%2 == 1 && !step.paid { // Every other one, to save time.
					continue
				}
				name += " with lnd"
			}
			t.Run(name, func(t *testing.T) {
				before := r.confirmed(t)
				a := r.try(t, nil, append(open, "--die-at", step.at)...)
				if a.code != -1 {
					t.Fatalf("satchel was not killed: %s", a)
				}
				if lndToo {
					r.kill()
					r.start(whole) // It goes on after this.
					r.connect(t, bob)
				}
				if got := sent(t) > 0; got != step.paid {
					t.Errorf("a transaction was sent: %v, want %v", got, step.paid)
				}
				if step.paid {
					for _, o := range r.pending(t).Opening {
						r.knows(t, o.Channel.Point)
					}
				}
				// It is told of, until it is finished or undone.
				if a := r.try(t, nil, "lnd", "status", "--json"); a.code != 3 {
					t.Errorf("an open that is not finished is not told of: %s", a)
				}
				opened := ended(t, r.try(t, nil, resume...), before)
				ok := false
				for _, want := range step.opened {
					ok = ok || opened == want || lndToo && !opened && !step.paid
				}
				if !ok {
					t.Errorf("opened is %v, want %v", opened, step.opened)
				}
			})
		}
	}
	for _, at := range []string{"abandoning", "cancelled", "abandoned"} {
		t.Run(at, func(t *testing.T) {
			before := r.confirmed(t)
			if a := r.try(t, nil, append(open, "--die-at", "pending")...); a.code != -1 {
				t.Fatalf("satchel was not killed: %s", a)
			}
			// Not every step is on the way from every state.
			if a := r.try(t, nil, append(abandon, "--die-at", at)...); a.code == -1 {
				if ended(t, r.try(t, nil, resume...), before) {
					t.Error("an open that was given up went on")
				}
			} else if ended(t, a, before) {
				t.Error("an open that was given up went on")
			}
		})
	}
	t.Run("cloud away", func(t *testing.T) {
		before := r.confirmed(t)
		// It goes away when the channel is agreed on.
		if a := r.try(t, nil, append(open, "--die-at", "pending")...); a.code != -1 {
			t.Fatalf("satchel was not killed: %s", a)
		}
		p.away.Store(true)
		a := r.try(t, nil, append(resume, "--patience", "3s")...)
		p.away.Store(false)
		if a.code == 0 || sent(t) != 0 {
			t.Errorf("%d transactions were sent: %s", sent(t), a)
		}
		if a := r.try(t, nil, resume...); a.code == 0 {
			ended(t, a, before)
		}
		if sent(t) != 0 {
			c.mine(t, 6)
		}
	})
	t.Run("not killed", func(t *testing.T) {
		if !ended(t, r.satchel(t, nil, open...), 0) {
			t.Error("the channel was not opened")
		}
	})
	// Nothing is locked: all that is left can be sent away.
	if n := r.leases(t); n != 0 {
		t.Errorf("%d coins are still reserved", n)
	}
	var all struct{ Txid string }
	r.must(t, "POST", "/v1/transactions", map[string]any{"addr": bob.address(t), "send_all": true, "sat_per_vbyte": "2"}, &all)
	c.mine(t, 1)
	eventually(t, waitLimit, "the wallet is empty", func() error {
		// lnd keeps some coins for the fees of its channels' last transactions.
		if got, most := r.confirmed(t), int64(10_000*len(points)); got > most {
			return fmt.Errorf("%d sats are left, want at most %d", got, most)
		}
		return nil
	})
	r.satchel(t, nil, "watch", "--once")
	r.protected(t, len(points))
}

// knows fails the test unless the backup that is in the place knows a channel.
func (r *runner) knows(t testing.TB, point string) {
	t.Helper()
	known := r.found(t)
	for _, p := range known {
		if p == point {
			return
		}
	}
	t.Errorf("the backup in the place knows %v, and not %s", known, point)
}

// leases counts the coins that lnd has reserved.
func (n *node) leases(t testing.TB) int {
	t.Helper()
	var list struct {
		Locked []struct {
			Expiration string
		} `json:"locked_utxos"`
	}
	n.must(t, "POST", "/v2/wallet/utxos/leases", map[string]any{}, &list)
	return len(list.Locked)
}
