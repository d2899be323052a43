package main

import (
	"errors"
	"strings"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/internal/alarm"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/source/cln"
	"github.com/satchel-backup/satchel/source/lnd"
	"github.com/satchel-backup/satchel/wallet"
)

// hints say what to do next after an error; the first that fits counts. Facts
// that need their own words come before the codes.
var hints = []struct {
	err  error
	hint string
}{
	{satchel.ErrNoDevice, "make one with `satchel create`, or bring one back with `satchel restore`"},
	{satchel.ErrBusy, "nothing was changed; wait until the other satchel is done, then try again. An agent has the wallet for some seconds a save while a place is away: `satchel status` shows which"},
	{satchel.ErrReplaced, "try again: it is read anew"},
	{satchel.ErrDeviceKey, "unlock the keychain of this computer and try again; if its key is lost, `satchel restore` brings the wallet back from your place"},
	{satchel.ErrRekeyed, "use the wallet with the new keys, see `satchel status`; `satchel rekey` finishes what was begun"},
	{satchel.ErrDeleted, "the wallet is on this device only: `satchel export words`, and `satchel create` for another one"},
	{satchel.ErrNotWritten, "`satchel export words` shows them, `satchel words verify` lets you type some back; then try again"},
	{satchel.ErrWords, "nothing was recorded; compare your paper with `satchel export words`, then try again"},
	{satchel.ErrBranch, "nothing is lost and saving goes on: `satchel history` shows what the other device wrote, `satchel history show` and `history get` look into it; `satchel prune --all --branches` deletes it when you have what you need"},
	{satchel.ErrEnded, "the wallet goes on in the backup with the new keys: first `satchel restore` with one of its ways in, which comes beside this wallet; then `satchel forget --wallet OLD --anyway`, OLD being the name of this one in `satchel status`; if the words are not in the backup, have them on paper before"},
	{satchel.ErrSamePlace, "what is put at one address was at once at the other: it is one copy, and counts once; take a place that is apart"},
	{satchel.ErrForked, "both states are kept; `satchel restore --preview` shows them, and --snapshot takes one of them"},
	{satchel.ErrOtherDevice, "use the wallet on the other device, or take it over here: `satchel forget`, then `satchel restore`; if the words are not in the backup, have them on paper first"},
	{alarm.ErrRefused, "does it take messages with this address, user and password? `satchel alarm test` tries again"},
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
	{cln.ErrDatabase, "`satchel cln connect` saves what brings the node back"},
	{cln.ErrOtherNode, "what was saved before is kept. Is it really this node, with its hsm_secret encrypted or decrypted since, or a node that takes the old one's place: `satchel cln connect DIR --replace`, which keeps both"},
	{cln.ErrGone, "is its drive connected? what was saved before is kept"},
	{cln.ErrSecret, "is it whole? Core Lightning's has 32 bytes, 73, or 32 and words"},
	{cln.ErrNetwork, "name the directory of the other network, or another wallet with --wallet; `satchel create --network` makes one"},
	{cln.ErrNotFound, "name it: satchel cln connect DIR, the directory that holds hsm_secret"},
	{wallet.ErrAezeedWords, "an lnd node's words: `satchel import --kind aezeed` takes them; they are no way into a backup"},
	{wallet.ErrBIP39Words, "`satchel import` without --kind takes them; if they do come from lnd, one of them is mistyped"},
	{wallet.ErrAezeedVersion, "install the newest satchel; nothing was changed"},
	{wallet.ErrOpaque, "`satchel export words` shows them; on a node, `lncli wallet accounts list` shows what a watching wallet needs"},
	{wallet.ErrNoWords, "`satchel export xprv` shows the key; keep it as you would keep words"},
	{wallet.ErrPublicKey, "a backup needs the private one, which begins with xprv, or with tprv on a test network"},
	{wallet.ErrNotMaster, "the master key is the one that the whole wallet comes from; the software that made the wallet has it"},
	{wallet.ErrKeyNetwork, "xprv is of mainnet, tprv of testnet, signet and regtest: see --network"},
	{wallet.ErrExtendedKey, "an extended master key begins with xprv, or with tprv on a test network, and has 111 characters"},
	{wallet.ErrPassphraseKind, "leave --passphrase out: whoever has the key has the wallet"},
	{wallet.ErrWords, "12 to 24 words with spaces between them, in the order in which they were written down"},
	{wallet.ErrLabels, "labels are a BIP 329 file: one JSON object per line, as Sparrow and others export them"},
	{wallet.ErrNetwork, "mainnet, testnet, signet or regtest"},
	{satchel.ErrIncomplete, "another place or an older state may hold the rest: `satchel restore --preview` shows them"},
	{seal.ErrForged, "this was not written by a device of yours: restore from another place, or take an older state with --snapshot, and look who can write to the folder"},
	{errNoAgent, "`satchel agent install --now` has the system run one; `satchel agent run` runs it in this window"},
	{errNotOpen, "`satchel agent status` says why; try again when that is mended"},
	{errNoNode, "`satchel lnd connect` takes one in; if a node was being restored and that was cut short, call `satchel lnd restore` again instead"},
	{errLNDBegun, "`satchel lnd restore` goes on with it; nothing is lost"},
	{errRestoring, "nothing was changed; call `satchel lnd restore` again, which goes on and takes the node in"},
	{errNotLNDKeys, "make the node's wallet from its own 24 words first: lncli create, without a channel backup; then call this again with the same flags, and it brings back the channels"},
	{errNoSCB, "`satchel lnd connect` on the machine of the node saves one; is it in another wallet (--wallet), or an older state: `satchel restore --preview`?"},
	{errLNDEnded, "lnd's log says why: most often the channel backup is of another node than the keys. Start lnd, lncli unlock, and call this again: it says which node it is and goes on, or stops"},
	{lnd.ErrHasWallet, "nothing was touched; restore on a machine, or in a directory, where lnd has no wallet yet"},
	{lnd.ErrSeed, "the backup's words are kept as they were typed: are they of an older or newer lnd? lncli create takes them too"},
	{lnd.ErrSeedPassphrase, "it is the passphrase that lncli create asked for beside the 24 words, not the password of lnd's wallet"},
	{lnd.ErrUnfinished, "`satchel lnd open --resume --macaroon-file FILE` finishes it, or undoes it if its backup cannot be protected"},
	{lnd.ErrNoOpening, "there is nothing to finish or undo; `satchel lnd open NODE@HOST:PORT AMOUNT` opens a channel"},
	{lnd.ErrCoins, "`lncli walletbalance` shows them; wait for a confirmation, add coins, or take a smaller amount"},
	{lnd.ErrPeerAway, "give its address too, NODE@HOST:PORT; `lncli listpeers` shows the peers"},
	{lnd.ErrOldLND, "update lnd to 0.19 or newer"},
	{lnd.ErrPublished, "`satchel lnd open --resume` only has to take note of it"},
	{lnd.ErrNotPublished, "its backup is protected; `satchel lnd open --resume` sends it again, --abandon gives it up"},
	{lnd.ErrLost, "has the node's data been restored from an old copy, or set up anew? If it was wiped: `satchel lnd restore`. No backup that knows these channels is overwritten"},
	{lnd.ErrLocked, "lncli unlock; satchel goes on by itself then"},
	{lnd.ErrNoWallet, "`satchel lnd restore` brings a node back from its backup, and wants no wallet there; only for a new node: lncli create"},
	{lnd.ErrStarting, "try again in a moment: after a restart, lnd first reads the chain"},
	{lnd.ErrPermission, bakeHint},
	{lnd.ErrMacaroon, "`satchel lnd connect --macaroon-file FILE` takes another one, such as the admin.macaroon that this lnd has now"},
	{lnd.ErrCertificate, "if lnd made a new one, `satchel lnd connect` takes it in; on another machine, copy its tls.cert here first"},
	{lnd.ErrGRPC, "lnd has two: Satchel needs REST, restlisten in lnd.conf, port 8080 if it is not named; rpclisten, mostly port 10009, is gRPC"},
	{lnd.ErrNotLND, "the address is that of lnd's REST interface: restlisten in lnd.conf, port 8080 if it is not named"},
	{lnd.ErrOtherNode, "nothing was written; one wallet backs up one node"},
	{lnd.ErrNetwork, "nothing was written; --network, --dir or --address name another node"},
	{lnd.ErrBackup, "nothing was changed; is it the backup of another node?"},
	{lnd.ErrNotStarted, "start lnd first: it makes its certificate by itself, and no wallet is needed; then call this again. If its directory is another one: --dir DIR"},
	{lnd.ErrNoREST, "Satchel needs it on this machine only: restlisten=localhost:8080"},
	{lnd.ErrUnreachable, "is lnd running? `lncli state` says; for one at another address: `satchel lnd connect --address HOST:PORT --cert FILE --macaroon-file FILE`, with the port of lnd's REST interface, mostly 8080: 9735 is for other nodes"},
	{satchel.ErrMissing, "if a program syncs this folder, let it finish; then `satchel heal` puts back what this device still has"},
}

