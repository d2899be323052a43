package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
)

var pinExits = unlockExits

func (a *app) pinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pin",
		Short: "A PIN as a way in: set, change, test, remove",
		Long: `A PIN opens the backup on a new device, with nothing written down: 4 to 12 digits, or
any text. Key servers guard it, see "satchel guardian --help": they allow few guesses,
then a pause that grows, and after some wrong ones in a row, at most ten, nobody can
open the backup with it any more. A second way in, such as a recovery code on paper, is for that
day, and for the day on which too many key servers are gone.`,
		Example: `  satchel pin set
  satchel pin test
  satchel pin change`,
		Args:        noSuchCommand,
		Annotations: exits(satchel.CodeDone, satchel.CodeUsage),
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.pinSetCommand(false), a.pinSetCommand(true), a.pinTestCommand(), a.pinRemoveCommand())
	return cmd
}

// newPIN is what pin set and pin change, and a wallet that begins with a PIN, are asked for.
type newPIN struct {
	threshold      int
	withPassphrase bool
}

// allGuardians are those that a new PIN takes.
const allGuardians = `all that "guardian list" shows`

// flags adds them to a command; otherwise says which key servers are taken if none is named.
func (p *newPIN) flags(a *app, cmd *cobra.Command, otherwise string) {
	f := cmd.Flags()
	a.guardianFlag(cmd, "a key server that guards the PIN, by its `URL`; repeat it for several. Without it, "+otherwise)
	f.IntVar(&p.threshold, "threshold", 0, "how `many` of the key servers open the backup; without it, more than half")
	f.BoolVar(&p.withPassphrase, "with-passphrase", false, "ask for a passphrase as well as the PIN")
	f.IntVar(&a.newPINFD, "new-pin-fd", noFD, "read the new PIN from file descriptor `N`, one line")
	f.IntVar(&a.newPINPassphraseFD, "new-pin-passphrase-fd", noFD, "read the passphrase that is asked for as well from file descriptor `N`")
}

// pinFlag lets a command be opened with a PIN by a script.
func (a *app) pinFlag(cmd *cobra.Command) {
	cmd.Flags().IntVar(&a.pinFD, "pin-fd", noFD, "read the PIN from file descriptor `N`, one line")
	cmd.Flags().IntVar(&a.pinPassphraseFD, "pin-passphrase-fd", noFD, "read the passphrase that is asked for beside the PIN, if one is, from file descriptor `N`")
}

func (a *app) pinSetCommand(change bool) *cobra.Command {
	var p newPIN
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Make a PIN a way in",
		Long: `Makes a PIN a way to open the backup. First an existing secret must be given. The PIN
is typed twice; one that many people choose is refused. 4 to 12 digits, or any text.

Each key server of "satchel guardian list" holds a part, or those that --guardian names,
at most ten. With three, two must be there to open the backup, so one may be gone.

If a key server goes away in the middle, the next "satchel backup" goes on.

JSON: id (of the slot), guardians, threshold, pending (true if not all key servers
know of it yet).`,
		Example: `  satchel pin set
  satchel pin set --guardian https://a.example --guardian https://b.example
  satchel pin set --secret-fd 3 --new-pin-fd 4 3<code 4<pin`,
	}
	if change {
		cmd = &cobra.Command{
			Use:   "change",
			Short: "Change the PIN",
			Long: `Makes a new PIN in the place of the old one, at the same key servers, or at those that
--guardian names. It is opened with the old PIN, or any other way in. At every moment
one of the two opens the backup; in the end only the new one does, and an old copy of
the folder does not open with the old PIN either.

JSON: as for "pin set".`,
			Example: `  satchel pin change
  satchel pin change --secret-fd 3 --new-pin-fd 4 3<code 4<pin`,
		}
	}
	cmd.Args, cmd.Annotations = args(cobra.NoArgs), exits(pinExits...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.pinSet(cmd.Context(), p, change) }
	cmd.Flags().SortFlags = false
	if change {
		p.flags(a, cmd, "those that guard it now")
	} else {
		p.flags(a, cmd, allGuardians)
	}
	a.secretFlag(cmd, "an existing secret")
	a.passphraseFlag(cmd)
	return cmd
}

