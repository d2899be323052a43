package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
)

func (a *app) agentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Keep all wallets of this device up to date",
		Long: `One process that keeps the backups of all wallets of this device up to date, by
itself and with nobody watching. Each wallet is kept as "satchel watch" keeps one: what
it watches is saved at every change, what is late is brought to every place, and the
whole backup is compared there once a day.

It needs no secret and can read nothing that another device wrote. "install" has the
system start it and keep it running; programs in any language can back up through it,
see docs/agent.md.`,
		Example: `  satchel agent install --now
  satchel watch ~/wallet.dat        the agent that runs watches it, too
  satchel agent status
  satchel agent logs -f`,
		Args:        noSuchCommand,
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage),
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.agentRunCommand(), a.agentStatusCommand(), a.agentLogsCommand(), a.agentInstallCommand(), a.agentUninstallCommand())
	return cmd
}

func (a *app) agentRunCommand() *cobra.Command {
	var every time.Duration
	var keep int
	var numbers string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Keep all wallets of this device up to date, until it is ended",
		Long: `Keeps the backups of all wallets of this device up to date, until Ctrl-C or SIGTERM
ends it; the code is 0 then. A wallet that is made, restored or imported while it runs
is kept from then on, one that is forgotten is let go. What is watched for a wallet is
said by "satchel watch PATH", whose help says what is done for each; all other commands
work meanwhile.

A wallet that cannot be kept up to date, because another device took it over or its
record here is damaged, stops no other one. It is told, and tried again when something
was changed about it. Nor does a place that is slow or away hold up another wallet.

Only one agent runs for a home. A wallet that a "satchel watch" in another window
watches is left to that.

Each line says of which wallet what was done. JSON, one object an event: those of
"satchel watch", with id (greater each time) and wallet (its name, and none for what
concerns no wallet), and the events started, metrics, elsewhere, gone, blind, note.`,
		Example: `  satchel agent run
  satchel agent run --keep 8
  satchel agent run --json`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if keep < 0 {
				return usagef("--keep is a number of checkpoints, or 0 for all")
			}
			if every < 0 {
				return usagef("--every is a time, such as 12h, or 0 for never")
			}
			return a.agentRun(cmd.Context(), every, keep, numbers)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().DurationVar(&every, "every", 24*time.Hour, "how often all places of a wallet are compared; 0 for never")
	cmd.Flags().IntVar(&keep, "keep", 0, "after a comparison that found nothing wrong, prune what is older than this many checkpoints; 0 keeps all")
	cmd.Flags().StringVar(&numbers, "metrics", "", metricsHelp)
	return cmd
}

// agentDir makes the directory of the agent in the home: its lock, its log, its socket.
func (a *app) agentDir() (string, error) {
	home, err := a.home()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(home, "agent")
	return dir, durable.Disk{}.MkdirAll(dir, 0o700)
}

// agentLock is held by the agent that runs.
func (a *app) agentLock() (*durable.Lock, error) {
	dir, err := a.agentDir()
	if err != nil {
		return nil, err
	}
	return durable.Disk{}.Lock(filepath.Join(dir, "run.lock"))
}

// agentRuns reports whether an agent runs for this home. It makes nothing.
func (a *app) agentRuns() bool {
	home, err := a.home()
	if err != nil || fileStampOf(filepath.Join(home, "agent", "run.lock")) == (fileStamp{}) {
		return false
	}
	lock, err := a.agentLock()
	if err == nil {
		lock.Unlock()
	}
	return errors.Is(err, durable.ErrLocked)
}

// agentRun is "satchel agent run".
func (a *app) agentRun(ctx context.Context, every time.Duration, keep int, numbers string) error {
	dir, err := a.agentDir()
	if err != nil {
		return err
	}
	lock, err := a.agentLock()
	for try := 1; errors.Is(err, durable.ErrLocked) && try < runTries; try++ {
		// It may be a command that only looks whether an agent runs.
		pauseFor(ctx, busyPause)
		lock, err = a.agentLock()
	}
	if errors.Is(err, durable.ErrLocked) {
		return &hintedError{errors.New("another satchel agent is running for this user"), "it keeps all wallets of this device up to date: `satchel status` shows how they stand"}
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	s := newSupervisor(a, every, keep)
	log := &eventLog{path: filepath.Join(dir, logName), max: maxLog, fail: func(err error) { a.note("cannot write the agent's log: %s; it is tried again", errorText(err)) }}
	defer log.close()
	printed := newPrinter(a.printAgentEvent)
	defer printed.end()
	s.hooks = append(s.hooks, printed.add, log.add)
	alarms := newAlarms(s, filepath.Dir(dir))
	gauges := newGauges(s, alarms.board)
	var gauging net.Listener
	if numbers != "" {
		if gauging, err = listenMetrics(numbers); err != nil {
			return err
		}
	}
	names, _ := s.wallets()
	line := "satchel " + satchel.Version + " keeps " + count(len(names), "wallet") + " up to date"
	if len(names) == 0 {
		line = "satchel " + satchel.Version + ": no wallet on this device yet; it begins when there is one"
	}
	s.tell("", event{JSON: eventJSON{Event: "started"}, Line: line})
	manager := newNotifier(a.getenv)
	var beside sync.WaitGroup
	end, cancel := context.WithCancel(ctx)
	beside.Go(func() { s.serve(end, dir) })
	beside.Go(func() { alarms.run(end) })
	if gauging != nil {
		s.tell("", event{JSON: eventJSON{Event: "metrics"}, Line: "numbers for Prometheus: http://" + gauging.Addr().String() + "/metrics"})
		beside.Go(func() { gauges.serve(end, gauging) })
	}
	s.scan(ctx)
	manager.tell("READY=1", "STATUS="+line)
	beside.Go(func() { manager.watchdog(end, s) })
	s.run(ctx)
	manager.tell("STOPPING=1")
	cancel()
	beside.Wait()
	s.tell("", event{JSON: eventJSON{Event: "stopped"}, Line: "the agent ended"})
	return nil
}

// printAgentEvent prints an event: a line for a person, an object for a program.
func (a *app) printAgentEvent(e event) {
	if e.JSON.Wallet != "" {
		e.Line = fmt.Sprintf("%s: %s", printable(e.JSON.Wallet), e.Line)
	}
	a.printEvent(e)
}
