package postgres_test

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/postgres"
)

// A database that is away gets few connections, however much is asked of the server; who
// asks is refused at once.
func TestAway(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var tries atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			tries.Add(1)
			c.Close()
		}
	}()
	db, err := postgres.Unprepared(t.Context(), fmt.Sprintf("postgres://%s/x?sslmode=disable", l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for range 200 {
				if _, err := db.Get(t.Context(), keyserver.ID{byte(i)}); err == nil {
					t.Error("it can be read")
				}
				if err := db.Put(t.Context(), keyserver.Write{ID: keyserver.ID{byte(i)}, Data: []byte("x")}); err == nil {
					t.Error("it can be written")
				}
			}
		})
	}
	wg.Wait()
	// Those that were on their way at the first failure, then one after each pause, of
	// which the shortest is 50 ms.
	if most := 32 + int64(time.Since(begun)/(50*time.Millisecond)); tries.Load() > most || tries.Load() == 0 {
		t.Errorf("%d connections in %v, want at most %d", tries.Load(), time.Since(begun), most)
	}
}

func TestAwayPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a postgres.Away
		cause := errors.New("starting")
		for range 5 {
			if err := a.Before(); err != nil {
				t.Errorf("before anything failed: %v", err)
			}
		}
		for range 5 { // All of them fail, as one does.
			a.Failed(cause)
		}
		tries := 0
		for begun := time.Now(); time.Since(begun) < 10*time.Second; time.Sleep(time.Millisecond) {
			err := a.Before()
			if err == nil {
				tries++
				a.Failed(cause)
			} else if !errors.Is(err, cause) {
				t.Fatalf("got %v, want the cause", err)
			} else {
				a.Failed(err) // It is the same one.
			}
		}
		// After 50, 100, 200, 400, 800 ms, and then every second.
		if tries < 12 || tries > 14 {
			t.Errorf("%d tries in ten seconds", tries)
		}
		a.Connected()
		for range 5 {
			if err := a.Before(); err != nil {
				t.Errorf("when it is back: %v", err)
			}
		}
	})
}
