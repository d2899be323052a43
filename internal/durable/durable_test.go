package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/internal/durable"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := durable.Disk{}.ReadFile(path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// names returns what is in dir, temporary files as "temp".
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if durable.IsTemp(e.Name()) {
			out = append(out, "temp")
		} else {
			out = append(out, e.Name())
		}
	}
	return out
}

// disks are the two kinds of Disk, each with a directory of its own.
func disks(t *testing.T, test func(t *testing.T, d durable.Disk, path func(string) string)) {
	t.Run("system", func(t *testing.T) {
		dir := t.TempDir()
		test(t, durable.Disk{}, func(name string) string { return filepath.Join(dir, name) })
	})
	t.Run("root", func(t *testing.T) {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { root.Close() })
		test(t, durable.Disk{Root: root}, func(name string) string { return name })
	})
}

func TestFiles(t *testing.T) {
	disks(t, func(t *testing.T, d durable.Disk, path func(string) string) {
		check := func(want string) {
			t.Helper()
			got, err := d.ReadFile(path("a"), 100)
			if err != nil || string(got) != want {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		}
		if err := d.CreateFile(path("a"), []byte("one"), 0o600); err != nil {
			t.Fatal(err)
		}
		check("one")
		if err := d.CreateFile(path("a"), []byte("two"), 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("got %v, want ErrExist", err)
		}
		check("one")
		if err := d.WriteFile(path("a"), []byte("two"), 0o600); err != nil {
			t.Error(err)
		}
		check("two")
		if _, err := d.ReadFile(path("a"), 2); !errors.Is(err, durable.ErrTooLarge) {
			t.Errorf("got %v, want ErrTooLarge", err)
		}
		if _, err := d.ReadFile(path("a"), 3); err != nil {
			t.Errorf("exactly the limit: %v", err)
		}
		if _, err := d.ReadFile(path("b"), 9); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want ErrNotExist", err)
		}
		if err := d.Sync(path("a")); err != nil {
			t.Error(err)
		}

		if err := d.MkdirAll(path("x/y/z"), 0o700); err != nil {
			t.Error(err)
		}
		if err := d.MkdirAll(path("x/y/z"), 0o700); err != nil {
			t.Errorf("again: %v", err)
		}
		if err := d.MkdirAll(path("a/b"), 0o700); err == nil {
			t.Error("made a directory in a file")
		}
		if _, err := d.ReadFile(path("x"), 9); !errors.Is(err, durable.ErrNotRegular) {
			t.Errorf("directory: got %v, want ErrNotRegular", err)
		}
		if err := d.WriteFile(path("x/y/z/f"), nil, 0o600); err != nil {
			t.Error(err)
		}
		if err := d.Remove(path("x/y/z")); err == nil {
			t.Error("removed a directory with a file in it")
		}
		if err := d.Remove(path("a")); err != nil {
			t.Error(err)
		}
		if err := d.Remove(path("a")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want ErrNotExist", err)
		}
		if err := d.Remove(path("absent/a")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want ErrNotExist", err)
		}
		for range 2 {
			if err := d.RemoveAll(path("x")); err != nil {
				t.Error(err)
			}
		}
		if err := d.RemoveAll(path("absent/x")); err != nil {
			t.Error(err)
		}
	})
}

