package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"github.com/btcsuite/btcd/address/v2/bech32"
	"github.com/satchel-backup/satchel/secret"
)

const (
	keySize      = 32
	maxDeviceKey = 16 << 10

	deviceKeyHead = `{"satchel-device-key":`
)

// Keys opens everything in one backup. It exists while a slot is open and is
// never kept on a device. It prints as nothing but its backup's id.
type Keys struct {
	id       BackupID
	key      secret.Bytes // the backup key
	identity *age.HybridIdentity
	name     secret.Bytes
	owner    secret.Bytes
}

// NewKeys returns the keys of a new backup with a random id and backup key.
func NewKeys() *Keys {
	var id BackupID
	rand.Read(id[:])
	k, err := DeriveKeys(id, secret.Random(keySize))
	if err != nil {
		panic(err) // The key has the right size.
	}
	return k
}

// DeriveKeys returns the keys that follow from a backup key of 32 bytes.
func DeriveKeys(id BackupID, backupKey secret.Bytes) (*Keys, error) {
	if backupKey.Len() != keySize {
		return nil, fmt.Errorf("backup key of %d bytes, want %d", backupKey.Len(), keySize)
	}
	k := &Keys{id: id, key: secret.New(backupKey.Open())}
	five, err := bech32.ConvertBits(k.derive("satchel/v1/payload").Open(), 8, 5, true)
	if err != nil {
		return nil, fmt.Errorf("encoding the payload identity: %w", err)
	}
	text, err := bech32.Encode("age-secret-key-pq-", five)
	if err != nil {
		return nil, fmt.Errorf("encoding the payload identity: %w", err)
	}
	if k.identity, err = age.ParseHybridIdentity(strings.ToUpper(text)); err != nil {
		return nil, fmt.Errorf("making the payload identity: %w", err)
	}
	k.name = k.derive("satchel/v1/name")
	k.owner = k.derive("satchel/v1/owner")
	return k, nil
}

// derive is HKDF-SHA256 of the backup key, with the backup id as salt.
func (k *Keys) derive(info string) secret.Bytes {
	b, err := hkdf.Key(sha256.New, k.key.Open(), k.id[:], info, keySize)
	if err != nil {
		panic(err) // Only for outputs far longer than ours.
	}
	return secret.New(b)
}

// ID returns the backup's id.
func (k *Keys) ID() BackupID { return k.id }

// String returns the backup's id and nothing secret.
func (k *Keys) String() string { return "keys of backup " + k.id.String() }

// GoString returns the same as String.
func (k *Keys) GoString() string { return k.String() }

// Format writes the same as String for every verb.
func (k *Keys) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// Device returns the device key of one device for one epoch.
func (k *Keys) Device(epoch uint64, device DeviceID) *DeviceKey {
	return &DeviceKey{
		id: k.id, epoch: epoch, device: device,
		recipient: k.identity.Recipient(),
		name:      k.name,
		writer:    k.writer(epoch, device),
		head:      k.head(epoch),
	}
}

func (k *Keys) writer(epoch uint64, device DeviceID) secret.Bytes {
	return k.derive(fmt.Sprintf("satchel/v1/writer/%d/%s", epoch, device))
}

func (k *Keys) head(epoch uint64) secret.Bytes {
	return k.derive(fmt.Sprintf("satchel/v1/head/%d", epoch))
}

// DeviceKey is what a device keeps in order to add to a backup. It opens
// nothing, and cannot write owner items.
type DeviceKey struct {
	id        BackupID
	epoch     uint64
	device    DeviceID
	recipient *age.HybridRecipient
	name      secret.Bytes
	writer    secret.Bytes
	head      secret.Bytes
}

// Backup returns the backup's id.
func (d *DeviceKey) Backup() BackupID { return d.id }

// Epoch returns the epoch in which the device may write.
func (d *DeviceKey) Epoch() uint64 { return d.epoch }

// Device returns the device's id.
func (d *DeviceKey) Device() DeviceID { return d.device }

// Head returns the key that signs the head of the epoch at key servers.
func (d *DeviceKey) Head() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(d.head.Open()) }

// String returns the backup's and the device's id and nothing secret.
func (d *DeviceKey) String() string {
	return fmt.Sprintf("device %s of backup %s in epoch %d", d.device, d.id, d.epoch)
}

// GoString returns the same as String.
func (d *DeviceKey) GoString() string { return d.String() }

// Format writes the same as String for every verb.
func (d *DeviceKey) Format(f fmt.State, _ rune) { io.WriteString(f, d.String()) }

// Owner returns the key that signs as the owner at key servers: what installs epochs
// there, and replaces and ends accounts. Never kept on a device.
func (k *Keys) Owner() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(k.derive("satchel/v1/owner-signature").Open())
}

// Head returns the key that signs the heads of an epoch at key servers.
func (k *Keys) Head(epoch uint64) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(k.head(epoch).Open())
}

// Dir returns the directory of an item's objects below "items/": its opaque
// name, and "keys" for the item of that name.
func (d *DeviceKey) Dir(item string) string { return dirOf(d.name, item) }

// Dir returns the directory of an item's objects below "items/".
func (k *Keys) Dir(item string) string { return dirOf(k.name, item) }

func dirOf(nameKey secret.Bytes, item string) string {
	if item == ItemKeys {
		return ItemKeys
	}
	return opaque(nameKey, "satchel/v1/item/"+item)
}

func opaque(nameKey secret.Bytes, text string) string {
	m := hmac.New(sha256.New, nameKey.Open())
	io.WriteString(m, text)
	return hex.EncodeToString(m.Sum(nil)[:16])
}

