// Package lnd is a source of items that are the state of a Lightning node of the
// kind lnd, above all its channel backup.
//
// A [Node] is a connection to lnd's REST interface:
//
//	node, err := lnd.New(lnd.Config{Address: "localhost:8080", Cert: pem, Macaroon: macaroon})
//	info, err := node.Info(ctx)
//	backup, err := node.Export(ctx)
//
// [Find] reads where a standard install keeps the certificate and the macaroons, and
// [Node.Bake] makes a macaroon that allows what is needed here and nothing else.
//
// Only the certificate that the Config holds is believed, nothing goes over a proxy,
// and an answer has a limit. Errors name no address and repeat nothing that lnd sent.
package lnd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/secret"
)

const (
	defaultPort = "8080"

	maxCert     = 64 << 10 // bytes of PEM
	maxMacaroon = 16 << 10 // bytes
	maxHeader   = 64 << 10
	// maxAnswer is how much of an answer is read. A channel is about 2 KB of it, twice
	// in base64, and no node has had 10,000.
	maxAnswer  = 48 << 20
	maxFailure = 64 << 10 // of an answer that is an error

	dialTime = 10 * time.Second
	// callTime bounds a call whose context has no end of its own: exports of large nodes
	// take some seconds on slow machines.
	callTime = time.Minute
)

// Config says where lnd is and what opens it.
type Config struct {
	// Address is where lnd's REST interface listens: host, host:port or
	// https://host:port. The port is 8080 if none is given.
	Address string
	// Cert is lnd's certificate as PEM, the file tls.cert. Nobody else is believed.
	// None means whom the system trusts, for a node behind a public name.
	Cert []byte
	// Macaroon is the content of a macaroon file. None is enough for State and for
	// what makes or unlocks a wallet.
	Macaroon secret.Bytes

	dial  func(ctx context.Context, network, address string) (net.Conn, error) // nil but in tests
	limit int                                                                  // maxAnswer but in tests
}

// Node is a connection to lnd. Its methods may be called concurrently, and each ends with
// its context, or after a minute if that has no deadline, but for those that listen.
type Node struct {
	base     url.URL
	macaroon secret.Bytes
	limit    int               // bytes of an answer
	cert     *x509.Certificate // the first one of the Config, nil if there is none
	http     http.Client
	// stream makes a connection for each request. On one that was used before, the
	// library makes the request again when the connection ends without an answer, and
	// tells nobody: what happened in between would be missed.
	stream http.Client
}

// New returns a connection, without making it.
func New(cfg Config) (*Node, error) {
	host, port, err := splitAddress(cfg.Address)
	if err != nil {
		return nil, err
	}
	if mac := cfg.Macaroon.Open(); len(mac) > maxMacaroon || len(mac) > 0 && mac[0] != 2 { // Version 2, in binary.
		return nil, fmt.Errorf("%w: it is no macaroon", ErrMacaroon)
	}
	n := &Node{base: url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}, macaroon: cfg.Macaroon, limit: cmp.Or(cfg.limit, maxAnswer)}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if len(cfg.Cert) > 0 {
		certs, err := parseCert(cfg.Cert)
		if err != nil {
			return nil, err
		}
		n.cert = certs[0]
		conf.RootCAs = x509.NewCertPool()
		for _, c := range certs {
			conf.RootCAs.AddCert(c)
		}
		// Who proves to hold the key of this one certificate is lnd, under whatever
		// name it is reached: as a container it has one that its certificate lacks.
		if len(certs) == 1 && certs[0].VerifyHostname(host) != nil && len(certs[0].DNSNames) > 0 {
			conf.ServerName = certs[0].DNSNames[0]
		}
	}
	dialer := net.Dialer{Timeout: dialTime, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4}}
	dial := dialer.DialContext
	if cfg.dial != nil {
		dial = cfg.dial
	}
	transport := &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    dialTime,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // An answer is as long as it looks.
	}
	once := transport.Clone()
	once.DisableKeepAlives = true
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	n.http = http.Client{Transport: transport, CheckRedirect: stay}
	n.stream = http.Client{Transport: once, CheckRedirect: stay}
	return n, nil
}

// Close closes connections that are not in use.
func (n *Node) Close() { n.http.CloseIdleConnections() }

