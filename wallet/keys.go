package wallet

import (
	"bytes"
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
	// ErrPassphraseKind says that an extended key was given a passphrase: it has none.
	ErrPassphraseKind = errors.New("an extended key has no passphrase")
	// ErrDate says that a date is not of the form 2026-11-23.
	ErrDate = errors.New("a date is written as 2026-11-23")
	// ErrOpaque says that a wallet's keys are the words of an lnd node: nobody but lnd
	// makes keys, addresses or descriptors of them.
	ErrOpaque = errors.New("these are lnd's own (aezeed) words: only lnd makes keys and addresses of them")
	// ErrNoWords says that a wallet's keys are an extended key, which has no words.
	ErrNoWords = errors.New("this wallet has no words: its keys are an extended key (xprv)")
)

// Kind says what a wallet's keys are made from.
type Kind string

// The kinds.
const (
	KindBIP39  Kind = "bip39"  // BIP 39 words
	KindAezeed Kind = "aezeed" // the words of an lnd node; see [Aezeed]
	KindXPrv   Kind = "xprv"   // an extended master key (BIP 32), without words
)

// ErrKind says that a [Kind] is none of the three.
var ErrKind = errors.New("unknown kind of keys")

// ParseKind reads the name of a kind, else returns ErrKind.
func ParseKind(name string) (Kind, error) {
	switch k := Kind(name); k {
	case KindBIP39, KindAezeed, KindXPrv:
		return k, nil
	}
	return "", fmt.Errorf("%w (want bip39, aezeed or xprv)", ErrKind)
}

// PassphraseState says what is known of the BIP 39 passphrase of a wallet.
type PassphraseState string

// The states.
const (
	NoPassphrase     PassphraseState = "none"   // The wallet has none.
	KeptPassphrase   PassphraseState = "kept"   // It is kept with the words.
	NeededPassphrase PassphraseState = "needed" // It exists, and was deliberately not kept.
)

