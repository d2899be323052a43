package seal

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
)

// Kind tells a snapshot that stands alone from one that lists changes.
type Kind string

const (
	Checkpoint Kind = "checkpoint"
	Delta      Kind = "delta"
)

// Snapshot is one step of a backup. Slots and Items are sorted, by id and by
// name; SealSnapshot sorts them.
type Snapshot struct {
	Backup     BackupID
	Epoch      uint64
	Generation uint64
	Device     DeviceID
	Parent     SnapshotName // zero in generation 1 only
	Time       time.Time    // UTC, whole seconds; for display only
	Software   string       // who wrote it, as "satchel/0.1.0"
	Kind       Kind

	// Past is where the history left each earlier epoch that it went through, oldest
	// first, at most MaxPast: what else a store holds of those epochs is a branch. In
	// checkpoints only; the last one is the parent where that is of an earlier epoch.
	Past []SnapshotName

	HasSlots bool // Slots is the whole list; false in a delta that leaves it as it was
	Slots    []SlotName
	Items    []Item
}

type headerJSON struct {
	Version    int    `json:"satchel-snapshot"`
	Backup     string `json:"backup"`
	Epoch      uint64 `json:"epoch"`
	Generation uint64 `json:"generation"`
	Device     string `json:"device"`
	Parent     string `json:"parent"`
	Time       string `json:"time"`
	Software   string `json:"software"`
	Kind       Kind   `json:"kind"`
	Past       int    `json:"past,omitempty"`
	Slots      *int   `json:"slots,omitempty"`
	Items      int    `json:"items"`
}

type pastJSON struct {
	Snapshot string `json:"past"`
}

type slotJSON struct {
	Kind   string     `json:"slot"`
	ID     string     `json:"id"`
	Object store.Hash `json:"object"`
}

type itemJSON struct {
	Name     string     `json:"item"`
	Version  uint64     `json:"version"`
	Size     *int64     `json:"size,omitempty"`
	SHA256   string     `json:"sha256,omitempty"`
	Required bool       `json:"required,omitempty"`
	Removed  bool       `json:"removed,omitempty"`
	Owner    string     `json:"owner,omitempty"`
	Data     *string    `json:"data,omitempty"`
	Object   store.Hash `json:"object,omitempty"`
	In       string     `json:"snapshot,omitempty"`
	Pack     string     `json:"pack,omitempty"`
	Offset   *int64     `json:"offset,omitempty"`
}

const (
	snapshotHead = `{"satchel-snapshot":`

	padHead    = `{"pad":"`
	padTail    = `"}` + "\n"
	macHead    = `{"mac":"`
	macLine    = len(macHead) + 64 + len(padTail)
	padLine    = len(padHead) + len(padTail) // with no zeros
	timeLayout = "2006-01-02T15:04:05Z"
)

var errSpelling = fmt.Errorf("spelled as the format does not allow: %w", ErrDamaged)

// line returns v as one line of a snapshot.
func line(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // Strings, numbers and booleans.
	}
	return b.Bytes()
}

// parseLine fills v from a line and refuses any spelling but the one that
// encoding v gives: unknown and repeated members do not survive that.
func parseLine(text []byte, v any) error {
	if json.Unmarshal(text, v) != nil || !bytes.Equal(line(v), text) {
		return errSpelling
	}
	return nil
}

// name returns the snapshot's name but for the hash.
func (s *Snapshot) name() SnapshotName {
	return SnapshotName{Epoch: s.Epoch, Generation: s.Generation, Device: s.Device}
}

