//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The files of a Core Lightning node are saved at every change while a watch runs; a node
// that is set up anew in the directory is not, and the watch says so and goes on.
func TestWatchCLN(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	dir := filepath.Join(p.dir, "bitcoin")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// As lightningd does it: another file takes the place.
	replace := func(name, data string) {
		t.Helper()
		writeFile(t, filepath.Join(dir, "tmp"), data)
		rename(t, filepath.Join(dir, "tmp"), filepath.Join(dir, name))
	}
	replace("hsm_secret", strings.Repeat("A", 32))
	p.does(0, "create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--json")
	w := p.watch()
	w.sees("watching", "")
	// Connected while it runs.
	p.does(0, "cln", "connect", dir)
	w.sees("watching", "hsm_secret")
	replace("emergency.recover", strings.Repeat("1", 200))
	if e := w.sees("saved", "lightning/cln/emergency.recover"); e.Protected == nil || !*e.Protected {
		t.Errorf("not protected: %+v", e)
	}
	replace("emergency.recover", strings.Repeat("2", 300))
	w.sees("saved", "lightning/cln/emergency.recover")

	replace("hsm_secret", strings.Repeat("B", 32))
	replace("emergency.recover", strings.Repeat("3", 60))
	if e := w.sees("source failed", ""); !strings.Contains(e.Error, "another one than is kept") {
		t.Errorf("got %+v", e)
	}
	if got := p.does(0, "get", "lightning/cln/emergency.recover"); got != strings.Repeat("2", 300) {
		t.Errorf("got %q", got)
	}
	// The drive with the right one is back: it goes on by itself.
	replace("hsm_secret", strings.Repeat("A", 32))
	replace("emergency.recover", strings.Repeat("4", 400))
	w.sees("saved", "lightning/cln/emergency.recover")
	p.does(0, "cln", "disconnect")
	w.sees("watching", "")
	w.ends(syscall.SIGTERM, 0)
}
