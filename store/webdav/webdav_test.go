package webdav_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	dav "golang.org/x/net/webdav"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/storetest"
	"github.com/satchel-backup/satchel/store/webdav"
)

// server is a WebDAV server in this process, and the line to it: no port is opened and
// no time passes in a synctest bubble.
type server struct {
	disk    dav.FileSystem
	handler http.Handler

	// fault decides what happens to a request, if not nil. n counts the requests of its
	// method, from 1.
	fault func(r *http.Request, n int) fault

	mu     sync.Mutex
	counts map[string]int // by method; guarded by mu
}

// fault is something that a server or the line does. A number is a status: the request
// is not carried out.
type fault string

const (
	none      fault = ""
	cut       fault = "cut"        // the line is cut, and nothing happened
	applied   fault = "applied"    // the line is cut, and yet it happened
	applied5  fault = "applied5"   // 500, and yet it happened
	torn      fault = "torn"       // half of what was sent arrived, and the line is cut
	tornYes   fault = "tornYes"    // half of what was sent arrived, and the server says yes
	cutAnswer fault = "cut answer" // done, and the line is cut in the middle of the answer
	short     fault = "short"      // done, and half of the answer comes, with a length that agrees
	page      fault = "page"       // 200 and a page of a hotel's network
	text      fault = "text"       // likewise, and it says that it is plain text
	elsewhere fault = "elsewhere"  // sends to a page that wants a sign-in
	huge      fault = "huge"       // an answer without an end
	yes       fault = "yes"        // 204, and nothing happened
)

const loginPage = "<!DOCTYPE html><html><body>Welcome to the hotel</body></html>"

func newServer(t *testing.T) *server {
	disk := dav.NewMemFS()
	if err := disk.Mkdir(t.Context(), "/ann's files", 0o700); err != nil {
		t.Fatal(err)
	}
	return &server{disk: disk, handler: &dav.Handler{FileSystem: disk, LockSystem: dav.NewMemLS()}, counts: map[string]int{}}
}

// RoundTrip implements http.RoundTripper.
func (s *server) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.counts[req.Method]++
	n := s.counts[req.Method]
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
	if s.fault != nil && strings.HasPrefix(req.URL.Path, "/ann's files") {
		f = s.fault(req, n)
	}
	reset := errors.New("connection reset")
	say := func(status int, kind, body string) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, Header: http.Header{"Content-Type": {kind}, "Content-Length": {fmt.Sprint(len(body))}},
			Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req,
		}, nil
	}
	switch f {
	case cut:
		return nil, reset
	case page:
		return say(200, "text/html; charset=utf-8", loginPage)
	case text:
		return say(200, "text/plain", loginPage)
	case yes:
		return say(204, "", "")
	case elsewhere:
		resp, err := say(302, "text/html", "")
		resp.Header.Set("Location", "/login")
		return resp, err
	case huge:
		return &http.Response{StatusCode: cmp.Or(map[string]int{"PROPFIND": 207}[req.Method], 200), Header: http.Header{}, Body: io.NopCloser(endless{}), ContentLength: -1, Request: req}, nil
	case torn, tornYes:
		body = body[:len(body)/2]
	}
	var status int
	if _, err := fmt.Sscanf(string(f), "%d", &status); err == nil {
		resp, err := say(status, "text/html", "<html>no</html>")
		if status == 429 {
			resp.Header.Set("Retry-After", "20")
		}
		return resp, err
	}
	if strings.HasPrefix(req.URL.Path, "/login") {
		return say(200, "text/html", loginPage)
	}
	inner := req.Clone(req.Context())
	inner.Host, inner.Body = req.URL.Host, io.NopCloser(bytes.NewReader(body))
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, inner)
	resp := rec.Result()
	resp.Request = req
	if resp.Header.Get("Content-Length") == "" {
		resp.ContentLength = int64(rec.Body.Len())
		resp.Header.Set("Content-Length", fmt.Sprint(rec.Body.Len()))
	}
	switch f {
	case applied, torn:
		return nil, reset
	case applied5:
		return say(500, "text/html", "<html>a fault</html>")
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

type endless struct{}

var blanks = bytes.Repeat([]byte(" "), 1<<16)

func (endless) Read(p []byte) (int, error) {
	return copy(p, blanks), nil
}

func (s *server) requests() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := s.counts
	s.counts = map[string]int{}
	return counts
}

