package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/wallet"
)

type rekeyFlags struct {
	unlock string
	drop   bool
	yes    bool
}

func (a *app) rekeyCommand() *cobra.Command {
	var f rekeyFlags
	cmd := &cobra.Command{
		Use:   "rekey",
		Short: "Replace the backup by one with new keys",
		Long: `Makes a new backup of the same wallet, with new keys and a new way in, from what
this device has: for when a secret of the backup was seen or lost. It asks for a
secret of the old one, and how you want to open the new one. The new one goes to
all places and is proven by a restore from each; only then the old one is deleted,
with its history. Words, addresses and items stay the same.

Copies that somebody made of the old folder still open with the old secrets. If you
fear that, move the funds to a new wallet: only that helps.

With --drop-keys the words of the wallet are left out of the new backup, and stay on
this device: the cloud then holds nothing that can spend. It needs "satchel words
verify" first.

If it is interrupted, calling it again goes on, with what was asked for then.

JSON: id, label, folder, kind, fingerprint, keys_dropped, protected, verified, places,
slots, objects (deleted of the old one), left, and secret: what was made to open the
backup, unless it went to --code-fd.`,
		Example: `  satchel rekey
  satchel rekey --drop-keys
  satchel rekey --unlock recovery-code --yes --json --secret-fd 3 3<code`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly,
			satchel.CodeOtherDevice, satchel.CodeWrongSecret, satchel.CodeLocked, satchel.CodeErased, satchel.CodeFewServers,
			satchel.CodeServerLied, satchel.CodeSlotDamaged, satchel.CodeDamaged, satchel.CodeIncomplete,
			satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeFull, satchel.CodeUnreachable, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.rekey(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	a.unlockFlag(cmd, &f.unlock)
	fl.BoolVar(&f.drop, "drop-keys", false, "leave the words of the wallet out of the new backup")
	fl.BoolVar(&f.yes, "yes", false, "do it without asking")
	a.secretFlag(cmd, "a secret of the old backup")
	a.newSecretFlag(cmd)
	a.passphraseFlag(cmd)
	a.codeFlag(cmd)
	return cmd
}

// rekeyDevice is the wallet that is meant. Of an unfinished rekey there are two
// directories of the same name: it is the older one that goes on.
func (a *app) rekeyDevice(ctx context.Context) (*satchel.Backup, error) {
	devices, err := a.devices()
	if err != nil {
		return nil, err
	}
	if a.walletName != "" {
		devices = matching(devices, a.walletName)
	}
	for _, d := range devices {
		if len(devices) == 1 {
			break
		}
		b, err := a.openDevice(ctx, d)
		if err != nil {
			continue
		}
		if b.Status().Rekeying != "" {
			return b, nil
		}
		b.Close()
	}
	return a.open(ctx)
}

func (a *app) rekey(ctx context.Context, f rekeyFlags) error {
	if err := checkWay(f.unlock); err != nil {
		return err
	}
	b, err := a.rekeyDevice(ctx)
	if err != nil {
		return err
	}
	defer func() { b.Close() }()
	s := b.Status()
	if f.drop && s.Rekeying != "" {
		if err := a.begunWithout(ctx, s.Rekeying); err != nil {
			return err
		}
	}
	switch {
	case s.Deleted && s.Rekeying == "":
		return satchel.ErrDeleted
	case f.drop && s.KeysDropped:
		return &usageError{text: "the words are out of this backup already", hint: "satchel rekey, without --drop-keys, makes new keys"}
	case f.drop && s.WordsWritten.IsZero():
		return satchel.ErrNotWritten
	case a.term != nil:
	case a.secretFD == noFD && a.pinFD == noFD:
		return needFlag("a secret of the old backup", "--secret-fd N")
	case !f.yes && s.Rekeying == "":
		return needFlag("a confirmation", "--yes")
	default:
		if err := a.needWay(f.unlock); err != nil && s.Rekeying == "" {
			return err
		}
	}
	if s.Rekeying == "" {
		if err := a.reach(ctx, b); err != nil {
			return err
		}
		s = b.Status()
		if err := a.confirmRekey(ctx, s, f); err != nil {
			return err
		}
	}
	from, err := a.walletNamed(s.ID)
	if err != nil {
		return err
	}
	owner, err := a.unlock(ctx, b, "First the old backup is opened, with a secret it has.")
	if err != nil {
		return err
	}
	if s.Rekeying != "" {
		a.note("going on with what was begun")
		nb, done, err := a.newKeys(ctx, owner, from, s.Rekeying, satchel.RekeyPlan{})
		a.progress.pause()
		if nb != nil {
			return a.rekeyed(ctx, from, nb, s.Rekeying, done, newWay{}, err)
		}
		if b.Status().Rekeying != "" {
			return err
		}
		a.note("it had not come far enough, and was put away: it begins anew")
		if a.term == nil {
			if !f.yes {
				return needFlag("a confirmation", "--yes")
			}
			if err := a.needWay(f.unlock); err != nil {
				return err
			}
		} else if err := a.confirmRekey(ctx, s, f); err != nil {
			return err
		}
	}
	kind, err := a.askWay(ctx, f.unlock)
	if err != nil {
		return err
	}
	way, err := a.makeWay(ctx, kind, s.Label)
	if err != nil {
		return err
	}
	if err := a.show(ctx, way, f.drop || s.KeysDropped); err != nil {
		return err
	}
	dir, err := a.newWalletDir()
	if err != nil {
		return err
	}
	nb, done, err := a.newKeys(ctx, owner, from, dir, satchel.RekeyPlan{Slots: way.slots(), PIN: way.pin, DropKeys: f.drop})
	a.progress.pause()
	if nb == nil {
		if a.term != nil && !way.printed.Empty() {
			a.term.print("The old backup is as it was, so what you wrote down opens nothing.\n")
		}
		return err
	}
	return a.rekeyed(ctx, from, nb, dir, done, way, err)
}

// newKeys makes the new backup in dir. What is watched for the old one, from being its name,
// is watched for the new one from the moment that the old one is gone: a process that is
// killed then leaves no wallet that nobody feeds.
func (a *app) newKeys(ctx context.Context, owner *satchel.Owner, from, dir string, p satchel.RekeyPlan) (*satchel.Backup, satchel.Rekeyed, error) {
	if err := a.inheritWatched(ctx, from, filepath.Base(dir)); err != nil {
		return nil, satchel.Rekeyed{}, err
	}
	a.letGo(from)
	nb, done, err := owner.Rekey(ctx, dir, p)
	if nb == nil {
		a.dropWatched(filepath.Base(dir))
	}
	if err != nil {
		a.stays(from)
	}
	return nb, done, err
}

// walletNamed returns the name of the directory of the wallet with an id.
func (a *app) walletNamed(id string) (string, error) {
	devices, err := a.devices()
	for _, d := range devices {
		if d.info.ID == id {
			return d.name, nil
		}
	}
	return "", cmp.Or(err, satchel.ErrNoDevice)
}

// begunWithout returns an error if a new backup that was begun in dir, and that another
// rekey finishes as it is, holds the words of the wallet.
func (a *app) begunWithout(ctx context.Context, dir string) error {
	info, err := satchel.ReadDevice(dir)
	if errors.Is(err, satchel.ErrNoDevice) {
		return nil // It had not come far enough: it begins anew, as is asked for now.
	}
	if err != nil {
		return err
	}
	nb, err := a.openDevice(ctx, device{filepath.Base(dir), dir, info})
	if err != nil {
		return err
	}
	defer nb.Close()
	if nb.Status().KeysDropped {
		return nil
	}
	return &usageError{
		text: "new keys were begun without --drop-keys: the new backup holds the words, and is finished as it was begun",
		hint: "`satchel rekey` finishes it; then `satchel rekey --drop-keys` takes the words out",
	}
}

// confirmRekey says what will be and what will not, and asks.
func (a *app) confirmRekey(ctx context.Context, s satchel.Status, f rekeyFlags) error {
	if f.yes {
		return nil
	}
	a.say("Makes new keys for the backup of %s, %s.", printable(s.Label), whichWallet(s.Kind, s.Fingerprint))
	a.say("")
	a.sayHanging("  stays     ", "the wallet: words, addresses, "+count(s.Items, "item")+", places, limit")
	a.sayHanging("  new       ", "the folder in each place, and the way in that you choose now")
	a.sayHanging("  goes      ", "the old folder, its history, and the old ways in: "+oldWays(s.Slots)+" then")
	if f.drop {
		a.sayHanging("  dropped   ", "the words leave the cloud. They are on this device and on your paper: if both are lost, so is the money")
	}
	a.say("")
	a.say("%s", wrap("Copies that somebody made of the old folder still open with the old secrets. If you fear that, move the funds to a new wallet: only that helps."))
	return a.confirm(ctx, false, "--yes", "Go on?")
}

// oldWays says that what opened the backup so far opens nothing.
func oldWays(slots []satchel.SlotInfo) string {
	var names []string
	for _, s := range slots {
		name := "the OLD " + wayName(s.Kind)
		if s.Kind == slot.KindWords {
			name = wayName(s.Kind) // They stay, and may be made a way in again.
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 1 && slots[0].Kind != slot.KindWords {
		return names[0] + " opens nothing"
	}
	return strings.Join(names, " and ") + " open nothing"
}

// reach brings up what is late, and returns an error if a place cannot be had: before
// anybody writes a code down in vain.
func (a *app) reach(ctx context.Context, b *satchel.Backup) error {
	r, err := b.Sync(ctx)
	a.progress.pause()
	for _, p := range r.Places {
		if p.Err != nil && (err == nil || errors.Is(err, satchel.ErrNotProtected)) {
			return fmt.Errorf("nothing was changed: new keys need every place, and not all can be had: %s: %w", printable(p.Address), p.Err)
		}
	}
	if errors.Is(err, satchel.ErrNotProtected) {
		return nil // Rekey itself says what it lacks.
	}
	return err
}

// rekeyed tells what was made, from being the name of the old wallet. The new backup counts,
// whatever err says.
func (a *app) rekeyed(ctx context.Context, from string, nb *satchel.Backup, dir string, done satchel.Rekeyed, way newWay, err error) error {
	s := nb.Status()
	err = errors.Join(err, nb.Close())
	if err == nil {
		// Only now: while the old one is there it knows this one by its first name.
		var to string
		if to, err = folderName(s.Label, s.ID); err == nil {
			err = a.copyWatched(ctx, from, to)
		}
		if err == nil {
			err = a.nameWallet(dir, s)
		}
		if err == nil {
			a.dropWatched(filepath.Base(dir))
			err = a.moveWatched(ctx, from, to)
		}
	} else {
		err = &hintedError{fmt.Errorf("the new backup is made and counts; the old one is still there: %w", err), "`satchel rekey` finishes it"}
	}
	type rekeyedJSON struct {
		ID          string      `json:"id"`
		Label       string      `json:"label"`
		Folder      string      `json:"folder"`
		Kind        wallet.Kind `json:"kind"`
		Fingerprint string      `json:"fingerprint"`
		KeysDropped bool        `json:"keys_dropped"`
		Protected   bool        `json:"protected"`
		Verified    *time.Time  `json:"verified"`
		Places      []placeJSON `json:"places"`
		Slots       []slotJSON  `json:"slots"`
		Objects     int         `json:"objects"`
		Left        []string    `json:"left"`
		Secret      string      `json:"secret,omitempty"`
	}
	if a.json {
		if e := a.emit(rekeyedJSON{s.ID, s.Label, s.Folder, s.Kind, s.Fingerprint, s.KeysDropped, s.Protected, stamp(s.Verified), placesJSON(s.Places),
			slotsJSON(s.Slots), done.Objects, append([]string{}, done.Left...), a.printedJSON(way)}); e != nil {
			return errors.Join(lostResult(a.printedJSON(way), e, "the backup "+printable(s.Folder)+" was made",
				"the wallet is on this device: `satchel export words` takes it out"), err)
		}
	}
	a.say("")
	a.say("Wallet         %s (%s)", printable(s.Label), s.Network)
	a.sayWhose(s.Kind, s.Fingerprint)
	for _, p := range s.Places {
		a.say("New backup     %s", printable(p.Address))
		a.say("               %s", printable(s.Folder))
	}
	a.say("Opens with     %s", wayNames(slotKinds(s.Slots)))
	if s.KeysDropped {
		a.say("Words          not in it: on this device, and where you wrote them down")
	}
	if s.Protected {
		a.sayHanging("Protected      ", "yes, since "+moment(s.Verified)+": restored from each place and compared")
	}
	if err == nil {
		a.sayHanging("Old backup     ", fmt.Sprintf("deleted: %s; one that says that it ended stays in its folder, for devices that were away", count(done.Objects, "file")))
	}
	if len(done.Left) > 0 {
		a.say("Left, because it is not known to belong to the old backup:")
		for _, l := range done.Left {
			a.say("  %s", printable(l))
		}
	}
	return err
}
