// Command satchel-demo shows the whole of Satchel in a few seconds, without a
// question: a wallet is made, backed up, lost and brought back, in a temporary
// folder that stands for the cloud.
//
//	go run ./cmd/satchel-demo
//
// Everything it does goes through the same library that the satchel command and
// wallets use.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
	"github.com/satchel-backup/satchel/wallet"
	"golang.org/x/term"
)

func main() {
	keep := flag.Bool("keep", false, "leave the demo's folder to look at")
	flag.Usage = func() {
		fmt.Fprint(os.Stderr, "usage: satchel-demo [-keep]\n\nMakes a wallet, backs it up, loses it and brings it back. Takes a few seconds, asks\nnothing, and removes what it made unless told to keep it.\n")
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	d := &demo{out: os.Stdout, color: term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == ""}
	if err := d.run(ctx, *keep); err != nil {
		fmt.Fprintf(os.Stderr, "satchel-demo: %v\n", err)
		os.Exit(1)
	}
}

type demo struct {
	out   io.Writer
	color bool
	dir   string // of the whole demo
	cloud string // the folder that stands for the cloud

	code  secret.Bytes // the recovery code, as printed
	keys  wallet.Keys
	first string // first receive address
}

func (d *demo) run(ctx context.Context, keep bool) (err error) {
	start := time.Now()
	if d.dir, err = os.MkdirTemp("", "satchel-demo-"); err != nil {
		return err
	}
	d.cloud = filepath.Join(d.dir, "cloud")
	defer func() {
		if keep {
			d.say("\nKept in %s. Remove it when you have seen enough.", d.dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(d.dir))
	}()
	for _, step := range []func(context.Context) error{d.create, d.change, d.look, d.lose, d.restore, d.wrongCode, d.damage} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.say("\n%s", d.bold("That was all of it, in "+time.Since(start).Round(10*time.Millisecond).String()+"."))
	d.say("Make a real one with  go run ./cmd/satchel")
	return nil
}

// device returns the configuration of a device of its own, with the cloud.
func (d *demo) device(name string) (satchel.Config, error) {
	place, err := folder.New(d.cloud, folder.Config{Create: true})
	home := filepath.Join(d.dir, name)
	return satchel.Config{
		Dir:      filepath.Join(home, "wallet"),
		Places:   []store.Place{{Address: "folder:" + d.cloud, Store: place}},
		Keychain: keychain.File(filepath.Join(home, "keychain")),
		Settle:   -1,
	}, errors.Join(err, os.MkdirAll(filepath.Join(home, "keychain"), 0o700))
}

func (d *demo) create(ctx context.Context) (err error) {
	d.head("1", "A phone makes a wallet, and backs it up in the same breath")
	if d.keys, err = wallet.New(wallet.Mainnet, 12, time.Now().Format("2006-01-02")); err != nil {
		return err
	}
	account, err := d.keys.Account(wallet.BIP84, 0)
	if err != nil {
		return err
	}
	if d.first, err = account.Address(false, 0); err != nil {
		return err
	}
	way, code := slot.NewRecoveryCode()
	d.code = code
	cfg, err := d.device("phone")
	if err != nil {
		return err
	}
	start := time.Now()
	b, err := satchel.Create(ctx, cfg, satchel.Plan{Label: "Samantha", Keys: d.keys, Slots: []slot.Secret{way}})
	if err != nil {
		return err
	}
	defer b.Close()
	st := b.Status()
	d.row("wallet", st.Fingerprint)
	d.row("first address", d.first)
	d.row("folder", "cloud/"+st.Folder)
	d.row("protected", fmt.Sprintf("%s: fetched back and compared, %v in all", yes(st.Protected), time.Since(start).Round(time.Millisecond)))
	d.say("\n  The twelve words exist and nobody had to see them. This is shown once, to\n  be written down:\n")
	d.say("      recovery code   %s", d.bold(string(d.code.Open())))
	return nil
}

func (d *demo) change(ctx context.Context) error {
	d.head("2", "The wallet lives on: labels, and a Lightning channel is opened")
	b, err := d.open("phone")
	if err != nil {
		return err
	}
	defer b.Close()
	l, err := wallet.NewLabel(wallet.LabelAddr, d.first, "from Ann, for the bicycle", "")
	if err != nil {
		return err
	}
	labels, err := wallet.MakeLabels(l).Text()
	if err != nil {
		return err
	}
	// Stands for lnd's channel.backup: to Satchel it is opaque bytes.
	channels := secret.Random(3000).Open()
	for _, c := range []satchel.Change{
		{Name: seal.ItemLabels, Value: labels},
		{Name: "lightning/scb", Value: channels, Required: true},
	} {
		start := time.Now()
		r, err := b.Save(ctx, c)
		if err != nil {
			return err
		}
		d.row(c.Name, fmt.Sprintf("%d bytes, generation %d, protected %s after %v", len(c.Value), r.Generation, yes(r.Protected), time.Since(start).Round(100*time.Microsecond)))
	}
	return nil
}

func (d *demo) open(device string) (*satchel.Backup, error) {
	cfg, err := d.device(device)
	if err != nil {
		return nil, err
	}
	return satchel.Open(cfg)
}

func (d *demo) look(context.Context) error {
	d.head("3", "What the cloud sees")
	words := d.keys.Words().Sentence()
	leaks, total := 0, int64(0)
	folder := ""
	err := filepath.WalkDir(d.cloud, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(d.cloud, path)
		first, rest, inside := strings.Cut(rel, string(filepath.Separator))
		if !inside {
			return nil // The mark of the folder, which says nothing of a wallet.
		}
		if first != folder {
			folder = first
			d.say("  %s/", folder)
		}
		total += int64(len(data))
		for _, s := range []string{string(words.Open()), "bicycle", "lightning"} {
			leaks += strings.Count(strings.ToLower(string(data)), s)
		}
		d.say("    %-68s %6d", shorten(rest), len(data))
		return nil
	})
	if err != nil {
		return err
	}
	d.say("\n  %d bytes, ordinary age files. Searched for the words, for \"bicycle\" and for\n  \"lightning\": found %d times.", total, leaks)
	if leaks > 0 {
		return errors.New("the cloud can read what it must not")
	}
	return nil
}

func (d *demo) lose(context.Context) error {
	d.head("4", "The phone falls into a lake")
	if err := os.RemoveAll(filepath.Join(d.dir, "phone")); err != nil {
		return err
	}
	d.say("  Wallet, device key, keychain: gone. The cloud and a piece of paper are left.")
	return nil
}

func (d *demo) restore(ctx context.Context) error {
	d.head("5", "A new phone: sign in to the cloud, type the code, go on")
	cfg, err := d.device("new phone")
	if err != nil {
		return err
	}
	start := time.Now()
	found, err := satchel.Find(ctx, cfg)
	if err != nil {
		return err
	}
	for _, f := range found {
		d.row("found", fmt.Sprintf("%s, generation %d", f.Folder, f.Generation))
	}
	// As people type: capitals, spaces for hyphens.
	typed := strings.ToUpper(strings.ReplaceAll(string(d.code.Open()), "-", " "))
	d.row("typed", typed)
	way, err := slot.RecoveryCode(secret.FromString(typed))
	if err != nil {
		return err
	}
	opened, err := found[0].Open(ctx, way)
	if err != nil {
		return err
	}
	b, out, err := opened.Restore(ctx, cfg, satchel.RestoreOptions{})
	if err != nil {
		return err
	}
	defer b.Close()
	same := out.Fingerprint == d.keys.Fingerprint() && slices.Contains(out.Addresses, d.first)
	d.row("wallet", fmt.Sprintf("%s   the same: %s", out.Fingerprint, yes(out.Fingerprint == d.keys.Fingerprint())))
	d.row("first address", fmt.Sprintf("%s   the same: %s", out.Addresses[0], yes(out.Addresses[0] == d.first)))
	for _, it := range b.Items() {
		d.row("item", fmt.Sprintf("%-14s %5d bytes", it.Name, it.Size))
	}
	d.row("restored in", fmt.Sprint(time.Since(start).Round(time.Millisecond)))
	if !same || !out.Compared {
		return errors.New("the restored wallet is not the one that was lost")
	}
	return nil
}

func (d *demo) wrongCode(ctx context.Context) error {
	d.head("6", "Somebody else has the folder, and guesses")
	cfg, err := d.device("thief")
	if err != nil {
		return err
	}
	found, err := satchel.Find(ctx, cfg)
	if err != nil {
		return err
	}
	way, guess := slot.NewRecoveryCode()
	d.row("guessed", string(guess.Open()))
	_, err = found[0].Open(ctx, way)
	if !errors.Is(err, slot.ErrWrongSecret) {
		return fmt.Errorf("a wrong code was not refused as such: %w", err)
	}
	d.row("refused", fmt.Sprintf("wrong secret (exit code %d). One of 2^160 less to try.", satchel.CodeOf(err)))
	return nil
}

func (d *demo) damage(ctx context.Context) error {
	d.head("7", "The cloud damages a file")
	snapshots, err := filepath.Glob(filepath.Join(d.cloud, "*", "snapshots", "*.age"))
	if err != nil {
		return err
	}
	newest := slices.Max(snapshots)
	data, err := os.ReadFile(newest)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(newest, data, 0o600); err != nil {
		return err
	}
	d.row("one bit of", shorten(filepath.Base(newest)))
	cfg, err := d.device("another phone")
	if err != nil {
		return err
	}
	way, err := slot.RecoveryCode(d.code)
	if err != nil {
		return err
	}
	found, err := satchel.Find(ctx, cfg)
	if err != nil {
		return err
	}
	opened, err := found[0].Open(ctx, way)
	if err != nil {
		return err
	}
	_, _, err = opened.Restore(ctx, cfg, satchel.RestoreOptions{})
	if !errors.Is(err, seal.ErrDamaged) {
		return fmt.Errorf("a damaged backup was not refused as such: %w", err)
	}
	d.row("refused", fmt.Sprintf("damaged (exit code %d). An older state is never taken silently:", satchel.CodeOf(err)))
	d.row("", fmt.Sprintf("generation %d is whole, and the user is asked.", opened.Preview().Generation))

	b, err := d.open("new phone")
	if err != nil {
		return err
	}
	defer b.Close()
	if _, err := b.Check(ctx); err == nil {
		return errors.New("check did not notice the damage")
	}
	d.row("check", "the new phone notices the damage,")
	if _, err := b.Sync(ctx); err != nil {
		return err
	}
	if _, err := b.Check(ctx); err != nil {
		return err
	}
	d.row("mended", "and puts its own sealed copy back. Everything compared: well.")
	return nil
}

func (d *demo) head(n, text string) { d.say("\n%s", d.bold(n+"  "+text)) }

func (d *demo) row(name, text string) { d.say("  %-14s %s", name, text) }

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func (d *demo) bold(s string) string {
	if !d.color {
		return s
	}
	return "\x1b[1m" + s + "\x1b[0m"
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}

// shorten makes an object's name fit a line.
func shorten(name string) string {
	if len(name) <= 68 {
		return name
	}
	return name[:44] + "…" + name[len(name)-22:]
}
