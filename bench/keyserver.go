package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/postgres"
	"github.com/satchel-backup/satchel/keyserver/sqlite"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// postgresEnv names the variable with the URL of a PostgreSQL database that may be used.
// Without it only SQLite is measured.
const postgresEnv = "SATCHEL_POSTGRES"

// The figures that are aimed at.
const (
	goalSQLite   = 3000 // recoveries per core-second
	goalPostgres = 2500
	goalRest     = 30_000_000 // bytes
	goalGrowth   = 20_000_000
	goalEvaluate = 50 * time.Millisecond
)

// records is a database of a key server, and what is in it.
type records struct {
	kind    string
	goal    int
	dir     string // of the key server's data
	address string // of PostgreSQL, "" for SQLite
	key     []byte // the master key
	master  *keyserver.Master
	used    []*used
}

// used is an account that is recovered.
type used struct {
	access, proof ed25519.PrivateKey
	account       protocol.Account
	blinded       protocol.Element
	evaluated     protocol.Element // of that
	slot          [32]byte
}

// newRecords makes an empty database.
func (b *bench) newRecords(ctx context.Context, kind string) (r *records, drop func() error, err error) {
	r = &records{kind: kind, goal: goalSQLite, dir: b.path("keyserver-" + kind)}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, nil, err
	}
	r.key = make([]byte, keyserver.MasterSize)
	rand.Read(r.key)
	if err := os.WriteFile(filepath.Join(r.dir, "master-keys"), []byte(hex.EncodeToString(r.key)), 0o600); err != nil {
		return nil, nil, err
	}
	if r.master, err = keyserver.NewMaster(secret.New(bytes.Clone(r.key))); err != nil {
		return nil, nil, err
	}
	if kind == "SQLite" {
		return r, func() error { return nil }, nil
	}
	u, err := url.Parse(os.Getenv(postgresEnv))
	if err != nil {
		return nil, nil, errors.New(postgresEnv + " is no URL")
	}
	schema := "satchel_bench_" + rand.Text()
	if err := statement(ctx, u.String(), `CREATE SCHEMA "`+schema+`"`); err != nil {
		return nil, nil, err
	}
	q := u.Query()
	q.Set("search_path", `"`+schema+`"`)
	r.goal, r.address = goalPostgres, (&url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host, Path: u.Path, RawQuery: q.Encode()}).String()
	return r, func() error {
		return statement(context.WithoutCancel(ctx), u.String(), `DROP SCHEMA "`+schema+`" CASCADE`)
	}, nil
}

func statement(ctx context.Context, address, sql string) error {
	c, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, sql)
	return err
}

func (r *records) file() string { return filepath.Join(r.dir, "records.db") }

func (r *records) open(ctx context.Context) (keyserver.Records, error) {
	if r.address != "" {
		return postgres.Open(ctx, r.address)
	}
	return sqlite.Open(ctx, r.file())
}

