package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/source"
	"github.com/satchel-backup/satchel/source/cln"
	"github.com/satchel-backup/satchel/source/file"
)

func (a *app) clnCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cln",
		Short: "Protect a Core Lightning node",
		Long: `Keeps the two files of a Core Lightning node from which its money comes back with a
wallet's backup: hsm_secret, and emergency.recover at every change.

"cln connect" takes a node in; "satchel watch" or "satchel agent run" save it from then on.
docs/cln.md says how a node comes back, step by step.`,
		Example: `  satchel cln connect
  satchel cln disconnect`,
		Args:        noSuchCommand,
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage),
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.clnConnectCommand(), a.clnDisconnectCommand())
	return cmd
}

// clnRecord is the Core Lightning node that is backed up with a wallet, in its
// watchRecord.
type clnRecord struct {
	Dir string `json:"dir"` // with hsm_secret in it
}

func (r *clnRecord) equal(o *clnRecord) bool { return r == o || r != nil && o != nil && *r == *o }

// paths are the files that are watched.
func (r *clnRecord) paths() []string {
	if r == nil {
		return nil
	}
	return (&cln.Node{Dir: r.Dir}).Paths()
}

var clnExits = []satchel.Code{satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly, satchel.CodeOtherDevice, satchel.CodeDamaged,
	satchel.CodeNewer, satchel.CodeWrongWallet, satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeFull, satchel.CodeUnreachable, satchel.CodeInterrupted}

