package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/https"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// soakEnv is how long TestServersSoak runs.
const soakEnv = "SATCHEL_SERVER_SOAK"

// Real servers, some over one PostgreSQL and some with SQLite, and clients that enrol,
// recover, guess wrong, change PINs, replace guardians and put heads, while servers are
// killed and ended, the database dies and is away, and connections are cut. In the end
// every PIN is the one that its client knows, every counter is what the clients saw,
// every error was of a kind that these faults explain, and memory is flat.
func TestServersSoak(t *testing.T) {
	long, err := time.ParseDuration(os.Getenv(soakEnv))
	if err != nil {
		t.Skip("set " + soakEnv + " to a duration to run this")
	}
	db := newCluster(t, clusterFolder(t), "db")
	db.start("")
	s := &soak{T: t, errors: map[string]int{}, ledgers: map[string]*ledger{}}
	s.http = &http.Client{Transport: &http.Transport{DialContext: s.dial, MaxIdleConnsPerHost: 64}, Timeout: 10 * time.Second}
	for i := range 4 {
		w := newWorld(t)
		if i == 2 {
			w.flags, w.database = []string{"--database", db.address()}, db
		}
		g := &soakGuardian{name: fmt.Sprintf("https://g%d.example", i+1), w: w, servers: []*server{w.serve()}}
		if w.database != nil {
			g.servers = append(g.servers, w.serve())
		}
		s.guardians = append(s.guardians, g)
	}
	// These two are never killed, so that one can see what memory they take.
	steady := map[string]*server{"sqlite": s.guardians[1].servers[0], "postgres": s.guardians[2].servers[1]}
	memory := map[string][]float64{}

	var wait sync.WaitGroup
	var list []*holder
	for i := range 12 {
		h := newHolder(s, i)
		list = append(list, h)
		wait.Go(h.live)
	}
	start, faults := time.Now(), map[string]int{}
	for n := 0; time.Since(start) < long && !t.Failed(); n++ {
		s.pause(300, 3000)
		what := s.fault(rand.IntN(10))
		faults[what]++
		for name, server := range steady {
			memory[name] = append(memory[name], rss(t, server))
		}
	}
	s.ended.Store(true)
	wait.Wait()

	for _, h := range list {
		h.settled()
	}
	for _, h := range list {
		h.counted(true)
	}
	for _, g := range s.guardians {
		g.w.later(73 * time.Hour) // All locks have ended.
	}
	s.later.Store(int64(73 * time.Hour))
	for _, h := range list {
		h.opens()
	}
	ops := map[string]int{}
	for _, h := range list {
		for k, n := range h.did {
			ops[k] += n
		}
	}
	for _, g := range s.guardians {
		for _, server := range g.servers {
			server.stop()
		}
	}
	for _, g := range s.guardians {
		for _, server := range append(g.dead, g.servers...) {
			s.explained(g, server.log.String())
		}
	}
	t.Logf("%v: did %v; faults %v; requests %d, evaluations that left %d", long, ops, faults, s.requests.Load(), s.released.Load())
	for _, k := range slices.Sorted(maps.Keys(s.errors)) {
		t.Logf("%6d times %s", s.errors[k], k)
	}
	for name, list := range memory {
		warm := list[len(list)/4:]
		first, last := median(warm[:len(warm)/3]), median(warm[len(warm)*2/3:])
		t.Logf("memory of the %s server: %.1f MB in the second quarter, %.1f MB in the last (%+.1f %%)", name, first, last, 100*(last-first)/first)
		most := first*1.1 + 4
		if long < 10*time.Minute {
			most = 2*first + 16 // In two minutes, one moment of many requests weighs as much as a leak.
		}
		if last > most {
			t.Errorf("the memory of the %s server grows: %.1f", name, list)
		}
	}
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// rss returns the megabytes that a process has in memory.
func rss(t *testing.T, s *server) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return float64(kb) / 1024
}

