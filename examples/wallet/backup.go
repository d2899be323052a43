package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
	"github.com/satchel-backup/satchel/wallet"
)

// config says where the backup lives. A real wallet uses its own data directory and
// the system's keychain.
func config(cloud string) (satchel.Config, error) {
	place, err := folder.New(cloud, folder.Config{Create: true})
	return satchel.Config{
		Dir: cloud + "-device", Keychain: keychain.File(filepath.Join(filepath.Dir(cloud), "keychain")),
		Places: []store.Place{{Address: "folder:" + cloud, Store: place}},
	}, err
}

// newPurse makes a wallet with its backup. The backup's problem is none of the
// wallet's: it is kept on this device, shown, and goes away with a later sync.
func newPurse(ctx context.Context, cfg satchel.Config, keys wallet.Keys) (*purse, error) {
	way, code := slot.NewRecoveryCode()
	b, err := satchel.Create(ctx, cfg, satchel.Plan{Label: "Example", Keys: keys, Slots: []slot.Secret{way}})
	if b == nil {
		return nil, err
	}
	return &purse{backup: b, code: code, problem: err}, nil
}

// openPurse opens this device's wallet: satchel.ErrNoDevice, and no other error,
// says that there is none.
func openPurse(ctx context.Context, cfg satchel.Config) (*purse, error) {
	b, err := satchel.Open(cfg)
	if err != nil {
		return nil, err
	}
	p := &purse{backup: b}
	p.sync(ctx)
	return p, nil
}

// restorePurse tries the code on every backup that it finds.
func restorePurse(ctx context.Context, cfg satchel.Config, code secret.Bytes) (*purse, error) {
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
		return &purse{backup: b, problem: err}, nil
	}
	return nil, errors.Join(errs...)
}

// save keeps the labels. What is not protected yet is kept on this device.
func (p *purse) save(ctx context.Context, labels []byte) error {
	_, p.problem = p.backup.Save(ctx, satchel.Change{Name: "labels", Value: labels})
	if errors.Is(p.problem, satchel.ErrNotProtected) {
		return nil
	}
	return p.problem
}

// sync brings up what is late. The wallet calls it when it is opened, and now and
// then.
func (p *purse) sync(ctx context.Context) error {
	_, p.problem = p.backup.Sync(ctx)
	return p.problem
}
