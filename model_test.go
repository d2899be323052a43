package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
	"github.com/satchel-backup/satchel/wallet"
)

// The model of a backup: what every device was told, and what every place truly
// holds. It knows nothing of how the engine works, only what it promises; after each
// event of a history it compares the two.

// thing is an item as its owner knows it.
type thing struct {
	value    string
	required bool
	lost     bool // a restore went on without the value
}

// made is a state that some device made its newest.
type made struct {
	name   seal.SnapshotName
	parent *made // nil for the first
	things map[string]thing
	in     map[string]string // item → path of the object that holds its value
	paths  []string          // of all that a restore of it needs, but for slots
	chain  []string          // of those, the snapshots from the checkpoint on
}

// after reports whether a state has the other one in its history.
func (m *made) after(n seal.SnapshotName) bool {
	for ; m != nil; m = m.parent {
		if m.name == n {
			return true
		}
	}
	return false
}

// spot is a place with what it truly holds.
type spot struct {
	*storetest.Faulty
	w      *world
	st     *mem.Store
	copies []*mem.Store // of older days

	op    storetest.Op // what fails: this method,
	fault storetest.Fault
	once  bool // for one call
	lies  bool
	hit   atomic.Bool // and that was; a restore asks for several objects at once
}

// faulty reports whether something may fail in the place.
func (s *spot) faulty() bool { return s.fault != storetest.None && !(s.once && s.hit.Load()) }

// listing is what can be said of a listing.
type listing int

const (
	told   listing = iota // it is complete
	failed                // it fails
	unsure                // it may be wrong, or may fail
)

func (s *spot) listing() listing {
	switch {
	case !s.faulty() || s.op != storetest.List || s.fault == storetest.Duplicate:
		return told
	case s.once || slices.Contains([]storetest.Fault{storetest.Absent, storetest.Lag, storetest.HalfList}, s.fault):
		return unsure
	}
	return failed
}

func (s *spot) choose(op storetest.Op, _ string) storetest.Fault {
	if op != s.op || !s.faulty() {
		return storetest.None
	}
	s.hit.Store(true)
	return s.fault
}

func (s *spot) set(op storetest.Op, fault storetest.Fault, once, lies bool) {
	s.Settle()
	s.op, s.fault, s.once, s.lies = op, fault, once, lies
	s.hit.Store(false)
	s.Lies(lies)
}

// has reports whether the place truly holds the object of a path, whole.
func (s *spot) has(path string) bool {
	_, err := s.st.Get(context.Background(), s.w.folder+"/"+path, hashIn(path), store.MaxObject)
	return err == nil
}

// lists reports whether the place truly holds something of a path.
func (s *spot) lists(path string) bool {
	_, err := s.st.Get(context.Background(), s.w.folder+"/"+path, "", store.MaxObject)
	return err == nil
}

// paths returns what the place truly holds of the backup, torn objects included.
func (s *spot) paths() []string {
	list, err := s.st.List(context.Background(), "")
	if err != nil {
		panic(err) // It is in memory.
	}
	var paths []string
	for _, o := range list {
		paths = append(paths, strings.TrimPrefix(o.Name, s.w.folder+"/"))
	}
	return paths
}

// snapshots returns the names of all snapshots that the place holds.
func (s *spot) snapshots() []seal.SnapshotName {
	var names []seal.SnapshotName
	for _, p := range s.paths() {
		if n, ok := seal.ParseSnapshotPath(p); ok {
			names = append(names, n)
		}
	}
	return names
}

// inside is a place without faults.
type inside struct{ s *spot }

func (g inside) Put(ctx context.Context, name string, data []byte) error {
	return g.s.st.Put(ctx, name, data)
}

func (g inside) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	return g.s.st.Get(ctx, name, want, limit)
}

func (g inside) List(ctx context.Context, prefix string) ([]store.Object, error) {
	return g.s.st.List(ctx, prefix)
}

func (g inside) Add(name string, data []byte) { g.s.st.Add(name, data) }

