//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// soak is the real "satchel watch" or "satchel agent", for a long time, with changes and
// faults.
type soak struct {
	*testing.T
	dir, bin, home string
	more           []string // of the environment
	places         [2]string
	small          bool // the home and the second place are small file systems of their own
	rand           *rand.Rand

	files map[string]string // by path below the watched folder: what is there now
	items map[string]string // that other processes put

	cmd    *exec.Cmd
	said   sync.WaitGroup
	mu     sync.Mutex
	events map[string]int // guarded by mu
	errs   []string       // lines that are no events; guarded by mu
	faults map[string]int
	puts   int
}

// TestSoak runs for as long as SATCHEL_SOAK says, such as 1h. Nothing may be lost,
// memory must be flat, and the command must cost nearly nothing when idle.
func TestSoak(t *testing.T) {
	duration, err := time.ParseDuration(os.Getenv("SATCHEL_SOAK"))
	if err != nil {
		t.Skip("SATCHEL_SOAK is not set to a duration, such as 1h")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := &soak{T: t, dir: t.TempDir(), rand: rand.New(rand.NewPCG(seed, 0)), files: map[string]string{}, items: map[string]string{}, events: map[string]int{}, faults: map[string]int{}}
	s.bin = filepath.Join(s.dir, "satchel")
	if out, err := exec.Command("go", "build", "-o", s.bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.home = filepath.Join(s.dir, "home")
	s.places = [2]string{filepath.Join(s.dir, "one"), filepath.Join(s.dir, "two")}
	for _, d := range []string{s.home, s.places[0], s.places[1], s.folder()} {
		s.must(os.Mkdir(d, 0o700))
	}
	s.small = s.mount(s.home, "256m") && s.mount(s.places[1], "256m")
	out, err := s.satchel(s.home, nil, "create", "--in", s.places[0], "--unlock", "recovery-code", "--json")
	s.must(err)
	var made struct{ Secret string }
	s.must(json.Unmarshal(out, &made))
	_, err = s.satchel(s.home, nil, "store", "add", s.places[1])
	s.must(err)
	for range 50 {
		s.write()
	}

	// Deaths come in the first quarter; then one process lives on, to be measured.
	s.watch(max(duration/20, 10*time.Second), s.folder())
	start := time.Now()
	var memory []int64
	var cpu time.Duration // of the process that lived on
	var lived time.Time
	sampled := start
	for time.Since(start) < duration {
		young := time.Since(start) < duration/4
		s.step(young)
		if !young && time.Since(sampled) >= time.Second {
			sampled = time.Now()
			if lived.IsZero() {
				lived = sampled
			}
			memory = append(memory, s.rss())
		}
		time.Sleep(time.Duration(s.rand.IntN(300)) * time.Millisecond)
	}
	cpu = s.cpu()
	busy := time.Since(lived)
	s.settled()
	s.stop()

	// A restart needs no path, and costs nothing once it has compared all.
	s.watch(24 * time.Hour)
	checked := s.count("checked")
	for wait := time.Now(); s.count("checked") == checked; time.Sleep(100 * time.Millisecond) {
		if time.Since(wait) > 2*time.Minute {
			t.Fatal("no check after the start")
		}
	}
	idle := min(max(duration/10, 20*time.Second), 10*time.Minute)
	before := s.cpu()
	time.Sleep(idle)
	idleShare := 100 * (s.cpu() - before).Seconds() / idle.Seconds()
	s.stop()

	s.compare(made.Secret)

	memory = memory[len(memory)/10:]
	first, last := median(memory[:len(memory)/4]), median(memory[len(memory)*3/4:])
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Logf("soak of %v: %d files and %d items restore from both places; %d puts; faults %v; events %v; RSS %.1f MB, then %.1f MB (%+.0f %%); CPU %.2f %% under changes, %.3f %% idle; small file systems: %v",
		duration, len(s.files), len(s.items), s.puts, s.faults, s.events, float64(first)/1e6, float64(last)/1e6, 100*(float64(last)/float64(first)-1),
		100*cpu.Seconds()/busy.Seconds(), idleShare, s.small)
	if float64(last) > 1.2*float64(first) {
		t.Errorf("memory grew from %d to %d bytes", first, last)
	}
	if idleShare > 0.5 {
		t.Errorf("it takes %.2f %% of a core when idle", idleShare)
	}
	if len(s.errs) > 0 {
		t.Errorf("it also said: %q", s.errs[:min(len(s.errs), 10)])
	}
	for _, e := range []string{"saved", "caught up", "checked", "late"} {
		if s.events[e] == 0 {
			t.Errorf("no event %q: this was no trial", e)
		}
	}
}

func (s *soak) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *soak) folder() string { return filepath.Join(s.dir, "f") }

// mount puts a small file system at dir, if this user may.
func (s *soak) mount(dir, size string) bool {
	if syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=700,size="+size) != nil {
		return false
	}
	s.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return true
}