type soak struct {
	*testing.T
	guardians []*soakGuardian
	http      *http.Client
	ended     atomic.Bool
	later     atomic.Int64 // nanoseconds

	requests, released atomic.Int64

	mu      sync.Mutex
	conns   map[net.Conn]bool
	errors  map[string]int
	ledgers map[string]*ledger // by server and access key
}

type soakGuardian struct {
	name string
	w    *world

	mu      sync.Mutex
	servers []*server
	dead    []*server
	next    int
}

func (g *soakGuardian) url() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next++
	return strings.TrimSuffix(g.servers[g.next%len(g.servers)].url, protocol.Path)
}

func (s *soak) pause(least, most int) {
	time.Sleep(time.Duration(least+rand.IntN(most-least)) * time.Millisecond)
}

// fault does one, and returns what. It is called by the test's goroutine only.
func (s *soak) fault(kind int) string {
	g := []*soakGuardian{s.guardians[0], s.guardians[2], s.guardians[3]}[rand.IntN(3)]
	db := s.guardians[2].w.database
	switch kind {
	case 0, 1, 2:
		g.replace(func(old *server) { old.kill() })
		return "server killed"
	case 3:
		// For a while it drains, and the new one is there already.
		g.replace(func(old *server) { go old.cmd.Process.Signal(os.Interrupt); <-old.ended })
		return "server ended"
	case 4:
		db.murderBackend()
		return "backend killed"
	case 5:
		db.murder()
		s.pause(0, 1000)
		db.start("")
		return "database killed"
	case 6:
		// It waits for those whom it tells that it ends, and while servers ask again and
		// again there may always be one.
		if err := db.try("pg_ctl", "-D", db.dir, "-m", "fast", "-t", "5", "-w", "stop"); err != nil {
			db.kill()
		}
		s.pause(500, 3000)
		db.start("")
		return "database away"
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			c.Close()
		}
		clear(s.conns)
		return "connections cut"
	}
}

// replace ends the first server and starts it again.
func (g *soakGuardian) replace(end func(*server)) {
	old := g.servers[0]
	end(old)
	fresh, err := g.w.start()
	for try := 0; err != nil && g.w.database != nil && try < 30; try++ {
		// One that finds no database ends, and whoever looks after it starts it again.
		time.Sleep(time.Second)
		fresh, err = g.w.start()
	}
	if err != nil {
		g.w.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.servers[0] = fresh
	g.dead = append(g.dead, old)
}

func (s *soak) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.conns) > 1000 {
			clear(s.conns)
		}
		if s.conns == nil {
			s.conns = map[net.Conn]bool{}
		}
		s.conns[c] = true
	}
	return c, err
}

// explained fails the test for a line of a server's log that no fault explains.
func (s *soak) explained(g *soakGuardian, log string) {
	for line := range strings.Lines(log) {
		var l struct{ Level, Msg, Err string }
		if json.Unmarshal([]byte(line), &l) != nil {
			s.Errorf("%s says %s", g.name, line)
			continue
		}
		if l.Level != "WARN" && l.Level != "ERROR" || l.Msg == "requests were cut off" || strings.HasPrefix(l.Msg, "A NEW MASTER KEY") {
			continue
		}
		// Only that the database is away.
		why := ""
		if g.w.database != nil && slices.Contains([]string{"a request could not be answered", "the server cannot work"}, l.Msg) {
			for _, text := range []string{
				"connection refused", "connection reset", "unexpected EOF", "broken pipe", "terminating connection", "the database system is", "context deadline exceeded",
				"context canceled", "closed the connection", "conn closed", "57P01", "57P02", "57P03", "timeout", "EOF",
			} {
				if strings.Contains(l.Err, text) {
					why = text
				}
			}
		}
		if why == "" {
			s.Errorf("%s says %s", g.name, line)
		}
		s.errors["log of the servers of PostgreSQL: "+l.Msg+": … "+why]++
	}
}

// ledger is what clients saw of one account's counter.
type ledger struct {
	entries []*entry
	resets  map[string]int // by message: how many entries there were when it was first sent
	count   int
}

