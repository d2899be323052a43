//go:build linux && !android

package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

// renameNew renames a file within dir unless something has the new name.
func renameNew(dir *os.File, from, to string) error {
	fd := int(dir.Fd())
	err := unix.Renameat2(fd, from, fd, to, unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.LinkError{Op: "renameat2", Old: from, New: to, Err: err}
	}
	return nil
}
