package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
)

const holdingHelp = "compare this `amount`, which the wallet holds, with the limit"

func (a *app) limitCommand() *cobra.Command {
	var holding string
	cmd := &cobra.Command{
		Use:   "limit [AMOUNT|off]",
		Short: "The amount above which to keep bitcoin more safely",
		Long: `A backup of this kind is meant for everyday amounts. Shows the limit that you set
for this wallet, or sets it: an amount in satoshi, 500000 or 500000sat, or in
bitcoin, 0.005btc; off takes it away. It is part of the backup, and shown by
"satchel status".

Satchel does not look at the chain. With --holding you say what the wallet holds;
if that is above the limit, the next step to more safety is shown, and the exit
code is 3.

JSON: limit (satoshi, 0 if none), next, next_command, and with --holding also
holding and above. When it is set, also generation, changed, protected, places.`,
		Example: `  satchel limit
  satchel limit 0.005btc
  satchel limit --holding 750000sat || echo "time for the next step"
  satchel limit off`,
		Args: args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"off"}, cobra.ShellCompDirectiveNoFileComp
		},
		Annotations: exits(saveExits...),
		RunE: func(cmd *cobra.Command, got []string) error {
			var limit int64
			var err error
			if len(got) > 0 && got[0] != "off" {
				if limit, err = parseAmount(got[0]); err != nil {
					return err
				}
				if limit == 0 {
					return &usageError{text: "a limit of nothing", hint: "satchel limit off takes the limit away"}
				}
			}
			held, err := parseHolding(holding)
			if err != nil {
				return err
			}
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			var set *satchel.Result
			if len(got) > 0 {
				r, saveErr := b.SetLimit(cmd.Context(), limit)
				a.progress.pause()
				if saveErr != nil && !errors.Is(saveErr, satchel.ErrNotProtected) {
					return saveErr
				}
				set, err = &r, saveErr
			}
			return errors.Join(err, a.sayLimit(b.Status(), held, set))
		},
	}
	cmd.Flags().StringVar(&holding, "holding", "", holdingHelp)
	return cmd
}

// parseHolding reads --holding: nil if it was not given.
func parseHolding(text string) (*int64, error) {
	if text == "" {
		return nil, nil
	}
	n, err := parseAmount(text)
	return &n, err
}

// sayLimit prints the limit and what was compared with it. The error is errPartly if
// that is above.
func (a *app) sayLimit(s satchel.Status, held *int64, set *satchel.Result) error {
	type setJSON struct {
		Generation uint64      `json:"generation"`
		Changed    int         `json:"changed"`
		Protected  bool        `json:"protected"`
		Places     []placeJSON `json:"places"`
	}
	type limitJSON struct {
		Limit int64 `json:"limit"`
		nextJSON
		*holdingJSON
		*setJSON
	}
	j := limitJSON{Limit: s.Limit, nextJSON: toNextJSON(s.Next), holdingJSON: toHoldingJSON(held, above(s, held))}
	if set != nil {
		j.setJSON = &setJSON{set.Generation, set.Changed, set.Protected, placesJSON(set.Places)}
	}
	if err := a.emit(j); err != nil {
		return err
	}
	if set != nil && set.Protected {
		a.say("Saved, generation %d: protected", set.Generation)
	} else if set != nil {
		a.say("Saved, generation %d: %s, not protected yet", set.Generation, notProtected(set.Generation, set.Places, s.Copies))
	}
	a.say("%s", limitText(s, held))
	if s.Limit > 0 || held != nil {
		a.sayNext(s.Next)
	}
	if above(s, held) {
		return errPartly
	}
	return nil
}

// limitText is a sentence on the limit.
func limitText(s satchel.Status, held *int64) string {
	switch {
	case s.Limit == 0:
		return "No limit is set: `satchel limit AMOUNT` sets one."
	case above(s, held):
		return "Above the limit: " + amount(*held) + ", the limit is " + amount(s.Limit) + "."
	case held != nil:
		return "Within the limit of " + amount(s.Limit) + "."
	}
	return "The limit is " + amount(s.Limit) + "."
}

type holdingJSON struct {
	Holding int64 `json:"holding"`
	Above   bool  `json:"above"`
}

func toHoldingJSON(held *int64, above bool) *holdingJSON {
	if held == nil {
		return nil
	}
	return &holdingJSON{*held, above}
}

// nextSteps say what each step means, and the command that does it.
var nextSteps = map[satchel.NextStep]struct{ sentence, command string }{
	satchel.NextSecondWay: {"add a second way in, in case the first is lost", "satchel slot add"},
	satchel.NextWords:     {"write the words down (`satchel export words`), and type some back", "satchel words verify"},
	satchel.NextDropKeys:  {"the words are written down; take them out of the cloud", "satchel rekey --drop-keys"},
	satchel.NextSigner:    {"keep savings with an external signer, or in a multisig wallet", ""},
}

type nextJSON struct {
	Next        satchel.NextStep `json:"next"`
	NextCommand string           `json:"next_command"`
}

func toNextJSON(n satchel.NextStep) nextJSON { return nextJSON{n, nextSteps[n].command} }

// sayNext prints the step that would make the wallet safer.
func (a *app) sayNext(n satchel.NextStep) {
	step, ok := nextSteps[n]
	if !ok {
		return
	}
	text := step.sentence
	if step.command != "" {
		text += ": `" + step.command + "`"
	}
	a.sayField("Safer", text)
}
