package satcheltest_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/satcheltest"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/wallet"
)

// notesApp is a wallet that keeps notes, and does everything right.
type notesApp struct{}

// Start makes a wallet only where there was none. Every other error of Open, a
// locked keychain among them, is one that the user must see.
func (notesApp) Start(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error) {
	b, err := satchel.Open(cfg)
	if err == nil {
		w := &notesWallet{b: b}
		w.Refresh(ctx) // What is wrong with the backup is on the screen. The wallet opens.
		return w, nil
	}
	if !errors.Is(err, satchel.ErrNoDevice) {
		return nil, err
	}
	keys, err := wallet.New(wallet.Testnet, 12, "")
	if err != nil {
		return nil, err
	}
	way, code := slot.NewRecoveryCode()
	b, err = satchel.Create(ctx, cfg, satchel.Plan{Label: "Notes", Keys: keys, Slots: []slot.Secret{way}})
	if b == nil {
		return nil, err
	}
	// With an error too the wallet is safe on this device, and not backed up yet.
	return &notesWallet{b: b, code: code, problem: err}, nil
}

// Restore tries the code on every backup in the place: there may be several.
func (notesApp) Restore(ctx context.Context, cfg satchel.Config, code secret.Bytes) (satcheltest.Wallet, error) {
	way, err := slot.RecoveryCode(code)
	if err != nil {
		return nil, err
	}
	found, err := satchel.Find(ctx, cfg)
	if len(found) == 0 {
		return nil, err
	}
	var errs []error
	for i := range found {
		opened, err := found[i].Open(ctx, way)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		b, _, err := opened.Restore(ctx, cfg, satchel.RestoreOptions{})
		if b == nil {
			return nil, err
		}
		return &notesWallet{b: b, problem: err}, nil
	}
	return nil, errors.Join(errs...)
}

type notesWallet struct {
	b       *satchel.Backup
	code    secret.Bytes
	problem error
}

func (w *notesWallet) notes() []string {
	v, err := w.b.Get("notes")
	if err != nil {
		return nil // None yet.
	}
	return strings.Split(string(v.Open()), "\n")
}

// Change keeps a note. A change that is not protected yet is kept all the same.
func (w *notesWallet) Change(ctx context.Context, note string) error {
	lines := append(w.notes(), note)
	_, err := w.b.Save(ctx, satchel.Change{Name: "notes", Value: []byte(strings.Join(lines, "\n"))})
	w.problem = err
	if errors.Is(err, satchel.ErrNotProtected) {
		return nil
	}
	return err
}

func (w *notesWallet) Refresh(ctx context.Context) error {
	_, w.problem = w.b.Sync(ctx)
	return w.problem
}

// Screen says protected when the backup says it, and remembers nothing of its own.
func (w *notesWallet) Screen() satcheltest.Screen {
	st := w.b.Status()
	return satcheltest.Screen{Wallet: st.Fingerprint, Notes: w.notes(), Protected: st.Protected, Problem: w.problem, Code: w.code}
}

func (w *notesWallet) Remove(context.Context) error { return w.b.Forget() }
func (w *notesWallet) Close() error                 { return w.b.Close() }

// The test of a wallet that keeps notes.
func Example() {
	testJourney := func(t *testing.T) { // is func TestJourney in wallet_test.go
		satcheltest.Journey(t, notesApp{})
	}
	_ = testJourney
}
