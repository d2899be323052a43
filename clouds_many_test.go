package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
)

// weather is what goes wrong at the requests of one step of a town.
type weather struct {
	site *site
	name string
	p    float64 // of a fault at each request
	from int     // the request from which on it is always the same; less than zero is none
	f    cloudFault

	mu   sync.Mutex
	rnd  *rand.Rand   // guarded by mu
	all  []cloudFault // that strike with p
	seen int          // guarded by mu
	hit  int          // guarded by mu
}

// newWeather draws one.
func newWeather(s *site, seed, step uint64) *weather {
	w := &weather{site: s, name: "clear", from: -1, rnd: rand.New(rand.NewPCG(seed, step))}
	for _, f := range cloudFaults() {
		if f.account == nil && f.limit == 0 {
			w.all = append(w.all, f)
		}
	}
	lasting := cloudFaults()
	if s.in == nil {
		lasting = w.all
	}
	switch n := w.rnd.IntN(20); {
	case n < 8:
	case n < 15:
		w.name, w.p = "drizzle", 0.05
	case n < 18:
		w.name, w.p = "storm", 0.4
	default:
		w.from, w.f = w.rnd.IntN(20), lasting[w.rnd.IntN(len(lasting))]
		w.name = fmt.Sprintf("%s from request %d on", w.f.name, w.from)
	}
	return w
}

func (w *weather) strike(string, *http.Request) fakecloud.Fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.seen
	w.seen++
	switch {
	case w.from >= 0 && n >= w.from && w.f.account != nil:
		if w.hit++; w.hit == 1 {
			w.site.in.As(w.f.account(w.site))
			w.site.cloud.Expire()
		}
	case w.from >= 0 && n >= w.from:
		w.hit++
		w.site.busy(w.f.retry)
		return w.f.fault
	case w.rnd.Float64() < w.p:
		w.hit++
		f := w.all[w.rnd.IntN(len(w.all))]
		w.site.busy(f.retry)
		return f.fault
	}
	return fakecloud.None
}

// owner is a person with one wallet and up to three devices.
type owner struct {
	name    string
	way     slot.Secret
	folder  string
	keys    *seal.Keys
	devices [3]*satchel.Backup
	configs [3]satchel.Config
	writer  int
	// since is what the writer said was protected last, and its states since then.
	since []map[string]string
}

func (o *owner) b() *satchel.Backup { return o.devices[o.writer] }

// now takes down the state of the writer.
func (o *owner) now(t *testing.T) {
	t.Helper()
	state := here(t, o.b())
	if o.b().Status().Protected {
		o.since = nil
	}
	o.since = append(o.since, state)
}

// has reports whether a state is at least as new as the newest that was protected.
func (o *owner) has(state map[string]string) bool {
	return slices.ContainsFunc(o.since, func(m map[string]string) bool { return maps.Equal(m, state) })
}

// town is many owners with one account.
type town struct {
	t      *testing.T
	site   *site
	owners []*owner
	rnd    *rand.Rand
	seed   uint64
	log    []string
	dirs   int
}

func (w *town) fatal(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s, SATCHEL_SEED=%d: %s\n%s", w.site.name, w.seed, fmt.Sprintf(format, args...), strings.Join(w.log, "\n"))
}

func (w *town) config() satchel.Config {
	cfg := config(w.t, w.site.store(w.t))
	w.dirs++
	cfg.Dir = filepath.Join(filepath.Dir(cfg.Dir), fmt.Sprint("device", w.dirs))
	cfg.Now = time.Now
	return cfg
}

// sound fails the test if an error says that something is the matter with the backup,
// or if one says nothing in clear weather.
func (w *town) sound(what string, sky *weather, err error) {
	w.t.Helper()
	if err == nil {
		return
	}
	for _, e := range wrong {
		if errors.Is(err, e) {
			w.fatal("%s: %v", what, err)
		}
	}
	if sky == nil || sky.hit == 0 {
		w.fatal("%s, and nothing struck: %v", what, err)
	}
	for _, e := range []error{store.ErrUnreachable, store.ErrListing, store.ErrSignIn, store.ErrWrongAccount, store.ErrFull, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return
		}
	}
	w.fatal("%s: got %v, which is none of what struck", what, err)
}

