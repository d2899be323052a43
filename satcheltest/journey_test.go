package satcheltest_test

import (
	"os"
	"testing"

	"github.com/satchel-backup/satchel/satcheltest"
)

// Flushing is free on a file system in memory.
func TestMain(m *testing.M) {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		os.Setenv("TMPDIR", "/dev/shm")
	}
	os.Exit(m.Run())
}

func TestJourney(t *testing.T) { satcheltest.Journey(t, notesApp{}) }
