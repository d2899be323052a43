package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/protocol"
)

func TestVersion(t *testing.T) {
	if version != satchel.Version {
		t.Errorf("got %s, want %s", version, satchel.Version)
	}
}

// Without configuration: a master key is made once and loudly, all is in one folder that
// is closed to others, and nothing that is secret or names a client is logged.
func TestServe(t *testing.T) {
	w := newWorld(t)
	s := w.serve()
	a := w.account().enrol(s.url, 10)
	if err := a.guess(s.url); err != nil {
		t.Error(err)
	}
	if status, body := s.get("/healthz"); status != http.StatusOK {
		t.Errorf("got %d %s", status, body)
	}
	if _, body := s.get("/metrics"); !strings.Contains(body, `satchel_keyserver_answers_total{op="evaluate",code="0",text="ok"} 1`) {
		t.Errorf("got %s", body)
	}
	key, err := os.ReadFile(filepath.Join(w.dir, "data", "master-keys"))
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSpace(string(key[bytes.LastIndexByte(bytes.TrimSpace(key), '\n'):]))
	s.stop()
	if n := strings.Count(s.log.String(), "A NEW MASTER KEY WAS MADE"); n != 1 {
		t.Errorf("told %d times: %s", n, s.log.String())
	}
	again := w.serve()
	if st := a.status(again.url); st.Left != 9 {
		t.Errorf("%d guesses left, want 9", st.Left)
	}
	again.stop()
	log := s.log.String() + again.log.String()
	if strings.Contains(again.log.String(), "NEW MASTER KEY") {
		t.Error("a second master key was made")
	}
	for what, secret := range map[string]string{"the master key": line, "the account": a.id.String(), "the account's start": a.id.String()[:8]} {
		if strings.Contains(log, secret) {
			t.Errorf("the log shows %s", what)
		}
	}
	filepath.Walk(filepath.Join(w.dir, "data"), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		return nil
	})
}

// fails runs the program, which must end with a code and say something.
func (w *world) fails(want int, text string, args ...string) {
	w.Helper()
	out, err := w.command(args...).CombinedOutput()
	e, ok := errors.AsType[*exec.ExitError](err)
	if !ok || e.ExitCode() != want || !strings.Contains(string(out), text) {
		w.Errorf("%v: got %v, %s; want code %d and %q", args, err, out, want, text)
	}
}

