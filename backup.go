package satchel

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
)

// Backup is one wallet's backup as this device sees it. It holds a device key: it
// can add, and opens nothing that another device wrote. Methods may be called
// concurrently. What changes or compares the backup happens one at a time; Status,
// Items, Get, Keys and Slots do not wait for it.
type Backup struct {
	cfg Config

	// op is held by the one operation that is under way. Only it changes dev, and
	// while it does it holds mu too; it reads dev without.
	op sync.Mutex
	mu sync.Mutex

	dev    *device
	closed bool // guarded by op

	// looked is when a place was last listed whole, and listed how many objects it had
	// then; only the operation under way uses them.
	looked map[string]time.Time
	listed map[string]int

	healed []string // what the operation under way healed; see Result; guarded by mu

	asked    bool      // the operation under way is asked to tell the key servers all
	pinNext  time.Time // when the key servers are told what they could not be told
	pinPause time.Duration

	whole bool // the next commit is to be a checkpoint; see freshDue

	freshened map[string]freshening // what was tried for a place; see freshDue
}

// ErrClosed says that a Backup is used after Close.
var ErrClosed = fmt.Errorf("this backup was closed: %w", os.ErrClosed)

// begin waits until no other operation is under way, here or in another process. The
// caller ends with b.end unless it returns an error.
func (b *Backup) begin(ctx context.Context) error {
	b.op.Lock()
	err := b.ready(ctx)
	if err != nil {
		b.end()
	}
	return err
}

// errInterrupted says that a long operation let others in and cannot go on.
var errInterrupted = errors.New("interrupted")

// apart does something slow with a place, in the middle of a long operation, while others
// may have the backup: a place that hangs then keeps nobody from saving. Afterwards the
// backup may be in another state. The caller holds op again, also with an error:
// errInterrupted if the operation cannot go on, or that of do.
func (b *Backup) apart(ctx context.Context, p store.Place, do func() error) error {
	b.end()
	err := do()
	b.op.Lock()
	lost := b.ready(context.WithoutCancel(ctx)) // What was done is to be noted.
	if lost == nil && b.dev.deleted {
		lost = ErrDeleted
	}
	if lost == nil && !slices.ContainsFunc(b.cfg.Places, func(q store.Place) bool { return q.Address == p.Address }) {
		lost = fmt.Errorf("the place %s was removed: %w", p.Address, ErrReplaced)
	}
	if lost != nil {
		return fmt.Errorf("%w: %w", errInterrupted, lost)
	}
	return err
}

// end lets the next operation begin, and other processes too if the Config says so.
func (b *Backup) end() {
	if b.cfg.Shared && !b.closed {
		if err := b.dev.close(); err != nil {
			b.cfg.Logger.Warn("giving the lock of this device's directory back", "err", err)
		}
	}
	b.op.Unlock()
}

func (b *Backup) ready(ctx context.Context) error {
	if b.closed {
		return ErrClosed
	}
	if err := b.dev.hold(ctx, func() { b.cfg.progress(Waiting, "", 0, 0) }); err != nil {
		return err
	}
	if b.dev.stale {
		b.mu.Lock()
		defer b.mu.Unlock()
		if err := b.dev.load(); err != nil {
			return fmt.Errorf("reading this device's record again: %w", err)
		}
	}
	return nil
}

// change runs do, which changes dev.
func (b *Backup) change(do func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	do()
}

// Open opens the backup that this device keeps in cfg.Dir, with its device key.
// It asks no place anything. Errors: ErrNoDevice, ErrBusy, ErrDeviceKey,
// seal.ErrDamaged, seal.ErrNewer.
func Open(cfg Config) (*Backup, error) {
	if err := cfg.fill(true); err != nil {
		return nil, err
	}
	dev, err := openDevice(cfg)
	if err != nil {
		return nil, fmt.Errorf("opening this device's wallet: %w", err)
	}
	cfg.Places = patiently(cfg.Places)
	b := &Backup{cfg: cfg, dev: dev}
	b.op.Lock()
	b.end()
	return b, nil
}

// Refresh reads again what another process changed, where Config.Shared lets it, so
// that Status tells it. It asks no place. Errors: ErrReplaced, ErrNoDevice, ErrBusy,
// seal.ErrDamaged.
func (b *Backup) Refresh() error {
	err := b.begin(context.Background())
	if err == nil {
		b.end()
	}
	return err
}

