package alarm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/alarm"
)

// Flushing is free on a file system in memory.
func TestMain(m *testing.M) {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		os.Setenv("TMPDIR", "/dev/shm")
	}
	os.Exit(m.Run())
}

// person is a receiver that remembers, with faults.
type person struct {
	mu    sync.Mutex
	got   []alarm.Message // guarded by mu
	tries int             // guarded by mu
	fail  error           // guarded by mu
	lost  bool            // messages arrive, and the answer does not; guarded by mu
	hang  bool            // guarded by mu
}

func (p *person) Send(ctx context.Context, m alarm.Message) error {
	p.mu.Lock()
	p.tries++
	fail, lost, hang := p.fail, p.lost, p.hang
	if fail == nil && !hang || lost {
		p.got = append(p.got, m)
	}
	p.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return fail
}

// take returns what arrived since the last call.
func (p *person) take() []alarm.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	return got
}

func (p *person) tried() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tries
}

func (p *person) set(fail error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = fail
}

// world is a board at work, in a bubble of package synctest.
type world struct {
	*testing.T
	path    string
	board   *alarm.Board
	people  map[string]*person
	cancel  context.CancelFunc
	ended   sync.WaitGroup
	mu      sync.Mutex
	reports []string        // guarded by mu
	gone    map[string]bool // wallets that are not here; guarded by mu
	places  []alarm.Place   // how those of Sam stand
	ahead   atomic.Int64    // of the wall clock: the machine slept
}

func try(t *testing.T, test func(w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, path: filepath.Join(t.TempDir(), "state.json"), people: map[string]*person{"1": {}}, gone: map[string]bool{},
			places: []alarm.Place{{Address: "gdrive:ann@example.org", Called: "Google Drive", Health: satchel.HealthProtected}}}
		w.start()
		defer w.stop()
		test(w)
	})
}

// What is of no wallet is told, in words that make none up.
func TestBlind(t *testing.T) {
	try(t, func(w *world) {
		none := func(e *alarm.Event) { e.Wallet, e.Label, e.Error = "", "", "permission denied" }
		w.tell("blind", none)
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		if got := w.people["1"].take(); len(got) > 0 {
			t.Errorf("too early: %v", got)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		got := w.people["1"].take()
		if len(got) != 1 || got[0].Subject() != "Satchel: this device: wallets cannot be looked for" || !strings.Contains(got[0].Text(), "cannot look which wallets there are since") {
			t.Fatalf("got %+v", got)
		}
		time.Sleep(time.Hour)
		w.tell("sees", none)
		time.Sleep(time.Hour)
		synctest.Wait()
		got = w.people["1"].take()
		if len(got) != 1 || got[0].Subject() != "Satchel: all clear: this device: wallets can be looked for again" || !strings.Contains(got[0].Text(), "The wallets of this device can be looked for again") {
			t.Errorf("got %+v", got)
		}
	})
}

func (w *world) start() {
	w.board = alarm.Open(alarm.Config{Path: w.path, Now: w.now, Has: func(wallet string) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return !w.gone[wallet]
	},
		Report: func(id string, err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.reports = append(w.reports, fmt.Sprint(id, ": ", err))
		}})
	w.to()
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.ended.Go(func() { w.board.Run(ctx) })
}

// has says whether a wallet is here.
func (w *world) has(wallet string, here bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone[wallet] = !here
}

// reported returns what the board reported.
func (w *world) reported() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.reports)
}

