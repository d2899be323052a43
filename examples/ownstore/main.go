// A host application that brings its own store, as a phone's app does whose
// cloud is a native API: records stands for that API, and cloudStore is the
// whole adapter. Its test runs the conformance suite of package storetest.
//
//	go run ./examples/ownstore
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
)

// records stands for the platform's API: records by id, with a name each. Two
// records may have one name, as in most clouds.
type records struct {
	mu   sync.Mutex
	next int
	byID map[string]record
}

type record struct {
	name    string
	data    []byte
	created time.Time
}

// cloudStore makes the platform's API a store.
type cloudStore struct{ api *records }

var _ store.Store = cloudStore{}

func (c cloudStore) Put(ctx context.Context, name string, data []byte) error {
	if err := errors.Join(store.CheckPut(name, data), ctx.Err()); err != nil {
		return err
	}
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	for _, r := range c.api.byID {
		if r.name == name {
			if string(r.data) != string(data) {
				return store.ErrExist
			}
			return nil
		}
	}
	if c.api.byID == nil {
		c.api.byID = map[string]record{}
	}
	c.api.next++
	c.api.byID[fmt.Sprint(c.api.next)] = record{name: name, data: slices.Clone(data), created: time.Now()}
	return nil
}

func (c cloudStore) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	if err := errors.Join(store.CheckName(name), ctx.Err()); err != nil {
		return nil, err
	}
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	err := store.ErrNotExist
	for _, r := range c.api.byID {
		switch {
		case r.name != name:
		case int64(len(r.data)) > limit:
			err = store.ErrTooLarge
		case want.Matches(r.data):
			return slices.Clone(r.data), nil
		default:
			err = store.ErrDamaged
		}
	}
	return nil, err
}

func (c cloudStore) List(ctx context.Context, prefix string) ([]store.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	var list []store.Object
	for _, id := range slices.Sorted(maps.Keys(c.api.byID)) {
		if r := c.api.byID[id]; strings.HasPrefix(r.name, prefix) {
			list = append(list, store.Object{Name: r.name, Size: int64(len(r.data)), Modified: r.created, ID: id})
		}
	}
	return list, nil
}

func (c cloudStore) Delete(ctx context.Context, o store.Object) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	delete(c.api.byID, o.ID)
	return nil
}

func main() {
	dir, err := os.MkdirTemp("", "ownstore-")
	check(err)
	defer os.RemoveAll(dir)
	check(backUpAndRestore(context.Background(), dir, cloudStore{&records{}}))
}

// backUpAndRestore is what the host does on two devices of one user.
func backUpAndRestore(ctx context.Context, dir string, cloud store.Store) error {
	config := func(device string) satchel.Config {
		return satchel.Config{
			Dir:      filepath.Join(dir, device),
			Keychain: keychain.File(filepath.Join(dir, device+"-keychain")),
			Places:   []store.Place{{Address: "records:", Store: cloud}},
			Progress: func(p satchel.Progress) { log.Printf("%s %d of %d", p.Stage, p.Done, p.Total) },
		}
	}
	keys, err := wallet.New(wallet.Mainnet, 24, "")
	if err != nil {
		return err
	}
	way, _ := slot.NewRecoveryCode()
	b, err := satchel.Create(ctx, config("old"), satchel.Plan{Label: "Host", Keys: keys, Slots: []slot.Secret{way}})
	if err != nil {
		return err
	}
	defer b.Close()

	found, err := satchel.Find(ctx, config("new"))
	if err != nil {
		return err
	}
	opened, err := found[0].Open(ctx, way)
	if err != nil {
		return err
	}
	again, outcome, err := opened.Restore(ctx, config("new"), satchel.RestoreOptions{})
	if err != nil {
		return err
	}
	defer again.Close()
	fmt.Printf("made %s, restored %s, compared: %v\n", keys.Fingerprint(), outcome.Fingerprint, outcome.Compared)
	return nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
