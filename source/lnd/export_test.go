package lnd

import (
	"context"
	"net"
	"time"
)

// What tests that bring their own network need.
const (
	Reexport    = reexport
	Refresh     = refresh
	BackoffMost = backoffMost
)

// ReadConf reads a lnd.conf: the address, and the network if it names one.
func ReadConf(data []byte) (address, network string, err error) {
	c, err := parseConf(data)
	if err != nil {
		return "", "", err
	}
	network, err = theNetwork(c, "")
	if err != nil {
		network = ""
	}
	return c.address(), network, nil
}

// Over returns cfg with another network.
func Over(cfg Config, dial func(ctx context.Context, network, address string) (net.Conn, error)) Config {
	cfg.dial = dial
	return cfg
}

// Limited returns cfg with a smaller limit for answers.
func Limited(cfg Config, limit int) Config {
	cfg.limit = limit
	return cfg
}

// Replan reads what is kept and makes another backup the newest one, and returns the
// names of the changes, "-" before those that go.
func Replan(kept map[string][]byte, multi []byte, channels []string) []string {
	m := remember(kept)
	h := hold(multi, channels, true, time.Unix(0, 0))
	var names []string
	for _, c := range m.plan("node", h, keep(h, m.others(), nil)).changes {
		if c.Remove {
			c.Name = "-" + c.Name
		}
		names = append(names, c.Name)
	}
	return names
}
