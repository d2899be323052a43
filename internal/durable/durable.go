// Package durable writes files that survive a crash.
//
// The zero [Disk] is ready for use:
//
//	var disk durable.Disk
//	err := disk.WriteFile(path, data, 0o600)
//
// When a method returns nil, its effect outlives a crash of the process, the
// system or the power, as far as the system and the disk keep their word. When
// it returns an error, or the process dies inside it, each method says what may
// be true. Nothing here is ever torn: a file is the old one or the new one.
//
// A file under construction is named ".satchel-<random>.tmp" and stands beside
// the file it will become. A crash may leave one behind; [Disk.CleanTemp]
// removes it.
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

var (
	// ErrNotRegular says that something other than a regular file, such as a
	// symbolic link, a directory or a device, stands where a file was expected.
	// It was not opened for its content.
	ErrNotRegular = errors.New("not a regular file")
	// ErrTooLarge says that a file or record is longer than the limit. It was
	// neither read nor written.
	ErrTooLarge = errors.New("too large")
)

// Op is one kind of step that outlives a crash.
type Op string

// The steps that methods of [Disk] and [Log] are made of.
const (
	OpWrite    Op = "write"    // write the bytes of a temporary file
	OpSync     Op = "sync"     // flush a file to the disk
	OpLink     Op = "link"     // give a temporary file its name, where none stands
	OpRename   Op = "rename"   // move a file or directory to its name
	OpSyncDir  Op = "syncdir"  // flush a directory to the disk
	OpMkdir    Op = "mkdir"    // make a directory
	OpRemove   Op = "remove"   // remove a file or directory
	OpAppend   Op = "append"   // write records at the end of a log
	OpTruncate Op = "truncate" // cut a log to its last good length
)

// Step is a step that is about to happen, or, with Done, has happened.
type Step struct {
	Op   Op
	Path string // what the step acts on; of two paths, the new one
	Done bool
}

// Disk makes changes to files durable. Its zero value is ready for use. Methods
// may be called concurrently; where two calls name one path, one of them wins.
type Disk struct {
	// Hook, if not nil, is called before and after each step, for crash tests.
	// An error before a step means that it does not happen, an error after it
	// that it happened and its caller does not know. A method tries to tidy up
	// after an error and passes it on, unless it reached its goal in another way.
	Hook func(Step) error

	// Root, if not nil, is the directory that all paths are relative to and that
	// none can leave. Nil means the paths of the system.
	Root *os.Root
}

// files is what Disk needs of the operating system; *os.Root has it.
type files interface {
	OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error)
	Mkdir(name string, perm fs.FileMode) error
	Link(oldname, newname string) error
	Rename(oldname, newname string) error
	Remove(name string) error
	RemoveAll(name string) error
	Lstat(name string) (fs.FileInfo, error)
	Stat(name string) (fs.FileInfo, error)
}

// system is files for the paths of the system.
type system struct{}

func (system) OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	return os.OpenFile(name, flag, perm)
}
func (system) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }
func (system) Link(oldname, newname string) error        { return os.Link(oldname, newname) }
func (system) Rename(oldname, newname string) error      { return os.Rename(oldname, newname) }
func (system) Remove(name string) error                  { return os.Remove(name) }
func (system) RemoveAll(name string) error               { return os.RemoveAll(name) }
func (system) Lstat(name string) (fs.FileInfo, error)    { return os.Lstat(name) }
func (system) Stat(name string) (fs.FileInfo, error)     { return os.Stat(name) }

func (d Disk) files() files {
	if d.Root != nil {
		return d.Root
	}
	return system{}
}

