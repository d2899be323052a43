package lnd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A storm is a node and an agent, and all that can happen to them.
type storm struct {
	*runner
	cloud *cloud
	bob   *node
	rand  *rand.Rand

	points []string // of the channels that are open, or about to be
	deck   []int    // faults that are still to come in this turn

	mu    sync.Mutex
	lie   string // why it would be a lie that all is protected; "" if it may be so
	since int    // counts the changes of lie
	asked int    // how often satchel status was
	said  map[int]int
}

// A fault is something that goes wrong, and then right again.
type fault struct {
	name  string
	lnd   bool // at most one of these at a time
	begin func(testing.TB)
	end   func(testing.TB)
	// blind says that satchel cannot know now which channels there are.
	blind bool
	last  bool // what else goes wrong has to be right again before
	// slack says that a change may be saved nevertheless.
	slack bool
}

// TestStorm lets SATCHEL_LND_RUNS rounds of faults pass over a node and its agent. After
// each the newest channel backup is protected, satchel status tells the truth all the
// time, and in the end all is lost and restored. (Point 3)
func TestStorm(t *testing.T) {
	t.Parallel()
	runs := number(t, "SATCHEL_LND_RUNS", 9)
	seed := uint64(number(t, "SATCHEL_SEED", int(time.Now().UnixNano()%1e6)))
	t.Logf("SATCHEL_SEED=%d SATCHEL_LND_RUNS=%d", seed, runs)
	c := newChain(t)
	p := newCloud(t)
	r := newRunnerOn(t, c, p.place, smallDisk(t))
	s := &storm{runner: r, cloud: p, rand: rand.New(rand.NewPCG(seed, 0)), said: map[int]int{}, bob: newNode(t, c, t.TempDir(), "bob", "maxpendingchannels=100")}
	s.fund(t, 1_000_000_000)
	s.reconnect(t)
	s.runAgent(t)
	s.connect(t, s.bob)
	s.openOne(t)
	s.settle(t, "at the beginning")
	s.kept(t)
	stop := s.askStatus(t)
	for i := range runs {
		s.round(t, i)
		if t.Failed() {
			break
		}
	}
	stop()
	s.mu.Lock()
	t.Logf("satchel status was asked %d times; it answered with the codes %v", s.asked, s.said)
	s.mu.Unlock()

	inWallet, inChannels := s.confirmed(t), map[string]int64{}
	for _, ch := range s.channels(t) {
		inChannels[ch.Point] = int64(ch.Local)
	}
	height := c.height(t)
	s.agent.kill()
	s.kill()
	s.wipe(t)
	if err := os.Remove(filepath.Join(s.data(), fillName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	list, err := os.ReadDir(s.data())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if err := os.RemoveAll(filepath.Join(s.data(), e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	s.bringBack(t, func(restoreEvent) {}, "--recovery-window", "100")
	s.count(t, height, inWallet, inChannels)
}

// number reads a number from the environment.
func number(t testing.TB, name string, or int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return or
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s is not a number", name, v)
	}
	return n
}

// smallDisk is a device whose satchel has a disk of its own, which gets full soon.
func smallDisk(t testing.TB) device {
	t.Helper()
	d := newDevice(t)
	if err := os.Mkdir(d.data(), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs", d.data()).CombinedOutput(); err != nil {
		t.Fatalf("a disk that gets full needs root: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", d.data()).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return d
}

// round lets one or two faults come and go, with a channel that opens or closes meanwhile.
func (s *storm) round(t testing.TB, i int) {
	t.Helper()
	faults := s.faults()
	if len(s.deck) == 0 { // Each comes once before any comes again.
		s.deck = s.rand.Perm(len(faults))
	}
	active := []fault{faults[s.deck[0]]}
	s.deck = s.deck[1:]
	when := s.rand.IntN(2) // of the channel's event: before the faults, or while they last
	switch other := faults[s.rand.IntN(len(faults))]; {
	case i == 0: // Always tried: a channel opens, and nobody saves it.
		active, when = faults[:1], 1
	case other.name != active[0].name && !(other.lnd && active[0].lnd) && s.rand.IntN(2) == 0:
		active = append(active, other)
	}
	var names []string
	for _, f := range active {
		names = append(names, f.name)
	}
	t.Logf("round %d: %s; a channel's event %s", i, strings.Join(names, ", "), []string{"before", "meanwhile"}[when])
	if when == 0 {
		s.change(t)
	}
	why, slack := "", true
	for _, f := range active {
		f.begin(t)
		if f.blind {
			why = f.name
		}
		slack = slack && f.slack
	}
	if why != "" {
		s.wouldLie(why)
	}
	if when == 1 && s.running() && s.change(t) && !slack {
		// A channel that closed is in the backup still, and no money is in danger.
		s.wouldLie(strings.Join(names, ", ") + ", and a channel that opened since")
	}
	time.Sleep(time.Duration(200+s.rand.IntN(1300)) * time.Millisecond)
	s.wasAsked(t)
	s.wouldLie("")
	for _, last := range []bool{false, true} {
		for _, f := range active {
			if f.last == last {
				f.end(t)
			}
		}
	}
	s.settle(t, strings.Join(names, ", "))
	s.kept(t)
}

// kept fails the test unless another device finds in the place a backup of every channel
// that the node has.
func (s *storm) kept(t testing.TB) {
	t.Helper()
	found := s.found(t)
	for _, ch := range s.channels(t) {
		if !slices.Contains(found, ch.Point) {
			t.Errorf("the channel %s is not in the backup", ch.Point)
		}
	}
}

// running reports whether lnd does, and is trusted by nobody but us.
func (s *storm) running() bool { return !s.node.process.ended() }

// wouldLie says why it would be a lie from now on that all is protected.
func (s *storm) wouldLie(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lie = why
	s.since++
}

// wasAsked waits until satchel status said something that would be a lie, or not, if
// something would.
func (s *storm) wasAsked(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	lie, first := s.lie, s.asked
	s.mu.Unlock()
	if lie == "" {
		return
	}
	// One may have begun before.
	eventually(t, waitLimit, "satchel status answers twice", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.asked < first+2 {
			return fmt.Errorf("%d times", s.asked-first)
		}
		return nil
	})
}

// askStatus asks satchel status all the time until the function that it returns is called.
func (s *storm) askStatus(t testing.TB) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	var once sync.Once
	stop = func() { once.Do(func() { close(done); <-ended }) }
	t.Cleanup(stop)
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(statusPause):
			}
			s.mu.Lock()
			lie, since := s.lie, s.since
			s.mu.Unlock()
			a, err := run(s.plain("status", "--json"))
			if err != nil {
				t.Error(err)
				return
			}
			s.mu.Lock()
			s.asked++
			s.said[a.code]++
			same := s.since == since
			s.mu.Unlock()
			if same && lie != "" && a.code == 0 {
				t.Errorf("satchel status says that all is protected, in spite of: %s\n%s", lie, a)
			}
			// The agent may have the wallet open for longer than status waits: it says so.
			if busy := a.code == 1 && strings.Contains(a.errs, "another process is using this wallet"); a.code != 0 && a.code != 3 && !busy {
				t.Errorf("satchel status does not answer (%s)\n%s", lie, a)
			}
		}
	}()
	return stop
}

