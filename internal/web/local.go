package web

import (
	"net/netip"
	"strings"
)

// Local reports whether a host is this machine or one of the local network, where a
// server may have no certificate and nobody else is on the way: an address that is not
// routed outside, a name without a dot, or one that only local networks give.
func Local(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" || !strings.Contains(host, ".") {
		return host != ""
	}
	for _, end := range []string{".localhost", ".local", ".lan", ".internal", ".home.arpa"} {
		if strings.HasSuffix(host, end) {
			return true
		}
	}
	return false
}
