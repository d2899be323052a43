package lnd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"testing"
)

// A process is a program that the tests started. It ends with the test, whose log has
// the end of its output if the test failed.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *tail
	done chan struct{}
	err  error // how it ended; written before done is closed
}

// start starts a program and keeps the end of what it says.
func start(t testing.TB, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, out: &tail{}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	p.begin(t)
	return p
}

// listen starts a program and hands each line that it says to f.
func listen(t testing.TB, name string, cmd *exec.Cmd, f func(line string)) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, out: &tail{}, done: make(chan struct{})}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	p.begin(t)
	go func() {
		<-p.done
		w.Close()
	}()
	go func() {
		for lines := bufio.NewScanner(io.TeeReader(r, p.out)); lines.Scan(); {
			f(lines.Text())
		}
		io.Copy(p.out, r) // of a line that is too long
	}()
	return p
}

func (p *process) begin(t testing.TB) {
	t.Helper()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the end of what %s said:\n%s", p.name, p.out)
		}
	})
}

// ended reports whether it did.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill ends it as a power cut does.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// term asks it to end, and waits until it did.
func (p *process) term(t testing.TB) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, waitLimit, p.name+" ends", func() error {
		if !p.ended() {
			return errors.New("it goes on")
		}
		return nil
	})
}

// alive is an error if it ended.
func (p *process) alive() error {
	if p.ended() {
		return fmt.Errorf("%s ended: %v\n%s", p.name, p.err, p.out)
	}
	return nil
}

const tailSize = 16 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	if over := w.buf.Len() - tailSize; over > tailSize {
		w.buf.Next(over)
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.buf.Bytes()
	return string(b[max(0, len(b)-tailSize):])
}
