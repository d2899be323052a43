package satchel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// strike is one way for a store to fail: a fault of one method, once or for ever,
// at all names or at those with a part.
type strike struct {
	op    storetest.Op
	fault storetest.Fault
	once  bool
}

func (s strike) String() string { return fmt.Sprintf("%s %s once=%v", s.op, s.fault, s.once) }

// strikes returns all ways in which a store fails.
func strikes() []strike {
	lies := []storetest.Fault{storetest.Truncate, storetest.Empty, storetest.Flip, storetest.Other, storetest.Previous, storetest.Stranger}
	fails := []storetest.Fault{storetest.NotApplied, storetest.Applied, storetest.Hang, storetest.HangApplied, storetest.Unreachable, storetest.SignIn, storetest.WrongAccount}
	var list []strike
	add := func(op storetest.Op, once bool, faults ...storetest.Fault) {
		for _, f := range faults {
			list = append(list, strike{op, f, once})
		}
	}
	for _, once := range []bool{false, true} {
		add(storetest.Put, once, append(append(lies, fails...), storetest.Drop, storetest.Duplicate, storetest.Torn, storetest.Full)...)
		add(storetest.Get, once, append(append(lies, fails...), storetest.Absent)...)
	}
	add(storetest.List, false, append(fails, storetest.Duplicate, storetest.Absent, storetest.Lag, storetest.HalfList, storetest.ListError)...)
	return list
}

// broken is a store that fails in one way while it is armed.
type broken struct {
	*storetest.Faulty
	inner  *mem.Store
	cancel context.CancelFunc
	choose func(storetest.Op, string) storetest.Fault // while it is armed
	struck *atomic.Int64                              // how often since it is
}

// hit returns how many calls were struck since the store was armed.
func (b *broken) hit() int { return int(b.struck.Load()) }

// foreign is a whole object of another backup.
var foreign = sync.OnceValue(func() []byte {
	_, data, err := seal.SealItem(seal.NewKeys().Device(1, seal.NewDeviceID()), "labels", 1, []byte("of another wallet"))
	if err != nil {
		panic(err)
	}
	return data
})

func newBroken() *broken {
	b := &broken{inner: &mem.Store{}}
	b.Faulty = &storetest.Faulty{Inner: b.inner, Foreign: foreign()}
	return b
}

// arm makes the store fail from now on and returns a context that ends when the
// store would hang.
func (b *broken) arm(s strike) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	b.Settle()
	struck := &atomic.Int64{} // A restore asks for several objects at once.
	b.struck = struck
	b.Lies(s.fault == storetest.Flip || s.fault == storetest.Previous || s.fault == storetest.Stranger)
	b.choose = func(op storetest.Op, _ string) storetest.Fault {
		if op != s.op || struck.Add(1) > 1 && s.once {
			return storetest.None
		}
		if s.fault == storetest.Hang || s.fault == storetest.HangApplied {
			cancel()
		}
		return s.fault
	}
	b.Choose(b.choose)
	b.cancel = cancel
	return ctx
}

func (b *broken) disarm() {
	b.cancel()
	b.Choose(nil)
	b.Lies(false)
}

