package satchel_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
	"github.com/satchel-backup/satchel/wallet"
)

// frozenKindsDir holds backups of the kinds of keys that are no BIP 39 words, as the first
// version that had them wrote them. Its README.md says more.
const frozenKindsDir = "testdata/frozen/kinds"

// frozenKind is a backup of want.json: its way in, and what must come out.
type frozenKind struct {
	Folder      string         `json:"folder"`
	Code        string         `json:"recovery_code"`
	Kind        wallet.Kind    `json:"kind"`
	Network     wallet.Network `json:"network"`
	Fingerprint string         `json:"fingerprint"`
	Made        string         `json:"made"`
	Secret      string         `json:"secret"` // words or key
	State       string         `json:"passphrase_state"`
	Passphrase  string         `json:"passphrase"`
	SCBs        []string       `json:"scbs"` // all versions, the newest first
}

func frozenKindsSums(t *testing.T) string {
	t.Helper()
	var lines []string
	for path, data := range files(t, frozenKindsDir) {
		if rel, err := filepath.Rel(frozenKindsDir, path); err != nil {
			t.Fatal(err)
		} else if rel != "SHA256SUMS" {
			lines = append(lines, fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(data)), filepath.ToSlash(rel)))
		}
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[64:], b[64:]) })
	return strings.Join(lines, "")
}

func readFrozenKinds(t *testing.T) (want []frozenKind) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(frozenKindsDir, "want.json"))
	if err == nil {
		err = json.Unmarshal(b, &want)
	}
	if err != nil || len(want) == 0 {
		t.Fatalf("%d backups, %v\n%s", len(want), err, frozen)
	}
	return want
}

// Every backup of these opens, restores and compares for ever.
func TestFrozenKinds(t *testing.T) {
	t.Parallel()
	sums, err := os.ReadFile(filepath.Join(frozenKindsDir, "SHA256SUMS"))
	if err != nil {
		t.Fatalf("%v\n%s", err, frozen)
	}
	if d := cmp.Diff(string(sums), frozenKindsSums(t)); d != "" {
		t.Fatalf("%s\n%s", d, frozen)
	}
	cloud := t.TempDir()
	if err := os.CopyFS(cloud, os.DirFS(filepath.Join(frozenKindsDir, "cloud"))); err != nil {
		t.Fatal(err)
	}
	st, err := folder.New(cloud, folder.Config{})
	if err != nil {
		t.Fatal(err)
	}
	place := store.Place{Address: "folder:frozen", Store: st}
	found, err := satchel.Find(t.Context(), satchel.Config{Places: []store.Place{place}, Settle: -1})
	if err != nil {
		t.Fatalf("%v\n%s", err, frozen)
	}
	for _, want := range readFrozenKinds(t) {
		i := slices.IndexFunc(found, func(f satchel.Found) bool { return f.Folder == want.Folder })
		if i < 0 {
			t.Errorf("%s: not found\n%s", want.Folder, frozen)
			continue
		}
		way, err := slot.RecoveryCode(secret.FromString(want.Code))
		if err != nil {
			t.Fatal(err)
		}
		o, err := found[i].Open(t.Context(), way)
		if err != nil {
			t.Errorf("%s: %v\n%s", want.Folder, err, frozen)
			continue
		}
		if p := o.Preview(); p.Problem != nil || p.Kind != want.Kind || p.Fingerprint != want.Fingerprint || p.Network != want.Network {
			t.Errorf("%s: %s, %q, %s, %v\n%s", want.Folder, p.Kind, p.Fingerprint, p.Network, p.Problem, frozen)
		}
		versions, err := o.Versions(t.Context(), scb)
		if err != nil {
			t.Errorf("%s: %v\n%s", want.Folder, err, frozen)
		}
		var scbs []string
		for _, v := range versions {
			scbs = append(scbs, string(v.Value.Open()))
		}
		if !slices.Equal(scbs, want.SCBs) {
			t.Errorf("%s: versions %q, want %q\n%s", want.Folder, scbs, want.SCBs, frozen)
		}
		cfg := config(t, place.Store)
		b, out, err := o.Restore(t.Context(), cfg, satchel.RestoreOptions{})
		if err != nil {
			t.Errorf("%s: %v\n%s", want.Folder, err, frozen)
			continue
		}
		k, err := b.Keys()
		b.Close()
		if err != nil || !out.Compared || string(k.Written().Open()) != want.Secret || k.Made() != want.Made ||
			string(k.PassphraseState()) != want.State || string(k.Passphrase().Open()) != want.Passphrase {
			t.Errorf("%s: restored %s, %s, compared %v, %v, or other keys\n%s", want.Folder, k.Made(), k.PassphraseState(), out.Compared, err, frozen)
		}
	}
}

