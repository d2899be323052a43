package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/signin"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/source/lnd"
	"github.com/satchel-backup/satchel/wallet"
)

// What a restore of a node can meet, beside what source/lnd says.
var (
	// errNotLNDKeys says that the wallet's keys make no lnd node.
	errNotLNDKeys = errors.New("the keys in this backup are BIP 39 words, of which lnd makes no node")
	// errNoSCB says that a backup holds no channels.
	errNoSCB = errors.New("there is no channel backup of a node in this backup")
	// errStaleSCB says that a node that is there knows channels that no backup does.
	errStaleSCB = errors.New("the node is there, and its own channels are newer than the backup")
	// errWholeNode says that a node is there and lacks nothing.
	errWholeNode = errors.New("the node is there, and has every channel of the backup")
	// errLNDEnded says that lnd went away while it was being restored.
	errLNDEnded = errors.New("lnd ended while it was being restored")
)

type lndRestoreFlags struct {
	restoreFlags
	lndFlags
	window     int
	passwordFD int
	follow     bool
	all        bool
	once       bool
}

func (a *app) lndRestoreCommand() *cobra.Command {
	f := lndRestoreFlags{}
	cmd := &cobra.Command{
		Use:   "restore [flags] [BACKUP]",
		Short: "Bring a Lightning node back that lost its disk",
		Long: `Brings an lnd node back on a machine where lnd runs and has no wallet yet: do not call
"lncli create". If the wallet is not on this device, it is looked for, opened and
restored first, as by "satchel restore". Then lnd

  makes its wallet from the node's own 24 words (aezeed) or its xprv, and looks
  for its coins; it is given a new password, which is asked for twice;
  learns of every channel that any kept channel backup knows, and asks each peer
  to close it;
  sweeps what comes back to its own wallet.

This shows how far that is, and which peers must be reached, until all is swept or
Ctrl-C: lnd goes on by itself, and "satchel lnd restore --follow" shows it again. It can
also be called again after any interruption, and goes on from there; and if the node is
lost again before its channels have closed.

lnd is never told to close a channel itself: a channel backup does not hold the newest
state of a channel, and publishing an older one would forfeit what is in it. So a peer
must be there and close it; most do at once, some after days.

A node that has another wallet is left alone. If the wallet's keys are BIP 39 words,
because the backup holds the channels alone, make the node's wallet first, from the
24 words on paper, with "lncli create", and without a channel backup; then call this.

To restore fully, the node's own data must be gone: a node that lost nothing is told
apart, and left as it is.

JSON: what "satchel restore" prints, if it restores the wallet; then one object an
event: time, event (wallet made, macaroon, backup handed over, backup refused, peer,
progress, done, no restore), and where it fits node, network, channels, peer, connected, error, code,
synced, recovered (0 to 1), waiting, blocks, limbo, swept (satoshi), ending (channel_point,
peer, state, limbo, blocks, connected).`,
		Example: `  satchel lnd restore
  satchel lnd restore --from gdrive:
  satchel lnd restore --follow
  satchel lnd restore --from /srv/backup --yes --json --secret-fd 3 3<code \
    --lnd-password-fd 4 4<password`,
		Args: args(cobra.MaximumNArgs(1)),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly, satchel.CodeNoBackup,
			satchel.CodeOtherDevice, satchel.CodeWrongSecret, satchel.CodeLocked, satchel.CodeErased, satchel.CodeFewServers,
			satchel.CodeServerLied, satchel.CodeSlotDamaged, satchel.CodeDamaged, satchel.CodeOlder,
			satchel.CodeNewer, satchel.CodeWrongWallet, satchel.CodeIncomplete, satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount,
			satchel.CodeUnreachable, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.window < 0 || f.window > maxWindow {
				return usagef("--recovery-window is from 0 to %d", maxWindow)
			}
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			if f.follow {
				return a.lndFollow(cmd.Context(), f.once)
			}
			return a.lndRestore(cmd, f, name)
		},
	}
	f.lndFlags.flags(cmd)
	fl := cmd.Flags()
	fl.StringArrayVar(&f.from, "from", nil, "a `place` to look for the backup in, as for \"satchel restore\"; repeat it for several")
	fl.IntVar(&f.window, "recovery-window", defaultWindow, "how many unused addresses in a row end lnd's search for coins, a `number`")
	fl.IntVar(&f.passwordFD, "lnd-password-fd", noFD, "read the new password of lnd's wallet from file descriptor `N`, one line")
	fl.BoolVar(&f.all, "all-versions", false, "hand over every channel backup that the places ever held, also where all its channels had ended")
	fl.BoolVar(&f.follow, "follow", false, "only show how far it is, until all is swept")
	fl.BoolVar(&f.once, "once", false, "with --follow: show it once; the code is 3 until all is swept")
	fl.BoolVar(&f.yes, "yes", false, "restore without asking")
	a.secretFlag(cmd, "the secret of the backup")
	a.guardianFlag(cmd, "a key server, by its `URL`, that may be asked for what the PIN guards; repeat it for several")
	fl.BoolVar(&a.trustGuardians, "trust-guardians", false, "ask the key servers that the backup names, also unknown ones")
	a.passphraseFlag(cmd)
	a.passwordFlag(cmd)
	return cmd
}

const (
	defaultWindow = 2500 // lnd's own
	maxWindow     = 1_000_000

	lndPoll     = 2 * time.Second
	lndPatience = 2 * time.Minute // how long lnd may be away, while it restores
)

// nodeBackup is what a backup holds of a node.
type nodeBackup struct {
	keys wallet.Keys     // none if they are not here
	scbs []channelBackup // in the order in which lnd gets them, each once
	// singles are backups of channels that are in scbs beside such as lnd cannot restore.
	singles []lnd.Single
	// here says that the places were looked through, and that this device holds all of it.
	here bool
	node nodeItem
	// peers are those of the newest state.
	peers peersItem
}

