package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
)

// cloudFault is what goes wrong at a request of a journey.
type cloudFault struct {
	name  string
	fault fakecloud.Fault
	retry int           // seconds that a busy one says; less than zero is nothing
	limit time.Duration // of each call; 0 is none
	// account is for what happens to the sign-in, instead of a fault: nil is a grant
	// that was taken back.
	account func(*site) *fakecloud.Account
	err     error
	health  satchel.Health
}

// cloudFaults returns all of them.
func cloudFaults() []cloudFault {
	list := []cloudFault{
		{name: "revoked", account: func(*site) *fakecloud.Account { return nil }, err: store.ErrSignIn, health: satchel.HealthSignIn},
		{name: "another account", account: func(s *site) *fakecloud.Account { return s.bob }, err: store.ErrWrongAccount, health: satchel.HealthWrongAccount},
		{name: "401", fault: fakecloud.Unauthorized, err: store.ErrSignIn, health: satchel.HealthSignIn},
		{name: "full", fault: fakecloud.Full, err: store.ErrFull, health: satchel.HealthFull},
		{name: "hang with a deadline", fault: fakecloud.Hang, limit: 20 * time.Second},
		{name: "busy for 3 s", fault: fakecloud.RateLimited, retry: 3},
		{name: "busy for 15 min", fault: fakecloud.RateLimited, retry: 900},
		{name: "busy", fault: fakecloud.RateLimited, retry: -1},
	}
	for _, f := range []fakecloud.Fault{fakecloud.ServerError, fakecloud.Applied, fakecloud.Cut, fakecloud.CutApplied, fakecloud.CutAnswer, fakecloud.Hang, fakecloud.Torn, fakecloud.HalfAnswer, fakecloud.Page} {
		list = append(list, cloudFault{name: string(f), fault: f})
	}
	for i := range list {
		if list[i].err == nil {
			list[i].err, list[i].health = store.ErrUnreachable, satchel.HealthUnreachable
		}
	}
	return list
}

// journey is create, save, check, and restore on another device, over a site at which
// something goes wrong.
type journey struct {
	t    *testing.T
	site *site
	f    cloudFault
	at   int // the request, from 0; less than zero is none
	ever bool
	what string

	way  slot.Secret
	cfg  satchel.Config
	base map[string]int // requests of each call without a fault; nil to find out
	took map[string]int

	mu     sync.Mutex
	seen   int  // guarded by mu
	judged int  // how many were seen when a backup was last looked at; guarded by mu
	struck bool // guarded by mu
	off    bool // guarded by mu
}

func (j *journey) strike(op string, _ *http.Request) fakecloud.Fault {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := j.seen
	j.seen++
	if j.off || j.at < 0 || n < j.at || n > j.at && !j.ever {
		return fakecloud.None
	}
	if j.f.account != nil {
		if !j.struck {
			j.site.in.As(j.f.account(j.site))
			if j.f.account(j.site) == nil {
				j.site.cloud.Revoke(j.site.ann)
			} else {
				j.site.cloud.Expire()
			}
		}
		j.struck = true
		return fakecloud.None
	}
	j.struck = true
	return j.f.fault
}

// over ends the fault, and lets the time pass that a busy cloud may ask for.
func (j *journey) over() {
	j.mu.Lock()
	j.off = true
	j.mu.Unlock()
	if j.site.in != nil {
		j.site.in.As(j.site.ann)
		if j.f.account != nil && j.struck {
			j.site.cloud.Expire()
		}
	}
	time.Sleep(time.Hour)
}

// call makes a call to the engine and counts its requests.
func (j *journey) call(name string, do func(ctx context.Context) error) error {
	ctx := context.Background()
	if j.f.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, j.f.limit)
		defer cancel()
	}
	before := j.site.sent()
	err := do(ctx)
	n := j.site.sent() - before
	j.took[name] = max(j.took[name], n)
	if base, ok := j.base[name]; ok && n > base+moreRequests {
		j.t.Errorf("%s: %s made %d requests, want at most %d more than the %d without a fault", j.what, name, n, moreRequests, base)
	}
	return err
}

// moreRequests is how many a fault may cost: a request is repeated four times, another
// sign-in is asked whose it is, and of those that went out at the same time each finds
// out by itself.
const moreRequests = 30

// right reports whether an error says what is the matter.
func (j *journey) right(err error) bool {
	if errors.Is(err, j.f.err) {
		return true
	}
	// Half of a listing is no answer either.
	return j.f.limit > 0 && errors.Is(err, context.DeadlineExceeded) || j.f.err == store.ErrUnreachable && errors.Is(err, store.ErrListing)
}

