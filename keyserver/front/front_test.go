package front_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/front"
	"github.com/satchel-backup/satchel/keyserver/recordtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// config is one with a real key server.
func config(t *testing.T) front.Config {
	t.Helper()
	m, err := keyserver.NewMaster(secret.Random(keyserver.MasterSize))
	if err != nil {
		t.Fatal(err)
	}
	counts := &front.Counts{}
	s, err := keyserver.New(t.Context(), keyserver.Config{Records: &recordtest.Memory{}, Master: m, Answered: counts.Answered})
	if err != nil {
		t.Fatal(err)
	}
	return front.Config{Answer: s, Check: s.Check, Counts: counts}
}

// post returns the status and the code of an answer to garbage.
func post(h http.Handler, from, forwarded string) (int, protocol.Code, http.Header) {
	r := httptest.NewRequest(http.MethodPost, keyserver.Path, strings.NewReader("\x01garbage"))
	r.RemoteAddr = from
	if forwarded != "" {
		r.Header.Set("X-Forwarded-For", forwarded)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	code := protocol.Code(255)
	if b := w.Body.Bytes(); len(b) == 2 {
		code = protocol.Code(b[1])
	}
	return w.Code, code, w.Header()
}

// passes counts how many of n requests are answered.
func passes(h http.Handler, n int, from func(i int) (string, string)) (passed int) {
	for i := range n {
		a, f := from(i)
		if status, _, _ := post(h, a, f); status == http.StatusOK {
			passed++
		}
	}
	return passed
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t)
		cfg.Rate = 5
		cfg.Proxies = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("127.0.0.1/32")}
		f := front.New(cfg)
		for what, v := range map[string]struct {
			from func(i int) (string, string)
			want int
		}{
			"one address":                  {func(i int) (string, string) { return fmt.Sprintf("192.0.2.1:%d", 1000+i), "" }, 50},
			"another":                      {func(i int) (string, string) { return "192.0.2.2:1", "" }, 50},
			"as IPv6":                      {func(i int) (string, string) { return "[::ffff:192.0.2.3]:1", "" }, 50},
			"the addresses of one network": {func(i int) (string, string) { return fmt.Sprintf("[2001:db8:0:1::%x]:1", i+1), "" }, 50},
			"many networks":                {func(i int) (string, string) { return fmt.Sprintf("[2001:db8:1:%x::1]:1", i), "" }, 80},
			"a header that anyone can set": {func(i int) (string, string) { return "192.0.2.4:1", fmt.Sprintf("192.0.3.%d", i) }, 50},
			"behind a proxy": {func(i int) (string, string) {
				return "10.1.2.3:1", fmt.Sprintf("198.51.100.%d, 192.0.2.5, 10.1.0.7", i)
			}, 50},
			"many behind a proxy":   {func(i int) (string, string) { return "127.0.0.1:1", fmt.Sprintf("192.0.4.%d", i) }, 80},
			"from this machine":     {func(i int) (string, string) { return "[::1]:1", "" }, 80},
			"a proxy with no names": {func(i int) (string, string) { return "10.1.2.3:1", "unknown" }, 80},
		} {
			if got := passes(f, 80, v.from); got != v.want {
				t.Errorf("%s: %d of 80 passed, want %d", what, got, v.want)
			}
		}
		status, code, h := post(f, "192.0.2.1:1", "")
		if status != http.StatusTooManyRequests || code != protocol.CodeUnavailable || h.Get("Retry-After") != "1" {
			t.Errorf("got status %d, %v, %v", status, code, h)
		}
		time.Sleep(time.Second)
		if got := passes(f, 20, func(int) (string, string) { return "192.0.2.1:1", "" }); got != 5 {
			t.Errorf("a second later %d passed, want 5", got)
		}
	})
}

// However many addresses come, memory stays bounded, and those that wait still do.
func TestRateManyAddresses(t *testing.T) {
	f := front.New(config(t))
	r := httptest.NewRequest(http.MethodGet, keyserver.Path, nil)
	for i := range 300_000 {
		r.RemoteAddr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 1).String()
		f.ServeHTTP(discard{}, r)
	}
	if n := front.Remembered(f); n > 100_000 {
		t.Errorf("%d addresses are remembered", n)
	}
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

