package keyserver_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/oprf"
	"github.com/cloudflare/circl/zk/dleq"
	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/recordtest"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

const vectorDir = "../testdata/vectors/protocol"

var update = flag.Bool("update", false, "write testdata/vectors/protocol anew")

// exchange is one file of testdata/vectors/protocol; its README.md says what the fields
// mean. All of them together, in order, are what one server was asked and said.
type exchange struct {
	Name         string `json:"name"`
	Comment      string `json:"comment"`
	Time         int64  `json:"time"`
	Token        string `json:"token,omitempty"`
	Fault        bool   `json:"fault,omitempty"`
	AfterRestore bool   `json:"after_restore,omitempty"`

	Operation string         `json:"operation,omitempty"` // what was signed; "" if it is no request
	Access    string         `json:"access_seed,omitempty"`
	Account   string         `json:"account,omitempty"`
	Sequence  uint64         `json:"sequence,omitempty"`
	Payload   map[string]any `json:"payload,omitempty"`
	Signer    string         `json:"signer_seed,omitempty"` // of the second signature
	Change    string         `json:"change,omitempty"`      // what was done to the bytes that were signed

	Input       string `json:"input,omitempty"`
	Blind       string `json:"blind,omitempty"`
	KeySeed     string `json:"oprf_seed,omitempty"`
	Key         string `json:"oprf_key,omitempty"`
	ProofRandom string `json:"proof_random,omitempty"`
	Output      string `json:"output,omitempty"`

	Request string         `json:"request"`
	Code    int            `json:"code"`
	Reply   string         `json:"reply"`
	Answer  map[string]any `json:"answer,omitempty"`
}

func vectorSeed(name string) [32]byte { return sha256.Sum256([]byte("satchel vector " + name)) }

func vectorKey(name string) ed25519.PrivateKey {
	s := vectorSeed(name)
	return ed25519.NewKeyFromSeed(s[:])
}

// vectorToken is the registration token that the server of the vectors wants.
const vectorToken = "let-me-in"

// replay is the server of the vectors. Its account keys are those of the vectors.
type replay struct {
	t       *testing.T
	records *recordtest.Memory
	now     int64
	server  *keyserver.Server
}

func newReplay(t *testing.T) *replay {
	r := &replay{t: t, records: &recordtest.Memory{}}
	r.start(false)
	return r
}

