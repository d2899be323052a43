package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/wallet"
)

// Secrets come from the terminal, without echo, or from a file descriptor: never
// from an argument or the environment, which other programs can read.

// secretFlag and pinFlag let a script open a backup.
func (a *app) secretFlag(cmd *cobra.Command, what string) {
	a.wordsFlag(cmd, what)
	a.pinFlag(cmd)
}

func (a *app) wordsFlag(cmd *cobra.Command, what string) {
	cmd.Flags().IntVar(&a.secretFD, "secret-fd", noFD, "read "+what+" from file descriptor `N`, one line; 0 is the standard input")
}

func (a *app) newSecretFlag(cmd *cobra.Command) {
	cmd.Flags().IntVar(&a.newSecretFD, "new-secret-fd", noFD, "read the new passphrase from file descriptor `N`, one line")
}

func (a *app) passphraseFlag(cmd *cobra.Command) {
	cmd.Flags().IntVar(&a.passphraseFD, "passphrase-fd", noFD, "read the wallet's BIP 39 passphrase, if it has one, from file descriptor `N`")
}

func (a *app) codeFlag(cmd *cobra.Command) {
	cmd.Flags().IntVar(&a.codeFD, "code-fd", noFD, "write a recovery code or passphrase that is made here to file descriptor `N`")
}

// fromFD reads a secret that a script hands over.
func (a *app) fromFD(ctx context.Context, fd int, flag string) (secret.Bytes, error) {
	line, err := await(ctx, func() ([]byte, error) { return readLine(a.file(fd), maxTyped) })
	if errors.Is(err, context.Canceled) {
		return secret.Bytes{}, err
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("nothing there")
		}
		return secret.Bytes{}, &usageError{text: fmt.Sprintf("reading %s: %v", flag, err), hint: "a secret is one line, such as: satchel … " + flag + " 3 3<file"}
	}
	defer clear(line)
	return secret.New(line), nil
}

// askTries is how often a person may mistype a secret before the command ends.
const askTries = 5

// opened is what a person typed to open a slot.
type opened struct {
	way             slot.Secret
	bip39Passphrase secret.Bytes // empty unless it was asked for
	words           wallet.Words // none unless they opened it

	// Of a PIN.
	pin, pinPassphrase secret.Bytes
	threshold          int
	told               []guard.Told
}

// openWith gets a secret for one of the kinds of slots and tries it. On a terminal it
// begins with the PIN, if there is one, and goes on with the others; of those a mistyped
// one is asked for again: they limit no tries.
func (a *app) openWith(ctx context.Context, kinds []slot.Kind, way pinWay, try func(slot.Secret) error) (opened, error) {
	known := knownKinds(kinds)
	switch {
	case a.pinFD != noFD && a.secretFD != noFD:
		return opened{}, usagef("--pin-fd and --secret-fd are two ways to open it: give one")
	case a.pinFD != noFD:
		got, err := a.openPIN(ctx, &way, false)
		return got, besides(err, known)
	case slices.Contains(kinds, slot.KindPIN) && a.secretFD == noFD && a.term != nil:
		got, err := a.openPIN(ctx, &way, len(known) > 0)
		err = besides(err, known)
		if err == nil || len(known) == 0 || ctx.Err() != nil || errors.Is(err, errNoAnswer) {
			return got, err
		}
		if !errors.Is(err, errOtherWay) {
			if _, ok := errors.AsType[*guard.UnknownError](err); ok {
				a.term.print("They were not asked.\n")
			} else {
				a.term.print("%s\n", wrap("The PIN does not open it: "+errorText(err)+"."))
			}
			if hint := hintFor(err); hint != "" {
				a.term.print("%s\n", wrap(upperFirst(hint)+"."))
			}
		}
		a.term.print("\nAnother way in: %s.\n", wayNames(known))
	}
	if len(known) == 0 {
		if slices.Contains(kinds, slot.KindPIN) {
			return opened{}, needFlag("the PIN", "--pin-fd N")
		}
		if len(kinds) > 0 {
			return opened{}, fmt.Errorf("%s: %w", wayNames(kinds), slot.ErrNewerKind)
		}
		known = []slot.Kind{slot.KindRecoveryCode, slot.KindPassphrase, slot.KindWords}
	}
	if a.secretFD != noFD {
		typed, err := a.fromFD(ctx, a.secretFD, "--secret-fd")
		if err != nil {
			return opened{}, err
		}
		return a.tryTyped(ctx, typed, known, try)
	}
	if a.term == nil {
		flag := "--secret-fd N"
		if slices.Contains(kinds, slot.KindPIN) {
			flag += " or --pin-fd N"
		}
		return opened{}, needFlag("a secret: "+wayNames(kinds)+",", flag)
	}
	var names []string
	for _, k := range known {
		names = append(names, wayName(k))
	}
	prompt := upperFirst(orList(names)) + " (not shown): "
	for try1 := 1; ; try1++ {
		typed, err := a.term.secret(ctx, prompt)
		if err != nil {
			return opened{}, err
		}
		if typed.Empty() {
			a.term.print("Nothing was typed. Ctrl-C ends this.\n")
			if try1 == askTries {
				return opened{}, slot.ErrWrongSecret
			}
			continue
		}
		got, err := a.tryTyped(ctx, typed, known, try)
		a.progress.pause()
		if !mistyped(err) || try1 == askTries {
			return got, err
		}
		a.term.print("%s\n", wrap("That did not open it: "+errorText(err)+"."))
	}
}

