//go:build unix

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/fakelnd"
)

const nodeWords = "ability liquid travel stem barely drastic pact cupboard apple thrive morning oak feature tissue couch old math inform success suggest drink motion know royal"

// nodeOwner has a node with the channels a and b in its backup, a in an older one alone,
// and c in the newest; and the recovery code.
func nodeOwner(t *testing.T) (p *person, node *fakelnd.Node, code, a, b, c string) {
	t.Helper()
	p = newPerson(t)
	out := last(t, p.with(0, []string{nodeWords}, "import", "--kind", "aezeed", "--in", p.place(), "--unlock", "recovery-code", "--json", "--network", "regtest", "--secret-fd", "3"))
	code = out["secret"].(string)
	node = p.lndNode()
	node.Wallet.Seeds = map[string]string{nodeWords: node.PubKey}
	a, b = node.AddChannel(), node.AddChannel()
	for _, point := range []string{a, b} {
		peer := fakelnd.NewPubKey()
		node.Change(fakelnd.Channel{Point: point, Peer: peer, State: fakelnd.Open})
		node.AddPeer(peer, "203.0.113.1:9735", false, "203.0.113.1:9735")
	}
	p.does(0, "lnd", "connect", "--json", "--yes")
	node.Change(fakelnd.Channel{Point: a, State: fakelnd.Forgotten})
	c = node.AddChannel()
	p.does(3, "watch", "--once") // It says that a was lost.
	return p, node, code, a, b, c
}

func (p *person) place() string { return filepath.Join(p.dir, "elsewhere") }

// lose removes the device, and lnd's data.
func (p *person) lose(node *fakelnd.Node) {
	p.t.Helper()
	if err := os.RemoveAll(filepath.Join(p.dir, "device")); err != nil {
		p.t.Fatal(err)
	}
	node.Wipe()
}

// mayCall are the only calls that a restore makes which change something: none closes a
// channel.
var mayCall = []string{"POST /v1/initwallet", "POST /v1/channels/backup/restore", "POST /v1/channels/backup/verify", "POST /v1/peers", "POST /v1/macaroon"}

func onlyAsks(t *testing.T, node *fakelnd.Node, before int) {
	t.Helper()
	for _, call := range node.Log()[before:] {
		if !strings.HasPrefix(call, "GET ") && !slices.Contains(mayCall, call) {
			t.Errorf("it called %s", call)
		}
	}
}

