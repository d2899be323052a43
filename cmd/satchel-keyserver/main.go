// Command satchel-keyserver guards the keys behind PINs of Satchel backups. It learns
// neither PINs nor wallets, nor which cloud a backup is in.
//
// Each command is a file of this package. What they share is in config.go (where settings
// come from), settings.go (the database), masterkeys.go and tokens.go (the files in the
// data folder).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// version is that of the SDK, which is not linked here: a test compares them.
const version = "0.1.0"

func main() {
	os.Exit(run(signals(), os.Args[1:], os.Stdout, os.Stderr, os.Environ(), time.Now))
}

// signals returns a context that the first signal ends. A second one ends the program.
func signals() context.Context {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx
}

// Exit codes.
const (
	codeDone   = 0
	codeFailed = 1
	codeUsage  = 2
)

// app is what the commands share.
type app struct {
	out, err io.Writer
	environ  []string
	now      func() time.Time // of the accounts
	config   string           // the file of --config
	settings settings
}

// getenv returns a variable of the environment, "" if it is not there.
func (a *app) getenv(name string) string {
	for _, entry := range a.environ {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// hinted is an error with what to do about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// usage is an error in how the program was called.
type usage struct{ error }

// args makes a wrong number of arguments an error of usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, list []string) error {
		if err := check(c, list); err != nil {
			return usage{err}
		}
		return nil
	}
}

func run(ctx context.Context, arguments []string, stdout, stderr io.Writer, environ []string, now func() time.Time) int {
	a := &app{out: stdout, err: stderr, environ: environ, now: now}
	root := a.command()
	root.SetArgs(arguments)
	return a.execute(ctx, root)
}

// command returns the program with all its commands.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "satchel-keyserver",
		Short: "A key server for Satchel backups",
		Long: `A key server guards one secret key for each account, behind a PIN that it never
sees. It evaluates a function with that key a few times, and erases it after too
many wrong guesses. With several of them, run by people who do not know each other,
a short PIN opens an encrypted backup, and nobody can try all PINs.

It works without any configuration:

  satchel-keyserver serve

keeps its records in a folder of yours and listens on this machine only. For the
world it needs a certificate, or a proxy that has one:

  satchel-keyserver serve --listen :443 --tls-cert cert.pem --tls-key key.pem

Two files must never be lost, nor be kept in one place: the database, and the
master key that its records are sealed under. A copy of the database that is put
back gives guesses back: start the server once with --after-restore then.

What is a flag, --listen :443, can also stand in the environment, as
SATCHEL_KEYSERVER_LISTEN=:443, or in the file that --config names, as listen = :443.
A flag counts more than the environment, and that more than the file. "serve
--print-config" prints such a file, with all there is; docs/keyserver.md says more.`,
		Example: `  satchel-keyserver serve
  satchel-keyserver serve --config /etc/satchel-keyserver.conf
  satchel-keyserver token add ann
  satchel-keyserver rotate`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	root.PersistentFlags().StringVar(&a.config, "config", "", "file of settings, one a line: NAME = VALUE, with the names of the flags of serve")
	serve, rotate := a.serveCommand(), a.rotateCommand()
	all := pflag.NewFlagSet("all", pflag.ContinueOnError)
	for _, f := range []*pflag.FlagSet{serve.Flags(), rotate.Flags(), root.PersistentFlags()} {
		all.AddFlagSet(f)
	}
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return a.configure(c, all) }
	root.AddCommand(serve, rotate, a.tokenCommand(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintln(a.out, "satchel-keyserver", version)
			return nil
		},
	})
	return root
}

// execute runs a command, says what went wrong, and returns the exit code.
func (a *app) execute(ctx context.Context, root *cobra.Command) int {
	err := root.ExecuteContext(ctx)
	if err == nil {
		return codeDone
	}
	fmt.Fprintf(a.err, "satchel-keyserver: %v\n", err)
	if h, ok := errors.AsType[hinted](err); ok {
		fmt.Fprintf(a.err, "hint: %s\n", h.hint)
	}
	if _, ok := errors.AsType[usage](err); ok {
		return codeUsage
	}
	return codeFailed
}
