package wallet_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/wallet"
)

const date = "2026-11-23"

func importKeys(t testing.TB, words string, c wallet.ImportConfig) wallet.Keys {
	t.Helper()
	k, err := wallet.Import(parseWords(t, words), c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keysText(t testing.TB, k wallet.Keys) string {
	t.Helper()
	text, err := k.Text()
	if err != nil {
		t.Fatal(err)
	}
	return string(text.Open())
}

func parseKeys(text string) (wallet.Keys, error) { return wallet.ParseKeys(secret.FromString(text)) }

// The files of version 1, to be opened for ever. SATCHEL_WRITE_VECTORS makes
// them; they must not change afterwards.
func TestKeysFiles(t *testing.T) {
	japanese := "あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あおぞら"
	for name, k := range map[string]wallet.Keys{
		"keys_v1_plain":    importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet, Made: date}),
		"keys_v1_undated":  importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Regtest}),
		"keys_v1_needed":   importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Signet, Made: date, Passphrase: secret.FromString("TREZOR")}),
		"keys_v1_kept":     importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Testnet, Made: date, Passphrase: secret.FromString(" a\"\\\n\u200b😀é "), KeepPassphrase: true}),
		"keys_v1_japanese": importKeys(t, japanese, wallet.ImportConfig{Network: wallet.Mainnet, Made: date, Passphrase: secret.FromString("㍍ガバヴァぱばぐゞちぢ十人十色"), KeepPassphrase: true}),

		"keys_v2_aezeed":        importAezeed(t, aezeed, wallet.ImportConfig{Network: wallet.Mainnet, Made: date}),
		"keys_v2_aezeed_kept":   importAezeed(t, aezeedLocked, wallet.ImportConfig{Network: wallet.Regtest, Passphrase: secret.FromString(aezeedPassphrase), KeepPassphrase: true}),
		"keys_v2_aezeed_needed": importAezeed(t, aezeedLocked, wallet.ImportConfig{Network: wallet.Signet, Made: date, Passphrase: secret.FromString(aezeedPassphrase)}),
		"keys_v2_xprv":          importXPrv(t, xprv, wallet.ImportConfig{Network: wallet.Mainnet, Made: date}),
		"keys_v2_tprv":          importXPrv(t, tprv, wallet.ImportConfig{Network: wallet.Regtest}),
	} {
		file := "testdata/" + name + ".txt"
		if os.Getenv("SATCHEL_WRITE_VECTORS") != "" {
			if err := os.WriteFile(file, []byte(keysText(t, k)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := keysText(t, k); got != string(b) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, b)
		}
		got, err := wallet.ParseKeys(secret.New(b))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if k.PassphraseState() == wallet.NeededPassphrase {
			if got, err = got.WithPassphrase(k.Passphrase()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if !got.Equal(k) {
			t.Errorf("%s: read other keys", name)
		}
	}
}

// The length hides how many words there are, in every language.
func TestKeysTextLength(t *testing.T) {
	for _, l := range wallet.Languages() {
		for _, size := range []int{16, 20, 24, 28, 32} {
			for _, n := range []wallet.Network{wallet.Mainnet, wallet.Testnet} {
				w, err := wallet.WordsFromEntropy(secret.Random(size), l)
				if err != nil {
					t.Fatal(err)
				}
				k, err := wallet.Import(w, wallet.ImportConfig{Network: n, Made: date})
				if err != nil {
					t.Fatal(err)
				}
				if got := len(keysText(t, k)); got != 2048 {
					t.Errorf("%s, %d bytes of entropy: the text has %d bytes, want 2048", l, size, got)
				}
			}
		}
	}
	longest := strings.Repeat("\x00", wallet.MaxPassphrase)
	k := importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: secret.FromString(longest), KeepPassphrase: true})
	text := keysText(t, k)
	if len(text) > wallet.MaxKeysText || len(text)%1024 != 0 {
		t.Errorf("the longest text has %d bytes", len(text))
	}
	if got, err := parseKeys(text); err != nil || !got.Equal(k) {
		t.Errorf("got %v, or other keys", err)
	}
}

