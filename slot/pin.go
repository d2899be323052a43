package slot

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"filippo.io/age"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/secret"
)

// ErrOtherBackup says that a PIN slot belongs to another backup than the one that it was
// found in. Nothing was sent to a guardian.
var ErrOtherBackup = errors.New("the PIN slot belongs to another backup")

const (
	pinStanza  = "satchel-pin"
	pinVersion = "1"
)

// ReadPIN reads what a sealed PIN slot says about its guardians. Nothing is decrypted
// and nothing is sent. backup is the id of the backup that the slot was found in, zero if
// that is not known. The error is ErrKind, ErrParameters, ErrNewerKind, ErrOtherBackup, or
// guard.ErrSlotDamaged, which is damage or somebody's doing: no guess is to be spent.
//
//	s, err := slot.ReadPIN(object, id)     // show client.Status(ctx, s); ask for the PIN
//	r, err := client.Recover(s, pin)
//	o, err := r.Open(ctx)
//	keys, err := seal.OpenSlot(object, slot.PINIdentity(o, passphrase))
//	if keys.ID() is the backup's           // as s.Backup says
//	told, err := o.Finish(ctx)
func ReadPIN(object []byte, backup guard.ID) (*guard.Slot, error) {
	var look lookIdentity
	if _, err := age.Decrypt(bytes.NewReader(object), &look); look.slot == nil && look.err == nil {
		return nil, fmt.Errorf("%w: %w", ErrParameters, err)
	}
	if look.err != nil {
		return nil, look.err
	}
	if backup != (guard.ID{}) && look.slot.Backup != backup {
		return nil, ErrOtherBackup
	}
	return look.slot, nil
}

// lookIdentity opens nothing and keeps what it saw.
type lookIdentity struct {
	slot *guard.Slot
	err  error
}

// Unwrap implements age.Identity.
func (l *lookIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	l.slot, l.err = ParsePIN(stanzas)
	return nil, age.ErrIncorrectIdentity
}

// ParsePIN reads the stanza of a PIN slot, which stands alone in its header.
func ParsePIN(stanzas []*age.Stanza) (*guard.Slot, error) {
	found := 0
	for _, s := range stanzas {
		if s.Type == pinStanza {
			found++
		}
	}
	if found == 0 {
		return nil, noMatch{ErrKind}
	}
	if len(stanzas) != 1 {
		return nil, fmt.Errorf("%w: it has more than one recipient", ErrParameters)
	}
	s := stanzas[0]
	if len(s.Args) == 0 {
		return nil, fmt.Errorf("%w: it is malformed", ErrParameters)
	}
	if n, ok := parseWorkFactor(s.Args[0]); !ok {
		return nil, fmt.Errorf("%w: it is malformed", ErrParameters)
	} else if n > 1 {
		return nil, ErrNewerKind
	}
	if len(s.Args) != 2 || len(s.Body) > guard.MaxSlotSize {
		return nil, fmt.Errorf("%w: it is malformed", ErrParameters)
	}
	slot, err := guard.ParseSlot(s.Body)
	switch {
	case errors.Is(err, guard.ErrNewer):
		return nil, ErrNewerKind
	case err != nil:
		return nil, err
	case s.Args[1] != hashArg(slot):
		return nil, fmt.Errorf("%w: its hash is another", guard.ErrSlotDamaged)
	}
	return slot, nil
}

func hashArg(s *guard.Slot) string {
	h := s.Hash()
	return base64.RawStdEncoding.EncodeToString(h[:])
}

// PINRecipient returns the age recipient that writes the slot of an enrolment. It must
// be the file's only one, which age enforces, and writes one file.
func PINRecipient(e *guard.Enrolment) age.Recipient { return &pinRecipient{e} }

type pinRecipient struct{ e *guard.Enrolment }

var _ age.RecipientWithLabels = (*pinRecipient)(nil)

// Wrap implements age.Recipient.
func (r *pinRecipient) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	stanzas, _, err := r.WrapWithLabels(fileKey)
	return stanzas, err
}

// WrapWithLabels implements age.RecipientWithLabels. The random label keeps other
// recipients out of the file.
func (r *pinRecipient) WrapWithLabels(fileKey []byte) ([]*age.Stanza, []string, error) {
	s, err := r.e.Wrap(secret.New(fileKey))
	if err != nil {
		return nil, nil, err
	}
	var label [16]byte
	rand.Read(label[:])
	stanza := &age.Stanza{Type: pinStanza, Args: []string{pinVersion, hashArg(s)}, Body: s.Bytes()}
	return []*age.Stanza{stanza}, []string{hex.EncodeToString(label[:])}, nil
}

// PINIdentity returns the age identity that opens the slot which was recovered, and no
// other. The passphrase is looked at only if the slot asks for one; a wrong one is
// ErrWrongSecret and guard.ErrPassphrase, and costs no guess.
func PINIdentity(o *guard.Opened, passphrase secret.Bytes) age.Identity {
	return &pinIdentity{func(s *guard.Slot) (secret.Bytes, error) {
		if s.Hash() != o.Slot().Hash() {
			return secret.Bytes{}, guard.ErrSlotDamaged
		}
		return o.FileKey(passphrase)
	}}
}

// EnrolledPIN returns the age identity that opens what the recipient of the same
// enrolment wrote, when it is read back. It asks nobody.
func EnrolledPIN(e *guard.Enrolment) age.Identity { return &pinIdentity{e.FileKey} }

type pinIdentity struct {
	open func(*guard.Slot) (secret.Bytes, error)
}

var _ age.Identity = (*pinIdentity)(nil)

// Unwrap implements age.Identity.
func (i *pinIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	s, err := ParsePIN(stanzas)
	if err != nil {
		return nil, err
	}
	key, err := i.open(s)
	if errors.Is(err, guard.ErrPassphrase) {
		return nil, fmt.Errorf("%w: %w", ErrWrongSecret, err)
	}
	if err != nil {
		return nil, err
	}
	return bytes.Clone(key.Open()), nil
}
