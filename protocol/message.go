package protocol

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"reflect"
	"time"
)

// Op is what a request asks for.
type Op byte

const (
	OpCreate   Op = 1
	OpConfirm  Op = 2
	OpEvaluate Op = 3
	OpFinish   Op = 4
	OpStatus   Op = 5
	OpHead     Op = 6
	OpEpoch    Op = 7
	OpDelete   Op = 8
)

// Payload is what a request carries: one of Create, Confirm, Evaluate, Finish,
// AskStatus, PutHead, InstallEpoch, Delete.
type Payload interface{ op() Op }

// Authority says whose second signature a request carries.
type Authority byte

const (
	NoAuthority Authority = 0
	ByProofKey  Authority = 1 // of one who opened the slot with the PIN
	ByOwner     Authority = 2 // of one who has the backup key
)

// Create makes an account. The reply is Created. Repeated with the same element it is
// answered again.
type Create struct {
	Blinded  Element
	Limit    byte      // guesses, 1 to MaxGuesses
	Replaces Account   // zero if none: shares its counter until it is confirmed and ends it then
	By       Authority // who allows to replace
	Allowed  Signature // over the two accounts, zero if none is replaced
}

// AllowReplace signs that an account takes the place of another.
func AllowReplace(key ed25519.PrivateKey, old, by Account) Signature {
	return sign(key, labelReplace, old[:], by[:])
}

// AllowedBy reports whether key allowed account to take the place of c.Replaces.
func (c *Create) AllowedBy(key Public, account Account) bool {
	return key.signed(c.Allowed, labelReplace, c.Replaces[:], account[:])
}

// Confirm says that the slot is where it must be. The reply is empty.
type Confirm struct {
	Proof     Public   // of the key that only the right PIN yields
	Owner     Public   // of the key that installs epochs
	Epoch     uint64   // of the writer
	Head      Public   // of the key that puts heads in that epoch
	Slot      [32]byte // SHA-256 of the slot's public part
	Confirmed Signature
}

// NewConfirm returns a Confirm signed by the proof key.
func NewConfirm(proof ed25519.PrivateKey, account Account, owner Public, epoch uint64, head Public, slot [32]byte) Confirm {
	c := Confirm{Proof: Public(proof.Public().(ed25519.PublicKey)), Owner: owner, Epoch: epoch, Head: head, Slot: slot}
	c.Confirmed = sign(proof, labelConfirm, c.parts(account)...)
	return c
}

// Valid reports whether the proof key that it names signed it for the account.
func (c *Confirm) Valid(account Account) bool {
	return c.Proof.signed(c.Confirmed, labelConfirm, c.parts(account)...)
}

func (c *Confirm) parts(account Account) [][]byte {
	return [][]byte{account[:], c.Proof[:], c.Owner[:], binary.BigEndian.AppendUint64(nil, c.Epoch), c.Head[:], c.Slot[:]}
}

// Attempt names one entry of a PIN: 16 random bytes, the same at all guardians.
type Attempt [16]byte

// Evaluate spends a guess, unless it repeats an attempt with the same element. The
// reply is Evaluated, or Proven if WithProof is 1.
type Evaluate struct {
	Attempt   Attempt
	Blinded   Element
	Slot      [32]byte // SHA-256 of the slot's public part
	WithProof byte     // 0 or 1
}

// Nonce is what a server wants signed by one who has no attempt there. It changes with
// everything that is written to the account.
type Nonce [32]byte

// Finish says that the slot opened. The reply is Finished.
type Finish struct {
	Attempt Attempt // of this server; zero if it had none
	Nonce   Nonce   // of this server's status, if it had none; else zero
	Opened  Signature
}

// NewFinish returns a Finish signed by the proof key.
func NewFinish(proof ed25519.PrivateKey, account Account, attempt Attempt, nonce Nonce) Finish {
	return Finish{attempt, nonce, sign(proof, labelFinish, account[:], attempt[:], nonce[:])}
}

// OpenedBy reports whether the proof key signed it for the account.
func (f *Finish) OpenedBy(key Public, account Account) bool {
	return key.signed(f.Opened, labelFinish, account[:], f.Attempt[:], f.Nonce[:])
}

// AskStatus changes nothing. The reply is Status. Its sequence number is not looked at.
type AskStatus struct{}

// Head is the newest snapshot of a backup as its writer saw it. The same one goes to all
// guardians.
type Head struct {
	Epoch      uint64
	Generation uint64
	Snapshot   [16]byte // the hash in its name
	Mode       byte     // of the writer; servers keep it
	Signature  Signature
}