// SealSnapshot seals a snapshot of the device d. It fills Backup, Epoch and
// Device, sorts Slots and Items, and refuses what OpenSnapshot would refuse.
// The same snapshot sealed again gives other bytes under another name.
func SealSnapshot(d *DeviceKey, s *Snapshot) (SnapshotName, []byte, error) {
	s.Backup, s.Epoch, s.Device = d.id, d.epoch, d.device
	s.Time = s.Time.UTC().Truncate(time.Second)
	slices.SortFunc(s.Slots, func(a, b SlotName) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	slices.SortFunc(s.Items, func(a, b Item) int { return strings.Compare(a.Name, b.Name) })
	plain, err := s.encode(d.writer)
	if err != nil {
		return SnapshotName{}, nil, fmt.Errorf("sealing snapshot %d: %w", s.Generation, err)
	}
	data, err := encrypt(plain, d.recipient)
	if err != nil {
		return SnapshotName{}, nil, fmt.Errorf("sealing snapshot %d: %w", s.Generation, err)
	}
	n := s.name()
	n.Hash = store.Sum(data)
	return n, data, nil
}

// encode returns the plaintext, MAC included.
func (s *Snapshot) encode(writer secret.Bytes) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	h := headerJSON{
		Version: 1, Backup: s.Backup.String(), Epoch: s.Epoch, Generation: s.Generation,
		Device: s.Device.String(), Parent: s.Parent.String(), Time: s.Time.Format(timeLayout),
		Software: s.Software, Kind: s.Kind, Past: len(s.Past), Items: len(s.Items),
	}
	if s.HasSlots {
		n := len(s.Slots)
		h.Slots = &n
	}
	b := line(h)
	for _, n := range s.Past {
		b = append(b, line(pastJSON{n.String()})...)
	}
	if s.HasSlots {
		for _, sl := range s.Slots {
			b = append(b, line(slotJSON{Kind: sl.Kind, ID: sl.ID.String(), Object: sl.Hash})...)
		}
	}
	for i := range s.Items {
		l := line(s.Items[i].json())
		if len(l) > MaxLine {
			return nil, fmt.Errorf("line of %d bytes for item %d: at most %d", len(l), i, MaxLine)
		}
		b = append(b, l...)
	}
	bare := int64(len(b) + padLine + macLine)
	if bare > MaxSnapshot {
		return nil, fmt.Errorf("snapshot of %d bytes: at most %d", bare, MaxSnapshot)
	}
	b = append(b, padHead...)
	b = append(b, strings.Repeat("0", int(Padded(bare)-bare))...)
	b = append(b, padTail...)
	m := hmac.New(sha256.New, writer.Open())
	m.Write(b)
	b = append(b, macHead...)
	b = hex.AppendEncode(b, m.Sum(nil))
	return append(b, padTail...), nil
}

func (it *Item) json() itemJSON {
	j := itemJSON{Name: it.Name, Version: it.Version, Removed: it.Removed, Owner: hex.EncodeToString(it.Owner)}
	if it.Removed {
		return j
	}
	j.Size, j.SHA256, j.Required = &it.Size, hex.EncodeToString(it.SHA256[:]), it.Required
	switch {
	case it.Inline:
		data := base64.StdEncoding.EncodeToString(it.Data)
		j.Data = &data
	case it.Object != "":
		j.Object = it.Object
	case it.Pack.Hash != "":
		j.Pack, j.Offset = fmt.Sprintf("%010d-%s", it.Pack.Version, it.Pack.Hash), &it.Offset
	default:
		j.In = it.In.String()
	}
	return j
}

// parseItem reads an item line.
func parseItem(text []byte) (it Item, err error) {
	var j itemJSON
	if json.Unmarshal(text, &j) != nil {
		return it, errSpelling
	}
	it = Item{Name: j.Name, Version: j.Version, Removed: j.Removed, Required: j.Required}
	if j.Owner != "" {
		it.Owner = make([]byte, 32)
		if err := parseHex(it.Owner, j.Owner); err != nil {
			return it, err
		}
	}
	if !j.Removed { // The comparison below finds what a removed line must not have.
		if j.Size == nil {
			return it, errSpelling
		}
		it.Size = *j.Size
		if err := parseHex(it.SHA256[:], j.SHA256); err != nil {
			return it, err
		}
	}
	if j.Data != nil {
		it.Inline = true
		if it.Data, err = base64.StdEncoding.DecodeString(*j.Data); err != nil {
			return it, errSpelling
		}
	}
	it.Object = j.Object
	if it.In, err = ParseSnapshotName(j.In); err != nil {
		return it, err
	}
	if j.Pack != "" {
		v, h, _ := strings.Cut(j.Pack, "-")
		if it.Pack.Version, err = parseNumber(v, 10); err != nil || j.Offset == nil {
			return it, errSpelling
		}
		it.Pack.Hash, it.Offset = store.Hash(h), *j.Offset
	}
	// No other spelling survives encoding again, and no unknown or repeated
	// members, nor such as do not belong together.
	if !bytes.Equal(line(it.json()), text) {
		return it, errSpelling
	}
	return it, nil
}

