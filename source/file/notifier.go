package file

import (
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// Notifier is one watcher of the operating system that many sources share, because a user
// may have few of them (of Linux's inotify 128, as a rule). It is there while one of the
// sources runs. The zero value is ready, and safe for concurrent use.
//
// Where one directory has two names, as by a bind mount, and two sources watch it under
// one each, only one of them hears of changes; the other finds them by looking.
type Notifier struct {
	mu    sync.Mutex
	w     *fsnotify.Watcher         // nil while there are no parts; guarded by mu
	parts map[*part]bool            // guarded by mu
	dirs  map[string]map[*part]bool // who watches a directory; guarded by mu
}

// part is what one source has of a Notifier.
type part struct {
	events chan fsnotify.Event
	errors chan error
	done   chan struct{} // closed by Close: nobody reads any more
}

// watch returns a watcher for one source.
func (n *Notifier) watch() (*watcher, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.w == nil {
		w, err := fsnotify.NewWatcher()
		if err != nil {
			return nil, err
		}
		n.w, n.parts, n.dirs = w, map[*part]bool{}, map[string]map[*part]bool{}
		go n.deliver(w) // ends when w is closed
	}
	p := &part{events: make(chan fsnotify.Event), errors: make(chan error), done: make(chan struct{})}
	n.parts[p] = true
	w := n.w
	return &watcher{
		Events: p.events, Errors: p.errors,
		Add:    func(dir string) error { return n.add(w, p, dir) },
		Remove: func(dir string) error { return n.remove(w, p, dir) },
		Close:  func() error { return n.leave(w, p) },
	}, nil
}

func (n *Notifier) add(w *fsnotify.Watcher, p *part, dir string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.w != w {
		return fsnotify.ErrClosed
	}
	dir = filepath.Clean(dir)
	if err := w.Add(dir); err != nil { // Again is fine, and needed where it is another directory now.
		return err
	}
	if n.dirs[dir] == nil {
		n.dirs[dir] = map[*part]bool{}
	}
	n.dirs[dir][p] = true
	return nil
}

func (n *Notifier) remove(w *fsnotify.Watcher, p *part, dir string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.w != w {
		return fsnotify.ErrClosed
	}
	return n.drop(p, filepath.Clean(dir))
}

// drop ends the watching of a directory by a part. The caller holds mu.
func (n *Notifier) drop(p *part, dir string) error {
	delete(n.dirs[dir], p)
	if len(n.dirs[dir]) > 0 {
		return nil
	}
	delete(n.dirs, dir)
	return n.w.Remove(dir)
}

// leave ends a part, and the last one the watcher.
func (n *Notifier) leave(w *fsnotify.Watcher, p *part) error {
	n.mu.Lock()
	if n.w != w || !n.parts[p] {
		n.mu.Unlock()
		return nil
	}
	close(p.done)
	delete(n.parts, p)
	for dir, parts := range n.dirs {
		if parts[p] {
			n.drop(p, dir) // An error means that it has ended by itself.
		}
	}
	last := len(n.parts) == 0
	if last {
		n.w = nil
	}
	n.mu.Unlock()
	if last {
		return w.Close()
	}
	return nil
}

// deliver brings what w tells to the parts that it concerns, until w ends.
func (n *Notifier) deliver(w *fsnotify.Watcher) {
	for {
		select {
		case e, ok := <-w.Events:
			if !ok {
				n.end(w)
				return
			}
			name := filepath.Clean(e.Name)
			for _, p := range n.watching(w, filepath.Dir(name), name) {
				select {
				case p.events <- e:
				case <-p.done:
				}
			}
		case err, ok := <-w.Errors:
			if !ok {
				n.end(w)
				return
			}
			for _, p := range n.watching(w) {
				select {
				case p.errors <- err:
				case <-p.done:
				}
			}
		}
	}
}

// watching returns the parts that watch one of the directories, or all if none is named.
func (n *Notifier) watching(w *fsnotify.Watcher, dirs ...string) []*part {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.w != w {
		return nil
	}
	found := map[*part]bool{}
	if len(dirs) == 0 {
		found = n.parts
	}
	for _, dir := range dirs {
		for p := range n.dirs[dir] {
			found[p] = true
		}
	}
	list := make([]*part, 0, len(found))
	for p := range found {
		list = append(list, p)
	}
	return list
}

// end tells the parts that w ended by itself; the next watcher is a new one.
func (n *Notifier) end(w *fsnotify.Watcher) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.w != w {
		return
	}
	n.w = nil
	for p := range n.parts {
		close(p.events)
	}
}
