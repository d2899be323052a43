package satchel

import (
	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/seal"
)

// SetHook makes every durable step on this device call hook, which may fail it. Places
// come one after another then, so that steps have an order.
func (cfg *Config) SetHook(hook func(durable.Step) error) { cfg.disk.Hook, cfg.inTurn = hook, true }

// LogSize returns the length of this device's log.
func (b *Backup) LogSize() int64 { return b.dev.log.Size() }

// DeviceKey returns what a thief of this device has.
func (b *Backup) DeviceKey() *seal.DeviceKey { return b.dev.key }

// Objects returns the paths of what the newest state needs.
func (b *Backup) Objects() []string { return b.dev.liveObjects(0) }

// Line returns the line of an item in the newest state.
func (b *Backup) Line(name string) seal.Item { return b.dev.items[name].line }

// Head returns the name of the newest snapshot.
func (b *Backup) Head() seal.SnapshotName { return b.dev.head() }

// Chain returns the snapshots from the newest checkpoint to the newest.
func (b *Backup) Chain() []seal.SnapshotName {
	var names []seal.SnapshotName
	for _, s := range b.dev.chain {
		names = append(names, s.name)
	}
	return names
}

// SetListed claims that a checkpoint needs so many bytes to list the items.
func (b *Backup) SetListed(n int64) { b.dev.listed = n }

// StagingPrefix begins the name of a directory that is being made.
const StagingPrefix = stagingPrefix

// SetHealth pretends that a place failed.
func (b *Backup) SetHealth(address string, err error) { b.setPlace(address, HealthFailed, err) }

// OwnerSave commits owner items, as nobody but Create and Rekey does.
func (b *Backup) OwnerSave(keys *seal.Keys, changes ...Change) error {
	return b.commitChanges(keys, changes, nil, nil)
}
