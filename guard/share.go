package guard

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"unicode/utf8"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/text/unicode/norm"

	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// Labels of what is derived from the PIN and the secret.
const (
	labelInput      = "satchel/v1/pin-input\n"
	labelMask       = "satchel/v1/share-mask\n"
	labelProof      = "satchel/v1/proof-key\n"
	labelCommitment = "satchel/v1/pin-commitment"
	labelWrap       = "satchel/v1/pin-wrap"
	labelSecond     = "satchel/v1/pin-passphrase-commitment"
	labelSecondWrap = "satchel/v1/pin-passphrase-wrap"
)

const maxTyped = 1024 // bytes of a PIN or passphrase, before and after normalisation

// normalise brings what was typed into the form that is used, so that every keyboard
// gives the same bytes.
func normalise(f norm.Form, typed secret.Bytes) (secret.Bytes, error) {
	b := typed.Open()
	switch {
	case len(b) == 0:
		return secret.Bytes{}, fmt.Errorf("%w: it is empty", ErrPIN)
	case len(b) > maxTyped:
		return secret.Bytes{}, fmt.Errorf("%w: it is longer than %d bytes", ErrPIN, maxTyped)
	case !utf8.Valid(b):
		return secret.Bytes{}, fmt.Errorf("%w: it is not valid UTF-8", ErrPIN)
	}
	text := f.Append(nil, b...)
	defer clear(text)
	// x/text breaks long runs of combining marks with a joiner, others do not.
	joiner := []byte("\u034f")
	if len(text) > maxTyped || bytes.Count(text, joiner) != bytes.Count(b, joiner) {
		return secret.Bytes{}, fmt.Errorf("%w: it is too long, or has too many combining marks", ErrPIN)
	}
	return secret.New(text), nil
}

// input returns what the function is evaluated on.
func (k *KDF) input(pin secret.Bytes) (secret.Bytes, error) {
	text, err := normalise(norm.NFKC, pin)
	if err != nil {
		return secret.Bytes{}, err
	}
	u := k.stretch(text)
	return secret.New(append([]byte(labelInput), u.Open()...)), nil
}

// mask returns the number that hides the share of an account: what its key gives for
// the PIN. It is added, not XORed, so that a wrong PIN gives another share, and never
// what could not be one.
func mask(output []byte, a protocol.Account) group.Scalar {
	return group.Ristretto255.HashToScalar(output, append([]byte(labelMask), a[:]...))
}

// opener is the secret of a slot, with what follows from it.
type opener struct {
	slot   *Slot
	secret secret.Bytes // scalarSize bytes
}

// newShares shares a fresh secret. Share i belongs to guardian i.
func newShares(t, n int) (s secret.Bytes, shares []group.Scalar, err error) {
	value := group.Ristretto255.RandomNonZeroScalar(rand.Reader)
	b, err := value.MarshalBinary()
	if err != nil {
		return secret.Bytes{}, nil, err
	}
	for _, share := range secretsharing.New(rand.Reader, uint(t-1), value).Share(uint(n)) {
		shares = append(shares, share.Value)
	}
	return secret.New(b), shares, nil
}

// combine puts the secret together from shares by the numbers of their guardians,
// which count from 1.
func combine(t int, numbers []int, shares []group.Scalar) (secret.Bytes, error) {
	var list []secretsharing.Share
	for i, n := range numbers {
		list = append(list, secretsharing.Share{ID: group.Ristretto255.NewScalar().SetUint64(uint64(n)), Value: shares[i]})
	}
	value, err := secretsharing.Recover(uint(t-1), list)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("combining shares: %w", err)
	}
	b, err := value.MarshalBinary()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("combining shares: %w", err)
	}
	return secret.New(b), nil
}

// derive is HKDF-SHA256, bound to the public part of the slot.
func (o *opener) derive(key []byte, label string) []byte {
	salt := sha256.Sum256(append([]byte(labelPublic), o.slot.public()...))
	b, err := hkdf.Key(sha256.New, key, salt[:], label, 32)
	if err != nil {
		panic(err) // Only for outputs far longer than ours.
	}
	return b
}

// right reports whether it is the secret that the slot commits to.
func (o *opener) right() bool {
	return subtle.ConstantTimeCompare(o.derive(o.secret.Open(), labelCommitment), o.slot.Commitment[:]) == 1
}

// second returns the secret with what the passphrase adds.
func (o *opener) second(passphrase secret.Bytes) ([]byte, error) {
	text, err := normalise(norm.NFC, passphrase)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPassphrase, err)
	}
	v := o.slot.Passphrase.stretch(text)
	return append(bytes.Clone(o.secret.Open()), v.Open()...), nil
}

// noNonce is right because each slot has a wrapping key of its own, used once.
var noNonce = make([]byte, chacha20poly1305.NonceSize)

// seal completes a slot: commitments, and the file key wrapped.
func (o *opener) seal(fileKey, passphrase secret.Bytes) error {
	if fileKey.Len() != FileKeySize {
		return fmt.Errorf("a file key of %d bytes", fileKey.Len())
	}
	copy(o.slot.Commitment[:], o.derive(o.secret.Open(), labelCommitment))
	key := o.derive(o.secret.Open(), labelWrap)
	if o.slot.Passphrase != nil {
		both, err := o.second(passphrase)
		if err != nil {
			return err
		}
		defer clear(both)
		copy(o.slot.Second[:], o.derive(both, labelSecond))
		key = o.derive(both, labelSecondWrap)
	}
	defer clear(key)
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		return err
	}
	copy(o.slot.Wrapped[:], aead.Seal(nil, noNonce, fileKey.Open(), nil))
	return nil
}

// FileKey returns the key that the slot wraps. The passphrase is looked at only if the
// slot asks for one; with another it is ErrPassphrase, and may be tried again: that
// costs no guess.
func (o *opener) FileKey(passphrase secret.Bytes) (secret.Bytes, error) {
	key := o.derive(o.secret.Open(), labelWrap)
	if o.slot.Passphrase != nil {
		both, err := o.second(passphrase)
		if err != nil {
			return secret.Bytes{}, err
		}
		defer clear(both)
		if subtle.ConstantTimeCompare(o.derive(both, labelSecond), o.slot.Second[:]) != 1 {
			return secret.Bytes{}, ErrPassphrase
		}
		key = o.derive(both, labelSecondWrap)
	}
	defer clear(key)
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		return secret.Bytes{}, err
	}
	b, err := aead.Open(nil, noNonce, o.slot.Wrapped[:], nil)
	if err != nil {
		return secret.Bytes{}, ErrSlotDamaged
	}
	defer clear(b)
	return secret.New(b), nil
}

// proofKey is the key that only the right PIN yields, another one for each account.
func (o *opener) proofKey(a protocol.Account) ed25519.PrivateKey {
	seed, err := hkdf.Key(sha256.New, o.secret.Open(), nil, labelProof+string(a[:]), ed25519.SeedSize)
	if err != nil {
		panic(err) // As in derive.
	}
	return ed25519.NewKeyFromSeed(seed)
}

// Slot returns the slot that is open.
func (o *opener) Slot() *Slot { return o.slot }

// Authority returns what may replace and end the accounts of the slot.
func (o *opener) Authority() Authority { return Authority{protocol.ByProofKey, o.proofKey} }
