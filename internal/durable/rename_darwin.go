package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

// renameNew renames a file within dir unless something has the new name.
func renameNew(dir *os.File, from, to string) error {
	fd := int(dir.Fd())
	err := unix.RenameatxNp(fd, from, fd, to, unix.RENAME_EXCL)
	if err != nil {
		return &os.LinkError{Op: "renameatx", Old: from, New: to, Err: err}
	}
	return nil
}
