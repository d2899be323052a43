package satchel

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
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
	Old        []string          `json:"old,omitempty"`        // paths of the slots that it takes the place of
	Before     []guard.Step      `json:"before,omitempty"`     // what ends the accounts of Old that new ones take the place of
	Undo       []guard.Step      `json:"undo,omitempty"`       // what ends the accounts of Plan
	Ending     []guard.Step      `json:"ending,omitempty"`     // accounts of earlier PINs that are still to be ended
	Lost       []string          `json:"lost,omitempty"`       // key servers that lost their account of this PIN before it was confirmed
	Tried      time.Time         `json:"tried,omitzero"`       // when ending them failed last
	Undone     bool              `json:"undone,omitempty"`     // the last change was given up, because too many did
}

// ending returns the steps that end what nobody needs once the new PIN counts. Where the
// account of the new one was lost, the one that it was to end is still there.
func (r *pinRecord) ending(lost []string) []guard.Step {
	steps := slices.Concat(r.Ending, r.Settlement.Drop)
	for _, s := range r.Before {
		if slices.Contains(lost, s.Server) {
			steps = append(steps, s)
		}
	}
	return steps
}

// settleTime bounds how long a Save waits for key servers that are to be told of a PIN.
const settleTime = 30 * time.Second

// endingPause is how long a Save does not try again to end accounts at key servers that
// did not answer.
const endingPause = 10 * time.Minute

// maxEnding bounds how many accounts are to be ended; the oldest are given up then.
const maxEnding = 100

// SetPIN makes a PIN a way into the backup, in the place of one that was set before: a
// secret is shared among key servers, the slot is sealed, opened again to prove it,
// journalled, and brought to the places; then the servers are told, and the old slot
// goes. At every moment the old PIN or the new one opens. What a crash or a server that is
// away leaves undone the next Save goes on with (Status.PINPending). Errors: those of
// guard, and as for Save.
func (o *Owner) SetPIN(ctx context.Context, p PINPlan) (SlotInfo, error) {
	b := o.b
	if err := b.begin(ctx); err != nil {
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
		return info, errNoGuardians
	}
	looks, err := b.look(ctx)
	if err != nil {
		return info, err
	}
	if err := b.abandonPIN(ctx); err != nil {
		return info, fmt.Errorf("what was begun before cannot be put away: %w", err)
	}
	if d.pin.Plan != nil {
		b.pinNext = time.Time{}
		if err := b.sync(ctx, looks); err != nil {
			return info, err
		}
		if d.pin.Plan != nil {
			if err := o.concludePIN(ctx); err != nil {
				return info, fmt.Errorf("an earlier change: %w", err)
			}
		}
	}
	if len(d.slots) >= seal.MaxSlots {
		return info, fmt.Errorf("there are %d slots already", len(d.slots))
	}
	r := pinRecord{Ending: d.pin.Ending}
	if err := o.planPIN(ctx, p, &r); err != nil {
		return info, err
	}
	n, err := b.enrol(ctx, o.keys, r, p)
	if err != nil {
		return info, err
	}
	slots := append(slices.Clone(d.slots), n)
	if err := b.commitChanges(o.keys, nil, &slots, []string{n.Path()}); err != nil {
		return info, errors.Join(err, b.abandonPIN(ctx))
	}
	info = SlotInfo{Kind: slot.KindPIN, ID: n.ID.String()}
	err = b.sync(ctx, looks)
	if err == nil && d.pin.Plan != nil {
		err = fmt.Errorf("the slot is in its places, and not all key servers know of it yet; saving goes on with it: %w", guard.ErrPending)
	}
	return info, err
}

// enrol makes the accounts and the slot of a PIN as planned, on this device. The slot is
// then to be committed; after an error there is nothing.
func (b *Backup) enrol(ctx context.Context, keys *seal.Keys, r pinRecord, p PINPlan) (seal.SlotName, error) {
	var n seal.SlotName
	r.Undo = guard.Abandoning(r.Plan, guard.Owner(keys.Owner()))
	// Before any account is made, so that it is found again.
	if err := b.recordPIN(r); err != nil {
		return n, err
	}
	b.pinNext, b.pinPause = time.Time{}, 0
	e, err := b.cfg.Guardians.Enrol(ctx, r.Plan, p.PIN, p.Passphrase)
	if err == nil {
		n, err = b.proveSlot(keys, slot.KindPIN, slot.PINRecipient(e), slot.EnrolledPIN(e))
	}
	if err == nil {
		r.Slot = n.Path()
		epoch := b.dev.key.Epoch()
		r.Settlement, err = e.Settlement(public(keys.Owner()), epoch, public(keys.Head(epoch)))
	}
	if err == nil {
		err = b.recordPIN(r)
	}
	if err != nil {
		err = errors.Join(err, b.abandonPIN(ctx))
	}
	return n, err
}

