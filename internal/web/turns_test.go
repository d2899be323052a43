package web

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns Turns
		done, err := turns.Take(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		other, err := turns.Take(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		other()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var in, most int
		for range 5 {
			wg.Go(func() {
				done, err := turns.Take(t.Context(), "a")
				if err != nil {
					t.Error(err)
					return
				}
				in++ // Nobody else is here: the race detector would tell.
				most = max(most, in)
				in--
				done()
			})
		}
		wg.Go(func() {
			if _, err := turns.Take(ctx, "a"); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		if most != 0 {
			t.Error("others have the name too")
		}
		done()
		wg.Wait()
		if most != 1 || len(turns.active) != 0 {
			t.Errorf("%d at once, %d left", most, len(turns.active))
		}
	})
}
