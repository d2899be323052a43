package satchel_test

// What an audit and a newcomer found, so that it stays found.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// unlock opens the backup for its owner.
func unlock(t *testing.T, b *satchel.Backup, way slot.Secret) *satchel.Owner {
	t.Helper()
	o, err := b.Unlock(context.Background(), way)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// A deletion that was interrupted at any point leaves a backup that is not called
// protected, also after a restart.
func TestDeletedIsNotProtected(t *testing.T) {
	t.Parallel()
	for stop := range 8 {
		st := &storetest.Faulty{Inner: &mem.Store{}}
		cfg := config(t, st)
		b, _, way := create(t, cfg, item("labels", "l"), item("file/x", strings.Repeat("x", 3000)))
		o := unlock(t, b, way)
		n := 0
		st.Choose(func(op storetest.Op, _ string) storetest.Fault {
			if op == storetest.Delete {
				if n++; n > stop {
					return storetest.Unreachable
				}
			}
			return ""
		})
		_, err := o.Delete(context.Background())
		if b.Status().Protected || !b.Status().Deleted {
			t.Errorf("after %d deletions (%v): %+v", stop, err, b.Status())
		}
		b.Close()
		again, err := satchel.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if s := again.Status(); s.Protected || !s.Deleted || s.Places[0].Health == satchel.HealthProtected {
			t.Errorf("after %d deletions and a restart: %+v", stop, s)
		}
		again.Close()
	}
}

// A slot that was removed while a place was away goes from there as soon as the
// place is back, without anybody asking again, also after a restart.
func TestRemovedSlotGoesLater(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &storetest.Faulty{Inner: &mem.Store{}}
	cfg := config(t, st)
	b, _, old := create(t, cfg)
	fresh, _ := slot.NewRecoveryCode()
	o := unlock(t, b, old)
	if _, err := o.AddSlot(ctx, fresh); err != nil {
		t.Fatal(err)
	}
	st.Set(storetest.Any, storetest.Unreachable)
	if err := o.RemoveSlot(ctx, o.Slot().ID); err == nil {
		t.Fatal("removed, and the place was away")
	}
	b.Close()
	st.Set(storetest.Any, "")
	b, err := satchel.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if r, err := b.Sync(ctx); err != nil || !r.Protected {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := unlock(t, b, fresh).RemoveSlot(ctx, strings.Repeat("0", 16)); !errors.Is(err, satchel.ErrNoSlot) {
		t.Errorf("a slot that never was: %v", err)
	}
	if _, _, err := readAll(old, st.Inner); !errors.Is(err, slot.ErrWrongSecret) {
		t.Errorf("the removed code: got %v, want ErrWrongSecret", err)
	}
	if _, _, err := readAll(fresh, st.Inner); err != nil {
		t.Errorf("the other code: %v", err)
	}
}

// A stolen device key that empties the list of slots cannot make a restored device
// forget the way in that just opened.
func TestSlotThatOpenedIsKept(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg)
	forge(t, st, b, func(s *seal.Snapshot, _ func(string, []byte) seal.Item) { s.HasSlots = true })
	b.Close()
	cfg2 := newDevice(t, cfg)
	b2 := restore(t, cfg2, way)
	if len(b2.Slots()) != 1 {
		t.Fatalf("%d slots", len(b2.Slots()))
	}
	// The place is emptied; what is put back opens.
	for name := range objects(t, st, "") {
		replace(t, st, name, nil)
	}
	if r, err := b2.Sync(ctx); err != nil || !r.Protected {
		t.Fatalf("%+v, %v", r, err)
	}
	mustRead(t, here(t, b2), way, st)
}

// A listed slot that cannot be had at a restore stays in the list: the file is not
// a stranger's when it comes back.
func TestMissingSlotStaysListed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg)
	second, _ := slot.NewRecoveryCode()
	added, err := unlock(t, b, way).AddSlot(ctx, second)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	slotName := name(t, st, added.ID)
	data := []byte(objects(t, st, "")[slotName])
	replace(t, st, slotName, nil)
	b2 := restore(t, newDevice(t, cfg), way)
	save(t, b2, item("labels", "l"))
	if len(b2.Slots()) != 2 {
		t.Errorf("%d slots, want 2", len(b2.Slots()))
	}
	if r, err := b2.Check(ctx); err == nil || len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Object, added.ID) {
		t.Errorf("check: %+v, %v; want the lost slot", r, err)
	}
	if !b2.Status().Protected {
		t.Error("one lost slot of two makes it unprotected")
	}
	st.Add(slotName, data)
	if r, err := b2.Check(ctx); err != nil {
		t.Errorf("the slot is back: %+v, %v", r, err)
	}
}

// R8, R1: slots or keys that vanish from a place are noticed by the first save of a
// process, and put back.
func TestHolesAreNoticed(t *testing.T) {
	t.Parallel()
	for _, part := range []string{"/slots/", "/items/keys/", "/items/", "README", "backup.json"} {
		st := &mem.Store{}
		cfg := config(t, st)
		b, _, way := create(t, cfg, item("file/x", strings.Repeat("x", 3000)))
		b.Close()
		for name := range objects(t, st, "") {
			if strings.Contains(name, part) {
				replace(t, st, name, nil)
			}
		}
		b, err := satchel.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		save(t, b, item("labels", "l"))
		mustRead(t, here(t, b), way, st)
		if name(t, st, "README") == "" || name(t, st, "backup.json") == "" {
			t.Error("what helps people to find the backup is gone")
		}
		b.Close()
	}
}