func (g inside) Delete(ctx context.Context, o store.Object) error { return g.s.st.Delete(ctx, o) }

// phone is a device with what it was told.
type phone struct {
	id     int
	dir    string
	keys   *ring
	life   *life
	b      *satchel.Backup // nil if there is no wallet on it
	away   [spots]bool     // places that it does not reach
	places []int
	copies int
	state  *made // the newest that it acknowledged

	acting bool             // in an event that may make states
	next   map[string]thing // what they show; nil if no values change
	last   *made            // the last of them that was on its way to a place

	fresh  [spots]bool // its process has not looked at the place yet
	hurt   [spots]bool // the place lost something since it was last as this device thinks
	prunes bool        // in this event: it may delete what is whole
	wrote  []string    // in this event, hints left out
	eyed   []int       // the places that it looks at in this event, if not its own
}

// keeps reports whether the device has the sealed object of a path.
func (p *phone) keeps(path string) bool {
	_, err := os.Stat(filepath.Join(p.dir, "wallet", "objects", string(hashIn(path))))
	return err == nil
}

func isSlotPath(path string) bool {
	_, ok := seal.ParseSlotPath(path)
	return ok
}

// hashIn returns the hash in a path.
func hashIn(path string) store.Hash {
	stem := strings.TrimSuffix(path, ".age")
	return store.Hash(stem[len(stem)-32:])
}

// sight is a place as one device sees it.
type sight struct {
	p *phone
	s *spot
	i int
}

func (v sight) Put(ctx context.Context, name string, data []byte) error {
	if v.p.away[v.i] {
		return store.ErrUnreachable
	}
	if strings.HasSuffix(name, ".age") {
		v.p.wrote = append(v.p.wrote, name)
		v.s.w.between(v.p)
	}
	return v.s.Put(ctx, name, data)
}

func (v sight) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	if v.p.away[v.i] {
		return nil, store.ErrUnreachable
	}
	return v.s.Get(ctx, name, want, limit)
}

func (v sight) List(ctx context.Context, prefix string) ([]store.Object, error) {
	if v.p.away[v.i] {
		return nil, store.ErrUnreachable
	}
	return v.s.List(ctx, prefix)
}

// Delete may take torn objects and slots that were removed, and nothing else.
func (v sight) Delete(ctx context.Context, o store.Object) error {
	if v.p.away[v.i] {
		return store.ErrUnreachable
	}
	v.p.wrote = append(v.p.wrote, o.Name)
	path := strings.TrimPrefix(o.Name, v.s.w.folder+"/")
	whole := strings.HasSuffix(path, ".age") && v.s.has(path)
	err := v.s.Delete(ctx, o)
	switch {
	case !whole || v.s.has(path) || v.s.w.gone[path]:
	case v.p.prunes && !isSlotPath(path):
		for _, other := range v.s.w.phones {
			other.hurt[v.i] = other.hurt[v.i] || other != v.p
		}
	case v.s.faulty() && v.s.op == storetest.Get && v.p.keeps(path):
		// The place said that it is torn, and the device has the right bytes.
		v.s.w.hurt(v.i)
	default:
		v.s.w.broken = fmt.Errorf("device %d deleted %s, which was whole", v.p.id, path)
	}
	return err
}

const (
	spots  = 3
	phones = 3
)

// world is three devices and three places.
type world struct {
	dir    string
	now    time.Time
	rnd    *rand.Rand // of the event under way
	count  int        // of values made
	spots  [spots]*spot
	phones []*phone // and one more, for the end
	states map[seal.SnapshotName]*made

	way    slot.Secret // the slot that is never removed
	keys   *seal.Keys
	main   string // its path
	folder string
	gone   map[string]bool // paths of slots that were removed
	pruned int             // objects
	broken error           // a rule that was broken while something else went on
}

