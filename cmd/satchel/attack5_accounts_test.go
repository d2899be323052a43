//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"
)

// R10: an account is its id. Another name of it is no other account, and no second place;
// another account of its name is one, also where the key is gone that seals the sign-ins.
func TestAttack5AccountIsItsID(t *testing.T) {
	t.Parallel()
	p, cloud, _ := online(t)
	ann := cloud.AddAccount("1001", "ann@example.org")
	// Whose sign-in it is, the person says, where the address does not.
	p.run("store", "signin", "gdrive:")
	p.answer(`as ann@example.org. Is that your account\?`, "n")
	p.ends(25)
	p.run("store", "signin", "gdrive:")
	p.answer(`as ann@example.org. Is that your account\?`, "y")
	p.ends(0)
	kept := func() int {
		list, err := filepath.Glob(filepath.Join(p.dir, "device", "sign-ins", "*.signin"))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}

	cloud.Rename(ann, "ann.new@example.org")
	p.run("store", "signin", "gdrive:ann@example.org")
	p.ends(0)
	p.run("store", "signin", "gdrive:")
	p.expect("Signed in: gdrive:ann@example.org")
	p.ends(0)
	if n := kept(); n != 1 {
		t.Errorf("one account is kept under %d names, and would be %d places", n, n)
	}

	keys, err := filepath.Glob(filepath.Join(p.dir, "device", "keychain", "*sign-ins*"))
	if err != nil || len(keys) != 1 {
		t.Fatalf("got %q, %v", keys, err)
	}
	if err := os.Remove(keys[0]); err != nil {
		t.Fatal(err)
	}
	cloud.AddAccount("2002", "ann@example.org") // The address was given to somebody else.
	p.run("store", "signin", "gdrive:ann@example.org")
	p.expect("wrong account")
	p.ends(25)
	cloud.Browse(ann)
	p.run("store", "signin", "gdrive:ann@example.org")
	p.ends(0)
}
