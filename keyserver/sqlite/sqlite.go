// Package sqlite keeps the records of a key server in one SQLite file.
//
// Writes that come at the same time are made in one transaction, with one flush of the
// disk for all of them:
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
	"sync"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver

	"github.com/satchel-backup/satchel/keyserver"
)

//go:embed migrations/*.sql
var migrations embed.FS

// most is how many writes are made in one transaction.
const most = 512

// DB is an open database.
type DB struct {
	write *sql.DB // one connection
	read  *sql.DB
	get   *sql.Stmt

	version, remove, insert, update *sql.Stmt // of write

	files []file

	puts    chan put
	end     sync.Once
	ended   chan struct{} // closed when no put is taken any more
	stopped chan struct{} // closed when those that were taken are made
}

var _ keyserver.Records = (*DB)(nil)

// put is one call of Put that waits for its transaction.
type put struct {
	writes []keyserver.Write
	done   chan error
}

// Open opens the database at path, and makes it if it is not there.
func Open(ctx context.Context, path string) (*DB, error) {
	d := &DB{puts: make(chan put, most), ended: make(chan struct{}), stopped: make(chan struct{})}
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
		d.get, err = d.read.PrepareContext(ctx, "SELECT version, data FROM records WHERE id = ?")
	}
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", errors.Join(err, d.write.Close()))
	}
	go d.run()
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
	e := keyserver.Entry{ID: id}
	err := d.get.QueryRowContext(ctx, id[:]).Scan(&e.Version, &e.Data)
	if errors.Is(err, sql.ErrNoRows) {
		return e, keyserver.ErrNoRecord
	}
	if err != nil {
		return e, fmt.Errorf("reading a record: %w", err)
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
		var e keyserver.Entry
		var id []byte
		if err := rows.Scan(&id, &e.Version, &e.Data); err != nil {
			return nil, fmt.Errorf("reading records: %w", err)
		}
		if copy(e.ID[:], id) != len(e.ID) {
			return nil, errors.New("reading records: an id has another length")
		}
		list = append(list, e)
	}
	return list, rows.Err()
}

// errClosed says that the database was closed before the write began.
var errClosed = errors.New("the database is closed")

// Put implements keyserver.Records.
func (d *DB) Put(ctx context.Context, writes ...keyserver.Write) error {
	p := put{writes, make(chan error, 1)}
	select {
	case <-d.ended:
		return errClosed
	default:
	}
	select {
	case d.puts <- p:
	case <-d.ended:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	// Once it is on its way, what becomes of it is waited for: the answer is worth more
	// than the time.
	select {
	case err := <-p.done:
		return err
	case <-d.stopped:
	}
	select {
	case err := <-p.done:
		return err
	default:
		return errClosed
	}
}

// run makes what waits, again and again, in one transaction each time.
func (d *DB) run() {
	defer close(d.stopped)
	for {
		var batch []put
		select {
		case p := <-d.puts:
			batch = append(batch, p)
		case <-d.ended:
		}
		for more := true; more && len(batch) < most; {
			select {
			case p := <-d.puts:
				batch = append(batch, p)
			default:
				more = false
			}
		}
		if len(batch) == 0 {
			return
		}
		results, err := d.commit(batch)
		for i, p := range batch {
			if err != nil {
				p.done <- fmt.Errorf("writing records: %w", err)
			} else {
				p.done <- results[i]
			}
		}
	}
}

// commit makes a batch in one transaction. Those that are stale leave no trace in it.
func (d *DB) commit(batch []put) (results []error, err error) {
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
	for i, p := range batch {
		if len(p.writes) > 1 { // All or none: the first is not made before the last is looked at.
			fresh, err := d.current(ctx, tx, p.writes)
			if err != nil {
				return nil, err
			}
			if !fresh {
				results[i] = keyserver.ErrStale
				continue
			}
		}
		for _, w := range p.writes {
			fresh, err := d.apply(ctx, tx, w)
			if err != nil {
				return nil, err
			}
			if !fresh && len(p.writes) > 1 {
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
	d.end.Do(func() { close(d.ended) })
	<-d.stopped
	return errors.Join(d.get.Close(), d.read.Close(), d.write.Close())
}
