//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/https"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
)

// Somebody who can write to the folder puts a PIN slot of his own in the place of the real
// one. The owner says yes to its key server, finds that the PIN does not open, and takes
// the recovery code: the server that guards nothing of the wallet must not be among those
// that the next PIN goes to.
func TestAudit4ForgedServerKept(t *testing.T) {
	t.Parallel()
	_, urls := startKeyServers(t, 3)
	_, evil := startKeyServers(t, 1)
	p := newPerson(t)
	place := filepath.Join(p.dir, "elsewhere")
	const pin = "839155"
	p.run(append([]string{"guardian", "add"}, urls...)...)
	p.ends(0)
	p.run("create", "--new", "--in", place, "--unlock", "pin")
	p.answer(`New PIN \(not shown\): `, pin)
	p.answer(`The same again: `, pin)
	p.ends(0)
	p.run("slot", "add", "recovery-code")
	p.answer(`PIN \(not shown\): `, pin)
	code := p.expect(`((?:[0-9a-z]{4}-){8}[0-9a-z]{4})`)[1]
	p.answer("press Enter", "")
	p.ends(0)
	if err := os.RemoveAll(filepath.Join(p.dir, "device")); err != nil {
		t.Fatal(err)
	}

	names, err := filepath.Glob(filepath.Join(place, "*", "slots", "pin-*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%v, %v", names, err)
	}
	data, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	real, err := slot.ReadPIN(data, guard.ID{})
	if err != nil {
		t.Fatal(err)
	}
	client := &guard.Client{Transport: &https.Transport{}, Trusted: func(string) bool { return true }, KDF: &guard.KDF{Passes: 1, Lanes: 1, Memory: 8 << 10}}
	plan, err := guard.NewPlan(real.Backup, 1, evil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := client.Enrol(t.Context(), plan, secret.FromString("000000"), secret.Bytes{})
	if err != nil {
		t.Fatal(err)
	}
	forged, err := seal.SealSlot(seal.NewKeys(), slot.PINRecipient(e))
	if err != nil {
		t.Fatal(err)
	}
	n := seal.NewSlotName(string(slot.KindPIN), forged)
	if err := os.WriteFile(filepath.Join(filepath.Dir(names[0]), filepath.Base(n.Path())), forged, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(names[0]); err != nil {
		t.Fatal(err)
	}

	p.run("restore", "--from", place)
	p.answer("Open this one", "y")
	p.answer("Are they yours", "y")
	p.answer(`PIN \(not shown; Enter for another way in\): `, "")
	p.answer(`Recovery code \(not shown\): `, code)
	p.answer("Restore this wallet to this device", "y")
	p.expect("Restored")
	p.ends(0)
	p.run("guardian", "list")
	if screen := p.ends(0); strings.Contains(screen, evil[0]) {
		t.Errorf("%s guards nothing of the wallet, and is among those that the next PIN goes to:\n%s", evil[0], screen)
	}
}
