package satchel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
)

// Owner is a backup opened with the secret of a slot: it may change the slots and
// delete the backup.
type Owner struct {
	b    *Backup
	keys *seal.Keys
	slot seal.SlotName
}

// Unlock opens the backup with the secret of one of its slots: from the copies
// on this device, or else from the places. Errors: ErrNoSlot,
// slot.ErrWrongSecret, ErrSlotDamaged.
func (b *Backup) Unlock(ctx context.Context, s slot.Secret) (*Owner, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, n := range b.dev.slots {
		if n.Kind != string(s.Kind()) {
			continue
		}
		data, err := b.slotObject(ctx, n)
		if err == nil {
			var keys *seal.Keys
			if keys, err = seal.OpenSlot(data, s.Identity()); err == nil {
				if keys.ID() != b.dev.key.Backup() {
					return nil, fmt.Errorf("%s: %w", n.Path(), ErrWrongWallet)
				}
				return &Owner{b: b, keys: keys, slot: n}, nil
			}
		}
		errs = append(errs, slotError(n, err))
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoSlot, s.Kind())
	}
	return nil, errors.Join(errs...)
}

// slotObject returns a slot's object from this device or a place.
func (b *Backup) slotObject(ctx context.Context, n seal.SlotName) ([]byte, error) {
	data, err := b.dev.object(n.Hash)
	if err == nil {
		return data, nil
	}
	r, _, err := newReader(ctx, b.cfg, b.dev.info.Folder, b.cfg.Places)
	if err != nil {
		return nil, err
	}
	return r.fetch(ctx, n.Path())
}

// Slot returns the slot that the secret opened.
func (o *Owner) Slot() SlotInfo {
	return SlotInfo{Kind: slot.Kind(o.slot.Kind), ID: o.slot.ID.String()}
}

// AddSlot adds a way in: sealed, opened again to prove it, journalled, and
// brought to the places. Errors as for Save.
func (o *Owner) AddSlot(ctx context.Context, s slot.Secret) (SlotInfo, error) {
	b := o.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.dev.slots) >= seal.MaxSlots {
		return SlotInfo{}, fmt.Errorf("adding a slot: there are %d already", len(b.dev.slots))
	}
	looks, err := b.look(ctx)
	if err != nil {
		return SlotInfo{}, err
	}
	n, err := b.sealSlot(o.keys, s)
	if err != nil {
		return SlotInfo{}, fmt.Errorf("adding a slot: %w", err)
	}
	slots := append(slices.Clone(b.dev.slots), n)
	if err := b.commitChanges(o.keys, nil, &slots, []string{n.Path()}); err != nil {
		return SlotInfo{}, fmt.Errorf("adding a slot: %w", err)
	}
	return SlotInfo{Kind: slot.Kind(n.Kind), ID: n.ID.String()}, b.sync(ctx, looks)
}

