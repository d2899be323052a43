package main

import (
	"os"
	"path/filepath"
	"testing"
)

// One folder under two names is one place, and one copy.
func TestOneFolderTwice(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Skip(err)
	}
	a, err := testApp(t).openPlace(real, true)
	if err != nil {
		t.Fatal(err)
	}
	b, err := testApp(t).openPlace(link, true)
	if err != nil {
		t.Fatal(err)
	}
	c, err := testApp(t).openPlace(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	if !samePlace(a.Address, b.Address) || samePlace(a.Address, c.Address) || samePlace("x:"+real, "folder:"+real) {
		t.Errorf("%s and %s are one folder, and %s is another", a.Address, b.Address, c.Address)
	}
}
