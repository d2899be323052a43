package seal

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/satchel-backup/satchel/store"
)

// Item is one line of a snapshot: a named piece of a wallet, and where its
// value stands. Unless Removed, exactly one of Inline, Object, In and Pack says
// where.
type Item struct {
	Name     string
	Version  uint64 // the generation that wrote the value, or removed it
	Removed  bool   // the item is gone; the fields below but Owner mean nothing
	Size     int64  // bytes of the value
	SHA256   [32]byte
	Required bool   // a restore without this item is incomplete
	Owner    []byte // 32 bytes, the owner MAC; nil unless an owner item

	Inline bool   // the snapshot carries the value, in Data
	Data   []byte // the value, at most MaxInline bytes

	Object store.Hash   // the value is an object of its own
	In     SnapshotName // the value is inline in this earlier snapshot

	Pack   ObjectName // the value is in a pack, at Offset; Pack.Dir is implied
	Offset int64
}

// NewItem returns the line of a value, without saying where it stands.
func NewItem(name string, version uint64, value []byte) Item {
	return Item{Name: name, Version: version, Size: int64(len(value)), SHA256: sha256.Sum256(value)}
}

// Matches reports whether value is what the line describes.
func (it *Item) Matches(value []byte) bool {
	return !it.Removed && int64(len(value)) == it.Size && sha256.Sum256(value) == it.SHA256
}

// ownerMAC returns the MAC that only the owner can make for this line.
func (k *Keys) ownerMAC(it *Item) []byte {
	size, sum := fmt.Sprint(it.Size), hex.EncodeToString(it.SHA256[:])
	if it.Removed {
		size, sum = "removed", ""
	}
	m := hmac.New(sha256.New, k.owner.Open())
	fmt.Fprintf(m, "satchel/v1/owner-item\n%s\n%d\n%s\n%s\n", it.Name, it.Version, size, sum)
	return m.Sum(nil)
}

// Sign sets the owner MAC of an owner item and leaves any other as it is.
func (k *Keys) Sign(it *Item) {
	if OwnerItem(it.Name) {
		it.Owner = k.ownerMAC(it)
	}
}

// Verify returns ErrForged unless an owner item carries the owner's MAC. Other
// items need none.
func (k *Keys) Verify(it *Item) error {
	if OwnerItem(it.Name) && !hmac.Equal(it.Owner, k.ownerMAC(it)) {
		return fmt.Errorf("item %s: %w", it.Name, ErrForged)
	}
	return nil
}

// SealItem seals a value as an object of its own. The object's name follows
// from the item's name, the version and the sealed bytes.
func SealItem(d *DeviceKey, name string, version uint64, value []byte) (ObjectName, []byte, error) {
	return sealObject(d, d.Dir(name), version, value)
}

// PackDir returns the directory of packs below "items/".
func (d *DeviceKey) PackDir() string { return opaque(d.name, "satchel/v1/pack") }

// PackDir returns the directory of packs below "items/".
func (k *Keys) PackDir() string { return opaque(k.name, "satchel/v1/pack") }

// SealPack seals several values into one object. Value i stands at the sum of
// the sizes before it.
func SealPack(d *DeviceKey, version uint64, values [][]byte) (ObjectName, []byte, error) {
	return sealObject(d, d.PackDir(), version, bytes.Join(values, nil))
}

func sealObject(d *DeviceKey, dir string, version uint64, value []byte) (ObjectName, []byte, error) {
	if len(value) > MaxValue {
		return ObjectName{}, nil, fmt.Errorf("value of %d bytes: Satchel keeps at most %d", len(value), MaxValue)
	}
	padded := make([]byte, Padded(int64(len(value))))
	copy(padded, value)
	data, err := encrypt(padded, d.recipient)
	if err != nil {
		return ObjectName{}, nil, fmt.Errorf("sealing an item: %w", err)
	}
	return ObjectName{Dir: dir, Version: version, Hash: store.Sum(data)}, data, nil
}

// ItemObject returns the name of the object that holds the value of a line with
// Object or Pack set, and false for any other line.
func (k *Keys) ItemObject(it *Item) (ObjectName, bool) {
	return itemObject(it, k.Dir(it.Name), k.PackDir())
}

// ItemObject returns the name of the object that holds the value of a line with
// Object or Pack set, and false for any other line.
func (d *DeviceKey) ItemObject(it *Item) (ObjectName, bool) {
	return itemObject(it, d.Dir(it.Name), d.PackDir())
}

func itemObject(it *Item, dir, packDir string) (ObjectName, bool) {
	switch {
	case it.Removed:
	case it.Object != "":
		return ObjectName{Dir: dir, Version: it.Version, Hash: it.Object}, true
	case it.Pack.Hash != "":
		return ObjectName{Dir: packDir, Version: it.Pack.Version, Hash: it.Pack.Hash}, true
	}
	return ObjectName{}, false
}

// OpenItem returns the value of a line from the object that holds it. It
// verifies object hash, padding, size and SHA-256, not the owner MAC.
func (k *Keys) OpenItem(it *Item, object []byte) ([]byte, error) {
	name, ok := k.ItemObject(it)
	if !ok {
		return nil, fmt.Errorf("opening item: it has no object of its own")
	}
	plain, err := k.openObject(name, object)
	if err != nil {
		return nil, fmt.Errorf("opening object %s: %w", name.Path(), err)
	}
	value := plain
	if it.Pack.Hash != "" {
		if it.Offset > int64(len(plain)) || it.Size > int64(len(plain))-it.Offset {
			return nil, fmt.Errorf("opening object %s: %w", name.Path(), ErrDamaged)
		}
		value = plain[it.Offset : it.Offset+it.Size]
	} else {
		if int64(len(plain)) != Padded(it.Size) || !allZero(plain[it.Size:]) {
			return nil, fmt.Errorf("opening object %s: %w", name.Path(), ErrDamaged)
		}
		value = plain[:it.Size]
	}
	if !it.Matches(value) {
		return nil, fmt.Errorf("opening object %s: %w", name.Path(), ErrDamaged)
	}
	return value, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// openObject returns an object's plaintext with its padding.
func (k *Keys) openObject(name ObjectName, object []byte) ([]byte, error) {
	if !name.Hash.Matches(object) {
		return nil, misfit(object)
	}
	r, err := k.decryptPayload(object)
	if err != nil {
		return nil, err
	}
	limit := Padded(MaxValue)
	plain := make([]byte, 0, len(object))
	buf := bytes.NewBuffer(plain)
	n, err := io.Copy(buf, io.LimitReader(r, limit+1))
	if err != nil {
		return nil, readError(err)
	}
	if n > limit {
		return nil, ErrDamaged
	}
	return buf.Bytes(), nil
}

// misfit says how bytes that do not have the hash in their name are damaged.
// Sealed plaintexts have PADMÉ lengths, and few lengths are: another length
// means a file that was cut short, most likely.
func misfit(object []byte) error {
	n := int64(len(object)) - payloadOverhead
	const chunk, tag = 64 << 10, 16
	if n > 0 {
		n -= (n + chunk + tag - 1) / (chunk + tag) * tag
	}
	if n <= 0 || n != Padded(n) {
		return ErrTruncated
	}
	return ErrDamaged
}

// payloadOverhead is the length of an age header with one mlkem768x25519 stanza,
// and of the nonce behind it.
const payloadOverhead = 1707
