package satchel

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
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
	end  *sealedEnd // what stays of a backup that is replaced; nil if all of it goes
}

// Unlock opens the backup with the secret of one of its slots: from the copies
// on this device, or else from the places. Errors: ErrNoSlot,
// slot.ErrWrongSecret, ErrSlotDamaged.
func (b *Backup) Unlock(ctx context.Context, s slot.Secret) (*Owner, error) {
	if err := b.begin(ctx); err != nil {
		return nil, err
	}
	defer b.end()
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
	return r.fetch(ctx, n.Path(), seal.MaxSlot)
}

// Slot returns the slot that the secret opened.
func (o *Owner) Slot() SlotInfo {
	return SlotInfo{Kind: slot.Kind(o.slot.Kind), ID: o.slot.ID.String()}
}

// AddSlot adds a way in: sealed, opened again to prove it, journalled, and
// brought to the places. Errors as for Save.
func (o *Owner) AddSlot(ctx context.Context, s slot.Secret) (SlotInfo, error) {
	b := o.b
	if err := b.begin(ctx); err != nil {
		return SlotInfo{}, err
	}
	defer b.end()
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
// Of a PIN the accounts at the key servers are ended too, so that a copy of the slot is
// worth nothing.
// The last slot stays (ErrLastSlot). If a place or a key server could not be reached, the
// error names it, and the rest is done with the next Save or Sync. RemoveSlot
// may be called again, also for a slot that is not in the list.
func (o *Owner) RemoveSlot(ctx context.Context, id string) error {
	b := o.b
	if err := b.begin(ctx); err != nil {
		return err
	}
	defer b.end()
	is := func(n seal.SlotName) bool { return n.ID.String() == id }
	looks, err := b.lookAtPlaces(ctx) // What key servers say must not keep their PIN in.
	if err != nil {
		return err
	}
	var endErr error                                // of key servers
	found := slices.ContainsFunc(b.dev.removed, is) // from an earlier call
	if i := slices.IndexFunc(b.dev.slots, is); i >= 0 {
		found = true
		slots := slices.Delete(slices.Clone(b.dev.slots), i, i+1)
		if err := b.opensAlone(ctx, slots); err != nil {
			return fmt.Errorf("%w: %w", ErrLastSlot, err)
		}
		if err := b.mayRemovePIN(b.dev.slots[i]); err != nil {
			return fmt.Errorf("removing a PIN: %w", err)
		}
		if isPIN(b.dev.slots[i]) {
			if endErr = o.endPIN(ctx, b.dev.slots[i]); errors.Is(endErr, errNoGuardians) {
				return fmt.Errorf("removing a PIN: %w", endErr)
			}
		}
		// If we crash between the two, the slot is in the list and stays.
		if err := b.setRemoved(append(slices.Clone(b.dev.removed), b.dev.slots[i])); err != nil {
			return fmt.Errorf("removing a slot: %w", err)
		}
		if err := b.commitChanges(o.keys, nil, &slots, nil); err != nil {
			return fmt.Errorf("removing a slot: %w", err)
		}
	}
	if err := b.sync(ctx, looks); err != nil {
		return err
	}
	// Only where the newest snapshot, which does not list the slot, was read
	// back does the object go.
	errs := []error{endErr}
	for _, l := range looks {
		any, err := b.removeSlotObject(ctx, l.place, is)
		found = found || any
		if err != nil {
			errs = append(errs, fmt.Errorf("%s may still hold the slot: %w", l.place.Address, err))
		}
	}
	b.tidy()
	if errors.Join(errs...) == nil && !found {
		return fmt.Errorf("%w: no slot %s", ErrNoSlot, id)
	}
	return errors.Join(errs...)
}

// setRemoved records which slots have to go from the places.
func (b *Backup) setRemoved(slots []seal.SlotName) error {
	if err := b.dev.append(record{Removed: new(slotPaths(slots))}); err != nil {
		return err
	}
	b.change(func() { b.dev.removed = slots })
	return nil
}

// finishRemovals deletes from the places what is left of removed slots. Until all
// places have done it the slots stay in the record, and it is tried again.
func (b *Backup) finishRemovals(ctx context.Context, looks []look) (errs []error) {
	d := b.dev
	gone := slices.DeleteFunc(slices.Clone(d.removed), func(n seal.SlotName) bool { return slices.Contains(d.slots, n) })
	if len(d.removed) == 0 {
		return nil
	}
	for _, l := range looks {
		if _, err := b.removeSlotObject(ctx, l.place, func(n seal.SlotName) bool { return slices.Contains(gone, n) }); err != nil {
			errs = append(errs, fmt.Errorf("%s may still hold a removed slot: %w", l.place.Address, err))
		}
	}
	if len(errs) == 0 {
		if err := b.setRemoved(nil); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// removeSlotObject deletes a slot's object from a place that holds the newest
// snapshot.
func (b *Backup) removeSlotObject(ctx context.Context, p store.Place, is func(seal.SlotName) bool) (found bool, err error) {
	d := b.dev
	if st := d.places[p.Address]; st == nil || st.verified != d.head() {
		if st != nil && st.err != nil {
			return false, st.err
		}
		return false, ErrNotProtected
	}
	list, err := p.Store.List(ctx, d.info.Folder+"/slots/")
	if err != nil {
		return false, err
	}
	for _, ob := range list {
		if n, ok := seal.ParseSlotPath(below(d.info.Folder, ob.Name)); ok && is(n) {
			found = true
			if err := p.Store.Delete(ctx, ob); err != nil {
				return found, err
			}
		}
	}
	return found, nil
}

// Forget removes the wallet from this device, its key from the keychain
// included. It never touches a place: the backup stays (R20).
func (b *Backup) Forget() error {
	b.op.Lock()
	defer b.op.Unlock()
	if err := b.forget(); err != nil {
		return fmt.Errorf("forgetting the wallet on this device: %w", err)
	}
	return nil
}

func (b *Backup) forget() error {
	d := b.dev
	if b.closed {
		return ErrClosed
	}
	if err := d.hold(context.Background(), func() { b.cfg.progress(Waiting, "", 0, 0) }); err != nil {
		return err
	}
	b.closed = true
	defer d.close()
	if runtime.GOOS == "windows" { // It does not rename what is open.
		if err := d.close(); err != nil {
			return err
		}
	}
	// A crash before the rename changes nothing; a crash after it leaves a
	// directory that nobody takes for a wallet, and that the next Create or
	// Restore beside it removes.
	aside := filepath.Join(filepath.Dir(d.dir), stagingPrefix+d.info.Device)
	if err := d.disk.RenameDir(d.dir, aside); err != nil {
		return err
	}
	return errors.Join(d.keychain.Delete(localKeyName(d.info)), d.disk.RemoveAll(aside))
}

// Deleted is what Delete did.
type Deleted struct {
	Objects int
	Left    []string // addresses and names of what was not known as this backup's
}

// Delete deletes the backup from all places: every object that this device made
// or that opens with its key, and nothing else (R3), and the accounts of its PIN at the
// key servers. What it left is listed.
// This device's copy stays until Forget, and is not backed up any more
// (ErrDeleted). If Delete fails half-way it can be called again: the slots go
// first, so that what is left cannot be mistaken for a backup that opens.
func (o *Owner) Delete(ctx context.Context) (Deleted, error) {
	b := o.b
	var del Deleted
	if err := b.begin(ctx); err != nil {
		return del, err
	}
	defer b.end()
	err := o.deleteAll(ctx, &del)
	if b.dev.deleted { // Otherwise it goes on, perhaps with nothing but its PIN.
		for _, server := range o.endPINs(ctx) {
			del.Left = append(del.Left, server+": an account of the PIN")
		}
	}
	return del, err
}

func (o *Owner) deleteAll(ctx context.Context, del *Deleted) error {
	var errs []error
	for _, p := range o.b.cfg.Places {
		if err := o.deletePlace(ctx, p, del); err != nil {
			errs = append(errs, fmt.Errorf("deleting from %s: %w", p.Address, err))
		}
	}
	return errors.Join(append(errs, o.b.dev.savePlaces())...)
}

func (o *Owner) deletePlace(ctx context.Context, p store.Place, del *Deleted) error {
	b := o.b
	folder := b.dev.info.Folder
	list, err := p.Store.List(ctx, folder+"/")
	if err != nil {
		return err
	}
	if b.dev.rekey.ID != "" || o.keys == nil { // Whatever is newer than this device is nowhere else.
		for _, ob := range list {
			n, ok := seal.ParseSnapshotPath(below(folder, ob.Name))
			switch {
			case !ok || n.String() == b.dev.rekey.End:
			case o.end != nil && (b.dev.beside(n) || n.Epoch == seal.MaxEpoch && b.dev.foreign(n)):
				ours, err := o.ours(ctx, p.Store, ob, false)
				if err != nil {
					return err
				}
				if ours && n.Epoch < seal.MaxEpoch {
					// A branch that came after it was looked for.
					return fmt.Errorf("%w: %s is in no history of the newest, and would be deleted with the old backup: restore it elsewhere if it is needed, then delete the old backup", ErrForked, n.Path())
				}
				if !ours && n.Epoch == seal.MaxEpoch {
					return b.dev.foreignError(p, n)
				}
			case b.dev.foreign(n):
				return b.dev.foreignError(p, n)
			}
		}
	}
	if !b.dev.deleted {
		// From here on nothing must put back what goes.
		if err := b.dev.append(record{Deleted: true}); err != nil {
			return err
		}
		b.change(func() { b.dev.deleted = true })
	}
	b.setPlace(p.Address, HealthMissing, ErrDeleted)
	b.change(b.dev.places[p.Address].lose)
	rank := func(ob store.Object) int {
		switch path := below(folder, ob.Name); {
		case isSlot(path):
			return 0
		case path == seal.HintName || path == seal.ReadmeName:
			return 2
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b store.Object) int { return rank(a) - rank(b) })
	left, ended := len(del.Left), false
	for i, ob := range list {
		b.cfg.progress(Deleting, p.Address, i, len(list))
		if o.end != nil && rank(ob) > 0 {
			if below(folder, ob.Name) == o.end.name.Path() {
				continue
			}
			// Between the slots and the rest: at no moment does it open without saying that
			// it ended. Where a place is full, what goes makes room.
			if !ended {
				err := b.pushData(ctx, p, o.end.name.Path(), o.end.data)
				if err != nil && !errors.Is(err, store.ErrFull) {
					return err
				}
				ended = err == nil
			}
		}
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
	if o.end != nil {
		if !ended {
			if err := b.pushData(ctx, p, o.end.name.Path(), o.end.data); err != nil {
				return err
			}
		}
		if err := p.Store.Put(ctx, folder+"/"+seal.ReadmeName, []byte(readmeEnded)); err != nil && !errors.Is(err, store.ErrExist) {
			return err
		}
	}
	return b.deletedAll(ctx, p, list)
}

// deletedAll returns an error if a place still has what it did not list: a listing may
// lag, and what is left could be mistaken for a backup. It asks for every slot and for
// a few of the others.
func (b *Backup) deletedAll(ctx context.Context, p store.Place, list []store.Object) error {
	d := b.dev
	listed := map[string]bool{}
	for _, ob := range list {
		listed[below(d.info.Folder, ob.Name)] = true
	}
	asked := 0
	for _, path := range append(slotPaths(d.removed), d.liveObjects(0)...) {
		if listed[path] {
			continue
		}
		if asked++; asked > maxHoles && !isSlot(path) {
			return nil
		}
		_, err := p.Store.Get(ctx, d.info.Folder+"/"+path, hashOf(path), seal.MaxObject)
		if err == nil {
			return fmt.Errorf("object %s is still there and was not listed: %w", path, store.ErrListing)
		}
		if !errors.Is(err, store.ErrNotExist) && !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrTooLarge) {
			return err
		}
	}
	return nil
}

func isSlot(path string) bool { _, ok := seal.ParseSlotPath(path); return ok }

// ours reports whether an object is proven to be this backup's: by this
// device's record, or because it opens with the backup's key. The hints go if
// they are as this device writes them and nothing else is left in the folder.
func (o *Owner) ours(ctx context.Context, st store.Store, ob store.Object, others bool) (bool, error) {
	d := o.b.dev
	path := below(d.info.Folder, ob.Name)
	if slices.ContainsFunc(slices.Concat(d.slots, d.removed), func(n seal.SlotName) bool { return n.Path() == path }) {
		return true, nil
	}
	if path == seal.HintName || path == seal.ReadmeName {
		data, err := st.Get(ctx, ob.Name, "", maxHint)
		if errors.Is(err, store.ErrTooLarge) || errors.Is(err, store.ErrDamaged) {
			return false, nil
		}
		known := string(data) == string(d.hints()[path]) || path == seal.ReadmeName && string(data) == readmeEnded
		return err == nil && !others && known, err
	}
	snap, isSnap := seal.ParseSnapshotPath(path)
	object, isObject := seal.ParseObjectPath(path)
	if !isSnap && !isObject {
		return false, nil
	}
	if _, err := d.object(hashOf(path)); err == nil {
		return true, nil
	}
	if o.keys == nil {
		return false, nil // What is withdrawn was made here a moment ago.
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
