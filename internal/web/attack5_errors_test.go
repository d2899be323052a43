package web_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
)

// Errors hold nothing of what came that is no HTTP: it may repeat what was sent.
func TestAttack5ErrorsOfNoHTTP(t *testing.T) {
	for _, answer := range []string{"HTTP/1.1 200 OK\r\nAuthorization hunter2\r\n\r\n", "hunter2\r\n\r\n", "HTTP/1.1 hunter2 OK\r\n\r\n"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Read(make([]byte, 4096))
				c.Write([]byte(answer))
				c.Close()
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err = web.New(web.Config{}).Do(ctx, web.Request{Method: "GET", URL: "http://" + l.Addr().String(), Header: http.Header{"Authorization": {"hunter2"}}})
		cancel()
		l.Close()
		if !errors.Is(err, store.ErrUnreachable) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: got %v", answer, err)
		}
	}
}
