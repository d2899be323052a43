package satchel

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/satchel-backup/satchel/store"
)

// SetPlaces changes where the backup is kept: to these places, at least one, of
// which copies must hold a change before it counts as protected. A place that is
// new gets everything that the newest state needs; one that is left out keeps
// what it has. The change is durable on this device before any place is written;
// afterwards errors are those of Sync. If another device writes the backup in one
// of the places, the error is ErrOtherDevice and nothing was changed.
func (b *Backup) SetPlaces(ctx context.Context, places []store.Place, copies int) (Result, error) {
	if err := b.begin(); err != nil {
		return Result{}, err
	}
	defer b.end()
	d := b.dev
	if len(places) == 0 {
		return b.result(0), fmt.Errorf("changing the places: a backup needs at least one")
	}
	cfg := b.cfg
	cfg.Places, cfg.Copies = slices.Clone(places), copies
	if err := cfg.fill(true); err != nil {
		return b.result(0), fmt.Errorf("changing the places: %w", err)
	}
	cfg.Places = patiently(cfg.Places)

	// Look first, at the new ones too.
	old := b.cfg
	b.change(func() { b.cfg = cfg })
	looks, err := b.look(ctx)
	if err == nil {
		info := d.info
		info.Places, info.Copies = addresses(places), cfg.Copies
		// If we crash here the next Open is given the new places or the old ones,
		// and both are right.
		b.change(func() { err = d.writeInfo(info) })
	}
	if err != nil {
		b.change(func() {
			b.cfg = old
			maps.DeleteFunc(d.places, func(a string, _ *placeState) bool { return !slices.Contains(addresses(old.Places), a) })
		})
		return b.result(0), fmt.Errorf("changing the places: %w", err)
	}
	b.change(func() {
		maps.DeleteFunc(d.places, func(a string, _ *placeState) bool { return !slices.Contains(d.info.Places, a) })
	})
	err = b.sync(ctx, looks)
	return b.result(0), err
}

func addresses(places []store.Place) []string {
	list := make([]string, len(places))
	for i, p := range places {
		list[i] = p.Address
	}
	return list
}
