package file

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/satchel-backup/satchel/seal"
)

// marker is the file by which package store/folder knows a place that is not synced yet.
// Like the backups it is Satchel's own.
const marker = ".satchel-folder"

// root is one configured path and what is below it.
type root struct {
	path string // as configured, absolute
	real string // with its links resolved; "" until it was there once
	from string // where news of path itself come from, if not at real: links before its end resolved
	dir  bool   // a directory, else a file
	// home is the directory itself, or the file's, as it was when last looked at. If
	// it is another one now, what is missing in it was not deleted.
	home  stamp
	there bool // home was seen
	files map[string]*track
	gen   uint64 // counts scans of this root
}

func (t *root) homeDir() string {
	if t.dir {
		return t.real
	}
	return filepath.Dir(t.real)
}

// inHome returns the path of a file relative to homeDir.
func (t *root) inHome(rel string) string {
	if t.dir {
		return rel
	}
	return filepath.Base(t.real)
}

// said is what was told of something that is no track.
type said struct {
	stamp stamp
	sweep uint64
}

// tell says once for each state why something is left out. Scans keep it in mind
// for as long as it is there.
func (r *run) tell(path string, s stamp, err error) {
	before, ok := r.told[path]
	r.told[path] = said{s, r.sweep}
	if !ok || before.stamp != s {
		r.say(path, err)
	}
}

// scanSoon asks for a scan when things have calmed down, and seldom enough that
// scans take only a part of the time.
func (r *run) scanSoon(now time.Time) {
	at := now.Add(r.Quiet)
	if soonest := r.scanned.Add(20 * r.took); at.Before(soonest) {
		at = soonest
	}
	if at.Before(r.scanAt) {
		r.scanAt = at
	}
}

// scan looks at everything, and sees to it that there are events.
func (r *run) scan(ctx context.Context) {
	start := time.Now()
	r.sweep++
	if r.in == nil && !r.look {
		w, err := r.sys.Watch()
		if err != nil {
			r.noEvents(err)
		} else {
			r.in = openInbox(w)
		}
	}
	r.exclude = r.exclude[:0]
	for _, p := range r.Exclude {
		r.exclude = append(r.exclude, p)
		if real, err := r.sys.Resolve(p); err == nil && real != p {
			r.exclude = append(r.exclude, real)
		}
	}
	clear(r.needed)
	for _, root := range r.roots {
		r.scanRoot(ctx, root)
	}
	if ctx.Err() != nil {
		return
	}
	shared := r.unwatch(func(dir string) bool { return !r.needed[dir] })
	for path, s := range r.told {
		if s.sweep != r.sweep {
			delete(r.told, path)
		}
	}
	r.scanned = time.Now()
	r.took = r.scanned.Sub(start)
	r.scanAt = r.scanned.Add(max(r.Poll, 50*r.took))
	if shared {
		r.scanSoon(r.scanned)
	}
}

// noEvents says once that changes are found by looking only.
func (r *run) noEvents(err error) {
	if !r.deaf {
		r.deaf = true
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			err = pe.Err
		}
		r.Logger.Warn("no events for some files; they are looked at now and then", "err", err)
	}
}

// watch asks for the events of a directory, which s is a stamp of.
func (r *run) watch(dir string, s stamp) (added bool) {
	r.needed[dir] = true
	if r.in == nil {
		return false
	}
	if before, ok := r.watched[dir]; ok && before.same(s) {
		return false
	}
	if err := r.in.w.Add(dir); err != nil {
		delete(r.watched, dir)
		if !errors.Is(err, fs.ErrNotExist) {
			r.noEvents(err)
		}
		return false
	}
	r.watched[dir] = s
	return true
}

