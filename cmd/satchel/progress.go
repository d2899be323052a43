package main

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/satchel-backup/satchel"
)

// progressLine shows how far a long operation is: one line that is rewritten, on
// a terminal; a line for each stage with -v; else nothing.
type progressLine struct {
	out     io.Writer
	rewrite bool
	verbose bool
	waiting func() string // what is said while another process has the wallet

	mu    sync.Mutex
	shown int    // columns that the line now takes
	last  string // what was printed last
}

func newProgressLine(a *app) *progressLine {
	_, tty := asTerminal(a.stderr)
	return &progressLine{out: a.stderr, rewrite: tty && !a.json && a.getenv("TERM") != "dumb", verbose: a.verbose, waiting: a.waitingFor}
}

// update shows a step. It is the Progress of a satchel.Config.
func (p *progressLine) update(s satchel.Progress) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	text := string(s.Stage)
	if s.Stage == satchel.Waiting {
		text = p.waiting()
	}
	if s.Place != "" {
		text += " " + printable(s.Place)
	}
	if p.verbose {
		if text != p.last {
			p.clear()
			fmt.Fprintf(p.out, "satchel: %s\n", text)
		}
		p.last = text
		return
	}
	if !p.rewrite {
		return
	}
	if s.Total > 1 {
		text += fmt.Sprintf(" %d/%d", s.Done, s.Total)
	}
	switch {
	case s.Size > 0:
		text += fmt.Sprintf(", %.1f of %.1f MB", float64(s.Bytes)/1e6, float64(s.Size)/1e6)
	case s.Bytes > 0:
		text += fmt.Sprintf(", %.1f MB", float64(s.Bytes)/1e6)
	}
	runes := []rune(text)
	if len(runes) > helpWidth-5 {
		runes = append(runes[:helpWidth-6], '…')
	}
	line := string(runes) + " …"
	if line == p.last {
		return
	}
	p.last = line
	pad := max(0, p.shown-len(runes)-2)
	fmt.Fprintf(p.out, "\r%s%s", line, strings.Repeat(" ", pad))
	p.shown = len(runes) + 2
}

// clear takes the line away. The caller holds mu.
func (p *progressLine) clear() {
	if p.shown > 0 {
		fmt.Fprintf(p.out, "\r%s\r", strings.Repeat(" ", p.shown))
		p.shown = 0
	}
}

// pause takes the line away before something else is printed.
func (p *progressLine) pause() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	p.last = ""
}

func (p *progressLine) end() { p.pause() }
