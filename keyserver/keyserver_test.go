package keyserver_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/postgres"
	"github.com/satchel-backup/satchel/keyserver/postgrestest"
	"github.com/satchel-backup/satchel/keyserver/recordtest"
	"github.com/satchel-backup/satchel/keyserver/sqlite"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// world is a key server with a clock that a test sets.
type world struct {
	*testing.T
	records keyserver.Records
	servers []*keyserver.Server
	master  *keyserver.Master
	now     atomic.Int64 // Unix time in milliseconds
}

const start = 1_800_000_000_000

func master(t testing.TB, seeds ...byte) *keyserver.Master {
	var keys []secret.Bytes
	for _, s := range seeds {
		keys = append(keys, secret.New(bytes.Repeat([]byte{s}, keyserver.MasterSize)))
	}
	m, err := keyserver.NewMaster(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newWorld(t *testing.T, records keyserver.Records, servers int) *world {
	w := &world{T: t, records: records, master: master(t, 1)}
	w.now.Store(start)
	for range servers {
		w.servers = append(w.servers, w.server(false))
	}
	return w
}

func (w *world) server(afterRestore bool) *keyserver.Server {
	w.Helper()
	s, err := keyserver.New(context.Background(), keyserver.Config{
		Records: w.records, Master: w.master, AfterRestore: afterRestore, Now: func() time.Time { return time.UnixMilli(w.now.Load()) },
	})
	if err != nil {
		w.Fatal(err)
	}
	return s
}

func (w *world) later(d time.Duration) { w.now.Add(d.Milliseconds()) }

// onAll runs a test on every kind of database that is to be had.
func onAll(t *testing.T, servers int, do func(w *world)) {
	t.Run("memory", func(t *testing.T) { t.Parallel(); do(newWorld(t, &recordtest.Memory{}, servers)) })
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "records.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		do(newWorld(t, db, servers))
	})
	if !postgrestest.Have() {
		return // .ci/run wants these to run.
	}
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		db, err := postgres.Open(t.Context(), postgrestest.Address(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		do(newWorld(t, db, servers))
	})
}

// client is one account's holder, with a PIN that is a plain input here.
type client struct {
	w       *world
	access  ed25519.PrivateKey
	proof   ed25519.PrivateKey
	owner   ed25519.PrivateKey
	head    ed25519.PrivateKey
	account protocol.Account
	slot    [32]byte
	seq     atomic.Uint64
	output  []byte // for the right PIN
}

