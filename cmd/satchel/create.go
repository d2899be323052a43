package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
)

// newWallet is what create and import are asked for.
type newWallet struct {
	in      string // address of the place
	label   string
	network string
	unlock  string
	beside  bool // go on although the place holds backups

	yours string // what the first card says of the keys; "" for those of create
}

func (n *newWallet) flags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&n.in, "in", "", "the `place` that keeps the backup: a folder, or an address as \"satchel store add\" takes it")
	a.unlockFlag(cmd, &n.unlock)
	f.StringVar(&n.label, "label", "Wallet", "`name` of the wallet, readable in the place")
	f.StringVar(&n.network, "network", "mainnet", "mainnet, testnet, signet or regtest")
	f.BoolVar(&n.beside, "new", false, "go on although the place already holds backups")
	a.passwordFlag(cmd)
}

func (a *app) unlockFlag(cmd *cobra.Command, unlock *string) {
	cmd.Flags().StringVar(unlock, "unlock", "", "how to open it again: `way`, one of pin, recovery-code, passphrase (your own), generated (a passphrase)")
	a.newPIN.flags(a, cmd, allGuardians)
}

const cards = `  %s
%s

  %s
  An encrypted copy goes to a place of your own. If you lose this device,
  you need that place and one secret: a recovery code, a passphrase or a PIN.

  %s
  It is encrypted before it leaves this device; the place cannot read it,
  and neither can we. So we cannot recover it for you either: without your
  secret and without this device it is gone. Meant for everyday amounts.

`

// What the first card says, by where the keys come from.
const (
	keysMade = `  The keys of this wallet are made on this device and belong to you alone.
  You can see them, and take them to any other wallet, whenever you want.`
	keysBrought = `  The keys are the ones that you have already, and belong to you alone.
  You can see them, and take them to any other wallet, whenever you want.`
	keysOfNode = `  The keys are those of your lnd node, which goes on as it is. You can see
  its 24 words whenever you want; no other wallet than lnd takes them.`
)

const newWalletJSON = `JSON: id, label, folder, network, kind (bip39, aezeed, xprv), fingerprint ("" for
aezeed), address (the first to receive; "" for aezeed), protected, verified, places (address, health, generation, verified, error,
code), slots (id, kind), and secret: what was made to open the backup, unless it
went to --code-fd.`

func (a *app) createCommand() *cobra.Command {
	var n newWallet
	var words int
	cmd := &cobra.Command{
		Use:   "create [flags]",
		Short: "Make a wallet and its backup",
		Long: `Makes a new Bitcoin wallet on this device, and an encrypted backup of it in a
place of your own. It asks where, and how you want to open the backup again. A place
is a folder, or an address such as gdrive: or webdav+https://USER@HOST/PATH: "satchel
store add --help" lists them.

If the place already holds backups, restoring one of them is offered first.
The words of the wallet are not shown: "satchel export words" does that whenever
you want to leave for another wallet.

` + newWalletJSON,
		Example: `  satchel create
  satchel create --in ~/Nextcloud --label Samantha
  satchel create --in gdrive:
  satchel create --in /srv/backup --unlock recovery-code --json
  satchel create --in /srv/backup --unlock pin --new-pin-fd 3 3<pin
  satchel create --in /srv/backup --unlock passphrase --new-secret-fd 3 3<file`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly,
			satchel.CodeFewServers, satchel.CodeServerLied, satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeFull, satchel.CodeUnreachable, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.create(cmd, n, func(context.Context) (wallet.Keys, error) {
				network, err := wallet.ParseNetwork(n.network)
				if err != nil {
					return wallet.Keys{}, usageOf(err)
				}
				keys, err := wallet.New(network, words, a.now().UTC().Format(time.DateOnly))
				return keys, usageOf(err)
			})
		},
	}
	n.flags(a, cmd)
	cmd.Flags().IntVar(&words, "words", 12, "how many words the wallet has: `12` or 24")
	a.newSecretFlag(cmd)
	a.codeFlag(cmd)
	return cmd
}

// usageOf makes a usage error of what the SDK says about a flag.
func usageOf(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{text: errorText(err), hint: hintFor(err)}
}