// check returns an error unless the snapshot follows the rules of the format
// that can be seen in it alone.
func (s *Snapshot) check() error {
	bad := func(what string) error { return fmt.Errorf("%s: %w", what, ErrDamaged) }
	switch {
	case s.Epoch < 1 || s.Epoch > MaxEpoch || s.Generation < 1 || s.Generation > MaxGeneration:
		return bad("epoch or generation out of range")
	case s.Kind != Checkpoint && s.Kind != Delta:
		return bad("unknown kind")
	case !validSoftware(s.Software):
		return bad("name of the software")
	case s.Time.Year() < 1 || s.Time.Year() > 9999:
		return bad("time")
	case s.Kind == Checkpoint && !s.HasSlots:
		return bad("checkpoint without slots")
	case s.Parent.IsZero() != (s.Generation == 1):
		return bad("parent missing or unexpected")
	case s.Parent.IsZero() && s.Kind != Checkpoint:
		return bad("first snapshot is a delta")
	case !s.Parent.IsZero() && !s.Parent.valid():
		return bad("name of the parent")
	case !s.Parent.IsZero() && s.Parent.Generation != s.Generation-1:
		return bad("parent of another generation")
	case s.Kind == Delta && (s.Parent.Epoch != s.Epoch || s.Parent.Device != s.Device):
		return bad("delta of another device's snapshot")
	case s.Parent.Epoch > s.Epoch || s.Parent.Epoch == s.Epoch && s.Parent.Device != s.Device:
		return bad("parent of a later epoch or another device")
	}
	if s.Kind != Checkpoint && len(s.Past) > 0 || len(s.Past) > MaxPast {
		return bad("past in a delta, or too long")
	}
	next := s.Parent // what comes after the past: the parent, unless that is the last of it
	if s.Parent.Epoch < s.Epoch && !s.Parent.IsZero() {
		if len(s.Past) == 0 || s.Past[len(s.Past)-1] != s.Parent {
			return bad("parent of an earlier epoch that is not the last of the past")
		}
		next = s.name()
	}
	for _, n := range slices.Backward(s.Past) {
		if !n.valid() || n.Epoch >= next.Epoch || n.Generation >= next.Generation {
			return bad("past out of order")
		}
		next = n
	}
	if len(s.Slots) > MaxSlots || len(s.Items) > MaxItems {
		return bad("too many slots or items")
	}
	if len(s.Slots) > 0 && !s.HasSlots {
		return bad("slots where none are listed")
	}
	for i := range s.Slots {
		if i > 0 && bytes.Compare(s.Slots[i-1].ID[:], s.Slots[i].ID[:]) >= 0 {
			return bad("slots out of order")
		}
		if _, err := parseHash(string(s.Slots[i].Hash)); err != nil || !validKind(s.Slots[i].Kind) {
			return bad("slot")
		}
	}
	owner := 0
	for i := range s.Items {
		it := &s.Items[i]
		if i > 0 && s.Items[i-1].Name >= it.Name {
			return bad("items out of order")
		}
		if err := it.check(s); err != nil {
			return bad(fmt.Sprintf("item %d: %v", i, err))
		}
		if OwnerItem(it.Name) {
			owner++
		}
	}
	if s.Kind == Checkpoint && owner != 2 {
		return bad("checkpoint without keys and descriptors")
	}
	return nil
}

