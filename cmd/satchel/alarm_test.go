package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/internal/alarm"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
)

// hook is a webhook that remembers what it got, with its header.
type hook struct {
	*httptest.Server
	mu   sync.Mutex
	got  []string      // bodies; guarded by mu
	sent []http.Header // guarded by mu
	code int           // of answers; guarded by mu
}

func newHook(t *testing.T) *hook {
	h := &hook{code: http.StatusNoContent}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.got, h.sent = append(h.got, string(body)), append(h.sent, r.Header)
		w.WriteHeader(h.code)
	}))
	t.Cleanup(h.Close)
	return h
}

// The commands keep who is told, and nothing that lets messages in outside the keychain.
func TestAlarmCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := map[string]string{"SATCHEL_HOME": filepath.Join(dir, "device"), "SATCHEL_KEYCHAIN": "file", "HOME": dir}
	h := newHook(t)
	want := func(code int, stdin string, args ...string) (stdout, stderr string) {
		t.Helper()
		got, stdout, stderr := runWith(t, env, stdin, append([]string{"alarm"}, args...)...)
		if got != code {
			t.Fatalf("satchel alarm %v: code %d, want %d: %s%s", args, got, code, stdout, stderr)
		}
		return stdout, stderr
	}
	if out, _ := want(0, "", "list"); !strings.Contains(out, "Nobody is told yet") {
		t.Errorf("got %s", out)
	}
	want(2, "", "test")
	for _, url := range []string{"http://example.org/x", "https://ann:secret@example.org/", "example.org"} {
		if _, stderr := want(2, "", "add", "webhook", url); strings.Contains(stderr, "secret") {
			t.Errorf("got %s", stderr)
		}
	}
	want(2, "short\n", "add", "webhook", h.URL, "--secret-fd", "0")
	want(2, "", "add", "webhook", h.URL, "--detail", "most")
	h.code = http.StatusForbidden
	if _, stderr := want(1, "", "add", "webhook", h.URL+"/let-me-in"); !strings.Contains(stderr, "nothing was added") || !strings.Contains(stderr, "403") || strings.Contains(stderr, "let-me-in") {
		t.Errorf("got %s", stderr)
	}
	// The URL need not be an argument, which others see.
	want(2, "", "add", "webhook")
	want(2, h.URL+"\n", "add", "webhook", h.URL, "--url-fd", "0")
	want(2, "gopher://x\n", "add", "webhook", "--url-fd", "0")
	tried := len(h.sent)
	if _, stderr := want(1, h.URL+"/let-me-in\n", "add", "webhook", "--url-fd", "0"); len(h.sent) != tried+1 || !strings.Contains(stderr, "403") || strings.Contains(stderr, "let-me-in") {
		t.Errorf("got %s", stderr)
	}
	if out, _ := want(0, "", "list", "--json"); out != "" {
		t.Errorf("what could not be tried was added: %s", out)
	}
	h.code = http.StatusOK
	out, _ := want(0, "a secret of sixteen\n", "add", "webhook", h.URL+"/let-me-in", "--secret-fd", "0", "--json")
	var added struct {
		ID, Kind, To string
		Tested       bool
	}
	if err := json.Unmarshal([]byte(out), &added); err != nil || len(added.ID) != 8 || added.Kind != "webhook" || added.To != h.URL+"/…" || !added.Tested {
		t.Errorf("got %s, %v", out, err)
	}
	if last := h.sent[len(h.sent)-1]; !strings.HasPrefix(last.Get(alarm.SignatureHeader), "t=") || !strings.Contains(h.got[len(h.got)-1], `"test":true`) {
		t.Errorf("got %v, %s", last, h.got[len(h.got)-1])
	}

	// Mail, to a server that is not there.
	want(2, "", "add", "mail", "me@example.org")
	want(2, "", "add", "mail", "Me <me@example.org>", "--smtp", "127.0.0.1:1")
	want(2, "", "add", "mail", "me@example.org", "--smtp", "127.0.0.1:1", "--user", "me")
	want(2, "pw\n", "add", "mail", "me@example.org", "--smtp", "127.0.0.1:1", "--password-fd", "0")
	want(1, "", "add", "mail", "me@example.org", "--smtp", "127.0.0.1:1")
	want(0, "correct horse\n", "add", "mail", "me@example.org", "--smtp", "127.0.0.1:1", "--user", "me", "--password-fd", "0", "--untested", "--detail", "least")
	out, _ = want(0, "", "list")
	if !strings.Contains(out, "mail me@example.org, detail least") || !strings.Contains(out, "webhook "+h.URL+"/…, detail label") {
		t.Errorf("got %s", out)
	}
	out, stderr := want(3, "", "test") // One arrives, one does not.
	if !strings.Contains(out, "Taken by webhook") || !strings.Contains(stderr, "mail me@example.org") {
		t.Errorf("got %s%s", out, stderr)
	}
	want(0, "", "test", added.ID)
	want(1, "", "test", "me@example.org")
	want(2, "", "test", "nobody@example.org")

	// Nothing secret is in clear.
	all := ""
	filepath.WalkDir(env["SATCHEL_HOME"], func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.Contains(path, "keychain") {
			data, _ := os.ReadFile(path)
			all += string(data)
		}
		return nil
	})
	for _, s := range []string{"let-me-in", "a secret of sixteen", "correct horse"} {
		if strings.Contains(all, s) {
			t.Errorf("%q is in clear in the home", s)
		}
	}

	// What is removed leaves nothing.
	want(0, "", "remove", "me@example.org")
	want(2, "", "remove", "me@example.org")
	want(0, "", "remove", h.URL)
	entries, err := os.ReadDir(filepath.Join(env["SATCHEL_HOME"], "keychain"))
	if err != nil || len(entries) != 0 {
		t.Errorf("the keychain keeps %v, %v", entries, err)
	}
}

