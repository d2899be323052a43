package seal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store"
)

func randomHash(r *rand.Rand) store.Hash {
	return store.Hash(fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64()))
}

func randomName(r *rand.Rand) string {
	const runes = `abcXYZ09 "'<>&{}[]:,ä日/.-_` + "\U0001f4b0"
	for {
		var b strings.Builder
		for range 1 + r.IntN(12) {
			b.WriteRune([]rune(runes)[r.IntN(len([]rune(runes)))])
		}
		if name := b.String(); seal.CheckItemName(name) == nil && !seal.OwnerItem(name) {
			return name
		}
	}
}

// randomSnapshot returns a snapshot that follows the rules.
func randomSnapshot(r *rand.Rand, k *seal.Keys, d *seal.DeviceKey) *seal.Snapshot {
	s := &seal.Snapshot{
		Generation: 1 + r.Uint64N(1<<r.IntN(33)), Software: "satchel/0.1.0", Kind: seal.Checkpoint,
		Time: time.Unix(r.Int64N(1<<37), 0), HasSlots: true, Epoch: d.Epoch(), Device: d.Device(), Backup: d.Backup(),
	}
	if s.Generation > 1 {
		s.Parent = seal.SnapshotName{Epoch: d.Epoch(), Generation: s.Generation - 1, Device: d.Device(), Hash: randomHash(r)}
		switch r.IntN(3) {
		case 0:
			s.Kind, s.HasSlots = seal.Delta, r.IntN(2) == 0
		case 1:
			s.Parent.Epoch, s.Parent.Device = 1+r.Uint64N(d.Epoch()-1), seal.NewDeviceID()
			s.Past = []seal.SnapshotName{s.Parent}
		}
		for before := s.Parent; s.Kind == seal.Checkpoint && before.Epoch > 1 && before.Generation > 1 && r.IntN(3) > 0; before = s.Past[0] {
			n := seal.SnapshotName{Epoch: 1 + r.Uint64N(before.Epoch-1), Generation: 1 + r.Uint64N(before.Generation-1), Device: seal.NewDeviceID(), Hash: randomHash(r)}
			s.Past = slices.Insert(s.Past, 0, n)
		}
	}
	if s.HasSlots {
		for range r.IntN(4) {
			s.Slots = append(s.Slots, seal.SlotName{Kind: "words", ID: seal.NewSlotID(), Hash: randomHash(r)})
		}
	}
	names := map[string]bool{}
	for range r.IntN(20) {
		names[randomName(r)] = true
	}
	if s.Kind == seal.Checkpoint || r.IntN(3) == 0 {
		names[seal.ItemKeys], names[seal.ItemDescriptors] = true, true
	}
	for name := range names {
		value := bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(seal.MaxInline+1))
		it := seal.NewItem(name, 1+r.Uint64N(s.Generation), value)
		it.Required = seal.OwnerItem(name) || r.IntN(2) == 0
		place := r.IntN(5)
		switch {
		case place == 0 && (s.Kind == seal.Delta || seal.OwnerItem(name)):
			it = seal.Item{Name: name, Version: it.Version, Removed: true}
		case name == seal.ItemKeys || place == 1:
			it.Object = randomHash(r)
		case place == 2 && s.Generation > 1:
			it.In = s.Parent
			if it.Version < s.Parent.Generation {
				it.In.Generation, it.In.Hash = it.Version, randomHash(r)
			} else {
				it.Version = s.Parent.Generation
			}
		case place == 3:
			it.Pack, it.Offset = seal.ObjectName{Version: 1 + r.Uint64N(s.Generation), Hash: randomHash(r)}, r.Int64N(seal.MaxValue-seal.MaxInline)
		default:
			it.Version, it.Inline, it.Data = s.Generation, true, value
		}
		k.Sign(&it)
		s.Items = append(s.Items, it)
	}
	return s
}

