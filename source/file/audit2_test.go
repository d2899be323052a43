package file_test

import (
	"testing"
	"time"

	"github.com/satchel-backup/satchel/source/file"
)

// A drive that is taken away inside a directory that is watched deletes nothing.
func TestAudit2DriveBelow(t *testing.T) {
	try(t, file.Config{Removals: true}, func(w *world) {
		w.mkdir("/d/s")
		w.replace("/d/s/b", "2")
		w.nodes["/d/s"].stamp.Dev, w.nodes["/d/s/b"].stamp.Dev = 2, 2
	}, func(tr *trial) {
		tr.want(time.Second, items{"file/d/s/b": "2"})
		tr.change(func() { // unmounted: what was below stands there, empty, and nothing is heard
			delete(tr.nodes, "/d/s/b")
			tr.nodes["/d/s"].stamp.Dev, tr.nodes["/d/s"].stamp.Ino = 1, 99
		})
		tr.want(time.Hour)
	})
}
