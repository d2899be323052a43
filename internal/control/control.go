// Package control is the way from other programs of a user to the user's agent: HTTP
// over a socket that nobody else can open, and events that can be asked for again.
//
//	l, err := control.Listen("/home/sam/.local/share/satchel/agent/control.sock")
//	server := &http.Server{Handler: control.Guard(mux)}
//	err = server.Serve(l)
//
// What is said over it, docs/agent.md tells. It knows no wallets.
package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Host is the name that a request says to be for.
const Host = "satchel"

// maxPath is how long the path of a socket may be on every system.
const maxPath = 103

var (
	// ErrPath says that the path of the socket is longer than systems allow.
	ErrPath = errors.New("the path is too long for a socket")
	// ErrUnsupported says that this system has no socket that only one user can open.
	ErrUnsupported = errors.New("this system has no socket of that kind")
	// ErrPeer says that another user is at the other end.
	ErrPeer = errors.New("another user is at the other end")
)

// Listen makes the socket at path, in a directory that it makes for the user alone. One
// that is there is taken away: the caller sees to it that nobody else listens. What it
// accepts comes from the same user.
func Listen(path string) (net.Listener, error) {
	if !supported {
		return nil, fmt.Errorf("listening for programs: %w", ErrUnsupported)
	}
	if len(path) > maxPath {
		return nil, fmt.Errorf("listening for programs: %w: %d bytes, at most %d", ErrPath, len(path), maxPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("listening for programs: %w", err)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listening for programs: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening for programs: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("listening for programs: %w", err)
	}
	return &listener{l}, nil
}

// listener leaves out what other users connect.
type listener struct{ *net.UnixListener }

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if checkPeer(c) == nil {
			return c, nil
		}
		c.Close()
	}
}

// Guard refuses what a browser sends, whatever page made it: a request that names where
// it comes from, or another host.
func Guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, header := range []string{"Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode"} {
			if len(r.Header.Values(header)) > 0 {
				refuse(w, "requests of browsers are refused")
				return
			}
		}
		if r.Host != Host {
			refuse(w, "the host of a request must be "+Host)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func refuse(w http.ResponseWriter, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	fmt.Fprintf(w, "{\"error\":%q,\"code\":1}\n", why)
}

// dialTime is how long connecting to a socket may take.
const dialTime = 5 * time.Second

// Client talks to the agent that listens at path. Requests are for http://satchel/….
func Client(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if !supported {
				return nil, ErrUnsupported
			}
			d := net.Dialer{Timeout: dialTime}
			return d.DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}
}
