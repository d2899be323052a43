package wallet

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/btcsuite/btcd/txscript/v2"

	"github.com/satchel-backup/satchel/secret"
)

const (
	// MaxIndex is the largest account number and address index (BIP 32).
	MaxIndex = hdkeychain.HardenedKeyStart - 1

	accountDepth = 3 // m / purpose' / coin' / account'
)

var (
	// ErrIndex says that an account number or address index is above
	// MaxIndex, or a number of addresses is negative or too large.
	ErrIndex = errors.New("account or address number out of range")
	// ErrScheme says that a [Scheme] is none of the four.
	ErrScheme = errors.New("unknown kind of account")
)

// Scheme is a kind of account: which path its keys have and which addresses.
type Scheme string

// The schemes, each named for its BIP.
const (
	BIP84 Scheme = "bip84" // P2WPKH, native segwit: bc1q…
	BIP86 Scheme = "bip86" // P2TR, taproot: bc1p…
	BIP49 Scheme = "bip49" // P2SH-P2WPKH, nested segwit: 3…
	BIP44 Scheme = "bip44" // P2PKH, legacy: 1…
)

// Schemes lists all schemes, the usual one first.
func Schemes() []Scheme { return []Scheme{BIP84, BIP86, BIP49, BIP44} }

// purpose is the first step of the path, 0 for no scheme of ours.
func (s Scheme) purpose() uint32 {
	switch s {
	case BIP84:
		return 84
	case BIP86:
		return 86
	case BIP49:
		return 49
	case BIP44:
		return 44
	}
	return 0
}

// Account is the public part of one account: it makes addresses and
// descriptors, and cannot spend. Whoever has it sees every payment. The zero value
// is empty and its methods return ErrNoKeys or nothing.
type Account struct {
	network     Network
	scheme      Scheme
	number      uint32
	fingerprint string // of the master key
	xpub        string
}

// Account derives the public part of an account. It returns ErrScheme, ErrIndex
// and the errors of Seed.
func (k Keys) Account(s Scheme, number uint32) (Account, error) {
	all, err := k.accounts(number, s)
	if err != nil {
		return Account{}, err
	}
	return all[0], nil
}

// accounts derives the public part of an account number in each of the schemes.
func (k Keys) accounts(number uint32, schemes ...Scheme) ([]Account, error) {
	var all []Account
	err := k.eachAccount(number, schemes, func(s Scheme, key *hdkeychain.ExtendedKey) error {
		a, err := k.publicAccount(s, number, key)
		all = append(all, a)
		return err
	})
	return all, err
}

func (k Keys) publicAccount(s Scheme, number uint32, key *hdkeychain.ExtendedKey) (Account, error) {
	xpub, err := key.Neuter()
	if err != nil {
		return Account{}, fmt.Errorf("deriving the account: %w", err)
	}
	return Account{k.network, s, number, k.fingerprint, xpub.String()}, nil
}

// PrivateAccount is one account with its private key: whoever has it can spend
// all of the account.
type PrivateAccount struct {
	Account
	xprv secret.Bytes
}

// PrivateAccount derives an account with its private key. It returns the errors
// of Account.
func (k Keys) PrivateAccount(s Scheme, number uint32) (PrivateAccount, error) {
	all, err := k.privateAccounts(number, s)
	if err != nil {
		return PrivateAccount{}, err
	}
	return all[0], nil
}

// privateAccounts derives an account number in each of the schemes.
func (k Keys) privateAccounts(number uint32, schemes ...Scheme) ([]PrivateAccount, error) {
	var all []PrivateAccount
	err := k.eachAccount(number, schemes, func(s Scheme, key *hdkeychain.ExtendedKey) error {
		public, err := k.publicAccount(s, number, key)
		all = append(all, PrivateAccount{public, secret.FromString(key.String())})
		return err
	})
	return all, err
}

// master is the BIP 32 master key. The caller must Zero it.
func (k Keys) master() (*hdkeychain.ExtendedKey, error) {
	if k.kind == KindXPrv {
		return parseMasterKey(k.xprv, k.network)
	}
	seed, err := k.Seed()
	if err != nil {
		return nil, err
	}
	defer seed.Wipe()
	return masterKey(seed, k.network)
}

func masterKey(seed secret.Bytes, n Network) (*hdkeychain.ExtendedKey, error) {
	params, err := n.params()
	if err != nil {
		return nil, err
	}
	key, err := hdkeychain.NewMaster(seed.Open(), params)
	if err != nil {
		return nil, fmt.Errorf("deriving the master key: %w", err)
	}
	return key, nil
}

// fingerprint is the first 4 bytes of the key's identifier (BIP 32), in hex.
func fingerprint(key *hdkeychain.ExtendedKey) (string, error) {
	pub, err := key.ECPubKey()
	if err != nil {
		return "", fmt.Errorf("deriving the fingerprint: %w", err)
	}
	return hex.EncodeToString(address.Hash160(pub.SerializeCompressed())[:4]), nil
}

