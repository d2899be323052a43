package lnd

import (
	"encoding/json"
	"sync"
	"time"
)

// An event is one that "satchel agent run --json" told.
type event struct {
	at         time.Time // when it was read
	Wallet     string
	Event      string
	Generation int64
	Protected  *bool
	Items      []string
	Error      string
	Code       int
}

// events keeps what an agent told.
type events struct {
	mu   sync.Mutex
	list []event
}

// hear takes a line of an agent.
func (e *events) hear(line string) {
	v := event{at: time.Now()}
	if json.Unmarshal([]byte(line), &v) != nil {
		return // No event: what it says to a person.
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, v)
}

// all returns those after the first n.
func (e *events) all(n int) []event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]event(nil), e.list[min(n, len(e.list)):]...)
}
