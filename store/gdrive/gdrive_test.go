package gdrive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/gdrive"
	"github.com/satchel-backup/satchel/store/storetest"
)

// tokens are of an account of the fake, and are renewed for as long as it allows.
type tokens struct {
	mu    sync.Mutex
	fresh func() string
	now   string // guarded by mu
	asked int    // guarded by mu
	dead  bool   // guarded by mu
}

func (s *tokens) Token(_ context.Context, stale string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.dead {
		return "", store.ErrSignIn
	}
	if s.now == "" || s.now == stale {
		s.now = s.fresh()
	}
	return s.now, nil
}

// world is a cloud with one account.
type world struct {
	cloud *fakecloud.Cloud
	ann   *fakecloud.Account
	cfg   gdrive.Config
	keys  *tokens
}

func newWorld() *world {
	w := &world{cloud: fakecloud.New()}
	w.ann = w.cloud.AddAccount("1001", "ann@example.org")
	w.keys = &tokens{fresh: func() string { return w.cloud.DriveToken(w.ann, gdrive.Scopes(w.cfg.AppData)...) }}
	w.cfg = gdrive.Config{Tokens: w.keys, Owner: "1001", Transport: w.cloud.Transport(), Endpoint: "https://drive.test"}
	return w
}

// open returns a store as another process opens it.
func (w *world) open(t *testing.T) *gdrive.Store {
	t.Helper()
	s, err := gdrive.New(w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// requests returns how many requests do makes, by operation.
func (w *world) requests(do func()) map[string]int {
	before := w.cloud.Counts()
	do()
	made := map[string]int{}
	for op, n := range w.cloud.Counts() {
		if n -= before[op]; n > 0 {
			made[op] = n
		}
	}
	return made
}

func total(made map[string]int) (n int) {
	for _, k := range made {
		n += k
	}
	return n
}

func put(t *testing.T, s store.Store, name string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), name, data); err != nil {
		t.Fatalf("Put: %v", err)
	}
}

func get(t *testing.T, s store.Store, name string, data []byte) {
	t.Helper()
	if got, err := s.Get(t.Context(), name, store.Sum(data), 64<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("Get: got %d bytes, %v, want %d", len(got), err, len(data))
	}
}

func names(t *testing.T, s store.Store, prefix string) []string {
	t.Helper()
	list, err := s.List(t.Context(), prefix)
	if err != nil {
		t.Errorf("List(%q): %v", prefix, err)
	}
	got := []string{}
	for _, o := range list {
		got = append(got, o.Name)
	}
	slices.Sort(got)
	return got
}

func TestConformance(t *testing.T) {
	for name, change := range map[string]func(*world){
		"MyDrive":  func(*world) {},
		"Pages":    func(w *world) { w.cloud.PageSize = 2 },
		"Folder":   func(w *world) { w.cfg.Folder = "Backups/of Bitcoin's" },
		"AppData":  func(w *world) { w.cfg.AppData = true },
		"AllDrive": func(w *world) { w.keys.fresh = func() string { return w.cloud.Token(w.ann) } },
		// Google's documentation does not say whether a program that sees its own files
		// only is told the root's id.
		"NoRoot": func(w *world) {
			root := regexp.MustCompile(`"parents":\["0A[A-Z0-9]+"\],`)
			w.cfg.Transport = between{w.cloud.Transport(), func(r *http.Request, resp *http.Response) *http.Response {
				if r.URL.Query().Get("alt") == "media" {
					return resp
				}
				body, _ := io.ReadAll(resp.Body)
				body = root.ReplaceAll(body, nil)
				resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
				return resp
			}}
		},
		"Strangers": func(w *world) {
			w.cloud.DriveAdd(w.ann, "root", "a", []byte("a stranger's"), false)
			w.cloud.DriveAdd(w.ann, "root", "x", nil, false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) store.Store {
				w := newWorld()
				change(w)
				return w.open(t)
			})
		})
	}
}

