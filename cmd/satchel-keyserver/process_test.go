package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/postgrestest"
	"github.com/satchel-backup/satchel/protocol"
)

// A test binary with this variable is the program, with a clock that is as much ahead as
// these files say in all.
const clockEnv = "SATCHEL_TEST_CLOCK"

func TestMain(m *testing.M) {
	if os.Getenv(attackEnv) != "" {
		os.Exit(attack(os.Stdin, os.Stdout))
	}
	files := os.Getenv(clockEnv)
	if files == "" {
		os.Exit(m.Run())
	}
	os.Exit(run(signals(), os.Args[1:], os.Stdout, os.Stderr, os.Environ(), func() time.Time { return time.Now().Add(ahead(files)) }))
}

func ahead(files string) (all time.Duration) {
	for _, file := range filepath.SplitList(files) {
		b, _ := os.ReadFile(file)
		d, _ := time.ParseDuration(string(b))
		all += d
	}
	return all
}

// world is some servers of one database.
type world struct {
	*testing.T
	dir      string
	flags    []string
	client   *http.Client
	database *cluster // its own, nil if it may not be killed
	started  int      // servers
	wrap     []string // command that runs the servers, if any
}

// onAll runs a test on every kind of database that is to be had.
func onAll(t *testing.T, do func(w *world)) {
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); do(newWorld(t)) })
	if postgrestest.Have() { // .ci/run wants these to run.
		t.Run("postgres", func(t *testing.T) {
			t.Parallel()
			do(newWorld(t, "--database", postgrestest.Address(t)))
		})
	}
}

func newWorld(t *testing.T, flags ...string) *world {
	return &world{T: t, dir: t.TempDir(), flags: flags, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 30 * time.Second}}
}

func (w *world) clock() string { return filepath.Join(w.dir, "clock") }

// later moves the clocks of all servers, at once.
func (w *world) later(d time.Duration) {
	w.Helper()
	w.setAhead(w.clock(), ahead(w.clock())+d)
}

func (w *world) setAhead(file string, d time.Duration) {
	w.Helper()
	tmp := file + ".new"
	if err := errors.Join(os.WriteFile(tmp, []byte(d.String()), 0o600), os.Rename(tmp, file)); err != nil {
		w.Fatal(err)
	}
}

func (w *world) now() time.Time { return time.Now().Add(ahead(w.clock())) }

func (w *world) command(args ...string) *exec.Cmd {
	args = append(append(slices.Clone(w.wrap), os.Args[0]), args...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{clockEnv + "=" + w.clock(), "HOME=" + w.dir, "SATCHEL_KEYSERVER_DATA=" + filepath.Join(w.dir, "data"), "PATH=" + os.Getenv("PATH")}
	return cmd
}

// server is one process.
type server struct {
	w          *world
	cmd        *exec.Cmd
	url, admin string
	clock      string // how much it is ahead of the others
	log        lines
	ended      chan struct{}
}

// ahead sets the clock of one server wrong.
func (s *server) ahead(d time.Duration) {
	s.w.Helper()
	s.w.setAhead(s.clock, d)
}

type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) add(s string) { l.mu.Lock(); defer l.mu.Unlock(); l.text.WriteString(s + "\n") }
func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// serve starts a server and waits until it serves.
func (w *world) serve(flags ...string) *server {
	w.Helper()
	s, err := w.start(flags...)
	if err != nil {
		w.Fatal(err)
	}
	return s
}

func (w *world) start(flags ...string) (*server, error) {
	args := append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-json"}, w.flags...)
	return w.startWith(append(args, flags...)...)
}

func (w *world) startWith(args ...string) (*server, error) {
	s := &server{w: w, cmd: w.command(args...), clock: filepath.Join(w.dir, fmt.Sprint("clock", w.started)), ended: make(chan struct{})}
	w.started++
	s.cmd.Env[0] += string(filepath.ListSeparator) + s.clock
	pipe, err := s.cmd.StderrPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	serving := make(chan struct{})
	go func() {
		defer close(s.ended)
		once := sync.OnceFunc(func() { close(serving) })
		scan := bufio.NewScanner(pipe)
		for scan.Scan() {
			s.log.add(scan.Text())
			var line struct{ Msg, Listen, Admin string }
			if json.Unmarshal(scan.Bytes(), &line) == nil && line.Msg == "serving" {
				s.url, s.admin = "http://"+line.Listen+keyserver.Path, "http://"+line.Admin
				once()
			}
		}
		s.cmd.Wait()
	}()
	w.Cleanup(s.kill)
	select {
	case <-serving:
	case <-s.ended:
		return nil, fmt.Errorf("the server ended: %s", s.log.String())
	case <-time.After(30 * time.Second):
		return nil, fmt.Errorf("the server does not serve: %s", s.log.String())
	}
	return s, nil
}

