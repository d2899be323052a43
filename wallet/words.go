package wallet

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/satchel-backup/satchel/secret"
)

const (
	// SeedSize is the length of a BIP 39 seed in bytes.
	SeedSize = 64
	// MaxWordsText is the most bytes ParseWords looks at.
	MaxWordsText = 4096

	seedRounds = 2048 // BIP 39
	wordBits   = 11
)

var (
	// ErrWords says that a text is not a BIP 39 sentence. The details are in
	// a *[WordsError].
	ErrWords = errors.New("these are not the words of a wallet")
	// ErrWordCount says that a number of words cannot be made.
	ErrWordCount = errors.New("a new wallet has 12 or 24 words")
	// ErrLanguage says that a language has no official word list.
	ErrLanguage = errors.New("no official word list in this language")
	// ErrEntropy says that entropy has not 16, 20, 24, 28 or 32 bytes.
	ErrEntropy = errors.New("entropy must be 16, 20, 24, 28 or 32 bytes")
	// ErrAezeedWords says that words which should be a BIP 39 wallet's are those of an
	// lnd node: [ParseAezeed] reads them. It is a kind of ErrWords.
	ErrAezeedWords = errors.New("these are lnd's own (aezeed) words, and not those of a BIP 39 wallet")
	// ErrBIP39Words says that words which should be those of an lnd node are a BIP 39
	// wallet's: [ParseWords] reads them. It is a kind of ErrWords.
	ErrBIP39Words = errors.New("these are the words of a BIP 39 wallet, and not lnd's own (aezeed)")
	// ErrAezeedVersion says that an lnd node's words are whole, and of a version that
	// this software does not know. It is a kind of ErrWords.
	ErrAezeedVersion = errors.New("these are lnd's own (aezeed) words of a newer version")
)

// WordsProblem says in which way a text fails to be the words it should be.
type WordsProblem string

// The problems, in the order in which they are reported.
const (
	TooLong       WordsProblem = "too long"
	WrongCount    WordsProblem = "wrong count"
	UnknownWord   WordsProblem = "unknown word"
	WrongChecksum WordsProblem = "wrong checksum"
	Ambiguous     WordsProblem = "ambiguous"
	LndWords      WordsProblem = "lnd's words"   // ErrAezeedWords
	BIP39Words    WordsProblem = "BIP 39 words"  // ErrBIP39Words
	AezeedNewer   WordsProblem = "newer version" // ErrAezeedVersion
)

// WordsError tells a person what to look at, and never contains a word. It
// matches [ErrWords].
type WordsError struct {
	Problem WordsProblem
	// Count is the number of words that were typed.
	Count int
	// Unknown are the positions, from 0, of the words that are not in the
	// list of Language, whatever Problem says.
	Unknown []int
	// Language is the language that most of the words belong to.
	Language Language
	// Kind is what the words should be: KindAezeed, or empty for BIP 39.
	Kind Kind
}

// Error names positions from 1, as a person counts.
func (e *WordsError) Error() string {
	var s string
	switch e.Problem {
	case TooLong:
		return fmt.Sprintf("the text is too long for 24 words (more than %d bytes)", MaxWordsText)
	case WrongCount:
		were := "words were"
		if e.Count == 1 {
			were = "word was"
		}
		s = fmt.Sprintf("%d %s typed; a wallet has 12, 15, 18, 21 or 24", e.Count, were)
		if e.Kind == KindAezeed {
			s = fmt.Sprintf("%d %s typed; an lnd node has %d", e.Count, were, AezeedWords)
		}
	case UnknownWord:
		s = "some words are not in the list"
	case LndWords:
		return ErrAezeedWords.Error()
	case BIP39Words:
		return ErrBIP39Words.Error()
	case AezeedNewer:
		return ErrAezeedVersion.Error()
	case WrongChecksum:
		if e.Kind == KindAezeed {
			return "all words are in the list, but together they are not an lnd node's: one is wrong, or the order is"
		}
		return "all words are in the list, but together they are not a wallet's: one is wrong, or the order is"
	case Ambiguous:
		return "without accents these words can be read in two languages: type the accents"
	}
	const most = 24
	for i, at := range e.Unknown {
		switch {
		case i == most:
			return s + " and others"
		case i == 0:
			s += fmt.Sprintf("; not in the %s list: word %d", strings.ReplaceAll(string(e.Language), "_", " "), at+1)
		default:
			s += fmt.Sprintf(", %d", at+1)
		}
	}
	return s
}

// Is reports whether target is ErrWords, or the sentinel of the problem.
func (e *WordsError) Is(target error) bool {
	switch target {
	case ErrAezeedWords:
		return e.Problem == LndWords
	case ErrBIP39Words:
		return e.Problem == BIP39Words
	case ErrAezeedVersion:
		return e.Problem == AezeedNewer
	}
	return target == ErrWords
}

