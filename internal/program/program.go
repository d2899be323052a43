// Package program runs another program of the user's, once, for the stores that
// reach their cloud through one:
//
//	out, err := program.Run(ctx, program.Command{Path: "rclone", Args: args, Limit: 1 << 20})
//
// What it prints is bounded, its messages for people are thrown away, since they
// may hold what is secret, and when the context ends it ends, with the programs
// that it started.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"time"
)

var (
	// ErrNotInstalled says that there is no such program on this machine.
	ErrNotInstalled = errors.New("the program is not installed, or not where programs are looked for")
	// ErrOutput says that the program printed more than the limit, and was ended.
	ErrOutput = errors.New("the program printed too much")
)

// ExitError says with which code a program ended that did not do what it was
// asked to. What the code means is the program's own affair.
type ExitError struct {
	Name string // of the program, without its directory
	Code int    // -1 if a signal ended it
}

func (e *ExitError) Error() string { return fmt.Sprintf("%s ended with code %d", e.Name, e.Code) }

// Command is one run of a program.
type Command struct {
	// Path is the program's name, looked for where the system looks, or its path.
	Path string
	// Args are the arguments. Every user of the machine can read them while the
	// program runs: nothing secret belongs here.
	Args []string
	// Env is the environment; nil means this process's own.
	Env []string
	// Stdin is what the program reads; nil means nothing.
	Stdin []byte
	// Limit is the number of bytes that the program may print.
	Limit int64
	// NewSession takes the terminal from the program, so that it can ask nobody
	// anything. Where systems have no sessions it does nothing.
	NewSession bool
}

// endWait is how long a program that was killed may keep its pipes open: something
// that it started may have left its group.
const endWait = 2 * time.Second

// Run runs the program and returns what it printed. The error is the context's if
// that ended, a *ExitError if the program ended with another code than zero,
// ErrOutput, ErrNotInstalled, or one of the system. What was printed is returned
// with an *ExitError too.
func Run(ctx context.Context, c Command) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	runCtx, stop := context.WithCancel(ctx)
	defer stop()
	cmd := exec.CommandContext(runCtx, c.Path, c.Args...)
	if cmd.Err != nil {
		// A program that stands only in the working directory counts as none.
		return nil, fmt.Errorf("%w: %w", ErrNotInstalled, cmd.Err)
	}
	cmd.Env = c.Env
	if c.Stdin != nil {
		cmd.Stdin = bytes.NewReader(c.Stdin)
	}
	out := &bounded{left: c.Limit, full: stop}
	cmd.Stdout = out
	cmd.WaitDelay = endWait
	apart(cmd, c.NewSession)
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case out.over:
		return nil, ErrOutput
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success():
		// In the second case something that it left running keeps its output open.
		return out.buf.Bytes(), nil
	case errors.Is(err, exec.ErrNotFound), cmd.Process == nil && errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %w", ErrNotInstalled, err)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.buf.Bytes(), &ExitError{Name: filepath.Base(c.Path), Code: exit.ExitCode()}
	}
	return nil, err
}

// bounded keeps what is written to it, and calls full once there is more than it
// may keep. The package exec writes to it from one goroutine and waits for that.
type bounded struct {
	buf  bytes.Buffer
	left int64
	over bool
	full func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		b.over = true
		b.full()
		return 0, ErrOutput
	}
	b.left -= int64(len(p))
	return b.buf.Write(p)
}
