package durable

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// renameNew renames a file within dir unless something has the new name.
func renameNew(dir *os.File, from, to string) error {
	oldName, err := windows.UTF16PtrFromString(filepath.Join(dir.Name(), from))
	if err != nil {
		return err
	}
	newName, err := windows.UTF16PtrFromString(filepath.Join(dir.Name(), to))
	if err != nil {
		return err
	}
	// Without MOVEFILE_REPLACE_EXISTING.
	if err := windows.MoveFileEx(oldName, newName, windows.MOVEFILE_WRITE_THROUGH); err != nil {
		return &os.LinkError{Op: "MoveFileEx", Old: from, New: to, Err: err}
	}
	return nil
}
