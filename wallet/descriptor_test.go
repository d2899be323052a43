package wallet_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/wallet"
)

// BIP 380: the checksum vectors, valid and invalid.
func TestBIP380(t *testing.T) {
	var vectors []struct {
		Name, Descriptor string
		Valid            bool
	}
	readVectors(t, "bip380.json", &vectors)
	if len(vectors) != 8 {
		t.Fatalf("got %d vectors, want 8", len(vectors))
	}
	for _, v := range vectors {
		err := wallet.CheckDescriptor(v.Descriptor)
		if (err == nil) != v.Valid {
			t.Errorf("%s: got %v, want valid %t", v.Name, err, v.Valid)
		}
		if err != nil && !errors.Is(err, wallet.ErrDescriptor) && !errors.Is(err, wallet.ErrDescriptorChecksum) {
			t.Errorf("%s: got %v", v.Name, err)
		}
	}
	if _, err := wallet.DescriptorChecksum(strings.Repeat("0", wallet.MaxDescriptor+1)); !errors.Is(err, wallet.ErrDescriptor) {
		t.Errorf("got %v, want ErrDescriptor", err)
	}
}

// Any single wrong character is found.
func TestDescriptorTypo(t *testing.T) {
	const good = "raw(deadbeef)#89f8spxm"
	for i := range len(good) {
		for c := byte(0x20); c < 0x7f; c++ {
			b := []byte(good)
			b[i] = c
			if err := wallet.CheckDescriptor(string(b)); (err == nil) != (string(b) == good) {
				t.Errorf("%s: got %v", b, err)
			}
		}
	}
}