// R1: whatever a store does, protected is said only if a stranger with the secret
// reads everything from what the store really holds. The time of the last verified
// backup does not move on failure. What was whole before stays.
func TestStoreFaults(t *testing.T) {
	t.Parallel()
	const strange = "BitcoinWalletBackup-Other-0000/items/keys/0000000001-00000000000000000000000000000000.age"
	type run struct {
		st     *broken
		cfg    satchel.Config
		b      *satchel.Backup
		ow     *satchel.Owner
		way    slot.Secret
		before satchel.Status
		n      int
	}
	start := func(t *testing.T) *run {
		r := &run{st: newBroken()}
		r.st.inner.Add(strange, []byte("not ours"))
		r.cfg = config(t, r.st)
		r.cfg.Now = ticking()
		return r
	}
	made := func(t *testing.T) *run {
		r := start(t)
		r.b, _, r.way = create(t, r.cfg, item("labels", "first"))
		var err error
		if r.ow, err = r.b.Unlock(context.Background(), r.way); err != nil {
			t.Fatal(err)
		}
		return r
	}
	operations := map[string]struct {
		start func(t *testing.T) *run
		each  bool // a new backup for every strike
		do    func(ctx context.Context, t *testing.T, r *run) error
	}{
		"create": {start, true, func(ctx context.Context, t *testing.T, r *run) (err error) {
			var code slot.Secret
			code, _ = slot.NewRecoveryCode()
			r.way = code
			r.b, err = satchel.Create(ctx, r.cfg, satchel.Plan{Label: "Sam", Keys: newKeys(t), Slots: []slot.Secret{code}, Items: []satchel.Change{item("labels", "first")}})
			if r.b != nil {
				t.Cleanup(func() { r.b.Close() })
			}
			return err
		}},
		"save": {made, false, func(ctx context.Context, t *testing.T, r *run) error {
			res, err := r.b.Save(ctx, item("labels", fmt.Sprint(r.n)), item("file/big", strings.Repeat(fmt.Sprint(r.n), 3000)))
			if res.Protected != r.b.Status().Protected {
				t.Errorf("result says protected=%v, status %v", res.Protected, r.b.Status().Protected)
			}
			return err
		}},
		"add slot": {made, false, func(ctx context.Context, t *testing.T, r *run) error {
			code, _ := slot.NewRecoveryCode()
			_, err := r.ow.AddSlot(ctx, code)
			if err == nil || errors.Is(err, satchel.ErrNotProtected) {
				r.way = code // The fresh reader comes in this way.
			}
			return err
		}},
		"takeover": {made, true, func(ctx context.Context, t *testing.T, r *run) error {
			// The reading part meets faults in TestReadFaults.
			reader := newDevice(t, r.cfg)
			reader.Places = []store.Place{{Address: "mem:0", Store: r.st.inner}}
			o := openOnly(t, r.way, reader)
			cfg := newDevice(t, r.cfg)
			b, out, err := o.Restore(ctx, cfg, satchel.RestoreOptions{})
			if b == nil {
				t.Fatalf("the wallet was not restored: %v", err)
			}
			if out.Protected != b.Status().Protected {
				t.Errorf("outcome says protected=%v, status %v", out.Protected, b.Status().Protected)
			}
			t.Cleanup(func() { b.Close() })
			r.b, r.before = b, satchel.Status{}
			return err
		}},
	}
	for opName, op := range operations {
		t.Run(opName, func(t *testing.T) {
			t.Parallel()
			var r *run
			stride, first := sparse(3)
			for i, s := range strikes() {
				if i%stride != first {
					continue
				}
				if op.each && s.once {
					continue // The others meet these.
				}
				if r == nil || op.each || r.n%6 == 0 {
					n := 0
					if r != nil {
						n = r.n
					}
					r = op.start(t)
					r.n = n
				}
				r.n++
				if r.b != nil {
					r.before = r.b.Status()
				}
				held := objects(t, r.st.inner, "")
				ctx := r.st.arm(s)
				err := op.do(ctx, t, r)
				r.st.disarm()
				if r.b == nil {
					t.Fatalf("%s: the wallet is not on this device: %v", s, err)
				}
				st := r.b.Status()
				want := here(t, r.b)
				if (err == nil) != st.Protected {
					t.Errorf("%s: protected=%v with error %v", s, st.Protected, err)
				}
				switch {
				case st.Protected:
					mustRead(t, want, r.way, r.st.inner)
					if !st.Verified.After(r.before.Verified) {
						t.Errorf("%s: protected, and verified did not move", s)
					}
				case !st.Verified.Equal(r.before.Verified):
					t.Errorf("%s: verified moved from %v to %v on failure: %v", s, r.before.Verified, st.Verified, err)
				case r.st.hit() == 0:
					t.Errorf("%s: not protected, and nothing struck: %v", s, err)
				}
				for name, data := range held {
					name = strings.TrimRight(name, "+") // Of several of one name, each stays.
					if now, err := r.st.inner.Get(context.Background(), name, store.Sum([]byte(data)), store.MaxObject); err != nil || string(now) != data {
						t.Errorf("%s: %s was replaced or deleted", s, name)
					}
				}
				if _, err := r.b.Sync(context.Background()); err != nil {
					t.Fatalf("%s: when it is over, sync: %v", s, err)
				}
				if !r.b.Status().Protected {
					t.Fatalf("%s: when it is over, not protected", s)
				}
				if !st.Protected {
					mustRead(t, want, r.way, r.st.inner)
				}
			}
		})
	}
}

