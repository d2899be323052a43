package satchel_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
)

// Ops of a trace beside those of package durable.
const (
	opRead durable.Op = "read" // a place was asked for an object and gave it
	opAck  durable.Op = "ack"  // the caller was told
)

// trace is what a process did, in order, and what in it was in the wrong order: a
// name before the bytes under it were flushed, a commit before what it names was,
// an acknowledgement before anything was, or of a place before it was read back.
type trace struct {
	root     string
	done     []durable.Step
	dirty    map[string]bool // files whose bytes were written and not flushed
	names    map[string]bool // directories in which names changed and were not flushed
	unread   map[string]bool // objects that were put and not read back
	problems []string
}

// newTrace follows what happens in a world.
func newTrace(w *setting) *trace {
	tr := &trace{root: w.dir, dirty: map[string]bool{}, names: map[string]bool{}, unread: map[string]bool{}}
	w.hook = func(s durable.Step) error {
		tr.step(s)
		return nil
	}
	w.read = func(path string) { tr.step(durable.Step{Op: opRead, Path: path, Done: true}) }
	w.out = tr.acknowledged
	return tr
}

func (tr *trace) problem(format string, args ...any) {
	tr.problems = append(tr.problems, strings.ReplaceAll(fmt.Sprintf(format, args...), tr.root, ""))
}

// flushed notes a problem unless everything is flushed.
func (tr *trace) flushed(what string) {
	for _, path := range slices.Sorted(maps.Keys(tr.dirty)) {
		tr.problem("%s before %s was flushed", what, path)
	}
	for _, path := range slices.Sorted(maps.Keys(tr.names)) {
		tr.problem("%s before the names in %s were flushed", what, path)
	}
}

func (tr *trace) step(s durable.Step) {
	making := strings.Contains(s.Path, satchel.StagingPrefix) // That is flushed as a whole.
	isLog := filepath.Base(s.Path) == "state.log"
	if !s.Done {
		if (s.Op == durable.OpAppend || s.Op == durable.OpRename) && isLog && !making {
			tr.flushed("committed")
		}
		if s.Op == opAsk && filepath.Base(s.Path) == "confirm" {
			tr.flushed("a key server was told of a PIN")
			for _, path := range slices.Sorted(maps.Keys(tr.unread)) {
				tr.problem("a key server was told of a PIN before %s was read back", path)
			}
		}
		return
	}
	tr.done = append(tr.done, s)
	dir := filepath.Dir(s.Path)
	below := func(path string, _ bool) bool {
		return path == s.Path || strings.HasPrefix(path, s.Path+string(filepath.Separator))
	}
	switch s.Op {
	case durable.OpWrite, durable.OpAppend, durable.OpTruncate:
		tr.dirty[s.Path] = true
	case durable.OpSync: // of a file, or of all that is in a directory
		maps.DeleteFunc(tr.dirty, below)
		maps.DeleteFunc(tr.names, below)
	case durable.OpLink, durable.OpRename:
		for path := range tr.dirty {
			if !making || filepath.Dir(path) == dir && durable.IsTemp(path) {
				tr.problem("%s got its name before %s was flushed", s.Path, path)
			}
		}
		tr.names[dir] = true
		if strings.Contains(s.Path, "place-") && strings.HasSuffix(s.Path, ".age") {
			tr.unread[s.Path] = true
		}
	case durable.OpMkdir:
		tr.names[dir] = true
	case durable.OpRemove:
		if !durable.IsTemp(s.Path) { // What comes back is removed again.
			tr.names[dir] = true
		}
	case durable.OpSyncDir:
		delete(tr.names, s.Path)
	case opRead:
		if !tr.names[dir] {
			delete(tr.unread, s.Path)
		}
	}
}

// acknowledged notes what the caller was told.
func (tr *trace) acknowledged(a ack) {
	tr.flushed("acknowledged")
	what := a.Done
	if what == "" {
		what = fmt.Sprintf("generation %d is safe on this device", a.State.Generation)
	}
	for i, g := range a.Places {
		place := fmt.Sprintf("place-%d", i)
		if g != a.State.Generation {
			continue
		}
		what += ", protected in " + place
		for _, path := range slices.Sorted(maps.Keys(tr.unread)) {
			if strings.Contains(path, place) {
				tr.problem("said to be in %s before %s was read back", place, path)
			}
		}
	}
	tr.done = append(tr.done, durable.Step{Op: opAck, Path: what, Done: true})
}

