package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	// Flushing is free on a file system in memory.
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		os.Setenv("TMPDIR", "/dev/shm")
	}
	// The race detector would make each process a second longer.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	// Most of these tests wait for a process that waits.
	flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0)))
	testscript.Main(m, map[string]func(){
		"satchel": func() {
			stretching = &cheapStretching
			os.Exit(mainCode())
		},
		"browse": browse,
	})
}

// TestScripts runs the command as scripts do: no terminal, one process a call.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "user")
			for _, dir := range []string{home, filepath.Join(e.WorkDir, "cloud")} {
				if err := os.Mkdir(dir, 0o700); err != nil {
					return err
				}
			}
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Setenv("HOME", home)
			e.Setenv("USERPROFILE", home)
			e.Setenv("SATCHEL_HOME", filepath.Join(e.WorkDir, "device"))
			e.Setenv("SATCHEL_KEYCHAIN", "file")
			e.Setenv("CLOUD", filepath.Join(e.WorkDir, "cloud"))
			guards := &guardians{}
			e.Values[guardiansKey{}] = guards
			e.Defer(guards.close)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":     scriptCode,
			"field":    scriptField,
			"damage":   scriptDamage,
			"removeIn": scriptRemove,
			"absent":   scriptAbsent,
			"guard":    scriptGuard(t),
		},
		Condition: func(cond string) (bool, error) {
			if cond == "systemd" {
				return managed(), nil
			}
			return false, fmt.Errorf("no condition of this name: %s", cond)
		},
		RequireExplicitExec: true,
	})
}

// scriptCode is "code N COMMAND...": COMMAND ends with exit code N.
func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// scriptField is "field NAME FILE [VARIABLE]": the last JSON object that the last
// command printed has the field NAME, a string or number; it is written to FILE.
// Dots lead inward, as in places.0.health.
func scriptField(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: field NAME FILE [VARIABLE]")
	}
	lines := strings.Split(strings.TrimSpace(ts.ReadFile("stdout")), "\n")
	var v any
	ts.Check(json.Unmarshal([]byte(lines[len(lines)-1]), &v))
	for part := range strings.SplitSeq(args[0], ".") {
		switch container := v.(type) {
		case map[string]any:
			v = container[part]
		case []any:
			i, err := strconv.Atoi(part)
			ts.Check(err)
			v = container[i]
		}
	}
	text := fmt.Sprint(v)
	if v == nil || text == "" {
		ts.Fatalf("no field %s", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text+"\n"), 0o600))
	if len(args) > 2 {
		ts.Setenv(args[2], text)
	}
}

// oneFile returns the only file below dir whose path matches the pattern, or
// with "last:" before it the last by name.
func oneFile(ts *testscript.TestScript, dir, pattern string) string {
	pattern, last := strings.CutPrefix(pattern, "last:")
	re := regexp.MustCompile(pattern)
	var match []string
	ts.Check(filepath.WalkDir(ts.MkAbs(dir), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && re.MatchString(filepath.ToSlash(path)) {
			match = append(match, path)
		}
		return err
	}))
	if len(match) == 0 || len(match) > 1 && !last {
		ts.Fatalf("%s matches %d files", pattern, len(match))
	}
	return match[len(match)-1]
}

// scriptDamage is "damage DIR PATTERN": a byte in the middle of the file changes.
func scriptDamage(ts *testscript.TestScript, _ bool, args []string) {
	path := oneFile(ts, args[0], args[1])
	data, err := os.ReadFile(path)
	ts.Check(err)
	data[len(data)/2] ^= 1
	ts.Check(os.Chmod(path, 0o600))
	ts.Check(os.WriteFile(path, data, 0o600))
}

// scriptRemove is "removeIn DIR PATTERN": the file is removed.
func scriptRemove(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.Remove(oneFile(ts, args[0], args[1])))
}

// scriptAbsent is "absent FILE DIR...": what stands in FILE, one text a line, is
// in no file below the directories, and neither is it written without spaces.
func scriptAbsent(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: absent FILE DIR...")
	}
	files := 0
	for text := range strings.SplitSeq(strings.TrimSpace(ts.ReadFile(args[0])), "\n") {
		for _, dir := range args[1:] {
			ts.Check(filepath.WalkDir(ts.MkAbs(dir), func(path string, d os.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				data, err := os.ReadFile(path)
				files++
				if bytes.Contains(data, []byte(text)) != neg {
					ts.Fatalf("%s: a secret is there: %v", path, !neg)
				}
				return err
			}))
		}
	}
	if files == 0 {
		ts.Fatalf("no files to look at")
	}
}
