package keychain_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/internal/durable"
	system "github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/keychain"
	"github.com/satchel-backup/satchel/store/storetest"
)

// realEnv is set where a real keychain of the system is to be tested.
const realEnv = "SATCHEL_TEST_KEYCHAIN"

// ring is a keychain in memory that fails from a call on.
type ring struct {
	mu      sync.Mutex
	entries map[string][]byte // guarded by mu
	calls   int               // guarded by mu
	fail    int               // the call from which on all fail; 0 means none
	applied bool              // the first of those happens all the same
	err     error
}

var errPower = errors.New("the power went")

func newRing() *ring { return &ring{entries: map[string][]byte{}, err: errPower} }

// call counts a call and reports whether it happens, and what it says.
func (r *ring) call() (happens bool, err error) {
	r.calls++
	if r.fail == 0 || r.calls < r.fail {
		return true, nil
	}
	return r.applied && r.calls == r.fail, r.err
}

func (r *ring) Get(name string) (secret.Bytes, error) {
	runtime.Gosched() // Others have their turn between any two calls.
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.call(); err != nil {
		return secret.Bytes{}, err
	}
	b, ok := r.entries[name]
	if !ok {
		return secret.Bytes{}, system.ErrNotFound
	}
	return secret.New(b), nil
}

func (r *ring) Set(name string, s secret.Bytes) error {
	runtime.Gosched() // Others have their turn between any two calls.
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.Empty() || s.Len() > system.MaxSecret {
		panic("a block that does not fit")
	}
	happens, err := r.call()
	if happens {
		r.entries[name] = bytes.Clone(s.Open())
	}
	return err
}

func (r *ring) Delete(name string) error {
	runtime.Gosched() // Others have their turn between any two calls.
	r.mu.Lock()
	defer r.mu.Unlock()
	happens, err := r.call()
	if happens {
		delete(r.entries, name)
	}
	return err
}

func (r *ring) Where() string { return "memory" }

