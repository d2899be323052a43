// Package store defines where sealed bytes are kept: a cloud, a folder, memory.
//
// A [Store] is one account or folder of the user's own. It knows names and
// bytes, never keys. The contract is as weak as the weakest cloud: there is no
// overwrite and no compare-and-swap, a listing may lag, and one name may stand
// for two objects. Objects are immutable; a change is a new object with a new
// name. Packages below this one implement it, and storetest holds the tests
// that every implementation must pass.
package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits that every store honours.
const (
	MaxName   = 512      // bytes in a name
	MaxPart   = 255      // bytes in one element of a name, as most file systems have it
	MaxObject = 80 << 20 // bytes in an object that Put accepts
)

var (
	// ErrNotExist says that the store answered and has no such object.
	ErrNotExist = errors.New("no such object")
	// ErrExist says that other bytes stand under the name. Nothing was written.
	ErrExist = errors.New("another object has this name")
	// ErrDamaged says that objects of this name exist and none has the wanted hash.
	ErrDamaged = errors.New("object is damaged")
	// ErrTooLarge says that the object is longer than the caller's limit. It was
	// not read.
	ErrTooLarge = errors.New("object is too large")
	// ErrListing says that a listing could not be completed. It says nothing
	// about what exists.
	ErrListing = errors.New("listing is incomplete")
	// ErrUnreachable says that the store did not answer; nothing is known.
	ErrUnreachable = errors.New("store is unreachable")
	// ErrSignIn says that the user must sign in again.
	ErrSignIn = errors.New("sign-in needed")
	// ErrWrongAccount says that another account is signed in than the one enrolled.
	ErrWrongAccount = errors.New("wrong account")
	// ErrFull says that the store has no room.
	ErrFull = errors.New("store is full")
)

// Object is one stored object as a listing shows it.
type Object struct {
	Name     string    // as given to Put
	Size     int64     // bytes
	Modified time.Time // as the store tells; the zero time where it does not
	ID       string    // the store's own handle, for Delete; opaque to callers
}

// Store keeps immutable objects under names. Names are slash-separated paths
// accepted by [CheckName]. Methods may be called concurrently.
//
// Errors wrap a sentinel of this package where one fits, so that callers can
// tell absent ([ErrNotExist]) from unknown (every other error).
type Store interface {
	// Put stores data under name. When it returns nil the object is durable as
	// far as the store can promise. Putting the same bytes again is fine and
	// makes no second object. Other bytes under the same name are ErrExist where
	// the store can tell. Any other error means perhaps: the object may be
	// there, whole or torn, now or later. It is always safe to call again.
	// Put does not keep data.
	Put(ctx context.Context, name string, data []byte) error

	// Get returns the object's bytes. With several objects of that name it
	// returns the one whose hash is want; with want "" any one. It returns
	// ErrDamaged if objects exist and none matches, ErrTooLarge if the object is
	// longer than limit bytes (before reading it), ErrNotExist if the store
	// answered that there is none.
	Get(ctx context.Context, name string, want Hash, limit int64) ([]byte, error)

	// List returns every object whose name begins with prefix, in no order.
	// It returns all of them or ErrListing (or another error): never a part
	// without an error. What was put lately may be missing for a while.
	// Entries that no Put made (links, foreign names) are left out.
	List(ctx context.Context, prefix string) ([]Object, error)

	// Delete removes one object as listed. Deleting what is gone is no error.
	Delete(ctx context.Context, o Object) error
}

// Place is a store with the address a person would type, such as
// "folder:/home/ann/Nextcloud".
type Place struct {
	Address string
	Store   Store
	// Walks says that a listing costs a request for each folder: it is then listed whole
	// every hour, and between that the little that each change needs. Zero means that a
	// listing of some hundred objects costs one request.
	Walks bool
}

// Hash names bytes: the first 128 bits of their SHA-256 in lower-case hex, 32
// characters. The empty hash matches anything.
type Hash string

// Sum returns the hash of data.
func Sum(data []byte) Hash {
	h := sha256.Sum256(data)
	return Hash(hex.EncodeToString(h[:16]))
}

// Matches reports whether data has this hash, or the hash is empty.
func (h Hash) Matches(data []byte) bool { return h == "" || h == Sum(data) }

// CheckName returns an error unless name is a relative slash-separated path
// that every provider can hold: valid UTF-8, 1 to MaxName bytes, no empty, "."
// or ".." element, no element over MaxPart bytes, none that begins with a dot or
// ends with a dot or space, no control character and none of \ : * ? " < > |.
// Names should be in Unicode NFC: some stores change them to it.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName || !utf8.ValidString(name) {
		return fmt.Errorf("object name of %d bytes is not usable", len(name))
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || len(part) > MaxPart || part[0] == '.' || strings.HasSuffix(part, ".") || strings.HasSuffix(part, " ") {
			return errors.New("object name has an unusable element")
		}
	}
	if strings.ContainsAny(name, `\:*?"<>|`) || strings.ContainsFunc(name, unicode.IsControl) {
		return errors.New("object name has an unusable character")
	}
	return nil
}

// CheckPut returns an error if a store must refuse to put this: as [CheckName], and
// [ErrTooLarge] above [MaxObject].
func CheckPut(name string, data []byte) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if len(data) > MaxObject {
		return ErrTooLarge
	}
	return nil
}

// movedKey is what WithMoved keeps its function under.
type movedKey struct{}

// WithMoved returns a context whose calls of a store call moved as bytes of an object, or
// what is sent around them, go over a line: so that long transfers can show that they go
// on. Moved may be called from several goroutines, and with more bytes in all than the
// object has: what was lost is sent again.
func WithMoved(ctx context.Context, moved func(n int)) context.Context {
	return context.WithValue(ctx, movedKey{}, moved)
}

// Moved is called by stores that send and receive over a line.
func Moved(ctx context.Context, n int) {
	if moved, ok := ctx.Value(movedKey{}).(func(int)); ok {
		moved(n)
	}
}