func (a *app) pinSet(ctx context.Context, p newPIN, change bool) error {
	if err := a.checkGuardianFlags(); err != nil {
		return err
	}
	b, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	has := slices.Contains(slotKinds(b.Slots()), slot.KindPIN)
	switch {
	case has && !change:
		return &usageError{text: "this wallet has a PIN already", hint: "satchel pin change"}
	case !has && change:
		return errNoPIN
	case a.term == nil && a.secretFD == noFD && a.pinFD == noFD:
		return needFlag("an existing secret", "--secret-fd N or --pin-fd N")
	case a.term == nil && a.newPINFD == noFD:
		return needFlag("the new PIN", "--new-pin-fd N")
	}
	servers := a.guardianFlags
	if len(servers) == 0 && change {
		servers = b.Guardians()
		a.say("The key servers stay: %s", printable(strings.Join(servers, ", ")))
		a.say("(Others: all with --guardian, or one with `satchel guardian replace`.)")
	}
	plan, err := a.pinServers(ctx, servers, p)
	if err != nil {
		return err
	}
	owner, err := a.unlock(ctx, b, "First the backup is opened with a secret it has already.")
	if err != nil {
		return err
	}
	if err := a.askNewPIN(ctx, &plan, p, b.Status().Label); err != nil {
		return err
	}
	return a.setPIN(ctx, b, owner, plan)
}

// pinServers says which key servers are to guard a PIN: those that are named, or all that
// this device knows.
func (a *app) pinServers(ctx context.Context, named []string, p newPIN) (satchel.PINPlan, error) {
	plan := satchel.PINPlan{Servers: named, Threshold: p.threshold}
	if len(named) == 0 {
		list, err := a.guardians()
		if err != nil {
			return plan, err
		}
		if len(list) == 0 && a.term != nil {
			a.term.print("\nA PIN is guarded by key servers, and this device knows none yet. Three that do not\nbelong to the same people are best: then one may be gone.\n")
			for {
				typed, err := a.term.line(ctx, "Address of a key server, such as https://… (Enter when done): ")
				if err != nil {
					return plan, err
				}
				if typed == "" {
					break
				}
				if err := a.guardianAdd(ctx, []string{typed}, noFD); err != nil {
					if ctx.Err() != nil {
						return plan, err
					}
					a.term.print("%s\n", wrap("Not that one: "+errorText(err)+"."))
				}
			}
			if list, err = a.guardians(); err != nil {
				return plan, err
			}
		}
		if len(list) == 0 {
			return plan, &usageError{text: "this device knows no key server yet", hint: "satchel guardian add https://…, three that do not belong to the same people are best; or --guardian"}
		}
		plan.Servers = list
	}
	n := len(plan.Servers)
	if n > protocol.MaxGuardians {
		return plan, &usageError{text: fmt.Sprintf("%d key servers, at most %d can guard a PIN", n, protocol.MaxGuardians), hint: "choose some with --guardian"}
	}
	if plan.Threshold == 0 {
		plan.Threshold = n/2 + 1
	}
	if plan.Threshold < 1 || plan.Threshold > n {
		return plan, usagef("--threshold %d of %s is not possible", plan.Threshold, count(n, "key server"))
	}
	switch {
	case n == 1:
		a.note("with one key server the PIN opens nothing while it is away, and nothing ever again once it is gone: have another way in, such as a recovery code")
	case plan.Threshold == n:
		a.note("all %d key servers must be there to open the backup with the PIN: if one is gone for good, so is this way in", n)
	case plan.Threshold == 1:
		a.note("one key server alone opens the backup with the PIN: whoever runs one of the %d can try all PINs on a copy of the folder", n)
	}
	return plan, nil
}

// askNewPIN lets a person choose a PIN: twice the same, and not one that many choose.
func (a *app) askNewPIN(ctx context.Context, plan *satchel.PINPlan, p newPIN, label string) (err error) {
	known := append([]string{label}, userNames()...)
	if a.newPINFD != noFD {
		if plan.PIN, err = a.fromFD(ctx, a.newPINFD, "--new-pin-fd"); err != nil {
			return err
		}
		if err := slot.CheckPIN(plan.PIN, known...); err != nil {
			return weakPIN(err)
		}
		if a.newPINPassphraseFD != noFD {
			if plan.Passphrase, err = a.fromFD(ctx, a.newPINPassphraseFD, "--new-pin-passphrase-fd"); err != nil {
				return err
			}
			return slot.CheckPassphrase(plan.Passphrase, known...)
		}
		if p.withPassphrase {
			return needFlag("the passphrase that is asked for as well", "--new-pin-passphrase-fd N")
		}
		return nil
	}
	if a.term == nil {
		return needFlag("the new PIN", "--new-pin-fd N")
	}
	a.term.print("\nA PIN of your own: 6 digits that mean nothing are good, 4 to 12 will do, or any\ntext. Nobody can reset it.\n")
	plan.PIN, err = a.twice(ctx, "New PIN (not shown): ", func(typed secret.Bytes) error { return slot.CheckPIN(typed, known...) })
	if err != nil || !p.withPassphrase {
		return err
	}
	a.term.print("\nThe passphrase that is asked for beside the PIN:\n")
	plan.Passphrase, err = a.twice(ctx, "Passphrase (not shown): ", func(typed secret.Bytes) error { return slot.CheckPassphrase(typed, known...) })
	return err
}

