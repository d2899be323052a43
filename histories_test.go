package satchel_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/storetest"
)

// event is one thing that happens. What it says of devices and places is taken
// modulo what there is, so that a history from which events are left out is a
// history too.
type event struct {
	do   string
	p    int    // a device
	i    int    // a place
	mask int    // of places
	seed uint64 // for the rest
	kill int    // the step at which the process is killed; less than 0 never
}

// weights says how often things happen.
var weights = []struct {
	do string
	n  int
}{
	{"save", 30}, {"sync", 6}, {"check", 7}, {"restart", 4}, {"restore", 9}, {"lose", 2}, {"forget", 2},
	{"compact", 4}, {"prune", 3}, {"owner's prune", 2}, {"revert", 2}, {"add slot", 1}, {"remove slot", 1}, {"places", 3}, {"away", 10}, {"back", 6}, {"fault", 9}, {"lift", 7},
	{"objects gone", 4}, {"emptied", 1}, {"copy", 3}, {"put back", 2}, {"spoil", 2}, {"clock", 1},
}

// newHistory returns a random history.
func newHistory(seed uint64) []event {
	rnd := rand.New(rand.NewPCG(seed, 0))
	total := 0
	for _, w := range weights {
		total += w.n
	}
	list := make([]event, 20+rnd.IntN(20))
	for k := range list {
		e := event{p: rnd.IntN(phones), i: rnd.IntN(spots), mask: 1 + rnd.IntN(1<<spots-1), seed: rnd.Uint64(), kill: -1}
		n := rnd.IntN(total)
		for _, w := range weights {
			if n -= w.n; n < 0 {
				e.do = w.do
				break
			}
		}
		if rnd.IntN(6) == 0 {
			e.kill = rnd.IntN(70)
		}
		list[k] = e
	}
	return list
}

// play lets a history happen in a new world and returns what happened, a line an
// event, up to the first rule that is broken.
func play(dir string, seed uint64, events []event) (lines []string, err error) {
	w, err := newWorld(dir, 1+int(seed%spots))
	if err != nil {
		return nil, fmt.Errorf("at the start: %w", err)
	}
	defer w.close()
	for k, e := range events {
		w.rnd = rand.New(rand.NewPCG(e.seed, 1))
		line, err := w.happen(e)
		if e.kill >= 0 && strings.Contains(line, "killed") {
			line += fmt.Sprintf(" at step %d", e.kill)
		}
		lines = append(lines, fmt.Sprintf("%2d. %s", k+1, line))
		if err != nil {
			return lines, err
		}
	}
	w.rnd = rand.New(rand.NewPCG(seed, 2))
	more, err := w.end()
	return append(lines, more...), err
}

