//go:build unix

package main

import (
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/satchel-backup/satchel/internal/signin"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/dropbox"
	"github.com/satchel-backup/satchel/store/gdrive"
	"github.com/satchel-backup/satchel/store/onedrive"
)

// document returns one of the project's documents.
func document(t *testing.T, name ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, name...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documents returns all of them, by name.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{"README.md": document(t, "README.md")}
	files, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, f := range files {
		all[filepath.Base(f)] = document(t, "docs", filepath.Base(f))
	}
	return all
}

// typed are the pieces of a document that a person would type: what is between backticks,
// and the commands of its blocks.
func typed(text string) []string {
	var all []string
	for _, m := range regexp.MustCompile("(?m)`([^`\n]+)`|^(?:    |\t)?\\$ (.+)$|^ExecStart=(.+)$").FindAllStringSubmatch(text, -1) {
		all = append(all, m[1]+m[2]+m[3])
	}
	return all
}

// The addresses in the documents and in the help are such, and are read back as they
// stand there.
func TestDocumentedAddresses(t *testing.T) {
	form := regexp.MustCompile(`(?:^|[\s(])((?:folder|gdrive|dropbox|onedrive|rclone|1password|keychain):[^\s)]*|(?:webdav\+https?|s3(?:\+http)?)://[^\s)]+)`)
	dir := t.TempDir()
	a := &app{getenv: func(name string) string { return map[string]string{"SATCHEL_HOME": dir, "HOME": dir}[name] }, now: time.Now}
	texts := documents(t)
	for path, c := range commands(t) {
		texts[path+" --help"] = "`" + strings.ReplaceAll(c.Example, "\n", "`\n`") + "`"
	}
	seen := map[string]bool{}
	for name, text := range texts {
		for _, piece := range typed(text) {
			for _, m := range form.FindAllStringSubmatch(piece, -1) {
				address := m[1]
				p, err := a.openPlace(address, false)
				if err != nil {
					t.Errorf("%s: %s: %v", name, address, err)
					continue
				}
				if !strings.EqualFold(p.Address, address) {
					t.Errorf("%s: %s is read back as %s", name, address, p.Address)
				}
				if name == "providers.md" {
					seen[strings.SplitN(address, ":", 2)[0]] = true
				}
			}
		}
	}
	for _, k := range cloudKinds() {
		if !seen[k.scheme] {
			t.Errorf("providers.md has no address of the kind %s", k.scheme)
		}
	}
}

