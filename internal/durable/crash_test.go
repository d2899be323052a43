package durable_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/satchel-backup/satchel/internal/durable"
)

// A process that has crashEnv set is the victim of TestKill: it does the
// operation named by its arguments and is killed at the given call of the hook.
const crashEnv = "SATCHEL_TEST_CRASH"

func TestMain(m *testing.M) {
	if os.Getenv(crashEnv) != "" {
		victim(os.Args[1], os.Args[2], os.Args[3])
		return
	}
	os.Exit(m.Run())
}

var operations = map[string]func(durable.Disk, string) error{
	"write":  func(d durable.Disk, path string) error { return d.WriteFile(path, []byte("new"), 0o600) },
	"create": func(d durable.Disk, path string) error { return d.CreateFile(path, []byte("new"), 0o600) },
	"append": func(d durable.Disk, path string) error {
		l, _, _, err := d.OpenLog(path)
		if err != nil {
			return err
		}
		return l.AppendAll([][]byte{[]byte("three"), []byte("four")})
	},
	"rewrite": func(d durable.Disk, path string) error {
		l, _, _, err := d.OpenLog(path)
		if err != nil {
			return err
		}
		return l.Rewrite([][]byte{[]byte("1+2")})
	},
}

func victim(op, path, step string) {
	n, err := strconv.Atoi(step)
	if err != nil {
		os.Exit(2)
	}
	d := durable.Disk{Hook: func(durable.Step) error {
		if n == 0 {
			self, _ := os.FindProcess(os.Getpid())
			self.Kill()
			select {} // Until the signal is there.
		}
		n--
		return nil
	}}
	if err := operations[op](d, path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// kill -9 before and after every step leaves the old state or the new one (R4).
func TestKill(t *testing.T) {
	for op := range operations {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			sawOld, sawNew := false, false
			for n := 0; ; n++ {
				path := filepath.Join(t.TempDir(), "f")
				switch op {
				case "write":
					os.WriteFile(path, []byte("old"), 0o600)
				case "append", "rewrite":
					l, _, _ := open(t, path)
					add(t, l, "one", "two")
				}
				cmd := exec.Command(os.Args[0], op, path, strconv.Itoa(n))
				cmd.Env = append(os.Environ(), crashEnv+"=1")
				out, err := cmd.CombinedOutput()
				if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() == 2 || exit.ExitCode() == 3) {
					t.Fatalf("%v: %s", err, out)
				}
				survived := err == nil

				switch op {
				case "write", "create":
					got, err := os.ReadFile(path)
					switch {
					case string(got) == "new":
						sawNew = true
					case op == "write" && string(got) == "old", op == "create" && errors.Is(err, fs.ErrNotExist):
						sawOld = true
						if survived {
							t.Error("nothing was written")
						}
					default:
						t.Errorf("killed at %d: got %q, %v", n, got, err)
					}
				default:
					_, got, _ := open(t, path)
					newer := []string{"one", "two", "three", "four"}
					if op == "rewrite" {
						newer = []string{"1+2"}
					}
					switch {
					case slices.Equal(got, newer):
						sawNew = true
					case slices.Equal(got, []string{"one", "two"}) && !survived:
						sawOld = true
					default:
						t.Errorf("killed at %d: got %q", n, got)
					}
				}
				for _, name := range names(t, filepath.Dir(path)) {
					if name != "f" && name != "temp" {
						t.Errorf("killed at %d: left %s", n, name)
					}
				}
				if survived {
					break
				}
			}
			if !sawOld || !sawNew {
				t.Errorf("saw old %v, new %v, want both", sawOld, sawNew)
			}
		})
	}
}
