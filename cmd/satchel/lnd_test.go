//go:build unix

package main

import (
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/satchel-backup/satchel/internal/fakelnd"
)

// lndNode runs a fake node on the person's machine, with its directory where lnd has it.
func (p *person) lndNode() *fakelnd.Node {
	p.t.Helper()
	node := fakelnd.New("regtest")
	srv := httptest.NewTLSServer(node)
	p.t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	dir := filepath.Join(p.dir, ".lnd")
	if err := os.MkdirAll(filepath.Dir(p.adminMacaroon()), 0o700); err != nil {
		p.t.Fatal(err)
	}
	writeFile(p.t, filepath.Join(dir, "lnd.conf"), "[Bitcoin]\nbitcoin.regtest=true\nrestlisten="+srv.Listener.Addr().String()+"\n")
	writeFile(p.t, filepath.Join(dir, "tls.cert"), string(cert))
	p.keepAdmin(node)
	return node
}

// adminMacaroon is where lnd keeps the macaroon that may do all.
func (p *person) adminMacaroon() string {
	return filepath.Join(p.dir, ".lnd", "data", "chain", "bitcoin", "regtest", "admin.macaroon")
}

func (p *person) keepAdmin(node *fakelnd.Node) {
	p.t.Helper()
	writeFile(p.t, p.adminMacaroon(), string(node.Admin()))
}

// with runs satchel with secrets on the file descriptors 3, 4 and so on.
func (p *person) with(code int, secrets []string, args ...string) string {
	p.t.Helper()
	path, err := exec.LookPath("satchel")
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.CommandContext(p.t.Context(), path, args...)
	cmd.Env = p.env()
	for i, s := range secrets {
		name := filepath.Join(p.t.TempDir(), fmt.Sprint(i))
		writeFile(p.t, name, s+"\n")
		f, err := os.Open(name)
		if err != nil {
			p.t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		p.t.Fatalf("satchel %v: %v, want code %d: %s", args, err, code, out)
	}
	return string(out)
}

// last decodes the last JSON object of an output.
func last(t *testing.T, out string) map[string]any {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var v map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &v); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return v
}

// A node is taken in with a macaroon that may read and nothing else, its channels are
// saved, and every status tells the truth about it.
func TestLND(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	if out := p.does(1, "lnd", "connect", "--json", "--yes"); !strings.Contains(out, "import --kind aezeed") || !strings.Contains(out, "satchel create") {
		t.Errorf("the two ways are not told: %s", out)
	}
	p.does(0, "create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--json", "--network", "regtest")
	p.does(1, "lnd", "connect", "--json", "--yes") // There is no lnd.
	p.does(1, "lnd", "status")
	node := p.lndNode()
	first := node.AddChannel()

	if out := p.does(2, "lnd", "connect", "--json"); !strings.Contains(out, "--yes") {
		t.Errorf("got %s", out)
	}
	if got := len(node.Macaroons()); got != 1 {
		t.Errorf("there are %d macaroons, want 1: nobody said yes", got)
	}
	node.Set("LOCKED")
	if out := p.does(27, "lnd", "connect", "--json", "--yes"); !strings.Contains(out, "lncli unlock") {
		t.Errorf("got %s", out)
	}
	node.Set("SERVER_ACTIVE")

	out := last(t, p.does(0, "lnd", "connect", "--json", "--yes"))
	if out["protected"] != true || out["baked"] != true || out["channels"] != 1.0 || out["node"] != node.PubKey {
		t.Errorf("got %v", out)
	}
	if got := p.does(0, "items"); !strings.Contains(got, "lightning/scb") || !strings.Contains(got, "lightning/node") || !strings.Contains(got, "lightning/peers") {
		t.Errorf("got %s", got)
	}
	// Nothing that spends is kept, and what is kept is sealed.
	admin, err := os.ReadFile(p.adminMacaroon())
	if err != nil {
		t.Fatal(err)
	}
	for _, mac := range append(node.Macaroons(), admin) {
		for _, text := range []string{string(mac), hex.EncodeToString(mac)} {
			if path := holdsText(t, filepath.Join(p.dir, "device"), text); path != "" {
				t.Errorf("%s holds a macaroon in clear", path)
			}
		}
	}

	if out := last(t, p.does(0, "lnd", "status", "--json")); out["saved"] != true || out["channels"] != 1.0 || out["watching"] != false {
		t.Errorf("got %v", out)
	}
	if out := p.does(0, "status"); !strings.Contains(out, "1 channel, all in the backup") || !strings.Contains(out, "neither an agent") {
		t.Errorf("got %s", out)
	}

	// A channel that is not saved shows everywhere.
	second := node.AddChannel()
	if out := last(t, p.does(3, "lnd", "status", "--json")); out["saved"] != false || fmt.Sprint(out["unsaved"]) != "["+second+"]" {
		t.Errorf("got %v", out)
	}
	if out := p.does(3, "status"); !strings.Contains(out, "1 NOT SAVED") {
		t.Errorf("got %s", out)
	}
	p.does(3, "watch", "--list")
	p.does(0, "watch", "--once")
	p.does(0, "status")
	scb := p.does(0, "get", "lightning/scb")
	if _, points := fakelnd.Unseal([]byte(scb)); !slices.Equal(points, []string{first, second}) {
		t.Errorf("got %v", points)
	}

	// So does a node that cannot be asked.
	node.Set("LOCKED")
	for _, args := range [][]string{{"status"}, {"lnd", "status"}, {"watch", "--list"}, {"watch", "--once"}} {
		if out := p.does(3, args...); !strings.Contains(out, "locked") {
			t.Errorf("%v: got %s", args, out)
		}
	}
	node.Set("SERVER_ACTIVE")
	if out := p.does(0, "status"); !strings.Contains(out, "2 channels") {
		t.Errorf("got %s", out)
	}

	// Another node at its address is not taken for it.
	was := node.PubKey
	node.Become(fakelnd.NewPubKey(), "regtest")
	for _, args := range [][]string{{"status"}, {"watch", "--once"}} {
		if out := p.does(3, args...); !strings.Contains(out, "another node") {
			t.Errorf("%v: got %s", args, out)
		}
	}
	if out := p.does(21, "lnd", "connect", "--json", "--yes"); !strings.Contains(out, "another node") {
		t.Errorf("got %s", out)
	}
	node.Become(was, "mainnet")
	if out := p.does(21, "lnd", "connect", "--json", "--yes"); !strings.Contains(out, "mainnet") {
		t.Errorf("got %s", out)
	}
	node.Become(was, "regtest")
	for _, c := range []string{first, second} {
		node.Change(fakelnd.Channel{Point: c, State: fakelnd.Open, Peer: fakelnd.NewPubKey()})
	}
	p.does(0, "status")

	// Letting go of it.
	if out := last(t, p.does(0, "lnd", "disconnect", "--yes", "--json")); out["revoked"] != true {
		t.Errorf("got %v", out)
	}
	if got := len(node.Macaroons()); got != 1 {
		t.Errorf("%d macaroons are left, want 1", got)
	}
	p.does(1, "lnd", "status")
	if out := p.does(0, "status"); strings.Contains(out, "Lightning") {
		t.Errorf("got %s", out)
	}
	if got := p.does(0, "get", "lightning/scb"); got != scb {
		t.Error("what was saved is gone")
	}
}

