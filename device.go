package satchel

import (
	"bytes"
	"cmp"
	"context"
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

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/protocol"
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
	Kind        wallet.Kind    `json:"kind,omitempty"` // of the keys; empty for BIP 39
	Fingerprint string         `json:"fingerprint"`
	Created     string         `json:"created"`
	Places      []string       `json:"places"`
	Copies      int            `json:"copies"`
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
	return DeviceInfo{ID: j.ID, Label: j.Label, Folder: j.Folder, Network: j.Network, Kind: kindOf(j.Kind), Fingerprint: j.Fingerprint, Created: created, Places: j.Places, Copies: max(j.Copies, 1)}, nil
}

// kindOf is the kind of keys that is recorded, which is nothing for BIP 39: so what
// earlier versions wrote stays as it is.
func kindOf(recorded wallet.Kind) wallet.Kind {
	return cmp.Or(recorded, wallet.KindBIP39)
}

// recordOf is what is recorded of a kind of keys.
func recordOf(k wallet.Kind) wallet.Kind {
	if k == wallet.KindBIP39 {
		return ""
	}
	return k
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
func (s localSeal) seal(purpose string, plain []byte) []byte { return s.sealInto(nil, purpose, plain) }

// sealInto is seal that takes the room of dst, whatever stands there, if that is enough.
func (s localSeal) sealInto(dst []byte, purpose string, plain []byte) []byte {
	n := s.aead.NonceSize()
	dst = slices.Grow(dst[:0], n+len(plain)+s.aead.Overhead())
	nonce := dst[:n]
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

	held itemObject // where line stood when that was asked last
}

// itemObject is where a line stands, with what the answer depends on: the names of
// objects cost an HMAC each, and all of them are asked for at every change.
type itemObject struct {
	object  store.Hash
	version uint64
	pack    seal.ObjectName

	path    string // "" if the line has no object of its own
	written uint64 // in which generation
}

// holder returns the path of the object that holds the value of an entry, "" if it has
// none of its own, and the generation that wrote it.
func (d *device) holder(e *entry) (path string, written uint64) {
	if e.line.Removed {
		return "", 0
	}
	at := itemObject{object: e.line.Object, version: e.line.Version, pack: e.line.Pack}
	if c := &e.held; c.object != at.object || c.version != at.version || c.pack != at.pack {
		if o, ok := d.key.ItemObject(&e.line); ok {
			at.path, at.written = o.Path(), o.Version
		}
		e.held = at
	}
	return e.held.path, e.held.written
}

// step is one commit on its way to the places: its objects, in the order in
// which they must arrive. The snapshot is the last.
type step struct {
	name    seal.SnapshotName
	size    int64    // bytes of the snapshot's object
	objects []string // paths below the backup's folder
}

// placeState is what is known of one place.
type placeState struct {
	verified seal.SnapshotName // all up to this snapshot was read back and compared
	at       time.Time
	health   Health
	err      error
	lost     bool // it lost something, in this process's knowledge, and has not got it back

	branch seal.SnapshotName // the newest that was listed there of those beside the history, zero if none

	held map[string]bool // paths beyond verified that this process read back there; may be nil
}

// lose forgets what the place was known to hold: all of it is put and read back
// again.
func (st *placeState) lose() { st.verified, st.held, st.lost = seal.SnapshotName{}, nil, true }

// device is a device's directory, open. Backup says who may use it when.
type device struct {
	sealed   []byte // room for sealing a value, used by who changes the backup
	disk     durable.Disk
	keychain Keychain
	dir      string
	staging  bool // being made: nothing is flushed before it is whole
	together bool // many files are being kept: they are flushed together before the commit
	info     infoJSON
	lock     *durable.Lock
	log      *durable.Log
	base     int64 // length of the log when it was last written anew
	stale    bool  // the log must be read again before the next use
	seal     localSeal
	key      *seal.DeviceKey
	items    map[string]*entry
	slots    []seal.SlotName

	headTime time.Time
	chain    []step // the newest checkpoint and the deltas after it; the last is the newest
	lost     int    // how many required items are lost
	listed   int64  // at most so many bytes a checkpoint needs to list the items
	garbage  int64  // about so many bytes in objects/ are of values that were replaced

	strangers map[seal.SnapshotName]bool // in the places, and known not to be of this backup
	deleted   bool                       // the owner deleted the backup
	removed   []seal.SlotName            // slots whose objects have to go from the places
	kept      keptRecord
	rekey     rekeyRecord
	pin       pinRecord
	anchor    anchor
	epochs    []protocol.InstallEpoch // what brings key servers to this device's epoch; nil for one that took over from nobody
	retired   []retirement            // what older states needed, by this device's checkpoints
	past      []seal.SnapshotName     // where the history left the epochs before this one's; see seal.Snapshot
	wrote     []byte                  // of each snapshot before the chain, the start of its hash; see foreign

	places   map[string]*placeState
	recorded []byte    // the last places record
	verified time.Time // when enough places last held the newest generation
	exposed  time.Time // when the first change was made that enough places do not hold; zero if there is none
}

// began returns the generation with which this device began its epoch.
func (d *device) began() uint64 {
	if n := len(d.past); n > 0 {
		return d.past[n-1].Generation + 1
	}
	return 1
}

const (
	wroteHash = 8       // bytes of a hash that are kept in device.wrote
	maxWrote  = 100_000 // snapshots that are remembered there
)

// wroteSoFar returns what wrote is once the chain is history.
func (d *device) wroteSoFar() []byte {
	wrote := slices.Clone(d.wrote)
	for _, s := range d.chain {
		wrote = append(wrote, hashStart(s.name)...)
	}
	return wrote[max(0, len(wrote)-maxWrote*wroteHash):]
}

// wroteBefore reports whether a snapshot of this device's from before the chain is one
// that it wrote, as far as it remembers.
func (d *device) wroteBefore(n seal.SnapshotName) bool {
	back := d.chain[0].name.Generation - n.Generation
	if back > uint64(len(d.wrote)/wroteHash) {
		return true
	}
	i := len(d.wrote) - int(back)*wroteHash
	return bytes.Equal(d.wrote[i:i+wroteHash], hashStart(n))
}

func hashStart(n seal.SnapshotName) []byte {
	b, err := hex.DecodeString(string(n.Hash[:2*wroteHash]))
	if err != nil {
		panic(err) // A hash was parsed as hex.
	}
	return b
}

// head returns the name of the newest snapshot, zero if there is none yet.
func (d *device) head() seal.SnapshotName {
	if len(d.chain) == 0 {
		return seal.SnapshotName{}
	}
	return d.chain[len(d.chain)-1].name
}

// index returns the snapshot's place in the chain, or -1. Generations in a chain
// follow one another.
func (d *device) index(n seal.SnapshotName) int {
	if len(d.chain) == 0 || n.Generation < d.chain[0].name.Generation {
		return -1
	}
	if i := n.Generation - d.chain[0].name.Generation; i < uint64(len(d.chain)) && d.chain[i].name == n {
		return int(i)
	}
	return -1
}

// The records of the log, as JSON. Exactly one member is set. A log that is
// written anew has one device record, then commit records with the whole state,
// and then the others.
type record struct {
	Device    *deviceRecord `json:"device,omitempty"`
	Commit    *commitRecord `json:"commit,omitempty"`
	Places    *placesRecord `json:"places,omitempty"`
	Strangers []string      `json:"strangers,omitempty"` // names of snapshots
	Deleted   bool          `json:"deleted,omitempty"`
	Removed   *[]string     `json:"removed,omitempty"` // paths of slots that have to go from the places
	Retired   *[]retired    `json:"retired,omitempty"` // what no newer state needs
	Kept      *keptRecord   `json:"kept,omitempty"`
	Rekey     *rekeyRecord  `json:"rekey,omitempty"`
	PIN       *pinRecord    `json:"pin,omitempty"`
	Epochs    []byte        `json:"epochs,omitempty"`
	Past      []string      `json:"past,omitempty"` // names of snapshots
	Wrote     []byte        `json:"wrote,omitempty"`
}

// keptRecord is what the device knows of the wallet's words and ways in beside the
// items. An older version of this software ignores what it does not know in it; a record
// of another kind it would take for damage.
type keptRecord struct {
	Keys    []byte       `json:"keys,omitempty"` // the text of wallet.Keys, where the backup does not hold it
	Written time.Time    `json:"written"`        // when words typed back were right
	Drilled *drillRecord `json:"drilled,omitempty"`
}

// drillRecord says when a restore, or a drill, last passed.
type drillRecord struct {
	At   time.Time `json:"at"`
	Slot string    `json:"slot"` // path of the slot that opened
}

// rekeyRecord says that a backup with new keys is on its way to take this one's
// place. One without ID says that none is.
type rekeyRecord struct {
	ID     string `json:"id"`
	Device string `json:"device"`
	Folder string `json:"folder"`
	Temp   string `json:"temp"`          // its directory until it is protected
	Dir    string `json:"dir"`           // its directory from then on
	Head   string `json:"head"`          // the newest snapshot of this backup when it was begun
	End    string `json:"end,omitempty"` // the snapshot that ends this backup, once it is sealed

	PIN []guard.Step `json:"pin,omitempty"` // what ends the accounts of its PIN, if it is not to be
}

type retired struct {
	Generation uint64   `json:"generation"` // of the checkpoint
	Paths      []string `json:"paths"`
}

func retiredRecords(list []retirement) *[]retired {
	records := make([]retired, len(list))
	for i, r := range list {
		records[i] = retired{r.gen, r.paths}
	}
	return &records
}

type deviceRecord struct {
	Key []byte `json:"key"` // seal.DeviceKey.Marshal
}

type commitRecord struct {
	Time    time.Time    `json:"time"`
	Exposed time.Time    `json:"exposed,omitzero"` // device.exposed from here on; zero in records of satchels that did not know it
	Whole   bool         `json:"whole,omitempty"`  // replaces everything before
	Steps   []stepRecord `json:"steps"`            // to add to the chain
	Slots   *[]string    `json:"slots,omitempty"`  // paths
	Items   []itemRecord `json:"items"`
	More    bool         `json:"more,omitempty"` // the next record goes on with Items, and counts together with this one
}

type stepRecord struct {
	Snapshot string   `json:"snapshot"`
	Size     int64    `json:"size"`
	Objects  []string `json:"objects"`
}

// maxCommit bounds the values in one commit record, well below what a record of
// the log holds.
const maxCommit = 8 << 20

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
	Exposed  time.Time              `json:"exposed,omitzero"` // device.exposed
	Places   map[string]placeRecord `json:"places"`
	Anchor   *anchorRecord          `json:"anchor,omitempty"`
}

