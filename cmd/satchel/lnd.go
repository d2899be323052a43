package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/signin"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/source/lnd"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
)

func (a *app) lndCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lnd",
		Short: "Protect a Lightning node of the kind lnd",
		Long: `Keeps the channel backup of a Lightning node (lnd) with a wallet's backup: at every
channel that opens or closes, at once, encrypted, in the wallet's places.

"lnd connect" takes a node in, "satchel agent install" or "satchel watch" keep it safe from
then on, "lnd status" says how it stands, and "lnd restore" brings a node back that lost
its disk. "lnd open" opens a channel only once its backup is protected.

docs/lightning.md shows all of it, step by step.`,
		Example: `  satchel lnd connect
  satchel lnd status
  satchel lnd restore`,
		Args:        noSuchCommand,
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage),
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.lndConnectCommand(), a.lndStatusCommand(), a.lndRestoreCommand(), a.lndOpenCommand(), a.lndDisconnectCommand())
	return cmd
}

// lndExits are the codes of commands that talk to a node.
var lndExits = []satchel.Code{satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly, satchel.CodeOtherDevice, satchel.CodeDamaged,
	satchel.CodeNewer, satchel.CodeWrongWallet, satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeFull, satchel.CodeUnreachable, satchel.CodeInterrupted}

// lndRecord is the node that is backed up with a wallet, in its watchRecord.
type lndRecord struct {
	Node    string `json:"node"` // its public key
	Network string `json:"network"`
	Address string `json:"address"`          // of its REST interface
	Cert    string `json:"cert,omitempty"`   // path of its certificate; "" means whom the system trusts
	Backup  string `json:"backup,omitempty"` // path of the file that lnd keeps its channel backup in
	SignIn  string `json:"sign_in"`          // under which its macaroon is kept
	// RootKey is that of the macaroon, if satchel had it made.
	RootKey uint64 `json:"root_key,omitempty"`
	// Restoring says that a restore of the node is not at its end.
	Restoring bool `json:"restoring,omitempty"`
}

func (r *lndRecord) equal(o *lndRecord) bool {
	return r == o || r != nil && o != nil && *r == *o
}

// lndFlags say where a node is.
type lndFlags struct {
	dir, network            string
	address, cert, macaroon string
}

func (f *lndFlags) flags(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.dir, "dir", "", "lnd's `directory`, which holds lnd.conf or tls.cert; looked for if not given")
	fl.StringVar(&f.network, "network", "", "of lnd's `network`s that one: mainnet, testnet, testnet4, signet or regtest; found if there is one")
	fl.StringVar(&f.address, "address", "", "`host:port` of lnd's REST interface, where it is not in lnd.conf or on another machine")
	fl.StringVar(&f.cert, "cert", "", "lnd's certificate, a `file`; for --address")
	fl.StringVar(&f.macaroon, "macaroon-file", "", "a macaroon of lnd's, a `file`; else admin.macaroon in its directory")
}