// channelBackup is a channel backup.
type channelBackup struct {
	multi   []byte
	place   int // 0 is the newest
	account *lnd.Account
	version bool // only the places hold it
}

// less reports whether lnd exported a channel of it that it knew from a backup only: lnd
// cannot restore that from it, and stands still over it.
func (s channelBackup) less() bool {
	return s.account != nil && s.account.Asked && len(s.account.Restored) > 0
}

// whole reports whether it is known that lnd can restore all channels of it.
func (s channelBackup) whole() bool {
	return s.account != nil && s.account.Asked && len(s.account.Restored) == 0
}

// inOrder puts the channel backups into the order in which lnd gets them: those that it
// can restore from first, and of each kind the newest first. What an earlier satchel kept
// may be less without being known to be: where another one knows the same channels and is
// longer, the longest goes first.
func inOrder(scbs []channelBackup) {
	if len(scbs) == 0 {
		return
	}
	newest, longest := scbs[0], scbs[0]
	for _, s := range scbs[1:] {
		same := newest.account != nil && !newest.account.Asked && s.account != nil && slices.Equal(s.account.Channels, newest.account.Channels)
		if same && len(s.multi) > len(longest.multi) {
			longest = s
		}
	}
	rank := func(s channelBackup) int {
		switch {
		case s.whole():
			return 0
		case s.less():
			return 3
		case s.place == longest.place:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(scbs, func(a, b channelBackup) int { return cmp.Compare(rank(a), rank(b)) })
}

// nodeItem and peersItem are what a restore has to know of lnd.ItemNode and lnd.ItemPeers.
type (
	nodeItem struct {
		Node    string `json:"node"`
		Network string `json:"network"`
	}
	peersItem struct {
		Peers []peerItem `json:"peers"`
	}
	peerItem struct {
		Node      string   `json:"node"`
		Alias     string   `json:"alias"`
		Addresses []string `json:"addresses"`
	}
)

func (a *app) lndRestore(cmd *cobra.Command, f lndRestoreFlags, name string) error {
	ctx := cmd.Context()
	r := &lndRestorer{app: a, flags: f}
	defer func() { r.password.Wipe() }()
	// Before anything is asked for: is there an lnd at all, and could it be restored?
	if err := r.find(ctx); err != nil {
		return err
	}
	d, opened, err := r.wallet(cmd, name)
	if err != nil {
		return err
	}
	if r.kept, err = a.lndKept(ctx, d, opened, f.all); err != nil {
		return err
	}
	r.device, r.begun = d, a.lndBegun(d.name)
	if err := r.network(r.kept.node.Network, d.info.Network); err != nil {
		return err
	}
	if err := r.run(ctx); err != nil {
		return err
	}
	err = a.lndFollowWith(ctx, d, r.node, false)
	if err == nil || ctx.Err() != nil {
		a.sayAfterLNDRestore()
	}
	return err
}

// sayAfterLNDRestore says what a restore cannot know or do, to whoever sees it end, or ends
// looking at it.
func (a *app) sayAfterLNDRestore() {
	a.sayHanging("", "Coins of transactions that were not confirmed yet when the node was lost may be missing: lnd does not find what is confirmed after its search for coins. If so, and once they are confirmed, restore anew into an empty lnd.")
	a.sayHanging("", "Alarms and the agent are of a device: on this one, set them anew with `satchel alarm add` and `satchel agent install`, or nobody is told when something is wrong.")
}

// find looks which lnd is here, waits until it has started, and reads the new password
// of its wallet if that was given: what is wrong with these is said before a secret is
// asked for, and before another device is stopped.
func (r *lndRestorer) find(ctx context.Context) error {
	a, f := r.app, r.flags
	network := ""
	if d, err := a.device(); err == nil {
		network = string(d.info.Network)
	}
	if f.address == "" {
		_, err := lnd.Find(a.expandHome(f.dir), f.network)
		if several, ok := errors.AsType[*lnd.NetworksError](err); ok && !slices.Contains(several.Networks, network) {
			network = several.Networks[0] // One lnd runs, whose network the backup names.
		}
	}
	inst, err := f.install(a, network)
	if err != nil {
		return err
	}
	if r.node, err = lndNode(inst.Address, inst.Cert, secret.Bytes{}); err != nil {
		return err
	}
	if r.state, err = r.wait(ctx, lnd.NonExisting, lnd.Locked, lnd.RPCActive, lnd.ServerActive); err != nil {
		return err
	}
	if r.state == lnd.Locked {
		return errLNDHasWallet()
	}
	if f.passwordFD == noFD {
		return nil
	}
	if r.password, err = a.fromFD(ctx, f.passwordFD, "--lnd-password-fd"); err != nil {
		return err
	}
	if r.state == lnd.NonExisting {
		return lndPasswordLong(r.password)
	}
	return nil
}

// errLNDHasWallet says that lnd's wallet is locked, so that nobody can tell whose it is.
func errLNDHasWallet() error {
	return &hintedError{lnd.ErrLocked, "lnd has a wallet. If it is the one that was being restored: lncli unlock, then this command again. If it is another one, nothing was touched: restore on a machine, or in a directory, where lnd has none"}
}

// network finds the lnd of the network that a node's backup and its wallet are of. That
// of the node is not known where an earlier satchel made the backup.
func (r *lndRestorer) network(node string, of wallet.Network) error {
	network := cmp.Or(node, string(of))
	inst, err := r.flags.install(r.app, network)
	if err != nil {
		return err
	}
	if !sameNetwork(of, inst.Network) || node != "" && node != inst.Network {
		return fmt.Errorf("the node here is on %s, the backup is of %s: %w", printable(inst.Network), printable(network), lnd.ErrNetwork)
	}
	r.inst = inst
	return nil
}

// fits returns an error if the lnd here is not one that this backup can be restored to:
// before the backup is taken over from another device, which stops that one.
func (r *lndRestorer) fits(ctx context.Context, o *satchel.Opened) error {
	p := o.Preview()
	has := func(name string) bool {
		return slices.ContainsFunc(p.Items, func(i satchel.ItemInfo) bool { return i.Name == name })
	}
	if !has(lnd.ItemBackup) {
		return errNoSCB
	}
	if has(lnd.ItemNode) {
		value, err := o.Value(ctx, lnd.ItemNode)
		r.app.progress.pause()
		if err != nil {
			return err
		}
		if json.Unmarshal(value.Open(), &r.kept.node) != nil {
			r.kept.node = nodeItem{}
		}
	}
	if err := r.network(r.kept.node.Network, p.Network); err != nil {
		return err
	}
	node, err := lndNode(r.inst.Address, r.inst.Cert, secret.Bytes{})
	if err != nil {
		return err
	}
	r.node = node
	state, err := r.wait(ctx, lnd.NonExisting, lnd.Locked, lnd.RPCActive, lnd.ServerActive)
	switch {
	case err != nil:
		return err
	case state == lnd.Locked:
		return errLNDHasWallet()
	case state == lnd.NonExisting && p.Kind != wallet.KindAezeed && p.Kind != wallet.KindXPrv:
		return errNotLNDKeys
	case state == lnd.NonExisting:
		return nil
	}
	if err := r.open(); err != nil {
		return err
	}
	_, err = r.sameNode(ctx)
	return err
}

// wallet is the wallet whose node is restored: the one on this device, or one that is
// restored now. opened is its backup as the places hold it, nil if nobody opened that.
func (r *lndRestorer) wallet(cmd *cobra.Command, name string) (d device, opened *satchel.Opened, err error) {
	a, f := r.app, r.flags
	ctx := cmd.Context()
	if len(f.from) == 0 && name == "" {
		d, err = a.device()
		if err == nil && !f.all {
			if begun := a.lndBegun(d.name); begun != nil && (begun.Here || begun.Handed && r.state != lnd.NonExisting) {
				return d, nil, nil // It goes on with what this device holds.
			}
		}
		if err == nil {
			opened, err = a.lndOlder(ctx, d)
			return d, opened, err
		}
		if !errors.Is(err, satchel.ErrNoDevice) {
			return d, nil, err
		}
	}
	f.fits, f.restored = r.fits, func(o *satchel.Opened) { opened = o }
	switch err := a.restore(cmd, f.restoreFlags, name); {
	case errors.Is(err, satchel.ErrNotProtected) && opened != nil:
		// The wallet is here, and its money is what is urgent.
		a.note("%s", errorText(err))
	case err != nil:
		return d, nil, err
	}
	devices, err := a.devices()
	if err != nil {
		return d, nil, err
	}
	i := slices.IndexFunc(devices, func(d device) bool { return opened != nil && d.info.ID == opened.Preview().ID })
	if i < 0 {
		return d, nil, satchel.ErrNoDevice
	}
	return devices[i], opened, nil
}

// lndOlder opens the backup of a wallet that is on this device, for the channel backups
// that other devices wrote beside it. Without a secret what this device holds has to do:
// each backup that knows a channel which the newest does not.
func (a *app) lndOlder(ctx context.Context, d device) (*satchel.Opened, error) {
	if a.term == nil && a.secretFD == noFD && a.pinFD == noFD {
		a.note("what this device holds is used; states that it does not know were not looked into, which needs --secret-fd or --pin-fd")
		return nil, nil
	}
	b, err := a.openDevice(ctx, d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return a.look(ctx, b)
}

// lndKept reads what a backup holds of a node.
func (a *app) lndKept(ctx context.Context, d device, opened *satchel.Opened, all bool) (kept nodeBackup, err error) {
	b, err := a.openDevice(ctx, d)
	if err != nil {
		return kept, err
	}
	defer b.Close()
	accounts := map[[32]byte]lnd.Account{}
	judged := false
	switch value, err := b.Get(lnd.ItemChannels); {
	case err == nil:
		judged = true
		maps.Copy(accounts, lnd.ReadAccounts(value.Open()))
	case !errors.Is(err, satchel.ErrNoItem):
		return kept, err
	}
	seen := map[[32]byte]bool{}
	add := func(value secret.Bytes, version bool) {
		sum := sha256.Sum256(value.Open())
		if seen[sum] || value.Empty() {
			return
		}
		seen[sum] = true
		s := channelBackup{multi: bytes.Clone(value.Open()), place: len(kept.scbs), version: version}
		if account, ok := accounts[sum]; ok {
			s.account = &account
		}
		kept.scbs = append(kept.scbs, s)
	}
	newest, err := b.Get(lnd.ItemBackup)
	if errors.Is(err, satchel.ErrNoItem) {
		return kept, errNoSCB
	}
	if err != nil {
		return kept, err
	}
	add(newest, false)
	for _, i := range b.Items() {
		if strings.HasPrefix(i.Name, lnd.ItemOlder) {
			value, err := b.Get(i.Name)
			if err != nil {
				return kept, err
			}
			add(value, false)
		}
	}
	singles := func(value secret.Bytes) {
		for _, s := range lnd.ReadSingles(value.Open()) {
			if !slices.ContainsFunc(kept.singles, func(o lnd.Single) bool { return o.Channel == s.Channel }) {
				kept.singles = append(kept.singles, s)
			}
		}
	}
	switch value, err := b.Get(lnd.ItemSingles); {
	case err == nil:
		singles(value)
	case !errors.Is(err, satchel.ErrNoItem):
		return kept, err
	}
	if opened != nil {
		kept.here = true
		values, err := opened.Versions(ctx, lnd.ItemBackup, lnd.ItemOlder, lnd.ItemChannels, lnd.ItemSingles)
		a.progress.pause()
		if err != nil {
			// What was had is restored; what was not is said.
			a.note("not all older channel backups could be had: %s", errorText(err))
			kept.here = false
		}
		for _, v := range values {
			if v.Item == lnd.ItemChannels {
				for sum, account := range lnd.ReadAccounts(v.Value.Open()) {
					if was, ok := accounts[sum]; !ok || !was.Asked {
						accounts[sum] = account
					}
				}
			}
		}
		for _, v := range values {
			// Where the source kept account of the channels, what it let go knows no more than
			// channels that lnd had said to be closed for good, or that never came to be. lnd
			// would wait for the latter for ever. An earlier satchel may have let go what knew
			// more of the same channels.
			wanted := v.Branch || all || !judged
			switch {
			case v.Item == lnd.ItemChannels:
			case v.Item == lnd.ItemSingles && wanted:
				singles(v.Value)
			case v.Item == lnd.ItemSingles:
			case wanted || fuller(kept.scbs[0], v.Value.Open(), accounts):
				add(v.Value, true)
			}
		}
		kept.here = kept.here && !slices.ContainsFunc(kept.scbs, func(s channelBackup) bool { return s.version })
	}
	inOrder(kept.scbs)
	for name, to := range map[string]any{lnd.ItemNode: &kept.node, lnd.ItemPeers: &kept.peers} {
		value, err := b.Get(name)
		if errors.Is(err, satchel.ErrNoItem) {
			continue
		}
		if err != nil {
			return kept, err
		}
		if err := json.Unmarshal(value.Open(), to); err != nil {
			a.note("%s is not what satchel wrote", name)
		}
	}
	kept.keys, err = b.Keys()
	if errors.Is(err, satchel.ErrNoItem) {
		err = nil // They are on paper.
	}
	return kept, err
}

// fuller reports whether a channel backup knows the same channels as the newest one, and
// more of them, where an earlier satchel kept that.
func fuller(newest channelBackup, multi []byte, accounts map[[32]byte]lnd.Account) bool {
	account, ok := accounts[sha256.Sum256(multi)]
	return ok && newest.account != nil && !newest.account.Asked && len(multi) > len(newest.multi) && slices.Equal(account.Channels, newest.account.Channels)
}

// lndRestorer brings one node back.
type lndRestorer struct {
	app    *app
	device device
	kept   nodeBackup
	inst   *lnd.Install
	flags  lndRestoreFlags
	// password is the new one of lnd's wallet, if it was given.
	password secret.Bytes
	begun    *lndBegun // nil if it begins now
	state    lnd.State // of lnd before anything was done

	node  *lnd.Node    // with the macaroon that may do all
	admin secret.Bytes // that macaroon
	made  bool         // its wallet was made just now
}

// lndEvent is what a restore tells.
type lndEvent struct {
	Time      time.Time `json:"time"`
	Event     string    `json:"event"`
	Node      string    `json:"node,omitempty"`
	Network   string    `json:"network,omitempty"`
	Channels  *int      `json:"channels,omitempty"`
	Peer      string    `json:"peer,omitempty"`
	Connected *bool     `json:"connected,omitempty"`
	*lndProgress
	Error string `json:"error,omitempty"`
	Code  int    `json:"code,omitempty"`
}

// lndTell prints an event of a restore: a line for a person, an object for a program.
func (a *app) lndTell(e lndEvent, format string, values ...any) {
	e.Time = a.now().UTC().Truncate(time.Millisecond)
	a.say("%s %s", a.now().Local().Format(time.TimeOnly), fmt.Sprintf(format, values...))
	if err := a.emit(e); err != nil && a.unsaid == nil {
		a.unsaid = err
	}
}

func (r *lndRestorer) run(ctx context.Context) error {
	var err error
	if r.node, err = lndNode(r.inst.Address, r.inst.Cert, secret.Bytes{}); err != nil {
		return err
	}
	state, err := r.wait(ctx, lnd.NonExisting, lnd.Locked, lnd.RPCActive, lnd.ServerActive)
	switch {
	case err != nil:
		return err
	case state == lnd.Locked:
		return errLNDHasWallet()
	case state == lnd.NonExisting:
		err = r.make(ctx)
	default:
		err = r.open()
	}
	if err != nil {
		return err
	}
	if err := r.whose(ctx); err != nil {
		return err
	}
	// Before, it answers some calls only when it has looked for its coins, and has not read
	// the backup that came with its wallet.
	if _, err := r.wait(ctx, lnd.ServerActive); err != nil {
		return err
	}
	// A node that turns out to be whole is taken in as well, so that what it has is saved.
	if err := r.connectNode(ctx, r.begun != nil); err != nil {
		return err
	}
	if err := r.handOver(ctx); err != nil {
		return err
	}
	if err := r.connectNode(ctx, true); err != nil {
		return err
	}
	r.reachPeers(ctx)
	return nil
}

// open takes the macaroon that may do all.
func (r *lndRestorer) open() error {
	var err error
	if r.admin, err = lnd.ReadMacaroon(r.inst.Admin); err != nil {
		return &hintedError{fmt.Errorf("lnd has a wallet, and its macaroon is needed: %w", err), "--macaroon-file FILE names an admin macaroon"}
	}
	r.node = r.node.With(r.admin)
	return nil
}

// begin takes note of the restore before lnd is changed.
func (r *lndRestorer) begin() error {
	if r.begun == nil || r.state == lnd.NonExisting && r.begun.Handed {
		here := r.begun != nil && r.begun.Here
		r.begun = &lndBegun{Here: here, Node: r.kept.node.Node, Network: r.inst.Network, Begun: r.app.now().UTC().Truncate(time.Second)}
	}
	r.begun.Here = r.begun.Here || r.kept.here
	return r.app.keepLNDBegun(r.device.name, *r.begun)
}

// wait waits until lnd has come to one of the states.
func (r *lndRestorer) wait(ctx context.Context, states ...lnd.State) (lnd.State, error) {
	said := ""
	var away time.Time
	for {
		state, err := r.node.State(ctx)
		switch {
		case err == nil && slices.Contains(states, state):
			return state, nil
		case err == nil:
			away = time.Time{}
			if now := r.starting(ctx, state); now != said {
				said = now
				r.app.progress.pause()
				r.app.note("%s", now)
			}
		case !errors.Is(err, lnd.ErrUnreachable) || !r.made:
			return "", err
		case away.IsZero():
			away = time.Now()
		case time.Since(away) > lndPatience:
			return "", fmt.Errorf("%w: %w", errLNDEnded, err)
		}
		select {
		case <-time.After(lndPoll):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// starting says how far an lnd is that starts.
func (r *lndRestorer) starting(ctx context.Context, state lnd.State) string {
	switch state {
	case lnd.RPCActive:
	case lnd.Locked:
		return "lnd waits for the password of its wallet: lncli unlock"
	default:
		return "lnd is starting"
	}
	text := "lnd reads the chain, and looks for its coins, which takes long where there are many blocks"
	ctx, cancel := context.WithTimeout(ctx, lndPoll)
	defer cancel()
	if rec, err := r.node.Recovery(ctx); err == nil && rec.On && !rec.Finished {
		text += fmt.Sprintf(": %.0f %%", 100*rec.Progress)
	}
	return text
}

// make makes the node's wallet, and gives it the newest channel backup. Over one that it
// cannot restore from, lnd would end.
func (r *lndRestorer) make(ctx context.Context) error {
	a, keys := r.app, r.kept.keys
	w := lnd.NewWallet{Window: r.flags.window}
	if first := r.kept.scbs[0]; first.whole() || !slices.ContainsFunc(r.kept.scbs, channelBackup.less) {
		w.Backup = first.multi
	}
	switch keys.Kind() {
	case wallet.KindAezeed:
		w.Words, w.Passphrase = keys.Aezeed().Sentence(), keys.Passphrase()
		if keys.PassphraseState() == wallet.NeededPassphrase {
			var err error
			if w.Passphrase, err = a.lndSeedPassphrase(ctx); err != nil {
				return err
			}
		}
	case wallet.KindXPrv:
		w.XPrv = keys.XPrv()
		w.Birthday, _ = time.Parse(time.DateOnly, keys.Made()) // The zero time if it is not known.
	default:
		return errNotLNDKeys
	}
	var err error
	if r.password.Empty() {
		if r.password, err = a.lndPassword(ctx); err != nil {
			return err
		}
	}
	w.Password = r.password
	fresh := r.begun == nil
	if err := r.begin(); err != nil {
		return err
	}
	r.admin, err = r.node.InitWallet(ctx, w)
	if err != nil {
		if fresh && !errors.Is(err, lnd.ErrUnreachable) && ctx.Err() == nil { // Nothing was done.
			return errors.Join(err, a.forgetLNDBegun(r.device.name))
		}
		return err
	}
	r.made = true
	r.node = r.node.With(r.admin)
	a.lndTell(lndEvent{Event: "wallet made"}, "lnd made its wallet from the backup, and looks for its coins")
	_, err = r.wait(ctx, lnd.RPCActive, lnd.ServerActive)
	return err
}

// lndSeedPassphrase asks for the passphrase of a node's words, which is not kept.
func (a *app) lndSeedPassphrase(ctx context.Context) (secret.Bytes, error) {
	if a.passphraseFD != noFD {
		return a.fromFD(ctx, a.passphraseFD, "--passphrase-fd")
	}
	if a.term == nil {
		return secret.Bytes{}, needFlag("the passphrase of the node's words", "--passphrase-fd N")
	}
	return a.term.secret(ctx, "Passphrase of the node's 24 words (not shown): ")
}

// lndPassword asks for a new password for lnd's wallet.
func (a *app) lndPassword(ctx context.Context) (secret.Bytes, error) {
	if a.term == nil {
		return secret.Bytes{}, needFlag("a new password for lnd's wallet", "--lnd-password-fd N")
	}
	a.term.print("\nA new password for lnd's wallet, of 8 characters or more: lncli unlock asks for\nit at each start. It need not be the one from before.\n")
	return a.twice(ctx, "New password (not shown): ", lndPasswordLong)
}

// minLNDPassword is lnd's own bound.
const minLNDPassword = 8

func lndPasswordLong(typed secret.Bytes) error {
	if typed.Len() < minLNDPassword {
		return lnd.ErrPassword
	}
	return nil
}

// whose makes sure that the node is the one that the backup is of.
func (r *lndRestorer) whose(ctx context.Context) error {
	info, err := r.sameNode(ctx)
	if err != nil {
		return err
	}
	r.inst.Network, r.kept.node.Node = info.Network, info.PubKey
	r.app.lndTell(lndEvent{Event: "node", Node: info.PubKey, Network: info.Network}, "it is the node of the backup: %s", info.PubKey)
	return nil
}

// sameNode asks the node who it is, and returns an error unless the backup is of it.
func (r *lndRestorer) sameNode(ctx context.Context) (lnd.Info, error) {
	info, err := r.node.Info(ctx)
	if err != nil {
		return info, err
	}
	if r.kept.node.Node != "" && info.PubKey != r.kept.node.Node {
		err := fmt.Errorf("this node is %s, the backup is of %s: %w", info.PubKey, printable(r.kept.node.Node), lnd.ErrOtherNode)
		if r.made {
			return info, &hintedError{err, "the keys in the backup are of another node than its channels: nothing is lost, and no channel was closed. Stop lnd, remove the wallet that was made just now, make one from the node's own 24 words with `lncli create`, without a channel backup, and call this again"}
		}
		return info, &hintedError{err, "it was not touched: restore on a machine, or in a directory, where lnd has no wallet yet"}
	}
	if info.Network != r.inst.Network && r.inst.Network != "" {
		return info, fmt.Errorf("the node is on %s, the backup is of %s: %w", printable(info.Network), printable(r.inst.Network), lnd.ErrNetwork)
	}
	return info, nil
}

// connectNode has lnd make a macaroon for Satchel, and keeps how the node is reached.
func (r *lndRestorer) connectNode(ctx context.Context, restoring bool) error {
	a := r.app
	w := &watch{app: a, name: r.device.name}
	rec, err := w.read()
	if err != nil {
		return err
	}
	if rec.LND != nil && rec.LND.Node == r.kept.node.Node {
		if cfg, err := a.lndConfig(*rec.LND); err == nil {
			if node, err := lnd.New(cfg); err == nil {
				err := node.Prove(ctx)
				node.Close()
				if err == nil {
					return w.change(ctx, func(now *watchRecord) error {
						next := *rec.LND
						next.Restoring = next.Restoring || restoring
						now.LND = &next
						return nil
					})
				}
			}
		}
	}
	mac, rootKey, err := r.node.Bake(ctx)
	if err != nil {
		return err
	}
	next := lndRecord{Node: r.kept.node.Node, Network: r.inst.Network, Address: r.inst.Address, Cert: r.inst.Cert, Backup: r.inst.Backup,
		SignIn: newLNDSignIn(), RootKey: rootKey, Restoring: restoring}
	if err := a.keeper().Put(ctx, signin.Record{Address: next.SignIn, Account: next.Node, Password: mac}); err != nil {
		return err
	}
	err = w.change(ctx, func(rec *watchRecord) error { rec.LND = &next; return nil })
	if err != nil {
		return err
	}
	if rec.LND != nil {
		return a.keeper().Delete(rec.LND.SignIn)
	}
	return nil
}

// handOver gives lnd every channel backup that knows a channel which it does not.
func (r *lndRestorer) handOver(ctx context.Context) error {
	a := r.app
	known, living, err := r.known(ctx)
	if err != nil {
		return err
	}
	had := len(known) // before: some if this is a second call
	kept := map[string]bool{}
	missing, refused := 0, 0
	lost := map[string]bool{}
	refuse := func(which string, err error) {
		a.lndTell(lndEvent{Event: "backup refused", Error: errorText(err), Code: int(codeOf(err))}, "lnd refused a channel backup, %s: %s", which, errorText(err))
	}
	handed := func(which string, channels []string) {
		n := 0
		for _, c := range channels {
			if !known[c] {
				known[c] = true
				n++
			}
		}
		missing += n
		a.lndTell(lndEvent{Event: "backup handed over", Channels: &n}, "lnd has the channel backup, %s: %s", which, count(n, "channel")+" more")
	}
	one := func(scb channelBackup) error {
		channels, told, err := r.node.Verify(ctx, scb.multi)
		if errors.Is(err, lnd.ErrBackup) {
			refused++
			refuse(scb.which(), err)
			return nil
		}
		if err != nil {
			return err
		}
		if !told && scb.account != nil {
			channels, told = scb.account.Channels, true
		}
		lacks := slices.ContainsFunc(channels, func(c string) bool { return !known[c] })
		for _, c := range channels {
			kept[c] = true
		}
		if told && !lacks {
			if n := len(channels); scb.place == r.kept.scbs[0].place && r.made { // It came with the wallet.
				a.lndTell(lndEvent{Event: "backup handed over", Channels: &n}, "lnd has the channel backup, %s: %s", scb.which(), count(n, "channel"))
			}
			return nil
		}
		if err := r.begin(); err != nil {
			return err
		}
		within, cancel := context.WithTimeout(ctx, lndStands)
		defer cancel()
		err = r.node.RestoreBackup(within, scb.multi)
		switch {
		case err == nil:
			handed(scb.which(), channels)
			return nil
		case !errors.Is(err, lnd.ErrLess) && !scb.less() || ctx.Err() != nil:
			return err
		}
		// Some of its channels are there now, those that it read before.
		refuse(scb.which(), err)
		if known, living, err = r.known(ctx); err != nil {
			return err
		}
		for _, c := range channels {
			if !known[c] {
				lost[c] = true
			}
		}
		return nil
	}
	i := 0
	for ; i < len(r.kept.scbs) && r.kept.scbs[i].whole(); i++ {
		if err := one(r.kept.scbs[i]); err != nil {
			return err
		}
	}
	for _, s := range r.kept.singles {
		if kept[s.Channel] = true; known[s.Channel] {
			continue
		}
		if err := r.begin(); err != nil {
			return err
		}
		switch err := r.node.RestoreSingles(ctx, s); {
		case err == nil:
			handed("of one channel", []string{s.Channel})
		case errors.Is(err, lnd.ErrLess) || errors.Is(err, lnd.ErrBackup):
			refuse("of one channel", err)
		default:
			return err
		}
	}
	// The rest, and what is less at last: only for channels that nothing else knows.
	for ; i < len(r.kept.scbs); i++ {
		if err := one(r.kept.scbs[i]); err != nil {
			return err
		}
	}
	maps.DeleteFunc(lost, func(c string, _ bool) bool { return known[c] })
	if len(lost) > 0 {
		a.note("lnd could not be given %s: all that was kept of them is what lnd exported while it was being restored. Keep the backup, and ask the peers to force-close: %s", count(len(lost), "channel"), strings.Join(slices.Sorted(maps.Keys(lost)), ", "))
	}
	if refused == len(r.kept.scbs) {
		return &hintedError{lnd.ErrBackup, "the channel backups are of another node, or damaged; nothing was changed. Has the node been made from other words since?"}
	}
	if r.made || missing > 0 || r.begun != nil {
		if err := r.begin(); err != nil {
			return err
		}
		r.begun.Node, r.begun.Network, r.begun.Handed = r.kept.node.Node, r.inst.Network, true
		r.begun.Channels = slices.Sorted(maps.Keys(kept))
		return a.keepLNDBegun(r.device.name, *r.begun)
	}
	newer, waiting := 0, false
	for c, restored := range living {
		waiting = waiting || restored
		if !kept[c] {
			newer++
		}
	}
	rec, err := (&watch{app: a, name: r.device.name}).read()
	switch {
	case err != nil:
		return err
	case waiting || had == 0 || rec.LND != nil && rec.LND.Restoring:
		return nil // A second call: it goes on.
	case newer > 0:
		return &hintedError{fmt.Errorf("%w: it has %s that no kept backup knows", errStaleSCB, count(newer, "channel")), "nothing was changed, and nothing has to be restored; `satchel watch --once` saves what the node has now"}
	}
	return &hintedError{errWholeNode, "nothing was changed, and nothing has to be restored; `satchel lnd status` shows how it stands"}
}

// lndStands is how long lnd may look for a key that it does not find.
const lndStands = 10 * time.Minute

// which says which of the backups one is.
func (s channelBackup) which() string {
	if s.place == 0 {
		return "the newest"
	}
	if s.place == 1 {
		return "the one before the newest"
	}
	return fmt.Sprintf("an older one, number %d counted back from the newest", s.place)
}

// known are the channels that the node has or had. Of those that live, also that are
// about to be opened or closed, living says whether it knows them from a backup only.
func (r *lndRestorer) known(ctx context.Context) (known, living map[string]bool, err error) {
	pending, err := r.node.Pending(ctx)
	if err != nil {
		return nil, nil, err
	}
	open, err := r.node.Open(ctx)
	if err != nil {
		return nil, nil, err
	}
	closed, err := r.node.Closed(ctx)
	if err != nil {
		return nil, nil, err
	}
	known, living = map[string]bool{}, map[string]bool{}
	for _, c := range slices.Concat(pending.Opening, pending.Closing, open) {
		known[c.Point], living[c.Point] = true, c.Restored
	}
	for _, c := range slices.Concat(pending.Forced, closed) {
		known[c.Point] = true
	}
	return known, living, nil
}

// reachPeers has lnd connect to the peers that were kept, by the addresses that they had.
func (r *lndRestorer) reachPeers(ctx context.Context) {
	connected := map[string]bool{}
	if list, err := r.node.Peers(ctx); err == nil {
		for _, p := range list {
			connected[p.PubKey] = true
		}
	}
	for _, p := range r.kept.peers.Peers {
		ok := connected[p.Node]
		for _, address := range p.Addresses {
			if ok || ctx.Err() != nil {
				break
			}
			err := r.node.Connect(ctx, p.Node, address)
			ok = err == nil
		}
		name := printable(cmp.Or(p.Alias, p.Node))
		if ok {
			r.app.lndTell(lndEvent{Event: "peer", Peer: p.Node, Connected: &ok}, "lnd connects to %s", name)
		} else if len(p.Addresses) == 0 {
			r.app.lndTell(lndEvent{Event: "peer", Peer: p.Node, Connected: &ok}, "%s is not connected, and no address of it was kept", name)
		} else {
			r.app.lndTell(lndEvent{Event: "peer", Peer: p.Node, Connected: &ok}, "%s cannot be reached now; lnd tries on", name)
		}
	}
}

// lndProgress is how far a restore is.
type lndProgress struct {
	Synced    bool         `json:"synced"`
	Recovered float64      `json:"recovered"` // how far the search for coins is, 0 to 1
	Waiting   int          `json:"waiting"`   // channels that wait for their peers
	Limbo     int64        `json:"limbo"`     // satoshi on their way back
	Swept     int64        `json:"swept"`     // satoshi that came back
	Ending    []endingJSON `json:"ending"`
	Done      bool         `json:"done"`
}

type endingJSON struct {
	Point     string     `json:"channel_point"`
	Peer      string     `json:"peer"`
	State     lnd.Ending `json:"state"`
	Limbo     int64      `json:"limbo"`
	Blocks    int        `json:"blocks"`
	Connected bool       `json:"connected"`
}

// lndFollow shows how far the restore of the node of a wallet is.
func (a *app) lndFollow(ctx context.Context, once bool) error {
	d, err := a.device()
	if err != nil {
		return err
	}
	rec, err := (&watch{app: a, name: d.name}).read()
	if err != nil {
		return err
	}
	begun := a.lndBegun(d.name)
	switch {
	case rec.LND == nil && begun != nil:
		return errLNDBegun
	case rec.LND == nil:
		return errNoNode
	case begun != nil && !begun.Handed:
		a.note("%s; %s", errorText(errLNDBegun), hintFor(errLNDBegun))
	}
	cfg, err := a.lndConfig(*rec.LND)
	if err != nil {
		return err
	}
	node, err := lnd.New(cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	if going, err := a.lndGoing(ctx, d, *rec.LND, node); err != nil {
		return err
	} else if !going {
		a.lndTell(lndEvent{Event: "no restore"}, "no restore of this node is going on")
		return nil
	}
	return a.lndFollowWith(ctx, d, node, once)
}

// lndGoing reports whether there is a restore of a node to follow: one that goes on, or one
// that ended and after which no channel was opened yet. Of any other node it is not true
// that all its channels are closed.
func (a *app) lndGoing(ctx context.Context, d device, rec lndRecord, node *lnd.Node) (bool, error) {
	if rec.Restoring || a.lndBegun(d.name) != nil {
		return true, nil
	}
	if err := lndReady(ctx, node); err != nil {
		return false, err
	}
	if err := restoring(ctx, node); errors.Is(err, errRestoring) {
		return true, nil
	} else if err != nil {
		return false, err
	}
	if a.lndLast(d.name) == nil {
		return false, nil
	}
	open, err := node.Open(ctx)
	return err == nil && len(open) == 0, err
}

// lndFollowWith shows how far a restore is until it is at its end.
func (a *app) lndFollowWith(ctx context.Context, d device, node *lnd.Node, once bool) error {
	said := ""
	named := map[string]bool{}
	var away time.Time
	for {
		p, peers, err := a.lndLookRestore(ctx, d, node)
		switch {
		case ctx.Err() != nil:
			a.sayHanging("", "lnd goes on by itself. `satchel lnd restore --follow` shows it again.")
			return ctx.Err()
		case err != nil && (once || !errors.Is(err, lnd.ErrUnreachable) && !errors.Is(err, lnd.ErrStarting) && !errors.Is(err, lnd.ErrLocked)):
			return err
		case err != nil:
			if away.IsZero() {
				away = time.Now()
				a.note("%s; trying on", errorText(err))
			}
		default:
			away = time.Time{}
			if line := p.line(); line != said {
				said = line
				a.lndTell(lndEvent{Event: "progress", lndProgress: &p}, "%s", line)
			}
			a.lndSayPeers(p, peers, named)
			if p.Done {
				return a.lndRestored(ctx, d, p)
			}
			if once {
				return errPartly
			}
		}
		select {
		case <-time.After(lndPoll):
		case <-ctx.Done():
		}
	}
}

// lndRestored says that a restore is at its end.
func (a *app) lndRestored(ctx context.Context, d device, p lndProgress) error {
	w := &watch{app: a, name: d.name}
	if err := w.endLNDRestore(ctx); err != nil {
		return err
	}
	a.lndTell(lndEvent{Event: "done", lndProgress: &p}, "all channels are closed, and what came back of them is in lnd's wallet: about %d sat, less the fee of the sweep", p.Swept)
	if running, err := w.running(); err == nil && !running {
		a.sayHanging("", "The node goes on as a new one with the same name: open channels anew. `satchel agent install`, or `satchel watch`, keeps them safe.")
	}
	return nil
}

// lndLookRestore asks the node how far it is, and reads which peers are kept.
func (a *app) lndLookRestore(ctx context.Context, d device, node *lnd.Node) (p lndProgress, kept peersItem, err error) {
	if p, err = lndAskRestore(ctx, node, a.lndLast(d.name)); err != nil {
		return p, kept, err
	}
	if b, err := a.openDevice(ctx, d); err == nil {
		if value, err := b.Get(lnd.ItemPeers); err == nil {
			_ = json.Unmarshal(value.Open(), &kept) // Names and addresses, for people: fewer are no harm.
		}
		b.Close()
	}
	return p, kept, nil
}

// lndAskRestore asks the node how far a restore is.
func lndAskRestore(ctx context.Context, node *lnd.Node, begun *lndBegun) (p lndProgress, err error) {
	if err := lndReady(ctx, node); err != nil {
		return p, err
	}
	info, err := node.Info(ctx)
	if err != nil {
		return p, err
	}
	recovery, err := node.Recovery(ctx)
	if err != nil {
		return p, err
	}
	ending, err := node.Ending(ctx)
	if err != nil {
		return p, err
	}
	closed, err := node.Closed(ctx)
	if err != nil {
		return p, err
	}
	peers, err := node.Peers(ctx)
	if err != nil {
		return p, err
	}
	connected := map[string]bool{}
	for _, peer := range peers {
		connected[peer.PubKey] = true
	}
	p = lndProgress{Synced: info.SyncedToChain, Recovered: recovery.Progress, Ending: []endingJSON{}}
	if !recovery.On || recovery.Finished {
		p.Recovered = 1
	}
	for _, c := range closed {
		if begun.of(c.Point) {
			p.Swept += c.Local
		}
	}
	for _, c := range ending {
		if !c.Restored && !begun.of(c.Point) {
			continue // The node goes on, and this one ends without a restore.
		}
		p.Limbo += c.Limbo
		if c.Ending == lnd.WaitsForPeer {
			p.Waiting++
		}
		p.Ending = append(p.Ending, endingJSON{c.Point, c.Peer, c.Ending, c.Limbo, c.Blocks, connected[c.Peer]})
	}
	slices.SortFunc(p.Ending, func(a, b endingJSON) int { return strings.Compare(a.Point, b.Point) })
	p.Done = p.Synced && p.Recovered == 1 && len(p.Ending) == 0 && (begun == nil || begun.Handed)
	return p, nil
}

// line is how far a restore is, as one line.
func (p lndProgress) line() string {
	var parts []string
	if !p.Synced {
		parts = append(parts, "lnd reads the chain")
	}
	if p.Recovered < 1 {
		parts = append(parts, fmt.Sprintf("coins looked for: %.0f %%", 100*p.Recovered))
	}
	states := map[lnd.Ending]int{}
	for _, e := range p.Ending {
		states[e.State]++
	}
	for _, s := range slices.Sorted(maps.Keys(states)) {
		parts = append(parts, fmt.Sprintf("%s: %s", count(states[s], "channel"), s))
	}
	blocks := 0
	for _, e := range p.Ending {
		blocks = max(blocks, e.Blocks)
	}
	if blocks > 0 {
		parts = append(parts, "the last time lock ends in "+count(blocks, "block"))
	}
	if p.Limbo > 0 {
		parts = append(parts, fmt.Sprintf("%d sat on their way back", p.Limbo))
	}
	about := "" // lnd counts before the fee of the sweep.
	if p.Swept > 0 {
		about = "about "
	}
	parts = append(parts, fmt.Sprintf("%s%d sat swept", about, p.Swept))
	return strings.Join(parts, "; ")
}

// lndSayPeers names the peers that must be reached, each once.
func (a *app) lndSayPeers(p lndProgress, peers peersItem, named map[string]bool) {
	for _, e := range p.Ending {
		if e.State != lnd.WaitsForPeer || e.Connected || named[e.Peer] {
			continue
		}
		named[e.Peer] = true
		name, addresses := e.Peer, []string(nil)
		for _, peer := range peers.Peers {
			if peer.Node == e.Peer {
				name, addresses = cmp.Or(peer.Alias, name), peer.Addresses
			}
		}
		where := "no address of it is kept here: look its key up in a Lightning explorer, and"
		if len(addresses) > 0 {
			where = "lnd tries on at " + printable(strings.Join(addresses, ", ")) + ". If it has moved:"
		}
		a.sayHanging("         ", fmt.Sprintf("%s must be reached, and is not connected; %s lncli connect %s@HOST:PORT. If it is gone for good, ask who runs it to force-close; its last announcement names them.",
			printable(name), where, e.Peer))
	}
}
