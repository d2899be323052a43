// Package guard keeps a secret behind a PIN: it is the client of the key servers.
//
// A secret is shared among n guardians so that t of them, and the right PIN, give it
// back. No guardian, nor all of them together, sees the PIN or anything that it could be
// tested with; each allows few guesses. The protocol is docs/protocol.md, what the slot
// holds is docs/format.md.
//
// Enrolling has steps that a crash may come between. Each gives a value that the caller
// makes durable before the next, and nothing else is remembered:
//
//	plan, err := guard.NewPlan(backup, 2, servers) // keep plan; after a crash: client.Abandon
//	e, err := client.Enrol(ctx, plan, pin, passphrase)
//	...                                            // seal the slot with e
//	s := e.Settlement(owner, epoch, head)          // keep s and the slot; forget plan
//	...                                            // write the slot, read it back, open it with e
//	s, err = client.Settle(ctx, s)                 // until s.Done(); after a crash: again
//
// A changed PIN and other guardians are enrolled in the same way with a plan of
// [Client.Replace]. At every moment the old slot or the new one opens, and after
// [Client.Settle] ended only the new one.
//
//	r, err := client.Recover(slot, pin)
//	o, err := r.Open(ctx)              // may be repeated if guardians were away
//	key, err := o.FileKey(passphrase)
//	...                                // open the slot
//	told := o.Finish(ctx)              // gives the guesses back
package guard

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/satchel-backup/satchel/protocol"
)

// Transport carries messages to guardians. It is safe for concurrent use.
type Transport interface {
	// Send sends the bytes of a request to a server, named as in the slot, and returns
	// the bytes of its reply, of at most protocol.MaxMessage. An error says that no reply
	// came: the request may have been answered or not. It returns when ctx ends.
	Send(ctx context.Context, server string, request []byte) ([]byte, error)
}

// Client talks to guardians. Transport and Trusted are required. It is safe for
// concurrent use.
type Client struct {
	Transport Transport
	// Trusted reports whether this server may be talked to: it was enrolled by this
	// device, is configured, or the user said so. A slot comes from the cloud and may
	// name any server. Nil trusts none.
	Trusted func(server string) bool
	// Patience is how long a guardian may take before another is asked as well; zero
	// means 4 seconds. How long it may take at all is the transport's affair.
	Patience time.Duration
	KDF      *KDF             // how PINs are stretched when they are enrolled; nil means Stretch
	Now      func() time.Time // nil means time.Now

	seq atomic.Uint64
}

const defaultPatience = 4 * time.Second

// sends is how often a request is sent when no reply comes. The same bytes go out: a
// server that answered before answers the same again, at no cost.
const sends = 3

func (c *Client) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// sequence returns a number that is higher than all it returned before.
func (c *Client) sequence() uint64 {
	for {
		last := c.seq.Load()
		next := max(uint64(max(c.now().UnixMilli(), 0)), last+1)
		if c.seq.CompareAndSwap(last, next) {
			return next
		}
	}
}

// account is an account at one server, with the key that its requests are signed with.
type account struct {
	server string
	access ed25519.PrivateKey
}

func accountOf(server string, seed []byte) (account, error) {
	if len(seed) != ed25519.SeedSize {
		return account{}, errors.New("an access key has the wrong length")
	}
	return account{server, ed25519.NewKeyFromSeed(seed)}, nil
}

func (a account) id() protocol.Account {
	return protocol.AccountOf(a.access.Public().(ed25519.PublicKey))
}

// ask sends a request and reads the answer into reply, a pointer, or nil for an empty
// one. The error is a *protocol.Refusal, one of protocol's, or the transport's.
func (c *Client) ask(ctx context.Context, a account, p protocol.Payload, reply any) error {
	seq := c.sequence()
	err := c.send(ctx, a.server, protocol.Sign(a.access, seq, p), reply)
	if r, ok := errors.AsType[*protocol.Refusal](err); ok && r.Code == protocol.CodeSequence {
		// Another device's clock was ahead of ours, or ours is wrong.
		return c.send(ctx, a.server, protocol.Sign(a.access, r.Sequence.Last+1, p), reply)
	}
	return err
}

