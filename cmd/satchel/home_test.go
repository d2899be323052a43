package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/durable"
)

// A wallet that an agent has, which saves for ten seconds at a time while a place is away,
// is waited for: before it is opened, and by what has it open.
func TestWaitsLongEnough(t *testing.T) {
	a := testApp(t)
	var said bytes.Buffer
	a.stderr, a.keychain = &said, "file"
	home, err := a.home()
	if err != nil {
		t.Fatal(err)
	}
	place := filepath.Join(home, "place")
	if err := os.MkdirAll(place, 0o700); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"SATCHEL_HOME": home}
	if code, _, stderr := runHere(t, env, "create", "--in", place, "--unlock", "recovery-code", "--json", "--keychain", "file"); code != 0 {
		t.Fatal(stderr)
	}
	d, err := a.device()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := a.deviceConfig(d)
	if err != nil {
		t.Fatal(err)
	}
	// other has the wallet for a time.
	other := func(t *testing.T, has time.Duration) {
		lock, err := durable.Disk{}.Lock(filepath.Join(d.dir, "lock"))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(has)
			lock.Unlock()
		}()
	}
	for _, test := range []struct {
		has  time.Duration
		want error
	}{{20 * time.Second, nil}, {time.Minute, satchel.ErrBusy}} {
		synctest.Test(t, func(t *testing.T) {
			other(t, test.has)
			b, err := a.openWhenFree(t.Context(), cfg)
			if !errors.Is(err, test.want) {
				t.Fatalf("opening while another has it for %v: got %v, want %v", test.has, err, test.want)
			}
			time.Sleep(time.Minute)
			if test.want != nil {
				return
			}
			defer b.Close()
			other(t, test.has)
			if _, err := b.Sync(t.Context()); err != nil {
				t.Errorf("saving while another has it for %v: %v", test.has, err)
			}
		})
	}
	if !bytes.Contains(said.Bytes(), []byte("waiting for another satchel")) {
		t.Errorf("it was not said: %q", said.Bytes())
	}
	b, err := a.openWhenFree(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	// Who does not want to wait is not kept.
	synctest.Test(t, func(t *testing.T) {
		other(t, time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := b.Sync(ctx); !errors.Is(err, satchel.ErrBusy) || time.Since(began) > 2*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		time.Sleep(time.Minute)
	})
}
