package durable

import (
	"errors"
	"fmt"
	"os"
)

// ErrLocked says that another holds the lock: another process, or another part
// of this one.
var ErrLocked = errors.New("locked by another")

// Lock is a lock that one holder has at a time. The system frees it when the
// process ends, however it ends.
type Lock struct{ f *os.File }

// Lock takes the lock at path, a file it makes and that stays. It does not
// wait: if another holder has it, the error is ErrLocked. The lock binds those
// who ask for it, and nobody else. The caller keeps it until Unlock. Anything
// but a regular file there is ErrNotRegular.
func (d Disk) Lock(path string) (*Lock, error) {
	f, err := d.files().OpenFile(path, os.O_RDWR|os.O_CREATE|nonBlocking, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	if err := regular(f); err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking: %w", err)
	}
	return &Lock{f: f}, nil
}

// Unlock gives the lock back. A second call does nothing but return an error.
func (l *Lock) Unlock() error { return errors.Join(unlockFile(l.f), l.f.Close()) }
