package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// changeOften saves n small changes, each of an item of its own or all of one.
func changeOften(t *testing.T, b *satchel.Backup, n int, own bool) {
	t.Helper()
	for i := range n {
		name := "settings"
		if own {
			name = fmt.Sprint("contacts/", i%100)
		}
		save(t, b, item(name, fmt.Sprint("value ", b.Status().Generation, i)))
	}
}

func snapshots(t *testing.T, s store.Store) []seal.SnapshotName {
	t.Helper()
	var names []seal.SnapshotName
	for name := range objects(t, s, "") {
		_, path, _ := strings.Cut(name, "/")
		if n, ok := seal.ParseSnapshotPath(path); ok {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, seal.SnapshotName.Compare)
	return names
}

// Values that many snapshots carry move into packs, and everything is as it was: on
// this device, after a new start, for a stranger, and on a new device.
func TestCompact(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", ""), item("file/big", strings.Repeat("x", 5000)))
	changeOften(t, b, 20, true)
	c, err := b.Compact(ctx)
	if err != nil || c.Values < 20 || c.Packs != 1 || !c.Protected {
		t.Fatalf("%+v, %v", c, err)
	}
	if in := b.Line("contacts/3").In; !in.IsZero() {
		t.Error("still carried by a snapshot")
	}
	want := here(t, b)
	mustRead(t, want, way, st)
	save(t, b, item("contacts/3", "new"), satchel.Change{Name: "contacts/4", Remove: true})
	want = here(t, b)
	b.Close()
	if b, err = satchel.Open(cfg); err != nil || !maps.Equal(here(t, b), want) {
		t.Fatalf("opened again: %v", err)
	}
	defer b.Close()
	if _, err := b.Check(ctx); err != nil {
		t.Error(err)
	}
	d := restore(t, newDevice(t, cfg), way)
	if !maps.Equal(here(t, d), want) {
		t.Error("restored: other values")
	}
	if c, err := d.Compact(ctx); err != nil || c.Values == 0 {
		t.Errorf("again, on the new device: %+v, %v", c, err)
	}
	g := d.Status().Generation
	if c, err := d.Compact(ctx); err != nil || c.Values != 0 || d.Status().Generation != g {
		t.Errorf("nothing to do: %+v, %v", c, err)
	}
	mustRead(t, want, way, st)
	if _, err := d.Drill(ctx, way); err != nil {
		t.Error(err)
	}
}

// By itself: however many items change however often, the newest state refers to a
// bounded number of objects.
func TestCompactsItself(t *testing.T) {
	t.Parallel()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg)
	most := 0
	rounds := 10
	if large() {
		rounds = 20
	}
	for range rounds {
		changeOften(t, b, 70, true)
		most = max(most, len(b.Objects()))
	}
	if most > 200 {
		t.Errorf("the newest state needed up to %d objects", most)
	}
	packed := 0
	for _, it := range b.Items() {
		if b.Line(it.Name).Pack.Hash != "" {
			packed++
		}
	}
	if packed == 0 {
		t.Error("nothing was packed")
	}
	mustRead(t, here(t, b), way, st)
}

