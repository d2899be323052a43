package wallet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/satchel-backup/satchel/secret"
)

const (
	// MaxKeysText is the most bytes of the text form of Keys.
	MaxKeysText = 16 << 10

	keysTextBlock   = 1024
	keysTextLeast   = 2048 // fits any number of words in any language
	keysTextVersion = 1    // BIP 39 words
	keysTextKinds   = 2    // what older software would take for something else, or for damage
	keysTextField   = "satchel-keys"
)

// keysComment is what a frightened person reads first. It is part of version 1
// of the form: another text is another version. %[1]s is the money at stake,
// %[2]d the coin type of the network.
const keysComment = `# THE KEYS OF A BITCOIN WALLET
#
# Keep this secret. Anyone who reads the words below can spend %[1]s.
# Never type them into a web page, and never send them to anybody.
#
# To get at the money without Satchel, choose "restore" or "import" in any
# wallet that reads BIP 39 words, and type the words in this order. If a
# "bip39-passphrase" is shown, type it too, without the outer quotes (in it \"
# means ", \\ means \, and \u with four digits the character of that number).
# If it says "bip39-passphrase-needed", only you know the passphrase, and the
# words alone are not enough. The right wallet shows the fingerprint below.
#
# Derivation paths, should the wallet ask (the first is the usual one):
#   m/84'/%[2]d'/0'  native segwit  (BIP 84)
#   m/86'/%[2]d'/0'  taproot        (BIP 86)
#   m/49'/%[2]d'/0'  nested segwit  (BIP 49)
#   m/44'/%[2]d'/0'  legacy         (BIP 44)
`

// aezeedComment and xprvComment are that of version 2, for the kinds of keys that no
// BIP 39 wallet takes. %[1]s is the money at stake.
const (
	aezeedComment = `# THE KEYS OF A LIGHTNING NODE (LND)
#
# Keep this secret. Anyone who reads the words below can spend %[1]s.
# Never type them into a web page, and never send them to anybody.
#
# They are lnd's own words (aezeed), and not BIP 39: no other wallet takes them.
# To get at the money without Satchel, install lnd on an empty machine, run
# "lncli create", answer "y" where it asks whether you have a cipher seed, and
# type the words in this order. lnd then asks for the cipher seed passphrase. If
# an "aezeed-passphrase" is shown, type it, without the outer quotes (in it \"
# means ", \\ means \, and \u with four digits the character of that number).
# If it says "aezeed-passphrase-needed", only you know the passphrase. If
# neither is there, press Enter.
#
# What is in channels comes back with the newest channel backup, the item
# "lightning/scb" beside these words: "lncli create --multi_file=FILE". Never
# start two nodes with the same words.
`
	xprvComment = `# THE KEY OF A BITCOIN WALLET
#
# Keep this secret. Anyone who reads the key below can spend %[1]s.
# Never type it into a web page, and never send it to anybody.
#
# It is an extended master key (BIP 32), which has no words. To get at the money
# without Satchel, give it to the software that made it, or to another that takes
# a master key. For lnd: run "lncli create" on an empty machine and answer "x".
# The right wallet shows the fingerprint below.
#
# Of an lnd node, what is in channels comes back with the newest channel backup,
# the item "lightning/scb" beside this key: "lncli create --multi_file=FILE".
# Never start two nodes with the same key.
#
# Derivation paths, should the wallet ask (the first is the usual one):
#   m/84'/%[2]d'/0'  native segwit  (BIP 84)
#   m/86'/%[2]d'/0'  taproot        (BIP 86)
#   m/49'/%[2]d'/0'  nested segwit  (BIP 49)
#   m/44'/%[2]d'/0'  legacy         (BIP 44)
`
)