// NewHead returns a head signed by the head key of its epoch.
func NewHead(key ed25519.PrivateKey, epoch, generation uint64, snapshot [16]byte, mode byte) Head {
	h := Head{Epoch: epoch, Generation: generation, Snapshot: snapshot, Mode: mode}
	h.Signature = sign(key, labelHead, h.parts()...)
	return h
}

// SignedBy reports whether the head key signed it.
func (h *Head) SignedBy(key Public) bool { return key.signed(h.Signature, labelHead, h.parts()...) }

func (h *Head) parts() [][]byte {
	b := binary.BigEndian.AppendUint64(nil, h.Epoch)
	return [][]byte{binary.BigEndian.AppendUint64(b, h.Generation), h.Snapshot[:], {h.Mode}}
}

// PutHead moves the head forward. The reply is Head, the one that is kept then.
type PutHead struct{ Head Head }

// InstallEpoch makes another device the writer. The reply is empty.
type InstallEpoch struct {
	Epoch     uint64 // the one after the present
	Head      Public // of the key that puts heads in it
	Installed Signature
}

// NewInstallEpoch returns an InstallEpoch signed by the owner's key.
func NewInstallEpoch(owner ed25519.PrivateKey, epoch uint64, head Public) InstallEpoch {
	i := InstallEpoch{Epoch: epoch, Head: head}
	i.Installed = sign(owner, labelEpoch, binary.BigEndian.AppendUint64(nil, epoch), head[:])
	return i
}

// InstalledBy reports whether the owner's key signed it.
func (i *InstallEpoch) InstalledBy(key Public) bool {
	return key.signed(i.Installed, labelEpoch, binary.BigEndian.AppendUint64(nil, i.Epoch), i.Head[:])
}

// Delete ends an account. The reply is empty. An account that is not confirmed is ended
// by its access key alone.
type Delete struct {
	By      Authority
	Allowed Signature
}

// NewDelete returns a Delete signed by the proof key or the owner's.
func NewDelete(key ed25519.PrivateKey, account Account, by Authority) Delete {
	return Delete{by, sign(key, labelDelete, account[:])}
}

// AllowedBy reports whether key signed it for the account.
func (d *Delete) AllowedBy(key Public, account Account) bool {
	return key.signed(d.Allowed, labelDelete, account[:])
}

func (Create) op() Op       { return OpCreate }
func (Confirm) op() Op      { return OpConfirm }
func (Evaluate) op() Op     { return OpEvaluate }
func (Finish) op() Op       { return OpFinish }
func (AskStatus) op() Op    { return OpStatus }
func (PutHead) op() Op      { return OpHead }
func (InstallEpoch) op() Op { return OpEpoch }
func (Delete) op() Op       { return OpDelete }

// Request is a request whose signature was verified.
type Request struct {
	Access  Public
	Account Account
	Seq     uint64 // above the last one; the milliseconds of the client's clock will do
	Payload Payload
}

// Sign returns the bytes of a request.
func Sign(access ed25519.PrivateKey, seq uint64, p Payload) []byte {
	b := []byte{Version, byte(p.op())}
	b = append(b, access.Public().(ed25519.PublicKey)...)
	b = binary.BigEndian.AppendUint64(b, seq)
	b, _ = binary.Append(b, binary.BigEndian, p) // All payloads have a fixed size.
	sig := sign(access, labelRequest, b)
	return append(b, sig[:]...)
}

// ParseRequest reads a request and verifies its signature. Errors: ErrNewerProtocol,
// ErrMalformed, ErrSignature.
func ParseRequest(b []byte) (Request, error) {
	var r Request
	if len(b) > 0 && b[0] > Version {
		return r, ErrNewerProtocol
	}
	const head = 2 + PublicSize + 8
	if len(b) < head+SignatureSize || b[0] != Version {
		return r, fmt.Errorf("request: %w", ErrMalformed)
	}
	body, sig := b[:len(b)-SignatureSize], Signature(b[len(b)-SignatureSize:])
	r.Access, r.Seq = Public(body[2:2+PublicSize]), binary.BigEndian.Uint64(body[2+PublicSize:head])
	var err error
	switch Op(body[1]) {
	case OpCreate:
		r.Payload, err = decode[Create](body[head:])
	case OpConfirm:
		r.Payload, err = decode[Confirm](body[head:])
	case OpEvaluate:
		r.Payload, err = decode[Evaluate](body[head:])
	case OpFinish:
		r.Payload, err = decode[Finish](body[head:])
	case OpStatus:
		r.Payload, err = decode[AskStatus](body[head:])
	case OpHead:
		r.Payload, err = decode[PutHead](body[head:])
	case OpEpoch:
		r.Payload, err = decode[InstallEpoch](body[head:])
	case OpDelete:
		r.Payload, err = decode[Delete](body[head:])
	default:
		err = ErrMalformed
	}
	if err != nil {
		return r, fmt.Errorf("request: %w", err)
	}
	if !r.Access.signed(sig, labelRequest, body) {
		return r, ErrSignature
	}
	r.Account = AccountOf(r.Access[:])
	return r, nil
}

