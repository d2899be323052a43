package satchel_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/wallet"
)

// forge writes a snapshot as a thief does who has the device key and the whole
// place, and none of the ways in.
func forge(t *testing.T, st *mem.Store, b *satchel.Backup, change func(s *seal.Snapshot, put func(name string, value []byte) seal.Item)) {
	t.Helper()
	d := b.DeviceKey()
	head := b.Head()
	folder := b.Status().Folder
	s := &seal.Snapshot{Generation: head.Generation + 1, Parent: head, Time: time.Unix(1_790_000_000, 0), Software: "thief", Kind: seal.Delta}
	change(s, func(name string, value []byte) seal.Item {
		it := seal.NewItem(name, s.Generation, value)
		obj, data, err := seal.SealItem(d, name, s.Generation, value)
		if err != nil {
			t.Fatal(err)
		}
		st.Add(folder+"/"+obj.Path(), data)
		it.Object = obj.Hash
		return it
	})
	name, data, err := seal.SealSnapshot(d, s)
	if err != nil {
		t.Fatal(err)
	}
	st.Add(folder+"/"+name.Path(), data)
}

// R15: who has a stolen device key and the whole cloud folder cannot put other
// keys or descriptors into the wallet, with no MAC, a MAC of his own, or that of
// another item; nor take them out.
func TestStolenDeviceKeyForges(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	thief := newKeys(t)
	text, err := thief.Text()
	if err != nil {
		t.Fatal(err)
	}
	desc, err := thief.Descriptors(0)
	if err != nil {
		t.Fatal(err)
	}
	descText, err := desc.Text()
	if err != nil {
		t.Fatal(err)
	}
	mac := bytes.Repeat([]byte{7}, 32)
	for name, c := range map[string]func(b *satchel.Backup) func(*seal.Snapshot, func(string, []byte) seal.Item){
		"keys": func(*satchel.Backup) func(*seal.Snapshot, func(string, []byte) seal.Item) {
			return func(s *seal.Snapshot, put func(string, []byte) seal.Item) {
				it := put(seal.ItemKeys, text.Open())
				it.Required, it.Owner = true, mac
				s.Items = []seal.Item{it}
			}
		},
		"descriptors": func(*satchel.Backup) func(*seal.Snapshot, func(string, []byte) seal.Item) {
			return func(s *seal.Snapshot, put func(string, []byte) seal.Item) {
				it := put(seal.ItemDescriptors, descText)
				it.Required, it.Owner = true, mac
				s.Items = []seal.Item{it}
			}
		},
		"descriptors with the MAC of the real ones": func(b *satchel.Backup) func(*seal.Snapshot, func(string, []byte) seal.Item) {
			return func(s *seal.Snapshot, put func(string, []byte) seal.Item) {
				it := put(seal.ItemDescriptors, descText)
				it.Required, it.Owner = true, b.Line(seal.ItemDescriptors).Owner
				s.Items = []seal.Item{it}
			}
		},
		"descriptors with the MAC of the keys": func(b *satchel.Backup) func(*seal.Snapshot, func(string, []byte) seal.Item) {
			return func(s *seal.Snapshot, put func(string, []byte) seal.Item) {
				it := put(seal.ItemDescriptors, descText)
				it.Required, it.Owner = true, b.Line(seal.ItemKeys).Owner
				s.Items = []seal.Item{it}
			}
		},
		"keys removed": func(b *satchel.Backup) func(*seal.Snapshot, func(string, []byte) seal.Item) {
			return func(s *seal.Snapshot, _ func(string, []byte) seal.Item) {
				s.Items = []seal.Item{{Name: seal.ItemKeys, Version: s.Generation, Removed: true, Owner: b.Line(seal.ItemKeys).Owner}}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := &mem.Store{}
			cfg := config(t, st)
			b, k, way := create(t, cfg, item("labels", "mine"))
			forge(t, st, b, c(b))
			b.Close()

			o := openOnly(t, way, cfg)
			p := o.Preview()
			if !errors.Is(p.Problem, seal.ErrForged) || satchel.CodeOf(p.Problem) != satchel.CodeDamaged {
				t.Fatalf("got problem %v, want ErrForged", p.Problem)
			}
			if p.Fingerprint != k.Fingerprint() || p.Generation != 1 {
				t.Errorf("the preview shows %s of generation %d, want the owner's of the last honest one", p.Fingerprint, p.Generation)
			}
			fresh := newDevice(t, cfg)
			if _, _, err := o.Restore(ctx, fresh, satchel.RestoreOptions{}); !errors.Is(err, seal.ErrForged) {
				t.Errorf("restore: got %v, want ErrForged", err)
			}
			b2, out, err := o.Restore(ctx, fresh, satchel.RestoreOptions{AcceptProblem: true})
			if err != nil {
				t.Fatal(err)
			}
			defer b2.Close()
			if got, err := b2.Keys(); err != nil || !got.Equal(k) || out.Fingerprint == thief.Fingerprint() {
				t.Errorf("restored another wallet: %v", err)
			}
		})
	}
}

