package seal_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/btcsuite/btcd/address/v2/bech32"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
)

func newSnapshot(k *seal.Keys, gen uint64) *seal.Snapshot {
	keys := seal.Item{Name: seal.ItemKeys, Version: 1, Required: true, Object: "0123456789abcdef0123456789abcdef", Size: 1024}
	desc := seal.NewItem(seal.ItemDescriptors, 1, []byte("{}"))
	desc.Required, desc.Inline, desc.Data = true, true, []byte("{}")
	k.Sign(&keys)
	k.Sign(&desc)
	return &seal.Snapshot{Generation: gen, Time: time.Unix(1e9, 5), Software: "satchel/0.1.0", Kind: seal.Checkpoint, HasSlots: true, Items: []seal.Item{keys, desc}}
}

func TestSnapshotRoundTrip(t *testing.T) {
	k := seal.NewKeys()
	d := k.Device(1, seal.NewDeviceID())
	s := newSnapshot(k, 1)
	name, data, err := seal.SealSnapshot(d, s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := k.OpenSnapshot(name, data)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got.Items {
		if err := k.Verify(&got.Items[i]); err != nil {
			t.Error(err)
		}
	}
	t.Log(len(data), name.Path())
	if err := seal.Misfit(data); errors.Is(err, seal.ErrTruncated) {
		t.Error("a whole snapshot passes for one that was cut short")
	}
	if _, err := seal.NewKeys().OpenSnapshot(name, data); !errors.Is(err, seal.ErrNotOurs) {
		t.Errorf("got %v, want ErrNotOurs", err)
	}
	if _, err := k.OpenSnapshot(name, data[:len(data)-100]); !errors.Is(err, seal.ErrTruncated) {
		t.Errorf("got %v, want ErrTruncated", err)
	}
	d2, err := seal.ParseDeviceKey(d.Marshal())
	if err != nil || !d2.Marshal().Equal(d.Marshal()) {
		t.Errorf("device key does not survive: %v", err)
	}
}

// R5: bytes of a length that sealing gives are damaged, others were cut short, and
// the document tells the length of the header.
func TestMisfit(t *testing.T) {
	d := seal.NewKeys().Device(1, seal.NewDeviceID())
	for _, size := range []int{0, 1, 9, 1000, 5000, 65535, 65536, 65537, 200_000} {
		_, data, err := seal.SealItem(d, "x", 1, make([]byte, size))
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Index(data, []byte("\n--- ")) + 1 + 48; got != 1627 {
			t.Fatalf("the header has %d bytes, and docs/format.md says 1,627", got)
		}
		if err := seal.Misfit(data); err != seal.ErrDamaged {
			t.Errorf("size %d: got %v for a whole length, want ErrDamaged", size, err)
		}
		if err := seal.Misfit(data[:len(data)/2]); size > 9 && !errors.Is(err, seal.ErrTruncated) {
			t.Errorf("size %d: got %v for half of it, want ErrTruncated", size, err)
		}
	}
}

func TestItemAndSlotRoundTrip(t *testing.T) {
	k := seal.NewKeys()
	d := k.Device(1, seal.NewDeviceID())
	for _, n := range []int{0, 1, 2, 3000, 1 << 16, 1<<16 + 1, 1 << 20} {
		value := bytes.Repeat([]byte{7}, n)
		name, data, err := seal.SealItem(d, "labels", 3, value)
		if err != nil {
			t.Fatal(err)
		}
		it := seal.NewItem("labels", 3, value)
		it.Object = name.Hash
		got, err := k.OpenItem(&it, data)
		if err != nil || !bytes.Equal(got, value) {
			t.Errorf("%d bytes: got %d, %v", n, len(got), err)
		}
	}
	r, _ := age.NewScryptRecipient("correct")
	r.SetWorkFactor(10)
	data, err := seal.SealSlot(k, r)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := age.NewScryptIdentity("correct")
	k2, err := seal.OpenSlot(data, id)
	if err != nil || !k2.KeyFile().Equal(k.KeyFile()) {
		t.Errorf("slot: %v", err)
	}
	id, _ = age.NewScryptIdentity("wrong")
	if _, err = seal.OpenSlot(data, id); !errors.Is(err, age.ErrIncorrectIdentity) {
		t.Errorf("got %v", err)
	}
}

func mustTime(s string) time.Time { return must(time.Parse(time.RFC3339, s)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func secretOf(b []byte) secret.Bytes { return secret.New(b) }

func parseKeyFile(text string) (*seal.Keys, error) { return seal.ParseKeyFile(secret.FromString(text)) }

// identityOf is the payload identity of a seed.
func identityOf(seed []byte) string {
	five, err := bech32.ConvertBits(seed, 8, 5, true)
	if err != nil {
		panic(err)
	}
	return strings.ToUpper(must(bech32.Encode("age-secret-key-pq-", five)))
}
