package alarm_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/alarm"
	"github.com/satchel-backup/satchel/secret"
)

func TestCheckMail(t *testing.T) {
	good := alarm.Mail{Server: "mail.example.org:587", From: "sam@example.org", To: "ann@example.org"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*alarm.Mail){
		"no port":        func(m *alarm.Mail) { m.Server = "mail.example.org" },
		"bad port":       func(m *alarm.Mail) { m.Server = "mail.example.org:smtp" },
		"great port":     func(m *alarm.Mail) { m.Server = "mail.example.org:70000" },
		"no host":        func(m *alarm.Mail) { m.Server = ":25" },
		"no from":        func(m *alarm.Mail) { m.From = "" },
		"a name":         func(m *alarm.Mail) { m.To = "Ann <ann@example.org>" },
		"two":            func(m *alarm.Mail) { m.To = "ann@example.org, eve@example.org" },
		"a header":       func(m *alarm.Mail) { m.To = "ann@example.org\r\nBcc: eve@example.org" },
		"a header first": func(m *alarm.Mail) { m.From = "sam@example.org\nSubject: x" },
		"no user":        func(m *alarm.Mail) { m.Password = secret.FromString("x") },
	} {
		m := good
		change(&m)
		if err := m.Check(); !errors.Is(err, alarm.ErrAddress) {
			t.Errorf("%s: got %v", name, err)
		}
		if err := m.Send(t.Context(), message); !errors.Is(err, alarm.ErrAddress) {
			t.Errorf("%s: sent: got %v", name, err)
		}
	}
}

// A server that offers no TLS gets neither a password nor a message, unless it is on this
// machine. Nor does one that hangs keep anybody.
func TestMailPlain(t *testing.T) {
	for _, test := range []struct {
		host, offer string
		want        string // what the server heard at most
	}{
		{"mail.example.org:587", "250-x\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE 1000\r\n", "EHLO"},
		{"mail.example.org:25", "250 x\r\n", "EHLO"},
		{"mail.example.org:587", "250-x\r\n250 STARTTLS\r\n", "EHLO STARTTLS"},
	} {
		heard := make(chan string, 100)
		m := &alarm.Mail{Server: test.host, From: "sam@example.org", To: "ann@example.org", User: "sam", Password: secret.FromString("correct horse")}
		m.DialBy(func(ctx context.Context, _, _ string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				defer there.Close()
				fmt.Fprint(there, "220 x\r\n")
				for lines := bufio.NewScanner(there); lines.Scan(); {
					verb, _, _ := strings.Cut(lines.Text(), " ")
					heard <- lines.Text()
					switch verb {
					case "EHLO":
						fmt.Fprint(there, test.offer)
					case "STARTTLS":
						fmt.Fprint(there, "220 go\r\n")
						return // and no TLS follows
					default:
						fmt.Fprint(there, "250 ok\r\n")
					}
				}
			}()
			return here, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		err := m.Send(ctx, message)
		cancel()
		if !errors.Is(err, alarm.ErrRefused) || strings.Contains(err.Error(), "correct horse") {
			t.Errorf("%s: got %v", test.host, err)
		}
		close(heard)
		for line := range heard {
			verb, _, _ := strings.Cut(line, " ")
			if !strings.Contains(test.want, verb) || strings.Contains(line, "horse") {
				t.Errorf("%s %q: the server heard %q", test.host, test.offer, line)
			}
		}
	}
}

// received is what a mail server of testdata/smtp.py got.
type received struct {
	From string   `json:"from"`
	To   []string `json:"to"`
	Data string   `json:"data"`
	Helo string   `json:"helo"`
	TLS  bool     `json:"tls"`
	User bool     `json:"user"`
}

// mailServer starts a real mail server, on a free port or on that of TLS, and returns the
// port and what it gets.
func mailServer(t *testing.T, mode string, args ...string) (port string, got <-chan received) {
	t.Helper()
	if port = "465"; mode != "tls" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ = net.SplitHostPort(l.Addr().String())
		l.Close()
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", append([]string{filepath.Join("testdata", "smtp.py"), port, mode}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the mail server did not start")
	}
	all := make(chan received, 100)
	go func() {
		for lines.Scan() {
			var r received
			if err := json.Unmarshal(lines.Bytes(), &r); err == nil {
				all <- r
			}
		}
	}()
	return port, all
}

// certificate makes one for localhost, as files and as a pool.
func certificate(t *testing.T) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	must(err)
	c, err := x509.ParseCertificate(der)
	must(err)
	roots = x509.NewCertPool()
	roots.AddCert(c)
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	must(err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600))
	return cert, key, roots
}

