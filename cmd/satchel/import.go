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

func (a *app) importCommand() *cobra.Command {
	var n newWallet
	var since, kindName string
	var passphrase, forget bool
	cmd := &cobra.Command{
		Use:   "import [flags]",
		Short: "Take over a wallet or an lnd node you have, from its words",
		Long: `Takes over a wallet that you already have, from its 12 to 24 BIP 39 words in any
of the ten languages, and makes an encrypted backup of it like create does. The
words are typed without being shown; one that is wrong is marked by its number.

With --passphrase the wallet's BIP 39 passphrase (some call it the 13th or 25th
word) is asked for too. It is kept in the backup, encrypted like the words. With
--forget-passphrase it is not, and a restore will ask for it.

An lnd node has 24 words of its own (aezeed), which no other wallet takes: --kind
aezeed. With --passphrase its cipher seed passphrase is asked for, if you gave lnd
one; only lnd can tell whether it is right. A node that is not on mainnet: --network.
A node or wallet that was made from an
extended master key: --kind xprv.

` + newWalletJSON,
		Example: `  satchel import
  satchel import --in ~/Nextcloud --label Savings --passphrase
  satchel import --kind aezeed --in ~/Nextcloud --label Node
  satchel import --kind aezeed --network testnet --label "Test node"
  satchel import --in /srv/backup --unlock recovery-code --json \
    --secret-fd 3 3<words`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly,
			satchel.CodeWrongSecret, satchel.CodeFewServers, satchel.CodeServerLied, satchel.CodeListing, satchel.CodeSignIn, satchel.CodeWrongAccount, satchel.CodeFull, satchel.CodeUnreachable, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.term == nil && a.secretFD == noFD {
				return needFlag("the words or the key of the wallet", "--secret-fd N")
			}
			kind, err := wallet.ParseKind(kindName)
			if err != nil {
				return usageOf(err)
			}
			if forget {
				passphrase = true
			}
			n.yours = keysBrought
			if kind == wallet.KindAezeed {
				n.yours = keysOfNode
			}
			if kind == wallet.KindXPrv && (passphrase || a.passphraseFD != noFD) {
				return usageOf(wallet.ErrPassphraseKind)
			}
			if passphrase && a.term == nil && a.passphraseFD == noFD {
				return needFlag("the BIP 39 passphrase", "--passphrase-fd N")
			}
			return a.create(cmd, n, func(ctx context.Context) (wallet.Keys, error) {
				network, err := wallet.ParseNetwork(n.network)
				if err != nil {
					return wallet.Keys{}, usageOf(err)
				}
				c := wallet.ImportConfig{Network: network, Made: since, KeepPassphrase: !forget}
				keys, err := a.askKeys(ctx, kind, c, func() (secret.Bytes, error) {
					if !passphrase && a.passphraseFD == noFD {
						return secret.Bytes{}, nil
					}
					return a.askWordsPassphrase(ctx, kind)
				})
				if errors.Is(err, wallet.ErrDate) {
					return keys, usageOf(err)
				}
				if err == nil && a.term != nil && kind != wallet.KindAezeed {
					a.term.print("The wallet has the fingerprint %s.\n\n", a.term.strong(keys.Fingerprint()))
				}
				return keys, err
			})
		},
	}
	n.flags(a, cmd)
	kindFlag(cmd, &kindName)
	cmd.Flags().StringVar(&since, "since", "", "`date` since when the wallet is in use, as 2026-11-23")
	cmd.Flags().BoolVar(&passphrase, "passphrase", false, "ask for the passphrase of the words: BIP 39, or lnd's cipher seed passphrase")
	cmd.Flags().BoolVar(&forget, "forget-passphrase", false, "do not keep it in the backup (a restore asks for it)")
	a.wordsFlag(cmd, "the words or the key")
	a.passphraseFlag(cmd)
	a.newSecretFlag(cmd)
	a.codeFlag(cmd)
	return cmd
}

// askWords asks for the words of a wallet. A person types wrong ones again.
func (a *app) askWords(ctx context.Context) (words wallet.Words, err error) {
	err = a.askSentence(ctx, typeBIP39, false, func(typed secret.Bytes) (err error) { words, err = wallet.ParseWords(typed); return err })
	return words, err
}

