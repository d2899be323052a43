package lnd_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/fakelnd"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/source/lnd"
)

// victimEnv holds what a process that is about to be killed does, as JSON.
const victimEnv = "SATCHEL_TEST_GATED"

func TestMain(m *testing.M) {
	if text := os.Getenv(victimEnv); text != "" {
		victim(text)
	}
	os.Exit(m.Run())
}

// killed is a gated open, or a resumption of one, by a process of its own.
type killed struct {
	Address  string
	Cert     []byte
	Macaroon string
	Dir      string // its record, and the backups that are protected
	At       lnd.Point
	Resume   bool
	Fail     bool // the backup cannot be protected
}

func victim(text string) {
	var k killed
	if err := json.Unmarshal([]byte(text), &k); err != nil {
		panic(err)
	}
	k.live(func() {
		if self, err := os.FindProcess(os.Getpid()); err == nil {
			self.Kill() // No handler and no deferred call: it dies here.
		}
		select {}
	})
	os.Exit(0)
}

// live does what the process does; die is called at its point.
func (k killed) live(die func()) {
	mac, err := hex.DecodeString(k.Macaroon)
	if err != nil {
		panic(err)
	}
	node, err := lnd.New(lnd.Config{Address: k.Address, Cert: k.Cert, Macaroon: secret.New(mac)})
	if err != nil {
		panic(err)
	}
	defer node.Close()
	cfg := gatedConfig(node, k.Dir, func(p lnd.Point) {
		if p == k.At {
			die()
		}
	})
	if k.Fail {
		cfg.Protect = func(context.Context) ([]byte, error) { return nil, errors.New("the place is full") }
	}
	ctx := context.Background()
	if k.Resume {
		lnd.ResumeGated(ctx, cfg)
	} else {
		lnd.OpenGated(ctx, cfg, lnd.NewChannel{Peer: peerKey, Host: "127.0.0.1:9735", Amount: 1_000_000})
	}
}

var peerKey = "02" + strings.Repeat("ab", 32)

// gatedConfig protects backups in a directory.
func gatedConfig(node *lnd.Node, dir string, report func(lnd.Point)) lnd.GatedConfig {
	return lnd.GatedConfig{
		Node: node, Journal: filepath.Join(dir, "open.json"), Report: report, Settle: time.Millisecond,
		Protect: func(ctx context.Context) ([]byte, error) {
			b, err := node.Export(ctx)
			if err != nil {
				return nil, err
			}
			return b.Multi, os.WriteFile(filepath.Join(dir, "scb"), b.Multi, 0o600)
		},
	}
}

// protected reports whether the backup that is protected knows a channel.
func protected(dir, point string) bool {
	scb, err := os.ReadFile(filepath.Join(dir, "scb"))
	if err != nil {
		return false
	}
	_, points := fakelnd.Unseal(scb)
	return slices.Contains(points, point)
}

// gatedNode is a fake node with coins that notes a transaction which pays for a channel
// whose backup is not protected.
func gatedNode(t *testing.T, dir string) (*fakelnd.Node, lnd.Config) {
	t.Helper()
	fake, cfg := serve(t)
	fake.AddCoins(2)
	fake.Wallet.Published = func(point string) error {
		if point == "" || !protected(dir, point) {
			t.Errorf("a transaction was sent for the channel %q, which is in no protected backup", point)
		}
		return nil
	}
	return fake, cfg
}

func TestGated(t *testing.T) {
	for _, nested := range []bool{false, true} {
		t.Run(fmt.Sprintf("nested=%v", nested), func(t *testing.T) { testGated(t, nested) })
	}
}

