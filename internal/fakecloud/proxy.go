package fakecloud

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Proxy is a proxy on loopback behind which every host is the cloud: for programs that
// know only the providers' own addresses, such as rclone. It has a certificate
// authority of its own, which nobody else trusts, and keeps all that was sent.
type Proxy struct {
	URL string // for HTTPS_PROXY
	CA  string // the file with the authority's certificate
	// Forget, if set before it is used, keeps nothing of what is sent: for long tests.
	Forget bool

	listener net.Listener
	direct   *http.Server
	inside   *http.Server
	conns    *handed
	names    func(host string) (*tls.Certificate, error)
	cloud    http.Handler

	mu   sync.Mutex
	sent bytes.Buffer // guarded by mu
}

// signIns are the addresses at which people sign in to the providers and programs get
// tokens, and what they are at the cloud.
var signIns = map[string]string{
	"accounts.google.com/o/oauth2/v2/auth":                      "/oauth/authorize",
	"oauth2.googleapis.com/token":                               "/oauth/token",
	"www.dropbox.com/oauth2/authorize":                          "/oauth/authorize",
	"api.dropboxapi.com/oauth2/token":                           "/oauth/token",
	"login.microsoftonline.com/common/oauth2/v2.0/authorize":    "/oauth/authorize",
	"login.microsoftonline.com/common/oauth2/v2.0/token":        "/oauth/token",
	"login.microsoftonline.com/consumers/oauth2/v2.0/authorize": "/oauth/authorize",
	"login.microsoftonline.com/consumers/oauth2/v2.0/token":     "/oauth/token",
}

// Sent returns all that was sent through the proxy: request lines, headers and bodies.
func (p *Proxy) Sent() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.sent.Bytes())
}

// serve hands a request to the cloud.
func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // The client went away.
	}
	if !p.Forget {
		p.mu.Lock()
		fmt.Fprintln(&p.sent, r.Method, r.Host, r.URL.RequestURI())
		_ = r.Header.Write(&p.sent)
		p.sent.Write(body)
		fmt.Fprintln(&p.sent)
		p.mu.Unlock()
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if path, ok := signIns[r.Host+r.URL.Path]; ok {
		r.URL.Path = path
	}
	p.cloud.ServeHTTP(w, r)
}

// NewProxy starts a proxy. The certificate is written to dir.
func NewProxy(c http.Handler, dir string) (*Proxy, error) {
	ca, key, err := authority()
	if err != nil {
		return nil, err
	}
	p := &Proxy{CA: filepath.Join(dir, "fakecloud-ca.pem"), cloud: c, conns: &handed{conns: make(chan net.Conn), done: make(chan struct{})}}
	if err := os.WriteFile(p.CA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}), 0o600); err != nil {
		return nil, err
	}
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	p.names = func(host string) (*tls.Certificate, error) {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, ca, &leaf.PublicKey, key)
		if err != nil {
			return nil, err
		}
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: leaf}, nil
	}
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	p.URL = "http://" + p.listener.Addr().String()
	quiet := log.New(io.Discard, "", 0)
	p.inside = &http.Server{Handler: http.HandlerFunc(p.serve), ErrorLog: quiet, ReadHeaderTimeout: time.Minute}
	p.direct = &http.Server{Handler: http.HandlerFunc(p.connect), ErrorLog: quiet, ReadHeaderTimeout: time.Minute}
	go p.inside.Serve(p.conns)
	go p.direct.Serve(p.listener)
	return p, nil
}

// Close ends the proxy.
func (p *Proxy) Close() {
	_ = p.direct.Close()
	_ = p.inside.Close()
}

// Env returns what programs find the proxy by, those of Go and those of curl.
func (p *Proxy) Env() []string {
	return []string{"HTTPS_PROXY=" + p.URL, "https_proxy=" + p.URL, "NO_PROXY=", "no_proxy=", "SSL_CERT_FILE=" + p.CA, "RCLONE_CA_CERT=" + p.CA}
}

// RcloneDrive returns a section of rclone's configuration: a remote of Google Drive
// with an access token of the cloud.
func RcloneDrive(remote, token, scope string) string {
	t, err := json.Marshal(map[string]string{
		"access_token": token, "token_type": "Bearer", "refresh_token": "none", "expiry": time.Now().Add(24 * time.Hour).Format(time.RFC3339),
	})
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("[%s]\ntype = drive\nclient_id = test\nclient_secret = test\nscope = %s\ntoken = %s\n", remote, scope, t)
}

// connect takes over a connection and is the other end.
func (p *Proxy) connect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
		return
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		http.Error(w, "no host", http.StatusBadRequest)
		return
	}
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		_ = conn.Close()
		return
	}
	cert, err := p.names(host)
	if err != nil {
		_ = conn.Close()
		return
	}
	p.conns.hand(tls.Server(bufferedConn{conn, buffered.Reader}, &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"http/1.1"}}))
}

// bufferedConn is a connection of which the first bytes were read already.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c bufferedConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// handed is a net.Listener of connections that others accepted.
type handed struct {
	conns chan net.Conn
	done  chan struct{}
}

func (h *handed) hand(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		_ = c.Close()
	}
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error {
	close(h.done)
	return nil
}

func (h *handed) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// authority returns a new certificate authority.
func authority() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the fake cloud's own"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	ca, err := x509.ParseCertificate(der)
	return ca, key, err
}
