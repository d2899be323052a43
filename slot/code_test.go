package slot_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
)

type codeVectors struct {
	Valid     []struct{ Bytes, Text string }
	Normalise []struct{ Comment, Input, Text string }
	Invalid   []struct {
		Comment, Input string
		Error          slot.CodeProblem
		Count, Place   int
		Groups         []int
	}
}

func loadCodeVectors(t testing.TB) codeVectors {
	t.Helper()
	b, err := os.ReadFile("../testdata/vectors/recovery-code.json")
	if err != nil {
		t.Fatal(err)
	}
	var v codeVectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Valid) == 0 || len(v.Normalise) == 0 || len(v.Invalid) == 0 {
		t.Fatal("no vectors")
	}
	return v
}

// opensAs reports whether a secret is the one that stock age knows by text.
func opensAs(t *testing.T, s slot.Secret, text string) bool {
	t.Helper()
	fileKey := []byte("sixteen byte key")
	stanzas, err := recipient(t, s).Wrap(fileKey)
	if err != nil {
		t.Fatal(err)
	}
	got, err := stockIdentity(t, text).Unwrap(stanzas)
	if err != nil && !errors.Is(err, age.ErrIncorrectIdentity) {
		t.Fatal(err)
	}
	return string(got) == string(fileKey)
}

func TestCodeVectors(t *testing.T) {
	v := loadCodeVectors(t)
	for _, test := range v.Valid {
		b, err := hex.DecodeString(test.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if got := slot.PrintCode(b); got != test.Text {
			t.Errorf("%s: got %s, want %s", test.Bytes, got, test.Text)
		}
		s, err := slot.RecoveryCode(secret.FromString(test.Text))
		if err != nil || !opensAs(t, s, test.Text) {
			t.Errorf("%s: not taken as printed: %v", test.Text, err)
		}
	}
	for _, test := range v.Normalise {
		s, err := slot.RecoveryCode(secret.FromString(test.Input))
		if err != nil {
			t.Errorf("%s: %v", test.Comment, err)
		} else if slot.Text(s) != test.Text {
			t.Errorf("%s: not normalised to %s", test.Comment, test.Text)
		}
	}
	for _, test := range v.Invalid {
		_, err := slot.RecoveryCode(secret.FromString(test.Input))
		got, ok := errors.AsType[*slot.CodeError](err)
		if !ok || !errors.Is(err, slot.ErrRecoveryCode) {
			t.Errorf("%s: got %v, want a CodeError", test.Comment, err)
			continue
		}
		if len(test.Groups) == 0 {
			test.Groups = nil
		}
		want := &slot.CodeError{Problem: test.Error, Count: test.Count, Groups: test.Groups, Place: test.Place}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.Comment, diff)
		}
	}
}

