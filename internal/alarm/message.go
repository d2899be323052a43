package alarm

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// State says what is told of a trouble. It is stable: programs read it.
type State string

const (
	Raised State = "raised" // it is told for the first time
	Lasts  State = "lasts"  // it was told, and goes on
	Passed State = "passed" // it came and went, and is told for the first time
	Over   State = "over"   // it was told, and is over
)

func (s State) order() int {
	return map[State]int{Raised: 0, Passed: 1, Lasts: 2, Over: 3}[s]
}

// Detail says what the messages to a receiver may name.
type Detail string

const (
	// Label, the default, names a wallet by its label and a place by its kind, as "Google
	// Drive". No address, account, path or text of an error is in it.
	Label Detail = "label"
	// Least names neither: "a wallet", "a place".
	Least Detail = "least"
	// All also has the addresses of places and the errors as they came.
	All Detail = "all"
)

// Message is what a receiver is told. Whatever the receiver must not know is not in it.
type Message struct {
	ID   string // the same if the same is sent twice
	Time time.Time
	Test bool
	// Items are what is told, at most maxItems, and More is how many are left out.
	Items []Item
	More  int
}

const maxItems = 20

// Item is one thing that is wrong, or was.
type Item struct {
	State  State
	Kind   Kind
	Wallet string // as the receiver may know it
	Place  string // the same; "" if it is of no place
	Code   int
	Since  time.Time // zero if that is not known
	Ended  time.Time // zero while it lasts

	// For people, each one or more sentences.
	Happened, Safe, Next string
}

// TestMessage is a message that says that messages arrive.
func TestMessage(now time.Time) Message {
	return Message{ID: idOf("test", []note{{trouble: trouble{Raised: now}}}), Time: now, Test: true}
}

// compose makes the message of what is to be told.
func compose(to To, notes []note, now time.Time) Message {
	m := Message{ID: idOf(to.ID, notes), Time: now}
	for i, n := range notes {
		if i == maxItems {
			m.More = len(notes) - maxItems
			break
		}
		m.Items = append(m.Items, n.item(to.Detail, now))
	}
	return m
}

// item puts a note into words.
func (n *note) item(d Detail, now time.Time) Item {
	it := Item{State: n.state, Kind: n.Kind, Wallet: n.Label, Place: n.Called, Code: n.Code, Since: n.Since, Ended: n.Over}
	if it.Wallet == "" {
		it.Wallet = cmp.Or(n.Wallet, thisDevice)
	}
	switch d {
	case Least:
		it.Wallet, it.Place = "a wallet", "a place"
		if n.Wallet == "" {
			it.Wallet = thisDevice
		}
	case All:
		it.Place = n.Place
	}
	if it.Place == "" {
		it.Place = "a place"
	}
	n.words(&it, now)
	it.Happened = upper(it.Happened)
	if d == All && n.Error != "" && n.state != Over {
		it.Happened += " The error was: " + n.Error + "."
	}
	if n.Place == "" {
		it.Place = ""
	}
	return it
}

// thisDevice stands for a wallet where none is meant.
const thisDevice = "this device"

// sentence makes a sentence of a hint.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

// moment is a time as a person reads it who may be elsewhere.
func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04 MST") }

