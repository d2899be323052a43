package wallet

import (
	"errors"
	"fmt"
	"strings"

	"github.com/satchel-backup/satchel/secret"
)

const (
	// MaxDescriptor is the most bytes of a descriptor. Up to here its
	// checksum finds any three wrong characters (BIP 380).
	MaxDescriptor = 49154

	checksumSize = 8
	// The characters of a descriptor, in the order that gives their value,
	// and those of the checksum (BIP 380).
	descriptorCharset = "0123456789()[],'/*abcdefgh@:$%{}" +
		"IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~" +
		"ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
	checksumCharset = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
)

var (
	// ErrDescriptor says that a descriptor is too long or has a character
	// that none may have.
	ErrDescriptor = errors.New("not a descriptor")
	// ErrDescriptorChecksum says that the checksum of a descriptor is missing
	// or wrong.
	ErrDescriptorChecksum = errors.New("the checksum of the descriptor does not fit")
)

// DescriptorChecksum computes the 8 characters that follow the # of an output
// descriptor (BIP 380), given what precedes it. It returns ErrDescriptor.
func DescriptorChecksum(descriptor string) (string, error) {
	if len(descriptor) > MaxDescriptor {
		return "", fmt.Errorf("%w: longer than %d bytes", ErrDescriptor, MaxDescriptor)
	}
	// Each character is its place in a group of 32; after every third, and at
	// the end, follow the numbers of their groups.
	check := uint64(1)
	groups, pending := 0, 0
	for i := range len(descriptor) {
		v := strings.IndexByte(descriptorCharset, descriptor[i])
		if v < 0 {
			return "", fmt.Errorf("%w: bad character at byte %d", ErrDescriptor, i)
		}
		check = polymod(check, v&31)
		groups, pending = groups*3+(v>>5), pending+1
		if pending == 3 {
			check = polymod(check, groups)
			groups, pending = 0, 0
		}
	}
	if pending > 0 {
		check = polymod(check, groups)
	}
	for range checksumSize {
		check = polymod(check, 0)
	}
	check ^= 1
	sum := make([]byte, checksumSize)
	for i := range sum {
		sum[i] = checksumCharset[(check>>(5*(checksumSize-1-i)))&31]
	}
	return string(sum), nil
}

// polymod takes one symbol into the checksum (BIP 380, descsum_polymod).
func polymod(check uint64, symbol int) uint64 {
	generator := [5]uint64{0xf5dee51989, 0xa9fdca3312, 0x1bab10e32d, 0x3706b1677a, 0x644d626ffd}
	top := check >> 35
	check = (check&0x7ffffffff)<<5 ^ uint64(symbol)
	for i, g := range generator {
		if (top>>i)&1 == 1 {
			check ^= g
		}
	}
	return check
}

// CheckDescriptor tests the characters and the checksum of a descriptor, which
// must be there. It does not understand what precedes it. It returns
// ErrDescriptor or ErrDescriptorChecksum.
func CheckDescriptor(s string) error {
	at := len(s) - checksumSize - 1
	if at < 0 || s[at] != '#' {
		return fmt.Errorf("%w: want # and %d characters at the end", ErrDescriptorChecksum, checksumSize)
	}
	want, err := DescriptorChecksum(s[:at])
	if err != nil {
		return err
	}
	if s[at+1:] != want {
		return ErrDescriptorChecksum
	}
	return nil
}

// withChecksum completes a descriptor made here, of good characters only.
func withChecksum(descriptor string) string {
	sum, err := DescriptorChecksum(descriptor)
	if err != nil {
		panic("wallet: made a bad descriptor")
	}
	return descriptor + "#" + sum
}

// function returns what encloses the key in a descriptor (BIP 381, 382, 386).
func (s Scheme) function() (before, after string) {
	switch s {
	case BIP84:
		return "wpkh(", ")"
	case BIP86:
		return "tr(", ")"
	case BIP49:
		return "sh(wpkh(", "))"
	default:
		return "pkh(", ")"
	}
}

// describe writes a descriptor around an extended key, public or private.
func (a Account) describe(key, chain string) string {
	before, after := a.scheme.function()
	return withChecksum(before + "[" + a.fingerprint + "/" + a.steps() + "]" + key + "/" + chain + "/*" + after)
}

const bothChains = "<0;1>"

// Descriptor is the output descriptor of the receive or the change addresses,
// with checksum (BIP 380), as Bitcoin Core and Sparrow read it:
//
//	wpkh([73c5da0a/84h/0h/0h]xpub…/0/*)#…
func (a Account) Descriptor(change bool) string {
	if a.xpub == "" {
		return ""
	}
	return a.describe(a.xpub, fmt.Sprint(chainIndex(change)))
}

// Multipath is the output descriptor of both chains in one (BIP 389), for
// Sparrow and Bitcoin Core from version 29:
//
//	wpkh([73c5da0a/84h/0h/0h]xpub…/<0;1>/*)#…
func (a Account) Multipath() string {
	if a.xpub == "" {
		return ""
	}
	return a.describe(a.xpub, bothChains)
}

// PrivateDescriptor is Descriptor with the private key of the account.
func (a PrivateAccount) PrivateDescriptor(change bool) secret.Bytes {
	return a.describePrivate(fmt.Sprint(chainIndex(change)))
}

// PrivateMultipath is Multipath with the private key of the account.
func (a PrivateAccount) PrivateMultipath() secret.Bytes { return a.describePrivate(bothChains) }

func (a PrivateAccount) describePrivate(chain string) secret.Bytes {
	if a.xprv.Empty() {
		return secret.Bytes{}
	}
	return secret.FromString(a.describe(string(a.xprv.Open()), chain))
}
