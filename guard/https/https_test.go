package https_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/https"
	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/recordtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// serve starts a real key server, over TLS or not.
func serve(t *testing.T, tls bool, allowed func(string) bool) *httptest.Server {
	t.Helper()
	return serveOf(t, &recordtest.Memory{}, tls, allowed)
}

func serveOf(t *testing.T, records keyserver.Records, tls bool, allowed func(string) bool) *httptest.Server {
	t.Helper()
	m, err := keyserver.NewMaster(secret.New(bytes.Repeat([]byte{1}, keyserver.MasterSize)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := keyserver.New(t.Context(), keyserver.Config{Records: records, Master: m, Allowed: allowed})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(protocol.Path, s)
	srv := httptest.NewUnstartedServer(mux)
	if tls {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	return srv
}

// A PIN is enrolled at three real servers, one of them over TLS and with a token, and
// recovered.
func TestRecover(t *testing.T) {
	const token = "let me in"
	a, b := serve(t, false, nil), serve(t, false, nil)
	c := serve(t, true, func(got string) bool { return got == token })
	servers := []string{a.URL, b.URL, c.URL}
	tr := &https.Transport{Client: c.Client()}
	client := &guard.Client{Transport: tr, Trusted: func(string) bool { return true }, KDF: &guard.KDF{Passes: 1, Lanes: 1, Memory: 8 << 10}}
	key := secret.FromString("0123456789abcdef")
	enrol := func() (*guard.Slot, error) {
		p, err := guard.NewPlan(guard.ID{1}, 2, servers)
		if err != nil {
			return nil, err
		}
		e, err := client.Enrol(t.Context(), p, secret.FromString("4917"), secret.Bytes{})
		if err != nil {
			return nil, err
		}
		slot, err := e.Wrap(key)
		if err != nil {
			return nil, err
		}
		s, err := e.Settlement(make([]byte, 32), 1, make([]byte, 32))
		if err != nil {
			return nil, err
		}
		_, err = client.Settle(t.Context(), s)
		return slot, err
	}
	if _, err := enrol(); err == nil || !strings.Contains(err.Error(), protocol.CodeToken.String()) {
		t.Errorf("without the token: got %v", err)
	}
	tr.Token = func(server string) string {
		if server == c.URL {
			return token
		}
		return ""
	}
	slot, err := enrol()
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	r, err := client.Recover(slot, secret.FromString("4917"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := r.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := o.FileKey(secret.Bytes{}); err != nil || !got.Equal(key) {
		t.Errorf("got %v", err)
	}
	told, err := o.Finish(t.Context())
	if err != nil || told[0].Err == nil || told[1].Err != nil || told[2].Err != nil {
		t.Errorf("got %+v, %v", told, err)
	}
}

// Whether a server lets a client in is seen without anything that stays there.
func TestAdmits(t *testing.T) {
	const token = "let me in"
	var records recordtest.Memory
	made := 0
	s := serveOf(t, &records, false, func(got string) bool { made++; return got == token })
	before := len(records.Snapshot())
	tr := &https.Transport{}
	client := &guard.Client{Transport: tr, Trusted: func(server string) bool { return server == s.URL }}
	if err := client.Admits(t.Context(), s.URL); !errors.Is(err, guard.ErrToken) {
		t.Errorf("without a token: got %v", err)
	}
	tr.Token = func(string) string { return token }
	if err := client.Admits(t.Context(), s.URL); err != nil {
		t.Errorf("with it: got %v", err)
	}
	if n := len(records.Snapshot()); n != before || made != 2 {
		t.Errorf("%d records, want %d as before; %d accounts were asked for", n, before, made)
	}
	if _, ok := errors.AsType[*guard.UnknownError](client.Admits(t.Context(), "https://other.example")); !ok {
		t.Error("a server that is not trusted was asked")
	}
	s.Close()
	if err := client.Admits(t.Context(), s.URL); !errors.Is(err, guard.ErrUnreachable) {
		t.Errorf("away: got %v", err)
	}
}

// What is no reply of a key server is an error of the network.
func TestOtherAnswers(t *testing.T) {
	var answer http.HandlerFunc
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r) }))
	defer srv.Close()
	tr := &https.Transport{}
	reply := func(w http.ResponseWriter, b []byte) {
		w.Header().Set("Content-Type", protocol.ContentType)
		w.Write(b)
	}
	elsewhere := 0
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { elsewhere++; reply(w, []byte{1, 0}) }))
	defer other.Close()
	for what, a := range map[string]http.HandlerFunc{
		"a login page": func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("<html>")) },
		"not found":    http.NotFound,
		"too long":     func(w http.ResponseWriter, r *http.Request) { reply(w, make([]byte, protocol.MaxMessage+1)) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		},
	} {
		answer = a
		if b, err := tr.Send(t.Context(), srv.URL, []byte("request")); err == nil {
			t.Errorf("%s: got %q", what, b)
		}
	}
	if elsewhere != 0 {
		t.Error("a redirect was followed")
	}
	answer = func(w http.ResponseWriter, r *http.Request) { reply(w, make([]byte, protocol.MaxMessage)) }
	if b, err := tr.Send(t.Context(), srv.URL, []byte("request")); err != nil || len(b) != protocol.MaxMessage {
		t.Errorf("got %d bytes, %v", len(b), err)
	}
	// A context that ends, ends it.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	answer = func(w http.ResponseWriter, r *http.Request) { <-ctx.Done() }
	if _, err := tr.Send(ctx, srv.URL, []byte("request")); err == nil {
		t.Error("it waits for ever")
	}
	// Nothing goes out in clear but to loopback addresses.
	for _, name := range []string{"http://192.0.2.1", "http://localhost.example", "ftp://localhost", srv.URL + "/", ""} {
		if _, err := tr.Send(t.Context(), name, []byte("request")); err == nil {
			t.Errorf("%q is used", name)
		}
	}
}

