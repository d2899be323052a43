package seal_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/satchel-backup/satchel/seal"
)

// R19: no printed form of Keys or DeviceKey shows key material.
func TestKeysAreNotPrinted(t *testing.T) {
	k := seal.NewKeys()
	d := k.Device(1, seal.NewDeviceID())
	type holder struct {
		Public any
		k      *seal.Keys
		d      *seal.DeviceKey
		kv     seal.Keys
		dv     seal.DeviceKey
	}
	h := holder{k, k, d, *k, *d}
	values := []any{k, *k, d, *d, h, &h, []any{k, d}, []seal.Keys{*k}, map[string]any{"k": *k, "d": *d},
		k.KeyFile(), d.Marshal(), fmt.Errorf("x: %v %+v", k, d), struct{ *seal.Keys }{k}, struct{ seal.DeviceKey }{*d}}
	var out bytes.Buffer
	for _, v := range values {
		for verb := 'A'; verb <= 'z'; verb++ {
			for _, flag := range []string{"", "+", "#", "-40", "0", " ", "+#"} {
				fmt.Fprintf(&out, "%"+flag+string(verb)+"\n", v)
			}
		}
		fmt.Fprintln(&out, v)
		for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(handler).Info("m", "v", v, slog.Group("g", "v", v))
		}
		if j, err := json.Marshal(v); err == nil {
			out.Write(j)
		}
	}
	printed := out.String()
	for _, s := range append(k.Secrets(), d.Secrets()...) {
		decimal := strings.Trim(fmt.Sprint(s[:8]), "[]")
		goBytes := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", s[:8]), "[]byte{"), "}")
		for _, form := range []string{string(s), hex.EncodeToString(s[:8]), strings.ToUpper(hex.EncodeToString(s[:8])), base64.StdEncoding.EncodeToString(s[:9]), decimal, goBytes} {
			if strings.Contains(printed, form) {
				t.Errorf("printed: %q", form)
			}
		}
	}
	if strings.Contains(printed, "AGE-SECRET-KEY") {
		t.Error("printed: the identity")
	}
	if !strings.Contains(printed, k.ID().String()) {
		t.Error("the backup's id is missing") // The test would see nothing otherwise.
	}
}

// R15, R19: errors of parsers do not repeat what they read.
func TestErrorsDoNotQuote(t *testing.T) {
	k := fixedKeys(0)
	text := string(k.KeyFile().Open())
	for i := range len(text) {
		b := []byte(text)
		b[i] ^= 0x20
		_, err := parseKeyFile(string(b))
		if err == nil {
			t.Fatalf("byte %d is not looked at", i)
		}
		if s := err.Error(); len(s) > 80 || strings.Contains(s, text[i:min(i+8, len(text))]) && i > 200 {
			t.Errorf("error tells %q", s)
		}
	}
}

func TestDeviceKeyOpensNothing(t *testing.T) {
	k := seal.NewKeys()
	d := k.Device(3, seal.NewDeviceID())
	marshalled := d.Marshal().Open()
	for _, s := range k.Secrets() {
		for _, form := range [][]byte{s, []byte(hex.EncodeToString(s)), []byte(base64.StdEncoding.EncodeToString(s))} {
			if bytes.Equal(s, d.Secrets()[0]) {
				continue // The name key.
			}
			if bytes.Contains(marshalled, form) {
				t.Error("a device key holds a key that opens")
			}
		}
	}
	name, data, err := seal.SealSnapshot(d, newSnapshot(k, 1))
	if err != nil {
		t.Fatal(err)
	}
	// Whatever 32 bytes a device has, taken as a payload identity or as a backup
	// key, do not open what it wrote.
	for _, s := range d.Secrets() {
		other, err := seal.DeriveKeys(k.ID(), secretOf(s))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.OpenSnapshot(name, data); !errors.Is(err, seal.ErrNotOurs) {
			t.Errorf("got %v, want ErrNotOurs", err)
		}
		it := seal.NewItem(seal.ItemDescriptors, 1, []byte("thief"))
		other.Sign(&it)
		if err := k.Verify(&it); !errors.Is(err, seal.ErrForged) {
			t.Errorf("got %v, want ErrForged", err)
		}
		if id, err := age.ParseHybridIdentity(identityOf(s)); err != nil {
			t.Fatal(err)
		} else if _, err := age.Decrypt(bytes.NewReader(data), id); err == nil {
			t.Error("a device's key opens as an identity")
		}
	}
}

