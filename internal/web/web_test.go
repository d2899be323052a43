package web_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
)

// script is a server that gives its answers one after another, the last one for ever.
type script struct {
	mu      sync.Mutex
	answers []answer       // guarded by mu
	seen    []seen         // guarded by mu
	starts  []time.Time    // guarded by mu
	cut     map[int]string // by number of the request: what is sent before the line is cut; guarded by mu
}

type answer struct {
	status int
	after  string
	body   string
	err    error
}

type seen struct{ method, auth, body string }

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body := ""
	if req.Body != nil {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		body = string(b)
	}
	s.seen = append(s.seen, seen{req.Method, req.Header.Get("Authorization"), body})
	s.starts = append(s.starts, time.Now())
	a := s.answers[min(len(s.seen), len(s.answers))-1]
	if a.err != nil {
		return nil, a.err
	}
	resp := &http.Response{StatusCode: a.status, Header: http.Header{}, Request: req, ContentLength: int64(len(a.body))}
	if a.after != "" {
		resp.Header.Set("Retry-After", a.after)
	}
	var r io.Reader = strings.NewReader(a.body)
	if cut, ok := s.cut[len(s.seen)]; ok {
		r = io.MultiReader(strings.NewReader(cut), errReader{})
	}
	resp.Body = io.NopCloser(r)
	return resp, nil
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func get(body string) web.Request {
	return web.Request{Method: "PUT", URL: "https://cloud.test/secret-name", Body: []byte(body)}
}

// R9: 429 and faults of the server are asked again, with pauses that grow and obey
// Retry-After, and not for ever.
func TestAgain(t *testing.T) {
	reset := errors.New("reset")
	for _, test := range []struct {
		name    string
		answers []answer
		want    int // requests
		err     error
		status  int
		least   time.Duration // of the whole
		most    time.Duration
	}{
		{"ok", []answer{{status: 200}}, 1, nil, 200, 0, 0},
		{"404 says something", []answer{{status: 404}}, 1, nil, 404, 0, 0},
		{"507 says something", []answer{{status: 507}}, 1, nil, 507, 0, 0},
		{"once 500", []answer{{status: 500}, {status: 201}}, 2, nil, 201, 250 * time.Millisecond, 500 * time.Millisecond},
		{"once reset", []answer{{err: reset}, {status: 201}}, 2, nil, 201, 250 * time.Millisecond, 500 * time.Millisecond},
		{"always 503", []answer{{status: 503}}, 5, store.ErrUnreachable, 0, 3750 * time.Millisecond, 8 * time.Second},
		{"always reset", []answer{{err: reset}}, 5, store.ErrUnreachable, 0, 3750 * time.Millisecond, 8 * time.Second},
		{"nobody there", []answer{{err: &net.OpError{Op: "dial", Err: reset}}}, 3, store.ErrUnreachable, 0, 750 * time.Millisecond, 1500 * time.Millisecond},
		{"Retry-After", []answer{{status: 429, after: "20"}, {status: 200}}, 2, nil, 200, 20 * time.Second, 20 * time.Second},
		{"Retry-After too long", []answer{{status: 429, after: "900"}, {status: 200}}, 1, store.ErrUnreachable, 0, 0, 0},
		{"nonsense in it", []answer{{status: 429, after: "soon"}, {status: 200}}, 2, nil, 200, 250 * time.Millisecond, 500 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{answers: test.answers}
				c := web.New(web.Config{Transport: s})
				start := time.Now()
				a, err := c.Do(t.Context(), get("data"))
				if !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
					t.Fatalf("got %v, want %v", err, test.err)
				}
				if a != nil && a.Status != test.status {
					t.Errorf("got status %d, want %d", a.Status, test.status)
				}
				if len(s.seen) != test.want {
					t.Errorf("got %d requests, want %d", len(s.seen), test.want)
				}
				for _, r := range s.seen {
					if r.body != "data" {
						t.Errorf("a repeated request had the body %q", r.body)
					}
				}
				if took := time.Since(start); took < test.least || took > test.most {
					t.Errorf("took %v, want %v to %v", took, test.least, test.most)
				}
				if err != nil && strings.Contains(err.Error(), "secret-name") {
					t.Errorf("the error holds the address: %v", err)
				}
			})
		})
	}
}