// R1, R5, R14: the same for what keeps a backup in order. Whatever the store does,
// the newest state stays whole in it, protected is said only if it is, and the error
// says what was the matter. When it is over, the same call does its work.
func TestUpkeepFaults(t *testing.T) {
	t.Parallel()
	type world struct {
		st  *broken
		b   *satchel.Backup
		way slot.Secret
		old string // an older state
	}
	deletes := func() (list []strike) {
		for _, f := range []storetest.Fault{storetest.Drop, storetest.NotApplied, storetest.Applied, storetest.Hang, storetest.HangApplied, storetest.Unreachable, storetest.SignIn, storetest.WrongAccount} {
			list = append(list, strike{storetest.Delete, f, true}, strike{storetest.Delete, f, false})
		}
		return list
	}()
	owner := func(ctx context.Context, w *world) (*satchel.Owner, error) {
		return w.b.Unlock(context.WithoutCancel(ctx), w.way)
	}
	ops := map[string]func(ctx context.Context, w *world) error{
		"compact": func(ctx context.Context, w *world) error { _, err := w.b.Compact(ctx); return err },
		"prune":   func(ctx context.Context, w *world) error { _, err := w.b.Prune(ctx, 1); return err },
		"owner prune": func(ctx context.Context, w *world) error {
			o, err := owner(ctx, w)
			if err == nil {
				_, err = o.Prune(ctx, satchel.PruneOptions{Keep: 1})
			}
			return err
		},
		"revert": func(ctx context.Context, w *world) error {
			o, err := owner(ctx, w)
			if err == nil {
				_, err = o.Revert(ctx, w.old)
			}
			return err
		},
		"heal": func(ctx context.Context, w *world) error {
			_, err := w.b.Check(ctx)
			if _, syncErr := w.b.Sync(ctx); syncErr != nil {
				err = errors.Join(err, syncErr)
			}
			return err
		},
		"history": func(ctx context.Context, w *world) error { _, err := w.b.History(ctx); return err },
	}
	codes := map[storetest.Fault]satchel.Code{
		storetest.Unreachable: satchel.CodeUnreachable, storetest.SignIn: satchel.CodeSignIn, storetest.WrongAccount: satchel.CodeWrongAccount,
		storetest.Full: satchel.CodeFull, storetest.ListError: satchel.CodeListing, storetest.Hang: satchel.CodeInterrupted,
		storetest.Truncate: satchel.CodeDamaged, storetest.Flip: satchel.CodeDamaged, storetest.Stranger: satchel.CodeDamaged,
	}
	base := newBroken()
	cfg := config(t, base)
	first, _, way := create(t, cfg, item("labels", "old"), item("file/big", strings.Repeat("x", 5000)))
	old := first.Head().String()
	for range 3 {
		changeOften(t, first, 66, false)
	}
	save(t, first, item("labels", "newest"), item("contacts", "c"))
	first.Close()
	stride, phase := 24, rand.IntN(1000)
	if os.Getenv("SATCHEL_FAULTS") == "all" { // by .ci/long
		stride = 1
	} else if large() {
		stride = 12
	}
	for name, do := range ops {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, s := range append(strikes(), deletes...) {
				if i%stride != phase%stride || s.fault == storetest.HalfList {
					continue // What the contract forbids, and nobody could notice.
				}
				w := &world{st: newBroken(), way: way, old: old}
				for name, data := range objects(t, base.inner, "") {
					w.st.inner.Add(name, []byte(data))
				}
				c := cfg
				c.Dir = filepath.Join(t.TempDir(), "wallet")
				c.Places = []store.Place{{Address: "mem:0", Store: w.st}}
				if err := os.CopyFS(c.Dir, os.DirFS(cfg.Dir)); err != nil {
					t.Fatal(err)
				}
				var err error
				if w.b, err = satchel.Open(c); err != nil {
					t.Fatal(err)
				}
				ctx := w.st.arm(s)
				err = do(ctx, w)
				hit := w.st.hit()
				w.st.disarm()
				if code := codes[s.fault]; err != nil && code != 0 && satchel.CodeOf(err) != code {
					t.Errorf("%s: code %d, want %d: %v", s, satchel.CodeOf(err), code, err)
				}
				if err != nil && hit == 0 {
					t.Errorf("%s: nothing struck: %v", s, err)
				}
				// Whatever it says, all of the newest state that the place ever held is there.
				if got := w.b.Status(); got.Protected {
					mustRead(t, here(t, w.b), way, w.st.inner)
				} else if hit == 0 {
					t.Errorf("%s: not protected, and nothing struck", s)
				}
				if err := do(context.Background(), w); err != nil {
					t.Errorf("%s: when it is over: %v", s, err)
				}
				if _, err := w.b.Sync(context.Background()); err != nil || !w.b.Status().Protected {
					t.Errorf("%s: when it is over: protected=%v, %v", s, w.b.Status().Protected, err)
				}
				mustRead(t, here(t, w.b), way, w.st.inner)
				if rep, err := w.b.Check(context.Background()); err != nil {
					t.Errorf("%s: %+v, %v", s, rep, err)
				}
				w.b.Close()
			}
		})
	}
}

// R1: a place that lost what it held is not counted on, though only the newest
// change was put there now: an emptied folder, an older copy of it, another drive.
func TestEmptiedPlace(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, kind := range []string{"all", "checkpoint", "newest", "torn checkpoint"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			st := &mem.Store{}
			b, _, way := create(t, config(t, st), item("labels", "1"))
			save(t, b, item("labels", "2"))
			save(t, b, item("labels", "3"))
			for name := range objects(t, st, "") {
				first, newest := strings.Contains(name, "snapshots/000001-0000000001"), strings.Contains(name, "snapshots/000001-0000000003")
				switch {
				case kind == "all", kind == "checkpoint" && first, kind == "newest" && newest:
					replace(t, st, name, nil)
				case kind == "torn checkpoint" && first:
					replace(t, st, name, nil) // A listing does not show that it is torn: Check does.
					st.Add(name, []byte("torn"))
					if _, err := b.Check(ctx); satchel.CodeOf(err) != satchel.CodeDamaged || b.Status().Protected {
						t.Fatalf("check of a torn snapshot: %v, protected=%v", err, b.Status().Protected)
					}
				}
			}
			save(t, b, item("labels", "4"))
			mustRead(t, here(t, b), way, st)
			if rep, err := b.Check(ctx); err != nil {
				t.Fatalf("%+v %v", rep, err)
			}
		})
	}
}

