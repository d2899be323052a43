package file_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/source"
	"github.com/satchel-backup/satchel/source/file"
)

// world is a file system in memory with events, for tests in a bubble.
type world struct {
	mu      sync.Mutex
	nodes   map[string]*node
	ticks   int64
	watched map[string]uint64 // inodes
	watcher *file.Watcher     // open, or nil
	events  chan fsnotify.Event
	errs    chan error
	opened  int // watchers
	reads   int
	lists   int

	noInode bool                  // as on Windows
	silent  bool                  // no events come
	noWatch error                 // Watch fails
	onRead  func(path string)     // after the bytes were read
	fail    map[string]error      // what reading or listing a path gives
	swap    func(b []byte) []byte // changes what a read returns
}

type node struct {
	stamp file.Stamp
	data  []byte
	link  string
}

func newWorld() *world {
	w := &world{nodes: map[string]*node{}, watched: map[string]uint64{}, fail: map[string]error{}}
	w.mkdir("/")
	return w
}

func (w *world) tick() int64 { w.ticks++; return w.ticks*1e6 + 1 }

func (w *world) emit(path string, op fsnotify.Op) {
	_, above := w.watched[filepath.Dir(path)]
	_, itself := w.watched[path]
	if !w.silent && w.watcher != nil && (above || itself && op.Has(fsnotify.Remove)) {
		w.events <- fsnotify.Event{Name: path, Op: op}
	}
}

func (w *world) count(n *int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *n
}

func (w *world) change(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

func (w *world) put(path string, n *node) {
	w.change(func() {
		now := w.tick()
		n.stamp.Modified, n.stamp.Changed, n.stamp.Ino, n.stamp.Dev = now, now, uint64(now), 1
		n.stamp.Size = int64(len(n.data))
		if w.noInode {
			n.stamp.Changed, n.stamp.Ino, n.stamp.Dev = 0, 0, 0
		}
		w.nodes[path] = n
		w.emit(path, fsnotify.Create)
	})
}

func (w *world) mkdir(path string) {
	w.put(path, &node{stamp: file.Stamp{Mode: fs.ModeDir | 0o755}})
}

// replace puts a new file where another may have been, as a rename does.
func (w *world) replace(path, data string) {
	w.put(path, &node{stamp: file.Stamp{Mode: 0o644}, data: []byte(data)})
}

// write changes a file in place.
func (w *world) write(path, data string) {
	w.change(func() {
		n := w.nodes[path]
		n.data = []byte(data)
		now := w.tick()
		n.stamp.Modified, n.stamp.Changed, n.stamp.Size = now, now, int64(len(data))
		w.emit(path, fsnotify.Write)
	})
}

func (w *world) remove(path string) {
	w.change(func() {
		for _, p := range slices.Backward(slices.Sorted(maps.Keys(w.nodes))) {
			if p == path || strings.HasPrefix(p, path+"/") {
				delete(w.nodes, p)
				w.emit(p, fsnotify.Remove)
				delete(w.watched, p)
			}
		}
	})
}

func (w *world) find(op, path string) (*node, error) {
	if n := w.nodes[path]; n != nil {
		return n, nil
	}
	return nil, &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist}
}

func (w *world) Resolve(path string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.nodes[path]; n != nil && n.link != "" {
		path = n.link
	}
	_, err := w.find("readlink", path)
	return path, err
}

func (w *world) Stat(path string) (file.Stamp, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.find("stat", path)
	if err != nil {
		return file.Stamp{}, err
	}
	return n.stamp, nil
}

func (w *world) List(dir string) ([]file.Entry, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lists++
	if err := w.fail[dir]; err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	if _, err := w.find("open", dir); err != nil {
		return nil, err
	}
	var list []file.Entry
	for _, p := range slices.Sorted(maps.Keys(w.nodes)) {
		if filepath.Dir(p) == dir && p != dir {
			list = append(list, file.Entry{Name: filepath.Base(p), Stamp: w.nodes[p].stamp})
		}
	}
	return list, nil
}

func (w *world) Read(home, rel string, limit int64) ([]byte, error) {
	path := filepath.Join(home, rel)
	w.mu.Lock()
	w.reads++
	onRead := w.onRead
	n, err := w.find("open", path)
	if err == nil && w.fail[path] != nil {
		err = &fs.PathError{Op: "open", Path: path, Err: w.fail[path]}
	}
	if err == nil && int64(len(n.data)) > limit {
		err = durable.ErrTooLarge
	}
	var data []byte
	if err == nil {
		data = slices.Clone(n.data)
		if w.swap != nil {
			data = w.swap(data)
		}
	}
	w.mu.Unlock()
	if onRead != nil {
		onRead(path)
	}
	return data, err
}

