//go:build unix

package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// manager is a service manager: it hears what is told.
type manager struct {
	t    *testing.T
	path string
	c    *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &manager{t: t, path: filepath.Join(dir, "notify")}
	if m.c, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.c.Close() })
	return m
}

// hears returns the lines that are told until one begins like this, or nothing comes for
// so long.
func (m *manager) hears(prefix string, wait time.Duration) (got []string, ok bool) {
	m.t.Helper()
	buf := make([]byte, 4096)
	for end := time.Now().Add(wait); ; {
		m.c.SetReadDeadline(end)
		n, err := m.c.Read(buf)
		if err != nil {
			return got, false
		}
		for line := range strings.SplitSeq(string(buf[:n]), "\n") {
			if got = append(got, line); strings.HasPrefix(line, prefix) {
				ok = true
			}
		}
		if ok {
			return got, true
		}
	}
}

// The service manager is told when the agent is ready, that it lives, how the wallets
// stand, and that it ends.
func TestAgentNotifies(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	p := newPerson(t)
	p.makes("Ann")
	p.more = []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=300000"}
	w := p.agent()
	for _, want := range []string{"READY=1", "STATUS=1 wallet, protected", "WATCHDOG=1", "WATCHDOG=1"} {
		if got, ok := m.hears(want, 30*time.Second); !ok {
			t.Fatalf("got %q, want %s", got, want)
		}
	}
	rename(t, filepath.Join(p.dir, "elsewhere"), filepath.Join(p.dir, "away"))
	p.does(27, "put", "settings", filepath.Join(p.dir, "device", "config.json"))
	if got, ok := m.hears("STATUS=1 wallet: Ann-", 30*time.Second); !ok || !strings.Contains(got[len(got)-1], "is not protected") {
		t.Errorf("got %q", got)
	}
	w.ends(syscall.SIGTERM, 0)
	if got, ok := m.hears("STOPPING=1", 10*time.Second); !ok {
		t.Errorf("got %q", got)
	}
}

// No sign of life is given while the loop of one wallet, or the agent's own, should have
// come back and did not.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	env := map[string]string{"NOTIFY_SOCKET": m.path, "WATCHDOG_USEC": "30000", "SATCHEL_HOME": t.TempDir()}
	a := &app{getenv: func(name string) string { return env[name] }, now: time.Now}
	s := newSupervisor(a, 0, 0)
	var mu sync.Mutex
	var told []string // guarded by mu
	s.hooks = append(s.hooks, func(e event) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, e.JSON.Event+" "+e.JSON.Error)
	})
	s.looked = time.Now()
	fine, stuck := &session{name: "fine", due: time.Now().Add(time.Hour)}, &session{name: "stuck", due: time.Now().Add(-time.Second)}
	s.sessions["fine"] = fine
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		newNotifier(a.getenv).watchdog(ctx, s)
	}()
	if got, ok := m.hears("WATCHDOG=1", 10*time.Second); !ok {
		t.Fatalf("got %q", got)
	}
	s.mu.Lock()
	s.sessions["stuck"] = stuck
	s.mu.Unlock()
	m.hears("never", 100*time.Millisecond) // what was on its way
	if got, ok := m.hears("WATCHDOG=1", 300*time.Millisecond); ok {
		t.Errorf("it lives, it says, and one wallet hangs: %q", got)
	}
	stuck.setDue(time.Now().Add(time.Hour))
	if got, ok := m.hears("WATCHDOG=1", 10*time.Second); !ok {
		t.Errorf("it came back: %q", got)
	}
	s.mu.Lock()
	s.looked = time.Now().Add(-2 * dueGrace)
	s.mu.Unlock()
	m.hears("never", 100*time.Millisecond)
	if got, ok := m.hears("WATCHDOG=1", 300*time.Millisecond); ok {
		t.Errorf("it lives, it says, and looks for no wallets: %q", got)
	}
	cancel()
	<-done
	mu.Lock()
	defer mu.Unlock()
	if strings.Join(told, ",") != "hangs stuck,hangs " {
		t.Errorf("got %q", told)
	}
}