// A listing that lags is no loss, and costs no second upload.
func TestLaggingListing(t *testing.T) {
	t.Parallel()
	st := newBroken()
	b, _, way := create(t, config(t, st), item("labels", "1"), item("file/big", strings.Repeat("x", 5000)))
	st.Settle()
	save(t, b, item("labels", "2"))
	st.Set(storetest.List, storetest.Lag)
	before := st.Count(storetest.Put)
	save(t, b, item("labels", "3"))
	if n := st.Count(storetest.Put) - before; n != 1 {
		t.Errorf("%d objects put for one small change, want 1", n)
	}
	mustRead(t, here(t, b), way, st.inner)
}

// R1, R3: a torn object is replaced by the device that holds the right bytes, with
// every fault of deleting; objects of other names stay.
func TestTorn(t *testing.T) {
	t.Parallel()
	for _, fault := range append([]storetest.Fault{storetest.None}, storetest.Drop, storetest.NotApplied, storetest.Applied, storetest.Hang, storetest.HangApplied, storetest.Unreachable, storetest.SignIn) {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			st := newBroken()
			b, _, way := create(t, config(t, st), item("labels", "1"))
			held := objects(t, st.inner, "")
			ctx := st.arm(strike{storetest.Put, storetest.Torn, true})
			if _, err := b.Save(ctx, item("labels", "2")); !errors.Is(err, satchel.ErrNotProtected) {
				t.Fatalf("got %v", err)
			}
			ctx = st.arm(strike{storetest.Delete, fault, false})
			_, err := b.Save(ctx, item("labels", "3"))
			if (err == nil) != b.Status().Protected || (err == nil) != (fault == storetest.None) {
				t.Errorf("protected=%v, %v", b.Status().Protected, err)
			}
			st.disarm()
			if _, err := b.Sync(context.Background()); err != nil {
				t.Fatal(err)
			}
			mustRead(t, here(t, b), way, st.inner)
			now := objects(t, st.inner, "")
			for name, data := range held {
				if now[name] != data {
					t.Errorf("%s was changed", name)
				}
			}
			if len(now) != len(held)+2 {
				t.Errorf("%d objects, want %d", len(now), len(held)+2)
			}
		})
	}
}

// A duplicate name with other bytes is read past (R7), and not deleted while one
// is right.
func TestDuplicateNames(t *testing.T) {
	t.Parallel()
	st := &mem.Store{}
	b, _, way := create(t, config(t, st), item("file/x", strings.Repeat("x", 3000)))
	for name, data := range objects(t, st, "") {
		if strings.HasSuffix(name, ".age") {
			replace(t, st, name, nil)
			st.Add(name, []byte("rubbish"))
			st.Add(name, []byte(data))
		}
	}
	n := len(objects(t, st, ""))
	save(t, b, item("labels", "2"))
	if rep, err := b.Check(context.Background()); err != nil {
		t.Fatalf("%+v %v", rep, err)
	}
	mustRead(t, here(t, b), way, st)
	restore(t, newDevice(t, config(t, st)), way)
	if got := len(objects(t, st, "")); got < n {
		t.Errorf("%d objects, want no fewer than %d", got, n)
	}
}

// R2: nothing is written to, or deleted from, a place that could not be listed,
// and what it holds is called unknown, not absent.
func TestUnlistedPlace(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, fault := range []storetest.Fault{storetest.ListError, storetest.NotApplied, storetest.Unreachable, storetest.SignIn, storetest.WrongAccount} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			dumb := newBroken()
			dumb.Set(storetest.List, fault)
			unwritten := func(what string) {
				t.Helper()
				if n := dumb.Count(storetest.Put) + dumb.Count(storetest.Delete); n != 0 {
					t.Errorf("%s: %d writes to a place that could not be listed", what, n)
				}
			}
			good := &mem.Store{}
			cfg := config(t, good, dumb)
			b, _, way := create(t, cfg, item("labels", "1"))
			unwritten("create")
			save(t, b, item("labels", "2"))
			unwritten("save")
			ow, err := b.Unlock(ctx, way)
			if err != nil {
				t.Fatal(err)
			}
			code, _ := slot.NewRecoveryCode()
			if _, err := ow.AddSlot(ctx, code); err != nil {
				t.Fatal(err)
			}
			unwritten("add slot")
			if err := ow.RemoveSlot(ctx, ow.Slot().ID); err == nil || !strings.Contains(err.Error(), "mem:1") {
				t.Errorf("remove slot: got %v, want an error that names mem:1", err)
			}
			unwritten("remove slot")

			cfg2 := newDevice(t, cfg)
			found, err := satchel.Find(ctx, cfg2)
			if len(found) != 1 || err == nil || errors.Is(err, satchel.ErrNoBackup) || !strings.Contains(err.Error(), "mem:1") {
				t.Fatalf("find: %d, %v", len(found), err)
			}
			o, err := found[0].Open(ctx, code)
			if err != nil {
				t.Fatal(err)
			}
			if w := strings.Join(o.Preview().Warnings, "\n"); !strings.Contains(w, "mem:1") {
				t.Errorf("the preview does not warn of the place that could not be listed: %s", w)
			}
			b2, _, err := o.Restore(ctx, cfg2, satchel.RestoreOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer b2.Close()
			unwritten("restore")
			if ow, err = b2.Unlock(ctx, code); err != nil {
				t.Fatal(err)
			}
			if _, err := ow.Delete(ctx); err == nil {
				t.Error("delete succeeded in a place that could not be listed")
			}
			unwritten("delete")

			alone := newDevice(t, cfg)
			alone.Places = cfg.Places[1:]
			if _, err := satchel.Find(ctx, alone); err == nil || errors.Is(err, satchel.ErrNoBackup) {
				t.Errorf("find in it alone: got %v", err)
			}
		})
	}
}

