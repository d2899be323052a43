//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A person and a PIN: asked for its key servers, chosen, lost with the device, and typed
// on a new one, wrongly at first.
func TestPersonWithPIN(t *testing.T) {
	t.Parallel()
	servers, names := startKeyServers(t, 3)
	p := newPerson(t)
	p.run("create", "--new", "--in", filepath.Join(p.dir, "elsewhere"), "--label", "Samantha")
	p.expect(`4  A PIN`)
	p.answer(`Number \[1\]: `, "4")
	p.expect("this device knows none yet")
	p.answer(`Enter when done\): `, "http://127.0.0.1:1")
	p.expect("Not that one: no key server answered there")
	for _, name := range names {
		p.answer(`Enter when done\): `, name)
		p.expect("Added: ")
	}
	p.answer(`Enter when done\): `, "")
	p.answer(`New PIN \(not shown\): `, "123456")
	p.answer(`Not this one: its digits go up(?s:.*)New PIN \(not shown\): `, "371793")
	p.answer(`The same again: `, "371973")
	p.answer(`The two differ(?s:.*)New PIN \(not shown\): `, "371793")
	p.answer(`The same again: `, "371793")
	p.expect("Protected +yes")
	p.expect("PIN +2 of 3 key servers must be there")
	if screen := p.ends(0); strings.Contains(screen, "371793") {
		t.Error("the PIN was echoed")
	}
	p.run("slot", "add", "recovery-code")
	p.answer(`PIN \(not shown\): `, "371793")
	code := p.expect(`((?:[0-9a-z]{4}-){8}[0-9a-z]{4})`)[1]
	p.answer("press Enter", "")
	p.ends(0)

	lose := func() {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(p.dir, "device")); err != nil {
			t.Fatal(err)
		}
	}
	// Key servers that are not theirs are not asked, whatever opens it then.
	lose()
	before := servers.requests()
	p.run("restore", "--from", filepath.Join(p.dir, "elsewhere"))
	p.expect("opens with a (PIN or a recovery code|recovery code or a PIN)")
	p.answer("Open this one", "y")
	p.expect("key servers that this device does not know")
	p.expect(names[0])
	p.expect("whoever can write to it could have put others there")
	p.answer("Are they yours", "n")
	p.answer(`Recovery code \(not shown\): `, code)
	p.answer("Restore this wallet to this device", "n")
	p.ends(1)
	if n := servers.requests() - before; n != 0 {
		t.Errorf("got %d requests, want none", n)
	}

	p.run("restore", "--from", filepath.Join(p.dir, "elsewhere"))
	p.answer("Open this one", "y")
	p.answer("Are they yours", "y")
	p.answer(`PIN \(not shown; Enter for another way in\): `, "555013")
	p.expect("did not open it: wrong PIN, 4 guesses left")
	p.answer(`PIN \(not shown; Enter for another way in\): `, "371793")
	p.answer("Restore this wallet to this device", "y")
	p.expect("Compared +yes")
	// Who mistyped just now is not told of a thief.
	if screen := p.ends(0); strings.Contains(screen, "wrong guess") || strings.Contains(screen, "somebody has a copy") {
		t.Errorf("got %s", screen)
	}
	// Of guesses that were not made now, they are.
	p.with(12, []string{"555013"}, "drill", "--pin-fd", "3", "--json")
	p.run("drill")
	p.expect("There were wrong guesses since the PIN was last right: 4 guesses left")
	p.answer(`PIN \(not shown`, "555014")
	p.expect("did not open it: wrong PIN, 3 guesses left")
	p.answer(`PIN \(not shown`, "371793")
	p.expect(`2 wrong guesses since the PIN was last\s+right, and not all of them just\s+now`)
	p.ends(0)

	// Locked while they type: said at once, with what else there is.
	lose()
	p.run("restore", "--from", filepath.Join(p.dir, "elsewhere"))
	p.answer("Open this one", "y")
	p.answer("Are they yours", "y")
	for _, left := range []string{"4", "3", "2"} {
		p.answer(`PIN \(not shown; Enter for another way in\): `, "555013")
		p.expect(`did not open it: wrong PIN, ` + left + ` guesses left`)
	}
	p.expect(`The PIN does not open it: locked until 20\d\d-\d\d-\d\d \d\d:\d\d, then 2\s+guesses`)
	p.answer(`Another way in: a recovery code(?s:.*)Recovery code \(not shown\): `, code)
	p.answer("Restore this wallet to this device", "y")
	p.ends(0)

	p.run("pin", "test")
	p.expect("locked until")
	p.ends(13)
	p.run("pin", "change")
	p.answer(`Recovery code \(not shown\): `, code)
	p.answer(`New PIN \(not shown\): `, "906214")
	p.answer(`The same again: `, "906214")
	p.expect("2 of 3 key servers must be there")
	p.ends(0)
	p.run("drill")
	p.answer(`PIN \(not shown; Enter for another way in\): `, "")
	p.answer(`Another way in: a recovery code(?s:.*)Recovery code \(not shown\): `, code)
	p.expect("All is well")
	p.ends(0)
}

