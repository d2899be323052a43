package satchel_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/sqlite"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/wallet"
)

// frozenDir holds a whole backup as the first version that was frozen wrote it, its
// secrets, and the databases of its key servers. Its README.md says more.
const frozenDir = "testdata/frozen/v1"

// frozen is what every failure of these tests says.
const frozen = "FORMAT AND PROTOCOL VERSION 1 ARE FROZEN: people have backups like this one, and it must open for ever. Mend the code, never " + frozenDir

var freeze = flag.Bool("freeze", false, "make "+frozenDir+", where there is none")

// frozenSecrets is secrets.json.
type frozenSecrets struct {
	Made       time.Time `json:"made"`
	Code       string    `json:"recovery_code"`
	Passphrase string    `json:"passphrase"`
	Words      string    `json:"words"`
	PIN        string    `json:"pin"`
	OldPIN     string    `json:"old_pin"` // that was changed
	Servers    []string  `json:"key_servers"`
	Masters    []string  `json:"master_keys"`

	Ended frozenEnd `json:"ended"`
}

// frozenEnd is the backup that ended when it got new keys.
type frozenEnd struct {
	ID     string `json:"backup_id"`
	Key    string `json:"backup_key"`
	Folder string `json:"folder"`
	Path   string `json:"path"` // of its end
}

// frozenWant is want.json: what must come out.
type frozenWant struct {
	Fingerprint string                       `json:"fingerprint"`
	Addresses   []string                     `json:"addresses"`
	Label       string                       `json:"label"`
	Required    []string                     `json:"required"`
	Snapshot    string                       `json:"snapshot"` // the newest
	Past        []string                     `json:"past"`     // of its history
	Items       map[string][]byte            `json:"items"`    // of the newest
	History     map[string]map[string]string `json:"history"`  // SHA-256 of all items at each snapshot
}

// frozenServers are the key servers, with their databases in a folder.
type frozenServers struct {
	names   []string
	servers map[string]*keyserver.Server
	dbs     []*sqlite.DB
	now     time.Time
	down    string // the name of one that is away
}

func openFrozenServers(t *testing.T, dir string, s *frozenSecrets, now time.Time) *frozenServers {
	t.Helper()
	f := &frozenServers{names: s.Servers, servers: map[string]*keyserver.Server{}, now: now}
	for i, name := range s.Servers {
		db, err := sqlite.Open(t.Context(), filepath.Join(dir, fmt.Sprint(i+1, ".db")))
		if err != nil {
			t.Fatalf("%v\n%s", err, frozen)
		}
		t.Cleanup(func() { db.Close() })
		m, err := keyserver.NewMaster(secret.New(fromHex(s.Masters[i])))
		if err != nil {
			t.Fatal(err)
		}
		if f.servers[name], err = keyserver.New(t.Context(), keyserver.Config{Records: db, Master: m, Now: func() time.Time { return f.now }}); err != nil {
			t.Fatalf("key server %d: %v\n%s", i+1, err, frozen)
		}
		f.dbs = append(f.dbs, db)
	}
	return f
}

// Send implements guard.Transport.
func (f *frozenServers) Send(ctx context.Context, server string, request []byte) ([]byte, error) {
	s := f.servers[server]
	if s == nil || server == f.down {
		return nil, guard.ErrUnreachable
	}
	return s.Answer(ctx, request, ""), nil
}

func (f *frozenServers) client() *guard.Client {
	return &guard.Client{Transport: f, Trusted: func(name string) bool { return f.servers[name] != nil }, Now: func() time.Time { return f.now }}
}

// frozenPlace copies what is kept into a folder of its own, and returns the configuration
// of a new device with it, and the key servers.
func frozenPlace(t *testing.T, s *frozenSecrets) (satchel.Config, *frozenServers) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(frozenDir)); err != nil {
		t.Fatal(err)
	}
	servers := openFrozenServers(t, filepath.Join(dir, "keyservers"), s, s.Made.Add(24*time.Hour))
	return frozenConfig(t, filepath.Join(dir, "cloud"), servers), servers
}

