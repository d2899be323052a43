package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/webdav"
)

// The figures themselves are no test: only that they are measured, on a small
// backup. The same program serves as its own child.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && (os.Args[1] == childArg || os.Args[1] == profiledArg) {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestChange(t *testing.T) {
	var out bytes.Buffer
	b := &bench{out: &out, log: t.Output(), dir: t.TempDir(), size: size{items: []int{1, 10}, value: 3000, small: 5, large: 3}}
	if err := b.change(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| 100 B | 1 | ", "| 100 B | 10 | ", "| 3,000 B | 10 | ", "<= 3,184 | yes", "| yes | 2,"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// The whole part runs, with servers of its own, and each answer is the right one.
func TestKeyserver(t *testing.T) {
	if !canWatch {
		t.Skip("this system does not tell what another process takes")
	}
	var out bytes.Buffer
	b := &bench{out: &out, log: t.Output(), dir: t.TempDir(), size: size{accounts: 20, rounds: 4, callers: 5, others: 2000, rest: 1, bare: 10}}
	if err := b.keyserver(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"80 recoveries over 5 connections", "| SQLite | ", "| 3,000 | ", "| Ed25519, one signature checked | "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// A wrong evaluation, and a guess that somebody else made, end a run.
func TestKeyserverIsRight(t *testing.T) {
	if !canWatch {
		t.Skip("this system does not tell what another process takes")
	}
	b := &bench{log: t.Output(), dir: t.TempDir()}
	r, _, err := b.newRecords(t.Context(), "SQLite")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.enrol(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	r.used[1].evaluated = r.used[0].evaluated
	p, err := profiledServer(r, b.path("profile"))
	if err != nil {
		t.Fatal(err)
	}
	err = b.runServer(t.Context(), p, func(s *server) error {
		_, err := s.load(t.Context(), r, 2, 1, 0)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "not the right one") {
		t.Errorf("got %v", err)
	}
}

// A stack counts for the part that it is in.
func TestTraces(t *testing.T) {
	const out = `Type: cpu
-----------+-------------------------------------------------------
      30ms   edwards25519.(*Element).Square
             crypto/ed25519.Verify
             net/http.(*conn).serve
-----------+-------------------------------------------------------
      10ms   syscall.Syscall
             internal/poll.(*FD).Write
-----------+-------------------------------------------------------
`
	got := sorted(traces([]byte(out)))
	if want := []share{{"Ed25519", 75}, {"HTTP and the network", 25}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The part about places on servers, over one in this process: what it counts are the
// requests that package webdav says it makes.
func TestClouds(t *testing.T) {
	var out bytes.Buffer
	b := &bench{out: &out, log: t.Output(), hasty: true, dir: t.TempDir(), size: size{
		cloudItems: 2, cloudChanges: 3, cloudRuns: 1, quick: 1, files: 20, value: 3000, alone: 4, delay: time.Millisecond,
	}}
	b.satchel = b.path("satchel")
	if _, err := b.exec(t.Context(), program{args: []string{"go", "build", "-o", b.satchel, "github.com/satchel-backup/satchel/cmd/satchel"}}); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(&webdav.Handler{FileSystem: webdav.Dir(t.TempDir()), LockSystem: webdav.NewMemLS()})
	defer srv.Close()
	list, absent, err := namedClouds(func(name string) string {
		if name == "SATCHEL_TEST_WEBDAV_RCLONE" {
			return "webdav+" + srv.URL
		}
		return ""
	})
	if err != nil || len(list) != 1 || len(absent) != 4 {
		t.Fatalf("got %d servers, without %v, %v", len(list), absent, err)
	}
	if err := b.inClouds(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| a folder on the same disk | ", "GET 2, MOVE 1, PROPFIND ", "### 20 items, 60,000 B, over S3 and WebDAV", "| WebDAV: rclone | restore all | ", "4 items of 3,000 bytes",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// What a proxy counts is what went through it, and each request waits.
func TestMeter(t *testing.T) {
	const delay = 20 * time.Millisecond
	body := strings.Repeat("x", 5000)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		if r.URL.EscapedPath() != "/ann%27s/a" || string(got) != body {
			t.Errorf("got %s with %d bytes", r.URL.EscapedPath(), len(got))
		}
		io.WriteString(w, r.Host)
	}))
	defer srv.Close()
	u, err := url.Parse("webdav+" + srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	var there, here meter
	front, stop, err := cloud{url: u}.before(&there, delay)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	start := time.Now()
	for range 2 {
		req, err := http.NewRequest("PUT", "http://"+front.url.Host+"/ann%27s/a", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := here.transport().RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		host, err := io.ReadAll(resp.Body)
		if resp.Body.Close(); err != nil || string(host) != front.url.Host {
			t.Errorf("the server was asked as %q, %v", host, err)
		}
	}
	if took := time.Since(start); took < 2*delay {
		t.Errorf("it took %v", took)
	}
	a, c := there.take(), here.take()
	for _, got := range []traffic{a, c} {
		if got.requests() != 2 || got.shares(2) != "PUT 1" || got.up < 10_000 || got.up > 12_000 || got.down < 100 || got.down > 2000 {
			t.Errorf("got %+v", got)
		}
	}
	if a.up != c.up || a.down != c.down {
		t.Errorf("the proxy counted %+v, and who asked %+v", a, c)
	}
	if again := there.take(); again.requests() != 0 || again.up != 0 {
		t.Errorf("then %+v", again)
	}
}

// What is counted is what is in the folder.
func TestCounted(t *testing.T) {
	dir := t.TempDir()
	spec := changeSpec{Dir: dir, Items: 1, Value: 10, Small: 1, Large: 1}
	r, err := measureChanges(t.Context(), spec)
	if err != nil || len(r.Small.Bytes) != 1 || len(r.Large.Times) != 1 || r.Small.Bytes[0] < 1000 {
		t.Errorf("got %+v, %v", r, err)
	}
	n, files, err := content(filepath.Join(dir, "place"))
	if err != nil || n < r.Small.Bytes[0] || files < 5 {
		t.Errorf("got %d bytes in %d files, %v", n, files, err)
	}
}

func TestQuantile(t *testing.T) {
	list := []time.Duration{5, 1, 4, 2, 3}
	for percent, want := range map[int]time.Duration{0: 1, 50: 3, 95: 5, 100: 5} {
		if got := quantile(list, percent); got != want {
			t.Errorf("%d %%: got %d, want %d", percent, got, want)
		}
	}
	if got := mean(list); got != 3 {
		t.Errorf("got a mean of %d, want 3", got)
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := number(n); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
