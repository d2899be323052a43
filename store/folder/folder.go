// Package folder keeps a store in a directory, usually one that something else
// carries to a cloud: Nextcloud, Dropbox, iCloud Drive, Syncthing, or a USB
// drive that is carried by hand.
//
//	s, err := folder.New(dir, folder.Config{Create: true}) // when the user chooses the place
//	s, err := folder.New(dir, folder.Config{})             // ever after
//
// Each object is a file of its name. Names compare as the file system compares
// them: one that ignores case or composes letters anew can show an object under
// a name that looks alike, so callers use names in normal form C that do not
// differ in case alone. Another program may write here at any time: what is not
// an object's file, such as links, hidden files and directories, and names that
// [store.CheckName] refuses, is neither listed nor touched nor followed. A copy
// made by a sync program, such as "x (1).age", is an object of its own name.
//
// What a sync program knows of and has not brought to this device yet is listed,
// waited for, and never absent; see [Config.Patience]. That was written from what
// the programs are documented to do, and tested with files as they leave them; it
// was never run with iCloud, OneDrive, Dropbox or Google Drive themselves.
package folder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/text/unicode/norm"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/store"
)

// Config holds what may be chosen. Its zero value is the usual one, for a folder
// that is in use already.
type Config struct {
	// Create lets New make the directory, if its parent exists, and take an
	// empty one for a place to begin in. False means that a directory that is
	// missing or has nothing at all in it is unreachable: the drive is not
	// mounted, or the sync program has not run yet. It is meant for the moment in
	// which a user chooses a new place.
	Create bool

	// Patience is how long a call waits for an object that a sync program has in its
	// cloud and not on this device; zero means 30 seconds, less than zero not at
	// all. Then the error is store.ErrUnreachable: such an object is never absent.
	Patience time.Duration

	// Hook is called around every step that changes the disk; nil means not. It
	// is for crash tests.
	Hook func(durable.Step) error
}

// Store is a [store.Store] in a directory. An error of the system that says who
// may do what is fs.ErrPermission. A call to a network drive that does not
// answer lasts as long as the system waits; the context is looked at between
// calls of the system.
type Store struct {
	dir      string
	hook     func(durable.Step) error
	patience time.Duration
	fetch    func(ctx context.Context, file string)

	// dirs is held by Put from making a directory to having filled it, by List
	// while it reads directories, and alone by Delete while it removes empty ones.
	dirs sync.RWMutex

	mu      sync.Mutex
	cleaned map[string]bool // directories cleaned of leftovers; guarded by mu
}

var _ store.Store = (*Store)(nil)

// marker is a file that New with Create leaves in the directory, so that a
// folder whose last object was deleted is not taken for an unmounted drive.
const (
	marker     = ".satchel-folder"
	markerText = "Satchel keeps backups in this folder. This file shows that its drive is connected; please leave it here.\n"
)

// leftover is the age at which a file under construction is one that a crash left.
const leftover = 24 * time.Hour

// errEmpty and the like are facts behind store.ErrUnreachable.
var (
	errEmpty    = errors.New("the folder has nothing in it; is its drive connected, and has it been synced")
	errMissing  = errors.New("the folder is missing; is its drive connected")
	errChanging = errors.New("directories keep changing")
	errForeign  = errors.New("not a regular file")
	errReserved = errors.New("sync programs use names of this form themselves")
)

// New returns the store in dir, which may itself be a link to a directory.
// Without Create it does not look at the disk, and a directory that is missing
// then is store.ErrUnreachable at each call until it is there.
func New(dir string, c Config) (*Store, error) {
	if dir == "" {
		return nil, errors.New("opening folder: no directory given")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening folder: %w", err)
	}
	if c.Patience == 0 {
		c.Patience = usualPatience
	}
	s := &Store{dir: dir, hook: c.Hook, patience: c.Patience, fetch: fetch, cleaned: map[string]bool{}}
	if !c.Create {
		return s, nil
	}
	if err := s.create(); err != nil {
		return nil, fmt.Errorf("making folder: %w", explain(err))
	}
	return s, nil
}