// install says where the node is, by the flags or by looking. network, if not "", is the
// one of the wallet, and decides where lnd has several.
func (f *lndFlags) install(a *app, network string) (*lnd.Install, error) {
	if f.address != "" {
		if f.dir != "" {
			return nil, usagef("--address and --dir are two ways to name a node: give one")
		}
		i := &lnd.Install{Address: f.address, Network: cmp.Or(f.network, network)}
		for from, to := range map[*string]*string{&f.cert: &i.Cert, &f.macaroon: &i.Admin} {
			if *from == "" {
				continue
			}
			abs, err := filepath.Abs(a.expandHome(*from))
			if err != nil {
				return nil, err
			}
			*to = abs
		}
		return i, nil
	}
	i, err := lnd.Find(a.expandHome(f.dir), f.network)
	if several, ok := errors.AsType[*lnd.NetworksError](err); ok {
		if slices.Contains(several.Networks, network) {
			i, err = lnd.Find(a.expandHome(f.dir), network)
		} else {
			return nil, &usageError{text: errorText(err), hint: "--network " + orList(several.Networks)}
		}
	}
	if err != nil && f.dir == "" && errors.Is(err, lnd.ErrNotFound) && !errors.Is(err, lnd.ErrNotStarted) {
		return nil, &hintedError{err, "name it: --dir DIR, or for one on another machine --address HOST:PORT --cert FILE --macaroon-file FILE"}
	}
	if err != nil {
		return nil, err
	}
	if f.macaroon != "" {
		if i.Admin, err = filepath.Abs(a.expandHome(f.macaroon)); err != nil {
			return nil, err
		}
	}
	if f.cert != "" {
		if i.Cert, err = filepath.Abs(a.expandHome(f.cert)); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// lndNode connects to a node with the macaroon, if any.
func lndNode(address, cert string, macaroon secret.Bytes) (*lnd.Node, error) {
	cfg := lnd.Config{Address: address, Macaroon: macaroon}
	if cert != "" {
		var err error
		if cfg.Cert, err = lnd.ReadCert(cert); err != nil {
			return nil, err
		}
	}
	return lnd.New(cfg)
}

// lndConfig reads what reaches the node of a record: anew each time, since lnd makes a
// new certificate when the old one has ended.
func (a *app) lndConfig(rec lndRecord) (lnd.Config, error) {
	cfg := lnd.Config{Address: rec.Address}
	if rec.Cert != "" {
		var err error
		if cfg.Cert, err = lnd.ReadCert(rec.Cert); err != nil {
			return cfg, err
		}
	}
	r, err := a.keeper().Get(rec.SignIn)
	if errors.Is(err, store.ErrSignIn) {
		return cfg, fmt.Errorf("lnd's macaroon is not on this device: %w", err)
	}
	cfg.Macaroon = r.Password
	return cfg, err
}

// permissionWhy says what a macaroon's permissions are for.
func permissionWhy(p lnd.Permission) string {
	switch p.String() {
	case "offchain:read":
		return "the channel backup, and which channels there are"
	case "info:read":
		return "which node it is, and where other nodes are reached"
	case "peers:read":
		return "where its peers are, which a restore has to reach"
	}
	return ""
}

// noWalletForNode says what to do where this device has no wallet yet.
const noWalletForNode = "a node is backed up with a wallet: `satchel import --kind aezeed` takes in the 24 words of lnd, so that the backup brings all of the node back; `satchel create` makes a wallet beside it, whose backup holds the channels alone, and the 24 words stay on paper"

func (a *app) lndConnectCommand() *cobra.Command {
	var f lndFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "connect [flags]",
		Short: "Take a Lightning node into the backup",
		Long: `Takes an lnd node into the backup of a wallet: finds it, proves that its channel
backup can be had, and saves the first one at once. From then on "satchel watch", or
"satchel agent run", saves each new one the moment lnd makes it.

Satchel reads, and can neither spend nor change anything. It needs a macaroon with
exactly these permissions:

  offchain:read   the channel backup, and which channels there are
  info:read       which node it is, and where other nodes are reached
  peers:read      where its peers are, which a restore has to reach

Shown an admin macaroon, such as the one in lnd's directory, it asks, has lnd make one
with these permissions alone, and keeps that, encrypted. The admin macaroon is not kept.
Or make it yourself and hand it over:

  lncli bakemacaroon --save_to satchel.macaroon \
    offchain:read info:read peers:read

If there is no wallet on this device yet: "satchel import --kind aezeed" takes in the
24 words of lnd, and the backup brings all of the node back. "satchel create" makes a
wallet beside it; its backup holds the channels alone, and the words stay on paper.

One that may do more and can make no other is kept as it is, and that is said.

JSON: node, alias, network, version, channels, peers, address, baked, beyond (permissions
that the macaroon has and Satchel does not need), generation, protected, places.`,
		Example: `  satchel lnd connect
  satchel lnd connect --dir /mnt/hdd/lnd --yes
  satchel lnd connect --address 192.168.1.7:8080 --cert tls.cert \
    --macaroon-file satchel.macaroon`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(lndExits...),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.lndConnect(cmd.Context(), f, yes)
		},
	}
	f.flags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "have lnd make the macaroon without asking")
	return cmd
}

