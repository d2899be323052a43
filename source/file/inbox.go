package file

import (
	"errors"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// maxNews is how many changed paths are remembered one by one. Beyond that it is
// cheaper to look at everything.
const maxNews = 1 << 14

// news is what was heard of one path.
type news struct {
	at time.Time // last
	op fsnotify.Op
}

// inbox collects what a watcher tells, so that no event waits while a file is
// read or saved. Its goroutine is the watcher's only reader and ends with it.
type inbox struct {
	w    *watcher
	wake chan struct{} // holds one element if there is something to take
	stop chan struct{}
	done chan struct{}

	mu   sync.Mutex
	news map[string]news
	lost bool  // events were lost
	dead error // the watcher is of no more use
}

func openInbox(w *watcher) *inbox {
	in := &inbox{w: w, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}), news: map[string]news{}}
	go in.collect()
	return in
}

// close ends the watcher and waits for the goroutine. The watcher may have to get
// rid of an event before it can end, so the goroutine goes on until it has.
func (in *inbox) close() {
	in.w.Close()
	close(in.stop)
	<-in.done
}

func (in *inbox) collect() {
	defer close(in.done)
	for {
		select {
		case <-in.stop:
			return
		case ev, ok := <-in.w.Events:
			if !ok {
				in.put("", news{}, fsnotify.ErrClosed)
				return
			}
			if ev.Name != "" {
				in.put(filepath.Clean(ev.Name), news{time.Now(), ev.Op}, nil)
			}
		case err, ok := <-in.w.Errors:
			if !ok {
				in.put("", news{}, fsnotify.ErrClosed)
				return
			}
			if err != nil {
				in.put("", news{}, err)
			}
		}
	}
}

// put remembers news of a path, or an error of the watcher.
func (in *inbox) put(path string, n news, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case errors.Is(err, fsnotify.ErrEventOverflow):
		in.lost = true
	case err != nil:
		if in.dead == nil {
			in.dead = err
		}
	case in.lost: // All will be looked at.
	default:
		n.op |= in.news[path].op
		in.news[path] = n
		in.lost = len(in.news) > maxNews
	}
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// take returns and forgets what came since the last call.
func (in *inbox) take() (n map[string]news, lost bool, dead error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	n, lost, dead = in.news, in.lost, in.dead
	in.news, in.lost = map[string]news{}, false
	return n, lost, dead
}