// R2: a slot, a snapshot or an item that may be in the place that could not be
// looked into is not said to be missing alone.
func TestUnknownIsNotMissing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, part := range []string{"/slots/", "/snapshots/", "/items/"} {
		good, down := newBroken(), newBroken()
		cfg := config(t, good, down)
		b, _, way := create(t, cfg, item("file/big", strings.Repeat("x", 5000)))
		b.Close()
		for name := range objects(t, good.inner, "") {
			if strings.Contains(name, part) {
				replace(t, good.inner, name, nil)
			}
		}
		if _, _, err := readAll(way, good, down); err != nil {
			t.Errorf("the other place has it: %v", err)
		}
		down.Set(storetest.Any, storetest.Unreachable)
		found, err := satchel.Find(ctx, newDevice(t, cfg))
		if len(found) != 1 || !errors.Is(err, store.ErrUnreachable) {
			t.Fatalf("find: %d, %v", len(found), err)
		}
		o, err := found[0].Open(ctx, way)
		if err == nil {
			err = o.Preview().Problem
		}
		isErr(t, err, store.ErrUnreachable, satchel.CodeUnreachable)
	}
}

// R4, R16: changes that could not be sent are safe on the device, in order, and a
// place that was away gets them, whether it missed a few or a checkpoint.
func TestOffline(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, changes := range []int{3, 70} {
		t.Run(fmt.Sprint(changes), func(t *testing.T) {
			t.Parallel()
			near, far := newBroken(), newBroken()
			cfg := config(t, near, far)
			b, _, way := create(t, cfg, item("labels", "0"), item("file/old", strings.Repeat("o", 4000)), item("gone", "x"))
			far.Set(storetest.Any, storetest.Unreachable)
			for i := range changes {
				save(t, b, item("labels", fmt.Sprint(i)), item("file/big", strings.Repeat(fmt.Sprint(i), 3000)))
			}
			near.Set(storetest.Any, storetest.Unreachable)
			r, err := b.Save(ctx, item("labels", "offline"), satchel.Change{Name: "gone", Remove: true})
			isErr(t, err, satchel.ErrNotProtected, satchel.CodeUnreachable)
			if r.Protected || r.Changed != 2 {
				t.Fatalf("%+v", r)
			}
			want := here(t, b)
			b.Close()
			if b, err = satchel.Open(cfg); err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if got := here(t, b); !maps.Equal(got, want) || got["labels"] != "offline" {
				t.Fatal("the change is not on the device")
			}
			near.Set(storetest.Any, storetest.None)
			if _, err := b.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			mustRead(t, want, way, near.inner)
			if st := b.Status(); st.Places[1].Health != satchel.HealthUnreachable || st.Places[1].Generation != 1 {
				t.Errorf("%+v", st.Places[1])
			}
			// The far place comes back half-way, and then wholly.
			far.Set(storetest.Any, storetest.None)
			n := 0
			far.Choose(func(op storetest.Op, _ string) storetest.Fault {
				if op == storetest.Put {
					if n++; n > 2 {
						return storetest.Unreachable
					}
				}
				return storetest.None
			})
			if _, err := b.Sync(ctx); err != nil { // One copy is enough.
				t.Fatal(err)
			}
			far.Choose(nil)
			puts := far.Count(storetest.Put)
			if _, err := b.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			mustRead(t, want, way, far.inner)
			if st := b.Status(); st.Places[1].Health != satchel.HealthProtected || st.Places[1].Generation != st.Generation {
				t.Errorf("%+v", st.Places[1])
			}
			if changes == 70 && far.Count(storetest.Put)-puts > 20 {
				t.Errorf("%d objects put to catch up", far.Count(storetest.Put)-puts)
			}
			if rep, err := b.Check(ctx); err != nil {
				t.Fatalf("%+v %v", rep, err)
			}
		})
	}
}

// Copies=2 is protected only when two places hold the change.
func TestCopies(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	one, two := newBroken(), newBroken()
	cfg := config(t, one, two)
	cfg.Copies, cfg.Now = 2, ticking()
	b, _, way := create(t, cfg, item("labels", "1"))
	verified := b.Status().Verified
	two.Set(storetest.Put, storetest.Full)
	r, err := b.Save(ctx, item("labels", "2"))
	isErr(t, err, store.ErrFull, satchel.CodeFull)
	if st := b.Status(); r.Protected || st.Protected || !st.Verified.Equal(verified) || st.Places[0].Health != satchel.HealthProtected || st.Places[1].Health != satchel.HealthFull {
		t.Errorf("%+v", st)
	}
	two.Set(storetest.Put, storetest.None)
	if _, err := b.Sync(ctx); err != nil || !b.Status().Verified.After(verified) {
		t.Fatal(err)
	}
	mustRead(t, here(t, b), way, two.inner)
	cfg.Copies = 3
	if _, err := satchel.Open(cfg); err == nil {
		t.Error("three copies in two places were accepted")
	}
}

