package durable_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/satchel-backup/satchel/internal/durable"
)

// A child that is being started while the lock is given back has the file open too,
// and does not hold the lock.
func TestUnlockWithChild(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var d durable.Disk
	l, err := d.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	inherited := 0
	for _, e := range entries {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); to == path {
			fd, err := strconv.Atoi(e.Name())
			if err != nil {
				t.Fatal(err)
			}
			again, err := unix.Dup(fd)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(again)
			inherited++
			break
		}
	}
	if inherited != 1 {
		t.Fatalf("found the lock's file %d times, want 1", inherited)
	}
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
	second, err := d.Lock(path)
	if err != nil {
		t.Fatalf("after Unlock: %v", err)
	}
	second.Unlock()
}
