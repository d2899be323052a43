package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
)

// Bounds of what any folder may cost somebody who restores from it.
const (
	hostileTime   = 20 * time.Second // generous: CI machines are shared
	hostileMemory = 400 << 20        // bytes allocated in all, not at a time
)

// hostile is a folder of one backup, to be spoilt.
type hostile struct {
	t      *testing.T
	dir    string // of the backup in the place
	way    slot.Secret
	cfg    satchel.Config // of a device that wants to restore
	keys   string         // files, below dir
	slot   string
	scb    string
	first  string // snapshot of generation 1
	newest string // of generation 3
}

func (h *hostile) path(name string) string { return filepath.Join(h.dir, name) }

func (h *hostile) read(name string) []byte {
	b, err := os.ReadFile(h.path(name))
	h.must(err)
	return b
}

func (h *hostile) write(name string, b []byte) { h.must(os.WriteFile(h.path(name), b, 0o600)) }

func (h *hostile) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *hostile) flip(name string) {
	b := h.read(name)
	b[len(b)*2/3] ^= 4
	h.write(name, b)
}

func newHostile(t *testing.T) *hostile {
	t.Helper()
	cloud := filepath.Join(t.TempDir(), "cloud")
	place, err := folder.New(cloud, folder.Config{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t)
	cfg.Places = []store.Place{{Address: "folder:cloud", Store: place}}
	b, _, way := create(t, cfg)
	save(t, b, satchel.Change{Name: "lightning/scb", Value: slices.Repeat([]byte("s"), 5000), Required: true})
	save(t, b, item("labels", "l"))
	h := &hostile{t: t, dir: filepath.Join(cloud, b.Status().Folder), way: way, cfg: newDevice(t, cfg)}
	scb := b.Line("lightning/scb")
	obj, _ := b.DeviceKey().ItemObject(&scb)
	h.scb = obj.Path()
	b.Close()
	glob := func(pattern string, i int) string {
		m, err := filepath.Glob(h.path(pattern))
		if err != nil || len(m) <= i {
			t.Fatalf("%s: %d files, %v", pattern, len(m), err)
		}
		rel, _ := filepath.Rel(h.dir, m[i])
		return filepath.ToSlash(rel)
	}
	h.keys, h.slot = glob("items/keys/*.age", 0), glob("slots/*.age", 0)
	h.first, h.newest = glob("snapshots/*.age", 0), glob("snapshots/*.age", 2)
	return h
}

// sparse makes a file 10 GiB long that takes no room.
func (h *hostile) sparse(name string) { h.must(os.Truncate(h.path(name), 10<<30)) }

// junk writes bytes under the name that goes with them.
func (h *hostile) junk(stem string, data []byte) {
	h.write(stem+"-"+string(store.Sum(data))+".age", data)
}

// R18, R5, R4: a folder that somebody spoilt. Each way has its own error or its own
// warning, within bounds of time and memory; and what is whole restores.
func TestHostileFolder(t *testing.T) {
	for i, c := range []struct {
		name  string
		spoil func(h *hostile)
		code  satchel.Code // of the restore; CodeDone: it restores
		err   error
		says  string // in the error, or in the warnings
	}{
		{"slot cut short", func(h *hostile) { h.write(h.slot, h.read(h.slot)[:200]) }, satchel.CodeSlotDamaged, satchel.ErrSlotDamaged, "slots/"},
		{"slot flipped", func(h *hostile) { h.flip(h.slot) }, satchel.CodeSlotDamaged, satchel.ErrSlotDamaged, "slots/"},
		{"slot of 10 GiB", func(h *hostile) { h.sparse(h.slot) }, satchel.CodeSlotDamaged, satchel.ErrSlotDamaged, "slots/"},
		{"slot is a link", func(h *hostile) { h.link(h.slot) }, satchel.CodeFailed, satchel.ErrNoSlot, "recovery-code"},
		{"slot deleted", func(h *hostile) { h.must(os.Remove(h.path(h.slot))) }, satchel.CodeFailed, satchel.ErrNoSlot, "recovery-code"},
		{"slot with absurd work", func(h *hostile) { h.absurd("30") }, satchel.CodeSlotDamaged, slot.ErrParameters, "slots/"},
		{"slot with no work", func(h *hostile) { h.absurd("1") }, satchel.CodeSlotDamaged, slot.ErrParameters, "slots/"},
		{"snapshot cut short", func(h *hostile) { h.write(h.newest, h.read(h.newest)[:1000]) }, satchel.CodeDamaged, seal.ErrTruncated, "cut short"},
		{"snapshot flipped", func(h *hostile) { h.flip(h.newest) }, satchel.CodeDamaged, seal.ErrDamaged, "snapshots/"},
		{"snapshot of 10 GiB", func(h *hostile) { h.sparse(h.newest) }, satchel.CodeDamaged, seal.ErrDamaged, "longer"},
		{"snapshot replaced by an older one", func(h *hostile) { h.write(h.newest, h.read(h.first)) }, satchel.CodeDamaged, seal.ErrDamaged, "snapshots/"},
		{"checkpoint deleted", func(h *hostile) { h.must(os.Remove(h.path(h.first))) }, satchel.CodeDamaged, satchel.ErrMissing, "000001-0000000001"},
		{"all snapshots deleted", func(h *hostile) { h.must(os.RemoveAll(h.path("snapshots"))) }, satchel.CodeDamaged, satchel.ErrMissing, "no snapshot"},
		{"snapshots renamed to each other", func(h *hostile) {
			a, b := h.read(h.first), h.read(h.newest)
			h.write(h.first, b)
			h.write(h.newest, a)
		}, satchel.CodeDamaged, seal.ErrDamaged, "snapshots/"},
		{"item cut short", func(h *hostile) { h.write(h.scb, h.read(h.scb)[:900]) }, satchel.CodeIncomplete, seal.ErrTruncated, "lightning/scb"},
		{"item flipped", func(h *hostile) { h.flip(h.scb) }, satchel.CodeIncomplete, seal.ErrDamaged, "lightning/scb"},
		{"item of 10 GiB", func(h *hostile) { h.sparse(h.scb) }, satchel.CodeIncomplete, seal.ErrDamaged, "lightning/scb"},
		{"item deleted", func(h *hostile) { h.must(os.Remove(h.path(h.scb))) }, satchel.CodeIncomplete, satchel.ErrMissing, "lightning/scb"},
		{"item is a link", func(h *hostile) { h.link(h.scb) }, satchel.CodeIncomplete, nil, "lightning/scb"},
		{"item replaced by the keys", func(h *hostile) { h.write(h.scb, h.read(h.keys)) }, satchel.CodeIncomplete, seal.ErrDamaged, "lightning/scb"},
		{"keys deleted", func(h *hostile) { h.must(os.Remove(h.path(h.keys))) }, satchel.CodeDamaged, satchel.ErrMissing, "items/keys"},

		{"conflict copies", func(h *hostile) {
			for _, n := range []string{h.newest, h.slot, h.scb, h.keys} {
				h.write(strings.TrimSuffix(n, ".age")+" (1).age", h.read(n))
				h.write(n+".conflict", []byte("x"))
			}
		}, satchel.CodeDone, nil, ""},
		{"links beside", func(h *hostile) {
			h.must(os.Symlink("/etc/passwd", h.path("snapshots/000009-0000000009-0000000000000000-00000000000000000000000000000000.age")))
			h.must(os.Symlink("/", h.path("slots/root")))
			h.must(os.Symlink(h.dir, h.path("items/loop")))
		}, satchel.CodeDone, nil, ""},
		{"README and backup.json lie", func(h *hostile) {
			h.write("backup.json", []byte(`{"satchel-backup":1,"id":"00000000000000000000000000000000","created":"2026-11-23","network":"testnet"}`))
			h.write("README.txt", slices.Repeat([]byte("x"), 1<<20))
		}, satchel.CodeDone, nil, "backup.json"},
		{"junk of later epochs", func(h *hostile) {
			for i := range 1500 {
				h.junk(fmt.Sprintf("snapshots/%06d-%010d-0123456789abcdef", 900_000+i, i+1), fmt.Append(nil, "junk", i))
			}
		}, satchel.CodeDone, nil, "not of this backup"},
		{"junk slots", func(h *hostile) {
			for i := range 40 {
				h.junk(fmt.Sprintf("slots/recovery-code-%016x", i+1), fmt.Append(nil, "junk", i))
			}
		}, satchel.CodeDone, nil, "not in the list of slots"},
		{"somebody else's backup copied in", func(h *hostile) {
			o := newHostile(h.t)
			for _, n := range []string{o.slot, o.keys, o.scb, o.first, o.newest} {
				h.must(os.MkdirAll(filepath.Dir(h.path(n)), 0o700))
				h.write(n, o.read(n))
			}
		}, satchel.CodeDone, nil, "not of this backup"},
		{"another format's slot", func(h *hostile) { h.junk("slots/passkey-0123456789abcdef", []byte("x")) }, satchel.CodeDone, nil, "passkey"},
	} {
		if raced && i%3 != 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			h := newHostile(t)
			c.spoil(h)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			warnings, err := h.restore()
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if took > hostileTime {
				t.Errorf("took %v", took)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > hostileMemory {
				t.Errorf("allocated %d MB", n>>20)
			}
			if got := satchel.CodeOf(err); got != c.code {
				t.Fatalf("got %v (code %d), want code %d", err, got, c.code)
			}
			if c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("got %v, want %v", err, c.err)
			}
			text := warnings
			if err != nil {
				text = err.Error()
				if left, _ := os.ReadDir(filepath.Dir(h.cfg.Dir)); len(left) > 0 {
					t.Errorf("left on the device: %v", left)
				}
			}
			if !strings.Contains(text, c.says) {
				t.Errorf("%q does not say %q", text, c.says)
			}
		})
	}
}

