// Package agent keeps the backup of one wallet up to date by itself.
//
// It ties a backup to the sources of its items, until ctx ends or something
// happens that no retry cures:
//
//	err := agent.Run(ctx, b, agent.Config{Sources: sources, Report: print})
//
// What the sources hand over is saved at once. What could not be brought to a
// place, by this process or by another one that has the wallet open in between, is
// brought there later. The places are looked at now and then, and the whole backup
// is compared in all of them, so that a loss is noticed and healed while this
// device still has everything. What it did, and what is wrong, it tells in events.
//
// It knows no kind of source and no kind of place.
package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/source"
)

// Kind is what an event is about. It is stable: programs read it.
type Kind string

const (
	// Saved says that changes were kept, and where.
	Saved Kind = "saved"
	// NotSaved says that changes could not be kept, not even on this device. They
	// are tried again; that is told once.
	NotSaved Kind = "not saved"
	// Late says that a place does not hold the newest state, and why. It is tried
	// again. It is told when it becomes so, and once a day.
	Late Kind = "late"
	// CaughtUp says that every place holds the newest state again.
	CaughtUp Kind = "caught up"
	// Healed says that a place had lost something and has it again. It is told where no
	// other event tells it.
	Healed Kind = "healed"
	// Branch says that a place holds what another device wrote beside this backup's
	// history. It is told once for each such state.
	Branch Kind = "branch"
	// Checked says that every place was compared with what this device sealed.
	Checked Kind = "checked"
	// Pruned says that older states went, or why they could not.
	Pruned Kind = "pruned"
	// SourceFailed says that a source cannot go on. It is tried again.
	SourceFailed Kind = "source failed"
	// Alarm says that something is not protected for an hour, and for every day after
	// that. CaughtUp or Saved says that it is over.
	Alarm Kind = "alarm"
)

// Event is something that the agent did or noticed.
type Event struct {
	Kind Kind
	Time time.Time

	Items   []string // Saved, NotSaved: names of the items
	Removed []string // Saved, NotSaved: names of the items that went
	Healed  []string // Saved, Late, CaughtUp, Healed: places that had lost something and have it again

	// How the backup stood then.
	Generation uint64
	Protected  bool
	Places     []satchel.PlaceStatus

	Report satchel.Report // Checked
	Pruned satchel.Pruned // Pruned
	Since  time.Time      // Alarm: since when something is not protected
	Err    error          // why; nil where all is well
}

// Config says what an agent does.
type Config struct {
	// Sources are where items come from; there may be none.
	Sources []source.Source
	// CheckEvery is how often every object in every place is compared. Zero means
	// once a day, less than zero never. The first time is soon after the start.
	CheckEvery time.Duration
	// Keep is how many checkpoints are kept, with all that they need, when older states
	// are pruned after a check that found nothing wrong. Zero prunes nothing.
	Keep int
	// Report, if not nil, is told of each event, from one goroutine at a time. Nothing
	// is saved until it returns.
	Report func(Event)
	// Now tells the time of the wall clock, which goes on while the machine sleeps. Nil
	// means time.Now.
	Now func() time.Time
}

const (
	day = 24 * time.Hour

	// pollEvery is how often is looked, on this device only, for what another process
	// left to do. It bounds how long a sleep goes unnoticed, too.
	pollEvery = 5 * time.Second
	// busyPause is the same while another process keeps the wallet to itself.
	busyPause = time.Minute
	// lookEvery is how often the places are looked at when nothing happens.
	lookEvery = 10 * time.Minute
	// firstCheck is how long after the start the backup is compared first.
	firstCheck = 30 * time.Second

	backoffFirst = 2 * time.Second // after a place, or a source, that failed
	backoffMost  = 5 * time.Minute

	// patience is how long one operation may take. A place that hangs must not keep
	// changes from this device and from the other places for ever. What a place has
	// taken so far counts for the next try.
	patience = 10 * time.Minute
	// impatience is the same while the last operation took too long, for changes that
	// wait to be kept.
	impatience = time.Minute
	// checkPatience is the same for comparing everything.
	checkPatience = time.Hour

	// checkPause is how long after a check that could not begin the next one does.
	checkPause = time.Minute

	alarmAfter = time.Hour       // without protection
	jump       = 5 * time.Second // a larger difference between two clocks is a sleep, or a clock that was set
)

// agent is one call of Run. One goroutine owns it; those of the sources send to
// inbox.
type agent struct {
	Config
	b     *satchel.Backup
	inbox chan message

	// Times of package time, which stand still while the machine sleeps.
	pollAt  time.Time
	syncAt  time.Time
	backoff time.Duration // 0 while nothing is late
	hung    bool          // the last operation took too long

	// Times of the wall clock.
	checkAt time.Time // zero for never

	generation uint64
	trouble    string       // how the places stood last
	branches   string       // of which branches was told
	failed     satchel.Code // how the last operation ended
	toldAt     time.Time    // when that was told, zero if not
	since      time.Time    // since when something is not protected; zero if it is
	why        error
	alarmed    time.Time // when that was told last
	feeds      []feedState

	wall, mono time.Time // when the two clocks were last compared
}

