//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/webdav"

	"github.com/satchel-backup/satchel/internal/control"
	"github.com/satchel-backup/satchel/internal/fakecloud"
)

// agentSoak is a soak of an agent with wallets in stores of every kind, each of which has
// faults.
type agentSoak struct {
	*soak
	kinds   []*soakKind
	wallets []*soakWallet
}

// soakKind is a kind of store.
type soakKind struct {
	name     string
	address  func(i int) string // of a wallet's place
	fault    atomic.Value       // of fakecloud.Fault
	share    atomic.Int64       // of 100 requests that it strikes
	requests atomic.Int64
	away     func(bool) // takes it away, or brings it back
	disk     string     // where its files are, "" if they are not on a disk
}

// soakWallet is a wallet, with what it should hold.
type soakWallet struct {
	label, name, code string
	kind              *soakKind
	files, items      map[string]string // as in soak
}

const soakWallets = 20

// strikes says what happens to a request.
func (k *soakKind) strikes() fakecloud.Fault {
	k.requests.Add(1)
	if f, _ := k.fault.Load().(fakecloud.Fault); f != fakecloud.None && rand.Int64N(100) < k.share.Load() {
		return f
	}
	return fakecloud.None
}

// TestAgentSoak runs for as long as SATCHEL_SOAK says, such as 1h. Nothing may be lost,
// what is called protected must be in a place, memory must be flat, and the agent must
// cost nearly nothing when idle.
func TestAgentSoak(t *testing.T) {
	duration, err := time.ParseDuration(os.Getenv("SATCHEL_SOAK"))
	if err != nil {
		t.Skip("SATCHEL_SOAK is not set to a duration, such as 1h")
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SATCHEL_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d", seed)
	s := newAgentSoak(t, seed)
	every := max(duration/10, 30*time.Second)
	s.begin(every)
	began := time.Now()
	var memory []int64
	var cpu time.Duration // of the process that lives on
	var lived time.Time
	for time.Since(began) < duration {
		young := time.Since(began) < duration/4
		if s.step(young); !young {
			if lived.IsZero() {
				lived, cpu = time.Now(), s.cpu()
			}
			memory = append(memory, s.rss())
		}
		time.Sleep(time.Duration(s.rand.IntN(200)) * time.Millisecond)
	}
	cpu = s.cpu() - cpu
	busy := time.Since(lived)
	s.settled()
	s.stop()

	// A restart costs little once it has compared all, and all places are asked seldom.
	s.begin(24 * time.Hour)
	checked := s.count("checked")
	for wait := time.Now(); s.count("checked") < checked+soakWallets; time.Sleep(100 * time.Millisecond) {
		if time.Since(wait) > time.Minute+soakWallets*20*time.Second {
			t.Fatalf("%d checks after the start", s.count("checked")-checked)
		}
	}
	idle := min(max(duration/6, time.Minute), 15*time.Minute)
	before, asked := s.cpu(), s.requests()
	time.Sleep(idle)
	share := 100 * (s.cpu() - before).Seconds() / idle.Seconds()
	perDay := float64(s.requests()-asked) * float64(24*time.Hour) / float64(idle)
	quiet := s.rss()
	ended := time.Now()
	s.stop()
	if took := time.Since(ended); took > 5*time.Second {
		t.Errorf("it took %v to end", took)
	}

	s.compareAll()
	memory = memory[len(memory)/10:]
	first, last := median(memory[:len(memory)/4]), median(memory[len(memory)*3/4:])
	files, items := 0, 0
	for _, w := range s.wallets {
		files, items = files+len(w.files), items+len(w.items)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Logf("soak of %v: %d wallets in %d kinds of places: %d files and %d items restore; %d puts; faults %v; events %v; RSS %.1f MB, then %.1f MB (%+.0f %%), %.1f MB idle; CPU %.2f %% under changes, %.3f %% idle; %.0f requests a day idle; small file system: %v",
		duration, soakWallets, len(s.kinds), files, items, s.puts, s.faults, s.events, float64(first)/1e6, float64(last)/1e6, 100*(float64(last)/float64(first)-1), float64(quiet)/1e6,
		100*cpu.Seconds()/busy.Seconds(), share, perDay, s.small)
	if float64(last) > 1.2*float64(first) {
		t.Errorf("memory grew from %d to %d bytes", first, last)
	}
	if share > 1 {
		t.Errorf("it takes %.2f %% of a core when idle", share)
	}
	s.errs = slices.DeleteFunc(s.errs, func(line string) bool { // It is said once for each time that the device was full.
		return strings.Contains(line, "cannot write the agent's log") && strings.Contains(line, "no space left")
	})
	if len(s.errs) > 0 {
		t.Errorf("it also said: %q", s.errs[:min(len(s.errs), 10)])
	}
	for _, e := range []string{"saved", "caught up", "checked", "not saved"} {
		if s.events[e] == 0 {
			t.Errorf("no event %q: this was no trial", e)
		}
	}
	if s.events["hangs"] > 0 {
		t.Error("a loop hung")
	}
}

// newAgentSoak makes the places and the wallets.
func newAgentSoak(t *testing.T, seed uint64) *agentSoak {
	p, cloud, proxy := online(t)
	proxy.Forget = true
	s := &agentSoak{soak: &soak{T: t, dir: p.dir, more: p.more, rand: rand.New(rand.NewPCG(seed, 0)), events: map[string]int{}, faults: map[string]int{}}}
	s.bin = filepath.Join(s.dir, "satchel")
	if out, err := exec.Command("go", "build", "-o", s.bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.home = filepath.Join(p.dir, "device")
	s.must(os.Mkdir(s.home, 0o700))
	s.small = s.mount(s.home, "256m")

	disk := &soakKind{name: "folder", disk: filepath.Join(s.dir, "places")}
	disk.address = func(i int) string { return filepath.Join(disk.disk, fmt.Sprint("W", i)) }
	s.must(os.Mkdir(disk.disk, 0o700))
	disk.away = func(away bool) {
		from, to := disk.disk, disk.disk+".away"
		if !away {
			from, to = to, from
		}
		s.must(os.Rename(from, to))
	}
	dav := &soakKind{name: "webdav", disk: filepath.Join(s.dir, "dav")}
	s.must(os.Mkdir(dav.disk, 0o700))
	handler := &webdav.Handler{FileSystem: webdav.Dir(dav.disk), LockSystem: webdav.NewMemLS()}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch dav.strikes() {
		case fakecloud.None:
			handler.ServeHTTP(w, r)
		case fakecloud.Applied, fakecloud.CutApplied, fakecloud.CutAnswer:
			handler.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case fakecloud.Cut:
			panic(http.ErrAbortHandler)
		case fakecloud.Hang:
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		case fakecloud.RateLimited:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many", http.StatusTooManyRequests)
		case fakecloud.Full:
			if r.Method == http.MethodPut {
				http.Error(w, "full", http.StatusInsufficientStorage)
				return
			}
			handler.ServeHTTP(w, r)
		case fakecloud.Page:
			fmt.Fprint(w, "<html>Welcome! Please accept our terms.</html>")
		default:
			http.Error(w, "internal error", http.StatusInternalServerError)
		}
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	dav.address = func(i int) string { return "webdav+" + server.URL + fmt.Sprint("/W", i) }
	s.kinds = []*soakKind{disk, dav}
	ann := cloud.AddAccount("1001", "ann@example.org")
	cloud.RetryAfter = 1
	byOp := map[string]*soakKind{}
	for _, scheme := range []string{"gdrive", "dropbox", "onedrive"} {
		cloud.Browse(ann)
		k := &soakKind{name: scheme, address: func(i int) string { return fmt.Sprintf("%s:ann@example.org/W%d", scheme, i) }}
		byOp[strings.TrimPrefix(scheme, "g")] = k
		s.kinds = append(s.kinds, k)
		p.run("store", "signin", scheme+":")
		p.answer(`Is that your account\?`, "")
		p.ends(0)
	}
	cloud.Fault = func(op string, _ *http.Request) fakecloud.Fault {
		name, _, _ := strings.Cut(op, ".")
		if k := byOp[name]; k != nil {
			return k.strikes()
		}
		return fakecloud.None
	}
	for i := range soakWallets {
		k := s.kinds[i%len(s.kinds)]
		w := &soakWallet{label: fmt.Sprint("W", i), kind: k, files: map[string]string{}, items: map[string]string{}}
		out, err := s.satchel(s.home, nil, "create", "--in", k.address(i), "--label", w.label, "--unlock", "recovery-code", "--json")
		s.must(err)
		var made struct{ Secret, Folder string }
		s.must(json.Unmarshal(out, &made))
		w.code, w.name = made.Secret, strings.TrimPrefix(made.Folder, "BitcoinWalletBackup-")
		s.wallets = append(s.wallets, w)
		s.must(os.MkdirAll(s.of(w), 0o700))
		for range 5 {
			s.change(w)
		}
		_, err = s.satchel(s.home, nil, "watch", "-w", w.name, "--once", s.of(w))
		s.must(err)
	}
	return s
}

// of is the folder that is watched for a wallet.
func (s *agentSoak) of(w *soakWallet) string { return filepath.Join(s.folder(), w.label) }

// begin starts the agent.
func (s *agentSoak) begin(every time.Duration) {
	s.Helper()
	s.start("agent", "run", "--json", "--keep", "4", "--every", every.String())
}

// change changes a file of a wallet.
func (s *agentSoak) change(w *soakWallet) {
	s.Helper()
	s.soak.files = w.files
	name := fmt.Sprintf("%s/%d/%d", w.label, s.rand.IntN(2), s.rand.IntN(10))
	s.writeFile(name)
}

// any is some wallet.
func (s *agentSoak) any() *soakWallet { return s.wallets[s.rand.IntN(len(s.wallets))] }

// ask puts an item through the control socket, and reports whether it is journalled, and
// protected.
func (s *agentSoak) ask(w *soakWallet, name, value, query string) (journalled, protected bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	body, err := json.Marshal(puts1(putItem{Name: name, Value: []byte(value)}))
	s.must(err)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+control.Host+"/v1/wallets/"+w.name+"/put"+query, bytes.NewReader(body))
	s.must(err)
	req.Header.Set("Content-Type", "application/json")
	res, err := control.Client(filepath.Join(s.home, "agent", socketName)).Do(req)
	if err != nil {
		return false, false
	}
	defer res.Body.Close()
	var a putAnswer
	if res.StatusCode != 200 && res.StatusCode != 202 {
		var e errorJSON
		if json.NewDecoder(res.Body).Decode(&e) != nil || e.Error == "" {
			s.Errorf("a put was answered with %d and no reason", res.StatusCode)
		}
		return false, false
	}
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil || !a.Journalled || a.Protected != (res.StatusCode == 200) {
		s.Errorf("a put was answered with %d, %+v, %v", res.StatusCode, a, err)
		return false, false
	}
	if a.Protected {
		s.isThere(w, a.Generation)
	}
	return true, a.Protected
}

// isThere fails the test unless a place, where that can be seen on a disk, has a generation
// or a later one.
func (s *agentSoak) isThere(w *soakWallet, generation uint64) {
	s.Helper()
	if w.kind.disk == "" {
		return
	}
	for _, dir := range []string{w.kind.disk, w.kind.disk + ".away"} {
		names, err := filepath.Glob(filepath.Join(dir, w.label, "BitcoinWalletBackup-*", "snapshots", "*.age"))
		s.must(err)
		for _, name := range names {
			if f := strings.Split(filepath.Base(name), "-"); len(f) > 1 {
				if n, err := strconv.ParseUint(f[1], 10, 64); err == nil && n >= generation {
					return
				}
			}
		}
	}
	s.Errorf("generation %d of %s is called protected, and is not in %s", generation, w.name, w.kind.name)
}

// truth compares what status says of a wallet with what is there.
func (s *agentSoak) truth() {
	s.Helper()
	w := s.any()
	out, err := s.satchel(s.home, nil, "status", "-w", w.name, "--json")
	var st struct {
		Protected  bool
		Generation uint64
	}
	if json.Unmarshal(out, &st) != nil {
		s.Errorf("status of %s: %s, %v", w.name, out, err)
		return
	}
	if st.Protected {
		s.isThere(w, st.Generation)
	}
}

// step is a change, or a fault that comes and goes.
func (s *agentSoak) step(young bool) {
	s.Helper()
	during := func(name string) {
		s.faults[name]++
		for range 1 + s.rand.IntN(6) {
			s.change(s.any())
			time.Sleep(time.Duration(s.rand.IntN(1000)) * time.Millisecond)
		}
		s.truth()
	}
	switch n := s.rand.IntN(100); {
	case n < 45:
		for range 1 + s.rand.IntN(5) {
			s.change(s.any())
		}
	case n < 65: // A program.
		w, name, value := s.any(), fmt.Sprintf("lightning/monitors/%d", s.rand.IntN(5)), strconv.FormatUint(s.rand.Uint64(), 36)
		w.items[name] = value // If it fails, it is put again in the end.
		query := ""
		if s.rand.IntN(2) == 0 {
			query = "?wait=protected&timeout=2s"
		}
		if ok, _ := s.ask(w, name, value, query); ok {
			s.puts++
		}
	case n < 70: // Another command.
		s.truth()
	case n < 92: // A kind of place has a fault.
		k := s.kinds[s.rand.IntN(len(s.kinds))]
		if k.away != nil {
			k.away(true)
			during(k.name + " away")
			k.away(false)
			return
		}
		faults := []fakecloud.Fault{fakecloud.RateLimited, fakecloud.ServerError, fakecloud.Applied, fakecloud.Cut, fakecloud.CutApplied, fakecloud.CutAnswer, fakecloud.Full, fakecloud.Torn, fakecloud.Page, fakecloud.Unauthorized}
		f := faults[s.rand.IntN(len(faults))]
		if s.rand.IntN(20) == 0 {
			f = fakecloud.Hang
		}
		k.share.Store(int64(10 + s.rand.IntN(91)))
		k.fault.Store(f)
		during(k.name + " " + string(f))
		k.fault.Store(fakecloud.None)
	case n < 94: // The machine sleeps.
		s.must(s.cmd.Process.Signal(syscall.SIGSTOP))
		s.faults["stopped"]++
		for range s.rand.IntN(4) {
			s.change(s.any())
		}
		time.Sleep(time.Duration(s.rand.IntN(2000)) * time.Millisecond)
		s.must(s.cmd.Process.Signal(syscall.SIGCONT))
	case n < 97 && s.small: // This device is full.
		empty := s.fill(s.home)
		s.faults["device full"]++
		for range 1 + s.rand.IntN(6) {
			s.change(s.any())
			time.Sleep(time.Duration(s.rand.IntN(1000)) * time.Millisecond)
		}
		empty()
	case n < 100 && young: // The power fails.
		s.must(s.cmd.Process.Kill())
		s.said.Wait()
		s.cmd.Wait()
		during("killed")
		s.begin(30 * time.Second)
	}
}

// requests counts those to all places that count.
func (s *agentSoak) requests() (n int64) {
	for _, k := range s.kinds {
		n += k.requests.Load()
	}
	return n
}

// settled waits until the agent has brought everything everywhere.
func (s *agentSoak) settled() {
	s.Helper()
	start := time.Now()
	for _, w := range s.wallets {
		for name, value := range w.items {
			for {
				if ok, _ := s.ask(w, name, value, ""); ok {
					break
				}
				if time.Since(start) > 15*time.Minute {
					s.Fatalf("%s of %s cannot be put", name, w.name)
				}
				time.Sleep(time.Second)
			}
		}
	}
	for _, w := range s.wallets {
		for ; ; time.Sleep(time.Second) {
			out, err := s.satchel(s.home, nil, "status", "-w", w.name, "--json")
			var st struct {
				Protected bool
				Places    []struct{ Health string }
			}
			if err == nil && json.Unmarshal(out, &st) == nil && st.Protected && len(st.Places) == 1 && st.Places[0].Health == "protected" {
				bad := s.wrong(w, s.home, false)
				if bad == "" {
					break
				}
				out = []byte(bad)
			}
			if time.Since(start) > 15*time.Minute {
				logs, _ := s.satchel(s.home, nil, "agent", "logs", "-w", w.name)
				s.Fatalf("it did not bring up what is late of %s: %s, %v\n%s", w.name, out, err, logs)
			}
		}
	}
}

// wrong returns the first item of a wallet that is not as it should be, by its SHA-256, and
// with read by its value.
func (s *agentSoak) wrong(w *soakWallet, home string, read bool) string {
	list, err := s.satchel(home, nil, "items", "-w", w.name, "--json")
	if err != nil {
		return err.Error()
	}
	sums := map[string]string{}
	for lines := bufio.NewScanner(bytes.NewReader(list)); lines.Scan(); {
		var i itemJSON
		s.must(json.Unmarshal(lines.Bytes(), &i))
		sums[i.Name] = i.SHA256
	}
	for name, data := range w.all() {
		if sum := sha256.Sum256([]byte(data)); sums[name] != hex.EncodeToString(sum[:]) {
			return fmt.Sprintf("%s: got %q, want %x", name, sums[name], sum)
		}
		if !read {
			continue
		}
		out, err := s.satchel(home, nil, "get", "-w", w.name, name)
		if err != nil || string(out) != data {
			return fmt.Sprintf("%s: got %d bytes, want %d; %v", name, len(out), len(data), err)
		}
	}
	return ""
}

// all is what a wallet should hold.
func (w *soakWallet) all() map[string]string {
	want := map[string]string{}
	for name, data := range w.files {
		want["file/"+name] = data
	}
	for name, data := range w.items {
		want[name] = data
	}
	return want
}

// compareAll restores every wallet from its place on another device.
func (s *agentSoak) compareAll() {
	s.Helper()
	home := filepath.Join(s.dir, "other device")
	s.must(os.Mkdir(home, 0o700))
	// It is signed in, and has nothing else.
	for _, name := range []string{"config.json", "keychain", "sign-ins"} {
		if out, err := exec.Command("cp", "-a", filepath.Join(s.home, name), home).CombinedOutput(); err != nil {
			s.Fatalf("%v: %s", err, out)
		}
	}
	for i, w := range s.wallets {
		if _, err := s.satchel(home, []byte(w.code+"\n"), "restore", "--from", w.kind.address(i), "--yes", "--secret-fd", "0"); err != nil {
			s.Errorf("restoring %s from %s: %v", w.name, w.kind.name, err)
			continue
		}
		if bad := s.wrong(w, home, true); bad != "" {
			s.Errorf("%s restores other things: %s", w.kind.name, bad)
		}
	}
}