const statusPause = 300 * time.Millisecond

// settle waits until all is protected again.
func (s *storm) settle(t testing.TB, after string) {
	t.Helper()
	for _, p := range s.points {
		s.active(t, p)
	}
	channels := len(s.points)
	eventually(t, settleLimit, "all is protected after: "+after, func() error {
		if err := s.agent.alive(); err != nil {
			t.Fatal(err)
		}
		a := s.try(t, nil, "lnd", "status", "--json")
		if a.code != 0 {
			return errors.New(a.String())
		}
		var st lndStatus
		a.json(t, &st)
		if st.Channels != channels {
			return fmt.Errorf("satchel knows %d channels, want %d", st.Channels, channels)
		}
		return nil
	})
	eventually(t, settleLimit, "satchel status says so after: "+after, func() error {
		if a := s.try(t, nil, "status", "--json"); a.code != 0 {
			return errors.New(a.String())
		}
		return nil
	})
}

const settleLimit = 5 * time.Minute

// change opens or closes a channel.
func (s *storm) change(t testing.TB) (opened bool) {
	t.Helper()
	if len(s.points) > 1 && (len(s.points) > 4 || s.rand.IntN(2) == 0) {
		i := s.rand.IntN(len(s.points))
		s.active(t, s.points[i])
		s.close(t, s.points[i], false)
		s.chain.mine(t, 1)
		s.points = append(s.points[:i], s.points[i+1:]...)
		return false
	}
	s.openOne(t)
	return true
}

