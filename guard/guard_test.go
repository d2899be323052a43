package guard_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/guardtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

const pin = "4917"

var (
	backup  = guard.ID{1, 2, 3}
	fileKey = secret.FromString("0123456789abcdef")
	owner   = key(1)
)

func key(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// headKey puts heads in an epoch.
func headKey(epoch uint64) ed25519.PrivateKey { return key(byte(100 + epoch)) }

func headPublic(epoch uint64) ed25519.PublicKey { return public(headKey(epoch)) }

// world is n key servers and a client.
type world struct {
	*testing.T
	*guardtest.Servers
	client *guard.Client
}

func newWorld(t *testing.T, n int) *world {
	s := guardtest.New(t, n)
	return &world{t, s, s.Client()}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func typed(s string) secret.Bytes { return secret.FromString(s) }

// begin enrols for a plan and seals the slot; nothing is confirmed yet.
func (w *world) begin(p *guard.Plan, pin, passphrase string) (*guard.Slot, *guard.Settlement, error) {
	e, err := w.client.Enrol(w.Context(), p, typed(pin), typed(passphrase))
	if err != nil {
		return nil, nil, err
	}
	if _, err := e.Wrap(fileKey); err != nil {
		return nil, nil, err
	}
	back, err := guard.ParseSlot(e.Slot().Bytes())
	if err != nil {
		return nil, nil, err
	}
	if k, err := e.FileKey(back); err != nil || !k.Equal(fileKey) {
		return nil, nil, fmt.Errorf("the slot that was read back: %w", err)
	}
	s, err := e.Settlement(public(owner), 1, headPublic(1))
	return back, s, err
}

// enrol enrols with t of all servers.
func (w *world) enrol(t int, pin, passphrase string) *guard.Slot {
	w.Helper()
	p, err := guard.NewPlan(backup, t, w.Names)
	w.must(err)
	slot, s, err := w.begin(p, pin, passphrase)
	w.must(err)
	w.settle(s)
	return slot
}

func (w *world) settle(s *guard.Settlement) {
	w.Helper()
	left, err := w.client.Settle(w.Context(), s)
	w.must(err)
	if !left.Done() {
		w.Fatalf("left to be told: %+v", left)
	}
}

// open enters a PIN and does not finish.
func (w *world) open(slot *guard.Slot, pin, passphrase string) (*guard.Opened, error) {
	w.Helper()
	r, err := w.client.Recover(slot, typed(pin))
	if err != nil {
		return nil, err
	}
	o, err := r.Open(w.Context())
	if err != nil {
		return nil, err
	}
	k, err := o.FileKey(typed(passphrase))
	if err == nil && !k.Equal(fileKey) {
		err = errors.New("another file key")
	}
	return o, err
}

// finish tells all guardians and returns the most wrong guesses that one counted.
func (w *world) finish(o *guard.Opened) int {
	w.Helper()
	told, err := o.Finish(w.Context())
	w.must(err)
	wrong := 0
	for _, g := range told {
		if g.Err != nil {
			w.Errorf("finish at %s: %v", g.Server, g.Err)
		}
		wrong = max(wrong, g.Wrong)
	}
	return wrong
}

// left returns the guesses that are left at each guardian.
func (w *world) left(slot *guard.Slot) []int {
	w.Helper()
	list, err := w.client.Status(w.Context(), slot)
	w.must(err)
	var left []int
	for _, s := range list {
		if s.Err != nil {
			w.Errorf("status of %s: %v", s.Server, s.Err)
		}
		left = append(left, int(s.Left))
	}
	return left
}

// R13: any k of n key servers suffice, for every k and n.
func TestRecover(t *testing.T) {
	for n := 1; n <= protocol.MaxGuardians; n++ {
		for k := 1; k <= n; k++ {
			t.Run(fmt.Sprintf("%d of %d", k, n), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, n)
				slot := w.enrol(k, pin, "")
				o, err := w.open(slot, pin, "")
				w.must(err)
				if got := w.finish(o); got != 0 {
					t.Errorf("%d wrong guesses, want none", got)
				}
				for _, left := range w.left(slot) {
					if left != protocol.GuessLimit(k, n) {
						t.Errorf("%d guesses left after the right PIN", left)
					}
				}
				_, err = w.open(slot, "4918", "")
				wrong, ok := errors.AsType[*guard.WrongPINError](err)
				if !ok || wrong.GuessesLeft != protocol.GuessLimit(k, n)-1 {
					t.Errorf("a wrong PIN: got %v", err)
				}
			})
		}
	}
}

