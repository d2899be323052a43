package satchel_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// A place that is added receives everything, one that is taken out keeps what it
// has and holds nothing up; both survive a restart.
func TestSetPlaces(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	first, second := &mem.Store{}, &storetest.Faulty{Inner: &mem.Store{}}
	cfg := config(t, first)
	b, _, way := create(t, cfg, item("labels", "1"), item("file/x", "22"))
	save(t, b, item("labels", "2"))

	second.Set(storetest.Any, storetest.Unreachable)
	both := append(slices.Clone(cfg.Places), store.Place{Address: "mem:second", Store: second})
	r, err := b.SetPlaces(ctx, both, 2)
	if !errors.Is(err, satchel.ErrNotProtected) || !errors.Is(err, store.ErrUnreachable) || r.Protected {
		t.Fatalf("got %+v, %v: two copies are asked for and one place is away", r, err)
	}
	second.Set(storetest.Any, "")
	if r, err := b.Sync(ctx); err != nil || !r.Protected {
		t.Fatalf("%+v, %v", r, err)
	}
	mustRead(t, here(t, b), way, second.Inner)
	if info, err := satchel.ReadDevice(cfg.Dir); err != nil || !slices.Equal(info.Places, []string{"mem:0", "mem:second"}) || info.Copies != 2 {
		t.Errorf("recorded %+v, %v", info, err)
	}

	// The first one is taken out: it is neither written nor waited for.
	before := objects(t, first, "")
	if r, err := b.SetPlaces(ctx, both[1:], 1); err != nil || !r.Protected || len(r.Places) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	save(t, b, item("labels", "3"))
	if len(objects(t, first, "")) != len(before) {
		t.Error("a place that was taken out was written")
	}
	b.Close()
	cfg.Places = both[1:]
	if b, err = satchel.Open(cfg); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !b.Status().Protected {
		t.Error("not protected after a restart")
	}

	// Taken in again, it gets what it missed.
	if r, err := b.SetPlaces(ctx, both, 2); err != nil || !r.Protected {
		t.Fatalf("%+v, %v", r, err)
	}
	mustRead(t, here(t, b), way, first)
	for _, bad := range []struct {
		places []store.Place
		copies int
	}{{nil, 1}, {both, 3}, {append(slices.Clone(both), both[0]), 1}} {
		if _, err := b.SetPlaces(ctx, bad.places, bad.copies); err == nil {
			t.Errorf("%d places and %d copies were taken", len(bad.places), bad.copies)
		}
	}
	if len(b.Status().Places) != 2 {
		t.Error("a refused change changed something")
	}
}

// R16, R3: a place in which another device has taken over is not taken in.
func TestSetPlacesOtherDevice(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	here, there := &mem.Store{}, &mem.Store{}
	cfg := config(t, here)
	b, _, way := create(t, cfg)
	for name, data := range objects(t, here, "") {
		there.Add(name, []byte(data))
	}
	other := newDevice(t, cfg)
	other.Places = []store.Place{{Address: "mem:there", Store: there}}
	restore(t, other, way)

	_, err := b.SetPlaces(ctx, append(slices.Clone(cfg.Places), other.Places...), 1)
	isErr(t, err, satchel.ErrOtherDevice, satchel.CodeOtherDevice)
	if st := b.Status(); len(st.Places) != 1 || !st.Protected {
		t.Errorf("%+v", st)
	}
	save(t, b, item("labels", "goes on"))
}