func (r *replay) start(afterRestore bool) {
	r.t.Helper()
	m, err := keyserver.NewMaster(secret.New(bytes.Repeat([]byte{7}, keyserver.MasterSize)))
	if err != nil {
		r.t.Fatal(err)
	}
	r.server, err = keyserver.New(context.Background(), keyserver.Config{
		Records: r.records, Master: m, AfterRestore: afterRestore,
		Allowed: func(token string) bool { return token == vectorToken },
		Now:     func() time.Time { return time.UnixMilli(r.now) },
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// ask returns what the server says to the request of a vector.
func (r *replay) ask(x *exchange) []byte {
	r.t.Helper()
	ctx := context.Background()
	r.now = x.Time
	if x.AfterRestore {
		r.start(true)
		r.start(false)
	}
	if x.Fault {
		r.records.Fault = func([]keyserver.Write) (error, bool) { return errors.New("the disk is full"), false }
		defer func() { r.records.Fault = nil }()
	}
	body := unhex(r.t, x.Request)
	reply := r.server.Answer(ctx, body, x.Token)
	if x.KeySeed == "" || reply[1] != byte(protocol.CodeOK) {
		return reply
	}
	// The server drew a key. It gets the one of the vector, and says the same once more.
	key, err := protocol.DeriveKey([32]byte(unhex(r.t, x.KeySeed)))
	if err != nil {
		r.t.Fatal(err)
	}
	scalar, err := key.Bytes()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.server.Rekey(ctx, protocol.Account(unhex(r.t, x.Account)), [32]byte(scalar)); err != nil {
		r.t.Fatal(err)
	}
	return r.server.Answer(ctx, body, x.Token)
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fields returns what a struct of a message holds, in hex and numbers, under the names of
// the vectors.
func fields(t *testing.T, v any) map[string]any {
	t.Helper()
	h := func(b []byte) string { return hex.EncodeToString(b) }
	head := func(x protocol.Head) map[string]any {
		return map[string]any{"epoch": x.Epoch, "generation": x.Generation, "snapshot": h(x.Snapshot[:]), "mode": x.Mode, "signature": h(x.Signature[:])}
	}
	switch p := v.(type) {
	case protocol.Create:
		return map[string]any{"blinded": h(p.Blinded[:]), "limit": p.Limit, "replaces": h(p.Replaces[:]), "authority": p.By, "signature": h(p.Allowed[:])}
	case protocol.Confirm:
		return map[string]any{"proof_key": h(p.Proof[:]), "owner_key": h(p.Owner[:]), "epoch": p.Epoch, "head_key": h(p.Head[:]), "slot": h(p.Slot[:]), "signature": h(p.Confirmed[:])}
	case protocol.Evaluate:
		return map[string]any{"attempt": h(p.Attempt[:]), "blinded": h(p.Blinded[:]), "slot": h(p.Slot[:]), "with_proof": p.WithProof}
	case protocol.Finish:
		return map[string]any{"attempt": h(p.Attempt[:]), "nonce": h(p.Nonce[:]), "signature": h(p.Opened[:])}
	case protocol.AskStatus:
		return map[string]any{}
	case protocol.PutHead:
		return head(p.Head)
	case protocol.InstallEpoch:
		return map[string]any{"epoch": p.Epoch, "head_key": h(p.Head[:]), "signature": h(p.Installed[:])}
	case protocol.Delete:
		return map[string]any{"authority": p.By, "signature": h(p.Allowed[:])}

	case protocol.Created:
		return map[string]any{"public_key": h(p.Key[:]), "evaluated": h(p.Evaluated[:]), "proof": h(p.Proof[:])}
	case protocol.Evaluated:
		return map[string]any{"evaluated": h(p.Element[:]), "left": p.Left}
	case protocol.Proven:
		return map[string]any{"evaluated": h(p.Element[:]), "left": p.Left, "public_key": h(p.Key[:]), "proof": h(p.Proof[:])}
	case protocol.Finished:
		return map[string]any{"wrong": p.Wrong}
	case protocol.Head:
		return head(p)
	case protocol.Status:
		return map[string]any{
			"state": p.State, "limit": p.Limit, "left": p.Left, "used": p.Wrong, "life": p.Life, "until": p.Until, "expires": p.Expires, "last": p.Seq,
			"now": p.Now, "nonce": h(p.Nonce[:]), "slot": h(p.Slot[:]), "epoch": p.Epoch, "head_key": h(p.HeadKey[:]), "head": head(p.Head), "unproven": p.Unproven,
		}
	case protocol.Locked:
		return map[string]any{"until": p.Until, "left": p.Left}
	case protocol.Sequence:
		return map[string]any{"last": p.Last, "now": p.Now}
	}
	t.Fatalf("no fields of %T", v)
	return nil
}

var operations = map[string]protocol.Op{
	"create": protocol.OpCreate, "confirm": protocol.OpConfirm, "evaluate": protocol.OpEvaluate, "finish": protocol.OpFinish,
	"status": protocol.OpStatus, "head": protocol.OpHead, "epoch": protocol.OpEpoch, "delete": protocol.OpDelete,
}

// parsed reads the reply of a vector: its code and details.
func (x *exchange) parsed(t *testing.T, reply []byte) (protocol.Code, map[string]any) {
	t.Helper()
	read := func(v any) error { return protocol.ParseReply(reply, v) }
	var got any
	var err error
	switch x.Operation {
	case "create":
		var v protocol.Created
		err = read(&v)
		got = v
	case "evaluate":
		if len(reply) > 2+protocol.ElementSize+1 {
			var v protocol.Proven
			err = read(&v)
			got = v
		} else {
			var v protocol.Evaluated
			err = read(&v)
			got = v
		}
	case "finish":
		var v protocol.Finished
		err = read(&v)
		got = v
	case "status":
		var v protocol.Status
		err = read(&v)
		got = v
	case "head":
		var v protocol.Head
		err = read(&v)
		got = v
	default:
		if err = read(nil); err == nil {
			return protocol.CodeOK, nil
		}
	}
	if err == nil {
		return protocol.CodeOK, fields(t, got)
	}
	r, ok := errors.AsType[*protocol.Refusal](err)
	if !ok {
		t.Fatalf("%s: %v", x.Name, err)
	}
	switch r.Code {
	case protocol.CodeLocked:
		return r.Code, fields(t, r.Locked)
	case protocol.CodeSequence:
		return r.Code, fields(t, r.Sequence)
	case protocol.CodeConflict:
		return r.Code, fields(t, r.Head)
	}
	return r.Code, nil
}

// same compares fields as JSON has them.
func same(t *testing.T, what string, got, want map[string]any) {
	t.Helper()
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var again map[string]any
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, again); d != "" && len(want)+len(again) > 0 {
		t.Errorf("%s: %s", what, d)
	}
}

// blinded returns an input blinded by a scalar, as RFC 9497 has it.
func blinded(t *testing.T, input, blind []byte) (*oprf.FinalizeData, protocol.Element) {
	t.Helper()
	s := group.Ristretto255.NewScalar()
	if err := s.UnmarshalBinary(blind); err != nil {
		t.Fatal(err)
	}
	k, err := oprf.DeriveKey(oprf.SuiteRistretto255, oprf.VerifiableMode, make([]byte, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	d, req, err := oprf.NewVerifiableClient(oprf.SuiteRistretto255, k.Public()).DeterministicBlind([][]byte{input}, []oprf.Blind{s})
	if err != nil {
		t.Fatal(err)
	}
	b, err := req.Elements[0].MarshalBinaryCompress()
	if err != nil {
		t.Fatal(err)
	}
	return d, protocol.Element(b)
}

// proofRandom returns the scalar that a proof was made with: r = s + c k.
func proofRandom(t *testing.T, key *protocol.Key, proof protocol.Proof) string {
	t.Helper()
	b, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var n [3]group.Scalar
	for i, b := range [][]byte{proof[:32], proof[32:], b} {
		n[i] = group.Ristretto255.NewScalar()
		if err := n[i].UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
	}
	r, err := n[1].Add(n[1], n[0].Mul(n[0], n[2])).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(r)
}

func readVectors(t *testing.T) (list []exchange) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(vectorDir, "[0-9]*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files { // In order of their names.
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var x exchange
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&x); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if x.Name+".json" != filepath.Base(f) {
			t.Errorf("%s is named %s", f, x.Name)
		}
		list = append(list, x)
	}
	return list
}

// Every message of docs/protocol.md, byte by byte: what the server says now is what it
// said when the vectors were made, but for the proofs, which are random and are verified.
func TestVectors(t *testing.T) {
	r := newReplay(t)
	list := readVectors(t)
	codes, ops := map[int]bool{}, map[string]bool{}
	for i := range list {
		x := &list[i]
		got, want := r.ask(x), unhex(t, x.Reply)
		code, answer := x.parsed(t, want)
		if int(code) != x.Code {
			t.Errorf("%s: the reply of the vector has code %d, not %d", x.Name, code, x.Code)
		}
		same(t, x.Name+": answer", answer, x.Answer)
		x.request(t)
		codes[x.Code] = true
		if x.Code == 0 {
			ops[x.Operation] = true
		}
		if x.ProofRandom == "" {
			if !bytes.Equal(got, want) {
				t.Errorf("%s: the server says\n%x, want\n%x", x.Name, got, want)
			}
			continue
		}
		const proof = protocol.ProofSize // It is last in both replies.
		if !bytes.Equal(got[:len(got)-proof], want[:len(want)-proof]) {
			t.Errorf("%s: the server says\n%x, want\n%x and a proof", x.Name, got, want)
		}
		x.proves(t, got)
		x.proves(t, want)
	}
	for c := range protocol.CodeNewer + 1 {
		if !codes[int(c)] {
			t.Errorf("no vector has code %d", c)
		}
	}
	for op := range operations {
		if !ops[op] {
			t.Errorf("no vector has a %s that is granted", op)
		}
	}
}

// request compares the bytes of a request with its fields.
func (x *exchange) request(t *testing.T) {
	t.Helper()
	b := unhex(t, x.Request)
	req, err := protocol.ParseRequest(b)
	code := protocol.CodeOK
	switch {
	case errors.Is(err, protocol.ErrNewerProtocol):
		code = protocol.CodeNewer
	case errors.Is(err, protocol.ErrSignature):
		code = protocol.CodeSignature
	case err != nil:
		code = protocol.CodeMalformed
	}
	if err != nil {
		if int(code) != x.Code || x.Change == "" {
			t.Errorf("%s: %v", x.Name, err)
		}
		return
	}
	if x.Change != "" {
		t.Errorf("%s was changed and is read as a request", x.Name)
	}
	if req.Account.String() != x.Account || req.Seq != x.Sequence || operations[x.Operation] != protocol.Op(b[1]) {
		t.Errorf("%s: got account %s, sequence %d, operation %d", x.Name, req.Account, req.Seq, b[1])
	}
	same(t, x.Name+": payload", fields(t, req.Payload), x.Payload)
}

// proves verifies the proof at the end of a reply.
func (x *exchange) proves(t *testing.T, reply []byte) {
	t.Helper()
	key, err := protocol.ParseKey(unhex(t, x.Key))
	if err != nil {
		t.Fatal(err)
	}
	_, answer := x.parsed(t, reply)
	field := func(name string) []byte { return unhex(t, answer[name].(string)) }
	public, err := key.Public()
	if err != nil || !bytes.Equal(public[:], field("public_key")) {
		t.Errorf("%s: the public key is %x, %v", x.Name, public, err)
	}
	pk := &oprf.PublicKey{}
	if err := pk.UnmarshalBinary(oprf.SuiteRistretto255, public[:]); err != nil {
		t.Fatal(err)
	}
	d, e := blinded(t, unhex(t, x.Input), unhex(t, x.Blind))
	if hex.EncodeToString(e[:]) != x.Payload["blinded"] {
		t.Errorf("%s: blinded %x", x.Name, e)
	}
	evaluated := group.Ristretto255.NewElement()
	if err := evaluated.UnmarshalBinary(field("evaluated")); err != nil {
		t.Fatal(err)
	}
	ev := &oprf.Evaluation{Elements: []oprf.Evaluated{evaluated}, Proof: &dleq.Proof{}}
	if err := ev.Proof.UnmarshalBinary(group.Ristretto255, field("proof")); err != nil {
		t.Fatal(err)
	}
	outputs, err := oprf.NewVerifiableClient(oprf.SuiteRistretto255, pk).Finalize(d, ev)
	if err != nil {
		t.Errorf("%s: %v", x.Name, err)
	} else if hex.EncodeToString(outputs[0]) != x.Output {
		t.Errorf("%s: output %x", x.Name, outputs[0])
	}
}

// vectorWriter makes the vectors.
type vectorWriter struct {
	*testing.T
	r    *replay
	n    int
	time int64
	seq  map[string]uint64 // last of each account
	keys map[string]*protocol.Key
}

// step is one exchange as it is made.
type step struct {
	exchange
	who     string // whose access key
	payload protocol.Payload
	signer  string // whose key made the second signature
	input   string // of what is blinded
	seq     uint64 // 0 for the next one
	alter   func([]byte) []byte
	want    protocol.Code
}

// pinInput is the input of the function, as for a PIN that Argon2id gives this hash of.
func pinInput(pin string) []byte {
	h := sha256.Sum256([]byte("satchel vector PIN " + pin))
	return append([]byte("satchel/v1/pin-input\n"), h[:]...)
}

func vectorBlind(name string) []byte {
	s := vectorSeed("blind " + name)
	s[31] &= 0x0f
	return s[:]
}

func vectorElement(t *testing.T, name, pin string) protocol.Element {
	_, e := blinded(t, pinInput(pin), vectorBlind(name))
	return e
}

func accountOf(name string) protocol.Account {
	return protocol.AccountOf(vectorKey("access " + name).Public().(ed25519.PublicKey))
}

func (w *vectorWriter) do(name, comment string, s step) map[string]any {
	w.Helper()
	w.n++
	x := &s.exchange
	x.Name, x.Comment, x.Time = fmt.Sprintf("%03d-%s", w.n, name), comment, w.time
	access := vectorSeed("access " + s.who)
	if s.seq == 0 {
		s.seq = max(w.seq[s.who]+1, uint64(w.time))
	}
	body := protocol.Sign(ed25519.NewKeyFromSeed(access[:]), s.seq, s.payload)
	x.Access, x.Sequence, x.Payload = hex.EncodeToString(access[:]), s.seq, fields(w.T, s.payload)
	for op, n := range operations {
		if byte(n) == body[1] {
			x.Operation = op
		}
	}
	if s.alter != nil {
		body = s.alter(body)
	} else {
		x.Account = accountOf(s.who).String()
	}
	if s.signer != "" {
		seed := vectorSeed(s.signer)
		x.Signer = hex.EncodeToString(seed[:])
	}
	x.Request = hex.EncodeToString(body)
	if x.Operation == "create" && w.keys[s.who] == nil && s.want == protocol.CodeOK {
		seed := vectorSeed("oprf seed " + x.Name)
		x.KeySeed = hex.EncodeToString(seed[:])
		k, err := protocol.DeriveKey(seed)
		if err != nil {
			w.Fatal(err)
		}
		w.keys[s.who] = k
	}
	reply := w.r.ask(x)
	x.Reply = hex.EncodeToString(reply)
	code, answer := x.parsed(w.T, reply)
	if x.Code, x.Answer = int(code), answer; code != s.want {
		w.Fatalf("%s: got code %d (%v), want %d", x.Name, code, code, s.want)
	}
	if code == protocol.CodeOK && x.Operation != "status" && x.Operation != "delete" {
		w.seq[s.who] = max(w.seq[s.who], s.seq)
	}
	if s.input != "" {
		x.Input, x.Blind = hex.EncodeToString(pinInput(s.input)), hex.EncodeToString(vectorBlind(blindOf(w.T, &s)))
	}
	if k := w.keys[s.who]; s.input != "" && code == protocol.CodeOK && k != nil {
		b, err := k.Bytes()
		if err != nil {
			w.Fatal(err)
		}
		x.Key = hex.EncodeToString(b)
		if proof, ok := answer["proof"].(string); ok {
			x.ProofRandom = proofRandom(w.T, k, protocol.Proof(unhex(w.T, proof)))
		}
		// The output is that of the input alone; whatever blinds it cancels.
		private := &oprf.PrivateKey{}
		if err := private.UnmarshalBinary(oprf.SuiteRistretto255, b); err != nil {
			w.Fatal(err)
		}
		out, err := oprf.NewVerifiableServer(oprf.SuiteRistretto255, private).FullEvaluate(pinInput(s.input))
		if err != nil {
			w.Fatal(err)
		}
		x.Output = hex.EncodeToString(out)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(x); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(vectorDir, x.Name+".json"), b.Bytes(), 0o644); err != nil {
		w.Fatal(err)
	}
	return answer
}

// blindOf names the blinding of a step: each element has one of its own.
func blindOf(t *testing.T, s *step) string {
	e := s.exchange.Payload["blinded"].(string)
	for i := range 40 {
		name := fmt.Sprint(i)
		got := vectorElement(t, name, s.input)
		if hex.EncodeToString(got[:]) == e {
			return name
		}
	}
	t.Fatalf("%s: nobody blinded this element", s.exchange.Name)
	return ""
}

func (w *vectorWriter) later(d time.Duration) { w.time += d.Milliseconds() }

func TestUpdateVectors(t *testing.T) {
	if !*update {
		t.Skip("without -update")
	}
	cryptotest.SetGlobalRandom(t, 1)
	old, _ := filepath.Glob(filepath.Join(vectorDir, "[0-9]*.json"))
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	w := &vectorWriter{T: t, r: newReplay(t), time: 1_800_000_000_000, seq: map[string]uint64{}, keys: map[string]*protocol.Key{}}
	w.life()
	w.guesses()
	w.heads()
	w.replacing()
	w.erasing()
	w.strangers()
	w.restored()
	t.Logf("%d vectors", w.n)
}

func slotHash(name string) [32]byte { return vectorSeed("slot " + name) }

func (w *vectorWriter) confirm(who, owner, slot string) protocol.Payload {
	return protocol.NewConfirm(vectorKey("proof "+who), accountOf(who), public(vectorKey("owner "+owner)), 1, public(vectorKey("head 1")), slotHash(slot))
}

func (w *vectorWriter) evaluate(attempt byte, blind, pin, slot string, proof byte) protocol.Evaluate {
	return protocol.Evaluate{Attempt: protocol.Attempt(bytes.Repeat([]byte{attempt}, 16)), Blinded: vectorElement(w.T, blind, pin), Slot: slotHash(slot), WithProof: proof}
}

func attemptOf(n byte) protocol.Attempt { return protocol.Attempt(bytes.Repeat([]byte{n}, 16)) }

func (w *vectorWriter) finish(who string, attempt protocol.Attempt, nonce protocol.Nonce) protocol.Finish {
	return protocol.NewFinish(vectorKey("proof "+who), accountOf(who), attempt, nonce)
}

func (w *vectorWriter) nonce(status map[string]any) protocol.Nonce {
	return protocol.Nonce(unhex(w.T, status["nonce"].(string)))
}

// life is an account from its making to the first success.
func (w *vectorWriter) life() {
	create := protocol.Create{Blinded: vectorElement(w.T, "0", "4917"), Limit: 3}
	token := exchange{Token: vectorToken}
	w.do("create-no-token", "this server wants a registration token, and there is none", step{who: "a", payload: create, want: protocol.CodeToken, input: "4917"})
	w.do("unknown", "no such account yet", step{who: "a", payload: protocol.AskStatus{}, want: protocol.CodeUnknown})
	fault := token
	fault.Fault = true
	w.do("create-fault", "the database fails", step{exchange: fault, who: "a", payload: create, want: protocol.CodeUnavailable, input: "4917"})
	w.do("create", "an account with three guesses", step{exchange: token, who: "a", payload: create, input: "4917"})
	w.later(time.Second)
	w.do("create-again", "the reply was lost; a repeat needs no token", step{who: "a", payload: create, input: "4917"})
	other := create
	other.Blinded = vectorElement(w.T, "1", "4917")
	w.do("create-other", "the account exists, made with another element", step{exchange: token, who: "a", payload: other, want: protocol.CodeExists, input: "4917"})
	other = create
	other.Limit = 4
	w.do("create-other-limit", "the account exists, made with another limit", step{exchange: token, who: "a", payload: other, want: protocol.CodeExists, input: "4917"})
	w.do("status-pending", "not confirmed: it expires", step{who: "a", payload: protocol.AskStatus{}})
	w.do("evaluate-pending", "before it is confirmed each evaluation costs a guess", step{who: "a", payload: w.evaluate(1, "2", "4917", "a", 0), input: "4917"})
	w.do("finish-pending", "nothing to finish before it is confirmed", step{who: "a", payload: w.finish("a", attemptOf(1), protocol.Nonce{}), signer: "proof a", want: protocol.CodePending})
	w.do("head-pending", "no head before it is confirmed", step{who: "a", payload: protocol.PutHead{Head: protocol.NewHead(vectorKey("head 1"), 1, 1, [16]byte{1}, 0)}, signer: "head 1", want: protocol.CodePending})
	w.do("epoch-pending", "no epoch before it is confirmed", step{who: "a", payload: protocol.NewInstallEpoch(vectorKey("owner a"), 2, public(vectorKey("head 2"))), signer: "owner a", want: protocol.CodePending})
	wrong := protocol.NewConfirm(vectorKey("proof a"), accountOf("b"), public(vectorKey("owner a")), 1, public(vectorKey("head 1")), slotHash("a"))
	w.do("confirm-denied", "signed for another account", step{who: "a", payload: wrong, want: protocol.CodeDenied})
	w.later(time.Second)
	w.do("confirm", "active, with no guess used", step{who: "a", payload: w.confirm("a", "a", "a"), signer: "proof a"})
	w.do("confirm-again", "the same once more", step{who: "a", payload: w.confirm("a", "a", "a"), signer: "proof a"})
	w.do("confirm-other", "another slot of an active account", step{who: "a", payload: w.confirm("a", "a", "other"), signer: "proof a", want: protocol.CodeExists})
	w.do("create-active", "the account exists and is confirmed", step{exchange: token, who: "a", payload: create, want: protocol.CodeExists, input: "4917"})
}

// guesses spends some and gets them back.
func (w *vectorWriter) guesses() {
	w.later(time.Second)
	w.do("evaluate-slot-damaged", "another slot than the registered one: no guess", step{who: "a", payload: w.evaluate(2, "3", "4917", "other", 0), want: protocol.CodeSlotDamaged, input: "4917"})
	w.do("evaluate-zero-attempt", "the attempt is zero", step{who: "a", payload: w.evaluate(0, "3", "4917", "a", 0), want: protocol.CodeDenied, input: "4917"})
	first := w.evaluate(3, "3", "4917", "a", 0)
	w.do("evaluate", "one guess is spent", step{who: "a", payload: first, input: "4917"})
	last := w.seq["a"]
	w.do("evaluate-again", "the reply was lost: the same bytes, the same reply, no second guess", step{who: "a", payload: first, seq: last, input: "4917"})
	first.WithProof = 1
	w.do("evaluate-proof", "the same attempt, with proof, costs nothing", step{who: "a", payload: first, input: "4917"})
	w.do("evaluate-other-element", "an attempt has one element", step{who: "a", payload: w.evaluate(3, "4", "4917", "a", 0), want: protocol.CodeDenied, input: "4917"})
	w.do("finish-other-attempt", "not the newest attempt", step{who: "a", payload: w.finish("a", attemptOf(9), protocol.Nonce{}), signer: "proof a", want: protocol.CodeDenied})
	w.do("finish-denied", "not signed by the proof key", step{who: "a", payload: protocol.NewFinish(vectorKey("proof b"), accountOf("a"), attemptOf(3), protocol.Nonce{}), want: protocol.CodeDenied})
	w.do("finish", "the slot opened, at a guardian that evaluated", step{who: "a", payload: w.finish("a", attemptOf(3), protocol.Nonce{}), signer: "proof a"})
	w.do("finish-again", "the same once more", step{who: "a", payload: w.finish("a", attemptOf(3), protocol.Nonce{}), signer: "proof a"})
	w.do("evaluate-finished", "the attempt ended", step{who: "a", payload: first, want: protocol.CodeDenied, input: "4917"})
	w.later(time.Minute)
	before := w.do("status", "active, all guesses left", step{who: "a", payload: protocol.AskStatus{}})
	w.do("evaluate-wrong", "another PIN: the server cannot tell", step{who: "a", payload: w.evaluate(4, "5", "0000", "a", 0), input: "0000"})
	w.do("sequence-old", "the last number once more", step{who: "a", payload: w.evaluate(5, "6", "4917", "a", 0), seq: w.seq["a"], want: protocol.CodeSequence, input: "4917"})
	w.do("sequence-ahead", "ten minutes and a millisecond ahead", step{who: "a", payload: w.evaluate(5, "6", "4917", "a", 0), seq: max(w.seq["a"], uint64(w.time)) + 600_001, want: protocol.CodeSequence, input: "4917"})
	w.do("sequence-most", "ten minutes ahead: the second wrong guess", step{who: "a", payload: w.evaluate(5, "6", "0001", "a", 1), seq: max(w.seq["a"], uint64(w.time)) + 600_000, input: "0001"})
	w.do("finish-old-nonce", "the nonce changed with the guesses", step{who: "a", payload: w.finish("a", protocol.Attempt{}, w.nonce(before)), signer: "proof a", want: protocol.CodeDenied})
	now := w.do("status-guesses", "two wrong guesses; the last number is ahead of the clock", step{who: "a", payload: protocol.AskStatus{}})
	w.do("finish-nonce", "the slot opened, at a guardian that did not evaluate", step{who: "a", payload: w.finish("a", protocol.Attempt{}, w.nonce(now)), signer: "proof a"})
}

// heads moves the head and the epoch.
func (w *vectorWriter) heads() {
	w.later(time.Hour)
	put := func(key string, epoch, generation uint64, mode byte) protocol.Payload {
		return protocol.PutHead{Head: protocol.NewHead(vectorKey(key), epoch, generation, [16]byte{byte(epoch), byte(generation)}, mode)}
	}
	install := func(owner string, epoch uint64, head string) protocol.Payload {
		return protocol.NewInstallEpoch(vectorKey(owner), epoch, public(vectorKey(head)))
	}
	w.do("head", "the first head", step{who: "a", payload: put("head 1", 1, 10, 1), signer: "head 1"})
	w.do("head-again", "the same once more", step{who: "a", payload: put("head 1", 1, 10, 1), signer: "head 1"})
	w.do("head-later", "it may miss some", step{who: "a", payload: put("head 1", 1, 14, 0), signer: "head 1"})
	w.do("head-older", "an older generation", step{who: "a", payload: put("head 1", 1, 13, 0), signer: "head 1", want: protocol.CodeConflict})
	w.do("head-other", "another head of the same generation", step{who: "a", payload: put("head 1", 1, 14, 2), signer: "head 1", want: protocol.CodeConflict})
	w.do("head-denied", "not signed by the head key of the epoch", step{who: "a", payload: put("head 2", 1, 15, 0), want: protocol.CodeDenied})
	w.do("head-other-epoch", "an epoch that is not installed", step{who: "a", payload: put("head 2", 2, 15, 0), want: protocol.CodeConflict})
	w.do("epoch-denied", "not signed by the owner's key", step{who: "a", payload: install("head 1", 2, "head 2"), want: protocol.CodeDenied})
	w.do("epoch-skip", "one after the other", step{who: "a", payload: install("owner a", 3, "head 3"), signer: "owner a", want: protocol.CodeConflict})
	w.do("epoch", "another device is the writer", step{who: "a", payload: install("owner a", 2, "head 2"), signer: "owner a"})
	w.do("epoch-again", "the same once more", step{who: "a", payload: install("owner a", 2, "head 2"), signer: "owner a"})
	w.do("head-fenced", "the old device is fenced", step{who: "a", payload: put("head 1", 1, 16, 0), want: protocol.CodeConflict})
	w.do("head-new-epoch", "the new one goes on, at any generation", step{who: "a", payload: put("head 2", 2, 12, 0), signer: "head 2"})
	w.do("status-head", "with a head", step{who: "a", payload: protocol.AskStatus{}})
}

// replacing puts other accounts in the place of the first.
func (w *vectorWriter) replacing() {
	w.later(time.Hour)
	token := exchange{Token: vectorToken}
	replace := func(who, old, signer string, by protocol.Authority, blind string) protocol.Create {
		return protocol.Create{
			Blinded: vectorElement(w.T, blind, "6040"), Limit: 3, Replaces: accountOf(old), By: by,
			Allowed: protocol.AllowReplace(vectorKey(signer), accountOf(old), accountOf(who)),
		}
	}
	w.do("replace-denied", "the owner's key for the proof key", step{exchange: token, who: "b", payload: replace("b", "a", "owner a", protocol.ByProofKey, "7"), want: protocol.CodeDenied, input: "6040"})
	w.do("replace-unknown", "the replaced account does not exist", step{exchange: token, who: "b", payload: replace("b", "z", "proof a", protocol.ByProofKey, "7"), want: protocol.CodeUnknown, input: "6040"})
	w.do("replace", "with the old PIN; no token is needed", step{who: "b", payload: replace("b", "a", "proof a", protocol.ByProofKey, "7"), signer: "proof a", input: "6040"})
	w.do("status-replacing", "pending, and it does not expire", step{who: "b", payload: protocol.AskStatus{}})
	w.do("evaluate-replacing", "both have one counter", step{who: "b", payload: w.evaluate(6, "8", "6040", "b", 0), input: "6040"})
	w.do("status-replaced", "the old account has lost a guess", step{who: "a", payload: protocol.AskStatus{}})
	w.do("confirm-replacing", "the old account ends in the same transaction", step{who: "b", payload: w.confirm("b", "a", "b"), signer: "proof b"})
	w.do("replaced", "it is gone", step{who: "a", payload: protocol.AskStatus{}, want: protocol.CodeUnknown})
	w.do("status-kept-head", "the owner is the same: epoch and head stay", step{who: "b", payload: protocol.AskStatus{}})
	w.do("replace-owner", "with the owner's key", step{who: "c", payload: replace("c", "b", "owner a", protocol.ByOwner, "9"), signer: "owner a", input: "6040"})
	w.do("replace-pending-denied", "what is not confirmed is not replaced", step{who: "f", payload: replace("f", "c", "owner a", protocol.ByOwner, "10"), signer: "owner a", want: protocol.CodeDenied, input: "6040"})
	w.do("replace-second", "a second one takes the place of the first that was to", step{who: "f", payload: replace("f", "b", "owner a", protocol.ByOwner, "10"), signer: "owner a", input: "6040"})
	w.do("replace-first-gone", "which is gone", step{who: "c", payload: protocol.AskStatus{}, want: protocol.CodeUnknown})
	w.do("delete-pending", "who was never confirmed needs no authority", step{who: "f", payload: protocol.Delete{}})
	w.do("deleted", "it is gone", step{who: "f", payload: protocol.AskStatus{}, want: protocol.CodeUnknown})
	w.do("delete-active-denied", "an active account needs one", step{who: "b", payload: protocol.Delete{}, want: protocol.CodeDenied})
}

// erasing guesses until the key is gone.
func (w *vectorWriter) erasing() {
	w.later(time.Hour)
	w.do("guess-1", "the first of three wrong guesses", step{who: "b", payload: w.evaluate(11, "11", "0001", "b", 0), input: "0001"})
	w.do("guess-2", "the second", step{who: "b", payload: w.evaluate(12, "12", "0002", "b", 0), input: "0002"})
	w.do("guess-3", "the last one: ten minutes to finish it", step{who: "b", payload: w.evaluate(13, "13", "0003", "b", 0), input: "0003"})
	w.do("locked", "no guess is left, and the last may still be finished", step{who: "b", payload: w.evaluate(14, "14", "0004", "b", 0), want: protocol.CodeLocked, input: "0004"})
	w.do("locked-again", "the newest attempt is answered while it is locked", step{who: "b", payload: w.evaluate(13, "13", "0003", "b", 1), input: "0003"})
	w.do("status-locked", "locked, no guess left", step{who: "b", payload: protocol.AskStatus{}})
	w.later(10*time.Minute - time.Millisecond)
	w.do("locked-still", "a millisecond before", step{who: "b", payload: w.evaluate(14, "14", "0004", "b", 0), want: protocol.CodeLocked, input: "0004"})
	w.later(time.Millisecond)
	w.do("erasing", "the key is erased: the one refusal that writes", step{who: "b", payload: w.evaluate(14, "14", "0004", "b", 0), want: protocol.CodeErased, input: "0004"})
	w.do("evaluate-erased", "for ever", step{who: "b", payload: w.evaluate(13, "13", "0003", "b", 0), want: protocol.CodeErased, input: "0003"})
	w.do("finish-erased", "nothing to finish", step{who: "b", payload: w.finish("b", attemptOf(13), protocol.Nonce{}), signer: "proof b", want: protocol.CodeErased})
	w.do("status-erased", "what is left of it", step{who: "b", payload: protocol.AskStatus{}})
	w.do("delete-erased-denied", "the proof key does not end it", step{who: "b", payload: protocol.NewDelete(vectorKey("proof b"), accountOf("b"), protocol.ByProofKey), signer: "proof b", want: protocol.CodeDenied})
	w.do("delete-erased", "the owner's key does", step{who: "b", payload: protocol.NewDelete(vectorKey("owner a"), accountOf("b"), protocol.ByOwner), signer: "owner a"})
	w.do("delete-gone", "it is gone", step{who: "b", payload: protocol.NewDelete(vectorKey("owner a"), accountOf("b"), protocol.ByOwner), signer: "owner a", want: protocol.CodeUnknown})
}

// strangers send what is no request, or no request of theirs.
func (w *vectorWriter) strangers() {
	w.later(time.Hour)
	token := exchange{Token: vectorToken}
	w.do("create-second", "another account", step{exchange: token, who: "d", payload: protocol.Create{Blinded: vectorElement(w.T, "15", "4917"), Limit: 10}, input: "4917"})
	w.do("confirm-second", "another owner", step{who: "d", payload: w.confirm("d", "d", "d"), signer: "proof d"})
	odd := func(name, comment, change string, code protocol.Code, p protocol.Payload, alter func(b []byte) []byte) {
		w.Helper()
		w.do(name, comment, step{exchange: exchange{Change: change}, who: "d", payload: p, alter: alter, want: code})
	}
	set := func(at int, v byte) func(b []byte) []byte { return func(b []byte) []byte { b[at] = v; return b } }
	flip := func(at int) func(b []byte) []byte {
		return func(b []byte) []byte {
			if at < 0 {
				at += len(b)
			}
			b[at] ^= 1
			return b
		}
	}
	status := protocol.AskStatus{}
	odd("signature", "the signature of the request", "the last bit but seven of it is another", protocol.CodeSignature, status, flip(-1))
	odd("signature-payload", "a payload that was not signed", "the last byte before the signature is another", protocol.CodeSignature, w.evaluate(20, "16", "4917", "d", 0), flip(-65))
	odd("signature-access", "the access key of another", "the access key is that of account a", protocol.CodeSignature, status, func(b []byte) []byte {
		copy(b[2:], vectorKey("access a").Public().(ed25519.PublicKey))
		return b
	})
	odd("malformed-short", "a byte is missing", "the last byte is missing", protocol.CodeMalformed, status, func(b []byte) []byte { return b[:len(b)-1] })
	odd("malformed-long", "a byte too many", "a byte after the end", protocol.CodeMalformed, status, func(b []byte) []byte { return append(b, 0) })
	odd("malformed-empty", "nothing", "all bytes are missing", protocol.CodeMalformed, status, func(b []byte) []byte { return b[:0] })
	odd("malformed-operation-0", "no such operation", "operation 0", protocol.CodeMalformed, status, set(1, 0))
	odd("malformed-operation-9", "no such operation", "operation 9", protocol.CodeMalformed, status, set(1, 9))
	odd("malformed-version-0", "there is no version 0", "version 0", protocol.CodeMalformed, status, set(0, 0))
	odd("newer", "a later version", "version 2", protocol.CodeNewer, status, set(0, 2))
	bad := w.evaluate(20, "16", "4917", "d", 0)
	bad.Blinded = protocol.Element{}
	w.do("malformed-identity", "the identity element", step{who: "d", payload: bad, want: protocol.CodeMalformed})
	bad.Blinded = protocol.Element(unhex(w.T, "f3ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"))
	w.do("malformed-element", "a field element that is not reduced", step{who: "d", payload: bad, want: protocol.CodeMalformed})
	bad.Blinded = protocol.Element(unhex(w.T, "26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371"))
	w.do("malformed-no-element", "it encodes no element", step{who: "d", payload: bad, want: protocol.CodeMalformed})
	w.do("malformed-proof", "with proof is 0 or 1", step{who: "d", payload: w.evaluate(20, "16", "4917", "d", 2), want: protocol.CodeMalformed})
	for _, c := range []struct {
		name, comment string
		create        protocol.Create
	}{
		{"limit-0", "no guess at all", protocol.Create{Blinded: vectorElement(w.T, "17", "4917")}},
		{"limit-11", "more guesses than ten", protocol.Create{Blinded: vectorElement(w.T, "17", "4917"), Limit: 11}},
		{"authority-3", "no such authority", protocol.Create{Blinded: vectorElement(w.T, "17", "4917"), Limit: 3, By: 3, Replaces: accountOf("d")}},
		{"replaces-none", "an authority, and nothing that is replaced", protocol.Create{Blinded: vectorElement(w.T, "17", "4917"), Limit: 3, By: protocol.ByOwner}},
		{"replaces-without", "what is replaced, and no authority", protocol.Create{Blinded: vectorElement(w.T, "17", "4917"), Limit: 3, Replaces: accountOf("d")}},
		{"create-identity", "the identity element", protocol.Create{Limit: 3}},
	} {
		w.do("malformed-"+c.name, c.comment, step{exchange: token, who: "e", payload: c.create, want: protocol.CodeMalformed})
	}
	w.do("create-expiring", "an account that nobody confirms", step{exchange: token, who: "e", payload: protocol.Create{Blinded: vectorElement(w.T, "17", "4917"), Limit: 1}, input: "4917"})
	w.later(7 * 24 * time.Hour)
	w.do("status-expiring", "after seven days it is there", step{who: "e", payload: protocol.AskStatus{}})
	w.later(time.Millisecond)
	w.do("expired", "and a millisecond later it is not", step{who: "e", payload: protocol.AskStatus{}, want: protocol.CodeUnknown})
	delete(w.keys, "e")
	w.do("create-anew", "the same access key may begin again", step{exchange: token, who: "e", payload: protocol.Create{Blinded: vectorElement(w.T, "18", "4917"), Limit: 1}, input: "4917"})
}

// restored puts the server back from a copy.
func (w *vectorWriter) restored() {
	w.do("head-second", "a head before the copy", step{who: "d", payload: protocol.PutHead{Head: protocol.NewHead(vectorKey("head 1"), 1, 3, [16]byte{3}, 0)}, signer: "head 1"})
	w.do("status-restored", "put back from a copy: two guesses at most, and the head is unproven", step{exchange: exchange{AfterRestore: true}, who: "d", payload: protocol.AskStatus{}})
	w.do("evaluate-restored", "one of two", step{who: "d", payload: w.evaluate(21, "19", "4917", "d", 0), input: "4917"})
	w.do("finish-restored", "all ten again", step{who: "d", payload: w.finish("d", attemptOf(21), protocol.Nonce{}), signer: "proof d"})
	w.do("head-restored", "the same head proves it", step{who: "d", payload: protocol.PutHead{Head: protocol.NewHead(vectorKey("head 1"), 1, 3, [16]byte{3}, 0)}, signer: "head 1"})
	w.do("status-proven", "all is as before", step{who: "d", payload: protocol.AskStatus{}})
	w.do("delete", "with the PIN", step{who: "d", payload: protocol.NewDelete(vectorKey("proof d"), accountOf("d"), protocol.ByProofKey), signer: "proof d"})
	w.do("delete-unknown", "it is gone", step{who: "d", payload: protocol.AskStatus{}, want: protocol.CodeUnknown})
}
