package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/internal/control"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/source"
)

// What docs/agent.md says of the control socket.
const (
	socketName = "control.sock" // in the agent's directory

	maxPutBody  = 24 << 20 // bytes of a request
	maxPutItems = 1000     // of one request
	maxPuts     = 4        // of one wallet that are read, or wait to be journalled
	putTime     = time.Minute
	putJournal  = 15 * time.Minute // longer than a place that hangs is waited for

	waitUsual = time.Minute // for a change to be protected
	waitMost  = 10 * time.Minute

	aliveEvery = 30 * time.Second // a line in a stream of events in which nothing happens
)

// controlServer answers programs.
type controlServer struct{ s *supervisor }

// serve listens for programs until ctx ends. Where it cannot, because the disk is full, it
// tries again; a system or a path that allows no socket is told, and stops nothing else.
func (s *supervisor) serve(ctx context.Context, dir string) {
	said := ""
	for ctx.Err() == nil {
		err := s.serveOnce(ctx, dir)
		if ctx.Err() != nil {
			return
		}
		if why := errorText(err); why != said {
			said = why
			s.tell("", event{JSON: eventJSON{Event: "no socket", Error: why, Code: int(codeOf(err))}, Line: "no control socket: " + why})
		}
		if errors.Is(err, control.ErrUnsupported) || errors.Is(err, control.ErrPath) {
			return
		}
		pauseFor(ctx, serveAgain)
	}
}

// serveAgain is how long after a socket that could not be made the next try is.
const serveAgain = time.Minute

func (s *supervisor) serveOnce(ctx context.Context, dir string) error {
	l, err := control.Listen(filepath.Join(dir, socketName))
	if err != nil {
		return err
	}
	c := &controlServer{s}
	server := &http.Server{
		Handler: control.Guard(c.mux()), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	var ending sync.WaitGroup
	served := make(chan struct{})
	ending.Go(func() {
		select {
		case <-ctx.Done(): // What waits is answered: its context ends too.
		case <-served:
		}
		end, done := context.WithTimeout(context.Background(), time.Second)
		defer done()
		if server.Shutdown(end) != nil {
			server.Close()
		}
	})
	err = server.Serve(l)
	close(served)
	ending.Wait()
	return err
}

func (c *controlServer) mux() *http.ServeMux {
	mux := http.NewServeMux()
	handle := func(pattern string, do func(w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			if err := do(w, r); err != nil {
				answerError(w, err)
			}
		})
	}
	handle("GET /v1/health", c.health)
	handle("GET /v1/wallets", c.wallets)
	handle("GET /v1/wallets/{name}", c.wallet)
	handle("GET /v1/wallets/{name}/items", c.items)
	handle("GET /v1/wallets/{name}/item", c.item)
	handle("POST /v1/wallets/{name}/put", c.put)
	handle("POST /v1/wallets/{name}/sync", func(w http.ResponseWriter, r *http.Request) error { return c.ask(w, r, false) })
	handle("POST /v1/wallets/{name}/check", func(w http.ResponseWriter, r *http.Request) error { return c.ask(w, r, true) })
	handle("GET /v1/events", c.events)
	handle("/", func(http.ResponseWriter, *http.Request) error {
		return &statusError{http.StatusNotFound, usagef("no such path or method")}
	})
	return mux
}

// statusError is an error with the status of its answer.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// answerError answers with an error, as a command with --json prints it.
func answerError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	_, usage := errors.AsType[*usageError](err)
	if e, ok := errors.AsType[*statusError](err); ok {
		status, err = e.status, e.err
	} else {
		switch {
		case usage:
			status = http.StatusBadRequest
		case errors.Is(err, satchel.ErrNoItem), errors.Is(err, satchel.ErrNoDevice):
			status = http.StatusNotFound
		case errors.Is(err, satchel.ErrOwnerOnly):
			status = http.StatusForbidden
		case satchel.CodeOf(err) == satchel.CodeOtherDevice:
			status = http.StatusConflict
		case errors.Is(err, errNotOpen), errors.Is(err, satchel.ErrBusy), errors.Is(err, satchel.ErrReplaced), errors.Is(err, satchel.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			status = http.StatusServiceUnavailable
		}
	}
	answer(w, status, toErrorJSON(err, errorText(err), hintFor(err)))
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.Encode(v) // Who does not read it has gone.
}

