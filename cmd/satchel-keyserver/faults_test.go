package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/protocol"
)

// faultsEnv lets the tests run that take the time of timeouts, need root, or thousands
// of connections.
const faultsEnv = "SATCHEL_SERVER_FAULTS"

func needFaults(t *testing.T) {
	t.Helper()
	if os.Getenv(faultsEnv) == "" {
		t.Skip("set " + faultsEnv + " to run this")
	}
}

// outage is a time in which the database is of no use. Changes are refused, clearly, and
// no guess is had or lost by it; afterwards all goes on by itself.
func (w *world) outage(s *server, a *account, says string, begin, end func()) {
	w.Helper()
	before := a.status(s.url).Left
	begin()
	if err := a.guess(s.url); code(err) != protocol.CodeUnavailable {
		w.Errorf("a guess: got %v", err)
	}
	if err := w.account().create(s.url, 1); code(err) != protocol.CodeUnavailable {
		w.Errorf("a new account: got %v", err)
	}
	status, body := s.get("/healthz")
	for i := 0; status == http.StatusOK && i < 50; i++ { // An answer holds for a second.
		time.Sleep(100 * time.Millisecond)
		status, body = s.get("/healthz")
	}
	if status != http.StatusServiceUnavailable || !strings.Contains(body, says) {
		w.Errorf("health: got %d %s, want %q", status, body, says)
	}
	if !strings.Contains(s.log.String(), says) {
		w.Errorf("the log does not say %q: %s", says, s.log.String())
	}
	end()
	err := a.guess(s.url)
	for i := 0; code(err) == protocol.CodeUnavailable && i < 100; i++ {
		time.Sleep(100 * time.Millisecond)
		err = a.guess(s.url)
	}
	if err != nil {
		w.Errorf("afterwards: %v", err)
	}
	if left := a.status(s.url).Left; left != before-1 {
		w.Errorf("%d guesses left, want %d", left, before-1)
	}
	status, body = s.get("/healthz")
	for i := 0; status != http.StatusOK && i < 50; i++ {
		time.Sleep(100 * time.Millisecond)
		status, body = s.get("/healthz")
	}
	if status != http.StatusOK {
		w.Errorf("health afterwards: got %d %s", status, body)
	}
}

// kept checks that the guesses of an account are still there in another server.
func (w *world) kept(s *server, a *account) {
	w.Helper()
	before := a.status(s.url).Left
	s.kill()
	if left := a.status(w.serve().url).Left; left != before {
		w.Errorf("after a restart %d guesses left, want %d", left, before)
	}
}

func (w *world) data() string { return filepath.Join(w.dir, "data") }

// The folder of the records is moved away while the server runs, and comes back.
func TestMovedFolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.serve()
	a := w.account().enrol(s.url, 10)
	w.outage(s, a, "was moved or deleted", func() {
		if err := os.Rename(w.data(), w.data()+".away"); err != nil {
			t.Fatal(err)
		}
	}, func() {
		if err := os.Rename(w.data()+".away", w.data()); err != nil {
			t.Fatal(err)
		}
	})
	w.kept(s, a)
}

