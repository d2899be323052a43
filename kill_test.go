package satchel_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
	"github.com/satchel-backup/satchel/wallet"
)

// killEnv says how many of the kills TestKills tries: "all", "50" for a random
// fiftieth, or one of them by its name, such as "save/3/117". Without it, one of
// each in handful. seedEnv repeats a random choice.
const (
	killEnv = "SATCHEL_KILL"
	seedEnv = "SATCHEL_KILL_SEED"
)

var handful = []string{"create/1", "save/3", "takeover/1", "heal/1", "prune/1", "rekey/1", "change-pin/1"}

// A process that has victimEnv set is a victim of TestKills: it does the operation
// that the variable tells in the world that it tells, and kills itself on the way.
const victimEnv = "SATCHEL_TEST_VICTIM"

// setting is a directory with all there is: devices with their keychains, and places.
//
//	<device>/<name>      the device's directory; what is being made stands beside it
//	<device>/keychain    its keychain, of files
//	place-<n>            folders that sync
//	guard-<n>            key servers, see keyServers
type setting struct {
	dir     string
	servers *keyServers
	hook    func(durable.Step) error

	Places int
	Device string // the device at work
	Code   string // the recovery code
	Second string // the recovery code of another slot
	SlotID string // of that slot, if it is there from the start
	Keys   string // the wallet's, as text
	Fresh  bool   // nothing was made yet: the places are being chosen
	Name   string // of the device's directory
	Guards int    // key servers; without any it has no PIN
	PIN    string // that Create sets; "" for none

	out    func(ack)         // told what is acknowledged
	read   func(path string) // told what a place was asked for and gave; may be nil
	values map[string]string // that the wallet should have
	slots  int               // that it should have
	killed int               // the step in which a process was killed
}

// state is what a device or a stranger has of a wallet.
type state struct {
	Generation uint64
	Slots      int
	Values     map[string]string
}

func (s state) same(o state) bool { return s.Slots == o.Slots && maps.Equal(s.Values, o.Values) }

func (s state) String() string {
	return fmt.Sprintf("generation %d, %d slots, %v", s.Generation, s.Slots, short(s.Values))
}

// ack is what the SDK promised when it returned success.
type ack struct {
	Device string
	State  state
	Places []uint64 // the newest generation that each place was said to hold
	Done   string   // said instead by an operation that ends the backup
}

func (w *setting) clone(dir string) *setting {
	c := *w
	c.dir, c.hook, c.out, c.read = dir, nil, nil, nil
	c.servers = newKeyServers(dir)
	return &c
}

func (w *setting) place(i int) string { return filepath.Join(w.dir, fmt.Sprintf("place-%d", i)) }

func (w *setting) wallet(device string) string { return filepath.Join(w.dir, device, w.Name) }

// config returns the Config of a device in this world.
func (w *setting) config(device string) (satchel.Config, error) {
	cfg := satchel.Config{Dir: w.wallet(device), Settle: -1, Copies: min(w.Places, 2), Now: func() time.Time { return time.Unix(1_790_000_000, 0) }}
	cfg.SetHook(w.hook)
	k := keychain.File(filepath.Join(w.dir, device, "keychain"))
	k.Hook = w.hook
	cfg.Keychain = k
	if w.Guards > 0 {
		cfg.Guardians = w.servers.client(w.hook)
	}
	for i := range w.Places {
		dir := w.place(i)
		c := folder.Config{Create: w.Fresh}
		if w.hook != nil {
			c.Hook = func(s durable.Step) error {
				if !filepath.IsAbs(s.Path) {
					s.Path = filepath.Join(dir, s.Path)
				}
				return w.hook(s)
			}
		}
		s, err := folder.New(dir, c)
		if err != nil {
			return cfg, err
		}
		p := store.Place{Address: fmt.Sprintf("place-%d", i), Store: s}
		if w.read != nil {
			p.Store = &readStore{s, func(name string) { w.read(filepath.Join(dir, filepath.FromSlash(name))) }}
		}
		cfg.Places = append(cfg.Places, p)
	}
	return cfg, nil
}

// readStore tells what was fetched whole from a store.
type readStore struct {
	store.Store
	read func(name string)
}

func (r *readStore) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	data, err := r.Store.Get(ctx, name, want, limit)
	if err == nil {
		r.read(name)
	}
	return data, err
}

func (w *setting) way() slot.Secret    { return code(w.Code) }
func (w *setting) second() slot.Secret { return code(w.Second) }

func code(text string) slot.Secret {
	s, err := slot.RecoveryCode(secret.New([]byte(text)))
	if err != nil {
		panic(err)
	}
	return s
}

// open opens the wallet of the device at work and lets do use it.
func (w *setting) open(do func(b *satchel.Backup) error) error {
	cfg, err := w.config(w.Device)
	if err != nil {
		return err
	}
	b, err := satchel.Open(cfg)
	if err != nil {
		return err
	}
	defer b.Close()
	w.take(b)
	return do(b)
}

// take begins with what the device has.
func (w *setting) take(b *satchel.Backup) {
	s, err := stateOf(b)
	if err != nil {
		panic(err)
	}
	w.values, w.slots = s.Values, s.Slots
}

// owner opens the wallet and unlocks it.
func (w *setting) owner(do func(b *satchel.Backup, o *satchel.Owner) error) error {
	return w.open(func(b *satchel.Backup) error {
		o, err := b.Unlock(context.Background(), w.way())
		if err != nil {
			return err
		}
		return do(b, o)
	})
}

