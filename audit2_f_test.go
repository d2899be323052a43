package satchel_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// 6. A rekey that did not come to delete the old backup. The new one is restored on another
// device, which saves. The old device saves too, and is told to rekey again: it puts the
// new backup away, with the other device's way in and what it needs.
func TestAudit2PutAwayInUse(t *testing.T) {
	ctx := context.Background()
	inner := &mem.Store{}
	st := &storetest.Faulty{Inner: inner}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"), item("file/a", strings.Repeat("a", 5000)))
	oldFolder := b.Status().Folder
	lists, armed := 0, false
	st.Choose(func(op storetest.Op, name string) storetest.Fault {
		if op == storetest.Put && !strings.HasPrefix(name, oldFolder) {
			armed, lists = true, 0
		}
		if op == storetest.List && armed && strings.HasPrefix(name, oldFolder) {
			if lists++; lists == 3 { // The first two look, the third is before deleting.
				return storetest.Unreachable
			}
		}
		return storetest.None
	})
	code, _ := slot.NewRecoveryCode()
	dir := filepath.Join(filepath.Dir(cfg.Dir), "rekeyed")
	nb, _, err := unlock(t, b, way).Rekey(ctx, dir, satchel.RekeyPlan{Slots: []slot.Secret{code}})
	if nb == nil || err == nil || b.Status().Deleted {
		t.Fatalf("%v, %v, deleted %v", nb, err, b.Status().Deleted)
	}
	folder := nb.Status().Folder
	nb.Close()
	st.Choose(nil)
	// Another device, with the new code.
	cfg2 := newDevice(t, cfg)
	found, _ := satchel.Find(ctx, cfg2)
	var d *satchel.Backup
	for _, f := range found {
		if f.Folder == folder {
			o, err := f.Open(ctx, code)
			if err != nil {
				t.Fatal(err)
			}
			if d, _, err = o.Restore(ctx, cfg2, satchel.RestoreOptions{}); err != nil {
				t.Fatal(err)
			}
			defer d.Close()
		}
	}
	save(t, d, item("lightning/scb", "precious"))
	// The old device goes on, and is told to finish.
	save(t, b, item("settings", "s"))
	nb2, r, err := unlock(t, b, way).Rekey(ctx, dir, satchel.RekeyPlan{})
	if nb2 != nil {
		defer nb2.Close()
	}
	t.Logf("%v %+v %v", nb2 != nil, r, err)
	there := &mem.Store{}
	for name, data := range objects(t, inner, folder+"/") {
		there.Add(name, []byte(data))
	}
	if _, err := independent(code, there); err != nil {
		t.Errorf("what the other device saved, protected, does not open any more: %v", err)
	}
}