// Words is a valid BIP 39 sentence. The zero value holds no words.
type Words struct {
	sentence  secret.Bytes // NFKD, single spaces: the input of the seed.
	count     int
	languages []Language
}

// NewWords makes 12 or 24 English words (128 or 256 random bits) with the
// system's generator.
func NewWords(count int) (Words, error) {
	if count != 12 && count != 24 {
		return Words{}, ErrWordCount
	}
	entropy := make([]byte, count*4/3)
	defer clear(entropy)
	for {
		rand.Read(entropy) // Never fails: crypto/rand ends the program instead.
		w, err := WordsFromEntropy(secret.New(entropy), English)
		if err != nil || !w.aezeed() {
			return w, err
		}
		// One in 2^32 could be taken for an lnd node's.
	}
}

// WordsFromEntropy writes 16, 20, 24, 28 or 32 bytes as 12 to 24 words of a
// language (BIP 39). It returns ErrEntropy or ErrLanguage. The entropy must come
// from a generator fit for keys.
func WordsFromEntropy(entropy secret.Bytes, l Language) (Words, error) {
	bits := entropy.Len() * 8
	if bits < 128 || bits > 256 || bits%32 != 0 {
		return Words{}, ErrEntropy
	}
	list := l.words()
	if list == nil {
		return Words{}, ErrLanguage
	}
	// The checksum is the first bits/32 bits of the digest: one byte holds
	// them all.
	sum := sha256.Sum256(entropy.Open())
	stream := append(bytes.Clone(entropy.Open()), sum[0])
	defer clear(stream)
	var words []byte
	defer func() { clear(words) }()
	for i := range (bits + bits/32) / wordBits {
		index := 0
		for b := i * wordBits; b < (i+1)*wordBits; b++ {
			index = index<<1 | int(stream[b/8]>>(7-b%8)&1)
		}
		if i > 0 {
			words = append(words, ' ')
		}
		words = append(words, list[index]...)
	}
	return ParseWords(secret.New(words))
}

// ParseWords reads 12, 15, 18, 21 or 24 words of any of the official
// languages, which it finds out. Spacing (ideographic too), case and Unicode form
// do not matter, and accents only if they decide between two wallets. The
// checksum must fit.
//
// A sentence can be valid in two languages: the two Chinese lists share 1275
// words, English and French 100. That is harmless, since the seed depends on the
// text alone and not on the list.
//
// Errors are a *[WordsError], which matches ErrAezeedWords if the words are an lnd
// node's. One aezeed in 256 passes for a BIP 39 sentence all the same: [Import] tells.
func ParseWords(typed secret.Bytes) (Words, error) {
	if typed.Len() > MaxWordsText {
		return Words{}, &WordsError{Problem: TooLong}
	}
	text := normal(typed.Open())
	defer clear(text)
	words := bytes.Fields(text)

	var best *WordsError
	read := func(fold func(string) string) (found []Words) {
		for _, l := range Languages() {
			w, err := l.read(words, fold)
			if err == nil {
				found = append(found, w)
			} else if best == nil || err.better(best) {
				best = err
			}
		}
		return found
	}
	// Words as they stand come first: they can never be taken for others.
	found := read(func(w string) string { return w })
	if len(found) == 0 {
		found = read(withoutAccents)
	}
	if len(found) == 0 {
		if best.Problem == WrongChecksum && best.Language == English && isAezeed(words) {
			best.Problem = LndWords
		}
		return Words{}, best
	}
	for _, w := range found[1:] {
		if !w.sentence.Equal(found[0].sentence) {
			return Words{}, &WordsError{Problem: Ambiguous, Count: len(words), Language: found[0].languages[0]}
		}
		found[0].languages = append(found[0].languages, w.languages...)
	}
	return found[0], nil
}

// better reports whether e explains more of the words than other does.
func (e *WordsError) better(other *WordsError) bool {
	return len(e.Unknown) < len(other.Unknown)
}

// look finds the words in one list, both sides folded. What it does not find is in
// Unknown of the WordsError, which says nothing else yet.
func (l Language) look(words [][]byte, fold func(string) string) (indexes []int, sentence secret.Bytes, fail *WordsError) {
	const missing = -1
	list := l.words()
	place := make(map[string]int, len(words))
	for _, w := range words {
		place[fold(string(w))] = missing
	}
	for i, w := range list {
		f := fold(w)
		if _, typed := place[f]; typed {
			place[f] = i
		}
	}
	fail = &WordsError{Count: len(words), Language: l}
	indexes = make([]int, len(words))
	text := make([]byte, 0, MaxWordsText)
	defer func() { clear(text) }()
	for i, w := range words {
		at := place[fold(string(w))]
		if at == missing {
			fail.Unknown = append(fail.Unknown, i)
			continue
		}
		indexes[i] = at
		if i > 0 {
			text = append(text, ' ')
		}
		text = append(text, list[at]...)
	}
	return indexes, secret.New(text), fail
}