// roundTripper answers in the place of a network.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A server that is busy for a moment is asked again when that is over, with the same bytes
// and once; nobody waits for one that is busy for long, or longer than there is time.
func TestRetryAfter(t *testing.T) {
	for _, v := range []struct {
		status   int
		after    string
		busy     int           // requests that are refused before one is answered
		limit    time.Duration // of the context, 0 for none
		requests int
		took     time.Duration
		answered bool
		said     string
	}{
		{status: 429, after: "2", busy: 1, requests: 2, took: 2 * time.Second, answered: true},
		{status: 503, after: "1", busy: 1, requests: 2, took: time.Second, answered: true},
		{status: 503, after: "1", busy: 9, requests: 2, took: time.Second, said: "status 503, it is busy for 1s"},
		{status: 503, after: "5", busy: 1, requests: 2, took: 5 * time.Second, answered: true},
		{status: 503, after: "6", busy: 1, requests: 1, said: "it is busy for 6s"},
		{status: 503, after: "99999999999999999999", busy: 1, requests: 1, said: "status 503"},
		{status: 503, after: "0", busy: 1, requests: 1, said: "status 503"},
		{status: 503, after: "-1", busy: 1, requests: 1, said: "status 503"},
		{status: 503, after: "Fri, 31 Dec 1999 23:59:59 GMT", busy: 1, requests: 1, said: "status 503"},
		{status: 503, busy: 1, requests: 1, said: "status 503"},
		{status: 500, after: "1", busy: 1, requests: 1, said: "status 500"},
		{status: 429, after: "3", busy: 1, limit: 2 * time.Second, requests: 1, said: "it is busy for 3s"},
	} {
		synctest.Test(t, func(t *testing.T) {
			requests := 0
			tr := &https.Transport{Client: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				requests++
				if b, err := io.ReadAll(r.Body); err != nil || string(b) != "request" {
					t.Errorf("got %q, %v", b, err)
				}
				resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("answer"))}
				if requests <= v.busy {
					resp.StatusCode = v.status
					resp.Header.Set("Retry-After", v.after)
				}
				resp.Header.Set("Content-Type", protocol.ContentType)
				return resp, nil
			})}}
			ctx := t.Context()
			if v.limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, v.limit)
				defer cancel()
			}
			begun := time.Now()
			b, err := tr.Send(ctx, "https://guard.example", []byte("request"))
			if took := time.Since(begun); requests != v.requests || took != v.took {
				t.Errorf("%+v: %d requests in %v", v, requests, took)
			}
			if v.answered && (err != nil || string(b) != "answer") || !v.answered && (err == nil || !strings.HasSuffix(err.Error(), v.said)) {
				t.Errorf("%+v: got %q, %v", v, b, err)
			}
		})
	}
	// Who goes away while waiting is not held.
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		tr := &https.Transport{Client: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 503, Header: http.Header{"Retry-After": {"4"}}, Body: http.NoBody}, nil
		})}}
		begun := time.Now()
		if _, err := tr.Send(ctx, "https://guard.example", nil); !errors.Is(err, context.Canceled) || time.Since(begun) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(begun))
		}
	})
}
