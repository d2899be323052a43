package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/wallet"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show whether the wallet is protected",
		Long: `Shows what this device knows of the backup, without asking any place: whether it
is protected and since when, how each place stands and what to do about it, and
the ways in. With several wallets on this device it shows all of them, or the one
that --wallet names. "satchel check" asks the places.

JSON, one object a wallet: id, name, label, folder, network, fingerprint,
created, device, epoch, generation, saved, items, protected, verified, deleted,
copies, places (address, health, generation, verified, error, code), slots (id, kind).`,
		Example: `  satchel status
  satchel status --wallet Samantha
  satchel status --json || mail -s "wallet not protected" me@example.org`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly,
			satchel.CodeDamaged),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context()) },
	}
}

// status shows one wallet or all.
func (a *app) status(ctx context.Context) error {
	devices, err := a.devices()
	if err != nil {
		return err
	}
	if len(devices) <= 1 || a.walletName != "" {
		d, err := a.device()
		if err != nil {
			return err
		}
		devices = []device{d}
	}
	var first error
	for i, d := range devices {
		if i > 0 {
			a.say("")
		}
		b, err := a.openDevice(ctx, d)
		if err != nil {
			if len(devices) == 1 {
				return err
			}
			a.note("%s: %s", d.name, errorText(err))
			if first == nil {
				first = err
			}
			continue
		}
		s := b.Status()
		b.Close()
		if err := a.oneStatus(d, s); err != nil {
			return err
		}
		if (!s.Protected || s.Deleted) && first == nil {
			first = errPartly
		}
	}
	if a.broken != nil && a.walletName == "" && (first == nil || errors.Is(first, errPartly)) {
		return a.broken
	}
	return first
}

// deletedText is what is left of a wallet after "satchel delete".
const deletedText = "The backup was deleted; the wallet is on this device only"

func (a *app) oneStatus(d device, s satchel.Status) error {
	type statusJSON struct {
		ID          string         `json:"id"`
		Name        string         `json:"name"`
		Label       string         `json:"label"`
		Folder      string         `json:"folder"`
		Network     wallet.Network `json:"network"`
		Fingerprint string         `json:"fingerprint"`
		Created     *time.Time     `json:"created"`
		Device      string         `json:"device"`
		Epoch       uint64         `json:"epoch"`
		Generation  uint64         `json:"generation"`
		Saved       *time.Time     `json:"saved"`
		Items       int            `json:"items"`
		Protected   bool           `json:"protected"`
		Verified    *time.Time     `json:"verified"`
		Deleted     bool           `json:"deleted"`
		Copies      int            `json:"copies"`
		Places      []placeJSON    `json:"places"`
		Slots       []slotJSON     `json:"slots"`
	}
	if a.json {
		return a.emit(statusJSON{s.ID, d.name, s.Label, s.Folder, s.Network, s.Fingerprint, stamp(s.Created), s.Device, s.Epoch,
			s.Generation, stamp(s.Saved), s.Items, s.Protected, stamp(s.Verified), s.Deleted, s.Copies, placesJSON(s.Places), slotsJSON(s.Slots)})
	}
	a.say("%s (%s), fingerprint %s", a.bold(printable(s.Label)), s.Network, s.Fingerprint)
	switch {
	case s.Deleted:
		a.say("%s", a.bold(deletedText))
	case s.Protected:
		a.say("Protected: generation %d, verified %s, %s", s.Generation, moment(s.Verified), count(s.Items, "item"))
	default:
		a.say("%s: generation %d of %s is on this device only", a.bold("Not protected"), s.Generation, moment(s.Saved))
		a.say("Last verified: %s", moment(s.Verified))
	}
	a.say("Meant for everyday amounts.")
	a.say("")
	a.say("Places, each with the folder %s:", printable(s.Folder))
	a.sayPlaces(s.Places)
	a.say("")
	a.say("Ways in:")
	for _, w := range s.Slots {
		a.say("  %-14s %s", wayName(w.Kind), w.ID)
	}
	if len(s.Slots) == 1 {
		a.say("  a second one is good to have: satchel slot add")
	}
	return nil
}
