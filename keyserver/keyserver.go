// Package keyserver is a key server: it guards one secret key for each account, and
// evaluates it a limited number of times, for clients that never show a PIN.
//
// All that it decides is in this package; where the records are kept is not:
//
//	s, err := keyserver.New(ctx, keyserver.Config{Records: db, Master: keys})
//	http.Handle(keyserver.Path, s)
//
// A guess is durable in the database before the evaluation that it pays for is
// computed. A record is sealed under a master key before the database sees it. The
// protocol is docs/protocol.md, its messages are package protocol.
package keyserver

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/satchel-backup/satchel/protocol"
)

// Path is where requests are posted.
const Path = protocol.Path

// ContentType is that of requests and replies.
const ContentType = protocol.ContentType

// Config says how a server works. Records and Master are required.
type Config struct {
	Records Records
	Master  *Master
	// AfterRestore says that the database was put back from a copy: guesses that were
	// made since are forgotten, so every account has at most two until its next success.
	// It is needed at one start of one server.
	AfterRestore bool
	// Allowed, if not nil, reports whether a registration token lets its holder make an
	// account. The token is the bearer token of the request, "" for none.
	Allowed func(token string) bool
	// Missing, if not nil, is called when a record names a master key that Master has not
	// got, at most once a second for the same one. It may set it.
	Missing func()
	// Answered, if not nil, is told of every answer: what was asked, 0 for what is no
	// request, the code, and how long it took.
	Answered func(op protocol.Op, code protocol.Code, took time.Duration)
	Logger   *slog.Logger     // nil discards
	Now      func() time.Time // nil means time.Now
}

// Server answers requests. It is an http.Handler, and is safe for concurrent use. Any
// number of servers may use one database.
type Server struct {
	cfg         Config
	incarnation atomic.Uint32
	busy        [1024]chan struct{} // by the first bits of the account: so writers here do not collide
	missing     struct {
		sync.Mutex
		id    [4]byte // of the key that was asked for
		asked time.Time
	}
}

// patience is how long a request may take before it is told to come again.
const patience = 15 * time.Second

// New returns a server.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Records == nil || cfg.Master == nil {
		return nil, errors.New("keyserver: Config needs Records and Master")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{cfg: cfg}
	for i := range s.busy {
		s.busy[i] = make(chan struct{}, 1)
	}
	if err := s.incarnate(ctx); err != nil {
		return nil, fmt.Errorf("starting the key server: %w", err)
	}
	return s, nil
}

// incarnationID is the record that counts how often the database was put back. No
// account has it.
var incarnationID = ID{}

// incarnate reads, and after a restore raises, the number of the database's life.
func (s *Server) incarnate(ctx context.Context) error {
	for {
		e, err := s.cfg.Records.Get(ctx, incarnationID)
		if err != nil && !errors.Is(err, ErrNoRecord) {
			return err
		}
		if err == nil {
			n, _, err := s.parseIncarnation(e)
			if err != nil {
				return err
			}
			s.incarnation.Store(n)
		}
		if err == nil && !s.cfg.AfterRestore {
			return nil
		}
		sealed, err := s.cfg.Master.seal(incarnationID, binary.BigEndian.AppendUint32(nil, s.incarnation.Load()+1))
		if err != nil {
			return err
		}
		err = s.cfg.Records.Put(ctx, Write{incarnationID, e.Version, sealed})
		if err == nil {
			s.incarnation.Add(1)
			return nil
		}
		if !errors.Is(err, ErrStale) {
			return err
		}
	}
}

func (s *Server) parseIncarnation(e Entry) (n uint32, b []byte, err error) {
	if b, err = s.open(incarnationID, e.Data); err != nil {
		return 0, nil, err
	}
	if len(b) != 4 {
		return 0, nil, errRecord
	}
	return binary.BigEndian.Uint32(b), b, nil
}

