package file_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/source"
	"github.com/satchel-backup/satchel/source/file"
)

// A change of a source is one of a backup.
var _ = satchel.Change(source.Change{})

const ms = time.Millisecond

var errSave = errors.New("no")

func TestStart(t *testing.T) {
	try(t, file.Config{Paths: []string{"/d", "/one", "/link"}}, func(w *world) {
		w.mkdir("/d/sub")
		w.replace("/d/a", "1")
		w.replace("/d/sub/b", "2")
		w.replace("/one", "3")
		w.replace("/other", "4")
		w.replace("/target", "5")
		w.put("/link", &node{stamp: file.Stamp{Mode: fs.ModeSymlink}, link: "/target"})
	}, func(tr *trial) {
		tr.want(199 * ms)
		tr.want(2*ms, items{"file/d/a": "1", "file/d/sub/b": "2", "file/one": "3", "file/link": "5"})
		tr.write("/target", "6")
		tr.write("/one", "7")
		tr.write("/other", "8")
		tr.want(201*ms, items{"file/link": "6", "file/one": "7"})
		tr.want(time.Hour) // and then nothing
		tr.wantSaid("")
	})
}

func TestRequired(t *testing.T) {
	try(t, file.Config{Required: true}, func(w *world) { w.replace("/d/a", "1") }, func(tr *trial) { tr.want(time.Second, items{"file/d/a": "1"}) })
	src, err := file.NewOn(newWorld(), file.Config{Paths: []string{"/"}})
	if err == nil {
		t.Errorf("New took the root of a file system: %v", src)
	}
	for _, cfg := range []file.Config{{}, {Paths: []string{""}}, {Paths: []string{"/d"}, MaxSize: seal.MaxValue + 1}, {Paths: []string{"/d"}, Quiet: -1}, {Paths: []string{"/d"}, Exclude: []string{""}}, {Paths: []string{"/a\nb"}}} {
		if _, err := file.New(cfg); err == nil {
			t.Errorf("New took %+v", cfg)
		}
	}
}

func TestPieces(t *testing.T) {
	try(t, file.Config{}, nil, func(tr *trial) {
		tr.replace("/d/a", "")
		whole := ""
		for i := range 20 {
			whole += fmt.Sprint(i)
			tr.write("/d/a", whole)
			tr.wait(150 * ms)
		}
		if tr.count(&tr.reads) != 0 {
			t.Errorf("the file was read %d times before it was quiet", tr.count(&tr.reads))
		}
		tr.want(51*ms, items{"file/d/a": whole})
	})
}

// Without events, only looks can tell that a file is still being written.
func TestPiecesUnheard(t *testing.T) {
	try(t, file.Config{Poll: time.Second}, func(w *world) { w.silent = true }, func(tr *trial) {
		tr.wait(990 * ms)
		tr.replace("/d/a", "")
		whole := ""
		for i := range 20 {
			whole += fmt.Sprint(i)
			tr.write("/d/a", whole)
			tr.wait(150 * ms)
		}
		if tr.count(&tr.reads) != 0 {
			t.Errorf("the file was read %d times before it was quiet", tr.count(&tr.reads))
		}
		tr.want(400*ms, items{"file/d/a": whole})
	})
}

func TestChangedWhileRead(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"written":  func(w *world) { w.write("/d/a", "22") },
		"replaced": func(w *world) { w.replace("/d/a", "22") },
		"longer":   func(w *world) { w.write("/d/a", "222") },
		"inode only": func(w *world) {
			w.change(func() { w.nodes["/d/a"].stamp.Ino++; w.nodes["/d/a"].data = []byte("22") })
		},
		"time only": func(w *world) {
			w.change(func() { w.nodes["/d/a"].stamp.Modified++; w.nodes["/d/a"].data = []byte("22") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			try(t, file.Config{}, func(w *world) {
				w.silent = true
				w.replace("/d/a", "11")
				w.onRead = func(string) {
					w.change(func() { w.onRead = nil })
					change(w)
				}
			}, func(tr *trial) {
				tr.want(300 * ms)
				want := "22"
				if name == "longer" {
					want = "222"
				}
				tr.want(200*ms, items{"file/d/a": want})
			})
		})
	}
	t.Run("deleted", func(t *testing.T) {
		try(t, file.Config{Removals: true}, func(w *world) {
			w.replace("/d/a", "11")
			w.onRead = func(string) { w.remove("/d/a") }
		}, func(tr *trial) { tr.want(time.Minute) })
	})
	t.Run("torn", func(t *testing.T) {
		// Fewer bytes than the size, though no stamp tells.
		try(t, file.Config{}, func(w *world) {
			w.replace("/d/a", "11")
			w.swap = func(b []byte) []byte { w.swap = nil; return b[:1] }
		}, func(tr *trial) { tr.want(time.Second, items{"file/d/a": "11"}) })
	})
	t.Run("always torn", func(t *testing.T) {
		try(t, file.Config{}, func(w *world) {
			w.replace("/d/a", "11")
			w.swap = func(b []byte) []byte { return b[:1] }
		}, func(tr *trial) {
			tr.want(10 * time.Minute)
			if n := tr.count(&tr.reads); n > 100 {
				t.Errorf("%d reads in ten minutes", n)
			}
			tr.wantSaid("/d/a", file.ErrRestless)
			tr.change(func() { tr.swap = nil })
			tr.want(31*time.Second, items{"file/d/a": "11"})
		})
	})
}

