package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/folder"
	"github.com/satchel-backup/satchel/store/s3"
	"github.com/satchel-backup/satchel/store/webdav"
)

// beforeClouds is the last commit whose command knew folders only.
const beforeClouds = "f90d1d5"

// cloud is a server, or a folder to compare servers with.
type cloud struct {
	name           string
	url            *url.URL // nil is a folder
	s3             bool
	user, password string
}

// namedClouds returns the servers that an environment names, as .ci/clouds does, and the
// variables of those that it does not.
func namedClouds(getenv func(string) string) (list []cloud, absent []string, err error) {
	for _, v := range []struct{ variable, name string }{
		{"SATCHEL_TEST_S3", "S3: versitygw"},
		{"SATCHEL_TEST_WEBDAV_APACHE", "WebDAV: Apache"},
		{"SATCHEL_TEST_WEBDAV_NGINX", "WebDAV: nginx"},
		{"SATCHEL_TEST_WEBDAV_SABRE", "WebDAV: sabre/dav"},
		{"SATCHEL_TEST_WEBDAV_RCLONE", "WebDAV: rclone"},
	} {
		address := getenv(v.variable)
		if address == "" {
			absent = append(absent, v.variable)
			continue
		}
		u, err := url.Parse(address)
		if err != nil || u.Host == "" {
			return nil, nil, fmt.Errorf("%s is no address", v.variable)
		}
		c := cloud{name: v.name, url: u, s3: strings.HasPrefix(u.Scheme, "s3")}
		if c.s3 {
			c.user, c.password = getenv("SATCHEL_TEST_S3_ACCESS_KEY"), getenv("SATCHEL_TEST_S3_SECRET_KEY")
		} else {
			c.user, c.password = u.User.Username(), getenv("SATCHEL_TEST_WEBDAV_PASSWORD")
		}
		list = append(list, c)
	}
	return list, absent, nil
}

// at returns the same server as it is reached at another host.
func (c cloud) at(host string) cloud {
	u := *c.url
	u.Host = host
	c.url = &u
	return c
}

// address returns a folder on the server as the command takes it.
func (c cloud) address(dir string) string {
	u := c.url.JoinPath(dir)
	u.User = nil
	if c.user != "" {
		u.User = url.User(c.user)
	}
	return u.String()
}

// open opens a folder on the server over a transport.
func (c cloud) open(ctx context.Context, dir string, t http.RoundTripper) (store.Store, error) {
	u := c.url.JoinPath(dir)
	u.User = nil
	if c.s3 {
		cfg, err := s3.Parse(u.String())
		if err != nil {
			return nil, err
		}
		cfg.AccessKey, cfg.SecretKey, cfg.Transport = c.user, secret.New([]byte(c.password)), t
		return s3.New(cfg)
	}
	cfg, err := webdav.Parse(c.address(dir))
	if err != nil {
		return nil, err
	}
	cfg.Password, cfg.Transport = secret.New([]byte(c.password)), t
	s, err := webdav.New(cfg)
	if err != nil {
		return nil, err
	}
	return s, s.Create(ctx)
}

// place is a folder on the server as a backup is made in it, and as the command says of it.
func (c cloud) place(s store.Store) store.Place {
	return store.Place{Address: c.name, Store: s, Walks: !c.s3}
}

// ---- what goes over the network

// meter counts requests, and bytes on the connections, headers included.
type meter struct {
	up, down atomic.Int64

	mu      sync.Mutex
	methods map[string]int // guarded by mu
}

// traffic is what a meter counted.
type traffic struct {
	methods  map[string]int
	up, down int64
}

// take returns what was counted since the last time.
func (m *meter) take() traffic {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := traffic{m.methods, m.up.Swap(0), m.down.Swap(0)}
	m.methods = nil
	return t
}

func (m *meter) request(method string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.methods == nil {
		m.methods = map[string]int{}
	}
	m.methods[method]++
}

func (t traffic) requests() (n int) {
	for _, count := range t.methods {
		n += count
	}
	return n
}

