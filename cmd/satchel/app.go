package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/source/cln"
)

// app is one run of the command: its streams, its flags, and the person or the
// script at the other end.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	getenv func(string) string
	now    func() time.Time

	term *terminal // nil if nobody can be asked

	// Flags of every command.
	walletName string
	keychain   string
	json       bool
	verbose    bool

	// File descriptors that secrets are read from and written to; noFD if not
	// given. Only the commands that use one have its flag.
	secretFD     int
	newSecretFD  int
	passphraseFD int
	codeFD       int
	wordsFD      int
	fds          map[int]*os.File // those from 3 on, see takeFDs

	pinFD, pinPassphraseFD       int
	newPINFD, newPINPassphraseFD int
	passwordFD                   int
	signedIn                     string // what the password from there was for

	guardianFlags  []string                // key servers that flags name
	newPIN         newPIN                  // of a wallet that begins with a PIN
	trustGuardians bool                    // so are those that the backup names
	allowed        []string                // key servers that the user allowed
	unknown        unknownServers          // those that were not asked
	tokens         map[string]secret.Bytes // registration tokens that are not in the keychain yet

	network   network
	toldForms bool // how addresses look was said
	progress  *progressLine
	broken    error // of wallets that devices left out
	unsaid    error // the first of writing the result

	outer *app // of which this is a part, see inside
}

const noFD = -1

// inside is a part of this run that goes on beside others: it asks nobody, prints nothing
// and knows no flags. What it has to note goes to stderr.
func (a *app) inside(stderr io.Writer) *app {
	return &app{
		stdin: strings.NewReader(""), stdout: io.Discard, stderr: stderr, getenv: a.getenv, now: a.now, keychain: a.keychain, outer: a,
		secretFD: noFD, newSecretFD: noFD, passphraseFD: noFD, codeFD: noFD, wordsFD: noFD, passwordFD: noFD,
		pinFD: noFD, pinPassphraseFD: noFD, newPINFD: noFD, newPINPassphraseFD: noFD,
	}
}

// usageError is an error in how the command was called. Its hint, if any, says
// how to call it.
type usageError struct {
	text string
	hint string
}

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...)}
}

// needFlag says that a question could not be asked and which flag answers it.
func needFlag(what, flag string) error {
	return &usageError{
		text: fmt.Sprintf("%s is needed, and there is no terminal to ask on", what),
		hint: fmt.Sprintf("give %s, or run this on a terminal without --json", flag),
	}
}

// hintedError is an error with a hint of its own.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

// errPartly is the result of a status that is not good: everything was said
// already, only the exit code is left.
var errPartly = errors.New("not protected")

// run runs the command and returns its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	a := &app{
		stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv, now: time.Now,
		secretFD: noFD, newSecretFD: noFD, passphraseFD: noFD, codeFD: noFD, wordsFD: noFD, passwordFD: noFD,
		pinFD: noFD, pinPassphraseFD: noFD, newPINFD: noFD, newPINPassphraseFD: noFD,
	}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	// Before each command: flags are read, so it is known whether to ask.
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := a.takeFDs(cmd); err != nil {
			return err
		}
		if !a.json {
			a.term = openTerminal(stdin, stderr, getenv)
		}
		a.progress = newProgressLine(a)
		return nil
	}
	err := root.ExecuteContext(ctx)
	if a.progress != nil {
		a.progress.end()
	}
	if a.unsaid != nil && (err == nil || errors.Is(err, errPartly)) {
		err = a.unsaid
	}
	if ctx.Err() != nil && err != nil && satchel.CodeOf(err) != satchel.CodeInterrupted {
		// Whatever the interruption looked like from inside.
		err = fmt.Errorf("%w (%v)", context.Canceled, err)
	}
	a.report(err)
	a.term.close()
	return int(codeOf(err))
}

// codeOf returns the exit code of an error of this command or of the SDK.
func codeOf(err error) satchel.Code {
	if onlyUnread(err) {
		return codeUnread
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return satchel.CodeUsage
	}
	if errors.Is(err, errPartly) {
		return satchel.CodePartly
	}
	if errors.Is(err, cln.ErrOtherNode) || errors.Is(err, cln.ErrNetwork) {
		return satchel.CodeWrongWallet
	}
	return satchel.CodeOf(err)
}

