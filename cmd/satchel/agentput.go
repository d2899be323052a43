package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/source"
)

// puts is the source of what programs hand over to the agent. What comes while a save is
// under way goes together in the next one.
type puts struct{ queue chan put }

// put is what one program hands over at once: all of it is kept, or nothing.
type put struct {
	changes []source.Change
	done    chan error // gets one element, for which it has room
}

var _ source.Source = (*puts)(nil)

// Run is as in source.Source, but that what could not be kept is not tried again: the
// program is told, and decides.
func (p *puts) Run(ctx context.Context, save func(context.Context, ...source.Change) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case first := <-p.queue:
			// Others that wait, as long as none names an item that another one does: of
			// two values of one item both answers must be true.
			together, names := []put{first}, map[string]bool{}
			all := first.changes
			for _, c := range first.changes {
				names[c.Name] = true
			}
			var next []put
			for waiting := true; waiting && next == nil && len(all) < maxTogether; {
				select {
				case other := <-p.queue:
					if clash(names, other.changes) {
						next = []put{other}
						break
					}
					for _, c := range other.changes {
						names[c.Name] = true
					}
					together, all = append(together, other), append(all[:len(all):len(all)], other.changes...)
				default:
					waiting = false
				}
			}
			err := save(ctx, all...)
			for _, one := range together {
				one.done <- err
			}
			for _, one := range next {
				one.done <- save(ctx, one.changes...)
			}
		}
	}
}

// maxTogether is how many items of several programs are saved in one go.
const maxTogether = 1000

func clash(names map[string]bool, changes []source.Change) bool {
	for _, c := range changes {
		if names[c.Name] {
			return true
		}
	}
	return false
}

// errNotOpen says that the agent does not keep a wallet up to date just now.
var errNotOpen = errors.New("the agent does not keep this wallet up to date just now")

// How long a program waits for a wallet that is being opened, as after its places were
// changed.
const (
	openWait  = 10 * time.Second
	openPause = 20 * time.Millisecond
)

// opened returns the backup of a session, with a channel that is closed when it is not
// open any more, or why it is not open.
func (ses *session) opened(ctx context.Context) (b *satchel.Backup, closed <-chan struct{}, err error) {
	for began := time.Now(); ; pauseFor(ctx, openPause) {
		ses.mu.Lock()
		b, closed, err = ses.backup, ses.open, ses.err
		opening := ses.state == sessionOpening
		ses.mu.Unlock()
		switch {
		case b != nil:
			return b, closed, nil
		case !opening && err != nil:
			return nil, nil, errors.Join(errNotOpen, err)
		case !opening || ctx.Err() != nil || time.Since(began) > openWait:
			return nil, nil, errNotOpen
		}
	}
}

// put keeps changes, and returns when they are journalled: then err is nil. Before, it is
// looked in the places whether this device is still the writer.
func (ses *session) put(ctx context.Context, changes []source.Change) error {
	b, closed, err := ses.opened(ctx)
	if err != nil {
		return err
	}
	one := put{changes, make(chan error, 1)}
	select {
	case ses.puts.queue <- one:
	case <-closed:
		return errNotOpen
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		ses.mu.Lock()
		moved := ses.moved
		ses.mu.Unlock()
		if holds(b, changes) {
			return nil
		}
		select {
		case err := <-one.done:
			return err
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// holds reports whether a backup has all changes, on this device.
func holds(b *satchel.Backup, changes []source.Change) bool {
	have := map[string]satchel.ItemInfo{}
	for _, i := range b.Items() {
		have[i.Name] = i
	}
	for _, c := range changes {
		i, ok := have[c.Name]
		if c.Remove == ok || ok && (i.SHA256 != sha256.Sum256(c.Value) || i.Required != c.Required) {
			return false
		}
	}
	return true
}

// protectedUpTo reports whether enough places hold a generation, or a later one, whatever
// came after it.
func protectedUpTo(s satchel.Status, generation uint64) bool {
	if s.Protected && s.Generation >= generation {
		return true
	}
	n := 0
	for _, p := range s.Places {
		switch p.Health {
		case satchel.HealthOtherDevice:
			return false
		case satchel.HealthMissing, satchel.HealthDamaged, satchel.HealthWrongAccount:
		default:
			if p.Generation >= generation {
				n++
			}
		}
	}
	return n >= s.Copies && !s.Deleted && len(s.Missing) == 0 && !s.PINDead
}

// waitProtected waits until a generation is protected, or ctx ends, and returns how the
// backup stands then.
func (s *supervisor) waitProtected(ctx context.Context, b *satchel.Backup, generation uint64) satchel.Status {
	for {
		id := s.ring.Last()
		st := b.Status()
		if protectedUpTo(st, generation) {
			return st
		}
		_, _, more := s.ring.Since(id)
		select {
		case <-more:
		case <-time.After(followEvery): // It may have been another process.
		case <-ctx.Done():
			return b.Status()
		}
	}
}
