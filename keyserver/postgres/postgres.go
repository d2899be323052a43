// Package postgres keeps the records of a key server in PostgreSQL, for operators who run
// several servers over one database, or want a synchronous standby:
//
//	db, err := postgres.Open(ctx, "postgres://satchel@db.example/satchel")
//
// A write of one record is made only if the record still has the version that was read.
// Writes that come at the same time are one statement, which commits by itself, and what is
// read at the same time is read at once. With synchronous_standby_names a commit is on the
// standby too before Put returns, so that no guess comes back when it is promoted. What
// would weaken this is refused, or set right for these connections: fsync = off,
// synchronous_commit below on.
//
// The address is a URL or a line of settings as libpq takes it; pool_max_conns is one of
// them. A pooler in between must keep sessions (pool_mode = session).
//
// While the database is away whoever asks is refused at once, and connections are tried
// with pauses of up to a second.
package postgres

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/group"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// connections is how many there are at most, unless the address says otherwise.
	connections = 32
	// writers and readers are how many statements of either kind run at once. More would
	// have fewer records each, and cost more.
	writers, readers = 3, 2
	// most is how many records one of them has.
	most = 256
	// patience is how long a write that was sent is waited for. It may have happened.
	patience = 20 * time.Second
	// connectTimeout is how long a connection may take, unless the address says otherwise.
	connectTimeout = 5 * time.Second
)

// settings are those of each connection. A transaction whose server lost its power must
// not keep others waiting for the hours that TCP takes to notice.
const settings = `
SET idle_in_transaction_session_timeout = '10s';
SET lock_timeout = '10s';
SELECT set_config('synchronous_commit', 'on', false)
 WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply');
`

// DB is an open database.
type DB struct {
	pool *pgxpool.Pool
	away away
	puts *group.Queue[keyserver.Write, error]
	gets *group.Queue[keyserver.ID, found]
}

// found is what there is of a record.
type found struct {
	keyserver.Entry
	ok bool
}

var _ keyserver.Records = (*DB)(nil)

