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
	"time"

	"github.com/satchel-backup/satchel/guard"
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

// Send implements guard.Transport.
func (t *Transport) Send(ctx context.Context, server string, request []byte) ([]byte, error) {
	if err := guard.CheckServer(server); err != nil {
		return nil, err
	}
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
		return nil, fmt.Errorf("asking it: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, protocol.MaxMessage+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("asking it: %w", err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("asking it: status %d", resp.StatusCode)
	case resp.Header.Get("Content-Type") != protocol.ContentType:
		// A hotel's login page is no lie of the key server.
		return nil, errors.New("asking it: something else answered")
	case len(b) > protocol.MaxMessage:
		return nil, errors.New("asking it: the reply is too long")
	}
	return b, nil
}