func frozenConfig(t *testing.T, cloud string, servers *frozenServers) satchel.Config {
	t.Helper()
	place, err := folder.New(cloud, folder.Config{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return newDevice(t, satchel.Config{
		Places: []store.Place{{Address: "folder:" + cloud, Store: place}}, Guardians: servers.client(), Settle: -1,
		Now: func() time.Time { return servers.now }, Software: "satchel/1-frozen",
	})
}

func readJSON(t *testing.T, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(frozenDir, name))
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, frozen)
	}
}

// sums is the list of SHA-256 of all files below the frozen directory, but for the list
// itself, as sha256sum writes it.
func sums(t *testing.T) string {
	t.Helper()
	var lines []string
	for path, data := range files(t, frozenDir) {
		rel, err := filepath.Rel(frozenDir, path)
		if err != nil {
			t.Fatal(err)
		}
		if rel = filepath.ToSlash(rel); rel != "SHA256SUMS" {
			lines = append(lines, fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(data)), rel))
		}
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[64:], b[64:]) })
	return strings.Join(lines, "")
}

// The files are those that were frozen, every byte of them.
func TestFrozenFiles(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile(filepath.Join(frozenDir, "SHA256SUMS"))
	if err != nil {
		t.Fatalf("%v\n%s", err, frozen)
	}
	if d := cmp.Diff(string(want), sums(t)); d != "" {
		t.Errorf("%s\n%s", d, frozen)
	}
}

func frozenWays(t *testing.T, s *frozenSecrets) map[string]slot.Secret {
	t.Helper()
	code, err := slot.RecoveryCode(secret.FromString(s.Code))
	if err != nil {
		t.Fatalf("%v\n%s", err, frozen)
	}
	passphrase, err := slot.Passphrase(secret.FromString(s.Passphrase))
	if err != nil {
		t.Fatalf("%v\n%s", err, frozen)
	}
	words, err := slot.Words(wordsSecret(t, s.Words))
	if err != nil {
		t.Fatalf("%v\n%s", err, frozen)
	}
	return map[string]slot.Secret{"recovery code": code, "passphrase": passphrase, "words": words}
}

func wordsSecret(t *testing.T, sentence string) secret.Bytes {
	t.Helper()
	words, err := wallet.ParseWords(secret.FromString(sentence))
	if err != nil {
		t.Fatalf("%v\n%s", err, frozen)
	}
	k, err := wallet.Import(words, wallet.ImportConfig{Network: wallet.Mainnet})
	if err != nil {
		t.Fatalf("%v\n%s", err, frozen)
	}
	s, err := k.SlotSecret()
	if err != nil {
		t.Fatalf("%v\n%s", err, frozen)
	}
	return s
}

// findFrozen returns the one backup that did not end.
func findFrozen(t *testing.T, cfg satchel.Config, ended string) *satchel.Found {
	t.Helper()
	found, err := satchel.Find(context.Background(), cfg)
	if err != nil {
		t.Fatalf("%v\n%s", err, frozen)
	}
	for i := range found {
		if found[i].Folder != ended {
			return &found[i]
		}
	}
	t.Fatalf("found %d backups\n%s", len(found), frozen)
	return nil
}

// compareFrozen compares all that an opened backup says with what must come out; the
// history only if it is asked for: it is the same whatever opened the backup.
func compareFrozen(t *testing.T, o *satchel.Opened, want *frozenWant, history bool) {
	t.Helper()
	ctx := context.Background()
	p := o.Preview()
	if p.Problem != nil || len(p.Warnings) > 0 {
		t.Errorf("problem %v, warnings %q\n%s", p.Problem, p.Warnings, frozen)
	}
	got := frozenWant{Fingerprint: p.Fingerprint, Addresses: p.Addresses, Label: p.Label, Snapshot: p.Snapshot, Past: want.Past, Items: map[string][]byte{}, History: want.History}
	for _, it := range p.Items {
		v, err := o.Value(ctx, it.Name)
		if err != nil {
			t.Errorf("%v\n%s", err, frozen)
		}
		if got.Items[it.Name] = v.Open(); it.Required {
			got.Required = append(got.Required, it.Name)
		}
	}
	slices.Sort(got.Required)
	var moments []satchel.Moment
	if history {
		var err error
		if moments, err = o.History(ctx, 1000); err != nil {
			t.Fatalf("%v\n%s", err, frozen)
		}
		got.History = map[string]map[string]string{}
	}
	for _, m := range moments {
		if m.Err != nil || !m.Read || m.Branch {
			t.Errorf("snapshot %s: read %v, branch %v, %v\n%s", m.Snapshot, m.Read, m.Branch, m.Err, frozen)
		}
		got.History[m.Snapshot] = hashesAt(t, o, m.Snapshot)
	}
	if d := cmp.Diff(*want, got); d != "" {
		t.Errorf("%s\n%s", d, frozen)
	}
}

