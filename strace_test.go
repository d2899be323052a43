package satchel_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel/internal/durable"
)

// straceEnv lets TestStrace run, where strace is installed and may look at
// processes.
const straceEnv = "SATCHEL_STRACE"

// R4: what the hook of package durable tells is what the system is asked: the
// real command, seen from outside, flushes everything before it answers.
func TestStrace(t *testing.T) {
	if os.Getenv(straceEnv) == "" {
		t.Skipf("%s is not set", straceEnv)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	command := filepath.Join(dir, "satchel")
	if out, err := exec.Command("go", "build", "-o", command, "./cmd/satchel").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	place := filepath.Join(dir, "place-0")
	if err := os.Mkdir(place, 0o700); err != nil {
		t.Fatal(err)
	}
	value := filepath.Join(dir, "value")
	write(t, value, []byte(strings.Repeat("x", 3000)))
	for i, args := range [][]string{
		{"create", "--in", place, "--unlock", "recovery-code", "--json"},
		{"put", "settings", value, "--json"},
		{"put", "--remove", "settings", "--json"},
	} {
		out := filepath.Join(dir, "strace")
		cmd := exec.Command("strace", append([]string{"-f", "-y", "-qq", "--signal=none", "-e",
			"trace=write,pwrite64,fsync,fdatasync,syncfs,ftruncate,linkat,link,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,openat",
			"-o", out, command}, args...)...)
		cmd.Env = []string{"HOME=" + dir, "SATCHEL_HOME=" + filepath.Join(dir, "device"), "SATCHEL_KEYCHAIN=file", "PATH=" + os.Getenv("PATH")}
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, text)
		}
		tr := newTrace(&setting{dir: dir})
		answered := readStrace(t, out, tr, uint64(i+1))
		flushes := 0
		for _, s := range tr.done {
			if s.Op == durable.OpSync || s.Op == durable.OpSyncDir {
				flushes++
			}
		}
		t.Logf("%s: %d steps, %d of them flush\n%s", args[0], len(tr.done), flushes, strings.Join(tr.lines(), "\n"))
		if !answered || flushes < 5 {
			t.Errorf("%v: answered: %v; %d flushes", args, answered, flushes)
		}
		for _, problem := range tr.problems {
			t.Errorf("%s: %s", args[0], problem)
		}
	}
}

var (
	straceCall = regexp.MustCompile(`^(\w+)\((.*)\)\s+= (\d+)`)
	straceFile = regexp.MustCompile(`^(?:\d+|AT_FDCWD)<(.*?)>, "(.*?)"`) // relative to a directory
)

// readStrace follows what strace saw below the trace's directory. The first write
// to the standard output is the answer, which says that the generation is
// protected in the only place. It reports whether there was one.
func readStrace(t *testing.T, file string, tr *trace, generation uint64) (answered bool) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	begun := map[string]string{} // by process, a call that another one interrupted
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		pid, line, _ := strings.Cut(in.Text(), " ")
		line = strings.TrimSpace(line)
		if head, ok := strings.CutSuffix(line, " <unfinished ...>"); ok {
			begun[pid] = head
			continue
		}
		if rest, ok := strings.CutPrefix(line, "<... "); ok {
			_, tail, ok := strings.Cut(rest, " resumed>")
			if !ok {
				t.Fatalf("not understood: %s", line)
			}
			line = begun[pid] + tail
		}
		call := straceCall.FindStringSubmatch(line)
		if call == nil {
			continue // It failed.
		}
		op, path := straceStep(t, call[1], call[2])
		switch {
		case op == opAck && !answered:
			answered = true
			tr.acknowledged(ack{State: state{Generation: generation}, Places: []uint64{generation}})
		case op == "", path != tr.root && !strings.HasPrefix(path, tr.root+"/"):
		default:
			tr.step(durable.Step{Op: op, Path: path})
			tr.step(durable.Step{Op: op, Path: path, Done: true})
		}
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	return answered
}

// straceStep says what a call of the system is in the words of package durable,
// "" if nothing.
func straceStep(t *testing.T, call, args string) (durable.Op, string) {
	t.Helper()
	at := func(args string) string {
		m := straceFile.FindStringSubmatch(args)
		if m == nil {
			t.Fatalf("not understood: %s(%s)", call, args)
		}
		if filepath.IsAbs(m[2]) {
			return m[2]
		}
		return filepath.Join(m[1], m[2])
	}
	fd, rest, _ := strings.Cut(args, "<")
	of, _, _ := strings.Cut(rest, ">")
	switch call {
	case "write", "pwrite64":
		if fd == "1" {
			return opAck, ""
		}
		if filepath.Base(of) == "state.log" {
			return durable.OpAppend, of
		}
		return durable.OpWrite, of
	case "ftruncate":
		return durable.OpTruncate, of
	case "fsync", "fdatasync", "syncfs":
		if call == "syncfs" || filepath.Ext(of) != "" && filepath.Base(of)[0] != '.' || durable.IsTemp(of) {
			return durable.OpSync, of
		}
		return durable.OpSyncDir, of // Satchel's directories have no dot in their names but at the beginning.
	case "linkat":
		_, second, _ := strings.Cut(args, `", `)
		return durable.OpLink, at(second)
	case "renameat", "renameat2":
		_, second, _ := strings.Cut(args, `", `)
		return durable.OpRename, at(second)
	case "mkdirat":
		return durable.OpMkdir, at(args)
	case "unlinkat":
		return durable.OpRemove, at(args)
	case "openat":
		if path := at(args); strings.Contains(args, "O_RDONLY") && strings.HasSuffix(path, ".age") {
			return opRead, path
		}
		return "", ""
	}
	t.Fatalf("not expected: %s(%s)", call, args)
	return "", ""
}
