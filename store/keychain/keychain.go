// Package keychain keeps a small store in the system's keychain: slots, words and
// the like, so that they outlive a folder that is deleted.
//
//	s, err := keychain.New("", keychain.Config{Keychain: system.System(), Dir: dir})
//
// It is no cloud. What it holds is lost with the device, unless the system itself
// copies its keychain. It holds 128 KiB in all, and an object of 64 KiB at most:
// systems keep no more than 1 to 4 KiB under one name, in files that they write
// anew at each change.
//
// Keychains hold text under names and list nothing, so the store is laid out like
// a small disk: blocks of 1 KiB under numbers, and one entry, the head, that says
// which of them are the index. An object's blocks are written first, into blocks
// that nothing refers to, then a new index, then the head: so a crash leaves the
// old state or the new one, and never an object that is cut short. The blocks
// that it may leave behind are found by nobody, and are used again. Only the head
// is ever written over.
//
// Two processes must not do this at once. They are kept apart by a lock file in a
// directory; those that are given different directories, such as two users' of
// one keychain, are not.
//
// The layout was tried with GNOME Keyring, and with a keychain in memory. It was
// never run on macOS or Windows; package keychain of this module, which it rests
// on, keeps their limits.
package keychain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
)

// What fits.
const (
	blockSize = keychain.MaxSecret // bytes in a block
	blocks    = 128                // in the store, the index among them

	// MaxObject is the number of bytes in the longest object. A longer one is both
	// store.ErrTooLarge and store.ErrFull; one that finds no room is store.ErrFull.
	MaxObject = 64 << 10
)

// Config holds what a store needs.
type Config struct {
	// Keychain is where the store is.
	Keychain keychain.Keychain
	// Dir is a directory on this device, made if it is missing, for the lock that
	// keeps processes apart. All of a user's processes must name the same.
	Dir string
}

// Store is a [store.Store] in a keychain.
type Store struct {
	keys   keychain.Keychain
	dir    string
	prefix string // of the entries' names

	// turn holds one token, for one who uses the keychain. Other processes are kept
	// away by the lock file.
	turn chan struct{}
}

var _ store.Store = (*Store)(nil)

var (
	errIndex = errors.New("the index in the keychain is damaged")
	errBusy  = errors.New("another process uses the keychain")
)

// validName reports whether a store can have this name.
func validName(name string) bool {
	other := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
	return name != "" && len(name) <= 40 && name[0] != '-' && !strings.ContainsFunc(name, other)
}

// New returns the store of a name, which is 1 to 40 lower-case letters, digits and
// hyphens, or "" for the usual one. It does not look into the keychain.
func New(name string, c Config) (*Store, error) {
	if name == "" {
		name = "store"
	}
	if !validName(name) {
		return nil, errors.New("opening keychain: unusable name")
	}
	if c.Keychain == nil || c.Dir == "" {
		return nil, errors.New("opening keychain: no keychain, or no directory for its lock")
	}
	return &Store{keys: c.Keychain, dir: c.Dir, prefix: name, turn: make(chan struct{}, 1)}, nil
}

// lockPause is how long to wait for another process before asking again.
const lockPause = 20 * time.Millisecond

// lock waits until nobody else uses the keychain.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	disk := durable.Disk{}
	err = disk.MkdirAll(s.dir, 0o700)
	for err == nil {
		var l *durable.Lock
		l, err = disk.Lock(filepath.Join(s.dir, "keychain-"+s.prefix+".lock"))
		if err == nil {
			return func() { l.Unlock(); <-s.turn }, nil
		}
		if !errors.Is(err, durable.ErrLocked) {
			break
		}
		select {
		case <-ctx.Done():
			err = fmt.Errorf("%w: %w", ctx.Err(), errBusy)
		case <-time.After(lockPause):
			err = nil
		}
	}
	<-s.turn
	return nil, err
}

// head is the entry that says where the index is.
type head struct {
	Version int
	Size    int64      // of the index
	Hash    store.Hash // of the index
	Blocks  []int      // of the index
}

// file is one object as the index has it.
type file struct {
	Name     string
	Size     int64
	Hash     store.Hash
	Modified time.Time
	Blocks   []int
}

