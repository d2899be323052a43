package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/internal/alarm"
	"github.com/satchel-backup/satchel/internal/metrics"
)

// gauges are an agent's numbers for Prometheus.
type gauges struct {
	s     *supervisor
	board *alarm.Board

	mu     sync.Mutex
	events map[string]int64     // by what they are of; guarded by mu
	since  map[string]time.Time // since when a wallet is not protected, by name; guarded by mu
}

// newGauges hooks the counting of events into an agent.
func newGauges(s *supervisor, board *alarm.Board) *gauges {
	g := &gauges{s: s, board: board, events: map[string]int64{}, since: map[string]time.Time{}}
	s.hooks = append(s.hooks, g.count)
	return g
}

func (g *gauges) count(e event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events[e.JSON.Event]++
	switch name := e.JSON.Wallet; {
	case name == "" || e.JSON.Protected == nil:
	case *e.JSON.Protected:
		delete(g.since, name)
	case e.JSON.Event == string(agent.Alarm) && e.JSON.Since != nil:
		g.since[name] = *e.JSON.Since
	case g.since[name].IsZero():
		g.since[name] = e.JSON.Time
	}
}

// sinceOf returns since when a wallet is not protected: as the events said, or if none did
// since its newest state; or since earlier, if its record on this device says so.
func (g *gauges) sinceOf(name string, st satchel.Status) time.Time {
	if st.Protected {
		return time.Time{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.since[name]
	if t.IsZero() {
		t = st.Saved
	}
	if !st.Unprotected.IsZero() && st.Unprotected.Before(t) {
		return st.Unprotected
	}
	return t
}

// maxGauged bounds the wallets that numbers are told of.
const maxGauged = 1000

// write writes all numbers.
func (g *gauges) write(ctx context.Context, w io.Writer) {
	m := metrics.New(w, "satchel_")
	m.Family("agent_info", metrics.Gauge, "What runs.")
	m.Value(1, "version", satchel.Version, "go", runtime.Version())
	m.Family("agent_start_timestamp_seconds", metrics.Gauge, "When the agent began.")
	m.Value(metrics.Seconds(g.s.began))
	m.Family("agent_hanging", metrics.Gauge, "Loops of the agent that should have come back and did not.")
	m.Value(float64(len(g.s.hangs())))
	m.Family("events_total", metrics.Counter, "Events since the agent began, by what they are of.")
	g.mu.Lock()
	events := maps.Clone(g.events)
	g.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(events)) {
		m.Value(float64(events[name]), "event", name)
	}

	sessions := g.s.all()
	sessions = sessions[:min(len(sessions), maxGauged)]
	type wallet struct {
		name  string
		kept  bool
		known bool // st is
		st    satchel.Status
	}
	var wallets []wallet
	for _, ses := range sessions {
		st, state, err := g.s.statusOf(ctx, ses)
		wallets = append(wallets, wallet{ses.name, state == sessionWatching || state == sessionElsewhere, err == nil, st})
	}
	one := func(name, help string, value func(w wallet) float64) {
		m.Family("wallet_"+name, metrics.Gauge, help)
		for _, w := range wallets {
			if w.known {
				m.Value(value(w), "wallet", w.name)
			}
		}
	}
	m.Family("wallet_kept", metrics.Gauge, "1 if the wallet is kept up to date, by the agent or by another satchel.")
	for _, w := range wallets {
		m.Value(metrics.Truth(w.kept), "wallet", w.name)
	}
	one("protected", "1 if the newest state is read back and compared in enough places.", func(w wallet) float64 { return metrics.Truth(w.st.Protected) })
	one("generation", "The newest state, perhaps on this device only.", func(w wallet) float64 { return float64(w.st.Generation) })
	one("items", "Items that the wallet has.", func(w wallet) float64 { return float64(w.st.Items) })
	one("saved_timestamp_seconds", "When the newest state was saved on this device.", func(w wallet) float64 { return metrics.Seconds(w.st.Saved) })
	one("verified_timestamp_seconds", "When enough places were last verified to hold the then newest state; 0 if never.", func(w wallet) float64 { return metrics.Seconds(w.st.Verified) })
	one("unprotected_since_timestamp_seconds", "Since when something is not protected; 0 if all is.", func(w wallet) float64 { return metrics.Seconds(g.sinceOf(w.name, w.st)) })
	one("drilled_timestamp_seconds", "When a restore was last tried and passed; 0 if never.", func(w wallet) float64 { return metrics.Seconds(w.st.Drilled) })
	one("drill_due_timestamp_seconds", "When the next drill is due.", func(w wallet) float64 { return metrics.Seconds(agent.DrillDueAt(w.st, 0)) })

	// A place is named by its number in "satchel status" and by its kind: an address has
	// names of accounts and paths in it.
	places := func(name, help string, value func(w wallet, p satchel.PlaceStatus) (float64, []string)) {
		m.Family("place_"+name, metrics.Gauge, help)
		for _, w := range wallets {
			for i, p := range w.st.Places {
				v, more := value(w, p)
				m.Value(v, append([]string{"wallet", w.name, "place", strconv.Itoa(i + 1), "kind", placeCalled(p.Address)}, more...)...)
			}
		}
	}
	places("protected", "1 if the place holds the newest state, read back and compared.", func(w wallet, p satchel.PlaceStatus) (float64, []string) {
		return metrics.Truth(p.Health == satchel.HealthProtected && p.Generation == w.st.Generation), nil
	})
	places("health", "1, with how the place stands.", func(_ wallet, p satchel.PlaceStatus) (float64, []string) {
		return 1, []string{"health", string(p.Health)}
	})
	places("generation", "The newest state that the place is known to hold.", func(_ wallet, p satchel.PlaceStatus) (float64, []string) { return float64(p.Generation), nil })
	places("verified_timestamp_seconds", "When that was verified; 0 if never.", func(_ wallet, p satchel.PlaceStatus) (float64, []string) { return metrics.Seconds(p.Verified), nil })

	m.Family("alarms_active", metrics.Gauge, "What is wrong now and deserves a person, by wallet and kind.")
	active := g.board.Active()
	for _, name := range slices.Sorted(maps.Keys(active)) {
		for _, kind := range slices.Sorted(maps.Keys(active[name])) {
			m.Value(float64(active[name][kind]), "wallet", name, "kind", string(kind))
		}
	}
	m.Family("alarms_failing", metrics.Gauge, "Receivers of alarms that could not be reached when last tried.")
	m.Value(float64(g.board.Failing()))
}

// statusOf returns how a wallet stands. One that another satchel keeps up to date is
// opened for it.
func (s *supervisor) statusOf(ctx context.Context, ses *session) (satchel.Status, sessionState, error) {
	ses.mu.Lock()
	b, state := ses.backup, ses.state
	ses.mu.Unlock()
	if b != nil {
		return b.Status(), state, nil
	}
	info, err := satchel.ReadDevice(ses.dir)
	if err != nil {
		return satchel.Status{}, state, err
	}
	b, err = s.app.inside(nothing{}).openDevice(ctx, device{ses.name, ses.dir, info})
	if err != nil {
		return satchel.Status{}, state, err
	}
	defer b.Close()
	return b.Status(), state, nil
}

// metricsTime is how long the numbers may take to be gathered.
const metricsTime = 10 * time.Second

const metricsHelp = "answer Prometheus at `HOST:PORT`, such as 127.0.0.1:9736, with /metrics; the names of wallets are in it, so think twice before others can reach it"

// listenMetrics listens for Prometheus: on this machine only, unless a host is named.
func listenMetrics(address string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, usagef("--metrics is HOST:PORT, such as 127.0.0.1:9736")
	}
	if host == "" {
		host = "127.0.0.1"
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("listening for Prometheus: %w", err)
	}
	return l, nil
}

// serve answers Prometheus until ctx ends.
func (g *gauges) serve(ctx context.Context, l net.Listener) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.Handler(func(r *http.Request, w io.Writer) {
		ctx, cancel := context.WithTimeout(r.Context(), metricsTime)
		defer cancel()
		g.write(ctx, w)
	}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: metricsTime, WriteTimeout: 2 * metricsTime, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	if host, _, err := net.SplitHostPort(l.Addr().String()); err == nil && alarm.Loopback(host) {
		server.Handler = onlyHere(mux)
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	server.Serve(l)
}

// onlyHere lets in who asks by a name of this machine: a page in a browser could make its
// own name lead here, and read the names of wallets.
func onlyHere(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			name = r.Host
		}
		if !alarm.Loopback(strings.Trim(name, "[]")) {
			http.Error(w, "the name in Host is not this machine's", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
