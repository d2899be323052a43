package satchel

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
)

// ItemVersion is a value that an item has or had.
type ItemVersion struct {
	Item  string
	Value secret.Bytes

	// The snapshot that wrote it, or if that is gone the oldest one that refers to it:
	Snapshot   string
	Epoch      uint64
	Generation uint64 // that wrote the value
	Device     string
	Saved      time.Time // by the clock of the device that wrote the snapshot

	Current bool // the value in the state that is open
	Branch  bool // only what another device wrote beside the history of the newest has it
}

// sighting is a value as the snapshots tell of it.
type sighting struct {
	version ItemVersion
	last    seal.SnapshotName // the newest that names it
	wrote   bool              // version names the newest snapshot that wrote it
	lines   []*entry          // where the value stands, the newest first
}

// maxLinesOfValue is how many places where one value stands are tried.
const maxLinesOfValue = 16

// Versions reads every value of an item that the places still hold: of all snapshots,
// also of those that other devices wrote beside the history of the newest (R21). A name
// that ends in "/" stands for all items below it, also for those that were removed since;
// several names are read at one go. That of the state which is open comes first, then
// that which was seen last. Each value of an item is there once.
//
// What cannot be read hides nothing else: err says beside the rest what is missing, or
// may be missing because a place could not be listed or a snapshot not be read. It opens
// every snapshot, which in a place far away takes a while.
func (o *Opened) Versions(ctx context.Context, names ...string) ([]ItemVersion, error) {
	versions, errs, err := o.versions(ctx, names, nil)
	if err != nil {
		return nil, err
	}
	if more := len(errs) - maxOthers; more > 0 {
		errs = append(errs[:maxOthers:maxOthers], fmt.Errorf("and %d more", more))
	}
	return versions, errors.Join(errs...)
}

// versions is Versions with each error apart, and if only is not nil, only of some. err is
// of the context.
func (o *Opened) versions(ctx context.Context, names []string, only func(*sighting) bool) (versions []ItemVersion, errs []error, err error) {
	if o.reader.unlisted != nil {
		errs = append(errs, o.reader.unlisted)
	}
	found, unread, err := o.sightings(ctx, func(name string) bool {
		return slices.ContainsFunc(names, func(want string) bool {
			return name == want || strings.HasSuffix(want, "/") && strings.HasPrefix(name, want)
		})
	})
	if err != nil {
		return nil, nil, err
	}
	errs = append(errs, unread...)
	var last carrier
	for i, s := range found {
		o.reader.cfg.progress(Restoring, "", i, len(found))
		if only != nil && !only(s) {
			continue
		}
		var failed error
		for _, e := range s.lines {
			v, err := e.value, error(nil) // What a snapshot carries was read with it.
			if v == nil {
				v, err = o.restoreValue(ctx, e, &last)
			}
			if ctx.Err() != nil {
				return nil, nil, ctx.Err()
			}
			if err == nil {
				failed, s.version.Value = nil, secret.New(v)
				versions = append(versions, s.version)
				break
			}
			failed, last = cmp.Or(failed, err), carrier{}
		}
		if failed != nil {
			errs = append(errs, fmt.Errorf("%s of generation %d: %w", s.version.Item, s.version.Generation, failed))
		}
	}
	o.reader.cfg.progress(Restoring, "", len(found), len(found))
	return versions, errs, nil
}