// mistyped reports whether typing again could help.
func mistyped(err error) bool {
	for _, e := range []error{slot.ErrWrongSecret, slot.ErrRecoveryCode, wallet.ErrWords, wallet.ErrPassphrase, slot.ErrPassphrase} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func knownKinds(kinds []slot.Kind) []slot.Kind {
	var known []slot.Kind
	for _, k := range []slot.Kind{slot.KindRecoveryCode, slot.KindPassphrase, slot.KindWords} {
		if slices.Contains(kinds, k) {
			known = append(known, k)
		}
	}
	return known
}

// tryTyped finds out what was typed: the cheap and certain kinds first.
func (a *app) tryTyped(ctx context.Context, typed secret.Bytes, kinds []slot.Kind, try func(slot.Secret) error) (opened, error) {
	var reason error // why it was none of the kinds before
	if slices.Contains(kinds, slot.KindRecoveryCode) {
		way, err := slot.RecoveryCode(typed)
		if err == nil {
			return opened{way: way}, try(way)
		}
		reason = err
	}
	if slices.Contains(kinds, slot.KindWords) {
		words, err := wallet.ParseWords(typed)
		if err == nil {
			got, err := a.tryWords(ctx, words, try)
			if err == nil || !errors.Is(err, slot.ErrWrongSecret) || !slices.Contains(kinds, slot.KindPassphrase) {
				return got, err
			}
		} else if reason == nil || len(bytes.Fields(typed.Open())) >= fewestWords {
			reason = err
		}
	}
	if !slices.Contains(kinds, slot.KindPassphrase) {
		return opened{}, reason
	}
	way, err := slot.Passphrase(typed)
	if err != nil {
		return opened{}, err
	}
	err = try(way)
	if errors.Is(err, slot.ErrWrongSecret) && nearlyAnotherKind(reason) {
		// A person with a code that was copied wrongly is helped by the place of
		// the mistake, not by "wrong passphrase".
		return opened{}, reason
	}
	return opened{way: way}, err
}

// fewestWords is what makes a typed text look like the words of a wallet.
const fewestWords = 12

func nearlyAnotherKind(err error) bool {
	if e, ok := errors.AsType[*slot.CodeError](err); ok {
		return e.Problem == slot.CodeCheck || e.Problem == slot.CodeTooShort && e.Count <= 4 || e.Problem == slot.CodeTooLong && e.Count <= 4
	}
	e, ok := errors.AsType[*wallet.WordsError](err)
	return ok && e.Count >= fewestWords && len(e.Unknown) <= 3
}

// tryWords opens a words slot: with the words alone, and if that fails with the
// BIP 39 passphrase, which is part of what the slot was made from.
func (a *app) tryWords(ctx context.Context, words wallet.Words, try func(slot.Secret) error) (opened, error) {
	way, err := wordsWay(words, secret.Bytes{})
	if err != nil {
		return opened{}, err
	}
	err = try(way)
	if !errors.Is(err, slot.ErrWrongSecret) {
		return opened{way: way, words: words}, err
	}
	var passphrase secret.Bytes
	switch {
	case a.passphraseFD != noFD:
		var perr error
		if passphrase, perr = a.fromFD(ctx, a.passphraseFD, "--passphrase-fd"); perr != nil {
			return opened{}, perr
		}
	case a.term != nil && a.secretFD == noFD:
		a.progress.pause()
		a.term.print("These words are well-formed, but alone they do not open this backup.\n")
		var perr error
		if passphrase, perr = a.term.secret(ctx, "BIP 39 passphrase of the wallet (not shown; Enter if it has none): "); perr != nil {
			return opened{}, perr
		}
	}
	if passphrase.Empty() {
		return opened{}, fmt.Errorf("%w: these words belong to another wallet, or it also has a BIP 39 passphrase", slot.ErrWrongSecret)
	}
	if way, err = wordsWay(words, passphrase); err != nil {
		return opened{}, err
	}
	return opened{way: way, bip39Passphrase: passphrase, words: words}, try(way)
}

func wordsWay(words wallet.Words, passphrase secret.Bytes) (slot.Secret, error) {
	// The network plays no part in what a words slot is made from.
	keys, err := wallet.Import(words, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: passphrase, KeepPassphrase: true})
	if err != nil {
		return slot.Secret{}, err
	}
	return keysWay(keys)
}

