package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/wallet"
)

func (a *app) slotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "slot",
		Short: "The ways to open the backup: list, add, remove, test",
		Long: `A backup can have several ways in, each in a slot of its own: a recovery code, a
passphrase, the words of the wallet, or a PIN (see "satchel pin"). Each opens the whole backup alone. Having
two, kept in different places, is good: one may be lost or forgotten.`,
		Example: `  satchel slot list
  satchel slot add passphrase
  satchel slot test`,
		Args:        noSuchCommand,
		Annotations: exits(satchel.CodeDone, satchel.CodeUsage),
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.slotListCommand(), a.slotAddCommand(), a.slotRemoveCommand(), a.slotTestCommand())
	return cmd
}

func (a *app) slotListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the ways in",
		Long: `Lists the ways in, with the id that "slot remove" takes. It asks no place.

JSON, one object a slot: id, kind (recovery-code, passphrase, words, pin).`,
		Example:     `  satchel slot list`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(localExits...),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			for _, s := range b.Slots() {
				a.say("%s  %s", s.ID, wayName(s.Kind))
				if err := a.emit(slotJSON{s.ID, s.Kind}); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (a *app) slotAddCommand() *cobra.Command {
	kinds := []string{wayCode, wayPassphrase, wayGenerated, wayWords}
	cmd := &cobra.Command{
		Use:   "add [" + strings.Join(kinds, "|") + "]",
		Short: "Add a way in",
		Long: `Adds a way to open the backup. First an existing one must be given.

  recovery-code  made here and shown once, to be written down
  passphrase     your own, typed twice; weak ones are refused
  generated      a passphrase of six words, made here and shown once
  words          the words of the wallet, which are on this device; whoever has
                 them written down can then fetch labels and all else as well

JSON: id, kind, and secret: what was made, unless it went to --code-fd.`,
		Example: `  satchel slot add recovery-code
  satchel slot add words
  satchel slot add passphrase --secret-fd 3 --new-secret-fd 4 3<code 4<new`,
		Args:        args(cobra.MaximumNArgs(1)),
		ValidArgs:   kinds,
		Annotations: exits(unlockExits...),
		RunE: func(cmd *cobra.Command, got []string) error {
			return a.slotAdd(cmd.Context(), kinds, got)
		},
	}
	a.secretFlag(cmd, "an existing secret")
	a.newSecretFlag(cmd)
	a.passphraseFlag(cmd)
	a.codeFlag(cmd)
	return cmd
}

func (a *app) slotAdd(ctx context.Context, kinds, got []string) error {
	var kind string
	switch {
	case len(got) == 1 && slices.Contains(kinds, got[0]):
		kind = got[0]
	case len(got) == 1:
		return &usageError{text: "no such way in: " + printable(got[0]), hint: "satchel slot add " + strings.Join(kinds, "|")}
	case a.term == nil:
		return &usageError{text: "the kind of slot is missing", hint: "satchel slot add " + strings.Join(kinds, "|")}
	default:
		n, err := a.term.choose(ctx, "Which way in shall be added?", []string{
			"A recovery code that Satchel makes",
			"A passphrase of your own",
			"A passphrase of six words that Satchel makes",
			"The words of the wallet, for whoever has them written down",
		}, -1)
		if err != nil {
			return err
		}
		kind = kinds[n]
	}
	b, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	if a.term == nil {
		switch {
		case a.secretFD == noFD && a.pinFD == noFD:
			return needFlag("an existing secret", "--secret-fd N")
		case kind == wayPassphrase && a.newSecretFD == noFD:
			return needFlag("the new passphrase", "--new-secret-fd N")
		case kind == wayCode || kind == wayGenerated:
			if err := a.canShow(); err != nil {
				return err
			}
		}
	}
	owner, err := a.unlock(ctx, b, "First the backup is opened with a secret it has already.")
	if err != nil {
		return err
	}
	way, err := a.wayFor(ctx, b, kind)
	if err != nil {
		return err
	}
	if err := a.show(ctx, way, b.Status().KeysDropped); err != nil {
		return err
	}
	info, err := owner.AddSlot(ctx, way.way)
	a.progress.pause()
	if info.ID == "" {
		if a.term != nil && !way.printed.Empty() {
			a.term.print("Nothing was added, so what you wrote down opens nothing.\n")
		}
		return err
	}
	type addedJSON struct {
		slotJSON
		Secret string `json:"secret,omitempty"`
	}
	if a.json {
		if e := a.emit(addedJSON{slotJSON{info.ID, info.Kind}, a.printedJSON(way)}); e != nil {
			return errors.Join(lostResult(a.printedJSON(way), e, "the slot "+info.ID+" was added",
				"remove it: `satchel slot remove "+info.ID+"`"), err)
		}
	}
	a.say("Added: %s, slot %s", wayName(info.Kind), info.ID)
	return err
}

// wayFor makes a way in to a backup that exists.
func (a *app) wayFor(ctx context.Context, b *satchel.Backup, kind string) (newWay, error) {
	if kind != wayWords {
		return a.makeWay(ctx, kind, b.Status().Label)
	}
	keys, err := keysHere(b)
	if err != nil {
		return newWay{}, err
	}
	way, err := keysWay(keys)
	if errors.Is(err, wallet.ErrPassphraseNeeded) {
		p, perr := a.askNeededPassphrase(ctx)
		if perr != nil {
			return newWay{}, perr
		}
		if p.Empty() {
			return newWay{}, err
		}
		if keys, err = keys.WithPassphrase(p); err != nil {
			return newWay{}, err
		}
		way, err = keysWay(keys)
	}
	return newWay{way: way}, err
}

func (a *app) slotRemoveCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Remove a way in",
		Long: `Removes a way in from the backup and its file from every place. ID is from "slot
list"; its beginning is enough. The last way in stays. What a place that was away
still holds goes with the next "satchel backup".

Whoever has a copy of the folder from before, and the secret, can still open that
copy. If you fear so, move the funds to a new wallet: only that helps.

JSON: id, kind, removed (false if a place still holds its file).`,
		Example: `  satchel slot remove 5c09
  satchel slot remove 5c09 --yes --secret-fd 3 3<code`,
		Args:        args(cobra.ExactArgs(1)),
		Annotations: exits(unlockExits...),
		RunE: func(cmd *cobra.Command, got []string) error {
			ctx := cmd.Context()
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			info, err := slotByID(b.Slots(), got[0])
			if err != nil {
				return err
			}
			return a.removeSlot(ctx, b, info, yes)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "remove without asking")
	a.secretFlag(cmd, "an existing secret")
	a.passphraseFlag(cmd)
	return cmd
}