// entry is one attempt.
type entry struct {
	number   int
	id       protocol.Attempt
	sent     time.Time
	lost     bool // a request or a reply
	answered bool // the evaluation left
	undone   bool // perhaps: a reset was sent after it
}

// Send implements guard.Transport.
func (s *soak) Send(ctx context.Context, name string, request []byte) ([]byte, error) {
	r, err := protocol.ParseRequest(request)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(s.guardians, func(g *soakGuardian) bool { return g.name == name })
	s.requests.Add(1)
	s.mu.Lock()
	key := name + string(r.Access[:])
	l := s.ledgers[key]
	if l == nil {
		l = &ledger{resets: map[string]int{}}
		s.ledgers[key] = l
	}
	e, reset := l.before(r.Payload)
	s.mu.Unlock()
	b, err := (&https.Transport{Client: s.http}).Send(ctx, s.guardians[i].url(), request)
	s.mu.Lock()
	defer s.mu.Unlock()
	code := protocol.CodeUnavailable
	if err == nil && len(b) > 1 {
		code = protocol.Code(b[1])
	}
	switch {
	case e != nil && code == protocol.CodeUnavailable:
		e.lost = true
	case e != nil && code == protocol.CodeOK && !e.answered:
		e.answered = true
		s.released.Add(1)
	case reset != "" && code == protocol.CodeOK:
		// What was sent before is gone, but for what may still arrive.
		until := l.resets[reset]
		l.entries = slices.DeleteFunc(l.entries, func(e *entry) bool {
			return e.number <= until && (!e.lost || e.answered || time.Since(e.sent) > time.Minute)
		})
	}
	if err != nil {
		s.errors["a client: no reply: "+kindOf(err)]++
	} else if code == protocol.CodeUnavailable {
		s.errors["a client: "+code.String()]++
	}
	return b, err
}

// kindOf is an error without its addresses.
func kindOf(err error) string {
	for _, k := range []string{"connection refused", "connection reset", "EOF", "broken pipe", "use of closed network connection", "server closed idle connection", "context canceled", "Client.Timeout", "deadline exceeded", "status 503"} {
		if strings.Contains(err.Error(), k) {
			return k
		}
	}
	return err.Error()
}

func (l *ledger) before(p protocol.Payload) (e *entry, reset string) {
	switch p := p.(type) {
	case protocol.Evaluate:
		if i := slices.IndexFunc(l.entries, func(e *entry) bool { return e.id == p.Attempt }); i >= 0 {
			return l.entries[i], ""
		}
		l.count++
		e := &entry{number: l.count, id: p.Attempt, sent: time.Now()}
		l.entries = append(l.entries, e)
		return e, ""
	case protocol.Finish:
		reset = string(p.Opened[:])
	case protocol.Confirm:
		reset = string(p.Confirmed[:])
	default:
		return nil, ""
	}
	if _, ok := l.resets[reset]; !ok {
		l.resets[reset] = l.count
	}
	for _, e := range l.entries {
		e.undone = true
	}
	return nil, reset
}

// bounds returns the least and the most guesses that are used.
func (l *ledger) bounds() (low, high int) {
	for _, e := range l.entries {
		if e.answered && !e.undone {
			low++
		}
		if e.answered || e.lost {
			high++
		}
	}
	return low, high
}

func (s *soak) bounds(g *guard.Guardian) (low, high int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	access := ed25519.NewKeyFromSeed(g.Access[:]).Public().(ed25519.PublicKey)
	if l := s.ledgers[g.Server+string(access)]; l != nil {
		return l.bounds()
	}
	return 0, 0
}

// holder has one backup. Its slot and its PIN are what the model knows.
type holder struct {
	*soak
	n           int
	client      *guard.Client
	owner, head ed25519.PrivateKey
	fileKey     secret.Bytes

	slot       *guard.Slot
	pin        string
	next       *guard.Slot // of a change that is not settled
	nextPIN    string
	settlement *guard.Settlement
	abandoned  []*guard.Plan // that are not ended yet
	generation uint64
	wrong      int // in a row
	did        map[string]int
}

