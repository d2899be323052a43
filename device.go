package satchel

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
	"golang.org/x/crypto/chacha20poly1305"
)

// A device's directory:
//
//	device.json     what may be read without a key
//	lock            held by the process that has the backup open
//	state.log       sealed records: the device key, what was committed, how the places stand
//	values/…        sealed values over seal.MaxInline; smaller ones are in the log
//	objects/<hash>  the sealed objects of the newest state, as they are in the places
//
// What is committed in the log is safe on this device: the objects that a commit
// names are durable before it. The places follow from there.
const (
	infoFile   = "device.json"
	lockFile   = "lock"
	logFile    = "state.log"
	valuesDir  = "values"
	objectsDir = "objects"

	maxInfo = 64 << 10
)

type infoJSON struct {
	Version     int            `json:"satchel-device"`
	ID          string         `json:"id"`
	Device      string         `json:"device"`
	Label       string         `json:"label"`
	Folder      string         `json:"folder"`
	Network     wallet.Network `json:"network"`
	Fingerprint string         `json:"fingerprint"`
	Created     string         `json:"created"`
	Places      []string       `json:"places"`
}

const dayLayout = "2006-01-02"

func readInfo(d durable.Disk, dir string) (infoJSON, error) {
	var j infoJSON
	b, err := d.ReadFile(filepath.Join(dir, infoFile), maxInfo)
	if errors.Is(err, fs.ErrNotExist) {
		return j, fmt.Errorf("reading %s: %w", dir, ErrNoDevice)
	}
	if err != nil {
		return j, fmt.Errorf("reading this device's wallet: %w", err)
	}
	if err := json.Unmarshal(b, &j); err != nil || j.ID == "" || j.Folder == "" {
		return j, fmt.Errorf("reading %s: %w", infoFile, seal.ErrDamaged)
	}
	if j.Version != 1 {
		return j, fmt.Errorf("reading %s: %w", infoFile, &seal.NewerError{Version: j.Version})
	}
	return j, nil
}

// ReadDevice reads what dir holds in clear. It returns ErrNoDevice if there is
// no wallet.
func ReadDevice(dir string) (DeviceInfo, error) {
	j, err := readInfo(durable.Disk{}, dir)
	if err != nil {
		return DeviceInfo{}, err
	}
	created, _ := time.Parse(dayLayout, j.Created)
	return DeviceInfo{ID: j.ID, Label: j.Label, Folder: j.Folder, Network: j.Network, Fingerprint: j.Fingerprint, Created: created, Places: j.Places}, nil
}

// localSeal seals what stays on the device: XChaCha20-Poly1305 under a key of
// 32 bytes that the keychain holds.
type localSeal struct {
	aead cipher.AEAD
}

func newLocalSeal(key secret.Bytes) (localSeal, error) {
	if key.Len() != 32 {
		return localSeal{}, fmt.Errorf("%w: it has %d bytes, not 32", ErrDeviceKey, key.Len())
	}
	k, err := hkdf.Key(sha256.New, key.Open(), nil, "satchel/v1/device", chacha20poly1305.KeySize)
	if err != nil {
		return localSeal{}, err
	}
	aead, err := chacha20poly1305.NewX(k)
	return localSeal{aead}, err
}

// seal returns plain sealed for one purpose; open refuses it for any other.
func (s localSeal) seal(purpose string, plain []byte) []byte {
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(plain)+s.aead.Overhead())
	rand.Read(nonce)
	return s.aead.Seal(nonce, nonce, plain, []byte(purpose))
}

func (s localSeal) open(purpose string, sealed []byte) ([]byte, error) {
	n := s.aead.NonceSize()
	if len(sealed) < n {
		return nil, seal.ErrTruncated
	}
	plain, err := s.aead.Open(nil, sealed[:n], sealed[n:], []byte(purpose))
	if err != nil {
		return nil, seal.ErrDamaged
	}
	return plain, nil
}

// entry is an item as the device knows it.
type entry struct {
	line  seal.Item // without Data
	value []byte    // if at most MaxInline bytes; else it is in a file of its own
	lost  bool      // a restore went on without the value
}

