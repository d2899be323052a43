package main

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// What a command is told comes from its flags, from the environment, and from the file
// that --config names; what comes first counts. The names are the same in all three.

const envPrefix = "SATCHEL_KEYSERVER_"

// example is a file with all settings that there are, each with what it is for and the
// value that holds without it. It sets none.
//
//go:embed satchel-keyserver.conf
var example string

// maxConfig is the size of the largest configuration file in bytes.
const maxConfig = 64 << 10

// configure takes from the environment and from the file what no flag gave. all are the
// flags that there are: a name that is none of them is refused wherever it stands, for it
// may be a misspelt limit.
func (a *app) configure(c *cobra.Command, all *pflag.FlagSet) error {
	if err := a.environment(c.Flags(), all); err != nil || a.config == "" {
		return err
	}
	b, err := os.ReadFile(a.config)
	if err == nil && len(b) > maxConfig {
		err = fmt.Errorf("%s has more than %d bytes", a.config, maxConfig)
	}
	if err != nil {
		return usage{fmt.Errorf("reading the configuration: %w", err)}
	}
	return a.file(c.Flags(), all, string(b))
}

// environment takes settings from the environment.
func (a *app) environment(flags, all *pflag.FlagSet) error {
	for _, entry := range a.environ {
		key, value, _ := strings.Cut(entry, "=")
		name, ours := strings.CutPrefix(key, envPrefix)
		if !ours || ofKubernetes(name, value) {
			continue
		}
		name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
		if all.Lookup(name) == nil || envName(name) != key {
			return unknown(fmt.Sprintf("there is no setting %s, in the environment", shown(key)), name, all, envName)
		}
		if f := flags.Lookup(name); value != "" && f != nil && !f.Changed {
			if err := flags.Set(name, value); err != nil {
				return usage{fmt.Errorf("%s: %w", key, err)}
			}
		}
	}
	return nil
}

func envName(name string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// kubernetesName is how Kubernetes tells every container of a service that is called
// satchel-keyserver, without being asked to.
var kubernetesName = regexp.MustCompile(`^(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)$`)

func ofKubernetes(name, value string) bool {
	return kubernetesName.MatchString(name) || name == "PORT" && strings.Contains(value, "://")
}

// flagsOnly are not for a file: --config names it, --after-restore is for one start and
// would be forgotten there, and what a command is to do now is no setting.
var flagsOnly = []string{"config", "print-config", "after-restore", "prepare", "drop"}

// Values that are not meant as they stand. One that is used would be seen late: as the
// name of a folder, or not at all.
var (
	comment = regexp.MustCompile(`(^|\s)#`)
	quoted  = regexp.MustCompile(`^("[^"]*"|'[^']*')$`)
)

// file takes settings from the text of the file: lines of a name, an equals sign and a
// value. Those of other commands are left to them.
func (a *app) file(flags, all *pflag.FlagSet, text string) error {
	type setting struct {
		name, value string
		line        int
	}
	var list []setting
	first := map[string]int{} // line
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		wrong := func(format string, args ...any) error {
			return usage{fmt.Errorf("%s, line %d: %s", a.config, i+1, fmt.Sprintf(format, args...))}
		}
		name, value, ok := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		f := all.Lookup(name)
		switch {
		case !ok:
			return hinted{wrong("this is no setting"), "a setting is NAME = VALUE; a comment begins with #"}
		case f == nil:
			return unknown(wrong("there is no setting %s", shown(name)).Error(), name, all, func(name string) string { return name })
		case slices.Contains(flagsOnly, name):
			return hinted{wrong("%s is not for a file", name), "give it as the flag --" + name}
		case first[name] > 0 && f.Value.Type() != "stringSlice":
			return wrong("%s is in line %d already", name, first[name])
		case comment.MatchString(value):
			return hinted{wrong("something follows the value of %s", name), "a comment stands on a line of its own"}
		case quoted.MatchString(value):
			return hinted{wrong("the value of %s is in quotes", name), "write it without: the whole line is the value, with its spaces"}
		}
		if first[name] == 0 {
			first[name] = i + 1
		}
		list = append(list, setting{name, value, i + 1})
	}
	given := map[string]bool{} // before the file
	flags.VisitAll(func(f *pflag.Flag) { given[f.Name] = f.Changed })
	for _, s := range list {
		if before, ours := given[s.name]; s.value == "" || before || !ours {
			continue
		}
		if err := flags.Set(s.name, s.value); err != nil {
			return usage{fmt.Errorf("%s, line %d: %w", a.config, s.line, err)}
		}
	}
	return nil
}

// unknown is an error about a name that is none, with the nearest that is one.
func unknown(text, name string, all *pflag.FlagSet, written func(string) string) error {
	hint := "satchel-keyserver serve --help lists the names"
	if n := nearest(name, all); n != "" {
		hint = "did you mean " + written(n) + "?"
	}
	return hinted{usage{errors.New(text)}, hint}
}

// nearest returns the flag whose name takes the fewest changes to become this one, ""
// if that are too many for a slip.
func nearest(name string, all *pflag.FlagSet) (found string) {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	name = strings.TrimPrefix(name, "satchel-keyserver-")
	best := min(len(name)/3, 3) + 1
	all.VisitAll(func(f *pflag.Flag) {
		if d := distance(name, f.Name); d < best {
			found, best = f.Name, d
		}
	})
	return found
}

// distance counts the letters to insert, to remove or to replace between two names.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		above := row[0]
		row[0] = i + 1
		for j := range b {
			d := above
			if a[i] != b[j] {
				d = 1 + min(above, row[j], row[j+1])
			}
			above, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}

// plainName is what can be the name of a setting. Anything else may be a secret at the
// wrong place.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,48}$`)

func shown(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return "of this name"
}
