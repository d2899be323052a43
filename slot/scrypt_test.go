package slot_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/satchel-backup/satchel/slot"
)

func stanza(args ...string) *age.Stanza {
	return &age.Stanza{Type: "scrypt", Args: args, Body: make([]byte, 32)}
}

var salt = base64.RawStdEncoding.EncodeToString(make([]byte, 16))

// R11: what a file asks for is judged before any memory is taken. R5: wrong
// secret, wrong parameters and wrong kind are different errors.
func TestUnwrapParameters(t *testing.T) {
	pass, code := passphrase(t, "some passphrase"), words(t, 1)
	printed, _ := slot.NewRecoveryCode()
	shortBody, longBody := stanza(salt, "14"), stanza(salt, "14")
	shortBody.Body, longBody.Body = make([]byte, 31), make([]byte, 1<<20)
	x25519 := &age.Stanza{Type: "X25519", Args: []string{salt}, Body: make([]byte, 32)}

	for _, test := range []struct {
		name    string
		secret  slot.Secret
		stanzas []*age.Stanza
		want    error
		text    string
	}{
		{"passphrase 1", pass, []*age.Stanza{stanza(salt, "1")}, slot.ErrParameters, "weaker"},
		{"passphrase 9", pass, []*age.Stanza{stanza(salt, "9")}, slot.ErrParameters, "weaker"},
		{"passphrase 10", pass, []*age.Stanza{stanza(salt, "10")}, slot.ErrParameters, "weaker"},
		{"passphrase 13", pass, []*age.Stanza{stanza(salt, "13")}, slot.ErrParameters, "weaker"},
		{"passphrase 14", pass, []*age.Stanza{stanza(salt, "14")}, slot.ErrWrongSecret, ""},
		{"passphrase 21", pass, []*age.Stanza{stanza(salt, "21")}, slot.ErrParameters, "absurd"},
		{"passphrase 22", pass, []*age.Stanza{stanza(salt, "22")}, slot.ErrParameters, "absurd"},
		{"passphrase 30", pass, []*age.Stanza{stanza(salt, "30")}, slot.ErrParameters, "absurd"},
		{"passphrase 63", pass, []*age.Stanza{stanza(salt, "63")}, slot.ErrParameters, "absurd"},
		{"passphrase 64", pass, []*age.Stanza{stanza(salt, "64")}, slot.ErrParameters, "absurd"},
		{"code 1", code, []*age.Stanza{stanza(salt, "1")}, slot.ErrParameters, "weaker"},
		{"code 9", code, []*age.Stanza{stanza(salt, "9")}, slot.ErrParameters, "weaker"},
		{"code 10", code, []*age.Stanza{stanza(salt, "10")}, slot.ErrWrongSecret, ""},
		{"code 12", code, []*age.Stanza{stanza(salt, "12")}, slot.ErrWrongSecret, ""},
		{"code 13", code, []*age.Stanza{stanza(salt, "13")}, slot.ErrParameters, "absurd"},
		{"code 20", code, []*age.Stanza{stanza(salt, "20")}, slot.ErrParameters, "absurd"},
		{"code 21", code, []*age.Stanza{stanza(salt, "21")}, slot.ErrParameters, "absurd"},
		{"code 63", code, []*age.Stanza{stanza(salt, "63")}, slot.ErrParameters, "absurd"},
		{"printed code 12", printed, []*age.Stanza{stanza(salt, "12")}, slot.ErrWrongSecret, ""},
		{"printed code 13", printed, []*age.Stanza{stanza(salt, "13")}, slot.ErrParameters, "absurd"},
		{"no secret", slot.Secret{}, []*age.Stanza{stanza(salt, "10")}, slot.ErrParameters, ""},

		{"0", code, []*age.Stanza{stanza(salt, "0")}, slot.ErrParameters, "malformed"},
		{"018", code, []*age.Stanza{stanza(salt, "018")}, slot.ErrParameters, "malformed"},
		{"+18", code, []*age.Stanza{stanza(salt, "+18")}, slot.ErrParameters, "malformed"},
		{"-18", code, []*age.Stanza{stanza(salt, "-18")}, slot.ErrParameters, "malformed"},
		{"0x12", code, []*age.Stanza{stanza(salt, "0x12")}, slot.ErrParameters, "malformed"},
		{"1_0", code, []*age.Stanza{stanza(salt, "1_0")}, slot.ErrParameters, "malformed"},
		{"empty", code, []*age.Stanza{stanza(salt, "")}, slot.ErrParameters, "malformed"},
		{"Arabic digits", code, []*age.Stanza{stanza(salt, "\u0661\u0662")}, slot.ErrParameters, "malformed"},
		{"wraps to 10 in 64 bits", code, []*age.Stanza{stanza(salt, "18446744073709551626")}, slot.ErrParameters, "absurd"},
		{"a megabyte of digits", code, []*age.Stanza{stanza(salt, strings.Repeat("1", 1<<20))}, slot.ErrParameters, "absurd"},

		{"no arguments", code, []*age.Stanza{stanza()}, slot.ErrParameters, "malformed"},
		{"one argument", code, []*age.Stanza{stanza(salt)}, slot.ErrParameters, "malformed"},
		{"three arguments", code, []*age.Stanza{stanza(salt, "10", "10")}, slot.ErrParameters, "malformed"},
		{"short salt", code, []*age.Stanza{stanza(salt[:20], "10")}, slot.ErrParameters, "its salt is malformed"},
		{"long salt", code, []*age.Stanza{stanza(salt+"AA", "10")}, slot.ErrParameters, "its salt is malformed"},
		{"padded salt", code, []*age.Stanza{stanza(salt+"==", "10")}, slot.ErrParameters, "its salt is malformed"},
		{"salt not canonical", code, []*age.Stanza{stanza(salt[:21]+"B", "10")}, slot.ErrParameters, "its salt is malformed"},
		{"salt with line ends", code, []*age.Stanza{stanza(salt[:20]+"\n\n", "10")}, slot.ErrParameters, "its salt is malformed"},
		{"URL salt", code, []*age.Stanza{stanza("_"+salt[1:], "10")}, slot.ErrParameters, "its salt is malformed"},
		{"short body", code, []*age.Stanza{shortBody}, slot.ErrParameters, "malformed"},
		{"long body", code, []*age.Stanza{longBody}, slot.ErrParameters, "malformed"},

		{"two stanzas", code, []*age.Stanza{stanza(salt, "10"), stanza(salt, "10")}, slot.ErrParameters, "more than one"},
		{"scrypt and X25519", code, []*age.Stanza{stanza(salt, "10"), x25519}, slot.ErrParameters, "more than one"},
		{"X25519 and scrypt", code, []*age.Stanza{x25519, stanza(salt, "10")}, slot.ErrParameters, "more than one"},
		{"X25519", code, []*age.Stanza{x25519}, slot.ErrKind, ""},
		{"two X25519", code, []*age.Stanza{x25519, x25519}, slot.ErrKind, ""},
		{"none", code, nil, slot.ErrKind, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			id := test.secret.Identity()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := id.Unwrap(test.stanzas)
			runtime.ReadMemStats(&after)
			for _, fact := range []error{slot.ErrWrongSecret, slot.ErrParameters, slot.ErrKind} {
				if got, want := errors.Is(err, fact), fact == test.want; got != want {
					t.Errorf("%v: is %v: got %v, want %v", err, fact, got, want)
				}
			}
			// age goes on to the next identity exactly when it is told so.
			if got, want := errors.Is(err, age.ErrIncorrectIdentity), test.want != slot.ErrParameters; got != want {
				t.Errorf("%v: is ErrIncorrectIdentity: got %v, want %v", err, got, want)
			}
			if err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want a text with %q", err, test.text)
			}
			if took := after.TotalAlloc - before.TotalAlloc; test.want != slot.ErrWrongSecret && took > 1<<16 {
				t.Errorf("took %d bytes of memory before refusing", took)
			}
		})
	}
}

