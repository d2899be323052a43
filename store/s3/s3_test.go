package s3_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/s3"
	"github.com/satchel-backup/satchel/store/storetest"
)

// service is a small S3 service in this process, and the line to it: no port is opened
// and no time passes in a synctest bubble. It checks no signatures; versitygw does.
type service struct {
	bucket   string
	pageSize int
	// ignores and refuses say what it does with a condition.
	ignores, refuses bool
	// fault decides what happens to a request, if not nil. n counts the requests of its
	// kind, from 1.
	fault func(kind string, n int) fault

	mu      sync.Mutex
	objects map[string][]byte // by key; guarded by mu
	counts  map[string]int    // requests by kind; guarded by mu
}

// fault is something that a service or the line does. What begins with a number is a
// status, and a code for it: the request is not carried out.
type fault string

const (
	none      fault = ""
	cut       fault = "cut"        // the line is cut, and nothing happened
	applied   fault = "applied"    // the line is cut, and yet it happened
	applied5  fault = "applied5"   // 500, and yet it happened
	torn      fault = "torn"       // half of what was sent arrived, and the line is cut
	cutAnswer fault = "cut answer" // done, and the line is cut in the middle of the answer
	short     fault = "short"      // done, and half of the answer comes, with a length that agrees
	page      fault = "page"       // 200 and a page of a hotel's network
	text      fault = "text"       // likewise, and it says that it is plain text
	elsewhere fault = "elsewhere"  // sends to a page that wants a sign-in
	huge      fault = "huge"       // an answer without an end
	endless   fault = "endless"    // a listing that is never the last page
	notFound  fault = "not found"  // 404 and a page of a proxy
)

const loginPage = "<!DOCTYPE html><html><body>Welcome to the hotel</body></html>"

func newService() *service {
	return &service{bucket: "ann", pageSize: 1000, objects: map[string][]byte{}, counts: map[string]int{}}
}

func kindOf(req *http.Request) string {
	switch {
	case req.Method != http.MethodGet:
		return strings.ToLower(req.Method)
	case req.URL.Query().Has("list-type"):
		return "list"
	case req.URL.Query().Has("location"):
		return "location"
	}
	return "get"
}

// RoundTrip implements http.RoundTripper.
func (s *service) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	kind := kindOf(req)
	s.mu.Lock()
	s.counts[kind]++
	n := s.counts[kind]
	s.mu.Unlock()
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		if req.ContentLength != int64(len(body)) {
			return nil, fmt.Errorf("a body of %d bytes, and a length of %d", len(body), req.ContentLength)
		}
	}
	f := none
	if s.fault != nil {
		f = s.fault(kind, n)
	}
	reset := errors.New("unexpected EOF on the line")
	say := func(status int, kind, body string) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, Header: http.Header{"Content-Type": {kind}, "Content-Length": {fmt.Sprint(len(body))}, "Etag": {`"page"`}, "Last-Modified": {"Thu, 26 Nov 2026 00:00:00 GMT"}},
			Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req,
		}, nil
	}
	switch f {
	case cut:
		return nil, reset
	case page:
		return say(200, "text/html; charset=utf-8", loginPage)
	case text:
		resp, err := say(200, "text/plain", loginPage)
		resp.Header.Del("Etag")
		return resp, err
	case notFound:
		return say(404, "text/html", loginPage)
	case elsewhere:
		resp, err := say(302, "text/html", "")
		resp.Header.Set("Location", "/login")
		return resp, err
	case huge:
		return &http.Response{StatusCode: 200, Header: http.Header{"Etag": {`"x"`}, "Last-Modified": {"Thu, 26 Nov 2026 00:00:00 GMT"}}, Body: io.NopCloser(spaces{}), ContentLength: -1, Request: req}, nil
	case endless:
		return say(200, "application/xml", `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken></ListBucketResult>`)
	}
	if status, code, ok := strings.Cut(string(f), " "); ok {
		if n, err := strconv.Atoi(status); err == nil {
			resp, err := say(n, "application/xml", "<Error><Code>"+code+"</Code><Message>do not show me</Message></Error>")
			if n == 429 {
				resp.Header.Set("Retry-After", "20")
			}
			return resp, err
		}
	}
	if req.URL.Path == "/login" {
		return say(200, "text/html", loginPage)
	}
	if f == torn {
		body = body[:len(body)/2]
	}
	inner := req.Clone(req.Context())
	inner.Body = io.NopCloser(bytes.NewReader(body))
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, inner)
	resp := rec.Result()
	resp.Request, resp.ContentLength = req, int64(rec.Body.Len())
	resp.Header.Set("Content-Length", fmt.Sprint(rec.Body.Len()))
	switch f {
	case applied, torn:
		return nil, reset
	case applied5:
		return say(500, "application/xml", "<Error><Code>InternalError</Code></Error>")
	case cutAnswer:
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(rec.Body.Bytes()[:rec.Body.Len()/2]), cutOff{}))
	case short:
		half := rec.Body.Bytes()[:rec.Body.Len()/2]
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(half)), int64(len(half))
		resp.Header.Set("Content-Length", fmt.Sprint(len(half)))
	}
	return resp, nil
}