// ServeHTTP answers one request. Whatever the protocol has an answer for is 200.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "post a request of the key-server protocol", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, protocol.MaxMessage))
	if err != nil {
		status := http.StatusBadRequest
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, "the request could not be read", status)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	reply := s.Answer(ctx, body, token(r))
	w.Header().Set("Content-Type", ContentType)
	w.Header().Set("Cache-Control", "no-store")
	w.Write(reply)
}

func token(r *http.Request) string {
	const bearer = "Bearer "
	h := r.Header.Get("Authorization")
	if len(h) > len(bearer) && h[:len(bearer)] == bearer {
		return h[len(bearer):]
	}
	return ""
}

// Answer answers the bytes of a request with those of a reply.
func (s *Server) Answer(ctx context.Context, body []byte, token string) []byte {
	if s.cfg.Answered == nil {
		return s.reply(ctx, body, token)
	}
	start := time.Now()
	reply := s.reply(ctx, body, token)
	op, code := protocol.Op(0), protocol.Code(reply[1])
	if code != protocol.CodeMalformed && code != protocol.CodeNewer {
		op = protocol.Op(body[1])
	}
	s.cfg.Answered(op, code, time.Since(start))
	return reply
}

func (s *Server) reply(ctx context.Context, body []byte, token string) []byte {
	v, err := s.answer(ctx, body, token)
	if err == nil {
		return protocol.Reply(v)
	}
	if r, ok := errors.AsType[*protocol.Refusal](err); ok {
		return r.Reply()
	}
	if !errors.Is(ctx.Err(), context.Canceled) { // The client went.
		s.cfg.Logger.Error("a request could not be answered", "err", err)
	}
	return (&protocol.Refusal{Code: protocol.CodeUnavailable}).Reply()
}

func (s *Server) answer(ctx context.Context, body []byte, token string) (any, error) {
	req, err := protocol.ParseRequest(body)
	switch {
	case errors.Is(err, protocol.ErrNewerProtocol):
		return nil, refuse(protocol.CodeNewer)
	case errors.Is(err, protocol.ErrSignature):
		return nil, refuse(protocol.CodeSignature)
	case err != nil:
		return nil, refuse(protocol.CodeMalformed)
	}
	if c, ok := req.Payload.(protocol.Create); ok {
		return s.create(ctx, &req, &c, token)
	}
	return s.change(ctx, &req)
}

// open opens a record, also one that is sealed under a key which came meanwhile.
func (s *Server) open(id ID, b []byte) ([]byte, error) {
	if s.cfg.Missing != nil && !s.cfg.Master.has(b) {
		s.miss(b)
	}
	return s.cfg.Master.open(id, b)
}

// miss asks for a key that is not there, once for all who wait for it.
func (s *Server) miss(b []byte) {
	m := &s.missing
	m.Lock()
	defer m.Unlock()
	if len(b) < len(m.id) || s.cfg.Master.has(b) || [4]byte(b) == m.id && time.Since(m.asked) < time.Second {
		return
	}
	s.cfg.Missing()
	m.id, m.asked = [4]byte(b), time.Now()
}

// held is a record as it was read.
type held struct {
	*record
	id      ID
	version uint64
	key     *key
	nonce   protocol.Nonce
	aliases []ID // of its accounts, as they were read
}

// hold parses a record as it was read.
func hold(e Entry, b []byte) (*held, error) {
	r, err := parseRecord(b)
	if err != nil {
		return nil, err
	}
	h := &held{record: r, id: e.ID, version: e.Version}
	for i := range r.Keys {
		if k := &r.Keys[i]; k.State != 0 && ID(k.Account) != h.id {
			h.aliases = append(h.aliases, ID(k.Account))
		}
	}
	return h, nil
}

