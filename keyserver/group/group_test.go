package group_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/satchel-backup/satchel/keyserver/group"
)

// What comes while a batch is done is the next one, and each gets its own result.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		q := group.New(1, 10, func(batch []int) (out []int, err error) {
			time.Sleep(time.Second)
			sizes = append(sizes, len(batch))
			for _, n := range batch {
				out = append(out, 2*n)
			}
			return out, nil
		})
		var all sync.WaitGroup
		for i := range 14 {
			all.Go(func() {
				if i > 0 {
					time.Sleep(time.Millisecond)
				}
				if got, err := q.Do(t.Context(), i); got != 2*i || err != nil {
					t.Errorf("%d: got %d, %v", i, got, err)
				}
			})
		}
		all.Wait()
		q.Close()
		if len(sizes) != 3 || sizes[0] != 1 || sizes[1] != 10 || sizes[2] != 3 {
			t.Errorf("got batches of %v", sizes)
		}
	})
}

func TestError(t *testing.T) {
	fault := errors.New("the disk is full")
	q := group.New(2, 10, func([]int) ([]int, error) { return nil, fault })
	defer q.Close()
	if _, err := q.Do(t.Context(), 1); !errors.Is(err, fault) {
		t.Errorf("got %v", err)
	}
}

// Who goes before it is their turn is not done; who goes after waits for what became of it.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done []int
		q := group.New(1, 10, func(batch []int) ([]int, error) {
			time.Sleep(time.Minute)
			done = append(done, batch...)
			return batch, nil
		})
		defer q.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			if got, err := q.Do(ctx, 1); got != 1 || err != nil {
				t.Errorf("the first: got %d, %v", got, err)
			}
		})
		synctest.Wait()
		all.Go(func() {
			start := time.Now()
			if _, err := q.Do(ctx, 2); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Second {
				t.Errorf("the second: got %v after %v", err, time.Since(start))
			}
		})
		all.Wait()
		if _, err := q.Do(t.Context(), 3); err != nil {
			t.Error(err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := q.Ask(ctx, 4); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one that changes nothing: got %v", err)
		}
		q.Close()
		if len(done) != 3 || done[0] != 1 || done[1] != 3 || done[2] != 4 {
			t.Errorf("done: %v", done)
		}
	})
}

// Close waits for what was taken, and nothing is taken after it; nobody waits for ever.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done, got, closed atomic.Int64
		q := group.New(2, 3, func(batch []int) ([]int, error) {
			time.Sleep(time.Second)
			done.Add(int64(len(batch)))
			return batch, nil
		})
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				_, err := q.Do(t.Context(), 1)
				switch {
				case err == nil:
					got.Add(1)
				case errors.Is(err, group.ErrClosed):
					closed.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Millisecond)
		q.Close()
		all.Wait()
		if got.Load() != done.Load() || got.Load()+closed.Load() != 20 || got.Load() < 3 {
			t.Errorf("%d done, %d told so, %d told that it is closed", done.Load(), got.Load(), closed.Load())
		}
		if _, err := q.Do(t.Context(), 1); !errors.Is(err, group.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}
