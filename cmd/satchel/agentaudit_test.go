//go:build unix

package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// heedless is a supervisor of a home without wallets, which nothing runs.
func heedless(t *testing.T) (s *supervisor, wallets string) {
	t.Helper()
	home := t.TempDir()
	a := &app{getenv: func(k string) string { return map[string]string{"SATCHEL_HOME": home}[k] }, now: time.Now}
	return newSupervisor(a, 0, 0), filepath.Join(home, "wallets")
}

// hasDevice makes what looks like a wallet that was made two hours ago.
func hasDevice(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "device.json")
	writeFile(t, path, "{}")
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
}

// The new wallet of a rekey that is not finished is left alone while the old one is there,
// however old it is and whether anything is watched or not: what is put into both of them
// would keep the rekey from ever being finished.
func TestAgentLeavesRekeying(t *testing.T) {
	s, wallets := heedless(t)
	hasDevice(t, filepath.Join(wallets, "old"))
	hasDevice(t, filepath.Join(wallets, "new-1"))
	hasDevice(t, filepath.Join(wallets, "new-2")) // Of a create that was killed.
	if err := s.app.inheritWatched(t.Context(), "old", "new-1"); err != nil {
		t.Fatal(err)
	}
	want := func(names ...string) {
		t.Helper()
		got, err := s.wallets()
		if slices.Sort(got); err != nil || !slices.Equal(got, names) {
			t.Errorf("got %q, %v, want %q", got, err, names)
		}
	}
	want("new-2", "old")
	if err := os.RemoveAll(filepath.Join(wallets, "old")); err != nil {
		t.Fatal(err)
	}
	want("new-1", "new-2")
}

// An open of a channel that is cut short while the wallet is kept up to date is told, and so
// is that there is none any more.
func TestOpenLeftTold(t *testing.T) {
	s, wallets := heedless(t)
	if err := os.MkdirAll(filepath.Join(filepath.Dir(wallets), "watch"), 0o700); err != nil {
		t.Fatal(err)
	}
	var events []eventJSON
	w := &watch{app: s.app, name: "Sam", tell: func(e event) { events = append(events, e.JSON) }}
	w.openLeft()
	writeFile(t, s.app.lndJournal("Sam"), "damaged")
	w.openLeft()
	w.openLeft()
	if err := os.Remove(s.app.lndJournal("Sam")); err != nil {
		t.Fatal(err)
	}
	w.openLeft()
	w.openLeft()
	if len(events) != 2 || events[0].Event != "open unfinished" || events[0].Error == "" || events[1].Event != "open unfinished" || events[1].Error != "" {
		t.Errorf("got %+v", events)
	}
}

// A wallet whose folder goes without a command of Satchel is told to be gone, with an error;
// one that was to go, without.
func TestAgentGone(t *testing.T) {
	for _, asked := range []bool{false, true} {
		s, wallets := heedless(t)
		if err := os.MkdirAll(filepath.Join(filepath.Dir(wallets), "agent"), 0o700); err != nil {
			t.Fatal(err)
		}
		lock, err := s.app.agentLock()
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Unlock()
		dir := filepath.Join(wallets, "Sam")
		hasDevice(t, dir) // It cannot be opened: the session ends, and looks again.
		var got []eventJSON
		ended := make(chan bool, 100)
		s.hooks = append(s.hooks, func(e event) {
			got = append(got, e.JSON) // One at a time, and read when the session is over.
			ended <- true
		})
		ses := newSession("Sam", dir, 0, time.Now())
		done := make(chan bool)
		go func() { s.keepUp(t.Context(), ses); close(done) }()
		<-ended
		if asked {
			s.app.letGo("Sam")
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		<-done
		last := got[len(got)-1]
		if last.Event != "gone" || (last.Error == "") != asked {
			t.Errorf("asked %v: got %+v", asked, last)
		}
		if s.app.mayGo("Sam") {
			t.Error("the next one of this name may go")
		}
	}
}

// Who stops reading what an agent prints holds up nobody, and is told what was left out.
func TestPrinterStalls(t *testing.T) {
	stall := make(chan bool)
	var got []eventJSON
	p := newPrinter(func(e event) { <-stall; got = append(got, e.JSON) })
	for id := range uint64(3000) {
		p.add(event{JSON: eventJSON{ID: id + 1, Event: "saved"}})
	}
	close(stall)
	for len(p.queue) > 0 {
		time.Sleep(time.Millisecond)
	}
	p.add(event{JSON: eventJSON{ID: 3001, Event: "saved"}})
	p.end()
	<-p.done
	missed := got[len(got)-2]
	if got[0].ID != 1 || got[len(got)-1].ID != 3001 || missed.Event != "missed" || missed.ID != 3000 || missed.Objects+len(got)-2 != 3000 {
		t.Errorf("got %d, the last but one %+v", len(got), missed)
	}
}
