//go:build !unix

package durable

const (
	canSyncDir  = false // Windows cannot; NTFS journals its names.
	nonBlocking = 0
	directory   = 0
)

func cannotSync(error) bool { return true }
