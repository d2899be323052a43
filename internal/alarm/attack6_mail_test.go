package alarm_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel/internal/alarm"
	"github.com/satchel-backup/satchel/secret"
)

// A mail server that refuses a password and repeats what it got, as some do for who looks
// for the mistake: the password is in no error, in no form. Errors are in the log.
func TestAttack6MailEcho(t *testing.T) {
	const password = "correct horse"
	cert, key, roots := certificate(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"PLAIN", "LOGIN"} {
		t.Run(kind, func(t *testing.T) {
			m := &alarm.Mail{Server: "localhost:465", From: "sam@example.org", To: "ann@example.org", User: "sam", Password: secret.FromString(password), Roots: roots}
			m.DialBy(func(context.Context, string, string) (net.Conn, error) {
				here, there := net.Pipe()
				go func() {
					server := tls.Server(there, &tls.Config{Certificates: []tls.Certificate{pair}})
					defer server.Close()
					fmt.Fprint(server, "220 x\r\n")
					last := ""
					for lines := bufio.NewScanner(server); lines.Scan(); {
						verb, rest, _ := strings.Cut(lines.Text(), " ")
						switch {
						case verb == "EHLO":
							fmt.Fprint(server, "250-x\r\n250 AUTH "+kind+"\r\n")
						case verb == "AUTH" && kind == "LOGIN":
							last = "user"
							fmt.Fprint(server, "334 VXNlcm5hbWU6\r\n")
						case verb == "AUTH":
							fmt.Fprint(server, "535 5.7.8 I got "+rest+"\r\n")
						case last == "user":
							last = "password"
							fmt.Fprint(server, "334 UGFzc3dvcmQ6\r\n")
						case last == "password":
							last = ""
							fmt.Fprint(server, "535 5.7.8 I got "+lines.Text()+"\r\n")
						default:
							fmt.Fprint(server, "250 ok\r\n")
						}
					}
				}()
				return tls.Client(here, &tls.Config{ServerName: "localhost", RootCAs: roots}), nil
			})
			err := m.Send(t.Context(), message)
			if !errors.Is(err, alarm.ErrRefused) || !strings.Contains(err.Error(), "repeats the password") {
				t.Errorf("got %v", err)
			}
			for _, form := range []string{password, base64.StdEncoding.EncodeToString([]byte(password)), base64.StdEncoding.EncodeToString([]byte("\x00sam\x00" + password))} {
				if strings.Contains(err.Error(), form) {
					t.Errorf("the password is in the error: %v", err)
				}
			}
		})
	}
}
