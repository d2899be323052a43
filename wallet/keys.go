package wallet

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/satchel-backup/satchel/secret"
)

const (
	// MaxPassphrase is the most bytes of a BIP 39 passphrase.
	MaxPassphrase = 1024
	// SlotSecretSize is the length of a slot secret in bytes.
	SlotSecretSize = 32

	slotContext = "satchel/v1/words-slot"
	dateForm    = "2006-01-02"
)

var (
	// ErrPassphraseNeeded says that the wallet has a BIP 39 passphrase that
	// was not kept: ask for it and call [Keys.WithPassphrase].
	ErrPassphraseNeeded = errors.New("this wallet also needs its BIP 39 passphrase")
	// ErrPassphrase says that a BIP 39 passphrase leads to another wallet:
	// the fingerprint is not the one that was kept.
	ErrPassphrase = errors.New("this BIP 39 passphrase belongs to another wallet")
	// ErrBadPassphrase says that a BIP 39 passphrase is longer than
	// MaxPassphrase or not UTF-8.
	ErrBadPassphrase = fmt.Errorf("a BIP 39 passphrase is UTF-8 of at most %d bytes", MaxPassphrase)
	// ErrDate says that a date is not of the form 2026-11-23.
	ErrDate = errors.New("a date is written as 2026-11-23")
)

// PassphraseState says what is known of the BIP 39 passphrase of a wallet.
type PassphraseState string

// The states.
const (
	NoPassphrase     PassphraseState = "none"   // The wallet has none.
	KeptPassphrase   PassphraseState = "kept"   // It is kept with the words.
	NeededPassphrase PassphraseState = "needed" // It exists, and was deliberately not kept.
)

// Keys is what is kept of one wallet: words, BIP 39 passphrase, network,
// fingerprint and date. Make one with [New], [Import] or [ParseKeys]; the zero
// value holds none and its methods return ErrNoKeys. Keys do not change and are
// safe for concurrent use.
type Keys struct {
	words       Words
	state       PassphraseState
	passphrase  secret.Bytes // Empty while it is needed and not supplied.
	supplied    bool         // A needed passphrase was supplied.
	network     Network
	fingerprint string
	made        string
}

// New makes a wallet with 12 or 24 English words and no passphrase. Made is the
// date, as 2026-11-23, or empty.
func New(network Network, count int, made string) (Keys, error) {
	words, err := NewWords(count)
	if err != nil {
		return Keys{}, err
	}
	return Import(words, ImportConfig{Network: network, Made: made})
}

// ImportConfig says what Import has to know beside the words.
type ImportConfig struct {
	// Network must be set.
	Network Network
	// Made is the date since when the wallet has been in use, as
	// 2026-11-23; empty if that is not known.
	Made string
	// Passphrase is the BIP 39 passphrase, at most MaxPassphrase bytes of
	// UTF-8. Empty: the wallet has none.
	Passphrase secret.Bytes
	// KeepPassphrase writes the passphrase down beside the words. If false,
	// a backup only says that there is one, and whoever restores it must know
	// it.
	KeepPassphrase bool
}

// Import takes over the words of an existing wallet. It returns ErrNoKeys,
// ErrNetwork, ErrDate or ErrBadPassphrase.
func Import(words Words, c ImportConfig) (Keys, error) {
	k := Keys{words: words, state: NoPassphrase, passphrase: c.Passphrase, network: c.Network, made: c.Made}
	switch {
	case c.Passphrase.Empty():
	case c.KeepPassphrase:
		k.state = KeptPassphrase
	default:
		k.state, k.supplied = NeededPassphrase, true
	}
	if err := k.check(); err != nil {
		return Keys{}, err
	}
	master, err := k.master()
	if err != nil {
		return Keys{}, err
	}
	defer master.Zero()
	if k.fingerprint, err = fingerprint(master); err != nil {
		return Keys{}, err
	}
	return k, nil
}

