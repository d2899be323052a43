// Package slot holds the ways to open a backup key: a passphrase, a recovery
// code, the words of the wallet, and a PIN that key servers guard (see ReadPIN).
//
// A slot is an ordinary age file. This package supplies the age recipient that
// writes it and the age identity that opens it; package seal owns the bytes
// inside and knows nothing of slots. What people type is brought into one form
// here and nowhere else, and that form is exactly what the stock age command
// must be given:
//
//	way, printed := slot.NewRecoveryCode()
//	recipient, err := way.Recipient()
//	...
//	way, err := slot.RecoveryCode(typed)
//	r, err := age.Decrypt(file, way.Identity())
//
// Opening a slot ends in one of four facts: it opened, [ErrWrongSecret],
// [ErrKind], or [ErrParameters]. The error of age.Decrypt keeps their identity.
// A damaged salt or key in a slot cannot be told from a wrong secret: callers
// compare the hash in the slot's name first.
package slot

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"filippo.io/age"

	"github.com/satchel-backup/satchel/secret"
)

var (
	// ErrWrongSecret says that the slot is sound as far as can be seen, and this
	// secret does not open it.
	ErrWrongSecret = errors.New("wrong secret")
	// ErrKind says that the file is not a slot of this kind. No secret was tried.
	ErrKind = errors.New("not a slot of this kind")
	// ErrParameters says that the slot asks for more or less work than Satchel
	// ever writes, or is malformed: someone other than Satchel may have written
	// it. No secret was tried and no memory taken.
	ErrParameters = errors.New("slot has parameters that Satchel does not accept")
	// ErrNewerKind says that a later version of Satchel may open the slot.
	ErrNewerKind = errors.New("newer Satchel needed for this slot")
	// ErrSecret says that a secret does not have the form its kind asks for.
	ErrSecret = errors.New("unusable secret")
)

// Kind is a way to open a backup key, as written in the name of a slot.
type Kind string

const (
	KindPassphrase   Kind = "passphrase"
	KindRecoveryCode Kind = "recovery-code"
	KindWords        Kind = "words"
	KindPIN          Kind = "pin" // not by a Secret: see ReadPIN

	// Reserved: names that this version keeps free and does not open.
	KindDelayed Kind = "delayed"
	KindPasskey Kind = "passkey"
)

// maxKind is the longest kind that is repeated in an error. Names come from the
// cloud and may say anything.
const maxKind = 32

// Known reports whether this version opens slots of the kind.
func (k Kind) Known() bool {
	return k == KindPassphrase || k == KindRecoveryCode || k == KindWords || k == KindPIN
}

// Reserved reports whether the kind is kept for a later version.
func (k Kind) Reserved() bool {
	return k == KindDelayed || k == KindPasskey
}

// ParseKind reads a kind from the name of a slot. The error for one that this
// version does not open is [ErrNewerKind]; such a slot must be left alone.
func ParseKind(name string) (Kind, error) {
	k := Kind(name)
	if k.Known() {
		return k, nil
	}
	if len(name) == 0 || len(name) > maxKind {
		return "", ErrNewerKind
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return "", ErrNewerKind
		}
	}
	return "", fmt.Errorf("%s: %w", name, ErrNewerKind)
}

// Secret is one way in: a kind and the text that age is given. It is made by
// [Passphrase], [RecoveryCode], [NewRecoveryCode] or [Words], is safe for
// concurrent use, and prints as its kind. The zero value opens nothing.
type Secret struct {
	kind Kind
	text secret.Bytes
}

// wordsSecretSize is the length of the secret derived from a wallet's words.
const wordsSecretSize = 32

// Words returns the way in that the words of a wallet give. slotSecret is
// derived from them by package wallet and has 32 bytes; age is given their
// lower-case hex.
func Words(slotSecret secret.Bytes) (Secret, error) {
	if slotSecret.Len() != wordsSecretSize {
		return Secret{}, fmt.Errorf("%w: words give %d bytes, not %d", ErrSecret, wordsSecretSize, slotSecret.Len())
	}
	text := hex.AppendEncode(nil, slotSecret.Open())
	defer clear(text)
	return Secret{KindWords, secret.New(text)}, nil
}

// Kind returns the kind of slot that the secret opens.
func (s Secret) Kind() Kind { return s.kind }

// Recipient returns the age recipient that writes a slot for this secret. It
// must be the file's only one, which age enforces.
func (s Secret) Recipient() (age.Recipient, error) {
	if s.text.Empty() {
		return nil, fmt.Errorf("%w: it is empty", ErrSecret)
	}
	return &scryptRecipient{s, s.kind.workFactors().write}, nil
}

// Identity returns the age identity that opens slots of this kind.
func (s Secret) Identity() age.Identity { return &scryptIdentity{s} }

// String returns the kind and a placeholder.
func (s Secret) String() string { return string(s.kind) + " [secret]" }

// Format writes what String returns, for every verb.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// MarshalText returns what String returns, for JSON, XML and text encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns what String returns.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
