package signin_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/satchel-backup/satchel/internal/signin"
	"github.com/satchel-backup/satchel/store"
)

// Who signs out in one process is signed out in the others, also while their token is good.
func TestAttack5SignedOutElsewhere(t *testing.T) {
	w := newWorld(t)
	w.signIn(t)
	s := w.keeper.Source(address, w.provider)
	if _, err := s.Token(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if err := w.keeper.Put(t.Context(), signin.Record{Address: address, Account: "1001"}); err != nil {
		t.Fatal(err)
	}
	if token, err := s.Token(t.Context(), ""); !errors.Is(err, store.ErrSignIn) {
		t.Errorf("got %q, %v, want ErrSignIn", token, err)
	}
}

// R5: where the provider wants to see the user again, that is what is said.
func TestAttack5ProviderWantsUser(t *testing.T) {
	for _, code := range []string{"interaction_required", "login_required", "consent_required"} {
		w := newWorld(t)
		w.signIn(t)
		srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			rw.WriteHeader(http.StatusBadRequest)
			io.WriteString(rw, `{"error":"`+code+`"}`)
		}))
		defer srv.Close()
		p := w.provider
		p.TokenURL = srv.URL
		s := w.keeper.Source(address, p)
		token, err := s.Token(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Token(t.Context(), token); !errors.Is(err, store.ErrSignIn) {
			t.Errorf("%s: got %v, want ErrSignIn", code, err)
		}
	}
}
