package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store"
)

// runHere runs the command in this process, as a script would.
func runHere(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return runWith(t, env, "", args...)
}

// runWith is runHere with a standard input.
func runWith(t *testing.T, env map[string]string, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(stdin), &out, &err, func(k string) string { return env[k] })
	return code, out.String(), err.String()
}

// commands returns every command with the words that call it.
func commands(t *testing.T) map[string]*cobra.Command {
	t.Helper()
	a := &app{getenv: func(string) string { return "" }, now: time.Now}
	all := map[string]*cobra.Command{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		all[c.CommandPath()] = c
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(a.rootCommand())
	return all
}

func TestEveryCommandTeaches(t *testing.T) {
	for path, c := range commands(t) {
		args := append(strings.Fields(path)[1:], "--help")
		code, text, stderr := runHere(t, nil, args...)
		if code != 0 || stderr != "" {
			t.Errorf("%s --help: code %d, stderr %q", path, code, stderr)
		}
		for _, part := range []string{fill(c.Long), "\nUsage:\n", "\nExamples:\n  ", "\nExit codes:\n  0    done\n", "  2    "} {
			if part == "" || !strings.Contains(text, part) {
				t.Errorf("%s --help lacks %q", path, part)
			}
		}
		for line := range strings.SplitSeq(text, "\n") {
			if utf8.RuneCountInString(line) > helpWidth {
				t.Errorf("%s --help: line of %d columns: %s", path, utf8.RuneCountInString(line), line)
			}
		}
		if !strings.Contains(c.Example, "satchel") || c.Short == "" || c.RunE == nil {
			t.Errorf("%s: no example, no short help, or does nothing", path)
		}
		if c.HasParent() && !c.Parent().HasParent() && !c.Hidden && c.GroupID == "" {
			t.Errorf("%s is in no group", path)
		}
		// Secrets never come in arguments: flags that have to do with one are numbers.
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if strings.Contains(f.Name, "secret") || strings.Contains(f.Name, "passphrase") && f.Value.Type() != "bool" || strings.Contains(f.Name, "code") {
				if f.Value.Type() != "int" {
					t.Errorf("%s --%s is a %s", path, f.Name, f.Value.Type())
				}
			}
		})
	}
}

// What a flag is for is one paragraph: no line breaks off before it is full.
func TestFlagsAreFilled(t *testing.T) {
	flag := regexp.MustCompile(`^  (-\w,|   ) --\w`)
	for path, c := range commands(t) {
		before := ""
		for line := range strings.SplitSeq(helpText(c), "\n") {
			switch {
			case flag.MatchString(line), line == "":
				before = line
			case before != "":
				word := strings.Fields(line)[0]
				if utf8.RuneCountInString(before)+1+utf8.RuneCountInString(word) <= helpWidth {
					t.Errorf("%s --help: %q stands below %q", path, word, before)
				}
				before = line
			}
			if strings.Contains(line, "default -1") {
				t.Errorf("%s --help: a default that cannot be given: %s", path, line)
			}
		}
	}
}

// The service of the agent names codes that it can end with, and no others.
func TestServiceCodes(t *testing.T) {
	line := regexp.MustCompile(`RestartPreventExitStatus=([0-9 ]+)`).FindStringSubmatch((&service{}).unit())
	if line == nil {
		t.Fatal("no RestartPreventExitStatus")
	}
	_, help, _ := runHere(t, nil, "agent", "run", "--help")
	for f := range strings.FieldsSeq(line[1]) {
		if !regexp.MustCompile(`(?m)^  ` + f + ` `).MatchString(help) {
			t.Errorf("agent run --help does not list the code %s", f)
		}
	}
}

