package slot

import (
	"errors"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/satchel-backup/satchel/secret"
)

const (
	minRunes    = 12
	minDistinct = 6
	maxDigits   = 20 // a text of digits only must have more

	// minBits is what a passphrase must have by our own count: at work factor 18
	// about a million core-years.
	minBits = 45
	// goodBits is where the advice ends. Six generated words reach it, save one in
	// ten thousand that are all common.
	goodBits = 60

	maxJudged = 200 // runes; the rest of a longer passphrase is not counted
	maxPiece  = 90  // runes in the longest phrase we know
)

// ErrWeak says that a passphrase can be guessed. The details are in a
// [*WeakError].
var ErrWeak = errors.New("weak passphrase")

// WeakError tells a person why a passphrase is refused and what to do. Neither
// text holds any part of the passphrase.
type WeakError struct {
	Reason string // one sentence, lower case, no period: "it is too short"
	Advice string // the same
}

// Error returns the reason.
func (e *WeakError) Error() string { return ErrWeak.Error() + ": " + e.Reason }

// Unwrap returns ErrWeak.
func (e *WeakError) Unwrap() error { return ErrWeak }

const (
	adviceGenerate = "let Satchel choose six words for you"
	adviceLonger   = "add a few words that have nothing to do with each other or with you"
	adviceWords    = "if these are the words of a wallet, choose another passphrase: whoever sees one would have both"
)

// CheckPassphrase judges a passphrase that someone is about to choose. It
// refuses with a [*WeakError], or [ErrPassphrase] if the text can be no
// passphrase at all. context is what an attacker would know, such as the label
// of the wallet and the user's name.
//
// Call it when a passphrase is chosen and never when a backup is opened.
func CheckPassphrase(p secret.Bytes, context ...string) error {
	normal, err := normalise(p)
	if err != nil {
		return err
	}
	text := string(normal.Open())
	if strings.TrimSpace(text) != text {
		return &WeakError{"it begins or ends with a space, which is easily lost", "leave the space away"}
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		return &WeakError{"it holds a sign that cannot be typed, such as a line break", "use letters, digits, spaces and punctuation"}
	}
	if utf8.RuneCountInString(text) < minRunes {
		return &WeakError{"it has fewer than 12 characters", adviceLonger}
	}
	if distinct(text) < minDistinct {
		return &WeakError{"it has fewer than 6 different characters", adviceGenerate}
	}
	if n, only := digits(text); only && n <= maxDigits {
		return &WeakError{"it is made of digits only", adviceGenerate}
	}
	bits, most := count(text, context)
	if bits < minBits {
		return &WeakError{most.reason(), adviceGenerate}
	}
	return nil
}

// Estimate returns about how many bits a guessing program has to try, for
// showing to a person who is choosing a passphrase, and advice, which is empty
// if there is none. The number is not a promise: a passphrase that a person
// made up is easier to guess than it looks.
func Estimate(p secret.Bytes, context ...string) (bits float64, advice string) {
	normal, err := normalise(p)
	if err != nil {
		return 0, adviceGenerate
	}
	text := string(normal.Open())
	bits, _ = count(text, context)
	if weak, ok := errors.AsType[*WeakError](CheckPassphrase(p, context...)); ok {
		return bits, weak.Advice
	}
	switch {
	case looksLikeWords(text):
		// Not refused: twelve diceware words look the same and are excellent.
		return bits, adviceWords
	case bits < goodBits:
		return bits, adviceLonger
	}
	return bits, ""
}

func distinct(text string) int {
	seen := make(map[rune]bool)
	for _, r := range text {
		seen[unicode.ToLower(r)] = true
	}
	return len(seen)
}

// digits counts the digits of a text and reports whether it has no letters.
func digits(text string) (n int, only bool) {
	only = true
	for _, r := range text {
		if unicode.IsDigit(r) {
			n++
		}
		only = only && !unicode.IsLetter(r)
	}
	return n, only && n > 0
}

// pieceKind is what a piece of a passphrase was recognised as.
type pieceKind int

const (
	unknownPiece pieceKind = iota
	commonPiece
	passwordPiece
	moneyPiece
	famousPiece
	contextPiece
	runPiece
	repeatPiece
	datePiece
	pieceKinds
)

func (k pieceKind) reason() string {
	switch k {
	case passwordPiece:
		return "it is built around one of the most used passwords"
	case moneyPiece:
		return "it is made of words that come to mind first for a bitcoin wallet"
	case famousPiece:
		return "it is a well-known phrase"
	case contextPiece:
		return "it is mostly a name that others can know"
	case runPiece:
		return "it is mostly a row of neighbouring keys, letters or digits"
	case repeatPiece:
		return "it mostly repeats itself"
	case datePiece:
		return "it is mostly a date"
	case commonPiece:
		return "it is made of a few common words, names or passwords"
	}
	return "it is too short for so few kinds of characters"
}

const (
	// A letter no list explains. Random ones have 4.7 bits or more.
	letterBits = 4.5
	digitBits  = 3.3
	symbolBits = 3.0 // one not seen before
	againBits  = 0.5 // a symbol seen before, such as the space between words
	runBits    = 7.0
	minRun     = 3
	repeatBits = 2.0
	echoBits   = 5.0 // repeats something further back
	minEcho    = 3
	yearBits   = 7.0
	dateBits   = 12.0
	nameBits   = 2.0
)

func rankBits(rank int) float64 { return math.Log2(float64(rank)) + 1 }

