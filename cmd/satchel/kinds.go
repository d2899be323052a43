package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/wallet"
)

// What differs with the kind of a wallet's keys. Most have BIP 39 words; an lnd node has
// words of its own, or an extended master key.

// lndWords is what the keys of a node are called, which have no fingerprint.
const lndWords = "an lnd node's own words (aezeed)"

// whichWallet says which wallet's keys these are: the fingerprint, where there is one.
func whichWallet(kind wallet.Kind, fingerprint string) string {
	if kind == wallet.KindAezeed {
		return lndWords
	}
	return "fingerprint " + fingerprint
}

// sayWhose is a line of a result that says the same.
func (a *app) sayWhose(kind wallet.Kind, fingerprint string) {
	if kind == wallet.KindAezeed {
		a.say("Keys           %s", lndWords)
		return
	}
	a.say("Fingerprint    %s", fingerprint)
}

// kindFlag is the flag of import that says what the keys are.
func kindFlag(cmd *cobra.Command, kind *string) {
	cmd.Flags().StringVar(kind, "kind", string(wallet.KindBIP39), "what the keys are: `bip39` words, aezeed (an lnd node's own words), or xprv (an extended master key)")
}

// askKeys asks for keys of a kind. pass asks for the passphrase of the words, if the
// wallet has one.
func (a *app) askKeys(ctx context.Context, kind wallet.Kind, c wallet.ImportConfig, pass func() (secret.Bytes, error)) (keys wallet.Keys, err error) {
	var words wallet.Words
	var node wallet.Aezeed
	switch kind {
	case wallet.KindAezeed:
		err = a.askSentence(ctx, "Type the 24 words of the lnd node, with spaces between them. The first four\nletters of each are enough.\n", false,
			func(typed secret.Bytes) (err error) { node, err = wallet.ParseAezeed(typed); return err })
	case wallet.KindXPrv:
		return a.askMasterKey(ctx, c)
	default:
		words, err = a.askWords(ctx)
	}
	if err != nil {
		return keys, err
	}
	if c.Passphrase, err = pass(); err != nil {
		return keys, err
	}
	if kind == wallet.KindAezeed {
		return wallet.ImportAezeed(node, c)
	}
	return wallet.Import(words, c)
}

// askMasterKey asks for an extended master key. A person types a wrong one again.
func (a *app) askMasterKey(ctx context.Context, c wallet.ImportConfig) (wallet.Keys, error) {
	if a.secretFD != noFD {
		typed, err := a.fromFD(ctx, a.secretFD, "--secret-fd")
		if err != nil {
			return wallet.Keys{}, err
		}
		defer typed.Wipe()
		return wallet.ImportXPrv(typed, c)
	}
	for try := 1; ; try++ {
		typed, err := a.term.secret(ctx, "Extended master key, such as xprv9s21… (not shown): ")
		if err != nil {
			return wallet.Keys{}, err
		}
		keys, err := wallet.ImportXPrv(typed, c)
		typed.Wipe()
		if err == nil || errors.Is(err, wallet.ErrDate) || try == askTries {
			return keys, err
		}
		a.term.print("%s\n", wrap("Not yet: "+errorText(err)+"."))
	}
}

// otherWords reports whether words are of another kind than was asked for: typing them
// again would not help.
func otherWords(err error) bool {
	return errors.Is(err, wallet.ErrAezeedWords) || errors.Is(err, wallet.ErrBIP39Words) || errors.Is(err, wallet.ErrAezeedVersion)
}

// nodeWords makes the keys of an lnd node whose backup does not hold its words. Whether
// they are those of the backup, its check tells afterwards. If they are optional, none at
// all are no keys.
func (a *app) nodeWords(ctx context.Context, network wallet.Network, optional bool) (keys wallet.Keys, err error) {
	c := wallet.ImportConfig{Network: network}
	parse := func(typed secret.Bytes) error {
		words, err := wallet.ParseAezeed(typed)
		if err == nil {
			keys, err = wallet.ImportAezeed(words, c)
		}
		return err
	}
	if a.wordsFD != noFD {
		line, err := a.fromFD(ctx, a.wordsFD, "--words-fd")
		if err != nil {
			return keys, err
		}
		defer line.Wipe()
		return keys, parse(line)
	}
	return keys, a.typeSentence(ctx, "Type the 24 words of the lnd node, with spaces between them. The first four\nletters of each are enough.\n", optional, parse)
}

// passphraseNote says of the passphrase of words, where a script gets them, what it is
// for.
func passphraseNote(keys wallet.Keys) string {
	name, without := "its BIP 39 passphrase", "without it the words open another, empty wallet"
	if keys.Kind() == wallet.KindAezeed {
		name, without = "lnd's cipher seed passphrase", "without it lnd does not take the words"
	}
	switch keys.PassphraseState() {
	case wallet.KeptPassphrase:
		return fmt.Sprintf("the second line is %s: %s", strings.Replace(name, "its", "the", 1), without)
	case wallet.NeededPassphrase:
		return fmt.Sprintf("the wallet also needs %s, which is not kept here: %s", name, without)
	}
	return ""
}

func (a *app) exportXPrvCommand() *cobra.Command {
	var to exportTo
	cmd := &cobra.Command{
		Use:   "xprv",
		Short: "Show the extended master key of a wallet that has no words",
		Long: `Shows the extended master key (BIP 32: xprv, or tprv on a test network) of a wallet
that was taken over with "satchel import --kind xprv". The software that it came from
takes it; for lnd: "lncli create" on an empty machine, answer "x".

Whoever sees the key can take the money. Scripts get it in one line, with --yes or
to --to-fd or -o.

JSON: xprv, fingerprint.`,
		Example: `  satchel export xprv
  satchel export xprv --to-fd 3 3>key`,
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
			if keys.Kind() != wallet.KindXPrv {
				return &hintedError{errors.New("the keys of this wallet are words, and not an extended key"), "`satchel export words` shows them"}
			}
			aside := to.fd != noFD || to.file != ""
			if err := a.confirm(cmd.Context(), to.yes || aside, "--yes, --to-fd N or -o FILE", "Whoever sees this key can take the money. Is nobody looking, and no camera?\nShow it?"); err != nil {
				return err
			}
			key := keys.Written()
			defer key.Wipe()
			if a.json {
				return a.emit(struct {
					XPrv        string `json:"xprv"`
					Fingerprint string `json:"fingerprint"`
				}{string(key.Open()), keys.Fingerprint()})
			}
			return a.write(cmd.Context(), to, append(append([]byte{}, key.Open()...), '\n'))
		},
	}
	to.flags(cmd, true)
	return cmd
}
