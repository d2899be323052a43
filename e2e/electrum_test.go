package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A wallet of Satchel's must be found by another wallet. Electrum, offline,
// restores it from the exported key and shows the same addresses.
func TestElectrum(t *testing.T) {
	need(t, "electrum", "Debian's electrum")

	t.Run("mainnet", func(t *testing.T) {
		t.Parallel()
		w := newMachine(t).create(t, "create", "mainnet", nil)
		w.inElectrum(t, "bip84", "zprv", "zpub")
		w.inElectrum(t, "bip49", "yprv", "ypub")
		w.inElectrum(t, "bip44", "xprv", "xpub")
		w.wordsInElectrum(t, "")
	})
	t.Run("testnet", func(t *testing.T) {
		t.Parallel()
		w := newMachine(t).create(t, "create", "testnet", nil, "--words", "24")
		w.inElectrum(t, "bip84", "vprv", "vpub")
		w.inElectrum(t, "bip49", "uprv", "upub")
		w.wordsInElectrum(t, "")
	})
	t.Run("signet", func(t *testing.T) {
		t.Parallel()
		newMachine(t).create(t, "create", "signet", nil).inElectrum(t, "bip84", "vprv", "vpub")
	})
	t.Run("regtest", func(t *testing.T) {
		t.Parallel()
		newMachine(t).create(t, "create", "regtest", nil).inElectrum(t, "bip84", "vprv", "vpub")
	})
	t.Run("imported with a passphrase", func(t *testing.T) {
		t.Parallel()
		// A test vector of BIP 39, with its passphrase.
		const words, passphrase = "legal winner thank year wave sausage worth useful legal winner thank yellow", "TREZOR"
		w := newMachine(t).create(t, "import", "mainnet", []string{words, passphrase}, "--secret-fd", "3", "--passphrase-fd", "4")
		w.inElectrum(t, "bip84", "zprv", "zpub")
		w.wordsInElectrum(t, passphrase)
	})
}

// inElectrum restores one account from its private key, and a watching wallet
// from the public one, and compares the first addresses of both chains.
func (w made) inElectrum(t *testing.T, kind, private, public string) {
	t.Helper()
	firsts := w.firsts(t)
	receive, change := firstOf(t, firsts, kind, false), firstOf(t, firsts, kind, true)

	for prefix, accounts := range map[string]map[string]account{
		private: w.accounts(t, "--private", "--yes"),
		public:  w.accounts(t),
	} {
		a := accounts[kind]
		if !strings.HasPrefix(a.Key, prefix) {
			t.Fatalf("%s: the key does not begin with %s", kind, prefix)
		}
		if a.Address != receive[0] {
			t.Errorf("%s: export shows %s, the item descriptors %s", kind, a.Address, receive[0])
		}
		e := newElectrum(t, w.network)
		// The key comes on the standard input, not as an argument.
		e.run(t, a.Key, "restore", "-")
		if got := e.addresses(t, "--receiving", len(receive)); !slices.Equal(got, receive) {
			t.Errorf("%s: Electrum receives at %v, Satchel at %v", prefix, got, receive)
		}
		if got := e.addresses(t, "--change", len(change)); !slices.Equal(got, change) {
			t.Errorf("%s: Electrum has change at %v, Satchel at %v", prefix, got, change)
		}
	}
	t.Logf("%s %s: %s, %s and the rest are the same in Electrum", w.network, kind, receive[0], change[0])
}

// wordsInElectrum gives Electrum the exported words. Its command line takes only
// seeds of its own, so this calls what its window calls after "BIP39 seed".
func (w made) wordsInElectrum(t *testing.T, passphrase string) {
	t.Helper()
	receive := firstOf(t, w.firsts(t), "bip84", false)
	input, err := json.Marshal(map[string]any{
		"network": w.network, "words": w.words(t), "passphrase": passphrase, "addresses": len(receive),
	})
	if err != nil {
		t.Fatal(err)
	}
	// Debian's electrum is a library of Debian's python.
	cmd := exec.Command("/usr/bin/python3", "electrum_words.py")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("electrum_words.py: %v\n%s", err, stderr.String())
	}
	var got struct {
		Fingerprint string
		Receive     []string
	}
	decode(t, out, &got)
	if got.Fingerprint != w.fingerprint {
		t.Errorf("words: Electrum has the fingerprint %s, Satchel %s", got.Fingerprint, w.fingerprint)
	}
	if !slices.Equal(got.Receive, receive) {
		t.Errorf("words: Electrum receives at %v, Satchel at %v", got.Receive, receive)
	}
}

// electrum is one wallet in Electrum, with a directory of its own.
type electrum struct {
	dir     string
	network string
}

func newElectrum(t *testing.T, network string) electrum {
	return electrum{t.TempDir(), network}
}

func (e electrum) run(t *testing.T, stdin string, args ...string) []byte {
	t.Helper()
	args = append(args, "--offline", "--dir", e.dir, "--wallet", filepath.Join(e.dir, "wallet"))
	if e.network != "mainnet" {
		args = append(args, "--"+e.network)
	}
	cmd := exec.Command("electrum", args...)
	cmd.Env = append(os.Environ(), "HOME="+e.dir)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("electrum %s: %v\n%s", args[0], err, stderr.String())
	}
	return out
}

func (e electrum) addresses(t *testing.T, chain string, n int) []string {
	t.Helper()
	var list []string
	decode(t, e.run(t, "", "listaddresses", chain), &list)
	if len(list) < n {
		t.Fatalf("Electrum lists %d addresses, want %d or more", len(list), n)
	}
	return list[:n]
}
