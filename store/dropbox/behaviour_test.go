package dropbox_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/internal/cloudtest"
	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/dropbox"
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
	s.SetChunk(1 << 10)
	before := map[string]int{}
	check := func(what string, want map[string]int) {
		t.Helper()
		now := cloud.Counts()
		got := map[string]int{}
		for op, n := range now {
			if d := n - before[op]; d != 0 {
				got[strings.TrimPrefix(op, "dropbox.")] = d
			}
		}
		before = now
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	put(t, s, "x/a", []byte("a"))
	check("the first call", map[string]int{"account": 1, "upload": 1})
	put(t, s, "x/b", []byte("b"))
	check("Put", map[string]int{"upload": 1})
	put(t, s, "x/b", []byte("b"))
	check("Put again", map[string]int{"upload": 1})
	if err := s.Put(t.Context(), "x/b", []byte("c")); !errors.Is(err, store.ErrExist) {
		t.Errorf("got %v, want ErrExist", err)
	}
	check("Put of other bytes", map[string]int{"upload": 1, "metadata": 1})
	put(t, s, "x/large", make([]byte, 4<<10))
	check("Put of a large object", map[string]int{"metadata": 1, "start": 1, "append": 2, "finish": 1})
	put(t, s, "x/large", make([]byte, 4<<10))
	check("Put of a large object again", map[string]int{"metadata": 1})
	if _, err := s.Get(t.Context(), "x/large", "", 1<<20); err != nil {
		t.Error(err)
	}
	check("Get", map[string]int{"download": 1})
	list, err := s.List(t.Context(), "")
	if err != nil || len(list) != 3 {
		t.Errorf("got %v, %v", list, err)
	}
	check("List", map[string]int{"list": 1})
	cloud.PageSize = 2
	names(t, s, "x/")
	check("List of two pages", map[string]int{"list": 1, "continue": 1})
	if err := s.Delete(t.Context(), list[0]); err != nil {
		t.Error(err)
	}
	check("Delete", map[string]int{"delete": 1})
}

// Names that differ in case alone are one.
func TestCase(t *testing.T) {
	_, _, s := one(t)
	put(t, s, "Dir/Name", []byte("1"))
	put(t, s, "dir/NAME", []byte("1"))
	put(t, s, "DIR/other", []byte("2"))
	if err := s.Put(t.Context(), "dir/name", []byte("2")); !errors.Is(err, store.ErrExist) {
		t.Errorf("got %v, want ErrExist", err)
	}
	if diff := cmp.Diff([]string{"Dir/Name", "Dir/other"}, names(t, s, "")); diff != "" {
		t.Error(diff)
	}
	if got, err := s.Get(t.Context(), "dir/nAmE", "", 10); err != nil || string(got) != "1" {
		t.Errorf("got %q, %v", got, err)
	}
}

// Names are in normal form C there.
func TestNormalForm(t *testing.T) {
	_, _, s := one(t)
	put(t, s, "Zoe\u0308", []byte("1"))
	put(t, s, "Zo\u00eb", []byte("1"))
	if diff := cmp.Diff([]string{"Zo\u00eb"}, names(t, s, "")); diff != "" {
		t.Error(diff)
	}
}

// raw makes a request that the store does not make.
func raw(t *testing.T, cloud *fakecloud.Cloud, a *fakecloud.Account, route, arg, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", host+"/2/"+route, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+cloud.Token(a))
	req.Header.Set("Dropbox-API-Arg", arg)
	resp, err := cloud.Transport().RoundTrip(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("got %v, %v", resp, err)
	}
}

