package cloudtest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
)

// journey makes a wallet, changes it while every fifth request meets a fault, loses the
// device, and has the wallet back from the cloud alone. What was called protected is
// what comes back, and nothing is there twice. R1, R2, R7.
func journey(t *testing.T, open Open) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) { travel(t, open, seed) })
	}
}

func travel(t *testing.T, open Open, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	cloud := fakecloud.New()
	cloud.RetryAfter, cloud.PageSize, cloud.PartUnit = 1, 7, Part
	ann := cloud.AddAccount("1001", "ann@example.org")
	place := func() store.Store { return open(t, cloud, NewSignIn(cloud, ann), ann) }
	ctx, dir := t.Context(), t.TempDir()
	device := func(name string) satchel.Config {
		return satchel.Config{
			Dir: filepath.Join(dir, name), Keychain: keychain.File(filepath.Join(dir, name+"-keys")), Settle: -1,
			Places: []store.Place{{Address: "cloud:test", Store: place()}},
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
	b, err := satchel.Create(ctx, device("phone"), satchel.Plan{Label: "Zoë's 100%", Keys: keys, Slots: []slot.Secret{way}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()

	opened := func(name string) *satchel.Opened {
		t.Helper()
		found, err := satchel.Find(ctx, device(name))
		if err != nil || len(found) != 1 {
			t.Fatalf("seed %d: found %d, %v, want one", seed, len(found), err)
		}
		o, err := found[0].Open(ctx, way)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		return o
	}
	faults := Faults()
	var mu sync.Mutex // Some stores make requests at once.
	strike := func(string, *http.Request) fakecloud.Fault {
		mu.Lock()
		defer mu.Unlock()
		if random.IntN(5) > 0 {
			return fakecloud.None
		}
		return faults[random.IntN(len(faults))]
	}
	protected := 0
	value := ""
	for i := range 12 {
		value = fmt.Sprintf("{\"label\":\"change %d\"}\n", i)
		if i%3 == 1 {
			value += strings.Repeat("{\"label\":\"rent\"}\n", 300) // An object of its own.
		}
		cloud.Fault = strike
		r, err := b.Save(ctx, satchel.Change{Name: "labels", Value: []byte(value)})
		cloud.Fault = nil
		if err != nil || !r.Protected {
			continue
		}
		protected++
		got, err := opened(fmt.Sprint("looking", i)).Value(ctx, "labels")
		if err != nil || string(got.Open()) != value {
			t.Errorf("seed %d: change %d was protected, and then it is %.40q, %v", seed, i, got.Open(), err)
		}
	}
	if protected == 0 {
		t.Errorf("seed %d: nothing was ever protected", seed)
	}
	value = "{\"label\":\"last\"}\n"
	if r, err := b.Save(ctx, satchel.Change{Name: "labels", Value: []byte(value)}); err != nil || !r.Protected {
		t.Fatalf("seed %d: without faults: %+v, %v", seed, r, err)
	}
	list, err := place().List(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, o := range list {
		if seen[o.Name]++; seen[o.Name] > 1 {
			t.Errorf("seed %d: an object is there twice: %s", seed, o.Name)
		}
	}
	again, outcome, err := opened("new").Restore(ctx, device("new"), satchel.RestoreOptions{})
	if err != nil || !outcome.Compared {
		t.Fatalf("seed %d: restore: %v, compared %v", seed, err, outcome.Compared)
	}
	defer again.Close()
	got, err := again.Get("labels")
	if diff := cmp.Diff(value, string(got.Open())); err != nil || diff != "" {
		t.Errorf("seed %d: %v (-want +got):\n%s", seed, err, diff)
	}
	if _, err := again.Check(ctx); err != nil {
		t.Errorf("seed %d: check: %v", seed, err)
	}
}
