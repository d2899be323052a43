package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/https"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// guardiansFile names the key servers that this device talks to, in its home. Tokens that
// a server wants are in the keychain.
const guardiansFile = "guardians.json"

type guardianList struct {
	Guardians []string `json:"guardians"`
}

const maxGuardianList = 64 << 10 // bytes in guardians.json

// guardians lists the key servers that this device knows.
func (a *app) guardians() ([]string, error) {
	home, err := a.home()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(home, guardiansFile)
	data, err := durable.Disk{}.ReadFile(path, maxGuardianList)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var l guardianList
	if err := json.Unmarshal(data, &l); err != nil {
		return nil, fmt.Errorf("%s is not what satchel wrote: put it away, and name the key servers again with `satchel guardian add`", path)
	}
	return l.Guardians, nil
}

func (a *app) setGuardians(list []string) error {
	home, err := a.home()
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(guardianList{list}, "", "  ")
	if err != nil {
		return err
	}
	var disk durable.Disk
	if err := disk.MkdirAll(home, 0o700); err != nil {
		return err
	}
	return disk.WriteFile(filepath.Join(home, guardiansFile), append(data, '\n'), 0o600)
}

// keepGuardians adds key servers that the user named or confirmed to the list.
func (a *app) keepGuardians(servers []string) error {
	list, err := a.guardians()
	if err != nil {
		return err
	}
	n := len(list)
	for _, s := range servers {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	if len(list) == n {
		return nil
	}
	return a.setGuardians(list)
}

// tokenName names the registration token of a key server in the keychain.
func tokenName(server string) string {
	sum := sha256.Sum256([]byte(server))
	return "guardian-" + hex.EncodeToString(sum[:8])
}

// token returns the registration token of a key server, "" if there is none.
func (a *app) token(server string) string {
	if t, ok := a.tokens[server]; ok {
		return string(t.Open())
	}
	k, err := a.homeKeychain()
	if err != nil {
		return ""
	}
	t, err := k.Get(tokenName(server))
	if err != nil {
		return ""
	}
	return string(t.Open())
}

// homeKeychain is the keychain of the home, opened once.
func (a *app) homeKeychain() (keychain.Keychain, error) {
	home, err := a.home()
	if err != nil {
		return nil, err
	}
	return a.openKeychain(home)
}

// stretching is how PINs are stretched when they are set; nil is as docs/protocol.md says.
// Tests set it.
var stretching *guard.KDF

// guardianTime is how long a key server may take to answer.
const guardianTime = 15 * time.Second

// guardClient talks to the key servers that this device knows, and to those that the user
// allows while the command runs.
func (a *app) guardClient() *guard.Client {
	return &guard.Client{
		Transport: &https.Transport{Token: a.token, Client: &http.Client{Transport: a.transport(), Timeout: guardianTime}},
		Trusted: func(server string) bool {
			if slices.Contains(a.allowed, server) || slices.Contains(a.guardianFlags, server) {
				return true
			}
			list, err := a.guardians()
			known := err == nil && slices.Contains(list, server)
			if !known {
				a.unknown.add(server)
			}
			return known
		},
		KDF: stretching,
	}
}

// unknownServers are key servers that were to be asked and that this device does not
// know. It is safe for concurrent use, as a client is.
type unknownServers struct {
	mu      sync.Mutex
	list    []string
	refused []string // those that the user does not want to be asked
}

func (u *unknownServers) add(server string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !slices.Contains(u.list, server) {
		u.list = append(u.list, server)
	}
}

// take returns those since the last call, and refused says that the user said no to one.
func (u *unknownServers) take() (list []string, refused bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	list, u.list = u.list, nil
	return list, slices.ContainsFunc(list, func(s string) bool { return slices.Contains(u.refused, s) })
}

func (u *unknownServers) refuse(servers []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refused = append(u.refused, servers...)
}

// guardianFlag lets a command name key servers.
func (a *app) guardianFlag(cmd *cobra.Command, what string) {
	cmd.Flags().StringArrayVar(&a.guardianFlags, "guardian", nil, what)
}

// checkGuardianFlags returns an error if a flag names no key server.
func (a *app) checkGuardianFlags() error {
	for _, s := range a.guardianFlags {
		if err := guard.CheckServer(s); err != nil {
			return badServer(s, err)
		}
	}
	return nil
}

func badServer(name string, err error) error {
	return &usageError{text: fmt.Sprintf("not the address of a key server: %s: %v", printable(name), err), hint: "such as https://guard.example.org, with http:// only on this machine, and with no / at the end"}
}

func (a *app) guardianCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "guardian",
		Short: "The key servers that guard a PIN: list, add, replace, status",
		Long: `A PIN is short, so it is guarded: independent key servers, the guardians, each hold a
part of what opens the backup, and allow a handful of guesses. None of them sees the
PIN, or anything that it could be found out with; all of them together cannot open
the backup without the folder, and the folder cannot be opened without them.

Choose servers that do not belong to the same people: your own, a friend's, a
provider's. "satchel-keyserver" is the program that runs one.`,
		Example: `  satchel guardian add https://guard.example.org
  satchel guardian list
  satchel guardian status`,
		Args:        noSuchCommand,
		Annotations: exits(satchel.CodeDone, satchel.CodeUsage),
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.guardianListCommand(), a.guardianAddCommand(), a.guardianRemoveCommand(), a.guardianReplaceCommand(), a.guardianStatusCommand())
	return cmd
}

