//go:build unix

package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
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

// pipes are the two kinds of Disk, each in a directory of its own; real is the
// path for the system.
func pipes(t *testing.T, test func(t *testing.T, d Disk, dir, real string)) {
	t.Run("system", func(t *testing.T) {
		dir := t.TempDir()
		test(t, Disk{}, dir, dir)
	})
	t.Run("root", func(t *testing.T) {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { root.Close() })
		test(t, Disk{Root: root}, "", dir)
	})
}

// A pipe that stands where a file or a directory is expected is an error, and
// nobody waits for its other end.
func TestPipe(t *testing.T) {
	pipes(t, func(t *testing.T, d Disk, dir, real string) {
		fifo(t, filepath.Join(real, "pipe"))
		pipe := filepath.Join(dir, "pipe")
		for _, test := range []struct {
			name string
			do   func() error
			want error
		}{
			{"ReadFile", func() error { _, err := d.ReadFile(pipe, 9); return err }, ErrNotRegular},
			{"Sync", func() error { return d.Sync(pipe) }, ErrNotRegular},
			{"OpenLog", func() error { _, _, _, err := d.OpenLog(pipe); return err }, ErrNotRegular},
			{"Lock", func() error { _, err := d.Lock(pipe); return err }, ErrNotRegular},
			{"WriteTree", func() error { return d.WriteTree(pipe, []byte("x"), 0o600) }, ErrNotRegular},
			{"CreateFile", func() error { return d.CreateFile(pipe, nil, 0o600) }, fs.ErrExist},
			{"CreateFile in it", func() error { return d.CreateFile(filepath.Join(pipe, "x"), nil, 0o600) }, syscall.ENOTDIR},
			{"ReadDir", func() error { _, err := d.ReadDir(pipe); return err }, syscall.ENOTDIR},
			{"SyncTree", func() error { return d.SyncTree(pipe) }, syscall.ENOTDIR},
			{"flushTree", func() error { return d.flushTree(pipe) }, syscall.ENOTDIR},
			{"flushTree above it", func() error { return d.flushTree(filepath.Join(dir, ".")) }, ErrNotRegular},
			{"CleanTemp", func() error { return d.CleanTemp(pipe, time.Now()) }, syscall.ENOTDIR},
			{"syncDir", func() error { return d.syncDir(pipe) }, syscall.ENOTDIR},
			{"renameNew", func() error { return d.renameNew(filepath.Join(pipe, "a"), filepath.Join(pipe, "b")) }, syscall.ENOTDIR},
		} {
			if err := atOnce(t, test.name, test.do); !errors.Is(err, test.want) {
				t.Errorf("%s: got %v, want %v", test.name, err, test.want)
			}
		}
	})
}

// The same when the directory becomes a pipe before any step.
func TestBecomesPipe(t *testing.T) {
	pipes(t, func(t *testing.T, d Disk, dir, real string) {
		at := filepath.Join(real, "d")
		for name, do := range map[string]func(Disk, string) error{
			"WriteFile":  func(d Disk, path string) error { return d.WriteFile(path, nil, 0o600) },
			"CreateFile": func(d Disk, path string) error { return d.CreateFile(path, nil, 0o600) },
			"Remove":     func(d Disk, path string) error { return d.Remove(path) },
			"Sync":       func(d Disk, path string) error { return d.Sync(path) },
			"MkdirAll":   func(d Disk, path string) error { return d.MkdirAll(path+"ir/x", 0o700) },
			"RenameDir":  func(d Disk, path string) error { return d.RenameDir(path+"rom", path+"to") },
		} {
			for n := 0; ; n++ {
				if err := errors.Join(os.RemoveAll(at), os.RemoveAll(at+"-away"), os.MkdirAll(filepath.Join(at, "from"), 0o700)); err != nil {
					t.Fatal(err)
				}
				if name == "Remove" || name == "Sync" {
					if err := os.WriteFile(filepath.Join(at, "f"), nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				count := 0
				d.Hook = func(s Step) error {
					if count++; count == n+1 {
						if err := os.Rename(at, at+"-away"); err != nil {
							t.Error(err)
						}
						fifo(t, at)
					}
					if name == "CreateFile" && s.Op == OpLink && !s.Done {
						return errors.ErrUnsupported // So that it goes on to renameNew.
					}
					return nil
				}
				atOnce(t, name, func() error { return do(d, filepath.Join(dir, "d", "f")) })
				if count <= n {
					break
				}
			}
		}
	})
}
