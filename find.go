package satchel

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
)

// Found is a backup as a listing shows it. All of it but Places is a hint: the
// places could have written anything. Open tells the truth.
type Found struct {
	Folder     string
	Label      string
	ID         string         // "" if unknown
	Network    wallet.Network // "" if unknown
	Created    time.Time      // day; zero if unknown
	Epoch      uint64
	Generation uint64    // newest by name, over all places
	Modified   time.Time // of the newest snapshot, as the store tells
	Slots      []slot.Kind
	Places     []FoundPlace

	cfg      Config
	unlisted []error // of the places that could not be looked into: they may hold more
}

// FoundPlace is one place that holds a found backup.
type FoundPlace struct {
	Place      store.Place
	Epoch      uint64
	Generation uint64 // newest by name; 0 if it holds no snapshot
}

// hintJSON is backup.json.
type hintJSON struct {
	Version int            `json:"satchel-backup"`
	ID      string         `json:"id"`
	Created string         `json:"created"`
	Network wallet.Network `json:"network"`
}

const maxHint = 4096

// hints returns the objects that are for people and not trusted, by name.
func (d *device) hints() map[string][]byte {
	b, err := json.Marshal(hintJSON{Version: 1, ID: d.info.ID, Created: d.info.Created, Network: d.info.Network})
	if err != nil {
		panic(err) // Strings and a number.
	}
	text := readme
	if d.keysDropped() {
		text = readmeDropped
	}
	return map[string][]byte{seal.HintName: append(b, '\n'), seal.ReadmeName: []byte(text)}
}

const readmeDropped = `This folder is the encrypted backup of a Bitcoin wallet, WITHOUT its words.

The owner took the words out of it: they are written down somewhere, on paper. To
bring the wallet back you need both: this folder with its recovery code, passphrase
or PIN, for labels, contacts, settings and the like; and the paper, for the
money. The words alone, in any Bitcoin wallet that takes 12 to 24 words (BIP 39),
bring the money back too.

DO NOT DELETE OR RENAME ANYTHING IN IT. Nobody can read it without the secret, and
nobody can replace it.

To restore
  Install Satchel, run "satchel restore", and point it at the folder that this
  folder is in. It asks for your recovery code, passphrase or PIN, and for the words.

To read it without Satchel
  The files are ordinary age files (https://age-encryption.org, version 1.3 or
  later): age -d -i slots/FILE snapshots/FILE shows what there is.
`

const readmeEnded = `This folder was the encrypted backup of a Bitcoin wallet. It ended.

Its owner made new keys, and another folder beside this one, or in the same place, is
the backup now. What is left here holds nothing: it tells a phone or computer that
still has the old backup not to bring it back. When no such device is left, this
folder may be deleted.
`

const readme = `This folder is the encrypted backup of a Bitcoin wallet.

DO NOT DELETE OR RENAME ANYTHING IN IT. If the phone or computer that holds the
wallet is lost, this folder and your recovery code, passphrase, PIN or words bring
the wallet back. Nobody can read it without them, and nobody can replace them.

To restore
  Install Satchel, run "satchel restore", and point it at the folder that this
  folder is in. It asks for your recovery code, passphrase, PIN or words.

To restore without Satchel
  The files are ordinary age files (https://age-encryption.org, version 1.3 or
  later). This shows the wallet's words; age asks for the recovery code or the
  passphrase:

    age -d -i slots/recovery-code-*.age items/keys/*.age
    age -d -i slots/passphrase-*.age items/keys/*.age

  With several files of one kind, name one; of several in items/keys take the
  last. A PIN needs Satchel's age-plugin-satchel as well. Do this only on a computer
  that you trust: the words are the money.
`