// R5: the same facts through age.Decrypt, from whole files.
func TestDecryptErrors(t *testing.T) {
	code, printed := slot.NewRecoveryCode()
	other, _ := slot.NewRecoveryCode()
	x, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	text := string(printed.Open())
	absurd := bytes.Replace(seal(t, stock(t, text, 10), "x"), []byte(" 10\n"), []byte(" 30\n"), 1)
	for _, test := range []struct {
		name string
		file []byte
		id   age.Identity
		want error
	}{
		{"right", seal(t, stock(t, text, 10), "x"), code.Identity(), nil},
		{"right, made with more work", seal(t, stock(t, text, 12), "x"), code.Identity(), nil},
		{"right, made with too much work", seal(t, stock(t, text, 13), "x"), code.Identity(), slot.ErrParameters},
		{"right, made with too little work", seal(t, stock(t, text, 9), "x"), code.Identity(), slot.ErrParameters},
		{"work factor changed", absurd, code.Identity(), slot.ErrParameters},
		{"wrong code", seal(t, stock(t, text, 10), "x"), other.Identity(), slot.ErrWrongSecret},
		{"wrong kind of secret", seal(t, stock(t, text, 10), "x"), words(t, 1).Identity(), slot.ErrWrongSecret},
		{"passphrase for a code's slot", seal(t, stock(t, text, 10), "x"), passphrase(t, text).Identity(), slot.ErrParameters},
		{"not a slot", seal(t, x.Recipient(), "x"), code.Identity(), slot.ErrKind},
	} {
		_, err := open(test.file, test.id)
		if test.want == nil {
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		for _, fact := range []error{slot.ErrWrongSecret, slot.ErrParameters, slot.ErrKind} {
			if got, want := errors.Is(err, fact), fact == test.want; got != want {
				t.Errorf("%s: %v: is %v: got %v, want %v", test.name, err, fact, got, want)
			}
		}
	}

	// Several identities may be tried on one file.
	file := seal(t, recipient(t, code), "x")
	if _, err := age.Decrypt(bytes.NewReader(file), other.Identity(), words(t, 1).Identity(), code.Identity()); err != nil {
		t.Errorf("the third identity: %v", err)
	}
}

// A changed salt or key cannot be told from a wrong secret, and opens nothing.
func TestDamaged(t *testing.T) {
	code, _ := slot.NewRecoveryCode()
	file := seal(t, recipient(t, code), "backup key")
	for at := 0; at < len(file); at += 4 {
		bad := bytes.Clone(file)
		bad[at] ^= 1
		if _, err := open(bad, code.Identity()); err == nil {
			t.Errorf("opens with byte %d changed", at)
		}
	}
}

func TestWorkFactor(t *testing.T) {
	x, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	start := "age-encryption.org/v1\n-> scrypt "
	for _, test := range []struct {
		name   string
		object []byte
		want   int
		ok     bool
	}{
		{"code", seal(t, recipient(t, words(t, 1)), "x"), 10, true},
		{"more work", seal(t, stock(t, "a", 12), "x"), 12, true},
		{"absurd work", []byte(start + salt + " 99\n"), 99, true},
		{"three digits", []byte(start + salt + " 180\n"), 100, true},
		{"no slot", seal(t, x.Recipient(), "x"), 0, false},
		{"nothing", nil, 0, false},
		{"cut off", []byte(start + salt + " 10"), 0, false},
		{"no factor", []byte(start + salt + "\n"), 0, false},
		{"one argument more", []byte(start + salt + " 10 10\n"), 0, false},
		{"a sign", []byte(start + salt + " +10\n"), 0, false},
		{"leading zero", []byte(start + salt + " 010\n"), 0, false},
		{"short salt", []byte(start + salt[1:] + " 10\n"), 0, false},
		{"another version", []byte(strings.Replace(start, "v1", "v2", 1) + salt + " 10\n"), 0, false},
		{"something before", []byte("\n" + start + salt + " 10\n"), 0, false},
		{"a line end of Windows", []byte(start + salt + " 10\r\n"), 0, false},
		{"a line beyond what is looked at", []byte(start + salt + " " + strings.Repeat("1", 4<<10) + "\n"), 0, false},
	} {
		if got, ok := slot.WorkFactor(test.object); got != test.want || ok != test.ok {
			t.Errorf("%s: got %d, %v, want %d, %v", test.name, got, ok, test.want, test.ok)
		}
	}
}

// witness is an age identity that only remembers what it was shown.
type witness struct{ stanzas []*age.Stanza }

func (w *witness) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	w.stanzas = stanzas
	return nil, age.ErrIncorrectIdentity
}