func TestRefusesToStart(t *testing.T) {
	w := newWorld(t)
	w.fails(2, "no TLS", "serve", "--listen", "0.0.0.0:0")
	w.fails(2, "belong together", "serve", "--tls-cert", "x")
	w.fails(2, "at least 1", "serve", "--rate", "0")
	w.fails(2, "unknown flag", "serve", "--port", "1")
	w.fails(2, "--proxy", "serve", "--proxy", "ten")
	w.fails(1, "reading the certificate", "serve", "--listen", "127.0.0.1:0", "--admin", "off", "--tls-cert", "/none", "--tls-key", "/none")
	w.fails(1, "opening the database", "serve", "--listen", "127.0.0.1:0", "--admin", "off", "--database", "postgres://127.0.0.1:1/x?connect_timeout=1")
	if _, err := os.Stat(filepath.Join(w.dir, "data", "master-keys")); err == nil {
		t.Error("a master key was made for a database that cannot be opened")
	}
	s := w.serve()
	w.fails(1, "address already in use", "serve", "--listen", strings.TrimPrefix(s.admin, "http://"))
	s.stop()
	// A database whose key is gone, or another one, is not written to.
	file := filepath.Join(w.dir, "data", "master-keys")
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	w.fails(1, "put the copy of that file back", "serve", "--listen", "127.0.0.1:0", "--admin", "off")
	if err := os.WriteFile(file, []byte(strings.Repeat("ab", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.fails(1, "not the master keys of this database", "serve", "--listen", "127.0.0.1:0", "--admin", "off")
	if err := os.WriteFile(file, []byte("secret!\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.fails(1, "line 1 is not 64 hex digits", "serve", "--listen", "127.0.0.1:0", "--admin", "off")
	w.serve("--master-command", "cat '"+file+".away'").stop()
}

func TestTokens(t *testing.T) {
	w := newWorld(t)
	s := w.serve("--require-token")
	a := w.account()
	if err := a.create(s.url, 5); code(err) != protocol.CodeToken {
		t.Errorf("without a token: got %v", err)
	}
	exit, out := w.run("token", "add", "ann")
	if exit != 0 {
		t.Fatal(out)
	}
	token, where, _ := strings.Cut(out, "\n")
	if a.token = token; !strings.Contains(where, w.dir) {
		t.Errorf("it does not say where the token counts: %q", where)
	}
	b, err := os.ReadFile(filepath.Join(w.dir, "data", "tokens"))
	if err != nil || strings.Contains(string(b), a.token) {
		t.Errorf("the token is in the file, or %v", err)
	}
	a.enrol(s.url, 5)
	if exit, _ := w.run("token", "add", "ann"); exit != 1 {
		t.Error("a name was given twice")
	}
	if exit, _ := w.run("token", "add", "a b"); exit != 2 {
		t.Error("a name has a space")
	}
	if _, out := w.run("token", "list"); !strings.HasSuffix(out, " ann\n") {
		t.Errorf("got %q", out)
	}
	if exit, out := w.run("token", "remove", "ann"); exit != 0 {
		t.Error(out)
	}
	if exit, _ := w.run("token", "remove", "ann"); exit != 1 {
		t.Error("removed twice")
	}
	late := w.account()
	late.token = a.token
	if err := late.create(s.url, 5); code(err) != protocol.CodeToken {
		t.Errorf("with a removed token: got %v", err)
	}
	a.token = ""
	if err := a.guess(s.url); err != nil {
		t.Errorf("an account that is there: %v", err)
	}
}

// The master key is changed while guesses come in; then the old one opens nothing.
func TestRotate(t *testing.T) {
	onAll(t, func(w *world) {
		servers := []*server{w.serve(), w.serve()}
		file := filepath.Join(w.dir, "data", "master-keys")
		old, err := os.ReadFile(file)
		if err != nil {
			w.Fatal(err)
		}
		var all []*account
		for range 8 {
			all = append(all, w.account().enrol(servers[0].url, 10))
		}
		end := make(chan struct{})
		var wg sync.WaitGroup
		for i, a := range all[:2] {
			wg.Go(func() {
				for {
					select {
					case <-end:
						return
					default:
					}
					if err := a.ask(servers[i].url, protocol.PutHead{}, new(protocol.Head)); code(err) != protocol.CodeConflict {
						w.Errorf("during the rotation: %v", err)
						return
					}
				}
			})
		}
		run := func(want int, text string, args ...string) {
			w.Helper()
			if exit, out := w.run(append(append([]string{"rotate"}, w.flags...), args...)...); exit != want || !strings.Contains(out, text) {
				w.Errorf("rotate %v: got %d, %s; want %d, %q", args, exit, out, want, text)
			}
		}
		run(0, "8 records, 9 sealed anew")
		run(1, "just changed", "--drop")
		for _, a := range all {
			if err := a.guess(servers[1].url); err != nil {
				w.Error(err)
			}
		}
		long := time.Now().Add(-time.Hour)
		if err := os.Chtimes(file, long, long); err != nil {
			w.Fatal(err)
		}
		run(0, "1 older keys are out", "--drop")
		run(0, "bring it to all servers", "--prepare")
		run(1, "prepared already", "--prepare")
		if err := os.Chtimes(file, long, long); err != nil {
			w.Fatal(err)
		}
		run(1, "a key is prepared and not in use", "--drop")
		run(0, "8 records, 9 sealed anew")
		close(end)
		wg.Wait()
		for _, s := range servers {
			s.stop()
		}
		if err := os.WriteFile(file+".old", old, 0o600); err != nil {
			w.Fatal(err)
		}
		w.fails(1, "not the master keys", append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", "off", "--master-keys", file + ".old"}, w.flags...)...)
		if s := all[0].status(w.serve().url); s.Left != 9 {
			w.Errorf("%d guesses left, want 9", s.Left)
		}
	})
}

// A server that was put back from a copy says so once, and gives few guesses.
func TestAfterRestore(t *testing.T) {
	w := newWorld(t)
	s := w.serve()
	a := w.account().enrol(s.url, 10)
	s.stop()
	s = w.serve("--after-restore")
	if !strings.Contains(s.log.String(), "AFTER A RESTORE") {
		t.Error(s.log.String())
	}
	s.stop()
	if st := a.status(w.serve().url); st.Left != 2 || st.Unproven != 1 {
		t.Errorf("%d guesses left, unproven %d, want 2 and 1", st.Left, st.Unproven)
	}
}

// fullEnv names a folder on a disk of few megabytes, which .ci/run makes.
const fullEnv = "SATCHEL_SMALL_DISK"

// While the disk is full nothing is given away and nothing lost, it is said clearly, and
// all goes on by itself when there is room.
func TestFullDisk(t *testing.T) {
	disk := os.Getenv(fullEnv)
	if disk == "" {
		t.Skip("set " + fullEnv + " to a folder on a disk of few megabytes to run this")
	}
	w := newWorld(t)
	s := w.serve("--data", filepath.Join(disk, "data"))
	a := w.account().enrol(s.url, 10)
	if err := a.guess(s.url); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(disk, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(filler)
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	f.Close()
	// The log of the database has some room that is used again; then it is full.
	refused := 0
	for i := 0; refused < 20; i++ {
		switch err := w.account().create(s.url, 1); code(err) {
		case protocol.CodeOK:
		case protocol.CodeUnavailable:
			refused++
		default:
			t.Fatal(err)
		}
		if i > 10_000 {
			t.Fatal("the disk is never full")
		}
	}
	before := a.status(s.url)
	if err := a.guess(s.url); code(err) != protocol.CodeUnavailable {
		t.Errorf("got %v", err)
	}
	status, body := s.get("/healthz")
	for i := 0; status == http.StatusOK && i < 30; i++ { // An answer holds for a second.
		time.Sleep(100 * time.Millisecond)
		status, body = s.get("/healthz")
	}
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "full") {
		t.Errorf("got %d %s", status, body)
	}
	if !strings.Contains(s.log.String(), "full") {
		t.Errorf("the log does not say it: %s", s.log.String())
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if st := a.status(s.url); st.Left != before.Left || st.Left > 9 {
		t.Errorf("%d guesses left, want %d", st.Left, before.Left)
	}
	if err := a.guess(s.url); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if st := a.status(s.url); st.Left != before.Left-1 {
		t.Errorf("%d guesses left, want %d", st.Left, before.Left-1)
	}
	s.stop()
	if st := a.status(w.serve("--data", filepath.Join(disk, "data")).url); st.Left != before.Left-1 {
		t.Errorf("after a restart %d guesses left, want %d", st.Left, before.Left-1)
	}
}

// Connections that say nothing, more than are allowed, keep nobody out for long, and the
// server goes on.
func TestIdleConnections(t *testing.T) {
	w := newWorld(t)
	s := w.serve("--connections", "200")
	addr := strings.TrimPrefix(strings.TrimSuffix(s.url, "/satchel/v1"), "http://")
	var idle []net.Conn
	for range 400 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	if err := w.account().create(s.url, 1); code(err) != 255 {
		t.Errorf("got %v, want no answer", err)
	}
	for _, c := range idle {
		c.Close()
	}
	for i := 0; ; i++ { // They are let go as soon as the server sees it.
		if err := w.account().create(s.url, 1); err == nil {
			break
		} else if i > 1000 {
			t.Fatal(err)
		}
	}
	if _, body := s.get("/metrics"); !strings.Contains(body, `limited_total{limit="connections"} `) || strings.Contains(body, `limited_total{limit="connections"} 0`) {
		t.Error("the limit was not counted")
	}
}

// writeCertificate makes a certificate with a serial number.
func writeCertificate(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) {
		if name == "" {
			return
		}
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(serial) * time.Minute) // Another moment than the last, on any disk.
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write(cert, "CERTIFICATE", der)
	write(key, "PRIVATE KEY", secret)
}

// A certificate that is replaced is served at the next handshake; one that is replaced
// halfway is not.
func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, cert, key, 1)
	c, err := openCertificate(cert, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		c.looked = time.Time{}
		got, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return got.Leaf.SerialNumber.Int64()
	}
	if n := serial(); n != 1 {
		t.Errorf("got %d, want 1", n)
	}
	writeCertificate(t, cert, "", 2)
	if n := serial(); n != 1 {
		t.Errorf("half replaced: got %d, want 1", n)
	}
	writeCertificate(t, cert, key, 3)
	if n := serial(); n != 3 {
		t.Errorf("got %d, want 3", n)
	}
	os.Remove(cert)
	if n := serial(); n != 3 {
		t.Errorf("gone: got %d, want 3", n)
	}

	writeCertificate(t, cert, key, 4)
	w := newWorld(t)
	s := w.serve("--tls-cert", cert, "--tls-key", key)
	w.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	w.account().enrol(strings.Replace(s.url, "http:", "https:", 1), 3)
	s.stop()
	if strings.Contains(s.log.String(), "handshake") {
		t.Error(s.log.String())
	}
}

func TestHelp(t *testing.T) {
	w := newWorld(t)
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}, {"rotate", "--help"}, {"token", "--help"}} {
		if exit, out := w.run(args...); exit != 0 || !strings.Contains(out, "Examples:") {
			t.Errorf("%v: got %d, %s", args, exit, out)
		}
	}
}

// Who names no folder, or another one, is not told that all is well.
func TestRotateElsewhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var out, errs strings.Builder
	a := &app{out: &out, err: &errs, now: time.Now}
	a.settings.data = dir
	if err := a.rotate(t.Context(), false, false); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, %s", err, &out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
