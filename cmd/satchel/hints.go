package main

import (
	"errors"
	"strings"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/wallet"
)

// hints say what to do next after an error; the first that fits counts. Facts
// that need their own words come before the codes.
var hints = []struct {
	err  error
	hint string
}{
	{satchel.ErrNoDevice, "make one with `satchel create`, or bring one back with `satchel restore`"},
	{satchel.ErrBusy, "wait until the other satchel is done, then try again"},
	{satchel.ErrReplaced, "try again: it is read anew"},
	{satchel.ErrDeviceKey, "unlock the keychain of this computer and try again; if its key is lost, `satchel restore` brings the wallet back from your place"},
	{satchel.ErrRekeyed, "use the wallet with the new keys, see `satchel status`; `satchel rekey` finishes what was begun"},
	{satchel.ErrDeleted, "the wallet is on this device only: `satchel export words`, and `satchel create` for another one"},
	{satchel.ErrNotWritten, "`satchel export words` shows them, `satchel words verify` lets you type some back; then try again"},
	{satchel.ErrWords, "nothing was recorded; compare your paper with `satchel export words`, then try again"},
	{satchel.ErrBranch, "nothing is lost and saving goes on: `satchel history` shows what the other device wrote, `satchel history show` and `history get` look into it; `satchel prune --all --branches` deletes it when you have what you need"},
	{satchel.ErrEnded, "the wallet goes on in the backup with the new keys: first `satchel restore` with one of its ways in, which comes beside this wallet; then `satchel forget --wallet OLD --anyway`, OLD being the name of this one in `satchel status`; if the words are not in the backup, have them on paper before"},
	{satchel.ErrForked, "both states are kept; `satchel restore --preview` shows them, and --snapshot takes one of them"},
	{satchel.ErrOtherDevice, "use the wallet on the other device, or take it over here: `satchel forget`, then `satchel restore`; if the words are not in the backup, have them on paper first"},
	{guard.ErrWrongPIN, "each wrong PIN costs a guess, and pauses grow; a right one gives them back. `satchel guardian status` shows what is left on a device that has the wallet"},
	{guard.ErrPassphrase, "the PIN was right, the passphrase beside it was not; the guess comes back with the next success"},
	{guard.ErrPending, "the PIN before, if there was one, opens until then; `satchel backup` goes on, `satchel guardian status` shows which key server is missing"},
	{guard.ErrGone, "this PIN was changed or removed since: take the newest copy of the folder, or another way in"},
	{guard.ErrSlotDamaged, "no PIN was sent and no guess spent: take another place or an older copy of the folder, or another way in"},
	{guard.ErrPIN, "a PIN is any text of 1 to 1,024 bytes"},
	{errNoPIN, "`satchel restore --list` shows what opens each backup; on a device that has the wallet `satchel pin set` makes one"},
	{satchel.ErrNoSlot, "`satchel restore --list` shows what opens each backup"},
	{satchel.ErrLastSlot, "add another way in first: `satchel slot add recovery-code`"},
	{satchel.ErrOwnerOnly, "the keys of a wallet never change; make another wallet with `satchel create` or `satchel import`"},
	{satchel.ErrNoItem, "`satchel items` lists what there is"},
	{slot.ErrWeak, "let Satchel make one for you: --unlock generated, or `satchel slot add generated`"},
	{slot.ErrPassphrase, "use letters, digits, spaces and punctuation"},
	{slot.ErrRecoveryCode, "it has nine groups of four, such as 8f3k-…; look again at what you wrote down"},
	{wallet.ErrPassphraseNeeded, "type it when asked, or give --passphrase-fd"},
	{wallet.ErrPassphrase, "every passphrase leads to some wallet; look for the exact spelling, spaces and capitals count"},
	{wallet.ErrWords, "12 to 24 words with spaces between them, in the order in which they were written down"},
	{wallet.ErrLabels, "labels are a BIP 329 file: one JSON object per line, as Sparrow and others export them"},
	{wallet.ErrNetwork, "mainnet, testnet, signet or regtest"},
	{satchel.ErrIncomplete, "another place or an older state may hold the rest: `satchel restore --preview` shows them"},
	{seal.ErrForged, "this was not written by a device of yours: restore from another place, or take an older state with --snapshot, and look who can write to the folder"},
	{satchel.ErrMissing, "if a program syncs this folder, let it finish; then `satchel heal` puts back what this device still has"},
}

