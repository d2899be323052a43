// Command satchel keeps an encrypted backup of a Bitcoin wallet in places of the
// user's own, and brings the wallet back.
//
// Every command is a file of this package: it reads what it was given, calls the
// SDK, and prints. What they share stands in app.go (flags, errors), home.go (the
// wallets of this device), places.go (addresses), terminal.go, secrets.go and fd.go
// (how a person or a script is asked), output.go, and hints.go.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/satchel-backup/satchel"
)

func main() {
	os.Exit(mainCode())
}

// grace is how long a command may take to end after it was asked to.
const grace = 5 * time.Second

func mainCode() int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// A pipe that nobody reads any more is an error, not the end in the middle of the
	// work.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup does
		signal.Notify(signals, syscall.SIGHUP)
	}
	// The first signal asks to stop. A second one ends the program, and so does
	// the time, for a read that hangs knows nothing of ctx.
	go func() {
		<-signals
		cancel()
		select {
		case <-signals:
		case <-time.After(grace):
		}
		os.Exit(int(satchel.CodeInterrupted))
	}()
	return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv)
}
