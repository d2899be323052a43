package folder_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
)

// decorated are what sync programs leave where b/away is not on this device.
var decorated = map[string]string{
	"iCloud":              ".away.icloud",
	"Syncthing":           ".syncthing.away.tmp",
	"Syncthing, Windows":  "~syncthing~away.tmp",
	"Nextcloud":           "away.nextcloud",
	"ownCloud":            "away.owncloud",
	"OpenCloud's Desktop": "away.opencloud",
}

// R2, R5: an object that a sync program took off this device, or has not brought
// yet, is neither absent nor left out, and nothing is put or deleted in its place.
func TestAway(t *testing.T) {
	for program, file := range decorated {
		t.Run(program, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, dir := t.Context(), t.TempDir()
				s := create(t, dir)
				put(t, s, "b/here", "x")
				write(t, dir, "b", file)
				if diff := cmp.Diff([]string{"b/away", "b/here"}, listed(t, s)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				for prefix, want := range map[string]int{"b/": 2, "b/a": 1, "b/away": 1, "b/here": 1, "b/away.": 0, "b/.": 0, "b/~": 0, "c": 0} {
					if list, err := s.List(ctx, prefix); err != nil || len(list) != want {
						t.Errorf("prefix %q: got %v, %v, want %d", prefix, list, err, want)
					}
				}
				list, err := s.List(ctx, "b/away")
				if err != nil || len(list) != 1 {
					t.Fatal(list, err)
				}
				for what, call := range map[string]func() error{
					"Get":        func() error { _, err := s.Get(ctx, "b/away", "", 9); return err },
					"Get a hash": func() error { _, err := s.Get(ctx, "b/away", store.Sum(nil), 9); return err },
					"Put":        func() error { return s.Put(ctx, "b/away", nil) },
					"Delete":     func() error { return s.Delete(ctx, list[0]) },
				} {
					begin := time.Now()
					err := call()
					if !errors.Is(err, store.ErrUnreachable) || !strings.Contains(err.Error(), "not downloaded yet") {
						t.Errorf("%s: got %v, want ErrUnreachable", what, err)
					}
					if waited := time.Since(begin); waited != 30*time.Second {
						t.Errorf("%s waited %v, want 30s", what, waited)
					}
					ended, cancel := context.WithTimeout(ctx, time.Second)
					begin = time.Now()
					_, err = s.Get(ended, "b/away", "", 9)
					if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, store.ErrUnreachable) || time.Since(begin) != time.Second {
						t.Errorf("%s: got %v after %v, want the deadline's after 1s", what, err, time.Since(begin))
					}
					cancel()
				}
				if _, err := os.Lstat(filepath.Join(dir, "b", file)); err != nil {
					t.Errorf("what stood for it: %v", err)
				}
				if _, err := os.Lstat(filepath.Join(dir, "b", "away")); err == nil {
					t.Error("something was put in its place")
				}
				// Of an object that is away nothing follows for others.
				if _, err := s.Get(ctx, "b/awa", "", 9); !errors.Is(err, store.ErrNotExist) {
					t.Errorf("got %v, want ErrNotExist", err)
				}
			})
		})
	}
}

// A call waits until the file comes, and asks for it once.
func TestArrives(t *testing.T) {
	for program, file := range decorated {
		t.Run(program, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, dir := t.Context(), t.TempDir()
				s := create(t, dir)
				bring := func(how func(from, to string) error) {
					write(t, dir, "b", file)
					var asked []string
					folder.SetFetch(s, func(_ context.Context, file string) {
						asked = append(asked, file)
						go func() {
							time.Sleep(3 * time.Second)
							if err := how(file, filepath.Join(dir, "b", "away")); err != nil {
								t.Error(err)
							}
						}()
					})
					t.Cleanup(func() {
						if !slices.Equal(asked, []string{filepath.Join(dir, "b", file)}) {
							t.Errorf("asked for %q", asked)
						}
					})
				}
				bring(os.Rename)
				if got, err := s.Get(ctx, "b/away", store.Sum([]byte("x")), 9); string(got) != "x" {
					t.Errorf("Get: got %q, %v", got, err)
				}
				bring(os.Rename)
				os.Remove(filepath.Join(dir, "b", "away"))
				if err := s.Put(ctx, "b/away", []byte("x")); err != nil {
					t.Errorf("Put of the same: %v", err)
				}
				bring(os.Rename)
				os.Remove(filepath.Join(dir, "b", "away"))
				if err := s.Put(ctx, "b/away", []byte("y")); !errors.Is(err, store.ErrExist) {
					t.Errorf("Put of others: got %v, want ErrExist", err)
				}
				bring(os.Rename)
				os.Remove(filepath.Join(dir, "b", "away"))
				if err := s.Delete(ctx, store.Object{Name: "b/away"}); err != nil {
					t.Errorf("Delete: %v", err)
				}
				if got := listed(t, s); len(got) != 0 {
					t.Errorf("got %q, want none", got)
				}
				// What is deleted elsewhere meanwhile is absent then.
				bring(func(from, _ string) error { return os.Remove(from) })
				if _, err := s.Get(ctx, "b/away", "", 9); !errors.Is(err, store.ErrNotExist) {
					t.Errorf("got %v, want ErrNotExist", err)
				}
			})
		})
	}
}