// R14, R3: what no kept state needs goes, and nothing else: not of others, not what
// the kept states need, not the first snapshot. Every kept state restores.
func TestPrune(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st, second := &mem.Store{}, &mem.Store{}
	const strange = "BitcoinWalletBackup-Other-0000/items/keys/0000000001-00000000000000000000000000000000.age"
	st.Add(strange, []byte("not ours"))
	cfg := config(t, st, second)
	cfg.Copies = 2
	b, _, way := create(t, cfg, item("file/big", strings.Repeat("0", 5000)))
	if _, err := b.Prune(ctx, 0); err == nil {
		t.Error("pruned with nothing kept")
	}
	if p, err := b.Prune(ctx, 1); err != nil || p.Objects != 0 {
		t.Errorf("nothing to prune: %+v, %v", p, err)
	}
	type moment struct {
		snapshot string
		values   map[string]string
	}
	var history []moment
	for i := range 6 { // Six checkpoints and more.
		changeOften(t, b, 66, i%2 == 0)
		save(t, b, item("file/big", strings.Repeat(fmt.Sprint(i), 5000)))
		history = append(history, moment{b.Head().String(), here(t, b)})
	}
	before := len(objects(t, st, ""))
	p, err := b.Prune(ctx, 3)
	if err != nil || p.Objects < 200 || p.Kept != 3 || p.Bytes < 5000 {
		t.Fatalf("%+v, %v", p, err)
	}
	if got := len(objects(t, st, "")); before-got != p.Objects/2 {
		t.Errorf("%d objects before, %d after, %d pruned in two places", before, got, p.Objects)
	}
	if _, ok := objects(t, st, "")[strange]; !ok {
		t.Error("an object of others is gone")
	}
	mustRead(t, here(t, b), way, st)
	mustRead(t, here(t, b), way, second)
	if _, err := b.Check(ctx); err != nil {
		t.Error(err)
	}
	if again, err := b.Prune(ctx, 3); err != nil || again.Objects != 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	look, err := unlock(t, b, way).Look(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if w := look.Preview().Warnings; look.Preview().Problem != nil || len(w) > 0 {
		t.Errorf("after pruning: %v, %v", look.Preview().Problem, w)
	}
	whole := 0
	for _, m := range history {
		at, err := look.At(ctx, m.snapshot)
		if err != nil {
			continue
		}
		if got, err := valuesOf(at); err == nil {
			whole++
			if !maps.Equal(got, m.values) {
				t.Errorf("%s: other values", m.snapshot)
			}
		}
	}
	if whole < 3 {
		t.Errorf("%d of 6 states restore, want at least 3", whole)
	}

	// The owner on a new device prunes what the old one left; a journal that begins
	// anew knows of nothing. What is only named like ours stays (R3).
	c := restore(t, newDevice(t, cfg), way)
	alien := seal.ObjectName{Dir: strings.Repeat("ab", 16), Version: 2, Hash: store.Sum([]byte("alien"))}
	st.Add(c.Status().Folder+"/"+alien.Path(), []byte("alien"))
	// Nor does the object of a snapshot that another device is just putting.
	coming, data := must2(seal.SealItem(c.DeviceKey(), "labels", c.Status().Generation+1, []byte("coming")))
	st.Add(c.Status().Folder+"/"+coming.Path(), data)
	if p, err := c.Prune(ctx, 1); err != nil || p.Objects != 0 {
		t.Errorf("the new device alone: %+v, %v", p, err)
	}
	if p, err := unlock(t, c, way).Prune(ctx, satchel.PruneOptions{Keep: 1}); err != nil || p.Objects < 100 || p.Kept != 1 || len(p.Left) != 1 || !strings.HasSuffix(p.Left[0], alien.Path()) {
		t.Errorf("the owner: %+v, %v", p, err)
	}
	// Left is what the newest state needs.
	need := map[string]bool{}
	for _, path := range c.Objects() {
		need[path] = true
	}
	if _, ok := objects(t, st, "")[c.Status().Folder+"/"+coming.Path()]; !ok {
		t.Error("an object that is on its way is gone")
	}
	for name := range objects(t, st, c.Status().Folder) {
		_, path, _ := strings.Cut(name, "/")
		if strings.HasSuffix(name, ".age") && !need[path] && path != alien.Path() && path != coming.Path() {
			t.Errorf("left: %s", path)
		}
	}
	mustRead(t, here(t, c), way, st)
	mustRead(t, here(t, c), way, second)
	save(t, c, item("labels", "on"))
	if _, err := c.Check(ctx); err != nil {
		t.Error(err)
	}
}

// R2: a place that does not hold the newest generation whole is not pruned, whatever
// it lacks.
func TestPruneNeedsTheNewest(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	inner := &mem.Store{}
	st := &storetest.Faulty{Inner: inner}
	cfg := config(t, st)
	b, _, _ := create(t, cfg)
	for range 3 {
		changeOften(t, b, 66, false)
	}
	stride, first := sparse(4)
	for i, path := range b.Objects() {
		if i%stride != first && !strings.HasPrefix(path, "slots/") {
			continue
		}
		saved := clone(t, inner)
		name := b.Status().Folder + "/" + path
		for _, o := range must(inner.List(ctx, name)) {
			inner.Delete(ctx, o)
		}
		before := len(objects(t, inner, ""))
		if strings.HasPrefix(path, "slots/") {
			// What is lost is put back before anything goes, if that is known.
			before = 0
		}
		p, err := b.Prune(ctx, 1)
		if p.Objects > 0 || len(objects(t, inner, "")) < before {
			// What a checkpoint for the place that lost it replaces is needed no more.
			if _, back := objects(t, inner, "")[name]; !back && slices.Contains(b.Objects(), path) {
				t.Errorf("pruned, and %s is not there: %v", path, err)
			}
		}
		for n, data := range objects(t, saved, "") {
			if _, ok := objects(t, inner, "")[n]; !ok {
				inner.Add(n, []byte(data))
			}
		}
	}
	save(t, b, item("labels", "x"))
	for range 2 {
		changeOften(t, b, 66, false)
	}
	// Torn, of the right length: a listing does not show it.
	head := b.Status().Folder + "/" + b.Head().Path()
	whole := objects(t, inner, "")
	spoilt := []byte(whole[head])
	spoilt[len(spoilt)/2] ^= 1
	replace(t, inner, head, spoilt)
	if _, err := b.Prune(ctx, 1); satchel.CodeOf(err) != satchel.CodeDamaged || len(objects(t, inner, "")) != len(whole) {
		t.Errorf("the newest snapshot is damaged: %v", err)
	}
	replace(t, inner, head, []byte(whole[head]))
	st.Choose(func(op storetest.Op, name string) storetest.Fault {
		if op == storetest.Delete {
			return storetest.NotApplied
		}
		return storetest.None
	})
	if _, err := b.Prune(ctx, 1); err == nil {
		t.Error("nothing could be deleted, and no error")
	}
	st.Choose(nil)
	if p, err := b.Prune(ctx, 1); err != nil || p.Objects == 0 {
		t.Errorf("then it could: %+v, %v", p, err)
	}
}

func must2[T, U any](v T, u U, err error) (T, U) {
	if err != nil {
		panic(err)
	}
	return v, u
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// R16: the older device stops with one clear error after a takeover; nothing of
// either is lost or pruned until the user decides; the history shows both branches.
func TestHistoryOfTwoDevices(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	a, _, way := create(t, cfg, item("labels", "1"))
	save(t, a, item("labels", "2"))
	hidden := &storetest.Faulty{Inner: st}
	cfgA := cfg
	cfgA.Places = []store.Place{{Address: "mem:0", Store: hidden}}
	a.Close()
	a, err := satchel.Open(cfgA)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b := restore(t, newDevice(t, cfg), way)
	save(t, b, item("labels", "b"))
	// The older one does not see the newer and writes on: a listing that lags.
	lag := true
	hidden.Choose(func(op storetest.Op, _ string) storetest.Fault {
		if lag && op == storetest.List {
			return storetest.Absent
		}
		return storetest.None
	})
	if _, err := a.Save(ctx, item("labels", "a")); err != nil {
		t.Fatal(err)
	}
	lag = false
	g := a.Status().Generation
	if _, err := a.Save(ctx, item("labels", "a2")); !errors.Is(err, satchel.ErrOtherDevice) || a.Status().Generation != g {
		t.Errorf("the older device: got %v, want %v", err, satchel.ErrOtherDevice)
	}
	for name, dev := range map[string]*satchel.Backup{"older": a, "newer": b} {
		h, err := dev.History(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var branch, newest []string
		for _, m := range h {
			if m.Branch {
				branch = append(branch, m.Device)
			}
			if m.Newest {
				newest = append(newest, m.Device)
			}
		}
		if len(h) != 5 || !slices.Equal(branch, []string{a.Status().Device}) || !slices.Equal(newest, []string{b.Status().Device}) {
			t.Errorf("%s: %d moments, branches of %v, newest %v", name, len(h), branch, newest)
		}
	}
	look, err := unlock(t, b, way).Look(ctx)
	if err != nil {
		t.Fatal(err)
	}
	h, err := look.History(ctx, 100)
	if err != nil || len(h) != 5 {
		t.Fatalf("%d moments, %v", len(h), err)
	}
	values := map[string]bool{}
	for _, m := range h {
		if !m.Read || m.Err != nil {
			t.Errorf("%s: %v", m.Snapshot, m.Err)
		}
		at, err := look.At(ctx, m.Snapshot)
		if err != nil {
			t.Fatal(err)
		}
		v, err := at.Value(ctx, "labels")
		if err != nil {
			t.Fatal(err)
		}
		values[string(v.Open())] = true
	}
	if want := map[string]bool{"1": true, "2": true, "a": true, "b": true}; !maps.Equal(values, want) {
		t.Errorf("values in the history: %v", values)
	}
	before := objects(t, st, "")
	if _, err := b.Prune(ctx, 1); !errors.Is(err, satchel.ErrForked) {
		changeOften(t, b, 130, false)
		if _, err = b.Prune(ctx, 1); !errors.Is(err, satchel.ErrForked) {
			t.Errorf("pruned beside a branch: got %v, want %v", err, satchel.ErrForked)
		}
	}
	if _, err := unlock(t, b, way).Prune(ctx, satchel.PruneOptions{Keep: 1}); !errors.Is(err, satchel.ErrForked) {
		t.Errorf("the owner: got %v, want %v", err, satchel.ErrForked)
	}
	for name := range before {
		if _, ok := objects(t, st, "")[name]; !ok {
			t.Errorf("gone: %s", name)
		}
	}
	// The user takes what the older device wrote, and then lets its branch go.
	r, err := unlock(t, b, way).Revert(ctx, h[slices.IndexFunc(h, func(m satchel.Moment) bool { return m.Branch })].Snapshot)
	if err != nil || here(t, b)["labels"] != "a" || !slices.Contains(r.Restored, "labels") {
		t.Errorf("reverted to the branch: %+v, %v", r, err)
	}
	if _, err := unlock(t, b, way).Prune(ctx, satchel.PruneOptions{Keep: 1, Branches: true}); err != nil {
		t.Error(err)
	}
	if h, err = b.History(ctx); err != nil || slices.ContainsFunc(h, func(m satchel.Moment) bool { return m.Branch }) {
		t.Errorf("after it was let go: %+v, %v", h, err)
	}
	mustRead(t, here(t, b), way, st)
}

// An older state comes back as a new generation: its values, its removals; but never
// the keys, and never old channel state (R21). What was is in the history.
func TestRevert(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	big := strings.Repeat("x", 5000)
	b, _, way := create(t, cfg, item("labels", "1"), item("file/big", big), item("lightning/scb", "old"), satchel.Change{Name: "contacts", Value: []byte("c"), Required: true})
	then := b.Head().String()
	save(t, b, item("labels", "2"), item("file/big", "y"), item("settings", "new"), item("lightning/scb", "new"), satchel.Change{Name: "contacts", Remove: true})
	now := b.Head().String()
	ow := unlock(t, b, way)
	plan, err := ow.Difference(ctx, then)
	if err != nil || b.Status().Generation != 2 || here(t, b)["labels"] != "2" {
		t.Fatalf("difference: %+v, %v", plan, err)
	}
	r, err := ow.Revert(ctx, then)
	if err != nil || !r.Protected || r.Generation != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	if !slices.Equal(plan.Restored, r.Restored) || !slices.Equal(plan.Removed, r.Removed) || !slices.Equal(plan.Kept, r.Kept) {
		t.Errorf("said before: %+v, done: %+v", plan, r)
	}
	want := map[string][]string{"restored": {"contacts", "file/big", "labels"}, "removed": {"settings"}, "kept": {"lightning/scb"}}
	for what, got := range map[string][]string{"restored": r.Restored, "removed": r.Removed, "kept": r.Kept} {
		if !slices.Equal(got, want[what]) {
			t.Errorf("%s: %v, want %v", what, got, want[what])
		}
	}
	got := here(t, b)
	if got["labels"] != "1" || got["file/big"] != big || got["contacts"] != "c" || got["lightning/scb"] != "new" || got["settings"] != "" || !b.Line("contacts").Required {
		t.Errorf("got %v", short(got))
	}
	mustRead(t, got, way, st)
	if r, err := ow.Revert(ctx, b.Head().String()); err != nil || r.Changed != 0 {
		t.Errorf("to the newest: %+v, %v", r, err)
	}
	if r, err := ow.Revert(ctx, now); err != nil || here(t, b)["labels"] != "2" || r.Generation != 4 {
		t.Errorf("and back: %+v, %v", r, err)
	}
	if _, err := ow.Revert(ctx, "nonsense"); !errors.Is(err, satchel.ErrMissing) {
		t.Errorf("got %v, want %v", err, satchel.ErrMissing)
	}
	// A value that is gone: nothing changes.
	save(t, b, item("file/big", "z"))
	for _, n := range snapshots(t, st)[:1] {
		for _, o := range must(st.List(ctx, b.Status().Folder+"/items/")) {
			if !strings.Contains(o.Name, "/keys/") && strings.Contains(o.Name, "/0000000001-") {
				st.Delete(ctx, o)
			}
		}
		g := b.Status().Generation
		if _, err := ow.Revert(ctx, n.String()); !errors.Is(err, satchel.ErrIncomplete) || b.Status().Generation != g {
			t.Errorf("a value is gone: got %v, want %v", err, satchel.ErrIncomplete)
		}
	}
}

// A branch is seen over all places together: the one that holds it need not hold the
// epoch that began before it.
func TestPruneHiddenBranch(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	one, two := newBroken(), newBroken()
	cfg := config(t, one, two)
	b, _, way := create(t, cfg, item("labels", "1"))
	two.Set(storetest.Any, storetest.Unreachable)
	save(t, b, item("labels", "the branch"))
	two.Set(storetest.Any, storetest.None)
	cfg2 := newDevice(t, cfg)
	cfg2.Places = cfg.Places[1:]
	restore(t, cfg2, way)
	c := restore(t, newDevice(t, cfg), way)
	before := objects(t, one.inner, "")
	ow, err := c.Unlock(ctx, way)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ow.Prune(ctx, satchel.PruneOptions{Keep: 1}); !errors.Is(err, satchel.ErrForked) {
		t.Errorf("got %v, want %v", err, satchel.ErrForked)
	}
	if !maps.Equal(objects(t, one.inner, ""), before) {
		t.Error("something was deleted")
	}
}