// What a change costs. The numbers are those of the package comment.
func TestRequests(t *testing.T) {
	w := newWorld()
	s := w.open(t)
	step := func(what string, want map[string]int, do func()) {
		t.Helper()
		if diff := cmp.Diff(want, w.requests(do)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	small, large := []byte("sealed"), make([]byte, 20<<20)
	// Of the process: whose account, new ids. Of the folders: a search and a create for each.
	step("first Put", map[string]int{"drive.about": 1, "drive.ids": 1, "drive.list": 3, "drive.folder": 2, "drive.create": 1}, func() {
		put(t, s, "Backup/snapshots/1", small)
	})
	step("Put", map[string]int{"drive.list": 1, "drive.create": 1}, func() { put(t, s, "Backup/snapshots/2", small) })
	step("Put again", map[string]int{"drive.list": 1, "drive.get": 1}, func() { put(t, s, "Backup/snapshots/2", small) })
	step("Get", map[string]int{"drive.list": 1, "drive.get": 1}, func() { get(t, s, "Backup/snapshots/2", small) })
	step("Get of what is not there", map[string]int{"drive.list": 1}, func() {
		if _, err := s.Get(t.Context(), "Backup/snapshots/3", "", 10); !errors.Is(err, store.ErrNotExist) {
			t.Error(err)
		}
	})
	step("large Put", map[string]int{"drive.list": 1, "drive.create": 1, "drive.chunk": 3}, func() { put(t, s, "Backup/snapshots/large", large) })
	list, _ := s.List(t.Context(), "Backup/snapshots/large")
	step("Delete", map[string]int{"drive.delete": 1}, func() {
		if err := s.Delete(t.Context(), list[0]); err != nil {
			t.Error(err)
		}
	})
	for i := range 98 {
		put(t, s, fmt.Sprintf("Backup/snapshots/%d", 10+i), small)
	}
	for i := range 50 {
		w.cloud.DriveAdd(w.ann, "root", fmt.Sprintf("Other-%d", i), nil, true)
	}
	w.cloud.PageSize = 100
	step("List", map[string]int{"drive.list": 2}, func() { names(t, s, "Backup/snapshots/") })
	step("List of everything", map[string]int{"drive.list": 2}, func() { names(t, s, "") })
	// Another process: the names are those of the folders above.
	other := w.open(t)
	step("first List", map[string]int{"drive.about": 1, "drive.list": 2, "drive.get": 1}, func() { names(t, other, "Backup/") })
	third := w.open(t)
	step("first Get", map[string]int{"drive.about": 1, "drive.list": 1, "drive.get": 4}, func() { get(t, third, "Backup/snapshots/1", small) })
	if files := w.cloud.DriveFiles(w.ann); len(files) != 2+100+50 {
		t.Errorf("there are %d files and folders", len(files))
	}
}

// R7: files and folders of one name are normal.
func TestTwins(t *testing.T) {
	w := newWorld()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w.cloud.Now = func() time.Time { now = now.Add(time.Second); return now }
	s := w.open(t)
	put(t, s, "Backup/slots/a", []byte("first"))
	files := w.cloud.DriveFiles(w.ann)
	backup, slots := files[0].ID, files[1].ID
	w.cloud.DriveAdd(w.ann, slots, "a", []byte("second"), true)
	twin := w.cloud.DriveAdd(w.ann, backup, "slots", nil, true)
	w.cloud.DriveAdd(w.ann, twin, "a", []byte("third"), true)
	w.cloud.DriveAdd(w.ann, twin, "b", []byte("only here"), true)
	again := w.cloud.DriveAdd(w.ann, w.cloud.DriveAdd(w.ann, "root", "Backup", nil, true), "slots", nil, true)
	w.cloud.DriveAdd(w.ann, again, "a", []byte("fourth"), true)
	// Not ours, by case or by nature.
	w.cloud.DriveAdd(w.ann, slots, "A", []byte("another name"), true)
	w.cloud.DriveAdd(w.ann, "root", "Backup/slots/a", []byte("a name with slashes"), true)

	for process, s := range map[string]store.Store{"the same process": s, "another": w.open(t)} {
		for _, text := range []string{"first", "second", "third", "fourth"} {
			get(t, s, "Backup/slots/a", []byte(text))
			if err := s.Put(t.Context(), "Backup/slots/a", []byte(text)); err != nil {
				t.Errorf("Put of what is there: %v", err)
			}
		}
		get(t, s, "Backup/slots/b", []byte("only here"))
		if got, err := s.Get(t.Context(), "Backup/slots/a", "", 100); err != nil || string(got) != "first" {
			t.Errorf("any of them: got %q, %v", got, err)
		}
		if _, err := s.Get(t.Context(), "Backup/slots/a", store.Sum([]byte("fifth")), 100); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("got %v, want ErrDamaged", err)
		}
		if err := s.Put(t.Context(), "Backup/slots/a", []byte("fifth")); !errors.Is(err, store.ErrExist) {
			t.Errorf("got %v, want ErrExist", err)
		}
		want := []string{"Backup/slots/A", "Backup/slots/a", "Backup/slots/a", "Backup/slots/a", "Backup/slots/a", "Backup/slots/b"}
		for _, prefix := range []string{"Backup/slots/", "Backup/", "", "Back"} {
			if diff := cmp.Diff(want, names(t, s, prefix)); diff != "" {
				t.Errorf("%s: List(%q) (-want +got):\n%s", process, prefix, diff)
			}
		}
	}
	// Deleting goes by the id.
	list, err := s.List(t.Context(), "Backup/slots/a")
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range list {
		if err := s.Delete(t.Context(), o); err != nil {
			t.Error(err)
		}
		if got := names(t, s, "Backup/slots/a"); len(got) != len(list)-1-i {
			t.Errorf("after %d deletes: %q", i+1, got)
		}
	}
	if _, err := s.Get(t.Context(), "Backup/slots/a", "", 100); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	// A new file goes to the oldest of the folders, from any process.
	put(t, w.open(t), "Backup/slots/c", []byte("x"))
	files = w.cloud.DriveFiles(w.ann)
	if f := files[len(files)-1]; f.Name != "c" || f.Parent != slots {
		t.Errorf("it is %q in %s, want %s", f.Name, f.Parent, slots)
	}
}

// R7: what is in the trash is not there, and nothing is put there.
func TestTrash(t *testing.T) {
	data := []byte("sealed")
	for _, what := range []string{"file", "folder", "folder above", "all, deleted"} {
		t.Run(what, func(t *testing.T) {
			w := newWorld()
			s := w.open(t)
			put(t, s, "Backup/slots/a", data)
			files := w.cloud.DriveFiles(w.ann)
			above, folder, old := files[0].ID, files[1].ID, files[2].ID
			switch what {
			case "file":
				w.cloud.DriveTrash(w.ann, old, true)
			case "folder":
				w.cloud.DriveTrash(w.ann, folder, true)
			case "folder above":
				w.cloud.DriveTrash(w.ann, above, true)
			default:
				if err := s.Delete(t.Context(), store.Object{Name: "x", ID: above}); err != nil {
					t.Fatal(err)
				}
			}
			put(t, s, "Backup/slots/c", data) // It knows the folder.
			get(t, w.open(t), "Backup/slots/c", data)
			list, err := s.List(t.Context(), "Backup/slots/c")
			if err != nil || len(list) != 1 {
				t.Fatalf("got %v, %v", list, err)
			}
			if err := s.Delete(t.Context(), list[0]); err != nil {
				t.Fatal(err)
			}
			for _, s := range []store.Store{s, w.open(t)} {
				if _, err := s.Get(t.Context(), "Backup/slots/a", store.Sum(data), 100); !errors.Is(err, store.ErrNotExist) {
					t.Errorf("got %v, want ErrNotExist", err)
				}
				for _, prefix := range []string{"", "Backup/slots/"} {
					if got := names(t, s, prefix); len(got) != 0 {
						t.Errorf("listed: %q", got)
					}
				}
			}
			put(t, s, "Backup/slots/b", data)
			put(t, s, "Backup/slots/a", data)
			for _, s := range []store.Store{s, w.open(t)} {
				get(t, s, "Backup/slots/a", data)
				for _, prefix := range []string{"", "Backup/slots/"} {
					if diff := cmp.Diff([]string{"Backup/slots/a", "Backup/slots/b"}, names(t, s, prefix)); diff != "" {
						t.Error(diff)
					}
				}
			}
			for _, f := range w.cloud.DriveFiles(w.ann) {
				if f.Trashed && f.ID != old && f.ID != folder && f.ID != above {
					t.Errorf("%s went to the trash", f.Name)
				}
			}
		})
	}
}

// R7: a search that is behind hides nothing from the one who put it, and makes no
// second file.
func TestLag(t *testing.T) {
	w := newWorld()
	w.cloud.Lag = 100
	s := w.open(t)
	for i := range 3 {
		for range 2 {
			name, data := fmt.Sprintf("Backup/slots/%d", i), fmt.Append(nil, "sealed ", i)
			put(t, s, name, data)
			get(t, s, name, data)
			if err := s.Put(t.Context(), name, []byte("other")); !errors.Is(err, store.ErrExist) {
				t.Errorf("got %v, want ErrExist", err)
			}
			if got := names(t, s, ""); len(got) != 0 {
				t.Errorf("listed: %q", got)
			}
		}
	}
	if got := len(w.cloud.DriveFiles(w.ann)); got != 2+3 {
		t.Errorf("there are %d files and folders, want 5", got)
	}
	// Another device knows of nothing, and makes twins. Then all is one.
	other := w.open(t)
	put(t, other, "Backup/slots/1", []byte("sealed 1"))
	put(t, other, "Backup/slots/9", []byte("sealed 9"))
	w.cloud.Lag = 1 // The folders are known, the newest file is not.
	if got := names(t, s, "Backup/"); len(got) != 4 {
		t.Errorf("listed: %q", got)
	}
	w.cloud.Lag = 0
	for _, s := range []store.Store{s, other, w.open(t)} {
		want := []string{"Backup/slots/0", "Backup/slots/1", "Backup/slots/1", "Backup/slots/2", "Backup/slots/9"}
		for _, prefix := range []string{"Backup/slots/", "Backup/", ""} {
			if diff := cmp.Diff(want, names(t, s, prefix)); diff != "" {
				t.Errorf("List(%q): %s", prefix, diff)
			}
		}
		for i := range 3 {
			get(t, s, fmt.Sprintf("Backup/slots/%d", i), fmt.Append(nil, "sealed ", i))
		}
	}
}

// A listing never shows what is in a folder that it does not know yet under another name.
func TestLagOfFolders(t *testing.T) {
	w := newWorld()
	var files []string
	for _, name := range []string{"a", "b"} {
		files = append(files, w.cloud.DriveAdd(w.ann, "root", name, []byte("x"), true))
	}
	folder := w.cloud.DriveAdd(w.ann, w.cloud.DriveAdd(w.ann, "root", "Backup", nil, true), "slots", nil, true)
	for i, name := range []string{"a", "b"} {
		w.cloud.DriveMove(w.ann, files[i], name, folder)
	}
	w.cloud.Lag = 2 // Both folders.
	s := w.open(t)
	for _, prefix := range []string{"", "Backup/slots/", "Backup/"} {
		if diff := cmp.Diff([]string{"Backup/slots/a", "Backup/slots/b"}, names(t, s, prefix)); diff != "" {
			t.Errorf("List(%q): %s", prefix, diff)
		}
	}
	get(t, w.open(t), "Backup/slots/a", []byte("x"))
}

// R7: a create that is sent again makes no second file or folder.
func TestSentAgain(t *testing.T) {
	for _, fault := range []fakecloud.Fault{fakecloud.Applied, fakecloud.CutApplied, fakecloud.CutAnswer} {
		for _, times := range []int{1, 7} {
			for _, lag := range []int{0, 100} {
				t.Run(fmt.Sprintf("%s %d times, lag %d", fault, times, lag), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld()
						w.cloud.Lag = lag
						left := map[string]int{"drive.create": times, "drive.folder": times}
						w.cloud.Fault = func(op string, r *http.Request) fakecloud.Fault {
							if left[op]--; left[op] >= 0 {
								return fault
							}
							return fakecloud.None
						}
						s := w.open(t)
						data := []byte("sealed")
						var err error
						for range 10 {
							if err = s.Put(t.Context(), "Backup/slots/a", data); err == nil {
								break
							}
							if !errors.Is(err, store.ErrUnreachable) {
								t.Errorf("got %v, want ErrUnreachable", err)
							}
						}
						if err != nil {
							t.Fatal(err)
						}
						get(t, s, "Backup/slots/a", data)
						if files := w.cloud.DriveFiles(w.ann); len(files) != 3 {
							t.Errorf("there are %d files and folders, want 3: %v", len(files), files)
						}
					})
				})
			}
		}
	}
}