// shares says how often each method was used in each of n changes, such as "GET 2, PUT 1".
func (t traffic) shares(n int) string {
	var list []string
	for _, method := range slices.Sorted(maps.Keys(t.methods)) {
		if each := per(int64(t.methods[method]), n); each != "0.0" { // What comes once in all these changes.
			list = append(list, method+" "+each)
		}
	}
	return strings.Join(list, ", ")
}

// per prints what one of n took, with a digit after the point where it is no whole number.
func per(all int64, n int) string {
	if n == 0 {
		return ""
	}
	if all%int64(n) == 0 || all/int64(n) >= 100 {
		return number(all / int64(n))
	}
	return fmt.Sprintf("%.1f", float64(all)/float64(n))
}

// transport returns what stores use, counted.
func (m *meter) transport() http.RoundTripper {
	t := web.NewTransport(nil)
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &meteredConn{c, &m.down, &m.up}, nil
	}
	return &meteredTransport{t, m}
}

type meteredTransport struct {
	inner http.RoundTripper
	m     *meter
}

func (t *meteredTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.m.request(r.Method)
	return t.inner.RoundTrip(r)
}

type meteredConn struct {
	net.Conn
	read, written *atomic.Int64
}

func (c *meteredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

func (c *meteredConn) Write(p []byte) (int, error) {
	c.written.Add(int64(len(p))) // Before: the other side may have read it, and be done, when Write returns.
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n - len(p)))
	return n, err
}

type meteredListener struct {
	net.Listener
	m *meter
}

func (l *meteredListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &meteredConn{c, &l.m.up, &l.m.down}, nil
}

// before is a proxy in front of a server that counts, and lets each request wait as a
// line to a server far away would.
func (c cloud) before(m *meter, delay time.Duration) (front cloud, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return c, nil, err
	}
	to := &url.URL{Scheme: "http", Host: c.url.Host}
	if strings.HasSuffix(c.url.Scheme, "https") || c.url.Scheme == "s3" {
		to.Scheme = "https"
	}
	transport := web.NewTransport(nil)
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // Who is killed, or done, goes away in the middle.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host // The host that was signed, and that MOVE names, stays in the header.
			r.Out.Host = r.In.Host
		},
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.request(r.Method)
		if delay > 0 {
			select {
			case <-time.After(delay):
			case <-r.Context().Done():
			}
		}
		proxy.ServeHTTP(w, r)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(&meteredListener{l, m}) // It ends by stop only.
	}()
	front = c.at(l.Addr().String())
	return front, func() { srv.Close(); <-done; transport.CloseIdleConnections() }, nil
}

// ---- the part

// clouds measures what places on servers cost, beside a folder and beside restic, and
// what it costs that the command knows all of them.
func (b *bench) clouds(ctx context.Context) error {
	b.say("\n## Clouds\n")
	if err := b.linked(ctx); err != nil {
		return err
	}
	list, absent, err := namedClouds(os.Getenv)
	if err != nil {
		return err
	}
	if len(absent) > 0 {
		b.say("\nNot measured, as the environment names no such server: %s.\n", strings.Join(absent, ", "))
	}
	return b.inClouds(ctx, list)
}

func (b *bench) inClouds(ctx context.Context, list []cloud) error {
	if len(list) == 0 {
		return nil
	}
	if err := b.cloudChanges(ctx, list); err != nil {
		return err
	}
	// One server of each protocol is enough for what takes long.
	var two []cloud
	for _, c := range list {
		if !slices.ContainsFunc(two, func(o cloud) bool { return o.s3 == c.s3 }) {
			two = append(two, c)
		}
	}
	if err := b.cloudFiles(ctx, two); err != nil {
		return err
	}
	return b.cloudAlone(ctx, two)
}

// ---- one change

// inCloud is what changes in one place took, by the library and by the command.
type inCloud struct {
	name            string
	library         []time.Duration
	traffic         traffic // of the library's changes
	command         []time.Duration
	commandTraffic  traffic
	commandMeasured int // changes that commandTraffic is of
}

