package signin_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/internal/signin"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
)

const address = "gdrive:ann@example.org"

// world is a cloud with an account, and a device.
type world struct {
	cloud    *fakecloud.Cloud
	ann      *fakecloud.Account
	provider signin.Provider
	keeper   *signin.Keeper
	now      time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{cloud: fakecloud.New(), now: time.Now()}
	w.ann = w.cloud.AddAccount("1001", "ann@example.org")
	srv := httptest.NewServer(w.cloud)
	t.Cleanup(srv.Close)
	w.provider = signin.Provider{
		AuthURL: srv.URL + "/oauth/authorize", TokenURL: srv.URL + "/oauth/token", Scopes: []string{"https://cloud.test/files"},
		Client: "client", ClientSecret: secret.FromString("not really"), Redirect: "http://127.0.0.1/",
	}
	dir := t.TempDir()
	w.keeper = &signin.Keeper{
		Dir: filepath.Join(dir, "sign-ins"), Now: func() time.Time { return w.now },
		Keychain: func() (keychain.Keychain, error) { return keychain.File(filepath.Join(dir, "keychain")), nil },
	}
	return w
}

// browse is a browser with somebody in front of it.
func browse(t *testing.T) func(string) {
	return func(address string) {
		resp, err := http.Get(address)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || !strings.Contains(string(b), "Satchel") {
			t.Errorf("the browser shows %q, %v", b, err)
		}
	}
}