var ops = []string{"drive.about", "drive.list", "drive.ids", "drive.get", "drive.folder", "drive.create", "drive.chunk", "drive.delete"}

// Every fault in every request, once and for ever. What is said is true, and no storm
// breaks out.
func TestFaults(t *testing.T) {
	faults := map[fakecloud.Fault]error{ // for ever
		fakecloud.Unauthorized: store.ErrSignIn,
		fakecloud.RateLimited:  store.ErrUnreachable,
		fakecloud.ServerError:  store.ErrUnreachable,
		fakecloud.Applied:      store.ErrUnreachable,
		fakecloud.Cut:          store.ErrUnreachable,
		fakecloud.CutApplied:   store.ErrUnreachable,
		fakecloud.CutAnswer:    store.ErrUnreachable,
		fakecloud.Hang:         store.ErrUnreachable,
		fakecloud.Full:         store.ErrFull,
		fakecloud.Torn:         store.ErrUnreachable,
		fakecloud.HalfAnswer:   store.ErrUnreachable,
		fakecloud.Page:         store.ErrUnreachable,
	}
	random := rand.NewChaCha8([32]byte{})
	large := make([]byte, 600<<10)
	random.Read(large)
	for fault, want := range faults {
		for _, op := range ops {
			for _, ever := range []bool{false, true} {
				for _, size := range []int{100, len(large)} {
					if size > 100 && op != "drive.chunk" && op != "drive.create" {
						continue
					}
					name := fmt.Sprintf("%s/%s/ever=%v/%d", fault, op, ever, size)
					t.Run(name, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { tryFault(t, fault, op, ever, want, large[:size]) })
					})
				}
			}
		}
	}
}

