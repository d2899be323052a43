package main

import (
	"context"
	"errors"
	"strings"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/source"
	"github.com/satchel-backup/satchel/source/lnd"
	"github.com/satchel-backup/satchel/wallet"
)

// lightning begins the names of a node's items.
const lightning = "lightning/"

// lndSource is the source of a node's items.
func (w *watch) lndSource(rec lndRecord, b *satchel.Backup) (source.Source, error) {
	return w.app.lndSourceOf(rec, b, func(context.Context) (lnd.Config, error) { return w.app.lndConfig(rec) }, w.lndReport)
}

func (a *app) lndSourceOf(rec lndRecord, b *satchel.Backup, connect func(context.Context) (lnd.Config, error), report func(error)) (*lnd.Source, error) {
	return lnd.NewSource(lnd.SourceConfig{
		Connect: connect, File: rec.Backup, Report: report, Seed: seedKind(b), Now: a.now,
		Kept: func() (map[string][]byte, error) { return keptOfNode(b) },
	})
}

// seedKind is what lnd can make the node's wallet from, if the backup holds that.
func seedKind(b *satchel.Backup) string {
	keys, err := b.Keys()
	if err != nil {
		return ""
	}
	switch keys.Kind() {
	case wallet.KindAezeed:
		return lnd.SeedAezeed
	case wallet.KindXPrv:
		return lnd.SeedXprv
	}
	return ""
}

// keptOfNode returns what is kept of a node.
func keptOfNode(b *satchel.Backup) (map[string][]byte, error) {
	kept := map[string][]byte{}
	for _, i := range b.Items() {
		if !strings.HasPrefix(i.Name, lightning) {
			continue
		}
		value, err := b.Get(i.Name)
		if errors.Is(err, satchel.ErrNoItem) {
			continue // It went meanwhile.
		}
		if err != nil {
			return nil, err
		}
		kept[i.Name] = value.Open()
	}
	return kept, nil
}

// lndReport tells how the node of a wallet stands, whenever that changes.
func (w *watch) lndReport(err error) {
	e := eventJSON{Time: w.app.now(), Event: "node"}
	if err == nil {
		w.event(e, "lnd answers, and all that it said is kept")
		return
	}
	e.Error, e.Code = errorText(err), int(codeOf(err))
	line := "lnd is not watched: " + e.Error
	if errors.Is(err, lnd.ErrLost) {
		line = "LOST: " + e.Error
	}
	if hint := hintFor(err); hint != "" {
		line += "; " + hint
	}
	w.event(e, line)
}

// lndOnce saves what a node has now: its channel backup, and who it and its peers are. A
// node that is not the one that is backed up is an error, and nothing of it is saved.
func (a *app) lndOnce(ctx context.Context, b *satchel.Backup, rec lndRecord, cfg lnd.Config) (changed int, err error) {
	src, err := a.lndSourceOf(rec, b, func(context.Context) (lnd.Config, error) { return cfg, nil }, nil)
	if err != nil {
		return 0, err
	}
	err = src.Once(ctx, func(ctx context.Context, changes ...source.Change) error {
		res, err := agent.Save(ctx, b, changes...)
		changed += res.Changed
		if errors.Is(err, satchel.ErrNotProtected) && ctx.Err() == nil {
			return nil // It is kept; who called says how it stands.
		}
		return err
	})
	return changed, err
}
