package file

import (
	"io/fs"
	"syscall"
)

// identify returns which file info is about and when its inode changed last.
func identify(info fs.FileInfo) (dev, ino uint64, changed int64) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, 0
	}
	return uint64(s.Dev), s.Ino, s.Ctim.Nano()
}