func tryFault(t *testing.T, fault fakecloud.Fault, op string, ever bool, want error, data []byte) {
	w := newWorld()
	before := w.open(t)
	put(t, before, "Backup/slots/old", []byte("old"))
	var mu sync.Mutex
	on := false
	w.cloud.Fault = func(o string, r *http.Request) fakecloud.Fault {
		mu.Lock()
		defer mu.Unlock()
		if !on || o != op {
			return fakecloud.None
		}
		on = ever
		return fault
	}
	set := func(v bool) {
		mu.Lock()
		defer mu.Unlock()
		on = v
	}
	// check looks with eyes of its own.
	holds := func(name string, data []byte) bool {
		set(false)
		got, err := w.open(t).Get(t.Context(), name, store.Sum(data), 64<<20)
		if err != nil && !errors.Is(err, store.ErrNotExist) && !errors.Is(err, store.ErrDamaged) {
			t.Errorf("looking: %v", err)
		}
		return err == nil && bytes.Equal(got, data)
	}
	ctx := t.Context()
	s := w.open(t)
	s.SetChunk(256 << 10)
	run := func(what string, do func() error) error {
		t.Helper()
		set(true)
		struck := w.cloud.Counts()[op]
		var err error
		start := time.Now()
		made := w.requests(func() { err = do() })
		struck = w.cloud.Counts()[op] - struck
		if struck > 0 && ever && err != nil && !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
		if struck == 0 && err != nil {
			t.Errorf("%s: no fault, and %v", what, err)
		}
		if n := total(made); n > 35 {
			t.Errorf("%s: %d requests: %v", what, n, made)
		}
		if took := time.Since(start); took > 20*time.Minute { // Each hangs for two minutes.
			t.Errorf("%s took %v", what, took)
		}
		return err
	}
	if err := run("Put", func() error { return s.Put(ctx, "Backup/items/x/new", data) }); err == nil && !holds("Backup/items/x/new", data) {
		t.Error("Put says yes, and it is not there")
	}
	set(false)
	put(t, s, "Backup/items/x/new", data)
	if n := len(w.cloud.DriveFiles(w.ann)); n != 6 {
		t.Errorf("there are %d files and folders, want 6", n)
	}
	var got []byte
	if err := run("Get", func() (err error) {
		got, err = s.Get(ctx, "Backup/items/x/new", store.Sum(data), 64<<20)
		return err
	}); err == nil && !bytes.Equal(got, data) || errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrDamaged) {
		t.Errorf("Get says %v, and %d bytes", err, len(got))
	}
	if err := run("Get without a hash", func() (err error) {
		got, err = s.Get(ctx, "Backup/items/x/new", "", 64<<20)
		return err
	}); err == nil && !bytes.Equal(got, data) || errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrDamaged) {
		t.Errorf("Get without a hash says %v, and %d bytes", err, len(got))
	}
	if err := run("Get of nothing", func() error {
		_, err := s.Get(ctx, "Backup/items/x/none", "", 100)
		if errors.Is(err, store.ErrNotExist) {
			return nil
		}
		if err == nil {
			t.Error("something is there")
		}
		return err
	}); errors.Is(err, store.ErrDamaged) {
		t.Error(err)
	}
	for _, prefix := range []string{"Backup/", "Backup/items/x/", ""} {
		var list []store.Object
		if err := run("List", func() (err error) {
			list, err = s.List(ctx, prefix)
			return err
		}); err == nil && len(list) != 2 && prefix != "Backup/items/x/" || err == nil && len(list) == 0 {
			t.Errorf("List(%q) says yes, and %v", prefix, list)
		}
	}
	set(false)
	list, err := s.List(t.Context(), "Backup/items/x/new")
	if err != nil || len(list) != 1 {
		t.Fatalf("got %v, %v", list, err)
	}
	if err := run("Delete", func() error { return s.Delete(ctx, list[0]) }); err == nil && holds("Backup/items/x/new", data) {
		t.Error("Delete says yes, and it is still there")
	}
	if !holds("Backup/slots/old", []byte("old")) {
		t.Error("the other object is gone")
	}
}

