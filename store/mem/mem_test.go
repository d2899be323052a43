package mem_test

import (
	"errors"
	"testing"

	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return new(mem.Store) })
}

// R7: two objects of one name are normal; the hash picks, the ID deletes.
func TestDuplicates(t *testing.T) {
	ctx := t.Context()
	var s mem.Store
	one, two, long := []byte("one"), []byte("two"), []byte("longer")
	for _, data := range [][]byte{one, two, long} {
		s.Add("a", data)
	}
	for _, want := range [][]byte{one, two} {
		got, err := s.Get(ctx, "a", store.Sum(want), 3)
		if err != nil || string(got) != string(want) {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if _, err := s.Get(ctx, "a", store.Sum(long), 3); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	if _, err := s.Get(ctx, "a", store.Sum([]byte("x")), 6); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
	list, err := s.List(ctx, "")
	if err != nil || len(list) != 3 {
		t.Fatalf("got %v, %v, want three", list, err)
	}
	if err := s.Delete(ctx, list[0]); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(ctx, "a", store.Sum(one), 6); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
	if _, err := s.Get(ctx, "a", store.Sum(two), 6); err != nil {
		t.Errorf("deleted the other one: %v", err)
	}
}

// A clone and its original go different ways.
func TestClone(t *testing.T) {
	ctx := t.Context()
	var s mem.Store
	s.Add("a", []byte("one"))
	s.Add("b", []byte("two"))
	c := s.Clone()
	list, err := s.List(ctx, "a")
	if err != nil || len(list) != 1 {
		t.Fatalf("got %v, %v, want one", list, err)
	}
	if err := s.Delete(ctx, list[0]); err != nil {
		t.Fatal(err)
	}
	c.Add("c", []byte("three"))
	for st, want := range map[*mem.Store]string{&s: "b", c: "abc"} {
		list, err := st.List(ctx, "")
		got := ""
		for _, o := range list {
			got += o.Name
		}
		if err != nil || got != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
	if data, err := c.Get(ctx, "a", "", 3); err != nil || string(data) != "one" {
		t.Errorf("got %q, %v, want one", data, err)
	}
}
