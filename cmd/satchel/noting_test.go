package main

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/satchel-backup/satchel/source"
)

// saying is a source that hands over what a test says, one set of changes after the other.
type saying [][]string

func (s saying) Run(ctx context.Context, save func(context.Context, ...source.Change) error) error {
	for _, names := range s {
		var changes []source.Change
		for _, n := range names {
			changes = append(changes, source.Change{Name: n})
		}
		_ = save(ctx, changes...) // What it does with an error is not looked at here.
	}
	return nil
}

// Where several sources are watched, one whose changes are kept says nothing about what
// another could not keep: that stays named until its own source went on.
func TestNotingTwoSources(t *testing.T) {
	full := errors.New("the disk is full")
	w := &watch{}
	check := func(want ...string) {
		t.Helper()
		if got := slices.Sorted(slices.Values(w.unsaved)); !slices.Equal(got, want) {
			t.Errorf("not saved: got %v, want %v", got, want)
		}
	}
	ok := func(context.Context, ...source.Change) error { return nil }
	fails := func(context.Context, ...source.Change) error { return full }
	goOn, failed, done := make(chan bool), make(chan bool), make(chan error)
	// The first source fails with a and b, and later hands over c alone.
	first := noting{turns{saying{{"a", "b"}}, saying{{"c"}}, failed, goOn}, w}
	go func() {
		tries := 0
		done <- first.Run(t.Context(), func(context.Context, ...source.Change) error {
			if tries++; tries == 1 {
				return full
			}
			return nil
		})
	}()
	<-failed
	check("a", "b")
	run := func(s saying, save func(context.Context, ...source.Change) error) {
		t.Helper()
		if err := (noting{s, w}).Run(t.Context(), save); err != nil {
			t.Fatal(err)
		}
	}
	run(saying{{"x"}}, ok)
	check("a", "b")
	run(saying{{"y"}}, fails)
	check("a", "b", "y")
	run(saying{{"y"}}, ok) // Who hands over the same name kept it.
	check("a", "b")
	goOn <- true
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	check()
}

// turns is a source that waits between two others.
type turns struct {
	first, then source.Source
	at, next    chan bool
}

func (s turns) Run(ctx context.Context, save func(context.Context, ...source.Change) error) error {
	if err := s.first.Run(ctx, save); err != nil {
		return err
	}
	s.at <- true
	<-s.next
	return s.then.Run(ctx, save)
}
