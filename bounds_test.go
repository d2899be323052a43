package satchel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
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

// Values of every length at a border come back, here and at a fresh reader's:
// empty, inline and not, across the chunks of age.
func TestValueSizes(t *testing.T) {
	t.Parallel()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg)
	var changes []satchel.Change
	for _, n := range []int{0, 1, 2047, 2048, 2049, 65_535, 65_536, 65_537} {
		changes = append(changes, satchel.Change{Name: fmt.Sprint("file/", n), Value: bytes.Repeat([]byte{0}, n), Required: n%2 == 0})
	}
	changes[0].Value = nil
	save(t, b, changes...)
	if r, err := b.Save(context.Background(), changes...); err != nil || r.Changed != 0 {
		t.Errorf("the same again: %+v, %v", r, err)
	}
	want := here(t, b)
	mustRead(t, want, way, st)
	b.Close()
	b, err := satchel.Open(cfg)
	if err != nil || !maps.Equal(here(t, b), want) {
		t.Fatalf("opened again: %v", err)
	}
	b.Close()
	c := restore(t, newDevice(t, cfg), way)
	if !maps.Equal(here(t, c), want) {
		t.Error("restored: other values")
	}
	for i, it := range c.Items() {
		if before := b.Items()[i]; it != before {
			t.Errorf("restored %+v, want %+v", it, before)
		}
	}
}

// A value of the greatest length is kept; one byte more is refused, and nothing is
// changed.
func TestLargestValue(t *testing.T) {
	t.Parallel()
	if testing.Short() || raced {
		t.Skip("takes memory")
	}
	st := &mem.Store{}
	b, _, way := create(t, config(t, st))
	largest := bytes.Repeat([]byte("satchel!"), seal.MaxValue/8)
	save(t, b, satchel.Change{Name: "file/largest", Value: largest})
	if _, err := b.Save(context.Background(), satchel.Change{Name: "file/larger", Value: append(largest, 'x')}, item("labels", "x")); err == nil || b.Status().Items != 3 {
		t.Errorf("a value that is too long: %v, %d items", err, b.Status().Items)
	}
	got, err := independent(way, st)
	if err != nil || got["file/largest"] != string(largest) {
		t.Errorf("a fresh reader: %d bytes, %v", len(got["file/largest"]), err)
	}
}

// An item that was removed is gone everywhere, and may come back.
func TestRemoveItem(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("contacts", "1"), item("file/x", strings.Repeat("x", 3000)))
	for i, value := range []string{"small", strings.Repeat("large", 1000), "small again"} {
		save(t, b, satchel.Change{Name: "contacts", Remove: true}, satchel.Change{Name: "file/x", Remove: true})
		mustRead(t, here(t, b), way, st)
		if _, err := b.Get("contacts"); !errors.Is(err, satchel.ErrNoItem) {
			t.Errorf("got %v", err)
		}
		if _, err := b.Save(ctx, satchel.Change{Name: "contacts", Remove: true}); !errors.Is(err, satchel.ErrNoItem) {
			t.Errorf("removed twice: %v", err)
		}
		save(t, b, item("contacts", value), item("file/x", value))
		mustRead(t, here(t, b), way, st)
		if i == 1 {
			b.Close()
			b = restore(t, newDevice(t, cfg), way)
		}
	}
	want := here(t, b)
	b.Close()
	if c := restore(t, newDevice(t, cfg), way); !maps.Equal(here(t, c), want) {
		t.Error("restored: other values")
	}
}

// Changes that no wallet may make are refused whole.
func TestRefusedChanges(t *testing.T) {
	t.Parallel()
	b, _, _ := create(t, config(t, &mem.Store{}))
	way, _ := slot.NewRecoveryCode()
	for _, bad := range [][]satchel.Change{
		{item("", "x")}, {item("a//b", "x")}, {item("../x", "x")}, {item("a\x00b", "x")},
		{item("keys", "x")}, {item("descriptors", "x")}, {{Name: "keys", Remove: true}},
		{item("x", "1"), item("x", "2")}, {{Name: "none", Remove: true}},
	} {
		if _, err := b.Save(context.Background(), append(bad, item("good", "x"))...); err == nil || b.Status().Generation != 1 {
			t.Errorf("%q was saved: %v", bad[0].Name, err)
		}
		cfg := config(t, &mem.Store{})
		if c, err := satchel.Create(context.Background(), cfg, satchel.Plan{Keys: newKeys(t), Slots: []slot.Secret{way}, Items: bad}); c != nil || err == nil {
			t.Errorf("%q was created: %v", bad[0].Name, err)
		}
		if _, err := os.Stat(cfg.Dir); err == nil {
			t.Error("a directory was left")
		}
	}
	b.SetListed(seal.MaxSnapshot)
	if _, err := b.Save(context.Background(), item("one more", "x")); err == nil || b.Status().Generation != 1 {
		t.Errorf("more items than a checkpoint can list: %v", err)
	}
}