// Keys is what is kept of one wallet: words and their passphrase, or an extended
// master key; network, fingerprint and date. Make one with [New], [Import],
// [ImportAezeed], [ImportXPrv] or [ParseKeys]; the zero value holds none and its
// methods return ErrNoKeys. Keys do not change and are safe for concurrent use.
type Keys struct {
	kind        Kind
	words       Words        // KindBIP39
	aezeed      Aezeed       // KindAezeed
	xprv        secret.Bytes // KindXPrv, as text
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

// ImportConfig says what Import has to know beside the words or the key.
type ImportConfig struct {
	// Network must be set.
	Network Network
	// Made is the date since when the wallet has been in use, as
	// 2026-11-23; empty if that is not known.
	Made string
	// Passphrase is the BIP 39 passphrase, or that of an aezeed, at most
	// MaxPassphrase bytes of UTF-8. Empty: there is none.
	Passphrase secret.Bytes
	// KeepPassphrase writes the passphrase down beside the words. If false,
	// a backup only says that there is one, and whoever restores it must know
	// it.
	KeepPassphrase bool
}

// Import takes over the words of an existing wallet. It returns ErrNoKeys,
// ErrNetwork, ErrDate or ErrBadPassphrase, and ErrAezeedWords for an lnd node's words
// that happen to be a BIP 39 sentence too, which one in 256 is.
func Import(words Words, c ImportConfig) (Keys, error) {
	if words.aezeed() {
		return Keys{}, &WordsError{Problem: LndWords, Count: words.count, Language: English}
	}
	return importKeys(Keys{kind: KindBIP39, words: words}, c)
}

// ImportAezeed takes over the words of an lnd node. Its passphrase, if there is one,
// cannot be verified: only lnd can. It returns the errors of Import.
func ImportAezeed(words Aezeed, c ImportConfig) (Keys, error) {
	return importKeys(Keys{kind: KindAezeed, aezeed: words}, c)
}

// ImportXPrv takes over a wallet by its extended master key: xprv, or tprv on the test
// networks. It has no passphrase. Errors beside those of Import: ErrExtendedKey,
// ErrPublicKey, ErrNotMaster and ErrKeyNetwork.
func ImportXPrv(key secret.Bytes, c ImportConfig) (Keys, error) {
	text := bytes.TrimSpace(key.Open())
	return importKeys(Keys{kind: KindXPrv, xprv: secret.New(text)}, c)
}

func importKeys(k Keys, c ImportConfig) (Keys, error) {
	k.state, k.passphrase, k.network, k.made = NoPassphrase, c.Passphrase, c.Network, c.Made
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
	if k.kind == KindAezeed {
		return k, nil
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
	if k.IsZero() {
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
	if k.kind == KindXPrv && (k.state != NoPassphrase || !k.passphrase.Empty()) {
		return ErrPassphraseKind
	}
	return nil
}

// IsZero reports whether there are no keys.
func (k Keys) IsZero() bool {
	return k.words.Count() == 0 && k.aezeed.sentence.Empty() && k.xprv.Empty()
}

// Kind says what the keys are made from; empty for the zero value.
func (k Keys) Kind() Kind { return k.kind }

// Words are the words of the wallet: none unless its kind is KindBIP39.
func (k Keys) Words() Words { return k.words }

// Aezeed is the words of an lnd node: none unless the kind is KindAezeed.
func (k Keys) Aezeed() Aezeed { return k.aezeed }

// XPrv is the extended master key, as text (BIP 32): empty unless the kind is
// KindXPrv.
func (k Keys) XPrv() secret.Bytes { return k.xprv }

// Written is what the owner writes down to have the wallet without any backup: the
// words of either kind as a person should see them, else the extended key. The caller
// may wipe it.
func (k Keys) Written() secret.Bytes {
	switch k.kind {
	case KindAezeed:
		return secret.New(k.aezeed.sentence.Open())
	case KindXPrv:
		return secret.New(k.xprv.Open())
	}
	return k.words.Display()
}

// WordCount is the number of words of either kind, 0 if there are none.
func (k Keys) WordCount() int {
	if k.kind == KindAezeed {
		return AezeedWords
	}
	return k.words.Count()
}

// IsWord reports whether typed is the word at a position, counted from 1, as a person
// may write it. Keys without words have none.
func (k Keys) IsWord(position int, typed secret.Bytes) bool {
	if k.kind == KindAezeed {
		return k.aezeed.Is(position, typed)
	}
	return k.words.Is(position, typed)
}

// Network is the network of the wallet.
func (k Keys) Network() Network { return k.network }

// Fingerprint is the fingerprint of the master key (BIP 32, the first 4 bytes
// of its identifier) as 8 lower-case hex digits. It takes the passphrase into
// account. It is not secret, and recognises the wallet: do not log it. Of KindAezeed
// it is not known, and empty.
func (k Keys) Fingerprint() string { return k.fingerprint }

// Made is the date since when the wallet has been in use, as 2026-11-23, or
// empty if that is not known.
func (k Keys) Made() string { return k.made }

// PassphraseState says whether the words have a passphrase and whether it is
// kept. It stays NeededPassphrase after WithPassphrase.
func (k Keys) PassphraseState() PassphraseState { return k.state }

// Passphrase is that of the words: empty if there is none, or if it is
// needed and was not supplied.
func (k Keys) Passphrase() secret.Bytes { return k.passphrase }

// WithPassphrase supplies a passphrase that was not kept. The result can
// derive, and its text form still does not contain the passphrase. A passphrase
// that leads to another fingerprint is ErrPassphrase. That of an aezeed is taken as it
// is: only lnd can verify it.
func (k Keys) WithPassphrase(passphrase secret.Bytes) (Keys, error) {
	k.passphrase, k.supplied = passphrase, true
	if err := k.check(); err != nil {
		return Keys{}, err
	}
	if k.kind == KindAezeed {
		if k.state != NeededPassphrase && !passphrase.Empty() {
			return Keys{}, ErrPassphrase
		}
		return k, nil
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
		if k.kind == KindXPrv {
			return fmt.Errorf("%w: the key has another fingerprint", ErrOtherWallet)
		}
		return fmt.Errorf("%w: the words have another fingerprint", ErrOtherWallet)
	}
	return nil
}

// Equal reports, in constant time as far as secrets go, whether both are the
// same wallet, kept in the same way.
func (k Keys) Equal(other Keys) bool {
	same := k.words.Equal(other.words)
	same = k.aezeed.Equal(other.aezeed) && same
	same = k.xprv.Equal(other.xprv) && same
	same = k.passphrase.Equal(other.passphrase) && same
	return same && k.kind == other.kind && k.state == other.state && k.network == other.network &&
		k.fingerprint == other.fingerprint && k.made == other.made
}

// Seed is the 64-byte BIP 39 seed, passphrase included. It returns
// ErrPassphraseNeeded, ErrNoKeys, or for other kinds of keys ErrOpaque or ErrNoWords.
func (k Keys) Seed() (secret.Bytes, error) {
	switch k.kind {
	case KindAezeed:
		return secret.Bytes{}, ErrOpaque
	case KindXPrv:
		return secret.Bytes{}, ErrNoWords
	}
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
