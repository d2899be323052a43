package onedrive_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/internal/cloudtest"
	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/onedrive"
)

func put(t *testing.T, s store.Store, name string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), name, data); err != nil {
		t.Fatalf("Put(%q): %v", name, err)
	}
}

func names(t *testing.T, s store.Store, prefix string) []string {
	t.Helper()
	list, err := s.List(t.Context(), prefix)
	if err != nil {
		t.Fatalf("List(%q): %v", prefix, err)
	}
	var all []string
	for _, o := range list {
		all = append(all, o.Name)
	}
	slices.Sort(all)
	return all
}

// What each call costs, as the package comment says.
func TestRequests(t *testing.T) {
	cloud, _, s := one(t)
	s.SetChunk(part)
	before := map[string]int{}
	check := func(what string, want map[string]int) {
		t.Helper()
		now := cloud.Counts()
		got := map[string]int{}
		for op, n := range now {
			if d := n - before[op]; d != 0 {
				got[strings.TrimPrefix(op, "onedrive.")] = d
			}
		}
		before = now
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	large := make([]byte, 2*part+1)
	put(t, s, "x/a", []byte("a"))
	check("the first call", map[string]int{"item": 1, "upload": 1})
	put(t, s, "x/b", []byte("b"))
	check("Put", map[string]int{"upload": 1})
	put(t, s, "x/b", []byte("b"))
	check("Put again", map[string]int{"upload": 1, "item": 1})
	if err := s.Put(t.Context(), "x/b", []byte("c")); !errors.Is(err, store.ErrExist) {
		t.Errorf("got %v, want ErrExist", err)
	}
	check("Put of other bytes", map[string]int{"upload": 1, "item": 1})
	put(t, s, "x/y/large", large)
	check("Put of a large object", map[string]int{"item": 1, "session": 1, "part": 3})
	put(t, s, "x/y/large", large)
	check("Put of a large object again", map[string]int{"item": 1})
	if _, err := s.Get(t.Context(), "x/y/large", "", 1<<20); err != nil {
		t.Error(err)
	}
	check("Get", map[string]int{"item": 1, "download": 1})
	list, err := s.List(t.Context(), "")
	if err != nil || len(list) != 3 {
		t.Errorf("got %v, %v", list, err)
	}
	check("List of three folders", map[string]int{"children": 3})
	names(t, s, "x/y/")
	check("List of one folder", map[string]int{"children": 1})
	cloud.PageSize = 2
	names(t, s, "x/a")
	check("List of two pages", map[string]int{"children": 2})
	for _, o := range list {
		if err := s.Delete(t.Context(), o); err != nil {
			t.Error(err)
		}
	}
	check("three Deletes", map[string]int{"delete": 3})
	names(t, s, "x/")
	check("List of an empty folder in a folder", map[string]int{"children": 2})
}

// Names that differ in case alone, or in letters that OneDrive takes for the same, are one.
func TestCase(t *testing.T) {
	_, _, s := one(t)
	put(t, s, "Dir/Mærsk", []byte("1"))
	put(t, s, "dir/MÆRSK", []byte("1"))
	put(t, s, "DIR/other", []byte("2"))
	for _, name := range []string{"dir/mærsk", "Dir/Maersk"} {
		if err := s.Put(t.Context(), name, []byte("2")); !errors.Is(err, store.ErrExist) {
			t.Errorf("%s: got %v, want ErrExist", name, err)
		}
	}
	if diff := cmp.Diff([]string{"Dir/Mærsk", "Dir/other"}, names(t, s, "")); diff != "" {
		t.Error(diff)
	}
}

// raw makes a request that the store does not make.
func raw(t *testing.T, cloud *fakecloud.Cloud, a *fakecloud.Account, method, rest, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, graph+"/me/drive/"+rest, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+cloud.Token(a))
	resp, err := cloud.Transport().RoundTrip(req)
	if err != nil || resp.StatusCode > 299 {
		t.Fatalf("got %v, %v", resp, err)
	}
}