// unwatch ends the watches of some directories. One that only moved is still watched
// by its old name, and where its new one was asked for already, that was the same
// watch and ends too. It reports whether there are such names; the next scan asks
// for them again.
func (r *run) unwatch(gone func(dir string) bool) (shared bool) {
	type id struct{ dev, ino uint64 }
	ended := map[id]bool{}
	for dir, s := range r.watched {
		if gone(dir) {
			r.in.w.Remove(dir) // An error means that it has ended by itself.
			delete(r.watched, dir)
			ended[id{s.Dev, s.Ino}] = true
		}
	}
	for dir, s := range r.watched {
		if ended[id{s.Dev, s.Ino}] {
			r.watched[dir], shared = elsewhere, true
		}
	}
	return shared
}

// hear takes what the watcher told.
func (r *run) hear(ctx context.Context) {
	if r.in == nil {
		return
	}
	heard, lost, dead := r.in.take()
	now := time.Now()
	if dead != nil {
		// Once in a while watchers break. A new one is opened by the next scan.
		r.noEvents(dead)
		r.in.close()
		r.in = nil
		clear(r.watched)
	}
	if lost || dead != nil {
		r.scanSoon(now)
	}
	// Directories that went come first: they may be back under other names.
	went := map[string]bool{}
	for path, n := range heard {
		if _, ok := r.watched[path]; ok && n.op&(fsnotify.Remove|fsnotify.Rename) != 0 {
			went[path] = true
		}
	}
	if len(went) > 0 {
		r.unwatch(func(dir string) bool {
			for ; !went[dir]; dir = filepath.Dir(dir) {
				if filepath.Dir(dir) == dir {
					return false
				}
			}
			return true
		})
		r.scanSoon(now)
	}
	stale := map[*root]bool{}
	for path, n := range heard {
		for _, root := range r.roots {
			if r.news(ctx, root, path, n) {
				stale[root] = true
			}
		}
	}
	for _, root := range r.roots {
		if stale[root] {
			r.scanRoot(ctx, root)
		}
	}
}

// news takes what was told of a path into account, as far as it concerns a root.
// It reports whether the root must be looked at as a whole.
func (r *run) news(ctx context.Context, root *root, path string, n news) (stale bool) {
	if root.from != "" && within(path, root.from) {
		return true // The path itself, or what leads to it.
	}
	if root.real == "" {
		return false
	}
	if !root.dir {
		if filepath.Dir(path) != filepath.Dir(root.real) || !alike(filepath.Base(path), filepath.Base(root.real)) {
			return false
		}
		path = root.real
	}
	if path == root.real && root.dir {
		return n.op&(fsnotify.Remove|fsnotify.Rename) != 0
	}
	if !within(root.real, path) || filepath.Base(path) == marker || r.excluded(path) || inBackup(filepath.Dir(path)) {
		return false
	}
	rel, err := filepath.Rel(root.real, path)
	if err != nil {
		return false
	}
	s, err := r.sys.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if t := root.files[rel]; t != nil {
			r.vanish(t, n.at)
		}
	case err != nil: // The next scan says so.
	case s.Mode.IsDir() && root.dir:
		if _, ok := r.watched[path]; !ok || n.op.Has(fsnotify.Create) {
			r.scanTree(ctx, root, rel, s, nil)
		}
	case s.Mode.IsDir():
		return true
	default:
		r.consider(root, rel, s, n.at, n.op&(fsnotify.Create|fsnotify.Write) != 0)
	}
	return false
}

// scanRoot looks at a root and all below it.
func (r *run) scanRoot(ctx context.Context, root *root) {
	// What appears between a look and the watch is seen by the next look.
	for tries := 0; r.findRoot(root) && tries < maxDepth; tries++ {
	}
	if !root.there {
		return
	}
	home, err := r.sys.Stat(root.homeDir())
	if err != nil {
		return
	}
	// What is missing was deleted only if all else is as it was.
	deleted := root.home.same(home)
	root.home = home
	root.gen++
	now := time.Now()
	walked := &walk{listed: map[string]bool{}, kept: map[string]bool{}}
	if root.dir {
		r.scanTree(ctx, root, ".", home, walked)
	} else {
		r.watch(root.homeDir(), home)
		switch s, err := r.sys.Stat(root.real); {
		case errors.Is(err, fs.ErrNotExist):
			walked.listed["."] = true
		case inBackup(filepath.Dir(root.real)):
			walked.keep(".")
			r.tell(root.path, stamp{Mode: fs.ModeDir}, ErrBackup)
		case err != nil:
			r.tell(root.path, stamp{}, err)
		default:
			r.consider(root, ".", s, now, false)
		}
	}
	if ctx.Err() != nil {
		return
	}
	for _, t := range root.files {
		switch {
		case t.gen == root.gen || !walked.missed(t.rel):
		case deleted:
			r.vanish(t, now)
		default:
			r.drop(t)
		}
	}
}

