//go:build unix

package folder_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
)

// atOnce fails the test if do waits, as opening a pipe without another end does.
func atOnce(t *testing.T, what string, do func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatalf("%s waits", what)
		return nil
	}
}

func fifo(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

// H7: a pipe in the place of the folder, of a directory or of an object makes no
// call wait. L5: who must remove it is told so.
func TestPipes(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := create(t, dir)
	put(t, s, "w/slots/x", "x")
	fifo(t, filepath.Join(dir, "w", "snapshots"))
	fifo(t, filepath.Join(dir, "w", "slots", "pipe"))
	for _, test := range []struct{ name, remove string }{
		{"w/snapshots/x", "w/snapshots"}, {"w/snapshots", "w/snapshots"}, {"w/slots/pipe", "w/slots/pipe"},
	} {
		asks := func(what string, err, want error) {
			t.Helper()
			text := "not a regular file stands there: remove " + test.remove + " by hand"
			if want != nil && !errors.Is(err, want) || err == nil || !strings.HasSuffix(err.Error(), text) {
				t.Errorf("%s(%s): got %v, want %v, %s", what, test.name, err, want, text)
			}
		}
		var exist error
		if test.name == test.remove {
			exist = store.ErrExist
		}
		asks("Put", atOnce(t, "Put", func() error { return s.Put(ctx, test.name, nil) }), exist)
		asks("Get", atOnce(t, "Get", func() error { _, err := s.Get(ctx, test.name, "", 9); return err }), store.ErrDamaged)
		asks("Delete", atOnce(t, "Delete", func() error { return s.Delete(ctx, store.Object{Name: test.name}) }), nil)
	}
	for _, prefix := range []string{"", "w/", "w/snapshots/", "w/slots/p"} {
		err := atOnce(t, "List", func() error { _, err := s.List(ctx, prefix); return err })
		if err != nil {
			t.Errorf("List(%s): %v", prefix, err)
		}
	}
	if got := listed(t, s); len(got) != 1 {
		t.Errorf("got %q, want the one object", got)
	}

	pipe := filepath.Join(t.TempDir(), "pipe")
	fifo(t, pipe)
	s = existing(t, pipe)
	atOnce(t, "a call", func() error { wantUnreachable(t, s); return nil })
	err := atOnce(t, "New", func() error { _, err := folder.New(pipe, folder.Config{Create: true}); return err })
	if err == nil {
		t.Error("New took a pipe for a folder")
	}
}

// L5: a directory where an object belongs is no object, and nothing is put there.
func TestDirectoryForObject(t *testing.T) {
	s := create(t, t.TempDir())
	put(t, s, "w/x/y", "y")
	err := s.Put(t.Context(), "w/x", nil)
	if !errors.Is(err, store.ErrExist) || !strings.Contains(err.Error(), "remove w/x by hand") {
		t.Errorf("got %v, want ErrExist and what to remove", err)
	}
	if _, err := s.Get(t.Context(), "w/x", "", 9); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

// H7: while another process swaps directories and files for pipes and back, no
// call waits.
func TestSwappedForPipes(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := create(t, dir)
	put(t, s, "w/d/file", "x")
	put(t, s, "w/e/file", "x")
	for i := range 50 { // To be looked at between w and w/d.
		write(t, dir, "w", fmt.Sprint(i))
	}
	end := time.Now().Add(time.Second)
	var wg sync.WaitGroup
	for _, name := range []string{"w/d", "w/e/file"} {
		at := filepath.Join(dir, filepath.FromSlash(name))
		away, pipe := at+"-away", at+"-pipe"
		fifo(t, pipe)
		wg.Go(func() {
			for time.Now().Before(end) {
				os.Rename(at, away)
				os.Rename(pipe, at)
				runtime.Gosched()
				os.Rename(at, pipe)
				if os.Rename(away, at) != nil {
					os.RemoveAll(at) // A Put made the directory in between.
					os.Rename(away, at)
				}
				runtime.Gosched()
			}
		})
	}
	object := func(name string) func() {
		return func() {
			s.Put(ctx, name, []byte("x"))
			s.Delete(ctx, store.Object{Name: name})
		}
	}
	list := func() { s.List(ctx, "") }
	get := func() { s.Get(ctx, "w/e/file", "", 9) }
	for _, call := range []func(){list, list, get, get, object("w/d/new"), object("w/e/new")} {
		wg.Go(func() {
			for time.Now().Before(end) {
				call()
			}
		})
	}
	atOnce(t, "a call", func() error { wg.Wait(); return nil })
}