// Two round trips: the first asks t guardians, the second tells all.
func TestRoundTrips(t *testing.T) {
	w := newWorld(t, 5)
	slot := w.enrol(3, pin, "")
	before := w.Sent()
	o, err := w.open(slot, pin, "")
	w.must(err)
	if got := w.Sent() - before; got != 3 {
		t.Errorf("%d requests to open, want 3", got)
	}
	if got := w.finish(o); got != 0 {
		t.Errorf("%d wrong guesses", got)
	}
	// At the two that did not evaluate a nonce is asked for.
	if got := w.Sent() - before; got != 3+5+2 {
		t.Errorf("%d requests in all, want 10", got)
	}
}

func TestPassphrase(t *testing.T) {
	w := newWorld(t, 3)
	slot := w.enrol(2, pin, "Mu\u0308nze")
	r, err := w.client.Recover(slot, typed("\uff14\uff19\uff11\uff17")) // as a Japanese keyboard types it
	w.must(err)
	o, err := r.Open(t.Context())
	w.must(err)
	for _, wrong := range []string{"Munze", "", " M\u00fcnze"} {
		if _, err := o.FileKey(typed(wrong)); !errors.Is(err, guard.ErrPassphrase) {
			t.Errorf("passphrase %q: got %v", wrong, err)
		}
	}
	if _, err := o.Finish(t.Context()); err == nil {
		t.Error("it can be finished though it did not open")
	}
	k, err := o.FileKey(typed("M\u00fcnze"))
	if err != nil || !k.Equal(fileKey) {
		t.Errorf("got %v", err)
	}
	w.finish(o)
	if d := cmp.Diff([]int{5, 5, 5}, w.left(slot)); d != "" {
		t.Error(d)
	}
}

// Wrong guesses are counted, told after the right one, and end in a lock and then in
// erasure. Then the owner enrols anew at the same guardians.
func TestGuesses(t *testing.T) {
	w := newWorld(t, 3)
	slot := w.enrol(2, pin, "")
	for i := range 2 {
		_, err := w.open(slot, "0000", "")
		if wrong, ok := errors.AsType[*guard.WrongPINError](err); !ok || wrong.GuessesLeft != 4-i {
			t.Fatalf("guess %d: %v", i, err)
		}
	}
	o, err := w.open(slot, pin, "")
	w.must(err)
	if got := w.finish(o); got != 2 {
		t.Errorf("told of %d wrong guesses, want 2", got)
	}
	for range 20 {
		if _, err = w.open(slot, "0000", ""); errors.Is(err, guard.ErrErased) {
			break
		}
		if l, ok := errors.AsType[*guard.LockedError](err); ok {
			if !l.Until.After(w.Now()) {
				t.Fatalf("locked until %v, now %v", l.Until, w.Now())
			}
			w.Later(l.Until.Sub(w.Now()))
		}
	}
	if !errors.Is(err, guard.ErrErased) {
		t.Fatalf("after 20 guesses: %v", err)
	}
	if _, err := w.open(slot, pin, ""); !errors.Is(err, guard.ErrErased) {
		t.Errorf("the right PIN after that: %v", err)
	}
	p, err := w.client.Replace(t.Context(), slot, guard.Owner(owner), 2, w.Names)
	w.must(err)
	again, s, err := w.begin(p, "2580", "")
	w.must(err)
	w.settle(s)
	o, err = w.open(again, "2580", "")
	w.must(err)
	w.finish(o)
}

