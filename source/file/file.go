// Package file is a source of items that are files.
//
// It watches files and directories and hands each file, at every change, to
// whoever keeps it:
//
//	src, err := file.New(file.Config{Paths: []string{"/home/sam/wallet.dat", "/home/sam/.wallet"}})
//	err = src.Run(ctx, save)
//
// The file wallet.dat is the item "file/wallet.dat", and .wallet/a/b the item
// "file/.wallet/a/b". A path may be a symbolic link or lead through some, and may
// come to be later. Links inside a directory are not followed, and a directory whose
// name begins with [seal.FolderPrefix] is left out whenever it comes: it is a backup,
// perhaps this one, and saving it would never end.
//
// A file is read when it has been left alone for a while, and what was read
// counts only if the file did not change meanwhile: it is never half-written, as
// far as that can be known without its writer's help. Changes are learned from
// the operating system, and by looking at everything now and then, because on
// network file systems, under load or after sleep the system does not tell all.
package file

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/source"
)

// Why a file is left out. A [SkippedError] may also hold an error of the
// operating system, such as fs.ErrPermission.
var (
	// ErrName says that no item can have the file's name: it is not UTF-8, too
	// long, or has a control character, a line separator or a backslash.
	ErrName = errors.New("its name cannot be that of an item")
	// ErrDuplicate says that another file is the item of that name already.
	ErrDuplicate = errors.New("another file is the item of that name")
	// ErrTooLarge says that a file is larger than Config.MaxSize.
	ErrTooLarge = errors.New("it is too large")
	// ErrLink says that a directory holds a symbolic link.
	ErrLink = errors.New("it is a symbolic link inside a directory")
	// ErrNotRegular says that something is neither a file nor a directory.
	ErrNotRegular = errors.New("it is neither a file nor a directory")
	// ErrBackup says that a directory is a backup: saving it would change it.
	ErrBackup = errors.New("it is a folder of backups")
	// ErrRestless says that a file is being written all the time. It is tried again.
	ErrRestless = errors.New("it changes all the time")
	// ErrOwnOutput says that a file is one of Config.Output.
	ErrOwnOutput = errors.New("it is what this program writes while it watches")
	// ErrUnsaved says that a file holds something else than what is saved of it.
	ErrUnsaved = errors.New("it changed, and that is not saved")
	// ErrNew says that nothing is saved of a file.
	ErrNew = errors.New("it is new, and not saved")
	// ErrTooMany says that there are more than 100,000 files; the others are left out.
	ErrTooMany = errors.New("there are too many files")
)

// SkippedError says that a file, or what a directory holds, is not kept as it
// stands. Its text does not tell the path, so that it can be logged.
type SkippedError struct {
	Path string // for the user's eyes
	Err  error
}

func (e *SkippedError) Error() string {
	cause := e.Err
	if pe, ok := errors.AsType[*fs.PathError](cause); ok {
		cause = pe.Err
	}
	return "file not kept: " + cause.Error()
}

func (e *SkippedError) Unwrap() error { return e.Err }

const (
	maxFiles = 100_000  // that one source follows
	maxBatch = 64 << 20 // bytes in one save
	maxDepth = 256      // of a path that is waited for

	// patience is how long a file may go on changing before two equal reads will do.
	patience = 10 * time.Second
	// coarse is what is added to Quiet where the file system keeps whole seconds, or
	// two of them: a change within them would not show.
	coarse = 2 * time.Second

	// How long a file must be left alone grows with each save that follows within soon
	// after the last, but for the first few, up to calm; after a rest without a save it
	// is as it was.
	fewSaves = 3
	calm     = 10 * time.Second
	soon     = 5 * time.Second
	rest     = time.Minute

	oftenSaves = 20 // without such a rest are told

	backoffFirst = time.Second // after a save that failed
	backoffMost  = time.Minute

	heartbeat = 30 * time.Second // how often the clock is looked at, at least
	jump      = 5 * time.Second  // a larger difference between two clocks is a sleep, or a clock that was set
)

