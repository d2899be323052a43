package satchel_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard/guardtest"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/wallet"
)

// R19: of all that leaves on the way of a wallet with a PIN, addresses, headers and
// bodies, nothing shows the words, the keys, the PIN, the ways in, or what is in the items
// or what they are called. A sign-in stands in the header that is made for it and nowhere
// else.
func TestCloudsSeeNothing(t *testing.T) {
	t.Parallel()
	for name, newSite := range sites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { seesNothing(t, newSite(t)) })
		})
	}
}

func seesNothing(t *testing.T, s *site) {
	ctx := context.Background()
	s.record = &bytes.Buffer{}
	entropy := secret.Random(16).Open()
	words, err := wallet.WordsFromEntropy(secret.New(entropy), wallet.English)
	if err != nil {
		t.Fatal(err)
	}
	const bip39 = "Ein Kranich im Moor"
	k, err := wallet.Import(words, wallet.ImportConfig{Network: wallet.Mainnet, Passphrase: secret.FromString(bip39)})
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
	account, err := k.Account(wallet.BIP84, 0)
	if err != nil {
		t.Fatal(err)
	}
	const label, entry, phrase = "for the bicycle of Ann", "contacts/of-ann-and-bob", "Vierzehn Kähne am Kai 1917"
	pins := []string{"4 Kraniche 1917", "402917 Reiher"}
	servers := guardtest.New(t, 3)
	var tokens []string
	s.in.Given(func(token string) { tokens = append(tokens, token) })
	cfg := config(t, s.store(t))
	cfg.Guardians = servers.Client()
	code, printed := slot.NewRecoveryCode()
	b, err := satchel.Create(ctx, cfg, satchel.Plan{
		Label: "Samantha", Keys: k, Slots: []slot.Secret{code},
		PIN: &satchel.PINPlan{PIN: pin(pins[0]), Passphrase: pin(phrase), Servers: servers.Names, Threshold: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	save(t, b, item("labels", label), item(entry, strings.Repeat(label, 500)), item("file/large", strings.Repeat(label, 1<<13)))
	if s.cloud != nil {
		s.cloud.Expire()
	}
	save(t, b, item("labels", label+"!"))
	if _, err := b.Check(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := unlock(t, b, code).SetPIN(ctx, satchel.PINPlan{PIN: pin(pins[1]), Servers: servers.Names, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Prune(ctx, 1); err != nil {
		t.Fatal(err)
	}
	cfg2 := newDevice(t, cfg)
	cfg2.Places = []store.Place{{Address: "mem:0", Store: s.store(t)}}
	o, _, err := openPIN(t, cfg2, pins[1], "")
	if err != nil {
		t.Fatal(err)
	}
	b2, _, err := o.Restore(ctx, cfg2, satchel.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer b2.Close()
	time.Sleep(time.Minute)
	save(t, b2, item("labels", label+"?"))

	file := string(keysOf(t, s.fresh(t), code).KeyFile().Open())
	_, backupKey, _ := strings.Cut(file, "satchel-backup-key: ")
	_, identity, _ := strings.Cut(file, "AGE-SECRET-KEY")
	needles := map[string][]byte{
		"words": words.Sentence().Open(), "entropy": entropy, "seed": seed.Open(), "xprv": private.XPrv().Open(), "xpub": []byte(account.XPub()),
		"BIP 39 passphrase": []byte(bip39), "label": []byte(label), "item name": []byte(entry), "item's last name": []byte("of-ann-and-bob"),
		"first PIN": []byte(pins[0]), "second PIN": []byte(pins[1]), "passphrase": []byte(phrase),
		"recovery code": printed.Open(), "RECOVERY CODE": bytes.ToUpper(printed.Open()), "recovery code without hyphens": bytes.ReplaceAll(printed.Open(), []byte("-"), nil),
		"backup key": fromHex(backupKey[:64]), "payload identity": []byte(identity),
	}
	// Three words in a row are as good as all.
	for three := range slices.Chunk(strings.Fields(string(words.Sentence().Open())), 3) {
		needles["the words "+three[0]] = []byte(strings.Join(three, " "))
	}
	if s.cloud == nil {
		needles["password"] = []byte(map[string]string{"webdav": davPassword, "s3": s3Secret}[s.name])
	}
	sent := s.record.Bytes()
	// A token, or user and password, stand in one header.
	signIns := tokens
	if s.name == "webdav" {
		signIns = append(signIns, base64.StdEncoding.EncodeToString([]byte(davUser+":"+davPassword)))
	}
	used := 0
	for _, token := range signIns {
		for _, scheme := range []string{"Bearer ", "Basic "} {
			header := []byte("\nAuthorization: " + scheme + token + "\r\n")
			used += bytes.Count(sent, header)
			sent = bytes.ReplaceAll(sent, header, []byte("\n"))
		}
		needles["token "+token[:4]] = []byte(token)
	}
	if len(signIns) > 0 && used < 10 || s.cloud != nil && len(signIns) < 2 {
		t.Errorf("%d sign-ins were used %d times", len(signIns), used)
	}
	for name, n := range written(t, needles) {
		if i := bytes.Index(sent, n); i >= 0 {
			t.Errorf("%s was sent: %q", name, sent[max(0, i-80):min(len(sent), i+len(n)+20)])
		}
		if bytes.Index(fmt.Appendf(nil, "\x00%s\x00", n), n) != 1 {
			t.Errorf("the search does not find %s", name)
		}
	}
	// What may be seen is found: the search looks at addresses, or at what stands for them,
	// and at bodies.
	for what, n := range map[string]string{"the folder": "BitcoinWalletBackup-Samantha", "a body": "age-encryption.org/v1", "the public hint": `{"satchel-backup":1`} {
		if !bytes.Contains(sent, []byte(n)) {
			t.Errorf("the search does not find %s", what)
		}
	}
}
