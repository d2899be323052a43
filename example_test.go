package satchel_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
	"github.com/satchel-backup/satchel/wallet"
)

// device returns the Config of a device below dir whose backup goes to a folder
// beside it.
func device(dir, name string) satchel.Config {
	cloud, err := folder.New(filepath.Join(dir, "cloud"), folder.Config{Create: true})
	if err != nil {
		log.Fatal(err)
	}
	return satchel.Config{
		Dir:      filepath.Join(dir, name),
		Keychain: keychain.File(filepath.Join(dir, name+"-keychain")),
		Places:   []store.Place{{Address: "folder:cloud", Store: cloud}},
		Settle:   -1, // look once: a local folder does not lag
	}
}

// abandon is the wallet of many test vectors. Never use it.
func abandon() wallet.Keys {
	words, err := wallet.ParseWords(secret.FromString("abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"))
	if err != nil {
		log.Fatal(err)
	}
	keys, err := wallet.Import(words, wallet.ImportConfig{Network: wallet.Mainnet})
	if err != nil {
		log.Fatal(err)
	}
	return keys
}

// A wallet is backed up when it is made, and with every change.
func ExampleCreate() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()

	way, code := slot.NewRecoveryCode() // show code once, to be written down
	b, err := satchel.Create(ctx, device(dir, "phone"), satchel.Plan{
		Label: "Samantha", Keys: abandon(), Slots: []slot.Secret{way},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()

	result, err := b.Save(ctx, satchel.Change{Name: "labels", Value: []byte(`{"type":"addr","ref":"bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu","label":"Ann"}` + "\n")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("wallet", b.Status().Fingerprint)
	fmt.Println("generation", result.Generation, "protected", result.Protected)
	fmt.Println("code of", len(code.Open()), "characters")
	// Output:
	// wallet 73c5da0a
	// generation 2 protected true
	// code of 44 characters
}

// On a new device the backup is found, opened and restored.
func ExampleFound_Open() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	way, _ := slot.NewRecoveryCode()
	old, err := satchel.Create(ctx, device(dir, "phone"), satchel.Plan{Label: "Samantha", Keys: abandon(), Slots: []slot.Secret{way}})
	if err != nil {
		log.Fatal(err)
	}
	defer old.Close()

	cfg := device(dir, "new phone")
	found, err := satchel.Find(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	opened, err := found[0].Open(ctx, way)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("found", opened.Preview().Label, opened.Preview().Fingerprint)

	b, outcome, err := opened.Restore(ctx, cfg, satchel.RestoreOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	fmt.Println("compared", outcome.Compared, outcome.Addresses[0])

	// The old phone turns up again. It is not the writer any more.
	_, err = old.Save(ctx, satchel.Change{Name: "labels", Value: []byte("{}\n")})
	fmt.Println(errors.Is(err, satchel.ErrOtherDevice), satchel.CodeOf(err))
	// Output:
	// found Samantha 73c5da0a
	// compared true bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu
	// true 11
}

// An error has a code that a program can act on.
func ExampleCodeOf() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	_, err = satchel.Find(context.Background(), device(dir, "phone"))
	fmt.Println(satchel.CodeOf(err) == satchel.CodeNoBackup)
	// Output: true
}
