package web

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// ErrNoTLS says that there is a server, and that it does not speak https.
var ErrNoTLS = errors.New("what answers there does not speak https; is the port right")

// maxNames is how many names of a certificate are told.
const maxNames = 3

// CertificateError says in plain words why a server could not prove who it is: nothing
// was sent to it.
type CertificateError struct {
	Err *tls.CertificateVerificationError
}

// Error implements error. The text begins with "its certificate".
func (e *CertificateError) Error() string {
	const its = "its certificate "
	if h, ok := errors.AsType[x509.HostnameError](e.Err.Err); ok {
		names := h.Certificate.DNSNames
		for _, ip := range h.Certificate.IPAddresses {
			names = append(names[:len(names):len(names)], ip.String())
		}
		switch {
		case len(names) == 0:
			return its + "is not for " + h.Host
		case len(names) > maxNames:
			names = append(names[:maxNames:maxNames], "others")
		}
		return its + fmt.Sprintf("is for %s, not for %s", strings.Join(names, ", "), h.Host)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](e.Err.Err); ok && invalid.Reason == x509.Expired {
		const form = "2006-01-02 15:04"
		if time.Now().Before(invalid.Cert.NotBefore) {
			return its + "begins on " + invalid.Cert.NotBefore.Local().Format(form)
		}
		return its + "ended on " + invalid.Cert.NotAfter.Local().Format(form)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](e.Err.Err); ok {
		return its + "is signed by nobody whom this device trusts"
	}
	return its + "is not accepted: " + e.Err.Err.Error()
}

// Unwrap returns the error of package tls.
func (e *CertificateError) Unwrap() error { return e.Err }

// Plain returns an error about a certificate as a *CertificateError, that of a server
// that speaks no https as ErrNoTLS, and any other as it is.
func Plain(err error) error {
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &CertificateError{e}
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return ErrNoTLS
	}
	return err
}

// isProof reports whether the server could not prove who it is. Asking again does not
// help.
func isProof(err error) bool {
	_, ok := errors.AsType[*CertificateError](err)
	return ok || errors.Is(err, ErrNoTLS)
}
