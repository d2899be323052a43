package slot

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/secret"
)

// minPINBits is what a PIN of letters must be worth: with ten guesses, about the safety
// of four random digits.
const minPINBits = 13

// commonPINs are often chosen and follow no rule below: columns of a keypad, words on its
// letters, and numbers out of films and books.
const commonPINs = ` 2580 0852 1470 0741 3690 0963 1590 3570 7410 8520 9630 1478 3698 7894 4569 1236 6321 9874
 5683 4863 7465 2846 0007 1007 0070 1337 3141 3142 2718 1618 0420 4200 6667 6670 1701 8675 5309 1313 1314
 147258 258369 159753 357951 789456 456789 123654 321654 147852 963852 741852 852456 456852 159357 753951
 121314 131420 520131 520520 314159 271828 100200 102030 112358 142536 007007 `

// CheckPIN judges a PIN that someone is about to choose: 4 to 12 digits that are not among
// the tenth or so that people choose most, or any text that is worth as much. It refuses
// with a [*WeakError], or guard.ErrPIN if the text can be no PIN at all. context is what
// an attacker would know, such as the label of the wallet and the user's name.
//
// Call it when a PIN is chosen and never when a backup is opened.
func CheckPIN(pin secret.Bytes, context ...string) error {
	if n := pin.Len(); n == 0 || n > maxPassphrase || !utf8.Valid(pin.Open()) {
		return guard.ErrPIN
	}
	text := norm.NFKC.String(string(pin.Open()))
	if strings.TrimSpace(text) != text {
		return &WeakError{"it begins or ends with a space, which is easily lost", "leave the space away"}
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		return &WeakError{"it holds a sign that cannot be typed, such as a line break", "use digits, or letters and punctuation"}
	}
	if utf8.RuneCountInString(text) < 4 {
		return &WeakError{"it has fewer than 4 characters", "use at least 4, better 6"}
	}
	if !allDigits(text) {
		if bits, most := count(text, context); bits < minPINBits {
			return &WeakError{most.reason(), "use 6 digits that mean nothing, or add a few letters"}
		}
		return nil
	}
	for _, rule := range []struct {
		weak   func(string) bool
		reason string
	}{
		{stepped, "its digits go up or down in steps"}, // One digit again and again, too.
		{repeated, "it repeats itself"},
		{doubled, "it is made of pairs"},
		{mirrored, "it reads the same from both ends"},
		{dated, "it looks like a date or a year"},
		{func(s string) bool { return strings.Contains(commonPINs, " "+s+" ") }, "it is one that many people choose"},
	} {
		if rule.weak(text) {
			return &WeakError{rule.reason, "choose digits that mean nothing to you, better 6 than 4"}
		}
	}
	return nil
}

func allDigits(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// stepped reports whether each digit differs from the one before by the same number,
// where 0 follows 9.
func stepped(s string) bool {
	step := (s[1] - s[0] + 10) % 10
	for i := 2; i < len(s); i++ {
		if (s[i]-s[i-1]+10)%10 != step {
			return false
		}
	}
	return true
}

// repeated reports whether s is a shorter text several times.
func repeated(s string) bool {
	for n := 1; n <= len(s)/2; n++ {
		if len(s)%n == 0 && strings.Repeat(s[:n], len(s)/n) == s {
			return true
		}
	}
	return false
}

func doubled(s string) bool {
	for i := 0; i+1 < len(s); i += 2 {
		if s[i] != s[i+1] {
			return false
		}
	}
	return len(s)%2 == 0
}

func mirrored(s string) bool {
	for i := range len(s) / 2 {
		if s[i] != s[len(s)-1-i] {
			return false
		}
	}
	return true
}

// dated reports whether s is a day with its month, or a whole date, in one of the usual
// orders, or a year.
func dated(s string) bool {
	two := func(i int) int { return int(s[i]-'0')*10 + int(s[i+1]-'0') }
	day := func(d, m int) bool {
		days := []int{31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}
		return m >= 1 && m <= 12 && d >= 1 && d <= days[m-1]
	}
	year := func(i int) bool { return two(i) == 19 || two(i) == 20 }
	switch len(s) {
	case 4:
		return year(0) || day(two(0), two(2)) || day(two(2), two(0))
	case 6:
		return day(two(0), two(2)) || day(two(2), two(0)) || day(two(4), two(2))
	case 8:
		return year(4) && (day(two(0), two(2)) || day(two(2), two(0))) || year(0) && (day(two(6), two(4)) || day(two(4), two(6)))
	}
	return false
}
