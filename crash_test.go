package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

var errKilled = errors.New("killed")

// life is a process that is killed at its n-th step: before or after one on its
// disk, in a place or in the keychain. A dead process does nothing more.
type life struct {
	left int // steps before the end; less than 0 for ever
	dead bool
}

func (l *life) step() error {
	if l.left == 0 {
		l.dead = true
	}
	l.left--
	if l.dead {
		return errKilled
	}
	return nil
}

// live gives a Config this life.
func (l *life) live(cfg satchel.Config) satchel.Config {
	cfg.SetHook(func(durable.Step) error { return l.step() })
	cfg.Keychain = &mortalRing{l, cfg.Keychain}
	cfg.Places = append([]store.Place(nil), cfg.Places...)
	for i := range cfg.Places {
		cfg.Places[i].Store = &mortalStore{l, cfg.Places[i].Store}
	}
	return cfg
}

type mortalStore struct {
	*life
	store.Store
}

func (m *mortalStore) Put(ctx context.Context, name string, data []byte) error {
	if err := m.step(); err != nil {
		return err
	}
	return errors.Join(m.Store.Put(ctx, name, data), m.step())
}

func (m *mortalStore) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	if m.dead {
		return nil, errKilled
	}
	return m.Store.Get(ctx, name, want, limit)
}

func (m *mortalStore) List(ctx context.Context, prefix string) ([]store.Object, error) {
	if m.dead {
		return nil, errKilled
	}
	return m.Store.List(ctx, prefix)
}

func (m *mortalStore) Delete(ctx context.Context, o store.Object) error {
	if err := m.step(); err != nil {
		return err
	}
	return errors.Join(m.Store.Delete(ctx, o), m.step())
}

type mortalRing struct {
	*life
	satchel.Keychain
}

func (m *mortalRing) Set(name string, s secret.Bytes) error {
	if err := m.step(); err != nil {
		return err
	}
	return errors.Join(m.Keychain.Set(name, s), m.step())
}

func (m *mortalRing) Delete(name string) error {
	if err := m.step(); err != nil {
		return err
	}
	return errors.Join(m.Keychain.Delete(name), m.step())
}

// scene is a device and its place, to be copied for every death.
type scene struct {
	cfg satchel.Config
	st  *mem.Store
}