func (a *app) guardianListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the key servers that this device knows",
		Long: `Lists the key servers that this device knows: "satchel pin set" takes all of them.
It asks none.

JSON, one object a key server: guardian.`,
		Example:     `  satchel guardian list`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.guardians()
			if err != nil {
				return err
			}
			if len(list) == 0 {
				a.say("No key server yet: `satchel guardian add https://…`")
			}
			for _, s := range list {
				a.say("%s", printable(s))
				if err := a.emit(struct {
					Guardian string `json:"guardian"`
				}{s}); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (a *app) guardianAddCommand() *cobra.Command {
	fd := noFD
	cmd := &cobra.Command{
		Use:   "add URL...",
		Short: "Add a key server to those that this device knows",
		Long: `Asks each server whether it is a key server, and adds it to those that this device
knows. To see whether it lets this device in, an account is made there and ended at
once; nothing of a PIN or a wallet is told to it. A server that wants a registration
token gets the one that --token-fd gives, or that is typed when it asks; whoever runs
the server hands them out. The token is kept in the keychain of this device.

JSON, one object a key server: guardian, added (false if it was known).`,
		Example: `  satchel guardian add https://guard.example.org
  satchel guardian add https://a.example https://b.example --token-fd 3 3<token`,
		Args: args(cobra.MinimumNArgs(1)),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeFewServers,
			satchel.CodeServerLied, satchel.CodeNewer, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, got []string) error { return a.guardianAdd(cmd.Context(), got, fd) },
	}
	cmd.Flags().IntVar(&fd, "token-fd", noFD, "read a registration token for the servers from file descriptor `N`, one line")
	return cmd
}

func (a *app) guardianAdd(ctx context.Context, servers []string, fd int) error {
	for i, s := range servers {
		servers[i] = strings.TrimSuffix(s, "/")
		if err := guard.CheckServer(servers[i]); err != nil {
			return badServer(s, err)
		}
	}
	var token secret.Bytes
	if fd != noFD {
		var err error
		if token, err = a.fromFD(ctx, fd, "--token-fd"); err != nil {
			return err
		}
	}
	a.allowed = append(a.allowed, servers...)
	for _, s := range servers {
		token, err := a.tryGuardian(ctx, s, token)
		if err != nil {
			return err
		}
		list, err := a.guardians()
		if err != nil {
			return err
		}
		known := slices.Contains(list, s)
		if !token.Empty() {
			k, err := a.homeKeychain()
			if err == nil {
				err = k.Set(tokenName(s), token)
			}
			if err != nil {
				return fmt.Errorf("keeping the token: %w", err)
			}
		}
		if err := a.keepGuardians([]string{s}); err != nil {
			return err
		}
		if known {
			a.say("Known already: %s", printable(s))
		} else {
			a.say("Added: %s", printable(s))
		}
		if err := a.emit(struct {
			Guardian string `json:"guardian"`
			Added    bool   `json:"added"`
		}{s, !known}); err != nil {
			return err
		}
	}
	return nil
}

