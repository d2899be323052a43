package webdav_test

import (
	"context"
	"io"
	"net/http"
	"path"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/satchel-backup/satchel/store/webdav"
)

type answers func(*http.Request) (int, string)

func (f answers) RoundTrip(req *http.Request) (*http.Response, error) {
	status, body := f(req)
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}, nil
}

// Folders that a server says are in themselves, or above, are none.
func TestAttack5FoldersInThemselves(t *testing.T) {
	var asked atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hostile := answers(func(req *http.Request) (int, string) {
		if asked.Add(1) > 100 {
			cancel()
		}
		folder := func(at string) string {
			return `<D:response><D:href>` + at + `</D:href><D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>`
		}
		at := strings.TrimSuffix(req.URL.Path, "/")
		body := `<D:multistatus xmlns:D="DAV:">` + folder(at+"/")
		if path.Base(at) == "dav" {
			body += folder(at + "/a/")
		} else {
			body += folder(at+"/%2e/") + folder(at+"/%2e%2e/")
			if strings.Count(at, "/") < 4 {
				body += folder(at + "/b/")
			}
		}
		return 207, body + `</D:multistatus>`
	})
	s, err := webdav.New(webdav.Config{URL: "https://cloud.test/dav", Transport: hostile})
	if err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"", "a/b/"} {
		asked.Store(0)
		if _, err := s.List(ctx, prefix); asked.Load() > 10 {
			t.Errorf("%q: %d requests and more, %v", prefix, asked.Load(), err)
		}
	}
}
