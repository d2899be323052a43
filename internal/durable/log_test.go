package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/internal/durable"
)

func open(t *testing.T, path string) (*durable.Log, []string, int64) {
	t.Helper()
	l, records, cut, err := durable.Disk{}.OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	return l, texts(records), cut
}

func texts(records [][]byte) []string {
	var out []string
	for _, r := range records {
		out = append(out, string(r))
	}
	return out
}

func add(t *testing.T, l *durable.Log, records ...string) {
	t.Helper()
	var all [][]byte
	for _, r := range records {
		all = append(all, []byte(r))
	}
	if err := l.AppendAll(all); err != nil {
		t.Fatal(err)
	}
}

// sample writes a log of four groups and returns its bytes, and the length and
// the records after each group.
func sample(t testing.TB) (data []byte, lengths []int64, records [][]string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	l, _, _, err := durable.Disk{}.OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	var so []string
	lengths, records = append(lengths, l.Size()), append(records, nil)
	for _, group := range [][]string{{"one"}, {""}, {"two", "", "three"}, {"the last one"}} {
		var all [][]byte
		for _, r := range group {
			all = append(all, []byte(r))
		}
		if err := l.AppendAll(all); err != nil {
			t.Fatal(err)
		}
		so = append(so, group...)
		lengths, records = append(lengths, l.Size()), append(records, append([]string(nil), so...))
	}
	data, err = os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data, lengths, records
}

func TestLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, records, cut := open(t, path)
	if len(records) != 0 || cut != 0 {
		t.Errorf("new log: got %q, %d", records, cut)
	}
	add(t, l, "one")
	add(t, l, "two", "", "three")
	add(t, l)
	l, records, cut = open(t, path)
	if diff := cmp.Diff([]string{"one", "two", "", "three"}, records); diff != "" || cut != 0 {
		t.Errorf("cut %d: %s", cut, diff)
	}
	add(t, l, "four")
	if err := l.Rewrite([][]byte{[]byte("4"), nil}); err != nil {
		t.Fatal(err)
	}
	add(t, l, "five")
	_, records, _ = open(t, path)
	if diff := cmp.Diff([]string{"4", "", "five"}, records); diff != "" {
		t.Error(diff)
	}
}

func TestLogConcurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, _, _ := open(t, path)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := range 4 {
				if err := l.Append(fmt.Append(nil, i, k)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, records, _ := open(t, path); len(records) != 32 {
		t.Errorf("got %d records, want 32", len(records))
	}
}

// A crash during an append leaves any part of it. R4: what was appended before stays.
func TestLogTorn(t *testing.T) {
	data, lengths, records := sample(t)
	for size := lengths[0]; size <= int64(len(data)); size++ {
		group := 0
		for lengths[group+1:] != nil && group+1 < len(lengths) && lengths[group+1] <= size {
			group++
		}
		for _, tail := range []string{"cut", "zeros", "garbage"} {
			torn := bytes.Clone(data[:size])
			if size < int64(len(data)) {
				end := int64(len(data))
				if group+1 < len(lengths) {
					end = lengths[group+1]
				}
				switch tail {
				case "zeros": // The length of the file was durable before its blocks.
					torn = append(torn, make([]byte, end-size)...)
				case "garbage":
					torn = append(torn, bytes.Repeat([]byte{0xa5}, int(end-size))...)
				}
			}
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			wantGroup := group
			if bytes.Equal(torn, data[:len(torn)]) { // The zeros were right.
				for wantGroup+1 < len(lengths) && lengths[wantGroup+1] <= int64(len(torn)) {
					wantGroup++
				}
			}
			l, got, cut := open(t, path)
			if diff := cmp.Diff(records[wantGroup], got); diff != "" {
				t.Errorf("%s at %d: %s", tail, size, diff)
			}
			if want := int64(len(torn)) - lengths[wantGroup]; cut != want {
				t.Errorf("%s at %d: cut %d, want %d", tail, size, cut, want)
			}
			add(t, l, "next")
			if _, got, cut := open(t, path); cut != 0 || got[len(got)-1] != "next" || len(got) != len(records[wantGroup])+1 {
				t.Errorf("%s at %d: then %q, cut %d", tail, size, got, cut)
			}
		}
	}
}

// The blocks of a torn group may reach the disk in any order: its end may be
// there without its beginning.
func TestLogTornBeginning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, _, _ := open(t, path)
	add(t, l, "kept")
	good := l.Size()
	inner, err := os.ReadFile(path) // A log inside a record passes for nothing, even this one.
	if err != nil {
		t.Fatal(err)
	}
	add(t, l, string(inner), "a", string(inner), "b")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(1); good+n <= int64(len(data)); n++ {
		torn := bytes.Clone(data)
		clear(torn[good : good+n])
		if bytes.Equal(torn, data) {
			continue // The first bytes of the length are zero anyway.
		}
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, got, cut := open(t, path); len(got) != 1 || cut != int64(len(data))-good {
			t.Fatalf("%d bytes lost: got %q, cut %d", n, got, cut)
		}
	}
}

