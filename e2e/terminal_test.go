package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// terminalLimit is how long a program may take that a person waits for.
const terminalLimit = 2 * time.Minute

// onTerminal runs a program as on a terminal of its own. answer is asked, with
// what stands on the line, whenever the program waits for a person. onTerminal
// returns what appeared on the terminal, without colours. If cmd.Stdout is set,
// the standard output is not part of that.
func onTerminal(t *testing.T, cmd *exec.Cmd, answer func(prompt string) (string, error)) (string, error) {
	t.Helper()
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()

	var mu sync.Mutex // guards screen and changed
	var screen bytes.Buffer
	changed := time.Now()
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			mu.Lock()
			screen.Write(buf[:n])
			changed = time.Now()
			mu.Unlock()
			if err != nil {
				return // The last program that has the terminal is gone.
			}
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	kill := func() {
		// The program leads a session: its children go with it.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	text := func() string {
		mu.Lock()
		defer mu.Unlock()
		return plain(screen.String())
	}
	late := time.After(terminalLimit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	answered := 0 // bytes on the screen at the last answer
	for {
		select {
		case err := <-ended:
			select {
			case <-read:
			case <-time.After(5 * time.Second): // Something in the background holds the terminal.
			}
			return text(), err
		case <-late:
			kill()
			<-ended
			return text(), errors.New("it did not end in time")
		case <-tick.C:
		}
		mu.Lock()
		n, quiet := screen.Len(), time.Since(changed)
		var since string
		if n > answered {
			since = plain(screen.String()[answered:])
		}
		mu.Unlock()
		prompt := since[strings.LastIndex(since, "\n")+1:]
		if !promptForm.MatchString(prompt) || !echoOff(tty) && quiet < 300*time.Millisecond {
			continue
		}
		typed, err := answer(prompt)
		if err != nil {
			kill()
			<-ended
			return text(), fmt.Errorf("asked %q: %w", prompt, err)
		}
		answered = n
		if !keyForm.MatchString(prompt) {
			typed += "\n"
		}
		if _, err := tty.WriteString(typed); err != nil {
			t.Fatal(err)
		}
	}
}

// promptForm is how a line ends behind which a person is expected to type.
var promptForm = regexp.MustCompile(`(:|\?|\]|\(press \[.*\)) ?$`)

// keyForm is how one ends that takes a single key, without Enter.
var keyForm = regexp.MustCompile(`\(press \[.*\) ?$`)

// echoOff reports whether a program reads a secret.
func echoOff(tty *os.File) bool {
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	return err == nil && state.Lflag&unix.ECHO == 0
}

var escapes = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)

// plain is a screen as text: without escape sequences, and of a line that was
// written over only what was written last.
func plain(s string) string {
	lines := strings.Split(escapes.ReplaceAllString(strings.ReplaceAll(s, "\r\n", "\n"), ""), "\n")
	for i, l := range lines {
		l = strings.TrimRight(l, "\r")
		lines[i] = l[strings.LastIndex(l, "\r")+1:]
	}
	return strings.Join(lines, "\n")
}
