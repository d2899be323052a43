package lnd

import "testing"

// The nodes do what the other tests take for granted.
func TestNodes(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	alice, bob := newNode(t, c, t.TempDir(), "alice"), newNode(t, c, t.TempDir(), "bob")
	alice.fund(t, 10_000_000)
	alice.connect(t, bob)
	point := alice.newChannel(t, bob, 1_000_000, 200_000)
	alice.pay(t, bob, 12_345)
	bob.pay(t, alice, 2_345)
	ch, _ := alice.channel(t, point)
	if got, want := ch.Local+ch.CommitFee+2*anchorSats, sats(1_000_000-200_000-12_345+2_345); got != want {
		t.Errorf("alice has %d sats in the channel, want %d", got, want)
	}
	if got, want := ch.Remote, sats(200_000+12_345-2_345); got != want {
		t.Errorf("bob has %d sats in the channel, want %d", got, want)
	}
	alice.kill()
	alice.start(t)
	alice.active(t, point)
	if err := bob.verify(alice.backup(t)); err == nil {
		t.Error("bob takes a channel backup of alice for one of his own")
	}
	if err := alice.verify(alice.backup(t)); err != nil {
		t.Errorf("alice's channel backup: %v", err)
	}
}

// anchorSats is what each of the two anchors of a commitment transaction holds, from the
// side of who opened the channel.
const anchorSats = 330

// A node that is wiped comes back with lnd's own means, and its money is counted: what
// the tests of satchel take for granted.
func TestWipedNode(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	home := t.TempDir()
	alice, bob := newNode(t, c, home, "alice"), newNode(t, c, t.TempDir(), "bob")
	alice.fund(t, 10_000_000)
	bob.fund(t, 10_000_000)
	alice.connect(t, bob)
	points := []string{alice.newChannel(t, bob, 1_000_000, 200_000), bob.newChannel(t, alice, 2_000_000, 700_000)}
	alice.pay(t, bob, 12_345)
	bob.pay(t, alice, 54_321)
	want := alice.confirmed(t)
	for _, p := range points {
		ch, _ := alice.channel(t, p)
		want += int64(ch.Local)
	}
	backup, words, height := alice.backup(t), alice.words, c.height(t)
	alice.kill()
	alice.wipe(t)
	alice = installNode(t, c, home, "alice")
	alice.words = words
	alice.run(t)
	alice.init(t, backup, 100)
	alice.serving(t)
	commitments := c.closings(t, height, points...)
	c.mine(t, 1)
	alice.sweep(t)
	s := alice.sweeps(t, height, commitments)
	if got, want := alice.confirmed(t)+s.fees, want+s.anchors; got != want {
		t.Errorf("alice has %d sats with fees, want %d", got, want)
	}
	t.Logf("%+v", s)
}
