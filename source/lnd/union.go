package lnd

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/source"
)

// The items of a node.
const (
	// ItemBackup is the newest backup of all channels, byte for byte as lnd made it. A
	// restore without it is incomplete.
	ItemBackup = "lightning/scb"
	// ItemOlder and the first 8 characters of its SHA-256 in hex is an older backup that
	// is still needed: it knows a channel that the newest one lacks and that the node has
	// not said to be closed for good. A restore gives lnd all of them.
	ItemOlder = ItemBackup + "/"
	// ItemChannels is JSON: which channels are in each of the backups, which are opaque.
	ItemChannels = "lightning/channels"
	// ItemSingles is JSON: backups of single channels that stand in a backup together with
	// restored ones, and in no other. It is there while it is needed.
	ItemSingles = "lightning/singles"
	// ItemNode is JSON: which node this is.
	ItemNode = "lightning/node"
	// ItemPeers is JSON: the nodes that the channels are with, and where they are.
	ItemPeers = "lightning/peers"
)

const (
	hashPart = 8 // characters of a hash in an item's name

	// maxOlder bounds the older backups of which nobody can say what is in them, or how much.
	maxOlder = 64
)

// held is a backup that is kept, or perhaps.
type held struct {
	multi    []byte
	sum      [32]byte
	channels []string // sorted
	known    bool     // channels is what is in it
	file     bool     // it was read from lnd's file
	at       time.Time
	item     string // the name that it has, or shall have, as an older one
	place    int    // in the list that was kept
	singles  []Single
	single   map[string]bool // if h is mixed, the channels that are kept by themselves, too, or shall be

	// asked says that lnd was asked which of the channels it knew from a backup only. Of
	// those, less, this one holds less than that backup, and takes its place for none. Such a
	// channel never becomes another one again.
	asked bool
	less  []string        // sorted
	sure  map[string]bool // are none of those, although lnd was not asked
}

// whole reports whether all that there ever was of a channel can be had from h.
func (h *held) whole(c string) bool { return h.asked && !h.lesser(c) || h.sure[c] }

// lesser reports whether less than that is in h, or cannot be had from it.
func (h *held) lesser(c string) bool { return h.isLess(c) || h.mixed() && !h.single[c] }

func (h *held) isLess(c string) bool {
	_, less := slices.BinarySearch(h.less, c)
	return less
}

// mixed reports whether restored channels stand beside others in h: lnd reads such a
// backup in an order of its own, and ends at the first that it cannot restore.
func (h *held) mixed() bool { return len(h.less) > 0 && len(h.less) < len(h.channels) }

func hold(multi []byte, channels []string, known bool, at time.Time) *held {
	return &held{multi: multi, sum: sha256.Sum256(multi), channels: channels, known: known, at: at}
}

// lacks lists the channels of others that are not in h, if that is known.
func (h *held) lacks(others []*held) []string {
	have := set(h.channels)
	var lacks []string
	for _, o := range others {
		for _, c := range o.channels {
			if !have[c] {
				have[c] = true
				lacks = append(lacks, c)
			}
		}
	}
	return lacks
}

// like reports whether two backups say the same, as far as that shows: lnd makes the
// bytes anew each time.
func (h *held) like(o *held) bool {
	return h.known && o.known && len(h.multi) == len(o.multi) && slices.Equal(h.channels, o.channels)
}

// asLong reports whether h is as long as its channels are in one that lnd exported just
// now, but for signatures. What lnd exports of a restored channel lacks a transaction and
// has a key more.
func (h *held) asLong(exported *held) bool {
	const key = 33
	length, each := 0, 0
	for _, s := range exported.singles {
		length += len(s.Backup)
	}
	if n := len(exported.singles); n > 0 {
		each = (length + minMulti - len(exported.multi)) / n // What a single one has besides.
	}
	have := set(h.channels)
	length = len(exported.multi)
	for _, s := range exported.singles {
		if !have[s.Channel] {
			length -= len(s.Backup) - each
		}
		delete(have, s.Channel)
	}
	diff := len(h.multi) - length
	return len(have) == 0 && -key < diff && diff < key
}

func set(list []string) map[string]bool {
	m := make(map[string]bool, len(list))
	for _, s := range list {
		m[s] = true
	}
	return m
}

