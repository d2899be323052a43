package postgres_test

import (
	"errors"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/postgres"
	"github.com/satchel-backup/satchel/keyserver/postgrestest"
	"github.com/satchel-backup/satchel/keyserver/recordtest"
)

func open(t *testing.T, address string) *postgres.DB {
	t.Helper()
	db, err := postgres.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestPostgres(t *testing.T) {
	if !postgrestest.Have() {
		postgrestest.Address(t)
	}
	addresses := map[string]string{}
	recordtest.Test(t, func(t *testing.T, name string) keyserver.Records {
		if addresses[name] == "" {
			addresses[name] = postgrestest.Address(t)
		}
		return open(t, addresses[name])
	})
}

// Servers that start together on an empty database make one table.
func TestPostgresStartedTogether(t *testing.T) {
	address := postgrestest.Address(t)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			db, err := postgres.Open(t.Context(), address)
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			err = db.Put(t.Context(), keyserver.Write{ID: keyserver.ID{byte(i)}, Data: []byte("x")})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// with returns an address with one more setting.
func with(t *testing.T, address, key, value string) string {
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(key, value)
	u.RawQuery = q.Encode()
	return u.String()
}

// Settings that make a commit less than durable do not reach the writes.
func TestPostgresSynchronous(t *testing.T) {
	address := postgrestest.Address(t)
	db := open(t, with(t, address, "synchronous_commit", "off"))
	// A trigger tells what the writing connection has.
	postgrestest.Exec(t, address, `CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN NEW.data := convert_to(current_setting('synchronous_commit'), 'UTF8'); RETURN NEW; END $$`)
	postgrestest.Exec(t, address, `CREATE TRIGGER tell BEFORE INSERT ON records FOR EACH ROW EXECUTE FUNCTION tell()`)
	id := keyserver.ID{1}
	if err := db.Put(t.Context(), keyserver.Write{ID: id, Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	e, err := db.Get(t.Context(), id)
	if err != nil || string(e.Data) != "on" {
		t.Errorf("got synchronous_commit = %s, %v, want on", e.Data, err)
	}
	stronger := open(t, with(t, address, "synchronous_commit", "remote_apply"))
	if err := stronger.Put(t.Context(), keyserver.Write{ID: keyserver.ID{2}, Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if e, err = db.Get(t.Context(), keyserver.ID{2}); err != nil || string(e.Data) != "remote_apply" {
		t.Errorf("got synchronous_commit = %s, %v, want remote_apply", e.Data, err)
	}
}

// A commit that comes with a warning, as one has that stopped waiting for the standby, is
// no success.
func TestPostgresWarning(t *testing.T) {
	address := postgrestest.Address(t)
	db := open(t, address)
	postgrestest.Exec(t, address, `CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN RAISE WARNING 'canceling wait for synchronous replication'; RETURN NEW; END $$`)
	postgrestest.Exec(t, address, `CREATE TRIGGER warn BEFORE INSERT ON records FOR EACH ROW EXECUTE FUNCTION warn()`)
	err := db.Put(t.Context(), keyserver.Write{ID: keyserver.ID{1}, Data: []byte("x")})
	if err == nil || errors.Is(err, keyserver.ErrStale) {
		t.Errorf("got %v, want an error that says perhaps", err)
	}
	if err := db.Put(t.Context(), keyserver.Write{ID: keyserver.ID{1}, Version: 1, Data: []byte("y")}); err != nil {
		t.Errorf("the next write: %v", err)
	}
}

// All connections are cut: at most the writes that were on their way fail, with an error
// that says nothing, and the next ones go through.
func TestPostgresConnectionsLost(t *testing.T) {
	address := postgrestest.Address(t)
	db := open(t, with(t, address, "application_name", t.Name()))
	id := keyserver.ID{1}
	if err := db.Put(t.Context(), keyserver.Write{ID: id, Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		postgrestest.Exec(t, os.Getenv(postgrestest.Env), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", t.Name())
		tries := 0
		for {
			e, err := db.Get(t.Context(), id)
			if err == nil {
				err = db.Put(t.Context(), keyserver.Write{ID: id, Version: e.Version, Data: []byte("y")})
			}
			if err == nil {
				break
			}
			if errors.Is(err, keyserver.ErrStale) || errors.Is(err, keyserver.ErrNoRecord) {
				t.Fatalf("a lost connection is told as %v", err)
			}
			if tries++; tries > 40 {
				t.Fatal(err)
			}
		}
	}
}

// A database that may only be read refuses writes, and is told so at the start.
func TestPostgresReadOnly(t *testing.T) {
	address := postgrestest.Address(t)
	db := open(t, address)
	_, err := postgres.Open(t.Context(), with(t, address, "default_transaction_read_only", "on"))
	if err == nil || !strings.Contains(err.Error(), "read only") {
		t.Errorf("got %v, want read only", err)
	}
	// A connection that becomes read-only, as at a demoted primary, is given up.
	postgrestest.Exec(t, address, `CREATE FUNCTION demote() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN RAISE EXCEPTION USING ERRCODE = 'read_only_sql_transaction'; END $$`)
	postgrestest.Exec(t, address, `CREATE TRIGGER demote BEFORE INSERT ON records FOR EACH ROW EXECUTE FUNCTION demote()`)
	if err := db.Put(t.Context(), keyserver.Write{ID: keyserver.ID{1}, Data: []byte("x")}); err == nil || errors.Is(err, keyserver.ErrStale) {
		t.Errorf("got %v, want an error", err)
	}
	postgrestest.Exec(t, address, `DROP TRIGGER demote ON records`)
	if err := db.Put(t.Context(), keyserver.Write{ID: keyserver.ID{1}, Data: []byte("x")}); err != nil {
		t.Error(err)
	}
}

func TestPostgresAddress(t *testing.T) {
	if _, err := postgres.Open(t.Context(), "postgres://user:hunter2@localhost:notaport/x"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v, want an error without the password", err)
	}
	if _, err := postgres.Open(t.Context(), "postgres://127.0.0.1:1/x?connect_timeout=1"); err == nil || errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("got %v, want an error", err)
	}
}
