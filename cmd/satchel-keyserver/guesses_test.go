package main

import (
	"crypto/ed25519"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/protocol"
)

// attackEnv makes a test binary an attacker.
const attackEnv = "SATCHEL_TEST_ATTACK"

// assault is what an attacker is told to do: that many guesses, all at once.
type assault struct {
	Access  []byte // seed
	Slot    [32]byte
	Seq     uint64
	URLs    []string
	Guesses int
}

// loot is what came of it: how often each code was the answer.
type loot map[protocol.Code]int

// report is what an attacker writes of an assault.
type report struct {
	Loot loot
	Lost string // why an answer did not come, if one did not
}

// attack reads assaults and writes loot until there are no more.
func attack(in io.Reader, out io.Writer) int {
	w := &world{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}, Timeout: 30 * time.Second}}
	for dec := json.NewDecoder(in); ; {
		var what assault
		if err := dec.Decode(&what); err != nil {
			return 0
		}
		a := &account{w: w, access: ed25519.NewKeyFromSeed(what.Access), slot: what.Slot}
		a.id = protocol.AccountOf(a.access.Public().(ed25519.PublicKey))
		a.seq.Store(what.Seq)
		got := report{Loot: loot{}}
		var mu sync.Mutex
		var wait sync.WaitGroup
		for i := range what.Guesses {
			wait.Go(func() {
				err := a.insist(what.URLs[i%len(what.URLs)])
				mu.Lock()
				defer mu.Unlock()
				if got.Loot[code(err)]++; code(err) == lost {
					got.Lost = err.Error()
				}
			})
		}
		wait.Wait()
		if err := json.NewEncoder(out).Encode(got); err != nil {
			return 1
		}
	}
}

// insist guesses, again with another number while the number is what the server does not
// like, and again if there is no answer: a connection may end under any request.
func (a *account) insist(url string) error {
	var id protocol.Attempt
	crand.Read(id[:])
	for lives := 5; ; {
		err := a.attempt(url, id)
		if code(err) == lost && lives > 0 {
			lives--
			continue
		}
		r, ok := errors.AsType[*protocol.Refusal](err)
		if !ok || r.Code != protocol.CodeSequence {
			return err
		}
		for {
			if last := a.seq.Load(); last >= r.Sequence.Last || a.seq.CompareAndSwap(last, r.Sequence.Last) {
				break
			}
		}
	}
}

// attacker is a process that attacks.
type attacker struct {
	in  *json.Encoder
	out *json.Decoder
}

func (w *world) attackers(n int) (list []*attacker) {
	w.Helper()
	for range n {
		cmd := exec.Command(os.Args[0])
		cmd.Env = []string{attackEnv + "=1"}
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err, err2, cmd.Start()); err != nil {
			w.Fatal(err)
		}
		w.Cleanup(func() { in.Close(); cmd.Wait() })
		list = append(list, &attacker{json.NewEncoder(in), json.NewDecoder(out)})
	}
	return list
}

// assault lets all attackers guess at once, each so often, and returns what they got.
func (a *account) assault(list []*attacker, guesses int, urls ...string) loot {
	got := loot{}
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, one := range list {
		wait.Go(func() {
			var r report
			err := errors.Join(one.in.Encode(assault{a.access.Seed(), a.slot, a.seq.Load(), urls, guesses}), one.out.Decode(&r))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				a.w.Error(err)
			}
			if r.Lost != "" {
				a.w.Logf("no answer: %s", r.Lost)
			}
			for c, n := range r.Loot {
				got[c] += n
			}
		})
	}
	wait.Wait()
	a.seq.Store(uint64(a.w.now().UnixMilli()))
	return got
}

// four returns four servers of the world, and where they are.
func (w *world) four() (servers []*server, urls []string) {
	for range 4 {
		s := w.serve()
		servers, urls = append(servers, s), append(urls, s.url)
	}
	return servers, urls
}