type placeRecord struct {
	Snapshot string    `json:"snapshot"`
	At       time.Time `json:"at"`
	Health   Health    `json:"health"`
	Err      string    `json:"err,omitempty"`
	Branch   string    `json:"branch,omitempty"` // name of a snapshot
	Ended    bool      `json:"ended,omitempty"`  // Err is ErrEnded
}

// toldError is an error that an earlier process recorded.
type toldError struct {
	text string
	fact error
}

func (e *toldError) Error() string { return e.text }
func (e *toldError) Unwrap() error { return e.fact }

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

// newDevice makes a device's directory at dir, which exists and is empty, with a
// new local key. The caller fills it, and renames it when it is whole.
func newDevice(cfg Config, dir string, info infoJSON, key *seal.DeviceKey) (*device, error) {
	d := &device{
		disk: cfg.disk, keychain: cfg.Keychain, dir: dir, staging: true, info: info, key: key,
		items: map[string]*entry{}, places: map[string]*placeState{}, strangers: map[seal.SnapshotName]bool{},
	}
	if err := d.make(cfg); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *device) make(cfg Config) (err error) {
	// Held while the directory is being made: one without is a crash's.
	if d.lock, err = d.disk.Lock(filepath.Join(d.dir, lockFile)); err != nil {
		return err
	}
	local := secret.Random(32)
	if d.seal, err = newLocalSeal(local); err != nil {
		return err
	}
	for _, sub := range []string{valuesDir, objectsDir} {
		if err := d.disk.MkdirAll(filepath.Join(d.dir, sub), 0o700); err != nil {
			return err
		}
	}
	// Before the keychain, so that what a crash leaves there can be named.
	if err := d.writeInfo(d.info); err != nil {
		return err
	}
	name := localKeyName(d.info)
	if err := cfg.Keychain.Set(name, local); err != nil {
		return fmt.Errorf("keeping the key of this device: %w", err)
	}
	again, err := cfg.Keychain.Get(name)
	if err == nil && !again.Equal(local) {
		err = errors.New("it is another one")
	}
	if err != nil {
		return fmt.Errorf("%w: the keychain took it and does not give it back: %w", ErrDeviceKey, err)
	}
	d.log, _, _, err = d.disk.OpenLog(filepath.Join(d.dir, logFile))
	return err
}

