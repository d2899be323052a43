package satchel_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	dav "golang.org/x/net/webdav"

	"github.com/satchel-backup/satchel/internal/cloudtest"
	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/dropbox"
	"github.com/satchel-backup/satchel/store/gdrive"
	"github.com/satchel-backup/satchel/store/onedrive"
	"github.com/satchel-backup/satchel/store/s3"
	"github.com/satchel-backup/satchel/store/webdav"
)

// site is an account at a cloud, or a folder of a server, in this process: no port is
// opened, and no time passes in a synctest bubble. The stores over it are the real ones.
type site struct {
	name string
	open func(t testing.TB, s *site, in *cloudtest.SignIn, via http.RoundTripper) store.Store
	far  http.RoundTripper

	// Of clouds whose users sign in; nil for servers with a password.
	cloud    *fakecloud.Cloud
	ann, bob *fakecloud.Account
	in       *cloudtest.SignIn // of the devices

	bucket *bucket // of S3; nil elsewhere

	// retryAfter is what a busy one says, in seconds; less than zero is nothing.
	retryAfter atomic.Int64

	mu       sync.Mutex
	strikes  func(op string, r *http.Request) fakecloud.Fault // see strike; guarded by mu
	requests int                                              // guarded by mu
	record   *bytes.Buffer                                    // of all that was sent, if not nil; guarded by mu
}