// R12: 400 wrong guesses come at once from 16 processes to four servers that share a database:
// exactly as many evaluations leave as the limit allows, and then the key is gone.
func TestParallelGuesses(t *testing.T) {
	onAll(t, func(w *world) {
		servers, urls := w.four()
		attackers := w.attackers(16)
		a := w.account().enrol(urls[0], protocol.MaxGuesses)
		all := loot{}
		for rounds := 0; all[protocol.CodeErased] == 0; rounds++ {
			for c, n := range a.assault(attackers, 25, urls...) {
				if all[c] += n; c != protocol.CodeOK && c != protocol.CodeLocked && c != protocol.CodeErased {
					w.Errorf("%d times %v", n, c)
				}
			}
			if w.Failed() || rounds > 20 {
				w.Fatalf("%v in %d rounds", all, rounds)
			}
			w.later(73 * time.Hour)
			a.seq.Store(uint64(w.now().UnixMilli()))
		}
		if n := all[protocol.CodeOK]; n != protocol.MaxGuesses {
			w.Errorf("%d evaluations left, want %d", n, protocol.MaxGuesses)
		}
		if s := a.status(servers[1].url); s.State != protocol.StateErased || int(s.Life) != protocol.MaxGuesses {
			w.Errorf("got %+v", s)
		}
		if err := a.guess(servers[2].url); code(err) != protocol.CodeErased {
			w.Error(err)
		}
		w.Logf("of %d guesses at once, again and again: %v", 16*25, all)
	})
}

// Clocks are wrong, each in another way, and are set back and forward in the middle of
// the attack: exactly as many evaluations leave as the limit allows. A clock that is
// ahead lets one wait less by what it is ahead, in all and not with each guess.
func TestWrongClocks(t *testing.T) {
	onAll(t, func(w *world) {
		servers, urls := w.four()
		attackers := w.attackers(4)
		a := w.account().enrol(urls[0], protocol.MaxGuesses)
		hour := func(n int) time.Duration { return time.Duration(n) * time.Hour }

		// Three guesses, and then a minute without, at the three that are right.
		if got := a.assault(attackers, 10, urls[:3]...); got[protocol.CodeOK] != 3 {
			w.Fatalf("got %v", got)
		}
		// The fourth is three days ahead: there the waits that fit in three days are over,
		// which are 5 min, 1 h and 6 h after this one, but each begins when the last ended.
		servers[3].ahead(hour(72))
		got := a.assault(attackers, 10, urls[3])
		if got[protocol.CodeOK] != 1 {
			w.Errorf("at the one that is ahead: got %v", got)
		}
		until := a.status(urls[0]).Until
		if wait := time.Duration(until-w.now().UnixMilli()) * time.Millisecond; wait < hour(72) || wait > hour(73) {
			w.Errorf("the others now wait for %v", wait)
		}
		// To and fro: nothing is had by it.
		for _, d := range []int{-1000, 0, 72, -72, 71} {
			for i, s := range servers {
				s.ahead(hour(d * (i + 1) % 73))
			}
			for c, n := range a.assault(attackers, 10, urls...) {
				if c != protocol.CodeLocked {
					w.Errorf("%d times %v with clocks %d hours ahead", n, c, d)
				}
			}
		}
		// However far they are set, the limit holds. What is counted is not a time.
		all := 4
		for rounds := 0; ; rounds++ {
			for i, s := range servers {
				s.ahead(hour([]int{-100_000, 1000, 0, -72}[(i+rounds)%4] + 200*rounds))
			}
			got := a.assault(attackers, 25, urls...)
			if all += got[protocol.CodeOK]; got[protocol.CodeErased] > 0 {
				break
			}
			if rounds > 40 {
				w.Fatalf("%d evaluations left in %d rounds", all, rounds)
			}
		}
		if all != protocol.MaxGuesses {
			w.Errorf("%d evaluations left, want %d", all, protocol.MaxGuesses)
		}
	})
}

// killEnv is how many servers are killed in TestKilledServers; a few without it.
const killEnv = "SATCHEL_SERVER_KILLS"

