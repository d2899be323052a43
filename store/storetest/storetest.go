// Package storetest holds the tests that every store must pass, and a store
// with faults for the tests of those who use stores.
//
// A provider's test is
//
//	func TestConformance(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) store.Store { return new(mem.Store) })
//	}
//
// and a test of what happens when a store loses what it was given is
//
//	f := &storetest.Faulty{Inner: new(mem.Store)}
//	f.Set(storetest.Put, storetest.Drop)
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/store"
)

// Run tests that the stores that open returns keep the contract of
// [store.Store]. Each call of open must return an empty store whose listing
// shows what was put without delay.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	RunSmall(t, largest, open)
}

// RunSmall is Run for a store that takes no object longer than size bytes, such as
// a keychain.
func RunSmall(t *testing.T, size int, open func(t *testing.T) store.Store) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s store.Store)
	}{
		{"PutGet", func(t *testing.T, s store.Store) { putGet(t, s, size) }},
		{"PutAgain", putAgain},
		{"PutOther", putOther},
		{"BytesAreCopied", bytesAreCopied},
		{"Hash", wantHash},
		{"Limit", limit},
		{"Absent", absent},
		{"Names", names},
		{"BadNames", badNames},
		{"TooLarge", tooLarge},
		{"List", list},
		{"Delete", deleting},
		{"ConcurrentPuts", concurrentPuts},
		{"ConcurrentUse", concurrentUse},
		{"ContextEnded", contextEnded},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

const (
	roomy   = 2 << 20 // a limit no object of these tests reaches
	largest = 1 << 20 // bytes in the longest object of these tests
)

func put(t *testing.T, s store.Store, name string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), name, data); err != nil {
		t.Fatalf("Put: %v", err)
	}
}

// holds checks that the object is there, by hash and without, and listed with its size.
func holds(t *testing.T, s store.Store, name string, data []byte) {
	t.Helper()
	for _, want := range []store.Hash{"", store.Sum(data)} {
		got, err := s.Get(t.Context(), name, want, roomy)
		if err != nil {
			t.Errorf("Get with hash %q: %v", want, err)
		} else if !bytes.Equal(got, data) {
			t.Errorf("Get with hash %q: got other bytes, %d of them, want %d", want, len(got), len(data))
		}
	}
	list, err := s.List(t.Context(), name)
	if err != nil {
		t.Errorf("List: %v", err)
	}
	n := 0
	for _, o := range list {
		if o.Name == name {
			n++
			if o.Size != int64(len(data)) {
				t.Errorf("listed with size %d, want %d", o.Size, len(data))
			}
		}
	}
	if n != 1 {
		t.Errorf("listed %d times, want once", n)
	}
}

func listed(t *testing.T, s store.Store, prefix string) []string {
	t.Helper()
	list, err := s.List(t.Context(), prefix)
	if err != nil {
		t.Errorf("List(%q): %v", prefix, err)
	}
	names := []string{}
	for _, o := range list {
		names = append(names, o.Name)
	}
	slices.Sort(names)
	return names
}

func putGet(t *testing.T, s store.Store, size int) {
	objects := map[string][]byte{
		"empty":   {},
		"one":     {0},
		"x/y/z":   []byte("three\r\nlines\n\x00\xff\xfe"),
		"x/large": bytes.Repeat([]byte("0123456789abcdef"), largest/16)[:min(size, largest)],
	}
	for name, data := range objects {
		put(t, s, name, data)
	}
	for name, data := range objects {
		holds(t, s, name, data)
	}
}

// R7: a retried Put makes no second object.
func putAgain(t *testing.T, s store.Store) {
	for range 3 {
		put(t, s, "a/b", []byte("same"))
		put(t, s, "a/empty", nil)
	}
	holds(t, s, "a/b", []byte("same"))
	holds(t, s, "a/empty", nil)
}

// R3: nothing is ever replaced. A store that cannot tell may keep both.
func putOther(t *testing.T, s store.Store) {
	old, other := []byte("old"), []byte("new")
	put(t, s, "a/b", old)
	for _, data := range [][]byte{other, nil, []byte("older")} {
		err := s.Put(t.Context(), "a/b", data)
		if err != nil && !errors.Is(err, store.ErrExist) {
			t.Errorf("got %v, want ErrExist", err)
		}
		if got, getErr := s.Get(t.Context(), "a/b", store.Sum(old), roomy); !bytes.Equal(got, old) {
			t.Errorf("the first object was replaced: %q, %v", got, getErr)
		}
		got, getErr := s.Get(t.Context(), "a/b", store.Sum(data), roomy)
		if err == nil && (getErr != nil || !bytes.Equal(got, data)) {
			t.Errorf("Put said yes, and then %q, %v", got, getErr)
		}
		if err != nil && !errors.Is(getErr, store.ErrDamaged) {
			t.Errorf("Put refused, and then got %v, want ErrDamaged", getErr)
		}
	}
}

