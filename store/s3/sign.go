package s3

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/secret"
)

// The forms of a moment in a signature.
const (
	stampForm = "20060102T150405Z"
	dayForm   = "20060102"
)

// sign signs a request by Amazon's Signature Version 4, in its header: the method, the
// path and the query of u as they are sent, each header that is set, and the body.
func sign(method string, u *url.URL, header http.Header, body []byte, accessKey string, secretKey secret.Bytes, region string, now time.Time) {
	now = now.UTC()
	sum := hexSum(body)
	header.Set("X-Amz-Date", now.Format(stampForm))
	header.Set("X-Amz-Content-Sha256", sum)

	lines := []string{"host:" + u.Host}
	names := []string{"host"}
	for name, values := range header {
		name = strings.ToLower(name)
		names = append(names, name)
		lines = append(lines, name+":"+strings.TrimSpace(strings.Join(values, ",")))
	}
	slices.Sort(names)
	slices.SortFunc(lines, func(a, b string) int {
		a, _, _ = strings.Cut(a, ":")
		b, _, _ = strings.Cut(b, ":")
		return strings.Compare(a, b)
	})
	signed := strings.Join(names, ";")
	request := strings.Join([]string{method, u.EscapedPath(), u.RawQuery, strings.Join(lines, "\n") + "\n", signed, sum}, "\n")

	scope := strings.Join([]string{now.Format(dayForm), region, "s3", "aws4_request"}, "/")
	text := strings.Join([]string{"AWS4-HMAC-SHA256", now.Format(stampForm), scope, hexSum([]byte(request))}, "\n")
	key := append([]byte("AWS4"), secretKey.Open()...)
	for part := range strings.SplitSeq(scope, "/") {
		key = mac(key, part)
	}
	header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+accessKey+"/"+scope+", SignedHeaders="+signed+", Signature="+hex.EncodeToString(mac(key, text)))
}

func hexSum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// escape writes a part of an address in the one form that signatures know: every byte but
// letters, digits and -._~ escaped, and the slash too unless it is a path.
func escape(s string, path bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~", c) >= 0, c == '/' && path:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// query writes values in that form, sorted by their names.
func query(values map[string]string) string {
	var parts []string
	for name, value := range values {
		parts = append(parts, escape(name, false)+"="+escape(value, false))
	}
	slices.Sort(parts)
	return strings.Join(parts, "&")
}
