// Package alarm decides what a person has to be told of the wallets of a device, and
// sees to it that they are, by mail and by webhooks.
//
//	board, err := alarm.Open(alarm.Config{Path: path})
//	board.To([]alarm.To{{ID: "1", Receiver: &alarm.Webhook{URL: url}}})
//	go board.Run(ctx)
//	...
//	board.Event(alarm.Event{Wallet: name, Name: "alarm", Since: since, …}) // all of them
//
// From the events it keeps a list of what is wrong now, and of each receiver what it was
// told. Whatever differs is told: there is no queue that could grow, and what could not be
// delivered is told when it can be, as it stands then. Trouble is told once and then once
// a day; what happens together is told together; that it is over is told to those who
// were told of it. All this is in a small file, so that a restart forgets nothing.
//
// It has no secrets of wallets and no values of items, and the messages say no more of
// names and places than [Detail] allows: mail and webhooks go through others' hands.
package alarm

import (
	"slices"
	"time"

	"github.com/satchel-backup/satchel"
)

// Kind is what is wrong. It is stable: programs read it.
type Kind string

const (
	Unprotected  Kind = "not protected" // for longer than the agent's policy
	NotSaved     Kind = "not saved"     // changes cannot be kept, not even on this device
	Ended        Kind = "ended"         // the wallet is not kept up to date any more
	Damaged      Kind = "damaged"       // a place lost something, or has other bytes
	Branch       Kind = "branch"        // another device wrote beside the history
	SignIn       Kind = "sign-in needed"
	WrongAccount Kind = "wrong account"
	Full         Kind = "full"
	Away         Kind = "place away"      // a place does not answer, or fails, for a day
	Source       Kind = "source failed"   // where changes come from cannot be read for long
	Blind        Kind = "blind"           // of no wallet: the agent cannot look which wallets there are
	DrillDue     Kind = "drill due"       // nobody tried for long whether a restore works
	Opening      Kind = "open unfinished" // an open of a channel was cut short, and nobody goes on with it
	Gone         Kind = "gone"            // the wallet's directory is not there any more, and nobody said that it may go
)

// rule says when a kind of trouble is told.
type rule struct {
	hold  time.Duration // how long it must last
	again time.Duration // how long until it is told once more
}

const day = 24 * time.Hour

// rules has all kinds, the most urgent first: so they stand in a message.
var rules = []struct {
	kind Kind
	rule
}{
	{Unprotected, rule{0, day}}, // The agent waited an hour already.
	{NotSaved, rule{10 * time.Minute, day}},
	{Ended, rule{2 * time.Minute, day}},  // A session that begins anew is no trouble.
	{Blind, rule{10 * time.Minute, day}}, // Those that it knows are kept on.
	{Gone, rule{2 * time.Minute, day}},
	{WrongAccount, rule{2 * time.Minute, day}},
	{SignIn, rule{2 * time.Minute, day}},
	{Full, rule{5 * time.Minute, day}},
	{Source, rule{15 * time.Minute, day}},
	{Damaged, rule{2 * time.Minute, day}}, // Mostly it is put back by then, and that is told with it.
	{Branch, rule{0, 7 * day}},            // Nothing is lost by waiting.
	{Away, rule{day, day}},
	{Opening, rule{10 * time.Minute, day}}, // Somebody may be about to go on with it.
	{DrillDue, rule{0, 30 * day}},          // A reminder that nags is switched off.
}

// of returns the rule of a kind, and where it stands.
func of(k Kind) (int, rule) {
	for i, r := range rules {
		if r.kind == k {
			return i, r.rule
		}
	}
	return len(rules), rule{time.Minute, day}
}

// Event is an event of "satchel agent run", as the documents describe it.
type Event struct {
	Wallet string // its name on this device; "" for what is of no wallet, see Blind
	Label  string // what people call the wallet
	Name   string // of the event
	Time   time.Time

	// How the backup stood then; ignored if Places is nil.
	Protected bool
	Places    []Place

	Healed  []string  // addresses of places that had lost something and have it again
	Since   time.Time // since when something is not protected
	Drilled time.Time // of "drill due": when a drill last passed, zero if never

	// What went wrong, for people, and what to do next. The hint names no wallet and no
	// place; the text may.
	Error, Hint string
	Code        satchel.Code
}

// Place is how a place stood.
type Place struct {
	Address     string
	Called      string // what kind of place it is, for people: "Google Drive"
	Health      satchel.Health
	Branch      string // what another device wrote there, "" for nothing
	Error, Hint string // as in Event
}

// placeKinds are the kinds of trouble that each health is.
var placeKinds = map[satchel.Health]Kind{
	satchel.HealthSignIn: SignIn, satchel.HealthWrongAccount: WrongAccount, satchel.HealthFull: Full,
	satchel.HealthMissing: Damaged, satchel.HealthDamaged: Damaged,
	satchel.HealthUnreachable: Away, satchel.HealthBehind: Away, satchel.HealthFailed: Away,
}