// A listing whose pages Google forgot begins again, and not for ever.
func TestPagesForgotten(t *testing.T) {
	for times, want := range map[int]error{1: nil, 2: nil, 3: store.ErrListing, 1000: store.ErrListing} {
		w := newWorld()
		s := w.open(t)
		for i := range 7 {
			put(t, s, fmt.Sprintf("Backup/%d", i), []byte("x"))
		}
		w.cloud.PageSize = 3
		left := times
		w.cloud.Fault = func(op string, r *http.Request) fakecloud.Fault {
			if r.FormValue("pageToken") != "" && left > 0 {
				left--
				w.cloud.DriveForget(w.ann, true, false)
			}
			return fakecloud.None
		}
		for _, prefix := range []string{"", "Backup/"} {
			left = times
			list, err := s.List(t.Context(), prefix)
			if !errors.Is(err, want) || (err == nil) != (want == nil) || err == nil && len(list) != 7 || err != nil && list != nil {
				t.Errorf("forgotten %d times: got %d objects, %v, want %v", times, len(list), err, want)
			}
		}
	}
}

// A large upload goes on where it was, and is not sent from the start.
func TestLargeUploads(t *testing.T) {
	data := make([]byte, 1000<<10)
	rand.NewChaCha8([32]byte{1}).Read(data)
	for _, fault := range []fakecloud.Fault{
		fakecloud.ServerError, fakecloud.Applied, fakecloud.Cut, fakecloud.CutApplied, fakecloud.CutAnswer, fakecloud.Torn, fakecloud.RateLimited, fakecloud.Unauthorized,
	} {
		t.Run(string(fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				n, sent := 0, int64(0)
				w.cloud.Fault = func(op string, r *http.Request) fakecloud.Fault {
					if op != "drive.chunk" {
						return fakecloud.None
					}
					sent += r.ContentLength
					if n++; n%3 == 1 { // Every third one.
						return fault
					}
					return fakecloud.None
				}
				s := w.open(t)
				s.SetChunk(256 << 10)
				put(t, s, "Backup/large", data)
				get(t, s, "Backup/large", data)
				if sent > int64(2*len(data)) {
					t.Errorf("sent %d KiB", sent>>10)
				}
				if got := w.cloud.Counts()["drive.create"]; got != 1 {
					t.Errorf("began %d times", got)
				}
				if got := len(w.cloud.DriveFiles(w.ann)); got != 2 {
					t.Errorf("there are %d files and folders, want 2", got)
				}
			})
		})
	}
	t.Run("forgotten", func(t *testing.T) {
		w := newWorld()
		n := 0
		w.cloud.Fault = func(op string, r *http.Request) fakecloud.Fault {
			if op == "drive.chunk" {
				if n++; n == 3 {
					w.cloud.DriveForget(w.ann, false, true)
				}
			}
			return fakecloud.None
		}
		s := w.open(t)
		s.SetChunk(256 << 10)
		put(t, s, "Backup/large", data)
		get(t, s, "Backup/large", data)
	})
}

// R10: another account under the same sign-in gets nothing, and nothing of it is taken
// for this one's.
func TestWrongAccount(t *testing.T) {
	w := newWorld()
	s := w.open(t)
	put(t, s, "Backup/a", []byte("x"))
	list, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	bob := w.cloud.AddAccount("2002", "bob@example.org")
	first := true
	w.cloud.Fault = func(op string, r *http.Request) fakecloud.Fault {
		if op == "drive.create" && first { // In the middle of a Put.
			first = false
			w.cloud.Expire()
			w.keys.fresh = func() string { return w.cloud.DriveToken(bob, gdrive.Scopes(false)...) }
		}
		return fakecloud.None
	}
	_, getErr := s.Get(t.Context(), "Backup/a", "", 10)
	if getErr != nil {
		t.Error(getErr)
	}
	errs := map[string]error{"Put": s.Put(t.Context(), "Backup/b", []byte("x"))}
	_, errs["Get"] = s.Get(t.Context(), "Backup/a", "", 10)
	_, errs["Get of nothing"] = s.Get(t.Context(), "Backup/none", "", 10)
	_, errs["List"] = s.List(t.Context(), "")
	errs["Delete"] = s.Delete(t.Context(), list[0])
	for what, err := range errs {
		if !errors.Is(err, store.ErrWrongAccount) {
			t.Errorf("%s: got %v, want ErrWrongAccount", what, err)
		}
	}
	if got := w.cloud.DriveFiles(bob); len(got) != 0 {
		t.Errorf("the other account got %v", got)
	}
}