func (s *Store) create() error {
	disk := durable.Disk{Hook: s.hook}
	if _, err := os.Stat(s.dir); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Dir(s.dir)); err != nil {
			return errors.Join(store.ErrUnreachable, errMissing, err)
		}
		if err := disk.MkdirAll(s.dir, 0o700); err != nil {
			return err
		}
	}
	err := disk.CreateFile(filepath.Join(s.dir, marker), []byte(markerText), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// Dir returns the absolute path of the directory.
func (s *Store) Dir() string { return s.dir }

// open opens the directory for one call. It is not kept open between calls: that
// would keep a drive from being ejected, and follow one that was unmounted.
func (s *Store) open(ctx context.Context) (*os.Root, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir := s.dir
	if runtime.GOOS != "windows" {
		// Where a pipe stands, looking into it is an error at once; opening it would
		// wait for one who writes to it.
		dir += "/."
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, fmt.Errorf("%w: %w", store.ErrUnreachable, errMissing)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrUnreachable, err)
	}
	d, err := root.Open(".") // Never a pipe: it is root itself.
	if err == nil {
		_, err = d.Readdirnames(1)
		d.Close()
	}
	if err != nil {
		root.Close()
		if err == io.EOF {
			err = errEmpty // Never taken for "no backups".
		}
		return nil, fmt.Errorf("%w: %w", store.ErrUnreachable, err)
	}
	return root, nil
}

// still returns an error unless root is what stands at the store's path: a drive
// that goes away takes the names with it, and they must not count as absent.
func (s *Store) still(root *os.Root) error {
	opened, err := root.Stat(".")
	if err == nil {
		var there fs.FileInfo
		if there, err = os.Stat(s.dir); err == nil && os.SameFile(opened, there) {
			return nil
		}
	}
	return errors.Join(store.ErrUnreachable, errMissing, err)
}

// explain adds the sentinel of package store that an error of the system means.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case isFull(err):
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case isSignedOut(err):
		return fmt.Errorf("%w: %w", store.ErrSignIn, err)
	case isGone(err):
		return fmt.Errorf("%w: %w", store.ErrUnreachable, err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("the folder can only be read: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the folder's permissions forbid it: %w", err)
	}
	return err
}

// foreign says that something which no Put made, and no Delete removes, stands at
// name: in the place of an object, or of a directory on the way to one.
func foreign(name string) error {
	return fmt.Errorf("%w stands there: remove %s by hand", errForeign, name)
}

// way says what stands on the way to an object.
type way int

const (
	wayClear   way = iota // directories only
	wayMissing            // one is missing, or a file stands there: no object of this name exists
	wayLink               // a link or something stranger
)

// walk looks at the directories above name and follows no link. With wayLink it
// says where that stands.
func walk(root *os.Root, name string) (w way, at string, err error) {
	for i, c := range name {
		if c != '/' {
			continue
		}
		info, err := root.Lstat(filepath.FromSlash(name[:i]))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return wayMissing, "", nil
		case err != nil:
			return 0, "", err
		case info.Mode().IsRegular():
			return wayMissing, "", nil
		case !info.IsDir():
			return wayLink, name[:i], nil
		}
	}
	return wayClear, "", nil
}

// Put implements [store.Store]. The file is there whole or not at all, except on
// file systems without links and exclusive renames; see [durable.Disk.CreateFile].
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	err := store.CheckPut(name, data)
	if _, _, theirs := placeholder(name); theirs && err == nil {
		err = errReserved
	}
	if err == nil {
		err = s.put(ctx, name, data)
	}
	if err != nil {
		return fmt.Errorf("putting object: %w", explain(err))
	}
	return nil
}

func (s *Store) put(ctx context.Context, name string, data []byte) error {
	root, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	switch w, at, err := walk(root, name); {
	case err != nil:
		return err
	case w == wayLink:
		return foreign(at)
	}
	if err := s.arrive(ctx, root, name); err != nil {
		return err
	}
	disk := durable.Disk{Hook: s.hook, Root: root}
	file := filepath.FromSlash(name)

	s.dirs.RLock()
	defer s.dirs.RUnlock()
	for range 3 { // Another process may remove the directory that looks empty to it.
		if err = disk.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		if awaited(root, name) != "" {
			return errAway
		}
		if err = disk.CreateFile(file, data, 0o600); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, fs.ErrExist) {
		there, readErr := disk.ReadFile(file, store.MaxObject)
		switch {
		case readErr == nil && bytes.Equal(there, data):
			// Who wrote it may have crashed before it was durable.
			return disk.Sync(file)
		case readErr == nil, errors.Is(readErr, durable.ErrTooLarge):
			return store.ErrExist
		case errors.Is(readErr, durable.ErrNotRegular):
			return fmt.Errorf("%w: %w", store.ErrExist, foreign(name))
		}
		return readErr
	}
	if err != nil {
		return err
	}
	s.clean(disk, filepath.Dir(file))
	return s.still(root) // Else it was written to a drive that is gone.
}