// create is what create and import do; they differ in the keys.
func (a *app) create(cmd *cobra.Command, n newWallet, makeKeys func(context.Context) (wallet.Keys, error)) error {
	ctx := cmd.Context()
	if err := checkWay(n.unlock); err != nil {
		return err
	}
	if _, err := wallet.ParseNetwork(n.network); err != nil {
		return usageOf(err)
	}
	// Scripts learn of everything that is missing before anything is made.
	if a.term == nil {
		if n.in == "" {
			return needFlag("a place", "--in FOLDER")
		}
		if err := a.needWay(n.unlock); err != nil {
			return err
		}
	} else {
		a.term.print(cards, a.term.strong("1  You own it"), cmp.Or(n.yours, keysMade), a.term.strong("2  How you get it back"), a.term.strong("3  How it is protected"))
	}
	place, err := a.askPlace(ctx, n.in)
	if err != nil {
		return err
	}
	if !n.beside {
		restore, err := a.lookFirst(ctx, place)
		if err != nil {
			return err
		}
		if restore {
			return a.restore(cmd, restoreFlags{from: []string{place.Address}}, "")
		}
	}
	keys, err := makeKeys(ctx)
	if err != nil {
		return err
	}
	a.noteSame(keys)
	kind, err := a.askWay(ctx, n.unlock)
	if err != nil {
		return err
	}
	way, err := a.makeWay(ctx, kind, n.label)
	if err != nil {
		return err
	}
	if err := a.show(ctx, way, false); err != nil {
		return err
	}
	status, err := a.createBackup(ctx, place, satchel.Plan{Label: n.label, Keys: keys, Slots: way.slots(), PIN: way.pin})
	if status == nil {
		if a.term != nil && !way.printed.Empty() {
			a.term.print("Nothing was made, so what you wrote down opens nothing.\n")
		}
		return err
	}
	// The wallet exists now, whatever err says.
	if way.pin != nil {
		if keepErr := a.keepGuardians(way.pin.Servers); keepErr != nil {
			err = errors.Join(err, keepErr)
		}
	}
	return a.created(*status, keys, way, err)
}

// noteSame says that a wallet of this device has these keys already. Two backups of one
// wallet are no mistake, but each has its own labels and channels.
func (a *app) noteSame(keys wallet.Keys) {
	devices, err := a.devices()
	if err != nil {
		return // Whoever makes one is told.
	}
	for _, d := range devices {
		if d.info.Network != keys.Network() || d.info.Kind != keys.Kind() || d.info.Fingerprint != keys.Fingerprint() {
			continue
		}
		if keys.Fingerprint() == "" && !a.sameWords(d, keys) {
			continue
		}
		a.note("this device has a wallet with these keys already: %s; another backup of them is made beside it, with labels and channels of its own; to put the one that is there into another place too: satchel store add --wallet %s", a.which(d), d.name)
	}
}

// sameWords reports whether a wallet has these words, as far as that is seen at once.
func (a *app) sameWords(d device, keys wallet.Keys) bool {
	cfg, err := a.deviceConfig(d)
	if err != nil {
		return false
	}
	b, err := satchel.Open(cfg)
	if err != nil {
		return false
	}
	defer b.Close()
	theirs, err := b.Keys()
	if err != nil {
		return false
	}
	return theirs.Aezeed().Equal(keys.Aezeed())
}

// createBackup makes the backup in a directory of a temporary name, since its id
// is not known before, and moves that to its own. A crash in between leaves a
// wallet that works under the temporary name. With a nil Status nothing was made.
func (a *app) createBackup(ctx context.Context, place store.Place, plan satchel.Plan) (*satchel.Status, error) {
	dir, err := a.newWalletDir()
	if err != nil {
		return nil, err
	}
	cfg, err := a.config(dir, []store.Place{place})
	if err != nil {
		return nil, err
	}
	b, err := satchel.Create(ctx, cfg, plan)
	if b == nil && errors.Is(err, satchel.ErrBusy) {
		// It is made, and another satchel looks at it just now.
		if b, err = a.openWhenFree(ctx, cfg); err == nil {
			_, err = b.Sync(ctx)
		}
	}
	a.progress.pause()
	if b == nil {
		return nil, err
	}
	status := b.Status()
	if closeErr := b.Close(); closeErr != nil {
		return &status, errors.Join(err, closeErr)
	}
	return &status, errors.Join(err, a.nameWallet(dir, status))
}

