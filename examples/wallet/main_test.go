package main

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/satcheltest"
	"github.com/satchel-backup/satchel/secret"
)

func TestJourney(t *testing.T) { satcheltest.Journey(t, app{}) }

// The place and the keychain of the example itself.
func TestFolder(t *testing.T) {
	cfg, err := config(filepath.Join(t.TempDir(), "cloud"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.backup.Close()
	if err := p.label(t.Context(), "Ann"); err != nil {
		t.Fatal(err)
	}
	if st := p.backup.Status(); !st.Protected || p.problem != nil || p.code.Empty() {
		t.Errorf("got protected %v, problem %v", st.Protected, p.problem)
	}
}

type app struct{}

func (app) Start(ctx context.Context, cfg satchel.Config) (satcheltest.Wallet, error) {
	return shown(start(ctx, cfg))
}

func (app) Restore(ctx context.Context, cfg satchel.Config, code secret.Bytes) (satcheltest.Wallet, error) {
	return shown(restorePurse(ctx, cfg, code))
}

func shown(p *purse, err error) (satcheltest.Wallet, error) {
	if p == nil {
		return nil, err
	}
	return window{p}, err
}

// window is what the user sees and does.
type window struct{ *purse }

func (w window) Change(ctx context.Context, note string) error { return w.label(ctx, note) }
func (w window) Refresh(ctx context.Context) error             { return w.sync(ctx) }
func (w window) Remove(context.Context) error                  { return w.backup.Forget() }
func (w window) Close() error                                  { return w.backup.Close() }

func (w window) Screen() satcheltest.Screen {
	st := w.backup.Status()
	s := satcheltest.Screen{Wallet: st.Fingerprint, Protected: st.Protected, Problem: w.problem, Code: w.code}
	labels, err := w.labels()
	if err != nil {
		s.Problem = err
	}
	for l := range labels.All() {
		text, _ := l.Text()
		s.Notes = append(s.Notes, text)
	}
	return s
}
