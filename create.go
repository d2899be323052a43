package satchel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/wallet"
)

// Create makes a new backup and protects it. Everything is made and journalled
// on the device first: when Create returns a Backup, the wallet is safe on this
// device even if err is not nil because no place could be reached;
// [Backup.Sync] tries again. With a nil Backup nothing was left behind, on the
// device or elsewhere.
func Create(ctx context.Context, cfg Config, p Plan) (*Backup, error) {
	if err := cfg.fill(true); err != nil {
		return nil, err
	}
	if len(p.Slots) == 0 && p.PIN == nil {
		return nil, errors.New("creating a backup: it needs a way in")
	}
	if err := checkChanges(p.Items); err != nil {
		return nil, fmt.Errorf("creating a backup: %w", err)
	}
	if i := slices.IndexFunc(p.Items, func(c Change) bool { return c.Remove }); i >= 0 {
		return nil, fmt.Errorf("creating a backup: %w: %s", ErrNoItem, p.Items[i].Name)
	}
	owner, err := ownerItems(p.Keys)
	if err != nil {
		return nil, fmt.Errorf("creating a backup: %w", err)
	}
	keys := unusedKeys(ctx, cfg, p.Label)
	info := infoJSON{
		Version: 1, ID: keys.ID().String(), Label: p.Label, Folder: seal.Folder(p.Label, keys.ID()),
		Network: p.Keys.Network(), Kind: recordOf(p.Keys.Kind()), Fingerprint: p.Keys.Fingerprint(), Created: cfg.Now().UTC().Format(dayLayout),
	}
	device := keys.Device(1, seal.NewDeviceID())
	info.Device = device.Device().String()
	err = stage(cfg, info, device, func(b *Backup) error {
		slots, objects, err := b.firstSlots(ctx, keys, p.Slots, p.PIN)
		if err != nil {
			return err
		}
		return b.commitChanges(keys, append(owner, p.Items...), &slots, objects)
	})
	if err != nil {
		return nil, fmt.Errorf("creating a backup: %w", err)
	}
	b, err := takeUp(ctx, cfg, nil)
	if b == nil && !errors.Is(err, ErrBusy) {
		// No place has heard of it yet, so it can be as if it had never been.
		err = errors.Join(err, cfg.disk.RemoveAll(cfg.Dir), cfg.Keychain.Delete(localKeyName(info)))
	}
	return b, err
}

// unusedKeys returns the keys of a new backup whose folder is in no place yet, as
// far as can be seen: the names of two folders may be the same by chance, and then
// neither device could tell whose snapshots are in there (R3).
func unusedKeys(ctx context.Context, cfg Config, label string) *seal.Keys {
	taken := map[string]bool{}
	for _, p := range cfg.Places {
		folder := seal.Folder(label, seal.BackupID{})
		list, err := p.Store.List(ctx, folder[:len(folder)-4])
		if err != nil {
			continue // It cannot be asked now, and two of 65,536 are unlikely to meet.
		}
		for _, o := range list {
			folder, _, _ := strings.Cut(o.Name, "/")
			taken[folder] = true
		}
	}
	for range 1000 {
		if k := seal.NewKeys(); !taken[seal.Folder(label, k.ID())] {
			return k
		}
	}
	return seal.NewKeys() // All of them seem to be taken, so the place is not to be believed.
}

// ownerItems returns the items that follow from the keys of a wallet.
func ownerItems(k wallet.Keys) ([]Change, error) {
	text, err := k.Text()
	if err != nil {
		return nil, err
	}
	d, err := k.Descriptors(0)
	if err != nil {
		return nil, err
	}
	desc, err := d.Text()
	if err != nil {
		return nil, err
	}
	return []Change{
		{Name: seal.ItemKeys, Value: text.Open(), Required: true},
		{Name: seal.ItemDescriptors, Value: desc, Required: true},
	}, nil
}

// firstSlots makes the ways into a backup that is being made.
func (b *Backup) firstSlots(ctx context.Context, keys *seal.Keys, ways []slot.Secret, pin *PINPlan) (slots []seal.SlotName, objects []string, err error) {
	for _, s := range ways {
		n, err := b.sealSlot(keys, s)
		if err != nil {
			return nil, nil, err
		}
		slots = append(slots, n)
	}
	if pin != nil {
		n, err := b.firstPIN(ctx, keys, *pin)
		if err != nil {
			return nil, nil, fmt.Errorf("setting the PIN: %w", err)
		}
		slots = append(slots, n)
	}
	return slots, slotPaths(slots), nil
}

// sealSlot seals a slot, opens it again to prove it, and keeps the object on
// this device.
func (b *Backup) sealSlot(keys *seal.Keys, s slot.Secret) (seal.SlotName, error) {
	r, err := s.Recipient()
	if err != nil {
		return seal.SlotName{}, err
	}
	return b.proveSlot(keys, s.Kind(), r, s.Identity())
}

