package folder_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
	"github.com/satchel-backup/satchel/store/storetest"
)

func create(t *testing.T, dir string) *folder.Store {
	t.Helper()
	s, err := folder.New(dir, folder.Config{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func existing(t *testing.T, dir string) *folder.Store {
	t.Helper()
	s, err := folder.New(dir, folder.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func listed(t *testing.T, s store.Store) []string {
	t.Helper()
	list, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, o := range list {
		names = append(names, o.Name)
	}
	slices.Sort(names)
	return names
}

func put(t *testing.T, s store.Store, name, data string) {
	t.Helper()
	if err := s.Put(t.Context(), name, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, elem ...string) {
	t.Helper()
	path := filepath.Join(elem...)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Skip("no symbolic links here:", err)
	}
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return create(t, filepath.Join(t.TempDir(), "new")) })
}

// The folder that the user chose may be a link; those inside it are not followed.
func TestConformanceLinkedRoot(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		link := filepath.Join(t.TempDir(), "link")
		symlink(t, t.TempDir(), link)
		return create(t, link)
	})
}

// The same on a file system without hard links, such as exFAT.
func TestConformanceWithoutLinks(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := folder.New(t.TempDir(), folder.Config{Create: true, Hook: func(s durable.Step) error {
			if s.Op == durable.OpLink {
				return errors.ErrUnsupported
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func wantUnreachable(t *testing.T, s store.Store) {
	t.Helper()
	ctx := t.Context()
	for what, err := range map[string]error{
		"Put":    s.Put(ctx, "a/b", nil),
		"Get":    func() error { _, err := s.Get(ctx, "a/b", "", 9); return err }(),
		"List":   func() error { _, err := s.List(ctx, ""); return err }(),
		"List a": func() error { _, err := s.List(ctx, "a/"); return err }(),
		"Delete": s.Delete(ctx, store.Object{Name: "a/b"}),
	} {
		if !errors.Is(err, store.ErrUnreachable) || errors.Is(err, store.ErrNotExist) {
			t.Errorf("%s: got %v, want ErrUnreachable", what, err)
		}
	}
}

// R2, R6: a drive that is not there is unknown, never "no backups", and nothing
// is written in its place.
func TestUnmounted(t *testing.T) {
	base := t.TempDir()
	drive := filepath.Join(base, "drive")

	missing := existing(t, drive)
	wantUnreachable(t, missing)
	if _, err := os.Lstat(drive); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the missing folder was made: %v", err)
	}
	if err := os.Mkdir(drive, 0o700); err != nil { // the mount point alone
		t.Fatal(err)
	}
	wantUnreachable(t, missing)
	if entries, err := os.ReadDir(drive); len(entries) != 0 || err != nil {
		t.Errorf("something was written below the drive: %v, %v", entries, err)
	}

	put(t, create(t, drive), "a/b", "x")
	if got := listed(t, missing); len(got) != 1 { // Plugged in while the program runs.
		t.Errorf("got %q", got)
	}
	s := create(t, drive)
	if err := os.Rename(drive, drive+"-away"); err != nil { // Unplugged again.
		t.Fatal(err)
	}
	wantUnreachable(t, s)
	write(t, drive) // a file in its place
	wantUnreachable(t, s)
	if err := os.Remove(drive); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(drive+"-away", drive); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, s); len(got) != 1 {
		t.Errorf("got %q", got)
	}

	// An emptied folder is not an unmounted one.
	list, _ := s.List(t.Context(), "")
	if err := s.Delete(t.Context(), list[0]); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, existing(t, drive)); len(got) != 0 {
		t.Errorf("got %q", got)
	}

	if _, err := folder.New(filepath.Join(base, "no", "such"), folder.Config{Create: true}); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("parent missing: got %v, want ErrUnreachable", err)
	}
	if _, err := folder.New("", folder.Config{}); err == nil {
		t.Error("no directory given: no error")
	}
}

// A drive that goes away in the middle of a call does not make objects absent (R2).
func TestUnmountedMidway(t *testing.T) {
	drive := filepath.Join(t.TempDir(), "drive")
	put(t, create(t, drive), "a", "x")
	s, err := folder.New(drive, folder.Config{Hook: func(s durable.Step) error {
		if s.Op == durable.OpSyncDir && s.Done {
			os.Rename(drive, drive+"-away")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	// R1: what was written to a drive that is gone is not there.
	if err := s.Put(t.Context(), "b", nil); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}

// R18: links and devices are neither listed nor followed nor deleted, and what
// sync programs leave about breaks nothing.
func TestForeignThings(t *testing.T) {
	ctx := t.Context()
	dir, outside := t.TempDir(), t.TempDir()
	s := create(t, dir)
	write(t, outside, "secret")
	put(t, s, "b/real", "x")
	symlink(t, filepath.Join(outside, "secret"), filepath.Join(dir, "b", "out"))
	symlink(t, filepath.Join(dir, "b", "real"), filepath.Join(dir, "b", "in"))
	symlink(t, outside, filepath.Join(dir, "dirout"))
	symlink(t, "b", filepath.Join(dir, "dirin"))
	symlink(t, "nowhere", filepath.Join(dir, "b", "dangling"))
	for _, name := range []string{
		".DS_Store", "b/.DS_Store", "b/._real", ".stversions/b/real", ".git/config", "b/real (1)", "Icon\r", "desktop.ini",
		"b/real (Ann's conflicted copy 2025-01-01)", "b/real.sync-conflict-20250101-120000-ABCDEFG", "lost+found/x", ".satchel-XYZ.tmp",
	} {
		if runtime.GOOS == "windows" && strings.ContainsAny(name, "\r") {
			continue
		}
		write(t, dir, name)
	}
	want := []string{
		"b/real", "b/real (1)", "b/real (Ann's conflicted copy 2025-01-01)", "b/real.sync-conflict-20250101-120000-ABCDEFG", "desktop.ini",
	}
	if diff := cmp.Diff(want, listed(t, s)); diff != "" {
		t.Errorf("listing (-want +got):\n%s", diff)
	}
	if list, err := s.List(ctx, "dirin/"); len(list) != 0 || err != nil {
		t.Errorf("listed through a link: %v, %v", list, err)
	}
	for _, name := range []string{"b/out", "b/in", "b/dangling", "dirout/secret", "dirin/real", "dirin", "dirout"} {
		_, err := s.Get(ctx, name, "", 100)
		if !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("Get(%s): got %v, want ErrDamaged, not a regular file", name, err)
		}
		if err := s.Put(ctx, name, []byte("y")); err == nil {
			t.Errorf("Put(%s): no error", name)
		}
		if err := s.Delete(ctx, store.Object{Name: name}); err == nil {
			t.Errorf("Delete(%s): no error", name)
		}
	}
	if err := s.Put(ctx, "dirout/new", []byte("y")); err == nil {
		t.Error("Put went through a link")
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("something was written or deleted outside: %v", entries)
	}
	if data, _ := os.ReadFile(filepath.Join(outside, "secret")); string(data) != "x" {
		t.Error("the file outside was changed")
	}

	// A directory that holds more than the object stays.
	if err := s.Delete(ctx, store.Object{Name: "b/real"}); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "b", ".DS_Store")); err != nil {
		t.Error(err)
	}
	put(t, s, "c/d/e", "x")
	if err := s.Delete(ctx, store.Object{Name: "c/d/e"}); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "c")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the empty directory stays: %v", err)
	}
}

// R3: a file that stands at the name is never replaced, not even a torn one.
func TestTornFile(t *testing.T) {
	dir := t.TempDir()
	s := create(t, dir)
	for _, there := range []string{"", "who", "whole and more"} {
		if err := os.WriteFile(filepath.Join(dir, "a"), []byte(there), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), "a", []byte("whole")); !errors.Is(err, store.ErrExist) {
			t.Errorf("got %v, want ErrExist", err)
		}
		if _, err := s.Get(t.Context(), "a", store.Sum([]byte("whole")), 100); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("got %v, want ErrDamaged", err)
		}
	}
	list, err := s.List(t.Context(), "a")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if err := s.Delete(t.Context(), list[0]); err != nil {
		t.Error(err)
	}
	put(t, s, "a", "whole")
}