func (s scene) copy(t *testing.T) scene {
	t.Helper()
	c := scene{s.cfg, clone(t, s.st)}
	c.cfg.Places = []store.Place{{Address: "mem:0", Store: c.st}}
	keys := &ring{}
	for name, k := range s.cfg.Keychain.(*ring).m {
		keys.Set(name, k)
	}
	c.cfg.Keychain = keys
	c.cfg.Dir = filepath.Join(t.TempDir(), "wallet")
	if _, err := os.Stat(s.cfg.Dir); err == nil {
		if err := os.CopyFS(c.cfg.Dir, os.DirFS(s.cfg.Dir)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// leftovers lets what a crash left beside the wallet grow old, and reports whether
// there is any.
func leftovers(t *testing.T, cfg satchel.Config) bool {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(filepath.Dir(cfg.Dir), satchel.StagingPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range list {
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(dir, old, old); err != nil {
			t.Fatal(err)
		}
	}
	return len(list) > 0
}

// kill runs do again and again, killed some steps later each time, until it
// survives. check looks at what is left.
func kill(t *testing.T, s scene, do func(cfg satchel.Config) error, check func(t *testing.T, s scene, survived bool)) {
	stride, first := sparse(3)
	for n := first; ; n += stride {
		c := s.copy(t)
		l := &life{left: n}
		err := do(l.live(c.cfg))
		if !l.dead && err != nil {
			t.Fatalf("killed at %d: %v", n, err)
		}
		check(t, c, !l.dead)
		if t.Failed() {
			t.Fatalf("killed at step %d", n)
		}
		if !l.dead {
			if n < 15 {
				t.Errorf("only %d steps", n)
			}
			return
		}
	}
}

// R4: kill -9 between any two steps of Create leaves no wallet or a whole one, and
// what is left is cleaned up and never taken for a backup.
func TestKilledCreate(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	k := newKeys(t)
	way, _ := slot.NewRecoveryCode()
	plan := satchel.Plan{Label: "Sam", Keys: k, Slots: []slot.Secret{way}, Items: []satchel.Change{item("labels", "1"), item("file/big", strings.Repeat("x", 3000))}}
	s := scene{config(t), &mem.Store{}}
	kill(t, s, func(cfg satchel.Config) error {
		b, err := satchel.Create(ctx, cfg, plan)
		if b != nil {
			b.Close()
		}
		return err
	}, func(t *testing.T, s scene, survived bool) {
		b, err := satchel.Open(s.cfg)
		switch {
		case err == nil:
			if _, err := b.Sync(ctx); err != nil {
				t.Error(err)
			}
			mustRead(t, here(t, b), way, s.st)
			if again, err := b.Keys(); err != nil || !again.Equal(k) {
				t.Error("another wallet", err)
			}
			b.Close()
			return
		case survived:
			t.Errorf("nothing there: %v", err)
		case !errors.Is(err, satchel.ErrNoDevice):
			t.Errorf("half a wallet: %v", err)
		}
		// Nothing was promised. The next try works, and clears up.
		leftovers(t, s.cfg)
		code, _ := slot.NewRecoveryCode()
		plan := plan
		plan.Slots = []slot.Secret{code}
		if b, err = satchel.Create(ctx, s.cfg, plan); err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		mustRead(t, here(t, b), code, s.st)
		if leftovers(t, s.cfg) || len(s.cfg.Keychain.(*ring).m) != 1 {
			t.Errorf("left beside the wallet, or %d keys in the keychain", len(s.cfg.Keychain.(*ring).m))
		}
	})
}

// R4: kill -9 between any two steps of Save, with and without a checkpoint, loses
// nothing that was acknowledged, and a fresh reader always finds the old state or
// the new one, whole.
func TestKilledSave(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, changes := range []int{2, 64} {
		t.Run(fmt.Sprint(changes), func(t *testing.T) {
			t.Parallel()
			st := &mem.Store{}
			cfg := config(t, st)
			b, _, way := create(t, cfg, item("labels", "old"), item("kept", "kept"), item("file/big", strings.Repeat("old", 3000)), item("gone", "old"))
			for i := range changes {
				save(t, b, item("settings", fmt.Sprint(i)))
			}
			old := here(t, b)
			b.Close()
			want := maps.Clone(old)
			want["labels"], want["file/big"] = "new", strings.Repeat("new", 3000)
			delete(want, "gone")
			kill(t, scene{cfg, st}, func(cfg satchel.Config) error {
				b, err := satchel.Open(cfg)
				if err != nil {
					return err
				}
				defer b.Close()
				_, err = b.Save(ctx, item("labels", "new"), item("file/big", want["file/big"]), satchel.Change{Name: "gone", Remove: true})
				return err
			}, func(t *testing.T, s scene, survived bool) {
				got, err := independent(way, s.st)
				if err != nil || !maps.Equal(got, old) && !maps.Equal(got, want) || survived && !maps.Equal(got, want) {
					t.Errorf("a fresh reader: %v, %v", short(got), err)
				}
				b, err := satchel.Open(s.cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				now := here(t, b)
				if !maps.Equal(now, old) && !maps.Equal(now, want) {
					t.Errorf("the device: %v", short(now))
				}
				if maps.Equal(got, want) && !maps.Equal(now, want) {
					t.Error("the place has what the device does not")
				}
				if _, err := b.Sync(ctx); err != nil {
					t.Fatal(err)
				}
				mustRead(t, now, way, s.st)
				save(t, b, item("labels", "after"))
				if rep, err := b.Check(ctx); err != nil {
					t.Errorf("%+v %v", rep, err)
				}
			})
		})
	}
}

// R4, R15: kill -9 between any two steps of Restore leaves no wallet or a whole
// one, and a place that restores to the newest state.
func TestKilledRestore(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"), item("file/big", strings.Repeat("x", 3000)))
	save(t, b, item("labels", "2"))
	want := here(t, b)
	b.Close()
	restoreTo := func(cfg satchel.Config) (*satchel.Backup, error) {
		found, err := satchel.Find(ctx, cfg)
		if err != nil {
			return nil, err
		}
		o, err := found[0].Open(ctx, way)
		if err != nil {
			return nil, err
		}
		b, _, err := o.Restore(ctx, cfg, satchel.RestoreOptions{})
		return b, err
	}
	s := scene{newDevice(t, cfg), st}
	kill(t, s, func(cfg satchel.Config) error {
		b, err := restoreTo(cfg)
		if b != nil {
			b.Close()
		}
		return err
	}, func(t *testing.T, s scene, survived bool) {
		mustRead(t, want, way, s.st)
		b, err := satchel.Open(s.cfg)
		if errors.Is(err, satchel.ErrNoDevice) && !survived {
			leftovers(t, s.cfg)
			if b, err = restoreTo(s.cfg); err == nil && (leftovers(t, s.cfg) || len(s.cfg.Keychain.(*ring).m) != 1) {
				t.Error("left beside the wallet, or in the keychain")
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if !maps.Equal(here(t, b), want) {
			t.Error("another state")
		}
		save(t, b, item("labels", "3"))
		mustRead(t, here(t, b), way, s.st)
	})
}

// R4: kill -9 while a slot is removed, while the wallet is forgotten here and
// while the backup is deleted: each can be done again.
func TestKilledOwner(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "1"))
	ow, err := b.Unlock(ctx, way)
	if err != nil {
		t.Fatal(err)
	}
	second, _ := slot.NewRecoveryCode()
	added, err := ow.AddSlot(ctx, second)
	if err != nil {
		t.Fatal(err)
	}
	want := here(t, b)
	b.Close()
	unlocked := func(cfg satchel.Config, do func(b *satchel.Backup, ow *satchel.Owner) error) error {
		b, err := satchel.Open(cfg)
		if err != nil {
			return err
		}
		defer b.Close()
		ow, err := b.Unlock(ctx, way)
		if err != nil {
			return err
		}
		return do(b, ow)
	}
	removeSlot := func(_ *satchel.Backup, ow *satchel.Owner) error { return ow.RemoveSlot(ctx, added.ID) }
	deleteAll := func(_ *satchel.Backup, ow *satchel.Owner) error { _, err := ow.Delete(ctx); return err }
	forget := func(b *satchel.Backup, _ *satchel.Owner) error { return b.Forget() }
	for name, op := range map[string]func(*satchel.Backup, *satchel.Owner) error{"remove slot": removeSlot, "delete": deleteAll, "forget": forget} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := scene{cfg, st}
			stride, first := sparse(3)
			for n := first; ; n += stride {
				c := s.copy(t)
				l := &life{left: n}
				err := unlocked(l.live(c.cfg), op)
				if !l.dead && err != nil {
					t.Fatal(err)
				}
				switch name {
				case "remove slot":
					mustRead(t, want, way, c.st)
					err := unlocked(c.cfg, removeSlot)
					if err != nil && !errors.Is(err, satchel.ErrNoSlot) {
						t.Fatalf("killed at %d, again: %v", n, err)
					}
					if n := len(objects(t, c.st, "")); strings.Contains(fmt.Sprint(objects(t, c.st, "")), added.ID) {
						t.Errorf("the slot is still there among %d objects", n)
					}
					mustRead(t, want, way, c.st)
				case "delete":
					if err := unlocked(c.cfg, deleteAll); err != nil {
						t.Fatalf("killed at %d, again: %v", n, err)
					}
					if left := objects(t, c.st, ""); len(left) != 0 {
						t.Errorf("killed at %d: left %d", n, len(left))
					}
				case "forget":
					mustRead(t, want, way, c.st)
					b, err := satchel.Open(c.cfg)
					if errors.Is(err, satchel.ErrNoDevice) {
						leftovers(t, c.cfg)
						b = restore(t, c.cfg, way)
					} else if err != nil {
						t.Fatalf("killed at %d: %v", n, err)
					}
					if leftovers(t, c.cfg) || len(c.cfg.Keychain.(*ring).m) != 1 {
						t.Errorf("killed at %d: left beside the wallet, or in the keychain", n)
					}
					b.Close()
				}
				if t.Failed() || !l.dead {
					break
				}
			}
		})
	}
}

// An error of the disk, and not a crash, at any step of Create leaves nothing
// behind; at any step of Save, the process goes on and loses nothing.
func TestDiskErrors(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg, item("labels", "old"))
	for range 63 {
		save(t, b, item("settings", fmt.Sprint(time.Now().UnixNano())))
	}
	b.Close()
	s := scene{cfg, st}
	for burst := 1; burst <= 3; burst++ { // errors in a row: what mends the first may fail too
		stride, first := sparse(4)
		for n := burst - 1 + first; ; n += burst * stride { // of the longer ones those that do not overlap
			c := s.copy(t)
			struck := false
			left := n
			c.cfg.SetHook(func(durable.Step) error {
				left--
				if left < 0 && left >= -burst {
					struck = true
					return errKilled
				}
				return nil
			})
			b, err := satchel.Open(c.cfg)
			if err != nil {
				if !struck {
					t.Fatal(err)
				}
				continue
			}
			before := here(t, b)
			for i := range 3 { // The second is a checkpoint.
				_, err := b.Save(ctx, item("labels", fmt.Sprint(i)), item("file/big", strings.Repeat(fmt.Sprint(i), 3000)))
				now := here(t, b)
				switch {
				case err != nil && !errors.Is(err, satchel.ErrNotProtected) && !maps.Equal(now, before):
					t.Errorf("error at %d: %v, and yet it was changed", n, err)
				case (err == nil || errors.Is(err, satchel.ErrNotProtected)) && now["labels"] != fmt.Sprint(i):
					t.Errorf("error at %d: %v, and it was not changed", n, err)
				}
				before = now
			}
			for range burst { // The errors may come only now.
				b.Save(ctx, item("labels", "end"))
			}
			if _, err := b.Save(ctx, item("labels", "end")); err != nil {
				t.Errorf("errors at %d: it does not recover: %v", n, err)
			}
			want := here(t, b)
			b.Close()
			mustRead(t, want, way, c.st)
			c.cfg.SetHook(nil)
			if b, err = satchel.Open(c.cfg); err != nil || !maps.Equal(here(t, b), want) {
				t.Fatalf("error at %d: opened again: %v", n, err)
			}
			b.Close()
			if t.Failed() {
				t.FailNow()
			}
			if !struck {
				break
			}
		}
	}

	code, _ := slot.NewRecoveryCode()
	plan := satchel.Plan{Keys: newKeys(t), Slots: []slot.Secret{code}}
	stride, first := sparse(3)
	for n := first; ; n += stride {
		cfg := newDevice(t, config(t, &mem.Store{}))
		left := n
		cfg.SetHook(func(durable.Step) error {
			left--
			if left == -1 {
				return errKilled
			}
			return nil
		})
		b, err := satchel.Create(ctx, cfg, plan)
		if b == nil {
			if list, _ := os.ReadDir(filepath.Dir(cfg.Dir)); len(list) != 0 || len(cfg.Keychain.(*ring).m) != 0 {
				t.Fatalf("error at %d, %v: left %v, and %d keys", n, err, list, len(cfg.Keychain.(*ring).m))
			}
			continue
		}
		b.Close()
		if left >= 0 {
			break
		}
	}
}
