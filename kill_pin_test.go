package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/recordtest"
	"github.com/satchel-backup/satchel/keyserver/sqlite"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
)

// The PINs of a world, and its key servers: of the four the first three guard the old
// PIN, and the last three the new one.
const (
	oldPIN     = "3717"
	newPIN     = "9062"
	worldGuard = 4
)

// opAsk is a request to a key server, before it is answered and after it; the path
// names the server and what is asked.
const opAsk durable.Op = "ask"

// keyServers are the key servers of a world, in the process at work, so that a kill
// ends both sides at the same moment. What they keep stands in the world:
//
//	guard-<n>/master      the master key
//	guard-<n>/records.db  the records
type keyServers struct {
	dir  string
	late time.Duration // of the clocks: how long nothing happened

	mu   sync.Mutex // one request at a time, so that there is an order
	on   map[string]*keyserver.Server
	kept map[string]keyserver.Records
}

func newKeyServers(dir string) *keyServers {
	return &keyServers{dir: dir, on: map[string]*keyserver.Server{}, kept: map[string]keyserver.Records{}}
}

func guardName(i int) string { return fmt.Sprintf("https://guard-%d.example", i+1) }

// place returns the directory of a key server.
func (k *keyServers) place(name string) string {
	return filepath.Join(k.dir, strings.TrimSuffix(strings.TrimPrefix(name, "https://"), ".example"))
}

// master returns the master key of a key server, which is made when it is first needed.
func (k *keyServers) master(name string) (*keyserver.Master, error) {
	path := filepath.Join(k.place(name), "master")
	key, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		key = secret.Random(keyserver.MasterSize).Open()
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = os.WriteFile(path, key, 0o600)
		}
	}
	if err != nil {
		return nil, err
	}
	return keyserver.NewMaster(secret.New(key))
}

// server starts a key server from its files, unless it runs. The caller has the lock.
func (k *keyServers) server(ctx context.Context, name string) (*keyserver.Server, error) {
	if s := k.on[name]; s != nil {
		return s, nil
	}
	m, err := k.master(name)
	if err != nil {
		return nil, err
	}
	db, err := sqlite.Open(ctx, filepath.Join(k.place(name), "records.db"))
	if err != nil {
		return nil, err
	}
	k.kept[name] = db
	k.on[name], err = keyserver.New(ctx, keyserver.Config{Records: db, Master: m, Now: k.now})
	return k.on[name], err
}

func (k *keyServers) now() time.Time { return time.Now().Add(k.late) }

// close stops the key servers; they start again when they are asked.
func (k *keyServers) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, db := range k.kept {
		errs = append(errs, db.Close())
	}
	clear(k.on)
	clear(k.kept)
	return errors.Join(errs...)
}