// step does one durable thing between the two calls of the hook.
func (d Disk) step(op Op, path string, do func() error) error {
	if d.Hook != nil {
		if err := d.Hook(Step{Op: op, Path: path}); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	if d.Hook != nil {
		return d.Hook(Step{Op: op, Path: path, Done: true})
	}
	return nil
}

// WriteFile makes data the content of the file at path, whether or not a file
// is there; perm is its mode before the umask. A symbolic link at path is
// replaced, not followed. After a crash or an error the file is the old one or
// the new one, whole.
func (d Disk) WriteFile(path string, data []byte, perm fs.FileMode) error {
	temp, _, err := d.writeTemp(path, data, perm)
	if err != nil {
		return fmt.Errorf("writing file: %w", err)
	}
	// A crash up to here leaves the old file, and perhaps a temporary one.
	if err := d.step(OpRename, path, func() error { return d.files().Rename(temp, path) }); err != nil {
		d.files().Remove(temp) // Best effort: CleanTemp finds what stays.
		return fmt.Errorf("writing file: %w", err)
	}
	// A crash here leaves the old file or the new one; from here on readers see the new one.
	if err := d.syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("writing file: %w", err)
	}
	return nil
}

// CreateFile is WriteFile for a path where nothing may stand yet: it never
// replaces anything and returns an error that is fs.ErrExist instead. After a
// crash or any other error the file is absent, or there and whole.
//
// On a file system that has neither hard links nor a rename that refuses to
// replace, the name is first taken by an empty file: there, and only there, a
// crash may leave it empty.
func (d Disk) CreateFile(path string, data []byte, perm fs.FileMode) error {
	if _, err := d.files().Lstat(path); err == nil {
		// Only to save the work: the step that gives the name is what decides.
		return fmt.Errorf("creating file: %w", &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist})
	}
	temp, info, err := d.writeTemp(path, data, perm)
	if err != nil {
		return fmt.Errorf("creating file: %w", err)
	}
	// A crash up to here leaves no file, and perhaps a temporary one.
	err = d.giveName(temp, path, info)
	if err == nil {
		// A crash here leaves no file or the new one; from here on readers see it.
		err = d.syncDir(filepath.Dir(path))
	}
	d.files().Remove(temp) // Best effort: CleanTemp finds what stays. Gone already after a rename.
	if err != nil {
		return fmt.Errorf("creating file: %w", err)
	}
	return nil
}

// giveName makes the file temp, described by info, appear at path, where
// nothing may stand. It tries the ways of the various file systems in turn: what
// a system says when it has no hard links differs too much to be listed.
func (d Disk) giveName(temp, path string, info fs.FileInfo) error {
	done := func(err error) bool {
		if err == nil {
			return true
		}
		// A network file system may repeat a request that succeeded, and report
		// that the name exists.
		there, statErr := d.files().Lstat(path)
		return statErr == nil && os.SameFile(info, there)
	}
	err := d.step(OpLink, path, func() error { return d.files().Link(temp, path) })
	if done(err) {
		return nil
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	err = d.step(OpRename, path, func() error { return d.renameNew(temp, path) })
	if done(err) {
		return nil
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := d.files().OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	// A crash here leaves an empty file; nothing of another's was touched.
	err = d.step(OpRename, path, func() error { return d.files().Rename(temp, path) })
	if err != nil {
		if there, statErr := d.files().Lstat(path); statErr == nil && there.Mode().IsRegular() && there.Size() == 0 {
			d.files().Remove(path)
		}
	}
	return err
}

// renameNew renames temp to path in the same directory unless something is there.
func (d Disk) renameNew(temp, path string) error {
	dir, err := d.openDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return renameNew(dir, filepath.Base(temp), filepath.Base(path))
}

// writeTemp writes and syncs a new temporary file beside path.
func (d Disk) writeTemp(path string, data []byte, perm fs.FileMode) (temp string, info fs.FileInfo, err error) {
	temp = filepath.Join(filepath.Dir(path), tempPrefix+rand.Text()+tempSuffix)
	f, err := d.files().OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return "", nil, err
	}
	err = d.step(OpWrite, temp, func() error { _, err := f.Write(data); return err })
	if err == nil {
		// Without this the name could become durable before the bytes do.
		err = d.step(OpSync, temp, f.Sync)
	}
	if err == nil {
		info, err = f.Stat()
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		d.files().Remove(temp) // Best effort: CleanTemp finds what stays.
		return "", nil, err
	}
	return temp, info, nil
}

// Sync flushes the file at path and its directory to the disk, for a file that
// somebody else wrote.
func (d Disk) Sync(path string) error {
	f, err := d.openRegular(path, os.O_RDWR)
	if errors.Is(err, fs.ErrPermission) {
		f, err = d.openRegular(path, os.O_RDONLY)
	}
	if err == nil {
		err = d.step(OpSync, path, f.Sync)
		f.Close()
	}
	if err == nil {
		err = d.syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("flushing file: %w", err)
	}
	return nil
}

// syncDir flushes the names in a directory to the disk, where systems can.
func (d Disk) syncDir(dir string) error {
	return d.step(OpSyncDir, dir, func() error {
		if !canSyncDir {
			return nil
		}
		f, err := d.openDir(dir)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Sync(); err != nil && !cannotSync(err) {
			return err
		}
		return nil
	})
}

// ReadFile returns the content of the regular file at path. Anything else
// there, a symbolic link included, is ErrNotRegular, and a file longer than
// limit bytes is ErrTooLarge and not read. An absent file is fs.ErrNotExist.
func (d Disk) ReadFile(path string, limit int64) ([]byte, error) {
	f, err := d.openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("reading file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading file: %w", err)
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("reading file: %w", ErrTooLarge)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("reading file: %w", err)
	}
	return data, nil
}

