package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/source/file"
)

// watchRecord is watch/<name>.json in the home: what "satchel watch" watches for a
// wallet. It is not in the wallet's directory, because forgetting a wallet here and
// restoring it is how it is taken over from another device.
type watchRecord struct {
	Paths    []string   `json:"paths"` // absolute
	Removals bool       `json:"removals,omitempty"`
	CLN      *clnRecord `json:"cln,omitempty"`   // the Core Lightning node
	LND      *lndRecord `json:"lnd,omitempty"`   // the Lightning node
	Moved    string     `json:"moved,omitempty"` // the name that the wallet got with new keys; nothing is watched here any more
	// Heir is the name of a wallet whose place this one takes: what is watched for it is
	// watched here as soon as it is gone.
	Heir string `json:"heir,omitempty"`
}

func (r watchRecord) equal(o watchRecord) bool {
	return r.Removals == o.Removals && r.Moved == o.Moved && r.Heir == o.Heir && slices.Equal(r.Paths, o.Paths) && r.LND.equal(o.LND) && r.CLN.equal(o.CLN)
}

// all are the paths that are watched, with those of a node.
func (r watchRecord) all() []string { return slices.Concat(r.Paths, r.CLN.paths()) }

const maxWatchRecord = 1 << 20 // bytes

// fileStamp tells one state of a file from another without reading it. The zero fileStamp is
// that of no file.
type fileStamp struct {
	size     int64
	modified int64 // Unix time in ns
}

func fileStampOf(path string) fileStamp {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{info.Size(), info.ModTime().UnixNano()}
}

// recent reports whether the file was changed so lately that the next change may have the
// same stamp: some file systems keep times in steps of two seconds.
func (s fileStamp) recent() bool { return time.Since(time.Unix(0, s.modified)) < 2*followEvery }

// recordStamp is that of the record.
func (w *watch) recordStamp() fileStamp {
	home, err := w.app.home()
	if err != nil {
		return fileStamp{}
	}
	return fileStampOf(filepath.Join(home, "watch", w.name+".json"))
}

// dir makes the directory of the records.
func (w *watch) dir() (string, error) {
	home, err := w.app.home()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(home, "watch")
	return dir, durable.Disk{}.MkdirAll(dir, 0o700)
}

// lock takes one of the wallet's locks: "run" is held by who watches, "edit" by who
// changes the record.
func (w *watch) lock(what string) (*durable.Lock, error) {
	dir, err := w.dir()
	if err != nil {
		return nil, err
	}
	return durable.Disk{}.Lock(filepath.Join(dir, w.name+"."+what+".lock"))
}

// read returns what is to be watched. It writes nothing.
func (w *watch) read() (watchRecord, error) {
	rec, err := w.readOwn()
	home, errHome := w.app.home()
	// A wallet whose place was taken may have taken another one's before.
	for range maxHeirs {
		if err != nil || errHome != nil || rec.Heir == "" {
			return rec, errors.Join(err, errHome)
		}
		if _, err := os.Lstat(filepath.Join(home, "wallets", rec.Heir, "device.json")); !errors.Is(err, fs.ErrNotExist) {
			return watchRecord{}, err
		}
		rec, err = (&watch{app: w.app, name: rec.Heir}).readOwn()
		rec.Moved = ""
	}
	return watchRecord{}, fmt.Errorf("watch/%s.json is not what satchel wrote", w.name)
}

// maxHeirs bounds how many wallets took each other's place without a whole rekey.
const maxHeirs = 100

// readOwn is read for the record of this name, as it stands.
func (w *watch) readOwn() (watchRecord, error) {
	var rec watchRecord
	home, err := w.app.home()
	if err != nil {
		return rec, err
	}
	path := filepath.Join(home, "watch", w.name+".json")
	data, err := durable.Disk{}.ReadFile(path, maxWatchRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return rec, nil
	}
	if err != nil {
		return rec, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&rec); err != nil {
		return rec, &hintedError{fmt.Errorf("%s is not what satchel wrote", path), "remove it, and name again what to watch"}
	}
	return rec, nil
}