// R15, R18: nothing that Text would not write is taken.
func TestParseKeysRefuses(t *testing.T) {
	good := keysText(t, importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet, Made: date}))
	needed := keysText(t, importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet, Made: date, Passphrase: secret.FromString("p")}))
	kept := keysText(t, importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet, Made: date, Passphrase: secret.FromString("p"), KeepPassphrase: true}))
	change := func(text, old, new string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("no %q in the text", old)
		}
		return strings.Replace(text, old, new, 1)
	}
	tests := map[string]struct {
		text string
		want error
	}{
		"empty":                  {"", wallet.ErrDamaged},
		"comment only":           {"# hello", wallet.ErrDamaged},
		"newer":                  {change(good, "satchel-keys: 1\n", "satchel-keys: 3\n"), wallet.ErrNewer},
		"version of other kinds": {change(good, "satchel-keys: 1\n", "satchel-keys: 2\n"), wallet.ErrDamaged},
		"kind in version 1":      {change(good, "satchel-keys: 1\n", "satchel-keys: 1\nkind: bip39\n"), wallet.ErrDamaged},
		"kind in version 2":      {change(good, "satchel-keys: 1\n", "satchel-keys: 2\nkind: bip39\n"), wallet.ErrDamaged},
		"much newer":             {"# other\nsatchel-keys: 999\nanything", wallet.ErrNewer},
		"version zero":           {change(good, "satchel-keys: 1\n", "satchel-keys: 0\n"), wallet.ErrDamaged},
		"version 01":             {change(good, "satchel-keys: 1\n", "satchel-keys: 02\n"), wallet.ErrDamaged},
		"huge version":           {change(good, "satchel-keys: 1\n", "satchel-keys: 99999999999999999999\n"), wallet.ErrDamaged},
		"other comment":          {change(good, "Keep this secret", "Keep this Secret"), wallet.ErrDamaged},
		"no comment":             {good[strings.Index(good, "satchel-keys"):], wallet.ErrDamaged},
		"wrong fingerprint":      {change(good, "73c5da0a", "73c5da0b"), wallet.ErrOtherWallet},
		"kept fingerprint":       {change(kept, `"p"`, `"q"`), wallet.ErrOtherWallet},
		"upper case":             {change(good, "73c5da0a", "73C5DA0A"), wallet.ErrDamaged},
		"bad hex":                {change(needed, "fingerprint: ", "fingerprint: x"), wallet.ErrDamaged},
		"wrong checksum":         {change(good, "abandon about", "abandon abandon"), wallet.ErrWords},
		"unknown word":           {change(good, "about\n", "aboot\n"), wallet.ErrWords},
		"two spaces":             {change(good, "abandon about", "abandon  about"), wallet.ErrDamaged},
		"capital":                {change(good, "abandon about", "abandon About"), wallet.ErrDamaged},
		"unknown network":        {change(good, "network: mainnet", "network: litecoin"), wallet.ErrNetwork},
		"network of others":      {change(good, "network: mainnet", "network: testnet"), wallet.ErrDamaged},
		"bad date":               {change(good, date, "2026-13-23"), wallet.ErrDate},
		"empty date":             {change(good, date, ""), wallet.ErrDamaged},
		"unknown line":           {change(good, "words: ", "color: blue\nwords: "), wallet.ErrDamaged},
		"line after":             {change(good, "about\n", "about\nx: y\n"), wallet.ErrDamaged},
		"twice":                  {change(good, "network: mainnet\n", "network: mainnet\nnetwork: mainnet\n"), wallet.ErrDamaged},
		"no padding":             {good[strings.Index(good, "\n")+1:], wallet.ErrDamaged},
		"one byte less":          {good[:len(good)-1], wallet.ErrDamaged},
		"one byte more":          {good + "\n", wallet.ErrDamaged},
		"one block more":         {"#" + strings.Repeat(" ", 1024) + good[1:], wallet.ErrDamaged},
		"padding of other":       {"#-" + good[2:], wallet.ErrDamaged},
		"line feeds after":       {good + strings.Repeat("\n", 1024), wallet.ErrDamaged},
		"carriage returns":       {strings.ReplaceAll(good, "\n", "\r\n"), wallet.ErrDamaged},
		"too long":               {good + strings.Repeat("\n", wallet.MaxKeysText), wallet.ErrDamaged},
		"needed: no":             {change(needed, "needed: yes", "needed: no"), wallet.ErrDamaged},
		"needed, no longer":      {change(needed, "bip39-passphrase-needed: yes\n", "\n"), wallet.ErrOtherWallet},
		"other JSON":             {change(kept, `"p"`, `"\u0070"`), wallet.ErrDamaged},
		"not a JSON string":      {change(kept, `"p"`, `{"p"}`), wallet.ErrDamaged},
		"empty passphrase":       {change(kept, `"p"`, `""`), wallet.ErrDamaged},
		"null passphrase":        {change(kept, `"p"`, `null`), wallet.ErrDamaged},
		"long passphrase":        {change(kept, `"p"`, `"`+strings.Repeat("p", wallet.MaxPassphrase+1)+`"`), wallet.ErrBadPassphrase},
		"lone surrogate":         {change(kept, `"p"`, `"\ud800"`), wallet.ErrDamaged},
		"passphrase is wrapped":  {change(kept, `"p"`, ` "p"`), wallet.ErrDamaged},
	}
	for name, test := range tests {
		_, err := parseKeys(test.text)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
		if newer := errors.Is(test.want, wallet.ErrNewer); errors.Is(err, wallet.ErrDamaged) == newer {
			t.Errorf("%s: got %v: damaged and newer are not the same", name, err)
		}
	}
	// A flipped bit anywhere is found, except in the date, of which nothing
	// else knows.
	from := strings.Index(good, date)
	pad := strings.Index(good, "\n")
	for i := range len(good) {
		if from <= i && i < from+len(date) || 16 < i && i < pad-16 { // One space is like another.
			continue
		}
		b := []byte(good)
		b[i] ^= 1
		if _, err := wallet.ParseKeys(secret.New(b)); err == nil {
			t.Errorf("byte %d changed: accepted", i)
		}
	}
}

