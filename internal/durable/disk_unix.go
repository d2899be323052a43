//go:build unix

package durable

import (
	"errors"
	"syscall"
)

const (
	canSyncDir  = true
	nonBlocking = syscall.O_NONBLOCK // opening a pipe must not wait for its writer
	directory   = syscall.O_DIRECTORY | nonBlocking
)

// cannotSync reports whether err says that a directory of this file system
// cannot be flushed, as on some network and user-space file systems.
func cannotSync(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.ENOTTY)
}
