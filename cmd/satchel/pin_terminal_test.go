//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// startKeyServers is for tests at a terminal; it returns the addresses.
func startKeyServers(t *testing.T, n int) (*guardians, []string) {
	t.Helper()
	k := &guardians{}
	t.Cleanup(k.close)
	var urls []string
	for range n {
		url, err := k.add(t, nil)
		if err != nil {
			t.Fatal(err)
		}
		urls = append(urls, url)
	}
	return k, urls
}

// A person with a PIN: weak ones are refused, unknown key servers are asked about before
// anything is sent, a wrong PIN is asked for again, and when it is locked there is another
// way in.
func TestPINAtTerminal(t *testing.T) {
	t.Parallel()
	k, urls := startKeyServers(t, 3)
	p := newPerson(t)
	place := filepath.Join(p.dir, "elsewhere")
	const pin, wrong = "839155", "555013"
	lose := func() {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(p.dir, "device")); err != nil {
			t.Fatal(err)
		}
	}

	p.run(append([]string{"guardian", "add"}, urls...)...)
	p.ends(0)
	p.run("create", "--new", "--in", place, "--unlock", "pin")
	p.answer(`New PIN \(not shown\): `, "123456")
	p.answer(`Not this one: (?s:.*)Better: (?s:.*)New PIN \(not shown\): `, pin)
	p.answer(`The same again: `, wrong)
	p.answer(`The two differ(?s:.*)New PIN \(not shown\): `, pin)
	p.answer(`The same again: `, pin)
	if screen := p.ends(0); strings.Contains(screen, pin) {
		t.Error("the PIN was echoed")
	}
	p.run("slot", "add", "recovery-code")
	p.answer(`PIN \(not shown\): `, pin)
	code := p.expect(`((?:[0-9a-z]{4}-){8}[0-9a-z]{4})`)[1]
	p.answer("press Enter", "")
	p.ends(0)

	// Unknown key servers, and a no: nothing is sent, and the recovery code is asked for.
	lose()
	before := k.requests()
	p.run("restore", "--from", place)
	p.answer("Open this one", "y")
	p.expect("key servers that this device does not know")
	for _, url := range urls {
		p.expect(url)
	}
	p.answer("Are they yours", "n")
	p.expect("Another way in: a recovery code")
	if got := k.requests(); got != before {
		t.Errorf("%d requests were sent to key servers that were declined", got-before)
	}
	p.answer(`Recovery code \(not shown\): `, code)
	p.answer("Restore this wallet to this device", "n")
	p.ends(1)

	// A yes; one wrong PIN, then the right one.
	p.run("restore", "--from", place)
	p.answer("Open this one", "y")
	p.answer("Are they yours", "y")
	p.answer(`PIN \(not shown; Enter for another way in\): `, wrong)
	p.answer(`wrong\s+PIN,\s+4\s+guesses\s+left(?s:.*)PIN \(not shown; Enter for another way in\): `, pin)
	p.answer("Restore this wallet to this device", "y")
	p.expect("Restored")
	if screen := p.ends(0); strings.Contains(screen, pin) || strings.Contains(screen, wrong) {
		t.Error("a PIN was echoed")
	}
	p.run("guardian", "list")
	for _, url := range urls {
		p.expect(url)
	}
	p.ends(0)

	// Wrong until it is locked; then it is said before a PIN is asked for, and the code opens.
	p.run("pin", "test")
	for range 3 {
		p.answer(`PIN \(not shown\): `, wrong)
	}
	p.expect(`locked\s+until`)
	p.ends(13)
	p.run("drill")
	p.answer(`locked\s+until(?s:.*)Another way in: a recovery code(?s:.*)Recovery code \(not shown\): `, code)
	p.expect("All is well")
	p.ends(0)
}
