package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/source"
	"github.com/satchel-backup/satchel/source/cln"
	"github.com/satchel-backup/satchel/source/file"
	"github.com/satchel-backup/satchel/source/lnd"
)

func (a *app) watchCommand() *cobra.Command {
	var w watch
	var list, once, removals bool
	var every time.Duration
	var keep int
	var forget []string
	cmd := &cobra.Command{
		Use:   "watch [PATH]...",
		Short: "Back up by itself, at every change",
		Long: `Watches files and folders and saves them at every change, as file/NAME or
file/FOLDER/PATH. The paths are remembered for this wallet: after a restart,
"satchel watch" alone goes on with all of them. --list shows them, and what in them
is not saved and why; --forget drops one; what was saved of it stays in the backup.

It brings to every place what is late, also what other commands and programs put,
tries again by itself while a place is away or full, and compares the whole backup
in every place once a day. What a place lost, it puts back. All other commands work
meanwhile. With no path at all it only does this.

A file is saved when it has been left alone for a moment, never half-written. One
that is deleted stays in the backup, unless --removals says otherwise. Links inside
a folder are not followed, and Satchel's own files are left out, as is every folder
whose name begins with BitcoinWalletBackup-.

Where a satchel agent runs ("satchel agent --help"), it keeps all wallets up to date: a
watch with a path tells it of the path and ends, and one without is not needed.

While neither runs, --list compares the files with what is saved, names what is not,
and the code is 3 then. With --once the code is 3 also if something that is watched
could not be read, or is not there. Each line says what was done. It ends with Ctrl-C or SIGTERM, and the code is 0
then; an error that no further try can cure ends it with the code of that error.

JSON, one object an event: time, event (watching, saved, not saved, late, caught up,
healed, checked, pruned, left out, changes often, source failed, source works, node,
open unfinished, drill due, drilled, alarm, opened again, new keys, ended),
generation, protected, places (address, health, generation, verified, error, code),
and where it fits items, removed, healed, paths, path, objects, bytes, findings (place,
object, error, code), since, error, code. With --list: paths, removals, left_out (path,
error, failed if it is meant to be saved, and unsaved if nothing but an agent
or a satchel watch keeps it from being so), watching (whether one runs), lnd (the
Lightning node, as of "satchel lnd status").`,
		Example: `  satchel watch ~/wallet.dat ~/.electrum/wallets
  satchel watch
  satchel watch --list
  satchel watch --forget ~/wallet.dat
  satchel watch --once              for cron: save what is there now, and end
  satchel agent install --now       for all wallets, with nobody watching`,
		Annotations: exits(watchExits...),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, paths []string) error {
			ctx := cmd.Context()
			d, err := a.device()
			if err != nil {
				return err
			}
			w.app, w.name, w.every, w.keep, w.tell = a, d.name, every, keep, w.print
			if keep < 0 {
				return usagef("--keep is a number of checkpoints, or 0 for all")
			}
			if every < 0 {
				return usagef("--every is a time, such as 12h, or 0 for never")
			}
			if (list || len(forget) > 0) && (once || len(paths) > 0 || list && len(forget) > 0) {
				return usagef("--list and --forget stand alone")
			}
			switch {
			case list:
				return w.list(ctx, d)
			case len(forget) > 0:
				return w.forget(ctx, forget)
			}
			if err := w.remember(ctx, paths, cmd.Flags().Changed("removals"), removals); err != nil {
				return err
			}
			if once {
				return w.once(ctx, d)
			}
			return w.run(ctx, len(paths) > 0)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().BoolVar(&list, "list", false, "list what is watched, and end")
	cmd.Flags().StringArrayVar(&forget, "forget", nil, "watch this `path` no more, and end")
	cmd.Flags().BoolVar(&once, "once", false, "save what is there now, and end with the code of the backup's state")
	cmd.Flags().BoolVar(&removals, "removals", false, "a file that is deleted goes from the backup, too; this is remembered, and --removals=false ends it")
	cmd.Flags().DurationVar(&every, "every", 24*time.Hour, "how often all places are compared; 0 for never")
	cmd.Flags().IntVar(&keep, "keep", 0, "after a comparison that found nothing wrong, prune what is older than this many checkpoints; 0 keeps all")
	if err := cmd.RegisterFlagCompletionFunc("forget", a.completeWatched); err != nil {
		panic(err)
	}
	return cmd
}

var watchExits = []satchel.Code{satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly,
	satchel.CodeOtherDevice, satchel.CodeDamaged, satchel.CodeNewer, satchel.CodeListing, satchel.CodeSignIn,
	satchel.CodeWrongAccount, satchel.CodeFull, satchel.CodeUnreachable, satchel.CodeInterrupted}

// watch keeps one wallet up to date: a "satchel watch" alone, or one wallet of an agent.
type watch struct {
	app   *app
	name  string // of the wallet's directory
	every time.Duration
	keep  int // checkpoints; 0 for all

	tell func(event)           // where events go; the loop waits for it
	due  func(time.Time)       // see agent.Config; nil for nobody
	have func(*satchel.Backup) // if not nil, is given the backup while it is open, and nil afterwards
	more []source.Source       // beside those of the record

	notifier *file.Notifier         // shared with other wallets; nil for none
	asks     <-chan agent.Ask       // see agent.Config
	progress func(satchel.Progress) // see satchel.Config; nil for that of the app

	checkAt time.Time // when all places are compared next; zero if that is not known

	mu     sync.Mutex // events come from the agent and from the source
	told   map[string]bool
	busy   map[string]time.Time // when it was said of a file that it changes all the time
	failed int                  // files that could not be kept and are meant to be

	opening string // what was told of an open of a channel that was cut short; of the session, then of follow

	unsaved []string // items of the last changes, if they could not be kept
}

// maxTold bounds what is remembered of what was said to be left out.
const maxTold = 10_000

// runTries is how often a watch tries to become the only one of its wallet.
const runTries = 3

// agentTries is how often a watch with a path looks whether the agent that runs has taken
// the wallet.
const agentTries = 50

// run watches until ctx ends. added says that paths were given.
func (w *watch) run(ctx context.Context, added bool) error {
	lock, err := w.lock("run")
	for try := 1; errors.Is(err, durable.ErrLocked) && try < runTries; try++ {
		// It may be a status, which only looks whether somebody watches.
		time.Sleep(busyPause)
		lock, err = w.lock("run")
	}
	agent := w.app.agentRuns()
	for try := 0; err == nil && added && agent && try < agentTries; try++ {
		// It does not know the wallet yet, or looks at it again when this is written.
		lock.Unlock()
		pauseFor(ctx, busyPause)
		lock, err = w.lock("run")
	}
	if errors.Is(err, durable.ErrLocked) {
		who, text := "another satchel watch of this wallet is running", "Another satchel watch of this wallet is running: it watches this too from now on."
		if agent {
			who, text = "the satchel agent keeps this wallet up to date", "The agent watches this from now on."
		}
		if !added {
			return &hintedError{errors.New(who), "`satchel watch --list` shows what it watches"}
		}
		w.app.say("%s", text)
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { lock.Unlock() }()
	for {
		err := w.stay(ctx)
		if errors.Is(err, satchel.ErrNoDevice) {
			if name := w.moved(ctx); name != "" {
				w.event(eventJSON{Time: w.app.now(), Event: "new keys"}, "the wallet has new keys: going on with "+printable(name))
				lock.Unlock()
				w.name = name
				if lock, err = w.lock("run"); err != nil {
					return err
				}
				continue
			}
		}
		if err != nil {
			w.ended(err)
		}
		return err
	}
}

// stay keeps the wallet up to date until ctx ends, and returns nil then, or an error that
// another beginning does not cure. The caller holds the lock "run".
func (w *watch) stay(ctx context.Context) error {
	for {
		err := w.session(ctx)
		switch {
		case ctx.Err() != nil:
			w.event(eventJSON{Time: w.app.now(), Event: "ended"}, "ended")
			return nil // What it does has no other end.
		case errors.Is(err, errRewatch):
		case errors.Is(err, satchel.ErrReplaced):
			w.checkAt = time.Time{} // A place may be new.
			w.event(eventJSON{Time: w.app.now(), Event: "opened again"}, "the wallet or its places were changed: opening it again")
		default:
			return err
		}
	}
}

// ended says that nothing is watched any more, why, and what is not saved.
func (w *watch) ended(err error) {
	line := "ENDED, changes from now on are not saved: " + errorText(err)
	w.mu.Lock()
	items := slices.Clone(w.unsaved)
	w.mu.Unlock()
	if len(items) > 0 {
		line += "; not saved: " + itemNames("", items)
	}
	w.tell(event{JSON: eventJSON{Time: w.app.now(), Event: "ended", Items: items, Error: errorText(err), Code: int(codeOf(err))}, Line: line, Err: err})
}

// noting takes note of the changes of a source that could not be kept.
type noting struct {
	source.Source
	w *watch
}

func (n noting) Run(ctx context.Context, save func(context.Context, ...source.Change) error) error {
	var mine []string // Another source that saves says nothing about these.
	return n.Source.Run(ctx, func(ctx context.Context, changes ...source.Change) error {
		err := save(ctx, changes...)
		n.w.mu.Lock()
		defer n.w.mu.Unlock()
		n.w.unsaved = slices.DeleteFunc(n.w.unsaved, func(name string) bool {
			return slices.Contains(mine, name) || slices.ContainsFunc(changes, func(c source.Change) bool { return c.Name == name })
		})
		mine = nil
		if err != nil {
			for _, c := range changes {
				mine = append(mine, c.Name)
			}
			n.w.unsaved = append(n.w.unsaved, mine...)
		}
		return err
	})
}

// errRewatch says that what is to be watched was changed by another satchel.
var errRewatch = errors.New("other paths are watched")

// session watches until something changes that needs another beginning.
func (w *watch) session(ctx context.Context) error {
	w.back(0)
	rec, err := w.read()
	if err != nil {
		return err
	}
	d, err := w.device()
	if err != nil {
		return err
	}
	cfg, err := w.app.deviceConfig(d)
	if err != nil {
		return err
	}
	if w.progress != nil {
		cfg.Progress = w.progress
	}
	b, err := w.open(ctx, cfg)
	if err != nil {
		return err
	}
	defer b.Close()
	sources, err := w.sources(rec, b)
	if err != nil {
		return err
	}
	if w.have != nil {
		w.have(b)
		defer w.have(nil)
	}
	w.event(eventJSON{Time: w.app.now(), Event: "watching", Paths: rec.all(), standing: standingOf(b.Status())}, w.watching(rec, b.Status()))
	ctx, cancel := context.WithCancelCause(ctx)
	var follower sync.WaitGroup
	defer follower.Wait()
	defer cancel(nil)
	follower.Go(func() { w.follow(ctx, rec, cancel) })
	if rec.LND != nil && rec.LND.Restoring {
		follower.Go(func() { w.awaitLNDRestore(ctx, *rec.LND) })
	}
	every, first := w.every, time.Duration(0)
	if every == 0 {
		every = -1
	}
	if !w.checkAt.IsZero() {
		first = max(w.checkAt.Sub(w.app.now()), time.Second)
	}
	err = agent.Run(ctx, b, agent.Config{Sources: sources, CheckEvery: every, FirstCheck: first, Keep: w.keep, Report: w.report, Asks: w.asks, Due: w.due, Now: w.app.now})
	if errors.Is(context.Cause(ctx), errRewatch) {
		return errRewatch
	}
	if names, ok := unsent(b, b.Status()); ok && err != nil {
		w.mu.Lock()
		w.unsaved = slices.Compact(slices.Sorted(slices.Values(append(w.unsaved, names...))))
		w.mu.Unlock()
	}
	return err
}

// sources are where the items of a wallet come from: all that its record names.
func (w *watch) sources(rec watchRecord, b *satchel.Backup) ([]source.Source, error) {
	var list []source.Source
	if len(rec.Paths) > 0 {
		src, err := w.source(rec)
		if err != nil {
			return nil, err
		}
		list = append(list, src)
	}
	if rec.CLN != nil {
		src, err := w.clnSource(*rec.CLN, b)
		if err != nil {
			return nil, err
		}
		list = append(list, src)
	}
	if rec.LND != nil {
		src, err := w.lndSource(*rec.LND, b)
		if err != nil {
			return nil, err
		}
		list = append(list, src)
		w.opening = "" // Each session tells it.
		w.openLeft()
	}
	list = append(list, w.more...)
	for i, src := range list {
		list[i] = noting{src, w}
	}
	return list, nil
}

// openLeft tells of an open of a channel that was cut short, and when there is none any more.
func (w *watch) openLeft() {
	o, left := w.app.lndLeft(w.name)
	if !left {
		if w.opening != "" {
			w.opening = ""
			w.event(eventJSON{Time: w.app.now(), Event: "open unfinished"}, "no open of a channel is unfinished any more")
		}
		return
	}
	e := eventJSON{Time: w.app.now(), Event: "open unfinished"}
	err := fmt.Errorf("%w, and its record cannot be read", lnd.ErrUnfinished)
	if o.State != openUnreadable {
		err = fmt.Errorf("%w, begun %s", lnd.ErrUnfinished, moment(o.Begun))
		e.Since = stamp(o.Begun)
	}
	if e.Error, e.Code = errorText(err), int(codeOf(err)); e.Error != w.opening {
		w.opening = e.Error
		w.tell(event{JSON: e, Line: e.Error + "; " + hintFor(err), Err: err})
	}
}

// openEvery is how often is looked for an open of a channel that was cut short.
const openEvery = time.Minute

// back says that this goes on within a time, and some minutes more.
func (w *watch) back(d time.Duration) {
	if w.due != nil {
		w.due(time.Now().Add(d + dueGrace))
	}
}

// dueGrace is what is added to the time that a step may take, before it counts as one
// that hangs.
const dueGrace = 5 * time.Minute

// open opens the wallet, however long another satchel has it open.
func (w *watch) open(ctx context.Context, cfg satchel.Config) (*satchel.Backup, error) {
	for {
		w.back(busyWait)
		b, err := w.app.openWhenFree(ctx, cfg)
		if !errors.Is(err, satchel.ErrBusy) {
			return b, err
		}
	}
}

// device returns the wallet as it is now.
func (w *watch) device() (device, error) {
	home, err := w.app.home()
	if err != nil {
		return device{}, err
	}
	dir := filepath.Join(home, "wallets", w.name)
	info, err := satchel.ReadDevice(dir)
	return device{w.name, dir, info}, err
}

// followEvery is how often is looked whether other paths are to be watched.
const followEvery = 2 * time.Second

// follow cancels when another satchel changed what is to be watched.
func (w *watch) follow(ctx context.Context, was watchRecord, cancel context.CancelCauseFunc) {
	last := fileStamp{size: -1}
	looked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(followEvery):
		}
		if was.LND != nil && time.Since(looked) >= openEvery {
			looked = time.Now()
			w.openLeft()
		}
		now := w.recordStamp()
		if now == last && !now.recent() {
			continue // There may be many wallets, and nearly always it is so.
		}
		last = now
		if rec, err := w.read(); err == nil && !rec.equal(was) {
			cancel(errRewatch)
			return
		}
	}
}