// What Dropbox refuses in names is escaped, and others' files are left alone.
func TestNames(t *testing.T) {
	cloud, ann, s := one(t)
	all := []string{"desktop.ini", "Thumbs.db/x", "~$a/~b.tmp", "😀 and =F0", "a=b", "~ordinary", "with space/ x"}
	for i, name := range all {
		put(t, s, name, fmt.Append(nil, i))
	}
	raw(t, cloud, ann, "files/upload", `{"path":"/=41"}`, "foreign")
	raw(t, cloud, ann, "files/upload", `{"path":"/.hidden/x"}`, "foreign")
	slices.Sort(all)
	if diff := cmp.Diff(all, names(t, s, "")); diff != "" {
		t.Error(diff)
	}
	if err := s.Put(t.Context(), strings.Repeat("😀", 60), nil); err == nil || errors.Is(err, store.ErrExist) || errors.Is(err, store.ErrUnreachable) {
		t.Errorf("got %v, want that the name is not usable", err)
	}
}

// A listing that Dropbox loses is begun again, and not for ever.
func TestListingLost(t *testing.T) {
	cloud, ann, s := one(t)
	want := []string{"a/1", "a/2", "a/3", "b"}
	for _, name := range want {
		put(t, s, name, []byte(name))
	}
	cloud.PageSize = 2
	lost := 0
	cloud.Fault = func(op string, _ *http.Request) fakecloud.Fault {
		if op == "dropbox.continue" && lost > 0 {
			lost--
			cloud.ForgetListings(ann)
		}
		return fakecloud.None
	}
	lost = 1
	if diff := cmp.Diff(want, names(t, s, "")); diff != "" {
		t.Error(diff)
	}
	lost = 100
	before := cloud.Counts()["dropbox.list"]
	if list, err := s.List(t.Context(), ""); !errors.Is(err, store.ErrListing) || list != nil {
		t.Errorf("got %v, %v, want ErrListing", list, err)
	}
	if n := cloud.Counts()["dropbox.list"] - before; n != 3 {
		t.Errorf("begun %d times, want 3", n)
	}
}

// What changes while a listing is read is told by it.
func TestListingChanges(t *testing.T) {
	cloud, ann, s := one(t)
	for i := range 6 {
		put(t, s, fmt.Sprint("a/", i), nil)
	}
	list, err := s.List(t.Context(), "a/0")
	if err != nil || len(list) != 1 {
		t.Fatalf("got %v, %v", list, err)
	}
	late, err := s.List(t.Context(), "a/5")
	if err != nil || len(late) != 1 {
		t.Fatalf("got %v, %v", late, err)
	}
	cloud.PageSize = 3
	other := open(t, cloud, cloudtest.NewSignIn(cloud, ann), ann, dropbox.Config{})
	done := false
	cloud.Fault = func(op string, _ *http.Request) fakecloud.Fault {
		if op == "dropbox.continue" && !done {
			done = true
			for _, o := range slices.Concat(list, late) {
				if err := other.Delete(t.Context(), o); err != nil {
					t.Error(err)
				}
			}
			put(t, other, "a/9", nil)
		}
		return fakecloud.None
	}
	if diff := cmp.Diff([]string{"a/1", "a/2", "a/3", "a/4", "a/9"}, names(t, s, "a/")); diff != "" {
		t.Error(diff)
	}
}

// A folder that goes while a listing is read takes along what was in it.
func TestListingFolderGone(t *testing.T) {
	cloud, ann, s := one(t)
	for _, name := range []string{"a/1", "a/2", "b/1", "b/2"} {
		put(t, s, name, nil)
	}
	cloud.PageSize = 4
	cloud.Fault = func(op string, _ *http.Request) fakecloud.Fault {
		if op == "dropbox.continue" {
			cloud.Fault = nil
			raw(t, cloud, ann, "files/delete_v2", `{"path":"/a"}`, "")
		}
		return fakecloud.None
	}
	if diff := cmp.Diff([]string{"b/1", "b/2"}, names(t, s, "")); diff != "" {
		t.Error(diff)
	}
}

