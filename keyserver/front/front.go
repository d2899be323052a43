// Package front stands between the network and a key server: it limits what one address,
// and all together, can ask for, turns slow clients out, counts, and ends in order.
//
//	f := front.New(front.Config{Answer: server, Check: server.Check, Counts: counts})
//	err := f.Serve(ctx, listener, nil)
//
// Nothing here knows accounts; no address is logged.
package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/protocol"
)

// How long a client may take. A request has at most protocol.MaxMessage bytes.
const (
	headerTime = 5 * time.Second
	readTime   = 10 * time.Second
	writeTime  = 40 * time.Second // more than the server's patience with its database
	idleTime   = time.Minute
	headerSize = 8 << 10
	streams    = 32 // of one HTTP/2 connection
)

// Config says how a front works. Answer and Check are required. Zero means what is given.
type Config struct {
	Answer http.Handler                // the key server
	Check  func(context.Context) error // whether it can answer
	Counts *Counts                     // nil means new ones

	TLS         *tls.Config    // nil for none
	Connections int            // at once: 10,000
	PerAddress  int            // connections of one address at once: 100
	Requests    int            // that are worked on at once: 1,000
	Rate        int            // requests a second of one address, after ten times as many at once: 10
	Proxies     []netip.Prefix // whose X-Forwarded-For is believed: none
	Drain       time.Duration  // what requests have left to end: 20 s

	Logger *slog.Logger // nil discards
}

// Front serves.
type Front struct {
	cfg      Config
	rates    rates
	working  chan struct{}
	draining atomic.Bool
	health   health
}

// New returns a front.
func New(cfg Config) *Front {
	if cfg.Answer == nil || cfg.Check == nil {
		panic("front: Config needs Answer and Check")
	}
	if cfg.Counts == nil {
		cfg.Counts = &Counts{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	for v, def := range map[*int]int{&cfg.Connections: 10_000, &cfg.PerAddress: 100, &cfg.Requests: 1000, &cfg.Rate: 10} {
		if *v == 0 {
			*v = def
		}
	}
	if cfg.Drain == 0 {
		cfg.Drain = 20 * time.Second
	}
	return &Front{cfg: cfg, working: make(chan struct{}, cfg.Requests), rates: rates{every: time.Second / time.Duration(cfg.Rate)}}
}

// ServeHTTP limits, and answers at keyserver.Path only.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != keyserver.Path {
		http.Error(w, "this is a key server of Satchel backups; requests go to "+keyserver.Path, http.StatusNotFound)
		return
	}
	if a, limited := f.client(r); limited {
		if wait := f.rates.take(a, time.Now()); wait > 0 {
			f.cfg.Counts.limited[limitRate].Add(1)
			later(w, http.StatusTooManyRequests, wait)
			return
		}
	}
	select {
	case f.working <- struct{}{}:
		defer func() { <-f.working }()
	default:
		f.cfg.Counts.limited[limitRequests].Add(1)
		later(w, http.StatusServiceUnavailable, time.Second)
		return
	}
	f.cfg.Answer.ServeHTTP(w, r)
}

// later refuses for a time. Whoever reads only the body reads the same there.
func later(w http.ResponseWriter, status int, wait time.Duration) {
	h := w.Header()
	h.Set("Retry-After", fmt.Sprint(int(wait/time.Second)+1))
	h.Set("Content-Type", keyserver.ContentType)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write((&protocol.Refusal{Code: protocol.CodeUnavailable}).Reply())
}

// client returns the address that a request counts for, and whether it is limited: what
// comes from this machine is not, unless it is from a proxy that names another.
func (f *Front) client(r *http.Request) (netip.Addr, bool) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, false // No network address, say of a test.
	}
	a := peer.Addr().Unmap()
	if f.proxy(a) {
		// The last address is the one that the nearest proxy saw; those before it are
		// whatever the client likes.
		list := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for i := len(list) - 1; i >= 0 && f.proxy(a); i-- {
			next, err := netip.ParseAddr(strings.TrimSpace(list[i]))
			if err != nil {
				break
			}
			a = next.Unmap()
		}
	}
	return block(a), !a.IsLoopback() && !f.proxy(a)
}