// R15: an owner item is taken from the owner only, and is bound to what it says.
func TestOwnerItems(t *testing.T) {
	k := seal.NewKeys()
	for _, name := range []string{seal.ItemKeys, seal.ItemDescriptors} {
		it := seal.NewItem(name, 4, []byte("value"))
		if err := k.Verify(&it); !errors.Is(err, seal.ErrForged) {
			t.Errorf("without MAC: got %v, want ErrForged", err)
		}
		k.Sign(&it)
		if err := k.Verify(&it); err != nil {
			t.Error(err)
		}
		for what, change := range map[string]func(*seal.Item){
			"version": func(it *seal.Item) { it.Version++ },
			"size":    func(it *seal.Item) { it.Size++ },
			"sha256":  func(it *seal.Item) { it.SHA256[0]++ },
			"removed": func(it *seal.Item) { it.Removed = true },
			"short":   func(it *seal.Item) { it.Owner = it.Owner[:16] },
			"empty":   func(it *seal.Item) { it.Owner = []byte{} },
		} {
			changed := it
			change(&changed)
			if err := k.Verify(&changed); !errors.Is(err, seal.ErrForged) {
				t.Errorf("%s changed: got %v, want ErrForged", what, err)
			}
		}
	}
	it := seal.NewItem("labels", 1, nil)
	if k.Sign(&it); it.Owner != nil || k.Verify(&it) != nil {
		t.Error("labels are an owner item")
	}
}

// A device cannot write in another epoch, for another device, or in another
// backup, whatever it puts into header and name.
func TestDeviceWritesForItselfOnly(t *testing.T) {
	k := fixedKeys(0)
	device, other := seal.NewDeviceID(), seal.NewDeviceID()
	d := k.Device(2, device)
	for what, as := range map[string]*seal.DeviceKey{
		"later epoch":   k.Device(3, device),
		"earlier epoch": k.Device(1, device),
		"device":        k.Device(2, other),
	} {
		s := newSnapshot(k, 1)
		if _, _, err := seal.SealSnapshot(as, s); err != nil { // Fills the header as it would be.
			t.Fatal(err)
		}
		plain, err := seal.Plaintext(as, s)
		if err != nil {
			t.Fatal(err)
		}
		n := seal.SnapshotName{Epoch: as.Epoch(), Generation: 1, Device: as.Device(), Hash: fakeHash}
		if _, err := seal.ParseSnapshot(k, bytes.NewReader(plain), n); err != nil {
			t.Fatal(err)
		}
		forged := finish(d, body(string(plain)))
		if _, err := seal.ParseSnapshot(k, strings.NewReader(forged), n); !errors.Is(err, seal.ErrForged) {
			t.Errorf("%s: got %v, want ErrForged", what, err)
		}
	}
	// The keys of all devices, epochs and backups differ.
	seen := map[string]string{}
	for _, keys := range []*seal.Keys{k, fixedKeys(1)} {
		for epoch := uint64(1); epoch < 12; epoch++ {
			for _, dev := range []seal.DeviceID{device, other} {
				key := keys.Device(epoch, dev)
				who := key.String()
				w := string(key.Secrets()[1])
				if seen[w] != "" {
					t.Errorf("%s and %s have one writer key", who, seen[w])
				}
				seen[w] = who
			}
		}
	}
}

// R11: a slot over its limit is refused before it is looked at.
func TestSlotLimit(t *testing.T) {
	id, err := age.NewScryptIdentity("x")
	if err != nil {
		t.Fatal(err)
	}
	counted := &counter{Identity: id}
	r, err := age.NewScryptRecipient("x")
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(10)
	if _, err := seal.OpenSlot(seal.Encrypt(make([]byte, seal.MaxSlot), r), counted); !errors.Is(err, seal.ErrDamaged) || counted.n != 0 {
		t.Errorf("got %v, %d attempts", err, counted.n)
	}
	if _, err := seal.SealSlot(seal.NewKeys(), longRecipient{}); err == nil {
		t.Error("a slot over its limit was sealed")
	}
}

type counter struct {
	age.Identity
	n int
}

func (c *counter) Unwrap(s []*age.Stanza) ([]byte, error) { c.n++; return c.Identity.Unwrap(s) }

type longRecipient struct{}

func (longRecipient) Wrap([]byte) ([]*age.Stanza, error) {
	return []*age.Stanza{{Type: "x", Body: make([]byte, seal.MaxSlot)}}, nil
}
