package agent_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/store/storetest"
)

// An agent that begins anew again and again, while changes go on, still tells after an hour
// that nothing is protected.
func TestAlarmOutlivesRestarts(t *testing.T) {
	try(t, 1, never, nil, func(w *world) {
		w.later(5 * time.Hour) // Nothing happens for long: no hour of it counts.
		w.places[0].Set(storetest.Any, storetest.Unreachable)
		began := w.now()
		for i := range 5 {
			w.put1("labels", fmt.Sprint(i))
			w.later(11 * time.Minute)
			w.restart()
			w.wait(10 * time.Second)
		}
		if n := w.count(agent.Alarm); n != 0 {
			t.Errorf("got %d alarms within an hour, want none", n)
		}
		w.put1("labels", "late")
		w.later(10 * time.Minute)
		w.restart()
		w.wait(10 * time.Second)
		alarms := 0
		for _, e := range w.take() {
			if e.Kind == agent.Alarm {
				alarms++
				if d := e.Since.Sub(began).Abs(); d > time.Second {
					t.Errorf("it began %v from the first change", d)
				}
			}
		}
		if alarms == 0 { // The one that begins anew may repeat it.
			t.Error("got no alarm")
		}
		// What is protected ends it, also for the next change.
		w.places[0].Set(storetest.Any, storetest.None)
		w.wait(5 * time.Minute)
		w.places[0].Set(storetest.Any, storetest.Unreachable)
		w.take()
		w.put1("labels", "new")
		w.later(30 * time.Minute)
		w.restart()
		w.wait(10 * time.Second)
		if n := w.count(agent.Alarm); n != 0 {
			t.Errorf("after half an hour, got %d alarms, want none", n)
		}
	})
}

// A place that hangs while what is late is brought there keeps no change from this device.
func TestSyncLetsIn(t *testing.T) {
	try(t, 2, never, nil, func(w *world) {
		w.places[0].Set(storetest.Put, storetest.Unreachable)
		w.put1("labels", "1")
		w.places[0].Set(storetest.Put, storetest.Hang)
		w.wait(10 * time.Second) // The next try begins within that time, and hangs.
		w.take()
		calls := w.places[0].Count(storetest.Put)
		if calls < 2 {
			t.Fatalf("it did not try again: %d calls", calls)
		}
		began := time.Now()
		saved := w.offer(item("channel", "1"))
		w.wait(time.Second)
		if _, err := w.b.Get("channel"); err != nil {
			t.Errorf("%v after the change: %v", time.Since(began), err)
		}
		w.restores(1, map[string]string{"labels": "1", "channel": "1"})
		if err := <-saved; err != nil {
			t.Error(err)
		}
		// Nobody who asks for all is told that it was interrupted.
		w.places[0].Set(storetest.Put, storetest.None)
		w.wait(10 * time.Minute)
		w.restores(0, map[string]string{"labels": "1", "channel": "1"})
	})
}

// Who asks for what is late to be brought to the places is answered with how that ended,
// whatever came meanwhile.
func TestAskLetsIn(t *testing.T) {
	asks := func(w *world) { w.asks = make(chan agent.Ask) }
	try(t, 1, never, asks, func(w *world) {
		w.places[0].Set(storetest.Put, storetest.Unreachable)
		w.put1("labels", "1")
		w.places[0].Set(storetest.Put, storetest.Hang)
		answer := make(chan agent.Answer, 1)
		w.wait(time.Second)
		w.asks <- agent.Ask{Answer: answer}
		w.wait(20 * time.Second)
		saved := w.offer(item("channel", "1"))
		w.wait(time.Second)
		if _, err := w.b.Get("channel"); err != nil {
			t.Error(err)
		}
		w.wait(20 * time.Minute)
		if err := <-saved; err != nil {
			t.Error(err)
		}
		if got := <-answer; satchel.CodeOf(got.Err) != satchel.CodeUnreachable {
			t.Errorf("got %v", got.Err)
		}
	})
}

// A drill that passed while the clock was years ahead does not put off the next reminder for
// years, neither in the agent that saw it nor in one that begins afterwards.
func TestDrillAhead(t *testing.T) {
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprint(again), func(t *testing.T) {
			try(t, 1, agent.Config{CheckEvery: -1}, nil, func(w *world) {
				const years = 5 * 365 * 24 * time.Hour
				w.ahead.Store(int64(years))
				_, err := w.b.Drill(w.Context(), w.way)
				w.must(err)
				w.wait(10 * time.Second)
				w.ahead.Store(int64(100 * 24 * time.Hour))
				w.take()
				if again {
					w.restart()
				}
				w.wait(10 * time.Second)
				w.later(8 * 24 * time.Hour)
				if n := w.count(agent.DrillDue); n != 1 {
					t.Errorf("got %d reminders, want 1", n)
				}
				// One that passes with the clock put right counts.
				_, err = w.b.Drill(w.Context(), w.way)
				w.must(err)
				w.wait(10 * time.Second)
				w.later(60 * 24 * time.Hour)
				if n := w.count(agent.DrillDue); n != 0 {
					t.Errorf("after a drill, got %d reminders, want 0", n)
				}
			})
		})
	}
}
