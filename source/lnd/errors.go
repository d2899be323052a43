package lnd

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
)

// fact is a sentinel that is also another one, which says what kind of fact it is: so
// that satchel.CodeOf, which knows no lnd, gives it a code.
type fact struct {
	text string
	kind error
}

func (f *fact) Error() string { return f.text }
func (f *fact) Unwrap() error { return f.kind }

var (
	// ErrUnreachable says that lnd did not answer.
	ErrUnreachable error = &fact{"lnd does not answer", store.ErrUnreachable}
	// ErrLocked says that lnd runs and its wallet waits for the password.
	ErrLocked error = &fact{"lnd's wallet is locked", store.ErrUnreachable}
	// ErrNoWallet says that lnd runs and has no wallet yet.
	ErrNoWallet error = &fact{"lnd has no wallet yet: create or restore one", store.ErrUnreachable}
	// ErrStarting says that lnd is starting. It is ready soon.
	ErrStarting error = &fact{"lnd is starting", store.ErrUnreachable}
	// ErrUnlocked says that lnd has a wallet and it is open: what creates or unlocks one
	// is not served any more.
	ErrUnlocked = errors.New("lnd's wallet is there and unlocked already")
	// ErrMacaroon says that lnd refuses the macaroon: it was revoked, belongs to another
	// node or is none. Another one must be given.
	ErrMacaroon error = &fact{"lnd refuses the macaroon: it was revoked, or is of another node", store.ErrSignIn}
	// ErrPermission says that the macaroon does not allow what was asked for.
	ErrPermission error = &fact{"the macaroon does not allow this", store.ErrSignIn}
	// ErrCertificate says that who answers does not prove to be lnd. A
	// *CertificateError says why.
	ErrCertificate error = &fact{"lnd's certificate", store.ErrUnreachable}
	// ErrNotLND says that something else than lnd's REST interface answers.
	ErrNotLND error = &fact{"what answers at this address is not lnd's REST interface", store.ErrUnreachable}
	// ErrGRPC says that lnd's other interface answers, which is not spoken here. It is an
	// ErrNotLND.
	ErrGRPC error = &fact{"what answers at this address speaks gRPC, and lnd's REST interface is at another one", ErrNotLND}
	// ErrTooLong says that an answer was longer than any that lnd gives.
	ErrTooLong = errors.New("lnd's answer is too long")
	// ErrAddress says that the address of the Config is none.
	ErrAddress = errors.New("not an address of lnd: it is host:port, of what lnd.conf calls restlisten")
	// ErrBackup says that lnd does not take bytes for a channel backup of its own: they
	// are damaged, or of another node.
	ErrBackup = errors.New("not a channel backup of this node")
	// ErrOtherNode says that another node answers than the one whose backup this is.
	// Nothing was written.
	ErrOtherNode error = &fact{"another node answers than the one that is backed up here", wallet.ErrOtherWallet}
	// ErrNetwork says that the node is on another network than its backup. Nothing was
	// written.
	ErrNetwork error = &fact{"the node is on another network than the one that is backed up here", wallet.ErrOtherWallet}
)

// PermissionError is ErrPermission with what the macaroon lacks.
type PermissionError struct {
	Lacks []Permission
}

// Error implements error.
func (e *PermissionError) Error() string {
	text := "the macaroon lacks a permission:"
	for _, p := range e.Lacks {
		text += " " + p.String()
	}
	return text
}

// Unwrap returns ErrPermission.
func (e *PermissionError) Unwrap() error { return ErrPermission }

// Reason is why a certificate is not believed.
type Reason string

const (
	Expired    Reason = "it has expired"
	NotYet     Reason = "it is not valid yet: the clock here or there is wrong"
	NotPinned  Reason = "another one than in the file tls.cert: lnd has made a new one, or it is not lnd"
	OtherName  Reason = "it is for another name than that of the address"
	Refused    Reason = "it is not one that is trusted"
	Unreadable Reason = "the file tls.cert holds none that can be read"
)

// CertificateError is ErrCertificate with the reason.
type CertificateError struct {
	Why      Reason
	NotAfter time.Time // of the certificate that was shown; zero if none was
}

// Error implements error.
func (e *CertificateError) Error() string {
	text := fmt.Sprintf("lnd's certificate: %s", e.Why)
	if e.Why == Expired {
		text += " on " + e.NotAfter.UTC().Format(time.DateOnly) + ": restart lnd, which makes a new one"
	}
	return text
}

// Unwrap returns ErrCertificate.
func (e *CertificateError) Unwrap() error { return ErrCertificate }

// AnswerError is an error of lnd's that has no sentinel here.
type AnswerError struct {
	Status int // of HTTP
	Code   int // of gRPC
	// Message is what lnd says. It is as lnd sent it, of any length and content, and is
	// no part of the error's text.
	Message string
}

// Error implements error.
func (e *AnswerError) Error() string {
	return fmt.Sprintf("lnd answered with an error (status %d, code %d)", e.Status, e.Code)
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// onceClose closes a channel once: a request may be written twice.
type onceClose struct{ sync.Once }

func (o *onceClose) close(c chan struct{}) { o.Do(func() { close(c) }) }
