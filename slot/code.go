package slot

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/satchel-backup/satchel/secret"
)

// A recovery code is 160 random bits and 20 check bits in Crockford's base32,
// in nine groups of four. Nine groups with hyphens are never a valid number of
// BIP 39 words with spaces (R17).
const (
	codeAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	codeLabel    = "satchel/v1/recovery-code"

	codeBytes   = 20
	codeRandom  = 32 // symbols
	codeCheck   = 4
	codeSymbols = codeRandom + codeCheck
	codeGroup   = 4

	maxCodeInput = 1024 // bytes typed
)

// ErrRecoveryCode says that a text is not a recovery code. The details are in a
// [*CodeError].
var ErrRecoveryCode = errors.New("not a recovery code")

// CodeProblem is what is wrong with a typed recovery code.
type CodeProblem string

const (
	CodeTooShort CodeProblem = "too-short"  // Count symbols are missing
	CodeTooLong  CodeProblem = "too-long"   // Count symbols are too many
	CodeSymbol   CodeProblem = "symbol"     // what stands at Groups[0], Place cannot occur
	CodeCheck    CodeProblem = "check"      // mistyped, perhaps in Groups
	CodeWords    CodeProblem = "words"      // these look like BIP 39 words
	CodeNotText  CodeProblem = "not-a-code" // not UTF-8, or longer than anyone types
)

// CodeError tells how to mend a typed recovery code. It holds positions only,
// never a symbol.
type CodeError struct {
	Problem CodeProblem
	Count   int   // symbols missing or too many
	Groups  []int // where to look, the first group is 1; nil if that is not known
	Place   int   // the symbol within the group, the first is 1; 0 if that is not known
}

// Error returns a sentence for the person who typed the code.
func (e *CodeError) Error() string {
	const head = "not a recovery code: "
	switch e.Problem {
	case CodeTooShort:
		return fmt.Sprintf("%s%s missing", head, symbols(e.Count))
	case CodeTooLong:
		return fmt.Sprintf("%s%s too many", head, symbols(e.Count))
	case CodeSymbol:
		return fmt.Sprintf("%ssymbol %d of group %d is none that a code can have", head, e.Place, e.Groups[0])
	case CodeCheck:
		switch len(e.Groups) {
		case 1:
			return fmt.Sprintf("%sone or more symbols are mistyped, look at group %d first", head, e.Groups[0])
		case 2:
			return fmt.Sprintf("%sone or more symbols are mistyped, look at the end of group %d and the start of group %d first", head, e.Groups[0], e.Groups[1])
		}
		return head + "one or more symbols are mistyped"
	case CodeWords:
		return "these look like a wallet's words, not a recovery code"
	}
	return head + "this is not a text that could be one"
}

// Unwrap returns ErrRecoveryCode.
func (e *CodeError) Unwrap() error { return ErrRecoveryCode }

func symbols(n int) string {
	if n == 1 {
		return "1 symbol is"
	}
	return fmt.Sprintf("%d symbols are", n)
}

// NewRecoveryCode makes a recovery code. The second result is what to print; it
// is exactly what age must be given.
func NewRecoveryCode() (Secret, secret.Bytes) {
	random := secret.Random(codeBytes)
	defer random.Wipe()
	text := printCode(encodeCode(random.Open()))
	defer clear(text)
	printed := secret.New(text)
	return Secret{KindRecoveryCode, printed}, printed
}

// RecoveryCode reads a recovery code as people type it: in either case, grouped
// in any way or not at all, with the letters o, i and l for the digits they look
// like. The error is a [*CodeError].
func RecoveryCode(text secret.Bytes) (Secret, error) {
	if text.Len() > maxCodeInput || !utf8.Valid(text.Open()) {
		return Secret{}, &CodeError{Problem: CodeNotText}
	}
	// NFKC turns full-width forms and fancy spaces into plain ones.
	typed := norm.NFKC.Append(nil, text.Open()...) // not Bytes, which may return its argument
	defer clear(typed)
	code, err := readCode(typed)
	defer clear(code)
	if err != nil {
		if looksLikeWords(string(typed)) {
			err = &CodeError{Problem: CodeWords}
		}
		return Secret{}, err
	}
	printed := printCode(code)
	defer clear(printed)
	return Secret{KindRecoveryCode, secret.New(printed)}, nil
}