// proveSlot seals a slot to a recipient, opens it again with the identity, and keeps the
// object on this device.
func (b *Backup) proveSlot(keys *seal.Keys, kind slot.Kind, r age.Recipient, id age.Identity) (seal.SlotName, error) {
	data, err := seal.SealSlot(keys, r)
	if err != nil {
		return seal.SlotName{}, err
	}
	again, err := seal.OpenSlot(data, id)
	if err != nil {
		return seal.SlotName{}, fmt.Errorf("opening the new slot to prove it: %w", err)
	}
	if !again.KeyFile().Equal(keys.KeyFile()) {
		return seal.SlotName{}, fmt.Errorf("opening the new slot to prove it: %w", ErrSlotDamaged)
	}
	n := seal.NewSlotName(string(kind), data)
	return n, b.dev.putObject(n.Hash, data)
}

// stage makes a device's directory beside cfg.Dir, lets fill fill it, and gives
// it its name when it is whole (R15). A crash before that leaves a directory
// that is never taken for a wallet.
func stage(cfg Config, info infoJSON, key *seal.DeviceKey, fill func(b *Backup) error) (err error) {
	info.Places, info.Copies = addresses(cfg.Places), cfg.Copies
	if err := vacant(cfg, info); err != nil {
		return err
	}
	parent := filepath.Dir(cfg.Dir)
	cleanStaging(cfg, parent)
	staging := filepath.Join(parent, stagingPrefix+info.Device)
	if err := os.Mkdir(staging, 0o700); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		// The rename may have happened before the error.
		if here, infoErr := readInfo(cfg.disk, cfg.Dir); infoErr == nil && here.Device == info.Device {
			err = errors.Join(err, cfg.disk.RemoveAll(cfg.Dir))
		}
		err = errors.Join(err, cfg.disk.RemoveAll(staging), cfg.Keychain.Delete(localKeyName(info)))
	}()
	dev, err := newDevice(cfg, staging, info, key)
	if err != nil {
		return err
	}
	defer dev.close()
	if err := fill(&Backup{cfg: cfg, dev: dev}); err != nil {
		return err
	}
	// Up to here a crash leaves a directory that nobody takes for a wallet.
	if err := cfg.disk.SyncTree(staging); err != nil {
		return err
	}
	if err := dev.close(); err != nil {
		return err
	}
	return cfg.disk.RenameDir(staging, cfg.Dir)
}

// stagingPrefix begins the name of a directory in which a wallet is being made
// or restored, or that is being forgotten.
const stagingPrefix = ".satchel-staging-"

// cleanStaging removes what crashes left in the parent directory, keys in the
// keychain included. What cannot be removed harms nothing.
func cleanStaging(cfg Config, parent string) {
	names, _ := readDirNames(parent)
	for _, name := range names {
		device, ok := strings.CutPrefix(name, stagingPrefix)
		if !ok {
			continue
		}
		dir := filepath.Join(parent, name)
		// One that is young may not have taken its lock yet.
		st, err := os.Lstat(dir)
		if err != nil || !st.IsDir() || time.Since(st.ModTime()) < time.Minute {
			continue
		}
		lock, err := cfg.disk.Lock(filepath.Join(dir, lockFile))
		if err != nil {
			continue // Somebody is at work in it.
		}
		var kept error
		if info, err := readInfo(cfg.disk, dir); err == nil && info.Device == device {
			kept = cfg.Keychain.Delete(localKeyName(info))
		}
		lock.Unlock() // Not before: nobody else must make a wallet of it meanwhile.
		if kept != nil {
			continue
		}
		if err := cfg.disk.RemoveAll(dir); err != nil {
			cfg.Logger.Warn("removing what a crash left", "err", err)
		}
	}
}

// vacant returns an error unless there is no wallet at cfg.Dir (R3, R15).
func vacant(cfg Config, info infoJSON) error {
	here, err := readInfo(cfg.disk, cfg.Dir)
	switch {
	case err == nil && here.ID == info.ID:
		return fmt.Errorf("%s: this wallet is on this device already: %w", cfg.Dir, fs.ErrExist)
	case err == nil:
		return fmt.Errorf("%s holds %s: %w", cfg.Dir, here.Folder, ErrWrongWallet)
	}
	if _, err := os.Lstat(cfg.Dir); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", cfg.Dir, errors.Join(err, fs.ErrExist))
	}
	return nil
}

// takeUp opens the directory that stage made and brings it to the places; held
// are paths that were fetched from each just now. The Backup is not nil as soon as
// the wallet is safe on this device.
func takeUp(ctx context.Context, cfg Config, held map[string]map[string]bool) (*Backup, error) {
	b, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	for address, paths := range held {
		b.place(address).held = paths
	}
	_, err = b.Sync(ctx)
	return b, err
}
