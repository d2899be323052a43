// Command satchel keeps an encrypted backup of a Bitcoin wallet in places of the
// user's own, and brings the wallet back.
//
// Every command is a file of this package: it reads what it was given, calls the
// SDK, and prints. What they share stands in app.go (flags, errors), home.go (the
// wallets of this device), places.go (addresses), terminal.go and secrets.go (how
// a person or a script is asked), output.go, and hints.go.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(mainCode())
}

func mainCode() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks to stop; a second one is not caught and ends the program.
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv)
}