func hashesAt(t *testing.T, o *satchel.Opened, snapshot string) map[string]string {
	t.Helper()
	then, err := o.At(context.Background(), snapshot)
	if err != nil {
		t.Fatalf("%v\n%s", err, frozen)
	}
	all := map[string]string{}
	for _, it := range then.Preview().Items {
		v, err := then.Value(context.Background(), it.Name)
		if err != nil {
			t.Errorf("%s at %s: %v\n%s", it.Name, snapshot, err, frozen)
		}
		all[it.Name] = fmt.Sprintf("%x", sha256.Sum256(v.Open()))
	}
	return all
}

// R11: a backup of version 1 opens with each of its ways in, at every state that it was
// in, is restored, and goes on.
func TestFrozen(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var s frozenSecrets
	var want frozenWant
	readJSON(t, "secrets.json", &s)
	readJSON(t, "want.json", &want)
	for name, way := range frozenWays(t, &s) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, _ := frozenPlace(t, &s)
			o, err := findFrozen(t, cfg, s.Ended.Folder).Open(ctx, way)
			if err != nil {
				t.Fatalf("%v\n%s", err, frozen)
			}
			compareFrozen(t, o, &want, name == "recovery code")
			goOnFrozen(t, cfg, o, &want)
		})
	}
	t.Run("PIN", func(t *testing.T) {
		t.Parallel()
		cfg, servers := frozenPlace(t, &s)
		found := findFrozen(t, cfg, s.Ended.Folder)
		servers.down = servers.names[0]
		slots, err := found.PINSlots(ctx)
		if err != nil || len(slots) != 1 {
			t.Fatalf("%d PIN slots, %v\n%s", len(slots), err, frozen)
		}
		newest, err := seal.ParseSnapshotName(want.Snapshot)
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range slots[0].Standing[1:] {
			if h := st.Head; h.Epoch != newest.Epoch || h.Generation != newest.Generation || hex.EncodeToString(h.Snapshot[:]) != string(newest.Hash) {
				t.Errorf("%s keeps the head %+v, want %s\n%s", st.Server, h, newest, frozen)
			}
		}
		_, _, err = found.OpenPIN(ctx, slots[0], pin(s.OldPIN), secret.Bytes{})
		isErr(t, err, guard.ErrWrongPIN, satchel.CodeWrongSecret)
		o, told, err := found.OpenPIN(ctx, slots[0], pin(s.PIN), secret.Bytes{})
		if err != nil || len(told) != 3 || told[1].Wrong != 1 {
			t.Fatalf("%+v, %v\n%s", told, err, frozen)
		}
		compareFrozen(t, o, &want, false)
		servers.down = ""
		b := goOnFrozen(t, cfg, o, &want)
		// The key servers' records go on, too.
		way := frozenWays(t, &s)["recovery code"]
		if _, err := unlock(t, b, way).SetPIN(ctx, satchel.PINPlan{PIN: pin("865303"), Servers: s.Servers, Threshold: 3}); err != nil {
			t.Errorf("changing the PIN: %v\n%s", err, frozen)
		}
	})
	t.Run("format", func(t *testing.T) {
		t.Parallel()
		// By the document alone, without the engine.
		st := frozenStore(t, s.Ended.Folder)
		values, err := independent(frozenWays(t, &s)["recovery code"], st)
		if err != nil {
			t.Fatalf("%v\n%s", err, frozen)
		}
		items := map[string]string{}
		for name, v := range want.Items {
			items[name] = string(v)
		}
		if d := cmp.Diff(items, values); d != "" {
			t.Errorf("%s\n%s", d, frozen)
		}
		keys := keysOf(t, st, frozenWays(t, &s)["recovery code"])
		if past := pastLines(t, keys, st, want.Snapshot); !slices.Equal(past, want.Past) {
			t.Errorf("got the past %q, want %q\n%s", past, want.Past, frozen)
		}
	})
	t.Run("ended", func(t *testing.T) {
		t.Parallel()
		keys, err := seal.DeriveKeys(seal.BackupID(fromHex(s.Ended.ID)), secret.New(fromHex(s.Ended.Key)))
		if err != nil {
			t.Fatalf("%v\n%s", err, frozen)
		}
		data, err := os.ReadFile(filepath.Join(frozenDir, "cloud", s.Ended.Folder, s.Ended.Path))
		if err != nil {
			t.Fatalf("%v\n%s", err, frozen)
		}
		n, ok := seal.ParseSnapshotPath(s.Ended.Path)
		if !ok || n.Epoch != seal.MaxEpoch {
			t.Fatalf("%s is no end\n%s", s.Ended.Path, frozen)
		}
		if _, err := keys.OpenSnapshot(n, data); err != nil {
			t.Errorf("%v\n%s", err, frozen)
		}
	})
}