// What SealSnapshot takes opens again as it was.
func TestRandomSnapshotsRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	quick := cmp.FilterValues(func(a, b []byte) bool { return len(a)+len(b) > 0 }, cmp.Comparer(bytes.Equal))
	k := fixedKeys(0)
	for range 100 {
		d := k.Device(2+r.Uint64N(seal.MaxEpoch-1), seal.NewDeviceID())
		s := randomSnapshot(r, k, d)
		name, data, err := seal.SealSnapshot(d, s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.OpenSnapshot(name, data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, got, cmpopts.EquateEmpty(), quick); diff != "" {
			t.Fatal(diff)
		}
		for i := range got.Items {
			if err := k.Verify(&got.Items[i]); err != nil {
				t.Error(err)
			}
		}
	}
}

// R15: SealSnapshot refuses what OpenSnapshot would refuse.
func TestWrongSnapshotsAreRefused(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	k := fixedKeys(0)
	d := k.Device(7, seal.NewDeviceID())
	other := seal.NewDeviceID()
	wrongs := map[string]func(*seal.Snapshot, *seal.Item){
		"generation 0":   func(s *seal.Snapshot, _ *seal.Item) { s.Generation = 0 },
		"generation":     func(s *seal.Snapshot, _ *seal.Item) { s.Generation++ },
		"kind":           func(s *seal.Snapshot, _ *seal.Item) { s.Kind = "full" },
		"software":       func(s *seal.Snapshot, _ *seal.Item) { s.Software = "a\nb" },
		"no software":    func(s *seal.Snapshot, _ *seal.Item) { s.Software = "" },
		"time":           func(s *seal.Snapshot, _ *seal.Item) { s.Time = time.Unix(1<<40, 0) },
		"no parent":      func(s *seal.Snapshot, _ *seal.Item) { s.Parent = seal.SnapshotName{} },
		"parent hash":    func(s *seal.Snapshot, _ *seal.Item) { s.Parent.Hash = "" },
		"parent epoch 0": func(s *seal.Snapshot, _ *seal.Item) { s.Parent.Epoch = 0 },
		"parent later":   func(s *seal.Snapshot, _ *seal.Item) { s.Parent.Epoch = 8 },
		"past own epoch": func(s *seal.Snapshot, _ *seal.Item) {
			s.Past = append(s.Past, seal.SnapshotName{Epoch: 7, Generation: s.Generation - 1, Device: other, Hash: s.Parent.Hash})
		},
		"past hash": func(s *seal.Snapshot, _ *seal.Item) {
			s.Past = []seal.SnapshotName{{Epoch: 1, Generation: 1, Device: other}}
		},
		"past of the parent": func(s *seal.Snapshot, _ *seal.Item) {
			s.Past, s.Parent.Epoch, s.Parent.Device = nil, 6, other
		},
		"parent device":    func(s *seal.Snapshot, _ *seal.Item) { s.Parent.Epoch, s.Parent.Device = 7, other },
		"slot twice":       func(s *seal.Snapshot, _ *seal.Item) { s.Slots = append(s.Slots, s.Slots[0]) },
		"slot kind":        func(s *seal.Snapshot, _ *seal.Item) { s.Slots[0].Kind = "PIN" },
		"slot hash":        func(s *seal.Snapshot, _ *seal.Item) { s.Slots[0].Hash = "00" },
		"slots not listed": func(s *seal.Snapshot, _ *seal.Item) { s.HasSlots = false },
		"too many slots":   func(s *seal.Snapshot, _ *seal.Item) { s.Slots = make([]seal.SlotName, 65) },
		"item twice":       func(s *seal.Snapshot, it *seal.Item) { s.Items = append(s.Items, *it) },
		"item name":        func(_ *seal.Snapshot, it *seal.Item) { it.Name = "../x" },
		"item name NFC":    func(_ *seal.Snapshot, it *seal.Item) { it.Name = "a\u0308" },
		"version 0":        func(_ *seal.Snapshot, it *seal.Item) { it.Version = 0 },
		"version later":    func(s *seal.Snapshot, it *seal.Item) { it.Version = s.Generation + 1 },
		"no place":         func(_ *seal.Snapshot, it *seal.Item) { it.Inline = false },
		"two places":       func(_ *seal.Snapshot, it *seal.Item) { it.Object = fakeHash },
		"data":             func(_ *seal.Snapshot, it *seal.Item) { it.Data = []byte("other") },
		"size":             func(_ *seal.Snapshot, it *seal.Item) { it.Size++ },
		"negative size":    func(_ *seal.Snapshot, it *seal.Item) { it.Inline, it.Object, it.Size = false, fakeHash, -1 },
		"large size": func(_ *seal.Snapshot, it *seal.Item) {
			it.Inline, it.Object, it.Size = false, fakeHash, seal.MaxValue+1
		},
		"object hash":          func(_ *seal.Snapshot, it *seal.Item) { it.Inline, it.Object = false, "x" },
		"owner MAC unexpected": func(_ *seal.Snapshot, it *seal.Item) { it.Owner = make([]byte, 32) },
		"owner MAC short": func(s *seal.Snapshot, _ *seal.Item) {
			for i := range s.Items {
				if s.Items[i].Name == seal.ItemKeys {
					s.Items[i].Owner = s.Items[i].Owner[:31]
				}
			}
		},
		"owner item not required": func(s *seal.Snapshot, _ *seal.Item) {
			for i := range s.Items {
				if s.Items[i].Name == seal.ItemKeys {
					s.Items[i].Removed, s.Items[i].Required, s.Items[i].Object = false, false, fakeHash
				}
			}
		},
		"removed in checkpoint": func(_ *seal.Snapshot, it *seal.Item) { it.Removed = true },
		"reference hash": func(s *seal.Snapshot, it *seal.Item) {
			it.Inline, it.In, it.Version = false, s.Parent, s.Parent.Generation
			it.In.Hash = "0"
		},
		"reference device": func(s *seal.Snapshot, it *seal.Item) {
			it.Inline, it.In, it.Version = false, s.Parent, s.Parent.Generation
			it.In.Device = other
		},
		"reference version": func(s *seal.Snapshot, it *seal.Item) { it.Inline, it.In = false, s.Parent },
		"reference too large": func(s *seal.Snapshot, it *seal.Item) {
			it.Inline, it.In, it.Version, it.Size = false, s.Parent, s.Parent.Generation, 2049
		},
		"pack offset": func(_ *seal.Snapshot, it *seal.Item) {
			it.Inline, it.Pack, it.Offset = false, seal.ObjectName{Version: 1, Hash: fakeHash}, -1
		},
		"pack offset far": func(_ *seal.Snapshot, it *seal.Item) {
			it.Inline, it.Pack, it.Offset = false, seal.ObjectName{Version: 1, Hash: fakeHash}, seal.MaxValue
		},
		"pack version 0": func(_ *seal.Snapshot, it *seal.Item) { it.Inline, it.Pack = false, seal.ObjectName{Hash: fakeHash} },
		"pack version later": func(s *seal.Snapshot, it *seal.Item) {
			it.Inline, it.Pack = false, seal.ObjectName{Version: s.Generation + 1, Hash: fakeHash}
		},
		"pack hash": func(_ *seal.Snapshot, it *seal.Item) {
			it.Inline, it.Pack = false, seal.ObjectName{Version: 1, Hash: "zz"}
		},
		"without owner items":    func(s *seal.Snapshot, it *seal.Item) { s.Items = []seal.Item{*it} },
		"a removed non-owner":    func(_ *seal.Snapshot, it *seal.Item) { it.Inline, it.Removed = false, true },
		"keys that are not ours": func(s *seal.Snapshot, _ *seal.Item) { s.Items = append(s.Items, seal.Item{Name: "keys", Version: 1}) },
	}
	for what, wrong := range wrongs {
		t.Run(what, func(t *testing.T) {
			for {
				s := randomSnapshot(r, k, d)
				if s.Kind != seal.Checkpoint || s.Generation < 3 || s.Parent.Epoch != d.Epoch() || len(s.Slots) == 0 {
					continue
				}
				it := seal.NewItem("zz", s.Generation, []byte("value"))
				it.Inline, it.Data = true, []byte("value")
				s.Items = append(s.Items, it)
				if _, _, err := seal.SealSnapshot(d, s); err != nil {
					t.Fatal(err)
				}
				i := len(s.Items)
				for i--; s.Items[i].Name != "zz"; i-- {
				}
				wrong(s, &s.Items[i])
				if name, _, err := seal.SealSnapshot(d, s); err == nil {
					t.Errorf("sealed as %s", name)
				}
				return
			}
		})
	}
	it := seal.NewItem("labels", 1, nil)
	for _, v := range []uint64{0, seal.MaxGeneration + 1} {
		if _, _, err := seal.SealItem(d, it.Name, v, nil); err == nil {
			t.Errorf("item of generation %d sealed", v)
		}
	}
	if _, _, err := seal.SealItem(d, "a//b", 1, nil); err == nil {
		t.Error("item of an impossible name sealed")
	}
	if _, _, err := seal.SealItem(d, "labels", 1, make([]byte, seal.MaxValue+1)); err == nil {
		t.Error("item over the limit sealed")
	}
	for _, epoch := range []uint64{0, seal.MaxEpoch + 1} {
		if _, _, err := seal.SealSnapshot(k.Device(epoch, other), newSnapshot(k, 1)); err == nil {
			t.Errorf("snapshot of epoch %d sealed", epoch)
		}
	}
}