func TestNeverQuiet(t *testing.T) {
	churn := func(tr *trial, d time.Duration, data func(i int) string) {
		for i := range int(d / (100 * ms)) {
			tr.write("/d/a", data(i))
			tr.wait(100 * ms)
		}
	}
	t.Run("same bytes", func(t *testing.T) {
		try(t, file.Config{}, nil, func(tr *trial) {
			tr.replace("/d/a", "")
			churn(tr, file.Patience-200*ms, func(int) string { return "same" })
			tr.want(0)
			churn(tr, time.Second, func(int) string { return "same" })
			tr.want(0, items{"file/d/a": "same"})
			tr.wantSaid("")
		})
	})
	t.Run("other bytes", func(t *testing.T) {
		try(t, file.Config{}, nil, func(tr *trial) {
			tr.replace("/d/a", "")
			n := 0
			tr.change(func() { tr.swap = func([]byte) []byte { n++; return []byte(fmt.Sprint(n)) } })
			churn(tr, 3*file.Patience, func(i int) string { return fmt.Sprint(i) })
			tr.want(0)
			tr.wantSaid("/d/a", file.ErrRestless)
			if tr.count(&tr.reads) > 8 {
				t.Errorf("%d reads", tr.count(&tr.reads))
			}
			tr.change(func() { tr.swap = nil })
			tr.want(time.Second, items{"file/d/a": fmt.Sprint(299)})
		})
	})
}

// What is written at each save, such as a log of the saves, does not fill the places.
func TestOften(t *testing.T) {
	saves := 0
	var often []string
	try(t, file.Config{Often: func(path string) { often = append(often, path) }}, nil, func(tr *trial) {
		tr.replace("/d/log", "")
		for i := range 600 { // Ten minutes, each save noticed at once.
			tr.write("/d/log", fmt.Sprint(i))
			tr.wait(time.Second)
			saves += len(tr.take())
		}
		if saves < 30 || saves > 70 {
			t.Errorf("%d saves in ten minutes", saves)
		}
		if len(often) == 0 || often[0] != "/d/log" {
			t.Errorf("it is not told: %q", often)
		}
		tr.replace("/d/a", "1")
		tr.wait(time.Second)
		if !slices.ContainsFunc(tr.take(), func(i map[string]string) bool { return i["file/d/a"] == "1" }) {
			t.Error("another file waits")
		}
		tr.wait(90 * time.Second)
		tr.take()
		tr.write("/d/log", "x")
		tr.want(time.Second, items{"file/d/log": "x"})
	})
}

// One restless file does not hold up the others.
func TestRestlessNeighbour(t *testing.T) {
	try(t, file.Config{}, nil, func(tr *trial) {
		tr.replace("/d/a", "1")
		tr.replace("/d/log", "")
		for i := range 8 {
			tr.wait(50 * ms)
			tr.write("/d/log", fmt.Sprint(i))
		}
		tr.want(0, items{"file/d/a": "1"})
	})
}

func TestCoarseTimes(t *testing.T) {
	try(t, file.Config{}, func(w *world) {
		w.replace("/d/a", "1")
		w.nodes["/d/a"].stamp.Modified = 5e9
	}, func(tr *trial) {
		tr.want(200*ms + file.Coarse - 1)
		tr.want(2*ms, items{"file/d/a": "1"})
	})
}

func TestNoEvents(t *testing.T) {
	for _, cfg := range []struct {
		name string
		w    func(w *world)
	}{
		{"silent", func(w *world) { w.silent = true }},
		{"none to be had", func(w *world) { w.noWatch = syscall.EMFILE }},
	} {
		t.Run(cfg.name, func(t *testing.T) {
			try(t, file.Config{Removals: true}, func(w *world) { w.replace("/d/a", "1"); cfg.w(w) }, func(tr *trial) {
				tr.want(time.Second, items{"file/d/a": "1"})
				tr.write("/d/a", "2")
				tr.mkdir("/d/sub")
				tr.replace("/d/sub/b", "3")
				tr.want(28 * time.Second)
				tr.want(2*time.Second, items{"file/d/a": "2", "file/d/sub/b": "3"})
				tr.remove("/d/a")
				tr.remove("/d/sub")
				tr.want(31*time.Second, items{"file/d/a": "-", "file/d/sub/b": "-"})
			})
		})
	}
	t.Run("later", func(t *testing.T) {
		try(t, file.Config{}, func(w *world) { w.noWatch = syscall.EMFILE }, func(tr *trial) {
			tr.change(func() { tr.noWatch = nil })
			tr.want(31 * time.Second)
			tr.replace("/d/a", "1")
			tr.want(201*ms, items{"file/d/a": "1"})
		})
	})
}

