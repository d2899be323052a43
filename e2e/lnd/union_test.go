package lnd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The node's database goes back to an older day, and forgets a channel. The backup that
// knows it is kept, and used: and whatever a restore hands over, lnd publishes no state of
// a channel by itself, and nobody can have it do so. (Point 4)
func TestUnion(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	r := newRunner(t, c, folderPlace(t))
	bob := newNode(t, c, t.TempDir(), "bob")
	r.fund(t, 10_000_000)
	r.connectNode(t)
	r.runAgent(t)
	r.connect(t, bob)
	first := r.newChannel(t, bob, 1_000_000, 200_000)
	r.pay(t, bob, 12_345)
	r.protected(t, 1)
	r.stop(t)
	before := filepath.Join(t.TempDir(), "before")
	if out, err := exec.Command("cp", "-a", r.dir(), before).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r.start(t)
	r.active(t, first)
	second := r.newChannel(t, bob, 800_000, 100_000)
	r.protected(t, 2)
	inChannels := map[string]int64{}
	for _, p := range []string{first, second} {
		ch, _ := r.channel(t, p)
		inChannels[p] = int64(ch.Local)
	}
	inWallet := r.confirmed(t)

	// Bob is away: he would tell the node that it forgot something, and close.
	bob.stop(t)
	r.stop(t)
	if err := os.RemoveAll(r.dir()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(before, r.dir()); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	if _, ok := r.channel(t, second); ok {
		t.Fatal("the node still knows the second channel")
	}
	// satchel saves what the node has now, and keeps what it does not have any more.
	eventually(t, waitLimit, "the backup of before is kept beside the newest", func() error {
		a := r.try(t, nil, "lnd", "status", "--json")
		var s lndStatus
		a.json(t, &s)
		if !s.Protected || !s.Saved || s.Channels != 1 || s.Older != 1 {
			return fmt.Errorf("%s", a)
		}
		return nil
	})
	height := c.height(t)
	r.lose(t)

	away := true
	told := r.bringBack(t, func(e restoreEvent) {
		if e.Event != "progress" || e.Waiting != 2 || !away {
			return
		}
		away = false
		r.serving(t)
		// As long as the peer is away nothing happens to its channels, also when blocks
		// come, lnd is asked to close them, or starts again.
		for _, p := range []string{first, second} {
			r.refusesToClose(t, p)
		}
		r.untouched(t, height, first, second)
		if err := os.WriteFile(r.passwordPath(), []byte(r.password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		r.kill()
		r.start(t)
		for _, p := range []string{first, second} {
			r.refusesToClose(t, p)
		}
		r.untouched(t, height, first, second)
		bob.start(t)
	}, "--recovery-window", "100")
	handed := 0
	for _, e := range told {
		if e.Event == "backup handed over" && e.Channels != nil {
			handed += *e.Channels
		}
	}
	// The older one goes first where lnd has not said yet which channels of the newest it
	// could restore: that one may have been read from its file.
	if handed != 2 {
		t.Errorf("the backups that were handed over had %d channels, want 2", handed)
	}
	if away {
		t.Error("satchel did not say that two channels wait for their peer")
	}
	r.count(t, height, inWallet, inChannels)
	r.closedByPeer(t, first, second)
}

// untouched mines, and fails the test if anything spends what is in the channels.
func (n *node) untouched(t testing.TB, after int64, points ...string) {
	t.Helper()
	for range 10 {
		n.chain.mine(t, 1)
		n.synced(t)
	}
	// lnd publishes at once when it does.
	time.Sleep(time.Second)
	for _, tx := range n.chain.since(t, after) {
		for _, in := range tx.Vin {
			if point := fmt.Sprintf("%s:%d", in.Txid, in.Vout); slices.Contains(points, point) {
				t.Errorf("%s spends from the channel %s, which only its peer may close", tx.Txid, point)
			}
		}
	}
}

// refusesToClose asks lnd to publish what it has of a channel.
func (n *node) refusesToClose(t testing.TB, point string) {
	t.Helper()
	txid, index, _ := strings.Cut(point, ":")
	err := n.call("DELETE", fmt.Sprintf("/v1/channels/%s/%s?force=true", txid, index), nil, nil)
	if err == nil {
		t.Errorf("lnd closes %s, of which it has an old state or none", point)
	}
}

// closedByPeer fails the test unless the peers closed the channels.
func (n *node) closedByPeer(t testing.TB, points ...string) {
	t.Helper()
	var list struct {
		Channels []struct {
			Point string `json:"channel_point"`
			Type  string `json:"close_type"`
		}
	}
	n.must(t, "GET", "/v1/channels/closed", nil, &list)
	got := map[string]string{}
	for _, c := range list.Channels {
		got[c.Point] = c.Type
	}
	for _, p := range points {
		if got[p] != "REMOTE_FORCE_CLOSE" {
			t.Errorf("%s was closed by %q, want by the peer", p, got[p])
		}
	}
}