// A folder in the place of an object, and an object in the place of a folder, are told.
func TestInTheWay(t *testing.T) {
	_, _, s := one(t)
	put(t, s, "a/b", []byte("1"))
	for _, chunk := range []int{8, 2} {
		s.SetChunk(chunk)
		if err := s.Put(t.Context(), "a", []byte("12345")); !errors.Is(err, store.ErrExist) {
			t.Errorf("got %v, want ErrExist", err)
		}
		if err := s.Put(t.Context(), "a/b/c", []byte("12345")); err == nil {
			t.Error("an object below an object: no error")
		}
	}
	if diff := cmp.Diff([]string{"a/b"}, names(t, s, "")); diff != "" {
		t.Error(diff)
	}
}

// A folder is not deleted for an object, nor a file that was put since.
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
	cloud.DropboxOverwrite(ann, "/a/b", []byte("3"))
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

func openOver(t *testing.T, b between) (*fakecloud.Cloud, *dropbox.Store) {
	t.Helper()
	cloud := fakecloud.New()
	ann := cloud.AddAccount("1001", "ann@example.org")
	b.inner = cloud.Transport()
	return cloud, open(t, cloud, cloudtest.NewSignIn(cloud, ann), ann, dropbox.Config{Transport: b, API: host, Content: host})
}

// Of the path for display only the last element is told to be right.
func TestDisplay(t *testing.T) {
	_, s := openOver(t, between{edit: func(body []byte) []byte {
		return bytes.ReplaceAll(body, []byte(`"path_display":"/Top/Mid/`), []byte(`"path_display":"/top/mid/`))
	}})
	put(t, s, "Top/Mid/File", nil)
	for _, prefix := range []string{"", "Top/", "Top/Mid/", "Top/Mid/F"} {
		if diff := cmp.Diff([]string{"Top/Mid/File"}, names(t, s, prefix)); diff != "" {
			t.Errorf("prefix %q: %s", prefix, diff)
		}
	}
}