// Open opens the database at an address, and makes the table if it is not there.
func Open(ctx context.Context, address string) (*DB, error) {
	d, err := connect(ctx, address)
	if err != nil {
		return nil, err
	}
	if err := d.prepare(ctx); err != nil {
		d.pool.Close()
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	d.begin()
	return d, nil
}

func connect(ctx context.Context, address string) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(address)
	if err != nil {
		// The error of the library shows the address without its password.
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	if !strings.Contains(address, "pool_max_conns") {
		cfg.MaxConns = connections
	}
	if !strings.Contains(address, "connect_timeout") {
		cfg.ConnConfig.ConnectTimeout = connectTimeout
	}
	if cfg.ConnConfig.ValidateConnect == nil {
		// After a failover the old primary is not written to, nor believed.
		cfg.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	cfg.ConnConfig.OnNotice = noticed
	d := &DB{}
	cfg.BeforeConnect = func(context.Context, *pgx.ConnConfig) error { return d.away.before() }
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		err := c.PgConn().Exec(ctx, settings).Close()
		if err == nil {
			d.away.connected()
		}
		return err
	}
	if d.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	return d, nil
}

func (d *DB) begin() {
	d.puts = group.New(writers, most, d.update)
	d.gets = group.New(readers, most, d.look)
}

// conn returns a connection, to be released.
func (d *DB) conn(ctx context.Context) (*pgxpool.Conn, error) {
	c, err := d.pool.Acquire(ctx)
	if err != nil && ctx.Err() == nil {
		d.away.failed(err)
	}
	return c, err
}

// prepare checks that a commit will be durable, and brings the table up to date. Servers
// that start at the same time do it one after the other.
func (d *DB) prepare(ctx context.Context) error {
	var fsync string
	if err := d.pool.QueryRow(ctx, "SELECT current_setting('fsync')").Scan(&fsync); err != nil {
		return err
	}
	if fsync != "on" {
		return errors.New("it has fsync = off: whenever it crashed, guesses would come back")
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	one, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	db := stdlib.OpenDBFromPool(d.pool)
	defer db.Close()
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(one))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
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
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	of := make([][]byte, len(ids))
	for i := range ids {
		of[i] = ids[i][:]
	}
	c, err := d.conn(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Release()
	rows, err := c.Query(ctx, "SELECT id, version, data FROM records WHERE id = ANY($1::bytea[])", of)
	if err != nil {
		return nil, err
	}
	entries, err := scan(rows, len(ids))
	if err != nil {
		return nil, err
	}
	there := make(map[keyserver.ID]keyserver.Entry, len(entries))
	for _, e := range entries {
		there[e.ID] = e
	}
	list := make([]found, len(ids))
	for i, id := range ids {
		list[i].Entry, list[i].ok = there[id]
	}
	return list, nil
}

// scan reads rows of id, version and data to their end.
func scan(rows pgx.Rows, size int) ([]keyserver.Entry, error) {
	defer rows.Close()
	list := make([]keyserver.Entry, 0, size)
	for rows.Next() {
		var e keyserver.Entry
		var id pgtype.DriverBytes
		if err := rows.Scan(&id, &e.Version, &e.Data); err != nil {
			return nil, err
		}
		if len(id) != len(e.ID) {
			return nil, errors.New("an id has another length")
		}
		e.ID = keyserver.ID(id)
		list = append(list, e)
	}
	return list, rows.Err()
}

// Scan implements keyserver.Records.
func (d *DB) Scan(ctx context.Context, after keyserver.ID, limit int) (list []keyserver.Entry, err error) {
	c, err := d.conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading records: %w", err)
	}
	defer c.Release()
	rows, err := c.Query(ctx, "SELECT id, version, data FROM records WHERE id > $1 ORDER BY id LIMIT $2", after[:], limit)
	if err == nil {
		list, err = scan(rows, min(limit, 1000))
	}
	if err != nil {
		return nil, fmt.Errorf("reading records: %w", err)
	}
	return list, nil
}

// Put implements keyserver.Records.
func (d *DB) Put(ctx context.Context, writes ...keyserver.Write) (err error) {
	if len(writes) == 1 && writes[0].Version != 0 && writes[0].Data != nil {
		var stale error
		if stale, err = d.puts.Do(ctx, writes[0]); err == nil {
			err = stale
		}
	} else {
		err = d.send(ctx, func(ctx context.Context, c *pgx.Conn) error {
			if len(writes) == 1 {
				return apply(ctx, c, writes[0])
			}
			return together(ctx, c, writes)
		})
	}
	if err == nil || errors.Is(err, keyserver.ErrStale) {
		return err
	}
	return fmt.Errorf("writing records: %w", err)
}

// send runs what writes on a connection.
func (d *DB) send(ctx context.Context, do func(context.Context, *pgx.Conn) error) error {
	// Having a connection is waited for as long as the caller wants. Once a write is on
	// its way it is not canceled: a commit that waits for the standby would be made
	// visible by that, and called a success, without being there.
	c, err := d.conn(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	sent, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	delete(c.Conn().PgConn().CustomData(), warning)
	if err = do(sent, c.Conn()); err == nil {
		// An administrator can end the wait for the standby. The commit is then called a
		// success, with a warning.
		if w, ok := c.Conn().PgConn().CustomData()[warning]; ok {
			err = fmt.Errorf("%w: %v", errPerhaps, w)
		}
	}
	if p, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch p.Code {
		case "40001", "40P01": // Serialization failure, deadlock: another one wrote, this one did not.
			return keyserver.ErrStale
		case "25006": // Read-only: this is no primary any more. The next connection looks for it.
			d.pool.Reset()
		}
	}
	return err
}

// update replaces records, each if it has the version that is to be replaced, in one
// statement that commits by itself. It returns for each whether it was stale.
func (d *DB) update(writes []keyserver.Write) (stale []error, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stale = make([]error, len(writes))
	if len(writes) == 1 {
		err = d.send(ctx, func(ctx context.Context, c *pgx.Conn) error { return apply(ctx, c, writes[0]) })
		if errors.Is(err, keyserver.ErrStale) {
			stale[0], err = err, nil
		}
		return stale, err
	}
	// In the order of their IDs, so that two servers do not wait for each other; and of two
	// writes of one record, one is stale.
	order := make([]int, len(writes))
	for i := range order {
		order[i] = i
		stale[i] = keyserver.ErrStale
	}
	slices.SortFunc(order, func(a, b int) int { return bytes.Compare(writes[a].ID[:], writes[b].ID[:]) })
	var ids, data [][]byte
	var versions []int64
	which := make(map[keyserver.ID]int, len(writes))
	for _, i := range order {
		w := &writes[i]
		if _, ok := which[w.ID]; ok {
			continue
		}
		which[w.ID] = i
		ids, versions, data = append(ids, w.ID[:]), append(versions, int64(w.Version)), append(data, w.Data)
	}
	err = d.send(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, `UPDATE records AS r SET version = r.version + 1, data = w.data
			FROM unnest($1::bytea[], $2::bigint[], $3::bytea[]) AS w (id, version, data)
			WHERE r.id = w.id AND r.version = w.version RETURNING r.id`, ids, versions, data)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id pgtype.DriverBytes
			if err := rows.Scan(&id); err != nil {
				return err
			}
			if len(id) != len(keyserver.ID{}) {
				return errors.New("an id has another length")
			}
			stale[which[keyserver.ID(id)]] = nil
		}
		return rows.Err()
	})
	if errors.Is(err, keyserver.ErrStale) { // All of them.
		for i := range stale {
			stale[i] = err
		}
		err = nil
	}
	return stale, err
}

