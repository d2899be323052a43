// Package keychain keeps small secrets, such as a device key, in the keychain of
// the system, or in files where there is none.
//
// When a device is set up, [Open] finds out which of the two there is:
//
//	k, kind, warning := keychain.Open(dir)
//	if warning != "" { /* say it aloud */ }
//	err := k.Set("device-key-1a2b", key)
//
// The caller records kind, and ever after uses the same one:
//
//	k, err := keychain.ByKind(kind, dir)
//	key, err := k.Get("device-key-1a2b")
//
// so that a keychain that is locked today is an error ([ErrUnavailable]) and not
// a reason to make another key.
package keychain

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/satchel-backup/satchel/secret"
)

// MaxSecret is the number of bytes in a secret that every keychain holds.
const MaxSecret = 1024

var (
	// ErrNotFound says that the keychain answered and has no secret of the name.
	// For a secret that was stored once it means loss, not a first start.
	ErrNotFound = errors.New("not in the keychain")
	// ErrUnavailable says that the keychain is locked, absent or did not answer,
	// or that the user refused. Nothing is known about the secret; after Set and
	// Delete, it may be the old one or the new.
	ErrUnavailable = errors.New("keychain is not available")
	// ErrDamaged says that what is stored under the name is not what Set writes.
	ErrDamaged = errors.New("secret in the keychain is damaged")
	// ErrExposed says that other users of the machine can read the secret's file,
	// or that it is no file of its own. It was not read.
	ErrExposed = errors.New("secret's file is open to other users")
)

// Keychain keeps small secrets under names. Methods may be called concurrently;
// of two processes that set one name, one wins. Names are 1 to 100 lower-case
// letters, digits, hyphens, dots and underscores, beginning with a letter or a
// digit.
type Keychain interface {
	// Get returns the secret, or ErrNotFound only if it is certain that there is
	// none.
	Get(name string) (secret.Bytes, error)
	// Set stores a secret of 1 to MaxSecret bytes, in place of one that is there,
	// and reads it back. After an error either may be there.
	Set(name string, s secret.Bytes) error
	// Delete removes the secret. One that is not there is no error.
	Delete(name string) error
	// Where says for people where the secrets are.
	Where() string
}

// Kind names a keychain in the caller's records.
type Kind string

// The kinds of keychain.
const (
	KindSystem Kind = "system" // System
	KindFile   Kind = "file"   // File
)

// ByKind returns the keychain of the kind that Open told; dir is for files.
func ByKind(kind Kind, dir string) (Keychain, error) {
	switch kind {
	case KindSystem:
		return System(), nil
	case KindFile:
		return File(dir), nil
	}
	return nil, errors.New("unknown kind of keychain")
}

// Open returns the keychain to begin with: the system's if it keeps what it is
// given, which is tried, and else files in dir. Then warning is a sentence for
// the user, without a period. It waits some seconds for a system that does not
// answer, and may make the system ask the user to unlock the keychain.
//
// It is for new devices only: see ByKind.
func Open(dir string) (k Keychain, kind Kind, warning string) {
	return open(System(), dir)
}

func open(system *Store, dir string) (k Keychain, kind Kind, warning string) {
	if err := system.probe(probeWait); err != nil {
		k = File(dir)
		return k, KindFile, fmt.Sprintf("keys are kept in %s, because the system's %v", k.Where(), err)
	}
	return system, KindSystem, ""
}

func checkName(name string) error {
	ok := len(name) >= 1 && len(name) <= 100 && name[0] != '-' && name[0] != '.' && name[0] != '_' && name[len(name)-1] != '.'
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
	}
	if !ok {
		return errors.New("unusable name of a secret")
	}
	return nil
}

// textPrefix begins the text of a secret, as keychains take text only.
const textPrefix = "satchel-1:"

// encode returns the secret as text.
func encode(s secret.Bytes) (string, error) {
	if s.Empty() || s.Len() > MaxSecret {
		return "", fmt.Errorf("secret of %d bytes does not fit", s.Len())
	}
	return textPrefix + base64.StdEncoding.EncodeToString(s.Open()), nil
}

// maxText is the length of the longest text.
const maxText = len(textPrefix) + (MaxSecret+2)/3*4

// decode accepts what encode returns and nothing else.
func decode(text string) (secret.Bytes, error) {
	body, ok := strings.CutPrefix(text, textPrefix)
	if !ok || len(text) > maxText {
		return secret.Bytes{}, ErrDamaged
	}
	b, err := base64.StdEncoding.Strict().DecodeString(body)
	if err != nil {
		return secret.Bytes{}, ErrDamaged
	}
	s := secret.New(b)
	clear(b)
	if again, err := encode(s); err != nil || again != text {
		return secret.Bytes{}, ErrDamaged
	}
	return s, nil
}