// tryGuardian returns an error unless a key server answers at that name and would let
// this device make an account, and the token that it wanted for that.
func (a *app) tryGuardian(ctx context.Context, server string, token secret.Bytes) (secret.Bytes, error) {
	client := a.guardClient()
	for try := 1; ; try++ {
		if !token.Empty() {
			a.tokens = map[string]secret.Bytes{server: token}
		}
		limited, cancel := context.WithTimeout(ctx, probeTime)
		err := client.Probe(limited, server)
		admits := error(nil)
		if err == nil {
			admits = client.Admits(limited, server)
		}
		cancel()
		switch {
		case ctx.Err() != nil:
			return token, ctx.Err()
		case err != nil && certificateText(err) != "":
			text := fmt.Sprintf("the key server %s %s", printable(server), certificateText(err))
			return token, &hintedError{&plainError{text, err}, "nothing was added; " + certificateHint(err)}
		case err != nil:
			return token, &hintedError{fmt.Errorf("no key server answered there: %w", err), "nothing was added; is the address right, and is it running? `curl " + printable(server) + "/satchel/v1` of a key server says that it wants a POST"}
		case !errors.Is(admits, guard.ErrToken):
			return token, admits
		}
		if a.term == nil || try == askTries {
			return token, &hintedError{admits, "nothing was added; ask whoever runs it for a token, and give it: satchel guardian add " + printable(server) + " --token-fd 3 3<FILE"}
		}
		what := "wants a registration token, which whoever runs it hands out"
		if !token.Empty() {
			what = "does not take this registration token"
		}
		a.term.print("%s\n", wrap(printable(server)+" "+what+"."))
		if token, err = a.term.secret(ctx, "Its token (not shown; Enter to stop): "); err != nil {
			return token, err
		}
		if token.Empty() {
			return token, &hintedError{admits, "nothing was added; with a token: satchel guardian add " + printable(server)}
		}
	}
}

// probeTime is how long a key server may take to say that it is one.
const probeTime = 15 * time.Second

func (a *app) guardianRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove URL",
		Short: "Forget a key server",
		Long: `Takes a key server, and its token, out of those that this device knows. One that
guards the PIN of a wallet here stays: "satchel guardian replace" takes another in
its place first.

JSON: guardian, removed.`,
		Example:     `  satchel guardian remove https://guard.example.org`,
		Args:        args(cobra.ExactArgs(1)),
		Annotations: exits(localExits...),
		RunE: func(cmd *cobra.Command, got []string) error {
			list, err := a.guardians()
			if err != nil {
				return err
			}
			s := strings.TrimSuffix(got[0], "/")
			if !slices.Contains(list, s) {
				return &usageError{text: "this device knows no such key server: " + printable(s), hint: "satchel guardian list"}
			}
			devices, err := a.devices()
			if err != nil {
				return err
			}
			for _, d := range devices {
				b, err := a.openDevice(cmd.Context(), d)
				if err != nil {
					return fmt.Errorf("looking whether it guards %s: %w", d.name, err)
				}
				used := slices.Contains(b.Guardians(), s)
				b.Close()
				if used {
					return &usageError{text: "it guards the PIN of " + printable(d.name), hint: "satchel guardian replace " + printable(s) + " https://…, or satchel pin remove"}
				}
			}
			if err := a.setGuardians(slices.DeleteFunc(list, func(l string) bool { return l == s })); err != nil {
				return err
			}
			if k, err := a.homeKeychain(); err == nil {
				if err := k.Delete(tokenName(s)); err != nil && !errors.Is(err, keychain.ErrNotFound) {
					return fmt.Errorf("deleting its token: %w", err)
				}
			}
			a.say("Removed: %s", printable(s))
			return a.emit(struct {
				Guardian string `json:"guardian"`
				Removed  bool   `json:"removed"`
			}{s, true})
		},
	}
}

