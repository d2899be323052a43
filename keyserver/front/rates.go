package front

import (
	"net/netip"
	"sync"
	"time"
)

// burst is how much of what comes one after another may come at once after a pause.
const burst = 10 * time.Second

// most is how many addresses are remembered, in some 10 MB. Who has more of them is not
// held back by this.
const most = 100_000

// rates limits the requests of each address.
type rates struct {
	every time.Duration

	mu   sync.Mutex
	next map[netip.Addr]int64 // when what was taken is paid for, in nanoseconds
}

// take takes one request, or returns how long there is none.
func (r *rates) take(a netip.Addr, now time.Time) (wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = map[netip.Addr]int64{}
	}
	t := now.UnixNano()
	next := max(r.next[a], t)
	if ahead := time.Duration(next - t); ahead >= burst {
		return ahead - burst + r.every
	}
	if len(r.next) >= most {
		r.forget(t)
	}
	r.next[a] = next + int64(r.every)
	return 0
}

// forget drops what is paid for, and then some others, in the order of the map, which is
// none.
func (r *rates) forget(t int64) {
	for a, next := range r.next {
		if next <= t {
			delete(r.next, a)
		}
	}
	for a := range r.next {
		if len(r.next) < most*9/10 {
			return
		}
		delete(r.next, a)
	}
}
