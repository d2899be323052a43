package web_test

import (
	"net/http"
	"os"
	"testing"

	"github.com/satchel-backup/satchel/internal/web"
)

func init() { // The environment is read once.
	os.Setenv("HTTP_PROXY", "http://proxy.test:3128")
	os.Setenv("HTTPS_PROXY", "http://proxy.test:3128")
}

// What goes without TLS goes to the local network, and not with its password over a proxy
// that may be anywhere.
func TestAttack5NoProxyWithoutTLS(t *testing.T) {
	for address, want := range map[string]bool{"http://nas/dav": false, "http://192.168.1.2/dav": false, "https://cloud.example.org/": true} {
		req, err := http.NewRequest("GET", address, nil)
		if err != nil {
			t.Fatal(err)
		}
		proxy, err := web.NewTransport(nil).Proxy(req)
		if err != nil || (proxy != nil) != want {
			t.Errorf("%s: got %v, %v", address, proxy, err)
		}
	}
}
