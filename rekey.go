package satchel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
)

// RekeyPlan is what Rekey makes.
type RekeyPlan struct {
	// Slots are the ways into the new backup, at least one. None of the old ones
	// opens it, unless its secret is given again. Without any, Rekey only finishes
	// what was begun, or puts it away: then Status.Rekeying is empty again.
	Slots []slot.Secret
	// PIN is a PIN for the new backup, beside the slots or alone; nil for none. That of the
	// old one ends.
	PIN *PINPlan
	// DropKeys leaves the wallet's keys out of the new backup. They stay on this
	// device. It needs VerifyWords first (ErrNotWritten).
	DropKeys bool
}

// Rekeyed is what Rekey did.
type Rekeyed struct {
	Folder  string // of the new backup
	Deleted        // of the old one
}

// rekeyPrefix begins the name of the directory of a backup that is to take another's
// place and does not yet. It is never taken for a wallet.
const rekeyPrefix = ".satchel-rekey-"

// Rekey replaces the backup by one with new keys: another id, another folder, other
// slots, everything sealed anew. The new one is brought to all places, read back, and
// restored from each into memory; only then the old one is deleted, as by Delete, and
// forgotten on this device. Of the old one its end stays, which opens with nothing: by it a
// device that was away knows that it must not put back what is gone (ErrEnded). Copies
// of the old one that somebody made still open:
// moving the funds is the cure.
//
// The new wallet's directory is dir, beside the old one, where nothing may be. When
// Rekey returns a Backup, that is the wallet from now on, and this one is closed or,
// with an error too, left for another Rekey to finish (ErrRekeyed). With a nil Backup
// the old one is as it was. If the process ends on the way, at every moment at least
// one of the two restores the newest state; calling Rekey again goes on, or begins
// anew if anything was saved in between.
func (o *Owner) Rekey(ctx context.Context, dir string, p RekeyPlan) (*Backup, Rekeyed, error) {
	b := o.b
	if err := b.begin(ctx); err != nil {
		return nil, Rekeyed{}, err
	}
	defer b.end()
	nb, r, err := o.rekey(ctx, dir, p)
	if err != nil {
		err = fmt.Errorf("making new keys: %w", err)
	}
	return nb, r, err
}

func (o *Owner) rekey(ctx context.Context, dir string, p RekeyPlan) (nb *Backup, r Rekeyed, err error) {
	b := o.b
	d := b.dev
	if d.deleted && d.rekey.ID == "" {
		return nil, r, ErrDeleted
	}
	if !d.deleted {
		if p.DropKeys && d.kept.Written.IsZero() && !d.keysDropped() {
			return nil, r, ErrNotWritten
		}
		if lost := lostItems(d.items); len(lost) > 0 {
			return nil, r, &IncompleteError{Items: lost}
		}
		if filepath.Dir(filepath.Clean(dir)) != filepath.Dir(filepath.Clean(d.dir)) {
			return nil, r, errors.New("the new directory must be beside the old one")
		}
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) && dir != d.rekey.Dir {
			return nil, r, fmt.Errorf("%s: %w", dir, errors.Join(err, fs.ErrExist))
		}
		if err := o.undivided(ctx); err != nil {
			return nil, r, err
		}
	}
	nb, err = o.resume(ctx)
	switch {
	case nb != nil && (len(p.Slots) > 0 || p.PIN != nil) && !nb.planned(d, p):
		err = fmt.Errorf("what was begun, %s, has other ways in, or other keys, than are asked for now: finish it without a plan", nb.dev.info.Folder)
		return nil, r, errors.Join(err, nb.Close())
	case nb != nil:
		// It was protected then. That it is now has to be seen.
		if _, err = nb.Check(ctx); err != nil {
			if _, err = nb.Sync(ctx); err == nil {
				_, err = nb.Check(ctx)
			}
		}
		if err != nil && !d.deleted {
			return nil, r, errors.Join(fmt.Errorf("what was begun is not whole: %w", err), nb.Close())
		}
	case err == nil && len(p.Slots) == 0 && p.PIN == nil:
		err = errors.New("the new backup needs a way in")
	case err == nil:
		nb, err = o.renew(ctx, dir, p)
	}
	if nb == nil {
		return nil, r, err
	}
	r.Folder = nb.dev.info.Folder
	if err == nil && !d.deleted {
		// What another device saved meanwhile is in the old one only.
		if err = o.undivided(ctx); err != nil {
			return nil, r, errors.Join(err, o.putAway(ctx, nb), nb.Close())
		}
	}
	// From here on the new one holds everything, in all places. If we crash, both open
	// until the next call.
	if err == nil {
		o.end, err = o.sealEnd()
	}
	if err == nil {
		err = o.deleteAll(ctx, &r.Deleted)
		if d.deleted { // Otherwise it goes on, perhaps with nothing but its PIN.
			err = errors.Join(err, nb.inheritPINs(ctx, o))
		}
	}
	if err == nil {
		err = b.forget()
	}
	return nb, r, err
}