func (a *app) lndConnect(ctx context.Context, f lndFlags, yes bool) error {
	d, err := a.device()
	if errors.Is(err, satchel.ErrNoDevice) {
		return &hintedError{err, noWalletForNode}
	}
	if err != nil {
		return err
	}
	w := &watch{app: a, name: d.name}
	before, err := w.read()
	if err != nil {
		return err
	}
	inst, err := f.install(a, string(d.info.Network))
	if err != nil {
		return err
	}
	node, err := lndNode(inst.Address, inst.Cert, secret.Bytes{})
	if err != nil {
		return err
	}
	defer node.Close()
	if err := lndReady(ctx, node); err != nil {
		if errors.Is(err, lnd.ErrNoWallet) && a.hasNode(ctx, d) {
			return &hintedError{err, "the backup of a node is on this device: `satchel lnd restore` brings the node back and takes it in. Do not call lncli create before"}
		}
		return err
	}
	shown, err := a.lndShown(inst)
	if err != nil {
		return err
	}
	defer shown.Wipe()
	admin := node.With(shown)
	// What is wrong with the node is said before anything is made.
	right := func(node *lnd.Node) (lnd.Info, error) {
		info, err := node.Info(ctx)
		switch {
		case err != nil:
			return info, err
		case !sameNetwork(d.info.Network, info.Network):
			return info, &hintedError{fmt.Errorf("the node is on %s, the wallet %s on %s: %w", printable(info.Network), d.name, d.info.Network, lnd.ErrNetwork), otherNetwork(d, info.Network)}
		case before.LND != nil && before.LND.Node != info.PubKey:
			return info, &hintedError{lnd.ErrOtherNode, "one wallet backs up one node; make another wallet for this one, see `satchel lnd connect --help`, or let go of the other one first: `satchel lnd disconnect`"}
		}
		return info, nil
	}
	if _, err := right(admin); err != nil && !errors.Is(err, lnd.ErrPermission) {
		return err
	}
	// A node that was not given its channels yet has none, and they would count as lost.
	if begun := a.lndBegun(d.name); begun != nil && (before.LND == nil || !begun.Handed) {
		return errRestoring
	}
	if before.LND == nil {
		if err := restoring(ctx, admin); err != nil && !errors.Is(err, lnd.ErrPermission) {
			return err
		}
	}
	mac, rootKey, err := a.lndMacaroon(ctx, admin, inst, yes)
	if err != nil {
		return err
	}
	node = node.With(mac)
	info, err := right(node)
	if err == nil {
		rec := lndRecord{Node: info.PubKey, Network: info.Network, Address: inst.Address, Cert: inst.Cert, Backup: inst.Backup, RootKey: rootKey}
		err = a.lndTakeIn(ctx, d, node, admin, mac, info, rec)
	}
	if after, readErr := w.read(); err != nil && rootKey != 0 && readErr == nil && (after.LND == nil || after.LND.RootKey != rootKey) {
		// It is for nobody.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lndAsk)
		defer cancel()
		_ = admin.RevokeMacaroons(ctx, rootKey)
	}
	return err
}

// hasNode reports whether a wallet has the channel backup of a node.
func (a *app) hasNode(ctx context.Context, d device) bool {
	b, err := a.openDevice(ctx, d)
	if err != nil {
		return false
	}
	defer b.Close()
	return slices.ContainsFunc(b.Items(), func(i satchel.ItemInfo) bool { return i.Name == lnd.ItemBackup })
}

// otherNetwork says what to do where a wallet is on another network than its node: which of
// the two is wrong, the person knows.
func otherNetwork(d device, node string) string {
	network := wallet.Network(node)
	switch node {
	case "testnet4":
		network = wallet.Testnet
	case "simnet":
		network = wallet.Regtest
	}
	again := "satchel create"
	if d.info.Kind == wallet.KindAezeed {
		again = "satchel import --kind aezeed"
	}
	return fmt.Sprintf("nothing was written. If this is the node: a wallet keeps its network, so make one for it, `%s --network %s`, and name that one with --wallet. If another node is meant: --dir, --network or --address name it", again, printable(string(network)))
}

// errRestoring says that lnd waits for the peers of channels that it was given a backup of.
var errRestoring = errors.New("this node is being restored, and waits for its peers to close its channels")