// openOne opens a channel. The blocks that it waits for come at once.
func (s *storm) openOne(t testing.TB) {
	t.Helper()
	s.connect(t, s.bob)
	s.points = append(s.points, s.open(t, s.bob, 200_000+int64(s.rand.IntN(100_000)), 0))
	s.chain.mine(t, 6)
}

// reconnect takes the node into the backup, with a macaroon that lnd makes.
func (s *storm) reconnect(t testing.TB) {
	t.Helper()
	// As its hint says: while a place is away the agent may have the wallet open for long.
	// Nor is there room on a disk that is full.
	eventually(t, settleLimit, "the node is connected", func() error {
		if a := s.try(t, nil, "lnd", "connect", "--yes", "--json"); a.code != 0 {
			return errors.New(a.String())
		}
		return nil
	})
}

// revoke takes back every macaroon that lnd made when it was asked to.
func (n *node) revoke(t testing.TB) {
	t.Helper()
	var list struct {
		IDs []string `json:"root_key_ids"`
	}
	n.must(t, "GET", "/v1/macaroon/ids", nil, &list)
	for _, id := range list.IDs {
		if id != "0" { // Those that lnd made for itself.
			n.must(t, "DELETE", "/v1/macaroon/"+id, nil, nil)
		}
	}
}

const fillName = "fill"

func (s *storm) faults() []fault {
	fill := filepath.Join(s.data(), fillName)
	return []fault{{
		name:  "agent killed",
		begin: func(testing.TB) { s.agent.kill() },
		end:   s.runAgent,
	}, {
		name:  "cloud away",
		begin: func(testing.TB) { s.cloud.away.Store(true) },
		end:   func(testing.TB) { s.cloud.away.Store(false) },
	}, {
		name: "disk full", slack: true, // Its last page may have room for some bytes.
		begin: func(t testing.TB) {
			f, err := os.Create(fill)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for chunk := make([]byte, 4096); err == nil; {
				_, err = f.Write(chunk)
			}
		},
		end: func(t testing.TB) {
			if err := os.Remove(fill); err != nil {
				t.Fatal(err)
			}
		},
	}, {
		name: "lnd killed", lnd: true, blind: true,
		begin: func(testing.TB) { s.kill() },
		end:   s.start,
	}, {
		name: "lnd stopped", lnd: true, blind: true,
		begin: s.stop,
		end:   s.start,
	}, {
		name: "macaroon revoked", lnd: true, blind: true,
		begin: s.revoke,
		end:   s.reconnect,
		last:  true, // A disk that is full has no room for another one.
	}, {
		name: "certificate expired", lnd: true, blind: true,
		begin: func(t testing.TB) {
			s.stop(t)
			until := s.shortCertificate(t)
			s.start(t)
			time.Sleep(time.Until(until) + time.Second)
		},
		// lnd makes a new one when the old one has expired.
		end: func(t testing.TB) { s.stop(t); s.start(t) },
	}, {
		name: "certificate renewed", lnd: true, blind: true,
		begin: func(t testing.TB) {
			s.stop(t)
			for _, name := range []string{"tls.cert", "tls.key"} {
				if err := os.Remove(filepath.Join(s.dir(), name)); err != nil {
					t.Fatal(err)
				}
			}
		},
		end: s.start,
	}}
}

// certificateLife is longer than lnd takes to start.
const certificateLife = 15 * time.Second

// shortCertificate gives lnd a certificate that ends soon.
func (n *node) shortCertificate(t testing.TB) (until time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	until = time.Now().Add(certificateLife).Truncate(time.Second)
	host, _, _ := net.SplitHostPort(n.rest)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{Organization: []string{"lnd autogenerated cert"}, CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.ParseIP(host)},
	}
	cert, err := x509.CreateCertificate(crand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"tls.cert": {Type: "CERTIFICATE", Bytes: cert}, "tls.key": {Type: "EC PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(n.dir(), name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return until
}
