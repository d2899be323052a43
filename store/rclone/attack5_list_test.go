package rclone_test

import (
	"errors"
	"testing"

	"github.com/satchel-backup/satchel/store"
)

// Rclone ends with the code of a missing directory also where one of many went away while
// it listed (seen with 1.60: rc 3, and the rest on its output). That is no empty store.
func TestAttack5DirectoryGoneWhileListing(t *testing.T) {
	dir := t.TempDir()
	put(t, open(t, dir, "cloud:base"), "backup/a", "content")
	s := open(t, dir, "cloud:base", standinFault+"=gone below")
	for _, prefix := range []string{"", "backup", "backup/"} {
		if list, err := s.List(t.Context(), prefix); !errors.Is(err, store.ErrListing) || list != nil {
			t.Errorf("%q: got %v, %v, want ErrListing", prefix, list, err)
		}
	}
	if list, err := s.List(t.Context(), "none/"); err != nil || list != nil {
		t.Errorf("what was never there: got %v, %v", list, err)
	}
}
