package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/satchel-backup/satchel/secret"
)

// terminal is where a person is asked. Questions never go to the standard output:
// that is for results.
type terminal struct {
	in     *os.File
	out    io.Writer
	opened []*os.File
	bold   bool
}

// maxTyped bounds what is read in answer to a question.
const maxTyped = 4096

// openTerminal returns the terminal of whoever started this command, or nil if
// there is none: then nobody is asked anything.
func openTerminal(stdin io.Reader, stderr io.Writer, getenv func(string) string) *terminal {
	in, inOK := asTerminal(stdin)
	out, outOK := asTerminal(stderr)
	t := &terminal{bold: getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"}
	switch {
	case inOK && outOK:
		t.in, t.out = in, out
		return t
	case !inOK && !outOK:
		return nil
	}
	// One of them leads elsewhere: the terminal is still there under its own name.
	read, write := "/dev/tty", "/dev/tty"
	if runtime.GOOS == "windows" {
		read, write = "CONIN$", "CONOUT$"
	}
	r, err := os.OpenFile(read, os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	w, err := os.OpenFile(write, os.O_RDWR, 0)
	if err != nil {
		r.Close()
		return nil
	}
	t.in, t.out, t.opened = r, w, []*os.File{r, w}
	return t
}

func asTerminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	return f, ok && f != nil && term.IsTerminal(int(f.Fd()))
}

func (t *terminal) close() {
	if t == nil {
		return
	}
	for _, f := range t.opened {
		f.Close()
	}
}

func (t *terminal) print(format string, args ...any) {
	fmt.Fprintf(t.out, format, args...)
}

func (t *terminal) strong(s string) string {
	if !t.bold {
		return s
	}
	return boldOn + s + boldOff
}

const (
	boldOn  = "\x1b[1m"
	boldOff = "\x1b[0m"
)

// line asks for a line of text. Without an answer (Ctrl-D, Ctrl-C) the error is
// context.Canceled.
func (t *terminal) line(ctx context.Context, prompt string) (string, error) {
	t.print("%s", prompt)
	got, err := t.read(ctx, func() ([]byte, error) { return readLine(t.in, maxTyped) })
	if err != nil {
		t.print("\n")
		return "", err
	}
	return strings.TrimSpace(string(got)), nil
}

// secret asks for a line that does not appear on the screen.
func (t *terminal) secret(ctx context.Context, prompt string) (secret.Bytes, error) {
	t.print("%s", prompt)
	fd := int(t.in.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return secret.Bytes{}, err
	}
	got, err := t.read(ctx, func() ([]byte, error) { return readHidden(t.in) })
	if err != nil {
		_ = term.Restore(fd, state)
	}
	t.print("\n")
	defer clear(got)
	return secret.New(got), err
}

// errNoAnswer says that a question was ended with Ctrl-D.
var errNoAnswer = errors.New("ended: no answer was given")

// read waits for an answer or for the end of ctx.
func (t *terminal) read(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	got, err := await(ctx, read)
	if err == io.EOF {
		return nil, fmt.Errorf("%w: %w", errNoAnswer, context.Canceled)
	}
	return got, err
}

// await waits for a read to end, or for the end of ctx. In the second case a
// goroutine stays behind in the read, which nothing can interrupt; the command is
// about to end, and the process with it.
func await(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	type answer struct {
		data []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		data, err := read()
		done <- answer{data, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case got := <-done:
		return got.data, got.err
	}
}

// choose asks for one of several things by number. Enter takes the one at
// preferred, unless that is negative.
func (t *terminal) choose(ctx context.Context, question string, options []string, preferred int) (int, error) {
	t.print("%s\n\n", t.strong(question))
	for i, o := range options {
		t.print("  %d  %s\n", i+1, strings.ReplaceAll(o, "\n", "\n     "))
	}
	t.print("\n")
	prompt := "Number: "
	if preferred >= 0 {
		prompt = fmt.Sprintf("Number [%d]: ", preferred+1)
	}
	for {
		typed, err := t.line(ctx, prompt)
		if err != nil {
			return 0, err
		}
		if typed == "" && preferred >= 0 {
			return preferred, nil
		}
		if n, err := strconv.Atoi(typed); err == nil && n >= 1 && n <= len(options) {
			return n - 1, nil
		}
		t.print("Please type a number from 1 to %d.\n", len(options))
	}
}

// yes asks a question that is answered by yes or no.
func (t *terminal) yes(ctx context.Context, question string, preferred bool) (bool, error) {
	choice := " [y/N] "
	if preferred {
		choice = " [Y/n] "
	}
	for {
		typed, err := t.line(ctx, question+choice)
		if err != nil {
			return false, err
		}
		switch strings.ToLower(typed) {
		case "":
			return preferred, nil
		case "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		}
		t.print("Please type y or n.\n")
	}
}

// readLine reads up to a line feed, and not a byte further: what follows may be
// for somebody else. io.EOF means that there was nothing at all.
func readLine(r io.Reader, limit int) ([]byte, error) {
	line := make([]byte, 0, limit)
	var b [1]byte
	for {
		n, err := r.Read(b[:])
		switch {
		case n == 1 && b[0] == '\n':
			return trimCR(line), nil
		case n == 1 && len(line) == limit:
			clear(line)
			return nil, fmt.Errorf("the line is longer than %d bytes", limit)
		case n == 1:
			line = append(line, b[0])
		case err == io.EOF && len(line) > 0:
			return trimCR(line), nil
		case err != nil:
			clear(line)
			return nil, err
		}
	}
}

func trimCR(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1]
	}
	return line
}
