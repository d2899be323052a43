package lnd

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/webdav"
)

// A place keeps backups.
type place struct {
	name     string
	address  string
	password string // "" if none is asked for
}

// in adds to a call of satchel what names the place, after a flag such as --in. The
// secrets get longer by the password, if there is one.
func (p place) in(flag string, secrets []string, args ...string) ([]string, []string) {
	args = append(args, flag, p.address)
	if p.password != "" {
		args = append(args, "--password-fd", fmt.Sprint(3+len(secrets)))
		secrets = append(secrets[:len(secrets):len(secrets)], p.password)
	}
	return secrets, args
}

// folderPlace is a folder that nobody else uses.
func folderPlace(t testing.TB) place {
	t.Helper()
	return place{"folder", t.TempDir(), ""}
}

// A cloud is a WebDAV server in this process that can be away.
type cloud struct {
	place
	away atomic.Bool
}

func newCloud(t testing.TB) *cloud {
	t.Helper()
	c := &cloud{}
	files := &webdav.Handler{FileSystem: webdav.Dir(t.TempDir()), LockSystem: webdav.NewMemLS()}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.away.Load() {
			panic(http.ErrAbortHandler) // It hangs up.
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	c.place = place{"webdav", "webdav+" + srv.URL + "/nodes", ""}
	return c
}

// realPlaces are those on servers that the environment names, as .ci/clouds does.
func realPlaces(t testing.TB) []place {
	t.Helper()
	var list []place
	below := strings.ReplaceAll(t.Name(), "/", "-")
	for _, name := range []string{"APACHE", "NGINX", "SABRE", "RCLONE"} {
		if address := os.Getenv("SATCHEL_TEST_WEBDAV_" + name); address != "" {
			list = append(list, place{"webdav " + strings.ToLower(name), address + "/" + below, os.Getenv("SATCHEL_TEST_WEBDAV_PASSWORD")})
		}
	}
	if address := os.Getenv("SATCHEL_TEST_S3"); address != "" {
		address = strings.Replace(address, "://", "://"+os.Getenv("SATCHEL_TEST_S3_ACCESS_KEY")+"@", 1)
		list = append(list, place{"s3", address + "/" + below, os.Getenv("SATCHEL_TEST_S3_SECRET_KEY")})
	}
	return list
}
