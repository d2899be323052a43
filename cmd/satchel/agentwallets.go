package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/internal/control"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/source"
	"github.com/satchel-backup/satchel/source/file"
)

// supervisor is one "satchel agent run": it has a session for each wallet of this device.
type supervisor struct {
	app   *app
	every time.Duration
	keep  int

	// hooks are told of each event of every wallet, one event at a time and in the order
	// of their ids. A wallet goes on when they return: they must wait for nothing.
	hooks []func(event)

	ring      *control.Ring // the last events
	began     time.Time
	addresses func() string // of this machine; another one in tests

	telling sync.Mutex // held while the hooks are called
	last    uint64     // id of the last event; guarded by telling

	mu       sync.Mutex
	sessions map[string]*session // by the name of the wallet's directory; guarded by mu
	looked   time.Time           // when the wallets were last looked for; guarded by mu
	blind    string              // why they could not be; guarded by mu
	count    int                 // of sessions that were begun; guarded by mu

	notifier file.Notifier  // one for all wallets
	running  sync.WaitGroup // the sessions
}

// session is one wallet of an agent.
type session struct {
	name string
	dir  string
	nth  int // how many were begun before

	puts  *puts          // what programs hand over
	slots chan struct{}  // holds one element for each put that is read, or waits to be journalled
	asks  chan agent.Ask // what they ask for

	mu     sync.Mutex
	state  sessionState
	since  time.Time       // of the wall clock, when that began
	err    error           // why it ended
	due    time.Time       // of package time: later it hangs
	backup *satchel.Backup // while it is open, else nil
	open   chan struct{}   // closed when it is not open any more; of the backup
	moved  chan struct{}   // closed, and made anew, when something goes to a place
}

func newSession(name, dir string, nth int, now time.Time) *session {
	return &session{name: name, dir: dir, nth: nth, state: sessionOpening, since: now, due: time.Now().Add(dueGrace),
		puts: &puts{queue: make(chan put)}, slots: make(chan struct{}, maxPuts), asks: make(chan agent.Ask), moved: make(chan struct{})}
}

// sessionState is how a wallet is kept up to date. It is stable: programs read it.
type sessionState string

const (
	sessionOpening   sessionState = "opening"   // it begins
	sessionWatching  sessionState = "watching"  // all is kept up to date
	sessionElsewhere sessionState = "elsewhere" // another satchel does it
	sessionEnded     sessionState = "ended"     // nobody does it; it is tried again, mostly when something changed
)

// maxEvents is how many events can be asked for again.
const maxEvents = 1000

// newSupervisor is a supervisor that has no wallets yet.
func newSupervisor(a *app, every time.Duration, keep int) *supervisor {
	// So ids grow from one run to the next, and are exact in every language: a program
	// that asks for all events since one learns what it missed.
	first := uint64(a.now().UnixMilli()) * 1000
	s := &supervisor{app: a, every: every, keep: keep, last: first, sessions: map[string]*session{}, ring: control.NewRing(maxEvents), began: a.now(), addresses: addresses}
	s.hooks = append(s.hooks, func(e event) {
		line, err := json.Marshal(e.JSON)
		if err == nil {
			s.ring.Add(control.Entry{ID: e.JSON.ID, Wallet: e.JSON.Wallet, Line: append(line, '\n')})
		}
	})
	return s
}

// tell is the one place that all events pass. wallet is "" for those of no wallet.
func (s *supervisor) tell(wallet string, e event) {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.last++
	e.JSON.ID, e.JSON.Wallet, e.JSON.Text = s.last, wallet, e.Line
	if e.JSON.Time.IsZero() {
		e.JSON.Time = s.app.now()
	}
	e.JSON.Time = e.JSON.Time.UTC().Truncate(time.Millisecond)
	for _, hook := range s.hooks {
		hook(e)
	}
}

