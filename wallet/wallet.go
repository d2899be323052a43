// Package wallet holds the keys of a Bitcoin wallet: words, extended keys,
// addresses, descriptors, labels.
//
//	keys, err := wallet.New(wallet.Mainnet, 12, "2026-11-23")
//	...
//	text, err := keys.Text()              // what a person reads when they open the backup
//	desc, err := keys.Descriptors(0)      // what a watching wallet needs
//	...
//	again, err := wallet.ParseKeys(text)
//	err = again.Matches(desc)             // the same fingerprint and first addresses
//
// It knows no backups and touches no network, disk or clock. Words, seeds,
// passphrases and private keys are [secret.Bytes]; no error of this package
// contains them, or any other part of its input.
package wallet

import (
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/chaincfg/v2"
)

var (
	// ErrDamaged says that a text is not exactly what this package writes.
	ErrDamaged = errors.New("damaged, or not written by Satchel")
	// ErrNewer says that a text has a version this software does not know.
	ErrNewer = errors.New("written by a newer version of Satchel")
	// ErrOtherWallet says that two things that should describe one wallet do
	// not. The text that wraps it names what differs.
	ErrOtherWallet = errors.New("not the same wallet")
	// ErrNetwork says that a [Network] is none of the four.
	ErrNetwork = errors.New("unknown Bitcoin network")
	// ErrNoKeys says that a value was never filled: the zero [Keys],
	// [Words], [Account] or [Descriptors].
	ErrNoKeys = errors.New("no keys")
)

// Network names a Bitcoin network, as it is written in a backup.
type Network string

// The networks. Testnet stands for testnet3 and testnet4, which share keys and
// addresses.
const (
	Mainnet Network = "mainnet"
	Testnet Network = "testnet"
	Signet  Network = "signet"
	Regtest Network = "regtest"
)

// ParseNetwork reads the name of a network, else returns ErrNetwork.
func ParseNetwork(name string) (Network, error) {
	n := Network(name)
	if _, err := n.params(); err != nil {
		return "", err
	}
	return n, nil
}

func (n Network) params() (*chaincfg.Params, error) {
	switch n {
	case Mainnet:
		return &chaincfg.MainNetParams, nil
	case Testnet:
		return &chaincfg.TestNet3Params, nil
	case Signet:
		return &chaincfg.SigNetParams, nil
	case Regtest:
		return &chaincfg.RegressionNetParams, nil
	}
	return nil, fmt.Errorf("%w (want mainnet, testnet, signet or regtest)", ErrNetwork)
}

// coinType is the second step of an account's path, without its hardening
// (SLIP 44): 0 for mainnet, 1 for every test network.
func (n Network) coinType() uint32 {
	if n == Mainnet {
		return 0
	}
	return 1
}
