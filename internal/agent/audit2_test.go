package agent_test

import (
	"testing"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store/storetest"
)

// A change was saved, and not protected, while the clock was a year ahead. With the clock
// right again the agent starts: after an hour without protection the alarm is due (R9).
func TestAudit2AlarmAfterWrongClock(t *testing.T) {
	try(t, 1, never, func(w *world) {
		w.places[0].Set(storetest.Any, storetest.Unreachable)
		cfg := w.cfg
		cfg.Now = func() time.Time { return time.Now().AddDate(1, 0, 0) }
		b, err := satchel.Open(cfg)
		w.must(err)
		b.Save(w.Context(), satchel.Change{Name: "labels", Value: []byte("1")})
		w.must(b.Close())
		w.must(w.b.Refresh())
	}, func(w *world) {
		for range 12 {
			w.wait(15 * time.Minute)
		}
		alarms := 0
		for _, e := range w.take() {
			if string(e.Kind) == "alarm" {
				alarms++
			}
		}
		if alarms == 0 {
			t.Error("three hours without protection, and no alarm")
		}
	})
}