// A person is asked for the registration token that a key server wants, and whether key
// servers may say that an older copy is one.
func TestPersonAsked(t *testing.T) {
	t.Parallel()
	servers, names := startKeyServers(t, 3)
	servers.list[0].token = "letmein"
	p := newPerson(t)
	place, old := filepath.Join(p.dir, "elsewhere"), filepath.Join(p.dir, "old")
	p.run("guardian", "add", names[0], names[1], names[2])
	p.answer(`wants a registration token(?s:.*)Its token \(not shown; Enter to stop\): `, "letmeout")
	p.answer(`does not take this\s+registration token(?s:.*)Its token \(not shown; Enter to stop\): `, "letmein")
	p.expect(`Added: (?s:.*)Added: (?s:.*)Added: `)
	p.ends(0)
	p.run("create", "--new", "--in", place, "--unlock", "pin")
	p.answer(`New PIN \(not shown\): `, "371793")
	p.answer(`The same again: `, "371793")
	p.ends(0)
	p.run("slot", "add", "recovery-code")
	p.answer(`PIN \(not shown\): `, "371793")
	code := p.expect(`((?:[0-9a-z]{4}-){8}[0-9a-z]{4})`)[1]
	p.answer("press Enter", "")
	p.ends(0)
	if err := os.CopyFS(old, os.DirFS(place)); err != nil {
		t.Fatal(err)
	}
	p.run("limit", "1btc")
	p.ends(0)
	p.run("pin", "change")
	p.expect(`The key servers stay: http`)
	p.answer(`PIN \(not shown; Enter for another way in\): `, "371793")
	p.answer(`New PIN \(not shown\): `, "906214")
	p.answer(`The same again: `, "906214")
	p.ends(0)

	if err := os.RemoveAll(filepath.Join(p.dir, "device")); err != nil {
		t.Fatal(err)
	}
	before := servers.requests()
	p.run("restore", "--from", old, "--secret-fd", "0")
	p.answer("Open this one", "y")
	p.typed(code + "\n")
	p.expect("could say whether this is the newest state")
	p.answer(`Ask them\?(?s:.*)\[y/N\] `, "")
	p.expect("They were not asked")
	if n := servers.requests() - before; n != 0 {
		t.Errorf("got %d requests, want none", n)
	}
	p.answer("Restore this wallet to this device", "n")
	p.ends(1)
	p.run("restore", "--from", old, "--secret-fd", "0")
	p.answer("Open this one", "y")
	p.typed(code + "\n")
	p.answer(`Ask them\?(?s:.*)\[y/N\] `, "y")
	p.expect("this\\s+may\\s+be\\s+an\\s+old\\s+copy")
	p.answer("Restore this wallet to this device", "n")
	p.ends(1)
}
