package main

import (
	"errors"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/internal/web"
)

// A server whose certificate is not accepted is there, and yet was told nothing: that is
// another thing than one that does not answer, and another thing is to be done.

// certificateText says what is wrong with the certificate of one key server, after its
// name, or "" if err is about something else.
func certificateText(err error) string {
	if e, ok := errors.AsType[*web.CertificateError](err); ok {
		return "was told nothing: " + e.Error()
	}
	return ""
}

// certificateHint says what to do about the certificate of a server, in an error or in the
// first of the key servers that it names, or "".
func certificateHint(err error) string {
	if e, ok := errors.AsType[*web.CertificateError](err); ok {
		return certificateAdvice(e.Error())
	}
	if few, ok := errors.AsType[*guard.UnreachableError](err); ok {
		for _, f := range few.Failures {
			if e, ok := errors.AsType[*web.CertificateError](f.Err); ok {
				return certificateAdvice(e.Error())
			}
		}
	}
	return ""
}

// certificateAdvice says what to do about the certificate that a text tells of, or "".
// After a while only the text of an error is left.
func certificateAdvice(text string) string {
	_, text, ok := strings.Cut(text, "its certificate ")
	switch {
	case !ok:
		return ""
	case strings.HasPrefix(text, "is for "), strings.HasPrefix(text, "is not for "):
		return "is its address right? whoever runs it knows the name that its certificate is for"
	case strings.HasPrefix(text, "ended on "), strings.HasPrefix(text, "begins on "):
		return "is the clock of this device right? it says " + moment(time.Now()) + "; otherwise whoever runs it must renew its certificate"
	}
	return "if it is your own, get it a certificate that all devices trust, or let this one trust yours (SATCHEL_CA_FILE names a file with it); if not, ask whoever runs it: somebody else may be answering in its place"
}
