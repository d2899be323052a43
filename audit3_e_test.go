package satchel_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// 11. Listing 100,000 objects takes three minutes on a slow line (30 MB of names at the 64
// KiB a second that Satchel itself reckons with take eight). The backup cannot be restored.
func TestAudit3LongListing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		st := &unhurried{Store: &mem.Store{}}
		cfg := config(t, st)
		b, _, way := create(t, cfg, item("labels", "1"))
		b.Close()
		st.list.Store(int64(3 * time.Minute))
		var err error
		var found []satchel.Found
		for range 3 {
			if found, err = satchel.Find(ctx, cfg); err == nil {
				_, err = found[0].Open(ctx, way)
			}
			if err == nil {
				return
			}
		}
		t.Errorf("nobody restores it: %v", err)
	})
}

// sluggish is a store that obeys no context, as a file system, and takes a while to read.
type sluggish struct {
	store.Store
	get atomic.Int64
}

func (s *sluggish) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	time.Sleep(time.Duration(s.get.Load()))
	return s.Store.Get(ctx, name, want, limit)
}

// 12. A check is given up for a change, as the agent does. The drive is slow and well; the
// change is not taken there, and the place called unreachable.
func TestAudit3ChangeAfterCancel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &sluggish{Store: &mem.Store{}}
		b, _, _ := create(t, config(t, st), item("labels", "1"))
		defer b.Close()
		st.get.Store(int64(4 * time.Second))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		b.Check(ctx)
		if r, err := b.Save(context.Background(), item("labels", "2")); err != nil || !r.Protected {
			t.Errorf("%+v, %v", r, err)
		}
		time.Sleep(time.Minute)
	})
}

// byName deletes by name, as a file system does, and may hang before that.
type byName struct {
	store.Store
	t       *testing.T
	hangs   atomic.Bool
	release chan struct{}
}

func (s *byName) Delete(ctx context.Context, o store.Object) error {
	if s.hangs.Load() {
		<-s.release
	}
	replace(s.t, s.Store, o.Name, nil)
	return nil
}

// 13. A deletion that was given up would arrive after the same object was put again, and
// take what is called protected. So it is waited for.
func TestAudit3LateDelete(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		inner := &mem.Store{}
		bad := &storetest.Faulty{Inner: inner}
		st := &byName{Store: bad, t: t, release: make(chan struct{})}
		cfg := config(t, st)
		b, _, way := create(t, cfg, item("labels", "1"))
		bad.Once(storetest.Put, storetest.Torn)
		b.Save(ctx, item("labels", "2"))
		st.hangs.Store(true)
		done := make(chan error)
		go func() { _, err := b.Sync(ctx); done <- err }() // Deletes what is torn.
		time.Sleep(time.Hour)
		select {
		case err := <-done:
			t.Fatalf("it went on without the deletion: %v", err)
		default:
		}
		close(st.release)
		if err := <-done; err != nil {
			t.Error(err)
		}
		b.Close()
		if got, err := independent(way, inner); got["labels"] != "2" {
			t.Errorf("a reader gets %v, %v", short(got), err)
		}
	})
}