// R9: a server that wants no request for a quarter of an hour gets none.
func TestNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{{status: 429, after: "900"}, {status: 200}}}
		c := web.New(web.Config{Transport: s})
		for range 100 {
			_, err := c.Do(t.Context(), get(""))
			if later, ok := errors.AsType[*web.LaterError](err); !ok || later.After <= 0 {
				t.Fatalf("got %v, want a LaterError", err)
			}
			time.Sleep(8 * time.Second)
		}
		if len(s.seen) != 1 {
			t.Errorf("got %d requests, want 1", len(s.seen))
		}
		time.Sleep(2 * time.Minute)
		if _, err := c.Do(t.Context(), get("")); err != nil {
			t.Error(err)
		}
	})
}

// The same if it was asked whose the account is.
func TestNoStormOfAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{{status: 429, after: "900"}, {status: 200, body: "mine"}}}
		c := web.New(web.Config{Transport: s, Tokens: &tokens{last: 1}, Owner: "mine", Account: func(ctx context.Context, c *web.Client) (string, error) {
			a, err := c.Do(ctx, web.Request{Method: "GET", URL: "https://cloud.test/about"})
			if err != nil {
				return "", err
			}
			return string(a.Body), nil
		}})
		for range 100 {
			if _, err := c.Do(t.Context(), get("")); !errors.Is(err, store.ErrUnreachable) {
				t.Fatalf("got %v, want ErrUnreachable", err)
			}
			time.Sleep(8 * time.Second)
		}
		if len(s.seen) != 1 {
			t.Errorf("got %d requests, want 1", len(s.seen))
		}
		time.Sleep(2 * time.Minute)
		if _, err := c.Do(t.Context(), get("")); err != nil {
			t.Error(err)
		}
	})
}

// An answer that was cut is asked for again, and one that is too long is not read.
func TestBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{{status: 200, body: "0123456789"}}, cut: map[int]string{1: "01234"}}
		c := web.New(web.Config{Transport: s})
		a, err := c.Do(t.Context(), web.Request{Method: "GET", URL: "https://cloud.test/", Limit: 10})
		if err != nil || string(a.Body) != "0123456789" || len(s.seen) != 2 {
			t.Errorf("got %v, %v after %d requests", a, err, len(s.seen))
		}
		if _, err := c.Do(t.Context(), web.Request{Method: "GET", URL: "https://cloud.test/", Limit: 9}); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("got %v, want ErrTooLarge", err)
		}
	})
}

// What was given up tells so, whatever it waited for.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		c := web.New(web.Config{Transport: &script{answers: []answer{{status: 503}}}})
		if _, err := c.Do(ctx, get("")); err == nil {
			t.Error("no error")
		}
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, stop)
		if _, err := c.Do(ctx, get("")); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}

// A connection on which nothing moves ends.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := transport(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		start := time.Now()
		if _, err := web.New(web.Config{Transport: hang}).Do(t.Context(), get("")); !errors.Is(err, store.ErrUnreachable) {
			t.Errorf("got %v, want ErrUnreachable", err)
		}
		if took := time.Since(start); took < 10*time.Minute || took > 11*time.Minute {
			t.Errorf("took %v, want five times two minutes", took)
		}
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// tokens gives 1, 2, 3, … as the ones before are refused, up to last.
type tokens struct {
	mu    sync.Mutex
	n     int // guarded by mu
	last  int
	asked int // guarded by mu
}

func (s *tokens) Token(_ context.Context, stale string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.n == 0 || stale == fmt.Sprint(s.n) {
		s.n++
	}
	if s.n > s.last {
		return "", store.ErrSignIn
	}
	return fmt.Sprint(s.n), nil
}

// R9: a token that is refused is renewed once; a dead grant is sign-in needed at once.
func TestTokens(t *testing.T) {
	for _, test := range []struct {
		name    string
		answers []answer
		last    int
		want    int // requests
		err     error
	}{
		{"good", []answer{{status: 200}}, 1, 1, nil},
		{"401 once", []answer{{status: 401}, {status: 200}}, 2, 2, nil},
		{"401 for ever", []answer{{status: 401}}, 99, 2, store.ErrSignIn},
		{"dead grant", []answer{{status: 401}}, 1, 1, store.ErrSignIn},
		{"never signed in", []answer{{status: 401}}, 0, 0, store.ErrSignIn},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &script{answers: test.answers}
			c := web.New(web.Config{Transport: s, Tokens: &tokens{last: test.last}})
			_, err := c.Do(t.Context(), get(""))
			if !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
				t.Errorf("got %v, want %v", err, test.err)
			}
			if len(s.seen) != test.want {
				t.Errorf("got %d requests, want %d", len(s.seen), test.want)
			}
			for i, r := range s.seen {
				if want := fmt.Sprintf("Bearer %d", i+1); r.auth != want {
					t.Errorf("request %d had %q, want %q", i, r.auth, want)
				}
			}
		})
	}
}