func (b *bench) cloudChanges(ctx context.Context, list []cloud) error {
	var all []inCloud
	for _, c := range append([]cloud{{name: "a folder on the same disk"}}, list...) {
		b.note("changes: %s", c.name)
		r, err := b.changesIn(ctx, c, fmt.Sprintf("cloud-%d", len(all)))
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		all = append(all, r)
	}
	b.say("\n### One change in each\n\nA backup of %d items in one place; one item of %d bytes changes until the change is protected: looked whether another device writes, put, fetched again, compared. *Library*: %d changes in one process, as by an agent. *Command*: `satchel put`, %d whole processes. The servers run on this machine, so a request costs what the server does for it and no journey; *requests* times the way there and back is what a real one adds. Bytes are those on the connections, headers included, in both directions.\n",
		b.size.cloudItems, inline, b.size.cloudChanges, b.size.quick)
	floor := quantile(all[0].library, 50)
	var times, costs [][]string
	for _, r := range all {
		p50 := quantile(r.library, 50)
		times = append(times, []string{r.name, ms(p50), ms(quantile(r.library, 95)), fmt.Sprintf("%.1f", p50.Seconds()/floor.Seconds()), ms(quantile(r.command, 50)), ms(quantile(r.command, 95))})
		if n := len(r.library); r.traffic.methods != nil {
			costs = append(costs, []string{r.name, per(int64(r.traffic.requests()), n), r.traffic.shares(n), per(r.traffic.up, n), per(r.traffic.down, n),
				per(int64(r.commandTraffic.requests()), r.commandMeasured), r.commandTraffic.shares(r.commandMeasured), per(r.commandTraffic.up, r.commandMeasured), per(r.commandTraffic.down, r.commandMeasured)})
		}
	}
	b.table("place|library, p50|p95|times a folder|`satchel put`, p50|p95", times)
	b.table("per change|requests, library|which|bytes up|bytes down|requests, command|which|bytes up|bytes down", costs)
	return nil
}

func (b *bench) changesIn(ctx context.Context, c cloud, dir string) (r inCloud, err error) {
	r.name = c.name
	if r.library, r.traffic, err = b.libraryChanges(ctx, c, dir); err != nil {
		return r, err
	}
	value := b.path(dir, "value")
	put := func(w cmdWallet, n int) (times []time.Duration, err error) {
		for range n {
			random := make([]byte, inline)
			rand.Read(random)
			if err := os.WriteFile(value, random, 0o600); err != nil {
				return nil, err
			}
			u, err := b.exec(ctx, b.on(w, "put", "settings", value, "--json"))
			if err != nil {
				return nil, err
			}
			var said struct{ Protected bool }
			if err := json.Unmarshal(u.out, &said); err != nil || !said.Protected {
				return nil, errors.Join(err, errors.New("a change was put and is not protected"))
			}
			times = append(times, u.wall)
		}
		return times, nil
	}
	place := b.path(dir, "command-place")
	if c.url != nil {
		place = c.address(filepath.Base(b.dir) + "-" + dir + "-command")
	} else if err := os.Mkdir(place, 0o700); err != nil {
		return r, err
	}
	w, _, err := b.createIn(ctx, filepath.Join(dir, "command"), place, c.password)
	if err != nil {
		return r, err
	}
	if r.command, err = put(w, b.size.quick); err != nil || c.url == nil {
		return r, err
	}
	var m meter
	front, stop, err := c.before(&m, 0)
	if err != nil {
		return r, err
	}
	defer stop()
	w, _, err = b.createIn(ctx, filepath.Join(dir, "counted"), front.address(filepath.Base(b.dir)+"-"+dir+"-counted"), c.password)
	if err != nil {
		return r, err
	}
	m.take()
	r.commandMeasured = b.size.cloudRuns
	_, err = put(w, r.commandMeasured)
	r.commandTraffic = m.take()
	return r, err
}

