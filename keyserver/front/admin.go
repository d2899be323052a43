package front

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// How often health is looked at by itself, how long an answer holds, and how long it may
// take to get one.
const (
	watchEvery = 10 * time.Second
	holds      = time.Second
	checkTime  = 5 * time.Second
)

// health is the last look at the server.
type health struct {
	mu  sync.Mutex
	at  time.Time
	err error
}

// look checks, unless that was done just now, and logs when it changed.
func (f *Front) look(ctx context.Context) error {
	h := &f.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.at.IsZero() && time.Since(h.at) < holds {
		return h.err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	err := f.cfg.Check(ctx)
	if ctx.Err() == context.Canceled {
		return err // It was the caller who went.
	}
	switch {
	case err != nil && h.err == nil:
		f.cfg.Logger.Error("the server cannot work", "err", err)
	case err == nil && h.err != nil:
		f.cfg.Logger.Info("the server works again")
	}
	h.at, h.err = time.Now(), err
	return err
}

func (f *Front) watch(ctx context.Context) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		f.look(ctx)
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Admin answers /healthz and /metrics. It is for the operator's network only.
func (f *Front) Admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if f.draining.Load() {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		if err := f.look(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		f.cfg.Counts.Write(w)
	})
	return mux
}
