package main

import (
	"bufio"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/protocol"
)

// straceEnv lets TestStrace run, where strace is installed and may look at processes.
const straceEnv = "SATCHEL_STRACE"

// As the system sees it: whatever a server grants was written and flushed before the
// first byte of the answer leaves, and nothing is written for what it refuses.
func TestStrace(t *testing.T) {
	if os.Getenv(straceEnv) == "" {
		t.Skipf("%s is not set", straceEnv)
	}
	w := newWorld(t)
	out := filepath.Join(w.dir, "strace")
	w.wrap = []string{"strace", "-D", "-f", "-yy", "-qq", "--signal=none", "-e", "trace=read,write,pwrite64,pwritev,fsync,fdatasync,sync_file_range,ftruncate,openat,unlink,unlinkat,rename,renameat,renameat2", "-o", out}
	s := w.serve()
	s.get("/healthz") // The first look writes too; the next is later than this test.
	a := w.account()
	var asked []call
	ask := func(what string, writes bool, want protocol.Code, p protocol.Payload, reply any) {
		t.Helper()
		if err := a.ask(s.url, p, reply); code(err) != want {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
		asked = append(asked, call{what: what, writes: writes})
	}
	key := protocol.Public(newKey().Public().(ed25519.PublicKey))
	create := protocol.Create{Blinded: blind("4917").Blinded, Limit: 10}
	confirm := protocol.NewConfirm(a.proof, a.id, key, 1, key, a.slot)
	evaluate := protocol.Evaluate{Attempt: protocol.Attempt{1}, Blinded: blind("0").Blinded, Slot: a.slot}
	proven, other, damaged := evaluate, evaluate, evaluate
	proven.WithProof, other.Attempt, damaged.Slot = 1, protocol.Attempt{2}, [32]byte{9}
	head := newKey()
	headPublic := protocol.Public(head.Public().(ed25519.PublicKey))

	ask("status of no account", false, protocol.CodeUnknown, protocol.AskStatus{}, nil)
	ask("create", true, protocol.CodeOK, create, new(protocol.Created))
	ask("create again", true, protocol.CodeOK, create, new(protocol.Created))
	ask("confirm", true, protocol.CodeOK, confirm, nil)
	ask("confirm again", true, protocol.CodeOK, confirm, nil)
	ask("create that exists", false, protocol.CodeExists, create, nil)
	ask("evaluate", true, protocol.CodeOK, evaluate, new(protocol.Evaluated))
	ask("evaluate again", true, protocol.CodeOK, evaluate, new(protocol.Evaluated))
	ask("evaluate with proof", true, protocol.CodeOK, proven, new(protocol.Proven))
	ask("evaluate with another slot", false, protocol.CodeSlotDamaged, damaged, nil)
	ask("finish", true, protocol.CodeOK, protocol.NewFinish(a.proof, a.id, evaluate.Attempt, protocol.Nonce{}), new(protocol.Finished))
	ask("finish again", true, protocol.CodeOK, protocol.NewFinish(a.proof, a.id, evaluate.Attempt, protocol.Nonce{}), new(protocol.Finished))
	ask("finish by a thief", false, protocol.CodeDenied, protocol.NewFinish(head, a.id, evaluate.Attempt, protocol.Nonce{}), nil)
	ask("status", false, protocol.CodeOK, protocol.AskStatus{}, new(protocol.Status))
	ask("head of another epoch", false, protocol.CodeConflict, protocol.PutHead{Head: protocol.NewHead(head, 2, 1, [16]byte{}, 0)}, nil)
	ask("epoch by a thief", false, protocol.CodeDenied, protocol.NewInstallEpoch(head, 2, headPublic), nil)
	for i := range 3 {
		ask(fmt.Sprint("wrong guess ", i+1), true, protocol.CodeOK, protocol.Evaluate{Attempt: protocol.Attempt{byte(10 + i)}, Blinded: evaluate.Blinded, Slot: a.slot}, new(protocol.Evaluated))
	}
	ask("evaluate, locked", false, protocol.CodeLocked, other, nil)
	w.later(-1_000_000 * time.Hour) // The clock is set back.
	ask("evaluate with the clock set back", false, protocol.CodeLocked, other, nil)
	w.later(1_000_000 * time.Hour)
	ask("delete", true, protocol.CodeOK, protocol.NewDelete(a.proof, a.id, protocol.ByProofKey), nil)
	s.stop()

	got := readTrace(t, out)
	if len(got) != len(asked) {
		t.Fatalf("the trace has %d answers, want %d", len(got), len(asked))
	}
	flushes := 0
	for i, c := range got {
		flushes += c.flushes
		switch want := asked[i]; {
		case c.problem != nil:
			t.Errorf("%s: %v", want.what, c.problem)
		case want.writes && (c.written == 0 || c.flushes == 0):
			t.Errorf("%s: answered after %d writes and %d flushes", want.what, c.written, c.flushes)
		case !want.writes && c.written > 0:
			t.Errorf("%s: %d writes for what changes nothing", want.what, c.written)
		}
	}
	t.Logf("%d requests, %d flushes of the disk, each before the answer", len(got), flushes)
}

// call is one request, as it was asked, or as it is in a trace.
type call struct {
	what             string
	writes           bool
	written, flushes int
	problem          error
}

var straceCall = regexp.MustCompile(`^(\w+)\((.*)\)\s+= (-?\d+)`)

// readTrace reads the trace of a server that has one request at a time.
func readTrace(t *testing.T, file string) (list []call) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var now *call
	dirty := map[string]bool{} // files with what is not flushed
	begun := map[string]string{}
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		pid, line, _ := strings.Cut(in.Text(), " ")
		line = strings.TrimSpace(line)
		answer := func(head string) bool {
			return strings.HasPrefix(head, "write(") && strings.Contains(head, "<TCP:") && strings.Contains(head, `"HTTP/1.1 200`)
		}
		// An answer leaves when the call begins, not when it ends; a file is flushed when
		// the call ends.
		head, unfinished := strings.CutSuffix(line, " <unfinished ...>")
		if unfinished {
			begun[pid] = head
		}
		if answer(line) && now != nil {
			if len(dirty) > 0 {
				now.problem = fmt.Errorf("not flushed: %v", dirty)
			}
			list, now = append(list, *now), nil
		}
		if unfinished {
			continue
		}
		if rest, ok := strings.CutPrefix(line, "<... "); ok {
			_, tail, ok := strings.Cut(rest, " resumed>")
			if !ok {
				t.Fatalf("not understood: %s", line)
			}
			line = begun[pid] + tail
		}
		c := straceCall.FindStringSubmatch(line)
		if c == nil || strings.HasPrefix(c[3], "-") {
			continue
		}
		_, of, _ := strings.Cut(c[2], "<")
		of, _, _ = strings.Cut(of, ">")
		records := strings.Contains(of, "records.db") && !strings.HasSuffix(of, "-shm") // which is not for keeps
		switch c[1] {
		case "read":
			// The first byte is sometimes read by itself.
			if strings.HasPrefix(of, "TCP:") && strings.Contains(c[2], `OST `+protocol.Path) {
				if now != nil {
					t.Fatal("two requests at once")
				}
				now = &call{}
			}
		case "write", "pwrite64", "pwritev", "ftruncate":
			if records {
				dirty[of] = true
				if now != nil {
					now.written++
				}
			}
		case "fsync", "fdatasync":
			if records {
				delete(dirty, of)
				if now != nil {
					now.flushes++
				}
			}
		}
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}