// libraryChanges makes changes in one process.
func (b *bench) libraryChanges(ctx context.Context, c cloud, dir string) (times []time.Duration, t traffic, err error) {
	here := b.path(dir)
	if err := os.Mkdir(here, 0o700); err != nil {
		return nil, t, err
	}
	var m meter
	var place store.Place
	if c.url == nil {
		f, err := folder.New(filepath.Join(here, "place"), folder.Config{Create: true})
		if err != nil {
			return nil, t, err
		}
		place = store.Place{Address: "folder:" + f.Dir(), Store: f}
	} else {
		s, err := c.open(ctx, filepath.Base(b.dir)+"-"+dir, m.transport())
		if err != nil {
			return nil, t, err
		}
		place = c.place(s)
	}
	dev, _, err := backupIn(ctx, changeSpec{Dir: here, Items: b.size.cloudItems, Value: inline}, place)
	if err != nil {
		return nil, t, err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	m.take()
	for i := range b.size.cloudChanges {
		took, err := saveOne(ctx, dev, itemName(i%b.size.cloudItems), inline)
		if err != nil {
			return nil, t, err
		}
		times = append(times, took)
	}
	return times, m.take(), nil
}

// saveOne changes one item, and returns how long it took until that was protected.
func saveOne(ctx context.Context, dev *satchel.Backup, name string, size int) (time.Duration, error) {
	value := make([]byte, size)
	rand.Read(value)
	start := time.Now()
	saved, err := dev.Save(ctx, satchel.Change{Name: name, Value: value})
	took := time.Since(start)
	if err == nil && (!saved.Protected || saved.Changed != 1) {
		err = errors.New("a change was saved and is not protected")
	}
	return took, err
}

// ---- many files

// cloudFigures are what one program took for many files.
type cloudFigures struct {
	save    usage
	restore []usage
	traffic traffic // of one more restore
}

func (b *bench) cloudFiles(ctx context.Context, list []cloud) error {
	src := b.path("cloud-files")
	if err := os.Mkdir(src, 0o700); err != nil {
		return err
	}
	var names []string
	for i := range b.size.files {
		names = append(names, b.fileName(i))
		if err := b.rewrite(src, i); err != nil {
			return err
		}
	}
	const most = 64 << 20
	var rows, mine [][]string
	for i, c := range list {
		dir := fmt.Sprintf("cloud-files-%d", i)
		ours, err := b.ourCloudFiles(ctx, c, dir, src, names)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		var theirs cloudFigures
		with, err := b.resticEnv(ctx, c, dir)
		if err != nil {
			return err
		}
		if with != nil {
			if theirs, err = b.resticCloudFiles(ctx, c, dir, src); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
		ratio := func(a, c float64) string {
			if c == 0 {
				return ""
			}
			return fmt.Sprintf("%.2f", a/c)
		}
		timed := func(what string, a, t []usage) {
			x, y := quantile(wall(a), 50), quantile(wall(t), 50)
			rows = append(rows, []string{c.name, what, ms(x), ms(y), ratio(x.Seconds(), y.Seconds())})
		}
		counted := func(what string, a, t int64, print func(int64) string) {
			rows = append(rows, []string{c.name, what, print(a), print(t), ratio(float64(a), float64(t))})
		}
		timed("save all", []usage{ours.save}, []usage{theirs.save})
		timed("restore all", ours.restore, theirs.restore)
		counted("memory of saving all", ours.save.peak, theirs.save.peak, mb)
		counted("memory of restoring all", highest(ours.restore), highest(theirs.restore), mb)
		counted("requests of restoring all", int64(ours.traffic.requests()), int64(theirs.traffic.requests()), number[int64])
		counted("bytes fetched by restoring all", ours.traffic.down, theirs.traffic.down, number[int64])
		counted("bytes sent by restoring all", ours.traffic.up, theirs.traffic.up, number[int64])
		mine = append(mine, []string{c.name, ours.traffic.shares(1), mb(highest(ours.restore)), met(highest(ours.restore) <= most), ms(medianCPU(ours.restore))})
	}
	b.say("\n### %s items, %s, over S3 and WebDAV\n\nFiles of %s random bytes, saved to a server on this machine and restored from it: `satchel backup FILES` and `satchel restore`, median of %d; beside them restic (%s), which speaks WebDAV through rclone. Requests were counted by a proxy in one more restore. Memory is that of the largest process.\n",
		number(b.size.files), mb(int64(b.size.files*b.size.value)), number(b.size.value), b.size.cloudRuns, b.resticVersion(ctx))
	b.table("server|what|satchel|restic|ratio", rows)
	b.table("server|requests of `satchel restore`|memory|<= "+mb(most)+"|processor time", mine)
	return nil
}

func (b *bench) resticVersion(ctx context.Context) string {
	if b.restic == "" {
		return "not installed here, so the figures beside are empty"
	}
	u, err := b.exec(ctx, program{args: []string{b.restic, "version"}})
	if err != nil {
		return "of unknown version"
	}
	fields := strings.Fields(string(u.out))
	return strings.Join(fields[1:min(2, len(fields))], " ")
}

func (b *bench) ourCloudFiles(ctx context.Context, c cloud, dir, src string, names []string) (f cloudFigures, err error) {
	b.note("%s: satchel saves %d files", c.name, len(names))
	at := filepath.Base(b.dir) + "-" + dir
	w, _, err := b.createIn(ctx, filepath.Join(dir, "made"), c.address(at), c.password)
	if err != nil {
		return f, err
	}
	p := b.on(w, append([]string{"backup"}, names...)...)
	p.dir = src
	if f.save, err = b.exec(ctx, p); err != nil {
		return f, err
	}
	for i := range b.size.cloudRuns {
		b.note("%s: satchel restores them, %d of %d", c.name, i+1, b.size.cloudRuns)
		u, err := b.restoreIn(ctx, w, c, at, filepath.Join(dir, fmt.Sprintf("home-%d", i)), src)
		if err != nil {
			return f, err
		}
		f.restore = append(f.restore, u)
	}
	var m meter
	front, stop, err := c.before(&m, 0)
	if err != nil {
		return f, err
	}
	defer stop()
	_, err = b.restoreIn(ctx, w, front, at, filepath.Join(dir, "counted"), src)
	f.traffic = m.take()
	return f, err
}

// restoreIn restores a wallet to another home, and compares it with the files if there
// are any.
func (b *bench) restoreIn(ctx context.Context, w cmdWallet, c cloud, at, home, src string) (usage, error) {
	there := w
	there.home = b.path(home)
	args := []string{"restore", "--from", c.address(at), "--yes", "--json", "--secret-fd", "3"}
	p := b.on(there, args...)
	p.secrets = [][]byte{w.code}
	if c.password != "" {
		p.args = append(p.args, "--password-fd", "4")
		p.secrets = append(p.secrets, []byte(c.password))
	}
	u, err := b.exec(ctx, p)
	if err == nil && src != "" {
		err = b.sameItems(there, src)
	}
	return u, err
}

// resticEnv returns what restic finds a repository on a server by, nil if it cannot.
func (b *bench) resticEnv(ctx context.Context, c cloud, dir string) ([]string, error) {
	if b.restic == "" {
		return nil, nil
	}
	env := []string{"RESTIC_PASSWORD=correct horse battery staple", "RESTIC_CACHE_DIR=" + b.path("restic-cache")}
	scheme := "http"
	if strings.HasSuffix(c.url.Scheme, "https") || c.url.Scheme == "s3" {
		scheme = "https"
	}
	name := filepath.Base(b.dir) + "-restic-" + dir
	if c.s3 {
		return append(env, "AWS_ACCESS_KEY_ID="+c.user, "AWS_SECRET_ACCESS_KEY="+c.password,
			"RESTIC_REPOSITORY=s3:"+scheme+"://"+c.url.Host+c.url.JoinPath(name).Path), nil
	}
	rclone, err := exec.LookPath("rclone")
	if err != nil {
		return nil, nil
	}
	u, err := b.exec(ctx, program{args: []string{rclone, "obscure", c.password}})
	if err != nil {
		return nil, err
	}
	base := url.URL{Scheme: scheme, Host: c.url.Host, Path: c.url.Path, RawPath: c.url.RawPath}
	return append(env, "RCLONE_CONFIG="+os.DevNull, "RCLONE_CONFIG_DAV_TYPE=webdav", "RCLONE_CONFIG_DAV_VENDOR=other", "RCLONE_CONFIG_DAV_URL="+base.String(),
		"RCLONE_CONFIG_DAV_USER="+c.user, "RCLONE_CONFIG_DAV_PASS="+string(bytes.TrimSpace(u.out)), "RESTIC_REPOSITORY=rclone:dav:"+name), nil
}

func (b *bench) resticCloudFiles(ctx context.Context, c cloud, dir, src string) (f cloudFigures, err error) {
	env, err := b.resticEnv(ctx, c, dir)
	if err != nil {
		return f, err
	}
	on := func(env []string, args ...string) program {
		return program{args: append([]string{b.restic}, args...), env: env, dir: src}
	}
	b.note("%s: restic saves them", c.name)
	if _, err = b.exec(ctx, on(env, "init")); err != nil {
		return f, err
	}
	if f.save, err = b.exec(ctx, on(env, "backup", ".")); err != nil {
		return f, err
	}
	restore := func(env []string, i int) (usage, error) {
		// What it kept here of the repository would be lost with the device.
		if err := os.RemoveAll(b.path("restic-cache")); err != nil {
			return usage{}, err
		}
		to := b.path(dir, fmt.Sprint("restic-", i))
		u, err := b.exec(ctx, on(env, "restore", "latest", "--target", to))
		if err == nil {
			err = b.sameFiles(to, src)
		}
		return u, err
	}
	for i := range b.size.cloudRuns {
		b.note("%s: restic restores them, %d of %d", c.name, i+1, b.size.cloudRuns)
		u, err := restore(env, i)
		if err != nil {
			return f, err
		}
		f.restore = append(f.restore, u)
	}
	var m meter
	front, stop, err := c.before(&m, 0)
	if err != nil {
		return f, err
	}
	defer stop()
	if env, err = b.resticEnv(ctx, front, dir); err != nil {
		return f, err
	}
	_, err = restore(env, b.size.cloudRuns)
	f.traffic = m.take()
	return f, err
}

// ---- items that came one by one

// cloudAlone measures a backup whose items came a few at a time, so that each is an
// object, over a line on which each request takes its time.
func (b *bench) cloudAlone(ctx context.Context, list []cloud) error {
	var rows [][]string
	for i, c := range list {
		b.note("%s: %d items with an object each", c.name, b.size.alone)
		dir := fmt.Sprintf("cloud-alone-%d", i)
		here := b.path(dir)
		if err := os.Mkdir(here, 0o700); err != nil {
			return err
		}
		at := filepath.Base(b.dir) + "-" + dir
		var m meter
		s, err := c.open(ctx, at, m.transport())
		if err != nil {
			return err
		}
		dev, code, err := backupIn(ctx, changeSpec{Dir: here, Items: 1, Value: b.size.value}, c.place(s))
		if err != nil {
			return err
		}
		change, cost, err := b.fillAlone(ctx, dev, &m)
		if err = errors.Join(err, dev.Close()); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		var far meter
		front, stop, err := c.before(&far, b.size.delay)
		if err != nil {
			return err
		}
		var took []usage
		var all traffic
		for i := range b.size.cloudRuns {
			far.take()
			u, err := b.restoreIn(ctx, cmdWallet{code: []byte(code)}, front, at, filepath.Join(dir, fmt.Sprintf("home-%d", i)), "")
			if err != nil {
				stop()
				return fmt.Errorf("%s: %w", c.name, err)
			}
			took, all = append(took, u), far.take()
		}
		stop()
		rows = append(rows, []string{c.name, ms(quantile(wall(took), 50)), number(all.requests()), fmt.Sprintf("%.1f", quantile(wall(took), 50).Seconds()/b.size.delay.Seconds()),
			ms(change), per(int64(cost.requests()), b.size.cloudRuns), cost.shares(b.size.cloudRuns)})
	}
	b.say("\n### Items that came one by one\n\n%s items of %s bytes that were saved a few at a time, so that each is an object of its own. `satchel restore` of them over a line on which each request takes %v longer, median of %d; *waits* is how many such waits, one after another, fit into its time. Then one change of %d bytes in that backup, by the library, without that delay.\n",
		number(b.size.alone), number(b.size.value), b.size.delay, b.size.cloudRuns, inline)
	b.table("server|restore|requests|waits|one change, p50|requests|which", rows)
	return nil
}

// fillAlone saves items such that each is an object, and then changes one a few times.
func (b *bench) fillAlone(ctx context.Context, dev *satchel.Backup, m *meter) (time.Duration, traffic, error) {
	const few = 15 // More would be packed.
	for from := 0; from < b.size.alone; from += few {
		var list []satchel.Change
		for i := from; i < min(from+few, b.size.alone); i++ {
			value := make([]byte, b.size.value)
			rand.Read(value)
			list = append(list, satchel.Change{Name: itemName(i), Value: value})
		}
		if saved, err := dev.Save(ctx, list...); err != nil || !saved.Protected {
			return 0, traffic{}, errors.Join(err, errors.New("items were saved and are not protected"))
		}
	}
	m.take()
	var times []time.Duration
	for range b.size.cloudRuns {
		took, err := saveOne(ctx, dev, "settings", inline)
		if err != nil {
			return 0, traffic{}, err
		}
		times = append(times, took)
	}
	return quantile(times, 50), m.take(), nil
}

// ---- the command

// linked compares the command with the one before it knew clouds.
func (b *bench) linked(ctx context.Context) error {
	b.note("the command before it knew clouds")
	before := b.path("before")
	if err := os.Mkdir(before, 0o700); err != nil {
		return err
	}
	archive := b.path("before.tar")
	if _, err := b.exec(ctx, program{args: []string{"git", "archive", "-o", archive, beforeClouds}}); err != nil {
		b.say("\nThe command is not compared with the one before it knew clouds: commit %s is not to be had here.\n", beforeClouds)
		return nil
	}
	old := filepath.Join(before, "satchel-before")
	const command = "github.com/satchel-backup/satchel/cmd/satchel"
	for _, p := range []program{
		{args: []string{"tar", "-xf", archive, "-C", before}},
		{args: []string{"go", "build", "-trimpath", "-o", old, command}, dir: before},
		{args: []string{"go", "build", "-trimpath", "-ldflags=-s -w", "-o", old + "-stripped", command}, dir: before},
		{args: []string{"go", "build", "-trimpath", "-ldflags=-s -w", "-o", b.satchel + "-stripped-now", command}},
	} {
		if _, err := b.exec(ctx, p); err != nil {
			return err
		}
	}
	w, _, err := b.create(ctx, "linked")
	if err != nil {
		return err
	}
	of := map[string][]usage{}
	for range b.size.quick { // In turns, so that both have the same noise.
		for _, binary := range []string{old, b.satchel} {
			for _, what := range []string{"version", "status"} {
				p := b.on(w, what)
				p.args[0] = binary
				u, err := b.exec(ctx, p)
				if err != nil {
					return err
				}
				of[what+binary] = append(of[what+binary], u)
			}
		}
	}
	var rows [][]string
	for _, what := range []string{"version", "status"} {
		x, y := of[what+old], of[what+b.satchel]
		rows = append(rows,
			[]string{"`satchel " + what + "`, p50", ms(quantile(wall(x), 50)), ms(quantile(wall(y), 50)), plus(quantile(wall(x), 50), quantile(wall(y), 50))},
			[]string{"its processor time, p50", ms(medianCPU(x)), ms(medianCPU(y)), plus(medianCPU(x), medianCPU(y))})
	}
	for _, s := range []struct{ what, old, now string }{{"binary", old, b.satchel}, {"binary without symbols", old + "-stripped", b.satchel + "-stripped-now"}} {
		x, err := os.Stat(s.old)
		if err != nil {
			return err
		}
		y, err := os.Stat(s.now)
		if err != nil {
			return err
		}
		rows = append(rows, []string{s.what, mb(x.Size()), mb(y.Size()), plus(x.Size(), y.Size())})
	}
	b.say("\n### What it costs to know all of them\n\nThe command of this commit beside that of %s, which knew folders only; %d whole processes of each, in turns.\n", beforeClouds, b.size.quick)
	b.table("what|"+beforeClouds+"|now|more", rows)
	return nil
}

// plus says how much more y is than x.
func plus[T int64 | time.Duration](x, y T) string {
	if x == 0 {
		return ""
	}
	return fmt.Sprintf("%+.0f %%", 100*(float64(y)/float64(x)-1))
}
