//go:build !windows

package folder

// drives returns nothing: no drive has a letter here.
func drives() []Drive { return nil }
