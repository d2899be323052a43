package satchel_test

import (
	"context"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// 4. What was read back before a place was emptied counts as being there.
func TestAudit2HeldAndEmptied(t *testing.T) {
	ctx := context.Background()
	inner := &mem.Store{}
	st := &storetest.Faulty{Inner: inner}
	cfg := config(t, st)
	st.Choose(func(op storetest.Op, name string) storetest.Fault {
		if op == storetest.Put && strings.Contains(name, "/snapshots/") {
			return storetest.Unreachable
		}
		return storetest.None
	})
	k := newKeys(t)
	way, _ := slot.NewRecoveryCode()
	b, err := satchel.Create(ctx, cfg, satchel.Plan{Label: "Samantha", Keys: k, Slots: []slot.Secret{way}})
	if b == nil || err == nil {
		t.Fatal(err)
	}
	defer b.Close()
	for name := range objects(t, inner, "") { // R8: the folder is emptied
		replace(t, inner, name, nil)
	}
	st.Choose(nil)
	r, err := b.Sync(ctx)
	_, read := independent(way, inner)
	if read != nil && (err == nil || r.Protected) {
		t.Errorf("protected %v, %v; and a restore says: %v", r.Protected, err, read)
	}
}