// others returns what the site holds of all but one owner.
func (w *town) others(but *owner) map[string]store.Object {
	m := w.site.listed(w.t)
	maps.DeleteFunc(m, func(name string, _ store.Object) bool { return but != nil && strings.HasPrefix(name, but.folder+"/") })
	return m
}

// calm lets an hour pass without faults.
func (w *town) calm() {
	w.site.strike(nil)
	if w.site.in != nil {
		w.site.in.As(w.site.ann)
		w.site.cloud.Expire()
	}
	time.Sleep(time.Hour)
}

// restored returns what a stranger with an owner's secret gets from the site alone.
func (w *town) restored(o *owner) map[string]string {
	w.t.Helper()
	found, err := satchel.Find(context.Background(), satchel.Config{Settle: -1, Places: []store.Place{{Address: "mem:0", Store: w.site.fresh(w.t)}}})
	if err != nil || len(found) != len(w.owners) {
		w.fatal("found %d of %d, %v", len(found), len(w.owners), err)
	}
	for i := range found {
		if found[i].Folder != o.folder {
			continue
		}
		opened, err := found[i].Open(context.Background(), o.way)
		if err != nil {
			w.fatal("opening %s's: %v", o.name, err)
		}
		values, err := valuesOf(opened)
		if err != nil {
			w.fatal("reading %s's: %v", o.name, err)
		}
		return values
	}
	w.fatal("%s's is not found", o.name)
	return nil
}

// save changes something on a device.
func (w *town) save(rnd *rand.Rand, b *satchel.Backup) error {
	name := fmt.Sprint("file/", rnd.IntN(5))
	c := item(name, strings.Repeat(fmt.Sprint(rnd.Uint32(), " "), 1+rnd.IntN(600)))
	c.Remove = rnd.IntN(8) == 0 && slices.ContainsFunc(b.Items(), func(i satchel.ItemInfo) bool { return i.Name == name })
	if c.Remove {
		c.Value = nil
	}
	_, err := b.Save(context.Background(), c, item("labels", fmt.Sprint(rnd.Uint32())))
	return err
}

// takeover restores on another device, or on the same one anew.
func (w *town) takeover(ctx context.Context, o *owner, to int, sky *weather) {
	cfg := w.config()
	found, err := satchel.Find(ctx, cfg)
	if err != nil {
		w.sound("find", sky, err)
		return
	}
	i := slices.IndexFunc(found, func(f satchel.Found) bool { return f.Folder == o.folder })
	if i < 0 {
		w.fatal("%s's is not found among %d, and no error", o.name, len(found))
	}
	if k := w.rnd.IntN(len(found)); k != i && sky.hit == 0 && sky.p == 0 && sky.from < 0 {
		if _, err := found[k].Open(ctx, o.way); !errors.Is(err, slot.ErrWrongSecret) {
			w.fatal("somebody else's: got %v", err)
		}
	}
	opened, err := found[i].Open(ctx, o.way)
	if err != nil {
		w.sound("open", sky, err)
		return
	}
	b, out, err := opened.Restore(ctx, cfg, satchel.RestoreOptions{})
	if b == nil {
		w.sound("restore", sky, err)
		return
	}
	w.t.Cleanup(func() { b.Close() })
	w.sound("takeover", sky, err)
	if got := here(w.t, b); !o.has(got) || out.Protected != (err == nil) {
		w.fatal("%s restored what is older than what was protected, or %+v, %v", o.name, out, err)
	}
	if old := o.devices[to]; old != nil {
		if err := old.Forget(); err != nil {
			w.fatal("forget: %v", err)
		}
	}
	o.devices[to], o.configs[to], o.writer = b, cfg, to
	if err != nil {
		_, err := b.Sync(ctx)
		w.sound("sync of a takeover", sky, err)
		if err != nil {
			w.calm()
			if _, err := b.Sync(context.Background()); err != nil {
				w.fatal("sync of a takeover when it is over: %v", err)
			}
		}
	}
	o.now(w.t)
}

