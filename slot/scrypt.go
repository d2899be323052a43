package slot

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
)

const (
	saltSize    = 16
	wrappedSize = 16 + 16 // a file key and its authentication tag
)

// workFactors are the base-2 logarithms of scrypt's cost: 2^10 takes 1 MiB and
// milliseconds, 2^18 256 MiB and about a second, 2^20 1 GiB.
type workFactors struct{ floor, write, ceiling int }

// workFactors returns what slots of the kind are written with and may be opened
// with. A passphrase needs the work; the others hold 128 bits or more and do
// not, so a slot of theirs that asks for it was made to cost time and memory.
func (k Kind) workFactors() workFactors {
	switch k {
	case KindPassphrase:
		return workFactors{floor: 14, write: 18, ceiling: 20}
	case KindRecoveryCode, KindWords:
		return workFactors{floor: 10, write: 10, ceiling: 12}
	}
	return workFactors{} // floor and ceiling 0: every factor is refused
}

// scryptRecipient is age's own, made at the last moment: age's type keeps the
// passphrase where fmt would print it.
type scryptRecipient struct {
	secret     Secret
	workFactor int
}

var _ age.RecipientWithLabels = (*scryptRecipient)(nil)

// Wrap implements age.Recipient.
func (r *scryptRecipient) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	stanzas, _, err := r.WrapWithLabels(fileKey)
	return stanzas, err
}

// WrapWithLabels implements age.RecipientWithLabels. The random label keeps
// other recipients out of the file.
func (r *scryptRecipient) WrapWithLabels(fileKey []byte) ([]*age.Stanza, []string, error) {
	inner, err := age.NewScryptRecipient(string(r.secret.text.Open()))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrSecret, err)
	}
	inner.SetWorkFactor(r.workFactor)
	return inner.WrapWithLabels(fileKey)
}

// scryptIdentity judges a file's parameters before age works with them.
type scryptIdentity struct{ secret Secret }

var _ age.Identity = (*scryptIdentity)(nil)

// Unwrap implements age.Identity.
func (i *scryptIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	limits := i.secret.kind.workFactors()
	if err := checkStanzas(stanzas, limits); err != nil {
		return nil, err
	}
	inner, err := age.NewScryptIdentity(string(i.secret.text.Open()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSecret, err)
	}
	inner.SetMaxWorkFactor(limits.ceiling)
	fileKey, err := inner.Unwrap(stanzas)
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, noMatch{ErrWrongSecret}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrParameters, err)
	}
	return fileKey, nil
}

// checkStanzas accepts one well-formed scrypt stanza within the limits. It is as
// strict as age or stricter, and costs nothing.
func checkStanzas(stanzas []*age.Stanza, limits workFactors) error {
	found := 0
	for _, s := range stanzas {
		if s.Type == "scrypt" {
			found++
		}
	}
	if found == 0 {
		return noMatch{ErrKind}
	}
	if len(stanzas) != 1 {
		return fmt.Errorf("%w: it has more than one recipient", ErrParameters)
	}
	s := stanzas[0]
	if len(s.Args) != 2 || len(s.Body) != wrappedSize {
		return fmt.Errorf("%w: it is malformed", ErrParameters)
	}
	if !validSalt(s.Args[0]) {
		return fmt.Errorf("%w: its salt is malformed", ErrParameters)
	}
	logN, ok := parseWorkFactor(s.Args[1])
	if !ok {
		return fmt.Errorf("%w: its work factor is malformed", ErrParameters)
	}
	if logN < limits.floor {
		return fmt.Errorf("%w: its work factor is below %d, weaker than Satchel writes", ErrParameters, limits.floor)
	}
	if logN > limits.ceiling {
		return fmt.Errorf("%w: its work factor is above %d, absurdly high", ErrParameters, limits.ceiling)
	}
	return nil
}

func validSalt(arg string) bool {
	enc := base64.RawStdEncoding.Strict()
	// The decoder skips line ends; age does not.
	if len(arg) != enc.EncodedLen(saltSize) || strings.ContainsAny(arg, "\r\n") {
		return false
	}
	_, err := enc.DecodeString(arg)
	return err == nil
}

// parseWorkFactor reads a decimal number without sign or leading zero. Anything
// over two digits stands for 100: above every ceiling.
func parseWorkFactor(arg string) (int, bool) {
	if arg == "" || arg[0] == '0' || strings.Trim(arg, "0123456789") != "" {
		return 0, false
	}
	if len(arg) > 2 {
		return 100, true
	}
	n := 0
	for _, digit := range []byte(arg) {
		n = n*10 + int(digit-'0')
	}
	return n, true
}

// slotStart is how every slot begins: the first line of an age file and the
// beginning of its stanza.
const slotStart = "age-encryption.org/v1\n-> scrypt "

// maxStart bounds the bytes of an object that WorkFactor looks at.
const maxStart = 4 << 10

// WorkFactor reads the work factor, the base-2 logarithm of scrypt's cost, from
// the beginning of a sealed slot, so that a caller with several can try the
// cheapest first; 100 stands for any of three digits or more. It is false if the
// object does not begin as a slot does. Nothing is decrypted and nothing proven:
// whether the factor is acceptable, [Secret.Identity] decides.
func WorkFactor(object []byte) (int, bool) {
	start := string(object[:min(len(object), maxStart)])
	rest, ok := strings.CutPrefix(start, slotStart)
	line, _, ended := strings.Cut(rest, "\n")
	salt, factor, _ := strings.Cut(line, " ")
	if !ok || !ended || !validSalt(salt) {
		return 0, false
	}
	return parseWorkFactor(factor)
}

// noMatch is a fact of ours that age takes for "try the next identity".
type noMatch struct{ fact error }

func (e noMatch) Error() string   { return e.fact.Error() }
func (e noMatch) Unwrap() []error { return []error{e.fact, age.ErrIncorrectIdentity} }
