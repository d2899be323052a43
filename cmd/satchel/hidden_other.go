//go:build !darwin && !dragonfly && !freebsd && !linux && !netbsd && !openbsd

package main

import (
	"os"

	"golang.org/x/term"
)

// readHidden reads a line that does not appear on the screen.
func readHidden(f *os.File) ([]byte, error) { return term.ReadPassword(int(f.Fd())) }