// at runs do n times, callers at once, and returns the first error.
func at(ctx context.Context, callers, n int, do func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			for i := c; i < n && ctx.Err() == nil; i += callers {
				if err := do(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// enrol makes n accounts as clients do, but for the network.
func (r *records) enrol(ctx context.Context, n int) (err error) {
	db, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	s, err := keyserver.New(ctx, keyserver.Config{Records: db, Master: r.master})
	if err != nil {
		return err
	}
	r.used = make([]*used, n)
	return at(ctx, 64, n, func(i int) error {
		a, err := newUsed(ctx, s)
		r.used[i] = a
		return err
	})
}

func newUsed(ctx context.Context, s *keyserver.Server) (*used, error) {
	a := &used{}
	_, a.access, _ = ed25519.GenerateKey(nil)
	_, a.proof, _ = ed25519.GenerateKey(nil)
	a.account = protocol.AccountOf(a.access.Public().(ed25519.PublicKey))
	rand.Read(a.slot[:])
	blinding, err := protocol.Blind([]byte("bench"))
	if err != nil {
		return nil, err
	}
	a.blinded = blinding.Blinded
	seq := uint64(time.Now().UnixMilli())
	var created protocol.Created
	reply := s.Answer(ctx, protocol.Sign(a.access, seq, protocol.Create{Blinded: a.blinded, Limit: protocol.MaxGuesses}), "")
	if err := protocol.ParseReply(reply, &created); err != nil {
		return nil, err
	}
	a.evaluated = created.Evaluated
	public := protocol.Public(a.proof.Public().(ed25519.PublicKey))
	reply = s.Answer(ctx, protocol.Sign(a.access, seq+1, protocol.NewConfirm(a.proof, a.account, public, 1, public, a.slot)), "")
	return a, protocol.ParseReply(reply, nil)
}

// fill puts n more records in, of the size of an account's, in an order that is none.
func (r *records) fill(ctx context.Context, n int) (err error) {
	db, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	e, err := db.Get(ctx, keyserver.ID(r.used[0].account))
	if err != nil {
		return err
	}
	next := func() (id keyserver.ID, data []byte) {
		rand.Read(id[:])
		data = make([]byte, len(e.Data))
		rand.Read(data)
		return id, data
	}
	if r.address != "" {
		c, err := pgx.Connect(ctx, r.address)
		if err != nil {
			return err
		}
		defer c.Close(ctx)
		left := n
		_, err = c.CopyFrom(ctx, pgx.Identifier{"records"}, []string{"id", "version", "data"}, pgx.CopyFromFunc(func() ([]any, error) {
			if left--; left < 0 {
				return nil, nil
			}
			id, data := next()
			return []any{id[:], int64(1), data}, nil
		}))
		return err
	}
	const once = 5000
	for n > 0 {
		var writes []keyserver.Write
		for range min(n, once) {
			id, data := next()
			writes = append(writes, keyserver.Write{ID: id, Data: data})
		}
		if err := db.Put(ctx, writes...); err != nil {
			return err
		}
		n -= len(writes)
	}
	return nil
}

// bytes returns what the database takes on its disk, while no server has it open.
func (r *records) bytes(ctx context.Context) (n int64, err error) {
	if r.address == "" {
		n, _, err = content(r.dir)
		return n, err
	}
	c, err := pgx.Connect(ctx, r.address)
	if err != nil {
		return 0, err
	}
	defer c.Close(ctx)
	return n, c.QueryRow(ctx, "SELECT pg_total_relation_size('records')").Scan(&n)
}

// served is what was found about one database.
type served struct {
	*records
	rest, after         int64 // memory at rest, and after the load
	full                loaded
	half                loaded
	million, large      int64 // memory at rest and after a load, with many accounts
	wide                loaded
	perAccount, perUsed float64 // bytes on the disk
	put                 putCost
	profile             []share
}

// keyserver measures the key server.
func (b *bench) keyserver(ctx context.Context) error {
	if !canWatch {
		b.say("\n### The key server\n\nNot measured: this system does not tell what another process takes.\n")
		return nil
	}
	command, err := b.buildServer(ctx)
	if err != nil {
		return err
	}
	b.note("bare costs")
	bare, err := b.bareCosts()
	if err != nil {
		return err
	}
	kinds := []string{"SQLite"}
	if os.Getenv(postgresEnv) != "" {
		kinds = append(kinds, "PostgreSQL")
	}
	var list []served
	for _, kind := range kinds {
		v, err := b.serveRecords(ctx, command, kind)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		list = append(list, v)
	}
	b.sayKeyserver(bare, list)
	return nil
}

func (b *bench) serveRecords(ctx context.Context, command, kind string) (v served, err error) {
	r, drop, err := b.newRecords(ctx, kind)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, drop()) }()
	v.records = r
	b.note("%s: %d accounts", kind, b.size.accounts)
	if v.put, err = r.putCost(ctx, b.size.callers, b.size.accounts*4); err != nil {
		return v, err
	}
	if err := r.enrol(ctx, b.size.accounts); err != nil {
		return v, err
	}
	b.note("%s: recoveries", kind)
	err = b.server(ctx, command, r, func(s *server) error {
		if v.rest, err = s.restingMemory(ctx, b.size.rest); err != nil {
			return err
		}
		if v.full, err = s.load(ctx, r, b.size.callers, b.size.rounds, 0); err != nil {
			return err
		}
		if v.half, err = s.load(ctx, r, b.size.callers, max(1, b.size.rounds/2), v.full.rate()/2); err != nil {
			return err
		}
		v.after, err = memory(s.pid())
		return err
	})
	if err != nil {
		return v, err
	}
	b.note("%s: where the time goes", kind)
	if v.profile, err = b.profile(ctx, r); err != nil {
		return v, err
	}
	b.note("%s: %d more accounts", kind, b.size.others)
	before, err := r.bytes(ctx)
	if err != nil {
		return v, err
	}
	if err := r.fill(ctx, b.size.others); err != nil {
		return v, err
	}
	all, err := r.bytes(ctx)
	if err != nil {
		return v, err
	}
	v.perAccount, v.perUsed = float64(all-before)/float64(b.size.others), float64(before)/float64(b.size.accounts)
	return v, b.server(ctx, command, r, func(s *server) error {
		if v.million, err = s.restingMemory(ctx, b.size.rest); err != nil {
			return err
		}
		if v.wide, err = s.load(ctx, r, b.size.callers, b.size.rounds, 0); err != nil {
			return err
		}
		v.large, err = memory(s.pid())
		return err
	})
}

// sayKeyserver prints it all.
func (b *bench) sayKeyserver(bare bareCosts, list []served) {
	b.say("\n### The key server\n\nA `satchel-keyserver serve` of its own for each database, on this machine, with all that it has (limits, counters, health checks). *A recovery* is one evaluate, with a guess that is durable before the answer, and one finish, durable too; %s recoveries over %d connections that stay open, of %s accounts, each answer compared with the right one. Clients have made their requests before, so that they take little of the processor. *Core-second*: of the processor time of the server process, user and system.\n",
		number(b.size.accounts*b.size.rounds), b.size.callers, number(b.size.accounts))
	var rows, times, sizes, costs, floors, shares [][]string
	for _, v := range list {
		per := v.full.perCore()
		with := "the same: it is in the process"
		if v.address != "" {
			with = "?"
			if v.full.database > 0 {
				with = number(int(float64(v.full.recoveries) / (v.full.cpu + v.full.database).Seconds()))
			}
		}
		rows = append(rows, []string{v.kind, number(int(per)), number(v.goal), met(per >= float64(v.goal)), with, number(int(v.full.rate())), number(int(v.wide.perCore()))})
		p99 := quantile(v.half.evaluate, 99)
		times = append(times, append(append([]string{v.kind, number(int(v.half.rate())), ms(quantile(v.half.evaluate, 50)), ms(quantile(v.half.evaluate, 95))}, below(p99, goalEvaluate)...), ms(quantile(v.full.evaluate, 99))))
		growth := v.million - v.rest
		loadedGrowth := v.large - v.after
		sizes = append(sizes, []string{v.kind, mb(v.rest), met(v.rest <= goalRest), mb(v.after), mb(v.million), mb(v.large), signed(growth) + " and " + signed(loadedGrowth), met(max(growth, loadedGrowth) <= goalGrowth), fmt.Sprintf("%.0f B", v.perAccount), fmt.Sprintf("%.0f B", v.perUsed)})
		costs = append(costs, []string{"a durable change of a record, " + v.kind + ", one caller", us(v.put.oneCPU), number(int(v.put.one))})
		costs = append(costs, []string{fmt.Sprintf("the same, %d callers at once", v.put.callers), us(v.put.manyCPU), number(int(v.put.many))})
		whole := v.full.cpu / time.Duration(v.full.recoveries)
		crypto := 3*bare.verify + bare.evaluate
		floor := crypto + 2*v.put.manyCPU
		floors = append(floors, []string{v.kind, us(whole), us(crypto), us(2 * v.put.manyCPU), us(floor), number(int(time.Second / floor)), fmt.Sprintf("%.0f %%", 100*float64(floor)/float64(whole))})
		for _, s := range v.profile {
			shares = append(shares, []string{v.kind, s.what, fmt.Sprintf("%.0f %%", s.percent)})
		}
	}
	b.table("database|recoveries per core-second|goal|met|with the processes of the database|recoveries a second here, clients beside it|per core-second with "+number(b.size.others)+" accounts more", rows)
	b.say("\nEvaluate, from when it was due until it was answered, at half of that load; and at all of it, from when it was sent:\n")
	b.table("database|recoveries a second|p50|p95|p99|goal|met|p99 at full load", times)
	b.say("\nMemory of the process (resident), and the disk. The %s accounts more are records of the same size with random bytes; the accounts that are recovered are spread among them.\n", number(b.size.others))
	b.table("database|at rest|<= "+mb(goalRest)+"|after the load|at rest with "+number(b.size.others)+" accounts more|after a load then|growth|<= "+mb(goalGrowth)+"|disk for each account|for each that is used much", sizes)
	b.say("\nWhat its parts cost alone on this machine, in the same run: processor time of one thread, for the databases of the process that calls (PostgreSQL's own is not in it), reading the record before included.\n")
	b.table("what|processor time|a second", append([][]string{
		{"Ed25519, one signature checked", us(bare.verify), perSecond(bare.verify)},
		{"VOPRF, one evaluation, decoding and encoding included", us(bare.evaluate), perSecond(bare.evaluate)},
		{"VOPRF with its proof", us(bare.prove), perSecond(bare.prove)},
		{"4 KB appended to a file and flushed", us(bare.flushCPU), number(int(bare.flushes))},
	}, costs...))
	b.say("\nThe floor is what a recovery cannot do without: three signatures, one evaluation, two records read and changed. The rest is HTTP, sealing, and waiting for one another.\n")
	b.table("database|a recovery takes|cryptography|database|floor|recoveries per core-second if there were nothing else|floor in what it takes", floors)
	b.say("\nWhere the time goes, from a processor profile of the same server under the same load:\n")
	b.table("database|what|share", shares)
}

func us(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d)/1e3) }

