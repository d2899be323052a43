package guard

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cloudflare/circl/group"

	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// ErrPending says that an enrolment was not confirmed everywhere: settle it first.
var ErrPending = errors.New("the enrolment of the PIN is not confirmed yet")

// Plan says which accounts are to be made, before any is. Keep it until a Settlement
// takes its place: without it nothing is lost, but accounts that were made stay at
// their servers, up to 7 days or until the next change. It holds access keys, which let
// one spend guesses: keep it sealed. It is JSON.
type Plan struct {
	Backup    ID
	Threshold int
	Accounts  []Planned
	Drop      []Step // accounts that nobody needs when all is done
}

// Planned is an account that is to be made.
type Planned struct {
	Server   string
	Access   []byte // seed of the access key
	Replaces []byte `json:",omitempty"` // account, whose guesses it shares until it takes its place
	By       protocol.Authority
	Allowed  []byte `json:",omitempty"`
}

func (p *Planned) account() (account, error) { return accountOf(p.Server, p.Access) }

// NewPlan plans to share a secret among servers so that t of them give it back.
func NewPlan(backup ID, t int, servers []string) (*Plan, error) {
	if t < 1 || t > len(servers) || len(servers) > protocol.MaxGuardians {
		return nil, fmt.Errorf("%d of %d guardians is not possible: at least 1, at most %d", t, len(servers), protocol.MaxGuardians)
	}
	p := &Plan{Backup: backup, Threshold: t}
	for i, s := range servers {
		if err := CheckServer(s); err != nil {
			return nil, named(s, err)
		}
		if slices.Contains(servers[:i], s) {
			return nil, named(s, errors.New("named twice"))
		}
		seed := make([]byte, ed25519.SeedSize)
		rand.Read(seed)
		p.Accounts = append(p.Accounts, Planned{Server: s, Access: seed})
	}
	return p, nil
}

// Replace plans to enrol anew, for another PIN or other guardians, in place of a slot
// that is enrolled. Where a guardian stays, its new account shares the guesses of the
// old one and ends it; the accounts at guardians that go are ended last. It asks all
// guardians how they stand: the error is ErrPending, or says who that is to stay cannot
// be asked.
func (c *Client) Replace(ctx context.Context, old *Slot, by Authority, t int, servers []string) (*Plan, error) {
	p, err := NewPlan(old.Backup, t, servers)
	if err != nil {
		return nil, err
	}
	list, err := c.Status(ctx, old)
	if err != nil {
		return nil, err
	}
	for i := range list {
		st, g := &list[i], &old.Guardians[i]
		a := g.account()
		k := slices.IndexFunc(p.Accounts, func(n Planned) bool { return n.Server == g.Server })
		switch {
		case errors.Is(st.Err, ErrGone):
			continue
		case st.Err != nil && k >= 0:
			return nil, named(g.Server, st.Err)
		case st.Err == nil && st.State == protocol.StatePending:
			return nil, named(g.Server, ErrPending)
		case st.Err == nil && st.State == protocol.StateErased && by.by != protocol.ByOwner:
			continue // Its key is gone. Only the owner may end it, and nobody has to.
		case st.Err == nil && st.State == protocol.StateActive && st.Left > 0 && k >= 0:
			access, err := p.Accounts[k].account()
			if err != nil {
				return nil, err
			}
			id := a.id()
			sig := protocol.AllowReplace(by.key(id), id, access.id())
			p.Accounts[k].Replaces, p.Accounts[k].By, p.Accounts[k].Allowed = id[:], by.by, sig[:]
			continue
		}
		// It goes, or has no guess left that a new one could share.
		p.Drop = append(p.Drop, dropping(a, protocol.NewDelete(by.key(a.id()), a.id(), by.by)))
	}
	return p, nil
}

// Abandon ends accounts that were made for a plan and not confirmed. Call it only if
// there is no Settlement.
func (c *Client) Abandon(ctx context.Context, p *Plan) error {
	errs := make([]error, len(p.Accounts))
	each(len(errs), func(i int) {
		a, err := p.Accounts[i].account()
		if err == nil {
			err = c.end(ctx, a, protocol.Delete{})
		}
		errs[i] = named(p.Accounts[i].Server, err)
	})
	return errors.Join(errs...)
}

// Enrolment is a secret that was shared, while its slot is written. It is not kept.
type Enrolment struct {
	opener
	plan       *Plan
	passphrase secret.Bytes
	sealed     bool
}