func TestLostEvents(t *testing.T) {
	for name, err := range map[string]error{"overflow": fsnotify.ErrEventOverflow, "broken": errors.New("broken")} {
		t.Run(name, func(t *testing.T) {
			try(t, file.Config{}, func(w *world) { w.replace("/d/a", "1") }, func(tr *trial) {
				tr.want(time.Second, items{"file/d/a": "1"})
				tr.change(func() { tr.silent = true })
				tr.write("/d/a", "2")
				tr.errs <- err
				tr.change(func() { tr.silent = false })
				tr.want(401*ms, items{"file/d/a": "2"})
				tr.write("/d/a", "3")
				tr.want(201*ms, items{"file/d/a": "3"})
				if want := map[string]int{"overflow": 1, "broken": 2}[name]; tr.count(&tr.opened) != want {
					t.Errorf("%d watchers were opened, want %d", tr.count(&tr.opened), want)
				}
			})
		})
	}
	t.Run("too many to remember", func(t *testing.T) {
		try(t, file.Config{}, func(w *world) { w.replace("/d/a", "0") }, func(tr *trial) {
			tr.meanwhile(func(context.Context) { time.Sleep(time.Second) })
			tr.want(500*ms, items{"file/d/a": "0"})
			tr.change(func() {
				for i := range file.MaxNews + 10 {
					tr.events <- fsnotify.Event{Name: fmt.Sprintf("/d/gone%d", i), Op: fsnotify.Write}
				}
				tr.silent = true
			})
			tr.replace("/d/a", "1")
			tr.want(700*ms+401*ms, items{"file/d/a": "1"})
		})
	})
}

// R9: what could not be saved stays due, with newer values if there are.
func TestSaveFails(t *testing.T) {
	try(t, file.Config{}, func(w *world) { w.replace("/d/a", "1"); w.replace("/d/b", "1") }, func(tr *trial) {
		both := items{"file/d/a": "1", "file/d/b": "1"}
		tr.failing(errSave)
		tr.want(201*ms, both)
		tr.want(990 * ms)
		tr.want(20*ms, both)
		tr.want(1980 * ms) // twice as long
		tr.want(20*ms, both)
		tr.write("/d/a", "2")
		tr.replace("/d/c", "3")
		tr.want(3900 * ms)
		tr.want(200*ms, items{"file/d/a": "2", "file/d/b": "1", "file/d/c": "3"})
		tr.wait(10 * time.Minute)
		if n := len(tr.take()); n < 8 || n > 15 {
			t.Errorf("%d tries in ten minutes", n)
		}
		tr.failing(nil)
		tr.want(time.Minute, items{"file/d/a": "2", "file/d/b": "1", "file/d/c": "3"})
		tr.want(time.Hour)
		tr.write("/d/a", "4")
		tr.want(201*ms, items{"file/d/a": "4"})
	})
}

// An error of save means perhaps, so that the value before it is no longer known
// to be the one that is kept.
func TestSaveFailsThenOldValue(t *testing.T) {
	try(t, file.Config{}, func(w *world) { w.replace("/d/a", "1") }, func(tr *trial) {
		tr.want(time.Second, items{"file/d/a": "1"})
		tr.failing(errSave)
		tr.write("/d/a", "2")
		tr.want(300*ms, items{"file/d/a": "2"})
		tr.failing(nil)
		tr.write("/d/a", "1")
		tr.want(2*time.Second, items{"file/d/a": "1"})
	})
}

func TestChangedWhileSaved(t *testing.T) {
	try(t, file.Config{}, func(w *world) { w.replace("/d/a", "1") }, func(tr *trial) {
		tr.meanwhile(func(context.Context) {
			time.Sleep(time.Hour)
			tr.write("/d/a", "2")
			time.Sleep(time.Hour)
		})
		tr.want(3*time.Hour, items{"file/d/a": "1"}, items{"file/d/a": "2"})
	})
}

