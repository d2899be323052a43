package main

import (
	"fmt"
	"time"
)

const (
	maxUnprinted = 1000        // events that wait for who reads them
	printEnd     = time.Second // that the last ones may take, at the end
)

// printer prints events of an agent. Who stops reading them holds up no wallet: so many
// wait, and of those beyond it is said how many there were.
type printer struct {
	print func(event)
	queue chan event
	done  chan struct{} // closed when all are printed
	lost  event         // the last one that was left out; of add alone
	count int           // how many were; of add alone
}

func newPrinter(print func(event)) *printer {
	p := &printer{print: print, queue: make(chan event, maxUnprinted), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for e := range p.queue {
			p.print(e)
		}
	}()
	return p
}

// add hands over an event. One goroutine at a time calls it, and it waits for nothing.
func (p *printer) add(e event) {
	if p.count > 0 && len(p.queue)+1 < cap(p.queue) {
		missed := event{JSON: eventJSON{ID: p.lost.JSON.ID, Time: p.lost.JSON.Time, Event: "missed", Objects: p.count},
			Line: fmt.Sprintf("%s were not printed, because nobody read them; the agent's log has them", count(p.count, "event"))}
		missed.JSON.Text = missed.Line
		p.count = 0
		p.queue <- missed // There is room, and nobody else puts anything in.
	}
	select {
	case p.queue <- e:
	default:
		p.lost, p.count = e, p.count+1
	}
}

// end prints what waits, unless nobody reads it.
func (p *printer) end() {
	close(p.queue)
	select {
	case <-p.done:
	case <-time.After(printEnd):
	}
}
