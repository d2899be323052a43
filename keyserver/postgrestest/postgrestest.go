// Package postgrestest gives tests a PostgreSQL database of their own, where the
// environment names a server that may be used for it.
package postgrestest

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Env names the variable with the URL of a database. The user in it must be allowed to
// make schemas there.
const Env = "SATCHEL_POSTGRES"

// Have reports whether the environment names a server.
func Have() bool { return os.Getenv(Env) != "" }

// Address returns the address of an empty schema, which goes when the test ends. A test
// without a server is skipped.
func Address(t testing.TB) string {
	t.Helper()
	if !Have() {
		t.Skip("set " + Env + " to the URL of a PostgreSQL database to run this")
	}
	u, err := url.Parse(os.Getenv(Env))
	if err != nil {
		t.Fatal(err)
	}
	schema := "satchel_" + rand.Text()
	Exec(t, os.Getenv(Env), `CREATE SCHEMA "`+schema+`"`)
	t.Cleanup(func() { Exec(t, os.Getenv(Env), `DROP SCHEMA "`+schema+`" CASCADE`) })
	q := u.Query()
	q.Set("search_path", `"`+schema+`"`)
	u.RawQuery = q.Encode()
	return u.String()
}

// Exec runs one statement at an address.
func Exec(t testing.TB, address, sql string, args ...any) {
	t.Helper()
	ctx := context.Background() // That of the test has ended when it cleans up.
	c, err := pgx.Connect(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, sql, args...); err != nil {
		t.Fatal(err)
	}
}