// Others' writes at this moment are waited for.
func TestBusyWrites(t *testing.T) {
	const said = `{"error_summary":"too_many_write_operations/..","error":{".tag":"too_many_write_operations"}}`
	const inPath = `{"error_summary":"path/too_many_write_operations/..","error":{".tag":"path","reason":{".tag":"too_many_write_operations"},"upload_session_id":"x"}}`
	for route, body := range map[string]string{"files/upload": inPath, "files/delete_v2": said} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			_, s := openOver(t, between{say: func(req *http.Request) (int, string) {
				if strings.HasSuffix(req.URL.Path, route) {
					if n++; n < 3 {
						return 409, body
					}
				}
				return 0, ""
			}})
			put(t, s, "a", []byte("1"))
			if err := s.Delete(t.Context(), store.Object{Name: "a"}); err != nil {
				t.Errorf("%s: %v", route, err)
			}
			if n != 3 {
				t.Errorf("%s: asked %d times, want 3", route, n)
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
		{401, `{"error_summary":"missing_scope/..","error":{".tag":"missing_scope","required_scope":"secret text"}}`, store.ErrSignIn},
		{401, `secret text`, store.ErrSignIn},
		{400, "secret text", nil},
		{403, `{"error_summary":"access_error/..","error":{".tag":"invalid_account_type"}}`, nil},
		{404, "secret text", store.ErrUnreachable},
		{302, "", store.ErrUnreachable},
		{204, "", store.ErrUnreachable},
		{409, "secret text", store.ErrUnreachable},
		{409, `{"error":null}`, store.ErrUnreachable},
		{409, `{"error":{".tag":5}}`, store.ErrUnreachable},
		{409, `{"error":{".tag":"secret text"}}`, nil},
		{409, `{"error":{".tag":"path","path":{".tag":"malformed_path","malformed_path":"secret text"}}}`, nil},
		{409, `{"error":{".tag":"path","path":{".tag":"restricted_content"}}}`, nil},
		{409, `{"error":{".tag":"path","reason":{".tag":"insufficient_space"}}}`, store.ErrFull},
		{409, `{"error":{".tag":"other"}}`, nil},
		{409, `{"error":{".tag":"a","a":{".tag":"a","a":` + strings.Repeat(`{".tag":"a","a":`, 50) + "{}" + strings.Repeat("}", 52) + "}", store.ErrUnreachable},
	} {
		_, s := openOver(t, between{say: func(req *http.Request) (int, string) {
			if strings.HasSuffix(req.URL.Path, "get_current_account") {
				return 0, ""
			}
			return test.status, test.body
		}})
		s.SetChunk(2)
		ctx := t.Context()
		_, getErr := s.Get(ctx, "a", "", 10)
		_, listErr := s.List(ctx, "")
		for what, err := range map[string]error{
			"Put": s.Put(ctx, "a", nil), "Put large": s.Put(ctx, "a", []byte("12345")), "Get": getErr, "List": listErr, "Delete": s.Delete(ctx, store.Object{ID: "id:1 2"}),
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
	for _, body := range []string{"", "null", "{}", "[]", "true", `"x"`, `{"entries":[]}`, `{".tag":"file"}`, strings.Repeat(" ", 9<<20) + "{}"} {
		_, s := openOver(t, between{say: func(req *http.Request) (int, string) {
			if strings.HasSuffix(req.URL.Path, "get_current_account") || strings.HasSuffix(req.URL.Path, "start") {
				return 0, ""
			}
			if strings.HasSuffix(req.URL.Path, "get_metadata") {
				return 409, `{"error":{".tag":"path","path":{".tag":"not_found"}}}`
			}
			return 200, body
		}})
		_, getErr := s.Get(ctx, "a", "", 10)
		_, listErr := s.List(ctx, "")
		small := s.Put(ctx, "a", nil)
		s.SetChunk(2)
		for what, err := range map[string]error{
			"Put": small, "Put large": s.Put(ctx, "a", []byte("12345")), "Get": getErr, "List": listErr, "Delete": s.Delete(ctx, store.Object{ID: "id:1 2"}),
		} {
			if what == "Get" && errors.Is(err, store.ErrTooLarge) && len(body) > 1<<20 {
				continue // It may be the object.
			}
			if !errors.Is(err, store.ErrUnreachable) || errors.Is(err, store.ErrTooLarge) {
				t.Errorf("%.20q, %s: got %v, want ErrUnreachable", body, what, err)
			}
		}
	}
}

// Who is told of a conflict though the same bytes are there, looks.
func TestSameAfterConflict(t *testing.T) {
	there := false
	_, s := openOver(t, between{say: func(req *http.Request) (int, string) {
		if there && strings.HasSuffix(req.URL.Path, "files/upload") {
			return 409, `{"error":{".tag":"path","reason":{".tag":"conflict","conflict":{".tag":"file"}}}}`
		}
		return 0, ""
	}})
	put(t, s, "a", []byte("1"))
	there = true
	put(t, s, "a", []byte("1"))
	if err := s.Put(t.Context(), "a", []byte("2")); !errors.Is(err, store.ErrExist) {
		t.Errorf("got %v, want ErrExist", err)
	}
	if err := s.Put(t.Context(), "absent", []byte("2")); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}

// What is uploaded and found no room is not uploaded again.
func TestFullAtTheEnd(t *testing.T) {
	cloud, ann, s := one(t)
	s.SetChunk(1 << 10)
	ann.Quota = 100
	if err := s.Put(t.Context(), "a", make([]byte, 10<<10)); !errors.Is(err, store.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	ann.Quota = 0
	sent := int64(0)
	cloud.Fault = func(_ string, r *http.Request) fakecloud.Fault {
		sent += r.ContentLength
		return fakecloud.None
	}
	put(t, s, "a", make([]byte, 10<<10))
	if sent > 200 {
		t.Errorf("sent %d bytes again", sent)
	}
}

// A server that corrects the offset to nonsense, or for ever, gets no storm.
func TestOffsets(t *testing.T) {
	for _, offset := range []string{"-1", "0", "1", "5", "99999999999", `"x"`, "1e3"} {
		n := 0
		_, s := openOver(t, between{say: func(req *http.Request) (int, string) {
			if strings.Contains(req.URL.Path, "upload_session") && !strings.HasSuffix(req.URL.Path, "start") {
				n++
				lookup := fmt.Sprintf(`{".tag":"incorrect_offset","correct_offset":%s}`, offset)
				if strings.HasSuffix(req.URL.Path, "finish") {
					lookup = `{".tag":"lookup_failed","lookup_failed":` + lookup + "}"
				}
				return 409, `{"error":` + lookup + "}"
			}
			return 0, ""
		}})
		s.SetChunk(2)
		if err := s.Put(t.Context(), "a", []byte("12345")); !errors.Is(err, store.ErrUnreachable) {
			t.Errorf("offset %s: got %v, want ErrUnreachable", offset, err)
		}
		if n > 40 {
			t.Errorf("offset %s: %d requests", offset, n)
		}
	}
}

// Bytes that are not those of which Dropbox tells are not taken.
func TestGetDamaged(t *testing.T) {
	_, s := openOver(t, between{edit: func(body []byte) []byte {
		return bytes.ReplaceAll(body, []byte("the bytes"), []byte("The bytes"))
	}})
	put(t, s, "a", []byte("the bytes"))
	for _, want := range []store.Hash{"", store.Sum([]byte("the bytes")), store.Sum([]byte("The bytes"))} {
		if got, err := s.Get(t.Context(), "a", want, 100); !errors.Is(err, store.ErrDamaged) || got != nil {
			t.Errorf("hash %q: got %q, %v, want ErrDamaged", want, got, err)
		}
	}
}

// The hash is that of Dropbox's documentation.
func TestContentHash(t *testing.T) {
	block := func(n int) []byte { h := sha256.Sum256(make([]byte, n)); return h[:] }
	for n, blocks := range map[int][][]byte{0: nil, 1: {block(1)}, 4 << 20: {block(4 << 20)}, 4<<20 + 1: {block(4 << 20), block(1)}} {
		want := sha256.Sum256(bytes.Join(blocks, nil))
		if got := dropbox.ContentHash(make([]byte, n)); got != hex.EncodeToString(want[:]) {
			t.Errorf("%d bytes: got %s, want %x", n, got, want)
		}
	}
}

func TestASCIIJSON(t *testing.T) {
	got, err := dropbox.ASCIIJSON(map[string]string{"path": "/é\u007f😀\"<"})
	if want := `{"path":"/\u00e9\u007f\ud83d\ude00\"\u003c"}`; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

// The account is asked for at Dropbox's address, and shown by its owner's.
func TestAccount(t *testing.T) {
	cloud := fakecloud.New()
	ann := cloud.AddAccount("1001", "ann@example.org")
	c := web.New(web.Config{Transport: cloud.Transport(), Tokens: cloudtest.NewSignIn(cloud, ann)})
	if id, name, err := dropbox.Account(t.Context(), c); err != nil || id != "dbid:1001" || name != "ann@example.org" {
		t.Errorf("got %q, %q, %v", id, name, err)
	}
}

func TestConfig(t *testing.T) {
	cloud := fakecloud.New()
	in := cloudtest.NewSignIn(cloud, cloud.AddAccount("1001", "ann@example.org"))
	for _, c := range []dropbox.Config{{}, {Tokens: in, Folder: "../x"}, {Tokens: in, Folder: "/x"}} {
		if _, err := dropbox.New(c); err == nil {
			t.Errorf("%+v: no error", c.Folder)
		}
	}
	if n := len(slices.Collect(maps.Keys(cloud.Counts()))); n != 0 {
		t.Errorf("New made requests: %v", cloud.Counts())
	}
}