// findRoot finds out what a root is and where, and watches for it to change. It
// reports whether it is worth looking again.
func (r *run) findRoot(root *root) (again bool) {
	real, err := r.sys.Resolve(root.path)
	var s stamp
	if err == nil {
		s, err = r.sys.Stat(real)
	}
	if err == nil && !s.Mode.IsDir() && !s.Mode.IsRegular() {
		r.tell(root.path, stamp{Mode: s.Mode.Type()}, ErrNotRegular)
		err = ErrNotRegular
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.tell(root.path, stamp{}, err)
	}
	if err != nil {
		// Wait at the nearest directory that is there.
		for dir := filepath.Dir(root.path); ; dir = filepath.Dir(dir) {
			if near, err := r.sys.Resolve(dir); err == nil {
				if s, err := r.sys.Stat(near); err == nil && s.Mode.IsDir() {
					root.from = filepath.Join(near, strings.TrimPrefix(root.path, dir))
					return r.watch(near, s)
				}
			}
			if filepath.Dir(dir) == dir {
				return false
			}
		}
	}
	if root.there && (root.real != real || root.dir != s.Mode.IsDir()) {
		root.home = elsewhere // Nothing in it was deleted.
	}
	root.real, root.dir, root.from = real, s.Mode.IsDir(), ""
	if real != root.path {
		if near, err := r.sys.Resolve(filepath.Dir(root.path)); err == nil {
			if s, err := r.sys.Stat(near); err == nil {
				root.from = filepath.Join(near, filepath.Base(root.path))
				r.watch(near, s)
			}
		}
	}
	if !root.there {
		root.there = true
		root.home, _ = r.sys.Stat(root.homeDir())
	}
	return false
}

// homeStands reports whether a root's directory is the one that it was.
func (r *run) homeStands(root *root) bool {
	s, err := r.sys.Stat(root.homeDir())
	return err == nil && s.Mode.IsDir() && s.same(root.home)
}

// driveStands reports whether the directory that a missing file was in is on the drive
// that the file was on.
func (r *run) driveStands(t *track) bool {
	for dir := filepath.Dir(t.path()); ; dir = filepath.Dir(dir) {
		s, err := r.sys.Stat(dir)
		if err == nil {
			return t.drive == 0 || s.Dev == t.drive
		}
		if !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir {
			return false
		}
	}
}

// walk is what a look at all of a directory found.
type walk struct {
	listed map[string]bool // directories that were listed, so that what is not there is not
	kept   map[string]bool // what could not be looked into
}

// missed reports whether a file that was not seen is not there.
func (w *walk) missed(rel string) bool {
	for d := rel; ; {
		if w.kept[d] {
			return false
		}
		if d == "." {
			return w.listed[d]
		}
		d = filepath.Dir(d)
		if w.listed[d] {
			return true
		}
	}
}

