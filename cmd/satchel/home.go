package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
)

// The home of this device:
//
//	guardians.json    the key servers that this device knows
//	config.json       which keychain holds the keys of this device
//	keychain/         those keys, if they are kept in files
//	wallets/<name>/   one wallet, named like the folder of its backup
//	watch/<name>.json what is watched for it
//	agent/            the log and the socket of the agent
//	set-aside/        wallets whose device key was lost, before they were restored

// home returns the directory in which this device keeps its wallets.
func (a *app) home() (string, error) {
	if dir := a.getenv("SATCHEL_HOME"); dir != "" {
		return filepath.Abs(dir)
	}
	user := a.userHome()
	switch runtime.GOOS {
	case "windows":
		if dir := a.getenv("LocalAppData"); dir != "" {
			return filepath.Join(dir, "satchel"), nil
		}
	case "darwin", "ios":
		if user != "" {
			return filepath.Join(user, "Library", "Application Support", "Satchel"), nil
		}
	default:
		// The specification says that a relative path counts as none.
		if dir := a.getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
			return filepath.Join(dir, "satchel"), nil
		}
		if user != "" {
			return filepath.Join(user, ".local", "share", "satchel"), nil
		}
	}
	return "", &usageError{text: "this user has no home directory", hint: "say with SATCHEL_HOME where this device keeps its wallets"}
}

// device is a wallet on this device.
type device struct {
	name string // of its directory
	dir  string
	info satchel.DeviceInfo
}

// devices lists the wallets on this device, by name. One that is broken does not
// hide the others: it is left out, said, and kept in a.broken.
func (a *app) devices() ([]device, error) {
	home, err := a.home()
	if err != nil {
		return nil, err
	}
	wallets := filepath.Join(home, "wallets")
	entries, err := os.ReadDir(wallets)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var devices []device
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !e.IsDir() {
			continue
		}
		dir := filepath.Join(wallets, e.Name())
		info, err := satchel.ReadDevice(dir)
		if errors.Is(err, satchel.ErrNoDevice) {
			continue
		}
		if err != nil {
			if a.broken == nil {
				a.note("leaving out %s: %s", dir, errorText(err))
			}
			a.broken = errors.Join(a.broken, err)
			continue
		}
		devices = append(devices, device{e.Name(), dir, info})
	}
	return devices, nil
}

// device returns the wallet that --wallet names, or the only one.
func (a *app) device() (device, error) {
	devices, err := a.devices()
	if err != nil {
		return device{}, err
	}
	if len(devices) == 0 && a.broken != nil {
		return device{}, a.broken
	}
	if len(devices) == 0 {
		return device{}, satchel.ErrNoDevice
	}
	match := devices
	if a.walletName != "" {
		match = matching(devices, a.walletName)
	}
	switch len(match) {
	case 1:
		return match[0], nil
	case 0:
		return device{}, &usageError{text: "no wallet of this name: " + printable(a.walletName), hint: "this device has " + a.deviceNames(devices)}
	}
	if a.walletName == "" {
		return device{}, &usageError{text: "there are several wallets on this device", hint: "say which one with --wallet: " + a.deviceNames(match)}
	}
	return device{}, &usageError{text: "several wallets begin like this: " + printable(a.walletName), hint: "say more of the name: " + a.deviceNames(match)}
}

// matching returns the wallets that a name means: exactly, or else by its
// beginning.
func matching(devices []device, name string) []device {
	var exact, prefix []device
	for _, d := range devices {
		if d.name == name || d.info.Label == name {
			exact = append(exact, d)
		}
		if strings.HasPrefix(d.name, name) || strings.HasPrefix(d.info.Label, name) {
			prefix = append(prefix, d)
		}
	}
	if len(exact) > 0 {
		return exact
	}
	return prefix
}

func (a *app) deviceNames(devices []device) string {
	var names []string
	for _, d := range devices {
		names = append(names, a.which(d))
	}
	return strings.Join(names, ", ")
}

// which is what tells a wallet from the others of this device: its name, the network, whose
// keys it has, and the Lightning node that is backed up with it.
func (a *app) which(d device) string {
	text := fmt.Sprintf("%s (%s, %s", d.name, d.info.Network, whichWallet(d.info.Kind, d.info.Fingerprint))
	if rec, err := (&watch{app: a, name: d.name}).read(); err == nil && rec.LND != nil {
		text += ", " + nodeName(*rec.LND)
	}
	return text + ")"
}

