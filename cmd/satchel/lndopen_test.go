//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel/internal/fakelnd"
)

// Before a peer is asked for a channel, everything that would make the open come to nothing
// is found: the peer would count the channel as pending for two weeks.
func TestLNDOpen(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	place := filepath.Join(p.dir, "elsewhere")
	p.does(0, "create", "--in", place, "--unlock", "recovery-code", "--json", "--network", "regtest")
	node := p.lndNode()
	node.AddCoins(1)
	p.does(0, "lnd", "connect", "--json", "--yes")
	mac, peer := p.adminMacaroon(), "02"+strings.Repeat("ab", 32)
	open := []string{"lnd", "open", peer + "@127.0.0.1:9735", "200000", "--macaroon-file", mac, "--yes"}
	offered := func() int { return node.Calls("/v1/channels/stream") }

	// What the place holds stays protected while it is away, so that a status does not tell.
	if err := os.Rename(place, place+".away"); err != nil {
		t.Fatal(err)
	}
	if out := p.does(27, open...); !strings.Contains(out, "nothing was begun: a place is away") || offered() > 0 {
		t.Errorf("offered %d times: %s", offered(), out)
	}
	if err := os.Rename(place+".away", place); err != nil {
		t.Fatal(err)
	}
	if out := p.does(1, "lnd", "open", peer+"@127.0.0.1:9735", "1btc", "--macaroon-file", mac, "--yes"); !strings.Contains(out, "not enough coins") || !strings.Contains(out, "walletbalance") {
		t.Errorf("got %s", out)
	}
	// Another macaroon than the one that is kept, so another hint.
	other := filepath.Join(p.dir, "other.macaroon")
	writeFile(t, other, string(fakelnd.New("regtest").Admin()))
	for file, code := range map[string]int{other: 24, filepath.Join(p.dir, "nothing"): 1} {
		if out := p.does(code, "lnd", "open", peer, "200000", "--macaroon-file", file, "--yes"); strings.Contains(out, "lnd connect") || !strings.Contains(out, "--macaroon-file names one") {
			t.Errorf("%s: got %s", file, out)
		}
	}
	// The address was given, so that to give it is no advice.
	node.Cut("127.0.0.1:29167")
	if out := p.does(1, "lnd", "open", peer+"@127.0.0.1:29167", "200000", "--macaroon-file", mac, "--yes"); strings.Contains(out, "give its address") || !strings.Contains(out, "nobody with that key answers at that address") {
		t.Errorf("got %s", out)
	}
	for _, how := range []string{"--resume", "--abandon"} {
		if out := p.does(1, "lnd", "open", how, "--macaroon-file", mac); strings.Contains(out, "coins") || !strings.Contains(out, "nothing to finish") {
			t.Errorf("%s: got %s", how, out)
		}
	}
	if offered() > 0 {
		t.Errorf("a channel was offered %d times", offered())
	}

	p.run("lnd", "open", peer+"@127.0.0.1:9735", "200000", "--macaroon-file", mac, "--push", "1000", "--sat-per-vbyte", "4")
	p.expect(`Amount\s+200000 sat`)
	p.expect(`Push\s+1000 sat`)
	p.expect(`Fee\s+about 620 sat, for the transaction, at 4 sat/vbyte`)
	p.answer(`Open this channel\? \[y/N\]`, "n")
	p.ends(1)
	if offered() > 0 {
		t.Errorf("a channel was offered %d times", offered())
	}
	if out := last(t, p.does(0, append(open[:len(open):len(open)], "--json")...)); out["opened"] != true {
		t.Errorf("got %v", out)
	}
}