// writeInfo makes durable what may be read without a key.
func (d *device) writeInfo(info infoJSON) error {
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	if err := d.disk.WriteFile(filepath.Join(d.dir, infoFile), append(b, '\n'), 0o600); err != nil {
		return err
	}
	d.info = info
	return nil
}

// localKeyName names the device's key in the keychain.
func localKeyName(j infoJSON) string { return "device-" + j.ID + "-" + j.Device }

// openDevice opens the directory and replays its log.
func openDevice(cfg Config) (d *device, err error) {
	d = &device{disk: cfg.disk, keychain: cfg.Keychain, dir: cfg.Dir}
	if d.info, err = readInfo(d.disk, d.dir); err != nil {
		return nil, err
	}
	if d.lock, err = d.disk.Lock(filepath.Join(d.dir, lockFile)); err != nil {
		if errors.Is(err, durable.ErrLocked) {
			return nil, ErrBusy
		}
		return nil, err
	}
	if err := d.load(); err != nil {
		d.close()
		return nil, err
	}
	d.disk.CleanTemp(d.dir, time.Now().Add(-time.Hour)) // What a crash left; its failure harms nothing.
	return d, nil
}

// load replays the log. The caller holds the lock. After an error the state is as it was.
func (d *device) load() error {
	fresh := *d
	if err := fresh.read(); err != nil {
		return err
	}
	*d = fresh
	return nil
}