// RemoveSlot takes a way in out of the backup and then deletes its object from
// every place. Copies made earlier still open: moving the funds is the cure.
// The last slot stays (ErrLastSlot). It may be called again for a slot whose
// object a place still holds.
func (o *Owner) RemoveSlot(ctx context.Context, id string) error {
	b := o.b
	b.mu.Lock()
	defer b.mu.Unlock()
	is := func(n seal.SlotName) bool { return n.ID.String() == id }
	looks, err := b.look(ctx)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(b.dev.slots, is); i >= 0 {
		if len(b.dev.slots) == 1 {
			return fmt.Errorf("%w: add another way in first", ErrLastSlot)
		}
		slots := slices.Delete(slices.Clone(b.dev.slots), i, i+1)
		if err := b.commitChanges(o.keys, nil, &slots, nil); err != nil {
			return fmt.Errorf("removing a slot: %w", err)
		}
	}
	if err := b.sync(ctx, looks); err != nil {
		return err
	}
	// Only where the newest snapshot, which does not list the slot, was read
	// back does the object go.
	found := false
	var errs []error
	for _, l := range looks {
		st := b.dev.places[l.place.Address]
		if st == nil || st.verified != b.dev.head {
			errs = append(errs, fmt.Errorf("%s still holds the slot: %w", l.place.Address, st.err))
			continue
		}
		list, err := l.place.Store.List(ctx, b.dev.info.Folder+"/slots/")
		for _, ob := range list {
			n, ok := seal.ParseSlotPath(ob.Name[len(b.dev.info.Folder)+1:])
			if err == nil && ok && is(n) {
				found = true
				err = l.place.Store.Delete(ctx, ob)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s still holds the slot: %w", l.place.Address, err))
		}
	}
	if err := b.dev.sweep(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) == 0 && !found {
		return fmt.Errorf("%w: no slot %s", ErrNoSlot, id)
	}
	return errors.Join(errs...)
}

// Forget removes the wallet from this device, its key from the keychain
// included. It never touches a place: the backup stays (R20).
func (b *Backup) Forget() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Without its key the rest cannot be opened, so a crash leaves rubbish.
	if err := b.cfg.Keychain.Delete(localKeyName(b.dev.info)); err != nil {
		return fmt.Errorf("forgetting the wallet on this device: %w", err)
	}
	if err := b.dev.disk.Remove(filepath.Join(b.dev.dir, infoFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting the wallet on this device: %w", err)
	}
	return errors.Join(b.dev.close(), b.dev.disk.RemoveAll(b.dev.dir))
}

// Deleted is what Delete did.
type Deleted struct {
	Objects int
	Left    []string // addresses and names of what was not known as this backup's
}

// Delete deletes the backup from all places: every object that this device made
// or that opens with its key, and nothing else (R3). What it left is listed.
// This device's copy stays until Forget. If it fails half-way it can be called
// again: the slots go first, so that what is left cannot be mistaken for a
// backup that opens.
func (o *Owner) Delete(ctx context.Context) (Deleted, error) {
	b := o.b
	b.mu.Lock()
	defer b.mu.Unlock()
	var del Deleted
	var errs []error
	for _, p := range b.cfg.Places {
		if err := o.deletePlace(ctx, p, &del); err != nil {
			errs = append(errs, fmt.Errorf("deleting from %s: %w", p.Address, err))
		}
		b.dev.places[p.Address] = &placeState{health: HealthMissing, err: errors.New("the backup was deleted there")}
	}
	return del, errors.Join(append(errs, b.dev.savePlaces())...)
}

func (o *Owner) deletePlace(ctx context.Context, p store.Place, del *Deleted) error {
	b := o.b
	folder := b.dev.info.Folder
	list, err := p.Store.List(ctx, folder+"/")
	if err != nil {
		return err
	}
	rank := func(ob store.Object) int {
		switch path := ob.Name[len(folder)+1:]; {
		case isSlot(path):
			return 0
		case path == seal.HintName || path == seal.ReadmeName:
			return 2
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b store.Object) int { return rank(a) - rank(b) })
	left := len(del.Left)
	for i, ob := range list {
		b.cfg.progress(Deleting, p.Address, i, len(list))
		ours, err := o.ours(ctx, p.Store, ob, len(del.Left) > left)
		if err != nil {
			return err
		}
		if !ours {
			del.Left = append(del.Left, p.Address+": "+ob.Name)
			continue
		}
		if err := p.Store.Delete(ctx, ob); err != nil {
			return err
		}
		del.Objects++
	}
	return nil
}

func isSlot(path string) bool { _, ok := seal.ParseSlotPath(path); return ok }

// ours reports whether an object is proven to be this backup's: by this
// device's record, or because it opens with the backup's key. The hints go if
// they are as this device writes them and nothing else is left in the folder.
func (o *Owner) ours(ctx context.Context, st store.Store, ob store.Object, others bool) (bool, error) {
	d := o.b.dev
	path := ob.Name[len(d.info.Folder)+1:]
	if slices.ContainsFunc(d.slots, func(n seal.SlotName) bool { return n.Path() == path }) {
		return true, nil
	}
	if path == seal.HintName || path == seal.ReadmeName {
		data, err := st.Get(ctx, ob.Name, "", maxHint)
		if errors.Is(err, store.ErrTooLarge) || errors.Is(err, store.ErrDamaged) {
			return false, nil
		}
		return err == nil && !others && string(data) == string(hints(d.info)[path]), err
	}
	snap, isSnap := seal.ParseSnapshotPath(path)
	object, isObject := seal.ParseObjectPath(path)
	if !isSnap && !isObject {
		return false, nil
	}
	if _, err := d.object(hashOf(path)); err == nil {
		return true, nil
	}
	data, err := st.Get(ctx, ob.Name, hashOf(path), seal.MaxObject)
	if errors.Is(err, store.ErrTooLarge) || errors.Is(err, store.ErrDamaged) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if isSnap {
		_, err = o.keys.OpenSnapshot(snap, data)
	} else {
		err = o.keys.Opens(object, data)
	}
	return err == nil, nil
}
