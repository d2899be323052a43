package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/satchel-backup/satchel/store"
)

// Op is one method of a store.
type Op string

// The methods of a store. Any stands for each of them.
const (
	Any    Op = ""
	Put    Op = "put"
	Get    Op = "get"
	List   Op = "list"
	Delete Op = "delete"
)

// Fault is something that stores do. Its text is its name.
type Fault string

// The faults. Each says which methods it concerns; to the others it is None.
const (
	None Fault = ""

	// What lies about bytes. Put says yes and stores the wrong thing; Get finds
	// the wrong thing.
	Drop      Fault = "drop"       // Put, Delete: says yes and does nothing
	Truncate  Fault = "truncate"   // Put, Get: the second half is missing
	Empty     Fault = "empty"      // Put, Get: no bytes at all
	Flip      Fault = "flip"       // Put, Get: one bit is wrong
	Other     Fault = "other"      // Put, Get: other bytes of the same length
	Previous  Fault = "previous"   // Put, Get: bytes of the object put before, of another name
	Stranger  Fault = "stranger"   // Put, Get: Foreign, an object of another backup
	Duplicate Fault = "duplicate"  // Put: stores a second object, of other bytes, too; List: names each object twice
	Absent    Fault = "absent"     // Get: says there is no such object; List: says there are none
	Lag       Fault = "lag"        // List: leaves out what was put since Settle
	HalfList  Fault = "half list"  // List: every second object and no error, which the contract forbids
	ListError Fault = "list error" // List: store.ErrListing

	// What fails. The method is not carried out, except for Applied and HangApplied.
	NotApplied   Fault = "not applied"  // an error, and nothing happened
	Applied      Fault = "applied"      // an error, and yet it happened
	Torn         Fault = "torn"         // Put: an error, and half of the bytes are there
	Hang         Fault = "hang"         // nothing until the context ends
	HangApplied  Fault = "hang applied" // carried out; no answer until the context ends
	Full         Fault = "full"         // Put: store.ErrFull
	Unreachable  Fault = "unreachable"  // store.ErrUnreachable
	SignIn       Fault = "sign-in"      // store.ErrSignIn
	WrongAccount Fault = "wrong account"
)

// Faults returns every fault but None, for tests that try them all.
func Faults() []Fault {
	return []Fault{
		Drop, Truncate, Empty, Flip, Other, Previous, Stranger, Duplicate, Absent, Lag, HalfList, ListError,
		NotApplied, Applied, Torn, Hang, HangApplied, Full, Unreachable, SignIn, WrongAccount,
	}
}

// ErrFault is what a store says under NotApplied, Applied and Torn.
var ErrFault = errors.New("connection reset by the test")

// Faulty is a store with faults. It keeps the contract as far as a faulty medium
// lets it: where Get finds wrong bytes it compares their hash and says
// store.ErrDamaged, as every provider does. Its behaviour depends on nothing but
// the calls made. Which fault strikes is decided by Once, else by Choose, else
// by Set.
type Faulty struct {
	Inner store.Store

	// Foreign is what Stranger gives: whole, and of another backup.
	Foreign []byte

	// Record makes Sent return what was sent.
	Record bool

	mu     sync.Mutex
	choose func(Op, string) Fault // guarded by mu
	lies   bool                   // guarded by mu
	set    map[Op]Fault           // guarded by mu
	once   map[Op][]Fault         // guarded by mu
	counts map[Op]int             // guarded by mu
	sent   []Call                 // guarded by mu
	recent map[string]bool        // names put since Settle; guarded by mu
	puts   []putRecord            // the last object put, and the last of another name; guarded by mu
}

type putRecord struct {
	name string
	data []byte
}

// Call is a call as the store saw it.
type Call struct {
	Op   Op
	Name string // the prefix for List
	Data []byte // for Put
}

var _ store.Store = (*Faulty)(nil)

// Choose makes choose, if it is not nil, return the fault for each call from now on; name
// is the prefix for List. It is called without a lock held, by several calls at once if
// there are such, and may block, to stage a race. Calls that were given up may go on for a
// while: what it touches is locked.
func (f *Faulty) Choose(choose func(op Op, name string) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.choose = choose
}

// Lies says whether Get returns wrong bytes even where a hash was wanted: a provider with
// a bug, for callers who trust none.
func (f *Faulty) Lies(lies bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lies = lies
}

// Set makes fault strike every call of op from now on; Any means every method
// that has no fault set of its own. None ends it.
func (f *Faulty) Set(op Op, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.set == nil {
		f.set = map[Op]Fault{}
	}
	f.set[op] = fault
}

// Once makes faults strike the next calls of op, one each.
func (f *Faulty) Once(op Op, faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.once == nil {
		f.once = map[Op][]Fault{}
	}
	f.once[op] = append(f.once[op], faults...)
}

// Settle ends the lag of what was put until now.
func (f *Faulty) Settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recent = nil
}

// Count returns how often op was called; Any counts all calls.
func (f *Faulty) Count(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if op != Any {
		return f.counts[op]
	}
	n := 0
	for _, c := range f.counts {
		n += c
	}
	return n
}

// Sent returns the calls made while Record was set: every byte and every name
// that left for this store, also in calls that failed (R19).
func (f *Faulty) Sent() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Call(nil), f.sent...)
}

// Leaks reports whether any of the needles was sent, in a name or in bytes.
func (f *Faulty) Leaks(needles ...[]byte) bool {
	for _, c := range f.Sent() {
		for _, n := range needles {
			if bytes.Contains(c.Data, n) || strings.Contains(c.Name, string(n)) {
				return true
			}
		}
	}
	return false
}