type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

type spaces struct{}

var blanks = bytes.Repeat([]byte(" "), 1<<16)

func (spaces) Read(p []byte) (int, error) {
	return copy(p, blanks), nil
}

type listResult struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	IsTruncated           bool
	NextContinuationToken string
	EncodingType          string
	Contents              []listEntry
}

type listEntry struct {
	Key          string
	Size         int
	LastModified string
}

// ServeHTTP implements http.Handler.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	refuse := func(status int, code string) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
	}
	if !strings.Contains(r.Header.Get("Authorization"), "Credential=key/") {
		refuse(403, "InvalidAccessKeyId")
		return
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if bucket != s.bucket {
		refuse(404, "NoSuchBucket")
		return
	}
	object, there := s.objects[key]
	switch kindOf(r) {
	case "location":
		io.WriteString(w, `<LocationConstraint>moon-1</LocationConstraint>`)
	case "list":
		s.list(w, r.URL.Query())
	case "get":
		if !there {
			refuse(404, "NoSuchKey")
			return
		}
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, md5.Sum(object)))
		w.Header().Set("Last-Modified", "Thu, 26 Nov 2026 00:00:00 GMT")
		w.Write(object)
	case "delete":
		delete(s.objects, key)
		w.WriteHeader(204)
	case "put":
		body, _ := io.ReadAll(r.Body)
		sum := md5.Sum(body)
		switch {
		case r.Header.Get("If-None-Match") != "" && s.refuses:
			refuse(501, "NotImplemented")
		case r.Header.Get("If-None-Match") == "*" && there && !s.ignores:
			refuse(412, "PreconditionFailed")
		case r.Header.Get("X-Amz-Content-Sha256") != fmt.Sprintf("%x", sha256.Sum256(body)):
			refuse(400, "XAmzContentSHA256Mismatch")
		case r.Header.Get("Content-Md5") != base64.StdEncoding.EncodeToString(sum[:]):
			refuse(400, "BadDigest")
		default:
			s.objects[key] = body
			w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sum))
		}
	}
}

func (s *service) list(w http.ResponseWriter, q url.Values) {
	result := listResult{EncodingType: "url"}
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		if !strings.HasPrefix(key, q.Get("prefix")) || key <= q.Get("continuation-token") {
			continue
		}
		if len(result.Contents) == s.pageSize {
			result.IsTruncated = true
			break
		}
		result.NextContinuationToken = key
		result.Contents = append(result.Contents, listEntry{url.QueryEscape(key), len(s.objects[key]), "2026-11-26T00:00:00Z"})
	}
	if !result.IsTruncated {
		result.NextContinuationToken = ""
	}
	w.Header().Set("Content-Type", "application/xml")
	xml.NewEncoder(w).Encode(result)
}

