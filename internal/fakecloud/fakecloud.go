// Package fakecloud is a cloud for tests: accounts, sign-in by OAuth 2.0, and the parts
// of Google Drive's, Dropbox's and OneDrive's interfaces that Satchel uses, with faults.
//
//	cloud := fakecloud.New()
//	ann := cloud.AddAccount("1001", "ann@example.org")
//	srv := httptest.NewServer(cloud)
//	token := cloud.Token(ann)
//
// It was written from the providers' documentation. It is no proof that the providers
// themselves behave like it.
package fakecloud

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Fault is something that a cloud does instead of what was asked.
type Fault string

// The faults. What no provider says in words of its own is the same for all.
const (
	None         Fault = ""
	Unauthorized Fault = "unauthorized" // 401: the access token counts no more
	RateLimited  Fault = "rate limited" // in the provider's own words, with Retry-After: RetryAfter
	ServerError  Fault = "not applied"  // 500, and nothing happened
	Applied      Fault = "applied"      // 500, and yet it happened
	Cut          Fault = "cut"          // the line is cut, and nothing happened
	CutApplied   Fault = "cut applied"  // the line is cut, and yet it happened
	CutAnswer    Fault = "cut answer"   // done, and the line is cut in the middle of the answer
	Hang         Fault = "hang"         // no answer until the client goes away
	Full         Fault = "full"         // in the provider's own words, to uploads
	Torn         Fault = "torn"         // 500 to an upload, and half of its bytes are there
	HalfAnswer   Fault = "half answer"  // 200 and half of the bytes, with a length that agrees
	Page         Fault = "page"         // 200 and a page of a hotel's network
)

// Cloud is the fake. It is an http.Handler; its methods may be called concurrently.
type Cloud struct {
	// Fault decides what happens to a request, if not nil. op is the operation, such as
	// "drive.create". It is called without a lock held and may block.
	Fault func(op string, r *http.Request) Fault
	// RetryAfter is what RateLimited says, in seconds. Busy changes it while requests run.
	RetryAfter int
	// Rotate makes each refresh give a new refresh token and end the old one.
	Rotate bool
	// PageSize is how many entries a listing has to a page. 0 means 1000.
	PageSize int
	// Lag is how many of the newest objects listings leave out.
	Lag int
	// PartUnit is what parts of uploads must be multiples of at OneDrive. 0 means 320 KiB,
	// as it is there.
	PartUnit int
	// Now is the clock. Nil means time.Now.
	Now func() time.Time

	mux *http.ServeMux

	// mu guards RetryAfter too.
	mu       sync.Mutex
	accounts []*Account        // guarded by mu
	browser  *Account          // who is signed in at the browser; nil means that the user says no; guarded by mu
	codes    map[string]code   // guarded by mu
	access   map[string]*grant // by access token; guarded by mu
	refresh  map[string]*grant // by refresh token; guarded by mu
	counts   map[string]int    // requests by operation; guarded by mu
	tickets  onedriveTickets   // guarded by mu
}

// Busy sets RetryAfter.
func (c *Cloud) Busy(seconds int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.RetryAfter = seconds
}

// Account is an account at each of the providers.
type Account struct {
	ID    string
	Email string

	// Quota is how many bytes it holds at each provider. 0 means no limit.
	Quota int64

	drive    driveFiles    // guarded by Cloud.mu
	dropbox  dropboxFiles  // guarded by Cloud.mu
	onedrive onedriveFiles // guarded by Cloud.mu
}

// grant is what a user allowed a program once.
type grant struct {
	account *Account
	scope   string
	dead    bool
}

// code is what the browser brings back.
type code struct {
	grant           *grant
	challenge, back string
	client          string
}

// New returns a cloud without accounts.
func New() *Cloud {
	c := &Cloud{
		mux: http.NewServeMux(), codes: map[string]code{}, access: map[string]*grant{}, refresh: map[string]*grant{}, counts: map[string]int{},
	}
	c.mux.HandleFunc("GET /oauth/authorize", c.authorize)
	c.mux.HandleFunc("POST /oauth/token", c.exchange)
	c.drive()
	c.dropbox()
	c.onedrive()
	return c
}