// step is one commit on its way to the places: its objects, in the order in
// which they must arrive. The snapshot is the last.
type step struct {
	name    seal.SnapshotName
	objects []string // paths below the backup's folder
}

// placeState is what is known of one place.
type placeState struct {
	verified seal.SnapshotName // all up to this snapshot was read back and compared
	at       time.Time
	health   Health
	err      error
}

// device is a device's directory, open. Backup guards it with its lock.
type device struct {
	disk  durable.Disk
	dir   string
	info  infoJSON
	lock  *durable.Lock
	log   *durable.Log
	seal  localSeal
	key   *seal.DeviceKey
	items map[string]*entry
	slots []seal.SlotName

	head      seal.SnapshotName
	headTime  time.Time
	chain     []seal.SnapshotName // the newest checkpoint and the deltas after it
	deltaSize int64               // bytes of those deltas
	checkSize int64               // bytes of that checkpoint

	queue    []step // commits that some place may lack
	places   map[string]*placeState
	verified time.Time // when enough places last held the newest generation
}

// The records of the log, as JSON. Exactly one member is set.
type record struct {
	Device *deviceRecord `json:"device,omitempty"`
	Commit *commitRecord `json:"commit,omitempty"`
	Places *placesRecord `json:"places,omitempty"`
}

type deviceRecord struct {
	Key []byte `json:"key"` // seal.DeviceKey.Marshal
}

type commitRecord struct {
	Snapshot string       `json:"snapshot"`
	Time     time.Time    `json:"time"`
	Size     int64        `json:"size"`            // bytes of the snapshot's object
	Whole    bool         `json:"whole,omitempty"` // a checkpoint: Items replace everything before
	Items    []itemRecord `json:"items"`
	Slots    *[]string    `json:"slots,omitempty"` // paths
	Queue    []stepRecord `json:"queue"`           // steps to add; with Whole all that are left
}

type stepRecord struct {
	Snapshot string   `json:"snapshot"`
	Objects  []string `json:"objects"`
}

type itemRecord struct {
	Name     string     `json:"name"`
	Version  uint64     `json:"version"`
	Removed  bool       `json:"removed,omitempty"`
	Size     int64      `json:"size"`
	SHA256   string     `json:"sha256,omitempty"`
	Required bool       `json:"required,omitempty"`
	Owner    []byte     `json:"owner,omitempty"`
	Object   store.Hash `json:"object,omitempty"`
	In       string     `json:"in,omitempty"`
	PackOf   uint64     `json:"packOf,omitempty"`
	Pack     store.Hash `json:"pack,omitempty"`
	Offset   int64      `json:"offset,omitempty"`
	Value    []byte     `json:"value,omitempty"`
	Lost     bool       `json:"lost,omitempty"`
}

type placesRecord struct {
	Verified time.Time              `json:"verified"`
	Places   map[string]placeRecord `json:"places"`
}

type placeRecord struct {
	Snapshot string    `json:"snapshot"`
	At       time.Time `json:"at"`
	Health   Health    `json:"health"`
	Err      string    `json:"err,omitempty"`
}

func (e *entry) record() itemRecord {
	l := &e.line
	r := itemRecord{Name: l.Name, Version: l.Version, Removed: l.Removed, Owner: l.Owner, Value: e.value, Lost: e.lost}
	if !l.Removed {
		r.Size, r.SHA256, r.Required = l.Size, hex.EncodeToString(l.SHA256[:]), l.Required
		r.Object, r.In = l.Object, l.In.String()
		r.PackOf, r.Pack, r.Offset = l.Pack.Version, l.Pack.Hash, l.Offset
	}
	return r
}

func (r *itemRecord) entry() (*entry, error) {
	e := &entry{value: r.Value, lost: r.Lost, line: seal.Item{
		Name: r.Name, Version: r.Version, Removed: r.Removed, Size: r.Size, Required: r.Required,
		Owner: r.Owner, Object: r.Object, Pack: seal.ObjectName{Version: r.PackOf, Hash: r.Pack}, Offset: r.Offset,
	}}
	if !r.Removed {
		sum, err := hex.DecodeString(r.SHA256)
		if err != nil || len(sum) != 32 {
			return nil, seal.ErrDamaged
		}
		copy(e.line.SHA256[:], sum)
	}
	var err error
	e.line.In, err = seal.ParseSnapshotName(r.In)
	return e, err
}