func (s *service) requests() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := s.counts
	s.counts = map[string]int{}
	return counts
}

func (s *service) has(key string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.objects[key]
	return string(data), ok
}

func (s *service) set(key, data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[key] = []byte(data)
}

func config(s *service) s3.Config {
	return s3.Config{Host: "127.0.0.1", Plain: true, Bucket: "ann", Prefix: "my backups", Region: "moon-1", AccessKey: "key", SecretKey: secret.FromString("secret"), Transport: s}
}

func open(t *testing.T, c s3.Config) *s3.Store {
	t.Helper()
	st, err := s3.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func put(t *testing.T, s store.Store, name, data string) {
	t.Helper()
	if err := s.Put(t.Context(), name, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	for name, change := range map[string]func(*service, *s3.Config){
		"condition":                       func(*service, *s3.Config) {},
		"ignored, no prefix, small pages": func(s *service, c *s3.Config) { s.ignores, c.Prefix, s.pageSize = true, "", 2 },
		"refused, https, any region": func(s *service, c *s3.Config) {
			s.refuses, c.Host, c.Plain, c.Region = true, "s3.cloud.test:9000", false, ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) store.Store {
				s := newService()
				c := config(s)
				change(s, &c)
				return open(t, c)
			})
		})
	}
}

// A real service, if the environment names one, passes the same tests.
func TestServer(t *testing.T) {
	address := os.Getenv("SATCHEL_TEST_S3")
	if address == "" {
		t.Skip("SATCHEL_TEST_S3 names no service")
	}
	n := 0
	real := func(t *testing.T, change func(*s3.Config)) *s3.Store {
		t.Helper()
		c, err := s3.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		n++
		c.Prefix = strings.TrimPrefix(fmt.Sprintf("%s/%d-%d", c.Prefix, time.Now().UnixNano(), n), "/")
		c.AccessKey, c.SecretKey = os.Getenv("SATCHEL_TEST_S3_ACCESS_KEY"), secret.FromString(os.Getenv("SATCHEL_TEST_S3_SECRET_KEY"))
		if change != nil {
			change(&c)
		}
		return open(t, c)
	}
	storetest.Run(t, func(t *testing.T) store.Store { return real(t, nil) })
	t.Run("Own", func(t *testing.T) {
		s := real(t, nil)
		if err := s.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
		put(t, s, "a/b", "x")
		list, err := s.List(t.Context(), "")
		if err != nil || len(list) != 1 {
			t.Fatalf("got %v, %v, want one object", list, err)
		}
		if d := time.Since(list[0].Modified); d < -5*time.Second || d > 5*time.Second {
			t.Errorf("modified %v, want now", list[0].Modified)
		}
		// More than one page.
		for i := range 1100 {
			put(t, s, fmt.Sprintf("many/%d", i), "")
		}
		if list, err := s.List(t.Context(), "many/"); err != nil || len(list) != 1100 {
			t.Errorf("got %d, %v, want 1100", len(list), err)
		}
		for what, test := range map[string]struct {
			change func(*s3.Config)
			want   error
		}{
			"wrong secret": {func(c *s3.Config) { c.SecretKey = secret.FromString("wrong") }, store.ErrSignIn},
			"wrong key":    {func(c *s3.Config) { c.AccessKey = "nobody" }, store.ErrSignIn},
			"no bucket":    {func(c *s3.Config) { c.Bucket = "nosuchbucket" }, store.ErrUnreachable},
		} {
			s := real(t, test.change)
			_, getErr := s.Get(t.Context(), "a", "", 9)
			_, listErr := s.List(t.Context(), "")
			for op, err := range map[string]error{
				"Create": s.Create(t.Context()), "Put": s.Put(t.Context(), "a", nil), "Get": getErr, "List": listErr, "Delete": s.Delete(t.Context(), store.Object{Name: "a"}),
			} {
				if !errors.Is(err, test.want) || errors.Is(err, store.ErrNotExist) {
					t.Errorf("%s, %s: got %v, want %v", what, op, err, test.want)
				}
			}
		}
	})
}