// link puts a file elsewhere and a symbolic link in its place.
func (h *hostile) link(name string) {
	elsewhere := filepath.Join(h.t.TempDir(), "elsewhere")
	h.must(os.WriteFile(elsewhere, h.read(name), 0o600))
	h.must(os.Remove(h.path(name)))
	h.must(os.Symlink(elsewhere, h.path(name)))
}

// absurd gives the slot another work factor, and the name that goes with it.
func (h *hostile) absurd(factor string) {
	data := []byte(strings.Replace(string(h.read(h.slot)), " 10\n", " "+factor+"\n", 1))
	h.must(os.Remove(h.path(h.slot)))
	h.write(rename(h.slot, data), data)
}

// restore restores the way a user does who accepts nothing, and returns the
// warnings.
func (h *hostile) restore() (string, error) {
	ctx := context.Background()
	found, err := satchel.Find(ctx, h.cfg)
	if err != nil {
		return "", err
	}
	o, err := found[0].Open(ctx, h.way)
	if err != nil {
		return "", err
	}
	b, _, err := o.Restore(ctx, h.cfg, satchel.RestoreOptions{})
	if b != nil {
		b.Close()
	}
	return strings.Join(o.Preview().Warnings, "\n"), err
}

// Whatever was spoilt in one place is taken from another.
func TestHostilePlaceBesideAGoodOne(t *testing.T) {
	h := newHostile(t)
	good := filepath.Join(t.TempDir(), "good")
	if err := os.CopyFS(good, os.DirFS(filepath.Dir(h.dir))); err != nil {
		t.Fatal(err)
	}
	place, err := folder.New(good, folder.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{h.slot, h.newest, h.first, h.keys, h.scb} {
		h.flip(n)
	}
	h.cfg.Places = append(h.cfg.Places, store.Place{Address: "folder:good", Store: place})
	if _, err := h.restore(); err != nil {
		t.Fatal(err)
	}
}
