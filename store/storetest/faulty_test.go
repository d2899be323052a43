package storetest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// Without faults it is a store like others.
func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return &storetest.Faulty{Inner: new(mem.Store)} })
}

// After each fault of a Put, whoever asks for the object by its hash gets it or
// an error (R1), and which of the two is part of the fault's meaning.
func TestPutFaults(t *testing.T) {
	there := map[storetest.Fault]bool{ // the others leave nothing that matches
		storetest.Duplicate: true, storetest.Absent: true, storetest.Lag: true, storetest.HalfList: true,
		storetest.ListError: true, storetest.Applied: true, storetest.HangApplied: true,
	}
	saysYes := map[storetest.Fault]bool{
		storetest.Drop: true, storetest.Truncate: true, storetest.Empty: true, storetest.Flip: true, storetest.Other: true,
		storetest.Previous: true, storetest.Stranger: true, storetest.Duplicate: true, storetest.Absent: true,
		storetest.Lag: true, storetest.HalfList: true, storetest.ListError: true,
	}
	data := []byte("the new object")
	for _, fault := range storetest.Faults() {
		synctest.Test(t, func(t *testing.T) {
			f := &storetest.Faulty{Inner: new(mem.Store)}
			if err := f.Put(t.Context(), "old", []byte("the old object")); err != nil {
				t.Fatal(err)
			}
			f.Once(storetest.Put, fault)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := f.Put(ctx, "new", data)
			if (err == nil) != saysYes[fault] {
				t.Errorf("%s: Put says %v", fault, err)
			}
			got, err := f.Get(t.Context(), "new", store.Sum(data), 100)
			if (err == nil) != there[fault] || err == nil && string(got) != string(data) {
				t.Errorf("%s: then got %q, %v", fault, got, err)
			}
			if f.Count(storetest.Put) != 2 || f.Count(storetest.Any) != 3 {
				t.Errorf("%s: counted %d puts of %d calls", fault, f.Count(storetest.Put), f.Count(storetest.Any))
			}
		})
	}
}

func TestGetFaults(t *testing.T) {
	ctx := t.Context()
	f := &storetest.Faulty{Inner: new(mem.Store)}
	data := []byte("the object")
	for name, d := range map[string][]byte{"old": []byte("other"), "new": data} {
		if err := f.Put(ctx, name, d); err != nil {
			t.Fatal(err)
		}
	}
	for fault, want := range map[storetest.Fault]error{
		storetest.Truncate: store.ErrDamaged, storetest.Empty: store.ErrDamaged, storetest.Flip: store.ErrDamaged,
		storetest.Other: store.ErrDamaged, storetest.Previous: store.ErrDamaged, storetest.Absent: store.ErrNotExist,
		storetest.Unreachable: store.ErrUnreachable, storetest.SignIn: store.ErrSignIn,
		storetest.WrongAccount: store.ErrWrongAccount, storetest.NotApplied: storetest.ErrFault, storetest.None: nil,
	} {
		f.Set(storetest.Get, fault)
		if _, err := f.Get(ctx, "new", store.Sum(data), 100); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", fault, err, want)
		}
		f.Lies(true)
		if want == store.ErrDamaged {
			if got, err := f.Get(ctx, "new", store.Sum(data), 100); err != nil || string(got) == string(data) {
				t.Errorf("%s, lying: got %q, %v, want wrong bytes", fault, got, err)
			}
		}
		f.Lies(false)
	}
}

func TestListFaults(t *testing.T) {
	ctx := t.Context()
	f := &storetest.Faulty{Inner: new(mem.Store)}
	put := func(name string) {
		if err := f.Put(ctx, name, nil); err != nil {
			t.Fatal(err)
		}
	}
	put("a")
	put("b")
	f.Settle()
	put("c")
	for fault, want := range map[storetest.Fault]int{
		storetest.None: 3, storetest.Lag: 2, storetest.Absent: 0, storetest.Duplicate: 6, storetest.HalfList: 2,
	} {
		f.Once(storetest.List, fault)
		if list, err := f.List(ctx, ""); err != nil || len(list) != want {
			t.Errorf("%s: got %v, %v, want %d", fault, list, err, want)
		}
	}
	f.Settle()
	f.Set(storetest.Any, storetest.Lag)
	if list, err := f.List(ctx, ""); err != nil || len(list) != 3 {
		t.Errorf("settled: got %v, %v", list, err)
	}
	f.Set(storetest.List, storetest.ListError)
	if _, err := f.List(ctx, ""); !errors.Is(err, store.ErrListing) {
		t.Errorf("got %v, want ErrListing", err)
	}
	f.Set(storetest.List, storetest.None)
	list, _ := f.List(ctx, "a")
	f.Once(storetest.Delete, storetest.Drop, storetest.Applied)
	if err := f.Delete(ctx, list[0]); err != nil {
		t.Error(err)
	}
	if _, err := f.Get(ctx, "a", "", 0); err != nil {
		t.Errorf("a dropped Delete deleted: %v", err)
	}
	if err := f.Delete(ctx, list[0]); !errors.Is(err, storetest.ErrFault) {
		t.Errorf("got %v, want ErrFault", err)
	}
	if _, err := f.Get(ctx, "a", "", 0); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

// R19: what was sent is seen also where the call failed.
func TestLeaks(t *testing.T) {
	f := &storetest.Faulty{Inner: new(mem.Store), Record: true}
	f.Set(storetest.Any, storetest.Unreachable)
	f.Put(t.Context(), "name", []byte("the seed words"))
	f.List(t.Context(), "prefix-of-ann")
	for needle, want := range map[string]bool{"seed": true, "ann": true, "name": true, "bob": false} {
		if got := f.Leaks([]byte(needle)); got != want {
			t.Errorf("%q: got %v, want %v", needle, got, want)
		}
	}
}

// A call chosen by name can be stalled to stage a race.
func TestChoose(t *testing.T) {
	f := &storetest.Faulty{Inner: new(mem.Store)}
	f.Choose(func(op storetest.Op, name string) storetest.Fault {
		if op == storetest.Put && name == "a" {
			return storetest.Full
		}
		return storetest.None
	})
	if err := f.Put(t.Context(), "a", nil); !errors.Is(err, store.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if err := f.Put(t.Context(), "b", nil); err != nil {
		t.Error(err)
	}
}
