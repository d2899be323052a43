package main

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
)

// defaultKeep is how many checkpoints stay: with the deltas between them some
// hundred states.
const defaultKeep = 8

type pruneFlags struct {
	keep     int
	all      bool
	branches bool
	yes      bool
}

func (a *app) pruneCommand() *cobra.Command {
	var f pruneFlags
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Delete old states that are not needed any more",
		Long: `Deletes from the places what only old states need, and keeps the newest
checkpoints (lists of everything, made now and then) with all that came after the
oldest of them. It needs no secret: it deletes only what this device's own record
proves to be its own and not needed. A place is pruned only if it holds the newest
state whole. While two devices have written side by side nothing is pruned.

With --all, which asks for a secret, it also deletes old states of earlier devices
and what an interrupted command left. With --all --branches it also deletes what
other devices wrote on their own, beside the history of the newest state; it shows
that and asks first. A channel backup of a node that only is there becomes an item of
this history before, below lightning/.

JSON: objects and bytes (deleted), kept (checkpoints), left (addresses and names of
what was not proven to belong to this backup).`,
		Example: `  satchel prune
  satchel prune --keep 2
  satchel prune --all --secret-fd 3 3<code`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly,
			satchel.CodeOtherDevice, satchel.CodeWrongSecret, satchel.CodeLocked, satchel.CodeErased, satchel.CodeFewServers,
			satchel.CodeServerLied, satchel.CodeSlotDamaged, satchel.CodeDamaged, satchel.CodeOlder,
			satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeFull, satchel.CodeUnreachable, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.prune(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.IntVar(&f.keep, "keep", defaultKeep, "how `many` checkpoints stay")
	fl.BoolVar(&f.all, "all", false, "also what earlier devices left; asks for a secret")
	fl.BoolVar(&f.branches, "branches", false, "with --all: also what other devices wrote on their own")
	fl.BoolVar(&f.yes, "yes", false, "delete branches without asking")
	a.secretFlag(cmd, "a secret of the backup, for --all,")
	a.passphraseFlag(cmd)
	return cmd
}

func (a *app) prune(ctx context.Context, f pruneFlags) error {
	switch {
	case f.keep < 1:
		return usagef("--keep is 1 or more")
	case f.branches && !f.all:
		return &usageError{text: "--branches needs --all", hint: "satchel prune --all --branches"}
	case f.all && a.term == nil && a.secretFD == noFD && a.pinFD == noFD:
		return needFlag("a secret of the backup", "--secret-fd N")
	}
	b, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	var done satchel.Pruned
	if f.all {
		moments, err := b.History(ctx)
		a.progress.pause()
		if ctx.Err() != nil {
			return err
		}
		if err := stopped(b.Status(), moments); err != nil {
			return err
		}
		if f.branches {
			if err != nil {
				return err
			}
			if err := a.confirmBranches(ctx, moments, b.Status(), f.yes); err != nil {
				return err
			}
		}
		owner, err := a.unlock(ctx, b, "To delete what other devices left, open the backup first.")
		if err != nil {
			return err
		}
		done, err = owner.Prune(ctx, satchel.PruneOptions{Keep: f.keep, Branches: f.branches})
		return a.pruned(done, err)
	}
	done, err = b.Prune(ctx, f.keep)
	return a.pruned(done, err)
}

// confirmBranches shows the branches, which nothing brings back once they are deleted.
func (a *app) confirmBranches(ctx context.Context, moments []satchel.Moment, s satchel.Status, yes bool) error {
	branches := slices.DeleteFunc(moments, func(m satchel.Moment) bool { return !m.Branch })
	if len(branches) == 0 {
		return nil
	}
	a.say("These are in no history of the newest state, and go for good:")
	a.say("")
	a.sayMoments(branches, s)
	a.say("")
	return a.confirm(ctx, yes, "--yes", "What another device saved in them, and is not elsewhere, is lost.\nDelete them?")
}

func (a *app) pruned(done satchel.Pruned, err error) error {
	a.progress.pause()
	if errors.Is(err, satchel.ErrForked) {
		err = &hintedError{err, "`satchel history` shows the branch; `satchel prune --all --branches` deletes it, once nothing of it is needed"}
	}
	if err != nil && done.Objects == 0 && len(done.Left) == 0 {
		return err
	}
	type prunedJSON struct {
		Objects int      `json:"objects"`
		Bytes   int64    `json:"bytes"`
		Kept    int      `json:"kept"`
		Left    []string `json:"left"`
	}
	if e := a.emit(prunedJSON{done.Objects, done.Bytes, done.Kept, append([]string{}, done.Left...)}); e != nil {
		return e
	}
	if done.Objects == 0 {
		a.say("Nothing to delete. Kept: %s, and what came after.", count(done.Kept, "checkpoint"))
	} else {
		a.say("Deleted %s (%s). Kept: %s, and what came after.", count(done.Objects, "file"), size(done.Bytes), count(done.Kept, "checkpoint"))
	}
	if len(done.Left) > 0 {
		a.say("Left, because it is not known to belong to this backup:")
		for _, l := range done.Left {
			a.say("  %s", printable(l))
		}
	}
	return err
}
