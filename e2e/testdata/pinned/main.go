// Command pinned makes a wallet and backs it up in a folder, with a PIN at key servers,
// as a wallet does with the library. The tests build it within Satchel's module.
//
//	pinned FOLDER PIN SERVER...
//
// It prints the words.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/https"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
	"github.com/satchel-backup/satchel/wallet"
)

func main() {
	words, err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "pinned:", err)
		os.Exit(1)
	}
	fmt.Println(words)
}

func run(ctx context.Context, place, pin string, servers []string) (words string, err error) {
	home, err := os.MkdirTemp("", "pinned-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(home) // The device is lost.
	if err := os.Mkdir(filepath.Join(home, "keychain"), 0o700); err != nil {
		return "", err
	}
	st, err := folder.New(place, folder.Config{Create: true})
	if err != nil {
		return "", err
	}
	keys, err := wallet.New(wallet.Mainnet, 12, "2026-11-26")
	if err != nil {
		return "", err
	}
	way, _ := slot.NewRecoveryCode()
	b, err := satchel.Create(ctx, satchel.Config{
		Dir:      filepath.Join(home, "wallet"),
		Places:   []store.Place{{Address: "folder:" + place, Store: st}},
		Keychain: keychain.File(filepath.Join(home, "keychain")),
		Guardians: &guard.Client{
			Transport: &https.Transport{},
			Trusted:   func(name string) bool { return slices.Contains(servers, name) },
		},
	}, satchel.Plan{Label: "Samantha", Keys: keys, Slots: []slot.Secret{way}})
	if err != nil {
		return "", err
	}
	defer b.Close()
	if _, err := b.Save(ctx, satchel.Change{Name: "labels", Value: []byte(`{"type":"tx","ref":"f91d0a8a78462bc59398f2c5d7a84fcff491c26ba54c4833478b202796c8aafd","label":"Rent"}` + "\n")}); err != nil {
		return "", err
	}
	o, err := b.Unlock(ctx, way)
	if err != nil {
		return "", err
	}
	if _, err := o.SetPIN(ctx, satchel.PINPlan{PIN: secret.FromString(pin), Servers: servers, Threshold: 2}); err != nil {
		return "", err
	}
	return string(keys.Words().Sentence().Open()), nil
}