// Every character survives the text form, whatever Unicode says of it.
func TestPassphraseRoundTrip(t *testing.T) {
	var chunk []rune
	flush := func() {
		if len(chunk) == 0 {
			return
		}
		k := importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: secret.FromString(string(chunk)), KeepPassphrase: true})
		got, err := parseKeys(keysText(t, k))
		if err != nil || !got.Equal(k) {
			t.Errorf("U+%04X to U+%04X: got %v, or other keys", chunk[0], chunk[len(chunk)-1], err)
		}
		chunk = chunk[:0]
	}
	for r := rune(0); r <= 0x10ffff; r++ {
		if r == 0xd800 {
			r = 0xe000
		}
		if r == 0x3400 || r == 0x10500 {
			flush()
		}
		// Every character of the parts that hold odd ones, then a sample.
		if r < 0x3400 || r >= 0xf000 && r < 0x10500 || r%997 == 0 {
			chunk = append(chunk, r)
		}
		if len(chunk) == 250 {
			flush()
		}
	}
	flush()
}

// R15: a passphrase that was not kept is needed, and a wrong one is noticed.
func TestPassphraseNeeded(t *testing.T) {
	right := secret.FromString("é correct")
	made := importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: right})
	text := keysText(t, made)
	if strings.Contains(text, "correct") {
		t.Error("the text contains a passphrase that is not kept")
	}
	k, err := parseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := k.PassphraseState(); got != wallet.NeededPassphrase {
		t.Errorf("got state %v, want needed", got)
	}
	if k.Fingerprint() != made.Fingerprint() || k.Fingerprint() == "73c5da0a" {
		t.Errorf("got fingerprint %s, want that of the wallet with its passphrase", k.Fingerprint())
	}
	d, err := made.Descriptors(0)
	if err != nil {
		t.Fatal(err)
	}
	_, seed := k.Seed()
	_, slot := k.SlotSecret()
	_, account := k.Account(wallet.BIP84, 0)
	_, private := k.PrivateAccount(wallet.BIP84, 0)
	_, descriptors := k.Descriptors(0)
	for what, err := range map[string]error{
		"Seed": seed, "SlotSecret": slot, "Account": account, "PrivateAccount": private, "Descriptors": descriptors, "Matches": k.Matches(d),
	} {
		if !errors.Is(err, wallet.ErrPassphraseNeeded) {
			t.Errorf("%s: got %v, want ErrPassphraseNeeded", what, err)
		}
	}
	for _, wrong := range []string{"", "correct", "e correct", "é correct "} {
		if _, err := k.WithPassphrase(secret.FromString(wrong)); !errors.Is(err, wallet.ErrPassphrase) {
			t.Errorf("a wrong passphrase: got %v, want ErrPassphrase", err)
		}
	}
	full, err := k.WithPassphrase(secret.FromString("e\u0301 correct")) // NFD
	if err != nil {
		t.Fatal(err)
	}
	if err := full.Matches(d); err != nil {
		t.Error(err)
	}
	if keysText(t, full) != text {
		t.Error("supplying the passphrase changed the text")
	}
	if _, err := importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet}).WithPassphrase(right); !errors.Is(err, wallet.ErrPassphrase) {
		t.Errorf("a passphrase where there is none: got %v, want ErrPassphrase", err)
	}
}

