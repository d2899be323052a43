//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// keepOwner gives a file that root wrote to the owner of its folder: the server may be
// another user, who could not read it. For everybody else there is nothing to do.
func keepOwner(file string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	dir, err := os.Stat(filepath.Dir(file))
	if err != nil {
		return err
	}
	// Whoever owns the folder may have put another file there since: a link to one of the
	// system's, say. Only one that is root's, and has no other name, is given away.
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	to, ok := dir.Sys().(*syscall.Stat_t)
	is, also := info.Sys().(*syscall.Stat_t)
	if !ok || !also || is.Uid == to.Uid {
		return nil
	}
	if !info.Mode().IsRegular() || is.Uid != 0 || is.Nlink != 1 {
		return fmt.Errorf("%s is not the file that was written", file)
	}
	return f.Chown(int(to.Uid), int(to.Gid))
}