func (a *app) guardianReplaceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replace OLD NEW",
		Short: "Let another key server guard the PIN in the place of one",
		Long: `Asks for the PIN, makes everything new at all key servers of the wallet, with NEW in
the place of OLD, and then ends what was there before. OLD may be gone for good: then
what cannot be told to it is told when it comes back.

JSON: id (of the slot), guardians, threshold, pending.`,
		Example:     `  satchel guardian replace https://old.example.org https://new.example.org`,
		Args:        args(cobra.ExactArgs(2)),
		Annotations: exits(pinExits...),
		RunE: func(cmd *cobra.Command, got []string) error {
			ctx := cmd.Context()
			old, fresh := strings.TrimSuffix(got[0], "/"), strings.TrimSuffix(got[1], "/")
			if err := guard.CheckServer(fresh); err != nil {
				return badServer(got[1], err)
			}
			b, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer b.Close()
			servers := b.Guardians()
			i := slices.Index(servers, old)
			if i < 0 {
				return &usageError{text: printable(old) + " does not guard a PIN of this wallet", hint: "satchel guardian status"}
			}
			if slices.Contains(servers, fresh) {
				return usagef("%s guards it already", printable(fresh))
			}
			if list, err := a.guardians(); err != nil {
				return err
			} else if !slices.Contains(list, fresh) {
				if err := a.guardianAdd(ctx, []string{fresh}, noFD); err != nil {
					return err
				}
			}
			servers = slices.Clone(servers)
			servers[i] = fresh
			owner, typed, err := a.unlockPIN(ctx, b, "The PIN stays. It is needed to guard it anew.")
			if err != nil {
				return err
			}
			return a.setPIN(ctx, b, owner, satchel.PINPlan{PIN: typed.pin, Passphrase: typed.pinPassphrase, Servers: servers, Threshold: typed.threshold})
		},
	}
	a.pinFlag(cmd)
	return cmd
}

func (a *app) guardianStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Ask the key servers of a wallet how its PIN stands",
		Long: `Asks each key server that guards the PIN of the wallet: does it answer, how many
guesses are left, is it locked and until when, how many wrong guesses were there since
the PIN was last right. It costs no guess. Wrong guesses that were not yours mean that
somebody has a copy of the folder: change the PIN.

The code is 3 if something is not as it should be and the PIN still opens, 15 if too few
key servers answer, 13 if it is locked now, 14 if it is erased.

JSON, one object a key server: guardian, state (pending, active, erased, gone,
unreachable, lying, damaged), left, locked_until, wrong, newest (whether it knows the
newest generation), error.`,
		Example:     `  satchel guardian status`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(append(slices.Clone(localExits), satchel.CodePartly, satchel.CodeLocked, satchel.CodeErased, satchel.CodeFewServers, satchel.CodeSlotDamaged, satchel.CodeInterrupted)...),
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.guardianStatus(cmd.Context()) },
	}
}

func (a *app) guardianStatus(ctx context.Context) error {
	b, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	slots, err := b.PINSlots(ctx)
	if err != nil {
		return err
	}
	if len(slots) == 0 {
		return errNoPIN
	}
	type guardianJSON struct {
		Guardian    string     `json:"guardian"`
		State       string     `json:"state"`
		Left        int        `json:"left"`
		LockedUntil *time.Time `json:"locked_until"`
		Wrong       int        `json:"wrong"`
		Newest      bool       `json:"newest"`
		Error       string     `json:"error,omitempty"`
	}
	s := &slots[0]
	if s.Err != nil {
		return s.Err
	}
	st := b.Status()
	wrong := false
	a.say("The PIN of %s: it opens with %d of %s.", a.bold(printable(st.Label)), s.Threshold, count(len(s.Servers), "key server"))
	for i := range s.Standing {
		g := &s.Standing[i]
		j := guardianJSON{Guardian: g.Server, Left: int(g.Left), Wrong: int(g.Wrong), State: standingState(g)}
		if g.Err != nil {
			j.Error = errorText(g.Err)
		} else {
			j.Newest = g.Head.Epoch == st.Epoch && g.Head.Generation == st.Generation
			if g.Until > g.Now { // By its own clock: that of this device may be wrong.
				j.LockedUntil = lockStamp(a.now().Add(time.Duration(g.Until-g.Now) * time.Millisecond))
			}
		}
		good := j.State == "active" && j.Wrong == 0 && j.LockedUntil == nil
		wrong = wrong || !good
		text := j.State
		if j.State == "erased" {
			text += " after too many wrong guesses"
		} else if g.Err == nil {
			if j.Left == 0 {
				text = "no guess left"
			} else {
				text += fmt.Sprintf(", %s left", guesses(j.Left))
			}
			if j.Wrong > 0 {
				text += fmt.Sprintf(", %s since it was last right", wrongGuesses(j.Wrong))
			}
			if j.LockedUntil != nil {
				text += ", locked until " + lockEnd(*j.LockedUntil)
			}
			if !j.Newest {
				if h := g.Head; h.Epoch > st.Epoch || h.Epoch == st.Epoch && h.Generation > st.Generation {
					text += ", knows a newer state than this device: another one writes"
				} else {
					text += ", does not know the newest state"
				}
			}
		} else {
			text = serverText(g.Err)
			if certificateText(g.Err) != "" {
				// That is the reason.
			} else if reason := strings.TrimPrefix(j.Error, guard.ErrUnreachable.Error()+": "); errors.Is(g.Err, guard.ErrUnreachable) && reason != j.Error {
				text += " (" + reason + ")"
			}
		}
		a.say("  %s", printable(g.Server))
		a.say("      %s", text)
		if err := a.emit(j); err != nil {
			return err
		}
	}
	for _, name := range st.PINEnding {
		a.say("  %s still has an account of an earlier PIN: it is told when it answers", printable(name))
	}
	if err := s.Usable(a.now()); err != nil {
		return besides(err, knownKinds(slotKinds(b.Slots())))
	}
	if wrong || st.PINPending {
		return errPartly
	}
	return nil
}

