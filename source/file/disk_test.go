package file_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/source"
	"github.com/satchel-backup/satchel/source/file"
)

// real is a source at work on the system's files. Only events can tell it of
// changes: it polls once an hour.
type real struct {
	t     *testing.T
	calls chan items // what save was given

	mu   sync.Mutex
	fail int // so many saves to come
	said []*file.SkippedError
}

// watch runs a source until the test ends. It returns when what is there was saved,
// which must be something: then it watches.
func watch(t *testing.T, cfg file.Config, want items) *real {
	t.Helper()
	r := &real{t: t, calls: make(chan items, 2000)}
	cfg.Poll, cfg.Quiet = time.Hour, 100*time.Millisecond
	cfg.Report = func(e *file.SkippedError) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.said = append(r.said, e)
	}
	src, err := file.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx, r.save) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v, want %v", err, context.Canceled)
		}
	})
	r.want(want)
	return r
}

func (r *real) save(_ context.Context, changes ...source.Change) error {
	call := items{}
	for _, c := range changes {
		call[c.Name] = string(c.Value)
		if c.Remove {
			call[c.Name] = "-"
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail > 0 {
		r.fail--
		return errSave
	}
	r.calls <- call
	return nil
}

// want waits until the newest values that were saved since the last call are the
// wanted ones, and returns the calls.
func (r *real) want(want items) (calls []items) {
	r.t.Helper()
	got := items{}
	late := time.After(30 * time.Second)
	for !maps.Equal(got, want) {
		select {
		case call := <-r.calls:
			calls = append(calls, call)
			maps.Copy(got, call)
		case <-late:
			r.t.Fatalf("got %d items %.300q, want %d", len(got), fmt.Sprint(got), len(want))
		}
	}
	return calls
}

func put(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tempDir is t.TempDir with its links resolved, named d.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	dir = filepath.Join(dir, "d")
	must(t, os.Mkdir(dir, 0o700))
	return dir
}

func TestDiskFile(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	path := filepath.Join(dir, "a")
	put(t, path, "1")
	put(t, filepath.Join(dir, "other"), "1")
	r := watch(t, file.Config{Paths: []string{path}}, items{"file/a": "1"})

	put(t, filepath.Join(dir, "temp"), "renamed into place")
	must(t, os.Rename(filepath.Join(dir, "temp"), path))
	r.want(items{"file/a": "renamed into place"})

	put(t, path, "truncated and written again")
	r.want(items{"file/a": "truncated and written again"})

	must(t, os.Remove(path))
	put(t, path, "deleted and made again")
	r.want(items{"file/a": "deleted and made again"})

	// Rotated, as logs are.
	must(t, os.Rename(path, path+".1"))
	put(t, path, "rotated")
	r.want(items{"file/a": "rotated"})
}

func TestDiskPieces(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	path := filepath.Join(dir, "a")
	put(t, path, "")
	r := watch(t, file.Config{Paths: []string{dir}}, items{"file/d/a": ""})
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	piece := bytes.Repeat([]byte("0123456789abcdef"), 64)
	for range 100 {
		_, err := f.Write(piece)
		must(t, err)
	}
	whole := string(bytes.Repeat(piece, 100))
	if calls := r.want(items{"file/d/a": whole}); len(calls) > 2 {
		t.Errorf("%d calls for one change", len(calls))
	}
}

// The log of who watches, in what is watched, is left out under any name, and said once.
func TestDiskOutput(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"log", "a"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "log"), filepath.Join(dir, "second")); err != nil {
		t.Fatal(err)
	}
	log, err := os.Stat(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	var said []error
	src, err := file.New(file.Config{Paths: []string{dir}, Output: []fs.FileInfo{log}, Report: func(e *file.SkippedError) { said = append(said, e) }})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	if err := src.Once(t.Context(), func(_ context.Context, changes ...source.Change) error {
		for _, c := range changes {
			names = append(names, c.Name)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"file/" + filepath.Base(dir) + "/a"}; !slices.Equal(names, want) {
		t.Errorf("saved %q, want %q", names, want)
	}
	if len(said) != 2 || !errors.Is(said[0], file.ErrOwnOutput) || !errors.Is(said[1], file.ErrOwnOutput) {
		t.Errorf("said %v", said)
	}
}

func TestDiskDirectories(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	put(t, filepath.Join(dir, "a"), "1")
	later := filepath.Join(filepath.Dir(dir), "later")
	outside := filepath.Join(filepath.Dir(dir), "outside")
	r := watch(t, file.Config{Paths: []string{dir, filepath.Join(later, "x")}}, items{"file/d/a": "1"})

	must(t, os.MkdirAll(filepath.Join(dir, "s", "t"), 0o700))
	put(t, filepath.Join(dir, "s", "t", "b"), "2")
	r.want(items{"file/d/s/t/b": "2"})
	put(t, filepath.Join(dir, "s", "t", "b"), "3")
	r.want(items{"file/d/s/t/b": "3"})

	// A path that was not there.
	must(t, os.MkdirAll(filepath.Join(later, "x"), 0o700))
	put(t, filepath.Join(later, "x", "c"), "4")
	r.want(items{"file/x/c": "4"})

	// A whole tree that moves in, and within.
	must(t, os.MkdirAll(filepath.Join(outside, "y"), 0o700))
	put(t, filepath.Join(outside, "y", "d"), "5")
	must(t, os.Rename(outside, filepath.Join(dir, "in")))
	r.want(items{"file/d/in/y/d": "5"})
	must(t, os.Rename(filepath.Join(dir, "in"), filepath.Join(dir, "on")))
	r.want(items{"file/d/on/y/d": "5"})
	put(t, filepath.Join(dir, "on", "y", "d"), "6")
	r.want(items{"file/d/on/y/d": "6"})

	for _, n := range []string{"p", "q"} {
		must(t, os.MkdirAll(filepath.Join(dir, n, "n"), 0o700))
		put(t, filepath.Join(dir, n, "n", "f"), n)
	}
	r.want(items{"file/d/p/n/f": "p", "file/d/q/n/f": "q"})
	must(t, os.Rename(filepath.Join(dir, "p"), filepath.Join(dir, "P")))
	must(t, os.Rename(filepath.Join(dir, "q"), filepath.Join(dir, "Q")))
	r.want(items{"file/d/P/n/f": "p", "file/d/Q/n/f": "q"})
	put(t, filepath.Join(dir, "P", "n", "f"), "7")
	put(t, filepath.Join(dir, "Q", "n", "f"), "7")
	r.want(items{"file/d/P/n/f": "7", "file/d/Q/n/f": "7"})

	// The root itself goes and comes.
	must(t, os.RemoveAll(dir))
	must(t, os.Mkdir(dir, 0o700))
	put(t, filepath.Join(dir, "a"), "7")
	r.want(items{"file/d/a": "7"})
	put(t, filepath.Join(dir, "a"), "8")
	r.want(items{"file/d/a": "8"})
}

func TestDiskMany(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	put(t, filepath.Join(dir, "first"), "1")
	r := watch(t, file.Config{Paths: []string{dir}}, items{"file/d/first": "1"})
	want := items{}
	for i := range 1000 {
		put(t, filepath.Join(dir, fmt.Sprint(i)), fmt.Sprint(i))
		want["file/d/"+fmt.Sprint(i)] = fmt.Sprint(i)
	}
	calls := r.want(want)
	if len(calls) > 50 {
		t.Errorf("%d calls for 1,000 files", len(calls))
	}
	t.Logf("%d calls for 1,000 files", len(calls))
}

func TestDiskSaveFails(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	put(t, filepath.Join(dir, "a"), "1")
	r := watch(t, file.Config{Paths: []string{dir}}, items{"file/d/a": "1"})
	r.mu.Lock()
	r.fail = 1
	r.mu.Unlock()
	put(t, filepath.Join(dir, "a"), "2")
	r.want(items{"file/d/a": "2"})
}

func TestDiskRemovals(t *testing.T) {
	t.Parallel()
	for _, removals := range []bool{false, true} {
		dir := tempDir(t)
		put(t, filepath.Join(dir, "a"), "1")
		put(t, filepath.Join(dir, "b"), "1")
		r := watch(t, file.Config{Paths: []string{dir}, Removals: removals}, items{"file/d/a": "1", "file/d/b": "1"})
		must(t, os.Remove(filepath.Join(dir, "a")))
		if removals {
			r.want(items{"file/d/a": "-"})
		}
		// Were a removal due, it would go before or with this one.
		put(t, filepath.Join(dir, "b"), "2")
		r.want(items{"file/d/b": "2"})
	}
}

func TestDiskLinks(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	base := filepath.Dir(dir)
	put(t, filepath.Join(base, "secret"), "s")
	must(t, os.Mkdir(filepath.Join(base, "away"), 0o700))
	put(t, filepath.Join(base, "away", "x"), "s")
	put(t, filepath.Join(dir, "a"), "1")
	if err := os.Symlink(filepath.Join(base, "secret"), filepath.Join(dir, "link")); err != nil {
		t.Skip("no symbolic links here")
	}
	must(t, os.Symlink(filepath.Join(base, "away"), filepath.Join(dir, "linked")))
	must(t, os.Symlink(dir, filepath.Join(base, "top")))
	r := watch(t, file.Config{Paths: []string{filepath.Join(base, "top")}}, items{"file/top/a": "1"})
	put(t, filepath.Join(dir, "a"), "2")
	put(t, filepath.Join(base, "secret"), "t")
	r.want(items{"file/top/a": "2"})
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.said) != 2 || !errors.Is(r.said[0], file.ErrLink) || !errors.Is(r.said[1], file.ErrLink) {
		t.Errorf("said %v, want %v twice", r.said, file.ErrLink)
	}

	// Even one that appears at the last moment leads nowhere.
	var disk file.Disk
	for _, rel := range []string{"link", "linked/x"} {
		if b, err := disk.Read(dir, rel, 100); err == nil {
			t.Errorf("%s was read: %q", rel, b)
		}
	}
}

// Once saves what is there, tells what cannot be, and ends.
func TestOnce(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	put(t, filepath.Join(dir, "a"), "1")
	must(t, os.Mkdir(filepath.Join(dir, "s"), 0o700))
	put(t, filepath.Join(dir, "s", "b"), "2")
	put(t, filepath.Join(dir, "large"), "12345678")
	must(t, os.Symlink("a", filepath.Join(dir, "link")))
	got, fails := items{}, 0
	long := strings.Repeat("n", 250)
	put(t, filepath.Join(dir, long), "1")
	var said []string
	src, err := file.New(file.Config{
		Paths: []string{dir, filepath.Join(dir, "not there")}, MaxSize: 4, Quiet: 10 * time.Millisecond,
		Report: func(e *file.SkippedError) { said = append(said, filepath.Base(e.Path)) },
	})
	must(t, err)
	save := func(_ context.Context, changes ...source.Change) error {
		if fails > 0 {
			fails--
			return errSave
		}
		for _, c := range changes {
			got[c.Name] = string(c.Value)
		}
		return nil
	}
	must(t, src.Once(t.Context(), save))
	if want := (items{"file/d/a": "1", "file/d/s/b": "2"}); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	slices.Sort(said)
	if !slices.Equal(said, []string{"large", "link", long}) {
		t.Errorf("left out: %v", said)
	}
	left, err := src.Look(t.Context())
	must(t, err)
	want := []struct {
		name string
		err  error
	}{{"large", file.ErrTooLarge}, {"link", file.ErrLink}, {long, file.ErrName}, {"not there", fs.ErrNotExist}}
	if len(left) != len(want) || len(said) != 3 {
		t.Fatalf("a look tells %v, and said %v", left, said)
	}
	for i, w := range want {
		if filepath.Base(left[i].Path) != w.name || !errors.Is(left[i], w.err) {
			t.Errorf("a look tells %v of %s, want %v of %s", left[i], left[i].Path, w.err, w.name)
		}
	}
	fails = 1
	if err := src.Once(t.Context(), save); !errors.Is(err, errSave) || fails != 0 {
		t.Errorf("got %v, want %v", err, errSave)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := src.Once(ctx, save); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	must(t, os.RemoveAll(dir))
	must(t, src.Once(t.Context(), save)) // Nothing is there: nothing to do.
}
