// Package secret holds bytes that must not be printed: seeds, keys, passphrases.
//
// Wrap a secret at the edge where it enters the program and pass the
// [Bytes] inward. Printing, logging or encoding it as JSON or text yields the
// word "[secret]". [Bytes.Open] is the only door:
//
//	pass := secret.New(typed)
//	...
//	key := derive(pass.Open())
//
// The bytes are kept behind a closure, because fmt prints unexported fields by
// reflection, past any String method.
package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

const hidden = "[secret]"

// Bytes is a secret of any length. The zero value is the empty secret. It is
// safe for concurrent use; copies share the same bytes.
type Bytes struct {
	open func() []byte
}

// New copies b into a secret. The caller may wipe b afterwards.
func New(b []byte) Bytes {
	own := append([]byte(nil), b...)
	return Bytes{open: func() []byte { return own }}
}

// FromString copies s into a secret. Prefer [New]: a string cannot be wiped.
func FromString(s string) Bytes { return New([]byte(s)) }

// Random returns n random bytes from the system's generator.
func Random(n int) Bytes {
	b := make([]byte, n)
	rand.Read(b) // Never fails: crypto/rand ends the program instead.
	return Bytes{open: func() []byte { return b }}
}

// Open returns the bytes themselves, not a copy: the caller must not change
// them, keep them, or put them into an error or a log.
func (b Bytes) Open() []byte {
	if b.open == nil {
		return nil
	}
	return b.open()
}

// Len returns the number of bytes.
func (b Bytes) Len() int { return len(b.Open()) }

// Empty reports whether there are no bytes.
func (b Bytes) Empty() bool { return b.Len() == 0 }

// Equal compares two secrets in a time that depends on their lengths only.
func (b Bytes) Equal(other Bytes) bool {
	return subtle.ConstantTimeCompare(b.Open(), other.Open()) == 1
}

// Wipe overwrites the bytes, in every copy of this secret. The Go runtime may
// have moved or copied memory before, so wiping shortens a secret's life and
// does not promise its end.
func (b Bytes) Wipe() { clear(b.Open()) }

// String returns a placeholder.
func (b Bytes) String() string { return hidden }

// GoString returns a placeholder.
func (b Bytes) GoString() string { return hidden }

// Format writes a placeholder for every verb.
func (b Bytes) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// MarshalText returns a placeholder, for JSON, XML and text encoders.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue returns a placeholder.
func (b Bytes) LogValue() slog.Value { return slog.StringValue(hidden) }
