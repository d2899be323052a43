package alarm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	netmail "net/mail"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"github.com/satchel-backup/satchel/secret"
)

// Mail sends messages by a mail server, always over TLS, but on this machine: from the
// beginning on port 465, by STARTTLS on others.
type Mail struct {
	Server   string // HOST:PORT
	From, To string // addresses
	User     string // "" where the server wants none
	Password secret.Bytes
	Roots    *x509.CertPool // whose certificates are good; nil means the system's

	dial mail.DialContextFunc // nil but in tests
}

var _ Receiver = (*Mail)(nil)

const (
	portTLS  = 465
	mailTime = 20 * time.Second // that a server may take for a step
)

// Check returns an error that is ErrAddress unless mail can be sent like this.
func (m *Mail) Check() error {
	if _, _, err := m.server(); err != nil {
		return err
	}
	for what, address := range map[string]string{"the sender": m.From, "the recipient": m.To} {
		a, err := netmail.ParseAddress(address)
		if err != nil || a.Name != "" || a.Address != address {
			return fmt.Errorf("%w: %s is no mail address", ErrAddress, what)
		}
	}
	if m.User == "" && !m.Password.Empty() {
		return fmt.Errorf("%w: a password needs a user", ErrAddress)
	}
	return nil
}

func (m *Mail) server() (host string, port int, err error) {
	host, text, err := net.SplitHostPort(m.Server)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil || host == "" || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("%w: the server is HOST:PORT, such as mail.example.org:587", ErrAddress)
	}
	return host, port, nil
}

// Send implements [Receiver].
func (m *Mail) Send(ctx context.Context, message Message) error {
	if err := m.Check(); err != nil {
		return err
	}
	host, port, err := m.server()
	if err != nil {
		return err
	}
	opts := []mail.Option{
		mail.WithPort(port),
		mail.WithTimeout(mailTime),
		mail.WithTLSConfig(&tls.Config{ServerName: host, RootCAs: m.Roots, MinVersion: tls.VersionTLS12}),
		// The name of this machine is nobody's business.
		mail.WithHELO("[127.0.0.1]"),
	}
	switch {
	case port == portTLS:
		opts = append(opts, mail.WithSSL())
	case Loopback(host):
		opts = append(opts, mail.WithTLSPolicy(mail.TLSOpportunistic))
	default:
		opts = append(opts, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if m.User != "" {
		opts = append(opts, mail.WithUsername(m.User), mail.WithPassword(string(m.Password.Open())),
			mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256PLUS, mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthPlain, mail.SMTPAuthLogin))
	}
	if m.dial != nil {
		opts = append(opts, mail.WithDialContextFunc(m.dial))
	}
	client, err := mail.NewClient(host, opts...)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAddress, err)
	}
	letter, err := m.letter(message)
	if err != nil {
		return err
	}
	if err := client.DialAndSendWithContext(ctx, letter); err != nil {
		return m.hide(err)
	}
	return nil
}

// hide takes what a server may have repeated of a password out of its error, as it was typed
// or as AUTH LOGIN and AUTH PLAIN send it.
func (m *Mail) hide(err error) error {
	if m.Password.Empty() {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	password, text := m.Password.Open(), err.Error()
	for _, form := range []string{
		string(password),
		base64.StdEncoding.EncodeToString(password),
		base64.StdEncoding.EncodeToString(slices.Concat([]byte("\x00"+m.User+"\x00"), password)),
	} {
		if strings.Contains(text, form) {
			return fmt.Errorf("%w: the server's answer repeats the password", ErrRefused)
		}
	}
	return fmt.Errorf("%w: %w", ErrRefused, err)
}

// letter is a message as mail.
func (m *Mail) letter(message Message) (*mail.Msg, error) {
	letter := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := letter.FromFormat("Satchel", m.From); err != nil {
		return nil, fmt.Errorf("%w: the sender", ErrAddress)
	}
	if err := letter.To(m.To); err != nil {
		return nil, fmt.Errorf("%w: the recipient", ErrAddress)
	}
	letter.Subject(cut(message.Subject()))
	letter.SetDateWithValue(message.Time)
	_, domain, _ := strings.Cut(m.From, "@")
	letter.SetMessageIDWithValue(message.ID + "@" + domain)
	letter.SetGenHeader("Auto-Submitted", "auto-generated") // No answering machine answers.
	letter.SetBodyString(mail.TypeTextPlain, message.Text())
	return letter, nil
}
