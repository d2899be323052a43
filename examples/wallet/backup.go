package main

import (
	"context"
	"path/filepath"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
	"github.com/satchel-backup/satchel/wallet"
)

// startBackup protects a new wallet and returns the code that opens its backup.
func startBackup(ctx context.Context, cloud string, keys wallet.Keys) (*satchel.Backup, secret.Bytes, error) {
	place, err := folder.New(cloud, folder.Config{Create: true})
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	home := cloud + "-device" // a real wallet uses its own data directory
	cfg := satchel.Config{Dir: home, Keychain: keychain.File(filepath.Join(filepath.Dir(home), "keychain")),
		Places: []store.Place{{Address: "folder:" + cloud, Store: place}}}
	way, code := slot.NewRecoveryCode()
	b, err := satchel.Create(ctx, cfg, satchel.Plan{Label: "Example", Keys: keys, Slots: []slot.Secret{way}})
	return b, code, err
}

// keepLabels saves the labels; the wallet calls it after every change.
func keepLabels(ctx context.Context, b *satchel.Backup, text []byte) error {
	_, err := b.Save(ctx, satchel.Change{Name: "labels", Value: text})
	return err
}
