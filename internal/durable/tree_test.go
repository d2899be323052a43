package durable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestTree(t *testing.T) {
	dir := t.TempDir()
	var d Disk
	if err := d.MkdirAll(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "sub", "f")
	for _, text := range []string{"a longer text", "short"} {
		if err := d.WriteTree(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := d.ReadFile(path, 100); err != nil || string(got) != text {
			t.Fatalf("got %q, %v, want %q", got, err, text)
		}
	}
	for name, flush := range map[string]func(string) error{"all at once": d.SyncTree, "one after another": d.flushTree} {
		if err := flush(dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := flush(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: got %v for a directory that is absent, want os.ErrNotExist", name, err)
		}
	}
	fault := errors.New("fault")
	for _, op := range []Op{OpWrite, OpSync} {
		for _, done := range []bool{false, true} {
			d := Disk{Hook: func(s Step) error {
				if s.Op == op && s.Done == done {
					return fault
				}
				return nil
			}}
			if err := errors.Join(d.WriteTree(path, []byte("x"), 0o600), d.SyncTree(dir)); !errors.Is(err, fault) {
				t.Errorf("%s, done %v: got %v, want the fault", op, done, err)
			}
		}
	}
}
