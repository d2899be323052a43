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
	var since string
	var passphrase, forget bool
	cmd := &cobra.Command{
		Use:   "import [flags]",
		Short: "Take over a wallet you have, from its words",
		Long: `Takes over a wallet that you already have, from its 12 to 24 BIP 39 words in any
of the ten languages, and makes an encrypted backup of it like create does. The
words are typed without being shown; one that is wrong is marked by its number.

With --passphrase the wallet's BIP 39 passphrase (some call it the 13th or 25th
word) is asked for too. It is kept in the backup, encrypted like the words. With
--forget-passphrase it is not, and a restore will ask for it.

` + newWalletJSON,
		Example: `  satchel import
  satchel import --in ~/Nextcloud --label Savings --passphrase
  satchel import --in /srv/backup --unlock recovery-code --json \
    --secret-fd 3 3<words`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodePartly,
			satchel.CodeWrongSecret, satchel.CodeFewServers, satchel.CodeServerLied, satchel.CodeListing, satchel.CodeFull, satchel.CodeUnreachable, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.term == nil && a.secretFD == noFD {
				return needFlag("the words of the wallet", "--secret-fd N")
			}
			if forget {
				passphrase = true
			}
			if passphrase && a.term == nil && a.passphraseFD == noFD {
				return needFlag("the BIP 39 passphrase", "--passphrase-fd N")
			}
			return a.create(cmd, n, func(ctx context.Context) (wallet.Keys, error) {
				network, err := wallet.ParseNetwork(n.network)
				if err != nil {
					return wallet.Keys{}, usageOf(err)
				}
				words, err := a.askWords(ctx)
				if err != nil {
					return wallet.Keys{}, err
				}
				var p secret.Bytes
				if passphrase || a.passphraseFD != noFD {
					if p, err = a.askBIP39Passphrase(ctx); err != nil {
						return wallet.Keys{}, err
					}
				}
				keys, err := wallet.Import(words, wallet.ImportConfig{Network: network, Made: since, Passphrase: p, KeepPassphrase: !forget})
				if errors.Is(err, wallet.ErrDate) {
					return keys, usageOf(err)
				}
				if err == nil && a.term != nil {
					a.term.print("The wallet has the fingerprint %s.\n\n", a.term.strong(keys.Fingerprint()))
				}
				return keys, err
			})
		},
	}
	n.flags(a, cmd)
	cmd.Flags().StringVar(&since, "since", "", "`date` since when the wallet is in use, as 2026-11-23")
	cmd.Flags().BoolVar(&passphrase, "passphrase", false, "ask for the wallet's BIP 39 passphrase")
	cmd.Flags().BoolVar(&forget, "forget-passphrase", false, "do not keep it in the backup (a restore asks for it)")
	a.wordsFlag(cmd, "the words")
	a.passphraseFlag(cmd)
	a.newSecretFlag(cmd)
	a.codeFlag(cmd)
	return cmd
}

// askWords asks for the words of a wallet. A person types wrong ones again.
func (a *app) askWords(ctx context.Context) (wallet.Words, error) {
	if a.secretFD != noFD {
		typed, err := a.fromFD(ctx, a.secretFD, "--secret-fd")
		if err != nil {
			return wallet.Words{}, err
		}
		defer typed.Wipe()
		return wallet.ParseWords(typed)
	}
	return a.typeWords(ctx, false)
}

// typeWords lets a person type the words of a wallet. If they are optional, an empty line
// goes on without any.
func (a *app) typeWords(ctx context.Context, optional bool) (wallet.Words, error) {
	a.term.print("Type the words of the wallet, with spaces between them. Of an English word\nthe first four letters are enough.\n")
	if optional {
		a.term.print("An empty line goes on without them.\n")
	}
	for {
		typed, err := a.term.secret(ctx, "Words (not shown): ")
		if err != nil {
			return wallet.Words{}, err
		}
		if optional && strings.TrimSpace(string(typed.Open())) == "" {
			return wallet.Words{}, nil
		}
		completed := completeWords(typed)
		typed.Wipe()
		words, err := wallet.ParseWords(completed)
		if err == nil {
			completed.Wipe()
			return words, nil
		}
		e, ok := errors.AsType[*wallet.WordsError](err)
		for ok && e.Problem == wallet.UnknownWord && len(e.Unknown) <= 3 {
			// Only these words again, not all of them.
			if completed, err = a.askAgain(ctx, completed, e.Unknown); err != nil {
				return wallet.Words{}, err
			}
			if words, err = wallet.ParseWords(completed); err == nil {
				completed.Wipe()
				return words, nil
			}
			e, ok = errors.AsType[*wallet.WordsError](err)
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

// askBIP39Passphrase asks for the passphrase of a wallet that is taken over:
// twice, since any passphrase leads to some wallet.
func (a *app) askBIP39Passphrase(ctx context.Context) (secret.Bytes, error) {
	if a.passphraseFD != noFD {
		return a.fromFD(ctx, a.passphraseFD, "--passphrase-fd")
	}
	for {
		p, err := a.term.secret(ctx, "BIP 39 passphrase (not shown): ")
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