// FuzzWorkFactor: what is read is what stands there, and what age would read.
func FuzzWorkFactor(f *testing.F) {
	body := "\n" + strings.Repeat("A", 43) + "\n--- " + strings.Repeat("A", 43) + "\n"
	start := "age-encryption.org/v1\n-> scrypt "
	for _, line := range []string{salt + " 10", salt + " 18", salt + " 010", salt + " 100", salt, "", salt + " 10 10", salt + " 10\r"} {
		f.Add([]byte(start + line + body))
	}
	f.Add([]byte(start + salt + " 10\n"))
	f.Fuzz(func(t *testing.T, object []byte) {
		got, ok := slot.WorkFactor(object)
		if !ok && got != 0 {
			t.Errorf("got %d and false", got)
		}
		if ok && got < 100 { // The salt is as long as ours.
			want := fmt.Sprintf(" %d\n", got)
			if at := len(start) + len(salt); !bytes.HasPrefix(object, []byte(start)) || !bytes.HasPrefix(object[at:], []byte(want)) {
				t.Errorf("got %d, which does not stand there", got)
			}
		}
		var w witness
		age.Decrypt(bytes.NewReader(object), &w)
		if len(w.stanzas) == 0 {
			return // age refused the header, or would.
		}
		s := w.stanzas[0]
		if ok && (s.Type != "scrypt" || len(s.Args) != 2 || got < 100 && s.Args[1] != fmt.Sprint(got)) {
			t.Errorf("got %d, age reads %s %q", got, s.Type, s.Args)
		}
		// Whatever Unwrap takes, a factor is read from.
		if _, err := words(t, 1).Identity().Unwrap(w.stanzas); errors.Is(err, slot.ErrWrongSecret) && !ok {
			t.Errorf("got no factor, and Unwrap accepts %q", s.Args)
		}
	})
}

// FuzzUnwrap: whatever a file says, Unwrap gives one of the known facts, and
// never opens what stock age would not.
func FuzzUnwrap(f *testing.F) {
	f.Add("scrypt", salt, "10", make([]byte, 32), uint8(2), false)
	f.Add("scrypt", salt, "30", make([]byte, 32), uint8(2), false)
	f.Add("scrypt", salt, "010", make([]byte, 32), uint8(2), true)
	f.Add("X25519", "", "", []byte{}, uint8(1), false)
	id := words(f, 1).Identity()
	f.Fuzz(func(t *testing.T, kind, a, b string, body []byte, n uint8, twice bool) {
		s := &age.Stanza{Type: kind, Args: []string{a, b, a}[:n%4], Body: body}
		stanzas := []*age.Stanza{s}
		if twice {
			stanzas = append(stanzas, s)
		}
		_, err := id.Unwrap(stanzas)
		if err == nil {
			t.Fatal("opened")
		}
		if !errors.Is(err, slot.ErrWrongSecret) && !errors.Is(err, slot.ErrParameters) && !errors.Is(err, slot.ErrKind) {
			t.Fatalf("got %v, want one of the known facts", err)
		}
	})
}
