// Command satchel-keyserver guards the keys behind PINs of Satchel backups. It learns
// neither PINs nor wallets, nor which cloud a backup is in.
//
// Each command is a file of this package. What they share is in settings.go (flags and
// the environment), masterkeys.go and tokens.go (the files in the data folder).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// version is that of the SDK, which is not linked here: a test compares them.
const version = "0.1.0"

func main() {
	os.Exit(run(signals(), os.Args[1:], os.Stdout, os.Stderr, os.Getenv, time.Now))
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
	getenv   func(string) string
	now      func() time.Time // of the accounts
	settings settings
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

func run(ctx context.Context, arguments []string, stdout, stderr io.Writer, getenv func(string) string, now func() time.Time) int {
	a := &app{out: stdout, err: stderr, getenv: getenv, now: now}
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

Every flag can be given in the environment, as SATCHEL_KEYSERVER_ and the name of the
flag: SATCHEL_KEYSERVER_LISTEN=:443. docs/keyserver.md says more.`,
		Example:           "  satchel-keyserver serve\n  satchel-keyserver token add ann\n  satchel-keyserver rotate",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return a.environment(c) },
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(arguments)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	root.AddCommand(a.serveCommand(), a.rotateCommand(), a.tokenCommand(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintln(a.out, "satchel-keyserver", version)
			return nil
		},
	})
	err := root.ExecuteContext(ctx)
	if err == nil {
		return codeDone
	}
	fmt.Fprintf(stderr, "satchel-keyserver: %v\n", err)
	if h, ok := errors.AsType[hinted](err); ok {
		fmt.Fprintf(stderr, "hint: %s\n", h.hint)
	}
	if _, ok := errors.AsType[usage](err); ok {
		return codeUsage
	}
	return codeFailed
}
