//go:build unix

package folder

import (
	"errors"
	"syscall"
)

// isSignedOut reports that no error of this system says so.
func isSignedOut(error) bool { return false }

// isFull reports whether the disk, or the user's share of it, has no room.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// isGone reports whether the drive or the network behind the folder is gone.
func isGone(err error) bool {
	for _, gone := range []syscall.Errno{
		syscall.EIO, syscall.ENXIO, syscall.ENODEV, syscall.ESTALE, syscall.ENOTCONN, syscall.ETIMEDOUT,
		syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.ENETUNREACH,
		syscall.EDEADLK, // macOS has the file in a cloud and cannot fetch it now.
	} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}