func open(t *testing.T, k system.Keychain) *keychain.Store {
	t.Helper()
	s, err := keychain.New("", keychain.Config{Keychain: k, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	storetest.RunSmall(t, keychain.MaxObject, func(t *testing.T) store.Store { return open(t, newRing()) })
}

func TestConformanceFiles(t *testing.T) {
	storetest.RunSmall(t, keychain.MaxObject, func(t *testing.T) store.Store { return open(t, system.File(t.TempDir())) })
}

// The real one, which CI starts.
func TestConformanceSystem(t *testing.T) {
	if os.Getenv(realEnv) == "" {
		t.Skip(realEnv + " is not set")
	}
	k := system.System()
	storetest.RunSmall(t, keychain.MaxObject, func(t *testing.T) store.Store {
		s, err := keychain.New("test", keychain.Config{Keychain: k, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		clean := func() {
			list, err := s.List(context.Background(), "")
			if err != nil {
				t.Error(err)
			}
			for _, o := range list {
				if err := s.Delete(context.Background(), o); err != nil {
					t.Error(err)
				}
			}
		}
		clean()
		t.Cleanup(clean)
		return s
	})
}

// content returns what the store holds, and fails if a listed object cannot be read.
func content(t *testing.T, s *keychain.Store) map[string]string {
	t.Helper()
	list, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	got := map[string]string{}
	for _, o := range list {
		data, err := s.Get(t.Context(), o.Name, "", o.Size)
		if err != nil || int64(len(data)) != o.Size {
			t.Fatalf("Get %s: %d bytes, %v", o.Name, len(data), err)
		}
		got[o.Name] = string(data)
	}
	return got
}

// R4: whatever call the power fails at, and whether or not that call still
// happened, the store holds the old state or the new one, and goes on.
func TestCrash(t *testing.T) {
	large := strings.Repeat("0123456789", 300)
	before := map[string]string{"a": "first", "b/c": large}
	for _, test := range []struct {
		name  string
		step  func(s *keychain.Store) error
		after map[string]string
	}{
		{"put", func(s *keychain.Store) error { return s.Put(t.Context(), "d", []byte(large+"!")) },
			map[string]string{"a": "first", "b/c": large, "d": large + "!"}},
		{"put empty", func(s *keychain.Store) error { return s.Put(t.Context(), "d", nil) },
			map[string]string{"a": "first", "b/c": large, "d": ""}},
		{"delete", func(s *keychain.Store) error { return s.Delete(t.Context(), store.Object{Name: "b/c"}) },
			map[string]string{"a": "first"}},
	} {
		for _, applied := range []bool{false, true} {
			states := map[string]bool{}
			for n := 1; ; n++ {
				r := newRing()
				s := open(t, r)
				for name, data := range before {
					if err := s.Put(t.Context(), name, []byte(data)); err != nil {
						t.Fatal(err)
					}
				}
				r.fail, r.applied = r.calls+n, applied
				err := test.step(s)
				ended := r.calls < r.fail
				r.fail = 0
				again := open(t, r)
				got := content(t, again)
				old, new := cmp.Equal(got, before), cmp.Equal(got, test.after)
				if !old && !new || err == nil && !new {
					t.Fatalf("%s, call %d: got %d objects, error %v", test.name, n, len(got), err)
				}
				states[fmt.Sprint(old)] = true
				if err := test.step(again); err != nil {
					t.Fatalf("%s, call %d, again: %v", test.name, n, err)
				}
				if diff := cmp.Diff(test.after, content(t, again)); diff != "" {
					t.Fatalf("%s, call %d, again (-want +got):\n%s", test.name, n, diff)
				}
				if ended {
					break
				}
			}
			if len(states) != 2 {
				t.Errorf("%s: saw %v, want the old state and the new", test.name, states)
			}
		}
	}
}

// What crashes leave behind is used again: the keychain does not fill up.
func TestLeftovers(t *testing.T) {
	r := newRing()
	s := open(t, r)
	for i := range 300 {
		r.fail = r.calls + 1 + i%40
		s.Put(t.Context(), "a", bytes.Repeat([]byte("x"), 20<<10))
		r.fail = 0
		if err := s.Put(t.Context(), "a", bytes.Repeat([]byte("x"), 20<<10)); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), store.Object{Name: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(r.entries); n > 130 {
		t.Errorf("%d entries", n)
	}
}

// R14: a full store says so before it writes, and can be emptied again.
func TestFull(t *testing.T) {
	ctx, r := t.Context(), newRing()
	s := open(t, r)
	if err := s.Put(ctx, "a", make([]byte, keychain.MaxObject+1)); !errors.Is(err, store.ErrTooLarge) || !errors.Is(err, store.ErrFull) {
		t.Errorf("got %v, want ErrTooLarge and ErrFull", err)
	}
	total, n := 0, 0
	for size := keychain.MaxObject; size > 0; {
		before := len(r.entries)
		err := s.Put(ctx, fmt.Sprintf("object %d", n), make([]byte, size))
		switch {
		case err == nil:
			total, n = total+size, n+1
		case errors.Is(err, store.ErrFull):
			if len(r.entries) != before {
				t.Errorf("wrote %d entries and was full", len(r.entries)-before)
			}
			size /= 2
		default:
			t.Fatal(err)
		}
	}
	if total < 100<<10 {
		t.Errorf("full with %d bytes", total)
	}
	for name := range content(t, s) {
		if err := s.Delete(ctx, store.Object{Name: name}); err != nil {
			t.Errorf("deleting from a full store: %v", err)
		}
	}
	if len(r.entries) != 2 { // the head, and an index of nothing
		t.Errorf("%d entries are left", len(r.entries))
	}
}

// However full it is, and wherever the index ends in its blocks, something can be
// deleted.
func TestFullByIndex(t *testing.T) {
	ctx := t.Context()
	for size := range 12 {
		s := open(t, newRing())
		if err := s.Put(ctx, "s", nil); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Put(ctx, "large", make([]byte, keychain.MaxObject)), s.Put(ctx, "larger", make([]byte, size<<10))); err != nil {
			t.Fatal(err)
		}
		var err error
		for i := 0; err == nil; i++ {
			err = s.Put(ctx, fmt.Sprintf("%0250d/%0250d", i, i), nil)
		}
		if !errors.Is(err, store.ErrFull) {
			t.Errorf("got %v, want ErrFull", err)
		}
		if err := s.Delete(ctx, store.Object{Name: "s"}); err != nil {
			t.Fatalf("deleting from a full store: %v", err)
		}
	}
}

// Two processes that share a directory do not lose each other's objects.
func TestTwoProcesses(t *testing.T) {
	r, dir := newRing(), t.TempDir()
	var wg sync.WaitGroup
	want := map[string]string{}
	for i := range 4 {
		s, err := keychain.New("", keychain.Config{Keychain: r, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		for k := range 5 {
			want[fmt.Sprintf("%d/%d", i, k)] = fmt.Sprint(i, k)
		}
		wg.Go(func() {
			for k := range 5 {
				if err := s.Put(t.Context(), fmt.Sprintf("%d/%d", i, k), fmt.Append(nil, i, " ", k)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s, err := keychain.New("", keychain.Config{Keychain: r, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, content(t, s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// One that holds the lock for ever makes others wait no longer than they want to.
func TestLocked(t *testing.T) {
	dir := t.TempDir()
	l, err := durable.Disk{}.Lock(dir + "/keychain-store.lock")
	if err != nil {
		t.Fatal(err)
	}
	s, err := keychain.New("", keychain.Config{Keychain: newRing(), Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Put(ctx, "a", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline's", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "a", nil); err != nil {
		t.Error(err)
	}
}

// R2, R5: a keychain that cannot answer, and one that lost something.
func TestErrors(t *testing.T) {
	ctx := t.Context()
	fill := func() (*ring, *keychain.Store) {
		r := newRing()
		s := open(t, r)
		if err := s.Put(ctx, "a", []byte("content")); err != nil {
			t.Fatal(err)
		}
		return r, s
	}
	calls := func(s *keychain.Store) map[string]error {
		_, get := s.Get(ctx, "a", "", 99)
		_, list := s.List(ctx, "")
		return map[string]error{
			"Put": s.Put(ctx, "b", nil), "Get": get, "List": list, "Delete": s.Delete(ctx, store.Object{Name: "a"}),
		}
	}
	r, s := fill()
	r.fail, r.err = 1, system.ErrUnavailable
	for what, err := range calls(s) {
		if !errors.Is(err, store.ErrUnreachable) || errors.Is(err, store.ErrNotExist) {
			t.Errorf("locked, %s: got %v, want ErrUnreachable", what, err)
		}
	}

	names := func(r *ring, part string) []string {
		var list []string
		for name := range r.entries {
			if strings.Contains(name, part) {
				list = append(list, name)
			}
		}
		slices.Sort(list)
		return list
	}
	for _, text := range []string{
		"", "x", "null", "{}", `{"Version":2}`, `{"Version":1,"Size":2,"Hash":"","Blocks":[0]}`,
		`{"Version":1,"Size":2,"Hash":"4f53cda18c2baa0c0354bb5f9a3ecbe5","Blocks":[-1]}`,
		`{"Version":1,"Size":2,"Hash":"4f53cda18c2baa0c0354bb5f9a3ecbe5","Blocks":[99999]}`,
		`{"Version":1,"Size":-2,"Hash":"4f53cda18c2baa0c0354bb5f9a3ecbe5","Blocks":[]}`,
		`{"Version":1,"Size":9223372036854775807,"Hash":"4f53cda18c2baa0c0354bb5f9a3ecbe5","Blocks":[]}`,
	} {
		r, s := fill()
		r.entries[names(r, "head")[0]] = []byte(text)
		for what, err := range calls(s) {
			if err == nil || errors.Is(err, store.ErrNotExist) || what == "List" && !errors.Is(err, store.ErrListing) {
				t.Errorf("head %q, %s: got %v", text, what, err)
			}
		}
	}

	r, s = fill()
	block := names(r, "block")[0] // the object's
	for _, change := range []func(){func() { r.entries[block][0] ^= 1 }, func() { delete(r.entries, block) }} {
		change()
		if _, err := s.Get(ctx, "a", "", 99); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("got %v, want ErrDamaged", err)
		}
		if err := s.Put(ctx, "a", []byte("content")); !errors.Is(err, store.ErrExist) {
			t.Errorf("got %v, want ErrExist", err)
		}
	}
	if err := s.Delete(ctx, store.Object{Name: "a"}); err != nil {
		t.Error(err)
	}
	if err := s.Put(ctx, "a", []byte("content")); err != nil {
		t.Error(err)
	}
}

// R18: an index that somebody else wrote.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`[{"Name":"a","Size":2,"Hash":"4f53cda18c2baa0c0354bb5f9a3ecbe5","Modified":"2026-11-26T00:00:00Z","Blocks":[0]}]`))
	f.Add([]byte(`[{"Name":"../a","Size":1024,"Hash":"x","Blocks":[0]}]`))
	f.Fuzz(func(t *testing.T, index []byte) {
		if len(index) == 0 || len(index) > 1024 {
			t.Skip()
		}
		r := newRing()
		r.entries["store.block.0"] = index
		r.entries["store.head"] = fmt.Appendf(nil, `{"Version":1,"Size":%d,"Hash":%q,"Blocks":[0]}`, len(index), store.Sum(index))
		s := open(t, r)
		list, err := s.List(t.Context(), "")
		if err != nil && !errors.Is(err, store.ErrListing) {
			t.Error(err)
		}
		for _, o := range list {
			if store.CheckName(o.Name) != nil {
				t.Errorf("lists %q", o.Name)
			}
			s.Get(t.Context(), o.Name, "", 1<<20)
			s.Delete(t.Context(), o)
		}
		s.Put(t.Context(), "new", []byte("x"))
	})
}

func TestNew(t *testing.T) {
	good := keychain.Config{Keychain: newRing(), Dir: t.TempDir()}
	for _, name := range []string{"A", "a b", "../a", "-a", "a.b", strings.Repeat("a", 41)} {
		if _, err := keychain.New(name, good); err == nil {
			t.Errorf("%q: no error", name)
		}
	}
	for _, c := range []keychain.Config{{}, {Keychain: newRing()}, {Dir: t.TempDir()}} {
		if _, err := keychain.New("", c); err == nil {
			t.Error("no error")
		}
	}
	// Stores of different names do not see each other.
	one, err := keychain.New("one", good)
	if err != nil {
		t.Fatal(err)
	}
	two, err := keychain.New("two", good)
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Put(t.Context(), "a", nil); err != nil {
		t.Error(err)
	}
	if got := content(t, two); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}