// What OneDrive refuses in names is escaped, and others' files are left alone.
func TestNames(t *testing.T) {
	cloud, ann, s := one(t)
	all := []string{
		"desktop.ini", "CON", "con.age/x", "LPT1", "lpt1x", "COM", "~$a/~b", " leading", "a #%'() b", "x_VTI_y", "__vti__", "a=b", "=41", "😀", "100%41", "a+b&c@d=e",
	}
	for i, name := range all {
		put(t, s, name, fmt.Append(nil, i))
	}
	raw(t, cloud, ann, "PUT", "special/approot:/=41:/content", "foreign")
	raw(t, cloud, ann, "PUT", "special/approot:/.hidden/x:/content", "foreign")
	slices.Sort(all)
	if diff := cmp.Diff(all, names(t, s, "")); diff != "" {
		t.Error(diff)
	}
	for i, name := range all {
		if _, err := s.Get(t.Context(), name, "", 100); err != nil {
			t.Errorf("%d: %q: %v", i, name, err)
		}
	}
}

// A folder in the place of an object, and an object in the place of a folder, are told.
func TestInTheWay(t *testing.T) {
	_, _, s := one(t)
	put(t, s, "a/b", []byte("1"))
	if err := s.Put(t.Context(), "a", []byte("1")); !errors.Is(err, store.ErrExist) {
		t.Errorf("got %v, want ErrExist", err)
	}
	if err := s.Put(t.Context(), "a/b/c", []byte("1")); err == nil {
		t.Error("an object below an object: no error")
	}
	if diff := cmp.Diff([]string{"a/b"}, names(t, s, "")); diff != "" {
		t.Error(diff)
	}
}

// An upload goes on also if it could not be asked for a while how far it is.
func TestStatusUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud, _, s := one(t)
		s.SetChunk(part)
		parts, away := 0, true
		cloud.Fault = func(op string, _ *http.Request) fakecloud.Fault {
			switch {
			case op == "onedrive.part":
				if parts++; parts == 2 {
					return fakecloud.CutApplied
				}
			case op == "onedrive.status" && away:
				return fakecloud.Cut
			}
			return fakecloud.None
		}
		data := make([]byte, 3*part)
		if err := s.Put(t.Context(), "a", data); !errors.Is(err, store.ErrUnreachable) {
			t.Errorf("got %v, want ErrUnreachable", err)
		}
		parts, away = 10, false
		put(t, s, "a", data)
		if parts != 12 {
			t.Errorf("sent %d parts again, want 1, and the last", parts-10)
		}
	})
}

// A folder is not deleted for an object, nor what was written over it since.
func TestDelete(t *testing.T) {
	cloud, ann, s := one(t)
	put(t, s, "a/b", []byte("1"))
	if err := s.Delete(t.Context(), store.Object{Name: "a"}); err != nil {
		t.Errorf("deleting what is a folder: %v", err)
	}
	if err := s.Delete(t.Context(), store.Object{Name: "x/../a/b"}); err == nil {
		t.Error("deleting by a name that is none: no error")
	}
	list, err := s.List(t.Context(), "")
	if err != nil || len(list) != 1 {
		t.Fatalf("got %v, %v, want one object", list, err)
	}
	if err := s.Delete(t.Context(), store.Object{Name: "a/b"}); err != nil {
		t.Error(err)
	}
	put(t, s, "a/b", []byte("2"))
	if err := s.Delete(t.Context(), list[0]); err != nil {
		t.Errorf("deleting what is gone: %v", err)
	}
	if list, err = s.List(t.Context(), ""); err != nil || len(list) != 1 {
		t.Fatalf("another file was deleted: %v, %v", list, err)
	}
	cloud.OneDriveOverwrite(ann, "a/b", []byte("3"))
	if err := s.Delete(t.Context(), list[0]); err != nil {
		t.Errorf("deleting what was written over: %v", err)
	}
	if got, err := s.Get(t.Context(), "a/b", "", 10); err != nil || string(got) != "3" {
		t.Errorf("another program's bytes were deleted: %q, %v", got, err)
	}
}

func TestModified(t *testing.T) {
	cloud, _, s := one(t)
	now := time.Date(2026, 11, 26, 5, 0, 0, 0, time.UTC)
	cloud.Now = func() time.Time { return now }
	put(t, s, "a", nil)
	if list, err := s.List(t.Context(), ""); err != nil || len(list) != 1 || !list[0].Modified.Equal(now) {
		t.Errorf("got %v, %v, want %v", list, err, now)
	}
}