// readCode returns the symbols of a code whose check matches.
func readCode(typed []byte) ([]byte, error) {
	code := make([]byte, 0, codeSymbols)
	count := 0
	for _, r := range string(typed) {
		if ignored(r) {
			continue
		}
		symbol, ok := symbolOf(r)
		if !ok {
			if count >= codeSymbols {
				return code, &CodeError{Problem: CodeTooLong, Count: count + 1 - codeSymbols}
			}
			return code, &CodeError{Problem: CodeSymbol, Groups: []int{count/codeGroup + 1}, Place: count%codeGroup + 1}
		}
		if count < codeSymbols {
			code = append(code, symbol)
		}
		count++
	}
	if count < codeSymbols {
		return code, &CodeError{Problem: CodeTooShort, Count: codeSymbols - count}
	}
	if count > codeSymbols {
		return code, &CodeError{Problem: CodeTooLong, Count: count - codeSymbols}
	}
	if !checkMatches(code) {
		return code, &CodeError{Problem: CodeCheck, Groups: suspectGroups(code)}
	}
	return code, nil
}

// ignored reports whether a code may hold r anywhere without meaning: what
// people, printers and clipboards put between symbols.
func ignored(r rune) bool {
	switch r {
	case '.', '_', '·', '•', '\u2212': // the last is the minus sign, which Unicode does not count as a dash
		return true
	}
	return unicode.IsSpace(r) || unicode.In(r, unicode.Pd, unicode.Cf)
}

func symbolOf(r rune) (byte, bool) {
	r = unicode.ToLower(r)
	switch r {
	case 'o':
		r = '0'
	case 'i', 'l':
		r = '1'
	}
	if !strings.ContainsRune(codeAlphabet, r) {
		return 0, false
	}
	return byte(r), true
}

// encodeCode returns the 36 symbols for 20 bytes.
func encodeCode(random []byte) []byte {
	enc := base32.NewEncoding(codeAlphabet).WithPadding(base32.NoPadding)
	code := enc.AppendEncode(make([]byte, 0, codeSymbols+codeGroup), random)
	sum := sha256.Sum256(append([]byte(codeLabel), random...))
	// Five bytes give eight symbols: the first four are the first 20 bits.
	return enc.AppendEncode(code, sum[:5])[:codeSymbols]
}

func checkMatches(code []byte) bool {
	enc := base32.NewEncoding(codeAlphabet).WithPadding(base32.NoPadding)
	random := make([]byte, codeBytes)
	defer clear(random)
	if _, err := enc.Decode(random, code[:codeRandom]); err != nil {
		return false
	}
	want := encodeCode(random)
	defer clear(want)
	return subtle.ConstantTimeCompare(code, want) == 1
}

func printCode(code []byte) []byte {
	printed := make([]byte, 0, codeSymbols+codeSymbols/codeGroup)
	for i, symbol := range code {
		if i > 0 && i%codeGroup == 0 {
			printed = append(printed, '-')
		}
		printed = append(printed, symbol)
	}
	return printed
}

// suspectGroups returns where the one wrong symbol, or the one pair of swapped
// neighbours, would be that explains a code whose check does not match; nil if
// there is no such explanation or more than one. There are 1,151 to try and each
// fits by chance once in a million.
func suspectGroups(code []byte) []int {
	try := append([]byte(nil), code...)
	defer clear(try)
	var groups []int
	found := 0
	note := func(first, last int) {
		if !checkMatches(try) {
			return
		}
		found++
		groups = []int{first/codeGroup + 1}
		if g := last/codeGroup + 1; g != groups[0] {
			groups = append(groups, g)
		}
	}
	for i := range try {
		for _, symbol := range []byte(codeAlphabet) {
			if symbol != code[i] {
				try[i] = symbol
				note(i, i)
			}
		}
		try[i] = code[i]
		if i > 0 && code[i-1] != code[i] {
			try[i-1], try[i] = code[i], code[i-1]
			note(i-1, i)
			try[i-1], try[i] = code[i-1], code[i]
		}
	}
	if found != 1 {
		return nil
	}
	return groups
}

// looksLikeWords reports whether a text is shaped like the words of a wallet: 12
// to 24 of them, in letters only, perhaps numbered. It knows no word list, so
// that it works in every language.
func looksLikeWords(text string) bool {
	words := 0
	for _, field := range strings.Fields(text) {
		field = strings.TrimRight(field, ",;")
		if strings.Trim(field, "0123456789.)") == "" {
			continue // a number before a word
		}
		ascii := true
		for _, r := range field {
			if !unicode.IsLetter(r) && !unicode.IsMark(r) {
				return false
			}
			ascii = ascii && r < utf8.RuneSelf
		}
		if ascii && len(field) < 3 {
			return false // words of one sign exist in Chinese; in English they have three letters or more
		}
		words++
	}
	return words >= 12 && words <= 24
}