// errPerhaps says that a commit may be lost with the machine.
var errPerhaps = errors.New("the database did not wait until the write was durable")

// warning is where the last warning of a connection is kept.
const warning = "satchel warning"

func noticed(c *pgconn.PgConn, n *pgconn.Notice) {
	if n.SeverityUnlocalized == "WARNING" {
		c.CustomData()[warning] = n.Message
	}
}

// executor is a connection or a transaction.
type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// apply makes one write, if the record has the version that it replaces.
func apply(ctx context.Context, c executor, w keyserver.Write) (err error) {
	var tag pgconn.CommandTag
	switch {
	case w.Data == nil:
		tag, err = c.Exec(ctx, "DELETE FROM records WHERE id = $1 AND version = $2", w.ID[:], int64(w.Version))
	case w.Version == 0:
		tag, err = c.Exec(ctx, "INSERT INTO records (id, version, data) VALUES ($1, 1, $2) ON CONFLICT DO NOTHING", w.ID[:], w.Data)
	default:
		tag, err = c.Exec(ctx, "UPDATE records SET version = version + 1, data = $3 WHERE id = $1 AND version = $2", w.ID[:], int64(w.Version), w.Data)
	}
	if err == nil && tag.RowsAffected() == 0 {
		err = keyserver.ErrStale
	}
	return err
}

// together makes all writes or none, in the order of their IDs, so that two who write the
// same do not wait for each other.
func together(ctx context.Context, c *pgx.Conn, writes []keyserver.Write) error {
	writes = slices.SortedFunc(slices.Values(writes), func(a, b keyserver.Write) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return pgx.BeginTxFunc(ctx, c, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		for _, w := range writes {
			if err := apply(ctx, tx, w); err != nil {
				return err
			}
		}
		return nil
	})
}

// Close implements keyserver.Records. What Put has taken is made before it returns.
func (d *DB) Close() error {
	d.puts.Close()
	d.gets.Close()
	d.pool.Close()
	return nil
}