// load reads the record of an account, and what time has made of it.
func (s *Server) load(ctx context.Context, a protocol.Account, now int64) (*held, error) {
	id := ID(a)
	for range 2 {
		e, err := s.cfg.Records.Get(ctx, id)
		if errors.Is(err, ErrNoRecord) {
			return nil, refuse(protocol.CodeUnknown)
		}
		if err != nil {
			return nil, err
		}
		b, err := s.open(id, e.Data)
		if err != nil {
			return nil, err
		}
		if to, ok := parseAlias(b); ok {
			id = to
			continue
		}
		h, err := hold(e, b)
		if err != nil {
			return nil, err
		}
		h.afterRestore(s.incarnation.Load())
		if h.expire(now) {
			return nil, refuse(protocol.CodeUnknown)
		}
		if h.key, err = h.find(a); err != nil {
			return nil, err
		}
		h.nonce = s.cfg.Master.nonce(a, e.Version)
		return h, nil
	}
	return nil, refuse(protocol.CodeUnknown)
}

// An alias is the record of an account that took the place of another: it names the
// record of the first.
const aliasVersion = 0

func alias(to ID) []byte { return append([]byte{aliasVersion}, to[:]...) }

func parseAlias(b []byte) (ID, bool) {
	if len(b) != 1+len(ID{}) || b[0] != aliasVersion {
		return ID{}, false
	}
	return ID(b[1:]), true
}

// save makes a record durable, in one transaction with the end of the aliases that it has
// no account for any more.
func (s *Server) save(ctx context.Context, h *held, more ...Write) error {
	sealed, err := s.cfg.Master.seal(h.id, h.record.bytes())
	if err != nil {
		return err
	}
	return s.put(ctx, h, append(more, Write{h.id, h.version, sealed}))
}

// remove deletes a record and its aliases.
func (s *Server) remove(ctx context.Context, h *held) error {
	h.Keys = [2]key{}
	return s.put(ctx, h, []Write{{ID: h.id, Version: h.version}})
}

func (s *Server) put(ctx context.Context, h *held, writes []Write) error {
	for _, id := range h.aliases {
		if _, err := h.find(protocol.Account(id)); err == nil {
			continue
		}
		e, err := s.cfg.Records.Get(ctx, id)
		if errors.Is(err, ErrNoRecord) {
			continue
		}
		if err != nil {
			return err
		}
		writes = append(writes, Write{ID: id, Version: e.Version})
	}
	return s.cfg.Records.Put(ctx, writes...)
}

