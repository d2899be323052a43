package satchel_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// deaf is a store whose calls end, while it hangs, for no context.
type deaf struct {
	store.Store
	hangs   atomic.Bool
	release chan struct{}
	calls   atomic.Int64
}

func (d *deaf) wait() {
	d.calls.Add(1)
	if d.hangs.Load() {
		<-d.release
	}
}

func (d *deaf) Put(ctx context.Context, name string, data []byte) error {
	d.wait()
	return d.Store.Put(ctx, name, data)
}

func (d *deaf) List(ctx context.Context, prefix string) ([]store.Object, error) {
	d.wait()
	return d.Store.List(ctx, prefix)
}

// A drive that hangs for no context to end costs one change some minutes, the next ones
// nothing, and gets what it lacks when it is back. The other place has each change.
func TestPlaceThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		slow, good := &deaf{Store: &mem.Store{}, release: make(chan struct{})}, &mem.Store{}
		cfg := config(t, slow, good)
		b, _, way := create(t, cfg, item("labels", "1"))
		defer b.Close()
		slow.hangs.Store(true)
		began := time.Now()
		r, err := b.Save(ctx, item("labels", "2"))
		if err != nil || !r.Protected || r.Places[0].Health != satchel.HealthUnreachable {
			t.Errorf("the first: %+v, %v", r, err)
		}
		if took := time.Since(began); took > 6*time.Minute {
			t.Errorf("the first took %v", took)
		}
		mustRead(t, here(t, b), way, good)
		began = time.Now()
		calls := slow.calls.Load()
		for i := range 3 {
			if r, err := b.Save(ctx, item("labels", "3"+string(rune('a'+i)))); err != nil || !r.Protected {
				t.Errorf("then: %+v, %v", r, err)
			}
		}
		if took := time.Since(began); took > 15*time.Second || slow.calls.Load() != calls {
			t.Errorf("then three took %v, with %d calls", took, slow.calls.Load()-calls)
		}
		slow.hangs.Store(false)
		close(slow.release)
		synctest.Wait()
		if r, err := b.Sync(ctx); err != nil || r.Places[0].Health != satchel.HealthProtected {
			t.Errorf("after: %+v, %v", r, err)
		}
		mustRead(t, here(t, b), way, slow.Store)
	})
}

// A caller that gives up is not kept waiting, and is told so.
func TestGiveUpOnAPlaceThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := &deaf{Store: &mem.Store{}, release: make(chan struct{})}
		b, _, _ := create(t, config(t, slow))
		defer b.Close()
		slow.hangs.Store(true)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := b.Save(ctx, item("labels", "2"))
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, satchel.ErrNotProtected) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
		close(slow.release)
	})
}