// R9: a token that ran out is renewed once; a dead grant is sign-in needed, and from
// then on there is no request at all.
func TestSignIn(t *testing.T) {
	w := newWorld()
	s := w.open(t)
	put(t, s, "Backup/a", []byte("x"))
	w.cloud.Expire()
	made := w.requests(func() { get(t, s, "Backup/a", []byte("x")) })
	if diff := cmp.Diff(map[string]int{"drive.list": 2, "drive.get": 1, "drive.about": 1}, made); diff != "" {
		t.Error(diff)
	}
	w.cloud.Revoke(w.ann)
	w.keys.dead = true
	for range 3 {
		if _, err := s.Get(t.Context(), "Backup/a", "", 10); !errors.Is(err, store.ErrSignIn) {
			t.Errorf("got %v, want ErrSignIn", err)
		}
	}
	// A permission that the user left out is one too.
	w.keys.dead = false
	w.keys.fresh = func() string { return w.cloud.DriveToken(w.ann, "openid") }
	if err := s.Put(t.Context(), "Backup/b", []byte("x")); !errors.Is(err, store.ErrSignIn) {
		t.Errorf("got %v, want ErrSignIn", err)
	}
}

// R14.
func TestFull(t *testing.T) {
	w := newWorld()
	w.ann.Quota = 6 << 20
	s := w.open(t)
	put(t, s, "Backup/a", make([]byte, 4<<20))
	for _, size := range []int{4 << 20, 20 << 20} {
		if err := s.Put(t.Context(), "Backup/b", make([]byte, size)); !errors.Is(err, store.ErrFull) {
			t.Errorf("%d bytes: got %v, want ErrFull", size, err)
		}
	}
	put(t, s, "Backup/c", make([]byte, 1<<20))
	if diff := cmp.Diff([]string{"Backup/a", "Backup/c"}, names(t, s, "")); diff != "" {
		t.Error(diff)
	}
}

// A person moves the backup's folder: it is found, also by those who know the old place.
func TestMoved(t *testing.T) {
	w := newWorld()
	s := w.open(t)
	put(t, s, "Backup/slots/a", []byte("x"))
	mine := w.cloud.DriveAdd(w.ann, "root", "My things", nil, false)
	folder := w.cloud.DriveFiles(w.ann)[0].ID
	w.cloud.DriveMove(w.ann, folder, "Backup", mine)
	for _, s := range []store.Store{s, w.open(t)} {
		get(t, s, "Backup/slots/a", []byte("x"))
		if diff := cmp.Diff([]string{"Backup/slots/a"}, names(t, s, "Backup/")); diff != "" {
			t.Error(diff)
		}
	}
	for _, s := range []store.Store{s, w.open(t)} {
		put(t, s, "Backup/slots/b", []byte("y"))
	}
	if n := len(w.cloud.DriveFiles(w.ann)); n != 5 {
		t.Errorf("there are %d files and folders, want 5", n)
	}
	// Under another name it is another folder.
	w.cloud.DriveMove(w.ann, folder, "Old backup", "")
	for _, s := range []store.Store{s, w.open(t)} {
		if got := names(t, s, "Backup/"); len(got) != 0 {
			t.Errorf("listed: %q", got)
		}
		get(t, s, "Old backup/slots/a", []byte("x"))
	}
}

