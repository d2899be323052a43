package file_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/source/file"
)

// Sources that share one watcher hear of their own files, also where they watch the same
// ones, and whichever of them ends.
func TestNotifier(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	both, own := filepath.Join(dir, "both"), filepath.Join(dir, "own")
	must(t, os.Mkdir(both, 0o700))
	must(t, os.Mkdir(own, 0o700))
	put(t, filepath.Join(both, "a"), "1")
	put(t, filepath.Join(own, "b"), "1")
	shared := &file.Notifier{}
	var first *real
	t.Run("a while", func(t *testing.T) {
		first = watch(t, file.Config{Paths: []string{both}, Notifier: shared}, items{"file/both/a": "1"})
		second := watch(t, file.Config{Paths: []string{both, own}, Notifier: shared}, items{"file/both/a": "1", "file/own/b": "1"})
		put(t, filepath.Join(both, "a"), "2")
		first.want(items{"file/both/a": "2"})
		second.want(items{"file/both/a": "2"})
		put(t, filepath.Join(own, "b"), "2")
		second.want(items{"file/own/b": "2"})
		// A directory that is replaced, and one that comes.
		must(t, os.Rename(both, filepath.Join(dir, "old")))
		must(t, os.MkdirAll(filepath.Join(both, "sub"), 0o700))
		put(t, filepath.Join(both, "a"), "3")
		put(t, filepath.Join(both, "sub", "c"), "3")
		want := items{"file/both/a": "3", "file/both/sub/c": "3"}
		first.want(want)
		second.want(want)
	})
	// Both have ended, and with them the watcher: another one begins.
	third := watch(t, file.Config{Paths: []string{both}, Notifier: shared}, items{"file/both/a": "3", "file/both/sub/c": "3"})
	put(t, filepath.Join(both, "sub", "c"), "4")
	third.want(items{"file/both/sub/c": "4"})
	if len(first.calls) > 0 {
		t.Error("a source that has ended heard something")
	}
}

// A source that does not listen any more keeps nothing from the others, once it has ended.
func TestNotifierDeaf(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	shared := &file.Notifier{}
	deaf, err := file.WatchShared(shared)
	must(t, err)
	hears, err := file.WatchShared(shared)
	must(t, err)
	must(t, deaf.Add(dir))
	must(t, hears.Add(dir))
	put(t, filepath.Join(dir, "f"), "1") // Somebody has to hear of it first.
	time.Sleep(20 * time.Millisecond)
	must(t, deaf.Close())
	late := time.After(30 * time.Second)
	for {
		select {
		case e := <-hears.Events:
			if filepath.Base(e.Name) == "f" {
				must(t, hears.Close())
				return
			}
		case <-late:
			t.Fatal("it heard nothing")
		}
	}
}

// One of two sources ends while the other is told of many changes.
func TestNotifierLeave(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	put(t, filepath.Join(dir, "f"), "0")
	shared := &file.Notifier{}
	stays := watch(t, file.Config{Paths: []string{dir}, Notifier: shared}, items{"file/d/f": "0"})
	var writing sync.WaitGroup
	stop := make(chan struct{})
	writing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				os.WriteFile(filepath.Join(dir, "g"), fmt.Append(nil, i), 0o600)
			}
		}
	})
	for range 3 {
		t.Run("leaves", func(t *testing.T) {
			watch(t, file.Config{Paths: []string{filepath.Join(dir, "f")}, Notifier: shared}, items{"file/f": "0"})
		})
	}
	close(stop)
	writing.Wait()
	put(t, filepath.Join(dir, "g"), "end")
	stays.want(items{"file/d/g": "end"})
}