// A folder that goes while a listing is read takes along what was in it.
func TestListingFolderGone(t *testing.T) {
	cloud, ann, s := one(t)
	for _, name := range []string{"a/1", "a/2", "b/1", "b/2", "c"} {
		put(t, s, name, nil)
	}
	var once sync.Once
	cloud.Fault = func(op string, r *http.Request) fakecloud.Fault {
		if op == "onedrive.children" && strings.Contains(r.URL.Path, "items") {
			once.Do(func() { raw(t, cloud, ann, "DELETE", "special/approot:/a", "") })
		}
		return fakecloud.None
	}
	one := names(t, s, "")
	// The two folders are read at once: which one is read first is open.
	if want := []string{"b/1", "b/2", "c"}; !cmp.Equal(one, want) && !cmp.Equal(one, append([]string{"a/1", "a/2"}, want...)) {
		t.Errorf("got %v, want %v", one, want)
	}
	if diff := cmp.Diff([]string{"b/1", "b/2", "c"}, names(t, s, "")); diff != "" {
		t.Error(diff)
	}
}

// between carries requests and may answer them itself.
type between struct {
	inner http.RoundTripper
	say   func(req *http.Request) (status int, body string) // 0: the cloud answers
	edit  func(body []byte) []byte
}

func (b between) RoundTrip(req *http.Request) (*http.Response, error) {
	if b.say != nil {
		if status, body := b.say(req); status != 0 {
			return &http.Response{
				StatusCode: status, Header: http.Header{}, Request: req, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
			}, nil
		}
	}
	resp, err := b.inner.RoundTrip(req)
	if err == nil && b.edit != nil {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, err
		}
		body = b.edit(body)
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	return resp, err
}

func openOver(t *testing.T, b between) (*fakecloud.Cloud, *onedrive.Store) {
	t.Helper()
	cloud := fakecloud.New()
	ann := cloud.AddAccount("1001", "ann@example.org")
	b.inner = cloud.Transport()
	return cloud, open(t, cloud, cloudtest.NewSignIn(cloud, ann), ann, onedrive.Config{Transport: b, Graph: graph})
}

func isAccount(req *http.Request) bool {
	return req.Method == "GET" && strings.HasSuffix(req.URL.Path, "/special/approot")
}

// A next page is asked for at Graph only: the token goes along.
func TestNextElsewhere(t *testing.T) {
	for _, elsewhere := range []string{"https://evil.test/v1.0", "http://graph.test/v1.0", "https://graph.test:444/v1.0", "https://graph.test@evil.test/v1.0", "//evil.test/v1.0", "https://graph.test/beta"} {
		var mu sync.Mutex
		var seen []string
		cloud, s := openOver(t, between{
			say: func(req *http.Request) (int, string) {
				mu.Lock()
				defer mu.Unlock()
				if req.URL.Scheme+"://"+req.URL.Host != "https://graph.test" || strings.HasPrefix(req.URL.Path, "/beta") {
					seen = append(seen, req.URL.String())
				}
				return 0, ""
			},
			edit: func(body []byte) []byte {
				return bytes.ReplaceAll(body, []byte(`"@odata.nextLink":"`+graph), []byte(`"@odata.nextLink":"`+elsewhere))
			},
		})
		cloud.PageSize = 1
		put(t, s, "a", nil)
		put(t, s, "b", nil)
		if list, err := s.List(t.Context(), ""); !errors.Is(err, store.ErrListing) || list != nil {
			t.Errorf("%s: got %v, %v, want ErrListing", elsewhere, list, err)
		}
		if seen != nil {
			t.Errorf("%s: requests to %v", elsewhere, seen)
		}
	}
}

// Addresses that are permissions get no token, and none is used that leaves TLS.
func TestAddresses(t *testing.T) {
	const from = `"https://graph.test/`
	for _, test := range []struct {
		to string
		ok bool
	}{
		{`"https://other.test/`, true},
		{`"http://graph.test/`, false},
		{`"https:///`, false},
		{`"/`, false},
		{`"https://user@graph.test/`, false},
	} {
		var tokens []string
		_, s := openOver(t, between{
			say: func(req *http.Request) (int, string) {
				if !strings.HasPrefix(req.URL.Path, "/v1.0/") && req.Header.Get("Authorization") != "" {
					tokens = append(tokens, req.URL.String())
				}
				return 0, ""
			},
			edit: func(body []byte) []byte { return bytes.ReplaceAll(body, []byte(from), []byte(test.to)) },
		})
		put(t, s, "a", []byte("small"))
		s.SetChunk(part)
		_, getErr := s.Get(t.Context(), "a", "", 10)
		for what, err := range map[string]error{"Get": getErr, "Put": s.Put(t.Context(), "large", make([]byte, part+1))} {
			if test.ok != (err == nil) || err != nil && !errors.Is(err, store.ErrUnreachable) {
				t.Errorf("%s, %s: got %v", test.to, what, err)
			}
		}
		if tokens != nil {
			t.Errorf("%s: the token went to %v", test.to, tokens)
		}
	}
}

