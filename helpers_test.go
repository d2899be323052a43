package satchel_test

import (
	"context"
	"encoding/hex"
	"errors"
	"filippo.io/age"
	"fmt"
	"github.com/btcsuite/btcd/address/v2/bech32"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// Flushing is free on a file system in memory. That what is flushed survives is
// the concern of package durable; that enough is, of TestKilled.
func TestMain(m *testing.M) {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		os.Setenv("TMPDIR", "/dev/shm")
	}
	if spec := os.Getenv(victimEnv); spec != "" {
		victim(spec)
		return
	}
	os.Exit(m.Run())
}

// ticking returns a clock that is a second later at every look.
func ticking() func() time.Time {
	var n atomic.Int64
	return func() time.Time { return time.Unix(1_790_000_000+n.Add(1), 0) }
}

// readAll opens the only backup in the stores like a stranger with the secret, and
// returns all values of its newest state.
func readAll(way slot.Secret, stores ...store.Store) (map[string]string, *satchel.Opened, error) {
	ctx := context.Background()
	cfg := satchel.Config{Settle: -1}
	for i, s := range stores {
		cfg.Places = append(cfg.Places, store.Place{Address: fmt.Sprintf("mem:%d", i), Store: s})
	}
	found, err := satchel.Find(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for i := range found {
		o, err := found[i].Open(ctx, way)
		if err == nil {
			values, err := valuesOf(o)
			return values, o, err
		}
		errs = append(errs, err)
	}
	return nil, nil, errors.Join(errs...)
}

// independent reads what readAll reads, by docs/format.md alone and without the
// engine: any object that is not as it should be is an error.
func independent(way slot.Secret, s store.Store) (map[string]string, error) {
	ctx := context.Background()
	list, err := s.List(ctx, seal.FolderPrefix)
	if err != nil {
		return nil, err
	}
	for _, o := range list {
		folder, path, _ := strings.Cut(o.Name, "/")
		n, ok := seal.ParseSlotPath(path)
		if !ok || n.Kind != string(way.Kind()) {
			continue
		}
		data, err := s.Get(ctx, o.Name, n.Hash, seal.MaxSlot)
		if err != nil {
			return nil, err
		}
		keys, err := seal.OpenSlot(data, way.Identity())
		if err == nil {
			return readNewest(keys, folder, s)
		}
		if !errors.Is(err, slot.ErrWrongSecret) {
			return nil, err
		}
	}
	return nil, errors.New("no slot opens")
}

// readNewest is independent for who has the keys.
func readNewest(keys *seal.Keys, folder string, s store.Store) (map[string]string, error) {
	ctx := context.Background()
	list, err := s.List(ctx, folder+"/snapshots/")
	if err != nil {
		return nil, err
	}
	var newest seal.SnapshotName
	for _, o := range list {
		if n, ok := seal.ParseSnapshotPath(strings.TrimPrefix(o.Name, folder+"/")); ok && n.Compare(newest) > 0 {
			newest = n
		}
	}
	snapshot := func(n seal.SnapshotName) (*seal.Snapshot, error) {
		data, err := s.Get(ctx, folder+"/"+n.Path(), n.Hash, seal.MaxObject)
		if err != nil {
			return nil, err
		}
		return keys.OpenSnapshot(n, data)
	}
	var chain []*seal.Snapshot
	for n := newest; len(chain) == 0 || chain[0].Kind == seal.Delta; n = chain[0].Parent {
		snap, err := snapshot(n)
		if err != nil {
			return nil, err
		}
		chain = slices.Insert(chain, 0, snap)
	}
	lines := map[string]seal.Item{}
	for _, snap := range chain {
		for _, it := range snap.Items {
			if err := keys.Verify(&it); err != nil {
				return nil, err
			}
			if lines[it.Name] = it; it.Removed {
				delete(lines, it.Name)
			}
		}
	}
	carried := map[seal.SnapshotName]*seal.Snapshot{}
	values := map[string]string{}
	for name, it := range lines {
		if obj, ok := keys.ItemObject(&it); ok {
			data, err := s.Get(ctx, folder+"/"+obj.Path(), obj.Hash, seal.MaxObject)
			if err != nil {
				return nil, err
			}
			if it.Data, err = keys.OpenItem(&it, data); err != nil {
				return nil, err
			}
		}
		if n := it.In; !n.IsZero() {
			if carried[n] == nil {
				if carried[n], err = snapshot(n); err != nil {
					return nil, err
				}
			}
			i := slices.IndexFunc(carried[n].Items, func(c seal.Item) bool { return c.Name == name })
			if i < 0 || !it.Matches(carried[n].Items[i].Data) {
				return nil, fmt.Errorf("item %s is not in snapshot %s", name, n)
			}
			it.Data = carried[n].Items[i].Data
		}
		values[name] = string(it.Data)
	}
	return values, nil
}

func valuesOf(o *satchel.Opened) (map[string]string, error) {
	if err := o.Preview().Problem; err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, it := range o.Preview().Items {
		v, err := o.Value(context.Background(), it.Name)
		if err != nil {
			return nil, err
		}
		values[it.Name] = string(v.Open())
	}
	return values, nil
}

// here returns all values of a device.
func here(t *testing.T, b *satchel.Backup) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, it := range b.Items() {
		v, err := b.Get(it.Name)
		if err != nil {
			t.Fatalf("item %s on this device: %v", it.Name, err)
		}
		values[it.Name] = string(v.Open())
	}
	return values
}