// Config says what is watched, and how.
type Config struct {
	// Paths are the files and directories, at least one. Relative ones are relative
	// to the directory that New is called in.
	Paths []string
	// Exclude are paths that are left out with all below them: above all where the
	// backup itself is kept, because saving it would change it.
	Exclude []string
	// Output are files that are left out under whatever name: those that this program
	// writes its own log to, which saving them would make longer.
	Output []fs.FileInfo
	// Name, if not nil, gives the item of a file, whose path begins with one of
	// Paths, and "" for one to be left out. It must not change its mind.
	Name func(path string) string
	// Required is set in every change: a restore without these items is incomplete.
	Required bool
	// Removals says that the item of a file goes when the file is seen to go. Zero
	// keeps the last value, since a deletion is more often an accident. A directory
	// of Paths that goes as a whole, or is another one suddenly, removes nothing: it
	// is more likely a drive that was taken away.
	Removals bool
	// Poll is how often everything is looked at. Zero means 30 seconds.
	Poll time.Duration
	// Quiet is how long a file must have been left alone before it is read. Zero
	// means 200 milliseconds. For a file that is saved again within five seconds it doubles each
	// time after the first few, up to ten seconds, until it was not saved for a minute.
	Quiet time.Duration
	// Often, if not nil, is told at each save the path of a file that was saved twenty
	// times without a minute's rest, by the goroutine that calls Run.
	Often func(path string)
	// MaxSize is the size of the largest file that is read. Zero means 64 MiB, and
	// more is not possible.
	MaxSize int64
	// Report, if not nil, is told what is left out, once for each state of the file,
	// by the goroutine that calls Run. Nil means the Logger, without the path.
	Report func(*SkippedError)
	// Notifier is shared with other sources. Nil means one of its own.
	Notifier *Notifier
	// Logger gets what an operator would want to know. Nil discards it.
	Logger *slog.Logger
	// Now tells the time of the wall clock, which notices a sleep. Nil means time.Now.
	Now func() time.Time

	sys   system // nil but in tests
	batch int64  // maxBatch but in tests
}

// Source is a source of files. Its methods may be called concurrently.
type Source struct {
	cfg   Config
	paths []string // absolute, each once
}

var _ source.Source = (*Source)(nil)

// New returns a source of the files that the Config names. It does not look at
// them.
func New(cfg Config) (*Source, error) {
	s := &Source{cfg: cfg}
	c := &s.cfg
	switch {
	case len(c.Paths) == 0:
		return nil, errors.New("watching files: no path")
	case c.Poll < 0 || c.Quiet < 0:
		return nil, errors.New("watching files: a duration is less than zero")
	case c.MaxSize < 0 || c.MaxSize > seal.MaxValue:
		return nil, fmt.Errorf("watching files: the largest size must be 1 to %d bytes", seal.MaxValue)
	}
	if c.Poll == 0 {
		c.Poll = 30 * time.Second
	}
	if c.Quiet == 0 {
		c.Quiet = 200 * time.Millisecond
	}
	if c.MaxSize == 0 {
		c.MaxSize = seal.MaxValue
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.sys == nil {
		c.sys = disk{c.Notifier}
	}
	if c.batch == 0 {
		c.batch = maxBatch
	}
	for _, p := range c.Paths {
		abs, err := absolute(p)
		if err != nil {
			return nil, err
		}
		if c.Name == nil {
			if _, err := itemName(filepath.Base(abs), "."); err != nil {
				return nil, fmt.Errorf("watching files: %w", err)
			}
		}
		if !slices.Contains(s.paths, abs) {
			s.paths = append(s.paths, abs)
		}
	}
	c.Exclude = slices.Clone(c.Exclude)
	for i, p := range c.Exclude {
		abs, err := absolute(p)
		if err != nil {
			return nil, err
		}
		c.Exclude[i] = abs
	}
	return s, nil
}

func absolute(p string) (string, error) {
	if p == "" {
		return "", errors.New("watching files: an empty path")
	}
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", fmt.Errorf("watching files: %w", err)
	}
	if filepath.Dir(abs) == abs {
		return "", errors.New("watching files: the root of a file system has no name")
	}
	return abs, nil
}