func (d *device) read() error {
	local, err := d.keychain.Get(localKeyName(d.info))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDeviceKey, err)
	}
	if d.seal, err = newLocalSeal(local); err != nil {
		return err
	}
	path := filepath.Join(d.dir, logFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: %w", logFile, seal.ErrDamaged)
	}
	log, records, _, err := d.disk.OpenLog(path)
	if err != nil {
		return err
	}
	d.log, d.key, d.chain, d.slots, d.deleted, d.removed, d.retired, d.verified, d.exposed = log, nil, nil, nil, false, nil, nil, time.Time{}, time.Time{}
	d.kept, d.rekey, d.pin, d.past, d.wrote = keptRecord{}, rekeyRecord{}, pinRecord{}, nil, nil
	d.anchor, d.epochs = anchor{next: d.anchor.next, pause: d.anchor.pause}, nil
	d.items, d.places, d.strangers = map[string]*entry{}, map[string]*placeState{}, map[seal.SnapshotName]bool{}
	d.base, d.lost, d.listed, d.garbage, d.recorded = log.Size(), 0, 0, 0, nil
	var commit *commitRecord // begun, and going on with the next record
	for i, sealed := range records {
		plain, err := d.seal.open(logFile, sealed)
		if err != nil {
			return fmt.Errorf("reading record %d of this device: %w", i, err)
		}
		var r record
		if err := json.Unmarshal(plain, &r); err != nil {
			return fmt.Errorf("reading record %d of this device: %w", i, seal.ErrDamaged)
		}
		if commit != nil {
			if r.Commit == nil {
				return fmt.Errorf("reading record %d of this device: %w", i, seal.ErrDamaged)
			}
			commit.Items, commit.More = append(commit.Items, r.Commit.Items...), r.Commit.More
			r.Commit = commit
		}
		if commit = nil; r.Commit != nil && r.Commit.More {
			commit = r.Commit
			continue
		}
		if err := d.replay(&r); err != nil {
			return fmt.Errorf("reading record %d of this device: %w", i, err)
		}
	}
	if d.key == nil || commit != nil || len(d.chain) == 0 || d.key.Backup().String() != d.info.ID || d.key.Device().String() != d.info.Device {
		return fmt.Errorf("reading this device's record: %w", seal.ErrDamaged)
	}
	d.stale = false
	return nil
}