// Text is the readable form of the keys, which is the plaintext of the item
// "keys" in a backup. Its first line, a "#" and spaces, pads it to 2048 bytes, or
// with a long passphrase to the next multiple of 1024, so that its length tells
// nothing of the words. The words come last, where a terminal shows them.
//
// Version 1 of the form is UTF-8: the padding, a fixed comment for people, then
// the lines below in this order, each ended by a line feed.
//
//	satchel-keys: 1
//	network: mainnet
//	fingerprint: 73c5da0a
//	made: 2026-11-23                     left out if not known
//	words: …                             in the form of Words.Display
//	bip39-passphrase: "…"                only if kept; a JSON string
//	bip39-passphrase-needed: yes         only if it exists and was not kept
//
// Version 2 is for the other kinds of keys, so that software which does not know them
// says that it is too old, and takes them neither for damage nor for BIP 39 words:
//
//	satchel-keys: 2                      satchel-keys: 2
//	kind: aezeed                         kind: xprv
//	network: mainnet                     network: mainnet
//	made: 2026-11-23                     fingerprint: 73c5da0a
//	aezeed: …                            made: 2026-11-23
//	aezeed-passphrase: "…"               xprv: …
//	aezeed-passphrase-needed: yes
func (k Keys) Text() (secret.Bytes, error) {
	if k.IsZero() {
		return secret.Bytes{}, ErrNoKeys
	}
	money := "the money"
	if k.network != Mainnet {
		money = "its test coins"
	}
	shown := k.Written()
	defer shown.Wipe()

	b := make([]byte, 0, MaxKeysText)
	defer func() { clear(b[:cap(b)]) }()
	field := "words"
	switch k.kind {
	case KindAezeed:
		field = "aezeed"
		b = fmt.Appendf(b, aezeedComment, money)
		b = fmt.Appendf(b, "%s: %d\nkind: %s\n", keysTextField, keysTextKinds, k.kind)
	case KindXPrv:
		field = "xprv"
		b = fmt.Appendf(b, xprvComment, money, k.network.coinType())
		b = fmt.Appendf(b, "%s: %d\nkind: %s\n", keysTextField, keysTextKinds, k.kind)
	default:
		b = fmt.Appendf(b, keysComment, money, k.network.coinType())
		b = fmt.Appendf(b, "%s: %d\n", keysTextField, keysTextVersion)
	}
	b = fmt.Appendf(b, "network: %s\n", k.network)
	if k.kind != KindAezeed {
		b = fmt.Appendf(b, "fingerprint: %s\n", k.fingerprint)
	}
	if k.made != "" {
		b = fmt.Appendf(b, "made: %s\n", k.made)
	}
	b = fmt.Appendf(b, "%s: ", field)
	b = append(b, shown.Open()...)
	b = append(b, '\n')
	switch k.state {
	case KeptPassphrase:
		b = fmt.Appendf(b, "%s: ", k.kind.passphraseField())
		b = appendQuoted(b, k.passphrase)
		b = append(b, '\n')
	case NeededPassphrase:
		b = fmt.Appendf(b, "%s-needed: yes\n", k.kind.passphraseField())
	}
	whole := max(keysTextLeast, (len(b)+len("#\n")+keysTextBlock-1)/keysTextBlock*keysTextBlock)
	text := make([]byte, 0, whole)
	defer func() { clear(text[:cap(text)]) }()
	text = append(text, '#')
	text = append(text, bytes.Repeat([]byte(" "), whole-len(b)-len("#\n"))...)
	text = append(text, '\n')
	text = append(text, b...)
	return secret.New(text), nil
}

func (k Kind) passphraseField() string { return string(k) + "-passphrase" }

// ParseKeys reads the text form of keys. It takes only what Text writes, to
// the byte, and recomputes the checksum of the words and, unless a passphrase is
// missing, the fingerprint. It returns ErrDamaged, ErrNewer, and with ErrDamaged
// also ErrWords or ErrOtherWallet if that is what is wrong.
func ParseKeys(text secret.Bytes) (Keys, error) {
	k, err := parseKeys(text)
	if err != nil {
		return Keys{}, fmt.Errorf("reading the keys: %w", err)
	}
	return k, nil
}