// change changes what is to be watched.
func (w *watch) change(ctx context.Context, do func(*watchRecord) error) error {
	lock, err := w.lock("edit")
	for errors.Is(err, durable.ErrLocked) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(busyPause):
		}
		lock, err = w.lock("edit")
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	rec, err := w.read()
	if err != nil {
		return err
	}
	before := rec
	before.Paths = slices.Clone(rec.Paths)
	if err := do(&rec); err != nil || rec.equal(before) {
		return err
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if len(data) >= maxWatchRecord {
		return usagef("too many paths: name a folder that holds them")
	}
	dir, err := w.dir()
	if err != nil {
		return err
	}
	return durable.Disk{}.WriteFile(filepath.Join(dir, w.name+".json"), append(data, '\n'), 0o600)
}

// remember adds paths to what is watched.
func (w *watch) remember(ctx context.Context, paths []string, setRemovals, removals bool) error {
	if len(paths) == 0 && !setRemovals {
		return nil
	}
	own, err := w.own()
	if err != nil {
		return err
	}
	var add []string
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return err
		}
		if _, err := file.New(file.Config{Paths: []string{abs}}); err != nil {
			u := &usageError{text: fmt.Sprintf("%s: %v", printable(p), err)}
			if errors.Is(err, file.ErrName) {
				u.hint = "what was watched before still is; rename this, or save it once under a name of your own: satchel put file/NAME FILE"
			}
			return u
		}
		if err := refuseDatabase(abs); err != nil {
			return err
		}
		for _, o := range own {
			if within(real(o), real(abs)) {
				return usagef("%s is Satchel's own", printable(p))
			}
		}
		if _, err := os.Stat(abs); errors.Is(err, fs.ErrNotExist) {
			w.app.note("%s is not there; it is saved when it is", abs)
		}
		add = append(add, abs)
	}
	return w.change(ctx, func(rec *watchRecord) error {
		if setRemovals {
			rec.Removals = removals
		}
		for _, p := range add {
			if slices.Contains(rec.Paths, p) {
				continue
			}
			// They would be items of the same names.
			if i := slices.IndexFunc(rec.Paths, func(q string) bool { return filepath.Base(q) == filepath.Base(p) }); i >= 0 {
				return &usageError{
					text: fmt.Sprintf("%s and %s have the same name", printable(rec.Paths[i]), printable(p)),
					hint: "watch the folder that it is in, or rename one of them",
				}
			}
			rec.Paths = append(rec.Paths, p)
		}
		return nil
	})
}

// inheritWatched makes what is watched for a wallet be watched for the one that is to take
// its place, from when the first is gone. Until then an agent leaves that one alone, so this
// is said also where nothing is watched. It may be repeated.
func (a *app) inheritWatched(ctx context.Context, from, to string) error {
	if _, err := (&watch{app: a, name: from}).read(); err != nil {
		return err
	}
	return (&watch{app: a, name: to}).change(ctx, func(r *watchRecord) error { *r = watchRecord{Heir: from}; return nil })
}

// rekeying reports whether a wallet is to take the place of another one that is still there:
// its rekey is not finished, and what is put into both of them would keep it from ever being.
func (a *app) rekeying(name string) bool {
	home, err := a.home()
	rec, errRead := (&watch{app: a, name: name}).readOwn()
	return err == nil && errRead == nil && rec.Heir != "" && fileStampOf(filepath.Join(home, "wallets", rec.Heir, "device.json")) != (fileStamp{})
}

// copyWatched makes what was watched for a wallet be watched for the one that took its place.
// It may be repeated.
func (a *app) copyWatched(ctx context.Context, from, to string) error {
	rec, err := (&watch{app: a, name: from}).read()
	if err != nil || rec.Moved != "" || rec.equal(watchRecord{}) {
		return err
	}
	return (&watch{app: a, name: to}).change(ctx, func(r *watchRecord) error { *r = rec; return nil })
}

// dropWatched forgets what was to be watched for a wallet that did not come to be.
func (a *app) dropWatched(name string) {
	if home, err := a.home(); err == nil {
		for _, suffix := range []string{".json", ".edit.lock"} {
			os.Remove(filepath.Join(home, "watch", name+suffix)) // What stays is of no wallet.
		}
	}
}

// moveWatched says that what was watched for a wallet is watched for the one that took its
// place, with a copy of its record. A satchel watch that is running goes on with that one.
func (a *app) moveWatched(ctx context.Context, from, to string) error {
	old := &watch{app: a, name: from}
	rec, err := old.read()
	if err != nil || rec.equal(watchRecord{}) || from == to {
		return err
	}
	if err := a.moveOpening(ctx, from, to); err != nil {
		a.note("the record of an open of a channel is still that of %s: %s", printable(from), errorText(err))
	}
	if begun := a.lndLast(from); begun != nil {
		if err := errors.Join(a.keepLNDBegun(to, *begun), a.forgetLNDBegun(from)); err != nil {
			a.note("the record of a restore of the node is still that of %s: %s", printable(from), errorText(err))
		}
	}
	return old.change(ctx, func(r *watchRecord) error { *r = watchRecord{Moved: to}; return nil })
}