// Several events of one path count together.
func TestEventsAddUp(t *testing.T) {
	try(t, file.Config{Poll: 24 * time.Hour}, func(w *world) { w.replace("/d/a", "1") }, func(tr *trial) {
		tr.meanwhile(func(context.Context) {
			tr.change(func() {
				tr.nodes["/d/a"].data = []byte("2") // within the resolution of the clock
				tr.emit("/d/a", fsnotify.Write)
				tr.emit("/d/a", fsnotify.Chmod)
			})
			time.Sleep(time.Second)
		})
		tr.want(2*time.Second, items{"file/d/a": "1"}, items{"file/d/a": "2"})
	})
}

func TestSaveEndsWithContext(t *testing.T) {
	try(t, file.Config{}, func(w *world) { w.replace("/d/a", "1") }, func(tr *trial) {
		tr.meanwhile(func(ctx context.Context) { <-ctx.Done() })
		tr.want(time.Hour, items{"file/d/a": "1"}) // try cancels.
	})
}

func TestSameBytes(t *testing.T) {
	try(t, file.Config{}, func(w *world) { w.replace("/d/a", "1") }, func(tr *trial) {
		tr.want(time.Second, items{"file/d/a": "1"})
		tr.write("/d/a", "1")
		tr.want(time.Minute)
		tr.replace("/d/a", "1")
		tr.want(time.Minute)
		if tr.count(&tr.reads) != 3 {
			t.Errorf("%d reads, want 3", tr.count(&tr.reads))
		}
		// A write that leaves the stamp as it was is told by its event.
		tr.change(func() { tr.nodes["/d/a"].data = []byte("2"); tr.emit("/d/a", fsnotify.Write) })
		tr.want(201*ms, items{"file/d/a": "2"})
		tr.change(func() { tr.emit("/d/a", fsnotify.Chmod) })
		tr.want(time.Second)
		if tr.count(&tr.reads) != 4 {
			t.Errorf("%d reads, want 4: an event that changes nothing", tr.count(&tr.reads))
		}
	})
}

func TestRemovals(t *testing.T) {
	prepare := func(w *world) {
		w.mkdir("/d/s")
		w.replace("/d/a", "1")
		w.replace("/d/s/b", "2")
		w.replace("/x", "3")
	}
	all := items{"file/d/a": "1", "file/d/s/b": "2", "file/x": "3"}
	paths := []string{"/d", "/x"}
	t.Run("off", func(t *testing.T) {
		try(t, file.Config{Paths: paths}, prepare, func(tr *trial) {
			tr.want(time.Second, all)
			tr.remove("/d/a")
			tr.remove("/d/s")
			tr.remove("/x")
			tr.want(time.Hour)
			tr.replace("/d/a", "4")
			tr.want(201*ms, items{"file/d/a": "4"})
		})
	})
	t.Run("on", func(t *testing.T) {
		try(t, file.Config{Paths: paths, Removals: true}, prepare, func(tr *trial) {
			tr.want(time.Second, all)
			tr.remove("/d/a")
			tr.want(199 * ms)
			tr.want(2*ms, items{"file/d/a": "-"})
			tr.remove("/d/s")
			tr.remove("/x")
			tr.want(201*ms, items{"file/d/s/b": "-", "file/x": "-"})
			tr.mkdir("/d/t")
			tr.replace("/d/t/c", "5")
			tr.want(201*ms, items{"file/d/t/c": "5"})
			tr.change(func() { // moved away: nothing is heard of c itself
				delete(tr.nodes, "/d/t/c")
				delete(tr.nodes, "/d/t")
				delete(tr.watched, "/d/t")
				tr.emit("/d/t", fsnotify.Rename)
			})
			tr.want(401*ms, items{"file/d/t/c": "-"})
			tr.replace("/d/a", "1")
			tr.want(201*ms, items{"file/d/a": "1"})
			tr.want(time.Hour)
		})
	})
	t.Run("replaced slowly", func(t *testing.T) {
		try(t, file.Config{Paths: paths, Removals: true}, prepare, func(tr *trial) {
			tr.want(time.Second, all)
			tr.remove("/d/a")
			tr.wait(150 * ms)
			tr.replace("/d/a", "5")
			tr.want(time.Second, items{"file/d/a": "5"})
		})
	})
	t.Run("save fails", func(t *testing.T) {
		try(t, file.Config{Paths: paths, Removals: true}, prepare, func(tr *trial) {
			tr.want(time.Second, all)
			tr.failing(errSave)
			tr.remove("/d/a")
			tr.want(300*ms, items{"file/d/a": "-"})
			tr.want(time.Second, items{"file/d/a": "-"})
			tr.replace("/d/a", "6")
			tr.failing(nil)
			tr.want(2*time.Second, items{"file/d/a": "6"})
		})
	})
	t.Run("never saved", func(t *testing.T) {
		try(t, file.Config{Removals: true}, nil, func(tr *trial) {
			tr.replace("/d/a", "1")
			tr.wait(100 * ms)
			tr.remove("/d/a")
			tr.want(time.Hour)
		})
	})
	// A drive that is taken away deletes nothing.
	for _, silent := range []bool{false, true} {
		t.Run(fmt.Sprintf("directory gone, silent %v", silent), func(t *testing.T) {
			try(t, file.Config{Removals: true}, func(w *world) { prepare(w); w.silent = silent }, func(tr *trial) {
				tr.want(time.Second, items{"file/d/a": "1", "file/d/s/b": "2"})
				tr.remove("/d")
				tr.want(time.Hour)
				tr.mkdir("/d") // another, empty
				tr.want(time.Hour)
				tr.replace("/d/a", "7")
				tr.want(time.Minute, items{"file/d/a": "7"})
			})
		})
		t.Run(fmt.Sprintf("another directory, silent %v", silent), func(t *testing.T) {
			try(t, file.Config{Removals: true}, func(w *world) { prepare(w); w.silent = silent }, func(tr *trial) {
				tr.want(time.Second, items{"file/d/a": "1", "file/d/s/b": "2"})
				tr.remove("/d")
				tr.mkdir("/d")
				tr.replace("/d/a", "8")
				tr.want(time.Hour, items{"file/d/a": "8"})
			})
		})
	}
	t.Run("unreadable directory", func(t *testing.T) {
		try(t, file.Config{Removals: true}, prepare, func(tr *trial) {
			tr.want(time.Second, items{"file/d/a": "1", "file/d/s/b": "2"})
			reads := tr.count(&tr.reads)
			tr.change(func() { tr.fail["/d/s"] = fs.ErrPermission })
			tr.want(time.Hour)
			tr.wantSaid("/d/s", fs.ErrPermission)
			if n := tr.count(&tr.reads); n != reads {
				t.Errorf("%d reads of files that did not change", n-reads)
			}
		})
	})
}