func (it *Item) check(s *Snapshot) error {
	if err := CheckItemName(it.Name); err != nil {
		return err
	}
	if it.Version < 1 || it.Version > s.Generation {
		return errors.New("version out of range")
	}
	mac := 0
	if OwnerItem(it.Name) {
		mac = sha256.Size
	}
	if len(it.Owner) != mac {
		return errors.New("owner MAC missing or unexpected")
	}
	if it.Removed {
		if s.Kind == Checkpoint && !OwnerItem(it.Name) {
			return errors.New("removed item in a checkpoint")
		}
		return nil
	}
	if OwnerItem(it.Name) && !it.Required {
		return errors.New("owner item that is not required")
	}
	places := 0
	for _, p := range []bool{it.Inline, it.Object != "", !it.In.IsZero(), it.Pack.Hash != ""} {
		if p {
			places++
		}
	}
	switch {
	case places != 1:
		return errors.New("not in exactly one place")
	case it.Name == ItemKeys && it.Object == "":
		return errors.New("keys are not an object")
	case it.Size < 0 || it.Size > MaxValue:
		return errors.New("size out of range")
	case it.Inline && (len(it.Data) > MaxInline || it.Version != s.Generation || !it.Matches(it.Data)):
		return errors.New("inline value does not match")
	case !it.In.IsZero() && (!it.In.valid() || it.In.Generation != it.Version || it.Size > MaxInline || !s.Parent.follows(it.In)):
		return errors.New("reference to a snapshot that cannot hold it")
	case it.Pack.Hash != "" && (it.Offset < 0 || it.Offset > MaxValue-it.Size || it.Pack.Version < 1 || it.Pack.Version > s.Generation):
		return errors.New("place in a pack out of range")
	}
	for _, h := range []store.Hash{it.Object, it.Pack.Hash} {
		if h != "" {
			if _, err := parseHash(string(h)); err != nil {
				return err
			}
		}
	}
	return nil
}

// follows reports whether earlier can be n itself or stand in the chain behind
// it, as far as their names tell. One device writes in an epoch, so it did not
// come from another.
func (n SnapshotName) follows(earlier SnapshotName) bool {
	switch {
	case earlier.Generation >= n.Generation:
		return earlier == n
	case earlier.Epoch == n.Epoch:
		return earlier.Device == n.Device
	}
	return earlier.Epoch < n.Epoch
}

func validSoftware(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/.-_+ ", r))
	})
}

// OpenSnapshot opens and verifies a snapshot: the hash in its name, that header
// and name agree, the writer's MAC, and every rule of the format that can be
// seen in it alone. It does not verify owner MACs, nor that the parent exists.
func (k *Keys) OpenSnapshot(name SnapshotName, data []byte) (*Snapshot, error) {
	s, err := k.openSnapshot(name, data)
	if err != nil {
		return nil, fmt.Errorf("opening snapshot %s: %w", name, err)
	}
	return s, nil
}

func (k *Keys) openSnapshot(name SnapshotName, data []byte) (*Snapshot, error) {
	if store.Sum(data) != name.Hash {
		return nil, Misfit(data)
	}
	plain, err := k.decryptPayload(data)
	if err != nil {
		return nil, err
	}
	return k.parseSnapshot(plain, name)
}

