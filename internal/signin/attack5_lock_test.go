package signin_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/signin"
	"github.com/satchel-backup/satchel/secret"
)

// A provider that does not answer keeps no sign-in to another one waiting.
func TestAttack5OneProviderHangs(t *testing.T) {
	w := newWorld(t)
	w.signIn(t)
	r, err := w.keeper.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	r.Address = "dropbox:ann@example.org"
	if err := w.keeper.Put(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(2 * time.Hour)

	asked, end := make(chan bool), make(chan bool)
	hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- true
		<-end
	}))
	defer hangs.Close()
	defer close(end)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := w.provider
	p.TokenURL = hangs.URL
	go w.keeper.Source(address, p).Token(ctx, "")
	<-asked

	soon, cancelSoon := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancelSoon()
	if _, err := w.keeper.Source(r.Address, w.provider).Token(soon, ""); err != nil {
		t.Errorf("a token of another provider: %v", err)
	}
	if err := w.keeper.Put(soon, signin.Record{Address: "webdav+https://ann@example.org", Password: secret.FromString("x")}); err != nil {
		t.Errorf("keeping another sign-in: %v", err)
	}
}