// TestFreezeKinds made the backups, once:
//
//	go test -run TestFreezeKinds -freeze .
func TestFreezeKinds(t *testing.T) {
	if !*freeze {
		t.Skip("without -freeze")
	}
	if _, err := os.Stat(frozenKindsDir); err == nil {
		t.Fatalf("%s is there. %s", frozenKindsDir, frozen)
	}
	cloud := filepath.Join(frozenKindsDir, "cloud")
	if err := os.MkdirAll(cloud, 0o755); err != nil {
		t.Fatal(err)
	}
	var all []frozenKind
	for label, k := range map[string]wallet.Keys{
		"Aezeed": nodeKeys(t, nodeWords, wallet.ImportConfig{Network: wallet.Mainnet, Made: "2026-11-26"}),
		"Kept":   nodeKeys(t, lockedWords, wallet.ImportConfig{Network: wallet.Signet, Passphrase: secret.FromString(lockedPassphrase), KeepPassphrase: true}),
		"Needed": nodeKeys(t, lockedWords, wallet.ImportConfig{Network: wallet.Mainnet, Made: "2018-03-23", Passphrase: secret.FromString(lockedPassphrase)}),
		"XPrv":   masterKeys(t),
	} {
		st, err := folder.New(cloud, folder.Config{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		cfg := config(t, st)
		way, code := slot.NewRecoveryCode()
		b, err := satchel.Create(t.Context(), cfg, satchel.Plan{Label: label, Keys: k, Slots: []slot.Secret{way}, Items: []satchel.Change{item(scb, "one")}})
		if err != nil {
			t.Fatal(err)
		}
		two, three := strings.Repeat("two ", 1000), "three"
		save(t, b, item(scb, two))
		save(t, b, item(scb, three))
		w := frozenKind{Folder: b.Status().Folder, Code: string(code.Open()), Kind: k.Kind(), Network: k.Network(), Fingerprint: k.Fingerprint(), Made: k.Made(),
			Secret: string(k.Written().Open()), State: string(k.PassphraseState()), SCBs: []string{three, two, "one"}}
		if k.PassphraseState() == wallet.KeptPassphrase {
			w.Passphrase = string(k.Passphrase().Open())
		}
		all = append(all, w)
		b.Close()
	}
	slices.SortFunc(all, func(a, b frozenKind) int { return strings.Compare(a.Folder, b.Folder) })
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	readme := `# Backups of other kinds of keys, frozen

Four backups, as the first version of Satchel wrote them that knew the keys of an lnd node: its 24 words (aezeed), without a passphrase, with one that is kept, and with one that is not; and an extended master key. They must open for ever: ` + "`go test -run TestFrozenKinds .`" + `
**Nothing here is ever changed**, made anew or removed; SHA256SUMS has every file. The words are those of lnd's own tests, the key is that of the words abandon … about: never send money there. How it was made stands in TestFreezeKinds of frozen_kinds_test.go.

want.json has the way into each, and what must come out.
`
	write(t, filepath.Join(frozenKindsDir, "want.json"), append(text, '\n'))
	write(t, filepath.Join(frozenKindsDir, "README.md"), []byte(readme))
	write(t, filepath.Join(frozenKindsDir, "SHA256SUMS"), []byte(frozenKindsSums(t)))
}
