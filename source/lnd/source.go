package lnd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/source"
)

const (
	// reexport is how often everything is asked for although nothing was heard: an event
	// can be lost, and an lnd that hangs says nothing either.
	reexport = 10 * time.Minute
	// refresh is how old the newest backup becomes: addresses in it change without an event.
	refresh = 24 * time.Hour
	// detailsEvery is how often node and peers are looked at beside each change.
	detailsEvery = time.Hour

	filePoll = time.Second // while lnd does not answer

	backoffFirst = time.Second // after a connection or a save that failed
	backoffLink  = 15 * time.Second
	backoffMost  = time.Minute

	askTime     = 10 * time.Second // for the lists that say what became of a channel
	detailsTime = 5 * time.Minute
)

// exports are when everything is asked for after lnd was asked to tell its events. It
// does not say when it begins to.
var exports = []time.Duration{0, time.Second, 10 * time.Second}

// LostError says that lnd no longer knows channels that its backup knows, though it
// never said that they were closed: it was set up anew, or its data is old. All backups
// that know them are kept.
type LostError struct {
	Channels []string // txid:index
	// Stopped says that lnd knows no channel at all: the newest backup stays as it is.
	Stopped bool
}

// Error implements error.
func (e *LostError) Error() string {
	text := fmt.Sprintf("lnd no longer knows %d channel(s) that its backup knows and that were not closed; the backup keeps them", len(e.Channels))
	if e.Stopped {
		text += " and was not overwritten"
	}
	return text
}

// Is reports whether target is ErrLost.
func (e *LostError) Is(target error) bool { return target == ErrLost }

// ErrLost is what every *LostError is.
var ErrLost = errors.New("lnd no longer knows channels that its backup knows")

// SourceConfig says which node a Source is of, and what is kept of it.
type SourceConfig struct {
	// Connect returns what a connection needs. It is called before each one, so that a
	// new certificate or macaroon counts from then on.
	Connect func(ctx context.Context) (Config, error)
	// File is the path of the file that lnd keeps its channel backup in, which is read
	// while lnd does not answer. Empty means none.
	File string
	// Kept returns the values of the items below "lightning/" that are kept already, at
	// the start of each Run. Without it, or where it has none, the source takes any node
	// for the right one, and knows no older backups: it overwrites.
	Kept func() (map[string][]byte, error)
	// Seed is the kind of the node's seed, SeedAezeed or SeedXprv, or empty if it is not
	// known.
	Seed string
	// Report, if not nil, is told what state the source is in whenever that changes, by
	// the goroutine that calls Run: nil when it listens and all was handed over, else why
	// not. A *LostError means that it listens and lnd has lost channels. What Run returns
	// is not told.
	Report func(err error)
	// Logger gets what an operator would want to know. Nil discards it.
	Logger *slog.Logger
	// Now tells the time of the wall clock. Nil means time.Now.
	Now func() time.Time
}

// Source is a source of a node's items: [ItemBackup] and those beside it. Its methods may
// be called concurrently, but Run, of which there is one at a time.
//
// It listens, and hands each backup over as it comes. When it begins to, after every
// connection that broke, and now and then, it asks for everything. While lnd does not
// answer, its file is read: an event can come before the file is written again, so the
// file counts only where it changed since lnd answered last, and the backup that lnd gave
// last is then kept beside it. As soon as lnd answers, it says which channels are in what.
//
// No backup goes while it may be needed: one that knows a channel which the newest does
// not know is kept until lnd lists that channel as closed for good. So is one that knew a
// channel before lnd was given it back from a backup: what lnd exports of it from then on
// is less. As long as it is all that lnd exports, the backup before stays the newest.
type Source struct {
	cfg SourceConfig
}

var _ source.Source = (*Source)(nil)

