package web

import (
	"context"
	"sync"
)

// Turns lets one call at a time have a name. The zero value works.
type Turns struct {
	mu     sync.Mutex
	active map[string]chan struct{} // closed when the call is done; guarded by mu
}

// Take waits until no other call has the name, or ctx ends. The caller calls done.
func (t *Turns) Take(ctx context.Context, name string) (done func(), err error) {
	for {
		t.mu.Lock()
		other := t.active[name]
		if other == nil {
			mine := make(chan struct{})
			if t.active == nil {
				t.active = map[string]chan struct{}{}
			}
			t.active[name] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.active, name)
				t.mu.Unlock()
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