// healthJSON is how the agent itself is.
type healthJSON struct {
	OK      bool      `json:"ok"`
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Wallets int       `json:"wallets"`
	Hanging []string  `json:"hanging"` // wallets whose loop should have come back; "" is the agent's own
	Last    uint64    `json:"last"`    // id of the last event
}

func (c *controlServer) health(w http.ResponseWriter, _ *http.Request) error {
	c.s.mu.Lock()
	n := len(c.s.sessions)
	c.s.mu.Unlock()
	hangs := append([]string{}, c.s.hangs()...)
	status := http.StatusOK
	if len(hangs) > 0 {
		status = http.StatusServiceUnavailable
	}
	answer(w, status, healthJSON{len(hangs) == 0, satchel.Version, os.Getpid(), c.s.began.UTC().Truncate(time.Second), n, hangs, c.s.ring.Last()})
	return nil
}

// walletJSON is one wallet of the agent.
type walletJSON struct {
	Name   string       `json:"name"`
	State  sessionState `json:"state"`
	Since  time.Time    `json:"since"`
	Error  string       `json:"error,omitempty"` // why the state is ended, or there is no status
	Code   int          `json:"code,omitempty"`
	Hint   string       `json:"hint,omitempty"`
	Status *statusJSON  `json:"status"` // as "satchel status --json" prints it; null if it could not be read
}

// all returns the sessions by name.
func (s *supervisor) all() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*session
	for _, ses := range s.sessions {
		list = append(list, ses)
	}
	slices.SortFunc(list, func(a, b *session) int { return strings.Compare(a.name, b.name) })
	return list
}

// session returns the wallet of a request: its name, or the beginning of it.
func (c *controlServer) session(r *http.Request) (*session, error) {
	name := r.PathValue("name")
	var found []*session
	for _, ses := range c.s.all() {
		if ses.name == name {
			return ses, nil
		}
		if strings.HasPrefix(ses.name, name) {
			found = append(found, ses)
		}
	}
	if len(found) != 1 {
		return nil, &statusError{http.StatusNotFound, usagef("no wallet of this name")}
	}
	return found[0], nil
}

// stands tells how a wallet stands.
func (s *supervisor) stands(ctx context.Context, ses *session) walletJSON {
	ses.mu.Lock()
	j := walletJSON{Name: ses.name, State: ses.state, Since: ses.since.UTC().Truncate(time.Second)}
	b, err := ses.backup, ses.err
	ses.mu.Unlock()
	a := s.app.inside(nothing{})
	info, readErr := satchel.ReadDevice(ses.dir)
	d := device{ses.name, ses.dir, info}
	if b == nil && readErr == nil {
		var opened *satchel.Backup
		if opened, readErr = a.openDevice(ctx, d); readErr == nil {
			b = opened
			defer opened.Close()
		}
	}
	if err == nil {
		err = readErr
	}
	if err != nil {
		j.Error, j.Code, j.Hint = errorText(err), int(codeOf(err)), hintFor(err)
	}
	if b != nil {
		st := toStatusJSON(ses.name, b.Status(), a.watched(ctx, d, b.Items(), keptSCB(b)), nil)
		j.Status = &st
	}
	return j
}

// nothing discards what is noted.
type nothing struct{}

func (nothing) Write(p []byte) (int, error) { return len(p), nil }

func (c *controlServer) wallets(w http.ResponseWriter, r *http.Request) error {
	sessions := c.s.all()
	list := make([]walletJSON, len(sessions))
	var asking sync.WaitGroup // What is watched may be on a drive that answers slowly.
	for i, ses := range sessions {
		asking.Go(func() { list[i] = c.s.stands(r.Context(), ses) })
	}
	asking.Wait()
	answer(w, http.StatusOK, map[string]any{"wallets": list})
	return nil
}

func (c *controlServer) wallet(w http.ResponseWriter, r *http.Request) error {
	ses, err := c.session(r)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, c.s.stands(r.Context(), ses))
	return nil
}