// happen lets one event happen.
func (w *world) happen(e event) (line string, err error) {
	s, p := w.spots[e.i], w.phones[e.p]
	at := fmt.Sprintf("place %d: %s", e.i, e.do)
	ctx := context.Background()
	switch e.do {
	case "away", "back":
		p.away[e.i] = e.do == "away"
		return fmt.Sprintf("device %d: place %d is %s", p.id, e.i, e.do), nil
	case "fault":
		k := strikes()[w.rnd.IntN(len(strikes()))]
		for k.fault == storetest.Hang || k.fault == storetest.HangApplied {
			k = strikes()[w.rnd.IntN(len(strikes()))]
		}
		s.set(k.op, k.fault, k.once, w.rnd.IntN(2) == 0)
		return fmt.Sprintf("%s %v lies=%v", at, k, s.lies), nil
	case "lift":
		s.set("", storetest.None, false, false)
		return at, nil
	case "clock":
		w.now = w.now.Add(time.Duration(w.rnd.IntN(4*365)-2*365) * 24 * time.Hour)
		return "the clock jumps to " + w.now.UTC().Format(time.DateOnly), nil
	case "copy":
		s.copies = append(s.copies, s.st.Clone())
		return at, nil
	case "put back":
		if len(s.copies) == 0 {
			return at + ": no copy", nil
		}
		s.st = s.copies[w.rnd.IntN(len(s.copies))].Clone()
		w.hurt(e.i)
		return at, nil
	case "objects gone", "emptied", "spoil":
		list, err := s.st.List(ctx, "")
		if err != nil {
			return at, err
		}
		var names []string
		w.rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		if n := 1 + w.rnd.IntN(4); e.do != "emptied" {
			list = list[:min(n, len(list))]
		}
		for _, o := range list {
			if err := w.damage(s, o, e.do == "spoil"); err != nil {
				return at, err
			}
			names = append(names, strings.TrimPrefix(o.Name, w.folder+"/"))
		}
		if e.do == "emptied" {
			names = nil
		}
		w.hurt(e.i)
		return fmt.Sprintf("%s %s", at, strings.Join(names, " ")), nil
	case "restore":
		return w.restore(e)
	}

	// What follows is done by a device that has a wallet.
	live := slices.DeleteFunc(slices.Clone(w.phones), func(p *phone) bool { return p.b == nil })
	if len(live) == 0 {
		return w.restore(e)
	}
	p = live[e.p%len(live)]
	if w.rnd.IntN(2) == 0 { // The writer does more than those who are not any more.
		p = slices.MaxFunc(live, func(a, b *phone) int { return a.state.name.Compare(b.state.name) })
	}
	line = fmt.Sprintf("device %d: %s", p.id, e.do)
	var outcome string
	switch e.do {
	case "save":
		changes, next := w.changes(p)
		for _, c := range changes {
			line += fmt.Sprintf(" %s=%.6s(%d) required=%v removed=%v,", c.Name, c.Value, len(c.Value), c.Required, c.Remove)
		}
		outcome, err = w.act(p, e.kill, next, func() error {
			r, err := p.b.Save(ctx, changes...)
			if !p.life.dead && r.Protected != p.b.Status().Protected {
				w.broken = fmt.Errorf("the result says protected=%v, the status %v", r.Protected, !r.Protected)
			}
			return err
		})
	case "sync":
		outcome, err = w.act(p, e.kill, nil, func() error { _, err := p.b.Sync(ctx); return err })
	case "check":
		outcome, err = w.check(p, e.kill)
	case "restart":
		p.life.dead = true
		outcome, err = "", w.revive(p, nil)
	case "lose":
		p.b.Close()
		outcome, err = "", errors.Join(os.RemoveAll(filepath.Join(p.dir, "wallet")))
		p.b, p.keys = nil, &ring{}
	case "forget":
		p.life.left = e.kill
		err = p.b.Forget()
		if p.life.dead {
			if _, gone := satchel.ReadDevice(filepath.Join(p.dir, "wallet")); !errors.Is(gone, satchel.ErrNoDevice) {
				outcome, err = "killed", w.revive(p, nil)
				break
			}
			outcome, err = "killed and gone", nil
		}
		p.b.Close()
		p.b = nil
	case "add slot":
		way, _ := slot.NewRecoveryCode()
		outcome, err = w.act(p, e.kill, nil, func() error {
			ow, err := p.b.Unlock(ctx, w.way)
			if err != nil {
				return w.excuse(p, err)
			}
			_, err = ow.AddSlot(ctx, way)
			return err
		})
	case "remove slot":
		var id string
		for _, s := range p.b.Slots() {
			if !strings.Contains(w.main, s.ID) {
				id = s.ID
			}
		}
		if id == "" {
			outcome = "none"
			break
		}
		outcome, err = w.removeSlot(p, e.kill, id)
	case "compact":
		outcome, err = w.act(p, e.kill, nil, func() error { _, err := p.b.Compact(ctx); return err })
	case "prune", "owner's prune":
		keep, owner, branches := 1+w.rnd.IntN(3), e.do != "prune", w.rnd.IntN(3) == 0
		line += fmt.Sprintf(" keep=%d branches=%v", keep, owner && branches)
		outcome, err = w.prune(p, e.kill, keep, owner, owner && branches)
	case "revert":
		names := slices.SortedFunc(maps.Keys(w.states), func(a, b seal.SnapshotName) int { return cmp.Compare(a.String(), b.String()) })
		m := w.states[names[w.rnd.IntN(len(names))]]
		line += " to " + m.name.String()
		outcome, err = w.revert(p, e.kill, m)
	case "places":
		outcome, err = w.setPlaces(p, e.kill, e.mask, 1+w.rnd.IntN(spots))
	}
	return line + ": " + outcome, err
}

// removeSlot lets a device take a way in out of the backup.
func (w *world) removeSlot(p *phone, kill int, id string) (string, error) {
	for _, s := range w.spots {
		for _, path := range s.paths() {
			if strings.Contains(path, id) {
				w.gone[path] = true
			}
		}
	}
	for _, path := range p.b.Objects() {
		if strings.Contains(path, id) {
			w.gone[path] = true
		}
	}
	return w.act(p, kill, nil, func() error {
		ow, err := p.b.Unlock(context.Background(), w.way)
		if err != nil {
			return w.excuse(p, err)
		}
		err = ow.RemoveSlot(context.Background(), id)
		if err != nil && !errors.Is(err, satchel.ErrOtherDevice) {
			err = fmt.Errorf("%w: %w", satchel.ErrNotProtected, err)
		}
		return err
	})
}

