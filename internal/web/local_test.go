package web_test

import (
	"testing"

	"github.com/satchel-backup/satchel/internal/web"
)

func TestLocal(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true, "10.1.2.3": true, "192.168.0.9": true,
		"172.16.0.1": true, "169.254.1.1": true, "fe80::1": true, "fd00::1": true, "nas": true, "NAS.local": true, "nas.local.": true, "box.home.arpa": true,
		"": false, "8.8.8.8": false, "172.32.0.1": false, "2001:db8::1": false, "cloud.example.org": false, "local.example.org": false, "nas.locale": false, "0.0.0.0": false,
	} {
		if got := web.Local(host); got != want {
			t.Errorf("%q: got %v, want %v", host, got, want)
		}
	}
}
