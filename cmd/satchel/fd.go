package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// direction is what a file descriptor that a flag names is used for.
type direction int

const (
	reading direction = iota
	writing
)

// fdFlags are the flags that name a file descriptor.
var fdFlags = map[string]direction{
	"secret-fd":     reading,
	"new-secret-fd": reading,
	"passphrase-fd": reading,
	"words-fd":      reading,
	"code-fd":       writing,

	"pin-fd":                reading,
	"pin-passphrase-fd":     reading,
	"new-pin-fd":            reading,
	"new-pin-passphrase-fd": reading,
	"token-fd":              reading,
	"password-fd":           reading,
	"lnd-password-fd":       reading,
	"to-fd":                 writing,
}

// takeFDs takes over the file descriptors that flags name, before this program
// opens a file: a number that stood for nothing would be given to that file, and
// a secret be written into it.
func (a *app) takeFDs(cmd *cobra.Command) (err error) {
	a.fds = map[int]*os.File{}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		d, ok := fdFlags[f.Name]
		if !ok || err != nil {
			return
		}
		n, _ := strconv.Atoi(f.Value.String())
		if problem := a.takeFD(n, d); problem != nil {
			err = &usageError{
				text: fmt.Sprintf("--%s %d: %v", f.Name, n, problem),
				hint: fmt.Sprintf("open it for this command, such as: satchel … --%s 3 %s", f.Name, []string{"3<file", "3>file"}[d]),
			}
		}
	})
	return err
}

func (a *app) takeFD(n int, d direction) error {
	switch {
	case n == 0 && d == reading, (n == 1 || n == 2) && d == writing:
		return nil // the standard streams
	case n <= 2:
		return fmt.Errorf("not a file descriptor for %s", []string{"reading", "writing"}[d])
	}
	if err := checkFD(n, d); err != nil || a.fds[n] != nil {
		return err
	}
	f, err := copyFD(n)
	if err == nil {
		a.fds[n] = f
	}
	return err
}

// file returns what a descriptor that a flag names is read from.
func (a *app) file(fd int) io.Reader {
	if fd == 0 {
		return a.stdin
	}
	return a.fds[fd]
}

// writeFD writes to a descriptor that a flag names, and clears data.
func (a *app) writeFD(ctx context.Context, fd int, data []byte) error {
	var w io.Writer
	switch fd {
	case 1:
		w = a.stdout
	case 2:
		w = a.stderr
	default:
		w = a.fds[fd]
	}
	return writeTo(ctx, w, data)
}

// writeTo writes data and clears it. A pipe may be full, and nobody read it: then the
// write ends with ctx, and a goroutine stays behind in it, as in await.
func writeTo(ctx context.Context, w io.Writer, data []byte) error {
	_, err := await(ctx, func() ([]byte, error) {
		defer clear(data)
		_, err := w.Write(data)
		return nil, err
	})
	return err
}