// prune lets a device delete what only states older than the keep-th newest
// checkpoint need. What is not older must stay restorable from every place from which
// it was, and so must what other devices wrote, unless the owner says otherwise.
func (w *world) prune(p *phone, kill, keep int, owner, branches bool) (string, error) {
	type kept struct {
		i       int
		m       *made
		history bool
	}
	var before []kept
	for i, s := range w.spots {
		for _, m := range w.states {
			history := p.state.after(m.name)
			if w.lacks(m, i) == "" && (history || !branches && s.listing() == told) {
				before = append(before, kept{i, m, history})
			}
		}
	}
	// The channel backups of branches must not go with them (R21).
	channels := map[string][]*made{}
	for _, m := range w.states {
		if t, ok := m.things[scb]; ok && !t.lost && owner && branches && !p.state.after(m.name) &&
			slices.ContainsFunc(p.places, func(i int) bool { return w.lacks(m, i) == "" }) {
			channels[t.value] = append(channels[t.value], m)
		}
	}
	head := p.state.name
	p.prunes = true
	outcome, err := w.act(p, kill, nil, func() error {
		var done satchel.Pruned
		var err error
		if owner {
			var ow *satchel.Owner
			if ow, err = p.b.Unlock(context.Background(), w.way); err == nil {
				done, err = ow.Prune(context.Background(), satchel.PruneOptions{Keep: keep, Branches: branches})
			}
		} else {
			done, err = p.b.Prune(context.Background(), keep)
		}
		w.pruned += done.Objects
		return refuse(err)
	})
	p.prunes = false
	for value, states := range channels {
		there := slices.ContainsFunc(states, func(m *made) bool {
			return slices.ContainsFunc(p.places, func(i int) bool { return w.lacks(m, i) == "" })
		})
		kept := func(t thing) bool { return t.value == value }
		if err == nil && !there && !slices.ContainsFunc(slices.Collect(maps.Values(p.state.things)), kept) {
			err = fmt.Errorf("device %d pruned, and a channel backup of a branch is gone", p.id)
		}
	}
	// Checkpoints that were made for places which had to catch up count too.
	oldest, left := uint64(0), max(1, keep-max(0, int(p.state.name.Generation)-int(head.Generation)-1)) // the oldest generation that stays
	for m := p.state; m != nil && left > 0; m = m.parent {
		if owner && left < keep && !slices.ContainsFunc(p.places, func(i int) bool { return w.spots[i].has(m.name.Path()) }) {
			break // What is lost looks like an end that an earlier pruning made.
		}
		if len(m.chain) == 1 {
			if oldest, left = m.name.Generation, left-1; !owner && m.parent != nil && m.parent.name.Epoch != m.name.Epoch {
				break // It knows of no older ones.
			}
		}
	}
	present := func(i int) bool {
		gone := func(path string) bool { return !w.spots[i].lists(path) }
		torn := func(path string) bool { return !w.spots[i].has(path) }
		return !slices.ContainsFunc(p.state.paths, gone) && !slices.ContainsFunc(p.state.chain, torn)
	}
	for _, k := range before {
		if k.history && k.m.name.Generation < oldest && present(k.i) {
			continue
		}
		if s := w.spots[k.i]; outcome == "killed" && s.faulty() && s.op == storetest.Get {
			continue // What the place said to be torn was on its way back there.
		}
		if lacks := w.lacks(k.m, k.i); err == nil && lacks != "" {
			err = fmt.Errorf("device %d pruned, and place %d lacks %s of %s", p.id, k.i, lacks, k.m.name)
		}
	}
	return outcome, err
}

// revert lets a device bring an older state back.
func (w *world) revert(p *phone, kill int, m *made) (string, error) {
	next := maps.Clone(p.state.things)
	for name := range next {
		if !w.stays(name) {
			delete(next, name)
		}
	}
	for name, t := range m.things {
		if !w.stays(name) {
			t.lost = false
			next[name] = t
		}
	}
	pre := w.before(p)
	well := true
	for _, i := range p.places {
		well = well && pre.well[i]
	}
	possible := well && w.lacks(m, p.places...) == "" && !slices.ContainsFunc(slices.Collect(maps.Values(m.things)), func(t thing) bool { return t.lost })
	return w.act(p, kill, next, func() error {
		ow, err := p.b.Unlock(context.Background(), w.way)
		if err == nil {
			_, err = ow.Revert(context.Background(), m.name.String())
		}
		if possible && !p.life.dead && errors.Is(refuse(err), errRefused) {
			return err
		}
		return refuse(err)
	})
}

