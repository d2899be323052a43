package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store/storetest"
)

// R15, R5: whatever a place does while a backup is found, opened and restored, the
// wallet comes back whole, or there is an error, no directory and no key. An item is
// not given up for lost because a place did not answer, not even where the user
// accepts losses.
func TestReadFaults(t *testing.T) {
	t.Parallel()
	st := newBroken()
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"),
		satchel.Change{Name: "lightning/scb", Value: []byte(strings.Repeat("s", 5000)), Required: true})
	save(t, b, item("settings", "2"))
	want := here(t, b)
	b.Close()
	held := objects(t, st.inner, "")
	for i, s := range strikes() {
		if s.op == storetest.Put {
			continue // Nothing that is put is read here.
		}
		// skip is how many calls are answered before the fault strikes.
		for skip := range 14 {
			if s.op == storetest.List && skip > 2 || !s.once && skip%2 == 1 || raced && (i+skip)%8 != 0 || os.Getenv("SATCHEL_FAULTS") != "all" && (i+skip)%3 != 0 {
				continue
			}
			ctx := st.arm(s)
			strike := st.choose
			var left atomic.Int64
			left.Store(int64(skip))
			st.Choose(func(op storetest.Op, name string) storetest.Fault {
				if op == s.op {
					if left.Add(-1) >= 0 {
						return storetest.None
					}
				}
				if op == storetest.Put {
					return storetest.Unreachable // Taking over is another test.
				}
				return strike(op, name)
			})
			into := newDevice(t, cfg)
			b, err := func() (*satchel.Backup, error) {
				found, err := satchel.Find(ctx, into)
				if len(found) == 0 {
					return nil, err
				}
				o, err := found[0].Open(ctx, way)
				if err != nil {
					return nil, err
				}
				// What is gone for good is accepted; what does not answer is not gone.
				accept := s.fault == storetest.Unreachable || s.fault == storetest.NotApplied
				b, _, err := o.Restore(ctx, into, satchel.RestoreOptions{AcceptProblem: accept && o.Preview().Problem == nil})
				return b, err
			}()
			st.disarm()
			what := fmt.Sprintf("%s after %d", s, skip)
			switch {
			case b == nil && err == nil:
				t.Errorf("%s: neither a wallet nor an error", what)
			case b == nil:
				if left, _ := os.ReadDir(filepath.Dir(into.Dir)); len(left) != 0 || len(into.Keychain.(*ring).m) != 0 {
					t.Errorf("%s: %v; left %v and %d keys", what, err, left, len(into.Keychain.(*ring).m))
				}
			case s.fault == storetest.HalfList && len(b.Status().Missing) == 0 && here(t, b)["labels"] == "1":
				// A listing that lies by leaving out the newest: nothing shows it.
			case len(b.Status().Missing) == 0 && !maps.Equal(here(t, b), want):
				t.Errorf("%s: restored %v, want %v", what, short(here(t, b)), short(want))
			}
			if b != nil {
				if missing := b.Status().Missing; len(missing) > 0 {
					t.Errorf("%s: given up for lost: %v", what, missing)
				}
				b.Close()
			}
			if !maps.Equal(objects(t, st.inner, ""), held) {
				t.Fatalf("%s: the place was changed", what)
			}
		}
	}
	restore(t, newDevice(t, cfg), way)
}

// R15: keys and descriptors that are both the owner's and not of one wallet are
// not restored without the user's decision.
func TestKeysOfAnotherWallet(t *testing.T) {
	t.Parallel()
	st := newBroken()
	cfg := config(t, st)
	b, _, way := create(t, cfg)
	keys := keysOf(t, st.inner, way)
	other, err := newKeys(t).Text()
	if err != nil {
		t.Fatal(err)
	}
	forge(t, st.inner, b, func(s *seal.Snapshot, put func(string, []byte) seal.Item) {
		it := put(seal.ItemKeys, other.Open())
		it.Required = true
		keys.Sign(&it)
		s.Items = []seal.Item{it}
	})
	b.Close()
	o := openOnly(t, way, cfg)
	isErr(t, o.Preview().Problem, satchel.ErrWrongWallet, satchel.CodeWrongWallet)
	into := newDevice(t, cfg)
	if _, _, err := o.Restore(context.Background(), into, satchel.RestoreOptions{}); !errors.Is(err, satchel.ErrWrongWallet) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(into.Dir); err == nil {
		t.Error("a directory was left")
	}
}

// R2: what was written since the backup was opened is not restored away: the user
// opens it again. Nothing is left on the device.
func TestWrittenSinceOpened(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newBroken()
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"))
	o := openOnly(t, way, cfg)
	save(t, b, item("labels", "2"))
	into := newDevice(t, cfg)
	c, _, err := o.Restore(ctx, into, satchel.RestoreOptions{})
	isErr(t, err, satchel.ErrOtherDevice, satchel.CodeOtherDevice)
	if _, statErr := os.Stat(into.Dir); c != nil || statErr == nil {
		t.Error("restored what was out of date")
	}
	save(t, b, item("labels", "3"))
	if c := restore(t, into, way); here(t, c)["labels"] != "3" {
		t.Errorf("%v", short(here(t, c)))
	}
}

// R4: objects arrive in their order: whenever an upload stops, a fresh reader finds
// no snapshot, the state before, or the new one, whole.
func TestOrder(t *testing.T) {
	t.Parallel()
	st := newBroken()
	cfg := config(t, st)
	way, _ := slot.NewRecoveryCode()
	var looks atomic.Int64
	look := func(op storetest.Op, name string) storetest.Fault {
		if op == storetest.Get && strings.HasSuffix(name, ".age") { // Each is read back.
			snapshots := false
			for n := range objects(t, st.inner, "") {
				snapshots = snapshots || strings.Contains(n, "/snapshots/")
			}
			if _, err := independent(way, st.inner); snapshots && err != nil {
				t.Errorf("after %s: %v", name, err)
			}
			looks.Add(1)
		}
		return storetest.None
	}
	st.Choose(look)
	b, err := satchel.Create(context.Background(), cfg, satchel.Plan{Keys: newKeys(t), Slots: []slot.Secret{way}, Items: []satchel.Change{item("file/x", strings.Repeat("x", 3000))}})
	if err != nil {
		t.Fatal(err)
	}
	save(t, b, item("file/x", strings.Repeat("y", 3000)), item("file/z", strings.Repeat("z", 3000)))
	b.Close()
	c := restore(t, newDevice(t, cfg), way)
	save(t, c, item("file/x", strings.Repeat("w", 3000)))
	if n := looks.Load(); n < 10 {
		t.Errorf("only %d looks", n)
	}
}

// R3: what cannot be read back just once is not taken for torn and deleted.
func TestReadBackOnce(t *testing.T) {
	t.Parallel()
	st := newBroken()
	b, _, way := create(t, config(t, st))
	for _, fault := range []storetest.Fault{storetest.NotApplied, storetest.Truncate, storetest.Absent} {
		st.Once(storetest.Get, fault)
		b.Save(context.Background(), item("labels", string(fault)))
		if n := st.Count(storetest.Delete); n != 0 {
			t.Errorf("%s: %d objects deleted", fault, n)
		}
	}
	save(t, b, item("labels", "end"))
	mustRead(t, here(t, b), way, st.inner)
}
