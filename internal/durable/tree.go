package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteTree makes data the content of a new file at path, or of one that an
// earlier WriteTree made, and does not flush it: it is for a directory that is
// being made and gets its name only after [Disk.SyncTree]. After a crash or an
// error the file may be absent, or there and torn.
func (d Disk) WriteTree(path string, data []byte, perm fs.FileMode) error {
	// For reading too: a pipe that nobody reads opens then, and is told by what it is.
	f, err := d.files().OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC|nonBlocking, perm)
	if err == nil {
		err = regular(f)
	}
	if err == nil {
		err = d.step(OpWrite, path, func() error { _, err := f.Write(data); return err })
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("writing file: %w", err)
	}
	return nil
}

// SyncTree flushes a directory and all that is in it to the disk. Nothing else
// writes there meanwhile.
func (d Disk) SyncTree(dir string) error {
	err := d.step(OpSync, dir, func() error { return d.syncTree(dir) })
	if err != nil {
		return fmt.Errorf("flushing directory: %w", err)
	}
	return nil
}

// flushTree flushes the files in a directory and the directories in it, one
// after another.
func (d Disk) flushTree(dir string) error {
	f, err := d.openDir(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			if err := d.flushTree(path); err != nil {
				return err
			}
			continue
		}
		file, err := d.openRegular(path, os.O_RDWR)
		if err != nil {
			return err
		}
		if err := errors.Join(file.Sync(), file.Close()); err != nil {
			return err
		}
	}
	if err := f.Sync(); canSyncDir && err != nil && !cannotSync(err) {
		return err
	}
	return nil
}
