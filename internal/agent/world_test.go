package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/source"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
	"github.com/satchel-backup/satchel/wallet"
)

// Flushing is free on a file system in memory.
func TestMain(m *testing.M) {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		os.Setenv("TMPDIR", "/dev/shm")
	}
	os.Exit(m.Run())
}

// ring is a keychain in memory.
type ring struct {
	mu      sync.Mutex
	secrets map[string]string // guarded by mu
}

func (r *ring) Get(name string) (secret.Bytes, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.secrets[name]
	if !ok {
		return secret.Bytes{}, errors.New("no such secret")
	}
	return secret.FromString(s), nil
}

func (r *ring) Set(name string, s secret.Bytes) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.secrets == nil {
		r.secrets = map[string]string{}
	}
	r.secrets[name] = string(s.Open())
	return nil
}

func (r *ring) Delete(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.secrets, name)
	return nil
}

// feed is a source that hands over what the test says.
type feed struct {
	calls chan call
	fail  chan error
	runs  atomic.Int64
}

type call struct {
	changes []source.Change
	err     chan error
}

func (f *feed) Run(ctx context.Context, save func(ctx context.Context, changes ...source.Change) error) error {
	f.runs.Add(1)
	for {
		select {
		case c := <-f.calls:
			c.err <- save(ctx, c.changes...)
		case err := <-f.fail:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// world is a backup of one wallet, an agent at work on it, and all that is around
// it. It lives in a bubble of package synctest.
type world struct {
	*testing.T
	cfg    satchel.Config
	way    slot.Secret
	places []*storetest.Faulty
	stores []*mem.Store
	b      *satchel.Backup
	feed   *feed
	asks   chan agent.Ask // nil unless prepare makes it
	ahead  atomic.Int64   // of the wall clock: the machine slept

	run    func() // begins the agent
	cancel context.CancelFunc
	ended  chan error // gets what Run returned

	on      func(agent.Event) // if not nil, called for each event before the agent goes on
	damaged bool              // by on

	mu     sync.Mutex
	events []agent.Event // guarded by mu
}

// try runs a test in a bubble, with an agent that watches a feed and keeps a backup
// in so many places. prepare, if not nil, is called before the agent begins.
func try(t *testing.T, places int, cfg agent.Config, prepare func(w *world), test func(w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, feed: &feed{calls: make(chan call), fail: make(chan error)}, ended: make(chan error, 1)}
		w.cfg = satchel.Config{Dir: filepath.Join(t.TempDir(), "wallet"), Keychain: &ring{}, Copies: 1, Shared: true, Now: w.now}
		for i := range places {
			w.stores = append(w.stores, &mem.Store{})
			w.places = append(w.places, &storetest.Faulty{Inner: w.stores[i]})
			w.cfg.Places = append(w.cfg.Places, store.Place{Address: fmt.Sprintf("mem:%d", i), Store: w.places[i]})
		}
		keys, err := wallet.New(wallet.Regtest, 12, "2026-11-23")
		w.must(err)
		w.way, _ = slot.NewRecoveryCode()
		w.b, err = satchel.Create(t.Context(), w.cfg, satchel.Plan{Label: "Sam", Keys: keys, Slots: []slot.Secret{w.way}})
		w.must(err)
		defer func() { w.b.Close() }()
		if prepare != nil {
			prepare(w)
		}
		cfg.Sources, cfg.Asks = []source.Source{w.feed}, w.asks
		cfg.Report = func(e agent.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
			if w.on != nil {
				w.on(e)
			}
		}
		cfg.Now = w.now
		w.run = func() {
			ctx, cancel := context.WithCancel(t.Context())
			w.cancel = cancel
			b := w.b
			go func() { w.ended <- agent.Run(ctx, b, cfg) }()
			w.wait(time.Millisecond)
		}
		w.run()
		defer func() { w.cancel() }()
		test(w)
		w.cancel()
		if err := <-w.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: got %v, want %v", err, context.Canceled)
		}
	})
}

// now is what the wall clock tells.
func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// restart ends the agent, as its process ends, and begins it anew.
func (w *world) restart() {
	w.Helper()
	w.cancel()
	<-w.ended
	w.must(w.b.Close())
	w.b = w.another(true)
	w.run()
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// wait lets time pass.
func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// later lets time pass, most of it asleep.
func (w *world) later(d time.Duration) {
	w.ahead.Add(int64(d - 10*time.Second))
	w.wait(10 * time.Second)
}

// offer hands changes to the agent and does not wait for it.
func (w *world) offer(changes ...source.Change) <-chan error {
	c := call{changes, make(chan error, 1)}
	select {
	case w.feed.calls <- c:
	case <-time.After(24 * time.Hour):
		w.Fatal("nobody takes a change")
	}
	return c.err
}

// put hands changes to the agent, which must take them.
func (w *world) put(changes ...source.Change) {
	w.Helper()
	if err := <-w.offer(changes...); err != nil {
		w.Errorf("save: %v", err)
	}
	synctest.Wait()
}

// put1 puts one item.
func (w *world) put1(name, value string) { w.Helper(); w.put(item(name, value)) }

func item(name, value string) source.Change {
	return source.Change{Name: name, Value: []byte(value)}
}

// another opens the wallet as another process does.
func (w *world) another(shared bool) *satchel.Backup {
	w.Helper()
	cfg := w.cfg
	cfg.Shared = shared
	b, err := satchel.Open(cfg)
	w.must(err)
	return b
}

// take returns the events since the last call.
func (w *world) take() []agent.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.events
	w.events = nil
	return events
}

// want compares the events since the last call, each as in "saved a b -c" with a
// "!" behind if the backup was not protected, and returns them.
func (w *world) want(want ...string) []agent.Event {
	w.Helper()
	events := w.take()
	var got []string
	for _, e := range events {
		words := append([]string{string(e.Kind)}, e.Items...)
		for _, r := range e.Removed {
			words = append(words, "-"+r)
		}
		line := strings.Join(words, " ")
		if !e.Protected {
			line += "!"
		}
		got = append(got, line)
		if e.Time.IsZero() || len(e.Places) != len(w.places) || e.Generation == 0 {
			w.Errorf("event %s without time, places or generation: %+v", line, e)
		}
	}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		w.Errorf("got events %q, want %q", got, want)
		for _, e := range events {
			w.Logf("%s %s: %v", e.Time.Format(time.TimeOnly), e.Kind, e.Err)
		}
	}
	return events
}

// restores fails the test unless a stranger with the secret restores these items
// from the place.
func (w *world) restores(place int, want map[string]string) {
	w.Helper()
	cfg := satchel.Config{Places: []store.Place{{Address: "mem:there", Store: w.stores[place]}}, Settle: -1}
	found, err := satchel.Find(w.Context(), cfg)
	w.must(err)
	o, err := found[0].Open(w.Context(), w.way)
	w.must(err)
	w.must(o.Preview().Problem)
	got := map[string]string{}
	for _, it := range o.Preview().Items {
		if it.Name == "keys" || it.Name == "descriptors" {
			continue
		}
		v, err := o.Value(w.Context(), it.Name)
		w.must(err)
		got[it.Name] = string(v.Open())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.Errorf("place %d restores %v, want %v", place, got, want)
	}
}

// ends waits so long for the end of the agent and returns its error. Afterwards the test
// ends.
func (w *world) ends(limit time.Duration) error {
	w.Helper()
	select {
	case err := <-w.ended:
		w.ended <- context.Canceled // for try
		return err
	case <-time.After(limit):
		w.Fatal("it goes on")
	}
	return nil
}
