package satchel

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/satchel-backup/satchel/store"
)

// How long one call of a place may take: as long as an answer may, and what its bytes
// take on a slow line. A place that let a call run out is given less time until it answers
// one, so that it delays no change again and again.
const (
	answerTime      = 2 * time.Minute
	answerTimeHasty = 10 * time.Second
	slowLine        = 64 << 10 // bytes per second
	letGoTime       = time.Second
)

// patient is a store that gives up a call which takes too long, also where the store
// cannot: a system call on a drive that is gone does not end for any context. While such
// a call hangs, others are not begun.
type patient struct {
	inner store.Store

	mu    sync.Mutex
	hung  int  // calls that were given up and have not ended; guarded by mu
	hasty bool // the last call ran out of time; guarded by mu
}

// patiently returns the places with patient stores.
func patiently(places []store.Place) []store.Place {
	list := make([]store.Place, len(places))
	for i, p := range places {
		if _, ok := p.Store.(*patient); !ok && p.Store != nil {
			p.Store = &patient{inner: p.Store}
		}
		list[i] = p
	}
	return list
}

// call runs do, which moves so many bytes. What do writes may be read only if call
// returns nil.
func (s *patient) call(ctx context.Context, bytes int64, do func(context.Context) error) error {
	s.mu.Lock()
	hung, limit := s.hung > 0, answerTime
	if s.hasty {
		limit = answerTimeHasty
	}
	s.mu.Unlock()
	if hung {
		return fmt.Errorf("%w: it has not answered an earlier call yet", store.ErrUnreachable)
	}
	limit += time.Duration(bytes) * time.Second / slowLine
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
			s.mu.Lock()
			s.hung++
			s.mu.Unlock()
			go func() {
				<-done
				s.mu.Lock()
				s.hung--
				s.mu.Unlock()
			}()
			err = inner.Err()
		}
	}
	late := err != nil && inner.Err() != nil
	s.mu.Lock()
	s.hasty = late && ctx.Err() == nil || err != nil && s.hasty
	s.mu.Unlock()
	switch {
	case late && ctx.Err() != nil:
		return ctx.Err()
	case late:
		return fmt.Errorf("%w: no answer in %v", store.ErrUnreachable, limit)
	}
	return err
}

func (s *patient) Put(ctx context.Context, name string, data []byte) error {
	return s.call(ctx, int64(len(data)), func(ctx context.Context) error { return s.inner.Put(ctx, name, data) })
}

func (s *patient) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	var data []byte
	err := s.call(ctx, limit, func(ctx context.Context) (err error) {
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
	err := s.call(ctx, 0, func(ctx context.Context) (err error) {
		list, err = s.inner.List(ctx, prefix)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func (s *patient) Delete(ctx context.Context, o store.Object) error {
	return s.call(ctx, 0, func(ctx context.Context) error { return s.inner.Delete(ctx, o) })
}