// davPassword and s3Secret are secrets that no request may show.
const (
	davUser     = "ann"
	davPassword = "Zwölf Boxkämpfer jagen"
	s3Secret    = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

// sites has a new, empty one of each kind.
var sites = map[string]func(t testing.TB) *site{
	"gdrive": func(t testing.TB) *site {
		return newCloud("gdrive", func(t testing.TB, s *site, in *cloudtest.SignIn, via http.RoundTripper) store.Store {
			st, err := gdrive.New(gdrive.Config{Tokens: in.Scoped(gdrive.Scopes(false)...), Owner: s.ann.ID, Transport: via, Endpoint: "https://drive.test"})
			return usable(t, st, err)
		})
	},
	"dropbox": func(t testing.TB) *site {
		return newCloud("dropbox", func(t testing.TB, s *site, in *cloudtest.SignIn, via http.RoundTripper) store.Store {
			st, err := dropbox.New(dropbox.Config{Tokens: in, Owner: "dbid:" + s.ann.ID, Transport: via, API: "https://dropbox.test", Content: "https://content.test"})
			return usable(t, st, err)
		})
	},
	"onedrive": func(t testing.TB) *site {
		return newCloud("onedrive", func(t testing.TB, s *site, in *cloudtest.SignIn, via http.RoundTripper) store.Store {
			st, err := onedrive.New(onedrive.Config{Tokens: in, Owner: "d" + s.ann.ID, Transport: via, Graph: "https://graph.test/v1.0"})
			return usable(t, st, err)
		})
	},
	"webdav": func(t testing.TB) *site {
		disk := dav.NewMemFS()
		if err := disk.Mkdir(t.Context(), "/ann", 0o700); err != nil {
			t.Fatal(err)
		}
		inner := &dav.Handler{FileSystem: disk, LockSystem: dav.NewMemLS()}
		s := newServer("webdav", davWords{}, inner, func(t testing.TB, s *site, via http.RoundTripper) store.Store {
			st, err := webdav.New(webdav.Config{URL: "https://dav.test/ann", User: davUser, Password: secret.FromString(davPassword), Transport: via})
			return usable(t, st, err)
		})
		if err := s.store(t).(*webdav.Store).Create(t.Context()); err != nil {
			t.Fatal(err)
		}
		return s
	},
	"s3": func(t testing.TB) *site {
		b := &bucket{objects: map[string][]byte{}}
		site := newServer("s3", s3Words{}, b, func(t testing.TB, s *site, via http.RoundTripper) store.Store {
			st, err := s3.New(s3.Config{Host: "s3.test", Bucket: "ann", Region: "moon-1", PathStyle: true, AccessKey: "key", SecretKey: secret.FromString(s3Secret), Transport: via})
			return usable(t, st, err)
		})
		site.bucket = b
		return site
	},
}

func usable[S store.Store](t testing.TB, s S, err error) store.Store {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newCloud(name string, open func(t testing.TB, s *site, in *cloudtest.SignIn, via http.RoundTripper) store.Store) *site {
	s := &site{name: name, open: open, cloud: fakecloud.New()}
	s.ann, s.bob = s.cloud.AddAccount("1001", "ann@example.org"), s.cloud.AddAccount("1002", "bob@example.org")
	s.cloud.Fault = s.fault
	s.in = cloudtest.NewSignIn(s.cloud, s.ann)
	s.far = s.cloud.Transport()
	return s
}

func newServer(name string, say words, inner http.Handler, open func(t testing.TB, s *site, via http.RoundTripper) store.Store) *site {
	s := &site{name: name}
	s.open = func(t testing.TB, s *site, _ *cloudtest.SignIn, via http.RoundTripper) store.Store {
		return open(t, s, via)
	}
	s.far = fakecloud.Over(&server{site: s, say: say, inner: inner})
	return s
}

// busy makes a busy site say how many seconds to wait; less than zero is nothing.
func (s *site) busy(seconds int) {
	s.retryAfter.Store(int64(seconds))
	if s.cloud != nil {
		s.cloud.Busy(max(0, seconds))
	}
}

// strike makes strikes decide what happens to each request from now on, if it is not nil.
// It is called for several at once; those that were given up may still be on their way.
func (s *site) strike(strikes func(op string, r *http.Request) fakecloud.Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strikes = strikes
}

func (s *site) striking() func(op string, r *http.Request) fakecloud.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.strikes
}

func (s *site) fault(op string, r *http.Request) fakecloud.Fault {
	if strikes := s.striking(); strikes != nil {
		return strikes(op, r)
	}
	return fakecloud.None
}

// store returns the store of a device, as another process opens it.
func (s *site) store(t testing.TB) store.Store { return s.open(t, s, s.in, s) }

// fresh returns a store that nobody else uses, signed in anew as who owns the account.
func (s *site) fresh(t testing.TB) store.Store { return s.of(t, s.ann) }

func (s *site) of(t testing.TB, a *fakecloud.Account) store.Store {
	if s.cloud == nil {
		return s.open(t, s, nil, s.far)
	}
	// The owner is compared, so the other account is looked at as its own.
	look := &site{name: s.name, open: s.open, cloud: s.cloud, ann: a}
	return s.open(t, look, cloudtest.NewSignIn(s.cloud, a), s.far)
}

// RoundTrip implements http.RoundTripper: it is the line of the devices.
func (s *site) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.requests++
	if s.record != nil {
		var body []byte
		if r.Body != nil {
			var err error
			if body, err = io.ReadAll(r.Body); err != nil {
				s.mu.Unlock()
				return nil, err
			}
			r = r.Clone(r.Context())
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		fmt.Fprintf(s.record, "%s %s\n", r.Method, r.URL)
		if err := r.Header.Write(s.record); err != nil {
			panic(err)
		}
		s.record.WriteString("\n")
		s.record.Write(body)
		s.record.WriteByte(0)
	}
	s.mu.Unlock()
	return s.far.RoundTrip(r)
}

// sent returns how many requests the devices made.
func (s *site) sent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// words are how a server says what goes wrong.
type words interface {
	unauthorized(w http.ResponseWriter)
	busy(w http.ResponseWriter)
	full(w http.ResponseWriter)
}

// server has the faults of the fake clouds.
type server struct {
	site  *site
	say   words
	inner http.Handler
	mu    sync.Mutex // Both servers are simple.
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // The client went away.
	}
	fault := s.site.fault(r.Method, r)
	upload := r.Method == http.MethodPut
	run := func(body []byte) *httptest.ResponseRecorder {
		s.mu.Lock()
		defer s.mu.Unlock()
		in := r.Clone(r.Context())
		in.Body, in.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		rec := httptest.NewRecorder()
		s.inner.ServeHTTP(rec, in)
		return rec
	}
	replay := func(rec *httptest.ResponseRecorder, body []byte, length int) {
		maps.Copy(w.Header(), rec.Header())
		if r.Method != http.MethodHead {
			w.Header().Set("Content-Length", strconv.Itoa(length))
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body)
	}
	broken := func() { http.Error(w, "internal error", http.StatusInternalServerError) }
	switch {
	case fault == fakecloud.Unauthorized:
		s.say.unauthorized(w)
	case fault == fakecloud.RateLimited:
		if seconds := s.site.retryAfter.Load(); seconds >= 0 {
			w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
		}
		s.say.busy(w)
	case fault == fakecloud.ServerError:
		broken()
	case fault == fakecloud.Applied:
		run(body)
		broken()
	case fault == fakecloud.Cut:
		panic(http.ErrAbortHandler)
	case fault == fakecloud.CutApplied:
		run(body)
		panic(http.ErrAbortHandler)
	case fault == fakecloud.CutAnswer:
		rec := run(body)
		replay(rec, rec.Body.Bytes(), rec.Body.Len()+1)
		panic(http.ErrAbortHandler)
	case fault == fakecloud.HalfAnswer:
		rec := run(body)
		half := rec.Body.Bytes()[:rec.Body.Len()/2]
		replay(rec, half, len(half))
	case fault == fakecloud.Hang:
		<-r.Context().Done()
	case fault == fakecloud.Full && upload:
		s.say.full(w)
	case fault == fakecloud.Torn && upload:
		run(body[:len(body)/2])
		broken()
	case fault == fakecloud.Page:
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>Welcome! Please accept our terms.</html>")
	default:
		rec := run(body)
		replay(rec, rec.Body.Bytes(), rec.Body.Len())
	}
}