// words says what happened, what is safe, and what to do next.
func (n *note) words(it *Item, now time.Time) {
	w, p := it.Wallet, it.Place
	since := ""
	if !n.Since.IsZero() {
		since = " since " + moment(n.Since)
	}
	elsewhere := "All changes are kept on this device, and go there when that is possible. If this device is lost before, the newest changes are lost with it."
	if n.Protected {
		elsewhere = "The newest state is protected in another place."
	}
	switch n.Kind {
	case Unprotected:
		it.Happened = fmt.Sprintf("%s is not protected%s.", w, since)
		it.Safe = "This device has everything, and what was protected before still is. If this device is lost now, what changed since then is lost with it."
		it.Next = "`satchel status` shows each place, and what helps."
	case NotSaved:
		it.Happened = fmt.Sprintf("Changes of %s cannot be kept%s, not even on this device.", w, since)
		it.Safe = "What was saved before is as it was. What changed since then is only where it came from."
		it.Next = "Is the disk full, or its folder not writable? It is tried again all the time."
	case Ended:
		it.Happened = fmt.Sprintf("%s is not kept up to date any more%s.", w, since)
		it.Safe = "What was protected before still is. Changes from then on are not saved."
		it.Next = "`satchel status` says how it stands."
	case SignIn:
		it.Happened = fmt.Sprintf("%s, which holds the backup of %s, wants to be signed in to again.", upper(p), w)
		it.Safe = elsewhere
		it.Next = "`satchel store list` shows where; `satchel store signin PLACE` signs in again."
	case WrongAccount:
		it.Happened = fmt.Sprintf("The sign-in for %s at %s is to another account than the one that holds the backup.", w, p)
		it.Safe = "Nothing was read or written there. " + elsewhere
		it.Next = "Sign in to the account that holds the backup: `satchel store signin PLACE`."
	case Full:
		it.Happened = fmt.Sprintf("%s, which holds the backup of %s, is full.", upper(p), w)
		it.Safe = "What was verified there before is still there. " + elsewhere
		it.Next = "Make room there; it is tried again by itself."
	case Damaged:
		it.Happened = fmt.Sprintf("Something of %s was missing or damaged in %s.", w, p)
		it.Safe = "This device has all of it, and puts it back by itself."
		it.Next = "Look who, or which program, can change that place. `satchel check` compares everything."
		if n.state == Passed {
			it.Safe = "This device had all of it, and put it back at " + moment(n.Over) + "."
		}
	case Branch:
		it.Happened = fmt.Sprintf("Another device wrote to the backup of %s in %s, beside its history.", w, p)
		it.Safe = "Nothing is lost, and saving goes on."
		it.Next = "`satchel history` shows what it wrote. Bring over what you need, then `satchel prune --all --branches` deletes it."
	case Away:
		it.Happened = fmt.Sprintf("%s, which holds the backup of %s, does not answer, or does not take what is new%s.", upper(p), w, since)
		it.Safe = elsewhere
		it.Next = "`satchel status` says why."
	case Source:
		it.Happened = fmt.Sprintf("What is to be saved of %s cannot be read%s.", w, since)
		it.Safe = "What was saved before is as it was. What changes meanwhile is not saved."
		it.Next = "`satchel agent status` says what fails. It is tried again all the time."
	case Blind:
		it.Happened = fmt.Sprintf("The agent cannot look which wallets there are%s.", since)
		it.Safe = "What was protected before still is. Wallets that the agent knew before go on to be kept up to date; after a start of the agent, none is."
		it.Next = "Is the disk with Satchel's folder there, and may this user read it? It is tried again all the time."
	case Opening:
		it.Happened = fmt.Sprintf("An open of a channel of %s was cut short%s.", w, since)
		it.Safe = "Nothing is lost. Its coins are set aside, or in a channel that is not there yet."
		it.Next = "`satchel lnd open --resume` goes on with it, or gives it up safely."
	case Gone:
		it.Happened = fmt.Sprintf("The folder of %s on this device is gone%s, and no command of Satchel took it away.", w, since)
		it.Safe = "What was protected is still in its places. What changes from now on is not saved, and the wallet's keys may be gone from this device."
		it.Next = "If nobody deleted it on purpose, see whether this disk is well. `satchel restore` brings the wallet back, with a secret of the backup."
	case DrillDue:
		it.Happened = fmt.Sprintf("No restore of %s was tried yet with a way in that it has now.", w)
		if !n.Since.IsZero() {
			it.Happened = fmt.Sprintf("A restore of %s was last tried %d days ago.", w, int(now.Sub(n.Since)/day))
		}
		it.Safe = "The backup is compared every day. What only you can prove is that you still have what opens it."
		it.Next = "`satchel drill` tries it, and changes nothing."
	}
	if n.Hint != "" && n.Kind != DrillDue {
		it.Next = sentence(n.Hint)
	}
	if n.state == Over {
		it.Happened, it.Safe, it.Next = n.overWords(w, p), "", ""
	}
}

