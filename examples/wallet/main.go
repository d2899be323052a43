// A small wallet with automatic backup. The wallet itself is main and the type
// notes; backup.go is all that Satchel needs of it.
//
//	go run ./examples/wallet DIRECTORY     the directory stands for the user's cloud
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/wallet"
)

// notes are the labels that the user gives to addresses.
type notes struct{ wallet.Labels }

func (n *notes) add(address, text string) error {
	l, err := wallet.NewLabel(wallet.LabelAddr, address, text, "")
	if err == nil {
		n.Labels = n.Merge(wallet.MakeLabels(l))
	}
	return err
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: wallet DIRECTORY")
	}
	ctx := context.Background()
	keys, err := wallet.New(wallet.Testnet, 12, time.Now().Format("2006-01-02"))
	check(err)
	account, err := keys.Account(wallet.BIP84, 0)
	check(err)

	b, code, err := startBackup(ctx, os.Args[1], keys)
	check(err)
	defer b.Close()
	fmt.Printf("your recovery code, shown once: %s\n", code.Open())

	var book notes
	in := bufio.NewScanner(os.Stdin)
	for i := uint32(0); ; i++ {
		address, err := account.Address(false, i)
		check(err)
		fmt.Printf("receive at %s, for: ", address)
		if !in.Scan() || strings.TrimSpace(in.Text()) == "" {
			break
		}
		check(book.add(address, in.Text()))
		text, err := book.Text()
		check(err)
		check(keepLabels(ctx, b, text))
	}
	fmt.Printf("\n%d labels, protected: %v\n", book.Len(), b.Status().Protected)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