// Every variable that a document names is one that the code reads, and every one that the
// command reads is in a document.
func TestDocumentedVariables(t *testing.T) {
	form := regexp.MustCompile(`\bSATCHEL_[A-Z0-9_]*[A-Z0-9]`)
	code, command := map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "docs" || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go" && filepath.Base(filepath.Dir(path)) != ".ci" || filepath.Base(path) == "documents_test.go":
			return nil
		}
		text, err := os.ReadFile(path)
		for _, v := range form.FindAllString(string(text), -1) {
			code[v] = true
			if filepath.Dir(path) == filepath.Join("..", "..", "cmd", "satchel") && !strings.HasSuffix(path, "_test.go") {
				command[v] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(command, "SATCHEL_") // what a name is made from
	for _, k := range cloudKinds() {
		if k.signing == browser {
			// They are put together in client.
			name := "SATCHEL_" + strings.ToUpper(k.scheme) + "_CLIENT_ID"
			code[name], command[name] = true, true
			code["SATCHEL_"+strings.ToUpper(k.scheme)+"_CLIENT_SECRET"] = true
		}
	}
	named := map[string]bool{}
	for name, text := range documents(t) {
		for _, v := range form.FindAllString(text, -1) {
			named[v] = true
			if !code[v] && !strings.HasPrefix(v, "SATCHEL_KEYSERVER_") { // Those are made from its flags.
				t.Errorf("%s: nothing reads %s", name, v)
			}
		}
	}
	for v := range command {
		if !named[v] && !strings.HasSuffix(v, "_CLIENT") {
			t.Errorf("no document names %s", v)
		}
	}
}

// Every command in the documents exists, with the flags that it is called with, and every
// flag that is named alone is one of some command.
func TestDocumentedCommands(t *testing.T) {
	a := &app{getenv: func(string) string { return "" }, now: time.Now}
	root := a.rootCommand()
	count, flags := 0, map[string]bool{"help": true}
	for _, c := range commands(t) {
		c.Flags().VisitAll(func(f *pflag.Flag) { flags[f.Name] = true })
		c.PersistentFlags().VisitAll(func(f *pflag.Flag) { flags[f.Name] = true })
	}
	for name, text := range documents(t) {
		for _, piece := range typed(text) {
			if f := regexp.MustCompile(`^--([a-z-]+)`).FindStringSubmatch(piece); f != nil && !flags[f[1]] && name != "keyserver.md" {
				t.Errorf("%s: no command has the flag --%s", name, f[1])
			}
			for _, part := range regexp.MustCompile(`\|\||&&|[|;]`).Split(piece, -1) {
				words := strings.Fields(part)
				for len(words) > 0 && strings.Contains(words[0], "=") { // a variable for this command
					words = words[1:]
				}
				if len(words) == 0 || filepath.Base(words[0]) != "satchel" {
					continue
				}
				count++
				if err := called(root, words[1:]); err != "" {
					t.Errorf("%s: %s: %s", name, strings.TrimSpace(part), err)
				}
			}
		}
	}
	if count < 50 {
		t.Errorf("only %d commands were found", count)
	}
}

// called says what is wrong with a call of a command, "" if nothing is.
func called(root *cobra.Command, words []string) string {
	c := root
	for len(words) > 0 && !strings.HasPrefix(words[0], "-") {
		i := slices.IndexFunc(c.Commands(), func(sub *cobra.Command) bool { return sub.Name() == words[0] })
		if i < 0 {
			if c.HasSubCommands() && regexp.MustCompile(`^[a-z]+$`).MatchString(words[0]) {
				return "no such command"
			}
			break
		}
		c, words = c.Commands()[i], words[1:]
	}
	for _, w := range words {
		w, _, _ = strings.Cut(w, "=")
		var f *pflag.Flag
		switch {
		case w == "#":
			return ""
		case w == "--help" || !strings.HasPrefix(w, "-") || w == "-" || w == "--":
			continue
		case strings.HasPrefix(w, "--"):
			if f = c.Flags().Lookup(w[2:]); f == nil {
				f = c.InheritedFlags().Lookup(w[2:])
			}
		default:
			if f = c.Flags().ShorthandLookup(w[1:2]); f == nil {
				f = c.InheritedFlags().ShorthandLookup(w[1:2])
			}
		}
		if f == nil {
			return "no flag " + w
		}
	}
	return ""
}

// Links from one document to another lead somewhere.
func TestDocumentedLinks(t *testing.T) {
	heading := regexp.MustCompile(`(?m)^#+ (.+)$`)
	// anchor is how a heading is named in a link.
	anchor := func(title string) string {
		title = regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(strings.ToLower(title), "")
		return strings.ReplaceAll(title, " ", "-")
	}
	for name, text := range documents(t) {
		dir := filepath.Join("..", "..", "docs")
		if name == "README.md" {
			dir = filepath.Join("..", "..")
		}
		for _, m := range regexp.MustCompile(`\]\(([^):]+)\)`).FindAllStringSubmatch(text, -1) {
			file, at, _ := strings.Cut(m[1], "#")
			path := filepath.Join(dir, file)
			if file == "" {
				path = filepath.Join(dir, name)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %s: %v", name, m[1], err)
				continue
			}
			if at == "" {
				continue
			}
			other, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(heading.FindAllStringSubmatch(string(other), -1), func(h []string) bool { return anchor(h[1]) == at }) {
				t.Errorf("%s: %s: no such heading", name, m[1])
			}
		}
	}
}

// What docs/providers.md says of sign-ins and limits is what the code has.
func TestDocumentedFacts(t *testing.T) {
	text := document(t, "docs", "providers.md")
	a := &app{getenv: func(string) string { return "" }, now: time.Now}
	facts := []string{"80 MB (" + strconv.Itoa((store.MaxObject+500_000)/1_000_000) + " million bytes)"}
	facts = append(facts, gdrive.Scopes(true)...)
	facts = append(facts, gdrive.Scopes(false)...)
	facts = append(facts, dropbox.Scopes()...)
	facts = append(facts, onedrive.Scopes()...)
	for _, k := range cloudKinds() {
		if k.signing != browser {
			continue
		}
		p, err := a.provider(k.scheme+":", "", signin.Record{}.ClientSecret)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := url.Parse(p.Redirect); err != nil || back.Port() != "" {
			facts = append(facts, "`"+p.Redirect+"`, exactly so")
		} else {
			facts = append(facts, "`http://"+back.Hostname()+"`")
		}
	}
	for _, f := range facts {
		if !strings.Contains(text, f) {
			t.Errorf("providers.md lacks %s", f)
		}
	}
	// What was never run says so in the table, and in its own part.
	for _, k := range cloudKinds() {
		if k.form == "" {
			continue
		}
		line := regexp.MustCompile(`(?m)^\| \[.*` + "`" + regexp.QuoteMeta(k.scheme) + `:.*$`).FindString(text)
		if only := regexp.MustCompile(`\*\*a (fake|stand-in) only\*\*`).MatchString(line); line == "" || only != k.fake {
			t.Errorf("providers.md does not say of %s whether it was run for real: %q", k.scheme, line)
		}
	}
	if n := strings.Count(text, "*Never run against"); n != 4 {
		t.Errorf("%d parts of providers.md say that they were never run, want 4", n)
	}
	// How to run the live suites.
	suites := regexp.MustCompile(`(SATCHEL_[A-Z_]+)=… .*go test -tags live -run Live \./(\S+)`).FindAllStringSubmatch(text, -1)
	for _, m := range suites {
		suite, err := os.ReadFile(filepath.Join("..", "..", m[2], "live_test.go"))
		if err != nil || !strings.HasPrefix(string(suite), "//go:build live\n") || !strings.Contains(string(suite), `os.Getenv("`+m[1]+`")`) {
			t.Errorf("no live suite in %s that reads %s (%v)", m[2], m[1], err)
		}
	}
	live, err := filepath.Glob(filepath.Join("..", "..", "store", "*", "live_test.go"))
	if err != nil || len(live) != len(suites) {
		t.Errorf("%d live suites are documented, want %d (%v)", len(suites), len(live), err)
	}
}

// The help of "store add" has every kind of place, and says which was never run.
func TestPlacesHelp(t *testing.T) {
	_, text, _ := runHere(t, nil, "store", "add", "--help")
	for _, k := range cloudKinds() {
		line := ""
		for l := range strings.SplitSeq(text, "\n") {
			if f := strings.Fields(l); len(f) > 1 && f[0] == k.form {
				line = l
			}
		}
		if k.form != "" && (line == "" || strings.HasSuffix(line, " *") != k.fake) {
			t.Errorf("%s: %q", k.form, line)
		}
		if k.form != "" && !strings.Contains(text, "\n  satchel store add "+k.scheme+":") {
			t.Errorf("no example of %s", k.form)
		}
	}
}

// The Tab key knows the places of a wallet, and what this device signs in to.
func TestCompletePlaces(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := map[string]string{"SATCHEL_HOME": filepath.Join(dir, "device"), "SATCHEL_KEYCHAIN": "file", "HOME": dir}
	if code, _, stderr := runHere(t, env, "create", "--in", filepath.Join(dir, "place"), "--unlock", "recovery-code", "--json"); code != 0 {
		t.Fatalf("code %d: %s", code, stderr)
	}
	a := &app{getenv: func(name string) string { return env[name] }, now: time.Now}
	if err := a.keeper().Put(t.Context(), signin.Record{Address: "gdrive:ann@example.org", Account: "1001"}); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{"remove": "folder:" + filepath.Join(dir, "place"), "signin": "gdrive:ann@example.org", "signout": "gdrive:ann@example.org"} {
		code, stdout, _ := runHere(t, env, "__complete", "store", command, "")
		if got := strings.SplitN(stdout, "\n", 2)[0]; code != 0 || got != want {
			t.Errorf("store %s: got %q with code %d, want %q", command, got, code, want)
		}
	}
}
