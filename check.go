package satchel

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
)

// Finding is one thing that Check or Drill found wrong.
type Finding struct {
	Place  string // address; "" for what concerns no place
	Object string // below the backup's folder, or the name of an item; "" for the place as a whole
	Err    error  // ErrMissing, seal.ErrDamaged, ErrOtherDevice, …
}

// Report is the outcome of a Check or a Drill.
type Report struct {
	Places   []PlaceStatus
	Objects  int       // objects, or items, compared
	Bytes    int64     // in them
	Findings []Finding // empty if all is well
}

func (r *Report) add(place, object string, err error) {
	r.Findings = append(r.Findings, Finding{Place: place, Object: object, Err: err})
}

// err returns the findings as one error, nil if there are none.
func (r *Report) err() error {
	var errs []error
	for _, f := range r.Findings {
		if f.Place == "" {
			errs = append(errs, fmt.Errorf("item %s: %w", f.Object, f.Err))
		} else if f.Object == "" {
			errs = append(errs, fmt.Errorf("%s: %w", f.Place, f.Err))
		} else {
			errs = append(errs, fmt.Errorf("%s: %s: %w", f.Place, f.Object, f.Err))
		}
	}
	return errors.Join(errs...)
}

// Check proves that every place could restore the newest generation: it fetches
// every object of it and compares it with what this device sealed. It opens
// nothing and needs no secret. While it waits for a place, other operations may go on;
// what they add is compared too. The error is nil if all places are well, and
// joins the findings otherwise. A place in which something is wrong gets
// everything that it lacks with the next Save or Sync.
func (b *Backup) Check(ctx context.Context) (Report, error) {
	var r Report
	if err := b.begin(ctx); err != nil {
		return r, err
	}
	defer b.end()
	d := b.dev
	whole := 0
	for _, p := range b.cfg.Places {
		before := len(r.Findings)
		err := b.checkPlace(ctx, p, &r)
		if ctx.Err() != nil || errors.Is(err, errInterrupted) {
			r.Places = b.placeStatus()
			return r, cmp.Or(ctx.Err(), err)
		}
		if err != nil {
			r.add(p.Address, "", err)
		}
		bad := slices.DeleteFunc(slices.Clone(r.Findings[before:]), func(f Finding) bool { return errors.Is(f.Err, ErrBranch) })
		if len(bad) == 0 {
			b.change(func() {
				branch := b.place(p.Address).branch
				d.places[p.Address] = &placeState{verified: d.head(), at: b.cfg.Now(), health: HealthProtected, branch: branch}
			})
			whole++
			continue
		}
		worst := bad[0].Err
		for _, f := range bad {
			if healthOf(f.Err).lost() {
				worst = f.Err
				break
			}
		}
		if st := d.places[p.Address]; healthOf(worst) != HealthBehind || st == nil || st.err == nil || st.health.lost() {
			b.setPlace(p.Address, healthOf(worst), worst) // Why it is behind says more than that.
		}
		if !healthOf(worst).lost() {
			continue
		}
		b.change(func() {
			st := d.places[p.Address]
			if !st.at.IsZero() && (!st.lost || !st.verified.IsZero()) {
				st.lose() // What never held anything has lost nothing.
			}
			for _, f := range bad { // What is being put back there stays known.
				delete(st.held, f.Object)
			}
		})
	}
	for _, name := range lostItems(d.items) {
		r.add("", name, fmt.Errorf("lost before this device was restored: %w", ErrIncomplete))
		whole = 0
	}
	if err := b.fence(ctx); err != nil {
		r.add("", "", err)
	}
	if d.pinOnly() && b.cfg.Guardians != nil && len(d.slots) > 0 && d.pin.Plan == nil {
		// Nothing else opens it.
		if err := b.opensAlone(ctx, d.slots); err != nil && ctx.Err() == nil {
			r.add("", d.slots[0].Path(), fmt.Errorf("there is no other way in: %w", err))
			whole = 0
		}
	}
	if whole >= b.cfg.Copies && b.protected() {
		b.change(func() { d.verified = b.cfg.Now() })
	}
	b.settleExposed()
	err := errors.Join(r.err(), d.savePlaces())
	b.tidy()
	r.Places = b.placeStatus()
	return r, err
}

