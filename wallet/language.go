package wallet

import (
	"bytes"
	"embed"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// Language is one of the ten languages with an official BIP 39 word list.
type Language string

// The languages, in the order in which they are tried.
const (
	English            Language = "english"
	Spanish            Language = "spanish"
	French             Language = "french"
	Italian            Language = "italian"
	Portuguese         Language = "portuguese"
	Czech              Language = "czech"
	Japanese           Language = "japanese"
	Korean             Language = "korean"
	ChineseSimplified  Language = "chinese_simplified"
	ChineseTraditional Language = "chinese_traditional"
)

// Languages lists all languages, English first.
func Languages() []Language {
	return []Language{
		English, Spanish, French, Italian, Portuguese,
		Czech, Japanese, Korean, ChineseSimplified, ChineseTraditional,
	}
}

// wordFiles is read only. Its files are in NFKD; a test pins their digests.
//
//go:embed wordlist/*.txt
var wordFiles embed.FS

// words returns the 2048 words in NFKD, or none for an unknown language.
func (l Language) words() []string {
	b, err := wordFiles.ReadFile("wordlist/" + string(l) + ".txt")
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// Complete returns the words of a list that begin with the prefix, in the
// order of the list and in NFC, fit for a screen. Case does not matter, nor do
// the accents of Latin letters. Four letters are enough for one English word. An
// unknown language has no words; the empty prefix returns all 2048.
func Complete(prefix string, l Language) []string {
	p := string(normal([]byte(prefix)))
	plain := withoutAccents(p) == p
	var found []string
	for _, w := range l.words() {
		if strings.HasPrefix(w, p) || plain && strings.HasPrefix(withoutAccents(w), p) {
			found = append(found, norm.NFC.String(w))
		}
	}
	return found
}

// normal brings typed text to the form of the word lists: NFKD, lower case.
func normal(b []byte) []byte { return bytes.ToLower(norm.NFKD.Bytes(b)) }

// withoutAccents removes the combining marks of Latin letters, U+0300 to U+036F,
// from NFKD text. It leaves the voicing marks of kana, which make other words.
func withoutAccents(s string) string {
	if strings.IndexByte(s, 0xcc) < 0 && strings.IndexByte(s, 0xcd) < 0 {
		return s // Their first byte in UTF-8 is one of these.
	}
	return strings.Map(func(r rune) rune {
		if 0x0300 <= r && r <= 0x036f {
			return -1
		}
		return r
	}, s)
}
