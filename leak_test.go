package satchel_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
	"github.com/satchel-backup/satchel/wallet"
)

// R19: of everything that is sent to a place, written to this device or logged, no
// byte shows the words, the entropy, the seed, the master key, a passphrase, the
// recovery code, labels, item names or the backup key. The one exception is the
// keychain, which is not a file of ours.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	entropy := bytes.Repeat([]byte{0x5c, 0x0f, 0xa1, 0x77}, 4)
	words, err := wallet.WordsFromEntropy(secret.New(entropy), wallet.English)
	if err != nil {
		t.Fatal(err)
	}
	bip39 := secret.FromString("horse of another colour")
	k, err := wallet.Import(words, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: bip39, KeepPassphrase: true})
	if err != nil {
		t.Fatal(err)
	}
	seed, err := k.Seed()
	if err != nil {
		t.Fatal(err)
	}
	private, err := k.PrivateAccount(wallet.BIP84, 0)
	if err != nil {
		t.Fatal(err)
	}
	slotSecret, err := k.SlotSecret()
	if err != nil {
		t.Fatal(err)
	}
	code, printed := slot.NewRecoveryCode()
	wordsWay, err := slot.Words(slotSecret)
	if err != nil {
		t.Fatal(err)
	}

	var log bytes.Buffer
	cloud := &storetest.Faulty{Inner: &mem.Store{}, Record: true}
	cfg := config(t, cloud)
	cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b, err := satchel.Create(ctx, cfg, satchel.Plan{Label: "Samantha", Keys: k, Slots: []slot.Secret{code, wordsWay}})
	if err != nil {
		t.Fatal(err)
	}
	const label, itemName = "for the bicycle of Ann", "contacts/of-ann"
	save(t, b, item("labels", label), item(itemName, strings.Repeat(label, 200)))
	save(t, b, item("labels", label+"!"), satchel.Change{Name: itemName, Remove: true})
	if _, err := b.Drill(ctx, code); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Check(ctx); err != nil {
		t.Fatal(err)
	}
	fresh := newDevice(t, cfg)
	b2 := restore(t, fresh, code)
	save(t, b2, item("labels", label+"?"))

	file := string(keysOf(t, cloud.Inner, code).KeyFile().Open())
	_, backupKey, _ := strings.Cut(file, "satchel-backup-key: ")
	backupKey = backupKey[:64]
	_, identity, _ := strings.Cut(file, "AGE-SECRET-KEY")
	needles := map[string][]byte{
		"words": words.Sentence().Open(), "entropy": entropy, "seed": seed.Open(), "xprv": private.XPrv().Open(),
		"BIP 39 passphrase": bip39.Open(), "recovery code": printed.Open(), "slot secret": slotSecret.Open(),
		"label": []byte(label), "item name": []byte(itemName),
		"backup key": fromHex(backupKey), "payload identity": []byte(identity),
	}
	for _, w := range strings.Fields(string(words.Sentence().Open())) {
		needles["the word in its line "+w] = []byte("words: " + w)
	}
	// Each also as text encodings write it.
	for name, n := range maps.Clone(needles) {
		needles[name+" in hex"] = fmt.Appendf(nil, "%x", n)
		needles[name+" in HEX"] = fmt.Appendf(nil, "%X", n)
		for i := range min(3, len(n)-8) { // base64 at each of its three phases
			text := base64.StdEncoding.EncodeToString(n[i:])
			needles[fmt.Sprintf("%s in base64, phase %d", name, i)] = []byte(text[:len(text)/4*4-4])
		}
	}
	for name, n := range needles {
		if len(n) < 8 {
			t.Fatalf("%s is too short to search for", name)
		}
		if cloud.Leaks(n) {
			t.Errorf("sent to the place: %s", name)
		}
		for _, dir := range []string{cfg.Dir, fresh.Dir} {
			for path, data := range files(t, dir) {
				if strings.Contains(data, string(n)) || strings.Contains(path, string(n)) {
					t.Errorf("on the device, in %s: %s", path, name)
				}
			}
		}
		if bytes.Contains(log.Bytes(), n) {
			t.Errorf("logged: %s", name)
		}
	}
	// The search finds what is there.
	if !cloud.Leaks([]byte("BitcoinWalletBackup-Samantha")) {
		t.Error("the search finds nothing at all")
	}
	if got := hex.EncodeToString(entropy); len(got) != 32 {
		t.Error(got)
	}
	b.Close()
}

// R20: forgetting a wallet on this device asks no place anything, leaves every
// byte there, and takes directory and key away; the backup restores afterwards.
func TestForget(t *testing.T) {
	t.Parallel()
	inner := &mem.Store{}
	cloud := &storetest.Faulty{Inner: inner, Record: true}
	cfg := config(t, cloud)
	keychain := &ring{}
	cfg.Keychain = keychain
	b, k, way := create(t, cfg, item("labels", "l"))
	before, calls := objects(t, inner, ""), len(cloud.Sent())
	ops := 0
	for _, op := range []storetest.Op{storetest.Put, storetest.Get, storetest.List, storetest.Delete} {
		ops += cloud.Count(op)
	}
	if err := b.Forget(); err != nil {
		t.Fatal(err)
	}
	after := 0
	for _, op := range []storetest.Op{storetest.Put, storetest.Get, storetest.List, storetest.Delete} {
		after += cloud.Count(op)
	}
	if after != ops || len(cloud.Sent()) != calls || !maps.Equal(objects(t, inner, ""), before) {
		t.Error("forgetting touched the place")
	}
	if len(files(t, filepath.Dir(cfg.Dir))) != 0 || len(keychain.m) != 0 {
		t.Errorf("left on the device: %d files, %d keys", len(files(t, filepath.Dir(cfg.Dir))), len(keychain.m))
	}
	b2 := restore(t, newDevice(t, cfg), way)
	if got, err := b2.Keys(); err != nil || !got.Equal(k) {
		t.Errorf("the backup does not restore: %v", err)
	}
}
