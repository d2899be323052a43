package lnd

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each thing that can be wrong has its own answer, which says what to do, and nothing is
// changed by trying. (Point 5)
func TestWrong(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	r := newRunner(t, c, folderPlace(t))
	bob := newNode(t, c, t.TempDir(), "bob")
	r.fund(t, 10_000_000)
	r.connect(t, bob)
	words := func(n *node) string { return strings.Join(n.words, " ") }
	answers := map[string]string{}
	// wrong runs satchel, which must end with the code and say all of the words.
	wrong := func(t *testing.T, d device, code int, secrets []string, args []string, says ...string) {
		t.Helper()
		a := d.try(t, secrets, args...)
		var refusal struct {
			Error string
			Code  int
			Hint  string
		}
		answer{command: a.command, out: []byte(a.errs)}.json(t, &refusal) // Results and errors are apart.
		if a.code != code || refusal.Code != code {
			t.Errorf("got exit code %d and %d, want %d\n%s", a.code, refusal.Code, code, a)
		}
		for _, s := range says {
			if !strings.Contains(refusal.Error+"\n"+refusal.Hint, s) {
				t.Errorf("does not say %q:\n%s", s, a)
			}
		}
		if refusal.Hint == "" {
			t.Errorf("does not say what to do:\n%s", a)
		}
		if other, ok := answers[refusal.Error+refusal.Hint]; ok {
			t.Errorf("the same answer as for %s:\n%s", other, a)
		}
		answers[refusal.Error+refusal.Hint] = t.Name()
		for _, secret := range append([]string{words(r.node), words(bob), r.pin}, secrets...) {
			if strings.Contains(string(a.out)+a.errs, secret) {
				t.Error("a secret is in what it says")
			}
		}
	}
	importing := func(kind string, p place, more ...string) []string {
		args := []string{"import", "--in", p.address, "--unlock", "recovery-code", "--secret-fd", "3", "--json", "--network", "regtest"}
		if kind != "" {
			args = append(args, "--kind", kind)
		}
		return append(args, more...)
	}

	t.Run("aezeed as BIP 39", func(t *testing.T) {
		p := folderPlace(t)
		wrong(t, newDevice(t), 12, []string{words(r.node)}, importing("", p), "lnd's own (aezeed) words, and not those of a BIP 39 wallet", "--kind aezeed")
		noBackup(t, p)
	})
	t.Run("BIP 39 as aezeed", func(t *testing.T) {
		p := folderPlace(t)
		bip39 := strings.Repeat("abandon ", 23) + "art"
		wrong(t, newDevice(t), 12, []string{bip39}, importing("aezeed", p), "the words of a BIP 39 wallet, and not lnd's own (aezeed)", "without --kind")
		noBackup(t, p)
	})
	t.Run("a mistyped word", func(t *testing.T) {
		p := folderPlace(t)
		typed := append([]string{}, r.words...)
		typed[3], typed[4] = typed[4], typed[3]
		if typed[3] == typed[4] {
			typed[3] = "zoo"
		}
		wrong(t, newDevice(t), 12, []string{strings.Join(typed, " ")}, importing("aezeed", p), "together they are not an lnd node's", "one is wrong, or the order is")
		noBackup(t, p)
	})
	t.Run("macaroon without permission", func(t *testing.T) {
		var baked struct{ Macaroon string }
		r.must(t, "POST", "/v1/macaroon", map[string]any{"permissions": []map[string]string{{"entity": "info", "action": "read"}}}, &baked)
		raw, err := hex.DecodeString(baked.Macaroon)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "info.macaroon")
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		wrong(t, r.device, 24, nil, []string{"lnd", "connect", "--macaroon-file", file, "--json"}, "the macaroon lacks a permission: offchain:read peers:read", "lncli bakemacaroon")
	})
	t.Run("macaroon of another node", func(t *testing.T) {
		wrong(t, r.device, 24, nil, []string{"lnd", "connect", "--macaroon-file", bob.macaroonPath(), "--yes", "--json"}, "lnd refuses the macaroon")
	})
	t.Run("certificate of another node", func(t *testing.T) {
		wrong(t, r.device, 27, nil, []string{"lnd", "connect", "--address", r.rest, "--cert", bob.certPath(), "--macaroon-file", r.macaroonPath(), "--yes", "--json"}, "lnd's certificate")
	})
	t.Run("node on another network", func(t *testing.T) {
		d := newDevice(t)
		d.satchel(t, []string{words(bob)}, importing("aezeed", folderPlace(t), "--network", "mainnet")...)
		wrong(t, d, 21, nil, []string{"lnd", "connect", "--dir", bob.dir(), "--network", "regtest", "--yes", "--json"}, "the node is on regtest, the wallet ", " on mainnet")
	})
	t.Run("no node", func(t *testing.T) {
		wrong(t, newDevice(t), 1, nil, []string{"lnd", "connect", "--dir", t.TempDir(), "--yes", "--json"}, "no wallet")
	})

	// From here on there is a backup of the node, with one channel.
	r.connectNode(t)
	first := r.newChannel(t, bob, 1_000_000, 200_000)
	r.satchel(t, nil, "watch", "--once", "--json")
	r.protected(t, 1)
	restore := func(d device, more ...string) []string {
		_, args := r.place.in("--from", nil, "lnd", "restore", "--yes", "--json", "--pin-fd", "3", "--lnd-password-fd", "4")
		return append(append(args, r.guardians()...), more...)
	}
	here := []string{"lnd", "restore", "--yes", "--json", "--pin-fd", "3"}

	t.Run("another node than the one before", func(t *testing.T) {
		wrong(t, r.device, 21, nil, []string{"lnd", "connect", "--dir", bob.dir(), "--yes", "--json"}, "another node answers")
	})
	t.Run("node that lost nothing", func(t *testing.T) {
		wrong(t, r.device, 1, []string{r.pin}, here, "the node is there, and has every channel of the backup")
		r.active(t, first)
	})
	t.Run("stale channel backup", func(t *testing.T) {
		second := r.newChannel(t, bob, 500_000, 0)
		wrong(t, r.device, 1, []string{r.pin}, here, "its own channels are newer than the backup", "1 channel")
		r.active(t, first)
		r.active(t, second)
	})
	t.Run("restore to another node", func(t *testing.T) {
		// Bob has a wallet; the backup is alice's.
		d := device{home: t.TempDir()}
		wrong(t, d, 21, []string{r.pin, r.password}, restore(d, "--dir", bob.dir()), "this node is "+bob.id)
	})
	t.Run("restore to another network", func(t *testing.T) {
		d := newDevice(t)
		n := installNode(t, c, d.home, "dave")
		n.on(t, "testnet")
		n.run(t)
		wrong(t, d, 21, []string{r.pin, r.password}, restore(d), "the node here is on testnet, the backup is of regtest")
		if s, err := n.state(); err != nil || s != "NON_EXISTING" {
			t.Errorf("lnd is in state %s, %v, want no wallet", s, err)
		}
	})
	t.Run("channel backup of another node", func(t *testing.T) {
		// The words that were imported are another node's.
		d, p := newDevice(t), folderPlace(t)
		var made struct{ Secret string }
		d.satchel(t, []string{words(bob)}, importing("aezeed", p)...).json(t, &made)
		d.satchel(t, nil, "lnd", "connect", "--dir", r.dir(), "--yes", "--json")
		lost := newDevice(t)
		n := installNode(t, c, lost.home, "carol")
		n.run(t)
		height := c.height(t)
		wrong(t, lost, 21, []string{made.Secret, n.password}, []string{"lnd", "restore", "--from", p.address, "--yes", "--json", "--secret-fd", "3", "--lnd-password-fd", "4"},
			"this node is "+bob.id, "the keys in the backup are of another node than its channels")
		r.untouched(t, height, first)
		r.active(t, first)
	})
}

// noBackup fails the test if there is a backup in a folder.
func noBackup(t testing.TB, p place) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(p.address, "BitcoinWalletBackup-*"))
	if err != nil || len(list) > 0 {
		t.Errorf("got %v in the place, %v; want nothing", list, err)
	}
}

// on changes the network of a node that has not run yet, to one without a chain here.
func (n *node) on(t testing.TB, network string) {
	t.Helper()
	path := filepath.Join(n.dir(), "lnd.conf")
	conf, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(conf), "[Btcd]")
	head = strings.NewReplacer("bitcoin.regtest=true", "bitcoin."+network+"=true", "bitcoin.node=btcd", "bitcoin.node=neutrino").Replace(head)
	if err := os.WriteFile(path, []byte(head), 0o600); err != nil {
		t.Fatal(err)
	}
}