// stays reports whether an item is not brought back from an older state.
func (w *world) stays(name string) bool {
	return seal.OwnerItem(name) || strings.HasPrefix(name, "lightning/")
}

// errRefused says that nothing was changed, for one reason or another.
var errRefused = errors.New("refused")

// refuse turns an error that only says that nothing was done into errRefused.
func refuse(err error) error {
	if err == nil || errors.Is(err, satchel.ErrOtherDevice) || errors.Is(err, satchel.ErrNotProtected) {
		return err
	}
	return fmt.Errorf("%w: %w", errRefused, err)
}

// excuse turns the error of a secret that does not open into one that act knows, if
// it may be so: this device's copy of the slot is always there.
func (w *world) excuse(p *phone, err error) error {
	if slices.Contains(p.b.Objects(), w.main) || p.life.dead {
		return err
	}
	return fmt.Errorf("%w: %w", satchel.ErrNotProtected, err)
}

// hurt notes that a place lost something without any device's doing.
func (w *world) hurt(i int) {
	for _, p := range w.phones {
		p.hurt[i] = true
	}
}

// damage takes an object away, or changes a bit of it or cuts it.
func (w *world) damage(s *spot, o store.Object, keep bool) error {
	ctx := context.Background()
	data, err := s.st.Get(ctx, o.Name, "", store.MaxObject)
	if err != nil {
		return err
	}
	if err := s.st.Delete(ctx, o); err != nil || !keep {
		return err
	}
	if w.rnd.IntN(2) == 0 && len(data) > 0 {
		data[w.rnd.IntN(len(data))] ^= 1 << w.rnd.IntN(8)
	} else {
		data = data[:len(data)/2]
	}
	s.st.Add(o.Name, data)
	return nil
}

// changes returns random changes of a device's items, and what it shows after them.
func (w *world) changes(p *phone) ([]satchel.Change, map[string]thing) {
	next := maps.Clone(p.state.things)
	var list []satchel.Change
	names := []string{"labels", "settings", "contacts", "lightning/scb", "file/a", "file/b"}
	w.rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:1+w.rnd.IntN(3)] {
		w.count++
		c := satchel.Change{Name: name, Required: w.rnd.IntN(4) == 0}
		t, here := next[name]
		switch n := w.rnd.IntN(10); {
		case n < 2 && here:
			c.Remove, c.Required = true, false
			delete(next, name)
			list = append(list, c)
			continue
		case n < 3 && here && !t.lost:
			c.Value = []byte(t.value)
		case n < 6:
			c.Value = []byte(strings.Repeat(fmt.Sprintf("%05d", w.count), 600+w.rnd.IntN(100)))
		default:
			c.Value = []byte(strings.Repeat(fmt.Sprintf("%05d", w.count), 1+w.rnd.IntN(8)))
		}
		next[name] = thing{value: string(c.Value), required: c.Required}
		list = append(list, c)
	}
	return list, next
}

// check lets a device check its places.
func (w *world) check(p *phone, kill int) (string, error) {
	pre := w.before(p)
	p.life.left = kill
	rep, err := p.b.Check(context.Background())
	if p.life.dead {
		return "killed", w.revive(p, nil)
	}
	p.life.left = -1
	if p.b.Head() != p.state.name || len(p.wrote) > 0 {
		return "", fmt.Errorf("device %d checked, and made a new state or wrote %v", p.id, p.wrote)
	}
	found := map[string]error{}
	branch := map[string]bool{}
	for _, f := range rep.Findings {
		if errors.Is(f.Err, satchel.ErrBranch) {
			branch[f.Place] = true
			continue
		}
		found[f.Place] = errors.Join(found[f.Place], f.Err)
	}
	for _, i := range p.places {
		got := found[fmt.Sprint("mem:", i)]
		other := pre.told[i] && w.foreign(p, i)
		odd := slices.ContainsFunc(w.spots[i].paths(), func(path string) bool {
			_, ok := seal.ParseSlotPath(path)
			return ok && !slices.Contains(p.b.Objects(), path)
		})
		whole := w.lacks(p.state, i) == "" && !slices.ContainsFunc(p.b.Objects(), func(path string) bool { return !w.spots[i].has(path) })
		beside := slices.ContainsFunc(w.spots[i].snapshots(), func(n seal.SnapshotName) bool {
			return w.states[n] != nil && n.Epoch < p.state.name.Epoch && !p.state.after(n)
		})
		switch {
		case beside != branch[fmt.Sprint("mem:", i)] && pre.well[i] && !other:
			return "", fmt.Errorf("device %d checked place %d, where there is a branch=%v: %v", p.id, i, beside, err)
		case other != errors.Is(got, satchel.ErrOtherDevice) && !pre.unsure[i]:
			return "", fmt.Errorf("device %d checked place %d, where another device writes=%v: %v", p.id, i, other, got)
		case pre.well[i] && whole && !other && !odd && got != nil:
			return "", fmt.Errorf("device %d checked place %d, where all is well: %v", p.id, i, got)
		case !whole && got == nil:
			return "", fmt.Errorf("device %d checked place %d and found nothing, and it lacks something: %s", p.id, i, w.lacks(p.state, i))
		}
	}
	outcome := "clean"
	if err != nil {
		outcome = err.Error()
	}
	if bad := cmp.Or(w.broken, w.shows(p, p.state.things)); bad != nil {
		return "", bad
	}
	return outcome, w.claims(p, pre, false, true)
}

