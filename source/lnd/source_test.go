package lnd_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/internal/fakelnd"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/source/lnd"
)

func TestStart(t *testing.T) {
	try(t, func(w *world, points []string) {
		peer := fakelnd.NewPubKey()
		third := fakelnd.Channel{Point: fakelnd.NewPoint(), Peer: peer, State: fakelnd.Open}
		w.fake.Change(third)
		w.fake.AddPeer(peer, "10.0.0.1:9735", false, "peer.example.org:9735")
		w.run()
		w.want(append(slices.Clone(points), third.Point))
		if err := w.state(); err != nil {
			t.Errorf("got %v", err)
		}
		var node map[string]any
		if err := json.Unmarshal(w.items[lnd.ItemNode], &node); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"format": 1.0, "implementation": "lnd", "version": "0.20.1-beta fake", "network": "regtest", "node": w.fake.PubKey, "alias": "fake", "seed": "aezeed",
			"addresses": []any{},
		}
		if diff := cmp.Diff(want, node); diff != "" {
			t.Error(diff)
		}
		var peers struct {
			Peers []struct {
				Node                string
				Addresses, Channels []string
			}
		}
		if err := json.Unmarshal(w.items[lnd.ItemPeers], &peers); err != nil || len(peers.Peers) != 3 {
			t.Fatalf("got %s", w.items[lnd.ItemPeers])
		}
		for _, p := range peers.Peers {
			if p.Node == peer && (!cmp.Equal(p.Addresses, []string{"10.0.0.1:9735", "peer.example.org:9735"}) || !cmp.Equal(p.Channels, []string{third.Point})) {
				t.Errorf("got %+v", p)
			}
		}
		for i, call := range w.saves() {
			for _, c := range call {
				if required := strings.HasPrefix(c.Name, lnd.ItemBackup); c.Required != required || c.Remove || i == 0 && call[0].Name != lnd.ItemBackup {
					t.Errorf("save %d: %s is required: %v", i, c.Name, c.Required)
				}
			}
		}

		// Nothing is new: nothing is saved, for a day; a run that begins anew saves nothing.
		w.wait(23 * time.Hour)
		w.stop()
		w.run()
		w.wait(20 * time.Minute)
		if calls := w.saves(); len(calls) > 0 {
			t.Errorf("saved %d times: %s", len(calls), calls[0][0].Name)
		}
		w.wait(2 * time.Hour)
		if calls := w.saves(); len(calls) != 1 {
			t.Errorf("saved %d times after a day, want 1", len(calls))
		}
	})
}

// R1: a change is handed over as it comes.
func TestEvents(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.run()
		w.wait(time.Minute)
		for range 5 {
			began := time.Now()
			points = append(points, w.fake.AddChannel())
			w.wait(0)
			w.want(points)
			if d := time.Since(began); d != 0 {
				t.Errorf("it took %v", d)
			}
		}
		// Closed by both: one save, and nothing older is kept.
		w.saves()
		w.fake.Change(fakelnd.Channel{Point: points[0], State: fakelnd.Closing})
		w.fake.Change(fakelnd.Channel{Point: points[0], State: fakelnd.Closed})
		w.wait(0)
		w.want(points[1:])
		// Many at once, while one is being saved.
		w.during = func() { time.Sleep(time.Minute) }
		w.saves()
		for range 20 {
			points = append(points, w.fake.AddChannel())
		}
		w.wait(5 * time.Minute)
		w.want(points[1:])
		if n := len(w.saves()); n > 4 {
			t.Errorf("saved %d times", n)
		}
	})
}

// An event is lost, or lnd hangs: everything is asked for now and then.
func TestLostEvent(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.run()
		w.wait(time.Minute)
		c := fakelnd.Channel{Point: fakelnd.NewPoint(), Peer: fakelnd.NewPubKey(), State: fakelnd.Open}
		w.fake.Quietly(c)
		w.wait(lnd.Reexport)
		w.want(append(points, c.Point))

		w.fake.Fail("*", fakelnd.Hang)
		w.wait(lnd.Reexport + 2*time.Minute)
		if err := w.state(); !errors.Is(err, lnd.ErrUnreachable) {
			t.Errorf("got %v, want %v", err, lnd.ErrUnreachable)
		}
		w.fake.Fail("*", fakelnd.None)
		w.wait(2 * time.Minute)
		if err := w.state(); err != nil {
			t.Errorf("got %v", err)
		}
	})
}