// A snapshot opens under its own name and no other.
func TestSnapshotNameIsCompared(t *testing.T) {
	k := fixedKeys(0)
	name, data, err := seal.SealSnapshot(k.Device(1, seal.NewDeviceID()), newSnapshot(k, 1))
	if err != nil {
		t.Fatal(err)
	}
	name.Hash = ""
	if _, err := k.OpenSnapshot(name, data); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("without a hash: got %v, want ErrDamaged", err)
	}
}

// endless is a plaintext that goes on far over every limit; it counts what was
// taken.
type endless struct {
	head  string
	line  string
	at    int // in line
	taken int64
}

func (e *endless) Read(p []byte) (int, error) {
	if e.taken > 2*seal.MaxSnapshot {
		return 0, io.EOF
	}
	n := copy(p, e.head)
	e.head = e.head[n:]
	for n < len(p) && e.line != "" {
		m := copy(p[n:], e.line[e.at:])
		n, e.at = n+m, (e.at+m)%len(e.line)
	}
	e.taken += int64(n)
	return n, nil
}

// R11, R18: hostile plaintexts cost no more than the format allows.
func TestHostilePlaintextIsBounded(t *testing.T) {
	k := fixedKeys(0)
	n := seal.SnapshotName{Epoch: 2, Generation: 7, Device: seal.DeviceID(fixed(8, 0xd0)), Hash: fakeHash}
	check, _, _ := vectorSnapshots(t, k, k.Device(n.Epoch, n.Device))
	header := check[:strings.IndexByte(check, '\n')+1]
	many := replace(t, header, `"items":5`, fmt.Sprint(`"items":`, seal.MaxItems))
	many = replace(t, many, `"slots":2`, `"slots":0`)
	for _, c := range []struct {
		name  string
		plain *endless
		taken int64  // at most
		heap  uint64 // at most
	}{
		{"a line without an end", &endless{line: "x"}, 2 * seal.MaxLine, 1 << 20},
		{"a header that claims too many items", &endless{head: replace(t, many, fmt.Sprint(seal.MaxItems), fmt.Sprint(seal.MaxItems+1)), line: `{"item":"a","version":1,"removed":true}` + "\n"}, 64 << 10, 1 << 20},
		{"more items than the header claims", &endless{head: header, line: `{"item":"a","version":1,"removed":true}` + "\n"}, 64 << 10, 1 << 20},
		{"a pad without an end", &endless{head: replace(t, many, fmt.Sprint(seal.MaxItems), "0") + `{"pad":"`, line: "0"}, 64 << 10, 1 << 20},
		{"zero bytes without an end", &endless{line: "\x00"}, 64 << 10, 1 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := seal.ParseSnapshot(k, c.plain, n)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, seal.ErrDamaged) {
				t.Errorf("got %v, want ErrDamaged", err)
			}
			if c.plain.taken > c.taken {
				t.Errorf("%d bytes were read, want at most %d", c.plain.taken, c.taken)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > c.heap {
				t.Errorf("%d bytes were allocated, want at most %d", got, c.heap)
			}
		})
	}
}

