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
	// SourceWorks says that a source which failed goes on.
	SourceWorks Kind = "source works"
	// DrillDue says that nobody tried for long whether a restore works. An agent has no
	// secret, and cannot. It is told when it becomes so, and once a month.
	DrillDue Kind = "drill due"
	// Drilled says that a drill passed.
	Drilled Kind = "drilled"
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
	Since  time.Time      // Alarm: since when something is not protected; DrillDue: when a drill last passed, zero if never
	Err    error          // why; nil where all is well
}

// Ask asks an agent to do something at once, instead of when it is due. What it does is
// told in events, as ever.
type Ask struct {
	// Check is to compare everything in every place, and to heal; else what is late is
	// brought to the places.
	Check bool
	// Answer gets one element, for which it must have room. An ask that was taken is
	// answered.
	Answer chan<- Answer
}

// Answer is what became of an Ask.
type Answer struct {
	Report satchel.Report // of a check that was made
	Err    error          // as of Check or Sync
}

// Config says what an agent does.
type Config struct {
	// Sources are where items come from; there may be none.
	Sources []source.Source
	// CheckEvery is how often every object in every place is compared. Zero means
	// once a day, less than zero never. The first time is soon after the start.
	CheckEvery time.Duration
	// FirstCheck is how long after the start the first time is. Zero means 30 seconds. Who
	// keeps many backups, or starts again and again, spreads the work with it.
	FirstCheck time.Duration
	// Keep is how many checkpoints are kept, with all that they need, when older states
	// are pruned after a check that found nothing wrong. Zero prunes nothing.
	Keep int
	// DrillEvery is how long after a drill the next one is due. Zero means 90 days, less
	// than zero never. The first is due a week after the backup was made.
	DrillEvery time.Duration
	// Report, if not nil, is told of each event, from one goroutine at a time. Nothing
	// is saved until it returns.
	Report func(Event)
	// Asks, if not nil, is where others ask for something to be done at once.
	Asks <-chan Ask
	// Due, if not nil, is told again and again by when it will be told the next time, a
	// generous time of package time: an agent that misses it hangs. That is how a
	// watchdog tells one that waits for a slow place from one that will never go on.
	Due func(time.Time)
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

	// grace is what is added to the time that something may take, before it hangs.
	grace = 5 * time.Minute

	alarmAfter = time.Hour // without protection

	drillEvery = 90 * day
	drillFirst = 7 * day  // after the backup was made
	drillAgain = 30 * day // until it is told again

	// steadyAfter is how long a source that failed must go on to be well again.
	steadyAfter = 10 * time.Minute

	jump = 5 * time.Second // a larger difference between two clocks is a sleep, or a clock that was set
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
	drillAt time.Time     // when is looked whether a drill is due
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
	drilled    time.Time // when a drill last passed, as far as is known here
	drillTold  time.Time // when it was told that one is due; zero if not
	feeds      []feedState

	wall, mono time.Time // when the two clocks were last compared
}

// feedState is how the saving of one source's changes goes.
type feedState struct {
	since time.Time // of the wall clock, since when it fails; zero if it does not
	kind  Kind      // how: SourceFailed or NotSaved
	told  string    // what was told of it
	err   error
}

// message is what a source's goroutine has for the owner: changes, an error of the
// source, or that it works again.
type message struct {
	source  int
	changes []source.Change
	reply   chan error // gets one element, for changes
	err     error
	works   bool // the source, which failed, goes on
}

// Run keeps the backup up to date until ctx ends, and returns ctx.Err() then, or one
// error that no retry cures: ErrOtherDevice, ErrForked, ErrDeleted, ErrNoDevice,
// ErrReplaced, seal.ErrNewer, or that this device's own record is damaged. The
// sources have ended when it returns. It does not close the backup.
func Run(ctx context.Context, b *satchel.Backup, cfg Config) error {
	if cfg.CheckEvery == 0 {
		cfg.CheckEvery = day
	}
	if cfg.DrillEvery == 0 {
		cfg.DrillEvery = drillEvery
	}
	if cfg.Report == nil {
		cfg.Report = func(Event) {}
	}
	if cfg.Due == nil {
		cfg.Due = func(time.Time) {}
	}
	if cfg.FirstCheck == 0 {
		cfg.FirstCheck = firstCheck
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
		a.checkAt = a.wall.Add(min(a.FirstCheck, a.CheckEvery))
	}
	st := a.b.Status()
	a.generation, a.trouble, a.drilled = st.Generation, trouble(st), a.lastDrill(st)
	if !st.Protected {
		// It was so before this process began, so the hour may be over.
		a.since, a.why = st.Unprotected, satchel.ErrNotProtected
		if a.since.After(a.wall) {
			a.since = a.wall // The clock was wrong then.
		}
	}
}

