package file

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/source"
)

// run is one call of Run. One goroutine owns it all but the inbox.
type run struct {
	Config
	save  func(ctx context.Context, changes ...source.Change) error
	roots []*root
	names map[string]*track   // by item
	due   map[*track]struct{} // those whose due is set

	// What scan.go works with.
	in      *inbox           // nil while there are no events
	watched map[string]stamp // the directories it watches, and which ones they were
	needed  map[string]bool  // the directories that were asked for since the last scan began
	told    map[string]said  // by path: what was said of what is no track
	sweep   uint64           // counts scans
	exclude []string         // resolved
	deaf    bool             // that there are no events was said
	look    bool             // for Look: no events are wanted

	scanAt  time.Time // when everything is looked at next
	scanned time.Time // when it was
	took    time.Duration

	// Saves wait until retryAt; backoff is 0 if the last one succeeded.
	retryAt time.Time
	backoff time.Duration

	// Both clocks when they were last compared. Only the wall goes on in sleep.
	wall, mono time.Time
}

// track is what is known of one file that is an item, or is to be one.
type track struct {
	root *root
	rel  string // "." for the root itself
	name string // of the item
	gen  uint64 // of the root, when the file was last seen there

	// A file is due from when a change was noticed until it is kept.
	due       bool
	gone      bool      // it is not there
	seen      stamp     // when last looked at
	since     time.Time // when it last was seen to change
	first     time.Time // when it last was quiet before that: the unrest began then
	notBefore time.Time
	once      bool // sum1 is that of a read amid unrest, and a second must agree
	sum1      [32]byte

	offered bool // save was given a value: the item may exist
	kept    bool // saved and sum are of the value that save took last
	saved   stamp
	sum     [32]byte
	drive   uint64 // that its directory was on when it was last read

	pause  time.Duration // how long it must be left alone, if that is longer than usual
	lastly time.Time     // when it was saved last
	quick  int           // saves that followed soon after another, up to fewSaves
	saves  int           // since it was last left alone for rest

	refused  bool // it was said of the state stampSaid that it cannot be kept
	refusedS stamp
}

func (t *track) path() string { return filepath.Join(t.root.real, t.rel) }

func newRun(s *Source, save func(ctx context.Context, changes ...source.Change) error) *run {
	r := &run{
		Config: s.cfg, save: save,
		names: map[string]*track{}, due: map[*track]struct{}{},
		watched: map[string]stamp{}, needed: map[string]bool{}, told: map[string]said{},
		wall: s.cfg.Now().Round(0), mono: time.Now(),
	}
	for _, p := range s.paths {
		r.roots = append(r.roots, &root{path: p, files: map[string]*track{}})
	}
	return r
}

func (r *run) close() {
	if r.in != nil {
		r.in.close()
	}
}

// sleep waits until a time, the next scan, an event or a heartbeat, whichever is
// first, and notices a gap.
func (r *run) sleep(ctx context.Context, until time.Time) {
	now := time.Now()
	d := min(heartbeat, r.scanAt.Sub(now))
	if !until.IsZero() {
		d = min(d, until.Sub(now))
	}
	var wake <-chan struct{}
	if r.in != nil {
		wake = r.in.wake
	}
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer.C:
	}
	late := time.Since(now) - d
	wall, mono := r.Now().Round(0), time.Now()
	gap := wall.Sub(r.wall) - mono.Sub(r.mono)
	r.wall, r.mono = wall, mono
	if gap.Abs() > jump || late > heartbeat {
		// We slept. Events may be lost, and what failed before may succeed now.
		r.scanAt = mono
		r.backoff, r.retryAt = 0, time.Time{}
	}
}

// quiet is how long a file must be left alone.
func (r *run) quiet(t *track) time.Duration {
	d := max(r.Quiet, t.pause)
	if t.seen.coarse() {
		return d + coarse
	}
	return d
}

// slow makes the pauses between the saves of a file longer if they follow soon after
// each other: what is written all the time must not fill the places.
func (r *run) slow(t *track, now time.Time) {
	switch since := now.Sub(t.lastly); {
	case t.lastly.IsZero() || since >= rest:
		t.pause, t.quick, t.saves = 0, 0, 0
	case since > soon:
	case t.quick < fewSaves:
		t.quick++
	default:
		t.pause = min(2*max(r.Quiet, t.pause), max(r.Quiet, calm))
	}
	t.lastly = now
	if t.saves++; t.saves >= oftenSaves && r.Often != nil {
		r.Often(t.path())
	}
}

