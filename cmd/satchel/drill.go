package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/wallet"
)

func (a *app) drillCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Try a restore, without changing anything",
		Long: `Restores the backup from every place into memory, with a secret that you type as
if this device were lost, and compares every item, the fingerprint and the first
addresses with this device's. It writes nothing, but on this device that it passed:
"satchel status" says when that was. Do it once after create, and now and then: it also
shows that you still have the secret, which nothing else does. A BIP 39 passphrase that the
backup does not hold is not tried; --passphrase-fd is for the wallet's words as the
secret.

` + reportJSONHelp,
		Example: `  satchel drill
  satchel drill --json --secret-fd 3 3<code
  satchel drill --pin-fd 3 3<pin`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeOtherDevice, satchel.CodeWrongSecret,
			satchel.CodeLocked, satchel.CodeErased, satchel.CodeFewServers, satchel.CodeServerLied, satchel.CodeSlotDamaged, satchel.CodeDamaged, satchel.CodeOlder, satchel.CodeWrongWallet, satchel.CodeIncomplete,
			satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeUnreachable, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			if a.term != nil && a.secretFD == noFD && a.pinFD == noFD {
				a.term.print("A drill: type the secret as if this device were lost. Nothing is changed.\n")
			}
			var r satchel.Report
			pin := pinWay{b.PINSlots, func(ctx context.Context, s satchel.PINSlot, pin, passphrase secret.Bytes) (told []guard.Told, err error) {
				r, told, err = b.DrillPIN(ctx, s, pin, passphrase)
				return told, err
			}}
			_, err = a.openWith(cmd.Context(), slotKinds(b.Slots()), pin, func(way slot.Secret) (err error) {
				r, err = b.Drill(cmd.Context(), way)
				return err
			})
			err = a.sayReport(r, "restored into memory and compared", err)
			if keys, keysErr := b.Keys(); keysErr == nil && keys.PassphraseState() == wallet.NeededPassphrase {
				name := "its BIP 39 passphrase"
				if keys.Kind() == wallet.KindAezeed {
					name = "lnd's cipher seed passphrase"
				}
				a.note("the wallet also needs %s, which the backup does not hold and a drill does not try", name)
			}
			return err
		},
	}
	a.secretFlag(cmd, "the secret")
	a.passphraseFlag(cmd)
	return cmd
}
