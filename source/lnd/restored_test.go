package lnd_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/fakelnd"
	"github.com/satchel-backup/satchel/source/lnd"
)

// giveBack is what a restore does: lnd was wiped, and knows channels from a backup only.
func (w *world) giveBack(points ...string) {
	for _, p := range points {
		w.fake.Quietly(fakelnd.Channel{Point: p, State: fakelnd.Closing, Restored: true})
	}
}

// wantWhole fails the test unless the newest backup is one that lnd can restore from, and
// each of these channels can be restored from what is kept.
func (w *world) wantWhole(newest bool, points ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if less := fakelnd.Less(w.items[lnd.ItemBackup]); newest && len(less) > 0 {
		w.t.Errorf("the newest backup holds %s as lnd exports it after a restore", brief(less))
	}
	whole := wholeIn(w.items)
	for _, p := range points {
		if !whole[p] {
			w.t.Errorf("%s can be restored from nothing that is kept", brief([]string{p}))
		}
	}
}

// wholeIn are the channels that lnd can restore from what is kept.
func wholeIn(items map[string][]byte) map[string]bool {
	whole := map[string]bool{}
	for name, value := range items {
		if !strings.HasPrefix(name, lnd.ItemBackup) {
			continue
		}
		less := fakelnd.Less(value)
		_, points := fakelnd.Unseal(value)
		for _, p := range points {
			// lnd ends at the first channel that it cannot restore.
			whole[p] = whole[p] || len(less) == 0
		}
	}
	for _, s := range lnd.ReadSingles(items[lnd.ItemSingles]) {
		whole[s.Channel] = whole[s.Channel] || len(fakelnd.Less(s.Backup)) == 0
	}
	return whole
}

// R21: while lnd knows a channel from a backup only, that backup stays the newest; the
// lesser one that lnd exports takes the place of nothing.
func TestRestored(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.run()
		w.wait(time.Minute)
		before := bytes.Clone(w.items[lnd.ItemBackup])
		w.stop()
		w.saves()
		w.giveBack(points...)
		for range 2 { // An agent that starts beside it, which has what was kept, and once more.
			w.run()
			w.wait(2 * lnd.Reexport)
			w.want(points)
			w.stop()
		}
		for _, call := range w.saves() {
			for _, c := range call {
				if strings.HasPrefix(c.Name, lnd.ItemBackup) {
					t.Errorf("%s was saved", c.Name)
				}
			}
		}
		if !bytes.Equal(w.items[lnd.ItemBackup], before) {
			t.Error("the newest backup is another one")
		}
		if err := w.source().Once(w.t.Context(), w.save); err != nil {
			t.Error(err)
		}
		w.want(points)

		// One is closed by its peer, and its money comes back; then the other.
		w.run()
		w.fake.Change(fakelnd.Channel{Point: points[0], State: fakelnd.Forced})
		w.wait(time.Minute)
		w.wantWhole(true, points...)
		w.fake.Change(fakelnd.Channel{Point: points[0], State: fakelnd.Closed})
		w.wait(lnd.Reexport)
		w.wantWhole(true, points[1])
		w.fake.Change(fakelnd.Channel{Point: points[1], State: fakelnd.Closed})
		w.wait(lnd.Reexport)
		w.want(nil)
		if err := w.state(); err != nil {
			t.Errorf("got %v", err)
		}
	})
}

// R21: a channel that is opened while others wait to be closed is saved at once, in a
// backup that lnd cannot restore from, and so by itself too.
func TestRestoredAndNew(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.run()
		w.wait(time.Minute)
		w.giveBack(points...)
		w.fake.HangUp()
		w.wait(time.Minute)
		w.saves()
		c := w.fake.AddChannel()
		w.wait(0)
		all := append(slices.Clone(points), c)
		w.want(all, points)
		w.wantWhole(false, all...)
		for range 3 {
			w.failing(2, false)
			d := w.fake.AddChannel()
			w.wait(time.Minute)
			all = append(all, d)
			w.want(all, points)
			w.wantWhole(false, all...)
			w.stop()
			w.run()
			w.wait(time.Minute)
			w.want(all, points)
			w.wantWhole(false, all...)
		}
		// The new ones end: what is left is as before.
		for _, p := range all[2:] {
			w.fake.Change(fakelnd.Channel{Point: p, State: fakelnd.Closed})
		}
		w.wait(lnd.Reexport)
		w.want(points)
		w.wantWhole(true, points...)
		// A new one again, and the old ones end.
		d := w.fake.AddChannel()
		w.wait(0)
		w.fake.Change(fakelnd.Channel{Point: points[0], State: fakelnd.Closed}, fakelnd.Channel{Point: points[1], State: fakelnd.Closed})
		w.wait(lnd.Reexport)
		w.want([]string{d})
		w.wantWhole(true, d)
		if _, ok := w.items[lnd.ItemSingles]; ok {
			t.Error("backups of single channels are still kept")
		}
	})
}