// A link in the place of a file is never read, and replaced rather than followed.
func TestLinks(t *testing.T) {
	disks(t, func(t *testing.T, d durable.Disk, path func(string) string) {
		if err := d.WriteFile(path("target"), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		symlink := os.Symlink
		if d.Root != nil {
			symlink = d.Root.Symlink
		}
		if err := symlink("target", path("link")); err != nil {
			t.Skip("no symbolic links here:", err)
		}
		if _, err := d.ReadFile(path("link"), 100); !errors.Is(err, durable.ErrNotRegular) {
			t.Errorf("got %v, want ErrNotRegular", err)
		}
		if _, _, _, err := d.OpenLog(path("link")); !errors.Is(err, durable.ErrNotRegular) {
			t.Errorf("got %v, want ErrNotRegular", err)
		}
		if err := d.CreateFile(path("link"), []byte("x"), 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("got %v, want ErrExist", err)
		}
		if err := d.WriteFile(path("link"), []byte("x"), 0o600); err != nil {
			t.Error(err)
		}
		if got, err := d.ReadFile(path("target"), 100); string(got) != "precious" {
			t.Errorf("wrote through the link: %q, %v", got, err)
		}
		// A link that leads nowhere is something, too.
		if err := symlink("nowhere", path("dangling")); err != nil {
			t.Fatal(err)
		}
		if err := d.CreateFile(path("dangling"), []byte("x"), 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("got %v, want ErrExist", err)
		}
	})
}

func TestRenameDir(t *testing.T) {
	disks(t, func(t *testing.T, d durable.Disk, path func(string) string) {
		make := func(name, content string) {
			if err := d.MkdirAll(path(name), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := d.WriteFile(path(name+"/f"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		check := func(name, want string) {
			t.Helper()
			got, err := d.ReadFile(path(name+"/f"), 9)
			if err != nil || string(got) != want {
				t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
			}
		}
		make("new", "new")
		make("live", "live")
		// R15: a live wallet is never replaced by a restored one.
		if err := d.RenameDir(path("new"), path("live")); !errors.Is(err, fs.ErrExist) {
			t.Errorf("got %v, want ErrExist", err)
		}
		check("live", "live")
		check("new", "new")
		if err := d.RenameDir(path("new"), path("live/f")); !errors.Is(err, fs.ErrExist) {
			t.Errorf("got %v, want ErrExist", err)
		}
		if err := d.RenameDir(path("live/f"), path("other")); err == nil {
			t.Error("renamed a file")
		}
		if err := d.RenameDir(path("absent"), path("other")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want ErrNotExist", err)
		}
		if err := d.MkdirAll(path("p/empty"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := d.RenameDir(path("new"), path("p/empty")); err != nil {
			t.Error(err)
		}
		check("p/empty", "new")
		if err := d.RenameDir(path("p/empty"), path("elsewhere")); err != nil {
			t.Error(err)
		}
		check("elsewhere", "new")
	})
}

// Of many that create one file, one succeeds, whichever way the file system has
// to give a file its name.
func TestCreateRace(t *testing.T) {
	for _, lack := range []int{0, 1, 2} {
		t.Run(fmt.Sprint("ways missing ", lack), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			var wg sync.WaitGroup
			var mu sync.Mutex
			winner := ""
			for i := range 16 {
				d := without(lack)
				wg.Go(func() {
					mine := strings.Repeat(fmt.Sprint(i%10), 1000+i)
					err := d.CreateFile(path, []byte(mine), 0o600)
					if err == nil {
						mu.Lock()
						defer mu.Unlock()
						if winner != "" {
							t.Error("created twice")
						}
						winner = mine
					} else if !errors.Is(err, fs.ErrExist) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if got := read(t, path); got != winner {
				t.Errorf("got %d bytes, want the winner's %d", len(got), len(winner))
			}
			if got := names(t, filepath.Dir(path)); len(got) != 1 {
				t.Errorf("got %v, want the file alone", got)
			}
		})
	}
}

// without returns a Disk on a file system that lacks the first n ways to give a
// file its name: hard links, and a rename that refuses to replace.
func without(n int) durable.Disk {
	var mu sync.Mutex
	refused := map[string]bool{}
	return durable.Disk{Hook: func(s durable.Step) error {
		mu.Lock()
		defer mu.Unlock()
		if n > 0 && s.Op == durable.OpLink {
			return errors.ErrUnsupported
		}
		if n > 1 && s.Op == durable.OpRename && !refused[s.Path] {
			refused[s.Path] = true
			return errors.ErrUnsupported
		}
		return nil
	}}
}

func TestCreateWithoutLinks(t *testing.T) {
	for _, lack := range []int{1, 2} {
		path := filepath.Join(t.TempDir(), "f")
		if err := without(lack).CreateFile(path, []byte("one"), 0o600); err != nil {
			t.Error(err)
		}
		if err := without(lack).CreateFile(path, []byte("two"), 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("got %v, want ErrExist", err)
		}
		if got := read(t, path); got != "one" {
			t.Errorf("got %q, want one", got)
		}
	}
}

// record returns a Disk that writes down what it did.
func record(steps *[]durable.Op) durable.Disk {
	return durable.Disk{Hook: func(s durable.Step) error {
		if s.Done {
			*steps = append(*steps, s.Op)
		}
		return nil
	}}
}

// The order is what makes files whole after a power cut: bytes before the name,
// the name before the answer.
func TestOrder(t *testing.T) {
	const (
		write, sync, link, rename, syncdir = durable.OpWrite, durable.OpSync, durable.OpLink, durable.OpRename, durable.OpSyncDir
		mkdir, remove, add, truncate       = durable.OpMkdir, durable.OpRemove, durable.OpAppend, durable.OpTruncate
	)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	var steps []durable.Op
	d := record(&steps)
	var log *durable.Log
	for _, test := range []struct {
		name string
		do   func() error
		want []durable.Op
	}{
		{"WriteFile", func() error { return d.WriteFile(path("a"), nil, 0o600) }, []durable.Op{write, sync, rename, syncdir}},
		{"CreateFile", func() error { return d.CreateFile(path("b"), nil, 0o600) }, []durable.Op{write, sync, link, syncdir}},
		{"Remove", func() error { return d.Remove(path("b")) }, []durable.Op{remove, syncdir}},
		{"MkdirAll", func() error { return d.MkdirAll(path("x/y"), 0o700) }, []durable.Op{mkdir, syncdir, mkdir, syncdir}},
		{"RenameDir", func() error { return d.RenameDir(path("x/y"), path("z")) }, []durable.Op{rename, syncdir, syncdir}},
		{"RemoveAll", func() error { return d.RemoveAll(path("x")) }, []durable.Op{remove, syncdir}},
		{"Sync", func() error { return d.Sync(path("a")) }, []durable.Op{sync, syncdir}},
		{"OpenLog", func() (err error) { log, _, _, err = d.OpenLog(path("l")); return err }, []durable.Op{write, sync, rename, syncdir}},
		{"Append", func() error { return log.Append([]byte("r")) }, []durable.Op{add, sync}},
		{"AppendAll", func() error { return log.AppendAll([][]byte{nil, nil}) }, []durable.Op{add, sync}},
		{"OpenLog again", func() (err error) { log, _, _, err = d.OpenLog(path("l")); return err }, []durable.Op{sync, syncdir}},
		{"Rewrite", func() error { return log.Rewrite(nil) }, []durable.Op{write, sync, rename, syncdir}},
		{"OpenLog torn", func() (err error) {
			f, err := os.OpenFile(path("l"), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			f.WriteString("x")
			_, _, _, err = d.OpenLog(path("l"))
			return err
		}, []durable.Op{truncate, sync, syncdir}},
	} {
		steps = nil
		if err := test.do(); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if diff := cmp.Diff(test.want, steps); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// Each step fails both ways, not applied and applied: the file is the old one or
// the new one, and no temporary file stays.
func TestStepsFail(t *testing.T) {
	broken := errors.New("broken")
	for _, create := range []bool{false, true} {
		for n := 0; ; n++ {
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			if !create {
				if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			count := 0
			var failed durable.Step
			d := durable.Disk{Hook: func(s durable.Step) error {
				count++
				if count == n+1 {
					failed = s
					return broken
				}
				return nil
			}}
			var err error
			if create {
				err = d.CreateFile(path, []byte("new"), 0o600)
			} else {
				err = d.WriteFile(path, []byte("new"), 0o600)
			}
			if count <= n {
				if n < 6 {
					t.Errorf("only %d steps", n)
				}
				break
			}
			got, readErr := os.ReadFile(path)
			switch {
			case string(got) == "new": // With or without an error.
			case err == nil:
				t.Errorf("create %v, %v: no error, and %q, %v", create, failed, got, readErr)
			case create && errors.Is(readErr, fs.ErrNotExist):
			case !create && string(got) == "old":
			default:
				t.Errorf("create %v, %v: got %q, %v", create, failed, got, readErr)
			}
			if err != nil && !errors.Is(err, broken) {
				t.Errorf("create %v, %v: got %v, want the hook's error", create, failed, err)
			}
			for _, name := range names(t, dir) {
				if name != "f" {
					t.Errorf("create %v, %v: left %s", create, failed, name)
				}
			}
		}
	}
}

func TestCleanTemp(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	for name, age := range map[string]time.Duration{
		".satchel-OLD.tmp": 48 * time.Hour, ".satchel-NEW.tmp": 0, "mine.tmp": 48 * time.Hour, ".satchel-": 48 * time.Hour,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, ".satchel-DIR.tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := (durable.Disk{}).CleanTemp(dir, now.Add(time.Hour-24*time.Hour)); err != nil {
		t.Error(err)
	}
	got, _ := os.ReadDir(dir)
	var have []string
	for _, e := range got {
		have = append(have, e.Name())
	}
	if diff := cmp.Diff([]string{".satchel-", ".satchel-DIR.tmp", ".satchel-NEW.tmp", "mine.tmp"}, have); diff != "" {
		t.Error(diff)
	}
	if err := (durable.Disk{}).CleanTemp(filepath.Join(dir, "absent"), now); err != nil {
		t.Error(err)
	}
}

func TestLock(t *testing.T) {
	disks(t, func(t *testing.T, d durable.Disk, path func(string) string) {
		first, err := d.Lock(path("lock"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Lock(path("lock")); !errors.Is(err, durable.ErrLocked) {
			t.Errorf("got %v, want ErrLocked", err)
		}
		if err := first.Unlock(); err != nil {
			t.Error(err)
		}
		second, err := d.Lock(path("lock"))
		if err != nil {
			t.Fatal(err)
		}
		second.Unlock()
	})
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes on Windows")
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := (durable.Disk{}).WriteFile(path, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("got %v, %v, want 0600", info.Mode(), err)
	}
}

// Readers of a file that is replaced all the time see whole files only.
func TestReadersSeeWholeFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	content := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 100+i) }
	var d durable.Disk
	if err := d.WriteFile(path, content(0), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 200 {
				got, err := d.ReadFile(path, 1<<10)
				if err != nil {
					t.Error(err)
				} else if !bytes.Equal(got, content(len(got)-100)) {
					t.Error("torn")
				}
			}
		})
	}
	for i := range 50 {
		if err := d.WriteFile(path, content(i), 0o600); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}
