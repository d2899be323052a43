package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/protocol"
)

// binEnv names the folder of PostgreSQL's programs. They refuse root: as root the test
// calls them as the user postgres.
const binEnv = "SATCHEL_POSTGRES_BIN"

// cluster is a PostgreSQL server of the test's own.
type cluster struct {
	t         *testing.T
	dir, port string
}

func (c *cluster) command(name string, args ...string) *exec.Cmd {
	path := filepath.Join(os.Getenv(binEnv), name)
	if os.Getuid() == 0 {
		args = append([]string{"--reuid=postgres", "--regid=postgres", "--clear-groups", path}, args...)
		path = "setpriv"
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = "/"
	return cmd
}

func (c *cluster) run(name string, args ...string) {
	c.t.Helper()
	// Not to a pipe: the server that pg_ctl starts would hold it open.
	log, err := os.Create(filepath.Join(c.t.TempDir(), name))
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	cmd := c.command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		b, _ := os.ReadFile(log.Name())
		c.t.Fatalf("%s: %v: %s", name, err, b)
	}
}

func (c *cluster) start(options string) {
	c.t.Helper()
	c.run("pg_ctl", "-D", c.dir, "-w", "-l", c.dir+".log", "-o", "-c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 -c port="+c.port+" "+options, "start")
	c.t.Cleanup(c.kill)
}

// kill ends it and all that it does, without any care. Its processes share no memory with
// it once it is gone.
func (c *cluster) kill() { c.command("pg_ctl", "-D", c.dir, "-m", "immediate", "stop").Run() }

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// The database dies in the middle of an attack, and its synchronous standby takes over, as
// it comes: no guess whose evaluation left comes back.
func TestStandby(t *testing.T) {
	if os.Getenv(binEnv) == "" {
		t.Skip("set " + binEnv + " to the folder of PostgreSQL's programs to run this")
	}
	// The user postgres must reach it.
	base, err := os.MkdirTemp("", "satchel-standby")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if err := os.Chmod(base, 0o777); err != nil {
		t.Fatal(err)
	}
	a := &cluster{t, filepath.Join(base, "a"), freePort(t)}
	b := &cluster{t, filepath.Join(base, "b"), freePort(t)}
	a.run("initdb", "-D", a.dir, "-A", "trust", "-U", "satchel")
	a.start("")
	b.run("pg_basebackup", "-h", "127.0.0.1", "-p", a.port, "-U", "satchel", "-D", b.dir, "-R", "-X", "stream")
	b.start("")
	a.run("pg_ctl", "-D", a.dir, "-m", "fast", "-w", "stop")
	a.start("-c synchronous_standby_names='*'")

	both := fmt.Sprintf("postgres://satchel@127.0.0.1:%s,127.0.0.1:%s/postgres?sslmode=disable", a.port, b.port)
	w := newWorld(t, "--database", both)
	servers := []*server{w.serve(), w.serve()}
	var accounts []*account
	var released []atomic.Int64
	for range 12 {
		accounts = append(accounts, w.account().enrol(servers[0].url, protocol.MaxGuesses))
	}
	released = make([]atomic.Int64, len(accounts))

	// What is not on the standby is not answered, also when it is asked for again.
	b.kill()
	lonely, again := accounts[0], protocol.Evaluate{Attempt: protocol.Attempt{1}, Blinded: blind("0").Blinded}
	w.client.Timeout = time.Second
	for range 2 {
		if err := lonely.ask(servers[0].url, again, new(protocol.Evaluated)); err == nil {
			t.Error("an evaluation left, and the standby is away")
		}
	}
	w.client.Timeout = 30 * time.Second
	b.start("")
	if err := lonely.ask(servers[1].url, again, new(protocol.Evaluated)); err != nil {
		t.Error(err)
	}

	var wg sync.WaitGroup
	end := make(chan struct{})
	for i, acc := range accounts {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-end:
					return
				default:
				}
				if code(acc.guess(servers[n%2].url)) == protocol.CodeOK {
					released[i].Add(1)
				}
			}
		})
	}
	time.Sleep(20 * time.Millisecond) // Any moment is good.
	a.kill()
	b.run("pg_ctl", "-D", b.dir, "-w", "promote")
	close(end)
	wg.Wait()

	total := int64(0)
	for i, acc := range accounts {
		var s protocol.Status
		err := acc.ask(servers[i%2].url, protocol.AskStatus{}, &s)
		for try := 0; err != nil && try < 100; try++ { // Connections to the old one are found dead first.
			time.Sleep(50 * time.Millisecond)
			err = acc.ask(servers[i%2].url, protocol.AskStatus{}, &s)
		}
		if err != nil {
			t.Fatalf("after the promotion: %v", err)
		}
		n := released[i].Load()
		total += n
		if int64(s.Life) < n {
			t.Errorf("%d evaluations left, and %d guesses are spent", n, s.Life)
		}
	}
	if total == 0 {
		t.Error("no evaluation left before the database died")
	}
	// All goes on there, after all locks have ended.
	w.later(73 * time.Hour)
	acc := w.account().enrol(servers[1].url, 3)
	if err := acc.guess(servers[0].url); err != nil {
		t.Error(err)
	}
	t.Logf("%d evaluations left before", total)
}
