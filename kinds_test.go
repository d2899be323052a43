package satchel_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/wallet"
)

// The vectors of lnd's own tests, without a passphrase and with one, and the master key
// of the words abandon … about.
const (
	nodeWords = "ability liquid travel stem barely drastic pact cupboard apple thrive morning oak " +
		"feature tissue couch old math inform success suggest drink motion know royal"
	lockedWords = "able tree stool crush transfer cloud cross three profit outside hen citizen " +
		"plate ride require leg siren drum success suggest drink require fiscal upgrade"
	lockedPassphrase = "!very_safe_55345_password*"
	masterKey        = "tprv8ZgxMBicQKsPe5YMU9gHen4Ez3ApihUfykaqUorj9t6FDqy3nP6eoXiAo2ssvpAjoLroQxHqr3R5nE3a5dU3DHTjTgJDd7zrbniJr6nrCzd"
)

func nodeKeys(t *testing.T, words string, c wallet.ImportConfig) wallet.Keys {
	t.Helper()
	w, err := wallet.ParseAezeed(secret.FromString(words))
	if err != nil {
		t.Fatal(err)
	}
	k, err := wallet.ImportAezeed(w, c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func masterKeys(t *testing.T) wallet.Keys {
	t.Helper()
	k, err := wallet.ImportXPrv(secret.FromString(masterKey), wallet.ImportConfig{Network: wallet.Regtest, Made: "2026-11-23"})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func createOf(t *testing.T, cfg satchel.Config, k wallet.Keys, items ...satchel.Change) (*satchel.Backup, slot.Secret) {
	t.Helper()
	way, _ := slot.NewRecoveryCode()
	b, err := satchel.Create(context.Background(), cfg, satchel.Plan{Label: "Node", Keys: k, Slots: []slot.Secret{way}, Items: items})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, way
}

// A wallet of any kind of keys is made, checked, drilled, restored and compared, and gets
// new keys for its backup; R19: what is stored shows nothing of it.
func TestKinds(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, test := range map[string]struct {
		keys        wallet.Keys
		kind        wallet.Kind
		fingerprint string
		addresses   int
		needed      bool
	}{
		"aezeed": {nodeKeys(t, nodeWords, wallet.ImportConfig{Network: wallet.Mainnet, Made: "2026-11-23"}), wallet.KindAezeed, "", 0, false},
		"aezeed with its passphrase": {nodeKeys(t, lockedWords, wallet.ImportConfig{
			Network: wallet.Signet, Passphrase: secret.FromString(lockedPassphrase), KeepPassphrase: true}), wallet.KindAezeed, "", 0, false},
		"aezeed whose passphrase is not kept": {nodeKeys(t, lockedWords, wallet.ImportConfig{
			Network: wallet.Mainnet, Passphrase: secret.FromString(lockedPassphrase)}), wallet.KindAezeed, "", 0, true},
		"xprv":   {masterKeys(t), wallet.KindXPrv, "73c5da0a", wallet.FirstAddresses, false},
		"BIP 39": {newKeys(t), wallet.KindBIP39, "?", wallet.FirstAddresses, false},
	} {
		if test.fingerprint == "?" {
			test.fingerprint = test.keys.Fingerprint()
		}
		st := &mem.Store{}
		cfg := config(t, st)
		b, way := createOf(t, cfg, test.keys, item("lightning/scb", "1"))
		save(t, b, item("lightning/scb", "2"))
		s := b.Status()
		if s.Kind != test.kind || s.Fingerprint != test.fingerprint || s.Network != test.keys.Network() || !s.Protected {
			t.Errorf("%s: %s, %q, %s", name, s.Kind, s.Fingerprint, s.Network)
		}
		if d, err := satchel.ReadDevice(cfg.Dir); err != nil || d.Kind != test.kind || d.Fingerprint != test.fingerprint {
			t.Errorf("%s: the device tells %s, %q, %v", name, d.Kind, d.Fingerprint, err)
		}
		if _, err := b.Check(ctx); err != nil {
			t.Errorf("%s: check: %v", name, err)
		}
		if _, err := b.Drill(ctx, way); err != nil {
			t.Errorf("%s: drill: %v", name, err)
		}
		for object, data := range objects(t, st, "") {
			for _, leak := range []string{"ability liquid", "able tree", masterKey[4:20], lockedPassphrase} {
				if strings.Contains(data, leak) {
					t.Errorf("%s: %q is in %s", name, leak, object)
				}
			}
		}

		p := openOnly(t, way, cfg).Preview()
		if p.Problem != nil || p.Kind != test.kind || p.Fingerprint != test.fingerprint || len(p.Addresses) != test.addresses ||
			p.PassphraseNeeded != test.needed || len(p.Warnings) > 0 {
			t.Errorf("%s: preview %s, %q, %v, needed %v, %v, %v", name, p.Kind, p.Fingerprint, p.Addresses, p.PassphraseNeeded, p.Problem, p.Warnings)
		}
		into := newDevice(t, cfg)
		c, out, err := openOnly(t, way, cfg).Restore(ctx, into, satchel.RestoreOptions{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer c.Close()
		if s := c.Status(); !out.Compared || s.Kind != test.kind || s.Fingerprint != test.fingerprint || !maps.Equal(here(t, c), here(t, b)) {
			t.Errorf("%s: restored %s, %q, compared %v", name, s.Kind, s.Fingerprint, out.Compared)
		}
		back, err := c.Keys()
		if err == nil && test.needed {
			back, err = back.WithPassphrase(secret.FromString(lockedPassphrase))
		}
		if err != nil || !back.Equal(test.keys) {
			t.Errorf("%s: got %v, or other keys", name, err)
		}
		nb, ncfg, code := rekey(t, c, into, way, false)
		if s := nb.Status(); s.Kind != test.kind || s.Fingerprint != test.fingerprint || !s.Protected {
			t.Errorf("%s: with new keys %s, %q", name, s.Kind, s.Fingerprint)
		}
		if p := openOnly(t, code, ncfg).Preview(); p.Problem != nil || p.Kind != test.kind {
			t.Errorf("%s: with new keys %s, %v", name, p.Kind, p.Problem)
		}
	}
}

// R19: a node's words can leave the cloud, too; what stays recognises them.
func TestDropNodeWords(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	keys := nodeKeys(t, nodeWords, wallet.ImportConfig{Network: wallet.Mainnet})
	b, way := createOf(t, cfg, keys, item("lightning/scb", "1"))
	words := strings.Fields(nodeWords)
	typed := map[int]secret.Bytes{}
	for _, i := range []int{3, 8, 17, 24} {
		typed[i] = secret.FromString(words[i-1])
	}
	typed[5] = secret.FromString(words[5])
	if err := b.VerifyWords(typed); !errors.Is(err, satchel.ErrWords) {
		t.Errorf("a wrong word: got %v, want ErrWords", err)
	}
	typed[5] = secret.FromString(words[4])
	if err := b.VerifyWords(typed); err != nil {
		t.Fatal(err)
	}
	nb, cfg, code := rekey(t, b, cfg, way, true)
	if k, err := nb.Keys(); err != nil || !k.Equal(keys) || !nb.Status().KeysDropped {
		t.Errorf("on this device: %v, dropped %v", err, nb.Status().KeysDropped)
	}
	for name := range objects(t, st, "") {
		if strings.Contains(name, "/items/keys/") {
			t.Errorf("still there: %s", name)
		}
	}
	o := openOnly(t, code, cfg)
	if p := o.Preview(); !p.KeysDropped || p.Kind != wallet.KindAezeed || p.Problem != nil {
		t.Errorf("preview: dropped %v, %s, %v", p.KeysDropped, p.Kind, p.Problem)
	}
	for name, other := range map[string]wallet.Keys{
		"other words of a node": nodeKeys(t, lockedWords, wallet.ImportConfig{Network: wallet.Mainnet}),
		"another network":       nodeKeys(t, nodeWords, wallet.ImportConfig{Network: wallet.Testnet}),
		"BIP 39":                newKeys(t),
		"a key":                 masterKeys(t),
	} {
		if x, _, err := o.Restore(ctx, newDevice(t, cfg), satchel.RestoreOptions{Keys: other}); x != nil || !errors.Is(err, satchel.ErrWrongWallet) {
			t.Errorf("%s: got %v, want ErrWrongWallet", name, err)
		}
	}
	c := restore(t, newDevice(t, cfg), code)
	if _, err := c.Keys(); !errors.Is(err, satchel.ErrNoItem) || here(t, c)["lightning/scb"] != "1" {
		t.Errorf("without the words: %v", err)
	}
	if err := c.KeepKeys(newKeys(t)); !errors.Is(err, satchel.ErrWrongWallet) {
		t.Errorf("got %v, want ErrWrongWallet", err)
	}
	if err := c.KeepKeys(keys); err != nil {
		t.Error(err)
	}
	e, out, err := openOnly(t, code, cfg).Restore(ctx, newDevice(t, cfg), satchel.RestoreOptions{Keys: keys})
	if err != nil || !out.Compared {
		t.Fatalf("with the words: %v, compared %v", err, out.Compared)
	}
	defer e.Close()
	if k, err := e.Keys(); err != nil || !k.Equal(keys) {
		t.Errorf("with the words: %v, or others", err)
	}
}

// A key has no words to be typed back, so it does not leave the cloud.
func TestKeyWithoutWords(t *testing.T) {
	t.Parallel()
	cfg := config(t, &mem.Store{})
	b, way := createOf(t, cfg, masterKeys(t))
	if err := b.VerifyWords(map[int]secret.Bytes{1: {}, 2: {}, 3: {}, 4: {}}); !errors.Is(err, wallet.ErrNoWords) {
		t.Errorf("got %v, want ErrNoWords", err)
	}
	code, _ := slot.NewRecoveryCode()
	if nb, _, err := unlock(t, b, way).Rekey(context.Background(), newDevice(t, cfg).Dir, satchel.RekeyPlan{Slots: []slot.Secret{code}, DropKeys: true}); nb != nil || !errors.Is(err, satchel.ErrNotWritten) {
		t.Errorf("got %v, want ErrNotWritten", err)
	}
	if _, err := unlock(t, b, way).AddSlot(context.Background(), code); err != nil {
		t.Fatal(err)
	}
	if n := b.Status().Next; n != satchel.NextSigner {
		t.Errorf("next %q, want %q", n, satchel.NextSigner)
	}
	if k, err := b.Keys(); err != nil || !strings.HasPrefix(string(k.XPrv().Open()), "tprv") {
		t.Errorf("%v, or another key", err)
	}
}

// R15: words and what stands in the place of the descriptors are compared, and a mixture
// of two wallets is told.
func TestKindsMixed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	keys := nodeKeys(t, nodeWords, wallet.ImportConfig{Network: wallet.Mainnet})
	b, way := createOf(t, cfg, keys)
	for name, other := range map[string]wallet.Keys{
		"other words": nodeKeys(t, lockedWords, wallet.ImportConfig{Network: wallet.Mainnet}), "BIP 39": newKeys(t), "a key": masterKeys(t),
	} {
		text, err := other.Text()
		if err != nil {
			t.Fatal(err)
		}
		if err := b.OwnerSave(keysOf(t, st, way), satchel.Change{Name: seal.ItemKeys, Value: text.Open(), Required: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		p := openOnly(t, way, cfg).Preview()
		if !errors.Is(p.Problem, satchel.ErrWrongWallet) || satchel.CodeOf(p.Problem) != satchel.CodeWrongWallet {
			t.Errorf("%s: got %v, want ErrWrongWallet", name, p.Problem)
		}
	}
}
