package slot_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
)

func seal(t *testing.T, r age.Recipient, plain string) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := age.Encrypt(&file, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func open(file []byte, id age.Identity) (string, error) {
	r, err := age.Decrypt(bytes.NewReader(file), id)
	if err != nil {
		return "", err
	}
	plain, err := io.ReadAll(r)
	return string(plain), err
}

func recipient(t *testing.T, s slot.Secret) age.Recipient {
	t.Helper()
	r, err := s.Recipient()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func passphrase(t testing.TB, text string) slot.Secret {
	t.Helper()
	s, err := slot.Passphrase(secret.FromString(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func words(t testing.TB, b byte) slot.Secret {
	t.Helper()
	s, err := slot.Words(secret.New(bytes.Repeat([]byte{b}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// stock is age's own recipient, with any work factor.
func stock(t *testing.T, text string, workFactor int) *age.ScryptRecipient {
	t.Helper()
	r, err := age.NewScryptRecipient(text)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(workFactor)
	return r
}

func stockIdentity(t *testing.T, text string) *age.ScryptIdentity {
	t.Helper()
	id, err := age.NewScryptIdentity(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// What Satchel writes, Satchel opens; and stock age opens it with the text that
// docs/format.md names.
func TestRoundTrip(t *testing.T) {
	code, printed := slot.NewRecoveryCode()
	for _, test := range []struct {
		name, text, header string
		secret             slot.Secret
	}{
		{"recovery-code", string(printed.Open()), " 10\n", code},
		{"words", strings.Repeat("ab", 32), " 10\n", words(t, 0xab)},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := seal(t, recipient(t, test.secret), "backup key")
			if line := strings.SplitAfter(string(file), "\n")[1]; !strings.HasPrefix(line, "-> scrypt ") || !strings.HasSuffix(line, test.header) {
				t.Errorf("got stanza %q, want scrypt with%q", line, test.header)
			}
			if got := test.secret.Kind(); got != slot.Kind(test.name) {
				t.Errorf("got kind %v, want %v", got, test.name)
			}
			for _, id := range []age.Identity{test.secret.Identity(), stockIdentity(t, test.text)} {
				if got, err := open(file, id); err != nil || got != "backup key" {
					t.Errorf("%T: got %q, %v", id, got, err)
				}
			}
		})
	}

	// A passphrase is written with work factor 18, which takes a second each time: that
	// it asks for it is seen before, and the slot then written with 14. The scripts of the
	// command write and open with 18.
	t.Run("passphrase", func(t *testing.T) {
		r := recipient(t, passphrase(t, " Mu\u0308nze am Fluss "))
		want := 18
		if got := slot.WrittenWith(r); got != want {
			t.Errorf("got work factor %d, want %d", got, want)
		}
		want = 14
		slot.SetWorkFactor(r, want)
		file := seal(t, r, "backup key")
		if line := strings.SplitAfter(string(file), "\n")[1]; !strings.HasSuffix(line, fmt.Sprintf(" %d\n", want)) {
			t.Errorf("got stanza %q, want work factor %d", line, want)
		}
		if got, err := open(file, stockIdentity(t, " M\u00fcnze am Fluss ")); err != nil || got != "backup key" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// One passphrase, whatever the keyboard makes of it; and nothing else is
// changed: not case, not spaces, not look-alikes.
func TestPassphraseForms(t *testing.T) {
	file := seal(t, stock(t, " Zo\u00eb\u2019s Gr\u00fc\u00dfe \uac00 ", 14), "x")
	for _, same := range []string{" Zo\u00eb\u2019s Gr\u00fc\u00dfe \uac00 ", " Zoe\u0308\u2019s Gru\u0308\u00dfe \u1100\u1161 "} {
		if _, err := open(file, passphrase(t, same).Identity()); err != nil {
			t.Errorf("%+q: %v", same, err)
		}
	}
	for _, other := range []string{"Zo\u00eb\u2019s Gr\u00fc\u00dfe \uac00", " zo\u00eb\u2019s gr\u00fc\u00dfe \uac00 ", " Zo\u00eb's Gr\u00fc\u00dfe \uac00 ", " Zo\u00eb\u2019s Gr\u00fcsse \uac00 ", "\ufb01ve \uff41\u00b2 \u3000\u00a0\u2460\r\n\t"} {
		if got := slot.Text(passphrase(t, other)); got != other {
			t.Errorf("got %+q, want %+q unchanged", got, other)
		}
	}
}

func TestPassphraseLimits(t *testing.T) {
	for _, test := range []struct {
		name, text string
		ok         bool
	}{
		{"empty", "", false},
		{"one byte", "a", true},
		{"1024 bytes", strings.Repeat("a", 1024), true},
		{"1025 bytes", strings.Repeat("a", 1025), false},
		{"1024 bytes when composed", strings.Repeat("e\u0301", 512), true},
		{"1026 bytes when composed", strings.Repeat("e\u0301", 513), false},
		{"1023 bytes of composed Hangul", strings.Repeat("\u1100\u1161\u11a8", 341), true},
		{"a megabyte", strings.Repeat("a", 1<<20), false},
		{"not UTF-8", "a\xffb", false},
		{"half a surrogate pair", "a\xed\xa0\x80b", false},
		{"30 marks", "a" + strings.Repeat("\u0327", 30), true},
		{"31 marks", "a" + strings.Repeat("\u0327", 31), false},
		{"a joiner of one's own", "a\u034f\u0327", true},
	} {
		_, err := slot.Passphrase(secret.FromString(test.text))
		if test.ok && err != nil || !test.ok && !errors.Is(err, slot.ErrPassphrase) {
			t.Errorf("%s: got %v, want accepted %v", test.name, err, test.ok)
		}
	}
	if _, err := slot.Passphrase(secret.Bytes{}); !errors.Is(err, slot.ErrPassphrase) {
		t.Errorf("zero secret: got %v", err)
	}
}

func TestWordsLength(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33, 64} {
		if _, err := slot.Words(secret.New(make([]byte, n))); !errors.Is(err, slot.ErrSecret) {
			t.Errorf("%d bytes: got %v, want %v", n, err, slot.ErrSecret)
		}
	}
}

func TestZeroSecret(t *testing.T) {
	var zero slot.Secret
	if _, err := zero.Recipient(); !errors.Is(err, slot.ErrSecret) {
		t.Errorf("Recipient: got %v, want %v", err, slot.ErrSecret)
	}
	if _, err := open(seal(t, stock(t, "a", 10), "x"), zero.Identity()); err == nil {
		t.Error("the zero secret opened a slot")
	}
}

// A slot has one recipient, or a passphrase would not vouch for the file.
func TestAlone(t *testing.T) {
	x, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	ours := recipient(t, words(t, 1))
	for _, others := range [][]age.Recipient{{ours, x.Recipient()}, {x.Recipient(), ours}, {ours, ours}, {ours, recipient(t, words(t, 2))}} {
		if _, err := age.Encrypt(io.Discard, others...); err == nil {
			t.Errorf("%T may be mixed", others)
		}
	}
}

func TestParseKind(t *testing.T) {
	for _, name := range []string{"passphrase", "recovery-code", "words", "pin"} {
		k, err := slot.ParseKind(name)
		if err != nil || string(k) != name || !k.Known() || k.Reserved() {
			t.Errorf("%s: got %q, %v", name, k, err)
		}
	}
	for _, name := range []string{"delayed", "passkey"} {
		if k := slot.Kind(name); k.Known() || !k.Reserved() {
			t.Errorf("%s is not reserved", name)
		}
	}
	for _, test := range []struct{ name, want string }{
		{"passkey", "passkey: newer Satchel needed for this slot"},
		{"quantum-7", "quantum-7: newer Satchel needed for this slot"},
		{"", "newer Satchel needed for this slot"},
		{"Words", "newer Satchel needed for this slot"},
		{"a\x1b[31mb", "newer Satchel needed for this slot"},
		{strings.Repeat("a", 33), "newer Satchel needed for this slot"},
	} {
		k, err := slot.ParseKind(test.name)
		if !errors.Is(err, slot.ErrNewerKind) || err.Error() != test.want || k != "" {
			t.Errorf("%q: got %q, %v, want %s", test.name, k, err, test.want)
		}
	}
}

// R19: nothing that this package returns prints the secret.
func TestNeverPrinted(t *testing.T) {
	code, printed := slot.NewRecoveryCode()
	const pass = "Zanzibar quokka"
	leaks := []string{pass, "Zanzibar", fmt.Sprintf("%x", pass), fmt.Sprintf("%X", pass), "90 97 110", "0x5a, 0x61"}
	leaks = append(leaks, string(printed.Open()), fmt.Sprintf("%x", printed.Open()), strings.Repeat("cd", 32), fmt.Sprintf("%x", strings.Repeat("cd", 32)))

	var out bytes.Buffer
	show := func(v any) {
		holder := struct {
			Public any
			hidden any
		}{v, v}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n"+verb+"\n"+verb+"\n", v, holder, []any{v})
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v, "holder", holder)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v, "holder", holder)
		j, err := json.Marshal(map[string]any{"v": v, "holder": holder})
		if err != nil {
			t.Fatal(err)
		}
		out.Write(j)
	}
	for _, s := range []slot.Secret{code, passphrase(t, pass), words(t, 0xcd)} {
		show(s)
		show(&s)
		show(struct{ s slot.Secret }{s})
		show(recipient(t, s))
		show(s.Identity())
	}
	for _, leak := range leaks {
		if strings.Contains(out.String(), leak) {
			t.Errorf("output contains %q", leak)
		}
	}
	if got, want := fmt.Sprintf("%v %#v", code, words(t, 1)), "recovery-code [secret] words [secret]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// What the caller holds is neither changed nor wiped.
func TestCallersBytes(t *testing.T) {
	_, printed := slot.NewRecoveryCode()
	for _, text := range []string{"plain text", "Zo\u00eb composed", "Zoe\u0308 decomposed", string(printed.Open()), strings.Repeat("k", 32)} {
		own := secret.FromString(text)
		slot.Passphrase(own)
		slot.RecoveryCode(own)
		slot.Words(own)
		slot.CheckPassphrase(own)
		slot.Estimate(own)
		if got := string(own.Open()); got != text {
			t.Errorf("%+q became %+q", text, got)
		}
	}
	s := passphrase(t, "plain text")
	for range 2 { // a Secret is used more than once
		if got := slot.Text(s); got != "plain text" {
			t.Errorf("got %+q", got)
		}
		if _, err := s.Identity().Unwrap([]*age.Stanza{stanza(salt, "30")}); !errors.Is(err, slot.ErrParameters) {
			t.Error(err)
		}
	}
	own := []byte("typed")
	held := secret.New(own)
	s, err := slot.Passphrase(held)
	if err != nil {
		t.Fatal(err)
	}
	held.Wipe()
	if got := slot.Text(s); got != "typed" {
		t.Errorf("got %+q after the caller wiped its own", got)
	}
}
