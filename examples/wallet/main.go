// A small wallet with automatic backup. The wallet itself is main and the type
// purse; backup.go is all that Satchel needs of it, and main_test.go walks it
// through what happens to wallets.
//
//	go run ./examples/wallet DIRECTORY     the directory stands for the user's cloud
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/wallet"
)

// purse is the wallet: its keys, and labels that the user gives to addresses.
type purse struct {
	backup  *satchel.Backup
	code    secret.Bytes // opens the backup; only where the wallet was made, and shown once
	problem error        // that the backup has, for the user to see
}

// labels are those that the backup keeps.
func (p *purse) labels() (wallet.Labels, error) {
	text, err := p.backup.Get("labels")
	if errors.Is(err, satchel.ErrNoItem) {
		return wallet.Labels{}, nil
	}
	if err != nil {
		return wallet.Labels{}, err
	}
	return wallet.ParseLabels(text.Open())
}

// next is the first address without a label.
func (p *purse) next() (string, error) {
	keys, err := p.backup.Keys()
	if err != nil {
		return "", err
	}
	account, err := keys.Account(wallet.BIP84, 0)
	if err != nil {
		return "", err
	}
	labels, err := p.labels()
	if err != nil {
		return "", err
	}
	return account.Address(false, uint32(labels.Len()))
}

// label gives the next address a label.
func (p *purse) label(ctx context.Context, text string) error {
	labels, err := p.labels()
	if err != nil {
		return err
	}
	address, err := p.next()
	if err != nil {
		return err
	}
	l, err := wallet.NewLabel(wallet.LabelAddr, address, text, "")
	if err != nil {
		return err
	}
	all, err := labels.Merge(wallet.MakeLabels(l)).Text()
	if err != nil {
		return err
	}
	return p.save(ctx, all)
}

// start opens this device's wallet or, where there is none, makes one.
func start(ctx context.Context, cfg satchel.Config) (*purse, error) {
	p, err := openPurse(ctx, cfg)
	if !errors.Is(err, satchel.ErrNoDevice) {
		return p, err
	}
	keys, err := wallet.New(wallet.Testnet, 12, time.Now().Format("2006-01-02"))
	if err != nil {
		return nil, err
	}
	return newPurse(ctx, cfg, keys)
}

// open asks the user of a new device for a code before it makes a wallet.
func open(ctx context.Context, cfg satchel.Config, in *bufio.Scanner) (*purse, error) {
	if _, err := satchel.ReadDevice(cfg.Dir); errors.Is(err, satchel.ErrNoDevice) {
		fmt.Print("recovery code, or nothing for a new wallet: ")
		if in.Scan(); len(in.Bytes()) > 0 {
			return restorePurse(ctx, cfg, secret.New(in.Bytes()))
		}
	}
	return start(ctx, cfg)
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: wallet DIRECTORY")
	}
	ctx := context.Background()
	cfg, err := config(os.Args[1])
	check(err)
	in := bufio.NewScanner(os.Stdin)
	p, err := open(ctx, cfg, in)
	check(err)
	defer p.backup.Close()
	if !p.code.Empty() {
		fmt.Printf("your recovery code, shown once: %s\n", p.code.Open())
	}
	for {
		address, err := p.next()
		check(err)
		fmt.Printf("receive at %s, for: ", address)
		if !in.Scan() || strings.TrimSpace(in.Text()) == "" {
			break
		}
		check(p.label(ctx, in.Text()))
	}
	labels, err := p.labels()
	check(err)
	fmt.Printf("\n%d labels, protected: %v\n", labels.Len(), p.backup.Status().Protected)
	if p.problem != nil {
		fmt.Println(p.problem)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
