package satchel

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
)

// Facts of a backup as a whole. Facts of its parts have their sentinels in the
// packages store, slot, seal and wallet. [CodeOf] knows them all.
var (
	// ErrNoBackup says that every place was listed completely and none holds a
	// backup. The error names where was looked.
	ErrNoBackup = errors.New("no backup found")
	// ErrOtherDevice says that another device has become the writer of this
	// backup, or a copy of this device writes it. Nothing more is written here.
	ErrOtherDevice = errors.New("another device writes this backup")
	// ErrSamePlace says that a place is one of the others under another address: what is
	// there twice is one copy.
	ErrSamePlace = errors.New("one place under two addresses")
	// ErrForked says that two snapshots claim to be the newest. Both are kept;
	// the user decides which one to restore.
	ErrForked = errors.New("two devices wrote at once")
	// ErrBranch says that an older device wrote on, beside the history of this one. What
	// it wrote is kept until the user decides; nothing stops because of it.
	ErrBranch = errors.New("another device wrote beside this backup's history")
	// ErrEnded says that another device replaced this backup by one with new keys.
	ErrEnded = errors.New("this backup ended: another device replaced it by one with new keys")
	// ErrNoSlot says that the backup has no slot that such a secret could open.
	ErrNoSlot = errors.New("no slot of this kind")
	// ErrLastSlot says that the last slot of a backup is not removed.
	ErrLastSlot = errors.New("the last slot stays")
	// ErrSlotDamaged says that a slot is damaged: no secret was tried on it.
	ErrSlotDamaged = errors.New("slot damaged")
	// ErrMissing says that an object that the backup needs is in no place.
	ErrMissing = errors.New("missing")
	// ErrOlder says that the places hold an older generation than is known to
	// exist.
	ErrOlder = errors.New("older than the newest known backup")
	// ErrWrongWallet says that what was found belongs to another wallet than the
	// one here. Nothing was overwritten.
	ErrWrongWallet = errors.New("another wallet")
	// ErrIncomplete says that a required item could not be restored.
	ErrIncomplete = errors.New("incomplete")
	// ErrNotProtected says that fewer places than asked for hold the newest
	// change, read back and compared. It is kept on this device and sent again.
	ErrNotProtected = errors.New("not protected yet")
	// ErrOwnerOnly says that keys and descriptors are changed by who opened the
	// backup, not with a device key.
	ErrOwnerOnly = errors.New("only the owner may change this item")
	// ErrNoItem says that there is no item of this name.
	ErrNoItem = errors.New("no such item")
	// ErrBusy says that another process has this backup open on this device.
	ErrBusy = errors.New("another process is using this wallet")
	// ErrDeviceKey says that this device's own key cannot be had: the keychain
	// is locked, or has lost it. The backup can still be restored.
	ErrDeviceKey = errors.New("the key of this device cannot be read")
	// ErrDeleted says that the backup was deleted by its owner. Nothing is written
	// to its places any more.
	ErrDeleted = errors.New("the backup was deleted")
	// ErrWords says that words typed back are not those of the wallet, or too few.
	ErrWords = errors.New("these are not the words of this wallet")
	// ErrNotWritten says that the words were not seen to be written down, so that
	// their copy in the backup stays.
	ErrNotWritten = errors.New("the words were not verified to be written down")
	// ErrRekeyed says that the backup has got new keys: what is in this directory is
	// out of date, and another directory has taken its place.
	ErrRekeyed = errors.New("this backup was replaced by one with new keys")
	// ErrReplaced says that another process made this directory another wallet's, or
	// changed where the backup is kept. Close the Backup and open it anew.
	ErrReplaced = errors.New("another process changed this wallet or its places")
	// ErrNoDevice says that the directory holds no wallet.
	ErrNoDevice = errors.New("no wallet on this device")
)

// IncompleteError is ErrIncomplete with the names of the items.
type IncompleteError struct {
	Items []string
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("%v: %s could not be restored", ErrIncomplete, strings.Join(e.Items, ", "))
}

func (e *IncompleteError) Is(target error) bool { return target == ErrIncomplete }

// Code says in a number what an error is about: the exit code of the command,
// and the same in every program that uses Satchel. Codes never change meaning.
type Code int

