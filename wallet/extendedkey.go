package wallet

import (
	"bytes"
	"errors"

	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"

	"github.com/satchel-backup/satchel/secret"
)

const maxExtendedKey = 112 // characters; base58 of 82 bytes has 111

var (
	// ErrExtendedKey says that a text is not an extended key (BIP 32).
	ErrExtendedKey = errors.New("not an extended key")
	// ErrPublicKey says that a key is a public one, where the private is asked for.
	ErrPublicKey = errors.New("this is a public key: it shows payments, and cannot spend")
	// ErrNotMaster says that an extended key is not the master key of a wallet but one
	// derived from it, such as that of an account.
	ErrNotMaster = errors.New("this is not the master key of a wallet, but one derived from it")
	// ErrKeyNetwork says that an extended key is of another network: xprv of mainnet,
	// tprv of the test networks.
	ErrKeyNetwork = errors.New("this key is of another network")
	// ErrNoSLIP132 says that accounts of this kind have no form of their own:
	// SLIP 132 ends before taproot.
	ErrNoSLIP132 = errors.New("taproot accounts have no SLIP 132 form")
)

// keyVersion is the 4 bytes that make an extended key begin with xpub, zprv and
// so on.
type keyVersion struct {
	public, private [4]byte
}

// keyVersions are the registered versions for single-signature wallets (SLIP
// 132; BIP 32 for the first pair of each).
func (n Network) keyVersions() map[Scheme]keyVersion {
	if n == Mainnet {
		xpub := keyVersion{[4]byte{0x04, 0x88, 0xb2, 0x1e}, [4]byte{0x04, 0x88, 0xad, 0xe4}}
		return map[Scheme]keyVersion{
			BIP44: xpub,
			BIP49: {[4]byte{0x04, 0x9d, 0x7c, 0xb2}, [4]byte{0x04, 0x9d, 0x78, 0x78}}, // ypub
			BIP84: {[4]byte{0x04, 0xb2, 0x47, 0x46}, [4]byte{0x04, 0xb2, 0x43, 0x0c}}, // zpub
			BIP86: xpub,
		}
	}
	tpub := keyVersion{[4]byte{0x04, 0x35, 0x87, 0xcf}, [4]byte{0x04, 0x35, 0x83, 0x94}}
	return map[Scheme]keyVersion{
		BIP44: tpub,
		BIP49: {[4]byte{0x04, 0x4a, 0x52, 0x62}, [4]byte{0x04, 0x4a, 0x4e, 0x28}}, // upub
		BIP84: {[4]byte{0x04, 0x5f, 0x1c, 0xf6}, [4]byte{0x04, 0x5f, 0x18, 0xbc}}, // vpub
		BIP86: tpub,
	}
}

// SLIP132 is the extended public key in the form that also says the kind of
// address: zpub (BIP84), ypub (BIP49), xpub (BIP44), and vpub, upub, tpub on the
// test networks, which all share them. Electrum takes it as a "master key" and
// makes a watching wallet of that kind of address. Electrum cannot do taproot:
// BIP86 is ErrNoSLIP132, since its bare xpub would become another wallet.
func (a Account) SLIP132() (string, error) {
	if a.xpub == "" {
		return "", ErrNoKeys
	}
	if a.scheme == BIP86 {
		return "", ErrNoSLIP132
	}
	return a.slip132(a.xpub)
}

// SLIP132Private is the extended private key in the form that also says the
// kind of address: zprv, yprv, xprv, and vprv, uprv, tprv on the test networks.
// In Electrum: "Standard wallet", "Use a master key". It returns the errors of
// SLIP132.
func (a PrivateAccount) SLIP132Private() (secret.Bytes, error) {
	if a.xprv.Empty() {
		return secret.Bytes{}, ErrNoKeys
	}
	if a.scheme == BIP86 {
		return secret.Bytes{}, ErrNoSLIP132
	}
	s, err := a.slip132(string(a.xprv.Open()))
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.FromString(s), nil
}

func (a Account) slip132(s string) (string, error) {
	key, err := hdkeychain.NewKeyFromString(s)
	if err != nil {
		return "", ErrExtendedKey
	}
	version := a.network.keyVersions()[a.scheme]
	to := version.public
	if key.IsPrivate() {
		to = version.private
	}
	again, err := key.CloneWithVersion(to[:])
	if err != nil {
		return "", ErrExtendedKey
	}
	return again.String(), nil
}

// CheckExtendedKey tests everything BIP 32 asks of an extended key, public or
// private, of any network and SLIP 132 form: checksum, known version that agrees
// with the kind of key, a point on the curve or a number in range, and a root
// without parent. All errors are ErrExtendedKey.
func CheckExtendedKey(s string) error {
	_, err := parseExtendedKey(s)
	return err
}

// parseExtendedKey makes up for what hdkeychain does not look at.
func parseExtendedKey(s string) (*hdkeychain.ExtendedKey, error) {
	if len(s) > maxExtendedKey {
		return nil, ErrExtendedKey
	}
	key, err := hdkeychain.NewKeyFromString(s)
	if err != nil {
		return nil, ErrExtendedKey
	}
	known := false
	for _, n := range []Network{Mainnet, Testnet} {
		for _, v := range n.keyVersions() {
			want := v.public
			if key.IsPrivate() {
				want = v.private
			}
			known = known || bytes.Equal(key.Version(), want[:])
		}
	}
	root := key.Depth() == 0
	if !known || root && (key.ParentFingerprint() != 0 || key.ChildIndex() != 0) || key.String() != s {
		return nil, ErrExtendedKey
	}
	return key, nil
}

// parseMasterKey reads a master key that can spend, in the form of BIP 32 that a
// network has: xprv or tprv. The caller must Zero it.
func parseMasterKey(text secret.Bytes, n Network) (*hdkeychain.ExtendedKey, error) {
	if _, err := n.params(); err != nil {
		return nil, err
	}
	key, err := parseExtendedKey(string(text.Open()))
	switch {
	case err != nil:
		return nil, err
	case !key.IsPrivate():
		return nil, ErrPublicKey
	case key.Depth() != 0:
		key.Zero()
		return nil, ErrNotMaster
	}
	for _, other := range []Network{Mainnet, Testnet} {
		version := other.keyVersions()[BIP44].private
		if !bytes.Equal(key.Version(), version[:]) {
			continue
		}
		if (other == Mainnet) == (n == Mainnet) {
			return key, nil
		}
		key.Zero()
		return nil, ErrKeyNetwork
	}
	key.Zero()
	return nil, ErrExtendedKey // A form that says the kind of account: zprv and the like.
}
