package main

import (
	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "version",
		Short:       "Print the version",
		Long:        "Prints the version of this program.\n\nJSON: version.",
		Example:     "  satchel version",
		Args:        args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeUsage),
		RunE: func(*cobra.Command, []string) error {
			a.say("satchel %s", satchel.Version)
			return a.emit(struct {
				Version string `json:"version"`
			}{satchel.Version})
		},
	}
}
