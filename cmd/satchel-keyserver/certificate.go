package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is one from files, which are looked at again when they change.
type certificate struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	looked  time.Time
	seen    [2]time.Time
	current *tls.Certificate
}

// lookEvery is how often the files are looked at, at most.
const lookEvery = time.Second

func openCertificate(cert, key string, log *slog.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log}
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	return c, nil
}

func (c *certificate) times() (t [2]time.Time, err error) {
	for i, f := range []string{c.cert, c.key} {
		info, err := os.Stat(f)
		if err != nil {
			return t, err
		}
		t[i] = info.ModTime()
	}
	return t, nil
}

func (c *certificate) load() error {
	seen, err := c.times()
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	c.seen, c.looked = seen, time.Now()
	if err != nil {
		return err
	}
	c.current = &pair
	return nil
}

// get is for tls.Config. Files that do not fit each other, say because only one of them
// was replaced yet, leave the certificate as it is.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) >= lookEvery {
		c.looked = time.Now()
		if seen, err := c.times(); err == nil && seen != c.seen {
			if err := c.load(); err != nil {
				c.log.Error("the certificate stays as it was", "err", err)
			} else {
				c.log.Info("the certificate was replaced", "until", c.current.Leaf.NotAfter)
			}
		}
	}
	return c.current, nil
}
