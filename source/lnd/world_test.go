package lnd_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/satchel-backup/satchel/internal/fakelnd"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/source"
	"github.com/satchel-backup/satchel/source/lnd"
)

// pipes is a network inside a bubble of synctest.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	mu    sync.Mutex
	cut   bool // nobody is reached; guarded by mu
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.mu.Lock()
	cut := p.cut
	p.mu.Unlock()
	if cut {
		return nil, &net.OpError{Op: "dial", Err: errors.New("no route")}
	}
	a, b := net.Pipe()
	here, there := buffer(a), buffer(b)
	select {
	case p.conns <- there:
		return here, nil
	case <-p.done:
	case <-ctx.Done():
	}
	here.Close()
	there.Close()
	return nil, cmp.Or(ctx.Err(), net.ErrClosed)
}

// buffered is one end of a pipe whose writes wait for nobody, as those of a network. Else
// two ends that close at once wait for each other to read, one of them with a lock of
// net/http, and with a goroutine that waits for a lock the time of a bubble stands still.
type buffered struct {
	net.Conn
	mu     sync.Mutex
	more   *sync.Cond
	queue  [][]byte // guarded by mu
	closed bool     // guarded by mu
	err    error    // of a write; guarded by mu
}

func buffer(c net.Conn) *buffered {
	b := &buffered{Conn: c}
	b.more = sync.NewCond(&b.mu)
	go b.pump()
	return b
}

func (b *buffered) pump() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.err == nil && (len(b.queue) > 0 || !b.closed) {
		if len(b.queue) == 0 {
			b.more.Wait()
			continue
		}
		next := b.queue[0]
		b.queue = b.queue[1:]
		b.mu.Unlock()
		_, err := b.Conn.Write(next)
		b.mu.Lock()
		b.err = cmp.Or(b.err, err)
	}
	b.Conn.Close()
}

func (b *buffered) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, net.ErrClosed
	}
	if b.err != nil {
		return 0, b.err
	}
	b.queue = append(b.queue, bytes.Clone(data))
	b.more.Signal()
	return len(data), nil
}

func (b *buffered) Read(data []byte) (int, error) {
	n, err := b.Conn.Read(data)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed && err != nil {
		return n, net.ErrClosed
	}
	return n, err
}

// Close ends reading at once, and writing when all is read, or nobody does for a second.
func (b *buffered) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		b.Conn.SetReadDeadline(time.Unix(1, 0))
		b.Conn.SetWriteDeadline(time.Now().Add(time.Second))
		b.more.Signal()
	}
	return nil
}

func (b *buffered) SetWriteDeadline(time.Time) error { return nil }
func (b *buffered) SetDeadline(t time.Time) error    { return b.SetReadDeadline(t) }

func (b *buffered) SetReadDeadline(t time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return net.ErrClosed
	}
	return b.Conn.SetReadDeadline(t)
}

var errSave = errors.New("it was not kept")

// world is a node with a source at work, inside a bubble.
type world struct {
	t    *testing.T
	fake *fakelnd.Node
	net  *pipes
	file string

	mu      sync.Mutex        // guards all below
	cfg     lnd.Config        // what Connect returns
	items   map[string][]byte // what is kept
	calls   [][]source.Change
	fail    int  // so many saves fail
	applied bool // and keep what they were given all the same
	said    []error
	during  func() // called in each save

	stop func() error // ends Run and returns its error
}

// try runs a test in a bubble, with a node that has two channels.
func try(t *testing.T, f func(w *world, points []string)) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "channel.backup")
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, fake: fakelnd.New("regtest"), net: newPipes(), file: file, items: map[string][]byte{}, stop: func() error { return nil }}
		points := []string{w.fake.AddChannel(), w.fake.AddChannel()}
		srv := httptest.NewUnstartedServer(w.fake)
		srv.Listener.Close()
		srv.Listener = w.net
		srv.StartTLS()
		w.cfg = lnd.Over(lnd.Config{
			Address: "127.0.0.1", Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), Macaroon: secret.New(w.fake.Admin()),
		}, w.net.dial)
		defer func() {
			w.stop()
			srv.CloseClientConnections()
			srv.Close()
			time.Sleep(2 * time.Second) // What was written to nobody goes.
		}()
		f(w, points)
	})
}

