package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
)

func (a *app) deleteCommand() *cobra.Command {
	var yes string
	cmd := &cobra.Command{
		Use:   "delete",
		Short: "Delete the backup everywhere",
		Long: `Deletes the backup of the wallet from every place: each file of it that this
device made or that opens with its key, and nothing else. It asks for a secret of
the backup, and for the name of the wallet. The wallet stays on this device until
"satchel forget".

Copies that somebody made of the folder before still open. If you fear so, move
the funds to a new wallet: only that helps.

JSON: id, label, objects (deleted), left (addresses and names that were left).`,
		Example: `  satchel delete
  satchel delete --yes-delete-everything Samantha --secret-fd 3 3<code`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly, satchel.CodeOtherDevice,
			satchel.CodeWrongSecret, satchel.CodeLocked, satchel.CodeErased, satchel.CodeFewServers,
			satchel.CodeServerLied, satchel.CodeSlotDamaged, satchel.CodeDamaged, satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount,
			satchel.CodeUnreachable, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			s := b.Status()
			if a.term == nil {
				switch {
				case a.secretFD == noFD && a.pinFD == noFD:
					return needFlag("a secret of the backup", "--secret-fd N")
				case yes == "":
					return needFlag("a confirmation", "--yes-delete-everything LABEL")
				}
			}
			if yes != "" && yes != s.Label {
				return a.confirmLabel(ctx, yes, "--yes-delete-everything", s.Label)
			}
			a.say("Deletes the backup %s, %s, from:", printable(s.Folder), whichWallet(s.Kind, s.Fingerprint))
			for _, p := range s.Places {
				a.say("  %s", printable(p.Address))
			}
			a.say("After that this device alone holds the wallet: if it is lost, the money is")
			a.say("lost, unless you have the words (satchel export words).")
			if !a.json {
				a.say("")
			}
			owner, err := a.unlock(ctx, b, "To delete it, open it first.")
			if err != nil {
				return err
			}
			if err := a.confirmLabel(ctx, yes, "--yes-delete-everything", s.Label); err != nil {
				return err
			}
			deleted, err := owner.Delete(ctx)
			a.progress.pause()
			if err != nil && deleted.Objects == 0 && len(deleted.Left) == 0 {
				return err
			}
			if e := a.emit(struct {
				ID      string   `json:"id"`
				Label   string   `json:"label"`
				Objects int      `json:"objects"`
				Left    []string `json:"left"`
			}{s.ID, s.Label, deleted.Objects, append([]string{}, deleted.Left...)}); e != nil {
				return errors.Join(err, e)
			}
			a.say("Deleted %s.", count(deleted.Objects, "file"))
			if len(deleted.Left) > 0 {
				a.say("Left, because it is not known to belong to this backup:")
				for _, l := range deleted.Left {
					a.say("  %s", printable(l))
				}
			}
			a.say("The wallet is still on this device; `satchel forget --anyway` removes it.")
			return err
		},
	}
	cmd.Flags().StringVar(&yes, "yes-delete-everything", "", "delete the backup of the wallet of this `name` without asking")
	a.secretFlag(cmd, "a secret of the backup")
	a.passphraseFlag(cmd)
	return cmd
}
