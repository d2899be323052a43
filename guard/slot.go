package guard

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/cloudflare/circl/group"
	"golang.org/x/crypto/argon2"

	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// SlotVersion is the first byte of a PIN slot.
const SlotVersion = 1

// Sizes in bytes.
const (
	FileKeySize = 16
	saltSize    = 16
	scalarSize  = 32
	wrappedSize = FileKeySize + 16
	maxServer   = 255

	// MaxSlotSize is more than any slot has.
	MaxSlotSize = 4096
)

// Bounds of Argon2id that a slot may ask for, memory in KiB.
const (
	minMemory = 8 << 10
	maxMemory = 1 << 20
	maxPasses = 16
	maxLanes  = 16
)

// KDF is how a typed secret is stretched: Argon2id (RFC 9106).
type KDF struct {
	Salt   [saltSize]byte
	Passes uint8
	Lanes  uint8
	Memory uint32 // KiB
}

// Stretch is what slots are written with: the second recommendation of RFC 9106.
var Stretch = KDF{Passes: 3, Lanes: 4, Memory: 64 << 10}

func (k *KDF) check() error {
	if k.Passes < 1 || k.Passes > maxPasses || k.Lanes < 1 || k.Lanes > maxLanes || k.Memory < minMemory || k.Memory > maxMemory {
		return fmt.Errorf("%w: it asks for work that Satchel does not accept", ErrSlotDamaged)
	}
	return nil
}

func (k *KDF) stretch(typed secret.Bytes) secret.Bytes {
	return secret.New(argon2.IDKey(typed.Open(), k.Salt[:], uint32(k.Passes), k.Memory, k.Lanes, 32))
}

// Guardian is one key server as a slot names it.
type Guardian struct {
	Server string
	Access [ed25519.SeedSize]byte // of the key that requests are signed with
	Key    [sha256.Size]byte      // of the public key of its account
	Share  [scalarSize]byte       // masked
}

func (g *Guardian) account() account {
	return account{g.Server, ed25519.NewKeyFromSeed(g.Access[:])}
}

// Slot is what a PIN slot holds besides the backup's key file: docs/format.md, section 4,
// byte by byte. It is public: the cloud has it.
type Slot struct {
	Backup     ID
	Threshold  int
	PIN        KDF
	Passphrase *KDF // nil if the PIN alone opens the slot
	Guardians  []Guardian

	Commitment [32]byte // to the secret
	Second     [32]byte // to the secret with the passphrase, if there is one
	Wrapped    [wrappedSize]byte
}

const flagPassphrase = 1

// public returns the first part, which the secret is bound to.
func (s *Slot) public() []byte {
	b := []byte{SlotVersion, 0}
	if s.Passphrase != nil {
		b[1] = flagPassphrase
	}
	b = append(b, s.Backup[:]...)
	b = append(b, byte(s.Threshold), byte(len(s.Guardians)))
	b, _ = binary.Append(b, binary.BigEndian, &s.PIN) // It has a fixed size.
	if s.Passphrase != nil {
		b, _ = binary.Append(b, binary.BigEndian, s.Passphrase)
	}
	for i := range s.Guardians {
		g := &s.Guardians[i]
		b = append(b, g.Access[:]...)
		b = append(b, g.Key[:]...)
		b = append(b, g.Share[:]...)
		b = append(b, byte(len(g.Server)))
		b = append(b, g.Server...)
	}
	return b
}

// Bytes returns the slot as it is written.
func (s *Slot) Bytes() []byte {
	b := append(s.public(), s.Commitment[:]...)
	if s.Passphrase != nil {
		b = append(b, s.Second[:]...)
	}
	return append(b, s.Wrapped[:]...)
}

// Labels of what is derived from a slot's bytes.
const (
	labelSlot   = "satchel/v1/pin-slot\n"
	labelPublic = "satchel/v1/pin-public\n"
)

// Hash is what guardians know a slot by. Every byte of the slot changes it.
func (s *Slot) Hash() [32]byte { return sha256.Sum256(append([]byte(labelSlot), s.Bytes()...)) }

