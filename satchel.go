// Package satchel is automatic, encrypted cloud backup for Bitcoin wallets.
//
// A wallet makes its keys on the device. Satchel encrypts them there, together
// with everything that changes afterwards, and keeps them in places of the
// user's own: a folder that syncs, a cloud. The places hold nothing that they can
// read.
//
// A wallet gains a backup by creating one and saving every change:
//
//	keys, err := wallet.New(wallet.Mainnet, 12, "2026-11-23")
//	way, code := slot.NewRecoveryCode() // show code to the user, once
//	b, err := satchel.Create(ctx, cfg, satchel.Plan{
//		Label: "Samantha", Keys: keys, Slots: []slot.Secret{way},
//	})
//	_, err = b.Save(ctx, satchel.Change{Name: "labels", Value: labels})
//
// On a new device it looks for backups, opens one and restores it:
//
//	found, err := satchel.Find(ctx, cfg)
//	opened, err := found[0].Open(ctx, way)
//	b, restored, err := opened.Restore(ctx, satchel.RestoreOptions{})
//
// A change is safe on the device when Save has journalled it, and protected when
// as many places as the Config asks for hold it and it was fetched from there
// again and compared. [CodeOf] turns every error into one of a few codes that a
// program can act on.
package satchel

import (
	"log/slog"
	"sync"
	"time"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
)

// Version is the version of this library.
const Version = "0.1.0"

// Config says where a backup lives on this device and elsewhere.
type Config struct {
	// Dir is the directory that this device keeps for this one backup. Create
	// and Restore make it; its parent must exist.
	Dir string
	// Places are the stores of the user's that hold the backup, at least one.
	Places []store.Place
	// Copies is how many places must hold a change, read back and compared,
	// before it counts as protected. Zero means one.
	Copies int
	// Keychain keeps the key that opens this device's own files.
	Keychain Keychain
	// Shared says that other processes may use the wallet between two operations of
	// this one: the directory is held only while an operation is under way, and what
	// another process changed is read again at the next. Status, Items and Get tell
	// what was known at the end of the last one. Zero keeps the directory until Close.
	Shared bool
	// Software names the program in the snapshots it writes, as "wallet/1.2". Zero
	// means satchel and its version.
	Software string
	// Settle is how long Find goes on looking before it says that a place holds
	// no backup: listings may lag. Zero means two seconds, less than zero one look.
	Settle time.Duration
	// Guardians talks to the key servers that guard PINs; nil where there are none. With
	// it every Save goes on with what SetPIN began.
	Guardians *guard.Client
	// Progress, if not nil, is called as work goes on, from one goroutine at a time.
	Progress func(Progress)
	// Logger gets what an operator would want to know. Nil discards it.
	Logger *slog.Logger
	// Now tells the time that snapshots show. Nil means time.Now.
	Now func() time.Time

	disk durable.Disk // its Hook is for crash tests

	inTurn      bool        // one place after another, for tests that count
	progressing *sync.Mutex // held while Progress runs
}

// Keychain keeps small secrets on this device. Package keychain has the
// system's; a phone brings its own.
type Keychain interface {
	// Get returns a secret that was Set, or an error: Satchel never makes a new
	// one in its stead.
	Get(name string) (secret.Bytes, error)
	// Set stores a secret of at most 64 bytes durably.
	Set(name string, s secret.Bytes) error
	// Delete removes a secret. Deleting what is gone is no error.
	Delete(name string) error
}

// Stage is what a long operation is doing.
type Stage string

const (
	Searching  Stage = "searching"
	Sealing    Stage = "sealing"
	Uploading  Stage = "uploading"
	Verifying  Stage = "verifying"
	Restoring  Stage = "restoring"
	Comparing  Stage = "comparing"
	Checking   Stage = "checking"
	Deleting   Stage = "deleting"
	Pruning    Stage = "pruning"
	Restored   Stage = "restored"
	OpeningKey Stage = "opening"
	Waiting    Stage = "waiting" // for another process that has the wallet
)

// Progress tells how far a long operation is.
type Progress struct {
	Stage Stage
	Place string // the address concerned, "" if none
	Done  int    // of Total; both 0 where nothing can be counted
	Total int
	// Bytes is how much of a large object went over the line, and Size how many it has, 0
	// if that is not known. Both are 0 for small objects, and where a store does not tell.
	Bytes, Size int64
}

