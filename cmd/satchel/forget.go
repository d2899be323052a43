package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
)

func (a *app) forgetCommand() *cobra.Command {
	var yes string
	var anyway, written bool
	cmd := &cobra.Command{
		Use:   "forget",
		Short: "Remove the wallet from this device only",
		Long: `Removes the wallet from this device, with its key. The backup stays in every
place, untouched, and "satchel restore" brings back what is in it.

That is the whole wallet, unless its words were taken out of the cloud ("satchel
rekey --drop-keys"). Then this device may hold the only digital copy of them: no
recovery code brings them back, only the paper. So forget first wants to hear that
they are written down: on the terminal, or with --words-are-written.

It refuses while something is on this device only; "satchel backup" sends that.
With --anyway it goes on, and what was not sent is lost. Where another device has
become the writer nothing can be sent any more: it says what that concerns, and
goes on. Where the backup ended, because another device made new keys, --anyway is
needed too: bring back the wallet with the new keys first. It never goes on without
the name of the wallet, which is asked for.

JSON: id, label, folder, forgotten, places (the addresses that keep the backup).`,
		Example: `  satchel forget
  satchel forget --wallet Samantha --yes-forget Samantha
  satchel forget --yes-forget Samantha --words-are-written`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly, satchel.CodeOtherDevice,
			satchel.CodeDamaged, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			d, err := a.device()
			if err != nil {
				return err
			}
			b, err := a.openDevice(ctx, d)
			if err != nil {
				if anyway && !errors.Is(err, satchel.ErrBusy) {
					return a.forgetBroken(cmd, d, yes, err)
				}
				return err
			}
			defer b.Close()
			s := b.Status()
			if s.Deleted && !anyway {
				return &hintedError{
					fmt.Errorf("%w; the wallet is on this device only: %w", satchel.ErrDeleted, satchel.ErrNotProtected),
					"`satchel export words` first; then `satchel forget --anyway`: without the words the money is lost",
				}
			}
			if ended(s) && !anyway {
				return &hintedError{
					satchel.ErrEnded,
					"first bring back the wallet with the new keys, beside this one: " + restoreFrom(s) + "; then `satchel forget --wallet " + shellQuote(d.name) + " --anyway`. Without one of the new ways in, or the words on paper, what is here is all there is",
				}
			}
			lost := unsentText(b, s)
			if !s.Protected && !anyway && !otherDevice(s) {
				return notSentError(s)
			}
			if !a.json {
				a.say("Removes %s, %s, from this device.", printable(s.Label), whichWallet(s.Kind, s.Fingerprint))
				switch {
				case s.Deleted:
					a.say("%s.", deletedText)
					a.say("Without its words (satchel export words) the money is lost.")
				case ended(s):
					a.say("%s", wrap("This backup ended: another device made new keys, and the wallet goes on in the backup with those. Nothing opens with the ways in that this one had."))
					a.say("%s", wrap("To come back, with a new way in: "+restoreFrom(s)))
				default:
					a.say("The backup %s stays in:", printable(s.Folder))
					for _, p := range s.Places {
						a.say("  %s", printable(p.Address))
					}
					a.say("It opens with %s.", wayNames(slotKinds(s.Slots)))
					if s.KeysDropped {
						a.say("The words are not in it.")
						a.say("%s", wrap("A restore brings back the rest, from all of its places: "+restoreFrom(s)))
						break
					}
					a.say("%s", wrap("To come back, and look in all of its places: "+restoreFrom(s)))
				}
				if otherDevice(s) && !ended(s) {
					a.say("%s", wrap("Another device writes this backup now; what it saved is not touched."))
				}
				if lost != "" {
					a.say("%s", wrap(lost))
				}
			}
			if _, err := b.Keys(); err == nil && s.KeysDropped && !written {
				if err := a.confirmWritten(ctx, s); err != nil {
					return err
				}
			}
			if err := a.confirmLabel(ctx, yes, "--yes-forget", s.Label); err != nil {
				return err
			}
			a.letGo(d.name)
			if err := b.Forget(); err != nil {
				a.stays(d.name)
				return err
			}
			a.say("Forgotten on this device.")
			places := []string{}
			if !s.Deleted && !ended(s) {
				for _, p := range s.Places {
					places = append(places, p.Address)
				}
			}
			return a.emit(forgottenJSON{s.ID, s.Label, s.Folder, true, places})
		},
	}
	cmd.Flags().StringVar(&yes, "yes-forget", "", "forget the wallet of this `name` without asking")
	cmd.Flags().BoolVar(&written, "words-are-written", false, "the words are not in the backup, and are written down")
	cmd.Flags().BoolVar(&anyway, "anyway", false, "even if something is on this device only; a wallet that cannot be opened here is moved aside, and nothing of it deleted")
	return cmd
}