// resume takes up a Rekey that did not end. It returns the new backup if that has all
// that this one has; otherwise it puts away what there is of it.
func (o *Owner) resume(ctx context.Context) (*Backup, error) {
	b := o.b
	d := b.dev
	was := d.rekey
	if was.ID == "" {
		return nil, nil
	}
	var nb *Backup
	for _, dir := range []string{was.Temp, was.Dir} {
		info, err := readInfo(d.disk, dir)
		if errors.Is(err, ErrNoDevice) || err == nil && info.Device != was.Device {
			continue
		}
		if err != nil {
			return nil, err
		}
		cfg := b.cfg
		cfg.Dir = dir
		if nb, err = Open(cfg); err != nil {
			return nil, fmt.Errorf("opening what was begun in %s: %w", dir, err)
		}
		break
	}
	if nb == nil {
		if d.deleted {
			return nil, fmt.Errorf("%s is gone: %w", was.Dir, ErrMissing)
		}
		return nil, b.setRekey(rekeyRecord{}) // It had not gone to any place.
	}
	same := was.Head == d.head().String()
	if d.deleted || same && nb.dev.dir == was.Dir && !nb.dev.deleted {
		return nb, nil // It was protected before it got this name.
	}
	if nb.dev.head().Generation > 1 {
		nb.Close()
		return nil, fmt.Errorf("%w: this backup and the one with new keys, %s, were both used since; delete one of them", ErrForked, was.Folder)
	}
	if err := o.putAway(ctx, nb); err != nil {
		nb.Close()
		return nil, fmt.Errorf("putting away what was begun: %w", err)
	}
	return nil, nil
}

// planned reports whether a new backup, begun earlier from an old device, is as a plan says.
func (b *Backup) planned(old *device, p RekeyPlan) bool {
	if b.dev.keysDropped() != (p.DropKeys || old.keysDropped()) || p.PIN != nil {
		return false // Which PIN it has cannot be known.
	}
	for _, s := range p.Slots {
		if !slices.ContainsFunc(b.dev.slots, func(n seal.SlotName) bool {
			data, err := b.dev.object(n.Hash)
			if n.Kind != string(s.Kind()) || err != nil {
				return false
			}
			_, err = seal.OpenSlot(data, s.Identity())
			return err == nil
		}) {
			return false
		}
	}
	return true
}

// renew makes the new backup and proves it. With a nil Backup the old one counts.
func (o *Owner) renew(ctx context.Context, dir string, p RekeyPlan) (*Backup, error) {
	b := o.b
	d := b.dev
	keys := unusedKeys(ctx, b.cfg, d.info.Label)
	device := keys.Device(1, seal.NewDeviceID())
	info := d.info
	info.ID, info.Device, info.Folder = keys.ID().String(), device.Device().String(), seal.Folder(info.Label, keys.ID())
	info.Created = b.cfg.Now().UTC().Format(dayLayout)
	cfg := b.cfg
	cfg.Dir = filepath.Join(filepath.Dir(dir), rekeyPrefix+info.Device)
	begun := rekeyRecord{ID: info.ID, Device: info.Device, Folder: info.Folder, Temp: cfg.Dir, Dir: dir, Head: d.head().String()}
	// Before anything is made, so that it is found again.
	if err := b.setRekey(begun); err != nil {
		return nil, err
	}
	err := stage(cfg, info, device, func(nb *Backup) error {
		err := nb.sealAnew(ctx, d, keys, p)
		begun.PIN = nb.dev.pin.Undo
		return err
	})
	if err != nil {
		return nil, errors.Join(err, b.setRekey(rekeyRecord{}))
	}
	if begun.PIN != nil {
		// Until its PIN is set the new one knows how to end it. After that, and a crash,
		// nobody would: its keys are in its slots only.
		if err := b.setRekey(begun); err != nil {
			return nil, err // The next call puts it away.
		}
	}
	nb, err := takeUp(ctx, cfg, nil)
	if err == nil {
		err = nb.prove(ctx, keys, p.Slots)
	}
	if err == nil {
		// Up to here a crash leaves a directory that nobody takes for a wallet.
		err = nb.move(dir)
	}
	if err == nil {
		return nb, nil
	}
	if nb != nil {
		err = errors.Join(err, o.putAway(ctx, nb), nb.Close())
	}
	return nil, err
}

