package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The figures themselves are no test: only that they are measured, on a small
// backup. The same program serves as its own child.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == childArg {
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