func (w *world) stop() {
	w.cancel()
	w.ended.Wait()
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// later lets the machine sleep until nearly so much time has passed.
func (w *world) later(d time.Duration, want ...string) {
	w.Helper()
	w.ahead.Add(int64(d - 2*time.Minute))
	w.wait(2*time.Minute, want...)
}

func (w *world) to() {
	var to []alarm.To
	for id, p := range w.people {
		to = append(to, alarm.To{ID: id, Receiver: p})
	}
	w.board.To(to)
}

// tell tells the board an event of a wallet, with how its places stand.
func (w *world) tell(name string, change func(*alarm.Event)) {
	e := alarm.Event{Wallet: "Sam-1a2b", Label: "Sam", Name: name, Time: w.now(), Places: slices.Clone(w.places)}
	e.Protected = slices.ContainsFunc(e.Places, func(p alarm.Place) bool { return p.Health == satchel.HealthProtected })
	if change != nil {
		change(&e)
	}
	w.board.Event(e)
}

// health tells that Sam's place stands like this.
func (w *world) health(h satchel.Health) {
	w.places[0].Health = h
	w.tell("late", nil)
}

// wait lets time pass, and compares what was told meanwhile to a person: each message as
// its items, "state kind".
func (w *world) wait(d time.Duration, want ...string) {
	w.Helper()
	w.waitFor("1", d, want...)
}

func (w *world) waitFor(id string, d time.Duration, want ...string) {
	w.Helper()
	time.Sleep(d)
	synctest.Wait()
	var got []string
	for _, m := range w.people[id].take() {
		var items []string
		for _, it := range m.Items {
			items = append(items, fmt.Sprintf("%s %s", it.State, it.Kind))
		}
		got = append(got, strings.Join(items, ", "))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.Errorf("told (-want +got):\n%s", diff)
	}
}

var errAway = errors.New("away")

// What deserves a person is told once it lasts long enough, once a day after that, and
// that it is over.
func TestKinds(t *testing.T) {
	alarmed := func(w *world) {
		w.places[0].Health = satchel.HealthUnreachable
		w.tell("alarm", func(e *alarm.Event) { e.Since = w.now().Add(-time.Hour) })
	}
	for _, test := range []struct {
		kind         alarm.Kind
		raise, clear func(w *world)
		after        time.Duration // until it is told
		again        time.Duration
	}{
		{alarm.Unprotected, alarmed, func(w *world) { w.health(satchel.HealthProtected) }, 0, 24 * time.Hour},
		{alarm.NotSaved, func(w *world) { w.tell("not saved", nil) }, func(w *world) { w.tell("saved", nil) }, 10 * time.Minute, 24 * time.Hour},
		{alarm.Ended, func(w *world) {
			w.tell("ended", func(e *alarm.Event) { e.Error, e.Places = "another device writes", nil })
		},
			func(w *world) { w.tell("watching", nil) }, 2 * time.Minute, 24 * time.Hour},
		{alarm.SignIn, func(w *world) { w.health(satchel.HealthSignIn) }, func(w *world) { w.health(satchel.HealthProtected) }, 2 * time.Minute, 24 * time.Hour},
		{alarm.WrongAccount, func(w *world) { w.health(satchel.HealthWrongAccount) }, func(w *world) { w.health(satchel.HealthProtected) }, 2 * time.Minute, 24 * time.Hour},
		{alarm.Full, func(w *world) { w.health(satchel.HealthFull) }, func(w *world) { w.health(satchel.HealthProtected) }, 5 * time.Minute, 24 * time.Hour},
		{alarm.Damaged, func(w *world) { w.health(satchel.HealthMissing) }, func(w *world) { w.health(satchel.HealthProtected) }, 2 * time.Minute, 24 * time.Hour},
		{alarm.Away, func(w *world) { w.health(satchel.HealthUnreachable) }, func(w *world) { w.health(satchel.HealthProtected) }, 24 * time.Hour, 24 * time.Hour},
		{alarm.Branch, func(w *world) { w.places[0].Branch = "000001-0000000002"; w.tell("branch", nil) },
			func(w *world) { w.places[0].Branch = ""; w.tell("checked", nil) }, 0, 7 * 24 * time.Hour},
		{alarm.Source, func(w *world) { w.tell("source failed", func(e *alarm.Event) { e.Error = "lnd does not answer" }) },
			func(w *world) { w.tell("source works", nil) }, 15 * time.Minute, 24 * time.Hour},
		{alarm.Source, func(w *world) { w.tell("node", func(e *alarm.Event) { e.Error = "lnd does not answer" }) },
			func(w *world) { w.tell("node", nil) }, 15 * time.Minute, 24 * time.Hour},
		{alarm.Opening, func(w *world) { w.tell("open unfinished", func(e *alarm.Event) { e.Error = "cut short" }) },
			func(w *world) { w.tell("open unfinished", nil) }, 10 * time.Minute, 24 * time.Hour},
		{alarm.Opening, func(w *world) { // It went on by the time that the agent begins anew.
			w.tell("watching", nil)
			w.tell("open unfinished", func(e *alarm.Event) { e.Error = "cut short" })
		}, func(w *world) { w.tell("open unfinished", nil) }, 10 * time.Minute, 24 * time.Hour},
		{alarm.Gone, func(w *world) {
			w.has("Sam-1a2b", false)
			w.tell("gone", func(e *alarm.Event) { e.Error, e.Places = "its folder is gone", nil })
		}, func(w *world) { w.has("Sam-1a2b", true); w.tell("watching", nil) }, 2 * time.Minute, 24 * time.Hour},
		{alarm.DrillDue, func(w *world) { w.tell("drill due", nil) }, func(w *world) { w.tell("drilled", nil) }, 0, 30 * 24 * time.Hour},
	} {
		t.Run(string(test.kind), func(t *testing.T) {
			try(t, func(w *world) {
				kind := string(test.kind)
				test.raise(w)
				if test.after > time.Hour {
					w.later(test.after - time.Hour)
					test.after = time.Hour
				}
				w.wait(test.after + 20*time.Second)
				w.wait(15*time.Second, "raised "+kind)
				test.raise(w) // The agent tells it again.
				w.later(test.again - 2*time.Minute)
				w.wait(3*time.Minute, "lasts "+kind)
				w.wait(11 * time.Minute)
				test.clear(w)
				w.wait(2*time.Minute, "over "+kind)
				w.later(72 * time.Hour)
				if n := len(w.board.Active()); n != 0 {
					t.Errorf("%d are active", n)
				}

				// What is over before it was told is not told; neither is its end.
				if test.kind == alarm.Damaged {
					return
				}
				test.raise(w)
				w.wait(10 * time.Second)
				test.clear(w)
				w.later(48 * time.Hour)
			})
		})
	}
}

// An event of a wallet that ends well, or of none, is no alarm.
func TestNoAlarm(t *testing.T) {
	try(t, func(w *world) {
		for _, name := range []string{"watching", "saved", "checked", "caught up", "pruned", "opened again", "left out", "elsewhere", "ended", "note"} {
			w.tell(name, nil)
		}
		w.board.Event(alarm.Event{Name: "ended", Error: "x", Time: w.now()})
		w.wait(48 * time.Hour)
	})
}

// An alarm although the newest state is protected is of a source.
func TestAlarmOfSource(t *testing.T) {
	try(t, func(w *world) {
		w.tell("alarm", func(e *alarm.Event) { e.Since, e.Error = w.now().Add(-time.Hour), "lnd does not answer" })
		w.wait(time.Hour, "raised source failed")
		w.tell("checked", nil)
		w.wait(time.Hour)
		w.tell("source works", nil)
		w.wait(time.Hour, "over source failed")
	})
}

// Damage that was put back at once is told with that, once.
func TestPutBack(t *testing.T) {
	try(t, func(w *world) {
		w.health(satchel.HealthDamaged)
		w.wait(5 * time.Second)
		w.health(satchel.HealthProtected)
		w.wait(time.Hour, "passed damaged")
		w.wait(72 * time.Hour)
		// Noticed and put back in one go.
		w.tell("saved", func(e *alarm.Event) { e.Healed = []string{w.places[0].Address} })
		w.wait(time.Hour, "passed damaged")
		// And again: it is told anew, though not more often than messages may be.
		w.tell("saved", func(e *alarm.Event) { e.Healed = []string{w.places[0].Address} })
		w.wait(time.Hour, "passed damaged")
	})
}

// What happens together is told together, with the most urgent first.
func TestTogether(t *testing.T) {
	try(t, func(w *world) {
		for i := range 30 {
			name := fmt.Sprintf("wallet-%02d", i)
			w.tell("drill due", func(e *alarm.Event) { e.Wallet, e.Label = name, name })
			time.Sleep(500 * time.Millisecond)
		}
		w.tell("alarm", func(e *alarm.Event) { e.Since, e.Protected = w.now(), false })
		time.Sleep(time.Minute)
		synctest.Wait()
		p := w.people["1"]
		if got := p.take(); len(got) != 1 || len(got[0].Items) != 20 || got[0].More != 11 || got[0].Items[0].Kind != alarm.Unprotected {
			t.Fatalf("got %+v", got)
		}
		// What comes soon after waits, and is told in one, too.
		w.health(satchel.HealthFull)
		w.wait(time.Minute)
		w.tell("not saved", nil)
		w.wait(4 * time.Minute)
		w.wait(time.Hour, "raised full", "raised not saved")
	})
}

// Between two messages are ten minutes, and what comes meanwhile is one.
func TestApart(t *testing.T) {
	try(t, func(w *world) {
		due := func(name string) { w.tell("drill due", func(e *alarm.Event) { e.Wallet = name }) }
		due("one")
		w.wait(time.Minute, "raised drill due")
		due("two")
		w.wait(3 * time.Minute)
		due("three")
		w.wait(5 * time.Minute)
		w.wait(2*time.Minute, "raised drill due, raised drill due")
	})
}

// What could not be delivered is told when it can be, as it stands then; tries get rarer,
// and a receiver that fails keeps none from the others.
func TestRetry(t *testing.T) {
	try(t, func(w *world) {
		w.people["2"] = &person{hang: true}
		w.to()
		p := w.people["1"]
		p.set(errAway)
		w.health(satchel.HealthFull)
		w.wait(6 * time.Minute)
		if diff := cmp.Diff([]string{"1: away"}, w.reported()); diff != "" {
			t.Error(diff)
		}
		w.wait(24 * time.Hour)
		if n := p.tried(); n < 20 || n > 60 {
			t.Errorf("%d tries in a day", n)
		}
		w.tell("not saved", nil)
		w.health(satchel.HealthProtected)
		w.wait(time.Hour)
		p.set(nil)
		w.wait(time.Hour, "raised not saved") // The place is well again, and nobody knew that it was not.
		if all := w.reported(); all[len(all)-1] != "1: <nil>" {
			t.Errorf("got reports %q", all)
		}
	})
}

// A message whose answer was lost is sent again under the same id.
func TestAnswerLost(t *testing.T) {
	try(t, func(w *world) {
		p := w.people["1"]
		p.mu.Lock()
		p.fail, p.lost = errAway, true
		p.mu.Unlock()
		w.health(satchel.HealthFull)
		time.Sleep(6 * time.Minute)
		w.stop()
		p.set(nil)
		w.start()
		time.Sleep(time.Hour)
		synctest.Wait()
		got := p.take()
		if len(got) < 2 {
			t.Fatalf("%d messages", len(got))
		}
		for _, m := range got {
			if m.ID != got[0].ID || len(m.ID) != 32 {
				t.Errorf("got ids %q and %q", m.ID, got[0].ID)
			}
		}
		w.wait(20 * time.Hour)
		w.wait(4*time.Hour, "lasts full")
	})
}

// A restart forgets nothing.
func TestRestart(t *testing.T) {
	try(t, func(w *world) {
		p := w.people["1"]
		w.health(satchel.HealthFull)
		w.wait(6*time.Minute, "raised full")
		p.set(errAway)
		w.tell("not saved", nil)
		w.wait(time.Hour)
		for range 5 {
			w.stop()
			w.start()
			w.tell("watching", nil)
			w.wait(time.Minute)
		}
		p.set(nil)
		w.stop()
		w.start()
		w.wait(time.Hour, "raised not saved")
		w.stop()
		time.Sleep(23 * time.Hour)
		w.start()
		w.wait(time.Hour, "lasts not saved, lasts full")
		w.places[0].Health = satchel.HealthProtected
		w.tell("saved", nil)
		w.stop()
		w.start()
		w.wait(time.Hour, "over not saved, over full")
		w.wait(72 * time.Hour)
		w.stop()
		// The record forgets in the end.
		data, err := os.ReadFile(w.path)
		if err != nil || strings.Contains(string(data), "Sam") {
			t.Errorf("%s, %v", data, err)
		}
		w.start()
	})
}

// What comes and goes all the time is told rarely.
func TestFlaps(t *testing.T) {
	try(t, func(w *world) {
		for range 36 * 12 { // 36 hours
			w.health(satchel.HealthSignIn)
			time.Sleep(3 * time.Minute)
			w.health(satchel.HealthProtected)
			time.Sleep(2 * time.Minute)
		}
		synctest.Wait()
		if n := len(w.people["1"].take()); n < 2 || n > 8 {
			t.Errorf("%d messages in 36 hours", n)
		}
	})
}

// The troubles of a wallet that is not here any more are over, and so are those of a place
// that was removed.
func TestGone(t *testing.T) {
	try(t, func(w *world) {
		w.places = append(w.places, alarm.Place{Address: "folder:/mnt", Called: "a folder", Health: satchel.HealthFull})
		w.tell("late", nil)
		w.wait(time.Hour, "raised full")
		w.places = w.places[:1]
		w.tell("watching", nil)
		w.wait(time.Hour, "over full")
		w.tell("ended", func(e *alarm.Event) { e.Error, e.Places = "no wallet", nil })
		w.wait(time.Hour, "raised ended")
		w.tell("gone", func(e *alarm.Event) { e.Places = nil })
		w.wait(time.Hour, "over ended")
		w.tell("drill due", nil)
		w.wait(time.Hour, "raised drill due")
		w.mu.Lock()
		w.gone["Sam-1a2b"] = true // while no agent ran
		w.mu.Unlock()
		w.wait(time.Hour, "over drill due")
	})
}

// Who comes later is told what is wrong; who goes is told nothing more.
func TestReceivers(t *testing.T) {
	try(t, func(w *world) {
		w.health(satchel.HealthFull)
		w.wait(time.Hour, "raised full")
		w.people["2"] = &person{}
		w.to()
		w.waitFor("2", time.Minute, "raised full")
		gone := w.people["1"]
		delete(w.people, "1")
		w.to()
		w.health(satchel.HealthProtected)
		w.waitFor("2", time.Hour, "over full")
		if got := gone.take(); len(got) != 0 {
			t.Errorf("got %+v", got)
		}
		got, err := alarm.Standings(w.path)
		if err != nil || len(got) != 1 || got["2"].Sent.IsZero() || got["2"].Waiting != 0 {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

// A record that cannot be written, or read, stops no alarm.
func TestNoRecord(t *testing.T) {
	try(t, func(w *world) {
		w.stop()
		if err := os.WriteFile(w.path, []byte(`{"satchel-alarms":1,"troubles":{"x":null},"receivers":{}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		w.start()
		dir := filepath.Dir(w.path)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		w.health(satchel.HealthFull)
		w.wait(time.Hour, "raised full")
		w.wait(22 * time.Hour)
		w.wait(2*time.Hour, "lasts full")
		if len(w.reported()) != 2 || !strings.Contains(w.reported()[0], "cannot be read") || !strings.Contains(w.reported()[1], "keeping the record") {
			t.Errorf("got %q", w.reported())
		}
	})
}

// The messages say what the user allowed, and no more.
func TestDetail(t *testing.T) {
	for detail, want := range map[alarm.Detail][]string{
		"":          {"Sam Smith", "Google Drive"},
		alarm.Label: {"Sam Smith", "Google Drive"},
		alarm.Least: {"A wallet", "A place"},
		alarm.All:   {"Sam Smith", "gdrive:ann@example.org", "token of ann@example.org"},
	} {
		t.Run(string(detail), func(t *testing.T) {
			try(t, func(w *world) {
				p := w.people["1"]
				w.board.To([]alarm.To{{ID: "1", Receiver: p, Detail: detail}})
				w.places[0] = alarm.Place{Address: "gdrive:ann@example.org", Called: "Google Drive", Health: satchel.HealthSignIn, Error: "the token of ann@example.org ended",
					Branch: "000001-0000000002"}
				change := func(e *alarm.Event) {
					e.Label, e.Error, e.Since = "Sam Smith", "the token of ann@example.org ended", w.now()
				}
				for _, name := range []string{"alarm", "not saved", "ended", "source failed", "drill due"} {
					w.tell(name, change)
				}
				time.Sleep(time.Hour)
				w.places[0].Health = satchel.HealthProtected
				w.places[0].Branch = ""
				for _, name := range []string{"watching", "saved", "source works", "drilled"} {
					w.tell(name, nil)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				all := ""
				for _, m := range p.take() {
					all += m.Subject() + m.Text() + fmt.Sprintf("%+v", m.Items)
				}
				for _, s := range []string{"Sam", "gdrive:", "ann@example.org", "Google Drive", "A wallet", "000001-0000000002"} {
					allowed := slices.ContainsFunc(want, func(w string) bool { return strings.Contains(w, s) }) || detail == alarm.All && s == "000001-0000000002"
					if got := strings.Contains(all, s); got != allowed {
						t.Errorf("%q: %q is there: %v, want %v", detail, s, got, allowed)
					}
				}
				for _, s := range want {
					if !strings.Contains(all, s) {
						t.Errorf("%q: no %q in %s", detail, s, all)
					}
				}
			})
		})
	}
}

// Every message says what happened, what is safe, and what to do next, and every end
// what is over. Names from outside cannot do anything to a screen or a header.
func TestWords(t *testing.T) {
	try(t, func(w *world) {
		p := w.people["1"]
		w.places[0].Health, w.places[0].Branch = satchel.HealthSignIn, "x"
		evil := "Sam\r\nBcc: eve@example.org\x1b[2J\u202e"
		for _, h := range []satchel.Health{satchel.HealthWrongAccount, satchel.HealthFull, satchel.HealthMissing, satchel.HealthUnreachable} {
			w.places = append(w.places, alarm.Place{Address: "mem:" + string(h), Called: "a place", Health: h, Hint: "do \x1b[2J this"})
		}
		for _, name := range []string{"not saved", "ended", "source failed", "drill due", "alarm"} {
			w.tell(name, func(e *alarm.Event) { e.Label, e.Error, e.Since, e.Protected = evil, "no", w.now(), name != "alarm" })
		}
		time.Sleep(25 * time.Hour)
		for i := range w.places {
			w.places[i].Health, w.places[i].Branch = satchel.HealthProtected, ""
		}
		for _, name := range []string{"watching", "saved", "source works", "drilled"} {
			w.tell(name, nil)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		raised, over := map[alarm.Kind]bool{}, map[alarm.Kind]bool{}
		for _, m := range p.take() {
			for _, it := range m.Items {
				switch it.State {
				case alarm.Raised, alarm.Lasts:
					raised[it.Kind] = true
					if it.Happened == "" || it.Safe == "" || it.Next == "" {
						t.Errorf("%+v", it)
					}
				case alarm.Over:
					over[it.Kind] = true
					if it.Happened == "" {
						t.Errorf("%+v", it)
					}
				}
			}
			if strings.ContainsAny(m.Subject(), "\r\n\x1b\u202e") || strings.ContainsAny(m.Text(), "\r\x1b\u202e") || strings.Contains(m.Text(), "%!") || strings.Contains(m.Subject(), "%!") {
				t.Errorf("%q\n%s", m.Subject(), m.Text())
			}
			t.Logf("Subject: %s\n%s", m.Subject(), m.Text())
		}
		if len(raised) != 10 || len(over) != 10 { // A place that is away is not told beside an alarm.
			t.Errorf("raised %v, over %v", raised, over)
		}
	})
}

// R2: the only place may be gone although all was protected there: it is told after a day,
// and no other place is named as one that has it.
func TestOnlyPlace(t *testing.T) {
	for name, others := range map[string][]alarm.Place{"one": nil, "two": {{Address: "mem:2", Called: "a place", Health: satchel.HealthProtected}}} {
		t.Run(name, func(t *testing.T) {
			try(t, func(w *world) {
				w.places = append(w.places, others...)
				w.places[0].Health = satchel.HealthUnreachable
				w.tell("late", func(e *alarm.Event) { e.Protected = true })
				time.Sleep(25 * time.Hour)
				synctest.Wait()
				told := w.people["1"].take()
				if len(told) != 1 || len(told[0].Items) != 1 || told[0].Items[0].Kind != alarm.Away {
					t.Fatalf("got %+v", told)
				}
				if safe := told[0].Items[0].Safe; strings.Contains(safe, "another place") != (len(others) > 0) {
					t.Error(safe)
				}
			})
		})
	}
}

// docs/alarms.md has every kind, and what it says of times is so.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "alarms.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []alarm.Kind{alarm.Unprotected, alarm.NotSaved, alarm.Ended, alarm.WrongAccount, alarm.SignIn, alarm.Full, alarm.Source, alarm.Damaged, alarm.Branch, alarm.Away, alarm.Opening, alarm.Gone, alarm.DrillDue} {
		if !strings.Contains(string(text), "`"+string(k)+"`") {
			t.Errorf("docs/alarms.md lacks %s", k)
		}
	}
	for _, s := range []alarm.State{alarm.Raised, alarm.Lasts, alarm.Over, alarm.Passed} {
		if !strings.Contains(string(text), "`"+string(s)+"`") {
			t.Errorf("docs/alarms.md lacks %s", s)
		}
	}
}
