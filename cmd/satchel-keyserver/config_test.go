package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// configured returns the flags of serve, or of another command, as they are after a file, the
// environment and arguments. It runs nothing.
func configured(t *testing.T, text string, environ []string, args ...string) (map[string]string, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	var out bytes.Buffer
	a := &app{out: &out, err: &out, environ: environ, now: time.Now}
	root := a.command()
	for _, c := range root.Commands() {
		c.RunE = func(c *cobra.Command, _ []string) error {
			c.Flags().VisitAll(func(f *pflag.Flag) { got[f.Name] = f.Value.String() })
			return nil
		}
	}
	root.SetArgs(append(args, "--config", file))
	if exit := a.execute(context.Background(), root); exit != codeDone {
		if exit != codeUsage {
			t.Errorf("exit code %d, want %d", exit, codeUsage)
		}
		return nil, strings.ReplaceAll(out.String(), file, "FILE")
	}
	return got, out.String()
}

// What --print-config prints holds every setting, each with the value that holds without
// it, and sets none.
func TestConfigExample(t *testing.T) {
	t.Parallel()
	var printed, said bytes.Buffer
	if exit := run(context.Background(), []string{"serve", "--print-config"}, &printed, &said, nil, time.Now); exit != codeDone || said.Len() > 0 {
		t.Fatalf("--print-config: code %d, %s", exit, &said)
	}
	example := printed.String()
	defaults, _ := configured(t, "", nil, "serve")
	if got, out := configured(t, example, nil, "serve"); !cmp.Equal(got["listen"], defaults["listen"]) {
		t.Errorf("as it is: %s %s", cmp.Diff(defaults, got), out)
	}
	var lines []string
	names := map[string]bool{}
	for line := range strings.Lines(example) {
		set, ok := strings.CutPrefix(strings.TrimSpace(line), "#")
		if !ok || strings.HasPrefix(set, " ") || set == "" {
			continue
		}
		name, value, _ := strings.Cut(set, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if names[name] {
			t.Errorf("%s is there twice", name)
		}
		names[name] = true
		if want, ok := defaults[name]; !ok || value != want && !(name == "proxy" && want == "[]" && value == "") {
			t.Errorf("%s = %s, want %s (is there such a setting: %v)", name, value, want, ok)
		}
		lines = append(lines, set)
	}
	got, out := configured(t, strings.Join(lines, "\n"), nil, "serve")
	if got == nil {
		t.Fatal(out)
	}
	got["config"], defaults["config"] = "", ""
	if d := cmp.Diff(defaults, got); d != "" {
		t.Errorf("with all of them (-want +got): %s %s", d, out)
	}
	for name := range defaults {
		if !names[name] && name != "help" && !slices.Contains(flagsOnly, name) {
			t.Errorf("%s is missing", name)
		}
	}
}

// docs/keyserver.md has a line for every setting, with the value that holds without it,
// and for nothing that is none.
func TestSettingsDocumented(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/keyserver.md")
	if err != nil {
		t.Fatal(err)
	}
	got, want := map[string]string{}, map[string]string{}
	for _, line := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (?:`([^`]*)` )?\\|").FindAllStringSubmatch(string(b), -1) {
		if _, ok := got[line[1]]; ok {
			t.Errorf("%s is there twice", line[1])
		}
		got[line[1]] = line[2]
	}
	defaults, _ := configured(t, "", nil, "serve")
	for name, value := range defaults {
		if name == "help" || slices.Contains(flagsOnly, name) {
			if !strings.Contains(string(b), "--"+name) && name != "help" {
				t.Errorf("--%s is missing", name)
			}
			continue
		}
		if name == "proxy" {
			value = "" // of a list: []
		}
		want[name] = value
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the table of settings (-want +got): %s", d)
	}
}

// Flags count more than the environment, and that more than the file.
func TestConfigPrecedence(t *testing.T) {
	t.Parallel()
	const file = `
# A comment, with = in it.
listen=:1
  admin   =   off
rate = 11
proxy = 10.0.0.1/32
proxy = 10.0.0.2/32,10.0.0.3/32
database = host=db user=satchel
master-command = cat "/run/my keys"
require-token = true
drain =
`
	got, out := configured(t, file, []string{"SATCHEL_KEYSERVER_RATE=12", "SATCHEL_KEYSERVER_ADMIN=", "HOME=/"}, "serve")
	for name, want := range map[string]string{"listen": ":1", "admin": "off", "rate": "12", "proxy": "[10.0.0.1/32,10.0.0.2/32,10.0.0.3/32]",
		"database": "host=db user=satchel", "master-command": `cat "/run/my keys"`, "require-token": "true", "drain": "20s"} {
		if got[name] != want {
			t.Errorf("%s: got %s, want %s; %s", name, got[name], want, out)
		}
	}
	got, out = configured(t, file, []string{"SATCHEL_KEYSERVER_RATE=12", "SATCHEL_KEYSERVER_PROXY=10.0.0.4/32"}, "serve", "--rate", "13", "--require-token=false")
	for name, want := range map[string]string{"rate": "13", "proxy": "[10.0.0.4/32]", "require-token": "false"} {
		if got[name] != want {
			t.Errorf("%s: got %s, want %s; %s", name, got[name], want, out)
		}
	}
	// Other commands take what is theirs.
	if got, out := configured(t, file, nil, "rotate"); got["database"] != "host=db user=satchel" || got["drop"] != "false" {
		t.Errorf("rotate: got %v, %s", got, out)
	}
	if _, out := configured(t, file, []string{"SATCHEL_KEYSERVER_RATE=12"}, "version"); out != "" {
		t.Errorf("version: %s", out)
	}
}

func TestConfigRefused(t *testing.T) {
	t.Parallel()
	key := strings.Repeat("ab", 32)
	for _, v := range []struct{ text, want string }{
		{"listen = :1\n\nlistn = :2", "FILE, line 3: there is no setting listn\nhint: did you mean listen?"},
		{"TLS_CERT = x", "line 1: there is no setting TLS_CERT\nhint: did you mean tls-cert?"},
		{"SATCHEL_KEYSERVER_RATE=1", "there is no setting SATCHEL_KEYSERVER_RATE\nhint: did you mean rate?"},
		{"colour = red", "there is no setting colour\nhint: satchel-keyserver serve --help"},
		{key + " = x", "there is no setting of this name"},
		{key, "line 1: this is no setting\nhint: a setting is NAME = VALUE"},
		{"listen :1", "line 1: this is no setting"},
		{"rate = 1\nrate = 2", "line 2: rate is in line 1 already"},
		{"rate = many", "line 1: invalid argument"},
		{"data = /srv # here", "line 1: something follows the value of data\nhint: a comment stands"},
		{"data = # here", "line 1: something follows"},
		{`data = "/srv"`, "line 1: the value of data is in quotes"},
		{"data = '/srv'", "in quotes"},
		{"after-restore = true", "line 1: after-restore is not for a file\nhint: give it as the flag --after-restore"},
		{"config = x", "config is not for a file"},
		{"print-config = true", "print-config is not for a file"},
		{"drop = true", "drop is not for a file"},
		{strings.Repeat("#", maxConfig+1), "has more than"},
	} {
		for _, command := range []string{"serve", "rotate"} {
			if command == "rotate" && strings.Contains(v.want, "invalid argument") {
				continue // It has no such flag.
			}
			if got, out := configured(t, v.text, nil, command); got != nil || !strings.Contains(out, v.want) || strings.Contains(out, key) {
				t.Errorf("%s, %q: got %v, %s; want %q", command, v.text, got, out, v.want)
			}
		}
	}
	var out bytes.Buffer
	if exit := run(context.Background(), []string{"version"}, &out, &out, []string{"SATCHEL_KEYSERVER_CONFIG=/none"}, time.Now); exit != codeUsage || !strings.Contains(out.String(), "/none") {
		t.Errorf("a file that the environment names: got %d, %s", exit, &out)
	}
	w := newWorld(t)
	w.fails(2, "reading the configuration", "serve", "--config", filepath.Join(w.dir, "none"))
	w.fails(2, "no TLS", "serve", "--config", writeFile(t, "listen = 0.0.0.0:0\n"))
	w.fails(2, "is the name of a file, and this is a key", "serve", "--admin", "off", "--config", writeFile(t, "listen = 127.0.0.1:0\nmaster-keys = "+key))
}

// A limit that was misspelt in the environment is not taken for none.
func TestEnvironmentRefused(t *testing.T) {
	t.Parallel()
	for _, v := range []struct{ entry, want string }{
		{"SATCHEL_KEYSERVER_LISTN=:1", "there is no setting SATCHEL_KEYSERVER_LISTN, in the environment\nhint: did you mean SATCHEL_KEYSERVER_LISTEN?"},
		{"SATCHEL_KEYSERVER_TLSCERT=", "did you mean SATCHEL_KEYSERVER_TLS_CERT?"},
		{"SATCHEL_KEYSERVER_data=x", "did you mean SATCHEL_KEYSERVER_DATA?"},
		{"SATCHEL_KEYSERVER_TLS-CERT=x", "did you mean SATCHEL_KEYSERVER_TLS_CERT?"},
		{"SATCHEL_KEYSERVER_PORT=7407", "there is no setting SATCHEL_KEYSERVER_PORT"},
		{"SATCHEL_KEYSERVER_RATE=many", "SATCHEL_KEYSERVER_RATE: invalid"},
	} {
		if got, out := configured(t, "", []string{v.entry}, "serve"); got != nil || !strings.Contains(out, v.want) {
			t.Errorf("%s: got %v, %s; want %q", v.entry, got, out, v.want)
		}
	}
	// What is not ours, and what Kubernetes sets where a service has the name of the program.
	got, out := configured(t, "", []string{"SATCHEL_HOME=x", "SATCHEL_KEYSERVER_PORT=tcp://10.0.0.1:443", "SATCHEL_KEYSERVER_SERVICE_HOST=10.0.0.1",
		"SATCHEL_KEYSERVER_SERVICE_PORT=443", "SATCHEL_KEYSERVER_SERVICE_PORT_HTTPS=443", "SATCHEL_KEYSERVER_PORT_443_TCP=tcp://10.0.0.1:443",
		"SATCHEL_KEYSERVER_PORT_443_TCP_ADDR=10.0.0.1", "SATCHEL_KEYSERVER_DATA=here"}, "serve")
	if got["data"] != "here" {
		t.Errorf("got %v, %s", got, out)
	}
}

// A server runs with a file alone.
func TestConfig(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := writeFile(t, "listen = 127.0.0.1:0\nadmin = off\nlog-json = true\nrequire-token = true\n")
	s, err := w.startWith("serve", "--config", file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.log.String(), `"tokens":true`) {
		t.Error(s.log.String())
	}
	s.stop()
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
