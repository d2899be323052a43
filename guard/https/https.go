// Package https carries messages to key servers over HTTPS.
package https

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/protocol"
)

// Transport posts messages. The zero value works, and is safe for concurrent use.
type Transport struct {
	// Client is used as it is, but for redirects, which are never followed. Nil means
	// one with a timeout of 15 seconds and the proxy of the environment.
	Client *http.Client
	// Token returns the registration token of a server, "" for none. It goes to that
	// server with every message. Nil means none.
	Token func(server string) string
}

var _ guard.Transport = (*Transport)(nil)

const timeout = 15 * time.Second

// maxWait is the longest that a server is waited for which says when it is to be asked
// again. Another guardian is there sooner than one that needs more.
const maxWait = 5 * time.Second

// Send implements guard.Transport. A server that is busy, and says for how long (Retry-After,
// in seconds), is asked once more then, if that is soon and before ctx ends.
func (t *Transport) Send(ctx context.Context, server string, request []byte) ([]byte, error) {
	if err := guard.CheckServer(server); err != nil {
		return nil, err
	}
	b, err := t.post(ctx, server, request)
	busy, ok := errors.AsType[*busyError](err)
	if !ok || busy.wait <= 0 || busy.wait > maxWait {
		return b, err
	}
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= busy.wait {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("asking it: %w", ctx.Err())
	case <-time.After(busy.wait):
		return t.post(ctx, server, request)
	}
}

// busyError says that a server refused what it was sent, whatever that was.
type busyError struct {
	status int
	wait   time.Duration // zero if it did not say
}

func (e *busyError) Error() string {
	if e.wait == 0 {
		return fmt.Sprintf("asking it: status %d", e.status)
	}
	return fmt.Sprintf("asking it: status %d, it is busy for %v", e.status, e.wait)
}

// refusal returns the error of a reply that is no answer.
func refusal(r *http.Response) error {
	e := &busyError{status: r.StatusCode}
	if r.StatusCode == http.StatusTooManyRequests || r.StatusCode == http.StatusServiceUnavailable {
		if n, err := strconv.ParseUint(r.Header.Get("Retry-After"), 10, 16); err == nil {
			e.wait = time.Duration(n) * time.Second
		}
	}
	return e
}

// post sends a request once.
func (t *Transport) post(ctx context.Context, server string, request []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server+protocol.Path, bytes.NewReader(request))
	if err != nil {
		return nil, fmt.Errorf("asking it: %w", err)
	}
	req.Header.Set("Content-Type", protocol.ContentType)
	if t.Token != nil {
		if token := t.Token(server); token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
	}
	c := http.Client{Timeout: timeout}
	if t.Client != nil {
		c = *t.Client
	}
	// What was signed for one server is not told to another.
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := c.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // Which server it is the caller says.
		}
		return nil, fmt.Errorf("asking it: %w", web.Plain(err))
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, protocol.MaxMessage+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("asking it: %w", err)
	case resp.StatusCode != http.StatusOK:
		return nil, refusal(resp)
	case resp.Header.Get("Content-Type") != protocol.ContentType:
		// A hotel's login page is no lie of the key server.
		return nil, errors.New("asking it: something else answered")
	case len(b) > protocol.MaxMessage:
		return nil, errors.New("asking it: the reply is too long")
	}
	return b, nil
}
