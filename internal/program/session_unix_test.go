//go:build unix

package program_test

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ownSession says whether this process leads a session.
func ownSession() string {
	sid, err := unix.Getsid(0)
	return strconv.FormatBool(err == nil && sid == os.Getpid())
}