// fill checks a Config and replaces zero values by what they mean.
func (cfg *Config) fill(device bool) error {
	if device && (cfg.Dir == "" || cfg.Keychain == nil) {
		return errors.New("satchel: Config needs Dir and Keychain")
	}
	if cfg.Copies == 0 {
		cfg.Copies = 1
	}
	if cfg.Copies < 0 || len(cfg.Places) > 0 && cfg.Copies > len(cfg.Places) {
		return fmt.Errorf("satchel: %d copies asked for in %d places", cfg.Copies, len(cfg.Places))
	}
	seen := map[string]bool{}
	for _, p := range cfg.Places {
		if p.Address == "" || p.Store == nil || seen[p.Address] {
			return errors.New("satchel: a place without address or store, or named twice")
		}
		seen[p.Address] = true
	}
	cfg.Software = cmp.Or(cfg.Software, "satchel/"+Version)
	if cfg.Settle == 0 {
		cfg.Settle = 2 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.progressing == nil {
		cfg.progressing = new(sync.Mutex)
	}
	now := cfg.Now
	if now == nil {
		now = time.Now
	}
	cfg.Now = func() time.Time {
		t := now().UTC()
		if t.Year() < 1 || t.Year() > 9999 {
			return time.Unix(0, 0).UTC() // A broken clock is no reason not to back up.
		}
		return t
	}
	return nil
}

func (cfg *Config) progress(stage Stage, place string, done, total int) {
	if cfg.Progress != nil {
		cfg.progressing.Lock()
		defer cfg.progressing.Unlock()
		cfg.Progress(Progress{Stage: stage, Place: place, Done: done, Total: total})
	}
}

const (
	largeObject = 1 << 20   // from which on the way of an object's bytes is shown
	largeStep   = 256 << 10 // how often
)

// moving returns a context in which the bytes of an object on their way are progress: p
// with more and more Bytes. If size is not 0 it is known, and small objects show nothing.
func (cfg *Config) moving(ctx context.Context, p Progress, size int64) context.Context {
	if cfg.Progress == nil || size > 0 && size < largeObject {
		return ctx
	}
	var moved atomic.Int64
	return store.WithMoved(ctx, func(n int) {
		now := moved.Add(int64(n))
		if now < largeStep || now/largeStep == (now-int64(n))/largeStep {
			return
		}
		p := p // Others may be on their way too.
		if p.Bytes, p.Size = now, size; size > 0 {
			p.Bytes = min(now, size)
		}
		cfg.progressing.Lock()
		defer cfg.progressing.Unlock()
		cfg.Progress(p)
	})
}

// atPlaces does something for each of n places, at all of them at once: one that is slow
// or hangs keeps no other waiting. It returns when all are done.
func (cfg *Config) atPlaces(n int, do func(i int)) {
	if cfg.inTurn || n == 1 {
		for i := range n {
			do(i)
		}
		return
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}

// Close releases the directory, after the operation that is under way. Nothing is
// lost without it.
func (b *Backup) Close() error {
	b.op.Lock()
	defer b.op.Unlock()
	b.closed = true
	return b.dev.close()
}

// Items lists the items, sorted by name.
func (b *Backup) Items() []ItemInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	return itemInfos(b.dev.items)
}

func itemInfos(items map[string]*entry) []ItemInfo {
	var list []ItemInfo
	for _, name := range slices.Sorted(maps.Keys(items)) {
		if l := &items[name].line; !l.Removed {
			list = append(list, ItemInfo{Name: name, Generation: l.Version, Size: l.Size, SHA256: l.SHA256, Required: l.Required})
		}
	}
	return list
}

func countItems(items map[string]*entry) int {
	n := len(items)
	for _, owner := range []string{seal.ItemKeys, seal.ItemDescriptors} { // No other entry is a removal.
		if e := items[owner]; e != nil && e.line.Removed {
			n--
		}
	}
	return n
}

// Get returns the newest value of an item from this device, or ErrNoItem. It
// asks no place.
func (b *Backup) Get(name string) (secret.Bytes, error) {
	v, err := b.get(name)
	if errors.Is(err, fs.ErrNotExist) && b.cfg.Shared {
		// Another process may have replaced it, and swept.
		if err := b.Refresh(); err != nil {
			return secret.Bytes{}, err
		}
		v, err = b.get(name)
	}
	return v, err
}

func (b *Backup) get(name string) (secret.Bytes, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, err := b.dev.value(name)
	return secret.New(v), err
}

// Keys returns the wallet's keys from this device, also where the backup does not hold
// them any more.
func (b *Backup) Keys() (wallet.Keys, error) {
	v, err := b.get(seal.ItemKeys)
	if errors.Is(err, ErrNoItem) {
		b.mu.Lock()
		if len(b.dev.kept.Keys) > 0 {
			v, err = secret.New(b.dev.kept.Keys), nil
		}
		b.mu.Unlock()
	}
	if err != nil {
		return wallet.Keys{}, err
	}
	return wallet.ParseKeys(v)
}

// Slots lists the ways in.
func (b *Backup) Slots() []SlotInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slotInfos(b.dev.slots)
}

func slotInfos(names []seal.SlotName) []SlotInfo {
	list := make([]SlotInfo, len(names))
	for i, n := range names {
		list[i] = SlotInfo{Kind: slot.Kind(n.Kind), ID: n.ID.String()}
	}
	return list
}

// Status returns what this device knows, without asking any place.
func (b *Backup) Status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.dev
	created, _ := time.Parse(dayLayout, d.info.Created)
	s := Status{
		ID: d.info.ID, Label: d.info.Label, Folder: d.info.Folder, Network: d.info.Network, Kind: kindOf(d.info.Kind),
		Fingerprint: d.info.Fingerprint, Created: created, Device: d.key.Device().String(),
		Epoch: d.head().Epoch, Generation: d.head().Generation, Saved: d.headTime,
		Items: countItems(d.items), Slots: slotInfos(d.slots),
		Missing: lostItems(d.items), Deleted: d.deleted, Protected: b.protected(), Verified: d.verified, Unprotected: b.unprotected(), Copies: b.cfg.Copies, Places: b.placeStatus(),
		KeysDropped: d.keysDropped(), WordsWritten: d.kept.Written, Drilled: d.drilled(), Limit: d.limit(), Rekeying: d.rekey.Dir, PINPending: d.pin.Plan != nil, PINEnding: ending(d.pin.Ending), PINLost: slices.Clone(d.pin.Lost), PINUndone: d.pin.Undone,
		Anchored: d.anchor.kept == d.head() && d.anchor.err == nil && !d.head().IsZero(), AnchorErr: d.anchor.err, PINDead: d.anchor.dead && d.pinOnly(),
	}
	s.Next = nextStep(&s)
	return s
}