// Enrol makes the accounts of a plan and shares a fresh secret among them, for a PIN
// and, unless it is empty, a passphrase that is asked for as well. Until the Settlement
// is settled everything that was enrolled before is as it was. After an error abandon
// the plan and make another one.
func (c *Client) Enrol(ctx context.Context, p *Plan, pin, passphrase secret.Bytes) (*Enrolment, error) {
	var servers []string
	for _, a := range p.Accounts {
		servers = append(servers, a.Server)
	}
	if err := c.trust(servers); err != nil {
		return nil, err
	}
	n := len(p.Accounts)
	slot := &Slot{Backup: p.Backup, Threshold: p.Threshold, PIN: c.stretch(), Guardians: make([]Guardian, n)}
	e := &Enrolment{opener: opener{slot: slot}, plan: p, passphrase: passphrase}
	if !passphrase.Empty() {
		k := c.stretch()
		slot.Passphrase = &k
		if _, err := e.second(passphrase); err != nil {
			return nil, err
		}
	}
	input, err := slot.PIN.input(pin)
	if err != nil {
		return nil, err
	}
	outputs, failures := make([][]byte, n), make([]error, n)
	each(n, func(i int) {
		outputs[i], failures[i] = c.create(ctx, &p.Accounts[i], input, byte(protocol.GuessLimit(p.Threshold, n)), &slot.Guardians[i])
	})
	if err := together(servers, failures); err != nil {
		return nil, err
	}
	value, shares, err := newShares(p.Threshold, n)
	if err != nil {
		return nil, err
	}
	e.secret = value
	return e, slot.hide(shares, outputs)
}

// hide puts the shares into the slot, each behind what its guardian gives for the PIN.
func (s *Slot) hide(shares []group.Scalar, outputs [][]byte) error {
	for i := range s.Guardians {
		g := &s.Guardians[i]
		m := mask(outputs[i], g.account().id())
		b, err := m.Add(m, shares[i]).MarshalBinary()
		if err != nil {
			return fmt.Errorf("masking a share: %w", err)
		}
		g.Share = [scalarSize]byte(b)
	}
	return nil
}

func (c *Client) stretch() KDF {
	k := Stretch
	if c.KDF != nil {
		k = *c.KDF
	}
	rand.Read(k.Salt[:])
	return k
}

// create makes one account and returns what its key gives for the PIN, proven.
func (c *Client) create(ctx context.Context, p *Planned, input secret.Bytes, limit byte, g *Guardian) ([]byte, error) {
	a, err := p.account()
	if err != nil {
		return nil, err
	}
	b, err := protocol.Blind(input.Open())
	if err != nil {
		return nil, err
	}
	req := protocol.Create{Blinded: b.Blinded, Limit: limit, By: p.By}
	if len(p.Replaces) > 0 {
		if len(p.Replaces) != len(req.Replaces) || len(p.Allowed) != len(req.Allowed) {
			return nil, errors.New("a plan is malformed")
		}
		req.Replaces, req.Allowed = protocol.Account(p.Replaces), protocol.Signature(p.Allowed)
	}
	var made protocol.Created
	if err := c.ask(ctx, a, req, &made); err != nil {
		return nil, err
	}
	if err := b.Verify(made.Key, made.Evaluated, made.Proof); err != nil {
		return nil, err
	}
	*g = Guardian{Server: p.Server, Access: [ed25519.SeedSize]byte(p.Access), Key: sha256.Sum256(made.Key[:])}
	return b.Finalize(made.Evaluated)
}

// together turns what became of guardians that are all needed into one error.
func together(servers []string, errs []error) error {
	var failures []Failure
	var liars []string
	away := false
	for i, err := range errs {
		if err == nil {
			continue
		}
		err = fact(err)
		failures = append(failures, Failure{servers[i], err})
		if errors.Is(err, ErrLie) {
			liars = append(liars, servers[i])
		}
		away = away || errors.Is(err, ErrUnreachable)
	}
	switch n := len(servers); {
	case len(failures) == 0:
		return nil
	case len(liars) > 0:
		return &LiarError{liars, failures}
	case away:
		return &UnreachableError{Need: n, Reached: n - len(failures), Of: n, Failures: failures}
	}
	return named(failures[0].Server, failures[0].Err)
}

// Wrap completes the slot with the key that it is to give back. It can be called once.
func (e *Enrolment) Wrap(fileKey secret.Bytes) (*Slot, error) {
	if e.sealed {
		return nil, errors.New("an enrolment wraps one file key")
	}
	e.sealed = true
	return e.slot, e.seal(fileKey, e.passphrase)
}

