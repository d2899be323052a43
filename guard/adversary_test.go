package guard_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/protocol"
)

// A slot in which any one bit is another is refused, without a guess, and before
// anything leaves that depends on the PIN: a blinded element is random, but a request
// for a proof and a finish are not, and neither is sent.
//
// One bit of 97 is tried, from a random one on; all with SATCHEL_BITS=all.
func TestEveryBit(t *testing.T) {
	stride := 97
	if os.Getenv("SATCHEL_BITS") == "all" {
		stride = 1
	}
	w := newWorld(t, 3)
	slot := w.enrol(2, pin, "Zanzibar")
	names := slices.Clone(w.Names)
	w.client.Trusted = func(s string) bool { return slices.Contains(names, s) }
	var mu sync.Mutex
	told := 0 // what depends on the PIN
	w.Before(func(_ string, r protocol.Request) error {
		mu.Lock()
		defer mu.Unlock()
		if e, ok := r.Payload.(protocol.Evaluate); ok && e.WithProof == 1 {
			told++
		}
		if _, ok := r.Payload.(protocol.Finish); ok {
			told++
		}
		return nil
	})
	whole := slot.Bytes()
	seen := map[string]int{}
	var b [1]byte
	rand.Read(b[:])
	for bit := int(b[0]) % stride; bit < 8*len(whole); bit += stride {
		forged := slices.Clone(whole)
		forged[bit/8] ^= 1 << (bit % 8)
		s, err := guard.ParseSlot(forged)
		if err == nil {
			if s.PIN.Memory > 64<<10 || s.Passphrase.Memory > 64<<10 {
				// What it asks for is bounded, and takes seconds: one of these bits is enough
				// to see that it is no other case than the rest.
				s.PIN.Memory, s.Passphrase.Memory = min(s.PIN.Memory, 9<<10), min(s.Passphrase.Memory, 9<<10)
			}
			_, err = w.open(s, pin, "Zanzibar")
		}
		_, unknown := errors.AsType[*guard.UnknownError](err)
		switch {
		case errors.Is(err, guard.ErrSlotDamaged):
			seen["damaged"]++
		case errors.Is(err, guard.ErrNewer):
			seen["newer"]++
		case unknown:
			seen["unknown guardian"]++
		default:
			t.Errorf("bit %d of byte %d: got %v", bit%8, bit/8, err)
		}
	}
	mu.Lock()
	n := told
	mu.Unlock()
	if n > 0 {
		t.Errorf("%d requests told whether the PIN was right", n)
	}
	if d := cmp.Diff([]int{5, 5, 5}, w.left(slot)); d != "" {
		t.Errorf("guesses were spent: %s", d)
	}
	t.Logf("%d bits: %v", len(whole)*8/stride, seen)
}

// guesses counts how often somebody with these slots, who asks all of their guardians but
// some, gets an evaluation, for as long as he likes.
func (w *world) guesses(slots []*guard.Slot, but ...string) (got int) {
	w.Helper()
	for range 14 {
		for _, s := range slots {
			for i := range s.Guardians {
				g := &s.Guardians[i]
				if slices.Contains(but, g.Server) {
					continue
				}
				b, err := protocol.Blind(fmt.Append(nil, "guess ", got))
				w.must(err)
				var a protocol.Attempt
				rand.Read(a[:])
				reply, err := w.Send(w.Context(), g.Server, protocol.Sign(guard.AccessKey(g), uint64(w.Now().UnixMilli()), protocol.Evaluate{Attempt: a, Blinded: b.Blinded, Slot: s.Hash()}))
				w.must(err)
				if protocol.ParseReply(reply, new(protocol.Evaluated)) == nil {
					got++
				}
				w.Later(time.Second)
			}
		}
		w.Later(73 * time.Hour)
	}
	return got
}