func TestCodeErrorText(t *testing.T) {
	for _, test := range []struct {
		err  slot.CodeError
		want string
	}{
		{slot.CodeError{Problem: slot.CodeTooShort, Count: 1}, "not a recovery code: 1 symbol is missing"},
		{slot.CodeError{Problem: slot.CodeTooShort, Count: 4}, "not a recovery code: 4 symbols are missing"},
		{slot.CodeError{Problem: slot.CodeTooLong, Count: 2}, "not a recovery code: 2 symbols are too many"},
		{slot.CodeError{Problem: slot.CodeSymbol, Groups: []int{3}, Place: 2}, "not a recovery code: symbol 2 of group 3 is none that a code can have"},
		{slot.CodeError{Problem: slot.CodeCheck}, "not a recovery code: one or more symbols are mistyped"},
		{slot.CodeError{Problem: slot.CodeCheck, Groups: []int{3}}, "not a recovery code: one or more symbols are mistyped, look at group 3 first"},
		{slot.CodeError{Problem: slot.CodeCheck, Groups: []int{3, 4}}, "not a recovery code: one or more symbols are mistyped, look at the end of group 3 and the start of group 4 first"},
		{slot.CodeError{Problem: slot.CodeWords}, "these look like a wallet's words, not a recovery code"},
		{slot.CodeError{Problem: slot.CodeNotText}, "not a recovery code: this is not a text that could be one"},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}

func TestCodeNotText(t *testing.T) {
	for _, text := range []string{"\xff\xfe", strings.Repeat("0", 1025), strings.Repeat("-", 1<<20)} {
		_, err := slot.RecoveryCode(secret.FromString(text))
		if got, ok := errors.AsType[*slot.CodeError](err); !ok || got.Problem != slot.CodeNotText {
			t.Errorf("got %v, want %s", err, slot.CodeNotText)
		}
	}
}

// Every typo of one symbol and every swap of neighbours is noticed, and the hint
// is right wherever there is one. R19: no error repeats a group of the code.
func TestEveryTypo(t *testing.T) {
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	_, printed := slot.NewRecoveryCode()
	code := strings.ReplaceAll(string(printed.Open()), "-", "")
	hinted, typos := 0, 0
	try := func(typo string, at int) {
		typos++
		_, err := slot.RecoveryCode(secret.FromString(typo))
		got, ok := errors.AsType[*slot.CodeError](err)
		if !ok || got.Problem != slot.CodeCheck {
			t.Fatalf("typo at %d: got %v, want %s", at, err, slot.CodeCheck)
		}
		if len(got.Groups) > 0 {
			hinted++
			if last := got.Groups[len(got.Groups)-1]; at/4+1 != last {
				t.Errorf("typo in group %d: the hint says %v", at/4+1, got.Groups)
			}
		}
		for group := range strings.SplitSeq(string(printed.Open()), "-") {
			if strings.Contains(err.Error(), group) {
				t.Errorf("the error shows a group: %v", err)
			}
		}
	}
	for i := range code {
		for _, symbol := range alphabet {
			if byte(symbol) != code[i] && symbol%16 == 0 { // two of 31: each costs a thousand hashes
				try(code[:i]+string(symbol)+code[i+1:], i)
			}
		}
		if i > 0 && code[i] != code[i-1] {
			try(code[:i-1]+string(code[i])+string(code[i-1])+code[i+1:], i)
		}
	}
	if hinted < typos*9/10 {
		t.Errorf("got %d hints for %d typos, want nearly all", hinted, typos)
	}
}

// R17: a recovery code is never a number of words that BIP 39 allows, however it
// is split, and the words of a wallet are recognised for what they are (in
// recovery-code.json).
func TestCodeIsNotWords(t *testing.T) {
	seen := make(map[string]bool)
	for range 2000 {
		s, printed := slot.NewRecoveryCode()
		text := string(printed.Open())
		if seen[text] {
			t.Fatal("the same code twice")
		}
		seen[text] = true
		if got := len(strings.Fields(text)); got != 1 {
			t.Fatalf("got %d words, want 1", got)
		}
		groups := strings.Split(text, "-")
		if len(groups) != 9 {
			t.Fatalf("got %d groups, want 9, which BIP 39 does not know", len(groups))
		}
		for _, g := range groups {
			if len(g) != 4 || strings.Trim(g, "0123456789abcdefghjkmnpqrstvwxyz") != "" {
				t.Fatalf("a group is malformed")
			}
		}
		if s.Kind() != slot.KindRecoveryCode {
			t.Fatalf("got kind %v", s.Kind())
		}
	}
}

// FuzzRecoveryCode: what parses is written again as the same code.
func FuzzRecoveryCode(f *testing.F) {
	v := loadCodeVectors(f)
	for _, test := range v.Normalise {
		f.Add([]byte(test.Input))
	}
	for _, test := range v.Invalid {
		f.Add([]byte(test.Input))
	}
	f.Fuzz(func(t *testing.T, typed []byte) {
		s, err := slot.RecoveryCode(secret.New(typed))
		if err != nil {
			if got, ok := errors.AsType[*slot.CodeError](err); !ok || got.Error() == "" {
				t.Fatalf("got %v, want a CodeError", err)
			}
			return
		}
		text := slot.Text(s)
		again, err := slot.RecoveryCode(secret.FromString(text))
		if err != nil || slot.Text(again) != text {
			t.Fatalf("does not parse to itself: %v", err)
		}
		b, err := hex.DecodeString(slot.CodeHex(text))
		if err != nil || slot.PrintCode(b) != text {
			t.Fatal("does not print to itself")
		}
	})
}
