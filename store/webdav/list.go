package webdav

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/satchel-backup/satchel/store"
)

// List implements [store.Store].
func (s *Store) List(ctx context.Context, prefix string) ([]store.Object, error) {
	list, err := s.list(ctx, prefix)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, store.ErrUnreachable) && !errors.Is(err, store.ErrSignIn) {
			err = fmt.Errorf("%w: %w", store.ErrListing, err)
		}
		return nil, fmt.Errorf("listing objects: %w", err)
	}
	return list, nil
}

func (s *Store) list(ctx context.Context, prefix string) ([]store.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir := "" // the deepest folder that all names with the prefix are in
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir = prefix[:i]
		if store.CheckName(dir) != nil {
			return nil, s.standing(ctx) // No object has such a name.
		}
	}
	var last error
	for range 3 {
		l := lister{store: s, prefix: prefix}
		switch err := l.walk(ctx, dir); {
		case errors.Is(err, errAnswer):
			last = err // Some servers break off where a file goes away while they list.
		case err != nil:
			return nil, err
		case l.vanished:
			// A folder that went away may have been renamed, with objects in it that were
			// there all the time.
			last = errChanging
		default:
			s.sweep(ctx, l.old)
			return l.list, nil
		}
	}
	return nil, last
}

// lister is one walk over folders.
type lister struct {
	store  *Store
	prefix string

	list     []store.Object
	told     atomic.Int64 // entries, of all folders
	old      []string     // temporary files that a crash left
	vanished bool         // a folder went away during the walk
}

// walk lists what is in dir and below, one level after another. Its depth is bounded by
// the length of a name.
func (l *lister) walk(ctx context.Context, dir string) error {
	level, looked := []string{dir}, 0
	for len(level) > 0 {
		if looked += len(level); looked > maxFolders {
			return errors.New("too many folders")
		}
		answers, err := l.folders(ctx, level)
		if err != nil {
			return err
		}
		var next []string
		for i, a := range answers {
			switch {
			case a == nil && level[i] == dir:
				// Nothing has the prefix, if the place itself is there.
				l.vanished = dir == ""
				return l.store.standing(ctx)
			case a == nil:
				l.vanished = true
				return nil
			}
			if level[i] == "" && len(a.entries) == 0 { // Some do not list the marker.
				if err := l.store.standing(ctx); err != nil {
					return err
				}
			}
			if level[i] != "" && a.self.folder {
				l.store.saw(level[i])
			}
			next = append(next, l.take(level[i], a)...)
		}
		level = next
	}
	return nil
}

// folders asks for the listings of folders, several at a time. One that is not there is nil.
func (l *lister) folders(ctx context.Context, dirs []string) ([]*listing, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	answers := make([]*listing, len(dirs))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(walkers, len(dirs)) {
		wg.Go(func() {
			for i := range next {
				a, err := l.store.propfind(ctx, dirs[i], "1")
				if err != nil && !errors.Is(err, store.ErrNotExist) {
					cancel(err)
					continue
				}
				if err == nil && l.told.Add(int64(len(a.entries))) > maxEntries {
					cancel(errors.New("too many objects"))
					continue
				}
				if err == nil {
					answers[i] = a
				}
			}
		})
	}
	for i := range dirs {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	return answers, context.Cause(ctx)
}

// take keeps what is an object and returns the folders to look into.
func (l *lister) take(dir string, a *listing) (folders []string) {
	for _, e := range a.entries {
		name := e.name
		if dir != "" {
			name = dir + "/" + e.name
		}
		if store.CheckName(name) != nil {
			continue
		}
		if !e.folder && isTemp(name) {
			if !a.date.IsZero() && !e.modified.IsZero() && a.date.Sub(e.modified) > leftover {
				l.old = append(l.old, name)
			}
			continue
		}
		if e.folder {
			l.store.saw(name)
			if strings.HasPrefix(name+"/", l.prefix) || strings.HasPrefix(l.prefix, name+"/") {
				folders = append(folders, name)
			}
			continue
		}
		if strings.HasPrefix(name, l.prefix) {
			l.list = append(l.list, store.Object{Name: name, Size: e.size, Modified: e.modified, ID: name})
		}
	}
	return folders
}

// sweep removes temporary files that a crash left. Its failure harms nothing.
func (s *Store) sweep(ctx context.Context, names []string) {
	for _, name := range names[:min(len(names), sweepMost)] {
		if _, err := s.do(ctx, http.MethodDelete, name, nil, nil, 0); err != nil {
			return
		}
	}
}