// wallets are made once: they have nothing to do with what is tried here.
var modelKeys = func() func() wallet.Keys {
	var k wallet.Keys
	return func() wallet.Keys {
		if k.Fingerprint() == "" {
			var err error
			if k, err = wallet.New(wallet.Mainnet, 12, "2026-11-23"); err != nil {
				panic(err)
			}
		}
		return k
	}
}()

// newWorld makes a wallet on the first device and protects it in all places.
func newWorld(dir string, copies int) (*world, error) {
	w := &world{
		dir: dir, now: time.Unix(1_790_000_000, 0), rnd: rand.New(rand.NewPCG(1, 1)),
		states: map[seal.SnapshotName]*made{}, gone: map[string]bool{},
	}
	for i := range w.spots {
		s := &spot{w: w, st: &mem.Store{}}
		s.Faulty = &storetest.Faulty{Inner: inside{s}}
		s.Choose(s.choose)
		w.spots[i] = s
	}
	for i := range phones + 1 {
		p := &phone{id: i, dir: filepath.Join(dir, fmt.Sprint(i)), keys: &ring{}}
		if err := os.Mkdir(p.dir, 0o700); err != nil {
			return nil, err
		}
		w.phones = append(w.phones, p)
	}
	w.way, _ = slot.NewRecoveryCode()
	p := w.phones[0]
	p.places, p.copies = []int{0, 1, 2}, copies
	b, err := satchel.Create(context.Background(), w.config(p), satchel.Plan{
		Label: "Sam", Keys: modelKeys(), Slots: []slot.Secret{w.way}, Items: []satchel.Change{item("labels", "first"), item("file/a", strings.Repeat("first", 600))},
	})
	if err != nil {
		return nil, err
	}
	p.b, w.folder = b, b.Status().Folder
	things := map[string]thing{}
	for _, it := range b.Items() {
		v, err := b.Get(it.Name)
		if err != nil {
			return nil, err
		}
		things[it.Name] = thing{value: string(v.Open()), required: it.Required}
	}
	for _, path := range w.spots[0].paths() {
		if n, ok := seal.ParseSlotPath(path); ok {
			data, err := w.spots[0].st.Get(context.Background(), w.folder+"/"+path, n.Hash, seal.MaxSlot)
			if err != nil {
				return nil, err
			}
			if w.keys, err = seal.OpenSlot(data, w.way.Identity()); err != nil {
				return nil, err
			}
			w.main = path
		}
	}
	p.state = w.observe(p, nil, things)
	return w, w.judge(p, w.before(p), nil)
}

// close ends everything.
func (w *world) close() {
	for _, p := range w.phones {
		if p.b != nil {
			p.b.Close()
		}
	}
}

// config returns the Config of a new process on a device.
func (w *world) config(p *phone) satchel.Config {
	cfg := satchel.Config{Dir: filepath.Join(p.dir, "wallet"), Keychain: p.keys, Copies: p.copies, Settle: -1, Now: w.tick}
	for _, i := range p.places {
		cfg.Places = append(cfg.Places, store.Place{Address: fmt.Sprint("mem:", i), Store: sight{p, w.spots[i], i}})
	}
	p.life = &life{left: -1}
	return p.life.live(cfg)
}

func (w *world) tick() time.Time {
	w.now = w.now.Add(time.Second)
	return w.now
}

// observe notes the state that a device has made.
func (w *world) observe(p *phone, parent *made, things map[string]thing) *made {
	return w.note(p, p.b.Chain(), parent, things)
}