// A checkpoint of a stolen device key that leaves the owner's items out is not
// even a snapshot.
func TestStolenDeviceKeyLeavesOut(t *testing.T) {
	t.Parallel()
	b, _, _ := create(t, config(t, &mem.Store{}))
	s := &seal.Snapshot{Generation: 2, Parent: b.Head(), Time: time.Unix(1, 0), Software: "thief", Kind: seal.Checkpoint, HasSlots: true}
	if _, _, err := seal.SealSnapshot(b.DeviceKey(), s); err == nil {
		t.Error("a checkpoint without keys and descriptors was sealed")
	}
}

// Nothing that a device key holds opens an object of the place: neither the words
// nor what it wrote itself.
func TestStolenDeviceKeyReads(t *testing.T) {
	t.Parallel()
	st := &mem.Store{}
	b, k, _ := create(t, config(t, st), item("labels", "a secret label"), item("file/x", strings.Repeat("y", 5000)))
	loot := string(b.DeviceKey().Marshal().Open())
	if strings.Contains(loot, "AGE-SECRET-KEY") || strings.Contains(loot, string(k.Words().Sentence().Open())) {
		t.Fatal("the device key holds an identity or the words")
	}
	// Whatever 32 bytes the thief finds in it, as backup key or identity seed,
	// open nothing.
	var candidates [][]byte
	for _, part := range strings.FieldsFunc(loot, func(r rune) bool { return r == '"' }) {
		if raw := fromHex(part); len(raw) == 32 {
			candidates = append(candidates, raw)
		}
	}
	if len(candidates) != 3 {
		t.Fatalf("%d keys in a device key, want 3: name, writer, head", len(candidates))
	}
	for name, data := range objects(t, st, "") {
		if !strings.HasSuffix(name, ".age") {
			continue
		}
		for _, key := range candidates {
			if opens(t, b.DeviceKey().Backup(), key, name, []byte(data)) {
				t.Errorf("%s opens with a key of the device", name)
			}
		}
	}
}

// R21 in small: the values of an item that an owner once signed, and no others,
// can come back. The preview shows the generation.
func TestStolenDeviceKeyReplays(t *testing.T) {
	t.Parallel()
	st := &mem.Store{}
	cfg := config(t, st)
	b, k, way := create(t, cfg)
	forge(t, st, b, func(s *seal.Snapshot, _ func(string, []byte) seal.Item) {
		it := b.Line(seal.ItemDescriptors)
		it.Inline = false
		s.Items = []seal.Item{it}
	})
	b.Close()
	o := openOnly(t, way, cfg)
	if p := o.Preview(); p.Problem != nil || p.Fingerprint != k.Fingerprint() {
		t.Errorf("%+v", p)
	}
	var _ wallet.Keys = k
}

// Who has a stolen device key can put a head that no state will ever reach. The device
// stops; who restores is told, decides, and has key servers again that know what is newest.
func TestStolenDeviceKeyPutsHead(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	servers, st, cfg, b, _ := pinned(t)
	n := b.Head()
	h := protocol.NewHead(b.DeviceKey().Head(), n.Epoch, math.MaxUint64, [16]byte{1}, 0)
	if err := servers.Client().PutHead(ctx, pinsIn(t, st)[0], h, nil); err != nil {
		t.Fatal(err)
	}
	_, err := b.Save(ctx, item("labels", "2"))
	isErr(t, err, satchel.ErrOtherDevice, satchel.CodeOtherDevice)
	other := newDevice(t, cfg)
	o, _, err := openPIN(t, other, "3717", "")
	if err != nil {
		t.Fatal(err)
	}
	isErr(t, o.Preview().Problem, satchel.ErrOlder, satchel.CodeOlder)
	if text := o.Preview().Problem.Error(); !strings.Contains(text, "somebody has the key of the device") {
		t.Error(text)
	}
	d, out, err := o.Restore(ctx, other, satchel.RestoreOptions{AcceptProblem: true})
	if err != nil || !out.Protected {
		t.Fatalf("%+v, %v", out, err)
	}
	defer d.Close()
	save(t, d, item("labels", "3"))
	if s := d.Status(); !s.Anchored || !s.Protected || s.Epoch != n.Epoch+1 {
		t.Errorf("%+v", s)
	}
	// What the thief has is of no use in the new epoch.
	h = protocol.NewHead(b.DeviceKey().Head(), n.Epoch+1, math.MaxUint64, [16]byte{1}, 0)
	if err := servers.Client().PutHead(ctx, pinsIn(t, st)[0], h, nil); err == nil {
		t.Error("the thief puts a head in the new epoch")
	}
}