func (w *world) Watch() (*file.Watcher, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.noWatch != nil {
		return nil, w.noWatch
	}
	w.opened++
	w.events, w.errs = make(chan fsnotify.Event, 1<<16), make(chan error)
	w.watcher = &file.Watcher{
		Events: w.events, Errors: w.errs,
		Add: func(dir string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			n, err := w.find("watch", dir)
			if err != nil {
				return err
			}
			for p, ino := range w.watched {
				if p != dir && ino == n.stamp.Ino && ino != 0 {
					return nil // inotify knows one name of a directory, fsnotify the first.
				}
			}
			w.watched[dir] = n.stamp.Ino
			return nil
		},
		Remove: func(dir string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.watched, dir)
			return nil
		},
		Close: func() error {
			w.mu.Lock()
			defer w.mu.Unlock()
			clear(w.watched)
			w.watcher = nil
			return nil
		},
	}
	return w.watcher, nil
}

// trial is a source at work in a world, with what it saved and said.
type trial struct {
	*world
	t *testing.T

	mu      sync.Mutex
	calls   []map[string]string // values by item; removed ones are "-"
	said    []*file.SkippedError
	saveErr error
	onSave  func(ctx context.Context)
}

func (tr *trial) save(ctx context.Context, changes ...source.Change) error {
	call := map[string]string{}
	for _, c := range changes {
		if _, ok := call[c.Name]; ok {
			tr.t.Errorf("%s is named twice in one call", c.Name)
		}
		call[c.Name] = string(c.Value)
		if c.Remove {
			call[c.Name] = "-"
		}
	}
	tr.mu.Lock()
	tr.calls = append(tr.calls, call)
	err, onSave := tr.saveErr, tr.onSave
	tr.onSave = nil
	tr.mu.Unlock()
	if onSave != nil {
		onSave(ctx)
	}
	return err
}

// failing makes save return err from now on.
func (tr *trial) failing(err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.saveErr = err
}

// meanwhile makes the next save do something.
func (tr *trial) meanwhile(do func(ctx context.Context)) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.onSave = do
}

// take returns and forgets the calls so far.
func (tr *trial) take() []map[string]string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	calls := tr.calls
	tr.calls = nil
	return calls
}

// heard returns and forgets what was said.
func (tr *trial) heard() []*file.SkippedError {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	said := tr.said
	tr.said = nil
	return said
}

func (tr *trial) wait(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

// want waits a while and compares the calls in it.
func (tr *trial) want(d time.Duration, want ...map[string]string) {
	tr.t.Helper()
	tr.wait(d)
	got := tr.take()
	if len(got) != len(want) {
		tr.t.Fatalf("got %d calls %v, want %d: %v", len(got), got, len(want), want)
	}
	for i := range want {
		if !maps.Equal(got[i], want[i]) {
			tr.t.Fatalf("call %d: got %v, want %v", i, got[i], want[i])
		}
	}
}

// wantSaid compares what was said since the last call.
func (tr *trial) wantSaid(path string, errs ...error) {
	tr.t.Helper()
	got := tr.heard()
	if len(got) != len(errs) {
		tr.t.Fatalf("said %v, want %v", got, errs)
	}
	for i, err := range errs {
		if got[i].Path != path || !errors.Is(got[i], err) || strings.Contains(got[i].Error(), path) {
			tr.t.Fatalf("said %q of %s, want %v of %s", got[i], got[i].Path, err, path)
		}
	}
}

type items = map[string]string

// try runs a test in a bubble. prepare sets the world up before the source runs.
func try(t *testing.T, cfg file.Config, prepare func(w *world), test func(tr *trial)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.mkdir("/d")
		if prepare != nil {
			prepare(w)
		}
		tr := &trial{world: w, t: t}
		cfg.Report = func(e *file.SkippedError) {
			tr.mu.Lock()
			defer tr.mu.Unlock()
			tr.said = append(tr.said, e)
		}
		if cfg.Paths == nil {
			cfg.Paths = []string{"/d"}
		}
		src, err := file.NewOn(w, cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- src.Run(ctx, tr.save) }()
		// A failed test must not leave the bubble waiting.
		defer func() {
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v, want %v", err, context.Canceled)
			}
			if w.watcher != nil {
				t.Error("the watcher was left open")
			}
		}()
		synctest.Wait()
		test(tr)
	})
}