const typeBIP39 = "Type the words of the wallet, with spaces between them. Of an English word\nthe first four letters are enough.\n"

// askSentence has words parsed that come from --secret-fd, or are typed.
func (a *app) askSentence(ctx context.Context, how string, optional bool, parse func(secret.Bytes) error) error {
	if a.secretFD != noFD {
		typed, err := a.fromFD(ctx, a.secretFD, "--secret-fd")
		if err != nil {
			return err
		}
		defer typed.Wipe()
		return parse(typed)
	}
	return a.typeSentence(ctx, how, optional, parse)
}

// typeWords lets a person type the words of a wallet. If they are optional, an empty line
// goes on without any.
func (a *app) typeWords(ctx context.Context, optional bool) (words wallet.Words, err error) {
	err = a.typeSentence(ctx, typeBIP39, optional, func(typed secret.Bytes) (err error) { words, err = wallet.ParseWords(typed); return err })
	return words, err
}

// typeSentence lets a person type words until they are well-formed. If they are optional,
// an empty line ends it, and nothing was parsed.
func (a *app) typeSentence(ctx context.Context, how string, optional bool, parse func(secret.Bytes) error) error {
	a.term.print("%s", how)
	if optional {
		a.term.print("An empty line goes on without them.\n")
	}
	for {
		typed, err := a.term.secret(ctx, "Words (not shown): ")
		if err != nil {
			return err
		}
		if optional && strings.TrimSpace(string(typed.Open())) == "" {
			return nil
		}
		completed := completeWords(typed)
		typed.Wipe()
		err = parse(completed)
		e, ok := errors.AsType[*wallet.WordsError](err)
		for ok && e.Problem == wallet.UnknownWord && len(e.Unknown) <= 3 {
			// Only these words again, not all of them.
			if completed, err = a.askAgain(ctx, completed, e.Unknown); err != nil {
				return err
			}
			err = parse(completed)
			e, ok = errors.AsType[*wallet.WordsError](err)
		}
		if err == nil || otherWords(err) {
			completed.Wipe()
			return err
		}
		a.term.print("%s\n", wrap("Not yet: "+errorText(err)+"."))
	}
}

// askAgain asks for the words at the positions anew.
func (a *app) askAgain(ctx context.Context, sentence secret.Bytes, positions []int) (secret.Bytes, error) {
	words := strings.Fields(string(sentence.Open()))
	sentence.Wipe()
	for _, at := range positions {
		if at < 0 || at >= len(words) {
			continue
		}
		typed, err := a.term.secret(ctx, fmt.Sprintf("Word %d is in no list. Word %d again (not shown): ", at+1, at+1))
		if err != nil {
			return secret.Bytes{}, err
		}
		words[at] = strings.TrimSpace(string(completeWords(typed).Open()))
	}
	return secret.FromString(strings.Join(words, " ")), nil
}

// completeWords turns the beginnings of English words into the words, where only
// one begins so. What it does not know it leaves alone.
func completeWords(typed secret.Bytes) secret.Bytes {
	words := strings.Fields(string(typed.Open()))
	for i, w := range words {
		if len(w) < 3 {
			continue
		}
		if full := wallet.Complete(w, wallet.English); len(full) == 1 && !slices.Contains(full, w) {
			words[i] = full[0]
		}
	}
	return secret.FromString(strings.Join(words, " "))
}

// askWordsPassphrase asks for the passphrase of a wallet that is taken over: twice, since
// any passphrase leads to some wallet, and that of a node nobody here can verify.
func (a *app) askWordsPassphrase(ctx context.Context, kind wallet.Kind) (secret.Bytes, error) {
	prompt := "BIP 39 passphrase (not shown): "
	if kind == wallet.KindAezeed {
		prompt = "Cipher seed passphrase of the node (not shown): "
	}
	if a.passphraseFD != noFD {
		return a.fromFD(ctx, a.passphraseFD, "--passphrase-fd")
	}
	for {
		p, err := a.term.secret(ctx, prompt)
		if err != nil {
			return secret.Bytes{}, err
		}
		again, err := a.term.secret(ctx, "The same again: ")
		if err != nil {
			return secret.Bytes{}, err
		}
		if p.Equal(again) && !p.Empty() {
			return p, nil
		}
		a.term.print("The two differ, or are empty. Once more:\n")
	}
}
