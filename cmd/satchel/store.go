package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store"
)

const storeJSONHelp = `JSON: generation, protected, copies, places (address, health, generation,
verified, error, code).`

func (a *app) storeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "The places that keep the backup: list, add, remove",
		Long: `A backup can live in several places at once, each whole. A change counts as
protected when as many of them as you say hold it, read back and compared; the
others catch up.`,
		Example: `  satchel store list
  satchel store add /media/usb`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeUsage),
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.storeListCommand(), a.storeAddCommand(), a.storeRemoveCommand(), a.storeSigninCommand(), a.storeSignoutCommand())
	return cmd
}

func (a *app) storeListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the places and how they stand",
		Long: `Lists the places, what each was last seen to hold, and what to do where something
is wrong. It asks no place; "satchel check" does.

` + storeJSONHelp,
		Example: `  satchel store list
  satchel store list --json`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeDamaged),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			return a.sayStores(b)
		},
	}
}

func (a *app) storeAddCommand() *cobra.Command {
	var copies int
	cmd := &cobra.Command{
		Use:   "add PLACE",
		Short: "Keep the backup in one more place",
		Long: `Takes in one more place, and brings it everything that a restore needs, read back
and compared. A folder is made if its parent exists. --copies says how many places
must hold a change before it counts as protected; it stays as it was otherwise. Of
a place that is there already it changes only that number.

The kinds of places, and how their addresses look:

` + placesHelp() + `

Google Drive, Dropbox and OneDrive are signed in to in the browser, with a client id
that you get at the provider and set in SATCHEL_GDRIVE_CLIENT_ID (and _SECRET),
SATCHEL_DROPBOX_CLIENT_ID or SATCHEL_ONEDRIVE_CLIENT_ID. On a machine without a browser
the address is printed: open it on any other one, and paste the address at which
that browser ends. Servers ask for a password, S3 for the secret key.
docs/providers.md shows it step by step, and what each place sees and cannot do.

` + storeJSONHelp,
		Example: `  satchel store add ~/Dropbox
  satchel store add folder:/media/usb --copies 2
  satchel store add gdrive:
  satchel store add dropbox:
  satchel store add onedrive:
  satchel store add webdav+https://ann@example.org/remote.php/dav/files/ann
  satchel store add webdav+https://ann@nas.local/backup --password-fd 3 3<file
  satchel store add s3://KEYID@s3.eu-central-1.amazonaws.com/my-bucket/satchel
  satchel store add rclone:pcloud:Backups
  satchel store add 1password:Private/Backups
  satchel store add keychain:`,
		Args: args(cobra.ExactArgs(1)),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly, satchel.CodeOtherDevice,
			satchel.CodeDamaged, satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeFull, satchel.CodeUnreachable, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, args []string) error {
			added, taken := "", false
			return a.changeStores(cmd, copies, func(places []store.Place) ([]store.Place, error) {
				// Nothing is made in a place that is there already: its drive may be away.
				p, err := a.choosePlace(cmd.Context(), args[0], false)
				if err != nil {
					return nil, err
				}
				added = p.Address
				switch i := slices.IndexFunc(places, func(q store.Place) bool { return samePlace(q.Address, p.Address) }); {
				case i < 0:
					taken = true
					p, err = a.choosePlace(cmd.Context(), p.Address, true)
					return append(places, p), err
				case otherKey(places[i].Address, p.Address):
					taken = true
					p, err = a.choosePlace(cmd.Context(), p.Address, true)
					places = slices.Clone(places)
					places[i] = p
					return places, err
				case copies > 0:
					added = places[i].Address
					return places, nil // Only the number changes.
				default:
					return nil, &usageError{
						text: "the backup is kept in " + printable(places[i].Address) + " already",
						hint: "with --copies N it says how many places must hold a change",
					}
				}
			}, func(s satchel.Status) error {
				if copies == 0 && len(s.Places) > s.Copies {
					a.say("To ask for more: satchel store add PLACE --copies %d", len(s.Places))
				}
				for _, p := range s.Places {
					if p.Address == added && p.Err != nil && !taken {
						return fmt.Errorf("%s was a place already, and does not stand well: %w", printable(added), p.Err)
					}
					if p.Address == added && p.Err != nil {
						return fmt.Errorf("%s was taken in, and does not hold the backup yet: %w", printable(added), p.Err)
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&copies, "copies", 0, "how many places must hold a change (default: as before)")
	a.passwordFlag(cmd)
	return cmd
}

func (a *app) storeRemoveCommand() *cobra.Command {
	var copies int
	cmd := &cobra.Command{
		Use:   "remove PLACE",
		Short: "Keep the backup in one place less",
		Long: `Takes a place out: changes are not brought there any more. What it holds stays and
still opens, and is older with every change. The last place stays.

` + storeJSONHelp,
		Example: `  satchel store remove ~/Dropbox
  satchel store remove folder:/media/usb --copies 1`,
		Args: args(cobra.ExactArgs(1)),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly, satchel.CodeOtherDevice,
			satchel.CodeDamaged, satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeFull, satchel.CodeUnreachable, satchel.CodeInterrupted),
		ValidArgsFunction: a.completePlaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeStores(cmd, copies, func(places []store.Place) ([]store.Place, error) {
				p, err := a.openPlace(args[0], false)
				if err != nil {
					return nil, err
				}
				rest := slices.DeleteFunc(slices.Clone(places), func(q store.Place) bool { return q.Address == p.Address })
				switch {
				case len(rest) == len(places):
					return nil, usagef("the backup is not kept in %s", printable(p.Address))
				case len(rest) == 0:
					return nil, &usageError{text: "the last place stays", hint: "add another one first: satchel store add PLACE"}
				}
				return rest, nil
			}, func(satchel.Status) error { return nil })
		},
	}
	cmd.Flags().IntVar(&copies, "copies", 0, "how many places must hold a change (default: as before, at most all)")
	return cmd
}

// changeStores changes the places of a wallet and says how they stand then. The error
// of then counts if there is no other.
func (a *app) changeStores(cmd *cobra.Command, copies int, change func([]store.Place) ([]store.Place, error), then func(satchel.Status) error) error {
	d, err := a.device()
	if err != nil {
		return err
	}
	cfg, err := a.deviceConfig(d)
	if err != nil {
		return err
	}
	places, err := change(cfg.Places)
	if err != nil {
		return err
	}
	switch {
	case copies == 0:
		copies = min(d.info.Copies, len(places))
	case copies < 1 || copies > len(places):
		return usagef("--copies is from 1 to the number of places, %d", len(places))
	}
	b, err := a.openWhenFree(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	defer b.Close()
	_, err = b.SetPlaces(cmd.Context(), places, copies)
	a.progress.pause()
	if err != nil && !errors.Is(err, satchel.ErrNotProtected) {
		return err
	}
	if e := a.sayStores(b); e != nil {
		return errors.Join(err, e)
	}
	if e := then(b.Status()); err == nil {
		err = e
	}
	return err
}

// completePlaces completes the address of a place that the wallet has.
func (a *app) completePlaces(_ *cobra.Command, got []string, _ string) ([]string, cobra.ShellCompDirective) {
	d, err := a.device()
	if err != nil || len(got) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return d.info.Places, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) sayStores(b *satchel.Backup) error {
	s := b.Status()
	if err := a.emit(struct {
		Generation uint64      `json:"generation"`
		Protected  bool        `json:"protected"`
		Copies     int         `json:"copies"`
		Places     []placeJSON `json:"places"`
	}{s.Generation, s.Protected, s.Copies, placesJSON(s.Places)}); err != nil {
		return err
	}
	a.sayPlaces(s.Places)
	state := "not protected"
	if s.Protected {
		state = "protected"
	}
	a.say("Generation %d is %s: %s must hold a change.", s.Generation, state, count(s.Copies, "place"))
	return nil
}
