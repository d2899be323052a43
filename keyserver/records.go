package keyserver

import (
	"context"
	"errors"
)

// ID names a record. It is the account of the first key that the record held.
type ID [32]byte

var (
	// ErrNoRecord says that the database answered and has no such record.
	ErrNoRecord = errors.New("no such record")
	// ErrStale says that a record has another version than the one that was to be
	// replaced. Nothing was written.
	ErrStale = errors.New("the record was changed meanwhile")
)

// Write replaces, makes or deletes one record.
type Write struct {
	ID      ID
	Version uint64 // that it replaces; 0 if it must not exist yet
	Data    []byte // nil to delete it
}

// Entry is one record with its name.
type Entry struct {
	ID      ID
	Version uint64 // from 1 on; each write adds one
	Data    []byte
}

// Records is a database of sealed records. Methods may be called concurrently. An error
// that is none of this package says that nothing is known: a write may have happened or
// not. It is always safe to look again.
type Records interface {
	// Get returns a record, or ErrNoRecord. It sees all that Put returned nil for.
	Get(ctx context.Context, id ID) (Entry, error)
	// Put makes all writes or none. When it returns nil they are durable: they survive
	// the death of the process, of the database and of the machine, and, where the
	// database keeps a synchronous copy, of its disk. ErrStale if a version is another.
	Put(ctx context.Context, writes ...Write) error
	// Scan returns up to limit records after an ID, in the order of their IDs.
	Scan(ctx context.Context, after ID, limit int) ([]Entry, error)
	// Close ends the use of the database.
	Close() error
}