func (s *Server) lock(ctx context.Context, a protocol.Account) (unlock func(), err error) {
	busy := s.busy[int(binary.BigEndian.Uint16(a[:]))%len(s.busy)]
	select {
	case busy <- struct{}{}:
		return func() { <-busy }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// change answers a request of an account that exists. It reads, decides and writes until
// nobody else wrote in between.
//
// What is granted is written always, also if it only says again what was said before: what
// was read may be a write that failed halfway, in the database and not yet on its disk or
// its standby. Once it is written again, it is.
func (s *Server) change(ctx context.Context, req *protocol.Request) (any, error) {
	done, err := s.lock(ctx, req.Account)
	if err != nil {
		return nil, err
	}
	defer done()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v, err := s.changeOnce(ctx, req)
		if !errors.Is(err, ErrStale) {
			return v, err
		}
	}
}

func (s *Server) changeOnce(ctx context.Context, req *protocol.Request) (any, error) {
	now := s.cfg.Now().UnixMilli()
	h, err := s.load(ctx, req.Account, now)
	if err != nil {
		return nil, err
	}
	k := h.key
	switch p := req.Payload.(type) {
	case protocol.AskStatus:
		return h.status(k, h.nonce, now), nil
	case protocol.Evaluate:
		return s.evaluate(ctx, h, req.Seq, &p, now)
	case protocol.Finish:
		v, err := h.finish(k, req.Seq, &p, h.nonce, now)
		if err != nil {
			return nil, err
		}
		return v, s.save(ctx, h)
	case protocol.Confirm:
		if err := h.confirm(k, req.Seq, &p, now); err != nil {
			return nil, s.erasing(ctx, h, err)
		}
		return nil, s.save(ctx, h)
	case protocol.PutHead:
		if err := h.head(k, req.Seq, &p.Head, now); err != nil {
			return nil, err
		}
		return h.Head, s.save(ctx, h)
	case protocol.InstallEpoch:
		if err := h.install(k, req.Seq, &p, now); err != nil {
			return nil, err
		}
		return nil, s.save(ctx, h)
	case protocol.Delete:
		return nil, s.delete(ctx, h, req.Account, &p)
	}
	return nil, refuse(protocol.CodeMalformed)
}

// erasing erases the key if that is what a refusal asks for.
func (s *Server) erasing(ctx context.Context, h *held, err error) error {
	if !errors.Is(err, errErase) {
		return err
	}
	h.key.erase()
	if err := s.save(ctx, h); err != nil {
		return err
	}
	s.cfg.Logger.Info("a key was erased after too many wrong guesses")
	return refuse(protocol.CodeErased)
}

func (s *Server) evaluate(ctx context.Context, h *held, seq uint64, e *protocol.Evaluate, now int64) (any, error) {
	if e.WithProof > 1 {
		return nil, refuse(protocol.CodeMalformed)
	}
	point, err := e.Blinded.Point()
	if err != nil {
		return nil, refuse(protocol.CodeMalformed)
	}
	if err := h.record.evaluate(h.key, seq, e, now); err != nil {
		return nil, s.erasing(ctx, h, err)
	}
	if err := s.save(ctx, h); err != nil {
		return nil, err
	}
	// The guess is durable: whatever happens from here on, it is spent.
	secret, err := h.key.secret()
	if err != nil {
		return nil, err
	}
	if e.WithProof == 0 {
		out, err := secret.EvaluatePoint(point)
		return protocol.Evaluated{Element: out, Left: h.left(h.key)}, err
	}
	out, proof, err := secret.Prove(e.Blinded)
	if err != nil {
		return nil, err
	}
	public, err := secret.Public()
	return protocol.Proven{Element: out, Left: h.left(h.key), Key: public, Proof: proof}, err
}

// create makes an account, or says again what it said when it made it.
func (s *Server) create(ctx context.Context, req *protocol.Request, c *protocol.Create, token string) (any, error) {
	if c.Limit < 1 || c.Limit > protocol.MaxGuesses || c.Blinded.Check() != nil || c.By > protocol.ByOwner ||
		(c.By == protocol.NoAuthority) != (c.Replaces == protocol.Account{}) {
		return nil, refuse(protocol.CodeMalformed)
	}
	done, err := s.lock(ctx, req.Account)
	if err != nil {
		return nil, err
	}
	defer done()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v, err := s.createOnce(ctx, req, c, token)
		if !errors.Is(err, ErrStale) {
			return v, err
		}
	}
}

func (s *Server) createOnce(ctx context.Context, req *protocol.Request, c *protocol.Create, token string) (any, error) {
	now := s.cfg.Now().UnixMilli()
	h, err := s.load(ctx, req.Account, now)
	if err == nil {
		if h.key.State != protocol.StatePending || h.key.Blinded != c.Blinded || h.key.Limit != c.Limit {
			return nil, refuse(protocol.CodeExists)
		}
		if err := s.save(ctx, h); err != nil {
			return nil, err
		}
		return created(h.key, c.Blinded) // The reply was lost.
	}
	if r, ok := errors.AsType[*protocol.Refusal](err); !ok || r.Code != protocol.CodeUnknown {
		return nil, err
	}
	var seed [protocol.SeedSize]byte
	rand.Read(seed[:])
	secret, err := protocol.DeriveKey(seed)
	if err != nil {
		return nil, err
	}
	scalar, err := secret.Bytes()
	if err != nil {
		return nil, err
	}
	k := key{Account: req.Account, State: protocol.StatePending, Secret: [32]byte(scalar), Limit: c.Limit, Created: now, Blinded: c.Blinded}
	if err := k.sequence(req.Seq, now); err != nil {
		return nil, err
	}
	if c.By == protocol.NoAuthority {
		if s.cfg.Allowed != nil && !s.cfg.Allowed(token) {
			return nil, refuse(protocol.CodeToken)
		}
		err = s.begin(ctx, &k, now)
	} else {
		err = s.replace(ctx, &k, c, now)
	}
	if r, ok := errors.AsType[*protocol.Refusal](err); ok && r.Code == protocol.CodeExists {
		// Perhaps it came into being since: the same request, at another server of the same
		// records.
		if _, again := s.load(ctx, req.Account, now); again == nil {
			return nil, ErrStale
		}
	}
	if err != nil {
		return nil, err
	}
	return created(&k, c.Blinded)
}