func fresh() ed25519.PrivateKey {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

func public(k ed25519.PrivateKey) protocol.Public {
	return protocol.Public(k.Public().(ed25519.PublicKey))
}

func (w *world) client() *client {
	c := &client{w: w, access: fresh(), proof: fresh(), owner: fresh(), head: fresh()}
	c.account = protocol.AccountOf(c.access.Public().(ed25519.PublicKey))
	rand.Read(c.slot[:])
	c.seq.Store(start - 1000)
	return c
}

// ask sends a request to the n-th server.
func (c *client) ask(n int, p protocol.Payload, reply any) error {
	body := protocol.Sign(c.access, c.seq.Add(1), p)
	return protocol.ParseReply(c.w.servers[n%len(c.w.servers)].Answer(context.Background(), body, ""), reply)
}

func (c *client) must(err error) {
	c.w.Helper()
	if err != nil {
		c.w.Fatal(err)
	}
}

// refused checks that err is a refusal with a code.
func (c *client) refused(err error, want protocol.Code) *protocol.Refusal {
	c.w.Helper()
	r, ok := errors.AsType[*protocol.Refusal](err)
	if !ok || r.Code != want {
		c.w.Fatalf("got %v, want %v", err, want)
	}
	return r
}

const pin = "4917"

func blind(pin string) *protocol.Blinding {
	b, err := protocol.Blind([]byte(pin))
	if err != nil {
		panic(err)
	}
	return b
}

// enrol makes an account and confirms it.
func (c *client) enrol(limit byte) *client {
	c.w.Helper()
	b := blind(pin)
	var made protocol.Created
	c.must(c.ask(0, protocol.Create{Blinded: b.Blinded, Limit: limit}, &made))
	c.must(b.Verify(made.Key, made.Evaluated, made.Proof))
	out, err := b.Finalize(made.Evaluated)
	c.must(err)
	c.output = out
	c.must(c.confirm())
	return c
}

func (c *client) confirm() error {
	return c.ask(0, protocol.NewConfirm(c.proof, c.account, public(c.owner), 1, public(c.head), c.slot), nil)
}

func attempt() (a protocol.Attempt) {
	rand.Read(a[:])
	return a
}

// guess enters a PIN and reports whether it was right.
func (c *client) guess(n int, pin string) (a protocol.Attempt, right bool, err error) {
	a = attempt()
	b := blind(pin)
	var e protocol.Evaluated
	if err := c.ask(n, protocol.Evaluate{Attempt: a, Blinded: b.Blinded, Slot: c.slot}, &e); err != nil {
		return a, false, err
	}
	out, err := b.Finalize(e.Element)
	return a, bytes.Equal(out, c.output), err
}

func (c *client) finish(a protocol.Attempt) (uint32, error) {
	var f protocol.Finished
	err := c.ask(0, protocol.NewFinish(c.proof, c.account, a, protocol.Nonce{}), &f)
	return f.Wrong, err
}

func (c *client) status() (s protocol.Status) {
	c.w.Helper()
	c.must(c.ask(0, protocol.AskStatus{}, &s))
	return s
}

func TestRecover(t *testing.T) {
	onAll(t, 1, func(w *world) {
		c := w.client().enrol(10)
		if _, right, err := c.guess(0, "0000"); err != nil || right {
			w.Fatalf("a wrong PIN: %v, %v", right, err)
		}
		if s := c.status(); s.Left != 9 || s.Wrong != 1 || s.State != protocol.StateActive {
			w.Errorf("got %+v", s)
		}
		a, right, err := c.guess(0, pin)
		if err != nil || !right {
			w.Fatalf("the right PIN: %v, %v", right, err)
		}
		wrong, err := c.finish(a)
		if err != nil || wrong != 1 {
			w.Errorf("finish: %d wrong, %v", wrong, err)
		}
		// The reply was lost: it says the same again.
		if wrong, err := c.finish(a); err != nil || wrong != 1 {
			w.Errorf("finish again: %d wrong, %v", wrong, err)
		}
		if s := c.status(); s.Left != 10 || s.Wrong != 0 || s.Life != 1 || s.Until != 0 {
			w.Errorf("got %+v", s)
		}
	})
}

// A lost reply costs no guess, and a proof costs none either.
func TestRepeat(t *testing.T) {
	onAll(t, 2, func(w *world) {
		c := w.client().enrol(5)
		b, a := blind(pin), attempt()
		e := protocol.Evaluate{Attempt: a, Blinded: b.Blinded, Slot: c.slot}
		var first, again protocol.Evaluated
		c.must(c.ask(0, e, &first))
		for i := range 20 {
			c.must(c.ask(i, e, &again))
			if again != first {
				w.Fatalf("got %v, want %v", again, first)
			}
		}
		e.WithProof = 1
		var proven protocol.Proven
		c.must(c.ask(1, e, &proven))
		c.must(b.Verify(proven.Key, proven.Element, proven.Proof))
		if s := c.status(); s.Left != 4 {
			w.Errorf("%d guesses left, want 4", s.Left)
		}
		// The same attempt with another element is no repeat.
		e.Blinded = blind("0000").Blinded
		c.refused(c.ask(0, e, &proven), protocol.CodeDenied)
		if s := c.status(); s.Left != 4 {
			w.Errorf("%d guesses left, want 4", s.Left)
		}
		// And a finished one is over.
		if _, err := c.finish(a); err != nil {
			w.Fatal(err)
		}
		e.Blinded = b.Blinded
		c.refused(c.ask(0, e, &proven), protocol.CodeDenied)
	})
}

// R12: however many guess at once, and at however many servers, no more evaluations leave
// than guesses are allowed, and after them the key is gone.
func TestParallelGuesses(t *testing.T) {
	onAll(t, 4, func(w *world) {
		for _, limit := range []byte{1, 3, 10} {
			c := w.client().enrol(limit)
			var left atomic.Int32
			erased := false
			for range 20 {
				var wg sync.WaitGroup
				var gone atomic.Bool
				for i := range 40 {
					wg.Go(func() {
						_, _, err := c.guess(i, fmt.Sprint(i))
						r, _ := errors.AsType[*protocol.Refusal](err)
						switch {
						case err == nil:
							left.Add(1)
						case r == nil:
							w.Error(err)
						case r.Code == protocol.CodeErased:
							gone.Store(true)
						case r.Code != protocol.CodeLocked && r.Code != protocol.CodeSequence:
							w.Error(err)
						}
					})
				}
				wg.Wait()
				w.later(73 * time.Hour)
				c.seq.Store(uint64(w.now.Load()))
				if erased = gone.Load(); erased {
					break
				}
			}
			if n := left.Load(); n != int32(limit) || !erased {
				w.Errorf("limit %d: %d evaluations left, erased %v", limit, n, erased)
			}
			if s := c.status(); s.State != protocol.StateErased || s.Left != 0 {
				w.Errorf("limit %d: got %+v", limit, s)
			}
			_, _, err := c.guess(0, pin)
			c.refused(err, protocol.CodeErased)
		}
	})
}

// Waiting after wrong guesses, in the order of the table.
func TestBackoff(t *testing.T) {
	w := newWorld(t, &recordtest.Memory{}, 1)
	c := w.client().enrol(10)
	for i, want := range []time.Duration{0, 0, time.Minute, 5 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 72 * time.Hour, 72 * time.Hour, 72 * time.Hour} {
		if _, _, err := c.guess(0, "0"); err != nil {
			t.Fatalf("guess %d: %v", i+1, err)
		}
		until := w.now.Load() + want.Milliseconds()
		if want == 0 {
			until = 0
		}
		if s := c.status(); s.Until != until || int(s.Left) != 9-i {
			t.Fatalf("after guess %d: %d left until %d, want until %d", i+1, s.Left, s.Until, until)
		}
		if want > 0 {
			w.later(want - time.Millisecond)
			_, _, err := c.guess(0, pin)
			if r := c.refused(err, protocol.CodeLocked); r.Locked.Until != until || int(r.Locked.Left) != 9-i {
				t.Errorf("got %+v", r.Locked)
			}
			w.later(time.Millisecond)
			c.seq.Store(max(c.seq.Load(), uint64(w.now.Load())))
		}
	}
	_, _, err := c.guess(0, pin)
	c.refused(err, protocol.CodeErased)
}

// The last guess, if it was right, can be finished, whoever asks in between.
func TestLastGuess(t *testing.T) {
	w := newWorld(t, &recordtest.Memory{}, 1)
	c := w.client().enrol(1)
	a, right, err := c.guess(0, pin)
	if err != nil || !right {
		t.Fatal(right, err)
	}
	_, _, err = c.guess(0, "0")
	c.refused(err, protocol.CodeLocked)
	if _, err := c.finish(a); err != nil {
		t.Fatal(err)
	}
	if s := c.status(); s.Left != 1 {
		t.Errorf("got %+v", s)
	}
}

// Fifty wrong guesses in a life are the end, with however many right ones between.
func TestLife(t *testing.T) {
	w := newWorld(t, &recordtest.Memory{}, 1)
	c := w.client().enrol(10)
	wrong := 0
	for range 100 {
		_, _, err := c.guess(0, "0")
		if r, ok := errors.AsType[*protocol.Refusal](err); ok && r.Code == protocol.CodeErased {
			break
		}
		c.must(err)
		if wrong++; wrong%2 == 0 && wrong < protocol.LifeGuesses {
			a, _, err := c.guess(0, pin)
			c.must(err)
			_, err = c.finish(a)
			c.must(err)
		}
		w.later(73 * time.Hour)
		c.seq.Store(uint64(w.now.Load()))
	}
	if wrong != protocol.LifeGuesses {
		t.Errorf("%d wrong guesses, want %d", wrong, protocol.LifeGuesses)
	}
}

// snapshot returns all records as the database has them.
func (w *world) snapshot() map[keyserver.ID]keyserver.Entry {
	w.Helper()
	all := map[keyserver.ID]keyserver.Entry{}
	one, err := w.records.Get(w.Context(), keyserver.ID{}) // that of no account, which Scan leaves out
	all[one.ID] = one
	for after := (keyserver.ID{}); err == nil; {
		var list []keyserver.Entry
		list, err = w.records.Scan(w.Context(), after, 100)
		if len(list) == 0 {
			break
		}
		for _, e := range list {
			all[e.ID], after = e, e.ID
		}
	}
	if err != nil {
		w.Fatal(err)
	}
	return all
}

// A refused request changes no byte, whatever the refusal.
func TestRefusedWritesNothing(t *testing.T) { onAll(t, 1, refusedWritesNothing) }

func refusedWritesNothing(w *world) {
	t := w.T
	seen := map[protocol.Code]bool{}
	c := w.client().enrol(10)
	stranger := w.client()
	pending, erased, replacing := w.client(), w.client().enrol(1), w.client()
	erased.guess(0, "0")
	w.later(time.Hour)
	for _, one := range []*client{c, stranger, pending, erased, replacing} {
		one.seq.Store(uint64(w.now.Load()))
	}
	_, _, err := erased.guess(0, "0")
	erased.refused(err, protocol.CodeErased) // This one writes.
	c.must(replacing.ask(0, protocol.Create{Blinded: blind(pin).Blinded, Limit: 10, Replaces: c.account, By: protocol.ByProofKey,
		Allowed: protocol.AllowReplace(c.proof, c.account, replacing.account)}, new(protocol.Created)))
	c.must(pending.ask(0, protocol.Create{Blinded: blind(pin).Blinded, Limit: 3}, new(protocol.Created)))
	for range 4 {
		c.guess(0, "0") // The last is locked.
	}
	a := attempt()
	good := protocol.Evaluate{Attempt: a, Blinded: blind(pin).Blinded, Slot: c.slot}
	otherSlot, identity, noAttempt, twice := good, good, good, good
	otherSlot.Slot[0]++
	identity.Blinded = protocol.Element{}
	noAttempt.Attempt = protocol.Attempt{}
	twice.WithProof = 2
	nonce := c.status().Nonce
	old := c.status().Head
	c.must(c.ask(0, protocol.PutHead{Head: protocol.NewHead(c.head, 1, 5, [16]byte{5}, 0)}, &old))
	for what, p := range map[string]struct {
		c    *client
		p    protocol.Payload
		want protocol.Code
	}{
		"locked":                     {c, good, protocol.CodeLocked},
		"another slot":               {c, otherSlot, protocol.CodeSlotDamaged},
		"the identity":               {c, identity, protocol.CodeMalformed},
		"no attempt":                 {c, noAttempt, protocol.CodeDenied},
		"proof twice":                {c, twice, protocol.CodeMalformed},
		"finish with another key":    {c, protocol.NewFinish(fresh(), c.account, a, protocol.Nonce{}), protocol.CodeDenied},
		"finish of no attempt":       {c, protocol.NewFinish(c.proof, c.account, a, protocol.Nonce{}), protocol.CodeDenied},
		"finish with an old nonce":   {c, protocol.NewFinish(c.proof, c.account, protocol.Attempt{}, protocol.Nonce{1}), protocol.CodeDenied},
		"finish for another account": {c, protocol.NewFinish(c.proof, stranger.account, protocol.Attempt{}, nonce), protocol.CodeDenied},
		"create again":               {c, protocol.Create{Blinded: good.Blinded, Limit: 10}, protocol.CodeExists},
		"confirm another slot":       {c, protocol.NewConfirm(c.proof, c.account, public(c.owner), 1, public(c.head), [32]byte{1}), protocol.CodeExists},
		"confirm of another account": {c, protocol.NewConfirm(c.proof, stranger.account, public(c.owner), 1, public(c.head), c.slot), protocol.CodeDenied},
		"no limit":                   {stranger, protocol.Create{Blinded: good.Blinded}, protocol.CodeMalformed},
		"limit 11":                   {stranger, protocol.Create{Blinded: good.Blinded, Limit: 11}, protocol.CodeMalformed},
		"unknown":                    {stranger, good, protocol.CodeUnknown},
		"unknown finish":             {stranger, protocol.NewFinish(c.proof, c.account, a, nonce), protocol.CodeUnknown},
		"unknown delete":             {stranger, protocol.Delete{}, protocol.CodeUnknown},
		"replace without right": {stranger, protocol.Create{Blinded: good.Blinded, Limit: 1, Replaces: c.account, By: protocol.ByProofKey,
			Allowed: protocol.AllowReplace(fresh(), c.account, stranger.account)}, protocol.CodeDenied},
		"replace a pending": {stranger, protocol.Create{Blinded: good.Blinded, Limit: 1, Replaces: pending.account, By: protocol.ByOwner,
			Allowed: protocol.AllowReplace(fresh(), pending.account, stranger.account)}, protocol.CodeDenied},
		"replace by nobody":   {stranger, protocol.Create{Blinded: good.Blinded, Limit: 1, Replaces: c.account}, protocol.CodeMalformed},
		"delete by nobody":    {c, protocol.Delete{}, protocol.CodeDenied},
		"delete by a thief":   {c, protocol.NewDelete(fresh(), c.account, protocol.ByOwner), protocol.CodeDenied},
		"finish of a pending": {pending, protocol.NewFinish(pending.proof, pending.account, a, protocol.Nonce{}), protocol.CodePending},
		"head of a pending":   {pending, protocol.PutHead{Head: protocol.NewHead(pending.head, 1, 1, [16]byte{}, 0)}, protocol.CodePending},
		"head of a thief":     {c, protocol.PutHead{Head: protocol.NewHead(fresh(), 1, 1, [16]byte{}, 0)}, protocol.CodeDenied},
		"head of epoch 2":     {c, protocol.PutHead{Head: protocol.NewHead(c.head, 2, 1, [16]byte{}, 0)}, protocol.CodeConflict},
		"epoch by the writer": {c, protocol.NewInstallEpoch(c.head, 2, public(fresh())), protocol.CodeDenied},
		"epoch 3":             {c, protocol.NewInstallEpoch(c.owner, 3, public(fresh())), protocol.CodeConflict},
		"head 4 after 5":      {c, protocol.PutHead{Head: protocol.NewHead(c.head, 1, 4, [16]byte{4}, 0)}, protocol.CodeConflict},
		"another head 5":      {c, protocol.PutHead{Head: protocol.NewHead(c.head, 1, 5, [16]byte{6}, 0)}, protocol.CodeConflict},
		"epoch of a pending":  {pending, protocol.NewInstallEpoch(c.owner, 2, public(fresh())), protocol.CodePending},
		"unknown confirm":     {stranger, protocol.NewConfirm(c.proof, stranger.account, public(c.owner), 1, public(c.head), c.slot), protocol.CodeUnknown},
		"unknown status":      {stranger, protocol.AskStatus{}, protocol.CodeUnknown},
		"unknown head":        {stranger, protocol.PutHead{Head: protocol.NewHead(c.head, 1, 6, [16]byte{6}, 0)}, protocol.CodeUnknown},
		"unknown epoch":       {stranger, protocol.NewInstallEpoch(c.owner, 2, public(fresh())), protocol.CodeUnknown},
		"replace an unknown": {stranger, protocol.Create{Blinded: good.Blinded, Limit: 1, Replaces: protocol.Account{1}, By: protocol.ByOwner,
			Allowed: protocol.AllowReplace(c.owner, protocol.Account{1}, stranger.account)}, protocol.CodeUnknown},
		"replace what replaces": {stranger, protocol.Create{Blinded: good.Blinded, Limit: 1, Replaces: replacing.account, By: protocol.ByOwner,
			Allowed: protocol.AllowReplace(c.owner, replacing.account, stranger.account)}, protocol.CodeDenied},
		"erased evaluate":           {erased, protocol.Evaluate{Attempt: a, Blinded: good.Blinded, Slot: erased.slot}, protocol.CodeErased},
		"erased finish":             {erased, protocol.NewFinish(erased.proof, erased.account, a, protocol.Nonce{}), protocol.CodeErased},
		"erased confirm":            {erased, protocol.NewConfirm(erased.proof, erased.account, public(c.owner), 1, public(c.head), erased.slot), protocol.CodeErased},
		"erased create":             {erased, protocol.Create{Blinded: good.Blinded, Limit: 1}, protocol.CodeExists},
		"erased delete by its PIN":  {erased, protocol.NewDelete(erased.proof, erased.account, protocol.ByProofKey), protocol.CodeDenied},
		"locked, what replaces":     {replacing, good, protocol.CodeLocked},
		"confirm by another key":    {replacing, confirmedBy(c.proof, replacing), protocol.CodeDenied},
		"delete with authority":     {pending, protocol.NewDelete(pending.owner, pending.account, protocol.ByOwner), protocol.CodeDenied},
		"delete with a bad number":  {c, protocol.Delete{By: 9}, protocol.CodeDenied},
		"create with a bad number":  {stranger, protocol.Create{Blinded: good.Blinded, Limit: 1, Replaces: c.account, By: 9}, protocol.CodeMalformed},
		"create of no element":      {stranger, protocol.Create{Blinded: protocol.Element(bytes.Repeat([]byte{255}, 32)), Limit: 1}, protocol.CodeMalformed},
		"evaluate what is no point": {c, protocol.Evaluate{Attempt: a, Blinded: protocol.Element(bytes.Repeat([]byte{255}, 32)), Slot: c.slot}, protocol.CodeMalformed},
	} {
		before := w.snapshot()
		r := p.c.refused(p.c.ask(0, p.p, nil), p.want)
		seen[r.Code] = true
		if d := cmp.Diff(before, w.snapshot()); d != "" {
			t.Errorf("%s: changed %s", what, d)
		}
	}
	// Nor does what is no request, or is of another's key, or repeated.
	before := w.snapshot()
	body := protocol.Sign(c.access, 1, good)
	if r := c.refused(protocol.ParseReply(w.servers[0].Answer(t.Context(), body, ""), nil), protocol.CodeSequence); r.Sequence.Last == 0 || r.Sequence.Now != w.now.Load() {
		t.Errorf("got %+v", r.Sequence)
	}
	body[len(body)-1] ^= 1
	c.refused(protocol.ParseReply(w.servers[0].Answer(t.Context(), body, ""), nil), protocol.CodeSignature)
	c.refused(protocol.ParseReply(w.servers[0].Answer(t.Context(), body[:50], ""), nil), protocol.CodeMalformed)
	body[0] = 2
	c.refused(protocol.ParseReply(w.servers[0].Answer(t.Context(), body, ""), nil), protocol.CodeNewer)
	far := protocol.Sign(c.access, c.seq.Load()+uint64(protocol.MaxAhead.Milliseconds())+1, good)
	c.refused(protocol.ParseReply(w.servers[0].Answer(t.Context(), far, ""), nil), protocol.CodeSequence)
	closed, err := keyserver.New(t.Context(), keyserver.Config{Records: w.records, Master: w.master, Allowed: func(string) bool { return false }})
	c.must(err)
	make := protocol.Sign(stranger.access, uint64(time.Now().UnixMilli()), protocol.Create{Blinded: good.Blinded, Limit: 1})
	c.refused(protocol.ParseReply(closed.Answer(t.Context(), make, ""), nil), protocol.CodeToken)
	for _, code := range []protocol.Code{protocol.CodeSequence, protocol.CodeSignature, protocol.CodeMalformed, protocol.CodeNewer, protocol.CodeToken} {
		seen[code] = true
	}
	if d := cmp.Diff(before, w.snapshot()); d != "" {
		t.Errorf("changed %s", d)
	}
	for code := protocol.CodeUnknown; code <= protocol.CodeNewer; code++ {
		if !seen[code] && code != protocol.CodeUnavailable { // whose tests are TestFaults and those of the commands
			t.Errorf("nothing was refused as %v", code)
		}
	}
}

// confirmedBy is a confirm with the proof key of another account than the one that
// signed.
func confirmedBy(proof ed25519.PrivateKey, of *client) protocol.Confirm {
	p := protocol.NewConfirm(proof, of.account, public(of.owner), 1, public(of.head), of.slot)
	p.Proof = public(of.proof)
	return p
}

// Every reply is lost once, and so is every request, at two servers in turn: whatever is
// asked again is answered as the first time or was done, and no guess is lost by it.
func TestLostReplies(t *testing.T) {
	onAll(t, 2, func(w *world) {
		lost, again := w.client(), w.client()
		left := func(c *client, want byte) {
			w.Helper()
			if s := c.status(); s.Left != want {
				w.Errorf("%d guesses left, want %d", s.Left, want)
			}
		}
		// twice sends the same bytes to one server and to the other.
		twice := func(c *client, p protocol.Payload, first, second any) {
			w.Helper()
			body := protocol.Sign(c.access, c.seq.Add(1), p)
			for i, reply := range []any{first, second} {
				if err := protocol.ParseReply(w.servers[i].Answer(w.Context(), body, ""), reply); err != nil {
					w.Fatalf("%T: %v", p, err)
				}
			}
			if d := cmp.Diff(first, second); d != "" {
				w.Errorf("%T: another answer: %s", p, d)
			}
		}
		b := blind(pin)
		var made, made2 protocol.Created
		body := protocol.Sign(lost.access, lost.seq.Add(1), protocol.Create{Blinded: b.Blinded, Limit: 10})
		lost.must(protocol.ParseReply(w.servers[0].Answer(w.Context(), body, ""), &made))
		lost.must(protocol.ParseReply(w.servers[1].Answer(w.Context(), body, ""), &made2))
		if made.Key != made2.Key || made.Evaluated != made2.Evaluated {
			w.Error("another key for the same request")
		}
		twice(lost, protocol.NewConfirm(lost.proof, lost.account, public(lost.owner), 1, public(lost.head), lost.slot), nil, nil)
		for i := range 3 {
			e := protocol.Evaluate{Attempt: attempt(), Blinded: blind("0").Blinded, Slot: lost.slot}
			twice(lost, e, new(protocol.Evaluated), new(protocol.Evaluated))
			left(lost, byte(9-i))
		}
		w.later(time.Hour)
		lost.seq.Store(uint64(w.now.Load()))
		a := attempt()
		e := protocol.Evaluate{Attempt: a, Blinded: blind(pin).Blinded, Slot: lost.slot}
		twice(lost, e, new(protocol.Evaluated), new(protocol.Evaluated))
		e.WithProof = 1
		var proven, proven2 protocol.Proven
		lost.must(lost.ask(0, e, &proven))
		lost.must(lost.ask(1, e, &proven2))
		if proven.Element != proven2.Element || proven.Key != proven2.Key {
			w.Error("another evaluation for the same attempt")
		}
		left(lost, 6)
		twice(lost, protocol.NewFinish(lost.proof, lost.account, a, protocol.Nonce{}), new(protocol.Finished), new(protocol.Finished))
		left(lost, 10)
		twice(lost, protocol.PutHead{Head: protocol.NewHead(lost.head, 1, 1, [16]byte{1}, 0)}, new(protocol.Head), new(protocol.Head))
		twice(lost, protocol.NewInstallEpoch(lost.owner, 2, public(fresh())), nil, nil)
		// What replaces it, and its confirm, which ends it.
		again.owner = lost.owner
		again.seq.Store(uint64(w.now.Load()))
		lost.must(again.ask(0, protocol.Create{Blinded: b.Blinded, Limit: 10, Replaces: lost.account, By: protocol.ByOwner,
			Allowed: protocol.AllowReplace(lost.owner, lost.account, again.account)}, &made))
		twice(again, protocol.NewConfirm(again.proof, again.account, public(again.owner), 2, public(again.head), again.slot), nil, nil)
		left(again, 10)
		// A delete that is repeated finds nothing, which is as good.
		d := protocol.NewDelete(again.owner, again.account, protocol.ByOwner)
		again.must(again.ask(0, d, nil))
		again.refused(again.ask(1, d, nil), protocol.CodeUnknown)
	})
}

// Who copied the slot can sign requests, and cannot lock its owner out by numbers.
func TestSequence(t *testing.T) {
	w := newWorld(t, &recordtest.Memory{}, 1)
	c := w.client().enrol(10)
	top := uint64(w.now.Load() + protocol.MaxAhead.Milliseconds())
	thief := protocol.Sign(c.access, top, protocol.Evaluate{Attempt: attempt(), Blinded: blind("0").Blinded, Slot: c.slot})
	c.must(protocol.ParseReply(w.servers[0].Answer(t.Context(), thief, ""), new(protocol.Evaluated)))
	_, _, err := c.guess(0, pin)
	r := c.refused(err, protocol.CodeSequence)
	if r.Sequence.Last != top {
		t.Fatalf("got %+v, want last %d", r.Sequence, top)
	}
	c.seq.Store(r.Sequence.Last)
	if _, right, err := c.guess(0, pin); err != nil || !right {
		t.Errorf("after the refusal: %v, %v", right, err)
	}
	// A recorded request is worth nothing.
	c.refused(protocol.ParseReply(w.servers[0].Answer(t.Context(), thief, ""), new(protocol.Evaluated)), protocol.CodeSequence)
}

// At a guardian that had no part in an attempt, its nonce is signed instead.
func TestFinishWithNonce(t *testing.T) {
	w := newWorld(t, &recordtest.Memory{}, 1)
	c := w.client().enrol(10)
	for range 2 {
		_, _, err := c.guess(0, "0")
		c.must(err)
	}
	f := protocol.NewFinish(c.proof, c.account, protocol.Attempt{}, c.status().Nonce)
	var done protocol.Finished
	c.must(c.ask(0, f, &done))
	if done.Wrong != 2 {
		t.Errorf("%d wrong, want 2", done.Wrong)
	}
	c.guess(0, "0")
	// Who recorded it cannot set the counter back with it.
	c.refused(c.ask(0, f, &done), protocol.CodeDenied)
	if s := c.status(); s.Left != 9 {
		t.Errorf("%d left, want 9", s.Left)
	}
}

// An account that is not confirmed gives its guesses like any other, is never refilled,
// and goes after seven days.
func TestPending(t *testing.T) {
	onAll(t, 1, func(w *world) {
		c := w.client()
		b := blind(pin)
		make := protocol.Create{Blinded: b.Blinded, Limit: 2}
		var made, again protocol.Created
		c.must(c.ask(0, make, &made))
		c.must(c.ask(0, make, &again)) // The reply was lost.
		if made.Key != again.Key || made.Evaluated != again.Evaluated {
			w.Error("another key for the same request")
		}
		other := make
		other.Blinded = blind("1").Blinded
		c.refused(c.ask(0, other, &again), protocol.CodeExists)
		for range 2 {
			_, _, err := c.guess(0, "0")
			c.must(err)
		}
		w.later(11 * time.Minute)
		c.seq.Store(uint64(w.now.Load()))
		_, _, err := c.guess(0, "0")
		c.refused(err, protocol.CodeErased)
		c.refused(c.confirm(), protocol.CodeErased)

		d := w.client()
		d.seq.Store(uint64(w.now.Load()))
		c.must(d.ask(0, make, &made))
		if s := d.status(); s.State != protocol.StatePending || s.Expires != w.now.Load()+protocol.PendingLife.Milliseconds() {
			w.Errorf("got %+v", s)
		}
		w.later(protocol.PendingLife + time.Millisecond)
		c.refused(d.confirm(), protocol.CodeUnknown)
		d.seq.Store(uint64(w.now.Load()))
		c.must(d.ask(0, make, &again))
		if made.Key == again.Key {
			w.Error("the key of an account that was gone is back")
		}
		c.must(d.confirm())
		c.must(d.confirm()) // The reply was lost.
		w.later(2 * protocol.PendingLife)
		if s := d.status(); s.State != protocol.StateActive || s.Expires != 0 {
			w.Errorf("got %+v", s)
		}
	})
}

// One that is to take the place of another does not expire: its client may have ended
// the old one elsewhere, and died.
func TestReplacementStays(t *testing.T) {
	onAll(t, 1, func(w *world) {
		old, c := w.client().enrol(10), w.client()
		b := blind(pin)
		var made protocol.Created
		c.must(c.ask(0, protocol.Create{
			Blinded: b.Blinded, Limit: 10, Replaces: old.account, By: protocol.ByProofKey,
			Allowed: protocol.AllowReplace(old.proof, old.account, c.account),
		}, &made))
		w.later(10 * protocol.PendingLife)
		old.seq.Store(uint64(w.now.Load()))
		c.seq.Store(uint64(w.now.Load()))
		if s := c.status(); s.State != protocol.StatePending || s.Expires != 0 {
			w.Errorf("got %+v", s)
		}
		for _, one := range []*client{old, c} {
			_, _, err := one.guess(0, pin)
			one.must(err)
		}
		if s := old.status(); s.Left != 8 { // They count together.
			w.Errorf("got %+v", s)
		}
		c.must(c.confirm())
		old.refused(old.ask(0, protocol.AskStatus{}, nil), protocol.CodeUnknown)
	})
}

// A key takes the place of another: at every moment one of them opens, both count
// guesses together, and afterwards the old one is gone.
func TestReplace(t *testing.T) {
	onAll(t, 1, func(w *world) {
		for by, name := range map[protocol.Authority]string{protocol.ByProofKey: "proof key", protocol.ByOwner: "owner"} {
			old := w.client().enrol(10)
			old.must(old.ask(0, protocol.PutHead{Head: protocol.NewHead(old.head, 1, 5, [16]byte{5}, 0)}, new(protocol.Head)))
			allow := old.proof
			if by == protocol.ByOwner {
				allow = old.owner
			}
			c := w.client()
			c.owner, c.head = old.owner, old.head
			b := blind("2222")
			make := protocol.Create{Blinded: b.Blinded, Limit: 10, Replaces: old.account, By: by, Allowed: protocol.AllowReplace(allow, old.account, c.account)}
			var made, again protocol.Created
			c.must(c.ask(0, make, &made))
			c.must(c.ask(0, make, &again))
			if made.Key != again.Key {
				w.Errorf("%s: another key for the same request", name)
			}
			c.output, _ = b.Finalize(made.Evaluated)
			// One counter.
			_, _, err := c.guess(0, "0")
			c.must(err)
			a, right, err := old.guess(0, pin)
			if err != nil || !right {
				w.Fatalf("%s: the old PIN before: %v, %v", name, right, err)
			}
			if o, n := old.status(), c.status(); o.Left != 8 || n.Left != 8 {
				w.Errorf("%s: %d and %d left, want 8", name, o.Left, n.Left)
			}
			_, err = old.finish(a)
			c.must(err)
			c.must(c.confirm())
			old.refused(old.ask(0, protocol.AskStatus{}, new(protocol.Status)), protocol.CodeUnknown)
			_, _, err = old.guess(0, pin)
			old.refused(err, protocol.CodeUnknown)
			// The old access key, which is in old copies of the cloud, makes nothing anew.
			old.refused(old.ask(0, protocol.Create{Blinded: b.Blinded, Limit: 10}, &again), protocol.CodeExists)
			a, right, err = c.guess(0, "2222")
			if err != nil || !right {
				w.Fatalf("%s: the new PIN: %v, %v", name, right, err)
			}
			_, err = c.finish(a)
			c.must(err)
			if s := c.status(); s.Head.Generation != 5 || s.Epoch != 1 || s.Left != 10 {
				w.Errorf("%s: got %+v", name, s)
			}
			// And once more, from there.
			third := w.client()
			third.owner, third.head = old.owner, old.head
			c.must(third.ask(0, protocol.Create{Blinded: b.Blinded, Limit: 3, Replaces: c.account, By: protocol.ByOwner,
				Allowed: protocol.AllowReplace(old.owner, c.account, third.account)}, &made))
			c.must(third.confirm())
			c.refused(c.ask(0, protocol.AskStatus{}, new(protocol.Status)), protocol.CodeUnknown)
			if s := third.status(); s.Limit != 3 || s.State != protocol.StateActive {
				w.Errorf("%s: got %+v", name, s)
			}
			// Deleted by its owner, nothing of it is left.
			c.must(third.ask(0, protocol.NewDelete(old.owner, third.account, protocol.ByOwner), nil))
			third.refused(third.ask(0, protocol.AskStatus{}, new(protocol.Status)), protocol.CodeUnknown)
		}
	})
}

// An owner whose key was erased enrols anew in its place.
func TestReplaceErased(t *testing.T) {
	w := newWorld(t, &recordtest.Memory{}, 1)
	c := w.client().enrol(1)
	c.guess(0, "0")
	w.later(time.Hour)
	c.seq.Store(uint64(w.now.Load()))
	_, _, err := c.guess(0, "0")
	c.refused(err, protocol.CodeErased)
	n := w.client()
	n.owner, n.head = c.owner, c.head
	n.seq.Store(uint64(w.now.Load()))
	b := blind("3")
	var made protocol.Created
	c.must(n.ask(0, protocol.Create{Blinded: b.Blinded, Limit: 5, Replaces: c.account, By: protocol.ByOwner, Allowed: protocol.AllowReplace(c.owner, c.account, n.account)}, &made))
	n.output, _ = b.Finalize(made.Evaluated)
	c.must(n.confirm())
	if _, right, err := n.guess(0, "3"); err != nil || !right {
		t.Errorf("after enrolling anew: %v, %v", right, err)
	}
}

func TestHead(t *testing.T) {
	onAll(t, 1, func(w *world) {
		c := w.client().enrol(10)
		put := func(h protocol.Head) (kept protocol.Head, err error) {
			err = c.ask(0, protocol.PutHead{Head: h}, &kept)
			return kept, err
		}
		h5 := protocol.NewHead(c.head, 1, 5, [16]byte{5}, 1)
		for range 2 { // The second time the reply was lost.
			if kept, err := put(h5); err != nil || kept != h5 {
				w.Fatalf("got %+v, %v", kept, err)
			}
		}
		for what, h := range map[string]protocol.Head{
			"older": protocol.NewHead(c.head, 1, 4, [16]byte{4}, 1), "another of that generation": protocol.NewHead(c.head, 1, 5, [16]byte{6}, 1),
		} {
			_, err := put(h)
			if r := c.refused(err, protocol.CodeConflict); r.Head != h5 {
				w.Errorf("%s: got %+v", what, r.Head)
			}
		}
		h9 := protocol.NewHead(c.head, 1, 9, [16]byte{9}, 1) // Some were missed.
		if _, err := put(h9); err != nil {
			w.Fatal(err)
		}
		// Another device takes over; it chose an older state, knowing it.
		next := fresh()
		for range 2 {
			c.must(c.ask(0, protocol.NewInstallEpoch(c.owner, 2, public(next)), nil))
		}
		c.refused(c.ask(0, protocol.NewInstallEpoch(c.owner, 2, public(fresh())), nil), protocol.CodeConflict)
		_, err := put(protocol.NewHead(c.head, 1, 10, [16]byte{10}, 1))
		c.refused(err, protocol.CodeConflict)
		h7 := protocol.NewHead(next, 2, 7, [16]byte{7}, 1)
		if kept, err := put(h7); err != nil || kept != h7 {
			w.Fatalf("got %+v, %v", kept, err)
		}
		if s := c.status(); s.Head != h7 || s.Epoch != 2 || s.HeadKey != public(next) || !s.Head.SignedBy(s.HeadKey) {
			w.Errorf("got %+v", s)
		}
	})
}

// After the database was put back from a copy, an account has two guesses at most until
// its next success, and its head is not proven.
func TestAfterRestore(t *testing.T) {
	m := &recordtest.Memory{}
	w := newWorld(t, m, 1)
	c := w.client().enrol(10)
	h := protocol.NewHead(c.head, 1, 5, [16]byte{5}, 1)
	c.must(c.ask(0, protocol.PutHead{Head: h}, new(protocol.Head)))
	copied := m.Snapshot()
	for range 5 {
		c.guess(0, "0")
		w.later(73 * time.Hour)
		c.seq.Store(uint64(w.now.Load()))
	}
	m.Restore(copied)
	w.servers[0] = w.server(true)
	w.servers[0] = w.server(false) // It was started again since.
	if s := c.status(); s.Left != 2 || s.Unproven != 1 || s.Head != h {
		t.Errorf("got %+v", s)
	}
	a, right, err := c.guess(0, pin)
	if err != nil || !right {
		t.Fatal(right, err)
	}
	_, err = c.finish(a)
	c.must(err)
	c.must(c.ask(0, protocol.PutHead{Head: h}, new(protocol.Head)))
	if s := c.status(); s.Left != 10 || s.Unproven != 0 {
		t.Errorf("got %+v", s)
	}
}

// A database that fails, before or after it wrote, costs nobody a guess twice, and
// gives none away.
func TestFaults(t *testing.T) {
	m := &recordtest.Memory{}
	w := newWorld(t, m, 2)
	c := w.client().enrol(10)
	for _, done := range []bool{false, true} {
		left := c.status().Left
		fail := true
		m.Fault = func([]keyserver.Write) (error, bool) {
			if !fail {
				return nil, false
			}
			fail = false
			return errors.New("the database went away"), done
		}
		e := protocol.Evaluate{Attempt: attempt(), Blinded: blind(pin).Blinded, Slot: c.slot}
		c.refused(c.ask(0, e, new(protocol.Evaluated)), protocol.CodeUnavailable)
		c.must(c.ask(1, e, new(protocol.Evaluated)))
		if got := c.status().Left; got != left-1 {
			t.Errorf("written %v: %d guesses left, want %d", done, got, left-1)
		}
	}
}

// Records are worth nothing without the master key, nor in another's place.
func TestSealed(t *testing.T) {
	m := &recordtest.Memory{}
	w := newWorld(t, m, 1)
	a, b := w.client().enrol(10), w.client().enrol(10)
	records := m.Snapshot()
	for id, e := range records {
		for what, text := range map[string][]byte{"slot": a.slot[:], "account": a.account[:], "proof key": a.proof.Public().(ed25519.PublicKey)} {
			if bytes.Contains(e.Data, text) {
				t.Errorf("record %x shows the %s", id, what)
			}
		}
	}
	ea, eb := records[keyserver.ID(a.account)], records[keyserver.ID(b.account)]
	ea.Data, eb.Data = eb.Data, ea.Data
	records[keyserver.ID(a.account)], records[keyserver.ID(b.account)] = ea, eb
	m.Restore(records)
	_, _, err := a.guess(0, pin)
	a.refused(err, protocol.CodeUnavailable)

	w.master = master(t, 2)
	if _, err := keyserver.New(t.Context(), keyserver.Config{Records: m, Master: w.master}); !errors.Is(err, keyserver.ErrMaster) {
		t.Errorf("another master key: got %v", err)
	}
	// A new key before the old one opens both.
	w.master = master(t, 2, 1)
	w.servers[0] = w.server(false)
	ea.Data, eb.Data = eb.Data, ea.Data
	records[keyserver.ID(a.account)], records[keyserver.ID(b.account)] = ea, eb
	m.Restore(records)
	if _, right, err := a.guess(0, pin); err != nil || !right {
		t.Errorf("after a rotation: %v, %v", right, err)
	}
}

// late is a database of which a server sees what another one just wrote only at a second
// look.
type late struct {
	*recordtest.Memory
	mu   sync.Mutex
	miss map[keyserver.ID]bool
}

func (l *late) Get(ctx context.Context, id keyserver.ID) (keyserver.Entry, error) {
	l.mu.Lock()
	miss := l.miss[id]
	delete(l.miss, id)
	l.mu.Unlock()
	if miss {
		return keyserver.Entry{}, keyserver.ErrNoRecord
	}
	return l.Memory.Get(ctx, id)
}

// A create that is repeated, and comes to two servers of one database at once, is answered
// by both with the same key.
func TestCreateAtTwoServers(t *testing.T) {
	records := &late{Memory: &recordtest.Memory{}, miss: map[keyserver.ID]bool{}}
	w := newWorld(t, records, 2)
	old := w.client().enrol(10)
	for _, replaces := range []bool{false, true} {
		c := w.client()
		c.owner = old.owner
		create := protocol.Create{Blinded: blind("2222").Blinded, Limit: 10}
		if replaces {
			create.Replaces, create.By, create.Allowed = old.account, protocol.ByOwner, protocol.AllowReplace(old.owner, old.account, c.account)
		}
		var made, again protocol.Created
		c.must(c.ask(0, create, &made))
		records.miss[keyserver.ID(c.account)] = true
		c.must(c.ask(1, create, &again))
		if made.Key != again.Key {
			t.Errorf("replaces %v: another key for the same request", replaces)
		}
		if records.miss[keyserver.ID(c.account)] {
			t.Errorf("replaces %v: it was not looked for", replaces)
		}
	}
}
