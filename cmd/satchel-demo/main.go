// Command satchel-demo shows the whole of Satchel in a few seconds, without a
// question: a wallet is made, backed up under a PIN that three key servers guard, lost
// and brought back; then somebody who has the whole cloud folder guesses the PIN.
//
//	go run ./cmd/satchel-demo
//
// A temporary folder stands for the cloud. The key servers run in this process, with all
// that satchel-keyserver has: their databases are files, and requests come over HTTP. Only
// their clock is the demo's, so that a day of waiting need not be waited for. Everything
// else goes through the same library that the satchel command and wallets use.
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
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/https"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/protocol"
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
		fmt.Fprint(os.Stderr, "usage: satchel-demo [-keep]\n\nMakes a wallet, backs it up, loses it and brings it back with a PIN that three key\nservers guard, and lets somebody guess. Takes a few seconds, asks nothing, needs no\nnetwork, and removes what it made unless told to keep it.\n")
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

	servers []*server
	clock   clock // of the key servers and of the devices

	code  secret.Bytes // the recovery code, as printed
	keys  wallet.Keys
	first string // first receive address
}

// thePIN is what the owner types. SetPIN takes any; CheckPIN refuses what is guessed first.
const thePIN = "402917"

// threshold is how many of the key servers open the backup.
const threshold = 2

func (d *demo) run(ctx context.Context, keep bool) (err error) {
	start := time.Now()
	if d.dir, err = os.MkdirTemp("", "satchel-demo-"); err != nil {
		return err
	}
	d.cloud = filepath.Join(d.dir, "cloud")
	defer func() {
		for _, s := range d.servers {
			err = errors.Join(err, s.close())
		}
		if keep {
			d.say("\nKept in %s. Remove it when you have seen enough.", d.dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(d.dir))
	}()
	for _, step := range []func(context.Context) error{d.serve, d.create, d.change, d.look, d.lose, d.restore, d.guess, d.comeBack, d.damage} {
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
		Dir:       filepath.Join(home, "wallet"),
		Places:    []store.Place{{Address: "folder:" + d.cloud, Store: place}},
		Keychain:  keychain.File(filepath.Join(home, "keychain")),
		Guardians: d.client(),
		Settle:    -1,
	}, errors.Join(err, os.MkdirAll(filepath.Join(home, "keychain"), 0o700))
}

func (d *demo) client() *guard.Client {
	return &guard.Client{
		Transport: &https.Transport{},
		Trusted:   func(name string) bool { return slices.Contains(d.names(), name) },
		Now:       d.clock.now,
	}
}

func (d *demo) names() (names []string) {
	for _, s := range d.servers {
		names = append(names, s.name())
	}
	return names
}

func (d *demo) serve(ctx context.Context) error {
	d.head("1", "Three key servers, each with a database and a master key of its own")
	for i := range 3 {
		s, err := newServer(ctx, filepath.Join(d.dir, fmt.Sprint("key server ", i+1)), d.clock.now)
		if err != nil {
			return err
		}
		d.servers = append(d.servers, s)
	}
	d.row("listening", strings.Join(d.names(), "  "))
	d.say("  Any %d of them and the PIN will open the backup. They run in this process; in\n  earnest they belong to people who have nothing to do with each other.", threshold)
	return nil
}

func (d *demo) create(ctx context.Context) (err error) {
	d.head("2", "A phone makes a wallet, backs it up in the same breath, and sets a PIN")
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
	d.row("wallet", st.Fingerprint+"   first address "+d.first)
	d.row("folder", "cloud/"+st.Folder)
	d.row("protected", fmt.Sprintf("%s: fetched back and compared, %v in all", yes(st.Protected), time.Since(start).Round(time.Millisecond)))
	start = time.Now()
	if err := d.setPIN(ctx, b, thePIN); err != nil {
		return err
	}
	d.row("PIN", fmt.Sprintf("%s, set at 3 key servers in %v", d.bold(thePIN), time.Since(start).Round(time.Millisecond)))
	d.row("recovery code", d.bold(string(d.code.Open())))
	d.say("  The twelve words exist and nobody had to see them. The code is shown this once,\n  to be written down: it opens without any key server.")
	return nil
}

// setPIN sets a PIN, which takes the secret of a way in that there is.
func (d *demo) setPIN(ctx context.Context, b *satchel.Backup, pin string) error {
	if err := slot.CheckPIN(secret.FromString(pin)); err != nil {
		return err
	}
	way, err := slot.RecoveryCode(d.code)
	if err != nil {
		return err
	}
	owner, err := b.Unlock(ctx, way)
	if err != nil {
		return err
	}
	_, err = owner.SetPIN(ctx, satchel.PINPlan{PIN: secret.FromString(pin), Servers: d.names(), Threshold: threshold})
	return err
}

func (d *demo) change(ctx context.Context) error {
	d.head("3", "The wallet lives on: labels, and a Lightning channel is opened")
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
	d.head("4", "What the cloud sees, and what the key servers keep")
	folder := ""
	total, leaks, err := d.search(d.cloud, func(rel string, size int) {
		first, rest, inside := strings.Cut(rel, string(filepath.Separator))
		if !inside {
			return // The mark of the folder, which says nothing of a wallet.
		}
		if first != folder {
			folder = first
			d.say("  %s/", folder)
		}
		d.say("    %-68s %6d", shorten(rest), size)
	})
	if err != nil {
		return err
	}
	for _, s := range d.servers {
		size, more, err := d.search(s.dir, func(string, int) {})
		if err != nil {
			return err
		}
		total, leaks = total+size, leaks+more
	}
	d.row("searched", fmt.Sprintf("this, and the key servers' databases: %d bytes in all", total))
	d.row("for", fmt.Sprintf("the words, the PIN, the code, \"bicycle\", \"lightning\": found %d times", leaks))
	if leaks > 0 {
		return errors.New("somebody can read what they must not")
	}
	return nil
}

// search counts what can be read of the secrets below a directory.
func (d *demo) search(dir string, each func(rel string, size int)) (total, found int, err error) {
	words := d.keys.Words().Sentence()
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		total += len(data)
		for _, s := range []string{string(words.Open()), thePIN, string(d.code.Open()), "bicycle", "lightning"} {
			found += strings.Count(strings.ToLower(string(data)), s)
		}
		each(rel, len(data))
		return nil
	})
	return total, found, err
}