// After a checkpoint this device keeps only what is live, also where another place
// is behind; what it keeps restores and heals.
func TestCheckpoint(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	near, far := newBroken(), newBroken()
	cfg := config(t, near, far)
	b, _, way := create(t, cfg, item("settings", "s"), item("file/x", strings.Repeat("x", 3000)))
	far.Set(storetest.Any, storetest.Unreachable)
	for i := range 65 {
		save(t, b, item("labels", fmt.Sprint(i)), item("file/x", strings.Repeat(fmt.Sprint(i), 2000)))
	}
	if n := len(files(t, filepath.Join(cfg.Dir, "objects"))); n != len(b.Objects()) {
		t.Errorf("%d objects on this device, want the %d that are live", n, len(b.Objects()))
	}
	if n := len(files(t, filepath.Join(cfg.Dir, "values"))); n != 2 {
		t.Errorf("%d values in files, want that of file/x and the descriptors", n)
	}
	if len(b.Objects()) > 12 {
		t.Errorf("no checkpoint: %d live objects", len(b.Objects()))
	}
	want := here(t, b)
	mustRead(t, want, way, near.inner)
	far.Set(storetest.Any, storetest.None)
	if _, err := b.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	mustRead(t, want, way, far.inner)

	// Everything is put back from here (R8).
	for n := range objects(t, far.inner, "") {
		replace(t, far.inner, n, nil)
	}
	if rep, err := b.Check(ctx); err == nil || rep.Places[1].Health != satchel.HealthMissing {
		t.Fatalf("%+v %v", rep.Places, err)
	}
	if _, err := b.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	mustRead(t, want, way, far.inner)
	save(t, b, item("labels", "after"))
	want = here(t, b)
	b.Close()
	if c := restore(t, newDevice(t, cfg), way); !maps.Equal(here(t, c), want) {
		t.Error("restored: other values")
	}
}

// The longest chain there is: 512 deltas, since they weigh less than a checkpoint.
func TestLongestChain(t *testing.T) {
	t.Parallel()
	largely(t)
	st := &mem.Store{}
	cfg := config(t, st)
	var items []satchel.Change
	for i := range 10_000 {
		items = append(items, item(fmt.Sprint("file/", i), "x"))
	}
	b, _, way := create(t, cfg, items...)
	for i := range seal.MaxDeltas {
		save(t, b, item("labels", fmt.Sprint(i)))
	}
	if n := len(b.Objects()); n < seal.MaxDeltas {
		t.Fatalf("%d live objects: a checkpoint came early", n)
	}
	mustRead(t, here(t, b), way, st)
	start := time.Now()
	if _, _, err := readAll(way, st); err != nil {
		t.Fatal(err)
	}
	t.Logf("opened 512 deltas in %v", time.Since(start))
	save(t, b, item("labels", "513"))
	if n := len(b.Objects()); n > 20 {
		t.Errorf("%d live objects: no checkpoint after 512 deltas", n)
	}
	mustRead(t, here(t, b), way, st)
}

