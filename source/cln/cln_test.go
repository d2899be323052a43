package cln_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/source"
	"github.com/satchel-backup/satchel/source/cln"
	"github.com/satchel-backup/satchel/wallet"
)

const words = "legal winner thank year wave sausage worth useful legal winner thank yellow"

func fill(c byte, n int) []byte { return bytes.Repeat([]byte{c}, n) }

// node makes a directory with files in it.
func node(t *testing.T, dir string, files map[string][]byte) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		path := filepath.Join(dir, name)
		os.Remove(path) // As lightningd, which makes another file and renames it.
		if err := os.WriteFile(path, data, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Forms as common/hsm_secret.c of Core Lightning tells them apart.
func TestForms(t *testing.T) {
	for name, test := range map[string]struct {
		value  []byte
		want   cln.Form
		locked bool
	}{
		"32 bytes":            {fill(7, 32), cln.Plain, false},
		"73 bytes":            {fill(7, 73), cln.Encrypted, true},
		"words":               {append(fill(0, 32), words...), cln.Words, false},
		"words and line feed": {append(fill(0, 32), words+"\n"...), cln.Words, false},
		"words, passphrase":   {append(fill(9, 32), words...), cln.LockedWords, true},
		"nothing":             {nil, "", false},
		"31 bytes":            {fill(7, 31), "", false},
		"33 bytes":            {fill(0, 33), "", false},
		"72 bytes":            {fill(0, 72), "", false},
		"zeros alone":         {fill(0, 64), "", false},
		"words alone":         {[]byte(words), "", false},
		"a word less":         {append(fill(0, 32), strings.TrimSuffix(words, " yellow")...), "", false},
		"a word wrong":        {append(fill(0, 32), strings.Replace(words, "wave", "waves", 1)...), "", false},
		"too long":            {append(fill(0, 32), strings.Repeat(words+" ", 20)...), "", false},
	} {
		got, err := cln.FormOf(test.value)
		if got != test.want || (err == nil) != (test.want != "") || err != nil && !errors.Is(err, cln.ErrSecret) || got.Locked() != test.locked {
			t.Errorf("%s: got %q, %v, locked %v; want %q", name, got, err, got.Locked(), test.want)
		}
		if err != nil && strings.Contains(err.Error(), "legal") {
			t.Errorf("%s: the error repeats the words", name)
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	if _, err := cln.Find("", wallet.Mainnet); !errors.Is(err, cln.ErrNotFound) || !strings.Contains(err.Error(), filepath.Join(dir, ".lightning")) {
		t.Errorf("got %v, want ErrNotFound and where was looked", err)
	}
	lightning := filepath.Join(dir, ".lightning")
	bitcoin := node(t, filepath.Join(lightning, "bitcoin"), map[string][]byte{"hsm_secret": fill(1, 32), "lightningd.sqlite3": nil})
	signet := node(t, filepath.Join(lightning, "signet"), map[string][]byte{"hsm_secret": fill(2, 32)})
	testnet := node(t, filepath.Join(lightning, "testnet4"), map[string][]byte{"hsm_secret": fill(3, 32)})
	odd := node(t, filepath.Join(dir, "my node"), map[string][]byte{"hsm_secret": fill(4, 32)})
	empty := node(t, filepath.Join(dir, "empty"), nil)
	only := node(t, filepath.Join(dir, "other", "regtest"), map[string][]byte{"hsm_secret": fill(5, 32)})
	for name, test := range map[string]struct {
		dir     string
		network wallet.Network
		want    string
		err     error
	}{
		"standard":            {"", wallet.Mainnet, bitcoin, nil},
		"signet":              {"", wallet.Signet, signet, nil},
		"testnet4":            {"", wallet.Testnet, testnet, nil},
		"none of the network": {"", wallet.Regtest, "", cln.ErrNetwork},
		"lightning-dir":       {lightning, wallet.Mainnet, bitcoin, nil},
		"its network":         {bitcoin, wallet.Mainnet, bitcoin, nil},
		"another network":     {bitcoin, wallet.Signet, "", cln.ErrNetwork},
		"of one network":      {filepath.Dir(only), wallet.Mainnet, "", cln.ErrNetwork},
		"a name of its own":   {odd, wallet.Signet, odd, nil},
		"the file itself":     {filepath.Join(bitcoin, "hsm_secret"), wallet.Mainnet, bitcoin, nil},
		"the other file":      {filepath.Join(bitcoin, "emergency.recover"), wallet.Mainnet, bitcoin, nil},
		"the database":        {filepath.Join(bitcoin, "lightningd.sqlite3"), wallet.Mainnet, "", cln.ErrDatabase},
		"its log":             {filepath.Join(bitcoin, "lightningd.sqlite3-wal"), wallet.Mainnet, "", cln.ErrDatabase},
		"empty":               {empty, wallet.Mainnet, "", cln.ErrNotFound},
		"not there":           {filepath.Join(dir, "nowhere"), wallet.Mainnet, "", cln.ErrNotFound},
	} {
		n, err := cln.Find(test.dir, test.network)
		if !errors.Is(err, test.err) || (n == nil) != (err != nil) || n != nil && n.Dir != test.want {
			t.Errorf("%s: got %+v, %v; want %s, %v", name, n, err, test.want, test.err)
		}
	}
	for path, want := range map[string]bool{
		lightning: true, bitcoin: true, filepath.Join(bitcoin, "lightningd.sqlite3"): true, filepath.Join(bitcoin, "lightningd.sqlite3-journal"): true,
		signet: false, empty: false, filepath.Join(bitcoin, "hsm_secret"): false,
	} {
		if got := cln.HasDatabase(path); got != want {
			t.Errorf("HasDatabase(%s): got %v, want %v", path, got, want)
		}
	}
	if runtime.GOOS == "windows" || os.Getuid() == 0 {
		return // Modes say nothing there.
	}
	os.Chmod(bitcoin, 0)
	defer os.Chmod(bitcoin, 0o700)
	if _, err := cln.Find("", wallet.Mainnet); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v, want ErrPermission", err)
	}
}

func TestItems(t *testing.T) {
	n := &cln.Node{Dir: filepath.FromSlash("/n/bitcoin")}
	var items []string
	for _, p := range append(n.Paths(), filepath.Join(n.Dir, "lightningd.sqlite3"), filepath.Join(n.Dir, "hsm_secret", "x"), n.Dir) {
		items = append(items, n.Item(p))
	}
	if want := []string{cln.ItemSecret, cln.ItemRecover, "", "", ""}; !slices.Equal(items, want) {
		t.Errorf("got %q, want %q", items, want)
	}
}

// given is a source that hands over what it is given, once, and ends with its context.
type given struct {
	changes []source.Change
	saved   chan error
}

func (g given) Run(ctx context.Context, save func(context.Context, ...source.Change) error) error {
	g.saved <- save(ctx, g.changes...)
	<-ctx.Done()
	return ctx.Err()
}

// Nothing of a node passes while the directory holds the secret of another one, or none:
// one that was set up anew must not take the place of the one that is to be saved.
func TestAnotherNode(t *testing.T) {
	dir := node(t, filepath.Join(t.TempDir(), "bitcoin"), map[string][]byte{"hsm_secret": fill(1, 32), "emergency.recover": fill(9, 500)})
	n := &cln.Node{Dir: dir}
	found, err := n.Secret()
	if err != nil || found.Form != cln.Plain || found.SHA256 != sha256.Sum256(fill(1, 32)) {
		t.Fatalf("got %+v, %v", found, err)
	}
	var saved []source.Change
	save := func(_ context.Context, changes ...source.Change) error {
		saved = append(saved, changes...)
		return nil
	}
	change := source.Change{Name: cln.ItemRecover, Value: fill(9, 500), Required: true}
	run := func() error {
		t.Helper()
		saved = nil
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		g := given{[]source.Change{change}, make(chan error, 1)}
		done := make(chan error)
		go func() { done <- cln.New(n, found.SHA256, g).Run(ctx, save) }()
		if <-g.saved == nil {
			cancel() // It would go on.
		}
		return <-done
	}
	if err := run(); !errors.Is(err, context.Canceled) || len(saved) != 1 {
		t.Errorf("got %v and %d changes, want them to pass", err, len(saved))
	}
	for name, test := range map[string]struct {
		files map[string][]byte
		want  error
	}{
		"another node":  {map[string][]byte{"hsm_secret": fill(2, 32)}, cln.ErrOtherNode},
		"encrypted now": {map[string][]byte{"hsm_secret": fill(1, 73)}, cln.ErrOtherNode},
		"cut short":     {map[string][]byte{"hsm_secret": fill(1, 31)}, cln.ErrOtherNode},
		"very long":     {map[string][]byte{"hsm_secret": fill(1, 5000)}, cln.ErrOtherNode},
		"gone":          {nil, cln.ErrGone},
	} {
		os.Remove(filepath.Join(dir, "hsm_secret"))
		node(t, dir, test.files)
		if err := run(); !errors.Is(err, test.want) || len(saved) != 0 {
			t.Errorf("%s: got %v and %d changes, want %v and none", name, err, len(saved), test.want)
		}
	}
	node(t, dir, map[string][]byte{"hsm_secret": fill(1, 32)})
	if err := run(); !errors.Is(err, context.Canceled) || len(saved) != 1 {
		t.Errorf("back again: got %v and %d changes", err, len(saved))
	}
}

// R21: where lightningd found no emergency.recover it makes one without a channel. The one
// with channels is kept.
func TestEmptyRecover(t *testing.T) {
	n := &cln.Node{Dir: node(t, filepath.Join(t.TempDir(), "bitcoin"), map[string][]byte{"hsm_secret": fill(1, 32)})}
	kept := map[string][]byte{cln.ItemRecover: fill(8, 300)}
	src := cln.New(n, sha256.Sum256(fill(1, 32)), nil)
	src.Kept = func(item string) (secret.Bytes, error) {
		v, ok := kept[item]
		if !ok {
			return secret.Bytes{}, errors.New("no such item")
		}
		return secret.New(v), nil
	}
	save := func(value []byte) (names []string) {
		err := src.Guard(nil, func(_ context.Context, changes ...source.Change) error {
			for _, c := range changes {
				names = append(names, c.Name)
				kept[c.Name] = bytes.Clone(c.Value)
			}
			return nil
		})(t.Context(), source.Change{Name: cln.ItemRecover, Value: value, Required: true})
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	if got := save(fill(7, 400)); !slices.Equal(got, []string{cln.ItemRecover}) {
		t.Errorf("with channels: got %q", got)
	}
	older := cln.OlderItem(cln.ItemRecover, secret.New(fill(7, 400)))
	if got := save(fill(6, 57)); !slices.Equal(got, []string{cln.ItemRecover, older}) || !bytes.Equal(kept[older], fill(7, 400)) {
		t.Errorf("without: got %q", got)
	}
	if got := save(fill(5, 57)); !slices.Equal(got, []string{cln.ItemRecover}) {
		t.Errorf("without once more: got %q", got)
	}
	for _, n := range []int{0, 1, 56} {
		if got := save(fill(4, n)); got != nil || len(kept[cln.ItemRecover]) != 57 {
			t.Errorf("%d bytes: got %q", n, got)
		}
	}
	if !strings.HasPrefix(older, cln.ItemRecover+"/") || len(older) != len(cln.ItemRecover)+9 {
		t.Errorf("got %q", older)
	}
}