// mustRead fails the test unless a stranger with the secret reads want from the
// store, and without the engine.
func mustRead(t *testing.T, want map[string]string, way slot.Secret, s store.Store) {
	t.Helper()
	got, err := independent(way, s)
	if err != nil {
		t.Fatalf("a fresh reader: %v", err)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("a fresh reader got %d items, want %d, or with other values: %v, want %v", len(got), len(want), short(got), short(want))
	}
}

func short(m map[string]string) []string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if v := m[k]; k != "keys" && k != "descriptors" {
			list = append(list, fmt.Sprintf("%s=%.12q(%d)", k, v, len(v)))
		}
	}
	return list
}

// objects returns what a store holds; several objects of one name get a suffix.
func objects(t *testing.T, s store.Store, prefix string) map[string]string {
	t.Helper()
	list, err := s.List(context.Background(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, o := range list {
		data, err := s.Get(context.Background(), o.Name, "", store.MaxObject)
		if err != nil {
			t.Fatal(err)
		}
		name := o.Name
		for m[name] != "" {
			name += "+"
		}
		m[name] = string(data)
	}
	return m
}

// clone returns another store with the same objects.
func clone(t *testing.T, s store.Store) *mem.Store {
	t.Helper()
	c := &mem.Store{}
	for name, data := range objects(t, s, "") {
		c.Add(name, []byte(data))
	}
	return c
}

// replace changes what stands under a name; nil removes it.
func replace(t *testing.T, s store.Store, name string, data []byte) {
	t.Helper()
	ctx := context.Background()
	list, err := s.List(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list {
		if o.Name == name {
			if err := s.Delete(ctx, o); err != nil {
				t.Fatal(err)
			}
		}
	}
	if data != nil {
		if err := s.Put(ctx, name, data); err != nil {
			t.Fatal(err)
		}
	}
}

// name returns the only name in a store that contains part.
func name(t *testing.T, s store.Store, part string) string {
	t.Helper()
	var names []string
	for n := range objects(t, s, "") {
		if strings.Contains(n, part) {
			names = append(names, n)
		}
	}
	if len(names) != 1 {
		t.Fatalf("%d names contain %q, want 1", len(names), part)
	}
	return names[0]
}

// files returns the content of every file below a directory.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		m[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// newDevice returns the Config of another device with the same places.
func newDevice(t *testing.T, cfg satchel.Config) satchel.Config {
	t.Helper()
	cfg.Dir = filepath.Join(t.TempDir(), "wallet")
	cfg.Keychain = &ring{}
	return cfg
}

// restore restores the only backup in the places of cfg to cfg.Dir.
func restore(t *testing.T, cfg satchel.Config, way slot.Secret) *satchel.Backup {
	t.Helper()
	b, out, err := openOnly(t, way, cfg).Restore(context.Background(), cfg, satchel.RestoreOptions{})
	if err != nil || !out.Protected {
		t.Fatalf("restore: %+v, %v", out, err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// save saves and fails the test unless it is protected.
func save(t *testing.T, b *satchel.Backup, changes ...satchel.Change) {
	t.Helper()
	if r, err := b.Save(context.Background(), changes...); err != nil || !r.Protected {
		t.Fatalf("save: %+v, %v", r, err)
	}
}

func item(name, value string) satchel.Change {
	return satchel.Change{Name: name, Value: []byte(value)}
}

func isErr(t *testing.T, err, want error, code satchel.Code) {
	t.Helper()
	if !errors.Is(err, want) || satchel.CodeOf(err) != code {
		t.Errorf("got %v (code %d), want %v (code %d)", err, satchel.CodeOf(err), want, code)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// spoil changes a byte in the middle of a file.
func spoil(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 0x10
	write(t, path, data)
}

// fromHex returns the bytes of a text in hex, nil if it is none.
func fromHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil
	}
	return b
}

// opens reports whether an object opens with a key that is taken for the backup
// key, or for the seed of the payload identity.
func opens(t *testing.T, id seal.BackupID, key []byte, name string, data []byte) bool {
	t.Helper()
	k, err := seal.DeriveKeys(id, secret.New(key))
	if err != nil {
		t.Fatal(err)
	}
	five, err := bech32.ConvertBits(key, 8, 5, true)
	if err != nil {
		t.Fatal(err)
	}
	text, err := bech32.Encode("age-secret-key-pq-", five)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := age.ParseHybridIdentity(strings.ToUpper(text))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(k.KeyFile().Open())), "\n")
	payload, err := age.ParseHybridIdentity(lines[len(lines)-1])
	if err != nil {
		t.Fatal(err)
	}
	_, err = age.Decrypt(strings.NewReader(string(data)), seed, payload)
	return err == nil
}

// forgetful is a keychain that takes secrets and keeps none.
type forgetful struct{ ring }

func (*forgetful) Set(string, secret.Bytes) error { return nil }

// large says that more is wanted than what go test does for everybody; see .ci/run.
func large() bool { return os.Getenv("SATCHEL_LARGE") != "" }

// sparse thins out what a test tries of many alike, such as a kill at every step: it
// returns how far apart those are that are tried, every thin-th, and which is the first,
// another one each time. SATCHEL_LARGE=1 tries them all; the race detector, which makes
// each ten times dearer, few.
func sparse(thin int) (stride, first int) {
	switch {
	case large():
		return 1, 0
	case raced || testing.Short():
		thin *= 4
	}
	return thin, rand.IntN(thin)
}

// largely skips a test that takes many seconds for the sheer number of things in it,
// unless the environment asks for such.
func largely(t *testing.T) {
	t.Helper()
	if !large() {
		t.Skip("takes many seconds; SATCHEL_LARGE=1 runs it")
	}
}
