package lnd

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// From the moment at which lnd tells of a channel that opens or closes until satchel says
// that it is protected. (Point 1. The goal for places on this machine is 150 ms, p50; it
// is judged by if SATCHEL_LND_EVENTS says how many to measure.)
func TestTimeToProtected(t *testing.T) {
	n, most := number(t, "SATCHEL_LND_EVENTS", 10), 600*time.Millisecond
	if os.Getenv("SATCHEL_LND_EVENTS") != "" {
		most = 150 * time.Millisecond
	}
	c := newChain(t)
	bob := newNode(t, c, t.TempDir(), "bob", "maxpendingchannels=100")
	for _, p := range append([]place{folderPlace(t), newCloud(t).place}, realPlaces(t)...) {
		t.Run(p.name, func(t *testing.T) {
			r := newRunner(t, c, p)
			r.fund(t, 1_000_000_000)
			r.connectNode(t)
			r.runAgent(t)
			r.connect(t, bob)
			r.protected(t, 0)
			heard := r.hearBackups(t)
			var took []time.Duration
			measure := func(what string, do func()) {
				// Nothing is under way: each event is saved alone.
				quiet(heard)
				seen := len(r.told.all(0))
				do()
				var at time.Time
				select {
				case at = <-heard:
				case <-time.After(waitLimit):
					t.Fatalf("lnd does not tell of a channel that %s", what)
				}
				eventuallyEvery(t, time.Millisecond, waitLimit, "it is protected", func() error {
					for _, e := range r.told.all(seen) {
						if e.Event == "saved" && e.Protected != nil && *e.Protected && slices.Contains(e.Items, "lightning/scb") {
							took = append(took, e.at.Sub(at))
							return nil
						}
					}
					return fmt.Errorf("%d events, none of them", len(r.told.all(seen)))
				})
			}
			var points []string
			for range (n + 1) / 2 {
				measure("opens", func() { points = append(points, r.open(t, bob, 1_000_000, 0)) })
				c.mine(t, 1) // The next one is paid from its change.
				r.synced(t)
			}
			opened(t, r.node, bob, points...)
			for _, point := range points[:n/2] {
				measure("closes", func() { r.close(t, point, false); c.mine(t, 1) })
			}
			slices.Sort(took)
			at := func(percent int) time.Duration { return took[(len(took)*percent+99)/100-1].Round(time.Millisecond) }
			t.Logf("%d events: protected after %v (p50), %v (p99), %v (max)", len(took), at(50), at(99), at(100))
			// A few events on a busy machine need more than the goal.
			if got := at(50); got > most {
				t.Errorf("protected after %v (p50), want at most %v", got, most)
			}
		})
	}
}

// quiet drops what was heard until nothing is for a moment.
func quiet(heard <-chan time.Time) {
	for {
		select {
		case <-heard:
		case <-time.After(time.Second):
			return
		}
	}
}

// hearBackups returns the times at which lnd tells of a new channel backup.
func (n *node) hearBackups(t testing.TB) <-chan time.Time {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	heard := make(chan time.Time, 1000)
	go func() {
		defer close(done)
		// It answers when there is something to tell.
		resp, err := n.request(ctx, "GET", "/v1/channels/backup/subscribe", nil)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewReader(resp.Body)
		for {
			if _, err := lines.ReadSlice('\n'); err == nil {
				heard <- time.Now()
			} else if err != bufio.ErrBufferFull {
				return
			}
		}
	}()
	return heard
}