// has returns the bytes of a file on the server's disk, nil if there is none.
func (s *server) has(t *testing.T, name string) []byte {
	t.Helper()
	f, err := s.disk.OpenFile(t.Context(), "/ann's files/"+name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// write puts a file on the server's disk past the store.
func (s *server) write(t *testing.T, name, data string) {
	t.Helper()
	dir := "/ann's files"
	parts := strings.Split(name, "/")
	for _, p := range parts[:len(parts)-1] {
		dir += "/" + p
		s.disk.Mkdir(t.Context(), dir, 0o700)
	}
	f, err := s.disk.OpenFile(t.Context(), dir+"/"+parts[len(parts)-1], os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.WriteString(f, data); err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// files lists the names in a folder of the server's disk.
func (s *server) files(t *testing.T, dir string) []string {
	t.Helper()
	f, err := s.disk.OpenFile(t.Context(), "/ann's files/"+dir, os.O_RDONLY, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	infos, err := f.Readdir(-1)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range infos {
		names = append(names, i.Name())
	}
	slices.Sort(names)
	return names
}

const folder = "https://cloud.test/ann%27s%20files"

func open(t *testing.T, s *server, at string) *webdav.Store {
	t.Helper()
	st, err := webdav.New(webdav.Config{URL: at, User: "ann", Password: secret.FromString("pass:word"), Transport: s})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func create(t *testing.T, s *server) *webdav.Store {
	t.Helper()
	st := open(t, s, folder)
	if err := st.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	return st
}

// hrefs changes how the server writes where things are.
func hrefs(change func(path string) string) func(http.Handler) http.Handler {
	href := regexp.MustCompile(`(<D:href>)(.*?)(</D:href>)`)
	return func(inner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			inner.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(rec.Code)
			body := rec.Body.Bytes()
			if rec.Code == http.StatusMultiStatus {
				body = href.ReplaceAllFunc(body, func(m []byte) []byte {
					p := href.FindSubmatch(m)
					return slices.Concat(p[1], []byte(change(string(p[2]))), p[3])
				})
			}
			w.Write(body)
		})
	}
}

// everything escapes every byte but slashes.
func everything(p string) string {
	raw, err := url.PathUnescape(strings.ReplaceAll(p, "&amp;", "&"))
	if err != nil {
		panic(err)
	}
	var b strings.Builder
	for _, c := range []byte(raw) {
		if c == '/' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

// slashes sends who asks for a folder without its slash there, and shows a page of what
// is in it to who gets it, as Apache does.
func slashes(s *server) func(http.Handler) http.Handler {
	return func(inner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if info, err := s.disk.Stat(r.Context(), r.URL.Path); err == nil && info.IsDir() && (r.Method == "GET" || r.Method == "PROPFIND") {
				if !strings.HasSuffix(r.URL.Path, "/") {
					http.Redirect(w, r, (&url.URL{Path: r.URL.Path + "/"}).EscapedPath(), http.StatusMovedPermanently)
					return
				}
				if r.Method == "GET" {
					w.Header().Set("Content-Type", "text/html")
					io.WriteString(w, "<html>Index of</html>")
					return
				}
			}
			inner.ServeHTTP(w, r)
		})
	}
}

func TestConformance(t *testing.T) {
	for name, change := range map[string]func(*server) func(http.Handler) http.Handler{
		"plain": func(*server) func(http.Handler) http.Handler { return func(h http.Handler) http.Handler { return h } },
		"hrefs": func(*server) func(http.Handler) http.Handler {
			return hrefs(func(p string) string { return "http://inside.test:8080" + strings.TrimSuffix(everything(p), "/") })
		},
		"Apache": slashes,
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) store.Store {
				s := newServer(t)
				s.handler = change(s)(s.handler)
				return create(t, s)
			})
		})
	}
}

