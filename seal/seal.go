// Package seal turns the pieces of a backup into bytes and back: key files,
// items, snapshots, and the names of the objects that hold them. It is
// docs/format.md in Go, touches no network, disk or clock, and knows nothing of
// how a slot is opened or where objects are kept.
//
// A backup begins with a key and a device that may add to it:
//
//	keys := seal.NewKeys()
//	device := keys.Device(1, seal.NewDeviceID())
//	slotObject, err := seal.SealSlot(keys, recipient)
//	object, err := seal.SealItem(device, "labels", generation, value)
//	name, data, err := seal.SealSnapshot(device, snapshot)
//
// Whoever opens a slot has the [Keys] and can read everything; a [DeviceKey]
// can add and opens nothing. All objects are age files (C2SP age
// specification).
package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"filippo.io/age"
	"github.com/satchel-backup/satchel/store"
)

// Limits of the format, checked before memory is taken.
const (
	MaxValue    = 64 << 20 // bytes in an item's value
	MaxInline   = 2048     // bytes in a value that a snapshot carries itself
	MaxSnapshot = 64 << 20 // bytes in a snapshot's plaintext
	MaxLine     = 4096     // bytes in a line of a snapshot, the pad line aside
	MaxItems    = 1 << 18  // item lines of a snapshot
	MaxKeyFile  = 4096     // bytes in a key file
	MaxSlot     = 64 << 10 // bytes in a slot object
	MaxObject   = store.MaxObject
	MaxDeltas   = 512  // deltas after a checkpoint
	MaxSlots    = 64   // slots of a backup
	MaxPast     = 1000 // earlier epochs that a checkpoint names

	MaxEpoch      = 999_999
	MaxGeneration = 9_999_999_999
)

var (
	// ErrDamaged says that bytes are not what was written: cut short, altered,
	// or written by something else than the format allows.
	ErrDamaged = errors.New("damaged")
	// ErrTruncated is the ErrDamaged of bytes that end too early.
	ErrTruncated = fmt.Errorf("cut short: %w", ErrDamaged)
	// ErrForged says that a snapshot or an owner item does not carry the MAC of
	// the one who alone may write it.
	ErrForged = errors.New("not written by a device of this backup")
	// ErrNotOurs says that an object is whole and does not open with this
	// backup's key: it belongs to another backup.
	ErrNotOurs = errors.New("belongs to another backup")
	// ErrNewer says that a newer version of the format was met.
	ErrNewer = errors.New("written in a newer format")
)

// NewerError is ErrNewer with the software that wrote the object, where it
// could be read.
type NewerError struct {
	Version  int
	Software string // "" if unknown
}

func (e *NewerError) Error() string {
	if e.Software == "" {
		return fmt.Sprintf("%v (version %d)", ErrNewer, e.Version)
	}
	return fmt.Sprintf("%v (version %d, by %s)", ErrNewer, e.Version, e.Software)
}

func (e *NewerError) Is(target error) bool { return target == ErrNewer }

// Padded returns the PADMÉ length of n bytes (Nikitin et al., "Reducing
// Metadata Leakage from Encrypted Files and Communication with PURBs", PETS
// 2019): at most 12 % more, and only O(log log n) bits of n remain visible.
func Padded(n int64) int64 {
	if n < 2 {
		return n
	}
	e := bits.Len64(uint64(n)) - 1
	s := bits.Len(uint(e))
	mask := int64(1)<<(e-s) - 1
	return (n + mask) &^ mask
}

// encrypt seals plaintext to one recipient.
func encrypt(plaintext []byte, r age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	out.Grow(len(plaintext) + len(plaintext)/1000 + 2048)
	w, err := age.Encrypt(&out, r)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plaintext); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// decrypt opens data and returns a reader of its plaintext. An error of the
// identity comes back as it is; any other says that data is not an age file.
func decrypt(data []byte, limit int, id age.Identity) (io.Reader, error) {
	if len(data) > limit {
		return nil, fmt.Errorf("object of %d bytes: %w", len(data), ErrDamaged)
	}
	heard := &listener{Identity: id}
	r, err := age.Decrypt(bytes.NewReader(data), heard)
	switch {
	case err == nil:
		return r, nil
	case heard.err != nil:
		return nil, heard.err
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, ErrTruncated
	}
	return nil, fmt.Errorf("not an age file: %w", ErrDamaged)
}

// listener remembers what its identity said.
type listener struct {
	age.Identity
	err error
}

func (l *listener) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	key, err := l.Identity.Unwrap(stanzas)
	l.err = err
	return key, err
}

// decryptPayload is decrypt with the payload identity: an object that it does
// not open belongs to another backup.
func (k *Keys) decryptPayload(data []byte) (io.Reader, error) {
	r, err := decrypt(data, MaxObject, sole{k.identity})
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, ErrNotOurs
	}
	return r, err
}

// sole is an identity for files with one recipient and no other. That is what
// we write, and it bounds the work that a header can ask for.
type sole struct{ age.Identity }

func (s sole) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if len(stanzas) != 1 {
		return nil, fmt.Errorf("sealed to %d recipients: %w", len(stanzas), ErrDamaged)
	}
	key, err := s.Identity.Unwrap(stanzas)
	if err != nil && !errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, fmt.Errorf("malformed header: %w", ErrDamaged)
	}
	return key, err
}

// newer returns a NewerError if text is head, then a major version above 1, a
// decimal number of up to nine digits, and then one of the characters in ends.
// Every version of the format begins so.
func newer(text []byte, head, ends string) error {
	rest, ok := bytes.CutPrefix(text, []byte(head))
	if !ok {
		return nil
	}
	i := bytes.IndexAny(rest, ends)
	if i < 1 || i > 9 || rest[0] == '0' {
		return nil
	}
	version := 0
	for _, c := range rest[:i] {
		if c < '0' || c > '9' {
			return nil
		}
		version = 10*version + int(c-'0')
	}
	if version <= 1 {
		return nil
	}
	return &NewerError{Version: version}
}

// readError names what went wrong while reading a plaintext.
func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return ErrDamaged
}