// source makes a source that knows what is kept.
func (w *world) source() *lnd.Source {
	w.t.Helper()
	src, err := lnd.NewSource(lnd.SourceConfig{
		Connect: func(context.Context) (lnd.Config, error) { w.mu.Lock(); defer w.mu.Unlock(); return w.cfg, nil },
		File:    w.file,
		Kept:    func() (map[string][]byte, error) { w.mu.Lock(); defer w.mu.Unlock(); return maps.Clone(w.items), nil },
		Seed:    lnd.SeedAezeed,
		Report:  func(err error) { w.mu.Lock(); defer w.mu.Unlock(); w.said = append(w.said, err) },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return src
}

// run starts a source.
func (w *world) run() {
	w.t.Helper()
	src := w.source()
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx, w.save) }()
	var ended bool
	var result error
	w.stop = func() error {
		if !ended {
			cancel()
			result, ended = <-done, true
		}
		cancel()
		return result
	}
	synctest.Wait()
}

// wait lets time pass, and what it brings be done.
func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) save(_ context.Context, changes ...source.Change) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.during != nil {
		w.mu.Unlock()
		w.during()
		w.mu.Lock()
	}
	names := map[string]bool{}
	for _, c := range changes {
		if names[c.Name] {
			w.t.Errorf("%s is twice in a save", c.Name)
		}
		names[c.Name] = true
	}
	failing := w.fail > 0
	if failing {
		w.fail--
	}
	if !failing || w.applied {
		for _, c := range changes {
			if c.Remove {
				delete(w.items, c.Name)
			} else {
				w.items[c.Name] = bytes.Clone(c.Value)
			}
		}
		w.calls = append(w.calls, slices.Clone(changes))
	}
	if failing {
		return errSave
	}
	return nil
}

// failing makes so many saves fail, with what they were given kept or not.
func (w *world) failing(n int, applied bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail, w.applied = n, applied
}

// saves returns how many there were, and forgets them.
func (w *world) saves() [][]source.Change {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = nil
	return calls
}

// state returns what Report was told last.
func (w *world) state() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.said) == 0 {
		return errors.New("nothing was said")
	}
	return w.said[len(w.said)-1]
}

// want compares the channels in what is kept: of the newest backup, and of each older one.
func (w *world) want(newest []string, older ...[]string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	_, points := fakelnd.Unseal(w.items[lnd.ItemBackup])
	if !same(points, newest) {
		w.t.Errorf("the newest backup has %s, want %s", brief(points), brief(newest))
	}
	var got [][]string
	for name, value := range w.items {
		if strings.HasPrefix(name, lnd.ItemOlder) {
			_, points := fakelnd.Unseal(value)
			got = append(got, points)
		}
	}
	for _, o := range older {
		i := slices.IndexFunc(got, func(g []string) bool { return same(g, o) })
		if i < 0 {
			w.t.Errorf("no older backup has %s", brief(o))
			continue
		}
		got = slices.Delete(got, i, i+1)
	}
	for _, g := range got {
		w.t.Errorf("an older backup with %s is kept", brief(g))
	}
	var list struct {
		Backups []struct {
			Item     string
			Channels []string
		}
	}
	if err := json.Unmarshal(w.items[lnd.ItemChannels], &list); err != nil || len(list.Backups) != 1+len(older) || list.Backups[0].Item != lnd.ItemBackup {
		w.t.Errorf("the list says %s, %v", w.items[lnd.ItemChannels], err)
	}
	for _, b := range list.Backups {
		if _, points := fakelnd.Unseal(w.items[b.Item]); b.Channels != nil && !same(points, b.Channels) {
			w.t.Errorf("the list says of %s %s, want %s", b.Item, brief(b.Channels), brief(points))
		}
	}
}

func same(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

func brief(points []string) []string {
	list := []string{}
	for _, p := range points {
		list = append(list, p[:min(len(p), 6)])
	}
	return list
}

// write puts lnd's file there, as lnd does.
func (w *world) write(multi []byte) {
	w.t.Helper()
	temp := w.file + ".temp"
	if err := os.WriteFile(temp, multi, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(temp, w.file); err != nil {
		w.t.Fatal(err)
	}
}
