package lnd

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bin has satchel and satchel-keyserver, lndBin has btcd, btcctl, lnd and lncli.
var bin, lndBin string

var hold = flag.Bool("hold", false, "keep two nodes up for trying things by hand (TestHold)")

// Everything below runs in a process of its own, so that no node outlives the tests,
// also where they end in the middle: the outer process kills the group and removes the
// folder.
const inner = "SATCHEL_LND_INNER"

func TestMain(m *testing.M) {
	flag.Parse()
	if dir := os.Getenv(inner); dir != "" {
		os.Exit(innerMain(m, dir))
	}
	code, err := outerMain()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func outerMain() (int, error) {
	dir, err := os.MkdirTemp("", "satchel-lnd-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inner+"="+dir, "TMPDIR="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A node that the tests left behind would keep the output open.
	cmd.WaitDelay = 10 * time.Second
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(cmd.ProcessState.ExitCode(), 1), nil
	}
	return 0, err
}

func innerMain(m *testing.M, dir string) int {
	// What is listed or not run needs no programs.
	if f := flag.Lookup("test.list"); f.Value.String() != "" {
		return m.Run()
	}
	bin = filepath.Join(dir, "bin")
	build := exec.Command("go", "-C", "../..", "build", "-o", bin+"/", "./cmd/satchel", "./cmd/satchel-keyserver")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
		return 1
	}
	var err error
	if lndBin, err = lndPrograms(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// lndTags are what a release of lnd is built with, as far as a test needs it.
const lndTags = "signrpc walletrpc chainrpc invoicesrpc peersrpc"

// lndPrograms returns the folder with btcd and lnd of the versions that go.mod names.
// They are built once and kept in the user's cache.
func lndPrograms() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOOS, runtime.GOARCH, lndTags)
	sum, err := os.ReadFile("go.sum")
	if err != nil {
		return "", err
	}
	h.Write(sum)
	dir := filepath.Join(cache, "satchel-e2e", fmt.Sprintf("%x", h.Sum(nil)[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	fmt.Fprintln(os.Stderr, "building btcd and lnd, which takes some minutes, once")
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	// Complete under its name, or not there at all.
	part, err := os.MkdirTemp(filepath.Dir(dir), "part-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	for _, args := range []string{
		"github.com/btcsuite/btcd github.com/btcsuite/btcd/cmd/btcctl",
		"github.com/lightningnetwork/lnd/cmd/lnd github.com/lightningnetwork/lnd/cmd/lncli",
	} {
		cmd := exec.Command("go", append([]string{"install", "-ldflags=-s -w", "-tags=" + lndTags}, strings.Fields(args)...)...)
		cmd.Env = append(os.Environ(), "GOBIN="+part)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %v\n%s", cmd, err, out)
		}
	}
	// Another process may have been first; what it made is as good.
	if err := os.Rename(part, dir); err != nil {
		if _, there := os.Stat(dir); there != nil {
			return "", err
		}
	}
	return dir, nil
}

// TestPrograms says where btcd and lnd are, for scripts.
func TestPrograms(*testing.T) { fmt.Println("programs:", lndBin) }
