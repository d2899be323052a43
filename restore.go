package satchel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/wallet"
)

// RestoreOptions change what Restore does. The zero value is right.
type RestoreOptions struct {
	// AcceptProblem takes the state that Preview describes in spite of its
	// Problem, and goes on without required items that cannot be had: the user has
	// decided.
	AcceptProblem bool
	// BIP39Passphrase is for BIP 39 keys that need one which the backup does not hold.
	// With it the wallet is compared; without it the restore goes on and Compared
	// is false.
	BIP39Passphrase secret.Bytes
	// Keys are the wallet's, where the backup does not hold them (Preview.KeysDropped)
	// and the user typed the words. They are compared with the descriptors and kept on
	// this device only. Zero restores the rest without them.
	Keys wallet.Keys
}

// Outcome is what a restore brought back.
type Outcome struct {
	Preview
	Compared  bool     // fingerprint and first addresses were recomputed and are the same
	Protected bool     // this device is the writer now, and enough places say so
	Missing   []string // items that could not be had
}

// Restore brings the wallet to cfg.Dir: every item is fetched, verified and
// written to a staging directory, which takes its final name only when all is
// whole. Channel backups that only newer snapshots or a branch hold become items beside
// those of the state (R21). A wallet that is there already is not overwritten (ErrWrongWallet,
// fs.ErrExist). Then this device takes over as the writer of the backup.
//
// As with Create, a Backup and an error together mean that the wallet is
// restored: taking over is still to be brought to the places, or, with an
// IncompleteError, items could not be had that are not required, or whose loss was
// accepted; Outcome.Missing names them. Errors without a Backup: Preview.Problem,
// an IncompleteError of required items, those of the places.
func (o *Opened) Restore(ctx context.Context, cfg Config, opts RestoreOptions) (*Backup, Outcome, error) {
	out := Outcome{Preview: o.preview}
	if len(cfg.Places) == 0 {
		for _, p := range o.found.Places {
			cfg.Places = append(cfg.Places, p.Place)
		}
	}
	if err := cfg.fill(true); err != nil {
		return nil, out, err
	}
	if o.preview.Problem != nil && !opts.AcceptProblem {
		return nil, out, o.preview.Problem
	}
	var err error
	if out.Compared, err = o.compare(opts); err != nil {
		return nil, out, err
	}

	if since, err := o.since(ctx, seal.MaxEpoch); err != nil {
		return nil, out, fmt.Errorf("restoring: %w", err)
	} else if len(since) > 0 {
		return nil, out, fmt.Errorf("restoring: %w: device %s wrote generation %d since the backup was opened; open it again",
			ErrOtherDevice, since[0].Device, since[0].Generation)
	}
	if o.newest.Epoch == seal.MaxEpoch {
		if o.state.name.Epoch == seal.MaxEpoch {
			return nil, out, fmt.Errorf("restoring: %w", ErrEnded)
		}
		if err := o.withdrawEnd(ctx); err != nil {
			return nil, out, fmt.Errorf("restoring: taking the end of this backup back: %w", err)
		}
	}
	epoch := o.nextEpoch()
	if epoch >= seal.MaxEpoch { // That is the end's.
		return nil, out, fmt.Errorf("restoring: epoch %d is the last: %w", seal.MaxEpoch-1, seal.ErrDamaged)
	}
	info := infoJSON{
		Version: 1, ID: o.keys.ID().String(), Label: o.found.Label, Folder: o.found.Folder,
		Network: o.preview.Network, Kind: recordOf(o.preview.Kind), Fingerprint: o.preview.Fingerprint, Created: o.found.Created.Format(dayLayout),
	}
	device := o.keys.Device(epoch, seal.NewDeviceID())
	info.Device = device.Device().String()
	err = stage(cfg, info, device, func(b *Backup) error {
		for _, n := range slices.Concat(o.leftOut, o.names) {
			if (n.Epoch >= epoch || o.aliens[n]) && len(b.dev.strangers) < maxStrangers {
				b.dev.strangers[n] = true
			}
		}
		if o.preview.KeysDropped && out.Compared {
			text, err := opts.Keys.Text()
			if err != nil {
				return err
			}
			b.dev.kept.Keys = text.Open()
		}
		if out.Missing, err = o.fill(ctx, b, opts.AcceptProblem); err != nil {
			return err
		}
		switch warning, err := o.bringChannels(ctx, b); {
		case err != nil:
			return err
		case warning != "":
			out.Warnings = append(slices.Clone(out.Warnings), warning)
		}
		if len(out.Missing) == 0 && o.preview.Problem == nil {
			if err := b.setDrilled(o.used); err != nil {
				return err
			}
		}
		if len(o.dead) > 0 {
			if err := b.setRemoved(o.dead); err != nil {
				return err
			}
			if err := b.recordPIN(pinRecord{Ending: o.ending}); err != nil {
				return err
			}
		}
		return b.dev.setEpochs(o.keys)
	})
	if err != nil {
		return nil, out, fmt.Errorf("restoring: %w", err)
	}
	// Before anything is written to a place: of two devices that restore at once, or of one
	// that is not stopped by what a place shows, one writes.
	if err := o.raise(ctx, epoch); err != nil {
		out.Warnings = append(slices.Clone(out.Warnings), fmt.Sprintf("the key servers do not know yet that this device is the writer: %v", err))
	}
	b, err := takeUp(ctx, cfg, o.reader.have)
	if b == nil {
		return nil, out, fmt.Errorf("restored, and it cannot be opened: %w", err)
	}
	out.Protected = b.Status().Protected
	if since, sinceErr := o.since(ctx, epoch); sinceErr == nil && len(since) > 0 {
		out.Warnings = append(slices.Clone(out.Warnings), fmt.Sprintf("device %s wrote generation %d while this was restored; it is kept as a branch",
			since[0].Device, since[0].Generation))
	}
	cfg.progress(Restored, "", 1, 1)
	if len(out.Missing) > 0 {
		err = errors.Join(&IncompleteError{Items: out.Missing}, err)
	}
	return b, out, err
}

