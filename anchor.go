package satchel

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
)

// The key servers of a PIN keep the head: which snapshot is the newest. A place that is
// put back to an older day shows by it, and a device that another took over from is
// stopped, also where no place shows that.

// anchor is what this device knows of its head at the key servers.
type anchor struct {
	kept seal.SnapshotName // the newest that they are known to keep
	err  error             // why a newer one is not kept yet
	// fenced says that they keep what this device did not write: it is not the writer.
	fenced bool
	// dead says that the PIN, which is the only way in, opens nothing any more.
	dead bool

	next  time.Time     // when it is tried again, in this process; zero for at once
	pause time.Duration // after the last failure
}

const (
	anchorTime     = 5 * time.Second // that a Save waits for key servers
	minAnchorPause = 30 * time.Second
	maxAnchorPause = 30 * time.Minute
)

type anchorRecord struct {
	Snapshot string `json:"snapshot"`
	Err      string `json:"err,omitempty"`
	Fenced   bool   `json:"fenced,omitempty"`
	Dead     bool   `json:"dead,omitempty"`
}

func (a *anchor) record() *anchorRecord {
	if a.kept.IsZero() && a.err == nil {
		return nil
	}
	r := &anchorRecord{Snapshot: a.kept.String(), Fenced: a.fenced, Dead: a.dead}
	if a.err != nil {
		r.Err = a.err.Error()
	}
	return r
}

func (r *anchorRecord) anchor() (a anchor, err error) {
	if r == nil {
		return a, nil
	}
	a.kept, err = seal.ParseSnapshotName(r.Snapshot)
	if a.fenced, a.dead = r.Fenced, r.Dead; r.Fenced {
		a.err = &toldError{r.Err, ErrOtherDevice}
	} else if r.Err != "" {
		a.err = errors.New(r.Err)
	}
	return a, err
}

// pinSlots returns the PIN slots whose key servers keep the head: usually one, and while a
// PIN is being changed the new and the old one.
func (b *Backup) pinSlots(ctx context.Context) (list []*guard.Slot) {
	d := b.dev
	if b.cfg.Guardians == nil {
		return nil
	}
	for _, n := range slices.Backward(d.slots) {
		if !isPIN(n) || n.Path() == d.pin.Slot && len(d.pin.Old) == 0 {
			continue // It is none, or no key server knows it yet.
		}
		data, err := b.slotObject(ctx, n)
		if err == nil {
			var s *guard.Slot
			if s, err = slot.ReadPIN(data, guard.ID(d.key.Backup())); err == nil {
				list = append(list, s)
				continue
			}
		}
		b.cfg.Logger.Warn("the PIN slot cannot be read, so the key servers are not told of the newest state", "slot", n.Path(), "err", err)
	}
	return list
}

// putHead puts a head at the key servers of some slots. It is anchored if those of one
// keep it, and refused if those of one do.
func (b *Backup) putHead(ctx context.Context, slots []*guard.Slot, h protocol.Head) error {
	var errs []error
	anchored := false
	for _, s := range slots {
		err := b.cfg.Guardians.PutHead(ctx, s, h, b.dev.epochs)
		if errors.Is(err, guard.ErrConflict) {
			return err
		}
		anchored = anchored || err == nil
		errs = append(errs, err)
	}
	if anchored {
		return nil
	}
	return errors.Join(errs...)
}

