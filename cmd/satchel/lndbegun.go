package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/source/lnd"
)

// lndBegun is watch/<name>.restore.json in the home: the last restore of a wallet's node. It
// is written before lnd is changed, so that one that is cut short is known and goes on;
// lost, the restore goes on too, and asks for the secret again.
type lndBegun struct {
	Node    string    `json:"node,omitempty"` // its public key, if the backup says so
	Network string    `json:"network"`
	Begun   time.Time `json:"begun"`
	// Here says that the places were looked through, and that this device holds all that
	// they do; Handed that lnd was given it. Who goes on need not look again.
	Here   bool `json:"here,omitempty"`
	Handed bool `json:"handed,omitempty"`
	// Channels are those that lnd was given a backup of: txid:index, sorted.
	Channels []string `json:"channels,omitempty"`
	Ended    bool     `json:"ended,omitempty"` // all of them are closed
}

// of reports whether a channel is one of this restore. Without a record all are.
func (b *lndBegun) of(point string) bool {
	return b == nil || len(b.Channels) == 0 || slices.Contains(b.Channels, point)
}

// errLNDBegun says that a restore of a node was cut short before the node was taken in.
var errLNDBegun = errors.New("the restore of this Lightning node was cut short")

func (a *app) lndBegunPath(name string) string {
	home, _ := a.home() // There is one where there is a wallet.
	return filepath.Join(home, "watch", name+".restore.json")
}

// lndBegun reads the record of a restore that is not at its end, nil if there is none.
func (a *app) lndBegun(name string) *lndBegun {
	if b := a.lndLast(name); b != nil && !b.Ended {
		return b
	}
	return nil
}

// lndLast reads the record of the last restore, nil if there is none that can be read: it
// is made anew then.
func (a *app) lndLast(name string) *lndBegun {
	data, err := durable.Disk{}.ReadFile(a.lndBegunPath(name), maxWatchRecord)
	if err != nil {
		return nil
	}
	var b lndBegun
	if json.Unmarshal(data, &b) != nil {
		return nil
	}
	return &b
}

func (a *app) keepLNDBegun(name string, b lndBegun) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if _, err := (&watch{app: a, name: name}).dir(); err != nil {
		return err
	}
	return durable.Disk{}.WriteFile(a.lndBegunPath(name), append(data, '\n'), 0o600)
}

func (a *app) forgetLNDBegun(name string) error {
	if err := os.Remove(a.lndBegunPath(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// endLNDRestore takes note that the restore of a wallet's node is at its end.
func (w *watch) endLNDRestore(ctx context.Context) error {
	err := w.change(ctx, func(rec *watchRecord) error {
		if rec.LND != nil && rec.LND.Restoring {
			next := *rec.LND // What was read before the change is compared with it.
			next.Restoring = false
			rec.LND = &next
		}
		return nil
	})
	if err != nil {
		return err
	}
	if b := w.app.lndBegun(w.name); b != nil {
		b.Ended = true
		return w.app.keepLNDBegun(w.name, *b)
	}
	return nil
}

// lndEndEvery is how often an agent looks whether a restore is at its end.
const lndEndEvery = time.Minute

// awaitLNDRestore takes note of the end of a restore beside which an agent runs, so that
// nobody has to look at it.
func (w *watch) awaitLNDRestore(ctx context.Context, rec lndRecord) {
	for {
		if w.lndRestoreEnded(ctx, rec) {
			if err := w.endLNDRestore(ctx); err == nil {
				w.event(eventJSON{Time: w.app.now(), Event: "node"}, "the restore of lnd is at its end: all its channels are closed")
				return
			}
		}
		select {
		case <-time.After(lndEndEvery):
		case <-ctx.Done():
			return
		}
	}
}

func (w *watch) lndRestoreEnded(ctx context.Context, rec lndRecord) bool {
	cfg, err := w.app.lndConfig(rec)
	if err != nil {
		return false // It is the source that says so.
	}
	node, err := lnd.New(cfg)
	if err != nil {
		return false
	}
	defer node.Close()
	p, err := lndAskRestore(ctx, node, w.app.lndBegun(w.name))
	return err == nil && p.Done
}
