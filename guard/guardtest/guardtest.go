// Package guardtest has key servers in memory, with a network that can fail and servers
// that can lie, for tests of what talks to them.
package guardtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/recordtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// ErrNetwork is what a request fails with that is lost, or whose reply is.
var ErrNetwork = errors.New("the network is down")

// Servers is a guard.Transport to key servers in memory. Names is changed between requests
// only.
type Servers struct {
	Names []string

	mu      sync.Mutex
	before  func(server string, r protocol.Request) error
	after   func(server string, r protocol.Request, reply []byte) ([]byte, error)
	now     time.Time
	servers map[string]*keyserver.Server
	sent    int
}

var _ guard.Transport = (*Servers)(nil)

// New returns n key servers.
func New(t testing.TB, n int) *Servers {
	s := &Servers{now: time.UnixMilli(1_800_000_000_000), servers: map[string]*keyserver.Server{}}
	for range n {
		s.Add(t)
	}
	return s
}

// Add adds a key server and returns its name.
func (s *Servers) Add(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("https://guard%d.example", len(s.Names)+1)
	m, err := keyserver.NewMaster(secret.New(bytes.Repeat([]byte{byte(len(s.Names) + 1)}, keyserver.MasterSize)))
	if err != nil {
		t.Fatal(err)
	}
	srv, err := keyserver.New(context.Background(), keyserver.Config{Records: &recordtest.Memory{}, Master: m, Now: s.Now})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.servers[name] = srv
	s.Names = append(s.Names, name)
	return name
}

// Before sets what is asked before a request reaches its server; nil asks nothing. With an
// error the request is lost. Requests run at the same time.
func (s *Servers) Before(ask func(server string, r protocol.Request) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = ask
}

// After sets what returns what the client gets for a reply; nil changes nothing. With an
// error the reply is lost. Requests run at the same time.
func (s *Servers) After(change func(server string, r protocol.Request, reply []byte) ([]byte, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = change
}

// Undisturbed takes away what Before and After set, until the returned function is called.
func (s *Servers) Undisturbed() (again func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, after := s.before, s.after
	s.before, s.after = nil, nil
	return func() {
		s.Before(before)
		s.After(after)
	}
}

// Now returns the time of the servers.
func (s *Servers) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Later lets time pass.
func (s *Servers) Later(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

// Sent returns how many requests left the client.
func (s *Servers) Sent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}

// Client returns a client of these servers, which stretches PINs as little as it may.
func (s *Servers) Client() *guard.Client {
	return &guard.Client{
		Transport: s, Trusted: func(name string) bool { return s.server(name) != nil }, Now: s.Now,
		KDF: &guard.KDF{Passes: 1, Lanes: 1, Memory: 8 << 10},
	}
}

func (s *Servers) server(name string) *keyserver.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.servers[name]
}

// Send implements guard.Transport.
func (s *Servers) Send(ctx context.Context, server string, request []byte) ([]byte, error) {
	s.mu.Lock()
	srv, before, after := s.servers[server], s.before, s.after
	s.sent++
	s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := protocol.ParseRequest(request)
	if srv == nil || err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNetwork, err)
	}
	if before != nil {
		if err := before(server, r); err != nil {
			return nil, err
		}
	}
	reply := srv.Answer(ctx, request, "")
	if after != nil {
		return after(server, r, reply)
	}
	return reply, nil
}