func (c *Client) send(ctx context.Context, server string, body []byte, reply any) error {
	var err error
	for range sends {
		var b []byte
		if b, err = c.Transport.Send(ctx, server, body); err == nil {
			err = protocol.ParseReply(b, reply)
			if r, ok := errors.AsType[*protocol.Refusal](err); !ok || r.Code != protocol.CodeUnavailable {
				return err
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

// trust returns an error that names the servers which are not trusted.
func (c *Client) trust(servers []string) error {
	var unknown []string
	for _, s := range servers {
		if (c.Trusted == nil || !c.Trusted(s)) && !slices.Contains(unknown, s) {
			unknown = append(unknown, s)
		}
	}
	if len(unknown) > 0 {
		return &UnknownError{unknown}
	}
	return nil
}

// each runs do for 0 to n-1 at once and waits for all.
func each(n int, do func(i int)) {
	done := make(chan struct{})
	for i := range n {
		go func() {
			defer func() { done <- struct{}{} }()
			do(i)
		}()
	}
	for range n {
		<-done
	}
}

// grace is how long guardians may take when as many answered as open a slot.
const grace = 3 * time.Second

// graceful returns a context that ends soon after enough calls of answered: what one
// guardian says must not take as long as it hangs.
func graceful(ctx context.Context, need int) (limited context.Context, answered func(), cancel func()) {
	limited, stop := context.WithCancel(ctx)
	began := time.Now()
	var n atomic.Int32
	return limited, func() {
		if int(n.Add(1)) == need {
			time.AfterFunc(max(grace, 2*time.Since(began)), stop)
		}
	}, stop
}

// Authority is a key that may replace and end accounts: that of the owner, or that of
// one who opened the slot with the PIN.
type Authority struct {
	by  protocol.Authority
	key func(protocol.Account) ed25519.PrivateKey
}

// Owner returns the authority of who has the backup key.
func Owner(key ed25519.PrivateKey) Authority {
	return Authority{protocol.ByOwner, func(protocol.Account) ed25519.PrivateKey { return key }}
}

// Standing is how an account stands at one guardian.
type Standing struct {
	Server string
	// Err is nil if the guardian answered. ErrGone, ErrUnreachable and ErrLie are among
	// what it may be.
	Err error
	// Damaged says that the guardian knows another slot than this one.
	Damaged bool
	protocol.Status
}

// Status asks all guardians of a slot how the account stands. It costs no guess.
func (c *Client) Status(ctx context.Context, s *Slot) ([]Standing, error) {
	if err := c.trust(s.Servers()); err != nil {
		return nil, err
	}
	hash := s.Hash()
	list := make([]Standing, len(s.Guardians))
	ctx, answered, cancel := graceful(ctx, s.Threshold)
	defer cancel()
	each(len(list), func(i int) {
		g := &s.Guardians[i]
		list[i].Server = g.Server
		list[i].Err = fact(c.ask(ctx, g.account(), protocol.AskStatus{}, &list[i].Status))
		if list[i].Err == nil {
			answered()
		}
		list[i].Damaged = list[i].Err == nil && list[i].State == protocol.StateActive && list[i].Slot != hash
	})
	return list, nil
}

// Delete ends the accounts of a slot at all guardians. It is safe to repeat. The errors
// name the guardians where it is not known to be done.
func (c *Client) Delete(ctx context.Context, s *Slot, by Authority) error {
	if err := c.trust(s.Servers()); err != nil {
		return err
	}
	_, err := c.steps(ctx, Ending(s, by))
	return err
}

// Ending returns the steps that end the accounts of a slot, for a Settlement's Drop.
func Ending(s *Slot, by Authority) []Step {
	var steps []Step
	for i := range s.Guardians {
		a := s.Guardians[i].account()
		steps = append(steps, dropping(a, protocol.NewDelete(by.key(a.id()), a.id(), by.by)))
	}
	return steps
}

// Abandoning returns the steps that end the accounts of a plan, for a Settlement's Drop:
// unlike Client.Abandon also those that were confirmed.
func Abandoning(p *Plan, by Authority) []Step {
	var steps []Step
	for i := range p.Accounts {
		if a, err := p.Accounts[i].account(); err == nil {
			steps = append(steps, dropping(a, protocol.NewDelete(by.key(a.id()), a.id(), by.by)))
		}
	}
	return steps
}

// Probe asks whether a key server answers at that name. It tells it nothing: it asks for
// an account that nobody has.
func (c *Client) Probe(ctx context.Context, server string) error {
	if err := CheckServer(server); err != nil {
		return named(server, err)
	}
	if err := c.trust([]string{server}); err != nil {
		return err
	}
	a := stranger(server)
	if err := fact(c.ask(ctx, a, protocol.AskStatus{}, new(protocol.Status))); !errors.Is(err, ErrGone) {
		if err == nil {
			err = ErrLie
		}
		return named(server, err)
	}
	return nil
}

// Admits asks whether a key server lets this client make an account, which may take a
// registration token: ErrToken. It makes one that holds nothing, and ends it at once.
func (c *Client) Admits(ctx context.Context, server string) error {
	if err := c.trust([]string{server}); err != nil {
		return err
	}
	// Of a text that anybody may know: nothing will ever be opened with it.
	b, err := protocol.Blind([]byte("nothing"))
	if err != nil {
		return err
	}
	a := stranger(server)
	if err := fact(c.ask(ctx, a, protocol.Create{Blinded: b.Blinded, Limit: 1}, new(protocol.Created))); err != nil {
		return named(server, err)
	}
	// What is left if this does not arrive goes by itself after seven days.
	_ = c.ask(ctx, a, protocol.Delete{}, nil)
	return nil
}

// stranger returns an account that nobody has.
func stranger(server string) account {
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed)
	return account{server, ed25519.NewKeyFromSeed(seed)}
}

// end deletes an account. One that is not there is as good as deleted, and one that
// was never confirmed needs no authority. One that was erased and never confirmed has no
// owner who might end it, and no key either.
func (c *Client) end(ctx context.Context, a account, d protocol.Delete) error {
	err := c.ask(ctx, a, d, nil)
	if refused(err, protocol.CodeDenied) && d.By != protocol.NoAuthority {
		err = c.ask(ctx, a, protocol.Delete{}, nil)
	}
	if refused(err, protocol.CodeDenied) {
		var st protocol.Status
		if c.ask(ctx, a, protocol.AskStatus{}, &st) == nil && st.State == protocol.StateErased {
			return nil
		}
	}
	if err = fact(err); errors.Is(err, ErrGone) {
		return nil
	}
	return err
}

func refused(err error, code protocol.Code) bool {
	r, ok := errors.AsType[*protocol.Refusal](err)
	return ok && r.Code == code
}

func named(server string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("key server %s: %w", server, err)
}

// ID is the id of a backup.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }
