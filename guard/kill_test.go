package guard_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/guardtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// device changes a PIN as docs/protocol.md says, with a journal and a cloud, and dies
// at a given step. A step is a write of the journal or of the cloud, or a request, which
// may die before it arrives and after it was answered.
type device struct {
	*world
	servers   []string // that are to guard
	threshold int
	by        func(old *guard.Slot) (guard.Authority, error)

	journal struct{ Plan, Settlement, Slot []byte }
	cloud   map[string][]byte // "old" and "new"

	mu    sync.Mutex // requests may go on after a call returned
	steps int        // guarded by mu
	dieAt int        // 0 for never; guarded by mu
}

var errKilled = errors.New("killed")

func (d *device) step() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dieAt == 0 {
		return nil
	}
	if d.steps++; d.steps >= d.dieAt {
		return errKilled // Whatever it tries from now on.
	}
	return nil
}

// dead reports whether it was killed.
func (d *device) dead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.steps >= d.dieAt
}

// comeBack makes it live for ever.
func (d *device) comeBack() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dieAt = 0
}

func (d *device) write(to *[]byte, v any) error {
	if err := d.step(); err != nil {
		return err
	}
	*to = nil
	if v != nil {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		*to = b
	}
	return d.step()
}

func (d *device) put(name string, b []byte) error {
	if err := d.step(); err != nil {
		return err
	}
	if d.cloud[name] = b; b == nil {
		delete(d.cloud, name)
	}
	return d.step()
}

const newPIN = "258013"

// change goes on where the journal says, to the end.
func (d *device) change() error {
	ctx := d.Context()
	if d.journal.Settlement == nil {
		if d.journal.Plan != nil { // It died before anything could be needed.
			var p guard.Plan
			if err := json.Unmarshal(d.journal.Plan, &p); err != nil {
				return err
			}
			if err := d.client.Abandon(ctx, &p); err != nil {
				return err
			}
			if err := d.write(&d.journal.Plan, nil); err != nil {
				return err
			}
		}
		if d.cloud["old"] == nil {
			return nil // It was done, but for a line in the journal.
		}
		old, err := guard.ParseSlot(d.cloud["old"])
		if err != nil {
			return err
		}
		by, err := d.by(old)
		if err != nil {
			return err
		}
		p, err := d.client.Replace(ctx, old, by, d.threshold, d.servers)
		if err != nil {
			return err
		}
		if err := d.write(&d.journal.Plan, p); err != nil {
			return err
		}
		slot, s, err := d.begin(p, newPIN, "")
		if err != nil {
			return err
		}
		// One record: the slot, what is to be told, and that the plan is done with.
		if err := d.step(); err != nil {
			return err
		}
		d.journal.Slot = slot.Bytes()
		if d.journal.Settlement, err = json.Marshal(s); err != nil {
			return err
		}
		d.journal.Plan = nil
		if err := d.step(); err != nil {
			return err
		}
	}
	if err := d.put("new", d.journal.Slot); err != nil {
		return err
	}
	var s guard.Settlement
	if err := json.Unmarshal(d.journal.Settlement, &s); err != nil {
		return err
	}
	for !s.Done() {
		left, err := d.client.Settle(ctx, &s)
		if errors.Is(err, guard.ErrGone) && len(left.First) > 0 {
			// It was away too long. The old PIN is as it was.
			if err := d.put("new", nil); err != nil {
				return err
			}
			if err := d.write(&d.journal.Settlement, nil); err != nil {
				return err
			}
			return d.change()
		}
		if err != nil {
			return err
		}
		s = *left
		if err := d.write(&d.journal.Settlement, left); err != nil {
			return err
		}
	}
	if err := d.put("old", nil); err != nil {
		return err
	}
	return d.write(&d.journal.Settlement, nil)
}

// opens reports which of the slots in the cloud open with their PINs.
func (d *device) opens() (list []string) {
	d.Helper()
	defer d.Undisturbed()()
	for name, pin := range map[string]string{"old": pin, "new": newPIN} {
		if d.cloud[name] == nil {
			continue
		}
		slot, err := guard.ParseSlot(d.cloud[name])
		d.must(err)
		o, err := d.open(slot, pin, "")
		if err != nil {
			continue
		}
		list = append(list, name)
		told, err := o.Finish(d.Context())
		d.must(err)
		for _, g := range told {
			if g.Err != nil && !errors.Is(g.Err, guard.ErrPending) && !errors.Is(g.Err, guard.ErrGone) {
				d.Errorf("finish of %s at %s: %v", name, g.Server, g.Err)
			}
		}
	}
	slices.Sort(list)
	return list
}