// removeSlot takes a way in out, after asking.
func (a *app) removeSlot(ctx context.Context, b *satchel.Backup, info satchel.SlotInfo, yes bool) error {
	here := func() bool {
		return slices.ContainsFunc(b.Slots(), func(s satchel.SlotInfo) bool { return s.ID == info.ID })
	}
	known := here()
	if known && len(b.Slots()) == 1 {
		return satchel.ErrLastSlot
	}
	if a.term == nil && a.secretFD == noFD && a.pinFD == noFD {
		return needFlag("an existing secret", "--secret-fd N")
	}
	question := fmt.Sprintf("The %s will open the backup no more. It still opens copies of\nthe folder that were made earlier; if somebody has both, only moving the funds helps.\nRemove it?", slotName(info))
	if info.Kind == slot.KindPIN {
		question = "The PIN will open the backup no more, nor copies of the folder that were made\nearlier, once the key servers know. Remove it?"
	}
	if err := a.confirm(ctx, yes, "--yes", question); err != nil {
		return err
	}
	owner, err := a.unlock(ctx, b, "The backup is opened with any secret it has.")
	if err != nil {
		return err
	}
	err = owner.RemoveSlot(ctx, info.ID)
	a.progress.pause()
	if err != nil && (!known || here()) {
		return err
	}
	if e := a.emit(struct {
		slotJSON
		Removed bool `json:"removed"`
	}{slotJSON{info.ID, info.Kind}, err == nil}); e != nil {
		return errors.Join(err, e)
	}
	if err == nil {
		a.say("Removed: %s", slotName(info))
		return nil
	}
	a.say("Taken out of the backup on this device: %s", slotName(info))
	for _, p := range b.Status().Places {
		if p.Health != satchel.HealthProtected {
			a.say("Its file may still be in %s: %s", printable(p.Address), p.Health)
		}
	}
	return &hintedError{err, "`satchel backup` removes it there when the place is back"}
}

// slotName names a slot, of which perhaps only the id is known.
func slotName(s satchel.SlotInfo) string {
	if s.Kind == "" {
		return "slot " + s.ID
	}
	return wayName(s.Kind) + ", slot " + s.ID
}

// isSlotID reports whether this is a whole id of a slot.
func isSlotID(s string) bool {
	return len(s) == 16 && strings.Trim(s, "0123456789abcdef") == ""
}

// slotByID finds a slot by the beginning of its id. A whole id is taken even if
// this device does not have it any more: a place may.
func slotByID(slots []satchel.SlotInfo, id string) (satchel.SlotInfo, error) {
	var match []satchel.SlotInfo
	for _, s := range slots {
		if strings.HasPrefix(s.ID, id) {
			match = append(match, s)
		}
	}
	if len(match) == 0 && isSlotID(id) {
		return satchel.SlotInfo{ID: id}, nil
	}
	if id == "" || len(match) != 1 {
		var ids []string
		for _, s := range slots {
			ids = append(ids, s.ID+" ("+wayName(s.Kind)+")")
		}
		return satchel.SlotInfo{}, &usageError{text: "no slot has this id: " + printable(id), hint: "there is " + strings.Join(ids, ", ")}
	}
	return match[0], nil
}

func (a *app) slotTestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Try a secret and say what it opens",
		Long: `Asks for a secret and says which slot it opens, without changing anything. To try
a whole restore, use "satchel drill".

JSON: id, kind.`,
		Example: `  satchel slot test
  satchel slot test --secret-fd 3 3<code`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeWrongSecret, satchel.CodeLocked, satchel.CodeErased, satchel.CodeFewServers,
			satchel.CodeServerLied, satchel.CodeSlotDamaged,
			satchel.CodeDamaged, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			owner, err := a.unlock(cmd.Context(), b, "Type a recovery code, a passphrase or the words; nothing is changed.")
			if err != nil {
				return err
			}
			a.progress.pause()
			info := owner.Slot()
			a.say("It opens the backup: %s, slot %s", wayName(info.Kind), info.ID)
			return a.emit(slotJSON{info.ID, info.Kind})
		},
	}
	a.secretFlag(cmd, "the secret")
	a.passphraseFlag(cmd)
	return cmd
}
