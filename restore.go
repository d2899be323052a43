package satchel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
)

// RestoreOptions change what Restore does. The zero value is right.
type RestoreOptions struct {
	// AcceptProblem takes the state that Preview describes in spite of its
	// Problem, and goes on without items that cannot be had: the user has decided.
	AcceptProblem bool
	// BIP39Passphrase is for keys that need one which the backup does not hold.
	// With it the wallet is compared; without it the restore goes on and Compared
	// is false.
	BIP39Passphrase secret.Bytes
}

// Outcome is what a restore brought back.
type Outcome struct {
	Preview
	Compared  bool     // fingerprint and first addresses were recomputed and are the same
	Protected bool     // this device is the writer now, and enough places say so
	Missing   []string // items that could not be had, if that was accepted
}

// Restore brings the wallet to cfg.Dir: every item is fetched, verified and
// written to a staging directory, which takes its final name only when all is
// whole. A wallet that is there already is not overwritten (ErrWrongWallet,
// fs.ErrExist). Then this device takes over as the writer of the backup.
//
// As with Create, a Backup and an error together mean that the wallet is
// restored, and that taking over is still to be brought to the places. Errors
// without a Backup: Preview.Problem, IncompleteError, those of the places.
func (o *Opened) Restore(ctx context.Context, cfg Config, opts RestoreOptions) (*Backup, Outcome, error) {
	out := Outcome{Preview: o.preview}
	if err := cfg.fill(true); err != nil {
		return nil, out, err
	}
	if o.preview.Problem != nil && !opts.AcceptProblem {
		return nil, out, o.preview.Problem
	}
	if len(cfg.Places) == 0 {
		cfg.Places = o.reader.places
	}
	var err error
	if out.Compared, err = o.compare(opts); err != nil {
		return nil, out, err
	}

	// The new device writes in an epoch above any that a place knows, so that
	// the older device stops when it looks (R16).
	epoch := o.names[0].Epoch + 1
	if epoch > seal.MaxEpoch {
		return nil, out, fmt.Errorf("restoring: epoch %d is the last: %w", o.names[0].Epoch, seal.ErrDamaged)
	}
	info := infoJSON{
		Version: 1, ID: o.keys.ID().String(), Label: o.found.Label, Folder: o.found.Folder,
		Network: o.preview.Network, Fingerprint: o.preview.Fingerprint, Created: o.found.Created.Format(dayLayout),
	}
	err = stage(cfg, info, o.keys.Device(epoch, seal.NewDeviceID()), func(b *Backup) error {
		out.Missing, err = o.fill(ctx, b, opts.AcceptProblem)
		return err
	})
	if err != nil {
		return nil, out, fmt.Errorf("restoring: %w", err)
	}
	b, err := takeUp(ctx, cfg, o.reader.have)
	if b == nil {
		return nil, out, fmt.Errorf("restored, and it cannot be opened: %w", err)
	}
	out.Protected = b.Status().Protected
	cfg.progress(Restored, "", 1, 1)
	if err == nil && len(out.Missing) > 0 {
		err = &IncompleteError{Items: out.Missing}
	}
	return b, out, err
}

// compare recomputes fingerprint and addresses. It reports false if that needs a
// passphrase that was not given.
func (o *Opened) compare(opts RestoreOptions) (bool, error) {
	if o.wallet == nil {
		return false, nil
	}
	if !o.preview.PassphraseNeeded {
		return true, nil // Open did it.
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
	names := o.inOrder()
	var last *seal.Snapshot // the snapshot fetched last, for values that it carries
	for i, name := range names {
		b.cfg.progress(Restoring, "", i, len(names))
		e := o.state.items[name]
		if e.line.Removed {
			continue
		}
		v, err := o.restoreValue(ctx, e, &last)
		if keepErr != nil {
			return nil, keepErr
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		fresh := &entry{line: e.line}
		if err != nil {
			missing = append(missing, name)
			problems = append(problems, err)
			fresh.lost = true
		} else if fresh.value, err = d.putValue(&e.line, v); err != nil {
			return nil, err
		}
		d.items[name] = fresh
	}
	b.cfg.progress(Restoring, "", len(names), len(names))
	if len(missing) > 0 && !accept {
		return missing, errors.Join(append([]error{&IncompleteError{Items: missing}}, problems...)...)
	}
	for _, name := range names {
		if e := o.state.items[name]; e.line.Removed {
			d.items[name] = &entry{line: e.line}
		}
	}
	for _, n := range o.state.slots {
		// A slot that is gone or damaged is a warning and not a reason to fail:
		// another one just opened.
		if _, err := o.reader.fetch(ctx, n.Path()); err == nil {
			d.slots = append(d.slots, n)
		}
	}
	if keepErr != nil {
		return nil, keepErr
	}
	snap := &seal.Snapshot{
		Generation: o.state.name.Generation + 1, Parent: o.state.name, Time: b.cfg.Now(), Software: b.cfg.Software,
		Kind: seal.Checkpoint, HasSlots: true, Slots: slices.Clone(d.slots),
	}
	return missing, d.commitSnapshot(snap, d.whole(nil), nil)
}

// inOrder returns the items such that values carried by one snapshot follow one
// another.
func (o *Opened) inOrder() []string {
	items := o.state.items
	return slices.SortedFunc(maps.Keys(items), func(a, b string) int {
		x, y := items[a].line.In, items[b].line.In
		return cmp.Or(x.Compare(y), cmp.Compare(x.Hash, y.Hash), cmp.Compare(a, b))
	})
}

// restoreValue fetches one value and everything that the new device keeps of it.
func (o *Opened) restoreValue(ctx context.Context, e *entry, last **seal.Snapshot) ([]byte, error) {
	l := &e.line
	if l.In.IsZero() {
		return o.value(ctx, l.Name)
	}
	if *last == nil || (*last).Generation != l.In.Generation || (*last).Epoch != l.In.Epoch || (*last).Device != l.In.Device {
		s, _, err := o.snapshot(ctx, l.In)
		if err != nil {
			*last = nil
			return nil, fmt.Errorf("item %s: %w", l.Name, err)
		}
		*last = s
	}
	for i := range (*last).Items {
		it := &(*last).Items[i]
		if it.Name == l.Name && it.Inline && it.Version == l.Version && l.Matches(it.Data) {
			return it.Data, nil
		}
	}
	return nil, fmt.Errorf("item %s: it is not in snapshot %s: %w", l.Name, l.In, ErrMissing)
}
