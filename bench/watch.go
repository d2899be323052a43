package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// patience is how long a change may take to be seen before the run fails.
const patience = 30 * time.Second

// watch measures how long after a file was written the change is protected, when
// nobody gives a command.
func (b *bench) watch(ctx context.Context) error {
	w, _, err := b.create(ctx, "watch")
	if err != nil {
		return err
	}
	if _, err := b.exec(ctx, b.on(w, "watch", "--help")); err != nil {
		b.say("\n### Watching\n\nThis satchel has no command `watch`.\n")
		return nil
	}
	b.note("watching %d changes", b.size.watched)
	dir := b.path("watch", "folder")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	p := b.on(w, "watch", "--json", dir)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cmd := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
	cmd.Env = p.environ()
	cmd.Stderr = b.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	events := make(chan event, 1000)
	go told(out, events)
	measured, err := b.watched(ctx, w, dir, events)
	stop()
	cmd.Wait() // It was stopped, so its result says nothing.
	if err != nil {
		return err
	}
	b.say("\n### Watching\n\n`satchel watch --json DIR`, %d times: a file of %d bytes comes into DIR. A file is saved when it has been left alone for a moment, so that none is saved half-written; most of the time is that.\n", b.size.watched, inline)
	row := func(what string, list []time.Duration) []string {
		return []string{what, ms(quantile(list, 50)), ms(quantile(list, 95)), ms(quantile(list, 100))}
	}
	b.table("from the change until|p50|p95|slowest", [][]string{
		row("its snapshot is in the place", measured.there), row("the command says that it is protected", measured.said),
	})
	return nil
}

// event is a line of the command.
type event struct {
	at        time.Time
	Event     string `json:"event"`
	Protected bool   `json:"protected"`
}

// told sends what the command says, with the time.
func told(out io.Reader, events chan<- event) {
	defer close(events)
	for s := bufio.NewScanner(out); s.Scan(); {
		e := event{at: time.Now()}
		if json.Unmarshal(s.Bytes(), &e) == nil {
			events <- e
		}
	}
}

// next waits for an event of a kind.
func next(ctx context.Context, events <-chan event, kind string) (e event, err error) {
	late := time.After(patience)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return e, errors.New("the command ended")
			}
			if e.Event == kind {
				return e, nil
			}
		case <-late:
			return e, fmt.Errorf("the command did not say %q", kind)
		case <-ctx.Done():
			return e, ctx.Err()
		}
	}
}

// watchedTimes are those of several changes.
type watchedTimes struct{ there, said []time.Duration }

// watched changes a file again and again.
func (b *bench) watched(ctx context.Context, w cmdWallet, dir string, events <-chan event) (t watchedTimes, err error) {
	if _, err := next(ctx, events, "watching"); err != nil {
		return t, err
	}
	for i := range b.size.watched {
		before, err := snapshots(w.place)
		if err != nil {
			return t, err
		}
		temp := b.path("watch", "temp")
		if err := os.WriteFile(temp, fmt.Appendf(nil, "%0*d", inline, i), 0o600); err != nil {
			return t, err
		}
		start := time.Now()
		// Another file each time: one that is saved again and again waits longer.
		if err := os.Rename(temp, filepath.Join(dir, fmt.Sprintf("watched-%d", i))); err != nil {
			return t, err
		}
		for n := before; n == before; {
			if time.Since(start) > patience || ctx.Err() != nil {
				return t, errors.Join(ctx.Err(), errors.New("a change was not saved"))
			}
			time.Sleep(time.Millisecond)
			if n, err = snapshots(w.place); err != nil {
				return t, err
			}
		}
		t.there = append(t.there, time.Since(start))
		e, err := next(ctx, events, "saved")
		if err != nil {
			return t, err
		}
		if !e.Protected {
			return t, errors.New("a change was saved and is not protected")
		}
		t.said = append(t.said, e.at.Sub(start))
	}
	return t, nil
}

// snapshots counts those in a place.
func snapshots(place string) (int, error) {
	list, err := filepath.Glob(filepath.Join(place, "*", "snapshots", "*.age"))
	return len(list), err
}
