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
	if err := CheckItemName(name); err != nil {
		return ObjectName{}, nil, fmt.Errorf("sealing an item: %w", err)
	}
	return sealObject(d, d.Dir(name), version, value)
}

// PackDir returns the directory of packs below "items/".
func (d *DeviceKey) PackDir() string { return opaque(d.name, "satchel/v1/pack") }

// PackDir returns the directory of packs below "items/".
func (k *Keys) PackDir() string { return opaque(k.name, "satchel/v1/pack") }

// SealPack seals several values into one object. Value i stands at the sum of
// the sizes before it; together they are at most MaxValue bytes.
func SealPack(d *DeviceKey, version uint64, values [][]byte) (ObjectName, []byte, error) {
	return sealObject(d, d.PackDir(), version, bytes.Join(values, nil))
}

func sealObject(d *DeviceKey, dir string, version uint64, value []byte) (ObjectName, []byte, error) {
	if len(value) > MaxValue {
		return ObjectName{}, nil, fmt.Errorf("value of %d bytes: Satchel keeps at most %d", len(value), MaxValue)
	}
	if version < 1 || version > MaxGeneration {
		return ObjectName{}, nil, fmt.Errorf("sealing an item: no generation %d", version)
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
	return itemObject(it, k)
}

// ItemObject returns the name of the object that holds the value of a line with
// Object or Pack set, and false for any other line.
func (d *DeviceKey) ItemObject(it *Item) (ObjectName, bool) {
	return itemObject(it, d)
}

func itemObject(it *Item, key interface {
	Dir(string) string
	PackDir() string
}) (ObjectName, bool) {
	switch {
	case it.Removed:
	case it.Object != "":
		return ObjectName{Dir: key.Dir(it.Name), Version: it.Version, Hash: it.Object}, true
	case it.Pack.Hash != "":
		return ObjectName{Dir: key.PackDir(), Version: it.Pack.Version, Hash: it.Pack.Hash}, true
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
	if it.Size < 0 || it.Size > MaxValue || it.Offset < 0 {
		return nil, fmt.Errorf("opening object %s: %w", name.Path(), ErrDamaged)
	}
	if it.Object == "" {
		pack, err := k.OpenPack(name, object)
		if err != nil {
			return nil, err
		}
		return it.FromPack(pack)
	}
	limit := Padded(it.Size)
	plain, err := k.openObject(nil, name.Hash, object, limit)
	if err != nil {
		return nil, fmt.Errorf("opening object %s: %w", name.Path(), err)
	}
	if int64(len(plain)) != limit || !allZero(plain[it.Size:]) || !it.Matches(plain[:it.Size]) {
		return nil, fmt.Errorf("opening object %s: %w", name.Path(), ErrDamaged)
	}
	return plain[:it.Size], nil
}

// OpenPack returns the plaintext of a pack, out of which FromPack takes values. It
// verifies the object's hash and the padding.
func (k *Keys) OpenPack(name ObjectName, object []byte) ([]byte, error) {
	return k.OpenPackInto(nil, name, object)
}

// OpenPackInto is OpenPack that takes the room of dst, whatever stands there, if that
// is enough: for who opens many packs and needs one at a time.
func (k *Keys) OpenPackInto(dst []byte, name ObjectName, object []byte) ([]byte, error) {
	plain, err := k.openObject(dst, name.Hash, object, MaxValue)
	if n := int64(len(plain)); err == nil && n != Padded(n) {
		err = ErrDamaged
	}
	if err != nil {
		return nil, fmt.Errorf("opening object %s: %w", name.Path(), err)
	}
	return plain, nil
}

// FromPack returns the value of a line with Pack set out of the pack's plaintext. It
// verifies place, size and SHA-256, not the owner MAC.
func (it *Item) FromPack(pack []byte) ([]byte, error) {
	n := int64(len(pack))
	if it.Size < 0 || it.Offset < 0 || it.Offset > n || it.Size > n-it.Offset || !it.Matches(pack[it.Offset:it.Offset+it.Size]) {
		return nil, fmt.Errorf("taking an item out of pack %d: %w", it.Pack.Version, ErrDamaged)
	}
	return pack[it.Offset : it.Offset+it.Size], nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// openObject returns an object's plaintext, padding included, of at most limit
// bytes.
func (k *Keys) openObject(dst []byte, hash store.Hash, object []byte, limit int64) ([]byte, error) {
	if store.Sum(object) != hash {
		return nil, Misfit(object)
	}
	r, err := k.decryptPayload(object)
	if err != nil {
		return nil, err
	}
	// A plaintext is shorter than its object. One byte over the limit tells one
	// that is too long, and lets age see the end of one that is not.
	plain := bytes.NewBuffer(dst[:0])
	plain.Grow(int(min(limit, int64(len(object)))) + bytes.MinRead)
	if n, err := plain.ReadFrom(io.LimitReader(r, limit+1)); err != nil {
		return nil, readError(err)
	} else if n > limit {
		return nil, ErrDamaged
	}
	return plain.Bytes(), nil
}

// Misfit says how bytes that do not have the hash in their name are damaged.
// Sealed plaintexts have PADMÉ lengths, and few lengths are: another length
// means a file that was cut short, most likely.
func Misfit(object []byte) error {
	n := int64(len(object)) - payloadOverhead
	const chunk, tag = 64 << 10, 16
	n -= (n + chunk + tag - 1) / (chunk + tag) * tag
	if n < 0 || n != Padded(n) {
		return ErrTruncated
	}
	return ErrDamaged
}

// payloadOverhead is the length of an age header with one mlkem768x25519 stanza,
// and of the nonce behind it.
const payloadOverhead = 1643

// Opens returns nil if an item's or a pack's object is whole and of this
// backup. It does not see whether the value is the right one.
func (k *Keys) Opens(name ObjectName, object []byte) error {
	_, err := k.OpenPack(name, object)
	return err
}
