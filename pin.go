package satchel

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
)

// PINPlan is what SetPIN makes.
type PINPlan struct {
	PIN        secret.Bytes // any text of at most 1,024 bytes
	Passphrase secret.Bytes // asked for as well; empty for none
	Servers    []string     // names of the key servers, at most 10
	Threshold  int          // how many of them open the backup, with the PIN
}

// pinRecord says how far a change of the PIN is. One without a Plan says that none is
// under way.
type pinRecord struct {
	Plan       *guard.Plan       `json:"plan,omitempty"`
	Settlement *guard.Settlement `json:"settlement,omitempty"` // set before the slot is committed
	Slot       string            `json:"slot,omitempty"`       // path
	Old        string            `json:"old,omitempty"`        // path of the slot that it takes the place of
}

// settleTime bounds how long a Save waits for key servers.
const settleTime = 30 * time.Second

// SetPIN makes a PIN a way into the backup, in the place of one that was set before: a
// secret is shared among key servers, the slot is sealed, opened again to prove it,
// journalled, and brought to the places; then the servers are told, and the old slot
// goes. At every moment the old PIN or the new one opens. What a crash or a server that is
// away leaves undone the next Save goes on with (Status.PINPending). Errors: those of
// guard, and as for Save.
func (o *Owner) SetPIN(ctx context.Context, p PINPlan) (SlotInfo, error) {
	b := o.b
	if err := b.begin(); err != nil {
		return SlotInfo{}, err
	}
	defer b.end()
	info, err := o.setPIN(ctx, p)
	if err != nil {
		err = fmt.Errorf("setting the PIN: %w", err)
	}
	return info, err
}

