package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
)

func (a *app) compactCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "compact",
		Short: "Put small values together, so that a restore is quick",
		Long: `Moves the small values that many old states carry into few files, so that a restore
fetches less and the old states can be pruned. It happens by itself now and then;
this does it now. It needs no secret.

JSON: values (moved), packs (files made), generation, changed, protected, places.`,
		Example: `  satchel compact
  satchel compact && satchel prune`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(saveExits...),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			c, err := b.Compact(cmd.Context())
			a.progress.pause()
			if err != nil && !errors.Is(err, satchel.ErrNotProtected) {
				return err
			}
			type compactJSON struct {
				Values     int         `json:"values"`
				Packs      int         `json:"packs"`
				Generation uint64      `json:"generation"`
				Changed    int         `json:"changed"`
				Protected  bool        `json:"protected"`
				Places     []placeJSON `json:"places"`
			}
			if a.json {
				return errors.Join(err, a.emit(compactJSON{c.Values, c.Packs, c.Generation, c.Changed, c.Protected, placesJSON(c.Places)}))
			}
			if c.Values > 0 {
				a.say("Moved %s into %s.", count(c.Values, "value"), count(c.Packs, "file"))
			}
			return a.saved(b, c.Result, err)
		},
	}
}