// note notes the state that a device made at the end of this chain, its newest or one
// before, which had these things.
func (w *world) note(p *phone, chain []seal.SnapshotName, parent *made, things map[string]thing) *made {
	m := &made{name: chain[len(chain)-1], parent: parent, things: things, in: map[string]string{}}
	later := map[string]bool{} // holds only what came after
	for _, it := range p.b.Items() {
		line := p.b.Line(it.Name)
		path := line.In.Path()
		if o, ok := p.b.DeviceKey().ItemObject(&line); ok {
			path = o.Path()
		}
		if _, ok := things[it.Name]; ok {
			m.in[it.Name] = path
		} else {
			later[path] = true
		}
	}
	for _, path := range m.in {
		delete(later, path)
	}
	for _, n := range chain {
		m.chain = append(m.chain, n.Path())
	}
	for _, path := range p.b.Objects() {
		_, isSlot := seal.ParseSlotPath(path)
		_, isSnapshot := seal.ParseSnapshotPath(path)
		if !isSlot && !later[path] && (!isSnapshot || slices.Contains(m.chain, path)) {
			m.paths = append(m.paths, path)
		}
	}
	w.states[m.name] = m
	return m
}

// between notes a state that is on its way to a place. In the same event there may follow
// a checkpoint, for a place that needs one.
func (w *world) between(p *phone) {
	if p.acting && p.b.Head() != p.latest().name {
		p.last = w.observe(p, p.latest(), w.shown(p, p.next))
	}
}

// latest is the newest state of a device that is known.
func (p *phone) latest() *made {
	if p.last != nil {
		return p.last
	}
	return p.state
}

// shown is what a new state of a device shows; next is nil if no values change.
func (w *world) shown(p *phone, next map[string]thing) map[string]thing {
	if next != nil {
		return next
	}
	return w.withChannels(p, p.state, p.state.things)
}

// withChannels returns what a device shows that changed no value of a state: its things, and
// the channel backups of what is not in the history of state, which were made items before a pruning
// or by a restore.
func (w *world) withChannels(p *phone, state *made, things map[string]thing) map[string]thing {
	next := maps.Clone(things)
	channels := func(name string) bool { return name == scb || strings.HasPrefix(name, scb+"/") }
	for _, it := range p.b.Items() {
		if _, ok := next[it.Name]; ok || !channels(it.Name) {
			continue
		}
		v, err := p.b.Get(it.Name)
		for _, m := range w.states {
			for name, t := range m.things {
				if err == nil && !state.after(m.name) && channels(name) && t.value == string(v.Open()) {
					next[it.Name] = thing{value: t.value}
				}
			}
		}
	}
	return next
}

// shows compares what a device shows with what it should.
func (w *world) shows(p *phone, want map[string]thing) error {
	got := map[string]thing{}
	for _, it := range p.b.Items() {
		v, err := p.b.Get(it.Name)
		switch {
		case err == nil:
			got[it.Name] = thing{value: string(v.Open()), required: it.Required}
		case errors.Is(err, satchel.ErrMissing):
			got[it.Name] = thing{value: want[it.Name].value, required: it.Required, lost: true}
		default:
			return fmt.Errorf("device %d: item %s: %v", p.id, it.Name, err)
		}
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("device %d shows %s, want %s", p.id, brief(got), brief(want))
	}
	return nil
}

func brief(things map[string]thing) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(things)) {
		if t := things[name]; name != "keys" && name != "descriptors" || t.lost {
			list = append(list, fmt.Sprintf("%s=%.6s(%d) required=%v lost=%v", name, t.value, len(t.value), t.required, t.lost))
		}
	}
	return "{" + strings.Join(list, ", ") + "}"
}

// lacks returns a path that a restore of the state from these places with the
// secret would miss; "" if they hold it whole.
func (w *world) lacks(m *made, places ...int) string {
	for _, path := range append([]string{w.main}, m.paths...) {
		if !slices.ContainsFunc(places, func(i int) bool { return w.spots[i].has(path) }) {
			return path
		}
	}
	return ""
}

// foreign reports whether a place holds a snapshot that shows that a device is not
// the only writer.
func (w *world) foreign(p *phone, i int) bool {
	me := p.state.name
	return slices.ContainsFunc(w.spots[i].snapshots(), func(n seal.SnapshotName) bool {
		return n.Epoch > me.Epoch || n.Epoch == me.Epoch && (n.Device != me.Device || !p.state.after(n))
	})
}