// source returns the source of what is to be watched.
func (w *watch) source(rec watchRecord) (*file.Source, error) {
	exclude, err := w.own()
	if err != nil {
		return nil, err
	}
	return file.New(file.Config{Paths: rec.Paths, Exclude: exclude, Removals: rec.Removals, Output: w.app.output(), Report: w.leftOut, Often: w.often, Notifier: w.notifier})
}

// output returns the files that this process writes to: a log in a folder that it
// watches would grow with each save of it.
func (a *app) output() []fs.FileInfo {
	if a.outer != nil {
		return a.outer.output()
	}
	var files []fs.FileInfo
	for _, stream := range []io.Writer{a.stdout, a.stderr} {
		f, ok := stream.(*os.File)
		if !ok {
			continue
		}
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			files = append(files, info)
		}
	}
	return files
}

// own lists what is Satchel's own: the home of this device, and the backups in
// folders. To save them would change them.
func (w *watch) own() ([]string, error) {
	home, err := w.app.home()
	if err != nil {
		return nil, err
	}
	own := []string{home}
	devices, err := w.app.devices()
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		for _, address := range d.info.Places {
			dir, ok := strings.CutPrefix(address, "folder:")
			if !ok {
				continue
			}
			own = append(own, filepath.Join(dir, d.info.Folder))
			// Those of other devices: two that save each other's would never end.
			others, _ := os.ReadDir(dir) // If it cannot be read, nothing can be watched in it.
			for _, o := range others {
				if strings.HasPrefix(o.Name(), seal.FolderPrefix) {
					own = append(own, filepath.Join(dir, o.Name()))
				}
			}
		}
	}
	slices.Sort(own)
	return slices.Compact(own), nil
}