var codeHints = map[satchel.Code]string{
	satchel.CodeFailed:       "",
	satchel.CodePartly:       "it is safe on this device; `satchel backup` tries again, `satchel status` shows each place",
	satchel.CodeNoBackup:     "is it another account, another folder, or not synced yet? give the folder with --from, also one from a USB stick or a download",
	satchel.CodeOtherDevice:  "see `satchel status`",
	satchel.CodeWrongSecret:  "there is no limit to tries; any way in that this backup has will do, see `satchel restore --list`",
	satchel.CodeLocked:       "the key servers take no PIN before then, from anybody; another way in has no pause, see `satchel restore --list`",
	satchel.CodeErased:       "too many wrong PINs were tried, so the key servers destroyed what they kept, for good; another way in opens the backup, see `satchel restore --list`; then set a new PIN. If you have none, a device that still has the wallet shows its words: `satchel export words`, and `satchel import` makes a new backup",
	satchel.CodeServerLied:   "a guess that this cost at the others comes back with the next right PIN; take another way in, or try again later; on a device that has the wallet, `satchel guardian replace` takes another server in its place",
	satchel.CodeFewServers:   "is this machine online? try again later; another way in needs no key server",
	satchel.CodeSlotDamaged:  "use another way in, or another place that holds this backup; a device that still has the wallet heals it: `satchel heal`",
	satchel.CodeDamaged:      "another place may hold a whole copy; a device that still has the wallet heals this one: `satchel heal`",
	satchel.CodeOlder:        "let the program that syncs the folder finish, or look in another place; --preview shows what is there",
	satchel.CodeNewer:        "install the newest satchel; nothing was changed",
	satchel.CodeWrongWallet:  "nothing was overwritten; `satchel status` shows the wallets of this device",
	satchel.CodeIncomplete:   "another place or an older state may hold the rest: `satchel restore --preview` shows them",
	satchel.CodeListing:      "this does not mean that there is no backup: look whether the folder can be read, then try again",
	satchel.CodeSignIn:       "`satchel store list` shows where; `satchel store signin PLACE` signs in again",
	satchel.CodeWrongAccount: "nothing was written there; sign in to the account that holds the backup: `satchel store signin PLACE`",
	satchel.CodeFull:         "make room there, then `satchel backup`; what was verified before is still there",
	satchel.CodeUnreachable:  "is this machine online, or the disk or folder connected under the name that it had? then try again",
	satchel.CodeInterrupted:  "",
}

