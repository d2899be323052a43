package satchel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store"
)

// SetPlaces changes where the backup is kept: to these places, at least one, of
// which copies must hold a change before it counts as protected. A place that is
// new gets everything that the newest state needs; one that is left out keeps
// what it has. The change is durable on this device before any place is written;
// afterwards errors are those of Sync. If another device writes the backup in one
// of the places, the error is ErrOtherDevice and nothing was changed; if a new one is one
// of the others under another address it is ErrSamePlace.
func (b *Backup) SetPlaces(ctx context.Context, places []store.Place, copies int) (Result, error) {
	if err := b.begin(ctx); err != nil {
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
		err = b.apartFrom(ctx, addresses(old.Places), looks)
	}
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

// apartFrom returns ErrSamePlace if a place that is new is one of those that were there,
// under another address, such as an alias or another name of a server: both would count as
// copies of what is there once. A new place that holds the newest state may as well be a
// copy; only the same place has at once what is put at another. It does not notice a folder
// and the cloud to which another program carries it after a while, nor a place that cannot
// be looked into now.
func (b *Backup) apartFrom(ctx context.Context, old []string, looks []look) error {
	d := b.dev
	holds := func(p store.Place) (bool, error) {
		n := d.head()
		_, err := p.Store.Get(ctx, d.info.Folder+"/"+n.Path(), n.Hash, seal.MaxObject)
		switch {
		case errors.Is(err, store.ErrNotExist), errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrTooLarge):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("finding out whether a place is there twice: %s: %w", p.Address, err)
		}
		return true, nil
	}
	var known, added, suspect []store.Place
	for _, l := range looks {
		switch {
		case l.err != nil:
		case slices.Contains(old, l.place.Address):
			known = append(known, l.place)
		default:
			added = append(added, l.place)
		}
	}
	if len(known) == 0 {
		return nil
	}
	for _, p := range added {
		there, err := holds(p)
		if err != nil {
			return err
		}
		if there {
			suspect = append(suspect, p)
		}
	}
	if len(suspect) == 0 {
		return nil
	}
	if _, err := b.checkpoint(false); err != nil {
		return err
	}
	for _, p := range known {
		if _, err := b.push(ctx, p); err != nil {
			return fmt.Errorf("finding out whether a place is there twice: %s: %w", p.Address, err)
		}
	}
	for _, p := range suspect {
		there, err := holds(p)
		if err != nil {
			return err
		}
		if there {
			return fmt.Errorf("%w: %s", ErrSamePlace, p.Address)
		}
	}
	return nil
}

func addresses(places []store.Place) []string {
	list := make([]string, len(places))
	for i, p := range places {
		list[i] = p.Address
	}
	return list
}
