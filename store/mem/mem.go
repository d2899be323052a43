// Package mem is a store in memory, for tests and demonstrations. The zero
// [Store] is empty and ready for use. What it holds is gone with the process.
package mem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/satchel-backup/satchel/store"
)

// Store is a [store.Store] in memory. Like some clouds it can hold several
// objects of one name; only [Store.Add] makes them.
type Store struct {
	mu      sync.Mutex
	objects []object // in the order of their making; guarded by mu
	last    int      // number of the last object made; guarded by mu
}

type object struct {
	id   string
	name string
	data []byte
}

var _ store.Store = (*Store)(nil)

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	if err := errors.Join(ctx.Err(), store.CheckPut(name, data)); err != nil {
		return fmt.Errorf("putting object: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := false
	for _, o := range s.objects {
		if o.name == name {
			if bytes.Equal(o.data, data) {
				return nil
			}
			taken = true
		}
	}
	if taken {
		return fmt.Errorf("putting object: %w", store.ErrExist)
	}
	s.add(name, data)
	return nil
}

// Add stores one more object under name, whatever is there already, as two
// devices can do on clouds where names are not unique. Torn and damaged objects
// for tests are made by Add after Delete.
func (s *Store) Add(name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(name, data)
}

// Clone returns another store with the same objects, so that a test can put a
// place back to an older day.
func (s *Store) Clone() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Store{objects: slices.Clone(s.objects), last: s.last}
}

// add stores a copy of data. The caller holds mu.
func (s *Store) add(name string, data []byte) {
	s.last++
	s.objects = append(s.objects, object{strconv.Itoa(s.last), name, bytes.Clone(data)})
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := store.CheckName(name); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := store.ErrNotExist
	for _, o := range s.objects {
		switch {
		case o.name != name:
		case int64(len(o.data)) > limit:
			err = store.ErrTooLarge
		case want.Matches(o.data):
			return append([]byte{}, o.data...), nil
		case err == store.ErrNotExist:
			err = store.ErrDamaged
		}
	}
	return nil, fmt.Errorf("getting object: %w", err)
}

// List implements [store.Store]. It is never behind, and lists in the order of
// making.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []store.Object
	for _, o := range s.objects {
		if strings.HasPrefix(o.name, prefix) {
			list = append(list, store.Object{Name: o.name, Size: int64(len(o.data)), ID: o.id})
		}
	}
	return list, nil
}

// Delete implements [store.Store]. It goes by the object's ID alone.
func (s *Store) Delete(ctx context.Context, o store.Object) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.objects {
		if s.objects[i].id == o.ID {
			s.objects = append(s.objects[:i], s.objects[i+1:]...)
			return nil
		}
	}
	return nil
}
