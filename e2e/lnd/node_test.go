package lnd

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A node is an lnd in the home of a machine, installed as its documents say: all of it
// is below ~/.lnd, and lnd.conf says where it listens.
type node struct {
	name  string
	home  string
	chain *chain
	rest  string // address
	grpc  string // address
	peer  string // address
	extra []string

	words    []string // of the wallet, in aezeed
	password string   // of the wallet
	process  *process
	client   *http.Client
	macaroon string // of the administrator, in hex
	id       string // public key
}

// newNode starts an lnd with a new wallet. The lines are added to its lnd.conf.
func newNode(t testing.TB, c *chain, home, name string, lines ...string) *node {
	t.Helper()
	n := installNode(t, c, home, name, lines...)
	n.run(t)
	n.empty(t)
	var seed struct {
		Words []string `json:"cipher_seed_mnemonic"`
	}
	n.must(t, "GET", "/v1/genseed", nil, &seed)
	n.words = seed.Words
	n.init(t, nil, 0)
	n.serving(t)
	return n
}

// installNode writes what an lnd needs, and starts nothing.
func installNode(t testing.TB, c *chain, home, name string, lines ...string) *node {
	t.Helper()
	n := &node{name: name, home: home, chain: c, rest: freeAddress(t), grpc: freeAddress(t), peer: freeAddress(t), extra: lines, password: "pass-" + rand.Text()}
	n.configure(t)
	return n
}

func (n *node) dir() string { return filepath.Join(n.home, ".lnd") }

func (n *node) network() string { return filepath.Join(n.dir(), "data", "chain", "bitcoin", "regtest") }

func (n *node) certPath() string     { return filepath.Join(n.dir(), "tls.cert") }
func (n *node) macaroonPath() string { return filepath.Join(n.network(), "admin.macaroon") }
func (n *node) backupPath() string   { return filepath.Join(n.network(), "channel.backup") }

func (n *node) passwordPath() string { return filepath.Join(n.dir(), "password") }

func (n *node) configure(t testing.TB) {
	t.Helper()
	lines := append([]string{"[Application Options]"}, n.extra...)
	text := strings.Join(append(lines,
		"alias="+n.name,
		"listen="+n.peer,
		"restlisten="+n.rest,
		"rpclisten="+n.grpc,
		"debuglevel=info",
		// Not as on a real node: what waits for friends waits less.
		"trickledelay=50",
		"minbackoff=1s",
		"maxbackoff=2s",
		"",
		"[Bitcoin]",
		"bitcoin.regtest=true",
		"bitcoin.node=btcd",
		"",
		"[Btcd]",
		"btcd.rpchost="+n.chain.rpc,
		"btcd.rpcuser="+rpcUser,
		"btcd.rpcpass="+rpcPassword,
		"btcd.rpccert="+n.chain.cert,
	), "\n") + "\n"
	if err := os.MkdirAll(n.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.dir(), "lnd.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run starts the process and waits until REST answers. A wallet that is there is opened.
func (n *node) run(t testing.TB) {
	t.Helper()
	args := []string{"--lnddir=" + n.dir()}
	if _, err := os.Stat(n.passwordPath()); err == nil {
		args = append(args, "--wallet-unlock-password-file="+n.passwordPath())
	}
	cmd := exec.Command(filepath.Join(lndBin, "lnd"), args...)
	cmd.Env = []string{"HOME=" + n.home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}
	n.process = start(t, "lnd of "+n.name, cmd)
	eventually(t, startLimit, n.name+" answers", func() error {
		if err := n.process.alive(); err != nil {
			t.Fatal(err)
		}
		if err := n.trust(); err != nil {
			return err
		}
		_, err := n.state()
		return err
	})
}

// trust takes the certificate that the node shows now, also when that has expired.
func (n *node) trust() error {
	text, err := os.ReadFile(n.certPath())
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return fmt.Errorf("%s is not written yet", n.certPath())
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	now := func() time.Time { return cert.NotBefore.Add(time.Second) }
	if n.client != nil {
		n.client.CloseIdleConnections()
	}
	n.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Time: now}}}
	return nil
}

