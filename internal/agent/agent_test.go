package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/source"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/storetest"
)

// never is an agent that compares nothing.
var never = agent.Config{CheckEvery: -1}

func TestSaves(t *testing.T) {
	try(t, 2, never, nil, func(w *world) {
		w.put1("labels", "1")
		w.want("saved labels")
		w.put1("labels", "1")
		w.want()
		w.put(item("labels", "1"), item("contacts", "2"), source.Change{Name: "settings", Value: []byte("3"), Required: true})
		e := w.want("saved contacts settings")
		if len(e) == 1 && (e[0].Generation != 3 || e[0].Err != nil || e[0].Places[1].Health != satchel.HealthProtected) {
			t.Errorf("got %+v", e[0])
		}
		// A removal of what is not there is no error, and keeps nothing else from being
		// saved.
		w.put(source.Change{Name: "nothing", Remove: true})
		w.want()
		w.put(source.Change{Name: "nothing", Remove: true}, item("labels", "4"), source.Change{Name: "contacts", Remove: true})
		w.want("saved labels -nothing -contacts")
		w.wait(time.Hour)
		w.want()
		for i := range 2 {
			w.restores(i, map[string]string{"labels": "4", "settings": "3"})
		}
	})
}

// A change that a place does not take is kept, and goes up when it can. Tries get
// rarer, and the alarm is raised after an hour (R9).
func TestPlaceAway(t *testing.T) {
	try(t, 1, never, nil, func(w *world) {
		place := w.places[0]
		place.Set(storetest.Any, storetest.Unreachable)
		w.put1("labels", "1")
		e := w.want("saved labels!")
		if len(e) == 1 && (!errors.Is(e[0].Err, store.ErrUnreachable) || e[0].Places[0].Health != satchel.HealthUnreachable) {
			t.Errorf("got %+v", e[0])
		}
		tries := place.Count(storetest.List)
		w.wait(59 * time.Minute)
		w.want()
		if n := place.Count(storetest.List) - tries; n < 12 || n > 35 {
			t.Errorf("%d tries in an hour, want about one each 4 minutes in the end", n)
		}
		w.wait(2 * time.Minute)
		if e := w.want("alarm!"); len(e) == 1 && (e[0].Time.Sub(e[0].Since).Round(time.Minute) != time.Hour || !errors.Is(e[0].Err, store.ErrUnreachable)) {
			t.Errorf("got %+v", e[0])
		}
		w.later(22 * time.Hour)
		w.want()
		w.later(3 * time.Hour)
		w.want("late!", "alarm!")

		// It is back: within the longest pause.
		place.Set(storetest.Any, storetest.None)
		w.wait(5 * time.Minute)
		w.want("caught up")
		w.restores(0, map[string]string{"labels": "1"})
		w.later(2 * time.Hour)
		w.want()

		// The next time the tries begin at once again.
		place.Once(storetest.Put, storetest.NotApplied)
		w.put1("labels", "2")
		w.want("saved labels!")
		w.wait(2 * time.Second)
		w.want("caught up")
	})
}

// Trouble is told once, again a day later, and again when it is another trouble.
func TestTellsOnce(t *testing.T) {
	try(t, 2, never, nil, func(w *world) {
		w.places[1].Set(storetest.Any, storetest.Unreachable)
		w.wait(15 * time.Minute)
		w.want("late")
		w.later(23 * time.Hour)
		w.want() // One place is enough to be protected: no alarm.
		w.later(2 * time.Hour)
		w.want("late")
		w.places[1].Set(storetest.Any, storetest.SignIn)
		w.wait(5 * time.Minute)
		if e := w.want("late"); len(e) == 1 && e[0].Places[1].Health != satchel.HealthSignIn {
			t.Errorf("got %+v", e[0])
		}
		w.put1("labels", "1")
		w.want("saved labels")
		w.places[1].Set(storetest.Any, storetest.None)
		w.wait(6 * time.Minute)
		w.want("caught up")
		w.restores(1, map[string]string{"labels": "1"})
	})
}

