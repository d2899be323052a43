// Package escape writes names in the alphabets of stores that allow fewer than
// package store does, so that they can be read back.
//
//	there := escape.Name(name, rule)
//	name, ok := escape.Read(there, rule)
//
// The form is that of quoted-printable: what a store refuses, and the sign "=" itself,
// is written as its bytes in UTF-8, each as = and two upper-case hexadecimal digits. All
// else stays as it is: people read these names too.
package escape

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Rule reports whether r, which begins at part[i], is to be escaped. A part is one
// element of a name.
type Rule func(part string, i int, r rune) bool

// Name returns a name as the store has it.
func Name(name string, rule Rule) string {
	var b strings.Builder
	for k, part := range strings.Split(name, "/") {
		if k > 0 {
			b.WriteByte('/')
		}
		for i, r := range part {
			if r != '=' && !rule(part, i, r) {
				b.WriteRune(r)
				continue
			}
			for _, c := range []byte(string(r)) {
				fmt.Fprintf(&b, "=%02X", c)
			}
		}
	}
	return b.String()
}

// Read returns the name that is there in the store. It reports false for what Name
// does not write: each name has one form, and others' files have none.
func Read(there string, rule Rule) (name string, ok bool) {
	b := make([]byte, 0, len(there))
	for i := 0; i < len(there); i++ {
		c := there[i]
		if c == '=' {
			if i+2 >= len(there) {
				return "", false
			}
			high, low := digit(there[i+1]), digit(there[i+2])
			if high < 0 || low < 0 {
				return "", false
			}
			c = byte(high<<4 | low)
			i += 2
			if c == '/' {
				return "", false
			}
		}
		b = append(b, c)
	}
	name = string(b)
	return name, utf8.ValidString(name) && Name(name, rule) == there
}

func digit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