// putAway deletes a new backup that is not to be: the old one goes on. What cannot be
// put away now is by the next call.
func (o *Owner) putAway(ctx context.Context, nb *Backup) error {
	pin := o.b.dev.rekey.PIN
	if pin == nil {
		pin = nb.dev.pin.Undo
	}
	err := nb.withdraw(ctx)
	if err == nil {
		err = o.b.endLater(ctx, pin)
	}
	if err == nil {
		err = nb.Forget()
	}
	if err == nil {
		err = o.b.setRekey(rekeyRecord{})
	}
	return err
}

// alone returns nil if every place was listed and none holds what another device wrote.
func (b *Backup) alone(ctx context.Context) error {
	looks, err := b.look(ctx)
	for _, l := range looks {
		if err == nil && l.err != nil {
			err = fmt.Errorf("%s: %w", l.place.Address, l.err)
		}
	}
	return err
}

// undivided is alone, and ErrForked if some place holds a branch: what is in it would go
// with the old backup, and the user has not decided about it.
func (o *Owner) undivided(ctx context.Context) error {
	if err := o.b.alone(ctx); err != nil {
		return err
	}
	op, err := o.opened(ctx)
	if err != nil && gone(err) && !errors.Is(err, seal.ErrNewer) {
		return nil // No place holds any state: what counts is on this device.
	}
	if err == nil && op.reader.unlisted != nil {
		err = op.reader.unlisted
	}
	if err != nil {
		return err
	}
	branches, err := op.branches(ctx)
	if err != nil {
		return err
	}
	for n := range branches {
		// One that does not open is not deleted, either.
		if _, err := op.snapshot(ctx, n); err == nil || errors.Is(err, seal.ErrNewer) || !gone(err) {
			return fmt.Errorf("%w: %s is in no history of the newest, and would be deleted with the old backup", ErrForked, n.Path())
		}
	}
	return nil
}

// sealedEnd is the snapshot that says that a backup was replaced by another one.
type sealedEnd struct {
	name seal.SnapshotName
	data []byte
}

// sealEnd returns the end of this backup: a checkpoint of the last epoch that holds
// nothing. All places, and all calls that it takes, get the same one.
func (o *Owner) sealEnd() (*sealedEnd, error) {
	d := o.b.dev
	if n, err := seal.ParseSnapshotName(d.rekey.End); err == nil && !n.IsZero() {
		if data, err := d.object(n.Hash); err == nil {
			return &sealedEnd{n, data}, nil
		}
	}
	gen := d.head().Generation + 1
	snap := &seal.Snapshot{
		Generation: gen, Parent: d.head(), Past: pastAfter(d.past, d.head()), Time: o.b.cfg.Now(),
		Software: o.b.cfg.Software, Kind: seal.Checkpoint, HasSlots: true,
	}
	for _, name := range []string{seal.ItemDescriptors, seal.ItemKeys} {
		it := seal.Item{Name: name, Version: gen, Removed: true}
		o.keys.Sign(&it)
		snap.Items = append(snap.Items, it)
	}
	name, data, err := seal.SealSnapshot(o.keys.Device(seal.MaxEpoch, seal.NewDeviceID()), snap)
	if err == nil {
		err = d.putObject(name.Hash, data)
	}
	if err == nil {
		r := d.rekey
		r.End = name.String()
		err = o.b.setRekey(r)
	}
	return &sealedEnd{name, data}, err
}