func newHolder(s *soak, n int) *holder {
	seed := sha256.Sum256(fmt.Append(nil, "holder ", n))
	key := ed25519.NewKeyFromSeed(seed[:])
	h := &holder{soak: s, n: n, owner: key, head: key, fileKey: secret.New(seed[:guard.FileKeySize]), did: map[string]int{}}
	h.client = &guard.Client{
		Transport: s, Trusted: func(string) bool { return true }, Patience: time.Second, KDF: &guard.KDF{Passes: 1, Lanes: 1, Memory: 8 << 10},
		Now: func() time.Time { return time.Now().Add(time.Duration(s.later.Load())) },
	}
	return h
}

func (h *holder) live() {
	for !h.ended.Load() && !h.Failed() {
		switch k := rand.IntN(100); {
		case h.slot == nil && h.next == nil || k < 12:
			h.change()
		case h.settlement != nil || len(h.abandoned) > 0:
			h.settle()
		case k < 25 && h.wrong < 2:
			h.guessWrong()
		case k < 45:
			h.anchor()
		default:
			h.recover()
		}
		if h.slot != nil && h.settlement == nil && rand.IntN(4) == 0 {
			h.counted(false)
		}
		h.pause(20, 150)
	}
}

// servers returns three of the four, in any order.
func (h *holder) servers() []string {
	var names []string
	for _, i := range rand.Perm(len(h.guardians))[:3] {
		names = append(names, h.guardians[i].name)
	}
	return names
}

// away reports whether faults explain an error, and counts it.
func (h *holder) away(what string, err error) bool {
	ok := errors.Is(err, guard.ErrUnreachable)
	if ok {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.errors["a client: "+what+": too few key servers answer"]++
	}
	return ok
}

func (h *holder) ctx() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}

// change enrols anew, for another PIN, and perhaps at other guardians.
func (h *holder) change() {
	if h.settlement != nil || len(h.abandoned) > 0 {
		h.settle()
		return
	}
	ctx, cancel := h.ctx()
	defer cancel()
	var p *guard.Plan
	var err error
	if h.slot == nil {
		p, err = guard.NewPlan(guard.ID{byte(h.n)}, 2, h.servers())
	} else {
		servers := h.slot.Servers()
		if rand.IntN(3) == 0 {
			servers = h.servers()
		}
		p, err = h.client.Replace(ctx, h.slot, guard.Owner(h.owner), 2, servers)
	}
	if err != nil {
		if !h.away("planning", err) {
			h.Errorf("holder %d: planning: %v", h.n, err)
		}
		return
	}
	pin := fmt.Sprintf("%06d", rand.IntN(1_000_000))
	e, err := h.client.Enrol(ctx, p, secret.FromString(pin), secret.Bytes{})
	if err != nil {
		if !h.away("enrolling", err) {
			h.Errorf("holder %d: enrolling: %v", h.n, err)
		}
		h.abandoned = append(h.abandoned, p)
		return
	}
	slot, err := e.Wrap(h.fileKey)
	if err == nil {
		h.settlement, err = e.Settlement(h.owner.Public().(ed25519.PublicKey), 1, h.head.Public().(ed25519.PublicKey))
	}
	if err != nil {
		h.Errorf("holder %d: %v", h.n, err)
		return
	}
	h.next, h.nextPIN = slot, pin
	h.did["enrolled or changed"]++
	if rand.IntN(4) > 0 { // Else it dies here, and goes on later.
		h.settle()
	}
}