// How long an operation waits for another process, in all, between two tries, and before
// that is told. An agent keeps the wallet for some ten seconds a save while a place does
// not answer.
const (
	lockWait  = 30 * time.Second
	lockPause = 10 * time.Millisecond
	lockQuiet = time.Second
)

// hold takes the lock of the directory, if it is not held, and finds out whether
// another process changed anything since: then the log is stale. If the directory
// is another wallet's by now, or the places are others, the error is ErrReplaced.
// waiting is called if it takes long.
func (d *device) hold(ctx context.Context, waiting func()) (err error) {
	if d.lock != nil {
		return nil
	}
	told := false
	for began := time.Now(); ; time.Sleep(lockPause) {
		if d.lock, err = d.disk.Lock(filepath.Join(d.dir, lockFile)); !errors.Is(err, durable.ErrLocked) {
			break
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
		}
		if time.Since(began) > lockWait {
			return ErrBusy
		}
		if !told && time.Since(began) > lockQuiet {
			waiting()
			told = true
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", d.dir, ErrNoDevice)
	}
	if err != nil {
		return err
	}
	info, err := readInfo(d.disk, d.dir)
	if err == nil && !info.same(d.info) {
		err = ErrReplaced
	}
	if err != nil {
		return errors.Join(err, d.close())
	}
	d.stale = d.stale || !d.log.Unchanged()
	return nil
}

// same reports whether two say the same of whose directory it is and where the
// backup is kept.
func (j infoJSON) same(k infoJSON) bool {
	return j.ID == k.ID && j.Device == k.Device && j.Copies == k.Copies && slices.Equal(j.Places, k.Places)
}

func (d *device) close() error {
	if d.lock == nil {
		return nil
	}
	l := d.lock
	d.lock = nil
	return l.Unlock()
}

// append makes records durable, all or none. The caller then replays them.
func (d *device) append(list ...record) error {
	sealed, err := d.sealRecords(list)
	if err != nil {
		return err
	}
	return d.logged(d.log.AppendAll(sealed))
}

func (d *device) sealRecords(list []record) ([][]byte, error) {
	sealed := make([][]byte, len(list))
	for i := range list {
		b, err := json.Marshal(&list[i])
		if err != nil {
			return nil, err
		}
		sealed[i] = d.seal.seal(logFile, b)
	}
	return sealed, nil
}

// logged notes an error of the log after which its file must be read again.
func (d *device) logged(err error) error {
	d.stale = d.stale || errors.Is(err, durable.ErrReopen)
	return err
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
			if p.Ended {
				st.err = &toldError{p.Err, ErrEnded}
			}
			if st.branch, err = seal.ParseSnapshotName(p.Branch); err != nil {
				return err
			}
			d.places[addr] = st
		}
		d.verified, d.exposed = r.Places.Verified, r.Places.Exposed
		a, err := r.Places.Anchor.anchor()
		a.next, a.pause = d.anchor.next, d.anchor.pause
		d.anchor = a
		return err
	case len(r.Strangers) > 0:
		for _, s := range r.Strangers {
			n, err := seal.ParseSnapshotName(s)
			if err != nil {
				return err
			}
			d.strangers[n] = true
		}
		return nil
	case r.Deleted:
		d.deleted = true
		return nil
	case r.Removed != nil:
		d.removed, err = parseSlotPaths(*r.Removed)
		return err
	case r.Kept != nil:
		d.kept = *r.Kept
		return nil
	case r.Rekey != nil:
		d.rekey = *r.Rekey
		return nil
	case r.PIN != nil:
		d.pin = *r.PIN
		return nil
	case len(r.Epochs) > 0:
		d.epochs, err = parseEpochs(r.Epochs)
		return err
	case len(r.Past) > 0:
		d.past = nil
		for _, s := range r.Past {
			n, err := seal.ParseSnapshotName(s)
			if err != nil {
				return err
			}
			d.past = append(d.past, n)
		}
		return nil
	case len(r.Wrote) > 0:
		d.wrote = r.Wrote
		return nil
	case r.Retired != nil:
		d.retired = nil
		for _, q := range *r.Retired {
			d.retired = append(d.retired, retirement{q.Generation, q.Paths})
		}
		return nil
	}
	return seal.ErrDamaged
}