// R13: one that is away is done without, and too many that are away cost nothing.
func TestUnreachable(t *testing.T) {
	w := newWorld(t, 3)
	slot := w.enrol(2, pin, "")
	var down sync.Map // names of servers; requests go on after a call returned
	down.Store(w.Names[0], true)
	w.Before(func(server string, _ protocol.Request) error {
		if _, ok := down.Load(server); ok {
			return guardtest.ErrNetwork
		}
		return nil
	})
	o, err := w.open(slot, pin, "")
	w.must(err) // A stand-in was asked.
	told, err := o.Finish(t.Context())
	w.must(err)
	for i, g := range told {
		if (g.Err != nil) != (i == 0) {
			t.Errorf("finish at %s: %v", g.Server, g.Err)
		}
	}
	down.Store(w.Names[1], true)
	r, err := w.client.Recover(slot, typed(pin))
	w.must(err)
	_, err = r.Open(t.Context())
	u, ok := errors.AsType[*guard.UnreachableError](err)
	if !ok || !errors.Is(err, guard.ErrUnreachable) || u.Need != 2 || u.Reached != 1 || u.Of != 3 || len(u.Failures) != 2 {
		t.Fatalf("got %v", err)
	}
	// It goes on later, and the guess at the third counts once.
	down.Clear()
	if _, err := r.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{4, 5, 4}, w.left(slot)); d != "" {
		t.Error(d)
	}
}

// Each reply is lost once, and no guess with it.
func TestLostReplies(t *testing.T) {
	w := newWorld(t, 3)
	var mu sync.Mutex
	lost := map[string]int{}
	w.After(func(server string, r protocol.Request, reply []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		id := fmt.Sprintf("%s %T", server, r.Payload)
		if lost[id]++; lost[id] <= 2 {
			return nil, guardtest.ErrNetwork
		}
		return reply, nil
	})
	again := func() { // Requests go on after a call returned.
		mu.Lock()
		defer mu.Unlock()
		clear(lost)
	}
	slot := w.enrol(2, pin, "")
	again()
	if _, err := w.open(slot, "0000", ""); err == nil {
		t.Fatal("a wrong PIN opens")
	}
	again()
	if d := cmp.Diff([]int{4, 4, 5}, w.left(slot)); d != "" {
		t.Error(d)
	}
	again()
	o, err := w.open(slot, pin, "")
	w.must(err)
	if got := w.finish(o); got != 1 {
		t.Errorf("%d wrong guesses told, want 1", got)
	}
	again()
	if d := cmp.Diff([]int{5, 5, 5}, w.left(slot)); d != "" {
		t.Error(d)
	}
	again()
	w.must(w.client.Delete(t.Context(), slot, guard.Owner(owner)))
}

// A guardian that takes its time does not hold up the others.
func TestSlow(t *testing.T) {
	w := newWorld(t, 3)
	w.client.Patience = time.Millisecond
	slot := w.enrol(2, pin, "")
	var hang atomic.Bool // Requests go on after a call returned.
	hang.Store(true)
	free := make(chan struct{})
	w.Before(func(server string, _ protocol.Request) error {
		if server == w.Names[0] && hang.Load() {
			<-free
			return guardtest.ErrNetwork
		}
		return nil
	})
	r, err := w.client.Recover(slot, typed(pin))
	w.must(err)
	time.AfterFunc(50*time.Millisecond, func() { close(free) })
	_, err = r.Open(t.Context())
	w.must(err)
	hang.Store(false)
	if d := cmp.Diff([]int{5, 4, 4}, w.left(slot)); d != "" {
		t.Error(d)
	}
}

// A clock that is far ahead or behind costs one more request.
func TestClocks(t *testing.T) {
	w := newWorld(t, 1)
	for _, off := range []time.Duration{-1000 * time.Hour, 1000 * time.Hour, 0} {
		w.client.Now = func() time.Time { return w.Now().Add(off) }
		slot := w.enrol(1, pin, "")
		o, err := w.open(slot, pin, "")
		w.must(err)
		w.finish(o)
	}
}