// keysWay is the way in that a wallet's own words give.
func keysWay(keys wallet.Keys) (slot.Secret, error) {
	s, err := keys.SlotSecret()
	if err != nil {
		return slot.Secret{}, err
	}
	defer s.Wipe()
	return slot.Words(s)
}

// unlock opens a backup of this device with one of its slots.
func (a *app) unlock(ctx context.Context, b *satchel.Backup, why string) (*satchel.Owner, error) {
	if a.term != nil && a.secretFD == noFD && a.pinFD == noFD {
		a.term.print("%s\n", why)
	}
	var owner *satchel.Owner
	_, err := a.openWith(ctx, slotKinds(b.Slots()), a.unlockWay(b, &owner), func(way slot.Secret) (err error) {
		a.progress.update(satchel.Progress{Stage: satchel.OpeningKey})
		owner, err = b.Unlock(ctx, way)
		return err
	})
	a.progress.pause()
	if err != nil {
		return nil, err
	}
	return owner, nil
}

// newWay is a way in that is about to be added.
type newWay struct {
	way     slot.Secret
	pin     *satchel.PINPlan // a PIN instead
	printed secret.Bytes     // made here, to be shown once; empty if the user knows it
	title   string           // of what is printed
}

// Names of ways in as flags and arguments give them.
const (
	wayCode       = "recovery-code"
	wayPassphrase = "passphrase"
	wayGenerated  = "generated"
	wayWords      = "words"
	wayPIN        = "pin"
)

// slots are the ways of a new backup that are no PIN.
func (w newWay) slots() []slot.Secret {
	if w.pin != nil {
		return nil
	}
	return []slot.Secret{w.way}
}

// makeWay makes a new way in. context is what an attacker would guess from.
func (a *app) makeWay(ctx context.Context, kind string, context ...string) (newWay, error) {
	switch kind {
	case wayPIN:
		plan, err := a.pinServers(ctx, a.guardianFlags, a.newPIN)
		if err != nil {
			return newWay{}, err
		}
		err = a.askNewPIN(ctx, &plan, a.newPIN, strings.Join(context, " "))
		return newWay{pin: &plan}, err
	case wayCode:
		way, printed := slot.NewRecoveryCode()
		return newWay{way: way, printed: printed, title: "Your recovery code"}, a.canShow()
	case wayGenerated:
		printed, err := slot.GeneratePassphrase(0)
		if err != nil {
			return newWay{}, err
		}
		way, err := slot.Passphrase(printed)
		if err != nil {
			return newWay{}, err
		}
		return newWay{way: way, printed: printed, title: "Your passphrase"}, a.canShow()
	case wayPassphrase:
		p, err := a.newPassphrase(ctx, context)
		if err != nil {
			return newWay{}, err
		}
		way, err := slot.Passphrase(p)
		return newWay{way: way}, err
	}
	return newWay{}, usagef("no such way in: %s", printable(kind))
}

// canShow returns an error if a secret made here could reach nobody.
func (a *app) canShow() error {
	if a.term == nil && a.codeFD == noFD && !a.json {
		return needFlag("somewhere to show the new secret", "--code-fd N or --json")
	}
	return nil
}

