package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/control"
)

// errNoAgent says that nothing answers at the control socket.
var errNoAgent = errors.New("no satchel agent is running for this user")

func (a *app) agentStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show whether the agent runs, and what it does for each wallet",
		Long: `Shows whether a satchel agent runs for this user, and for each wallet of this device
what the agent does for it and whether it is protected. "satchel status" shows more of
each wallet, and needs no agent.

A wallet is watching: all is well with the agent; opening: it begins; elsewhere: a
"satchel watch" in another window keeps it up to date; or ended: nobody does, and the
reason is said.

The exit code is 0 only if the agent runs, goes on with every wallet, and all of them
are protected; otherwise it is 3.

JSON: an object of the agent (ok, version, pid, started, wallets, hanging, last), then
one of each wallet (name, state, since, error, code, hint, and status as "satchel status
--json" prints it). docs/agent.md says how a program asks the agent itself.`,
		Example: `  satchel agent status
  satchel agent status || mail -s "backup needs a look" me@example.org`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.agentStatus(cmd.Context())
		},
	}
}

// askAgent asks the agent that runs for something, and reads the answer, up to a limit.
func (a *app) askAgent(ctx context.Context, path string, into any) error {
	home, err := a.home()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+control.Host+path, nil)
	if err != nil {
		return err
	}
	res, err := control.Client(filepath.Join(home, "agent", socketName)).Do(req)
	if err != nil {
		if ctx.Err() != nil || a.agentRuns() {
			return fmt.Errorf("asking the agent: %w", err)
		}
		return errNoAgent
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("asking the agent: its answer is not what was asked for: %w", err)
	}
	return nil
}

const (
	askTime   = 30 * time.Second // the agent looks at what is watched
	maxAnswer = 64 << 20         // bytes
)

func (a *app) agentStatus(ctx context.Context) error {
	var health healthJSON
	err := a.askAgent(ctx, "/v1/health", &health)
	if errors.Is(err, errNoAgent) {
		a.say("%s.", capital(errNoAgent.Error()))
		if err := a.emit(struct {
			OK bool `json:"ok"`
		}{}); err != nil {
			return err
		}
		if !a.json {
			a.note("%s", hintFor(errNoAgent))
		}
		return errPartly
	}
	if err != nil {
		return err
	}
	var list struct{ Wallets []walletJSON }
	if err := a.askAgent(ctx, "/v1/wallets", &list); err != nil {
		return err
	}
	if err := a.emit(health); err != nil {
		return err
	}
	a.say("The agent runs since %s: satchel %s, process %d.", moment(health.Started), printable(health.Version), health.PID)
	if len(list.Wallets) == 0 {
		a.say("There is no wallet on this device.")
	}
	width := len("wallet")
	for _, w := range list.Wallets {
		width = max(width, columns(printable(w.Name)))
	}
	if len(list.Wallets) > 0 {
		a.say("")
		a.say("%-*s  %-9s  %s", width, "wallet", "agent", "backup")
	}
	well := health.OK
	for _, w := range list.Wallets {
		if err := a.emit(w); err != nil {
			return err
		}
		backup := "not known"
		switch st := w.Status; {
		case st == nil:
		case st.Protected:
			backup = fmt.Sprintf("protected, generation %d", st.Generation)
		default:
			backup = fmt.Sprintf("NOT protected, generation %d: `satchel status -w %s`", st.Generation, shellQuote(w.Name))
		}
		well = well && (w.State == sessionWatching || w.State == sessionElsewhere) && w.Status != nil && w.Status.Protected && w.Status.failed() == 0 && (w.Status.Node == nil || w.Status.Node.Begun == nil)
		a.say("%-*s  %-9s  %s", width, printable(w.Name), w.State, backup)
		if w.Error != "" {
			a.sayHanging("  why: ", printable(w.Error))
			if w.Hint != "" {
				a.sayHanging("  next: ", printable(w.Hint))
			}
		}
		if w.Status != nil && w.Status.failed() > 0 {
			a.sayHanging("  ", fmt.Sprintf("%d of what it watches is not saved as it stands: `satchel watch --list -w %s`", w.Status.failed(), shellQuote(w.Name)))
		}
		if w.Status != nil && w.Status.Node != nil && w.Status.Node.Begun != nil {
			a.sayHanging("  Lightning: ", w.Status.Node.restoreText())
		}
	}
	for _, name := range health.Hanging {
		if name == "" {
			name = "the agent itself"
		}
		a.say("HANGS: %s. `satchel agent logs` shows what it did last.", printable(name))
	}
	if !well {
		return errPartly
	}
	return nil
}

// capital begins a sentence.
func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