// R9: where only signing in helps, nobody is asked again and again.
func TestSignIn(t *testing.T) {
	try(t, 1, never, nil, func(w *world) {
		w.places[0].Set(storetest.Any, storetest.SignIn)
		w.put1("labels", "1")
		calls := w.places[0].Count(storetest.Any)
		w.wait(2 * time.Minute)
		if n := w.places[0].Count(storetest.Any); n != calls {
			t.Errorf("%d calls in two minutes after sign-in needed", n-calls)
		}
		w.wait(58 * time.Minute)
		if n := w.places[0].Count(storetest.Any) - calls; n < 10 || n > 25 {
			t.Errorf("%d calls in an hour after sign-in needed", n)
		}
		w.places[0].Set(storetest.Any, storetest.None)
		w.wait(5 * time.Minute)
		events := w.take()
		if last := events[len(events)-1]; last.Kind != agent.CaughtUp {
			t.Errorf("got %+v", last)
		}
	})
}

// R14: a full place is told, tried again, and takes everything in the end.
func TestFull(t *testing.T) {
	try(t, 1, never, nil, func(w *world) {
		w.places[0].Set(storetest.Put, storetest.Full)
		for i := range 10 {
			w.put1("labels", fmt.Sprint(i))
		}
		e := w.take()
		if len(e) != 10 || e[9].Places[0].Health != satchel.HealthFull || !errors.Is(e[9].Err, store.ErrFull) {
			t.Errorf("got %+v", e)
		}
		w.wait(30 * time.Minute)
		w.want()
		w.places[0].Set(storetest.Put, storetest.None)
		w.wait(5 * time.Minute)
		if e := w.want("caught up"); len(e) == 1 && e[0].Generation != 11 {
			t.Errorf("generation %d, want 11", e[0].Generation)
		}
		w.restores(0, map[string]string{"labels": "9"})
	})
}

// What another process could not bring up goes up soon.
func TestAnotherProcess(t *testing.T) {
	try(t, 1, never, nil, func(w *world) {
		w.wait(time.Minute)
		other := w.another(true)
		defer other.Close()
		w.places[0].Once(storetest.Put, storetest.NotApplied)
		if _, err := other.Save(w.Context(), satchel.Change{Name: "contacts", Value: []byte("1")}); !errors.Is(err, satchel.ErrNotProtected) {
			t.Fatalf("got %v, want %v", err, satchel.ErrNotProtected)
		}
		w.wait(6 * time.Second)
		w.want("caught up")
		w.restores(0, map[string]string{"contacts": "1"})

		// What it did bring up is nothing to do here.
		calls := w.places[0].Count(storetest.Any)
		if _, err := other.Save(w.Context(), satchel.Change{Name: "contacts", Value: []byte("2")}); err != nil {
			t.Fatal(err)
		}
		calls = w.places[0].Count(storetest.Any) - calls
		before := w.places[0].Count(storetest.Any)
		w.wait(time.Minute)
		w.want()
		if n := w.places[0].Count(storetest.Any); n != before {
			t.Errorf("%d calls although all was well (a save makes %d)", n-before, calls)
		}
		w.put1("labels", "3")
		w.want("saved labels")
		w.restores(0, map[string]string{"contacts": "2", "labels": "3"})
	})
}

// R8: what vanished from a place is noticed by the look at it, and healed; the check then
// finds nothing wrong.
func TestCheckHeals(t *testing.T) {
	try(t, 2, agent.Config{}, nil, func(w *world) {
		w.put1("labels", strings.Repeat("1", 5000))
		w.want("saved labels")
		w.wait(time.Minute)
		if e := w.want("checked"); len(e) == 1 && (e[0].Err != nil || e[0].Report.Objects < 10 || len(e[0].Report.Findings) != 0) {
			t.Errorf("got %+v", e[0])
		}
		w.later(23 * time.Hour)
		w.want()
		list, err := w.stores[1].List(w.Context(), "")
		w.must(err)
		for _, o := range list {
			if strings.Contains(o.Name, "/items/") {
				w.must(w.stores[1].Delete(w.Context(), o))
			}
		}
		w.later(time.Hour)
		if e := w.want("healed", "checked"); len(e) == 2 && (len(e[0].Healed) != 1 || e[0].Healed[0] != "mem:1") {
			t.Errorf("got %+v", e[0])
		} else if e = e[1:]; len(e) == 1 && (e[0].Err != nil || len(e[0].Report.Findings) != 0 || e[0].Places[1].Health != satchel.HealthProtected) {
			t.Errorf("got %+v", e[0])
		}
		w.restores(1, map[string]string{"labels": strings.Repeat("1", 5000)})
		w.later(24 * time.Hour)
		w.want("checked")
	})
}

