package guard_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crypto/sha256"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
)

const vectorDir = "../testdata/vectors/pin"

var update = flag.Bool("update", false, "write testdata/vectors/pin anew")

// vector is one file of testdata/vectors/pin; its README.md says what the fields mean.
type vector struct {
	Name       string            `json:"name"`
	Comment    string            `json:"comment"`
	Expect     string            `json:"expect"`
	BackupID   string            `json:"backup_id"`
	PIN        string            `json:"pin"`
	Passphrase string            `json:"passphrase,omitempty"`
	Keys       map[string]string `json:"oprf_keys"` // secret keys of guardians that answer, by number
	Random     *random           `json:"random,omitempty"`
	Data       []byte            `json:"data"`
	Want       *want             `json:"want,omitempty"`
}

// random is what the writer drew.
type random struct {
	Coefficients []string `json:"coefficients"`
	FileKey      string   `json:"file_key"`
}

// want is what a reader finds on the way.
type want struct {
	SlotHash  string   `json:"slot_hash"`
	Servers   []string `json:"servers"`
	Accounts  []string `json:"accounts"`
	Input     string   `json:"input"`
	Outputs   []string `json:"outputs"` // of the guardians that answer
	Shares    []string `json:"shares"`
	Secret    string   `json:"secret"`
	ProofKeys []string `json:"proof_keys"` // public, of all
	FileKey   string   `json:"file_key"`
	Text      string   `json:"text"` // inside the age file
}

// spyIdentity keeps the file key.
type spyIdentity struct {
	age.Identity
	key []byte
}

func (s *spyIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	k, err := s.Identity.Unwrap(stanzas)
	s.key = k
	return k, err
}

// read opens the slot as a client does, with the guardians' keys in place of guardians.
func (v *vector) read() (*want, error) {
	id, err := hex.DecodeString(v.BackupID)
	if err != nil {
		return nil, err
	}
	s, err := slot.ReadPIN(v.Data, guard.ID(id))
	if err != nil {
		return nil, err
	}
	hash := s.Hash()
	w := &want{SlotHash: hex.EncodeToString(hash[:]), Servers: s.Servers()}
	input, err := s.Input(secret.FromString(v.PIN))
	if err != nil {
		return nil, err
	}
	w.Input = hex.EncodeToString(input.Open())
	var numbers []int
	var shares [][]byte
	for i := range s.Guardians {
		g := &s.Guardians[i]
		w.Accounts = append(w.Accounts, g.Account().String())
		text, ok := v.Keys[fmt.Sprint(i+1)]
		if !ok {
			continue
		}
		b, err := hex.DecodeString(text)
		if err != nil {
			return nil, err
		}
		k, err := protocol.ParseKey(b)
		if err != nil {
			return nil, err
		}
		public, err := k.Public()
		if err != nil {
			return nil, err
		}
		if sha256.Sum256(public[:]) != g.Key {
			return nil, guard.ErrLie
		}
		y, err := output(k, input.Open())
		if err != nil {
			return nil, err
		}
		share, err := g.Unmask(y)
		if err != nil {
			return nil, err
		}
		numbers, shares = append(numbers, i+1), append(shares, share)
		w.Outputs, w.Shares = append(w.Outputs, hex.EncodeToString(y)), append(w.Shares, hex.EncodeToString(share))
	}
	o, err := s.Combine(numbers, shares)
	if err != nil {
		return nil, err
	}
	if !o.Right() {
		return nil, &guard.WrongPINError{}
	}
	w.Secret = hex.EncodeToString(o.Secret())
	for i := range s.Guardians {
		p := o.ProofPublic(i)
		w.ProofKeys = append(w.ProofKeys, hex.EncodeToString(p[:]))
	}
	spy := &spyIdentity{Identity: slot.PINIdentity(o, secret.FromString(v.Passphrase))}
	r, err := age.Decrypt(bytes.NewReader(v.Data), spy)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	w.Text, w.FileKey = string(text), hex.EncodeToString(spy.key)
	return w, nil
}

// output is the function without blinding's randomness: the same for every blinding.
func output(k *protocol.Key, input []byte) ([]byte, error) {
	b, err := protocol.Blind(input)
	if err != nil {
		return nil, err
	}
	e, err := k.Evaluate(b.Blinded)
	if err != nil {
		return nil, err
	}
	return b.Finalize(e)
}

func verdict(err error) string {
	_, wrong := errors.AsType[*guard.WrongPINError](err)
	switch {
	case err == nil:
		return "ok"
	case wrong:
		return "wrong-pin"
	case errors.Is(err, guard.ErrPassphrase):
		return "wrong-passphrase"
	case errors.Is(err, slot.ErrOtherBackup):
		return "not-ours"
	case errors.Is(err, slot.ErrNewerKind):
		return "newer"
	case errors.Is(err, slot.ErrParameters), errors.Is(err, guard.ErrSlotDamaged):
		return "damaged"
	}
	return err.Error()
}

