package satchel

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/wallet"
)

// A backup of this kind is meant for everyday amounts. What is here leads on when
// there is more: a limit to be warned at, and the steps after it.

// ItemLimit is the item that keeps the limit: satoshi, as decimal digits.
const ItemLimit = "satchel/limit"

// MaxLimit is the largest limit, in satoshi: all bitcoin there will be.
const MaxLimit = 21_000_000 * 100_000_000

// NextStep is what would make a wallet safer.
type NextStep string

const (
	NextSecondWay NextStep = "add a second way in"
	NextWords     NextStep = "write the words down, and type some back"
	NextDropKeys  NextStep = "take the words out of the cloud"
	NextSigner    NextStep = "keep savings with an external signer, or in a multisig wallet"
)

// nextStep returns the first step that was not taken.
func nextStep(s *Status) NextStep {
	switch {
	case s.Deleted:
		return ""
	case len(s.Slots) < 2:
		return NextSecondWay
	case s.Kind == wallet.KindXPrv:
		return NextSigner // There are no words to be written down.
	case s.WordsWritten.IsZero() && !s.KeysDropped:
		return NextWords
	case !s.KeysDropped:
		return NextDropKeys
	}
	return NextSigner
}

// SetLimit makes an amount, in satoshi, the one above which the user wants to be
// warned; 0 takes the limit away. It is part of the backup. Errors as for Save.
func (b *Backup) SetLimit(ctx context.Context, satoshi int64) (Result, error) {
	switch {
	case satoshi < 0 || satoshi > MaxLimit:
		return Result{}, fmt.Errorf("setting the limit: %d satoshi is no amount", satoshi)
	case satoshi > 0:
		return b.Save(ctx, Change{Name: ItemLimit, Value: strconv.AppendInt(nil, satoshi, 10)})
	case b.Status().Limit == 0:
		return b.Sync(ctx)
	}
	return b.Save(ctx, Change{Name: ItemLimit, Remove: true})
}

// limit reads what SetLimit wrote, and takes anything else for none.
func (d *device) limit() int64 {
	v, err := d.value(ItemLimit)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil || n < 0 || n > MaxLimit {
		return 0
	}
	return n
}

func (d *device) keysDropped() bool {
	e := d.items[seal.ItemKeys]
	return e != nil && e.line.Removed
}

// MinWordsTyped is how many words are typed back to show that they are written down.
const MinWordsTyped = 4

// VerifyWords compares words that the user typed back, by their positions from 1 on,
// with those of the wallet. If all are right, and at least MinWordsTyped, the device
// records durably that the words are written down. Otherwise the error is ErrWords and
// does not say which.
func (b *Backup) VerifyWords(typed map[int]secret.Bytes) error {
	if err := b.begin(context.Background()); err != nil {
		return err
	}
	defer b.end()
	k, err := b.Keys()
	if err != nil {
		return fmt.Errorf("verifying words: %w", err)
	}
	if k.Kind() == wallet.KindXPrv {
		return fmt.Errorf("verifying words: %w", wallet.ErrNoWords)
	}
	right := len(typed) >= MinWordsTyped
	for position, word := range typed {
		right = k.IsWord(position, word) && right
	}
	if !right {
		return ErrWords
	}
	kept := b.dev.kept
	kept.Written = b.cfg.Now()
	return b.setKept(kept)
}

// KeepKeys keeps on this device the keys of a wallet whose backup does not hold them,
// after comparing them with the descriptors: ErrWrongWallet if they are others.
func (b *Backup) KeepKeys(k wallet.Keys) error {
	if err := b.begin(context.Background()); err != nil {
		return err
	}
	defer b.end()
	if !b.dev.keysDropped() {
		return errors.New("keeping the keys: the backup holds them")
	}
	text, err := b.dev.value(seal.ItemDescriptors)
	if err != nil {
		return fmt.Errorf("keeping the keys: %w", err)
	}
	desc, err := wallet.ParseDescriptors(text)
	if err != nil {
		return fmt.Errorf("keeping the keys: %w", err)
	}
	if err := k.Matches(desc); err != nil {
		return fmt.Errorf("keeping the keys: %w: %w", ErrWrongWallet, err)
	}
	own, err := k.Text()
	if err != nil {
		return fmt.Errorf("keeping the keys: %w", err)
	}
	kept := b.dev.kept
	kept.Keys = own.Open()
	return b.setKept(kept)
}

func (b *Backup) setKept(kept keptRecord) error {
	if err := b.dev.append(record{Kept: &kept}); err != nil {
		return fmt.Errorf("recording it on this device: %w", err)
	}
	b.change(func() { b.dev.kept = kept })
	return nil
}