// setPlaces lets a device change its places to those of a mask.
func (w *world) setPlaces(p *phone, kill, mask, copies int) (string, error) {
	var places []store.Place
	var list []int
	for i := range w.spots {
		if mask>>i&1 == 1 {
			list = append(list, i)
			places = append(places, p.life.live(satchel.Config{Places: []store.Place{{Address: fmt.Sprint("mem:", i), Store: sight{p, w.spots[i], i}}}}).Places...)
		}
	}
	copies = min(copies, len(list))
	faulty := slices.ContainsFunc(list, func(i int) bool { return w.spots[i].faulty() })
	outcome, err := w.act(p, kill, nil, func() error {
		_, err := p.b.SetPlaces(context.Background(), places, copies)
		p.eyed = list
		if faulty { // A place that is listed and not read may be one that is there already.
			return refuse(err)
		}
		return err
	})
	if outcome != "killed" {
		p.places, p.copies = nil, p.b.Status().Copies
		for _, st := range p.b.Status().Places {
			p.places = append(p.places, placeOf(st.Address))
		}
	}
	return fmt.Sprintf("%v, %d copies: %s", list, copies, outcome), err
}

// sights are the places of a mask as a device sees them.
func (w *world) sights(p *phone, mask int) (list []int) {
	for i := range w.spots {
		if mask>>i&1 == 1 {
			list = append(list, i)
		}
	}
	return list
}

// restore lets a device take over from some places.
func (w *world) restore(e event) (string, error) {
	p := w.phones[e.p]
	if p.b != nil { // Another one if there is an empty one, or else this one was lost.
		for _, q := range w.phones[:phones] {
			if q.b == nil {
				p = q
			}
		}
	}
	line := fmt.Sprintf("device %d: restore from %v", p.id, w.sights(p, e.mask))
	if p.b != nil {
		line = fmt.Sprintf("device %d is lost; %s", p.id, line)
		p.b.Close()
		if err := os.RemoveAll(filepath.Join(p.dir, "wallet")); err != nil {
			return line, err
		}
		p.b, p.keys = nil, &ring{}
	}
	p.places = w.sights(p, e.mask)
	p.copies = 1 + w.rnd.IntN(len(p.places))
	outcome, err := w.takeOver(p, e.kill, w.rnd.IntN(4) > 0, w.rnd.IntN(4) == 0, w.rnd.IntN(2) == 0)
	return fmt.Sprintf("%s: %s", line, outcome), err
}

// takeOver restores to a device from its places. accept says that the user goes on
// in spite of a problem, branch that another state is chosen if one is offered, all
// that the device has all places from then on.
func (w *world) takeOver(p *phone, kill int, accept, branch, all bool) (string, error) {
	ctx := context.Background()
	// What a crash left beside the wallet is cleared away when it is old.
	old := time.Now().Add(-time.Hour)
	if dirs, _ := filepath.Glob(filepath.Join(p.dir, satchel.StagingPrefix+"*")); len(dirs) > 0 {
		for _, dir := range dirs {
			if err := os.Chtimes(dir, old, old); err != nil {
				return "", err
			}
		}
	}
	from := p.places
	cfg := w.config(p)
	pre := w.before(p)
	p.life.left = kill

	well, toldAll := true, true // of all places
	newest := seal.SnapshotName{}
	states := false // some state is whole in them
	for _, i := range from {
		well = well && pre.well[i]
		toldAll = toldAll && pre.told[i]
		if pre.told[i] {
			newest = slices.MaxFunc(append(w.spots[i].snapshots(), newest), seal.SnapshotName.Compare)
		}
	}
	for _, m := range w.states {
		states = states || w.lacks(m, from...) == ""
	}

	found, findErr := satchel.Find(ctx, cfg)
	if len(found) == 0 {
		switch {
		case p.life.dead:
			return "killed", nil
		case findErr == nil, !toldAll && !slices.ContainsFunc(from, func(i int) bool { return pre.unsure[i] }) && errors.Is(findErr, satchel.ErrNoBackup), well && states:
			return "", fmt.Errorf("device %d found nothing: %v", p.id, findErr)
		}
		return findErr.Error(), nil
	}
	if len(found) != 1 {
		return "", fmt.Errorf("device %d found %d backups", p.id, len(found))
	}
	o, err := found[0].Open(ctx, w.way)
	if err != nil {
		if well && states {
			return "", fmt.Errorf("device %d does not open: %v", p.id, err)
		}
		return err.Error(), nil
	}
	pv := o.Preview()
	chosen, err := w.chosen(pv)
	if err != nil {
		return "", err
	}
	if chosen.name.Compare(newest) < 0 && pv.Problem == nil {
		return "", fmt.Errorf("device %d is offered %s without a word, and %s is there", p.id, chosen.name, newest)
	}
	if !toldAll && findErr == nil && len(pv.Warnings) == 0 && pv.Problem == nil && !slices.ContainsFunc(from, func(i int) bool { return pre.unsure[i] }) {
		return "", fmt.Errorf("device %d is not told of the places that cannot be looked into", p.id)
	}
	if err := w.branches(from, pre, chosen, pv); err != nil {
		return "", fmt.Errorf("device %d: %w", p.id, err)
	}
	line := fmt.Sprintf("%s, problem: %v, %d warnings, %d others; ", chosen.name, pv.Problem, len(pv.Warnings), len(pv.Others))
	if branch && len(pv.Others) > 0 {
		other := pv.Others[w.rnd.IntN(len(pv.Others))]
		at, err := o.At(ctx, other.Snapshot)
		n, _ := seal.ParseSnapshotName(other.Snapshot)
		m := w.states[n]
		switch {
		case m == nil:
			return "", fmt.Errorf("device %d is offered %s, which nobody wrote", p.id, other.Snapshot)
		case err != nil && well && w.lacks(m, from...) == "":
			return "", fmt.Errorf("device %d cannot have %s: %v", p.id, other.Snapshot, err)
		case err == nil:
			o, pv = at, at.Preview()
			chosen = m
			line += fmt.Sprintf("instead %s; ", m.name)
		}
	}

	if all {
		p.places = []int{0, 1, 2}
	}
	into := w.config(p)
	p.life.left = kill
	// Both are one process.
	b, out, err := o.Restore(ctx, into, satchel.RestoreOptions{AcceptProblem: accept})
	things := maps.Clone(chosen.things)
	for name, t := range things {
		if t.lost = slices.Contains(out.Missing, name); t.lost && well && slices.ContainsFunc(from, func(i int) bool { return w.spots[i].has(chosen.in[name]) }) {
			return "", fmt.Errorf("device %d gave up item %s, and it is there", p.id, name)
		}
		things[name] = t
	}
	dead := p.life.dead
	if dead {
		if b != nil {
			b.Close()
		}
		if b, err = satchel.Open(w.config(p)); errors.Is(err, satchel.ErrNoDevice) {
			if len(p.wrote) > 0 {
				return "", fmt.Errorf("device %d is not restored, and wrote %v", p.id, p.wrote)
			}
			return line + "killed", nil
		} else if err != nil {
			return "", fmt.Errorf("device %d after a crash: %v", p.id, err)
		}
	}
	p.life.left = -1
	if b == nil {
		switch {
		case err == nil:
			return "", fmt.Errorf("device %d has no backup, and no error", p.id)
		case len(p.wrote) > 0:
			return "", fmt.Errorf("device %d is not restored, and wrote %v", p.id, p.wrote)
		case well && w.lacks(chosen, from...) == "" && (pv.Problem == nil || accept):
			return "", fmt.Errorf("device %d is not restored: %v", p.id, err)
		}
		return line + err.Error(), nil
	}
	if pv.Problem != nil && !accept {
		b.Close()
		return "", fmt.Errorf("device %d is restored in spite of %v", p.id, pv.Problem)
	}
	p.b, p.fresh, p.hurt = b, [spots]bool{}, [spots]bool{}
	// What lies beside the history of the newest may be in that of the chosen one.
	if all := w.withChannels(p, nil, things); len(all) > len(things) {
		if chain := p.b.Chain(); len(chain) > 1 { // Else the one before is needed by nobody.
			chosen = w.note(p, chain[:len(chain)-1], chosen, things)
		}
		things = all
	}
	p.state = w.observe(p, chosen, things)
	if p.state.name.Epoch <= newest.Epoch || p.state.name.Generation <= chosen.name.Generation {
		return "", fmt.Errorf("device %d begins with %s after %s", p.id, p.state.name, newest)
	}
	if dead {
		p.fresh = [spots]bool{true, true, true}
		return line + "killed", w.shows(p, things)
	}
	if out.Protected != b.Status().Protected {
		return "", fmt.Errorf("the outcome says protected=%v, the status %v", out.Protected, b.Status().Protected)
	}
	line += fmt.Sprintf("now %s: %v", p.state.name, err)
	if len(out.Missing) > 0 && b.Status().Protected {
		err = nil // It says what is missing, and is protected.
	}
	return line, w.judge(p, pre, err)
}