// openRegular opens the regular file at path and never waits for a pipe.
func (d Disk) openRegular(path string, flag int) (*os.File, error) {
	named, err := d.files().Lstat(path)
	if err != nil {
		return nil, err
	}
	if !named.Mode().IsRegular() {
		return nil, ErrNotRegular
	}
	f, err := d.files().OpenFile(path, flag|nonBlocking, 0)
	if err != nil {
		return nil, err
	}
	// Between the two calls the name may have become a link to another file.
	opened, err := f.Stat()
	if err != nil || !opened.Mode().IsRegular() || !os.SameFile(named, opened) {
		f.Close()
		if again, lstatErr := d.files().Lstat(path); err == nil && lstatErr == nil && again.Mode().IsRegular() && os.SameFile(again, opened) {
			return d.openRegular(path, flag) // It was merely replaced by another file.
		}
		return nil, errors.Join(ErrNotRegular, err)
	}
	return f, nil
}

// regular closes a file that was just opened and is not a regular one.
func regular(f *os.File) error {
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		return nil
	}
	f.Close()
	return errors.Join(ErrNotRegular, err)
}

// openDir opens the directory at path. Another process may have put a pipe
// there: that is an error, and never waited for.
func (d Disk) openDir(path string) (*os.File, error) {
	return d.files().OpenFile(path, os.O_RDONLY|directory, 0)
}

// ReadDir returns what is in the directory at path, in no order. Where something
// else stands the error is one of the system, at once.
func (d Disk) ReadDir(path string) ([]fs.DirEntry, error) {
	f, err := d.openDir(path)
	if err != nil {
		return nil, fmt.Errorf("reading directory: %w", err)
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("reading directory: %w", err)
	}
	return entries, nil
}

// Remove removes the file or the empty directory at path. One that is absent is
// fs.ErrNotExist. After a crash or an error it is there, whole, or gone.
func (d Disk) Remove(path string) error {
	err := d.step(OpRemove, path, func() error { return d.files().Remove(path) })
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		// One who found it gone may rely on that too: an earlier Remove may have
		// crashed here.
		if syncErr := d.syncDir(filepath.Dir(path)); !errors.Is(syncErr, fs.ErrNotExist) {
			err = errors.Join(err, syncErr)
		}
	}
	if err != nil {
		return fmt.Errorf("removing file: %w", err)
	}
	return nil
}