func (o *Owner) setPIN(ctx context.Context, p PINPlan) (info SlotInfo, err error) {
	b := o.b
	d := b.dev
	client := b.cfg.Guardians
	if client == nil {
		return info, errors.New("Config.Guardians is missing")
	}
	looks, err := b.look(ctx)
	if err != nil {
		return info, err
	}
	if err := b.abandonPIN(ctx); err != nil {
		return info, fmt.Errorf("what was begun before cannot be put away: %w", err)
	}
	if d.pin.Plan != nil {
		if err := b.sync(ctx, looks); err != nil {
			return info, err
		}
		if d.pin.Plan != nil {
			return info, fmt.Errorf("an earlier change: %w", guard.ErrPending)
		}
	}
	if len(d.slots) >= seal.MaxSlots {
		return info, fmt.Errorf("there are %d slots already", len(d.slots))
	}
	r := pinRecord{}
	if r.Plan, r.Old, err = o.planPIN(ctx, p); err != nil {
		return info, err
	}
	// Before any account is made, so that it is found again.
	if err := b.recordPIN(r); err != nil {
		return info, err
	}
	e, err := client.Enrol(ctx, r.Plan, p.PIN, p.Passphrase)
	if err != nil {
		return info, errors.Join(err, b.abandonPIN(ctx))
	}
	n, err := b.proveSlot(o.keys, slot.KindPIN, slot.PINRecipient(e), slot.EnrolledPIN(e))
	if err == nil {
		r.Slot = n.Path()
		r.Settlement, err = e.Settlement(public(o.keys.Owner()), d.key.Epoch(), public(o.keys.Head(d.key.Epoch())))
	}
	if err == nil {
		err = b.recordPIN(r)
	}
	if err == nil {
		slots := append(slices.Clone(d.slots), n)
		err = b.commitChanges(o.keys, nil, &slots, []string{n.Path()})
	}
	if err != nil {
		return info, errors.Join(err, b.abandonPIN(ctx))
	}
	info = SlotInfo{Kind: slot.KindPIN, ID: n.ID.String()}
	err = b.sync(ctx, looks)
	if err == nil && d.pin.Plan != nil {
		err = fmt.Errorf("the slot is in its places, and not all key servers know of it yet; saving goes on with it: %w", guard.ErrPending)
	}
	return info, err
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// planPIN plans the enrolment, in the place of the PIN slot that there is.
func (o *Owner) planPIN(ctx context.Context, p PINPlan) (plan *guard.Plan, old string, err error) {
	b := o.b
	id := guard.ID(b.dev.key.Backup())
	i := slices.IndexFunc(b.dev.slots, func(n seal.SlotName) bool { return n.Kind == string(slot.KindPIN) })
	if i >= 0 {
		old = b.dev.slots[i].Path()
		data, err := b.slotObject(ctx, b.dev.slots[i])
		if err == nil {
			var s *guard.Slot
			if s, err = slot.ReadPIN(data, id); err == nil {
				plan, err := b.cfg.Guardians.Replace(ctx, s, guard.Owner(o.keys.Owner()), p.Threshold, p.Servers)
				return plan, old, err
			}
		}
		// Nobody can say any more which accounts it had.
		b.cfg.Logger.Warn("the PIN slot that is replaced cannot be read", "slot", old, "err", err)
	}
	plan, err = guard.NewPlan(id, p.Threshold, p.Servers)
	return plan, old, err
}

// recordPIN makes durable how far a change of the PIN is.
func (b *Backup) recordPIN(r pinRecord) error {
	if err := b.dev.append(record{PIN: &r}); err != nil {
		return fmt.Errorf("recording it on this device: %w", err)
	}
	b.change(func() { b.dev.pin = r })
	return nil
}

// abandonPIN ends a change of the PIN whose slot was never committed: it is in no place.
func (b *Backup) abandonPIN(ctx context.Context) error {
	r := b.dev.pin
	if r.Plan == nil || r.Slot != "" && slices.ContainsFunc(b.dev.slots, func(n seal.SlotName) bool { return n.Path() == r.Slot }) {
		return nil
	}
	if b.cfg.Guardians == nil {
		return errors.New("Config.Guardians is missing")
	}
	if err := b.cfg.Guardians.Abandon(ctx, r.Plan); err != nil {
		return err
	}
	return b.recordPIN(pinRecord{})
}

// settlePIN tells the key servers of a slot that enough places hold, and then takes the
// old slot out. It reports whether it did: then there is something new for the places, or
// for the key servers. What fails is tried again with the next Save.
func (b *Backup) settlePIN(ctx context.Context) (again bool) {
	r := b.dev.pin
	if r.Plan == nil || b.cfg.Guardians == nil {
		return false
	}
	listed := slices.ContainsFunc(b.dev.slots, func(n seal.SlotName) bool { return n.Path() == r.Slot })
	if r.Settlement == nil || !listed {
		return false // SetPIN puts it away.
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	out := r.Old
	if !r.Settlement.Done() {
		left, err := b.cfg.Guardians.Settle(ctx, r.Settlement)
		expired := errors.Is(err, guard.ErrGone) && len(left.First) > 0
		if err != nil {
			b.cfg.Logger.Warn("the key servers do not know all of the new PIN", "err", err)
		}
		if r.Settlement = left; !expired {
			if err := b.recordPIN(r); err != nil || !left.Done() {
				return false
			}
		} else {
			out = r.Slot // It took too long. The old one is as it was.
		}
	}
	if err := b.dropSlot(out); err != nil {
		b.cfg.Logger.Warn("taking a PIN slot out", "slot", out, "err", err)
		return false
	}
	if err := b.recordPIN(pinRecord{}); err != nil {
		b.cfg.Logger.Warn("recording that the PIN is set", "err", err)
		return false
	}
	return true
}

// endPIN deletes the accounts of a PIN slot. It is nil if fewer are left than open it.
func (o *Owner) endPIN(ctx context.Context, n seal.SlotName) error {
	b := o.b
	data, err := b.slotObject(ctx, n)
	var s *guard.Slot
	if err == nil {
		s, err = slot.ReadPIN(data, guard.ID(b.dev.key.Backup()))
	}
	if err != nil {
		b.cfg.Logger.Warn("the PIN slot that is removed cannot be read", "slot", n.Path(), "err", err)
	} else {
		client := b.cfg.Guardians
		if client == nil {
			return errors.New("Config.Guardians is missing")
		}
		if err := client.Delete(ctx, s, guard.Owner(o.keys.Owner())); err != nil {
			list, statusErr := client.Status(ctx, s)
			gone := 0
			for i := range list {
				if errors.Is(list[i].Err, guard.ErrGone) {
					gone++
				}
			}
			if statusErr != nil || len(s.Guardians)-gone >= s.Threshold {
				return err
			}
			b.cfg.Logger.Warn("a key server keeps an account that opens nothing any more", "err", err)
		}
	}
	if b.dev.pin.Slot == n.Path() {
		return b.recordPIN(pinRecord{})
	}
	return nil
}

// dropSlot takes a slot out of the list; its objects go with the next finishRemovals.
func (b *Backup) dropSlot(path string) error {
	i := slices.IndexFunc(b.dev.slots, func(n seal.SlotName) bool { return n.Path() == path })
	if i < 0 {
		return nil
	}
	n := b.dev.slots[i]
	slots := slices.Delete(slices.Clone(b.dev.slots), i, i+1)
	// If we crash between the two, the slot is in the list and stays.
	if err := b.setRemoved(append(slices.Clone(b.dev.removed), n)); err != nil {
		return err
	}
	return b.commitChanges(nil, nil, &slots, nil)
}

// PINSlot is a PIN slot, and how its key servers stand.
type PINSlot struct {
	ID         string // of the slot
	Servers    []string
	Threshold  int
	Passphrase bool             // one is asked for as well
	Standing   []guard.Standing // nil if they could not be asked
	// Err says why it cannot be tried: guard.ErrSlotDamaged, slot.ErrOtherBackup, a
	// *guard.UnknownError that the user may allow (Client.Trusted), …
	Err error

	name   seal.SlotName
	object []byte
	slot   *guard.Slot
}

// active counts the key servers that know this slot and would answer.
func (s *PINSlot) active() int {
	n := 0
	for i := range s.Standing {
		st := &s.Standing[i]
		if st.Err == nil && !st.Damaged && (st.State == protocol.StateActive || st.State == protocol.StatePending) {
			n++
		}
	}
	return n
}

// PINSlots reads the PIN slots of a found backup and asks their key servers how they
// stand, which costs no guess and tells them nothing of a PIN. The one to try is the
// first.
func (f *Found) PINSlots(ctx context.Context) ([]PINSlot, error) {
	r, _, err := f.reader(ctx)
	if err != nil {
		return nil, err
	}
	var id guard.ID
	if known, err := seal.ParseBackupID(f.ID); err == nil {
		id = guard.ID(known)
	}
	names := r.slots(func(n seal.SlotName) bool { return n.Kind == string(slot.KindPIN) })
	fetch := func(n seal.SlotName) ([]byte, error) { return r.fetch(ctx, n.Path(), seal.MaxSlot) }
	return pinSlots(ctx, f.cfg.Guardians, id, names, fetch)
}

// PINSlots is Found.PINSlots for the backup of this device.
func (b *Backup) PINSlots(ctx context.Context) ([]PINSlot, error) {
	if err := b.begin(); err != nil {
		return nil, err
	}
	defer b.end()
	names := slices.DeleteFunc(slices.Clone(b.dev.slots), func(n seal.SlotName) bool { return n.Kind != string(slot.KindPIN) })
	return pinSlots(ctx, b.cfg.Guardians, guard.ID(b.dev.key.Backup()), names, func(n seal.SlotName) ([]byte, error) { return b.slotObject(ctx, n) })
}

func pinSlots(ctx context.Context, client *guard.Client, id guard.ID, names []seal.SlotName, fetch func(seal.SlotName) ([]byte, error)) ([]PINSlot, error) {
	if client == nil {
		return nil, errors.New("Config.Guardians is missing")
	}
	var list []PINSlot
	for _, n := range names[:min(len(names), maxPINSlots)] {
		s := PINSlot{ID: n.ID.String(), name: n}
		s.object, s.Err = fetch(n)
		if s.Err == nil {
			s.slot, s.Err = slot.ReadPIN(s.object, id)
		}
		if s.Err == nil {
			s.Servers, s.Threshold, s.Passphrase = s.slot.Servers(), s.slot.Threshold, s.slot.Passphrase != nil
			s.Standing, s.Err = client.Status(ctx, s.slot)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if s.Err != nil {
			s.Err = slotError(n, s.Err)
		}
		list = append(list, s)
	}
	slices.SortStableFunc(list, func(a, b PINSlot) int { return cmp.Compare(b.active(), a.active()) })
	return list, nil
}

// open spends one guess. With the keys the slot opened, and is this backup's.
func (s *PINSlot) open(ctx context.Context, client *guard.Client, pin, passphrase secret.Bytes) (*seal.Keys, *guard.Opened, error) {
	if s.Err != nil {
		return nil, nil, s.Err
	}
	r, err := client.Recover(s.slot, pin)
	if err != nil {
		return nil, nil, err
	}
	o, err := r.Open(ctx)
	if err != nil {
		return nil, nil, err
	}
	keys, err := seal.OpenSlot(s.object, slot.PINIdentity(o, passphrase))
	if err != nil {
		return nil, nil, slotError(s.name, err)
	}
	if guard.ID(keys.ID()) != s.slot.Backup {
		return nil, nil, slot.ErrOtherBackup
	}
	return keys, o, nil
}

// OpenPIN is Open with a PIN, and a passphrase if the slot asks for one. It costs one
// guess, which comes back when the backup opened; told says what each key server said
// then. Errors beside those of Open: *guard.WrongPINError, *guard.LockedError,
// guard.ErrErased, *guard.UnreachableError, *guard.LiarError, guard.ErrSlotDamaged.
func (f *Found) OpenPIN(ctx context.Context, s PINSlot, pin, passphrase secret.Bytes) (*Opened, []guard.Told, error) {
	r, warnings, err := f.reader(ctx)
	if err != nil {
		return nil, nil, err
	}
	f.cfg.progress(OpeningKey, "", 0, 0)
	client := f.cfg.Guardians
	keys, g, err := s.open(ctx, client, pin, passphrase)
	if err != nil {
		return nil, nil, fmt.Errorf("opening %s: %w", f.Folder, err)
	}
	told, err := g.Finish(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("opening %s: %w", f.Folder, err)
	}
	o, err := f.opened(ctx, r, warnings, keys, s.name)
	if err != nil {
		return nil, told, err
	}
	if slices.ContainsFunc(told, func(t guard.Told) bool { return errors.Is(t.Err, guard.ErrPending) }) {
		// Who set this PIN did not come back.
		epoch := o.state.name.Epoch
		left, err := g.Unsettled(ctx, public(keys.Owner()), epoch, public(keys.Head(epoch)))
		if err == nil {
			_, err = client.Settle(ctx, left)
		}
		if err != nil {
			o.preview.Warnings = append(o.preview.Warnings, fmt.Sprintf("the key servers do not know all of this PIN yet, set it anew: %v", err))
		}
	}
	return o, told, nil
}

// UnlockPIN is Unlock with a PIN. Errors and told as for Found.OpenPIN.
func (b *Backup) UnlockPIN(ctx context.Context, s PINSlot, pin, passphrase secret.Bytes) (*Owner, []guard.Told, error) {
	if err := b.begin(); err != nil {
		return nil, nil, err
	}
	defer b.end()
	keys, g, err := s.open(ctx, b.cfg.Guardians, pin, passphrase)
	if err != nil {
		return nil, nil, err
	}
	if keys.ID() != b.dev.key.Backup() {
		return nil, nil, fmt.Errorf("%s: %w", s.name.Path(), ErrWrongWallet)
	}
	told, err := g.Finish(ctx)
	if err != nil {
		return nil, nil, err
	}
	return &Owner{b: b, keys: keys, slot: s.name}, told, nil
}