// weakPIN says of a refused PIN that it is one.
func weakPIN(err error) error {
	weak, ok := errors.AsType[*slot.WeakError](err)
	if !ok {
		return err
	}
	return &hintedError{fmt.Errorf("this PIN is refused: %s", strings.TrimPrefix(weak.Error(), slot.ErrWeak.Error()+": ")), weak.Advice}
}

// twice lets a person type a new secret that passes a check, twice the same. The check may
// say something about one that passes.
func (a *app) twice(ctx context.Context, prompt string, check func(secret.Bytes) error) (secret.Bytes, error) {
	for {
		typed, err := a.term.secret(ctx, prompt)
		if err != nil {
			return typed, err
		}
		if err := check(typed); err != nil {
			a.term.print("%s\n", wrap("Not this one: "+strings.TrimPrefix(errorText(err), slot.ErrWeak.Error()+": ")+"."))
			if weak, ok := errors.AsType[*slot.WeakError](err); ok {
				a.term.print("Better: %s.\n", weak.Advice)
			}
			continue
		}
		again, err := a.term.secret(ctx, "The same again: ")
		if err != nil {
			return typed, err
		}
		if again.Equal(typed) {
			return typed, nil
		}
		a.term.print("The two differ. Once more:\n")
	}
}

// setPIN sets a PIN and says so.
func (a *app) setPIN(ctx context.Context, b *satchel.Backup, owner *satchel.Owner, plan satchel.PINPlan) error {
	info, err := owner.SetPIN(ctx, plan)
	a.progress.pause()
	if info.ID == "" {
		if hint := certificateHint(err); hint != "" {
			return &hintedError{err, "nothing was changed; " + hint}
		}
		if errors.Is(err, guard.ErrToken) {
			return &hintedError{err, "nothing was changed; ask whoever runs it for a token, and give it: satchel guardian add URL --token-fd 3 3<FILE"}
		}
		if errors.Is(err, guard.ErrUnreachable) {
			return &hintedError{err, "nothing was changed; to set a PIN all of its key servers must answer: try again later, or take another in the place of one that is gone: `satchel guardian replace`, or --guardian"}
		}
		return err
	}
	if keepErr := a.keepGuardians(plan.Servers); keepErr != nil {
		err = errors.Join(err, keepErr)
	}
	s := b.Status()
	type pinJSON struct {
		ID        string   `json:"id"`
		Guardians []string `json:"guardians"`
		Threshold int      `json:"threshold"`
		Pending   bool     `json:"pending"`
	}
	if e := a.emit(pinJSON{info.ID, plan.Servers, plan.Threshold, s.PINPending}); e != nil {
		return errors.Join(err, e)
	}
	a.sayPIN(plan, s.PINPending)
	if len(s.PINEnding) > 0 {
		a.say("%s still has an account of the PIN before: it is told when it answers.", strings.Join(s.PINEnding, ", "))
	}
	return err
}

// sayPIN says what a PIN is worth that was just set.
func (a *app) sayPIN(plan satchel.PINPlan, pending bool) {
	if pending {
		a.say("The PIN is in the backup, and not all key servers know of it yet: `satchel backup`")
		a.say("goes on with it. Until then the PIN before, if there was one, opens too.")
		return
	}
	n := len(plan.Servers)
	a.say("The PIN opens the backup now: %d of %s must be there for it, and each", plan.Threshold, count(n, "key server"))
	a.say("allows %s in a row.", wrongGuesses(protocol.GuessLimit(plan.Threshold, n)))
	for _, s := range plan.Servers {
		a.say("  %s", printable(s))
	}
	a.say("Next: `satchel pin test` tries it.")
}

func (a *app) pinTestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Try the PIN",
		Long: `Asks for the PIN, opens the backup with it and changes nothing. A right PIN gives all
guesses back. A wrong one costs one, as everywhere. It says which key servers answered,
and whether somebody else guessed since the PIN was last right.

JSON: id (of the slot), guardians (guardian, error, wrong).`,
		Example: `  satchel pin test
  satchel pin test --pin-fd 3 3<pin`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(pinExits...),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			b, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer b.Close()
			owner, typed, err := a.unlockPIN(ctx, b, "Type the PIN. A right one changes nothing, and gives all guesses back; a wrong one\ncosts a guess.")
			if err != nil {
				return err
			}
			a.say("The PIN opens the backup.")
			for _, t := range typed.told {
				a.say("  %s %s", printable(t.Server), serverText(t.Err))
			}
			return a.emit(struct {
				ID        string     `json:"id"`
				Guardians []toldJSON `json:"guardians"`
			}{owner.Slot().ID, toToldJSON(typed.told)})
		},
	}
	a.pinFlag(cmd)
	return cmd
}

