package signin

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
)

// Provider is where tokens come from: OAuth 2.0 (RFC 6749) for a program on the user's
// own machine (RFC 8252), with PKCE (RFC 7636).
type Provider struct {
	AuthURL, TokenURL string
	Scopes            []string
	Params            map[string]string // more that the provider wants to be told in the browser

	// Client and ClientSecret are of the program, as the provider registered it. The
	// secret of a program on a user's machine is none; some providers ask for it.
	Client       string
	ClientSecret secret.Bytes
	// Redirect is the address on this machine that the browser is sent back to, as the
	// provider has it: http://127.0.0.1/ or http://localhost. Without a port in it a free
	// one is taken, for providers that do not compare it (RFC 8252, 7.3).
	Redirect string

	Transport http.RoundTripper // nil means the usual one
}

var (
	// ErrRefused says that the user, or the provider, said no in the browser.
	ErrRefused = errors.New("the provider did not allow it")
	// ErrScope says that the user left out a permission that is needed.
	ErrScope = errors.New("a permission that is needed was not given")
)

const (
	early = time.Minute // before a token ends another is got
	// refreshTime is how long that may take, less than others wait for it.
	refreshTime = 45 * time.Second
	maxReply    = 1 << 20
	maxURL      = 16 << 10
)

func (p Provider) config(redirect string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: p.Client, ClientSecret: string(p.ClientSecret.Open()), RedirectURL: redirect, Scopes: p.Scopes,
		Endpoint: oauth2.Endpoint{AuthURL: p.AuthURL, TokenURL: p.TokenURL, AuthStyle: oauth2.AuthStyleInParams},
	}
}

func (p Provider) context(ctx context.Context) context.Context {
	c := web.New(web.Config{Transport: p.Transport})
	return context.WithValue(ctx, oauth2.HTTPClient, &http.Client{
		Transport: c.RoundTripper(maxReply),
		// What is sent here opens the account: it goes to no other address.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
}

// Ask lets the user sign in with the browser. open is called with the address to show;
// it must not wait for the browser to end. The browser comes back to a listener on this
// machine. If it runs on another one the user has an address that leads nowhere: paste, if
// not nil, waits for it to be typed in and returns it. Its context ends when the browser
// came back.
func (p Provider) Ask(ctx context.Context, open func(address string), paste func(context.Context) (string, error)) (Tokens, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	back, err := url.Parse(p.Redirect)
	if err != nil {
		return Tokens{}, err
	}
	listeners, port, err := listen(back.Hostname(), back.Port())
	if err != nil {
		return Tokens{}, fmt.Errorf("waiting for the browser: %w", err)
	}
	back.Host = net.JoinHostPort(back.Hostname(), port)
	state, verifier := oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	codes := make(chan result, 2)
	srv := &http.Server{Handler: comeBack(state, codes), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: maxURL}
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Go(func() { srv.Serve(l) })
	}
	defer func() {
		// The page that says so still reaches the browser.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if srv.Shutdown(end) != nil {
			srv.Close()
		}
		serving.Wait()
	}()

	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier)}
	for key, value := range p.Params {
		options = append(options, oauth2.SetAuthURLParam(key, value))
	}
	conf := p.config(back.String())
	open(conf.AuthCodeURL(state, options...))
	var pasting sync.WaitGroup
	if paste != nil {
		pasteCtx, stop := context.WithCancel(ctx)
		defer pasting.Wait()
		defer stop()
		pasting.Go(func() {
			for {
				typed, err := paste(pasteCtx)
				if err != nil {
					if pasteCtx.Err() == nil {
						codes <- result{err: err}
					}
					return
				}
				u, err := url.Parse(strings.TrimSpace(typed))
				if err != nil {
					continue
				}
				if r, ok := readCode(u.Query(), state); ok {
					codes <- r
					return
				}
			}
		})
	}
	var r result
	select {
	case r = <-codes:
	case <-ctx.Done():
		return Tokens{}, ctx.Err()
	}
	if r.err != nil {
		return Tokens{}, r.err
	}
	t, err := conf.Exchange(p.context(ctx), r.code, oauth2.VerifierOption(verifier))
	if err != nil {
		return Tokens{}, fmt.Errorf("getting the tokens: %w", plain(err))
	}
	if t.RefreshToken == "" {
		return Tokens{}, fmt.Errorf("the provider gave no lasting permission: %w", ErrScope)
	}
	if given, ok := t.Extra("scope").(string); ok && given != "" {
		for _, want := range p.Scopes {
			if strings.Contains(want, "/") && !strings.Contains(" "+given+" ", " "+want+" ") {
				return Tokens{}, ErrScope
			}
		}
	}
	return tokensOf(t, secret.Bytes{}), nil
}

// listen waits for the browser at a port of this machine, "" for a free one. A browser
// takes the name localhost for ::1 first and 127.0.0.1 then, and nobody else may have
// either.
func listen(host, port string) (list []net.Listener, at string, err error) {
	for range 8 {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", cmp.Or(port, "0")))
		if err != nil {
			return nil, "", err
		}
		if _, at, err = net.SplitHostPort(l.Addr().String()); err != nil {
			l.Close()
			return nil, "", err
		}
		if host != "localhost" {
			return []net.Listener{l}, at, nil
		}
		l6, err := net.Listen("tcp6", net.JoinHostPort("::1", at))
		if err == nil {
			return []net.Listener{l, l6}, at, nil
		}
		any, without := net.Listen("tcp6", "[::1]:0")
		if without != nil {
			return []net.Listener{l}, at, nil // This machine has no ::1.
		}
		any.Close()
		l.Close()
		if port != "" {
			return nil, "", err
		}
	}
	return nil, "", errors.New("no port is free")
}

