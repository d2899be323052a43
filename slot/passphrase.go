package slot

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/sethvargo/go-diceware/diceware"
	"golang.org/x/text/unicode/norm"

	"github.com/satchel-backup/satchel/secret"
)

const (
	maxPassphrase = 1024              // bytes, after normalisation
	maxTyped      = 4 * maxPassphrase // bytes; decomposed text takes at most three times the room

	minGenerated = 6  // words
	maxGenerated = 32 // words
)

// ErrPassphrase says that a text cannot be a passphrase at all. It does not say
// whether it is weak: see [CheckPassphrase].
var ErrPassphrase = errors.New("not usable as a passphrase")

// Passphrase returns the way in that a passphrase gives. It is used as typed,
// spaces at the ends included, in Unicode normalisation form C, so that every
// keyboard gives the same bytes. It is not judged here: what opened a backup
// once opens it always.
func Passphrase(p secret.Bytes) (Secret, error) {
	text, err := normalise(p)
	if err != nil {
		return Secret{}, err
	}
	return Secret{KindPassphrase, text}, nil
}

// normalise is the only place where a passphrase takes the form that is used.
func normalise(p secret.Bytes) (secret.Bytes, error) {
	typed := p.Open()
	if len(typed) == 0 {
		return secret.Bytes{}, fmt.Errorf("%w: it is empty", ErrPassphrase)
	}
	if len(typed) > maxTyped {
		return secret.Bytes{}, fmt.Errorf("%w: it is longer than %d bytes", ErrPassphrase, maxPassphrase)
	}
	if !utf8.Valid(typed) {
		return secret.Bytes{}, fmt.Errorf("%w: it is not valid UTF-8", ErrPassphrase)
	}
	text := norm.NFC.Append(nil, typed...) // not Bytes, which may return typed itself
	defer clear(text)
	if len(text) > maxPassphrase {
		return secret.Bytes{}, fmt.Errorf("%w: it is longer than %d bytes", ErrPassphrase, maxPassphrase)
	}
	// x/text breaks runs of more than 30 combining marks with a joiner, which
	// other implementations of NFC do not: age would be given other bytes there.
	joiner := []byte("\u034f")
	if bytes.Count(text, joiner) != bytes.Count(typed, joiner) {
		return secret.Bytes{}, fmt.Errorf("%w: it has too many combining marks in a row", ErrPassphrase)
	}
	return secret.New(text), nil
}

// GeneratePassphrase returns n different words of the EFF's large list of 7,776,
// drawn at random: 6 words, the least and the default (0), are 77 bits. They are
// joined by hyphens. Some are BIP 39 words too, but those are written with
// spaces, and 12 or more: six with hyphens pass in no wallet (R17).
func GeneratePassphrase(n int) (secret.Bytes, error) {
	if n == 0 {
		n = minGenerated
	}
	if n < minGenerated || n > maxGenerated {
		return secret.Bytes{}, fmt.Errorf("generating a passphrase: the number of words is not between %d and %d", minGenerated, maxGenerated)
	}
	words, err := diceware.Generate(n)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("generating a passphrase: %w", err)
	}
	return secret.FromString(strings.Join(words, "-")), nil
}