// begin keeps a key in a record of its own, or in place of one that expired.
func (s *Server) begin(ctx context.Context, k *key, now int64) error {
	h := &held{record: &record{Keys: [2]key{*k}, Incarnation: s.incarnation.Load()}, id: ID(k.Account)}
	e, err := s.cfg.Records.Get(ctx, h.id)
	if errors.Is(err, ErrNoRecord) {
		return s.save(ctx, h)
	}
	if err != nil {
		return err
	}
	// The record may be that of the account which took the place of this one.
	b, err := s.open(h.id, e.Data)
	if err != nil {
		return err
	}
	old, err := hold(e, b)
	if err != nil || !old.expire(now) {
		return refuse(protocol.CodeExists)
	}
	h.version, h.aliases = e.Version, old.aliases
	return s.save(ctx, h)
}

// replace keeps a key beside the one whose place it is to take.
func (s *Server) replace(ctx context.Context, k *key, c *protocol.Create, now int64) error {
	h, err := s.load(ctx, c.Replaces, now)
	if err != nil {
		return err
	}
	by := h.key.Proof
	if c.By == protocol.ByOwner {
		by = h.Owner
	}
	if h.key != &h.Keys[0] || h.key.State == protocol.StatePending || !c.AllowedBy(by, k.Account) {
		return refuse(protocol.CodeDenied)
	}
	h.Keys[1] = *k
	to := Write{ID: ID(k.Account)}
	if _, err := s.cfg.Records.Get(ctx, to.ID); err == nil {
		return refuse(protocol.CodeExists)
	} else if !errors.Is(err, ErrNoRecord) {
		return err
	}
	if to.Data, err = s.cfg.Master.seal(to.ID, alias(h.id)); err != nil {
		return err
	}
	return s.save(ctx, h, to)
}

func created(k *key, blinded protocol.Element) (any, error) {
	secret, err := k.secret()
	if err != nil {
		return nil, err
	}
	public, err := secret.Public()
	if err != nil {
		return nil, err
	}
	out, proof, err := secret.Prove(blinded)
	return protocol.Created{Key: public, Evaluated: out, Proof: proof}, err
}

// delete ends an account, and with it the one that was to take its place.
func (s *Server) delete(ctx context.Context, h *held, a protocol.Account, d *protocol.Delete) error {
	k := h.key
	allowed := false
	switch d.By {
	case protocol.NoAuthority:
		allowed = k.State == protocol.StatePending
	case protocol.ByProofKey:
		allowed = k.State == protocol.StateActive && d.AllowedBy(k.Proof, a)
	case protocol.ByOwner:
		allowed = k.State != protocol.StatePending && d.AllowedBy(h.Owner, a)
	}
	if !allowed {
		return refuse(protocol.CodeDenied)
	}
	if k == &h.Keys[1] {
		h.Keys[1] = key{}
		return s.save(ctx, h)
	}
	return s.remove(ctx, h)
}

// nonce is what one who has no attempt here signs to finish. Everything that is written
// to the account changes it.
func (m *Master) nonce(a protocol.Account, version uint64) protocol.Nonce {
	mac := hmac.New(sha256.New, m.keys.Load().nonces)
	mac.Write(a[:])
	mac.Write(binary.BigEndian.AppendUint64(nil, version))
	return protocol.Nonce(mac.Sum(nil))
}
