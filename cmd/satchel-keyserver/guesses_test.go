package main

import (
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/protocol"
)

// Wrong guesses come at once, over many connections, to several processes that share a
// database: exactly as many evaluations leave as the limit allows, and then the key is gone.
func TestParallelGuesses(t *testing.T) {
	onAll(t, func(w *world) {
		servers := []*server{w.serve(), w.serve(), w.serve()}
		a := w.account().enrol(servers[0].url, protocol.MaxGuesses)
		var left, erased atomic.Int64
		for rounds := 0; erased.Load() == 0; rounds++ {
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					for range 25 {
						switch err := a.guess(servers[i%3].url); code(err) {
						case protocol.CodeOK:
							left.Add(1)
						case protocol.CodeErased:
							erased.Add(1)
						case protocol.CodeLocked, protocol.CodeSequence:
						default:
							w.Error(err)
						}
						if erased.Load() > 0 {
							return
						}
					}
				})
			}
			wg.Wait()
			if w.Failed() || rounds > 20 {
				w.Fatalf("%d evaluations left in %d rounds", left.Load(), rounds)
			}
			w.later(73 * time.Hour)
			a.seq.Store(uint64(w.now().UnixMilli()))
		}
		if n := left.Load(); n != protocol.MaxGuesses {
			w.Errorf("%d evaluations left, want %d", n, protocol.MaxGuesses)
		}
		if s := a.status(servers[1].url); s.State != protocol.StateErased {
			w.Errorf("got %+v", s)
		}
		if err := a.guess(servers[2].url); code(err) != protocol.CodeErased {
			w.Error(err)
		}
	})
}

// killEnv is how many servers are killed in TestKilledServers; a few without it.
const killEnv = "SATCHEL_SERVER_KILLS"

// Servers are killed in the middle of an attack, and start again: no guess whose
// evaluation left comes back, and all in all no more leave than the limit allows. What
// a killed server did not answer may be spent.
func TestKilledServers(t *testing.T) {
	kills := 8
	if s := os.Getenv(killEnv); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	onAll(t, func(w *world) {
		servers := []*server{w.serve(), w.serve()}
		var mu sync.RWMutex // of servers
		url := func(i int) string {
			mu.RLock()
			defer mu.RUnlock()
			return servers[i%2].url
		}
		killed, unanswered := 0, int64(0)
		for accounts := 0; killed < kills; accounts++ {
			a := w.account().enrol(url(0), protocol.MaxGuesses)
			var released, lost atomic.Int64
			for done := false; !done; {
				var wg sync.WaitGroup
				for i := range 8 {
					wg.Go(func() {
						for range 10 {
							switch code(a.guess(url(i))) {
							case protocol.CodeOK:
								released.Add(1)
							case 255:
								lost.Add(1) // The server is gone.
							}
						}
					})
				}
				if killed < kills {
					time.Sleep(time.Duration(rand.IntN(25)) * time.Millisecond) // No event can be waited for: any moment is good.
					i := rand.IntN(2)
					servers[i].kill()
					s := w.serve()
					mu.Lock()
					servers[i] = s
					mu.Unlock()
					killed++
				}
				wg.Wait()
				s := a.status(url(killed))
				if int64(s.Life) < released.Load() {
					w.Fatalf("%d evaluations left, and %d guesses are spent", released.Load(), s.Life)
				}
				w.later(73 * time.Hour)
				a.seq.Store(uint64(w.now().UnixMilli()))
				if s.Left == 0 {
					if err := a.guess(url(0)); code(err) != protocol.CodeErased {
						w.Fatal(err)
					}
					done = true
				}
			}
			if n := released.Load(); n > protocol.MaxGuesses {
				w.Fatalf("%d evaluations left, want at most %d", n, protocol.MaxGuesses)
			}
			unanswered += lost.Load()
		}
		w.Logf("%d kills, %d guesses without an answer", killed, unanswered)
	})
}