// ServeHTTP implements http.Handler.
func (c *Cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.mux.ServeHTTP(w, r) }

// Rename gives an account another address, as its user may.
func (c *Cloud) Rename(a *Account, email string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a.Email = email
}

// AddAccount makes an account, and signs it in at the browser.
func (c *Cloud) AddAccount(id, email string) *Account {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &Account{ID: id, Email: email}
	c.accounts = append(c.accounts, a)
	c.browser = a
	return a
}

// Browse says who is signed in at the browser; nil is somebody who says no.
func (c *Cloud) Browse(a *Account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.browser = a
}

// Token returns a new access token of an account, as after a sign-in.
func (c *Cloud) Token(a *Account) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := rand.Text()
	c.access[t] = &grant{account: a}
	return t
}

// Expire ends all access tokens: each request is answered with 401 until its sender
// refreshes.
func (c *Cloud) Expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.access)
}

// Revoke ends what an account allowed: access and refreshing.
func (c *Cloud) Revoke(a *Account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for g := range maps.Values(c.refresh) {
		g.dead = g.dead || g.account == a
	}
	maps.DeleteFunc(c.access, func(_ string, g *grant) bool { return g.account == a })
}

// Swap makes the tokens of one account be those of another, as when a program mixes up
// its sign-ins.
func (c *Cloud) Swap(from, to *Account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range slices.Concat(slices.Collect(maps.Values(c.access)), slices.Collect(maps.Values(c.refresh))) {
		if g.account == from {
			g.account = to
		}
	}
}

// Counts returns how many requests there were, by operation.
func (c *Cloud) Counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

func (c *Cloud) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// words are how a provider says what goes wrong.
type words interface {
	unauthorized(w http.ResponseWriter)
	rateLimited(w http.ResponseWriter) // Retry-After is set
	full(w http.ResponseWriter)
}

// handle registers an operation. It is called with the lock held, the account whose token
// it is, and the whole body. Uploads say so: they can be full and torn.
func (c *Cloud) handle(pattern, op string, upload bool, say words, do func(w http.ResponseWriter, r *http.Request, a *Account, body []byte)) {
	c.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		c.act(w, r, op, upload, say, c.whose, do)
	})
}

// act does what a request asks for, or what a fault makes of it. Whose says for which
// account it is made: by its token, or by an address that is itself the permission.
func (c *Cloud) act(w http.ResponseWriter, r *http.Request, op string, upload bool, say words,
	whose func(*http.Request) (*Account, bool), do func(w http.ResponseWriter, r *http.Request, a *Account, body []byte)) {
	fault := None
	if c.Fault != nil {
		fault = c.Fault(op, r)
	}
	c.mu.Lock()
	c.counts[op]++
	c.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // The client went away.
	}
	run := func(body []byte) *recorder {
		rec := &recorder{header: http.Header{}}
		c.mu.Lock()
		defer c.mu.Unlock()
		a, ok := whose(r)
		if !ok {
			say.unauthorized(rec)
			return rec
		}
		do(rec, r, a, body)
		return rec
	}
	switch {
	case fault == Unauthorized:
		say.unauthorized(w)
	case fault == RateLimited:
		c.mu.Lock()
		seconds := c.RetryAfter
		c.mu.Unlock()
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		say.rateLimited(w)
	case fault == ServerError:
		http.Error(w, "internal error", http.StatusInternalServerError)
	case fault == Applied:
		run(body)
		http.Error(w, "internal error", http.StatusInternalServerError)
	case fault == Cut:
		panic(http.ErrAbortHandler)
	case fault == CutApplied:
		run(body)
		panic(http.ErrAbortHandler)
	case fault == CutAnswer:
		rec := run(body)
		rec.header.Set("Content-Length", strconv.Itoa(rec.body.Len()+1))
		rec.replay(w)
		panic(http.ErrAbortHandler)
	case fault == HalfAnswer:
		rec := run(body)
		rec.body.Truncate(rec.body.Len() / 2)
		rec.header.Del("Content-Length")
		rec.replay(w)
	case fault == Hang:
		<-r.Context().Done()
	case fault == Full && upload:
		say.full(w)
	case fault == Torn && upload:
		run(body[:len(body)/2])
		http.Error(w, "internal error", http.StatusInternalServerError)
	case fault == Page:
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>Welcome! Please accept our terms.</html>")
	default:
		run(body).replay(w)
	}
}