// Where the file itself is there, what stands beside it counts for nothing.
func TestPlaceholderBeside(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s, err := folder.New(dir, folder.Config{Create: true, Patience: -1})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "b/away", "here")
	for _, file := range decorated {
		write(t, dir, "b", file)
	}
	if got, err := s.Get(ctx, "b/away", "", 9); string(got) != "here" {
		t.Errorf("got %q, %v", got, err)
	}
	list, err := s.List(ctx, "")
	if err != nil || len(list) != 1 || list[0].Size != 4 {
		t.Errorf("got %v, %v, want one of 4 bytes", list, err)
	}
	// With no patience there is no waiting.
	write(t, dir, "b", ".other.icloud")
	begin := time.Now()
	if _, err := s.Get(ctx, "b/other", "", 9); !errors.Is(err, store.ErrUnreachable) || time.Since(begin) > 5*time.Second {
		t.Errorf("got %v after %v, want ErrUnreachable at once", err, time.Since(begin))
	}
	if err := s.Delete(ctx, store.Object{Name: "b/away"}); err != nil {
		t.Error(err)
	}
}

// What merely looks like a placeholder is none, and names of their form are refused.
func TestNoPlaceholder(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := create(t, dir)
	for _, name := range []string{"b/away.nextcloud", "b/away.owncloud", "~syncthing~away.tmp"} {
		if err := s.Put(ctx, name, []byte("long enough")); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, file := range []string{".icloud", "..icloud", "..x.icloud", ".x.icloud/in", "x.icloud", ".syncthing..tmp", "syncthing.x.tmp", "~syncthing~.tmp"} {
		write(t, dir, filepath.FromSlash("c/"+file))
	}
	if err := os.WriteFile(filepath.Join(dir, "c", "photos.nextcloud"), []byte("of people, not of programs"), 0o600); err != nil {
		t.Fatal(err)
	}
	symlink(t, "x", filepath.Join(dir, "c", ".link.icloud"))
	if diff := cmp.Diff([]string{"c/photos.nextcloud", "c/syncthing.x.tmp", "c/x.icloud", "c/~syncthing~.tmp"}, listed(t, s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, name := range []string{"c/x", "c/photos", "c/link"} {
		if _, err := s.Get(ctx, name, "", 99); !errors.Is(err, store.ErrNotExist) {
			t.Errorf("%s: got %v, want ErrNotExist", name, err)
		}
	}
}

// R3: what a sync program makes of a conflict is an object of its own name: it
// neither hides the first one nor is taken for it.
func TestConflictCopies(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := create(t, dir)
	put(t, s, "w/a.age", "good")
	for _, file := range []string{
		"a (Ann's conflicted copy 2026-01-01).age", "a (conflicted copy 2026-01-01 120000).age", "a.sync-conflict-20260101-120000-ABCDEFG.age",
		"a (1).age", "a 2.age", "a-DESKTOP.age", "a_conf(1).age",
	} {
		if err := os.WriteFile(filepath.Join(dir, "w", file), []byte("other"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []store.Hash{"", store.Sum([]byte("good"))} {
		if got, err := s.Get(ctx, "w/a.age", want, 99); string(got) != "good" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if _, err := s.Get(ctx, "w/a.age", store.Sum([]byte("other")), 99); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
	if got := listed(t, s); len(got) != 8 || !slices.Contains(got, "w/a.age") {
		t.Errorf("got %q", got)
	}
	if err := s.Delete(ctx, store.Object{Name: "w/a.age"}); err != nil {
		t.Error(err)
	}
	if got := listed(t, s); len(got) != 7 {
		t.Errorf("got %q, want the copies", got)
	}
	if _, err := s.Get(ctx, "w/a.age", "", 99); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}