// step is one thing that somebody does in some weather.
func (w *town) step(n int) {
	o := w.owners[w.rnd.IntN(len(w.owners))]
	sky := newWeather(w.site, w.seed, uint64(n))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Hour)
	defer cancel()
	say := func(what string) {
		w.log = append(w.log, fmt.Sprintf("%d: %s %s, device %d writes: %s", n, o.name, what, o.writer, sky.name))
	}
	before := w.others(o)
	w.site.strike(sky.strike)
	switch action := w.rnd.IntN(20); {
	case action < 10:
		say("saves")
		err := w.save(w.rnd, o.b())
		w.sound("save", sky, err)
		if (err == nil) != o.b().Status().Protected {
			w.fatal("save: %v, %+v", err, o.b().Status().Places)
		}
		o.now(w.t)
	case action < 11:
		say("checks")
		late := !o.b().Status().Protected
		_, err := o.b().Check(ctx)
		if late && errors.Is(err, satchel.ErrNotProtected) {
			break // It holds what it was said to hold, and the newest is still to come.
		}
		w.sound("check", sky, err)
	case action < 13:
		say("prunes")
		_, err := o.b().Prune(ctx, 1+w.rnd.IntN(2))
		w.sound("prune", sky, err)
	case action < 14:
		say("compacts")
		_, err := o.b().Compact(ctx)
		w.sound("compact", sky, err)
		o.now(w.t)
	case action < 15:
		say("restarts")
		o.b().Close()
		b, err := satchel.Open(o.configs[o.writer])
		if err != nil {
			w.fatal("open: %v", err)
		}
		w.t.Cleanup(func() { b.Close() })
		o.devices[o.writer] = b
		_, err = b.Sync(ctx)
		w.sound("sync", sky, err)
		o.now(w.t)
	case action < 17:
		to := w.rnd.IntN(3)
		say(fmt.Sprint("restores on device ", to))
		w.takeover(ctx, o, to, sky)
	case action < 19:
		// R16: a device that was replaced is told so, and changes nothing.
		i := w.rnd.IntN(3)
		old := o.devices[i]
		if i == o.writer || old == nil {
			w.site.strike(nil)
			return
		}
		say(fmt.Sprint("is on the older device ", i))
		var err error
		did := w.rnd.IntN(3)
		switch did {
		case 0:
			err = w.save(w.rnd, old)
		case 1:
			_, err = old.Sync(ctx)
		default:
			_, err = old.Prune(ctx, 1)
		}
		// Where the place could not be looked into, it knows nothing of the other device:
		// what it saved before is still protected, and nothing new is.
		switch told := errors.Is(err, satchel.ErrOtherDevice); {
		case told && old.Status().Protected, !told && (sky.hit == 0 || did == 0 && err == nil):
			w.fatal("an older device: %v, %+v", err, old.Status().Places)
		case !told:
			w.sound("an older device", sky, err)
		}
	default:
		o = nil
		w.log = append(w.log, fmt.Sprintf("%d: all save at once: %s", n, sky.name))
		var wg sync.WaitGroup
		errs := make([]error, len(w.owners))
		for i, o := range w.owners {
			rnd := rand.New(rand.NewPCG(w.seed, uint64(n*100+i)))
			wg.Go(func() { errs[i] = w.save(rnd, o.b()) })
		}
		wg.Wait()
		for i, o := range w.owners {
			w.sound("save with the others", sky, errs[i])
			o.now(w.t)
		}
	}
	w.calm()
	// R3: nobody touched what is another's.
	if o != nil {
		if after := w.others(o); !maps.Equal(after, before) {
			w.fatal("%s touched what is another's: %d objects, and then %d", o.name, len(before), len(after))
		}
		if got, err := readNewest(o.keys, o.folder, w.site.fresh(w.t)); err != nil || !o.has(got) {
			w.fatal("%s's is older than what was protected: %v, %v", o.name, short(got), err)
		}
	}
}