func (c *controlServer) items(w http.ResponseWriter, r *http.Request) error {
	ses, err := c.session(r)
	if err != nil {
		return err
	}
	b, _, err := ses.opened(r.Context())
	if err != nil {
		return err
	}
	list := []itemJSON{}
	for _, i := range b.Items() {
		list = append(list, toItemJSON(i))
	}
	answer(w, http.StatusOK, map[string]any{"items": list})
	return nil
}

// item answers with the value of an item, as this device has it. What spends money is
// given to nobody here.
func (c *controlServer) item(w http.ResponseWriter, r *http.Request) error {
	ses, err := c.session(r)
	if err != nil {
		return err
	}
	name := r.URL.Query().Get("name")
	if err := seal.CheckItemName(name); err != nil {
		return usagef("?name=NAME must name an item: %v", err)
	}
	if seal.OwnerItem(name) {
		return fmt.Errorf("%w: the control socket gives out no keys", satchel.ErrOwnerOnly)
	}
	b, _, err := ses.opened(r.Context())
	if err != nil {
		return err
	}
	value, err := b.Get(name)
	if err != nil {
		return err
	}
	for _, i := range b.Items() {
		if i.Name == name {
			w.Header().Set("Satchel-Generation", strconv.FormatUint(i.Generation, 10))
			w.Header().Set("Satchel-SHA256", hex.EncodeToString(i.SHA256[:]))
		}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Write(value.Open())
	return nil
}

// putRequest is the body of a put.
type putRequest struct {
	Items []struct {
		Name     string `json:"name"`
		Value    []byte `json:"value"` // base64
		Required bool   `json:"required"`
		Remove   bool   `json:"remove"`
	} `json:"items"`
}

// putAnswer says what became of a put.
type putAnswer struct {
	Generation uint64      `json:"generation"` // that holds it, or a later one
	Journalled bool        `json:"journalled"` // always: else there is an error
	Protected  bool        `json:"protected"`
	Places     []placeJSON `json:"places"`
}

func (c *controlServer) put(w http.ResponseWriter, r *http.Request) error {
	ses, err := c.session(r)
	if err != nil {
		return err
	}
	if err := wantJSON(r); err != nil {
		return err
	}
	wait, err := waitOf(r)
	if err != nil {
		return err
	}
	select {
	case ses.slots <- struct{}{}:
	default:
		w.Header().Set("Retry-After", "1")
		return &statusError{http.StatusTooManyRequests, fmt.Errorf("%d puts of this wallet are under way already; try again", maxPuts)}
	}
	b, err := c.journal(w, r, ses)
	<-ses.slots
	if err != nil {
		return err
	}
	st := b.Status()
	generation := st.Generation
	if wait > 0 {
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		defer cancel()
		st = c.s.waitProtected(ctx, b, generation)
	}
	protected := protectedUpTo(st, generation)
	status := http.StatusOK
	if !protected {
		status = http.StatusAccepted
	}
	answer(w, status, putAnswer{generation, true, protected, placesJSON(st.Places)})
	return nil
}

// journal reads the changes of a put and keeps them.
func (c *controlServer) journal(w http.ResponseWriter, r *http.Request, ses *session) (*satchel.Backup, error) {
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(putTime))
	var req putRequest
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPutBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, &statusError{http.StatusRequestEntityTooLarge, usagef("a put has at most %d bytes", large.Limit)}
		}
		return nil, usagef("the body is not what docs/agent.md says")
	}
	http.NewResponseController(w).SetReadDeadline(time.Time{})
	if len(req.Items) == 0 || len(req.Items) > maxPutItems {
		return nil, usagef("a put has 1 to %d items", maxPutItems)
	}
	var changes []source.Change
	seen := map[string]bool{}
	for _, i := range req.Items {
		switch err := seal.CheckItemName(i.Name); {
		case err != nil:
			return nil, usagef("%v", err)
		case seal.OwnerItem(i.Name):
			return nil, fmt.Errorf("%w: %s", satchel.ErrOwnerOnly, i.Name)
		case seen[i.Name]:
			return nil, usagef("item %s is named twice", printable(i.Name))
		case i.Remove && (len(i.Value) > 0 || i.Required):
			return nil, usagef("item %s is removed, and has a value", printable(i.Name))
		}
		seen[i.Name] = true
		changes = append(changes, source.Change{Name: i.Name, Value: i.Value, Required: i.Required, Remove: i.Remove})
	}
	b, _, err := ses.opened(r.Context())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), putJournal)
	defer cancel()
	return b, ses.put(ctx, changes)
}