func (a *app) clnConnectCommand() *cobra.Command {
	var replace, yes bool
	cmd := &cobra.Command{
		Use:   "connect [DIR]",
		Short: "Save a Core Lightning node's files at every change",
		Long: `Finds the directory of a Core Lightning node on this machine, or takes the one that is
named (lightningd's, or that of the network in it), and saves its hsm_secret and its
emergency.recover now. From then on "satchel watch" or "satchel agent run" saves them at
every change; it must run as a user who may read them.

The node's database, lightningd.sqlite3, is never saved: a node that is started with an
old copy of it can lose all that is in its channels.

If the backup holds the hsm_secret of another node nothing is saved. With --replace the
one that is here takes its place, after a yes; the other stays in the backup as an item
below its name. It is also for an hsm_secret that was encrypted or decrypted since.

JSON: dir, network, secret (plain, encrypted, words, words with a passphrase),
passphrase_needed (the node asks for one that the backup does not hold), items, changed,
generation, protected, places.`,
		Example: `  satchel cln connect
  satchel cln connect ~/.lightning/bitcoin`,
		Args:        args(cobra.MaximumNArgs(1)),
		Annotations: exits(clnExits...),
		RunE: func(cmd *cobra.Command, got []string) error {
			dir := ""
			if len(got) > 0 {
				dir = a.expandHome(got[0])
			}
			return a.clnConnect(cmd.Context(), dir, replace, yes)
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "save this hsm_secret although the backup holds another one, which it keeps beside")
	cmd.Flags().BoolVar(&yes, "yes", false, "replace without asking")
	return cmd
}

func (a *app) clnConnect(ctx context.Context, dir string, replace, yes bool) error {
	d, err := a.device()
	if err != nil {
		return err
	}
	b, err := a.openDevice(ctx, d)
	if err != nil {
		return err
	}
	defer b.Close()
	node, err := cln.Find(dir, b.Status().Network)
	var found cln.Secret
	if err == nil {
		found, err = node.Secret()
	}
	if errors.Is(err, fs.ErrPermission) {
		err = &hintedError{err, "only the user that runs lightningd may read it: run satchel as that user, there and for `satchel watch` or `satchel agent run`"}
	}
	if err != nil {
		return err
	}
	var older []satchel.Change
	if kept, ok := keptSecret(b); ok && kept != found.SHA256 {
		if !replace {
			return cln.ErrOtherNode
		}
		if err := a.confirm(ctx, yes, "--yes", "The backup holds another hsm_secret. Shall this one take its place? The other\nis kept beside it."); err != nil {
			return err
		}
		if older, err = clnOlder(b); err != nil {
			return err
		}
	}
	if len(older) > 0 {
		if _, err := agentSave(ctx, b, older); err != nil {
			return err
		}
	}
	w := &watch{app: a, name: d.name}
	changed, err := w.clnOnce(ctx, b, node, found.SHA256)
	if err != nil {
		return err
	}
	if err := w.change(ctx, func(rec *watchRecord) error { rec.CLN = &clnRecord{node.Dir}; return nil }); err != nil {
		return err
	}
	res, err := b.Sync(ctx)
	a.progress.pause()
	if err != nil && !errors.Is(err, satchel.ErrNotProtected) {
		return err
	}
	var items []string
	for _, i := range b.Items() {
		if slices.Contains([]string{cln.ItemSecret, cln.ItemRecover}, i.Name) {
			items = append(items, i.Name)
		}
	}
	type connectedJSON struct {
		Dir        string      `json:"dir"`
		Network    string      `json:"network"`
		Secret     cln.Form    `json:"secret"`
		Needed     bool        `json:"passphrase_needed"`
		Items      []string    `json:"items"`
		Changed    int         `json:"changed"`
		Generation uint64      `json:"generation"`
		Protected  bool        `json:"protected"`
		Places     []placeJSON `json:"places"`
	}
	if a.json {
		return errors.Join(err, a.emit(connectedJSON{node.Dir, string(b.Status().Network), found.Form, found.Form.Locked(), items,
			changed + len(older), res.Generation, res.Protected, placesJSON(res.Places)}))
	}
	a.say("Core Lightning  %s (%s)", printable(node.Dir), b.Status().Network)
	for _, name := range items {
		a.say("Saved           %s", name)
	}
	if !slices.Contains(items, cln.ItemRecover) {
		a.sayHanging("                ", "There is no emergency.recover yet: it is saved as soon as lightningd writes it. Without it only what is on the chain comes back.")
	}
	if found.Form.Locked() {
		a.sayHanging("Keep            ", "the password or passphrase that lightningd asks for at its start: it is not in the backup, and without it the hsm_secret is of no use")
	}
	a.sayHanging("Next            ", "`satchel watch` or `satchel agent run` saves them at every change; docs/cln.md says how the node comes back")
	return a.saved(b, res, err)
}

// keptSecret is the SHA-256 of the hsm_secret that a backup holds.
func keptSecret(b *satchel.Backup) (sum [32]byte, ok bool) {
	for _, i := range b.Items() {
		if i.Name == cln.ItemSecret {
			return i.SHA256, true
		}
	}
	return sum, false
}

// clnOlder makes items of what another node's files would take the place of.
func clnOlder(b *satchel.Backup) (changes []satchel.Change, err error) {
	for _, name := range []string{cln.ItemSecret, cln.ItemRecover} {
		value, err := b.Get(name)
		if errors.Is(err, satchel.ErrNoItem) {
			continue
		}
		if err != nil {
			return nil, err
		}
		changes = append(changes, satchel.Change{Name: cln.OlderItem(name, value), Value: value.Open()})
	}
	return changes, nil
}

// agentSave keeps changes on this device at least.
func agentSave(ctx context.Context, b *satchel.Backup, changes []satchel.Change) (satchel.Result, error) {
	r, err := b.Save(ctx, changes...)
	if errors.Is(err, satchel.ErrNotProtected) && ctx.Err() == nil {
		err = nil // It is kept, and a Sync says how it stands.
	}
	return r, err
}

// clnFiles is the source of a node's files.
func (w *watch) clnFiles(node *cln.Node) (*file.Source, error) {
	return file.New(file.Config{Paths: node.Paths(), Name: node.Item, Required: true, Report: w.leftOut, Notifier: w.notifier})
}

// clnSource is the source of a node's files while they are those of the node that the
// backup holds.
func (w *watch) clnSource(r clnRecord, b *satchel.Backup) (source.Source, error) {
	kept, ok := keptSecret(b)
	if !ok {
		return nil, &hintedError{errors.New("the backup does not hold the hsm_secret of the Core Lightning node"), "`satchel cln connect` saves it"}
	}
	node := &cln.Node{Dir: r.Dir}
	files, err := w.clnFiles(node)
	if err != nil {
		return nil, err
	}
	src := cln.New(node, kept, files)
	src.Kept = func(item string) (secret.Bytes, error) { return b.Get(item) }
	return src, nil
}

// clnOnce saves a node's files as they are now, and returns how many changed.
func (w *watch) clnOnce(ctx context.Context, b *satchel.Backup, node *cln.Node, kept [32]byte) (changed int, err error) {
	files, err := w.clnFiles(node)
	if err != nil {
		return 0, err
	}
	src := cln.New(node, kept, files)
	src.Kept = func(item string) (secret.Bytes, error) { return b.Get(item) }
	err = files.Once(ctx, src.Guard(nil, func(ctx context.Context, changes ...source.Change) error {
		res, err := agent.Save(ctx, b, changes...)
		changed += res.Changed
		if errors.Is(err, satchel.ErrNotProtected) && ctx.Err() == nil {
			return nil
		}
		return err
	}))
	return changed, err
}

// clnLook looks at a node's files and returns what of them is not saved as it stands.
func (w *watch) clnLook(ctx context.Context, r clnRecord, items []satchel.ItemInfo) ([]leftJSON, error) {
	node := &cln.Node{Dir: r.Dir}
	if items != nil {
		i := slices.IndexFunc(items, func(i satchel.ItemInfo) bool { return i.Name == cln.ItemSecret })
		err := cln.ErrOtherNode
		if i >= 0 {
			err = node.Same(items[i].SHA256)
		}
		if err != nil {
			return []leftJSON{{Path: node.Paths()[0], Error: errorText(err), Failed: true, Unsaved: errors.Is(err, cln.ErrOtherNode)}}, nil
		}
	}
	files, err := w.clnFiles(node)
	if err != nil {
		return nil, err
	}
	return w.lookAt(ctx, files, items)
}

func (a *app) clnDisconnectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "disconnect",
		Short: "Do not save the node's files any more",
		Long: `Ends that a Core Lightning node's files are saved at every change. What was saved of
them stays in the backup.

JSON: disconnected (the directory).`,
		Example:     `  satchel cln disconnect`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := a.device()
			if err != nil {
				return err
			}
			w := &watch{app: a, name: d.name}
			dir := ""
			err = w.change(cmd.Context(), func(rec *watchRecord) error {
				if rec.CLN == nil {
					return &hintedError{errors.New("no Core Lightning node is connected"), "`satchel cln connect` connects one"}
				}
				dir, rec.CLN = rec.CLN.Dir, nil
				return nil
			})
			if err != nil {
				return err
			}
			a.say("The files of the node in %s are not saved any more.", printable(dir))
			a.say("What was saved of them stays in the backup.")
			return a.emit(struct {
				Disconnected string `json:"disconnected"`
			}{dir})
		},
	}
}

// refuseDatabase returns an error if a path that shall be saved is the database of a
// node, or a directory with one in it.
func refuseDatabase(path string) error {
	if !cln.HasDatabase(path) {
		return nil
	}
	return &usageError{
		text: fmt.Sprintf("%s: %v", printable(path), cln.ErrDatabase),
		hint: "`satchel cln connect` saves what brings a node back",
	}
}