// R21: what the newest backup lacks and was not closed for good is kept in an older one.
func TestUnion(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.run()
		w.wait(time.Minute)
		a, b := points[0], points[1]
		// Closed by one side: not in a backup any more, and its money is not back yet.
		w.fake.Change(fakelnd.Channel{Point: a, State: fakelnd.Forced})
		w.wait(0)
		w.want([]string{b}, []string{a, b})
		if err := w.state(); err != nil {
			t.Errorf("got %v", err)
		}
		c := w.fake.AddChannel()
		w.wait(0)
		w.want([]string{b, c}, []string{a, b})
		w.stop()
		w.run()
		w.want([]string{b, c}, []string{a, b})
		// The other ones too: the newer backup is the one that is kept for b.
		w.fake.Change(fakelnd.Channel{Point: b, State: fakelnd.Forced})
		w.wait(0)
		w.want([]string{c}, []string{b, c}, []string{a, b})
		w.fake.Change(fakelnd.Channel{Point: c, State: fakelnd.Forced})
		w.wait(0)
		w.want(nil, []string{c}, []string{b, c}, []string{a, b})
		if err := w.state(); err != nil {
			t.Errorf("got %v", err)
		}
		// They go when all is over, and no earlier.
		w.fake.Quietly(fakelnd.Channel{Point: a, State: fakelnd.Closed})
		w.wait(lnd.Reexport)
		w.want(nil, []string{c}, []string{b, c})
		w.fake.Quietly(fakelnd.Channel{Point: b, State: fakelnd.Closed})
		w.wait(lnd.Reexport)
		w.want(nil, []string{c})
		w.fake.Quietly(fakelnd.Channel{Point: c, State: fakelnd.Closed})
		w.wait(lnd.Reexport)
		w.want(nil)
	})
}

// R21: what lnd forgot without saying that it was closed is kept, and told.
func TestForgotten(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.run()
		a, b := points[0], points[1]
		w.fake.Change(fakelnd.Channel{Point: a, State: fakelnd.Forgotten})
		w.wait(0)
		w.want([]string{b}, []string{a, b})
		le, ok := errors.AsType[*lnd.LostError](w.state())
		if !ok || !errors.Is(w.state(), lnd.ErrLost) || le.Stopped || !cmp.Equal(le.Channels, []string{a}) {
			t.Errorf("got %v", w.state())
		}
		// Restored there: lnd has it again, and then it ends.
		w.fake.Change(fakelnd.Channel{Point: a, State: fakelnd.Closing})
		w.wait(0)
		w.want([]string{a, b})
		if err := w.state(); err != nil {
			t.Errorf("got %v", err)
		}

		// All at once, as with a node that was wiped: the backup stays as it is.
		w.saves()
		for _, p := range points {
			w.fake.Quietly(fakelnd.Channel{Point: p, State: fakelnd.Forgotten})
		}
		w.fake.HangUp()
		w.wait(time.Hour)
		w.want(points)
		if le, ok := errors.AsType[*lnd.LostError](w.state()); !ok || !le.Stopped || len(le.Channels) != 2 {
			t.Errorf("got %v", w.state())
		}
		if n := len(w.saves()); n > 0 {
			t.Errorf("saved %d times", n)
		}
		// A new channel there is protected at once, beside what was.
		c := w.fake.AddChannel()
		w.wait(0)
		w.want([]string{c}, points)
		w.stop()
		w.run()
		w.wait(time.Minute)
		w.want([]string{c}, points)
		if le, ok := errors.AsType[*lnd.LostError](w.state()); !ok || le.Stopped || len(le.Channels) != 2 {
			t.Errorf("got %v", w.state())
		}
	})
}

// R3, R5: another node, or one on another network, writes nothing.
func TestOtherNode(t *testing.T) {
	for name, c := range map[string]struct {
		become func(*fakelnd.Node)
		want   error
	}{
		"node":    {func(n *fakelnd.Node) { n.Become(fakelnd.NewPubKey(), "regtest") }, lnd.ErrOtherNode},
		"network": {func(n *fakelnd.Node) { n.Become(n.PubKey, "mainnet") }, lnd.ErrNetwork},
	} {
		for _, while := range []bool{false, true} {
			t.Run(fmt.Sprint(name, while), func(t *testing.T) {
				try(t, func(w *world, points []string) {
					w.run()
					w.wait(time.Minute)
					if !while {
						w.stop()
					}
					w.saves()
					c.become(w.fake)
					w.fake.AddChannel()
					w.write(w.fake.Backup())
					if !while {
						w.run()
					}
					w.wait(time.Hour)
					if err := w.stop(); !errors.Is(err, c.want) {
						t.Errorf("got %v, want %v", err, c.want)
					}
					w.want(points)
					if n := len(w.saves()); n > 0 {
						t.Errorf("saved %d times", n)
					}
				})
			})
		}
	}
}