func TestUnknownGuardians(t *testing.T) {
	w := newWorld(t, 3)
	slot := w.enrol(2, pin, "")
	w.client.Trusted = func(s string) bool { return s != w.Names[1] }
	before := w.Sent()
	calls := map[string]func() error{
		"recover":  func() error { _, err := w.client.Recover(slot, typed(pin)); return err },
		"status":   func() error { _, err := w.client.Status(t.Context(), slot); return err },
		"delete":   func() error { return w.client.Delete(t.Context(), slot, guard.Owner(owner)) },
		"put head": func() error { return w.client.PutHead(t.Context(), slot, protocol.Head{}, nil) },
		"enrol": func() error {
			p, err := guard.NewPlan(backup, 2, w.Names)
			w.must(err)
			_, err = w.client.Enrol(t.Context(), p, typed(pin), secret.Bytes{})
			return err
		},
	}
	for what, call := range calls {
		u, ok := errors.AsType[*guard.UnknownError](call())
		if !ok || len(u.Servers) != 1 || u.Servers[0] != w.Names[1] {
			t.Errorf("%s: got %v", what, u)
		}
	}
	w.client.Trusted = nil
	if _, err := w.client.Recover(slot, typed(pin)); err == nil {
		t.Error("nobody is trusted, and it goes on")
	}
	if got := w.Sent() - before; got != 0 {
		t.Errorf("%d requests were sent", got)
	}
}

