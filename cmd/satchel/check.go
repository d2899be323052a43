package main

import (
	"fmt"

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
lost or damaged is listed, and "satchel heal" then puts it back.

` + reportJSONHelp,
		Example: `  satchel check
  satchel check || satchel heal`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly, satchel.CodeOtherDevice,
			satchel.CodeSlotDamaged, satchel.CodeDamaged, satchel.CodeOlder, satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeUnreachable, satchel.CodeInterrupted),
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

type reportJSON struct {
	Objects  int           `json:"objects"`
	Bytes    int64         `json:"bytes"`
	Places   []placeJSON   `json:"places"`
	Findings []findingJSON `json:"findings"`
}

func toReportJSON(r satchel.Report) reportJSON {
	j := reportJSON{r.Objects, r.Bytes, placesJSON(r.Places), []findingJSON{}}
	for _, f := range r.Findings {
		j.Findings = append(j.Findings, findingOf(f))
	}
	return j
}

// sayReport prints the outcome of a check or a drill.
func (a *app) sayReport(r satchel.Report, how string, err error) error {
	a.progress.pause()
	if err != nil && len(r.Places) == 0 {
		return err
	}
	if e := a.emit(toReportJSON(r)); e != nil {
		return e
	}
	a.sayFindings(r, how, err)
	return briefly(r, err)
}

// foundError is the findings that were told already, in short.
type foundError struct {
	err  error
	text string
}

func (e *foundError) Error() string { return e.text }
func (e *foundError) Unwrap() error { return e.err }

// briefly returns the error of a check or a drill whose findings were told, so that its
// text does not tell them all again.
func briefly(r satchel.Report, err error) error {
	if err == nil || len(r.Findings) < 2 {
		return err
	}
	f := r.Findings[0]
	where := f.Place
	switch {
	case f.Place == "":
		where = "item " + f.Object
	case f.Object != "":
		where += ": " + f.Object
	}
	return &foundError{err, fmt.Sprintf("%s, see above; the first: %s: %v", count(len(r.Findings), "finding"), where, f.Err)}
}

// sayFindings is sayReport for a person.
func (a *app) sayFindings(r satchel.Report, how string, err error) {
	a.say("%s (%s) %s", count(r.Objects, "object"), size(r.Bytes), how)
	a.say("")
	a.sayPlaces(r.Places)
	a.say("")
	if len(r.Findings) == 0 && err == nil {
		a.say("All is well.")
	}
	if len(r.Findings) == 0 {
		return
	}
	a.say("%s:", count(len(r.Findings), "finding"))
	for _, f := range r.Findings {
		a.sayFinding(f)
	}
}

func (a *app) sayFinding(f satchel.Finding) {
	where := printable(f.Place)
	if where == "" {
		where = printable(f.Object)
	}
	a.say("  %s", where)
	if f.Object != "" && f.Place != "" {
		a.say("    %s", printable(f.Object))
	}
	a.sayHanging("    ", errorText(f.Err))
}