// The files of the records cannot be written to any more while the server runs, as on a
// disk that the system made read-only after an error.
func TestReadOnlyDatabase(t *testing.T) {
	needFaults(t)
	t.Parallel()
	w := newWorld(t)
	s := w.serve()
	a := w.account().enrol(s.url, 10)
	chattr := func(flag string) {
		files, err := filepath.Glob(filepath.Join(w.data(), "records.db*"))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("chattr", append([]string{flag}, files...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	t.Cleanup(func() { chattr("-i") })
	w.outage(s, a, "writing records", func() { chattr("+i") }, func() { chattr("-i") })
	w.kept(s, a)
}

// Another process has the lock of the file. Who only asks is answered; who changes waits,
// and then is refused; after it all goes on.
func TestLockedDatabase(t *testing.T) {
	needFaults(t)
	t.Parallel()
	w := newWorld(t)
	s := w.serve()
	a := w.account().enrol(s.url, 10)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.data(), "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run := func(text string) {
		if _, err := c.ExecContext(context.Background(), text); err != nil {
			t.Fatal(err)
		}
	}
	w.outage(s, a, "", func() {
		run("BEGIN IMMEDIATE")
		before := time.Now()
		a.status(s.url)
		if d := time.Since(before); d > 5*time.Second {
			t.Errorf("who only asks waits %v", d)
		}
	}, func() { run("ROLLBACK") })
	w.kept(s, a)
}

// PostgreSQL is stopped, dies, or writes nothing while servers run.
func TestDatabaseAway(t *testing.T) {
	if !haveClusters() {
		t.Skip("set " + binEnv + " to the folder of PostgreSQL's programs to run this")
	}
	t.Parallel()
	db := newCluster(t, clusterFolder(t), "db")
	db.start("")
	w := newWorld(t, "--database", db.address())
	s := w.serve()
	a := w.account().enrol(s.url, 10)
	start := func() { db.start("") }
	w.outage(s, a, "reading a record", func() { db.run("pg_ctl", "-D", db.dir, "-m", "fast", "-w", "stop") }, start)
	w.outage(s, a, "reading a record", db.kill, start)
	w.later(73 * time.Hour)
	a.seq.Store(uint64(w.now().UnixMilli()))
	w.outage(s, a, "read only connection", func() {
		db.run("pg_ctl", "-D", db.dir, "-m", "fast", "-w", "stop")
		db.start("-c default_transaction_read_only=on")
	}, func() {
		db.run("pg_ctl", "-D", db.dir, "-m", "fast", "-w", "stop")
		db.start("")
	})
	w.kept(s, a)
}

func (s *server) addr() string {
	return strings.TrimPrefix(strings.TrimSuffix(s.url, protocol.Path), "http://")
}

func (s *server) dial() net.Conn {
	s.w.Helper()
	c, err := net.Dial("tcp", s.addr())
	if err != nil {
		s.w.Fatal(err)
	}
	s.w.Cleanup(func() { c.Close() })
	return c
}

// What is no request, or too long, is refused as what it is, and costs nothing.
func TestMalformed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.serve()
	a := w.account().enrol(s.url, 10)
	before := a.status(s.url)
	good := protocol.Sign(a.access, a.seq.Add(1), protocol.AskStatus{})
	post := "POST " + protocol.Path + " HTTP/1.1\r\nHost: x\r\n"
	withLength := func(n int, body string) string {
		return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", post, n, body)
	}
	malformed := string([]byte{protocol.Version, byte(protocol.CodeMalformed)})
	for what, v := range map[string]struct{ send, status, body string }{
		"garbage":               {withLength(7, "garbage"), "200", string([]byte{protocol.Version, byte(protocol.CodeNewer)})},
		"nothing":               {withLength(0, ""), "200", malformed},
		"zeros":                 {withLength(512, strings.Repeat("\x00", 512)), "200", malformed},
		"one byte less":         {withLength(len(good)-1, string(good[:len(good)-1])), "200", malformed},
		"one byte more":         {withLength(len(good)+1, string(good)+"x"), "200", malformed},
		"513 bytes":             {withLength(513, strings.Repeat("\x01", 513)), "413", ""},
		"a gigabyte announced":  {withLength(1<<30, strings.Repeat("\x01", 4096)), "413", ""},
		"chunks without end":    {post + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("400\r\n"+strings.Repeat("\x01", 0x400)+"\r\n", 4), "413", ""},
		"a chunk of no size":    {post + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "400", ""},
		"a negative length":     {post + "Content-Length: -1\r\n\r\n", "400", ""},
		"two lengths":           {post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "400", ""},
		"no HTTP":               {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400", ""},
		"a header of 64 KB":     {post + "X: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431", ""},
		"another method":        {"BREW " + protocol.Path + " HTTP/1.1\r\nHost: x\r\n\r\n", "405", ""},
		"another path":          {"POST /satchel/v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "404", ""},
		"a path out of here":    {"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", "404", ""},
		"without a host":        {"POST " + protocol.Path + " HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "400", ""},
		"another version":       {"POST " + protocol.Path + " HTTP/9.9\r\nHost: x\r\n\r\n", "505", ""},
		"an empty first header": {"POST " + protocol.Path + " HTTP/1.1\r\n: x\r\nHost: x\r\n\r\n", "400", ""},
	} {
		c := s.dial()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		go io.WriteString(c, v.send)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
		if got := fmt.Sprint(res.StatusCode); got != v.status || v.body != "" && string(body) != v.body {
			t.Errorf("%s: got %s %q, want %s %q", what, got, body, v.status, v.body)
		}
		c.Close()
	}
	if s := a.status(s.url); s.Left != before.Left || s.Seq != before.Seq {
		t.Errorf("got %+v, want %+v", s, before)
	}
	s.stop()
	if strings.Contains(s.log.String(), "panic") {
		t.Error(s.log.String())
	}
}

// Clients that send a byte now and then, or never read, are turned out, and meanwhile
// others are served as always.
func TestSlowClients(t *testing.T) {
	needFaults(t)
	t.Parallel()
	w := newWorld(t)
	s := w.serve()
	a := w.account().enrol(s.url, 10)
	end, closed := make(chan struct{}), map[string][]time.Duration{}
	var mu sync.Mutex
	var wait sync.WaitGroup
	begun := time.Now()
	turnedOut := func(kind string) {
		mu.Lock()
		defer mu.Unlock()
		closed[kind] = append(closed[kind], time.Since(begun))
	}
	const each = 200
	for range each {
		for kind, head := range map[string]string{
			"header": "POST " + protocol.Path + " HTTP/1.1\r\nHost: x\r\nX: ",
			"body":   "POST " + protocol.Path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n",
		} {
			c := s.dial()
			wait.Go(func() {
				go io.Copy(io.Discard, c)
				io.WriteString(c, head)
				for {
					select {
					case <-end:
						return
					case <-time.After(500 * time.Millisecond):
					}
					if _, err := io.WriteString(c, "x"); err != nil {
						turnedOut(kind)
						return
					}
				}
			})
		}
	}
	for range 20 {
		c := s.dial()
		wait.Go(func() {
			// Answers pile up until the server cannot send any more, and then it gives up.
			request := []byte(strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 500))
			for {
				c.SetWriteDeadline(time.Now().Add(70 * time.Second))
				if _, err := c.Write(request); err != nil {
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						turnedOut("reading")
					}
					return
				}
			}
		})
	}
	var took []time.Duration
	for time.Since(begun) < 20*time.Second {
		before := time.Now()
		if err := a.ask(s.url, protocol.AskStatus{}, new(protocol.Status)); err != nil {
			t.Errorf("an honest client: %v", err)
		}
		took = append(took, time.Since(before))
		time.Sleep(20 * time.Millisecond)
	}
	close(end)
	wait.Wait()
	slices.Sort(took)
	t.Logf("%d requests of an honest client beside them: median %v, slowest %v", len(took), took[len(took)/2], took[len(took)-1])
	if took[len(took)*99/100] > time.Second {
		t.Errorf("an honest client waits %v", took[len(took)*99/100])
	}
	for kind, want := range map[string]int{"header": each, "body": each, "reading": 20} {
		list := closed[kind]
		if len(list) != want {
			t.Errorf("slow with the %s: %d of %d were turned out", kind, len(list), want)
			continue
		}
		slices.Sort(list)
		t.Logf("slow with the %s: turned out after %v to %v", kind, list[0].Round(100*time.Millisecond), list[len(list)-1].Round(100*time.Millisecond))
	}
}

// Ten thousand connections that do nothing take little memory, and others are served.
func TestTenThousandConnections(t *testing.T) {
	needFaults(t)
	w := newWorld(t)
	s := w.serve("--connections", "11000")
	a := w.account().enrol(s.url, 10)
	before := rss(t, s)
	const connections = 10_000
	idle := make([]net.Conn, connections)
	var wait sync.WaitGroup
	errs := make(chan error, connections)
	begun := time.Now()
	for part := range 50 {
		wait.Go(func() {
			for i := part; i < connections; i += 50 {
				c, err := net.Dial("tcp", s.addr())
				if err != nil {
					errs <- err
					return
				}
				idle[i] = c
				// One request, so that it counts as idle and not as one that has never sent a header.
				_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				if err == nil {
					_, err = io.ReadFull(c, make([]byte, 12))
				}
				if err != nil {
					errs <- err
				}
			}
		})
	}
	wait.Wait()
	close(errs)
	for err := range errs {
		t.Fatalf("%v: are %d files open at once allowed here, see ulimit -n?", err, connections)
	}
	opened := time.Since(begun)
	with := rss(t, s)
	var took []time.Duration
	for range 200 {
		start := time.Now()
		if err := a.ask(s.url, protocol.AskStatus{}, new(protocol.Status)); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	if err := a.guess(s.url); err != nil {
		t.Error(err)
	}
	slices.Sort(took)
	if _, body := s.get("/metrics"); !strings.Contains(body, "satchel_keyserver_connections 10") {
		t.Errorf("not ten thousand connections: %s", body)
	}
	for _, c := range idle {
		c.Close()
	}
	t.Logf("%d connections in %v: %.1f MB before, %.1f MB with them, %.1f KB each; others: median %v, slowest %v",
		connections, opened.Round(10*time.Millisecond), before, with, (with-before)*1024/connections, took[len(took)/2], took[len(took)-1])
	if (with-before)*1024/connections > 40 || took[len(took)*95/100] > 500*time.Millisecond {
		t.Error("too much memory, or others wait")
	}
	s.stop()
}
