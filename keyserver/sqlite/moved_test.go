package sqlite_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/sqlite"
)

// A file that is open can be moved, replaced or deleted. What is written to it then is
// not there when the server is started again, so it does not count as written; and no
// other database is made in its place. When it is back all goes on.
func TestMoved(t *testing.T) {
	for _, name := range []string{"records.db", "records.db-wal", "."} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			open := func() *sqlite.DB {
				db, err := sqlite.Open(t.Context(), filepath.Join(dir, "records.db"))
				if err != nil {
					t.Fatal(err)
				}
				return db
			}
			db := open()
			put := func(version uint64) error {
				return db.Put(t.Context(), keyserver.Write{ID: keyserver.ID{1}, Version: version, Data: []byte("x")})
			}
			if err := put(0); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, name)
			if err := os.Rename(file, filepath.Clean(file)+".away"); err != nil {
				t.Fatal(err)
			}
			if err := put(1); err == nil {
				t.Error("what was written is nowhere")
			}
			var wait sync.WaitGroup
			for range 20 {
				wait.Go(func() { db.Get(t.Context(), keyserver.ID{1}) })
			}
			wait.Wait()
			if _, err := os.Stat(filepath.Join(dir, "records.db")); err == nil && name != "records.db-wal" {
				t.Error("another one was made in its place")
			}
			if err := os.Rename(filepath.Clean(file)+".away", file); err != nil {
				t.Fatal(err)
			}
			if err := put(1); err != nil {
				t.Errorf("when it is back: %v", err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db = open()
			defer db.Close()
			if e, err := db.Get(t.Context(), keyserver.ID{1}); err != nil || e.Version != 2 {
				t.Errorf("got version %d, %v, want 2", e.Version, err)
			}
		})
	}
}
