package lnd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A node is lost a second time, while a peer is away and its restore waits for it. An agent
// ran beside that restore, and the node had opened a channel with somebody else: all of it
// comes back.
func TestLostTwice(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	r := newRunner(t, c, folderPlace(t))
	bob, carol := newNode(t, c, t.TempDir(), "bob"), newNode(t, c, t.TempDir(), "carol")
	r.fund(t, 10_000_000)
	r.connectNode(t)
	r.runAgent(t)
	r.connect(t, bob)
	first := r.newChannel(t, bob, 1_000_000, 200_000)
	r.pay(t, bob, 12_345)
	r.protected(t, 1)
	inChannels := map[string]int64{}
	ch, _ := r.channel(t, first)
	inChannels[first] = int64(ch.Local)
	r.agent.term(t)
	before := r.satchel(t, nil, "get", "lightning/scb").out
	bob.stop(t)
	r.lose(t)

	r.bringBackUntilWaiting(t, "--recovery-window", "100")
	if flags := r.flags(t)[first]; !strings.Contains(flags, "ChanStatusRestored") {
		t.Errorf("lnd says of the channel that it was given back %q", flags)
	}
	lesser := r.backup(t)
	if len(lesser) >= len(before) {
		t.Errorf("lnd exports %d bytes of a restored channel, and %d before: the rest shows nothing", len(lesser), len(before))
	}
	// A wallet that has no backup from before would keep no more than that.
	stranger := newDevice(t)
	stranger.satchel(t, nil, "create", "--in", folderPlace(t).address, "--unlock", "recovery-code", "--network", "regtest", "--json")
	if a := stranger.try(t, nil, "lnd", "connect", "--dir", r.dir(), "--yes", "--json"); a.code != 1 || !strings.Contains(a.errs, "is being restored") {
		t.Errorf("a node that is being restored was taken in: %s", a)
	}
	r.runAgent(t)
	status := r.waits(t, 1)
	if status.Older != 0 {
		t.Errorf("got %+v, want the backup of before as the newest", status)
	}
	if got := r.satchel(t, nil, "get", "lightning/scb").out; !bytes.Equal(got, before) {
		t.Errorf("the newest backup has %d bytes, and is not the one of %d from before", len(got), len(before))
	}
	// A restart makes lnd write its file, and the agent ask for everything.
	r.keepPassword(t)
	r.stop(t)
	r.start(t)
	r.waits(t, 1)

	r.connect(t, carol)
	second := r.newChannel(t, carol, 900_000, 100_000)
	r.waits(t, 2)
	// lnd's file, which the agent reads as long as lnd does not answer it, does not say which
	// of its channels can be restored from it.
	eventually(t, waitLimit, "the new channel is kept by itself, too", func() error {
		items := string(r.satchel(t, nil, "items").out)
		if !strings.Contains(items, "lightning/singles") || strings.Count(items, "lightning/scb/") != 1 {
			return errors.New(items)
		}
		return nil
	})
	ch, _ = r.channel(t, second)
	inChannels[second] = int64(ch.Local)
	inWallet, height := r.confirmed(t), c.height(t)
	carol.stop(t)
	r.lose(t)

	away := true
	told := r.bringBack(t, func(e restoreEvent) {
		if e.Event == "progress" && e.Waiting == 2 && away {
			away = false
			bob.start(t)
			carol.start(t)
		}
	}, "--recovery-window", "100")
	if away {
		t.Error("satchel did not say that two channels wait for their peers")
	}
	for _, e := range told {
		if e.Event == "backup refused" {
			t.Errorf("lnd was given what it cannot restore from: %+v", e)
		}
	}
	r.count(t, height, inWallet, inChannels)
	r.closedByPeer(t, first, second)

	// Nobody follows the restore any more: an agent ends it.
	r.runAgent(t)
	eventually(t, waitLimit, "the restore is at its end", func() error {
		s, err := r.status(t)
		if err == nil && s.Restoring {
			err = fmt.Errorf("got %+v", s)
		}
		return err
	})
}

// bringBackUntilWaiting restores the node where nothing is, and stops to follow when all
// that is left to do is done by peers.
func (r *runner) bringBackUntilWaiting(t testing.TB, more ...string) {
	t.Helper()
	old := r.node
	r.node = installNode(t, old.chain, r.device.home, old.name)
	r.run(t)
	secrets, args := r.place.in("--from", []string{r.pin, r.password}, "lnd", "restore", "--yes", "--json", "--pin-fd", "3", "--lnd-password-fd", "4")
	var waits atomic.Bool
	restore := listen(t, "satchel lnd restore", r.command(t, secrets, slices.Concat(args, r.guardians(), more)...), func(line string) {
		var e restoreEvent
		if json.Unmarshal([]byte(line), &e) == nil && e.Event == "progress" && e.Waiting > 0 {
			waits.Store(true)
		}
	})
	eventually(t, restoreLimit, "the restore waits for a peer", func() error {
		if waits.Load() {
			return nil
		}
		if restore.ended() {
			t.Fatal(restore.alive())
		}
		r.chain.mine(t, 1)
		time.Sleep(blockTime)
		return errors.New("it does not")
	})
	restore.term(t)
	r.serving(t)
	r.synced(t)
}

// status is what "satchel lnd status" says, if all is well.
func (r *runner) status(t testing.TB) (s lndStatus, err error) {
	t.Helper()
	a := r.try(t, nil, "lnd", "status", "--json")
	if a.code != 0 {
		return s, errors.New(a.String())
	}
	a.json(t, &s)
	return s, nil
}

// waits waits until satchel says that a restore goes on and so many channels are safe.
func (r *runner) waits(t testing.TB, channels int) (s lndStatus) {
	t.Helper()
	eventually(t, waitLimit, fmt.Sprintf("%d channels are safe beside a restore", channels), func() (err error) {
		s, err = r.status(t)
		if err == nil && (!s.Restoring || !s.Saved || !s.Protected || s.Channels != channels) {
			err = fmt.Errorf("got %+v", s)
		}
		return err
	})
	return s
}

// flags are what lnd says of the channels that wait for an end.
func (n *node) flags(t testing.TB) map[string]string {
	t.Helper()
	var pending struct {
		Waiting []struct {
			Channel struct {
				Point string `json:"channel_point"`
				Flags string `json:"chan_status_flags"`
			}
		} `json:"waiting_close_channels"`
	}
	n.must(t, "GET", "/v1/channels/pending", nil, &pending)
	flags := map[string]string{}
	for _, w := range pending.Waiting {
		flags[w.Channel.Point] = w.Channel.Flags
	}
	return flags
}