// holdsText returns the path of a file that holds a text, or "".
func holdsText(t *testing.T, dir, text string) (found string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), text) {
			found = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A macaroon that is made for Satchel is taken as it is; one that lacks something is told
// what.
func TestLNDMacaroon(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.does(0, "create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--json", "--network", "regtest")
	node := p.lndNode()
	if err := os.Remove(p.adminMacaroon()); err != nil {
		t.Fatal(err)
	}
	if out := p.does(1, "lnd", "connect", "--json", "--yes"); !strings.Contains(out, "lncli bakemacaroon") {
		t.Errorf("got %s", out)
	}
	mac := filepath.Join(p.dir, "satchel.macaroon")
	writeFile(t, mac, string(node.Macaroon(7, fakelnd.Permission{Entity: "offchain", Action: "read"})))
	if out := p.does(24, "lnd", "connect", "--json", "--macaroon-file", mac); !strings.Contains(out, "info:read") || !strings.Contains(out, "peers:read") || strings.Contains(out, "offchain:read,") {
		t.Errorf("got %s", out)
	}
	writeFile(t, mac, string(node.Macaroon(7, fakelnd.Permission{Entity: "offchain", Action: "read"}, fakelnd.Permission{Entity: "info", Action: "read"}, fakelnd.Permission{Entity: "peers", Action: "read"})))
	if out := last(t, p.does(0, "lnd", "connect", "--json", "--macaroon-file", mac)); out["baked"] != false || out["protected"] != true || len(out["beyond"].([]any)) > 0 {
		t.Errorf("got %v", out)
	}
	if out := p.does(0, "lnd", "connect", "--macaroon-file", mac); strings.Contains(out, "more than Satchel needs") {
		t.Errorf("got %s", out)
	}
	// One that may do more and makes no other is taken, and that is said.
	broad := filepath.Join(p.dir, "broad.macaroon")
	writeFile(t, broad, string(node.Macaroon(8, fakelnd.Permission{Entity: "offchain", Action: "read"}, fakelnd.Permission{Entity: "onchain", Action: "write"}, fakelnd.Permission{Entity: "info", Action: "read"}, fakelnd.Permission{Entity: "peers", Action: "read"})))
	if out := p.does(0, "lnd", "connect", "--macaroon-file", broad); !strings.Contains(out, "more than Satchel needs: onchain:write.") || !strings.Contains(out, "bakemacaroon --save_to") {
		t.Errorf("got %s", out)
	}
	p.does(0, "lnd", "connect", "--json", "--macaroon-file", mac)
	// One that was revoked.
	node.Revoke(7)
	if out := p.does(3, "status"); !strings.Contains(out, "refuses the macaroon") {
		t.Errorf("got %s", out)
	}
	if out := p.does(24, "lnd", "connect", "--json", "--macaroon-file", mac); !strings.Contains(out, "refuses the macaroon") {
		t.Errorf("got %s", out)
	}
	p.keepAdmin(node)
	p.does(0, "lnd", "connect", "--json", "--yes")
	p.does(0, "status")
}

// A wallet on another network than the node: both are named, and what to do about either.
// Where there are several wallets, the node of one tells it from the others.
func TestLNDOtherNetwork(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	place := filepath.Join(p.dir, "elsewhere")
	p.does(0, "create", "--in", place, "--unlock", "recovery-code", "--json")
	node := p.lndNode()
	if out := p.does(21, "lnd", "connect", "--yes"); !strings.Contains(out, "on regtest, the wallet Wallet-") || !strings.Contains(out, "satchel create --network regtest`, and") || !strings.Contains(out, "nothing was written") {
		t.Errorf("got %s", out)
	}
	p.does(0, "create", "--in", place, "--unlock", "recovery-code", "--json", "--network", "regtest", "--label", "Node", "--new")
	p.does(0, "lnd", "connect", "--json", "--yes", "--wallet", "Node")
	if out := p.does(2, "lnd", "status"); !strings.Contains(out, "lnd "+node.PubKey[:12]+"…)") || !strings.Contains(out, "(mainnet, fingerprint") {
		t.Errorf("got %s", out)
	}
}

// On a terminal it says what it needs and why, and asks.
func TestLNDTerminal(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.does(0, "create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--json", "--network", "regtest")
	node := p.lndNode()
	node.AddChannel()
	p.run("lnd", "connect")
	p.expect(`offchain:read\s+the channel backup`)
	p.expect(`admin\.macaroon`)
	p.answer(`Have lnd make it\? \[Y/n\]`, "n")
	p.expect("nothing was done")
	p.ends(1)
	p.run("lnd", "connect")
	p.answer(`Have lnd make it\?`, "")
	p.expect(`Channels\s+1`)
	p.expect(`Protected\s+yes`)
	// Connecting and status speak of the same generation: the one that brought the backup.
	generation := p.expect(`of generation (\d+)`)[1]
	p.ends(0)
	p.does(0, "put", "settings", filepath.Join(p.dir, ".lnd", "lnd.conf"))
	if out := p.does(0, "lnd", "status"); !strings.Contains(out, "of generation "+generation+", protected") {
		t.Errorf("want generation %s: %s", generation, out)
	}
	p.run("lnd", "connect")
	p.answer(`Have lnd make it\?`, "")
	p.expect("of generation " + generation + `\s`)
	p.ends(0)
}

// A satchel watch saves each channel at once, goes on after lnd was away, and takes in a
// node that is connected while it runs.
func TestLNDWatch(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.does(0, "create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--json", "--network", "regtest")
	node := p.lndNode()
	w := p.watch()
	w.sees("watching", "")
	p.does(0, "lnd", "connect", "--json", "--yes")
	w.sees("watching", "")
	w.sees("node", "")
	point := node.AddChannel()
	w.sees("saved", "lightning/scb")
	if _, points := fakelnd.Unseal([]byte(p.does(0, "get", "lightning/scb"))); !slices.Equal(points, []string{point}) {
		t.Errorf("got %v", points)
	}
	if out := p.does(0, "status"); !strings.Contains(out, "1 channel, all in the backup") || strings.Contains(out, "neither an agent") {
		t.Errorf("got %s", out)
	}
	node.HangUp()
	if e := w.sees("node", ""); e.Error == "" {
		t.Errorf("got %+v", e)
	}
	node.AddChannel()
	w.sees("saved", "lightning/scb")
	w.ends(syscall.SIGTERM, 0)
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A wallet with the keys of a node says that the channels are not saved while no node is
// connected, and does not count it as a fault: there may be none.
func TestLNDNotConnected(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.with(0, []string{nodeWords}, "import", "--kind", "aezeed", "--in", p.place(), "--unlock", "recovery-code", "--json", "--network", "regtest", "--secret-fd", "3")
	says := func(want string, kept any) {
		t.Helper()
		out := strings.Join(strings.Fields(p.does(0, "status")), " ")
		if !strings.Contains(out, want) || strings.Contains(out, "in the backup; ") || strings.Contains(out, "neither an agent") {
			t.Errorf("no %q in %s", want, out)
		}
		if now := last(t, p.does(0, "status", "--json"))["lnd"].(map[string]any); now["unconnected"] != true || now["saved"] != false || now["kept"] != kept {
			t.Errorf("got %v", now)
		}
	}
	says("Lightning the channels of the node are not in the backup yet: `satchel lnd connect`", nil)
	p.lndNode().AddChannel()
	p.does(0, "lnd", "connect", "--json", "--yes")
	if out := p.does(0, "status"); !strings.Contains(out, "1 channel, all in the backup") || strings.Contains(out, "connect") {
		t.Errorf("got %s", out)
	}
	p.does(0, "lnd", "disconnect", "--json", "--yes")
	says("Lightning no node is connected, so channels that open now are not saved: `satchel lnd connect`", true)
}