func testGated(t *testing.T, nested bool) {
	dir := t.TempDir()
	fake, cfg := gatedNode(t, dir)
	fake.Wallet.Nested = nested
	var seen []lnd.Point
	gated := gatedConfig(connect(t, cfg), dir, func(p lnd.Point) { seen = append(seen, p) })
	point, err := lnd.OpenGated(t.Context(), gated, lnd.NewChannel{Peer: peerKey, Host: "127.0.0.1:9735", Amount: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	txid, _, _ := strings.Cut(point, ":")
	if !fake.Sent(txid) || !slices.Equal(fake.Channels(fakelnd.Opening), []string{point}) || fake.Leases() != 0 {
		t.Errorf("sent %v, channels %v, %d coins reserved", fake.Sent(txid), fake.Channels(fakelnd.Opening), fake.Leases())
	}
	want := lnd.Points()
	want = want[:slices.Index(want, lnd.PointAbandoning)]
	if !slices.Equal(seen, want) {
		t.Errorf("got points %v, want %v", seen, want)
	}
	if _, err := lnd.UnfinishedGated(gated.Journal); !errors.Is(err, lnd.ErrNoOpening) {
		t.Errorf("got %v, want %v", err, lnd.ErrNoOpening)
	}
}

// What goes wrong before the transaction is sent leaves nothing: no channel, no coin that
// is reserved, no record.
func TestGatedUndone(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(*fakelnd.Node, *lnd.GatedConfig)
		want error
	}{
		{"refused", func(n *fakelnd.Node, _ *lnd.GatedConfig) { n.Wallet.Refuse = "channels must be bigger" }, lnd.ErrPeerRefused},
		{"not protected", func(_ *fakelnd.Node, c *lnd.GatedConfig) {
			c.Protect = func(context.Context) ([]byte, error) { return nil, errors.New("the place is full") }
		}, lnd.ErrNotSafe},
		{"signing fails", func(n *fakelnd.Node, _ *lnd.GatedConfig) { n.Fail("/v2/wallet/psbt/finalize", fakelnd.Fail) }, nil},
		{"reserving fails", func(n *fakelnd.Node, _ *lnd.GatedConfig) { n.Fail("/v2/wallet/psbt/fund", fakelnd.Fail) }, nil},
		{"the export fails", func(n *fakelnd.Node, _ *lnd.GatedConfig) { n.Fail("/v1/channels/backup", fakelnd.Fail) }, lnd.ErrNotSafe},
		{"verifying fails", func(n *fakelnd.Node, _ *lnd.GatedConfig) { n.Fail("/v1/channels/backup/verify", fakelnd.Fail) }, lnd.ErrNotSafe},
		{"a backup that lacks the channel", func(n *fakelnd.Node, c *lnd.GatedConfig) {
			old := n.Backup()
			c.Protect = func(context.Context) ([]byte, error) { return old, nil }
		}, lnd.ErrNotSafe},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			fake, cfg := gatedNode(t, dir)
			gated := gatedConfig(connect(t, cfg), dir, nil)
			test.do(fake, &gated)
			_, err := lnd.OpenGated(t.Context(), gated, lnd.NewChannel{Peer: peerKey, Amount: 1_000_000})
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			clean(t, fake, gated.Journal)
		})
	}
}

// What would make an open come to nothing is found before a peer is asked.
func TestPrepare(t *testing.T) {
	reads := []fakelnd.Permission{{Entity: "info", Action: "read"}, {Entity: "onchain", Action: "read"}, {Entity: "offchain", Action: "read"}, {Entity: "peers", Action: "write"}}
	writes := []fakelnd.Permission{{Entity: "onchain", Action: "write"}, {Entity: "offchain", Action: "write"}}
	for _, test := range []struct {
		name string
		do   func(*fakelnd.Node, *lnd.NewChannel)
		with []fakelnd.Permission
		fee  int64
		want error
	}{
		{name: "ready", fee: 310},
		{name: "a rate of one's own", do: func(_ *fakelnd.Node, c *lnd.NewChannel) { c.SatPerVByte = 4 }, fee: 620},
		{name: "connected already", do: func(n *fakelnd.Node, c *lnd.NewChannel) { c.Host = ""; n.AddPeer(peerKey, "a:1", true) }, fee: 310},
		{name: "lnd cannot say the fee", do: func(n *fakelnd.Node, _ *lnd.NewChannel) { n.Fail("/v1/transactions/fee", fakelnd.Fail) }},
		{name: "too much", do: func(_ *fakelnd.Node, c *lnd.NewChannel) { c.Amount = 20_000_000 }, want: lnd.ErrCoins},
		{name: "the peer is away", do: func(n *fakelnd.Node, c *lnd.NewChannel) { n.Wallet.Unreachable = []string{c.Host} }, want: lnd.ErrPeerAway},
		{name: "not connected", do: func(_ *fakelnd.Node, c *lnd.NewChannel) { c.Host = "" }, want: lnd.ErrPeerAway},
		{name: "may only read", with: reads, want: lnd.ErrPermission},
		{name: "may not list peers", with: append(writes, reads...), fee: 310},
		{name: "may not read channels", with: append(writes, reads[0], reads[1], reads[3]), want: lnd.ErrPermission},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			fake, cfg := gatedNode(t, dir)
			ch := lnd.NewChannel{Peer: peerKey, Host: "127.0.0.1:9735", Amount: 1_000_000}
			if test.do != nil {
				test.do(fake, &ch)
			}
			if test.with != nil {
				cfg.Macaroon = secret.New(fake.Macaroon(5, test.with...))
			}
			fee, err := lnd.Prepare(t.Context(), connect(t, cfg), ch)
			if fee != test.fee || !errors.Is(err, test.want) {
				t.Errorf("got %d, %v, want %d, %v", fee, err, test.fee, test.want)
			}
			clean(t, fake, filepath.Join(dir, "open.json"))
			if n := fake.Calls("/v1/channels/stream"); n > 0 {
				t.Errorf("a channel was offered %d times", n)
			}
		})
	}
}