// FileKey returns what Wrap was given, from the slot as it was read back.
func (e *Enrolment) FileKey(back *Slot) (secret.Bytes, error) {
	if back.Hash() != e.slot.Hash() {
		return secret.Bytes{}, ErrSlotDamaged
	}
	return e.opener.FileKey(e.passphrase)
}

// Settlement returns what is to be told to the guardians when the slot was written, read
// back from as many stores as must hold a change, and opened. owner installs epochs,
// head puts heads in the present one. Keep it, with the slot, from before the slot is
// written until it is done.
func (e *Enrolment) Settlement(owner ed25519.PublicKey, epoch uint64, head ed25519.PublicKey) (*Settlement, error) {
	if !e.sealed {
		return nil, errors.New("an enrolment is settled after its slot is sealed")
	}
	s := &Settlement{Drop: e.plan.Drop}
	for i := range e.slot.Guardians {
		step := e.confirming(i, owner, epoch, head)
		if len(e.plan.Accounts[i].Replaces) == 0 {
			s.First = append(s.First, step)
		} else {
			s.Then = append(s.Then, step)
		}
	}
	return s, nil
}

func (o *opener) confirming(i int, owner ed25519.PublicKey, epoch uint64, head ed25519.PublicKey) Step {
	g := &o.slot.Guardians[i]
	id := g.account().id()
	c := protocol.NewConfirm(o.proofKey(id), id, protocol.Public(owner), epoch, protocol.Public(head), o.slot.Hash())
	b, _ := binary.Append(nil, binary.BigEndian, &c) // It has a fixed size.
	return Step{Server: g.Server, Access: g.Access[:], Confirm: b}
}

func dropping(a account, d protocol.Delete) Step {
	b, _ := binary.Append(nil, binary.BigEndian, &d)
	return Step{Server: a.server, Access: a.access.Seed(), Delete: b}
}

// Settlement is what is left to be told to guardians. All of it is signed already and
// needs neither PIN nor secret. The order keeps one slot open at every moment: accounts
// that replace none, which would expire, are confirmed first; then those that end an old
// one; at last what nobody needs is ended. It is JSON, and to be kept sealed as a Plan is.
type Settlement struct {
	First []Step `json:",omitempty"`
	Then  []Step `json:",omitempty"`
	Drop  []Step `json:",omitempty"`
}

// Step is one request that is to be made.
type Step struct {
	Server  string
	Access  []byte // seed of the access key
	Confirm []byte `json:",omitempty"` // payload
	Delete  []byte `json:",omitempty"` // payload
}

// Done reports whether nothing is left.
func (s *Settlement) Done() bool { return len(s.First)+len(s.Then)+len(s.Drop) == 0 }

// Settle tells the guardians, and returns what is left to be told, which takes the
// place of s. It is safe to repeat, with s or with what is left. An error that is
// ErrGone in First says that accounts expired: delete the new slot and enrol again, the
// old one is as it was.
func (c *Client) Settle(ctx context.Context, s *Settlement) (*Settlement, error) {
	left := *s
	var errs [3]error
	left.First, errs[0] = c.steps(ctx, s.First)
	if len(left.First) == 0 {
		left.Then, errs[1] = c.steps(ctx, s.Then)
	}
	if len(left.First)+len(left.Then) == 0 {
		left.Drop, errs[2] = c.steps(ctx, s.Drop)
	}
	return &left, errors.Join(errs[:]...)
}

// steps takes steps, all at once, and returns those that are not known to be done.
func (c *Client) steps(ctx context.Context, steps []Step) (left []Step, err error) {
	errs := make([]error, len(steps))
	each(len(steps), func(i int) { errs[i] = named(steps[i].Server, c.step(ctx, &steps[i])) })
	for i, err := range errs {
		if err != nil {
			left = append(left, steps[i])
		}
	}
	return left, errors.Join(errs...)
}

func (c *Client) step(ctx context.Context, s *Step) error {
	if err := c.trust([]string{s.Server}); err != nil {
		return err
	}
	a, err := accountOf(s.Server, s.Access)
	if err != nil {
		return err
	}
	if s.Delete != nil {
		var d protocol.Delete
		if n, err := binary.Decode(s.Delete, binary.BigEndian, &d); err != nil || n != len(s.Delete) {
			return protocol.ErrMalformed
		}
		return c.end(ctx, a, d)
	}
	var p protocol.Confirm
	if n, err := binary.Decode(s.Confirm, binary.BigEndian, &p); err != nil || n != len(s.Confirm) {
		return protocol.ErrMalformed
	}
	return fact(c.ask(ctx, a, p, nil))
}