// chosen returns the state that a preview describes.
func (w *world) chosen(pv satchel.Preview) (*made, error) {
	n, err := seal.ParseSnapshotName(pv.Snapshot)
	if err != nil || w.states[n] == nil {
		return nil, fmt.Errorf("what is offered, %s, nobody wrote", pv.Snapshot)
	}
	m := w.states[n]
	for _, it := range pv.Items {
		if t, ok := m.things[it.Name]; !ok || it.Required != t.required || it.Size != int64(len(t.value)) {
			return nil, fmt.Errorf("%s has an item %+v, want %+v", n, it, t)
		}
	}
	if len(pv.Items) != len(m.things) {
		return nil, fmt.Errorf("%s has %d items, want %d", n, len(pv.Items), len(m.things))
	}
	return m, nil
}

// branches returns an error if there is a snapshot beside the history of the chosen state
// of which a preview does not tell.
func (w *world) branches(from []int, pre before, chosen *made, pv satchel.Preview) error {
	text := strings.Join(pv.Warnings, "\n")
	for _, i := range from {
		for _, n := range w.spots[i].snapshots() {
			if chosen.after(n) || w.states[n] == nil {
				continue
			}
			offered := slices.ContainsFunc(pv.Others, func(c satchel.Candidate) bool { return c.Snapshot == n.String() })
			var told bool
			if n.Epoch == chosen.name.Epoch {
				// Two claim to be the newest: the user has to decide.
				told = errors.Is(pv.Problem, satchel.ErrForked) ||
					pv.Problem != nil && (offered || n.Compare(chosen.name) >= 0 || strings.Contains(pv.Problem.Error(), n.Device.String()))
			} else {
				told = offered || pv.Problem != nil && n.Compare(chosen.name) > 0 || strings.Contains(text, fmt.Sprintf("epoch %d ", n.Epoch))
			}
			if !told && pre.well[i] && w.spots[i].has(n.Path()) {
				return fmt.Errorf("%s is offered, and place %d holds %s beside it, of which nothing is said: problem %v, warnings %s", chosen.name, i, n, pv.Problem, text)
			}
		}
	}
	return nil
}

// end lifts all faults and looks whether all comes to rest: one device that is the
// writer, and every place good for a restore on its own.
func (w *world) end() (lines []string, err error) {
	say := func(format string, args ...any) { lines = append(lines, "end: "+fmt.Sprintf(format, args...)) }
	for _, s := range w.spots {
		s.set("", storetest.None, false, false)
	}
	for _, p := range w.phones {
		p.away = [spots]bool{}
		if p.b == nil {
			continue
		}
		outcome, err := w.settle(p)
		say("device %d: %s", p.id, outcome)
		if err != nil {
			return lines, err
		}
	}
	// Whoever restores now, as the user wants it.
	p := w.phones[phones]
	p.places, p.copies = []int{0, 1, 2}, spots
	outcome, err := w.takeOver(p, -1, true, w.rnd.IntN(4) == 0, true)
	say("device %d: restore: %s", p.id, outcome)
	if err != nil {
		return lines, err
	}
	if p.b == nil {
		return lines, nil // There was nothing whole.
	}
	for _, p := range slices.Backward(w.phones) {
		if p.b == nil {
			continue
		}
		outcome, err := w.settle(p)
		say("device %d: %s", p.id, outcome)
		if err != nil {
			return lines, err
		}
		if other := strings.Contains(outcome, satchel.ErrOtherDevice.Error()); other != (p.id != phones) {
			return lines, fmt.Errorf("device %d, after device %d was restored: %s", p.id, phones, outcome)
		}
	}
	return lines, nil
}

