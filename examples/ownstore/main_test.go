package main

import (
	"testing"

	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return cloudStore{&records{}} })
}

func TestJourney(t *testing.T) {
	if err := backUpAndRestore(t.Context(), t.TempDir(), cloudStore{&records{}}); err != nil {
		t.Fatal(err)
	}
}