// R5: each code has its own sentence, and a next step where there is one.
func TestEveryCodeHasTextAndHint(t *testing.T) {
	seen := map[string]satchel.Code{}
	for _, c := range exitCodes {
		text := exitTexts[c]
		if other, ok := seen[text]; text == "" || ok {
			t.Errorf("code %d has the text %q, as code %d", c, text, other)
		}
		seen[text] = c
		if _, ok := codeHints[c]; !ok && c != satchel.CodeDone && c != satchel.CodeUsage {
			t.Errorf("code %d has no hint", c)
		}
	}
}

// The codes that no fixture of a folder can reach without a cloud.
func TestErrorsOfPlaces(t *testing.T) {
	hints := map[string]bool{}
	for err, want := range map[error]satchel.Code{
		store.ErrListing:        satchel.CodeListing,
		store.ErrSignIn:         satchel.CodeSignIn,
		store.ErrWrongAccount:   satchel.CodeWrongAccount,
		store.ErrFull:           satchel.CodeFull,
		store.ErrUnreachable:    satchel.CodeUnreachable,
		satchel.ErrNotProtected: satchel.CodePartly,
	} {
		wrapped := fmt.Errorf("%w: uploading: %w", satchel.ErrNotProtected, err)
		if got := codeOf(wrapped); got != want {
			t.Errorf("%v: got code %d, want %d", err, got, want)
		}
		hint := hintFor(wrapped)
		if hint == "" || hints[hint] {
			t.Errorf("%v: hint %q is empty or another's", err, hint)
		}
		hints[hint] = true
	}
}

// A rekey that was begun with the words in the new backup is not finished as one that
// takes them out.
func TestRekeyBegunWithout(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	env := map[string]string{"SATCHEL_HOME": t.TempDir(), "SATCHEL_KEYCHAIN": "file"}
	place := t.TempDir()
	code, out, stderr := runHere(t, env, "create", "--in", place, "--label", "Sam", "--unlock", "recovery-code", "--json")
	var made struct{ Secret string }
	if err := json.Unmarshal([]byte(out), &made); code != 0 || err != nil {
		t.Fatalf("code %d, %v: %s", code, err, stderr)
	}
	a := &app{getenv: func(k string) string { return env[k] }, now: time.Now, json: true}
	d, err := a.device()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := a.deviceConfig(d)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Progress = func(p satchel.Progress) {
		if p.Stage == satchel.Deleting {
			cancel() // The new one is made and proven, the old one is still there.
		}
	}
	b, err := satchel.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	way, err := slot.RecoveryCode(secret.FromString(made.Secret))
	if err != nil {
		t.Fatal(err)
	}
	owner, err := b.Unlock(ctx, way)
	if err != nil {
		t.Fatal(err)
	}
	next, _ := slot.NewRecoveryCode()
	nb, _, err := owner.Rekey(ctx, filepath.Join(filepath.Dir(d.dir), "new"), satchel.RekeyPlan{Slots: []slot.Secret{next}})
	if nb == nil || err == nil {
		t.Fatalf("got %v, want a new backup and an error", err)
	}
	nb.Close()
	b.Close()
	rekey := []string{"rekey", "--yes", "--unlock", "recovery-code", "--json", "--secret-fd", "0"}
	code, _, stderr = runHere(t, env, append(rekey, "--drop-keys")...)
	if code != 2 || !strings.Contains(stderr, "begun without --drop-keys") {
		t.Errorf("code %d: %s", code, stderr)
	}
	if code, _, stderr = runWith(t, env, made.Secret, rekey...); code != 0 {
		t.Errorf("code %d: %s", code, stderr)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"Samantha":           "Samantha",
		"a\x1b[2Jb":          "a\ufffd[2Jb",
		"a\nhint: do evil":   "a\ufffdhint: do evil",
		"a\u202eb":           "a\ufffdb",
		"Ünïcode — 日本 stays": "Ünïcode — 日本 stays",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q): got %q, want %q", in, got, want)
		}
	}
}