// Each real server that the environment names passes the same tests.
func TestServers(t *testing.T) {
	for _, name := range []string{"APACHE", "NGINX", "SABRE", "RCLONE"} {
		t.Run(strings.ToLower(name), func(t *testing.T) {
			address := os.Getenv("SATCHEL_TEST_WEBDAV_" + name)
			if address == "" {
				t.Skip("SATCHEL_TEST_WEBDAV_" + name + " names no server")
			}
			n := 0
			real := func(t *testing.T) *webdav.Store {
				t.Helper()
				c, err := webdav.Parse(address)
				if err != nil {
					t.Fatal(err)
				}
				n++
				c.URL += fmt.Sprintf("/%d-%d", time.Now().UnixNano(), n)
				c.Password = secret.FromString(os.Getenv("SATCHEL_TEST_WEBDAV_PASSWORD"))
				s, err := webdav.New(c)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Create(t.Context()); err != nil {
					t.Fatal(err)
				}
				return s
			}
			storetest.Run(t, func(t *testing.T) store.Store { return real(t) })
			t.Run("Own", func(t *testing.T) { own(t, address, real(t)) })
		})
	}
}

// own is what a real server shows besides.
func own(t *testing.T, address string, s *webdav.Store) {
	c, err := webdav.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	c.Password = secret.FromString("wrong")
	stranger, err := webdav.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.List(t.Context(), ""); !errors.Is(err, store.ErrSignIn) {
		t.Errorf("with a wrong password: got %v, want ErrSignIn", err)
	}
	if err := stranger.Put(t.Context(), "a", []byte("x")); !errors.Is(err, store.ErrSignIn) {
		t.Errorf("with a wrong password: got %v, want ErrSignIn", err)
	}
	c.URL += "/absent"
	c.Password = secret.FromString(os.Getenv("SATCHEL_TEST_WEBDAV_PASSWORD"))
	gone, err := webdav.New(c)
	if err != nil {
		t.Fatal(err)
	}
	wantUnreachable(t, gone)

	before := time.Now()
	if err := s.Put(t.Context(), "a/b", []byte("x")); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(t.Context(), "")
	if err != nil || len(list) != 1 {
		t.Fatalf("got %v, %v, want one object", list, err)
	}
	if d := list[0].Modified.Sub(before); d < -5*time.Second || d > 5*time.Second {
		t.Errorf("modified %v, want now", list[0].Modified)
	}
	// Another process puts other bytes where the look just found none.
	if err := s.Put(t.Context(), "a/b", []byte("y")); !errors.Is(err, store.ErrExist) {
		t.Errorf("got %v, want ErrExist", err)
	}
	// Deleting an object by the name of a folder leaves what is in it.
	if err := s.Delete(t.Context(), store.Object{Name: "a"}); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if got, err := s.Get(t.Context(), "a/b", "", 9); string(got) != "x" {
		t.Errorf("the folder was deleted: %q, %v", got, err)
	}
}

// wantUnreachable tests that nothing can be said and nothing is written (R2).
func wantUnreachable(t *testing.T, s store.Store) {
	t.Helper()
	ctx := t.Context()
	for what, err := range map[string]error{
		"Put":              s.Put(ctx, "x/y", []byte("x")),
		"Put at the top":   s.Put(ctx, "x", []byte("x")),
		"Get":              func() error { _, err := s.Get(ctx, "x/y", "", 9); return err }(),
		"List":             func() error { _, err := s.List(ctx, ""); return err }(),
		"List of a folder": func() error { _, err := s.List(ctx, "x/"); return err }(),
		"Delete":           s.Delete(ctx, store.Object{Name: "x/y"}),
	} {
		if !errors.Is(err, store.ErrUnreachable) || errors.Is(err, store.ErrNotExist) {
			t.Errorf("%s: got %v, want ErrUnreachable", what, err)
		}
	}
}