// whose returns the account that a request is made for.
func (c *Cloud) whose(r *http.Request) (*Account, bool) {
	g, ok := c.access[bearer(r)]
	if !ok || g.dead {
		return nil, false
	}
	return g.account, true
}

func bearer(r *http.Request) string {
	const prefix = "Bearer "
	if h := r.Header.Get("Authorization"); len(h) > len(prefix) && h[:len(prefix)] == prefix {
		return h[len(prefix):]
	}
	return ""
}

// recorder holds an answer back until it is known what becomes of it.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

func (r *recorder) replay(w http.ResponseWriter) {
	maps.Copy(w.Header(), r.header)
	if r.status != 0 {
		w.WriteHeader(r.status)
	}
	_, _ = w.Write(r.body.Bytes())
}

// answer writes JSON.
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err)
	}
}

// authorize is the page at which a user allows a program something. This one says yes,
// or no, at once.
func (c *Cloud) authorize(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := r.URL.Query()
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || back.Host == "" || q.Get("response_type") != "code" || q.Get("client_id") == "" {
		http.Error(w, "invalid request", http.StatusBadRequest)
		return
	}
	if q.Get("code_challenge") == "" || q.Get("code_challenge_method") != "S256" {
		http.Error(w, "PKCE is required", http.StatusBadRequest)
		return
	}
	to := back.Query()
	to.Set("state", q.Get("state"))
	if c.browser == nil {
		to.Set("error", "access_denied")
	} else {
		id := rand.Text()
		c.codes[id] = code{
			grant: &grant{account: c.browser, scope: q.Get("scope")}, challenge: q.Get("code_challenge"), back: q.Get("redirect_uri"), client: q.Get("client_id"),
		}
		to.Set("code", id)
	}
	back.RawQuery = to.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

// exchange gives tokens for a code, or for a refresh token.
func (c *Cloud) exchange(w http.ResponseWriter, r *http.Request) {
	fault := None
	if c.Fault != nil {
		fault = c.Fault("token", r)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts["token"]++
	switch fault {
	case ServerError:
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	case Cut:
		panic(http.ErrAbortHandler)
	}
	g, given, err := c.grantFor(r)
	if err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": err.Error(), "error_description": "Token has been expired or revoked."})
		return
	}
	if fault == CutApplied {
		panic(http.ErrAbortHandler)
	}
	access := rand.Text()
	c.access[access] = g
	reply := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 3600, "scope": g.scope}
	if given != "" {
		reply["refresh_token"] = given
	}
	answer(w, http.StatusOK, reply)
}

// grantFor returns the grant that a request to exchange proves, and the refresh token
// that it gets, if it gets a new one.
func (c *Cloud) grantFor(r *http.Request) (*grant, string, error) {
	invalid := errors.New("invalid_grant")
	switch r.FormValue("grant_type") {
	case "authorization_code":
		k, ok := c.codes[r.FormValue("code")]
		delete(c.codes, r.FormValue("code"))
		sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
		client := r.FormValue("client_id")
		if user, _, ok := r.BasicAuth(); ok {
			client = user
		}
		if !ok || k.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) || k.back != r.FormValue("redirect_uri") || k.client != client {
			return nil, "", invalid
		}
		fresh := rand.Text()
		c.refresh[fresh] = k.grant
		return k.grant, fresh, nil
	case "refresh_token":
		old := r.FormValue("refresh_token")
		g, ok := c.refresh[old]
		if !ok || g.dead {
			return nil, "", invalid
		}
		if !c.Rotate {
			return g, "", nil
		}
		delete(c.refresh, old)
		fresh := rand.Text()
		c.refresh[fresh] = g
		return g, fresh, nil
	}
	return nil, "", errors.New("unsupported_grant_type")
}