// wantJSON returns an error unless a request says that it is JSON, which no form of a
// page can.
func wantJSON(r *http.Request) error {
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(kind) != "application/json" {
		return &statusError{http.StatusUnsupportedMediaType, usagef("a POST needs Content-Type: application/json")}
	}
	return nil
}

// waitOf returns how long a request wants to wait for protection, 0 for not at all.
func waitOf(r *http.Request) (time.Duration, error) {
	q := r.URL.Query()
	switch q.Get("wait") {
	case "":
		return 0, nil
	case "protected":
	default:
		return 0, usagef("?wait= must be protected")
	}
	if q.Get("timeout") == "" {
		return waitUsual, nil
	}
	d, err := time.ParseDuration(q.Get("timeout"))
	if err != nil || d <= 0 || d > waitMost {
		return 0, usagef("?timeout= must be a time such as 30s, at most %v", waitMost)
	}
	return d, nil
}

// askAnswer says what became of a sync or a check.
type askAnswer struct {
	Protected bool          `json:"protected"`
	Places    []placeJSON   `json:"places"`
	Objects   int           `json:"objects,omitempty"`
	Bytes     int64         `json:"bytes,omitempty"`
	Findings  []findingJSON `json:"findings,omitempty"`
	Error     string        `json:"error,omitempty"`
	Code      int           `json:"code"`
}

func (c *controlServer) ask(w http.ResponseWriter, r *http.Request, check bool) error {
	ses, err := c.session(r)
	if err != nil {
		return err
	}
	if err := wantJSON(r); err != nil {
		return err
	}
	b, closed, err := ses.opened(r.Context())
	if err != nil {
		return err
	}
	done := make(chan agent.Answer, 1)
	select {
	case ses.asks <- agent.Ask{Check: check, Answer: done}:
	case <-closed:
		return errNotOpen
	case <-r.Context().Done():
		return r.Context().Err()
	}
	var got agent.Answer
	select {
	case got = <-done:
	case <-r.Context().Done():
		return r.Context().Err()
	}
	st := b.Status()
	j := askAnswer{Protected: st.Protected, Places: placesJSON(st.Places), Objects: got.Report.Objects, Bytes: got.Report.Bytes}
	for _, f := range got.Report.Findings {
		j.Findings = append(j.Findings, findingOf(f))
	}
	if got.Err != nil {
		j.Error, j.Code = errorText(got.Err), int(codeOf(got.Err))
	}
	answer(w, http.StatusOK, j)
	return nil
}

// events streams events: those since an id that are still known, and with follow those
// to come.
func (c *controlServer) events(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	since := c.s.ring.Last()
	if text := q.Get("since"); text != "" {
		id, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return usagef("?since= must be the id of an event, or 0")
		}
		since = id
	}
	follow := true
	switch q.Get("follow") {
	case "", "true":
	case "false":
		follow = false
	default:
		return usagef("?follow= must be true or false")
	}
	wallet := q.Get("wallet")
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	for {
		list, missed, more := c.s.ring.Since(since)
		if missed > 0 && since > 0 {
			fmt.Fprintf(w, "{\"event\":\"missed\",\"id\":%d}\n", missed)
		}
		for _, e := range list {
			since = e.ID
			if wallet != "" && e.Wallet != wallet {
				continue
			}
			if _, err := w.Write(e.Line); err != nil {
				return nil
			}
		}
		since = max(since, missed)
		if err := flush.Flush(); err != nil || !follow {
			return nil
		}
		select {
		case <-more:
		case <-alive.C:
			if _, err := fmt.Fprintf(w, "{\"event\":\"alive\",\"id\":%d}\n", since); err != nil {
				return nil
			}
		case <-r.Context().Done():
			return nil
		}
	}
}
