package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/recordtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

func init() {
	// The processes that tests start stretch PINs as little as a slot may say.
	stretching = &guard.KDF{Passes: 1, Lanes: 1, Memory: 8 << 10}
}

// keyServers are real key servers on this machine, reached as satchel reaches any. Their
// clock is their own: a process that asks them has the true one.
type keyServers struct {
	mu      sync.Mutex
	ahead   time.Duration
	asked   int // requests that came
	servers []*httptest.Server
}

func newKeyServers(n int) (*keyServers, error) {
	k := &keyServers{}
	for i := range n {
		m, err := keyserver.NewMaster(secret.New(bytes.Repeat([]byte{byte(i + 1)}, keyserver.MasterSize)))
		if err != nil {
			return k, err
		}
		s, err := keyserver.New(context.Background(), keyserver.Config{Records: &recordtest.Memory{}, Master: m, Now: k.now})
		if err != nil {
			return k, err
		}
		mux := http.NewServeMux()
		mux.HandleFunc(protocol.Path, func(w http.ResponseWriter, r *http.Request) {
			k.mu.Lock()
			k.asked++
			k.mu.Unlock()
			s.ServeHTTP(w, r)
		})
		k.servers = append(k.servers, httptest.NewServer(mux))
	}
	return k, nil
}

func (k *keyServers) now() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Now().Add(k.ahead)
}

func (k *keyServers) later(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ahead += d
}

func (k *keyServers) requests() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked
}

func (k *keyServers) close() {
	for _, s := range k.servers {
		s.Close()
	}
}

// scripted are the key servers of each script that runs, by its work directory.
var scripted sync.Map

// scriptGuardians is "guardians N": N key servers run, G1 to GN are their addresses.
func scriptGuardians(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: guardians N")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	k, err := newKeyServers(n)
	ts.Defer(k.close)
	ts.Check(err)
	for i, s := range k.servers {
		ts.Setenv("G"+strconv.Itoa(i+1), s.URL)
	}
	scripted.Store(ts.Getenv("WORK"), k)
}

func scriptKeyServers(ts *testscript.TestScript) *keyServers {
	k, ok := scripted.Load(ts.Getenv("WORK"))
	if !ok {
		ts.Fatalf("no guardians run")
	}
	return k.(*keyServers)
}

// scriptStop is "stopGuardian N": key server N is gone.
func scriptStop(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: stopGuardian N")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	scriptKeyServers(ts).servers[n-1].Close()
}

// scriptLater is "later DURATION": the clocks of the key servers go on, or with a minus
// back.
func scriptLater(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: later DURATION")
	}
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	scriptKeyServers(ts).later(d)
}
