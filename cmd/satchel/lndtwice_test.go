//go:build unix

package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/satchel-backup/satchel/internal/fakelnd"
)

// cut restores a node, and ends when all that is left to do is done by peers: the node
// says nothing of how far it is.
func (p *person) cut(node *fakelnd.Node, code string) {
	p.t.Helper()
	node.Fail("/v1/getrecoveryinfo", fakelnd.Fail)
	p.with(1, []string{code, "a new password"}, "lnd", "restore", "--from", p.place(), "--yes", "--json", "--secret-fd", "3", "--lnd-password-fd", "4")
	node.Fail("/v1/getrecoveryinfo", fakelnd.None)
	p.keepAdmin(node)
}

// A node that is lost again while its restore waits for its peers comes back with all its
// channels, also with one that was opened meanwhile; and lnd is handed nothing that it
// would stand still over.
func TestLNDRestoreTwice(t *testing.T) {
	t.Parallel()
	p, node, code, a, b, c := nodeOwner(t)
	p.lose(node)
	p.cut(node, code)
	for range 2 {
		p.does(0, "watch", "--once")
		if out := last(t, p.does(0, "lnd", "status", "--json")); out["restoring"] != true || out["saved"] != true || out["channels"] != 3.0 {
			t.Errorf("got %v", out)
		}
	}
	if less := fakelnd.Less([]byte(p.does(0, "get", "lightning/scb"))); len(less) > 0 {
		t.Errorf("the newest backup is the one that lnd exported of what it was given back: %v", less)
	}
	// A wallet that has no backup from before would keep no more than lnd exports.
	stranger := newPerson(t)
	stranger.does(0, "create", "--in", stranger.place(), "--unlock", "recovery-code", "--json", "--network", "regtest")
	if out := stranger.does(1, "lnd", "connect", "--dir", filepath.Join(p.dir, ".lnd"), "--yes", "--json"); !strings.Contains(out, "is being restored") {
		t.Errorf("got %s", out)
	}
	d := node.AddChannel()
	p.does(0, "watch", "--once")
	p.lose(node)
	closes(node, a, b, c, d)
	out := p.with(0, []string{code, "a new password"}, "lnd", "restore", "--from", p.place(), "--yes", "--json", "--secret-fd", "3", "--lnd-password-fd", "4")
	if node.Stood() > 0 || strings.Contains(out, "backup refused") {
		t.Errorf("lnd stood still %d times: %s", node.Stood(), out)
	}
	for _, point := range []string{a, b, c, d} {
		if !slices.Contains(node.Channels(fakelnd.Closed), point) {
			t.Errorf("%s is not back", point)
		}
	}
	p.keepAdmin(node)
	p.does(0, "watch", "--once")
	if out := p.does(0, "items"); strings.Contains(out, "lightning/singles") || strings.Contains(out, "lightning/scb/") {
		t.Errorf("more is kept than is needed: %s", out)
	}
}

func sumOf(value string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(value))) }

// An earlier satchel put what lnd exported in the place of the backup from before: that one
// is in the places still, and goes first.
func TestLNDRestoreTwiceEarlierSatchel(t *testing.T) {
	t.Parallel()
	p, node, code, _, b, c := nodeOwner(t)
	plain := func(text string) string { return strings.ReplaceAll(text, `,"restored":[]`, "") }
	writeFile(t, filepath.Join(p.dir, "list"), plain(p.does(0, "get", "lightning/channels")))
	p.does(0, "put", "lightning/channels", filepath.Join(p.dir, "list"))
	lesser := fakelnd.New("regtest")
	lesser.PubKey = node.PubKey
	for _, point := range []string{b, c} {
		lesser.Quietly(fakelnd.Channel{Point: point, State: fakelnd.Closing, Restored: true})
	}
	multi := lesser.Backup()
	writeFile(t, filepath.Join(p.dir, "scb"), string(multi))
	list := p.does(0, "get", "lightning/channels")
	was := sumOf(p.does(0, "get", "lightning/scb"))
	writeFile(t, filepath.Join(p.dir, "list"), strings.Replace(list, was, sumOf(string(multi)), 1))
	p.does(0, "put", "lightning/scb", filepath.Join(p.dir, "scb"))
	p.does(0, "put", "lightning/channels", filepath.Join(p.dir, "list"))
	p.lose(node)
	p.cut(node, code)
	if less := fakelnd.Less(node.Restored()[0]); len(less) > 0 || node.Stood() > 0 {
		t.Errorf("lnd was given the lesser one first: %v; it stood still %d times", less, node.Stood())
	}
	if got := len(node.Channels(fakelnd.Closing)); got != 3 {
		t.Errorf("%d channels are back, want 3", got)
	}
}