// has reports whether a step was done, given as "<op> <beginning of an element of
// the path>".
func (tr *trace) has(want string) bool {
	op, part, _ := strings.Cut(want, " ")
	return slices.ContainsFunc(tr.done, func(s durable.Step) bool {
		return string(s.Op) == op && slices.ContainsFunc(strings.Split(filepath.ToSlash(s.Path), "/"), func(e string) bool { return strings.HasPrefix(e, part) })
	})
}

var (
	traceHash   = regexp.MustCompile(`[0-9a-f]{32}`)
	traceDevice = regexp.MustCompile(`-[0-9a-f]{16}\b`)
	traceTemp   = regexp.MustCompile(`\.satchel-[0-9A-Z]{20,}\.tmp`)
	traceFolder = regexp.MustCompile(`BitcoinWalletBackup-(\w+)-[0-9a-f]{4}`)
)

// lines returns the trace for people, one step a line. What is different each time
// is left out.
func (tr *trace) lines() []string {
	var list []string
	for _, s := range tr.done {
		path := s.Path
		if rel, err := filepath.Rel(tr.root, path); err == nil {
			path = filepath.ToSlash(rel)
		}
		path = traceTemp.ReplaceAllString(path, "<temp>")
		path = traceHash.ReplaceAllString(path, "<hash>")
		path = traceDevice.ReplaceAllString(path, "-<id>")
		path = traceFolder.ReplaceAllString(path, "<folder>")
		list = append(list, fmt.Sprintf("%-8s %s", s.Op, path))
	}
	return list
}

// R1, R4: what is acknowledged was flushed before, bytes before names, names before
// the commit, the commit before the answer; and what is called protected was read
// back from the place before.
func TestTrace(t *testing.T) {
	for name, want := range map[string][]string{
		"save": {
			"write a/wallet/objects/<temp>", "sync a/wallet/objects/<temp>", "rename a/wallet/objects/<hash>", "syncdir a/wallet/objects",
			"append a/wallet/state.log", "sync a/wallet/state.log",
			"write place-0/<folder>/snapshots/<temp>", "sync place-0/<folder>/snapshots/<temp>",
			"link place-0/<folder>/snapshots/*", "syncdir place-0/<folder>/snapshots", "read place-0/<folder>/snapshots/*",
			"append a/wallet/state.log", "sync a/wallet/state.log",
			"ack generation 4 is safe on this device, protected in place-0",
		},
		"create": {
			"write a/.satchel-staging-<id>/objects/<hash>",
			"sync a/.satchel-staging-<id>", "rename a/wallet", "syncdir a",
			"write place-0/<folder>/slots/<temp>", "sync place-0/<folder>/slots/<temp>", "link place-0/<folder>/slots/*", "syncdir place-0/<folder>/slots", "read place-0/<folder>/slots/*",
			"write place-0/<folder>/items/keys/<temp>", "sync place-0/<folder>/items/keys/<temp>", "link place-0/<folder>/items/keys/*", "syncdir place-0/<folder>/items/keys", "read place-0/<folder>/items/keys/*",
			"write place-0/<folder>/snapshots/<temp>", "sync place-0/<folder>/snapshots/<temp>", "link place-0/<folder>/snapshots/*", "syncdir place-0/<folder>/snapshots", "read place-0/<folder>/snapshots/*",
			"append a/wallet/state.log", "sync a/wallet/state.log",
			"ack generation 1 is safe on this device, protected in place-0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, name, 1)
			w := s.copy(t)
			tr := newTrace(w)
			if err := s.do(w); err != nil {
				t.Fatal(err)
			}
			lines := tr.lines()
			t.Logf("what %s does:\n%s", name, strings.Join(lines, "\n"))
			for _, problem := range tr.problems {
				t.Error(problem)
			}
			rest := lines
			for _, step := range want {
				i := slices.IndexFunc(rest, func(line string) bool {
					line = strings.Join(strings.Fields(line), " ")
					begin, open := strings.CutSuffix(step, "*")
					return line == step || open && strings.HasPrefix(line, begin)
				})
				if i < 0 {
					t.Fatalf("%q does not come after what comes before it, in\n%s", step, strings.Join(lines, "\n"))
				}
				rest = rest[i+1:]
			}
		})
	}
}