// R14, R5: what the system says about the disk becomes what a person can act on.
func TestSystemErrors(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("errors of unix")
	}
	for _, test := range []struct {
		errno syscall.Errno
		want  error
	}{
		{syscall.ENOSPC, store.ErrFull}, {syscall.EDQUOT, store.ErrFull}, {syscall.EIO, store.ErrUnreachable}, {syscall.EDEADLK, store.ErrUnreachable},
		{syscall.ESTALE, store.ErrUnreachable}, {syscall.EACCES, fs.ErrPermission}, {syscall.EROFS, syscall.EROFS},
	} {
		dir := t.TempDir()
		create(t, dir)
		s, err := folder.New(dir, folder.Config{Hook: func(s durable.Step) error {
			if !s.Done {
				return &fs.PathError{Op: "write", Path: s.Path, Err: test.errno}
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), "a", []byte("x")); !errors.Is(err, test.want) {
			t.Errorf("%v: got %v, want %v", test.errno, err, test.want)
		}
		if got := listed(t, s); len(got) != 0 {
			t.Errorf("%v: left %q", test.errno, got)
		}
	}
}

// R2: a listing that could not be completed is an error. Root reads everything,
// so this needs another user.
func TestUnreadableDirectory(t *testing.T) {
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		t.Skip("needs a user whom modes bind")
	}
	dir := t.TempDir()
	s := create(t, dir)
	put(t, s, "a", "x")
	put(t, s, "b/c", "x")
	locked := filepath.Join(dir, "b")
	if err := os.Chmod(locked, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(locked, 0o700)
	for _, prefix := range []string{"", "b/"} {
		if list, err := s.List(t.Context(), prefix); !errors.Is(err, store.ErrListing) || !errors.Is(err, fs.ErrPermission) || list != nil {
			t.Errorf("got %v, %v, want ErrListing", list, err)
		}
	}
	if _, err := s.Get(t.Context(), "b/c", "", 9); err == nil || errors.Is(err, store.ErrNotExist) {
		t.Errorf("got %v, want unknown", err)
	}
	if err := s.Put(t.Context(), "b/d", nil); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v, want ErrPermission", err)
	}
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	wantUnreachable(t, s)
}

