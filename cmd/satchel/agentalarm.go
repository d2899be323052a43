package main

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/alarm"
)

// alarmState is the file in which the agent keeps what is wrong, and who was told.
func alarmState(home string) string { return filepath.Join(home, "agent", "told.json") }

// crier is what of an agent tells people.
type crier struct {
	s     *supervisor
	app   *app // with what is open of the network and the keychain
	home  string
	board *alarm.Board

	labels map[string]string // by the wallet's name; of the hook alone

	mu     sync.Mutex
	failed map[string]error // alarms that fail, by id; guarded by mu
}

// newAlarms hooks the telling of people into an agent. Its run then does it.
func newAlarms(s *supervisor, home string) *crier {
	c := &crier{s: s, app: s.app.inside(nothing{}), home: home, labels: map[string]string{}, failed: map[string]error{}}
	c.board = alarm.Open(alarm.Config{Path: alarmState(home), Now: s.app.now, Report: c.report,
		Has: func(wallet string) bool {
			names, err := s.wallets()
			return err != nil || slices.Contains(names, wallet)
		}})
	s.hooks = append(s.hooks, func(e event) { c.board.Event(c.event(e)) })
	return c
}

// event is an event in the words of package alarm.
func (c *crier) event(e event) alarm.Event {
	j := e.JSON
	out := alarm.Event{
		Wallet: j.Wallet, Name: j.Event, Time: j.Time, Label: c.label(j.Wallet),
		Protected: j.Protected != nil && *j.Protected, Healed: j.Healed, Error: j.Error, Code: satchel.Code(j.Code), Hint: codeHints[satchel.Code(j.Code)],
	}
	if j.Since != nil {
		out.Since = *j.Since
	}
	if e.Err != nil {
		out.Hint = anyHint(e.Err) // From the table, so that it names nothing of the user's.
	}
	for _, p := range j.Places {
		out.Places = append(out.Places, alarm.Place{
			Address: p.Address, Called: placeCalled(p.Address), Health: p.Health, Branch: p.Branch, Error: p.Error, Hint: codeHints[satchel.Code(p.Code)],
		})
	}
	return out
}

// placeCalled is what kind of place an address is of.
func placeCalled(address string) string {
	if k := cloudOf(address); k != nil {
		return k.name
	}
	return "a folder"
}

// label is what people call a wallet.
func (c *crier) label(name string) string {
	if name == "" {
		return ""
	}
	if label, ok := c.labels[name]; ok {
		return label
	}
	info, err := satchel.ReadDevice(filepath.Join(c.s.walletsDir(), name))
	if err != nil {
		return name
	}
	c.labels[name] = info.Label
	return info.Label
}

// report takes note of alarms that do not arrive.
func (c *crier) report(id string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		delete(c.failed, id)
	} else {
		c.failed[id] = err
	}
}

// run tells people until ctx ends, and follows what "satchel alarm" changes.
func (c *crier) run(ctx context.Context) {
	var telling sync.WaitGroup
	defer telling.Wait()
	telling.Go(func() { c.board.Run(ctx) })
	path := filepath.Join(c.home, alarmsFile)
	var before fileStamp
	began := false
	var again time.Time // when the keychain, which did not answer, is asked again; zero for never
	for ctx.Err() == nil {
		now := fileStampOf(path)
		if !began || now != before || now.recent() || !again.IsZero() && !time.Now().Before(again) {
			before, began, again = now, true, time.Time{}
			if c.read() {
				again = time.Now().Add(busyWait)
			}
		}
		c.tellFailed()
		pauseFor(ctx, followEvery)
	}
}

// read says who is told, and reports whether it has to be asked again.
func (c *crier) read() (again bool) {
	a := c.app
	list, err := a.alarms()
	if err != nil {
		c.note("nobody can be told: " + errorText(err))
		return false // It is read again when it is another.
	}
	var to []alarm.To
	k, keyErr := a.homeKeychain()
	for _, r := range list {
		var receiver alarm.Receiver = unable{keyErr}
		if keyErr == nil {
			if receiver, err = a.alarmReceiver(r, k, nil); err != nil {
				receiver, again = unable{err}, true
			}
		} else {
			again = true
		}
		to = append(to, alarm.To{ID: r.ID, Receiver: receiver, Detail: r.Detail})
	}
	c.board.To(to)
	return again
}

// unable is a receiver whose secret cannot be had.
type unable struct{ err error }

func (u unable) Send(context.Context, alarm.Message) error { return u.err }

// tellFailed makes an event of alarms that do not arrive.
func (c *crier) tellFailed() {
	c.mu.Lock()
	failed := c.failed
	c.failed = map[string]error{}
	c.mu.Unlock()
	for id, err := range failed {
		if id == "" {
			c.note(errorText(err))
			continue
		}
		c.note("alarm " + id + " could not be delivered, and is tried again: " + errorText(err))
	}
}

func (c *crier) note(line string) {
	c.s.tell("", event{JSON: eventJSON{Event: "note", Error: line}, Line: line})
}
