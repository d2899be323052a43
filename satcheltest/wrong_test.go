package satcheltest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/satcheltest"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
)

// wrongApp is notesApp with one thing wrong: each field, where it is set, stands in
// for what is right.
type wrongApp struct {
	start   func(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error)
	restore func(ctx context.Context, cfg satchel.Config, code secret.Bytes) (satcheltest.Wallet, error)
	wrong   wrongWallet // its functions only
}

// wrongWallet is notesWallet with one thing wrong.
type wrongWallet struct {
	*notesWallet
	cfg     satchel.Config
	change  func(w *wrongWallet, ctx context.Context, note string) error
	refresh func(w *wrongWallet, ctx context.Context) error
	screen  func(w *wrongWallet, s satcheltest.Screen) satcheltest.Screen
	remove  func(w *wrongWallet, ctx context.Context) error
	kept    []string // for what is kept in memory only
}

func (a wrongApp) wrap(w satcheltest.Wallet, err error, cfg satchel.Config) (satcheltest.Wallet, error) {
	if w == nil {
		return nil, err
	}
	wrong := a.wrong
	wrong.notesWallet, wrong.cfg = w.(*notesWallet), cfg
	return &wrong, err
}

func (a wrongApp) Start(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error) {
	start := notesApp{}.Start
	if a.start != nil {
		start = a.start
	}
	w, err := start(ctx, cfg)
	return a.wrap(w, err, cfg)
}

func (a wrongApp) Restore(ctx context.Context, cfg satchel.Config, code secret.Bytes) (satcheltest.Wallet, error) {
	restore := notesApp{}.Restore
	if a.restore != nil {
		restore = a.restore
	}
	w, err := restore(ctx, cfg, code)
	return a.wrap(w, err, cfg)
}

func (w *wrongWallet) Change(ctx context.Context, note string) error {
	if w.change != nil {
		return w.change(w, ctx, note)
	}
	return w.notesWallet.Change(ctx, note)
}

func (w *wrongWallet) Refresh(ctx context.Context) error {
	if w.refresh != nil {
		return w.refresh(w, ctx)
	}
	return w.notesWallet.Refresh(ctx)
}

func (w *wrongWallet) Screen() satcheltest.Screen {
	s := w.notesWallet.Screen()
	if w.screen != nil {
		s = w.screen(w, s)
	}
	return s
}

func (w *wrongWallet) Remove(ctx context.Context) error {
	if w.remove != nil {
		return w.remove(w, ctx)
	}
	return w.notesWallet.Remove(ctx)
}

// again starts anew where there is a wallet.
func again(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error) {
	if err := os.RemoveAll(cfg.Dir); err != nil {
		return nil, err
	}
	cfg.Keychain = &satcheltest.Keychain{} // The user unlocked it meanwhile.
	return notesApp{}.Start(ctx, cfg)
}

// places are the parts in which a place does not keep a change.
var places = []string{"PlaceUnreachable", "PlaceFull", "SignInNeeded", "WrongAccount", "PlaceLies", "PlaceDamages"}

