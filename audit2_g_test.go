package satchel_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store/storetest"
)

// 7. A Rekey that goes on with what was begun leaves out the slots and DropKeys that it is
// given, and says nothing: the new code opens nothing, and the words stay in the cloud.
func TestAudit2ResumeIgnoresPlan(t *testing.T) {
	ctx := context.Background()
	bad := newBroken()
	cfg := config(t, bad)
	b, k, way := create(t, cfg, item("labels", "1"))
	dir := filepath.Join(filepath.Dir(cfg.Dir), "rekeyed")
	typed := map[int]secretBytes{}
	for i, w := range strings.Fields(string(k.Words().Sentence().Open()))[:4] {
		typed[i+1] = newSecret(w)
	}
	if err := b.VerifyWords(typed); err != nil {
		t.Fatal(err)
	}
	ow := unlock(t, b, way)
	code1, _ := slot.NewRecoveryCode()
	nb, _, err := ow.Rekey(bad.arm(strike{op: storetest.Delete, fault: storetest.NotApplied}), dir, satchel.RekeyPlan{Slots: []slot.Secret{code1}})
	if nb == nil || err == nil {
		t.Fatal(err)
	}
	nb.Close()
	bad.disarm()
	code2, _ := slot.NewRecoveryCode()
	nb, r, err := ow.Rekey(ctx, dir, satchel.RekeyPlan{Slots: []slot.Secret{code2}, DropKeys: true})
	if nb != nil {
		defer nb.Close()
	}
	t.Logf("%v, %+v, %v", nb != nil, r, err)
	if err != nil {
		return
	}
	if _, err := independent(code2, bad.inner); err != nil {
		t.Errorf("Rekey says it is done, and the code that it was given opens nothing: %v", err)
	}
	if !nb.Status().KeysDropped {
		t.Error("Rekey says it is done, and the words are still in the cloud")
	}
}

type secretBytes = secret.Bytes

func newSecret(s string) secret.Bytes { return secret.New([]byte(s)) }