// R2: a folder that is missing, or has nothing in it, is no place without backups.
func TestGoneOrEmpty(t *testing.T) {
	s := newServer(t)
	wantUnreachable(t, open(t, s, folder)) // Empty, and never chosen.
	wantUnreachable(t, open(t, s, folder+"/none"))
	if got := s.files(t, ""); len(got) != 0 {
		t.Errorf("left %q", got)
	}

	// With something else in it, it stands.
	s.write(t, "letter.txt", "x")
	st := open(t, s, folder)
	if list, err := st.List(t.Context(), ""); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v", list, err)
	}
	if _, err := st.Get(t.Context(), "a", "", 9); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}

	// Chosen, its last object may go.
	s = newServer(t)
	st = create(t, s)
	put(t, st, "a", "x")
	if err := st.Delete(t.Context(), store.Object{Name: "a"}); err != nil {
		t.Error(err)
	}
	if list, err := st.List(t.Context(), ""); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v, want none", list, err)
	}

	// Its disk goes away while the store is open, and another time it comes back empty.
	put(t, st, "a/b", "x")
	if err := s.disk.RemoveAll(t.Context(), "/ann's files"); err != nil {
		t.Fatal(err)
	}
	wantUnreachable(t, st)
	if err := s.disk.Mkdir(t.Context(), "/ann's files", 0o700); err != nil {
		t.Fatal(err)
	}
	wantUnreachable(t, st)
	if got := s.files(t, ""); len(got) != 0 {
		t.Errorf("left %q", got)
	}
}

func TestCreate(t *testing.T) {
	s := newServer(t)
	st := open(t, s, folder+"/new")
	for range 2 {
		if err := st.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	put(t, st, "a", "x")
	if err := open(t, s, folder+"/no/such").Create(t.Context()); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("below a folder that is missing: got %v, want ErrUnreachable", err)
	}
	if err := open(t, s, folder+"/new/a").Create(t.Context()); err == nil {
		t.Error("a file was taken for a folder")
	}
	for _, f := range []fault{page, text, elsewhere, yes, "401", "403", "404", "405", "501"} {
		s := newServer(t)
		s.fault = func(*http.Request, int) fault { return f }
		if err := open(t, s, folder).Create(t.Context()); err == nil {
			t.Errorf("%s: no error", f)
		}
	}
}