func (n *node) state() (string, error) {
	var s struct{ State string }
	err := n.call("GET", "/v1/state", nil, &s)
	return s.State, err
}

// empty waits until the node wants a wallet.
func (n *node) empty(t testing.TB) {
	t.Helper()
	eventually(t, startLimit, n.name+" wants a wallet", func() error {
		if s, err := n.state(); err != nil || s != "NON_EXISTING" {
			return fmt.Errorf("state %s, error %v", s, err)
		}
		return nil
	})
}

// init makes the wallet from n.words. A channel backup is restored with it.
func (n *node) init(t testing.TB, channels []byte, recoveryWindow int) {
	t.Helper()
	ask := map[string]any{
		"wallet_password":      base64.StdEncoding.EncodeToString([]byte(n.password)),
		"cipher_seed_mnemonic": n.words,
		"recovery_window":      recoveryWindow,
	}
	if channels != nil {
		ask["channel_backups"] = map[string]any{"multi_chan_backup": map[string]any{"multi_chan_backup": channels}}
	}
	n.empty(t)
	n.must(t, "POST", "/v1/initwallet", ask, nil)
	// The next start opens it by itself.
	if err := os.WriteFile(n.passwordPath(), []byte(n.password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serving waits until the node has its wallet and knows the chain.
func (n *node) serving(t testing.TB) {
	t.Helper()
	eventually(t, startLimit, n.name+" serves", func() error {
		if err := n.process.alive(); err != nil {
			t.Fatal(err)
		}
		if s, err := n.state(); err != nil || s != "SERVER_ACTIVE" {
			return fmt.Errorf("state %s, error %v", s, err)
		}
		m, err := os.ReadFile(n.macaroonPath())
		if err != nil {
			return err
		}
		n.macaroon = hex.EncodeToString(m)
		return nil
	})
	n.synced(t)
}

type nodeInfo struct {
	ID     string `json:"identity_pubkey"`
	Height int64  `json:"block_height"`
	Synced bool   `json:"synced_to_chain"`
}

// synced waits until the node has seen the newest block.
func (n *node) synced(t testing.TB) {
	t.Helper()
	height := n.chain.height(t)
	eventually(t, waitLimit, fmt.Sprintf("%s has seen block %d", n.name, height), func() error {
		var info nodeInfo
		if err := n.call("GET", "/v1/getinfo", nil, &info); err != nil {
			return err
		}
		if info.Height < height || !info.Synced {
			return fmt.Errorf("it is at %d, synced %v", info.Height, info.Synced)
		}
		n.id = info.ID
		return nil
	})
}

// kill ends the node as a power cut does.
func (n *node) kill() { n.process.kill() }

// stop ends the node in its own way.
func (n *node) stop(t testing.TB) { n.process.term(t) }

// start starts the node again, after kill or stop.
func (n *node) start(t testing.TB) {
	t.Helper()
	n.run(t)
	n.serving(t)
}

// wipe removes all that the node has.
func (n *node) wipe(t testing.TB) {
	t.Helper()
	if !n.process.ended() {
		t.Fatal(errors.New("the node runs"))
	}
	if err := os.RemoveAll(n.dir()); err != nil {
		t.Fatal(err)
	}
}

// A restError is an answer of lnd that is none to the question.
type restError struct {
	Status  int    `json:"-"`
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *restError) Error() string { return fmt.Sprintf("lnd: %s (%d)", e.Message, e.Status) }

func (n *node) request(ctx context.Context, method, path string, ask any) (*http.Response, error) {
	var body io.Reader
	if ask != nil {
		data, err := json.Marshal(ask)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+n.rest+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Grpc-Metadata-Macaroon", n.macaroon)
	resp, err := n.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		e := &restError{Status: resp.StatusCode}
		if err := json.NewDecoder(resp.Body).Decode(e); err != nil {
			e.Message = resp.Status
		}
		return nil, e
	}
	return resp, nil
}

// call asks lnd for something and decodes the answer into v, unless that is nil.
func (n *node) call(method, path string, ask, v any) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	resp, err := n.request(ctx, method, path, ask)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if v == nil {
		v = new(json.RawMessage)
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

func (n *node) must(t testing.TB, method, path string, ask, v any) {
	t.Helper()
	if err := n.call(method, path, ask, v); err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
}

func (n *node) address(t testing.TB) string {
	t.Helper()
	var a struct{ Address string }
	n.must(t, "GET", "/v1/newaddress?type=NESTED_PUBKEY_HASH", nil, &a)
	return a.Address
}

// fund lets the miner pay the node, and waits until it knows.
func (n *node) fund(t testing.TB, sats int64) {
	t.Helper()
	want := n.confirmed(t) + sats
	n.chain.pay(t, n.address(t), sats)
	eventually(t, waitLimit, n.name+" is paid", func() error {
		if got := n.confirmed(t); got != want {
			return fmt.Errorf("it has %d sats, want %d", got, want)
		}
		return nil
	})
}

// confirmed is what the node has on the chain, in blocks.
func (n *node) confirmed(t testing.TB) int64 {
	t.Helper()
	var b struct {
		Confirmed sats `json:"confirmed_balance"`
	}
	n.must(t, "GET", "/v1/balance/blockchain", nil, &b)
	return int64(b.Confirmed)
}

// sats are written as a string by lnd.
type sats int64

func (s *sats) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 64)
	*s = sats(n)
	return err
}

// connect makes the node a peer of another, and waits until both know.
func (n *node) connect(t testing.TB, other *node) {
	t.Helper()
	err := n.call("POST", "/v1/peers", map[string]any{"addr": map[string]any{"pubkey": other.id, "host": other.peer}, "perm": true}, nil)
	if err != nil && !strings.Contains(err.Error(), "already connected") {
		t.Fatal(err)
	}
	for _, pair := range [][2]*node{{n, other}, {other, n}} {
		eventually(t, waitLimit, n.name+" and "+other.name+" are connected", func() error {
			var list struct {
				Peers []struct {
					ID string `json:"pub_key"`
				}
			}
			if err := pair[0].call("GET", "/v1/peers", nil, &list); err != nil {
				return err
			}
			for _, p := range list.Peers {
				if p.ID == pair[1].id {
					return nil
				}
			}
			return errors.New(pair[0].name + " has no such peer")
		})
	}
}

type channel struct {
	Active    bool   `json:"active"`
	Point     string `json:"channel_point"`
	Peer      string `json:"remote_pubkey"`
	Capacity  sats   `json:"capacity"`
	Local     sats   `json:"local_balance"`
	Remote    sats   `json:"remote_balance"`
	CommitFee sats   `json:"commit_fee"`
	Unsettled sats   `json:"unsettled_balance"`
	Initiator bool   `json:"initiator"`
}

func (n *node) channels(t testing.TB) []channel {
	t.Helper()
	var list struct{ Channels []channel }
	n.must(t, "GET", "/v1/channels", nil, &list)
	return list.Channels
}

// open opens a channel and returns its point, before it is in a block.
func (n *node) open(t testing.TB, to *node, local, push int64) string {
	t.Helper()
	var point struct {
		Txid  []byte `json:"funding_txid_bytes"`
		Index int    `json:"output_index"`
	}
	n.must(t, "POST", "/v1/channels", map[string]any{
		"node_pubkey": hexBase64(t, to.id), "local_funding_amount": strconv.FormatInt(local, 10), "push_sat": strconv.FormatInt(push, 10),
	}, &point)
	slices.Reverse(point.Txid)
	return fmt.Sprintf("%x:%d", point.Txid, point.Index)
}

func hexBase64(t testing.TB, h string) string {
	t.Helper()
	b, err := hex.DecodeString(h)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// opened puts channels into blocks and waits until they work at both ends.
func opened(t testing.TB, a, b *node, points ...string) {
	t.Helper()
	a.chain.mine(t, 6)
	for _, n := range []*node{a, b} {
		for _, p := range points {
			n.active(t, p)
		}
	}
}

// active waits until a channel works.
func (n *node) active(t testing.TB, point string) {
	t.Helper()
	eventually(t, waitLimit, n.name+"'s channel works", func() error {
		c, ok := n.channel(t, point)
		if !ok || !c.Active {
			return fmt.Errorf("channel known %v, active %v", ok, c.Active)
		}
		return nil
	})
}

func (n *node) channel(t testing.TB, point string) (channel, bool) {
	t.Helper()
	for _, c := range n.channels(t) {
		if c.Point == point {
			return c, true
		}
	}
	return channel{}, false
}

// newChannel opens a channel and waits until it works.
func (n *node) newChannel(t testing.TB, to *node, local, push int64) string {
	t.Helper()
	point := n.open(t, to, local, push)
	opened(t, n, to, point)
	return point
}

// pay pays an invoice of another node, and waits until no change is under way.
func (n *node) pay(t testing.TB, to *node, amount int64) {
	t.Helper()
	// A channel may work before the node's own map of the network has it.
	eventually(t, waitLimit, n.name+" pays "+to.name, func() error {
		var invoice struct {
			Request string `json:"payment_request"`
		}
		to.must(t, "POST", "/v1/invoices", map[string]any{"value": strconv.FormatInt(amount, 10), "private": true}, &invoice)
		var paid struct {
			Error string `json:"payment_error"`
		}
		n.must(t, "POST", "/v1/channels/transactions", map[string]any{"payment_request": invoice.Request}, &paid)
		if paid.Error != "" {
			return errors.New(paid.Error)
		}
		return nil
	})
	for _, side := range []*node{n, to} {
		eventually(t, waitLimit, side.name+"'s channels are settled", func() error {
			for _, c := range side.channels(t) {
				if c.Unsettled != 0 {
					return fmt.Errorf("%d sats are on their way", c.Unsettled)
				}
			}
			return nil
		})
	}
}

// close begins to close a channel and returns when its transaction is in the pool.
func (n *node) close(t testing.TB, point string, force bool) {
	t.Helper()
	txid, index, _ := strings.Cut(point, ":")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	resp, err := n.request(ctx, "DELETE", fmt.Sprintf("/v1/channels/%s/%s?force=%v", txid, index, force), nil)
	if err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	defer resp.Body.Close()
	// The first update says that the transaction was published.
	var update json.RawMessage
	if err := json.NewDecoder(resp.Body).Decode(&update); err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	if !bytes.Contains(update, []byte("close_pending")) {
		t.Fatalf("%s: %s", n.name, update)
	}
}

// pendingChannels is what the node waits for.
type pendingChannels struct {
	Limbo   sats `json:"total_limbo_balance"`
	Opening []struct {
		Channel pendingChannel
	} `json:"pending_open_channels"`
	Forced []struct {
		Channel  pendingChannel
		Closing  string `json:"closing_txid"`
		Limbo    sats   `json:"limbo_balance"`
		Maturity int64  `json:"blocks_til_maturity"`
	} `json:"pending_force_closing_channels"`
	Waiting []struct {
		Channel pendingChannel
		Closing string `json:"closing_txid"`
		Limbo   sats   `json:"limbo_balance"`
	} `json:"waiting_close_channels"`
}

type pendingChannel struct {
	Point string `json:"channel_point"`
	Peer  string `json:"remote_node_pub"`
}

func (n *node) pending(t testing.TB) pendingChannels {
	t.Helper()
	var p pendingChannels
	n.must(t, "GET", "/v1/channels/pending", nil, &p)
	return p
}

// backup is the newest backup of all channels, as lnd gives it.
func (n *node) backup(t testing.TB) []byte {
	t.Helper()
	var b struct {
		Multi struct {
			Backup []byte `json:"multi_chan_backup"`
		} `json:"multi_chan_backup"`
	}
	n.must(t, "GET", "/v1/channels/backup", nil, &b)
	return b.Multi.Backup
}

// verify asks the node whether a channel backup is one of its own.
func (n *node) verify(backup []byte) error {
	return n.call("POST", "/v1/channels/backup/verify", map[string]any{"multi_chan_backup": map[string]any{"multi_chan_backup": backup}}, nil)
}