type davWords struct{}

func (davWords) unauthorized(w http.ResponseWriter) { http.Error(w, "who?", http.StatusUnauthorized) }
func (davWords) busy(w http.ResponseWriter)         { http.Error(w, "busy", http.StatusTooManyRequests) }
func (davWords) full(w http.ResponseWriter)         { http.Error(w, "full", http.StatusInsufficientStorage) }

type s3Words struct{}

func (s3Words) say(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
}

func (s s3Words) unauthorized(w http.ResponseWriter) { s.say(w, 403, "InvalidAccessKeyId") }
func (s s3Words) busy(w http.ResponseWriter)         { s.say(w, 503, "SlowDown") }
func (s s3Words) full(w http.ResponseWriter)         { s.say(w, 507, "XMinioStorageFull") }

// bucket is a small S3 service with one bucket. It checks no signatures.
type bucket struct {
	s3Words
	objects map[string][]byte
	// clock is the service's, if not nil: it wants requests of about then.
	clock func() time.Time
}

type bucketPage struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	IsTruncated           bool
	NextContinuationToken string
	EncodingType          string
	Contents              []listed
}

type listed struct {
	Key          string
	Size         int
	LastModified string
}

// ServeHTTP implements http.Handler.
func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if name != "ann" || strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		b.say(w, 400, "InvalidRequest")
		return
	}
	if b.clock != nil {
		at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if off := b.clock().Sub(at).Abs(); err != nil || off > 15*time.Minute {
			b.say(w, 403, "RequestTimeTooSkewed")
			return
		}
	}
	object, there := b.objects[key]
	switch {
	case r.Method == http.MethodGet && r.URL.Query().Has("list-type"):
		b.list(w, r.URL.Query())
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		if !there {
			b.say(w, 404, "NoSuchKey")
			return
		}
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, md5.Sum(object)))
		w.Header().Set("Last-Modified", "Thu, 26 Nov 2026 00:00:00 GMT")
		if r.Method == http.MethodHead {
			w.Header().Set("Content-Length", strconv.Itoa(len(object)))
			return
		}
		_, _ = w.Write(object)
	case r.Method == http.MethodDelete:
		delete(b.objects, key)
		w.WriteHeader(204)
	case r.Method == http.MethodPut:
		body, err := io.ReadAll(r.Body)
		sum := md5.Sum(body)
		switch {
		case err != nil || r.Header.Get("Content-Md5") != base64.StdEncoding.EncodeToString(sum[:]):
			b.say(w, 400, "BadDigest")
		case r.Header.Get("If-None-Match") == "*" && there:
			b.say(w, 412, "PreconditionFailed")
		default:
			b.objects[key] = body
			w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sum))
		}
	}
}

func (b *bucket) list(w http.ResponseWriter, q url.Values) {
	result := bucketPage{EncodingType: "url"}
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		if !strings.HasPrefix(key, q.Get("prefix")) || key <= q.Get("continuation-token") {
			continue
		}
		if len(result.Contents) == 7 { // to a page
			result.IsTruncated = true
			break
		}
		result.NextContinuationToken = key
		result.Contents = append(result.Contents, listed{url.QueryEscape(key), len(b.objects[key]), "2026-11-26T00:00:00Z"})
	}
	if !result.IsTruncated {
		result.NextContinuationToken = ""
	}
	w.Header().Set("Content-Type", "application/xml")
	if err := xml.NewEncoder(w).Encode(result); err != nil {
		panic(err)
	}
}

// listed returns what a site holds, and fails the test if one name stands for two
// objects.
func (s *site) listed(t testing.TB) map[string]store.Object {
	t.Helper()
	list, err := s.fresh(t).List(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]store.Object{}
	for _, o := range list {
		if _, twice := m[o.Name]; twice {
			t.Errorf("%s: %s is there twice", s.name, o.Name)
		}
		m[o.Name] = o
	}
	return m
}