// R1, R5: whatever a service or the line does to any of the requests of a call, success
// is told only where the bytes are; the error is the one a person can act on; the same
// call again succeeds once the fault is over; and no storm of requests comes of it.
func TestFaults(t *testing.T) {
	const name, data = "Backup/slots/x.age", "what was sealed"
	type call struct {
		kind string
		n    int
	}
	ops := map[string][]call{
		"put":    {{"location", 1}, {"get", 1}, {"put", 1}},
		"again":  {{"get", 1}}, // a put of what is there
		"get":    {{"get", 1}},
		"list":   {{"list", 1}, {"list", 2}},
		"delete": {{"delete", 1}},
	}
	want := map[fault]error{
		cut: store.ErrUnreachable, applied: store.ErrUnreachable, applied5: store.ErrUnreachable, torn: store.ErrUnreachable, page: store.ErrUnreachable,
		notFound: store.ErrUnreachable, "404 NoSuchBucket": store.ErrUnreachable, "404 NoSuchKey": nil,
		"403 AccessDenied": fs.ErrPermission, "403 InvalidAccessKeyId": store.ErrSignIn, "403 SignatureDoesNotMatch": store.ErrSignIn, "401 Unauthorized": store.ErrSignIn,
		"400 ExpiredToken": store.ErrSignIn, "403 RequestTimeTooSkewed": store.ErrUnreachable, "400 AuthorizationHeaderMalformed": store.ErrUnreachable, "301 PermanentRedirect": store.ErrUnreachable,
		"403 QuotaExceeded": store.ErrFull, "507 XMinioStorageFull": store.ErrFull, "413 EntityTooLarge": store.ErrFull, "403 storage_cap_exceeded": store.ErrFull,
		"400 RequestTimeout": store.ErrUnreachable, "429 TooManyRequests": store.ErrUnreachable, "500 InternalError": store.ErrUnreachable, "503 SlowDown": store.ErrUnreachable,
		"412 PreconditionFailed": nil, "409 ConditionalRequestConflict": nil, "501 NotImplemented": nil, "400 BadDigest": nil,
		cutAnswer: nil, short: nil, text: nil, elsewhere: nil, huge: nil, endless: nil,
	}
	for op, calls := range ops {
		for _, at := range calls {
			for f, w := range want {
				for _, once := range []bool{true, false} {
					if f == endless && (op != "list" || once || at.n > 1) || f == huge && !once {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s%d/%s/once=%v", op, at.kind, at.n, f, once), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							s := newService()
							s.pageSize = 1
							c := config(s)
							c.Region = ""
							st := open(t, c)
							if op != "put" {
								put(t, st, name, data)
								put(t, st, name+"2", data)
							}
							s.requests()
							struck := false
							s.fault = func(kind string, n int) fault {
								if kind == at.kind && (n == at.n || !once && n > at.n) {
									struck = true
									return f
								}
								return none
							}
							err := do(t.Context(), st, op, name, data)
							if !struck {
								t.Fatal("the request was not made")
							}
							total := 0
							for _, n := range s.requests() {
								total += n
							}
							if total > 30 && f != endless {
								t.Errorf("%d requests", total)
							}
							if errors.Is(err, errLie) {
								t.Error(err)
							}
							if err == nil {
								if f != "404 NoSuchKey" { // A service that lies in so many words is beyond a store.
									told(t, s, op, name, data)
								}
							} else if w != nil && !once && at.kind != "location" && !errors.Is(err, w) {
								t.Errorf("got %v, want %v", err, w)
							}
							if errors.Is(err, store.ErrNotExist) && f != "404 NoSuchKey" {
								t.Errorf("told absent: %v", err)
							}
							if f == short && errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrExist) {
								t.Errorf("an answer is taken for the object: %v", err)
							}
							if f == short && err != nil && op != "list" && !errors.Is(err, store.ErrUnreachable) {
								t.Errorf("half an answer: got %v, want ErrUnreachable", err)
							}
							for _, leak := range []string{"127.0.0.1", "slots", "hotel", "show me"} {
								if err != nil && strings.Contains(err.Error(), leak) {
									t.Errorf("the error tells too much: %v", err)
								}
							}

							s.fault = nil
							if op == "delete" || op == "put" {
								if err := do(t.Context(), st, op, name, data); err != nil {
									t.Errorf("again: %v", err)
								} else {
									told(t, s, op, name, data)
								}
							}
						})
					})
				}
			}
		}
	}
}

