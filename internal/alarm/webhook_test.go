package alarm_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/internal/alarm"
	"github.com/satchel-backup/satchel/secret"
)

var message = alarm.Message{
	ID: "0123456789abcdef0123456789abcdef", Time: time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC),
	Items: []alarm.Item{{
		State: alarm.Raised, Kind: alarm.SignIn, Wallet: "Sam", Place: "Google Drive", Code: 24,
		Since:    time.Date(2026, 11, 26, 7, 0, 0, 0, time.UTC),
		Happened: "Google Drive wants to be signed in to again.", Safe: "All is kept here.", Next: "Sign in again.",
	}},
}

// What a webhook posts is what docs/alarms.md says, and its signature proves it.
func TestWebhook(t *testing.T) {
	key := secret.FromString("a key of both")
	now := time.Date(2026, 11, 26, 8, 0, 1, 0, time.UTC)
	var got *http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	hook := &alarm.Webhook{URL: server.URL + "/in", Secret: key, Now: func() time.Time { return now }}
	if err := hook.Send(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(body, &fields); err != nil {
		t.Fatal(err)
	}
	text, _ := fields["text"].(string)
	if !strings.Contains(text, "Google Drive wants to be signed in to again.") {
		t.Errorf("text %q", text)
	}
	delete(fields, "text")
	want := map[string]any{
		"version": 1.0, "id": message.ID, "time": "2026-11-26T08:00:00Z", "test": false, "subject": "Satchel: Sam: sign-in needed",
		"alarms": []any{map[string]any{
			"state": "raised", "kind": "sign-in needed", "wallet": "Sam", "place": "Google Drive", "code": 24.0, "since": "2026-11-26T07:00:00Z",
			"happened": "Google Drive wants to be signed in to again.", "safe": "All is kept here.", "next": "Sign in again.",
		}},
	}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	if got.Method != "POST" || got.URL.Path != "/in" || got.Header.Get("Content-Type") != "application/json" || got.Header.Get(alarm.IDHeader) != message.ID {
		t.Errorf("got %v %v %v", got.Method, got.URL, got.Header)
	}
	mac := hmac.New(sha256.New, []byte("a key of both"))
	mac.Write([]byte("1795680001."))
	mac.Write(body)
	if want := "t=1795680001,v1=" + hex.EncodeToString(mac.Sum(nil)); got.Header.Get(alarm.SignatureHeader) != want {
		t.Errorf("signature %q, want %q", got.Header.Get(alarm.SignatureHeader), want)
	}
	hook.Secret = secret.Bytes{}
	if err := hook.Send(t.Context(), message); err != nil || got.Header.Get(alarm.SignatureHeader) != "" {
		t.Errorf("%v, signature %q without a secret", err, got.Header.Get(alarm.SignatureHeader))
	}
}

// Only 2xx is delivered; a redirect is not followed, and no error repeats the URL.
func TestWebhookFaults(t *testing.T) {
	elsewhere := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	release := make(chan struct{})
	mux := http.NewServeMux()
	for path, code := range map[string]int{"/400": 400, "/404": 404, "/429": 429, "/500": 500, "/199": 304} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	mux.HandleFunc("/301", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusMovedPermanently)
	})
	mux.HandleFunc("/307", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/torn", func(w http.ResponseWriter, r *http.Request) {
		c, _, _ := w.(http.Hijacker).Hijack()
		c.Close()
	})
	mux.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) { <-release })
	mux.HandleFunc("/long", func(w http.ResponseWriter, r *http.Request) {
		for range 100 {
			w.Write(make([]byte, 64<<10))
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, path := range []string{"/400", "/404", "/429", "/500", "/199", "/301", "/307", "/torn", "/hang"} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := (&alarm.Webhook{URL: server.URL + path}).Send(ctx, message)
		cancel()
		if err == nil || strings.Contains(err.Error(), server.URL) || strings.Contains(err.Error(), path+" ") {
			t.Errorf("%s: got %v", path, err)
		}
		if refused := path != "/torn" && path != "/hang"; errors.Is(err, alarm.ErrRefused) != refused {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if err := (&alarm.Webhook{URL: server.URL + "/long"}).Send(t.Context(), message); err != nil {
		t.Error(err)
	}
	if elsewhere != 0 {
		t.Errorf("%d messages followed a redirect", elsewhere)
	}
	close(release)
	server.Close()
	if err := (&alarm.Webhook{URL: server.URL + "/secret-path"}).Send(t.Context(), message); err == nil || strings.Contains(err.Error(), "secret-path") {
		t.Errorf("got %v", err)
	}
}

// A server with a certificate that nobody vouches for gets nothing.
func TestWebhookCertificate(t *testing.T) {
	got := 0
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got++ }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	if err := (&alarm.Webhook{URL: server.URL}).Send(t.Context(), message); err == nil || got != 0 {
		t.Errorf("got %v, and %d messages", err, got)
	}
	if err := (&alarm.Webhook{URL: server.URL, Transport: server.Client().Transport}).Send(t.Context(), message); err != nil || got != 1 {
		t.Errorf("got %v, and %d messages", err, got)
	}
}

func TestCheckURL(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://example.org/hooks/1": true, "https://192.168.1.2:8443/": true, "http://127.0.0.1:8080/x": true, "http://localhost/x": true, "http://[::1]:80/": true,
		"http://example.org/": false, "http://192.168.1.2/": false, "http://localhost.example.org/": false, "ftp://127.0.0.1/": false,
		"https://ann:secret@example.org/": false, "https:///x": false, "example.org": false, "": false, "https://exa mple.org": false,
	} {
		err := alarm.CheckURL(url)
		if (err == nil) != ok || err != nil && !errors.Is(err, alarm.ErrAddress) {
			t.Errorf("%s: got %v", url, err)
		}
		if !ok {
			if err := (&alarm.Webhook{URL: url}).Send(t.Context(), message); !errors.Is(err, alarm.ErrAddress) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: got %v", url, err)
			}
		}
	}
}
