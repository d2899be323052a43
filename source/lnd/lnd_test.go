package lnd_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/fakelnd"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/source/lnd"
	"github.com/satchel-backup/satchel/store"
)

// serve runs a fake node and returns it with what connects to it as an admin.
func serve(t *testing.T) (*fakelnd.Node, lnd.Config) {
	t.Helper()
	node := fakelnd.New("regtest")
	srv := httptest.NewTLSServer(node)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	return node, lnd.Config{Address: srv.Listener.Addr().String(), Cert: cert, Macaroon: secret.New(node.Admin())}
}

func connect(t *testing.T, cfg lnd.Config) *lnd.Node {
	t.Helper()
	n, err := lnd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestCalls(t *testing.T) {
	fake, cfg := serve(t)
	node := connect(t, cfg)
	ctx := t.Context()

	if got := must[lnd.State](t)(node.State(ctx)); got != lnd.ServerActive {
		t.Errorf("got state %q", got)
	}
	info := must[lnd.Info](t)(node.Info(ctx))
	if info.PubKey != fake.PubKey || info.Network != "regtest" || info.Alias != "fake" || !info.SyncedToChain {
		t.Errorf("got %+v", info)
	}

	one := fake.AddChannel()
	backup := must[lnd.Backup](t)(node.Export(ctx))
	if diff := cmp.Diff([]string{one}, backup.Channels); diff != "" {
		t.Error(diff)
	}
	if pubKey, points := fakelnd.Unseal(backup.Multi); pubKey != fake.PubKey || len(points) != 1 {
		t.Errorf("got a backup of %s with %v", pubKey, points)
	}
	points, known, err := node.Verify(ctx, backup.Multi)
	if err != nil || !known || !cmp.Equal(points, backup.Channels) {
		t.Errorf("got %v, %v, %v", points, known, err)
	}
	if _, _, err := node.Verify(ctx, fakelnd.Seal(fakelnd.NewPubKey(), one)); !errors.Is(err, lnd.ErrBackup) {
		t.Errorf("got %v, want %v", err, lnd.ErrBackup)
	}

	two := fakelnd.Channel{Point: fakelnd.NewPoint(), Peer: fakelnd.NewPubKey(), State: fakelnd.Forced}
	fake.Change(two)
	// A real lnd was seen to fail so in the moment in which a channel is closed.
	fake.Fail("/v1/channels/pending", fakelnd.Between)
	if p := must[lnd.Pending](t)(node.Pending(ctx)); len(p.Forced) != 1 || p.Forced[0].Point != two.Point || p.Forced[0].Peer != two.Peer {
		t.Errorf("got %+v", p)
	}
	fake.Change(fakelnd.Channel{Point: two.Point, State: fakelnd.Closed})
	if c := must[[]lnd.Channel](t)(node.Closed(ctx)); len(c) != 1 || c[0].Point != two.Point {
		t.Errorf("got %+v", c)
	}
	if c := must[[]lnd.Channel](t)(node.Open(ctx)); len(c) != 1 || c[0].Point != one {
		t.Errorf("got %+v", c)
	}

	fake.AddPeer(two.Peer, "10.0.0.1:4444", true, "peer.example.org:9735")
	if p := must[[]lnd.Peer](t)(node.Peers(ctx)); !cmp.Equal(p, []lnd.Peer{{two.Peer, "10.0.0.1:4444", true}}) {
		t.Errorf("got %+v", p)
	}
	if a := must[lnd.Announced](t)(node.Announced(ctx, two.Peer)); !cmp.Equal(a.Addresses, []string{"peer.example.org:9735"}) {
		t.Errorf("got %+v", a)
	}
	if a := must[lnd.Announced](t)(node.Announced(ctx, fake.PubKey)); len(a.Addresses) > 0 {
		t.Errorf("got %+v", a)
	}
}

// A macaroon of ours allows what the source needs and nothing else, works, and can be
// revoked alone.
func TestBake(t *testing.T) {
	fake, cfg := serve(t)
	admin := connect(t, cfg)
	mac, rootKey, err := admin.Bake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if rootKey == 0 {
		t.Error("it has lnd's own root key")
	}
	want := []fakelnd.Permission{{Entity: "offchain", Action: "read"}, {Entity: "info", Action: "read"}, {Entity: "peers", Action: "read"}}
	if diff := cmp.Diff(want, fake.Allows(rootKey)); diff != "" {
		t.Error(diff)
	}
	if err := admin.With(mac).Prove(t.Context()); err != nil {
		t.Error(err)
	}
	if _, _, err := admin.With(mac).Bake(t.Context()); !errors.Is(err, lnd.ErrPermission) || !strings.Contains(err.Error(), "macaroon:generate") {
		t.Errorf("got %v", err)
	}
	if err := admin.RevokeMacaroons(t.Context(), rootKey); err != nil {
		t.Error(err)
	}
	if err := admin.With(mac).Prove(t.Context()); !errors.Is(err, lnd.ErrMacaroon) {
		t.Errorf("got %v, want %v", err, lnd.ErrMacaroon)
	}
	if err := admin.Prove(t.Context()); err != nil {
		t.Error(err)
	}
	some := secret.New(fake.Macaroon(7, fakelnd.Permission{Entity: "info", Action: "read"}))
	err = admin.With(some).Prove(t.Context())
	if pe, ok := errors.AsType[*lnd.PermissionError](err); !ok || len(pe.Lacks) != 2 || err.Error() != "the macaroon lacks a permission: offchain:read peers:read" {
		t.Errorf("got %v", err)
	}
}

func TestSubscribe(t *testing.T) {
	fake, cfg := serve(t)
	node := connect(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	listening, events, done := make(chan struct{}), make(chan lnd.Backup), make(chan error, 1)
	go func() {
		done <- node.Subscribe(ctx, func() { close(listening) }, func(b lnd.Backup) error { events <- b; return nil })
	}()
	<-listening
	for fake.Streams() == 0 {
		if ctx.Err() != nil {
			t.Fatal("it does not listen")
		}
		time.Sleep(time.Millisecond) // The request is on its way.
	}
	for i := range 3 {
		point := fake.AddChannel()
		if b := <-events; len(b.Channels) != i+1 || !strings.Contains(strings.Join(b.Channels, " "), point) {
			t.Errorf("got %v", b.Channels)
		}
	}
	fake.HangUp()
	if err := <-done; !errors.Is(err, lnd.ErrUnreachable) {
		t.Errorf("got %v, want %v", err, lnd.ErrUnreachable)
	}
}

// R5: what is wrong with lnd is told apart, has a code, and nothing that lnd sent is in it.
func TestErrors(t *testing.T) {
	fake, cfg := serve(t)
	for name, c := range map[string]struct {
		do   func()
		want error
		code satchel.Code
	}{
		"locked":     {func() { fake.Set("LOCKED") }, lnd.ErrLocked, satchel.CodeUnreachable},
		"no wallet":  {func() { fake.Set("NON_EXISTING") }, lnd.ErrNoWallet, satchel.CodeUnreachable},
		"waiting":    {func() { fake.Set("WAITING_TO_START") }, lnd.ErrStarting, satchel.CodeUnreachable},
		"starting":   {func() { fake.Set("UNLOCKED") }, lnd.ErrStarting, satchel.CodeUnreachable},
		"cut":        {func() { fake.Fail("*", fakelnd.Cut) }, lnd.ErrUnreachable, satchel.CodeUnreachable},
		"hang":       {func() { fake.Fail("*", fakelnd.Hang) }, lnd.ErrUnreachable, satchel.CodeUnreachable},
		"garbage":    {func() { fake.Fail("*", fakelnd.Garbage) }, lnd.ErrNotLND, satchel.CodeUnreachable},
		"empty":      {func() { fake.Fail("*", fakelnd.Empty) }, lnd.ErrNotLND, satchel.CodeUnreachable},
		"fail":       {func() { fake.Fail("*", fakelnd.Fail) }, nil, satchel.CodeFailed},
		"revoked":    {func() { fake.Revoke(0) }, lnd.ErrMacaroon, satchel.CodeSignIn},
		"permission": {func() { cfg.Macaroon = secret.New(fake.Macaroon(1)) }, lnd.ErrPermission, satchel.CodeSignIn},
		"none":       {func() { cfg.Macaroon = secret.Bytes{} }, lnd.ErrMacaroon, satchel.CodeSignIn},
	} {
		t.Run(name, func(t *testing.T) {
			fake, cfg = serve(t)
			c.do()
			limit := time.Minute
			if name == "hang" {
				limit = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			node := connect(t, cfg)
			_, err := node.Export(ctx)
			if c.want != nil && !errors.Is(err, c.want) || err == nil {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if got := satchel.CodeOf(err); got != c.code {
				t.Errorf("got code %d of %v, want %d", got, err, c.code)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), cfg.Address) {
				t.Errorf("the error tells too much: %v", err)
			}
			if err := node.Subscribe(ctx, nil, func(lnd.Backup) error { return nil }); c.want != nil && !errors.Is(err, c.want) || err == nil {
				t.Errorf("listening: got %v, want %v", err, c.want)
			}
		})
	}
}

// What answers and is not lnd's REST interface is told from an lnd that is away.
func TestOtherInterface(t *testing.T) {
	settings := "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00@\x00" // as lnd's gRPC begins
	for name, test := range map[string]struct {
		protos []string
		says   string
		want   error
	}{
		"gRPC":          {[]string{"h2"}, settings, lnd.ErrGRPC},
		"something":     {nil, "220 mail.example.org\r\n", lnd.ErrNotLND},
		"something, h2": {[]string{"h2"}, "", lnd.ErrUnreachable}, // It hung up.
	} {
		t.Run(name, func(t *testing.T) {
			_, cfg := serve(t) // For its certificate.
			srv := httptest.NewUnstartedServer(nil)
			srv.TLS = &tls.Config{NextProtos: test.protos}
			srv.StartTLS() // For the same one, and a listener.
			defer srv.Close()
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: srv.TLS.Certificates, NextProtos: test.protos})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer conn.Close()
						conn.Read(make([]byte, 1))
						io.WriteString(conn, test.says)
					}()
				}
			}()
			cfg.Address = l.Addr().String()
			_, err = connect(t, cfg).State(t.Context())
			if !errors.Is(err, test.want) || errors.Is(err, lnd.ErrGRPC) != (test.want == lnd.ErrGRPC) || !errors.Is(err, store.ErrUnreachable) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}
