package satchel_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// unhurried is a store that obeys every context, and whose calls take a while; forever if
// that is negative.
type unhurried struct {
	store.Store
	list, get atomic.Int64 // time.Duration
	put       func(bytes int) time.Duration
}

func takes(ctx context.Context, d time.Duration) error {
	var after <-chan time.Time
	if d >= 0 {
		after = time.After(d)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-after:
		return nil
	}
}

func (u *unhurried) List(ctx context.Context, prefix string) ([]store.Object, error) {
	if err := takes(ctx, time.Duration(u.list.Load())); err != nil {
		return nil, err
	}
	return u.Store.List(ctx, prefix)
}

func (u *unhurried) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	if err := takes(ctx, time.Duration(u.get.Load())); err != nil {
		return nil, err
	}
	return u.Store.Get(ctx, name, want, limit)
}

func (u *unhurried) Put(ctx context.Context, name string, data []byte) error {
	if u.put != nil {
		if err := takes(ctx, u.put(len(data))); err != nil {
			return err
		}
	}
	return u.Store.Put(ctx, name, data)
}

// 6. A place takes 15 seconds to list, which is well. Once it hung. From then on it is
// given 10 seconds, and is never reached again.
func TestAudit3SlowPlaceStarves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		st := &unhurried{Store: &mem.Store{}}
		st.list.Store(int64(15 * time.Second))
		b, _, _ := create(t, config(t, st), item("labels", "1"))
		defer b.Close()
		save(t, b, item("labels", "2"))
		st.list.Store(-1)
		b.Save(ctx, item("labels", "3"))
		st.list.Store(int64(15 * time.Second))
		var r satchel.Result
		var err error
		for range 20 {
			time.Sleep(time.Hour)
			if r, err = b.Sync(ctx); err == nil {
				return
			}
		}
		t.Errorf("20 hours later: %+v, %v", r, err)
	})
}

// 7. A place lists and does not take uploads: they hang. Each change waits two minutes for
// it before it goes to the good place.
func TestAudit3UploadHangsEachTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		bad, good := &unhurried{Store: &mem.Store{}}, &mem.Store{}
		b, _, _ := create(t, config(t, bad, good), item("labels", "1"))
		defer b.Close()
		bad.put = func(int) time.Duration { return -1 }
		b.Save(ctx, item("labels", "2"))
		for i := range 3 {
			began := time.Now()
			if _, err := b.Save(ctx, item("labels", "3"+string(rune('a'+i)))); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("change %d took %v", i, took)
			}
		}
	})
}

// 8. A line of 32 KiB a second, and a file of 12 MiB.
func TestAudit3SlowLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		st := &unhurried{Store: &mem.Store{}}
		b, _, _ := create(t, config(t, st), item("labels", "1"))
		defer b.Close()
		st.put = func(bytes int) time.Duration { return time.Duration(bytes) * time.Second / (32 << 10) }
		_, err := b.Save(ctx, item("file/wallet.dat", strings.Repeat("x", 12<<20)))
		for range 10 {
			if err == nil {
				return
			}
			time.Sleep(time.Hour)
			_, err = b.Sync(ctx)
		}
		t.Errorf("it never arrives: %v", err)
	})
}

// 9. A place was emptied and does not answer Get. An operation of ten minutes, as the
// agent's are, does not get to the good place, ever.
func TestAudit3GetHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bad, good := &unhurried{Store: &mem.Store{}}, &mem.Store{}
		b, _, _ := create(t, config(t, bad, good), item("labels", "1"))
		defer b.Close()
		for name := range objects(t, bad.Store, "") {
			replace(t, bad.Store, name, nil)
		}
		bad.get.Store(-1)
		for i := range 3 {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			began := time.Now()
			r, err := b.Save(ctx, item("labels", "3"+string(rune('a'+i))))
			cancel()
			t.Logf("change %d took %v", i, time.Since(began))
			if i > 0 && (err != nil || !r.Protected) {
				t.Errorf("change %d: %+v, %v", i, r, err)
			}
		}
	})
}