// before is what is known of the places before an event.
type before struct {
	status satchel.Status
	well   [spots]bool // nothing is wrong with the place now
	told   [spots]bool // the place is reached and lists all that it holds
	unsure [spots]bool // the place may list all that it holds
}

func (w *world) before(p *phone) before {
	var pre before
	if p.b != nil {
		pre.status = p.b.Status()
	}
	p.wrote, p.eyed = nil, nil
	for i, s := range w.spots {
		pre.well[i] = !p.away[i] && !s.faulty()
		pre.told[i] = !p.away[i] && s.listing() == told
		pre.unsure[i] = !p.away[i] && s.listing() == unsure
	}
	return pre
}

// judge says whether a device may say what it says after it looked at its places,
// and returned err.
func (w *world) judge(p *phone, pre before, err error) error {
	if w.broken != nil {
		return w.broken
	}
	if bad := w.shows(p, p.state.things); bad != nil {
		return bad
	}
	must, may := false, false
	eyed := p.places
	if p.eyed != nil {
		eyed = p.eyed
	}
	for _, i := range eyed {
		if w.foreign(p, i) {
			must = must || pre.told[i]
			may = true // It may have seen it there before, and have left the place out since.
		}
		// What it saw there before counts until it can look again.
		if !pre.told[i] && slices.ContainsFunc(pre.status.Places, func(st satchel.PlaceStatus) bool {
			return st.Address == fmt.Sprint("mem:", i) && st.Health == satchel.HealthOtherDevice
		}) {
			must, may = must || p.away[i], true
		}
	}
	other := errors.Is(err, satchel.ErrOtherDevice)
	switch {
	case must && !other:
		return fmt.Errorf("device %d does not notice that another one writes: %v", p.id, err)
	case other && !may:
		return fmt.Errorf("device %d says that another one writes: %v", p.id, err)
	case other && len(p.wrote) > 0 && !p.prunes: // That looks twice.
		return fmt.Errorf("device %d noticed that another one writes, and wrote %v", p.id, p.wrote)
	}
	st := p.b.Status()
	if st.Protected != (err == nil) && !(st.Protected && (other || len(w.gone) > 0 || errors.Is(err, errRefused))) {
		return fmt.Errorf("device %d: protected is %v, and the error %v", p.id, st.Protected, err)
	}
	err = w.claims(p, pre, !other, false)
	for _, i := range eyed {
		p.fresh[i] = false
	}
	return err
}

// claims says whether what a device believes of its places is so. looked says that
// it looked at them, checked that it compared everything.
func (w *world) claims(p *phone, pre before, looked, checked bool) error {
	st := p.b.Status()
	if !st.Protected && !st.Verified.Equal(pre.status.Verified) && pre.status.Device == st.Device {
		return fmt.Errorf("device %d: not protected, and the time of verification moved", p.id)
	}
	counted := 0
	for _, place := range st.Places {
		i := placeOf(place.Address)
		if place.Generation != st.Generation || place.Health == satchel.HealthMissing || place.Health == satchel.HealthDamaged ||
			place.Health == satchel.HealthOtherDevice || place.Health == satchel.HealthWrongAccount {
			continue
		}
		counted++
		s := w.spots[i]
		lacks := w.lacks(p.state, i)
		if lacks == "" {
			p.hurt[i] = false
		} else if !p.hurt[i] {
			return fmt.Errorf("device %d says that place %d holds generation %d, and it lacks %s", p.id, i, st.Generation, lacks)
		}
		missing, snapshots := 0, 0
		for _, path := range p.state.paths {
			if !s.lists(path) {
				missing++
				if slices.Contains(p.state.chain, path) {
					snapshots++
				}
			}
		}
		switch {
		case !pre.well[i]:
		case checked && lacks != "":
			return fmt.Errorf("device %d checked place %d and did not notice that it lacks %s", p.id, i, lacks)
		case looked && p.fresh[i] && missing > 0 && missing <= 12, looked && snapshots > 0:
			return fmt.Errorf("device %d looked at place %d and did not notice that %d objects and %d snapshots are gone", p.id, i, missing, snapshots)
		}
		// A stranger with the secret reads the same from there.
		names := s.snapshots()
		if lacks == "" && w.rnd.IntN(3) == 0 && slices.MaxFunc(names, seal.SnapshotName.Compare) == p.state.name && !slices.ContainsFunc(p.b.Items(), func(it satchel.ItemInfo) bool { return p.state.things[it.Name].lost }) {
			if err := w.reads(i, p.state.things); err != nil {
				return err
			}
		}
	}
	if st.Protected && counted < st.Copies {
		return fmt.Errorf("device %d says protected with %d places of %d", p.id, counted, st.Copies)
	}
	return nil
}