func TestUnusablePINs(t *testing.T) {
	w := newWorld(t, 1)
	slot := w.enrol(1, pin, "")
	for _, bad := range []string{"", "\xff", strings.Repeat("1", 1025), "a" + strings.Repeat("\u0301", 40)} {
		if _, err := w.client.Recover(slot, typed(bad)); !errors.Is(err, guard.ErrPIN) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestDelete(t *testing.T) {
	w := newWorld(t, 3)
	slot := w.enrol(2, pin, "")
	w.must(w.client.Delete(t.Context(), slot, guard.Owner(owner)))
	w.must(w.client.Delete(t.Context(), slot, guard.Owner(owner)))
	if _, err := w.open(slot, pin, ""); !errors.Is(err, guard.ErrGone) {
		t.Errorf("got %v", err)
	}
	slot = w.enrol(2, pin, "")
	o, err := w.open(slot, pin, "")
	w.must(err)
	if err := w.client.Delete(t.Context(), slot, guard.Owner(key(9))); err == nil {
		t.Error("anybody can delete")
	}
	w.must(w.client.Delete(t.Context(), slot, o.Authority()))
}

func TestHead(t *testing.T) {
	w := newWorld(t, 3)
	slot := w.enrol(2, pin, "")
	put := func(epoch, generation uint64) error {
		return w.client.PutHead(t.Context(), slot, protocol.NewHead(headKey(epoch), epoch, generation, [16]byte{byte(generation)}, 1), nil)
	}
	heads := func() *guard.Heads {
		t.Helper()
		h, err := w.client.Heads(t.Context(), slot, headPublic)
		w.must(err)
		return h
	}
	if h := heads(); h.Newest != (protocol.Head{}) || h.Anchored {
		t.Errorf("got %+v", h)
	}
	w.must(put(1, 5))
	w.must(put(1, 5))
	var down sync.Map // names of servers; requests go on after a call returned
	w.Before(func(server string, _ protocol.Request) error {
		if _, ok := down.Load(server); ok {
			return guardtest.ErrNetwork
		}
		return nil
	})
	down.Store(w.Names[0], true)
	w.must(put(1, 6))
	down.Store(w.Names[1], true)
	if err := put(1, 7); !errors.Is(err, guard.ErrUnreachable) {
		t.Errorf("one of three: got %v", err)
	}
	down.Clear()
	if h := heads(); h.Newest.Generation != 7 || h.Proven != 1 || h.Anchored {
		t.Errorf("got %+v", h)
	}
	w.must(put(1, 8)) // The two that missed some catch up.
	if h := heads(); h.Newest.Generation != 8 || h.Proven != 3 || !h.Anchored {
		t.Errorf("got %+v", h)
	}
	err := put(1, 7)
	if c, ok := errors.AsType[*guard.ConflictError](err); !ok || c.Head.Generation != 8 || !errors.Is(err, guard.ErrConflict) {
		t.Errorf("an older head: got %v", err)
	}
	// A stolen device key cannot raise the epoch; the owner can, also where one epoch
	// was missed.
	if err := put(2, 9); !errors.Is(err, guard.ErrConflict) {
		t.Errorf("another epoch: got %v", err)
	}
	if err := w.client.InstallEpoch(t.Context(), slot, guard.Epochs(headKey(1), 2, headPublic)); err == nil {
		t.Error("a device key raises the epoch")
	}
	down.Store(w.Names[2], true)
	w.must(w.client.InstallEpoch(t.Context(), slot, guard.Epochs(owner, 2, headPublic)))
	down.Clear()
	w.must(w.client.InstallEpoch(t.Context(), slot, guard.Epochs(owner, 3, headPublic)))
	w.must(w.client.InstallEpoch(t.Context(), slot, guard.Epochs(owner, 3, headPublic)))
	if h := heads(); h.Epoch != 3 {
		t.Errorf("got %+v", h)
	}
	if err := put(1, 20); !errors.Is(err, guard.ErrConflict) {
		t.Errorf("the older device: got %v", err)
	}
	if err := w.client.InstallEpoch(t.Context(), slot, guard.Epochs(owner, 2, headPublic)); !errors.Is(err, guard.ErrConflict) {
		t.Errorf("an older epoch: got %v", err)
	}
	w.must(put(3, 9))
	if h := heads(); h.Newest.Epoch != 3 || h.Proven != 3 {
		t.Errorf("got %+v", h)
	}
	// A head brings those up that missed its epoch, and no device key does.
	next := protocol.NewHead(headKey(5), 5, 10, [16]byte{5}, 0)
	if err := w.client.PutHead(t.Context(), slot, next, guard.Epochs(headKey(3), 5, headPublic)); err == nil {
		t.Errorf("epochs that the owner did not sign: got %v", err)
	}
	if err := w.client.PutHead(t.Context(), slot, next, guard.Epochs(owner, 5, headPublic)[4:]); err == nil {
		t.Errorf("an epoch left out: got %v", err)
	}
	w.must(w.client.PutHead(t.Context(), slot, next, guard.Epochs(owner, 5, headPublic)))
	if h := heads(); h.Epoch != 5 || h.Newest != next || h.Proven != 3 {
		t.Errorf("got %+v", h)
	}
	// A head that is not signed is a lie and counts for nothing.
	w.After(func(server string, r protocol.Request, reply []byte) ([]byte, error) {
		var st protocol.Status
		if server != w.Names[0] || protocol.ParseReply(reply, &st) != nil {
			return reply, nil
		}
		st.Head.Generation = 1000
		return protocol.Reply(st), nil
	})
	if h := heads(); h.Newest.Generation != 10 || h.Proven != 2 || !h.Anchored || len(h.Failures) != 1 || !errors.Is(h.Failures[0].Err, guard.ErrLie) {
		t.Errorf("got %+v", h)
	}
}

// What is kept between steps is JSON, and comes back the same.
func TestKept(t *testing.T) {
	w := newWorld(t, 3)
	old := w.enrol(2, pin, "")
	p, err := w.client.Replace(t.Context(), old, guard.Owner(owner), 2, w.Names[:2])
	w.must(err)
	p2 := again(t, p)
	if d := cmp.Diff(p, p2); d != "" {
		t.Error(d)
	}
	_, s, err := w.begin(p2, "2580", "")
	w.must(err)
	if d := cmp.Diff(s, again(t, s)); d != "" {
		t.Error(d)
	}
	if len(s.First) != 0 || len(s.Then) != 2 || len(s.Drop) != 1 {
		t.Errorf("got %+v", s)
	}
}

// again returns a value as it comes back from the journal.
func again[T any](t *testing.T, v *T) *T {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var back T
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	return &back
}
