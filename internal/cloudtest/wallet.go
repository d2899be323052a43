package cloudtest

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
)

// Journey is the life of a wallet in one place, which place returns, anew for each device:
// made, changed, lost, and brought back from this place alone.
func Journey(t *testing.T, place func() store.Store) {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	device := func(name string) satchel.Config {
		return satchel.Config{
			Dir: filepath.Join(dir, name), Keychain: keychain.File(filepath.Join(dir, name+"-keys")), Settle: -1,
			Places: []store.Place{{Address: "test:", Store: place()}},
		}
	}
	words, err := wallet.ParseWords(secret.FromString(strings.Repeat("abandon ", 11) + "about"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := wallet.Import(words, wallet.ImportConfig{Network: wallet.Mainnet})
	if err != nil {
		t.Fatal(err)
	}
	way, _ := slot.NewRecoveryCode()
	b, err := satchel.Create(ctx, device("phone"), satchel.Plan{Label: "Samantha", Keys: keys, Slots: []slot.Secret{way}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	large := []byte(strings.Repeat("{\"label\":\"rent\"}\n", 500))
	for _, change := range []satchel.Change{{Name: "labels", Value: []byte("{\"label\":\"tea\"}\n")}, {Name: "labels", Value: large}} {
		if r, err := b.Save(ctx, change); err != nil || !r.Protected {
			t.Fatalf("got %+v, %v, want protected", r, err)
		}
	}

	found, err := satchel.Find(ctx, device("new"))
	if err != nil || len(found) != 1 {
		t.Fatalf("found %d, %v, want one", len(found), err)
	}
	opened, err := found[0].Open(ctx, way)
	if err != nil {
		t.Fatal(err)
	}
	again, outcome, err := opened.Restore(ctx, device("new"), satchel.RestoreOptions{})
	if err != nil || !outcome.Compared {
		t.Fatalf("restore: %v, compared %v", err, outcome.Compared)
	}
	defer again.Close()
	got, err := again.Get("labels")
	if diff := cmp.Diff(string(large), string(got.Open())); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := again.Check(ctx); err != nil {
		t.Errorf("check: %v", err)
	}
}
