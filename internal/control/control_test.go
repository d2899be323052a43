package control_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/internal/control"
)

// dir is a folder with a short name: the path of a socket is short.
func dir(t *testing.T) string {
	t.Helper()
	d, err := os.MkdirTemp("", "c")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	return d
}

func TestListen(t *testing.T) {
	path := filepath.Join(dir(t), "agent", "control.sock")
	_, err := control.Listen(path)
	if errors.Is(err, control.ErrUnsupported) {
		t.Skip("no such socket on this system")
	}
	if err != nil {
		t.Fatal(err)
	}
	// What a process that was killed left behind is no hindrance.
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: got %v, %v, want %v", name, info, err, want)
		}
	}
	server := &http.Server{Handler: control.Guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))}
	defer server.Close()
	go server.Serve(l)
	res, err := control.Client(path).Get("http://" + control.Host + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); string(body) != "hello" || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
	if _, err := control.Listen(filepath.Join(dir(t), strings.Repeat("d", 100), "s")); !errors.Is(err, control.ErrPath) {
		t.Errorf("got %v, want %v", err, control.ErrPath)
	}
	// A file of the user's is not taken away.
	file := filepath.Join(dir(t), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.Listen(file); err == nil {
		t.Error("it listens where a file is")
	}
	if data, err := os.ReadFile(file); string(data) != "mine" {
		t.Errorf("got %q, %v", data, err)
	}
}

// ids are those of the entries that a ring gives out.
func ids(list []control.Entry) (got []uint64) {
	for _, e := range list {
		got = append(got, e.ID)
	}
	return got
}

func TestRing(t *testing.T) {
	r := control.NewRing(3)
	if list, missed, _ := r.Since(0); len(list) != 0 || missed != 0 || r.Last() != 0 {
		t.Errorf("got %v, %d, %d", list, missed, r.Last())
	}
	for id := uint64(10); id < 15; id++ {
		r.Add(control.Entry{ID: id, Line: []byte("{}\n")})
	}
	for _, c := range []struct {
		since, missed uint64
		want          []uint64
	}{
		{0, 11, []uint64{12, 13, 14}}, {10, 11, []uint64{12, 13, 14}}, {11, 0, []uint64{12, 13, 14}}, {13, 0, []uint64{14}}, {14, 0, nil}, {99, 0, nil},
	} {
		list, missed, _ := r.Since(c.since)
		if diff := cmp.Diff(c.want, ids(list)); diff != "" || missed != c.missed {
			t.Errorf("since %d: missed %d, want %d\n%s", c.since, missed, c.missed, diff)
		}
	}
	// Large events do not fill the memory.
	for id := uint64(20); id < 23; id++ {
		r.Add(control.Entry{ID: id, Line: make([]byte, 3<<20)})
	}
	if list, missed, _ := r.Since(0); len(list) != 1 || missed != 21 {
		t.Errorf("got %v, %d", ids(list), missed)
	}
}

func TestRingWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := control.NewRing(3)
		_, _, more := r.Since(0)
		select {
		case <-more:
			t.Fatal("there is nothing")
		default:
		}
		go r.Add(control.Entry{ID: 1})
		<-more
		if r.Last() != 1 {
			t.Errorf("got %d", r.Last())
		}
	})
}