// settle brings what was begun to its end.
func (h *holder) settle() {
	ctx, cancel := h.ctx()
	defer cancel()
	for len(h.abandoned) > 0 {
		if err := h.client.Abandon(ctx, h.abandoned[0]); err != nil {
			if !h.away("abandoning", err) {
				h.Errorf("holder %d: abandoning: %v", h.n, err)
			}
			return
		}
		h.abandoned = h.abandoned[1:]
	}
	if h.settlement == nil {
		return
	}
	left, err := h.client.Settle(ctx, h.settlement)
	h.settlement = left
	if err != nil {
		if !h.away("settling", err) {
			h.Errorf("holder %d: settling: %v", h.n, err)
		}
		// In the middle of it the old PIN or the new one opens.
		if _, err := h.enter(h.next, h.nextPIN); err != nil && h.slot != nil {
			_, old := h.enter(h.slot, h.pin)
			if old != nil && !h.bad(err) && !h.bad(old) {
				h.Errorf("holder %d: in the middle of a change neither opens: new: %v; old: %v", h.n, err, old)
			}
		}
		return
	}
	old, oldPIN := h.slot, h.pin
	h.slot, h.pin, h.next, h.settlement, h.wrong = h.next, h.nextPIN, nil, nil, 0
	if old == nil {
		return
	}
	if o, err := h.enter(old, oldPIN); err == nil {
		h.Errorf("holder %d: the old slot opens with the old PIN: %v", h.n, o.Slot().Servers())
	} else if !errors.Is(err, guard.ErrGone) && !h.away("the old slot", err) {
		h.Errorf("holder %d: the old slot: %v", h.n, err)
	}
}

// bad reports whether an error says nothing about the PIN.
func (h *holder) bad(err error) bool {
	return errors.Is(err, guard.ErrUnreachable) || errors.Is(err, guard.ErrLocked) || errors.Is(err, guard.ErrErased)
}

func (h *holder) enter(slot *guard.Slot, pin string) (*guard.Opened, error) {
	ctx, cancel := h.ctx()
	defer cancel()
	r, err := h.client.Recover(slot, secret.FromString(pin))
	if err != nil {
		return nil, err
	}
	o, err := r.Open(ctx)
	if err != nil {
		return nil, err
	}
	k, err := o.FileKey(secret.Bytes{})
	if err == nil && !bytes.Equal(k.Open(), h.fileKey.Open()) {
		err = errors.New("another file key")
	}
	return o, err
}

// used returns how many guardians may have had so many guesses.
func (h *holder) used(guesses int) (n int) {
	for i := range h.slot.Guardians {
		if _, high := h.bounds(&h.slot.Guardians[i]); high >= guesses {
			n++
		}
	}
	return n
}

// refused reports whether what was guessed explains that no guess is to be had: two of
// three guardians are needed, and beside one that is locked another may be away. The
// owner then sets another PIN.
func (h *holder) refused(err error) bool {
	locked := errors.Is(err, guard.ErrLocked) && h.used(3) >= 1
	erased := errors.Is(err, guard.ErrErased) && h.used(protocol.GuessLimit(2, 3)) >= 2
	if !locked && !erased {
		return false
	}
	h.did["locked or erased"]++
	h.change()
	return true
}

func (h *holder) guessWrong() {
	_, err := h.enter(h.slot, "wrong")
	_, wrong := errors.AsType[*guard.WrongPINError](err)
	switch {
	case wrong:
		h.wrong++
		h.did["guessed wrong"]++
	case err == nil:
		h.Errorf("holder %d: a wrong PIN opens", h.n)
	case !h.away("guessing", err) && !h.refused(err):
		h.Errorf("holder %d: guessing: %v", h.n, err)
	}
}

func (h *holder) recover() {
	o, err := h.enter(h.slot, h.pin)
	if err != nil {
		if !h.away("recovering", err) && !h.refused(err) {
			h.Errorf("holder %d: recovering: %v", h.n, err)
		}
		return
	}
	h.did["recovered"]++
	h.finish(o)
}

func (h *holder) finish(o *guard.Opened) {
	ctx, cancel := h.ctx()
	defer cancel()
	told, err := o.Finish(ctx)
	if err != nil {
		h.Errorf("holder %d: finishing: %v", h.n, err)
	}
	for _, g := range told {
		switch {
		case g.Err == nil:
			h.wrong = 0
		case !h.away("finishing", g.Err) && !(errors.Is(g.Err, guard.ErrErased) && h.used(protocol.GuessLimit(2, 3)) > 0):
			h.Errorf("holder %d: finishing at %s: %v", h.n, g.Server, g.Err)
		}
	}
}