// acknowledged is called with what the SDK returned, before anything else is
// done: nil and ErrNotProtected both promise that the changes are safe on this
// device. The promise is written down with what the caller asked for, and not with
// what the device says that it has.
func (w *setting) acknowledged(b *satchel.Backup, err error, slots int, changes ...satchel.Change) error {
	if err != nil && !errors.Is(err, satchel.ErrNotProtected) {
		return err
	}
	w.values = maps.Clone(w.values)
	for _, c := range changes {
		if w.values[c.Name] = string(c.Value); c.Remove {
			delete(w.values, c.Name)
		}
	}
	w.slots += slots
	st := b.Status()
	a := ack{Device: w.Device, State: state{st.Generation, w.slots, w.values}}
	for _, p := range st.Places {
		if p.Health != satchel.HealthProtected {
			p.Generation = 0
		}
		a.Places = append(a.Places, p.Generation)
	}
	w.say(a)
	return nil
}

func (w *setting) say(a ack) {
	if w.out != nil {
		w.out(a)
	}
}

func stateOf(b *satchel.Backup) (state, error) {
	s := state{b.Status().Generation, len(b.Slots()), map[string]string{}}
	for _, it := range b.Items() {
		v, err := b.Get(it.Name)
		if err != nil {
			return s, err
		}
		s.Values[it.Name] = string(v.Open())
	}
	return s, nil
}

// job names one victim.
type job struct {
	Dir, Operation string
	Step           int // of the hook's calls; the victim dies in it
	World          *setting
}