var errLie = errors.New("told what is not so")

func do(ctx context.Context, st store.Store, op, name, data string) error {
	switch op {
	case "put", "again":
		return st.Put(ctx, name, []byte(data))
	case "get":
		got, err := st.Get(ctx, name, store.Sum([]byte(data)), 100)
		if err == nil && string(got) != data {
			return fmt.Errorf("%w: %q", errLie, got)
		}
		return err
	case "list":
		list, err := st.List(ctx, "Backup")
		if err == nil && (len(list) != 2 || list[0].Name != name || list[0].Size != int64(len(data))) {
			return fmt.Errorf("%w: %v", errLie, list)
		}
		return err
	}
	return st.Delete(ctx, store.Object{Name: name})
}

// told tests that success was told of what is so.
func told(t *testing.T, s *service, op, name, data string) {
	t.Helper()
	got, there := s.has("my backups/" + name)
	switch {
	case op == "delete" && there:
		t.Error("told deleted, and it is there")
	case (op == "put" || op == "again") && got != data:
		t.Errorf("told put, and there is %q, %v", got, there)
	}
}

// What a call costs, as the package comment says.
func TestRequests(t *testing.T) {
	s := newService()
	s.pageSize = 1000
	c := config(s)
	c.Region, c.Plain = "", false
	st := open(t, c)
	for _, test := range []struct {
		what string
		do   func() error
		want map[string]int
	}{
		{"the first", func() error { return st.Put(t.Context(), "a/b", []byte("x")) }, map[string]int{"location": 1, "get": 1, "put": 1}},
		{"put", func() error { return st.Put(t.Context(), "a/c", []byte("x")) }, map[string]int{"get": 1, "put": 1}},
		{"a large one", func() error { return st.Put(t.Context(), "a/d", make([]byte, 20<<20)) }, map[string]int{"get": 1, "put": 1}},
		{"again", func() error { return st.Put(t.Context(), "a/c", []byte("x")) }, map[string]int{"get": 1}},
		{"get", func() error { _, err := st.Get(t.Context(), "a/c", "", 9); return err }, map[string]int{"get": 1}},
		{"list", func() error { _, err := st.List(t.Context(), ""); return err }, map[string]int{"list": 1}},
		{"delete", func() error { return st.Delete(t.Context(), store.Object{Name: "a/d"}) }, map[string]int{"delete": 1}},
		{"many", func() error {
			for i := range 2500 {
				s.set(fmt.Sprintf("my backups/many/%d", i), "")
			}
			list, err := st.List(t.Context(), "many/")
			return cmp.Or(err, map[bool]error{false: fmt.Errorf("%d objects", len(list))}[len(list) == 2500])
		}, map[string]int{"list": 3}},
	} {
		s.requests()
		if err := test.do(); err != nil {
			t.Errorf("%s: %v", test.what, err)
		}
		if got := s.requests(); !maps.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.what, got, test.want)
		}
	}
}

// R3: another process puts between the look and the put. A service that keeps conditions
// tells; nothing is replaced.
func TestRace(t *testing.T) {
	for theirs, want := range map[string]error{"other bytes": store.ErrExist, "mine": nil} {
		s := newService()
		st := open(t, config(s))
		s.fault = func(kind string, n int) fault {
			if kind == "put" && n == 1 {
				s.set("my backups/a/b", theirs)
			}
			return none
		}
		if err := st.Put(t.Context(), "a/b", []byte("mine")); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("got %v, want %v", err, want)
		}
		if got, _ := s.has("my backups/a/b"); got != theirs {
			t.Errorf("replaced by %q", got)
		}
	}
}