// restoring returns errRestoring if a node has a channel of which it knows no more than a
// backup told it. What such a node exports of the channel is less than that backup, and
// must not take its place.
func restoring(ctx context.Context, node *lnd.Node) error {
	pending, err := node.Pending(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(pending.Closing, func(c lnd.Channel) bool { return c.Restored }) {
		return errRestoring
	}
	return nil
}

// lndTakeIn keeps how a node is reached, and saves its first backup.
func (a *app) lndTakeIn(ctx context.Context, d device, node, admin *lnd.Node, mac secret.Bytes, info lnd.Info, rec lndRecord) error {
	rec.SignIn = newLNDSignIn()
	w := &watch{app: a, name: d.name}
	b, err := a.openDevice(ctx, d)
	if err != nil {
		return err
	}
	defer b.Close()
	// First what is saved: a node that is not this backup's is refused before anything
	// is kept of it.
	cfg := lnd.Config{Address: rec.Address, Macaroon: mac}
	if rec.Cert != "" {
		if cfg.Cert, err = lnd.ReadCert(rec.Cert); err != nil {
			return err
		}
	}
	_, lost := a.lndOnce(ctx, b, rec, cfg)
	if lost != nil && !errors.Is(lost, lnd.ErrLost) {
		return lost
	}
	res, saveErr := b.Sync(ctx)
	if saveErr != nil && !errors.Is(saveErr, satchel.ErrNotProtected) {
		return saveErr
	}
	if err := a.keeper().Put(ctx, signin.Record{Address: rec.SignIn, Account: rec.Node, Password: mac}); err != nil {
		return err
	}
	var old *lndRecord
	err = w.change(ctx, func(r *watchRecord) error { old = r.LND; r.LND = &rec; return nil })
	if err != nil {
		return errors.Join(err, a.keeper().Delete(rec.SignIn))
	}
	if old != nil {
		if err := a.keeper().Delete(old.SignIn); err != nil {
			a.note("%s", errorText(err))
		}
	}
	channels, err := lndChannels(ctx, node)
	if err != nil {
		return err
	}
	peers, err := node.Peers(ctx)
	if err != nil {
		return err
	}
	running, err := w.running()
	if err != nil {
		return err
	}
	beyond := []string{}
	for _, p := range lnd.Beyond(mac) {
		beyond = append(beyond, printable(p.String()))
	}
	if err := a.emit(struct {
		lndJSON
		Channels   int         `json:"channels"`
		Peers      int         `json:"peers"`
		Baked      bool        `json:"baked"`
		Beyond     []string    `json:"beyond"`
		Generation uint64      `json:"generation"`
		Protected  bool        `json:"protected"`
		Places     []placeJSON `json:"places"`
	}{toLNDJSON(rec, info), channels, len(peers), rec.RootKey != 0, beyond, res.Generation, res.Protected, placesJSON(res.Places)}); err != nil {
		return err
	}
	a.say("Node       %s (%s)", a.bold(printable(cmp.Or(info.Alias, info.PubKey))), printable(info.Network))
	a.say("           %s", info.PubKey)
	a.say("Channels   %d", channels)
	if res.Protected {
		// The generation that brought it, as "lnd status" says: what is beside it may have
		// come later.
		generation := res.Generation
		for _, i := range b.Items() {
			if i.Name == lnd.ItemBackup {
				generation = i.Generation
			}
		}
		a.say("Protected  yes: the channel backup was fetched again and compared,")
		a.say("           of generation %d", generation)
	} else {
		a.say("Protected  no: %s", notProtected(res.Generation, res.Places, b.Status().Copies))
	}
	if len(beyond) > 0 {
		const most = 6
		more := ""
		if n := len(beyond) - most; n > 0 {
			beyond, more = beyond[:most], fmt.Sprintf(" and %d more", n)
		}
		a.say("")
		a.sayHanging("", fmt.Sprintf("This macaroon may do more than Satchel needs: %s%s. It could make no narrower one itself, so it is kept as it is, encrypted. A narrower one: %s", strings.Join(beyond, ", "), more, strings.TrimPrefix(bakeHint, "make one: ")))
	}
	if old != nil && old.RootKey != 0 && old.RootKey != rec.RootKey && admin.RevokeMacaroons(ctx, old.RootKey) != nil {
		a.say("")
		a.sayHanging("", fmt.Sprintf("The macaroon before is not used any more; lnd forgets it with: lncli deletemacaroonid %d", old.RootKey))
	}
	if !running {
		a.say("")
		a.sayHanging("", "From now on an agent keeps it so, see `satchel agent install`, or `satchel watch`. None is running: a channel that opens now is not saved.")
	}
	return cmp.Or(lost, saveErr)
}

// newLNDSignIn is the name under which a macaroon is kept.
func newLNDSignIn() string {
	random := secret.Random(8)
	return lndSignIn + hex.EncodeToString(random.Open())
}

// lndSignIn begins the names of macaroons among the sign-ins.
const lndSignIn = "lnd:"

// lndReady returns an error unless the node serves calls.
func lndReady(ctx context.Context, node *lnd.Node) error {
	state, err := node.State(ctx)
	if err != nil {
		return err
	}
	switch state {
	case lnd.NonExisting:
		return lnd.ErrNoWallet
	case lnd.Locked:
		return lnd.ErrLocked
	case lnd.WaitingToStart, lnd.Unlocked:
		return lnd.ErrStarting
	}
	return nil
}

// lndShown reads the macaroon that Satchel is shown.
func (a *app) lndShown(inst *lnd.Install) (secret.Bytes, error) {
	if inst.Admin == "" {
		return secret.Bytes{}, &usageError{text: "a macaroon is needed", hint: "--macaroon-file FILE; " + bakeHint}
	}
	mac, err := lnd.ReadMacaroon(inst.Admin)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = &hintedError{fmt.Errorf("there is no macaroon %s", printable(inst.Admin)), bakeHint}
	case errors.Is(err, fs.ErrPermission):
		err = &hintedError{fmt.Errorf("this user may not read %s", printable(inst.Admin)), "as the user that runs lnd: " + bakeCommand + "; then give the file to this user, and `satchel lnd connect --macaroon-file satchel.macaroon`"}
	}
	return mac, err
}

