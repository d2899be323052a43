package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the man pages",
		Long: `Writes a man page for satchel and for each of its commands into a directory. They
say what --help says.`,
		Example:     "  satchel man ~/.local/share/man/man1\n  man satchel-restore",
		Args:        args(cobra.ExactArgs(1)),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage),
		RunE: func(cmd *cobra.Command, got []string) error {
			if info, err := os.Stat(got[0]); err != nil || !info.IsDir() {
				return usagef("not a directory: %s", printable(got[0]))
			}
			return writeManPages(cmd.Root(), got[0])
		},
	}
}

func writeManPages(cmd *cobra.Command, dir string) error {
	if cmd.Hidden {
		return nil
	}
	name := manName(cmd)
	if err := (durable.Disk{}).WriteFile(filepath.Join(dir, name+".1"), []byte(manPage(cmd)), 0o644); err != nil {
		return err
	}
	for _, c := range cmd.Commands() {
		if err := writeManPages(c, dir); err != nil {
			return err
		}
	}
	return nil
}

func manName(cmd *cobra.Command) string {
	return strings.ReplaceAll(cmd.CommandPath(), " ", "-")
}

// manPage is the help of a command in the form of man(7). Our own few lines keep
// a Markdown parser and a YAML writer, which cobra's generator needs, out of the
// program that handles seeds.
func manPage(cmd *cobra.Command) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	name := manName(cmd)
	line(`.TH "%s" "1" "" "satchel %s" "Satchel"`, roff(strings.ToUpper(name)), satchel.Version)
	line(".SH NAME")
	line(`%s \- %s`, roff(name), roff(strings.ToLower(cmd.Short[:1])+cmd.Short[1:]))
	line(".SH SYNOPSIS")
	line(`\fB%s\fR`, roff(useLine(cmd)))
	line(".SH DESCRIPTION")
	verbatim := func(text string) { line(".nf\n%s\n.fi", roff(strings.TrimRight(text, "\n"))) }
	for paragraph := range strings.SplitSeq(cmd.Long, "\n\n") {
		line(".PP")
		if strings.HasPrefix(paragraph, " ") {
			verbatim(paragraph)
		} else {
			line("%s", roff(paragraph))
		}
	}
	if cmd.HasAvailableSubCommands() {
		line(".SH COMMANDS")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				line(".TP\n\\fB%s\\fR\n%s", roff(manName(c)+"(1)"), roff(c.Short))
			}
		}
	}
	flags := func(title string, set *pflag.FlagSet) {
		if !set.HasAvailableFlags() {
			return
		}
		line(".SH %s", title)
		set.VisitAll(func(f *pflag.Flag) {
			value, usage := pflag.UnquoteUsage(f)
			text := "--" + f.Name
			if f.Shorthand != "" {
				text = "-" + f.Shorthand + ", " + text
			}
			line(".TP\n\\fB%s\\fR %s\n%s", roff(text), roff(value), roff(usage))
		})
	}
	flags("FLAGS", cmd.LocalNonPersistentFlags())
	shared := cmd.InheritedFlags()
	if !cmd.HasParent() {
		shared = cmd.PersistentFlags()
	}
	flags("FLAGS OF EVERY COMMAND", shared)
	line(".SH EXAMPLES")
	verbatim(cmd.Example)
	line(".SH EXIT STATUS")
	verbatim(exitLines(cmd))
	if cmd.HasParent() {
		line(".SH SEE ALSO")
		line(`\fB%s\fR(1)`, roff(manName(cmd.Parent())))
	}
	return b.String()
}

// roff protects text from being read as requests.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