// NewSource returns a source. It does not connect.
func NewSource(cfg SourceConfig) (*Source, error) {
	if cfg.Connect == nil {
		return nil, errors.New("watching lnd: no way to connect")
	}
	switch cfg.Seed {
	case "", SeedAezeed, SeedXprv:
	default:
		return nil, errors.New("watching lnd: not a kind of seed that lnd has")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Source{cfg: cfg}, nil
}

// Run is as in [source.Source]. Where the macaroon or the certificate is refused it reads
// the file once more and returns why, so that a person is asked; and so where another node
// answers, or one on another network, of which it hands over nothing: ErrMacaroon,
// ErrPermission, ErrCertificate, ErrOtherNode, ErrNetwork. While lnd is away, locked or
// starting it goes on, and tells that by Report.
func (s *Source) Run(ctx context.Context, save func(ctx context.Context, changes ...source.Change) error) error {
	return s.run(ctx, save, false)
}

// Once hands over what there is now: the newest backup, what is needed beside it, the node
// and its peers. It returns when all of it is kept, or the first error: of the connection,
// of save, or a *LostError when the rest is kept. It does not read lnd's file, and tells
// nothing by Report.
func (s *Source) Once(ctx context.Context, save func(ctx context.Context, changes ...source.Change) error) error {
	return s.run(ctx, save, true)
}

func (s *Source) run(ctx context.Context, save func(ctx context.Context, changes ...source.Change) error, once bool) error {
	ctx, cancel := context.WithCancel(ctx)
	r := &run{SourceConfig: s.cfg, save: save, once: once, ctx: ctx, inbox: make(chan func()), told: errors.New("")}
	if once {
		r.File, r.Report = "", nil
	}
	r.events.wake = make(chan struct{}, 1)
	defer r.workers.Wait() // They send nothing more, since nobody reads.
	defer cancel()
	var kept map[string][]byte
	if s.cfg.Kept != nil {
		var err error
		if kept, err = s.cfg.Kept(); err != nil {
			return fmt.Errorf("reading what is kept: %w", err)
		}
	}
	r.mem = remember(kept)
	r.dueDetails = true
	r.connect()
	for {
		if r.fatal != nil && !once {
			if r.lookAtFile {
				r.readFile()
			}
			r.retryAt = time.Time{}
			r.flush()
		}
		if r.fatal != nil {
			return r.fatal
		}
		r.flush()
		if once && r.complete() {
			if r.lost != nil {
				return r.lost
			}
			return nil
		}
		r.begin()
		r.wait()
		if err := context.Cause(ctx); err != nil {
			return ctx.Err()
		}
	}
}

// run is one call of Run. One goroutine owns it, and does what others put into inbox.
type run struct {
	SourceConfig
	save    func(ctx context.Context, changes ...source.Change) error
	once    bool // for Once: every error ends it
	ctx     context.Context
	inbox   chan func()
	workers sync.WaitGroup
	events  latest

	mem   memory
	fatal error // ends Run
	told  error // by Report last

	// The connection. node is nil while there is none.
	node      *Node
	info      Info
	hangUp    context.CancelFunc
	backoff   time.Duration
	connectAt time.Time // zero while one is there or being made
	// wholes are channels that were no restored ones. They become none while lnd runs on.
	wholes map[string]bool

	exported   int       // of exports, since the connection
	exportAt   time.Time // zero while none is due or one is under way
	listens    bool      // an export came since lnd was asked to tell its events
	heard      int       // events so far: an export that crosses one is out of date
	lookAtFile bool      // before Run ends

	next       *held // what is to be handed over, nil if nothing is
	askAgain   bool  // the older backups may have become needless
	details    map[string][]byte
	dueDetails bool
	detailsAt  time.Time
	detailing  bool

	retryAt     time.Time // saves wait for it
	saveBackoff time.Duration

	lost  *LostError // nil if no channel is
	stale string     // the channels for which everything was asked for again

	gone     bool        // lnd did not answer when it was last asked
	fileSum  [32]byte    // as last read
	fileInfo fs.FileInfo // the same
}

// complete reports whether all that there is was handed over.
func (r *run) complete() bool {
	return r.listens && r.next == nil && !r.askAgain && r.details == nil && !r.dueDetails && !r.detailing && r.fatal == nil
}

// latest is the newest event that was not looked at yet.
type latest struct {
	wake chan struct{}
	mu   sync.Mutex
	b    *Backup // guarded by mu
	node *Node   // that told it; guarded by mu
}

func (l *latest) put(n *Node, b Backup) {
	l.mu.Lock()
	l.b, l.node = &b, n
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *latest) take() (*Node, *Backup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.b
	l.b = nil
	return l.node, b
}

// tell hands something to do to the owner, from another goroutine.
func (r *run) tell(do func()) {
	select {
	case r.inbox <- do:
	case <-r.ctx.Done():
	}
}

// wait does one thing that another goroutine has for the owner, or waits until something
// is due.
func (r *run) wait() {
	timer := time.NewTimer(r.until())
	defer timer.Stop()
	select {
	case <-r.events.wake:
		r.event()
	default:
		select {
		case <-r.events.wake:
			r.event()
		case do := <-r.inbox:
			do()
		case <-timer.C:
		case <-r.ctx.Done():
		}
	}
}

// until returns how long nothing is due.
func (r *run) until() time.Duration {
	next := time.Now().Add(time.Hour)
	due := []time.Time{r.connectAt, r.retryAt}
	if r.node != nil {
		due = append(due, r.exportAt)
		if !r.detailing {
			due = append(due, r.detailsAt)
		}
	}
	for _, at := range due {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	d := time.Until(next)
	if r.gone && r.File != "" {
		d = min(d, filePoll)
	}
	return max(d, 0)
}

func passed(at time.Time) bool { return !at.IsZero() && !time.Now().Before(at) }

// begin begins what is due.
func (r *run) begin() {
	if passed(r.connectAt) {
		r.connect()
	}
	if r.gone {
		r.readFile()
	}
	if r.node != nil && passed(r.exportAt) {
		r.export()
	}
	if r.node != nil && !r.detailing && (r.dueDetails && r.listens || passed(r.detailsAt)) {
		r.look()
	}
}

// say tells the state, if it is another one.
func (r *run) say(err error) {
	if err == nil && r.told == nil || err != nil && r.told != nil && err.Error() == r.told.Error() {
		return
	}
	r.told = err
	if err != nil {
		r.Logger.Warn("lnd is not watched", "err", err)
	} else {
		r.Logger.Info("lnd is watched")
	}
	if r.Report != nil {
		r.Report(err)
	}
}

// connect makes a connection, in another goroutine.
func (r *run) connect() {
	r.connectAt = time.Time{}
	backups := unknown(r.mem.others()) // lnd may know what is in them.
	mem := r.mem.node
	r.workers.Go(func() {
		node, info, found, err := r.dial(mem, backups)
		r.tell(func() {
			if err != nil {
				r.away(err)
				return
			}
			for h, channels := range found {
				h.channels, h.known = channels, true
			}
			r.node, r.info, r.wholes = node, info, map[string]bool{}
			r.listen()
		})
	})
}

// dial connects, and asks who is there and what is in backups of which that is not known.
func (r *run) dial(kept nodeItem, backups []*held) (*Node, Info, map[*held][]string, error) {
	cfg, err := r.Connect(r.ctx)
	if err != nil {
		return nil, Info{}, nil, err
	}
	node, err := New(cfg)
	if err != nil {
		return nil, Info{}, nil, err
	}
	info, err := node.Info(r.ctx)
	if err == nil {
		err = right(kept, info)
	}
	var found map[*held][]string
	if err == nil {
		found, err = verify(r.ctx, node, backups)
	}
	if err != nil {
		node.Close()
		return nil, Info{}, nil, err
	}
	return node, info, found, nil
}

// unknown returns the backups of which it is not known what is in them.
func unknown(backups []*held) []*held {
	return slices.DeleteFunc(slices.Clone(backups), func(h *held) bool { return h.known })
}

// verify asks lnd which channels are in backups.
func verify(ctx context.Context, node *Node, backups []*held) (map[*held][]string, error) {
	found := map[*held][]string{}
	for _, h := range backups {
		channels, known, err := node.Verify(ctx, h.multi)
		switch {
		case errors.Is(err, ErrBackup): // Damaged; perhaps a person can use it.
		case err != nil:
			return nil, err
		case known:
			found[h] = channels
		}
	}
	return found, nil
}

// right reports whether a node is the one that is kept.
func right(kept nodeItem, info Info) error {
	switch {
	case kept.Format == 0:
		return nil
	case kept.Network != info.Network:
		return fmt.Errorf("%w: it is on %s, the backup is of %s", ErrNetwork, safe(info.Network), safe(kept.Network))
	case kept.Node != info.PubKey:
		return ErrOtherNode
	}
	return nil
}

// safe returns a network's name, which came from outside, if it is one.
func safe(network string) string {
	for _, n := range networks {
		if n == network {
			return n
		}
	}
	return "an unknown network"
}

// away says that there is no connection, and why.
func (r *run) away(err error) {
	if r.ctx.Err() != nil {
		return
	}
	if r.node != nil {
		r.hangUp()
		r.node.Close()
		r.node = nil
	} else {
		r.gone = true // Not only the connection: whose file it is will not be known soon.
	}
	if r.exported >= len(exports) {
		r.backoff = 0 // It was a good one.
	}
	r.exportAt, r.listens, r.exported = time.Time{}, false, 0
	if r.once || dead(err) {
		r.fatal = err
		// Another node's file is no better.
		r.lookAtFile = r.File != "" && !errors.Is(err, ErrOtherNode) && !errors.Is(err, ErrNetwork)
		return
	}
	r.say(err)
	r.backoff = min(max(2*r.backoff, backoffFirst), backoffLink)
	r.connectAt = time.Now().Add(jitter(r.backoff))
}

// jitter returns a time of about d, at most d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// listen asks lnd to tell its events.
func (r *run) listen() {
	ctx, cancel := context.WithCancel(r.ctx)
	node := r.node
	r.hangUp, r.exported = cancel, 0
	r.workers.Go(func() {
		err := node.Subscribe(ctx, func() {
			r.tell(func() {
				if r.node == node {
					r.exportAt = time.Now()
				}
			})
		}, func(b Backup) error {
			r.events.put(node, b)
			return nil
		})
		r.tell(func() {
			if r.node == node {
				r.away(err)
			}
		})
	})
}

// event takes what lnd told.
func (r *run) event() {
	node, b := r.events.take()
	if b == nil || node != r.node {
		return // Everything will be asked for anew.
	}
	r.heard++
	r.offer(*b, true)
}

// export asks for everything, in another goroutine.
func (r *run) export() {
	r.exportAt = time.Time{}
	node, heard, kept := r.node, r.heard, r.mem.node
	// What lnd writes from here on may be newer than what it answers.
	file, seen := readFileOf(r.File)
	backups := unknown(r.mem.others()) // A file that was read while the connection was made is one.
	r.workers.Go(func() {
		var b Backup
		info, err := node.Info(r.ctx) // Another node can have come behind the address.
		if err == nil {
			err = right(kept, info)
		}
		var found map[*held][]string
		if err == nil {
			found, err = verify(r.ctx, node, backups)
		}
		if err == nil {
			b, err = node.Export(r.ctx)
		}
		r.tell(func() {
			switch {
			case r.node != node: // It broke meanwhile.
			case err != nil:
				r.away(err)
			case r.heard != heard:
				r.exportAt = time.Now()
			default:
				for h, channels := range found {
					h.channels, h.known = channels, true
				}
				r.exported++
				wait := jitter(reexport)
				if r.exported < len(exports) {
					wait = exports[r.exported]
				}
				r.exportAt = time.Now().Add(wait)
				r.listens, r.gone = true, false
				if file != nil {
					r.mem.file = sha256.Sum256(file)
					r.fileSum, r.fileInfo = r.mem.file, seen
				}
				r.offer(b, false)
			}
		})
	})
}

// readFileOf returns what is in lnd's file, or nil if there is none that can be read.
func readFileOf(file string) ([]byte, os.FileInfo) {
	if file == "" {
		return nil, nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, nil
	}
	data, err := durable.Disk{}.ReadFile(file, maxAnswer)
	if err != nil || len(data) < minMulti {
		return nil, nil
	}
	return data, info // lnd puts a new file in its place: what was read is this one, or a newer one.
}

// readFile takes what is in lnd's file, if it changed since lnd answered last.
func (r *run) readFile() {
	if r.fileInfo != nil {
		info, err := os.Stat(r.File)
		if err == nil && os.SameFile(info, r.fileInfo) && info.Size() == r.fileInfo.Size() && info.ModTime().Equal(r.fileInfo.ModTime()) {
			return
		}
	}
	data, info := readFileOf(r.File)
	if data == nil {
		return
	}
	r.fileInfo = info
	sum := sha256.Sum256(data)
	if sum == r.fileSum || sum == r.mem.file || r.mem.newest != nil && sum == r.mem.newest.sum {
		return
	}
	r.fileSum = sum
	h := hold(data, nil, false, r.Now())
	h.file = true
	r.next = h
	if !r.connectAt.IsZero() {
		r.connectAt, r.backoff = time.Now(), 0 // Who writes it runs, and says which channels are in it.
	}
}

// offer takes a backup that lnd gave, to be handed over. What was asked for says nothing
// new where the channels are the same; an event does, such as where a channel stands in
// the chain.
func (r *run) offer(b Backup, event bool) {
	h := hold(b.Multi, b.Channels, true, r.Now())
	h.singles, h.single = b.Singles, map[string]bool{}
	for _, s := range b.Singles {
		h.single[s.Channel] = true
	}
	newest := r.mem.newest
	if !event && len(r.mem.tried) == 0 && newest != nil && !newest.file && newest.asked && h.like(newest) && !r.Now().Before(newest.at) && r.Now().Sub(newest.at) < refresh {
		r.next = nil
		if r.askAgain = len(r.mem.older) > 0; !r.askAgain {
			r.lost = nil
		}
		return
	}
	r.next = h
}

// flush hands over what is due.
func (r *run) flush() {
	if r.ctx.Err() != nil || !r.retryAt.IsZero() && !passed(r.retryAt) {
		return
	}
	r.retryAt = time.Time{}
	var p plan
	switch {
	case r.next != nil:
		var ok bool
		if p, ok = r.choose(r.next, r.mem.others()); !ok {
			r.next = nil
			break
		}
		if len(p.changes) == 0 {
			r.mem.kept(p)
			r.next = nil
			break
		}
		if !r.hand(p) {
			return
		}
		r.next = nil
	case r.askAgain:
		r.askAgain = false
		var ok bool
		if p, ok = r.choose(r.mem.newest, r.mem.older); ok && len(p.changes) > 0 && !r.hand(p) {
			r.askAgain = true
			return
		}
	}
	r.flushDetails()
	switch {
	case r.next != nil || r.details != nil || !r.listens:
	case r.lost != nil:
		r.say(r.lost)
	default:
		r.say(nil)
	}
}

// hand calls save for a plan.
func (r *run) hand(p plan) bool {
	if r.give(p.changes) {
		if p.newest != r.mem.newest {
			r.dueDetails = true
		}
		r.mem.kept(p)
		if r.mem.node.Format == 0 && p.items[ItemNode] != nil {
			r.mem.node = r.info.item(r.Seed)
		}
		return true
	}
	r.mem.perhaps(p)
	return false
}

// give calls save.
func (r *run) give(changes []source.Change) bool {
	err := r.save(r.ctx, changes...)
	if err == nil {
		r.saveBackoff = 0
		return true
	}
	if r.once {
		r.fatal = err
	}
	if r.ctx.Err() == nil {
		r.Logger.Warn("a change of lnd is not kept yet", "err", err)
	}
	r.saveBackoff = min(max(2*r.saveBackoff, backoffFirst), backoffMost)
	r.retryAt = time.Now().Add(r.saveBackoff)
	return false
}

// choose plans to make h the newest backup. It says no where h must not be.
func (r *run) choose(h *held, others []*held) (plan, bool) {
	if !h.known {
		return r.chooseFile(h, others), true
	}
	if err := r.judge(h, h == r.next, others); err != nil {
		// Nothing goes, until it is asked again.
		r.Logger.Warn("asking lnd which channels it knows from a backup only", "err", err)
		if newest := r.mem.newest; newest != nil && newest != h && h.like(newest) && len(r.mem.tried) == 0 {
			return plan{}, false
		}
	}
	lacks := h.lacks(others)
	if len(lacks) == 0 {
		r.lost = nil
		return r.planOf(h, others, nil), true
	}
	if r.node == nil {
		return r.planOf(h, others, nil), true
	}
	ctx, cancel := context.WithTimeout(r.ctx, askTime)
	defer cancel()
	fates, err := r.node.fates(ctx)
	if err != nil {
		// Nothing is known to be closed: everything is kept, until it is asked again.
		r.Logger.Warn("asking lnd what became of channels", "err", err)
		return r.planOf(h, others, nil), true
	}
	var lost []string
	var stale []string
	closed := map[string]bool{}
	for _, c := range lacks {
		switch fates[c] {
		case unheard:
			lost = append(lost, c)
		case living:
			stale = append(stale, c)
		case closedForGood:
			closed[c] = true
		}
	}
	if key := fmt.Sprint(stale); key != r.stale {
		if r.stale = key; len(stale) > 0 && !r.exportAt.IsZero() {
			r.exportAt = time.Now() // It is older than these lists.
		}
	}
	r.lost = nil
	if len(lost) > 0 {
		r.lost = &LostError{Channels: lost, Stopped: len(h.channels) == 0}
		if r.lost.Stopped {
			return plan{}, false
		}
	}
	return r.planOf(h, others, closed), true
}

// judge asks which channels lnd knows from a backup only, of backups of which that is not
// known. fresh says that lnd gave h just now.
func (r *run) judge(h *held, fresh bool, others []*held) error {
	all := append([]*held{h}, others...)
	if !slices.ContainsFunc(all, func(o *held) bool { return o.known && !o.asked }) {
		return nil
	}
	if r.node == nil {
		return ErrUnreachable
	}
	ctx, cancel := context.WithTimeout(r.ctx, askTime)
	defer cancel()
	pending, err := r.node.Pending(ctx)
	if err != nil {
		if fresh && !h.asked {
			h.sure = maps.Clone(r.wholes)
		}
		return err
	}
	less := map[string]bool{}
	for _, c := range slices.Concat(pending.Opening, pending.Closing) {
		less[c.Point] = c.Restored
	}
	for _, c := range pending.Forced {
		less[c.Point] = true // The peer may have closed it since h, and then it does not say so any more.
	}
	for _, o := range all {
		for _, c := range o.less {
			less[c] = true
		}
	}
	for _, o := range all {
		if !o.known || o.asked {
			continue
		}
		var restored []string
		for _, c := range o.channels {
			if less[c] {
				restored = append(restored, c)
			} else if o == h && fresh {
				r.wholes[c] = true
			}
		}
		// An older one may be from before lnd was given these channels back, unless it is as
		// long as what lnd says now.
		if o == h && fresh || len(restored) == 0 || fresh && o.asLong(h) {
			o.asked, o.less = true, restored
		}
	}
	return nil
}

// planOf plans to make h the newest backup, unless it holds less than those that are kept.
func (r *run) planOf(h *held, others []*held, closed map[string]bool) plan {
	newest, older := instead(h, keep(h, others, closed), closed)
	return r.plan(newest, older)
}

// plan is the memory's, with the node where nothing is kept of it.
func (r *run) plan(newest *held, older []*held) plan {
	p := r.mem.plan(cmp.Or(r.info.PubKey, r.mem.node.Node), newest, older)
	if r.info.PubKey != "" && r.mem.items[ItemNode] == nil {
		value := encode(r.info.item(cmp.Or(r.Seed, r.mem.node.Seed)))
		p.items[ItemNode] = value
		p.changes = append(p.changes, source.Change{Name: ItemNode, Value: value})
	}
	return p
}

// chooseFile plans to make lnd's file the newest backup: what is in it will be asked
// when lnd answers. Until then those that were read before stay.
func (r *run) chooseFile(h *held, others []*held) plan {
	return r.plan(h, keep(h, others, nil))
}

// look asks who the node and its peers are, in another goroutine.
func (r *run) look() {
	r.dueDetails, r.detailing = false, true
	r.detailsAt = time.Now().Add(jitter(detailsEvery))
	node := r.node
	before := bytes.Clone(r.mem.items[ItemPeers])
	inBackups := map[string]bool{}
	for _, h := range r.mem.others() {
		for _, c := range h.channels {
			inBackups[c] = true
		}
	}
	kept := r.mem.node
	r.workers.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, detailsTime)
		defer cancel()
		info, err := node.Info(ctx)
		if err == nil {
			err = right(kept, info)
		}
		var peers []byte
		if err == nil {
			peers, err = node.peers(ctx, before, inBackups)
		}
		r.tell(func() {
			r.detailing = false
			switch {
			case r.node != node:
				r.dueDetails = true
			case err != nil && (dead(err) || errors.Is(err, ErrUnreachable)):
				r.dueDetails = true
				r.away(err)
			case err != nil && r.once:
				r.fatal = err
			case err != nil:
				r.Logger.Warn("asking lnd about itself and its peers", "err", err)
			default:
				r.info = info
				r.details = map[string][]byte{ItemNode: encode(info.item(cmp.Or(r.Seed, kept.Seed))), ItemPeers: peers}
			}
		})
	})
}

// flushDetails hands over what is new about the node and its peers.
func (r *run) flushDetails() {
	if r.details == nil {
		return
	}
	var changes []source.Change
	for _, name := range []string{ItemNode, ItemPeers} {
		if value := r.details[name]; !bytes.Equal(value, r.mem.items[name]) {
			changes = append(changes, source.Change{Name: name, Value: value})
		}
	}
	if len(changes) > 0 && !r.give(changes) {
		for _, c := range changes {
			delete(r.mem.items, c.Name)
		}
		return
	}
	for name, value := range r.details {
		r.mem.items[name] = value
	}
	r.mem.node = r.info.item(cmp.Or(r.Seed, r.mem.node.Seed))
	r.details = nil
}