// anchor tells the key servers of the newest snapshot, which enough places hold. Those
// that are away are told with a later one: nothing waits for them. The error is
// ErrOtherDevice if they keep another state.
func (b *Backup) anchor(ctx context.Context) error {
	d := b.dev
	pinOnly := d.pinOnly()
	if d.anchor.kept == d.head() && d.anchor.err == nil && !(pinOnly && b.asked) || !d.anchor.fenced && d.anchor.next.After(time.Now()) {
		return nil
	}
	if !slices.ContainsFunc(d.slots, isPIN) {
		if d.anchor != (anchor{}) {
			b.change(func() { d.anchor = anchor{} })
		}
		return nil
	}
	slots := b.pinSlots(ctx)
	if len(slots) == 0 { // They cannot be asked.
		if d.anchor.fenced {
			return d.anchor.err
		}
		return nil
	}
	n := d.head()
	h := protocol.NewHead(d.key.Head(), n.Epoch, n.Generation, snapshotHash(n), 0)
	ctx, cancel := context.WithTimeout(ctx, anchorTime)
	defer cancel()
	err := b.putHead(ctx, slots, h)
	a := anchor{kept: n, dead: d.anchor.dead && pinOnly}
	switch {
	case errors.Is(err, guard.ErrConflict):
		a.kept, a.fenced = d.anchor.kept, true
		a.err = fmt.Errorf("%w: %w, and this device wrote generation %d in epoch %d", ErrOtherDevice, err, n.Generation, n.Epoch)
	case err != nil && d.anchor.fenced:
		a = d.anchor
	case err != nil:
		a.kept, a.err = d.anchor.kept, err
		a.pause = min(max(2*d.anchor.pause, minAnchorPause), maxAnchorPause)
		a.next = time.Now().Add(a.pause)
		b.cfg.Logger.Warn("the key servers do not know the newest state", "generation", n.Generation, "err", err)
	}
	if err == nil && pinOnly {
		// Nothing else opens it, so it has to be there.
		switch err := b.opensAlone(ctx, d.slots); {
		case err == nil:
			a.dead = false
		case errors.Is(err, guard.ErrErased), errors.Is(err, guard.ErrGone):
			a.dead = true
		} // Otherwise it is as it was last known.
	}
	b.change(func() { d.anchor = a })
	if a.fenced {
		return a.err
	}
	return nil
}

// pinOnly reports whether nothing but PINs opens the backup.
func (d *device) pinOnly() bool {
	return !slices.ContainsFunc(d.slots, func(n seal.SlotName) bool { return !isPIN(n) })
}

// snapshotHash is the hash in a snapshot's name.
func snapshotHash(n seal.SnapshotName) (h [16]byte) {
	b, err := hex.DecodeString(string(n.Hash))
	if err != nil || len(b) != len(h) {
		panic("a hash of another length") // A name was parsed.
	}
	copy(h[:], b)
	return h
}

// fence returns ErrOtherDevice if the key servers keep a state that this device did not
// write, as far as is known.
func (b *Backup) fence(ctx context.Context) error {
	if !b.dev.anchor.fenced {
		return nil
	}
	return b.anchor(ctx)
}

// setEpochs keeps what brings key servers to this device's epoch, with the first commit.
func (d *device) setEpochs(keys *seal.Keys) error {
	epochs := guard.Epochs(keys.Owner(), d.key.Epoch(), func(e uint64) ed25519.PublicKey { return public(keys.Head(e)) })
	if err := d.append(record{Epochs: epochBytes(epochs)}); err != nil {
		return err
	}
	d.epochs = epochs
	return nil
}

func epochBytes(list []protocol.InstallEpoch) []byte {
	b, err := binary.Append(nil, binary.BigEndian, list)
	if err != nil {
		panic(err) // Their size is fixed.
	}
	return b
}

func parseEpochs(b []byte) ([]protocol.InstallEpoch, error) {
	list := make([]protocol.InstallEpoch, len(b)/binary.Size(protocol.InstallEpoch{}))
	if n, err := binary.Decode(b, binary.BigEndian, list); err != nil || n != len(b) {
		return nil, seal.ErrDamaged
	}
	return list, nil
}

// maxPINSlots bounds how many are looked at: whoever can write to a place could add any
// number.
const maxPINSlots = 16

