package webdav

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"path"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
)

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	err := store.CheckPut(name, data)
	if err == nil && isTemp(name) {
		err = errors.New("the name is one of those for temporary files")
	}
	if err == nil {
		err = s.put(ctx, name, data)
	}
	if err != nil {
		return fmt.Errorf("putting object: %w", err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, name string, data []byte) error {
	done, err := s.turns.Take(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	if there, err := s.compare(ctx, name, data); there || err != nil {
		return err
	}
	dir := path.Dir(name)
	var last error
	for range 3 { // A folder may be gone that was seen before.
		if err := s.folders(ctx, dir); err != nil {
			return err
		}
		temp := path.Join(dir, tempPrefix+rand.Text()+tempSuffix)
		a, err := s.do(ctx, http.MethodPut, temp, nil, data, 0)
		switch {
		case err != nil:
			s.forget() // With 500 nginx says that the folder is gone.
			return err
		case a.Status == http.StatusNotFound || a.Status == http.StatusConflict:
			s.forget()
			last = refused(a)
			continue
		case a.Status/100 != 2, a.Status == http.StatusOK && isPage(a):
			return refused(a)
		}
		// A crash here leaves a temporary file, which a later listing removes. That it
		// was written is told by MOVE: no page for people says "created" to it.
		if a, err = s.move(ctx, temp, name); err != nil {
			return err
		}
		if a.Status == http.StatusCreated || a.Status == http.StatusNoContent {
			return nil
		}
		// An answer was lost and the second of two equal requests tells nothing, or
		// another process was faster.
		there, err := s.compare(ctx, name, data)
		s.do(ctx, http.MethodDelete, temp, nil, nil, 0) // Else a later listing does.
		switch {
		case there || err != nil:
			return err
		case a.Status == http.StatusPreconditionFailed:
			return errStands
		case a.Status != http.StatusNotFound && a.Status != http.StatusConflict && a.Status != http.StatusForbidden:
			return refused(a)
		}
		s.forget() // Servers say each of these three where a folder is gone.
		last = refused(a)
	}
	return last
}

// move gives temp its name. Some servers want a whole address for the destination
// (Apache), and others refuse one where a proxy before them speaks TLS or another name
// than they (nginx, rclone): what worked is kept.
func (s *Store) move(ctx context.Context, temp, name string) (*web.Answer, error) {
	to := func(byPath bool) (*web.Answer, error) {
		destination := s.path(name)
		if !byPath {
			destination = s.base.Scheme + "://" + s.base.Host + destination
		}
		return s.do(ctx, "MOVE", temp, http.Header{"Destination": {destination}, "Overwrite": {"F"}}, nil, 0)
	}
	byPath := s.byPath.Load()
	a, err := to(byPath)
	later, _ := errors.AsType[*web.LaterError](err)
	if err == nil && a.Status == http.StatusBadRequest || later != nil && later.Status == http.StatusBadGateway {
		if other, err := to(!byPath); err == nil && other.Status != http.StatusBadRequest {
			s.byPath.Store(!byPath)
			return other, nil
		}
	}
	return a, err
}

// compare reports whether an object of these bytes is there. One of other bytes is
// store.ErrExist.
func (s *Store) compare(ctx context.Context, name string, data []byte) (bool, error) {
	// With the hash that is looked for, half an answer is not taken for another object.
	_, err := s.get(ctx, name, store.Sum(data), int64(len(data)))
	switch {
	case errors.Is(err, store.ErrNotExist):
		return false, nil
	case errors.Is(err, store.ErrTooLarge), errors.Is(err, store.ErrDamaged):
		return false, store.ErrExist
	}
	return err == nil, err
}

// folders sees to it that the folder dir is there, "." for the store's own.
func (s *Store) folders(ctx context.Context, dir string) error {
	select {
	case <-s.making:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { s.making <- struct{}{} }()
	if s.known(dir) {
		return nil
	}
	// Nothing is made where the disk went away. Where the folder above was seen, the
	// server itself refuses then.
	if s.known(path.Dir(dir)) {
		a, err := s.do(ctx, "MKCOL", dir+"/", nil, nil, 0)
		if err != nil {
			return err
		}
		if a.Status == http.StatusCreated {
			s.saw(dir)
			return nil
		}
	}
	if err := s.standing(ctx); err != nil || dir == "." {
		return err
	}
	return s.mkcol(ctx, dir)
}

func (s *Store) mkcol(ctx context.Context, dir string) error {
	try := func() (*web.Answer, error) { return s.do(ctx, "MKCOL", dir+"/", nil, nil, 0) }
	a, err := try()
	if up := path.Dir(dir); err == nil && up != "." && (a.Status == http.StatusConflict || a.Status == http.StatusNotFound) {
		if err := s.mkcol(ctx, up); err != nil {
			return err
		}
		a, err = try()
	}
	if err != nil {
		return err
	}
	if a.Status != http.StatusCreated {
		// That it exists is said with 405 by the standard, and otherwise by some.
		e, err := s.stat(ctx, dir)
		if errors.Is(err, store.ErrNotExist) {
			return refused(a)
		}
		if err != nil {
			return err
		}
		if !e.folder {
			return errStands
		}
	}
	s.saw(dir)
	return nil
}

// known reports whether the folder was seen. That it is still there, the server says.
func (s *Store) known(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[dir]
}

func (s *Store) saw(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) == maxFolders {
		clear(s.seen)
	}
	s.seen[dir] = true
}

// forget makes the next Put look for folders again.
func (s *Store) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.seen)
}