// overWords says that something is over.
func (n *note) overWords(w, p string) string {
	what := map[Kind]string{
		Unprotected:  "%s is protected again.",
		NotSaved:     "Changes of %s are kept again.",
		Ended:        "%s is kept up to date again.",
		SignIn:       "%s: the sign-in at %s is good again.",
		WrongAccount: "%s: the account at %s is the right one again.",
		Full:         "%s: there is room again at %s.",
		Damaged:      "%s: what was missing or damaged at %s was put back.",
		Branch:       "%s: nothing stands beside the history at %s any more.",
		Away:         "%s: what was late at %s arrived.",
		Source:       "What is to be saved of %s can be read again.",
		Opening:      "%s: no open of a channel is unfinished any more.",
		Gone:         "%s is on this device again.",
		DrillDue:     "A restore of %s was tried, and passed.",
		Blind:        "The wallets of %s can be looked for again.",
	}[n.Kind]
	text := fmt.Sprintf(what, w)
	if strings.Count(what, "%s") == 2 {
		text = fmt.Sprintf(what, w, p)
	}
	return upper(text)
}

// upper begins a sentence with a capital letter, unless it begins with an address.
func upper(s string) string {
	if first, _, _ := strings.Cut(s, " "); s == "" || strings.Contains(first, ":") {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// Subject is the message in a few words.
func (m Message) Subject() string {
	if m.Test {
		return "Satchel: a test"
	}
	raised := 0
	for _, it := range m.Items {
		if it.State == Raised || it.State == Lasts {
			raised++
		}
	}
	total := len(m.Items) + m.More
	switch {
	case total == 0:
		return "Satchel"
	case total == 1 && m.Items[0].State == Over:
		return "Satchel: all clear: " + titles[m.Items[0].Kind].over(m.Items[0])
	case total == 1:
		return "Satchel: " + titles[m.Items[0].Kind].raised(m.Items[0])
	case raised == 0:
		return fmt.Sprintf("Satchel: all clear (%d)", total)
	}
	first := m.Items[0]
	if first.State == Over {
		return fmt.Sprintf("Satchel: %d messages", total)
	}
	return fmt.Sprintf("Satchel: %s, and %d more", titles[first.Kind].raised(first), total-1)
}

// title is a kind of trouble in a subject.
type title struct{ text, done string }

func (t title) raised(it Item) string { return it.Wallet + ": " + t.text }
func (t title) over(it Item) string   { return it.Wallet + ": " + t.done }

var titles = map[Kind]title{
	Unprotected:  {"not protected", "protected again"},
	NotSaved:     {"changes cannot be kept", "changes are kept again"},
	Ended:        {"not kept up to date any more", "kept up to date again"},
	SignIn:       {"sign-in needed", "signed in"},
	WrongAccount: {"wrong account", "the right account"},
	Full:         {"a place is full", "there is room again"},
	Damaged:      {"damage in a place", "damage put right"},
	Branch:       {"another device wrote beside the backup", "no branch any more"},
	Away:         {"a place is away", "a place is back"},
	Source:       {"what is to be saved cannot be read", "what is to be saved can be read again"},
	Blind:        {"wallets cannot be looked for", "wallets can be looked for again"},
	Opening:      {"an open of a channel was cut short", "the open of a channel is not unfinished any more"},
	Gone:         {"gone from this device", "on this device again"},
	DrillDue:     {"time to try a restore", "a restore was tried"},
}

// Text is the message for a person.
func (m Message) Text() string {
	var s strings.Builder
	if m.Test {
		s.WriteString("This is a test. Messages of your Satchel arrive here.\n")
	}
	for i, it := range m.Items {
		if i > 0 {
			s.WriteString("\n")
		}
		switch it.State {
		case Lasts:
			s.WriteString("Still: ")
		case Over:
			s.WriteString("All clear: ")
		}
		fmt.Fprintf(&s, "%s\n", it.Happened)
		if it.State == Over && !it.Since.IsZero() && it.Kind != DrillDue {
			fmt.Fprintf(&s, "It began %s and ended %s.\n", moment(it.Since), moment(it.Ended))
		}
		if it.Safe != "" {
			fmt.Fprintf(&s, "What is safe: %s\n", it.Safe)
		}
		if it.Next != "" {
			fmt.Fprintf(&s, "What to do: %s\n", it.Next)
		}
	}
	if m.More > 0 {
		fmt.Fprintf(&s, "\nAnd %d more: `satchel status` shows all.\n", m.More)
	}
	s.WriteString("\nThis comes from the Satchel on your own device, which asks for no code, PIN or words by mail. Commands are to be typed on that device.\n")
	return s.String()
}
