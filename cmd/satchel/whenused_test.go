package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// A store that is opened when it is used keeps the contract.
func TestWhenUsed(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) store.Store {
		return &whenUsed{open: func() (store.Store, error) { return &mem.Store{}, nil }, now: time.Now, patient: true, kept: func() time.Time { return time.Time{} }}
	})
}

// R9: a password that was refused is not sent again and again; a new one is sent at once.
func TestRefusedPassword(t *testing.T) {
	t.Parallel()
	now, kept := time.Unix(1_800_000_000, 0), time.Unix(1, 0)
	server := &storetest.Faulty{Inner: &mem.Store{}}
	opened := 0
	s := &whenUsed{
		open: func() (store.Store, error) { opened++; return server, nil },
		now:  func() time.Time { return now }, kept: func() time.Time { return kept }, patient: true,
	}
	list := func() error {
		_, err := s.List(context.Background(), "")
		return err
	}
	if err := list(); err != nil {
		t.Fatal(err)
	}
	server.Set(storetest.Any, storetest.SignIn)
	before := server.Count(storetest.Any)
	for range 24 * 60 { // a day of changes
		if err := list(); !errors.Is(err, store.ErrSignIn) {
			t.Fatalf("got %v, want ErrSignIn", err)
		}
		if err := s.Put(context.Background(), "a", nil); !errors.Is(err, store.ErrSignIn) {
			t.Fatalf("got %v, want ErrSignIn", err)
		}
		now = now.Add(time.Minute)
	}
	if n := server.Count(storetest.Any) - before; n < 20 || n > 32 {
		t.Errorf("the password was sent %d times in a day, want about once an hour", n)
	}
	server.Set(storetest.Any, storetest.None)
	if err := list(); !errors.Is(err, store.ErrSignIn) {
		t.Errorf("got %v: it was to wait", err)
	}
	kept = kept.Add(time.Second)
	if err := list(); err != nil {
		t.Errorf("after another sign-in: %v", err)
	}
	if opened < 2 {
		t.Error("the new password was not read")
	}
}