func (d *demo) lose(context.Context) error {
	d.head("5", "The phone falls into a lake, and one key server is switched off")
	if err := os.RemoveAll(filepath.Join(d.dir, "phone")); err != nil {
		return err
	}
	if err := d.servers[0].stop(); err != nil {
		return err
	}
	d.row("gone", "wallet, device key, keychain; "+d.servers[0].name())
	return nil
}

// find looks for the one backup, as a device that has nothing.
func (d *demo) find(ctx context.Context, device string) (satchel.Config, satchel.Found, error) {
	cfg, err := d.device(device)
	if err != nil {
		return cfg, satchel.Found{}, err
	}
	found, err := satchel.Find(ctx, cfg)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("found %d backups", len(found))
	}
	if err != nil {
		return cfg, satchel.Found{}, err
	}
	return cfg, found[0], nil
}

func (d *demo) restore(ctx context.Context) error {
	d.head("6", "A new phone: sign in to the cloud, type the PIN, go on")
	cfg, found, err := d.find(ctx, "new phone")
	if err != nil {
		return err
	}
	d.row("found", fmt.Sprintf("%s, generation %d", found.Folder, found.Generation))
	slots, err := found.PINSlots(ctx)
	if err != nil {
		return err
	}
	_, _, err = found.OpenPIN(ctx, slots[0], secret.FromString("402971"), secret.Bytes{})
	wrong, ok := errors.AsType[*guard.WrongPINError](err)
	if !ok {
		return fmt.Errorf("a mistyped PIN was not refused as such: %w", err)
	}
	d.row("typed", fmt.Sprintf("402971   wrong (exit code %d), guesses left: %d", satchel.CodeOf(err), wrong.GuessesLeft))
	start := time.Now()
	opened, told, err := found.OpenPIN(ctx, slots[0], secret.FromString(thePIN), secret.Bytes{})
	if err != nil {
		return err
	}
	b, out, err := opened.Restore(ctx, cfg, satchel.RestoreOptions{})
	if err != nil {
		return err
	}
	defer b.Close()
	took := time.Since(start)
	away, before := 0, 0
	for _, t := range told {
		if before = max(before, t.Wrong); t.Err != nil {
			away++
		}
	}
	d.row("typed", fmt.Sprintf("%s   right, with %d of 3 key servers away; wrong guesses before: %d", thePIN, away, before))
	d.row("wallet", fmt.Sprintf("%s   the same: %s", out.Fingerprint, yes(out.Fingerprint == d.keys.Fingerprint())))
	d.row("first address", fmt.Sprintf("%s   the same: %s", out.Addresses[0], yes(out.Addresses[0] == d.first)))
	for _, it := range b.Items() {
		d.row("item", fmt.Sprintf("%-14s %5d bytes", it.Name, it.Size))
	}
	d.row("restored in", fmt.Sprint(took.Round(time.Millisecond)))
	if !out.Compared || out.Fingerprint != d.keys.Fingerprint() || out.Addresses[0] != d.first {
		return errors.New("the restored wallet is not the one that was lost")
	}
	return d.servers[0].start()
}

