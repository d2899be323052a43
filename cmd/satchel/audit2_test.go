package main

import (
	"os"
	"path/filepath"
	"testing"
)

// One folder under two names counts as two copies.
func TestAudit2OneFolderTwice(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Skip(err)
	}
	a, err := openPlace(real, true)
	if err != nil {
		t.Fatal(err)
	}
	b, err := openPlace(link, true)
	if err != nil {
		t.Fatal(err)
	}
	if a.Address != b.Address {
		t.Errorf("%s and %s are one folder", a.Address, b.Address)
	}
}
