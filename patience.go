package satchel

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store"
)

// How long one call of a place may take. These are far above what places take that
// answer, also over slow lines; where a call ran out of time the next ones of its kind
// have little, so that no change is delayed again and again, and now and then one has all
// of it, so that a place which is only slow is reached.
const (
	answerTime = 2 * time.Minute
	listTime   = 5 * time.Minute
	fetchTime  = 30 * time.Minute // of an object whose size is not known
	slowLine   = 4 << 10          // bytes per second

	hastyTime = 10 * time.Second
	hastyLine = 1 << 20

	letGoTime = time.Second // how long after its time a call may take to end
)

// patient is a store that gives up a call which takes too long, also where the store
// cannot: a system call on a drive that is gone ends for no context. While such a call
// hangs others are not begun. A deletion is never given up, since what is put again in
// the meantime must not fall to it.
type patient struct {
	inner store.Store

	mu     sync.Mutex
	hung   chan struct{} // closed when the call that was given up ends; nil if there is none
	since  time.Time     // when that was
	fullAt [3]time.Time  // by kind: before that calls have little time; zero if they have all
}

// kind is what a call does.
type kind int

const (
	listing kind = iota
	fetching
	putting
)

// patiently returns the places with patient stores.
func patiently(places []store.Place) []store.Place {
	list := make([]store.Place, len(places))
	for i, p := range places {
		if _, ok := p.Store.(*patient); !ok {
			p.Store = &patient{inner: p.Store}
		}
		list[i] = p
	}
	return list
}

// ready waits a moment for a call that was given up to end.
func (s *patient) ready(ctx context.Context) error {
	s.mu.Lock()
	hung, since := s.hung, s.since
	s.mu.Unlock()
	if hung == nil {
		return nil
	}
	timer := time.NewTimer(max(0, hastyTime-time.Since(since)))
	defer timer.Stop()
	select {
	case <-hung:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("%w: it has not answered an earlier call yet", store.ErrUnreachable)
	}
}

// call runs do, which may take so long; hasty if the last one of its kind took longer.
// What do writes may be read only if call returns nil.
func (s *patient) call(ctx context.Context, k kind, full, hasty time.Duration, do func(context.Context) error) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	began, limit := time.Now(), full
	s.mu.Lock()
	if began.Before(s.fullAt[k]) {
		limit = hasty
	}
	s.mu.Unlock()
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- do(inner) }()
	var err error
	select {
	case err = <-done:
	case <-inner.Done():
		timer := time.NewTimer(letGoTime)
		defer timer.Stop()
		select {
		case err = <-done:
		case <-timer.C:
			err = inner.Err()
			s.giveUp(done)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch took := time.Since(began); {
	case err == nil:
		s.fullAt[k] = time.Time{}
	case inner.Err() == nil:
	case k == putting && context.Cause(ctx) == context.Canceled:
		// Who called had something else to do; the next call goes on with it, and has time.
	case limit == full && took >= hasty:
		s.fullAt[k] = time.Now().Add(10 * took)
	}
	switch {
	case err == nil || inner.Err() == nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: no answer in %v", store.ErrUnreachable, limit)
}

func (s *patient) giveUp(done <-chan error) {
	hung := make(chan struct{})
	s.mu.Lock()
	s.hung, s.since = hung, time.Now()
	s.mu.Unlock()
	go func() {
		<-done
		s.mu.Lock()
		if s.hung == hung { // Else another call hangs since.
			s.hung = nil
		}
		s.mu.Unlock()
		close(hung)
	}()
}

// transfer returns how long so many bytes may take on a line.
func transfer(bytes, line int64) time.Duration {
	return time.Duration(bytes) * time.Second / time.Duration(line)
}

func (s *patient) Put(ctx context.Context, name string, data []byte) error {
	n := int64(len(data))
	return s.call(ctx, putting, answerTime+transfer(n, slowLine), hastyTime+transfer(n, hastyLine), func(ctx context.Context) error {
		return s.inner.Put(ctx, name, data)
	})
}

func (s *patient) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	full, hasty := answerTime+transfer(limit, slowLine), hastyTime+transfer(limit, hastyLine)
	if limit >= seal.MaxObject {
		full, hasty = fetchTime, hastyTime
	}
	var data []byte
	err := s.call(ctx, fetching, full, hasty, func(ctx context.Context) (err error) {
		data, err = s.inner.Get(ctx, name, want, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

func (s *patient) List(ctx context.Context, prefix string) ([]store.Object, error) {
	var list []store.Object
	err := s.call(ctx, listing, listTime, hastyTime, func(ctx context.Context) (err error) {
		list, err = s.inner.List(ctx, prefix)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func (s *patient) Delete(ctx context.Context, o store.Object) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	return s.inner.Delete(ctx, o)
}
