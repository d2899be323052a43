package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store"
)

// R5: each thing that keeps a place from being asked has its own text and next step, and
// none asks whether this machine is online that knows better.
func TestPlaceHints(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // Neither rclone nor op is there.
	answers := func(status int, kind, body string) *httptest.Server {
		return httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(status)
			io.WriteString(w, body)
		}))
	}
	const noBucket = `<?xml version="1.0"?><Error><Code>NoSuchBucket</Code><Message>none</Message></Error>`
	for _, test := range []struct {
		name, place string // with %s for the server's address
		server      *httptest.Server
		tls         bool
		text, hint  string
	}{
		{"no rclone", "rclone:cloud:x", nil, false, "rclone is not installed", "install rclone"},
		{"no op", "1password:Private", nil, false, "is not installed", "install the 1Password CLI"},
		{"no bucket", "s3+http://key@%s/bucket?region=x", answers(404, "application/xml", noBucket), false, "the bucket is missing", "look at the service"},
		{"no S3", "s3+http://key@%s/bucket?region=x", answers(200, "text/html", "<html>"), false, "not one of an S3 service", "S3 address"},
		{"no WebDAV", "webdav+http://ann@%s/x", answers(405, "text/plain", "no"), false, "no WebDAV", "remote.php/dav/files/USER"},
		{"a page", "webdav+http://ann@%s/x", answers(207, "text/html", "<html>"), false, "a web page came", "WebDAV address"},
		{"busy", "webdav+http://ann@%s/x", answers(503, "text/plain", ""), false, "is busy or has a fault", "the server was reached"},
		{"certificate", "webdav+https://ann@%s/x", answers(207, "text/plain", ""), true, "its certificate is signed by nobody", "SATCHEL_CA_FILE"},
		{"no https", "webdav+https://ann@%s/x", answers(207, "text/plain", ""), false, "does not speak https", "the address and its port"},
		{"nobody there", "webdav+http://ann@127.0.0.1:1/x", nil, false, "refused", "is this machine online"},
	} {
		place := test.place
		if test.server != nil {
			test.server.Config.ErrorLog = log.New(io.Discard, "", 0)
			if test.tls {
				test.server.StartTLS()
			} else {
				test.server.Start()
			}
			place = fmt.Sprintf(place, test.server.Listener.Addr())
		}
		env := map[string]string{"HOME": t.TempDir(), "SATCHEL_HOME": filepath.Join(t.TempDir(), "device"), "SATCHEL_KEYCHAIN": "file"}
		args := []string{"create", "--in", place, "--unlock", "recovery-code", "--json"}
		if strings.Contains(place, "@") {
			args = append(args, "--password-fd", "0")
		}
		code, _, stderr := runWith(t, env, "password", args...)
		if test.server != nil {
			test.server.Close()
		}
		var said errorJSON
		if err := json.Unmarshal([]byte(stderr), &said); err != nil || code != int(satchel.CodeUnreachable) || !strings.Contains(said.Error, test.text) || !strings.Contains(said.Hint, test.hint) {
			t.Errorf("%s: code %d, %s", test.name, code, stderr)
		}
		if online := strings.Contains(said.Hint, "online"); online != (test.server == nil && strings.Contains(place, "@")) {
			t.Errorf("%s: hint: %s", test.name, said.Hint)
		}
	}
}

// The status of a place has the same hints, though only the text of the error is left.
func TestPlaceHintsOfStatus(t *testing.T) {
	for i, f := range placeFacts {
		told := errors.New("listing objects: store is unreachable: " + f.fact.Error() + " (status 400)")
		p := satchel.PlaceStatus{Address: "rclone:cloud:x", Health: satchel.HealthUnreachable, Err: told}
		if got, want := healthHint(p), f.hint+"; then satchel backup"; got != want {
			t.Errorf("%v: got %q, want %q", f.fact, got, want)
		}
		if got, want := hintFor(fmt.Errorf("%w: %w", store.ErrUnreachable, f.fact)), f.hint+"; then try again"; got != want {
			t.Errorf("%v: got %q, want %q", f.fact, got, want)
		}
		for j, g := range placeFacts {
			if i != j && strings.Contains(f.fact.Error(), g.fact.Error()) {
				t.Errorf("%v cannot be told from %v", f.fact, g.fact)
			}
		}
	}
	p := satchel.PlaceStatus{Address: "rclone:cloud:x", Health: satchel.HealthSignIn, Err: errors.New("sign-in needed")}
	if got := healthHint(p); strings.Contains(got, "store signin") {
		t.Errorf("nobody signs in to rclone here: %s", got)
	}
	p = satchel.PlaceStatus{Address: "webdav+https://ann@example.org/x", Health: satchel.HealthUnreachable, Err: errors.New("store is unreachable: its certificate ended on 2026-01-02 03:04")}
	if got := healthHint(p); !strings.Contains(got, "the clock of this device") {
		t.Errorf("got %q", got)
	}
}
