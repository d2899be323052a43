// Package sqlite keeps the records of a key server in one SQLite file.
//
// Writes that come at the same time are made in one transaction, with one flush of the
// disk for all of them, and what is read at the same time is read at once:
//
//	db, err := sqlite.Open(ctx, "/var/lib/satchel-keyserver/records.db")
//
// The file may be used by one server at a time. A copy of it is made with sqlite3's
// .backup or VACUUM INTO while the server runs; one that is put back gives guesses
// back, so the server must be told (see keyserver.Config.AfterRestore).
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"runtime"
	"strings"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/group"
)

//go:embed migrations/*.sql
var migrations embed.FS

// most is how many writes are made in one transaction.
const most = 512

// atOnce are the numbers of records that one statement reads.
var atOnce = [...]int{1, 4, 16, 64}

// DB is an open database.
type DB struct {
	write *sql.DB // one connection
	read  *sql.DB
	get   [len(atOnce)]*sql.Stmt

	version, remove, insert, update *sql.Stmt // of write

	files []file

	puts *group.Queue[[]keyserver.Write, error]
	gets *group.Queue[keyserver.ID, found]
}

var _ keyserver.Records = (*DB)(nil)

// found is what there is of a record.
type found struct {
	keyserver.Entry
	ok bool
}

// Open opens the database at path, and makes it if it is not there.
func Open(ctx context.Context, path string) (*DB, error) {
	d := &DB{}
	var err error
	if d.write, err = open(path, "rwc"); err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	d.write.SetMaxOpenConns(1)
	if err = migrate(ctx, d.write); err == nil {
		err = d.prepare(ctx)
	}
	if err == nil {
		d.files, err = files(path, path+"-wal")
	}
	if err == nil {
		d.read, err = open(path, "rw")
	}
	if err == nil {
		d.read.SetMaxOpenConns(2 * runtime.GOMAXPROCS(0))
		d.read.SetMaxIdleConns(2 * runtime.GOMAXPROCS(0))
		for i, n := range atOnce {
			if err == nil {
				d.get[i], err = d.read.PrepareContext(ctx, "SELECT id, version, data FROM records WHERE id IN (?"+strings.Repeat(", ?", n-1)+")")
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", errors.Join(err, d.write.Close()))
	}
	d.puts = group.New(1, most, d.commit)
	d.gets = group.New(1, atOnce[len(atOnce)-1], d.look)
	return d, nil
}

// file is one that records are in, as it was when it was opened.
type file struct {
	path string
	info fs.FileInfo
}

func files(paths ...string) (list []file, err error) {
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		list = append(list, file{p, info})
	}
	return list, nil
}

// there returns an error unless the files that are open are those which the next server
// will find: what is written to one that was moved, deleted or replaced ends with this
// process.
func (d *DB) there() error {
	for _, f := range d.files {
		info, err := os.Stat(f.path)
		if err != nil {
			return fmt.Errorf("the file of the records was moved or deleted: %w", err)
		}
		if !os.SameFile(info, f.info) {
			return errors.New("another file is in the place of that of the records")
		}
	}
	return nil
}

func open(path, mode string) (*sql.DB, error) {
	// A commit is on the disk before it returns (FULL), in the log that readers do not
	// wait for (WAL).
	q := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "trusted_schema(0)"}, "_txlock": {"immediate"}, "mode": {mode}}
	return sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
}