// R21, R15: a required item that a snapshot removes, or makes optional, is told.
func TestRequiredItemThatVanishes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change satchel.Change
	}{
		{"removed", satchel.Change{Name: "lightning/scb", Remove: true}},
		{"made optional", item("lightning/scb", "other")},
	} {
		st := &mem.Store{}
		cfg := config(t, st)
		b, _, way := create(t, cfg, satchel.Change{Name: "lightning/scb", Value: []byte("scb"), Required: true})
		save(t, b, c.change)
		b.Close()
		w := openOnly(t, way, cfg).Preview().Warnings
		if !slices.ContainsFunc(w, func(s string) bool { return strings.Contains(s, "lightning/scb was required") }) {
			t.Errorf("%s: %v", c.name, w)
		}
	}
}

// The highest generation there can be is a problem that is shown, with the states
// that can be restored.
func TestLastGeneration(t *testing.T) {
	t.Parallel()
	st := &mem.Store{}
	cfg := config(t, st)
	b, k, way := create(t, cfg)
	d := b.DeviceKey()
	keysLine, descLine := b.Line(seal.ItemKeys), b.Line(seal.ItemDescriptors)
	parent := b.Head()
	parent.Generation = seal.MaxGeneration - 1
	n, data, err := seal.SealSnapshot(d, &seal.Snapshot{
		Generation: seal.MaxGeneration, Parent: parent, Time: time.Unix(1, 0), Software: "thief", Kind: seal.Checkpoint,
		HasSlots: true, Items: []seal.Item{keysLine, descLine},
	})
	if err != nil {
		t.Fatal(err)
	}
	st.Add(b.Status().Folder+"/"+n.Path(), data)
	b.Close()
	o := openOnly(t, way, cfg)
	p := o.Preview()
	if p.Problem == nil || len(p.Others) != 1 {
		t.Fatalf("problem %v, %d others", p.Problem, len(p.Others))
	}
	at, err := o.At(context.Background(), p.Others[0].Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	b2, out, err := at.Restore(context.Background(), newDevice(t, cfg), satchel.RestoreOptions{})
	if err != nil || out.Fingerprint != k.Fingerprint() {
		t.Fatal(err)
	}
	b2.Close()
}

// R15: an item that is not required and is lost does not keep the wallet from
// coming back; it is named. A required one does, unless that is accepted; then the
// device never calls itself protected, and check names it.
func TestLostItems(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, required := range []bool{false, true} {
		st := &mem.Store{}
		cfg := config(t, st)
		b, k, way := create(t, cfg, satchel.Change{Name: "file/x", Value: []byte(strings.Repeat("x", 3000)), Required: required})
		line := b.Line("file/x")
		obj, _ := b.DeviceKey().ItemObject(&line)
		replace(t, st, b.Status().Folder+"/"+obj.Path(), nil)
		b.Close()

		o := openOnly(t, way, cfg)
		cfg2 := newDevice(t, cfg)
		b2, out, err := o.Restore(ctx, cfg2, satchel.RestoreOptions{})
		isErr(t, err, satchel.ErrIncomplete, satchel.CodeIncomplete)
		if required {
			if b2 != nil {
				t.Fatal("restored without a required item")
			}
			b2, out, err = o.Restore(ctx, cfg2, satchel.RestoreOptions{AcceptProblem: true})
			isErr(t, err, satchel.ErrIncomplete, satchel.CodeIncomplete)
		}
		if b2 == nil || !slices.Equal(out.Missing, []string{"file/x"}) {
			t.Fatalf("required=%v: %+v", required, out)
		}
		if got, err := b2.Keys(); err != nil || !got.Equal(k) {
			t.Error(err)
		}
		if s := b2.Status(); s.Protected == required || !slices.Equal(s.Missing, []string{"file/x"}) {
			t.Errorf("required=%v: %+v", required, s)
		}
		if r, err := b2.Check(ctx); !errors.Is(err, satchel.ErrIncomplete) {
			t.Errorf("check: %+v, %v", r, err)
		}
		// A new value ends it.
		save(t, b2, satchel.Change{Name: "file/x", Value: []byte("new"), Required: required})
		if s := b2.Status(); !s.Protected || s.Missing != nil {
			t.Errorf("required=%v: %+v", required, s)
		}
		if r, err := b2.Check(ctx); err != nil {
			t.Errorf("check: %+v, %v", r, err)
		}
		b2.Close()
	}
}

// Hundreds of files that pretend to be slots, or to cost much, do not keep the real
// one from being tried.
func TestJunkSlots(t *testing.T) {
	t.Parallel()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg)
	folder := b.Status().Folder
	real := []byte(objects(t, st, "")[name(t, st, "/slots/")])
	b.Close()
	for i := range 1200 {
		data := fmt.Appendf(nil, "junk %d", i)
		if i%60 == 0 { // looks like a slot, and asks for the most work
			data = append([]byte(strings.Replace(string(real), " 10\n", " 12\n", 1)), byte(i))
		}
		st.Add(fmt.Sprintf("%s/slots/recovery-code-%016x-%s.age", folder, i+1, store.Sum(data)), data)
	}
	wrong, _ := slot.NewRecoveryCode()
	if _, _, err := readAll(wrong, st); satchel.CodeOf(err) != satchel.CodeWrongSecret {
		t.Errorf("a wrong code among junk: %v", err)
	}
	b2, _, err := openOnly(t, way, cfg).Restore(context.Background(), newDevice(t, cfg), satchel.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b2.Close()
}