// lndMacaroon has lnd make a macaroon with what Satchel needs, or takes the one that with
// has, if it cannot make others. rootKey is 0 then.
func (a *app) lndMacaroon(ctx context.Context, with *lnd.Node, inst *lnd.Install, yes bool) (mac secret.Bytes, rootKey uint64, err error) {
	// One for nothing is made by nobody: the answer says whether it might be.
	err = with.Call(ctx, http.MethodPost, "/v1/macaroon", map[string]any{"permissions": []any{}}, nil)
	switch _, answered := errors.AsType[*lnd.AnswerError](err); {
	case errors.Is(err, lnd.ErrPermission):
		// It cannot make others; it may be made for Satchel already.
		if err := with.Prove(ctx); err != nil {
			return mac, 0, err
		}
		mac, err := lnd.ReadMacaroon(inst.Admin)
		return mac, 0, err
	case err != nil && !answered:
		return mac, 0, err
	}
	if !yes {
		if a.term == nil {
			return mac, 0, needFlag("a confirmation", "--yes")
		}
		a.term.print("Found lnd at %s.\n\nSatchel needs a macaroon that may do this, and nothing else:\n\n", printable(inst.Address))
		for _, p := range lnd.Permissions() {
			a.term.print("  %-14s  %s\n", p, permissionWhy(p))
		}
		a.term.print("\nIt can neither spend nor change anything. lnd makes it when it is shown\n%s,\nwhich is not kept.\n\n", printable(inst.Admin))
		ok, err := a.term.yes(ctx, "Have lnd make it?", true)
		if err != nil {
			return mac, 0, err
		}
		if !ok {
			return mac, 0, &hintedError{errDeclined, bakeHint}
		}
	}
	return with.Bake(ctx)
}

const (
	bakeCommand = "lncli bakemacaroon --save_to satchel.macaroon offchain:read info:read peers:read"
	bakeHint    = "make one: " + bakeCommand + "; then `satchel lnd connect --macaroon-file satchel.macaroon`"
)

// sameNetwork reports whether a wallet and a node are on the same network. The keys of
// lnd's test networks are the same.
func sameNetwork(w wallet.Network, node string) bool {
	return string(w) == node || w == wallet.Testnet && node == "testnet4" || w == wallet.Regtest && node == "simnet"
}

// lndChannels counts the channels that a node has, also those that become or end.
func lndChannels(ctx context.Context, node *lnd.Node) (int, error) {
	b, err := node.Export(ctx)
	return len(b.Channels), err
}

// lndJSON is a node for a program.
type lndJSON struct {
	Node    string `json:"node"`
	Alias   string `json:"alias"`
	Network string `json:"network"`
	Version string `json:"version"`
	Address string `json:"address"`
}

func toLNDJSON(rec lndRecord, info lnd.Info) lndJSON {
	return lndJSON{rec.Node, info.Alias, rec.Network, info.Version, rec.Address}
}

// nodeName is how a node is called in a line.
func nodeName(rec lndRecord) string { return "lnd " + rec.Node[:min(len(rec.Node), 12)] + "…" }

// lndNow is how a node stands, as it says itself.
type lndNow struct {
	lndJSON
	Channels int `json:"channels"`
	// Unsaved are the channels that the kept backup does not know.
	Unsaved []string `json:"unsaved"`
	// Saved is whether the kept backup knows every channel of the node, as far as the
	// node could be asked.
	Saved     bool       `json:"saved"`
	Expires   *time.Time `json:"certificate_expires"`
	Restoring bool       `json:"restoring"`
	// Unconnected says that no node is connected, so that none was asked.
	Unconnected bool `json:"unconnected,omitempty"`
	// Kept says that a channel backup is kept all the same: the node was let go of, or lost.
	Kept bool `json:"kept,omitempty"`
	// Begun is when a restore was begun that was cut short before lnd had all.
	Begun *time.Time `json:"restore_begun,omitempty"`
	// Waiting counts the channels of a restore that goes on which are not closed yet.
	Waiting int    `json:"restore_waiting,omitempty"`
	Opening string `json:"opening,omitempty"` // state of an open that is not finished
	Error   string `json:"error,omitempty"`
	Code    int    `json:"code,omitempty"`

	err error
}

// failed reports whether what is kept of the node may not be what it has.
func (n *lndNow) failed() bool {
	if n != nil && n.Unconnected {
		return n.Restoring // Else there may be no node, and nobody asked for it to be saved.
	}
	return n != nil && (!n.Saved || n.Opening != "" || n.Begun != nil)
}

// lndAsk bounds how long a status may ask a node.
const lndAsk = 5 * time.Second

// lndLook asks the node of a wallet how it stands; nil if there is none, and no restore of
// one was begun. get returns the channel backups that are kept.
func (a *app) lndLook(ctx context.Context, rec *lndRecord, name string, get func() (keptBackup, error)) *lndNow {
	begun := a.lndBegun(name)
	if rec == nil && begun == nil {
		return nil
	}
	if rec == nil {
		return &lndNow{lndJSON: lndJSON{Node: begun.Node, Network: begun.Network}, Unconnected: true, Begun: stamp(begun.Begun), Restoring: true, Unsaved: []string{}}
	}
	n := &lndNow{lndJSON: toLNDJSON(*rec, lnd.Info{}), Restoring: rec.Restoring, Unsaved: []string{}}
	if begun != nil && !begun.Handed {
		n.Begun = stamp(begun.Begun)
	}
	if o, left := a.lndLeft(name); left {
		n.Opening = o.State
	}
	ctx, cancel := context.WithTimeout(ctx, lndAsk)
	defer cancel()
	if n.err = a.askNode(ctx, *rec, n, begun, get); n.err != nil {
		n.Error, n.Code = errorText(n.err), int(codeOf(n.err))
	}
	return n
}