// Expiry returns when the certificate of the Config ends, or the zero time without one.
func (n *Node) Expiry() time.Time {
	if n.cert == nil {
		return time.Time{}
	}
	return n.cert.NotAfter
}

func splitAddress(address string) (host, port string, err error) {
	rest, _ := strings.CutPrefix(address, "https://")
	rest = strings.TrimSuffix(rest, "/")
	if strings.Contains(rest, "://") || strings.ContainsAny(rest, "/?#@ ") {
		return "", "", ErrAddress
	}
	host, port, err = net.SplitHostPort(rest)
	if err != nil { // No port.
		host, port = strings.TrimSuffix(strings.TrimPrefix(rest, "["), "]"), defaultPort
	}
	switch host { // What it listens at says all addresses.
	case "", "0.0.0.0":
		if rest != "" {
			host = "127.0.0.1"
		}
	case "::":
		host = "::1"
	}
	number, errPort := strconv.ParseUint(port, 10, 16)
	whole := net.JoinHostPort(host, port)
	u, err := url.Parse("https://" + whole)
	again, _, errAgain := net.SplitHostPort(whole)
	if host == "" || err != nil || u.Hostname() != host || errPort != nil || number == 0 || errAgain != nil || again != host {
		return "", "", ErrAddress
	}
	return host, port, nil
}

func parseCert(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxCert {
		return nil, &CertificateError{Why: Unreadable}
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &CertificateError{Why: Unreadable}
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, &CertificateError{Why: Unreadable}
	}
	return certs, nil
}

// Call makes one call of lnd's REST interface: path begins with "/v1/" or "/v2/", in is
// sent as JSON unless it is nil, and the answer is read into out unless that is nil. In
// JSON, bytes are base64 and 64-bit numbers are strings, as in lnd's documents.
//
// A call takes a minute at most if ctx has no deadline; making a wallet can take longer on
// a slow machine. One that changes something and fails with ErrUnreachable may have been done.
func (n *Node) Call(ctx context.Context, method, path string, in, out any) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTime)
		defer cancel()
	}
	resp, err := n.send(ctx, &n.http, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(n.limit)+1))
	switch {
	case err != nil:
		return n.away(ctx, err)
	case len(body) > n.limit:
		return ErrTooLong
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		if ctx.Err() != nil {
			return n.away(ctx, ctx.Err())
		}
		return ErrNotLND
	}
	return nil
}

// send makes a request and returns the answer if it is a success.
func (n *Node) send(ctx context.Context, by *http.Client, method, path string, in any) (*http.Response, error) {
	u, err := url.Parse(path)
	if err != nil || !strings.HasPrefix(path, "/v") {
		return nil, errors.New("a path that lnd cannot have")
	}
	u.Scheme, u.Host = n.base.Scheme, n.base.Host
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, errors.New("a request that is no JSON")
		}
		// It may hold a password, and a connection may still read it after this returns:
		// its copy there is what cannot be wiped.
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, errors.New("a request that lnd cannot have")
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if !n.macaroon.Empty() {
		req.Header.Set("Grpc-Metadata-macaroon", hex.EncodeToString(n.macaroon.Open()))
	}
	resp, err := by.Do(req)
	if err != nil {
		return nil, n.away(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, failure(resp)
}

// away says why there was no answer.
func (n *Node) away(ctx context.Context, err error) error {
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return err
	}
	if ve, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		e := &CertificateError{Why: Refused}
		if len(ve.UnverifiedCertificates) > 0 {
			theirs := ve.UnverifiedCertificates[0]
			e.NotAfter = theirs.NotAfter
			if n.cert != nil && !theirs.Equal(n.cert) {
				e.Why = NotPinned
			}
		}
		if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired && e.Why != NotPinned {
			e.Why = Expired
			if time.Now().Before(e.NotAfter) {
				e.Why = NotYet
			}
		}
		if _, ok := errors.AsType[x509.HostnameError](err); ok && e.Why != NotPinned {
			e.Why = OtherName
		}
		return e
	}
	if ctx.Err() != nil { // What was cut short says nothing of who answers.
		return unreachable(err)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return ErrNotLND
	}
	if notHTTP(err) {
		if n.speaksHTTP2(ctx) {
			return ErrGRPC
		}
		return ErrNotLND
	}
	return unreachable(err)
}