// What is wrong with the lnd here is said before a backup is taken over, which stops the
// device that writes it, and what can be is said before a secret is asked for.
func TestLNDRestoreTakesNothingOver(t *testing.T) {
	t.Parallel()
	p, node, code, _, _, _ := nodeOwner(t)
	other := newPerson(t)
	restore := func(exit int, password, want string) {
		t.Helper()
		out := other.with(exit, []string{code, password}, "lnd", "restore", "--from", p.place(), "--yes", "--json", "--secret-fd", "3", "--lnd-password-fd", "4")
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
		if entries, err := os.ReadDir(filepath.Join(other.dir, "device", "wallets")); err == nil && len(entries) > 0 {
			t.Errorf("the wallet was restored: %v", entries)
		}
		node.AddChannel()
		// It says that a channel was lost, and no more: it is still the one that writes.
		if out := p.does(3, "watch", "--once"); strings.Contains(out, "another device") {
			t.Errorf("the device was stopped: %s", out)
		}
	}
	asks := func(want string) {
		t.Helper()
		other.run("lnd", "restore", "--from", p.place())
		other.expect(want)
		other.ends(1)
		if strings.Contains(other.screen.String(), "Opening") {
			t.Error("a secret was asked for")
		}
	}
	restore(1, "a new password", "no lnd found")
	asks("no lnd found")
	there := other.lndNode()
	if err := os.Rename(filepath.Join(other.dir, ".lnd", "tls.cert"), filepath.Join(other.dir, "tls.cert")); err != nil {
		t.Fatal(err)
	}
	restore(1, "a new password", "start lnd first")
	asks("never started with this directory: its certificate is missing")
	if err := os.Rename(filepath.Join(other.dir, "tls.cert"), filepath.Join(other.dir, ".lnd", "tls.cert")); err != nil {
		t.Fatal(err)
	}
	restore(21, "a new password", "another node")
	there.Set("LOCKED")
	restore(27, "a new password", "lncli unlock")
	there.Wipe()
	restore(1, "seven77", "8 characters")
	writeFile(t, filepath.Join(other.dir, ".lnd", "lnd.conf"), strings.Replace(readFile(t, filepath.Join(other.dir, ".lnd", "lnd.conf")), "regtest", "signet", 1))
	restore(21, "a new password", "signet")
}

// A restore that was cut short is known, and goes on with what is on this device, without
// a secret; and its end is noticed without anybody who follows it.
func TestLNDRestoreCutShort(t *testing.T) {
	t.Parallel()
	p, node, code, a, b, c := nodeOwner(t)
	// An old channel that has nothing to do with a restore.
	node.Quietly(fakelnd.Channel{Point: fakelnd.NewPoint(), Peer: fakelnd.NewPubKey(), State: fakelnd.Closed})
	p.lose(node)
	node.Fail("/v1/getinfo", fakelnd.Fail)
	p.with(1, []string{code, "a new password"}, "lnd", "restore", "--from", p.place(), "--yes", "--json", "--secret-fd", "3", "--lnd-password-fd", "4")
	node.Fail("/v1/getinfo", fakelnd.None)
	p.keepAdmin(node)
	for _, args := range [][]string{{"lnd", "status"}, {"lnd", "restore", "--follow"}} {
		if out := p.does(1, args...); !strings.Contains(out, "cut short") || !strings.Contains(out, "`satchel lnd restore`") {
			t.Errorf("%v: got %s", args, out)
		}
	}
	node.Fail("/v1/getrecoveryinfo", fakelnd.Fail)
	out := p.does(1, "lnd", "restore", "--yes", "--json")
	node.Fail("/v1/getrecoveryinfo", fakelnd.None)
	if strings.Contains(out, "were not looked into") {
		t.Errorf("what the places hold was not taken for known: %s", out)
	}
	node.Change(fakelnd.Channel{Point: fakelnd.NewPoint(), Peer: fakelnd.NewPubKey(), State: fakelnd.Closed})
	node.Change(fakelnd.Channel{Point: fakelnd.NewPoint(), Peer: fakelnd.NewPubKey(), State: fakelnd.Forced})
	if out := last(t, p.does(0, "lnd", "status", "--json")); out["restoring"] != true {
		t.Errorf("got %v", out)
	}
	if out := last(t, p.does(3, "lnd", "restore", "--follow", "--once", "--json")); len(out["ending"].([]any)) != 3 || out["swept"] != 0.0 {
		t.Errorf("got %v", out)
	}
	for _, point := range []string{a, b, c} {
		node.Change(fakelnd.Channel{Point: point, State: fakelnd.Closed})
	}
	if out := last(t, p.does(0, "lnd", "status", "--json")); out["restoring"] != false {
		t.Errorf("got %v", out)
	}
	record := func() string {
		t.Helper()
		text := ""
		names, err := filepath.Glob(filepath.Join(p.dir, "device", "watch", "*.json"))
		if err != nil || len(names) == 0 {
			t.Fatalf("got %v, %v", names, err)
		}
		for _, name := range names {
			text += name + readFile(t, name)
		}
		return text
	}
	if text := record(); !strings.Contains(text, `"restoring":true`) || !strings.Contains(text, ".restore.json") {
		t.Fatalf("got %s", text)
	}
	w := p.watch()
	for {
		if w.sees("node", ""); !strings.Contains(record(), `"restoring":true`) {
			break
		}
	}
	w.ends(syscall.SIGTERM, 0)
	if text := record(); !strings.Contains(text, `"ended":true`) {
		t.Errorf("got %s", text)
	}
	if out := last(t, p.does(0, "lnd", "restore", "--follow", "--once", "--json")); out["event"] != "done" || out["swept"] != 150000.0 {
		t.Errorf("got %v", out)
	}
}