// sightings looks through all snapshots for the values of some items. unread are the
// errors of those that could not be read.
func (o *Opened) sightings(ctx context.Context, wanted func(string) bool) (found []*sighting, unread []error, err error) {
	branches, err := o.branches(ctx)
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	if err != nil {
		unread = append(unread, err)
	}
	type key struct {
		item string
		size int64
		sum  [sha256.Size]byte
	}
	byValue := map[key]*sighting{}
	note := func(e *entry) *sighting {
		k := key{e.line.Name, e.line.Size, e.line.SHA256}
		s := byValue[k]
		if s == nil {
			s = &sighting{version: ItemVersion{Item: e.line.Name, Generation: e.line.Version, Branch: true}}
			byValue[k] = s
			found = append(found, s)
		}
		if len(s.lines) < maxLinesOfValue {
			s.lines = append(s.lines, e)
		}
		return s
	}
	for name, e := range o.state.items {
		if wanted(name) && !e.line.Removed {
			v := &note(e).version
			v.Current, v.Branch = true, false
		}
	}
	defer o.fetchAhead(ctx, o.names)()
	for i, n := range o.names { // From the newest to the oldest.
		o.reader.cfg.progress(Searching, "", i, len(o.names))
		if o.aliens[n] {
			continue
		}
		snap, err := o.snapshot(ctx, n)
		switch {
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case errors.Is(err, errAlien):
			continue // Whoever can write to the place can add that.
		case err != nil:
			unread = append(unread, fmt.Errorf("snapshot of generation %d: %w", n.Generation, err))
			continue
		}
		for j := range snap.Items {
			l := &snap.Items[j]
			if l.Removed || !wanted(l.Name) {
				continue
			}
			s := note(newEntry(l, n))
			v := &s.version
			v.Branch = v.Branch && branches[n]
			if s.last.IsZero() {
				s.last = n
			}
			if !s.wrote {
				s.wrote = l.Version == n.Generation
				v.Snapshot, v.Epoch, v.Device, v.Saved, v.Generation = n.String(), n.Epoch, n.Device.String(), snap.Time, l.Version
			}
		}
	}
	o.reader.cfg.progress(Searching, "", len(o.names), len(o.names))
	slices.SortStableFunc(found, func(a, b *sighting) int {
		if a.version.Current != b.version.Current {
			if a.version.Current {
				return -1
			}
			return 1
		}
		return cmp.Or(b.last.Compare(a.last), strings.Compare(a.version.Item, b.version.Item))
	})
	return found, unread, nil
}

// Channel backups are made by a node and may be old without harm: what they can do is to
// miss a channel (R21). The newest is an item; one that knows a channel which the newest
// lacks is kept below it, by the first digits of its hash.
var channelBackups = []string{"lightning/scb", "lightning/cln/emergency.recover"}

// allChannelBackups are the names of all items that are such.
func allChannelBackups() (names []string) {
	for _, name := range channelBackups {
		names = append(names, name, name+"/")
	}
	return names
}

// asItems returns the changes that make items of channel backups which a device has not.
func asItems(versions []ItemVersion, d *device) []Change {
	var changes []Change
	for _, v := range versions {
		i := slices.IndexFunc(channelBackups, func(name string) bool { return v.Item == name || strings.HasPrefix(v.Item, name+"/") })
		sum := sha256.Sum256(v.Value.Open())
		name := channelBackups[i] + "/" + hex.EncodeToString(sum[:4])
		kept := func(e *entry) bool { return !e.line.Removed && e.line.SHA256 == sum }
		if !slices.ContainsFunc(slices.Collect(maps.Values(d.items)), kept) && !slices.ContainsFunc(changes, func(c Change) bool { return c.Name == name }) {
			changes = append(changes, Change{Name: name, Value: v.Value.Open()})
		}
	}
	return changes
}

// keepChannels makes items of the channel backups that only branches hold, before these
// are deleted. It reports whether there were any.
func (o *Owner) keepChannels(ctx context.Context, op *Opened) (bool, error) {
	versions, errs, err := op.versions(ctx, allChannelBackups(), func(s *sighting) bool { return s.version.Branch })
	if err != nil {
		return false, err
	}
	for _, err := range errs {
		if !gone(err) || op.reader.unlisted != nil {
			return false, fmt.Errorf("what the branch holds of channels is not known: %w", err)
		}
	}
	changes := asItems(versions, o.b.dev)
	if len(changes) == 0 {
		return false, nil
	}
	return true, o.b.commitChanges(o.keys, changes, nil, nil)
}

// bringChannels makes items, on a device that is being restored to this state, of the channel
// backups that newer snapshots or branches hold: a node comes back with the union of all
// (R21). It returns a warning where that may not be all of them.
func (o *Opened) bringChannels(ctx context.Context, b *Backup) (warning string, err error) {
	branches, err := o.branches(ctx)
	newer := func(n seal.SnapshotName) bool { return n.Compare(o.state.name) > 0 && !o.aliens[n] }
	if err == nil && len(branches) == 0 && !slices.ContainsFunc(o.names, newer) {
		return "", nil
	}
	versions, errs, err := o.versions(ctx, allChannelBackups(), func(s *sighting) bool {
		return !s.version.Current && (s.version.Branch || newer(s.last))
	})
	if err != nil {
		return "", err
	}
	if len(errs) > 0 && len(versions) > 0 {
		warning = fmt.Sprintf("not all channel backups that are newer than this state could be read: %v", errs[0])
	}
	if changes := asItems(versions, b.dev); len(changes) > 0 {
		err = b.commitChanges(nil, changes, nil, nil)
	}
	return warning, err
}
