package signin_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// A token's address that sends elsewhere gets nothing sent there: neither the lasting
// permission nor a code with its verifier. Nor are tokens taken from there.
func TestAttack5TokensElsewhere(t *testing.T) {
	for _, code := range []int{http.StatusTemporaryRedirect, http.StatusPermanentRedirect, http.StatusFound, http.StatusSeeOther} {
		w := newWorld(t)
		w.signIn(t)
		var asked atomic.Int32
		elsewhere := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			asked.Add(1)
			io.WriteString(rw, `{"access_token":"theirs","token_type":"Bearer","expires_in":3600,"refresh_token":"theirs"}`)
		}))
		defer elsewhere.Close()
		sends := httptest.NewServer(http.RedirectHandler(elsewhere.URL, code))
		defer sends.Close()
		p := w.provider
		p.TokenURL = sends.URL
		token, err := w.keeper.Source(address, p).Token(t.Context(), "nothing")
		if err != nil {
			t.Fatal(err) // What it has is still good.
		}
		if token, err = w.keeper.Source(address, p).Token(t.Context(), token); err == nil || asked.Load() != 0 {
			t.Errorf("status %d: got %q, %v after %d requests elsewhere, want an error and none", code, token, err, asked.Load())
		}
	}
}
