package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// ageVersion is the stock age that opens our backups; docs/recovery.md asks for
// 1.3 or later.
const ageVersion = "v1.3.2"

// bin is a directory with satchel and the stock age tools.
var bin string

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "satchel-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	for _, build := range []*exec.Cmd{
		exec.Command("go", "-C", "..", "build", "-o", filepath.Join(dir, "satchel"), "./cmd/satchel"),
		exec.Command("go", "install", "filippo.io/age/cmd/...@"+ageVersion),
	} {
		build.Env = append(os.Environ(), "GOBIN="+dir)
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", build, err)
			return 1
		}
	}
	return m.Run()
}

// need fails the test if a program is missing.
func need(t *testing.T, program, from string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("%s is not on this machine: install %s", program, from)
	}
}

// machine is a computer of its own, with a home directory and nothing of the one
// the tests run on but its programs.
type machine struct {
	home string
}

func newMachine(t *testing.T) machine {
	t.Helper()
	// A short path: what is printed goes into documents.
	home := filepath.Join(t.TempDir(), "ann")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	return machine{home}
}

// env is the environment of programs on the machine: nothing of the tester's but
// where programs are, and where Go and npm fetch and keep theirs.
func (m machine) env() []string {
	return append([]string{
		"HOME=" + m.home,
		"PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH"),
		"TERM=dumb", "NO_COLOR=1", "LANG=C.UTF-8", "TZ=UTC",
		"SATCHEL_KEYCHAIN=file", // There is no session bus.
	}, kept()...)
}

var kept = sync.OnceValue(func() []string {
	out, err := exec.Command("go", "env", "-json").Output()
	if err != nil {
		panic(err)
	}
	var all map[string]string
	if err := json.Unmarshal(out, &all); err != nil {
		panic(err)
	}
	var env []string
	for _, v := range []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GOFLAGS", "GOSUMDB", "GOTOOLCHAIN"} {
		env = append(env, v+"="+all[v])
	}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "npm_config_") || strings.HasPrefix(name, "ssl_cert_") || strings.HasSuffix(name, "_proxy") {
			env = append(env, v)
		}
	}
	return env
})

// satchel runs the command and returns its standard output. The secrets are on
// the file descriptors 3, 4, …: none is ever an argument.
func (m machine) satchel(t *testing.T, secrets []string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "satchel"), args...)
	cmd.Env, cmd.Dir = m.env(), m.home
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	for _, s := range secrets {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		// A pipe holds a line, so this does not wait.
		if _, err := io.WriteString(w, s+"\n"); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, r)
	}
	if err := cmd.Run(); err != nil {
		t.Fatalf("satchel %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.Bytes()
}

// made is a wallet that was made by the command.
type made struct {
	machine
	code        string
	folder      string // of the backup
	fingerprint string
	network     string
}

// newPlace makes a folder on the machine that takes backups.
func (m machine) newPlace(t *testing.T) string {
	t.Helper()
	place := filepath.Join(m.home, "Nextcloud")
	if err := os.MkdirAll(place, 0o700); err != nil {
		t.Fatal(err)
	}
	return place
}

// create makes a wallet, or takes one over with "import" and its secrets.
func (m machine) create(t *testing.T, command, network string, secrets []string, args ...string) made {
	t.Helper()
	place := m.newPlace(t)
	args = append([]string{command, "--in", place, "--label", "Samantha", "--network", network, "--unlock", "recovery-code", "--json"}, args...)
	var created struct {
		Folder      string
		Fingerprint string
		Network     string
		Protected   bool
		Secret      string
	}
	decode(t, m.satchel(t, secrets, args...), &created)
	if !created.Protected || created.Network != network {
		t.Fatalf("got protected %v, network %q", created.Protected, created.Network)
	}
	if !codeForm.MatchString(created.Secret) {
		t.Fatal("the secret is no recovery code")
	}
	return made{m, created.Secret, filepath.Join(place, filepath.Base(created.Folder)), created.Fingerprint, created.Network}
}

// codeForm is the form of a printed recovery code.
var codeForm = regexp.MustCompile(`\b[0-9a-hj-km-np-tv-z]{4}(-[0-9a-hj-km-np-tv-z]{4}){8}\b`)

// generation is that of the newest snapshot.
func (m machine) generation(t *testing.T) int {
	t.Helper()
	var status struct{ Generation int }
	decode(t, m.satchel(t, nil, "status", "--json"), &status)
	return status.Generation
}

// words are the words of the wallet, the first line of what is exported; a BIP 39
// passphrase may follow.
func (m machine) words(t *testing.T) string {
	t.Helper()
	first, _, _ := strings.Cut(string(m.satchel(t, nil, "export", "words", "--yes")), "\n")
	return strings.TrimSpace(first)
}

// account is one kind of account as the command exports it.
type account struct {
	Kind       string
	Path       string
	Descriptor string
	Address    string
	Key        string // in the form of SLIP 132, "" for taproot
}

// accounts exports the descriptors, or the private keys with "--private".
func (m machine) accounts(t *testing.T, args ...string) map[string]account {
	t.Helper()
	out := m.satchel(t, nil, append([]string{"export", "descriptors", "--json"}, args...)...)
	accounts := map[string]account{}
	d := json.NewDecoder(bytes.NewReader(out))
	for d.More() {
		var a account
		if err := d.Decode(&a); err != nil {
			t.Fatal(err)
		}
		accounts[a.Kind] = a
	}
	for _, kind := range kinds {
		if _, ok := accounts[kind]; !ok {
			t.Fatalf("no account of kind %s", kind)
		}
	}
	return accounts
}

var kinds = []string{"bip44", "bip49", "bip84", "bip86"}

// first is what the item descriptors says of one chain of an account.
type first struct {
	Descriptor string   `json:"descriptor"`
	Type       string   `json:"type"`
	Change     bool     `json:"change"`
	First      []string `json:"first"`
}

// firsts reads the item descriptors, with the first addresses that a restore
// compares.
func (m machine) firsts(t *testing.T) []first {
	t.Helper()
	var item struct {
		Descriptors []first `json:"descriptors"`
	}
	decode(t, m.satchel(t, nil, "get", "descriptors"), &item)
	if len(item.Descriptors) != 2*len(kinds) {
		t.Fatalf("got %d descriptors, want %d", len(item.Descriptors), 2*len(kinds))
	}
	for _, f := range item.Descriptors {
		if len(f.First) < 3 {
			t.Fatalf("%s has %d first addresses, want 3 or more", f.Type, len(f.First))
		}
	}
	return item.Descriptors
}

// firstOf picks one chain.
func firstOf(t *testing.T, all []first, kind string, change bool) []string {
	t.Helper()
	for _, f := range all {
		if f.Type == kind && f.Change == change {
			return f.First
		}
	}
	t.Fatalf("no first addresses of %s", kind)
	return nil
}

func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v in %q", err, data)
	}
}
