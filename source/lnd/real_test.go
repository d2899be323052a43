package lnd_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/source"
	"github.com/satchel-backup/satchel/source/lnd"
)

// What is shown with a fake is shown here with the real one: SATCHEL_TEST_LND names a
// directory with btcd, btcctl and lnd.

// chain is a btcd of its own network.
type chain struct {
	t           *testing.T
	bin, dir    string
	listen, rpc string
	process     *exec.Cmd
	user, pass  string
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start starts a program that ends with the test.
func start(t *testing.T, log string, name string, args ...string) *exec.Cmd {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.Close()
	t.Cleanup(func() { kill(cmd) })
	return cmd
}

func kill(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

func newChain(t *testing.T) *chain {
	bin := os.Getenv("SATCHEL_TEST_LND")
	if bin == "" {
		t.Skip("SATCHEL_TEST_LND names no lnd")
	}
	c := &chain{t: t, bin: bin, dir: t.TempDir(), listen: freePort(t), rpc: freePort(t), user: "u", pass: "p"}
	c.start("")
	return c
}

func (c *chain) start(miner string) {
	c.t.Helper()
	if c.process != nil {
		kill(c.process)
	}
	args := []string{
		"--simnet", "--datadir=" + c.dir, "--logdir=" + c.dir, "--configfile=" + filepath.Join(c.dir, "none.conf"), "--rpccert=" + c.cert(), "--rpckey=" + filepath.Join(c.dir, "rpc.key"),
		"--listen=" + c.listen, "--rpclisten=" + c.rpc, "--rpcuser=u", "--rpcpass=p", "--txindex", "--nobanning", "--debuglevel=info",
	}
	if miner != "" {
		args = append(args, "--miningaddr="+miner)
	}
	c.process = start(c.t, filepath.Join(c.dir, "btcd.out"), filepath.Join(c.bin, "btcd"), args...)
	within(c.t, 20*time.Second, "btcd to answer", func() error { _, err := c.ctl("getblockcount"); return err })
}

func (c *chain) cert() string { return filepath.Join(c.dir, "rpc.cert") }

func (c *chain) ctl(args ...string) (string, error) {
	args = append([]string{"--simnet", "--configfile=" + filepath.Join(c.dir, "none.conf"), "--rpccert=" + c.cert(), "--rpcserver=" + c.rpc, "--rpcuser=u", "--rpcpass=p"}, args...)
	out, err := exec.Command(filepath.Join(c.bin, "btcctl"), args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return string(out), nil
}

func (c *chain) mine(n int) {
	c.t.Helper()
	if _, err := c.ctl("generate", fmt.Sprint(n)); err != nil {
		c.t.Fatal(err)
	}
}

// within waits until try has no error.
func within(t *testing.T, d time.Duration, what string, try func() error) {
	t.Helper()
	end := time.Now().Add(d)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// realNode is an lnd.
type realNode struct {
	t       *testing.T
	chain   *chain
	dir     string
	listen  string
	rpc     string
	rest    string
	process *exec.Cmd
}

func (c *chain) node(args ...string) *realNode {
	n := &realNode{t: c.t, chain: c, dir: c.t.TempDir(), listen: freePort(c.t), rpc: freePort(c.t), rest: freePort(c.t)}
	conf := fmt.Sprintf("[Application Options]\nlisten=%s\nrpclisten=%s\nrestlisten=%s\ntrickledelay=50\n"+
		"[Bitcoin]\nbitcoin.simnet=true\nbitcoin.node=btcd\nbitcoin.defaultchanconfs=1\n[Btcd]\nbtcd.rpchost=%s\nbtcd.rpccert=%s\nbtcd.rpcuser=u\nbtcd.rpcpass=p\n",
		n.listen, n.rpc, n.rest, c.rpc, c.cert())
	if err := os.WriteFile(filepath.Join(n.dir, "lnd.conf"), []byte(conf), 0o600); err != nil {
		c.t.Fatal(err)
	}
	n.start(args...)
	return n
}

func (n *realNode) start(args ...string) {
	n.t.Helper()
	n.process = start(n.t, filepath.Join(n.dir, "lnd.out"), filepath.Join(n.chain.bin, "lnd"), append([]string{"--lnddir=" + n.dir}, args...)...)
	n.t.Cleanup(func() {
		if dir := os.Getenv("SATCHEL_TEST_LND_LOGS"); dir != "" {
			out, _ := os.ReadFile(filepath.Join(n.dir, "lnd.out"))
			os.WriteFile(filepath.Join(dir, filepath.Base(n.dir)+".log"), out, 0o600)
		}
	})
}

// stop ends it by its own command, or at once.
func (n *realNode) kill() { kill(n.process) }

// install finds it.
func (n *realNode) install() *lnd.Install {
	n.t.Helper()
	var found *lnd.Install
	within(n.t, 30*time.Second, "lnd to make its files", func() (err error) { found, err = lnd.Find(n.dir, ""); return err })
	return found
}

// connect connects to it, as the admin if there is one.
func (n *realNode) connect() *lnd.Node {
	n.t.Helper()
	found := n.install()
	cert := must[[]byte](n.t)(lnd.ReadCert(found.Cert))
	mac, err := lnd.ReadMacaroon(found.Admin)
	if err != nil {
		mac = secret.Bytes{}
	}
	return connect(n.t, lnd.Config{Address: found.Address, Cert: cert, Macaroon: mac})
}

func (n *realNode) state(want lnd.State) {
	n.t.Helper()
	within(n.t, 4*time.Minute, "the state "+string(want), func() error {
		got, err := n.connect().State(n.t.Context())
		if err == nil && got != want {
			err = errors.New(string(got))
		}
		return err
	})
}

func (n *realNode) address() string {
	n.t.Helper()
	var out struct{ Address string }
	if err := n.connect().Call(n.t.Context(), "GET", "/v1/newaddress", nil, &out); err != nil {
		n.t.Fatal(err)
	}
	return out.Address
}

// open opens a channel and returns its name.
func (n *realNode) open(to string, sats int) (string, error) {
	pub := must[[]byte](n.t)(decodeHex(to))
	var out struct {
		Txid  []byte `json:"funding_txid_bytes"`
		Str   string `json:"funding_txid_str"`
		Index int    `json:"output_index"`
	}
	in := map[string]any{"node_pubkey": pub, "local_funding_amount": fmt.Sprint(sats), "push_sat": "20000", "sat_per_vbyte": "5", "spend_unconfirmed": true}
	if err := n.connect().Call(n.t.Context(), "POST", "/v1/channels", in, &out); err != nil {
		if ae, ok := errors.AsType[*lnd.AnswerError](err); ok {
			return "", errors.New(ae.Message)
		}
		return "", err
	}
	slices.Reverse(out.Txid)
	return fmt.Sprintf("%x:%d", out.Txid, out.Index), nil
}

func decodeHex(s string) ([]byte, error) {
	b := make([]byte, len(s)/2)
	_, err := fmt.Sscanf(s, "%x", &b)
	return b, err
}

// recorder keeps what a source hands over.
type recorder struct {
	mu    sync.Mutex
	items map[string][]byte
	at    map[string]time.Time // of a backup, when it came
	calls int
	said  []string
}

func (r *recorder) save(_ context.Context, changes ...source.Change) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	for _, c := range changes {
		if c.Remove {
			delete(r.items, c.Name)
			continue
		}
		r.items[c.Name] = bytes.Clone(c.Value)
		if c.Name == lnd.ItemBackup {
			r.at[string(c.Value)] = time.Now()
		}
	}
	return nil
}

func (r *recorder) get(name string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.items[name]
}

// older returns the older backups.
func (r *recorder) older() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list [][]byte
	for name, value := range r.items {
		if strings.HasPrefix(name, lnd.ItemOlder) {
			list = append(list, value)
		}
	}
	return list
}

func (r *recorder) kept() (map[string][]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := map[string][]byte{}
	for name, value := range r.items {
		kept[name] = value
	}
	return kept, nil
}

func TestRealNode(t *testing.T) {
	btc := newChain(t)
	alice := btc.node()
	ctx := t.Context()

	// Without a wallet.
	alice.state(lnd.NonExisting)
	node := alice.connect()
	for name, call := range map[string]func() error{
		"info":   func() error { _, err := node.Info(ctx); return err },
		"export": func() error { _, err := node.Export(ctx); return err },
		"stream": func() error { return node.Subscribe(ctx, nil, nil) },
	} {
		if err := call(); !errors.Is(err, lnd.ErrNoWallet) {
			t.Errorf("%s: got %v, want %v", name, err, lnd.ErrNoWallet)
		}
	}
	var seed struct {
		Words []string `json:"cipher_seed_mnemonic"`
	}
	if err := node.Call(ctx, "GET", "/v1/genseed", nil, &seed); err != nil || len(seed.Words) != 24 {
		t.Fatalf("got %d words, %v", len(seed.Words), err)
	}
	// Making and opening a wallet is slow on purpose.
	slowly := func(n *lnd.Node, path string, in any) error {
		ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
		defer cancel()
		return n.Call(ctx, "POST", path, in, nil)
	}
	password := base64.StdEncoding.EncodeToString([]byte("correct horse"))
	if err := slowly(node, "/v1/initwallet", map[string]any{"wallet_password": password, "cipher_seed_mnemonic": seed.Words}); err != nil {
		t.Fatal(err)
	}
	// Between the two it is starting, which may be over by now.
	if _, err := node.Export(ctx); !errors.Is(err, lnd.ErrNoWallet) && !errors.Is(err, lnd.ErrStarting) && !errors.Is(err, lnd.ErrMacaroon) {
		t.Errorf("got %v, want %v", err, lnd.ErrStarting)
	}
	// It waits for a chain whose newest block is not old.
	alice.state(lnd.RPCActive)
	for name, call := range map[string]func() error{
		"info":    func() error { _, err := alice.connect().Info(ctx); return err },
		"export":  func() error { _, err := alice.connect().Export(ctx); return err },
		"pending": func() error { _, err := alice.connect().Pending(ctx); return err },
		"closed":  func() error { _, err := alice.connect().Closed(ctx); return err },
		"peers":   func() error { _, err := alice.connect().Peers(ctx); return err },
		"stream": func() error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return alice.connect().Subscribe(ctx, nil, nil)
		},
		"bake": func() error { _, _, err := alice.connect().Bake(ctx); return err },
	} {
		t.Logf("before the chain is there: %s: %v", name, call())
	}
	btc.start(alice.address())
	btc.mine(1)
	alice.state(lnd.ServerActive)
	if err := node.Call(ctx, "POST", "/v1/unlockwallet", map[string]any{"wallet_password": password}, nil); !errors.Is(err, lnd.ErrUnlocked) {
		t.Errorf("got %v, want %v", err, lnd.ErrUnlocked)
	}
	if _, err := node.Info(ctx); !errors.Is(err, lnd.ErrMacaroon) {
		t.Errorf("no macaroon: got %v, want %v", err, lnd.ErrMacaroon)
	}

	// Macaroons: ours is enough, and each permission of it is needed.
	admin := alice.connect()
	info := must[lnd.Info](t)(admin.Info(ctx))
	if info.Network != "simnet" {
		t.Errorf("got %+v", info)
	}
	mac, rootKey, err := admin.Bake(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range lnd.Permissions() {
		rest := slices.Delete(lnd.Permissions(), i, i+1)
		less := must[secret.Bytes](t)(admin.BakeMacaroon(ctx, 12, rest...))
		err := admin.With(less).Prove(ctx)
		if pe, ok := errors.AsType[*lnd.PermissionError](err); !ok || len(pe.Lacks) != 1 || pe.Lacks[0] != p {
			t.Errorf("without %v: got %v", p, err)
		}
	}
	ours := admin.With(mac)
	if _, _, err := ours.Bake(ctx); !errors.Is(err, lnd.ErrPermission) {
		t.Errorf("got %v, want %v", err, lnd.ErrPermission)
	}
	if err := ours.Call(ctx, "GET", "/v1/newaddress", nil, nil); !errors.Is(err, lnd.ErrPermission) {
		t.Errorf("got %v, want %v", err, lnd.ErrPermission)
	}
	for name, bad := range map[string][]byte{"short": {2, 1, 3}, "text": []byte("hello"), "bent": bend(mac.Open())} {
		if _, err := admin.With(secret.New(bad)).Info(ctx); !errors.Is(err, lnd.ErrMacaroon) {
			t.Errorf("a macaroon that is %s: got %v, want %v", name, err, lnd.ErrMacaroon)
		}
	}
	// A macaroon of another node.
	bob := btc.node("--noseedbackup")
	bob.state(lnd.ServerActive)
	if _, err := bob.connect().With(mac).Info(ctx); !errors.Is(err, lnd.ErrMacaroon) {
		t.Errorf("a macaroon of another node: got %v, want %v", err, lnd.ErrMacaroon)
	}
	bobInfo := must[lnd.Info](t)(bob.connect().Info(ctx))

	// Funds.
	btc.mine(450)
	within(t, 120*time.Second, "the chain", func() error {
		info, err := alice.connect().Info(ctx)
		if err == nil && (!info.SyncedToChain || info.Height < 450) {
			err = fmt.Errorf("at height %d", info.Height)
		}
		return err
	})
	host, port, _ := net.SplitHostPort(bob.listen)
	if err := admin.Call(ctx, "POST", "/v1/peers", map[string]any{"addr": map[string]any{"pubkey": bobInfo.PubKey, "host": host + ":" + port}}, nil); err != nil {
		t.Fatal(err)
	}

	// The source, with our macaroon.
	found := alice.install()
	rec := &recorder{items: map[string][]byte{}, at: map[string]time.Time{}}
	var macaroon secret.Bytes = mac
	var macMu sync.Mutex
	run := func() (stop func() error) {
		src := must[*lnd.Source](t)(lnd.NewSource(lnd.SourceConfig{
			Connect: func(context.Context) (lnd.Config, error) {
				macMu.Lock()
				defer macMu.Unlock()
				cert, err := lnd.ReadCert(found.Cert)
				return lnd.Config{Address: found.Address, Cert: cert, Macaroon: macaroon}, err
			},
			File: found.Backup, Kept: rec.kept, Seed: lnd.SeedAezeed,
			Report: func(err error) {
				rec.mu.Lock()
				defer rec.mu.Unlock()
				rec.said = append(rec.said, fmt.Sprint(err))
			},
		}))
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- src.Run(ctx, rec.save) }()
		return func() error { cancel(); return <-done }
	}
	stop := run()
	says := func(want string) {
		t.Helper()
		within(t, 2*time.Minute, "the source to say "+want, func() error {
			rec.mu.Lock()
			defer rec.mu.Unlock()
			if len(rec.said) == 0 || rec.said[len(rec.said)-1] != want {
				return fmt.Errorf("said %v", rec.said)
			}
			return nil
		})
	}
	says("<nil>")
	knows := func(points ...string) {
		t.Helper()
		slices.Sort(points)
		within(t, 30*time.Second, fmt.Sprintf("a backup of %d channels", len(points)), func() error {
			got, known, err := ours.Verify(ctx, rec.get(lnd.ItemBackup))
			if err == nil && (!known || !slices.Equal(got, points)) {
				err = fmt.Errorf("it has %d", len(got))
			}
			return err
		})
	}
	knows()

	// A second listener, to compare with.
	heard := map[string]time.Time{}
	var heardMu sync.Mutex
	go ours.Subscribe(ctx, nil, func(b lnd.Backup) error {
		heardMu.Lock()
		defer heardMu.Unlock()
		for _, p := range b.Channels {
			if heard[p].IsZero() {
				heard[p] = time.Now()
			}
		}
		return nil
	})
	time.Sleep(500 * time.Millisecond)
	var points []string
	var opened, told []time.Duration
	for range 10 {
		began := time.Now()
		var point string
		within(t, 30*time.Second, "a channel to be opened", func() (err error) {
			began = time.Now()
			point, err = alice.open(bobInfo.PubKey, 100_000)
			if err != nil {
				btc.mine(1)
			}
			return err
		})
		done := time.Now()
		points = append(points, point)
		knows(points...)
		rec.mu.Lock()
		saved := rec.at[string(rec.items[lnd.ItemBackup])]
		rec.mu.Unlock()
		heardMu.Lock()
		opened, told = append(opened, saved.Sub(done)), append(told, saved.Sub(heard[point]))
		heardMu.Unlock()
		t.Logf("opening took %v; saved %v after lnd said that it is open, %v after another listener heard of it", done.Sub(began), saved.Sub(done), told[len(told)-1])
		btc.mine(1)
	}
	slices.Sort(opened)
	slices.Sort(told)
	t.Logf("saved after the answer: p50 %v, worst %v; after another listener: p50 %v, worst %v", opened[5], opened[9], told[5], told[9])
	within(t, 60*time.Second, "the channels to be open", func() error {
		open, err := ours.Open(ctx)
		if err == nil && len(open) != len(points) {
			err = fmt.Errorf("%d are", len(open))
		}
		return err
	})
	if len(rec.older()) > 0 {
		t.Errorf("%d older backups are kept", len(rec.older()))
	}

	// What lnd says about its peers.
	within(t, 30*time.Second, "the peer", func() error {
		if peers := rec.get(lnd.ItemPeers); !strings.Contains(string(peers), bobInfo.PubKey) || !strings.Contains(string(peers), bob.listen) || strings.Count(string(peers), ":0\"")+strings.Count(string(peers), ":1\"") < len(points) {
			return fmt.Errorf("%s", peers)
		}
		return nil
	})
	if !strings.Contains(string(rec.get(lnd.ItemNode)), info.PubKey) {
		t.Errorf("got %s", rec.get(lnd.ItemNode))
	}

	// Closed by both, and by one.
	closeChannel := func(by *lnd.Node, point string, force bool) {
		t.Helper()
		txid, index, _ := strings.Cut(point, ":")
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		by.Call(ctx, "DELETE", fmt.Sprintf("/v1/channels/%s/%s?force=%v", txid, index, force), nil, nil) // It is a stream.
	}
	closeChannel(admin, points[0], false)
	btc.mine(1)
	knows(points[1:]...)
	within(t, 10*time.Second, "nothing older", func() error {
		if n := len(rec.older()); n > 0 {
			return fmt.Errorf("%d older backups are kept", n)
		}
		return nil
	})
	closeChannel(bob.connect(), points[1], true)
	btc.mine(1)
	knows(points[2:]...)
	within(t, 30*time.Second, "the older one", func() error {
		older := rec.older()
		if len(older) != 1 {
			return fmt.Errorf("%d older backups are kept", len(older))
		}
		got, _, err := ours.Verify(ctx, older[0])
		if err == nil && !slices.Contains(got, points[1]) {
			err = errors.New("it lacks the channel")
		}
		return err
	})
	pending := must[lnd.Pending](t)(ours.Pending(ctx))
	if len(pending.Forced) != 1 || pending.Forced[0].Point != points[1] {
		t.Errorf("got %+v", pending)
	}

	// Killed and locked, and back with another certificate.
	alice.kill()
	says("lnd does not answer: nobody listens there")
	for _, name := range []string{"tls.cert", "tls.key"} {
		if err := os.Remove(filepath.Join(alice.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	old := node
	alice.start()
	alice.state(lnd.Locked)
	says(lnd.ErrLocked.Error())
	if _, err := old.Info(ctx); err == nil || !strings.Contains(err.Error(), "another one than in the file tls.cert") {
		t.Errorf("the certificate of before: got %v", err)
	}
	if err := slowly(alice.connect(), "/v1/unlockwallet", map[string]any{"wallet_password": base64.StdEncoding.EncodeToString([]byte("wrong horse"))}); err == nil || errors.Is(err, lnd.ErrLocked) {
		t.Errorf("a wrong password: got %v", err)
	}
	if err := slowly(alice.connect(), "/v1/unlockwallet", map[string]any{"wallet_password": password}); err != nil {
		t.Fatal(err)
	}
	alice.state(lnd.ServerActive)
	says("<nil>")
	ours, admin = alice.connect().With(mac), alice.connect()
	knows(points[2:]...)

	// It is closed for good when its money is back: the older backup goes.
	before := must[[]lnd.Channel](t)(ours.Closed(ctx))
	within(t, 4*time.Minute, "the money to be back", func() error {
		if now := must[[]lnd.Channel](t)(ours.Closed(ctx)); len(now) > len(before) {
			return nil
		}
		btc.mine(1)
		time.Sleep(time.Second) // Between blocks lnd has time to sweep.
		p := must[lnd.Pending](t)(ours.Pending(ctx))
		return fmt.Errorf("%d channels and %d satoshis are pending", len(p.Forced), p.Limbo)
	})
	stop()
	stop = run()
	within(t, 30*time.Second, "the older one to go", func() error {
		if n := len(rec.older()); n > 0 {
			return fmt.Errorf("%d older backups are kept", n)
		}
		return nil
	})

	// Revoked.
	if err := admin.RevokeMacaroons(ctx, rootKey); err != nil {
		t.Fatal(err)
	}
	if err := ours.Prove(ctx); !errors.Is(err, lnd.ErrMacaroon) {
		t.Errorf("revoked: got %v, want %v", err, lnd.ErrMacaroon)
	}
	stop()
	src := run()
	time.Sleep(time.Second)
	if err := src(); !errors.Is(err, lnd.ErrMacaroon) {
		t.Errorf("revoked: got %v, want %v", err, lnd.ErrMacaroon)
	}

	// Bob instead of Alice.
	found = bob.install()
	macMu.Lock()
	macaroon = must[secret.Bytes](t)(lnd.ReadMacaroon(found.Admin))
	macMu.Unlock()
	was := rec.get(lnd.ItemBackup)
	other := run()
	time.Sleep(2 * time.Second)
	if err := other(); !errors.Is(err, lnd.ErrOtherNode) {
		t.Errorf("another node: got %v, want %v", err, lnd.ErrOtherNode)
	}
	if !bytes.Equal(was, rec.get(lnd.ItemBackup)) {
		t.Error("another node wrote")
	}
	if _, _, err := bob.connect().Verify(ctx, was); !errors.Is(err, lnd.ErrBackup) {
		t.Errorf("a backup of another node: got %v, want %v", err, lnd.ErrBackup)
	}
}

func bend(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)-1] ^= 1
	return b
}
