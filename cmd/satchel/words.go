package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/wallet"
)

func (a *app) wordsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "words",
		Short: "The words on paper: verify that they are written down",
		Long: `The words bring the wallet back without Satchel and without any cloud. "satchel
export words" shows them; once they are written down, "satchel words verify" lets
you type some back. Then "satchel rekey --drop-keys" can take them out of the cloud.`,
		Example: `  satchel export words
  satchel words verify`,
		Args:        noSuchCommand,
		Annotations: exits(satchel.CodeDone, satchel.CodeUsage),
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.wordsVerifyCommand(), a.wordsKeepCommand())
	return cmd
}

func (a *app) wordsVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Type some words back from your paper",
		Long: fmt.Sprintf(`Asks for %d words by their positions, to be typed from what you wrote down, and
compares them with those of the wallet. If all are right this device records that
the words are written down. If any is wrong it records nothing and does not say
which.

Scripts give --words-fd: lines of a position and a word, or all the words in one
line.

JSON: verified, next, next_command.`, satchel.MinWordsTyped),
		Example: `  satchel words verify
  satchel words verify --words-fd 3 3<words`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeWrongSecret, satchel.CodeDamaged,
			satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.verifyWords(cmd.Context()) },
	}
	cmd.Flags().IntVar(&a.wordsFD, "words-fd", noFD, "read words from file descriptor `N`: lines of a position and a word, or all in one line")
	return cmd
}

func (a *app) verifyWords(ctx context.Context) error {
	if a.term == nil && a.wordsFD == noFD {
		return needFlag("words of the wallet", "--words-fd N")
	}
	b, err := a.open(ctx)
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
	var typed map[int]secret.Bytes
	if a.wordsFD != noFD {
		typed, err = a.wordsFromFD(ctx)
	} else {
		typed, err = a.typeBack(ctx, keys.WordCount())
	}
	if err != nil {
		return err
	}
	if err := b.VerifyWords(typed); err != nil {
		return err
	}
	s := b.Status()
	a.say("Right: the words are written down.")
	a.sayNext(s.Next)
	return a.emit(struct {
		Verified bool `json:"verified"`
		nextJSON
	}{true, toNextJSON(s.Next)})
}

// keysHere returns the keys of a wallet, or an error that says where its words are.
func keysHere(b *satchel.Backup) (wallet.Keys, error) {
	keys, err := b.Keys()
	return keys, wordsElsewhere(b, err)
}

// wordsElsewhere says where the words of a wallet are whose backup does not hold them, if
// err is that they are no item.
func wordsElsewhere(b *satchel.Backup, err error) error {
	if !errors.Is(err, satchel.ErrNoItem) || !b.Status().KeysDropped {
		return err
	}
	if _, keysErr := b.Keys(); keysErr == nil {
		return &hintedError{fmt.Errorf("the words are not in the backup, only on this device: %w", err), "`satchel export words` shows them"}
	}
	return &hintedError{fmt.Errorf("the words are neither in the backup nor on this device, only where they were written down: %w", err),
		"`satchel words keep` takes them to this device, and compares all of them"}
}

func (a *app) wordsKeepCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keep",
		Short: "Keep words on this device that the backup does not hold",
		Long: `For a wallet whose words were taken out of the cloud, and that was restored without
them: asks for the words, compares them with the wallet, and keeps them on this
device only, so that it can spend. Scripts give --words-fd, all words in one line.

JSON: kept, fingerprint.`,
		Example: `  satchel words keep
  satchel words keep --words-fd 3 3<words`,
		Args: args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeWrongSecret, satchel.CodeDamaged,
			satchel.CodeWrongWallet, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.term == nil && a.wordsFD == noFD {
				return needFlag("the words of the wallet", "--words-fd N")
			}
			b, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			s := b.Status()
			if !s.KeysDropped {
				return &hintedError{errors.New("the backup holds the words already"), "`satchel export words` shows them"}
			}
			keys, err := a.keysOf(cmd.Context(), s.Kind, s.Network, s.Fingerprint, opened{}, false)
			if err != nil {
				return err
			}
			if err := b.KeepKeys(keys); err != nil {
				return err
			}
			a.say("Kept on this device: the words of the wallet, %s.", whichWallet(s.Kind, s.Fingerprint))
			return a.emit(struct {
				Kept        bool   `json:"kept"`
				Fingerprint string `json:"fingerprint"`
			}{true, s.Fingerprint})
		},
	}
	cmd.Flags().IntVar(&a.wordsFD, "words-fd", noFD, "read the words from file descriptor `N`, one line")
	a.passphraseFlag(cmd)
	return cmd
}

// typeBack asks for some of the words, in the order of the paper.
func (a *app) typeBack(ctx context.Context, count int) (map[int]secret.Bytes, error) {
	a.term.print("Take what you wrote down, and type these words from it; they are not shown.\n")
	typed := map[int]secret.Bytes{}
	for _, position := range somePositions(count, satchel.MinWordsTyped) {
		word, err := a.term.secret(ctx, fmt.Sprintf("Word %d of %d: ", position, count))
		if err != nil {
			return nil, err
		}
		typed[position] = completeWords(word)
		word.Wipe()
	}
	return typed, nil
}

// somePositions draws positions from 1 to count that nobody can foresee.
func somePositions(count, some int) []int {
	var all []int
	for i := range count {
		all = append(all, i+1)
	}
	for i := range min(some, count) {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(count-i)))
		if err != nil {
			panic(err) // It does not fail: see crypto/rand.
		}
		j := i + int(n.Int64())
		all[i], all[j] = all[j], all[i]
	}
	drawn := all[:min(some, count)]
	slices.Sort(drawn)
	return drawn
}

// wordsFromFD reads what a script gives in place of typing.
func (a *app) wordsFromFD(ctx context.Context) (map[int]secret.Bytes, error) {
	text, err := await(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(a.file(a.wordsFD), maxTyped)) })
	if errors.Is(err, context.Canceled) {
		return nil, err
	}
	bad := &usageError{text: "reading --words-fd: neither lines of a position and a word nor all words in one line",
		hint: "such as: satchel words verify --words-fd 3 3<file"}
	if err != nil {
		return nil, bad
	}
	defer clear(text)
	typed := map[int]secret.Bytes{}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if all := bytes.Fields(lines[0]); len(lines) == 1 && len(all) >= fewestWords {
		for i, word := range all {
			typed[i+1] = secret.New(word)
		}
		return typed, nil
	}
	for _, line := range lines {
		fields := bytes.Fields(line)
		if len(fields) != 2 {
			return nil, bad
		}
		position, err := strconv.Atoi(string(fields[0]))
		if err != nil {
			return nil, bad
		}
		typed[position] = secret.New(fields[1])
	}
	return typed, nil
}
