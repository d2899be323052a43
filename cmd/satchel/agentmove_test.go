package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/agent"
)

// In another network every wallet that has something late tries again, and no other.
func TestAgentMoves(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := map[string]string{"SATCHEL_HOME": filepath.Join(dir, "device"), "SATCHEL_KEYCHAIN": "file", "HOME": dir}
	place := filepath.Join(dir, "place")
	if code, _, stderr := runHere(t, env, "create", "--in", place, "--unlock", "recovery-code", "--json"); code != 0 {
		t.Fatalf("code %d: %s", code, stderr)
	}
	a := &app{getenv: func(name string) string { return env[name] }, now: time.Now}
	b, err := a.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	where := "192.0.2.7/24"
	s := newSupervisor(a, 0, 0)
	s.addresses = func() string { return where }
	ses := &session{name: "Wallet", backup: b, open: make(chan struct{}), asks: make(chan agent.Ask)}
	asked := func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer s.running.Wait()
		defer cancel()
		s.sessions = map[string]*session{"Wallet": ses}
		s.syncAll(ctx)
		select {
		case <-ses.asks:
			return true
		case <-time.After(50 * time.Millisecond):
			return false
		}
	}
	if asked() {
		t.Error("all is well, and a place was to be asked")
	}
	if err := os.Rename(place, place+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Sync(t.Context()); err != nil {
		t.Logf("the place is away: %v", err)
	}
	if !asked() {
		t.Error("a place was away, and nobody tried again")
	}
	if first := addresses(); first != addresses() {
		t.Error("this machine is in another network each time")
	}
}