func bytesAreCopied(t *testing.T, s store.Store) {
	data := []byte("mine")
	put(t, s, "a", data)
	clear(data)
	got, err := s.Get(t.Context(), "a", "", roomy)
	if err != nil || string(got) != "mine" {
		t.Errorf("Put kept the caller's bytes: %q, %v", got, err)
	}
	clear(got)
	holds(t, s, "a", []byte("mine"))
}

func wantHash(t *testing.T, s store.Store) {
	put(t, s, "a", []byte("bytes"))
	for _, want := range []store.Hash{store.Sum(nil), "nonsense", store.Sum([]byte("bytes"))[:31]} {
		if got, err := s.Get(t.Context(), "a", want, roomy); !errors.Is(err, store.ErrDamaged) || got != nil {
			t.Errorf("hash %q: got %q, %v, want ErrDamaged", want, got, err)
		}
	}
}

// R18: an object is not read beyond the limit.
func limit(t *testing.T, s store.Store) {
	put(t, s, "ten", []byte("0123456789"))
	put(t, s, "none", nil)
	for _, want := range []store.Hash{"", store.Sum([]byte("0123456789"))} {
		if _, err := s.Get(t.Context(), "ten", want, 10); err != nil {
			t.Errorf("limit 10: %v", err)
		}
		for _, limit := range []int64{9, 1, 0} {
			if got, err := s.Get(t.Context(), "ten", want, limit); !errors.Is(err, store.ErrTooLarge) || got != nil {
				t.Errorf("limit %d: got %q, %v, want ErrTooLarge", limit, got, err)
			}
		}
	}
	if _, err := s.Get(t.Context(), "none", "", 0); err != nil {
		t.Errorf("empty object, limit 0: %v", err)
	}
}

// R2: the store answers that there is none, and says so in one way only.
func absent(t *testing.T, s store.Store) {
	check := func(name string) {
		t.Helper()
		for _, want := range []store.Hash{"", store.Sum(nil)} {
			if got, err := s.Get(t.Context(), name, want, roomy); !errors.Is(err, store.ErrNotExist) || got != nil {
				t.Errorf("%s: got %q, %v, want ErrNotExist", name, got, err)
			}
		}
	}
	check("a")
	check("a/b/c")
	if got := listed(t, s, ""); len(got) != 0 {
		t.Errorf("an empty store lists %q", got)
	}
	if err := s.Delete(t.Context(), store.Object{Name: "a", ID: "a"}); err != nil {
		t.Errorf("deleting what never was: %v", err)
	}
	put(t, s, "a/b", []byte("x"))
	check("a")     // a directory, to some stores
	check("a/b/c") // below an object
	check("a/bc")
	check("a/c")
	if got := listed(t, s, "c"); len(got) != 0 {
		t.Errorf("nothing has the prefix, and yet %q", got)
	}
}

func names(t *testing.T, s store.Store) {
	long := strings.TrimSuffix(strings.Repeat(strings.Repeat("n", 99)+"/", 6), "/")[:store.MaxName]
	all := []string{
		"a", "A-B_c.d", "with space/and (1).age", "BitcoinWalletBackup-Zoë-1a2b/slots/pin.age",
		"日本語/キー", "emoji-😀", "percent%41/plus+and&hash#at@eq=", "quote'tilde~comma,semi;[x]{y}!$^`", long,
		long[:store.MaxName-4] + "ü" + "é",
	}
	for i, name := range all {
		if err := store.CheckName(name); err != nil {
			t.Fatalf("the test's own name %q: %v", name, err)
		}
		put(t, s, name, fmt.Append(nil, i))
	}
	slices.Sort(all)
	if diff := cmp.Diff(all, listed(t, s, "")); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	list, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list {
		if _, err := s.Get(t.Context(), o.Name, "", roomy); err != nil {
			t.Errorf("%q is listed, but: %v", o.Name, err)
		}
		if err := s.Delete(t.Context(), o); err != nil {
			t.Errorf("deleting %q: %v", o.Name, err)
		}
	}
	if got := listed(t, s, ""); len(got) != 0 {
		t.Errorf("after deleting all: %q", got)
	}
}

// R18: no path is taken from a name.
func badNames(t *testing.T, s store.Store) {
	put(t, s, "a/b", []byte("x"))
	for _, name := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../../b", "a/.b", "a\\b", "C:a", "a\x00b", "a\nb", "a.", "a /b",
		"a\xffb", "*", strings.Repeat("n", store.MaxName+1),
	} {
		if err := s.Put(t.Context(), name, []byte("x")); err == nil {
			t.Errorf("Put(%q): no error", name)
		}
		if got, err := s.Get(t.Context(), name, "", roomy); err == nil || got != nil {
			t.Errorf("Get(%q): got %q, %v, want an error", name, got, err)
		}
	}
	if diff := cmp.Diff([]string{"a/b"}, listed(t, s, "")); diff != "" {
		t.Error(diff)
	}
	for _, prefix := range []string{"/", "../", "a//", "a/../a", ".", "a/./", "\\"} {
		if got := listed(t, s, prefix); len(got) != 0 {
			t.Errorf("List(%q): got %q, want none", prefix, got)
		}
	}
}

