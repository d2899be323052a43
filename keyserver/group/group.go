// Package group does in one go what many ask for at the same time: one flush of the disk,
// one question to the database, for all of them.
//
//	q := group.New(1, 512, func(batch []write) ([]error, error) { … })
//	result, err := q.Do(ctx, w)
//
// Nobody waits for others to come: what came while the last batch was done is the next.
package group

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
)

// ErrClosed says that the queue was closed before the call began.
var ErrClosed = errors.New("it is closed")

// Queue takes calls of Do and does them in batches. It is safe for concurrent use.
type Queue[In, Out any] struct {
	most int
	do   func([]In) ([]Out, error)

	calls   chan *call[In, Out]
	end     sync.Once
	ended   chan struct{} // closed when no call is taken any more
	stopped chan struct{} // closed when those that were taken are done
}

// call is one call of Do that waits.
type call[In, Out any] struct {
	in    In
	out   Out
	err   error
	taken atomic.Bool   // by the worker, or by its caller, who went
	done  chan struct{} // closed when out and err are set
}

// New returns a queue with so many workers, each of which gives up to most calls to do at
// once. do returns a result for each, in their order, or an error for all.
func New[In, Out any](workers, most int, do func(batch []In) ([]Out, error)) *Queue[In, Out] {
	q := &Queue[In, Out]{most: most, do: do, calls: make(chan *call[In, Out], most), ended: make(chan struct{}), stopped: make(chan struct{})}
	var all sync.WaitGroup
	for range workers {
		all.Go(q.work)
	}
	go func() {
		all.Wait()
		close(q.stopped)
	}()
	return q
}

// Do does one call. It waits for its turn as long as ctx; then, until it is done: what
// became of it is worth more than the time. Errors: what do returned, ErrClosed, that of
// ctx; after the last two nothing was done.
func (q *Queue[In, Out]) Do(ctx context.Context, in In) (out Out, err error) {
	c, err := q.wait(ctx, in)
	if err == nil {
		return c.out, c.err
	}
	if c == nil || c.taken.CompareAndSwap(false, true) {
		return out, err
	}
	<-c.done
	return c.out, c.err
}

// Ask does one call that changes nothing: when ctx ends it returns, whatever becomes of
// the call.
func (q *Queue[In, Out]) Ask(ctx context.Context, in In) (out Out, err error) {
	c, err := q.wait(ctx, in)
	if err != nil {
		return out, err
	}
	return c.out, c.err
}

// wait queues a call and waits until it is done. The error says that it is not yet; the
// call is nil then if it was not queued.
func (q *Queue[In, Out]) wait(ctx context.Context, in In) (c *call[In, Out], err error) {
	select {
	case <-q.ended:
		return nil, ErrClosed
	default:
	}
	c = &call[In, Out]{in: in, done: make(chan struct{})}
	select {
	case q.calls <- c:
	case <-q.ended:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-c.done:
		return c, nil
	case <-ctx.Done():
		return c, ctx.Err()
	case <-q.stopped:
		return c, ErrClosed
	}
}

func (q *Queue[In, Out]) work() {
	for {
		var batch []*call[In, Out]
		add := func(c *call[In, Out]) {
			if c.taken.CompareAndSwap(false, true) {
				batch = append(batch, c)
			}
		}
		select {
		case c := <-q.calls:
			add(c)
			runtime.Gosched() // Who is about to ask asks now.
		case <-q.ended:
		}
		empty := false
		for !empty && len(batch) < q.most {
			select {
			case c := <-q.calls:
				add(c)
			default:
				empty = true
			}
		}
		if len(batch) > 0 {
			q.finish(batch)
			continue
		}
		select {
		case <-q.ended:
			if len(q.calls) == 0 {
				return
			}
		default:
		}
	}
}

// finish does a batch and tells the callers.
func (q *Queue[In, Out]) finish(batch []*call[In, Out]) {
	in := make([]In, len(batch))
	for i, c := range batch {
		in[i] = c.in
	}
	out, err := q.do(in)
	for i, c := range batch {
		if err != nil {
			c.err = err
		} else {
			c.out = out[i]
		}
		close(c.done)
	}
}

// Close takes no more calls, and returns when those that were taken are done.
func (q *Queue[In, Out]) Close() {
	q.end.Do(func() { close(q.ended) })
	<-q.stopped
}
