package alarm

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/satchel-backup/satchel/secret"
)

var (
	// ErrAddress says that messages cannot go to an address.
	ErrAddress = errors.New("not an address that messages can go to")
	// ErrRefused says that a receiver did not take a message.
	ErrRefused = errors.New("the message was not taken")
)

// SignatureHeader is the header of a webhook that proves who sent it, if a secret was
// agreed on: "t=UNIX,v1=HEX", where HEX is HMAC-SHA256 under the secret of UNIX, a dot,
// and the body.
const SignatureHeader = "Satchel-Signature"

// IDHeader has the id of the message, by which a repeated one is known.
const IDHeader = "Satchel-Message-Id"

// Webhook posts messages as JSON. An answer of 2xx says that one was taken; a redirect is
// not followed.
type Webhook struct {
	URL       string       // see CheckURL
	Secret    secret.Bytes // empty if nothing is signed
	Transport http.RoundTripper
	Now       func() time.Time // nil means time.Now
}

var _ Receiver = (*Webhook)(nil)

// Loopback reports whether a host is this machine.
func Loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// CheckURL returns an error that is ErrAddress unless a webhook may go there: https, or
// http on this machine. A user name and password in it would be shown with it.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "":
		return fmt.Errorf("%w: it is no URL", ErrAddress)
	case u.User != nil:
		return fmt.Errorf("%w: it has a user name in it", ErrAddress)
	case u.Scheme != "https" && !(u.Scheme == "http" && Loopback(u.Hostname())):
		return fmt.Errorf("%w: only https, or http on this machine", ErrAddress)
	}
	return nil
}

// messageJSON is the body. Fields are added, never taken away.
type messageJSON struct {
	Version int        `json:"version"`
	ID      string     `json:"id"`
	Time    time.Time  `json:"time"`
	Test    bool       `json:"test"`
	Subject string     `json:"subject"`
	Text    string     `json:"text"`
	Alarms  []itemJSON `json:"alarms"`
	More    int        `json:"more,omitempty"`
}

type itemJSON struct {
	State    State      `json:"state"`
	Kind     Kind       `json:"kind"`
	Wallet   string     `json:"wallet"`
	Place    string     `json:"place,omitempty"`
	Code     int        `json:"code,omitempty"`
	Since    *time.Time `json:"since,omitempty"`
	Ended    *time.Time `json:"ended,omitempty"`
	Happened string     `json:"happened"`
	Safe     string     `json:"safe,omitempty"`
	Next     string     `json:"next,omitempty"`
}

func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

func (m Message) body() ([]byte, error) {
	j := messageJSON{Version: 1, ID: m.ID, Time: m.Time.UTC().Truncate(time.Second), Test: m.Test, Subject: m.Subject(), Text: m.Text(), Alarms: []itemJSON{}, More: m.More}
	for _, it := range m.Items {
		j.Alarms = append(j.Alarms, itemJSON{it.State, it.Kind, it.Wallet, it.Place, it.Code, stamp(it.Since), stamp(it.Ended), it.Happened, it.Safe, it.Next})
	}
	return json.Marshal(j)
}

// maxAnswer is how much of an answer is read, so that the connection can be used again.
const maxAnswer = 64 << 10

// Send implements [Receiver].
func (w *Webhook) Send(ctx context.Context, m Message) error {
	if err := CheckURL(w.URL); err != nil {
		return err
	}
	body, err := m.body()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: it is no URL", ErrAddress)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "satchel")
	req.Header.Set(IDHeader, m.ID)
	if !w.Secret.Empty() {
		now := time.Now
		if w.Now != nil {
			now = w.Now
		}
		t := strconv.FormatInt(now().Unix(), 10)
		req.Header.Set(SignatureHeader, "t="+t+",v1="+Sign(w.Secret, t, body))
	}
	// A redirect would take the message, and what is agreed on, to somebody else.
	client := http.Client{Transport: w.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return hideURL(err)
	}
	defer res.Body.Close()
	io.CopyN(io.Discard, res.Body, maxAnswer)
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%w: the server answered %d", ErrRefused, res.StatusCode)
	}
	return nil
}

// hideURL takes the URL out of an error: what stands in its path may be what lets
// messages in.
func hideURL(err error) error {
	e, ok := errors.AsType[*url.Error](err)
	if !ok {
		return err
	}
	if op, ok := errors.AsType[*net.OpError](e.Err); ok && op.Op == "dial" {
		return fmt.Errorf("connecting: %w", op.Err)
	}
	return e.Err
}

// Sign returns the signature of a body under a secret, as [SignatureHeader] has it, t
// being seconds since 1970 as digits.
func Sign(key secret.Bytes, t string, body []byte) string {
	h := hmac.New(sha256.New, key.Open())
	h.Write([]byte(t + "."))
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}