func (s *soak) env(home string) []string {
	return append([]string{"HOME=" + s.dir, "SATCHEL_HOME=" + home, "SATCHEL_KEYCHAIN=file", "PATH=" + os.Getenv("PATH")}, s.more...)
}

// satchel runs another command.
func (s *soak) satchel(home string, stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.Command(s.bin, args...)
	cmd.Env, cmd.Dir, cmd.Stdin = s.env(home), s.dir, bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("satchel %s: %w: %s", args[0], err, stderr.String())
	}
	return out, err
}

// watch starts the watch.
func (s *soak) watch(every time.Duration, paths ...string) {
	s.Helper()
	s.start(append([]string{"watch", "--json", "--keep", "4", "--every", every.String()}, paths...)...)
}

// start starts what goes on.
func (s *soak) start(args ...string) {
	s.Helper()
	s.cmd = exec.Command(s.bin, args...)
	s.cmd.Env, s.cmd.Dir = s.env(s.home), s.dir
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := s.cmd.StdoutPipe()
	s.must(err)
	errs, err := s.cmd.StderrPipe()
	s.must(err)
	s.must(s.cmd.Start())
	s.said.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e struct{ Event string }
			err := json.Unmarshal(lines.Bytes(), &e)
			s.mu.Lock()
			s.events[e.Event]++
			if err != nil {
				s.errs = append(s.errs, lines.Text())
			}
			s.mu.Unlock()
		}
	})
	s.said.Go(func() {
		for lines := bufio.NewScanner(errs); lines.Scan(); {
			s.mu.Lock()
			s.errs = append(s.errs, lines.Text())
			s.mu.Unlock()
		}
	})
}

// stop ends the watch as a system does.
func (s *soak) stop() {
	s.Helper()
	s.must(s.cmd.Process.Signal(syscall.SIGTERM))
	s.said.Wait()
	if err := s.cmd.Wait(); err != nil {
		s.Errorf("the end: %v", err)
	}
}

func (s *soak) count(event string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events[event]
}

// step is a change, or a fault that comes and goes.
func (s *soak) step(young bool) {
	s.Helper()
	pause := func() { time.Sleep(time.Duration(s.rand.IntN(3000)) * time.Millisecond) }
	during := func(name string) {
		s.faults[name]++
		for range s.rand.IntN(4) {
			s.write()
			time.Sleep(time.Duration(s.rand.IntN(1000)) * time.Millisecond)
		}
	}
	switch n := s.rand.IntN(100); {
	case n < 60:
		for range 1 + s.rand.IntN(5) {
			s.write()
		}
	case n < 75:
		s.put()
	case n < 80:
		_, err := s.satchel(s.home, nil, "status")
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 3) {
			s.Error(err)
		}
	case n < 86: // A place is unplugged.
		place := s.places[0]
		s.must(os.Rename(place, place+".away"))
		during("away")
		s.must(os.Rename(place+".away", place))
	case n < 89: // A place loses something.
		var objects []string
		s.must(filepath.WalkDir(s.places[s.rand.IntN(2)], func(path string, e fs.DirEntry, err error) error {
			if err == nil && filepath.Ext(path) == ".age" {
				objects = append(objects, path)
			}
			return nil // Temporary files come and go.
		}))
		if len(objects) > 0 {
			os.Remove(objects[s.rand.IntN(len(objects))])
			s.faults["lost"]++
		}
	case n < 92: // The machine sleeps.
		s.must(s.cmd.Process.Signal(syscall.SIGSTOP))
		during("stopped")
		s.must(s.cmd.Process.Signal(syscall.SIGCONT))
	case n < 96 && s.small: // A place is full, or this device is.
		dir, name := s.places[1], "place full"
		if s.rand.IntN(2) == 0 {
			dir, name = s.home, "device full"
		}
		empty := s.fill(dir)
		during(name)
		pause()
		empty()
	case n < 100 && young: // The power fails.
		s.must(s.cmd.Process.Kill())
		s.said.Wait()
		s.cmd.Wait()
		during("killed")
		s.watch(10 * time.Second)
	}
}