func TestNewAndImport(t *testing.T) {
	k, err := wallet.New(wallet.Signet, 24, date)
	if err != nil {
		t.Fatal(err)
	}
	if k.Words().Count() != 24 || k.Network() != wallet.Signet || k.Made() != date || k.PassphraseState() != wallet.NoPassphrase {
		t.Errorf("got %d words, %s, %s, %s", k.Words().Count(), k.Network(), k.Made(), k.PassphraseState())
	}
	again, err := parseKeys(keysText(t, k))
	if err != nil || !again.Equal(k) {
		t.Errorf("got %v, or other keys", err)
	}
	other, err := wallet.New(wallet.Signet, 24, date)
	if err != nil || other.Equal(k) {
		t.Errorf("got %v, or the same keys twice", err)
	}
	if got := importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet}).Fingerprint(); got != "73c5da0a" {
		t.Errorf("got fingerprint %s, want 73c5da0a", got)
	}

	w := parseWords(t, abandon)
	for name, test := range map[string]struct {
		words wallet.Words
		c     wallet.ImportConfig
		want  error
	}{
		"no words":        {wallet.Words{}, wallet.ImportConfig{Network: wallet.Mainnet}, wallet.ErrNoKeys},
		"no network":      {w, wallet.ImportConfig{}, wallet.ErrNetwork},
		"bad date":        {w, wallet.ImportConfig{Network: wallet.Mainnet, Made: "23.11.2026"}, wallet.ErrDate},
		"long passphrase": {w, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: secret.New(make([]byte, wallet.MaxPassphrase+1))}, wallet.ErrBadPassphrase},
		"bad passphrase":  {w, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: secret.FromString("\xff")}, wallet.ErrBadPassphrase},
	} {
		if _, err := wallet.Import(test.words, test.c); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
	if _, err := wallet.ParseNetwork("Mainnet"); !errors.Is(err, wallet.ErrNetwork) {
		t.Errorf("got %v, want ErrNetwork", err)
	}
}

