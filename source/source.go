// Package source says where items come from.
//
// A [Source] watches one thing outside, such as files or a Lightning node, and
// hands every change to a function that keeps it:
//
//	err := src.Run(ctx, func(ctx context.Context, changes ...source.Change) error {
//		...
//	})
//
// It knows no backups: [Change] has the fields of satchel.Change, so that the one
// converts to the other, and whoever runs a source brings the function.
package source

import "context"

// Change is a new value of an item, or its removal.
type Change struct {
	Name     string
	Value    []byte
	Required bool // a restore without this item is incomplete
	Remove   bool
}

// Source is where items come from.
type Source interface {
	// Run hands what is there at its start to save, then every change, until ctx
	// ends, and returns ctx.Err(). Any other error means that it cannot go on and
	// that trying again may help.
	//
	// A value is whole: one that its owner had finished writing. Changes that come
	// together go in one call, which names no item twice. What is there at the
	// start, and what an owner writes again, may be a value that is kept already.
	//
	// An error from save means perhaps: nothing, some or all of it is kept. The
	// changes stay due and are handed over again after a while that grows from one
	// error to the next; where there are newer values by then, those. So save must
	// be safe to repeat: a value that is kept already and the removal of an item
	// that is not there are no errors.
	//
	// A removal is handed over only where the maker of the source asked for it.
	//
	// save is called by one goroutine at a time, and not after Run has returned.
	// While it runs, changes are collected, however long it takes; it ends when its
	// context does. The values are save's only until it returns, and must not be
	// written to.
	Run(ctx context.Context, save func(ctx context.Context, changes ...Change) error) error
}
