package keyserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/satchel-backup/satchel/protocol"
)

// record is what is kept, sealed, for one account: its key, and while it is being
// replaced the key that takes its place. Both share one counter of guesses.
type record struct {
	Keys [2]key // the one that counts, and the one that is to take its place

	Used   uint8  // guesses since the last success
	Wrong  uint32 // the same, never set back by anything but a success that is told
	Life   uint32 // wrong guesses in the life of Keys[0]
	Before int64  // no guess before; Unix time in milliseconds

	Owner    protocol.Public
	Epoch    uint64
	HeadKey  protocol.Public
	Head     protocol.Head // zero if there is none
	Unproven uint8         // 1 after the database was put back, until the next head

	Incarnation uint32 // of the database, when the counter was last looked at; see Server
}

// key is one account with its secret.
type key struct {
	Account protocol.Account
	State   protocol.State // 0 if there is none
	Secret  [32]byte       // scalar; zero once erased
	Limit   uint8
	Created int64            // Unix time in milliseconds
	Blinded protocol.Element // of the evaluation that cost nothing
	Proof   protocol.Public
	Slot    [32]byte
	Seq     uint64
	Attempt attempt
}

// attempt is the newest entry of a PIN.
type attempt struct {
	ID       protocol.Attempt
	Blinded  protocol.Element
	Finished uint8  // 1 if the slot opened
	Wrong    uint32 // what Finish answered
}

// recordVersion is the first byte of a record.
const recordVersion = 1

var errRecord = errors.New("a record is not what this version writes")

// recordSize is how many bytes a record has after its version.
var recordSize = binary.Size(record{})

// bytes returns all fields in their order, big-endian: what package encoding/binary makes
// of the struct, which takes ten times as long, for it looks at each byte by reflection.
func (r *record) bytes() []byte {
	w := wire{b: append(make([]byte, 0, 1+recordSize), recordVersion)}
	w.record(r)
	return w.b
}

func parseRecord(b []byte) (*record, error) {
	if len(b) != 1+recordSize || b[0] != recordVersion {
		return nil, errRecord
	}
	var r record
	w := wire{b: b[1:], reads: true}
	w.record(&r)
	return &r, nil
}

// wire writes fields behind b, or reads them from it. There must be enough to read.
type wire struct {
	b     []byte
	reads bool
}

func (w *wire) record(r *record) {
	for i := range r.Keys {
		w.key(&r.Keys[i])
	}
	w.u8(&r.Used)
	w.u32(&r.Wrong)
	w.u32(&r.Life)
	w.i64(&r.Before)
	w.bytes(r.Owner[:])
	w.u64(&r.Epoch)
	w.bytes(r.HeadKey[:])
	w.u64(&r.Head.Epoch)
	w.u64(&r.Head.Generation)
	w.bytes(r.Head.Snapshot[:])
	w.u8(&r.Head.Mode)
	w.bytes(r.Head.Signature[:])
	w.u8(&r.Unproven)
	w.u32(&r.Incarnation)
}

func (w *wire) key(k *key) {
	w.bytes(k.Account[:])
	w.u8((*byte)(&k.State))
	w.bytes(k.Secret[:])
	w.u8(&k.Limit)
	w.i64(&k.Created)
	w.bytes(k.Blinded[:])
	w.bytes(k.Proof[:])
	w.bytes(k.Slot[:])
	w.u64(&k.Seq)
	w.bytes(k.Attempt.ID[:])
	w.bytes(k.Attempt.Blinded[:])
	w.u8(&k.Attempt.Finished)
	w.u32(&k.Attempt.Wrong)
}

func (w *wire) bytes(v []byte) {
	if w.reads {
		w.b = w.b[copy(v, w.b):]
	} else {
		w.b = append(w.b, v...)
	}
}

func (w *wire) u8(v *uint8) {
	if w.reads {
		*v, w.b = w.b[0], w.b[1:]
	} else {
		w.b = append(w.b, *v)
	}
}

func (w *wire) u32(v *uint32) {
	if w.reads {
		*v, w.b = binary.BigEndian.Uint32(w.b), w.b[4:]
	} else {
		w.b = binary.BigEndian.AppendUint32(w.b, *v)
	}
}

func (w *wire) u64(v *uint64) {
	if w.reads {
		*v, w.b = binary.BigEndian.Uint64(w.b), w.b[8:]
	} else {
		w.b = binary.BigEndian.AppendUint64(w.b, *v)
	}
}

func (w *wire) i64(v *int64) {
	u := uint64(*v)
	w.u64(&u)
	*v = int64(u)
}

// backoff is how long there is no guess after the third wrong one and each that follows.
var backoff = []time.Duration{time.Minute, 5 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 72 * time.Hour}

// firstBackoff is the guess after which there is the first.
const firstBackoff = 3