// The zero value is no wallet, and says so.
func TestZeroKeys(t *testing.T) {
	var k wallet.Keys
	_, text := k.Text()
	_, seed := k.Seed()
	_, slot := k.SlotSecret()
	_, account := k.Account(wallet.BIP84, 0)
	_, with := k.WithPassphrase(secret.Bytes{})
	for what, err := range map[string]error{"Text": text, "Seed": seed, "SlotSecret": slot, "Account": account, "WithPassphrase": with} {
		if !errors.Is(err, wallet.ErrNoKeys) {
			t.Errorf("%s: got %v, want ErrNoKeys", what, err)
		}
	}
	if !k.Words().Display().Empty() {
		t.Error("words out of nothing")
	}
	if err := k.Matches(wallet.Descriptors{}); err == nil {
		t.Error("nothing matches nothing")
	}
}

// The slot secret is part of the backup format: HKDF-SHA256 (RFC 5869) of the
// BIP 39 seed, computed here from the definition by another program (Python).
func TestSlotSecret(t *testing.T) {
	for _, test := range []struct{ passphrase, want string }{
		{"", "b37615e2d1b39e869077cac986801b98e04cb99fbbf01de571c0dd27f23875a8"},
		{"TREZOR", "6ca1fad6cf30487a85adcd5b2c9aad7ee4580e7526bc8234435c5a29c52a048a"},
	} {
		k := importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: secret.FromString(test.passphrase)})
		got, err := k.SlotSecret()
		if err != nil {
			t.Fatal(err)
		}
		if !got.Equal(secret.New(unhex(t, test.want))) {
			t.Errorf("passphrase %q: got %x, want %s", test.passphrase, got.Open(), test.want)
		}
	}
}

// Using keys does not use them up: nothing that is kept is wiped on the way.
func TestKeysSurviveUse(t *testing.T) {
	for _, pass := range []string{"", "TREZOR", "é"} {
		k := importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: secret.FromString(pass), KeepPassphrase: true})
		before, err := k.Seed()
		if err != nil {
			t.Fatal(err)
		}
		k.Words().Display().Wipe()
		for range 2 {
			if _, err := k.SlotSecret(); err != nil {
				t.Fatal(err)
			}
			if _, err := k.CoreImport(0, sinceStart); err != nil {
				t.Fatal(err)
			}
			keysText(t, k)
		}
		after, err := k.Seed()
		if err != nil || !after.Equal(before) || string(k.Words().Sentence().Open()) != abandon || string(k.Passphrase().Open()) != pass {
			t.Errorf("passphrase %q: the keys have changed", pass)
		}
	}
}

