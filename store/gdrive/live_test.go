//go:build live

package gdrive_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/gdrive"
	"github.com/satchel-backup/satchel/store/storetest"
)

// The same against Google Drive itself, for whoever has an account:
//
//	SATCHEL_GDRIVE_CLIENT_ID=… SATCHEL_GDRIVE_CLIENT_SECRET=… SATCHEL_GDRIVE_REFRESH_TOKEN=… \
//		go test -tags live -run Live -v -timeout 1h ./store/gdrive
//
// or with SATCHEL_GDRIVE_TOKEN, an access token. With SATCHEL_GDRIVE_APPDATA=1 it goes to
// the hidden folder, for which the token needs the scope drive.appdata instead of
// drive.file. Everything is below one folder, "Satchel live test …", which a person may
// delete afterwards; the objects in it are deleted.

// liveTokens gets access tokens for a refresh token.
type liveTokens struct {
	mu     sync.Mutex
	access string // guarded by mu
}

func (s *liveTokens) Token(ctx context.Context, stale string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.access != "" && s.access != stale {
		return s.access, nil
	}
	refresh := os.Getenv("SATCHEL_GDRIVE_REFRESH_TOKEN")
	if refresh == "" {
		return "", store.ErrSignIn
	}
	form := url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {refresh},
		"client_id": {os.Getenv("SATCHEL_GDRIVE_CLIENT_ID")}, "client_secret": {os.Getenv("SATCHEL_GDRIVE_CLIENT_SECRET")},
	}
	a, err := web.New(web.Config{}).Do(ctx, web.Request{
		Method: http.MethodPost, URL: gdrive.TokenURL, Body: []byte(form.Encode()), Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
	})
	if err != nil {
		return "", err
	}
	var answer struct {
		Access string `json:"access_token"`
	}
	if json.Unmarshal(a.Body, &answer) != nil || answer.Access == "" {
		return "", store.ErrSignIn
	}
	s.access = answer.Access
	return s.access, nil
}

func liveConfig(t *testing.T, keys web.Tokens) gdrive.Config {
	t.Helper()
	id, name, err := gdrive.Account(t.Context(), web.New(web.Config{Tokens: keys}))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the account is %s (%s)", name, id)
	return gdrive.Config{
		Tokens: keys, Owner: id, AppData: os.Getenv("SATCHEL_GDRIVE_APPDATA") != "",
		Folder: "Satchel live test " + time.Now().UTC().Format("2006-01-02 15-04-05.000"),
	}
}

func liveKeys(t *testing.T) *liveTokens {
	keys := &liveTokens{access: os.Getenv("SATCHEL_GDRIVE_TOKEN")}
	if keys.access == "" && os.Getenv("SATCHEL_GDRIVE_REFRESH_TOKEN") == "" {
		t.Fatal("set SATCHEL_GDRIVE_TOKEN or SATCHEL_GDRIVE_REFRESH_TOKEN")
	}
	return keys
}

// sweep deletes what a test left.
func sweep(t *testing.T, s store.Store) {
	t.Cleanup(func() {
		list, err := s.List(context.Background(), "")
		if err != nil {
			t.Error(err)
		}
		for _, o := range list {
			if err := s.Delete(context.Background(), o); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestLiveConformance(t *testing.T) {
	keys := liveKeys(t)
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := gdrive.New(liveConfig(t, keys))
		if err != nil {
			t.Fatal(err)
		}
		sweep(t, s)
		return s
	})
}

// What one process puts, another finds: after a while, as listings may be behind.
func TestLiveAnotherProcess(t *testing.T) {
	cfg := liveConfig(t, liveKeys(t))
	first, err := gdrive.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	sweep(t, first)
	large := make([]byte, 20<<20)
	rand.NewChaCha8([32]byte{1}).Read(large)
	objects := map[string][]byte{"Wallet-Ann's/slots/a": []byte("x"), "Wallet-Ann's/items/large": large, "Wallet-Ann's/README.txt": []byte("read me")}
	for name, data := range objects {
		start := time.Now()
		if err := first.Put(t.Context(), name, data); err != nil {
			t.Fatal(err)
		}
		t.Logf("Put of %d bytes: %v", len(data), time.Since(start))
	}
	start := time.Now()
	for {
		second, err := gdrive.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		list, err := second.List(t.Context(), "Wallet-")
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == len(objects) {
			t.Logf("listed after %v", time.Since(start))
			for name, data := range objects {
				if got, err := second.Get(t.Context(), name, store.Sum(data), 64<<20); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s: got %d bytes, %v", strings.ToLower(name), len(got), err)
				}
			}
			return
		}
		if time.Since(start) > 10*time.Minute {
			t.Fatalf("after ten minutes %d of %d objects are listed", len(list), len(objects))
		}
		time.Sleep(5 * time.Second)
	}
}