func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// prepare prepares what writes.
func (d *DB) prepare(ctx context.Context) (err error) {
	for s, text := range map[**sql.Stmt]string{
		&d.version: "SELECT version FROM records WHERE id = ?",
		&d.remove:  "DELETE FROM records WHERE id = ? AND version = ?",
		&d.insert:  "INSERT INTO records (id, version, data) VALUES (?, 1, ?) ON CONFLICT DO NOTHING",
		&d.update:  "UPDATE records SET version = version + 1, data = ? WHERE id = ? AND version = ?",
	} {
		if *s, err = d.write.PrepareContext(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// Get implements keyserver.Records.
func (d *DB) Get(ctx context.Context, id keyserver.ID) (keyserver.Entry, error) {
	f, err := d.gets.Ask(ctx, id)
	if err != nil {
		return keyserver.Entry{ID: id}, fmt.Errorf("reading a record: %w", err)
	}
	if !f.ok {
		return keyserver.Entry{ID: id}, keyserver.ErrNoRecord
	}
	return f.Entry, nil
}

// look reads records in one statement. It begins after those who ask have asked: so it
// sees what they know to be there.
func (d *DB) look(ids []keyserver.ID) ([]found, error) {
	i := 0
	for atOnce[i] < len(ids) {
		i++
	}
	args := make([]any, atOnce[i])
	for j := range args {
		args[j] = ids[min(j, len(ids)-1)][:] // The last one again, for the places that are left.
	}
	rows, err := d.get[i].QueryContext(context.Background(), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	there := make(map[keyserver.ID]keyserver.Entry, len(ids))
	for rows.Next() {
		e, err := scan(rows)
		if err != nil {
			return nil, err
		}
		there[e.ID] = e
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	list := make([]found, len(ids))
	for i, id := range ids {
		list[i].Entry, list[i].ok = there[id]
	}
	return list, nil
}

func scan(rows *sql.Rows) (e keyserver.Entry, err error) {
	var id sql.RawBytes
	if err := rows.Scan(&id, &e.Version, &e.Data); err != nil {
		return e, err
	}
	if copy(e.ID[:], id) != len(id) || len(id) != len(e.ID) {
		return e, errors.New("an id has another length")
	}
	return e, nil
}

// Scan implements keyserver.Records.
func (d *DB) Scan(ctx context.Context, after keyserver.ID, limit int) (list []keyserver.Entry, err error) {
	rows, err := d.read.QueryContext(ctx, "SELECT id, version, data FROM records WHERE id > ? ORDER BY id LIMIT ?", after[:], limit)
	if err != nil {
		return nil, fmt.Errorf("reading records: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("reading records: %w", err)
		}
		list = append(list, e)
	}
	return list, rows.Err()
}

// Put implements keyserver.Records.
func (d *DB) Put(ctx context.Context, writes ...keyserver.Write) error {
	stale, err := d.puts.Do(ctx, writes)
	if err != nil {
		return fmt.Errorf("writing records: %w", err)
	}
	return stale
}

// commit makes a batch in one transaction. Those that are stale leave no trace in it.
func (d *DB) commit(batch [][]keyserver.Write) (results []error, err error) {
	if err := d.there(); err != nil {
		return nil, err
	}
	ctx := context.Background() // One caller that goes must not take the others along.
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	results = make([]error, len(batch))
	for i, writes := range batch {
		if len(writes) > 1 { // All or none: the first is not made before the last is looked at.
			fresh, err := d.current(ctx, tx, writes)
			if err != nil {
				return nil, err
			}
			if !fresh {
				results[i] = keyserver.ErrStale
				continue
			}
		}
		for _, w := range writes {
			fresh, err := d.apply(ctx, tx, w)
			if err != nil {
				return nil, err
			}
			if !fresh && len(writes) > 1 {
				return nil, errors.New("a record is written twice at once")
			}
			if !fresh {
				results[i] = keyserver.ErrStale
			}
		}
	}
	if err := tx.Commit(); err != nil {
		return nil, err
	}
	return results, d.there()
}

// current reports whether all records have the versions that are to be replaced. Nobody
// else writes until the transaction ends.
func (d *DB) current(ctx context.Context, tx *sql.Tx, writes []keyserver.Write) (bool, error) {
	for _, w := range writes {
		var version uint64
		err := tx.StmtContext(ctx, d.version).QueryRowContext(ctx, w.ID[:]).Scan(&version)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return false, err
		}
		if version != w.Version {
			return false, nil
		}
	}
	return true, nil
}

// apply makes one write, if the record has the version that it replaces.
func (d *DB) apply(ctx context.Context, tx *sql.Tx, w keyserver.Write) (fresh bool, err error) {
	var r sql.Result
	switch {
	case w.Data == nil:
		r, err = tx.StmtContext(ctx, d.remove).ExecContext(ctx, w.ID[:], w.Version)
	case w.Version == 0:
		r, err = tx.StmtContext(ctx, d.insert).ExecContext(ctx, w.ID[:], w.Data)
	default:
		r, err = tx.StmtContext(ctx, d.update).ExecContext(ctx, w.Data, w.ID[:], w.Version)
	}
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

// Close implements keyserver.Records. What Put has taken is made before it returns.
func (d *DB) Close() error {
	d.puts.Close()
	d.gets.Close()
	return errors.Join(d.read.Close(), d.write.Close())
}