// kill ends a server as a power cut does, but for what the system still writes.
func (s *server) kill() {
	s.cmd.Process.Kill()
	<-s.ended
}

// stop asks a server to end.
func (s *server) stop() {
	s.w.Helper()
	s.cmd.Process.Signal(os.Interrupt)
	<-s.ended
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		s.w.Errorf("it ended with %d: %s", code, s.log.String())
	}
}

func (s *server) get(path string) (int, string) {
	s.w.Helper()
	r, err := s.w.client.Get(s.admin + path)
	if err != nil {
		s.w.Fatal(err)
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(b)
}

// account is one account's holder.
type account struct {
	w             *world
	access, proof ed25519.PrivateKey
	id            protocol.Account
	slot          [32]byte
	seq           atomic.Uint64
	token         string
}

func newKey() ed25519.PrivateKey {
	_, k, _ := ed25519.GenerateKey(rand.Reader)
	return k
}

func (w *world) account() *account {
	a := &account{w: w, access: newKey(), proof: newKey()}
	a.id = protocol.AccountOf(a.access.Public().(ed25519.PublicKey))
	a.seq.Store(uint64(w.now().UnixMilli()))
	return a
}

// ask returns a *protocol.Refusal if the server refuses, and another error if there was no
// answer.
func (a *account) ask(url string, p protocol.Payload, reply any) error {
	r, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(protocol.Sign(a.access, a.seq.Add(1), p)))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+a.token)
	// As a client should: what a server that closed an idle connection did not answer is
	// sent again. net/http does that where this key is there, and does not send an empty one.
	r.Header["Idempotency-Key"] = []string{}
	res, err := a.w.client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return protocol.ParseReply(b, reply)
}

func blind(pin string) *protocol.Blinding {
	b, err := protocol.Blind([]byte(pin))
	if err != nil {
		panic(err)
	}
	return b
}

func (a *account) create(url string, limit byte) error {
	return a.ask(url, protocol.Create{Blinded: blind("4917").Blinded, Limit: limit}, new(protocol.Created))
}

func (a *account) confirm(url string) error {
	key := protocol.Public(newKey().Public().(ed25519.PublicKey))
	return a.ask(url, protocol.NewConfirm(a.proof, a.id, key, 1, key, a.slot), nil)
}

func (a *account) enrol(url string, limit byte) *account {
	a.w.Helper()
	if err := errors.Join(a.create(url, limit), a.confirm(url)); err != nil {
		a.w.Fatal(err)
	}
	return a
}

func (a *account) guess(url string) error {
	var id protocol.Attempt
	rand.Read(id[:])
	return a.attempt(url, id)
}

func (a *account) attempt(url string, id protocol.Attempt) error {
	return a.ask(url, protocol.Evaluate{Attempt: id, Blinded: blind(fmt.Sprint(id)).Blinded, Slot: a.slot}, new(protocol.Evaluated))
}

func (a *account) status(url string) (s protocol.Status) {
	a.w.Helper()
	if err := a.ask(url, protocol.AskStatus{}, &s); err != nil {
		a.w.Fatal(err)
	}
	return s
}

func code(err error) protocol.Code {
	if r, ok := errors.AsType[*protocol.Refusal](err); ok {
		return r.Code
	}
	if err == nil {
		return protocol.CodeOK
	}
	return lost
}

// lost is no answer at all.
const lost protocol.Code = 255

// command runs the program in this process.
func (w *world) run(args ...string) (exit int, out string) {
	var b strings.Builder
	exit = run(context.Background(), args, &b, &b, []string{"SATCHEL_KEYSERVER_DATA=" + w.data()}, w.now)
	return exit, b.String()
}
