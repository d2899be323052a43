package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/store"
)

func (a *app) healCommand() *cobra.Command {
	var emptied string
	c := &cobra.Command{
		Use:   "heal",
		Short: "Put back what a place lost or damaged",
		Long: `Checks every place, puts back what is missing or damaged from this device or from
another place, and checks again. It needs no secret. The exit code is 0 only if all
is well afterwards.

A folder with nothing in it could be a drive that is not connected, so it is left
alone. If it was really emptied, say so with --emptied.

JSON: objects, bytes, places, findings (as of "satchel check", afterwards), and
healed: place, object, error, code (what was wrong before and is not any more).`,
		Example: `  satchel heal
  satchel heal --emptied ~/Nextcloud
  satchel heal --json`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly, satchel.CodeOtherDevice,
			satchel.CodeSlotDamaged, satchel.CodeDamaged, satchel.CodeOlder, satchel.CodeIncomplete, satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeFull,
			satchel.CodeUnreachable, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			if emptied != "" {
				if err := a.fillAnew(cmd.Context(), b, emptied); err != nil {
					return err
				}
			}
			return a.heal(cmd.Context(), b)
		},
	}
	c.Flags().StringVar(&emptied, "emptied", "", "this `place` is the right one, its drive is connected, and it was emptied: fill it again")
	return c
}

// fillAnew makes an emptied folder, one of the backup's places, ready to be filled again:
// without the user's word it is taken for a drive that is not connected.
func (a *app) fillAnew(ctx context.Context, b *satchel.Backup, emptied string) error {
	p, err := a.openPlace(emptied, false)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(b.Status().Places, func(q satchel.PlaceStatus) bool { return samePlace(p.Address, q.Address) }) {
		return usagef("%s is no place of this backup", printable(p.Address))
	}
	if dir, ok := strings.CutPrefix(p.Address, "folder:"); ok {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("looking into the emptied folder: %w", err)
		}
		if len(entries) > 0 {
			return nil // Nothing keeps it from being healed.
		}
	}
	_, err = a.choosePlace(ctx, p.Address, true)
	return err
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
		if e := a.emit(j); e != nil {
			return errors.Join(err, e)
		}
		return briefly(after, err)
	}
	if len(healed) > 0 {
		a.say("Put right:")
		a.sayHealed(healed, after)
		a.say("")
	}
	a.sayFindings(after, "compared with what this device sealed", err)
	return briefly(after, err)
}

// sayHealed says for each place what was put right there: in one line if it had lost
// everything, otherwise by kind, with a few names.
func (a *app) sayHealed(healed []satchel.Finding, after satchel.Report) {
	type kind struct {
		what string
		errs []error // nil for any
	}
	kinds := []kind{
		{"missing, put back", []error{satchel.ErrMissing}},
		{"damaged, replaced", []error{seal.ErrDamaged, seal.ErrForged, seal.ErrNotOurs, store.ErrDamaged, store.ErrTooLarge}},
		{"late or out of reach, brought there", nil},
	}
	whole := 0 // objects of a place
	if len(after.Findings) == 0 && len(after.Places) > 0 {
		whole = after.Objects / len(after.Places)
	}
	for _, p := range after.Places {
		lists := make([][]string, len(kinds))
		for _, f := range healed {
			if f.Place != p.Address {
				continue
			}
			k := slices.IndexFunc(kinds, func(k kind) bool {
				return k.errs == nil || slices.ContainsFunc(k.errs, func(err error) bool { return errors.Is(f.Err, err) })
			})
			lists[k] = append(lists[k], cmp.Or(printable(f.Object), "all of it"))
		}
		if len(slices.Concat(lists...)) == 0 {
			continue
		}
		a.say("  %s", printable(p.Address))
		for k, names := range lists {
			switch n := len(names); {
			case n == 0:
			case k == 0 && whole > 0 && n >= whole:
				a.say("    the whole folder of the backup was missing, put back (%s)", count(n, "object"))
			default:
				were := "were"
				if n == 1 {
					were = "was"
				}
				a.say("    %s %s %s:", count(n, "object"), were, kinds[k].what)
				for _, name := range names[:min(n, maxNamed)] {
					a.say("      %s", name) // It may be long, and has no spaces.
				}
				if n > maxNamed {
					a.say("      and %d more", n-maxNamed)
				}
			}
		}
	}
}