// replayCommit brings the state in memory to a commit. If it returns an error it
// changed nothing.
func (d *device) replayCommit(c *commitRecord) (err error) {
	if d.key == nil || len(c.Steps) == 0 {
		return seal.ErrDamaged
	}
	steps := make([]step, len(c.Steps))
	for i, q := range c.Steps {
		if steps[i].name, err = seal.ParseSnapshotName(q.Snapshot); err != nil {
			return err
		}
		steps[i].size, steps[i].objects = q.Size, q.Objects
	}
	entries := make([]*entry, len(c.Items))
	for i := range c.Items {
		if entries[i], err = c.Items[i].entry(); err != nil {
			return err
		}
	}
	slots := d.slots
	if c.Slots != nil {
		if slots, err = parseSlotPaths(*c.Slots); err != nil {
			return err
		}
	}

	old := d.items
	if c.Whole {
		d.items, d.chain, d.lost, d.listed = make(map[string]*entry, len(entries)), nil, 0, 0
	}
	for _, e := range entries {
		name := e.line.Name
		if was := old[name]; was != nil && was.line.Version != e.line.Version {
			d.garbage += was.line.Size
		}
		if was := d.items[name]; was != nil {
			d.listed -= lineSize(was)
			d.lost -= was.missed()
			delete(d.items, name)
		}
		if e.line.Removed && !seal.OwnerItem(name) {
			continue
		}
		d.items[name] = e
		d.listed += lineSize(e)
		d.lost += e.missed()
	}
	d.slots, d.headTime, d.exposed, d.chain = slots, c.Time, c.Exposed, append(d.chain, steps...)
	return nil
}

// missed counts a required item that is lost.
func (e *entry) missed() int {
	if e.lost && e.line.Required {
		return 1
	}
	return 0
}

// lineSize returns at least the length of the line by which a checkpoint refers
// to an item: 360 bytes beside its name, in which every byte could be escaped.
func lineSize(e *entry) int64 { return 360 + 2*int64(len(e.line.Name)) }

// commitRecords returns a commit as records of bounded size.
func commitRecords(c commitRecord, entries []*entry) []record {
	var list []record
	size := 0
	for _, e := range entries {
		if size > maxCommit {
			c.More = true
			whole := c
			list = append(list, record{Commit: &whole})
			c, size = commitRecord{}, 0
		}
		size += len(e.value) + int(lineSize(e))
		c.Items = append(c.Items, e.record())
	}
	return append(list, record{Commit: &c})
}

// commit makes a snapshot this device's newest. The objects that it needs are
// already durable in objects/. Before the append the old state counts, after it
// the new one: that is the moment a change becomes safe on this device.
func (d *device) commit(c commitRecord, entries []*entry) error {
	records := commitRecords(c, entries)
	if c.Whole {
		// A checkpoint says everything, so the log begins anew with it.
		retired, err := d.nextRetired(&c, entries)
		if err != nil {
			return err
		}
		before, wrote := d.retired, d.wrote
		d.retired, d.wrote = retired, d.wroteSoFar()
		if err := d.rewrite(records); err != nil {
			d.retired, d.wrote = before, wrote
			return err
		}
	} else if err := d.append(records...); err != nil {
		return err
	}
	for _, r := range records {
		c.Items = append(c.Items, r.Commit.Items...)
	}
	return d.replayCommit(&c)
}

// nextRetired is retire for a commit that replaces everything.
func (d *device) nextRetired(c *commitRecord, entries []*entry) ([]retirement, error) {
	slots := d.slots
	var err error
	if c.Slots != nil {
		if slots, err = parseSlotPaths(*c.Slots); err != nil {
			return nil, err
		}
	}
	name, err := seal.ParseSnapshotName(c.Steps[0].Snapshot)
	return d.retire(name.Generation, slots, []step{{name: name, objects: c.Steps[0].Objects}}, entries), err
}

