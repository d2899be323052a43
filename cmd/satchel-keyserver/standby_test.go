package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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
	started   bool
}

// haveClusters reports whether a test can have PostgreSQL servers of its own.
func haveClusters() bool { return os.Getenv(binEnv) != "" }

// clusterFolder returns a folder that the user postgres can reach.
func clusterFolder(t *testing.T) string {
	t.Helper()
	if !haveClusters() {
		t.Skip("set " + binEnv + " to the folder of PostgreSQL's programs to run this")
	}
	base, err := os.MkdirTemp("", "satchel-postgres")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if err := os.Chmod(base, 0o777); err != nil {
		t.Fatal(err)
	}
	return base
}

// newCluster makes a server that is not started.
func newCluster(t *testing.T, base, name string) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: filepath.Join(base, name), port: freePort(t)}
	c.run("initdb", "-D", c.dir, "-A", "trust", "-U", "satchel")
	return c
}

func (c *cluster) address() string {
	return "postgres://satchel@127.0.0.1:" + c.port + "/postgres?sslmode=disable"
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
	if err := c.try(name, args...); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) try(name string, args ...string) error {
	// Not to a pipe: the server that pg_ctl starts would hold it open.
	log, err := os.Create(filepath.Join(c.t.TempDir(), name))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := c.command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		b, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%s: %w: %s", name, err, b[max(0, len(b)-3000):])
	}
	return nil
}

// start starts it. What is left of one that was killed ends by itself, and is waited for.
func (c *cluster) start(options string) {
	c.t.Helper()
	if !c.started {
		c.started = true
		c.t.Cleanup(c.kill)
	}
	var err error
	for range 100 {
		if err = c.try("pg_ctl", "-D", c.dir, "-w", "-l", c.dir+".log", "-o", "-c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 -c port="+c.port+" "+options, "start"); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	b, _ := os.ReadFile(c.dir + ".log")
	c.t.Fatalf("%.1000s … %s", err.Error(), b[max(0, len(b)-3000):])
}

// kill ends it and all that it does, without any care. Its processes share no memory with
// it once it is gone.
func (c *cluster) kill() { c.command("pg_ctl", "-D", c.dir, "-m", "immediate", "stop").Run() }

// murder kills its first process with SIGKILL, which leaves it no time for anything.
func (c *cluster) murder() {
	c.t.Helper()
	if err := murder(c.pid()); err != nil {
		c.t.Fatal(err)
	}
}

func murder(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

// murderBackend does that to one of the processes that work for a client, if there is
// one: the first process then ends all others and goes back to what is on the disk.
func (c *cluster) murderBackend() {
	c.t.Helper()
	pid := c.pid()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		c.t.Fatal(err)
	}
	for child := range strings.FieldsSeq(string(b)) {
		line, _ := os.ReadFile("/proc/" + child + "/cmdline")
		if n, err := strconv.Atoi(child); err == nil && strings.HasPrefix(string(line), "postgres: satchel ") {
			murder(n)
			return
		}
	}
}

func (c *cluster) pid() int {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, "postmaster.pid"))
	if err != nil {
		c.t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil || pid < 2 {
		c.t.Fatal(line, err)
	}
	return pid
}

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
	base := clusterFolder(t)
	a := newCluster(t, base, "a")
	b := &cluster{t: t, dir: filepath.Join(base, "b"), port: freePort(t)}
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