const (
	CodeDone         Code = 0
	CodeFailed       Code = 1
	CodeUsage        Code = 2
	CodePartly       Code = 3 // done in part: not in all places
	CodeNoBackup     Code = 10
	CodeOtherDevice  Code = 11
	CodeWrongSecret  Code = 12
	CodeLocked       Code = 13 // for key servers
	CodeErased       Code = 14 // for key servers
	CodeFewServers   Code = 15 // for key servers
	CodeServerLied   Code = 16 // for key servers
	CodeSlotDamaged  Code = 17
	CodeDamaged      Code = 18
	CodeOlder        Code = 19
	CodeNewer        Code = 20
	CodeWrongWallet  Code = 21
	CodeIncomplete   Code = 22
	CodeListing      Code = 23
	CodeSignIn       Code = 24
	CodeWrongAccount Code = 25
	CodeFull         Code = 26
	CodeUnreachable  Code = 27
	CodeInterrupted  Code = 130
)

// codes maps each fact to its code; the first that an error is counts.
var codes = []struct {
	err  error
	code Code
}{
	{context.Canceled, CodeInterrupted},
	{ErrOtherDevice, CodeOtherDevice},
	{ErrForked, CodeOtherDevice},
	{ErrEnded, CodeOtherDevice},
	{ErrWrongWallet, CodeWrongWallet},
	{wallet.ErrOtherWallet, CodeWrongWallet},
	{ErrSlotDamaged, CodeSlotDamaged},
	{guard.ErrSlotDamaged, CodeSlotDamaged},
	{slot.ErrOtherBackup, CodeSlotDamaged},
	{guard.ErrLocked, CodeLocked},
	{guard.ErrErased, CodeErased},
	{guard.ErrLie, CodeServerLied},
	{guard.ErrWrongPIN, CodeWrongSecret},
	{guard.ErrUnreachable, CodeFewServers},
	{guard.ErrNewer, CodeNewer},
	{guard.ErrPending, CodePartly},
	{slot.ErrParameters, CodeSlotDamaged},
	{slot.ErrWrongSecret, CodeWrongSecret},
	{wallet.ErrPassphrase, CodeWrongSecret},
	{slot.ErrRecoveryCode, CodeWrongSecret},
	{wallet.ErrDamaged, CodeDamaged}, // Of keys in a backup, whose words are wrong too.
	{wallet.ErrWords, CodeWrongSecret},
	{ErrWords, CodeWrongSecret},
	{seal.ErrNewer, CodeNewer},
	{slot.ErrNewerKind, CodeNewer},
	{wallet.ErrNewer, CodeNewer},
	{ErrOlder, CodeOlder},
	{ErrSamePlace, CodeUsage},
	{store.ErrSignIn, CodeSignIn},
	{store.ErrWrongAccount, CodeWrongAccount},
	{store.ErrFull, CodeFull},
	{store.ErrListing, CodeListing},
	{store.ErrUnreachable, CodeUnreachable},
	{context.DeadlineExceeded, CodeUnreachable},
	{ErrIncomplete, CodeIncomplete},
	{seal.ErrForged, CodeDamaged},
	{seal.ErrDamaged, CodeDamaged},
	{seal.ErrNotOurs, CodeDamaged},
	{store.ErrDamaged, CodeDamaged},
	{store.ErrTooLarge, CodeDamaged},
	{wallet.ErrExtendedKey, CodeWrongSecret},
	{wallet.ErrPublicKey, CodeWrongSecret},
	{wallet.ErrNotMaster, CodeWrongSecret},
	{wallet.ErrKeyNetwork, CodeWrongSecret},
	{durable.ErrCorrupt, CodeDamaged},
	{ErrMissing, CodeDamaged},
	{ErrNoBackup, CodeNoBackup},
	{ErrBranch, CodeOtherDevice}, // After what is wrong besides.
	{ErrNotProtected, CodePartly},
}

// CodeOf returns the code of an error: CodeDone for nil, CodeFailed for what it
// does not know.
func CodeOf(err error) Code {
	if err == nil {
		return CodeDone
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return CodeFailed
}