// once saves what is there now.
func (w *watch) once(ctx context.Context, d device) error {
	rec, err := w.read()
	if err != nil {
		return err
	}
	b, err := w.app.openDevice(ctx, d)
	if err != nil {
		return err
	}
	defer b.Close()
	changed := 0
	if len(rec.Paths) > 0 {
		src, err := w.source(rec)
		if err != nil {
			return err
		}
		err = src.Once(ctx, func(ctx context.Context, changes ...source.Change) error {
			res, err := agent.Save(ctx, b, changes...)
			changed += res.Changed
			if errors.Is(err, satchel.ErrNotProtected) && ctx.Err() == nil {
				return nil // It is kept, and Sync below says how it stands.
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if rec.CLN != nil {
		kept, _ := keptSecret(b)
		n, err := w.clnOnce(ctx, b, &cln.Node{Dir: rec.CLN.Dir}, kept)
		if changed += n; err != nil && ctx.Err() != nil {
			return err
		}
		if err != nil {
			w.app.note("the Core Lightning node in %s: %s", printable(rec.CLN.Dir), errorText(err))
			w.failed++
		}
	}
	if rec.LND != nil {
		cfg, err := w.app.lndConfig(*rec.LND)
		n := 0
		if err == nil {
			n, err = w.app.lndOnce(ctx, b, *rec.LND, cfg)
		}
		if changed += n; err != nil {
			w.lndReport(err)
			w.failed++
		}
	}
	res, err := b.Sync(ctx)
	res.Changed = changed
	if err := w.app.saved(b, res, err); err != nil {
		return err
	}
	for _, p := range rec.all() {
		if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
			w.app.note("%s is not there", printable(p))
			w.failed++
		}
	}
	if w.failed > 0 {
		w.app.note("not saved as it stands: %s; what was saved before, if anything, is kept", count(w.failed, "watched file"))
		return errPartly
	}
	return nil
}