// keep chooses which of the older backups, newest first, are still needed beside the
// newest: those that hold more of a channel that is not closed than any newer one.
func keep(newest *held, older []*held, closed map[string]bool) []*held {
	have, whole := map[string]bool{}, map[string]bool{}
	for c := range closed {
		have[c], whole[c] = true, true
	}
	add := func(h *held) {
		for _, c := range h.channels {
			have[c] = true
			whole[c] = whole[c] || h.whole(c)
		}
	}
	// Where one holds all of a channel, or perhaps does, nobody needs one that holds less.
	better := map[string]bool{}
	for _, o := range older {
		for _, c := range o.channels {
			better[c] = better[c] || !o.lesser(c)
		}
	}
	add(newest)
	seen := map[[32]byte]bool{newest.sum: true}
	var list []*held
	unknown := 0
	for _, o := range older {
		needed := !o.known || slices.ContainsFunc(o.channels, func(c string) bool {
			if o.lesser(c) {
				return !have[c] && !better[c]
			}
			return !whole[c]
		})
		if seen[o.sum] || !needed {
			continue
		}
		seen[o.sum] = true
		if !o.known || !o.asked {
			if unknown++; unknown > maxOlder {
				continue
			}
		}
		list = append(list, o)
		add(o)
	}
	return list
}

// instead returns which of the backups that are kept beside h is the newest one where h
// holds nothing that they do not, nor anything whole, and which are the older ones.
func instead(h *held, kept []*held, closed map[string]bool) (*held, []*held) {
	if len(h.less) == 0 || h.mixed() || len(kept) == 0 {
		return h, kept
	}
	for _, c := range h.channels {
		if !closed[c] && !slices.ContainsFunc(kept, func(o *held) bool { return slices.Contains(o.channels, c) && !o.lesser(c) }) {
			return h, kept
		}
	}
	// A satchel that knows nothing of all this hands the newest one over first.
	i := max(slices.IndexFunc(kept, func(o *held) bool { return o.asked && len(o.less) == 0 }), 0)
	newest := kept[i]
	return newest, keep(newest, slices.Delete(slices.Clone(kept), i, i+1), closed)
}

// The JSON of ItemChannels.
type (
	channelsItem struct {
		Format  int              `json:"format"` // 1
		Node    string           `json:"node,omitempty"`
		Backups []channelsBackup `json:"backups"`        // the newest first
		File    string           `json:"file,omitempty"` // SHA-256 of lnd's file when the newest was exported
	}
	channelsBackup struct {
		Item     string    `json:"item"`
		SHA256   string    `json:"sha256"`
		Time     time.Time `json:"time"`
		FromFile bool      `json:"from_file,omitempty"`
		Channels []string  `json:"channels"` // txid:index; null if not known
		// Restored are those of which lnd knew no more than an earlier backup had told it.
		// It is null where lnd could not be asked, and not there where an earlier satchel
		// wrote this.
		Restored *[]string `json:"restored,omitempty"`
	}
)

// The JSON of ItemSingles.
type singlesItem struct {
	Format   int      `json:"format"` // 1
	Channels []Single `json:"channels"`
}

const maxItem = 16 << 20 // bytes of JSON

// memory is what is kept, as far as a run knows.
type memory struct {
	node   nodeItem // zero if none is kept
	newest *held    // nil if none is kept
	older  []*held  // newest first
	// tried are backups, newest first, of which it is not known whether they were kept.
	tried []*held
	names map[string]bool // of the items below ItemOlder that there are, perhaps
	file  [32]byte        // of lnd's file when the newest was exported
	items map[string][]byte
	// singles are those of ItemSingles.
	singles []Single
}