// result is what the browser brought back.
type result struct {
	code string
	err  error
}

// readCode reads what the browser was sent back with. What was not asked for by this
// program is no answer.
func readCode(q url.Values, state string) (result, bool) {
	if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1 {
		return result{}, false
	}
	if q.Get("error") != "" {
		return result{err: ErrRefused}, true
	}
	return result{code: q.Get("code")}, q.Get("code") != ""
}

// comeBack is the page at which the browser comes back.
func comeBack(state string, codes chan<- result) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Referrer-Policy", "no-referrer")
		r, ok := result{}, false
		if req.Method == http.MethodGet && req.URL.Path == "/" {
			r, ok = readCode(req.URL.Query(), state)
		}
		if !ok {
			http.Error(w, "This is Satchel, waiting for another answer.", http.StatusNotFound)
			return
		}
		if r.err == nil {
			fmt.Fprintln(w, "Satchel is signed in. You can close this window.")
		} else {
			fmt.Fprintln(w, "Satchel was not allowed in. You can close this window.")
		}
		select {
		case codes <- r:
		default: // There is an answer already.
		}
	})
}

// tokensOf takes over what a provider gave. It need not repeat the refresh token.
func tokensOf(t *oauth2.Token, refresh secret.Bytes) Tokens {
	if t.RefreshToken != "" {
		refresh = secret.FromString(t.RefreshToken)
	}
	return Tokens{Access: secret.FromString(t.AccessToken), Expires: t.Expiry, Refresh: refresh}
}

// plain returns an error about tokens without what the provider sent: it can hold some.
func plain(err error) error {
	if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		switch r.ErrorCode {
		case "invalid_grant", "interaction_required", "login_required", "consent_required":
			return store.ErrSignIn
		case "invalid_client", "unauthorized_client":
			return errors.New("the provider does not know this program: look at the client id")
		}
		return fmt.Errorf("the provider refused, with status %d: %w", r.Response.StatusCode, store.ErrUnreachable)
	}
	if errors.Is(err, store.ErrUnreachable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		if u, ok := errors.AsType[*url.Error](err); ok {
			return u.Err
		}
		return err
	}
	return fmt.Errorf("the provider's answer is not understood: %w", store.ErrUnreachable)
}

// Fixed returns tokens that were just given, to ask whose they are.
func (t Tokens) Fixed() web.Tokens { return fixed(t.Access.Open()) }

type fixed []byte

func (f fixed) Token(_ context.Context, stale string) (string, error) {
	if stale == string(f) {
		return "", store.ErrSignIn
	}
	return string(f), nil
}

// Source returns the tokens of the sign-in for an address: they are refreshed when they
// end, kept before they are used, and shared with other processes. Where there is no
// sign-in, or the provider refused to refresh it, the error is store.ErrSignIn, without a
// request, until the user signs in again.
func (k *Keeper) Source(address string, p Provider) web.Tokens {
	return &source{keeper: k, address: address, provider: p, turn: make(chan struct{}, 1)}
}

type source struct {
	keeper   *Keeper
	address  string
	provider Provider

	turn chan struct{} // holds one while somebody looks at last
	last Tokens        // of whom has the turn
	kept time.Time     // when last was kept, of whom has the turn
}

// Token implements web.Tokens.
func (s *source) Token(ctx context.Context, stale string) (string, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	// The user may have signed out, or in again, elsewhere.
	if s.good(s.last, stale) && s.kept.Equal(s.keeper.Kept(s.address)) {
		return string(s.last.Access.Open()), nil
	}
	unlock, err := s.keeper.lock(ctx, s.keeper.lockOf(s.address))
	if err != nil {
		return "", err
	}
	defer unlock()
	kept := s.keeper.Kept(s.address)
	r, err := s.keeper.Get(s.address) // Another process may have refreshed it.
	if err != nil {
		return "", err
	}
	s.last, s.kept = Tokens{}, kept
	if s.good(r.Tokens, stale) {
		s.last = r.Tokens
		return string(s.last.Access.Open()), nil
	}
	if r.Tokens.Refresh.Empty() {
		return "", store.ErrSignIn
	}
	p := s.provider
	if r.Client != "" {
		p.Client, p.ClientSecret = r.Client, r.ClientSecret
	}
	old := &oauth2.Token{RefreshToken: string(r.Tokens.Refresh.Open())}
	// Others wait for the lock meanwhile, not for ever.
	asking, cancel := context.WithTimeout(ctx, refreshTime)
	defer cancel()
	t, err := p.config("").TokenSource(p.context(asking), old).Token()
	if err != nil && asking.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: no answer in %v", store.ErrUnreachable, refreshTime)
	}
	if err != nil {
		err = plain(err)
		if errors.Is(err, store.ErrSignIn) {
			// It will not be better the next time: nobody asks again (R9).
			r.Tokens = Tokens{}
			return "", errors.Join(err, s.keeper.put(ctx, r))
		}
		return "", fmt.Errorf("refreshing the sign-in: %w", err)
	}
	r.Tokens = tokensOf(t, r.Tokens.Refresh)
	if err := s.keeper.put(ctx, r); err != nil {
		return "", fmt.Errorf("keeping a sign-in: %w", err)
	}
	s.last, s.kept = r.Tokens, s.keeper.Kept(s.address)
	return string(s.last.Access.Open()), nil
}

// good reports whether an access token can be used.
func (s *source) good(t Tokens, stale string) bool {
	return !t.Access.Empty() && string(t.Access.Open()) != stale && (t.Expires.IsZero() || s.keeper.now().Add(early).Before(t.Expires))
}