func (a *app) askNode(ctx context.Context, rec lndRecord, n *lndNow, begun *lndBegun, get func() (keptBackup, error)) error {
	cfg, err := a.lndConfig(rec)
	if err != nil {
		return err
	}
	node, err := lnd.New(cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	n.Expires = stamp(node.Expiry())
	if err := lndReady(ctx, node); err != nil {
		return err
	}
	info, err := node.Info(ctx)
	if err != nil {
		return err
	}
	if info.PubKey != rec.Node {
		return lnd.ErrOtherNode
	}
	n.lndJSON = toLNDJSON(rec, info)
	now, err := node.Export(ctx)
	if err != nil {
		return err
	}
	n.Channels = len(now.Channels)
	if n.Restoring, n.Waiting, err = stillRestoring(ctx, node, rec, begun); err != nil {
		return err
	}
	kept, err := get()
	if err != nil {
		return err
	}
	// Of a channel that is being restored an older one may be the one that counts.
	saved := map[string]bool{}
	for i, scb := range kept.scbs {
		defer scb.Wipe()
		channels, known, err := node.Verify(ctx, scb.Open())
		if i > 0 && errors.Is(err, lnd.ErrBackup) {
			continue
		}
		if err != nil {
			return err
		}
		if !known { // Before 0.19 lnd does not tell. It did when it made it.
			if channels, known = lnd.ListedChannels(kept.list, scb.Open()); !known && i == 0 {
				return lnd.ErrOldLND
			}
		}
		for _, c := range channels {
			saved[c] = true
		}
	}
	for _, c := range now.Channels {
		if !saved[c] {
			n.Unsaved = append(n.Unsaved, c)
		}
	}
	n.Saved = len(n.Unsaved) == 0
	return nil
}

// stillRestoring asks whether a restore of the node is not at its end, whoever began it, and
// how many of its channels are not closed yet, 0 also where that is not known.
func stillRestoring(ctx context.Context, node *lnd.Node, rec lndRecord, begun *lndBegun) (still bool, waiting int, err error) {
	if !rec.Restoring && begun == nil {
		err := restoring(ctx, node)
		if errors.Is(err, errRestoring) {
			return true, 0, nil
		}
		return false, 0, err
	}
	p, err := lndAskRestore(ctx, node, begun)
	return !p.Done, len(p.Ending), err
}

// keptBackup are the channel backups that are kept, the newest first, and what is listed
// beside them.
type keptBackup struct {
	scbs []secret.Bytes
	list []byte
}

// keptSCB reads the channel backups that are kept, for when b is closed.
func keptSCB(b *satchel.Backup) func() (keptBackup, error) {
	newest, err := b.Get(lnd.ItemBackup)
	kept := keptBackup{scbs: []secret.Bytes{newest}}
	for _, i := range b.Items() {
		if !strings.HasPrefix(i.Name, lnd.ItemOlder) {
			continue
		}
		if older, errOlder := b.Get(i.Name); errOlder == nil { // Else it knows nothing.
			kept.scbs = append(kept.scbs, older)
		}
	}
	if list, errList := b.Get(lnd.ItemChannels); errList == nil {
		kept.list = list.Open() // It may be missing.
	}
	return func() (keptBackup, error) { return kept, err }
}

// nodeAlone is said where a node is backed up and nobody watches.
const nodeAlone = "neither an agent nor satchel watch is running: a channel that opens now is saved when one runs again, see `satchel agent install`, or by `satchel watch --once`"

// unfinishedOpen is said of an open that was cut short.
const unfinishedOpen = "an open of a channel is not finished: `satchel lnd open --resume`"

// text is how a node stands, for a person.
func (n *lndNow) text() string {
	switch {
	case n.Unconnected && n.Restoring:
		return n.restoreText()
	case n.Unconnected && n.Kept:
		return "no node is connected, so channels that open now are not saved: `satchel lnd connect`, or if the node was lost `satchel lnd restore`"
	case n.Unconnected:
		return "the channels of the node are not in the backup yet: `satchel lnd connect`"
	}
	text := n.channelsText()
	if restore := n.restoreText(); restore != "" {
		text += "; " + restore
	}
	if n.Opening != "" {
		text += "; " + unfinishedOpen
	}
	return text
}

// restoreText says how a restore of the node stands, "" if there is none.
func (n *lndNow) restoreText() string {
	switch {
	case n.Begun != nil:
		return "a restore of the node was begun " + moment(*n.Begun) + " and is not finished: `satchel lnd restore` goes on"
	case n.Restoring && n.Waiting > 0:
		return "a restore of the node goes on: " + count(n.Waiting, "channel") + " not closed yet; `satchel lnd restore --follow` shows how far it is"
	case n.Restoring:
		return "a restore of the node goes on: `satchel lnd restore --follow` shows how far it is"
	}
	return ""
}

// channelsText says whether the node's channels are saved.
func (n *lndNow) channelsText() string {
	name := printable(cmp.Or(n.Alias, n.Node[:min(len(n.Node), 12)]+"…"))
	switch {
	case n.Error != "": // Of an agent that was asked, the text is all there is.
		text := fmt.Sprintf("lnd %s: whether all its channels are saved is not known: %s", name, printable(n.Error))
		if hint := hintFor(n.err); hint != "" {
			text += "; " + hint
		}
		return text
	case len(n.Unsaved) > 0:
		return fmt.Sprintf("lnd %s: %s, of which %d NOT SAVED", name, count(n.Channels, "channel"), len(n.Unsaved))
	}
	return fmt.Sprintf("lnd %s: %s, all in the backup", name, count(n.Channels, "channel"))
}

func (a *app) lndStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show whether a Lightning node is safe",
		Long: `Asks the node of the wallet which channels it has, compares them with those that the
kept backup knows, and says how both stand. The code is 3 if the node has a channel that
is not in the backup, if the backup is not protected, if an open of a channel is not
finished, or if the node cannot be asked; the message says why.

JSON: node, alias, network, version, address, channels, unsaved (channels), saved,
certificate_expires, restoring, restore_begun (one that was cut short), restore_waiting
(channels that are not closed yet), opening, error, code, backup (its newest: saved,
generation, size), older (backups that know channels which the newest does not), and
protected, verified, watching.`,
		Example: `  satchel lnd status
  satchel lnd status --json`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(lndExits...),
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.lndStatus(cmd.Context()) },
	}
}