// created tells what was made.
func (a *app) created(s satchel.Status, keys wallet.Keys, way newWay, err error) error {
	address := ""
	if s.Kind != wallet.KindAezeed {
		var addressErr error
		if address, addressErr = firstAddress(keys); addressErr != nil {
			err = errors.Join(err, addressErr)
		}
	}
	type createdJSON struct {
		ID          string         `json:"id"`
		Label       string         `json:"label"`
		Folder      string         `json:"folder"`
		Network     wallet.Network `json:"network"`
		Kind        wallet.Kind    `json:"kind"`
		Fingerprint string         `json:"fingerprint"`
		Address     string         `json:"address"`
		Protected   bool           `json:"protected"`
		Verified    *time.Time     `json:"verified"`
		Places      []placeJSON    `json:"places"`
		Slots       []slotJSON     `json:"slots"`
		Secret      string         `json:"secret,omitempty"`
	}
	if a.json {
		if e := a.emit(createdJSON{s.ID, s.Label, s.Folder, s.Network, s.Kind, s.Fingerprint, address, s.Protected, stamp(s.Verified),
			placesJSON(s.Places), slotsJSON(s.Slots), a.printedJSON(way)}); e != nil {
			return errors.Join(lostResult(a.printedJSON(way), e, "the wallet "+printable(s.Folder)+" was made",
				"`satchel export words` takes the wallet out; to remove it: `satchel forget --anyway`, and delete that folder in the place by hand"), err)
		}
	}
	a.say("")
	a.say("Wallet         %s (%s)", printable(s.Label), s.Network)
	a.sayWhose(s.Kind, s.Fingerprint)
	if address != "" {
		a.say("First address  %s", address)
	}
	for _, p := range s.Places {
		a.say("Backup         %s", printable(p.Address))
		a.say("               %s", printable(s.Folder))
	}
	if s.Protected {
		a.say("Protected      yes, since %s: fetched again and compared", moment(s.Verified))
	} else {
		a.say("Protected      no: the wallet is on this device only")
	}
	if p := way.pin; p != nil && !s.PINPending {
		a.sayHanging("PIN            ", fmt.Sprintf("%d of %s must be there for it, and each allows %s in a row",
			p.Threshold, count(len(p.Servers), "key server"), wrongGuesses(protocol.GuessLimit(p.Threshold, len(p.Servers)))))
	}
	if !a.json && err == nil {
		a.say("")
		next := "`satchel drill` tries a restore without changing anything, and `satchel status` shows whether all is well."
		if s.Kind == wallet.KindAezeed {
			next = "`satchel lnd connect`: the channels of the node are not in the backup yet. Then " + next
		}
		a.say("%s", wrap("Next: "+next))
	}
	return err
}

// lostResult is the error of writing a JSON result that says what was done, and
// that should have handed over a secret, if any.
func lostResult(secret string, err error, done, hint string) error {
	if secret == "" {
		return fmt.Errorf("%s, but writing the result: %w", done, err)
	}
	return &hintedError{fmt.Errorf("%s, but nobody has the secret that opens it: writing the result: %w", done, err), hint}
}

// firstAddress is the first address to receive at.
func firstAddress(keys wallet.Keys) (string, error) {
	account, err := keys.Account(wallet.BIP84, 0)
	if err != nil {
		return "", err
	}
	return account.Address(false, 0)
}

// askPlace opens the place that was given, or asks for one.
func (a *app) askPlace(ctx context.Context, given string) (store.Place, error) {
	if given != "" {
		return a.choosePlace(ctx, given, true)
	}
	folders := a.syncFolders()
	var options []string
	for _, c := range folders {
		kind := c.Name
		if c.Removable {
			kind += " (a drive you plug in)"
		}
		options = append(options, printable(kind)+"\n"+printable(c.Dir))
	}
	options = append(options, "Another folder, or a cloud or server (WebDAV, S3, Google Drive …)")
	for {
		n := len(folders)
		question := "Where shall the encrypted backup be kept?"
		if len(folders) > 0 {
			var err error
			if n, err = a.term.choose(ctx, question, options, 0); err != nil {
				return store.Place{}, err
			}
		} else {
			a.term.print("%s\n\n  No folder of Nextcloud, Dropbox, iCloud, Google Drive, OneDrive or\n  Syncthing was found on this machine. Any folder will do, best one that\n  leaves this machine: a network or USB drive, or one that is synced.\n\n", a.term.strong(question))
		}
		var address string
		if n < len(folders) {
			address = "folder:" + folders[n].Dir
		} else {
			typed, err := a.askAddress(ctx)
			if err != nil {
				return store.Place{}, err
			}
			if typed == "" {
				continue
			}
			address = typed
		}
		place, err := a.choosePlace(ctx, address, true)
		if err == nil {
			a.term.print("\n")
			return place, nil
		}
		a.term.print("%s\n\n", didNotWork(err))
	}
}

