package wallet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"

	"github.com/satchel-backup/satchel/secret"
)

const (
	// MaxDescriptorsText is the most bytes of the text form of Descriptors.
	MaxDescriptorsText = 64 << 10
	// FirstAddresses is the number of addresses kept with each descriptor.
	FirstAddresses = 3

	descriptorsVersion = 1
	descriptorsOpaque  = 2   // of keys that no descriptors can be made of
	coreRange          = 999 // the last index Bitcoin Core watches at first; its own default
)

// Descriptors is what a watching wallet needs of one account number in each of
// the four schemes, with the first addresses to compare. It cannot spend. The
// zero value is empty: it equals nothing.
//
// Of an lnd node's words nobody but lnd can make descriptors. What stands in their
// place has no accounts, and only says which words they are.
type Descriptors struct {
	accounts []Account  // in the order of Schemes, all of one wallet and number
	first    [][]string // receive and change of each account

	network Network // of an lnd node; then there are no accounts
	check   string  // see Aezeed.check
}

// Descriptors derives the descriptors of an account number, usually 0. It
// returns the errors of Account. Those of an lnd node's words are of no account.
func (k Keys) Descriptors(account uint32) (Descriptors, error) {
	if k.kind == KindAezeed {
		if account != 0 {
			return Descriptors{}, ErrOpaque
		}
		check, err := k.aezeed.check()
		return Descriptors{network: k.network, check: check}, err
	}
	accounts, err := k.accounts(account, Schemes()...)
	if err != nil {
		return Descriptors{}, err
	}
	return newDescriptors(accounts)
}

func newDescriptors(accounts []Account) (Descriptors, error) {
	d := Descriptors{accounts: accounts}
	for _, a := range accounts {
		for _, change := range []bool{false, true} {
			first, err := a.Addresses(change, FirstAddresses)
			if err != nil {
				return Descriptors{}, err
			}
			d.first = append(d.first, first)
		}
	}
	return d, nil
}

// Accounts are the four accounts, in the order of Schemes.
func (d Descriptors) Accounts() []Account { return append([]Account(nil), d.accounts...) }

// Kind is KindAezeed for those of an lnd node's words, and otherwise empty: words and
// an extended key have the same descriptors.
func (d Descriptors) Kind() Kind {
	if d.check != "" {
		return KindAezeed
	}
	return ""
}

// Network is the network of the wallet.
func (d Descriptors) Network() Network {
	if len(d.accounts) == 0 {
		return d.network
	}
	return d.accounts[0].network
}

// Fingerprint is that of the wallet's master key; empty for an lnd node's words.
func (d Descriptors) Fingerprint() string {
	if len(d.accounts) == 0 {
		return ""
	}
	return d.accounts[0].fingerprint
}

// Number is the account number.
func (d Descriptors) Number() uint32 {
	if len(d.accounts) == 0 {
		return 0
	}
	return d.accounts[0].number
}

// Text is the JSON form, which is the item "descriptors" of a backup. Every
// descriptor and address in it can be computed anew from the words.
func (d Descriptors) Text() ([]byte, error) {
	if d.check != "" {
		return fmt.Appendf(nil, "{\n  \"satchel-descriptors\": %d,\n  \"kind\": %q,\n  \"network\": %q,\n  \"check\": %q\n}\n",
			descriptorsOpaque, KindAezeed, d.network, d.check), nil
	}
	if len(d.accounts) == 0 {
		return nil, ErrNoKeys
	}
	// Written by hand, since the bytes must never change: all values are
	// plain ASCII without quotes or backslashes.
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n  \"satchel-descriptors\": %d,\n  \"network\": %q,\n  \"fingerprint\": %q,\n  \"descriptors\": [",
		descriptorsVersion, d.Network(), d.Fingerprint())
	for i, first := range d.first {
		a, change := d.accounts[i/2], i%2 == 1
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n    {\n      \"descriptor\": %q,\n      \"type\": %q,\n      \"change\": %t,\n      \"first\": [\n        \"%s\"\n      ]\n    }",
			a.Descriptor(change), a.scheme, change, strings.Join(first, "\",\n        \""))
	}
	b.WriteString("\n  ]\n}\n")
	return b.Bytes(), nil
}

// ParseDescriptors reads the JSON form. It takes only what Text writes, to the
// byte, with all checksums right and the addresses those of the descriptors. It
// returns ErrDamaged or ErrNewer. Whether they belong to some words only
// [Keys.Matches] can tell.
func ParseDescriptors(text []byte) (Descriptors, error) {
	d, err := parseDescriptors(text)
	if err != nil {
		return Descriptors{}, fmt.Errorf("reading the descriptors: %w", err)
	}
	return d, nil
}

