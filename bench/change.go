package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
	"github.com/satchel-backup/satchel/wallet"
)

// inline is a value that a snapshot carries itself.
const inline = 100

// changeSpec says what a child measures.
type changeSpec struct {
	Dir   string // exists and is empty
	Items int    // of the backup
	Value int    // bytes of each
	Small int    // changes of inline bytes
	Large int    // changes of Value bytes
}

// changeResult is what it found.
type changeResult struct {
	Small, Large series
}

// series is what each of several changes took, one after another.
type series struct {
	Bytes []int64 // that the place was given
	Times []time.Duration
}

// measureChanges makes a backup of random values in a folder and changes one
// item after another, each change protected before the next.
func measureChanges(ctx context.Context, s changeSpec) (r changeResult, err error) {
	b, place, err := newBackup(ctx, s)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	// The large ones first: so few of them leave the folder as it was.
	for _, m := range []struct {
		to            *series
		changes, size int
	}{{&r.Large, s.Large, s.Value}, {&r.Small, s.Small, inline}} {
		for i := range m.changes {
			value := make([]byte, m.size)
			rand.Read(value)
			put := place.bytes
			start := time.Now()
			saved, err := b.Save(ctx, satchel.Change{Name: itemName(i % s.Items), Value: value})
			took := time.Since(start)
			if err != nil {
				return r, err
			}
			if !saved.Protected || saved.Changed != 1 {
				return r, errors.New("a change was saved and is not protected")
			}
			m.to.Bytes, m.to.Times = append(m.to.Bytes, place.bytes-put), append(m.to.Times, took)
		}
	}
	// What was counted is what is there.
	there, files, err := content(filepath.Join(s.Dir, "place", b.Status().Folder))
	if err == nil && (files != len(place.names) || there > place.bytes) {
		err = fmt.Errorf("%d objects, %d bytes were put, and there are %d, %d", len(place.names), place.bytes, files, there)
	}
	return r, err
}

func itemName(i int) string { return fmt.Sprintf("file/%05d", i) }

// newBackup makes a wallet with items of random values and its backup.
func newBackup(ctx context.Context, s changeSpec) (*satchel.Backup, *counting, error) {
	f, err := folder.New(filepath.Join(s.Dir, "place"), folder.Config{Create: true})
	if err != nil {
		return nil, nil, err
	}
	place := &counting{Store: f, names: map[string]bool{}}
	b, _, err := backupIn(ctx, s, store.Place{Address: "folder:" + f.Dir(), Store: place})
	return b, place, err
}

// backupIn does that in a place, and returns the recovery code too.
func backupIn(ctx context.Context, s changeSpec, place store.Place) (*satchel.Backup, string, error) {
	cfg := satchel.Config{
		Dir:      filepath.Join(s.Dir, "device"),
		Places:   []store.Place{place},
		Keychain: keychain.File(filepath.Join(s.Dir, "keychain")),
	}
	if err := os.Mkdir(filepath.Join(s.Dir, "keychain"), 0o700); err != nil {
		return nil, "", err
	}
	keys, err := wallet.New(wallet.Regtest, 12, "")
	if err != nil {
		return nil, "", err
	}
	way, code := slot.NewRecoveryCode()
	plan := satchel.Plan{Label: "bench", Keys: keys, Slots: []slot.Secret{way}}
	for i := range s.Items {
		value := make([]byte, s.Value)
		rand.Read(value)
		plan.Items = append(plan.Items, satchel.Change{Name: itemName(i), Value: value})
	}
	b, err := satchel.Create(ctx, cfg, plan)
	return b, string(code.Open()), err
}

// counting is a store that counts the bytes it is given, those of an object that is put
// again too.
type counting struct {
	store.Store
	bytes int64
	names map[string]bool
}

func (c *counting) Put(ctx context.Context, name string, data []byte) error {
	err := c.Store.Put(ctx, name, data)
	if err == nil {
		c.bytes += int64(len(data))
		c.names[name] = true
	}
	return err
}

// change measures what one change costs, in backups of several sizes.
func (b *bench) change(ctx context.Context) error {
	results := map[int]changeResult{}
	for _, items := range b.size.items {
		b.note("changes in a backup of %d items", items)
		r, err := b.changes(ctx, items)
		if err != nil {
			return err
		}
		results[items] = r
	}
	b.say("\n### One change\n\nA backup of so many items of %s bytes in a folder; then %s changes of %s bytes and %s of %d bytes, each of one item, each protected (put, fetched again and compared) before the next. Through the library, in one process. *Amortised* is the average over all of them, with the checkpoints that came due. The bound is for values that a snapshot carries itself, up to %s bytes; a larger one is an object of its own beside the snapshot.\n",
		number(b.size.value), number(b.size.large), number(b.size.value), number(b.size.small), inline, number(seal.MaxInline))
	var rows, times [][]string
	for _, kind := range []struct {
		size int
		of   func(changeResult) series
	}{{inline, func(r changeResult) series { return r.Small }}, {b.size.value, func(r changeResult) series { return r.Large }}} {
		bound := int64(kind.size)*112/100 + 3*1024
		var first int64 // the median of the first row
		for _, items := range b.size.items {
			s := kind.of(results[items])
			middle := quantile(s.Bytes, 50)
			first = cmp.Or(first, middle)
			change, most := number(kind.size)+" B", quantile(s.Bytes, 95)
			goal := []string{"", ""}
			if kind.size <= seal.MaxInline {
				goal = []string{"<= " + number(bound), met(most <= bound)}
			}
			flat := float64(middle)/float64(first) - 1
			rows = append(rows, append(append([]string{change, number(items), number(middle), number(most)}, goal...),
				fmt.Sprintf("%+.1f %%", 100*flat), met(math.Abs(flat) <= 0.1), number(mean(s.Bytes))))
			p50 := quantile(s.Times, 50)
			n := min(200, len(s.Times))
			times = append(times, append([]string{change, number(items)}, append(below(p50, 10*time.Millisecond), ms(quantile(s.Times, 95)), ms(mean(s.Times)), ms(quantile(s.Times, 100)),
				ms(quantile(s.Times[:n], 50))+" → "+ms(quantile(s.Times[len(s.Times)-n:], 50)))...))
		}
	}
	b.table("change|items|bytes p50|p95|bound|met|beside the fewest items|flat (± 10 %)|amortised", rows)
	b.table("change|items|protected after, p50|goal|met|p95|amortised|slowest|first 200 → last 200, p50", times)
	return nil
}

// changes runs a child for one size of backup.
func (b *bench) changes(ctx context.Context, items int) (r changeResult, err error) {
	dir := b.path(fmt.Sprintf("change-%d", items))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return r, err
	}
	spec, err := json.Marshal(changeSpec{dir, items, b.size.value, b.size.small, b.size.large})
	if err != nil {
		return r, err
	}
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	u, err := b.exec(ctx, program{args: []string{self, childArg, string(spec)}})
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(u.out, &r)
}
