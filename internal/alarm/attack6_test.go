package alarm_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/alarm"
)

// tries runs tests, each with a board of its own.
func tries(t *testing.T, tests ...func(w *world)) {
	for i, test := range tests {
		t.Run(fmt.Sprint(i), func(t *testing.T) { try(t, test) })
	}
}

func fails(e *alarm.Event) { e.Error = "it does not answer" }

// A node that does not answer is another thing than a folder that cannot be read: that one
// of them works again says nothing about the other.
func TestAttack6TwoSources(t *testing.T) {
	tries(t, func(w *world) {
		w.tell("node", fails)
		w.wait(20*time.Minute, "raised source failed")
		w.tell("source failed", fails)
		w.wait(time.Minute)
		w.tell("source works", nil)
		w.later(time.Hour)
		w.later(24*time.Hour, "lasts source failed")
		w.tell("node", nil)
		w.wait(time.Hour, "over source failed")
	}, func(w *world) {
		w.tell("source failed", fails)
		w.wait(20*time.Minute, "raised source failed")
		w.tell("node", nil) // It answers, as it did all the time.
		w.later(time.Hour)
		w.tell("source works", nil)
		w.wait(time.Hour, "over source failed")
	})
}

// What is not to be saved any more fails no more: a session that begins without it, and in
// which nothing fails for a while, ends the alarm. Otherwise nobody would, for ever.
func TestAttack6SourceLetGo(t *testing.T) {
	for _, name := range []string{"node", "source failed"} {
		t.Run(name, func(t *testing.T) {
			tries(t, func(w *world) {
				w.tell(name, fails)
				w.wait(20*time.Minute, "raised source failed")
				w.tell("watching", nil) // Without the node, or the folder.
				w.later(time.Hour, "over source failed")
				w.later(24 * time.Hour)
			}, func(w *world) { // One that fails again in the new session goes on failing.
				w.tell(name, fails)
				w.wait(20*time.Minute, "raised source failed")
				w.tell("watching", nil)
				w.wait(2 * time.Minute)
				w.tell(name, fails)
				w.later(time.Hour)
				w.later(24*time.Hour, "lasts source failed")
			})
		})
	}
}

// The clock was a year ahead when a thing went wrong, and was put right before, or after,
// it was told: it is told all the same, once, and daily from then on.
func TestAttack6ClockBack(t *testing.T) {
	year := 365 * 24 * time.Hour
	tries(t, func(w *world) {
		w.ahead.Store(int64(year))
		w.health(satchel.HealthSignIn)
		w.wait(time.Second)
		w.ahead.Store(0)
		w.wait(10*time.Minute, "raised sign-in needed")
	}, func(w *world) {
		w.ahead.Store(int64(year))
		w.health(satchel.HealthSignIn)
		w.wait(10*time.Minute, "raised sign-in needed")
		w.stop()
		w.ahead.Store(0)
		w.start()
		w.wait(25*time.Hour, "lasts sign-in needed")
		w.health(satchel.HealthProtected)
		w.wait(time.Hour, "over sign-in needed")
	}, func(w *world) {
		w.health(satchel.HealthSignIn)
		w.wait(10*time.Minute, "raised sign-in needed")
		w.ahead.Store(int64(year))
		w.health(satchel.HealthProtected)
		w.wait(time.Second)
		w.ahead.Store(0)
		w.wait(time.Hour, "over sign-in needed")
	})
}