func perSecond(d time.Duration) string { return number(int(time.Second / max(d, 1))) }

func signed(n int64) string {
	if n < 0 {
		return "-" + mb(-n)
	}
	return "+" + mb(n)
}

// bareCosts are what the parts of a recovery cost alone, in processor time.
type bareCosts struct {
	verify, evaluate, prove time.Duration
	flushCPU                time.Duration
	flushes                 float64 // a second
}

func (b *bench) bareCosts() (c bareCosts, err error) {
	public, private, _ := ed25519.GenerateKey(nil)
	message := make([]byte, 200)
	signature := ed25519.Sign(private, message)
	blinding, err := protocol.Blind([]byte("bench"))
	if err != nil {
		return c, err
	}
	key, err := protocol.DeriveKey([protocol.SeedSize]byte{1})
	if err != nil {
		return c, err
	}
	f, err := os.Create(b.path("flushes"))
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	page := make([]byte, 4096)
	for _, m := range []struct {
		to *time.Duration
		n  int
		do func() error
	}{
		{&c.verify, b.size.bare, func() error {
			if !ed25519.Verify(public, message, signature) {
				return errors.New("a signature was refused")
			}
			return nil
		}},
		{&c.evaluate, b.size.bare, func() error { _, err := key.Evaluate(blinding.Blinded); return err }},
		{&c.prove, max(1, b.size.bare/4), func() error { _, _, err := key.Prove(blinding.Blinded); return err }},
		{&c.flushCPU, max(1, b.size.bare/20), func() error { _, err := f.Write(page); return errors.Join(err, f.Sync()) }},
	} {
		// The median of some rounds: another process may take the cache away.
		var each []time.Duration
		start := time.Now()
		const rounds = 5
		for range rounds {
			before := ownTime()
			for range m.n {
				if err := m.do(); err != nil {
					return c, err
				}
			}
			each = append(each, (ownTime()-before)/time.Duration(m.n))
		}
		*m.to = quantile(each, 50)
		c.flushes = float64(rounds*m.n) / time.Since(start).Seconds() // The last one stays.
	}
	return c, nil
}

