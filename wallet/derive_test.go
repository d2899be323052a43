package wallet_test

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/wallet"
)

var sinceStart time.Time

// BIP 32, test vectors 1 to 4.
func TestBIP32(t *testing.T) {
	var vectors []struct {
		Seed   string
		Chains []struct{ Path, XPub, XPrv string }
	}
	readVectors(t, "bip32.json", &vectors)
	if len(vectors) != 4 {
		t.Fatalf("got %d vectors, want 4", len(vectors))
	}
	for _, v := range vectors {
		for _, c := range v.Chains {
			var path []uint32
			for _, step := range strings.Split(c.Path, "/")[1:] {
				digits, hardened := strings.CutSuffix(step, "h")
				n, err := strconv.ParseUint(digits, 10, 31)
				if err != nil {
					t.Fatal(err)
				}
				if hardened {
					n += 1 << 31
				}
				path = append(path, uint32(n))
			}
			xpub, xprv, err := wallet.DeriveForTest(secret.New(unhex(t, v.Seed)), wallet.Mainnet, path...)
			if err != nil {
				t.Fatal(err)
			}
			if xpub != c.XPub || xprv != c.XPrv {
				t.Errorf("%s: got %s and %s, want %s and %s", c.Path, xpub, xprv, c.XPub, c.XPrv)
			}
			for _, key := range []string{xpub, xprv} {
				if err := wallet.CheckExtendedKey(key); err != nil {
					t.Errorf("%s: %v", c.Path, err)
				}
			}
		}
	}
}

// BIP 32, test vector 5: keys that must be refused.
func TestBIP32Invalid(t *testing.T) {
	var vectors []struct{ Key, Why string }
	readVectors(t, "bip32_invalid.json", &vectors)
	if len(vectors) != 16 {
		t.Fatalf("got %d vectors, want 16", len(vectors))
	}
	for _, v := range vectors {
		if err := wallet.CheckExtendedKey(v.Key); !errors.Is(err, wallet.ErrExtendedKey) {
			t.Errorf("%s: got %v, want ErrExtendedKey", v.Why, err)
		}
	}
	for _, s := range []string{"", "xpub", " ", strings.Repeat("1", 112), strings.Repeat("z", 1<<20)} {
		if err := wallet.CheckExtendedKey(s); !errors.Is(err, wallet.ErrExtendedKey) {
			t.Errorf("got %v, want ErrExtendedKey", err)
		}
	}
}

// The vectors of BIP 44, 49, 84 and 86.
func TestAccountVectors(t *testing.T) {
	for _, name := range []string{"bip44", "bip49", "bip84", "bip86"} {
		var v struct {
			Words           string
			Network         wallet.Network
			Scheme          wallet.Scheme
			XPub, XPrv      string
			SLIP132         string `json:"slip132"`
			SLIP132Private  string `json:"slip132_private"`
			Receive, Change []string
		}
		readVectors(t, name+".json", &v)
		k := importKeys(t, v.Words, wallet.ImportConfig{Network: v.Network})
		a, err := k.PrivateAccount(v.Scheme, 0)
		if err != nil {
			t.Fatal(err)
		}
		if v.XPub != "" && (a.XPub() != v.XPub || string(a.XPrv().Open()) != v.XPrv) {
			t.Errorf("%s: got %s and %s, want %s and %s", name, a.XPub(), a.XPrv().Open(), v.XPub, v.XPrv)
		}
		if v.SLIP132 != "" {
			public, err := a.SLIP132()
			if err != nil || public != v.SLIP132 {
				t.Errorf("%s: got %s, %v, want %s", name, public, err, v.SLIP132)
			}
			private, err := a.SLIP132Private()
			if err != nil || string(private.Open()) != v.SLIP132Private {
				t.Errorf("%s: got %s, %v, want %s", name, private.Open(), err, v.SLIP132Private)
			}
		}
		checkAddresses(t, a.Account, v.Receive, v.Change)
	}
}

