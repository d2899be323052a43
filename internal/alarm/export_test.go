package alarm

import (
	"context"
	"net"
)

// DialBy makes mail go through a connection of the test.
func (m *Mail) DialBy(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	m.dial = dial
}
