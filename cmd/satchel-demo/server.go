package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/front"
	"github.com/satchel-backup/satchel/keyserver/sqlite"
	"github.com/satchel-backup/satchel/secret"
)

// server is a key server as satchel-keyserver runs it, on this machine's loopback.
type server struct {
	dir     string
	records *sqlite.DB
	answer  *keyserver.Server
	address string // host:port, the same after it was stopped

	end   context.CancelFunc // nil while it is stopped
	ended chan error
}

func newServer(ctx context.Context, dir string, now func() time.Time) (s *server, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s = &server{dir: dir, address: "127.0.0.1:0"}
	if s.records, err = sqlite.Open(ctx, filepath.Join(dir, "records.db")); err != nil {
		return nil, err
	}
	master, err := keyserver.NewMaster(secret.Random(keyserver.MasterSize))
	if err == nil {
		s.answer, err = keyserver.New(ctx, keyserver.Config{Records: s.records, Master: master, Now: now})
	}
	if err == nil {
		err = s.start()
	}
	if err != nil {
		return nil, errors.Join(err, s.records.Close())
	}
	return s, nil
}

func (s *server) name() string { return "http://" + s.address }

func (s *server) start() error {
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		return err
	}
	s.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	s.end, s.ended = cancel, make(chan error, 1)
	f := front.New(front.Config{Answer: s.answer, Check: s.answer.Check, Drain: time.Second})
	go func() { s.ended <- f.Serve(ctx, l, nil) }()
	return nil
}

// stop ends the program, so to speak. The database stays.
func (s *server) stop() error {
	if s.end == nil {
		return nil
	}
	s.end()
	s.end = nil
	return <-s.ended
}

func (s *server) close() error { return errors.Join(s.stop(), s.records.Close()) }

// clock is the time, and what the demo moved it on.
type clock struct {
	mu    sync.Mutex
	moved time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.moved)
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moved += d
}
