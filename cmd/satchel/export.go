package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/wallet"
)

// exportTo is where an export goes.
type exportTo struct {
	file string
	fd   int
	yes  bool
}

func (e *exportTo) flags(cmd *cobra.Command, reveals bool) {
	cmd.Flags().StringVarP(&e.file, "output", "o", "", "write to this new `file`, mode 0600")
	e.fd = noFD
	if reveals {
		cmd.Flags().IntVar(&e.fd, "to-fd", noFD, "write to file descriptor `N`")
		cmd.Flags().BoolVar(&e.yes, "yes", false, "reveal without asking")
	}
}

// write sends an export where it shall go.
func (a *app) write(ctx context.Context, to exportTo, data []byte) error {
	a.progress.pause()
	switch {
	case to.file != "":
		return writeNew(to.file, data)
	case to.fd != noFD:
		return a.writeFD(ctx, to.fd, append([]byte{}, data...))
	}
	return unread(writeTo(ctx, a.stdout, append([]byte{}, data...)))
}

func (a *app) exportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Take the wallet elsewhere: words, descriptors, labels",
		Long: `Your wallet is not tied to Satchel. Export its words to use it in any other BIP 39
wallet, its descriptors to watch it, its labels to keep your notes.`,
		Example: `  satchel export words
  satchel export descriptors
  satchel export labels -o labels.jsonl`,
		Args:        noSuchCommand,
		Annotations: exits(satchel.CodeDone, satchel.CodeUsage),
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.exportWordsCommand(), a.exportXPrvCommand(), a.exportDescriptorsCommand(), a.exportCoreCommand(), a.exportLabelsCommand())
	return cmd
}

func (a *app) exportWordsCommand() *cobra.Command {
	var to exportTo
	cmd := &cobra.Command{
		Use:   "words",
		Short: "Show the words of the wallet",
		Long: `Shows the words of the wallet, numbered, to be written down or typed into another
wallet. Any wallet that knows BIP 39 takes them; it finds the money at these
paths: m/84h/0h/0h (native segwit, the usual one), m/86h (taproot), m/49h, m/44h.
An lnd node's own words (aezeed) only lnd takes: "lncli create", answer "y".

Whoever sees the words can take the money. A passphrase of theirs that is kept
in the backup is shown too: it is part of the wallet.

Scripts get the words in one line, with --yes or to --to-fd or -o; a passphrase that
is kept follows in a second line.

JSON: words (in one line), kind (bip39, aezeed), passphrase, passphrase_needed,
fingerprint, paths (none for aezeed).`,
		Example: `  satchel export words
  satchel export words --to-fd 3 3>words`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(append(slices.Clone(localExits), satchel.CodeInterrupted)...),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			keys, err := keysHere(b)
			if err != nil {
				return err
			}
			if keys.WordCount() == 0 {
				return wallet.ErrNoWords
			}
			_, tty := asTerminal(a.stdout)
			aside := to.fd != noFD || to.file != "" // not where somebody could look over a shoulder
			if err := a.confirm(cmd.Context(), to.yes || aside, "--yes, --to-fd N or -o FILE", "Whoever sees these words can take the money. Is nobody looking, and no camera?\nShow them?"); err != nil {
				return err
			}
			words := keys.Written()
			defer words.Wipe()
			if a.json {
				return a.emit(wordsJSON{string(words.Open()), keys.Kind(), string(keys.Passphrase().Open()),
					keys.PassphraseState() == wallet.NeededPassphrase, keys.Fingerprint(), accountPaths(keys)})
			}
			if aside || !tty {
				text := append(append([]byte{}, words.Open()...), '\n')
				if keys.PassphraseState() == wallet.KeptPassphrase {
					text = append(append(text, keys.Passphrase().Open()...), '\n')
				}
				if note := passphraseNote(keys); note != "" {
					a.note("%s", note)
				}
				return a.write(cmd.Context(), to, text)
			}
			a.say("%s", wordColumns(words))
			name := "BIP 39 passphrase"
			if keys.Kind() == wallet.KindAezeed {
				name = "Cipher seed passphrase"
			}
			switch keys.PassphraseState() {
			case wallet.KeptPassphrase:
				a.say("%s, part of the wallet:  %s", name, keys.Passphrase().Open())
				a.say("")
			case wallet.NeededPassphrase:
				a.say("The wallet also needs its %s, which is not kept here.", strings.Replace(name, "Cipher", "cipher", 1))
				a.say("")
			}
			if keys.Kind() == wallet.KindAezeed {
				a.say("Only lnd takes these words: `lncli create` on an empty machine, answer \"y\". What")
				a.say("is in channels needs the newest channel backup beside them. Written down, they")
				a.say("bring the rest back without Satchel; `satchel words verify` lets you type some")
				a.say("back, to be sure.")
				return nil
			}
			a.say("Fingerprint %s. Any BIP 39 wallet takes these words; the money is at", keys.Fingerprint())
			a.say("%s.", strings.Join(accountPaths(keys), ", "))
			a.say("Written down, they bring the wallet back without Satchel. Then `satchel words")
			a.say("verify` lets you type some back, to be sure.")
			return nil
		},
	}
	to.flags(cmd, true)
	return cmd
}