func (a *app) pinRemoveCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Take the PIN away",
		Long: `Takes the PIN out of the ways in, and ends what the key servers keep for it: a copy of
the folder does not open with it any more, either. Another way in must be there.

JSON: id, kind, removed (false if a place or a key server could not be told yet).`,
		Example: `  satchel pin remove
  satchel pin remove --yes --secret-fd 3 3<code`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(pinExits...),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			for _, s := range b.Slots() {
				if s.Kind == slot.KindPIN {
					return a.removeSlot(cmd.Context(), b, s, yes)
				}
			}
			return errNoPIN
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "remove without asking")
	a.secretFlag(cmd, "an existing secret")
	a.passphraseFlag(cmd)
	return cmd
}

// pinWay opens a backup with a PIN.
type pinWay struct {
	slots func(ctx context.Context) ([]satchel.PINSlot, error)
	open  func(ctx context.Context, s satchel.PINSlot, pin, passphrase secret.Bytes) ([]guard.Told, error)
}

// unlockPIN opens a backup of this device with its PIN.
func (a *app) unlockPIN(ctx context.Context, b *satchel.Backup, why string) (*satchel.Owner, opened, error) {
	if !slices.Contains(slotKinds(b.Slots()), slot.KindPIN) {
		return nil, opened{}, errNoPIN
	}
	if a.term == nil && a.pinFD == noFD {
		return nil, opened{}, needFlag("the PIN", "--pin-fd N")
	}
	if a.term != nil && a.pinFD == noFD {
		a.term.print("%s\n", why)
	}
	var owner *satchel.Owner
	way := a.unlockWay(b, &owner)
	typed, err := a.openPIN(ctx, &way, false)
	a.progress.pause()
	return owner, typed, besides(err, knownKinds(slotKinds(b.Slots())))
}

func (a *app) unlockWay(b *satchel.Backup, owner **satchel.Owner) pinWay {
	return pinWay{b.PINSlots, func(ctx context.Context, s satchel.PINSlot, pin, passphrase secret.Bytes) (told []guard.Told, err error) {
		*owner, told, err = b.UnlockPIN(ctx, s, pin, passphrase)
		return told, err
	}}
}

// errOtherWay says that a person prefers another way in than the PIN.
var errOtherWay = errors.New("another way in")

// openPIN asks for the PIN and tries it; each try costs a guess. others says that there
// are other ways in, which a person may take (errOtherWay).
func (a *app) openPIN(ctx context.Context, way *pinWay, others bool) (opened, error) {
	s, err := a.pinSlot(ctx, way)
	if err != nil {
		return opened{}, err
	}
	if err := s.Usable(a.now()); err != nil {
		return opened{}, err
	}
	got := opened{threshold: s.Threshold}
	mine := 0 // guesses that were made here and did not open it
	for try := 1; ; try++ {
		switch {
		case a.pinFD != noFD:
			if got.pin, err = a.fromFD(ctx, a.pinFD, "--pin-fd"); err != nil {
				return got, err
			}
			if s.Passphrase {
				if a.pinPassphraseFD == noFD {
					return got, needFlag("the passphrase beside the PIN", "--pin-passphrase-fd N")
				}
				if got.pinPassphrase, err = a.fromFD(ctx, a.pinPassphraseFD, "--pin-passphrase-fd"); err != nil {
					return got, err
				}
			}
		default:
			prompt := "PIN (not shown): "
			if others {
				prompt = "PIN (not shown; Enter for another way in): "
			}
			if try == 1 && s.Guesses() < protocol.GuessLimit(s.Threshold, len(s.Servers)) {
				a.term.print("%s\n", wrap(fmt.Sprintf("There were wrong guesses since the PIN was last right: %s left.", guesses(s.Guesses()))))
			}
			if got.pin, err = a.term.secret(ctx, prompt); err != nil {
				return got, err
			}
			if got.pin.Empty() {
				if others {
					return got, errOtherWay
				}
				a.term.print("Nothing was typed. Ctrl-C ends this.\n")
				if try == askTries {
					return got, guard.ErrPIN
				}
				continue
			}
			if _, err := slot.RecoveryCode(got.pin); err == nil {
				a.term.print("That is a recovery code, not the PIN; nothing was sent.\n")
				if others {
					a.term.print("Press Enter for another way in, then type it again.\n")
				}
				continue
			}
			if s.Passphrase {
				if got.pinPassphrase, err = a.term.secret(ctx, "Passphrase beside the PIN (not shown): "); err != nil {
					return got, err
				}
			}
		}
		a.progress.update(satchel.Progress{Stage: satchel.OpeningKey})
		got.told, err = way.open(ctx, *s, got.pin, got.pinPassphrase)
		a.progress.pause()
		if err == nil {
			a.sayTold(got.told, mine, s.Threshold)
			return got, nil
		}
		if errors.Is(err, guard.ErrWrongPIN) || errors.Is(err, guard.ErrPassphrase) {
			mine++
		}
		again := errors.Is(err, guard.ErrPassphrase) || errors.Is(err, guard.ErrPIN) || errors.Is(err, guard.ErrWrongPIN)
		if !again || a.term == nil || a.pinFD != noFD || try == askTries {
			return got, err
		}
		text := errorText(err)
		if wrong, ok := errors.AsType[*guard.WrongPINError](err); ok {
			text = errorText(wrong) // Which backup it is they know.
		}
		a.term.print("%s\n", wrap("That did not open it: "+text+"."))
		// Nobody types for nothing what is locked or erased now.
		if s, err = a.pinSlot(ctx, way); err != nil {
			return got, err
		}
		if err := s.Usable(a.now()); err != nil {
			return got, err
		}
	}
}