// A change that finds all gone puts all back, and says so.
func TestSaveHeals(t *testing.T) {
	try(t, 2, never, nil, func(w *world) {
		w.put1("labels", "1")
		w.want("saved labels")
		list, err := w.stores[1].List(w.Context(), "")
		w.must(err)
		for _, o := range list {
			w.must(w.stores[1].Delete(w.Context(), o))
		}
		w.put1("labels", "2")
		if e := w.want("saved labels"); len(e) == 1 && (len(e[0].Healed) != 1 || e[0].Healed[0] != "mem:1") {
			t.Errorf("got %+v", e[0])
		}
		w.restores(1, map[string]string{"labels": "2"})
		w.put1("labels", "3")
		if e := w.want("saved labels"); len(e) == 1 && len(e[0].Healed) != 0 {
			t.Errorf("got %+v", e[0])
		}
	})
}

// A check that finds damage says so, and that it was healed.
func TestCheckFinds(t *testing.T) {
	try(t, 1, agent.Config{CheckEvery: time.Minute}, nil, func(w *world) {
		w.wait(40 * time.Second)
		w.want("checked")
		list, err := w.stores[0].List(w.Context(), "")
		w.must(err)
		for _, o := range list {
			if strings.Contains(o.Name, "/slots/") {
				w.must(w.stores[0].Delete(w.Context(), o))
			}
		}
		w.wait(time.Minute)
		if e := w.want("checked!", "caught up"); len(e) == 2 && (!errors.Is(e[0].Err, satchel.ErrMissing) || len(e[0].Report.Findings) != 1) {
			t.Errorf("got %+v", e[0])
		}
		w.restores(0, map[string]string{})
		w.wait(time.Minute)
		w.want("checked")
	})
}

// A check that hangs keeps no change waiting.
func TestCheckLetsIn(t *testing.T) {
	prepare := func(w *world) {
		w.places[0].Choose(func(op storetest.Op, name string) storetest.Fault {
			if op == storetest.Get && strings.Contains(name, "/slots/") {
				return storetest.Hang
			}
			return storetest.None
		})
	}
	try(t, 1, agent.Config{}, prepare, func(w *world) {
		w.wait(31 * time.Second)
		for i := range 5 {
			w.put1("labels", fmt.Sprint(i)) // Time stands still: at once.
			w.want("saved labels")
			w.wait(20 * time.Second)
		}
		w.wait(time.Hour)
		if e := w.take(); len(e) == 0 || e[0].Kind != agent.Checked || satchel.CodeOf(e[0].Err) != satchel.CodeUnreachable {
			t.Errorf("got %+v", e)
		}
		w.restores(0, map[string]string{"labels": "4"})
	})
}

// A place that hangs keeps nothing from the other places for ever, and what it
// holds up is short after the first time.
func TestHang(t *testing.T) {
	try(t, 2, never, nil, func(w *world) {
		w.places[0].Set(storetest.Any, storetest.Hang)
		took := func(value string) time.Duration {
			start := time.Now()
			w.put1("labels", value)
			return time.Since(start)
		}
		if d := took("1"); d != 5*time.Minute {
			t.Errorf("the first change took %v", d)
		}
		if d := took("2"); d != 10*time.Second {
			t.Errorf("the second change took %v", d)
		}
		w.places[0].Set(storetest.Any, storetest.None)
		w.wait(5 * time.Minute)
		events := w.take()
		if last := events[len(events)-1]; last.Kind != agent.CaughtUp {
			t.Errorf("got %+v", last)
		}
		w.restores(0, map[string]string{"labels": "2"})
	})
}