// newPassphrase lets a person choose a passphrase: twice the same, and not weak.
func (a *app) newPassphrase(ctx context.Context, context []string) (secret.Bytes, error) {
	context = append(slices.Clone(context), userNames()...)
	if a.newSecretFD != noFD {
		p, err := a.fromFD(ctx, a.newSecretFD, "--new-secret-fd")
		if err != nil {
			return secret.Bytes{}, err
		}
		return p, slot.CheckPassphrase(p, context...)
	}
	if a.term == nil {
		return secret.Bytes{}, needFlag("the new passphrase", "--new-secret-fd N")
	}
	a.term.print("\nA passphrase of your own: 12 characters or more; several words that have\nnothing to do with each other are best. Nobody can reset it.\n")
	return a.twice(ctx, "New passphrase (not shown): ", func(typed secret.Bytes) error {
		if err := slot.CheckPassphrase(typed, context...); err != nil {
			return err
		}
		bits, advice := slot.Estimate(typed, context...)
		a.term.print("Strength: about %.0f bits (45 is the least, 60 and more is good).\n", bits)
		if advice != "" {
			a.term.print("Advice: %s.\n", advice)
		}
		return nil
	})
}

// show hands a secret that was made here to its owner, once: before anything is
// made that only it opens, since this is where it can still fail. With --json and
// no --code-fd it is part of the result. wordless says that the backup which it opens
// does not hold the words of the wallet.
func (a *app) show(ctx context.Context, w newWay, wordless bool) error {
	if w.printed.Empty() {
		return nil
	}
	if a.codeFD != noFD {
		if err := a.writeFD(ctx, a.codeFD, append(slices.Clone(w.printed.Open()), '\n')); err != nil {
			return &hintedError{fmt.Errorf("writing to --code-fd: %w", err), "nothing was made; give a descriptor that can be written to"}
		}
		return nil
	}
	if a.term == nil {
		return nil // canShow saw to it that there is a JSON result
	}
	text := string(w.printed.Open())
	lines := []string{"", a.term.strong(text), "", "Write this down now: then the backup is made. It is shown", "this once, and nobody can give it to you again. Whoever has"}
	if wordless {
		lines = append(lines, "it and the backup's folder sees what is in it, but for the", "words: those you have on paper and on this device only.")
	} else {
		lines = append(lines, "it and the backup's folder has the wallet: keep it where you", "would keep cash.")
	}
	a.term.print("\n%s\n", box(w.title, lines...))
	group := text[strings.LastIndexByte(text, '-')+1:]
	part := "group"
	if w.way.Kind() == slot.KindPassphrase {
		part = "word"
	}
	for {
		typed, err := a.term.line(ctx, "Type its last "+part+" to be sure, or press Enter once it is written down: ")
		if err != nil || typed == "" || strings.EqualFold(typed, group) || strings.EqualFold(typed, text) {
			return err
		}
		a.term.print("That is not the last %s: look again.\n", part)
	}
}

// printedJSON is what a JSON result holds of a secret that was made here: nothing
// if it went to a file descriptor.
func (a *app) printedJSON(w newWay) string {
	if a.codeFD != noFD {
		return ""
	}
	return string(w.printed.Open())
}

// confirm asks whether to go on with something that reveals or removes. Without
// a terminal the flag must have said so.
func (a *app) confirm(ctx context.Context, said bool, flag, question string) error {
	if said {
		return nil
	}
	if a.term == nil {
		return needFlag("a confirmation", flag)
	}
	ok, err := a.term.yes(ctx, question, false)
	if err != nil {
		return err
	}
	if !ok {
		return errDeclined
	}
	return nil
}

// confirmLabel asks to type the label of a wallet that is about to go.
func (a *app) confirmLabel(ctx context.Context, said, flag, label string) error {
	if said != "" {
		if said != label {
			return usagef("%s names another wallet than %s", flag, printable(label))
		}
		return nil
	}
	if a.term == nil {
		return needFlag("a confirmation", flag+" "+printable(label))
	}
	typed, err := a.term.line(ctx, fmt.Sprintf("Type the name of the wallet (%s) to go on: ", printable(label)))
	if err != nil {
		return err
	}
	if typed != label {
		return errDeclined
	}
	return nil
}

// errDeclined says that the user was asked and said no.
var errDeclined = errors.New("nothing was done")