// errBehind says that a place does not have an object yet, and never was said to.
var errBehind = fmt.Errorf("not there yet: %w", ErrNotProtected)

// errSlotBack says that a slot is there which the list does not have.
var errSlotBack = errors.New("not in the list of slots: it was removed and came back, or is not of this backup")

// errSlotLost says that a slot that is in the list is nowhere to be had.
var errSlotLost = errors.New("this way in is lost: take it out of the list, and add another one")

// checkPlace compares everything that the newest state needs.
func (b *Backup) checkPlace(ctx context.Context, p store.Place, r *Report) error {
	if err := b.checkList(ctx, p, r); err != nil {
		return err
	}
	seen := map[string]bool{}
	head, verified := b.dev.head(), b.verified(p)
	left, late := b.toCheck(p, seen)
	for len(left) > 0 {
		b.cfg.progress(Checking, p.Address, len(seen), len(seen)+len(left))
		path := left[0]
		if err := b.checkObject(ctx, p, path, late[path], r); err != nil {
			return err
		}
		seen[path], left = true, left[1:]
		if b.dev.head() != head || b.verified(p) != verified {
			// What was added meanwhile belongs to the newest generation too. Where a loss
			// was noticed, what was seen before counts for nothing.
			if b.verified(p).Compare(verified) < 0 {
				clear(seen)
			}
			head, verified = b.dev.head(), b.verified(p)
			left, late = b.toCheck(p, seen)
		}
	}
	b.cfg.progress(Checking, p.Address, len(seen), len(seen))
	return b.checkList(ctx, p, nil) // Another device may have come meanwhile.
}

// verified returns the newest snapshot that a place was said to hold.
func (b *Backup) verified(p store.Place) seal.SnapshotName {
	if st := b.dev.places[p.Address]; st != nil {
		return st.verified
	}
	return seal.SnapshotName{}
}

// toCheck returns what the newest state needs and was not seen yet, and what of it may
// be late: what the place was said to hold and does not is missing, what comes after
// that is only late.
func (b *Backup) toCheck(p store.Place, seen map[string]bool) (left []string, late map[string]bool) {
	left = slices.DeleteFunc(b.dev.liveObjects(0), func(path string) bool { return seen[path] })
	if st := b.dev.places[p.Address]; st != nil && !st.at.IsZero() && (st.lost || st.health.lost() && st.verified.IsZero()) {
		return left, nil // It held them.
	}
	return left, b.dev.late(b.verified(p))
}

// checkList looks for what another device or somebody else put into the place. With a
// nil report it only looks for another device.
func (b *Backup) checkList(ctx context.Context, p store.Place, r *Report) error {
	d := b.dev
	list, err := p.Store.List(ctx, d.info.Folder+"/")
	if err != nil {
		return err
	}
	var branch seal.SnapshotName
	for _, o := range list {
		path := below(d.info.Folder, o.Name)
		if n, ok := seal.ParseSnapshotPath(path); ok {
			if d.foreign(n) {
				return d.foreignError(p, n)
			}
			if d.beside(n) && n.Compare(branch) > 0 {
				branch = n
			}
		}
		if n, ok := seal.ParseSlotPath(path); ok && r != nil && !slices.Contains(d.slots, n) {
			r.add(p.Address, path, errSlotBack)
		}
	}
	b.setBranch(p, branch)
	if !branch.IsZero() && r != nil {
		r.add(p.Address, branch.Path(), ErrBranch)
	}
	return nil
}

// checkObject compares one object that the newest state needs.
func (b *Backup) checkObject(ctx context.Context, p store.Place, path string, late bool, r *Report) error {
	want, err := b.sealed(ctx, path)
	if _, local := errors.AsType[*localError](err); local && isSlot(path) {
		r.add(p.Address, path, errSlotLost)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var got []byte
	name := b.dev.info.Folder + "/" + path
	err = b.apart(ctx, p, func() (err error) {
		got, err = p.Store.Get(ctx, name, hashOf(path), int64(len(want)))
		return err
	})
	if err != nil && !errors.Is(err, errInterrupted) && !slices.Contains(b.dev.liveObjects(0), path) {
		return nil // It is not needed any more, and may be pruned.
	}
	switch {
	case errors.Is(err, store.ErrNotExist) && late:
		r.add(p.Address, path, errBehind)
	case errors.Is(err, store.ErrNotExist):
		r.add(p.Address, path, ErrMissing)
	case errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrTooLarge), err == nil && !bytes.Equal(got, want):
		r.add(p.Address, path, seal.ErrDamaged)
	case err != nil:
		return err
	default:
		r.Objects++
		r.Bytes += int64(len(got))
	}
	return nil
}