// feedState is how the saving of one source's changes goes.
type feedState struct {
	since time.Time // of the wall clock, since when it fails; zero if it does not
	told  string    // what was told of it
	err   error
}

// message is what a source's goroutine has for the owner: changes, or an error of
// the source.
type message struct {
	source  int
	changes []source.Change
	reply   chan error // gets one element, for changes
	err     error
}

// Run keeps the backup up to date until ctx ends, and returns ctx.Err() then, or one
// error that no retry cures: ErrOtherDevice, ErrForked, ErrDeleted, ErrNoDevice,
// ErrReplaced, seal.ErrNewer, or that this device's own record is damaged. The
// sources have ended when it returns. It does not close the backup.
func Run(ctx context.Context, b *satchel.Backup, cfg Config) error {
	if cfg.CheckEvery == 0 {
		cfg.CheckEvery = day
	}
	if cfg.Report == nil {
		cfg.Report = func(Event) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &agent{Config: cfg, b: b, inbox: make(chan message), feeds: make([]feedState, len(cfg.Sources))}
	a.begin()

	ctx, cancel := context.WithCancel(ctx)
	var sources sync.WaitGroup
	defer sources.Wait()
	defer cancel()
	for i, src := range cfg.Sources {
		sources.Go(func() { a.feed(ctx, i, src) })
	}
	for ctx.Err() == nil {
		if err := a.turn(ctx); fatal(err) {
			return err
		}
	}
	return ctx.Err()
}

// begin sets the times of the first turns.
func (a *agent) begin() {
	a.mono, a.wall = time.Now(), a.Now().Round(0)
	a.pollAt, a.syncAt = a.mono, a.mono
	if a.CheckEvery > 0 {
		a.checkAt = a.wall.Add(min(firstCheck, a.CheckEvery))
	}
	st := a.b.Status()
	a.generation, a.trouble = st.Generation, trouble(st)
	if !st.Protected {
		// It was so before this process began, so the hour may be over.
		a.since, a.why = later(st.Saved, st.Verified), satchel.ErrNotProtected
		if a.since.After(a.wall) {
			a.since = a.wall // The clock was wrong then.
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// fatal reports whether an error stays, whatever is tried.
func fatal(err error) bool {
	for _, fact := range []error{satchel.ErrOtherDevice, satchel.ErrForked, satchel.ErrDeleted, satchel.ErrNoDevice, satchel.ErrReplaced, satchel.ErrClosed, seal.ErrNewer} {
		if errors.Is(err, fact) {
			return true
		}
	}
	// What a place holds is healed; what this device holds is not.
	return !errors.Is(err, satchel.ErrNotProtected) && (errors.Is(err, durable.ErrCorrupt) || errors.Is(err, seal.ErrDamaged))
}

// turn does one thing that is due, or waits for it or for a source.
func (a *agent) turn(ctx context.Context) error {
	a.clocks()
	now := a.mono
	switch {
	case !now.Before(a.syncAt):
		return a.sync(ctx)
	case !a.checkAt.IsZero() && !a.wall.Before(a.checkAt):
		return a.check(ctx)
	case !now.Before(a.pollAt):
		return a.poll()
	}
	a.alarm()
	d := min(a.pollAt.Sub(now), a.syncAt.Sub(now))
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case m := <-a.inbox:
		a.clocks()
		return a.handle(ctx, m)
	case <-timer.C:
	}
	return nil
}

// clocks compares the clocks. If the machine slept, what failed before may succeed
// now.
func (a *agent) clocks() {
	wall, mono := a.Now().Round(0), time.Now()
	gap := wall.Sub(a.wall) - mono.Sub(a.mono)
	a.wall, a.mono = wall, mono
	if gap.Abs() <= jump {
		return
	}
	a.syncAt, a.pollAt, a.backoff, a.hung = mono, mono, 0, false
	if next := wall.Add(a.CheckEvery); a.checkAt.After(next) {
		a.checkAt = next // The clock was put back.
	}
	if a.since.After(wall) {
		a.since = wall
	}
}

// feed runs a source until ctx ends, again and again if it fails.
func (a *agent) feed(ctx context.Context, i int, src source.Source) {
	save := func(ctx context.Context, changes ...source.Change) error {
		m := message{source: i, changes: changes, reply: make(chan error, 1)}
		select {
		case a.inbox <- m:
			return <-m.reply // The values are the owner's until then.
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var backoff time.Duration
	for {
		began := time.Now()
		err := src.Run(ctx, save)
		if time.Since(began) > backoffMost {
			backoff = 0
		}
		backoff = min(max(2*backoff, backoffFirst), backoffMost)
		select {
		case a.inbox <- message{source: i, err: fmt.Errorf("watching: %w", err)}:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(jitter(backoff)):
		case <-ctx.Done():
			return
		}
	}
}

// jitter returns a time of about d, at most d, so that many agents that failed
// together do not come again together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// handle does what a source asks for.
func (a *agent) handle(ctx context.Context, m message) error {
	f := &a.feeds[m.source]
	if m.reply == nil {
		a.fails(f, Event{Kind: SourceFailed, Err: m.err})
		return nil
	}
	limit := patience
	if a.hung {
		limit = impatience
	}
	opCtx, cancel := context.WithTimeout(ctx, limit)
	res, err := Save(opCtx, a.b, m.changes...)
	a.hung = opCtx.Err() != nil
	cancel()
	if err != nil && !errors.Is(err, satchel.ErrNotProtected) {
		m.reply <- err
		if !fatal(err) && ctx.Err() == nil {
			e := Event{Kind: NotSaved, Err: err}
			for _, c := range m.changes {
				if c.Remove {
					e.Removed = append(e.Removed, c.Name)
				} else {
					e.Items = append(e.Items, c.Name)
				}
			}
			a.fails(f, e)
		}
		return err
	}
	m.reply <- nil
	*f = feedState{}
	saved, removed := changed(a.b, res, m.changes)
	a.settle(ctx, err, len(saved)+len(removed) > 0, Event{Kind: Saved, Items: saved, Removed: removed, Healed: res.Healed})
	return nil
}

// fails takes note that the changes of a source are not kept, and tells it if that
// is new.
func (a *agent) fails(f *feedState, e Event) {
	if f.since.IsZero() {
		f.since = a.wall
	}
	f.err = e.Err
	if told := fmt.Sprint(e.Kind, satchel.CodeOf(e.Err)); f.told != told {
		f.told = told
		a.tell(e)
	}
}

// sync brings to the places what they lack.
func (a *agent) sync(ctx context.Context) error {
	opCtx, cancel := context.WithTimeout(ctx, patience)
	res, err := a.b.Sync(opCtx)
	a.hung = opCtx.Err() != nil
	cancel()
	switch {
	case errors.Is(err, satchel.ErrBusy):
		a.syncAt = time.Now().Add(jitter(busyPause)) // It says nothing about the places.
	case !fatal(err):
		a.settle(ctx, err, false, Event{Kind: Healed, Healed: res.Healed})
	}
	return err
}

// poll looks for what another process changed.
func (a *agent) poll() error {
	a.pollAt = time.Now().Add(pollEvery)
	if err := a.b.Refresh(); err != nil {
		if errors.Is(err, satchel.ErrBusy) {
			a.pollAt = time.Now().Add(busyPause) // It waited long enough to be a person at a question.
		}
		return err
	}
	st := a.b.Status()
	if now := trouble(st); now != "" && (now != a.trouble || st.Generation != a.generation) {
		a.syncAt, a.backoff, a.trouble = time.Now(), 0, now
	}
	a.generation = st.Generation
	return nil
}

// settle looks how the backup stands after an operation, tells it, and says when
// the next try is. The event, if told, tells how the backup stands.
func (a *agent) settle(ctx context.Context, err error, tell bool, e Event) {
	st := a.b.Status()
	wasWell := a.trouble == "" && a.failed == satchel.CodeDone
	now, failed := trouble(st), satchel.CodeOf(err)
	well, same := now == "" && err == nil, now == a.trouble && failed == a.failed
	a.generation, a.trouble, a.failed = st.Generation, now, failed
	if ctx.Err() != nil {
		if tell {
			e.Err = err
			a.tell(e)
		}
		return // Whatever failed now, failed because of the end.
	}
	a.pollAt = time.Now().Add(pollEvery)
	switch {
	case st.Protected && err == nil:
		a.since, a.why = time.Time{}, nil
	default:
		if a.since.IsZero() {
			a.since = a.wall
		}
		a.why = err
	}
	if well {
		a.backoff, a.syncAt = 0, time.Now().Add(jitter(lookEvery))
	} else {
		a.backoff = min(max(2*a.backoff, backoffFirst), backoffMost)
		if !worthRetry(st) {
			a.backoff = backoffMost
		}
		a.syncAt = time.Now().Add(jitter(a.backoff))
	}
	switch {
	case tell:
	case well && !wasWell:
		e, tell = Event{Kind: CaughtUp, Healed: e.Healed}, true
	case !well && (!same || a.toldAt.IsZero() || a.wall.Sub(a.toldAt) >= day):
		e, tell = Event{Kind: Late, Healed: e.Healed}, true
	case len(e.Healed) > 0:
		e, tell = Event{Kind: Healed, Healed: e.Healed}, true
	}
	if tell {
		e.Err = err
		a.toldAt = a.wall
		a.tell(e)
	}
	a.tellBranches(st)
}

// tellBranches tells of a branch that was not there before.
func (a *agent) tellBranches(st satchel.Status) {
	var now []string
	for _, p := range st.Places {
		if p.Branch != "" {
			now = append(now, p.Branch)
		}
	}
	slices.Sort(now)
	all := strings.Join(slices.Compact(now), " ")
	if all != "" && all != a.branches {
		a.tell(Event{Kind: Branch, Err: fmt.Errorf("%w: %s", satchel.ErrBranch, all)})
	}
	a.branches = all
}

// trouble says in a few words how the places stand that do not hold all; it is empty
// if each does, and the same for the same trouble.
func trouble(st satchel.Status) string {
	var b strings.Builder
	for _, p := range st.Places {
		if p.Health != satchel.HealthProtected {
			fmt.Fprintf(&b, "%s %s\n", p.Address, p.Health)
		}
	}
	if !st.Protected {
		b.WriteString("not protected\n")
	}
	return b.String()
}

// worthRetry reports whether trying again soon may help. Who has to sign in is not
// back in a second, and a provider that is asked anyway may lock them out (R9).
func worthRetry(st satchel.Status) bool {
	for _, p := range st.Places {
		switch p.Health {
		case satchel.HealthProtected, satchel.HealthSignIn, satchel.HealthWrongAccount:
		default:
			return true
		}
	}
	return false
}

// check compares everything in every place, and heals what it finds. A change that
// comes meanwhile goes first.
func (a *agent) check(ctx context.Context) error {
	opCtx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	var r satchel.Report
	err := a.meanwhile(ctx, cancel, func() (err error) {
		r, err = a.b.Check(opCtx)
		return err
	})
	if fatal(err) && len(r.Places) == 0 {
		return err
	}
	a.clocks()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && len(r.Places) == 0 || errors.Is(err, satchel.ErrBusy) {
		// It did not begin, or another process had the wallet for long.
		a.checkAt = a.wall.Add(checkPause)
		return err
	}
	a.checkAt = a.wall.Add(a.CheckEvery)
	st := a.b.Status()
	before := a.trouble
	a.trouble = trouble(st)
	a.toldAt = a.wall
	a.tell(Event{Kind: Checked, Report: r, Err: err})
	a.tellBranches(st)
	if err != nil || before != "" || a.trouble != "" {
		return a.sync(ctx)
	}
	a.prune(ctx)
	return ctx.Err()
}

// prune lets older states go. Why it could not is no reason to end: what is wrong with
// a place, such as damage or a branch of the past, stops no saving; what does stop it, the
// sync that follows finds.
func (a *agent) prune(ctx context.Context) {
	if a.Keep == 0 {
		return
	}
	opCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var p satchel.Pruned
	err := a.meanwhile(ctx, cancel, func() (err error) {
		p, err = a.b.Prune(opCtx, a.Keep)
		return err
	})
	if ctx.Err() == nil && (err != nil || p.Objects > 0) {
		a.tell(Event{Kind: Pruned, Pruned: p, Err: err})
	}
	if err != nil {
		a.syncAt = time.Now()
	}
}

// meanwhile saves what the sources hand over while do, an operation that lets others
// in, goes on. If the agent must end, it cancels do.
func (a *agent) meanwhile(ctx context.Context, cancel func(), do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	for {
		select {
		case err := <-done:
			return err
		case m := <-a.inbox:
			a.clocks()
			if err := a.handle(ctx, m); fatal(err) {
				cancel()
				<-done
				return err
			}
		}
	}
}

// alarm tells if something is not protected for too long.
func (a *agent) alarm() {
	since, why := a.since, a.why
	for _, f := range a.feeds {
		if !f.since.IsZero() && (since.IsZero() || f.since.Before(since)) {
			since, why = f.since, f.err
		}
	}
	switch {
	case since.IsZero():
		a.alarmed = time.Time{}
		return
	case a.wall.Sub(since) < alarmAfter, !a.alarmed.IsZero() && a.wall.Sub(a.alarmed) < day:
		return
	}
	a.alarmed = a.wall
	a.tell(Event{Kind: Alarm, Since: since, Err: why})
}

// tell reports an event, with how the backup stands.
func (a *agent) tell(e Event) {
	st := a.b.Status()
	e.Time, e.Generation, e.Protected, e.Places = a.Now(), st.Generation, st.Protected, st.Places
	a.Report(e)
}
