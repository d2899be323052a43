package satchel_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// typed returns words of a wallet by their positions, as a person might write them.
func typed(t *testing.T, b *satchel.Backup, positions ...int) map[int]secret.Bytes {
	t.Helper()
	k, err := b.Keys()
	if err != nil {
		t.Fatal(err)
	}
	words := bytes.Fields(k.Words().Sentence().Open())
	m := map[int]secret.Bytes{}
	for _, p := range positions {
		m[p] = secret.FromString(" " + strings.ToUpper(string(words[p-1])) + "\n")
	}
	return m
}

// Words typed back count only if all are right and there are enough of them, and that
// survives the end of the process.
func TestVerifyWords(t *testing.T) {
	t.Parallel()
	cfg := config(t, &mem.Store{})
	b, _, _ := create(t, cfg)
	wrong := typed(t, b, 1, 5, 9, 12)
	wrong[5] = secret.FromString("zoo zoo")
	for name, words := range map[string]map[int]secret.Bytes{
		"none": nil, "three": typed(t, b, 1, 5, 9), "one wrong": wrong,
		"no such position": {0: secret.FromString("a"), 13: secret.FromString("b"), 14: secret.FromString("c"), -1: secret.FromString("d")},
	} {
		if err := b.VerifyWords(words); !errors.Is(err, satchel.ErrWords) {
			t.Errorf("%s: got %v, want %v", name, err, satchel.ErrWords)
		}
	}
	if !b.Status().WordsWritten.IsZero() {
		t.Error("they count as written down")
	}
	if err := b.VerifyWords(typed(t, b, 2, 3, 7, 11)); err != nil {
		t.Fatal(err)
	}
	save(t, b, item("labels", "1"))
	if _, err := b.Compact(context.Background()); err != nil { // The log is written anew.
		t.Fatal(err)
	}
	b.Close()
	b, err := satchel.Open(cfg)
	if err != nil || b.Status().WordsWritten.IsZero() {
		t.Errorf("after a new start: %v, written %v", err, b.Status().WordsWritten)
	}
	b.Close()
}

// The limit is part of the backup and comes back with it; each step that was taken
// leads to the next.
func TestLimitAndNextStep(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, _, way := create(t, cfg)
	for _, n := range []int64{-1, satchel.MaxLimit + 1} {
		if _, err := b.SetLimit(ctx, n); err == nil {
			t.Errorf("a limit of %d was taken", n)
		}
	}
	if _, err := b.SetLimit(ctx, 0); err != nil {
		t.Error(err)
	}
	if _, err := b.SetLimit(ctx, 1_500_000); err != nil {
		t.Fatal(err)
	}
	if s := b.Status(); s.Limit != 1_500_000 || s.Next != satchel.NextSecondWay {
		t.Errorf("limit %d, next %q", s.Limit, s.Next)
	}
	c := restore(t, newDevice(t, cfg), way)
	if c.Status().Limit != 1_500_000 {
		t.Errorf("restored: limit %d", c.Status().Limit)
	}
	ow, err := c.Unlock(ctx, way)
	if err != nil {
		t.Fatal(err)
	}
	code, _ := slot.NewRecoveryCode()
	if _, err := ow.AddSlot(ctx, code); err != nil {
		t.Fatal(err)
	}
	if n := c.Status().Next; n != satchel.NextWords {
		t.Errorf("next %q", n)
	}
	if err := c.VerifyWords(typed(t, c, 1, 2, 3, 4)); err != nil {
		t.Fatal(err)
	}
	if n := c.Status().Next; n != satchel.NextDropKeys {
		t.Errorf("next %q", n)
	}
	if _, err := c.SetLimit(ctx, 0); err != nil || c.Status().Limit != 0 {
		t.Errorf("taken away: %v, %d", err, c.Status().Limit)
	}
}

// rekey makes new keys for a backup and returns the new one with its way in.
func rekey(t *testing.T, b *satchel.Backup, cfg satchel.Config, way slot.Secret, drop bool) (*satchel.Backup, satchel.Config, slot.Secret) {
	t.Helper()
	ow, err := b.Unlock(context.Background(), way)
	if err != nil {
		t.Fatal(err)
	}
	code, _ := slot.NewRecoveryCode()
	cfg.Dir = filepath.Join(filepath.Dir(cfg.Dir), "rekeyed")
	nb, r, err := ow.Rekey(context.Background(), cfg.Dir, satchel.RekeyPlan{Slots: []slot.Secret{code}, DropKeys: drop})
	if err != nil {
		t.Fatalf("rekey: %v (%+v)", err, r)
	}
	t.Cleanup(func() { nb.Close() })
	if len(r.Left) > 0 || r.Objects == 0 {
		t.Errorf("rekey: %+v", r)
	}
	return nb, cfg, code
}

