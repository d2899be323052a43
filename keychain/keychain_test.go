package keychain_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
)

// realEnv is set where a real keychain of the system is to be tested.
const realEnv = "SATCHEL_TEST_KEYCHAIN"

func TestMain(m *testing.M) {
	if os.Getenv(realEnv) == "" {
		keyring.MockInit()
		os.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent") // The mock asks nobody.
	}
	os.Exit(m.Run())
}

// contract is what every keychain does.
func contract(t *testing.T, k keychain.Keychain) {
	one, two := secret.Random(32), secret.Random(32)
	want := func(name string, want secret.Bytes) {
		t.Helper()
		if got, err := k.Get(name); err != nil || !got.Equal(want) {
			t.Errorf("Get: %v, the same: %v", err, got.Equal(want))
		}
	}
	if err := k.Set("test-a", one); err != nil {
		t.Fatal(err)
	}
	defer k.Delete("test-a")
	want("test-a", one)
	if _, err := k.Get("test-b"); !errors.Is(err, keychain.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if err := k.Set("test-b", two); err != nil {
		t.Fatal(err)
	}
	defer k.Delete("test-b")
	if err := k.Set("test-a", two); err != nil {
		t.Errorf("replacing: %v", err)
	}
	want("test-a", two)
	want("test-b", two)
	for range 2 {
		if err := k.Delete("test-a"); err != nil {
			t.Error(err)
		}
	}
	if _, err := k.Get("test-a"); !errors.Is(err, keychain.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	want("test-b", two)

	for _, n := range []int{1, keychain.MaxSecret} {
		s := secret.Random(n)
		if err := k.Set("test-a", s); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		want("test-a", s)
	}
	for _, n := range []int{0, keychain.MaxSecret + 1} {
		if err := k.Set("test-a", secret.Random(n)); err == nil {
			t.Errorf("%d bytes: no error", n)
		}
	}
	for _, name := range []string{"", "A", "a/b", "../a", ".a", "-a", "a.", "a b", "ä", strings.Repeat("a", 101), "a\x00"} {
		if err := k.Set(name, one); err == nil {
			t.Errorf("Set(%q): no error", name)
		}
		if _, err := k.Get(name); err == nil || errors.Is(err, keychain.ErrNotFound) {
			t.Errorf("Get(%q): got %v, want an error", name, err)
		}
		if err := k.Delete(name); err == nil {
			t.Errorf("Delete(%q): no error", name)
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := k.Set("test-b", two); err != nil {
				t.Error(err)
			}
			want("test-b", two)
		})
	}
	wg.Wait()
	if k.Where() == "" {
		t.Error("nowhere")
	}
}

func TestSystem(t *testing.T) { contract(t, keychain.System()) }

func TestFile(t *testing.T) { contract(t, keychain.File(filepath.Join(t.TempDir(), "new", "dir"))) }

// What a crash left beside the secrets, which may be a secret, goes.
func TestFileLeftovers(t *testing.T) {
	dir := t.TempDir()
	old, young := filepath.Join(dir, ".satchel-OLD.tmp"), filepath.Join(dir, ".satchel-YOUNG.tmp")
	for _, path := range []string{old, young} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	if err := keychain.File(dir).Set("a", secret.Random(32)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old leftover stays: %v", err)
	}
	if _, err := os.Lstat(young); err != nil {
		t.Errorf("a file that may be in use was removed: %v", err)
	}
}

func TestOpen(t *testing.T) {
	k, kind, warning := keychain.Open(t.TempDir())
	if kind != keychain.KindSystem || warning != "" {
		t.Fatalf("got %v, %q, want the system's", kind, warning)
	}
	contract(t, k)
}

func TestByKind(t *testing.T) {
	for _, kind := range []keychain.Kind{keychain.KindSystem, keychain.KindFile} {
		k, err := keychain.ByKind(kind, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		contract(t, k)
	}
	if _, err := keychain.ByKind("", ""); err == nil {
		t.Error("no error")
	}
}

// fakeRing is a system with faults.
type fakeRing struct {
	mu      sync.Mutex
	entries map[string]string // guarded by mu
	fail    error             // what every call returns
	hang    chan struct{}     // closed to end the waiting; nil does not wait
	deaf    bool              // says yes and keeps nothing
	panics  bool
}

func (r *fakeRing) call() error {
	if r.hang != nil {
		<-r.hang
	}
	if r.panics {
		panic("closed channel")
	}
	r.mu.Lock()
	if r.entries == nil {
		r.entries = map[string]string{}
	}
	return r.fail
}

func (r *fakeRing) Get(_, name string) (string, error) {
	err := r.call()
	defer r.mu.Unlock()
	if err != nil {
		return "", err
	}
	if text, ok := r.entries[name]; ok {
		return text, nil
	}
	return "", keyring.ErrNotFound
}

func (r *fakeRing) Set(_, name, text string) error {
	err := r.call()
	defer r.mu.Unlock()
	if err == nil && !r.deaf {
		r.entries[name] = text
	}
	return err
}

func (r *fakeRing) Delete(_, name string) error {
	err := r.call()
	defer r.mu.Unlock()
	if err == nil && !r.deaf {
		delete(r.entries, name)
	}
	return err
}

// R2: a keychain that cannot answer is unknown, never "not found", and what it
// did not keep was not stored (R1).
func TestUnavailable(t *testing.T) {
	for name, r := range map[string]*fakeRing{
		"locked": {fail: errors.New("failed to unlock correct collection")},
		// A Mac without a keychain says that none could be found.
		"deaf":   {deaf: true},
		"panics": {panics: true},
	} {
		t.Run(name, func(t *testing.T) {
			k := keychain.NewStore(r, time.Hour)
			if _, err := k.Get("a"); !errors.Is(err, keychain.ErrUnavailable) || errors.Is(err, keychain.ErrNotFound) {
				t.Errorf("Get: got %v, want ErrUnavailable", err)
			}
			if err := k.Set("a", secret.Random(32)); !errors.Is(err, keychain.ErrUnavailable) {
				t.Errorf("Set: got %v, want ErrUnavailable", err)
			}
			dir := t.TempDir()
			files, kind, warning := keychain.OpenWith(k, dir)
			if kind != keychain.KindFile || !strings.Contains(warning, dir) || strings.HasSuffix(warning, ".") {
				t.Errorf("Open: got %v, %q", kind, warning)
			}
			contract(t, files)
		})
	}
}

// An existing secret is found again when the keychain is, and not before.
func TestLockedLater(t *testing.T) {
	r := &fakeRing{}
	k := keychain.NewStore(r, time.Hour)
	key := secret.Random(32)
	if err := k.Set("a", key); err != nil {
		t.Fatal(err)
	}
	r.fail = errors.New("locked")
	if _, err := k.Get("a"); !errors.Is(err, keychain.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if err := k.Delete("a"); !errors.Is(err, keychain.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	r.fail = nil
	if got, err := k.Get("a"); err != nil || !got.Equal(key) {
		t.Errorf("got %v", err)
	}
	// The user dismisses the question whether to delete.
	r.deaf = true
	if err := k.Delete("a"); !errors.Is(err, keychain.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if len(r.entries) != 1 {
		t.Errorf("probes stay behind: %d entries", len(r.entries))
	}
	r.entries["a"] = "something else"
	if _, err := k.Get("a"); !errors.Is(err, keychain.ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
}

// A D-Bus that never answers does not hang us, and costs one goroutine at most.
func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRing{hang: make(chan struct{})}
		k := keychain.NewStore(r, time.Minute)
		start := time.Now()
		for range 3 {
			if _, err := k.Get("a"); !errors.Is(err, keychain.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		}
		if got := time.Since(start); got != 3*time.Minute {
			t.Errorf("waited %v, want 3 minutes", got)
		}
		if _, kind, _ := keychain.OpenWith(k, t.TempDir()); kind != keychain.KindFile {
			t.Errorf("got %v, want files", kind)
		}
		close(r.hang)
		synctest.Wait()
		if err := k.Set("a", secret.Random(32)); err != nil {
			t.Errorf("after it woke up: %v", err)
		}
	})
}

func TestFileModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes on Windows")
	}
	dir := filepath.Join(t.TempDir(), "keys")
	k := keychain.File(dir)
	if _, err := k.Get("a"); !errors.Is(err, keychain.ErrUnavailable) {
		t.Errorf("directory missing: got %v, want ErrUnavailable", err)
	}
	if err := k.Set("a", secret.Random(32)); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Fatalf("got %v, want one file", entries)
	}
	path := filepath.Join(dir, entries[0].Name())
	for p, want := range map[string]os.FileMode{dir: 0o700, path: 0o600} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("got %v, %v, want %v", info.Mode(), err, want)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Get("a"); !errors.Is(err, keychain.ErrExposed) {
			t.Errorf("%v: got %v, want ErrExposed", mode, err)
		}
	}
	if err := os.Rename(path, path+"2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path+"2", path); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Get("a"); !errors.Is(err, keychain.ErrExposed) {
		t.Errorf("link: got %v, want ErrExposed", err)
	}
	os.Remove(path)
	for _, content := range []string{"", "\n", "satchel-1:", "satchel-1:AAAA", "satchel-1:AAA\n", "satchel-2:AAAA\n", strings.Repeat("x", 1<<20)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Get("a"); !errors.Is(err, keychain.ErrDamaged) {
			t.Errorf("%.20q: got %v, want ErrDamaged", content, err)
		}
	}
}

// R18, R19: the text form reads back what it wrote and nothing else, and no
// error repeats it.
func FuzzDecode(f *testing.F) {
	text, err := keychain.Encode(secret.Random(32))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add("satchel-1:AAAA")
	f.Add("satchel-1:AAB=")
	f.Add("satchel-1:A\nAAA")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := keychain.Decode(text)
		if err != nil {
			if err != keychain.ErrDamaged {
				t.Errorf("got %v, want ErrDamaged alone", err)
			}
			return
		}
		if again, err := keychain.Encode(s); err != nil || again != text {
			t.Errorf("encodes to other text: %v", err)
		}
	})
}