// A real mail server takes the messages: without TLS on this machine, by STARTTLS, and by
// TLS from the beginning; and it refuses what it should.
func TestMailServer(t *testing.T) {
	if os.Getenv("SATCHEL_TEST_MAIL") == "" {
		t.Skip("SATCHEL_TEST_MAIL is not set: it needs Debian's python3-aiosmtpd")
	}
	cert, key, roots := certificate(t)
	letter := func(t *testing.T, m *alarm.Mail, got <-chan received) received {
		t.Helper()
		if err := m.Send(t.Context(), message); err != nil {
			t.Fatal(err)
		}
		select {
		case r := <-got:
			read, err := netmail.ReadMessage(strings.NewReader(r.Data))
			if err != nil {
				t.Fatal(err)
			}
			subject, err := new(mime.WordDecoder).DecodeHeader(read.Header.Get("Subject"))
			if err != nil || subject != "Satchel: Sam: sign-in needed" {
				t.Errorf("subject %q, %v", subject, err)
			}
			if from := read.Header.Get("From"); from != `"Satchel" <sam@example.org>` || read.Header.Get("To") != "<ann@example.org>" {
				t.Errorf("from %s to %s", from, read.Header.Get("To"))
			}
			if got := read.Header.Get("Message-ID"); got != "<"+message.ID+"@example.org>" || read.Header.Get("Auto-Submitted") != "auto-generated" {
				t.Errorf("%v", read.Header)
			}
			var body io.Reader = read.Body
			if read.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
				body = quotedprintable.NewReader(body)
			}
			text, err := io.ReadAll(body)
			if err != nil || strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n")) != strings.TrimSpace(message.Text()) {
				t.Errorf("text %q, %v, want %q", text, err, message.Text())
			}
			if host, err := os.Hostname(); err == nil && strings.Contains(r.Data, host) || r.Helo != "[127.0.0.1]" {
				t.Errorf("the name of this machine is in it: %q %s", r.Helo, r.Data)
			}
			return r
		case <-time.After(time.Minute):
			t.Fatal("no message")
			return received{}
		}
	}
	t.Run("Plain", func(t *testing.T) {
		port, got := mailServer(t, "plain")
		r := letter(t, &alarm.Mail{Server: "127.0.0.1:" + port, From: "sam@example.org", To: "ann@example.org"}, got)
		if r.From != "sam@example.org" || len(r.To) != 1 || r.To[0] != "ann@example.org" || r.TLS {
			t.Errorf("got %+v", r)
		}
		err := (&alarm.Mail{Server: "127.0.0.1:" + port, From: "sam@example.org", To: "nobody@example.org"}).Send(t.Context(), message)
		if !errors.Is(err, alarm.ErrRefused) || !strings.Contains(err.Error(), "550") {
			t.Errorf("got %v", err)
		}
		// Who has a password for a server that asks for none is told.
		err = (&alarm.Mail{Server: "127.0.0.1:" + port, From: "sam@example.org", To: "ann@example.org", User: "sam", Password: secret.FromString("correct horse")}).Send(t.Context(), message)
		if !errors.Is(err, alarm.ErrRefused) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("STARTTLS", func(t *testing.T) {
		port, got := mailServer(t, "starttls", cert, key)
		m := alarm.Mail{Server: "localhost:" + port, From: "sam@example.org", To: "ann@example.org", User: "sam", Password: secret.FromString("correct horse"), Roots: roots}
		if r := letter(t, &m, got); !r.TLS || !r.User {
			t.Errorf("got %+v", r)
		}
		wrong := m
		wrong.Password = secret.FromString("incorrect horse")
		if err := wrong.Send(t.Context(), message); !errors.Is(err, alarm.ErrRefused) || !strings.Contains(err.Error(), "535") || strings.Contains(err.Error(), "horse") {
			t.Errorf("got %v", err)
		}
		none := m
		none.User, none.Password = "", secret.Bytes{}
		if err := none.Send(t.Context(), message); !errors.Is(err, alarm.ErrRefused) {
			t.Errorf("got %v", err)
		}
		stranger := m
		stranger.Roots = nil
		if err := stranger.Send(t.Context(), message); !errors.Is(err, alarm.ErrRefused) || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("TLS", func(t *testing.T) {
		if c, err := net.Dial("tcp", "127.0.0.1:465"); err == nil {
			c.Close()
			t.Skip("something is on port 465 here")
		}
		port, got := mailServer(t, "tls", cert, key)
		m := alarm.Mail{Server: "localhost:" + port, From: "sam@example.org", To: "ann@example.org", User: "sam", Password: secret.FromString("correct horse"), Roots: roots}
		if r := letter(t, &m, got); !r.User {
			t.Errorf("got %+v", r)
		}
	})
}