// Drill restores the backup from each place into memory with the secret of a
// slot, and compares every item, the fingerprint and the first addresses with this
// device's. It writes nothing, but on this device when it passed: in as many places as
// must hold a change. Status tells that.
func (b *Backup) Drill(ctx context.Context, s slot.Secret) (Report, error) {
	if err := b.begin(ctx); err != nil {
		return Report{}, err
	}
	defer b.end()
	return b.drill(ctx, func(f *Found) (*Opened, error) { return f.Open(ctx, s) })
}

func (b *Backup) drill(ctx context.Context, open func(f *Found) (*Opened, error)) (Report, error) {
	var r Report
	var used seal.SlotName
	whole := 0
	for _, p := range b.cfg.Places {
		found := len(r.Findings)
		err := b.drillPlace(ctx, p, func(f *Found) (*Opened, error) {
			o, err := open(f)
			if err == nil {
				used = o.used
			}
			return o, err
		}, &r)
		if err != nil {
			r.add(p.Address, "", err)
		}
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		if len(r.Findings) == found {
			whole++
		}
	}
	r.Places = b.placeStatus()
	if whole < b.cfg.Copies {
		return r, r.err()
	}
	return r, errors.Join(r.err(), b.setDrilled(used))
}

// setDrilled records that a restore passed with a slot.
func (b *Backup) setDrilled(used seal.SlotName) error {
	kept := b.dev.kept
	kept.Drilled = &drillRecord{At: b.cfg.Now(), Slot: used.Path()}
	return b.setKept(kept)
}

// drilled returns when a restore last passed with a way in that is still one.
func (d *device) drilled() time.Time {
	if r := d.kept.Drilled; r != nil && slices.ContainsFunc(d.slots, func(n seal.SlotName) bool { return n.Path() == r.Slot }) {
		return r.At
	}
	return time.Time{}
}

func (b *Backup) drillPlace(ctx context.Context, p store.Place, open func(f *Found) (*Opened, error), r *Report) error {
	d := b.dev
	f := &Found{Folder: d.info.Folder, Label: d.info.Label, Places: []FoundPlace{{Place: p}}, cfg: b.cfg}
	o, err := open(f)
	if err != nil {
		return err
	}
	pre := o.Preview()
	switch {
	case pre.Problem != nil:
		return pre.Problem
	case pre.ID != d.info.ID || pre.Fingerprint != d.info.Fingerprint:
		return ErrWrongWallet
	case o.state.name.Compare(d.head()) < 0:
		return fmt.Errorf("%w: generation %d there, %d here", ErrOlder, pre.Generation, d.head().Generation)
	case o.state.name != d.head():
		return fmt.Errorf("%w: generation %d in epoch %d there", ErrOtherDevice, pre.Generation, pre.Epoch)
	}
	names := o.inOrder()
	defer o.readAhead(ctx, names)()
	var last carrier
	for i, name := range names {
		b.cfg.progress(Comparing, p.Address, i, len(names))
		theirs := o.state.items[name]
		if theirs.line.Removed {
			continue
		}
		v, err := o.restoreValue(ctx, theirs, &last)
		if err != nil {
			r.add(p.Address, name, err)
			continue
		}
		ours := d.items[name]
		if ours == nil || !ours.line.Matches(v) {
			r.add(p.Address, name, fmt.Errorf("another value than on this device: %w", ErrOlder))
			continue
		}
		r.Objects++
		r.Bytes += int64(len(v))
	}
	if len(itemInfos(d.items)) != len(pre.Items) {
		return fmt.Errorf("%d items there, %d here: %w", len(pre.Items), len(itemInfos(d.items)), ErrIncomplete)
	}
	b.cfg.progress(Comparing, p.Address, len(names), len(names))
	return nil
}