// R9: a macaroon that is refused is told, without a storm, and the file is read.
func TestRevoked(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(w *world)
		want error
	}{
		"revoked": {func(w *world) { w.fake.Revoke(0) }, lnd.ErrMacaroon},
		"permission": {func(w *world) {
			w.cfg.Macaroon = secret.New(w.fake.Macaroon(5, fakelnd.Permission{Entity: "info", Action: "read"}))
		}, lnd.ErrPermission},
		"cert": {func(w *world) {
			w.cfg.Cert = []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
		}, lnd.ErrCertificate},
	} {
		t.Run(name, func(t *testing.T) {
			try(t, func(w *world, points []string) {
				w.write(w.fake.Backup())
				w.run()
				w.wait(time.Minute)
				began := w.fake.Calls("/v1/getinfo")
				c.do(w)
				third := fakelnd.NewPoint()
				w.write(fakelnd.Seal(w.fake.PubKey, append(points, third, "file")...))
				w.fake.Change(fakelnd.Channel{Point: third, Peer: fakelnd.NewPubKey(), State: fakelnd.Open})
				w.wait(0) // What listened goes on.
				w.fake.HangUp()
				w.wait(time.Hour)
				if err := w.stop(); !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				w.want(append(slices.Clone(points), third, "file"), append(slices.Clone(points), third))
				if n := w.fake.Calls("/v1/getinfo") - began; n > 4 {
					t.Errorf("lnd was asked %d times", n)
				}
			})
		})
	}
}

// While lnd is away its file counts, and then lnd says what is in it.
func TestFile(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.write(w.fake.Backup())
		w.run()
		w.wait(time.Minute)
		w.saves()
		// It is written again after an event, as lnd does: that is nothing new.
		w.write(w.fake.Backup())
		w.wait(time.Minute)
		w.fake.Set("LOCKED")
		w.write(w.fake.Backup())
		w.wait(10 * time.Second)
		if err := w.state(); !errors.Is(err, lnd.ErrLocked) {
			t.Errorf("got %v, want %v", err, lnd.ErrLocked)
		}
		w.want(points, points)
		three := append(slices.Clone(points), fakelnd.NewPoint())
		w.write(fakelnd.Seal(w.fake.PubKey, three...))
		w.wait(2 * time.Second)
		w.want(three, points, points)
		// Nobody can say what is in them, so none makes the one before go.
		w.write(fakelnd.Seal(w.fake.PubKey, points[0]))
		w.wait(2 * time.Second)
		w.want(points[:1], three, points, points)
		// What is half there, or is none, is not read.
		w.write([]byte("x"))
		w.wait(2 * time.Second)
		w.want(points[:1], three, points, points)
		w.stop()
		w.run()
		w.wait(10 * time.Second)
		w.want(points[:1], three, points, points)
		w.fake.Quietly(fakelnd.Channel{Point: three[2], Peer: fakelnd.NewPubKey(), State: fakelnd.Open})
		w.fake.Set("SERVER_ACTIVE")
		w.wait(30 * time.Second)
		w.want(three)
		if err := w.state(); err != nil {
			t.Errorf("got %v", err)
		}
	})
}

// The file of the last good day is not taken for news.
func TestOldFile(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.write(w.fake.Backup())
		w.run()
		w.wait(time.Minute)
		points = append(points, w.fake.AddChannel()) // And lnd dies before it writes the file.
		w.wait(0)
		w.fake.Set("WAITING_TO_START")
		w.saves()
		w.wait(5 * time.Minute)
		w.stop()
		w.run()
		w.wait(5 * time.Minute)
		w.want(points)
		if n := len(w.saves()); n > 0 {
			t.Errorf("saved %d times", n)
		}
	})
}