// closes lets all channels come to their end once lnd knows them.
func closes(node *fakelnd.Node, points ...string) {
	go func() {
		for range 1000 {
			if len(node.Channels(fakelnd.Closing)) == len(points) {
				for _, p := range points {
					node.Change(fakelnd.Channel{Point: p, State: fakelnd.Closed})
				}
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
}

// A node whose machine was lost comes back with one command: from its own words, with
// every channel that any kept backup knows, and without a channel being closed by it.
func TestLNDRestore(t *testing.T) {
	t.Parallel()
	p, node, code, a, b, c := nodeOwner(t)
	p.lose(node)
	before := len(node.Log())
	closes(node, a, b, c)
	out := p.with(0, []string{code, "a new password"}, "lnd", "restore", "--from", p.place(), "--yes", "--json", "--secret-fd", "3", "--lnd-password-fd", "4", "--dir", filepath.Join(p.dir, ".lnd"))
	for _, want := range []string{`"event":"wallet made"`, `"event":"backup handed over"`, `"connected":true`, `"event":"done"`, node.PubKey} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in %s", want, out)
		}
	}
	onlyAsks(t, node, before)
	known := map[string]bool{}
	for _, scb := range node.Restored() {
		_, points := fakelnd.Unseal(scb)
		for _, point := range points {
			known[point] = true
		}
	}
	if !known[a] || !known[b] || !known[c] {
		t.Errorf("lnd was given %v, want %s, %s and %s", known, a, b, c)
	}
	if _, points := fakelnd.Unseal(node.Restored()[0]); !slices.Contains(points, c) {
		t.Errorf("the first is not the newest: %v", points)
	}
	// It is backed up from now on.
	p.keepAdmin(node)
	if out := p.does(0, "lnd", "status"); !strings.Contains(out, "all in the backup") {
		t.Errorf("got %s", out)
	}
	node.AddChannel()
	p.does(0, "watch", "--once")
	// And a second call does nothing.
	if out := p.with(1, []string{code}, "lnd", "restore", "--json", "--yes", "--secret-fd", "3"); !strings.Contains(out, "nothing has to be restored") {
		t.Errorf("got %s", out)
	}
	onlyAsks(t, node, before)
}

// It goes on after an interruption, with the wallet on this device, and without a secret.
func TestLNDRestoreGoesOn(t *testing.T) {
	t.Parallel()
	p, node, code, a, b, c := nodeOwner(t)
	p.lose(node)
	p.with(0, []string{code}, "restore", "--from", p.place(), "--yes", "--json", "--secret-fd", "3")
	node.Fail("/v1/channels/backup/restore", fakelnd.Fail)
	p.with(1, []string{"a new password"}, "lnd", "restore", "--yes", "--json", "--lnd-password-fd", "3")
	node.Fail("/v1/channels/backup/restore", fakelnd.None)
	if len(node.Restored()) != 1 {
		t.Fatalf("%d backups were given, want 1", len(node.Restored()))
	}
	p.does(3, "lnd", "restore", "--follow", "--once")
	p.keepAdmin(node)
	closes(node, a, b, c)
	p.does(0, "lnd", "restore", "--yes", "--json")
	p.does(0, "lnd", "restore", "--follow", "--once")
}

// What must not be restored says why, and touches nothing.
func TestLNDRestoreRefused(t *testing.T) {
	t.Parallel()
	p, node, code, a, _, _ := nodeOwner(t)
	_ = code
	restore := func(exit int, want string, more ...string) {
		t.Helper()
		before := len(node.Log())
		out := p.with(exit, []string{"a new password"}, append([]string{"lnd", "restore", "--yes", "--json", "--lnd-password-fd", "3"}, more...)...)
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
		for _, call := range node.Log()[before:] {
			if call == "POST /v1/channels/backup/restore" {
				t.Error("a backup was handed over")
			}
		}
	}
	// The node is there, and newer than the backup.
	node.Change(fakelnd.Channel{Point: a, State: fakelnd.Open})
	node.AddChannel()
	restore(1, "newer than the backup")
	p.does(0, "watch", "--once")
	restore(1, "has every channel")

	// Another node has a wallet here.
	was := node.PubKey
	node.Become(fakelnd.NewPubKey(), "regtest")
	restore(21, "another node")
	node.Set("LOCKED")
	restore(27, "lncli unlock")

	// The words are of another node than the channels.
	node.Wipe()
	node.Wallet.Seeds = map[string]string{nodeWords: fakelnd.NewPubKey()}
	restore(21, "another node")

	// lnd does not take the words, or their passphrase.
	node.Wipe()
	node.Wallet.Seeds = nil
	restore(1, "lnd does not take these words")
	node.Wallet.Seeds, node.Wallet.Passphrase = map[string]string{nodeWords: was}, "other"
	restore(1, "passphrase of the node's words")

	// The lnd here is on another network.
	writeFile(t, filepath.Join(p.dir, ".lnd", "lnd.conf"), strings.Replace(readFile(t, filepath.Join(p.dir, ".lnd", "lnd.conf")), "regtest", "signet", 1))
	restore(21, "signet")
}

// A wallet whose keys make no node, and one without channels.
func TestLNDRestoreKinds(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.does(0, "create", "--in", p.place(), "--unlock", "recovery-code", "--json", "--network", "regtest")
	node := p.lndNode()
	point := node.AddChannel()
	if out := p.does(1, "lnd", "restore", "--yes", "--json"); !strings.Contains(out, "no channel backup") {
		t.Errorf("got %s", out)
	}
	p.does(0, "lnd", "connect", "--json", "--yes")
	was := node.PubKey
	node.Wipe()
	if out := p.does(1, "lnd", "restore", "--yes", "--json"); !strings.Contains(out, "lncli create") {
		t.Errorf("got %s", out)
	}
	// A new wallet in it would be in the way of the restore.
	if out := p.does(27, "lnd", "connect", "--yes", "--json"); !strings.Contains(out, "`satchel lnd restore` brings the node back") {
		t.Errorf("got %s", out)
	}
	// Its owner makes the wallet from paper, and the channels come back.
	node.Set("SERVER_ACTIVE")
	node.Become(was, "regtest")
	p.keepAdmin(node)
	closes(node, point)
	out := p.does(0, "lnd", "restore", "--yes")
	for _, want := range []string{"lnd has the channel backup, the newest: 1 channel more", "Coins of transactions that were not confirmed", "Alarms and the agent are of a device"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if len(node.Restored()) != 1 {
		t.Errorf("%d backups were given, want 1", len(node.Restored()))
	}
}

// A node of which no restore goes on is not said to have closed its channels: neither one
// that was never restored, nor one that opened a channel after its restore.
func TestLNDFollowNothing(t *testing.T) {
	t.Parallel()
	p, node, code, a, b, c := nodeOwner(t)
	follow := func() {
		t.Helper()
		for _, more := range [][]string{nil, {"--once"}} {
			if out := p.does(0, append([]string{"lnd", "restore", "--follow"}, more...)...); !strings.Contains(out, "no restore of this node is going on") || strings.Contains(out, "closed") {
				t.Errorf("got %s", out)
			}
		}
		out := last(t, p.does(0, "lnd", "restore", "--follow", "--once", "--json"))
		if _, has := out["swept"]; out["event"] != "no restore" || has {
			t.Errorf("got %v", out)
		}
	}
	follow()
	p.lose(node)
	p.cut(node, code)
	if out := last(t, p.does(3, "lnd", "restore", "--follow", "--once", "--json")); out["waiting"] != 3.0 {
		t.Errorf("got %v", out)
	}
	for _, point := range []string{a, b, c} {
		node.Change(fakelnd.Channel{Point: point, State: fakelnd.Closed})
	}
	if out := last(t, p.does(0, "lnd", "restore", "--follow", "--once", "--json")); out["event"] != "done" || out["swept"] != 150000.0 {
		t.Errorf("got %v", out)
	}
	node.AddChannel()
	follow()
}
