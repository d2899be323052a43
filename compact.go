package satchel

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/satchel-backup/satchel/seal"
)

// Compacted is what Compact did.
type Compacted struct {
	Result
	Values int // that were moved into packs
	Packs  int // that were made
}

// Compact moves the values that older snapshots carry into packs, so that a restore
// fetches few objects and the older snapshots can be pruned. It happens by itself when a
// checkpoint is due; Compact does it now, merges the packs there are, and packs values
// that are not large and have an object each, if there are many. It needs no secret: the
// values are on this device. Errors as for Save.
func (b *Backup) Compact(ctx context.Context) (Compacted, error) {
	var c Compacted
	if err := b.begin(ctx); err != nil {
		return c, err
	}
	defer b.end()
	looks, err := b.look(ctx)
	if err != nil {
		return c, err
	}
	p, err := b.checkpoint(true)
	if err != nil {
		return c, fmt.Errorf("compacting: %w", err)
	}
	err = b.sync(ctx, looks)
	return Compacted{b.result(0), p.values, len(p.objects)}, err
}

// checkpoint commits a checkpoint that changes nothing. One that is only for packing is
// made only if there is something to pack.
func (b *Backup) checkpoint(onlyPack bool) (packer, error) {
	d := b.dev
	p := packer{d: d, gen: d.head().Generation + 1}
	lines, err := p.pack(d.whole(nil), onlyPack)
	if err != nil || onlyPack && p.values == 0 {
		return p, err
	}
	return p, b.commitSnapshot(&seal.Snapshot{
		Generation: p.gen, Parent: d.head(), Time: b.cfg.Now(), Software: b.cfg.Software,
		Kind: seal.Checkpoint, HasSlots: true, Slots: slices.Clone(d.slots),
	}, lines, p.objects)
}

const (
	maxPack   = 4 << 20 // bytes of values in a pack: a reader holds one in memory
	smallPack = 1 << 20 // a pack with less in use is worth merging
	maxSmall  = 16      // small packs that are left as they are

	maxPacked = 256 << 10 // bytes of a new value that may go into a pack
	manyNew   = 16        // values that go into packs, and not each into an object of its own
)

// packable reports whether a change has a value that goes into a pack when many come at
// once: an object for each would cost a restore, and a place, far more than the bytes.
func (c *Change) packable() bool {
	return !c.Remove && len(c.Value) > seal.MaxInline && len(c.Value) <= maxPacked && !seal.OwnerItem(c.Name)
}

// many reports whether so many values are new at once that they are packed.
func many(changes []Change) bool {
	n := 0
	for i := range changes {
		if changes[i].packable() {
			n++
		}
	}
	return n >= manyNew
}

// packer seals values one after another into packs, which are kept on the device.
type packer struct {
	d       *device
	gen     uint64
	values  int
	objects []string // paths of the packs

	entries []*entry // of the pack that is being filled
	data    [][]byte
	size    int
}

// pack returns the lines of a checkpoint with values moved into packs: those that older
// snapshots carry, so that a checkpoint refers to no other snapshot and is whole in a
// place as soon as it is there; those in small packs, if there are many of those or all
// is true; and if all is true those in objects of their own too, if there are many.
func (p *packer) pack(lines []*entry, all bool) ([]*entry, error) {
	carriers, packs := map[seal.SnapshotName]bool{}, map[seal.ObjectName]int64{}
	alone := 0
	for _, e := range lines {
		switch l := &e.line; {
		case !l.In.IsZero():
			carriers[l.In] = true
		case l.Pack.Hash != "":
			packs[l.Pack] += l.Size
		case p.alone(e):
			alone++
		}
	}
	maps.DeleteFunc(packs, func(_ seal.ObjectName, used int64) bool { return used >= smallPack })
	if len(packs) <= maxSmall && !(all && len(packs)+min(len(carriers), 1) > 1) {
		packs = nil
	}
	lines = slices.Clone(lines)
	for i, e := range lines {
		_, small := packs[e.line.Pack]
		if !small && !carriers[e.line.In] && !(all && alone >= manyNew && p.alone(e)) || e.lost || e.line.Removed {
			continue
		}
		value, err := p.d.valueOf(e)
		if err != nil {
			continue // It stays where it is.
		}
		moved := *e
		lines[i] = &moved
		if err := p.add(&moved, value); err != nil {
			return nil, err
		}
	}
	return lines, p.flush()
}

