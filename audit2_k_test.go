package satchel_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store/mem"
)

// 11. A device that was offline while another one took over, and made new keys without the
// words, brings the old backup back, words included, and calls it protected.
func TestAudit2OldDeviceUndoesRekey(t *testing.T) {
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, k, way := create(t, cfg, item("labels", "1"))
	d := restore(t, newDevice(t, cfg), way)
	typed := map[int]secret.Bytes{}
	for i, w := range strings.Fields(string(k.Words().Sentence().Open()))[:4] {
		typed[i+1] = secret.New([]byte(w))
	}
	if err := d.VerifyWords(typed); err != nil {
		t.Fatal(err)
	}
	code, _ := slot.NewRecoveryCode()
	nb, _, err := unlock(t, d, way).Rekey(ctx, filepath.Join(filepath.Dir(d.Dir()), "rekeyed"), satchel.RekeyPlan{Slots: []slot.Secret{code}, DropKeys: true})
	if err != nil {
		t.Fatal(err)
	}
	defer nb.Close()
	r, err := b.Sync(ctx) // the older device is online again
	if err == nil && r.Protected {
		got, err := independent(way, st)
		t.Errorf("the old code opens again: %d items, keys among them %v, %v; and the older device calls itself protected", len(got), got["keys"] != "", err)
	}
}