// run keeps all wallets up to date until ctx ends, and returns when all sessions have.
func (s *supervisor) run(ctx context.Context) {
	defer s.running.Wait()
	where, asked := s.addresses(), time.Time{}
	for {
		s.scan(ctx)
		if now := s.addresses(); now != where && time.Since(asked) >= moveAgain {
			where, asked = now, time.Now()
			if now != "" {
				s.syncAll(ctx)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(followEvery):
		}
	}
}

// moveAgain is how often at most a change of the network is a reason to try again.
const moveAgain = 30 * time.Second

// syncAll asks every session to bring up what is late: this machine is in another network
// than before, and what failed may succeed.
func (s *supervisor) syncAll(ctx context.Context) {
	for _, ses := range s.all() {
		ses.mu.Lock()
		b, closed := ses.backup, ses.open
		ses.mu.Unlock()
		if b == nil || allWell(b.Status()) {
			continue
		}
		s.running.Go(func() {
			select {
			case ses.asks <- agent.Ask{Answer: make(chan agent.Answer, 1)}:
			case <-closed:
			case <-time.After(moveAgain): // It is trying already.
			case <-ctx.Done():
			}
		})
	}
}

// allWell reports whether every place holds the newest state.
func allWell(st satchel.Status) bool {
	return st.Protected && !slices.ContainsFunc(st.Places, func(p satchel.PlaceStatus) bool { return p.Health != satchel.HealthProtected })
}

// addresses are those that this machine has in networks; "" if it is in none.
func addresses() string {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	var all []string
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			all = append(all, n.String())
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// unfinished is how long a wallet is left alone that is being made: it gets its own name
// when it is whole, and a command that was killed leaves one that works under the other.
const unfinished = time.Hour

// scan begins a session for each wallet that has none.
func (s *supervisor) scan(ctx context.Context) {
	names, err := s.wallets()
	s.mu.Lock()
	s.looked = time.Now()
	blind := ""
	if err != nil {
		blind = errorText(err)
	}
	news := blind != s.blind
	s.blind = blind
	for _, name := range names {
		if s.sessions[name] != nil || ctx.Err() != nil {
			continue
		}
		ses := newSession(name, filepath.Join(s.walletsDir(), name), s.count, s.app.now())
		s.count++
		s.sessions[name] = ses
		s.running.Go(func() {
			s.keepUp(ctx, ses)
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.sessions, name)
		})
	}
	s.mu.Unlock()
	if news && blind == "" {
		s.tell("", event{JSON: eventJSON{Event: "sees"}, Line: "wallets can be looked for again"})
	}
	if news && blind != "" {
		s.tell("", event{JSON: eventJSON{Event: "blind", Error: blind, Code: int(codeOf(err))}, Line: "cannot look for new wallets: " + blind, Err: err})
	}
}

// walletsDir is where the wallets of this device are.
func (s *supervisor) walletsDir() string {
	home, _ := s.app.home() // An agent began with one.
	return filepath.Join(home, "wallets")
}

// wallets lists the names of the wallets of this device.
func (s *supervisor) wallets() ([]string, error) {
	dir := s.walletsDir()
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !e.IsDir() {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, e.Name(), "device.json"))
		if err != nil || strings.HasPrefix(e.Name(), unnamed) && time.Since(info.ModTime()) < unfinished {
			continue
		}
		if strings.HasPrefix(e.Name(), unnamed) && s.app.rekeying(e.Name()) {
			continue
		}
		names = append(names, e.Name())
	}
	return names, nil
}

// Between two tries of a wallet that cannot be kept up to date.
const (
	againFirst = 2 * time.Second
	againMost  = 5 * time.Minute
	againLasts = 6 * time.Hour // where only a change helps, and a change is noticed
	tellAgain  = 24 * time.Hour
	// checkApart is between the first comparisons of two wallets, checkSpread the most.
	checkApart  = 10 * time.Second
	checkSpread = 30 * time.Minute
)