// alone reports whether an entry's value is in an object of its own and need not be.
func (*packer) alone(e *entry) bool {
	l := &e.line
	return l.Object != "" && l.Size <= maxPacked && !e.lost && !seal.OwnerItem(l.Name)
}

// add puts the value of an entry into a pack. The entry says where only after flush.
func (p *packer) add(e *entry, value []byte) error {
	if len(p.entries) > 0 && p.size+len(value) > maxPack {
		if err := p.flush(); err != nil {
			return err
		}
	}
	p.entries, p.data, p.size = append(p.entries, e), append(p.data, value), p.size+len(value)
	p.values++
	return nil
}

// flush seals the pack that is being filled.
func (p *packer) flush() error {
	if len(p.entries) == 0 {
		return nil
	}
	name, sealed, err := seal.SealPack(p.d.key, p.gen, p.data)
	if err != nil {
		return err
	}
	if err := p.d.putObject(name.Hash, sealed); err != nil {
		return err
	}
	offset := int64(0)
	for i, e := range p.entries {
		l := &e.line
		l.Inline, l.Data, l.Object, l.In = false, nil, "", seal.SnapshotName{}
		l.Pack, l.Offset = seal.ObjectName{Version: name.Version, Hash: name.Hash}, offset
		offset += int64(len(p.data[i]))
	}
	p.objects = append(p.objects, name.Path())
	p.entries, p.data, p.size = nil, nil, 0
	return nil
}

// inOrder returns the items such that values carried by one snapshot, or one pack,
// follow one another.
func (o *Opened) inOrder() []string {
	items := o.state.items
	return slices.SortedFunc(maps.Keys(items), func(a, b string) int {
		x, y := &items[a].line, &items[b].line
		return cmp.Or(x.In.Compare(y.In), cmp.Compare(x.In.Hash, y.In.Hash),
			cmp.Compare(x.Pack.Version, y.Pack.Version), cmp.Compare(x.Pack.Hash, y.Pack.Hash), cmp.Compare(a, b))
	})
}

// carrier is the snapshot or the pack fetched last, for the values that it carries.
type carrier struct {
	snapshot seal.SnapshotName
	items    []seal.Item // of the snapshot, sorted by name
	pack     seal.ObjectName
	plain    []byte // of the pack
	err      error
	// once says that a value is used up before the next one is asked for: the room of a
	// pack is taken for the next.
	once bool
}

// restoreValue fetches one value and everything that the new device keeps of it.
func (o *Opened) restoreValue(ctx context.Context, e *entry, last *carrier) ([]byte, error) {
	l := &e.line
	switch {
	case !l.In.IsZero():
		if last.snapshot != l.In {
			*last = carrier{snapshot: l.In, once: last.once}
			s, err := o.snapshot(ctx, l.In)
			if last.err = err; err == nil {
				last.items = s.Items
			}
		}
	case l.Pack.Hash != "":
		if last.pack != l.Pack {
			room := last.plain
			if !last.once {
				room = nil
			}
			*last = carrier{pack: l.Pack, once: last.once}
			last.plain, last.err = o.pack(ctx, l, room)
		}
	default:
		return o.valueOf(ctx, e)
	}
	if last.err != nil {
		return nil, fmt.Errorf("item %s: %w", l.Name, last.err)
	}
	if last.plain != nil {
		v, err := l.FromPack(last.plain)
		if err != nil {
			return nil, fmt.Errorf("item %s: %w", l.Name, err)
		}
		return v, nil
	}
	return carriedValue(l, last.items)
}

// pack fetches and opens the pack that a line refers to, in the room of another one if
// that is enough.
func (o *Opened) pack(ctx context.Context, l *seal.Item, room []byte) ([]byte, error) {
	name, _ := o.keys.ItemObject(l)
	data, err := o.reader.fetch(ctx, name.Path(), seal.MaxObject)
	if err != nil {
		return nil, err
	}
	return o.keys.OpenPackInto(room, name, data)
}

// carriedValue returns the value of a line that refers to a snapshot with these
// items.
func carriedValue(l *seal.Item, items []seal.Item) ([]byte, error) {
	i, ok := slices.BinarySearchFunc(items, l.Name, func(it seal.Item, name string) int { return cmp.Compare(it.Name, name) })
	if ok && items[i].Inline && items[i].Version == l.Version && l.Matches(items[i].Data) {
		return items[i].Data, nil
	}
	return nil, fmt.Errorf("item %s: it is not in snapshot %s: %w", l.Name, l.In, ErrMissing)
}