// anchor puts a head, and reads it back.
func (h *holder) anchor() {
	ctx, cancel := h.ctx()
	defer cancel()
	h.generation++
	head := protocol.NewHead(h.head, 1, h.generation, [16]byte{byte(h.generation)}, 0)
	if err := h.client.PutHead(ctx, h.slot, head, nil); err != nil {
		if !h.away("putting a head", err) {
			h.Errorf("holder %d: putting head %d: %v", h.n, h.generation, err)
		}
		return
	}
	h.did["put a head"]++
	list, err := h.client.Heads(ctx, h.slot, func(uint64) ed25519.PublicKey { return h.head.Public().(ed25519.PublicKey) })
	if err != nil {
		h.Errorf("holder %d: heads: %v", h.n, err)
		return
	}
	if reached := list.Of - len(list.Failures); list.Newest.Generation > h.generation || reached >= 2 && list.Newest.Generation != h.generation {
		h.Errorf("holder %d: head %d after %d was put: %v", h.n, list.Newest.Generation, h.generation, list.Failures)
	}
}

// settled ends what is under way, when all faults are over.
func (h *holder) settled() {
	for i := 0; h.settlement != nil || len(h.abandoned) > 0; i++ {
		if h.settle(); i > 100 {
			h.Fatalf("holder %d: nothing settles", h.n)
		}
	}
}

// counted checks every counter: each guess whose evaluation left is in it, and none that
// was never made. Until all is over a guardian may be away.
func (h *holder) counted(over bool) {
	ctx, cancel := h.ctx()
	defer cancel()
	list, err := h.client.Status(ctx, h.slot)
	if err != nil {
		h.Errorf("holder %d: %v", h.n, err)
		return
	}
	for i, st := range list {
		low, high := h.bounds(&h.slot.Guardians[i])
		if st.Err != nil && !over && h.away("counting", st.Err) {
			continue
		}
		if st.Err != nil || st.State == protocol.StatePending || int(st.Wrong) < low || int(st.Wrong) > high {
			h.Errorf("holder %d at %s: %d guesses since the last success, want %d to %d; state %d, %v", h.n, st.Server, st.Wrong, low, high, st.State, st.Err)
			continue
		}
		if st.State == protocol.StateActive && int(st.Left) != max(0, int(st.Limit)-int(st.Wrong)) {
			h.Errorf("holder %d at %s: %d guesses left of %d after %d", h.n, st.Server, st.Left, st.Limit, st.Wrong)
		}
		h.mu.Lock()
		h.did["counters compared"]++
		if high > 0 {
			h.did["of these not zero"]++
		}
		h.mu.Unlock()
	}
}

// opens checks that exactly the right PIN opens.
func (h *holder) opens() {
	explained := h.used(protocol.GuessLimit(2, 3)-1) >= 2 // The wrong one here may be the last.
	_, err := h.enter(h.slot, "wrong")
	if _, wrong := errors.AsType[*guard.WrongPINError](err); !wrong && !(explained && errors.Is(err, guard.ErrErased)) {
		h.Errorf("holder %d: in the end, with a wrong PIN: %v", h.n, err)
	}
	for _, g := range h.guardians {
		g.w.setAhead(g.w.clock(), ahead(g.w.clock())+73*time.Hour)
	}
	h.later.Add(int64(73 * time.Hour))
	o, err := h.enter(h.slot, h.pin)
	if err != nil {
		if !(explained && errors.Is(err, guard.ErrErased)) {
			h.Errorf("holder %d: in the end, with the right PIN: %v", h.n, err)
		}
		h.did["erased in the end"]++
		return
	}
	h.finish(o)
	h.did["opened in the end"]++
}
