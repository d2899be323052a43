package alarm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/satchel-backup/satchel/internal/durable"
)

// trouble is one thing that is wrong, or was.
type trouble struct {
	Wallet    string    `json:"wallet"`
	Label     string    `json:"label"`
	Kind      Kind      `json:"kind"`
	Place     string    `json:"place,omitempty"` // address
	Part      string    `json:"part,omitempty"`  // of the sources, "" for all that have no name
	Called    string    `json:"called,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	Error     string    `json:"error,omitempty"`
	Hint      string    `json:"hint,omitempty"`
	Code      int       `json:"code,omitempty"`
	Protected bool      `json:"protected,omitempty"` // the newest state is, elsewhere

	Raised time.Time `json:"raised"`          // when it was noticed
	Doubt  time.Time `json:"doubt,omitzero"`  // since when it may be over without a word; see list.doubt
	Over   time.Time `json:"over,omitzero"`   // zero while it lasts
	Flaps  int       `json:"flaps,omitempty"` // how often it came back within a day
}

func key(wallet string, k Kind, place, part string) string {
	id := wallet + "\n" + string(k) + "\n" + place
	if part != "" {
		id += "\n" + part
	}
	return id
}

func (t *trouble) end(now time.Time) {
	if t.Over.IsZero() {
		t.Over = now
	}
}

// calm is how long trouble must be over until that is told: what comes and goes is told
// ever more rarely.
func (t *trouble) calm() time.Duration {
	return min(calmFirst<<(2*min(t.Flaps, 10)), day)
}

// list is what is wrong, by key.
type list map[string]*trouble

// raise notes that something is wrong, and returns its key.
func (l list) raise(k Kind, t trouble, now time.Time) string {
	t.Kind = k
	t.Label, t.Error, t.Hint = cut(t.Label), cut(t.Error), cut(t.Hint)
	id := key(t.Wallet, k, t.Place, t.Part)
	was := l[id]
	switch {
	case was == nil && len(l) >= maxTroubles:
		return id
	case was == nil:
		t.Raised = now
		l[id] = &t
		return id
	case !was.Over.IsZero() && now.Sub(was.Over) >= was.calm():
		t.Raised, t.Flaps = now, was.Flaps+1
	default:
		t.Raised, t.Flaps = was.Raised, was.Flaps
		if k != Unprotected && k != DrillDue { // Those say themselves since when.
			t.Since = was.Since
		}
	}
	*was = t
	return id
}

// cut bounds a text that comes from outside, and takes out what could move a cursor or end
// a header.
func cut(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	if len(s) > maxText {
		return strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

// clear notes that trouble of a kind is over.
func (l list) clear(wallet string, k Kind, part string, now time.Time) {
	if t := l[key(wallet, k, "", part)]; t != nil {
		t.end(now)
	}
}

// doubt notes that all sources of a wallet begin anew. What fails of them, or was cut short, is told again
// soon; what is not, was of a source that is not there any more, and nobody else would
// ever say that it is over.
func (l list) doubt(wallet string, now time.Time) {
	for _, t := range l {
		if t.Wallet == wallet && (t.Kind == Source || t.Kind == Opening) && t.Over.IsZero() {
			t.Doubt = now
		}
	}
}

func (l list) clearWallet(wallet string, now time.Time) {
	for _, t := range l {
		if t.Wallet == wallet {
			t.end(now)
		}
	}
}

const (
	gather    = 30 * time.Second // what happens within it is told together
	apart     = 10 * time.Minute // between two messages to one receiver
	doubtful  = 10 * time.Minute // that a source which began anew and still fails may take to say so
	calmFirst = time.Minute

	backoffFirst = 30 * time.Second // after a receiver that failed
	backoffMost  = time.Hour
	sendTime     = time.Minute // that a receiver may take
	tick         = time.Minute // how long a sleep of the machine goes unnoticed

	goneFor  = 7 * day // that a wallet whose folder is gone is told of
	keepOver = 7 * day // that trouble which is over is kept for receivers that fail

	maxTroubles = 1000
	maxText     = 1000    // bytes of a text from outside
	maxState    = 8 << 20 // bytes of the file
)

// stateJSON is the file of a board. It may be lost: then what is wrong is told once more.
type stateJSON struct {
	Version   int                       `json:"satchel-alarms"`
	Troubles  list                      `json:"troubles"`
	Receivers map[string]*receiverState `json:"receivers"`
}

// receiverState is what is known of one receiver.
type receiverState struct {
	Told map[string]told `json:"told"` // by the key of the trouble
	Sent time.Time       `json:"sent,omitzero"`

	// Of one that fails.
	Tries   int       `json:"tries,omitempty"`
	Failing time.Time `json:"failing,omitzero"` // since when
	Next    time.Time `json:"next,omitzero"`    // when the next try is
	Error   string    `json:"error,omitempty"`
}

type told struct {
	At     time.Time `json:"at"`
	Over   bool      `json:"over,omitempty"` // also that it is over
	Raised time.Time `json:"raised"`         // of the trouble
}

// knows returns what a receiver was told of a trouble as it is now, if it was: of one that
// came back after it was told to be over, nothing.
func (r *receiverState) knows(k string, t *trouble) (told, bool) {
	was, ok := r.Told[k]
	if ok && was.Over && (t.Over.IsZero() || !was.Raised.Equal(t.Raised)) {
		return told{}, false
	}
	return was, ok
}

// Receiver hands messages to people.
type Receiver interface {
	// Send hands over one message. After an error the message may have arrived or not: it,
	// or one that says more, is sent again.
	Send(ctx context.Context, m Message) error
}

// To is a receiver of a board.
type To struct {
	ID       string // does not change
	Receiver Receiver
	Detail   Detail
}

// Config says how a board works.
type Config struct {
	Path string // of its file, whose directory exists
	// Has reports whether a wallet is on this device. Nil means that all are.
	Has func(wallet string) bool
	// Report, if not nil, is told when a receiver begins to fail, and with a nil error
	// when it works again; and, with "" for a receiver, when the file cannot be written. It
	// must not use the board.
	Report func(id string, err error)
	// Now tells the time of the wall clock. Nil means time.Now.
	Now func() time.Time
}

// Board keeps what is wrong, and tells it. Methods may be called concurrently.
type Board struct {
	cfg  Config
	wake chan struct{} // has room for one

	mu      sync.Mutex
	state   stateJSON       // guarded by mu
	to      []To            // guarded by mu
	sending map[string]bool // by id; guarded by mu
	dirty   bool            // the file is not as state; guarded by mu
	unsaved bool            // it could not be written; guarded by mu
}

// Open reads the file of a board; there need not be one. One that cannot be read is
// reported, and counts as none.
func Open(cfg Config) *Board {
	now := cfg.Now
	if now == nil {
		now = time.Now
	}
	// The wall clock alone: the other one stands still while the machine sleeps, and means
	// nothing after a restart.
	cfg.Now = func() time.Time { return now().Round(0) }
	if cfg.Report == nil {
		cfg.Report = func(string, error) {}
	}
	b := &Board{cfg: cfg, wake: make(chan struct{}, 1), sending: map[string]bool{}}
	state, err := read(cfg.Path)
	if err != nil {
		cfg.Report("", err)
	}
	b.state = state
	return b
}

// errState says that a board's file is not what it wrote.
var errState = errors.New("the record of alarms cannot be read: what is wrong is told once more")

func read(path string) (stateJSON, error) {
	empty := stateJSON{Version: 1, Troubles: list{}, Receivers: map[string]*receiverState{}}
	data, err := durable.Disk{}.ReadFile(path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, fmt.Errorf("%w: %w", errState, err)
	}
	var s stateJSON
	if err := json.Unmarshal(data, &s); err != nil || s.Version != 1 || s.Troubles == nil || s.Receivers == nil || len(s.Troubles) > maxTroubles {
		return empty, errState
	}
	for k, t := range s.Troubles {
		if t == nil || k != key(t.Wallet, t.Kind, t.Place, t.Part) {
			return empty, errState
		}
	}
	for _, r := range s.Receivers {
		if r == nil {
			return empty, errState
		}
	}
	return s, nil
}

// flush writes the file, if anything changed. That it cannot be written stops no alarm: a
// full disk is one. Only Run calls it, and it holds no lock while it waits for the disk.
func (b *Board) flush() {
	b.mu.Lock()
	dirty := b.dirty
	b.dirty = false
	data, err := json.Marshal(b.state)
	b.mu.Unlock()
	if !dirty {
		return
	}
	if err == nil {
		err = durable.Disk{}.WriteFile(b.cfg.Path, data, 0o600)
	}
	b.mu.Lock()
	first := err != nil && !b.unsaved
	b.unsaved, b.dirty = err != nil, b.dirty || err != nil
	b.mu.Unlock()
	if first {
		b.cfg.Report("", fmt.Errorf("keeping the record of alarms: %w", err))
	}
}

// Event takes in an event. It waits for nothing.
func (b *Board) Event(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.digest()
	b.state.Troubles.decide(e)
	if b.digest() == before {
		return
	}
	b.dirty = true
	b.stir()
}

// digest tells whether anything became wrong, or well.
func (b *Board) digest() string {
	var s strings.Builder
	for _, k := range slices.Sorted(maps.Keys(b.state.Troubles)) {
		t := b.state.Troubles[k]
		fmt.Fprintln(&s, k, t.Raised, t.Over, t.Error)
	}
	return s.String()
}

func (b *Board) stir() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// To says who is told from now on. A receiver that is new is told all that is wrong.
func (b *Board) To(to []To) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to = slices.Clone(to)
	changed := false
	for id := range b.state.Receivers {
		if !slices.ContainsFunc(to, func(t To) bool { return t.ID == id }) {
			delete(b.state.Receivers, id)
			changed = true
		}
	}
	for _, t := range to {
		if b.state.Receivers[t.ID] == nil {
			b.state.Receivers[t.ID] = &receiverState{}
			changed = true
		}
		if r := b.state.Receivers[t.ID]; r.Told == nil {
			r.Told = map[string]told{}
		}
	}
	b.dirty = b.dirty || changed
	b.stir()
}

// Run tells receivers what they have to be told, until ctx ends.
func (b *Board) Run(ctx context.Context) {
	var sends sync.WaitGroup
	defer b.flush()
	defer sends.Wait()
	for {
		next := b.round(ctx, &sends)
		b.flush()
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-b.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// round sends what is due, and returns how long nothing is.
func (b *Board) round(ctx context.Context, sends *sync.WaitGroup) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.cfg.Now()
	b.tidy(now)
	wait := tick
	for _, to := range b.to {
		r := b.state.Receivers[to.ID]
		if b.sending[to.ID] {
			continue // Its end stirs.
		}
		if early := later(r.Next, r.Sent.Add(apart)); now.Before(early) && (early.Sub(now) <= backoffMost) {
			wait = min(wait, early.Sub(now))
			continue
		}
		notes, next := b.due(r, now)
		wait = min(wait, next)
		if len(notes) == 0 {
			continue
		}
		b.sending[to.ID] = true
		m := compose(to, notes, now)
		sends.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, sendTime)
			defer cancel()
			b.sent(ctx, to.ID, notes, to.Receiver.Send(ctx, m))
		})
	}
	return max(wait, time.Second)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// rewind brings times that are to come, because the clock was put back, down to now: what
// is counted from them would be told when the clock has come so far again, in years perhaps.
func (b *Board) rewind(now time.Time) (changed bool) {
	back := func(times ...*time.Time) {
		for _, t := range times {
			if t.Sub(now) > tick { // Less is a clock that is kept right all the time.
				*t, changed = now, true
			}
		}
	}
	for _, t := range b.state.Troubles {
		back(&t.Since, &t.Raised, &t.Doubt, &t.Over)
	}
	for _, r := range b.state.Receivers {
		back(&r.Sent, &r.Failing)
		for k, was := range r.Told {
			back(&was.At, &was.Raised)
			r.Told[k] = was
		}
	}
	return changed
}

// tidy forgets what is over and needed no more, and ends the troubles of wallets that
// are not here any more.
func (b *Board) tidy(now time.Time) {
	changed := b.rewind(now)
	for k, t := range b.state.Troubles {
		if t.Kind == Gone && t.Over.IsZero() && now.Sub(t.Raised) >= goneFor {
			delete(b.state.Troubles, k) // It was told every day: whoever deleted it knows.
			changed = true
			continue
		}
		if b.cfg.Has != nil && t.Over.IsZero() && t.Kind != Gone && !b.cfg.Has(t.Wallet) {
			t.end(now)
			changed = true
		}
		if !t.Doubt.IsZero() && t.Over.IsZero() && now.Sub(t.Doubt) >= doubtful {
			t.end(now)
			changed = true
		}
		if t.Over.IsZero() {
			continue
		}
		open := false // someone was told and does not know that it is over, or is still to be told
		for _, r := range b.state.Receivers {
			was, ok := r.knows(k, t)
			open = open || ok && !was.Over || !ok && t.Kind == Damaged
		}
		if age := now.Sub(t.Over); age >= keepOver || age >= day && !open {
			delete(b.state.Troubles, k)
			changed = true
		}
	}
	for _, r := range b.state.Receivers {
		for k := range r.Told {
			if b.state.Troubles[k] == nil {
				delete(r.Told, k)
				changed = true
			}
		}
	}
	b.dirty = b.dirty || changed
}

// note is one thing to tell.
type note struct {
	key   string
	state State
	trouble
	last time.Time // when it was told before
}

// due returns what a receiver has to be told now, and how long there is nothing more.
func (b *Board) due(r *receiverState, now time.Time) (notes []note, wait time.Duration) {
	wait = tick
	ready := false
	for k, t := range b.state.Troubles {
		_, rule := of(t.Kind)
		was, knows := r.knows(k, t)
		n := note{key: k, trouble: *t, last: was.At}
		var at time.Time
		var pause, early time.Duration // it is not told before, alone; it may be told so early, with others
		switch over := !t.Over.IsZero(); {
		case !over && !knows:
			n.state, at, pause = Raised, t.Raised.Add(rule.hold), gather
		case !over:
			n.state, at, early = Lasts, was.At.Add(rule.again), rule.again/8
		case knows && !was.Over:
			n.state, at = Over, t.Over.Add(t.calm())
		case !knows && t.Kind == Damaged:
			n.state, at, pause = Passed, t.Raised.Add(rule.hold), gather
		default:
			continue
		}
		if t.Kind == Away && !knows && b.unprotected(t.Wallet) {
			continue // That says it.
		}
		if left := at.Add(pause).Sub(now); left > 0 {
			wait = min(wait, left)
		} else {
			ready = true
		}
		if !now.Add(early).Before(at) {
			notes = append(notes, n)
		}
	}
	if !ready {
		return nil, wait
	}
	slices.SortFunc(notes, func(a, b note) int {
		ra, _ := of(a.Kind)
		rb, _ := of(b.Kind)
		if c := a.state.order() - b.state.order(); c != 0 {
			return c
		}
		if ra != rb {
			return ra - rb
		}
		return strings.Compare(a.key, b.key)
	})
	return notes, wait
}

func (b *Board) unprotected(wallet string) bool {
	t := b.state.Troubles[key(wallet, Unprotected, "", "")]
	return t != nil && t.Over.IsZero()
}

// sent takes note of the end of a try.
func (b *Board) sent(ctx context.Context, id string, notes []note, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sending, id)
	defer b.stir()
	r := b.state.Receivers[id]
	if r == nil || err != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return // It was removed, or the process ends.
	}
	now := b.cfg.Now()
	if err != nil {
		if r.Failing.IsZero() {
			r.Failing = now
			b.cfg.Report(id, err)
		}
		d := min(backoffFirst<<min(r.Tries, 20), backoffMost)
		r.Tries++
		r.Next, r.Error = now.Add(d/2+rand.N(d/2+1)), cut(err.Error())
		b.dirty = true
		return
	}
	if !r.Failing.IsZero() {
		b.cfg.Report(id, nil)
	}
	r.Sent, r.Failing, r.Tries, r.Next, r.Error = now, time.Time{}, 0, time.Time{}, ""
	for _, n := range notes {
		r.Told[n.key] = told{At: now, Over: n.state == Over || n.state == Passed, Raised: n.Raised}
	}
	// A crash before this is written tells it once more, under the same id.
	b.dirty = true
}

// Active counts what is wrong now, and lasted long enough to be told, by wallet and kind.
func (b *Board) Active() map[string]map[Kind]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.cfg.Now()
	all := map[string]map[Kind]int{}
	for _, t := range b.state.Troubles {
		if _, rule := of(t.Kind); !t.Over.IsZero() || now.Sub(t.Raised) < rule.hold {
			continue
		}
		if all[t.Wallet] == nil {
			all[t.Wallet] = map[Kind]int{}
		}
		all[t.Wallet][t.Kind]++
	}
	return all
}

// Failing counts the receivers that could not be reached when last tried.
func (b *Board) Failing() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, r := range b.state.Receivers {
		if !r.Failing.IsZero() {
			n++
		}
	}
	return n
}

// Standing is how it goes with a receiver.
type Standing struct {
	Sent    time.Time // when a message was last delivered; zero if never
	Failing time.Time // since when it fails; zero if it does not
	Error   string    // why
	Waiting int       // what it has to be told and was not
}

// Standings reads how it goes with each receiver, by id, from the file of a board that
// another process may be using.
func Standings(path string) (map[string]Standing, error) {
	s, err := read(path)
	all := map[string]Standing{}
	for id, r := range s.Receivers {
		st := Standing{Sent: r.Sent, Failing: r.Failing, Error: r.Error}
		for k, t := range s.Troubles {
			if _, knows := r.knows(k, t); !knows && t.Over.IsZero() {
				st.Waiting++
			}
		}
		all[id] = st
	}
	return all, err
}

// idOf names a message by what it says, so that one that is sent twice is known by it.
func idOf(to string, notes []note) string {
	h := sha256.New()
	fmt.Fprintln(h, to)
	for _, n := range notes {
		fmt.Fprintln(h, n.key, n.state, n.Raised.UnixNano(), n.last.UnixNano(), n.Over.UnixNano())
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
