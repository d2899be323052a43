//go:build live

package dropbox_test

import (
	"context"
	"crypto/rand"
	"os"
	"testing"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/dropbox"
	"github.com/satchel-backup/satchel/store/storetest"
)

// given is an access token from the environment.
type given string

func (g given) Token(_ context.Context, stale string) (string, error) {
	if stale != "" || g == "" {
		return "", store.ErrSignIn
	}
	return string(g), nil
}

// TestLive keeps the contract in a real account. It wants an access token of an app with
// its own folder and the scopes of dropbox.Scopes, as the App Console makes one:
//
//	SATCHEL_LIVE_DROPBOX=… go test -tags live -run Live ./store/dropbox
//
// It leaves empty folders called satchel-test-… in the app's folder.
func TestLive(t *testing.T) {
	token := given(os.Getenv("SATCHEL_LIVE_DROPBOX"))
	if token == "" {
		t.Fatal("SATCHEL_LIVE_DROPBOX holds no access token")
	}
	id, name, err := dropbox.Account(t.Context(), web.New(web.Config{Tokens: token}))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the account of %s", name)
	open := func(t *testing.T) *dropbox.Store {
		s, err := dropbox.New(dropbox.Config{Tokens: token, Owner: id, Folder: "satchel-test-" + rand.Text()[:8]})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx := context.Background()
			list, err := s.List(ctx, "")
			if err != nil {
				t.Error(err)
			}
			for _, o := range list {
				if err := s.Delete(ctx, o); err != nil {
					t.Error(err)
				}
			}
		})
		return s
	}
	storetest.Run(t, func(t *testing.T) store.Store { return open(t) })
	t.Run("Large", func(t *testing.T) {
		s := open(t)
		data := make([]byte, 20<<20)
		_, _ = rand.Read(data)
		for range 2 {
			if err := s.Put(t.Context(), "large", data); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Get(t.Context(), "large", store.Sum(data), store.MaxObject); err != nil {
			t.Error(err)
		}
	})
}
