package guard

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/satchel-backup/satchel/protocol"
)

// ErrConflict says that the head is further, or that another device writes.
var ErrConflict = errors.New("the guardians know a newer state or another writer")

// ConflictError tells what the guardians have instead.
type ConflictError struct{ Head protocol.Head }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%v: epoch %d, generation %d", ErrConflict, e.Head.Epoch, e.Head.Generation)
}

// Is reports whether target is ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// enough is how many of n guardians are more than half.
func enough(n int) int { return n/2 + 1 }

// PutHead anchors a head at all guardians. It is anchored, and the error nil, when more
// than half keep it. A *ConflictError says that it can never be: too many have another
// one. Otherwise try again; guardians that missed it take any later one.
func (c *Client) PutHead(ctx context.Context, s *Slot, h protocol.Head) error {
	return c.most(s, func(g *Guardian) error {
		var kept protocol.Head
		err := c.ask(ctx, g.account(), protocol.PutHead{Head: h}, &kept)
		if err == nil && kept != h {
			return protocol.ErrMalformed
		}
		return err
	})
}

// InstallEpoch makes another device the writer: it brings more than half of the
// guardians to an epoch, one after another, with the owner's key. head gives the key
// that puts heads in an epoch. A *ConflictError says that too many are further.
func (c *Client) InstallEpoch(ctx context.Context, s *Slot, epoch uint64, head func(epoch uint64) ed25519.PublicKey, owner ed25519.PrivateKey) error {
	return c.most(s, func(g *Guardian) error {
		var st protocol.Status
		if err := c.ask(ctx, g.account(), protocol.AskStatus{}, &st); err != nil {
			return err
		}
		if st.Epoch > epoch {
			return &protocol.Refusal{Code: protocol.CodeConflict, Head: st.Head}
		}
		if st.Epoch == epoch && st.HeadKey != protocol.Public(head(epoch)) {
			return &protocol.Refusal{Code: protocol.CodeConflict, Head: st.Head}
		}
		if epoch-st.Epoch > maxEpochs {
			return protocol.ErrMalformed
		}
		for e := st.Epoch + 1; e <= epoch; e++ {
			if err := c.ask(ctx, g.account(), protocol.NewInstallEpoch(owner, e, protocol.Public(head(e))), nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// maxEpochs is how far behind a guardian is brought up.
const maxEpochs = 10_000

// most does something at all guardians and succeeds if it does at more than half.
func (c *Client) most(s *Slot, do func(g *Guardian) error) error {
	if err := c.trust(s.Servers()); err != nil {
		return err
	}
	n := len(s.Guardians)
	errs := make([]error, n)
	each(n, func(i int) { errs[i] = do(&s.Guardians[i]) })
	done, against := 0, 0
	var failures []Failure
	var conflict *ConflictError
	for i, err := range errs {
		if err == nil {
			done++
			continue
		}
		if r, ok := errors.AsType[*protocol.Refusal](err); ok && r.Code == protocol.CodeConflict {
			err = &ConflictError{r.Head}
			against++
			if h := r.Head; conflict == nil || further(h, conflict.Head) {
				conflict = &ConflictError{h}
			}
		}
		failures = append(failures, Failure{s.Guardians[i].Server, fact(err)})
	}
	switch {
	case done >= enough(n):
		return nil
	case against > n-enough(n):
		return conflict
	}
	return &UnreachableError{Need: enough(n), Reached: done, Of: n, Failures: failures}
}

func further(a, b protocol.Head) bool {
	return a.Epoch > b.Epoch || a.Epoch == b.Epoch && a.Generation > b.Generation
}

// Heads is what the guardians know of the newest state.
type Heads struct {
	// Newest is the newest head that is signed by the key of its epoch; zero if there is
	// none. Even one guardian that shows it proves that it was put.
	Newest protocol.Head
	// Proven is how many guardians keep Newest, not counting those that were put back
	// from a copy and may be behind.
	Proven int
	// Anchored says that more than half do.
	Anchored bool
	Failures []Failure // guardians that did not answer, or keep what is not signed
	Of       int
}

// Heads asks the guardians for the newest state. head gives the key that puts heads in
// an epoch: who has the backup key can derive it.
func (c *Client) Heads(ctx context.Context, s *Slot, head func(epoch uint64) ed25519.PublicKey) (*Heads, error) {
	list, err := c.Status(ctx, s)
	if err != nil {
		return nil, err
	}
	h := &Heads{Of: len(list)}
	good := make([]bool, len(list))
	for i := range list {
		st := &list[i]
		err := st.Err
		if err == nil && st.Head != (protocol.Head{}) {
			if key := protocol.Public(head(st.Head.Epoch)); st.Head.SignedBy(key) {
				good[i] = true
			} else {
				err = fmt.Errorf("%w: a head that is not signed", ErrLie)
			}
		}
		if err != nil {
			h.Failures = append(h.Failures, Failure{st.Server, err})
		}
		if good[i] && (h.Newest == (protocol.Head{}) || further(st.Head, h.Newest)) {
			h.Newest = st.Head
		}
	}
	for i := range list {
		if good[i] && list[i].Head == h.Newest && list[i].Unproven == 0 {
			h.Proven++
		}
	}
	h.Anchored = h.Proven >= enough(h.Of)
	return h, nil
}
