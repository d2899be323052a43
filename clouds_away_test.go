package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store"
)

// puts is a store that takes down which snapshots were put, in order.
type puts struct {
	store.Store
	mu   sync.Mutex
	list []seal.SnapshotName // guarded by mu
}

func (p *puts) Put(ctx context.Context, name string, data []byte) error {
	err := p.Store.Put(ctx, name, data)
	_, path, _ := strings.Cut(name, "/")
	if n, ok := seal.ParseSnapshotPath(path); ok && err == nil {
		p.mu.Lock()
		p.list = append(p.list, n)
		p.mu.Unlock()
	}
	return err
}

// R1, R4, R9: a cloud is away for a day, in which there are changes every few minutes and
// the program is started anew now and then. Nothing is said to be protected and the time
// of the last verified backup stays; when it is back, what is missing goes up in order,
// each once, and nothing is lost. SATCHEL_CLOUD_AWAY is how many changes there are in the
// day, if not a few.
func TestCloudAway(t *testing.T) {
	t.Parallel()
	changes := 24
	if n := os.Getenv("SATCHEL_CLOUD_AWAY"); n != "" {
		changes = mustInt(t, n)
	}
	away := []cloudFault{}
	for _, f := range cloudFaults() {
		switch f.fault {
		case fakecloud.Cut, fakecloud.ServerError, fakecloud.Page, fakecloud.Unauthorized, fakecloud.RateLimited:
			away = append(away, f)
		}
	}
	for name, newSite := range sites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				s := newSite(t)
				rnd := rand.New(rand.NewPCG(5, uint64(len(name))))
				seen := &puts{Store: s.store(t)}
				cfg := config(t, seen)
				cfg.Now = time.Now
				b, _, way := create(t, cfg, item("labels", "before"), item("file/old", strings.Repeat("o", 4000)))
				first := b.Status()
				began, made := time.Now(), s.sent()
				longest := 0
				for i := range changes {
					f := away[i*len(away)/changes] // It is away in several ways, one after another.
					s.busy(f.retry)
					s.strike(func(string, *http.Request) fakecloud.Fault { return f.fault })
					before := s.sent()
					r, err := b.Save(ctx, item("labels", fmt.Sprint(i)), item(fmt.Sprint("file/", i%7), strings.Repeat(fmt.Sprint(i), 1+rnd.IntN(1500))))
					longest = max(longest, s.sent()-before)
					if f.retry == 900 {
						// Who was told to come back later does not come back sooner, but to ask whose
						// the account is. Google does not tell.
						most := map[string]int{"gdrive": 25, "dropbox": 5, "onedrive": 5}[s.name]
						before := s.sent()
						for range 5 {
							if _, err := b.Sync(ctx); !errors.Is(err, f.err) {
								t.Fatalf("change %d, %s: %v", i, f.name, err)
							}
						}
						if n := s.sent() - before; n > most {
							t.Errorf("change %d, %s: %d requests in a pause", i, f.name, n)
						}
					}
					if !errors.Is(err, satchel.ErrNotProtected) || !errors.Is(err, f.err) || r.Changed != 2 {
						t.Fatalf("change %d, %s: %+v, %v", i, f.name, r, err)
					}
					st := b.Status()
					if st.Protected || !st.Verified.Equal(first.Verified) || st.Places[0].Health != f.health || st.Generation != first.Generation+uint64(i)+1 || !st.Places[0].Verified.Equal(first.Places[0].Verified) {
						t.Fatalf("change %d: %+v", i, st)
					}
					if rnd.IntN(9) == 0 { // The program is started anew.
						if err := b.Close(); err != nil {
							t.Fatal(err)
						}
						seen.Store = s.store(t)
						want := here(t, b)
						if b, err = satchel.Open(cfg); err != nil {
							t.Fatal(err)
						}
						defer b.Close()
						if st := b.Status(); !maps.Equal(here(t, b), want) || st.Protected || !st.Verified.Equal(first.Verified) {
							t.Fatalf("started anew after change %d: %+v", i, st)
						}
					}
					time.Sleep(24 * time.Hour / time.Duration(changes))
				}
				if len(seen.list) != 1 {
					t.Errorf("put while it was away: %v", seen.list)
				}
				if longest > 15 || s.sent()-made > 10*changes {
					t.Errorf("%d requests for a change, %d in all while it was away", longest, s.sent()-made)
				}

				// It is back, and breaks off once more on the way.
				s.strike(nil)
				s.busy(0)
				var left atomic.Int64
				left.Store(9)
				s.strike(func(string, *http.Request) fakecloud.Fault {
					if left.Add(-1) < 0 {
						return fakecloud.Cut
					}
					return fakecloud.None
				})
				time.Sleep(time.Hour)
				if _, err := b.Sync(ctx); err == nil || b.Status().Protected || !b.Status().Verified.Equal(first.Verified) {
					t.Errorf("half-way: %v, %+v", err, b.Status())
				}
				s.strike(nil)
				if got, _, err := readAll(way, s.fresh(t)); err != nil || got["labels"] == "" {
					t.Errorf("half-way it restores %v, %v", short(got), err)
				}
				if _, err := b.Sync(ctx); err != nil {
					t.Fatal(err)
				}
				st := b.Status()
				if !st.Protected || st.Verified.Sub(began) < 24*time.Hour || st.Places[0].Generation != st.Generation {
					t.Errorf("%+v", st)
				}
				mustRead(t, here(t, b), way, s.fresh(t))
				if !slices.IsSortedFunc(seen.list, func(a, b seal.SnapshotName) int { return a.Compare(b) }) {
					t.Errorf("not in order: %v", seen.list)
				}
				// What was put when it broke off was not read back, and went up once more: the
				// same bytes make no second object.
				distinct := slices.Compact(slices.Clone(seen.list))
				if len(seen.list) > len(distinct)+1 {
					t.Errorf("put twice: %v", seen.list)
				}
				there := 0
				for name := range s.listed(t) {
					if strings.Contains(name, "/snapshots/") {
						there++
					}
				}
				if there != len(distinct) {
					t.Errorf("%d snapshots are there, want %d", there, len(distinct))
				}
				if s.name == "gdrive" {
					names := map[string]int{}
					for _, f := range s.cloud.DriveFiles(s.ann) {
						if names[f.Parent+"/"+f.Name]++; names[f.Parent+"/"+f.Name] > 1 {
							t.Errorf("%s is there twice", f.Name)
						}
					}
				}
				// And once more nothing is to be done.
				before := len(seen.list)
				if _, err := b.Sync(ctx); err != nil || len(seen.list) != before {
					t.Errorf("again: %v, %d snapshots put", err, len(seen.list)-before)
				}
				if rep, err := b.Check(ctx); err != nil {
					t.Errorf("check: %+v, %v", rep, err)
				}
			})
		})
	}
}
