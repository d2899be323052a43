package wallet_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/wallet"
)

// The vectors of lnd's own tests (aezeed/cipherseed_test.go): one seed, without a
// passphrase and with one.
const (
	aezeed = "ability liquid travel stem barely drastic pact cupboard apple thrive morning oak " +
		"feature tissue couch old math inform success suggest drink motion know royal"
	aezeedLocked = "able tree stool crush transfer cloud cross three profit outside hen citizen " +
		"plate ride require leg siren drum success suggest drink require fiscal upgrade"
	aezeedPassphrase = "!very_safe_55345_password*"
)

// The master key of the words abandon … about, fingerprint 73c5da0a, in three forms.
const (
	xprv = "xprv9s21ZrQH143K3GJpoapnV8SFfukcVBSfeCficPSGfubmSFDxo1kuHnLisriDvSnRRuL2Qrg5ggqHKNVpxR86QEC8w35uxmGoggxtQTPvfUu"
	tprv = "tprv8ZgxMBicQKsPe5YMU9gHen4Ez3ApihUfykaqUorj9t6FDqy3nP6eoXiAo2ssvpAjoLroQxHqr3R5nE3a5dU3DHTjTgJDd7zrbniJr6nrCzd"
	zprv = "zprvAWgYBBk7JR8Gjrh4UJQ2uJdG1r3WNRRfURiABBE3RvMXYSrRJL62XuezvGdPvG6GFBZduosCc1YP5wixPox7zhZLfiUm8aunE96BBa4Kei5"
)

