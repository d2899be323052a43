package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel"
)

const (
	logName = "agent.log" // in the agent's directory; the one before has .1 behind it

	maxLog  = 5 << 20 // bytes of one log; there are two
	maxLine = 1 << 20 // bytes of one event in it; a longer one is left out
	logPoll = 500 * time.Millisecond
)

// eventLog is the log of an agent: its events as JSON lines, in two files of bounded size.
// What it cannot write, because the disk is full, it counts and says when it can.
type eventLog struct {
	path string
	max  int64
	fail func(error) // told when writing begins to fail

	f    *os.File // nil until it is needed
	size int64
	torn bool // the file may end in the middle of a line
	lost int  // events that could not be written
}

// add writes an event. One goroutine at a time calls it.
func (l *eventLog) add(e event) {
	line, err := json.Marshal(e.JSON)
	if err != nil || len(line) >= maxLine {
		return
	}
	if l.lost > 0 {
		note, _ := json.Marshal(eventJSON{ID: e.JSON.ID, Time: e.JSON.Time, Event: "log lost", Objects: l.lost,
			Text: count(l.lost, "event") + " could not be written to this log"})
		line = append(append(note, '\n'), line...)
	}
	if err := l.write(append(line, '\n')); err != nil {
		if l.lost == 0 {
			l.fail(err)
		}
		l.lost++
		l.close() // Another try may find another disk.
		return
	}
	l.lost = 0
}

func (l *eventLog) close() {
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
}

func (l *eventLog) write(data []byte) error {
	if l.f != nil && l.size+int64(len(data)) > l.max {
		l.close()
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return err
		}
	}
	if l.f == nil {
		if err := l.open(); err != nil {
			return err
		}
		if l.size > 0 && l.size+int64(len(data)) > l.max {
			return l.write(data)
		}
	}
	if l.torn {
		data = append([]byte("\n"), data...)
	}
	n, err := l.f.Write(data)
	l.size += int64(n)
	if l.torn = err != nil && (n > 0 || l.torn); err != nil {
		return err
	}
	return nil
}

func (l *eventLog) open() error {
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", l.path)
	}
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.size = f, info.Size()
	last := []byte{'\n'}
	if l.size > 0 {
		f.ReadAt(last, l.size-1)
	}
	l.torn = last[0] != '\n' // The power failed.
	return nil
}

func (a *app) agentLogsCommand() *cobra.Command {
	var follow bool
	var lines int
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Show what the agent did",
		Long: `Shows the last lines of the agent's own log, of all wallets or of the one that
--wallet names, whether an agent runs or not. The log is in the home of this device, in
two files of at most 5 MB each, and tells wallets and paths by name, but no secret.

JSON: the events as "satchel agent run --json" prints them.`,
		Example: `  satchel agent logs
  satchel agent logs -f
  satchel agent logs -n 0 --json | jq 'select(.event == "alarm")'`,
		Args:        args(cobra.NoArgs),
		Annotations: exits(satchel.CodeDone, satchel.CodeFailed, satchel.CodeUsage, satchel.CodeInterrupted),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if lines < 0 {
				return usagef("-n is a number of lines, or 0 for all")
			}
			return a.agentLogs(cmd.Context(), follow, lines)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is written from now on, until Ctrl-C")
	cmd.Flags().IntVarP(&lines, "lines", "n", 50, "show the last `N` lines; 0 for all")
	return cmd
}

func (a *app) agentLogs(ctx context.Context, follow bool, lines int) error {
	home, err := a.home()
	if err != nil {
		return err
	}
	path := filepath.Join(home, "agent", logName)
	var list []eventJSON
	var f *os.File
	for _, name := range []string{path + ".1", path} {
		f, err = os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		defer f.Close()
		r := bufio.NewReaderSize(f, maxLine)
		for {
			e, ok, err := a.nextEvent(r)
			if err != nil {
				break
			}
			if ok {
				list = append(list, e)
			}
			if lines > 0 && len(list) > 2*lines { // It need not hold the whole log.
				list = append(list[:0], list[len(list)-lines:]...)
			}
		}
	}
	if len(list) == 0 && !follow {
		a.note("the agent wrote nothing yet")
	}
	if lines > 0 && len(list) > lines {
		list = list[len(list)-lines:]
	}
	for _, e := range list {
		a.sayLogged(e)
	}
	if !follow {
		return nil
	}
	return a.followLog(ctx, path, f)
}

// nextEvent reads a line of the log. What is none, or of another wallet than is meant, is
// not ok. The error is io.EOF where there is no whole line.
func (a *app) nextEvent(r *bufio.Reader) (e eventJSON, ok bool, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return e, false, err
	}
	if json.Unmarshal(bytes.TrimSpace(line), &e) != nil || e.Event == "" {
		return e, false, nil
	}
	return e, strings.HasPrefix(e.Wallet, a.walletName), nil
}

// sayLogged prints an event of the log.
func (a *app) sayLogged(e eventJSON) {
	text := e.Text
	if e.Wallet != "" {
		text = e.Wallet + ": " + text
	}
	a.say("%s %s", e.Time.Local().Format("2006-01-02 15:04:05"), printable(text))
	if err := a.emit(e); err != nil && a.unsaid == nil {
		a.unsaid = unread(fmt.Errorf("writing the result: %w", err))
	}
}

// followLog prints what is written to the log behind where f has been read, until ctx
// ends or nobody reads it any more. f is nil if there is no log yet.
func (a *app) followLog(ctx context.Context, path string, f *os.File) error {
	var rest []byte // of a line that is not whole
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil && a.unsaid == nil {
		n := 0
		if f != nil {
			n, _ = f.Read(buf)
		}
		if n > 0 {
			rest = append(rest, buf[:n]...)
			for {
				line, after, ok := bytes.Cut(rest, []byte("\n"))
				if !ok {
					break
				}
				rest = after
				if e, ok, _ := a.nextEvent(bufio.NewReaderSize(io.MultiReader(bytes.NewReader(line), strings.NewReader("\n")), maxLine)); ok {
					a.sayLogged(e)
				}
			}
			continue
		}
		// Its end. Another file is there after a while.
		if next, err := os.Open(path); err == nil {
			now, err1 := next.Stat()
			var was fs.FileInfo
			var err2 error
			if f != nil {
				was, err2 = f.Stat()
			}
			if f == nil || err1 == nil && err2 == nil && !os.SameFile(now, was) {
				f, rest = next, nil
				defer next.Close()
				continue
			}
			next.Close()
		}
		pauseFor(ctx, logPoll)
	}
	return nil
}
