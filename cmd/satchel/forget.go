package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
)

func (a *app) forgetCommand() *cobra.Command {
	var yes string
	var anyway bool
	cmd := &cobra.Command{
		Use:   "forget",
		Short: "Remove the wallet from this device only",
		Long: `Removes the wallet from this device, with its key. The backup stays in every
place, untouched, and "satchel restore" brings the wallet back with a recovery
code, a passphrase or the words.

It refuses while something is on this device only; "satchel backup" sends that.
With --anyway it goes on, and what was not sent is lost. It also refuses to go on
without the name of the wallet, which is asked for.

JSON: id, label, folder, forgotten, places (the addresses that keep the backup).`,
		Example: `  satchel forget
  satchel forget --wallet Samantha --yes-forget Samantha`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly, satchel.CodeDamaged,
			satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			d, err := a.device()
			if err != nil {
				return err
			}
			b, err := a.openDevice(ctx, d)
			if err != nil {
				if anyway && !errors.Is(err, satchel.ErrBusy) {
					return a.forgetBroken(cmd, d, yes, err)
				}
				return err
			}
			defer b.Close()
			s := b.Status()
			if s.Deleted && !anyway {
				return &hintedError{
					fmt.Errorf("%w; the wallet is on this device only: %w", satchel.ErrDeleted, satchel.ErrNotProtected),
					"`satchel export words` first; then `satchel forget --anyway`: without the words the money is lost",
				}
			}
			if !s.Protected && !anyway {
				return &hintedError{
					satchel.ErrNotProtected,
					"`satchel backup` first; or `satchel forget --anyway`, and what is on this device only is lost",
				}
			}
			if !a.json {
				a.say("Removes %s, fingerprint %s, from this device.", printable(s.Label), s.Fingerprint)
				if s.Deleted {
					a.say("%s.", deletedText)
					a.say("Without its words (satchel export words) the money is lost.")
				} else {
					a.say("The backup %s stays in:", printable(s.Folder))
					for _, p := range s.Places {
						a.say("  %s", printable(p.Address))
					}
					a.say("It opens with %s. To come back: satchel restore", wayNames(slotKinds(s.Slots)))
				}
				if !s.Protected && !s.Deleted {
					a.say("What was not sent to a place is lost: generation %d of %s.", s.Generation, moment(s.Saved))
				}
			}
			if err := a.confirmLabel(ctx, yes, "--yes-forget", s.Label); err != nil {
				return err
			}
			if err := b.Forget(); err != nil {
				return err
			}
			a.say("Forgotten on this device.")
			places := []string{}
			if !s.Deleted {
				for _, p := range s.Places {
					places = append(places, p.Address)
				}
			}
			return a.emit(forgottenJSON{s.ID, s.Label, s.Folder, true, places})
		},
	}
	cmd.Flags().StringVar(&yes, "yes-forget", "", "forget the wallet of this `name` without asking")
	cmd.Flags().BoolVar(&anyway, "anyway", false, "even if something is on this device only; a wallet that cannot\nbe opened here is moved aside, and nothing of it deleted")
	return cmd
}

type forgottenJSON struct {
	ID        string   `json:"id"`
	Label     string   `json:"label"`
	Folder    string   `json:"folder"`
	Forgotten bool     `json:"forgotten"`
	Places    []string `json:"places"`
}

// forgetBroken moves a wallet aside that cannot be opened on this device.
func (a *app) forgetBroken(cmd *cobra.Command, d device, yes string, reason error) error {
	a.note("%s cannot be opened here: %s", d.name, errorText(reason))
	if err := a.confirmLabel(cmd.Context(), yes, "--yes-forget", d.info.Label); err != nil {
		return err
	}
	to, err := a.setAside(d)
	if err != nil {
		return err
	}
	a.note("it is now in %s; the backup stays where it is", to)
	return a.emit(forgottenJSON{d.info.ID, d.info.Label, d.info.Folder, true, d.info.Places})
}
