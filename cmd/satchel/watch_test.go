//go:build unix

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watcher is a "satchel watch" that runs beside the test.
type watcher struct {
	*person
	cmd    *exec.Cmd
	events chan eventJSON
	seen   []eventJSON
	others []eventJSON // of an agent's wallets, that nobody waited for yet
}

// watch starts satchel watch for the person's wallet.
func (p *person) watch(args ...string) *watcher {
	p.t.Helper()
	return p.starts(append([]string{"watch", "--json"}, args...)...)
}

// sees waits for an event of a kind, and of an item or path if that is not "".
func (w *watcher) sees(event, name string) eventJSON {
	w.t.Helper()
	late := time.After(time.Minute)
	for {
		select {
		case e, ok := <-w.events:
			w.seen = append(w.seen, e)
			if ok && e.Event == event && e.names(name) {
				return e
			}
			if ok {
				continue
			}
		case <-late:
		}
		w.t.Fatalf("no event %q of %q in %+v", event, name, w.seen)
	}
}

// ends waits for the end, after a signal if it is not 0, and compares the code.
func (w *watcher) ends(signal syscall.Signal, code int) {
	w.t.Helper()
	if signal != 0 {
		if err := w.cmd.Process.Signal(signal); err != nil {
			w.t.Fatal(err)
		}
	}
	for e := range w.events {
		w.seen = append(w.seen, e)
	}
	w.cmd.Wait()
	if got := w.cmd.ProcessState.ExitCode(); got != code {
		w.t.Fatalf("exit code %d, want %d: %+v", got, code, w.seen)
	}
}

// does runs another satchel to its end and returns what it printed.
func (p *person) does(code int, args ...string) string {
	p.t.Helper()
	path, err := exec.LookPath("satchel")
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.CommandContext(p.t.Context(), path, args...)
	cmd.Env = p.env()
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		p.t.Fatalf("satchel %v: %v, want code %d: %s", args, err, code, out)
	}
	return string(out)
}

