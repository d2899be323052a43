package postgres

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// away spaces out attempts to connect to a database that refused one. Every request of a
// client would be an attempt otherwise, and a database that is starting has a process to
// make and to end for each: it would come back later for it, or not at all.
type away struct {
	mu    sync.Mutex
	err   error // of the last attempt that failed
	pause time.Duration
	next  time.Time // when there is another attempt
}

const (
	firstPause = 50 * time.Millisecond
	maxPause   = time.Second
)

// before returns an error if it is too early to connect again. Of those who come when it
// is time one is let through.
func (a *away) before() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pause == 0 {
		return nil
	}
	if now := time.Now(); !now.Before(a.next) {
		a.pause = min(2*a.pause, maxPause)
		a.next = now.Add(a.pause)
		return nil
	}
	return &awayError{a.err}
}

// awayError says that a connection was not tried, and why the last one failed.
type awayError struct{ last error }

func (e *awayError) Error() string { return fmt.Sprintf("tried again in a moment: %v", e.last) }
func (e *awayError) Unwrap() error { return e.last }

// failed notes that a connection could not be had.
func (a *away) failed(err error) {
	if _, ok := errors.AsType[*awayError](err); ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err = err; a.pause == 0 {
		a.pause, a.next = firstPause, time.Now().Add(firstPause)
	}
}

// connected notes that one could.
func (a *away) connected() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err, a.pause = nil, 0
}