// Find lists the backups in all places of cfg (Dir and Keychain are not used).
// If some place could not be listed, err says so (store.ErrListing,
// store.ErrUnreachable, …) beside what was found in the others. If all were
// listed and hold none, again and again until cfg.Settle is over, err is
// ErrNoBackup.
func Find(ctx context.Context, cfg Config) ([]Found, error) {
	if err := cfg.fill(false); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(cfg.Settle)
	for {
		found, err := find(ctx, cfg)
		if len(found) > 0 || err != nil {
			return found, err
		}
		wait := min(time.Until(deadline), 500*time.Millisecond)
		if wait <= 0 {
			break
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var where []string
	for _, p := range cfg.Places {
		where = append(where, p.Address)
	}
	return nil, fmt.Errorf("%w; looked in %s", ErrNoBackup, strings.Join(where, ", "))
}

// find looks once.
func find(ctx context.Context, cfg Config) ([]Found, error) {
	byFolder := map[string]*Found{}
	var errs []error
	lists := make([][]store.Object, len(cfg.Places))
	failed := make([]error, len(cfg.Places))
	cfg.atPlaces(len(cfg.Places), func(i int) {
		p := cfg.Places[i]
		cfg.progress(Searching, p.Address, i, len(cfg.Places))
		lists[i], failed[i] = p.Store.List(ctx, seal.FolderPrefix)
	})
	for i, p := range cfg.Places {
		list, err := lists[i], failed[i]
		if err != nil {
			errs = append(errs, fmt.Errorf("looking in %s: %w", p.Address, err))
			continue
		}
		for folder, objects := range byFolderName(list) {
			label, ok := seal.FolderLabel(folder)
			if !ok {
				continue
			}
			f := byFolder[folder]
			if f == nil {
				f = &Found{Folder: folder, Label: seal.CleanLabel(label), cfg: cfg}
				byFolder[folder] = f
			}
			f.add(ctx, p, objects)
		}
	}
	cfg.progress(Searching, "", len(cfg.Places), len(cfg.Places))
	var found []Found
	for _, f := range byFolder {
		// A folder with neither a snapshot nor a slot is not a backup, and
		// never chosen (R4). Nor is what is left of one that another replaced.
		if f.Generation > 0 && f.Epoch < seal.MaxEpoch || len(f.Slots) > 0 {
			f.unlisted = errs
			found = append(found, *f)
		}
	}
	slices.SortFunc(found, func(a, b Found) int {
		return cmp.Or(b.Modified.Compare(a.Modified), strings.Compare(a.Folder, b.Folder))
	})
	return found, errors.Join(errs...)
}

// byFolderName splits a listing by the first element of the names, and takes it
// off.
func byFolderName(list []store.Object) map[string][]store.Object {
	m := map[string][]store.Object{}
	for _, o := range list {
		if folder, rest, ok := strings.Cut(o.Name, "/"); ok {
			o.Name = rest
			m[folder] = append(m[folder], o)
		}
	}
	return m
}

// add notes what one place holds of a backup.
func (f *Found) add(ctx context.Context, p store.Place, objects []store.Object) {
	fp := FoundPlace{Place: p}
	hint := false
	for _, o := range objects {
		if n, ok := seal.ParseSnapshotPath(o.Name); ok {
			if n.Compare(seal.SnapshotName{Epoch: fp.Epoch, Generation: fp.Generation}) > 0 {
				fp.Epoch, fp.Generation = n.Epoch, n.Generation
			}
			if n.Compare(seal.SnapshotName{Epoch: f.Epoch, Generation: f.Generation}) > 0 {
				f.Epoch, f.Generation, f.Modified = n.Epoch, n.Generation, o.Modified
			}
		}
		if n, ok := seal.ParseSlotPath(o.Name); ok && !slices.Contains(f.Slots, slot.Kind(n.Kind)) {
			f.Slots = append(f.Slots, slot.Kind(n.Kind))
		}
		hint = hint || o.Name == seal.HintName
	}
	slices.Sort(f.Slots)
	f.Places = append(f.Places, fp)
	if !hint || f.ID != "" {
		return
	}
	b, err := p.Store.Get(ctx, f.Folder+"/"+seal.HintName, "", maxHint)
	var j hintJSON
	if err != nil || json.Unmarshal(b, &j) != nil {
		return
	}
	if _, err := seal.ParseBackupID(j.ID); err != nil {
		return
	}
	f.ID = j.ID
	f.Created, _ = time.Parse(dayLayout, j.Created)
	if slices.Contains([]wallet.Network{wallet.Mainnet, wallet.Testnet, wallet.Signet, wallet.Regtest}, j.Network) {
		f.Network = j.Network
	}
}

// reader fetches the objects of one backup from the places that hold it.
type reader struct {
	cfg      Config
	folder   string
	places   []store.Place
	lists    [][]store.Object               // of each place, names below the folder
	unlisted error                          // of the places that could not be looked into
	have     map[string]map[string]bool     // address → paths fetched from there, whole
	keep     func(path string, data []byte) // if not nil, gets every object fetched whole
}

// newReader lists the backup's folder in every place. Places that cannot be
// listed are left out, unless all are.
func newReader(ctx context.Context, cfg Config, folder string, places []store.Place) (*reader, []string, error) {
	return newReaderOf(ctx, cfg, folder, folder+"/", places)
}

// newReaderOf lists only what begins with the prefix, which is in the backup's folder: some
// places ask their server once for each folder below it.
func newReaderOf(ctx context.Context, cfg Config, folder, prefix string, places []store.Place) (*reader, []string, error) {
	r := &reader{cfg: cfg, folder: folder, have: map[string]map[string]bool{}}
	var errs []error
	var warnings []string
	lists := make([][]store.Object, len(places))
	failed := make([]error, len(places))
	cfg.atPlaces(len(places), func(i int) { lists[i], failed[i] = places[i].Store.List(ctx, prefix) })
	for i, p := range places {
		list, err := lists[i], failed[i]
		if err != nil {
			errs = append(errs, fmt.Errorf("looking in %s: %w", p.Address, err))
			warnings = append(warnings, fmt.Sprintf("%s could not be looked into: %v", p.Address, err))
			continue
		}
		for i := range list {
			list[i].Name = below(folder, list[i].Name)
		}
		r.places = append(r.places, p)
		r.lists = append(r.lists, list)
		r.have[p.Address] = map[string]bool{}
	}
	r.unlisted = errors.Join(errs...)
	if len(r.places) == 0 {
		return nil, nil, r.unlisted
	}
	return r, warnings, nil
}

// each calls fn for every name in any place, once.
func (r *reader) each(fn func(path string)) {
	seen := map[string]bool{}
	for _, list := range r.lists {
		for _, o := range list {
			if !seen[o.Name] {
				seen[o.Name] = true
				fn(o.Name)
			}
		}
	}
}

// fetch returns the object of a path whose name ends in its hash, from the first
// place that has it whole, and reads none that is longer than limit. If none has,
// the error is seal.ErrTruncated or seal.ErrDamaged if one has other bytes, what
// a place said that did not answer, and otherwise ErrMissing, with what is known
// of the places that could not be looked into.
func (r *reader) fetch(ctx context.Context, path string, limit int64) ([]byte, error) {
	hash, name := hashOf(path), r.folder+"/"+path
	var damaged, unknown error
	for _, p := range r.places {
		data, err := p.Store.Get(ctx, name, hash, limit)
		if err == nil && !hash.Matches(data) {
			err = store.ErrDamaged // The store should have told.
		}
		switch {
		case err == nil:
			r.have[p.Address][path] = true
			if r.keep != nil {
				r.keep(path, data)
			}
			return data, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, store.ErrDamaged):
			if damaged == nil {
				damaged = r.diagnose(ctx, p, name, limit)
			}
		case errors.Is(err, store.ErrTooLarge):
			damaged = cmp.Or(damaged, fmt.Errorf("%w in %s: it is longer than any such object", seal.ErrDamaged, p.Address))
		case errors.Is(err, store.ErrNotExist):
		default:
			unknown = cmp.Or(unknown, fmt.Errorf("%s: %w", p.Address, err))
		}
	}
	err := cmp.Or(damaged, unknown)
	for _, paths := range r.have {
		if paths[path] {
			// It was whole a moment ago: that is no loss, and no damage either.
			if unknown != nil {
				return nil, fmt.Errorf("object %s: %w", path, unknown)
			}
			return nil, fmt.Errorf("object %s was there and cannot be read again: %w", path, store.ErrUnreachable)
		}
	}
	if err == nil {
		err = ErrMissing
		if r.unlisted != nil {
			err = fmt.Errorf("%w where it could be looked for: %w", ErrMissing, r.unlisted)
		}
	}
	return nil, fmt.Errorf("object %s: %w", path, err)
}

// diagnose says how an object is damaged. Slots are not padded, so of their
// lengths nothing can be told.
func (r *reader) diagnose(ctx context.Context, p store.Place, name string, limit int64) error {
	data, err := p.Store.Get(ctx, name, "", limit)
	if err != nil || isSlot(below(r.folder, name)) {
		return fmt.Errorf("%w in %s", seal.ErrDamaged, p.Address)
	}
	return fmt.Errorf("%w in %s", seal.Misfit(data), p.Address)
}

// maxSlotFiles is how many files that are named like slots are looked at.
const maxSlotFiles = 4096

// slots returns the slots of a kind, those first that are in a place with few of
// them: a place with thousands is not to be believed. Beyond maxSlotFiles they are
// cut.
func (r *reader) slots(match func(seal.SlotName) bool) []seal.SlotName {
	var byPlace [][]seal.SlotName
	for _, list := range r.lists {
		var names []seal.SlotName
		for _, o := range list {
			if n, ok := seal.ParseSlotPath(o.Name); ok && match(n) && len(names) < maxSlotFiles {
				names = append(names, n)
			}
		}
		byPlace = append(byPlace, names)
	}
	slices.SortStableFunc(byPlace, func(a, b []seal.SlotName) int { return len(a) - len(b) })
	var all []seal.SlotName
	seen := map[seal.SlotName]bool{}
	for _, names := range byPlace {
		for _, n := range names {
			if len(all) < maxSlotFiles && !seen[n] {
				seen[n] = true
				all = append(all, n)
			}
		}
	}
	return all
}

// leaveOut takes the place out that lists most of the paths and returns its
// address and the snapshots that it alone lists.
func (r *reader) leaveOut(paths map[string]bool) (address string, alone []seal.SnapshotName) {
	most, worst := -1, 0
	for i, list := range r.lists {
		n := 0
		for _, o := range list {
			if paths[o.Name] {
				n++
			}
		}
		if n > most {
			most, worst = n, i
		}
	}
	address = r.places[worst].Address
	list := r.lists[worst]
	r.places, r.lists = slices.Delete(slices.Clone(r.places), worst, worst+1), slices.Delete(slices.Clone(r.lists), worst, worst+1)
	others := map[string]bool{}
	r.each(func(path string) { others[path] = true })
	for _, o := range list {
		if n, ok := seal.ParseSnapshotPath(o.Name); ok && !others[o.Name] {
			alone = append(alone, n)
		}
	}
	return address, alone
}
