package satchel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
	if len(p.Slots) == 0 {
		return nil, errors.New("creating a backup: it needs a way in")
	}
	for _, c := range p.Items {
		if err := seal.CheckItemName(c.Name); err != nil || c.Remove || seal.OwnerItem(c.Name) {
			return nil, fmt.Errorf("creating a backup: unusable item: %w", errors.Join(err, ErrOwnerOnly))
		}
	}
	owner, err := ownerItems(p.Keys)
	if err != nil {
		return nil, fmt.Errorf("creating a backup: %w", err)
	}
	keys := seal.NewKeys()
	info := infoJSON{
		Version: 1, ID: keys.ID().String(), Label: p.Label, Folder: seal.Folder(p.Label, keys.ID()),
		Network: p.Keys.Network(), Fingerprint: p.Keys.Fingerprint(), Created: cfg.Now().UTC().Format(dayLayout),
	}
	err = stage(cfg, info, keys.Device(1, seal.NewDeviceID()), func(b *Backup) error {
		var slots []seal.SlotName
		var objects []string
		for _, s := range p.Slots {
			n, err := b.sealSlot(keys, s)
			if err != nil {
				return err
			}
			slots, objects = append(slots, n), append(objects, n.Path())
		}
		return b.commitChanges(keys, append(owner, p.Items...), &slots, objects)
	})
	if err != nil {
		return nil, fmt.Errorf("creating a backup: %w", err)
	}
	return takeUp(ctx, cfg, nil)
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

// sealSlot seals a slot, opens it again to prove it, and keeps the object on
// this device.
func (b *Backup) sealSlot(keys *seal.Keys, s slot.Secret) (seal.SlotName, error) {
	r, err := s.Recipient()
	if err != nil {
		return seal.SlotName{}, err
	}
	data, err := seal.SealSlot(keys, r)
	if err != nil {
		return seal.SlotName{}, err
	}
	again, err := seal.OpenSlot(data, s.Identity())
	if err != nil {
		return seal.SlotName{}, fmt.Errorf("opening the new slot to prove it: %w", err)
	}
	if !again.KeyFile().Equal(keys.KeyFile()) {
		return seal.SlotName{}, fmt.Errorf("opening the new slot to prove it: %w", ErrSlotDamaged)
	}
	n := seal.NewSlotName(string(s.Kind()), data)
	return n, b.dev.putObject(n.Hash, data)
}

// stage makes a device's directory beside cfg.Dir, lets fill fill it, and gives
// it its name when it is whole (R15). A crash before that leaves a directory
// that is never taken for a wallet.
func stage(cfg Config, info infoJSON, key *seal.DeviceKey, fill func(b *Backup) error) (err error) {
	for _, p := range cfg.Places {
		info.Places = append(info.Places, p.Address)
	}
	if err := vacant(cfg, info); err != nil {
		return err
	}
	staging := filepath.Join(filepath.Dir(cfg.Dir), stagingPrefix+key.Device().String())
	if err := os.Mkdir(staging, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, cfg.disk.RemoveAll(staging), cfg.Keychain.Delete(localKeyName(info)))
		}
	}()
	info.Device = key.Device().String()
	dev, err := newDevice(cfg, staging, info, key)
	if err != nil {
		return err
	}
	if err := fill(&Backup{cfg: cfg, dev: dev}); err != nil {
		return err
	}
	return cfg.disk.RenameDir(staging, cfg.Dir)
}

// stagingPrefix begins the name of a directory in which a wallet is being made
// or restored.
const stagingPrefix = ".satchel-staging-"

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

// takeUp opens the directory that stage made and brings it to the places. The
// Backup is not nil as soon as the wallet is safe on this device.
func takeUp(ctx context.Context, cfg Config, have map[string]map[string]bool) (*Backup, error) {
	b, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	b.have = have
	_, err = b.Sync(ctx)
	b.mu.Lock()
	b.have = nil
	b.mu.Unlock()
	return b, err
}
