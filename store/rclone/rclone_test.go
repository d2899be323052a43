package rclone_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/rclone"
	"github.com/satchel-backup/satchel/store/storetest"
)

// realEnv names the rclone to test with.
const realEnv = "SATCHEL_TEST_RCLONE"

// open returns a store whose rclone is the stand-in, with variables such as
// "STANDIN_FAULT=hang", and the directory of its remote.
func open(t *testing.T, dir, address string, vars ...string) *rclone.Store {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := rclone.New(address, rclone.Config{Program: self, Env: append(os.Environ(), append(vars, standinDir+"="+dir, quickEnd)...)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s store.Store, name, data string) {
	t.Helper()
	if err := s.Put(t.Context(), name, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, data string, elem ...string) {
	t.Helper()
	file := filepath.Join(elem...)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	for name, vars := range map[string][]string{
		"bucket":         {standinBucket + "=1"},
		"folders, of ID": {standinIDs + "=1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T) store.Store { return open(t, t.TempDir(), "cloud:my backups", vars...) })
		})
	}
}

// conf is a configuration with a remote of each kind that needs no cloud.
func conf(t *testing.T, program string) (file, dir string) {
	t.Helper()
	dir = t.TempDir()
	obscure := func(s string) string {
		out, err := exec.Command(program, "obscure", s).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	file = filepath.Join(dir, "rclone.conf")
	write(t, fmt.Sprintf("[disk]\ntype = local\n\n[short]\ntype = alias\nremote = disk:%[1]s/alias\n\n"+
		"[sealed]\ntype = crypt\nremote = short:sealed\npassword = %[2]s\n\n[forgets]\ntype = memory\n",
		dir, obscure("the passphrase of a test")), file)
	return file, dir
}

func realRclone(t *testing.T) string {
	t.Helper()
	program := os.Getenv(realEnv)
	if program == "" {
		t.Skip(realEnv + " names no rclone")
	}
	return program
}

func real(t *testing.T, program, config, address string, vars ...string) *rclone.Store {
	t.Helper()
	env := append(os.Environ(), append(vars, "RCLONE_CONFIG="+config, "RCLONE_DRY_RUN=true", "RCLONE_EXCLUDE=*")...)
	s, err := rclone.New(address, rclone.Config{Program: program, Env: env})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A crypt of an alias of the disk. The variables that real sets would make rclone
// pretend: they must not count.
func TestRealConformance(t *testing.T) {
	program := realRclone(t)
	storetest.Run(t, func(t *testing.T) store.Store {
		config, _ := conf(t, program)
		return real(t, program, config, "sealed:a b/c")
	})
}

// What rclone itself says of the facts that the store goes by.
func TestReal(t *testing.T) {
	program := realRclone(t)
	config, dir := conf(t, program)
	ctx := t.Context()

	t.Run("forgets", func(t *testing.T) { // R1: its memory ends with each run.
		s := real(t, program, config, "forgets:bucket/x")
		put(t, s, "a/b", "x")
		if got, err := s.Get(ctx, "a/b", store.Sum([]byte("x")), 9); !errors.Is(err, store.ErrNotExist) {
			t.Errorf("got %q, %v, want ErrNotExist", got, err)
		}
		if got, err := s.List(ctx, ""); len(got) != 0 || err != nil {
			t.Errorf("got %v, %v, want nothing", got, err)
		}
	})
	t.Run("not configured", func(t *testing.T) {
		s := real(t, program, config, "nobody:x")
		everyCall(t, s, store.ErrSignIn, "rclone config")
	})
	t.Run("no configuration", func(t *testing.T) {
		s := real(t, program, filepath.Join(dir, "none"), "nobody:x")
		everyCall(t, s, store.ErrSignIn, "rclone config")
	})
	t.Run("encrypted", func(t *testing.T) {
		write(t, "# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nbm90aGluZyBvZiB1c2UgaGVyZSwgYW5kIGxvbmcgZW5vdWdo\n", dir, "secret.conf")
		s := real(t, program, filepath.Join(dir, "secret.conf"), "disk:x")
		everyCall(t, s, store.ErrSignIn, "RCLONE_CONFIG_PASS")
	})
	t.Run("forbidden", func(t *testing.T) {
		write(t, "a file", dir, "file")
		s := real(t, program, config, "disk:"+filepath.Join(dir, "file", "below"))
		if err := s.Put(ctx, "a", nil); !errors.Is(err, store.ErrUnreachable) || !strings.Contains(err.Error(), "rclone lsd disk:") {
			t.Errorf("got %v, want ErrUnreachable and a command", err)
		}
	})
	t.Run("roots", func(t *testing.T) {
		for _, address := range []string{"disk:" + dir + "/plain", "short:", "sealed:deep/er"} {
			s := real(t, program, config, address)
			put(t, s, "a/b", "x")
			if list, err := s.List(ctx, ""); err != nil || len(list) == 0 {
				t.Errorf("%s: got %v, %v", address, list, err)
			}
			if err := s.Put(ctx, "a/b", []byte("y")); !errors.Is(err, store.ErrExist) {
				t.Errorf("%s: got %v, want ErrExist", address, err)
			}
		}
	})
	t.Run("dates", func(t *testing.T) {
		s := real(t, program, config, "short:dates")
		put(t, s, "a", "x")
		list, err := s.List(ctx, "")
		if err != nil || len(list) != 1 || time.Since(list[0].Modified).Abs() > time.Hour {
			t.Errorf("got %v, %v", list, err)
		}
	})
	t.Run("others' files", func(t *testing.T) {
		write(t, "x", dir, "alias", "others", "holiday", "pictures", "1.jpg")
		s := real(t, program, config, "short:others")
		put(t, s, "BitcoinWalletBackup-a/b", "x")
		for _, prefix := range []string{"BitcoinWalletBackup-", "Bitcoin", "BitcoinWalletBackup-a/"} {
			list, err := s.List(ctx, prefix)
			if err != nil || len(list) != 1 || list[0].Name != "BitcoinWalletBackup-a/b" {
				t.Errorf("got %v, %v", list, err)
			}
		}
	})
	t.Run("version", func(t *testing.T) {
		out, err := exec.Command(program, "version").Output()
		line, _, _ := strings.Cut(string(out), "\n")
		t.Log(line, err)
	})
}

// everyCall checks what each method says, and that no error is taken for absence.
func everyCall(t *testing.T, s store.Store, want error, text string) {
	t.Helper()
	ctx := t.Context()
	for what, err := range map[string]error{
		"Put":        s.Put(ctx, "a/b", []byte("four")),
		"Get":        func() error { _, err := s.Get(ctx, "a/b", "", 9); return err }(),
		"Get a hash": func() error { _, err := s.Get(ctx, "a/b", store.Sum(nil), 9); return err }(),
		"List":       func() error { _, err := s.List(ctx, ""); return err }(),
		"List a":     func() error { _, err := s.List(ctx, "a/"); return err }(),
		"Delete":     s.Delete(ctx, store.Object{Name: "a/b"}),
		"Delete ID":  s.Delete(ctx, store.Object{Name: "a/b", ID: "x"}),
	} {
		if !errors.Is(err, want) || errors.Is(err, store.ErrNotExist) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v, want %v and %q", what, err, want, text)
		}
	}
}

// R5: what rclone's codes say, and nothing else it says.
func TestErrors(t *testing.T) {
	for _, test := range []struct {
		fault, address string
		want           error
		text           string
	}{
		{"exit 1@cat", "nobody:x", store.ErrSignIn, "no remote of this name"},
		{"", "nobody:x", store.ErrSignIn, "no remote of this name"},
		{"exit 1", "cloud:x", store.ErrSignIn, "RCLONE_CONFIG_PASS"},
	} {
		everyCall(t, open(t, t.TempDir(), test.address, standinFault+"="+test.fault), test.want, test.text)
	}
	for _, code := range []string{"1", "2", "5", "6", "7", "8", "250"} {
		s := open(t, t.TempDir(), "cloud:x", standinFault+"=exit "+code+"@copyto")
		err := s.Put(t.Context(), "a/b", []byte("x"))
		if !errors.Is(err, store.ErrUnreachable) || !strings.Contains(err.Error(), "rclone lsd cloud:") {
			t.Errorf("Put, %s: got %v, want ErrUnreachable", code, err)
		}
		s = open(t, t.TempDir(), "cloud:x", standinFault+"=exit "+code+"@lsjson")
		if _, err := s.List(t.Context(), ""); !errors.Is(err, store.ErrUnreachable) {
			t.Errorf("List, %s: got %v, want ErrUnreachable", code, err)
		}
		if _, err := s.Get(t.Context(), "a", "", 9); !errors.Is(err, store.ErrUnreachable) {
			t.Errorf("Get, %s: got %v, want ErrUnreachable", code, err)
		}
	}
}

func TestNotInstalled(t *testing.T) {
	for _, program := range []string{"no-such-rclone", filepath.Join(t.TempDir(), "rclone")} {
		s, err := rclone.New("cloud:", rclone.Config{Program: program})
		if err != nil {
			t.Fatal(err)
		}
		everyCall(t, s, store.ErrUnreachable, "not installed")
	}
}

// R2, R18: what cannot be read tells nothing.
func TestGarbage(t *testing.T) {
	for _, fault := range []string{"garbage@lsjson", "nothing@lsjson", "huge", "half"} {
		dir := t.TempDir()
		for _, name := range []string{"a", "b", "c"} {
			put(t, open(t, dir, "cloud:"), name, "content")
		}
		s := open(t, dir, "cloud:", standinFault+"="+fault)
		if fault == "huge" {
			for what, err := range map[string]error{
				"Put":    s.Put(t.Context(), "new", nil),
				"Delete": s.Delete(t.Context(), store.Object{Name: "a"}),
				"Get":    func() error { _, err := s.Get(t.Context(), "a", "", 9); return err }(),
			} {
				if err == nil || errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrExist) {
					t.Errorf("%s: got %v", what, err)
				}
			}
			continue
		}
		if got, err := s.List(t.Context(), ""); !errors.Is(err, store.ErrListing) || got != nil {
			t.Errorf("%s: List: got %v, %v, want ErrListing", fault, got, err)
		}
		if fault == "half" {
			continue
		}
		if err := s.Put(t.Context(), "a", []byte("other")); !errors.Is(err, store.ErrUnreachable) {
			t.Errorf("%s: Put: got %v, want ErrUnreachable", fault, err)
		}
		if _, err := s.Get(t.Context(), "a", "", 9); !errors.Is(err, store.ErrUnreachable) {
			t.Errorf("%s: Get: got %v, want ErrUnreachable", fault, err)
		}
		// Right bytes are right, whoever says what about them.
		if _, err := s.Get(t.Context(), "a", store.Sum([]byte("content")), 9); err != nil {
			t.Errorf("%s: Get by hash: %v", fault, err)
		}
	}
}

// R1: what rclone says was done counts for nothing by itself.
func TestLies(t *testing.T) {
	s := open(t, t.TempDir(), "cloud:", standinFault+"=drop@copyto")
	put(t, s, "a", "content")
	if _, err := s.Get(t.Context(), "a", store.Sum([]byte("content")), 9); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("dropped: got %v, want ErrNotExist", err)
	}
	s = open(t, t.TempDir(), "cloud:", standinFault+"=short@cat")
	put(t, s, "a", "content")
	// R5: a part of an object says nothing of the rest. Who took it for damage would
	// delete a good one.
	for _, want := range []store.Hash{"", store.Sum([]byte("content")), store.Sum([]byte("other"))} {
		if got, err := s.Get(t.Context(), "a", want, 9); !errors.Is(err, store.ErrUnreachable) || errors.Is(err, store.ErrDamaged) {
			t.Errorf("short: got %q, %v, want ErrUnreachable", got, err)
		}
	}
	if err := s.Put(t.Context(), "a", []byte("content")); !errors.Is(err, store.ErrUnreachable) || errors.Is(err, store.ErrExist) {
		t.Errorf("short: got %v, want ErrUnreachable", err)
	}
	// An answer that was lost is no failure, for the object is there.
	s = open(t, t.TempDir(), "cloud:", standinFault+"=applied@copyto")
	put(t, s, "a", "content")
}

// R14.
func TestFull(t *testing.T) {
	s := open(t, t.TempDir(), "cloud:", standinFault+"=exit 1@copyto")
	if err := s.Put(t.Context(), "a", []byte("four")); !errors.Is(err, store.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if err := s.Put(t.Context(), "a", []byte("one")); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}

// R7: two files of one name, and the right one is found and deleted.
func TestTwins(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := open(t, dir, "cloud:x", standinIDs+"=1")
	put(t, s, "w/a", "good")
	write(t, "torn", dir, "x", "w", "a~1")
	write(t, "not so good", dir, "x", "w", "a~2")
	for _, data := range []string{"good", "torn", "not so good"} {
		got, err := s.Get(ctx, "w/a", store.Sum([]byte(data)), 99)
		if err != nil || string(got) != data {
			t.Errorf("got %q, %v, want %q", got, err, data)
		}
		put(t, s, "w/a", data)
	}
	if _, err := s.Get(ctx, "w/a", store.Sum([]byte("other")), 99); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
	if err := s.Put(ctx, "w/a", []byte("other")); !errors.Is(err, store.ErrExist) {
		t.Errorf("got %v, want ErrExist", err)
	}
	if got, err := s.Get(ctx, "w/a", "", 99); err != nil || len(got) == 0 {
		t.Errorf("any one: got %q, %v", got, err)
	}
	// R5: one that cannot be read may be the right one.
	unread := open(t, dir, "cloud:x", standinIDs+"=1", standinFault+"=exit 1@backend")
	if got, err := unread.Get(ctx, "w/a", store.Sum([]byte("torn")), 99); !errors.Is(err, store.ErrUnreachable) || errors.Is(err, store.ErrDamaged) {
		t.Errorf("got %q, %v, want ErrUnreachable", got, err)
	}
	os.Remove(filepath.Join(dir, "x", "w", "a~2"))

	list, err := s.List(ctx, "w/")
	if err != nil || len(list) != 2 || list[0].ID == list[1].ID {
		t.Fatalf("got %v, %v, want two", list, err)
	}
	// Rclone would take the good one.
	if err := s.Delete(ctx, list[1]); err == nil || !strings.Contains(err.Error(), "rclone dedupe") {
		t.Errorf("got %v, want an error that says what to do", err)
	}
	if err := s.Delete(ctx, list[0]); err != nil {
		t.Error(err)
	}
	if got, err := s.Get(ctx, "w/a", "", 99); string(got) != "torn" {
		t.Errorf("got %q, %v, want the other", got, err)
	}
	// What is gone, and another stands there.
	if err := s.Delete(ctx, store.Object{Name: "w/a", ID: "long gone"}); err != nil {
		t.Error(err)
	}
	if got, err := s.Get(ctx, "w/a", "", 99); string(got) != "torn" {
		t.Errorf("got %q, %v, want it untouched", got, err)
	}
}

// R3: what is there stays, also if this store never saw it.
func TestNothingIsReplaced(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "cloud:")
	write(t, "theirs", dir, "a")
	for _, data := range []string{"mine!!", "", "longer than theirs"} {
		if err := s.Put(t.Context(), "a", []byte(data)); !errors.Is(err, store.ErrExist) {
			t.Errorf("got %v, want ErrExist", err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(dir, "a")); string(data) != "theirs" {
		t.Errorf("replaced: %q, %v", data, err)
	}
}

// R7: no two runs make directories at the same time.
func TestDirectoriesOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "cloud:x")
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() { put(t, s, fmt.Sprintf("w/%d/%d", i%3, i), "x") })
	}
	wg.Wait()
	if _, err := os.Stat(filepath.Join(dir, ".twice")); err == nil {
		t.Error("two runs made directories at the same time")
	}
}