// wrong are errors that none of the faults is: nothing is the matter with what is there.
var wrong = []error{
	satchel.ErrNoBackup, satchel.ErrOtherDevice, satchel.ErrForked, satchel.ErrOlder, satchel.ErrMissing, satchel.ErrIncomplete, satchel.ErrSlotDamaged,
	satchel.ErrWrongWallet, satchel.ErrNoSlot, slot.ErrWrongSecret, store.ErrExist,
}

// judge looks at a backup after a call.
func (j *journey) judge(name string, b *satchel.Backup, before satchel.Status, err error) {
	t := j.t
	t.Helper()
	if b == nil {
		t.Fatalf("%s: %s: the wallet is not on this device: %v", j.what, name, err)
	}
	st := b.Status()
	if err == nil && !st.Protected && name != "check" {
		t.Errorf("%s: %s said yes, and it is not protected", j.what, name)
	}
	for _, w := range wrong {
		if errors.Is(err, w) {
			t.Errorf("%s: %s: got %v, want %v", j.what, name, err, j.f.err)
		}
	}
	j.mu.Lock()
	struck := j.struck
	since := j.seen > j.at && (j.ever || j.judged <= j.at)
	j.judged = j.seen
	j.mu.Unlock()
	if st.Protected {
		if since { // What nothing befell is read in the end.
			j.read(name, here(t, b))
		}
		if err == nil {
			return
		}
	} else if !st.Verified.Equal(before.Verified) {
		t.Errorf("%s: %s: verified moved from %v to %v on failure: %v", j.what, name, before.Verified, st.Verified, err)
	}
	if !struck {
		t.Fatalf("%s: %s: nothing struck, and %v", j.what, name, err)
	}
	if !j.right(err) {
		t.Errorf("%s: %s: got %v, want %v", j.what, name, err, j.f.err)
	}
	// Who gives up waiting for a check has learned nothing of the place.
	gaveUp := name == "check" && errors.Is(err, context.DeadlineExceeded)
	if p := st.Places[0]; p.Health != j.f.health && !gaveUp {
		t.Errorf("%s: %s: health is %q, want %q: %v", j.what, name, p.Health, j.f.health, err)
	}
	j.over()
	if err := j.call("sync", func(ctx context.Context) error { _, err := b.Sync(ctx); return err }); err != nil {
		t.Fatalf("%s: %s: when it is over, sync: %v", j.what, name, err)
	}
	if st := b.Status(); !st.Protected || st.Places[0].Health != satchel.HealthProtected {
		t.Fatalf("%s: %s: when it is over: %+v", j.what, name, st.Places)
	}
	j.read(name+", when it is over", here(t, b))
}

// read fails the test unless strangers with the secret read this from the site alone.
func (j *journey) read(name string, want map[string]string) {
	t := j.t
	t.Helper()
	strike := j.site.striking()
	j.site.strike(nil)
	defer j.site.strike(strike)
	st := j.site.fresh(t)
	got, _, err := readAll(j.way, st)
	if err != nil || !maps.Equal(got, want) {
		t.Fatalf("%s: %s: protected, and a restore is %v, %v, want %v", j.what, name, short(got), err, short(want))
	}
	if got, err = independent(j.way, st); err != nil || !maps.Equal(got, want) {
		t.Fatalf("%s: %s: protected, and a reader without the engine gets %v, %v", j.what, name, short(got), err)
	}
}