func TestMany(t *testing.T) {
	try(t, file.Config{}, nil, func(tr *trial) {
		want := items{}
		for i := range 1000 {
			tr.replace(fmt.Sprintf("/d/%d", i), fmt.Sprint(i))
			want[fmt.Sprintf("file/d/%d", i)] = fmt.Sprint(i)
			if i%10 == 0 {
				tr.wait(ms)
			}
		}
		tr.want(time.Second, want)
	})
}

func TestBatch(t *testing.T) {
	try(t, file.InBatches(file.Config{MaxSize: 64}, 64), nil, func(tr *trial) {
		for i := range 5 {
			tr.replace(fmt.Sprintf("/d/%d", i), strings.Repeat("x", 30))
		}
		tr.replace("/d/5", strings.Repeat("x", 64))
		tr.replace("/d/6", "")
		tr.wait(time.Second)
		var sizes []int
		for _, call := range tr.take() {
			sizes = append(sizes, len(call))
		}
		if fmt.Sprint(sizes) != "[2 2 1 2]" {
			t.Errorf("calls of %v files, want [2 2 1 2]", sizes)
		}
	})
}

func TestLeftOut(t *testing.T) {
	long := "/d/" + strings.Repeat("x", 250)
	try(t, file.Config{MaxSize: 4, Poll: 5 * time.Second}, func(w *world) { w.replace("/d/a", "1") }, func(tr *trial) {
		tr.want(time.Second, items{"file/d/a": "1"})

		tr.replace("/d/big", "12345")
		tr.replace("/d/b", "2")
		tr.want(time.Second, items{"file/d/b": "2"})
		tr.wantSaid("/d/big", file.ErrTooLarge)
		tr.wait(time.Minute)
		tr.wantSaid("")
		tr.write("/d/big", "123456")
		tr.wait(time.Minute)
		tr.wantSaid("/d/big", file.ErrTooLarge)
		tr.write("/d/big", "1234")
		tr.want(time.Second, items{"file/d/big": "1234"})

		tr.change(func() { tr.fail["/d/a"] = fs.ErrPermission })
		tr.write("/d/a", "3")
		tr.write("/d/b", "3")
		reads := tr.count(&tr.reads)
		tr.want(time.Minute, items{"file/d/b": "3"})
		tr.wantSaid("/d/a", fs.ErrPermission)
		if n := tr.count(&tr.reads) - reads; n > 14 {
			t.Errorf("%d reads in a minute, want one every 5 seconds", n)
		}
		tr.change(func() { delete(tr.fail, "/d/a") })
		tr.want(6*time.Second, items{"file/d/a": "3"}) // by itself

		tr.replace(long, "4")
		tr.want(time.Minute)
		tr.wantSaid(long, file.ErrName)
		tr.write(long, "5")
		tr.replace("/d/\xff", "5")
		tr.want(time.Minute)
		tr.wantSaid("/d/\xff", file.ErrName)

		tr.put("/d/link", &node{stamp: file.Stamp{Mode: fs.ModeSymlink}, link: "/x"})
		lists := tr.count(&tr.lists)
		tr.want(time.Minute)
		tr.wantSaid("/d/link", file.ErrLink)
		if n := tr.count(&tr.lists) - lists; n > 13 {
			t.Errorf("%d looks in a minute, want one every 5 seconds", n)
		}
		tr.put("/d/pipe", &node{stamp: file.Stamp{Mode: fs.ModeNamedPipe}})
		tr.want(time.Minute)
		tr.wantSaid("/d/pipe", file.ErrNotRegular)
	})
}

