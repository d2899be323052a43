package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/satchel-backup/satchel"
)

// exitCodes are the codes that any command may end with, in order.
var exitCodes = []satchel.Code{
	satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly, satchel.CodeNoBackup,
	satchel.CodeOtherDevice, satchel.CodeWrongSecret, satchel.CodeLocked, satchel.CodeErased, satchel.CodeFewServers,
	satchel.CodeServerLied, satchel.CodeSlotDamaged, satchel.CodeDamaged, satchel.CodeOlder, satchel.CodeNewer, satchel.CodeWrongWallet, satchel.CodeIncomplete, satchel.CodeListing,
	satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeFull, satchel.CodeUnreachable, satchel.CodeInterrupted,
}

// exitTexts are the table of docs/design.md, section 7.
var exitTexts = map[satchel.Code]string{
	satchel.CodeDone:         "done",
	satchel.CodeFailed:       "failed",
	satchel.CodeUsage:        "not a way to call this command, or an answer is missing",
	satchel.CodePartly:       "not protected: not in enough places, or not verified",
	satchel.CodeNoBackup:     "no backup found",
	satchel.CodeOtherDevice:  "another device writes this backup, or two did",
	satchel.CodeWrongSecret:  "wrong or mistyped secret",
	satchel.CodeLocked:       "locked after wrong PINs, until a time",
	satchel.CodeErased:       "erased by the key servers after too many wrong PINs",
	satchel.CodeFewServers:   "too few key servers answer",
	satchel.CodeServerLied:   "a key server gave false answers",
	satchel.CodeSlotDamaged:  "the slot is damaged, no secret was tried",
	satchel.CodeDamaged:      "damaged or missing",
	satchel.CodeOlder:        "older than the newest known backup",
	satchel.CodeNewer:        "written by newer software",
	satchel.CodeWrongWallet:  "another wallet than the one here",
	satchel.CodeIncomplete:   "incomplete: a required item is missing",
	satchel.CodeListing:      "a place could not be listed: what it holds is not known",
	satchel.CodeSignIn:       "sign-in needed",
	satchel.CodeWrongAccount: "wrong account",
	satchel.CodeFull:         "a place is full",
	satchel.CodeUnreachable:  "a place is unreachable",
	satchel.CodeInterrupted:  "interrupted",
}

const exitKey = "exit codes"

// exits annotates a command with its exit codes.
func exits(codes ...satchel.Code) map[string]string {
	var text []string
	for _, c := range codes {
		text = append(text, strconv.Itoa(int(c)))
	}
	return map[string]string{exitKey: strings.Join(text, " ")}
}

// Exit codes that come together.
var (
	localExits = []satchel.Code{satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeDamaged}
	saveExits  = []satchel.Code{satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly,
		satchel.CodeOtherDevice, satchel.CodeDamaged, satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeFull,
		satchel.CodeUnreachable, satchel.CodeInterrupted}
	unlockExits = []satchel.Code{satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly,
		satchel.CodeOtherDevice, satchel.CodeWrongSecret, satchel.CodeLocked, satchel.CodeErased, satchel.CodeFewServers,
		satchel.CodeServerLied, satchel.CodeSlotDamaged, satchel.CodeDamaged,
		satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeFull, satchel.CodeUnreachable, satchel.CodeInterrupted}
)

// exitLines prints the exit codes of a command.
func exitLines(cmd *cobra.Command) string {
	var b strings.Builder
	for _, f := range strings.Fields(cmd.Annotations[exitKey]) {
		n, err := strconv.Atoi(f)
		if err != nil {
			continue
		}
		fmt.Fprintf(&b, "  %-4d %s\n", n, exitTexts[satchel.Code(n)])
	}
	return strings.TrimRight(b.String(), "\n")
}

// setHelp gives the command and those below it help of one form: what it does,
// how it is called, examples, exit codes.
func setHelp(root *cobra.Command) {
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		io.WriteString(cmd.OutOrStdout(), helpText(cmd))
	})
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		_, err := io.WriteString(cmd.OutOrStdout(), helpText(cmd))
		return err
	})
}

func helpText(cmd *cobra.Command) string {
	var b strings.Builder
	section := func(title, text string) {
		if text = strings.TrimRight(text, " \n"); text != "" {
			fmt.Fprintf(&b, "\n%s\n%s\n", title, text)
		}
	}
	if cmd.Long != "" {
		b.WriteString(fill(cmd.Long) + "\n")
	} else {
		b.WriteString(cmd.Short + "\n")
	}
	section("Usage:", "  "+useLine(cmd))
	commands := func(group string) string {
		var lines strings.Builder
		for _, c := range cmd.Commands() {
			if c.GroupID == group && c.IsAvailableCommand() {
				fmt.Fprintf(&lines, "  %-*s %s\n", cmd.NamePadding(), c.Name(), c.Short)
			}
		}
		return lines.String()
	}
	for _, g := range cmd.Groups() {
		section(g.Title, commands(g.ID))
	}
	section("Commands:", commands(""))
	section("Flags:", flagLines(cmd.LocalNonPersistentFlags()))
	shared := cmd.InheritedFlags()
	if !cmd.HasParent() {
		shared = cmd.PersistentFlags()
	}
	section("Flags of every command:", flagLines(shared))
	section("Examples:", cmd.Example)
	section("Exit codes:", exitLines(cmd))
	return b.String()
}

const helpWidth = 80

// flagLines prints flags, each with what it is for beside it.
func flagLines(flags *pflag.FlagSet) string {
	type line struct{ name, text string }
	var lines []line
	width := 0
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		l := line{name: "      --" + f.Name}
		if f.Shorthand != "" {
			l.name = fmt.Sprintf("  -%s, --%s", f.Shorthand, f.Name)
		}
		value, text := pflag.UnquoteUsage(f)
		if value != "" {
			l.name += " " + value
		}
		l.text = text
		switch f.DefValue {
		case "", "0", "false", "[]", strconv.Itoa(noFD): // not given
		default:
			l.text += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		lines, width = append(lines, l), max(width, columns(l.name))
	})
	const gap = 3
	var b strings.Builder
	for _, l := range lines {
		for i, part := range strings.Split(wrapAt(l.text, helpWidth-width-gap), "\n") {
			if i > 0 {
				l.name = ""
			}
			fmt.Fprintf(&b, "%-*s%s\n", width+gap, l.name, part)
		}
	}
	return b.String()
}

// fill breaks the paragraphs of a text anew. One that begins with a space is a
// list and stays.
func fill(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		if !strings.HasPrefix(p, " ") {
			paragraphs[i] = wrap(p)
		}
	}
	return strings.Join(paragraphs, "\n\n")
}

func useLine(cmd *cobra.Command) string {
	if cmd.HasAvailableSubCommands() {
		return cmd.CommandPath() + " COMMAND"
	}
	return cmd.UseLine()
}

func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "help [COMMAND]",
		Short:       "Explain a command",
		Long:        "Explains a command, as COMMAND --help does.",
		Example:     "  satchel help restore",
		Annotations: exits(satchel.CodeDone, satchel.CodeUsage),
		Hidden:      true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return noSuchCommand(cmd.Root(), args)
			}
			return c.Help()
		},
	}
}