// Days without lnd cost little, and it is heard soon after it is back.
func TestReconnect(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.run()
		w.wait(time.Minute)
		w.saves()
		w.fake.Set("LOCKED")
		before := w.fake.Calls("/v1/getinfo")
		w.wait(10 * time.Minute)
		if n := w.fake.Calls("/v1/getinfo") - before; n < 20 || n > 100 {
			t.Errorf("lnd was asked %d times in ten minutes", n)
		}
		c := fakelnd.Channel{Point: fakelnd.NewPoint(), Peer: fakelnd.NewPubKey(), State: fakelnd.Opening}
		w.fake.Quietly(c)
		w.fake.Set("SERVER_ACTIVE")
		w.wait(20 * time.Second)
		w.want(append(points, c.Point))
		// Connections that end at once are not made without a pause.
		before = w.fake.Calls("/v1/getinfo")
		for range 100 {
			w.fake.HangUp()
			w.wait(time.Second)
		}
		if n := w.fake.Calls("/v1/getinfo") - before; n > 40 {
			t.Errorf("lnd was asked %d times in 100 seconds", n)
		}
	})
}

// A save that fails is repeated with what is newest, and nothing is lost whether it was
// kept or not.
func TestSaveFails(t *testing.T) {
	for _, applied := range []bool{false, true} {
		try(t, func(w *world, points []string) {
			w.failing(3, applied)
			w.run()
			w.wait(10 * time.Second)
			w.want(points)
			w.failing(4, applied)
			a, b := points[0], points[1]
			c := w.fake.AddChannel()
			w.wait(100 * time.Millisecond)
			w.fake.Change(fakelnd.Channel{Point: c, State: fakelnd.Forced})
			w.wait(0)
			w.fake.Change(fakelnd.Channel{Point: a, State: fakelnd.Forced})
			w.wait(time.Minute)
			if applied {
				w.want([]string{b}, []string{a, b, c})
			} else {
				w.want([]string{b}, []string{a, b, c}) // It was tried, so it may be kept.
			}
			w.fake.Change(fakelnd.Channel{Point: c, State: fakelnd.Closed}, fakelnd.Channel{Point: a, State: fakelnd.Closed})
			w.wait(lnd.Reexport)
			w.want([]string{b})
		})
	}
}