// A look tells what cannot be read, and watches and saves nothing.
func TestLook(t *testing.T) {
	w := newWorld()
	w.mkdir("/d")
	w.mkdir("/d/s")
	w.replace("/d/a", "1")
	w.replace("/d/b", "2")
	w.fail["/d/b"], w.fail["/d/s"] = fs.ErrPermission, fs.ErrPermission
	src, err := file.NewOn(w, file.Config{Paths: []string{"/d"}})
	if err != nil {
		t.Fatal(err)
	}
	left, err := src.Look(t.Context())
	if err != nil || len(left) != 2 || left[0].Path != "/d/b" || left[1].Path != "/d/s" || !errors.Is(left[0], fs.ErrPermission) || !errors.Is(left[1], fs.ErrPermission) {
		t.Errorf("got %v, %v, want what cannot be read", left, err)
	}
	if w.opened != 0 {
		t.Error("it watches")
	}
}

func TestCompare(t *testing.T) {
	w := newWorld()
	w.mkdir("/d")
	for _, name := range []string{"same", "longer", "other", "new"} {
		w.replace("/d/"+name, name)
	}
	src, err := file.NewOn(w, file.Config{Paths: []string{"/d"}})
	if err != nil {
		t.Fatal(err)
	}
	saved := map[string]string{"file/d/same": "same", "file/d/longer": "long", "file/d/other": "OTHER"}
	compare := func(ctx context.Context) ([]*file.SkippedError, error) {
		return src.Compare(ctx, func(item string) (int64, [32]byte, bool) {
			value, ok := saved[item]
			return int64(len(value)), sha256.Sum256([]byte(value)), ok
		})
	}
	left, err := compare(t.Context())
	if err != nil || len(left) != 3 || left[0].Path != "/d/longer" || left[1].Path != "/d/new" || left[2].Path != "/d/other" ||
		!errors.Is(left[0], file.ErrUnsaved) || !errors.Is(left[1], file.ErrNew) || !errors.Is(left[2], file.ErrUnsaved) {
		t.Errorf("got %v, %v", left, err)
	}
	// The time is up while bytes are compared: what the sizes told is not lost.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reads := 0
	w.onRead = func(string) {
		if reads++; reads == 5 {
			cancel()
		}
	}
	if left, err := compare(ctx); !errors.Is(err, context.Canceled) || len(left) < 2 {
		t.Errorf("got %v, %v", left, err)
	}
}

func TestDuplicate(t *testing.T) {
	const nfc, nfd = "/d/\u00e9", "/d/e\u0301"
	item := "file/d/\u00e9"
	t.Run("one name to us", func(t *testing.T) {
		try(t, file.Config{}, func(w *world) { w.replace(nfc, "1"); w.replace(nfd, "2") }, func(tr *trial) {
			tr.want(time.Minute, items{item: "2"})
			tr.wantSaid(nfc, file.ErrDuplicate)
			tr.write(nfc, "3")
			tr.want(time.Minute)
			tr.wantSaid("")
			tr.remove(nfd) // Now the other has the name.
			tr.want(time.Minute, items{item: "3"})
		})
	})
	t.Run("renamed", func(t *testing.T) {
		try(t, file.Config{Removals: true}, func(w *world) { w.replace(nfd, "1") }, func(tr *trial) {
			tr.want(time.Second, items{item: "1"})
			tr.remove(nfd)
			tr.replace(nfc, "1")
			tr.want(time.Minute, items{item: "1"})
			tr.wantSaid("")
		})
	})
	t.Run("two roots", func(t *testing.T) {
		try(t, file.Config{Paths: []string{"/d/x", "/e/x", "/d/x"}}, func(w *world) { w.mkdir("/e"); w.replace("/d/x", "1"); w.replace("/e/x", "2") }, func(tr *trial) {
			tr.want(time.Minute, items{"file/x": "1"})
			tr.wantSaid("/e/x", file.ErrDuplicate)
		})
	})
	t.Run("an owner's item", func(t *testing.T) {
		try(t, file.Config{Name: func(string) string { return "keys" }}, func(w *world) { w.replace("/d/x", "1") }, func(tr *trial) {
			tr.want(time.Minute)
			tr.wantSaid("/d/x", file.ErrName)
		})
	})
}