// After a sleep all is tried at once, and what was not protected for long is an
// alarm only if that does not help.
func TestSleep(t *testing.T) {
	try(t, 1, never, nil, func(w *world) {
		w.places[0].Set(storetest.Any, storetest.Unreachable)
		w.put1("labels", "1")
		w.want("saved labels!")
		w.wait(20 * time.Minute)
		w.places[0].Set(storetest.Any, storetest.None)
		w.ahead.Add(int64(8 * time.Hour))
		w.wait(6 * time.Second)
		w.want("caught up")

		w.places[0].Set(storetest.Any, storetest.Unreachable)
		w.put1("labels", "2")
		w.want("saved labels!")
		w.wait(10 * time.Minute)
		w.ahead.Add(int64(8 * time.Hour))
		calls := w.places[0].Count(storetest.Any)
		w.wait(6 * time.Second)
		w.want("alarm!")
		if w.places[0].Count(storetest.Any) == calls {
			t.Error("no try after a sleep")
		}
	})
	t.Run("check", func(t *testing.T) {
		try(t, 1, agent.Config{CheckEvery: 10 * time.Minute}, nil, func(w *world) {
			w.wait(time.Minute)
			w.want("checked")
			w.ahead.Add(int64(10 * time.Minute))
			w.wait(6 * time.Second)
			w.want("checked")
			w.ahead.Add(-int64(300 * 24 * time.Hour)) // The clock was set.
			w.wait(11 * time.Minute)
			w.want("checked")
		})
	})
}

// What was not protected before the start is known.
func TestStart(t *testing.T) {
	late := func(w *world) {
		w.places[0].Set(storetest.Any, storetest.Unreachable)
		_, err := w.b.Save(w.Context(), satchel.Change{Name: "labels", Value: []byte("1")})
		if !errors.Is(err, satchel.ErrNotProtected) {
			w.Fatal(err)
		}
		w.wait(2 * time.Hour)
	}
	t.Run("well again", func(t *testing.T) {
		try(t, 1, never, func(w *world) { late(w); w.places[0].Set(storetest.Any, storetest.None) }, func(w *world) { w.want("caught up") })
	})
	t.Run("not yet", func(t *testing.T) {
		try(t, 1, never, late, func(w *world) { w.want("late!", "alarm!") })
	})
}

// Another process that keeps the wallet to itself is waited for; that is told once,
// and after an hour as an alarm.
func TestBusy(t *testing.T) {
	try(t, 1, never, nil, func(w *world) {
		w.wait(time.Second)
		other := w.another(false)
		for i := range 3 {
			if err := <-w.offer(item("labels", "1")); !errors.Is(err, satchel.ErrBusy) {
				t.Fatalf("got %v, want %v", err, satchel.ErrBusy)
			}
			if i == 0 {
				w.wait(time.Second)
				w.want("not saved labels")
			}
			w.later(25 * time.Minute)
		}
		w.wait(2 * time.Minute)
		events := w.take()
		if !slices.ContainsFunc(events, func(e agent.Event) bool { return e.Kind == agent.Alarm && errors.Is(e.Err, satchel.ErrBusy) }) {
			t.Errorf("no alarm: %+v", events)
		}
		w.must(other.Close())
		w.wait(6 * time.Minute)
		w.take()
		w.put1("labels", "1")
		w.want("saved labels", "source works")
		w.later(2 * time.Hour)
		w.want()
	})
}

// A source that fails is told once and run again. If it goes on failing for an hour that
// is an alarm; once it goes on for a while all is well, also if nothing changes in it.
func TestSourceFails(t *testing.T) {
	try(t, 1, never, nil, func(w *world) {
		began := w.feed.runs.Load()
		for range 5 {
			w.feed.fail <- io.ErrUnexpectedEOF
			w.wait(5 * time.Minute)
		}
		if e := w.want("source failed"); len(e) == 1 && !errors.Is(e[0].Err, io.ErrUnexpectedEOF) {
			t.Errorf("got %+v", e[0])
		}
		if n := w.feed.runs.Load() - began; n != 5 {
			t.Errorf("%d runs after 5 failures", n)
		}
		for range 8 {
			w.feed.fail <- io.ErrUnexpectedEOF
			w.wait(5 * time.Minute)
		}
		w.want("alarm")
		w.wait(7 * time.Minute)
		w.want()
		w.wait(4 * time.Minute)
		w.want("source works")
		w.wait(2 * time.Hour)
		w.want()
		w.feed.fail <- io.ErrUnexpectedEOF
		w.wait(time.Minute)
		w.want("source failed")
		w.put1("labels", "1")
		w.want("saved labels", "source works")
		w.wait(time.Hour)
		w.want()
	})
}