// victim does a job. It prints what is acknowledged, line by line.
func victim(spec string) {
	var j job
	if err := json.Unmarshal([]byte(spec), &j); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	w := j.World
	w.dir, w.servers = j.Dir, newKeyServers(j.Dir)
	w.out = func(a ack) {
		line, err := json.Marshal(a)
		if err != nil {
			panic(err)
		}
		os.Stdout.Write(append(line, '\n'))
	}
	calls := 0
	w.hook = func(durable.Step) error {
		if calls == j.Step {
			self, _ := os.FindProcess(os.Getpid())
			self.Kill()
			select {} // Until the signal is there.
		}
		calls++
		return nil
	}
	if err := operations[j.Operation].do(w); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// operation is what a process may be at when it is killed.
type operation struct {
	// prepare makes the world in which it begins. The world is empty, and has its
	// secrets and an empty folder for each place.
	prepare func(w *setting) error
	// do is the operation itself. It calls acknowledged, or say, as soon as the SDK
	// returned success.
	do func(w *setting) error
	// again does what the user would do after the crash. Nil means Sync.
	again func(w *setting) error
	// steps are some without which it would not be what its name says, as
	// "<op> <end of the path's first part>".
	steps []string
	// lost are places that were broken before: what was acknowledged of them does
	// not bind.
	lost []int
	// judge looks at what is left, if it is not as for the others.
	judge func(t *testing.T, s *killing, w *setting, acked bool)
	// pins are those that it is about; nil if it is about none.
	pins *pins
	// ends says that the operation ends the backup: from its beginning on, nobody
	// needs to be able to restore.
	ends bool
}

var operations = map[string]operation{
	"create": {
		prepare: func(*setting) error { return nil },
		do:      doCreate,
		again: func(w *setting) error {
			err := w.open(bringUp)
			if errors.Is(err, satchel.ErrNoDevice) {
				err = doCreate(w)
			}
			return err
		},
		steps: []string{"sync .satchel-staging", "rename wallet", "link keys", "link snapshots", "link slots"},
	},
	"save": {
		prepare: func(w *setting) error { return prepareSaves(w, 2) },
		do:      doSave,
		steps:   []string{"append state.log", "link snapshots", "link items"},
	},
	"checkpoint": {
		prepare: func(w *setting) error { return prepareSaves(w, 64) },
		do:      doSave,
		steps:   []string{"rename state.log", "link snapshots", "link items"},
	},
	"add-slot": {
		prepare: func(w *setting) error { return prepareSaves(w, 2) },
		do: func(w *setting) error {
			return w.owner(func(b *satchel.Backup, o *satchel.Owner) error {
				_, err := o.AddSlot(context.Background(), w.second())
				return w.acknowledged(b, err, 1)
			})
		},
		steps: []string{"link slots"},
	},
	"remove-slot": {
		prepare: func(w *setting) error { return cmpErr(prepareSaves(w, 2), func() error { return addSecond(w) }) },
		do:      removeSecond,
		again: func(w *setting) error {
			err := removeSecond(w)
			if errors.Is(err, satchel.ErrNoSlot) {
				err = w.open(bringUp)
			}
			return err
		},
		steps: []string{"remove slots"},
	},
	"takeover": {
		prepare: func(w *setting) error {
			err := prepareSaves(w, 3)
			w.Device = "b"
			return err
		},
		do:    doRestore,
		again: restoreAgain,
		steps: []string{"rename wallet", "link snapshots"},
	},
	// The device is gone and, of several places, one is behind.
	"restore": {
		prepare: func(w *setting) error {
			if err := prepareSaves(w, 2); err != nil {
				return err
			}
			last := w.place(w.Places - 1)
			if w.Places > 1 {
				if err := os.Rename(last, last+".away"); err != nil {
					return err
				}
			}
			if err := doSave(w); err != nil {
				return err
			}
			if w.Places > 1 {
				if err := os.Rename(last+".away", last); err != nil {
					return err
				}
			}
			w.Device = "b"
			return os.RemoveAll(filepath.Join(w.dir, "a"))
		},
		do:    doRestore,
		again: restoreAgain,
		steps: []string{"rename wallet", "link snapshots"},
	},
	// A place lost some of what it held.
	"heal": {
		prepare: func(w *setting) error {
			if err := prepareSaves(w, 3); err != nil {
				return err
			}
			for _, part := range []string{"items/*/*-*", "snapshots/*-0000000002-*", "README.txt", "slots/*"} {
				list, err := filepath.Glob(filepath.Join(w.place(0), "*", part))
				if err != nil || len(list) == 0 {
					return fmt.Errorf("nothing to lose in %s: %v", part, err)
				}
				for _, path := range list {
					if err := os.Remove(path); err != nil {
						return err
					}
				}
			}
			return nil
		},
		do: func(w *setting) error {
			return w.open(func(b *satchel.Backup) error {
				if r, err := b.Check(context.Background()); !errors.Is(err, satchel.ErrMissing) {
					return fmt.Errorf("check of what is broken: %+v, %w", r, err)
				}
				_, err := b.Sync(context.Background())
				return w.acknowledged(b, err, 0)
			})
		},
		lost:  []int{0},
		steps: []string{"link items", "link snapshots", "link slots", "link README.txt"},
	},
	"compact": {
		prepare: func(w *setting) error { return prepareSaves(w, 3) },
		do:      doCompact,
		steps:   []string{"rename state.log", "link items", "link snapshots"},
	},
	"prune": {
		prepare: prepareCheckpoints,
		do:      doPrune,
		again:   doPrune,
		steps:   []string{"remove items", "remove snapshots"},
	},
	// What an older device left goes too.
	"prune-owner": {
		prepare: func(w *setting) error {
			if err := prepareCheckpoints(w); err != nil {
				return err
			}
			w.Device = "b"
			return cmpErr(doRestore(w), func() error { return doCompact(w) })
		},
		do:    doOwnerPrune,
		again: doOwnerPrune,
		steps: []string{"remove items", "remove snapshots"},
	},
	"revert": {
		prepare: func(w *setting) error { return prepareSaves(w, 3) },
		do: func(w *setting) error {
			ctx := context.Background()
			return w.owner(func(b *satchel.Backup, o *satchel.Owner) error {
				history, err := b.History(ctx)
				if err != nil {
					return err
				}
				i := slices.IndexFunc(history, func(m satchel.Moment) bool { return m.Generation == 2 })
				if i < 0 {
					return fmt.Errorf("generation 2 is not in %+v", history)
				}
				_, err = o.Revert(ctx, history[i].Snapshot)
				return w.acknowledged(b, err, 0, item("settings", "0"))
			})
		},
		steps: []string{"append state.log", "link snapshots"},
	},
	"rekey": {
		prepare: func(w *setting) error { return prepareSaves(w, 2) },
		do:      doRekey,
		judge:   judgeRekey,
		steps:   []string{"rename .satchel-rekey-", "rename renewed", "link slots", "link snapshots", "remove slots", "remove snapshots", "rename .satchel-staging-"},
	},
	// The first PIN.
	"pin": {
		prepare: func(w *setting) error {
			w.Guards = worldGuard
			return prepareSaves(w, 2)
		},
		do:    doChangePIN,
		again: func(w *setting) error { return changeAgain(w, "") },
		pins:  &pins{"", newPIN},
		steps: []string{"ask create", "append state.log", "link slots", "ask confirm", "ask puthead"},
	},
	// Another PIN, and another key server in the place of one.
	"change-pin": {
		prepare: preparePIN,
		do:      doChangePIN,
		again:   func(w *setting) error { return changeAgain(w, oldPIN) },
		pins:    &pins{oldPIN, newPIN},
		steps:   []string{"ask create", "append state.log", "link slots", "ask confirm", "ask delete", "remove slots", "ask puthead"},
	},
	"remove-pin": {
		prepare: preparePIN,
		do:      removeSecond,
		again: func(w *setting) error {
			err := removeSecond(w)
			if errors.Is(err, satchel.ErrNoSlot) {
				err = w.open(bringUp)
			}
			return err
		},
		pins:  &pins{oldPIN, ""},
		steps: []string{"ask delete", "remove slots"},
	},
	"create-pin": {
		prepare: func(w *setting) error {
			w.Guards, w.PIN = worldGuard, newPIN
			return nil
		},
		do: doCreate,
		again: func(w *setting) error {
			err := w.open(bringUp)
			if errors.Is(err, satchel.ErrNoDevice) {
				err = doCreate(w)
			}
			return err
		},
		pins:  &pins{"", newPIN},
		steps: []string{"ask create", "rename wallet", "link slots", "ask confirm", "ask puthead"},
	},
	// With nothing but the PIN.
	"takeover-pin": {
		prepare: func(w *setting) error {
			err := preparePIN(w)
			w.Device = "b"
			return err
		},
		do: doRestorePIN,
		again: func(w *setting) error {
			err := w.open(bringUp)
			if errors.Is(err, satchel.ErrNoDevice) {
				err = doRestorePIN(w)
			}
			return err
		},
		pins:  &pins{oldPIN, oldPIN},
		steps: []string{"ask evaluate", "ask finish", "ask installepoch", "rename wallet", "link snapshots", "ask puthead"},
	},
	"rekey-pin": {
		prepare: preparePIN,
		do:      doRekey,
		judge:   judgeRekey,
		pins:    &pins{oldPIN, newPIN},
		steps:   []string{"ask create", "link slots", "ask confirm", "ask puthead", "ask delete", "remove slots", "rename renewed"},
	},
	"delete-pin": {
		prepare: preparePIN,
		do:      doDelete,
		again:   doDelete,
		ends:    true,
		pins:    &pins{oldPIN, ""},
		steps:   []string{"ask delete", "remove slots"},
	},
	"delete": {
		prepare: func(w *setting) error { return prepareSaves(w, 2) },
		do:      doDelete,
		again:   doDelete,
		ends:    true,
		steps:   []string{"remove slots", "remove items", "remove snapshots", "remove README.txt"},
	},
	"forget": {
		prepare: func(w *setting) error { return prepareSaves(w, 2) },
		do:      doForget,
		again:   restoreAgain,
		steps:   []string{"rename .satchel-staging", "remove keychain"},
	},
}

// cmpErr does more unless there is an error already.
func cmpErr(err error, more func() error) error {
	if err != nil {
		return err
	}
	return more()
}

func bringUp(b *satchel.Backup) error {
	_, err := b.Sync(context.Background())
	return err
}

func doCreate(w *setting) error {
	keys, err := wallet.ParseKeys(secret.New([]byte(w.Keys)))
	if err != nil {
		return err
	}
	cfg, err := w.config(w.Device)
	if err != nil {
		return err
	}
	p := satchel.Plan{
		Label: "Samantha", Keys: keys, Slots: []slot.Secret{w.way()},
		Items: []satchel.Change{item("labels", "first"), item("file/big", strings.Repeat("first", 1000)), item("gone", "first")},
	}
	if w.PIN != "" {
		p.PIN = new(plan(w.PIN))
	}
	b, err := satchel.Create(context.Background(), cfg, p)
	if b == nil {
		return err
	}
	defer b.Close()
	w.Fresh = false
	w.take(b)
	return w.acknowledged(b, err, 0)
}

// prepareSaves makes a wallet with some history.
func prepareSaves(w *setting, n int) error {
	if err := doCreate(w); err != nil {
		return err
	}
	return w.open(func(b *satchel.Backup) error {
		for i := range n {
			c := item("settings", fmt.Sprint(i))
			_, err := b.Save(context.Background(), c)
			if err := w.acknowledged(b, err, 0, c); err != nil {
				return err
			}
		}
		return nil
	})
}

func doSave(w *setting) error {
	return w.open(func(b *satchel.Backup) error {
		for _, changes := range [][]satchel.Change{
			{item("labels", "second"), item("file/big", strings.Repeat("second", 1000)), {Name: "gone", Remove: true}},
			{item("labels", "third"), item("new", "third")},
		} {
			if i := slices.IndexFunc(changes, func(c satchel.Change) bool { return c.Remove && w.values[c.Name] == "" }); i >= 0 {
				changes = slices.Delete(changes, i, i+1) // This time it is gone already.
			}
			_, err := b.Save(context.Background(), changes...)
			if err := w.acknowledged(b, err, 0, changes...); err != nil {
				return err
			}
		}
		return nil
	})
}

func addSecond(w *setting) error {
	return w.owner(func(b *satchel.Backup, o *satchel.Owner) error {
		s, err := o.AddSlot(context.Background(), w.second())
		w.SlotID = s.ID
		return w.acknowledged(b, err, 1)
	})
}

func removeSecond(w *setting) error {
	return w.owner(func(b *satchel.Backup, o *satchel.Owner) error {
		n := len(b.Slots())
		if err := o.RemoveSlot(context.Background(), w.SlotID); err != nil {
			return err
		}
		return w.acknowledged(b, nil, 1-n)
	})
}

func doRestore(w *setting) error {
	ctx := context.Background()
	cfg, err := w.config(w.Device)
	if err != nil {
		return err
	}
	found, err := satchel.Find(ctx, cfg)
	if err != nil {
		return err
	}
	o, err := found[0].Open(ctx, w.way())
	if err != nil {
		return err
	}
	b, _, err := o.Restore(ctx, cfg, satchel.RestoreOptions{})
	if b == nil {
		return err
	}
	defer b.Close()
	w.take(b)
	return w.acknowledged(b, err, 0)
}

// restoreAgain goes on with a wallet that is there, and restores one that is not.
func restoreAgain(w *setting) error {
	err := w.open(bringUp)
	if errors.Is(err, satchel.ErrNoDevice) {
		err = doRestore(w)
	}
	return err
}

func doCompact(w *setting) error {
	return w.open(func(b *satchel.Backup) error {
		_, err := b.Compact(context.Background())
		return w.acknowledged(b, err, 0)
	})
}

// prepareCheckpoints makes a wallet with a history that can be pruned.
func prepareCheckpoints(w *setting) error {
	err := prepareSaves(w, 2)
	for range 3 {
		err = cmpErr(cmpErr(err, func() error { return doSave(w) }), func() error { return doCompact(w) })
	}
	return err
}

func doPrune(w *setting) error {
	return w.open(func(b *satchel.Backup) error {
		if _, err := b.Prune(context.Background(), 1); err != nil {
			return err
		}
		return w.acknowledged(b, nil, 0)
	})
}

func doOwnerPrune(w *setting) error {
	return w.owner(func(b *satchel.Backup, o *satchel.Owner) error {
		p, err := o.Prune(context.Background(), satchel.PruneOptions{Keep: 1})
		if err == nil && len(p.Left) > 0 {
			err = fmt.Errorf("left: %v", p.Left)
		}
		if err != nil {
			return err
		}
		return w.acknowledged(b, nil, 0)
	})
}

// renewed is the wallet that doRekey makes.
func (w *setting) renewed() *setting {
	n := *w
	n.Name, n.Code = "renewed", w.Second
	return &n
}

func doRekey(w *setting) error {
	p := satchel.RekeyPlan{Slots: []slot.Secret{w.renewed().way()}}
	if w.Guards > 0 {
		p.PIN = new(plan(newPIN))
	}
	return w.rekey(p)
}

func (w *setting) rekey(p satchel.RekeyPlan) error {
	return w.owner(func(b *satchel.Backup, o *satchel.Owner) error {
		n := w.renewed()
		nb, _, err := o.Rekey(context.Background(), n.wallet(w.Device), p)
		if nb == nil {
			return err
		}
		defer nb.Close()
		if err != nil {
			return err
		}
		n.values, n.slots = w.values, len(p.Slots)
		if p.PIN != nil {
			n.slots++
		}
		return n.acknowledged(nb, nil, 0)
	})
}

// rekeyAgain does it again. With a PIN, what was begun is finished or put away first:
// which PIN it has cannot be known.
func rekeyAgain(w *setting) error {
	if w.Guards > 0 {
		finished := w.rekey(satchel.RekeyPlan{})
		if _, err := satchel.ReadDevice(w.wallet(w.Device)); err != nil {
			return finished
		}
	}
	return doRekey(w)
}

// judgeRekey looks at a setting in which a process was killed while it made new keys:
// at every moment one of the two backups is whole and has everything, on the device,
// in each place and in all of them, and no other state opens.
func judgeRekey(t *testing.T, s *killing, w *setting, acked bool) {
	old, renewed := w, w.renewed()
	want := s.acks[s.before-1].State
	cfg, err := w.config(w.Device)
	if err != nil {
		t.Fatal(err)
	}
	has := func(where string, list map[string]func() (state, error)) {
		t.Helper()
		var errs []error
		whole := 0
		for which, get := range list {
			got, err := get()
			switch {
			case err != nil:
				errs = append(errs, err)
				continue
			case !maps.Equal(got.Values, want.Values):
				t.Errorf("%s: the %s backup has %v, want %v", where, which, got, want)
			case acked && which == "old":
				t.Errorf("%s: it was acknowledged, and the old backup opens", where)
			}
			whole++
		}
		if whole == 0 {
			t.Errorf("%s: neither the old nor the new backup: %v", where, errs)
		}
	}
	device := func(w *setting) func() (state, error) {
		return func() (got state, err error) {
			err = w.open(func(b *satchel.Backup) (err error) {
				got, err = stateOf(b)
				return err
			})
			return got, err
		}
	}
	reader := func(w *setting, set []store.Place) func() (state, error) {
		return func() (state, error) { return stranger(w.way(), set) }
	}
	has("the device", map[string]func() (state, error){"old": device(old), "new": device(renewed)})
	for _, set := range alone(cfg.Places) {
		has(fmt.Sprintf("%d places", len(set)), map[string]func() (state, error){"old": reader(old, set), "new": reader(renewed, set)})
	}
	if s.pins != nil {
		s.pinned(t, w, acked)
	}
	s.age(t, w)

	// The user does it again.
	if _, err := satchel.ReadDevice(old.wallet(w.Device)); err == nil {
		err = rekeyAgain(old)
		if err != nil {
			t.Fatalf("going on: %v", err)
		}
	}
	err = renewed.open(func(b *satchel.Backup) error {
		if r, err := b.Check(context.Background()); err != nil {
			t.Errorf("Check: %+v, %v", r, err)
		}
		r, err := b.Save(context.Background(), item("after", "all"))
		if err == nil && !r.Protected {
			t.Errorf("Save: %+v", r)
		}
		return err
	})
	if err != nil {
		t.Fatalf("after going on: %v", err)
	}
	values := maps.Clone(want.Values)
	values["after"] = "all"
	for _, set := range alone(cfg.Places) {
		if got, err := stranger(renewed.way(), set); err != nil || !maps.Equal(got.Values, values) {
			t.Errorf("in the end a stranger has %v, %v", got, err)
		}
		if got, err := stranger(old.way(), set); err == nil {
			t.Errorf("in the end the old code opens %v", got)
		}
		if found, err := satchel.Find(context.Background(), satchel.Config{Settle: -1, Places: set}); err != nil || len(found) != 1 {
			t.Errorf("in the end there are %d backups, %v", len(found), err)
		}
	}
	if s.pins != nil {
		var end state
		err := renewed.open(func(b *satchel.Backup) (err error) {
			end, err = stateOf(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		s.pinnedEnd(t, renewed, end)
	}
	if _, stagings := leftBehind(t, w.dir); stagings > 0 {
		// The old directory was being put away, and the next wallet beside it goes on.
		next := *w
		next.Name, next.Fresh = "next", true
		if err := doCreate(&next); err != nil {
			t.Fatal(err)
		}
		if err := next.open(func(b *satchel.Backup) error { return b.Forget() }); err != nil {
			t.Fatal(err)
		}
	}
	s.tidy(t, renewed)
}

func doDelete(w *setting) error {
	return w.owner(func(b *satchel.Backup, o *satchel.Owner) error {
		_, err := o.Delete(context.Background())
		if err == nil {
			w.say(ack{Done: "deleted"})
		}
		return err
	})
}

func doForget(w *setting) error {
	return w.open(func(b *satchel.Backup) error {
		err := b.Forget()
		if err == nil {
			w.say(ack{Done: "forgotten"})
		}
		return err
	})
}

// R4: a process that is killed, by a signal that nothing can catch, before or
// after any step that it takes on a device, in its keychain or in a place, leaves
// what was acknowledged, whole. What else it leaves is never chosen, and goes.
func TestKills(t *testing.T) {
	choice := os.Getenv(killEnv)
	seed := rand.Uint64() >> 1
	if s := os.Getenv(seedEnv); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if choice != "" {
		fmt.Printf("%s=%s %s=%d\n", killEnv, choice, seedEnv, seed)
	}
	for _, name := range slices.Sorted(maps.Keys(operations)) {
		for _, places := range []int{1, 3} {
			part := fmt.Sprintf("%s/%d", name, places)
			only := -1
			if strings.Contains(choice, "/") {
				rest, ok := strings.CutPrefix(choice, part+"/")
				n, err := strconv.Atoi(rest)
				if !ok || err != nil {
					continue
				}
				only = n
			}
			if choice == "" && !slices.Contains(handful, part) {
				continue
			}
			t.Run(part, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, name, places)
				rnd := rand.New(rand.NewPCG(seed, uint64(len(name)*10+places)))
				var steps []int
				switch {
				case only >= 0:
					steps = []int{only}
				case choice == "all":
					for n := range s.calls + 1 {
						steps = append(steps, n)
					}
				case choice == "":
					steps = []int{rnd.IntN(s.calls)}
				default:
					part, err := strconv.Atoi(choice)
					if err != nil || part < 1 {
						t.Fatalf("%s=%s", killEnv, choice)
					}
					for n := rnd.IntN(part); n <= s.calls; n += 1 + rnd.IntN(2*part-1) {
						steps = append(steps, n)
					}
				}
				start := time.Now()
				for _, n := range steps {
					s.kill(t, n)
					if t.Failed() {
						t.Fatalf("killed at call %d of %d; again with %s=%s/%d", n, s.calls, killEnv, part, n)
					}
				}
				line := fmt.Sprintf("%-13s %d kills of %d calls, %.0f ms each: %d temporary files and %d staging directories were left, %d and %d after that",
					part, s.killed, s.calls, float64(time.Since(start).Milliseconds())/float64(max(len(steps), 1)), s.temps, s.stagings, s.stillTemps, s.stillStagings)
				if choice != "" {
					fmt.Println(line)
				}
				if choice == "all" && s.temps+s.stagings == 0 && s.builds {
					t.Error("no leftovers were seen")
				}
			})
		}
	}
}

// killing is an operation and the world in which it is killed again and again.
type killing struct {
	operation
	name   string
	world  *setting
	acks   []ack // of a victim that lives, after those of before
	before int   // how many of them are of before
	builds bool  // it makes files that are under construction for a while
	calls  int   // of the hook, in a victim that lives

	killed                    int
	temps, stagings           int // left by victims
	stillTemps, stillStagings int // still there in the end
}

func newScene(t *testing.T, name string, places int) *killing {
	t.Helper()
	text, err := newKeys(t).Text()
	if err != nil {
		t.Fatal(err)
	}
	_, first := slot.NewRecoveryCode()
	_, second := slot.NewRecoveryCode()
	s := &killing{operation: operations[name], name: name}
	w := &setting{
		dir: t.TempDir(), Places: places, Device: "a", Name: "wallet", Fresh: true,
		Code: string(first.Open()), Second: string(second.Open()), Keys: string(text.Open()),
		out: func(a ack) { s.acks = append(s.acks, a) },
	}
	w.servers = newKeyServers(w.dir)
	for _, device := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(w.dir, device), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.prepare(w); err != nil {
		t.Fatalf("before: %v", err)
	}
	if err := w.servers.close(); err != nil {
		t.Fatal(err)
	}
	s.before = len(s.acks)
	w.Fresh = s.before == 0
	s.world = w.clone(w.dir)

	// Once to the end, to know what there is.
	whole := s.copy(t)
	tr := newTrace(whole)
	hook, out := whole.hook, whole.out
	whole.hook = func(st durable.Step) error {
		s.calls++
		return hook(st)
	}
	whole.out = func(a ack) {
		s.acks = append(s.acks, a)
		out(a)
	}
	if err := s.do(whole); err != nil {
		t.Fatalf("without a kill: %v", err)
	}
	if err := whole.servers.close(); err != nil {
		t.Fatal(err)
	}
	if len(s.acks) == s.before {
		t.Fatal("nothing was acknowledged")
	}
	s.builds = tr.has("write .satchel-")
	for _, want := range s.steps {
		if !tr.has(want) {
			t.Errorf("there was no step %q", want)
		}
	}
	for _, problem := range tr.problems {
		t.Error(problem)
	}
	return s
}

// copy returns the world, copied to a directory of its own.
func (s *killing) copy(t *testing.T) *setting {
	t.Helper()
	to, err := os.MkdirTemp(filepath.Dir(s.world.dir), "world")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(s.world.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.world.dir, path)
		if err != nil || rel == "." {
			return err
		}
		if e.IsDir() {
			return os.Mkdir(filepath.Join(to, rel), 0o700)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return s.world.clone(to)
}

// kill lets a process die in the n-th call of the hook, and looks at what is left.
func (s *killing) kill(t *testing.T, n int) {
	w := s.copy(t)
	w.killed = n
	defer os.RemoveAll(w.dir)
	defer func() {
		if err := w.servers.close(); err != nil {
			t.Error(err)
		}
	}()
	spec, err := json.Marshal(job{w.dir, s.name, n, w})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+string(spec))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.Exited()) {
		t.Fatalf("the victim: %v: %s", err, stderr.String())
	}
	if err != nil {
		s.killed++
	} else if n < s.calls {
		t.Errorf("it lived: it has fewer than %d calls", s.calls)
	}
	var acks []ack
	for line := range strings.Lines(string(out)) {
		var a ack
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		acks = append(acks, a)
	}
	if err == nil && len(acks) != len(s.acks)-s.before {
		t.Errorf("%d acknowledgements, want %d", len(acks), len(s.acks)-s.before)
	}
	s.judge(t, w, len(acks))
}

// judge looks at a world in which a process was killed after so many
// acknowledgements.
func (s *killing) judge(t *testing.T, w *setting, acked int) {
	t.Helper()
	if s.operation.judge != nil {
		s.operation.judge(t, s, w, acked > 0)
		return
	}
	acks := s.acks[:s.before+acked]
	next := s.acks[:min(s.before+acked+1, len(s.acks))]

	// The device has the newest state that was acknowledged, or the next one.
	now := s.mine(t, w, w.Device, acks, next)
	if w.Device != "a" {
		if _, err := os.Stat(filepath.Join(w.dir, "a")); err == nil {
			s.mine(t, w, "a", s.acks[:s.before], s.acks[:s.before])
		}
	}
	if t.Failed() {
		return
	}
	// So has a stranger with the secret, from each place that was said to have it,
	// and from all of them.
	s.strangers(t, w, acks, next)
	if s.pins != nil {
		s.pinned(t, w, acked > 0)
	}

	// Time passes, and the user goes on.
	s.age(t, w)
	again := s.again
	if again == nil {
		again = func(w *setting) error { return w.open(bringUp) }
	}
	if err := again(w); err != nil {
		t.Fatalf("going on: %v", err)
	}
	w.Fresh = false
	if s.ends {
		s.ended(t, w)
		return
	}
	var end state
	err := w.open(func(b *satchel.Backup) (err error) {
		if end, err = stateOf(b); err != nil {
			return err
		}
		if now != nil && s.again == nil && (end.Generation != now.Generation || !end.same(*now)) {
			t.Errorf("going on, it has %v, and before %v", end, now)
		}
		if last := s.acks[len(s.acks)-1]; s.again != nil && last.Done == "" && !end.same(last.State) {
			t.Errorf("going on, it has %v, want %v", end, last.State)
		}
		if r, err := b.Check(context.Background()); err != nil {
			t.Errorf("Check: %+v, %v", r, err)
		}
		change := item("after", "all")
		r, err := b.Save(context.Background(), change)
		if err != nil || !r.Protected {
			t.Errorf("Save: %+v, %v", r, err)
		}
		end.Values["after"] = "all"
		end.Generation = r.Generation
		for _, p := range r.Places {
			if p.Health != satchel.HealthProtected || p.Generation != r.Generation {
				t.Errorf("place after going on: %+v", p)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("after going on: %v", err)
	}
	cfg, err := w.config(w.Device)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range cfg.Places {
		mustRead(t, end.Values, w.way(), p.Store)
	}
	for _, set := range alone(cfg.Places) {
		if got, err := stranger(w.way(), set); err != nil || got.Generation != end.Generation || !got.same(end) {
			t.Errorf("in the end a stranger has %v, %v, want %v", got, err, end)
		}
		got, err := stranger(w.second(), set)
		if want := end.Slots > 1 && s.pins == nil; want && (err != nil || !got.same(end)) || !want && err == nil {
			t.Errorf("in the end a stranger with the second code has %v, %v; it should open: %v", got, err, want)
		}
	}
	if w.Device != "a" {
		if _, err := os.Stat(filepath.Join(w.dir, "a")); err == nil {
			b := *w
			b.Device = "a"
			if err := b.open(bringUp); !errors.Is(err, satchel.ErrOtherDevice) {
				t.Errorf("the older device: %v, want ErrOtherDevice", err)
			}
		}
	}
	if s.pins != nil {
		s.pinnedEnd(t, w, end)
	}
	s.tidy(t, w)
}

// age lets what is left grow old, and counts it.
func (s *killing) age(t *testing.T, w *setting) {
	t.Helper()
	temps, stagings := leftBehind(t, w.dir)
	s.temps, s.stagings = s.temps+temps, s.stagings+stagings
}

// mine looks at a device after a crash. acks are the acknowledgements that it
// must keep, next those with the one that it may have kept already. It returns
// nil if there is no wallet, and none was promised.
func (s *killing) mine(t *testing.T, w *setting, device string, acks, next []ack) *state {
	t.Helper()
	cfg, err := w.config(device)
	if err != nil {
		t.Fatal(err)
	}
	b, err := satchel.Open(cfg)
	if errors.Is(err, satchel.ErrNoDevice) {
		promised := slices.ContainsFunc(acks, func(a ack) bool { return a.Device == device })
		if s.name == "forget" {
			promised = false
		}
		if promised {
			t.Errorf("device %s: %v", device, err)
		}
		return nil
	}
	if err != nil {
		t.Errorf("device %s: %v", device, err)
		return nil
	}
	defer b.Close()
	got, err := stateOf(b)
	if err != nil {
		t.Errorf("device %s: %v", device, err)
	}
	if s.ends || s.name == "forget" {
		acks, next = s.acks[:s.before], s.acks[:s.before]
	}
	others := func(a ack) bool { return a.Device != device }
	acks, next = slices.DeleteFunc(slices.Clone(acks), others), slices.DeleteFunc(slices.Clone(next), others)
	if err := s.between(got, acks, next); err != nil {
		t.Errorf("device %s: %v", device, err)
	}
	return &got
}

// between returns nil if a state is the last of the acknowledged ones or the one
// after it, or one on the way from the one to the other.
func (s *killing) between(got state, acks, next []ack) error {
	want := next[len(next)-1].State
	lowest := uint64(0)
	if s.pins != nil && s.pins.old != "" && len(next) > s.before && got.Generation < want.Generation && got.Slots == want.Slots+1 {
		got.Slots-- // While a PIN is changed there are both.
	}
	ok := got.Generation <= want.Generation && got.same(want)
	if len(acks) > 0 {
		last := acks[len(acks)-1].State
		lowest = last.Generation
		ok = ok && got.Generation >= lowest || got.same(last) && got.Generation >= lowest && got.Generation < max(want.Generation, lowest+1)
	}
	if !ok {
		return fmt.Errorf("got %v, want one of generation %d to %v", got, lowest, want)
	}
	return nil
}

// alone returns sets of places: each alone, and all together if there are several.
func alone(places []store.Place) [][]store.Place {
	sets := slices.Collect(slices.Chunk(places, 1))
	if len(places) > 1 {
		sets = append(sets, places)
	}
	return sets
}

// strangers restore from each place alone and from all together.
func (s *killing) strangers(t *testing.T, w *setting, acks, next []ack) {
	t.Helper()
	cfg, err := w.config(w.Device)
	if err != nil {
		t.Fatal(err)
	}
	promised := make([]uint64, w.Places)
	for i, a := range acks {
		for j, g := range a.Places {
			if i >= s.before || !slices.Contains(s.lost, j) {
				promised[j] = max(promised[j], g)
			}
		}
	}
	for i, set := range alone(cfg.Places) {
		least := slices.Max(promised)
		if i < w.Places {
			least = promised[i]
		}
		got, err := stranger(w.way(), set)
		if err != nil {
			if least > 0 && !s.ends {
				t.Errorf("a stranger, of %d places: %v; promised was generation %d", len(set), err, least)
			}
			continue
		}
		if s.ends {
			least = acks[s.before-1].State.Generation
		}
		if got.Generation < least {
			t.Errorf("a stranger, of %d places: generation %d, promised was %d", len(set), got.Generation, least)
		}
		// The state of a generation is always the same; one between two that were
		// acknowledged is on the way from the one to the other.
		known := slices.DeleteFunc(slices.Clone(next), func(a ack) bool { return a.Done != "" })
		i := slices.IndexFunc(known, func(a ack) bool { return a.State.Generation >= got.Generation })
		if i < 0 {
			t.Errorf("a stranger, of %d places: generation %d, which nobody can have written", len(set), got.Generation)
			continue
		}
		if err := s.between(got, known[:i], known[:i+1]); err != nil {
			t.Errorf("a stranger, of %d places: %v", len(set), err)
		}
	}
}

// stranger opens the only backup that the secret opens, like one who has nothing
// but that, and reads everything.
func stranger(way slot.Secret, places []store.Place) (state, error) {
	ctx := context.Background()
	found, err := satchel.Find(ctx, satchel.Config{Settle: -1, Places: places})
	if err != nil {
		return state{}, err
	}
	var errs []error
	for i := range found {
		o, err := found[i].Open(ctx, way)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p := o.Preview()
		values, err := valuesOf(o)
		return state{p.Generation, len(p.Slots), values}, err
	}
	return state{}, errors.Join(errs...)
}

// ended looks at a world whose backup was deleted.
func (s *killing) ended(t *testing.T, w *setting) {
	t.Helper()
	cfg, err := w.config(w.Device)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := satchel.Find(context.Background(), cfg); !errors.Is(err, satchel.ErrNoBackup) {
		t.Errorf("after it was deleted: found %d, %v", len(found), err)
	}
	if s.pins != nil {
		s.settled(t, w, cfg.Places)
		s.endedAccounts(t, w)
	}
	for _, p := range cfg.Places {
		if left := objects(t, p.Store, ""); len(left) > 0 {
			t.Errorf("after it was deleted: %v", slices.Sorted(maps.Keys(left)))
		}
	}
	s.mine(t, w, w.Device, s.acks[:s.before], s.acks[:s.before])
	s.tidy(t, w)
}

// tidy looks at what is still left of a crash after the user went on.
func (s *killing) tidy(t *testing.T, w *setting) {
	t.Helper()
	temps, stagings := leftBehind(t, w.dir)
	s.stillTemps, s.stillStagings = s.stillTemps+temps, s.stillStagings+stagings
	if stagings > 0 {
		t.Errorf("%d staging directories are still there", stagings)
	}
	for _, device := range []string{"a", "b"} {
		secrets, err := filepath.Glob(filepath.Join(w.dir, device, "keychain", "*.secret"))
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		if _, err := satchel.ReadDevice(w.wallet(device)); err == nil {
			want = 1
		}
		if len(secrets) != want {
			t.Errorf("device %s has %d secrets in its keychain, want %d", device, len(secrets), want)
		}
	}
}

// leftBehind counts files under construction and staging directories, and lets
// them grow old.
func leftBehind(t *testing.T, dir string) (temps, stagings int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case e.IsDir() && (strings.HasPrefix(e.Name(), satchel.StagingPrefix) || strings.HasPrefix(e.Name(), ".satchel-rekey-")):
			stagings++
		case durable.IsTemp(path):
			temps++
		default:
			return nil
		}
		old := time.Now().Add(-48 * time.Hour)
		return os.Chtimes(path, old, old)
	})
	if err != nil {
		t.Fatal(err)
	}
	return temps, stagings
}
