package guard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/protocol"
)

var (
	// ErrWrongPIN is what a WrongPINError is.
	ErrWrongPIN = errors.New("wrong PIN")
	// ErrLocked is what a LockedError is.
	ErrLocked = errors.New("locked after wrong guesses")
	// ErrErased says that the key was erased after too many wrong guesses. It does not
	// come back.
	ErrErased = errors.New("erased after too many wrong guesses")
	// ErrGone says that the account is not there: it was replaced, deleted, or never
	// confirmed. A slot that says so is an old one.
	ErrGone = errors.New("no such account: it was replaced, deleted or never confirmed")
	// ErrSlotDamaged says that the slot is not the one that was enrolled. No guess was
	// spent.
	ErrSlotDamaged = errors.New("the PIN slot is damaged or not the one that was enrolled")
	// ErrLie says that a guardian answered with what it cannot have computed as it must.
	ErrLie = errors.New("a false answer")
	// ErrUnreachable says that no usable answer came.
	ErrUnreachable = errors.New("not reachable")
	// ErrNewer says that a later version is needed to talk to a guardian or to read a slot.
	ErrNewer = errors.New("a newer version of Satchel is needed")
	// ErrToken says that the guardian makes no account without a registration token of its
	// own, or not with this one.
	ErrToken = errors.New("registration token needed")
	// ErrPIN says that a text cannot be a PIN at all.
	ErrPIN = errors.New("not usable as a PIN")
	// ErrPassphrase says that the PIN was right, and the slot asks for a passphrase too,
	// which is another one.
	ErrPassphrase = errors.New("wrong passphrase of the PIN slot")
)

// WrongPINError says that t guardians proved their evaluations and the PIN is not the
// one that was enrolled.
type WrongPINError struct {
	GuessesLeft int // at least so many more; after them the key is erased
}

func (e *WrongPINError) Error() string {
	return fmt.Sprintf("wrong PIN, guesses left: %d", e.GuessesLeft)
}

// Is reports whether target is ErrWrongPIN.
func (e *WrongPINError) Is(target error) bool { return target == ErrWrongPIN }

// LockedError says that there were wrong guesses and there is no other before a time.
type LockedError struct {
	Until       time.Time
	GuessesLeft int
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("locked until %s, guesses left: %d", e.Until.UTC().Format(time.RFC3339), e.GuessesLeft)
}

// Is reports whether target is ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// UnreachableError says that fewer guardians answered than are needed. The recovery may
// be opened again later: those that answered are not asked for another guess.
type UnreachableError struct {
	Need, Reached, Of int
	Failures          []Failure
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("%d of %d key servers can be used, %d are needed%s", e.Reached, e.Of, e.Need, list(e.Failures))
}

// Is reports whether target is ErrUnreachable.
func (e *UnreachableError) Is(target error) bool { return target == ErrUnreachable }

// LiarError names the guardians that gave false answers, when too few others are left.
type LiarError struct {
	Servers  []string
	Failures []Failure
}

func (e *LiarError) Error() string {
	return "key servers gave false answers: " + strings.Join(e.Servers, ", ")
}

// Is reports whether target is ErrLie.
func (e *LiarError) Is(target error) bool { return target == ErrLie }

// UnknownError names the servers of a slot that are not trusted. Nothing was sent.
type UnknownError struct{ Servers []string }

func (e *UnknownError) Error() string {
	return "the slot names key servers that are not known here: " + strings.Join(e.Servers, ", ")
}

// Failure is what became of one guardian.
type Failure struct {
	Server string
	Err    error
}

func list(failures []Failure) string {
	var b strings.Builder
	for _, f := range failures {
		fmt.Fprintf(&b, "; %s: %v", f.Server, f.Err)
	}
	return b.String()
}

// fact says what an error of ask means for the account.
func fact(err error) error {
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[*protocol.Refusal](err); ok {
		switch r.Code {
		case protocol.CodeUnknown:
			return ErrGone
		case protocol.CodeErased:
			return ErrErased
		case protocol.CodeLocked:
			return &LockedError{time.UnixMilli(r.Locked.Until), int(r.Locked.Left)}
		case protocol.CodeSlotDamaged:
			return ErrSlotDamaged
		case protocol.CodeNewer:
			return ErrNewer
		case protocol.CodeToken:
			return ErrToken
		case protocol.CodeUnavailable:
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		return err
	}
	switch {
	case errors.Is(err, protocol.ErrNewerProtocol):
		return ErrNewer
	case errors.Is(err, protocol.ErrMalformed), errors.Is(err, protocol.ErrElement), errors.Is(err, protocol.ErrProof):
		return fmt.Errorf("%w: %w", ErrLie, err)
	case errors.Is(err, context.Canceled), errors.Is(err, ErrLie):
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}