// R21: where lnd does not say which channels it knows from a backup only, all is kept, and
// what is too much goes when it says so.
func TestRestoredUnknown(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.run()
		w.wait(time.Minute)
		w.stop()
		w.giveBack(points...)
		w.fake.Fail("/v1/channels/pending", fakelnd.Fail)
		w.run()
		w.wait(time.Minute)
		w.wantWhole(false, points...)
		w.stop()
		w.run() // That it was not known is not forgotten.
		w.wait(lnd.Reexport)
		w.wantWhole(false, points...)
		w.fake.Fail("/v1/channels/pending", fakelnd.None)
		w.wait(2 * lnd.Reexport)
		w.want(points)
		w.wantWhole(true, points...)
	})
}

// R21: the file that lnd writes after a restore is as little as what it exports.
func TestRestoredFile(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.write(w.fake.Backup())
		w.run()
		w.wait(time.Minute)
		w.stop()
		w.giveBack(points...)
		w.fake.Set("LOCKED")
		for range 3 {
			w.write(w.fake.Backup())
			w.run()
			w.wait(time.Minute)
			w.wantWhole(false, points...)
			w.stop()
		}
		w.fake.Set("SERVER_ACTIVE")
		w.run()
		w.wait(2 * lnd.Reexport)
		w.want(points)
		w.wantWhole(true, points...)
		// It goes on, and lnd is away again when a channel is opened.
		w.fake.Set("LOCKED")
		w.wait(time.Minute)
		c := fakelnd.Channel{Point: fakelnd.NewPoint(), Peer: fakelnd.NewPubKey(), State: fakelnd.Open}
		w.fake.Quietly(c)
		w.write(w.fake.Backup())
		w.wait(time.Minute)
		w.fake.Set("SERVER_ACTIVE")
		w.wait(2 * lnd.Reexport)
		all := append(slices.Clone(points), c.Point)
		w.want(all, points)
		w.wantWhole(false, all...)
	})
	// The backup from before is one that was read from the file, too, and is not known to lnd
	// yet: the agent looked at it while lnd was away.
	try(t, func(w *world, points []string) {
		w.run()
		w.wait(time.Minute)
		w.fake.Set("LOCKED")
		c := fakelnd.Channel{Point: fakelnd.NewPoint(), Peer: fakelnd.NewPubKey(), State: fakelnd.Open}
		w.fake.Quietly(c)
		w.write(w.fake.Backup())
		w.wait(time.Minute)
		all := append(slices.Clone(points), c.Point)
		w.stop()
		w.giveBack(all...)
		w.fake.Set("SERVER_ACTIVE")
		for range 2 {
			w.run()
			w.wait(lnd.Reexport)
			w.wantWhole(true, all...)
			w.stop()
		}
	})
}

// R21: an earlier satchel knew nothing of it, and what it kept is not taken for less.
func TestRestoredEarlierSatchel(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.run()
		w.wait(time.Minute)
		w.stop()
		w.items[lnd.ItemChannels] = bytes.ReplaceAll(w.items[lnd.ItemChannels], []byte(`,"restored":[]`), nil)
		w.giveBack(points...)
		for range 2 {
			w.run()
			w.wait(2 * lnd.Reexport)
			w.wantWhole(true, points...)
			w.fake.AddChannel()
			w.wait(time.Minute)
			w.wantWhole(false, points...)
			w.fake.Change(fakelnd.Channel{Point: w.fake.Channels(fakelnd.Open)[0], State: fakelnd.Closed})
			w.stop()
		}
	})
}

// R21: a peer closes a channel between the export and the question which ones were
// restored, and that no longer shows.
func TestRestoredRace(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.run()
		w.wait(time.Minute)
		w.stop()
		w.giveBack(points[0])
		w.fake.Fail("/v1/channels/backup", fakelnd.Late)
		w.run()
		w.wait(time.Second)
		w.fake.Fail("/v1/channels/backup", fakelnd.None)
		w.fake.Quietly(fakelnd.Channel{Point: points[0], State: fakelnd.Forced}) // While the export is on its way.
		w.wait(lnd.Reexport)
		w.wantWhole(true, points...)
	})
}

// R21: a channel that stands beside a restored one, and was in a backup before that, can be
// had from that one alone.
func TestRestoredBeside(t *testing.T) {
	try(t, func(w *world, points []string) {
		w.run()
		w.wait(time.Minute)
		w.giveBack(points[1])
		w.fake.HangUp()
		w.wait(time.Minute)
		c := w.fake.AddChannel()
		w.wait(0)
		w.fake.Quietly(fakelnd.Channel{Point: points[1], State: fakelnd.Closed})
		w.fake.Change(fakelnd.Channel{Point: points[0], State: fakelnd.Forced})
		w.wait(lnd.Reexport)
		w.wantWhole(true, points[0], c)
	})
}
