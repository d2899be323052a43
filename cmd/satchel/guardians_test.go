package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/front"
	"github.com/satchel-backup/satchel/keyserver/recordtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// cheapStretching is how the command stretches PINs in these tests.
var cheapStretching = guard.KDF{Passes: 1, Lanes: 1, Memory: 8 << 10}

// guardians are key servers on this machine, which go away, lie, and have a clock of
// their own.
type guardians struct {
	mu    sync.Mutex
	list  []*guardian
	clock time.Duration // how far theirs is ahead
	asked int           // requests that came
	seen  int           // of them, that a script knows of
}

type guardian struct {
	all   *guardians
	name  string
	addr  string
	front http.Handler
	web   *http.Server // nil while it is away

	certificate *tls.Certificate // nil for no TLS

	mu         sync.Mutex
	lies, deaf bool
	token      string // that it wants
}

// add starts another key server, with a certificate or none, and returns its name.
func (s *guardians) add(t testing.TB, certificate *tls.Certificate) (string, error) {
	g := &guardian{all: s, addr: "127.0.0.1:0", certificate: certificate}
	m, err := keyserver.NewMaster(secret.New(bytes.Repeat([]byte{byte(len(s.list) + 1)}, keyserver.MasterSize)))
	if err != nil {
		return "", err
	}
	srv, err := keyserver.New(t.Context(), keyserver.Config{Records: &recordtest.Memory{}, Master: m, Now: s.now, Allowed: g.allowed})
	if err != nil {
		return "", err
	}
	g.front = front.New(front.Config{Answer: srv, Check: srv.Check, Rate: 1000})
	if err := g.start(); err != nil {
		return "", err
	}
	g.name = "http://" + g.addr
	if certificate != nil {
		g.name = "https://" + g.addr
	}
	s.list = append(s.list, g)
	return g.name, nil
}

func (s *guardians) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.clock)
}

// requests returns how many requests came.
func (s *guardians) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *guardians) close() {
	for _, g := range s.list {
		g.stop()
	}
}

func (g *guardian) start() error {
	l, err := net.Listen("tcp", g.addr)
	if err != nil {
		return err
	}
	g.addr, g.web = l.Addr().String(), &http.Server{Handler: g, ErrorLog: log.New(io.Discard, "", 0)}
	if g.certificate != nil {
		g.web.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*g.certificate}}
		go g.web.ServeTLS(l, "", "")
		return nil
	}
	go g.web.Serve(l)
	return nil
}

func (g *guardian) allowed(token string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.token == "" || token == g.token
}

// makeCertificate makes an authority, and a certificate by it for this machine, or one
// with something wrong: "unknown" is signed by another, "ended" and "early" are not valid
// now, "other" is for other names. The authority is returned in PEM.
func makeCertificate(kind string) (*tls.Certificate, []byte, error) {
	sign := func(c, by *x509.Certificate, with *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		if with == nil {
			with = key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), with)
		return der, key, err
	}
	now := time.Now()
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: now.Add(-1000 * time.Hour), NotAfter: now.Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	ca, caKey, err := sign(authority, authority, nil)
	if err != nil {
		return nil, nil, err
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: now.Add(-100 * time.Hour), NotAfter: now.Add(100 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	by := caKey
	switch kind {
	case "good":
	case "unknown":
		by, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ended":
		c.NotAfter = now.Add(-50 * time.Hour)
	case "early":
		c.NotBefore = now.Add(50 * time.Hour)
	case "other":
		c.IPAddresses, c.DNSNames = nil, []string{"guard.example"}
	default:
		err = errors.New("no such kind of certificate")
	}
	if err != nil {
		return nil, nil, err
	}
	der, key, err := sign(c, authority, by)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca}), err
}

func (g *guardian) stop() {
	if g.web != nil {
		g.web.Close()
		g.web = nil
	}
}

// set makes it give false evaluations, or have no answer to Confirm.
func (g *guardian) set(lies, deaf bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lies, g.deaf = lies, deaf
}

func (g *guardian) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.all.mu.Lock()
	g.all.asked++
	g.all.mu.Unlock()
	g.mu.Lock()
	lies, deaf := g.lies, g.deaf
	g.mu.Unlock()
	body, err := io.ReadAll(io.LimitReader(r.Body, protocol.MaxMessage))
	if err != nil {
		return
	}
	request, err := protocol.ParseRequest(body)
	if err == nil {
		switch p := request.Payload.(type) {
		case protocol.Confirm:
			if deaf {
				http.Error(w, "away", http.StatusBadGateway)
				return
			}
		case protocol.Evaluate:
			if lies {
				w.Header().Set("Content-Type", protocol.ContentType)
				if p.WithProof == 1 {
					w.Write(protocol.Reply(protocol.Proven{Element: p.Blinded, Left: 5}))
				} else {
					w.Write(protocol.Reply(protocol.Evaluated{Element: p.Blinded, Left: 5}))
				}
				return
			}
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	g.front.ServeHTTP(w, r)
}

// scriptGuard is "guard WHAT ...":
//
//	guard add N            starts N key servers more; their names are $G1, $G2, …
//	guard https KIND       starts one with a certificate, see makeCertificate, of an authority
//	                       that is written to the file authority
//	guard token N TOKEN    lets it make accounts for who has a token only
//	guard stop|start N...  takes them away, brings them back
//	guard lie|honest N...  makes them give false evaluations, or true ones
//	guard deaf N...        makes them fail at Confirm: they never hear that a PIN is final
//	guard later D          lets their clocks go on by D, or with a minus back
//	guard asked, guard unasked   something was asked of them since the last of these, or nothing
func scriptGuard(t testing.TB) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) == 0 {
			ts.Fatalf("usage: guard WHAT ...")
		}
		s := ts.Value(guardiansKey{}).(*guardians)
		var chosen []*guardian
		switch args[0] {
		case "stop", "start", "lie", "honest", "deaf":
			for _, a := range args[1:] {
				n, err := strconv.Atoi(a)
				ts.Check(err)
				chosen = append(chosen, s.list[n-1])
			}
		}
		switch args[0] {
		case "add":
			n, err := strconv.Atoi(args[1])
			ts.Check(err)
			for range n {
				name, err := s.add(t, nil)
				ts.Check(err)
				ts.Setenv("G"+strconv.Itoa(len(s.list)), name)
			}
		case "https":
			certificate, authority, err := makeCertificate(args[1])
			ts.Check(err)
			ts.Check(os.WriteFile(ts.MkAbs("authority"), authority, 0o600))
			name, err := s.add(t, certificate)
			ts.Check(err)
			ts.Setenv("G"+strconv.Itoa(len(s.list)), name)
		case "token":
			n, err := strconv.Atoi(args[1])
			ts.Check(err)
			g := s.list[n-1]
			g.mu.Lock()
			g.token = args[2]
			g.mu.Unlock()
		case "stop":
			for _, g := range chosen {
				g.stop()
			}
		case "start":
			for _, g := range chosen {
				ts.Check(g.start())
			}
		case "lie", "honest", "deaf":
			for _, g := range chosen {
				g.set(args[0] == "lie", args[0] == "deaf")
			}
		case "later":
			d, err := time.ParseDuration(args[1])
			ts.Check(err)
			s.mu.Lock()
			s.clock += d
			s.mu.Unlock()
		case "asked", "unasked":
			n := s.requests() - s.seen
			s.seen += n
			if (n > 0) != (args[0] == "asked") {
				ts.Fatalf("the key servers got %d requests", n)
			}
		default:
			ts.Fatalf("guard: no such thing: %s", args[0])
		}
	}
}

type guardiansKey struct{}