// What hangs ends with the context, and so does what it started.
func TestHang(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "cloud:", standinFault+"=hang")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error)
	go func() { _, err := s.List(ctx, ""); done <- err }()
	pids := filepath.Join(dir, ".pids")
	for {
		if data, _ := os.ReadFile(pids); strings.Count(string(data), "\n") == 2 {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("it never began")
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrListing) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	gone(t, pids)
}

// Calls that wait for a turn end with their context too.
func TestWaiting(t *testing.T) {
	s := open(t, t.TempDir(), "cloud:", standinFault+"=hang alone")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	errs := make(chan error)
	for range 12 {
		go func() { errs <- s.Put(ctx, "a", nil) }()
	}
	for range 12 {
		if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline's", err)
		}
	}
}

func TestAddress(t *testing.T) {
	for address, want := range map[string]string{
		"gdrive:": "gdrive:", "gdrive:/": "gdrive:/", "gdrive:a/b/": "gdrive:a/b", "gdrive:./a//b": "gdrive:a/b", "a b.c-d+e@f:x": "a b.c-d+e@f:x",
		"nas:/mnt/x": "nas:/mnt/x", "büro:x:y": "büro:x:y", "gdrive:.": "gdrive:",
	} {
		s, err := rclone.New(address, rclone.Config{})
		if err != nil || s.Address() != want {
			t.Errorf("%q: got %v, want %q", address, err, want)
		}
	}
	for _, address := range []string{
		"", "gdrive", "/path", ":s3,secret_access_key=x:b", "s3,env_auth=true:b", ":local:/", "-v:x", "--config:x", "a/b:c", `C\x:y`, "a :x", " a:x",
		"gdrive:..", "gdrive:../x", "gdrive:a/../../x", "gdrive:a\nb", "'a':b",
	} {
		if s, err := rclone.New(address, rclone.Config{}); err == nil {
			t.Errorf("%q: no error, and %q", address, s.Address())
		}
	}
}

// R19: command lines are seen by everyone on the machine.
func TestCommandLines(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	dir, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
	s := open(t, dir, "cloud:x", standinLog+"="+log, "RCLONE_DRY_RUN=1", "RCLONE_CONFIG_PASS=hush")
	put(t, s, "w/a", "the bytes")
	if _, err := s.Get(t.Context(), "w/a", store.Sum([]byte("the bytes")), 99); err != nil {
		t.Error(err)
	}
	if _, err := s.List(t.Context(), "w/"); err != nil {
		t.Error(err)
	}
	if err := s.Delete(t.Context(), store.Object{Name: "w/a"}); err != nil {
		t.Error(err)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var verbs []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, "the bytes") || strings.Contains(line, "hush") || !strings.Contains(line, "--ask-password=false") {
			t.Errorf("command line: %s", line)
		}
		for _, word := range strings.Fields(line) {
			if !strings.HasPrefix(word, "-") {
				verbs = append(verbs, word)
				break
			}
		}
	}
	// What a change costs.
	if diff := cmp.Diff([]string{"copyto", "cat", "lsjson", "deletefile"}, verbs); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
	if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}