// pinSlots returns the PIN slots that the newest state lists, and the one that opened,
// with what could not be read.
func (o *Opened) pinSlots(ctx context.Context) (slots []*guard.Slot, errs []error) {
	var names []seal.SlotName
	for _, n := range append([]seal.SlotName{o.used}, o.state.slots...) {
		if isPIN(n) && !slices.Contains(names, n) && len(names) < maxPINSlots {
			names = append(names, n)
		}
	}
	if o.found.cfg.Guardians == nil {
		return nil, nil
	}
	for _, n := range names {
		data, err := o.reader.fetch(ctx, n.Path(), seal.MaxSlot)
		var s *guard.Slot
		if err == nil {
			s, err = slot.ReadPIN(data, guard.ID(o.keys.ID()))
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		slots = append(slots, s)
	}
	return slots, errs
}

func (o *Opened) headKey(epoch uint64) ed25519.PublicKey { return public(o.keys.Head(epoch)) }

// heads asks the key servers for the newest state there is, which compareHeads compares.
// What could not be found out is a warning, for who finds nothing worse.
func (o *Opened) heads(ctx context.Context) (warning string) {
	slots, errs := o.pinSlots(ctx)
	asked, unproven := false, false
	for _, s := range slots {
		limited, cancel := context.WithTimeout(ctx, 2*anchorTime)
		h, err := o.found.cfg.Guardians.Heads(limited, s, o.headKey)
		cancel()
		if ctx.Err() != nil {
			return ""
		}
		if gone := goneAt(h, err); gone > 0 && gone > h.Of-s.Threshold {
			errs = append(errs, errPINGone)
			continue
		}
		if err == nil && len(h.Failures) > h.Of/2 {
			err = fmt.Errorf("%d of %d key servers did not say: %s: %w", len(h.Failures), h.Of, h.Failures[0].Server, h.Failures[0].Err)
		}
		if err != nil {
			errs = append(errs, err)
		}
		if h == nil {
			continue
		}
		asked = asked || err == nil
		unproven = unproven || err == nil && h.Newest != (protocol.Head{}) && h.Proven == 0
		o.epoch = max(o.epoch, h.Epoch)
		o.heard = append(o.heard, h.Newest)
	}
	switch {
	case unproven:
		return "the key servers were put back from a copy of their own, and may not know the newest state"
	case !asked && slices.Contains(errs, errPINGone):
		return "this state lists a PIN that was changed or removed since, or never confirmed: this may be an old copy, look whether another place has a newer one"
	case !asked && len(errs) > 0:
		return fmt.Sprintf("the key servers could not be asked whether this is the newest state: %v", errs[0])
	}
	return ""
}

// compareHeads returns ErrOlder or ErrForked if what the key servers know says so.
func (o *Opened) compareHeads() error {
	for _, h := range o.heard {
		if err := o.atLeast(h); err != nil {
			return err
		}
	}
	return nil
}

// errPINGone says that a PIN slot opens nothing any more.
var errPINGone = errors.New("the PIN is gone")

// goneAt counts the key servers that have no account for a slot.
func goneAt(h *guard.Heads, err error) (n int) {
	if err != nil {
		return 0
	}
	for _, f := range h.Failures {
		if errors.Is(f.Err, guard.ErrGone) {
			n++
		}
	}
	return n
}

// raise tells the key servers that a new epoch began.
func (o *Opened) raise(ctx context.Context, epoch uint64) error {
	slots, errs := o.pinSlots(ctx)
	epochs := guard.Epochs(o.keys.Owner(), epoch, o.headKey)
	for _, s := range slots {
		limited, cancel := context.WithTimeout(ctx, 2*anchorTime)
		err := o.found.cfg.Guardians.InstallEpoch(limited, s, epochs)
		cancel()
		if err == nil {
			return nil // Of several, one counts.
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// atLeast returns an error unless the newest state is a head, or came after it.
func (o *Opened) atLeast(h protocol.Head) error {
	n := o.newest
	if h == (protocol.Head{}) || h.Epoch < n.Epoch {
		return nil
	}
	if h.Generation > seal.MaxGeneration {
		// What stood there before is lost, so there may be a newer one.
		return fmt.Errorf("%w, perhaps: the key servers know generation %d of epoch %d, which no state has: somebody has the key of the device, and they cannot say any more what is the newest",
			ErrOlder, h.Generation, h.Epoch)
	}
	if h.Epoch > n.Epoch || h.Generation > n.Generation {
		return fmt.Errorf("%w: the key servers know generation %d of epoch %d, and the newest here is generation %d of epoch %d",
			ErrOlder, h.Generation, h.Epoch, n.Generation, n.Epoch)
	}
	for _, c := range o.made {
		if c.Epoch == h.Epoch && c.Generation == h.Generation {
			if hash := snapshotHash(c); !bytes.Equal(hash[:], h.Snapshot[:]) {
				return fmt.Errorf("%w: the key servers know another generation %d of epoch %d than is here", ErrForked, h.Generation, h.Epoch)
			}
		}
	}
	return nil
}
