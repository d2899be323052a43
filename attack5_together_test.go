package satchel_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
)

// Several new places at once, while this device's copies of objects are lost: each brings
// them back from the first.
func TestAttack5TogetherWithoutCopies(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	first := &mem.Store{}
	cfg := config(t, first)
	b, _, way := create(t, cfg, item("labels", "1"), item("file/x", "22"))
	defer b.Close()
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "objects", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %q, %v", files, err)
	}
	for _, f := range files {
		remove(t, f)
	}
	places := slices.Clone(cfg.Places)
	var others []*mem.Store
	for _, address := range []string{"mem:a", "mem:b", "mem:c", "mem:d"} {
		s := &mem.Store{}
		others = append(others, s)
		places = append(places, store.Place{Address: address, Store: s})
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		for range 200 {
			b.Status()
		}
	}()
	if r, err := b.SetPlaces(ctx, places, 5); err != nil || !r.Protected {
		t.Fatalf("%+v, %v", r, err)
	}
	<-done
	want := here(t, b)
	for _, s := range others {
		mustRead(t, want, way, s)
	}
}