func (f *Front) proxy(a netip.Addr) bool {
	for _, p := range f.cfg.Proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// block is what one client is taken for: an address of IPv4, 64 bits of IPv6.
func block(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// Serve answers on a listener, and on admin, if it is not nil, says how things stand. When
// ctx ends it takes no more connections, lets requests end, and returns nil.
func (f *Front) Serve(ctx context.Context, public, admin net.Listener) error {
	s := &http.Server{
		Handler: f, TLSConfig: f.cfg.TLS, ErrorLog: log.New(quiet{f}, "", 0),
		ReadHeaderTimeout: headerTime, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime, MaxHeaderBytes: headerSize,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: streams},
	}
	ended := make(chan error, 2)
	public = &listener{Listener: public, f: f, each: map[netip.Addr]int{}}
	go func() {
		if f.cfg.TLS != nil {
			ended <- s.ServeTLS(public, "", "")
		} else {
			ended <- s.Serve(public)
		}
	}()
	a := &http.Server{Handler: f.Admin(), ErrorLog: log.New(quiet{f}, "", 0), ReadTimeout: readTime, WriteTimeout: writeTime, MaxHeaderBytes: headerSize}
	if admin != nil {
		go func() { ended <- a.Serve(admin) }()
	}
	watch, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { f.watch(watch) })
	defer watching.Wait()
	defer stop()
	defer a.Close()
	var err error
	select {
	case err = <-ended:
		s.Close()
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	f.draining.Store(true)
	f.cfg.Logger.Info("ending: requests have time to end", "most", f.cfg.Drain)
	rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.cfg.Drain)
	defer cancel()
	if err = s.Shutdown(rest); errors.Is(err, context.DeadlineExceeded) {
		f.cfg.Logger.Warn("requests were cut off", "after", f.cfg.Drain)
		err = s.Close()
	}
	return err
}

// quiet logs what net/http has to say, but for the handshakes that fail: strangers make
// as many of them as they like, and the lines hold addresses.
type quiet struct{ f *Front }

func (q quiet) Write(b []byte) (int, error) {
	if strings.HasPrefix(string(b), "http: TLS handshake error") {
		q.f.cfg.Counts.handshakes.Add(1)
	} else if strings.Contains(string(b), "panic") {
		q.f.cfg.Logger.Error("a request ended in a panic", "err", strings.TrimSpace(string(b)))
	} else {
		q.f.cfg.Counts.errors.Add(1)
	}
	return len(b), nil
}

// listener closes connections above the limits as soon as they come.
type listener struct {
	net.Listener
	f *Front

	mu   sync.Mutex
	all  int
	each map[netip.Addr]int
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := netip.Addr{}
		if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
			if a := a.Addr().Unmap(); !a.IsLoopback() && !l.f.proxy(a) {
				from = block(a)
			}
		}
		why, ok := l.enter(from)
		if ok {
			return &conn{Conn: c, left: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		l.f.cfg.Counts.limited[why].Add(1)
		c.Close()
	}
}

func (l *listener) enter(from netip.Addr) (why limit, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.f.cfg.Connections {
		return limitConnections, false
	}
	if from.IsValid() {
		if l.each[from] >= l.f.cfg.PerAddress {
			return limitAddress, false
		}
		l.each[from]++
	}
	l.all++
	l.f.cfg.Counts.connections.Store(int64(l.all))
	return 0, true
}

func (l *listener) leave(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	l.f.cfg.Counts.connections.Store(int64(l.all))
	if from.IsValid() {
		if l.each[from]--; l.each[from] == 0 {
			delete(l.each, from)
		}
	}
}

// conn is a connection that is counted until it is closed.
type conn struct {
	net.Conn
	left func()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	defer c.left()
	return c.Conn.Close()
}
