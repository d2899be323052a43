package satchel_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// 14. A backup ended, and all of it came back beside its end. The user decides for the old
// state and restores it: protected, and the next one who opens it gets nothing, no drill
// passes, and neither pruning nor a rekey is possible.
func TestAudit3RestoredBesideItsEnd(t *testing.T) {
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"))
	folder := b.Status().Folder
	before := objects(t, st, folder)
	nb, _, _, err := rekeyOf(t, b, way)
	if err != nil {
		t.Fatal(err)
	}
	nb.Close()
	for name, data := range before {
		if !strings.HasSuffix(name, seal.ReadmeName) {
			st.Add(name, []byte(data))
		}
	}
	open := func() *satchel.Opened {
		found, _ := satchel.Find(ctx, cfg)
		i := slices.IndexFunc(found, func(f satchel.Found) bool { return f.Folder == folder })
		o, err := found[i].Open(ctx, way)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	o := open()
	isErr(t, o.Preview().Problem, satchel.ErrEnded, satchel.CodeOtherDevice)
	if o, err = o.At(ctx, o.Preview().Others[0].Snapshot); err != nil {
		t.Fatal(err)
	}
	d, out, err := o.Restore(ctx, newDevice(t, cfg), satchel.RestoreOptions{})
	if err != nil || !out.Protected {
		return // It may be refused.
	}
	defer d.Close()
	save(t, d, item("labels", "2")) // Protected.
	if p := open().Preview(); p.Problem != nil {
		t.Errorf("protected, and who opens it gets generation %d with %d items: %v", p.Generation, len(p.Items), p.Problem)
	}
	if _, err := d.Drill(ctx, way); err != nil {
		t.Errorf("drill: %v", err)
	}
	if _, err := unlock(t, d, way).Prune(ctx, satchel.PruneOptions{Keep: 1}); err != nil {
		t.Errorf("prune: %v", err)
	}
}

// 15. A place that is new and drops one upload never held anything. Check says that it lost
// everything, and later that it was healed.
func TestAudit3NewPlaceLostNothing(t *testing.T) {
	ctx := context.Background()
	st := &storetest.Faulty{Inner: &mem.Store{}}
	cfg := config(t, &mem.Store{}, st)
	st.Set(storetest.Put, storetest.Unreachable)
	cfg.Copies = 1
	b, _, _ := create(t, cfg, item("labels", "1"))
	st.Set(storetest.Put, storetest.Drop)
	b.Sync(ctx)
	r, _ := b.Check(ctx)
	for _, f := range r.Findings {
		if f.Place == "mem:1" && errors.Is(f.Err, satchel.ErrMissing) && strings.HasPrefix(f.Object, "snapshots/") {
			t.Errorf("it never held that: %v", f)
		}
	}
	st.Set(storetest.Put, storetest.None)
	res, err := b.Sync(ctx)
	if err != nil || len(res.Healed) > 0 {
		t.Errorf("healed %q, %v", res.Healed, err)
	}
}