// A cloud that takes the slot and never shows it again keeps an enrolment from ever being
// confirmed. It holds the slot, and t - 1 of the servers, and gains nothing: no more
// guesses than of one that was confirmed; none more of a change, whose old slot it holds
// as well; and the old PIN opens meanwhile.
func TestStalledEnrolment(t *testing.T) {
	const n, k = 3, 2
	t.Run("new", func(t *testing.T) {
		w := newWorld(t, n)
		p, err := guard.NewPlan(backup, k, w.Names)
		w.must(err)
		slot, _, err := w.begin(p, pin, "")
		w.must(err)
		if got := w.guesses([]*guard.Slot{slot}, w.Names[:k-1]...); got > protocol.MaxGuesses || got == 0 {
			t.Errorf("%d guesses", got)
		}
	})
	t.Run("change", func(t *testing.T) {
		w := newWorld(t, n)
		old := w.enrol(k, pin, "")
		p, err := w.client.Replace(t.Context(), old, guard.Owner(owner), k, w.Names)
		w.must(err)
		slot, _, err := w.begin(p, newPIN, "")
		w.must(err)
		o, err := w.open(old, pin, "")
		w.must(err)
		w.finish(o)
		// A success with the old PIN gives its guesses back, and the owner sees what was
		// guessed; the thief has none.
		if got := w.guesses([]*guard.Slot{old, slot}, w.Names[:k-1]...); got > protocol.MaxGuesses || got == 0 {
			t.Errorf("%d guesses with both slots", got)
		}
	})
	t.Run("again and again", func(t *testing.T) {
		// The device begins anew each time: the thief has all the slots that never were
		// confirmed, each of another secret. What he can try of one is not more by it.
		w := newWorld(t, n)
		old := w.enrol(k, pin, "")
		var slots []*guard.Slot
		for range 3 {
			p, err := w.client.Replace(t.Context(), old, guard.Owner(owner), k, w.Names)
			w.must(err)
			slot, _, err := w.begin(p, pin, "")
			w.must(err)
			slots = append(slots, slot)
			w.must(w.client.Abandon(t.Context(), p))
		}
		if got := w.guesses(slots, w.Names[:k-1]...); got != 0 {
			t.Errorf("%d guesses with slots that were given up", got)
		}
		o, err := w.open(old, pin, "")
		w.must(err)
		w.finish(o)
		if d := cmp.Diff([]int{5, 5, 5}, w.left(old)); d != "" {
			t.Error(d)
		}
	})
}

// Who copied a slot can sign requests. With numbers as high as the guardians take he
// keeps its owner from nothing, at the cost of one more request; nor can he write down
// what he will send later.
func TestCopiedSlot(t *testing.T) {
	w := newWorld(t, 3)
	slot := w.enrol(2, pin, "")
	burn := func(ahead time.Duration) {
		list, err := w.client.Status(t.Context(), slot) // which he can ask for as well
		w.must(err)
		for i := range slot.Guardians {
			g := &slot.Guardians[i]
			b, err := protocol.Blind([]byte("guess"))
			w.must(err)
			var a protocol.Attempt
			rand.Read(a[:])
			seq := max(list[i].Seq, uint64(w.Now().UnixMilli())) + uint64(ahead.Milliseconds())
			_, err = w.Send(t.Context(), g.Server, protocol.Sign(guard.AccessKey(g), seq, protocol.Evaluate{Attempt: a, Blinded: b.Blinded, Slot: slot.Hash()}))
			w.must(err)
		}
	}
	burn(1000 * time.Hour) // Refused, all of them.
	if d := cmp.Diff([]int{5, 5, 5}, w.left(slot)); d != "" {
		t.Errorf("far ahead: %s", d)
	}
	for range 2 {
		burn(protocol.MaxAhead)
		o, err := w.open(slot, pin, "")
		w.must(err)
		if wrong := w.finish(o); wrong == 0 {
			t.Error("the owner is not told of foreign guesses")
		}
	}
	if d := cmp.Diff([]int{5, 5, 5}, w.left(slot)); d != "" {
		t.Error(d)
	}
	w.must(w.client.PutHead(t.Context(), slot, protocol.NewHead(headKey(1), 1, 1, [16]byte{}, 0), nil))
}

// R12: the cloud alone, without any server, has nothing to test a PIN with: whatever the
// output of the function were, the masked shares of its slot give a secret, and the
// commitment is to one of 2^252. Two PINs look the same in all that a slot has.
func TestCloudAlone(t *testing.T) {
	w := newWorld(t, 3)
	slot := w.enrol(2, pin, "")
	for p := range 200 {
		var shares [][]byte
		for i := range 2 {
			y := make([]byte, 64)
			rand.Read(y) // Without a server's key it is any value.
			share, err := slot.Guardians[i].Unmask(y)
			if err != nil {
				t.Fatalf("output %d gives no share: %v", p, err)
			}
			shares = append(shares, share)
		}
		o, err := slot.Combine([]int{1, 2}, shares)
		if err != nil || o.Right() {
			t.Fatalf("output %d: right %v, %v", p, o.Right(), err)
		}
	}
}
