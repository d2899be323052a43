//go:build unix

package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// What root writes is the server's, who may be another user: otherwise nobody would be let
// in any more, and no record opened.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root writes for others")
	}
	w := newWorld(t)
	w.serve().stop()
	const server = 65534
	if err := filepath.Walk(w.data(), func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, server, server)
	}); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"token", "add", "ann"}, {"token", "add", "bob"}, {"token", "remove", "ann"}, {"rotate", "--prepare"}, {"rotate"}} {
		if exit, out := w.run(args...); exit != 0 {
			t.Fatalf("%v: %s", args, out)
		}
		list, err := os.ReadDir(w.data())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			if s := info.Sys().(*syscall.Stat_t); s.Uid != server || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("after %v: %s is of %d, %v", args, e.Name(), s.Uid, info.Mode())
			}
		}
	}
	// What somebody put there instead is not given away.
	other := filepath.Join(w.dir, "shadow")
	file := filepath.Join(w.data(), "tokens")
	for what, put := range map[string]func(string, string) error{"a link": os.Symlink, "another name": os.Link} {
		if err := os.WriteFile(other, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		os.Remove(file)
		if err := put(other, file); err != nil {
			t.Fatal(err)
		}
		if err := keepOwner(file); err == nil {
			t.Errorf("%s: no error", what)
		}
		if info, err := os.Stat(other); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Errorf("%s: it was given away, or %v", what, err)
		}
	}
}
