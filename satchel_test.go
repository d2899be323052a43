package satchel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/wallet"
)

// ring is a keychain in memory.
type ring struct {
	mu sync.Mutex
	m  map[string]secret.Bytes
}

func (r *ring) Get(name string) (secret.Bytes, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.m[name]; ok {
		return s, nil
	}
	return secret.Bytes{}, errors.New("no such secret")
}

func (r *ring) Set(name string, s secret.Bytes) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		r.m = map[string]secret.Bytes{}
	}
	r.m[name] = secret.New(s.Open())
	return nil
}

func (r *ring) Delete(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m, name)
	return nil
}

// config returns a Config for a new device with these stores.
func config(t *testing.T, stores ...store.Store) satchel.Config {
	t.Helper()
	cfg := satchel.Config{Dir: filepath.Join(t.TempDir(), "wallet"), Keychain: &ring{}, Settle: -1, Now: func() time.Time { return time.Unix(1_790_000_000, 0) }}
	for i, s := range stores {
		cfg.Places = append(cfg.Places, store.Place{Address: fmt.Sprintf("mem:%d", i), Store: s})
	}
	return cfg
}

func newKeys(t *testing.T) wallet.Keys {
	t.Helper()
	k, err := wallet.New(wallet.Mainnet, 12, "2026-11-23")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func create(t *testing.T, cfg satchel.Config, items ...satchel.Change) (*satchel.Backup, wallet.Keys, slot.Secret) {
	t.Helper()
	k := newKeys(t)
	way, _ := slot.NewRecoveryCode()
	b, err := satchel.Create(context.Background(), cfg, satchel.Plan{Label: "Samantha", Keys: k, Slots: []slot.Secret{way}, Items: items})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, k, way
}

func openOnly(t *testing.T, way slot.Secret, cfg satchel.Config) *satchel.Opened {
	t.Helper()
	found, err := satchel.Find(context.Background(), cfg)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %d, %v", len(found), err)
	}
	o, err := found[0].Open(context.Background(), way)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestJourney(t *testing.T) {
	ctx := context.Background()
	cloud := &mem.Store{}
	cfg := config(t, cloud)
	b, k, way := create(t, cfg)
	if st := b.Status(); !st.Protected || st.Generation != 1 || st.Fingerprint != k.Fingerprint() {
		t.Fatalf("%+v", st)
	}
	big := bytes.Repeat([]byte("x"), 100_000)
	r, err := b.Save(ctx, satchel.Change{Name: "labels", Value: []byte("{}\n"), Required: true}, satchel.Change{Name: "file/big", Value: big})
	if err != nil || r.Changed != 2 || !r.Protected {
		t.Fatalf("%+v %v", r, err)
	}
	for i := range 200 {
		if _, err := b.Save(ctx, satchel.Change{Name: "settings", Value: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := b.Save(ctx, satchel.Change{Name: "settings", Value: []byte("199")}); err != nil || r.Changed != 0 || r.Generation != 202 {
		t.Fatalf("%+v %v", r, err)
	}
	if rep, err := b.Check(ctx); err != nil || rep.Objects < 5 {
		t.Fatalf("%+v %v", rep, err)
	}
	if rep, err := b.Drill(ctx, way); err != nil || rep.Objects != 5 {
		t.Fatalf("%+v %v", rep, err)
	}
	b.Close()
	if b, err = satchel.Open(cfg); err != nil {
		t.Fatal(err)
	}
	if v, err := b.Get("settings"); err != nil || string(v.Open()) != "199" {
		t.Fatalf("%v", err)
	}

	cfg2 := config(t, cloud)
	o := openOnly(t, way, cfg2)
	p := o.Preview()
	if p.Problem != nil || len(p.Warnings) != 0 || p.Fingerprint != k.Fingerprint() || p.Generation != 202 {
		t.Fatalf("%+v", p)
	}
	b2, out, err := o.Restore(ctx, cfg2, satchel.RestoreOptions{})
	if err != nil || !out.Compared || !out.Protected {
		t.Fatalf("%+v %v", out, err)
	}
	defer b2.Close()
	if v, err := b2.Get("file/big"); err != nil || !bytes.Equal(v.Open(), big) {
		t.Fatal(err)
	}
	k2, err := b2.Keys()
	if err != nil || !k2.Equal(k) {
		t.Fatal(err)
	}
	if _, err := b2.Save(ctx, satchel.Change{Name: "labels", Value: []byte("new")}); err != nil {
		t.Fatal(err)
	}
	// The older device finds out and stops (R16).
	if _, err := b.Save(ctx, satchel.Change{Name: "labels", Value: []byte("old")}); !errors.Is(err, satchel.ErrOtherDevice) {
		t.Fatalf("got %v, want ErrOtherDevice", err)
	}
	if rep, err := b2.Check(ctx); err != nil {
		t.Fatalf("%+v %v", rep, err)
	}
	if rep, err := b2.Drill(ctx, way); err != nil {
		t.Fatalf("%+v %v", rep, err)
	}
	ow, err := b2.Unlock(ctx, way)
	if err != nil {
		t.Fatal(err)
	}
	code2, _ := slot.NewRecoveryCode()
	if _, err := ow.AddSlot(ctx, code2); err != nil {
		t.Fatal(err)
	}
	if err := ow.RemoveSlot(ctx, ow.Slot().ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b2.Unlock(ctx, way); !errors.Is(err, slot.ErrWrongSecret) {
		t.Fatalf("got %v", err)
	}
	if ow, err = b2.Unlock(ctx, code2); err != nil {
		t.Fatal(err)
	}
	if err := ow.RemoveSlot(ctx, ow.Slot().ID); !errors.Is(err, satchel.ErrLastSlot) {
		t.Fatalf("got %v", err)
	}
	del, err := ow.Delete(ctx)
	if err != nil || len(del.Left) != 0 {
		t.Fatalf("%+v %v", del, err)
	}
	if list, _ := cloud.List(ctx, ""); len(list) != 0 {
		t.Fatalf("left: %v", list)
	}
	if err := b2.Forget(); err != nil {
		t.Fatal(err)
	}
	if _, err := satchel.Find(ctx, cfg2); !errors.Is(err, satchel.ErrNoBackup) {
		t.Fatalf("got %v", err)
	}
}
