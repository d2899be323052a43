// Package web is HTTP as stores need it: a request is sent, and sent again, until
// there is an answer that says something.
//
//	c := web.New(web.Config{Tokens: signedIn, Account: whose, Owner: id})
//	a, err := c.Do(ctx, web.Request{Method: "GET", URL: u, Limit: 1 << 20})
//
// Every request must be safe to repeat: it is, after a lost answer, after 429 and after
// a server's fault, with growing pauses and as Retry-After says. Errors wrap the
// sentinels of package store. They name no address and hold nothing that the server
// sent: both can be secret.
package web

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/satchel-backup/satchel/store"
)

const (
	attempts  = 5
	dials     = 3 // of those, where nobody is reached at all
	firstWait = 500 * time.Millisecond
	// maxWait is the longest pause that a call makes. A server that asks for a longer
	// one gets it: the call ends, and the next ones end at once until it is over.
	maxWait = 30 * time.Second
	// idleTime is how long neither side may send a byte: an upload that the system
	// buffered needs a while on a slow line.
	idleTime   = 2 * time.Minute
	dialTime   = 15 * time.Second
	defaultMax = 1 << 20
	maxHeader  = 64 << 10
	// maxTrusted is how many bytes are made room for because a server says that they
	// come: a buffer that grows by and by leaves several times as many behind.
	maxTrusted = 8 << 20
)

// Tokens gives access tokens of one sign-in. Methods may be called concurrently.
type Tokens interface {
	// Token returns an access token. One that the provider refused comes in as stale,
	// and another one is returned. If there is none any more, as after the user took
	// the grant back, the error is store.ErrSignIn, at once and without a request from
	// then on.
	Token(ctx context.Context, stale string) (string, error)
}

// Config says how requests are made.
type Config struct {
	// Transport carries one request. Nil means NewTransport(nil).
	Transport http.RoundTripper
	// Tokens are sent along as Bearer. Nil means none: the caller authorises.
	Tokens Tokens
	// Account asks whose account a token is of, by c. It is asked once for each token,
	// before anything else is done with it, if Owner is not "". What it returns must be
	// Owner; otherwise every call ends with store.ErrWrongAccount.
	Account func(ctx context.Context, c *Client) (string, error)
	Owner   string
	// Later reports whether an answer means that the request is to be made later, for
	// providers who say so by other codes than 429 and 503. Nil means no other.
	Later func(*Answer) bool
}

// Client makes requests. Methods may be called concurrently.
type Client struct {
	cfg  Config
	http http.Client

	mu       sync.Mutex
	verified string    // the token that was last seen to be the owner's; guarded by mu
	notUntil time.Time // before that the server wants no request; guarded by mu
}

// Request is one request.
type Request struct {
	Method string
	URL    string
	Header http.Header
	Body   []byte
	Limit  int64 // bytes of the answer that are read at most; 0 means 1 MiB
	// Plain sends no token, as to an address that is itself the permission.
	Plain bool
	// Once makes it be sent one time: after a fault the caller first asks how much of it
	// was done, as with parts of a large upload.
	Once bool
}

// Answer is what a server said.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte

	response *http.Response // its body is read
}

// ErrBusy says that a server was reached and could not answer, each time it was asked.
var ErrBusy = errors.New("the server is busy or has a fault")

// LaterError says that the server wants to be asked later, or had a fault each time.
// It is a store.ErrUnreachable.
type LaterError struct {
	Status int           // the last one
	After  time.Duration // what Retry-After said, 0 if nothing
}

// Error implements error.
func (e *LaterError) Error() string {
	text := fmt.Sprintf("%v (status %d)", ErrBusy, e.Status)
	if e.After > 0 {
		text += fmt.Sprintf("; it asks to wait %v", e.After.Round(time.Second))
	}
	return text
}

// Unwrap returns store.ErrUnreachable and ErrBusy.
func (e *LaterError) Unwrap() []error { return []error{store.ErrUnreachable, ErrBusy} }

// errIdle ends a request in which nothing moved.
var errIdle = errors.New("nothing came for two minutes")

// NewTransport returns what carries requests: over the environment's proxy for https, and
// trusting roots, nil for those of the system.
func NewTransport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  proxy,
		DialContext:            (&net.Dialer{Timeout: dialTime, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    dialTime,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // What is stored looks random.
	}
}

// proxy is that of the environment for what TLS protects. The rest is for the local
// network: it takes no way over a proxy, which would read its password, and may be far.
func proxy(req *http.Request) (*url.URL, error) {
	if req.URL.Scheme != "https" {
		return nil, nil
	}
	return http.ProxyFromEnvironment(req)
}

