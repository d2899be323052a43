package control

import "sync"

// Entry is one event, as it is sent.
type Entry struct {
	ID     uint64 // greater than that of the event before
	Wallet string // "" for those that concern no wallet
	Line   []byte // a JSON object and a newline; nobody changes it
}

// Ring keeps the last events for whoever asks for them later. It is safe for concurrent
// use.
type Ring struct {
	mu      sync.Mutex
	size    int
	bytes   int           // of all lines; guarded by mu
	entries []Entry       // the newest last; guarded by mu
	dropped uint64        // id of the newest that is not kept any more, 0 if none; guarded by mu
	more    chan struct{} // closed when an event comes; guarded by mu
}

// maxRing is how many bytes of lines a ring keeps at most.
const maxRing = 4 << 20

// NewRing returns a ring of at most so many events.
func NewRing(size int) *Ring { return &Ring{size: size, more: make(chan struct{})} }

// Add adds an event. It never waits.
func (r *Ring) Add(e Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries, r.bytes = append(r.entries, e), r.bytes+len(e.Line)
	for len(r.entries) > r.size || r.bytes > maxRing && len(r.entries) > 1 {
		r.dropped, r.bytes = r.entries[0].ID, r.bytes-len(r.entries[0].Line)
		r.entries = r.entries[1:]
	}
	close(r.more)
	r.more = make(chan struct{})
}

// Since returns the events after one, those that are still there, and the id of the last
// one that is not, 0 if none is missing. The channel is closed when there is another.
func (r *Ring) Since(id uint64) (list []Entry, missed uint64, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropped > id {
		missed = r.dropped
	}
	for i := len(r.entries); i > 0 && r.entries[i-1].ID > id; i-- {
		list = r.entries[i-1:]
	}
	return append([]Entry(nil), list...), missed, r.more
}

// Last is the id of the newest event, 0 if there was none.
func (r *Ring) Last() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.entries); n > 0 {
		return r.entries[n-1].ID
	}
	return 0
}