// errNoNode says that no node is connected.
var errNoNode = errors.New("no Lightning node is backed up with this wallet")

func (a *app) lndStatus(ctx context.Context) error {
	d, err := a.device()
	if err != nil {
		return err
	}
	w := &watch{app: a, name: d.name}
	rec, err := w.read()
	if err != nil {
		return err
	}
	if rec.LND == nil && a.lndBegun(d.name) != nil {
		return errLNDBegun
	}
	if rec.LND == nil {
		return errNoNode
	}
	running, err := w.running()
	if err != nil {
		return err
	}
	b, err := a.openDevice(ctx, d)
	if err != nil {
		return err
	}
	s, items := b.Status(), b.Items()
	n := a.lndLook(ctx, rec.LND, d.name, keptSCB(b))
	b.Close()
	if err := ctx.Err(); err != nil {
		return err
	}
	older := 0
	var scb *itemJSON
	for _, i := range items {
		if i.Name == lnd.ItemBackup {
			j := toItemJSON(i)
			scb = &j
		}
		if strings.HasPrefix(i.Name, lnd.ItemOlder) {
			older++
		}
	}
	if err := a.emit(struct {
		*lndNow
		Backup    *itemJSON  `json:"backup"`
		Older     int        `json:"older"`
		Protected bool       `json:"protected"`
		Verified  *time.Time `json:"verified"`
		Watching  bool       `json:"watching"`
	}{n, scb, older, s.Protected, stamp(s.Verified), running}); err != nil {
		return err
	}
	a.sayField("Node", n.channelsText())
	a.sayField("", n.Node)
	version, _, _ := strings.Cut(n.Version, " ")
	a.sayField("", strings.TrimSpace(fmt.Sprintf("%s, at %s %s", printable(n.Network), printable(n.Address), printable(version))))
	for _, c := range n.Unsaved {
		a.sayField("NOT SAVED", c)
	}
	switch {
	case scb == nil:
		a.sayField("Backup", "none yet")
	case s.Protected:
		a.sayField("Backup", fmt.Sprintf("of generation %d, protected, verified %s", scb.Generation, moment(s.Verified)))
	default:
		a.sayField("Backup", fmt.Sprintf("of generation %d, NOT PROTECTED: `satchel status` shows each place", scb.Generation))
	}
	if older > 0 {
		a.sayField("Older", count(older, "earlier backup")+" kept, with channels that the newest does not know: a restore uses them too")
	}
	if n.Expires != nil && time.Until(*n.Expires) < certificateSoon {
		a.sayField("Expires", "lnd's certificate, "+moment(*n.Expires)+": restart lnd after that day, and it makes a new one")
	}
	if n.Opening != "" {
		a.sayField("Opening", unfinishedOpen)
	}
	if restore := n.restoreText(); restore != "" {
		a.sayField("Restoring", restore)
	}
	if !running {
		a.sayField("Watched", "no: a channel that opens now is not saved. `satchel agent install`, or `satchel watch`, keeps it safe")
	}
	if n.failed() || !s.Protected {
		return errPartly
	}
	return nil
}