func parseDescriptors(text []byte) (Descriptors, error) {
	if len(text) > MaxDescriptorsText {
		return Descriptors{}, fmt.Errorf("%w: longer than %d bytes", ErrDamaged, MaxDescriptorsText)
	}
	var version struct {
		Version json.Number `json:"satchel-descriptors"`
	}
	if json.Unmarshal(text, &version) != nil {
		return Descriptors{}, fmt.Errorf("%w: not JSON", ErrDamaged)
	}
	v, err := readVersion(version.Version.String(), descriptorsOpaque)
	if err != nil {
		return Descriptors{}, err
	}
	if v == descriptorsOpaque {
		return parseOpaque(text)
	}

	// From here on the form is only picked apart; that every byte is right is
	// proven at the end by writing it again.
	var form struct {
		Network     Network `json:"network"`
		Fingerprint string  `json:"fingerprint"`
		Descriptors []struct {
			Descriptor string `json:"descriptor"`
		} `json:"descriptors"`
	}
	if json.Unmarshal(text, &form) != nil {
		return Descriptors{}, fmt.Errorf("%w: not in the form Satchel writes", ErrDamaged)
	}
	if _, err := form.Network.params(); err != nil {
		return Descriptors{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if !isFingerprint(form.Fingerprint) {
		return Descriptors{}, fmt.Errorf("%w: the fingerprint is not 8 hex digits", ErrDamaged)
	}
	schemes := Schemes()
	if len(form.Descriptors) != 2*len(schemes) {
		return Descriptors{}, fmt.Errorf("%w: want %d descriptors", ErrDamaged, 2*len(schemes))
	}
	accounts := make([]Account, len(schemes))
	for i, entry := range form.Descriptors {
		if err := CheckDescriptor(entry.Descriptor); err != nil {
			return Descriptors{}, fmt.Errorf("%w: descriptor %d: %w", ErrDamaged, i+1, err)
		}
		if i%2 == 1 {
			continue // The change chain has the same key.
		}
		a, err := readAccount(form.Network, schemes[i/2], form.Fingerprint, entry.Descriptor)
		if err != nil || i > 0 && a.number != accounts[0].number {
			return Descriptors{}, fmt.Errorf("%w: descriptor %d is not the account it should be", ErrDamaged, i+1)
		}
		accounts[i/2] = a
	}
	d, err := newDescriptors(accounts)
	if err != nil {
		return Descriptors{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	again, err := d.Text()
	if err != nil {
		return Descriptors{}, err
	}
	if !bytes.Equal(again, text) {
		return Descriptors{}, fmt.Errorf("%w: not in the form Satchel writes, or an address is not the descriptor's", ErrDamaged)
	}
	return d, nil
}

// parseOpaque reads what stands in the place of the descriptors of an lnd node.
func parseOpaque(text []byte) (Descriptors, error) {
	var form struct {
		Kind    Kind    `json:"kind"`
		Network Network `json:"network"`
		Check   string  `json:"check"`
	}
	if json.Unmarshal(text, &form) != nil {
		return Descriptors{}, fmt.Errorf("%w: not in the form Satchel writes", ErrDamaged)
	}
	if form.Kind != KindAezeed {
		return Descriptors{}, fmt.Errorf("%w: %w", ErrDamaged, ErrKind)
	}
	if _, err := form.Network.params(); err != nil {
		return Descriptors{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if len(form.Check) != 2*aezeedCheckSize || strings.Trim(form.Check, "0123456789abcdef") != "" {
		return Descriptors{}, fmt.Errorf("%w: the check is not %d hex digits", ErrDamaged, 2*aezeedCheckSize)
	}
	d := Descriptors{network: form.Network, check: form.Check}
	again, err := d.Text()
	if err != nil {
		return Descriptors{}, err
	}
	if !bytes.Equal(again, text) {
		return Descriptors{}, fmt.Errorf("%w: not in the form Satchel writes", ErrDamaged)
	}
	return d, nil
}

// readAccount takes the account number and the key out of a receive descriptor
// of known scheme. The caller compares the whole.
func readAccount(n Network, s Scheme, fp, descriptor string) (Account, error) {
	before, _ := s.function()
	prefix := fmt.Sprintf("%s[%s/%dh/%dh/", before, fp, s.purpose(), n.coinType())
	rest, ok := strings.CutPrefix(descriptor, prefix)
	if !ok {
		return Account{}, ErrDescriptor
	}
	digits, rest, _ := strings.Cut(rest, "h]")
	xpub, _, _ := strings.Cut(rest, "/")
	number, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return Account{}, ErrDescriptor
	}
	key, err := parseExtendedKey(xpub)
	if err != nil {
		return Account{}, err
	}
	// The versions of BIP44 are plain xpub and tpub. A private key has neither.
	version := n.keyVersions()[BIP44].public
	if !bytes.Equal(key.Version(), version[:]) || key.Depth() != accountDepth ||
		key.ChildIndex() != hdkeychain.HardenedKeyStart+uint32(number) {
		return Account{}, ErrExtendedKey
	}
	return Account{n, s, uint32(number), fp, xpub}, nil
}

// Compare returns nil if both describe the same accounts of the same wallet, and
// otherwise an error that matches ErrOtherWallet and names what differs, without
// the values. Nothing equals the empty value.
func (d Descriptors) Compare(other Descriptors) error {
	differs := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrOtherWallet, fmt.Sprintf(format, args...))
	}
	switch {
	case len(d.accounts) == 0 && d.check == "" || len(other.accounts) == 0 && other.check == "":
		return differs("there are no descriptors")
	case d.Kind() != other.Kind():
		return differs("the one has an lnd node's words, the other has not")
	case d.Network() != other.Network():
		return differs("one is on %s, the other on %s", d.Network(), other.Network())
	case d.Fingerprint() != other.Fingerprint():
		return differs("the fingerprints differ")
	case d.Number() != other.Number():
		return differs("one is of account %d, the other of account %d", d.Number(), other.Number())
	case d.check != other.check:
		return differs("the words of the node differ")
	}
	for i, a := range d.accounts {
		for _, change := range []bool{false, true} {
			chain := "receive"
			if change {
				chain = "change"
			}
			at := 2*i + int(chainIndex(change))
			for j, address := range d.first[at] {
				if address != other.first[at][j] {
					return differs("%s %s address %d differs", a.scheme, chain, j)
				}
			}
			if a.Descriptor(change) != other.accounts[i].Descriptor(change) {
				return differs("%s %s descriptors differ", a.scheme, chain)
			}
		}
	}
	return nil
}

// Matches derives the descriptors anew and compares them with those of a
// backup. It returns nil, or the errors of Compare. Without a passphrase that is
// needed, network and fingerprint are compared all the same, and then the error
// is ErrPassphraseNeeded.
func (k Keys) Matches(d Descriptors) error {
	mine, err := k.Descriptors(d.Number())
	if err != nil {
		if len(d.accounts) > 0 && (k.network != d.Network() || k.fingerprint != d.Fingerprint()) {
			return fmt.Errorf("%w: network or fingerprint differ", ErrOtherWallet)
		}
		return err
	}
	return mine.Compare(d)
}

// coreImport is one element of the argument of importdescriptors.
type coreImport struct {
	Descriptor string `json:"desc"`
	Timestamp  int64  `json:"timestamp"`
	Active     bool   `json:"active"`
	Internal   bool   `json:"internal"`
	Range      [2]int `json:"range"`
}

// CoreImport is the argument of Bitcoin Core's importdescriptors, for a wallet
// made with disable_private_keys. Core looks for payments from since on, less two
// hours. The zero time means the whole chain, which takes longer and is always
// right; another time is right only if the words were not in use before.
func (d Descriptors) CoreImport(since time.Time) ([]byte, error) {
	if d.check != "" {
		return nil, ErrOpaque
	}
	if len(d.accounts) == 0 {
		return nil, ErrNoKeys
	}
	var all []string
	for _, a := range d.accounts {
		all = append(all, a.Descriptor(false), a.Descriptor(true))
	}
	return encodeCoreImport(all, since)
}

// CoreImport is [Descriptors.CoreImport] with the private keys of the account,
// for a wallet that shall spend.
func (k Keys) CoreImport(account uint32, since time.Time) (secret.Bytes, error) {
	accounts, err := k.privateAccounts(account, Schemes()...)
	if err != nil {
		return secret.Bytes{}, err
	}
	var all []string
	for _, a := range accounts {
		for _, change := range []bool{false, true} {
			all = append(all, string(a.PrivateDescriptor(change).Open()))
		}
	}
	b, err := encodeCoreImport(all, since)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer clear(b)
	return secret.New(b), nil
}

// encodeCoreImport takes pairs of receive and change descriptors.
func encodeCoreImport(descriptors []string, since time.Time) ([]byte, error) {
	var from int64
	if !since.IsZero() {
		from = max(0, since.Unix())
	}
	requests := make([]coreImport, len(descriptors))
	for i, d := range descriptors {
		requests[i] = coreImport{d, from, true, i%2 == 1, [2]int{0, coreRange}}
	}
	b, err := json.MarshalIndent(requests, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the import: %w", err)
	}
	return append(b, '\n'), nil
}