// begin counts and records a call and returns the fault that strikes it.
func (f *Faulty) begin(op Op, name string, data []byte) Fault {
	f.mu.Lock()
	if f.counts == nil {
		f.counts = map[Op]int{}
	}
	f.counts[op]++
	if f.Record {
		f.sent = append(f.sent, Call{op, name, bytes.Clone(data)})
	}
	if queue := f.once[op]; len(queue) > 0 {
		f.once[op] = queue[1:]
		f.mu.Unlock()
		return queue[0]
	}
	fault, ok := f.set[op]
	if !ok {
		fault = f.set[Any]
	}
	choose := f.choose
	f.mu.Unlock()
	if choose != nil {
		if chosen := choose(op, name); chosen != None {
			return chosen
		}
	}
	return fault
}

// fail does what the faults that concern every method do. It reports false for
// the other faults.
func fail(ctx context.Context, fault Fault, do func() error) (bool, error) {
	switch fault {
	case NotApplied:
		return true, ErrFault
	case Applied:
		do()
		return true, ErrFault
	case Hang:
		<-ctx.Done()
		return true, ctx.Err()
	case HangApplied:
		do()
		<-ctx.Done()
		return true, ctx.Err()
	case Unreachable:
		return true, fmt.Errorf("fault: %w", store.ErrUnreachable)
	case SignIn:
		return true, fmt.Errorf("fault: %w", store.ErrSignIn)
	case WrongAccount:
		return true, fmt.Errorf("fault: %w", store.ErrWrongAccount)
	}
	return false, nil
}

// spoil returns data as the fault leaves it.
func (f *Faulty) spoil(fault Fault, name string, data []byte) []byte {
	bad := bytes.Clone(data)
	switch fault {
	case Truncate, Torn:
		return bad[:len(bad)/2]
	case Empty:
		return nil
	case Flip:
		if len(bad) > 0 {
			bad[len(bad)/2] ^= 0x10
		}
	case Other:
		for i := range bad {
			bad[i] = byte(i*7+13) ^ bad[i] ^ 0x5a
		}
	case Stranger:
		return bytes.Clone(f.Foreign)
	case Previous:
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, p := range f.puts {
			if p.name != name {
				return bytes.Clone(p.data)
			}
		}
		return nil // Nothing was put before.
	}
	return bad
}

// Put implements [store.Store], with faults.
func (f *Faulty) Put(ctx context.Context, name string, data []byte) error {
	fault := f.begin(Put, name, data)
	do := func() error { return f.Inner.Put(ctx, name, data) }
	f.mu.Lock()
	if f.recent == nil {
		f.recent = map[string]bool{}
	}
	f.recent[name] = true
	f.mu.Unlock()
	defer f.remember(name, data)

	if failed, err := fail(ctx, fault, do); failed {
		return err
	}
	switch fault {
	case Full:
		return fmt.Errorf("fault: %w", store.ErrFull)
	case Drop:
		return nil
	case Torn:
		f.Inner.Put(ctx, name, f.spoil(fault, name, data))
		return ErrFault
	case Truncate, Empty, Flip, Other, Previous, Stranger:
		return f.Inner.Put(ctx, name, f.spoil(fault, name, data))
	case Duplicate:
		if twin, ok := f.Inner.(interface{ Add(string, []byte) }); ok {
			twin.Add(name, f.spoil(Other, name, data))
			twin.Add(name, data)
			return nil
		}
	}
	return do()
}

// remember keeps the last two objects put that have different names.
func (f *Faulty) remember(name string, data []byte) {
	if len(data) > store.MaxObject {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	puts := []putRecord{{name, bytes.Clone(data)}}
	for _, p := range f.puts {
		if p.name != name && len(puts) < 2 {
			puts = append(puts, p)
		}
	}
	f.puts = puts
}

// Get implements [store.Store], with faults.
func (f *Faulty) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	fault := f.begin(Get, name, nil)
	if failed, err := fail(ctx, fault, func() error { return nil }); failed {
		return nil, err
	}
	switch fault {
	case Absent:
		return nil, fmt.Errorf("fault: %w", store.ErrNotExist)
	case Truncate, Empty, Flip, Other, Previous, Stranger:
		data, err := f.Inner.Get(ctx, name, want, limit)
		if err != nil {
			return nil, err
		}
		data = f.spoil(fault, name, data)
		f.mu.Lock()
		lies := f.lies
		f.mu.Unlock()
		switch {
		case int64(len(data)) > limit:
			return nil, fmt.Errorf("fault: %w", store.ErrTooLarge)
		case !lies && !want.Matches(data):
			return nil, fmt.Errorf("fault: %w", store.ErrDamaged)
		}
		return data, nil
	}
	return f.Inner.Get(ctx, name, want, limit)
}

// List implements [store.Store], with faults.
func (f *Faulty) List(ctx context.Context, prefix string) ([]store.Object, error) {
	fault := f.begin(List, prefix, nil)
	if failed, err := fail(ctx, fault, func() error { return nil }); failed {
		return nil, err
	}
	switch fault {
	case ListError:
		return nil, fmt.Errorf("fault: %w", store.ErrListing)
	case Absent:
		return nil, nil
	}
	all, err := f.Inner.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []store.Object
	for i, o := range all {
		switch {
		case fault == Lag && f.recent[o.Name], fault == HalfList && i%2 == 1:
			continue
		case fault == Duplicate:
			list = append(list, o)
		}
		list = append(list, o)
	}
	return list, nil
}

// Delete implements [store.Store], with faults.
func (f *Faulty) Delete(ctx context.Context, o store.Object) error {
	fault := f.begin(Delete, o.Name, nil)
	do := func() error { return f.Inner.Delete(ctx, o) }
	if failed, err := fail(ctx, fault, do); failed {
		return err
	}
	if fault == Drop {
		return nil
	}
	return do()
}