// R11: a plaintext that is longer than the format allows is given up there.
func TestLongSnapshotIsRefused(t *testing.T) {
	plain := &endless{line: strings.Repeat("x", seal.MaxLine-1) + "\n"}
	if err := seal.ReadLines(plain); !errors.Is(err, seal.ErrDamaged) || plain.taken > seal.MaxSnapshot+seal.MaxLine {
		t.Errorf("%d bytes were read, want at most %d: %v", plain.taken, seal.MaxSnapshot, err)
	}
	k := fixedKeys(0)
	s := newSnapshot(k, 1)
	s.Items = append(s.Items, make([]seal.Item, seal.MaxItems-1)...)
	if _, _, err := seal.SealSnapshot(k.Device(1, seal.DeviceID{}), s); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("got %v, want too many items", err)
	}
}

// R11, R18: an object is given up where it grows over what its line says.
func TestHostileObjectIsBounded(t *testing.T) {
	k := fixedKeys(0)
	d := k.Device(1, seal.DeviceID{})
	data := seal.Encrypt(make([]byte, 8<<20), seal.Recipient(d))
	it := seal.NewItem("labels", 1, []byte("small"))
	it.Object = store.Sum(data)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := k.OpenItem(&it, data)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, seal.ErrDamaged) || got > 1<<20 {
		t.Errorf("got %v after %d bytes", err, got)
	}
	it = seal.Item{Name: "labels", Version: 1, Size: seal.MaxValue, Pack: seal.ObjectName{Version: 1, Hash: store.Sum(data)}}
	if _, err := k.OpenItem(&it, data); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("a place beyond its pack: got %v, want ErrDamaged", err)
	}
	if _, err := k.OpenItem(&it, make([]byte, seal.MaxObject+1)); err == nil {
		t.Error("an object over the limit opens")
	}
}

func bigSnapshot(k *seal.Keys, items int) *seal.Snapshot {
	s := newSnapshot(k, 1)
	for i := range items - 2 {
		it := seal.NewItem(fmt.Sprintf("file/%06d", i), 1, []byte{byte(i)})
		it.Object = fakeHash
		s.Items = append(s.Items, it)
	}
	return s
}

func BenchmarkCheckpoint10000(b *testing.B) {
	k := fixedKeys(0)
	d := k.Device(1, seal.DeviceID{})
	s := bigSnapshot(k, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		name, data, err := seal.SealSnapshot(d, s)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := k.OpenSnapshot(name, data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDelta(b *testing.B) {
	k := fixedKeys(0)
	d := k.Device(1, seal.DeviceID{})
	s := newSnapshot(k, 2)
	s.Kind, s.HasSlots, s.Parent = seal.Delta, false, seal.SnapshotName{Epoch: 1, Generation: 1, Hash: fakeHash}
	it := seal.NewItem("labels", 2, make([]byte, 100))
	it.Inline, it.Data = true, make([]byte, 100)
	s.Items = []seal.Item{it}
	for b.Loop() {
		if _, _, err := seal.SealSnapshot(d, s); err != nil {
			b.Fatal(err)
		}
	}
}