// ending names the key servers that steps are to be taken at.
func ending(steps []guard.Step) []string {
	var names []string
	for _, s := range steps {
		names = append(names, s.Server)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// lostItems names the items that a restore went on without.
func lostItems(items map[string]*entry) []string {
	var names []string
	for name, e := range items {
		if e.lost {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// lost reports whether a place in this state cannot be counted on. A place that
// was verified and cannot be reached just now can.
func (h Health) lost() bool {
	return h == HealthMissing || h == HealthDamaged || h == HealthOtherDevice || h == HealthWrongAccount
}

// mayTake reports whether a place in this state may take the next object: it did not
// refuse the last one for a reason that stays.
func (h Health) mayTake() bool {
	return h != HealthFull && h != HealthSignIn && h != HealthWrongAccount && h != HealthFailed
}

// protected reports whether enough places hold the newest snapshot, some way in is there
// to stay, and no key server knows a newer state.
func (b *Backup) protected() bool {
	d := b.dev
	pending := d.pin.Plan != nil && len(d.slots) == 1 && d.slots[0].Path() == d.pin.Slot
	return b.held() && !pending && !d.anchor.fenced && !(d.anchor.dead && d.pinOnly())
}

// unprotected returns since when something is not protected, zero if all is.
func (b *Backup) unprotected() time.Time {
	d := b.dev
	switch {
	case b.protected():
		return time.Time{}
	case !d.exposed.IsZero():
		return d.exposed
	case d.verified.After(d.headTime):
		return d.verified
	}
	return d.headTime
}

// settleExposed forgets since when something was not protected, once all is. The record of
// the places has it.
func (b *Backup) settleExposed() {
	b.change(func() {
		if b.protected() {
			b.dev.exposed = time.Time{}
		}
	})
}

// held reports whether enough places hold the newest snapshot.
func (b *Backup) held() bool {
	if b.dev.deleted || len(b.dev.slots) == 0 {
		return false // Nothing that a place holds could be opened.
	}
	if b.dev.lost > 0 {
		return false // No place holds some item that is required.
	}
	n := 0
	for _, p := range b.cfg.Places {
		st := b.dev.places[p.Address]
		if st != nil && st.health == HealthOtherDevice {
			return false // What is here is not the newest any more.
		}
		if st != nil && st.verified == b.dev.head() && !st.health.lost() {
			n++
		}
	}
	return n >= b.cfg.Copies
}

func (b *Backup) placeStatus() []PlaceStatus {
	var list []PlaceStatus
	for _, p := range b.cfg.Places {
		s := PlaceStatus{Address: p.Address, Health: HealthUnknown}
		if st := b.dev.places[p.Address]; st != nil {
			s.Health, s.Generation, s.Verified, s.Err, s.Branch = st.health, st.verified.Generation, st.at, st.err, st.branch.String()
			if s.Health == HealthProtected && st.verified != b.dev.head() {
				s.Health = HealthBehind
			}
		}
		if b.dev.deleted {
			s.Health, s.Generation, s.Err = HealthMissing, 0, ErrDeleted
		} else if b.dev.anchor.fenced {
			s.Health, s.Err = HealthOtherDevice, b.dev.anchor.err
		}
		list = append(list, s)
	}
	return list
}

func (b *Backup) result(changed int) Result {
	return Result{Generation: b.dev.head().Generation, Changed: changed, Protected: b.protected(), Places: b.placeStatus(), Healed: b.healed}
}

// Save makes a snapshot of the changes, all of them or none, journals it, and
// brings it to the places. Values that are as they were are left out; a Save
// that changes nothing makes no snapshot and still brings up what is late. A
// Change says anew whether its item is required.
//
// If err is nil, the changes are protected. If err is ErrNotProtected (wrapped
// with the reason, such as store.ErrUnreachable, store.ErrFull or that ctx ended),
// they are safe on this device and go up with the next Save or Sync. After any
// other error nothing was changed.
func (b *Backup) Save(ctx context.Context, changes ...Change) (Result, error) {
	if err := b.begin(ctx); err != nil {
		return Result{}, err
	}
	defer b.end()
	b.healed = nil
	if b.asked = len(changes) == 0; b.asked {
		b.change(func() { b.pinNext, b.dev.anchor.next = time.Time{}, time.Time{} }) // Somebody asks for it.
	}
	changes, err := b.different(changes)
	if err != nil {
		return b.result(0), err
	}
	looks, err := b.look(ctx)
	if err != nil {
		return b.result(0), err
	}
	if len(changes) > 0 {
		b.whole = b.freshDue(looks)
		if err := b.commitChanges(nil, changes, nil, nil); err != nil {
			return b.result(0), fmt.Errorf("keeping the change on this device: %w", err)
		}
	}
	err = b.sync(ctx, looks)
	return b.result(len(changes)), err
}

// freshening is how often a checkpoint was made for a place that has not got one yet.
type freshening struct {
	tries int
	last  time.Time
}

const (
	freshTries = 3           // that may follow one another
	freshPause = time.Minute // after those
)

// freshDue reports whether a place needs a checkpoint to begin with: a place that is
// new, or so far behind that it lacks what came before the last checkpoint. It gets the
// values first and that one snapshot last, so that at every moment it holds either what
// it held, or the newest state, whole. One that goes on failing gets no more of them for
// a while, and one that refused the last object only once it takes another: see errApart.
func (b *Backup) freshDue(looks []look) bool {
	due := false
	for _, l := range looks {
		st := b.dev.places[l.place.Address]
		// One that lost something gets back what it had.
		begins := st == nil || st.verified.IsZero() && st.at.IsZero() || !st.verified.IsZero() && b.dev.index(st.verified) < 0
		if l.err == nil && !begins {
			delete(b.freshened, l.place.Address)
		}
		if l.err == nil && begins && len(b.dev.chain) > 1 && (st == nil || st.health.mayTake()) && b.mayFreshen(l.place) {
			due = true
		}
	}
	return due
}

// mayFreshen reports whether a checkpoint may be made for a place, and counts it.
func (b *Backup) mayFreshen(p store.Place) bool {
	if b.freshened == nil {
		b.freshened = map[string]freshening{}
	}
	f := b.freshened[p.Address]
	if since := b.cfg.Now().Sub(f.last); f.tries >= freshTries && since >= 0 && since < freshPause {
		return false
	}
	b.freshened[p.Address] = freshening{f.tries + 1, b.cfg.Now()}
	return true
}

// errApart says that a place has the values of the newest state, and can have no snapshot
// before there is a checkpoint: those between what it holds, or was put back to, and the
// newest one would stand there without values that were replaced since.
var errApart = fmt.Errorf("%w: it failed several times, and gets the newest state with the first try after a minute", store.ErrUnreachable)

// Sync brings what is late to the places. Errors are as for Save.
func (b *Backup) Sync(ctx context.Context) (Result, error) { return b.Save(ctx) }

// checkChanges returns an error unless the changes are ones that a wallet may
// make.
func checkChanges(changes []Change) error {
	seen := map[string]bool{}
	for _, c := range changes {
		switch err := seal.CheckItemName(c.Name); {
		case err != nil:
			return err
		case seal.OwnerItem(c.Name):
			return fmt.Errorf("%w: %s", ErrOwnerOnly, c.Name)
		case seen[c.Name]:
			return fmt.Errorf("item %s is changed twice", c.Name)
		case len(c.Value) > seal.MaxValue:
			return fmt.Errorf("item %s has %d bytes: Satchel keeps at most %d in one item", c.Name, len(c.Value), seal.MaxValue)
		}
		seen[c.Name] = true
	}
	return nil
}

// different checks the changes and returns those that change something.
func (b *Backup) different(changes []Change) ([]Change, error) {
	if err := checkChanges(changes); err != nil {
		return nil, err
	}
	var list []Change
	for _, c := range changes {
		e := b.dev.items[c.Name]
		if c.Remove && e == nil {
			return nil, fmt.Errorf("%w: %s", ErrNoItem, c.Name)
		}
		if c.Remove || e == nil || e.lost || e.line.Required != c.Required || !e.line.Matches(c.Value) {
			list = append(list, c)
		}
	}
	return list, nil
}

// commitChanges seals the changes as the next snapshot and commits it on this
// device. slots, if not nil, is the new list of slots, and objects are sealed
// objects that go up before the snapshot, already durable here.
func (b *Backup) commitChanges(keys *seal.Keys, changes []Change, slots *[]seal.SlotName, objects []string) error {
	d := b.dev
	if err := d.room(changes); err != nil {
		return err
	}
	gen := d.head().Generation + 1
	b.cfg.progress(Sealing, "", 0, len(changes))
	var pack *packer // of what goes up together
	if many(changes) {
		pack = &packer{d: d, gen: gen}
		// The files of values that are there already are looked at too when this is
		// flushed, so it is only for what is as much again.
		d.together = len(changes) >= len(d.items)/2
		defer func() { d.together = false }()
	}
	var entries []*entry
	for i, c := range changes {
		e, path, err := d.sealChange(keys, c, gen, pack)
		if err != nil {
			return err
		}
		if path != "" {
			objects = append(objects, path)
		}
		entries = append(entries, e)
		b.cfg.progress(Sealing, "", i+1, len(changes))
	}
	inline := 0
	for _, e := range entries {
		inline += len(e.line.Data)
	}
	if inline > maxInlined {
		// All of them together may be too much for one snapshot.
		if pack == nil {
			pack = &packer{d: d, gen: gen}
		}
		for _, e := range entries {
			if e.line.Inline && !seal.OwnerItem(e.line.Name) {
				if err := pack.add(e, e.line.Data); err != nil {
					return err
				}
			}
		}
	}
	if pack != nil {
		if err := pack.flush(); err != nil {
			return err
		}
		objects = append(objects, pack.objects...)
	}
	snap := &seal.Snapshot{Generation: gen, Parent: d.head(), Time: b.cfg.Now(), Software: b.cfg.Software, Kind: seal.Delta}
	if slots != nil {
		snap.HasSlots, snap.Slots = true, slices.Clone(*slots)
	}
	whole := d.checkpointDue() || b.whole
	b.whole = false
	lines := entries
	if whole {
		lines = d.whole(entries)
		snap.Kind, snap.HasSlots = seal.Checkpoint, true
		if slots == nil {
			snap.Slots = slices.Clone(d.slots)
		}
		p := packer{d: d, gen: gen}
		var err error
		if lines, err = p.pack(lines, false); err != nil {
			return err
		}
		objects = append(objects, p.objects...)
	}
	return b.commitSnapshot(snap, lines, objects)
}

// maxInlined bounds the values that a snapshot carries together.
const maxInlined = 16 << 20

// room returns an error if a checkpoint could not list the items any more after
// the changes.
func (d *device) room(changes []Change) error {
	n, size := len(d.items), d.listed
	for _, c := range changes {
		if d.items[c.Name] == nil {
			n++
			size += lineSize(&entry{line: seal.Item{Name: c.Name}})
		}
	}
	if n > seal.MaxItems || size > seal.MaxSnapshot-maxSlotLines {
		return fmt.Errorf("%d items: a backup does not hold so many", n)
	}
	return nil
}

// maxSlotLines is at least what the lines that are not items take in a checkpoint.
const maxSlotLines = 128 << 10

// sealChange keeps a change's value on this device, and its object if it needs
// one. It returns the new entry and the object's path. A value that can be packed goes
// into the pack, unless that is nil.
func (d *device) sealChange(keys *seal.Keys, c Change, gen uint64, pack *packer) (*entry, string, error) {
	if c.Remove {
		e := &entry{line: seal.Item{Name: c.Name, Version: gen, Removed: true}}
		if seal.OwnerItem(c.Name) {
			keys.Sign(&e.line)
		}
		return e, "", nil
	}
	e := &entry{line: seal.NewItem(c.Name, gen, c.Value)}
	e.line.Required = c.Required
	if seal.OwnerItem(c.Name) {
		e.line.Required = true
		keys.Sign(&e.line)
	}
	var path string
	switch {
	case len(c.Value) <= seal.MaxInline && c.Name != seal.ItemKeys:
		e.line.Inline, e.line.Data = true, c.Value
	case pack != nil && c.packable():
		if err := pack.add(e, c.Value); err != nil {
			return nil, "", err
		}
	default:
		name, data, err := seal.SealItem(d.key, c.Name, gen, c.Value)
		if err != nil {
			return nil, "", err
		}
		if err := d.putObject(name.Hash, data); err != nil {
			return nil, "", err
		}
		e.line.Object, path = name.Hash, name.Path()
	}
	var err error
	e.value, err = d.putValue(&e.line, c.Value)
	return e, path, err
}

// whole returns the entries of a checkpoint: all items, with the changes.
func (d *device) whole(changes []*entry) []*entry {
	all := maps.Clone(d.items)
	for _, e := range changes {
		all[e.line.Name] = e
	}
	var list []*entry
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if e := all[name]; !e.line.Removed || seal.OwnerItem(name) {
			list = append(list, e)
		}
	}
	return list
}

// checkpointDue reports whether the deltas outweigh a checkpoint.
func (d *device) checkpointDue() bool {
	if len(d.chain) == 0 {
		return true
	}
	deltas, size := d.chain[1:], int64(0)
	for _, s := range deltas {
		size += s.size
	}
	return len(deltas) >= seal.MaxDeltas || len(deltas) >= 64 && size >= max(d.chain[0].size, int64(len(d.items))*200)
}

// commitSnapshot seals the snapshot with the lines of the entries, journals its
// object and commits it. The entries' lines afterwards refer to the snapshot
// where it carries their value.
func (b *Backup) commitSnapshot(snap *seal.Snapshot, entries []*entry, objects []string) error {
	d := b.dev
	if snap.Kind == seal.Checkpoint {
		snap.Past = slices.Clone(d.past)
	}
	for _, e := range entries {
		snap.Items = append(snap.Items, e.line)
	}
	name, data, err := seal.SealSnapshot(d.key, snap)
	if err != nil {
		return err
	}
	if err := d.putObject(name.Hash, data); err != nil {
		return err
	}
	if err := d.flush(); err != nil {
		return err
	}
	c := commitRecord{
		Time: snap.Time, Whole: snap.Kind == seal.Checkpoint, Exposed: snap.Time,
		Steps: []stepRecord{{name.String(), int64(len(data)), append(slices.Clone(objects), name.Path())}},
	}
	if since := b.unprotected(); !since.IsZero() {
		c.Exposed = since // This change waits together with what came before.
	}
	if snap.HasSlots {
		c.Slots = new(slotPaths(snap.Slots))
	}
	for _, e := range entries {
		if e.line.Inline {
			e.line.Inline, e.line.Data, e.line.In = false, nil, name
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return d.commit(c, entries)
}

// look is what a glance at the places showed before a write.
type look struct {
	place store.Place
	whole bool  // all of it was listed, and not its snapshots only
	err   error // why nothing is known of the place; nothing is written there
}

// look lists the snapshots of every place and returns ErrOtherDevice if another
// device has become the writer (R16), as a place or the key servers say, or ErrDeleted. A
// place that cannot be listed is left alone until it can (R2).
func (b *Backup) look(ctx context.Context) ([]look, error) {
	looks, err := b.lookAtPlaces(ctx)
	if err == nil {
		if err = b.fence(ctx); err != nil {
			return nil, err
		}
	}
	return looks, err
}

func (b *Backup) lookAtPlaces(ctx context.Context) ([]look, error) {
	d := b.dev
	if d.deleted && d.rekey.ID != "" {
		return nil, fmt.Errorf("%w: %s", ErrRekeyed, d.rekey.Folder)
	}
	if d.deleted {
		return nil, ErrDeleted
	}
	looks := make([]look, len(b.cfg.Places))
	lists := make([][]store.Object, len(looks))
	for i, p := range b.cfg.Places {
		looks[i] = look{place: p, whole: b.lookWhole(p)}
	}
	b.cfg.atPlaces(len(looks), func(i int) {
		prefix := d.info.Folder + "/snapshots/"
		if looks[i].whole {
			prefix = d.info.Folder + "/"
		}
		lists[i], looks[i].err = looks[i].place.Store.List(ctx, prefix)
	})
	var other error
	for i, p := range b.cfg.Places {
		list, err := lists[i], looks[i].err
		if st := d.places[p.Address]; st != nil && st.health == HealthOtherDevice {
			if err != nil { // What was seen there still stops this device.
				other = cmp.Or(other, fmt.Errorf("%w: as was seen in %s, which cannot be listed now: %v", ErrOtherDevice, p.Address, err))
			} else {
				b.setPlace(p.Address, HealthUnknown, nil)
			}
		}
		if err != nil {
			continue
		}
		var verified seal.SnapshotName
		if st := d.places[p.Address]; st != nil {
			verified = st.verified
		}
		var branch seal.SnapshotName
		listed := map[seal.SnapshotName]bool{} // of those that matter below
		for _, o := range list {
			n, ok := seal.ParseSnapshotPath(below(d.info.Folder, o.Name))
			if !ok {
				continue
			}
			if d.foreign(n) {
				err := d.foreignError(p, n)
				b.setPlace(p.Address, HealthOtherDevice, err)
				other = cmp.Or(other, err)
				break
			}
			if n == verified || d.index(n) >= 0 {
				listed[n] = true
			}
			if d.beside(n) && n.Compare(branch) > 0 {
				branch = n
			}
		}
		b.setBranch(p, branch)
		if other == nil {
			looks[i].err = b.lookForLoss(ctx, p, listed)
		}
		if other == nil && looks[i].whole && looks[i].err == nil {
			if looks[i].err = b.lookForHoles(ctx, p, list); looks[i].err == nil {
				b.looked[p.Address], b.listed[p.Address] = time.Now(), len(list)
				b.forgetHeld(p, list)
			}
		}
	}
	if other != nil {
		return nil, errors.Join(other, d.savePlaces())
	}
	return looks, nil
}

const (
	// wholeLook is how often a place is listed whole, and not its snapshots only.
	wholeLook = time.Hour
	// smallLook is how many objects a place may have to be listed whole every time: so
	// many come in one page, which costs no more, where no folder is asked for by itself.
	smallLook = 1000
)

// lookWhole reports whether a place should be listed whole: the first time that this
// process looks, every hour, and always if it is small.
func (b *Backup) lookWhole(p store.Place) bool {
	if b.looked == nil {
		b.looked, b.listed = map[string]time.Time{}, map[string]int{}
	}
	last, ok := b.looked[p.Address]
	return !ok || time.Since(last) > wholeLook || !p.Walks && b.listed[p.Address] <= smallLook
}

// forgetHeld makes what was read back in a place, on the way to a newer state, and is not
// listed there any more, be sent again.
func (b *Backup) forgetHeld(p store.Place, list []store.Object) {
	st := b.dev.places[p.Address]
	if st == nil || len(st.held) == 0 {
		return
	}
	there := make(map[string]bool, len(list))
	for _, o := range list {
		there[below(b.dev.info.Folder, o.Name)] = true
	}
	maps.DeleteFunc(st.held, func(path string, _ bool) bool { return !there[path] })
}

// maxHoles is how many objects that a listing lacks are asked for by name.
const maxHoles = 16

// lookForHoles compares a whole listing with what the place is known to hold. An
// object that is gone means that the place counts for nothing until all was put
// there again (R8). A listing may lag, so what it lacks is asked for by name.
func (b *Backup) lookForHoles(ctx context.Context, p store.Place, list []store.Object) error {
	d := b.dev
	st := d.places[p.Address]
	if st == nil || st.verified.IsZero() {
		return nil // Everything is on its way there.
	}
	late := d.late(st.verified)
	there := make(map[string]bool, len(list))
	for _, o := range list {
		there[below(d.info.Folder, o.Name)] = true
	}
	if !there[seal.ReadmeName] || !there[seal.HintName] {
		if err := b.pushHints(ctx, p.Store); err != nil {
			return err
		}
	}
	asked, slots := 0, len(d.slots) // ways in that may be had
	for _, path := range d.liveObjects(0) {
		if there[path] || late[path] {
			continue
		}
		if asked++; asked > maxHoles {
			return nil // It lags; Check finds out.
		}
		_, err := p.Store.Get(ctx, d.info.Folder+"/"+path, hashOf(path), seal.MaxObject)
		switch {
		case errors.Is(err, store.ErrNotExist):
			err = ErrMissing
		case errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrTooLarge):
			err = seal.ErrDamaged
		default:
			if err != nil {
				return err
			}
			continue
		}
		if isSlot(path) {
			if _, local := errors.AsType[*localError](b.have(ctx, path)); local {
				if slots--; slots > 0 {
					continue // Nobody has it any more: nothing could be put back.
				}
			}
		}
		b.cfg.Logger.Warn("place lost what it held", "store", p.Address, "object", path, "err", err)
		b.setPlace(p.Address, healthOf(err), fmt.Errorf("object %s: %w", path, err))
		b.change(st.lose)
		return nil
	}
	return nil
}

// have returns nil if the sealed object of a path can be had.
func (b *Backup) have(ctx context.Context, path string) error {
	_, err := b.sealed(ctx, path)
	return err
}

// lookForLoss compares the snapshots that a place lists with those that it is
// known to hold. If one is gone, the folder was emptied or put back to an older
// day: the place then counts for nothing until all was put there again (R8). A
// listing may lag, so the place is asked for the snapshot before that.
func (b *Backup) lookForLoss(ctx context.Context, p store.Place, listed map[seal.SnapshotName]bool) error {
	d := b.dev
	st := d.places[p.Address]
	if st == nil || st.verified.IsZero() {
		return nil
	}
	n := st.verified
	for _, s := range d.chain[:d.index(n)+1] {
		if !listed[s.name] {
			n = s.name
			break
		}
	}
	if listed[n] {
		return nil
	}
	_, err := p.Store.Get(ctx, d.info.Folder+"/"+n.Path(), n.Hash, seal.MaxObject)
	switch {
	case errors.Is(err, store.ErrNotExist):
		err = ErrMissing
	case errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrTooLarge):
		err = seal.ErrDamaged
	default:
		return err
	}
	b.cfg.Logger.Warn("place lost what it held", "store", p.Address, "generation", n.Generation, "err", err)
	b.setPlace(p.Address, healthOf(err), fmt.Errorf("object %s: %w", n.Path(), err))
	b.change(st.lose)
	return nil
}

// below returns the part of an object's name below the folder, "" if it is not in
// there.
func below(folder, name string) string {
	rest, ok := strings.CutPrefix(name, folder+"/")
	if !ok {
		return ""
	}
	return rest
}

// foreign reports whether a snapshot means that this device is not the only
// writer: a later epoch, another device in its own, or a newer or other
// snapshot of its own than it wrote.
func (d *device) foreign(n seal.SnapshotName) bool {
	switch {
	case d.strangers[n]:
		return false
	case n.Epoch != d.key.Epoch():
		return n.Epoch > d.key.Epoch()
	case n.Device != d.key.Device():
		return true
	case n.Generation >= d.chain[0].name.Generation:
		return d.index(n) < 0
	}
	return !d.wroteBefore(n)
}

// foreignError says what a foreign snapshot means.
func (d *device) foreignError(p store.Place, n seal.SnapshotName) error {
	if n.Epoch == seal.MaxEpoch {
		return fmt.Errorf("%w: %w, as %s in %s says, unless somebody put that file there", ErrOtherDevice, ErrEnded, n.Path(), p.Address)
	}
	return fmt.Errorf("%w: device %s wrote generation %d in epoch %d in %s, or somebody put the file %s there; this device is %s in epoch %d",
		ErrOtherDevice, n.Device, n.Generation, n.Epoch, p.Address, n.Path(), d.key.Device(), d.key.Epoch())
}

// beside reports whether a snapshot that is not foreign is in no history of this device's:
// an older one wrote it after the history had left its epoch (R16).
func (d *device) beside(n seal.SnapshotName) bool {
	return n.Epoch < d.key.Epoch() && !d.strangers[n] && beside(n, d.head(), d.past)
}

// setBranch records which snapshot beside the history a place lists.
func (b *Backup) setBranch(p store.Place, n seal.SnapshotName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	st := b.place(p.Address)
	if !n.IsZero() && st.branch != n {
		b.cfg.Logger.Warn("place holds a branch", "store", p.Address, "snapshot", n)
	}
	st.branch = n
}

// setPlace records how a place stands. What was verified there stays.
func (b *Backup) setPlace(address string, h Health, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	st := b.place(address)
	if st.health == HealthOtherDevice && err != nil && !h.lost() {
		return // Until the place is seen without the other device.
	}
	st.health, st.err = h, err
}

// place returns what is known of a place, to be changed. The caller holds mu.
func (b *Backup) place(address string) *placeState {
	st := b.dev.places[address]
	if st == nil {
		st = &placeState{health: HealthUnknown}
		b.dev.places[address] = st
	}
	return st
}

// sync brings to every place what it lacks, in order, each object read back and
// compared before the next (R1). It returns ErrNotProtected with the first
// reason unless enough places then hold the newest snapshot.
func (b *Backup) sync(ctx context.Context, looks []look) error {
	d := b.dev
	if b.freshDue(looks) {
		if _, err := b.checkpoint(false); err != nil { // Then it goes without.
			b.cfg.Logger.Warn("making a checkpoint for a place", "err", err)
		}
	}
	var errs []error
	verified, apart := false, false
	pushed := make([]bool, len(looks))
	failed := make([]error, len(looks))
	b.cfg.atPlaces(len(looks), func(i int) {
		if failed[i] = looks[i].err; failed[i] == nil {
			pushed[i], failed[i] = b.push(ctx, looks[i].place)
		}
	})
	for i, l := range looks {
		verified = verified || pushed[i]
		if err := failed[i]; err != nil {
			apart = apart || errors.Is(err, errApart) && (d.places[l.place.Address].lost || b.mayFreshen(l.place))
			b.setPlace(l.place.Address, healthOf(err), err)
			errs = append(errs, fmt.Errorf("%s: %w", l.place.Address, err))
			b.cfg.Logger.Warn("place is behind", "store", l.place.Address, "generation", d.head().Generation, "err", err)
		}
	}
	if apart {
		if _, err := b.checkpoint(false); err == nil {
			return b.sync(ctx, looks) // once: what it lacks is one snapshot now
		}
	}
	errs = append(errs, b.finishRemovals(ctx, looks)...)
	ok := b.held()
	if ok && verified {
		b.change(func() { d.verified = b.cfg.Now() })
	}
	if ok {
		if err := b.anchor(ctx); err != nil {
			return errors.Join(err, d.savePlaces())
		}
	}
	b.settleExposed()
	if err := d.savePlaces(); err != nil {
		return fmt.Errorf("%w: recording it on this device: %w", ErrNotProtected, err)
	}
	if ok {
		if again := b.settlePIN(ctx); again {
			return b.sync(ctx, looks)
		}
	}
	b.tidy()
	if len(b.dev.removed) > 0 && ok {
		if len(errs) == 0 {
			errs = append(errs, errors.New("it goes with the next change"))
		}
		return fmt.Errorf("%w: a slot was removed and is still there: %w", ErrNotProtected, errors.Join(errs...))
	}
	if !ok {
		if len(errs) == 0 {
			errs = append(errs, errors.New("too few places"))
		}
		return fmt.Errorf("%w: %w", ErrNotProtected, errors.Join(errs...))
	}
	if d.anchor.dead && d.pinOnly() {
		return fmt.Errorf("%w: the PIN is the only way in, and opens nothing any more: %w", ErrNotProtected, guard.ErrErased)
	}
	if !b.protected() {
		return fmt.Errorf("%w: the PIN is the only way in, and not all key servers know of it: %w", ErrNotProtected, guard.ErrPending)
	}
	return nil
}

// maxGarbage is how many bytes this device keeps for nothing before it sweeps.
const maxGarbage = 32 << 20

// tidy keeps the device's directory small. Its failure harms nothing.
func (b *Backup) tidy() {
	err := b.dev.compact()
	if err == nil && (len(b.dev.chain) == 1 || b.dev.garbage > maxGarbage) {
		err = b.dev.sweep(b.cfg.Places)
	}
	if err != nil {
		b.cfg.Logger.Warn("tidying this device's directory", "err", err)
	}
}

// push brings one place up to date and reports whether anything was read back
// and compared for it.
func (b *Backup) push(ctx context.Context, p store.Place) (verified bool, err error) {
	d := b.dev
	var st *placeState
	var steps []step
	apart := false
	b.change(func() { // What it looks up is remembered, and other places look too.
		st = b.place(p.Address)
		apart = d.index(st.verified) < 0 && len(d.chain) > 1
		if st.verified != d.head() {
			steps = d.missingFrom(st.verified)
		}
	})
	if st.verified == d.head() {
		b.setPlace(p.Address, HealthProtected, nil)
		return false, nil
	}
	if st.verified.IsZero() {
		if err := b.pushHints(ctx, p.Store); err != nil {
			return false, err
		}
	}
	total, done, lost := 0, 0, 0
	for _, s := range steps {
		total += len(s.objects)
	}
	for _, s := range steps {
		for _, path := range s.objects {
			if _, ok := seal.ParseSnapshotPath(path); ok && apart {
				if !b.hasHead(ctx, p) {
					return verified, errApart
				}
				apart = false // Nothing that is put back is newer.
			}
			if n, ok := seal.ParseSlotPath(path); ok && !slices.Contains(d.slots, n) {
				continue // It was removed since.
			}
			if !st.held[path] {
				err := b.pushObject(ctx, p, path, Progress{Stage: Uploading, Place: p.Address, Done: done, Total: total})
				if _, local := errors.AsType[*localError](err); local && isSlot(path) && lost+1 < len(d.slots) {
					// A way in that nobody has any more; another one is left.
					lost++
					b.cfg.Logger.Warn("a slot is lost", "object", path, "err", err)
					continue
				}
				if err != nil {
					return verified, fmt.Errorf("object %s: %w", path, err)
				}
				if st.held == nil {
					st.held = map[string]bool{}
				}
				st.held[path] = true
			}
			done++
			b.cfg.progress(Uploading, p.Address, done, total)
		}
		// If we crash here the place has the step and we do not know: it is
		// sent again, the same bytes.
		b.change(func() {
			st.verified, st.at, st.health, st.err, st.held = s.name, b.cfg.Now(), HealthProtected, nil, nil
		})
		verified = true
	}
	if st.lost && verified {
		b.change(func() {
			st.lost = false
			b.healed = append(b.healed, p.Address)
		})
		b.cfg.Logger.Info("put back what a place had lost", "store", p.Address)
	}
	return verified, nil
}

// hasHead reports whether the newest snapshot can be read in a place.
func (b *Backup) hasHead(ctx context.Context, p store.Place) bool {
	path := b.dev.head().Path()
	data, err := b.dev.object(hashOf(path))
	return err == nil && b.readsBack(ctx, p, b.dev.info.Folder+"/"+path, data) == nil
}

// pushHints writes what helps people to find and understand the folder. Both
// are trusted for nothing, so others standing there already are no error.
func (b *Backup) pushHints(ctx context.Context, st store.Store) error {
	for name, data := range b.dev.hints() {
		err := st.Put(ctx, b.dev.info.Folder+"/"+name, data)
		if err != nil && !errors.Is(err, store.ErrExist) {
			return fmt.Errorf("object %s: %w", name, err)
		}
	}
	return nil
}

// sealed returns the sealed object of a path: this device's copy or, if that is
// lost or damaged, that of a place, which is kept here again.
func (b *Backup) sealed(ctx context.Context, path string) ([]byte, error) {
	hash := hashOf(path)
	data, err := b.dev.object(hash)
	if err == nil {
		return data, nil
	}
	b.cfg.Logger.Warn("this device's copy of an object cannot be read", "object", path, "err", err)
	var unknown error
	for _, p := range b.cfg.Places {
		data, getErr := p.Store.Get(ctx, b.dev.info.Folder+"/"+path, hash, seal.MaxObject)
		switch {
		case getErr == nil && hash.Matches(data):
			return data, b.dev.putObject(hash, data)
		case getErr == nil, errors.Is(getErr, store.ErrNotExist), errors.Is(getErr, store.ErrDamaged), errors.Is(getErr, store.ErrTooLarge):
		default:
			unknown = cmp.Or(unknown, fmt.Errorf("%s: %w", p.Address, getErr))
		}
	}
	if unknown != nil {
		return nil, fmt.Errorf("this device's copy is lost, and a place that may have it does not answer: %w", unknown)
	}
	return nil, &localError{err}
}

// localError is an error of this device's own copy of something, and says nothing
// about a place.
type localError struct{ err error }

func (e *localError) Error() string {
	return "this device's copy, and no place has it: " + e.err.Error()
}
func (e *localError) Unwrap() error { return e.err }

// pushObject puts one object, fetches it again by name and compares; at is how far the
// upload is.
func (b *Backup) pushObject(ctx context.Context, p store.Place, path string, at Progress) error {
	data, err := b.sealed(ctx, path)
	if err != nil {
		return err
	}
	return b.pushData(b.cfg.moving(ctx, at, int64(len(data))), p, path, data)
}

func (b *Backup) pushData(ctx context.Context, p store.Place, path string, data []byte) error {
	name := b.dev.info.Folder + "/" + path
	err := p.Store.Put(ctx, name, data)
	if err != nil && !errors.Is(err, store.ErrExist) {
		return err
	}
	if b.readsBack(ctx, p, name, data) == nil {
		return nil
	}
	// Bytes under this name that do not have the hash in it are torn: only who
	// has the right ones may replace them.
	if err := b.removeTorn(ctx, p.Store, name); err != nil {
		return err
	}
	if err := p.Store.Put(ctx, name, data); err != nil {
		return err
	}
	return b.readsBack(ctx, p, name, data)
}

// readsBack returns nil if the place gives back what was put.
func (b *Backup) readsBack(ctx context.Context, p store.Place, name string, data []byte) error {
	got, err := p.Store.Get(ctx, name, store.Sum(data), int64(len(data)))
	switch {
	case errors.Is(err, store.ErrNotExist):
		err = fmt.Errorf("the place said it had taken it: %w", ErrMissing)
	case errors.Is(err, store.ErrTooLarge), err == nil && !bytes.Equal(got, data):
		err = store.ErrDamaged
	}
	if err != nil {
		return fmt.Errorf("reading it back: %w", err)
	}
	return nil
}

// removeTorn deletes the objects of exactly this name, unless one of them has
// the hash in it.
func (b *Backup) removeTorn(ctx context.Context, st store.Store, name string) error {
	_, err := st.Get(ctx, name, hashOf(name), seal.MaxObject)
	if errors.Is(err, store.ErrNotExist) || err == nil {
		return nil
	}
	if !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrTooLarge) {
		return err
	}
	list, err := st.List(ctx, name)
	if err != nil {
		return err
	}
	for _, o := range list {
		if o.Name == name {
			if err := st.Delete(ctx, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// healthOf names the state of a place by the error that it gave.
func healthOf(err error) Health {
	if _, ok := errors.AsType[*localError](err); ok {
		return HealthFailed
	}
	for _, h := range []struct {
		err    error
		health Health
	}{
		{store.ErrSignIn, HealthSignIn},
		{store.ErrWrongAccount, HealthWrongAccount},
		{store.ErrFull, HealthFull},
		{store.ErrDamaged, HealthDamaged},
		{seal.ErrDamaged, HealthDamaged},
		{ErrMissing, HealthMissing},
		{errBehind, HealthBehind},
		{ErrOtherDevice, HealthOtherDevice},
		{store.ErrUnreachable, HealthUnreachable},
		{store.ErrListing, HealthUnreachable},
		{context.DeadlineExceeded, HealthUnreachable},
	} {
		if errors.Is(err, h.err) {
			return h.health
		}
	}
	return HealthFailed
}
