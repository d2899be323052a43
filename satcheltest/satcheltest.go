// Package satcheltest tests how a wallet uses Satchel. It has a cloud, a keychain
// and a device in memory or below a test's directory, each with faults, a clock,
// and [Journey]: the ways on which a wallet with a backup goes wrong, walked with
// yours.
//
// The maker of a wallet says how it is started, restored and used, which are the
// interfaces [App] and [Wallet], and has a test:
//
//	func TestJourney(t *testing.T) {
//		satcheltest.Journey(t, myApp{})
//	}
//
// What is peculiar to a wallet is tested with the same parts:
//
//	cloud := satcheltest.NewCloud("mem:")
//	phone := satcheltest.NewDevice(t, new(satcheltest.Clock), cloud)
//	b, err := satchel.Create(ctx, phone.Config(), plan)
//	cloud.Set(storetest.Put, storetest.Full)   // the faults are those of package storetest
//	_, err = b.Save(ctx, change)               // store.ErrFull
//	phone.Kill()                               // no Close: the system needed the memory
//	b, err = satchel.Open(phone.Config())      // the disk as it was, the next process
package satcheltest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// TB is what the kit needs of a test. A *testing.T has it.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any) // does not return
	TempDir() string
	Context() context.Context
}

// Cloud is a place of the user's, in memory. Its faults are those of
// [storetest.Faulty], and it records everything that is sent to it.
type Cloud struct {
	*storetest.Faulty
	address string
	mem     *mem.Store
}

var _ store.Store = (*Cloud)(nil)

// NewCloud returns an empty cloud that works. The address is what a person would
// type; the clouds of one device have different ones.
func NewCloud(address string) *Cloud {
	m := new(mem.Store)
	return &Cloud{Faulty: &storetest.Faulty{Inner: m, Record: true}, address: address, mem: m}
}

// Place returns the cloud as a [satchel.Config] wants it.
func (c *Cloud) Place() store.Place { return store.Place{Address: c.address, Store: c} }

// Mend ends the faults that Set began.
func (c *Cloud) Mend() {
	for _, op := range []storetest.Op{storetest.Any, storetest.Put, storetest.Get, storetest.List, storetest.Delete} {
		c.Set(op, storetest.None)
	}
}

// Lose makes the cloud lose all that it holds, as one does that is disconnected,
// emptied, or set up anew. It goes on working.
func (c *Cloud) Lose() {
	ctx := context.Background()
	list, err := c.mem.List(ctx, "")
	for _, o := range list {
		err = errors.Join(err, c.mem.Delete(ctx, o))
	}
	if err != nil {
		panic(err) // Memory does not fail.
	}
}

// Objects returns what the cloud holds, by name, whatever its faults.
func (c *Cloud) Objects() map[string]string {
	ctx := context.Background()
	list, err := c.mem.List(ctx, "")
	if err != nil {
		panic(err) // Memory does not fail.
	}
	m := map[string]string{}
	for _, o := range list {
		data, err := c.mem.Get(ctx, o.Name, "", store.MaxObject)
		if err != nil {
			panic(err)
		}
		m[o.Name] = string(data)
	}
	return m
}

// Keychain is a keychain in memory that can be locked, and can lose what it
// holds. The zero Keychain is empty, unlocked and ready for use.
type Keychain struct {
	mu      sync.Mutex
	locked  bool                    // guarded by mu
	secrets map[string]secret.Bytes // guarded by mu
}

var _ keychain.Keychain = (*Keychain)(nil)

// Lock makes every call keychain.ErrUnavailable until Unlock, as before the
// first unlocking of a phone.
func (k *Keychain) Lock() { k.lock(true) }

// Unlock ends what Lock began.
func (k *Keychain) Unlock() { k.lock(false) }

func (k *Keychain) lock(locked bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.locked = locked
}

// Lose makes the keychain forget all it holds, as one does that is reset.
func (k *Keychain) Lose() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.secrets = nil
}

func (k *Keychain) available() error {
	if k.locked {
		return fmt.Errorf("the test locked it: %w", keychain.ErrUnavailable)
	}
	return nil
}

// Get implements [keychain.Keychain].
func (k *Keychain) Get(name string) (secret.Bytes, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.available(); err != nil {
		return secret.Bytes{}, err
	}
	s, ok := k.secrets[name]
	if !ok {
		return secret.Bytes{}, keychain.ErrNotFound
	}
	return secret.New(s.Open()), nil
}

// Set implements [keychain.Keychain].
func (k *Keychain) Set(name string, s secret.Bytes) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.available(); err != nil {
		return err
	}
	if s.Empty() || s.Len() > keychain.MaxSecret {
		return fmt.Errorf("secret of %d bytes does not fit", s.Len())
	}
	if k.secrets == nil {
		k.secrets = map[string]secret.Bytes{}
	}
	k.secrets[name] = secret.New(s.Open())
	return nil
}

// Delete implements [keychain.Keychain].
func (k *Keychain) Delete(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.available(); err != nil {
		return err
	}
	delete(k.secrets, name)
	return nil
}

// Where implements [keychain.Keychain].
func (k *Keychain) Where() string { return "the test's memory" }

// copy returns an unlocked keychain with the same secrets.
func (k *Keychain) copy() *Keychain {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &Keychain{secrets: maps.Clone(k.secrets)}
}

