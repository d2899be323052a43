// Package recordtest holds the tests that every database of a key server must pass, and
// one in memory, with faults, for the tests of the server itself.
package recordtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/satchel-backup/satchel/keyserver"
)

// Memory is a database in memory. It forgets all when the process ends. Its zero value
// is empty.
type Memory struct {
	// Fault, if not nil, is asked before each Put. An error is returned in its place;
	// if done, after the writes were made.
	Fault func(writes []keyserver.Write) (err error, done bool)

	mu      sync.Mutex
	records map[keyserver.ID]keyserver.Entry
}

// Get implements keyserver.Records.
func (m *Memory) Get(ctx context.Context, id keyserver.ID) (keyserver.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.records[id]
	if !ok {
		return e, keyserver.ErrNoRecord
	}
	e.Data = bytes.Clone(e.Data)
	return e, ctx.Err()
}

// Put implements keyserver.Records.
func (m *Memory) Put(ctx context.Context, writes ...keyserver.Write) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, w := range writes {
		if m.records[w.ID].Version != w.Version {
			return keyserver.ErrStale
		}
	}
	var fault error
	if m.Fault != nil {
		var done bool
		if fault, done = m.Fault(writes); fault != nil && !done {
			return fault
		}
	}
	if m.records == nil {
		m.records = map[keyserver.ID]keyserver.Entry{}
	}
	for _, w := range writes {
		if w.Data == nil {
			delete(m.records, w.ID)
		} else {
			m.records[w.ID] = keyserver.Entry{ID: w.ID, Version: w.Version + 1, Data: bytes.Clone(w.Data)}
		}
	}
	return fault
}