func writeFile(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// The first point, as a user sees it: files and items are saved by
// themselves at every change, whatever happens in between.
func TestWatch(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	place, dir := filepath.Join(p.dir, "elsewhere"), filepath.Join(p.dir, "files")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a := filepath.Join(dir, "a")
	writeFile(t, a, "1")
	p.does(0, "create", "--in", place, "--unlock", "recovery-code", "--json")
	w := p.watch(dir)
	if e := w.sees("watching", "files"); len(e.Places) != 1 || e.Places[0].Address != "folder:"+place {
		t.Errorf("it does not say where things go: %+v", e)
	}
	if e := w.sees("saved", "file/files/a"); !*e.Protected || e.Generation != 2 {
		t.Errorf("got %+v", e)
	}
	writeFile(t, a, "2")
	w.sees("saved", "file/files/a")

	// Other commands work meanwhile.
	p.does(0, "put", "settings", a)
	if out := p.does(0, "status"); !strings.Contains(out, "Protected: generation 4") {
		t.Errorf("got %s", out)
	}
	if err := os.Symlink(a, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	w.sees("left out", "")

	// The drive is unplugged: kept here, and brought there when it is back, also what
	// another command could not.
	rename(t, place, place+".away")
	writeFile(t, a, "3")
	if e := w.sees("saved", "file/files/a"); *e.Protected || e.Code != 27 {
		t.Errorf("got %+v", e)
	}
	p.does(27, "put", "contacts", a)
	rename(t, place+".away", place)
	if e := w.sees("caught up", ""); !*e.Protected || e.Generation != 6 {
		t.Errorf("got %+v", e)
	}

	// The power fails, and something changes meanwhile. No path is needed.
	w.ends(syscall.SIGKILL, -1)
	writeFile(t, a, "4")
	for _, command := range [][]string{{"status"}, {"watch", "--list"}} {
		if out := p.does(3, command...); !strings.Contains(out, "neither an agent nor satchel watch is running") || !strings.Contains(out, a) {
			t.Errorf("%v hides that nobody watches: %s", command, out)
		}
	}
	if out := p.does(3, "status", "--json"); !strings.Contains(out, `"watching":false`) || !strings.Contains(out, `{"path":"`+a+`","error":"it changed, and that is not saved","failed":true,"unsaved":true}`) {
		t.Errorf("got %s", out)
	}
	w = p.watch()
	w.sees("watching", "files")
	w.sees("saved", "file/files/a")

	// Another path and another place, while it runs.
	b := filepath.Join(p.dir, "b")
	writeFile(t, b, "5")
	if out := p.does(0, "watch", b); !strings.Contains(out, "watches this too") {
		t.Errorf("got %s", out)
	}
	p.does(1, "watch")
	w.sees("watching", "b")
	w.sees("saved", "file/b")
	p.does(0, "store", "add", filepath.Join(p.dir, "Dropbox"))
	if e := w.sees("watching", "b"); len(e.Places) != 2 {
		t.Errorf("got %+v", e)
	}
	writeFile(t, b, "6")
	if e := w.sees("saved", "file/b"); len(e.Places) != 2 || e.Places[1].Health != "protected" {
		t.Errorf("got %+v", e)
	}
	w.ends(syscall.SIGTERM, 0)
	w = p.watch()
	w.sees("watching", "b")
	w.ends(syscall.SIGINT, 0)
	if last := w.seen[len(w.seen)-1]; last.Event != "ended" || last.Code != 0 {
		t.Errorf("got %+v", last)
	}

	// What is not here any more ends it, with a clear error.
	w = p.watch()
	w.sees("watching", "b")
	p.does(0, "forget", "--yes-forget", "Wallet")
	w.ends(0, 1)
	if last := w.seen[len(w.seen)-1]; !strings.Contains(last.Error, "no wallet on this device") {
		t.Errorf("got %+v", last)
	}
}

// Another device takes over: that watching has ended is said, and what is not saved.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	place, a := filepath.Join(p.dir, "elsewhere"), filepath.Join(p.dir, "a")
	writeFile(t, a, "1")
	p.does(0, "create", "--in", place, "--unlock", "recovery-code", "--json")
	w := p.watch(a)
	w.sees("saved", "file/a")
	folders, err := filepath.Glob(filepath.Join(place, "BitcoinWalletBackup-*"))
	if err != nil || len(folders) != 1 {
		t.Fatal(folders, err)
	}
	foreign := "000002-0000000003-0123456789abcdef-0123456789abcdef0123456789abcdef.age"
	writeFile(t, filepath.Join(folders[0], "snapshots", foreign), "another's")
	writeFile(t, a, "2")
	if e := w.sees("ended", "file/a"); e.Code != 11 || e.Time.IsZero() {
		t.Errorf("got %+v", e)
	}
	w.ends(0, 11)
	if out := p.does(0, "forget", "--yes-forget", "Wallet"); strings.Contains(out, "lost") {
		t.Errorf("what a place holds is said to be lost: %s", out)
	}
}

// What a place lost is noticed by the check and put back (R8).
func TestWatchHeals(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	place := filepath.Join(p.dir, "elsewhere")
	p.does(0, "create", "--in", place, "--unlock", "recovery-code", "--json")
	w := p.watch("--every", "500ms")
	w.sees("checked", "")
	slots, err := filepath.Glob(filepath.Join(place, "BitcoinWalletBackup-*", "slots", "*"))
	if err != nil || len(slots) != 1 {
		t.Fatal(slots, err)
	}
	if err := os.Remove(slots[0]); err != nil {
		t.Fatal(err)
	}
	for e := w.sees("checked", ""); ; e = w.sees("checked", "") {
		if len(e.Findings) > 0 {
			if e.Findings[0].Code != 18 || !strings.Contains(e.Findings[0].Object, "slots/") {
				t.Errorf("got %+v", e)
			}
			break
		}
	}
	w.sees("caught up", "")
	if _, err := os.Stat(slots[0]); err != nil {
		t.Error(err)
	}
	w.ends(syscall.SIGTERM, 0)
}

// A person reads lines.
func TestWatchLines(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	file := filepath.Join(p.dir, "wallet.dat")
	writeFile(t, file, "1")
	p.does(0, "create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--json")
	p.run("watch", file)
	const at = `\d\d:\d\d:\d\d `
	p.expect(at + `watching .*wallet\.dat; Wallet is kept in folder:`)
	p.expect(at + `saved file/wallet\.dat, generation 2: protected in 1 place`)
	rename(t, filepath.Join(p.dir, "elsewhere"), filepath.Join(p.dir, "gone"))
	writeFile(t, file, "2")
	p.expect(at + `saved file/wallet\.dat, generation 3: on this device only, not protected yet; folder:.*unreachable`)
	rename(t, filepath.Join(p.dir, "gone"), filepath.Join(p.dir, "elsewhere"))
	p.expect(at + `brought up what was late, generation 3: protected in 1 place`)
	p.typed("\x03")
	p.ends(0)
}

// Its own log in the folder that it watches: saving that would never end.
func TestWatchOwnLog(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	dir := filepath.Join(p.dir, "files")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p.does(0, "create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--json")
	path, err := exec.LookPath("satchel")
	if err != nil {
		t.Fatal(err)
	}
	a, log := filepath.Join(dir, "a"), filepath.Join(dir, "log")
	writeFile(t, a, "1")
	for range 2 {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", `exec "$1" watch --once "$2" >>"$3" 2>&1`, "sh", path, dir, log)
		cmd.Env = p.env()
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
	}
	if out := p.does(0, "items"); strings.Contains(out, "file/files/log") || !strings.Contains(out, "file/files/a") {
		t.Errorf("saved: %s", out)
	}
	if said, err := os.ReadFile(log); err != nil || strings.Count(string(said), "left out "+log+": it is what this program writes") != 2 {
		t.Errorf("the log has %s, %v", said, err)
	}
}

// The lines of the events that are seldom.
func TestEventLines(t *testing.T) {
	if got := itemNames("", []string{"a", "b", "c"}); got != "a, b, c" {
		t.Errorf("got %q", got)
	}
	if got := itemNames("removal of ", []string{"a", "b", "c", "d"}); got != "removal of 4 items" {
		t.Errorf("got %q", got)
	}
	for _, c := range []struct{ dir, path string }{{"/a", "/a"}, {"/a", "/a/b"}, {"/a", "/a/..b"}} {
		if !within(c.dir, c.path) {
			t.Errorf("%s is not within %s", c.path, c.dir)
		}
	}
	for _, c := range []struct{ dir, path string }{{"/a", "/ab"}, {"/a/b", "/a"}, {"/a", "/"}} {
		if within(c.dir, c.path) {
			t.Errorf("%s is within %s", c.path, c.dir)
		}
	}
}

// New keys for a wallet that is watched: the watch goes on with the backup that took
// its place.
func TestWatchRekey(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	out := p.does(0, "create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--json")
	var made struct{ Secret, Folder string }
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	notes, code := filepath.Join(p.dir, "notes"), filepath.Join(p.dir, "code")
	writeFile(t, notes, "1")
	writeFile(t, code, made.Secret)
	w := p.watch(notes)
	w.sees("saved", "file/notes")
	path, err := exec.LookPath("satchel")
	if err != nil {
		t.Fatal(err)
	}
	rekey := exec.CommandContext(t.Context(), "sh", "-c", `exec "$1" rekey --unlock recovery-code --yes --json --secret-fd 3 3<"$2"`, "sh", path, code)
	rekey.Env = p.env()
	if out, err := rekey.CombinedOutput(); err != nil {
		t.Fatalf("rekey: %v: %s", err, out)
	}
	w.sees("watching", "notes")
	writeFile(t, notes, "2")
	w.sees("saved", "file/notes")
	if got := p.does(0, "get", "file/notes"); got != "2" {
		t.Errorf("got %q", got)
	}
	if got := p.does(0, "watch", "--list"); !strings.Contains(got, notes) || strings.Contains(got, "not running") {
		t.Errorf("watched: %s", got)
	}
	if got := p.does(0, "status", "--json"); !strings.Contains(got, `"watching":true`) {
		t.Errorf("got %s", got)
	}
	w.ends(syscall.SIGTERM, 0)
}