// askAddress asks for the address of a place, and says once how they look.
func (a *app) askAddress(ctx context.Context) (string, error) {
	if !a.toldForms {
		a.term.print("%s\n\n", wrap("The path of a folder, or an address: "+strings.Join(forms()[1:], "  ")))
		a.toldForms = true
	}
	typed, err := a.term.line(ctx, "Path or address: ")
	return a.expandHome(typed), err
}

// didNotWork says why a place cannot be had, and what to do.
func didNotWork(err error) string {
	text := wrap("That did not work: " + errorText(err) + ".")
	if hint := hintFor(err); hint != "" {
		text += "\n" + wrap("Next: "+hint+".")
	}
	return text
}

// lookFirst looks for backups in the place before another is put beside them,
// and reports whether the user wants to restore one instead.
func (a *app) lookFirst(ctx context.Context, place store.Place) (restore bool, err error) {
	found, err := satchel.Find(ctx, satchel.Config{Places: []store.Place{place}, Progress: a.progress.update, Now: a.now})
	a.progress.pause()
	if errors.Is(err, satchel.ErrNoBackup) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// Wallets that this device has already are no reason to restore.
	devices, err := a.devices()
	if err != nil {
		return false, err
	}
	var others []satchel.Found
	for _, f := range found {
		if deviceOf(devices, f) == nil {
			others = append(others, f)
		}
	}
	if len(others) == 0 {
		return false, nil
	}
	if a.term == nil {
		return false, &usageError{
			text: fmt.Sprintf("%s in this place already, and this device has none of them", isAre(len(others), "backup")),
			hint: "restore with `satchel restore --from " + place.Address + "`, or give --new to make another one beside them",
		}
	}
	a.term.print("%s here already:\n\n%s\n", isAre(len(others), "backup"), a.foundList(others))
	n, err := a.term.choose(ctx, "What would you like to do?", []string{
		"Restore a wallet from here",
		"Make a new wallet beside (nothing that is there is touched)",
	}, 0)
	a.term.print("\n")
	return n == 0, err
}

func isAre(n int, what string) string {
	if n == 1 {
		return "there is 1 " + what
	}
	return fmt.Sprintf("there are %d %ss", n, what)
}

func checkWay(kind string) error {
	switch kind {
	case "", wayPIN, wayCode, wayPassphrase, wayGenerated:
		return nil
	}
	return &usageError{text: "no such way to unlock: " + printable(kind), hint: "--unlock pin, recovery-code, passphrase or generated"}
}

// needWay returns an error if a script does not give what makes a new way in.
func (a *app) needWay(unlock string) error {
	switch {
	case unlock == "":
		return needFlag("a way to open the backup again", "--unlock recovery-code")
	case unlock == wayPassphrase && a.newSecretFD == noFD:
		return needFlag("the new passphrase", "--new-secret-fd N")
	case unlock == wayPIN && a.newPINFD == noFD:
		return needFlag("the new PIN", "--new-pin-fd N")
	case unlock == wayPIN:
		return a.checkGuardianFlags()
	case unlock != wayPassphrase:
		return a.canShow()
	}
	return nil
}

// askWay asks how the backup shall be opened again.
func (a *app) askWay(ctx context.Context, given string) (string, error) {
	if given != "" {
		return given, nil
	}
	if a.newSecretFD != noFD {
		return wayPassphrase, nil
	}
	if a.newPINFD != noFD {
		return wayPIN, nil
	}
	n, err := a.term.choose(ctx, "How do you want to open it again?", []string{
		"A recovery code that Satchel makes (recommended)\nnine groups of four letters and digits, to write down",
		"A passphrase of your own\nyou type it twice now; weak ones are refused",
		"A passphrase that Satchel makes\nsix words, easy to type",
		"A PIN that key servers guard\n4 to 12 digits; you need the addresses of key servers",
	}, 0)
	if err != nil {
		return "", err
	}
	return []string{wayCode, wayPassphrase, wayGenerated, wayPIN}[n], nil
}
