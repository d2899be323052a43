//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// agent starts "satchel agent run" for the person's wallets.
func (p *person) agent(args ...string) *watcher {
	p.t.Helper()
	return p.starts(append([]string{"agent", "run", "--json"}, args...)...)
}

// starts starts a satchel that prints events and does not end.
func (p *person) starts(args ...string) *watcher {
	p.t.Helper()
	path, err := exec.LookPath("satchel")
	if err != nil {
		p.t.Fatal(err)
	}
	w := &watcher{person: p, events: make(chan eventJSON, 1000)}
	w.cmd = exec.CommandContext(p.t.Context(), path, args...)
	w.cmd.Env = p.env()
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	w.cmd.Stderr = w.cmd.Stdout
	if err := w.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(w.events)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			e := eventJSON{Error: lines.Text()} // for what is no event
			json.Unmarshal(lines.Bytes(), &e)
			w.events <- e
		}
	}()
	return w
}

// of waits for an event of a wallet. What other wallets tell meanwhile is kept for later.
func (w *watcher) of(wallet, event, name string) eventJSON {
	w.t.Helper()
	late := time.After(time.Minute)
	for {
		for _, e := range w.others {
			if e.Wallet == wallet && e.Event == event && e.names(name) {
				w.others = slices.DeleteFunc(w.others, func(o eventJSON) bool { return o.Wallet == wallet && o.ID <= e.ID })
				return e
			}
		}
		select {
		case e, ok := <-w.events:
			w.seen = append(w.seen, e)
			if w.others = append(w.others, e); ok {
				continue
			}
		case <-late:
		}
		w.t.Fatalf("no event %q of %q of %s in %+v", event, name, wallet, w.seen)
	}
}

// names reports whether an event is about an item, or a watched path.
func (e eventJSON) names(name string) bool {
	return name == "" || slices.Contains(e.Items, name) || slices.ContainsFunc(e.Paths, func(p string) bool { return filepath.Base(p) == name })
}

// makes makes a wallet with a place of its own, and returns its name and its code.
func (p *person) makes(label string) (name, code string) {
	p.t.Helper()
	out := p.does(0, "create", "--in", filepath.Join(p.dir, "elsewhere", label), "--label", label, "--unlock", "recovery-code", "--json")
	var made struct{ Secret, Folder string }
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimPrefix(made.Folder, "BitcoinWalletBackup-"), made.Secret
}

// One process keeps all wallets up to date: those that are there, those that come, and not
// those that go.
func TestAgentWallets(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	a, b := filepath.Join(p.dir, "a"), filepath.Join(p.dir, "b")
	writeFile(t, a, "1")
	writeFile(t, b, "1")
	ann, code := p.makes("Ann")
	p.does(0, "watch", "--once", a)
	w := p.agent()
	first := w.of(ann, "watching", "a")
	if p.does(1, "agent", "run"); first.ID == 0 {
		t.Errorf("got %+v", first)
	}

	// A wallet is made, and what is watched for it is said to the agent.
	bob, _ := p.makes("Bob")
	if out := p.does(0, "watch", "-w", "Bob", b); !strings.Contains(out, "The agent watches this from now on.") {
		t.Errorf("got %s", out)
	}
	if e := w.of(bob, "saved", "file/b"); !*e.Protected || e.ID <= first.ID {
		t.Errorf("got %+v", e)
	}
	writeFile(t, a, "2")
	w.of(ann, "saved", "file/a")
	if out := p.does(1, "watch", "-w", "Bob"); !strings.Contains(out, "agent keeps this wallet up to date") {
		t.Errorf("got %s", out)
	}
	if out := p.does(0, "status", "--json"); strings.Count(out, `"watching":true`) != 2 {
		t.Errorf("got %s", out)
	}

	// One is forgotten, and restored: the same agent goes on with it, and with what was
	// watched for it.
	p.does(0, "forget", "-w", "Ann", "--yes-forget", "Ann")
	w.of(ann, "gone", "")
	secret := filepath.Join(p.dir, "secret")
	writeFile(t, secret, code)
	p.script(0, `exec satchel restore --from "$1" --yes --secret-fd 3 3<"$2"`, filepath.Join(p.dir, "elsewhere", "Ann"), secret)
	w.of(ann, "watching", "a")
	writeFile(t, a, "3")
	w.of(ann, "saved", "file/a")
	w.ends(syscall.SIGTERM, 0)
	if last := w.seen[len(w.seen)-1]; last.Event != "stopped" {
		t.Errorf("got %+v", last)
	}
}

// script runs a shell script with satchel in its path.
func (p *person) script(code int, text string, args ...string) string {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), "sh", append([]string{"-c", text, "sh"}, args...)...)
	cmd.Env = p.env()
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		p.t.Fatalf("%s: %v, want code %d: %s", text, err, code, out)
	}
	return string(out)
}

