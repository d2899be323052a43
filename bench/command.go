package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"time"
)

// cmdWallet is a wallet of the satchel command in a home of its own.
type cmdWallet struct {
	home, place string
	code        []byte // the recovery code
}

// on returns satchel with arguments, for this wallet.
func (b *bench) on(w cmdWallet, args ...string) program {
	return program{args: append([]string{b.satchel}, args...), env: []string{"SATCHEL_HOME=" + w.home, "SATCHEL_KEYCHAIN=file"}}
}

// create makes a wallet in directories of this name.
func (b *bench) create(ctx context.Context, name string) (cmdWallet, usage, error) {
	place := b.path(name, "place")
	if err := os.MkdirAll(place, 0o700); err != nil {
		return cmdWallet{}, usage{}, err
	}
	return b.createIn(ctx, name, place, "")
}

// createIn makes a wallet in a place, with the password to it if there is one.
func (b *bench) createIn(ctx context.Context, name, place, password string) (cmdWallet, usage, error) {
	w := cmdWallet{home: b.path(name, "home"), place: place}
	if err := os.MkdirAll(w.home, 0o700); err != nil {
		return w, usage{}, err
	}
	p := b.on(w, "create", "--new", "--in", w.place, "--unlock", "recovery-code", "--json")
	if password != "" {
		p.args = append(p.args, "--password-fd", "3")
		p.secrets = [][]byte{[]byte(password)}
	}
	u, err := b.exec(ctx, p)
	if err != nil {
		return w, u, err
	}
	var made struct {
		Protected bool   `json:"protected"`
		Secret    string `json:"secret"`
	}
	if err := json.Unmarshal(u.out, &made); err != nil {
		return w, u, err
	}
	if !made.Protected || made.Secret == "" {
		return w, u, errors.New("a wallet was made and is not protected")
	}
	w.code = []byte(made.Secret)
	return w, u, nil
}

// command measures what a person waits for.
func (b *bench) command(ctx context.Context) error {
	b.note("starting, creating and status")
	var created []usage
	var w cmdWallet
	for i := range b.size.quick {
		var u usage
		var err error
		if w, u, err = b.create(ctx, "created-"+strconv.Itoa(i)); err != nil {
			return err
		}
		created = append(created, u)
	}
	version, err := b.times(ctx, b.size.quick, program{args: []string{b.satchel, "version"}}, nil)
	if err != nil {
		return err
	}
	status, err := b.times(ctx, b.size.quick, b.on(w, "status"), nil)
	if err != nil {
		return err
	}
	plain, err := os.Stat(b.satchel)
	if err != nil {
		return err
	}
	stripped := b.path("satchel-stripped")
	if _, err := b.exec(ctx, program{args: []string{"go", "build", "-trimpath", "-ldflags=-s -w", "-o", stripped, "github.com/satchel-backup/satchel/cmd/satchel"}}); err != nil {
		return err
	}
	small, err := os.Stat(stripped)
	if err != nil {
		return err
	}
	b.say("\n### The command\n\nWhole processes, %d runs of each.\n", b.size.quick)
	row := func(what string, list []usage, goal time.Duration) []string {
		middle := quantile(wall(list), 50)
		aim := []string{ms(middle), "", ""}
		if goal > 0 {
			aim = below(middle, goal)
		}
		return append(append([]string{what}, aim...), ms(quantile(wall(list), 95)), ms(medianCPU(list)), mb(highest(list)))
	}
	b.table("what|p50|goal|met|p95|processor time|memory", [][]string{
		row("`satchel version`: start-up", version, 0),
		row("`satchel create --new --unlock recovery-code`: a wallet made, backed up and read back", created, 300*time.Millisecond),
		row("`satchel status` of it", status, 30*time.Millisecond),
	})
	b.say("\nThe binary has %s, and %s without symbols (`-ldflags '-s -w'`). Without `--new`, `create` first looks for backups that are there already, and where it finds none for two seconds more, because listings may lag.\n", mb(plain.Size()), mb(small.Size()))
	return nil
}