// Run is as in [source.Source]. What cannot be kept is told through the Config and
// stops nothing else; it returns no error but ctx.Err().
func (s *Source) Run(ctx context.Context, save func(ctx context.Context, changes ...source.Change) error) error {
	r := newRun(s, save)
	defer r.close()
	for ctx.Err() == nil {
		r.hear(ctx)
		if !time.Now().Before(r.scanAt) {
			r.scan(ctx)
		}
		r.sleep(ctx, r.settle(ctx))
	}
	return ctx.Err()
}

// Once hands what is there now to save, and returns when all of it is kept or was
// told to be left out. It returns the first error of save, or ctx.Err().
func (s *Source) Once(ctx context.Context, save func(ctx context.Context, changes ...source.Change) error) error {
	var failed error
	r := newRun(s, func(ctx context.Context, changes ...source.Change) error {
		failed = save(ctx, changes...)
		return failed
	})
	defer r.close()
	for ctx.Err() == nil {
		r.hear(ctx)
		if !time.Now().Before(r.scanAt) {
			r.scan(ctx)
		}
		next := r.settle(ctx)
		if failed != nil || r.idle() {
			return failed
		}
		r.sleep(ctx, next)
	}
	return ctx.Err()
}

// Look looks at what is there now, saves nothing and reads no file, and returns what
// would be left out, by path: among it fs.ErrNotExist for a path of the Config that is
// not there. What shows only in reading, such as a file that changes all the time, it
// does not know. The Config's Report is not called.
func (s *Source) Look(ctx context.Context) ([]*SkippedError, error) { return s.look(ctx, nil) }

// Compare is Look, and compares each file with what is saved of it: by the size, and
// where that is the same by the SHA-256 of the bytes. A file that differs is in the
// result with ErrUnsaved, and one of which saved knows nothing with ErrNew. If ctx ends
// meanwhile, what was found until then comes with its error.
func (s *Source) Compare(ctx context.Context, saved func(item string) (size int64, sum [32]byte, ok bool)) ([]*SkippedError, error) {
	return s.look(ctx, saved)
}

func (s *Source) look(ctx context.Context, saved func(item string) (size int64, sum [32]byte, ok bool)) ([]*SkippedError, error) {
	var left []*SkippedError
	r := newRun(s, nil)
	r.Report = func(e *SkippedError) { left = append(left, e) }
	r.look = true
	r.scan(ctx)
	for _, root := range r.roots {
		if !root.there && r.told[root.path].sweep == 0 {
			r.say(root.path, fs.ErrNotExist)
		}
	}
	var alike []*track // of the size of what is saved
	for t := range r.due {
		if ctx.Err() != nil {
			break
		}
		_, err := r.sys.Read(t.root.homeDir(), t.root.inHome(t.rel), 0)
		switch {
		case t.seen.Size > r.MaxSize:
			r.say(t.path(), ErrTooLarge)
		case errors.Is(err, durable.ErrNotRegular) || errors.Is(err, fs.ErrNotExist): // It went away since.
		case err != nil && !errors.Is(err, durable.ErrTooLarge):
			r.say(t.path(), err)
		case saved != nil:
			switch size, _, ok := saved(t.name); {
			case !ok:
				r.say(t.path(), ErrNew)
			case size != t.seen.Size:
				r.say(t.path(), ErrUnsaved)
			default:
				alike = append(alike, t)
			}
		}
	}
	for _, t := range alike { // Last, since it takes longest.
		if ctx.Err() != nil {
			break
		}
		data, err := r.sys.Read(t.root.homeDir(), t.root.inHome(t.rel), r.MaxSize)
		if errors.Is(err, durable.ErrNotRegular) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if _, sum, _ := saved(t.name); err != nil {
			r.say(t.path(), err)
		} else if sum != sha256.Sum256(data) {
			r.say(t.path(), ErrUnsaved)
		}
	}
	slices.SortFunc(left, func(a, b *SkippedError) int { return cmp.Compare(a.Path, b.Path) })
	return left, ctx.Err()
}