// ended reports whether another device replaced the backup by one with new keys.
func ended(s satchel.Status) bool {
	return slices.ContainsFunc(s.Places, func(p satchel.PlaceStatus) bool { return errors.Is(p.Err, satchel.ErrEnded) })
}

// restoreFrom returns the command that looks in all places of a wallet: an older state
// may be all that one of them has.
func restoreFrom(s satchel.Status) string {
	line := "satchel restore"
	for _, p := range s.Places {
		line += " --from " + shellQuote(strings.TrimPrefix(p.Address, "folder:"))
	}
	return line
}

// shellQuote returns a word as a shell reads it.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-+@:", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(printable(s), "'", `'\''`) + "'"
}

// notSentError says why a wallet is not forgotten that is not protected.
func notSentError(s satchel.Status) error {
	if len(s.Missing) > 0 && holding(s.Generation, s.Places) >= s.Copies {
		return &hintedError{satchel.ErrNotProtected, "the backup lacks an item, see `satchel status`; `satchel forget --anyway` goes on without it"}
	}
	if holding(s.Generation, s.Places) > 0 {
		return &hintedError{
			fmt.Errorf("%w: generation %d is %s", satchel.ErrNotProtected, s.Generation, notProtected(s.Generation, s.Places, s.Copies)),
			"`satchel backup` first; or `satchel forget --anyway`: nothing is lost as long as that place is there",
		}
	}
	return &hintedError{
		satchel.ErrNotProtected,
		"`satchel backup` first; or `satchel forget --anyway`, and what is on this device only is lost",
	}
}

// unsent names the items of what no place was seen to hold. The bool reports whether
// there is such a state at all.
func unsent(b *satchel.Backup, s satchel.Status) (names []string, ok bool) {
	var newest uint64 // that some place holds
	for _, p := range s.Places {
		if p.Health != satchel.HealthMissing && p.Health != satchel.HealthDamaged && p.Health != satchel.HealthWrongAccount {
			newest = max(newest, p.Generation)
		}
	}
	if s.Deleted || newest >= s.Generation {
		return nil, false
	}
	for _, i := range b.Items() {
		if i.Generation > newest {
			names = append(names, i.Name)
		}
	}
	return names, true
}

// unsentText says what is lost with the wallet on this device, or "".
func unsentText(b *satchel.Backup, s satchel.Status) string {
	names, ok := unsent(b, s)
	if !ok {
		return ""
	}
	text := fmt.Sprintf("What was not sent to a place is lost: generation %d of %s", s.Generation, moment(s.Saved))
	if len(names) > 0 {
		text += ": " + itemNames("", names)
	}
	return text + "."
}

// confirmWritten asks whether the words are written down that only this device holds.
func (a *app) confirmWritten(ctx context.Context, s satchel.Status) error {
	const flag = "--words-are-written"
	text := "The words of this wallet are not in the backup: this device holds the only digital copy, and no recovery code brings them back."
	if a.term == nil {
		return &usageError{
			text: "the words of this wallet are not in the backup, and this device holds the only digital copy",
			hint: "write them down (`satchel export words`), prove it (`satchel words verify`), then give " + flag,
		}
	}
	if s.WordsWritten.IsZero() {
		text += " They were never typed back here."
	}
	a.say("")
	a.say("%s", a.bold(wrap(text)))
	a.say("%s", wrap("Write them down first: satchel export words. Prove that the paper is right: satchel words verify. Without the words the money is lost."))
	a.say("")
	typed, err := a.term.line(ctx, "Are they on paper, and the paper at hand? Type \"written\" to go on: ")
	if err != nil {
		return err
	}
	if typed != "written" {
		return errDeclined
	}
	return nil
}

type forgottenJSON struct {
	ID        string   `json:"id"`
	Label     string   `json:"label"`
	Folder    string   `json:"folder"`
	Forgotten bool     `json:"forgotten"`
	Places    []string `json:"places"`
}

// forgetBroken moves a wallet aside that cannot be opened on this device.
func (a *app) forgetBroken(cmd *cobra.Command, d device, yes string, reason error) error {
	a.note("%s cannot be opened here: %s", d.name, errorText(reason))
	if err := a.confirmLabel(cmd.Context(), yes, "--yes-forget", d.info.Label); err != nil {
		return err
	}
	to, err := a.setAside(d)
	if err != nil {
		return err
	}
	a.note("it is now in %s; the backup stays where it is", to)
	return a.emit(forgottenJSON{d.info.ID, d.info.Label, d.info.Folder, true, d.info.Places})
}