// standingState is one word for how an account stands.
func standingState(g *guard.Standing) string {
	switch {
	case errors.Is(g.Err, guard.ErrGone):
		return "gone"
	case errors.Is(g.Err, guard.ErrLie):
		return "lying"
	case g.Err != nil:
		return "unreachable"
	case g.Damaged:
		return "damaged"
	case g.State == protocol.StatePending:
		return "pending"
	case g.State == protocol.StateErased:
		return "erased"
	}
	return "active"
}

// errNoPIN says that a wallet has no PIN.
var errNoPIN error = &plainError{"this backup has no PIN", satchel.ErrNoSlot}

// keyServerText is the text of an error, with what package guard says of key servers in
// the words of a person, and in their time.
func keyServerText(err error) string {
	var fact error
	plain := ""
	if few, ok := errors.AsType[*guard.UnreachableError](err); ok {
		fact = few
		plain = fmt.Sprintf("%d of %s can be used, %d must be", few.Reached, count(few.Of, "key server"), few.Need) + failures(few.Failures, nil)
	} else if liar, ok := errors.AsType[*guard.LiarError](err); ok {
		fact, plain = liar, "false answers from "+strings.Join(liar.Servers, ", ")+failures(liar.Failures, liar.Servers)
	} else if unknown, ok := errors.AsType[*guard.UnknownError](err); ok {
		fact, plain = unknown, "this device does not know the key servers that the PIN slot names: "+strings.Join(unknown.Servers, ", ")
	} else if locked, ok := errors.AsType[*guard.LockedError](err); ok {
		fact, plain = locked, "locked until "+lockEnd(locked.Until)+", then "+guesses(locked.GuessesLeft)
	} else if wrong, ok := errors.AsType[*guard.WrongPINError](err); ok {
		fact, plain = wrong, "wrong PIN, "+guesses(wrong.GuessesLeft)+" left"
		if wrong.GuessesLeft == 0 {
			plain = "wrong PIN, and no guess left at one key server or more"
		}
	} else {
		return err.Error()
	}
	return strings.Replace(err.Error(), fact.Error(), plain, 1)
}

// failures names the key servers that failed, but for those that were named before.
func failures(list []guard.Failure, but []string) string {
	text := ""
	for _, f := range list {
		if !slices.Contains(but, f.Server) {
			text += "; " + f.Server + " " + serverText(f.Err)
		}
	}
	return text
}

// serverText says what became of one key server, after its name.
func serverText(err error) string {
	if locked, ok := errors.AsType[*guard.LockedError](err); ok {
		return "is locked until " + lockEnd(locked.Until)
	}
	if text := certificateText(err); text != "" {
		return text
	}
	for _, fact := range []struct {
		err  error
		text string
	}{
		{nil, "answered"},
		{guard.ErrLie, "gave a false answer"},
		{guard.ErrUnreachable, "does not answer"},
		{guard.ErrGone, "has no account of this PIN any more"},
		{guard.ErrErased, "erased its part after too many wrong guesses"},
		{guard.ErrSlotDamaged, "knows another slot than this one"},
		{guard.ErrToken, "wants a registration token"},
		{guard.ErrNewer, "asks for a newer version of Satchel"},
		{guard.ErrPending, "does not know yet that this PIN is final"},
	} {
		if errors.Is(err, fact.err) {
			return fact.text
		}
	}
	return "failed: " + errorText(err)
}

// lockStamp is a second in which a lock has ended for sure, for programs.
func lockStamp(t time.Time) *time.Time { return stamp(t.Add(time.Second - 1)) }

// lockEnd is when a lock has ended for sure, in local time: its minute is not over then.
func lockEnd(t time.Time) string { return moment(t.Add(time.Minute - 1)) }
