package agent_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/store/storetest"
)

// An agent that waits for a place that hangs is back in time, and one that will never go
// on is not.
func TestDue(t *testing.T) {
	var due atomic.Int64
	late := func() time.Duration { return time.Since(time.Unix(0, due.Load())) }
	cfg := agent.Config{CheckEvery: 24 * time.Hour, FirstCheck: 20 * time.Minute, Due: func(at time.Time) { due.Store(at.UnixNano()) }}
	try(t, 2, cfg, nil, func(w *world) {
		w.places[0].Set(storetest.Any, storetest.Hang)
		saved := w.offer(item("labels", "1"))
		for range 180 { // The check is in it.
			w.wait(10 * time.Second)
			if d := late(); d > 0 {
				t.Fatalf("it is late by %v while a place hangs", d)
			}
		}
		if d := late(); d < -2*time.Hour {
			t.Errorf("it has %v", -d)
		}
		if err := <-saved; err != nil {
			t.Error(err)
		}
		w.places[0].Set(storetest.Any, storetest.None)
		w.wait(20 * time.Minute)
		if d := late(); d > 0 || d < -10*time.Minute {
			t.Errorf("it is late by %v with nothing to do", d)
		}
		stop := make(chan struct{})
		w.on = func(agent.Event) { <-stop }
		w.offer(item("labels", "2"))
		w.wait(20 * time.Minute)
		if late() < 0 {
			t.Error("it will never go on, and is said to be back in time")
		}
		close(stop)
		w.wait(time.Second)
	})
}

// The first comparison may be later than usual, and is not much later for a clock that is
// put back.
func TestFirstCheck(t *testing.T) {
	try(t, 1, agent.Config{FirstCheck: 10 * time.Minute}, nil, func(w *world) {
		w.wait(9 * time.Minute)
		w.want()
		w.wait(2 * time.Minute)
		w.want("checked")
		w.later(25 * time.Hour)
		w.want("checked")
	})
}