// notHTTP reports whether there was an answer and it was none of HTTP/1: what the network
// says, or an end of the connection, is something else.
func notHTTP(err error) bool {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // It is a net.Error itself, whatever it is of.
	}
	_, network := errors.AsType[net.Error](err)
	for _, other := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, context.Canceled, context.DeadlineExceeded} {
		network = network || errors.Is(err, other)
	}
	return err != nil && !network
}

// speaksHTTP2 reports whether the other side speaks HTTP/2 if it is asked to, as gRPC does
// and lnd's REST interface does not.
func (n *Node) speaksHTTP2(ctx context.Context) bool {
	t, ok := n.http.Transport.(*http.Transport)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	raw, err := t.DialContext(ctx, "tcp", n.base.Host)
	if err != nil {
		return false
	}
	defer raw.Close()
	conf := t.TLSClientConfig.Clone()
	conf.NextProtos = []string{"h2"}
	conn := tls.Client(raw, conf)
	return conn.HandshakeContext(ctx) == nil && conn.ConnectionState().NegotiatedProtocol == "h2"
}

// failure reads an answer that is an error.
func failure(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFailure))
	if err != nil {
		return unreachable(err)
	}
	var answer struct {
		wireFailure
		Error *wireFailure `json:"error"` // so in an answer that was to be a stream
	}
	err = json.Unmarshal(body, &answer)
	f := answer.wireFailure
	if answer.Error != nil {
		f = *answer.Error
	}
	if err != nil || f.Code == 0 {
		switch resp.StatusCode {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return unreachable(nil) // A proxy before it.
		}
		return ErrNotLND
	}
	return f.error(resp.StatusCode)
}

// wireFailure is how lnd tells an error, also inside a stream.
type wireFailure struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// lnd gives all its errors the code "unknown": their text is the only thing that tells
// them apart. These are the texts of v0.20, which have been the same for years.
var failures = []struct {
	text string // that the message holds
	err  error
}{
	{"wallet locked, unlock it", ErrLocked},
	{"wallet not created, create one", ErrNoWallet},
	{"waiting to start, RPC services not available", ErrStarting},
	{"in the process of starting up", ErrStarting},
	{"server is still in the process of starting", ErrStarting},
	{"wallet already unlocked", ErrUnlocked},
	{"permission denied", ErrPermission},
	{"verification failed", ErrMacaroon},
	{"cannot get macaroon", ErrMacaroon},
	{"expected 1 macaroon, got", ErrMacaroon},
	{"unknown macaroon version", ErrMacaroon},
	{"root key with id", ErrMacaroon},
	{"invalid multi channel backup", ErrBackup},
	{"unmarshal v1", ErrMacaroon},
	{"unmarshal v2", ErrMacaroon},
	{"cannot determine data format of binary-encoded macaroon", ErrMacaroon},
}

func (f wireFailure) error(status int) error {
	for _, known := range failures {
		if strings.Contains(f.Message, known.text) {
			return known.err
		}
	}
	const unavailable = 14
	if f.Code == unavailable {
		return unreachable(nil) // The REST interface is there and the rest of lnd is not.
	}
	return &AnswerError{Status: status, Code: f.Code, Message: f.Message}
}

// sent makes a context that closes the channel when a request has been written.
func sent(ctx context.Context) (context.Context, <-chan struct{}) {
	done := make(chan struct{})
	var once onceClose
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				once.close(done)
			}
		},
	}), done
}

func unreachable(err error) error {
	if err == nil {
		return ErrUnreachable
	}
	// Errors of the network name addresses, and those of HTTP repeat what came.
	for _, c := range []struct {
		is   func(error) bool
		text string
	}{
		{func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }, "no answer in time"},
		{isRefused, "nobody listens there"},
		{func(err error) bool { _, ok := errors.AsType[*net.DNSError](err); return ok }, "its name is not known"},
		{func(err error) bool { e, ok := errors.AsType[net.Error](err); return ok && e.Timeout() }, "no answer in time"},
		{func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }, "it hung up"},
	} {
		if c.is(err) {
			return fmt.Errorf("%w: %s", ErrUnreachable, c.text)
		}
	}
	return ErrUnreachable
}