// lastGuess is how long the last guess can be finished before another attempt erases the
// key.
const lastGuess = 10 * time.Minute

func backoffAfter(used uint8) time.Duration {
	if used < firstBackoff {
		return 0
	}
	return backoff[min(int(used)-firstBackoff, len(backoff)-1)]
}

// left returns how many guesses a key has left.
func (r *record) left(k *key) byte {
	if k.State != protocol.StatePending && k.State != protocol.StateActive || r.Life >= protocol.LifeGuesses || r.Used >= k.Limit {
		return 0
	}
	return k.Limit - r.Used
}

// erase forgets the secret for ever.
func (k *key) erase() {
	k.Secret = [32]byte{}
	k.Blinded = protocol.Element{}
	k.Attempt = attempt{}
	k.State = protocol.StateErased
}

// expires returns when a key goes by itself, 0 for never. One that is to take the place
// of an active one stays: its client may have confirmed it at other guardians and died,
// and then neither the old slot nor the new one has all of its keys. It shares the
// other's counter, so nobody gains a guess.
func (r *record) expires(k *key) int64 {
	if k.State != protocol.StatePending || k == &r.Keys[1] && r.Keys[0].State == protocol.StateActive {
		return 0
	}
	return k.Created + protocol.PendingLife.Milliseconds()
}

// expire drops keys that were never confirmed. It reports whether nothing is left.
func (r *record) expire(now int64) (gone bool) {
	for i := range r.Keys {
		if t := r.expires(&r.Keys[i]); t != 0 && now > t {
			r.Keys[i] = key{}
		}
	}
	return r.Keys[0].State == 0 && r.Keys[1].State == 0
}

// find returns the key of an account.
func (r *record) find(a protocol.Account) (*key, error) {
	for i := range r.Keys {
		if k := &r.Keys[i]; k.State != 0 && k.Account == a {
			return k, nil
		}
	}
	return nil, &protocol.Refusal{Code: protocol.CodeUnknown}
}

// sequence returns a refusal unless a request's number is in order, and takes it.
func (k *key) sequence(seq uint64, now int64) error {
	most := max(k.Seq, uint64(max(now, 0)))
	if seq <= k.Seq || seq-min(seq, most) > uint64(protocol.MaxAhead.Milliseconds()) {
		return &protocol.Refusal{Code: protocol.CodeSequence, Sequence: protocol.Sequence{Last: k.Seq, Now: now}}
	}
	k.Seq = seq
	return nil
}

func refuse(c protocol.Code) error { return &protocol.Refusal{Code: c} }

// evaluate takes a guess, unless it repeats the newest attempt. The caller makes the
// record durable before it evaluates.
func (r *record) evaluate(k *key, seq uint64, e *protocol.Evaluate, now int64) error {
	if k.State == protocol.StateErased {
		return refuse(protocol.CodeErased)
	}
	if k.State == protocol.StateActive && e.Slot != k.Slot {
		return refuse(protocol.CodeSlotDamaged)
	}
	if k.Attempt.ID == e.Attempt && k.Attempt.Blinded == e.Blinded && k.Attempt.Finished == 0 && e.Attempt != (protocol.Attempt{}) {
		return nil
	}
	if e.Attempt == (protocol.Attempt{}) || e.Attempt == k.Attempt.ID {
		return refuse(protocol.CodeDenied) // An attempt has one element, and ends once.
	}
	if err := k.sequence(seq, now); err != nil {
		return err
	}
	if now < r.Before {
		return &protocol.Refusal{Code: protocol.CodeLocked, Locked: protocol.Locked{Until: r.Before, Left: r.left(k)}}
	}
	if r.left(k) == 0 {
		// The last guess had its time to be finished.
		return errErase
	}
	r.Used++
	r.Wrong++
	r.Life++
	r.Before = 0
	d := backoffAfter(r.Used)
	if r.left(k) == 0 {
		d = max(d, lastGuess)
	}
	if d > 0 {
		r.Before = now + d.Milliseconds()
	}
	k.Attempt = attempt{ID: e.Attempt, Blinded: e.Blinded}
	return nil
}

// errErase says that a refusal writes: the key goes.
var errErase = errors.New("too many wrong guesses")

// finish takes the proof that a slot opened.
func (r *record) finish(k *key, seq uint64, f *protocol.Finish, nonce protocol.Nonce, now int64) (protocol.Finished, error) {
	none := protocol.Finished{}
	switch {
	case k.State == protocol.StatePending:
		return none, refuse(protocol.CodePending)
	case k.State == protocol.StateErased:
		return none, refuse(protocol.CodeErased)
	case !f.OpenedBy(k.Proof, k.Account):
		return none, refuse(protocol.CodeDenied)
	}
	own := f.Attempt != protocol.Attempt{}
	if own && f.Attempt == k.Attempt.ID && k.Attempt.Finished == 1 {
		return protocol.Finished{Wrong: k.Attempt.Wrong}, nil
	}
	if own && f.Attempt != k.Attempt.ID || !own && f.Nonce != nonce {
		return none, refuse(protocol.CodeDenied)
	}
	if err := k.sequence(seq, now); err != nil {
		return none, err
	}
	wrong := r.Wrong
	if own {
		wrong--
		r.Life--
		k.Attempt.Finished, k.Attempt.Wrong = 1, wrong
	}
	r.Used, r.Wrong, r.Before = 0, 0, 0
	return protocol.Finished{Wrong: wrong}, nil
}