func parseKeys(text secret.Bytes) (Keys, error) {
	if text.Len() > MaxKeysText {
		return Keys{}, fmt.Errorf("%w: longer than %d bytes", ErrDamaged, MaxKeysText)
	}
	body := text.Open()
	for bytes.HasPrefix(body, []byte("#")) {
		_, rest, ok := bytes.Cut(body, []byte("\n"))
		if !ok {
			return Keys{}, fmt.Errorf("%w: nothing after the comment", ErrDamaged)
		}
		body = rest
	}
	line := func(field string) ([]byte, bool) {
		first, rest, ok := bytes.Cut(body, []byte("\n"))
		value, has := bytes.CutPrefix(first, []byte(field+": "))
		if !ok || !has {
			return nil, false
		}
		body = rest
		return value, true
	}
	version, ok := line(keysTextField)
	if !ok {
		return Keys{}, fmt.Errorf("%w: no version", ErrDamaged)
	}
	v, err := readVersion(string(version), keysTextKinds)
	if err != nil {
		return Keys{}, err
	}

	// From here on the form is only picked apart; that every byte is right is
	// proven at the end by writing it again.
	k := Keys{kind: KindBIP39, state: NoPassphrase}
	if v == keysTextKinds {
		kind, _ := line("kind")
		switch k.kind = Kind(kind); k.kind {
		case KindAezeed, KindXPrv:
		default:
			return Keys{}, fmt.Errorf("%w: %w", ErrDamaged, ErrKind)
		}
	}
	network, _ := line("network")
	k.network = Network(network)
	fp, _ := line("fingerprint")
	k.fingerprint = string(fp)
	made, _ := line("made")
	k.made = string(made)
	if err := k.parseSecret(line); err != nil {
		return Keys{}, err
	}
	if quoted, ok := line(k.kind.passphraseField()); ok {
		var s string
		if json.Unmarshal(quoted, &s) != nil || s == "" {
			return Keys{}, fmt.Errorf("%w: the passphrase is not a JSON string", ErrDamaged)
		}
		k.state, k.passphrase = KeptPassphrase, secret.FromString(s)
	} else if _, ok := line(k.kind.passphraseField() + "-needed"); ok {
		k.state = NeededPassphrase
	}
	if err := k.check(); err != nil {
		return Keys{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if k.kind != KindAezeed && !isFingerprint(k.fingerprint) {
		return Keys{}, fmt.Errorf("%w: the fingerprint is not 8 hex digits", ErrDamaged)
	}
	if k.kind == KindAezeed {
		k.fingerprint = ""
	} else if k.state != NeededPassphrase {
		if err := k.checkFingerprint(); err != nil {
			return Keys{}, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	again, err := k.Text()
	if err != nil {
		return Keys{}, err
	}
	defer again.Wipe()
	if !again.Equal(text) {
		return Keys{}, fmt.Errorf("%w: not in the form Satchel writes", ErrDamaged)
	}
	return k, nil
}

// parseSecret reads the line of the words or the key.
func (k *Keys) parseSecret(line func(field string) ([]byte, bool)) error {
	var err error
	switch k.kind {
	case KindAezeed:
		words, ok := line("aezeed")
		if !ok {
			return fmt.Errorf("%w: no words", ErrDamaged)
		}
		k.aezeed, err = ParseAezeed(secret.New(words))
	case KindXPrv:
		key, ok := line("xprv")
		if !ok {
			return fmt.Errorf("%w: no key", ErrDamaged)
		}
		k.xprv = secret.New(key)
	default:
		words, ok := line("words")
		if !ok {
			return fmt.Errorf("%w: no words", ErrDamaged)
		}
		k.words, err = ParseWords(secret.New(words))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

// readVersion returns ErrNewer for a later version than the newest that we know and
// ErrDamaged for what is no version.
func readVersion(text string, newest int) (int, error) {
	v, err := strconv.ParseUint(text, 10, 31)
	switch {
	case err != nil || v == 0 || strconv.FormatUint(v, 10) != text:
		return 0, fmt.Errorf("%w: no version", ErrDamaged)
	case v > uint64(newest):
		return 0, fmt.Errorf("%w (version %d)", ErrNewer, v)
	}
	return int(v), nil
}

func isFingerprint(s string) bool {
	return len(s) == 8 && strings.Trim(s, "0123456789abcdef") == ""
}

// appendQuoted writes a JSON string with visible characters as they are. What
// is invisible or breaks lines is escaped, by a list of our own: tables that grow
// with Unicode would one day refuse an old backup.
func appendQuoted(b []byte, s secret.Bytes) []byte {
	b = append(b, '"')
	for _, r := range string(s.Open()) {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < 0x20, 0x7f <= r && r <= 0xa0, r == 0xad, // control, no-break space, soft hyphen
			0x0300 <= r && r <= 0x036f,                         // combining marks, alone invisible or misplaced
			r == 0x034f, r == 0x061c, r == 0x115f, r == 0x1160, // fillers
			r == 0x17b4, r == 0x17b5, 0x180b <= r && r <= 0x180f, // fillers
			0x2000 <= r && r <= 0x200f, 0x2028 <= r && r <= 0x202f, // spaces, joiners, line breaks
			0x205f <= r && r <= 0x206f, r == 0x3000, r == 0x3164, // spaces, direction
			0xe000 <= r && r <= 0xf8ff, 0xfe00 <= r && r <= 0xfe0f, // private use, variants
			r == 0xfeff, r == 0xffa0, 0xfff0 <= r && r <= 0xffff: // marks
			b = fmt.Appendf(b, `\u%04x`, r)
		case r >= 0xe0000: // tags, variants, private use
			hi, lo := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, hi, lo)
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}