// keepUp keeps one wallet up to date until ctx ends, or the wallet is gone.
func (s *supervisor) keepUp(ctx context.Context, ses *session) {
	s.app.stays(ses.name) // What was said of an earlier one of this name.
	var told string
	var toldAt time.Time
	tell := func(e event) {
		if e.JSON.Event == "watching" {
			told = ""
		}
		s.tell(ses.name, e)
	}
	w := &watch{
		name: ses.name, every: s.every, keep: s.keep, tell: tell, due: ses.setDue, have: ses.setBackup, notifier: &s.notifier,
		more: []source.Source{ses.puts}, asks: ses.asks, progress: ses.progress,
	}
	w.app = s.app.inside(&notes{tell: tell, now: s.app.now})
	if s.every > 0 {
		w.checkAt = s.app.now().Add(min(firstCheck+time.Duration(ses.nth)*checkApart, checkSpread))
	}
	var pause time.Duration
	refused := 0 // tries to get the lock
	for ctx.Err() == nil {
		w.back(0)
		lock, err := w.lock("run")
		if errors.Is(err, durable.ErrLocked) {
			// It may be a status, which only looks whether somebody watches.
			if refused++; refused == runTries {
				ses.set(sessionElsewhere, nil, s.app.now())
				tell(event{JSON: eventJSON{Event: "elsewhere"}, Line: "another satchel watch keeps this wallet up to date; the agent does when that ends"})
			}
			pauseFor(ctx, followEvery)
			continue
		}
		refused = 0
		began := time.Now()
		if err == nil {
			ses.set(sessionOpening, nil, s.app.now())
			err = w.stay(ctx)
			lock.Unlock()
		}
		if ctx.Err() != nil {
			return
		}
		before := s.stamps(ses)
		if errors.Is(err, satchel.ErrNoDevice) && before.device == (fileStamp{}) {
			e := event{JSON: eventJSON{Event: "gone"}, Line: "this wallet is not on this device any more"}
			if !s.app.mayGo(ses.name) {
				e.JSON.Error = "its folder is gone, and no command of Satchel took it away"
				e.Line += ": " + e.JSON.Error
			}
			s.app.stays(ses.name)
			tell(e)
			return
		}
		ses.set(sessionEnded, err, s.app.now())
		if why := errorText(err); why != told || s.app.now().Sub(toldAt) >= tellAgain {
			told, toldAt = why, s.app.now()
			w.ended(err)
		}
		if time.Since(began) > againMost {
			pause = 0
		}
		pause = min(max(2*pause, againFirst), againMost)
		wait := pause/2 + rand.N(pause/2+1)
		if agent.Lasts(err) {
			wait = againLasts
		}
		for began := time.Now(); time.Since(began) < wait && ctx.Err() == nil; {
			w.back(0)
			pauseFor(ctx, min(followEvery, wait))
			if s.stamps(ses) != before {
				pause = 0
				break // Somebody did something about it, perhaps.
			}
		}
	}
}

// firstCheck is how long after the start the first wallet is compared.
const firstCheck = 30 * time.Second

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// walletStamps tell whether something happened to a wallet.
type walletStamps struct{ device, log, record fileStamp }

func (s *supervisor) stamps(ses *session) walletStamps {
	w := &watch{app: s.app, name: ses.name}
	return walletStamps{fileStampOf(filepath.Join(ses.dir, "device.json")), fileStampOf(filepath.Join(ses.dir, "state.log")), w.recordStamp()}
}

func (ses *session) set(state sessionState, err error, now time.Time) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.state != state {
		ses.since = now
	}
	ses.state, ses.err = state, err
}

func (ses *session) setDue(t time.Time) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.due = t
}

// setBackup is told that the wallet is open, and with nil that it is not any more.
func (ses *session) setBackup(b *satchel.Backup) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.backup = b; b != nil {
		ses.state, ses.open = sessionWatching, make(chan struct{})
	} else {
		ses.state = sessionOpening
		close(ses.open)
	}
}

// progress notices that something is on its way to a place: then it is journalled.
func (ses *session) progress(p satchel.Progress) {
	if p.Stage != satchel.Uploading {
		return
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	close(ses.moved)
	ses.moved = make(chan struct{})
}

// hangs lists the wallets whose sessions should have come back and did not, "" among them
// for the supervisor itself.
func (s *supervisor) hangs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	now := time.Now()
	if now.Sub(s.looked) > dueGrace {
		names = append(names, "")
	}
	for name, ses := range s.sessions {
		ses.mu.Lock()
		if now.After(ses.due) {
			names = append(names, name)
		}
		ses.mu.Unlock()
	}
	slices.Sort(names)
	return names
}

// notes makes events of what a part of the agent has to note. It is told once an hour.
type notes struct {
	tell func(event)
	now  func() time.Time

	mu   sync.Mutex
	told map[string]time.Time // guarded by mu
}

const (
	noteAgain = time.Hour
	maxNotes  = 100
)

func (n *notes) Write(p []byte) (int, error) {
	line := strings.TrimPrefix(strings.TrimSpace(string(p)), "satchel: ")
	n.mu.Lock()
	now := n.now()
	at, ok := n.told[line]
	again := !ok || now.Sub(at).Abs() >= noteAgain
	if again {
		if n.told == nil || len(n.told) >= maxNotes {
			n.told = map[string]time.Time{}
		}
		n.told[line] = now
	}
	n.mu.Unlock()
	if again {
		n.tell(event{JSON: eventJSON{Event: "note", Error: line}, Line: line})
	}
	return len(p), nil
}