func descriptors(t testing.TB, words string, n wallet.Network, passphrase string, account uint32) wallet.Descriptors {
	t.Helper()
	d, err := importKeys(t, words, wallet.ImportConfig{Network: n, Passphrase: secret.FromString(passphrase)}).Descriptors(account)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func descriptorsText(t testing.TB, d wallet.Descriptors) string {
	t.Helper()
	b, err := d.Text()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The file of version 1, to be opened for ever.
func TestDescriptorsFile(t *testing.T) {
	d := descriptors(t, abandon, wallet.Mainnet, "", 0)
	const file = "testdata/descriptors_v1.json"
	if os.Getenv("SATCHEL_WRITE_VECTORS") != "" {
		if err := os.WriteFile(file, []byte(descriptorsText(t, d)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(b), descriptorsText(t, d)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got, err := wallet.ParseDescriptors(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Compare(d); err != nil {
		t.Error(err)
	}
	var form struct {
		Version     int `json:"satchel-descriptors"`
		Network     string
		Fingerprint string
		Descriptors []struct {
			Descriptor, Type string
			Change           bool
			First            []string
		}
	}
	if err := json.Unmarshal(b, &form); err != nil {
		t.Fatal(err)
	}
	if form.Version != 1 || form.Network != "mainnet" || form.Fingerprint != "73c5da0a" || len(form.Descriptors) != 8 {
		t.Errorf("got %+v", form)
	}
	for i, e := range form.Descriptors {
		if e.Change != (i%2 == 1) || e.Type != string(wallet.Schemes()[i/2]) || len(e.First) != wallet.FirstAddresses {
			t.Errorf("got %+v", e)
		}
	}
}

func TestDescriptorsRoundTrip(t *testing.T) {
	for _, n := range []wallet.Network{wallet.Mainnet, wallet.Testnet, wallet.Signet, wallet.Regtest} {
		for _, account := range []uint32{0, 1, wallet.MaxIndex} {
			d := descriptors(t, abandon, n, "", account)
			got, err := wallet.ParseDescriptors([]byte(descriptorsText(t, d)))
			if err != nil {
				t.Errorf("%s, account %d: %v", n, account, err)
				continue
			}
			if err := d.Compare(got); err != nil {
				t.Error(err)
			}
			if got.Network() != n || got.Number() != account || got.Fingerprint() != "73c5da0a" {
				t.Errorf("got %s, account %d, %s", got.Network(), got.Number(), got.Fingerprint())
			}
		}
	}
}

// R15, R18: a watching wallet is never pointed at other addresses.
func TestParseDescriptorsRefuses(t *testing.T) {
	good := descriptorsText(t, descriptors(t, abandon, wallet.Mainnet, "", 0))
	thief := descriptors(t, abandon, wallet.Mainnet, "thief", 0)
	mine := descriptors(t, abandon, wallet.Mainnet, "", 0)
	change := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in the text", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	stolen, err := thief.Accounts()[0].Address(false, 0)
	if err != nil {
		t.Fatal(err)
	}
	second := mine.Accounts()[0].Descriptor(true)
	for name, test := range map[string]struct {
		text string
		want error
	}{
		"empty":               {"", wallet.ErrDamaged},
		"not JSON":            {"# hello", wallet.ErrDamaged},
		"null":                {"null", wallet.ErrDamaged},
		"no version":          {"{}", wallet.ErrDamaged},
		"newer":               {change(`descriptors": 1`, `descriptors": 3`), wallet.ErrNewer},
		"of other kinds":      {change(`descriptors": 1`, `descriptors": 2`), wallet.ErrDamaged},
		"newer, other shape":  {`{"satchel-descriptors":7,"network":[]}`, wallet.ErrNewer},
		"version as string":   {change(`descriptors": 1`, `descriptors": "1"`), wallet.ErrDamaged},
		"version zero":        {change(`descriptors": 1`, `descriptors": 0`), wallet.ErrDamaged},
		"thief's address":     {change("bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu", stolen), wallet.ErrDamaged},
		"thief's descriptor":  {change(second, strings.Replace(thief.Accounts()[0].Descriptor(true), "", "", 1)), wallet.ErrDamaged},
		"thief's key":         {change(mine.Accounts()[0].Descriptor(false), thief.Accounts()[0].Descriptor(false)), wallet.ErrDamaged},
		"wrong checksum":      {change(second, second[:len(second)-1]+"!"), wallet.ErrDescriptorChecksum},
		"other network":       {change(`"mainnet"`, `"testnet"`), wallet.ErrDamaged},
		"unknown network":     {change(`"mainnet"`, `"litecoin"`), wallet.ErrNetwork},
		"wrong fingerprint":   {change(`"73c5da0a"`, `"73c5da0b"`), wallet.ErrDamaged},
		"fingerprint no hex":  {change(`"73c5da0a"`, `"73c5da0x"`), wallet.ErrDamaged},
		"other type":          {change(`"bip84"`, `"bip86"`), wallet.ErrDamaged},
		"unknown field":       {change(`"network"`, `"x": 1, "network"`), wallet.ErrDamaged},
		"twice":               {change(`"network"`, `"network": "mainnet", "network"`), wallet.ErrDamaged},
		"change":              {change(`"change": false`, `"change": true`), wallet.ErrDamaged},
		"too many":            {change("\n  ]\n}", ",\n    {}\n  ]\n}"), wallet.ErrDamaged},
		"other space":         {change("  ", " "), wallet.ErrDamaged},
		"trailing":            {good + "\n", wallet.ErrDamaged},
		"no end":              {strings.TrimSuffix(good, "\n"), wallet.ErrDamaged},
		"too long":            {good + strings.Repeat(" ", wallet.MaxDescriptorsText), wallet.ErrDamaged},
		"private descriptors": {privateText(t, good), wallet.ErrDamaged},
	} {
		_, err := wallet.ParseDescriptors([]byte(test.text))
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

// privateText puts private descriptors, with good checksums, in the place of
// public ones.
func privateText(t *testing.T, text string) string {
	k := importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet})
	for _, s := range wallet.Schemes() {
		a, err := k.PrivateAccount(s, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range []bool{false, true} {
			text = strings.Replace(text, a.Descriptor(change), string(a.PrivateDescriptor(change).Open()), 1)
		}
	}
	return text
}

// R15: after a restore fingerprint and first addresses are compared, and the
// error names what differs.
func TestCompare(t *testing.T) {
	d := descriptors(t, abandon, wallet.Mainnet, "", 0)
	for name, test := range map[string]struct {
		other wallet.Descriptors
		says  string
	}{
		"network":     {descriptors(t, abandon, wallet.Testnet, "", 0), "mainnet"},
		"networks":    {descriptors(t, abandon, wallet.Signet, "", 0), "signet"},
		"fingerprint": {descriptors(t, abandon, wallet.Mainnet, "TREZOR", 0), "fingerprint"},
		"account":     {descriptors(t, abandon, wallet.Mainnet, "", 1), "account 1"},
		"nothing":     {wallet.Descriptors{}, "no descriptors"},
	} {
		err := d.Compare(test.other)
		if !errors.Is(err, wallet.ErrOtherWallet) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v, want ErrOtherWallet naming %q", name, err, test.says)
		}
		if err := test.other.Compare(d); !errors.Is(err, wallet.ErrOtherWallet) {
			t.Errorf("%s, the other way round: got %v", name, err)
		}
	}
	if err := (wallet.Descriptors{}).Compare(wallet.Descriptors{}); !errors.Is(err, wallet.ErrOtherWallet) {
		t.Errorf("nothing and nothing: got %v, want ErrOtherWallet", err)
	}

	// The same fingerprint with other keys, as a forger would make it.
	other := descriptorsText(t, descriptors(t, abandon, wallet.Mainnet, "TREZOR", 0))
	forged := forge(t, other, "73c5da0a")
	if err := d.Compare(forged); !errors.Is(err, wallet.ErrOtherWallet) || !strings.Contains(err.Error(), "bip84 receive address 0") {
		t.Errorf("got %v, want ErrOtherWallet naming the address", err)
	}

	k := importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet})
	for _, account := range []uint32{0, 5} {
		if err := k.Matches(descriptors(t, abandon, wallet.Mainnet, "", account)); err != nil {
			t.Error(err)
		}
	}
	for _, wrong := range []wallet.Descriptors{forged, {}, descriptors(t, abandon, wallet.Regtest, "", 0)} {
		if err := k.Matches(wrong); !errors.Is(err, wallet.ErrOtherWallet) {
			t.Errorf("got %v, want ErrOtherWallet", err)
		}
	}
	// Without its passphrase a wallet still knows that others are others.
	needed, err := parseKeys(keysText(t, importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: secret.FromString("p")})))
	if err != nil {
		t.Fatal(err)
	}
	if err := needed.Matches(d); !errors.Is(err, wallet.ErrOtherWallet) {
		t.Errorf("got %v, want ErrOtherWallet", err)
	}
}

// forge replaces the fingerprint and mends the checksums.
func forge(t *testing.T, text, fingerprint string) wallet.Descriptors {
	t.Helper()
	var form struct {
		Fingerprint string
		Descriptors []struct{ Descriptor string }
	}
	if err := json.Unmarshal([]byte(text), &form); err != nil {
		t.Fatal(err)
	}
	for _, e := range form.Descriptors {
		body, _, _ := strings.Cut(strings.Replace(e.Descriptor, form.Fingerprint, fingerprint, 1), "#")
		sum, err := wallet.DescriptorChecksum(body)
		if err != nil {
			t.Fatal(err)
		}
		text = strings.Replace(text, e.Descriptor, body+"#"+sum, 1)
	}
	d, err := wallet.ParseDescriptors([]byte(strings.Replace(text, form.Fingerprint, fingerprint, 1)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestCoreImport(t *testing.T) {
	type request struct {
		Desc      string
		Timestamp int64
		Active    bool
		Internal  bool
		Range     [2]int
	}
	k := importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet})
	d, err := k.Descriptors(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		since time.Time
		want  int64
	}{{sinceStart, 0}, {time.Unix(1_790_000_000, 0), 1_790_000_000}, {time.Unix(-5, 0), 0}} {
		public, err := d.CoreImport(test.since)
		if err != nil {
			t.Fatal(err)
		}
		private, err := k.CoreImport(0, test.since)
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range [][]byte{public, private.Open()} {
			var got, want []request
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			for _, s := range wallet.Schemes() {
				a, err := k.PrivateAccount(s, 0)
				if err != nil {
					t.Fatal(err)
				}
				for _, change := range []bool{false, true} {
					desc := a.Descriptor(change)
					if i == 1 {
						desc = string(a.PrivateDescriptor(change).Open())
					}
					want = append(want, request{desc, test.want, true, change, [2]int{0, 999}})
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	}
	if _, err := (wallet.Descriptors{}).CoreImport(sinceStart); !errors.Is(err, wallet.ErrNoKeys) {
		t.Errorf("got %v, want ErrNoKeys", err)
	}
	if _, err := (wallet.Descriptors{}).Text(); !errors.Is(err, wallet.ErrNoKeys) {
		t.Errorf("got %v, want ErrNoKeys", err)
	}
}

func FuzzCheckDescriptor(f *testing.F) {
	f.Add("raw(deadbeef)#89f8spxm")
	f.Add("raw(deadbeef)")
	f.Add("#########")
	f.Fuzz(func(t *testing.T, s string) {
		sum, err := wallet.DescriptorChecksum(s)
		if err == nil {
			if err := wallet.CheckDescriptor(s + "#" + sum); err != nil {
				t.Errorf("refused our own checksum: %v", err)
			}
			if len(s) > wallet.MaxDescriptor {
				t.Error("over the limit")
			}
		}
		if err := wallet.CheckDescriptor(s); err == nil {
			at := strings.LastIndexByte(s, '#')
			if sum, err := wallet.DescriptorChecksum(s[:at]); err != nil || s[at+1:] != sum {
				t.Errorf("accepted checksum %q, want %q, %v", s[at+1:], sum, err)
			}
		}
	})
}

func FuzzCheckExtendedKey(f *testing.F) {
	f.Add("xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8YtGqsefD265TMg7usUDFdp6W1EGMcet8")
	f.Fuzz(func(t *testing.T, s string) {
		if err := wallet.CheckExtendedKey(s); err != nil && !errors.Is(err, wallet.ErrExtendedKey) {
			t.Errorf("got %v, want ErrExtendedKey", err)
		}
	})
}

func FuzzParseDescriptors(f *testing.F) {
	b, err := os.ReadFile("testdata/descriptors_v1.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := wallet.ParseDescriptors(b)
		if err != nil {
			if !errors.Is(err, wallet.ErrDamaged) && !errors.Is(err, wallet.ErrNewer) {
				t.Errorf("got %v, want ErrDamaged or ErrNewer", err)
			}
			return
		}
		if got := descriptorsText(t, d); got != string(b) {
			t.Errorf("got %q, want %q", got, b)
		}
	})
}
