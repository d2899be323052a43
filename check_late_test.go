package satchel_test

import (
	"context"
	"errors"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// signedInElsewhere is a place whose uploads go to another account for a while.
type signedInElsewhere struct {
	store.Store
	now bool
}

func (s *signedInElsewhere) Put(ctx context.Context, name string, data []byte) error {
	if s.now {
		return store.ErrWrongAccount
	}
	return s.Store.Put(ctx, name, data)
}

// R5: what a place was never said to hold is late there, and not lost.
func TestCheckAfterWrongAccount(t *testing.T) {
	t.Parallel()
	st := &signedInElsewhere{Store: &mem.Store{}}
	b, _, _ := create(t, config(t, st))
	st.now = true
	if _, err := b.Save(t.Context(), item("labels", "1")); !errors.Is(err, store.ErrWrongAccount) {
		t.Fatalf("got %v, want %v", err, store.ErrWrongAccount)
	}
	st.now = false
	_, err := b.Check(t.Context())
	if !errors.Is(err, satchel.ErrNotProtected) || errors.Is(err, satchel.ErrMissing) {
		t.Errorf("got %v, want %v", err, satchel.ErrNotProtected)
	}
	if _, err := b.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