// cryingIn is an agent, not begun, that tells people.
func cryingIn(t *testing.T, env map[string]string) (*supervisor, *crier, string) {
	t.Helper()
	a := (&app{getenv: func(name string) string { return env[name] }, now: time.Now}).inside(io.Discard)
	dir, err := a.agentDir()
	if err != nil {
		t.Fatal(err)
	}
	s := newSupervisor(a, 24*time.Hour, 0)
	home := filepath.Dir(dir)
	return s, newAlarms(s, home), home
}

// crying is cryingIn with a wallet that is one in name only, and its session, whose events
// the test makes.
func crying(t *testing.T) (*supervisor, *crier, *watch, string) {
	t.Helper()
	dir := t.TempDir()
	s, c, home := cryingIn(t, map[string]string{"SATCHEL_HOME": dir, "SATCHEL_KEYCHAIN": "file", "HOME": dir})
	wallet := filepath.Join(home, "wallets", "Sam-1a2b")
	if err := os.MkdirAll(wallet, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(wallet, "device.json"), []byte(`{"satchel-device":1,"id":"00","folder":"f","label":"Sam Smith"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, c, &watch{app: s.app, name: "Sam-1a2b", tell: func(e event) { s.tell("Sam-1a2b", e) }}, home
}

// Each event of the agent that deserves a person makes its alarm, and ends it.
func TestAlarmOfEvents(t *testing.T) {
	address := "gdrive:ann@example.org"
	place := func(h satchel.Health, err error) []satchel.PlaceStatus {
		return []satchel.PlaceStatus{{Address: address, Health: h, Err: err}}
	}
	well := place(satchel.HealthProtected, nil)
	report := func(e agent.Event) func(*watch) { return func(w *watch) { w.report(e) } }
	for name, test := range map[string]struct {
		raise, clear func(w *watch)
		want         alarm.Kind
	}{
		"alarm": {report(agent.Event{Kind: agent.Alarm, Places: place(satchel.HealthFull, store.ErrFull), Since: time.Now().Add(-time.Hour), Err: store.ErrFull}),
			report(agent.Event{Kind: agent.CaughtUp, Protected: true, Places: well}), alarm.Unprotected},
		"sign-in": {report(agent.Event{Kind: agent.Late, Places: place(satchel.HealthSignIn, store.ErrSignIn)}),
			report(agent.Event{Kind: agent.Saved, Protected: true, Places: well}), alarm.SignIn},
		"wrong account": {report(agent.Event{Kind: agent.Late, Places: place(satchel.HealthWrongAccount, store.ErrWrongAccount)}),
			report(agent.Event{Kind: agent.Checked, Protected: true, Places: well}), alarm.WrongAccount},
		"full": {report(agent.Event{Kind: agent.Saved, Places: place(satchel.HealthFull, store.ErrFull)}), report(agent.Event{Kind: agent.CaughtUp, Protected: true, Places: well}), alarm.Full},
		"missing": {report(agent.Event{Kind: agent.Checked, Places: place(satchel.HealthMissing, satchel.ErrMissing), Err: satchel.ErrMissing}),
			report(agent.Event{Kind: agent.CaughtUp, Protected: true, Places: well}), alarm.Damaged},
		"branch": {report(agent.Event{Kind: agent.Branch, Protected: true, Places: []satchel.PlaceStatus{{Address: address, Health: satchel.HealthProtected, Branch: "x"}}, Err: satchel.ErrBranch}),
			report(agent.Event{Kind: agent.Checked, Protected: true, Places: well}), alarm.Branch},
		"away": {report(agent.Event{Kind: agent.Late, Protected: true, Places: place(satchel.HealthUnreachable, store.ErrUnreachable)}),
			report(agent.Event{Kind: agent.CaughtUp, Protected: true, Places: well}), alarm.Away},
		"not saved":   {report(agent.Event{Kind: agent.NotSaved, Protected: true, Places: well, Err: errors.New("disk full")}), report(agent.Event{Kind: agent.SourceWorks, Protected: true, Places: well}), alarm.NotSaved},
		"source":      {report(agent.Event{Kind: agent.SourceFailed, Protected: true, Places: well, Err: errors.New("lnd is away")}), report(agent.Event{Kind: agent.SourceWorks, Protected: true, Places: well}), alarm.Source},
		"drill":       {report(agent.Event{Kind: agent.DrillDue, Protected: true, Places: well}), report(agent.Event{Kind: agent.Drilled, Protected: true, Places: well}), alarm.DrillDue},
		"other owner": {func(w *watch) { w.ended(satchel.ErrOtherDevice) }, func(w *watch) { w.event(eventJSON{Event: "watching"}, "") }, alarm.Ended},
		"elsewhere":   {func(w *watch) { w.ended(satchel.ErrDeviceKey) }, func(w *watch) { w.event(eventJSON{Event: "elsewhere"}, "") }, alarm.Ended},
		"gone":        {func(w *watch) { w.ended(satchel.ErrNoDevice) }, func(w *watch) { w.event(eventJSON{Event: "gone"}, "") }, alarm.Ended},
		"ends well":   {func(w *watch) { w.event(eventJSON{Event: "ended"}, "ended") }, func(*watch) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, c, w, _ := crying(t)
				test.raise(w)
				time.Sleep(25 * time.Hour)
				want := map[string]map[alarm.Kind]int{}
				if test.want != "" {
					want["Sam-1a2b"] = map[alarm.Kind]int{test.want: 1}
				}
				if test.want == alarm.Unprotected {
					want["Sam-1a2b"][alarm.Full] = 1
				}
				if diff := cmp.Diff(want, c.board.Active()); diff != "" {
					t.Errorf("raised (-want +got):\n%s", diff)
				}
				test.clear(w)
				if got := c.board.Active(); len(got) != 0 {
					t.Errorf("left: %v", got)
				}
			})
		})
	}
}

// An agent that cannot look which wallets there are says so to people too, once it lasts,
// and that it is over.
func TestAlarmBlind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, _, home := crying(t)
		wallets := filepath.Join(home, "wallets")
		if err := os.Rename(wallets, wallets+".away"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(wallets, []byte("no folder"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.scan(t.Context())
		time.Sleep(9 * time.Minute)
		s.scan(t.Context())
		if got := c.board.Active(); len(got) != 0 {
			t.Errorf("too early: %v", got)
		}
		time.Sleep(2 * time.Minute)
		want := map[string]map[alarm.Kind]int{"": {alarm.Blind: 1}}
		if diff := cmp.Diff(want, c.board.Active()); diff != "" {
			t.Errorf("raised (-want +got):\n%s", diff)
		}
		if err := os.Remove(wallets); err != nil {
			t.Fatal(err)
		}
		s.scan(t.Context())
		if got := c.board.Active(); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
	})
}

// A message that leaves this device names the wallet by its label and the place by its
// kind, and says what to do; an agent follows what the commands change.
func TestAlarmIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, w, home := crying(t)
		var mu sync.Mutex // Each one that is told has its own goroutine.
		var bodies []string
		c.app.network.once.Do(func() {})
		c.app.network.transport = answering(func(r *http.Request) int {
			body, _ := io.ReadAll(r.Body)
			mu.Lock()
			bodies = append(bodies, r.URL.String()+" "+string(body))
			mu.Unlock()
			if strings.HasSuffix(r.URL.Path, "gone") {
				return http.StatusGone
			}
			return http.StatusOK
		})
		k, err := s.app.homeKeychain()
		if err != nil {
			t.Fatal(err)
		}
		var list []alarmRecord
		for id, path := range map[string]string{"00000001": "/one", "00000002": "/gone"} {
			r := alarmRecord{ID: id, Webhook: "https://example.org", Detail: alarm.Label}
			text, _ := json.Marshal(alarmSecrets{URL: "https://example.org" + path})
			if err := k.Set(r.keychainName(), secret.New(text)); err != nil {
				t.Fatal(err)
			}
			list = append(list, r)
		}
		list = append(list, alarmRecord{ID: "00000003", Webhook: "https://example.org", Detail: alarm.Label}) // Its secret is lost.
		if err := s.app.setAlarms(list); err != nil {
			t.Fatal(err)
		}
		var notes []string
		s.hooks = append(s.hooks, func(e event) {
			if e.JSON.Event == "note" {
				notes = append(notes, e.JSON.Error)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { c.run(ctx) })
		defer running.Wait()
		defer cancel()
		w.report(agent.Event{Kind: agent.Late, Time: time.Now(), Places: []satchel.PlaceStatus{{Address: "gdrive:ann@example.org", Health: satchel.HealthSignIn, Err: store.ErrSignIn}}})
		time.Sleep(2*time.Minute + 35*time.Second)
		synctest.Wait()
		if len(bodies) != 2 {
			t.Fatalf("got %q", bodies)
		}
		for _, b := range bodies {
			if !strings.Contains(b, "Sam Smith") || !strings.Contains(b, "Google Drive, which holds") || !strings.Contains(b, "satchel store signin PLACE") || strings.Contains(b, "ann@") {
				t.Errorf("got %s", b)
			}
		}
		if len(notes) != 2 || !strings.Contains(strings.Join(notes, " "), "410") || !strings.Contains(strings.Join(notes, " "), "00000003") {
			t.Errorf("got notes %q", notes)
		}
		bodies = nil
		if err := s.app.setAlarms(list[:0]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if len(bodies) > 2 {
			t.Errorf("who was removed is told: %q", bodies)
		}
		got, err := alarm.Standings(alarmState(home))
		if err != nil || len(got) != 0 {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

// answering carries requests nowhere, and answers.
type answering func(r *http.Request) int

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: a(r), Body: http.NoBody, Header: http.Header{}, Request: r}, nil
}

// The receiver in the examples takes what is signed, and nothing else.
func TestAlarmExample(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("a secret of sixteen\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, filepath.Join("..", "..", "examples", "webhook.py"), "0", filepath.Join(dir, "secret"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	lines := bufio.NewScanner(out)
	lines.Scan()
	port := strings.TrimPrefix(lines.Text(), "ready at port ")
	message := alarm.TestMessage(time.Now())
	send := func(key string, now time.Time) error {
		w := &alarm.Webhook{URL: "http://127.0.0.1:" + port + "/", Secret: secret.FromString(key), Now: func() time.Time { return now }}
		return w.Send(t.Context(), message)
	}
	for range 2 { // Twice the same is taken once.
		if err := send("a secret of sixteen", time.Now()); err != nil {
			t.Error(err)
		}
	}
	if err := send("another secret, longer", time.Now()); !errors.Is(err, alarm.ErrRefused) {
		t.Errorf("another secret: got %v", err)
	}
	if err := send("a secret of sixteen", time.Now().Add(-time.Hour)); !errors.Is(err, alarm.ErrRefused) {
		t.Errorf("an hour old: got %v", err)
	}
	if err := send("", time.Now()); !errors.Is(err, alarm.ErrRefused) {
		t.Errorf("not signed: got %v", err)
	}
	// A length that is none is refused at once, and not waited for.
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(line, " 400 ") {
		t.Errorf("a negative length: got %q, %v", line, err)
	}
	message.ID = "another"
	if err := send("a secret of sixteen", time.Now()); err != nil {
		t.Error(err)
	}
	subjects := 0
	for lines.Scan() && subjects < 2 {
		if lines.Text() == "Satchel: a test" {
			if subjects++; subjects == 2 {
				break
			}
		}
	}
	if subjects != 2 {
		t.Errorf("%d messages were printed, want 2", subjects)
	}
}