// Each step of a Put fails both ways. Put again, as a caller does, and the object
// is there once and whole (R1, R4).
func TestStepsFail(t *testing.T) {
	broken := errors.New("broken")
	for n := int64(1); ; n++ {
		dir := t.TempDir()
		create(t, dir)
		var count atomic.Int64
		s, err := folder.New(dir, folder.Config{Hook: func(durable.Step) error {
			if count.Add(1) == n {
				return broken
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		data := []byte("data")
		err = s.Put(t.Context(), "a/b", data)
		if count.Load() < n {
			if n < 10 {
				t.Errorf("only %d steps", n)
			}
			break
		}
		if got, getErr := s.Get(t.Context(), "a/b", store.Sum(data), 9); err == nil && getErr != nil {
			t.Errorf("step %d: Put says yes, then %q, %v", n, got, getErr)
		}
		put(t, s, "a/b", "data")
		if diff := cmp.Diff([]string{"a/b"}, listed(t, s)); diff != "" {
			t.Errorf("step %d: %s", n, diff)
		}
		if entries, _ := os.ReadDir(filepath.Join(dir, "a")); len(entries) != 1 {
			t.Errorf("step %d: left %v", n, entries)
		}
	}
}

// Who finds his bytes there already makes them durable before he says yes: the
// process that wrote them may have died before it did (R1).
func TestPutAgainIsDurable(t *testing.T) {
	dir := t.TempDir()
	put(t, create(t, dir), "a/b", "x")
	var steps []durable.Step
	s, err := folder.New(dir, folder.Config{Hook: func(s durable.Step) error {
		if s.Done {
			steps = append(steps, s)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a/b", "x")
	want := []durable.Step{
		{Op: durable.OpSync, Path: filepath.Join("a", "b"), Done: true}, {Op: durable.OpSyncDir, Path: "a", Done: true},
	}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What a crash left of an object goes when the object does: its other name at once,
// and what is old.
func TestDeletedLeftovers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	s := create(t, dir)
	put(t, s, "a/b", "x")
	put(t, s, "a/c", "x")
	twin, other, old := filepath.Join(dir, "a", ".satchel-TWIN.tmp"), filepath.Join(dir, "a", ".satchel-OTHER.tmp"), filepath.Join(dir, "a", ".satchel-OLD.tmp")
	if err := os.Link(filepath.Join(dir, "a", "b"), twin); err != nil {
		t.Skip(err)
	}
	if err := os.Link(filepath.Join(dir, "a", "c"), other); err != nil {
		t.Fatal(err)
	}
	write(t, old)
	past := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	s = create(t, dir) // Another process, later.
	if err := s.Delete(t.Context(), store.Object{Name: "a/b", ID: "a/b"}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{twin: false, old: false, other: true, filepath.Join(dir, "a", "c"): true} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s: %v, it should be there: %v", filepath.Base(path), err, want)
		}
	}
}

// Modes, and what an earlier crash left behind.
func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	s := create(t, dir)
	old, young := filepath.Join(dir, "a", ".satchel-OLD.tmp"), filepath.Join(dir, "a", ".satchel-YOUNG.tmp")
	write(t, old)
	write(t, young)
	past := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a/b/c", "x")
	put(t, s, "a/d", "x")
	if _, err := os.Lstat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old leftover stays: %v", err)
	}
	if _, err := os.Lstat(young); err != nil {
		t.Errorf("a file that may be in use was removed: %v", err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	for path, want := range map[string]fs.FileMode{"": fs.ModeDir | 0o700, "a/b": fs.ModeDir | 0o700, "a/b/c": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode() != want {
			t.Errorf("%q: got %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
}

// An element longer than the file system's limit is an error, not a crash and not "absent".
func TestLongElement(t *testing.T) {
	s := create(t, t.TempDir())
	name := strings.Repeat("n", store.MaxName)
	if err := s.Put(t.Context(), name, nil); err == nil {
		t.Skip("this file system holds it")
	}
	if got := listed(t, s); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

func TestContextEndsListing(t *testing.T) {
	s := create(t, t.TempDir())
	for i := range 5 {
		put(t, s, fmt.Sprintf("d%d/f", i), "x")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.List(ctx, ""); !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrUnreachable) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
