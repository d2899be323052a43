package satcheltest_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/satcheltest"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/storetest"
	"github.com/satchel-backup/satchel/wallet"
)

func TestCloudConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return satcheltest.NewCloud("mem:") })
}

func TestCloud(t *testing.T) {
	ctx := t.Context()
	c := satcheltest.NewCloud("mem:1")
	if p := c.Place(); p.Address != "mem:1" || p.Store != store.Store(c) {
		t.Errorf("got %v", p)
	}
	c.Set(storetest.Put, storetest.Full)
	c.Set(storetest.Any, storetest.Unreachable)
	if err := c.Put(ctx, "a", nil); !errors.Is(err, store.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if _, err := c.List(ctx, ""); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
	c.Mend()
	if err := c.Put(ctx, "a", []byte("bytes")); err != nil {
		t.Error(err)
	}
	if got := c.Objects(); len(got) != 1 || got["a"] != "bytes" {
		t.Errorf("got %v, want the object", got)
	}
	c.Lose()
	if _, err := c.Get(ctx, "a", "", 9); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	if !c.Leaks([]byte("bytes")) {
		t.Error("what was sent is not recorded")
	}
}

func TestKeychain(t *testing.T) {
	var k satcheltest.Keychain
	want := secret.FromString("key")
	if err := k.Set("a", want); err != nil {
		t.Fatal(err)
	}
	if got, err := k.Get("a"); err != nil || !got.Equal(want) {
		t.Errorf("got %v, %v", got, err)
	}
	if err := k.Set("b", secret.Bytes{}); err == nil {
		t.Error("an empty secret was stored")
	}
	k.Lock()
	_, err := k.Get("a")
	for _, err := range []error{err, k.Set("a", want), k.Delete("a")} {
		if !errors.Is(err, keychain.ErrUnavailable) {
			t.Errorf("locked: got %v, want ErrUnavailable", err)
		}
	}
	k.Unlock()
	if _, err := k.Get("a"); err != nil {
		t.Errorf("unlocked: %v", err)
	}
	k.Lose()
	if _, err := k.Get("a"); !errors.Is(err, keychain.ErrNotFound) {
		t.Errorf("lost: got %v, want ErrNotFound", err)
	}
	if err := k.Delete("a"); err != nil {
		t.Errorf("deleting what is gone: %v", err)
	}
}

func TestClock(t *testing.T) {
	var c satcheltest.Clock
	first := c.Now()
	if first.IsZero() || !c.Now().Equal(first) {
		t.Errorf("got %v, then %v", first, c.Now())
	}
	c.Move(-time.Hour)
	if got := c.Now().Sub(first); got != -time.Hour {
		t.Errorf("got %v, want an hour back", got)
	}
	want := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	if c.Set(want); !c.Now().Equal(want) {
		t.Errorf("got %v, want %v", c.Now(), want)
	}
}

// A killed app reaches neither the places nor the disk of the next one, and the
// kit sees what the places hold through every fault.
func TestDevice(t *testing.T) {
	ctx := t.Context()
	clock := new(satcheltest.Clock)
	one, two := satcheltest.NewCloud("mem:1"), satcheltest.NewCloud("mem:2")
	d := satcheltest.NewDevice(t, clock, one, two)
	cfg := d.Config()
	keys, err := wallet.New(wallet.Testnet, 12, "")
	if err != nil {
		t.Fatal(err)
	}
	way, _ := slot.NewRecoveryCode()
	old, err := satchel.Create(ctx, cfg, satchel.Plan{Label: "Kit", Keys: keys, Slots: []slot.Secret{way}})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if got := old.Status().Verified; !got.Equal(clock.Now()) {
		t.Errorf("verified at %v, want %v, the clock's time", got, clock.Now())
	}
	one.Set(storetest.Any, storetest.Unreachable)
	d.Keychain.Lock()
	if err := d.Prove(ctx); err != nil {
		t.Errorf("both clouds hold all: %v", err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(cfg.Dir), "own"), []byte("a file of the app's"), 0o600); err != nil {
		t.Fatal(err)
	}
	one.Mend()
	d.Keychain.Unlock()

	d.Kill()
	d.Kill() // The next app was killed before it did anything.
	calls := one.Count(storetest.Any)
	if _, err := old.Save(ctx, satchel.Change{Name: "labels", Value: []byte("dead")}); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("a killed app saves: got %v, want ErrUnreachable", err)
	}
	if got := one.Count(storetest.Any); got != calls {
		t.Errorf("a killed app reached the cloud %d times", got-calls)
	}
	if got, err := os.ReadFile(filepath.Join(filepath.Dir(d.Config().Dir), "own")); err != nil || string(got) != "a file of the app's" {
		t.Errorf("the app's own file: got %q, %v", got, err)
	}
	b, err := satchel.Open(d.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.Get("labels"); !errors.Is(err, satchel.ErrNoItem) {
		t.Errorf("what a killed app saved is on the disk: %v", err)
	}
	two.Lose()
	if err := d.Prove(ctx); !errors.Is(err, satchel.ErrMissing) {
		t.Errorf("a cloud lost all: got %v, want ErrMissing", err)
	}
	if _, err := b.Save(ctx, satchel.Change{Name: "labels", Value: []byte("alive")}); err != nil {
		t.Errorf("saving: %v", err)
	}
	if err := d.Prove(ctx); err != nil {
		t.Errorf("after a Save that mends: %v", err)
	}
}