type deviceKeyJSON struct {
	Version   int    `json:"satchel-device-key"`
	Backup    string `json:"backup"`
	Epoch     uint64 `json:"epoch"`
	Device    string `json:"device"`
	Recipient string `json:"recipient"`
	Name      string `json:"name"`
	Writer    string `json:"writer"`
	Head      string `json:"head"`
}

// Marshal returns the device key as the device keeps it, inside what seals it
// there.
func (d *DeviceKey) Marshal() secret.Bytes {
	b, err := json.Marshal(deviceKeyJSON{
		Version: 1, Backup: d.id.String(), Epoch: d.epoch, Device: d.device.String(),
		Recipient: d.recipient.String(),
		Name:      hex.EncodeToString(d.name.Open()),
		Writer:    hex.EncodeToString(d.writer.Open()),
		Head:      hex.EncodeToString(d.head.Open()),
	})
	if err != nil {
		panic(err) // Strings and numbers.
	}
	return secret.New(b)
}

// ParseDeviceKey reads what Marshal returned, and nothing else.
func ParseDeviceKey(text secret.Bytes) (*DeviceKey, error) {
	d, err := parseDeviceKey(text)
	if err != nil {
		return nil, fmt.Errorf("reading a device key: %w", err)
	}
	return d, nil
}

func parseDeviceKey(text secret.Bytes) (*DeviceKey, error) {
	if text.Len() > maxDeviceKey {
		return nil, ErrDamaged
	}
	if err := newer(text.Open(), deviceKeyHead, ",}"); err != nil {
		return nil, err
	}
	var j deviceKeyJSON
	if json.Unmarshal(text.Open(), &j) != nil {
		return nil, ErrDamaged
	}
	d := &DeviceKey{epoch: j.Epoch}
	var name, writer, head [keySize]byte
	for _, f := range []struct {
		dst []byte
		src string
	}{{d.id[:], j.Backup}, {d.device[:], j.Device}, {name[:], j.Name}, {writer[:], j.Writer}, {head[:], j.Head}} {
		if err := parseHex(f.dst, f.src); err != nil {
			return nil, err
		}
	}
	var err error
	if d.recipient, err = age.ParseHybridRecipient(j.Recipient); err != nil || d.epoch < 1 || d.epoch > MaxEpoch {
		return nil, ErrDamaged
	}
	d.name, d.writer, d.head = secret.New(name[:]), secret.New(writer[:]), secret.New(head[:])
	if !d.Marshal().Equal(text) {
		return nil, ErrDamaged
	}
	return d, nil
}

const (
	keyFileHead  = "# Satchel backup key. Whoever has this file can open the backup.\n"
	keyFileLine  = "# satchel-key-file: "
	keyFileID    = "# satchel-backup-id: "
	keyFileKey   = "# satchel-backup-key: "
	keyFileMajor = "1"
)

// KeyFile returns the plaintext of a slot: an age identity file.
func (k *Keys) KeyFile() secret.Bytes {
	return secret.FromString(keyFileHead +
		keyFileLine + keyFileMajor + "\n" +
		keyFileID + k.id.String() + "\n" +
		keyFileKey + hex.EncodeToString(k.key.Open()) + "\n" +
		k.identity.String() + "\n")
}

// ParseKeyFile reads a key file. Every line must be as KeyFile writes it.
func ParseKeyFile(text secret.Bytes) (*Keys, error) {
	k, err := parseKeyFile(text)
	if err != nil {
		return nil, fmt.Errorf("reading a key file: %w", err)
	}
	return k, nil
}

func parseKeyFile(text secret.Bytes) (*Keys, error) {
	if text.Len() > MaxKeyFile {
		return nil, ErrDamaged
	}
	lines := bytes.SplitAfter(text.Open(), []byte("\n"))
	if len(lines) > 1 {
		if err := newer(lines[1], keyFileLine, "\n"); err != nil {
			return nil, err
		}
	}
	if len(lines) != 6 { // Five, and nothing after the last line feed.
		return nil, ErrDamaged
	}
	field := func(i int, prefix string) string {
		s, _ := bytes.CutPrefix(lines[i], []byte(prefix))
		return strings.TrimSuffix(string(s), "\n")
	}
	var id BackupID
	var key [keySize]byte
	defer clear(key[:])
	if err := parseHex(id[:], field(2, keyFileID)); err != nil {
		return nil, err
	}
	if err := parseHex(key[:], field(3, keyFileKey)); err != nil {
		return nil, err
	}
	k, err := DeriveKeys(id, secret.New(key[:]))
	if err != nil {
		return nil, err
	}
	if !k.KeyFile().Equal(text) {
		return nil, ErrDamaged
	}
	return k, nil
}

// SealSlot returns a slot object: the key file, for a recipient of package slot.
func SealSlot(k *Keys, r age.Recipient) ([]byte, error) {
	data, err := encrypt(k.KeyFile().Open(), r)
	if err != nil {
		return nil, fmt.Errorf("sealing a slot: %w", err)
	}
	if len(data) > MaxSlot {
		return nil, fmt.Errorf("slot of %d bytes: at most %d", len(data), MaxSlot)
	}
	return data, nil
}

// OpenSlot opens a slot object. Errors of the identity, such as a wrong secret,
// can be found with errors.Is. The caller has compared data with the hash in
// its name before: a damaged file could otherwise pass for a wrong secret.
func OpenSlot(data []byte, id age.Identity) (*Keys, error) {
	r, err := decrypt(data, MaxSlot, id)
	if err != nil {
		return nil, fmt.Errorf("opening a slot: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(r, MaxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("opening a slot: %w", readError(err))
	}
	defer clear(text)
	return ParseKeyFile(secret.New(text))
}
