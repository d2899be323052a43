package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The figures themselves are no test: only that they are measured, on a small
// backup. The same program serves as its own child.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && (os.Args[1] == childArg || os.Args[1] == profiledArg) {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestChange(t *testing.T) {
	var out bytes.Buffer
	b := &bench{out: &out, log: t.Output(), dir: t.TempDir(), size: size{items: []int{1, 10}, value: 3000, small: 5, large: 3}}
	if err := b.change(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| 100 B | 1 | ", "| 100 B | 10 | ", "| 3,000 B | 10 | ", "<= 3,184 | yes", "| yes | 2,"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// The whole part runs, with servers of its own, and each answer is the right one.
func TestKeyserver(t *testing.T) {
	if !canWatch {
		t.Skip("this system does not tell what another process takes")
	}
	var out bytes.Buffer
	b := &bench{out: &out, log: t.Output(), dir: t.TempDir(), size: size{accounts: 20, rounds: 4, callers: 5, others: 2000, rest: 1, bare: 10}}
	if err := b.keyserver(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"80 recoveries over 5 connections", "| SQLite | ", "| 3,000 | ", "| Ed25519, one signature checked | "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// A wrong evaluation, and a guess that somebody else made, end a run.
func TestKeyserverIsRight(t *testing.T) {
	if !canWatch {
		t.Skip("this system does not tell what another process takes")
	}
	b := &bench{log: t.Output(), dir: t.TempDir()}
	r, _, err := b.newRecords(t.Context(), "SQLite")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.enrol(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	r.used[1].evaluated = r.used[0].evaluated
	p, err := profiledServer(r, b.path("profile"))
	if err != nil {
		t.Fatal(err)
	}
	err = b.runServer(t.Context(), p, func(s *server) error {
		_, err := s.load(t.Context(), r, 2, 1, 0)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "not the right one") {
		t.Errorf("got %v", err)
	}
}

// A stack counts for the part that it is in.
func TestTraces(t *testing.T) {
	const out = `Type: cpu
-----------+-------------------------------------------------------
      30ms   edwards25519.(*Element).Square
             crypto/ed25519.Verify
             net/http.(*conn).serve
-----------+-------------------------------------------------------
      10ms   syscall.Syscall
             internal/poll.(*FD).Write
-----------+-------------------------------------------------------
`
	got := sorted(traces([]byte(out)))
	if want := []share{{"Ed25519", 75}, {"HTTP and the network", 25}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// What is counted is what is in the folder.
func TestCounted(t *testing.T) {
	dir := t.TempDir()
	spec := changeSpec{Dir: dir, Items: 1, Value: 10, Small: 1, Large: 1}
	r, err := measureChanges(t.Context(), spec)
	if err != nil || len(r.Small.Bytes) != 1 || len(r.Large.Times) != 1 || r.Small.Bytes[0] < 1000 {
		t.Errorf("got %+v, %v", r, err)
	}
	n, files, err := content(filepath.Join(dir, "place"))
	if err != nil || n < r.Small.Bytes[0] || files < 5 {
		t.Errorf("got %d bytes in %d files, %v", n, files, err)
	}
}

func TestQuantile(t *testing.T) {
	list := []time.Duration{5, 1, 4, 2, 3}
	for percent, want := range map[int]time.Duration{0: 1, 50: 3, 95: 5, 100: 5} {
		if got := quantile(list, percent); got != want {
			t.Errorf("%d %%: got %d, want %d", percent, got, want)
		}
	}
	if got := mean(list); got != 3 {
		t.Errorf("got a mean of %d, want 3", got)
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := number(n); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