func checkAddresses(t *testing.T, a wallet.Account, receive, change []string) {
	t.Helper()
	for i, want := range [][]string{receive, change} {
		got, err := a.Addresses(i == 1, len(want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.Transformer("list", func(l []string) string { return strings.Join(l, "\n") })); diff != "" {
			t.Errorf("%s change=%t (-want +got):\n%s", a.Path(), i == 1, diff)
		}
		for j := range want {
			if one, err := a.Address(i == 1, uint32(j)); err != nil || one != want[j] {
				t.Errorf("%s %d: got %s, %v, want %s", a.Path(), j, one, err, want[j])
			}
		}
	}
}

// Wallets made by other software: all languages, lengths, networks, kinds of
// account. SATCHEL_CROSSCHECK names a larger file of the same form.
func TestCrossCheck(t *testing.T) {
	b, err := os.ReadFile("testdata/crosscheck.json")
	if err != nil {
		t.Fatal(err)
	}
	if file := os.Getenv("SATCHEL_CROSSCHECK"); file != "" {
		if b, err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	var vectors []struct {
		Language                         wallet.Language
		Entropy, Words, Passphrase, Seed string
		Network                          wallet.Network
		Fingerprint                      string
		Number                           uint32
		Accounts                         []struct {
			Scheme            wallet.Scheme
			XPub, XPrv        string
			SLIP132           string `json:"slip132"`
			SLIP132Private    string `json:"slip132_private"`
			Receive, Change   []string
			Descriptor        string
			ChangeDescriptor  string `json:"change_descriptor"`
			Multipath         string
			PrivateDescriptor string `json:"private_descriptor"`
		}
	}
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	for i, v := range vectors {
		made, err := wallet.WordsFromEntropy(secret.New(unhex(t, v.Entropy)), v.Language)
		if err != nil {
			t.Fatal(err)
		}
		if read := parseWords(t, v.Words); !read.Equal(made) {
			t.Errorf("%d: other words", i)
		}
		k, err := wallet.Import(made, wallet.ImportConfig{Network: v.Network, Passphrase: secret.FromString(v.Passphrase), KeepPassphrase: i%2 == 0})
		if err != nil {
			t.Fatal(err)
		}
		seed, err := k.Seed()
		if err != nil || !seed.Equal(secret.New(unhex(t, v.Seed))) {
			t.Errorf("%d: got another seed, %v", i, err)
		}
		if k.Fingerprint() != v.Fingerprint {
			t.Errorf("%d: got fingerprint %s, want %s", i, k.Fingerprint(), v.Fingerprint)
		}
		d, err := k.Descriptors(v.Number)
		if err != nil {
			t.Fatal(err)
		}
		for j, want := range v.Accounts {
			a, err := k.PrivateAccount(want.Scheme, v.Number)
			if err != nil {
				t.Fatal(err)
			}
			public, err := a.SLIP132()
			if (want.SLIP132 == "") != errors.Is(err, wallet.ErrNoSLIP132) {
				t.Errorf("%d %s: got %v", i, want.Scheme, err)
			}
			private, _ := a.SLIP132Private()
			got := []string{a.XPub(), string(a.XPrv().Open()), public, string(private.Open()), a.Descriptor(false), a.Descriptor(true), a.Multipath(),
				string(a.PrivateDescriptor(false).Open())}
			if diff := cmp.Diff([]string{want.XPub, want.XPrv, want.SLIP132, want.SLIP132Private, want.Descriptor, want.ChangeDescriptor, want.Multipath, want.PrivateDescriptor}, got); diff != "" {
				t.Errorf("%d %s (-want +got):\n%s", i, want.Scheme, diff)
			}
			checkAddresses(t, a.Account, want.Receive, want.Change)
			if d.Accounts()[j] != a.Account {
				t.Errorf("%d: account %d of the descriptors is not %s", i, j, want.Scheme)
			}
			for _, key := range got[:4] {
				if key != "" && wallet.CheckExtendedKey(key) != nil {
					t.Errorf("%d %s: refused our own key", i, want.Scheme)
				}
			}
			for _, s := range append(got[4:], string(a.PrivateMultipath().Open()), string(a.PrivateDescriptor(true).Open())) {
				if err := wallet.CheckDescriptor(s); err != nil {
					t.Errorf("%d %s: %v", i, want.Scheme, err)
				}
			}
		}
	}
}

func TestDeriveLimits(t *testing.T) {
	k := importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet})
	if _, err := k.Account("bip99", 0); !errors.Is(err, wallet.ErrScheme) {
		t.Errorf("got %v, want ErrScheme", err)
	}
	if _, err := k.Account(wallet.BIP84, wallet.MaxIndex+1); !errors.Is(err, wallet.ErrIndex) {
		t.Errorf("got %v, want ErrIndex", err)
	}
	a, err := k.Account(wallet.BIP84, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Path(); got != "m/84h/0h/0h" {
		t.Errorf("got path %s, want m/84h/0h/0h", got)
	}
	if _, err := a.Address(false, wallet.MaxIndex+1); !errors.Is(err, wallet.ErrIndex) {
		t.Errorf("got %v, want ErrIndex", err)
	}
	for _, n := range []int{-1, 10_001} {
		if _, err := a.Addresses(false, n); !errors.Is(err, wallet.ErrIndex) {
			t.Errorf("%d addresses: got %v, want ErrIndex", n, err)
		}
	}
	var zero wallet.Account
	if _, err := zero.Address(false, 0); !errors.Is(err, wallet.ErrNoKeys) {
		t.Errorf("got %v, want ErrNoKeys", err)
	}
	if zero.Descriptor(false) != "" || zero.Multipath() != "" || !(wallet.PrivateAccount{}).PrivateMultipath().Empty() {
		t.Error("a descriptor out of nothing")
	}
}
