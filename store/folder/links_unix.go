//go:build unix

package folder

import (
	"io/fs"
	"syscall"
)

// hasTwins reports whether a file has more names than one.
func hasTwins(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink > 1
}