// firstPIN enrols the PIN of a backup that is being made.
func (b *Backup) firstPIN(ctx context.Context, keys *seal.Keys, p PINPlan) (n seal.SlotName, err error) {
	if b.cfg.Guardians == nil {
		return n, errNoGuardians
	}
	var r pinRecord
	if r.Plan, err = guard.NewPlan(guard.ID(keys.ID()), p.Threshold, p.Servers); err != nil {
		return n, err
	}
	return b.enrol(ctx, keys, r, p)
}

var errNoGuardians = errors.New("Config.Guardians is missing")

// concludePIN ends a change of the PIN of which a key server could not be told, so that
// another one can begin: one that is gone for good must not be in the way for ever. The
// slot of which enough accounts are known to be there stays.
func (o *Owner) concludePIN(ctx context.Context) error {
	b := o.b
	r := b.dev.pin
	fresh, err := b.readPIN(ctx, r.Slot)
	if err != nil {
		return err
	}
	open := slices.Concat(r.Settlement.First, r.Settlement.Then)
	if len(fresh.Guardians)-len(r.Lost)-len(open) >= fresh.Threshold {
		concluded := pinRecord{Lost: slices.Clone(r.Lost)}
		for _, s := range open {
			concluded.Lost = append(concluded.Lost, s.Server)
		}
		concluded.Ending = r.ending(concluded.Lost)
		// If we crash from here on, an old slot may be gone for good. What ends its accounts
		// is in the record since the change was planned.
		for _, path := range r.Old {
			if err := b.dropSlot(path); err != nil {
				return err
			}
		}
		b.change(func() { b.dev.anchor = anchor{} })
		return b.recordPIN(concluded)
	}
	opens := slices.ContainsFunc(b.dev.slots, func(n seal.SlotName) bool { return !isPIN(n) })
	for _, path := range r.Old {
		old, err := b.readPIN(ctx, path)
		if err != nil {
			continue
		}
		list, err := b.cfg.Guardians.Status(ctx, old)
		if err != nil {
			return err
		}
		active := 0
		for i := range list {
			if list[i].Err == nil && list[i].State == protocol.StateActive {
				active++
			}
		}
		opens = opens || active >= old.Threshold
	}
	if !opens {
		return guard.ErrPending
	}
	if err := b.dropSlot(r.Slot); err != nil {
		return err
	}
	return b.recordPIN(pinRecord{Ending: slices.Concat(r.Ending, r.Undo), Undone: true})
}

