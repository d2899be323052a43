package satchel_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/store/mem"
)

// A folder with very many small files comes in batches of 64 MB, as source/file makes them.
func TestAudit2ManySmall(t *testing.T) {
	largely(t)
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg)
	var changes []satchel.Change
	for i := range 33_000 {
		changes = append(changes, item(fmt.Sprint("file/wallet/", i), fmt.Sprint(i, strings.Repeat("x", 1990))))
	}
	if r, err := b.Save(context.Background(), changes...); err != nil {
		t.Fatalf("%v, %v", r.Generation, err)
	}
	if d := restore(t, newDevice(t, cfg), way); !maps.Equal(here(t, d), here(t, b)) {
		t.Error("a restore gives something else")
	}
}