// An address of bytes that counts no more is asked for anew.
func TestAddressRanOut(t *testing.T) {
	for _, status := range []int{401, 403, 404, 410} {
		n := 0
		_, s := openOver(t, between{say: func(req *http.Request) (int, string) {
			if strings.HasPrefix(req.URL.Path, "/dl/") {
				if n++; n == 1 || n > 2 {
					return status, ""
				}
			}
			return 0, ""
		}})
		put(t, s, "a", []byte("1"))
		if got, err := s.Get(t.Context(), "a", "", 10); err != nil || string(got) != "1" {
			t.Errorf("%d: got %q, %v", status, got, err)
		}
		if _, err := s.Get(t.Context(), "a", "", 10); !errors.Is(err, store.ErrUnreachable) || errors.Is(err, store.ErrNotExist) {
			t.Errorf("%d: got %v, want ErrUnreachable", status, err)
		}
		if n != 4 {
			t.Errorf("%d: asked %d times, want 4", status, n)
		}
	}
}

var quickXor = regexp.MustCompile(`"hashes":\{"quickXorHash":"[^"]*"\}`)

// Whatever hashes an account has, the same bytes again are fine and others are not.
func TestHashes(t *testing.T) {
	data, other := []byte("the bytes"), []byte("The bytes")
	one, two := sha1.Sum(data), sha256.Sum256(data)
	for _, hashes := range []string{
		`"hashes":{}`, `"mime":"x"`, `"hashes":{"sha1Hash":"` + strings.ToUpper(hex.EncodeToString(one[:])) + `"}`,
		`"hashes":{"sha256Hash":"` + hex.EncodeToString(two[:]) + `","sha1Hash":"00"}`,
	} {
		_, s := openOver(t, between{edit: func(body []byte) []byte { return quickXor.ReplaceAll(body, []byte(hashes)) }})
		put(t, s, "a", data)
		put(t, s, "a", data)
		for _, not := range [][]byte{other, data[:5], nil} {
			if err := s.Put(t.Context(), "a", not); !errors.Is(err, store.ErrExist) {
				t.Errorf("%s: Put of %q: got %v, want ErrExist", hashes, not, err)
			}
		}
		if got, err := s.Get(t.Context(), "a", store.Sum(data), 10); err != nil || string(got) != string(data) {
			t.Errorf("%s: got %q, %v", hashes, got, err)
		}
	}
}

// Bytes that are not those of which OneDrive tells are not taken, nor an upload of which
// it tells something else.
func TestDamaged(t *testing.T) {
	_, s := openOver(t, between{edit: func(body []byte) []byte {
		return bytes.ReplaceAll(body, []byte("the bytes"), []byte("The bytes"))
	}})
	put(t, s, "a", []byte("the bytes"))
	for _, want := range []store.Hash{"", store.Sum([]byte("the bytes")), store.Sum([]byte("The bytes"))} {
		if got, err := s.Get(t.Context(), "a", want, 100); !errors.Is(err, store.ErrDamaged) || got != nil {
			t.Errorf("hash %q: got %q, %v, want ErrDamaged", want, got, err)
		}
	}
	_, s = openOver(t, between{edit: func(body []byte) []byte {
		return quickXor.ReplaceAll(body, []byte(`"hashes":{"quickXorHash":"AAAA"}`))
	}})
	if err := s.Put(t.Context(), "a", []byte("1")); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}

// A folder on the way that two make at once is no conflict of the object.
func TestFolderMadeTwice(t *testing.T) {
	n, most := 0, 1
	_, s := openOver(t, between{say: func(req *http.Request) (int, string) {
		if req.Method == "PUT" {
			if n++; n <= most {
				return 409, `{"error":{"code":"nameAlreadyExists","message":""}}`
			}
		}
		return 0, ""
	}})
	put(t, s, "a/b", []byte("1"))
	n, most = 0, 100
	if err := s.Put(t.Context(), "a/c", []byte("1")); !errors.Is(err, store.ErrUnreachable) || n != 3 {
		t.Errorf("got %v after %d requests, want ErrUnreachable after 3", err, n)
	}
}