// What is wrong with one wallet is told, stops no other, and ends when it is mended.
func TestAgentOneWalletFails(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	a, b := filepath.Join(p.dir, "a"), filepath.Join(p.dir, "b")
	writeFile(t, a, "1")
	writeFile(t, b, "1")
	ann, code := p.makes("Ann")
	bob, _ := p.makes("Bob")
	p.does(0, "watch", "-w", "Ann", "--once", a)
	p.does(0, "watch", "-w", "Bob", "--once", b)
	// Bob's place is a drive that is away, and Ann's device was copied.
	rename(t, filepath.Join(p.dir, "elsewhere", "Bob"), filepath.Join(p.dir, "away"))
	w := p.agent()
	w.of(ann, "watching", "a")
	w.of(bob, "late", "")
	writeFile(t, b, "2")
	w.of(bob, "saved", "file/b")
	folders, err := filepath.Glob(filepath.Join(p.dir, "elsewhere", "Ann", "BitcoinWalletBackup-*"))
	if err != nil || len(folders) != 1 {
		t.Fatal(folders, err)
	}
	foreign := filepath.Join(folders[0], "snapshots", "000002-0000000003-0123456789abcdef-0123456789abcdef0123456789abcdef.age")
	writeFile(t, foreign, "another's")
	writeFile(t, a, "2")
	if e := w.of(ann, "ended", "file/a"); e.Code != 11 {
		t.Errorf("got %+v", e)
	}
	if out := p.does(3, "status", "-w", "Ann", "--json"); !strings.Contains(out, `"watching":false`) {
		t.Errorf("status hides that nobody watches: %s", out)
	}
	rename(t, filepath.Join(p.dir, "away"), filepath.Join(p.dir, "elsewhere", "Bob"))
	w.of(bob, "caught up", "")

	// Taken over again.
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	p.does(0, "forget", "-w", "Ann", "--yes-forget", "Ann", "--anyway")
	secret := filepath.Join(p.dir, "secret")
	writeFile(t, secret, code)
	p.script(0, `exec satchel restore --from "$1" --yes --secret-fd 3 3<"$2"`, filepath.Join(p.dir, "elsewhere", "Ann"), secret)
	w.of(ann, "saved", "file/a")

	// The record of a device is damaged, and put back.
	log := filepath.Join(p.dir, "device", "wallets", bob, "state.log")
	good, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	bad := slices.Clone(good)
	bad[len(bad)/2] ^= 1
	w.ends(syscall.SIGKILL, -1)
	writeFile(t, log, string(bad))
	w = p.agent()
	if e := w.of(bob, "ended", ""); e.Code != 18 {
		t.Errorf("got %+v", e)
	}
	writeFile(t, a, "3")
	w.of(ann, "saved", "file/a")
	writeFile(t, log, string(good))
	w.of(bob, "watching", "b")
	w.ends(syscall.SIGTERM, 0)
}

// A watch in the foreground is left alone, and its wallet taken when it ends.
func TestAgentBesideWatch(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	a := filepath.Join(p.dir, "a")
	writeFile(t, a, "1")
	ann, _ := p.makes("Ann")
	watch := p.watch(a)
	watch.sees("saved", "file/a")
	w := p.agent()
	w.of(ann, "elsewhere", "")
	watch.ends(syscall.SIGTERM, 0)
	w.of(ann, "watching", "a")
	w.ends(syscall.SIGINT, 0)
}

// All wallets share what a process has of the system, and cost nearly nothing.
func TestAgentMany(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("no /proc here")
	}
	p := newPerson(t)
	const wallets = 3
	for i := range wallets {
		label := fmt.Sprint("W", i)
		p.makes(label)
		file := filepath.Join(p.dir, label)
		writeFile(t, file, "1")
		p.does(0, "watch", "-w", label, "--once", file)
	}
	w := p.agent()
	for seen := 0; seen < wallets; seen++ {
		w.sees("watching", "")
	}
	time.Sleep(100 * time.Millisecond)
	links, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	instances := 0
	for _, l := range links {
		if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", w.cmd.Process.Pid, l.Name())); strings.Contains(to, "inotify") {
			instances++
		}
	}
	if instances != 1 {
		t.Errorf("%d instances of inotify, want 1", instances)
	}
	w.ends(syscall.SIGTERM, 0)
}

// Taking the service away ends no agent that somebody runs in a window, and does not say
// that nothing saves changes.
func TestAgentUninstallBesideRunning(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("a unit of systemd")
	}
	p := newPerson(t)
	p.does(0, "agent", "install")
	agent := p.agent()
	agent.sees("started", "")
	out := p.does(0, "agent", "uninstall")
	if !strings.Contains(out, "Removed: ") || !strings.Contains(out, "still runs, and saves changes") || strings.Contains(out, "Nothing saves") {
		t.Errorf("got %s", out)
	}
	if out := p.does(0, "agent", "uninstall", "--json"); !strings.Contains(out, `"running":true`) {
		t.Errorf("got %s", out)
	}
	agent.ends(syscall.SIGTERM, 0)
	p.does(0, "agent", "install")
	if out := p.does(0, "agent", "uninstall"); !strings.Contains(out, "Nothing saves changes by itself now") {
		t.Errorf("got %s", out)
	}
}