// readPIN reads a PIN slot by its path.
func (b *Backup) readPIN(ctx context.Context, path string) (*guard.Slot, error) {
	n, ok := seal.ParseSlotPath(path)
	if !ok {
		return nil, seal.ErrDamaged
	}
	data, err := b.slotObject(ctx, n)
	if err != nil {
		return nil, err
	}
	return slot.ReadPIN(data, guard.ID(b.dev.key.Backup()))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// isPIN reports whether a slot is one of a PIN.
func isPIN(n seal.SlotName) bool { return n.Kind == string(slot.KindPIN) }

// planPIN plans the enrolment, in the place of the PIN slots that there are: usually one,
// two if a device died while it changed the PIN.
func (o *Owner) planPIN(ctx context.Context, p PINPlan, r *pinRecord) (err error) {
	b := o.b
	names := slices.DeleteFunc(slices.Clone(b.dev.slots), func(n seal.SlotName) bool { return !isPIN(n) })
	list, err := pinSlots(ctx, b.cfg.Guardians, guard.ID(b.dev.key.Backup()), names, func(n seal.SlotName) ([]byte, error) { return b.slotObject(ctx, n) })
	if err != nil {
		return err
	}
	by := guard.Owner(o.keys.Owner())
	for _, s := range list {
		r.Old = append(r.Old, s.name.Path())
		switch {
		case s.slot == nil:
			// Nobody can say any more which accounts it had.
			b.cfg.Logger.Warn("the PIN slot that is replaced cannot be read", "slot", s.name.Path(), "err", s.Err)
		case r.Plan == nil:
			if r.Plan, err = b.cfg.Guardians.Replace(ctx, s.slot, by, p.Threshold, p.Servers); err != nil {
				return err
			}
			r.Before = guard.Ending(s.slot, by)
		default:
			r.Plan.Drop = append(r.Plan.Drop, guard.Ending(s.slot, by)...) // When all is done.
		}
	}
	if r.Plan == nil {
		r.Plan, err = guard.NewPlan(guard.ID(b.dev.key.Backup()), p.Threshold, p.Servers)
	}
	return err
}

// recordPIN makes durable how far a change of the PIN is.
func (b *Backup) recordPIN(r pinRecord) error {
	r.Ending = r.Ending[max(0, len(r.Ending)-maxEnding):]
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
		return errNoGuardians
	}
	// One that is gone for good must not be in the way of the next change.
	r = pinRecord{Ending: slices.Concat(r.Ending, r.Undo)}
	if err := b.recordPIN(r); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, anchorTime)
	defer cancel()
	left, err := b.cfg.Guardians.Settle(ctx, &guard.Settlement{Drop: r.Ending})
	if err != nil {
		b.cfg.Logger.Warn("key servers have accounts of a PIN that is not to be", "err", err)
	}
	r.Ending, r.Tried = left.Drop, b.cfg.Now()
	return b.recordPIN(r)
}

