package wallet

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"

	"github.com/satchel-backup/satchel/secret"
)

const (
	// AezeedWords is the number of words of an aezeed.
	AezeedWords = 24

	aezeedVersion   = 0
	aezeedSize      = AezeedWords * wordBits / 8
	aezeedSumSize   = 4 // CRC-32C, big-endian, over all that goes before
	aezeedCheck     = "satchel/v1/aezeed-check\n"
	aezeedCheckSize = 8
)

// Aezeed is the words of an lnd node: 24 words of the English BIP 39 list which are
// no BIP 39 sentence. They stand for 33 bytes: a version, 23 bytes that only lnd
// deciphers, with its own passphrase if the owner chose one, 5 bytes of salt, and a
// checksum. Satchel keeps them as they are: it tests version and checksum, and makes
// no keys of them. The zero value holds no words.
type Aezeed struct {
	sentence secret.Bytes // lower case, single spaces
}

// ParseAezeed reads the 24 words of an lnd node. Spacing, case and Unicode form do
// not matter. Version and checksum must fit; whether a passphrase does, only lnd can
// tell.
//
// Errors are a *[WordsError]. It matches ErrBIP39Words if the words are those of a BIP
// 39 wallet, and ErrAezeedVersion if they are of a version that this software does not
// know.
func ParseAezeed(typed secret.Bytes) (Aezeed, error) {
	if typed.Len() > MaxWordsText {
		return Aezeed{}, &WordsError{Problem: TooLong, Kind: KindAezeed}
	}
	text := normal(typed.Open())
	defer clear(text)
	words := bytes.Fields(text)
	indexes, sentence, fail := English.look(words, func(w string) string { return w })
	defer clear(indexes)
	defer sentence.Wipe()
	fail.Kind = KindAezeed
	switch {
	case len(words) != AezeedWords:
		// Twelve words that make a BIP 39 wallet are more than a wrong number.
		if fail.Problem = WrongCount; isBIP39(typed) {
			fail.Problem = BIP39Words
		}
		return Aezeed{}, fail
	case len(fail.Unknown) > 0:
		if fail.Problem = UnknownWord; isBIP39(typed) {
			fail.Problem = BIP39Words
		}
		return Aezeed{}, fail
	}
	switch version, ok := aezeedFits(indexes); {
	case ok && version == aezeedVersion:
		return Aezeed{secret.New(sentence.Open())}, nil
	case ok:
		fail.Problem = AezeedNewer
	case isBIP39(typed):
		fail.Problem = BIP39Words
	default:
		fail.Problem = WrongChecksum
	}
	return Aezeed{}, fail
}

func isBIP39(typed secret.Bytes) bool {
	if n := len(bytes.Fields(typed.Open())); n < 12 || n > AezeedWords {
		return false // Looking through ten lists takes a while.
	}
	_, err := ParseWords(typed)
	return err == nil
}

// aezeedFits tests the checksum of words that are given as their places in the list,
// and returns the version.
func aezeedFits(indexes []int) (version byte, ok bool) {
	if len(indexes) != AezeedWords {
		return 0, false
	}
	b := wordStream(indexes)
	defer clear(b)
	sum := crc32.Checksum(b[:aezeedSize-aezeedSumSize], crc32.MakeTable(crc32.Castagnoli))
	return b[0], sum == binary.BigEndian.Uint32(b[aezeedSize-aezeedSumSize:])
}

// Sentence is the words, in lower case with single spaces, as lnd takes them.
func (w Aezeed) Sentence() secret.Bytes { return w.sentence }

// Equal reports, in constant time, whether both are the same words. One node can
// have several: lnd makes other words of the same keys for another passphrase.
func (w Aezeed) Equal(other Aezeed) bool { return w.sentence.Equal(other.sentence) }

// check recognises the words and tells nothing of them: the first 8 bytes, in hex, of
// SHA-256 of a label and the 33 bytes.
func (w Aezeed) check() (string, error) {
	indexes, sentence, fail := English.look(bytes.Fields(w.sentence.Open()), func(w string) string { return w })
	defer clear(indexes)
	defer sentence.Wipe()
	if len(indexes) != AezeedWords || len(fail.Unknown) > 0 {
		return "", ErrNoKeys
	}
	b := wordStream(indexes)
	defer clear(b)
	sum := sha256.New()
	sum.Write([]byte(aezeedCheck))
	sum.Write(b)
	return hex.EncodeToString(sum.Sum(nil)[:aezeedCheckSize]), nil
}

// Is reports whether typed is the word at a position, counted from 1, as a person may
// write it.
func (w Aezeed) Is(position int, typed secret.Bytes) bool {
	return isWord(w.sentence, position, typed)
}