// Lasts reports whether an error is one that Run ends with: trying again at once is of no
// use.
func Lasts(err error) bool { return fatal(err) }

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

// back says that the agent goes on within d.
func (a *agent) back(d time.Duration) { a.Due(time.Now().Add(d + grace)) }

// turn does one thing that is due, or waits for it or for a source.
func (a *agent) turn(ctx context.Context) error {
	a.clocks()
	a.back(pollEvery)
	a.drills()
	now := a.mono
	switch {
	case !now.Before(a.syncAt):
		return a.sync(ctx, false)
	case !a.checkAt.IsZero() && !a.wall.Before(a.checkAt):
		_, err := a.check(ctx)
		return err
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
	case ask := <-a.Asks:
		a.clocks()
		a.backoff, a.hung = 0, false // Who asks thinks that it may succeed now.
		var answer Answer
		if ask.Check {
			answer.Report, answer.Err = a.check(ctx)
		} else {
			answer.Err = a.sync(ctx, true)
		}
		ask.Answer <- answer
		return answer.Err
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
	// What lies in the future was noted before the clock was put back. Nobody would be told
	// again until it has come so far.
	back := func(times ...*time.Time) {
		for _, t := range times {
			if t.After(wall) {
				*t = wall
			}
		}
	}
	back(&a.since, &a.toldAt, &a.alarmed, &a.drillTold)
	for i := range a.feeds {
		back(&a.feeds[i].since)
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
		ended := make(chan struct{})
		var steady sync.WaitGroup
		if backoff > 0 {
			steady.Go(func() { a.steady(ctx, i, ended) })
		}
		err := src.Run(ctx, save)
		close(ended)
		steady.Wait()
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

// steady tells the owner that a source which failed goes on, unless it ends soon.
func (a *agent) steady(ctx context.Context, i int, ended <-chan struct{}) {
	select {
	case <-time.After(steadyAfter):
	case <-ended:
		return
	case <-ctx.Done():
		return
	}
	select {
	case a.inbox <- message{source: i, works: true}:
	case <-ended:
	case <-ctx.Done():
	}
}

// jitter returns a time of about d, at most d, so that many agents that failed
// together do not come again together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// handle does what a source asks for.
func (a *agent) handle(ctx context.Context, m message) error {
	f := &a.feeds[m.source]
	if m.works {
		if f.kind == SourceFailed {
			a.works(f)
		}
		return nil
	}
	if m.reply == nil {
		a.fails(f, Event{Kind: SourceFailed, Err: m.err})
		return nil
	}
	limit := patience
	if a.hung {
		limit = impatience
	}
	a.back(limit)
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
	saved, removed := changed(a.b, res, m.changes)
	a.settle(ctx, err, len(saved)+len(removed) > 0, Event{Kind: Saved, Items: saved, Removed: removed, Healed: res.Healed})
	a.works(f)
	return nil
}

// works takes note that the changes of a source are kept, and tells it where all are
// again.
func (a *agent) works(f *feedState) {
	failed := f.kind != ""
	*f = feedState{}
	if failed && !slices.ContainsFunc(a.feeds, func(f feedState) bool { return f.kind != "" }) {
		a.tell(Event{Kind: SourceWorks})
	}
}

// fails takes note that the changes of a source are not kept, and tells it if that
// is new.
func (a *agent) fails(f *feedState, e Event) {
	if f.since.IsZero() {
		f.since = a.wall
	}
	f.err, f.kind = e.Err, e.Kind
	if told := fmt.Sprint(e.Kind, satchel.CodeOf(e.Err)); f.told != told {
		f.told = told
		a.tell(e)
	}
}

// sync brings to the places what they lack. A change that comes meanwhile goes first: it is
// journalled, and brings up what is late too. If all of it is asked for, sync goes on then.
func (a *agent) sync(ctx context.Context, all bool) error {
	a.back(patience)
	opCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	type outcome struct {
		res satchel.Result
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		res, err := a.b.Sync(opCtx)
		done <- outcome{res, err}
	}()
	var out outcome
	for waiting := true; waiting; {
		select {
		case out = <-done:
			waiting = false
		case m := <-a.inbox:
			a.clocks()
			if m.reply == nil {
				a.handle(ctx, m)
				continue
			}
			// A place that hangs must not keep it from this device. What the places have
			// taken counts.
			cancel()
			if out = <-done; fatal(out.err) {
				m.reply <- out.err
				return out.err
			}
			if len(out.res.Healed) > 0 {
				a.tell(Event{Kind: Healed, Healed: out.res.Healed})
			}
			if err := a.handle(ctx, m); err != nil || !all || a.trouble == "" && a.failed == satchel.CodeDone {
				return err
			}
			return a.sync(ctx, all)
		}
	}
	res, err := out.res, out.err
	a.hung = opCtx.Err() != nil
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
func (a *agent) check(ctx context.Context) (satchel.Report, error) {
	opCtx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	var r satchel.Report
	err := a.meanwhile(ctx, checkPatience, cancel, func() (err error) {
		r, err = a.b.Check(opCtx)
		return err
	})
	if fatal(err) && len(r.Places) == 0 {
		return r, err
	}
	a.clocks()
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	if err != nil && len(r.Places) == 0 || errors.Is(err, satchel.ErrBusy) {
		// It did not begin, or another process had the wallet for long.
		a.nextCheck(checkPause)
		return r, err
	}
	a.nextCheck(a.CheckEvery)
	st := a.b.Status()
	before := a.trouble
	a.trouble = trouble(st)
	a.toldAt = a.wall
	a.tell(Event{Kind: Checked, Report: r, Err: err})
	a.tellBranches(st)
	if err != nil || before != "" || a.trouble != "" {
		return r, a.sync(ctx, true)
	}
	a.prune(ctx)
	return r, ctx.Err()
}

// nextCheck sets when everything is compared next, if it is at all.
func (a *agent) nextCheck(d time.Duration) {
	if a.CheckEvery > 0 {
		a.checkAt = a.wall.Add(d)
	}
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
	err := a.meanwhile(ctx, patience, cancel, func() (err error) {
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
// in and ends within limit, goes on. If the agent must end, it cancels do.
func (a *agent) meanwhile(ctx context.Context, limit time.Duration, cancel func(), do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	look := time.NewTicker(pollEvery)
	defer look.Stop()
	for end := time.Now().Add(limit); ; {
		a.back(time.Until(end))
		select {
		case err := <-done:
			return err
		case <-look.C:
			a.clocks()
			a.alarm()
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

// drills tells that a drill is due, and that one passed.
func (a *agent) drills() {
	if a.mono.Before(a.drillAt) {
		return
	}
	a.drillAt = a.mono.Add(pollEvery)
	st := a.b.Status()
	if st.Drilled = a.lastDrill(st); st.Drilled.After(a.drilled) {
		a.drilled, a.drillTold = st.Drilled, time.Time{}
		a.tell(Event{Kind: Drilled})
	}
	if st.Drilled.IsZero() && !a.drilled.IsZero() {
		// The way in is gone that it went by. Who just chose another one knows it still.
		a.drilled, a.drillTold = time.Time{}, a.wall.Add(drillFirst-drillAgain)
	}
	if a.DrillEvery < 0 || st.Deleted || a.wall.Before(DrillDueAt(st, a.DrillEvery)) || !a.drillTold.IsZero() && a.wall.Sub(a.drillTold) < drillAgain {
		return
	}
	a.drillTold = a.wall
	a.tell(Event{Kind: DrillDue, Since: st.Drilled})
}

// lastDrill returns when a drill last passed, zero if that is not known: a clock that was
// wrong then says a time that is to come, and nobody would be reminded until then.
func (a *agent) lastDrill(st satchel.Status) time.Time {
	if st.Drilled.After(a.wall.Add(day)) {
		return time.Time{}
	}
	return st.Drilled
}

// DrillDueAt returns when the next drill of a backup is due, every being the time between
// two, 0 for 90 days.
func DrillDueAt(st satchel.Status, every time.Duration) time.Time {
	if every == 0 {
		every = drillEvery
	}
	if st.Drilled.IsZero() {
		return st.Created.Add(drillFirst)
	}
	return st.Drilled.Add(every)
}

// tell reports an event, with how the backup stands.
func (a *agent) tell(e Event) {
	st := a.b.Status()
	e.Time, e.Generation, e.Protected, e.Places = a.Now(), st.Generation, st.Protected, st.Places
	a.Report(e)
}