// pinSlot finds the PIN slot to try. Of key servers that this device does not know nothing
// is asked before the user allows it.
func (a *app) pinSlot(ctx context.Context, way *pinWay) (*satchel.PINSlot, error) {
	for {
		list, err := way.slots(ctx)
		a.progress.pause()
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			return nil, errNoPIN
		}
		s := &list[0]
		unknown, ok := errors.AsType[*guard.UnknownError](s.Err)
		if !ok {
			return s, nil
		}
		if a.trustGuardians {
			a.allowed = append(a.allowed, unknown.Servers...)
			continue
		}
		if a.term == nil || a.pinFD != noFD {
			return nil, &hintedError{unknown, "if they are the ones that you chose, name each with --guardian, or say --trust-guardians; nothing was sent to them"}
		}
		a.term.print("\nThe PIN of this backup is guarded by key servers that this device does not know:\n")
		for _, name := range unknown.Servers {
			a.term.print("  %s\n", printable(name))
		}
		a.term.print("The folder names them, and whoever can write to it could have put others there.\n")
		yes, err := a.term.yes(ctx, "Are they yours?", false)
		if err != nil {
			return nil, err
		}
		if !yes {
			a.unknown.refuse(unknown.Servers)
			return nil, unknown
		}
		a.allowed = append(a.allowed, unknown.Servers...)
	}
}

// sayTold says what a person should know of what the key servers told. mine is how many
// wrong guesses this call made itself, each at threshold of them: who mistyped is not told of
// a thief.
func (a *app) sayTold(told []guard.Told, mine, threshold int) {
	wrong, all := 0, 0
	for _, t := range told {
		wrong, all = max(wrong, t.Wrong), all+t.Wrong
		if t.Err != nil && !errors.Is(t.Err, guard.ErrPending) {
			a.note("key server %s %s", t.Server, serverText(t.Err))
		}
	}
	if wrong <= mine && all <= mine*threshold {
		return
	}
	if mine > 0 {
		a.note("%s since the PIN was last right, and not all of them just now; if the others were not yours, somebody has a copy of the folder: `satchel pin change`", wrongGuesses(wrong))
	} else {
		a.note("%s since the PIN was last right; if that was not you, somebody has a copy of the folder: `satchel pin change`", wrongGuesses(wrong))
	}
}

// toldJSON is what a key server said when the backup was opened with its PIN.
type toldJSON struct {
	Guardian string `json:"guardian"`
	Error    string `json:"error,omitempty"`
	Wrong    int    `json:"wrong"`
}

func toToldJSON(told []guard.Told) []toldJSON {
	var list []toldJSON
	for _, t := range told {
		j := toldJSON{Guardian: t.Server, Wrong: t.Wrong}
		if t.Err != nil {
			j.Error = errorText(t.Err)
		}
		list = append(list, j)
	}
	return list
}

func guesses(n int) string {
	if n == 1 {
		return "1 guess"
	}
	return fmt.Sprintf("%d guesses", n)
}

func wrongGuesses(n int) string {
	if n == 1 {
		return "1 wrong guess"
	}
	return fmt.Sprintf("%d wrong guesses", n)
}
