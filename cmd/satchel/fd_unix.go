//go:build unix

package main

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// checkFD returns an error unless this program was given a file descriptor that
// is open in the direction.
func checkFD(n int, d direction) error {
	fd := uintptr(n)
	flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
	// What was inherited is not closed on exec; what Go opens here, also for
	// itself, is.
	if err != nil || flags&unix.FD_CLOEXEC != 0 {
		return errors.New("no such file descriptor was given")
	}
	mode, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	switch mode &= unix.O_ACCMODE; {
	case d == reading && mode == unix.O_WRONLY:
		return errors.New("it is not open for reading")
	case d == writing && mode == unix.O_RDONLY:
		return errors.New("it is not open for writing")
	}
	return nil
}

// copyFD returns a private copy of a file descriptor.
func copyFD(n int) (*os.File, error) {
	own, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(own), "file descriptor"), nil
}
