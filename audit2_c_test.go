package satchel_test

import (
	"context"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// 3. What a place loses while it is checked is noticed by a save meanwhile, which cannot
// put it back. The check then says that all is well.
func TestAudit2CheckOverridesLoss(t *testing.T) {
	ctx := context.Background()
	inner := &mem.Store{}
	st := &storetest.Faulty{Inner: inner}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("file/a", strings.Repeat("a", 5000)), item("file/b", strings.Repeat("b", 5000)))
	first, last := "", "" // in the order in which they are compared
	for _, p := range b.Objects() {
		if strings.HasPrefix(p, "items/") && first == "" {
			first = p
		}
		last = p
	}
	folder := b.Status().Folder + "/"
	struck := false
	st.Choose(func(op storetest.Op, name string) storetest.Fault {
		if op == storetest.Put && name == folder+first {
			return storetest.Full
		}
		if op == storetest.Get && name == folder+last && !struck {
			struck = true
			replace(t, inner, folder+first, nil)
			r, err := b.Sync(ctx) // as the agent does, or another process
			if err == nil || r.Protected {
				t.Errorf("sync: %+v, %v", r, err)
			}
		}
		return storetest.None
	})
	r, err := b.Check(ctx)
	_, read := independent(way, inner)
	if s := b.Status(); read != nil && (err == nil || s.Protected) {
		t.Errorf("check %+v, %v; protected %v, verified there %+v; and a restore says: %v", r.Findings, err, s.Protected, s.Places, read)
	}
}