// Scan implements keyserver.Records.
func (m *Memory) Scan(ctx context.Context, after keyserver.ID, limit int) ([]keyserver.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []keyserver.Entry
	for _, e := range m.records {
		if bytes.Compare(e.ID[:], after[:]) > 0 {
			e.Data = bytes.Clone(e.Data)
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b keyserver.Entry) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return list[:min(limit, len(list))], ctx.Err()
}

// Close implements keyserver.Records.
func (m *Memory) Close() error { return nil }

// Snapshot returns a copy of all records, and Restore puts one back.
func (m *Memory) Snapshot() map[keyserver.ID]keyserver.Entry {
	list, _ := m.Scan(context.Background(), keyserver.ID{}, 1<<30)
	out := map[keyserver.ID]keyserver.Entry{}
	for _, e := range list {
		out[e.ID] = e
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.records[keyserver.ID{}]; ok {
		out[e.ID] = e
	}
	return out
}

// Restore replaces all records.
func (m *Memory) Restore(records map[keyserver.ID]keyserver.Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records = map[keyserver.ID]keyserver.Entry{}
	for id, e := range records {
		m.records[id] = e
	}
}

func id(n int) keyserver.ID { return keyserver.ID{byte(n >> 8), byte(n), 1} }

// Test runs the tests on databases that open returns. Each must be empty. open is called
// with the same name to open one again.
func Test(t *testing.T, open func(t *testing.T, name string) keyserver.Records) {
	ctx := context.Background()
	get := func(t *testing.T, r keyserver.Records, id keyserver.ID, version uint64, data string) {
		t.Helper()
		e, err := r.Get(ctx, id)
		if version == 0 {
			if !errors.Is(err, keyserver.ErrNoRecord) {
				t.Errorf("got version %d, %v, want no record", e.Version, err)
			}
			return
		}
		if err != nil || e.ID != id || e.Version != version || string(e.Data) != data {
			t.Errorf("got version %d, %q, %v, want version %d, %q", e.Version, e.Data, err, version, data)
		}
	}
	put := func(t *testing.T, r keyserver.Records, want error, writes ...keyserver.Write) {
		t.Helper()
		if err := r.Put(ctx, writes...); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("got %v, want %v", err, want)
		}
	}

	t.Run("versions", func(t *testing.T) {
		r := open(t, "versions")
		a := id(1)
		get(t, r, a, 0, "")
		put(t, r, nil, keyserver.Write{ID: a, Data: []byte("one")})
		get(t, r, a, 1, "one")
		put(t, r, keyserver.ErrStale, keyserver.Write{ID: a, Data: []byte("two")})
		put(t, r, keyserver.ErrStale, keyserver.Write{ID: a, Version: 2, Data: []byte("two")})
		get(t, r, a, 1, "one")
		put(t, r, nil, keyserver.Write{ID: a, Version: 1, Data: []byte("two\x00\xff")})
		get(t, r, a, 2, "two\x00\xff")
		put(t, r, keyserver.ErrStale, keyserver.Write{ID: a, Version: 1})
		put(t, r, keyserver.ErrStale, keyserver.Write{ID: id(2), Version: 1, Data: []byte("x")})
		put(t, r, keyserver.ErrStale, keyserver.Write{ID: id(2), Version: 1})
		get(t, r, id(2), 0, "")
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r = open(t, "versions")
		get(t, r, a, 2, "two\x00\xff")
		put(t, r, nil, keyserver.Write{ID: a, Version: 2})
		get(t, r, a, 0, "")
		put(t, r, nil, keyserver.Write{ID: a, Data: []byte("again")})
		get(t, r, a, 1, "again")
	})

	t.Run("all or none", func(t *testing.T) {
		r := open(t, "all")
		put(t, r, nil, keyserver.Write{ID: id(1), Data: []byte("a")}, keyserver.Write{ID: id(2), Data: []byte("b")})
		for _, bad := range [][]keyserver.Write{
			{{ID: id(1), Version: 1, Data: []byte("A")}, {ID: id(2), Version: 2, Data: []byte("B")}},
			{{ID: id(1), Version: 1, Data: []byte("A")}, {ID: id(2), Data: []byte("B")}},
			{{ID: id(3), Data: []byte("C")}, {ID: id(2), Version: 2}},
			{{ID: id(1), Version: 1}, {ID: id(3), Version: 1}},
		} {
			put(t, r, keyserver.ErrStale, bad...)
			get(t, r, id(1), 1, "a")
			get(t, r, id(2), 1, "b")
			get(t, r, id(3), 0, "")
		}
		put(t, r, nil, keyserver.Write{ID: id(1), Version: 1, Data: []byte("A")}, keyserver.Write{ID: id(2), Version: 1}, keyserver.Write{ID: id(3), Data: []byte("C")})
		get(t, r, id(1), 2, "A")
		get(t, r, id(2), 0, "")
		get(t, r, id(3), 1, "C")
	})

	t.Run("scan", func(t *testing.T) {
		r := open(t, "scan")
		for i := range 25 {
			put(t, r, nil, keyserver.Write{ID: id(25 - i), Data: fmt.Append(nil, 25-i)})
		}
		var got []string
		for after := (keyserver.ID{}); ; {
			list, err := r.Scan(ctx, after, 10)
			if err != nil || len(list) > 10 {
				t.Fatal(len(list), err)
			}
			if len(list) == 0 {
				break
			}
			for _, e := range list {
				got = append(got, string(e.Data))
			}
			after = list[len(list)-1].ID
		}
		var want []string
		for i := range 25 {
			want = append(want, fmt.Sprint(i+1))
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})

	// Of many writers that read the same version one wins each time.
	t.Run("one winner", func(t *testing.T) {
		r := open(t, "winner")
		a := id(7)
		put(t, r, nil, keyserver.Write{ID: a, Data: []byte{0}})
		const writers, rounds = 16, 20
		var mu sync.Mutex
		won := map[uint64]int{}
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for range rounds {
					e, err := r.Get(ctx, a)
					if err != nil {
						t.Error(err)
						return
					}
					err = r.Put(ctx, keyserver.Write{ID: a, Version: e.Version, Data: []byte{e.Data[0] + 1}})
					if err == nil {
						mu.Lock()
						won[e.Version]++
						mu.Unlock()
					} else if !errors.Is(err, keyserver.ErrStale) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		e, err := r.Get(ctx, a)
		if err != nil || int(e.Version) != len(won)+1 || int(e.Data[0]) != len(won)%256 {
			t.Errorf("version %d, value %d after %d wins, %v", e.Version, e.Data[0], len(won), err)
		}
		for v, n := range won {
			if n != 1 {
				t.Errorf("version %d was replaced %d times", v, n)
			}
		}
	})

	t.Run("canceled", func(t *testing.T) {
		r := open(t, "canceled")
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if err := r.Put(ended, keyserver.Write{ID: id(1), Data: []byte("x")}); err == nil {
			get(t, r, id(1), 1, "x") // It may have been in time.
		}
		if _, err := r.Get(ended, id(9)); cmp.Or(err, keyserver.ErrNoRecord) == nil {
			t.Error("got a record")
		}
	})
}