// version of the layout.
const version = 1

// state is what the keychain holds at one time.
type state struct {
	head  head
	files []file
}

func (s *Store) headName() string { return s.prefix + ".head" }

func (s *Store) blockName(n int) string { return s.prefix + ".block." + strconv.Itoa(n) }

// get returns an entry. One that is missing is keychain.ErrNotFound.
func (s *Store) get(ctx context.Context, name string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := s.keys.Get(name)
	return b.Open(), unknown(err)
}

func (s *Store) set(ctx context.Context, name string, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return unknown(s.keys.Set(name, secret.New(data)))
}

// unknown adds the sentinel of package store that a keychain's error means.
func unknown(err error) error {
	if errors.Is(err, keychain.ErrUnavailable) {
		return fmt.Errorf("%w: %w", store.ErrUnreachable, err)
	}
	return err
}

// read joins blocks. Bytes that are not the ones of the hash are ErrDamaged.
func (s *Store) read(ctx context.Context, numbers []int, size int64, hash store.Hash) ([]byte, error) {
	data := []byte{}
	for _, n := range numbers {
		b, err := s.get(ctx, s.blockName(n))
		if errors.Is(err, keychain.ErrNotFound) || errors.Is(err, keychain.ErrDamaged) {
			return nil, store.ErrDamaged
		}
		if err != nil {
			return nil, err
		}
		data = append(data, b...)
	}
	if int64(len(data)) != size || !hash.Matches(data) {
		return nil, store.ErrDamaged
	}
	return data, nil
}

// load reads head and index. A keychain that has no head has an empty store.
func (s *Store) load(ctx context.Context) (state, error) {
	var st state
	text, err := s.get(ctx, s.headName())
	if errors.Is(err, keychain.ErrNotFound) {
		return st, nil
	}
	if errors.Is(err, keychain.ErrDamaged) {
		return st, fmt.Errorf("%w: %w", errIndex, err)
	}
	if err != nil {
		return st, err
	}
	if json.Unmarshal(text, &st.head) != nil || st.head.Version != version || st.head.Hash == "" || !st.valid(st.head.Blocks, st.head.Size) {
		return state{}, errIndex
	}
	text, err = s.read(ctx, st.head.Blocks, st.head.Size, st.head.Hash)
	if errors.Is(err, store.ErrDamaged) {
		return state{}, errIndex
	}
	if err != nil {
		return state{}, err
	}
	if json.Unmarshal(text, &st.files) != nil {
		return state{}, errIndex
	}
	for _, f := range st.files {
		if store.CheckName(f.Name) != nil || f.Hash == "" || !st.valid(f.Blocks, f.Size) {
			return state{}, errIndex
		}
	}
	return st, nil
}

// valid reports whether so many bytes can be in these blocks.
func (state) valid(numbers []int, size int64) bool {
	if size < 0 || size > blocks*blockSize || len(numbers) != count(int(size)) {
		return false
	}
	for _, n := range numbers {
		if n < 0 || n >= blocks {
			return false
		}
	}
	return true
}

// free returns the blocks that nothing refers to.
func (st state) free() []int {
	var used [blocks]bool
	for _, n := range st.head.Blocks {
		used[n] = true
	}
	for _, f := range st.files {
		for _, n := range f.Blocks {
			used[n] = true
		}
	}
	var free []int
	for n := range blocks {
		if !used[n] {
			free = append(free, n)
		}
	}
	return free
}

// find returns the place of an object in st.files, or -1.
func (st state) find(name string) int {
	return slices.IndexFunc(st.files, func(f file) bool { return f.Name == name })
}

// count returns how many blocks so many bytes need.
func count(size int) int { return (size + blockSize - 1) / blockSize }

func (s *Store) write(ctx context.Context, data []byte, numbers []int) error {
	for i, n := range numbers {
		if err := s.set(ctx, s.blockName(n), data[i*blockSize:min(len(data), (i+1)*blockSize)]); err != nil {
			return err
		}
	}
	return nil
}