func TestPaths(t *testing.T) {
	f := front.New(config(t))
	for _, v := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", keyserver.Path, "garbage", 200},
		{"GET", keyserver.Path, "", 405},
		{"POST", keyserver.Path, strings.Repeat("x", protocol.MaxMessage), 200},
		{"POST", keyserver.Path, strings.Repeat("x", protocol.MaxMessage+1), 413},
		{"GET", "/", "", 404},
		{"GET", "/metrics", "", 404},
		{"GET", "/healthz", "", 404},
		{"POST", keyserver.Path + "/", "", 404},
	} {
		w := httptest.NewRecorder()
		f.ServeHTTP(w, httptest.NewRequest(v.method, v.path, strings.NewReader(v.body)))
		if w.Code != v.want {
			t.Errorf("%s %s with %d bytes: got %d, want %d", v.method, v.path, len(v.body), w.Code, v.want)
		}
	}
}

// pipes is a listener of connections in memory, so that time can be a test's.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	ended chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), ended: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.ended) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// from is a connection of an address.
type from struct {
	net.Conn
	addr netip.AddrPort
}

func (f from) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(f.addr) }

// dial connects as an address and returns the client's end.
func (p *pipes) dial(t *testing.T, addr string) net.Conn {
	client, server := net.Pipe()
	select {
	case p.conns <- from{server, netip.MustParseAddrPort(addr)}:
	case <-p.ended:
		client.Close()
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// open reports whether the server left a connection open.
func open(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	c.SetReadDeadline(time.Time{})
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// served runs a front until the returned function is called.
func served(t *testing.T, cfg front.Config) (*pipes, func() error) {
	p := newPipes()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- front.New(cfg).Serve(ctx, p, nil) }()
	return p, sync.OnceValue(func() error { cancel(); return <-done })
}

func TestConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t)
		cfg.Connections, cfg.PerAddress = 10, 3
		p, end := served(t, cfg)
		count := func(addr string, n int) (list []net.Conn) {
			for range n {
				if c := p.dial(t, addr); open(c) {
					list = append(list, c)
				}
			}
			return list
		}
		first := count("192.0.2.1:1", 5)
		if len(first) != 3 {
			t.Errorf("%d connections of one address, want 3", len(first))
		}
		if n := len(count("[2001:db8::1]:1", 2)) + len(count("[2001:db8::2]:1", 2)); n != 3 {
			t.Errorf("%d connections of one network, want 3", n)
		}
		if n := len(count("127.0.0.1:1", 9)); n != 4 {
			t.Errorf("%d connections above those, want 4", n)
		}
		first[0].Close()
		synctest.Wait()
		if n := len(count("192.0.2.1:1", 5)); n != 1 {
			t.Errorf("%d connections after one ended, want 1", n)
		}
		// All of them say nothing, and are gone after a minute.
		time.Sleep(time.Minute + 10*time.Second)
		synctest.Wait()
		if n := len(count("192.0.2.7:1", 3)); n != 3 {
			t.Errorf("%d connections after a minute, want 3", n)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

// Who sends a byte now and then is turned out.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, end := served(t, config(t))
		for what, begin := range map[string]string{
			"header": "POST /satchel/v1 HTTP/1.1\r\nX-A: ",
			"body":   "POST /satchel/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n",
		} {
			c := p.dial(t, "192.0.2.1:1")
			start := time.Now()
			io.WriteString(c, begin)
			go io.Copy(io.Discard, c)
			for {
				if _, err := io.WriteString(c, "x"); err != nil {
					break
				}
				time.Sleep(time.Second)
			}
			if d := time.Since(start); d > 15*time.Second {
				t.Errorf("%s: held for %v", what, d)
			}
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

func TestLargeHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, end := served(t, config(t))
		c := p.dial(t, "192.0.2.1:1")
		go io.WriteString(c, "POST /satchel/v1 HTTP/1.1\r\nHost: x\r\nX-A: "+strings.Repeat("a", 64<<10))
		b, _ := io.ReadAll(c)
		if !bytes.HasPrefix(b, []byte("HTTP/1.1 431 ")) {
			t.Errorf("got %.60q", b)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

// What is being worked on is answered, nothing new begins, and then Serve ends; what does
// not end in time is cut off.
func TestDrain(t *testing.T) {
	for what, takes := range map[string]time.Duration{"in time": 15 * time.Second, "too late": time.Hour} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := config(t)
				begun := make(chan struct{})
				cfg.Answer = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					close(begun)
					select {
					case <-time.After(takes):
					case <-r.Context().Done():
					}
					io.WriteString(w, "done")
				})
				p, end := served(t, cfg)
				c := p.dial(t, "192.0.2.1:1")
				idle := p.dial(t, "192.0.2.2:1")
				io.WriteString(c, "POST /satchel/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
				<-begun
				ended := make(chan error)
				go func() { ended <- end() }()
				b, _ := io.ReadAll(c)
				if ok := bytes.HasSuffix(b, []byte("done")); ok != (what == "in time") {
					t.Errorf("got %q", b)
				}
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if open(idle) {
					t.Error("an idle connection is open")
				}
			})
		})
	}
}