// A PIN is changed, and guardians are replaced, by a device that is killed at any step.
// At that moment, and after any time, the old or the new PIN opens. After it came back
// only the new one does, and the old slot with the old PIN is dead.
//
// One step of forty is tried, from a random one on; with SATCHEL_KILL=10 one of ten, and
// all with SATCHEL_KILL=all.
func TestKills(t *testing.T) {
	stride := 40
	switch choice := os.Getenv("SATCHEL_KILL"); choice {
	case "":
	case "all":
		stride = 1
	default:
		n, err := strconv.Atoi(choice)
		if err != nil || n < 1 {
			t.Fatalf("SATCHEL_KILL=%s", choice)
		}
		stride = n
	}
	type set struct {
		servers []int
		t       int
	}
	for name, c := range map[string]struct{ old, new set }{
		"PIN, 2 of 3":            {set{[]int{0, 1, 2}, 2}, set{[]int{0, 1, 2}, 2}},
		"PIN, 3 of 3":            {set{[]int{0, 1, 2}, 3}, set{[]int{0, 1, 2}, 3}},
		"one guardian, 3 of 3":   {set{[]int{0, 1, 2}, 3}, set{[]int{0, 1, 3}, 3}},
		"all guardians, 2 of 2":  {set{[]int{0, 1}, 2}, set{[]int{2, 3}, 2}},
		"1 of 1 becomes 2 of 3":  {set{[]int{0}, 1}, set{[]int{0, 1, 2}, 2}},
		"3 of 4 becomes 1 of 1":  {set{[]int{0, 1, 2, 3}, 3}, set{[]int{1}, 1}},
		"fewer and other, 2of 3": {set{[]int{0, 1, 2}, 2}, set{[]int{2, 3}, 2}},
	} {
		for _, owners := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, owner %v", name, owners), func(t *testing.T) {
				t.Parallel()
				// It is looked at once, or after the accounts that were not confirmed
				// are gone.
				kills := 0
				for dieAt := first(stride); ; dieAt += stride {
					waits := []time.Duration{0, 30 * 24 * time.Hour}
					if stride > 1 {
						waits = waits[kills%2:][:1]
					}
					killed := false
					for _, wait := range waits {
						killed = killAt(t, c.old.servers, c.old.t, c.new.servers, c.new.t, owners, dieAt, wait)
					}
					if !killed {
						break
					}
					kills++
				}
				if kills < 20/stride {
					t.Errorf("%d kills, too few", kills)
				}
			})
		}
	}
}

// first returns a random step to begin with.
func first(stride int) int { return 1 + rand.IntN(stride) }

// killAt reports whether the device was killed before it was done.
func killAt(t *testing.T, oldServers []int, oldT int, newServers []int, newT int, owners bool, dieAt int, wait time.Duration) bool {
	w := newWorld(t, 4)
	names := func(list []int) (s []string) {
		for _, i := range list {
			s = append(s, w.Names[i])
		}
		return s
	}
	old := w.enrolAt(oldT, names(oldServers), pin)
	d := &device{world: w, servers: names(newServers), threshold: newT, cloud: map[string][]byte{"old": old.Bytes()}, dieAt: dieAt}
	authority := guard.Owner(owner)
	if !owners {
		o, err := w.open(old, pin, "")
		w.must(err)
		w.finish(o)
		authority = o.Authority()
	}
	d.by = func(*guard.Slot) (guard.Authority, error) { return authority, nil }
	// Requests at once are put in order, so that a step is always the same.
	turn := make(chan struct{}, 1)
	w.Before(func(string, protocol.Request) error {
		turn <- struct{}{}
		if err := d.step(); err != nil {
			<-turn
			return err
		}
		return nil
	})
	w.After(func(_ string, _ protocol.Request, reply []byte) ([]byte, error) {
		defer func() { <-turn }()
		return reply, d.step()
	})
	err := d.change()
	killed := d.dead()
	if !killed && err != nil {
		t.Fatalf("not killed, and %v", err)
	}
	d.comeBack()
	w.Later(wait)
	if got := d.opens(); len(got) == 0 {
		t.Errorf("killed at step %d, %v later: nothing opens", dieAt, wait)
	}
	// It comes back.
	if err := d.change(); err != nil {
		t.Fatalf("killed at step %d: going on %v later: %v", dieAt, wait, err)
	}
	if got := d.opens(); len(got) != 1 || got[0] != "new" {
		t.Errorf("killed at step %d: in the end %v open", dieAt, got)
	}
	if o, err := w.open(old, pin, ""); err == nil {
		t.Errorf("killed at step %d: the old slot still opens: %v", dieAt, o.Slot().Backup)
	}
	slot, err := guard.ParseSlot(d.cloud["new"])
	w.must(err)
	list, err := w.client.Status(t.Context(), slot)
	w.must(err)
	for _, s := range list {
		if s.Err != nil || s.State != protocol.StateActive || s.Damaged {
			t.Errorf("killed at step %d: %s is %+v", dieAt, s.Server, s)
		}
	}
	return killed
}

