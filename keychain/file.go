package keychain

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/secret"
)

// Files keeps each secret in a file that only its owner can read, as SSH does.
// Whoever can read the user's files, or a copy of the disk, can read them.
type Files struct {
	// Hook is called around every step that changes the disk; nil means not. It
	// is for crash tests.
	Hook func(durable.Step) error

	dir string
}

var _ Keychain = (*Files)(nil)

// File returns the keychain of files in dir, which Set makes if it is missing.
func File(dir string) *Files { return &Files{dir: dir} }

// Where implements [Keychain].
func (f *Files) Where() string { return "files in " + f.dir }

func (f *Files) path(name string) string { return filepath.Join(f.dir, name+".secret") }

// Get implements [Keychain]. A file that others may read is ErrExposed: its
// content counts as known to them.
func (f *Files) Get(name string) (secret.Bytes, error) {
	b, err := f.get(name)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("getting secret: %w", err)
	}
	return b, nil
}

func (f *Files) get(name string) (secret.Bytes, error) {
	if err := checkName(name); err != nil {
		return secret.Bytes{}, err
	}
	info, err := os.Lstat(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		// Absent is certain only in a directory that is there: its drive may be missing.
		if _, dirErr := os.Stat(f.dir); dirErr != nil {
			return secret.Bytes{}, fmt.Errorf("%w: %w", ErrUnavailable, dirErr)
		}
		return secret.Bytes{}, ErrNotFound
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if !info.Mode().IsRegular() || runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return secret.Bytes{}, ErrExposed
	}
	text, err := durable.Disk{}.ReadFile(f.path(name), int64(maxText)+1)
	switch {
	case errors.Is(err, durable.ErrTooLarge):
		return secret.Bytes{}, ErrDamaged
	case err != nil:
		return secret.Bytes{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer clear(text)
	line, ok := strings.CutSuffix(string(text), "\n")
	if !ok {
		return secret.Bytes{}, ErrDamaged
	}
	return decode(line)
}

// leftover is the age at which a file under construction is one that a crash left.
const leftover = time.Hour

// Set implements [Keychain]. After a crash the file has the old secret or the
// new one, and the new one may also stand in a file that a later Set removes.
func (f *Files) Set(name string, b secret.Bytes) error {
	err := checkName(name)
	var text string
	if err == nil {
		text, err = encode(b)
	}
	disk := durable.Disk{Hook: f.Hook}
	if err == nil {
		err = disk.MkdirAll(f.dir, 0o700)
	}
	if err == nil {
		err = disk.WriteFile(f.path(name), []byte(text+"\n"), 0o600)
	}
	if err == nil {
		disk.CleanTemp(f.dir, time.Now().Add(-leftover)) // Its failure harms nothing.
		var got secret.Bytes
		if got, err = f.get(name); err == nil && !got.Equal(b) {
			err = ErrDamaged
		}
	}
	if err != nil {
		return fmt.Errorf("storing secret: %w", err)
	}
	return nil
}

// Delete implements [Keychain]. The bytes may stay on the disk until the system
// uses their place again.
func (f *Files) Delete(name string) error {
	err := checkName(name)
	if err == nil {
		err = durable.Disk{Hook: f.Hook}.Remove(f.path(name))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deleting secret: %w", err)
	}
	return nil
}
