package main

import (
	"bytes"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/https"
	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/recordtest"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
)

const binary = "age-plugin-satchel"

// The test's own program is the plugin when it is called so.
func TestMain(m *testing.M) {
	if strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe") == binary {
		os.Exit(mainCode())
	}
	os.Exit(m.Run())
}

// install puts the plugin into the PATH.
func install(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege there")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, binary)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

// enrolled returns the sealed PIN slot of a backup at three key servers.
func enrolled(t *testing.T, keys *seal.Keys, pin, passphrase string) []byte {
	t.Helper()
	var servers []string
	for i := range 3 {
		m, err := keyserver.NewMaster(secret.New(bytes.Repeat([]byte{byte(i + 1)}, keyserver.MasterSize)))
		if err != nil {
			t.Fatal(err)
		}
		s, err := keyserver.New(t.Context(), keyserver.Config{Records: &recordtest.Memory{}, Master: m})
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(s)
		t.Cleanup(srv.Close)
		servers = append(servers, srv.URL)
	}
	c := &guard.Client{Transport: &https.Transport{}, Trusted: func(string) bool { return true }, KDF: &guard.KDF{Passes: 1, Lanes: 1, Memory: 8 << 10}}
	p, err := guard.NewPlan(guard.ID(keys.ID()), 2, servers)
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.Enrol(t.Context(), p, secret.FromString(pin), secret.FromString(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	object, err := seal.SealSlot(keys, slot.PINRecipient(e))
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.Settlement(make([]byte, 32), 1, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Settle(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return object
}

// user answers what the plugin asks.
type user struct {
	answers []string
	refuse  bool
	shown   []string
}

// open decrypts as the age command with -j satchel does.
func (u *user) open(t *testing.T, object []byte) (string, error) {
	t.Helper()
	id, err := plugin.NewIdentityWithoutData("satchel", &plugin.ClientUI{
		DisplayMessage: func(_, message string) error { u.shown = append(u.shown, message); return nil },
		RequestValue: func(_, prompt string, hidden bool) (string, error) {
			if !hidden {
				t.Errorf("%s is shown while it is typed", prompt)
			}
			u.shown = append(u.shown, prompt)
			a := u.answers[0]
			u.answers = u.answers[1:]
			return a, nil
		},
		Confirm: func(_, prompt, yes, no string) (bool, error) {
			u.shown = append(u.shown, prompt)
			return !u.refuse, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(object), id)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), err
}

func TestPlugin(t *testing.T) {
	install(t)
	keys := seal.NewKeys()
	object := enrolled(t, keys, "4917", "")
	u := &user{answers: []string{"4917"}}
	text, err := u.open(t, object)
	if err != nil || text != string(keys.KeyFile().Open()) {
		t.Fatalf("got %q, %v, shown %q", text, err, u.shown)
	}
	if !strings.Contains(u.shown[0], "http://127.0.0.1:") || u.shown[1] != "guesses left: 5 or more" {
		t.Errorf("shown %q", u.shown)
	}
	u = &user{answers: []string{"4918"}}
	if _, err := u.open(t, object); err == nil || !strings.HasSuffix(err.Error(), "satchel plugin: wrong PIN, nothing was opened: 4 guesses left") || len(u.shown) != 3 {
		t.Errorf("a wrong PIN: got %v, shown %q", err, u.shown)
	}
	u = &user{answers: []string{"4917"}}
	if _, err := u.open(t, object); err != nil || !strings.Contains(strings.Join(u.shown, "\n"), "wrong guesses since the last success: 1") {
		t.Errorf("got %v, shown %q", err, u.shown)
	}
	u = &user{refuse: true}
	if _, err := u.open(t, object); err == nil || len(u.shown) != 1 {
		t.Errorf("refused: got %v, shown %q", err, u.shown)
	}
	code, _ := slot.NewRecoveryCode()
	r, err := code.Recipient()
	if err != nil {
		t.Fatal(err)
	}
	other, err := seal.SealSlot(keys, r)
	if err != nil {
		t.Fatal(err)
	}
	u = &user{}
	if _, err := u.open(t, other); err == nil || len(u.shown) != 0 {
		t.Errorf("another kind of slot: got %v, shown %q", err, u.shown)
	}
}

// Until there is none: what is left is said each time.
func TestWrongPINs(t *testing.T) {
	install(t)
	object := enrolled(t, seal.NewKeys(), "4917", "")
	for _, want := range []string{"4 guesses left", "3 guesses left", "2 guesses left"} {
		u := &user{answers: []string{"4918"}}
		if _, err := u.open(t, object); err == nil || !strings.HasSuffix(err.Error(), "nothing was opened: "+want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	u := &user{answers: []string{"4917"}}
	if _, err := u.open(t, object); err == nil || !strings.Contains(err.Error(), "locked until") {
		t.Errorf("after three: got %v", err)
	}
}

func TestPassphrase(t *testing.T) {
	install(t)
	keys := seal.NewKeys()
	object := enrolled(t, keys, "4917", "Zanzibar")
	u := &user{answers: []string{"4917", "zanzibar", "Zanzibar"}}
	if text, err := u.open(t, object); err != nil || text != string(keys.KeyFile().Open()) {
		t.Errorf("got %q, %v, shown %q", text, err, u.shown)
	}
	u = &user{answers: []string{"4917", "a", "b", "c"}}
	if _, err := u.open(t, object); err == nil || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("three wrong passphrases: got %v", err)
	}
}