// aloneHints are for a backup whose PIN is its only way in: none of them sends people to
// look for another one.
var aloneHints = []struct {
	err  error
	hint string
}{
	{guard.ErrGone, "this PIN was changed or removed since: take the newest copy of the folder; this copy has no other way in"},
	{guard.ErrSlotDamaged, "no PIN was sent and no guess spent: take another place or an older copy of the folder; a device that still has the wallet heals it: `satchel heal`"},
	{guard.ErrLocked, "the key servers take no PIN before then, from anybody, and this backup has no other way in: wait"},
	{guard.ErrErased, "too many wrong PINs were tried, so the key servers destroyed what they kept, for good, and this backup has no other way in: a device that still has the wallet shows its words, `satchel export words`, and `satchel import` makes a new backup"},
	{guard.ErrLie, "a guess that this cost at the others comes back with the next right PIN; try again later; on a device that has the wallet, `satchel guardian replace` takes another server in its place"},
	{guard.ErrUnreachable, "is this machine online? try again later; this backup has no other way in"},
}

// waysError is an error of a PIN, with the ways in that the backup has besides.
type waysError struct {
	err    error
	others []slot.Kind
}

func (e *waysError) Error() string { return e.err.Error() }
func (e *waysError) Unwrap() error { return e.err }

func besides(err error, others []slot.Kind) error {
	if err == nil {
		return nil
	}
	return &waysError{err, others}
}

// hintFor returns what to do after an error, or "".
func hintFor(err error) string {
	if e, ok := errors.AsType[*usageError](err); ok {
		return e.hint
	}
	if e, ok := errors.AsType[*hintedError](err); ok {
		return e.hint
	}
	w, ok := errors.AsType[*waysError](err)
	hint := certificateHint(err)
	switch {
	case hint != "" && ok && len(w.others) > 0:
		return hint + "; " + wayNames(w.others) + " needs no key server"
	case hint != "":
		return hint
	case !ok:
		return anyHint(err)
	case len(w.others) > 0:
		return strings.Replace(anyHint(err), "another way in", wayNames(w.others), 1)
	}
	if e, ok := errors.AsType[*guard.WrongPINError](err); ok && e.GuessesLeft == 0 {
		err = guard.ErrErased
	}
	for _, h := range aloneHints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	return anyHint(err)
}

// anyHint is what to do after an error, whatever ways in there are.
func anyHint(err error) string {
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
	switch code := satchel.CodeOf(err); code {
	case satchel.CodeUnreachable, satchel.CodeListing, satchel.CodeSignIn:
		if hint := placeFact(err); hint != "" {
			return hint + "; then try again"
		}
		return codeHints[code]
	default:
		return codeHints[code]
	}
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