// decode reads a struct of fixed size that fills b.
func decode[T any](b []byte) (v T, err error) {
	if n, err := binary.Decode(b, binary.BigEndian, &v); err != nil || n != len(b) {
		return v, ErrMalformed
	}
	return v, nil
}

// Created answers Create.
type Created struct {
	Key       Element // the public key of the account
	Evaluated Element
	Proof     Proof
}

// Evaluated answers Evaluate without proof.
type Evaluated struct {
	Element Element
	Left    byte // guesses that are left
}

// Proven answers Evaluate with proof.
type Proven struct {
	Element Element
	Left    byte
	Key     Element // the public key of the account
	Proof   Proof
}

// Finished answers Finish.
type Finished struct {
	Wrong uint32 // wrong guesses since the last success, not counting those of this attempt
}

// State is how an account stands.
type State byte

const (
	StatePending State = 1
	StateActive  State = 2
	StateErased  State = 3
)

// Status answers AskStatus.
type Status struct {
	State    State
	Limit    byte   // guesses in all
	Left     byte   // guesses that are left
	Wrong    uint32 // guesses since the last success
	Life     uint32 // wrong guesses in its life
	Until    int64  // no guess before; Unix time in milliseconds, 0 for none
	Expires  int64  // when a pending account goes; 0 for one that stays
	Seq      uint64 // of the last request
	Now      int64  // the server's clock
	Nonce    Nonce
	Slot     [32]byte // that is registered
	Epoch    uint64   // that may put heads
	HeadKey  Public   // with this key
	Head     Head     // zero if there is none
	Unproven byte     // 1 if the server was put back from a copy and the head may be old
}

// Locked comes with CodeLocked.
type Locked struct {
	Until int64 // Unix time in milliseconds
	Left  byte
}

// Sequence comes with CodeSequence.
type Sequence struct {
	Last uint64
	Now  int64 // the server's clock, Unix time in milliseconds
}

// Refusal is a reply that refuses. It is an error.
type Refusal struct {
	Code     Code
	Locked   Locked   // with CodeLocked
	Sequence Sequence // with CodeSequence
	Head     Head     // with CodeConflict
}

func (r *Refusal) Error() string {
	if r.Code == CodeLocked {
		return fmt.Sprintf("%v until %s", r.Code, time.UnixMilli(r.Locked.Until).UTC().Format(time.RFC3339))
	}
	return r.Code.String()
}

// Reply returns the bytes of a reply that grants; v may be nil.
func Reply(v any) []byte {
	b := []byte{Version, byte(CodeOK)}
	if v != nil {
		b, _ = binary.Append(b, binary.BigEndian, v)
	}
	return b
}

// Reply returns the bytes of a refusal.
func (r *Refusal) Reply() []byte {
	b := []byte{Version, byte(r.Code)}
	if p := r.detail(); p != nil {
		b, _ = binary.Append(b, binary.BigEndian, p)
	}
	return b
}

func (r *Refusal) detail() any {
	switch r.Code {
	case CodeLocked:
		return &r.Locked
	case CodeSequence:
		return &r.Sequence
	case CodeConflict:
		return &r.Head
	}
	return nil
}

// ParseReply reads a reply into v, a pointer to what answers the request, nil for an
// empty answer. The error is a *Refusal, ErrNewerProtocol or ErrMalformed.
func ParseReply(b []byte, v any) error {
	if len(b) > 0 && b[0] > Version {
		return ErrNewerProtocol
	}
	if len(b) < 2 || b[0] != Version {
		return fmt.Errorf("reply: %w", ErrMalformed)
	}
	if code := Code(b[1]); code != CodeOK {
		r := &Refusal{Code: code}
		p := r.detail()
		if p == nil && len(b) != 2 || p != nil && !fill(b[2:], p) {
			return fmt.Errorf("reply: %w", ErrMalformed)
		}
		return r
	}
	if v == nil && len(b) != 2 || v != nil && !fill(b[2:], v) {
		return fmt.Errorf("reply: %w", ErrMalformed)
	}
	return nil
}

// fill reads a struct of fixed size that fills b, all or nothing.
func fill(b []byte, v any) bool {
	fresh := reflect.New(reflect.TypeOf(v).Elem())
	n, err := binary.Decode(b, binary.BigEndian, fresh.Interface())
	if err != nil || n != len(b) {
		return false
	}
	reflect.ValueOf(v).Elem().Set(fresh.Elem())
	return true
}