// More requests at once than are worked on are told to come again.
func TestAtOnce(t *testing.T) {
	cfg := config(t)
	cfg.Requests = 2
	stall, in := make(chan struct{}), make(chan struct{})
	cfg.Answer = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { in <- struct{}{}; <-stall })
	f := front.New(cfg)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { post(f, "192.0.2.1:1", "") })
		<-in
	}
	if status, code, _ := post(f, "192.0.2.2:1", ""); status != http.StatusServiceUnavailable || code != protocol.CodeUnavailable {
		t.Errorf("got %d, %v", status, code)
	}
	close(stall)
	wg.Wait()
}

func TestAdmin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t)
		var fault error
		check := cfg.Check
		cfg.Check = func(ctx context.Context) error { return errors.Join(fault, check(ctx)) }
		cfg.Counts.Info = func() map[string]string { return map[string]string{"version": "1", "b": `"`} }
		var log bytes.Buffer
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		f := front.New(cfg)
		get := func(path string) (int, string) {
			w := httptest.NewRecorder()
			f.Admin().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			return w.Code, w.Body.String()
		}
		if code, body := get("/healthz"); code != 200 || body != "ok\n" {
			t.Errorf("got %d %q", code, body)
		}
		fault = errors.New("the disk is full")
		time.Sleep(2 * time.Second)
		for range 3 {
			if code, body := get("/healthz"); code != 503 || !strings.Contains(body, "disk is full") {
				t.Errorf("got %d %q", code, body)
			}
		}
		fault = nil
		time.Sleep(2 * time.Second)
		if code, _ := get("/healthz"); code != 200 {
			t.Errorf("got %d", code)
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines: %s", n, log.String())
		}
		post(f, "192.0.2.1:1", "")
		cfg.Counts.Answered(protocol.OpEvaluate, protocol.CodeOK, 3*time.Millisecond)
		_, body := get("/metrics")
		for _, want := range []string{
			`satchel_keyserver_info{b="\"",version="1"} 1`,
			`satchel_keyserver_answers_total{op="none",code="7",text="malformed request"} 1`,
			`satchel_keyserver_answer_seconds_bucket{op="evaluate",le="0.0025"} 0`,
			`satchel_keyserver_answer_seconds_bucket{op="evaluate",le="0.005"} 1`,
			`satchel_keyserver_answer_seconds_bucket{op="evaluate",le="+Inf"} 1`,
			`satchel_keyserver_answer_seconds_sum{op="evaluate"} 0.003`,
			fmt.Sprintf("satchel_keyserver_clock_timestamp_seconds %d", time.Now().Unix()),
		} {
			if !strings.Contains(body, want+"\n") {
				t.Errorf("%s is not in\n%s", want, body)
			}
		}
		for _, line := range strings.Split(strings.TrimSpace(body), "\n") {
			if !strings.HasPrefix(line, "# ") && len(strings.Fields(line[max(0, strings.LastIndex(line, "}")):])) != 2 {
				t.Errorf("no sample: %s", line)
			}
		}
	})
}