// sealAnew commits everything that another device's directory holds as the first
// checkpoint of this one.
func (b *Backup) sealAnew(ctx context.Context, old *device, keys *seal.Keys, p RekeyPlan) error {
	d := b.dev
	d.kept = old.kept
	slots, objects, err := b.firstSlots(ctx, keys, p.Slots, p.PIN)
	if err != nil {
		return err
	}
	var entries []*entry
	small := packer{d: d, gen: 1}
	names := slices.Sorted(maps.Keys(old.items))
	for i, name := range names {
		b.cfg.progress(Sealing, "", i, len(names))
		was := old.items[name]
		remove := was.line.Removed
		var value []byte
		var err error
		if !remove {
			if value, err = old.value(name); err != nil {
				return err
			}
		}
		if p.DropKeys && name == seal.ItemKeys && !remove {
			remove, d.kept.Keys = true, value
		}
		e, path, err := d.sealChange(keys, Change{Name: name, Value: value, Required: was.line.Required, Remove: remove}, 1, nil)
		if err != nil {
			return err
		}
		if path != "" {
			objects = append(objects, path)
		}
		if e.line.Inline && !seal.OwnerItem(name) {
			// All of them together may be too much for one snapshot.
			if err := small.add(e, value); err != nil {
				return err
			}
		}
		entries = append(entries, e)
	}
	if err := small.flush(); err != nil {
		return err
	}
	b.cfg.progress(Sealing, "", len(names), len(names))
	snap := &seal.Snapshot{Generation: 1, Time: b.cfg.Now(), Software: b.cfg.Software, Kind: seal.Checkpoint, HasSlots: true, Slots: slots}
	return b.commitSnapshot(snap, entries, append(objects, small.objects...))
}

// prove returns an error unless every place holds the newest generation and a restore
// from it gives what this device has.
func (b *Backup) prove(ctx context.Context, keys *seal.Keys, ways []slot.Secret) error {
	for _, p := range b.cfg.Places {
		if st := b.dev.places[p.Address]; st == nil || st.verified != b.dev.head() {
			return fmt.Errorf("%s does not hold the new backup: %w", p.Address, ErrNotProtected)
		}
	}
	if len(ways) > 0 {
		_, err := b.Drill(ctx, ways[0])
		return err
	}
	// Of a PIN the slot was opened when it was made, and read back since.
	_, err := b.drill(ctx, func(f *Found) (*Opened, error) { return f.openWithKeys(ctx, keys, b.dev.slots[0], nil) })
	return err
}

// move gives the directory another name.
func (b *Backup) move(dir string) error {
	if err := b.Close(); err != nil { // Some systems do not rename what is open.
		return err
	}
	if err := b.dev.disk.RenameDir(b.dev.dir, dir); err != nil {
		return err
	}
	cfg := b.cfg
	cfg.Dir = dir
	moved, err := Open(cfg)
	if err != nil {
		return err
	}
	b.cfg, b.dev, b.closed, b.looked = moved.cfg, moved.dev, false, moved.looked
	return nil
}

// withdraw deletes from all places a backup that has taken nobody's place: what this
// device made, and nothing else.
func (b *Backup) withdraw(ctx context.Context) error {
	o := &Owner{b: b}
	if b.closed {
		moved, err := Open(b.cfg)
		if err != nil {
			return err
		}
		b.dev, b.closed = moved.dev, false
	}
	if !b.dev.deleted {
		// Who restored it meanwhile has everything there.
		if err := b.alone(ctx); err != nil {
			return err
		}
	}
	if err := b.begin(ctx); err != nil {
		return err
	}
	defer b.end()
	return o.deleteAll(ctx, new(Deleted))
}

func (b *Backup) setRekey(r rekeyRecord) error {
	if err := b.dev.append(record{Rekey: &r}); err != nil {
		return fmt.Errorf("recording it on this device: %w", err)
	}
	b.change(func() { b.dev.rekey = r })
	return nil
}
