package program_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/program"
)

// The test's own binary does what this variable says.
const do = "PROGRAM_TEST_DO"

func TestMain(m *testing.M) {
	switch os.Getenv(do) {
	case "":
		os.Exit(m.Run())
	case "echo":
		fmt.Fprintln(os.Stderr, "for people")
		io.Copy(os.Stdout, os.Stdin)
	case "flood":
		for {
			if _, err := os.Stdout.Write(make([]byte, 1<<16)); err != nil {
				os.Exit(3)
			}
		}
	case "hang":
		time.Sleep(time.Hour)
	case "leave": // something running that has our output
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), do+"=hang")
		child.Stdout = os.Stdout
		if err := child.Start(); err != nil {
			os.Exit(1)
		}
		fmt.Print(child.Process.Pid)
	case "session":
		fmt.Print(ownSession())
	default:
		code, _ := strconv.Atoi(os.Getenv(do))
		fmt.Print("some")
		os.Exit(code)
	}
	os.Exit(0)
}

func self(t *testing.T, what string) program.Command {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return program.Command{Path: path, Env: append(os.Environ(), do+"="+what, "GORACE=atexit_sleep_ms=0"), Limit: 1 << 20}
}

func TestRun(t *testing.T) {
	c := self(t, "echo")
	for _, in := range [][]byte{nil, {}, []byte("hello"), bytes.Repeat([]byte("x"), 1<<20)} {
		c.Stdin = in
		if got, err := program.Run(t.Context(), c); err != nil || !bytes.Equal(got, in) {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, len(in))
		}
	}
	c.Stdin = make([]byte, 1<<20+1)
	if _, err := program.Run(t.Context(), c); !errors.Is(err, program.ErrOutput) {
		t.Errorf("got %v, want ErrOutput", err)
	}
}

// R18: what never ends printing is ended.
func TestFlood(t *testing.T) {
	if got, err := program.Run(t.Context(), self(t, "flood")); !errors.Is(err, program.ErrOutput) || got != nil {
		t.Errorf("got %d bytes, %v, want ErrOutput", len(got), err)
	}
}

func TestExitCode(t *testing.T) {
	for _, code := range []int{1, 3, 7, 77} {
		got, err := program.Run(t.Context(), self(t, strconv.Itoa(code)))
		exit, ok := errors.AsType[*program.ExitError](err)
		if !ok || exit.Code != code || exit.Name == "" || string(got) != "some" {
			t.Errorf("got %q, %v, want code %d", got, err, code)
		}
	}
}

func TestNotInstalled(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"no-such-program", filepath.Join(dir, "none")} {
		if _, err := program.Run(t.Context(), program.Command{Path: path}); !errors.Is(err, program.ErrNotInstalled) {
			t.Errorf("got %v, want ErrNotInstalled", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "text"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := program.Run(t.Context(), program.Command{Path: filepath.Join(dir, "text")})
	if err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want an error", err)
	}
}

func TestContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := program.Run(ctx, self(t, "hang")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if _, err := program.Run(ctx, self(t, "echo")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// A helper that a program leaves running does not make it fail.
func TestLeavesHelper(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two seconds")
	}
	got, err := program.Run(t.Context(), self(t, "leave"))
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := strconv.Atoi(string(got)); err == nil {
		if p, err := os.FindProcess(pid); err == nil {
			p.Kill()
		}
	} else {
		t.Error(err)
	}
}

func TestSession(t *testing.T) {
	for _, own := range []bool{false, true} {
		c := self(t, "session")
		c.NewSession = own
		if got, err := program.Run(t.Context(), c); err != nil || string(got) != strconv.FormatBool(own) && string(got) != "unknown" {
			t.Errorf("got %s, %v, want %v", got, err, own)
		}
	}
}