// R10: every token is asked whose it is before it is used, also one that comes in
// mid-flight; and nothing reaches another account.
func TestWrongAccount(t *testing.T) {
	reached := map[string]int{}
	s := transport(func(req *http.Request) (*http.Response, error) {
		token := req.Header.Get("Authorization")
		body := "mine"
		if token == "Bearer 3" {
			body = "another's"
		}
		if !strings.HasSuffix(req.URL.Path, "/about") {
			reached[token]++
			body = "done"
		}
		status := 200
		if reached["Bearer 1"] == 2 && token == "Bearer 1" || reached["Bearer 2"] == 2 && token == "Bearer 2" {
			status = 401
		}
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}, nil
	})
	asked := 0
	c := web.New(web.Config{Transport: s, Tokens: &tokens{last: 9}, Owner: "mine", Account: func(ctx context.Context, c *web.Client) (string, error) {
		asked++
		a, err := c.Do(ctx, web.Request{Method: "GET", URL: "https://cloud.test/about"})
		if err != nil {
			return "", err
		}
		return string(a.Body), nil
	}})
	for i, want := range []error{nil, nil, store.ErrWrongAccount, store.ErrWrongAccount} {
		if _, err := c.Do(t.Context(), get("")); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("request %d: got %v, want %v", i, err, want)
		}
	}
	if reached["Bearer 3"] != 0 {
		t.Error("the other account was reached")
	}
	if asked > 4 {
		t.Errorf("asked %d times whose account it is", asked)
	}
}

// A server that cannot prove who it is gets nothing, and is not asked again.
func TestCertificate(t *testing.T) {
	var requests, connections atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	srv.StartTLS()
	defer srv.Close()
	_, err := web.New(web.Config{}).Do(t.Context(), web.Request{Method: "PUT", URL: srv.URL})
	if want := "store is unreachable: its certificate is signed by nobody whom this device trusts"; !errors.Is(err, store.ErrUnreachable) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if requests.Load() != 0 || connections.Load() != 1 {
		t.Errorf("got %d requests over %d connections, want none and one", requests.Load(), connections.Load())
	}
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	if _, err := web.New(web.Config{Transport: web.NewTransport(roots)}).Do(t.Context(), web.Request{Method: "PUT", URL: srv.URL}); err != nil {
		t.Errorf("with the server's own root: %v", err)
	}
}

// A server that speaks no https is one that answers, and is not asked again.
func TestNoTLS(t *testing.T) {
	for name, answer := range map[string]string{"http": "HTTP/1.1 400 Bad Request\r\n\r\n", "another": "SSH-2.0-OpenSSH_9.2\r\n"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var connections atomic.Int32
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				connections.Add(1)
				io.WriteString(c, answer)
				io.Copy(io.Discard, c)
				c.Close()
			}
		}()
		_, err = web.New(web.Config{}).Do(t.Context(), web.Request{Method: "GET", URL: "https://" + l.Addr().String()})
		l.Close()
		<-done
		if !errors.Is(err, store.ErrUnreachable) || !errors.Is(err, web.ErrNoTLS) || connections.Load() != 1 {
			t.Errorf("%s: got %v over %d connections, want ErrNoTLS over one", name, err, connections.Load())
		}
	}
}

// Who writes is not sent elsewhere; who reads is, but not out of TLS, and without the token.
func TestRedirects(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "elsewhere %q", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	srv := httptest.NewServer(http.RedirectHandler(strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1), http.StatusFound))
	defer srv.Close()
	c := web.New(web.Config{Tokens: &tokens{last: 1}})
	for method, want := range map[string]string{"GET": `200 elsewhere ""`, "PUT": "302 ", "PROPFIND": "302 ", "DELETE": "302 "} {
		a, err := c.Do(t.Context(), web.Request{Method: method, URL: srv.URL})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%d %s", a.Status, a.Body); got != want {
			t.Errorf("%s: got %s, want %s", method, got, want)
		}
	}
}

// A library that makes requests of its own gets the same.
func TestRoundTripper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{{status: 503}, {status: 200, body: "ok"}}}
		c := http.Client{Transport: web.New(web.Config{Transport: s}).RoundTripper(100)}
		resp, err := c.Post("https://cloud.test/", "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || string(b) != "ok" || len(s.seen) != 2 || s.seen[1].body != "body" {
			t.Errorf("got %q, %v, %v", b, err, s.seen)
		}
	})
}