// A backup with new keys has everything, in every place; of the old one nothing is
// left, and its secret opens nothing.
func TestRekey(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	stores := []*mem.Store{{}, {}, {}}
	cfg := config(t, stores[0], stores[1], stores[2])
	b, _, way := create(t, cfg, item("labels", "1"), item("file/big", strings.Repeat("x", 5000)))
	for i := range 70 {
		save(t, b, item("settings", strings.Repeat("s", i)), satchel.Change{Name: "contacts", Value: []byte{byte(i)}, Required: true})
	}
	want, id := here(t, b), b.Status().ID
	old := cfg.Dir
	nb, cfg, code := rekey(t, b, cfg, way, false)
	if !maps.Equal(here(t, nb), want) || nb.Status().ID == id || !nb.Status().Protected {
		t.Errorf("the new one: %v", short(here(t, nb)))
	}
	if _, err := satchel.Open(satchel.Config{Dir: old, Keychain: cfg.Keychain, Places: cfg.Places}); !errors.Is(err, satchel.ErrNoDevice) {
		t.Errorf("the old directory: got %v, want %v", err, satchel.ErrNoDevice)
	}
	if _, err := b.Save(ctx, item("labels", "2")); err == nil {
		t.Error("the old one still saves")
	}
	for _, st := range stores {
		mustRead(t, want, code, st)
		if _, err := independent(way, st); err == nil {
			t.Error("the old code still opens")
		}
		var left []string
		for name := range objects(t, st, "") {
			if !strings.HasPrefix(name, nb.Status().Folder+"/") {
				left = append(left, name)
			}
		}
		slices.Sort(left)
		if len(left) != 2 || left[0] != b.Status().Folder+"/"+seal.ReadmeName || !strings.HasPrefix(left[1], b.Status().Folder+"/snapshots/999999-") {
			t.Errorf("left behind, beside the end and what tells of it: %v", left)
		}
	}
	save(t, nb, item("labels", "2"))
	if _, err := nb.Check(ctx); err != nil {
		t.Error(err)
	}
	c := restore(t, newDevice(t, cfg), code)
	if !maps.Equal(here(t, c), here(t, nb)) {
		t.Error("restored: other values")
	}
	if it := c.Line("contacts"); !it.Required {
		t.Error("contacts are not required any more")
	}
}

// R19: once the words are written down they can leave the cloud. The device keeps
// them; a new device gets the rest, and the words from the person.
func TestDropKeys(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	st := &mem.Store{}
	cfg := config(t, st)
	b, keys, way := create(t, cfg, item("labels", "1"))
	ow, err := b.Unlock(ctx, way)
	if err != nil {
		t.Fatal(err)
	}
	code, _ := slot.NewRecoveryCode()
	dir := filepath.Join(filepath.Dir(cfg.Dir), "rekeyed")
	if nb, _, err := ow.Rekey(ctx, dir, satchel.RekeyPlan{Slots: []slot.Secret{code}, DropKeys: true}); !errors.Is(err, satchel.ErrNotWritten) || nb != nil {
		t.Fatalf("words that nobody wrote down: got %v, want %v", err, satchel.ErrNotWritten)
	}
	if err := b.VerifyWords(typed(t, b, 12, 1, 6, 8)); err != nil {
		t.Fatal(err)
	}
	nb, cfg, code := rekey(t, b, cfg, way, true)
	if s := nb.Status(); !s.KeysDropped || s.Next != satchel.NextSecondWay || s.WordsWritten.IsZero() || !s.Protected {
		t.Errorf("%+v", s)
	}
	for i := range 2 {
		if k, err := nb.Keys(); err != nil || !k.Equal(keys) {
			t.Errorf("the keys on this device: %v", err)
		}
		if i == 0 { // Also after a checkpoint and a new start.
			if _, err := nb.Compact(ctx); err != nil {
				t.Fatal(err)
			}
			nb.Close()
			if nb, err = satchel.Open(cfg); err != nil {
				t.Fatal(err)
			}
			defer nb.Close()
		}
	}
	for name := range objects(t, st, "") {
		if strings.Contains(name, "/items/keys/") {
			t.Errorf("still there: %s", name)
		}
	}
	save(t, nb, item("labels", "2"))

	// Without the words: the rest comes, and they can be given later.
	c := restore(t, newDevice(t, cfg), code)
	if here(t, c)["labels"] != "2" || !c.Status().KeysDropped || !c.Status().Protected {
		t.Errorf("restored: %v, %+v", short(here(t, c)), c.Status())
	}
	if _, err := c.Keys(); !errors.Is(err, satchel.ErrNoItem) {
		t.Errorf("keys out of nowhere: %v", err)
	}
	if err := c.KeepKeys(newKeys(t)); !errors.Is(err, satchel.ErrWrongWallet) {
		t.Errorf("the words of another wallet: got %v, want %v", err, satchel.ErrWrongWallet)
	}
	if err := c.KeepKeys(keys); err != nil {
		t.Error(err)
	}
	if k, err := c.Keys(); err != nil || !k.Equal(keys) {
		t.Errorf("given later: %v", err)
	}

	// With them.
	o := openOnly(t, code, cfg)
	if !o.Preview().KeysDropped {
		t.Error("the preview does not say that the words are elsewhere")
	}
	other := newDevice(t, cfg)
	if x, _, err := o.Restore(ctx, other, satchel.RestoreOptions{Keys: newKeys(t)}); x != nil || !errors.Is(err, satchel.ErrWrongWallet) {
		t.Errorf("the words of another wallet: got %v, want %v", err, satchel.ErrWrongWallet)
	}
	e, out, err := o.Restore(ctx, other, satchel.RestoreOptions{Keys: keys})
	if err != nil || !out.Compared {
		t.Fatalf("with the words: %v, compared %v", err, out.Compared)
	}
	defer e.Close()
	if k, err := e.Keys(); err != nil || !k.Equal(keys) {
		t.Errorf("with the words: %v", err)
	}
}

