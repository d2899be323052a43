package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/front"
)

// How often the key file is looked at, and all records are gone through.
const (
	reloadEvery = 10 * time.Second
	tendFirst   = 10 * time.Minute
	tendEvery   = 24 * time.Hour
)

type serving struct {
	listen, admin      string
	cert, key          string
	tlsElsewhere       bool
	requireToken       bool
	afterRestore       bool
	printConfig        bool
	jsonLog            bool
	proxies            []string
	connections, rate  int
	perAddress, atOnce int
	drain              time.Duration
}

func (a *app) serveCommand() *cobra.Command {
	var s serving
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the key server",
		Long: `Runs the key server until it gets SIGTERM; then it takes no more connections, lets
requests end, and ends with code 0.

Without flags it listens on this machine only, and keeps its data in SQLite in one
folder. The first start makes a master key there, and says so: copy that file to a
safe place. Certificates, master keys and tokens are read again when their files
change; the file of settings at a start only.

--print-config writes a file of settings for --config, with all there are: what each
is for, and the value that holds without it.

Several servers may use one PostgreSQL database. They need the same master keys.

/healthz and /metrics (for Prometheus) are on the --admin address, which is for you
only. /healthz says 200 while the database can be read and written. The log names no
accounts, and no addresses.`,
		Example: `  satchel-keyserver serve
  satchel-keyserver serve --listen :443 --tls-cert cert.pem --tls-key key.pem
  satchel-keyserver serve --print-config >/etc/satchel-keyserver.conf
  satchel-keyserver serve --config /etc/satchel-keyserver.conf
  satchel-keyserver serve --listen 10.0.0.5:8443 --tls-elsewhere --proxy 10.0.0.1/32
  satchel-keyserver serve --database "postgres://satchel@db/satchel" --master-command "cat /run/kms/keys"`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return a.serve(c.Context(), &s) },
	}
	a.flags(c)
	f := c.Flags()
	f.StringVar(&s.listen, "listen", "127.0.0.1:7407", "address for clients")
	f.StringVar(&s.admin, "admin", "127.0.0.1:7408", `address of /healthz and /metrics, "off" for none`)
	f.StringVar(&s.cert, "tls-cert", "", "file with the certificate and its chain, PEM")
	f.StringVar(&s.key, "tls-key", "", "file with the certificate's key, PEM")
	f.BoolVar(&s.tlsElsewhere, "tls-elsewhere", false, "no TLS here: a proxy in front has it")
	f.StringSliceVar(&s.proxies, "proxy", nil, "network of proxies whose X-Forwarded-For is believed")
	f.BoolVar(&s.requireToken, "require-token", false, "only who has a token may make accounts; see satchel-keyserver token")
	f.BoolVar(&s.afterRestore, "after-restore", false, "the database was put back from a copy; for one start of one server, all others stopped")
	f.IntVar(&s.connections, "connections", 10_000, "connections at once")
	f.IntVar(&s.perAddress, "connections-per-address", 100, "connections of one address at once")
	f.IntVar(&s.atOnce, "requests-at-once", 1000, "requests that are worked on at once")
	f.IntVar(&s.rate, "rate", 10, "requests a second of one address; ten times as many at once after a pause")
	f.DurationVar(&s.drain, "drain", 20*time.Second, "what requests have left to end after SIGTERM")
	f.BoolVar(&s.jsonLog, "log-json", false, "log in JSON")
	f.BoolVar(&s.printConfig, "print-config", false, "print a file for --config with all settings and their defaults, and run nothing")
	return c
}

func (s *serving) check() error {
	if (s.cert == "") != (s.key == "") {
		return usage{errors.New("--tls-cert and --tls-key belong together")}
	}
	if min(s.connections, s.perAddress, s.atOnce, s.rate) < 1 || s.drain <= 0 {
		return usage{errors.New("a limit is at least 1")}
	}
	addr, err := net.ResolveTCPAddr("tcp", s.listen)
	if err != nil {
		return usage{fmt.Errorf("--listen: %w", err)}
	}
	if s.cert == "" && !s.tlsElsewhere && !addr.IP.IsLoopback() {
		return hinted{usage{fmt.Errorf("--listen %s is open to others, and there is no TLS", s.listen)},
			"give --tls-cert and --tls-key, or --tls-elsewhere if a proxy in front has the certificate"}
	}
	return nil
}

