package lnd_test

import (
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/fakelnd"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/source/lnd"
)

// An open that is resumed weeks later is undone: its coins are reserved for a day, and the
// peer forgets a channel that is not paid for after two weeks. Money that is sent then is in
// a channel which only this node knows, and a restored node gets back with nobody.
func TestAttack6ResumedLate(t *testing.T) {
	for _, at := range []lnd.Point{lnd.PointSigned, lnd.PointPending, lnd.PointProtected, lnd.PointPublishing} {
		t.Run(string(at), func(t *testing.T) {
			dir := t.TempDir()
			fake, cfg := gatedNode(t, dir)
			k := killed{Address: cfg.Address, Cert: cfg.Cert, Macaroon: hex.EncodeToString(cfg.Macaroon.Open()), Dir: dir, At: at}
			if !k.run(t) {
				t.Fatal("it does not come to that point")
			}
			gated := gatedConfig(connect(t, cfg), dir, nil)
			gated.Now = func() time.Time { return time.Now().AddDate(0, 0, 21) }
			point, err := lnd.ResumeGated(t.Context(), gated)
			if point != "" || !errors.Is(err, lnd.ErrTooLate) {
				t.Errorf("got %q, %v, want %v", point, err, lnd.ErrTooLate)
			}
			clean(t, fake, gated.Journal)
		})
	}
	// What was sent is out, whenever it is looked after.
	dir := t.TempDir()
	fake, cfg := gatedNode(t, dir)
	k := killed{Address: cfg.Address, Cert: cfg.Cert, Macaroon: hex.EncodeToString(cfg.Macaroon.Open()), Dir: dir, At: lnd.PointPublished}
	k.run(t)
	gated := gatedConfig(connect(t, cfg), dir, nil)
	gated.Now = func() time.Time { return time.Now().AddDate(0, 0, 21) }
	if point, err := lnd.ResumeGated(t.Context(), gated); point == "" || err != nil || len(fake.Channels(fakelnd.Opening)) != 1 {
		t.Errorf("got %q, %v, channels %v", point, err, fake.Channels(fakelnd.Opening))
	}
}

// lnd is still at sending the transaction when the line breaks, and the person undoes the
// open: the channel that is about to be paid for is not abandoned.
func TestAttack6AbandonedWhileSent(t *testing.T) {
	fake := fakelnd.New("regtest")
	fake.AddCoins(2)
	var mu sync.Mutex
	var asked int   // for the transaction; guarded by mu
	var send func() // what lnd is at; guarded by mu
	goOn := func() {
		if send != nil {
			send()
			send = nil
		}
	}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/wallet/tx" {
			fake.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPost {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			again := httptest.NewRequest(r.Method, r.URL.Path, strings.NewReader(string(body)))
			again.Header = r.Header.Clone()
			send = func() { fake.ServeHTTP(httptest.NewRecorder(), again) }
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		// The first two are of the open, and of who undoes it.
		if asked++; asked == 3 {
			goOn()
		}
		fake.ServeHTTP(w, r)
	}))
	defer srv.Close()
	cfg := lnd.Config{
		Address: srv.Listener.Addr().String(), Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}),
		Macaroon: secret.New(fake.Admin()),
	}
	dir := t.TempDir()
	gated := gatedConfig(connect(t, cfg), dir, nil)
	gated.Settle = 300 * time.Millisecond
	if _, err := lnd.OpenGated(t.Context(), gated, lnd.NewChannel{Peer: peerKey, Host: "127.0.0.1:9735", Amount: 1_000_000}); !errors.Is(err, lnd.ErrNotPublished) {
		t.Fatalf("got %v, want %v", err, lnd.ErrNotPublished)
	}
	err := lnd.AbandonGated(t.Context(), gated)
	mu.Lock()
	goOn()
	mu.Unlock()
	if fake.Coins() != 1 {
		t.Fatal("the transaction was not sent")
	}
	if len(fake.Channels(fakelnd.Opening)) != 1 || !errors.Is(err, lnd.ErrPublished) {
		t.Errorf("a channel that is paid for was abandoned: %v", err)
	}
}