// withdrawEnd deletes the end of a backup from the places: the user has decided for an
// older state, which would end at once otherwise.
func (o *Opened) withdrawEnd(ctx context.Context) error {
	for i, p := range o.reader.places {
		for _, ob := range o.reader.lists[i] {
			n, ok := seal.ParseSnapshotPath(ob.Name)
			if !ok || n.Epoch != seal.MaxEpoch || o.aliens[n] {
				continue
			}
			if _, err := o.snapshot(ctx, n); errors.Is(err, errAlien) || err != nil && gone(err) {
				continue // Not proven ours (R3). The new device is told to overlook it.
			} else if err != nil {
				return err
			}
			ob.Name = o.reader.folder + "/" + ob.Name
			if err := p.Store.Delete(ctx, ob); err != nil {
				return fmt.Errorf("%s: %w", p.Address, err)
			}
		}
	}
	return nil
}

// maxStrangers bounds what a device remembers of snapshots that are not of its
// backup.
const maxStrangers = 50_000

// nextEpoch returns an epoch above that of every snapshot which is or may be of
// this backup, so that the older device stops when it looks (R16). Snapshots of
// others do not count, nor do names that leave no room: the new device is told to
// overlook them.
func (o *Opened) nextEpoch() uint64 {
	// A damaged file must not use them up, nor take the epoch so far that key servers
	// cannot be brought there.
	room := min(o.state.name.Epoch+guard.MaxEpochs, o.state.name.Epoch+(seal.MaxEpoch-o.state.name.Epoch)/2)
	epoch := max(o.state.name.Epoch, o.epoch)
	for _, n := range o.names {
		if !o.aliens[n] && n.Epoch < room {
			epoch = max(epoch, n.Epoch)
		}
	}
	return epoch + 1
}

// since lists the snapshots, newer than the state and of an epoch below the limit,
// that appeared after the backup was opened.
func (o *Opened) since(ctx context.Context, limit uint64) ([]seal.SnapshotName, error) {
	r, _, err := newReaderOf(ctx, o.reader.cfg, o.reader.folder, o.reader.folder+"/snapshots/", o.reader.places)
	if err != nil {
		return nil, err
	}
	known := map[seal.SnapshotName]bool{}
	for _, n := range slices.Concat(o.leftOut, o.names) {
		known[n] = true
	}
	var list []seal.SnapshotName
	r.each(func(path string) {
		if n, ok := seal.ParseSnapshotPath(path); ok && !known[n] && n.Compare(o.state.name) > 0 && n.Epoch < limit {
			list = append(list, n)
		}
	})
	slices.SortFunc(list, func(a, b seal.SnapshotName) int { return b.Compare(a) })
	return list, nil
}

