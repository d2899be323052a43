package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/recordtest"
	"github.com/satchel-backup/satchel/keyserver/sqlite"
)

func TestRecords(t *testing.T) {
	dir := t.TempDir()
	recordtest.Test(t, func(t *testing.T, name string) keyserver.Records {
		db, err := sqlite.Open(t.Context(), filepath.Join(dir, name+" ?#%.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	})
}