// The log of a device does not grow while nothing changes, nor without end while
// places come and go.
func TestLogStaysSmall(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newBroken()
	cfg := config(t, st)
	cfg.Now = ticking()
	b, _, way := create(t, cfg, item("labels", "1"))
	b.Sync(ctx)
	size := b.LogSize()
	for range 20 {
		b.Sync(ctx)
	}
	if b.LogSize() != size {
		t.Errorf("the log grew from %d to %d bytes while nothing happened", size, b.LogSize())
	}
	st.Set(storetest.Any, storetest.Unreachable)
	flaky := strings.Repeat("a long text of an error ", 4000)
	for i := range 60 {
		st.Choose(func(storetest.Op, string) storetest.Fault { return storetest.None })
		st.Set(storetest.Any, storetest.Fault(""))
		b.SetHealth("mem:0", fmt.Errorf("%s %d", flaky, i))
		b.Save(ctx, item("labels", fmt.Sprint(i)))
	}
	if b.LogSize() > 2<<20 {
		t.Errorf("the log has %d bytes", b.LogSize())
	}
	want := here(t, b)
	b.Close()
	b, err := satchel.Open(cfg)
	if err != nil || !maps.Equal(here(t, b), want) || !b.Status().Protected {
		t.Fatal(err)
	}
	defer b.Close()
	save(t, b, item("labels", "end"))
	mustRead(t, here(t, b), way, st.inner)
}

