package signin_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
)

// Browsers take localhost for ::1 first: who listens there gets the code and the state.
func TestAttack5OtherLocalhost(t *testing.T) {
	theirs, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip(err)
	}
	defer theirs.Close()
	_, port, err := net.SplitHostPort(theirs.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.provider.Redirect = "http://localhost:" + port + "/"
	if _, err := w.provider.Ask(t.Context(), func(string) { t.Error("the browser was opened") }, refuse); err == nil {
		t.Error("no error though another has the port")
	}

	// Where a port is free it is free on both.
	w.provider.Redirect = "http://localhost"
	_, err = w.provider.Ask(t.Context(), func(address string) {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		back, err := url.Parse(u.Query().Get("redirect_uri"))
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range []string{"::1", "127.0.0.1"} {
			resp, err := http.Get("http://" + net.JoinHostPort(host, back.Port()) + "/?state=none")
			if err != nil {
				t.Errorf("%s: %v", host, err)
				continue
			}
			resp.Body.Close()
		}
		browse(t)(address)
	}, nil)
	if err != nil {
		t.Error(err)
	}
}

// refuse is a person who does not paste anything.
func refuse(context.Context) (string, error) { return "", io.EOF }