// Processes that begin at the same time may make two folders: all is found.
func TestTogether(t *testing.T) {
	w := newWorld()
	var wg sync.WaitGroup
	for i := range 4 {
		s := w.open(t)
		wg.Go(func() {
			for k := range 5 {
				if err := s.Put(t.Context(), fmt.Sprintf("Backup/slots/%d-%d", i, k), []byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := names(t, w.open(t), "Backup/slots/"); len(got) != 20 {
		t.Errorf("listed %d, want 20", len(got))
	}
	s := w.open(t)
	for i := range 4 {
		for k := range 5 {
			get(t, s, fmt.Sprintf("Backup/slots/%d-%d", i, k), []byte("x"))
		}
	}
}

// Many folders are not named one by one.
func TestManyFolders(t *testing.T) {
	w := newWorld()
	s := w.open(t)
	for i := range 60 {
		put(t, s, fmt.Sprintf("Backup/items/%d/a", i), []byte("x"))
	}
	put(t, s, "Backup/snapshots/1", []byte("x"))
	made := w.requests(func() {
		if got := names(t, s, "Backup/"); len(got) != 61 {
			t.Errorf("listed %d, want 61", len(got))
		}
	})
	if total(made) != 1 {
		t.Errorf("made %v, want 1 request", made)
	}
	made = w.requests(func() { names(t, s, "Backup/snapshots/") })
	if total(made) != 1 {
		t.Errorf("made %v, want 1 request", made)
	}
}

// No error holds a name, an address or a token.
func TestErrorsTellNothing(t *testing.T) {
	w := newWorld()
	s := w.open(t)
	for _, fault := range []fakecloud.Fault{fakecloud.Page, fakecloud.HalfAnswer, fakecloud.Full, fakecloud.Unauthorized} {
		w.cloud.Fault = func(string, *http.Request) fakecloud.Fault { return fault }
		_, err := s.Get(t.Context(), "Backup-Samantha/a", "", 10)
		for _, e := range []error{err, s.Put(t.Context(), "Backup-Samantha/a", nil)} {
			if e == nil || strings.Contains(e.Error(), "Samantha") || strings.Contains(e.Error(), "drive.test") || strings.Contains(e.Error(), "Welcome") {
				t.Errorf("%s: %v", fault, e)
			}
		}
	}
}

// between lets a test see each request, and what comes back.
type between struct {
	http.RoundTripper
	after func(*http.Request, *http.Response) *http.Response
}

func (b between) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp = b.after(r, resp)
	}
	return resp, err
}

func isSearch(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.Path == "/drive/v3/files"
}

// A search that still shows what another device deleted does not make a Put say yes.
func TestDeletedInBetween(t *testing.T) {
	w := newWorld()
	put(t, w.open(t), "Backup/a", []byte("x"))
	another := w.open(t)
	on := false
	w.cfg.Transport = between{w.cloud.Transport(), func(r *http.Request, resp *http.Response) *http.Response {
		if on && isSearch(r) {
			on = false
			list, err := another.List(t.Context(), "Backup/a")
			if err != nil || len(list) != 1 {
				t.Errorf("got %v, %v", list, err)
			} else if err := another.Delete(t.Context(), list[0]); err != nil {
				t.Error(err)
			}
		}
		return resp
	}}
	s := w.open(t)
	for _, data := range []string{"x", "y"} {
		on = true
		put(t, s, "Backup/a", []byte(data))
		get(t, another, "Backup/a", []byte(data))
	}
	on = true
	if _, err := s.Get(t.Context(), "Backup/a", "", 10); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

// A search that still shows what this process deleted is not believed.
func TestDeletedAndStillShown(t *testing.T) {
	w := newWorld()
	var old []byte // the answer of a search
	replay := false
	w.cfg.Transport = between{w.cloud.Transport(), func(r *http.Request, resp *http.Response) *http.Response {
		if !isSearch(r) {
			return resp
		}
		if !replay {
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Error(err)
			}
			old = body
		}
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(old)), int64(len(old))
		return resp
	}}
	s := w.open(t)
	put(t, s, "Backup/a", []byte("x"))
	list, err := s.List(t.Context(), "")
	if err != nil || len(list) != 1 {
		t.Fatalf("got %v, %v", list, err)
	}
	if err := s.Delete(t.Context(), list[0]); err != nil {
		t.Fatal(err)
	}
	replay = true
	if got := names(t, s, ""); len(got) != 0 {
		t.Errorf("listed: %q", got)
	}
	put(t, s, "Backup/a", []byte("y"))
	replay = false
	get(t, s, "Backup/a", []byte("y"))
}

// A Put says yes only if Google tells of the bytes that were sent.
func TestOtherBytesArrive(t *testing.T) {
	w := newWorld()
	s := w.open(t)
	s.SetChunk(256 << 10)
	w.cloud.Fault = func(op string, r *http.Request) fakecloud.Fault {
		if op == "drive.create" || op == "drive.chunk" {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(bytes.ReplaceAll(body, []byte("good"), []byte("evil"))))
		}
		return fakecloud.None
	}
	for _, n := range []int{1, 100 << 10} {
		if err := s.Put(t.Context(), fmt.Sprint("Backup/", n), bytes.Repeat([]byte("good"), n)); err == nil || errors.Is(err, store.ErrExist) {
			t.Errorf("%d bytes: got %v", 4*n, err)
		}
	}
}

// R7: a create that arrives after its Put was given up, and repeated, is the same file.
func TestArrivesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s := w.open(t)
		put(t, s, "Backup/old", []byte("x"))
		var late *http.Request
		lost := true
		w.cloud.Fault = func(op string, r *http.Request) fakecloud.Fault {
			if op != "drive.create" || !lost {
				return fakecloud.None
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			late = r.Clone(t.Context())
			late.Body = io.NopCloser(bytes.NewReader(body))
			return fakecloud.Cut
		}
		if err := s.Put(t.Context(), "Backup/new", []byte("x")); !errors.Is(err, store.ErrUnreachable) {
			t.Fatalf("got %v, want ErrUnreachable", err)
		}
		lost = false
		put(t, s, "Backup/new", []byte("x"))
		resp, err := w.cloud.Transport().RoundTrip(late)
		if err != nil || resp.StatusCode != http.StatusConflict {
			t.Errorf("got %v, %v, want 409", resp, err)
		}
		if n := len(w.cloud.DriveFiles(w.ann)); n != 3 {
			t.Errorf("there are %d files and folders, want 3", n)
		}
	})
}