// Others' writes at this moment are waited for, in whatever words.
func TestBusyWrites(t *testing.T) {
	for _, said := range []struct {
		status int
		code   string
	}{{423, "resourceLocked"}, {509, "x"}, {409, "resourceModified"}, {403, "activityLimitReached"}, {503, "serviceNotAvailable"}} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			_, s := openOver(t, between{say: func(req *http.Request) (int, string) {
				if req.Method == "PUT" {
					if n++; n < 3 {
						return said.status, `{"error":{"code":"` + said.code + `"}}`
					}
				}
				return 0, ""
			}})
			put(t, s, "a", []byte("1"))
			if n != 3 {
				t.Errorf("%v: asked %d times, want 3", said, n)
			}
		})
	}
}

// Whatever a server says, the error is the right one and holds none of its text.
func TestRefusals(t *testing.T) {
	const secret = "secret text"
	for _, test := range []struct {
		status int
		body   string
		want   error // nil: some error, and none of the store's
	}{
		{401, `{"error":{"code":"InvalidAuthenticationToken","message":"secret text"}}`, store.ErrSignIn},
		{401, `secret text`, store.ErrSignIn},
		{400, `{"error":{"code":"invalidRequest","message":"secret text"}}`, nil},
		{400, `secret text`, store.ErrUnreachable},
		{403, `{"error":{"code":"accessDenied","message":"secret text"}}`, nil},
		{403, `{"error":{"code":"quotaLimitReached"}}`, store.ErrFull},
		{507, `{"error":{"code":"quotaLimitReached"}}`, store.ErrFull},
		{507, ``, store.ErrFull},
		{404, "secret text", store.ErrUnreachable},
		{404, `{"error":{"code":"resourceNotFound"}}`, nil},
		{302, "", store.ErrUnreachable},
		{501, `{"error":{"code":"notSupported"}}`, store.ErrUnreachable},
		{409, "secret text", store.ErrUnreachable},
		{409, `{"error":{"code":"secret text"}}`, nil},
		{409, `{"error":{"code":5}}`, store.ErrUnreachable},
		{409, `{"error":null}`, store.ErrUnreachable},
	} {
		_, s := openOver(t, between{say: func(req *http.Request) (int, string) {
			if isAccount(req) {
				return 0, ""
			}
			return test.status, test.body
		}})
		ctx := t.Context()
		small := s.Put(ctx, "a", nil)
		s.SetChunk(2)
		_, getErr := s.Get(ctx, "a", "", 10)
		_, listErr := s.List(ctx, "")
		for what, err := range map[string]error{
			"Put": small, "Put large": s.Put(ctx, "a", []byte("12345")), "Get": getErr, "List": listErr, "Delete": s.Delete(ctx, store.Object{ID: "1 2"}),
		} {
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("%d %s, %s: got %v, want %v", test.status, test.body, what, err, test.want)
				continue
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%d %s, %s: the error holds the server's text: %v", test.status, test.body, what, err)
			}
			for _, no := range []error{store.ErrNotExist, store.ErrExist, store.ErrDamaged, store.ErrTooLarge, store.ErrUnreachable, store.ErrSignIn, store.ErrFull} {
				if errors.Is(err, no) && !errors.Is(test.want, no) {
					t.Errorf("%d %s, %s: got %v, want %v", test.status, test.body, what, err, test.want)
				}
			}
		}
	}
}

// An answer that says nothing is not taken for a yes.
func TestEmptyAnswers(t *testing.T) {
	ctx := t.Context()
	for _, body := range []string{"", "null", "{}", "[]", "true", `"x"`, `{"value":null}`, `{"id":"x"}`, `{"nextExpectedRanges":[]}`, strings.Repeat(" ", 9<<20) + "{}"} {
		_, s := openOver(t, between{say: func(req *http.Request) (int, string) {
			if isAccount(req) || req.Method == "POST" {
				return 0, ""
			}
			return 200, body
		}})
		small := s.Put(ctx, "a", nil)
		s.SetChunk(2)
		got, getErr := s.Get(ctx, "a", "", 10)
		list, listErr := s.List(ctx, "")
		for what, err := range map[string]error{
			"Put": small, "Put large": s.Put(ctx, "a", []byte("12345")), "Get": getErr, "List": listErr, "Delete": s.Delete(ctx, store.Object{ID: "1 2"}),
		} {
			if body == `{"id":"x"}` && (what == "Get" && errors.Is(err, store.ErrNotExist) || what == "Put large" && errors.Is(err, store.ErrExist)) {
				continue // Something is there which is no file.
			}
			if !errors.Is(err, store.ErrUnreachable) || errors.Is(err, store.ErrTooLarge) || got != nil || list != nil {
				t.Errorf("%.20q, %s: got %v, want ErrUnreachable", body, what, err)
			}
		}
	}
}