// compare recomputes fingerprint and addresses. It reports false if that needs a
// passphrase that was not given.
func (o *Opened) compare(opts RestoreOptions) (bool, error) {
	if o.preview.KeysDropped && !opts.Keys.IsZero() {
		if err := opts.Keys.Matches(o.descriptors); err != nil {
			return false, fmt.Errorf("%w: %w", ErrWrongWallet, err)
		}
		return true, nil
	}
	if o.wallet == nil {
		return false, nil
	}
	if !o.preview.PassphraseNeeded || o.preview.Kind == wallet.KindAezeed {
		return true, nil // Open did it, or only lnd can.
	}
	if opts.BIP39Passphrase.Empty() {
		return false, nil
	}
	k, err := o.wallet.WithPassphrase(opts.BIP39Passphrase)
	if err != nil {
		return false, err
	}
	if err := k.Matches(o.descriptors); err != nil {
		return false, fmt.Errorf("%w: %w", ErrWrongWallet, err)
	}
	return true, nil
}

// fill fetches everything into the staging directory and commits the first
// checkpoint of the new epoch there.
func (o *Opened) fill(ctx context.Context, b *Backup, accept bool) (missing []string, err error) {
	d := b.dev
	var keepErr error
	o.reader.keep = func(path string, data []byte) {
		if err := d.putObject(hashOf(path), data); err != nil {
			keepErr = cmp.Or(keepErr, err)
		}
	}
	defer func() { o.reader.keep = nil }()

	var problems []error
	var required []string // of those that are missing
	names := o.inOrder()
	stop := o.readAhead(ctx, names)
	defer stop()
	last := carrier{once: true}
	for i, name := range names {
		b.cfg.progress(Restoring, "", i, len(names))
		e := o.state.items[name]
		if e.line.Removed {
			d.items[name] = &entry{line: e.line}
			continue
		}
		moving := b.cfg.moving(ctx, Progress{Stage: Restoring, Done: i, Total: len(names)}, 0)
		v, err := o.restoreValue(moving, e, &last)
		if err != nil && ctx.Err() == nil {
			last = carrier{once: true}
			v, err = o.restoreValue(moving, e, &last) // Before it is given up for lost.
		}
		if keepErr != nil {
			return nil, keepErr
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		fresh := &entry{line: e.line}
		switch {
		case err == nil:
			if fresh.value, err = d.putValue(&e.line, v); err != nil {
				return nil, err
			}
		case !gone(err):
			return nil, err // Another try may bring it: it is not given up for lost.
		default:
			missing = append(missing, name)
			if e.line.Required {
				required = append(required, name)
				problems = append(problems, err)
			}
			fresh.lost = true
		}
		d.items[name] = fresh
	}
	stop()
	b.cfg.progress(Restoring, "", len(names), len(names))
	if len(required) > 0 && !accept {
		return missing, errors.Join(append([]error{&IncompleteError{Items: required}}, problems...)...)
	}
	// A slot that is gone or damaged is a warning and not a reason to fail: another
	// one just opened. It stays in the list, so that it is not taken for a
	// stranger's when it comes back. The one that opened is kept in any case.
	d.slots = slices.DeleteFunc(slices.Clone(o.state.slots), func(n seal.SlotName) bool { return n.ID == o.used.ID && n != o.used || slices.Contains(o.dead, n) })
	if !slices.Contains(d.slots, o.used) {
		d.slots = append(d.slots[:min(len(d.slots), seal.MaxSlots-1)], o.used)
	}
	for _, n := range d.slots {
		if _, err := o.reader.fetch(ctx, n.Path(), seal.MaxSlot); err != nil && !gone(err) && ctx.Err() == nil && n == o.used {
			return nil, err
		}
	}
	if err := cmp.Or(keepErr, ctx.Err()); err != nil {
		return nil, err
	}
	d.past = pastAfter(o.state.past, o.state.name)
	snap := &seal.Snapshot{
		Generation: o.state.name.Generation + 1, Parent: o.state.name, Time: b.cfg.Now(), Software: b.cfg.Software,
		Kind: seal.Checkpoint, HasSlots: true, Slots: slices.Clone(d.slots),
	}
	p := packer{d: d, gen: snap.Generation}
	lines, err := p.pack(d.whole(nil), false)
	if err != nil {
		return nil, err
	}
	return missing, b.commitSnapshot(snap, lines, p.objects)
}

// pastAfter returns the past of who goes on in another epoch.
func pastAfter(past []seal.SnapshotName, end seal.SnapshotName) []seal.SnapshotName {
	past = append(slices.Clone(past), end)
	return past[max(0, len(past)-seal.MaxPast):]
}

// gone reports whether an error of reading something says that it is not to be
// had, and not merely not now.
func gone(err error) bool {
	for _, fact := range []error{ErrMissing, seal.ErrDamaged, seal.ErrForged, seal.ErrNotOurs, seal.ErrNewer} {
		if errors.Is(err, fact) {
			return true
		}
	}
	return false
}
