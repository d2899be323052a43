package guard

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/cloudflare/circl/group"

	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// Recovery is one entry of a PIN: it costs at most one guess at each guardian that is
// asked, however often it is opened. It is used by one goroutine at a time.
type Recovery struct {
	c       *Client
	slot    *Slot
	hash    [32]byte
	attempt protocol.Attempt
	parts   []part
}

// part is what one guardian has answered.
type part struct {
	blinding  *protocol.Blinding
	asked     bool             // a request left: it may have cost a guess there
	evaluated protocol.Element // zero if there is none
	proven    bool
	lied      bool
	left      byte
	err       error // why it cannot be used
}

func (p *part) has(proof bool) bool {
	return p.err == nil && p.evaluated != (protocol.Element{}) && (p.proven || !proof)
}

// final reports whether it is of no use to ask again.
func (p *part) final() bool {
	return errors.Is(p.err, ErrErased) || errors.Is(p.err, ErrGone) || errors.Is(p.err, ErrSlotDamaged) || errors.Is(p.err, ErrLie)
}

// Recover begins the entry of a PIN. Nothing is sent. The error is an *UnknownError,
// ErrSlotDamaged, or ErrPIN.
func (c *Client) Recover(s *Slot, pin secret.Bytes) (*Recovery, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if err := c.trust(s.Servers()); err != nil {
		return nil, err
	}
	input, err := s.PIN.input(pin)
	if err != nil {
		return nil, err
	}
	r := &Recovery{c: c, slot: s, hash: s.Hash(), parts: make([]part, len(s.Guardians))}
	rand.Read(r.attempt[:])
	for i := range r.parts {
		// Each guardian is shown another blinding: together they learn no more than one.
		if r.parts[i].blinding, err = protocol.Blind(input.Open()); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Open asks the guardians. The error is a *WrongPINError, which ends the entry; or one
// of *LockedError, *UnreachableError and *LiarError, ErrErased, ErrGone, ErrSlotDamaged,
// after which it may be opened again.
func (r *Recovery) Open(ctx context.Context) (*Opened, error) {
	for i := range r.parts {
		if p := &r.parts[i]; !p.final() {
			p.err = nil
		}
	}
	// Most often everybody is honest and the PIN right, and no proof is needed. If the
	// slot does not open, proofs tell a wrong PIN from a lie.
	for _, proof := range []bool{false, true} {
		if err := r.gather(ctx, proof); err != nil {
			return nil, err
		}
		o, err := r.combine(proof)
		if err != nil {
			return nil, err
		}
		if o.right() {
			return o, nil
		}
	}
	least := 0
	for i, n := 0, 0; i < len(r.parts); i++ {
		if p := &r.parts[i]; p.has(true) {
			if n++; n == 1 || int(p.left) < least {
				least = int(p.left)
			}
		}
	}
	return nil, &WrongPINError{least}
}

// Liars returns the guardians that were found to lie.
func (r *Recovery) Liars() []string {
	var list []string
	for i := range r.parts {
		if r.parts[i].lied {
			list = append(list, r.slot.Guardians[i].Server)
		}
	}
	return list
}

// gather asks until enough guardians have evaluated: as many as are needed at once, and
// another one for each that fails or is slow.
func (r *Recovery) gather(parent context.Context, proof bool) error {
	ctx, cancel := context.WithCancel(parent)
	need := r.slot.Threshold
	var queue []int
	for _, asked := range []bool{true, false} { // Those that cost no guess any more come first.
		for i := range r.parts {
			if p := &r.parts[i]; p.asked == asked && p.err == nil && !p.has(proof) {
				queue = append(queue, i)
			}
		}
	}
	ready, running := 0, 0
	for i := range r.parts {
		if r.parts[i].has(proof) {
			ready++
		}
	}
	results := make(chan int)
	next := func() {
		if len(queue) == 0 {
			return
		}
		i := queue[0]
		queue = queue[1:]
		running++
		go func() {
			r.evaluate(ctx, i, proof)
			results <- i
		}()
	}
	defer func() {
		cancel()
		for range running {
			i := <-results
			if p := &r.parts[i]; errors.Is(p.err, context.Canceled) {
				p.err = nil // It was slow, and nobody waited.
			}
		}
	}()
	for range need - ready {
		next()
	}
	patience := r.c.Patience
	if patience == 0 {
		patience = defaultPatience
	}
	timer := time.NewTicker(patience)
	defer timer.Stop()
	for ready < need {
		if err := parent.Err(); err != nil {
			return err
		}
		if running == 0 {
			return r.failure(proof)
		}
		select {
		case i := <-results:
			running--
			if r.parts[i].has(proof) {
				ready++
			} else {
				next()
			}
		case <-timer.C:
			next()
		}
	}
	return nil
}

// evaluate asks one guardian. No other goroutine touches its part meanwhile.
func (r *Recovery) evaluate(ctx context.Context, i int, proof bool) {
	p, g := &r.parts[i], &r.slot.Guardians[i]
	p.asked = true
	req := protocol.Evaluate{Attempt: r.attempt, Blinded: p.blinding.Blinded, Slot: r.hash}
	if !proof {
		var e protocol.Evaluated
		if p.err = fact(r.c.ask(ctx, g.account(), req, &e)); p.err == nil {
			p.err = fact(e.Element.Check())
		}
		if p.err == nil {
			p.evaluated, p.left = e.Element, e.Left
		}
		p.lied = p.lied || errors.Is(p.err, ErrLie)
		return
	}
	req.WithProof = 1
	var e protocol.Proven
	p.err = fact(r.c.ask(ctx, g.account(), req, &e))
	if p.err == nil && sha256.Sum256(e.Key[:]) != g.Key {
		p.err = fact(protocol.ErrProof)
	}
	if p.err == nil {
		p.err = fact(p.blinding.Verify(e.Key, e.Element, e.Proof))
	}
	p.lied = p.lied || errors.Is(p.err, ErrLie)
	if p.err != nil {
		return
	}
	// One that proves another evaluation than it gave before has lied, and is of use now.
	p.lied = p.lied || p.evaluated != (protocol.Element{}) && p.evaluated != e.Element
	p.evaluated, p.left, p.proven = e.Element, e.Left, true
}

// combine puts the secret together from the first t evaluations.
func (r *Recovery) combine(proof bool) (*Opened, error) {
	var numbers []int
	var shares []group.Scalar
	for i := range r.parts {
		p, g := &r.parts[i], &r.slot.Guardians[i]
		if !p.has(proof) || len(shares) == r.slot.Threshold {
			continue
		}
		y, err := p.blinding.Finalize(p.evaluated)
		if err != nil {
			return nil, err
		}
		share, err := g.unmask(y)
		if err != nil {
			return nil, err
		}
		numbers, shares = append(numbers, i+1), append(shares, share)
	}
	value, err := combine(r.slot.Threshold, numbers, shares)
	if err != nil {
		return nil, err
	}
	return &Opened{opener: opener{r.slot, value}, r: r}, nil
}

// unmask returns a share, whatever the PIN was.
func (g *Guardian) unmask(output []byte) (group.Scalar, error) {
	share, err := scalar(g.Share[:])
	if err != nil {
		return nil, ErrSlotDamaged
	}
	return share.Sub(share, mask(output, g.account().id())), nil
}

// failure says why fewer than t guardians can be used.
func (r *Recovery) failure(proof bool) error {
	t, n := r.slot.Threshold, len(r.parts)
	var failures []Failure
	var liars []string
	var until []time.Time
	ready, damaged, erased, gone, away, guesses := 0, 0, 0, 0, 0, -1
	for i := range r.parts {
		p := &r.parts[i]
		if p.err == nil {
			if p.has(proof) {
				ready++
			}
			continue
		}
		server := r.slot.Guardians[i].Server
		failures = append(failures, Failure{server, p.err})
		l, locked := errors.AsType[*LockedError](p.err)
		switch {
		case locked:
			until = append(until, l.Until)
			if guesses < 0 || l.GuessesLeft < guesses {
				guesses = l.GuessesLeft
			}
		case errors.Is(p.err, ErrLie):
			liars = append(liars, server)
		case errors.Is(p.err, ErrSlotDamaged):
			damaged++
		case errors.Is(p.err, ErrErased):
			erased++
		case errors.Is(p.err, ErrGone):
			gone++
		default:
			away++
		}
	}
	dead := len(liars) + damaged + erased + gone
	switch {
	case dead > n-t && damaged == max(damaged, erased, gone, len(liars)):
		return ErrSlotDamaged
	case dead > n-t && erased == max(erased, gone, len(liars)):
		return ErrErased
	case dead > n-t && gone == max(gone, len(liars)):
		return ErrGone
	case dead > n-t:
		return &LiarError{liars, failures}
	case ready+len(until) >= t:
		slices.SortFunc(until, time.Time.Compare)
		return &LockedError{until[t-ready-1], guesses}
	}
	return &UnreachableError{Need: t, Reached: ready, Of: n, Failures: failures}
}

// Opened is a slot whose secret was recovered.
type Opened struct {
	opener
	r      *Recovery
	opened bool
}

// FileKey returns the key that the slot wraps. The passphrase is looked at only if the
// slot asks for one; with another it is ErrPassphrase, and may be tried again: that
// costs no guess.
func (o *Opened) FileKey(passphrase secret.Bytes) (secret.Bytes, error) {
	k, err := o.opener.FileKey(passphrase)
	o.opened = o.opened || err == nil
	return k, err
}

// Liars returns the guardians that lied, and were not needed. Others should take their
// place: see Client.Replace.
func (o *Opened) Liars() []string { return o.r.Liars() }

// Told is what a guardian said when it heard that the slot opened.
type Told struct {
	Server string
	// Err is ErrPending if the account was never confirmed: see Client.Unsettled.
	Err error
	// Wrong is the number of wrong guesses since the last success. Who made none may
	// have a copy of the slot in foreign hands, and should enrol anew.
	Wrong int
}

// Finish tells all guardians that the slot opened, which gives all guesses back. Call
// it only when it did: the file key opened the file, and the file is what was looked
// for. It may be repeated.
func (o *Opened) Finish(ctx context.Context) ([]Told, error) {
	if !o.opened {
		return nil, errors.New("the slot was not opened")
	}
	told := make([]Told, len(o.slot.Guardians))
	ctx, answered, cancel := graceful(ctx, o.slot.Threshold)
	defer cancel()
	each(len(told), func(i int) {
		g := &o.slot.Guardians[i]
		wrong, err := o.finish(ctx, g, o.r.parts[i].asked)
		if err == nil {
			answered()
		}
		if refused(err, protocol.CodePending) {
			err = ErrPending
		}
		told[i] = Told{g.Server, fact(err), int(wrong)}
	})
	return told, nil
}

// finishes is how often a nonce is asked for: it changes if somebody guesses meanwhile.
const finishes = 3

func (o *Opened) finish(ctx context.Context, g *Guardian, own bool) (uint32, error) {
	a, id := g.account(), g.account().id()
	var f protocol.Finished
	err := error(&protocol.Refusal{Code: protocol.CodeDenied})
	if own {
		err = o.r.c.ask(ctx, a, protocol.NewFinish(o.proofKey(id), id, o.r.attempt, protocol.Nonce{}), &f)
	}
	// It has no attempt of ours, or somebody began another one after it.
	for try := 0; try < finishes && refused(err, protocol.CodeDenied); try++ {
		var st protocol.Status
		if err := o.r.c.ask(ctx, a, protocol.AskStatus{}, &st); err != nil {
			return 0, err
		}
		err = o.r.c.ask(ctx, a, protocol.NewFinish(o.proofKey(id), id, protocol.Attempt{}, st.Nonce), &f)
	}
	return f.Wrong, err
}

// Unsettled returns a Settlement for guardians where the slot that opened was never
// confirmed, because the device that enrolled it did not come back. Settle it after the
// slot was read back, and then end the accounts of older slots that are still there,
// with Client.Delete and the owner's authority.
func (o *Opened) Unsettled(ctx context.Context, owner ed25519.PublicKey, epoch uint64, head ed25519.PublicKey) (*Settlement, error) {
	if !o.opened {
		return nil, errors.New("the slot was not opened")
	}
	list, err := o.r.c.Status(ctx, o.slot)
	if err != nil {
		return nil, err
	}
	s := &Settlement{}
	for i, st := range list {
		switch {
		case st.Err != nil || st.State != protocol.StatePending:
		case st.Expires != 0: // It replaces none.
			s.First = append(s.First, o.confirming(i, owner, epoch, head))
		default:
			s.Then = append(s.Then, o.confirming(i, owner, epoch, head))
		}
	}
	return s, nil
}
