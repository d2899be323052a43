package guard

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

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
// than half keep it. Guardians that are behind are brought to its epoch, if epochs says how.
// A *ConflictError says that it can never be: too many have another one. Otherwise try
// again; guardians that missed it take any later one.
func (c *Client) PutHead(ctx context.Context, s *Slot, h protocol.Head, epochs []protocol.InstallEpoch) error {
	return c.most(ctx, s, func(ctx context.Context, g *Guardian) error {
		var kept protocol.Head
		err := c.ask(ctx, g.account(), protocol.PutHead{Head: h}, &kept)
		if conflicts(err) && len(epochs) > 0 {
			// One that missed an epoch, and cannot be brought up now, proves nothing.
			if err = c.install(ctx, g, epochs); err == nil {
				err = c.ask(ctx, g.account(), protocol.PutHead{Head: h}, &kept)
			}
		}
		if err == nil && kept != h {
			return protocol.ErrMalformed
		}
		return err
	})
}

func conflicts(err error) bool {
	r, ok := errors.AsType[*protocol.Refusal](err)
	return ok && r.Code == protocol.CodeConflict
}

// MaxEpochs is how many epochs a guardian may have missed, to be brought up.
const MaxEpochs = 64

// Epochs returns what brings a guardian to an epoch, from any of the MaxEpochs before it:
// signed by the owner's key, and of no more use to anybody once the epoch is there. head
// gives the key that puts heads in an epoch.
func Epochs(owner ed25519.PrivateKey, epoch uint64, head func(epoch uint64) ed25519.PublicKey) []protocol.InstallEpoch {
	var list []protocol.InstallEpoch
	for e := max(epoch, MaxEpochs) - MaxEpochs + 1; e <= epoch; e++ {
		list = append(list, protocol.NewInstallEpoch(owner, e, protocol.Public(head(e))))
	}
	return list
}

// InstallEpoch makes another device the writer: it brings more than half of the
// guardians to the last of some epochs, one after another. A *ConflictError says that
// too many are further.
func (c *Client) InstallEpoch(ctx context.Context, s *Slot, epochs []protocol.InstallEpoch) error {
	return c.most(ctx, s, func(ctx context.Context, g *Guardian) error { return c.install(ctx, g, epochs) })
}

func (c *Client) install(ctx context.Context, g *Guardian, epochs []protocol.InstallEpoch) error {
	var st protocol.Status
	if err := c.ask(ctx, g.account(), protocol.AskStatus{}, &st); err != nil {
		return err
	}
	last := epochs[len(epochs)-1]
	if st.Epoch > last.Epoch || st.Epoch == last.Epoch && st.HeadKey != last.Head {
		return &protocol.Refusal{Code: protocol.CodeConflict, Head: st.Head}
	}
	if st.Epoch+1 < epochs[0].Epoch {
		return fmt.Errorf("%w: epoch %d", errTooOld, st.Epoch)
	}
	for _, e := range epochs {
		if e.Epoch <= st.Epoch {
			continue
		}
		if err := c.ask(ctx, g.account(), e, nil); err != nil {
			return err
		}
	}
	return nil
}

// errTooOld says that a guardian missed more epochs than can be made up for.
var errTooOld = errors.New("it missed too many epochs")

// minGrace is how long at least the others may take when more than half are done.
const minGrace = 100 * time.Millisecond

// most does something at all guardians and succeeds if it does at more than half. The
// others get as long again as those took, and a little more: one that hangs must not hold
// up every change.
func (c *Client) most(ctx context.Context, s *Slot, do func(ctx context.Context, g *Guardian) error) error {
	if err := c.trust(s.Servers()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n, began := len(s.Guardians), time.Now()
	errs := make([]error, n)
	var good atomic.Int32
	each(n, func(i int) {
		if errs[i] = do(ctx, &s.Guardians[i]); errs[i] == nil && int(good.Add(1)) == enough(n) {
			time.AfterFunc(max(minGrace, time.Since(began)), cancel)
		}
	})
	done, against := 0, 0
	var failures []Failure
	var conflict *ConflictError
	for i, err := range errs {
		if err == nil {
			done++
			continue
		}
		if conflicts(err) {
			r, _ := errors.AsType[*protocol.Refusal](err)
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
	case against >= enough(n):
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
	// Epoch is the latest that the owner installed at any of them.
	Epoch    uint64
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
		if err == nil && st.Epoch > 0 {
			if st.HeadKey == protocol.Public(head(st.Epoch)) {
				h.Epoch = max(h.Epoch, st.Epoch)
			} else {
				err = fmt.Errorf("%w: an epoch that the owner did not install", ErrLie)
			}
		}
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