// R19: no error and no way of printing shows words, entropy, seed, passphrase
// or private key.
func TestNothingLeaks(t *testing.T) {
	const words, entropy, pass = "legal winner thank year wave sausage worth useful legal winner thank yellow", "7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f", "hunter2secret"
	k := importKeys(t, words, wallet.ImportConfig{Network: wallet.Mainnet, Made: date, Passphrase: secret.FromString(pass), KeepPassphrase: true})
	seed, err := k.Seed()
	if err != nil {
		t.Fatal(err)
	}
	slot, err := k.SlotSecret()
	if err != nil {
		t.Fatal(err)
	}
	leaks := append(strings.Fields(words), pass, entropy, "127 127 127",
		fmt.Sprintf("%x", seed.Open()), fmt.Sprintf("%x", slot.Open()), fmt.Sprintf("%x", pass), fmt.Sprintf("%x", words),
		strings.Trim(fmt.Sprint(seed.Open()[:4]), "[]"), strings.Trim(fmt.Sprint([]byte(pass)[:4]), "[]"),
		"xprv9", "yprv", "zprv", "tprv")
	var values []any
	for _, s := range wallet.Schemes() {
		a, err := k.PrivateAccount(s, 0)
		if err != nil {
			t.Fatal(err)
		}
		leaks = append(leaks, string(a.XPrv().Open()))
		values = append(values, a, &a, a.Account, a.XPrv(), a.PrivateDescriptor(false), a.PrivateMultipath())
	}
	d, err := k.Descriptors(0)
	if err != nil {
		t.Fatal(err)
	}
	core, err := k.CoreImport(0, sinceStart)
	if err != nil {
		t.Fatal(err)
	}
	text, err := k.Text()
	if err != nil {
		t.Fatal(err)
	}
	w := k.Words()
	values = append(values, k, &k, w, &w, w.Display(), w.Sentence(), d, &d, core, text, seed, slot, k.Passphrase(),
		wallet.ImportConfig{Passphrase: k.Passphrase()}, []wallet.Keys{k}, map[string]wallet.Words{"w": w}, struct{ K wallet.Keys }{k})

	// Every way in, with texts that are nearly right.
	full := string(text.Open())
	addError := func(err error) {
		t.Helper()
		if err == nil {
			t.Error("accepted what should be refused")
		}
		values = append(values, err)
	}
	for _, bad := range []string{words + " legal", strings.ToUpper(words) + "x", "winner " + words[6:], words[:20]} {
		_, err := wallet.ParseWords(secret.FromString(bad))
		addError(err)
	}
	for _, change := range [][2]string{{"legal", "winner"}, {"sausage", "sausagex"}, {pass, pass + "x"}, {pass, pass + `\`}, {date, "hunter2secret"},
		{"mainnet", "hunter2secret"}, {"fingerprint: ", "fingerprint: hunter2secret"}, {"satchel-keys: 1", "satchel-keys: hunter2secret"}} {
		_, err := parseKeys(strings.Replace(full, change[0], change[1], 1))
		addError(err)
	}
	_, err = wallet.Import(w, wallet.ImportConfig{Network: "hunter2secret"})
	addError(err)
	_, err = wallet.Import(w, wallet.ImportConfig{Network: wallet.Mainnet, Made: "hunter2secret"})
	addError(err)
	_, err = wallet.Import(w, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: secret.FromString(pass + "\xff")})
	addError(err)
	_, err = k.WithPassphrase(secret.FromString(pass + "x"))
	addError(err)
	a, err := k.PrivateAccount(wallet.BIP84, 0)
	if err != nil {
		t.Fatal(err)
	}
	addError(wallet.CheckDescriptor(string(a.PrivateDescriptor(false).Open()) + "x"))
	addError(wallet.CheckDescriptor(strings.Replace(string(a.PrivateDescriptor(false).Open()), "xprv", "xprü", 1)))
	addError(wallet.CheckExtendedKey(string(a.XPrv().Open()) + "x"))
	_, err = wallet.ParseDescriptors(core.Open())
	addError(err)
	_, err = wallet.ParseDescriptors(text.Open())
	addError(err)
	for _, bad := range []string{words, `{"type":"` + words + `"}`, `{"type":"tx","ref":"x","label":["` + pass + `"]}`, `{"type":"tx","ref":"` + string(a.XPrv().Open()) + `","label":7}`} {
		_, err = wallet.ParseLabels([]byte(bad))
		addError(err)
	}

	var out strings.Builder
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if j, err := json.Marshal(v); err == nil {
			out.Write(j)
		}
		if e, ok := v.(error); ok {
			fmt.Fprintln(&out, e.Error())
		}
	}
	for _, leak := range leaks {
		if at := strings.Index(out.String(), leak); at >= 0 {
			from, to := max(0, at-80), min(out.Len(), at+80)
			t.Errorf("found a secret in: …%s…", out.String()[from:to])
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	for _, name := range []string{"v1_plain", "v1_undated", "v1_needed", "v1_kept", "v1_japanese", "v2_aezeed", "v2_aezeed_kept", "v2_aezeed_needed", "v2_xprv", "v2_tprv"} {
		b, err := os.ReadFile("testdata/keys_" + name + ".txt")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := wallet.ParseKeys(secret.New(b))
		if err != nil {
			if !errors.Is(err, wallet.ErrDamaged) && !errors.Is(err, wallet.ErrNewer) {
				t.Errorf("got %v, want ErrDamaged or ErrNewer", err)
			}
			return
		}
		if got := keysText(t, k); got != string(b) {
			t.Errorf("got %q, want %q", got, b)
		}
		if len(b) > wallet.MaxKeysText {
			t.Error("over the limit")
		}
	})
}