// rewrite replaces the log by the records of a whole commit and what goes with
// every state.
func (d *device) rewrite(commit []record) error {
	places := d.placesRecord()
	list := append([]record{{Device: &deviceRecord{Key: d.key.Marshal().Open()}}}, commit...)
	list = append(list, record{Places: places})
	if len(d.strangers) > 0 {
		r := record{}
		for n := range d.strangers {
			r.Strangers = append(r.Strangers, n.String())
		}
		list = append(list, r)
	}
	if d.deleted {
		list = append(list, record{Deleted: true})
	}
	if len(d.removed) > 0 {
		list = append(list, record{Removed: new(slotPaths(d.removed))})
	}
	if len(d.kept.Keys) > 0 || !d.kept.Written.IsZero() || d.kept.Drilled != nil {
		list = append(list, record{Kept: &d.kept})
	}
	if d.rekey.ID != "" {
		list = append(list, record{Rekey: &d.rekey})
	}
	if d.pin.Plan != nil || len(d.pin.Ending)+len(d.pin.Lost) > 0 || d.pin.Undone {
		list = append(list, record{PIN: &d.pin})
	}
	if len(d.epochs) > 0 {
		list = append(list, record{Epochs: epochBytes(d.epochs)})
	}
	if len(d.past) > 0 {
		r := record{}
		for _, n := range d.past {
			r.Past = append(r.Past, n.String())
		}
		list = append(list, r)
	}
	if len(d.wrote) > 0 {
		list = append(list, record{Wrote: d.wrote})
	}
	if len(d.retired) > 0 {
		list = append(list, record{Retired: retiredRecords(d.retired)})
	}
	sealed, err := d.sealRecords(list)
	if err != nil {
		return err
	}
	if err := d.logged(d.log.Rewrite(sealed)); err != nil {
		return err
	}
	d.base, d.recorded = d.log.Size(), places.text()
	return nil
}

// compact writes the log anew when most of it is out of date, so that neither
// its length nor the time of the next start grows without end.
func (d *device) compact() error {
	if d.log.Size() < 4*d.base+1<<20 {
		return nil
	}
	c := commitRecord{Whole: true, Time: d.headTime, Exposed: d.exposed, Slots: new(slotPaths(d.slots))}
	for _, s := range d.chain {
		c.Steps = append(c.Steps, stepRecord{s.name.String(), s.size, s.objects})
	}
	return d.rewrite(commitRecords(c, slices.Collect(maps.Values(d.items))))
}

func parseSlotPaths(paths []string) ([]seal.SlotName, error) {
	var slots []seal.SlotName
	for _, p := range paths {
		n, ok := seal.ParseSlotPath(p)
		if !ok {
			return nil, seal.ErrDamaged
		}
		slots = append(slots, n)
	}
	return slots, nil
}

func slotPaths(slots []seal.SlotName) []string {
	paths := make([]string, len(slots))
	for i, s := range slots {
		paths[i] = s.Path()
	}
	return paths
}

func (d *device) placesRecord() *placesRecord {
	r := &placesRecord{Verified: d.verified, Exposed: d.exposed, Places: map[string]placeRecord{}, Anchor: d.anchor.record()}
	for addr, p := range d.places {
		pr := placeRecord{Snapshot: p.verified.String(), At: p.at, Health: p.health, Branch: p.branch.String()}
		if p.err != nil {
			pr.Err, pr.Ended = p.err.Error(), errors.Is(p.err, ErrEnded)
		}
		r.Places[addr] = pr
	}
	return r
}

func (r *placesRecord) text() []byte {
	b, _ := json.Marshal(r)
	return b
}

// savePlaces records how the places stand, if that has changed.
func (d *device) savePlaces() error {
	r := d.placesRecord()
	text := r.text()
	if bytes.Equal(text, d.recorded) {
		return nil
	}
	if err := d.append(record{Places: r}); err != nil {
		return err
	}
	d.recorded = text
	return nil
}

// keepFile writes a file of this device that only the next commit will need.
func (d *device) keepFile(path string, data []byte) error {
	if d.staging || d.together {
		return d.disk.WriteTree(path, data, 0o600)
	}
	return d.disk.WriteFile(path, data, 0o600)
}

// flush makes durable what was kept together.
func (d *device) flush() error {
	if !d.together || d.staging {
		return nil
	}
	for _, sub := range []string{valuesDir, objectsDir} {
		if err := d.disk.SyncTree(filepath.Join(d.dir, sub)); err != nil {
			return err
		}
	}
	return nil
}