var codeHints = map[satchel.Code]string{
	satchel.CodeFailed:       "",
	satchel.CodePartly:       "it is safe on this device; `satchel backup` tries again, `satchel status` shows each place",
	satchel.CodeNoBackup:     "is it another account, another folder, or not synced yet? give the folder with --from, also one from a USB stick or a download",
	satchel.CodeOtherDevice:  "see `satchel status`",
	satchel.CodeWrongSecret:  "there is no limit to tries; any way in that this backup has will do, see `satchel restore --list`",
	satchel.CodeLocked:       "the key servers take no PIN before then, from anybody; another way in has no pause: `satchel restore --list` shows them",
	satchel.CodeErased:       "too many wrong PINs were tried, so the key servers destroyed what they kept, for good; another way in opens the backup, `satchel restore --list` shows them; then set a new PIN. If there is none, a device that still has the wallet shows its words: `satchel export words`, and `satchel import` makes a new backup",
	satchel.CodeServerLied:   "a guess that this cost at the others comes back with the next right PIN; take another way in, or try again later; on a device that has the wallet, `satchel guardian replace` takes another server in its place",
	satchel.CodeFewServers:   "is this machine online? try again later; another way in needs no key server",
	satchel.CodeSlotDamaged:  "use another way in, or another place that holds this backup; a device that still has the wallet heals it: `satchel heal`",
	satchel.CodeDamaged:      "another place may hold a whole copy; a device that still has the wallet heals this one: `satchel heal`",
	satchel.CodeOlder:        "let the program that syncs the folder finish, or look in another place; --preview shows what is there",
	satchel.CodeNewer:        "install the newest satchel; nothing was changed",
	satchel.CodeWrongWallet:  "nothing was overwritten; `satchel status` shows the wallets of this device",
	satchel.CodeIncomplete:   "another place or an older state may hold the rest: `satchel restore --preview` shows them",
	satchel.CodeListing:      "this does not mean that there is no backup: look whether the folder can be read, then try again",
	satchel.CodeSignIn:       "sign in again in the program that syncs this folder",
	satchel.CodeWrongAccount: "sign in to the account that holds the backup",
	satchel.CodeFull:         "make room there, then `satchel backup`; what was verified before is still there",
	satchel.CodeUnreachable:  "is the disk or the folder connected, under the name that it had? then try again",
	satchel.CodeInterrupted:  "",
}

// hintFor returns what to do after an error, or "".
func hintFor(err error) string {
	if e, ok := errors.AsType[*usageError](err); ok {
		return e.hint
	}
	if e, ok := errors.AsType[*hintedError](err); ok {
		return e.hint
	}
	if e, ok := errors.AsType[*slot.WeakError](err); ok {
		return e.Advice
	}
	if e, ok := errors.AsType[*guard.WrongPINError](err); ok && e.GuessesLeft == 0 {
		return codeHints[satchel.CodeErased]
	}
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	if satchel.CodeOf(err) == satchel.CodeUnreachable && emptied(err) {
		return "is the disk or the folder connected? then try again; a folder that was really emptied is filled by `satchel heal --emptied FOLDER`"
	}
	return codeHints[satchel.CodeOf(err)]
}

// emptied reports whether an error is of a folder that is there and has nothing in it.
// After a while only the text of it is left.
func emptied(err error) bool {
	if e, ok := errors.AsType[*foundError](err); ok {
		err = e.err
	}
	return err != nil && strings.Contains(err.Error(), "the folder has nothing in it")
}

// healthHints say what to do about a place.
var healthHints = map[satchel.Health]string{
	satchel.HealthBehind:       "satchel backup",
	satchel.HealthMissing:      "satchel heal puts back what is missing",
	satchel.HealthSignIn:       "sign in again in the program that syncs it",
	satchel.HealthWrongAccount: "sign in to the account that holds the backup",
	satchel.HealthUnreachable:  "connect it, then satchel backup",
	satchel.HealthDamaged:      "satchel heal replaces what is damaged",
	satchel.HealthFull:         "make room there, then satchel backup",
	satchel.HealthOtherDevice:  "use the other device, or satchel forget and restore here (have the words at hand if they are not in the backup)",
	satchel.HealthUnknown:      "satchel check",
	satchel.HealthFailed:       "satchel check shows more",
}
