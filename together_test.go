package satchel_test

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/store/mem"
)

// manyAtOnce returns so many changes of values that a snapshot does not carry.
func manyAtOnce(n int, text string) []satchel.Change {
	var list []satchel.Change
	for i := range n {
		list = append(list, item(fmt.Sprintf("file/%d", i), strings.Repeat(fmt.Sprint(text, i, " "), 1000)))
	}
	return list
}

// Many new values at once go into packs, in Create and in Save: a restore then fetches
// few objects. A few have an object each, and so have words, descriptors and what is large. What
// changes later is told from what the pack holds.
func TestTogether(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, manyAtOnce(20, "created")...)
	defer b.Close()
	packs := func() int { return len(objects(t, st, b.Status().Folder+"/items/"+b.DeviceKey().PackDir()+"/")) }
	others := func() int { return len(objects(t, st, b.Status().Folder+"/items/")) - packs() }
	if packs() != 1 || others() != 2 { // The words and the descriptors.
		t.Errorf("created: %d packs, %d other objects, want 1 and 2", packs(), others())
	}
	save(t, b, manyAtOnce(10, "a few")...)
	if packs() != 1 || others() != 12 {
		t.Errorf("a few: %d packs, %d other objects, want 1 and 12", packs(), others())
	}
	many := append(manyAtOnce(30, "many"), item("file/large", strings.Repeat("l", 300<<10)), item("labels", "small"))
	save(t, b, many...)
	if packs() != 2 || others() != 13 {
		t.Errorf("many: %d packs, %d other objects, want 2 and 13", packs(), others())
	}
	save(t, b, item("file/3", "other"), satchel.Change{Name: "file/4", Remove: true})
	want := here(t, b)
	mustRead(t, want, way, st)
	if rep, err := b.Check(ctx); err != nil {
		t.Errorf("%+v, %v", rep, err)
	}
	d := restore(t, newDevice(t, cfg), way)
	defer d.Close()
	if got := here(t, d); !maps.Equal(got, want) {
		t.Errorf("restored: got %v, want %v", short(got), short(want))
	}
}

// Packs of which little is in use are merged, also where they hold values that no
// snapshot could carry.
func TestTogetherMerged(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	b, _, way := create(t, config(t, st), manyAtOnce(20, "one")...)
	defer b.Close()
	save(t, b, manyAtOnce(16, "two")...)
	first, second := b.Line("file/19").Pack, b.Line("file/0").Pack
	if first == second {
		t.Fatal("both in one pack")
	}
	c, err := b.Compact(ctx)
	if err != nil || c.Values < 20 || c.Packs != 1 {
		t.Fatalf("got %+v, %v", c, err)
	}
	if now := b.Line("file/19").Pack; now != b.Line("file/0").Pack || now == first {
		t.Error("not merged")
	}
	mustRead(t, here(t, b), way, st)
}

// Values that came one by one have an object each, until Compact packs them.
func TestTogetherLater(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg)
	defer b.Close()
	for i, c := range manyAtOnce(17, "later") {
		if i == 15 {
			if got, err := b.Compact(ctx); err != nil || got.Values > 0 {
				t.Errorf("15 of them: got %+v, %v", got, err)
			}
		}
		save(t, b, c)
	}
	save(t, b, item("file/large", strings.Repeat("l", 300<<10)))
	if c, err := b.Compact(ctx); err != nil || c.Values != 17 || c.Packs != 1 {
		t.Errorf("got %+v, %v", c, err)
	}
	if b.Line("file/large").Object == "" || b.Line("keys").Object == "" || b.Line("file/16").Object != "" {
		t.Error("packed: the large one or the words; or not: file/16")
	}
	if c, err := b.Compact(ctx); err != nil || c.Values != 0 {
		t.Errorf("again: got %+v, %v", c, err)
	}
	mustRead(t, here(t, b), way, st)
	d := restore(t, newDevice(t, cfg), way)
	defer d.Close()
	if got, want := here(t, d), here(t, b); !maps.Equal(got, want) {
		t.Errorf("restored: got %v, want %v", short(got), short(want))
	}
	if p, err := d.Prune(ctx, 1); err != nil {
		t.Errorf("%+v, %v", p, err)
	}
	mustRead(t, here(t, d), way, st)
}

// R4: kill -9 between any two steps of saving many values leaves the old state or
// the new one.
func TestKilledTogether(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, manyAtOnce(2, "old")...)
	old := here(t, b)
	changes := manyAtOnce(17, "new")
	b.Close()
	kill(t, scene{cfg, st}, func(cfg satchel.Config) error {
		b, err := satchel.Open(cfg)
		if err != nil {
			return err
		}
		defer b.Close()
		_, err = b.Save(ctx, changes...)
		return err
	}, func(t *testing.T, s scene, survived bool) {
		b, err := satchel.Open(s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		now := here(t, b)
		if !maps.Equal(now, old) && len(now) != len(old)+15 || survived && maps.Equal(now, old) {
			t.Errorf("the device: %v", short(now))
		}
		got, err := independent(way, s.st)
		if err != nil || !maps.Equal(got, old) && !maps.Equal(got, now) {
			t.Errorf("a fresh reader: %v, %v", short(got), err)
		}
		save(t, b, changes...)
		mustRead(t, here(t, b), way, s.st)
	})
}

// R4: many values are kept without flushing each, so they are flushed before the
// record that needs them: the power may fail right after it.
func TestTogetherFlushed(t *testing.T) {
	t.Parallel()
	cfg := config(t, &mem.Store{})
	b, _, _ := create(t, cfg)
	b.Close()
	var dirty []string // directories in which something is not flushed
	written, committed := 0, false
	cfg.SetHook(func(s durable.Step) error {
		dir := filepath.Dir(s.Path)
		switch {
		case !s.Done:
		case s.Op == durable.OpWrite && !committed && !durable.IsTemp(s.Path):
			written++
			if !slices.Contains(dirty, dir) {
				dirty = append(dirty, dir)
			}
		case s.Op == durable.OpSync || s.Op == durable.OpSyncDir:
			dirty = slices.DeleteFunc(dirty, func(d string) bool { return d == s.Path })
		case s.Op == durable.OpAppend && !committed:
			committed = true
			if len(dirty) > 0 {
				t.Errorf("committed before %v is flushed", dirty)
			}
		}
		return nil
	})
	b, err := satchel.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	save(t, b, manyAtOnce(20, "new")...)
	if !committed || written < 20 {
		t.Errorf("%d files were kept together, and committed: %v", written, committed)
	}
}