func parseAezeed(t testing.TB, text string) wallet.Aezeed {
	t.Helper()
	w, err := wallet.ParseAezeed(secret.FromString(text))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func importAezeed(t testing.TB, text string, c wallet.ImportConfig) wallet.Keys {
	t.Helper()
	k, err := wallet.ImportAezeed(parseAezeed(t, text), c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func importXPrv(t testing.TB, key string, c wallet.ImportConfig) wallet.Keys {
	t.Helper()
	k, err := wallet.ImportXPrv(secret.FromString(key), c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sealAezeed adds the checksum that lnd would add to 29 bytes, of which the first is
// the version.
func sealAezeed(b [29]byte) []byte {
	return binary.BigEndian.AppendUint32(b[:], crc32.Checksum(b[:], crc32.MakeTable(crc32.Castagnoli)))
}

// fakeAezeed makes words of 29 bytes.
func fakeAezeed(b [29]byte) string {
	all := sealAezeed(b)
	list := wallet.Complete("", wallet.English)
	var words []string
	for i := range 24 {
		index := 0
		for bit := i * 11; bit < i*11+11; bit++ {
			index = index<<1 | int(all[bit/8]>>(7-bit%8)&1)
		}
		words = append(words, list[index])
	}
	return strings.Join(words, " ")
}

// bothKinds returns words of an lnd node that are also a BIP 39 sentence, as one in 256
// is: its last byte is the first of the digest of the 32 before.
func bothKinds(t testing.TB) string {
	t.Helper()
	for i := range 100_000 {
		var b [29]byte
		binary.BigEndian.PutUint32(b[5:], uint32(i))
		if all := sealAezeed(b); sha256.Sum256(all[:32])[0] == all[32] {
			return fakeAezeed(b)
		}
	}
	t.Fatal("found none")
	return ""
}

func TestAezeed(t *testing.T) {
	for _, text := range []string{aezeed, aezeedLocked} {
		want := parseAezeed(t, text)
		if got := string(want.Sentence().Open()); got != text {
			t.Errorf("got %q, want %q", got, text)
		}
		for name, typed := range map[string]string{
			"capitals":    strings.ToUpper(text),
			"line breaks": "\n" + strings.ReplaceAll(text, " ", "\r\n") + "\n",
			"spaces":      strings.ReplaceAll(text, " ", " \u3000\t"),
		} {
			if got := parseAezeed(t, typed); !got.Equal(want) {
				t.Errorf("%s: read as other words", name)
			}
		}
		words := strings.Fields(text)
		if !want.Is(24, secret.FromString(" "+strings.ToUpper(words[23]))) || want.Is(23, secret.FromString(words[23])) {
			t.Error("words are not compared by their places")
		}
		// Every other word in every place is refused: the checksum has 32 bits.
		for at := range words {
			changed := append([]string(nil), words...)
			changed[at] = "zoo"
			if _, err := wallet.ParseAezeed(secret.FromString(strings.Join(changed, " "))); !errors.Is(err, wallet.ErrWords) {
				t.Errorf("word %d changed: got %v, want ErrWords", at+1, err)
			}
		}
	}
	if parseAezeed(t, aezeed).Equal(parseAezeed(t, aezeedLocked)) {
		t.Error("two sentences are the same")
	}
}

// Words of the one kind in the place of the other are told apart, each with an error of
// its own, also where the checksum of BIP 39 fits by chance.
func TestKindsOfWords(t *testing.T) {
	const bip39 = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon " +
		"abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art"
	both := bothKinds(t)
	var newer [29]byte
	newer[0] = 1
	import39 := func(text string) error {
		w, err := wallet.ParseWords(secret.FromString(text))
		if err != nil {
			return err
		}
		_, err = wallet.Import(w, wallet.ImportConfig{Network: wallet.Mainnet})
		return err
	}
	importLnd := func(text string) error {
		_, err := wallet.ParseAezeed(secret.FromString(text))
		return err
	}
	if _, err := wallet.ParseWords(secret.FromString(both)); err != nil {
		t.Fatalf("not a BIP 39 sentence: %v", err)
	}
	for name, test := range map[string]struct {
		read func(string) error
		text string
		want error
	}{
		"aezeed as BIP 39":            {import39, aezeed, wallet.ErrAezeedWords},
		"locked aezeed as BIP 39":     {import39, strings.ToUpper(aezeedLocked), wallet.ErrAezeedWords},
		"both as BIP 39":              {import39, both, wallet.ErrAezeedWords},
		"newer aezeed as BIP 39":      {import39, fakeAezeed(newer), wallet.ErrAezeedWords},
		"mistyped aezeed as BIP 39":   {import39, strings.Replace(aezeed, "royal", "zoo", 1), wallet.ErrWords},
		"BIP 39":                      {import39, bip39, nil},
		"aezeed":                      {importLnd, aezeed, nil},
		"both as aezeed":              {importLnd, both, nil},
		"BIP 39 as aezeed":            {importLnd, bip39, wallet.ErrBIP39Words},
		"12 words as aezeed":          {importLnd, abandon, wallet.ErrBIP39Words},
		"Japanese as aezeed":          {importLnd, "あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あおぞら", wallet.ErrBIP39Words},
		"newer aezeed":                {importLnd, fakeAezeed(newer), wallet.ErrAezeedVersion},
		"recovery code as aezeed":     {importLnd, "7kqz-m3xw-p9td-hv2c-8rjn-5ysf-4bgl-q6ea", wallet.ErrWords},
		"mistyped aezeed":             {importLnd, strings.Replace(aezeed, "royal", "zoo", 1), wallet.ErrWords},
		"nothing as aezeed":           {importLnd, "", wallet.ErrWords},
		"too long":                    {importLnd, strings.Repeat("a", wallet.MaxWordsText+1), wallet.ErrWords},
		"an extended key as aezeed":   {importLnd, xprv, wallet.ErrWords},
		"two words exchanged":         {importLnd, strings.Replace(aezeed, "know royal", "royal know", 1), wallet.ErrWords},
		"a word that is in no list":   {importLnd, strings.Replace(aezeed, "royal", "royale", 1), wallet.ErrWords},
		"a word of another language":  {importLnd, strings.Replace(aezeed, "royal", "abaisser", 1), wallet.ErrWords},
		"twenty-five words":           {importLnd, aezeed + " zoo", wallet.ErrWords},
		"twenty-three words":          {importLnd, strings.TrimSuffix(aezeed, " royal"), wallet.ErrWords},
		"a word that begins likewise": {importLnd, strings.Replace(aezeed, "ability", "abil", 1), wallet.ErrWords},
	} {
		err := test.read(test.text)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
		if test.want != nil && !errors.Is(err, wallet.ErrWords) {
			t.Errorf("%s: got %v, want a kind of ErrWords", name, err)
		}
		for _, kind := range []error{wallet.ErrAezeedWords, wallet.ErrBIP39Words, wallet.ErrAezeedVersion} {
			if kind != test.want && errors.Is(err, kind) {
				t.Errorf("%s: got also %v", name, kind)
			}
		}
		// R19
		if err != nil && (strings.Contains(err.Error(), "royal") || strings.Contains(err.Error(), "zoo") || strings.Contains(err.Error(), "abandon")) {
			t.Errorf("%s: the error repeats a word: %v", name, err)
		}
	}

	for text, want := range map[string]wallet.WordsError{
		"ability liquid": {Problem: wallet.WrongCount, Count: 2, Language: wallet.English, Kind: wallet.KindAezeed},
		strings.Replace(aezeed, "oak", "oake", 1): {Problem: wallet.UnknownWord, Count: 24, Unknown: []int{11},
			Language: wallet.English, Kind: wallet.KindAezeed},
		strings.Replace(aezeed, "oak", "oar", 1): {Problem: wallet.UnknownWord, Count: 24, Unknown: []int{11},
			Language: wallet.English, Kind: wallet.KindAezeed},
		strings.Replace(aezeed, "oak", "zoo", 1): {Problem: wallet.WrongChecksum, Count: 24, Language: wallet.English, Kind: wallet.KindAezeed},
	} {
		err := importLnd(text)
		got, ok := errors.AsType[*wallet.WordsError](err)
		if !ok {
			t.Fatalf("got %T, want *WordsError", err)
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestImportXPrv(t *testing.T) {
	words := importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet})
	account, err := words.PrivateAccount(wallet.BIP84, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		key     string
		network wallet.Network
		want    error
	}{
		"xprv":                  {xprv, wallet.Mainnet, nil},
		"a line":                {" " + xprv + "\r\n", wallet.Mainnet, nil},
		"tprv on testnet":       {tprv, wallet.Testnet, nil},
		"tprv on signet":        {tprv, wallet.Signet, nil},
		"tprv on regtest":       {tprv, wallet.Regtest, nil},
		"xprv on regtest":       {xprv, wallet.Regtest, wallet.ErrKeyNetwork},
		"tprv on mainnet":       {tprv, wallet.Mainnet, wallet.ErrKeyNetwork},
		"the key of an account": {string(account.XPrv().Open()), wallet.Mainnet, wallet.ErrNotMaster},
		"a public key":          {account.XPub(), wallet.Mainnet, wallet.ErrPublicKey},
		"zprv":                  {zprv, wallet.Mainnet, wallet.ErrExtendedKey},
		"a character less":      {xprv[:len(xprv)-1], wallet.Mainnet, wallet.ErrExtendedKey},
		"a character changed":   {strings.Replace(xprv, "K3GJ", "K3GK", 1), wallet.Mainnet, wallet.ErrExtendedKey},
		"two keys":              {xprv + " " + xprv, wallet.Mainnet, wallet.ErrExtendedKey},
		"words":                 {abandon, wallet.Mainnet, wallet.ErrExtendedKey},
		"nothing":               {" ", wallet.Mainnet, wallet.ErrNoKeys},
		"no network":            {xprv, "", wallet.ErrNetwork},
	} {
		k, err := wallet.ImportXPrv(secret.FromString(test.key), wallet.ImportConfig{Network: test.network})
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "prv9") {
			t.Errorf("%s: the error repeats the key", name)
		}
		if err == nil && (k.Fingerprint() != "73c5da0a" || k.Kind() != wallet.KindXPrv || string(k.XPrv().Open()) != strings.TrimSpace(test.key)) {
			t.Errorf("%s: got %s, %s", name, k.Fingerprint(), k.Kind())
		}
	}
	if _, err := wallet.ImportXPrv(secret.FromString(xprv), wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: secret.FromString("p")}); !errors.Is(err, wallet.ErrPassphraseKind) {
		t.Errorf("a passphrase: got %v, want ErrPassphraseKind", err)
	}

	// The key is that of the words, and so is all that follows from it.
	k := importXPrv(t, xprv, wallet.ImportConfig{Network: wallet.Mainnet})
	want, err := words.Descriptors(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Matches(want); err != nil {
		t.Errorf("the descriptors differ from those of the words: %v", err)
	}
	if k.Equal(words) {
		t.Error("a key is the same as words")
	}
	for what, err := range map[string]error{"Seed": errOf(k.Seed()), "SlotSecret": errOf(k.SlotSecret())} {
		if !errors.Is(err, wallet.ErrNoWords) {
			t.Errorf("%s: got %v, want ErrNoWords", what, err)
		}
	}
	if _, err := k.WithPassphrase(secret.FromString("p")); !errors.Is(err, wallet.ErrPassphraseKind) {
		t.Errorf("a passphrase: got %v, want ErrPassphraseKind", err)
	}
	if k.WordCount() != 0 || k.IsWord(1, secret.FromString("abandon")) || !k.Words().Display().Empty() {
		t.Error("a key has words")
	}
}

func errOf(_ secret.Bytes, err error) error { return err }

// Only lnd makes anything of its words. What stands in the place of the descriptors
// tells them from others, and nothing more.
func TestAezeedKeys(t *testing.T) {
	k := importAezeed(t, aezeed, wallet.ImportConfig{Network: wallet.Mainnet, Made: date})
	if k.Kind() != wallet.KindAezeed || k.Fingerprint() != "" || k.WordCount() != 24 || !k.IsWord(2, secret.FromString("liquid")) ||
		k.PassphraseState() != wallet.NoPassphrase || string(k.Written().Open()) != aezeed {
		t.Errorf("got %s, fingerprint %q, %d words, %s", k.Kind(), k.Fingerprint(), k.WordCount(), k.PassphraseState())
	}
	_, account := k.Account(wallet.BIP84, 0)
	_, other := k.Descriptors(1)
	_, core := k.CoreImport(0, sinceStart)
	for what, err := range map[string]error{
		"Seed": errOf(k.Seed()), "SlotSecret": errOf(k.SlotSecret()), "Account": account, "Descriptors(1)": other, "CoreImport": core,
	} {
		if !errors.Is(err, wallet.ErrOpaque) {
			t.Errorf("%s: got %v, want ErrOpaque", what, err)
		}
	}
	d, err := k.Descriptors(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.CoreImport(sinceStart); !errors.Is(err, wallet.ErrOpaque) {
		t.Errorf("got %v, want ErrOpaque", err)
	}
	if d.Kind() != wallet.KindAezeed || d.Network() != wallet.Mainnet || d.Fingerprint() != "" || len(d.Accounts()) != 0 {
		t.Errorf("got %s, %s, %q, %d accounts", d.Kind(), d.Network(), d.Fingerprint(), len(d.Accounts()))
	}
	text, err := d.Text()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range strings.Fields(aezeed) {
		if strings.Contains(string(text), `"`+w) {
			t.Errorf("%q is in %s", w, text)
		}
	}
	again, err := wallet.ParseDescriptors(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Matches(again); err != nil {
		t.Error(err)
	}
	bip39, err := importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet}).Descriptors(0)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"other words":            importAezeed(t, aezeedLocked, wallet.ImportConfig{Network: wallet.Mainnet}).Matches(d),
		"other network":          importAezeed(t, aezeed, wallet.ImportConfig{Network: wallet.Signet}).Matches(d),
		"BIP 39":                 k.Matches(bip39),
		"the reverse":            importKeys(t, abandon, wallet.ImportConfig{Network: wallet.Mainnet}).Matches(d),
		"a key":                  importXPrv(t, xprv, wallet.ImportConfig{Network: wallet.Mainnet}).Matches(d),
		"nothing":                k.Matches(wallet.Descriptors{}),
		"nothing the other way":  wallet.Descriptors{}.Compare(d),
		"nothing and a password": importAezeed(t, aezeed, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: secret.FromString("p")}).Matches(bip39),
	} {
		if !errors.Is(err, wallet.ErrOtherWallet) {
			t.Errorf("%s: got %v, want ErrOtherWallet", name, err)
		}
	}

	// Its passphrase is kept, or not, as that of BIP 39 words; nobody here can verify it.
	needed := importAezeed(t, aezeedLocked, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: secret.FromString(aezeedPassphrase)})
	read, err := parseKeys(keysText(t, needed))
	if err != nil {
		t.Fatal(err)
	}
	if read.PassphraseState() != wallet.NeededPassphrase || !read.Passphrase().Empty() || strings.Contains(keysText(t, needed), "password") {
		t.Errorf("got %s, with a passphrase or without", read.PassphraseState())
	}
	lockedDesc, err := needed.Descriptors(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := read.Matches(lockedDesc); err != nil {
		t.Errorf("without its passphrase: %v", err)
	}
	full, err := read.WithPassphrase(secret.FromString("another"))
	if err != nil || string(full.Passphrase().Open()) != "another" || keysText(t, full) != keysText(t, needed) {
		t.Errorf("with a passphrase: got %v, or another text", err)
	}
	if _, err := k.WithPassphrase(secret.FromString("p")); !errors.Is(err, wallet.ErrPassphrase) {
		t.Errorf("a passphrase where there is none: got %v, want ErrPassphrase", err)
	}
	if _, err := wallet.ImportAezeed(wallet.Aezeed{}, wallet.ImportConfig{Network: wallet.Mainnet}); !errors.Is(err, wallet.ErrNoKeys) {
		t.Errorf("no words: got %v, want ErrNoKeys", err)
	}
}

// The length hides which kind of keys it is, as it hides the number of words.
func TestKindsTextLength(t *testing.T) {
	long := fakeAezeed([29]byte{0, 0, 0x15}) // any
	for name, k := range map[string]wallet.Keys{
		"aezeed": importAezeed(t, aezeed, wallet.ImportConfig{Network: wallet.Mainnet, Made: date}),
		"needed": importAezeed(t, aezeed, wallet.ImportConfig{Network: wallet.Regtest, Made: date, Passphrase: secret.FromString("p")}),
		"long":   importAezeed(t, long, wallet.ImportConfig{Network: wallet.Regtest, Made: date, Passphrase: secret.FromString("p")}),
		"xprv":   importXPrv(t, xprv, wallet.ImportConfig{Network: wallet.Mainnet, Made: date}),
		"tprv":   importXPrv(t, tprv, wallet.ImportConfig{Network: wallet.Regtest, Made: date}),
	} {
		if got := len(keysText(t, k)); got != 2048 {
			t.Errorf("%s: the text has %d bytes, want 2048", name, got)
		}
	}
	// Any words of eight letters fit.
	spare := strings.IndexByte(keysText(t, importAezeed(t, aezeed, wallet.ImportConfig{Network: wallet.Regtest, Made: date, Passphrase: secret.FromString("p")})), '\n')
	if longest := 24*9 - len(aezeed) - 1; spare < longest {
		t.Errorf("%d bytes of padding, want at least %d", spare, longest)
	}
	k := importAezeed(t, aezeed, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: secret.FromString(strings.Repeat("\x00", wallet.MaxPassphrase)), KeepPassphrase: true})
	if text := keysText(t, k); len(text) > wallet.MaxKeysText || len(text)%1024 != 0 {
		t.Errorf("the longest text has %d bytes", len(text))
	}
}

// R19: no error and no way of printing shows the words or the key.
func TestKindsLeakNothing(t *testing.T) {
	locked := importAezeed(t, aezeedLocked, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: secret.FromString(aezeedPassphrase), KeepPassphrase: true})
	key := importXPrv(t, xprv, wallet.ImportConfig{Network: wallet.Mainnet})
	d, err := locked.Descriptors(0)
	if err != nil {
		t.Fatal(err)
	}
	values := []any{locked, &locked, key, &key, locked.Aezeed(), key.XPrv(), locked.Written(), key.Written(), d, []wallet.Keys{key, locked}}
	for _, text := range []string{keysText(t, locked), keysText(t, key)} {
		for i := 0; i < len(text); i += 7 {
			b := []byte(text)
			b[i] ^= 1
			if _, err := wallet.ParseKeys(secret.New(b)); err != nil {
				values = append(values, err)
			}
		}
	}
	var out strings.Builder
	for _, v := range values {
		fmt.Fprintf(&out, "%v %+v %#v %q\n", v, v, v, v)
	}
	for _, leak := range append(strings.Fields("stool citizen siren upgrade"), xprv[4:20], aezeedPassphrase, fmt.Sprint([]byte("stool"))[1:15]) {
		if strings.Contains(out.String(), leak) {
			t.Errorf("found %q", leak)
		}
	}
}

func FuzzParseAezeed(f *testing.F) {
	f.Add([]byte(aezeed))
	f.Add([]byte(aezeedLocked))
	f.Add([]byte(abandon))
	f.Add([]byte("ability \xff\u0344 \ufdfa"))
	f.Fuzz(func(t *testing.T, text []byte) {
		w, err := wallet.ParseAezeed(secret.New(text))
		if err != nil {
			if !errors.Is(err, wallet.ErrWords) {
				t.Errorf("got %v, want ErrWords", err)
			}
			return
		}
		again, err := wallet.ParseAezeed(w.Sentence())
		if err != nil || !again.Equal(w) || len(text) > wallet.MaxWordsText {
			t.Errorf("got %v, or other words", err)
		}
	})
}