func TestVectors(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(vectorDir, "*.json"))
	if err != nil || len(paths) < 30 {
		t.Fatalf("%d vectors, %v", len(paths), err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var v vector
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		t.Run(v.Name, func(t *testing.T) {
			got, err := v.read()
			if verdict(err) != v.Expect {
				t.Fatalf("got %s, %v, want %s: %s", verdict(err), err, v.Expect, v.Comment)
			}
			if d := cmp.Diff(v.Want, got); d != "" {
				t.Error(d)
			}
			if s, err := slot.ReadPIN(v.Data, guard.ID{}); err == nil && v.Random != nil {
				again, err := v.write(s)
				if err != nil || !bytes.Equal(again.Bytes(), s.Bytes()) {
					t.Errorf("written anew it is another slot: %v", err)
				}
			}
		})
	}
}

// write makes the slot anew from its fixed parts and what the writer drew.
func (v *vector) write(s *guard.Slot) (*guard.Slot, error) {
	fresh := &guard.Slot{Backup: s.Backup, Threshold: s.Threshold, PIN: s.PIN, Passphrase: s.Passphrase}
	input, err := fresh.Input(secret.FromString(v.PIN))
	if err != nil {
		return nil, err
	}
	var outputs, coefficients [][]byte
	for i, g := range s.Guardians {
		b, _ := hex.DecodeString(v.Keys[fmt.Sprint(i+1)])
		k, err := protocol.ParseKey(b)
		if err != nil {
			return nil, err
		}
		y, err := output(k, input.Open())
		if err != nil {
			return nil, err
		}
		outputs = append(outputs, y)
		fresh.Guardians = append(fresh.Guardians, guard.Guardian{Server: g.Server, Access: g.Access, Key: g.Key})
	}
	for _, c := range v.Random.Coefficients {
		b, _ := hex.DecodeString(c)
		coefficients = append(coefficients, b)
	}
	e, err := guard.Fixed(fresh, coefficients, outputs, secret.FromString(v.Passphrase))
	if err != nil {
		return nil, err
	}
	key, _ := hex.DecodeString(v.Random.FileKey)
	return e.Wrap(secret.New(key))
}

// writer makes vectors. What the writer of a slot draws is fixed; age's own bytes, of
// the file key too, are random.
type writer struct {
	t *testing.T
	n int
}