// Clock is a clock that the test moves. The zero Clock stands at noon of
// 2026-01-02, UTC.
type Clock struct {
	mu     sync.Mutex
	offset time.Duration // guarded by mu
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// Now returns the time; it is what [satchel.Config] wants.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return noon.Add(c.offset)
}

// Set sets the clock.
func (c *Clock) Set(to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset = to.Sub(noon)
}

// Move sets the clock forward, or back if d is less than zero, as clocks of
// phones do too.
func (c *Clock) Move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

// Device is a phone or a computer: a disk, a keychain, and lines to the user's
// places. Its methods are called by one goroutine.
type Device struct {
	Keychain *Keychain

	t      TB
	clock  *Clock
	clouds []*Cloud
	root   string // of the disks

	mu      sync.Mutex
	process *process // that may run now; guarded by mu
	copies  int      // of the disk that were made; guarded by mu
}

// process is an app from its start to its end. Killed, it still runs in the
// memory of the test, and reaches neither the places nor the disk that the next
// one gets.
type process struct {
	disk string
	dead atomic.Bool
	die  atomic.Pointer[death]
}

// death is a call to a place at which the process is killed, and how the call ends.
type death struct {
	op    storetest.Op
	fault storetest.Fault
}

// NewDevice returns a device with an empty disk and an empty keychain. It is
// gone with the test. It has a place in every one of the clouds.
func NewDevice(t TB, clock *Clock, clouds ...*Cloud) *Device {
	t.Helper()
	d := &Device{Keychain: new(Keychain), t: t, clock: clock, clouds: clouds, root: t.TempDir()}
	d.process = &process{disk: d.newDisk()}
	if err := os.Mkdir(d.process.disk, 0o700); err != nil {
		t.Fatalf("making a device: %v", err)
	}
	return d
}

// newDisk returns the directory of another disk, which is still to be made.
func (d *Device) newDisk() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.copies++
	return filepath.Join(d.root, "disk"+strconv.Itoa(d.copies))
}

// Config returns what an app that starts on this device gives to satchel. The
// directory above Dir is the device's disk: other files of the app belong there
// too. It never waits for a listing to settle.
func (d *Device) Config() satchel.Config {
	p := d.running()
	cfg := satchel.Config{Dir: filepath.Join(p.disk, "wallet"), Keychain: d.Keychain, Settle: -1, Now: d.clock.Now}
	for _, c := range d.clouds {
		line := &storetest.Faulty{Inner: c}
		line.Choose(func(op storetest.Op, _ string) storetest.Fault {
			if p.dead.Load() {
				return storetest.Unreachable
			}
			if die := p.die.Load(); die != nil && die.op == op {
				d.kill(p)
				return die.fault
			}
			return storetest.None
		})
		cfg.Places = append(cfg.Places, store.Place{Address: c.address, Store: line})
	}
	return cfg
}

func (d *Device) running() *process {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.process
}

// Kill ends the app that runs on this device without a word, as a system does
// that needs the memory. What Config returned reaches no place any more, and
// the next Config has the disk as it was when Kill was called. The old app's
// objects may still be closed, and should be, to end its goroutines.
func (d *Device) Kill() {
	d.t.Helper()
	d.kill(d.running())
}

// killAt makes the running app be killed at its next call of op. The call itself
// ends with the fault.
func (d *Device) killAt(op storetest.Op, fault storetest.Fault) *process {
	p := d.running()
	p.die.Store(&death{op, fault})
	return p
}

// kill may be called by the goroutine of the app.
func (d *Device) kill(p *process) {
	if p.dead.Swap(true) {
		return
	}
	next := &process{disk: d.newDisk()}
	if err := copyTree(next.disk, p.disk); err != nil {
		d.t.Errorf("copying the disk of a device: %v", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.process = next
}

// Prove returns nil if every place holds all that would bring back the newest
// state of this device's wallet, whatever its app says: a copy of the disk is
// opened and every object is compared with what the clouds hold now. Faults,
// calls that are recorded and the app itself are not concerned.
func (d *Device) Prove(ctx context.Context) error {
	return d.inspect(func(b *satchel.Backup) error {
		_, err := b.Check(ctx)
		return err
	})
}

// inspect opens a copy of this device's backup.
func (d *Device) inspect(look func(*satchel.Backup) error) (err error) {
	disk := d.newDisk()
	defer os.RemoveAll(disk)
	if err := copyTree(disk, d.running().disk); err != nil {
		return fmt.Errorf("copying the disk: %w", err)
	}
	cfg := satchel.Config{Dir: filepath.Join(disk, "wallet"), Keychain: d.Keychain.copy(), Now: d.clock.Now}
	for _, c := range d.clouds {
		cfg.Places = append(cfg.Places, store.Place{Address: c.address, Store: c.mem})
	}
	b, err := satchel.Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return look(b)
}

// copyTree copies a directory. A file that goes away meanwhile is left out, as it
// is in a crash.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != from {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.Mkdir(filepath.Join(to, rel), 0o700)
		}
		var data []byte
		if info.Size() > 0 { // An empty one may be a lock, which some systems do not let others read.
			if data, err = os.ReadFile(path); errors.Is(err, fs.ErrNotExist) {
				return nil
			} else if err != nil {
				return err
			}
		}
		return os.WriteFile(filepath.Join(to, rel), data, info.Mode().Perm())
	})
}