// clean removes, once for each directory, what crashes left there.
func (s *Store) clean(disk durable.Disk, dir string) {
	s.mu.Lock()
	done := s.cleaned[dir]
	s.cleaned[dir] = true
	s.mu.Unlock()
	if !done {
		disk.CleanTemp(dir, time.Now().Add(-leftover)) // Its failure harms nothing.
	}
}

// removeTwins removes the files under construction that are the file of info under
// another name: a crash came between the two steps in which a file gets its own. What
// is deleted must not live on there.
func (s *Store) removeTwins(disk durable.Disk, dir string, info fs.FileInfo) {
	if !hasTwins(info) {
		return
	}
	entries, err := disk.ReadDir(dir)
	if err != nil {
		return // The file itself goes all the same.
	}
	for _, e := range entries {
		if !durable.IsTemp(e.Name()) {
			continue
		}
		if twin, err := e.Info(); err == nil && os.SameFile(twin, info) {
			disk.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	err := store.CheckName(name)
	var data []byte
	if err == nil {
		data, err = s.get(ctx, name, limit)
	}
	if err == nil && !want.Matches(data) {
		err = store.ErrDamaged
	}
	if err != nil {
		return nil, fmt.Errorf("getting object: %w", explain(err))
	}
	return data, nil
}

func (s *Store) get(ctx context.Context, name string, limit int64) ([]byte, error) {
	root, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// Absent is said only of a folder that is still there.
	absent := func() error {
		if awaited(root, name) != "" {
			return errAway
		}
		if err := s.still(root); err != nil {
			return err
		}
		return store.ErrNotExist
	}
	switch w, at, err := walk(root, name); {
	case err != nil:
		return nil, err
	case w == wayMissing:
		return nil, absent()
	case w == wayLink:
		return nil, fmt.Errorf("%w: %w", store.ErrDamaged, foreign(at))
	}
	if err := s.arrive(ctx, root, name); err != nil {
		return nil, err
	}
	file := filepath.FromSlash(name)
	data, err := durable.Disk{Root: root}.ReadFile(file, limit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, absent()
	case errors.Is(err, durable.ErrTooLarge):
		return nil, store.ErrTooLarge
	case errors.Is(err, durable.ErrNotRegular):
		if info, err := root.Lstat(file); err == nil && info.IsDir() {
			return nil, absent()
		}
		return nil, fmt.Errorf("%w: %w", store.ErrDamaged, foreign(name))
	}
	return data, err
}

// List implements [store.Store]. On a Mac, names are shown in normal form C,
// whatever the file system made of them. An object that is in the cloud of a sync
// program and not on this device is listed with size 0.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Object, error) {
	list, err := s.list(ctx, prefix)
	if err != nil {
		err = explain(err)
		if ctx.Err() == nil && !errors.Is(err, store.ErrUnreachable) && !errors.Is(err, store.ErrSignIn) {
			err = fmt.Errorf("%w: %w", store.ErrListing, err)
		}
		return nil, fmt.Errorf("listing objects: %w", err)
	}
	return list, nil
}

func (s *Store) list(ctx context.Context, prefix string) ([]store.Object, error) {
	root, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	dir := "" // the deepest directory that all names with the prefix are in
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir = prefix[:i]
		if store.CheckName(dir) != nil {
			return nil, s.still(root) // No object has such a name.
		}
	}
	s.dirs.RLock()
	defer s.dirs.RUnlock()
	for range 5 {
		w, _, err := walk(root, path.Join(dir, "x"))
		if err != nil {
			return nil, err
		}
		l := lister{ctx: ctx, root: root, prefix: prefix}
		if w == wayClear {
			if err := l.walk(dir); err != nil {
				return nil, err
			}
		}
		if err := s.still(root); err != nil {
			return nil, err
		}
		// A directory that went away may have been renamed, with objects in it that
		// were there all the time; what a placeholder stood for may have arrived.
		if !l.vanished {
			return l.list, nil
		}
	}
	return nil, errChanging
}

