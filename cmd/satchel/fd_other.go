//go:build !unix

package main

import (
	"errors"
	"os"
	"syscall"
)

// checkFD returns an error unless a handle is open. In which direction cannot be
// told here.
func checkFD(n int, _ direction) error {
	if t, err := syscall.GetFileType(syscall.Handle(n)); err != nil || t == syscall.FILE_TYPE_UNKNOWN {
		return errors.New("no such handle was given")
	}
	return nil
}

// copyFD returns the file of a handle.
func copyFD(n int) (*os.File, error) {
	return os.NewFile(uintptr(n), "file descriptor"), nil
}