// patience is how long unrest may last.
func (r *run) patience() time.Duration { return max(patience, 10*r.Quiet) }

// readyAt is when a due track may be read.
func (r *run) readyAt(t *track) time.Time {
	at := t.since.Add(r.quiet(t))
	if impatient := t.first.Add(r.patience()); impatient.Before(at) {
		at = impatient
	}
	if t.notBefore.After(at) {
		at = t.notBefore
	}
	return at
}

// change takes note that a file stands as s since a time, or, if forced, that it
// was written to.
func (r *run) change(t *track, s stamp, at time.Time, forced bool) {
	switch {
	case !t.due:
		if !forced && (t.kept && s == t.saved || t.refused && s == t.refusedS) {
			return
		}
		t.due, t.first, t.since = true, at, at
		t.once, t.notBefore = false, time.Time{}
		if at.Sub(t.lastly) >= rest {
			t.pause = 0
		}
		r.due[t] = struct{}{}
	case forced || s != t.seen || t.gone:
		if at.Sub(t.since) >= r.quiet(t) {
			t.first, t.once = at, false // It had been quiet, only not read.
		}
		if at.After(t.since) {
			t.since = at
		}
		if !t.once {
			t.notBefore = time.Time{}
		}
	}
	t.seen, t.gone = s, false
}

// vanish takes note that a file is not there.
func (r *run) vanish(t *track, at time.Time) {
	if t.due && t.gone {
		return
	}
	t.due, t.gone, t.since, t.first, t.once, t.notBefore = true, true, at, at, false, time.Time{}
	t.seen = stamp{Modified: 1} // Not coarse: Quiet is enough.
	r.due[t] = struct{}{}
}

// done takes note that nothing is due of a file.
func (r *run) done(t *track) {
	t.due, t.once = false, false
	delete(r.due, t)
}

// drop forgets a file.
func (r *run) drop(t *track) {
	r.done(t)
	delete(r.names, t.name)
	delete(t.root.files, t.rel)
}

// refuse says that a file cannot be kept as it stands. Another change makes it due
// again.
func (r *run) refuse(t *track, s stamp, err error) {
	r.sayOnce(t, s, err)
	r.done(t)
}

// delay says that a file cannot be read now and tries again later.
func (r *run) delay(t *track, s stamp, err error, now time.Time) {
	r.sayOnce(t, s, err)
	t.once, t.seen, t.since, t.first, t.notBefore = false, s, now, now, now.Add(r.Poll)
}

func (r *run) sayOnce(t *track, s stamp, err error) {
	if !t.refused || t.refusedS != s {
		r.say(t.path(), err)
	}
	t.refused, t.refusedS = true, s
}

func (r *run) say(path string, err error) {
	skipped := &SkippedError{Path: path, Err: err}
	if r.Report != nil {
		r.Report(skipped)
		return
	}
	r.Logger.Warn("left out", "err", skipped)
}

// settle saves what has come to rest and returns when more may have; zero means
// not before something changes.
func (r *run) settle(ctx context.Context) time.Time {
	if len(r.due) == 0 {
		return time.Time{}
	}
	now := time.Now()
	var first time.Time
	for t := range r.due {
		if at := r.readyAt(t); first.IsZero() || at.Before(first) {
			first = at
		}
	}
	// What comes to rest soon after the first goes together with it.
	act := first
	for t := range r.due {
		if at := r.readyAt(t); at.After(act) && !at.After(first.Add(r.Quiet)) {
			act = at
		}
	}
	if r.retryAt.After(act) {
		act = r.retryAt
	}
	if act.After(now) {
		return act
	}
	var ready []*track
	for t := range r.due {
		if !r.readyAt(t).After(now) {
			ready = append(ready, t)
		}
	}
	slices.SortFunc(ready, func(a, b *track) int { return cmp.Compare(a.name, b.name) })
	r.offer(ctx, ready)
	return time.Now()
}

// idle reports whether all that was seen is kept, or was told to be left out.
func (r *run) idle() bool {
	for t := range r.due {
		if !t.refused {
			return false
		}
	}
	return true
}

// reading is a change on its way to save.
type reading struct {
	t     *track
	stamp stamp
	sum   [32]byte
}