// A drill is due a week after the backup was made, and 90 days after the last one. That
// is told once a month, and that it passed.
func TestDrillDue(t *testing.T) {
	day := 24 * time.Hour
	try(t, 1, never, nil, func(w *world) {
		w.later(6*day + 20*time.Hour)
		w.want()
		w.later(4 * time.Hour)
		if e := w.want("drill due"); len(e) == 1 && !e[0].Since.IsZero() {
			t.Errorf("got %+v", e[0])
		}
		w.later(29 * day)
		w.want()
		w.later(2 * day)
		w.want("drill due")
		w.cfg.Now = func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }
		b := w.another(true)
		_, err := b.Drill(w.Context(), w.way)
		w.must(err)
		w.must(b.Close())
		w.wait(10 * time.Second)
		w.want("drilled")
		drilled := w.b.Status().Drilled
		w.later(89 * day)
		w.want()
		w.later(2 * day)
		if e := w.want("drill due"); len(e) == 1 && !e[0].Since.Equal(drilled) {
			t.Errorf("got %+v, want since %v", e[0], drilled)
		}
		b = w.another(true)
		_, err = b.Drill(w.Context(), w.way)
		w.must(err)
		w.wait(10 * time.Second)
		w.want("drilled")

		// Another way in was not tried, and is when it is not new any more.
		owner, err := b.Unlock(w.Context(), w.way)
		w.must(err)
		w.way, _ = slot.NewRecoveryCode()
		_, err = owner.AddSlot(w.Context(), w.way)
		w.must(err)
		w.must(owner.RemoveSlot(w.Context(), owner.Slot().ID))
		w.must(b.Close())
		w.wait(10 * time.Second)
		w.later(6 * day)
		w.want()
		w.later(2 * day)
		w.want("drill due")
	})
}

func TestNoDrill(t *testing.T) {
	try(t, 1, agent.Config{CheckEvery: -1, DrillEvery: -1}, nil, func(w *world) {
		w.later(100 * 24 * time.Hour)
		w.want()
	})
}

// Facts that no retry cures end it, with that one error.
func TestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		want error
		do   func(w *world)
	}{
		"another device": {satchel.ErrOtherDevice, func(w *world) {
			cfg := w.cfg
			cfg.Dir, cfg.Keychain, cfg.Settle = w.TempDir()+"/wallet", &ring{}, -1
			found, err := satchel.Find(w.Context(), cfg)
			w.must(err)
			o, err := found[0].Open(w.Context(), w.way)
			w.must(err)
			b, _, err := o.Restore(w.Context(), cfg, satchel.RestoreOptions{})
			w.must(err)
			w.must(b.Close())
		}},
		"deleted": {satchel.ErrDeleted, func(w *world) {
			b := w.another(true)
			o, err := b.Unlock(w.Context(), w.way)
			w.must(err)
			_, err = o.Delete(w.Context())
			w.must(err)
			w.must(b.Close())
		}},
		"other places": {satchel.ErrReplaced, func(w *world) {
			b := w.another(true)
			_, err := b.SetPlaces(w.Context(), w.cfg.Places[:1], 1)
			w.must(err)
			w.must(b.Close())
		}},
		"forgotten": {satchel.ErrNoDevice, func(w *world) { w.must(w.another(true).Forget()) }},
		"closed":    {nil, func(w *world) { w.must(w.b.Close()) }},
	} {
		t.Run(name, func(t *testing.T) {
			try(t, 2, never, nil, func(w *world) {
				w.wait(time.Second)
				c.do(w)
				limit := 6 * time.Second // What happens on this device is noticed soon.
				if c.want == satchel.ErrOtherDevice {
					limit = 11 * time.Minute // The places are asked seldom.
				}
				err := w.ends(limit)
				if c.want != nil && !errors.Is(err, c.want) || errors.Is(err, context.Canceled) || err == nil {
					t.Errorf("got %v, want %v", err, c.want)
				}
			})
		})
		t.Run(name+", found by a change", func(t *testing.T) {
			try(t, 2, never, nil, func(w *world) {
				w.wait(time.Second)
				c.do(w)
				err := <-w.offer(item("labels", "1"))
				if end := w.ends(time.Second); err == nil || c.want != nil && !errors.Is(end, c.want) {
					t.Errorf("got %v and %v, want %v", err, end, c.want)
				}
			})
		})
	}
}