func TestName(t *testing.T) {
	cfg := file.Config{Paths: []string{"/d", "/link"}, Name: func(p string) string {
		if strings.HasSuffix(p, ".tmp") {
			return ""
		}
		return strings.TrimPrefix(p, "/")
	}}
	try(t, cfg, func(w *world) {
		w.replace("/d/a", "1")
		w.replace("/d/b.tmp", "2")
		w.mkdir("/real")
		w.replace("/real/c", "3")
		w.put("/link", &node{stamp: file.Stamp{Mode: fs.ModeSymlink}, link: "/real"})
	}, func(tr *trial) { tr.want(time.Second, items{"d/a": "1", "link/c": "3"}); tr.wantSaid("") })
}

func TestExclude(t *testing.T) {
	try(t, file.Config{Exclude: []string{"/d/store", "/d/x"}, Removals: true}, func(w *world) {
		w.mkdir("/d/store")
		w.mkdir("/d/store/in")
		w.replace("/d/store/in/a", "1")
		w.replace("/d/store.txt", "2")
		w.replace("/d/x", "3")
	}, func(tr *trial) {
		tr.want(time.Second, items{"file/d/store.txt": "2"})
		tr.replace("/d/store/in/b", "4")
		tr.write("/d/x", "5")
		tr.want(time.Hour)
		for _, dir := range []string{"/d/store", "/d/store/in"} {
			if _, ok := tr.watched[dir]; ok {
				t.Error("what is excluded is watched")
			}
		}
	})
}

// A folder of backups is never kept, whenever it comes, and is told once: what saves
// itself has no end.
func TestBackupFolder(t *testing.T) {
	const early, late = "/d/BitcoinWalletBackup-Sam-1", "/d/in/BitcoinWalletBackup-Sam-2"
	try(t, file.Config{Removals: true}, func(w *world) {
		w.mkdir("/d/in")
		w.mkdir(early)
		w.mkdir(early + "/items")
		w.replace(early+"/items/a", "1")
		w.replace("/d/BitcoinWalletBackup-notes.txt", "2") // no folder
	}, func(tr *trial) {
		tr.want(time.Second, items{"file/d/BitcoinWalletBackup-notes.txt": "2"})
		tr.wantSaid(early, file.ErrBackup)
		tr.mkdir(late)
		tr.replace(late+"/a", "3")
		tr.mkdir(late + "/items")
		tr.replace(late+"/items/b", "4")
		tr.replace(early+"/items/a", "5")
		tr.want(time.Hour)
		tr.wantSaid(late, file.ErrBackup)
		tr.want(time.Hour)
		tr.wantSaid(late) // not again
	})
	for _, path := range []string{late, late + "/items", late + "/items/b"} { // named itself
		try(t, file.Config{Paths: []string{path}}, func(w *world) {
			w.mkdir("/d/in")
			w.mkdir(late)
			w.mkdir(late + "/items")
			w.replace(late+"/items/b", "4")
		}, func(tr *trial) {
			tr.want(time.Minute)
			tr.wantSaid(path, file.ErrBackup)
			tr.replace(late+"/items/b", "5")
			tr.want(time.Hour)
		})
	}
}

// A sleep shows in the wall clock only.
func TestSleep(t *testing.T) {
	var ahead atomic.Int64
	cfg := file.Config{Poll: 24 * time.Hour, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}
	try(t, cfg, func(w *world) { w.replace("/d/a", "1"); w.silent = true }, func(tr *trial) {
		tr.want(time.Second, items{"file/d/a": "1"})
		tr.write("/d/a", "2")
		tr.want(10 * time.Minute)
		tr.wait(time.Second)
		ahead.Add(int64(time.Hour))
		tr.want(31*time.Second, items{"file/d/a": "2"})
		lists := tr.count(&tr.lists)
		tr.want(time.Hour)
		if tr.count(&tr.lists) != lists {
			t.Errorf("%d looks after one sleep", tr.count(&tr.lists)-lists)
		}
	})
}

func TestSleepEndsBackoff(t *testing.T) {
	var ahead atomic.Int64
	cfg := file.Config{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}
	try(t, cfg, func(w *world) { w.replace("/d/a", "1"); w.silent = true }, func(tr *trial) {
		tr.failing(errSave)
		tr.wait(130 * time.Second) // The last try was at 123.2 s, the next is at 183.2 s.
		tr.take()
		ahead.Add(int64(time.Hour))
		tr.want(30*time.Second, items{"file/d/a": "1"}, items{"file/d/a": "1"}, items{"file/d/a": "1"}, items{"file/d/a": "1"})
	})
}

