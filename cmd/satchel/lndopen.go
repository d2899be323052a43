package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/source/lnd"
)

type lndOpenFlags struct {
	macaroon             string
	push                 int64
	fee                  uint64
	private              bool
	resume, abandon, yes bool
	patience             time.Duration
	dieAt                string // a test's: the process kills itself there
}

func (a *app) lndOpenCommand() *cobra.Command {
	var f lndOpenFlags
	cmd := &cobra.Command{
		Use:   "open [flags] NODE[@HOST:PORT] AMOUNT",
		Short: "Open a channel once its backup is protected",
		Long: `Opens a channel of the node so that it is never without a backup. "lncli openchannel"
sends the transaction that pays for a channel before the channel's backup has left lnd: if
the disk dies just then, the money is in a channel that no backup knows. Here the channel
is agreed on first, its backup is saved, fetched again from the places and compared, and
only then the transaction is sent. Before that it looks whether the places are there, lnd
can pay and the peer is reached, and shows what the channel costs.

If the backup cannot be protected within --patience, nothing is sent, the coins are free
again, and the channel is forgotten; the peer forgets its part after some time. So it is
if the process dies in between: "satchel lnd open --resume" then sends the transaction if
the backup is protected, and undoes all otherwise. "satchel status" and "satchel watch"
tell of an open that is not finished.

This spends, which the macaroon that Satchel keeps cannot: name one that may with
--macaroon-file, such as lnd's admin.macaroon. It is not kept. It needs:

  onchain:write, onchain:read     choose coins, sign, send
  offchain:write, offchain:read   open the channel, see its backup
  info:read, peers:write          reach the peer

AMOUNT is in satoshi, or as 0.02btc.

JSON, one object a step: time, step (begun, offered, reserved, verified, finalized,
signed, agreed, pending, protected, publishing, published, released, abandoning, cancelled,
abandoned); and a last one: opened, channel_point, undone.`,
		Example: `  satchel lnd open 02ab…@203.0.113.5:9735 1000000 \
    --macaroon-file ~/.lnd/data/chain/bitcoin/mainnet/admin.macaroon
  satchel lnd open --resume --macaroon-file admin.macaroon
  satchel lnd open --abandon --macaroon-file admin.macaroon`,
		Args: args(func(cmd *cobra.Command, got []string) error {
			if f.resume || f.abandon {
				return cobra.NoArgs(cmd, got)
			}
			return cobra.ExactArgs(2)(cmd, got)
		}),
		Annotations: exits(lndExits...),
		RunE: func(cmd *cobra.Command, got []string) error {
			return a.lndOpen(cmd.Context(), f, got)
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.macaroon, "macaroon-file", "", "a macaroon that may spend, a `file`; it is not kept")
	fl.Uint64Var(&f.fee, "sat-per-vbyte", 0, "fee `rate` of the transaction; lnd chooses if it is not given")
	fl.Int64Var(&f.push, "push", 0, "of the amount, what the peer gets at once, in `satoshi`")
	fl.BoolVar(&f.private, "private", false, "do not announce the channel to the network")
	fl.DurationVar(&f.patience, "patience", 5*time.Minute, "how long the places may take to hold the backup")
	fl.BoolVar(&f.resume, "resume", false, "finish an open that was cut short, or undo it if its backup cannot be protected")
	fl.BoolVar(&f.abandon, "abandon", false, "undo an open that was cut short")
	fl.BoolVar(&f.yes, "yes", false, "do not ask")
	fl.StringVar(&f.dieAt, "die-at", "", "kill this process at a `step`, for tests")
	_ = fl.MarkHidden("die-at") // There is one of this name.
	return cmd
}

// lndOpen is "satchel lnd open".
func (a *app) lndOpen(ctx context.Context, f lndOpenFlags, got []string) error {
	var ch lnd.NewChannel
	var err error
	if f.resume && f.abandon {
		return usagef("--resume and --abandon are two ways to end it: give one")
	}
	if f.macaroon == "" {
		return &usageError{text: "a macaroon that may spend is needed", hint: "--macaroon-file FILE, such as lnd's admin.macaroon; it is not kept"}
	}
	if len(got) == 2 {
		if ch, err = parseNewChannel(got[0], got[1]); err != nil {
			return err
		}
		ch.Push, ch.SatPerVByte, ch.Private = f.push, f.fee, f.private
		if f.push < 0 || f.push >= ch.Amount {
			return usagef("--push must be less than the amount, and not below 0")
		}
	}
	if f.dieAt != "" && !slices.Contains(lnd.Points(), lnd.Point(f.dieAt)) {
		return usagef("no such step: %s", printable(f.dieAt))
	}
	d, err := a.device()
	if err != nil {
		return err
	}
	rec, err := (&watch{app: a, name: d.name}).read()
	if err != nil {
		return err
	}
	if rec.LND == nil {
		return errNoNode
	}
	journal := a.lndJournal(d.name)
	unlock, err := a.lndOpenLock(d.name)
	if err != nil {
		return err
	}
	defer unlock()
	switch _, err := lnd.UnfinishedGated(journal); {
	case len(got) == 2 && !errors.Is(err, lnd.ErrNoOpening):
		return cmp.Or(err, lnd.ErrUnfinished)
	case len(got) < 2 && err != nil:
		return err
	}
	spends, err := lnd.ReadMacaroon(a.expandHome(f.macaroon))
	if err != nil {
		return lndSpends(err)
	}
	defer spends.Wipe()
	node, err := lndNode(rec.LND.Address, rec.LND.Cert, spends)
	if err != nil {
		return lndSpends(err)
	}
	defer node.Close()
	info, err := node.Info(ctx)
	if err != nil {
		return lndSpends(err)
	}
	if info.PubKey != rec.LND.Node {
		return lnd.ErrOtherNode
	}
	if len(got) == 2 {
		if err := a.lndBeforeOpen(ctx, d, *rec.LND, node, ch, f); err != nil {
			return err
		}
	}
	cfg := lnd.GatedConfig{
		Node: node, Journal: journal, Now: a.now, Report: a.lndStep(f.dieAt),
		Protect: func(ctx context.Context) ([]byte, error) { return a.lndProtect(ctx, d, *rec.LND, f.patience) },
	}
	point := ""
	switch {
	case f.abandon:
		err = lnd.AbandonGated(ctx, cfg)
	case f.resume:
		point, err = lnd.ResumeGated(ctx, cfg)
	default:
		point, err = lnd.OpenGated(ctx, cfg, ch)
	}
	a.progress.pause()
	_, left := lnd.UnfinishedGated(journal)
	undone := point == "" && errors.Is(left, lnd.ErrNoOpening)
	if e := a.emit(struct {
		Opened bool   `json:"opened"`
		Point  string `json:"channel_point"`
		Undone bool   `json:"undone"`
	}{point != "", point, undone}); e != nil && err == nil {
		err = e
	}
	switch {
	case point != "":
		a.say("Opened: its backup is protected, and its transaction was sent.")
		a.say("%s", point)
	case undone && err == nil:
		a.say("Undone: nothing was sent, and the coins are free again.")
	case undone && (f.resume || len(got) == 2):
		err = &hintedError{lndSays(err), undoneHint(err)}
	case err != nil && !undone:
		err = &hintedError{lndSays(err), "`satchel lnd open --resume` goes on or undoes it; the coins are free again by themselves after a day"}
	}
	return err
}

// beforeOpen is how long the places may take to answer before a channel is begun, and
// patience may allow less.
const beforeOpen = time.Minute

// lndBeforeOpen finds out what would make an open come to nothing, before a peer is
// bothered: one that agreed on a channel that was then given up counts it as pending for two
// weeks. It shows what the channel costs, and asks.
func (a *app) lndBeforeOpen(ctx context.Context, d device, rec lndRecord, node *lnd.Node, ch lnd.NewChannel, f lndOpenFlags) error {
	nothing := func(err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("nothing was begun: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, min(f.patience, beforeOpen))
	defer cancel()
	scb, err := a.lndProtectOnce(limited, d, rec, true) // Once: nothing is lost by calling this again.
	if err != nil {
		return nothing(err)
	}
	if _, known, err := node.Verify(ctx, scb); err != nil || !known {
		return nothing(lndSpends(cmp.Or(err, lnd.ErrOldLND)))
	}
	fee, err := lnd.Prepare(ctx, node, ch)
	switch {
	case errors.Is(err, lnd.ErrPeerAway) && ch.Host != "":
		return nothing(&hintedError{lndSays(err), "nobody with that key answers at that address: compare both with what the peer itself gives out"})
	case err != nil:
		return nothing(lndSays(lndSpends(err)))
	}
	a.sayField("Peer", ch.Peer)
	a.sayField("Amount", fmt.Sprintf("%d sat", ch.Amount))
	if ch.Push > 0 {
		a.sayField("Push", fmt.Sprintf("%d sat of it are the peer's at once: they are given away", ch.Push))
	} else {
		a.sayField("Push", "nothing of it is given to the peer")
	}
	text := "lnd chooses it, and cannot say now how much it is"
	if fee > 0 {
		text = fmt.Sprintf("about %d sat, for the transaction", fee)
	}
	if ch.SatPerVByte > 0 {
		text += fmt.Sprintf(", at %d sat/vbyte", ch.SatPerVByte)
	}
	a.sayField("Fee", text)
	return a.confirm(ctx, f.yes, "--yes", "Open this channel?")
}

// lndSpends adds to an error of the macaroon that was named for an open what to do: it is
// not the one that "satchel lnd connect" keeps.
func lndSpends(err error) error {
	switch {
	case errors.Is(err, lnd.ErrMacaroon), errors.Is(err, lnd.ErrPermission), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return &hintedError{err, "--macaroon-file names one of this node that may spend, such as its admin.macaroon; `satchel lnd open --help` says what it needs"}
	}
	return err
}

// undoneHint says how things stand after an open that came to nothing.
func undoneHint(err error) string {
	hint := "nothing was sent, and the coins are free again"
	if errors.Is(err, lnd.ErrNotSafe) {
		hint += "; the peer may count the channel as pending for up to two weeks, and take no other one before"
	}
	return hint
}

// lndSays adds what lnd itself says to an error: here it is what the peer or lnd's
// wallet has against it.
func lndSays(err error) error {
	e, ok := errors.AsType[*lnd.AnswerError](err)
	if !ok {
		return err
	}
	const most = 300
	text := printable(e.Message)
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return fmt.Errorf("%w: lnd says: %s", err, text)
}

// parseNewChannel reads NODE[@HOST:PORT] and AMOUNT.
func parseNewChannel(node, amount string) (ch lnd.NewChannel, err error) {
	ch.Peer, ch.Host, _ = strings.Cut(node, "@")
	if b, err := hex.DecodeString(ch.Peer); err != nil || len(b) != 33 {
		return ch, &usageError{text: "not a node's public key: " + printable(ch.Peer), hint: "66 characters of 0-9 and a-f, as in 02ab…@HOST:PORT"}
	}
	sat, err := parseHolding(amount)
	if err != nil {
		return ch, err
	}
	if sat == nil || *sat <= 0 {
		return ch, usagef("the amount is in satoshi, or as 0.02btc")
	}
	ch.Amount = *sat
	return ch, nil
}

// lndStep tells each step of an open, and ends this process at one, as SIGKILL does.
func (a *app) lndStep(dieAt string) func(lnd.Point) {
	return func(p lnd.Point) {
		_ = a.emit(struct { // The result says how it ended.
			Time time.Time `json:"time"`
			Step lnd.Point `json:"step"`
		}{a.now().UTC().Truncate(time.Millisecond), p})
		switch p {
		case lnd.PointPending:
			a.note("the channel is agreed on; nothing is paid yet: saving the backup that knows it")
		case lnd.PointProtected:
			a.note("it is protected: sending the transaction")
		}
		if string(p) == dieAt {
			if self, err := os.FindProcess(os.Getpid()); err == nil {
				_ = self.Kill()
			}
			select {} // It comes at once.
		}
	}
}

// lndOpenLock lets one process at a time open a channel with a wallet's node.
func (a *app) lndOpenLock(name string) (unlock func(), err error) {
	w := &watch{app: a, name: name}
	lock, err := w.lock("open")
	if err != nil {
		return nil, &hintedError{errors.New("another satchel opens a channel of this node"), "wait until it is done"}
	}
	return func() { lock.Unlock() }, nil
}

// lndProtect saves what the node has now, and returns its channel backup once that is
// protected.
func (a *app) lndProtect(ctx context.Context, d device, rec lndRecord, patience time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for pause := time.Second; ; pause = min(2*pause, 20*time.Second) {
		scb, err := a.lndProtectOnce(ctx, d, rec, false)
		if err == nil || errors.Is(err, lnd.ErrLost) || agent.Lasts(err) {
			return scb, err // What no further try cures.
		}
		if pause == time.Second {
			a.note("not protected yet, trying again: %s", errorText(err))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// lndProtectOnce is one try of lndProtect. If there is set, as many places as must hold the
// backup must be there just now too: what they hold stays protected while they are away.
func (a *app) lndProtectOnce(ctx context.Context, d device, rec lndRecord, there bool) ([]byte, error) {
	cfg, err := a.lndConfig(rec)
	if err != nil {
		return nil, err
	}
	b, err := a.openDevice(ctx, d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if _, err := a.lndOnce(ctx, b, rec, cfg); err != nil {
		return nil, err
	}
	res, err := b.Sync(ctx)
	if err != nil {
		return nil, err
	}
	if !res.Protected {
		return nil, satchel.ErrNotProtected
	}
	if there {
		if err := placesThere(res.Places, b.Status().Copies); err != nil {
			return nil, err
		}
	}
	scb, err := b.Get(lnd.ItemBackup)
	return scb.Open(), err
}

// placesThere returns an error unless so many places as are needed answered just now and
// hold the newest state.
func placesThere(places []satchel.PlaceStatus, copies int) error {
	n, errs := 0, []error(nil)
	for _, p := range places {
		if p.Health == satchel.HealthProtected {
			n++
		} else if p.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Address, p.Err))
		}
	}
	if n >= copies {
		return nil
	}
	return fmt.Errorf("a place is away: %w", cmp.Or(errors.Join(errs...), satchel.ErrNotProtected))
}