// signIn signs in and keeps it.
func (w *world) signIn(t *testing.T) {
	t.Helper()
	tokens, err := w.provider.Ask(t.Context(), browse(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.keeper.Put(t.Context(), signin.Record{Address: address, Account: "1001", Tokens: tokens, Client: w.provider.Client}); err != nil {
		t.Fatal(err)
	}
}

func TestAsk(t *testing.T) {
	w := newWorld(t)
	w.signIn(t)
	if _, err := w.keeper.Source(address, w.provider).Token(t.Context(), ""); err != nil {
		t.Error(err)
	}
	if n := w.cloud.Counts()["token"]; n != 1 {
		t.Errorf("got %d requests for tokens, want 1", n)
	}
	w.cloud.Browse(nil)
	if _, err := w.provider.Ask(t.Context(), browse(t), nil); !errors.Is(err, signin.ErrRefused) {
		t.Errorf("the user said no: got %v, want ErrRefused", err)
	}
}

// Where the browser is on another machine its last address is typed in.
func TestPaste(t *testing.T) {
	w := newWorld(t)
	shown := make(chan string, 1)
	elsewhere := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	tries := 0
	paste := func(ctx context.Context) (string, error) {
		if tries++; tries == 1 {
			return "http://127.0.0.1:1/?state=other&code=stolen", nil
		}
		select {
		case address := <-shown:
			resp, err := elsewhere.Get(address)
			if err != nil {
				return "", err
			}
			resp.Body.Close()
			return " " + resp.Header.Get("Location") + "\n", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	tokens, err := w.provider.Ask(t.Context(), func(a string) { shown <- a }, paste)
	if err != nil || tokens.Refresh.Empty() || tries != 2 {
		t.Errorf("got %v after %d tries", err, tries)
	}
}

// Whoever else calls the listener, as a page in the browser may, is no answer.
func TestForeignAnswers(t *testing.T) {
	w := newWorld(t)
	_, err := w.provider.Ask(t.Context(), func(address string) {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		back, state := u.Query().Get("redirect_uri"), u.Query().Get("state")
		if u.Query().Get("code_challenge_method") != "S256" || len(state) < 40 {
			t.Errorf("no PKCE or no state: %s", address)
		}
		for _, bad := range []string{"?code=stolen", "?code=stolen&state=", "?code=stolen&state=" + state[1:], "favicon.ico", "?state=" + state, "x?code=stolen&state=" + state} {
			resp, err := http.Get(back + bad)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s: got status %d", bad, resp.StatusCode)
			}
		}
		browse(t)(address)
	}, nil)
	if err != nil {
		t.Error(err)
	}
}

func TestGivenUp(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := w.provider.Ask(ctx, func(string) { cancel() }, func(ctx context.Context) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// R9: a token that ended or was refused is refreshed once, kept before it is used, and
// shared with other processes, also where each refresh ends the refresh token before.
func TestRefresh(t *testing.T) {
	for _, rotate := range []bool{false, true} {
		w := newWorld(t)
		w.cloud.Rotate = rotate
		w.signIn(t)
		first, err := w.keeper.Source(address, w.provider).Token(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		got := make([]string, 8)
		for i := range got {
			other := *w.keeper // another process
			s := other.Source(address, w.provider)
			wg.Go(func() {
				for range 3 {
					token, err := s.Token(t.Context(), first)
					if err != nil {
						t.Errorf("rotate %v: %v", rotate, err)
					}
					got[i] = token
				}
			})
		}
		wg.Wait()
		for _, token := range got {
			if token != got[0] || token == first {
				t.Errorf("rotate %v: processes have different tokens, or the old one", rotate)
			}
		}
		if n := w.cloud.Counts()["token"]; n != 2 {
			t.Errorf("rotate %v: got %d requests for tokens, want 2", rotate, n)
		}
	}
}

// R9: a dead grant is sign-in needed at once, and nobody asks again until the user
// signed in again.
func TestDeadGrant(t *testing.T) {
	w := newWorld(t)
	w.signIn(t)
	s := w.keeper.Source(address, w.provider)
	token, err := s.Token(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	w.cloud.Revoke(w.ann)
	for range 50 {
		if _, err := s.Token(t.Context(), token); !errors.Is(err, store.ErrSignIn) {
			t.Fatalf("got %v, want ErrSignIn", err)
		}
	}
	if n := w.cloud.Counts()["token"]; n != 2 {
		t.Errorf("got %d requests for tokens, want 2", n)
	}
	r, err := w.keeper.Get(address)
	if err != nil || r.Account != "1001" {
		t.Errorf("got %v, %v: the account is to be remembered", r.Account, err)
	}
	w.signIn(t)
	if _, err := s.Token(t.Context(), ""); err != nil {
		t.Errorf("after signing in again: %v", err)
	}
}

// A fault while refreshing is no dead grant.
func TestRefreshFaults(t *testing.T) {
	for _, fault := range []fakecloud.Fault{fakecloud.ServerError, fakecloud.Cut} {
		w := newWorld(t)
		var broken atomic.Bool
		w.cloud.Fault = func(op string, _ *http.Request) fakecloud.Fault {
			if op == "token" && broken.Load() {
				return fault
			}
			return fakecloud.None
		}
		w.signIn(t)
		w.now = w.now.Add(2 * time.Hour)
		broken.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		_, err := w.keeper.Source(address, w.provider).Token(ctx, "")
		cancel()
		if !errors.Is(err, store.ErrUnreachable) || errors.Is(err, store.ErrSignIn) {
			t.Errorf("%s: got %v, want ErrUnreachable", fault, err)
		}
		broken.Store(false)
		if _, err := w.keeper.Source(address, w.provider).Token(t.Context(), ""); err != nil {
			t.Errorf("%s: afterwards: %v", fault, err)
		}
	}
}

func TestKeeper(t *testing.T) {
	w := newWorld(t)
	if _, err := w.keeper.Get(address); !errors.Is(err, store.ErrSignIn) {
		t.Errorf("got %v, want ErrSignIn", err)
	}
	want := signin.Record{
		Address: "webdav+https://ann@cloud.example.org/dav", Password: secret.FromString("correct horse"),
		Client: "program", ClientSecret: secret.FromString("public secret"), Account: "1001",
		Tokens: signin.Tokens{Access: secret.FromString("access token"), Refresh: secret.FromString("refresh token"), Expires: w.now.UTC()},
	}
	for range 2 {
		if err := w.keeper.Put(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := w.keeper.Get(want.Address)
	if err != nil {
		t.Fatal(err)
	}
	equal := cmp.Comparer(func(a, b secret.Bytes) bool { return a.Equal(b) })
	if diff := cmp.Diff(want, got, equal); diff != "" {
		t.Error(diff)
	}
	list, err := w.keeper.List()
	if err != nil || len(list) != 1 || list[0] != want.Address {
		t.Errorf("got %q, %v", list, err)
	}

	// R19: the files hold none of it, and one for another address opens nothing.
	files, err := filepath.Glob(filepath.Join(w.keeper.Dir, "*.signin"))
	if err != nil || len(files) != 1 {
		t.Fatalf("got %q, %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"correct horse", "public secret", "access token", "refresh token", "1001"} {
		if bytes.Contains(data, []byte(s)) {
			t.Errorf("the file holds %q", s)
		}
	}
	for name, bad := range map[string][]byte{
		"another address": bytes.Replace(data, []byte("ann@cloud"), []byte("bob@cloud"), 1),
		"a changed bit":   bytes.Replace(data, []byte(`"sealed":"`), []byte(`"sealed":"A`), 1),
		"cut":             data[:len(data)/2],
		"empty":           {},
	} {
		if err := os.WriteFile(files[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.keeper.Get(want.Address); !errors.Is(err, store.ErrSignIn) {
			t.Errorf("%s: got %v, want ErrSignIn", name, err)
		}
	}
	if err := os.WriteFile(files[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	chain, err := w.keeper.Keychain()
	if err != nil {
		t.Fatal(err)
	}
	if err := chain.Delete("sign-ins"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.keeper.Get(want.Address); !errors.Is(err, signin.ErrKey) || !errors.Is(err, store.ErrSignIn) {
		t.Errorf("without its key: got %v, want ErrKey", err)
	}
	for range 2 {
		if err := w.keeper.Delete(want.Address); err != nil {
			t.Error(err)
		}
	}
}
