package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"

	"github.com/satchel-backup/satchel/internal/durable"
)

// stamp is what tells one state of a file from another without reading it. Two
// that are equal are the same state, except for changes within the resolution of
// the file system's clock. The zero stamp is that of no file.
type stamp struct {
	Mode     fs.FileMode
	Size     int64
	Modified int64 // Unix time in ns
	Changed  int64 // of the inode; 0 where it is not known, as are the next two
	Dev, Ino uint64
}

// coarse reports whether the file system seems to keep times in whole seconds.
func (s stamp) coarse() bool { return s.Modified%1e9 == 0 }

// same reports whether two stamps are of one and the same file or directory, in
// whatever state. Where that is not known, it is.
func (s stamp) same(t stamp) bool { return s.Dev == t.Dev && s.Ino == t.Ino }

// elsewhere is the same as no file or directory.
var elsewhere = stamp{Dev: ^uint64(0), Ino: ^uint64(0)}

// entry is one name in a directory.
type entry struct {
	Name  string
	Stamp stamp
}

// system is what a source needs of the outside world. Tests bring their own.
type system interface {
	// Resolve follows the links of a whole path.
	Resolve(path string) (string, error)
	// Stat looks at a path and follows no link at its end.
	Stat(path string) (stamp, error)
	// List returns what is in a directory, by name.
	List(dir string) ([]entry, error)
	// Read returns the bytes of the regular file rel below home, which nothing in
	// between can lead out of. Longer than limit is durable.ErrTooLarge.
	Read(home, rel string, limit int64) ([]byte, error)
	// Watch returns a new watcher that watches nothing yet.
	Watch() (*watcher, error)
}

// watcher tells of changes in directories, not of those below them. Both
// channels are closed, or silent, after Close.
type watcher struct {
	Events <-chan fsnotify.Event
	Errors <-chan error
	Add    func(dir string) error // again is fine
	Remove func(dir string) error
	Close  func() error
}

// disk is the system that we run on.
type disk struct {
	shared *Notifier // nil for a watcher of its own
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{Mode: info.Mode(), Size: info.Size(), Modified: info.ModTime().UnixNano()}
	s.Dev, s.Ino, s.Changed = identify(info)
	return s
}

func (disk) Resolve(path string) (string, error) { return filepath.EvalSymlinks(path) }

func (disk) Stat(path string) (stamp, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return stamp{}, err
	}
	return stampOf(info), nil
}

func (disk) List(dir string) ([]entry, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, 0, len(list))
	for _, e := range list {
		info, err := e.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			// It went away since.
		case err != nil:
			return nil, err
		default:
			entries = append(entries, entry{e.Name(), stampOf(info)})
		}
	}
	return entries, nil
}

// Read goes through an os.Root: no link leads out of home, and on Windows, where
// os.Open would, nothing stands in the way of a program that renames its new file
// into place meanwhile.
func (disk) Read(home, rel string, limit int64) ([]byte, error) {
	root, err := os.OpenRoot(home)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return durable.Disk{Root: root}.ReadFile(rel, limit)
}

func (d disk) Watch() (*watcher, error) {
	if d.shared != nil {
		return d.shared.watch()
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &watcher{Events: w.Events, Errors: w.Errors, Add: w.Add, Remove: w.Remove, Close: w.Close}, nil
}
