package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/webdav"

	"github.com/satchel-backup/satchel"
)

// Whether a password is right is asked without a walk through all backups of the account.
func TestSignInCosts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, folder := range []string{"BitcoinWalletBackup-Ann-0123", "BitcoinWalletBackup-Ben-4567"} {
		for _, below := range []string{"slots", "snapshots", "items/keys", "items/0123"} {
			if err := os.MkdirAll(filepath.Join(dir, folder, filepath.FromSlash(below)), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	var asked atomic.Int64
	files := &webdav.Handler{FileSystem: webdav.Dir(dir), LockSystem: webdav.NewMemLS()}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if _, password, _ := r.BasicAuth(); password != "right" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, r)
	}))
	defer srv.Close()
	place := "webdav+http://ann@" + strings.TrimPrefix(srv.URL, "http://")
	env := map[string]string{"HOME": t.TempDir(), "SATCHEL_HOME": filepath.Join(t.TempDir(), "device"), "SATCHEL_KEYCHAIN": "file"}
	for password, want := range map[string]satchel.Code{"right": satchel.CodeDone, "wrong": satchel.CodeSignIn} {
		asked.Store(0)
		code, _, stderr := runWith(t, env, password, "store", "signin", place, "--password-fd", "0", "--json")
		if code != int(want) || asked.Load() > 3 {
			t.Errorf("%s: code %d after %d requests, want %d after at most 3: %s", password, code, asked.Load(), want, stderr)
		}
	}
}
