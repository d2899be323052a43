package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lines reads a log: every line must be an event.
func lines(t *testing.T, path string) (list []eventJSON) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range bytes.SplitSeq(bytes.TrimSpace(data), []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		var e eventJSON
		if err := json.Unmarshal(line, &e); err != nil {
			e = eventJSON{Event: "torn"}
		}
		list = append(list, e)
	}
	return list
}

func logged(id uint64) event {
	return event{JSON: eventJSON{ID: id, Event: "saved", Time: time.Unix(1, 0), Text: strings.Repeat("x", 100)}}
}

// The log is two files of bounded size, whatever happens, and has the last events.
func TestEventLog(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.log")
	failed := 0
	l := &eventLog{path: path, max: 2000, fail: func(error) { failed++ }}
	id := uint64(0)
	for range 3 {
		for range 40 {
			id++
			l.add(logged(id))
		}
		l.close() // Another agent goes on.
		l = &eventLog{path: path, max: 2000, fail: l.fail}
	}
	all := append(lines(t, path+".1"), lines(t, path)...)
	for i, e := range all {
		if want := id - uint64(len(all)-1-i); e.ID != want {
			t.Fatalf("line %d: got %+v, want %d", i, e, want)
		}
	}
	for _, name := range []string{path, path + ".1"} {
		if info, err := os.Stat(name); err != nil || info.Size() > 2000 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got %v, %v", name, info, err)
		}
	}
	if len(all) < 10 || failed != 0 {
		t.Errorf("%d events are left, and %d writes failed", len(all), failed)
	}

	// The power failed in the middle of a line.
	if err := os.WriteFile(path, []byte(`{"id":1,"eve`), 0o600); err != nil {
		t.Fatal(err)
	}
	l.add(logged(500))
	l.close()
	if got := lines(t, path); len(got) != 2 || got[0].Event != "torn" || got[1].ID != 500 {
		t.Errorf("got %+v", got)
	}

	// Nothing can be written for a while: that is told once, and counted.
	away := filepath.Join(dir, "not there yet")
	l = &eventLog{path: filepath.Join(away, "agent.log"), max: 2000, fail: l.fail}
	for i := range 3 {
		l.add(logged(uint64(600 + i)))
	}
	if failed != 1 {
		t.Errorf("told %d times, want once", failed)
	}
	if err := os.Mkdir(away, 0o700); err != nil {
		t.Fatal(err)
	}
	l.add(logged(700))
	l.close()
	if got := lines(t, l.path); len(got) != 2 || got[0].Event != "log lost" || got[0].Objects != 3 || got[1].ID != 700 {
		t.Errorf("got %+v", got)
	}
}
