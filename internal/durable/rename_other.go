//go:build android || (!linux && !darwin && !windows)

package durable

import (
	"errors"
	"os"
)

// renameNew has no counterpart here. Android has the system call, but kills the
// process of an app that makes it before version 11.
func renameNew(*os.File, string, string) error { return errors.ErrUnsupported }