// R4: a place that does not take the new backup, or loses it, leaves the old one as it
// was; what was begun is put away by the next try.
func TestRekeyFails(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	good, bad := &mem.Store{}, newBroken()
	cfg := config(t, good, bad)
	b, _, way := create(t, cfg, item("labels", "1"))
	ow, err := b.Unlock(ctx, way)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(filepath.Dir(cfg.Dir), "rekeyed")
	stride, first := sparse(3)
	for i, s := range strikes() {
		if s.once || i%stride != first {
			continue
		}
		if s.fault == storetest.HalfList && stride > 1 {
			continue // The contract forbids it: what comes of it depends on what was struck before.
		}
		code, _ := slot.NewRecoveryCode()
		nb, _, err := ow.Rekey(bad.arm(s), dir, satchel.RekeyPlan{Slots: []slot.Secret{code}})
		hit := bad.hit()
		bad.disarm()
		if err == nil {
			if hit == 0 {
				t.Fatalf("%s: never struck", s)
			}
			t.Logf("%s: it went through", s)
			// Then it is whole.
			mustRead(t, here(t, nb), code, bad.inner)
			ow, err = nb.Unlock(ctx, code)
			if err != nil {
				t.Fatal(err)
			}
			b, way, dir = nb, code, dir+"x"
			continue
		}
		if nb != nil {
			t.Fatalf("%s: half done: %v", s, err)
		}
		save(t, b, item("labels", s.String()))
		mustRead(t, here(t, b), way, good)
		mustRead(t, here(t, b), way, bad.inner)
	}
	// Without a way in only what was begun is finished or put away.
	if nb, _, err := ow.Rekey(ctx, dir, satchel.RekeyPlan{}); nb != nil || err == nil || b.Status().Rekeying != "" {
		t.Errorf("without a way in: %v, still begun in %q", err, b.Status().Rekeying)
	}
	code, _ := slot.NewRecoveryCode()
	want := here(t, b)
	nb, _, err := ow.Rekey(ctx, dir, satchel.RekeyPlan{Slots: []slot.Secret{code}})
	if err != nil {
		t.Fatal(err)
	}
	defer nb.Close()
	for _, st := range []store.Store{good, bad.inner} {
		mustRead(t, want, code, st)
		for name := range objects(t, st, seal.FolderPrefix) {
			// Where a place spoilt the hints they are not known as ours.
			if !strings.HasPrefix(name, nb.Status().Folder+"/") && strings.HasSuffix(name, ".age") && !strings.Contains(name, "/snapshots/999999-") {
				t.Errorf("left behind: %s", name)
			}
		}
	}
}

// A Rekey that made the new backup and could not delete the old one is finished without
// a new way in: the first one counts.
func TestRekeyIsFinished(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	bad := newBroken()
	cfg := config(t, bad)
	b, _, way := create(t, cfg, item("labels", "1"))
	ow, err := b.Unlock(ctx, way)
	if err != nil {
		t.Fatal(err)
	}
	want := here(t, b)
	dir := filepath.Join(filepath.Dir(cfg.Dir), "rekeyed")
	code, _ := slot.NewRecoveryCode()
	nb, _, err := ow.Rekey(bad.arm(strike{op: storetest.Delete, fault: storetest.NotApplied}), dir, satchel.RekeyPlan{Slots: []slot.Secret{code}})
	if nb == nil || err == nil {
		t.Fatalf("deleting fails: %v", err)
	}
	nb.Close()
	bad.disarm()
	if b.Status().Rekeying != dir {
		t.Errorf("begun in %q, want %q", b.Status().Rekeying, dir)
	}
	nb, r, err := ow.Rekey(ctx, dir, satchel.RekeyPlan{})
	if err != nil || nb == nil || r.Objects == 0 {
		t.Fatalf("finishing: %+v, %v", r, err)
	}
	defer nb.Close()
	mustRead(t, want, code, bad.inner)
}