// report tells the user about an error and what to do next.
func (a *app) report(err error) {
	if err == nil || errors.Is(err, errPartly) || onlyUnread(err) {
		return
	}
	text, hint := errorText(err), hintFor(err)
	if a.json {
		line, _ := json.Marshal(toErrorJSON(err, text, hint))
		fmt.Fprintf(a.stderr, "%s\n", line)
		return
	}
	if fact, details, ok := strings.Cut(text, satchel.ErrOtherDevice.Error()+": "); ok {
		// Who wrote what, and where, is long, and a takeover is read by people.
		if columns("satchel: "+fact+satchel.ErrOtherDevice.Error()) > helpWidth {
			fact = strings.TrimSpace(fact) + "\n  "
		}
		fmt.Fprintf(a.stderr, "satchel: %s%v\n%s\n", fact, satchel.ErrOtherDevice, hanging("  ", details))
	} else {
		a.tell("satchel: " + text)
	}
	if hint != "" {
		a.tell("hint: " + hint)
	}
}

// errorJSON is an error for a program.
type errorJSON struct {
	Error string `json:"error"`
	Code  int    `json:"code"`
	Hint  string `json:"hint,omitempty"`

	// Of a PIN that is wrong or locked.
	LockedUntil *time.Time `json:"locked_until,omitempty"`
	GuessesLeft *int       `json:"guesses_left,omitempty"`
}

func toErrorJSON(err error, text, hint string) errorJSON {
	j := errorJSON{Error: text, Code: int(codeOf(err)), Hint: hint}
	if locked, ok := errors.AsType[*guard.LockedError](err); ok {
		j.LockedUntil, j.GuessesLeft = lockStamp(locked.Until), &locked.GuessesLeft
	} else if wrong, ok := errors.AsType[*guard.WrongPINError](err); ok {
		j.GuessesLeft = &wrong.GuessesLeft
	}
	return j
}

// errorText is the error as one line of printable text: parts of it may come from
// a place.
func errorText(err error) string {
	if errors.Is(err, errNoAnswer) {
		return errNoAnswer.Error()
	}
	if errors.Is(err, context.Canceled) && codeOf(err) == satchel.CodeInterrupted {
		return "interrupted"
	}
	return printable(strings.ReplaceAll(keyServerText(err), "\n", "; "))
}

// note says something beside the result.
func (a *app) note(format string, args ...any) {
	a.progress.pause()
	a.tell("satchel: " + printable(fmt.Sprintf(format, args...)))
}

// tell writes a line to the standard error, broken to fit if that is a screen.
func (a *app) tell(line string) {
	if _, tty := asTerminal(a.stderr); tty {
		line = wrap(line)
	}
	fmt.Fprintf(a.stderr, "%s\n", line)
}

// say prints a line of the result for a person. With --json it prints nothing. If
// it cannot be written the command fails in the end.
func (a *app) say(format string, args ...any) {
	if a.json {
		return
	}
	a.progress.pause()
	if _, err := fmt.Fprintf(a.stdout, format+"\n", args...); err != nil && a.unsaid == nil {
		a.unsaid = unread(fmt.Errorf("writing the result: %w", err))
	}
}

// codeUnread is how a shell shows the end by SIGPIPE.
const codeUnread satchel.Code = 128 + 13

// unreadError says that nobody reads the result any more, as behind "| head".
type unreadError struct{ err error }

func (e *unreadError) Error() string { return e.err.Error() }
func (e *unreadError) Unwrap() error { return e.err }

// unread marks the error of a write to the standard output.
func unread(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return &unreadError{err}
	}
	return err
}

// onlyUnread reports whether an error says no more than that nobody reads the result.
// It is not one that has a text or a hint of its own: then something is lost.
func onlyUnread(err error) bool {
	_, ok := err.(*unreadError)
	return ok
}