// Every status tells of a restore that was cut short, before a node was connected and after,
// and of one that goes on; a node whose restore was cut short is not taken in as it stands.
func TestStatusOfRestore(t *testing.T) {
	t.Parallel()
	p, node, code, a, b, c := nodeOwner(t)
	p.lose(node)
	node.Fail("/v1/getinfo", fakelnd.Fail)
	p.with(1, []string{code, "a new password"}, "lnd", "restore", "--from", p.place(), "--yes", "--json", "--secret-fd", "3", "--lnd-password-fd", "4")
	node.Fail("/v1/getinfo", fakelnd.None)
	p.keepAdmin(node)
	short := func() {
		t.Helper()
		out := p.does(3, "status")
		if flat := strings.Join(strings.Fields(out), " "); !strings.Contains(flat, "a restore of the node was begun 2") || !strings.Contains(flat, "is not finished: `satchel lnd restore` goes on") {
			t.Errorf("got %s", out)
		}
		if now := last(t, p.does(3, "status", "--json"))["lnd"].(map[string]any); now["restore_begun"] == nil {
			t.Errorf("got %v", now)
		}
	}
	short()
	if out := p.does(3, "status"); strings.Contains(out, "in the backup") || strings.Contains(out, "neither an agent") {
		t.Errorf("got %s", out)
	}
	// lnd has no restored channel yet, and is not taken in as it stands.
	read := node.Channels(fakelnd.Closing)
	for _, point := range read {
		node.Change(fakelnd.Channel{Point: point, State: fakelnd.Forgotten})
	}
	if out := p.does(1, "lnd", "connect", "--yes", "--json"); !strings.Contains(out, errRestoring.Error()) || !strings.Contains(out, "`satchel lnd restore` again") {
		t.Errorf("got %s", out)
	}
	short()
	for _, point := range read {
		node.Change(fakelnd.Channel{Point: point, Peer: fakelnd.NewPubKey(), State: fakelnd.Closing, Restored: true})
	}
	agent := p.agent()
	agent.sees("watching", "")
	if out := p.does(3, "agent", "status"); !strings.Contains(out, "a restore of the node was begun") {
		t.Errorf("got %s", out)
	}
	agent.ends(syscall.SIGTERM, 0)
	node.Fail("/v1/channels/backup/restore", fakelnd.Fail)
	p.does(1, "lnd", "restore", "--yes", "--json")
	node.Fail("/v1/channels/backup/restore", fakelnd.None)
	short()
	p.does(1, "lnd", "connect", "--yes", "--json")
	if out := p.does(3, "lnd", "status"); !strings.Contains(out, "is not finished") {
		t.Errorf("got %s", out)
	}
	node.Fail("/v1/getrecoveryinfo", fakelnd.Fail)
	p.does(1, "lnd", "restore", "--yes", "--json")
	node.Fail("/v1/getrecoveryinfo", fakelnd.None)
	out := p.does(0, "status")
	if flat := strings.Join(strings.Fields(out), " "); !strings.Contains(flat, "a restore of the node goes on: 3 channels not closed yet") {
		t.Errorf("got %s", out)
	}
	if now := last(t, p.does(0, "status", "--json"))["lnd"].(map[string]any); now["restore_begun"] != nil || now["restore_waiting"] != 3.0 {
		t.Errorf("got %v", now)
	}
	for _, point := range []string{a, b, c} {
		node.Change(fakelnd.Channel{Point: point, State: fakelnd.Closed})
	}
	if out := p.does(0, "status"); strings.Contains(out, "a restore of the node") {
		t.Errorf("got %s", out)
	}
}