func put(t *testing.T, s store.Store, name, data string) {
	t.Helper()
	if err := s.Put(t.Context(), name, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

// R1, R5: whatever a server or the line does to any of the requests of a call, success
// is told only where the bytes are; the error is the one a person can act on; the same
// call again succeeds once the fault is over; and no storm of requests comes of it.
func TestFaults(t *testing.T) {
	const name, data = "Backup/slots/x.age", "what was sealed"
	type call struct {
		method string
		n      int
	}
	ops := map[string][]call{
		"put":    {{"GET", 1}, {"PROPFIND", 1}, {"MKCOL", 1}, {"MKCOL", 2}, {"PUT", 1}, {"MOVE", 1}},
		"again":  {{"GET", 1}}, // a put of what is there
		"get":    {{"GET", 1}},
		"list":   {{"PROPFIND", 1}, {"PROPFIND", 2}, {"PROPFIND", 3}},
		"delete": {{"PROPFIND", 1}, {"DELETE", 1}},
	}
	want := map[fault]error{
		"401": store.ErrSignIn, "403": fs.ErrPermission, "413": store.ErrFull, "507": store.ErrFull,
		"423": store.ErrUnreachable, "508": store.ErrUnreachable, "429": store.ErrUnreachable, "500": store.ErrUnreachable, "503": store.ErrUnreachable,
		page: store.ErrUnreachable, elsewhere: store.ErrUnreachable, cut: store.ErrUnreachable, applied: store.ErrUnreachable,
	}
	halves := map[string]error{"list": store.ErrListing, "get": store.ErrUnreachable, "again": store.ErrUnreachable}
	lasting := []fault{cut, applied, applied5, torn, cutAnswer, page, text, elsewhere, huge, yes, "401", "403", "404", "409", "412", "413", "423", "429", "500", "501", "503", "507", "508"}
	for op, calls := range ops {
		for _, at := range calls {
			for _, f := range append(lasting, tornYes, short) {
				for _, once := range []bool{true, false} {
					if f == huge && (!once || at.method == "PROPFIND" && (op != "list" || at.n > 1)) {
						continue // The same, and slow.
					}
					t.Run(fmt.Sprintf("%s/%s%d/%s/once=%v", op, at.method, at.n, f, once), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							s := newServer(t)
							st := create(t, s)
							if op != "put" {
								put(t, st, name, data)
							}
							s.requests()
							struck := false
							s.fault = func(r *http.Request, n int) fault {
								if r.Method == at.method && (n == at.n || !once && n > at.n) {
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
							if total > 40 {
								t.Errorf("%d requests", total)
							}
							if errors.Is(err, errLie) {
								t.Error(err)
							}
							if err == nil {
								told(t, s, op, f, name, data)
							} else if w := want[f]; w != nil && !once && !errors.Is(err, w) {
								t.Errorf("got %v, want %v", err, w)
							} else if w := halves[op]; w != nil && f == short && !errors.Is(err, w) {
								t.Errorf("got %v, want %v", err, w)
							}
							if errors.Is(err, store.ErrNotExist) && f != "404" {
								t.Errorf("told absent: %v", err)
							}
							if op == "again" && errors.Is(err, store.ErrExist) {
								t.Errorf("told that another object is there: %v", err)
							}
							if err != nil && (strings.Contains(err.Error(), "cloud.test") || strings.Contains(err.Error(), "slots") || strings.Contains(err.Error(), "hotel")) {
								t.Errorf("the error tells too much: %v", err)
							}

							s.fault = nil
							if op == "delete" || op == "put" {
								if err := do(t.Context(), st, op, name, data); err != nil && f != tornYes {
									t.Errorf("again: %v", err)
								} else if err == nil {
									told(t, s, op, none, name, data)
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
		if err == nil && (len(list) != 1 || list[0].Name != name || list[0].Size != int64(len(data))) {
			return fmt.Errorf("%w: %v", errLie, list)
		}
		return err
	}
	return st.Delete(ctx, store.Object{Name: name})
}

// told tests that success was told of what is so.
func told(t *testing.T, s *server, op string, f fault, name, data string) {
	t.Helper()
	got := s.has(t, name)
	switch {
	case op == "delete" && got != nil && f != yes && f != "404": // A server that lies in each answer is beyond a store.
		t.Error("told deleted, and it is there")
	case (op == "put" || op == "again") && string(got) != data && f != tornYes && f != yes:
		t.Errorf("told put, and there is %q", got)
	}
}

// What a call costs, as the package comment says.
func TestRequests(t *testing.T) {
	s := newServer(t)
	st := create(t, s)
	for _, test := range []struct {
		what string
		do   func() error
		want map[string]int
	}{
		{"the first into two new folders", func() error { return st.Put(t.Context(), "a/b/c", []byte("x")) }, map[string]int{"GET": 1, "PROPFIND": 1, "MKCOL": 3, "PUT": 1, "MOVE": 1}},
		{"put", func() error { return st.Put(t.Context(), "a/b/d", []byte("x")) }, map[string]int{"GET": 1, "PUT": 1, "MOVE": 1}},
		{"again", func() error { return st.Put(t.Context(), "a/b/d", []byte("x")) }, map[string]int{"GET": 1}},
		{"get", func() error { _, err := st.Get(t.Context(), "a/b/d", "", 9); return err }, map[string]int{"GET": 1}},
		{"get what is not there", func() error { st.Get(t.Context(), "a/b/none", "", 9); return nil }, map[string]int{"GET": 1, "PROPFIND": 1}},
		{"into one more folder", func() error { return st.Put(t.Context(), "a/new/x", []byte("x")) }, map[string]int{"GET": 1, "MKCOL": 1, "PUT": 1, "MOVE": 1}},
		{"by another process", func() error { return open(t, s, folder).Put(t.Context(), "a/new/y", []byte("x")) }, map[string]int{"GET": 1, "PROPFIND": 2, "MKCOL": 1, "PUT": 1, "MOVE": 1}},
		{"that listed before", func() error {
			st := open(t, s, folder)
			if _, err := st.List(t.Context(), "a/"); err != nil {
				return err
			}
			s.requests()
			return st.Put(t.Context(), "a/new/z", []byte("x"))
		}, map[string]int{"GET": 1, "PUT": 1, "MOVE": 1}},
		{"list of one folder", func() error { _, err := st.List(t.Context(), "a/b/"); return err }, map[string]int{"PROPFIND": 1}},
		{"list of all", func() error { _, err := st.List(t.Context(), ""); return err }, map[string]int{"PROPFIND": 4}},
		{"delete", func() error { return st.Delete(t.Context(), store.Object{Name: "a/b/d"}) }, map[string]int{"PROPFIND": 1, "DELETE": 1}},
	} {
		s.requests()
		if err := test.do(); err != nil {
			t.Errorf("%s: %v", test.what, err)
		}
		if diff := gocmp.Diff(test.want, s.requests()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.what, diff)
		}
	}
}

// R3: another process puts between the look and the move. Nothing is replaced, and
// nothing is left over.
func TestRace(t *testing.T) {
	for theirs, want := range map[string]error{"other bytes": store.ErrExist, "mine": nil} {
		s := newServer(t)
		st := create(t, s)
		s.fault = func(r *http.Request, n int) fault {
			if r.Method == "MOVE" && n == 1 {
				s.write(t, "a/b", theirs)
			}
			return none
		}
		if err := st.Put(t.Context(), "a/b", []byte("mine")); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("got %v, want %v", err, want)
		}
		if got := s.has(t, "a/b"); string(got) != theirs {
			t.Errorf("replaced by %q", got)
		}
		if got := s.files(t, "a"); !slices.Equal(got, []string{"b"}) {
			t.Errorf("left %q", got)
		}
	}
}

// A folder that was seen goes away: it is made again.
func TestFolderGone(t *testing.T) {
	for _, at := range []string{"PUT", "MOVE"} {
		s := newServer(t)
		st := create(t, s)
		put(t, st, "a/b", "x")
		s.requests()
		s.fault = func(r *http.Request, n int) fault {
			if r.Method == at && n == 1 {
				s.disk.RemoveAll(t.Context(), "/ann's files/a")
			}
			return none
		}
		put(t, st, "a/c", "y")
		if got := s.has(t, "a/c"); string(got) != "y" {
			t.Errorf("got %q", got)
		}
	}
}

// Some servers take only a whole address as the destination of MOVE, and some only a
// path. What worked is tried first from then on.
func TestDestination(t *testing.T) {
	for _, refuse := range []int{http.StatusBadRequest, http.StatusBadGateway} {
		for _, whole := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t)
				inner := s.handler
				s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == "MOVE" && strings.Contains(r.Header.Get("Destination"), "://") != whole {
						w.WriteHeader(refuse)
						return
					}
					inner.ServeHTTP(w, r)
				})
				st := create(t, s)
				put(t, st, "a/b", "x")
				s.requests()
				put(t, st, "a/c", "y")
				if n := s.requests()["MOVE"]; n != 1 {
					t.Errorf("got %d requests, want 1", n)
				}
				if got := s.has(t, "a/b"); string(got) != "x" {
					t.Errorf("got %q", got)
				}
			})
		}
	}
}

// WebDAV deletes a folder with all that is in it. An object that a folder has taken the
// name of is gone, and the folder stays (R3).
func TestDeleteFolder(t *testing.T) {
	s := newServer(t)
	st := create(t, s)
	put(t, st, "a/b", "x")
	for _, o := range []store.Object{{Name: "a"}, {Name: "a", ID: "a"}, {Name: "x", ID: "a/"}, {Name: "x", ID: "."}, {Name: "x", ID: ""}} {
		st.Delete(t.Context(), o)
	}
	if got := s.has(t, "a/b"); string(got) != "x" {
		t.Error("the folder was deleted")
	}
}

// What a crash left goes when it is old; what another process may be at stays.
func TestLeftovers(t *testing.T) {
	s := newServer(t)
	st := create(t, s)
	put(t, st, "a/b", "x")
	temp := "a/satchel-upload-ABCDEFGHIJKLMNOPQRSTUVWXYZ.tmp"
	s.write(t, temp, "x")
	s.write(t, "a/.hidden", "x")
	put := func(age time.Duration) {
		s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(age).UTC().Format(http.TimeFormat))
			(&dav.Handler{FileSystem: s.disk, LockSystem: dav.NewMemLS()}).ServeHTTP(w, r)
		})
		if list, err := st.List(t.Context(), "a/"); err != nil || len(list) != 1 {
			t.Errorf("got %v, %v, want one object", list, err)
		}
	}
	if err := st.Put(t.Context(), temp, nil); err == nil {
		t.Error("an object has the name of a temporary file")
	}
	put(time.Hour)
	if s.has(t, temp) == nil {
		t.Error("a file that may be in use was removed")
	}
	put(25 * time.Hour)
	if s.has(t, temp) != nil || s.has(t, "a/.hidden") == nil || s.has(t, "a/b") == nil {
		t.Errorf("got %q", s.files(t, "a"))
	}
}