// remember reads what is kept. What does not fit together is kept and not trusted.
func remember(kept map[string][]byte) memory {
	m := memory{names: map[string]bool{}, items: map[string][]byte{}}
	var list channelsItem
	if data := kept[ItemChannels]; len(data) > maxItem || json.Unmarshal(data, &list) != nil || list.Format != 1 {
		list = channelsItem{}
	}
	if data := kept[ItemNode]; len(data) > maxItem || json.Unmarshal(data, &m.node) != nil || m.node.Format != 1 {
		m.node = nodeItem{}
	}
	if sum, err := hex.DecodeString(list.File); err == nil {
		copy(m.file[:], sum)
	}
	load := func(item string) *held {
		multi := bytes.Clone(kept[item])
		h := hold(multi, nil, false, time.Time{})
		h.place = len(list.Backups)
		for i, b := range list.Backups {
			if b.SHA256 != hex.EncodeToString(h.sum[:]) {
				continue
			}
			h.at, h.file, h.place = b.Time, b.FromFile, i
			if b.Channels != nil && !slices.ContainsFunc(b.Channels, notChannel) {
				h.channels, h.known = slices.Clone(b.Channels), true
				slices.Sort(h.channels)
			}
			if h.known && b.Restored != nil && !slices.ContainsFunc(*b.Restored, notChannel) {
				h.asked, h.less = true, slices.Sorted(slices.Values(*b.Restored))
			}
		}
		return h
	}
	for item, value := range kept {
		switch {
		case item == ItemBackup && len(value) >= minMulti:
			m.newest = load(item)
		case strings.HasPrefix(item, ItemOlder):
			m.names[item] = true
			if len(value) >= minMulti {
				h := load(item)
				h.item = item
				m.older = append(m.older, h)
			}
		case item == ItemChannels || item == ItemNode || item == ItemPeers || item == ItemSingles:
			m.items[item] = bytes.Clone(value)
		}
	}
	m.singles = ReadSingles(kept[ItemSingles])
	slices.SortFunc(m.older, func(a, b *held) int {
		return cmp.Or(cmp.Compare(a.place, b.place), bytes.Compare(a.sum[:], b.sum[:]))
	})
	m.single()
	return m
}

// ListedChannels returns the channels in a backup, as ItemChannels lists them. known is false
// if it says nothing of this backup.
func ListedChannels(list, backup []byte) (channels []string, known bool) {
	m := remember(map[string][]byte{ItemChannels: list, ItemBackup: backup})
	if m.newest == nil {
		return nil, false
	}
	return m.newest.channels, m.newest.known
}

// ReadSingles reads an ItemSingles. What is not one holds none.
func ReadSingles(item []byte) []Single {
	var list singlesItem
	if len(item) > maxItem || json.Unmarshal(item, &list) != nil || list.Format != 1 {
		return nil
	}
	return slices.DeleteFunc(list.Channels, func(s Single) bool { return notChannel(s.Channel) || len(s.Backup) == 0 })
}

// Account is what the source wrote down about a backup.
type Account struct {
	Channels []string // txid:index, sorted
	// Restored are those that it holds less of than an earlier backup. Asked says that they
	// are known.
	Restored []string
	Asked    bool
}

// ReadAccounts reads an ItemChannels: what is known of each backup whose channels are
// known, by its SHA-256.
func ReadAccounts(item []byte) map[[32]byte]Account {
	var list channelsItem
	if len(item) > maxItem || json.Unmarshal(item, &list) != nil || list.Format != 1 {
		return nil
	}
	accounts := map[[32]byte]Account{}
	for _, b := range list.Backups {
		sum, err := hex.DecodeString(b.SHA256)
		if err != nil || len(sum) != sha256.Size || b.Channels == nil || slices.ContainsFunc(b.Channels, notChannel) {
			continue
		}
		a := Account{Channels: slices.Sorted(slices.Values(b.Channels))}
		if a.Asked = b.Restored != nil; a.Asked {
			a.Restored = *b.Restored
		}
		accounts[[32]byte(sum)] = a
	}
	return accounts
}

// others are all backups that there may be, newest first.
func (m *memory) others() []*held {
	list := slices.Clone(m.tried)
	if m.newest != nil {
		list = append(list, m.newest)
	}
	return append(list, m.older...)
}

// plan is what a save is to bring about.
type plan struct {
	newest  *held
	older   []*held
	names   map[string]bool
	items   map[string][]byte
	singles []Single
	changes []source.Change
}

