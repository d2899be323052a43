package main

import (
	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
)

const reportJSONHelp = `JSON: objects, bytes, places (address, health, generation, verified, error,
code), findings (place, object, error, code).`

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Prove that every place could restore",
		Long: `Fetches every object of the newest state from every place and compares it with
what this device sealed. It opens nothing and needs no secret. What a place has
lost or damaged is listed, and "satchel backup" then puts it back.

` + reportJSONHelp,
		Example: `  satchel check
  satchel check --json || satchel backup`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly, satchel.CodeOtherDevice,
			satchel.CodeSlotDamaged, satchel.CodeDamaged, satchel.CodeOlder, satchel.CodeListing, satchel.CodeUnreachable, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			r, err := b.Check(cmd.Context())
			return a.sayReport(r, "compared with what this device sealed", err)
		},
	}
}

type findingJSON struct {
	Place  string `json:"place"`
	Object string `json:"object"`
	Error  string `json:"error"`
	Code   int    `json:"code"`
}

func findingOf(f satchel.Finding) findingJSON {
	return findingJSON{f.Place, f.Object, errorText(f.Err), int(codeOf(f.Err))}
}

// sayReport prints the outcome of a check or a drill.
func (a *app) sayReport(r satchel.Report, how string, err error) error {
	a.progress.pause()
	if err != nil && len(r.Places) == 0 {
		return err
	}
	type reportJSON struct {
		Objects  int           `json:"objects"`
		Bytes    int64         `json:"bytes"`
		Places   []placeJSON   `json:"places"`
		Findings []findingJSON `json:"findings"`
	}
	j := reportJSON{r.Objects, r.Bytes, placesJSON(r.Places), []findingJSON{}}
	for _, f := range r.Findings {
		j.Findings = append(j.Findings, findingOf(f))
	}
	if e := a.emit(j); e != nil {
		return e
	}
	a.say("%s (%s) %s", count(r.Objects, "object"), size(r.Bytes), how)
	a.sayPlaces(r.Places)
	if len(r.Findings) == 0 {
		if err == nil {
			a.say("All is well.")
		}
		return err
	}
	a.say("")
	a.say("%s:", count(len(r.Findings), "finding"))
	for _, f := range r.Findings {
		a.say("  %s: %s", printable(f.Place), errorText(f.Err))
		if f.Object != "" {
			a.say("    %s", printable(f.Object))
		}
	}
	return err
}