// commit makes files the index in place of st's; data are the bytes of the last
// one, if it is new. Before the head is written the old state holds, after it the
// new one. Then the blocks go that are not needed any more.
func (s *Store) commit(ctx context.Context, st state, files []file, data []byte) error {
	free := st.free()
	free = free[count(len(data)):]
	index, err := json.Marshal(files)
	if err != nil {
		return err
	}
	if count(len(index)) > len(free) {
		return store.ErrFull
	}
	next := state{head{version, int64(len(index)), store.Sum(index), free[:count(len(index))]}, files}
	if data != nil && len(next.free()) < count(len(index)) {
		return store.ErrFull // A Delete needs this much.
	}
	if data != nil {
		if err := s.write(ctx, data, files[len(files)-1].Blocks); err != nil {
			return err
		}
	}
	if err := s.write(ctx, index, next.head.Blocks); err != nil {
		return err
	}
	text, err := json.Marshal(next.head)
	if err != nil {
		return err
	}
	if err := s.set(ctx, s.headName(), text); err != nil {
		return err
	}
	was := st.free()
	for _, n := range next.free() {
		if !slices.Contains(was, n) {
			s.keys.Delete(s.blockName(n)) // Its failure harms nothing: the block is used again.
		}
	}
	return nil
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	err := store.CheckName(name)
	if err == nil && len(data) > MaxObject {
		err = fmt.Errorf("%w: %w: the keychain takes no more than %d KiB at a time", store.ErrFull, store.ErrTooLarge, MaxObject>>10)
	}
	if err == nil {
		err = s.put(ctx, name, data)
	}
	if err != nil {
		return fmt.Errorf("putting object: %w", err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, name string, data []byte) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	st, err := s.load(ctx)
	if err != nil {
		return err
	}
	if i := st.find(name); i >= 0 {
		f := st.files[i]
		there, err := s.read(ctx, f.Blocks, f.Size, f.Hash)
		if errors.Is(err, store.ErrDamaged) || err == nil && !bytes.Equal(there, data) {
			return store.ErrExist
		}
		return err
	}
	free := st.free()
	if count(len(data)) > len(free) {
		return store.ErrFull
	}
	f := file{name, int64(len(data)), store.Sum(data), time.Now().UTC().Truncate(time.Second), free[:count(len(data))]}
	return s.commit(ctx, st, append(slices.Clone(st.files), f), append([]byte{}, data...))
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	err := store.CheckName(name)
	var data []byte
	if err == nil {
		data, err = s.getObject(ctx, name, limit)
	}
	if err == nil && !want.Matches(data) {
		err = store.ErrDamaged
	}
	if err != nil {
		return nil, fmt.Errorf("getting object: %w", err)
	}
	return data, nil
}

func (s *Store) getObject(ctx context.Context, name string, limit int64) ([]byte, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	st, err := s.load(ctx)
	if err != nil {
		return nil, err
	}
	i := st.find(name)
	switch {
	case i < 0:
		return nil, store.ErrNotExist
	case st.files[i].Size > limit:
		return nil, store.ErrTooLarge
	}
	f := st.files[i]
	return s.read(ctx, f.Blocks, f.Size, f.Hash)
}

// List implements [store.Store]. It is never behind.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Object, error) {
	st, err := s.look(ctx)
	if err != nil {
		if errors.Is(err, errIndex) {
			err = fmt.Errorf("%w: %w", store.ErrListing, err)
		}
		return nil, fmt.Errorf("listing objects: %w", err)
	}
	var list []store.Object
	for _, f := range st.files {
		if strings.HasPrefix(f.Name, prefix) {
			list = append(list, store.Object{Name: f.Name, Size: f.Size, Modified: f.Modified, ID: f.Name})
		}
	}
	return list, nil
}

func (s *Store) look(ctx context.Context) (state, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return state{}, err
	}
	defer unlock()
	return s.load(ctx)
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, o store.Object) error {
	err := s.delete(ctx, o.Name)
	if err != nil {
		return fmt.Errorf("deleting object: %w", err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, name string) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	st, err := s.load(ctx)
	if err != nil {
		return err
	}
	i := st.find(name)
	if i < 0 {
		return nil
	}
	return s.commit(ctx, st, slices.Delete(slices.Clone(st.files), i, i+1), nil)
}