// newDevice makes a device's directory at dir, which must not exist, with a new
// local key. The caller fills it, and renames it when it is whole.
func newDevice(cfg Config, dir string, info infoJSON, key *seal.DeviceKey) (d *device, err error) {
	local := secret.Random(32)
	d = &device{disk: cfg.disk, dir: dir, info: info, key: key, items: map[string]*entry{}, places: map[string]*placeState{}}
	if d.seal, err = newLocalSeal(local); err != nil {
		return nil, err
	}
	for _, sub := range []string{valuesDir, objectsDir} {
		if err := d.disk.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	if err := d.writeInfo(); err != nil {
		return nil, err
	}
	if err := cfg.Keychain.Set(localKeyName(info), local); err != nil {
		return nil, fmt.Errorf("keeping the key of this device: %w", err)
	}
	if d.log, _, _, err = d.disk.OpenLog(filepath.Join(dir, logFile)); err != nil {
		return nil, err
	}
	return d, d.append(record{Device: &deviceRecord{Key: key.Marshal().Open()}})
}

func (d *device) writeInfo() error {
	b, err := json.MarshalIndent(d.info, "", "  ")
	if err != nil {
		return err
	}
	return d.disk.WriteFile(filepath.Join(d.dir, infoFile), append(b, '\n'), 0o600)
}

// localKeyName names the device's key in the keychain.
func localKeyName(j infoJSON) string { return "device-" + j.ID + "-" + j.Device }

// openDevice opens the directory and replays its log.
func openDevice(cfg Config) (d *device, err error) {
	d = &device{disk: cfg.disk, dir: cfg.Dir, items: map[string]*entry{}, places: map[string]*placeState{}}
	if d.info, err = readInfo(d.disk, d.dir); err != nil {
		return nil, err
	}
	if d.lock, err = d.disk.Lock(filepath.Join(d.dir, lockFile)); err != nil {
		if errors.Is(err, durable.ErrLocked) {
			return nil, ErrBusy
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	local, err := cfg.Keychain.Get(localKeyName(d.info))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDeviceKey, err)
	}
	if d.seal, err = newLocalSeal(local); err != nil {
		return nil, err
	}
	var records [][]byte
	if d.log, records, _, err = d.disk.OpenLog(filepath.Join(d.dir, logFile)); err != nil {
		return nil, err
	}
	for i, sealed := range records {
		plain, err := d.seal.open(logFile, sealed)
		if err != nil {
			return nil, fmt.Errorf("reading record %d of this device: %w", i, err)
		}
		var r record
		if err := json.Unmarshal(plain, &r); err != nil {
			return nil, fmt.Errorf("reading record %d of this device: %w", i, seal.ErrDamaged)
		}
		if err := d.replay(&r); err != nil {
			return nil, fmt.Errorf("reading record %d of this device: %w", i, err)
		}
	}
	if d.key == nil || d.head.IsZero() || d.key.Backup().String() != d.info.ID {
		return nil, fmt.Errorf("reading this device's record: %w", seal.ErrDamaged)
	}
	return d, nil
}

func (d *device) close() error {
	if d.lock == nil {
		return nil
	}
	l := d.lock
	d.lock = nil
	return l.Unlock()
}

// append makes a record durable. The caller then replays it.
func (d *device) append(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return d.log.Append(d.seal.seal(logFile, b))
}

// replay brings the state in memory to what a record says.
func (d *device) replay(r *record) (err error) {
	switch {
	case r.Device != nil:
		d.key, err = seal.ParseDeviceKey(secret.New(r.Device.Key))
		return err
	case r.Commit != nil:
		return d.replayCommit(r.Commit)
	case r.Places != nil:
		for addr, p := range r.Places.Places {
			st := &placeState{at: p.At, health: p.Health}
			if st.verified, err = seal.ParseSnapshotName(p.Snapshot); err != nil {
				return err
			}
			if p.Err != "" {
				st.err = errors.New(p.Err)
			}
			d.places[addr] = st
		}
		d.verified = r.Places.Verified
		d.trimQueue()
		return nil
	}
	return seal.ErrDamaged
}

func (d *device) replayCommit(c *commitRecord) error {
	name, err := seal.ParseSnapshotName(c.Snapshot)
	if err != nil {
		return err
	}
	entries := make([]*entry, len(c.Items))
	for i := range c.Items {
		if entries[i], err = c.Items[i].entry(); err != nil {
			return err
		}
	}
	var slots []seal.SlotName
	if c.Slots != nil {
		for _, p := range *c.Slots {
			sl, ok := seal.ParseSlotPath(p)
			if !ok {
				return seal.ErrDamaged
			}
			slots = append(slots, sl)
		}
	}
	steps := make([]step, len(c.Queue))
	for i, q := range c.Queue {
		if steps[i].name, err = seal.ParseSnapshotName(q.Snapshot); err != nil {
			return err
		}
		steps[i].objects = q.Objects
	}
	d.apply(name, c, entries, slots, steps)
	return nil
}

// apply brings the state in memory to a commit.
func (d *device) apply(name seal.SnapshotName, c *commitRecord, entries []*entry, slots []seal.SlotName, steps []step) {
	if c.Whole {
		clear(d.items)
		d.chain, d.deltaSize, d.checkSize = nil, 0, c.Size
		d.queue = nil
	} else {
		d.deltaSize += c.Size
	}
	for _, e := range entries {
		if e.line.Removed && !seal.OwnerItem(e.line.Name) {
			delete(d.items, e.line.Name)
			continue
		}
		d.items[e.line.Name] = e
	}
	if c.Slots != nil {
		d.slots = slots
	}
	d.chain = append(d.chain, name)
	d.head, d.headTime = name, c.Time
	d.queue = append(d.queue, steps...)
}

// trimQueue drops the steps that every known place has.
func (d *device) trimQueue() {
	if len(d.places) == 0 {
		return
	}
	for len(d.queue) > 0 {
		for _, p := range d.places {
			if p.verified.Compare(d.queue[0].name) < 0 {
				return
			}
		}
		d.queue = d.queue[1:]
	}
}

// commit makes a snapshot this device's newest. The objects that it needs are
// already durable in objects/. Before the append the old state counts, after it
// the new one: that is the moment a change becomes safe on this device.
func (d *device) commit(c *commitRecord) error {
	r := record{Commit: c}
	if !c.Whole {
		if err := d.append(r); err != nil {
			return err
		}
		return d.replay(&r)
	}
	// A checkpoint says everything, so the log begins anew with it.
	var old []stepRecord
	for _, s := range d.queue {
		old = append(old, stepRecord{Snapshot: s.name.String(), Objects: s.objects})
	}
	c.Queue = append(old, c.Queue...)
	all := []record{{Device: &deviceRecord{Key: d.key.Marshal().Open()}}, r, {Places: d.placesRecord()}}
	sealed := make([][]byte, len(all))
	for i, r := range all {
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		sealed[i] = d.seal.seal(logFile, b)
	}
	if err := d.log.Rewrite(sealed); err != nil {
		return err
	}
	return d.replay(&r)
}

func (d *device) placesRecord() *placesRecord {
	r := &placesRecord{Verified: d.verified, Places: map[string]placeRecord{}}
	for addr, p := range d.places {
		pr := placeRecord{Snapshot: p.verified.String(), At: p.at, Health: p.health}
		if p.err != nil {
			pr.Err = p.err.Error()
		}
		r.Places[addr] = pr
	}
	return r
}

// savePlaces records how the places stand.
func (d *device) savePlaces() error {
	r := record{Places: d.placesRecord()}
	if err := d.append(r); err != nil {
		return err
	}
	d.trimQueue()
	return nil
}

// putObject keeps a sealed object on this device, durably.
func (d *device) putObject(hash store.Hash, data []byte) error {
	return d.disk.WriteFile(filepath.Join(d.dir, objectsDir, string(hash)), data, 0o600)
}

// object returns the sealed object of a path, from this device.
func (d *device) object(hash store.Hash) ([]byte, error) {
	data, err := d.disk.ReadFile(filepath.Join(d.dir, objectsDir, string(hash)), seal.MaxObject)
	if err != nil {
		return nil, err
	}
	if !hash.Matches(data) {
		return nil, fmt.Errorf("this device's copy of an object: %w", seal.ErrDamaged)
	}
	return data, nil
}

// valuePath is the file of a value that is too long for the log.
func (d *device) valuePath(l *seal.Item) string {
	return filepath.Join(d.dir, valuesDir, valueName(d.key, l))
}

func valueName(k *seal.DeviceKey, l *seal.Item) string {
	return fmt.Sprintf("%s-%010d", k.Dir(l.Name), l.Version)
}

// putValue keeps a value on this device. Small values return as they are, for
// the log; others become durable in a file.
func (d *device) putValue(l *seal.Item, value []byte) ([]byte, error) {
	if len(value) <= seal.MaxInline {
		return slices.Clone(value), nil
	}
	return nil, d.disk.WriteFile(d.valuePath(l), d.seal.seal(valueName(d.key, l), value), 0o600)
}

// value returns an item's value from this device.
func (d *device) value(name string) ([]byte, error) {
	e := d.items[name]
	if e == nil || e.line.Removed {
		return nil, fmt.Errorf("%w: %s", ErrNoItem, name)
	}
	if e.lost {
		return nil, fmt.Errorf("item %s: %w", name, ErrMissing)
	}
	v := e.value
	if e.line.Size > seal.MaxInline {
		sealed, err := d.disk.ReadFile(d.valuePath(&e.line), seal.MaxValue+1024)
		if err != nil {
			return nil, fmt.Errorf("reading item %s: %w", name, err)
		}
		if v, err = d.seal.open(valueName(d.key, &e.line), sealed); err != nil {
			return nil, fmt.Errorf("reading item %s: %w", name, err)
		}
	}
	if !e.line.Matches(v) {
		return nil, fmt.Errorf("reading item %s: %w", name, seal.ErrDamaged)
	}
	return v, nil
}

// liveObjects returns the paths of everything the newest state needs, in the
// order in which they must arrive in a place.
func (d *device) liveObjects() []string {
	var paths []string
	for _, s := range d.slots {
		paths = append(paths, s.Path())
	}
	seen := map[string]bool{}
	snapshots := map[seal.SnapshotName]bool{}
	for _, n := range d.chain {
		snapshots[n] = true
	}
	for _, name := range slices.Sorted(maps.Keys(d.items)) {
		l := &d.items[name].line
		if o, ok := d.key.ItemObject(l); ok && !seen[o.Path()] {
			seen[o.Path()] = true
			paths = append(paths, o.Path())
		}
		if !l.Removed && !l.In.IsZero() {
			snapshots[l.In] = true
		}
	}
	for _, n := range slices.SortedFunc(maps.Keys(snapshots), seal.SnapshotName.Compare) {
		paths = append(paths, n.Path())
	}
	return paths
}

// hashOf returns the hash in the name of an object.
func hashOf(path string) store.Hash {
	stem := path[:len(path)-len(".age")]
	return store.Hash(stem[len(stem)-32:])
}

func readDirNames(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names, nil
}

// sweep removes from this device objects and values that nothing needs: what a
// crash left, and what newer snapshots replaced.
func (d *device) sweep() error {
	objects, values := map[string]bool{}, map[string]bool{}
	for _, p := range d.liveObjects() {
		objects[string(hashOf(p))] = true
	}
	for _, s := range d.queue {
		for _, p := range s.objects {
			objects[string(hashOf(p))] = true
		}
	}
	for _, e := range d.items {
		values[valueName(d.key, &e.line)] = true
	}
	for dir, keep := range map[string]map[string]bool{objectsDir: objects, valuesDir: values} {
		names, err := readDirNames(filepath.Join(d.dir, dir))
		if err != nil {
			return err
		}
		for _, n := range names {
			if !keep[n] {
				if err := d.disk.Remove(filepath.Join(d.dir, dir, n)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
