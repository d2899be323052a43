package s3_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store/s3"
)

// The examples of Amazon's document "Authenticating Requests: Using the Authorization
// Header (AWS Signature Version 4)".
func TestSign(t *testing.T) {
	now := time.Date(2013, 5, 24, 2, 0, 0, 0, time.FixedZone("", 2*60*60))
	for _, test := range []struct {
		what, method, key string
		query             map[string]string
		header            http.Header
		body, want        string
	}{
		{"GET", "GET", "test.txt", nil, http.Header{"Range": {"bytes=0-9"}}, "",
			"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
		{"PUT", "PUT", "test$file.text", nil, http.Header{"Date": {"Fri, 24 May 2013 00:00:00 GMT"}, "X-Amz-Storage-Class": {"REDUCED_REDUNDANCY"}}, "Welcome to Amazon S3.",
			"98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
		{"lifecycle", "GET", "", map[string]string{"lifecycle": ""}, nil, "",
			"fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
		{"list", "GET", "", map[string]string{"prefix": "J", "max-keys": "2"}, nil, "",
			"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
	} {
		u := &url.URL{Scheme: "https", Host: "examplebucket.s3.amazonaws.com", Path: "/" + test.key, RawPath: s3.Escape("/"+test.key, true), RawQuery: s3.Query(test.query)}
		header := test.header.Clone()
		if header == nil {
			header = http.Header{}
		}
		s3.Sign(test.method, u, header, []byte(test.body), "AKIAIOSFODNN7EXAMPLE", secret.FromString("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), "us-east-1", now)
		got := header.Get("Authorization")
		if !strings.HasSuffix(got, "Signature="+test.want) || !strings.Contains(got, "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request") {
			t.Errorf("%s: got %s, want %s", test.what, got, test.want)
		}
	}
}

// line keeps what is asked, and answers as it is told.
type line struct {
	asked  []string
	answer func(req *http.Request) (status int, header http.Header, body string)
}

func (l *line) RoundTrip(req *http.Request) (*http.Response, error) {
	l.asked = append(l.asked, req.Method+" "+req.URL.String())
	status, header, body := l.answer(req)
	if header == nil {
		header = http.Header{"Etag": {`"x"`}}
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}, nil
}

// Where requests go, and for which region they are signed.
func TestRegions(t *testing.T) {
	const sent = "/object%20%27%2B%C3%A4"
	for _, test := range []struct {
		name, host, bucket, region string
		style                      bool
		asked                      []string
		signed                     string
	}{
		{"given", "host:443", "b.c", "moon-1", false, []string{"https://host/b.c" + sent}, "moon-1"},
		{"asked", "host:9000", "b", "", false, []string{"https://host:9000/b/?location=", "https://host:9000/b" + sent}, "mars-2"},
		{"Amazon's", "s3.eu-central-1.amazonaws.com", "b", "", false, []string{"https://b.s3.eu-central-1.amazonaws.com" + sent}, "eu-central-1"},
		{"dual", "s3.dualstack.eu-west-3.amazonaws.com", "b", "", false, []string{"https://b.s3.dualstack.eu-west-3.amazonaws.com" + sent}, "eu-west-3"},
		{"a point", "s3.eu-central-1.amazonaws.com", "b.c", "", false, []string{"https://s3.eu-central-1.amazonaws.com/b.c" + sent}, "eu-central-1"},
		{"by path", "s3.eu-central-1.amazonaws.com", "b", "", true, []string{"https://s3.eu-central-1.amazonaws.com/b" + sent}, "eu-central-1"},
		{"anywhere", "s3.amazonaws.com", "b", "", false, []string{"https://s3.amazonaws.com/b/?location=", "https://b.s3.mars-2.amazonaws.com" + sent}, "mars-2"},
	} {
		signed := ""
		l := &line{answer: func(req *http.Request) (int, http.Header, string) {
			_, scope, _ := strings.Cut(req.Header.Get("Authorization"), "Credential=key/")
			signed = strings.Split(scope, "/")[1]
			if req.URL.Query().Has("location") {
				return 200, nil, "<LocationConstraint>mars-2</LocationConstraint>"
			}
			return 200, nil, "x"
		}}
		st := open(t, s3.Config{Host: test.host, Bucket: test.bucket, Region: test.region, PathStyle: test.style, AccessKey: "key", SecretKey: secret.FromString("secret"), Transport: l})
		for range 2 { // It is asked for once.
			if _, err := st.Get(t.Context(), "object '+ä", "", 9); err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
		}
		want := "GET " + strings.Join(append(test.asked, test.asked[len(test.asked)-1]), " GET ")
		if got := strings.Join(l.asked, " "); got != want || signed != test.signed {
			t.Errorf("%s: got %s, signed for %s, want %s, %s", test.name, got, signed, want, test.signed)
		}
	}
}

// A service that says that the bucket is in another region is believed once, if that is
// the name of one; a region that was given stays.
func TestOtherRegion(t *testing.T) {
	for _, test := range []struct {
		given, told string
		want        int // requests
	}{{"", "mars-2", 2}, {"", "evil.example/", 1}, {"moon-1", "mars-2", 1}} {
		l := &line{}
		l.answer = func(req *http.Request) (int, http.Header, string) {
			if strings.Contains(req.Header.Get("Authorization"), "/mars-2/") {
				return 200, nil, "x"
			}
			return 400, http.Header{}, "<Error><Code>AuthorizationHeaderMalformed</Code><Region>" + test.told + "</Region></Error>"
		}
		st := open(t, s3.Config{Host: "s3.us-west-2.amazonaws.com", Bucket: "b", Region: test.given, AccessKey: "key", SecretKey: secret.FromString("secret"), Transport: l})
		for range 2 {
			_, err := st.Get(t.Context(), "a", "", 9)
			if (err == nil) != (test.want == 2) {
				t.Errorf("%v: got %v", test, err)
			}
		}
		if n := map[int]int{1: 2, 2: 3}[test.want]; len(l.asked) != n {
			t.Errorf("%v: got %v, want %d requests", test, l.asked, n)
		}
	}
}

// The key need not have the right to ask where the bucket is.
func TestLocationDenied(t *testing.T) {
	l := &line{answer: func(req *http.Request) (int, http.Header, string) {
		if req.URL.Query().Has("location") {
			return 403, http.Header{}, "<Error><Code>AccessDenied</Code></Error>"
		}
		return 200, nil, "x"
	}}
	st := open(t, s3.Config{Host: "host", Bucket: "b", AccessKey: "key", SecretKey: secret.FromString("secret"), Transport: l})
	if got, err := st.Get(t.Context(), "a", "", 9); err != nil || string(got) != "x" {
		t.Errorf("got %q, %v", got, err)
	}
}