// New returns a client.
func New(cfg Config) *Client {
	if cfg.Transport == nil {
		cfg.Transport = NewTransport(nil)
	}
	return &Client{cfg: cfg, http: http.Client{Transport: cfg.Transport, CheckRedirect: redirect}}
}

// redirect follows a server that sends a reader elsewhere, as clouds do to where the
// bytes are. Whoever writes is not sent elsewhere: that is a portal, or an address that
// was typed wrong.
func redirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	if first.Method != http.MethodGet || len(via) > 5 || first.URL.Scheme == "https" && req.URL.Scheme != "https" {
		return http.ErrUseLastResponse
	}
	// What opens one server is not for another, though it has the same name and another
	// port, or a name below that one, where the library would send it along. And the
	// address can be a permission itself.
	if req.URL.Host != first.URL.Host || req.URL.Scheme != first.URL.Scheme {
		req.Header.Del("Authorization")
	}
	req.Header.Del("Referer")
	return nil
}

// Do makes a request and returns the answer, whole. Answers that mean "later" (429, 503
// and other faults of the server, but not 501, 505 and 507) are not returned: the
// request is repeated, and in the end the error is a *LaterError. If the client has
// Tokens, a 401 is answered with another token once, and is then store.ErrSignIn. An
// answer longer than the limit is store.ErrTooLarge.
func (c *Client) Do(ctx context.Context, r Request) (*Answer, error) {
	token := ""
	if c.cfg.Tokens != nil && !r.Plain {
		var err error
		if token, err = c.token(ctx, ""); err != nil {
			return nil, err
		}
	}
	a, err := c.repeat(ctx, r, token)
	if err != nil || a.Status != http.StatusUnauthorized || token == "" {
		return a, err
	}
	if token, err = c.token(ctx, token); err != nil {
		return nil, err
	}
	if a, err = c.repeat(ctx, r, token); err == nil && a.Status == http.StatusUnauthorized {
		return nil, fmt.Errorf("a fresh sign-in was refused: %w", store.ErrSignIn)
	}
	return a, err
}

// token returns one that is the owner's.
func (c *Client) token(ctx context.Context, stale string) (string, error) {
	token, err := c.cfg.Tokens.Token(ctx, stale)
	if err != nil || c.cfg.Owner == "" || c.cfg.Account == nil {
		return token, err
	}
	c.mu.Lock()
	known, notUntil := c.verified == token, c.notUntil
	c.mu.Unlock()
	if known {
		return token, nil
	}
	asking := Client{cfg: Config{Later: c.cfg.Later, Tokens: &theseTokens{first: token, rest: c.cfg.Tokens}}, http: c.http, notUntil: notUntil}
	owner, err := c.cfg.Account(ctx, &asking)
	asking.mu.Lock()
	notUntil = asking.notUntil
	asking.mu.Unlock()
	c.mu.Lock()
	if notUntil.After(c.notUntil) {
		c.notUntil = notUntil // A pause that is asked for is one for all requests.
	}
	c.mu.Unlock()
	if err != nil {
		return "", err
	}
	if owner != c.cfg.Owner {
		return "", store.ErrWrongAccount
	}
	token = asking.cfg.Tokens.(*theseTokens).last()
	c.mu.Lock()
	c.verified = token
	c.mu.Unlock()
	return token, nil
}

// theseTokens is a token to begin with, and which one was used in the end: the answer
// about the account is of that one.
type theseTokens struct {
	rest Tokens

	mu    sync.Mutex
	first string // guarded by mu
}

func (t *theseTokens) Token(ctx context.Context, stale string) (string, error) {
	if stale == "" {
		return t.last(), nil
	}
	token, err := t.rest.Token(ctx, stale)
	if err == nil {
		t.mu.Lock()
		t.first = token
		t.mu.Unlock()
	}
	return token, err
}

func (t *theseTokens) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.first
}