// copy returns n key servers with the same records, in memory, whose clocks are later:
// what is guessed there costs nothing here.
func (k *keyServers) copy(n int, later time.Duration) (*keyServers, error) {
	ctx := context.Background()
	k.mu.Lock()
	defer k.mu.Unlock()
	c := newKeyServers("")
	c.late = k.late + later
	for i := range n {
		name := guardName(i)
		if _, err := k.server(ctx, name); err != nil {
			return nil, err
		}
		const most = 1000
		list, err := k.kept[name].Scan(ctx, keyserver.ID{}, most)
		if err != nil || len(list) == most {
			return nil, fmt.Errorf("%d records of %s: %w", len(list), name, err)
		}
		records := &recordtest.Memory{}
		for _, e := range list {
			if err := records.Put(ctx, keyserver.Write{ID: e.ID, Data: e.Data}); err != nil {
				return nil, err
			}
		}
		m, err := k.master(name)
		if err != nil {
			return nil, err
		}
		c.kept[name] = records
		if c.on[name], err = keyserver.New(ctx, keyserver.Config{Records: records, Master: m, Now: c.now}); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// accounts returns how many accounts the key servers keep, once those that were never
// confirmed have gone.
func (k *keyServers) accounts(n int) (map[string]int, error) {
	ctx := context.Background()
	c, err := k.copy(n, month)
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	for name, s := range c.on {
		if _, err := s.Tend(ctx); err != nil {
			return nil, err
		}
		list, err := c.kept[name].Scan(ctx, keyserver.ID{}, 1000)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if len(e.Data) > 200 { // Others say only where an account is.
				counts[name]++
			}
		}
	}
	return counts, nil
}

// client returns a client of the key servers that calls the hook before and after each
// request.
func (k *keyServers) client(hook func(durable.Step) error) *guard.Client {
	return &guard.Client{
		Transport: &wireless{k, hook}, Trusted: func(string) bool { return true }, Now: k.now,
		Patience: time.Hour, // Who is asked does not depend on how busy this machine is.
		KDF:      &guard.KDF{Passes: 1, Lanes: 1, Memory: 8 << 10},
	}
}

// wireless is a guard.Transport to key servers in this process.
type wireless struct {
	*keyServers
	hook func(durable.Step) error
}

// Send implements guard.Transport.
func (l *wireless) Send(ctx context.Context, server string, request []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := protocol.ParseRequest(request)
	if err != nil {
		return nil, err
	}
	what := strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", r.Payload), "protocol."))
	step := durable.Step{Op: opAsk, Path: filepath.Join(l.place(server), what)}
	if l.hook != nil {
		if err := l.hook(step); err != nil {
			return nil, err
		}
	}
	s, err := l.server(ctx, server)
	if err != nil {
		return nil, err
	}
	reply := s.Answer(ctx, request, "")
	if step.Done = true; l.hook != nil {
		err = l.hook(step)
	}
	return reply, err
}

// plan returns what makes a PIN.
func plan(typed string) satchel.PINPlan {
	p := satchel.PINPlan{PIN: pin(typed), Threshold: 2}
	first := 0
	if typed == newPIN {
		first = 1
	}
	for i := range 3 {
		p.Servers = append(p.Servers, guardName(first+i))
	}
	return p
}

// pinsOf returns how many PIN slots a device has.
func pinsOf(b *satchel.Backup) (n int) {
	for _, s := range b.Slots() {
		if s.Kind == slot.KindPIN {
			n++
		}
	}
	return n
}

func (w *setting) setPIN(typed string) error {
	return w.owner(func(b *satchel.Backup, o *satchel.Owner) error {
		were := pinsOf(b)
		info, err := o.SetPIN(context.Background(), plan(typed))
		w.SlotID = info.ID
		return w.acknowledged(b, err, 1-were)
	})
}

// preparePIN makes a wallet with some history and the old PIN.
func preparePIN(w *setting) error {
	w.Guards = worldGuard
	return cmpErr(prepareSaves(w, 2), func() error { return w.setPIN(oldPIN) })
}

func doChangePIN(w *setting) error { return w.setPIN(newPIN) }

// changeAgain is what the user does whose change of the PIN was cut off: every other one
// changes it again at once. The others let the wallet go on by itself, and change it again
// only if that did not bring it to its end: with the old PIN, if there was one. Half of
// them come back when accounts that were not confirmed are gone.
func changeAgain(w *setting, old string) error {
	if w.killed/2%2 == 1 {
		w.servers.late = month
	}
	done := false
	if w.killed%2 == 0 {
		err := w.open(func(b *satchel.Backup) error {
			if err := bringUp(b); err != nil {
				return err
			}
			done = pinsOf(b) == 1 && !b.Status().PINPending
			return nil
		})
		if err != nil {
			return err
		}
		if done {
			cfg, err := w.config(w.Device)
			if err != nil {
				return err
			}
			_, err = w.typed(newPIN, cfg.Places, 0)
			done = err == nil
		}
		if !done && old != "" {
			cfg, err := w.config(w.Device)
			if err != nil {
				return err
			}
			_, oldErr := w.typed(old, cfg.Places, 0)
			_, newErr := w.typed(newPIN, cfg.Places, 0)
			if oldErr != nil && newErr != nil {
				return fmt.Errorf("after Sync neither PIN opens: %w, %w", oldErr, newErr)
			}
		}
	}
	if done {
		return nil
	}
	return doChangePIN(w)
}

func doRestorePIN(w *setting) error {
	ctx := context.Background()
	cfg, err := w.config(w.Device)
	if err != nil {
		return err
	}
	found, err := satchel.Find(ctx, cfg)
	if err != nil {
		return err
	}
	slots, err := found[0].PINSlots(ctx)
	if err != nil || len(slots) == 0 {
		return fmt.Errorf("%d PIN slots: %w", len(slots), err)
	}
	o, _, err := found[0].OpenPIN(ctx, slots[0], pin(oldPIN), secret.Bytes{})
	if err != nil {
		return err
	}
	b, _, err := o.Restore(ctx, cfg, satchel.RestoreOptions{})
	if b == nil {
		return err
	}
	defer b.Close()
	w.take(b)
	return w.acknowledged(b, err, 0)
}

// month is longer than an account waits to be confirmed.
const month = 30 * 24 * time.Hour

// typed restores like one who has nothing but a PIN, some time later. The key servers are
// copied for it.
func (w *setting) typed(typed string, places []store.Place, later time.Duration) (state, error) {
	ctx := context.Background()
	servers, err := w.servers.copy(w.Guards, later)
	if err != nil {
		return state{}, fmt.Errorf("copying the key servers: %w", err)
	}
	found, err := satchel.Find(ctx, satchel.Config{Settle: -1, Places: places, Guardians: servers.client(nil)})
	if err != nil {
		return state{}, err
	}
	errs := []error{satchel.ErrNoSlot}
	for i := range found {
		slots, err := found[i].PINSlots(ctx)
		if err != nil {
			errs = append(errs, err)
		}
		for _, s := range slots {
			o, _, err := found[i].OpenPIN(ctx, s, pin(typed), secret.Bytes{})
			if err != nil {
				errs = append(errs, err)
				continue
			}
			p := o.Preview()
			if p.Problem != nil {
				return state{}, fmt.Errorf("the PIN opens it, and %w", p.Problem)
			}
			values, err := valuesOf(o)
			return state{p.Generation, len(p.Slots), values}, err
		}
	}
	return state{}, errors.Join(errs...)
}

// pins are the PINs of before and after an operation; "" is none.
type pins struct{ old, new string }

// pinned looks at the PINs of a world in which a process was killed.
func (s *killing) pinned(t *testing.T, w *setting, acked bool) {
	t.Helper()
	cfg, err := w.config(w.Device)
	if err != nil {
		t.Fatal(err)
	}
	for _, later := range []time.Duration{0, month} {
		if s.pins.old == "" || s.pins.new == "" {
			break
		}
		_, oldErr := w.typed(s.pins.old, cfg.Places, later)
		_, newErr := w.typed(s.pins.new, cfg.Places, later)
		if oldErr != nil && newErr != nil {
			t.Errorf("%v later neither the old PIN opens: %v; nor the new one: %v", later, oldErr, newErr)
		}
	}
	if acked {
		s.settled(t, w, cfg.Places)
	}
}

// settled looks at what opens after an operation ended: the new PIN, and not the old one,
// from a copy of the places that is older either.
func (s *killing) settled(t *testing.T, w *setting, places []store.Place) {
	t.Helper()
	if s.pins.new != "" {
		if _, err := w.typed(s.pins.new, places, 0); err != nil {
			t.Errorf("the new PIN: %v", err)
		}
	}
	if s.pins.old == s.pins.new || s.pins.old == "" {
		return
	}
	if got, err := w.typed(s.pins.old, places, 0); err == nil {
		t.Errorf("the old PIN opens %v", got)
	}
	before, err := s.world.config("a")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := w.typed(s.pins.old, before.Places, 0); err == nil {
		t.Errorf("a copy of the old slot opens with the old PIN: %v", got)
	}
}

// endedAccounts looks at the accounts of the old PIN when all is told: there is none.
func (s *killing) endedAccounts(t *testing.T, w *setting) {
	t.Helper()
	if s.pins.old == "" || s.pins.old == s.pins.new {
		return
	}
	before, err := s.world.config("a")
	if err != nil {
		t.Fatal(err)
	}
	found, err := satchel.Find(t.Context(), satchel.Config{Settle: -1, Places: before.Places, Guardians: w.servers.client(nil)})
	if err != nil {
		t.Fatal(err)
	}
	slots, err := found[0].PINSlots(t.Context())
	if err != nil || len(slots) != 1 || len(slots[0].Standing) != 3 {
		t.Fatalf("%+v, %v", slots, err)
	}
	for _, g := range slots[0].Standing {
		if !errors.Is(g.Err, guard.ErrGone) {
			t.Errorf("in the end the old account is there: %+v", g)
		}
	}
}

// pinnedEnd looks at the PINs of a world after the user went on.
func (s *killing) pinnedEnd(t *testing.T, w *setting, end state) {
	t.Helper()
	cfg, err := w.config(w.Device)
	if err != nil {
		t.Fatal(err)
	}
	s.settled(t, w, cfg.Places)
	s.endedAccounts(t, w)
	want := 1
	if s.pins.new == "" {
		want = 0
	}
	for _, set := range alone(cfg.Places) {
		got, err := w.typed(s.pins.new, set, 0)
		if want > 0 && (err != nil || got.Generation != end.Generation || !got.same(end)) {
			t.Errorf("in the end a stranger with the PIN has %v, %v, want %v", got, err, end)
		}
	}
	err = w.open(func(b *satchel.Backup) error {
		// What ended an earlier PIN may have been cut off before it was written down.
		if err := bringUp(b); err != nil {
			return err
		}
		st := b.Status()
		accounts, err := w.servers.accounts(w.Guards)
		if err != nil {
			return err
		}
		wanted := map[string]int{}
		for _, name := range plan(s.pins.new).Servers {
			if want > 0 && !slices.Contains(st.PINLost, name) {
				wanted[name] = 1
			}
		}
		if d := cmp.Diff(wanted, accounts); d != "" {
			t.Errorf("in the end the key servers have other accounts than those of the PIN (-want +got): %s", d)
		}
		if st.PINPending || len(st.PINEnding) > 0 || st.Anchored != (want > 0) || st.AnchorErr != nil {
			t.Errorf("in the end: %+v", st)
		}
		if got := pinsOf(b); got != want {
			t.Errorf("in the end it lists %d PIN slots, want %d", got, want)
		}
		for _, p := range cfg.Places {
			if got := len(objects(t, p.Store, st.Folder+"/slots/pin-")); got != want {
				t.Errorf("in the end %s has %d PIN slots, want %d", p.Address, got, want)
			}
		}
		slots, err := b.PINSlots(context.Background())
		for _, p := range slots {
			if p.Err != nil || !slices.Equal(p.Servers, plan(s.pins.new).Servers) {
				t.Errorf("in the end: %+v", p)
			}
			for _, g := range p.Standing {
				// One whose account expired before it could be told is named, and not needed.
				if slices.Contains(st.PINLost, g.Server) {
					continue
				}
				if g.Err != nil || g.Damaged || g.State != protocol.StateActive {
					t.Errorf("in the end: %+v", g)
				}
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
