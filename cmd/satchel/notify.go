package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// notifier tells the service manager how the agent is, as sd_notify(3) describes it: one
// datagram a message. Without a service manager it does nothing.
type notifier struct {
	socket string        // "" if nobody wants to be told
	every  time.Duration // between signs of life, 0 if none are wanted
	status string        // what was told last
}

func newNotifier(getenv func(string) string) *notifier {
	n := &notifier{socket: getenv("NOTIFY_SOCKET")}
	if usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
		if pid := getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
			n.every = time.Duration(usec) * time.Microsecond / 3
		}
	}
	return n
}

// tell sends assignments such as READY=1. Who cannot be told misses a sign of life, and
// that is what the service manager is there for.
func (n *notifier) tell(lines ...string) {
	if n.socket == "" {
		return
	}
	name := n.socket
	if strings.HasPrefix(name, "@") { // in the abstract namespace of Linux
		name = "\x00" + name[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	c.SetWriteDeadline(time.Now().Add(time.Second))
	c.Write([]byte(strings.Join(lines, "\n")))
}

// notifyUsual is how often the service manager is told how the wallets stand, if it wants
// no signs of life.
const notifyUsual = 10 * time.Second

// watchdog gives signs of life until ctx ends, as long as the loop of every wallet is
// alive: a process of which one wallet hangs for good is better begun anew.
func (n *notifier) watchdog(ctx context.Context, s *supervisor) {
	if n.socket == "" {
		return
	}
	every := n.every
	if every == 0 {
		every = notifyUsual
	}
	hung := false
	for ctx.Err() == nil {
		hangs := s.hangs()
		if len(hangs) > 0 && !hung {
			s.tell("", event{JSON: eventJSON{Event: "hangs", Error: strings.Join(hangs, ", ")}, Line: "HANGS, and should be begun anew: " + printable(strings.Join(hangs, ", "))})
		}
		if hung = len(hangs) > 0; !hung && n.every > 0 {
			n.tell("WATCHDOG=1")
		}
		if line := "STATUS=" + s.line(); line != n.status {
			n.status = line
			n.tell(line)
		}
		pauseFor(ctx, every)
	}
}

// line says in a few words how the wallets stand.
func (s *supervisor) line() string {
	var watched, open int
	var bad []string
	for _, ses := range s.all() {
		ses.mu.Lock()
		state, b := ses.state, ses.backup
		ses.mu.Unlock()
		if state == sessionElsewhere {
			continue
		}
		watched++
		switch {
		case b == nil && state == sessionEnded:
			bad = append(bad, ses.name+" is not kept up to date")
		case b == nil:
		case b.Status().Protected:
			open++
		default:
			bad = append(bad, ses.name+" is not protected")
		}
	}
	text := count(watched, "wallet")
	switch {
	case len(bad) > 0:
		text += ": " + strings.Join(bad, ", ")
	case open == watched && open > 0:
		text += ", protected"
	}
	return printable(fmt.Sprintf("%.200s", text))
}