// An answer that is JSON and nothing else is not an empty listing.
func TestEmptyAnswers(t *testing.T) {
	w := newWorld()
	for _, body := range []string{"{}", "null", "[]", `{"files":null}`, `{"kind":"x"}`, `{"files":[],"incompleteSearch":true}`, ""} {
		w.cfg.Transport = between{w.cloud.Transport(), func(r *http.Request, resp *http.Response) *http.Response {
			if r.URL.Path != "/drive/v3/about" {
				resp.StatusCode = http.StatusOK
				resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			}
			return resp
		}}
		s := w.open(t)
		if list, err := s.List(t.Context(), "Backup/"); err == nil {
			t.Errorf("%s: List says yes, and %v", body, list)
		}
		if _, err := s.Get(t.Context(), "Backup/a", "", 10); err == nil || errors.Is(err, store.ErrNotExist) {
			t.Errorf("%s: Get says %v", body, err)
		}
		if err := s.Put(t.Context(), "Backup/a", nil); err == nil {
			t.Errorf("%s: Put says yes", body)
		}
		if err := s.Delete(t.Context(), store.Object{Name: "Backup/a", ID: "x"}); err == nil {
			t.Errorf("%s: Delete says yes", body)
		}
	}
}

// Without a hash too, what comes is what Google tells of.
func TestOtherBytesCome(t *testing.T) {
	w := newWorld()
	put(t, w.open(t), "Backup/a", []byte("good bytes"))
	on := true
	w.cfg.Transport = between{w.cloud.Transport(), func(r *http.Request, resp *http.Response) *http.Response {
		if on && r.URL.Query().Get("alt") == "media" {
			resp.Body = io.NopCloser(strings.NewReader("evil bytes"))
		}
		return resp
	}}
	s := w.open(t)
	for _, want := range []store.Hash{"", store.Sum([]byte("good bytes"))} {
		if got, err := s.Get(t.Context(), "Backup/a", want, 100); !errors.Is(err, store.ErrUnreachable) || got != nil {
			t.Errorf("got %q, %v, want ErrUnreachable", got, err)
		}
	}
	on = false
	get(t, s, "Backup/a", []byte("good bytes"))
}

// A folder that a whole listing does not show any more gets no new files, even if Google
// did not say of a new file that it is in the trash.
func TestTrashNotTold(t *testing.T) {
	w := newWorld()
	w.cfg.Transport = between{w.cloud.Transport(), func(r *http.Request, resp *http.Response) *http.Response {
		if r.Method == http.MethodPost {
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Error(err)
			}
			body = bytes.ReplaceAll(body, []byte(`"trashed":true`), []byte(`"trashed":false`))
			resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		}
		return resp
	}}
	s := w.open(t)
	put(t, s, "Backup/slots/a", []byte("x"))
	w.cloud.DriveTrash(w.ann, w.cloud.DriveFiles(w.ann)[0].ID, true)
	put(t, s, "Backup/slots/b", []byte("x")) // It cannot know.
	if got := names(t, s, ""); len(got) != 0 {
		t.Errorf("listed: %q", got)
	}
	put(t, s, "Backup/slots/c", []byte("x"))
	put(t, s, "Backup/slots/a", []byte("x"))
	put(t, s, "Backup/slots/b", []byte("x"))
	if diff := cmp.Diff([]string{"Backup/slots/a", "Backup/slots/b", "Backup/slots/c"}, names(t, w.open(t), "")); diff != "" {
		t.Error(diff)
	}
}

// Those of one process who put the same at the same time make one file.
func TestAtOnce(t *testing.T) {
	w := newWorld()
	s := w.open(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Put(t.Context(), "Backup/slots/a", []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(w.cloud.DriveFiles(w.ann)); n != 3 {
		t.Errorf("there are %d files and folders, want 3", n)
	}
}

// What says no, and is not Google, says nothing about what exists.
func TestNoOfAStranger(t *testing.T) {
	for _, status := range []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusConflict, http.StatusGone} {
		for _, searches := range []bool{false, true} { // whether they get through
			w := newWorld()
			put(t, w.open(t), "Backup/a", []byte("x"))
			list, err := w.open(t).List(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			w.cfg.Transport = between{w.cloud.Transport(), func(r *http.Request, resp *http.Response) *http.Response {
				if r.URL.Path != "/drive/v3/about" && !(searches && isSearch(r)) {
					resp.StatusCode, resp.ContentLength = status, -1
					resp.Body = io.NopCloser(strings.NewReader("<html>Please sign in to the network.</html>"))
				}
				return resp
			}}
			s := w.open(t)
			_, getErr := s.Get(t.Context(), "Backup/a", "", 10)
			for what, err := range map[string]error{"Get": getErr, "Put": s.Put(t.Context(), "Backup/b", nil), "Delete": s.Delete(t.Context(), list[0])} {
				if !errors.Is(err, store.ErrUnreachable) {
					t.Errorf("%s: %d: got %v, want ErrUnreachable", what, status, err)
				}
			}
		}
	}
}

// The bytes and the token of a large upload go to Google only.
func TestSessionElsewhere(t *testing.T) {
	w := newWorld()
	hosts := map[string]bool{}
	w.cfg.Transport = between{w.cloud.Transport(), func(r *http.Request, resp *http.Response) *http.Response {
		hosts[r.URL.Host] = true
		if l := resp.Header.Get("Location"); l != "" {
			resp.Header.Set("Location", strings.Replace(l, "drive.test", "drive.test.example.org", 1))
		}
		return resp
	}}
	s := w.open(t)
	s.SetChunk(256 << 10)
	if err := s.Put(t.Context(), "Backup/a", make([]byte, 600<<10)); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
	if len(hosts) != 1 {
		t.Errorf("requests went to %v", hosts)
	}
}