// parseSnapshot reads a snapshot's plaintext to its end and verifies it.
func (k *Keys) parseSnapshot(plain io.Reader, name SnapshotName) (*Snapshot, error) {
	r := &lineReader{r: bufio.NewReaderSize(plain, MaxLine)}
	text, err := r.next()
	if err != nil {
		return nil, err
	}
	if err := newerSnapshot(text); err != nil {
		return nil, err
	}
	var h headerJSON
	if err := parseLine(text, &h); err != nil {
		return nil, err
	}
	if h.Version != 1 || h.Items < 0 || h.Items > MaxItems || h.Past < 0 || h.Past > MaxPast || h.Slots != nil && (*h.Slots < 0 || *h.Slots > MaxSlots) {
		return nil, errSpelling
	}
	s := &Snapshot{Epoch: h.Epoch, Generation: h.Generation, Software: h.Software, Kind: h.Kind, HasSlots: h.Slots != nil}
	if s.Backup, err = ParseBackupID(h.Backup); err != nil {
		return nil, err
	}
	if s.Device, err = ParseDeviceID(h.Device); err != nil {
		return nil, err
	}
	if s.Parent, err = ParseSnapshotName(h.Parent); err != nil {
		return nil, err
	}
	if s.Time, err = time.Parse(timeLayout, h.Time); err != nil || s.Time.Format(timeLayout) != h.Time {
		return nil, errSpelling
	}
	if s.Backup != k.id {
		return nil, ErrNotOurs
	}
	if s.Epoch != name.Epoch || s.Generation != name.Generation || s.Device != name.Device {
		return nil, fmt.Errorf("name and content disagree: %w", ErrDamaged)
	}
	r.mac = hmac.New(sha256.New, k.writer(s.Epoch, s.Device).Open())
	r.mac.Write(text)

	for range h.Past {
		if text, err = r.next(); err != nil {
			return nil, err
		}
		var j pastJSON
		if err := parseLine(text, &j); err != nil {
			return nil, err
		}
		n, err := ParseSnapshotName(j.Snapshot)
		if err != nil {
			return nil, err
		}
		s.Past = append(s.Past, n)
	}
	if h.Slots != nil {
		for range *h.Slots {
			if text, err = r.next(); err != nil {
				return nil, err
			}
			var j slotJSON
			if err := parseLine(text, &j); err != nil {
				return nil, err
			}
			sl := SlotName{Kind: j.Kind, Hash: j.Object}
			if sl.ID, err = ParseSlotID(j.ID); err != nil {
				return nil, err
			}
			s.Slots = append(s.Slots, sl)
		}
	}
	for range h.Items {
		if text, err = r.next(); err != nil {
			return nil, err
		}
		it, err := parseItem(text)
		if err != nil {
			return nil, err
		}
		s.Items = append(s.Items, it)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

// newerSnapshot returns a NewerError if the header is of a later version.
func newerSnapshot(header []byte) error {
	err := newer(header, snapshotHead, ",}")
	n, ok := errors.AsType[*NewerError](err)
	if !ok {
		return err
	}
	var h struct {
		Software string `json:"software"`
	}
	if json.Unmarshal(header, &h) == nil && validSoftware(h.Software) {
		n.Software = h.Software
	}
	return n
}

// lineReader reads a snapshot's plaintext line by line and feeds the MAC.
type lineReader struct {
	r   *bufio.Reader
	mac interface {
		io.Writer
		Sum([]byte) []byte
	}
	total int64
}

// next returns the next line with its line feed, valid until the next call.
func (l *lineReader) next() ([]byte, error) {
	text, err := l.r.ReadSlice('\n')
	l.total += int64(len(text))
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("line of more than %d bytes: %w", MaxLine, ErrDamaged)
	case err != nil:
		return nil, readError(err)
	case l.total > MaxSnapshot:
		return nil, fmt.Errorf("snapshot of more than %d bytes: %w", MaxSnapshot, ErrDamaged)
	}
	if l.mac != nil {
		l.mac.Write(text)
	}
	return text, nil
}

// end reads the pad line and the MAC line, and compares.
func (l *lineReader) end() error {
	head := make([]byte, len(padHead))
	if _, err := io.ReadFull(l.r, head); err != nil {
		return readError(err)
	}
	if string(head) != padHead {
		return errSpelling
	}
	bare := l.total + int64(padLine+macLine)
	if bare > MaxSnapshot {
		return fmt.Errorf("snapshot of more than %d bytes: %w", MaxSnapshot, ErrDamaged)
	}
	pad := make([]byte, int(Padded(bare)-bare)+len(padTail))
	if _, err := io.ReadFull(l.r, pad); err != nil {
		return readError(err)
	}
	zeros, tail := pad[:len(pad)-len(padTail)], pad[len(pad)-len(padTail):]
	if string(tail) != padTail || len(bytes.TrimLeft(zeros, "0")) != 0 {
		return errSpelling
	}
	l.mac.Write(head)
	l.mac.Write(pad)
	got := make([]byte, macLine)
	if _, err := io.ReadFull(l.r, got); err != nil {
		return readError(err)
	}
	var mac [sha256.Size]byte
	text, begins := bytes.CutPrefix(got, []byte(macHead))
	text, ends := bytes.CutSuffix(text, []byte(padTail))
	if !begins || !ends || parseHex(mac[:], string(text)) != nil {
		return errSpelling
	}
	if !hmac.Equal(mac[:], l.mac.Sum(nil)) {
		return ErrForged
	}
	if _, err := l.r.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("bytes after the end: %w", ErrDamaged)
	}
	return nil
}