// It ends at once when it is told to, whatever hangs, and nothing is lost.
func TestCancelled(t *testing.T) {
	try(t, 1, never, nil, func(w *world) {
		w.places[0].Set(storetest.Any, storetest.Hang)
		saved := w.offer(item("labels", "1"))
		w.wait(time.Second)
		start := time.Now()
		w.cancel()
		err := <-w.ended
		if !errors.Is(err, context.Canceled) || time.Since(start) != 0 || <-saved != nil {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		w.ended <- err
		w.want("saved labels!")
		w.places[0].Set(storetest.Any, storetest.None)
		if r, err := w.b.Sync(w.Context()); err != nil || !r.Protected {
			t.Errorf("got %+v, %v", r, err)
		}
		w.restores(0, map[string]string{"labels": "1"})
	})
}

// Older states go after a check that found nothing wrong, if that was asked for, and
// only then.
func TestPrunes(t *testing.T) {
	for _, keep := range []int{0, 1} {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			try(t, 2, agent.Config{Keep: keep}, func(w *world) {
				for i := range 140 { // Two checkpoints more.
					_, err := w.b.Save(w.Context(), satchel.Change{Name: "settings", Value: fmt.Append(nil, i)})
					w.must(err)
				}
			}, func(w *world) {
				w.wait(time.Minute)
				if keep == 0 {
					w.want("checked")
					return
				}
				if e := w.want("checked", "pruned"); len(e) == 2 && (e[1].Err != nil || e[1].Pruned.Objects < 2*64) {
					t.Errorf("got %+v", e[1].Pruned)
				}
				w.later(25 * time.Hour)
				w.want("checked")
				w.restores(1, map[string]string{"settings": "139"})
			})
		})
	}
}

// A place that is damaged between the check and the pruning loses nothing more, and
// keeps nothing else from being saved.
func TestPruneDamaged(t *testing.T) {
	try(t, 1, agent.Config{Keep: 1}, func(w *world) {
		for i := range 140 {
			_, err := w.b.Save(w.Context(), satchel.Change{Name: "settings", Value: fmt.Append(nil, i)})
			w.must(err)
		}
		w.on = func(e agent.Event) {
			if e.Kind != agent.Checked || w.damaged {
				return
			}
			w.damaged = true
			list, err := w.stores[0].List(w.Context(), "")
			w.must(err)
			for _, o := range list {
				if strings.Contains(o.Name, "/items/keys/") {
					w.must(w.stores[0].Delete(w.Context(), o))
					w.must(w.stores[0].Put(w.Context(), o.Name, []byte("torn")))
				}
			}
		}
	}, func(w *world) {
		w.wait(time.Minute)
		if e := w.want("checked", "pruned"); len(e) == 2 && (!errors.Is(e[1].Err, seal.ErrDamaged) || e[1].Pruned.Objects != 0) {
			t.Errorf("got %+v", e[1])
		}
		w.put1("labels", "1")
		w.want("saved labels")
		w.later(25 * time.Hour)
		w.want("checked!", "caught up")
		w.later(25 * time.Hour)
		w.want("checked", "pruned")
		w.restores(0, map[string]string{"settings": "139", "labels": "1"})
	})
}

// R16: what an older device wrote beside the history, in a place that comes back, is told
// once, and stops nothing.
func TestBranch(t *testing.T) {
	var older string
	try(t, 2, never, func(w *world) {
		older = w.b.Status().Device
		w.must(w.b.Close())
		w.must(os.RemoveAll(w.cfg.Dir))
		found, err := satchel.Find(w.Context(), w.cfg)
		w.must(err)
		o, err := found[0].Open(w.Context(), w.way)
		w.must(err)
		w.b, _, err = o.Restore(w.Context(), w.cfg, satchel.RestoreOptions{})
		w.must(err)
	}, func(w *world) {
		w.put1("labels", "1")
		w.want("saved labels")
		data := []byte("what the older device wrote")
		path := fmt.Sprintf("%s/snapshots/000001-0000000002-%s-%s.age", w.b.Status().Folder, older, store.Sum(data))
		w.must(w.stores[1].Put(w.Context(), path, data))
		w.put1("labels", "2")
		if e := w.want("saved labels", "branch"); len(e) == 2 && (!errors.Is(e[1].Err, satchel.ErrBranch) || !e[1].Protected || e[1].Places[1].Branch == "") {
			t.Errorf("got %+v", e[1])
		}
		w.put1("labels", "3")
		w.want("saved labels")
	})
}
