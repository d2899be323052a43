package https_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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
	m, err := keyserver.NewMaster(secret.New(bytes.Repeat([]byte{1}, keyserver.MasterSize)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := keyserver.New(t.Context(), keyserver.Config{Records: &recordtest.Memory{}, Master: m, Allowed: allowed})
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
