package web_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/satchel-backup/satchel/internal/web"
)

// What opens a server is not shown to another one at the same name, as on another port,
// where another user of the machine may listen; nor is the address that was asked for,
// which can be a permission itself.
func TestAttack5RedirectKeepsSecrets(t *testing.T) {
	var got http.Header
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r.Header.Clone() }))
	defer other.Close()
	first := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	defer first.Close()
	_, err := web.New(web.Config{}).Do(t.Context(), web.Request{
		Method: "GET", URL: first.URL + "/file?permission=secret", Header: http.Header{"Authorization": {"Basic c2VjcmV0"}},
	})
	if err != nil || got == nil {
		t.Fatalf("got %v, %v", got, err)
	}
	for _, name := range []string{"Authorization", "Referer"} {
		if got.Get(name) != "" {
			t.Errorf("another server got %s: %s", name, got.Get(name))
		}
	}
}
