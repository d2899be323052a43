//go:build unix

package main

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/internal/metrics/metricstest"
	"github.com/satchel-backup/satchel/secret"
)

// gauged is an agent, with a wallet in it, that answers Prometheus.
func gauged(t *testing.T) (s *supervisor, get func(host string) (int, string)) {
	t.Helper()
	dir := t.TempDir()
	env := map[string]string{"SATCHEL_HOME": filepath.Join(dir, "device"), "SATCHEL_KEYCHAIN": "file", "HOME": dir}
	if code, _, stderr := runHere(t, env, "create", "--in", filepath.Join(dir, "place"), "--label", "Sam", "--unlock", "recovery-code", "--json"); code != 0 {
		t.Fatal(stderr)
	}
	s, c, _ := cryingIn(t, env)
	devices, err := s.app.devices()
	if err != nil || len(devices) != 1 {
		t.Fatal(devices, err)
	}
	b, err := s.app.openDevice(t.Context(), devices[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	s.sessions["Sam"] = &session{name: "Sam", dir: devices[0].dir, state: sessionWatching, backup: b}
	s.sessions["Other"] = &session{name: "Other", dir: filepath.Join(dir, "nowhere"), state: sessionEnded}
	s.looked = time.Now()
	for _, ses := range s.sessions {
		ses.due = time.Now().Add(time.Hour)
	}
	g := newGauges(s, c.board)
	l, err := listenMetrics(":0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() { g.serve(ctx, l) })
	t.Cleanup(func() { cancel(); serving.Wait() })
	return s, func(host string) (int, string) {
		t.Helper()
		req, err := http.NewRequest("GET", (&url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/metrics"}).String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
}

// What Prometheus is told is well-formed, right, and names no address; and the rules in
// docs/alarms.md speak of numbers that there are.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s, get := gauged(t)
	place := satchel.PlaceStatus{Address: "folder:/place", Health: satchel.HealthFull}
	w := &watch{app: s.app, name: "Sam", tell: func(e event) { s.tell("Sam", e) }}
	since := time.Now().Add(-2 * time.Hour).Truncate(time.Second)
	w.report(agent.Event{Kind: agent.Saved, Time: since, Places: []satchel.PlaceStatus{place}})
	w.report(agent.Event{Kind: agent.Alarm, Time: since.Add(time.Hour), Since: since, Places: []satchel.PlaceStatus{place}})
	w.event(eventJSON{Event: "watching"}, "")
	w.event(eventJSON{Event: "watching"}, "")
	_, text := get("")
	all, err := metricstest.Parse(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	value := func(name string) float64 {
		t.Helper()
		family, labels, _ := strings.Cut(name, "{")
		if labels != "" {
			labels = "{" + labels
		}
		f := all[family]
		if f == nil {
			t.Fatalf("no %s in\n%s", family, text)
		}
		v, ok := f.Values[labels]
		if !ok {
			t.Errorf("no %s, but %v", name, f.Values)
		}
		return v
	}
	for name, want := range map[string]float64{
		`satchel_wallet_kept{wallet="Sam"}`:                                               1,
		`satchel_wallet_kept{wallet="Other"}`:                                             0,
		`satchel_wallet_protected{wallet="Sam"}`:                                          1,
		`satchel_wallet_generation{wallet="Sam"}`:                                         1,
		`satchel_wallet_drilled_timestamp_seconds{wallet="Sam"}`:                          0,
		`satchel_wallet_unprotected_since_timestamp_seconds{wallet="Sam"}`:                0, // It is, whatever the events said.
		`satchel_place_protected{wallet="Sam",place="1",kind="a folder"}`:                 1,
		`satchel_place_health{wallet="Sam",place="1",kind="a folder",health="protected"}`: 1,
		`satchel_place_generation{wallet="Sam",place="1",kind="a folder"}`:                1,
		`satchel_events_total{event="watching"}`:                                          2,
		`satchel_events_total{event="alarm"}`:                                             1,
		`satchel_alarms_active{wallet="Sam",kind="not protected"}`:                        1,
		`satchel_alarms_failing`:                                                          0,
		`satchel_agent_hanging`:                                                           0,
	} {
		if got := value(name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	now := float64(time.Now().Unix())
	for _, name := range []string{`satchel_wallet_saved_timestamp_seconds{wallet="Sam"}`, `satchel_wallet_verified_timestamp_seconds{wallet="Sam"}`,
		`satchel_place_verified_timestamp_seconds{wallet="Sam",place="1",kind="a folder"}`, `satchel_agent_start_timestamp_seconds`} {
		if got := value(name); got < now-600 || got > now+1 {
			t.Errorf("%s: got %v, want about now", name, got)
		}
	}
	if due := value(`satchel_wallet_drill_due_timestamp_seconds{wallet="Sam"}`); due < now+5*86400 || due > now+7*86400 {
		t.Errorf("drill due %v, want in a week", due-now)
	}
	for _, secret := range []string{"/place", "folder:"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in\n%s", secret, text)
		}
	}
	doc := document(t, "docs", "alarms.md")
	named := regexp.MustCompile(`satchel_[a-z_]+`).FindAllString(doc, -1)
	for _, name := range named {
		if all[name] == nil {
			t.Errorf("docs/alarms.md speaks of %s, which there is not", name)
		}
	}
	if rules := regexp.MustCompile(`(?m)^ *expr: .*satchel_`).FindAllString(doc, -1); len(rules) < 4 {
		t.Errorf("%d rules in docs/alarms.md", len(rules))
	}
	for name := range all {
		if !strings.Contains(doc, name) {
			t.Errorf("docs/alarms.md does not name %s", name)
		}
	}
}

// Since when a wallet is not protected is what the events say, through restarts of the
// session too.
func TestMetricsSince(t *testing.T) {
	t.Parallel()
	s, _ := gauged(t)
	g := newGauges(s, nil)
	w := &watch{app: s.app, name: "Sam", tell: func(e event) { s.tell("Sam", e) }}
	st := satchel.Status{Saved: time.Unix(4000, 0)}
	want := func(unix int64) {
		t.Helper()
		if got := g.sinceOf("Sam", st); got.Unix() != unix {
			t.Errorf("got %v, want %d", got, unix)
		}
	}
	want(4000)
	w.report(agent.Event{Kind: agent.Saved, Time: time.Unix(5000, 0)})
	want(5000)
	w.report(agent.Event{Kind: agent.Saved, Time: time.Unix(6000, 0)})
	want(5000)
	w.report(agent.Event{Kind: agent.Alarm, Time: time.Unix(7000, 0), Since: time.Unix(4500, 0)})
	want(4500)
	w.event(eventJSON{Event: "ended", Error: "x"}, "")
	want(4500)
	w.report(agent.Event{Kind: agent.CaughtUp, Time: time.Unix(8000, 0), Protected: true})
	want(4000)
	st.Unprotected = time.Unix(3000, 0)
	want(3000)
	st.Protected = true
	if got := g.sinceOf("Sam", st); !got.IsZero() {
		t.Errorf("got %v", got)
	}
}

// Only who asks by a name of this machine is answered, and only where it should be.
func TestMetricsHost(t *testing.T) {
	t.Parallel()
	_, get := gauged(t)
	for host, want := range map[string]int{"": 200, "localhost": 200, "127.0.0.1:9736": 200, "[::1]:9736": 200, "[::1]": 200, "evil.example.org": 403, "evil.example.org:80": 403, "localhost.example.org": 403} {
		if code, _ := get(host); code != want {
			t.Errorf("Host %q: %d, want %d", host, code, want)
		}
	}
	for _, address := range []string{"9736", "127.0.0.1", "127.0.0.1:x", "203.0.113.1:9736"} {
		if l, err := listenMetrics(address); err == nil {
			l.Close()
			t.Errorf("listens at %s", address)
		}
	}
	l, err := listenMetrics(":0")
	if err != nil || !strings.HasPrefix(l.Addr().String(), "127.0.0.1:") {
		t.Errorf("%v, %v", l, err)
	}
	l.Close()
}

// A drill clears the reminder, and status says when it was.
func TestDrillIsRemembered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := map[string]string{"SATCHEL_HOME": filepath.Join(dir, "device"), "SATCHEL_KEYCHAIN": "file", "HOME": dir}
	want := func(code int, stdin string, args ...string) string {
		t.Helper()
		got, stdout, stderr := runWith(t, env, stdin, args...)
		if got != code {
			t.Fatalf("satchel %v: code %d, want %d: %s%s", args, got, code, stdout, stderr)
		}
		return stdout
	}
	out := want(0, "", "create", "--in", filepath.Join(dir, "place"), "--label", "Sam", "--unlock", "recovery-code", "--json")
	code := secret.FromString(regexp.MustCompile(`"secret":"([^"]+)"`).FindStringSubmatch(out)[1])
	if out := want(0, "", "status"); !strings.Contains(out, "Drill     no restore was tried yet with these ways in: `satchel drill`") {
		t.Errorf("got %s", out)
	}
	if out := want(0, "", "status", "--json"); !strings.Contains(out, `"drilled":null,"drill_due":"`) {
		t.Errorf("got %s", out)
	}
	want(12, "0000-0000\n", "drill", "--secret-fd", "0")
	if out := want(0, "", "status", "--json"); !strings.Contains(out, `"drilled":null`) {
		t.Errorf("got %s", out)
	}
	want(0, string(code.Open())+"\n", "drill", "--secret-fd", "0")
	if out := want(0, "", "status"); !strings.Contains(out, "Drill     a restore was tried today\n") {
		t.Errorf("got %s", out)
	}
}