// run makes the journey.
func (j *journey) run() {
	t := j.t
	t.Helper()
	j.took = map[string]int{}
	j.site.busy(j.f.retry)
	j.site.strike(j.strike)
	j.cfg = config(t, j.site.store(t))
	j.cfg.Now = time.Now
	var b *satchel.Backup
	j.way, _ = slot.NewRecoveryCode()
	keys := newKeys(t)
	err := j.call("create", func(ctx context.Context) (err error) {
		b, err = satchel.Create(ctx, j.cfg, satchel.Plan{Label: "Samantha", Keys: keys, Slots: []slot.Secret{j.way}, Items: []satchel.Change{item("labels", "first")}})
		return err
	})
	j.judge("create", b, satchel.Status{}, err)
	defer b.Close()

	for i, name := range []string{"save", "save again"} {
		before, held := b.Status(), here(t, b)
		time.Sleep(time.Minute)
		err := j.call(name, func(ctx context.Context) error {
			_, err := b.Save(ctx, item("labels", name), item(fmt.Sprint("file/", i), strings.Repeat(name, 1000)))
			return err
		})
		if err != nil && !errors.Is(err, satchel.ErrNotProtected) {
			t.Errorf("%s: %s: got %v, want ErrNotProtected", j.what, name, err)
		}
		if !b.Status().Protected {
			j.kept(name, held, here(t, b))
		}
		j.judge(name, b, before, err)
	}

	before := b.Status()
	err = j.call("check", func(ctx context.Context) error { _, err := b.Check(ctx); return err })
	j.judge("check", b, before, err)

	want := here(t, b)
	b.Close()
	var b2 *satchel.Backup
	for range 2 {
		cfg := newDevice(t, j.cfg)
		cfg.Places = []store.Place{{Address: "mem:0", Store: j.site.store(t)}}
		err = j.call("restore", func(ctx context.Context) error {
			found, err := satchel.Find(ctx, cfg)
			if err != nil {
				return fmt.Errorf("find: %w", err)
			}
			if len(found) != 1 {
				t.Fatalf("%s: found %d", j.what, len(found))
			}
			o, err := found[0].Open(ctx, j.way)
			if err != nil {
				return fmt.Errorf("open: %w", err)
			}
			b2, _, err = o.Restore(ctx, cfg, satchel.RestoreOptions{})
			return err
		})
		if b2 != nil {
			break
		}
		for _, w := range wrong {
			if errors.Is(err, w) {
				t.Errorf("%s: restore: got %v, want %v", j.what, err, j.f.err)
			}
		}
		if !j.right(err) {
			t.Errorf("%s: restore: got %v, want %v", j.what, err, j.f.err)
		}
		j.over()
	}
	j.judge("restore", b2, satchel.Status{}, err)
	defer b2.Close()
	if got := here(t, b2); !maps.Equal(got, want) {
		t.Errorf("%s: restored %v, want %v", j.what, short(got), short(want))
	}
	j.read("in the end", want)
	j.site.strike(nil)
	j.site.listed(t)
	if j.site.bob != nil {
		if list, err := j.site.of(t, j.site.bob).List(t.Context(), ""); err != nil || len(list) != 0 {
			t.Errorf("%s: the other account has %v, %v", j.what, list, err)
		}
	}
}

// kept fails the test unless the site still restores to what it held before, or to what
// is new.
func (j *journey) kept(name string, before, after map[string]string) {
	t := j.t
	t.Helper()
	strike := j.site.striking()
	j.site.strike(nil)
	defer j.site.strike(strike)
	got, _, err := readAll(j.way, j.site.fresh(t))
	if err != nil || !maps.Equal(got, before) && !maps.Equal(got, after) {
		t.Errorf("%s: %s failed, and a restore is %v, %v", j.what, name, short(got), err)
	}
}

// R1, R2, R5, R9, R10, R14: each fault at each request of a journey, once and from then
// on. Protected is said only if the cloud alone gives the newest state back; nothing that
// was there is lost; the error and the health of the place say what is the matter; there is
// no storm of requests; and when it is over the next Sync protects. SATCHEL_CLOUD_FAULTS
// is how many are tried at each cloud, or "all"; SATCHEL_SEED chooses them.
func TestCloudFaults(t *testing.T) {
	t.Parallel()
	most, seed := 1, uint64(20261126)
	if n := os.Getenv("SATCHEL_CLOUD_FAULTS"); n == "all" {
		most = 1 << 30
	} else if n != "" {
		most = mustInt(t, n)
	}
	if s := os.Getenv("SATCHEL_SEED"); s != "" {
		seed = uint64(mustInt(t, s))
	}
	for name, newSite := range sites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var base map[string]int
			n, failed := 0, 0
			synctest.Test(t, func(t *testing.T) {
				j := &journey{t: t, site: newSite(t), at: -1, what: "without a fault"}
				j.run()
				n, base = j.seen, j.took
			})
			t.Logf("seed %d: %d requests: %v", seed, n, base)
			if t.Failed() {
				return
			}
			var list []*journey
			for _, f := range cloudFaults() {
				for at := range n {
					for _, ever := range []bool{false, true} {
						list = append(list, &journey{f: f, at: at, ever: ever, what: fmt.Sprintf("%s, %s at request %d of %d, ever %v", name, f.name, at, n, ever)})
					}
				}
			}
			rnd := rand.New(rand.NewPCG(seed, 0))
			rnd.Shuffle(len(list), func(i, k int) { list[i], list[k] = list[k], list[i] })
			for _, j := range list[:min(most, len(list))] {
				if j.f.account != nil && (newSite(t).in == nil || j.ever) {
					continue
				}
				// A failure does not end the others, unless there are many.
				if !t.Run(j.what, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						j.t, j.site, j.base = t, newSite(t), base
						j.run()
					})
				}) {
					if failed++; failed == 20 {
						return
					}
				}
			}
		})
	}
}

func mustInt(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