// RemoveAll removes path and all that is in it; nothing there is no error.
// Links in it are removed, not followed. After a crash or an error any part may
// be left.
func (d Disk) RemoveAll(path string) error {
	err := d.step(OpRemove, path, func() error { return d.files().RemoveAll(path) })
	if err == nil {
		err = d.syncDir(filepath.Dir(path))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing directory: %w", err)
	}
	return nil
}

// MkdirAll makes the directory at path and its parents where they are missing;
// perm is their mode before the umask. After a crash or an error some of the
// parents may exist.
func (d Disk) MkdirAll(path string, perm fs.FileMode) error {
	if err := d.mkdirAll(filepath.Clean(path), perm); err != nil {
		return fmt.Errorf("making directory: %w", err)
	}
	return nil
}

func (d Disk) mkdirAll(path string, perm fs.FileMode) error {
	info, err := d.files().Stat(path)
	if err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: path, Err: fs.ErrExist}
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	if parent == path {
		return err
	}
	if err := d.mkdirAll(parent, perm); err != nil {
		return err
	}
	err = d.step(OpMkdir, path, func() error { return d.files().Mkdir(path, perm) })
	if errors.Is(err, fs.ErrExist) {
		// Another made it at the same time; whatever it is, a second look tells.
		if info, statErr := d.files().Stat(path); statErr != nil || !info.IsDir() {
			return err
		}
	} else if err != nil {
		return err
	}
	return d.syncDir(parent)
}

// RenameDir moves the directory at from to the path to, on the same file system.
// If anything but an empty directory stands there, it returns an error that is
// fs.ErrExist and changes nothing. After a crash or an error the directory,
// whole, has the one name or the other; the caller has made its content durable
// before.
func (d Disk) RenameDir(from, to string) error {
	info, err := d.files().Lstat(from)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "rename", Path: from, Err: errors.New("not a directory")}
	}
	if err == nil {
		if there, statErr := d.files().Lstat(to); statErr == nil {
			err = &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist}
			if there.IsDir() && d.files().Remove(to) == nil { // Succeeds only on an empty one.
				err = nil
			}
		}
	}
	if err == nil {
		err = d.step(OpRename, to, func() error { return d.files().Rename(from, to) })
	}
	if err == nil {
		err = d.syncDir(filepath.Dir(to))
	}
	if err == nil && filepath.Dir(from) != filepath.Dir(to) {
		err = d.syncDir(filepath.Dir(from))
	}
	if err != nil {
		return fmt.Errorf("renaming directory: %w", err)
	}
	return nil
}

const (
	tempPrefix = ".satchel-"
	tempSuffix = ".tmp"
)

// IsTemp reports whether name is, by its last element, that of a file under
// construction.
func IsTemp(name string) bool {
	base := filepath.Base(name)
	return len(base) > len(tempPrefix)+len(tempSuffix) &&
		strings.HasPrefix(base, tempPrefix) && strings.HasSuffix(base, tempSuffix)
}

// CleanTemp removes files under construction directly in dir that were last
// written before olderThan, which must be long enough ago that no running
// process is still at them. A directory that is absent is no error.
func (d Disk) CleanTemp(dir string, olderThan time.Time) error {
	f, err := d.openDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cleaning up: %w", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	for _, name := range names {
		path := filepath.Join(dir, name)
		if !IsTemp(name) {
			continue
		}
		info, statErr := d.files().Lstat(path)
		if statErr != nil || !info.Mode().IsRegular() || !info.ModTime().Before(olderThan) {
			continue
		}
		removeErr := d.step(OpRemove, path, func() error { return d.files().Remove(path) })
		if !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	if err != nil {
		return fmt.Errorf("cleaning up: %w", err)
	}
	return nil
}
