package lnd

import (
	"testing"
)

// A node is lost with all that was on the device, comes back by the documented commands
// from the place with the PIN, and not a satoshi is missing but what miners got. (Point 1)
func TestNodeLost(t *testing.T) {
	t.Parallel()
	places := append([]place{folderPlace(t)}, realPlaces(t)...) // TestStorm does it over WebDAV.
	for i, p := range places {
		t.Run(p.name, func(t *testing.T) {
			var window []string
			if i > 0 { // As documented in the first place; shorter, to save time, in the others.
				window = []string{"--recovery-window", "100"}
			}
			c := newChain(t)
			r := newRunner(t, c, p)
			bob, carol := newNode(t, c, t.TempDir(), "bob"), newNode(t, c, t.TempDir(), "carol")
			r.fund(t, 10_000_000)
			bob.fund(t, 10_000_000)
			r.connectNode(t)
			r.runAgent(t)
			r.connect(t, bob)
			r.connect(t, carol)
			points := []string{r.newChannel(t, bob, 1_000_000, 200_000), bob.newChannel(t, r.node, 2_000_000, 700_000)}
			r.pay(t, bob, 12_345)
			points = append(points, r.newChannel(t, carol, 900_000, 0))
			bob.pay(t, r.node, 54_321)
			r.pay(t, carol, 33_333)
			r.protected(t, len(points))
			// What the node has: what channels cost is not its own any more.
			inWallet, inChannels := r.confirmed(t), map[string]int64{}
			for _, p := range points {
				ch, _ := r.channel(t, p)
				inChannels[p] = int64(ch.Local)
			}
			height := c.height(t)
			carol.stop(t)
			r.lose(t)

			// One peer is away, and comes back when satchel says that it must be reached.
			told := r.bringBack(t, func(e restoreEvent) {
				if e.Event == "progress" && e.Waiting == 1 && carol.process.ended() {
					carol.start(t)
				}
			}, window...)
			if last := told[len(told)-1]; last.Event != "done" {
				t.Errorf("the last event is %+v, want done", last)
			}
			r.count(t, height, inWallet, inChannels)
			r.closedByPeer(t, points...)
		})
	}
}