type lister struct {
	ctx      context.Context
	root     *os.Root
	prefix   string
	list     []store.Object
	vanished bool // a directory or a placeholder went away during the walk
}

// walk lists what is in dir, "" for the root. Its depth is bounded by the length
// of a name.
func (l *lister) walk(dir string) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	entries, err := durable.Disk{Root: l.root}.ReadDir(filepath.Join(".", filepath.FromSlash(dir)))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // Something else may stand there now.
		l.vanished = true
		return nil
	}
	if err != nil {
		return err
	}
	away := map[string]store.Object{} // those that a placeholder stands for, by their names
	here := map[string]bool{}
	for _, e := range entries {
		file := e.Name()
		if dir != "" {
			file = dir + "/" + file
		}
		name := file
		if runtime.GOOS == "darwin" || runtime.GOOS == "ios" {
			name = norm.NFC.String(file)
		}
		if real, tiny, ok := placeholder(name); ok && e.Type().IsRegular() {
			info, err := e.Info()
			switch {
			case errors.Is(err, fs.ErrNotExist):
				l.vanished = true // Perhaps the file itself has come in its place.
				continue
			case err != nil:
				return err
			case !tiny || info.Size() <= 1:
				// It exists, so a listing without it would be a lie.
				if strings.HasPrefix(real, l.prefix) {
					away[real] = store.Object{Name: real, Modified: info.ModTime(), ID: real}
				}
				continue
			}
		}
		if store.CheckName(name) != nil || dir == "" && systems(name) {
			continue
		}
		if e.IsDir() {
			if strings.HasPrefix(name+"/", l.prefix) || strings.HasPrefix(l.prefix, name+"/") {
				if err := l.walk(file); err != nil {
					return err
				}
			}
			continue
		}
		if !strings.HasPrefix(name, l.prefix) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			// Deleted in between, or a placeholder was put in its place.
			l.vanished = l.vanished || awaited(l.root, name) != ""
			continue
		}
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			continue
		}
		l.list = append(l.list, store.Object{Name: name, Size: info.Size(), Modified: info.ModTime(), ID: file})
		here[name] = true
	}
	for name, o := range away {
		if !here[name] {
			l.list = append(l.list, o)
		}
	}
	return nil
}

// systems reports whether name is a directory that systems keep for themselves
// at the top of a drive, and that users may not read.
func systems(name string) bool {
	return name == "lost+found" || name == "System Volume Information" || name == "$RECYCLE.BIN"
}

// Delete implements [store.Store]. It removes the directories that the object
// leaves empty.
func (s *Store) Delete(ctx context.Context, o store.Object) error {
	name := o.ID
	if name == "" {
		name = o.Name
	}
	err := store.CheckName(name)
	if err == nil {
		err = s.delete(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("deleting object: %w", explain(err))
	}
	return nil
}

func (s *Store) delete(ctx context.Context, name string) error {
	root, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	switch w, at, err := walk(root, name); {
	case err != nil:
		return err
	case w == wayMissing:
		return s.still(root)
	case w == wayLink:
		return foreign(at)
	}
	// To delete what stands for it might leave it in the cloud.
	if err := s.arrive(ctx, root, name); err != nil {
		return err
	}
	disk := durable.Disk{Hook: s.hook, Root: root}
	file := filepath.FromSlash(name)
	info, err := root.Lstat(file)
	switch {
	case err == nil && info.IsDir():
		return s.still(root) // No object has this name.
	case err == nil && !info.Mode().IsRegular():
		return foreign(name)
	case err == nil:
		s.removeTwins(disk, filepath.Dir(file), info)
		err = disk.Remove(file)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.clean(disk, filepath.Dir(file))

	if !s.dirs.TryLock() {
		return s.still(root) // An empty directory is no harm; waiting for a long listing is.
	}
	defer s.dirs.Unlock()
	for dir := filepath.Dir(file); dir != "."; dir = filepath.Dir(dir) {
		info, err := root.Lstat(dir)
		if err != nil || !info.IsDir() || disk.Remove(dir) != nil {
			break // It has other things in it.
		}
	}
	return s.still(root)
}
