//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
)

// An open that is not finished shows in every status, also where its record is damaged or
// of a newer satchel: nobody can say then that all is well with the node.
func TestAttack6OpenLeft(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.does(0, "create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--json", "--network", "regtest")
	p.lndNode()
	p.does(0, "lnd", "connect", "--json", "--yes")
	record := filepath.Join(p.dir, "device", "watch", p.walletDir()+".open.json")
	for _, text := range []string{
		`{"version":1,"state":"signed","begun":"2026-11-26T09:00:00Z","node":"02","peer":"03","amount":1,"pending_id":"","lock":""}`,
		`{"version":2}`,
		``,
	} {
		writeFile(t, record, text)
		for _, args := range [][]string{{"status"}, {"lnd", "status"}, {"watch", "--list"}} {
			if out := strings.Join(strings.Fields(p.does(3, args...)), " "); !strings.Contains(out, "an open of a channel is not finished") || !strings.Contains(out, "satchel lnd open --resume") {
				t.Errorf("%v, record %q: got %s", args, text, out)
			}
		}
	}
	if err := os.Remove(record); err != nil {
		t.Fatal(err)
	}
	p.does(0, "status")
}

// lnd before 0.19 does not say which channels a backup knows. That is no reason to call all
// of them saved: what was listed when the backup was made says it.
func TestAttack6OldLND(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.does(0, "create", "--in", filepath.Join(p.dir, "elsewhere"), "--unlock", "recovery-code", "--json", "--network", "regtest")
	node := p.lndNode()
	node.Mute = true
	node.AddChannel()
	p.does(0, "lnd", "connect", "--json", "--yes")
	if out := p.does(0, "status"); !strings.Contains(out, "1 channel, all in the backup") {
		t.Errorf("got %s", out)
	}
	second := node.AddChannel()
	if out := p.does(3, "lnd", "status"); !strings.Contains(out, second) || !strings.Contains(out, "1 NOT SAVED") {
		t.Errorf("got %s", out)
	}
	p.does(0, "watch", "--once")
	p.does(0, "lnd", "status")
}

