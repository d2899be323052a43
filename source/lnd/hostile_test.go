package lnd_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/fakelnd"
	"github.com/satchel-backup/satchel/source/lnd"
)

// answering returns a connection to a server that answers all with one text.
func answering(t *testing.T, h http.HandlerFunc) *lnd.Node {
	t.Helper()
	srv := httptest.NewTLSServer(h)
	t.Cleanup(srv.Close)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	return connect(t, lnd.Limited(lnd.Config{Address: srv.Listener.Addr().String(), Cert: cert}, 1<<20))
}

// R18: an answer that lnd does not give is refused, and never without an end.
func TestHostileAnswers(t *testing.T) {
	ctx := t.Context()
	multi := base64.StdEncoding.EncodeToString(make([]byte, 100))
	short := base64.StdEncoding.EncodeToString(make([]byte, 44))
	point := fmt.Sprintf(`{"funding_txid_bytes":%q,"output_index":1}`, base64.StdEncoding.EncodeToString(make([]byte, 32)))
	backup := func(points, multi string) string {
		return fmt.Sprintf(`{"multi_chan_backup":{"chan_points":[%s],"multi_chan_backup":%q}}`, points, multi)
	}
	for name, c := range map[string]struct {
		answer string
		want   error
	}{
		"good":        {backup(point, multi), nil},
		"no channel":  {backup("", multi), nil},
		"no backup":   {backup(point, ""), lnd.ErrNotLND},
		"short":       {backup(point, short), lnd.ErrNotLND},
		"short txid":  {backup(`{"funding_txid_bytes":"AAAA"}`, multi), lnd.ErrNotLND},
		"bent txid":   {backup(`{"funding_txid_str":"../../etc/passwd"}`, multi), lnd.ErrNotLND},
		"bent index":  {backup(`{"funding_txid_bytes":"AAAA","output_index":-1}`, multi), lnd.ErrNotLND},
		"null":        {"null", lnd.ErrNotLND},
		"a list":      {"[]", lnd.ErrNotLND},
		"two":         {backup(point, multi) + "{}", lnd.ErrNotLND},
		"deep":        {strings.Repeat("[", 1<<19), lnd.ErrNotLND},
		"long":        {strings.Repeat(" ", 1<<20) + backup(point, multi), lnd.ErrTooLong},
		"no object":   {"", lnd.ErrNotLND},
		"not base64":  {backup(point, "?"), lnd.ErrNotLND},
		"other field": {`{"multi_chan_backup":"x"}`, lnd.ErrNotLND},
	} {
		node := answering(t, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(c.answer)) })
		if b, err := node.Export(ctx); !errors.Is(err, c.want) || (err == nil) != (len(b.Multi) > 0) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		line := fmt.Sprintf(`{"result":%s}`, c.answer)
		if c.answer == "" {
			line = ""
		}
		stream := answering(t, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(line + "\n")) })
		heard := 0
		err := stream.Subscribe(ctx, nil, func(lnd.Backup) error { heard++; return nil })
		want := c.want
		if want == nil {
			want = lnd.ErrUnreachable // It ended.
		}
		if !errors.Is(err, want) || (heard > 0) != (c.want == nil) {
			t.Errorf("listening, %s: got %d and %v, want %v", name, heard, err, want)
		}
	}
	for name, c := range map[string]struct {
		line string
		want error
	}{
		"permission":  {`{"error":{"code":2,"message":"permission denied"}}`, lnd.ErrPermission},
		"locked":      {`{"error":{"code":2,"message":"wallet locked, unlock it to enable full RPC access"}}`, lnd.ErrLocked},
		"unavailable": {`{"error":{"code":14,"message":"hunter2"}}`, lnd.ErrUnreachable},
		"neither":     {`{}`, lnd.ErrNotLND},
		"half":        {`{"result":{"multi`, lnd.ErrNotLND},
		"endless":     {strings.Repeat("{", 2<<20), lnd.ErrTooLong},
	} {
		node := answering(t, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(c.line)) })
		if err := node.Subscribe(ctx, nil, nil); !errors.Is(err, c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}

	// The macaroon goes nowhere else.
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was sent elsewhere") }))
	defer other.Close()
	node := answering(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	if _, err := node.Info(ctx); !errors.Is(err, lnd.ErrNotLND) {
		t.Errorf("sent elsewhere: got %v, want %v", err, lnd.ErrNotLND)
	}
	for _, path := range []string{"", "/", "v1/getinfo", "https://other.test/v1/getinfo", "//other.test/v1/x", "@other.test/v1"} {
		if err := node.Call(ctx, "GET", path, nil, nil); err == nil {
			t.Errorf("it called %q", path)
		}
	}
	// What lnd says is for who asks for it, and not in the text.
	fake, cfg := serve(t)
	fake.Fail("/v1/getinfo", fakelnd.Fail)
	_, err := connect(t, cfg).Info(ctx)
	if ae, ok := errors.AsType[*lnd.AnswerError](err); !ok || !strings.Contains(ae.Message, "hunter2") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestCertificates(t *testing.T) {
	now := time.Now()
	make := func(from, to time.Time, names ...string) (tls.Certificate, []byte) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		// As lnd makes them.
		template := x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"lnd autogenerated cert"}}, NotBefore: from, NotAfter: to,
			KeyUsage: x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true, DNSNames: names,
		}
		if names == nil {
			template.DNSNames, template.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	good, goodPEM := make(now.Add(-time.Hour), now.Add(time.Hour))
	renewed, renewedPEM := make(now.Add(-time.Hour), now.Add(time.Hour))
	old, oldPEM := make(now.Add(-48*time.Hour), now.Add(-24*time.Hour))
	young, youngPEM := make(now.Add(24*time.Hour), now.Add(48*time.Hour))
	container, containerPEM := make(now.Add(-time.Hour), now.Add(time.Hour), "lnd", "localhost")
	for name, c := range map[string]struct {
		shown tls.Certificate
		file  []byte
		want  lnd.Reason // empty if it is believed
		text  string
	}{
		"good":          {good, goodPEM, "", ""},
		"renewed":       {renewed, goodPEM, lnd.NotPinned, "another one than in the file tls.cert"},
		"both":          {renewed, append(renewedPEM, goodPEM...), "", ""},
		"old":           {old, oldPEM, lnd.Expired, "it has expired on " + now.Add(-24*time.Hour).UTC().Format(time.DateOnly)},
		"young":         {young, youngPEM, lnd.NotYet, "clock"},
		"container":     {container, containerPEM, "", ""},
		"another name":  {container, append(containerPEM, goodPEM...), lnd.OtherName, "another name"},
		"not in a file": {good, nil, lnd.Refused, "trusted"},
		"old, not ours": {old, goodPEM, lnd.NotPinned, "another one"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := fakelnd.New("regtest")
			srv := httptest.NewUnstartedServer(fake)
			srv.TLS = &tls.Config{Certificates: []tls.Certificate{c.shown}}
			srv.StartTLS()
			defer srv.Close()
			node := connect(t, lnd.Config{Address: srv.Listener.Addr().String(), Cert: c.file})
			_, err := node.State(t.Context())
			if c.want == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			ce, ok := errors.AsType[*lnd.CertificateError](err)
			if !ok || !errors.Is(err, lnd.ErrCertificate) || ce.Why != c.want || !strings.Contains(err.Error(), c.text) || ce.NotAfter.IsZero() {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	if got := connect(t, lnd.Config{Address: "localhost", Cert: goodPEM}).Expiry(); !got.Equal(now.Add(time.Hour).UTC().Truncate(time.Second)) {
		t.Errorf("it ends at %v", got)
	}
	for _, cert := range []string{"x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", strings.Repeat("x", 1<<20)} {
		if _, err := lnd.New(lnd.Config{Address: "localhost", Cert: []byte(cert)}); !errors.Is(err, lnd.ErrCertificate) {
			t.Errorf("%.20s: got %v, want %v", cert, err, lnd.ErrCertificate)
		}
	}

	// Something else than lnd.
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	if _, err := connect(t, lnd.Config{Address: plain.Listener.Addr().String(), Cert: goodPEM}).State(t.Context()); !errors.Is(err, lnd.ErrNotLND) {
		t.Errorf("got %v, want %v", err, lnd.ErrNotLND)
	}
	if _, err := connect(t, lnd.Config{Address: "127.0.0.1:1", Cert: goodPEM}).State(t.Context()); err == nil || err.Error() != "lnd does not answer: nobody listens there" {
		t.Errorf("got %v", err)
	}
	for _, address := range []string{"", "http://localhost:8080", "a b", "localhost:0", "localhost:70000", "localhost:x", "me@localhost", "localhost:8080/v1", ":"} {
		if _, err := lnd.New(lnd.Config{Address: address}); !errors.Is(err, lnd.ErrAddress) {
			t.Errorf("%q: got %v, want %v", address, err, lnd.ErrAddress)
		}
	}
	for _, address := range []string{"localhost", "localhost:8080", "https://localhost:8080/", "[::1]:8080", "::1", "umbrel.local", "0.0.0.0:8080", ":8080"} {
		if _, err := lnd.New(lnd.Config{Address: address}); err != nil {
			t.Errorf("%q: got %v", address, err)
		}
	}
}

// Whatever is kept, the next backup is planned from it: no item is named twice, and what
// knows a channel that the new one lacks stays.
func FuzzKept(f *testing.F) {
	f.Add([]byte(`{"format":1,"backups":[{"item":"lightning/scb","sha256":"00","channels":null}],"file":"00"}`), []byte(`{"format":1,"node":"02"}`), make([]byte, 45), make([]byte, 50))
	f.Add([]byte(`{"format":1,"backups":[{},{},{"channels":["x"]}]}`), []byte(`null`), []byte{}, []byte{1})
	f.Fuzz(func(t *testing.T, channels, node, newest, older []byte) {
		kept := map[string][]byte{lnd.ItemChannels: channels, lnd.ItemNode: node, lnd.ItemBackup: newest, lnd.ItemOlder + "00000000": older}
		now := make([]byte, 60)
		names := lnd.Replan(kept, now, []string{strings.Repeat("0", 64) + ":0"})
		seen := map[string]bool{}
		for _, n := range names {
			if n = strings.TrimPrefix(n, "-"); seen[n] {
				t.Errorf("%s is there twice", n)
			}
			seen[n] = true
		}
		if len(older) >= 45 && !bytes.Equal(older, newest) && !bytes.Equal(older, now) && seen["lightning/scb/00000000"] {
			t.Errorf("it goes, or is written over: %q", names)
		}
	})
}