// putObject keeps a sealed object on this device, durably.
func (d *device) putObject(hash store.Hash, data []byte) error {
	return d.keepFile(filepath.Join(d.dir, objectsDir, string(hash)), data)
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
	d.sealed = d.seal.sealInto(d.sealed, valueName(d.key, l), value)
	err := d.keepFile(d.valuePath(l), d.sealed)
	if len(d.sealed) > maxPacked {
		d.sealed = nil // Such values are few.
	}
	return nil, err
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
	v, err := d.valueOf(e)
	if err != nil {
		return nil, fmt.Errorf("reading item %s: %w", name, err)
	}
	return v, nil
}

// valueOf returns the value of an entry that is neither removed nor lost.
func (d *device) valueOf(e *entry) ([]byte, error) {
	v := e.value
	if e.line.Size > seal.MaxInline {
		sealed, err := d.disk.ReadFile(d.valuePath(&e.line), seal.MaxValue+1024)
		if err != nil {
			return nil, err
		}
		if v, err = d.seal.open(valueName(d.key, &e.line), sealed); err != nil {
			return nil, err
		}
	}
	if !e.line.Matches(v) {
		return nil, seal.ErrDamaged
	}
	return v, nil
}

// liveObjects returns the paths of what the newest state needs and generations
// up to after did not write, in the order in which they must arrive in a place;
// after 0, all.
func (d *device) liveObjects(after uint64) []string {
	var paths []string
	for _, s := range d.slots {
		paths = append(paths, s.Path())
	}
	seen := map[string]bool{}
	snapshots := map[seal.SnapshotName]bool{}
	for _, s := range d.chain {
		snapshots[s.name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(d.items)) {
		e := d.items[name]
		if e.lost {
			continue // A restore went on without it.
		}
		if path, written := d.holder(e); path != "" && written > after && !seen[path] {
			seen[path] = true
			paths = append(paths, path)
		}
		if !e.line.Removed && !e.line.In.IsZero() {
			snapshots[e.line.In] = true
		}
	}
	for _, n := range slices.SortedFunc(maps.Keys(snapshots), seal.SnapshotName.Compare) {
		if n.Generation > after {
			paths = append(paths, n.Path())
		}
	}
	return paths
}

// missingFrom returns what a place lacks that holds everything up to a snapshot,
// as steps in their order. A place that is behind the checkpoint, or new, gets
// everything that the newest state needs as one step.
func (d *device) missingFrom(verified seal.SnapshotName) []step {
	if i := d.index(verified); i >= 0 {
		return d.chain[i+1:]
	}
	return []step{{name: d.head(), objects: d.liveObjects(verified.Generation)}}
}

// late returns the paths of what missingFrom returns.
func (d *device) late(verified seal.SnapshotName) map[string]bool {
	paths := map[string]bool{}
	for _, s := range d.missingFrom(verified) {
		for _, p := range s.objects {
			paths[p] = true
		}
	}
	return paths
}

// hashOf returns the hash in the name of an object.
func hashOf(path string) store.Hash {
	stem := path[:len(path)-len(".age")]
	return store.Hash(stem[len(stem)-32:])
}

func readDirNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// sweep removes from this device objects and values that nothing needs: what a
// crash left, and what newer snapshots replaced. Where a place lacks some of the
// chain, its objects stay. Nothing is flushed: what comes back is swept again.
func (d *device) sweep(places []store.Place) error {
	objects, values := map[string]bool{}, map[string]bool{}
	for _, p := range d.liveObjects(0) {
		objects[string(hashOf(p))] = true
	}
	for _, p := range places {
		var verified seal.SnapshotName
		if st := d.places[p.Address]; st != nil {
			verified = st.verified
		}
		for _, s := range d.missingFrom(verified) {
			for _, p := range s.objects {
				objects[string(hashOf(p))] = true
			}
		}
	}
	if n, err := seal.ParseSnapshotName(d.rekey.End); err == nil && !n.IsZero() {
		objects[string(n.Hash)] = true
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
				if err := os.Remove(filepath.Join(d.dir, dir, n)); err != nil {
					return err
				}
			}
		}
	}
	d.garbage = 0
	return nil
}
