package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
)

func (a *app) healCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "heal",
		Short: "Put back what a place lost or damaged",
		Long: `Checks every place, puts back what is missing or damaged from this device or from
another place, and checks again. It needs no secret. The exit code is 0 only if all
is well afterwards.

JSON: objects, bytes, places, findings (as of "satchel check", afterwards), and
healed: place, object, error, code (what was wrong before and is not any more).`,
		Example: `  satchel heal
  satchel heal --json`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly, satchel.CodeOtherDevice,
			satchel.CodeSlotDamaged, satchel.CodeDamaged, satchel.CodeOlder, satchel.CodeIncomplete, satchel.CodeListing, satchel.CodeFull,
			satchel.CodeUnreachable, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			return a.heal(cmd.Context(), b)
		},
	}
}

func (a *app) heal(ctx context.Context, b *satchel.Backup) error {
	before, err := b.Check(ctx)
	if ctx.Err() != nil || len(before.Places) == 0 {
		return err
	}
	after := before
	if err != nil {
		// What it cannot put right the second check says.
		if _, err := b.Sync(ctx); ctx.Err() != nil {
			return err
		}
		after, err = b.Check(ctx)
	}
	a.progress.pause()
	type place struct{ address, object string }
	still := map[place]bool{}
	for _, f := range after.Findings {
		still[place{f.Place, f.Object}] = true
	}
	healed := []satchel.Finding{}
	for _, f := range before.Findings {
		if !still[place{f.Place, f.Object}] && !still[place{f.Place, ""}] {
			healed = append(healed, f)
		}
	}
	if a.json {
		type healJSON struct {
			reportJSON
			Healed []findingJSON `json:"healed"`
		}
		j := healJSON{toReportJSON(after), []findingJSON{}}
		for _, f := range healed {
			j.Healed = append(j.Healed, findingOf(f))
		}
		return errors.Join(err, a.emit(j))
	}
	if len(healed) > 0 {
		a.say("Put right:")
		for _, f := range healed {
			a.sayFinding(f)
		}
		a.say("")
	}
	a.sayFindings(after, "compared with what this device sealed", err)
	return err
}
