package rclone_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/rclone"
)

// R2, R10: a remote whose drive is away, or that was signed in to another account, is no
// empty place: nothing is absent there, and nothing is written.
func TestAttack5OtherRemote(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := rclone.New("cloud:base", rclone.Config{Program: self, Env: append(os.Environ(), standinDir+"="+dir, quickEnd), Marked: true})
	if err != nil {
		t.Fatal(err)
	}
	absent := func(want error) {
		t.Helper()
		if list, err := s.List(t.Context(), "backup/"); !errors.Is(err, want) || list != nil {
			t.Errorf("List: got %v, %v, want %v", list, err, want)
		}
		if want == nil {
			want = store.ErrNotExist
		}
		for _, hash := range []store.Hash{"", store.Sum([]byte("x"))} {
			if _, err := s.Get(t.Context(), "backup/a", hash, 9); !errors.Is(err, want) {
				t.Errorf("Get: got %v, want %v", err, want)
			}
		}
	}
	absent(store.ErrUnreachable)
	for range 2 {
		if err := s.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	absent(nil)
	put(t, s, "backup/a", "content")
	if list, err := s.List(t.Context(), ""); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v, want one object", list, err)
	}
	if err := os.Rename(filepath.Join(dir, "base"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	absent(store.ErrUnreachable)
	write(t, "of somebody else", dir, "base", "other", "file")
	absent(store.ErrUnreachable)
}