// count returns the bits of the cheapest way to put a text together from pieces
// that guessing programs know, and the kind of piece that explains most of it.
func count(text string, context []string) (bits float64, most pieceKind) {
	f := fold(text)
	n := len(f.folded)
	known := guessed()
	names := contextNames(context)

	type state struct {
		bits float64
		from int
		kind pieceKind
	}
	best := make([]state, n+1)
	for i := range best {
		best[i].bits = math.Inf(1)
	}
	best[0].bits = 0
	for i := range n {
		use := func(length int, bits float64, kind pieceKind) {
			if bits += best[i].bits; bits < best[i+length].bits {
				best[i+length] = state{bits, i, kind}
			}
		}
		use(1, f.signBits(i), unknownPiece)
		for length := 2; length <= min(maxPiece, n-i); length++ {
			word := string(f.folded[i : i+length])
			if names[word] {
				use(length, nameBits, contextPiece)
			}
			if p, ok := known[word]; ok {
				use(length, p.bits, p.kind)
			}
		}
		for length := minRun; length <= longestRun(f.plain[i:]); length++ {
			use(length, runBits, runPiece)
		}
		for unit := 1; unit <= i; unit++ {
			length := 0
			for i+length < n && f.folded[i+length] == f.folded[i+length-unit] {
				length++
			}
			if length >= unit {
				use(length, repeatBits, repeatPiece)
			}
			if length >= minEcho {
				use(length, echoBits, repeatPiece)
			}
		}
		if i+4 <= n && isYear(f.plain[i:i+4]) {
			use(4, yearBits, datePiece)
		}
		for _, length := range []int{6, 8} {
			if i+length <= n && isDate(f.plain[i:i+length]) {
				use(length, dateBits, datePiece)
			}
		}
	}

	var covered [pieceKinds]int
	for at := n; at > 0; at = best[at].from {
		covered[best[at].kind] += at - best[at].from
	}
	for kind := commonPiece; kind < pieceKinds; kind++ {
		if covered[kind] > 0 && (most == unknownPiece || covered[kind] > covered[most]) {
			most = kind
		}
	}
	return best[n].bits + f.symbols, most
}

// folded is a passphrase as the lists see it: letters and digits without
// spaces, case, or accents.
type folded struct {
	plain   []rune  // digits left as they are
	folded  []rune  // digits and signs turned into the letters they look like
	symbols float64 // bits in what was left out
}

func fold(text string) folded {
	var f folded
	seen := make(map[rune]bool)
	var letters strings.Builder
	for _, r := range norm.NFKD.String(text) {
		if !unicode.Is(unicode.Mn, r) {
			letters.WriteRune(unicode.ToLower(r))
		}
	}
	for _, r := range norm.NFC.String(letters.String()) {
		if len(f.plain) == maxJudged {
			break
		}
		look := looksLike(r)
		if !unicode.IsLetter(look) && !unicode.IsDigit(look) {
			if seen[r] {
				f.symbols += againBits
			} else {
				f.symbols += symbolBits
			}
			seen[r] = true
			continue
		}
		f.plain = append(f.plain, r)
		f.folded = append(f.folded, look)
	}
	return f
}

// looksLike returns the letter that a digit or sign stands for in l33t. The
// letter l becomes i, because 1 and ! stand for either.
func looksLike(r rune) rune {
	switch r {
	case 'l', '1', '!', '|':
		return 'i'
	case '0':
		return 'o'
	case '3', '€':
		return 'e'
	case '4', '@':
		return 'a'
	case '5', '$':
		return 's'
	case '7':
		return 't'
	}
	return r
}

func (f folded) signBits(i int) float64 {
	switch r := f.plain[i]; {
	case unicode.IsDigit(r):
		return digitBits
	case unicode.IsLetter(r):
		return letterBits
	}
	return symbolBits
}

// contextNames returns the folded names and their parts.
func contextNames(context []string) map[string]bool {
	names := map[string]bool{"satchei": true} // folded, like all of them
	for _, name := range context {
		parts := strings.FieldsFunc(name, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		for _, part := range append(parts, name) {
			if f := fold(part).folded; len(f) >= 3 {
				names[string(f)] = true
			}
		}
	}
	return names
}

// longestRun returns how far a text begins along a row of keys, either way.
func longestRun(text []rune) int {
	longest := 0
	for _, row := range keyRows {
		keys := []rune(row)
		for start := range keys {
			for _, step := range []int{1, -1} {
				length := 0
				for at := start; length < len(text) && at >= 0 && at < len(keys) && keys[at] == text[length]; at += step {
					length++
				}
				longest = max(longest, length)
			}
		}
	}
	return longest
}

func isYear(text []rune) bool {
	n, ok := number(text)
	return ok && n >= 1900 && n <= 2099
}

// isDate recognises six and eight digits as a date in the orders in use.
func isDate(text []rune) bool {
	date := func(day, month, year []rune) bool {
		d, ok1 := number(day)
		m, ok2 := number(month)
		_, ok3 := number(year)
		return ok1 && ok2 && ok3 && d >= 1 && d <= 31 && m >= 1 && m <= 12 && (len(year) == 2 || isYear(year))
	}
	y := len(text) - 4
	return date(text[:2], text[2:4], text[4:]) || date(text[2:4], text[:2], text[4:]) ||
		date(text[y+2:], text[y:y+2], text[:y]) || date(text[y:y+2], text[y+2:], text[:y])
}

func number(text []rune) (int, bool) {
	n := 0
	for _, r := range text {
		if r < '0' || r > '9' {
			return 0, false
		}
		n = n*10 + int(r-'0')
	}
	return n, true
}
