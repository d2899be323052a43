package lnd

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A runner is a person with a node, the wallet of which satchel backs up.
type runner struct {
	device
	*node
	place   place
	servers []keyServer
	pin     string
	agent   *process
	told    *events
}

// newRunner starts a node, and takes its words and it into a backup in the place, which
// a PIN opens.
func newRunner(t testing.TB, c *chain, p place) *runner {
	t.Helper()
	return newRunnerOn(t, c, p, newDevice(t))
}

// newRunnerOn is newRunner on a device of one's own.
func newRunnerOn(t testing.TB, c *chain, p place, d device) *runner {
	t.Helper()
	r := &runner{device: d, node: newNode(t, c, d.home, "alice"), place: p, pin: "371793"}
	for range 3 {
		r.servers = append(r.servers, startKeyServer(t))
	}
	secrets, args := p.in("--in", []string{strings.Join(r.words, " "), r.pin}, "import", "--kind", "aezeed", "--label", "Node", "--network", "regtest",
		"--unlock", "pin", "--secret-fd", "3", "--new-pin-fd", "4", "--json")
	var made struct{ Protected bool }
	r.satchel(t, secrets, append(args, r.guardians()...)...).json(t, &made)
	if !made.Protected {
		t.Fatal("the new backup is not protected")
	}
	return r
}

// connect takes the node into the backup.
func (r *runner) connectNode(t testing.TB) {
	t.Helper()
	var connected struct {
		Node      string
		Baked     bool
		Protected bool
	}
	r.satchel(t, nil, "lnd", "connect", "--yes", "--json").json(t, &connected)
	if connected.Node != r.id || !connected.Baked || !connected.Protected {
		t.Fatalf("connected %+v, the node is %s", connected, r.id)
	}
}

func (r *runner) guardians() []string {
	var args []string
	for _, s := range r.servers {
		args = append(args, "--guardian", s.name)
	}
	return args
}

// runAgent starts the agent of the runner's device.
func (r *runner) runAgent(t testing.TB) {
	t.Helper()
	r.told = &events{}
	r.agent = listen(t, "satchel agent", r.command(t, nil, "agent", "run", "--json"), r.told.hear)
}

// lndStatus is what "satchel lnd status" says.
type lndStatus struct {
	Node      string
	Channels  int
	Unsaved   []string
	Saved     bool
	Restoring bool
	Error     string
	Code      int
	Older     int
	Protected bool
	Watching  bool
}

// protected waits until satchel says that so many channels are safe.
func (r *runner) protected(t testing.TB, channels int) {
	t.Helper()
	eventually(t, waitLimit, fmt.Sprintf("%d channels are protected", channels), func() error {
		a := r.try(t, nil, "lnd", "status", "--json")
		if a.code != 0 {
			return errors.New(a.String())
		}
		var s lndStatus
		a.json(t, &s)
		if s.Channels != channels {
			return fmt.Errorf("satchel knows %d channels", s.Channels)
		}
		return nil
	})
}

// found returns the channels that the channel backup knows which another device finds in
// the place.
func (r *runner) found(t testing.TB) []string {
	t.Helper()
	secrets, args := r.place.in("--from", []string{r.pin}, "restore", "--preview", "--json", "--pin-fd", "3")
	args = append(args, r.guardians()...)
	other := newDevice(t)
	var scb []byte
	// An agent goes on, so that what the place holds may change between two looks.
	eventually(t, waitLimit, "the place holds the newest channel backup", func() error {
		a := other.try(t, secrets, args...)
		if a.code != 0 {
			return errors.New(a.String())
		}
		var seen struct {
			Items []struct{ Name, SHA256 string }
		}
		a.json(t, &seen)
		scb = r.satchel(t, nil, "get", "lightning/scb").out
		sum := fmt.Sprintf("%x", sha256.Sum256(scb))
		if !slices.ContainsFunc(seen.Items, func(i struct{ Name, SHA256 string }) bool { return i.Name == "lightning/scb" && i.SHA256 == sum }) {
			return errors.New("it has another one than this device")
		}
		return nil
	})
	var known struct {
		Points []string `json:"chan_points"`
	}
	r.must(t, "POST", "/v1/channels/backup/verify", map[string]any{"multi_chan_backup": map[string]any{"multi_chan_backup": scb}}, &known)
	return known.Points
}

// lose ends all that runs on the runner's device as a power cut does, and destroys it.
func (r *runner) lose(t testing.TB) {
	t.Helper()
	r.agent.kill()
	r.kill()
	r.wipe(t)
	if err := os.RemoveAll(r.data()); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(r.device.home)
	if err != nil || len(left) > 0 {
		t.Fatalf("%v is left of the device, %v", left, err)
	}
}

// bringBack restores the node where nothing is, with the PIN, while blocks go on; and
// returns what satchel told.
func (r *runner) bringBack(t testing.TB, meanwhile func(e restoreEvent), more ...string) []restoreEvent {
	t.Helper()
	old := r.node
	r.node = installNode(t, old.chain, r.device.home, old.name)
	r.run(t)
	secrets, args := r.place.in("--from", []string{r.pin, r.password}, "lnd", "restore", "--yes", "--json", "--pin-fd", "3", "--lnd-password-fd", "4")
	var mu sync.Mutex
	var told []restoreEvent
	restore := listen(t, "satchel lnd restore", r.command(t, secrets, slices.Concat(args, r.guardians(), more)...), func(line string) {
		var e restoreEvent
		if json.Unmarshal([]byte(line), &e) != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		told = append(told, e)
	})
	seen := 0
	eventually(t, restoreLimit, "the node is restored", func() error {
		mu.Lock()
		next := told[seen:]
		mu.Unlock()
		for _, e := range next {
			seen++
			meanwhile(e)
		}
		if restore.ended() {
			return nil
		}
		r.chain.mine(t, 1)
		time.Sleep(blockTime)
		return errors.New("it goes on")
	})
	if restore.err != nil {
		t.Fatal(restore.alive())
	}
	r.keepPassword(t)
	r.serving(t)
	if r.id != old.id {
		t.Fatalf("the restored node is %s, want %s", r.id, old.id)
	}
	return told
}

// keepPassword has the next start open the wallet by itself.
func (r *runner) keepPassword(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(r.passwordPath(), []byte(r.password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

const (
	restoreLimit = 5 * time.Minute
	blockTime    = 300 * time.Millisecond // while something is waited for
)

// A restoreEvent is one that "satchel lnd restore --json" told.
type restoreEvent struct {
	Event    string
	Node     string
	Channels *int
	Peer     string
	Swept    int64
	Waiting  int
	Error    string
	Code     int
}