// R18, R2: a listing is whole and about what was asked, or an error. No request goes to
// where an answer points.
func TestHostileListings(t *testing.T) {
	file := func(href, props string) string {
		return `<D:response><D:href>` + href + `</D:href><D:propstat><D:prop>` + props + `</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>`
	}
	const (
		dir   = `<D:resourcetype><D:collection/></D:resourcetype>`
		five  = `<D:resourcetype/><D:getcontentlength>5</D:getcontentlength>`
		start = `<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">`
		end   = `</D:multistatus>`
	)
	self := file("/ann's%20files/", dir)
	for _, test := range []struct {
		name, body string
		want       []string // nil means an error
	}{
		{"plain", start + self + file("/ann's%20files/a", five) + end, []string{"a"}},
		{"blanks around", "\n" + start + "\n" + self + "\n" + file("/ann's%20files/a", "\n"+five) + end + "\n\n<!-- x -->\n", []string{"a"}},
		{"a fault's text behind", start + self + end + "Internal Server Error", nil},
		{"another prefix for DAV:", `<multistatus xmlns="DAV:">` + strings.ReplaceAll(self+file("/ann's%20files/a", five), "D:", "") + `</multistatus>`, []string{"a"}},
		{"not escaped", start + file("/ann's files/", dir) + file("/ann's files/100% sure", five) + end, []string{"100% sure"}},
		{"more slashes", start + file("//ann's files//", dir) + file("//ann's files//a", five) + end, []string{"a"}},
		{"deeper ones too", start + self + file("/ann's%20files/a", five) + file("/ann's%20files/b/c", five) + end, []string{"a"}},
		{"names no Put makes", start + self + file("/ann's%20files/..", five) + file("/ann's%20files/.x", five) + file("/ann's%20files/a%0ab", five) + file("/ann's%20files/a%2fb", five) + file("/ann's%20files/ok", five) + end, []string{"ok"}},
		{"gone meanwhile", start + self + `<D:response><D:href>/ann's%20files/a</D:href><D:status>HTTP/1.1 404 Not Found</D:status></D:response>` + file("/ann's%20files/ok", five) + end, []string{"ok"}},
		{"no type, and a slash", start + self + file("/ann's%20files/ok", five) + end, []string{"ok"}},

		{"outside", start + self + file("/bob/a", five) + end, nil},
		{"above", start + self + file("/", dir) + end, nil},
		{"out by dots", start + self + file("/ann's%20files/../bob/a", five) + file("/ann's%20files/ok", five) + end, []string{"ok"}},
		{"only a beginning of the name", start + self + file("/ann's%20files2/a", five) + end, nil},
		{"without itself", start + file("/ann's%20files/a", five) + end, nil},
		{"nothing", start + end, nil},
		{"cut off", start + self + file("/ann's%20files/a", five), nil},
		{"cut in an element", start + self + file("/ann's%20files/a", five)[:60], nil},
		{"more behind", start + self + end + "<x/>", nil},
		{"empty", "", nil},
		{"a page", loginPage, nil},
		{"text", "hello", nil},
		{"another document", `<D:error xmlns:D="DAV:"/>`, nil},
		{"no size", start + self + file("/ann's%20files/a", `<D:resourcetype/>`) + end, nil},
		{"a size below nothing", start + self + file("/ann's%20files/a", `<D:resourcetype/><D:getcontentlength>-5</D:getcontentlength>`) + end, nil},
		{"refused entry", start + self + `<D:response><D:href>/ann's%20files/a</D:href><D:status>HTTP/1.1 403 Forbidden</D:status></D:response>` + end, nil},
		{"cut by the server", start + file("/ann's%20files/a", five) + `<D:response><D:href>/ann's%20files/</D:href><D:status>HTTP/1.1 507 Insufficient Storage</D:status></D:response>` + self + end, nil},
		{"an entity", `<!DOCTYPE x [<!ENTITY a "aaaa">]>` + start + self + file("/ann's%20files/&a;", five) + end, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t)
			st := create(t, s)
			inner := s.handler
			s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasPrefix(r.URL.Path, "/ann's files") {
					t.Errorf("a request for %s", r.URL.Path)
				}
				if r.Method != "PROPFIND" || r.Header.Get("Depth") != "1" {
					inner.ServeHTTP(w, r)
					return
				}
				w.WriteHeader(http.StatusMultiStatus)
				io.WriteString(w, test.body)
			})
			list, err := st.List(t.Context(), "")
			if test.want == nil {
				if !errors.Is(err, store.ErrListing) && !errors.Is(err, store.ErrUnreachable) || list != nil {
					t.Errorf("got %v, %v, want an error", list, err)
				}
				return
			}
			got := []string{}
			for _, o := range list {
				got = append(got, o.Name)
			}
			if diff := gocmp.Diff(test.want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// A folder that vanishes during the walk may have been renamed: it is looked at again,
// and not for ever.
func TestVanishing(t *testing.T) {
	s := newServer(t)
	st := create(t, s)
	put(t, st, "a/b", "x")
	n := 0
	s.fault = func(r *http.Request, _ int) fault {
		if r.Method == "PROPFIND" && strings.HasSuffix(r.URL.Path, "/a/") {
			if n++; n == 1 {
				return "404"
			}
		}
		return none
	}
	if list, err := st.List(t.Context(), ""); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v, want one object", list, err)
	}
	s.fault = func(r *http.Request, _ int) fault {
		if r.Method == "PROPFIND" && strings.HasSuffix(r.URL.Path, "/a/") {
			return "404"
		}
		return none
	}
	if list, err := st.List(t.Context(), ""); !errors.Is(err, store.ErrListing) {
		t.Errorf("got %v, %v, want ErrListing", list, err)
	}
}