// What other programs keep in the bucket is neither listed nor touched.
func TestForeign(t *testing.T) {
	s := newService()
	for _, key := range []string{"outside", "my backups", "my backups/", "my backups/folder/", "my backups/.hidden", "my backups//x", "my backups/a\nb", "my backups2/x", "my backups/ok"} {
		s.set(key, "x")
	}
	list, err := open(t, config(s)).List(t.Context(), "")
	if err != nil || len(list) != 1 || list[0].Name != "ok" {
		t.Errorf("got %v, %v, want ok alone", list, err)
	}
}

// A listing whose context ends in the middle is no listing.
func TestListGivenUp(t *testing.T) {
	s := newService()
	s.pageSize = 1
	for i := range 5 {
		s.set(fmt.Sprintf("my backups/%d", i), "x")
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.fault = func(_ string, n int) fault {
		if n == 3 {
			cancel()
		}
		return none
	}
	if list, err := open(t, config(s)).List(ctx, ""); !errors.Is(err, context.Canceled) || list != nil {
		t.Errorf("got %v, %v, want context.Canceled", list, err)
	}
}

func TestTLS(t *testing.T) {
	srv := httptest.NewTLSServer(newService())
	defer srv.Close()
	srv.Config.ErrorLog = nil
	c := config(nil)
	c.Host, c.Plain, c.Transport = strings.TrimPrefix(srv.URL, "https://"), false, web.NewTransport(nil)
	st := open(t, c)
	if err := st.Put(t.Context(), "a", nil); !errors.Is(err, store.ErrUnreachable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v, want its certificate is not to be trusted", err)
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]s3.Config{
		"s3://s3.eu-central-1.amazonaws.com/bucket":    {Host: "s3.eu-central-1.amazonaws.com", Bucket: "bucket"},
		"s3://AKIA+x@host/bucket":                      {Host: "host", Bucket: "bucket", AccessKey: "AKIA+x"},
		"s3://host:9000/bucket/a/b?region=auto":        {Host: "host:9000", Bucket: "bucket", Prefix: "a/b", Region: "auto"},
		"s3+http://127.0.0.1:9000/bucket/my%20backups": {Host: "127.0.0.1:9000", Bucket: "bucket", Prefix: "my backups", Plain: true},
		"s3+http://[::1]:9000/bucket":                  {Host: "[::1]:9000", Bucket: "bucket", Plain: true},
	} {
		c, err := s3.Parse(address)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if c.Host != want.Host || c.Bucket != want.Bucket || c.Prefix != want.Prefix || c.Region != want.Region || c.AccessKey != want.AccessKey || c.Plain != want.Plain {
			t.Errorf("%s: got %+v, want %+v", address, c, want)
		}
		if got := open(t, c).Address(); got != address {
			t.Errorf("got %s, want %s", got, address)
		}
	}
	if c, err := s3.Parse("s3://host/bucket/a/"); err != nil || c.Prefix != "a" {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, address := range []string{"", "s3:", "s3:bucket", "s3://host", "s3://host/", "https://host/bucket", "s3://key:geheim@host/bucket", "s3://host/bucket?x=1", "s3://host/bucket#f", "s3://host/bucket/../x", "s3://host/bucket/.x", "s3+http://cloud.example.org/bucket", "s3://ho st/bucket"} {
		c, err := s3.Parse(address)
		if err == nil {
			_, err = s3.New(c)
		}
		if err == nil {
			t.Errorf("%s: no error", address)
		} else if strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: the error tells too much: %v", address, err)
		}
	}
}

// R19: no way of printing a store or its configuration shows the key.
func TestSecrets(t *testing.T) {
	c := config(nil)
	c.SecretKey = secret.FromString("do-not-show")
	if text := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(text, "do-not-show") {
		t.Error(text)
	}
}