func fixed(n int, first byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

// base returns a vector of a sound slot and its stanza, of t of 3 guardians.
func (m *writer) base(t int, passphrase string, kdf guard.KDF) (vector, *age.Stanza) {
	m.t.Helper()
	id := guard.ID(fixed(16, 0))
	v := vector{BackupID: hex.EncodeToString(id[:]), PIN: "4917", Passphrase: passphrase, Keys: map[string]string{}, Random: &random{}}
	kdf.Salt = [16]byte(fixed(16, 0x10))
	s := &guard.Slot{Backup: id, Threshold: t, PIN: kdf}
	if passphrase != "" {
		second := kdf
		second.Salt = [16]byte(fixed(16, 0x20))
		s.Passphrase = &second
	}
	for i, name := range []string{"https://guard1.example", "https://guard2.example:8443/Keys", "http://[::1]:7001"} {
		k, err := protocol.DeriveKey([32]byte(fixed(32, byte(0x30+i))))
		if err != nil {
			m.t.Fatal(err)
		}
		b, err := k.Bytes()
		if err != nil {
			m.t.Fatal(err)
		}
		public, err := k.Public()
		if err != nil {
			m.t.Fatal(err)
		}
		v.Keys[fmt.Sprint(i+1)] = hex.EncodeToString(b)
		s.Guardians = append(s.Guardians, guard.Guardian{Server: name, Access: [32]byte(fixed(32, byte(0x40+i))), Key: sha256.Sum256(public[:])})
		if i < t {
			c := fixed(32, byte(0x50+i))
			c[31] &= 0x0f
			v.Random.Coefficients = append(v.Random.Coefficients, hex.EncodeToString(c))
		}
	}
	var stanza *age.Stanza
	v.Data = m.file(func(fileKey []byte) []*age.Stanza {
		v.Random.FileKey = hex.EncodeToString(fileKey)
		made, err := v.write(s)
		if err != nil {
			m.t.Fatal(err)
		}
		stanza = stanzaOf(made.Bytes())
		return []*age.Stanza{stanza}
	})
	return v, stanza
}

// hashOf is the hash of a body, however odd.
func hashOf(body []byte) string {
	h := sha256.Sum256(append([]byte("satchel/v1/pin-slot\n"), body...))
	return base64.RawStdEncoding.EncodeToString(h[:])
}

func stanzaOf(body []byte) *age.Stanza {
	return &age.Stanza{Type: "satchel-pin", Args: []string{"1", hashOf(body)}, Body: body}
}

type stanzas func(fileKey []byte) []*age.Stanza

func (s stanzas) Wrap(fileKey []byte) ([]*age.Stanza, error) { return s(fileKey), nil }

// file returns an age file with such stanzas.
func (m *writer) file(s stanzas) []byte {
	m.t.Helper()
	var b bytes.Buffer
	w, err := age.Encrypt(&b, s)
	if err != nil {
		m.t.Fatal(err)
	}
	io.WriteString(w, "a key file stands here\n")
	if err := w.Close(); err != nil {
		m.t.Fatal(err)
	}
	return b.Bytes()
}

func (m *writer) put(name, expect, comment string, v vector) {
	m.t.Helper()
	v.Name, v.Expect, v.Comment = name, expect, comment
	got, err := v.read()
	if verdict(err) != expect {
		m.t.Fatalf("%s: got %s, %v", name, verdict(err), err)
	}
	v.Want = got
	if expect != "ok" {
		v.Random = nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		m.t.Fatal(err)
	}
	path := filepath.Join(vectorDir, name+".json")
	if _, err := os.Stat(path); err == nil {
		m.t.Fatalf("two vectors %s", name)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		m.t.Fatal(err)
	}
	m.n++
}

func TestUpdateVectors(t *testing.T) {
	if !*update {
		t.Skip("without -update")
	}
	old, _ := filepath.Glob(filepath.Join(vectorDir, "*.json"))
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	m := &writer{t: t}
	least := guard.KDF{Passes: 1, Lanes: 1, Memory: 8 << 10}
	for k := 1; k <= 3; k++ {
		v, _ := m.base(k, "", least)
		m.put(fmt.Sprintf("ok-%d-of-3", k), "ok", "all guardians answer; the first t count", v)
	}
	v, _ := m.base(2, "", guard.Stretch)
	m.put("ok-as-written", "ok", "with the parameters that Satchel writes", v)
	v, _ = m.base(2, "M\u00fcnze am Fluss", least)
	m.put("ok-passphrase", "ok", "PIN and passphrase", v)
	w := v
	w.Random = nil // It writes for what was typed otherwise.
	w.PIN, w.Passphrase = "\uff14\uff19\uff11\uff17", "Mu\u0308nze am Fluss"
	m.put("ok-other-keyboard", "ok", "PIN in NFKC, passphrase in NFC", w)
	w = v
	w.Passphrase = "Munze am Fluss"
	m.put("passphrase-wrong", "wrong-passphrase", "right PIN, wrong passphrase", w)
	w.Passphrase = "M\u00fcnze am Fluss "
	m.put("passphrase-space", "wrong-passphrase", "nothing is trimmed", w)

	v, sound := m.base(2, "", least)
	w = v
	w.Keys = map[string]string{"2": v.Keys["2"], "3": v.Keys["3"]}
	w.Random = nil
	m.put("ok-stand-in", "ok", "guardians 2 and 3 answer", w)
	w = v
	w.PIN = "4918"
	m.put("pin-wrong", "wrong-pin", "another PIN: every share is possible, only the commitment tells", w)
	w = v
	w.BackupID = hex.EncodeToString(fixed(16, 1))
	m.put("other-backup", "not-ours", "found in the folder of another backup", w)

	// Where the parts of the body are, with one server of 22 characters first.
	const (
		atFlags, atT, atN, atSalt       = 1, 18, 19, 20
		atPasses, atLanes, atMemory     = 36, 37, 38
		atAccess, atKey, atShare, atLen = 42, 74, 106, 138
	)
	body := func(change func(b []byte) []byte) *age.Stanza { return stanzaOf(change(bytes.Clone(sound.Body))) }
	set := func(at int, with ...byte) func(b []byte) []byte {
		return func(b []byte) []byte { copy(b[at:], with); return b }
	}
	server := func(name string) func(b []byte) []byte {
		return func(b []byte) []byte {
			old := int(b[atLen])
			return append(append(append(bytes.Clone(b[:atLen]), byte(len(name))), name...), b[atLen+1+old:]...)
		}
	}
	odd := func(name, expect, comment string, list ...*age.Stanza) {
		t.Helper()
		w := v
		w.Random = nil
		w.Data = m.file(func([]byte) []*age.Stanza { return list })
		m.put(name, expect, comment, w)
	}
	stanza := func(args ...string) *age.Stanza {
		return &age.Stanza{Type: "satchel-pin", Args: args, Body: sound.Body}
	}
	n := len(sound.Body)
	order, _ := hex.DecodeString("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	odd("arg-hash-other", "damaged", "the hash of another slot", stanza("1", hashOf(nil)))
	odd("arg-hash-padded", "damaged", "base64 with padding", stanza("1", sound.Args[1]+"="))
	odd("arg-hash-missing", "damaged", "no hash", stanza("1"))
	odd("arg-none", "damaged", "no arguments", stanza())
	odd("arg-more", "damaged", "a third argument", stanza("1", sound.Args[1], "x"))
	odd("arg-version-2", "newer", "a later version, with arguments of its own", stanza("2", "x", "y"))
	odd("arg-version-0", "damaged", "version 0", stanza("0", sound.Args[1]))
	odd("arg-version-01", "damaged", "version 01", stanza("01", sound.Args[1]))
	bit := bytes.Clone(sound.Body)
	bit[atShare] ^= 1
	odd("bit-flip", "damaged", "one bit of a share, hash as it was", &age.Stanza{Type: "satchel-pin", Args: sound.Args, Body: bit})
	odd("two-stanzas", "damaged", "a second recipient", stanza(sound.Args...), &age.Stanza{Type: "X25519", Args: []string{"a"}, Body: make([]byte, 32)})
	odd("body-version-2", "newer", "the body is of a later version", body(set(0, 2)))
	odd("body-version-0", "damaged", "version 0", body(set(0, 0)))
	odd("body-empty", "damaged", "no body", stanzaOf(nil))
	odd("body-cut-short", "damaged", "the last byte is missing", body(func(b []byte) []byte { return b[:n-1] }))
	odd("body-too-long", "damaged", "a byte after the end", body(func(b []byte) []byte { return append(b, 0) }))
	odd("flags-2", "damaged", "an unknown flag", body(set(atFlags, 2)))
	odd("flags-passphrase", "damaged", "the flag of the passphrase, without its fields", body(set(atFlags, 1)))
	odd("threshold-0", "damaged", "0 of 3", body(set(atT, 0)))
	odd("threshold-4", "damaged", "4 of 3", body(set(atT, 4)))
	odd("guardians-0", "damaged", "0 of 0", body(set(atT, 0, 0)))
	odd("guardians-11", "damaged", "2 of 11", body(set(atN, 11)))
	odd("passes-0", "damaged", "no pass", body(set(atPasses, 0)))
	odd("passes-17", "damaged", "more than 16 passes", body(set(atPasses, 17)))
	odd("lanes-0", "damaged", "no lane", body(set(atLanes, 0)))
	odd("lanes-17", "damaged", "more than 16 lanes", body(set(atLanes, 17)))
	odd("memory-low", "damaged", "8,191 KiB", body(set(atMemory, 0, 0, 0x1f, 0xff)))
	odd("memory-high", "damaged", "1,048,577 KiB", body(set(atMemory, 0, 0x10, 0, 1)))
	odd("share-not-reduced", "damaged", "a share that is the order of the group", body(set(atShare, order...)))
	odd("server-empty", "damaged", "no name", body(server("")))
	odd("server-http", "damaged", "not https", body(server("http://guard1.example")))
	odd("server-http-127", "damaged", "not a loopback address", body(server("http://127.0.0.1.example")))
	odd("server-slash", "damaged", "a slash at the end", body(server("https://guard1.example/")))
	odd("server-upper-case", "damaged", "a host in upper case", body(server("https://Guard1.example")))
	odd("server-user", "damaged", "a user", body(server("https://a@guard1.example")))
	odd("server-query", "damaged", "a query", body(server("https://guard1.example?a")))
	odd("server-percent", "damaged", "a percent sign", body(server("https://guard1.example/%41")))
	odd("server-space", "damaged", "a space", body(server("https://guard1.example/a b")))
	odd("server-letter", "damaged", "a letter that is not ASCII", body(server("https://gu\u00e4rd1.example")))
	odd("server-twice", "damaged", "a server that is named twice", body(server("https://guard2.example:8443/Keys")))
	odd("server-other", "damaged", "a foreign server, hash as it was", &age.Stanza{Type: "satchel-pin", Args: sound.Args, Body: server("https://guard9.example")(bytes.Clone(sound.Body))})
	odd("access-twice", "damaged", "an access key that is named twice", body(func(b []byte) []byte {
		second := bytes.Index(b, fixed(32, 0x41))
		copy(b[second:], b[atAccess:atKey])
		return b
	}))
	odd("commitment-other", "wrong-pin", "a changed commitment: guardians refuse the hash, a reader alone sees a wrong PIN", body(set(n-64, fixed(32, 1)...)))
	odd("wrapped-other", "damaged", "a changed file key", body(set(n-32, fixed(32, 1)...)))
	odd("salt-other", "wrong-pin", "another salt", body(set(atSalt, fixed(16, 1)...)))
	if !strings.HasPrefix(string(sound.Body[atLen+1:]), "https://guard1.example") {
		t.Fatal("the parts of the body are elsewhere")
	}
	t.Logf("%d vectors", m.n)
}