func TestTLS(t *testing.T) {
	srv := httptest.NewTLSServer(newServer(t).handler)
	defer srv.Close()
	srv.Config.ErrorLog = nil
	st, err := webdav.New(webdav.Config{URL: srv.URL, Transport: web.NewTransport(nil)})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Put(t.Context(), "a", nil); !errors.Is(err, store.ErrUnreachable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v, want its certificate is not to be trusted", err)
	}
}

// The password is sent as it is, and to nobody else.
func TestSignIn(t *testing.T) {
	s := newServer(t)
	inner := s.handler
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "ann" || password != "pass:word" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	})
	put(t, create(t, s), "a", "x")
	c := webdav.Config{URL: folder, Password: secret.FromString("pass:word")}
	if text := fmt.Sprintf("%v %+v %#v %+v", c, c, c, open(t, s, folder)); strings.Contains(text, "pass:word") {
		t.Errorf("R19: %s", text)
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]webdav.Config{
		"webdav+https://ann@cloud.example.org/remote.php/dav/files/ann":      {URL: "https://cloud.example.org/remote.php/dav/files/ann", User: "ann"},
		"webdav+https://ann%40example.org@cloud.example.org/ann%27s%20files": {URL: "https://cloud.example.org/ann%27s%20files", User: "ann@example.org"},
		"webdav+https://cloud.example.org":                                   {URL: "https://cloud.example.org"},
		"webdav+http://ann@192.168.1.9:5005/dav":                             {URL: "http://192.168.1.9:5005/dav", User: "ann"},
	} {
		c, err := webdav.Parse(address)
		if err != nil || c.URL != want.URL || c.User != want.User {
			t.Errorf("%s: got %+v, %v, want %+v", address, c, err, want)
			continue
		}
		s, err := webdav.New(c)
		if err != nil {
			t.Errorf("%s: %v", address, err)
		} else if got := s.Address(); got != address {
			t.Errorf("got %s, want %s", got, address)
		}
	}
	for _, address := range []string{
		"", "webdav+", "https://cloud.example.org/", "webdav+ftp://cloud.example.org/", "webdav+https://", "webdav+https://ann:geheim@cloud.example.org/",
		"webdav+https://cloud.example.org/?x", "webdav+https://cloud.example.org/#x", "webdav+http://cloud.example.org/dav", "webdav+https://cloud.example.org/a/../b", "webdav+https:cloud",
		"webdav+https://a%3Ab@cloud.example.org/", "webdav+https://cloud.example.org/a//b",
	} {
		c, err := webdav.Parse(address)
		if err == nil {
			_, err = webdav.New(c)
		}
		if err == nil {
			t.Errorf("%s: no error", address)
		} else if strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: the error tells too much: %v", address, err)
		}
	}
}