// confirm makes a key the one that counts.
func (r *record) confirm(k *key, seq uint64, c *protocol.Confirm, now int64) error {
	switch {
	case k.State == protocol.StateErased:
		return refuse(protocol.CodeErased)
	case !c.Valid(k.Account):
		return refuse(protocol.CodeDenied)
	case k.State == protocol.StateActive && k.Proof == c.Proof && k.Slot == c.Slot:
		return nil // The reply was lost.
	case k.State == protocol.StateActive:
		return refuse(protocol.CodeExists)
	}
	if err := k.sequence(seq, now); err != nil {
		return err
	}
	if r.left(k) == 0 {
		return errErase
	}
	k.State, k.Proof, k.Slot, k.Blinded = protocol.StateActive, c.Proof, c.Slot, protocol.Element{}
	k.Attempt = attempt{}
	if k == &r.Keys[1] {
		r.Keys = [2]key{*k}
	} else {
		// A new account. One that replaces another goes on with its head.
		r.Owner, r.Epoch, r.HeadKey = c.Owner, c.Epoch, c.Head
	}
	if r.Owner != c.Owner {
		r.Owner, r.Epoch, r.HeadKey, r.Head = c.Owner, c.Epoch, c.Head, protocol.Head{}
	}
	r.Used, r.Wrong, r.Life, r.Before = 0, 0, 0, 0
	return nil
}

// head moves the head forward.
func (r *record) head(k *key, seq uint64, h *protocol.Head, now int64) error {
	if k.State == protocol.StatePending {
		return refuse(protocol.CodePending)
	}
	if !h.SignedBy(r.HeadKey) {
		if h.Epoch != r.Epoch {
			return &protocol.Refusal{Code: protocol.CodeConflict, Head: r.Head}
		}
		return refuse(protocol.CodeDenied)
	}
	if *h == r.Head && r.Unproven == 0 {
		return nil
	}
	if h.Epoch != r.Epoch || h.Epoch == r.Head.Epoch && h.Generation <= r.Head.Generation && *h != r.Head {
		return &protocol.Refusal{Code: protocol.CodeConflict, Head: r.Head}
	}
	if err := k.sequence(seq, now); err != nil {
		return err
	}
	r.Head, r.Unproven = *h, 0
	return nil
}

// install makes another device the writer.
func (r *record) install(k *key, seq uint64, i *protocol.InstallEpoch, now int64) error {
	switch {
	case k.State == protocol.StatePending:
		return refuse(protocol.CodePending)
	case !i.InstalledBy(r.Owner):
		return refuse(protocol.CodeDenied)
	case i.Epoch == r.Epoch && i.Head == r.HeadKey:
		return nil
	case i.Epoch != r.Epoch+1:
		return &protocol.Refusal{Code: protocol.CodeConflict, Head: r.Head}
	}
	if err := k.sequence(seq, now); err != nil {
		return err
	}
	r.Epoch, r.HeadKey = i.Epoch, i.Head
	return nil
}

// afterRestore leaves at most two guesses: those that were made since the copy are
// forgotten.
func (r *record) afterRestore(incarnation uint32) {
	if r.Incarnation == incarnation {
		return
	}
	r.Incarnation = incarnation
	limit := uint8(0)
	for _, k := range r.Keys {
		limit = max(limit, k.Limit)
	}
	r.Used = max(r.Used, limit-min(limit, restoredGuesses))
	r.Unproven = 1
}

// restoredGuesses is how many guesses an account has after the database was put back.
const restoredGuesses = 2

// status describes a key to who holds it.
func (r *record) status(k *key, nonce protocol.Nonce, now int64) protocol.Status {
	s := protocol.Status{
		State: k.State, Limit: k.Limit, Left: r.left(k), Wrong: r.Wrong, Life: r.Life, Until: r.Before, Seq: k.Seq, Now: now,
		Nonce: nonce, Slot: k.Slot, Epoch: r.Epoch, HeadKey: r.HeadKey, Head: r.Head, Unproven: r.Unproven,
	}
	if s.Until <= now {
		s.Until = 0
	}
	s.Expires = r.expires(k)
	return s
}

func (k *key) secret() (*protocol.Key, error) {
	s, err := protocol.ParseKey(k.Secret[:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	return s, nil
}
