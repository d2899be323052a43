package wallet_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/unicode/norm"

	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/wallet"
)

const abandon = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"

// readVectors decodes a file of testdata into v.
func readVectors(t testing.TB, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

func parseWords(t testing.TB, text string) wallet.Words {
	t.Helper()
	w, err := wallet.ParseWords(secret.FromString(text))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A changed list would make other keys.
func TestWordLists(t *testing.T) {
	sums := map[wallet.Language]string{
		wallet.English:            "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda",
		wallet.Japanese:           "2eed0aef492291e061633d7ad8117f1a2b03eb80a29d0e4e3117ac2528d05ffd",
		wallet.Korean:             "9e95f86c167de88f450f0aaf89e87f6624a57f973c67b516e338e8e8b8897f60",
		wallet.Spanish:            "46846a5a0139d1e3cb77293e521c2865f7bcdb82c44e8d0a06a2cd0ecba48c0b",
		wallet.ChineseSimplified:  "5c5942792bd8340cb8b27cd592f1015edf56a8c5b26276ee18a482428e7c5726",
		wallet.ChineseTraditional: "417b26b3d8500a4ae3d59717d7011952db6fc2fb84b807f3f94ac734e89c1b5f",
		wallet.French:             "ebc3959ab7801a1df6bac4fa7d970652f1df76b683cd2f4003c941c63d517e59",
		wallet.Italian:            "d392c49fdb700a24cd1fceb237c1f65dcc128f6b34a8aacb58b59384b5c648c2",
		wallet.Czech:              "7e80e161c3e93d9554c2efb78d4e3cebf8fc727e9c52e03b83b94406bdcc95fc",
		wallet.Portuguese:         "2685e9c194c82ae67e10ba59d9ea5345a23dc093e92276fc5361f6667d79cd3f",
	}
	if len(wallet.Languages()) != len(sums) {
		t.Errorf("got %d languages, want %d", len(wallet.Languages()), len(sums))
	}
	for _, l := range wallet.Languages() {
		b, err := os.ReadFile("wordlist/" + string(l) + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		if got := hex.EncodeToString(sum[:]); got != sums[l] {
			t.Errorf("%s: got SHA-256 %s, want %s", l, got, sums[l])
		}
		if !norm.NFKD.IsNormal(b) {
			t.Errorf("%s is not in NFKD", l)
		}
		if got := len(strings.Fields(string(b))); got != 2048 {
			t.Errorf("%s: got %d words, want 2048", l, got)
		}
		if got := len(wallet.Complete("", l)); got != 2048 {
			t.Errorf("%s: got %d words embedded, want 2048", l, got)
		}
	}
}

// Trezor's vectors: 24 for each language, all with the passphrase TREZOR.
func TestTrezorVectors(t *testing.T) {
	var vectors map[wallet.Language][][4]string
	readVectors(t, "bip39_trezor.json", &vectors)
	for _, l := range wallet.Languages() {
		if len(vectors[l]) != 24 {
			t.Errorf("%s: got %d vectors, want 24", l, len(vectors[l]))
		}
		for i, v := range vectors[l] {
			entropy, words, seed, xprv := unhex(t, v[0]), v[1], v[2], v[3]
			made, err := wallet.WordsFromEntropy(secret.New(entropy), l)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := string(made.Sentence().Open()), norm.NFKD.String(words); got != want {
				t.Errorf("%s %d: got %q, want %q", l, i, got, want)
			}
			read := parseWords(t, words)
			if !read.Equal(made) {
				t.Errorf("%s %d: read and made words differ", l, i)
			}
			checkSeed(t, read, "TREZOR", seed, xprv)
		}
	}
}

// bip32JP's vectors: a passphrase that NFKD changes.
func TestJapaneseVectors(t *testing.T) {
	var vectors []struct {
		Entropy, Mnemonic, Passphrase, Seed string
		XPrv                                string `json:"bip32_xprv"`
	}
	readVectors(t, "bip39_japanese.json", &vectors)
	if len(vectors) != 24 {
		t.Errorf("got %d vectors, want 24", len(vectors))
	}
	for i, v := range vectors {
		made, err := wallet.WordsFromEntropy(secret.New(unhex(t, v.Entropy)), wallet.Japanese)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(made.Display().Open()), norm.NFC.String(v.Mnemonic); got != want {
			t.Errorf("%d: got %q, want %q", i, got, want)
		}
		read := parseWords(t, v.Mnemonic)
		if diff := cmp.Diff([]wallet.Language{wallet.Japanese}, read.Languages()); diff != "" {
			t.Errorf("%d: languages (-want +got):\n%s", i, diff)
		}
		checkSeed(t, read, v.Passphrase, v.Seed, v.XPrv)
	}
}

// checkSeed compares a seed, in hex, and the master key it leads to.
func checkSeed(t *testing.T, w wallet.Words, passphrase, seed, xprv string) {
	t.Helper()
	got, err := w.Seed(secret.FromString(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Equal(secret.New(unhex(t, seed))) {
		t.Errorf("got seed %x, want %s", got.Open(), seed)
	}
	if _, gotKey, err := wallet.DeriveForTest(got, wallet.Mainnet); err != nil || gotKey != xprv {
		t.Errorf("got master key %s, %v, want %s", gotKey, err, xprv)
	}
}

func TestNewWords(t *testing.T) {
	for _, n := range []int{12, 24} {
		seen := make(map[string]bool)
		for range 50 {
			w, err := wallet.NewWords(n)
			if err != nil {
				t.Fatal(err)
			}
			s := string(w.Sentence().Open())
			if w.Count() != n || len(strings.Fields(s)) != n || w.Languages()[0] != wallet.English {
				t.Errorf("got %d words in %v, want %d in English", w.Count(), w.Languages(), n)
			}
			if seen[s] {
				t.Error("the same words twice")
			}
			seen[s] = true
		}
	}
	for _, n := range []int{-1, 0, 11, 15, 18, 21, 25} {
		if _, err := wallet.NewWords(n); !errors.Is(err, wallet.ErrWordCount) {
			t.Errorf("%d words: got %v, want ErrWordCount", n, err)
		}
	}
	for _, n := range []int{0, 12, 15, 17, 33, 36} {
		if _, err := wallet.WordsFromEntropy(secret.Random(n), wallet.English); !errors.Is(err, wallet.ErrEntropy) {
			t.Errorf("%d bytes: got %v, want ErrEntropy", n, err)
		}
	}
	if _, err := wallet.WordsFromEntropy(secret.Random(16), "klingon"); !errors.Is(err, wallet.ErrLanguage) {
		t.Errorf("got %v, want ErrLanguage", err)
	}
}

// What people type is not what a list holds.
func TestTypedForms(t *testing.T) {
	want := parseWords(t, abandon)
	for name, text := range map[string]string{
		"capitals":     strings.ToUpper(abandon),
		"line breaks":  strings.ReplaceAll(abandon, " ", "\r\n"),
		"spaces":       "  " + strings.ReplaceAll(abandon, " ", "\t \u00a0") + "\n",
		"ideographic":  strings.ReplaceAll(abandon, " ", "\u3000"),
		"fullwidth":    strings.ReplaceAll(abandon, "abandon", "ａｂａｎｄｏｎ"),
		"capital word": "Abandon" + strings.TrimPrefix(abandon, "abandon"),
	} {
		if got := parseWords(t, text); !got.Equal(want) {
			t.Errorf("%s: read as other words", name)
		}
	}

	for _, l := range []wallet.Language{wallet.Spanish, wallet.French} {
		for range 50 {
			w, err := wallet.WordsFromEntropy(secret.Random(16), l)
			if err != nil {
				t.Fatal(err)
			}
			plain := strings.Map(func(r rune) rune {
				if 0x300 <= r && r <= 0x36f {
					return -1
				}
				return r
			}, string(w.Sentence().Open()))
			got, err := wallet.ParseWords(secret.FromString(plain))
			if err != nil || !got.Equal(w) {
				t.Errorf("%s without accents: got %v, or other words", l, err)
			}
			for _, form := range []norm.Form{norm.NFC, norm.NFD, norm.NFKC, norm.NFKD} {
				if got := parseWords(t, form.String(string(w.Sentence().Open()))); !got.Equal(w) {
					t.Errorf("%s in form %v: other words", l, form)
				}
			}
		}
	}
}

// A sentence that is valid in two languages is one wallet all the same.
func TestTwoLanguages(t *testing.T) {
	common := func(a, b wallet.Language) (words []string) {
		in := make(map[string]bool)
		for _, w := range wallet.Complete("", a) {
			in[w] = true
		}
		for _, w := range wallet.Complete("", b) {
			if in[w] {
				words = append(words, w)
			}
		}
		return words
	}
	for _, pair := range [][2]wallet.Language{
		{wallet.ChineseSimplified, wallet.ChineseTraditional},
		{wallet.English, wallet.French},
	} {
		shared := common(pair[0], pair[1])
		found := false
		// Of 4 by 4 bits of checksum one sentence in 256 fits both.
		for i := 0; i < len(shared)*len(shared) && !found; i++ {
			words := make([]string, 12)
			for j := range words {
				words[j] = shared[(i/(j+1)+j*i+j)%len(shared)]
			}
			w, err := wallet.ParseWords(secret.FromString(strings.Join(words, " ")))
			if err != nil || len(w.Languages()) < 2 {
				continue
			}
			found = true
			if diff := cmp.Diff(pair[:], w.Languages()); diff != "" {
				t.Errorf("languages (-want +got):\n%s", diff)
			}
			if got, want := string(w.Sentence().Open()), norm.NFKD.String(strings.Join(words, " ")); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if !found {
			t.Errorf("%v: found no sentence that both accept", pair)
		}
	}
}

func TestWordsErrors(t *testing.T) {
	words := strings.Fields(abandon)
	swap := func(at int, w string) string {
		c := append([]string(nil), words...)
		c[at] = w
		return strings.Join(c, " ")
	}
	for name, test := range map[string]struct {
		text string
		want wallet.WordsError
	}{
		"nothing": {"", wallet.WordsError{Problem: wallet.WrongCount, Language: wallet.English}},
		"eleven":  {strings.Join(words[:11], " "), wallet.WordsError{Problem: wallet.WrongCount, Count: 11, Language: wallet.English}},
		"thirteen with a wrong one": {abandon + " satoshee", wallet.WordsError{
			Problem: wallet.WrongCount, Count: 13, Unknown: []int{12}, Language: wallet.English}},
		"wrong word":     {swap(4, "abandom"), wallet.WordsError{Problem: wallet.UnknownWord, Count: 12, Unknown: []int{4}, Language: wallet.English}},
		"wrong checksum": {swap(11, "abandon"), wallet.WordsError{Problem: wallet.WrongChecksum, Count: 12, Language: wallet.English}},
		"swapped":        {swap(0, "about"), wallet.WordsError{Problem: wallet.WrongChecksum, Count: 12, Language: wallet.English}},
		"too long":       {strings.Repeat("a", wallet.MaxWordsText+1), wallet.WordsError{Problem: wallet.TooLong}},
		// R17: a recovery code is no sentence.
		"recovery code": {"7kqz-m3xw-p9td-hv2c-8rjn-5ysf-4bgl-q6ea", wallet.WordsError{
			Problem: wallet.WrongCount, Count: 1, Unknown: []int{0}, Language: wallet.English}},
	} {
		_, err := wallet.ParseWords(secret.FromString(test.text))
		if !errors.Is(err, wallet.ErrWords) {
			t.Errorf("%s: got %v, want ErrWords", name, err)
			continue
		}
		got, ok := errors.AsType[*wallet.WordsError](err)
		if !ok {
			t.Errorf("%s: got %T, want *WordsError", name, err)
			continue
		}
		if diff := cmp.Diff(&test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		// R19
		for _, w := range append(words, "abandom", "satoshee", "7kqz") {
			if strings.Contains(err.Error(), w) {
				t.Errorf("%s: the error repeats a word: %v", name, err)
			}
		}
	}
}

// Of 2048 last words of 12 only one in 16 fits, as BIP 39 says.
func TestChecksumOfEveryLastWord(t *testing.T) {
	first := strings.Repeat("zoo ", 11)
	got := 0
	// Of sixteen words in a row, which share the bits of entropy, one fits.
	for _, last := range wallet.Complete("", wallet.English)[1024:1280] {
		if _, err := wallet.ParseWords(secret.FromString(first + last)); err == nil {
			got++
		}
	}
	if got != 16 {
		t.Errorf("%d last words of 256 fit, want 16", got)
	}
}

// Accents left out must never turn the words of one wallet into those of
// another: words as they stand come first, and of two readings none is chosen.
func TestAccentsDecide(t *testing.T) {
	plain := func(s string) string {
		return strings.Map(func(r rune) rune {
			if 0x300 <= r && r <= 0x36f {
				return -1
			}
			return r
		}, norm.NFKD.String(s))
	}
	// shared returns words of a that are, without accents, words of b, and of
	// which at least one is another word in b.
	shared := func(a, b wallet.Language) (words []string) {
		in := make(map[string]bool)
		for _, w := range wallet.Complete("", b) {
			in[plain(w)] = plain(w) != norm.NFKD.String(w)
		}
		for _, w := range wallet.Complete("", a) {
			if in[plain(w)] {
				words = append(words, plain(w))
			}
		}
		return words
	}
	// try reads sentences of those words until f is content.
	try := func(words []string, f func(sentence string) bool) bool {
		for i := range 20_000 {
			sentence := make([]string, 12)
			for j := range sentence {
				sentence[j] = words[(i*(2*j+1)+i>>j)%len(words)]
			}
			if f(strings.Join(sentence, " ")) {
				return true
			}
		}
		return false
	}

	// Plain English that would be a French wallet with accents, too.
	found := try(shared(wallet.English, wallet.French), func(s string) bool {
		w, err := wallet.ParseWords(secret.FromString(s))
		if err != nil {
			return false
		}
		if w.Languages()[0] != wallet.English {
			return false // It fits only as French.
		}
		if got := string(w.Sentence().Open()); got != s {
			t.Errorf("got %q, want the words as typed, %q", got, s)
		}
		return readsAsFrench(t, s)
	})
	if !found {
		t.Error("found no English sentence that is a French one without accents")
	}

	// Plain letters that are a French or a Spanish wallet with accents.
	found = try(shared(wallet.French, wallet.Spanish), func(s string) bool {
		_, err := wallet.ParseWords(secret.FromString(s))
		e, ok := errors.AsType[*wallet.WordsError](err)
		return ok && e.Problem == wallet.Ambiguous && !strings.Contains(err.Error(), strings.Fields(s)[0])
	})
	if !found {
		t.Error("found no sentence with two readings")
	}
}

// readsAsFrench puts the accents on plain words and reads them.
func readsAsFrench(t *testing.T, sentence string) bool {
	t.Helper()
	words := strings.Fields(sentence)
	for i, w := range words {
		for _, full := range wallet.Complete(w, wallet.French) {
			if len([]rune(full)) == len(w) {
				words[i] = full
			}
		}
	}
	w, err := wallet.ParseWords(secret.FromString(strings.Join(words, " ")))
	return err == nil && w.Languages()[0] == wallet.French
}

func TestComplete(t *testing.T) {
	for _, test := range []struct {
		prefix string
		l      wallet.Language
		want   []string
	}{
		{"aban", wallet.English, []string{"abandon"}},
		{"ABAN", wallet.English, []string{"abandon"}},
		{"abx", wallet.English, nil},
		{"act", wallet.English, []string{"act", "action", "actor", "actress", "actual"}},
		{"abac", wallet.Spanish, []string{"ábaco"}},
		{"ába", wallet.Spanish, []string{"ábaco"}},
		{"あいこ", wallet.Japanese, []string{"あいこくしん"}},
		{"x", "klingon", nil},
	} {
		if diff := cmp.Diff(test.want, wallet.Complete(test.prefix, test.l)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.prefix, diff)
		}
	}
	for _, w := range wallet.Complete("", wallet.English) {
		if len(w) > 4 && len(wallet.Complete(w[:4], wallet.English)) != 1 {
			t.Errorf("four letters of %q are not enough", w)
		}
	}
}

func FuzzParseWords(f *testing.F) {
	f.Add([]byte(abandon))
	f.Add([]byte("あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あおぞら"))
	f.Add([]byte("abandon \xff\u0344 \ufdfa"))
	f.Fuzz(func(t *testing.T, text []byte) {
		w, err := wallet.ParseWords(secret.New(text))
		if err != nil {
			if !errors.Is(err, wallet.ErrWords) {
				t.Errorf("got %v, want ErrWords", err)
			}
			return
		}
		if len(text) > wallet.MaxWordsText {
			t.Error("over the limit")
		}
		// R18: both written forms read back as the same words.
		for _, form := range []secret.Bytes{w.Sentence(), w.Display()} {
			again, err := wallet.ParseWords(form)
			if err != nil || !again.Equal(w) {
				t.Errorf("got %v, or other words", err)
			}
			if !bytes.Equal(again.Display().Open(), w.Display().Open()) {
				t.Error("shown in another way")
			}
		}
	})
}