func (a *app) completeWallet(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	devices, _ := a.devices()
	var names []string
	for _, d := range devices {
		names = append(names, d.name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// deviceOf returns the wallet of this device that a found backup is of, or nil. It
// goes by where the backup lies: what a place says of itself proves nothing.
func deviceOf(devices []device, f satchel.Found) *device {
	for i, d := range devices {
		if d.info.Folder == f.Folder && slices.ContainsFunc(f.Places, func(p satchel.FoundPlace) bool {
			return slices.Contains(d.info.Places, p.Place.Address)
		}) {
			return &devices[i]
		}
	}
	return nil
}

// open opens the wallet that is meant.
func (a *app) open(ctx context.Context) (*satchel.Backup, error) {
	d, err := a.device()
	if err != nil {
		return nil, err
	}
	return a.openDevice(ctx, d)
}

func (a *app) openDevice(ctx context.Context, d device) (*satchel.Backup, error) {
	cfg, err := a.deviceConfig(d)
	if err != nil {
		return nil, err
	}
	return a.openWhenFree(ctx, cfg)
}

// How long to wait for another satchel that has the wallet open: in all, between
// tries, and before it is said.
const (
	busyWait  = 30 * time.Second // as long as the SDK waits when it is open
	busyPause = 100 * time.Millisecond
	busyQuiet = time.Second
)

// openWhenFree opens a wallet, and waits a while if another process has it open.
func (a *app) openWhenFree(ctx context.Context, cfg satchel.Config) (*satchel.Backup, error) {
	began, said := time.Now(), false
	for {
		b, err := satchel.Open(cfg)
		waited := time.Since(began)
		if !errors.Is(err, satchel.ErrBusy) || waited > busyWait {
			return b, err
		}
		if waited > busyQuiet && !said {
			a.note("%s", a.waitingFor())
			said = true
		}
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// waitingFor says for whom a wallet is waited that another process has. An agent keeps it
// while it saves, which takes long while a place does not answer.
func (a *app) waitingFor() string {
	if a.outer == nil && a.agentRuns() {
		return "waiting: the agent is saving this wallet"
	}
	return "waiting for another satchel"
}

func (a *app) deviceConfig(d device) (satchel.Config, error) {
	var places []store.Place
	for _, address := range d.info.Places {
		p, err := a.openPlace(address, false)
		if err != nil {
			return satchel.Config{}, err
		}
		places = append(places, p)
	}
	cfg, err := a.config(d.dir, places)
	cfg.Copies = d.info.Copies
	return cfg, err
}

// config is what the SDK has to know of a wallet in dir.
func (a *app) config(dir string, places []store.Place) (satchel.Config, error) {
	home, err := a.home()
	if err != nil {
		return satchel.Config{}, err
	}
	keys, err := a.openKeychain(home)
	if err != nil {
		return satchel.Config{}, err
	}
	return satchel.Config{
		Dir:      dir,
		Places:   places,
		Keychain: keys,
		Shared:   true, // A question may wait for long, and a watch runs beside it.
		Software: "satchel/" + satchel.Version,
		Progress: a.progress.update,
		Now:      a.now,

		Guardians: a.guardClient(),
	}, nil
}

// folderName is the name of the directory of a wallet: that of its backup's
// folder, without what all of them begin with.
func folderName(label, id string) (string, error) {
	parsed, err := seal.ParseBackupID(id)
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(seal.Folder(label, parsed), seal.FolderPrefix), nil
}

// walletsDir makes the home and returns the directory of the wallets.
func (a *app) walletsDir() (string, error) {
	home, err := a.home()
	if err != nil {
		return "", err
	}
	wallets := filepath.Join(home, "wallets")
	return wallets, durable.Disk{}.MkdirAll(wallets, 0o700)
}

// unnamed begins the name of the directory of a wallet that is being made.
const unnamed = "new-"

// newWalletDir is where a wallet is made, under a name for the time being: its id is
// not known before.
func (a *app) newWalletDir() (string, error) {
	wallets, err := a.walletsDir()
	random := secret.Random(4)
	return filepath.Join(wallets, unnamed+hex.EncodeToString(random.Open())), err
}

// nameWallet gives a wallet that was made in dir, and is closed, its own name. A crash
// before leaves one that works under the other.
func (a *app) nameWallet(dir string, s satchel.Status) error {
	name, err := folderName(s.Label, s.ID)
	if err != nil {
		return err
	}
	a.letGo(filepath.Base(dir))
	return durable.Disk{}.RenameDir(dir, filepath.Join(filepath.Dir(dir), name))
}

// letGo tells an agent that runs that a wallet is about to go from its directory, as
// somebody asked for: else it tells people that it is gone. stays takes that back.
func (a *app) letGo(name string) {
	if home, err := a.home(); err == nil && a.agentRuns() {
		os.WriteFile(goingPath(home, name), nil, 0o600) // Without it there is an alarm too many.
	}
}

func (a *app) stays(name string) {
	if home, err := a.home(); err == nil {
		os.Remove(goingPath(home, name))
	}
}

// mayGo reports whether somebody asked for a wallet to go.
func (a *app) mayGo(name string) bool {
	home, err := a.home()
	return err == nil && fileStampOf(goingPath(home, name)) != (fileStamp{})
}

func goingPath(home, name string) string { return filepath.Join(home, "agent", name+".going") }

// setAside moves a directory of a wallet away whose key is lost. Nothing of it is
// deleted.
func (a *app) setAside(d device) (string, error) {
	home, err := a.home()
	if err != nil {
		return "", err
	}
	aside := filepath.Join(home, "set-aside")
	var disk durable.Disk
	if err := disk.MkdirAll(aside, 0o700); err != nil {
		return "", err
	}
	a.letGo(d.name)
	to := filepath.Join(aside, d.name+"-"+a.now().UTC().Format("20060102T150405"))
	return to, disk.RenameDir(d.dir, to)
}