// goOnFrozen restores an opened backup to a device, and saves there.
func goOnFrozen(t *testing.T, cfg satchel.Config, o *satchel.Opened, want *frozenWant) *satchel.Backup {
	t.Helper()
	b, out, err := o.Restore(context.Background(), cfg, satchel.RestoreOptions{})
	if err != nil || !out.Protected || !out.Compared || out.Fingerprint != want.Fingerprint {
		t.Fatalf("%+v, %v\n%s", out, err, frozen)
	}
	t.Cleanup(func() { b.Close() })
	items := map[string][]byte{}
	for name, v := range here(t, b) {
		items[name] = []byte(v)
	}
	if d := cmp.Diff(want.Items, items); d != "" {
		t.Errorf("%s\n%s", d, frozen)
	}
	save(t, b, item("labels", "later"))
	if _, err := b.Check(context.Background()); err != nil {
		t.Errorf("%v\n%s", err, frozen)
	}
	return b
}

// pastLines returns the past lines of the checkpoint that a snapshot goes back to.
func pastLines(t *testing.T, keys *seal.Keys, st *mem.Store, snapshot string) (past []string) {
	t.Helper()
	n, err := seal.ParseSnapshotName(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	for {
		var snap *seal.Snapshot
		for name, data := range objects(t, st, "") {
			if strings.HasSuffix(name, "/"+n.Path()) {
				if snap, err = keys.OpenSnapshot(n, []byte(data)); err != nil {
					t.Fatalf("%v\n%s", err, frozen)
				}
			}
		}
		if snap == nil {
			t.Fatalf("%s is missing\n%s", n.Path(), frozen)
		}
		if snap.Kind == seal.Checkpoint {
			for _, p := range snap.Past {
				past = append(past, p.String())
			}
			return past
		}
		n = snap.Parent
	}
}

// TestFreeze made testdata/frozen/v1, once:
//
//	go test -run TestFreeze -freeze .
//
// It is kept to say how, and for the next version. It does not run where the directory
// is.
func TestFreeze(t *testing.T) {
	if !*freeze {
		t.Skip("without -freeze")
	}
	if _, err := os.Stat(frozenDir); err == nil {
		t.Fatalf("%s is there. %s", frozenDir, frozen)
	}
	ctx := context.Background()
	cloud, keys := filepath.Join(frozenDir, "cloud"), filepath.Join(frozenDir, "keyservers")
	for _, dir := range []string{cloud, keys} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := frozenSecrets{
		Made:       time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC),
		Passphrase: "Vierzehn Ka\u0308hne & 3 Ochsen am Kai", PIN: "402917", OldPIN: "865303",
		Servers: []string{"https://guard1.example", "https://guard2.example:8443/Keys", "https://guard3.example"},
	}
	for range s.Servers {
		s.Masters = append(s.Masters, hex.EncodeToString(secret.Random(keyserver.MasterSize).Open()))
	}
	servers := openFrozenServers(t, keys, &s, s.Made)
	later := func() { servers.now = servers.now.Add(time.Minute) }

	// A wallet with a backup that gets new keys, so that the old one ends.
	k, err := wallet.New(wallet.Mainnet, 12, "2026-11-26")
	if err != nil {
		t.Fatal(err)
	}
	s.Words = string(k.Words().Sentence().Open())
	cfg := frozenConfig(t, cloud, servers)
	first, _ := slot.NewRecoveryCode()
	b, err := satchel.Create(ctx, cfg, satchel.Plan{Label: "Frozen", Keys: k, Slots: []slot.Secret{first}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	save(t, b, item("labels", "before"))
	old := keysOf(t, cfg.Places[0].Store, first)
	_, backupKey, _ := strings.Cut(string(old.KeyFile().Open()), "satchel-backup-key: ")
	s.Ended = frozenEnd{ID: old.ID().String(), Key: backupKey[:64], Folder: b.Status().Folder}
	later()
	_, code := slot.NewRecoveryCode()
	s.Code = string(code.Open())
	ways := frozenWays(t, &s)
	b, _, err = unlock(t, b, first).Rekey(ctx, filepath.Join(filepath.Dir(cfg.Dir), "second"), satchel.RekeyPlan{Slots: []slot.Secret{ways["recovery code"], ways["passphrase"], ways["words"]}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ends, _ := filepath.Glob(filepath.Join(cloud, s.Ended.Folder, "snapshots", "*"))
	if len(ends) != 1 {
		t.Fatalf("the old backup left %q", ends)
	}
	s.Ended.Path = "snapshots/" + filepath.Base(ends[0])

	// Small values and large ones, changed and removed, required and not.
	random := rand.NewChaCha8([32]byte{1})
	value := func(n int) []byte { v := make([]byte, n); random.Read(v); return v }
	for i, changes := range [][]satchel.Change{
		{item("labels", "{}\n"), {Name: "lightning/scb", Value: value(300), Required: true}},
		{{Name: "file/large.bin", Value: value(5_001)}, item("contacts/ann", "Ann")},
		{item("contacts/bob", "Bob"), item("settings", "")},
		{{Name: "lightning/scb", Value: value(450), Required: true}},
		{item("contacts/zo\u00eb", "Zo\u00eb"), {Name: "contacts/bob", Remove: true}},
	} {
		later()
		save(t, b, changes...)
		if i == 3 {
			if c, err := b.Compact(ctx); err != nil || c.Packs == 0 {
				t.Fatalf("%+v, %v", c, err)
			}
		}
	}
	// A PIN, and another one in its place.
	for _, typed := range []string{s.OldPIN, s.PIN} {
		later()
		if _, err := unlock(t, b, ways["recovery code"]).SetPIN(ctx, satchel.PINPlan{PIN: pin(typed), Servers: s.Servers, Threshold: 2}); err != nil {
			t.Fatal(err)
		}
	}
	// Two more devices take over, the last with the PIN.
	for i := range 2 {
		later()
		next := frozenConfig(t, cloud, servers)
		found := findFrozen(t, next, s.Ended.Folder)
		var o *satchel.Opened
		if i == 0 {
			o, err = found.Open(ctx, ways["passphrase"])
		} else {
			var slots []satchel.PINSlot
			if slots, err = found.PINSlots(ctx); err == nil {
				o, _, err = found.OpenPIN(ctx, slots[0], pin(s.PIN), secret.Bytes{})
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if b, _, err = o.Restore(ctx, next, satchel.RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		later()
		save(t, b, item("labels", strings.Repeat(fmt.Sprintf("device %d\n", i+2), 300)))
		later()
		save(t, b, item("settings", fmt.Sprintf(`{"device":%d}`, i+2)), satchel.Change{Name: "lightning/scb", Value: value(600), Required: true})
	}
	if _, err := b.Check(ctx); err != nil {
		t.Fatal(err)
	}
	for _, db := range servers.dbs {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}

	// What must come out, as it went in.
	o, err := findFrozen(t, newDevice(t, cfg), s.Ended.Folder).Open(ctx, ways["recovery code"])
	if err != nil {
		t.Fatal(err)
	}
	p := o.Preview()
	want := frozenWant{Fingerprint: k.Fingerprint(), Addresses: p.Addresses, Label: "Frozen", Snapshot: p.Snapshot, Items: map[string][]byte{}, History: map[string]map[string]string{}}
	for name, v := range here(t, b) {
		want.Items[name] = []byte(v)
	}
	for _, it := range b.Items() {
		if it.Required {
			want.Required = append(want.Required, it.Name)
		}
	}
	slices.Sort(want.Required)
	moments, err := o.History(ctx, 1000)
	if err != nil {
		t.Fatal(err)
	}
	epochs, checkpoints := map[uint64]bool{}, 0
	for _, m := range moments {
		want.History[m.Snapshot] = hashesAt(t, o, m.Snapshot)
		epochs[m.Epoch] = true
		if m.Whole {
			checkpoints++
		}
	}
	st := frozenStore(t, s.Ended.Folder)
	want.Past = pastLines(t, keysOf(t, st, ways["recovery code"]), st, want.Snapshot)
	if len(want.Past) < 2 || len(epochs) != 3 || checkpoints < 4 {
		t.Fatalf("not all is in it: %d past lines, epochs %v, %d checkpoints", len(want.Past), slices.Sorted(maps.Keys(epochs)), checkpoints)
	}
	for name, v := range map[string]any{"secrets.json": s, "want.json": want} {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", " ")
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(frozenDir, name), b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf(frozenReadme, s.Code, s.Passphrase, s.Words, s.PIN)
	if err := os.WriteFile(filepath.Join(frozenDir, "README.md"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(frozenDir, "SHA256SUMS"), []byte(sums(t)), 0o644); err != nil {
		t.Fatal(err)
	}
}

const frozenReadme = `# A backup of version 1, frozen

A whole backup, as the first frozen version of Satchel wrote it, and the databases of its three key servers. It must open for ever, with each of its ways in and at every state that it was in: ` + "`go test -run TestFrozen .`" + `
**Nothing here is ever changed**, made anew or removed; SHA256SUMS has every file. The next version of the format gets a directory of its own beside this one. How it was made stands in TestFreeze of frozen_test.go.

The wallet has never held money, and its secrets are public:

| way in | secret |
|---|---|
| recovery code | ` + "`%s`" + ` |
| passphrase | ` + "`%s`" + ` (as typed, not in NFC) |
| words | ` + "`%s`" + ` |
| PIN, at 2 of 3 key servers | ` + "`%s`" + ` |

| | |
|---|---|
| cloud/ | the place. Of its two folders one is the backup: three devices and epochs, past lines, checkpoints and deltas, packs, values that are inline, in older snapshots and in objects, changed, removed, required; a PIN that was changed once. The other is what stays of a backup that ended by getting new keys |
| keyservers/ | the SQLite databases of the key servers; their names, master keys and clock are in secrets.json |
| secrets.json | the secrets for programs, with the PIN that was changed, and the backup key of the one that ended |
| want.json | what must come out: every item byte by byte (base64), and the SHA-256 of every item at every snapshot |
`

// frozenStore returns a place with the backup that did not end.
func frozenStore(t *testing.T, ended string) *mem.Store {
	t.Helper()
	st, cloud := &mem.Store{}, filepath.Join(frozenDir, "cloud")
	for path, data := range files(t, cloud) {
		rel, err := filepath.Rel(cloud, path)
		if err != nil {
			t.Fatal(err)
		}
		if rel = filepath.ToSlash(rel); strings.HasPrefix(rel, seal.FolderPrefix) && !strings.HasPrefix(rel, ended+"/") {
			st.Add(rel, []byte(data))
		}
	}
	return st
}
