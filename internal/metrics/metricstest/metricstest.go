// Package metricstest reads Prometheus' text format as strictly as Prometheus does.
package metricstest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Family is what is told of one name.
type Family struct {
	Kind, Help string
	// Values are the numbers, by the rest of the name and the labels as they are written,
	// such as `{wallet="Sam"}` or `_sum{op="status"}`.
	Values map[string]float64
}

var (
	nameForm   = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
	sampleForm = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"(?:,(?:[a-zA-Z_][a-zA-Z0-9_]*)="(?:[^"\\\n]|\\["\\n])*")*)?\})? (\S+)$`)
	labelForm  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="`)
)

// Parse reads a text. Each family has its help and its kind before its numbers, none comes
// twice, and no number does.
func Parse(text string) (map[string]*Family, error) {
	all := map[string]*Family{}
	name := ""
	if !strings.HasSuffix(text, "\n") {
		return nil, fmt.Errorf("the last line has no end")
	}
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		bad := func(why string) error { return fmt.Errorf("line %d: %s: %s", i+1, why, line) }
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			n, help, _ := strings.Cut(rest, " ")
			if !nameForm.MatchString(n) || all[n] != nil || help == "" {
				return nil, bad("not one family")
			}
			name = n
			all[n] = &Family{Help: help, Values: map[string]float64{}}
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			n, kind, _ := strings.Cut(rest, " ")
			if n != name || all[n].Kind != "" || kind != "gauge" && kind != "counter" && kind != "histogram" {
				return nil, bad("not the kind of the family before")
			}
			if (kind == "counter") != strings.HasSuffix(n, "_total") {
				return nil, bad("counters, and nothing else, end with _total")
			}
			all[n].Kind = kind
			continue
		}
		m := sampleForm.FindStringSubmatch(line)
		if m == nil {
			return nil, bad("no number")
		}
		f := all[name]
		rest, ok := strings.CutPrefix(m[1], name)
		if name == "" || f.Kind == "" || !ok || rest != "" && f.Kind != "histogram" {
			return nil, bad("not of the family before")
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return nil, bad("no number")
		}
		seen := map[string]bool{}
		for _, l := range labelForm.FindAllStringSubmatch(m[2], -1) {
			if seen[l[1]] {
				return nil, bad("a label twice")
			}
			seen[l[1]] = true
		}
		if _, twice := f.Values[rest+m[2]]; twice {
			return nil, bad("a number twice")
		}
		f.Values[rest+m[2]] = v
	}
	return all, nil
}