// certificateSoon is how long before its end a certificate is spoken of.
const certificateSoon = 14 * 24 * time.Hour

func (a *app) lndDisconnectCommand() *cobra.Command {
	var f lndFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "disconnect [flags]",
		Short: "Let go of a Lightning node",
		Long: `Saves nothing of the node any more, and forgets its macaroon. What was saved stays in
the backup. The macaroon that lnd made for Satchel is revoked too, if an admin macaroon
is in lnd's directory or given with --macaroon-file; else it says how.

JSON: node, revoked, root_key (what "lncli deletemacaroonid" takes, 0 if there is none).`,
		Example: `  satchel lnd disconnect
  satchel lnd disconnect --yes`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.lndDisconnect(cmd.Context(), f, yes)
		},
	}
	f.flags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (a *app) lndDisconnect(ctx context.Context, f lndFlags, yes bool) error {
	d, err := a.device()
	if err != nil {
		return err
	}
	w := &watch{app: a, name: d.name}
	rec, err := w.read()
	if err != nil {
		return err
	}
	if rec.LND == nil {
		return errNoNode
	}
	old := *rec.LND
	if _, err := lnd.UnfinishedGated(a.lndJournal(d.name)); !errors.Is(err, lnd.ErrNoOpening) {
		return lnd.ErrUnfinished
	}
	if err := a.confirm(ctx, yes, "--yes", fmt.Sprintf("Channels of %s that open from now on are not saved any more. Go on?", nodeName(old))); err != nil {
		return err
	}
	if err := w.change(ctx, func(r *watchRecord) error { r.LND = nil; return nil }); err != nil {
		return err
	}
	if err := a.keeper().Delete(old.SignIn); err != nil {
		return err
	}
	revoked := old.RootKey != 0 && a.lndRevoke(ctx, f, old) == nil
	if err := a.emit(struct {
		Node    string `json:"node"`
		Revoked bool   `json:"revoked"`
		RootKey uint64 `json:"root_key"`
	}{old.Node, revoked, old.RootKey}); err != nil {
		return err
	}
	a.say("%s is not backed up any more. What was saved of it stays in the backup.", nodeName(old))
	switch {
	case revoked:
		a.say("Its macaroon for Satchel was revoked.")
	case old.RootKey != 0:
		a.sayHanging("", fmt.Sprintf("Its macaroon is forgotten here. To revoke it at lnd too: lncli deletemacaroonid %d", old.RootKey))
	}
	return nil
}

// lndRevoke revokes the macaroon that was made for this device.
func (a *app) lndRevoke(ctx context.Context, f lndFlags, rec lndRecord) error {
	inst := &lnd.Install{Address: rec.Address, Cert: rec.Cert, Admin: f.macaroon}
	if inst.Admin == "" {
		if rec.Backup == "" {
			return errNoNode
		}
		// It is beside the channel backup, unless lnd.conf says otherwise.
		inst.Admin = filepath.Join(filepath.Dir(rec.Backup), "admin.macaroon")
	}
	admin, err := lnd.ReadMacaroon(a.expandHome(inst.Admin))
	if err != nil {
		return err
	}
	defer admin.Wipe()
	node, err := lndNode(rec.Address, rec.Cert, admin)
	if err != nil {
		return err
	}
	defer node.Close()
	ctx, cancel := context.WithTimeout(ctx, lndAsk)
	defer cancel()
	return node.RevokeMacaroons(ctx, rec.RootKey)
}

// openUnreadable is the state of an open whose record cannot be read.
const openUnreadable = "unreadable"

// lndLeft returns an open of a channel that was cut short.
func (a *app) lndLeft(name string) (o lnd.Opening, left bool) {
	o, err := lnd.UnfinishedGated(a.lndJournal(name))
	if errors.Is(err, lnd.ErrNoOpening) {
		return o, false
	}
	if err != nil {
		o = lnd.Opening{State: openUnreadable} // Damaged, or of a newer satchel: nothing is known of it.
	}
	lock, err := (&watch{app: a, name: name}).lock("open")
	if err != nil {
		return o, false // It goes on just now.
	}
	return o, lock.Unlock() == nil
}

// lndUnconnected is what is said of a wallet that has the keys of a node, and no node is
// connected: its channels are not in the backup, and its owner may think that they are.
func lndUnconnected(network wallet.Network, get func() (keptBackup, error)) *lndNow {
	_, err := get()
	return &lndNow{lndJSON: lndJSON{Network: string(network)}, Unconnected: true, Kept: !errors.Is(err, satchel.ErrNoItem), Unsaved: []string{}}
}

// lndJournal is the record of an open of a channel.
func (a *app) lndJournal(name string) string {
	home, _ := a.home() // There is one where there is a wallet.
	return filepath.Join(home, "watch", name+".open.json")
}