// A server that wants nonsense of an upload, or for ever the same, gets no storm.
func TestRanges(t *testing.T) {
	for _, next := range []string{`[]`, `null`, `["-1-"]`, `["0-"]`, `["1-"]`, `["5-"]`, `["4-2","0-"]`, `["99999999999999999999-"]`, `["x"]`, `[5]`} {
		for _, status := range []int{202, 416} {
			n := 0
			_, s := openOver(t, between{say: func(req *http.Request) (int, string) {
				if !strings.HasPrefix(req.URL.Path, "/up/") {
					return 0, ""
				}
				n++
				if req.Method == "PUT" {
					return status, `{"error":{"code":"invalidRange"},"nextExpectedRanges":` + next + `}`
				}
				return 200, `{"nextExpectedRanges":` + next + `}`
			}})
			s.SetChunk(2)
			if err := s.Put(t.Context(), "a", []byte("12345")); !errors.Is(err, store.ErrUnreachable) {
				t.Errorf("%s, %d: got %v, want ErrUnreachable", next, status, err)
			}
			if n > 80 {
				t.Errorf("%s, %d: %d requests", next, status, n)
			}
		}
	}
}

// The hash is that of Microsoft's documentation, which is bit by bit.
func TestQuickXor(t *testing.T) {
	slow := func(data []byte) string {
		h, all := new(big.Int), new(big.Int).Lsh(big.NewInt(1), 160)
		for i, b := range data {
			v := new(big.Int).Lsh(big.NewInt(int64(b)), uint(i*11%160))
			high := new(big.Int).Rsh(v, 160)
			h.Xor(h, v.Mod(v, all)).Xor(h, high)
		}
		h.Xor(h, new(big.Int).Lsh(big.NewInt(int64(len(data))), 96))
		out := h.FillBytes(make([]byte, 20))
		slices.Reverse(out)
		return base64.StdEncoding.EncodeToString(out)
	}
	data := make([]byte, 1000)
	for i := range data {
		data[i] = byte(i*i + 7*i + 200)
	}
	for _, n := range []int{0, 1, 14, 15, 16, 159, 160, 161, 320, 1000} {
		if got, want := onedrive.QuickXor(data[:n]), slow(data[:n]); got != want {
			t.Errorf("%d bytes: got %s, want %s", n, got, want)
		}
	}
	if got, want := onedrive.QuickXor(nil), "AAAAAAAAAAAAAAAAAAAAAAAAAAA="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The account is the drive, shown by its owner's name where that is told.
func TestAccount(t *testing.T) {
	cloud := fakecloud.New()
	in := cloudtest.NewSignIn(cloud, cloud.AddAccount("1001", "ann@example.org"))
	for _, test := range []struct {
		drive string
		me    int
		name  string
	}{{"0d1001", 0, "ann@example.org"}, {"0D1001", 0, "ann@example.org"}, {"d1001", 403, ""}} {
		c := web.New(web.Config{Tokens: in, Transport: between{
			inner: cloud.Transport(),
			say: func(req *http.Request) (int, string) {
				if strings.HasSuffix(req.URL.Path, "/me") && test.me != 0 {
					return test.me, `{"error":{"code":"accessDenied"}}`
				}
				return 0, ""
			},
			edit: func(body []byte) []byte { return bytes.ReplaceAll(body, []byte("0d1001"), []byte(test.drive)) },
		}})
		if id, name, err := onedrive.Account(t.Context(), c); err != nil || id != "d1001" || name != test.name {
			t.Errorf("%v: got %q, %q, %v", test, id, name, err)
		}
	}
}

func TestConfig(t *testing.T) {
	cloud := fakecloud.New()
	in := cloudtest.NewSignIn(cloud, cloud.AddAccount("1001", "ann@example.org"))
	for _, c := range []onedrive.Config{{}, {Tokens: in, Folder: "../x"}, {Tokens: in, Folder: "/x"}} {
		if _, err := onedrive.New(c); err == nil {
			t.Errorf("%q: no error", c.Folder)
		}
	}
	if n := len(cloud.Counts()); n != 0 {
		t.Errorf("New made requests: %v", cloud.Counts())
	}
}