// live makes a town and lets it live so many steps.
func live(t *testing.T, s *site, seed uint64, owners, steps int) {
	w := &town{t: t, site: s, seed: seed, rnd: rand.New(rand.NewPCG(seed, 1<<63))}
	if s.cloud != nil {
		s.cloud.PageSize = []int{0, 2, 5}[w.rnd.IntN(3)]
	}
	for i := range owners {
		o := &owner{name: fmt.Sprint("owner ", i)}
		o.configs[0] = w.config()
		o.way, _ = slot.NewRecoveryCode()
		b, err := satchel.Create(context.Background(), o.configs[0], satchel.Plan{Label: "Samantha", Keys: newKeys(t), Slots: []slot.Secret{o.way}, Items: []satchel.Change{item("labels", o.name)}})
		if err != nil {
			w.fatal("create: %v", err)
		}
		t.Cleanup(func() { b.Close() })
		o.devices[0], o.folder = b, b.Status().Folder
		for name := range s.listed(t) {
			if !strings.HasPrefix(name, o.folder+"/slots/") {
				continue
			}
			data, err := s.fresh(t).Get(context.Background(), name, "", seal.MaxSlot)
			if err != nil {
				w.fatal("reading a slot: %v", err)
			}
			if o.keys, err = seal.OpenSlot(data, o.way.Identity()); err != nil {
				w.fatal("opening a slot: %v", err)
			}
		}
		o.now(t)
		w.owners = append(w.owners, o)
	}
	for n := range steps {
		w.step(n)
	}
	// Everybody is restored from the cloud alone at what was protected last or newer,
	// and once more when the devices caught up.
	for _, o := range w.owners {
		if got := w.restored(o); !o.has(got) {
			w.fatal("in the end %s's is older than what was protected: %v", o.name, short(got))
		}
		if _, err := o.b().Sync(context.Background()); err != nil {
			w.fatal("in the end %s: %v", o.name, err)
		}
		if _, err := o.b().Check(context.Background()); err != nil {
			w.fatal("in the end %s: check: %v", o.name, err)
		}
		if got := w.restored(o); !maps.Equal(got, here(t, o.b())) {
			w.fatal("in the end %s: %v, want %v", o.name, short(got), short(here(t, o.b())))
		}
	}
	if s.bob != nil {
		if list, err := s.of(t, s.bob).List(t.Context(), ""); err != nil || len(list) != 0 {
			w.fatal("the other account has %v, %v", list, err)
		}
	}
}

// R3: many wallets on three devices each in one account, at random and with faults: all
// are restored at the newest state that was said to be protected, and nobody touches what
// is another's. SATCHEL_CLOUD_WALLETS is how long towns of 8 wallets are tried at each
// cloud, such as 10m; SATCHEL_SEED is the seed of the first.
func TestCloudWallets(t *testing.T) {
	t.Parallel()
	owners, steps, seed, long := 3, 6, uint64(1), time.Duration(0)
	if s := os.Getenv("SATCHEL_CLOUD_WALLETS"); s != "" {
		var err error
		if long, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
		owners, steps, seed = 8, 120, uint64(time.Now().UnixNano())
	}
	if s := os.Getenv("SATCHEL_SEED"); s != "" {
		seed = uint64(mustInt(t, s))
	}
	for name, newSite := range sites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			end := time.Now().Add(long) // Of this one: some wait for others to end.
			first := seed
			seed := seed
			for again := true; again && !t.Failed(); again = time.Now().Before(end) {
				synctest.Test(t, func(t *testing.T) { live(t, newSite(t), seed, owners, steps) })
				seed++
			}
			t.Logf("%d towns from SATCHEL_SEED=%d on", seed-first, first)
		})
	}
}