// settlePIN tells the key servers of a slot that enough places hold, then takes the old
// slots out, and ends the accounts of earlier PINs. It reports whether there is something
// new for the places or the key servers. What fails is tried again with a later Save.
func (b *Backup) settlePIN(ctx context.Context) (again bool) {
	r := b.dev.pin
	listed := slices.ContainsFunc(b.dev.slots, func(n seal.SlotName) bool { return n.Path() == r.Slot })
	settling := r.Settlement != nil && listed // Otherwise SetPIN puts it away.
	if b.cfg.Guardians == nil || !settling && len(r.Ending) == 0 || b.pinNext.After(time.Now()) {
		return false
	}
	limit := settleTime
	if !settling { // Nobody waits for that.
		if since := b.cfg.Now().Sub(r.Tried); !b.asked && since >= 0 && since < endingPause {
			return false
		}
		limit = anchorTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	pause := b.pinPause
	b.pinPause = 0
	wait := func(text string, err error) {
		b.cfg.Logger.Warn(text, "err", err)
		b.pinPause = min(max(2*pause, minAnchorPause), maxAnchorPause)
		b.pinNext = time.Now().Add(b.pinPause)
	}
	if settling {
		out, done, err := b.confirmPIN(ctx, &r)
		if !done {
			wait("the key servers do not know all of the new PIN", err)
			if err := b.recordPIN(r); err != nil {
				b.cfg.Logger.Warn("recording how far the PIN is", "err", err)
			}
			return false
		}
		// If we crash from here on, this is done again.
		for _, path := range out {
			if err := b.dropSlot(path); err != nil {
				b.cfg.Logger.Warn("taking a PIN slot out", "slot", path, "err", err)
				return false
			}
		}
		settled := pinRecord{Ending: r.ending(r.Lost), Lost: r.Lost, Undone: slices.Contains(out, r.Slot)}
		if settled.Undone {
			settled.Ending = slices.Concat(r.Ending, r.Undo)
		}
		if err := b.recordPIN(settled); err != nil {
			b.cfg.Logger.Warn("recording that the PIN is set", "err", err)
			return false
		}
		b.change(func() { b.dev.anchor = anchor{} }) // New accounts have no head.
		r, again = b.dev.pin, true
	}
	if len(r.Ending) > 0 {
		left, err := b.cfg.Guardians.Settle(ctx, &guard.Settlement{Drop: r.Ending})
		if !left.Done() {
			wait("key servers still have accounts of an earlier PIN", err)
		}
		if len(left.Drop) > 0 || len(left.Drop) < len(r.Ending) {
			r.Ending, r.Tried = left.Drop, b.cfg.Now()
			if err := b.recordPIN(r); err != nil {
				b.cfg.Logger.Warn("recording which accounts ended", "err", err)
			}
		}
	}
	return again
}

// confirmPIN tells the key servers of a new PIN, and brings r to what is left. When it is
// done, out are the slots that are to be taken out: the old ones; or the new one, if too
// few key servers have an account for it any more and the old ones open.
func (b *Backup) confirmPIN(ctx context.Context, r *pinRecord) (out []string, done bool, err error) {
	fresh, err := b.readPIN(ctx, r.Slot)
	if err != nil {
		return nil, false, err
	}
	// Another device may have taken over, and live from the accounts that would end.
	opens := slices.ContainsFunc(b.dev.slots, func(n seal.SlotName) bool { return !isPIN(n) }) // without the new one
	spare := 0                                                                                 // accounts of the old one that may end while it still opens
	for _, path := range r.Old {
		old, err := b.readPIN(ctx, path)
		if err != nil {
			continue // It opens nothing, here at least.
		}
		list, err := b.cfg.Guardians.Status(ctx, old)
		if err != nil {
			return nil, false, err
		}
		alive, further, there := 0, 0, 0
		for i := range list {
			if st := &list[i]; st.Err == nil && st.State == protocol.StateActive {
				there++
				if st.Epoch > b.dev.key.Epoch() {
					further++
				}
			}
			if !errors.Is(list[i].Err, guard.ErrGone) {
				alive++
			}
		}
		if further > 0 && 2*further >= there {
			return nil, false, fmt.Errorf("%w: the key servers of the PIN before know a later epoch", ErrOtherDevice)
		}
		opens = opens || alive >= old.Threshold
		spare = max(spare, alive-old.Threshold)
	}
	var gone []guard.Step
	left := *r.Settlement
	var lost []guard.Step
	left.First, lost, err = b.confirm(ctx, left.First)
	gone = append(gone, lost...)
	if len(left.First) == 0 && r.between(fresh, spare, len(gone)) {
		var waitErr error
		left.Then, lost, waitErr = b.allAnswer(ctx, fresh, left.Then)
		if gone = append(gone, lost...); waitErr != nil {
			return nil, false, errors.Join(err, waitErr)
		}
	}
	if len(left.First) == 0 && len(fresh.Guardians)-len(r.Lost)-len(gone) >= fresh.Threshold {
		var thenErr error
		left.Then, lost, thenErr = b.confirm(ctx, left.Then)
		gone, err = append(gone, lost...), errors.Join(err, thenErr)
	}
	for _, s := range gone {
		r.Lost = append(r.Lost, s.Server)
	}
	r.Settlement = &left
	if len(fresh.Guardians)-len(r.Lost) < fresh.Threshold {
		// The new slot opens nothing.
		if opens {
			return []string{r.Slot}, true, err
		}
		return nil, false, errors.Join(err, guard.ErrGone)
	}
	return r.Old, len(left.First)+len(left.Then) == 0, err
}

// between reports whether neither PIN would have as many accounts as open it, if only some
// of those are confirmed that end one of the old PIN: 2 of 2 servers are such a case, 2 of
// 3 are not. spare is how many the old one can do without, gone how many were lost just now.
// Once one is confirmed the others had better be, too.
func (r *pinRecord) between(fresh *guard.Slot, spare, gone int) bool {
	then := len(r.Settlement.Then)
	for _, a := range r.Plan.Accounts {
		if len(a.Replaces) > 0 && !slices.Contains(r.Lost, a.Server) {
			then--
		}
	}
	if then < 0 {
		return false // One is confirmed.
	}
	rest := len(fresh.Guardians) - len(r.Lost) - gone - len(r.Settlement.Then) // confirmed
	for some := 1; some < len(r.Settlement.Then); some++ {
		if rest+some < fresh.Threshold && some > spare {
			return true
		}
	}
	return false
}

// allAnswer returns the steps whose accounts are there, and those whose account is gone. It
// returns an error if a key server does not answer: who has the slots, as the cloud does,
// can end what is not confirmed, so no time should pass between the first and the last.
func (b *Backup) allAnswer(ctx context.Context, s *guard.Slot, steps []guard.Step) (left, gone []guard.Step, err error) {
	list, err := b.cfg.Guardians.Status(ctx, s)
	if err != nil {
		return steps, nil, err
	}
	var errs []error
	for _, step := range steps {
		i := slices.IndexFunc(list, func(st guard.Standing) bool { return st.Server == step.Server })
		switch {
		case i >= 0 && errors.Is(list[i].Err, guard.ErrGone):
			gone = append(gone, step)
			continue
		case i >= 0 && list[i].Err != nil:
			errs = append(errs, fmt.Errorf("no key server is told before all of them answer: key server %s: %w", step.Server, list[i].Err))
		}
		left = append(left, step)
	}
	return left, gone, errors.Join(errs...)
}

// confirm takes steps, all at once, and returns those that are left, and those whose
// account is gone: it expired, or whoever has the slot ended it.
func (b *Backup) confirm(ctx context.Context, steps []guard.Step) (left, gone []guard.Step, err error) {
	errs := make([]error, len(steps))
	var wg sync.WaitGroup
	for i := range steps {
		wg.Go(func() {
			_, errs[i] = b.cfg.Guardians.Settle(ctx, &guard.Settlement{First: steps[i : i+1]})
		})
	}
	wg.Wait()
	for i, err := range errs {
		switch {
		case errors.Is(err, guard.ErrGone):
			gone = append(gone, steps[i])
		case err != nil:
			left = append(left, steps[i])
		}
	}
	return left, gone, errors.Join(errs...)
}

// opensAlone returns nil if one of some slots is a way in that needs nothing else, or is a
// PIN whose key servers say that it can be tried: only then others may go.
func (b *Backup) opensAlone(ctx context.Context, slots []seal.SlotName) error {
	var pins []seal.SlotName
	for _, n := range slots {
		switch _, err := b.sealed(ctx, n.Path()); {
		case err != nil:
		case !isPIN(n):
			return nil
		case b.dev.pin.Plan == nil || n.Path() != b.dev.pin.Slot: // That one may not come about.
			pins = append(pins, n)
		}
	}
	if len(pins) == 0 {
		return errNoOtherWay
	}
	list, err := pinSlots(ctx, b.cfg.Guardians, guard.ID(b.dev.key.Backup()), pins, func(n seal.SlotName) ([]byte, error) { return b.slotObject(ctx, n) })
	if err != nil {
		return err
	}
	var errs []error
	for i := range list {
		err := list[i].Usable(b.cfg.Now())
		if err == nil || errors.Is(err, guard.ErrLocked) {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("the PIN does not open it: %w", errors.Join(errs...))
}

var errNoOtherWay = errors.New("add another way in first")

// mayRemovePIN returns an error if a slot may not be removed now because a PIN is being
// changed: parts of the two PINs stand for each other.
func (b *Backup) mayRemovePIN(n seal.SlotName) error {
	r := b.dev.pin
	if r.Plan == nil || !isPIN(n) {
		return nil
	}
	if n.Path() == r.Slot && slices.ContainsFunc(b.dev.slots, func(n seal.SlotName) bool { return !isPIN(n) }) {
		return nil
	}
	return fmt.Errorf("it is being changed, and key servers are still to be told: %w", guard.ErrPending)
}

// endPIN makes the accounts of a PIN slot end: now, or where a key server is away with a
// later Save. The error names those that are away, if they are as many as open the slot.
func (o *Owner) endPIN(ctx context.Context, n seal.SlotName) error {
	b := o.b
	r := b.dev.pin
	if r.Slot == n.Path() {
		r = pinRecord{Ending: r.Ending}
	}
	r.Lost, r.Undone = nil, false
	data, err := b.slotObject(ctx, n)
	var s *guard.Slot
	if err == nil {
		s, err = slot.ReadPIN(data, guard.ID(b.dev.key.Backup()))
	}
	if err != nil {
		b.cfg.Logger.Warn("the PIN slot that is removed cannot be read", "slot", n.Path(), "err", err)
		return b.recordPIN(r)
	}
	if b.cfg.Guardians == nil {
		return errNoGuardians
	}
	ending := guard.Ending(s, guard.Owner(o.keys.Owner()))
	r.Ending = append(slices.Clone(r.Ending), ending...)
	if err := b.recordPIN(r); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	left, endErr := b.cfg.Guardians.Settle(ctx, &guard.Settlement{Drop: ending})
	r.Ending = append(r.Ending[:len(r.Ending)-len(ending):len(r.Ending)-len(ending)], left.Drop...)
	if err := b.recordPIN(r); err != nil {
		return err
	}
	if len(left.Drop) >= s.Threshold {
		return fmt.Errorf("a copy of the slot still opens with the PIN, until the key servers can be told: %w", endErr)
	}
	return nil
}

// pinsEnd returns the steps that end the accounts of all PIN slots. It asks nobody but
// the places.
func (o *Owner) pinsEnd(ctx context.Context) []guard.Step {
	b := o.b
	steps := slices.Clone(b.dev.pin.Ending)
	for _, n := range b.dev.slots {
		if !isPIN(n) || o.keys == nil {
			continue
		}
		data, err := b.slotObject(ctx, n)
		var s *guard.Slot
		if err == nil {
			s, err = slot.ReadPIN(data, guard.ID(b.dev.key.Backup()))
		}
		if err != nil {
			b.cfg.Logger.Warn("a PIN slot that goes cannot be read", "slot", n.Path(), "err", err)
			continue
		}
		steps = append(steps, guard.Ending(s, guard.Owner(o.keys.Owner()))...)
	}
	return steps
}

// inheritPINs makes the accounts of an old backup's PINs end, now or with a later Save of
// this one, which takes its place.
func (b *Backup) inheritPINs(ctx context.Context, old *Owner) error {
	steps := old.pinsEnd(ctx)
	if err := b.begin(ctx); err != nil {
		return err
	}
	defer b.end()
	return b.endLater(ctx, steps)
}

// endLater makes accounts end, now or with a later Save.
func (b *Backup) endLater(ctx context.Context, steps []guard.Step) error {
	if len(steps) == 0 {
		return nil
	}
	r := b.dev.pin
	r.Ending = slices.Concat(r.Ending, steps)
	if err := b.recordPIN(r); err != nil {
		return err
	}
	b.pinNext = time.Time{}
	b.settlePIN(ctx)
	return nil
}

// endPINs ends the accounts of all PINs of a backup that is deleted, and returns the key
// servers that could not be told.
func (o *Owner) endPINs(ctx context.Context) []string {
	steps := o.pinsEnd(ctx)
	if len(steps) == 0 || o.b.cfg.Guardians == nil {
		return ending(steps)
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	left, err := o.b.cfg.Guardians.Settle(ctx, &guard.Settlement{Drop: steps})
	if err != nil {
		o.b.cfg.Logger.Warn("key servers keep accounts of a backup that is deleted", "err", err)
	}
	return ending(left.Drop)
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
	entry  *pinEntry
}

// pinEntry is the PIN that was typed last: the same one again costs no other guess, when
// key servers were away, or the passphrase was mistyped.
type pinEntry struct {
	mu       sync.Mutex
	key      secret.Bytes // random
	sum      []byte       // of the PIN, under key
	recovery *guard.Recovery
	opened   *guard.Opened // nil unless the PIN was right
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

// Usable returns nil if the PIN can be tried now, as far as the key servers say. Errors:
// Err, a *guard.LockedError, guard.ErrErased, guard.ErrGone, guard.ErrSlotDamaged, a
// *guard.UnreachableError.
func (s *PINSlot) Usable(now time.Time) error {
	if s.Err != nil {
		return s.Err
	}
	var until []time.Time // when each that answers may be asked
	var failures []guard.Failure
	facts := map[error]int{}
	for i := range s.Standing {
		st := &s.Standing[i]
		err := st.Err
		switch {
		case errors.Is(err, guard.ErrGone):
			facts[guard.ErrGone]++
		case err != nil:
		case st.State == protocol.StateErased || st.Left == 0:
			err = guard.ErrErased
			facts[err]++
		case st.Damaged && st.State == protocol.StateActive:
			err = guard.ErrSlotDamaged
			facts[err]++
		default:
			at := now
			if st.Until > st.Now { // By its own clock: that of this device may be wrong.
				at = now.Add(time.Duration(st.Until-st.Now) * time.Millisecond)
			}
			until = append(until, at)
			continue
		}
		failures = append(failures, guard.Failure{Server: st.Server, Err: err})
	}
	n := len(s.Standing)
	if len(until) >= s.Threshold {
		slices.SortFunc(until, time.Time.Compare)
		if at := until[s.Threshold-1]; at.After(now) {
			return &guard.LockedError{Until: at, GuessesLeft: s.Guesses()}
		}
		return nil
	}
	for _, fact := range []error{guard.ErrErased, guard.ErrSlotDamaged, guard.ErrGone} {
		if facts[fact] > n-s.Threshold {
			return fact
		}
	}
	return &guard.UnreachableError{Need: s.Threshold, Reached: len(until), Of: n, Failures: failures}
}

// Guesses is how many guesses are left, as far as the key servers say: so many at enough
// of them.
func (s *PINSlot) Guesses() int {
	var left []int
	for i := range s.Standing {
		if st := &s.Standing[i]; st.Err == nil && st.State != protocol.StateErased {
			left = append(left, int(st.Left))
		}
	}
	if len(left) < s.Threshold || s.Threshold == 0 {
		return 0
	}
	slices.Sort(left)
	return left[len(left)-s.Threshold]
}

// Guardians names the key servers that guard the PIN, in their order; nil if there is no
// PIN. It asks nobody.
func (b *Backup) Guardians() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var servers []string
	for _, n := range b.dev.slots {
		if !isPIN(n) {
			continue
		}
		data, err := b.dev.object(n.Hash)
		if err != nil {
			continue
		}
		if s, err := slot.ReadPIN(data, guard.ID(b.dev.key.Backup())); err == nil {
			for _, name := range s.Servers() {
				if !slices.Contains(servers, name) {
					servers = append(servers, name)
				}
			}
		}
	}
	return servers
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
	names := r.slots(isPIN)
	fetch := func(n seal.SlotName) ([]byte, error) { return r.fetch(ctx, n.Path(), seal.MaxSlot) }
	return pinSlots(ctx, f.cfg.Guardians, id, names, fetch)
}

// PINSlots is Found.PINSlots for the backup of this device.
func (b *Backup) PINSlots(ctx context.Context) ([]PINSlot, error) {
	if err := b.begin(ctx); err != nil {
		return nil, err
	}
	id := guard.ID(b.dev.key.Backup())
	names := slices.DeleteFunc(slices.Clone(b.dev.slots), func(n seal.SlotName) bool { return !isPIN(n) })
	objects, errs := make([][]byte, len(names)), make([]error, len(names))
	for i, n := range names {
		objects[i], errs[i] = b.slotObject(ctx, n)
	}
	b.end() // Nobody waits while the key servers are asked.
	return pinSlots(ctx, b.cfg.Guardians, id, names, func(n seal.SlotName) ([]byte, error) {
		i := slices.Index(names, n)
		return objects[i], errs[i]
	})
}

func pinSlots(ctx context.Context, client *guard.Client, id guard.ID, names []seal.SlotName, fetch func(seal.SlotName) ([]byte, error)) ([]PINSlot, error) {
	if client == nil {
		return nil, errNoGuardians
	}
	var list []PINSlot
	for _, n := range names[:min(len(names), maxPINSlots)] {
		s := PINSlot{ID: n.ID.String(), name: n, entry: &pinEntry{key: secret.Random(32)}}
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
	o, err := s.entry.open(ctx, client, s, pin)
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

// open recovers what the PIN guards. Before a guess is spent it asks whether enough key
// servers are there to make it worth something.
func (e *pinEntry) open(ctx context.Context, client *guard.Client, s *PINSlot, pin secret.Bytes) (*guard.Opened, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	mac := hmac.New(sha256.New, e.key.Open())
	mac.Write(pin.Open())
	sum := mac.Sum(nil)
	if e.recovery == nil || !hmac.Equal(sum, e.sum) {
		now := *s
		if now.Standing, now.Err = client.Status(ctx, s.slot); now.Err == nil {
			now.Err = now.Usable(time.Now())
		}
		if now.Err != nil {
			return nil, now.Err
		}
		r, err := client.Recover(s.slot, pin)
		if err != nil {
			return nil, err
		}
		e.recovery, e.opened, e.sum = r, nil, sum
	}
	if e.opened != nil {
		return e.opened, nil
	}
	o, err := e.recovery.Open(ctx)
	if errors.Is(err, guard.ErrWrongPIN) {
		e.recovery = nil // That was its guess.
	}
	e.opened = o
	return o, err
}

// finish gives the guesses back. Who lied, and was not needed, is named in what it returns.
func (s *PINSlot) finish(ctx context.Context, g *guard.Opened) ([]guard.Told, error) {
	told, err := g.Finish(ctx)
	for i := range told {
		if t := &told[i]; t.Err == nil && slices.Contains(g.Liars(), t.Server) {
			t.Err = guard.ErrLie
		}
	}
	return told, err
}

// OpenPIN is Open with a PIN, and a passphrase if the slot asks for one. It costs one
// guess, which comes back when the backup opened; told says what each key server said
// then, and guard.ErrLie of one that had lied before. Errors beside those of Open: *guard.WrongPINError, *guard.LockedError,
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
	told, err := s.finish(ctx, g)
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
	o.deadPINs(ctx)
	return o, told, nil
}

// deadPINs finds the PIN slots, beside the one that opened, that open nothing any more: a
// device died while it changed the PIN. Who restores takes them out.
func (o *Opened) deadPINs(ctx context.Context) {
	for _, n := range o.state.slots {
		if !isPIN(n) || n == o.used {
			continue
		}
		data, err := o.reader.fetch(ctx, n.Path(), seal.MaxSlot)
		if err != nil {
			continue
		}
		s, err := slot.ReadPIN(data, guard.ID(o.keys.ID()))
		if err != nil {
			continue
		}
		list, err := o.found.cfg.Guardians.Status(ctx, s)
		if err != nil {
			continue
		}
		left := 0
		for i := range list {
			if !errors.Is(list[i].Err, guard.ErrGone) {
				left++
			}
		}
		if left < s.Threshold {
			o.dead = append(o.dead, n)
			o.ending = append(o.ending, guard.Ending(s, guard.Owner(o.keys.Owner()))...)
		}
	}
}

// DrillPIN is Drill with a PIN. Errors and told as for Found.OpenPIN.
func (b *Backup) DrillPIN(ctx context.Context, s PINSlot, pin, passphrase secret.Bytes) (Report, []guard.Told, error) {
	keys, g, err := s.open(ctx, b.cfg.Guardians, pin, passphrase)
	if err != nil {
		return Report{}, nil, err
	}
	told, err := s.finish(ctx, g)
	if err != nil {
		return Report{}, told, err
	}
	if err := b.begin(ctx); err != nil {
		return Report{}, told, err
	}
	defer b.end()
	r, err := b.drill(ctx, func(f *Found) (*Opened, error) { return f.openWithKeys(ctx, keys, s.name, s.object) })
	return r, told, err
}

// openWithKeys is Open for who has the keys already, from a slot that must be there.
func (f *Found) openWithKeys(ctx context.Context, keys *seal.Keys, used seal.SlotName, object []byte) (*Opened, error) {
	r, warnings, err := f.reader(ctx)
	if err != nil {
		return nil, err
	}
	data, err := r.fetch(ctx, used.Path(), seal.MaxSlot)
	if err == nil && object != nil && !bytes.Equal(data, object) {
		err = seal.ErrDamaged
	}
	if err != nil {
		return nil, slotError(used, err)
	}
	return f.opened(ctx, r, warnings, keys, used)
}

// UnlockPIN is Unlock with a PIN. Errors and told as for Found.OpenPIN.
func (b *Backup) UnlockPIN(ctx context.Context, s PINSlot, pin, passphrase secret.Bytes) (*Owner, []guard.Told, error) {
	keys, g, err := s.open(ctx, b.cfg.Guardians, pin, passphrase)
	if err != nil {
		return nil, nil, err
	}
	if err := b.begin(ctx); err != nil {
		return nil, nil, err
	}
	ours := keys.ID() == b.dev.key.Backup()
	b.end()
	if !ours {
		return nil, nil, fmt.Errorf("%s: %w", s.name.Path(), ErrWrongWallet)
	}
	told, err := s.finish(ctx, g)
	if err != nil {
		return nil, told, err
	}
	return &Owner{b: b, keys: keys, slot: s.name}, told, nil
}
