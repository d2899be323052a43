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
}

func (a *anchor) record() *anchorRecord {
	if a.kept.IsZero() && a.err == nil {
		return nil
	}
	r := &anchorRecord{Snapshot: a.kept.String(), Fenced: a.fenced}
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
	if a.fenced = r.Fenced; r.Fenced {
		a.err = &toldError{r.Err, ErrOtherDevice}
	} else if r.Err != "" {
		a.err = errors.New(r.Err)
	}
	return a, err
}

// pinSlot returns the PIN slot whose key servers keep the head, nil if there is none yet.
func (b *Backup) pinSlot(ctx context.Context) *guard.Slot {
	d := b.dev
	if b.cfg.Guardians == nil || d.pin.Plan != nil {
		return nil
	}
	for _, n := range slices.Backward(d.slots) {
		if !isPIN(n) {
			continue
		}
		data, err := b.slotObject(ctx, n)
		if err == nil {
			var s *guard.Slot
			if s, err = slot.ReadPIN(data, guard.ID(d.key.Backup())); err == nil {
				return s
			}
		}
		b.cfg.Logger.Warn("the PIN slot cannot be read, so the key servers are not told of the newest state", "slot", n.Path(), "err", err)
	}
	return nil
}

// anchor tells the key servers of the newest snapshot, which enough places hold. Those
// that are away are told with a later one: nothing waits for them. The error is
// ErrOtherDevice if they keep another state.
func (b *Backup) anchor(ctx context.Context) error {
	d := b.dev
	if d.anchor.kept == d.head() && d.anchor.err == nil || !d.anchor.fenced && d.anchor.next.After(time.Now()) {
		return nil
	}
	s := b.pinSlot(ctx)
	if s == nil {
		if d.anchor != (anchor{}) {
			b.change(func() { d.anchor = anchor{} })
		}
		return nil
	}
	n := d.head()
	h := protocol.NewHead(d.key.Head(), n.Epoch, n.Generation, snapshotHash(n), 0)
	ctx, cancel := context.WithTimeout(ctx, anchorTime)
	defer cancel()
	err := b.cfg.Guardians.PutHead(ctx, s, h, d.epochs)
	a := anchor{kept: n}
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
	b.change(func() { d.anchor = a })
	if a.fenced {
		return a.err
	}
	return nil
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

// heads asks the key servers for the newest state there is, and compares. The error is
// ErrOlder or ErrForked; what could not be found out is a warning.
func (o *Opened) heads(ctx context.Context) error {
	slots, errs := o.pinSlots(ctx)
	asked := false
	for _, s := range slots {
		limited, cancel := context.WithTimeout(ctx, 2*anchorTime)
		h, err := o.found.cfg.Guardians.Heads(limited, s, o.headKey)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
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
		o.epoch = max(o.epoch, h.Epoch)
		if err := o.atLeast(h.Newest); err != nil {
			return err
		}
	}
	if !asked && len(errs) > 0 {
		o.warnings = append(o.warnings, fmt.Sprintf("the key servers could not be asked whether this is the newest state: %v", errs[0]))
	}
	return nil
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