// R4, R21: whatever happens, each channel that was once kept and is not closed for good
// is in a backup that is kept, and in the end all is as lnd says.
func TestRandom(t *testing.T) {
	for seed := range uint64(4) {
		try(t, func(w *world, points []string) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			w.write(w.fake.Backup())
			w.run()
			state := map[string]fakelnd.ChannelState{}
			for _, p := range points {
				state[p] = fakelnd.Open
			}
			once, onceWhole, restored := map[string]bool{}, map[string]bool{}, map[string]bool{}
			check := func(i int) {
				t.Helper()
				w.mu.Lock()
				defer w.mu.Unlock()
				have := map[string]bool{}
				for name, value := range w.items {
					if strings.HasPrefix(name, lnd.ItemBackup) {
						_, points := fakelnd.Unseal(value)
						for _, p := range points {
							have[p], once[p] = true, true
						}
					}
				}
				for p := range once {
					if !have[p] && state[p] != fakelnd.Closed {
						t.Fatalf("seed %d, step %d: %s is %s and in no backup", seed, i, p[:6], state[p])
					}
				}
				whole := wholeIn(w.items)
				for p := range whole {
					onceWhole[p] = onceWhole[p] || whole[p]
				}
				for p := range onceWhole {
					if onceWhole[p] && !whole[p] && state[p] != fakelnd.Closed {
						t.Fatalf("seed %d, step %d: %s is %s and can be restored from no backup", seed, i, p[:6], state[p])
					}
				}
			}
			for i := range 150 {
				some := points[rnd.IntN(len(points))]
				next := map[fakelnd.ChannelState][]fakelnd.ChannelState{
					fakelnd.Opening: {fakelnd.Open, fakelnd.Closed}, fakelnd.Open: {fakelnd.Closing, fakelnd.Forced, fakelnd.Forgotten},
					fakelnd.Closing: {fakelnd.Closed, fakelnd.Forced}, fakelnd.Forced: {fakelnd.Closed}, fakelnd.Forgotten: {fakelnd.Closing},
				}[state[some]]
				switch rnd.IntN(12) {
				case 0, 1:
					c := fakelnd.Channel{Point: fakelnd.NewPoint(), Peer: fakelnd.NewPubKey(), State: fakelnd.Opening}
					points, state[c.Point] = append(points, c.Point), c.State
					w.fake.Change(c)
				case 2, 3, 4, 5:
					// Who restores has lnd answer.
					if was := state[some]; len(next) > 0 && (was != fakelnd.Forgotten || w.fake.Streams() > 0) {
						state[some] = next[rnd.IntN(len(next))]
						change := w.fake.Change
						if rnd.IntN(3) == 0 {
							change = w.fake.Quietly
						}
						// A forgotten one is back by a restore.
						restored[some] = restored[some] || was == fakelnd.Forgotten
						change(fakelnd.Channel{Point: some, State: state[some], Restored: restored[some]})
					}
				case 6:
					w.failing(rnd.IntN(4), rnd.IntN(2) == 0)
				case 7:
					w.fake.Set([]string{"LOCKED", "SERVER_ACTIVE", "SERVER_ACTIVE"}[rnd.IntN(3)])
				case 8:
					w.fake.HangUp()
				case 9:
					w.write(w.fake.Backup())
				case 10:
					path := []string{"/v1/channels/backup", "/v1/channels/closed", "/v1/channels/pending", "/v1/getinfo", "*"}[rnd.IntN(5)]
					w.fake.Fail(path, []fakelnd.Fault{fakelnd.Fail, fakelnd.Cut, fakelnd.Garbage, fakelnd.None, fakelnd.None}[rnd.IntN(5)])
				case 11:
					w.stop()
					w.run()
				}
				w.wait(time.Duration(rnd.IntN(5000)) * time.Millisecond)
				check(i)
			}
			for _, path := range []string{"/v1/channels/backup", "/v1/channels/closed", "/v1/channels/pending", "/v1/getinfo", "*"} {
				w.fake.Fail(path, fakelnd.None)
			}
			w.fake.Set("SERVER_ACTIVE")
			w.failing(0, false)
			for _, p := range points { // Those that are forgotten are found again, and all but the living end.
				if state[p] == fakelnd.Forced || state[p] == fakelnd.Forgotten || restored[p] {
					state[p] = fakelnd.Closed
					w.fake.Quietly(fakelnd.Channel{Point: p, State: fakelnd.Closed})
				}
			}
			w.wait(30 * time.Minute)
			check(-1)
			var living []string
			for _, p := range points {
				if state[p] != fakelnd.Closed {
					living = append(living, p)
				}
			}
			w.want(living)
			if err := w.state(); err != nil {
				t.Errorf("seed %d: got %v", seed, err)
			}
		})
	}
}

// Once ends when all is kept, or with the first thing that is wrong.
func TestOnce(t *testing.T) {
	try(t, func(w *world, points []string) {
		ctx := w.t.Context()
		if err := w.source().Once(ctx, w.save); err != nil {
			t.Fatal(err)
		}
		w.want(points)
		for _, name := range []string{lnd.ItemNode, lnd.ItemPeers} {
			if len(w.items[name]) == 0 {
				t.Errorf("%s is not there", name)
			}
		}
		w.saves()
		if err := w.source().Once(ctx, w.save); err != nil || len(w.saves()) > 0 {
			t.Errorf("again: got %v", err)
		}
		w.fake.Quietly(fakelnd.Channel{Point: points[0], State: fakelnd.Forgotten})
		w.failing(1, false)
		if err := w.source().Once(ctx, w.save); !errors.Is(err, errSave) {
			t.Errorf("got %v, want %v", err, errSave)
		}
		if err := w.source().Once(ctx, w.save); !errors.Is(err, lnd.ErrLost) {
			t.Errorf("got %v, want %v", err, lnd.ErrLost)
		}
		w.want(points[1:], points)
		w.write(w.fake.Backup())
		for _, c := range []struct {
			do   func()
			want error
		}{
			{func() { w.fake.Set("LOCKED") }, lnd.ErrLocked},
			{func() { w.fake.Set("SERVER_ACTIVE"); w.fake.Become(fakelnd.NewPubKey(), "regtest") }, lnd.ErrOtherNode},
			{func() { w.fake.Revoke(0) }, lnd.ErrMacaroon},
		} {
			c.do()
			if err := w.source().Once(ctx, w.save); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		}
		w.want(points[1:], points)
	})
}