// wrongs are wallets that are wrong in one way each.
var wrongs = []struct {
	name  string
	app   wrongApp
	parts []string // that must fail
	says  string   // each of them
}{
	{
		"always says protected",
		wrongApp{wrong: wrongWallet{screen: func(_ *wrongWallet, s satcheltest.Screen) satcheltest.Screen {
			s.Protected = true
			return s
		}}},
		append(places, "NoNetworkAtFirst"),
		"says that it is protected",
	},
	{
		"says protected when a place took it once",
		wrongApp{wrong: wrongWallet{screen: func(w *wrongWallet, s satcheltest.Screen) satcheltest.Screen {
			s.Protected = s.Protected || w.b.Status().Places[0].Generation > 0
			return s
		}}},
		[]string{"PlaceFull", "PlaceLies"},
		"says that it is protected",
	},
	{
		"says protected after another took over",
		wrongApp{wrong: wrongWallet{screen: func(w *wrongWallet, s satcheltest.Screen) satcheltest.Screen {
			s.Protected = s.Protected || errors.Is(s.Problem, satchel.ErrOtherDevice)
			return s
		}}},
		[]string{"OlderDevice"},
		"the older device says that it is protected",
	},
	{
		"never says protected",
		wrongApp{wrong: wrongWallet{screen: func(_ *wrongWallet, s satcheltest.Screen) satcheltest.Screen {
			s.Protected = false
			return s
		}}},
		[]string{"NewWallet", "Killed", "NewDevice"},
		"does not say that it is protected",
	},
	{
		"keeps problems to itself",
		wrongApp{wrong: wrongWallet{
			change: func(w *wrongWallet, ctx context.Context, note string) error {
				w.notesWallet.Change(ctx, note)
				return nil
			},
			refresh: func(w *wrongWallet, ctx context.Context) error { w.notesWallet.Refresh(ctx); return nil },
			screen: func(w *wrongWallet, s satcheltest.Screen) satcheltest.Screen {
				s.Problem = nil
				return s
			},
		}},
		[]string{"PlaceLies", "OlderDevice", "NoNetworkAtFirst"},
		"the user is not told",
	},
	{
		"says of every problem that it failed",
		wrongApp{wrong: wrongWallet{
			change: func(w *wrongWallet, ctx context.Context, note string) error {
				w.notesWallet.Change(ctx, note)
				return nil
			},
			refresh: func(w *wrongWallet, ctx context.Context) error {
				if w.notesWallet.Refresh(ctx) != nil {
					return errors.New("backup failed")
				}
				return nil
			},
			screen: func(w *wrongWallet, s satcheltest.Screen) satcheltest.Screen {
				if s.Problem != nil {
					s.Problem = errors.New("backup failed")
				}
				return s
			},
		}},
		[]string{"PlaceUnreachable", "OlderDevice"},
		"the user is told something else",
	},
	{
		"a new wallet when the key cannot be had",
		wrongApp{start: func(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error) {
			w, err := notesApp{}.Start(ctx, cfg)
			if errors.Is(err, satchel.ErrDeviceKey) {
				return again(ctx, cfg)
			}
			return w, err
		}},
		[]string{"KeychainLocked", "KeychainLost"},
		"must be an error that the user sees",
	},
	{
		"no word when the key cannot be had",
		wrongApp{start: func(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error) {
			w, err := notesApp{}.Start(ctx, cfg)
			if errors.Is(err, satchel.ErrDeviceKey) {
				return nil, nil
			}
			return w, err
		}},
		[]string{"KeychainLocked", "KeychainLost"},
		"neither a wallet nor an error",
	},
	{
		"a new wallet at every start",
		wrongApp{start: again},
		[]string{"NewWallet", "Killed", "KilledBeforeUpload", "NotOverwritten"},
		"", // Another wallet, or that satchel cannot open it.
	},
	{
		"a new wallet when there is nothing to restore",
		wrongApp{restore: func(ctx context.Context, cfg satchel.Config, code secret.Bytes) (satcheltest.Wallet, error) {
			w, err := notesApp{}.Restore(ctx, cfg, code)
			if err != nil {
				return notesApp{}.Start(ctx, cfg)
			}
			return w, nil
		}},
		[]string{"NothingToRestore", "PlaceSilentAtRestore", "WrongCode", "NotOverwritten"},
		"must be an error and no wallet",
	},
	{
		"nothing found when the place is silent",
		wrongApp{restore: func(ctx context.Context, cfg satchel.Config, code secret.Bytes) (satcheltest.Wallet, error) {
			if found, _ := satchel.Find(ctx, cfg); len(found) == 0 {
				return nil, satchel.ErrNoBackup
			}
			return notesApp{}.Restore(ctx, cfg, code)
		}},
		[]string{"PlaceSilentAtRestore"},
		"is told as something else",
	},
	{
		"any error is a wrong code",
		wrongApp{restore: func(ctx context.Context, cfg satchel.Config, code secret.Bytes) (satcheltest.Wallet, error) {
			w, err := notesApp{}.Restore(ctx, cfg, code)
			if err != nil {
				return nil, slot.ErrWrongSecret
			}
			return w, nil
		}},
		[]string{"NothingToRestore", "PlaceSilentAtRestore"},
		"is told as something else",
	},
	{
		"a failed restore leaves something behind",
		wrongApp{restore: func(ctx context.Context, cfg satchel.Config, code secret.Bytes) (satcheltest.Wallet, error) {
			w, err := notesApp{}.Restore(ctx, cfg, code)
			if err != nil {
				os.Mkdir(cfg.Dir, 0o700)
				return nil, err
			}
			return w, nil
		}},
		[]string{"WrongCode", "PlaceSilentAtRestore"},
		"cannot be restored",
	},
	{
		"restores the first that it finds",
		wrongApp{restore: func(ctx context.Context, cfg satchel.Config, code secret.Bytes) (satcheltest.Wallet, error) {
			way, err := slot.RecoveryCode(code)
			if err != nil {
				return nil, err
			}
			found, err := satchel.Find(ctx, cfg)
			if len(found) == 0 {
				return nil, err
			}
			opened, err := found[0].Open(ctx, way)
			if err != nil {
				return nil, err
			}
			b, _, err := opened.Restore(ctx, cfg, satchel.RestoreOptions{})
			if b == nil {
				return nil, err
			}
			return &notesWallet{b: b, problem: err}, nil
		}},
		[]string{"TwoWallets"},
		"cannot be restored",
	},
	{
		"restores over what is there",
		wrongApp{restore: func(ctx context.Context, cfg satchel.Config, code secret.Bytes) (satcheltest.Wallet, error) {
			os.RemoveAll(cfg.Dir)
			return notesApp{}.Restore(ctx, cfg, code)
		}},
		[]string{"NotOverwritten"},
		"must be an error and no wallet",
	},
	{
		"restores the wallet and not the notes",
		wrongApp{wrong: wrongWallet{
			change: func(w *wrongWallet, ctx context.Context, note string) error {
				w.kept = append(w.kept, note)
				f, err := os.OpenFile(filepath.Join(filepath.Dir(w.cfg.Dir), "notes"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
				if err != nil {
					return err
				}
				_, err = f.WriteString(note + "\n")
				return errors.Join(err, f.Close(), w.notesWallet.Refresh(ctx))
			},
			screen: func(w *wrongWallet, s satcheltest.Screen) satcheltest.Screen {
				text, _ := os.ReadFile(filepath.Join(filepath.Dir(w.cfg.Dir), "notes"))
				s.Notes = strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
				return s
			},
		}},
		[]string{"Killed", "NewDevice", "OlderDevice"},
		"is not in the state that was backed up",
	},
	{
		"saves when it is closed",
		wrongApp{wrong: wrongWallet{
			change: func(w *wrongWallet, _ context.Context, note string) error {
				w.kept = append(w.kept, note)
				return nil
			},
			screen: func(w *wrongWallet, s satcheltest.Screen) satcheltest.Screen {
				s.Notes = append(s.Notes, w.kept...)
				return s
			},
		}},
		[]string{"Killed", "NewWallet"},
		"is not in the state that was backed up",
	},
	{
		"changes are not sent",
		wrongApp{wrong: wrongWallet{
			change: func(w *wrongWallet, ctx context.Context, note string) error { return nil },
		}},
		[]string{"KilledBeforeUpload", "KilledAfterUpload"},
		"a change is lost",
	},
	{
		"drops a change that a place did not take",
		wrongApp{wrong: wrongWallet{
			change: func(w *wrongWallet, ctx context.Context, note string) error {
				if w.notesWallet.Change(ctx, note); w.problem != nil {
					w.kept = append(w.kept, note)
				}
				return nil
			},
			screen: func(w *wrongWallet, s satcheltest.Screen) satcheltest.Screen {
				s.Notes = slices.DeleteFunc(s.Notes, func(n string) bool { return slices.Contains(w.kept, n) })
				return s
			},
		}},
		[]string{"PlaceFull", "PlaceLies"},
		"a change is lost",
	},
	{
		"does not catch up",
		wrongApp{
			start: func(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error) {
				b, err := satchel.Open(cfg)
				if err != nil {
					return notesApp{}.Start(ctx, cfg)
				}
				return &notesWallet{b: b}, nil
			},
			wrong: wrongWallet{refresh: func(w *wrongWallet, _ context.Context) error { return w.problem }},
		},
		[]string{"PlaceDamages", "NoNetworkAtFirst", "KilledBeforeUpload"},
		"does not say that it is protected",
	},
	{
		"believes that what was there is there",
		wrongApp{wrong: wrongWallet{refresh: func(*wrongWallet, context.Context) error { return nil }}},
		[]string{"PlaceLosesEverything"},
		"says that it is protected",
	},
	{
		"does not open without its place",
		wrongApp{start: func(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error) {
			w, err := notesApp{}.Start(ctx, cfg)
			if err != nil {
				return nil, err
			}
			if err := w.Screen().Problem; err != nil {
				return nil, errors.Join(err, w.Close())
			}
			return w, nil
		}},
		[]string{"PlaceUnreachable", "OlderDevice"},
		"does not start",
	},
	{
		"takes a wallet that could not be uploaded for none",
		wrongApp{start: func(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error) {
			w, err := notesApp{}.Start(ctx, cfg)
			if err != nil {
				return nil, err
			}
			if err := w.Screen().Problem; err != nil && !w.Screen().Code.Empty() {
				return nil, errors.Join(err, w.Close())
			}
			return w, nil
		}},
		[]string{"NoNetworkAtFirst"},
		"never saw what opens the backup",
	},
	{
		"makes another wallet when the first could not be uploaded",
		wrongApp{start: func(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error) {
			if b, err := satchel.Open(cfg); err == nil {
				never := b.Status().Verified.IsZero()
				b.Close()
				if never {
					return again(ctx, satchel.Config{Dir: cfg.Dir, Places: cfg.Places, Settle: -1})
				}
			}
			return notesApp{}.Start(ctx, cfg)
		}},
		[]string{"NoNetworkAtFirst"},
		"", // The kit cannot open it, as its key is elsewhere.
	},
	{
		"another backup of the wallet at every start",
		wrongApp{start: func(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error) {
			w, err := notesApp{}.Start(ctx, cfg)
			if err != nil || !w.Screen().Code.Empty() {
				return w, err
			}
			keys, err := w.(*notesWallet).b.Keys()
			if err != nil {
				return nil, err
			}
			cfg.Dir += "-again"
			way, _ := slot.NewRecoveryCode()
			b, err := satchel.Create(ctx, cfg, satchel.Plan{Label: "Again", Keys: keys, Slots: []slot.Secret{way}})
			if err != nil {
				return nil, err
			}
			return w, b.Close()
		}},
		[]string{"NewWallet", "KilledAfterUpload", "KeychainLocked"},
		"the cloud holds 2 backups",
	},
	{
		"shows no code",
		wrongApp{wrong: wrongWallet{screen: func(_ *wrongWallet, s satcheltest.Screen) satcheltest.Screen {
			s.Code = secret.Bytes{}
			return s
		}}},
		[]string{"NewWallet", "NewDevice"},
		"nobody could restore it",
	},
	{
		"the same wallet for everybody",
		wrongApp{wrong: wrongWallet{screen: func(_ *wrongWallet, s satcheltest.Screen) satcheltest.Screen {
			s.Wallet = "my wallet"
			return s
		}}},
		[]string{"TwoWallets"},
		"made the same wallet",
	},
	{
		"the older device takes its file away",
		wrongApp{wrong: wrongWallet{refresh: func(w *wrongWallet, ctx context.Context) error {
			err := w.notesWallet.Refresh(ctx)
			if errors.Is(err, satchel.ErrOtherDevice) {
				emptyPlace(ctx, w.cfg)
			}
			return err
		}}},
		[]string{"OlderDevice"},
		"changed what the place holds",
	},
	{
		"deletes the backup with the wallet",
		wrongApp{wrong: wrongWallet{remove: func(w *wrongWallet, ctx context.Context) error {
			emptyPlace(ctx, w.cfg)
			return w.b.Forget()
		}}},
		[]string{"RemovedHere"},
		"removed its backup from the cloud too",
	},
	{
		"does not remove the wallet",
		wrongApp{wrong: wrongWallet{remove: func(w *wrongWallet, ctx context.Context) error { return w.b.Close() }}},
		[]string{"RemovedHere"},
		"cannot be restored",
	},
	{
		"a second copy in clear",
		wrongApp{wrong: wrongWallet{change: func(w *wrongWallet, ctx context.Context, note string) error {
			w.cfg.Places[0].Store.Put(ctx, "notes.txt", []byte(note))
			return w.notesWallet.Change(ctx, note)
		}}},
		[]string{"NewWallet"},
		`the note "for the green bicycle, instalment 1" went to the cloud in clear`,
	},
	{
		"the words in clear",
		wrongApp{wrong: wrongWallet{change: func(w *wrongWallet, ctx context.Context, note string) error {
			k, err := w.b.Keys()
			if err != nil {
				return err
			}
			w.cfg.Places[0].Store.Put(ctx, "words.json", bytes.ReplaceAll(k.Words().Sentence().Open(), []byte(" "), []byte(`","`)))
			return w.notesWallet.Change(ctx, note)
		}}},
		[]string{"NewWallet"},
		"the words of the wallet",
	},
	{
		"the code in clear",
		wrongApp{start: func(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error) {
			w, err := notesApp{}.Start(ctx, cfg)
			if err == nil && !w.Screen().Code.Empty() {
				cfg.Places[0].Store.Put(ctx, "code.txt", w.Screen().Code.Open())
			}
			return w, err
		}},
		[]string{"NewWallet"},
		"what opens the backup went to the cloud in clear",
	},
	{
		"a Dir of its own",
		wrongApp{start: func(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error) {
			cfg.Dir += "-mine"
			return notesApp{}.Start(ctx, cfg)
		}},
		[]string{"NewWallet"},
		"must keep it in the Dir",
	},
	{
		"one code for all",
		wrongApp{start: func(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error) {
			b, err := satchel.Open(cfg)
			if err == nil {
				return &notesWallet{b: b}, nil
			}
			keys, err := wallet.New(wallet.Testnet, 12, "")
			if err != nil {
				return nil, err
			}
			_, code := sameCode()
			way, err := slot.RecoveryCode(code)
			if err != nil {
				return nil, err
			}
			if b, err = satchel.Create(ctx, cfg, satchel.Plan{Label: "Same", Keys: keys, Slots: []slot.Secret{way}}); b == nil {
				return nil, err
			}
			return &notesWallet{b: b, code: code, problem: err}, nil
		}},
		[]string{"WrongCode"},
		"the same Screen.Code",
	},
}

// A wallet that is wrong in one way fails in the parts where that hurts, in words
// that say what is wrong.
func TestWrongWallets(t *testing.T) {
	for _, test := range wrongs {
		t.Run(test.name, func(t *testing.T) {
			for _, part := range test.parts {
				failures := walk(t, test.app, part)
				if len(failures) == 0 {
					t.Errorf("%s passes", part)
				} else if !slices.ContainsFunc(failures, func(f string) bool { return strings.Contains(f, test.says) }) {
					t.Errorf("%s: got %q, want one that says %q", part, failures, test.says)
				}
			}
		})
	}
}

// There is no part of the journey that no wallet fails, and none that is not told
// of.
func TestEveryPart(t *testing.T) {
	page, err := os.ReadFile("../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	failed := map[string]bool{}
	for _, test := range wrongs {
		for _, part := range test.parts {
			failed[part] = true
		}
	}
	for _, part := range satcheltest.Parts() {
		if !failed[part] {
			t.Errorf("%s: no wallet of the test is wrong there", part)
		}
		if !strings.Contains(string(page), "`"+part+"`") {
			t.Errorf("%s: docs/testing.md says nothing of it", part)
		}
		delete(failed, part)
	}
	for part := range failed {
		t.Errorf("%s is no part of the journey", part)
	}
}

var sameCode = sync.OnceValues(slot.NewRecoveryCode)

// emptyPlace deletes all that is in the first place.
func emptyPlace(ctx context.Context, cfg satchel.Config) {
	var list []store.Object
	list, _ = cfg.Places[0].Store.List(ctx, "")
	for _, o := range list {
		cfg.Places[0].Store.Delete(ctx, o)
	}
}

// recorder is a test that fails without failing the test that runs it.
type recorder struct {
	*testing.T
	mu       sync.Mutex
	failures []string // guarded by mu
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// walk returns what a part of the journey fails with.
func walk(t *testing.T, app satcheltest.App, part string) []string {
	r := &recorder{T: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		satcheltest.Walk(r, app, part)
	}()
	<-done
	return r.failures
}