// repeat makes a request until there is an answer that says something.
func (c *Client) repeat(ctx context.Context, r Request, token string) (*Answer, error) {
	c.mu.Lock()
	rest := time.Until(c.notUntil)
	c.mu.Unlock()
	if rest > 0 {
		return nil, &LaterError{Status: http.StatusTooManyRequests, After: rest}
	}
	wait := firstWait
	for attempt := 1; ; attempt++ {
		a, err := c.once(ctx, r, token)
		var after time.Duration
		switch {
		case err == nil && !c.later(a):
			return a, nil
		case err == nil:
			after = retryAfter(a.Header)
			err = &LaterError{Status: a.Status, After: after}
		case ctx.Err() != nil:
			return nil, err
		case !again(err):
			return nil, err
		}
		if after > maxWait {
			c.mu.Lock()
			c.notUntil = time.Now().Add(min(after, time.Hour))
			c.mu.Unlock()
			return nil, err
		}
		pause := max(after, wait/2+rand.N(wait/2))
		last := attempt == attempts || r.Once || attempt == dials && isDial(err)
		if deadline, ok := ctx.Deadline(); last || ok && time.Until(deadline) <= pause {
			return nil, err
		}
		wait = min(2*wait, maxWait)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

// later reports whether an answer means that the request is to be made later.
func (c *Client) later(a *Answer) bool {
	switch a.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return c.cfg.Later != nil && c.cfg.Later(a)
}

// again reports whether the same request may get another answer.
func again(err error) bool {
	return errors.Is(err, store.ErrUnreachable) && !isProof(err)
}

// isDial reports whether there was no connection.
func isDial(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}

// retryAfter reads the header, in seconds or as a date (RFC 9110, 10.2.3).
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.ParseUint(v, 10, 32); err == nil {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

// once makes a request one time. Where there was no whole answer the error is
// store.ErrUnreachable.
func (c *Client) once(parent context.Context, r Request, token string) (*Answer, error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	idle := time.AfterFunc(idleTime, func() { cancel(errIdle) })
	defer idle.Stop()
	moved := func(n int) {
		idle.Reset(idleTime)
		store.Moved(parent, n)
	}

	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, nil)
	if err != nil {
		return nil, errors.New("the address is not usable") // Its text would hold it.
	}
	if r.Header != nil {
		req.Header = r.Header.Clone()
	}
	if r.Body != nil {
		req.ContentLength = int64(len(r.Body))
		req.GetBody = func() (io.ReadCloser, error) {
			return io.NopCloser(&movingReader{bytes.NewReader(r.Body), moved}), nil
		}
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
		if len(r.Body) == 0 {
			req.Body = http.NoBody
		}
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unreachable(parent, ctx, err)
	}
	defer resp.Body.Close()
	limit := r.Limit
	if limit == 0 {
		limit = defaultMax
	}
	if resp.ContentLength > limit && r.Method != http.MethodHead {
		return nil, store.ErrTooLarge
	}
	var body bytes.Buffer
	if r.Method != http.MethodHead {
		body.Grow(int(min(max(resp.ContentLength, 0), maxTrusted)) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(io.LimitReader(&movingReader{resp.Body, moved}, limit+1)); err != nil {
		return nil, unreachable(parent, ctx, err)
	}
	if int64(body.Len()) > limit {
		return nil, store.ErrTooLarge
	}
	return &Answer{Status: resp.StatusCode, Header: resp.Header, Body: body.Bytes(), response: resp}, nil
}

// movingReader tells of each read.
type movingReader struct {
	io.Reader
	moved func(n int)
}

func (r *movingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.moved(n)
	}
	return n, err
}

// unreachable says why there is no answer.
func unreachable(parent, ctx context.Context, err error) error {
	if parent.Err() != nil {
		return context.Cause(parent)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // Its text holds the address.
	}
	if err = Plain(err); isProof(err) {
		return fmt.Errorf("%w: %w", store.ErrUnreachable, err)
	}
	for _, quotes := range []string{"malformed ", "GOAWAY", "invalid proxy address"} {
		if strings.Contains(err.Error(), quotes) {
			return fmt.Errorf("%w: what came is no HTTP, or the proxy's address is none", store.ErrUnreachable)
		}
	}
	return fmt.Errorf("%w: %w", store.ErrUnreachable, err)
}

// RoundTripper returns the client as a transport, for libraries that make requests of
// their own. Bodies are held in memory, those of answers up to limit bytes.
func (c *Client) RoundTripper(limit int64) http.RoundTripper { return &roundTripper{c, limit} }

type roundTripper struct {
	client *Client
	limit  int64
}

// RoundTrip implements http.RoundTripper.
func (t *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	r := Request{Method: req.Method, URL: req.URL.String(), Header: req.Header, Limit: t.limit}
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		if e := req.Body.Close(); err == nil {
			err = e
		}
		if err != nil {
			return nil, err
		}
		r.Body = body
	}
	a, err := t.client.Do(req.Context(), r)
	if err != nil {
		return nil, err
	}
	resp := *a.response
	resp.Request = req
	resp.Body = io.NopCloser(bytes.NewReader(a.Body))
	return &resp, nil
}
