package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The descriptors that Satchel exports mean the same to a library of somebody
// else's: it accepts their checksums, refuses damaged ones, and derives the same
// addresses.
func TestDescriptors(t *testing.T) {
	need(t, "node", "Node.js 20.19 or later")
	need(t, "npm", "npm")
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "addresses.mjs"} {
		data, err := os.ReadFile(filepath.Join("descriptors", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	install := exec.Command("npm", "ci", "--ignore-scripts", "--omit=peer", "--no-audit", "--no-fund")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}

	// What the script is given: a descriptor, which chain of it, and the
	// addresses that ours derives.
	type want struct {
		Network    string   `json:"network"`
		Descriptor string   `json:"descriptor"`
		Change     *int     `json:"change"` // for a descriptor of two chains
		First      []string `json:"first"`
	}
	var wants []want
	for _, network := range []string{"mainnet", "testnet", "signet", "regtest"} {
		w := newMachine(t).create(t, "create", network, nil)
		firsts, accounts, private := w.firsts(t), w.accounts(t), w.accounts(t, "--private", "--yes")
		for _, f := range firsts {
			chain := 0
			if f.Change {
				chain = 1
			}
			wants = append(wants,
				want{network, f.Descriptor, nil, f.First},
				want{network, accounts[f.Type].Descriptor, &chain, f.First},
				want{network, private[f.Type].Descriptor, &chain, f.First})
		}
		// And those that Bitcoin Core imports.
		for _, args := range [][]string{{"export", "core"}, {"export", "core", "--private", "--yes"}} {
			var core []struct {
				Desc     string
				Internal bool
			}
			decode(t, w.satchel(t, nil, args...), &core)
			if len(core) != len(firsts) {
				t.Fatalf("got %d descriptors for Bitcoin Core, want %d", len(core), len(firsts))
			}
			for i, c := range core {
				if c.Internal != firsts[i].Change {
					t.Fatalf("descriptor %d for Bitcoin Core is of the other chain", i)
				}
				wants = append(wants, want{network, c.Desc, nil, firsts[i].First})
			}
		}
	}
	input, err := json.Marshal(wants)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "addresses.mjs")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("addresses.mjs: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}
