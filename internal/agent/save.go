package agent

import (
	"context"
	"errors"
	"slices"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/source"
)

// Save keeps what a source hands over, as [source.Source] asks for: it may be
// repeated, and the removal of an item that is not there is no error. Otherwise
// errors are those of [satchel.Backup.Save]; after satchel.ErrNotProtected the
// changes are kept, on this device.
func Save(ctx context.Context, b *satchel.Backup, changes ...source.Change) (satchel.Result, error) {
	list := make([]satchel.Change, len(changes))
	for i, c := range changes {
		list[i] = satchel.Change(c)
	}
	for {
		res, err := b.Save(ctx, list...)
		if !errors.Is(err, satchel.ErrNoItem) {
			return res, err
		}
		// Nothing was changed, and Items is what Save saw.
		there := map[string]bool{}
		for _, it := range b.Items() {
			there[it.Name] = true
		}
		n := len(list)
		list = slices.DeleteFunc(list, func(c satchel.Change) bool { return c.Remove && !there[c.Name] })
		if len(list) == n {
			return res, err
		}
	}
}

// changed returns the names of the items that a Save wrote, and of those that it
// removed.
func changed(b *satchel.Backup, res satchel.Result, changes []source.Change) (saved, removed []string) {
	if res.Changed == 0 {
		return nil, nil
	}
	different := func(string) bool { return true }
	if res.Changed < len(changes) {
		// Some were as they are kept. Removals of what was not there are told too: the
		// source saw them go.
		now := map[string]uint64{}
		for _, it := range b.Items() {
			now[it.Name] = it.Generation
		}
		different = func(name string) bool { return now[name] == res.Generation }
	}
	for _, c := range changes {
		switch {
		case c.Remove:
			removed = append(removed, c.Name)
		case different(c.Name):
			saved = append(saved, c.Name)
		}
	}
	return saved, removed
}