// R12: servers, and the database where it is the test's own, are killed in the middle of an
// attack, and start again: no guess whose evaluation left comes back, and all in all no
// more leave than the limit allows. What a killed server did not answer may be spent.
func TestKilledServers(t *testing.T) {
	kills, accounts := 4, 4
	if s := os.Getenv(killEnv); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
		accounts = 24
	}
	onAll(t, func(w *world) { w.killed(kills, accounts) })
	if haveClusters() {
		t.Run("database", func(t *testing.T) {
			t.Parallel()
			db := newCluster(t, clusterFolder(t), "db")
			db.start("")
			w := newWorld(t, "--database", db.address())
			w.database = db
			w.killed(kills, accounts)
		})
	}
}

// killed attacks so many accounts one after another: then there is always a guess on its
// way to the disk, while all of one account are spent in no time.
func (w *world) killed(kills, accounts int) {
	servers, urls := w.four()
	attackers := w.attackers(4)
	var mu sync.RWMutex // of urls
	where := func() []string {
		mu.RLock()
		defer mu.RUnlock()
		return slices.Clone(urls)
	}
	killed, databases, unanswered, all, spent := 0, 0, 0, 0, 0
	kill := func() {
		killed++
		if w.database != nil && rand.IntN(3) == 0 {
			databases++
			if rand.IntN(2) == 0 {
				w.database.murderBackend()
				return
			}
			w.database.murder()
			w.database.start("")
			return
		}
		i := rand.IntN(len(servers))
		servers[i].kill()
		s := w.serve()
		mu.Lock()
		defer mu.Unlock()
		servers[i], urls[i] = s, s.url
	}
	for killed < kills {
		var list []*account
		for range accounts {
			list = append(list, w.account().enrol(where()[0], protocol.MaxGuesses))
		}
		released, took := make([]int, accounts), 50*time.Millisecond
		for open := accounts; open > 0; {
			killing, after := make(chan struct{}), rand.N(took)
			go func() {
				defer close(killing)
				if killed < kills {
					time.Sleep(after) // No event can be waited for: any moment is good.
					kill()
				}
			}()
			begun := time.Now()
			var wait sync.WaitGroup
			var sum sync.Mutex
			for _, one := range attackers {
				wait.Go(func() {
					for i, a := range list {
						got := a.assault([]*attacker{one}, 3, where()...)
						sum.Lock()
						released[i] += got[protocol.CodeOK]
						unanswered += got[lost] + got[protocol.CodeUnavailable]
						sum.Unlock()
					}
				})
			}
			wait.Wait()
			took = min(time.Since(begun), time.Second)
			<-killing
			open = 0
			for i, a := range list {
				s := w.recovered(a, where()[i%4:i%4+1])
				if int(s.Life) < released[i] {
					w.Fatalf("%d evaluations left, and %d guesses are spent", released[i], s.Life)
				}
				if s.Left > 0 {
					open++
				}
			}
			w.later(73 * time.Hour)
			for _, a := range list {
				a.seq.Store(uint64(w.now().UnixMilli()))
			}
		}
		for i, a := range list {
			err := a.guess(where()[i%4])
			for try := 0; code(err) == protocol.CodeUnavailable && try < 100; try++ { // Connections to the one that died are found dead first.
				err = a.guess(where()[i%4])
			}
			if code(err) != protocol.CodeErased {
				w.Fatal(err)
			}
			s := w.recovered(a, where()[(i+1)%4:(i+1)%4+1])
			if released[i] > protocol.MaxGuesses || s.Left != 0 {
				w.Fatalf("%d evaluations left, want at most %d; %+v", released[i], protocol.MaxGuesses, s)
			}
			all, spent = all+released[i], spent+int(s.Life)
		}
	}
	w.Logf("%d kills, %d of them of the database; of %d guesses that were spent %d evaluations left; %d had no answer", killed, databases, spent, all, unanswered)
}

// recovered returns the status once every server answers again.
func (w *world) recovered(a *account, urls []string) (s protocol.Status) {
	w.Helper()
	for _, url := range urls {
		var err error
		for range 200 {
			if err = a.ask(url, protocol.AskStatus{}, &s); err == nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil {
			w.Fatalf("it does not recover: %v", err)
		}
	}
	return s
}