// read looks the words up in one list and tests the checksum.
func (l Language) read(words [][]byte, fold func(string) string) (Words, *WordsError) {
	indexes, sentence, fail := l.look(words, fold)
	defer clear(indexes)
	switch len(words) {
	case 12, 15, 18, 21, 24:
	default:
		fail.Problem = WrongCount
		return Words{}, fail
	}
	if len(fail.Unknown) > 0 {
		fail.Problem = UnknownWord
		return Words{}, fail
	}
	if !checksumFits(indexes) {
		fail.Problem = WrongChecksum
		return Words{}, fail
	}
	return Words{sentence, len(words), []Language{l}}, nil
}

// isAezeed reports whether words, all of the English list, are an lnd node's, of
// whatever version.
func isAezeed(words [][]byte) bool {
	indexes, sentence, fail := English.look(words, func(w string) string { return w })
	defer clear(indexes)
	defer sentence.Wipe()
	_, ok := aezeedFits(indexes)
	return ok && len(fail.Unknown) == 0
}

// wordStream writes places in a list, 11 bits each, one after another.
func wordStream(indexes []int) []byte {
	stream := make([]byte, (len(indexes)*wordBits+7)/8)
	for i, index := range indexes {
		for j := range wordBits {
			b := i*wordBits + j
			stream[b/8] |= byte(index>>(wordBits-1-j)&1) << (7 - b%8)
		}
	}
	return stream
}

// checksumFits tests the last bits of a sentence: one of checksum for every 32
// of entropy.
func checksumFits(indexes []int) bool {
	bits := len(indexes) * wordBits
	entropyBits := bits * 32 / 33
	stream := wordStream(indexes)
	defer clear(stream)
	sum := sha256.Sum256(stream[:entropyBits/8])
	mask := byte(0xff) << (8 - (bits - entropyBits))
	return (stream[entropyBits/8]^sum[0])&mask == 0
}

// Count is the number of words, 0 for the zero value.
func (w Words) Count() int { return w.count }

// Languages lists the languages in which the words are valid: nearly always
// one.
func (w Words) Languages() []Language { return append([]Language(nil), w.languages...) }

// Sentence is the words as they enter the seed: NFKD, single ASCII spaces.
func (w Words) Sentence() secret.Bytes { return w.sentence }

// Display is the words as a person should see them and write them down: NFC,
// with single spaces, which are ideographic in Japanese as BIP 39 asks. Every
// BIP 39 wallet reads both forms alike.
func (w Words) Display() secret.Bytes {
	shown := norm.NFC.Append(nil, w.sentence.Open()...) // NFC.Bytes may return its input.
	if len(w.languages) > 0 && w.languages[0] == Japanese {
		shown = bytes.ReplaceAll(shown, []byte(" "), []byte("\u3000"))
	}
	defer clear(shown)
	return secret.New(shown)
}

// Is reports whether typed is the word at a position, counted from 1, as a person may
// write it: capitals, spaces around it and accents do not matter.
func (w Words) Is(position int, typed secret.Bytes) bool {
	return isWord(w.sentence, position, typed)
}

func isWord(sentence secret.Bytes, position int, typed secret.Bytes) bool {
	words := bytes.Fields(sentence.Open())
	if position < 1 || position > len(words) || typed.Len() > MaxWordsText {
		return false
	}
	text := normal(typed.Open())
	defer clear(text)
	got := secret.FromString(withoutAccents(string(bytes.TrimSpace(text))))
	return got.Equal(secret.FromString(withoutAccents(string(words[position-1]))))
}

// aezeed reports whether the words are also an lnd node's: by chance, one BIP 39
// sentence of 24 words in 2^32 is, but one aezeed in 256 is a BIP 39 sentence.
func (w Words) aezeed() bool {
	return w.count == AezeedWords && isAezeed(bytes.Fields(w.sentence.Open()))
}

// Equal reports, in constant time, whether both are the same words.
func (w Words) Equal(other Words) bool { return w.sentence.Equal(other.sentence) }

// Seed derives the 64-byte seed (BIP 39: PBKDF2-HMAC-SHA512, 2048 rounds). The
// passphrase may be empty; it enters in NFKD. Every passphrase gives a seed:
// compare the fingerprint to know it was the right one.
func (w Words) Seed(passphrase secret.Bytes) (secret.Bytes, error) {
	if w.count == 0 {
		return secret.Bytes{}, ErrNoKeys
	}
	salt := append([]byte("mnemonic"), norm.NFKD.Bytes(passphrase.Open())...)
	defer clear(salt)
	seed, err := pbkdf2.Key(sha512.New, string(w.sentence.Open()), salt, seedRounds, SeedSize)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("deriving the seed: %w", err)
	}
	defer clear(seed)
	return secret.New(seed), nil
}