// A place that is added later gets everything; one that is no longer configured is
// not waited for.
func TestPlaceAdded(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	one, two := &mem.Store{}, &mem.Store{}
	cfg := config(t, one, two)
	first := cfg
	first.Places = cfg.Places[:1]
	b, _, way := create(t, first, item("labels", "1"))
	save(t, b, item("labels", "2"), item("file/big", strings.Repeat("x", 9000)))
	b.Close()
	second := cfg
	second.Places = cfg.Places[1:]
	b, err := satchel.Open(second)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Status().Protected {
		t.Error("protected in a place that holds nothing")
	}
	if _, err := b.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	mustRead(t, here(t, b), way, two)
	if rep, err := b.Check(ctx); err != nil {
		t.Fatalf("%+v %v", rep, err)
	}
}

// A caller who gives up loses nothing: what was to be saved is on the device.
func TestCancelled(t *testing.T) {
	t.Parallel()
	st := newBroken()
	b, _, way := create(t, config(t, st))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r, err := b.Save(ctx, item("labels", "kept"))
	isErr(t, err, satchel.ErrNotProtected, satchel.CodeInterrupted)
	if v, err := b.Get("labels"); r.Changed != 1 || err != nil || string(v.Open()) != "kept" {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := b.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	mustRead(t, here(t, b), way, st.inner)
}

// Status, Items and Get answer while a place hangs.
func TestAnswersWhileUploading(t *testing.T) {
	t.Parallel()
	st := newBroken()
	b, _, _ := create(t, config(t, st), item("labels", "1"))
	ctx, cancel := context.WithCancel(context.Background())
	hangs := make(chan bool)
	st.Choose(func(op storetest.Op, _ string) storetest.Fault {
		if op == storetest.Put {
			close(hangs)
			return storetest.Hang
		}
		return storetest.None
	})
	done := make(chan error)
	go func() {
		_, err := b.Save(ctx, item("labels", "2"))
		done <- err
	}()
	<-hangs
	if st := b.Status(); st.Protected || st.Generation != 2 {
		t.Errorf("%+v", st)
	}
	if v, err := b.Get("labels"); err != nil || string(v.Open()) != "2" {
		t.Error(err)
	}
	if len(b.Items()) != 3 || len(b.Slots()) != 1 {
		t.Error("items or slots")
	}
	cancel()
	if err := <-done; !errors.Is(err, satchel.ErrNotProtected) {
		t.Errorf("got %v", err)
	}
}

// What this device lost of its own copies is taken from a place (healing), and a
// place is not called damaged for it.
func TestLocalCopyLost(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, harm := range []string{"lost", "damaged"} {
		one, two := &mem.Store{}, newBroken()
		cfg := config(t, one, two)
		b, _, way := create(t, cfg, item("file/big", strings.Repeat("x", 5000)))
		for path := range files(t, cfg.Dir+"/objects") {
			if harm == "lost" {
				remove(t, path)
			} else {
				write(t, path, []byte("damaged"))
			}
		}
		for name := range objects(t, two.inner, "") {
			replace(t, two.inner, name, nil)
		}
		if rep, err := b.Check(ctx); err == nil || rep.Places[0].Health != satchel.HealthProtected || rep.Places[1].Health != satchel.HealthMissing {
			t.Fatalf("%s: %+v %v", harm, rep.Places, err)
		}
		save(t, b, item("labels", "1"))
		mustRead(t, here(t, b), way, two.inner)

		// Neither here nor there.
		for path := range files(t, cfg.Dir+"/objects") {
			remove(t, path)
		}
		for _, st := range []store.Store{one, two.inner} {
			for name := range objects(t, st, "") {
				replace(t, st, name, nil)
			}
		}
		if _, err := b.Save(ctx, item("labels", "2")); err == nil || b.Status().Protected {
			t.Fatalf("%s: protected without any copy", harm)
		}
	}
}

// The progress of an upload that is cut off is not lost to this process.
func TestUploadGoesOn(t *testing.T) {
	t.Parallel()
	st := newBroken()
	puts := 0
	st.Choose(func(op storetest.Op, name string) storetest.Fault {
		if op == storetest.Put && strings.HasSuffix(name, ".age") {
			if puts++; puts%4 == 0 {
				return storetest.Unreachable
			}
		}
		return storetest.None
	})
	var items []satchel.Change
	for i := range 8 {
		items = append(items, item(fmt.Sprintf("file/%d", i), strings.Repeat(fmt.Sprint(i), 3000)))
	}
	way, _ := slot.NewRecoveryCode()
	b, err := satchel.Create(context.Background(), config(t, st), satchel.Plan{Keys: newKeys(t), Slots: []slot.Secret{way}, Items: items})
	for tries := 0; err != nil && tries < 5; tries++ {
		_, err = b.Sync(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if want := len(b.Objects()) + 3; puts != want {
		t.Errorf("%d objects put, want %d, 3 of them that failed", puts, want)
	}
	mustRead(t, here(t, b), way, st.inner)
}

// Find looks again until the listings have settled (R6), and says where it looked.
func TestFindAbsent(t *testing.T) {
	t.Parallel()
	cfg := config(t, &mem.Store{}, &mem.Store{})
	_, err := satchel.Find(context.Background(), cfg)
	isErr(t, err, satchel.ErrNoBackup, satchel.CodeNoBackup)
	if !strings.Contains(err.Error(), "mem:0") || !strings.Contains(err.Error(), "mem:1") {
		t.Errorf("the error does not say where was looked: %v", err)
	}
}

// The clock of a device may be wrong in any way.
func TestClock(t *testing.T) {
	t.Parallel()
	st := &mem.Store{}
	cfg := config(t, st)
	clock := time.Unix(0, 0)
	cfg.Now = func() time.Time { return clock }
	b, _, way := create(t, cfg)
	for i, now := range []time.Time{{}, time.Unix(1<<40, 0), time.Unix(-1<<40, 0), time.Unix(1_790_000_000, 999_999_999).In(time.FixedZone("x", 13*3600))} {
		clock = now
		save(t, b, item("labels", fmt.Sprint(i)))
	}
	b.Close()
	b, err := satchel.Open(cfg)
	if err != nil || !b.Status().Protected {
		t.Fatal(err)
	}
	defer b.Close()
	mustRead(t, here(t, b), way, st)
}

// A provider that lists names of elsewhere is not believed, and crashes nothing.
func TestForeignNames(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &lister{Store: &mem.Store{}}
	b, _, way := create(t, config(t, st))
	st.more = []store.Object{{Name: ""}, {Name: "x"}, {Name: "BitcoinWalletBackup-Other-0000/snapshots/000009-0000000009-0000000000000000-00000000000000000000000000000000.age"}}
	save(t, b, item("labels", "1"))
	if rep, err := b.Check(ctx); err != nil {
		t.Errorf("%+v %v", rep, err)
	}
	cfg := newDevice(t, config(t, st))
	found, err := satchel.Find(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i := range found {
		if o, err := found[i].Open(ctx, way); err == nil {
			if values, err := valuesOf(o); err != nil || !bytes.Equal([]byte(values["labels"]), []byte("1")) {
				t.Error(err)
			}
			return
		}
	}
	t.Error("not found")
}

// lister lists more than there is.
type lister struct {
	store.Store
	more []store.Object
}

func (l *lister) List(ctx context.Context, prefix string) ([]store.Object, error) {
	list, err := l.Store.List(ctx, prefix)
	return append(list, l.more...), err
}

// R2, R4: a place that comes back after a checkpoint, or is new, holds at every moment
// what it held or the newest state, whole: a restore from it alone meets no problem.
func TestBehindIsWhole(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	good, late := &mem.Store{}, newBroken()
	cfg := config(t, good, late)
	b, _, way := create(t, cfg, item("labels", "1"), item("file/big", strings.Repeat("1", 5000)))
	for _, begin := range []string{"behind", "new"} {
		if begin == "new" {
			save(t, b, item("labels", "2"))
			for name := range objects(t, late.inner, "") {
				replace(t, late.inner, name, nil)
			}
			if _, err := b.SetPlaces(ctx, cfg.Places[:1], 1); err != nil {
				t.Fatal(err)
			}
		}
		late.Set(storetest.Any, storetest.Unreachable)
		changeOften(t, b, 80, true)
		for i := range 3 { // Values of the checkpoint that the deltas replace.
			save(t, b, item("file/big", strings.Repeat(fmt.Sprint(i), 5000)), item("contacts/3", fmt.Sprint(i)))
		}
		late.Set(storetest.Any, storetest.None)
		for n := 0; ; n++ {
			if n > 50 {
				t.Fatal("it does not get there")
			}
			left := 1 // A further object each time; the place goes on failing.
			late.Choose(func(op storetest.Op, name string) storetest.Fault {
				if op == storetest.Put && strings.HasSuffix(name, ".age") {
					if left--; left < 0 {
						return storetest.Unreachable
					}
				}
				return storetest.None
			})
			_, err := b.SetPlaces(ctx, cfg.Places, 2)
			late.Choose(nil)
			got, o, readErr := readAll(way, late.inner)
			switch {
			case err == nil:
				if readErr != nil || !maps.Equal(got, here(t, b)) {
					t.Errorf("%s: protected, and it restores %v, %v", begin, short(got), readErr)
				}
			case begin == "new" && len(snapshots(t, late.inner)) == 0:
			case readErr != nil || !maps.Equal(got, here(t, b)) && (begin == "new" || o.Preview().Generation != 1):
				t.Errorf("%s, after %d: it restores %v, %v", begin, n+1, short(got), readErr)
			}
			if err == nil {
				break
			}
		}
	}
}

// R1, R4: so too where the place was full at the checkpoint, and fails again and again
// while the device goes on saving: never is there a snapshot without the values that it
// needs, those that were replaced since included.
func TestFullIsWhole(t *testing.T) {
	t.Parallel()
	for puts := range 4 { // that the place takes each time
		synctest.Test(t, func(t *testing.T) {
			ctx := context.Background()
			late := newBroken()
			cfg := config(t, late)
			cfg.Now = time.Now
			b, _, way := create(t, cfg, item("labels", "1"), item("file/big", strings.Repeat("1", 5000)))
			was := here(t, b)
			save(t, b, item("labels", "2"))
			whole := func(what string) {
				t.Helper()
				got, _, err := readAll(way, late.inner)
				if b.Status().Protected {
					was = here(t, b)
				}
				if err != nil || !maps.Equal(got, was) && !maps.Equal(got, here(t, b)) {
					t.Errorf("%d puts, %s: it restores %v, %v", puts, what, short(got), err)
				}
				was = got
			}
			late.Set(storetest.Put, storetest.Full)
			if _, err := b.Compact(ctx); !errors.Is(err, store.ErrFull) {
				t.Fatal(err)
			}
			late.Set(storetest.Put, storetest.None)
			whole("full")
			for n := range 20 {
				left := puts
				late.Choose(func(op storetest.Op, name string) storetest.Fault {
					if op == storetest.Put && strings.HasSuffix(name, ".age") {
						if left--; left < 0 {
							return []storetest.Fault{storetest.Unreachable, storetest.Full}[n%2]
						}
					}
					return storetest.None
				})
				b.Save(ctx, item("labels", fmt.Sprint("n", n)), item("file/big", strings.Repeat(fmt.Sprint(n), 4000)), item("contacts/3", fmt.Sprint(n)))
				whole(fmt.Sprint("save ", n))
				if n%3 == 0 {
					time.Sleep(time.Minute)
				}
			}
			late.Choose(nil)
			time.Sleep(time.Hour)
			if _, err := b.Sync(ctx); err != nil || !b.Status().Protected {
				t.Errorf("%d puts, in the end: %v", puts, err)
			}
			whole("in the end")
		})
	}
}

// R8: a folder that was put back to an older day holds that day or the newest state, whole,
// at every moment while it gets back what it lost.
func TestPutBackIsWhole(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newBroken()
	b, _, way := create(t, config(t, st), item("labels", "1"), item("file/big", strings.Repeat("1", 5000)))
	was, day := here(t, b), clone(t, st.inner)
	changeOften(t, b, 70, true) // A checkpoint is among them.
	for n := range 4 {          // What it had is replaced.
		save(t, b, item("labels", fmt.Sprint("n", n)), item("file/big", strings.Repeat(fmt.Sprint(n), 5000)), item("contacts/3", fmt.Sprint(n)))
	}
	for name := range objects(t, st.inner, "") {
		replace(t, st.inner, name, nil)
	}
	for name, data := range objects(t, day, "") {
		st.inner.Add(name, []byte(data))
	}
	for n := 0; ; n++ {
		left := 1
		st.Choose(func(op storetest.Op, name string) storetest.Fault {
			if op == storetest.Put && strings.HasSuffix(name, ".age") {
				if left--; left < 0 {
					return storetest.Unreachable
				}
			}
			return storetest.None
		})
		_, err := b.Sync(ctx)
		st.Choose(nil)
		if got, _, readErr := readAll(way, st.inner); readErr != nil || !maps.Equal(got, here(t, b)) && (err == nil || !maps.Equal(got, was)) {
			t.Errorf("after %d, %v: it restores %v, %v", n, err, short(got), readErr)
		}
		if err == nil {
			return
		}
		if n > 100 {
			t.Fatal("it does not get there")
		}
	}
}

// R1, R8: in a place that is not large, slots or words that vanish are noticed at the next
// change, not only at the next whole look: protected is not said while nobody could
// open it.
func TestVanishedIsNoticed(t *testing.T) {
	t.Parallel()
	for _, part := range []string{"/slots/", "/items/keys/", "/items/"} {
		st := &mem.Store{}
		b, _, way := create(t, config(t, st), item("file/big", strings.Repeat("x", 5000)))
		save(t, b, item("labels", "1"))
		for name := range objects(t, st, "") {
			if strings.Contains(name, part) {
				replace(t, st, name, nil)
			}
		}
		save(t, b, item("labels", "2"))
		mustRead(t, here(t, b), way, st)
	}
}

// R5: what was read once and cannot be had again is as the place says.
func TestReadAgain(t *testing.T) {
	t.Parallel()
	for fault, want := range map[storetest.Fault]error{storetest.SignIn: store.ErrSignIn, storetest.WrongAccount: store.ErrWrongAccount, storetest.Unreachable: store.ErrUnreachable} {
		st := newBroken()
		cfg := config(t, st)
		_, _, way := create(t, cfg, item("file/big", strings.Repeat("x", 5000)))
		o := openOnly(t, way, newDevice(t, cfg))
		if _, err := o.Value(t.Context(), "file/big"); err != nil {
			t.Fatal(err)
		}
		st.Set(storetest.Get, fault)
		if _, err := o.Value(t.Context(), "file/big"); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", fault, err, want)
		}
	}
}