// A device that enrolled anew dies for good between two confirms. Whoever restores with
// the new PIN brings it to its end.
func TestUnsettled(t *testing.T) {
	w := newWorld(t, 3)
	old := w.enrol(2, pin, "")
	p, err := w.client.Replace(t.Context(), old, guard.Owner(owner), 2, append(w.Names[:2:2], w.Add(t)))
	w.must(err)
	slot, s, err := w.begin(p, newPIN, "")
	w.must(err)
	w.Before(func(server string, r protocol.Request) error {
		if _, ok := r.Payload.(protocol.Confirm); ok && server == w.Names[1] {
			return errKilled
		}
		return nil
	})
	left, err := w.client.Settle(t.Context(), s)
	if !errors.Is(err, guard.ErrUnreachable) || len(left.First) != 0 || len(left.Then) != 1 || len(left.Drop) != 1 {
		t.Fatalf("got %+v, %v", left, err)
	}
	w.Before(nil)
	w.Later(30 * 24 * time.Hour)
	if _, err := w.client.Replace(t.Context(), slot, guard.Owner(owner), 1, w.Names[:1]); !errors.Is(err, guard.ErrPending) {
		t.Errorf("replacing what is pending: got %v", err)
	}
	o, err := w.open(slot, newPIN, "")
	w.must(err)
	told, err := o.Finish(t.Context())
	w.must(err)
	if told[0].Err != nil || !errors.Is(told[1].Err, guard.ErrPending) || told[2].Err != nil {
		t.Errorf("got %+v", told)
	}
	rest, err := o.Unsettled(t.Context(), public(owner), 1, headPublic(1))
	w.must(err)
	if len(rest.First) != 0 || len(rest.Then) != 1 {
		t.Errorf("got %+v", rest)
	}
	w.settle(rest)
	w.must(w.client.Delete(t.Context(), old, guard.Owner(owner)))
	o, err = w.open(slot, newPIN, "")
	w.must(err)
	w.finish(o)
	if _, err := w.open(old, pin, ""); !errors.Is(err, guard.ErrGone) {
		t.Errorf("the old slot: got %v", err)
	}
}

// An enrolment that is not settled changes nothing, and can be abandoned.
func TestAbandon(t *testing.T) {
	w := newWorld(t, 3)
	old := w.enrol(2, pin, "")
	p, err := w.client.Replace(t.Context(), old, guard.Owner(owner), 2, w.Names)
	w.must(err)
	e, err := w.client.Enrol(t.Context(), p, typed(newPIN), secret.Bytes{})
	w.must(err)
	if _, err := e.Settlement(public(owner), 1, headPublic(1)); err == nil {
		t.Error("settled before it is sealed")
	}
	w.must(w.client.Abandon(t.Context(), p))
	w.must(w.client.Abandon(t.Context(), p))
	o, err := w.open(old, pin, "")
	w.must(err)
	w.finish(o)

	// Whoever copied the slot meanwhile may have used up the guesses.
	p, err = guard.NewPlan(backup, 1, w.Names)
	w.must(err)
	slot, _, err := w.begin(p, newPIN, "")
	w.must(err)
	for range 12 {
		if _, err = w.open(slot, "0000", ""); errors.Is(err, guard.ErrErased) {
			break
		}
		w.Later(6 * time.Hour)
	}
	if !errors.Is(err, guard.ErrErased) {
		t.Fatalf("got %v", err)
	}
	w.must(w.client.Abandon(t.Context(), p))
}

// While one new guardian is away nothing of the old ones is ended.
func TestSettleWaits(t *testing.T) {
	w := newWorld(t, 4)
	old := w.enrolAt(2, w.Names[:2], pin)
	p, err := w.client.Replace(t.Context(), old, guard.Owner(owner), 2, w.Names[2:])
	w.must(err)
	_, s, err := w.begin(p, newPIN, "")
	w.must(err)
	w.Before(func(server string, _ protocol.Request) error {
		if server == w.Names[3] {
			return guardtest.ErrNetwork
		}
		return nil
	})
	left, err := w.client.Settle(t.Context(), s)
	if !errors.Is(err, guard.ErrUnreachable) || len(left.First) != 1 || len(left.Drop) != 2 {
		t.Errorf("got %+v, %v", left, err)
	}
	w.Later(30 * 24 * time.Hour)
	w.Before(nil)
	o, err := w.open(old, pin, "")
	w.must(err)
	w.finish(o)
	if _, err := w.client.Settle(t.Context(), left); !errors.Is(err, guard.ErrGone) {
		t.Errorf("after a month: got %v", err)
	}
}