// eachAccount calls do with the private key of an account number in each of the schemes,
// and zeroes it. The master key is made once for all of them: from words that is far
// more work than all that follows.
func (k Keys) eachAccount(number uint32, schemes []Scheme, do func(Scheme, *hdkeychain.ExtendedKey) error) error {
	for _, s := range schemes {
		if s.purpose() == 0 {
			return ErrScheme
		}
	}
	if number > MaxIndex {
		return ErrIndex
	}
	master, err := k.master()
	if err != nil {
		return err
	}
	defer master.Zero()
	const hard = hdkeychain.HardenedKeyStart
	for _, s := range schemes {
		key, err := derive(master, hard+s.purpose(), hard+k.network.coinType(), hard+number)
		if err != nil {
			return err
		}
		err = do(s, key)
		key.Zero()
		if err != nil {
			return err
		}
	}
	return nil
}

// derive follows a path and zeroes every key on it but the first and the last.
func derive(key *hdkeychain.ExtendedKey, path ...uint32) (*hdkeychain.ExtendedKey, error) {
	for i, step := range path {
		child, err := key.Derive(step)
		if i > 0 {
			key.Zero()
		}
		if err != nil {
			return nil, fmt.Errorf("deriving a key: %w", err)
		}
		key = child
	}
	return key, nil
}

// Network is the network of the account.
func (a Account) Network() Network { return a.network }

// Scheme is the kind of account.
func (a Account) Scheme() Scheme { return a.scheme }

// Number is the account number, from 0.
func (a Account) Number() uint32 { return a.number }

// Fingerprint is that of the wallet's master key, as [Keys.Fingerprint].
func (a Account) Fingerprint() string { return a.fingerprint }

// XPub is the extended public key (BIP 32): xpub… on mainnet, else tpub….
func (a Account) XPub() string { return a.xpub }

// Path is the path of the account from the master key, like m/84h/0h/0h.
func (a Account) Path() string { return "m/" + a.steps() }

func (a Account) steps() string {
	return fmt.Sprintf("%dh/%dh/%dh", a.scheme.purpose(), a.network.coinType(), a.number)
}

// XPrv is the extended private key (BIP 32): xprv… on mainnet, else tprv….
func (a PrivateAccount) XPrv() secret.Bytes { return a.xprv }

// Address is the address at an index, from 0, of the receive chain or the
// change chain.
func (a Account) Address(change bool, index uint32) (string, error) {
	if index > MaxIndex {
		return "", ErrIndex
	}
	chain, err := a.chain(change)
	if err != nil {
		return "", err
	}
	return a.address(chain, index)
}

// Addresses are the first n addresses of the receive chain or the change
// chain, at most 10,000.
func (a Account) Addresses(change bool, n int) ([]string, error) {
	if n < 0 || n > 10_000 {
		return nil, ErrIndex
	}
	chain, err := a.chain(change)
	if err != nil {
		return nil, err
	}
	all := make([]string, n)
	for i := range all {
		if all[i], err = a.address(chain, uint32(i)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// chain is the key of receive (0) or change (1) addresses (BIP 44).
func (a Account) chain(change bool) (*hdkeychain.ExtendedKey, error) {
	if a.xpub == "" {
		return nil, ErrNoKeys
	}
	key, err := hdkeychain.NewKeyFromString(a.xpub)
	if err != nil {
		return nil, ErrExtendedKey
	}
	return key.Derive(chainIndex(change))
}

func chainIndex(change bool) uint32 {
	if change {
		return 1
	}
	return 0
}

func (a Account) address(chain *hdkeychain.ExtendedKey, index uint32) (string, error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("deriving an address: %w", err) }
	params, err := a.network.params()
	if err != nil {
		return fail(err)
	}
	key, err := chain.Derive(index)
	if err != nil {
		return fail(err)
	}
	pub, err := key.ECPubKey()
	if err != nil {
		return fail(err)
	}
	hash := address.Hash160(pub.SerializeCompressed())
	var to address.Address
	switch a.scheme {
	case BIP44:
		to, err = address.NewAddressPubKeyHash(hash, params)
	case BIP49:
		// The redeem script of P2SH-P2WPKH: OP_0, then the hash (BIP 141).
		redeem := append([]byte{txscript.OP_0, txscript.OP_DATA_20}, hash...)
		to, err = address.NewAddressScriptHash(redeem, params)
	case BIP84:
		to, err = address.NewAddressWitnessPubKeyHash(hash, params)
	case BIP86:
		// BIP 86: no script tree, so the tweak commits to the key alone.
		to, err = address.NewAddressTaproot(schnorr.SerializePubKey(txscript.ComputeTaprootKeyNoScript(pub)), params)
	default:
		return fail(ErrScheme)
	}
	if err != nil {
		return fail(err)
	}
	return to.EncodeAddress(), nil
}