// settle brings a device to rest when nothing fails any more. Unless another one
// writes, it is then protected in all places and each of them alone is enough.
func (w *world) settle(p *phone) (string, error) {
	ctx := context.Background()
	if outcome, err := w.setPlaces(p, -1, 1<<spots-1, spots); err != nil || strings.Contains(outcome, satchel.ErrOtherDevice.Error()) {
		return outcome, err
	}
	next := maps.Clone(p.state.things)
	var changes []satchel.Change
	for name, t := range next {
		if t.lost && seal.OwnerItem(name) {
			return "an item of the owner is lost", nil
		}
		if t.lost {
			changes = append(changes, satchel.Change{Name: name, Value: []byte("again"), Required: t.required})
			next[name] = thing{value: "again", required: t.required}
		}
	}
	if outcome, err := w.act(p, -1, next, func() error { _, err := p.b.Save(ctx, changes...); return err }); err != nil {
		return outcome, err
	}
	// A check finds what looks do not, and the next sync mends it.
	if outcome, err := w.check(p, -1); err != nil {
		return outcome, err
	}
	// Slots that were removed and came back with an older copy of a place go again,
	// and those of a branch that are lost are taken out of the list.
	again := map[string]bool{}
	for i := range w.spots {
		for _, path := range w.spots[i].paths() {
			again[path] = w.gone[path] && !slices.Contains(p.b.Objects(), path)
		}
	}
	for _, path := range p.b.Objects() {
		lost := !slices.ContainsFunc(w.spots[:], func(s *spot) bool { return s.has(path) }) && !p.keeps(path)
		again[path] = path != w.main && lost
	}
	for path := range again {
		if n, ok := seal.ParseSlotPath(path); ok && again[path] {
			if _, err := w.removeSlot(p, -1, n.ID.String()); err != nil {
				return "", err
			}
		}
	}
	w.now = w.now.Add(time.Minute) // A place that failed several times is let alone so long.
	outcome, err := w.act(p, -1, nil, func() error { _, err := p.b.Sync(ctx); return err })
	if err != nil || outcome != "protected" {
		return "", fmt.Errorf("device %d does not come to rest: %s, %v", p.id, outcome, err)
	}
	if outcome, err := w.check(p, -1); err != nil {
		return "", fmt.Errorf("device %d does not come to rest: check: %s, %v", p.id, outcome, err)
	}
	rep, err := p.b.Check(ctx)
	for _, f := range rep.Findings {
		if errors.Is(f.Err, satchel.ErrBranch) {
			continue
		}
		if n, ok := seal.ParseSlotPath(f.Object); !ok || slices.Contains(p.b.Objects(), n.Path()) {
			return "", fmt.Errorf("device %d does not come to rest: check: %v", p.id, err)
		} // It is of a branch.
	}
	for i := range w.spots {
		if err := w.reads(i, p.state.things); err != nil {
			return "", err
		}
	}
	return "protected everywhere", nil
}

// Nothing acknowledged is lost, no older state is chosen silently, and no fork goes
// unnoticed, whatever happens in whatever order (R1, R2, R4, R16).
//
// A history follows from its seed. SATCHEL_HISTORIES says how many are tried,
// SATCHEL_SEED with which seed to begin.
func TestHistories(t *testing.T) {
	count, seed := 3, uint64(1)
	if large() {
		count = 8
	}
	if s := os.Getenv("SATCHEL_HISTORIES"); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv("SATCHEL_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	run := func(seed uint64, events []event) (lines []string, err error) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			dir, tempErr := os.MkdirTemp("", "history")
			if tempErr != nil {
				t.Fatal(tempErr)
			}
			defer os.RemoveAll(dir)
			lines, err = play(dir, seed, events)
		})
		return lines, err
	}
	total, failures := 0, 0
	for n := range uint64(count) {
		events := newHistory(seed + n)
		total += len(events)
		lines, err := run(seed+n, events)
		if os.Getenv("SATCHEL_LINES") != "" {
			t.Log(strings.Join(lines, "\n"))
		}
		if err == nil {
			continue
		}
		// Events are left out as long as it still fails.
		for again := true; again; {
			again = false
			for k := len(events) - 1; k >= 0; k-- {
				fewer := slices.Delete(slices.Clone(events), k, k+1)
				if l, e := run(seed+n, fewer); e != nil {
					events, lines, err, again = fewer, l, e, true
				}
			}
		}
		t.Errorf("SATCHEL_SEED=%d: %v\n%s", seed+n, err, strings.Join(lines, "\n"))
		if failures++; failures == 3 {
			break
		}
	}
	t.Logf("%d histories from seed %d, %d events", count, seed, total)
}