// guess is somebody who has a copy of the cloud folder. He tries one PIN after another and
// waits no longer than he must.
func (d *demo) guess(ctx context.Context) error {
	d.head("7", "Somebody has the whole cloud folder, and guesses")
	files, err := filepath.Glob(filepath.Join(d.cloud, "*", "slots", "pin-*.age"))
	if err != nil {
		return err
	}
	object, err := os.ReadFile(files[0])
	if err != nil {
		return err
	}
	id, err := d.backupID(ctx)
	if err != nil {
		return err
	}
	s, err := slot.ReadPIN(object, id)
	if err != nil {
		return err
	}
	client, began, n := d.client(), d.clock.now(), 0
	for {
		r, err := client.Recover(s, secret.FromString(fmt.Sprintf("%06d", 190000+101*n)))
		if err != nil {
			return err
		}
		for {
			_, err = r.Open(ctx)
			locked, ok := errors.AsType[*guard.LockedError](err)
			if !ok {
				break
			}
			wait := locked.Until.Sub(d.clock.now())
			d.row("", fmt.Sprintf("locked for %v: the demo moves the key servers' clock", wait.Round(time.Minute)))
			// The key servers were asked one after the other.
			d.clock.move(wait + 10*time.Second)
		}
		if errors.Is(err, guard.ErrErased) {
			break
		}
		wrong, ok := errors.AsType[*guard.WrongPINError](err)
		if !ok {
			return fmt.Errorf("a guess ended otherwise: %w", err)
		}
		if n++; n > protocol.MaxGuesses {
			return fmt.Errorf("%d guesses were answered", n)
		}
		d.row(fmt.Sprint("guess ", n), fmt.Sprintf("%06d   wrong, guesses left: %d", 190000+101*(n-1), wrong.GuessesLeft))
	}
	d.row("erased", fmt.Sprintf("after %d of 1,000,000 PINs, in %v (exit code %d)", n, d.clock.now().Sub(began).Round(time.Minute), satchel.CodeOf(guard.ErrErased)))
	list, err := client.Status(ctx, s)
	if err != nil {
		return err
	}
	left := len(slices.DeleteFunc(list, func(st guard.Standing) bool { return st.Err == nil && st.State == protocol.StateErased }))
	d.say("  %d key servers have erased their keys. With %d left, no PIN opens this slot any\n  more, and asking them in another order gives %d guesses at most.", len(d.servers)-left, left,
		len(d.servers)*protocol.GuessLimit(threshold, len(d.servers))/threshold)
	if left >= threshold {
		return fmt.Errorf("%d key servers still answer", left)
	}
	return nil
}

// backupID is the id of the backup, which stands in the folder for all to read.
func (d *demo) backupID(ctx context.Context) (id guard.ID, err error) {
	_, found, err := d.find(ctx, "somebody's computer")
	if err != nil {
		return id, err
	}
	parsed, err := seal.ParseBackupID(found.ID)
	return guard.ID(parsed), err
}

func (d *demo) comeBack(ctx context.Context) error {
	d.head("8", "The owner comes back, on a third phone")
	cfg, found, err := d.find(ctx, "third phone")
	if err != nil {
		return err
	}
	slots, err := found.PINSlots(ctx)
	if err != nil {
		return err
	}
	_, _, err = found.OpenPIN(ctx, slots[0], secret.FromString(thePIN), secret.Bytes{})
	if !errors.Is(err, guard.ErrErased) {
		return fmt.Errorf("the right PIN after it was erased: %w", err)
	}
	d.row("the PIN", fmt.Sprintf("%v (exit code %d)", guard.ErrErased, satchel.CodeOf(err)))
	// As people type: capitals, spaces for hyphens.
	typed := strings.ToUpper(strings.ReplaceAll(string(d.code.Open()), "-", " "))
	d.row("the code", typed)
	way, err := slot.RecoveryCode(secret.FromString(typed))
	if err != nil {
		return err
	}
	opened, err := found.Open(ctx, way)
	if err != nil {
		return err
	}
	b, out, err := opened.Restore(ctx, cfg, satchel.RestoreOptions{})
	if err != nil {
		return err
	}
	defer b.Close()
	d.row("wallet", fmt.Sprintf("%s   the same: %s", out.Fingerprint, yes(out.Fingerprint == d.keys.Fingerprint())))
	if out.Fingerprint != d.keys.Fingerprint() {
		return errors.New("the restored wallet is another one")
	}
	if err := d.setPIN(ctx, b, "865303"); err != nil {
		return err
	}
	d.row("a new PIN", fmt.Sprintf("set at 3 key servers, the old slot is gone; protected: %s", yes(b.Status().Protected && !b.Status().PINPending)))
	return nil
}

func (d *demo) damage(ctx context.Context) error {
	d.head("9", "The cloud damages a file")
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
	way, err := slot.RecoveryCode(d.code)
	if err != nil {
		return err
	}
	cfg, found, err := d.find(ctx, "another phone")
	if err != nil {
		return err
	}
	opened, err := found.Open(ctx, way)
	if err != nil {
		return err
	}
	_, _, err = opened.Restore(ctx, cfg, satchel.RestoreOptions{})
	if !errors.Is(err, seal.ErrDamaged) {
		return fmt.Errorf("a damaged backup was not refused as such: %w", err)
	}
	d.row("a restore", fmt.Sprintf("damaged (exit code %d): an older state is never taken silently", satchel.CodeOf(err)))
	b, err := d.open("third phone")
	if err != nil {
		return err
	}
	defer b.Close()
	if _, err := b.Check(ctx); err == nil {
		return errors.New("check did not notice the damage")
	}
	if _, err := b.Sync(ctx); err != nil {
		return err
	}
	if _, err := b.Check(ctx); err != nil {
		return err
	}
	d.row("the phone", "notices it, puts its own sealed copy back. Everything compared: well.")
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