// reads compares what a stranger reads from one place.
func (w *world) reads(i int, want map[string]thing) error {
	values, err := readNewest(w.keys, w.folder, w.spots[i].st)
	if err != nil {
		return fmt.Errorf("a stranger reads place %d: %v", i, err)
	}
	plain := map[string]string{}
	for name, t := range want {
		plain[name] = t.value
	}
	if !maps.Equal(values, plain) {
		return fmt.Errorf("a stranger reads %v from place %d, want %v", short(values), i, short(plain))
	}
	return nil
}

// placeOf returns the number of the place with an address.
func placeOf(address string) int { return int(address[len(address)-1] - '0') }

// revive starts a device again whose process was killed. next is what it shows if
// what it was doing is done; nil if that changes no values.
func (w *world) revive(p *phone, next map[string]thing) error {
	p.b.Close()
	if d, err := satchel.ReadDevice(filepath.Join(p.dir, "wallet")); err != nil {
		return fmt.Errorf("device %d after a crash: %v", p.id, err)
	} else {
		p.places, p.copies = nil, d.Copies
		for _, a := range d.Places {
			p.places = append(p.places, placeOf(a))
		}
	}
	var err error
	if p.b, err = satchel.Open(w.config(p)); err != nil {
		p.b = nil
		return fmt.Errorf("device %d after a crash: %v", p.id, err)
	}
	p.fresh = [spots]bool{true, true, true}
	w.made(p, next)
	if err := w.shows(p, p.state.things); err != nil {
		return fmt.Errorf("after a crash: %w", err)
	}
	return w.broken
}

// made notes the newest state of a device, if it is new.
func (w *world) made(p *phone, next map[string]thing) {
	switch p.b.Head() {
	case p.state.name:
	case p.latest().name:
		p.state = p.last
	default:
		p.state = w.observe(p, p.latest(), w.shown(p, next))
	}
	p.last = nil
}

// act lets a device do something that looks at its places and, unless it is killed,
// either changes its state to next or leaves it alone.
func (w *world) act(p *phone, kill int, next map[string]thing, do func() error) (string, error) {
	pre := w.before(p)
	p.life.left = kill
	p.acting, p.next, p.last = true, next, nil
	err := do()
	p.acting = false
	if p.life.dead {
		return "killed", w.revive(p, next)
	}
	p.life.left = -1
	head := p.b.Head()
	switch {
	case err == nil, errors.Is(err, satchel.ErrNotProtected):
		if next != nil && head == p.state.name && !maps.Equal(next, p.state.things) {
			return "", fmt.Errorf("device %d made no new state: %v", p.id, err)
		}
	case errors.Is(err, satchel.ErrOtherDevice), errors.Is(err, errRefused):
		// Pruning brings the places up to date first; another place is told from those there
		// are by a checkpoint, which changes nothing.
		if head != p.state.name && !p.prunes && !(next == nil && errors.Is(err, errRefused)) {
			return "", fmt.Errorf("device %d made a new state in spite of %v", p.id, err)
		}
	default:
		return "", fmt.Errorf("device %d: %v", p.id, err)
	}
	w.made(p, next)
	outcome := "protected"
	if err != nil {
		outcome = err.Error()
	}
	return outcome, w.judge(p, pre, err)
}