// fill makes a file system full, until empty is called.
func (s *soak) fill(dir string) (empty func()) {
	s.Helper()
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	s.must(err)
	for piece := 1 << 20; piece > 0; {
		if _, err := f.Write(make([]byte, piece)); err != nil {
			piece /= 4
		}
	}
	f.Close()
	return func() { s.must(os.Remove(ballast)) }
}

// write changes a file, or makes one.
func (s *soak) write() {
	s.Helper()
	s.writeFile(fmt.Sprintf("%d/%d", s.rand.IntN(5), s.rand.IntN(20)))
}

func (s *soak) writeFile(name string) {
	s.Helper()
	size := s.rand.IntN(200)
	if s.rand.IntN(10) == 0 {
		size = s.rand.IntN(50_000)
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(s.rand.Uint32())
	}
	path := filepath.Join(s.folder(), name)
	s.must(os.MkdirAll(filepath.Dir(path), 0o700))
	if s.rand.IntN(2) == 0 {
		s.must(os.WriteFile(path, data, 0o600))
	} else {
		// Beside the folder, so that it never is a file of it.
		s.must(os.WriteFile(filepath.Join(s.dir, "temp"), data, 0o600))
		s.must(os.Rename(filepath.Join(s.dir, "temp"), path))
	}
	s.files[name] = string(data)
}

// put has another process save an item. Where the device itself is full, again.
func (s *soak) put() {
	s.Helper()
	name, value := fmt.Sprintf("settings/%d", s.rand.IntN(10)), strconv.FormatUint(s.rand.Uint64(), 36)
	_, err := s.satchel(s.home, []byte(value), "put", name, "-")
	exit, ok := errors.AsType[*exec.ExitError](err)
	if err != nil && (!ok || !slices.Contains([]int{3, 18, 26, 27}, exit.ExitCode())) {
		s.Error(err)
		return
	}
	s.items[name], s.puts = value, s.puts+1
}

// settled waits until the watch has brought everything everywhere.
func (s *soak) settled() {
	s.Helper()
	// What is not saved yet shows in what this device has, not in whether that is
	// protected.
	for start := time.Now(); ; time.Sleep(time.Second) {
		out, err := s.satchel(s.home, nil, "status", "--json")
		var st struct {
			Protected bool
			Places    []struct{ Health string }
		}
		well := err == nil && json.Unmarshal(out, &st) == nil && st.Protected && len(st.Places) == 2 && st.Places[0].Health == "protected" && st.Places[1].Health == "protected"
		if well {
			bad := s.different(s.home)
			if bad == "" {
				return
			}
			out = []byte(bad)
		}
		if time.Since(start) > 7*time.Minute {
			s.Fatalf("it did not bring up what is late: %s, %v", out, err)
		}
	}
}

// different returns the first item of a device that is not as it should be.
func (s *soak) different(home string) string {
	want := map[string]string{}
	for name, data := range s.files {
		want["file/f/"+name] = data
	}
	for name, data := range s.items {
		want[name] = data
	}
	for name, data := range want {
		out, err := s.satchel(home, nil, "get", name)
		if err != nil || string(out) != data {
			return fmt.Sprintf("%s: got %d bytes, want %d; %v", name, len(out), len(data), err)
		}
	}
	return ""
}

// compare restores copies of both places on other devices.
func (s *soak) compare(code string) {
	s.Helper()
	for i, place := range s.places {
		dir := filepath.Join(s.dir, fmt.Sprint("copy", i))
		s.must(os.CopyFS(dir, os.DirFS(place)))
		home := filepath.Join(s.dir, fmt.Sprint("home", i))
		if _, err := s.satchel(home, []byte(code+"\n"), "restore", "--from", dir, "--yes", "--secret-fd", "0"); err != nil {
			s.Errorf("restoring from place %d: %v", i, err)
			continue
		}
		if bad := s.different(home); bad != "" {
			s.Errorf("place %d restores other things: %s", i, bad)
		}
	}
}

// rss returns the memory of the watch in bytes.
func (s *soak) rss() int64 {
	s.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	s.must(err)
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		s.Fatal("the watch is gone")
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	s.must(err)
	return pages * int64(os.Getpagesize())
}

// cpu returns the time that the watch has computed.
func (s *soak) cpu() time.Duration {
	s.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	s.must(err)
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest) // from the third of proc(5)
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		s.must(err)
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100)
}

func median(list []int64) int64 {
	list = slices.Sorted(slices.Values(list))
	if len(list) == 0 {
		return 0
	}
	return list[len(list)/2]
}