func TestReadLineTakesOneLine(t *testing.T) {
	r := strings.NewReader("first\r\nsecond\nlast")
	for _, want := range []string{"first", "second", "last"} {
		got, err := readLine(r, 10)
		if err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if _, err := readLine(r, 10); err == nil {
		t.Error("a line after the end")
	}
	if got, err := readLine(strings.NewReader("0123456789x\n"), 10); err == nil {
		t.Errorf("a line over the limit: %q", got)
	}
}

func TestCompleteWords(t *testing.T) {
	for in, want := range map[string]string{
		"aban abil able":      "abandon ability able",
		"add addr addi":       "add address addict",
		"zzz ab":              "zzz ab",
		"abandon  about\tact": "abandon about act",
	} {
		if got := string(completeWords(secret.FromString(in)).Open()); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// What is made here to open a backup reaches its owner, and only them.
func TestMakeWay(t *testing.T) {
	for kind, pattern := range map[string]string{
		wayCode:      `^([0-9a-z]{4}-){8}[0-9a-z]{4}$`,
		wayGenerated: `^[a-z]+(-[a-z]+){5,}$`,
	} {
		a := &app{codeFD: noFD, newSecretFD: noFD}
		if _, err := a.makeWay(t.Context(), kind); codeOf(err) != satchel.CodeUsage {
			t.Errorf("%s, with nobody to show it to: got %v, want a usage error", kind, err)
		}
		a.json = true
		way, err := a.makeWay(t.Context(), kind)
		if err != nil || !regexp.MustCompile(pattern).MatchString(a.printedJSON(way)) {
			t.Errorf("%s: got %v and a secret that is not of the form %s", kind, err, pattern)
		}
		a.codeFD = 3
		if a.printedJSON(way) != "" {
			t.Errorf("%s: it is in the JSON result although it went elsewhere", kind)
		}
	}
}

// testApp is a command on a device of its own.
func testApp(t *testing.T) *app {
	home := t.TempDir()
	return &app{getenv: func(name string) string {
		if name == "SATCHEL_HOME" {
			return home
		}
		return ""
	}, now: time.Now, passwordFD: noFD}
}

func TestOpenPlace(t *testing.T) {
	dir := t.TempDir()
	for address, want := range map[string]string{
		dir:             "folder:" + dir,
		"folder:" + dir: "folder:" + dir,
		dir + "/":       "folder:" + dir,
		filepath.Join(dir, "BitcoinWalletBackup-A-1"): "folder:" + dir,
	} {
		p, err := testApp(t).openPlace(address, true)
		if err != nil || p.Address != want {
			t.Errorf("%s: got %q, %v, want %q", address, p.Address, err, want)
		}
	}
	// One place has one address, however it was typed.
	for address, want := range map[string]string{
		"webdav+https://ann@Cloud.Example.org:443/dav/ann/":                          "webdav+https://ann@cloud.example.org/dav/ann",
		"webdav+https://ann@cloud.example.org/dav//ann/BitcoinWalletBackup-Ann-1a2b": "webdav+https://ann@cloud.example.org/dav/ann",
		"webdav+http://ann@127.0.0.1:80/a%20b":                                       "webdav+http://ann@127.0.0.1/a%20b",
		"s3://KEY@S3.example.org:443/bucket/BitcoinWalletBackup-Ann-1a2b/":           "s3://KEY@s3.example.org/bucket",
		"gdrive:ann@example.org/Backups/BitcoinWalletBackup-Ann-1a2b":                "gdrive:ann@example.org/Backups",
		"gdrive:ann@example.org/":                                                    "gdrive:ann@example.org",
		"rclone:remote:wallets/BitcoinWalletBackup-Ann-1a2b":                         "rclone:remote:wallets",
		"rclone:remote:": "rclone:remote:",
	} {
		if p, err := testApp(t).openPlace(address, false); err != nil || p.Address != want {
			t.Errorf("%s: got %q, %v, want %q", address, p.Address, err, want)
		}
	}
	if !samePlace("s3://K@h/b?region=us-east-1", "s3://K@h/b") || samePlace("s3://K@h/b", "s3://K@h/c") {
		t.Error("a region makes another place, or a bucket does not")
	}
	// What was meant as another kind of place makes no folder.
	t.Chdir(dir)
	for _, address := range []string{"nextcloud.example.org", "s3", "webdav", "OneDrive", `C:\Users\ann`} {
		if _, err := testApp(t).openPlace(address, true); codeOf(err) != satchel.CodeUsage {
			t.Errorf("%s: got %v, want a usage error", address, err)
		}
	}
	for _, address := range []string{"", "folder:", "s3:bucket", "webdav:https://x", filepath.Join(dir, "a", "b")} {
		if _, err := testApp(t).openPlace(address, true); codeOf(err) != satchel.CodeUsage {
			t.Errorf("%s: got %v, want a usage error", address, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); err == nil {
		t.Error("a refused place was made")
	}
}

func TestHome(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"SATCHEL_HOME": "/x", "HOME": "/u", "XDG_DATA_HOME": "/d"}, "/x"},
		{map[string]string{"HOME": "/u", "XDG_DATA_HOME": "/d"}, "/d/satchel"},
		{map[string]string{"HOME": "/u", "XDG_DATA_HOME": "relative"}, "/u/.local/share/satchel"},
		{map[string]string{"HOME": "/u"}, "/u/.local/share/satchel"},
	} {
		if os.PathSeparator != '/' || filepath.Base(c.want) != "satchel" && c.env["SATCHEL_HOME"] == "" {
			continue
		}
		a := &app{getenv: func(k string) string { return c.env[k] }}
		if got, err := a.home(); err != nil || got != c.want {
			t.Errorf("%v: got %q, %v, want %q", c.env, got, err, c.want)
		}
	}
	a := &app{getenv: func(string) string { return "" }}
	if _, err := a.home(); codeOf(err) != satchel.CodeUsage {
		t.Errorf("without a home: got %v, want a usage error", err)
	}
}

func TestManPages(t *testing.T) {
	dir := t.TempDir()
	code, _, stderr := runHere(t, nil, "man", dir)
	if code != 0 {
		t.Fatalf("code %d: %s", code, stderr)
	}
	for path, c := range commands(t) {
		if c.Hidden {
			continue
		}
		page, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(path, " ", "-")+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, part := range []string{".TH ", ".SH NAME\n", ".SH EXAMPLES\n", ".SH EXIT STATUS\n"} {
			if !bytes.Contains(page, []byte(part)) {
				t.Errorf("the page of %s lacks %q", path, part)
			}
		}
	}
}

func TestCompletions(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		code, stdout, _ := runHere(t, nil, "completion", shell)
		if code != 0 || !strings.Contains(stdout, "satchel") {
			t.Errorf("%s: code %d, %d bytes", shell, code, len(stdout))
		}
	}
}

// An interruption is 130, whatever it looked like inside.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, stderr bytes.Buffer
	env := map[string]string{"SATCHEL_HOME": t.TempDir(), "SATCHEL_KEYCHAIN": "file"}
	code := run(ctx, []string{"create", "--in", t.TempDir(), "--unlock", "recovery-code", "--json"}, strings.NewReader(""), &out, &stderr, func(k string) string { return env[k] })
	if code != int(satchel.CodeInterrupted) {
		t.Errorf("got code %d, want 130: %s", code, stderr.String())
	}
	if codeOf(fmt.Errorf("x: %w", context.Canceled)) != satchel.CodeInterrupted || errors.Is(errPartly, context.Canceled) {
		t.Error("codeOf does not know an interruption")
	}
}

func TestWrap(t *testing.T) {
	text := wrap(strings.Repeat("word ", 60))
	for line := range strings.SplitSeq(text, "\n") {
		if len(line) > helpWidth {
			t.Errorf("line of %d columns", len(line))
		}
	}
	if got := strings.Join(strings.Fields(text), " "); got != strings.TrimSpace(strings.Repeat("word ", 60)) {
		t.Errorf("words were lost: %q", got)
	}
}
