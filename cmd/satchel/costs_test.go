//go:build unix

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/webdav"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/cloudtest"
	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/dropbox"
	"github.com/satchel-backup/satchel/store/gdrive"
	"github.com/satchel-backup/satchel/store/onedrive"
	"github.com/satchel-backup/satchel/store/s3"
	webdavstore "github.com/satchel-backup/satchel/store/webdav"
	"github.com/satchel-backup/satchel/wallet"
)

// counting counts what it carries.
type counting struct {
	http.RoundTripper
	n *atomic.Int64
}

func (c counting) RoundTrip(req *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.RoundTripper.RoundTrip(req)
}

// What docs/providers.md says that a change costs in requests is so, of a process that
// runs: a small value, and one of a megabyte, sent, fetched again and compared.
func TestCosts(t *testing.T) {
	t.Parallel()
	text := document(t, "docs", "providers.md")
	for _, kind := range []string{"Google Drive", "Dropbox", "OneDrive", "WebDAV", "S3"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			cloud, n := fakecloud.New(), new(atomic.Int64)
			in := cloudtest.NewSignIn(cloud, cloud.AddAccount("1001", "ann@example.org"))
			carry := counting{cloud.Transport(), n}
			var s store.Store
			var err error
			switch kind {
			case "Google Drive":
				s, err = gdrive.New(gdrive.Config{Tokens: in, Owner: "1001", Transport: carry})
			case "Dropbox":
				s, err = dropbox.New(dropbox.Config{Tokens: in, Owner: "dbid:1001", Transport: carry})
			case "OneDrive":
				s, err = onedrive.New(onedrive.Config{Tokens: in, Owner: "d1001", Transport: carry})
			case "WebDAV":
				srv := httptest.NewServer(&webdav.Handler{FileSystem: webdav.Dir(t.TempDir()), LockSystem: webdav.NewMemLS()})
				t.Cleanup(srv.Close)
				var dav *webdavstore.Store
				dav, err = webdavstore.New(webdavstore.Config{URL: srv.URL, Transport: counting{http.DefaultTransport, n}})
				if err == nil {
					err = dav.Create(t.Context())
				}
				s = dav
			case "S3":
				address := os.Getenv("SATCHEL_TEST_S3")
				if address == "" {
					t.Skip("no such server in the environment")
				}
				var c s3.Config
				if c, err = s3.Parse(address + "/costs"); err != nil {
					t.Fatal(err)
				}
				c.AccessKey, c.SecretKey = os.Getenv("SATCHEL_TEST_S3_ACCESS_KEY"), secret.FromString(os.Getenv("SATCHEL_TEST_S3_SECRET_KEY"))
				c.Transport = counting{http.DefaultTransport, n}
				s, err = s3.New(c)
			}
			if err != nil {
				t.Fatal(err)
			}
			small, large := costs(t, store.Place{Address: "test:", Store: s, Walks: kind == "OneDrive" || kind == "WebDAV"}, n)
			want := fmt.Sprintf("| %s | %d | %d |", kind, small, large)
			if !strings.Contains(text, want) {
				t.Errorf("docs/providers.md lacks the line %s", want)
			}
		})
	}
}

// costs returns how many requests a small and a large change cost.
func costs(t *testing.T, place store.Place, n *atomic.Int64) (small, large int64) {
	dir := t.TempDir()
	keys, err := keychain.ByKind(keychain.KindFile, filepath.Join(dir, "keychain"))
	if err != nil {
		t.Fatal(err)
	}
	made, err := wallet.New(wallet.Mainnet, 12, "2026-11-23")
	if err != nil {
		t.Fatal(err)
	}
	way, _ := slot.NewRecoveryCode()
	b, err := satchel.Create(t.Context(), satchel.Config{Dir: filepath.Join(dir, "wallet"), Keychain: keys, Places: []store.Place{place}},
		satchel.Plan{Label: "Samantha", Keys: made, Slots: []slot.Secret{way}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	save := func(name string, size int) int64 {
		t.Helper()
		before := n.Load()
		if _, err := b.Save(t.Context(), satchel.Change{Name: name, Value: make([]byte, size)}); err != nil {
			t.Fatal(err)
		}
		return n.Load() - before
	}
	save("settings", 100) // The first of a kind may make a folder.
	save("file/photo", 1<<20)
	return save("settings", 101), save("file/photo", 1<<20+1)
}