// plan makes newest the newest backup beside the older ones.
func (m *memory) plan(node string, newest *held, older []*held) plan {
	p := plan{newest: newest, older: older, names: map[string]bool{}, items: map[string][]byte{}}
	list := channelsItem{Format: 1, Node: node}
	if m.file != ([32]byte{}) {
		list.File = hex.EncodeToString(m.file[:])
	}
	add := func(item string, h *held) {
		b := channelsBackup{Item: item, SHA256: hex.EncodeToString(h.sum[:]), Time: h.at.UTC(), FromFile: h.file}
		if h.known {
			b.Channels = append([]string{}, h.channels...)
		}
		if h.asked {
			less := append([]string{}, h.less...)
			b.Restored = &less
		}
		list.Backups = append(list.Backups, b)
		if item == ItemBackup && (m.newest == nil || m.newest.sum != h.sum || len(m.tried) > 0) ||
			item != ItemBackup && (!m.names[item] || !slices.ContainsFunc(m.older, func(o *held) bool { return o.sum == h.sum })) {
			p.changes = append(p.changes, source.Change{Name: item, Value: h.multi, Required: true})
		}
	}
	add(ItemBackup, newest)
	for _, o := range older {
		hash := hex.EncodeToString(o.sum[:])
		for n := hashPart; o.item == "" || p.names[o.item]; n += hashPart { // Two can begin alike.
			if name := ItemOlder + hash[:min(n, len(hash))]; !m.names[name] || n > len(hash) {
				o.item = name
			}
		}
		p.names[o.item] = true
		add(o.item, o)
	}
	data, err := json.Marshal(list)
	if err != nil {
		panic(err) // Strings and times.
	}
	if !bytes.Equal(data, m.items[ItemChannels]) && (len(p.changes) > 0 || len(m.names) != len(p.names)) {
		p.items[ItemChannels] = data
		p.changes = append(p.changes, source.Change{Name: ItemChannels, Value: data})
	}
	m.planSingles(&p)
	var gone []string
	for name := range m.names {
		if !p.names[name] {
			gone = append(gone, name)
		}
	}
	slices.Sort(gone)
	for _, name := range gone {
		p.changes = append(p.changes, source.Change{Name: name, Remove: true})
	}
	return p
}

// planSingles adds the backups of single channels to a plan: those that lnd could restore,
// if they did not stand beside others in all backups that know them.
func (m *memory) planSingles(p *plan) {
	alone := map[string]bool{}
	of := map[string][]byte{}
	for _, s := range m.singles {
		of[s.Channel] = s.Backup
	}
	for _, s := range p.newest.singles {
		// Of one that is in the newest alone there was never more.
		alone := !slices.ContainsFunc(p.older, func(o *held) bool { return slices.Contains(o.channels, s.Channel) })
		if p.newest.whole(s.Channel) || !p.newest.asked && alone {
			of[s.Channel] = s.Backup
		}
	}
	all := append([]*held{p.newest}, p.older...)
	for _, h := range all {
		for _, c := range h.channels {
			alone[c] = alone[c] || h.asked && len(h.less) == 0
		}
	}
	for _, h := range all {
		for _, c := range h.channels {
			if single := of[c]; single != nil && !alone[c] && !h.isLess(c) {
				p.singles, alone[c] = append(p.singles, Single{c, single}), true
			}
		}
	}
	same := slices.EqualFunc(p.singles, m.singles, func(a, b Single) bool { return a.Channel == b.Channel && bytes.Equal(a.Backup, b.Backup) })
	if same && (m.items[ItemSingles] != nil) == (len(p.singles) > 0) {
		return
	}
	if len(p.singles) == 0 {
		p.items[ItemSingles] = nil
		p.changes = append(p.changes, source.Change{Name: ItemSingles, Remove: true})
		return
	}
	data := encode(singlesItem{Format: 1, Channels: p.singles})
	p.items[ItemSingles] = data
	p.changes = append(p.changes, source.Change{Name: ItemSingles, Value: data, Required: true})
}

// single tells the backups which of their channels are kept by themselves.
func (m *memory) single() {
	single := map[string]bool{}
	for _, s := range m.singles {
		single[s.Channel] = true
	}
	for _, h := range m.others() {
		h.single = single
	}
}

// kept says that the plan was carried out.
func (m *memory) kept(p plan) {
	m.newest, m.older, m.tried, m.names, m.singles = p.newest, p.older, nil, p.names, p.singles
	m.newest.singles = nil
	m.single()
	for name, value := range p.items {
		m.items[name] = value
	}
}

// perhaps says that the plan was carried out in part, or not.
func (m *memory) perhaps(p plan) {
	if m.newest == nil || p.newest.sum != m.newest.sum {
		m.tried = slices.Insert(m.tried, 0, p.newest)
		const few = 8 // Each of them knows the channels of the ones before but for those that closed.
		m.tried = m.tried[:min(len(m.tried), few)]
	}
	for name := range p.names {
		m.names[name] = true
	}
	for name := range p.items {
		delete(m.items, name)
	}
	if _, ok := p.items[ItemSingles]; ok {
		m.singles = append(slices.Clone(p.singles), m.singles...)
		m.items[ItemSingles] = []byte{} // Perhaps there, and not these bytes.
	}
}