// moveOpening gives the record of an open of a channel, if there is one, to the wallet that
// took another one's place. An open that goes on ends soon: its wallet is gone.
func (a *app) moveOpening(ctx context.Context, from, to string) error {
	if _, err := os.Lstat(a.lndJournal(from)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := a.lndOpenLock(from)
	for began := time.Now(); err != nil && time.Since(began) < openingWait; {
		pauseFor(ctx, busyPause)
		unlock, err = a.lndOpenLock(from)
	}
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Rename(a.lndJournal(from), a.lndJournal(to)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// openingWait is how long an open of a channel may take to end whose wallet is gone.
const openingWait = time.Minute

// movedWait is how long to wait for the record of a wallet that is gone: the directory
// goes a moment before.
const movedWait = 2 * time.Second

// moved returns the name of the wallet that took this one's place, or "".
func (w *watch) moved(ctx context.Context) string {
	for began := time.Now(); time.Since(began) < movedWait; {
		if rec, err := w.read(); err == nil && rec.Moved != "" {
			return rec.Moved
		}
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return ""
		}
	}
	return ""
}

// forget drops paths from what is watched.
func (w *watch) forget(ctx context.Context, paths []string) error {
	return w.change(ctx, func(rec *watchRecord) error {
		for _, p := range paths {
			abs, err := filepath.Abs(p)
			if err != nil {
				return err
			}
			i := slices.Index(rec.Paths, abs)
			if i < 0 {
				return &usageError{text: "not watched: " + printable(abs), hint: "`satchel watch --list` shows what is"}
			}
			rec.Paths = slices.Delete(rec.Paths, i, i+1)
			w.app.say("Not watched any more: %s. What was saved of it stays in the backup.", printable(abs))
		}
		return nil
	})
}

// leftJSON is something in what is watched that is not saved.
type leftJSON struct {
	Path   string `json:"path"`
	Error  string `json:"error"`
	Failed bool   `json:"failed"` // it is meant to be saved
	// It can be saved, and nobody did.
	Unsaved bool `json:"unsaved,omitempty"`
}

// running reports whether a satchel watches for this wallet. It makes nothing.
func (w *watch) running() (bool, error) {
	home, err := w.app.home()
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(filepath.Join(home, "watch", w.name+".run.lock")); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	lock, err := w.lock("run")
	if errors.Is(err, durable.ErrLocked) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, lock.Unlock()
}

// notRunning is said where files are watched and nobody does it.
const notRunning = "neither an agent nor satchel watch is running: what changes now is saved when one runs again, see `satchel agent install`, or by `satchel watch --once`"

// savedItems says of each item what is saved of it.
func savedItems(items []satchel.ItemInfo) func(name string) (size int64, sum [32]byte, ok bool) {
	byName := map[string]satchel.ItemInfo{}
	for _, i := range items {
		byName[i.Name] = i
	}
	return func(name string) (int64, [32]byte, bool) {
		i, ok := byName[name]
		return i.Size, i.SHA256, ok
	}
}

// lookGrace is how long to wait for what was found, when the time is up.
const lookGrace = 200 * time.Millisecond

// look looks at what is watched and returns what of it is not saved as it stands, with
// an error as far as it came. Unless items is nil, it is compared with them.
func (w *watch) look(ctx context.Context, rec watchRecord, items []satchel.ItemInfo) ([]leftJSON, error) {
	left := []leftJSON{}
	if len(rec.Paths) > 0 {
		src, err := w.source(rec)
		if err != nil {
			return nil, err
		}
		if left, err = w.lookAt(ctx, src, items); err != nil {
			return left, err
		}
	}
	if rec.CLN != nil {
		more, err := w.clnLook(ctx, *rec.CLN, items)
		return append(left, more...), err
	}
	return left, nil
}

// lookAt is look for one source of files.
func (w *watch) lookAt(ctx context.Context, src *file.Source, items []satchel.ItemInfo) ([]leftJSON, error) {
	left := []leftJSON{}
	type answer struct {
		list []*file.SkippedError
		err  error
	}
	done := make(chan answer, 1)
	// What a network holds may not answer. Then a goroutine stays behind, and the
	// command is about to end.
	go func() {
		if items == nil {
			list, err := src.Look(ctx)
			done <- answer{list, err}
			return
		}
		list, err := src.Compare(ctx, savedItems(items))
		done <- answer{list, err}
	}()
	var got answer
	select {
	case got = <-done:
	case <-ctx.Done():
		select {
		case got = <-done:
		case <-time.After(lookGrace):
			return left, ctx.Err()
		}
	}
	for _, e := range got.list {
		unsaved := errors.Is(e, file.ErrUnsaved) || errors.Is(e, file.ErrNew)
		left = append(left, leftJSON{e.Path, leftWhy(e), !neverKept(e), unsaved})
	}
	return left, got.err
}

// maxLeft is how much of what is not saved is named to a person.
const maxLeft = 100

// sayLeft names what is watched and not saved, first what is meant to be.
func (a *app) sayLeft(left []leftJSON) {
	said := 0
	for _, failed := range []bool{true, false} {
		title := "Not saved as it stands; what was saved before, if anything, is kept:"
		if !failed {
			title = "Left out, because it is never saved:"
		}
		for _, l := range left {
			if l.Failed != failed {
				continue
			}
			if said++; said > maxLeft {
				break
			}
			if title != "" {
				a.say("%s", title)
				title = ""
			}
			a.say("  %s", printable(l.Path))
			a.sayHanging("    ", printable(l.Error))
		}
	}
	if more := len(left) - maxLeft; more > 0 {
		a.say("  and %d more", more)
	}
}

// list prints what is watched, and what of it is not saved.
func (w *watch) list(ctx context.Context, d device) error {
	rec, err := w.read()
	if err != nil {
		return err
	}
	running, err := w.running()
	if err != nil {
		return err
	}
	var items []satchel.ItemInfo
	var node *lndNow
	if rec.LND != nil {
		b, err := w.app.openDevice(ctx, d)
		if err != nil {
			return err
		}
		scb := keptSCB(b)
		b.Close()
		node = w.app.lndLook(ctx, rec.LND, d.name, scb)
	}
	if !running && len(rec.all()) > 0 {
		// What runs saves what changed; else it may lie unsaved for long.
		b, err := w.app.openDevice(ctx, d)
		if ctx.Err() != nil {
			return err
		}
		if err != nil {
			w.app.note("not compared with what is saved: %s", errorText(err))
		} else {
			items = append([]satchel.ItemInfo{}, b.Items()...)
			b.Close()
		}
	}
	left, err := w.look(ctx, rec, items)
	if err != nil {
		return err
	}
	for _, p := range rec.all() {
		w.app.say("%s", printable(p))
	}
	if rec.Removals {
		w.app.say("A file that is deleted goes from the backup, too.")
	}
	if node != nil {
		w.app.sayHanging("", node.text())
	}
	if len(rec.all()) == 0 && node == nil {
		w.app.note("nothing is watched; name a file or a folder: satchel watch PATH")
	}
	w.app.sayLeft(left)
	if !running && len(rec.all()) > 0 && !w.app.json {
		w.app.note("%s", notRunning)
	} else if !running && node != nil && !w.app.json {
		w.app.note("%s", nodeAlone)
	}
	if err := w.app.emit(struct {
		Paths    []string   `json:"paths"`
		Removals bool       `json:"removals"`
		Watching bool       `json:"watching"`
		LeftOut  []leftJSON `json:"left_out"`
		Node     *lndNow    `json:"lnd,omitempty"`
	}{append([]string{}, rec.all()...), rec.Removals, running, left, node}); err != nil {
		return err
	}
	if slices.ContainsFunc(left, func(l leftJSON) bool { return l.Unsaved }) || node.failed() {
		return errPartly
	}
	return nil
}

func (a *app) completeWatched(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	d, err := a.device()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	w := &watch{app: a, name: d.name}
	rec, _ := w.read()
	return rec.Paths, cobra.ShellCompDirectiveNoFileComp
}

// real returns the path with its links resolved, as far as it is there.
func real(path string) string {
	for rest := ""; ; {
		if p, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Join(p, rest)
		}
		parent := filepath.Dir(path)
		if parent == path {
			return filepath.Join(path, rest)
		}
		path, rest = parent, filepath.Join(filepath.Base(path), rest)
	}
}

// within reports whether a path is dir or below it.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
