package dropbox_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/satchel-backup/satchel/internal/cloudtest"
	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/dropbox"
	"github.com/satchel-backup/satchel/store/storetest"
)

const host = "https://cloud.test"

// open returns the store of an account, over the fake cloud.
func open(t *testing.T, cloud *fakecloud.Cloud, in web.Tokens, a *fakecloud.Account, c dropbox.Config) *dropbox.Store {
	t.Helper()
	if c.Transport == nil {
		c.Transport, c.API, c.Content = cloud.Transport(), host, host
	}
	c.Tokens, c.Owner = in, "dbid:"+a.ID
	s, err := dropbox.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// one returns a cloud with one account, and its store.
func one(t *testing.T) (*fakecloud.Cloud, *fakecloud.Account, *dropbox.Store) {
	t.Helper()
	cloud := fakecloud.New()
	ann := cloud.AddAccount("1001", "ann@example.org")
	return cloud, ann, open(t, cloud, cloudtest.NewSignIn(cloud, ann), ann, dropbox.Config{})
}

func TestConformance(t *testing.T) {
	for name, page := range map[string]int{"": 0, "tiny pages": 2} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) store.Store {
				cloud, _, s := one(t)
				cloud.PageSize = page
				return s
			})
		})
	}
	t.Run("parts and a folder", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store {
			cloud := fakecloud.New()
			srv := httptest.NewServer(cloud)
			t.Cleanup(srv.Close)
			c := dropbox.Config{Folder: "Satchel 😀/ann", API: srv.URL, Content: srv.URL, Transport: http.DefaultTransport}
			ann := cloud.AddAccount("1001", "ann@example.org")
			s := open(t, cloud, cloudtest.NewSignIn(cloud, ann), ann, c)
			s.SetChunk(300 << 10)
			return s
		})
	})
}

func TestCloud(t *testing.T) {
	cloudtest.Run(t, func(t *testing.T, c *fakecloud.Cloud, in *cloudtest.SignIn, a *fakecloud.Account) store.Store {
		s := open(t, c, in, a, dropbox.Config{})
		s.SetChunk(cloudtest.Part)
		return s
	})
}