// clean fails unless nothing is left of an open.
func clean(t *testing.T, fake *fakelnd.Node, journal string) {
	t.Helper()
	if n := fake.Leases(); n > 0 {
		t.Errorf("%d coins are reserved", n)
	}
	if points := fake.Channels(fakelnd.Opening); len(points) > 0 {
		t.Errorf("pending: %v", points)
	}
	if n := fake.Offers(); n > 0 {
		t.Errorf("%d offers are left", n)
	}
	if fake.Coins() != 2 {
		t.Errorf("%d coins are left, want 2", fake.Coins())
	}
	if _, err := lnd.UnfinishedGated(journal); !errors.Is(err, lnd.ErrNoOpening) {
		t.Errorf("the record: %v", err)
	}
}

// A process that dies at any point, also while it resumes or undoes: no channel is paid
// for that is in no protected backup, and in the end no coin is reserved and no channel
// pending that is not paid for. Whether lnd restarts in between does not matter.
//
// All that it does is on the disk or at lnd when a point is reported, so a goroutine that
// ends there leaves what SIGKILL does. With SATCHEL_KILL=all it is SIGKILL, and the
// process that goes on is killed too, at each point.
func TestGatedKill(t *testing.T) {
	for _, restart := range []bool{false, true} {
		for _, fail := range []string{"", "resume", "all"} {
			for _, at := range lnd.Points() {
				for _, again := range append(lnd.Points(), "") {
					if again != "" && os.Getenv("SATCHEL_KILL") == "" {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s/fail=%s/restart=%v", at, again, fail, restart), func(t *testing.T) {
						t.Parallel()
						killTwice(t, at, again, fail, restart)
					})
				}
			}
		}
	}
}

// killTwice kills a process at a point, and the one that resumes at another one. fail says
// which of them cannot protect the backup.
func killTwice(t *testing.T, at, again lnd.Point, fail string, restart bool) {
	dir := t.TempDir()
	fake, cfg := gatedNode(t, dir)
	k := killed{Address: cfg.Address, Cert: cfg.Cert, Macaroon: hex.EncodeToString(cfg.Macaroon.Open()), Dir: dir, At: at, Fail: fail == "all"}
	if !k.run(t) {
		return // It never comes to that point.
	}
	if restart {
		fake.Restart()
	}
	k.Resume, k.Fail = true, fail != ""
	if k.At = again; again != "" && !k.run(t) {
		return
	}
	gated := gatedConfig(connect(t, cfg), dir, nil)
	if fail != "" {
		gated.Protect = func(context.Context) ([]byte, error) { return nil, errors.New("the place is full") }
	}
	point, err := lnd.ResumeGated(t.Context(), gated)
	switch {
	case errors.Is(err, lnd.ErrNoOpening):
		// The process that was killed had come to its end.
		if fake.Coins() == 2 {
			clean(t, fake, gated.Journal)
		}
	case point == "":
		clean(t, fake, gated.Journal)
	case fake.Coins() != 1:
		t.Errorf("opened, and %d coins are left, want 1", fake.Coins())
	}
	if n := fake.Leases(); n > 0 {
		t.Errorf("%d coins are reserved", n)
	}
	if fake.Coins() < 2 && len(fake.Channels(fakelnd.Opening)) != 1 {
		t.Error("a channel that is paid for was abandoned")
	}
	for _, p := range fake.Channels(fakelnd.Opening) {
		if txid, _, _ := strings.Cut(p, ":"); !fake.Sent(txid) {
			t.Errorf("%s is pending and not paid for", p)
		}
	}
	if _, err := os.Stat(gated.Journal); err == nil {
		t.Error("the record is still there")
	}
}

// run runs the process and reports whether it was killed.
func (k killed) run(t *testing.T) bool {
	t.Helper()
	if os.Getenv("SATCHEL_KILL") != "all" {
		dead, over := false, make(chan struct{})
		go func() {
			defer close(over)
			k.live(func() { dead = true; runtime.Goexit() })
		}()
		<-over
		return dead
	}
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+string(text))
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL && ctx.Err() == nil {
		return true
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return false
}