// Damage that no crash explains is reported, and nothing is changed: whatever
// byte of a group that is not the last one is wrong. R5: damaged is not torn.
func TestLogCorrupt(t *testing.T) {
	data, lengths, _ := sample(t)
	last := lengths[len(lengths)-2]
	for i := range data {
		for _, mask := range []byte{0x01, 0x80, 0xff} {
			bad := bytes.Clone(data)
			bad[i] ^= mask
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			_, records, _, err := durable.Disk{}.OpenLog(path)
			if int64(i) >= last {
				if err != nil || len(records) != 5 {
					t.Errorf("byte %d: got %q, %v", i, records, err)
				}
				continue
			}
			if !errors.Is(err, durable.ErrCorrupt) {
				t.Errorf("byte %d ^ %#x: got %v, want ErrCorrupt", i, mask, err)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(after, bad) {
				t.Errorf("byte %d: the file was changed", i)
			}
		}
	}
	for size := range lengths[0] {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, data[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := (durable.Disk{}).OpenLog(path); !errors.Is(err, durable.ErrCorrupt) {
			t.Errorf("%d bytes: got %v, want ErrCorrupt", size, err)
		}
	}
}

func TestLogLimits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, _, _ := open(t, path)
	if err := l.Append(make([]byte, durable.MaxRecord+1)); !errors.Is(err, durable.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	big := make([]byte, durable.MaxRecord)
	if err := l.AppendAll([][]byte{big, big}); !errors.Is(err, durable.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	if err := l.Rewrite([][]byte{make([]byte, durable.MaxRecord+1)}); !errors.Is(err, durable.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	add(t, l, "fine")
	if err := os.Truncate(path, durable.MaxLog+1); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := (durable.Disk{}).OpenLog(path); !errors.Is(err, durable.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	if err := l.Append(nil); !errors.Is(err, durable.ErrCorrupt) {
		t.Errorf("file of another length: got %v, want ErrCorrupt", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("file gone: got %v, want ErrNotExist", err)
	}
}

// Each step of an append and of a rewrite fails both ways, once or from then on.
// The log has what was promised and nothing that was refused, and goes on.
func TestLogStepsFail(t *testing.T) {
	broken := errors.New("broken")
	for _, op := range []string{"append", "rewrite"} {
		for _, forever := range []bool{false, true} {
			for n := 0; ; n++ {
				name := fmt.Sprintf("%s, forever %v, step %d", op, forever, n)
				path := filepath.Join(t.TempDir(), "log")
				count, armed := 0, false
				d := durable.Disk{Hook: func(s durable.Step) error {
					if armed {
						count++
						if count == n+1 || forever && count > n {
							return broken
						}
					}
					return nil
				}}
				l, _, _, err := d.OpenLog(path)
				if err != nil {
					t.Fatal(err)
				}
				add(t, l, "one", "two")
				armed = true
				want := []string{"one", "two"}
				if op == "append" {
					if err = l.Append([]byte("three")); err == nil {
						want = append(want, "three")
					}
				} else {
					if err = l.Rewrite([][]byte{[]byte("1+2")}); err == nil {
						want = []string{"1+2"}
					}
				}
				if count <= n {
					break
				}
				if err == nil && forever {
					t.Errorf("%s: no error", name)
				}
				if err != nil && !errors.Is(err, broken) {
					t.Errorf("%s: got %v", name, err)
				}
				armed = false // The disk is well again.
				if errors.Is(err, durable.ErrReopen) {
					if err := l.Append([]byte("four")); !errors.Is(err, durable.ErrReopen) {
						t.Errorf("%s: got %v, want ErrReopen", name, err)
					}
					if _, got, _ := open(t, path); len(got) != 1 && len(got) != 2 {
						t.Errorf("%s: got %q", name, got)
					}
					continue
				}
				add(t, l, "four")
				want = append(want, "four")
				if _, got, cut := open(t, path); !cmp.Equal(got, want) || cut != 0 {
					t.Errorf("%s: got %q, cut %d, want %q", name, got, cut, want)
				}
			}
		}
	}
}

// R18: whatever the file holds, the reader takes no more memory than the file
// has bytes, and what it returns is what it would write.
func FuzzOpenLog(f *testing.F) {
	data, lengths, _ := sample(f)
	f.Add(data)
	for _, n := range lengths {
		f.Add(data[:n])
		f.Add(data[:n-1])
	}
	path := filepath.Join(f.TempDir(), "log")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, records, cut, err := durable.Disk{}.OpenLog(path)
		after, readErr := os.ReadFile(path)
		if readErr != nil {
			t.Fatal(readErr)
		}
		if err != nil {
			if !bytes.Equal(after, data) {
				t.Error("an unreadable log was changed")
			}
			return
		}
		if !bytes.Equal(after, data[:int64(len(data))-cut]) {
			t.Error("more was changed than cut off")
		}
		if err := l.Append([]byte("next")); err != nil {
			t.Fatal(err)
		}
		_, again, cut, err := durable.Disk{}.OpenLog(path)
		if err != nil || cut != 0 {
			t.Fatalf("second opening: cut %d, %v", cut, err)
		}
		if !cmp.Equal(texts(again), append(texts(records), "next")) {
			t.Error("second opening returns other records")
		}
	})
}

// A Log knows whether its file is as it left it.
func TestUnchanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var d durable.Disk
	a, _, _, err := d.OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Append([]byte("one")); err != nil {
		t.Fatal(err)
	}
	if !a.Unchanged() {
		t.Error("changed, and nobody did")
	}
	b, _, _, err := d.OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Rewrite([][]byte{[]byte("two")}); err != nil { // of the same length
		t.Fatal(err)
	}
	if a.Size() != b.Size() || a.Unchanged() || !b.Unchanged() {
		t.Errorf("written anew: sizes %d and %d, unchanged %v and %v", a.Size(), b.Size(), a.Unchanged(), b.Unchanged())
	}
	c, _, _, err := d.OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Append([]byte("three")); err != nil {
		t.Fatal(err)
	}
	if b.Unchanged() || !c.Unchanged() {
		t.Error("appended to, and it was not noticed")
	}
	os.Remove(path)
	if c.Unchanged() {
		t.Error("gone, and it was not noticed")
	}
}