// Programs whose puts wait for a wallet's place keep nobody from another wallet.
func TestAttack6PutsOfAnotherWallet(t *testing.T) {
	env := map[string]string{"SATCHEL_HOME": t.TempDir(), "SATCHEL_KEYCHAIN": "file"}
	if code, _, stderr := runHere(t, env, "create", "--in", t.TempDir(), "--unlock", "recovery-code", "--json"); code != 0 {
		t.Fatalf("code %d: %s", code, stderr)
	}
	a := &app{getenv: func(k string) string { return env[k] }, now: time.Now, json: true}
	d, err := a.device()
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.openDevice(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	s := newSupervisor(a, 0, 0)
	slow, other := newSession("slow", d.dir, 0, a.now()), newSession("other", d.dir, 1, a.now())
	slow.setBackup(b) // Nobody takes what is put: its place hangs.
	other.set(sessionEnded, satchel.ErrOtherDevice, a.now())
	s.sessions["slow"], s.sessions["other"] = slow, other
	mux := (&controlServer{s}).mux()
	put := func(ctx context.Context, wallet string) int {
		r := httptest.NewRequest("POST", "http://satchel/v1/wallets/"+wallet+"/put", strings.NewReader(`{"items":[{"name":"settings"}]}`)).WithContext(ctx)
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w.Code
	}
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	for range maxPuts {
		waiting.Go(func() { put(ctx, "slow") })
	}
	for len(slow.slots) < maxPuts {
		runtime.Gosched()
	}
	if code := put(t.Context(), "slow"); code != http.StatusTooManyRequests {
		t.Errorf("got %d, want %d", code, http.StatusTooManyRequests)
	}
	if code := put(t.Context(), "other"); code != http.StatusServiceUnavailable && code != http.StatusConflict {
		t.Errorf("got %d: it waits for another wallet", code)
	}
}

// A rekey that is killed when the old wallet is gone, before or after the new one has its
// name: what was watched is still watched, and the node still saved. It was nobody's then.
func TestAttack6RekeyKilled(t *testing.T) {
	env := map[string]string{"SATCHEL_HOME": t.TempDir(), "SATCHEL_KEYCHAIN": "file"}
	code, out, stderr := runHere(t, env, "create", "--in", t.TempDir(), "--label", "Sam", "--unlock", "recovery-code", "--json")
	var made struct{ Secret string }
	if err := json.Unmarshal([]byte(out), &made); code != 0 || err != nil {
		t.Fatalf("code %d, %v: %s", code, err, stderr)
	}
	watched := filepath.Join(t.TempDir(), "settings")
	writeFile(t, watched, "1")
	if code, _, stderr := runHere(t, env, "watch", watched, "--once"); code != 0 {
		t.Fatalf("code %d: %s", code, stderr)
	}
	a := &app{getenv: func(k string) string { return env[k] }, now: time.Now, json: true}
	d, err := a.device()
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.openDevice(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	way, err := slot.RecoveryCode(secret.FromString(made.Secret))
	if err != nil {
		t.Fatal(err)
	}
	owner, err := b.Unlock(t.Context(), way)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := a.newWalletDir()
	if err != nil {
		t.Fatal(err)
	}
	// A new wallet of which the old one is still there watches nothing: both would.
	if err := a.inheritWatched(t.Context(), d.name, filepath.Base(dir)); err != nil {
		t.Fatal(err)
	}
	if rec, err := (&watch{app: a, name: filepath.Base(dir)}).read(); err != nil || len(rec.all()) > 0 {
		t.Errorf("got %v, %v", rec, err)
	}
	next, _ := slot.NewRecoveryCode()
	nb, _, err := a.newKeys(t.Context(), owner, d.name, dir, satchel.RekeyPlan{Slots: []slot.Secret{next}})
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	nb.Close()
	// Killed here, the rest of the command does nothing.
	if code, out, stderr := runHere(t, env, "watch", "--list", "--json"); code != 0 || !strings.Contains(out, watched) {
		t.Errorf("code %d: %s%s", code, out, stderr)
	}
	// So is one that is killed again.
	if err := a.inheritWatched(t.Context(), filepath.Base(dir), "new-2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, filepath.Join(filepath.Dir(dir), "new-2")); err != nil {
		t.Fatal(err)
	}
	if code, out, stderr := runHere(t, env, "watch", "--list", "--json"); code != 0 || !strings.Contains(out, watched) {
		t.Errorf("code %d: %s%s", code, out, stderr)
	}
	// It is changed like any other record.
	if code, out, stderr := runHere(t, env, "watch", "--forget", watched); code != 0 {
		t.Errorf("code %d: %s%s", code, out, stderr)
	}
	if code, out, stderr := runHere(t, env, "watch", "--list", "--json"); code != 0 || strings.Contains(out, watched) {
		t.Errorf("code %d: %s%s", code, out, stderr)
	}
}

// An open of a channel that was cut short goes with the wallet when that gets new keys.
func TestAttack6OpenMoves(t *testing.T) {
	home := t.TempDir()
	a := &app{getenv: func(name string) string { return map[string]string{"SATCHEL_HOME": home}[name] }, now: time.Now}
	old := &watch{app: a, name: "old"}
	if err := old.change(t.Context(), func(r *watchRecord) error { r.LND = &lndRecord{Node: "02"}; return nil }); err != nil {
		t.Fatal(err)
	}
	writeFile(t, a.lndJournal("old"), "the record")
	if err := errors.Join(a.copyWatched(t.Context(), "old", "new"), a.moveWatched(t.Context(), "old", "new")); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(a.lndJournal("new")); string(data) != "the record" {
		t.Errorf("got %q, %v", data, err)
	}
	if rec, err := (&watch{app: a, name: "new"}).read(); err != nil || rec.LND == nil {
		t.Errorf("got %v, %v", rec, err)
	}
	if rec, err := old.read(); err != nil || rec.Moved != "new" || rec.LND != nil {
		t.Errorf("got %v, %v", rec, err)
	}
}

// walletDir is the name of the one wallet's directory.
func (p *person) walletDir() string {
	p.t.Helper()
	entries, err := os.ReadDir(filepath.Join(p.dir, "device", "wallets"))
	if err != nil || len(entries) != 1 {
		p.t.Fatalf("%v, %v", entries, err)
	}
	return entries[0].Name()
}