// R14: size is checked before the upload.
func tooLarge(t *testing.T, s store.Store) {
	if err := s.Put(t.Context(), "a", make([]byte, store.MaxObject+1)); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	if _, err := s.Get(t.Context(), "a", "", roomy); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

func list(t *testing.T, s store.Store) {
	all := []string{"a", "ab/c", "ab/cd/e", "ab/cd/f", "abc", "b/ab"}
	for _, name := range all {
		put(t, s, name, []byte(name))
	}
	for _, prefix := range []string{"", "a", "ab", "ab/", "ab/c", "ab/cd", "ab/cd/", "ab/cd/e", "ab/cd/e/", "abc/", "b", "c", "ab/c/"} {
		want := []string{}
		for _, name := range all {
			if strings.HasPrefix(name, prefix) {
				want = append(want, name)
			}
		}
		if diff := cmp.Diff(want, listed(t, s, prefix)); diff != "" {
			t.Errorf("prefix %q (-want +got):\n%s", prefix, diff)
		}
	}
}

func deleting(t *testing.T, s store.Store) {
	put(t, s, "a/b", []byte("1"))
	put(t, s, "a/c", []byte("2"))
	put(t, s, "d", []byte("3"))
	list, err := s.List(t.Context(), "a/b")
	if err != nil || len(list) != 1 {
		t.Fatalf("got %v, %v, want one object", list, err)
	}
	for range 2 { // The second time it is gone.
		if err := s.Delete(t.Context(), list[0]); err != nil {
			t.Errorf("Delete: %v", err)
		}
		if diff := cmp.Diff([]string{"a/c", "d"}, listed(t, s, "")); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := s.Get(t.Context(), "a/b", "", roomy); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	put(t, s, "a/b", []byte("other bytes now"))
	holds(t, s, "a/b", []byte("other bytes now"))
	holds(t, s, "a/c", []byte("2"))
}

// R3: of many who put one name, whoever was told yes finds his bytes.
func concurrentPuts(t *testing.T, s store.Store) {
	const writers = 8
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			if err := s.Put(t.Context(), "dir/same", []byte("same")); err != nil {
				t.Errorf("same bytes: %v", err)
			}
			errs[i] = s.Put(t.Context(), "dir/other", fmt.Append(nil, i))
		})
	}
	wg.Wait()
	told := 0
	for i, err := range errs {
		data := fmt.Append(nil, i)
		if err == nil {
			told++
			if got, err := s.Get(t.Context(), "dir/other", store.Sum(data), roomy); !bytes.Equal(got, data) {
				t.Errorf("writer %d was told yes, and then %q, %v", i, got, err)
			}
		} else if !errors.Is(err, store.ErrExist) {
			t.Errorf("writer %d: got %v, want ErrExist", i, err)
		}
	}
	if told == 0 {
		t.Error("nobody won")
	}
	if got, err := s.Get(t.Context(), "dir/same", store.Sum([]byte("same")), roomy); err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// concurrentUse puts, lists, gets and deletes at once, in directories that come and go.
func concurrentUse(t *testing.T, s store.Store) {
	put(t, s, "steady/object", []byte("here"))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for k := range 8 {
				name := fmt.Sprintf("dir%d/sub/%d", k%2, i)
				data := []byte(name)
				if err := s.Put(t.Context(), name, data); err != nil {
					t.Errorf("Put: %v", err)
					continue
				}
				if _, err := s.Get(t.Context(), name, store.Sum(data), roomy); err != nil {
					t.Errorf("Get: %v", err)
				}
				list, err := s.List(t.Context(), "")
				if err != nil {
					t.Errorf("List: %v", err)
				}
				found, steady := false, false
				for _, o := range list {
					steady = steady || o.Name == "steady/object"
					if o.Name == name {
						found = true
						if err := s.Delete(t.Context(), o); err != nil {
							t.Errorf("Delete: %v", err)
						}
					}
				}
				if !found || !steady {
					t.Errorf("listing left out an object: own %v, steady %v", !found, !steady)
				}
			}
		})
	}
	wg.Wait()
	if diff := cmp.Diff([]string{"steady/object"}, listed(t, s, "")); diff != "" {
		t.Error(diff)
	}
}

// R2: a call that was given up tells nothing about what exists.
func contextEnded(t *testing.T, s store.Store) {
	put(t, s, "a", []byte("x"))
	list, err := s.List(t.Context(), "a")
	if err != nil || len(list) != 1 {
		t.Fatalf("got %v, %v, want one object", list, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrExist) {
			t.Errorf("%s: got %v, want context.Canceled", what, err)
		}
	}
	check("Put", s.Put(ctx, "b", nil))
	_, err = s.Get(ctx, "a", "", roomy)
	check("Get", err)
	_, err = s.Get(ctx, "absent", "", roomy)
	check("Get of an absent object", err)
	_, err = s.List(ctx, "")
	check("List", err)
	check("Delete", s.Delete(ctx, list[0]))
	holds(t, s, "a", []byte("x"))
}