type wordsJSON struct {
	Words            string      `json:"words"`
	Kind             wallet.Kind `json:"kind"`
	Passphrase       string      `json:"passphrase,omitempty"`
	PassphraseNeeded bool        `json:"passphrase_needed"`
	Fingerprint      string      `json:"fingerprint"`
	Paths            []string    `json:"paths"`
}

func accountPaths(keys wallet.Keys) []string {
	if keys.Kind() == wallet.KindAezeed {
		return []string{}
	}
	coin := "1h"
	if keys.Network() == wallet.Mainnet {
		coin = "0h"
	}
	var paths []string
	for _, s := range wallet.Schemes() {
		paths = append(paths, "m/"+strings.TrimPrefix(string(s), "bip")+"h/"+coin+"/0h")
	}
	return paths
}

// wordColumns prints words with their numbers, to be read down the columns.
func wordColumns(words secret.Bytes) string {
	list := strings.Fields(string(words.Open()))
	columnsOf := 3
	rows := (len(list) + columnsOf - 1) / columnsOf
	var b strings.Builder
	b.WriteString("\n")
	for r := range rows {
		line := "  "
		for c := range columnsOf {
			if i := c*rows + r; i < len(list) {
				line += fmt.Sprintf("%3d  %-16s", i+1, list[i])
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

func (a *app) exportDescriptorsCommand() *cobra.Command {
	var to exportTo
	var account uint32
	var core, private bool
	cmd := &cobra.Command{
		Use:   "descriptors",
		Short: "Print what a watching wallet needs",
		Long: `Prints the output descriptors of an account for Sparrow, Bitcoin Core and others,
one a line, each for receiving and change (BIP 389), with checksum. They cannot
spend, but whoever has them sees every payment.

With --private it prints the account's private master keys instead, one a line,
as Electrum takes them ("Standard wallet", "Use a master key"): zprv for native
segwit, yprv, xprv. Whoever sees those can take the money. A BIP 39 passphrase
that is not kept in the backup is asked for.

JSON, one object a kind of account: kind, path, descriptor, address, key (the
extended key in the form of SLIP 132, null for taproot).`,
		Example: `  satchel export descriptors
  satchel export descriptors --account 1 -o watch.txt
  satchel export descriptors --private`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(append(slices.Clone(localExits), satchel.CodeInterrupted)...),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if core {
				return a.exportCore(cmd.Context(), to, account, private)
			}
			return a.exportDescriptors(cmd.Context(), to, account, private)
		},
	}
	to.flags(cmd, true)
	a.passphraseFlag(cmd)
	cmd.Flags().Uint32Var(&account, "account", 0, "the account `number`")
	cmd.Flags().BoolVar(&core, "core", false, "print what Bitcoin Core imports, as export core does")
	cmd.Flags().BoolVar(&private, "private", false, "with the private keys, after a confirmation")
	return cmd
}

func (a *app) exportDescriptors(ctx context.Context, to exportTo, account uint32, private bool) error {
	keys, err := a.exportKeys(ctx)
	if err != nil {
		return err
	}
	if private {
		if err := a.confirm(ctx, to.yes, "--yes", "Whoever sees these keys can take the money of this account. Show them?"); err != nil {
			return err
		}
	}
	type accountJSON struct {
		Kind       wallet.Scheme `json:"kind"`
		Path       string        `json:"path"`
		Descriptor string        `json:"descriptor"`
		Address    string        `json:"address"`
		Key        *string       `json:"key"`
	}
	var lines strings.Builder
	for _, s := range wallet.Schemes() {
		p, err := keys.PrivateAccount(s, account)
		if errors.Is(err, wallet.ErrOpaque) {
			return err
		}
		if err != nil {
			return usageOf(err)
		}
		address, err := p.Address(false, 0)
		if err != nil {
			return err
		}
		j := accountJSON{Kind: s, Path: p.Path(), Descriptor: p.Multipath(), Address: address}
		if private {
			d := p.PrivateMultipath()
			j.Descriptor = string(d.Open())
			if k, err := p.SLIP132Private(); err == nil {
				key := string(k.Open())
				j.Key = &key
				fmt.Fprintf(&lines, "%s\n", key)
			}
		} else {
			if k, err := p.SLIP132(); err == nil {
				j.Key = &k
			}
			fmt.Fprintf(&lines, "%s\n", j.Descriptor)
		}
		if a.json {
			if err := a.emit(j); err != nil {
				return err
			}
		}
	}
	if a.json {
		return nil
	}
	return a.write(ctx, to, []byte(lines.String()))
}

// exportKeys are the keys of the wallet, complete with a passphrase that is not
// kept.
func (a *app) exportKeys(ctx context.Context) (wallet.Keys, error) {
	b, err := a.open(ctx)
	if err != nil {
		return wallet.Keys{}, err
	}
	defer b.Close()
	keys, err := keysHere(b)
	if err != nil {
		return keys, err
	}
	if keys.PassphraseState() != wallet.NeededPassphrase || keys.Kind() == wallet.KindAezeed {
		return keys, nil
	}
	p, err := a.askNeededPassphrase(ctx)
	if err != nil {
		return keys, err
	}
	if p.Empty() {
		return keys, wallet.ErrPassphraseNeeded
	}
	return keys.WithPassphrase(p)
}

func (a *app) exportCoreCommand() *cobra.Command {
	var to exportTo
	var account uint32
	var private bool
	cmd := &cobra.Command{
		Use:   "core",
		Short: "Print what Bitcoin Core imports",
		Long: `Prints the argument of Bitcoin Core's importdescriptors, for a watching wallet
made with disable_private_keys. With --private, after a confirmation, it is for a
wallet that shall spend.`,
		Example: `  satchel export core -o import.json
  bitcoin-cli -rpcwallet=watch importdescriptors "$(satchel export core)"`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(append(slices.Clone(localExits), satchel.CodeInterrupted)...),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.exportCore(cmd.Context(), to, account, private)
		},
	}
	to.flags(cmd, true)
	a.passphraseFlag(cmd)
	cmd.Flags().Uint32Var(&account, "account", 0, "the account `number`")
	cmd.Flags().BoolVar(&private, "private", false, "with the private keys, after a confirmation")
	return cmd
}

func (a *app) exportCore(ctx context.Context, to exportTo, account uint32, private bool) error {
	keys, err := a.exportKeys(ctx)
	if err != nil {
		return err
	}
	if keys.Kind() == wallet.KindAezeed {
		return wallet.ErrOpaque
	}
	since := scanFrom(keys.Made(), a.now())
	if private {
		if err := a.confirm(ctx, to.yes, "--yes", "Whoever sees these keys can take the money of this account. Show them?"); err != nil {
			return err
		}
		text, err := keys.CoreImport(account, since)
		if err != nil {
			return usageOf(err)
		}
		defer text.Wipe()
		return a.write(ctx, to, append(append([]byte{}, text.Open()...), '\n'))
	}
	d, err := keys.Descriptors(account)
	if errors.Is(err, wallet.ErrOpaque) {
		return err
	}
	if err != nil {
		return usageOf(err)
	}
	text, err := d.CoreImport(since)
	if err != nil {
		return err
	}
	return a.write(ctx, to, append(text, '\n'))
}

// scanFrom is since when a wallet made on a day, if known, must be looked for: the
// zero time is the whole chain. A day that is yet to come was written by a clock
// that is not to be believed, and would hide payments.
func scanFrom(made string, now time.Time) time.Time {
	since, err := time.Parse(time.DateOnly, made)
	if err != nil || since.After(now) {
		return time.Time{}
	}
	return since
}

func (a *app) exportLabels(ctx context.Context) ([]byte, error) {
	b, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	value, err := b.Get(seal.ItemLabels)
	if err != nil {
		return nil, err
	}
	defer value.Wipe()
	labels, err := wallet.ParseLabels(value.Open())
	if err != nil {
		return nil, err
	}
	return labels.Text()
}

func (a *app) exportLabelsCommand() *cobra.Command {
	var to exportTo
	cmd := &cobra.Command{
		Use:   "labels",
		Short: "Print the labels, as BIP 329",
		Long: `Prints the labels of the wallet in the form of BIP 329, which Sparrow and others
import. "satchel put labels FILE" takes them.`,
		Example: `  satchel export labels
  satchel export labels -o labels.jsonl`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(localExits...),
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := a.exportLabels(cmd.Context())
			if err != nil {
				return err
			}
			return a.write(cmd.Context(), to, text)
		},
	}
	to.flags(cmd, false)
	return cmd
}