// Plan is what Create makes a backup of.
type Plan struct {
	// Label is the name that people see: "Samantha" gives a folder
	// BitcoinWalletBackup-Samantha-1a2b.
	Label string
	// Keys are the wallet's.
	Keys wallet.Keys
	// Slots are the ways in, at least one.
	Slots []slot.Secret
	// Items are what else is kept from the start.
	Items []Change
	PIN   *PINPlan // a PIN as a way in, beside the slots or alone; nil for none
}

// Change is a new value of an item, or its removal.
type Change struct {
	Name     string // see seal.CheckItemName
	Value    []byte // at most seal.MaxValue bytes
	Required bool   // a restore without this item is incomplete
	Remove   bool
}

// Result is what became of a Save.
type Result struct {
	Generation uint64 // of the newest snapshot
	Changed    int    // items that were new or different
	Protected  bool   // the newest snapshot is read back and compared in enough places
	Places     []PlaceStatus
	Healed     []string // addresses of places that had lost something and have it again
}

// ItemInfo describes an item without its value.
type ItemInfo struct {
	Name       string
	Generation uint64 // that wrote the value
	Size       int64  // bytes
	SHA256     [32]byte
	Required   bool
}

// SlotInfo describes one way in.
type SlotInfo struct {
	Kind slot.Kind
	ID   string // 16 hex digits
}

// Health is the state of one place.
type Health string

const (
	HealthProtected    Health = "protected"      // holds the newest snapshot, read back and compared
	HealthBehind       Health = "behind"         // holds an older one
	HealthMissing      Health = "missing"        // lost objects that it held
	HealthSignIn       Health = "sign-in needed" //
	HealthWrongAccount Health = "wrong account"
	HealthUnreachable  Health = "unreachable"
	HealthDamaged      Health = "damaged" // holds other bytes than were put
	HealthFull         Health = "full"
	HealthOtherDevice  Health = "another device writes"
	HealthUnknown      Health = "never checked"
	HealthFailed       Health = "failed" // an error of no known kind
)

// PlaceStatus is what is known of one place, without asking it.
type PlaceStatus struct {
	Address    string
	Health     Health
	Generation uint64    // newest that was read back and compared; 0 if none
	Verified   time.Time // when that was; zero if never
	Err        error     // what failed last; nil if the last try succeeded
	Branch     string    // a snapshot there, by name, that another device wrote beside this history; "" if none is known
}

// Status is what this device knows of its backup, without asking any place.
type Status struct {
	ID          string // the backup's id, 32 hex digits
	Label       string
	Folder      string // its name in every place
	Network     wallet.Network
	Kind        wallet.Kind // of the keys
	Fingerprint string      // 8 hex digits; "" for an lnd node's words (aezeed)
	Created     time.Time
	Device      string // this device's id
	Epoch       uint64
	Generation  uint64    // newest, perhaps only on this device yet
	Saved       time.Time // when that was made
	Items       int
	Slots       []SlotInfo
	Protected   bool
	Missing     []string  // items that a restore went on without; a Save of a new value ends that
	Deleted     bool      // the owner deleted the backup; the wallet is on this device only
	Verified    time.Time // when enough places were last verified to hold the then newest generation
	Unprotected time.Time // since when something is not protected, as far as is known; zero if all is
	Copies      int
	Places      []PlaceStatus

	KeysDropped  bool      // the backup does not hold the wallet's words
	WordsWritten time.Time // when words typed back were right; zero if never on this device
	Drilled      time.Time // when a drill, or the restore that made this device, last passed with a way in that is still one; zero if never
	Limit        int64     // satoshi above which the user wants to be warned; 0 if not set
	Next         NextStep  // what would make this wallet safer, "" if nothing is known
	PINPending   bool      // a PIN was set and its guardians are not told everything yet
	PINEnding    []string  // key servers that have accounts of an earlier PIN, and could not be told yet that it ended
	PINLost      []string  // key servers that have no part of the PIN any more: set it anew
	PINUndone    bool      // the last change of the PIN was given up, because too many key servers had lost it: the one before, if there was one, is as it was
	PINDead      bool      // the PIN, which is the only way in, was erased or is gone: nothing opens the backup
	Anchored     bool      // the key servers of the PIN know the newest generation: an older copy shows on a restore
	AnchorErr    error     // why they do not know it; nil if there is no PIN, or they were not asked yet
	Rekeying     string    // directory of a backup with new keys that was begun and not finished
}

// DeviceInfo is what can be read of a device's directory without its key.
type DeviceInfo struct {
	ID          string
	Label       string
	Folder      string
	Network     wallet.Network
	Created     time.Time
	Kind        wallet.Kind
	Fingerprint string   // 8 hex digits; "" for an lnd node's words (aezeed)
	Places      []string // addresses
	Copies      int      // how many of them must hold a change
}
