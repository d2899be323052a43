package agent_test

import (
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/storetest"
)

// Who asks need not wait for the next try, nor for the next day.
func TestAsks(t *testing.T) {
	try(t, 1, agent.Config{CheckEvery: -1}, func(w *world) {
		w.asks = make(chan agent.Ask)
	}, func(w *world) {
		w.places[0].Set(storetest.Any, storetest.Unreachable)
		w.put1("labels", "1")
		w.wait(20 * time.Minute)
		w.places[0].Set(storetest.Any, storetest.None)
		w.take()
		ask := func(check bool) agent.Answer {
			answer := make(chan agent.Answer, 1)
			w.asks <- agent.Ask{Check: check, Answer: answer}
			return <-answer
		}
		began := time.Now()
		if a := ask(false); a.Err != nil || time.Since(began) > time.Second {
			t.Errorf("got %+v after %v", a, time.Since(began))
		}
		w.want("caught up")
		if a := ask(true); a.Err != nil || a.Report.Objects == 0 {
			t.Errorf("got %+v", a)
		}
		w.want("checked")
		// A loss is told in the answer, and mended.
		list, err := w.stores[0].List(w.Context(), "")
		w.must(err)
		var gone store.Object
		for _, o := range list {
			if len(gone.Name) == 0 || len(o.Name) > len(gone.Name) {
				gone = o
			}
		}
		w.must(w.stores[0].Delete(w.Context(), gone))
		if a := ask(true); len(a.Report.Findings) != 1 {
			t.Errorf("got %+v", a)
		}
		if list, err := w.stores[0].List(w.Context(), gone.Name); err != nil || len(list) != 1 {
			t.Errorf("it is not mended: %v, %v", list, err)
		}
		// What is asked for does not end in the middle: the next tries come soon again.
		w.places[0].Set(storetest.Any, storetest.Unreachable)
		w.put1("labels", "2")
		w.wait(20 * time.Minute)
		w.take()
		if a := ask(false); a.Err == nil {
			t.Error("no error")
		}
		w.places[0].Set(storetest.Any, storetest.None)
		w.wait(10 * time.Second)
		w.want("caught up")
	})
}