// R6: Find looks again while a listing may lag, and not for ever; it ends with its
// context.
func TestFindSettles(t *testing.T) {
	t.Parallel()
	full := &mem.Store{}
	cfg := config(t, full)
	b, _, _ := create(t, cfg)
	b.Close()
	files := objects(t, full, "")
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		late := &mem.Store{}
		cfg := satchel.Config{Places: []store.Place{{Address: "mem:0", Store: late}}}
		go func() {
			time.Sleep(1200 * time.Millisecond)
			for n, data := range files {
				late.Add(n, []byte(data))
			}
		}()
		start := time.Now()
		found, err := satchel.Find(ctx, cfg)
		if took := time.Since(start); err != nil || len(found) != 1 || took > 2*time.Second {
			t.Errorf("found %d after %v, %v", len(found), took, err)
		}

		cfg.Places[0].Store, cfg.Settle = &mem.Store{}, 10*time.Second
		start = time.Now()
		if _, err := satchel.Find(ctx, cfg); !errors.Is(err, satchel.ErrNoBackup) || time.Since(start) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		if _, err := satchel.Find(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		// Unknown is said at once: waiting does not mend it.
		dumb := newBroken()
		dumb.Set(storetest.List, storetest.ListError)
		cfg.Places[0].Store = dumb
		start = time.Now()
		if _, err := satchel.Find(context.Background(), cfg); !errors.Is(err, store.ErrListing) || time.Since(start) != 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// flood adds files that are named like newer snapshots, and returns the store.
func flood(st *mem.Store, folder string, n int, whole bool) *mem.Store {
	for i := range n {
		data := fmt.Appendf(nil, "rubbish %d", i)
		name := seal.SnapshotName{Epoch: uint64(5 + i%900_000), Generation: uint64(1000 + i), Hash: store.Sum(data)}
		if !whole {
			data = append(data, "torn"...)
		}
		st.Add(folder+"/"+name.Path(), data)
	}
	last := []byte("last")
	name := seal.SnapshotName{Epoch: seal.MaxEpoch, Generation: seal.MaxGeneration, Hash: store.Sum(last)}
	if !whole {
		last = append(last, "torn"...)
	}
	st.Add(folder+"/"+name.Path(), last)
	return st
}

// R18, R16: thousands of files that are named like newer snapshots, in one place or
// beside a good one, whole or torn: the newest state is found within bounds, the
// user is told or asked, the highest number there is does not keep the wallet from
// coming back, and the new device goes on writing.
func TestFlood(t *testing.T) {
	// Not parallel: it measures.
	ctx := context.Background()
	for _, c := range []struct {
		name   string
		n      int
		whole  bool
		beside bool
		code   satchel.Code // of the preview's problem, or of Open
	}{
		{"aliens", 1500, true, false, satchel.CodeDone},
		{"aliens beside a good place", 1500, true, true, satchel.CodeDone},
		{"more aliens than are looked at, beside a good place", 21_000, true, true, satchel.CodeDone},
		{"more aliens than are looked at", 21_000, true, false, satchel.CodeDamaged},
		{"torn", 300, false, false, satchel.CodeDamaged},
		{"more torn ones than are tried, beside a good place", 1500, false, true, satchel.CodeDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.n > 10_000 {
				largely(t)
			}
			good := &mem.Store{}
			cfg := config(t, good)
			b, _, way := create(t, cfg, item("labels", "1"), item("file/x", strings.Repeat("x", 5000)))
			want := here(t, b)
			folder := b.Status().Folder
			b.Close()
			cfg = newDevice(t, config(t, flood(clone(t, good), folder, c.n, c.whole)))
			if c.beside {
				cfg.Places = append(cfg.Places, store.Place{Address: "mem:good", Store: good})
			}
			found, err := satchel.Find(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			var o *satchel.Opened
			peak := measure(t, func() { o, err = found[0].Open(ctx, way) })
			t.Logf("%d files: %d MB at most", c.n, peak>>20)
			if peak > 100<<20 {
				t.Errorf("took %d MB", peak>>20)
			}
			if err == nil {
				err = o.Preview().Problem
			}
			if got := satchel.CodeOf(err); got != c.code {
				t.Fatalf("got %v (code %d), want code %d", err, got, c.code)
			}
			if o == nil {
				if !errors.Is(err, seal.ErrNotOurs) {
					t.Errorf("got %v, want ErrNotOurs", err)
				}
				return
			}
			if w := len(o.Preview().Warnings); c.code == satchel.CodeDone && w == 0 || w > 60 {
				t.Errorf("%d warnings", w)
			}
			b, _, err = o.Restore(ctx, cfg, satchel.RestoreOptions{AcceptProblem: true})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if !maps.Equal(here(t, b), want) {
				t.Error("another state")
			}
			save(t, b, item("labels", "2"))
			b.Close()
			if b, err = satchel.Open(cfg); err != nil {
				t.Fatal(err)
			}
			save(t, b, item("labels", "3"))
		})
	}
}

// measure returns by how much the heap grew at most while do ran, garbage included.
func measure(t *testing.T, do func()) uint64 {
	t.Helper()
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	done, stopped := make(chan bool), make(chan uint64)
	go func() {
		peak := uint64(0)
		for {
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc-min(now.HeapAlloc, before.HeapAlloc))
			select {
			case <-done:
				stopped <- peak
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	do()
	close(done)
	return <-stopped
}

// A broken beginning of two long chains costs one look at each snapshot, not one
// for each of its children.
func TestBrokenChain(t *testing.T) {
	t.Parallel()
	st := newBroken()
	cfg := config(t, st)
	b, _, way := create(t, cfg)
	for i := range 60 {
		save(t, b, item("labels", fmt.Sprint(i)))
	}
	first := name(t, st.inner, "snapshots/000001-0000000001")
	b.Close()
	replace(t, st.inner, first, []byte("torn"))
	gets := st.Count(storetest.Get)
	found, err := satchel.Find(context.Background(), newDevice(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := found[0].Open(context.Background(), way); satchel.CodeOf(err) != satchel.CodeDamaged {
		t.Errorf("got %v", err)
	}
	if n := st.Count(storetest.Get) - gets; n > 70 {
		t.Errorf("%d objects fetched to see that one is torn", n)
	}
}

// R1, R8: holes in a place are also noticed while something is on its way there.
func TestHolesBehind(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := newBroken()
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("file/x", strings.Repeat("x", 3000)))
	st.Set(storetest.Put, storetest.Unreachable)
	if _, err := b.Save(ctx, item("labels", "offline"), item("file/y", strings.Repeat("y", 3000))); !errors.Is(err, satchel.ErrNotProtected) {
		t.Fatal(err)
	}
	b.Close()
	st.Set(storetest.Put, storetest.None)
	for n := range objects(t, st.inner, "") {
		if strings.Contains(n, "/slots/") || strings.Contains(n, "/items/") {
			replace(t, st.inner, n, nil)
		}
	}
	b, err := satchel.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	mustRead(t, here(t, b), way, st.inner)
}

// A way in is not given up for lost while a place that may have it does not answer.
func TestSlotPerhapsLost(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	one, two := newBroken(), newBroken()
	cfg := config(t, one, two)
	b, _, way := create(t, cfg)
	second, _ := slot.NewRecoveryCode()
	added, err := unlock(t, b, way).AddSlot(ctx, second)
	if err != nil {
		t.Fatal(err)
	}
	object := name(t, two.inner, added.ID)
	hash := object[len(object)-36 : len(object)-4]
	remove(t, filepath.Join(cfg.Dir, "objects", hash))
	for n := range objects(t, one.inner, "") {
		replace(t, one.inner, n, nil)
	}
	two.Set(storetest.Any, storetest.Unreachable)
	if _, err := b.Save(ctx, item("labels", "x")); err == nil || b.Status().Protected {
		t.Errorf("protected without a way in that another place has: %v", err)
	}
	two.Set(storetest.Any, storetest.None)
	if _, err := b.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	mustRead(t, here(t, b), second, one.inner)
}

// A stolen device key that lists other slots under the id of the real one, or as
// many as there can be, keeps the owner from nothing.
func TestForgedSlotList(t *testing.T) {
	t.Parallel()
	for _, full := range []bool{false, true} {
		st := &mem.Store{}
		cfg := config(t, st)
		b, _, way := create(t, cfg)
		id, err := seal.ParseSlotID(b.Slots()[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		forge(t, st, b, func(s *seal.Snapshot, _ func(string, []byte) seal.Item) {
			s.HasSlots = true
			s.Slots = []seal.SlotName{{Kind: "recovery-code", ID: id, Hash: store.Sum([]byte("x"))}}
			for full && len(s.Slots) < seal.MaxSlots {
				s.Slots = append(s.Slots, seal.NewSlotName("recovery-code", []byte("x")))
			}
		})
		b.Close()
		c, out, err := openOnly(t, way, cfg).Restore(context.Background(), newDevice(t, cfg), satchel.RestoreOptions{})
		if err != nil || !out.Protected {
			t.Fatalf("full=%v: %v", full, err)
		}
		if _, err := c.Unlock(context.Background(), way); err != nil {
			t.Errorf("full=%v: the slot that opened is not in the list: %v", full, err)
		}
		c.Close()
	}
}

// What others leave beside the wallet is not cleaned up with what a crash left.
func TestStagingOfOthers(t *testing.T) {
	t.Parallel()
	cfg := config(t, &mem.Store{})
	parent := filepath.Dir(cfg.Dir)
	old := time.Now().Add(-24 * time.Hour)
	stay := []string{"other", satchel.StagingPrefix + "young"}
	for _, n := range append(stay, satchel.StagingPrefix+"old") {
		if err := os.Mkdir(filepath.Join(parent, n), 0o700); err != nil {
			t.Fatal(err)
		}
		if n != satchel.StagingPrefix+"young" {
			if err := os.Chtimes(filepath.Join(parent, n), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	create(t, cfg)
	for _, n := range stay {
		if _, err := os.Stat(filepath.Join(parent, n)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(parent, satchel.StagingPrefix+"old")); err == nil {
		t.Error("what a crash left is still there")
	}
}

// A keychain that takes a key and does not keep it is found out before a wallet
// counts on it.
func TestKeychainThatForgets(t *testing.T) {
	t.Parallel()
	cfg := config(t, &mem.Store{})
	cfg.Keychain = &forgetful{}
	way, _ := slot.NewRecoveryCode()
	b, err := satchel.Create(context.Background(), cfg, satchel.Plan{Keys: newKeys(t), Slots: []slot.Secret{way}})
	if b != nil || !errors.Is(err, satchel.ErrDeviceKey) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(cfg.Dir)); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// R1: a backup that is deleted in one place and not yet in another is not protected
// there, and nothing puts it back; the rest goes when the place answers again.
func TestHalfDeleted(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	one, two := newBroken(), newBroken()
	cfg := config(t, one, two)
	b, _, way := create(t, cfg, item("labels", "1"))
	ow := unlock(t, b, way)
	two.Set(storetest.Any, storetest.Unreachable)
	if _, err := ow.Delete(ctx); !errors.Is(err, store.ErrUnreachable) || !strings.Contains(err.Error(), "mem:1") {
		t.Errorf("got %v", err)
	}
	two.Set(storetest.Any, storetest.None)
	if st := b.Status(); st.Protected || !st.Deleted {
		t.Errorf("%+v", st)
	}
	if _, err := b.Sync(ctx); !errors.Is(err, satchel.ErrDeleted) || len(objects(t, one.inner, "")) != 0 {
		t.Errorf("after Delete: %v, %d objects", err, len(objects(t, one.inner, "")))
	}
	if del, err := ow.Delete(ctx); err != nil || len(del.Left) != 0 || len(objects(t, two.inner, "")) != 0 {
		t.Errorf("again: %+v, %v", del, err)
	}
}
