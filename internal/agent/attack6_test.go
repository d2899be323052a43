package agent_test

import (
	"errors"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/store/storetest"
)

// count counts the events of a kind since the last call.
func (w *world) count(k agent.Kind) (n int) {
	for _, e := range w.take() {
		if e.Kind == k {
			n++
		}
	}
	return n
}

// A clock that is a year ahead while something goes wrong, and is put right, silences no
// alarm.
func TestAttack6ClockBack(t *testing.T) {
	const year = int64(365 * 24 * time.Hour)
	t.Run("it was told already", func(t *testing.T) {
		try(t, 1, never, nil, func(w *world) {
			w.ahead.Store(year)
			w.places[0].Set(storetest.Any, storetest.Unreachable)
			w.put1("labels", "1")
			w.wait(time.Minute)
			w.later(2 * time.Hour)
			if n := w.count(agent.Alarm); n != 1 {
				t.Errorf("got %d alarms, want 1", n)
			}
			w.ahead.Store(0)
			w.wait(time.Minute)
			w.later(25 * time.Hour)
			w.later(25 * time.Hour)
			if n := w.count(agent.Alarm); n != 2 {
				t.Errorf("in two days, got %d alarms, want 2", n)
			}
		})
	})
	t.Run("a source began to fail then", func(t *testing.T) {
		try(t, 1, never, nil, func(w *world) {
			w.ahead.Store(year)
			w.feed.fail <- errors.New("it cannot be read")
			w.wait(time.Second)
			w.ahead.Store(0)
			w.wait(10 * time.Second)
			w.later(2 * time.Hour)
			if n := w.count(agent.Alarm); n != 1 {
				t.Errorf("got %d alarms, want 1", n)
			}
		})
	})
	t.Run("the reminder", func(t *testing.T) {
		try(t, 1, agent.Config{CheckEvery: -1}, nil, func(w *world) {
			w.ahead.Store(year)
			w.wait(time.Minute)
			if n := w.count(agent.DrillDue); n != 1 {
				t.Errorf("got %d reminders, want 1", n)
			}
			w.ahead.Store(int64(100 * 24 * time.Hour))
			w.wait(10 * time.Second)
			w.later(35 * 24 * time.Hour)
			if n := w.count(agent.DrillDue); n != 1 {
				t.Errorf("a month later, got %d reminders, want 1", n)
			}
		})
	})
}

// A comparison that takes long keeps no alarm back: it may take an hour.
func TestAttack6AlarmWhileChecking(t *testing.T) {
	cfg := agent.Config{CheckEvery: 24 * time.Hour, FirstCheck: 59*time.Minute + 30*time.Second, DrillEvery: -1}
	try(t, 1, cfg, nil, func(w *world) {
		w.feed.fail <- errors.New("it cannot be read")
		w.wait(time.Second)
		w.later(59*time.Minute + 20*time.Second)
		w.places[0].Set(storetest.Get, storetest.Hang)
		w.wait(50 * time.Second)
		if n := w.count(agent.Alarm); n != 1 {
			t.Errorf("got %d alarms, want 1", n)
		}
	})
}