func (a *app) serve(ctx context.Context, s *serving) error {
	if s.printConfig {
		_, err := io.WriteString(a.out, example)
		return err
	}
	if err := s.check(); err != nil {
		return err
	}
	var log *slog.Logger
	if s.jsonLog {
		log = slog.New(slog.NewJSONHandler(a.err, nil))
	} else {
		log = slog.New(slog.NewTextHandler(a.err, nil))
	}
	cfg := front.Config{Connections: s.connections, PerAddress: s.perAddress, Requests: s.atOnce, Rate: s.rate, Drain: s.drain, Logger: log}
	for _, p := range s.proxies {
		n, err := netip.ParsePrefix(p)
		if err != nil {
			return usage{fmt.Errorf("--proxy: %w", err)}
		}
		cfg.Proxies = append(cfg.Proxies, n.Masked())
	}
	if s.cert != "" {
		c, err := openCertificate(s.cert, s.key, log)
		if err != nil {
			return err
		}
		cfg.TLS = &tls.Config{GetCertificate: c.get, MinVersion: tls.VersionTLS13}
	}
	// Whoever cannot listen shall not have touched the database.
	public, err := net.Listen("tcp", s.listen)
	if err != nil {
		return err
	}
	defer public.Close()
	var admin net.Listener
	if s.admin != "off" {
		if admin, err = net.Listen("tcp", s.admin); err != nil {
			return err
		}
		defer admin.Close()
	}
	records, keys, err := a.open(ctx, log)
	if err != nil {
		return err
	}
	defer func() {
		if err := records.Close(); err != nil {
			log.Error("closing the database", "err", err)
		}
	}()
	counts := &front.Counts{Info: func() map[string]string {
		return map[string]string{"version": version, "database": a.settings.kind(), "master_key": keys.master.ID()}
	}}
	kc := keyserver.Config{Records: records, Master: keys.master, Missing: keys.reload, Answered: counts.Answered, AfterRestore: s.afterRestore, Logger: log, Now: a.now}
	if s.requireToken {
		t, err := a.tokens()
		if err != nil {
			return err
		}
		if _, err := t.read(); err != nil {
			return err
		}
		kc.Allowed = t.allowed
	}
	server, err := keyserver.New(ctx, kc)
	if errors.Is(err, keyserver.ErrMaster) {
		return hinted{err, "these are not the master keys of this database: " + keys.file}
	}
	if err != nil {
		return err
	}
	if s.afterRestore {
		log.Warn("AFTER A RESTORE: every account has at most two guesses until its next success. Start without --after-restore from now on.")
	}
	cfg.Answer, cfg.Check, cfg.Counts = server, server.Check, counts
	loops, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { reload(loops, keys) })
	running.Go(func() { tend(loops, server, counts, log) })
	defer running.Wait()
	defer stop()
	where := "off"
	if admin != nil {
		where = admin.Addr().String()
	}
	log.Info("serving", "version", version, "listen", public.Addr().String(), "tls", cfg.TLS != nil, "admin", where,
		"data", a.settings.data, "database", a.settings.kind(), "key", keys.master.ID(), "tokens", s.requireToken)
	notify(a.getenv, "READY=1")
	context.AfterFunc(ctx, func() { notify(a.getenv, "STOPPING=1") })
	err = front.New(cfg).Serve(ctx, public, admin)
	if err == nil {
		log.Info("ended")
	}
	return err
}

// reload takes the master keys again when their file changes.
func reload(ctx context.Context, keys *masterKeys) {
	t := time.NewTicker(reloadEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if keys.changed() {
				keys.reload()
			}
		case <-ctx.Done():
			return
		}
	}
}

// tend goes through all records once a day.
func tend(ctx context.Context, s *keyserver.Server, counts *front.Counts, log *slog.Logger) {
	t := time.NewTimer(tendFirst)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			t.Reset(tendEvery)
		case <-ctx.Done():
			return
		}
		start := time.Now()
		d, err := s.Tend(ctx)
		if err != nil {
			if ctx.Err() == nil {
				log.Error("not all records were gone through", "err", err)
			}
			continue
		}
		counts.Tended(d.Records, d.Expired, d.Unreadable, time.Now())
		log.Info("went through all records", "records", d.Records, "expired", d.Expired, "resealed", d.Resealed, "unreadable", d.Unreadable, "elapsed", time.Since(start).Round(time.Millisecond))
	}
}

// notify tells systemd, if it asks to be told.
func notify(getenv func(string) string, state string) {
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if path[0] == '@' {
		path = "\x00" + path[1:]
	}
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return
	}
	defer c.Close()
	c.Write([]byte(state))
}