// putCost is what reading and changing a record costs.
type putCost struct {
	callers         int
	one, many       float64 // a second
	oneCPU, manyCPU time.Duration
}

// putCost measures n changes of records, first by one caller, fewer of them, and then by
// many.
func (r *records) putCost(ctx context.Context, callers, n int) (c putCost, err error) {
	db, err := r.open(ctx)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	c.callers = callers
	ids := make([]keyserver.ID, 10*callers)
	data := make([]byte, 700)
	for i := range ids {
		rand.Read(ids[i][:])
		rand.Read(data)
		if err := db.Put(ctx, keyserver.Write{ID: ids[i], Data: data}); err != nil {
			return c, err
		}
	}
	defer func() {
		for _, id := range ids {
			e, e1 := db.Get(ctx, id)
			err = cmp.Or(err, e1, db.Put(ctx, keyserver.Write{ID: id, Version: e.Version}))
		}
	}()
	change := func(callers, n int) (perSecond float64, each time.Duration, err error) {
		start, before := time.Now(), ownTime()
		err = at(ctx, callers, n, func(i int) error {
			// Caller c has the ids that are c modulo callers.
			e, err := db.Get(ctx, ids[i%len(ids)])
			if err != nil {
				return err
			}
			return db.Put(ctx, keyserver.Write(e))
		})
		return float64(n) / time.Since(start).Seconds(), (ownTime() - before) / time.Duration(n), err
	}
	few := max(1, n/10)
	if c.one, c.oneCPU, err = change(1, few); err != nil {
		return c, err
	}
	c.many, c.manyCPU, err = change(callers, n)
	return c, err
}

// sorted returns the shares, the largest first.
func sorted(m map[string]float64) (list []share) {
	var sum float64
	for _, v := range m {
		sum += v
	}
	for what, v := range m {
		list = append(list, share{what, 100 * v / max(sum, 1e-9)})
	}
	slices.SortFunc(list, func(a, b share) int {
		return cmp.Or(cmp.Compare(b.percent, a.percent), cmp.Compare(a.what, b.what))
	})
	return list
}

// share is a part of the time.
type share struct {
	what    string
	percent float64
}
