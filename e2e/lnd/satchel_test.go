package lnd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A device is a computer of its own, with a home directory and nothing of the one the
// tests run on but its programs.
type device struct {
	home string
	env  []string // more than what every device has
}

func newDevice(t testing.TB) device {
	t.Helper()
	home := filepath.Join(t.TempDir(), "ann")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	return device{home: home}
}

// data is where satchel keeps what it has on the device.
func (d device) data() string { return filepath.Join(d.home, "satchel") }

// command is a call of satchel that begins when the caller wants it to. The secrets are
// on the file descriptors 3, 4, …: none is ever an argument.
func (d device) command(t testing.TB, secrets []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := d.plain(args...)
	for _, s := range secrets {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		// A pipe holds this, so it does not wait.
		if _, err := io.WriteString(w, s+"\n"); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, r)
	}
	return cmd
}

// plain is a call of satchel without secrets.
func (d device) plain(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, "satchel"), args...)
	cmd.Env = append([]string{
		"HOME=" + d.home, "SATCHEL_HOME=" + d.data(), "SATCHEL_KEYCHAIN=file",
		"PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH"),
		"TMPDIR=" + os.TempDir(), "TERM=dumb", "NO_COLOR=1", "LANG=C.UTF-8", "TZ=UTC",
	}, d.env...)
	cmd.Dir = d.home
	return cmd
}

// An answer is what a command said, and its exit code.
type answer struct {
	command string
	out     []byte
	errs    string
	code    int
	took    time.Duration
}

// try runs satchel.
func (d device) try(t testing.TB, secrets []string, args ...string) answer {
	t.Helper()
	a, err := run(d.command(t, secrets, args...))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func run(cmd *exec.Cmd) (answer, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return answer{}, err
	}
	return answer{"satchel " + strings.Join(cmd.Args[1:], " "), out.Bytes(), errs.String(), cmd.ProcessState.ExitCode(), time.Since(began)}, nil
}

// satchel runs satchel, which must be done with it.
func (d device) satchel(t testing.TB, secrets []string, args ...string) answer {
	t.Helper()
	a := d.try(t, secrets, args...)
	if a.code != 0 {
		t.Fatalf("%s", a)
	}
	return a
}

func (a answer) String() string {
	return fmt.Sprintf("%s: exit code %d\n%s%s", a.command, a.code, a.out, a.errs)
}

// json decodes the last object that was printed.
func (a answer) json(t testing.TB, v any) {
	t.Helper()
	lines := bytes.Split(bytes.TrimSpace(a.out), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-1], v); err != nil {
		t.Fatalf("%v: %s", err, a)
	}
}

// A keyServer is a process of satchel-keyserver with a database of its own.
type keyServer struct {
	name string
	*process
}

var servingLine = regexp.MustCompile(`msg=serving .*\blisten=(\S+)`)

func startKeyServer(t testing.TB) keyServer {
	t.Helper()
	serving := make(chan string, 1)
	cmd := exec.Command(filepath.Join(bin, "satchel-keyserver"), "serve", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	p := listen(t, "satchel-keyserver", cmd, func(line string) {
		if m := servingLine.FindStringSubmatch(line); m != nil {
			serving <- m[1]
		}
	})
	select {
	case address := <-serving:
		return keyServer{"http://" + address, p}
	case <-p.done:
		t.Fatal(p.alive())
	case <-time.After(startLimit):
		t.Fatal("the key server does not serve")
	}
	panic("not reached")
}