func TestMissing(t *testing.T) {
	paths := []string{"/late/deep/dir", "/late/deep/file", "/gone"}
	for _, silent := range []bool{false, true} {
		t.Run(fmt.Sprintf("silent %v", silent), func(t *testing.T) {
			soon := time.Second
			if silent {
				soon = 32 * time.Second
			}
			try(t, file.Config{Paths: paths}, func(w *world) { w.silent = silent }, func(tr *trial) {
				tr.want(10 * time.Minute)
				tr.wantSaid("")
				tr.mkdir("/late")
				tr.mkdir("/late/deep")
				tr.mkdir("/late/deep/dir")
				tr.replace("/late/deep/dir/a", "1")
				tr.want(soon, items{"file/dir/a": "1"})
				tr.replace("/late/deep/file", "2")
				tr.replace("/gone", "3")
				tr.want(soon, items{"file/file": "2", "file/gone": "3"})
				tr.remove("/late")
				tr.want(soon)
				tr.mkdir("/late")
				tr.wait(soon)
				tr.mkdir("/late/deep")
				tr.mkdir("/late/deep/dir")
				tr.replace("/late/deep/dir/a", "4")
				tr.want(soon, items{"file/dir/a": "4"})
			})
		})
	}
}

// A link given by the user that points elsewhere from now on.
func TestLinkTurns(t *testing.T) {
	for _, noInode := range []bool{false, true} {
		try(t, file.Config{Paths: []string{"/link"}, Removals: true}, func(w *world) {
			w.noInode = noInode
			w.mkdir("/d")
			w.mkdir("/e")
			w.replace("/d/a", "1")
			w.replace("/d/b", "1")
			w.replace("/e/a", "2")
			w.put("/link", &node{stamp: file.Stamp{Mode: fs.ModeSymlink}, link: "/d"})
		}, func(tr *trial) {
			tr.want(time.Second, items{"file/link/a": "1", "file/link/b": "1"})
			tr.put("/link", &node{stamp: file.Stamp{Mode: fs.ModeSymlink}, link: "/e"})
			tr.want(time.Second, items{"file/link/a": "2"}) // and b is kept
			tr.write("/e/a", "3")
			tr.want(201*ms, items{"file/link/a": "3"})
		})
	}
}

// A directory that is found under its new name before its move is heard of shares
// the watch of the old name, and loses it.
func TestMovedAndFound(t *testing.T) {
	try(t, file.Config{Poll: 24 * time.Hour}, func(w *world) { w.mkdir("/d/s"); w.replace("/d/s/a", "1") }, func(tr *trial) {
		tr.want(time.Second, items{"file/d/s/a": "1"})
		tr.change(func() {
			for _, p := range []string{"/d/s", "/d/s/a"} {
				tr.nodes["/d/t"+p[4:]] = tr.nodes[p]
				delete(tr.nodes, p)
			}
		})
		tr.errs <- fsnotify.ErrEventOverflow
		tr.want(time.Second, items{"file/d/t/a": "1"})
		tr.change(func() { tr.emit("/d/s", fsnotify.Rename) })
		tr.wait(time.Second)
		tr.write("/d/t/a", "2")
		tr.want(201*ms, items{"file/d/t/a": "2"})
	})
}

func TestNewDirectory(t *testing.T) {
	try(t, file.Config{}, nil, func(tr *trial) {
		tr.mkdir("/d/s")
		tr.mkdir("/d/s/t")
		tr.replace("/d/s/t/a", "1")
		tr.want(201*ms, items{"file/d/s/t/a": "1"})
		tr.write("/d/s/t/a", "2")
		tr.want(201*ms, items{"file/d/s/t/a": "2"})
		tr.remove("/d/s")
		tr.wait(time.Second)
		tr.mkdir("/d/s")
		tr.wait(time.Second)
		tr.replace("/d/s/a", "3")
		tr.want(201*ms, items{"file/d/s/a": "3"})
	})
}

// Once does not wait for a file that cannot be read, nor for ever for one that is
// written all the time.
func TestOnceLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.mkdir("/d")
		w.replace("/d/a", "1")
		w.replace("/d/b", "2")
		w.replace("/d/restless", "3")
		w.fail["/d/b"] = fs.ErrPermission
		w.onRead = func(p string) {
			if p == "/d/restless" {
				w.write(p, "4"+time.Now().String())
			}
		}
		tr := &trial{world: w, t: t}
		said := map[string]error{}
		src, err := file.NewOn(w, file.Config{Paths: []string{"/d"}, Report: func(e *file.SkippedError) { said[e.Path] = e.Err }})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := src.Once(t.Context(), tr.save); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > 25*time.Second {
			t.Errorf("it took %v", d)
		}
		tr.want(0, items{"file/d/a": "1"})
		if len(said) != 2 || !errors.Is(said["/d/b"], fs.ErrPermission) || !errors.Is(said["/d/restless"], file.ErrRestless) {
			t.Errorf("left out: %v", said)
		}
	})
}