// emit prints one object of the result for a program, if --json was given.
func (a *app) emit(v any) error {
	if !a.json {
		return nil
	}
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	return unread(e.Encode(v))
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "satchel",
		Short: "Encrypted backup of Bitcoin wallets in places of your own",
		Long: `Satchel makes a Bitcoin wallet and keeps an encrypted backup of it, and of all
that changes later, in a place of your own: a folder that Nextcloud, Dropbox or
iCloud keeps in sync. A lost device costs you nothing but a restore.

The place cannot read the backup, and neither can we. What opens it is a
recovery code or a passphrase that only you have. Meant for everyday amounts.

Alone on a terminal, satchel offers to create or to restore a wallet, and once
there is one it shows whether it is protected.`,
		Example: `  satchel                     begin
  satchel create              make a wallet and its backup
  satchel restore             bring a wallet back
  satchel status              is it protected?
  satchel restore --help      what a command does, with examples`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.begin(cmd)
		},
	}
	root.Annotations = exits(exitCodes...)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{text: err.Error(), hint: fmt.Sprintf("%s --help", cmd.CommandPath())}
	})
	flags := root.PersistentFlags()
	flags.SortFlags = false
	flags.StringVarP(&a.walletName, "wallet", "w", "", "the wallet that is meant: its `name` or the beginning of it")
	flags.BoolVar(&a.json, "json", false, "print one JSON object per line; never ask anything")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "tell what is being done, also without a terminal")
	flags.StringVar(&a.keychain, "keychain", "", "`where` this device keeps its key, chosen once: system or file (also SATCHEL_KEYCHAIN)")

	root.AddGroup(
		&cobra.Group{ID: "everyday", Title: "Everyday:"},
		&cobra.Group{ID: "places", Title: "Places:"},
		&cobra.Group{ID: "time", Title: "Earlier states:"},
		&cobra.Group{ID: "ways", Title: "Ways in, ways out:"},
		&cobra.Group{ID: "proof", Title: "Proof and care:"},
		&cobra.Group{ID: "expert", Title: "Expert:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("everyday", a.createCommand(), a.importCommand(), a.watchCommand(), a.agentCommand(), a.backupCommand(), a.putCommand(), a.getCommand(),
		a.itemsCommand(), a.restoreCommand(), a.statusCommand(), a.lndCommand(), a.clnCommand())
	add("places", a.storeCommand())
	add("time", a.historyCommand(), a.revertCommand(), a.pruneCommand(), a.compactCommand())
	add("ways", a.pinCommand(), a.guardianCommand(), a.slotCommand(), a.wordsCommand(), a.exportCommand(), a.rekeyCommand())
	add("proof", a.checkCommand(), a.drillCommand(), a.healCommand(), a.alarmCommand(), a.limitCommand())
	add("expert", a.forgetCommand(), a.deleteCommand(), a.completionCommand(), a.manCommand(), a.versionCommand())
	root.SetHelpCommand(a.helpCommand())
	setHelp(root)
	if err := root.RegisterFlagCompletionFunc("wallet", a.completeWallet); err != nil {
		panic(err)
	}
	return root
}

// The commands stand in the order in which they are added. This is one variable for all
// commands of a process.
func init() { cobra.EnableCommandSorting = false }

// noSuchCommand is the Args of a command that only has subcommands.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := cmd.CommandPath() + " --help"
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return &usageError{text: "no such command: " + printable(args[0]), hint: hint}
}

// args wraps a rule for arguments: breaking it is a usage error that shows how
// the command is called.
func args(rule cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, got []string) error {
		if err := rule(cmd, got); err != nil {
			return &usageError{text: err.Error(), hint: cmd.UseLine()}
		}
		return nil
	}
}

// begin is satchel without a command.
func (a *app) begin(cmd *cobra.Command) error {
	if a.term == nil {
		if a.json {
			return &usageError{text: "a command is needed", hint: "satchel --help"}
		}
		return cmd.Help()
	}
	devices, err := a.devices()
	if err != nil {
		return err
	}
	if len(devices) > 0 || a.broken != nil {
		return a.status(cmd.Context(), nil)
	}
	a.term.print("Satchel keeps a Bitcoin wallet safe from the loss of this device.\n\n")
	n, err := a.term.choose(cmd.Context(), "What would you like to do?", []string{
		"Create a wallet",
		"Restore a wallet",
	}, 0)
	if err != nil {
		return err
	}
	name := []string{"create", "restore"}[n]
	a.term.print("\n")
	next, _, err := cmd.Root().Find([]string{name})
	if err != nil {
		return err
	}
	next.SetContext(cmd.Context())
	return next.RunE(next, nil)
}