// offer hands files that have come to rest to save, as few calls as memory
// allows. What turns out to be moving still stays due.
func (r *run) offer(ctx context.Context, ready []*track) {
	var changes []source.Change
	var read []reading
	var size int64
	flush := func() bool {
		if len(changes) == 0 {
			return true
		}
		ok := r.hand(ctx, changes, read)
		changes, read, size = nil, nil, 0
		return ok
	}
	for _, t := range ready {
		if ctx.Err() != nil {
			return
		}
		if size+t.seen.Size > r.batch && !flush() {
			return
		}
		c, got, ok := r.read(t, r.batch-size)
		if !ok {
			continue
		}
		changes, read, size = append(changes, c), append(read, got), size+int64(len(c.Value))
	}
	flush()
}

// hand calls save. On an error all stays due, and whatever is due waits a while.
func (r *run) hand(ctx context.Context, changes []source.Change, read []reading) bool {
	for _, d := range read {
		// An error means perhaps: what was kept before may be so no longer.
		d.t.offered, d.t.kept = true, false
	}
	if err := r.save(ctx, changes...); err != nil {
		r.backoff = min(max(2*r.backoff, backoffFirst), backoffMost)
		r.retryAt = time.Now().Add(r.backoff)
		return false
	}
	r.backoff, r.retryAt = 0, time.Time{}
	for _, d := range read {
		if d.t.gone {
			r.drop(d.t)
			continue
		}
		d.t.kept, d.t.saved, d.t.sum = true, d.stamp, d.sum
		d.t.refused = false
		r.done(d.t)
		r.slow(d.t, time.Now())
	}
	return true
}

// read looks at a due file whose time has come. It returns a change to save, or
// false if there is none now; then the track has been put right. It reads no more
// than room bytes.
func (r *run) read(t *track, room int64) (c source.Change, got reading, ok bool) {
	now := time.Now()
	s, err := r.sys.Stat(t.path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if !t.gone {
			r.vanish(t, now)
			return c, got, false
		}
		if !r.Removals || !t.offered || !r.homeStands(t.root) || !r.driveStands(t) {
			r.drop(t)
			return c, got, false
		}
		return source.Change{Name: t.name, Remove: true}, reading{t: t}, true
	case err != nil:
		r.delay(t, t.seen, err, now)
		return c, got, false
	case !s.Mode.IsRegular():
		r.drop(t) // The next scan says what it is.
		r.scanSoon(now)
		return c, got, false
	}
	restless := now.Sub(t.since) < r.quiet(t)
	if t.gone || !restless && s != t.seen {
		if t.gone || now.Sub(t.since) >= r.patience() {
			t.first = now // It may have been quiet for long; nobody looked.
		}
		t.seen, t.since, t.gone = s, now, false
		return c, got, false
	}
	if s.Size > r.MaxSize {
		r.refuse(t, s, ErrTooLarge)
		return c, got, false
	}
	if s.Size > room {
		t.seen = s // It has grown: next time it goes first.
		return c, got, false
	}
	data, err := r.sys.Read(t.root.homeDir(), t.root.inHome(t.rel), min(r.MaxSize, room))
	after, afterErr := r.sys.Stat(t.path())
	now = time.Now()
	moved := afterErr != nil || after != s || int64(len(data)) != s.Size
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, durable.ErrNotRegular), errors.Is(err, durable.ErrTooLarge), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF),
		err == nil && !restless && moved:
		// It changed under our hands: wait again, from now.
		if now.Sub(t.first) >= r.patience() {
			r.delay(t, s, ErrRestless, now)
			return c, got, false
		}
		t.since = now
		if afterErr == nil {
			t.seen = after
		}
		return c, got, false
	case err != nil:
		r.delay(t, s, err, now)
		return c, got, false
	}
	if dir, err := r.sys.Stat(filepath.Dir(t.path())); err == nil {
		t.drive = dir.Dev
	}
	sum := sha256.Sum256(data)
	if restless {
		if !t.once {
			t.once, t.sum1, t.notBefore = true, sum, now.Add(r.Quiet/4)
			return c, got, false
		}
		t.once = false
		if sum != t.sum1 {
			r.sayOnce(t, stamp{}, ErrRestless)
			t.first, t.notBefore = now, time.Time{}
			return c, got, false
		}
	}
	if t.kept && sum == t.sum {
		t.saved, t.refused = s, false
		r.done(t)
		return c, got, false
	}
	return source.Change{Name: t.name, Value: data, Required: r.Required}, reading{t, s, sum}, true
}
