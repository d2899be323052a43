package gdrive_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

type answers func(*http.Request) (int, string)

func (f answers) RoundTrip(req *http.Request) (*http.Response, error) {
	status, body := f(req)
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}, nil
}

// Pages that lead in a circle end.
func TestAttack5PagesWithoutEnd(t *testing.T) {
	w := newWorld()
	n := 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.cfg.Owner = ""
	w.cfg.Transport = answers(func(req *http.Request) (int, string) {
		if n++; n > 5000 {
			cancel()
		}
		return 200, fmt.Sprintf(`{"files":[],"nextPageToken":"%d"}`, n%2)
	})
	if list, err := w.open(t).List(ctx, ""); err == nil || n > 5000 {
		t.Errorf("got %v, %v after %d pages", list, err, n)
	}
}