// Two older backups whose hashes begin alike are both kept, under names that stay.
func TestNamesCollide(t *testing.T) {
	long, short := make([]byte, 100), make([]byte, 99)
	seen := map[string]uint64{}
	for i := uint64(0); ; i++ {
		b := long
		if i%2 == 1 {
			b = short
		}
		binary.LittleEndian.PutUint64(b[24:], i)
		sum := sha256.Sum256(b)
		if j, ok := seen[string(sum[:4])]; ok && i%2 != j%2 {
			if i%2 == 1 {
				i, j = j, i
			}
			binary.LittleEndian.PutUint64(long[24:], i)
			binary.LittleEndian.PutUint64(short[24:], j)
			break
		}
		seen[string(sum[:4])] = i
	}
	try(t, func(w *world, points []string) {
		w.run()
		w.wait(time.Minute)
		w.fake.Set("LOCKED")
		w.wait(10 * time.Second)
		for _, b := range [][]byte{long, short, make([]byte, 98)} {
			w.write(b)
			w.wait(2 * time.Second)
		}
		for range 2 {
			sums := map[string]int{}
			names := 0
			for name, value := range w.items {
				if hash, ok := strings.CutPrefix(name, lnd.ItemOlder); ok {
					names++
					sum := sha256.Sum256(value)
					if !strings.HasPrefix(hex.EncodeToString(sum[:]), hash) {
						t.Errorf("%s holds something else", name)
					}
					sums[hash[:8]]++
				}
			}
			if names != 3 || len(sums) != 2 {
				t.Errorf("got %v", sums)
			}
			w.stop()
			w.run()
			w.wait(time.Minute)
		}
	})
}

// What lnd answers may be older than what it told, or than its own lists.
func TestOutOfDate(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.run()
		w.wait(time.Minute)
		w.fake.Fail("/v1/channels/backup", fakelnd.Late)
		before := w.fake.Calls("/v1/channels/backup")
		for w.fake.Calls("/v1/channels/backup") == before {
			w.wait(time.Second)
		}
		w.saves()
		points = append(points, w.fake.AddChannel()) // While an export is on its way.
		w.wait(time.Minute)
		for _, call := range w.saves() {
			for _, c := range call {
				if _, has := fakelnd.Unseal(c.Value); c.Name == lnd.ItemBackup && len(has) != 3 {
					t.Errorf("a backup with %d channels was saved", len(has))
				}
			}
		}
		w.want(points)

		// lnd lists the channel as open, and its backup lacks it: both are kept, and it is
		// asked again at once, but not for ever.
		w.fake.Fail("/v1/channels/backup", fakelnd.Old)
		before = w.fake.Calls("/v1/channels/backup")
		w.wait(lnd.Reexport)
		w.want(points[:2], points)
		if err := w.state(); err != nil {
			t.Errorf("got %v", err)
		}
		if n := w.fake.Calls("/v1/channels/backup") - before; n < 2 || n > 4 {
			t.Errorf("it was asked %d times", n)
		}
		w.fake.Fail("/v1/channels/backup", fakelnd.None)
		w.wait(lnd.Reexport)
		w.want(points)

		// An event says something new, though the channels are the same.
		w.saves()
		w.fake.Change(fakelnd.Channel{Point: points[0], State: fakelnd.Closing})
		w.wait(0)
		if n := len(w.saves()); n == 0 {
			t.Error("an event was not saved")
		}

		// Another node answers, and what listens hears nothing of that.
		w.saves()
		w.fake.Pretend(fakelnd.NewPubKey())
		w.fake.Quietly(fakelnd.Channel{Point: fakelnd.NewPoint(), Peer: fakelnd.NewPubKey(), State: fakelnd.Open})
		w.wait(lnd.Reexport)
		if err := w.stop(); !errors.Is(err, lnd.ErrOtherNode) || len(w.saves()) > 0 {
			t.Errorf("got %v, want %v", err, lnd.ErrOtherNode)
		}
	})
}

// What a save left behind that failed and was kept all the same goes when it is not needed.
func TestSaveFailsLeavesNothing(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.run()
		w.wait(time.Minute)
		w.failing(1, true)
		w.fake.Change(fakelnd.Channel{Point: points[0], State: fakelnd.Forced})
		w.wait(0)
		w.want(points[1:], points)
		w.fake.Quietly(fakelnd.Channel{Point: points[0], State: fakelnd.Closed})
		w.wait(10 * time.Second)
		w.want(points[1:])
	})
}