// scanTree looks at the directory rel of a root, which s is a stamp of, and at all
// below it. walked, if not nil, collects what it looked at.
func (r *run) scanTree(ctx context.Context, root *root, rel string, s stamp, walked *walk) {
	if ctx.Err() != nil {
		return
	}
	dir := filepath.Join(root.real, rel)
	if r.excluded(dir) {
		walked.keep(rel)
		return
	}
	if inBackup(dir) {
		walked.keep(rel)
		r.tell(dir, stamp{Mode: fs.ModeDir}, ErrBackup)
		return
	}
	// First the watch, then the look: what comes in between is seen twice, not never.
	r.watch(dir, s)
	list, err := r.sys.List(dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			walked.keep(rel)
			r.tell(dir, s, err)
		}
		return
	}
	if walked != nil {
		walked.listed[rel] = true
	}
	now := time.Now()
	for _, e := range list {
		below := filepath.Join(rel, e.Name)
		if e.Stamp.Mode.IsDir() {
			r.scanTree(ctx, root, below, e.Stamp, walked)
			continue
		}
		if !e.Stamp.Mode.IsRegular() {
			walked.keep(below)
		}
		if e.Name != marker && !r.excluded(filepath.Join(root.real, below)) {
			r.consider(root, below, e.Stamp, now, false)
		}
	}
}

func (w *walk) keep(rel string) {
	if w != nil {
		w.kept[rel] = true
	}
}

// consider takes note of how a file stands, or of what is no file.
func (r *run) consider(root *root, rel string, s stamp, at time.Time, forced bool) {
	path := filepath.Join(root.real, rel)
	switch {
	case s.Mode&fs.ModeSymlink != 0:
		r.tell(path, stamp{Mode: fs.ModeSymlink}, ErrLink)
		return
	case !s.Mode.IsRegular():
		r.tell(path, stamp{Mode: s.Mode.Type()}, ErrNotRegular)
		return
	case r.output(path, s):
		r.tell(path, stamp{}, ErrOwnOutput)
		return
	}
	t := root.files[rel]
	if t == nil {
		if t = r.newTrack(root, rel); t == nil {
			return
		}
	}
	t.gen = root.gen
	r.change(t, s, at, forced)
}

// newTrack begins to follow a file, or says why not and returns nil.
func (r *run) newTrack(root *root, rel string) *track {
	path := filepath.Join(root.real, rel)
	name, err := r.itemOf(root, rel)
	if err != nil {
		r.tell(path, stamp{}, err)
		return nil
	}
	if name == "" {
		return nil
	}
	if other := r.names[name]; other != nil {
		if _, err := r.sys.Stat(other.path()); !errors.Is(err, fs.ErrNotExist) {
			r.tell(path, stamp{}, ErrDuplicate)
			return nil
		}
		// The same file, perhaps, under a name that is the same to us.
		r.drop(other)
	}
	if len(r.names) >= maxFiles {
		r.tell(root.path, stamp{}, ErrTooMany)
		return nil
	}
	t := &track{root: root, rel: rel, name: name}
	root.files[rel], r.names[name] = t, t
	return t
}

func (r *run) itemOf(root *root, rel string) (string, error) {
	if r.Name == nil {
		return itemName(filepath.Base(root.path), rel)
	}
	name := r.Name(filepath.Join(root.path, rel))
	if name == "" {
		return "", nil
	}
	return name, checkName(name)
}

// output reports whether a file is one of Config.Output.
func (r *run) output(path string, s stamp) bool {
	for _, o := range r.Output {
		is := stampOf(o)
		if is.Ino != 0 && s.Ino != 0 {
			if is.same(s) {
				return true
			}
			continue
		}
		if info, err := os.Lstat(path); err == nil && os.SameFile(o, info) {
			return true
		}
	}
	return false
}

func (r *run) excluded(path string) bool {
	for _, e := range r.exclude {
		if within(e, path) {
			return true
		}
	}
	return false
}

// inBackup reports whether a directory is the folder of a backup, or in one.
func inBackup(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		if strings.HasPrefix(filepath.Base(dir), seal.FolderPrefix) {
			return true
		}
		if filepath.Dir(dir) == dir {
			return false
		}
	}
}

// within reports whether path is dir or below it.
func within(dir, path string) bool {
	rest, ok := strings.CutPrefix(path, dir)
	return ok && (rest == "" || strings.HasSuffix(dir, string(filepath.Separator)) || rest[0] == filepath.Separator)
}