// Servers returns the guardians' names.
func (s *Slot) Servers() []string {
	list := make([]string, len(s.Guardians))
	for i := range s.Guardians {
		list[i] = s.Guardians[i].Server
	}
	return list
}

// ParseSlot reads what Bytes returned, and nothing else. Errors: ErrSlotDamaged, ErrNewer.
func ParseSlot(b []byte) (*Slot, error) {
	if len(b) > 0 && b[0] > SlotVersion {
		return nil, ErrNewer
	}
	if len(b) > MaxSlotSize {
		return nil, fmt.Errorf("%w: it is too long", ErrSlotDamaged)
	}
	r := bytes.NewReader(b)
	bad := false
	read := func(v any) { bad = binary.Read(r, binary.BigEndian, v) != nil || bad }
	var head struct {
		Version, Flags uint8
		Backup         ID
		T, N           uint8
	}
	read(&head)
	s := &Slot{Backup: head.Backup, Threshold: int(head.T)}
	if bad || head.Version != SlotVersion || head.Flags > flagPassphrase ||
		head.T < 1 || head.T > head.N || head.N > protocol.MaxGuardians {
		return nil, fmt.Errorf("%w: it is malformed", ErrSlotDamaged)
	}
	read(&s.PIN)
	if head.Flags == flagPassphrase {
		s.Passphrase = new(KDF)
		read(s.Passphrase)
	}
	for range head.N {
		var g struct {
			Access, Key, Share [32]byte
			Length             uint8
		}
		read(&g)
		name := make([]byte, g.Length)
		read(name)
		s.Guardians = append(s.Guardians, Guardian{string(name), g.Access, g.Key, g.Share})
	}
	read(&s.Commitment)
	if s.Passphrase != nil {
		read(&s.Second)
	}
	read(&s.Wrapped)
	if bad || r.Len() > 0 {
		return nil, fmt.Errorf("%w: it is cut short or too long", ErrSlotDamaged)
	}
	return s, s.check()
}

// check returns an error unless everything in a slot is what Satchel writes. It costs
// nothing.
func (s *Slot) check() error {
	if err := s.PIN.check(); err != nil {
		return err
	}
	if s.Passphrase != nil {
		if err := s.Passphrase.check(); err != nil {
			return err
		}
	}
	seen := map[string]bool{}
	for i := range s.Guardians {
		g := &s.Guardians[i]
		if err := CheckServer(g.Server); err != nil {
			return fmt.Errorf("%w: %w", ErrSlotDamaged, err)
		}
		if key := string(g.Access[:]); seen[g.Server] || seen[key] {
			return fmt.Errorf("%w: it names a guardian twice", ErrSlotDamaged)
		} else {
			seen[g.Server], seen[key] = true, true
		}
		if _, err := scalar(g.Share[:]); err != nil {
			return fmt.Errorf("%w: a share is no scalar", ErrSlotDamaged)
		}
	}
	return nil
}

var errServer = errors.New("not the name of a key server: https://host, lower case, without a slash at the end")

// CheckServer returns an error unless a text names a server in the one way that is
// used: "https://", host, perhaps port and path, in printable ASCII; "http://" for
// loopback addresses only.
func CheckServer(name string) error {
	if len(name) == 0 || len(name) > maxServer || strings.HasSuffix(name, "/") {
		return errServer
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c > '~' || c == '\\' || c == '%' {
			return errServer
		}
	}
	u, err := url.Parse(name)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.User != nil || u.Host != strings.ToLower(u.Host) || strings.ContainsAny(name, "?#") ||
		strings.HasSuffix(u.Host, ":") || u.String() != name {
		return errServer
	}
	if u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()) {
		return nil
	}
	return errServer
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// scalar decodes a number below the order of the group, in its only encoding.
func scalar(b []byte) (group.Scalar, error) {
	s := group.Ristretto255.NewScalar()
	if err := s.UnmarshalBinary(b); err != nil {
		return nil, err
	}
	if again, err := s.MarshalBinary(); err != nil || !bytes.Equal(again, b) {
		return nil, errors.New("not reduced")
	}
	return s, nil
}
