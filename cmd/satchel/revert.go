package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
)

func (a *app) revertCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "revert GENERATION|SNAPSHOT",
		Short: "Bring an earlier state back, as a new one",
		Long: `Makes the items what they were in an earlier state, as a new generation. What there
is now stays in the history: a revert can be reverted. The state is named as for
"history show". It asks for a secret, shows what would change, and asks before it
does.

The keys and descriptors of the wallet never change, and what is below lightning/
is never put back: old channel state costs money. Files on disk stay as they are, and
"satchel watch" would save them again, at their next change or when it starts: put
them back yourself ("satchel get --into"), or watch them no more.

JSON: restored, removed, kept (names of items), generation, changed, protected,
places.`,
		Example: `  satchel revert 12
  satchel revert 12 --yes --json --secret-fd 3 3<code`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeMoments,
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly,
			satchel.CodeOtherDevice, satchel.CodeWrongSecret, satchel.CodeLocked, satchel.CodeErased, satchel.CodeFewServers,
			satchel.CodeServerLied, satchel.CodeSlotDamaged, satchel.CodeDamaged, satchel.CodeIncomplete,
			satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeFull, satchel.CodeUnreachable, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, got []string) error {
			return a.revert(cmd.Context(), got[0], yes)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "bring it back without asking")
	a.secretFlag(cmd, "a secret of the backup")
	a.passphraseFlag(cmd)
	return cmd
}

func (a *app) revert(ctx context.Context, text string, yes bool) error {
	if a.term == nil {
		switch {
		case a.secretFD == noFD && a.pinFD == noFD:
			return needFlag("a secret of the backup", "--secret-fd N")
		case !yes:
			return needFlag("a confirmation", "--yes")
		}
	}
	b, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	m, moments, err := a.momentOf(ctx, b, text)
	if err != nil {
		return err
	}
	if err := stopped(b.Status(), moments); err != nil {
		return err
	}
	owner, err := a.unlock(ctx, b, "To bring an earlier state back, open the backup first.")
	if err != nil {
		return err
	}
	plan, err := owner.Difference(ctx, m.Snapshot)
	a.progress.pause()
	if err != nil {
		return err
	}
	if len(plan.Restored)+len(plan.Removed) > 0 {
		a.say("Back to generation %d of %s device, in a place since %s:", m.Generation, whose(m, b.Status()), known(m.Modified))
		a.sayNames("  brought back: ", plan.Restored)
		a.sayNames("  removed:      ", plan.Removed)
		a.sayNames("  stays:        ", plan.Kept)
		if slices.ContainsFunc(slices.Concat(plan.Restored, plan.Removed), func(name string) bool { return strings.HasPrefix(name, filesPrefix) }) {
			a.sayHanging("  on disk:      ", "files stay as they are, and `satchel watch` would save them again: it is for you to put them back, see `satchel get --into`")
		}
		if err := a.confirm(ctx, yes, "--yes", "What there is now stays in the history. Go on?"); err != nil {
			return err
		}
	} else {
		a.say("Nothing differs from generation %d that could be brought back.", m.Generation)
		a.sayNames("  stays: ", plan.Kept)
	}
	r, err := owner.Revert(ctx, m.Snapshot)
	a.progress.pause()
	if err != nil && !errors.Is(err, satchel.ErrNotProtected) {
		return err
	}
	type revertJSON struct {
		Restored   []string    `json:"restored"`
		Removed    []string    `json:"removed"`
		Kept       []string    `json:"kept"`
		Generation uint64      `json:"generation"`
		Changed    int         `json:"changed"`
		Protected  bool        `json:"protected"`
		Places     []placeJSON `json:"places"`
	}
	if a.json {
		return errors.Join(err, a.emit(revertJSON{append([]string{}, r.Restored...), append([]string{}, r.Removed...), append([]string{}, r.Kept...),
			r.Generation, r.Changed, r.Protected, placesJSON(r.Places)}))
	}
	return a.saved(b, r.Result, err)
}

func whose(m satchel.Moment, s satchel.Status) string {
	if m.Device == s.Device {
		return "this"
	}
	return "another"
}