// check tests everything but the fingerprint.
func (k Keys) check() error {
	if k.words.Count() == 0 {
		return ErrNoKeys
	}
	if _, err := k.network.params(); err != nil {
		return err
	}
	if k.made != "" {
		if _, err := time.Parse(dateForm, k.made); err != nil {
			return ErrDate // The error of package time repeats its input.
		}
	}
	if k.passphrase.Len() > MaxPassphrase || !utf8.Valid(k.passphrase.Open()) {
		return ErrBadPassphrase
	}
	return nil
}

// Words are the words of the wallet.
func (k Keys) Words() Words { return k.words }

// Network is the network of the wallet.
func (k Keys) Network() Network { return k.network }

// Fingerprint is the fingerprint of the master key (BIP 32, the first 4 bytes
// of its identifier) as 8 lower-case hex digits. It takes the passphrase into
// account. It is not secret, and recognises the wallet: do not log it.
func (k Keys) Fingerprint() string { return k.fingerprint }

// Made is the date since when the wallet has been in use, as 2026-11-23, or
// empty if that is not known.
func (k Keys) Made() string { return k.made }

// PassphraseState says whether there is a BIP 39 passphrase and whether it is
// kept. It stays NeededPassphrase after WithPassphrase.
func (k Keys) PassphraseState() PassphraseState { return k.state }

// Passphrase is the BIP 39 passphrase: empty if there is none, or if it is
// needed and was not supplied.
func (k Keys) Passphrase() secret.Bytes { return k.passphrase }

// WithPassphrase supplies a passphrase that was not kept. The result can
// derive, and its text form still does not contain the passphrase. A passphrase
// that leads to another fingerprint is ErrPassphrase.
func (k Keys) WithPassphrase(passphrase secret.Bytes) (Keys, error) {
	k.passphrase, k.supplied = passphrase, true
	if err := k.check(); err != nil {
		return Keys{}, err
	}
	if err := k.checkFingerprint(); err != nil {
		if errors.Is(err, ErrOtherWallet) {
			return Keys{}, ErrPassphrase
		}
		return Keys{}, err
	}
	return k, nil
}

// checkFingerprint derives the fingerprint anew.
func (k Keys) checkFingerprint() error {
	master, err := k.master()
	if err != nil {
		return err
	}
	defer master.Zero()
	got, err := fingerprint(master)
	if err != nil {
		return err
	}
	if got != k.fingerprint {
		return fmt.Errorf("%w: the words have another fingerprint", ErrOtherWallet)
	}
	return nil
}

// Equal reports, in constant time as far as secrets go, whether both are the
// same wallet, kept in the same way.
func (k Keys) Equal(other Keys) bool {
	same := k.words.Equal(other.words)
	same = k.passphrase.Equal(other.passphrase) && same
	return same && k.state == other.state && k.network == other.network &&
		k.fingerprint == other.fingerprint && k.made == other.made
}

// Seed is the 64-byte BIP 39 seed, passphrase included. It returns
// ErrPassphraseNeeded, or ErrNoKeys.
func (k Keys) Seed() (secret.Bytes, error) {
	if k.state == NeededPassphrase && !k.supplied {
		return secret.Bytes{}, ErrPassphraseNeeded
	}
	return k.words.Seed(k.passphrase)
}

// SlotSecret is the 32-byte secret of a backup's words slot: HKDF-SHA256 of the
// seed, passphrase included, without salt, info "satchel/v1/words-slot". It tells
// nothing of the keys. It returns the errors of Seed.
func (k Keys) SlotSecret() (secret.Bytes, error) {
	seed, err := k.Seed()
	if err != nil {
		return secret.Bytes{}, err
	}
	defer seed.Wipe()
	b, err := hkdf.Key(sha256.New, seed.Open(), nil, slotContext, SlotSecretSize)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("deriving the slot secret: %w", err)
	}
	defer clear(b)
	return secret.New(b), nil
}