// Names of events that say more than how the places stand.
const (
	eventAlarm      = "alarm"
	eventNotSaved   = "not saved"
	eventSaved      = "saved"
	eventEnded      = "ended"
	eventWatching   = "watching"
	eventElsewhere  = "elsewhere" // another satchel does it
	eventGone       = "gone"
	eventNewKeys    = "new keys"
	eventSource     = "source failed"
	eventNode       = "node" // a Lightning node answers or, with an error, does not
	eventSourceBack = "source works"
	eventDrillDue   = "drill due"
	eventDrilled    = "drilled"
	eventBlind      = "blind"           // of no wallet, and all others are of one
	eventSees       = "sees"            // the same
	eventOpening    = "open unfinished" // an open of a channel was cut short or, without an error, is so no more
)

// partNode is the part of a wallet's sources that a Lightning node is. It tells itself when
// it fails and when it works, and the others tell nothing of it.
const partNode = "node"

// decide brings a list of troubles up to date with an event.
func (l list) decide(e Event) {
	t := trouble{Wallet: e.Wallet, Label: e.Label, Since: e.Time, Error: e.Error, Hint: e.Hint, Code: int(e.Code)}
	if e.Wallet == "" {
		switch e.Name {
		case eventBlind:
			l.raise(Blind, t, e.Time)
		case eventSees:
			l.clear("", Blind, "", e.Time)
		}
		return
	}
	if e.Places != nil {
		l.places(e, t)
	}
	switch e.Name {
	case eventAlarm:
		t.Since = e.Since
		if e.Protected { // It is a source whose changes do not arrive.
			l.raise(Source, t, e.Time)
		} else {
			l.raise(Unprotected, t, e.Time)
		}
	case eventNotSaved:
		l.raise(NotSaved, t, e.Time)
	case eventSaved:
		l.clear(e.Wallet, NotSaved, "", e.Time)
	case eventEnded:
		if e.Error != "" {
			l.raise(Ended, t, e.Time)
		}
	case eventWatching:
		l.clear(e.Wallet, Ended, "", e.Time)
		l.clear(e.Wallet, Gone, "", e.Time)
		l.doubt(e.Wallet, e.Time)
	case eventElsewhere:
		l.clear(e.Wallet, Ended, "", e.Time)
		l.clear(e.Wallet, Gone, "", e.Time)
	case eventGone, eventNewKeys:
		if l.clearWallet(e.Wallet, e.Time); e.Error != "" {
			l.raise(Gone, t, e.Time)
		}
	case eventSource:
		l.raise(Source, t, e.Time)
	case eventNode:
		if t.Part = partNode; e.Error != "" {
			l.raise(Source, t, e.Time)
		} else {
			l.clear(e.Wallet, Source, partNode, e.Time)
		}
	case eventSourceBack:
		l.clear(e.Wallet, Source, "", e.Time)
		l.clear(e.Wallet, NotSaved, "", e.Time)
	case eventOpening:
		if e.Error == "" {
			l.clear(e.Wallet, Opening, "", e.Time)
			break
		}
		if !e.Since.IsZero() {
			t.Since = e.Since
		}
		l.raise(Opening, t, e.Time)
	case eventDrillDue:
		t.Since = e.Drilled
		l.raise(DrillDue, t, e.Time)
	case eventDrilled:
		l.clear(e.Wallet, DrillDue, "", e.Time)
	}
}

// places takes in how the places stand.
func (l list) places(e Event, t trouble) {
	if e.Protected {
		l.clear(e.Wallet, Unprotected, "", e.Time)
	}
	now := map[string]bool{} // keys of what is wrong with places
	raise := func(k Kind, p Place) {
		t := t
		t.Place, t.Called, t.Error, t.Hint = p.Address, p.Called, p.Error, p.Hint
		t.Protected = e.Protected && slices.ContainsFunc(e.Places, func(q Place) bool {
			return q.Address != p.Address && q.Health == satchel.HealthProtected // What was in this one may be gone.
		})
		now[l.raise(k, t, e.Time)] = true
	}
	for _, p := range e.Places {
		if k, ok := placeKinds[p.Health]; ok {
			raise(k, p)
		}
		if p.Branch != "" {
			p.Error, p.Hint = p.Branch, ""
			raise(Branch, p)
		}
	}
	for _, address := range e.Healed {
		// It may have been noticed and put back in one go.
		p := Place{Address: address}
		for _, q := range e.Places {
			if q.Address == address {
				p.Called = q.Called
			}
		}
		if placeKinds[l.healthOf(e, address)] != Damaged {
			raise(Damaged, p)
			delete(now, key(e.Wallet, Damaged, address, ""))
		}
	}
	for k, t := range l {
		if t.Wallet == e.Wallet && t.Place != "" && !now[k] {
			t.end(e.Time)
		}
	}
}

func (l list) healthOf(e Event, address string) satchel.Health {
	for _, p := range e.Places {
		if p.Address == address {
			return p.Health
		}
	}
	return ""
}
