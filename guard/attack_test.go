package guard_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/oprf"
	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/guardtest"
	"github.com/satchel-backup/satchel/protocol"
)

// tape keeps all that servers see and say.
type tape struct {
	mu  sync.Mutex
	all []byte
}

func (w *world) record() *tape {
	var t tape
	w.After(t.add)
	return &t
}

func (t *tape) add(server string, r protocol.Request, reply []byte) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = fmt.Appendf(t.all, "%s\n", server)
	t.all = append(append(t.all, protocol.Sign(headKey(1), r.Seq, r.Payload)...), reply...)
	return reply, nil
}

// R12: all servers together, who know all their keys and saw all messages, and whom we even
// tell the salt, find nothing that the right PIN explains: no value that follows from
// PIN, salt and keys was ever shown to them. With the masked shares, which only the
// cloud has, they would.
func TestServersLearnNothing(t *testing.T) {
	w := newWorld(t, 3)
	tape := w.record()
	keys := map[string]*protocol.Key{}
	w.After(func(server string, r protocol.Request, reply []byte) ([]byte, error) {
		// The servers lend us their keys: each evaluates with one that we know.
		tape.mu.Lock()
		k := keys[server]
		if k == nil {
			k, _ = protocol.DeriveKey([32]byte{byte(len(keys) + 1)})
			keys[server] = k
		}
		tape.mu.Unlock()
		switch p := r.Payload.(type) {
		case protocol.Create:
			e, proof, _ := k.Prove(p.Blinded)
			public, _ := k.Public()
			reply = protocol.Reply(protocol.Created{Key: public, Evaluated: e, Proof: proof})
		case protocol.Evaluate:
			e, proof, _ := k.Prove(p.Blinded)
			public, _ := k.Public()
			reply = protocol.Reply(protocol.Evaluated{Element: e, Left: 4})
			if p.WithProof == 1 {
				reply = protocol.Reply(protocol.Proven{Element: e, Left: 4, Key: public, Proof: proof})
			}
		}
		return tape.add(server, r, reply)
	})
	slot := w.enrol(2, pin, "")
	o, err := w.open(slot, pin, "")
	w.must(err)
	w.finish(o)
	if _, err := w.open(slot, "4918", ""); err == nil {
		t.Fatal("a wrong PIN opens")
	}

	seen := tape.all
	secrets := map[string][]byte{"secret": o.Secret(), "salt": slot.PIN.Salt[:], "file key": fileKey.Open(), "PIN": []byte(pin)}
	for _, guess := range []string{pin, "4918"} {
		input, err := slot.Input(typed(guess))
		w.must(err)
		secrets["input of "+guess] = input.Open()
		secrets["stretched "+guess] = input.Open()[input.Len()-32:]
		h := group.Ristretto255.HashToElement(input.Open(), []byte("HashToGroup-OPRFV1-\x01-ristretto255-SHA512"))
		b, err := h.MarshalBinaryCompress()
		w.must(err)
		secrets["element of "+guess] = b
		for i := range slot.Guardians {
			g := &slot.Guardians[i]
			k := keys[g.Server]
			y, err := output(k, input.Open())
			w.must(err)
			e, err := k.Evaluate(protocol.Element(b))
			w.must(err)
			share, err := g.Unmask(y)
			w.must(err)
			id := fmt.Sprintf(" of %s at %s", guess, g.Server)
			secrets["evaluated element"+id] = e[:]
			secrets["output"+id], secrets["half an output"+id] = y, y[:32]
			secrets["share"+id] = share
			secrets["masked share"+id] = g.Share[:]
			secrets["access seed"+id] = g.Access[:]
		}
	}
	for what, s := range secrets {
		if bytes.Contains(seen, s) || len(s) > 8 && bytes.Contains(seen, []byte(hex.EncodeToString(s))) {
			t.Errorf("the servers saw the %s", what)
		}
	}
	// The test can see what is there.
	if !bytes.Contains(seen, sum(slot.Hash())) {
		t.Error("the tape is empty")
	}
	// Two entries of one PIN show different elements, the same at no two guardians.
	var shown []protocol.Element
	w.Before(func(_ string, r protocol.Request) error {
		if e, ok := r.Payload.(protocol.Evaluate); ok {
			tape.mu.Lock()
			defer tape.mu.Unlock()
			shown = append(shown, e.Blinded)
		}
		return nil
	})
	for range 2 {
		if _, err := w.open(slot, pin, ""); err != nil {
			t.Fatal(err)
		}
	}
	tape.mu.Lock()
	defer tape.mu.Unlock()
	for i, e := range shown {
		if slices.Contains(shown[:i], e) {
			t.Error("one blinded element was shown twice")
		}
	}
	if len(shown) != 4 {
		t.Errorf("%d elements were shown, want 4", len(shown))
	}
}

func sum(h [32]byte) []byte { return h[:] }

// Every wrong PIN gives shares as good as the right one, at every guardian: a number
// below the order, not zero, evenly spread, from which any t give a secret. Nothing but
// the commitment tells, and that needs t guardians. So one with the slot and t - 1 of
// the keys tests nothing.
//
// SATCHEL_PINS says how many PINs are tried.
func TestWrongShares(t *testing.T) {
	n := 500
	if s := os.Getenv("SATCHEL_PINS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	const guardians, threshold = 3, 2
	s := &guard.Slot{Threshold: threshold, PIN: guard.KDF{Passes: 1, Lanes: 1, Memory: 8 << 10}}
	var servers []oprf.VerifiableServer
	var outputs [][]byte
	for i := range guardians {
		k, err := oprf.DeriveKey(oprf.SuiteRistretto255, oprf.VerifiableMode, bytes.Repeat([]byte{byte(i + 1)}, 32), nil)
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, oprf.NewVerifiableServer(oprf.SuiteRistretto255, k))
		s.Guardians = append(s.Guardians, guard.Guardian{Server: fmt.Sprintf("https://%d.example", i), Access: [32]byte{byte(i + 1)}})
		y, err := servers[i].FullEvaluate([]byte("PIN 0"))
		if err != nil {
			t.Fatal(err)
		}
		outputs = append(outputs, y)
	}
	first, second := bytes.Repeat([]byte{5}, 32), bytes.Repeat([]byte{6}, 32)
	e, err := guard.Fixed(s, [][]byte{first, second}, outputs, typed(""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Wrap(fileKey); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var low, high [16]int // the shares by their lowest four bits and by their highest
	right := 0
	const workers = 4
	var wait sync.WaitGroup
	for worker := range workers {
		wait.Go(func() {
			for p := worker; p < n; p += workers {
				var numbers []int
				var shares [][]byte
				for _, i := range []int{p % guardians, (p + 1) % guardians} {
					y, err := servers[i].FullEvaluate(fmt.Appendf(nil, "PIN %d", p))
					if err != nil {
						t.Error(err)
						return
					}
					share, err := s.Guardians[i].Unmask(y)
					if err != nil {
						t.Errorf("PIN %d at guardian %d gives no share: %v", p, i, err)
						return
					}
					numbers, shares = append(numbers, i+1), append(shares, share)
				}
				o, err := s.Combine(numbers, shares) // which reads the shares strictly
				if err != nil || bytes.Equal(o.Secret(), make([]byte, 32)) {
					t.Errorf("PIN %d gives no secret: %v", p, err)
					return
				}
				mu.Lock()
				for _, b := range shares {
					low[b[0]&15]++
					high[b[31]&15]++ // The order is just above 2^252.
				}
				if o.Right() {
					right++
					if p != 0 {
						t.Errorf("PIN %d opens", p)
					}
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if right != 1 {
		t.Errorf("%d PINs open, want 1", right)
	}
	// 15 degrees of freedom: more than 60 comes once in 4 million. The keys are fixed.
	for what, buckets := range map[string][16]int{"lowest": low, "highest": high} {
		want, chi := float64(n*threshold)/16, 0.0
		for _, got := range buckets {
			chi += (float64(got) - want) * (float64(got) - want) / want
		}
		if chi > 60 {
			t.Errorf("the %s bits of the shares are not evenly spread: %v", what, buckets)
		}
	}
}

// Who has the slot and t - 1 of the servers has at most ten guesses at the others, in
// whatever order he asks, and however long he waits.
func TestGuessesInAll(t *testing.T) {
	for n := 1; n <= protocol.MaxGuardians; n++ {
		for _, k := range []int{1, (n + 1) / 2, n} {
			t.Run(fmt.Sprintf("%d of %d", k, n), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, n)
				slot := w.enrol(k, pin, "")
				honest := map[string]bool{}
				for _, s := range w.Names[k-1:] {
					honest[s] = true
				}
				var mu sync.Mutex
				got := 0
				w.After(func(server string, r protocol.Request, reply []byte) ([]byte, error) {
					if _, ok := r.Payload.(protocol.Evaluate); ok && honest[server] && reply[1] == 0 {
						mu.Lock()
						defer mu.Unlock()
						got++
					}
					return reply, nil
				})
				for range 12 {
					for i := range slot.Guardians {
						if g := &slot.Guardians[i]; honest[g.Server] {
							b, err := protocol.Blind([]byte("guess"))
							w.must(err)
							var a protocol.Attempt
							rand.Read(a[:])
							key := guard.AccessKey(g)
							_, err = w.Send(t.Context(), g.Server, protocol.Sign(key, uint64(w.Now().UnixMilli()), protocol.Evaluate{Attempt: a, Blinded: b.Blinded, Slot: slot.Hash()}))
							w.must(err)
						}
						w.Later(time.Second)
					}
					w.Later(73 * time.Hour)
				}
				mu.Lock()
				all := got
				mu.Unlock()
				if all > protocol.MaxGuesses || all < 1 {
					t.Errorf("%d evaluations in all", all)
				}
				if _, err := w.open(slot, pin, ""); !errors.Is(err, guard.ErrErased) {
					t.Errorf("afterwards: %v", err)
				}
			})
		}
	}
}

// A slot that somebody changed, with a hash that fits, is refused by the guardians, and
// no guess is spent.
func TestForgedSlot(t *testing.T) {
	w := newWorld(t, 3)
	slot := w.enrol(2, pin, "Zanzibar")
	for what, change := range map[string]func(s *guard.Slot){
		"threshold":         func(s *guard.Slot) { s.Threshold = 1 },
		"backup":            func(s *guard.Slot) { s.Backup[0]++ },
		"salt":              func(s *guard.Slot) { s.PIN.Salt[0]++ },
		"memory":            func(s *guard.Slot) { s.PIN.Memory++ },
		"passphrase's salt": func(s *guard.Slot) { s.Passphrase.Salt[0]++ },
		"no passphrase":     func(s *guard.Slot) { s.Passphrase = nil },
		"share":             func(s *guard.Slot) { s.Guardians[0].Share[0] ^= 1 },
		"key":               func(s *guard.Slot) { s.Guardians[0].Key[0] ^= 1 },
		"one guardian less": func(s *guard.Slot) { s.Guardians = s.Guardians[:2] },
		"commitment":        func(s *guard.Slot) { s.Commitment[0] ^= 1 },
		"second commitment": func(s *guard.Slot) { s.Second[0] ^= 1 },
		"wrapped key":       func(s *guard.Slot) { s.Wrapped[0] ^= 1 },
	} {
		forged, err := guard.ParseSlot(slot.Bytes())
		w.must(err)
		change(forged)
		if _, err := w.open(forged, pin, "Zanzibar"); !errors.Is(err, guard.ErrSlotDamaged) {
			t.Errorf("%s: got %v", what, err)
		}
		list, err := w.client.Status(t.Context(), forged)
		w.must(err)
		for _, s := range list {
			if !s.Damaged {
				t.Errorf("%s: the status at %s does not tell", what, s.Server)
			}
		}
	}
	if d := cmp.Diff([]int{5, 5, 5}, w.left(slot)); d != "" {
		t.Errorf("guesses were spent: %s", d)
	}
}

// lie changes the answers of one server.
func (w *world) lie(server string, change func(r protocol.Evaluate, e protocol.Proven) []byte) {
	w.After(func(s string, r protocol.Request, reply []byte) ([]byte, error) {
		req, ok := r.Payload.(protocol.Evaluate)
		if !ok || s != server {
			return reply, nil
		}
		var p protocol.Proven
		if req.WithProof == 1 {
			if err := protocol.ParseReply(reply, &p); err != nil {
				return reply, nil
			}
		} else {
			var e protocol.Evaluated
			if err := protocol.ParseReply(reply, &e); err != nil {
				return reply, nil
			}
			p.Element, p.Left = e.Element, e.Left
		}
		return change(req, p), nil
	})
}

// answer is a reply to an Evaluate.
func answer(r protocol.Evaluate, p protocol.Proven) []byte {
	if r.WithProof == 1 {
		return protocol.Reply(p)
	}
	return protocol.Reply(protocol.Evaluated{Element: p.Element, Left: p.Left})
}

// Liars are named, others take their place, and nobody else loses a guess.
func TestLiars(t *testing.T) {
	other, err := protocol.DeriveKey([32]byte{77})
	if err != nil {
		t.Fatal(err)
	}
	otherPublic, _ := other.Public()
	old, err := protocol.Blind([]byte("an earlier entry"))
	if err != nil {
		t.Fatal(err)
	}
	stale, staleProof, err := other.Prove(old.Blinded)
	if err != nil {
		t.Fatal(err)
	}
	lies := map[string]func(r protocol.Evaluate, p protocol.Proven) []byte{
		"another key, proven with it": func(r protocol.Evaluate, p protocol.Proven) []byte {
			p.Element, p.Proof, _ = other.Prove(r.Blinded)
			p.Key = otherPublic
			return answer(r, p)
		},
		"another key, its proof, and the name of the right one": func(r protocol.Evaluate, p protocol.Proven) []byte {
			p.Element, p.Proof, _ = other.Prove(r.Blinded)
			return answer(r, p)
		},
		"another key, and the right proof": func(r protocol.Evaluate, p protocol.Proven) []byte {
			p.Element, _ = other.Evaluate(r.Blinded)
			return answer(r, p)
		},
		"a stale evaluation": func(r protocol.Evaluate, p protocol.Proven) []byte {
			p.Element, p.Proof = stale, staleProof
			return answer(r, p)
		},
		"the identity": func(r protocol.Evaluate, p protocol.Proven) []byte {
			p.Element = protocol.Element{}
			return answer(r, p)
		},
		"no element": func(r protocol.Evaluate, p protocol.Proven) []byte {
			p.Element = protocol.Element(bytes.Repeat([]byte{0xff}, 32))
			return answer(r, p)
		},
		"the blinded element": func(r protocol.Evaluate, p protocol.Proven) []byte {
			p.Element = r.Blinded
			return answer(r, p)
		},
		"garbage":       func(protocol.Evaluate, protocol.Proven) []byte { return []byte("\x01\x00garbage") },
		"nothing":       func(protocol.Evaluate, protocol.Proven) []byte { return nil },
		"a short reply": func(r protocol.Evaluate, p protocol.Proven) []byte { b := answer(r, p); return b[:len(b)-1] },
		"different under proof": func(r protocol.Evaluate, p protocol.Proven) []byte {
			if r.WithProof == 0 {
				p.Element = stale
			}
			return answer(r, p)
		},
	}
	for what, lie := range lies {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, 3)
			slot := w.enrol(2, pin, "")
			both := w.enrolAt(2, w.Names[:2], pin)
			w.lie(w.Names[0], lie)
			o, err := w.open(slot, pin, "")
			w.must(err)
			if d := cmp.Diff([]string{w.Names[0]}, o.Liars()); d != "" {
				t.Error(d)
			}
			for i, left := range w.left(slot) {
				if left < 4 {
					t.Errorf("guardian %d has %d guesses left: one entry costs one", i+1, left)
				}
			}
			if wrong := w.finish(o); wrong != 0 {
				t.Errorf("%d wrong guesses were counted", wrong)
			}
			if d := cmp.Diff([]int{5, 5, 5}, w.left(slot)); d != "" {
				t.Error(d)
			}
			// A wrong PIN is still one, and the liar is named beside it.
			r, err := w.client.Recover(slot, typed("4918"))
			w.must(err)
			_, err = r.Open(t.Context())
			if _, ok := errors.AsType[*guard.WrongPINError](err); !ok {
				t.Errorf("a wrong PIN: got %v", err)
			}
			if d := cmp.Diff([]string{w.Names[0]}, r.Liars()); d != "" {
				t.Error(d)
			}
			// Where nobody can take its place, it is named; what it proved is used.
			_, err = w.open(both, pin, "")
			if what == "different under proof" {
				if err != nil {
					t.Errorf("2 of 2: got %v", err)
				}
				return
			}
			l, ok := errors.AsType[*guard.LiarError](err)
			if !ok || !errors.Is(err, guard.ErrLie) {
				t.Fatalf("2 of 2: got %v", err)
			}
			if d := cmp.Diff([]string{w.Names[0]}, l.Servers); d != "" {
				t.Error(d)
			}
			w.After(nil)
			for i, left := range w.left(both) {
				if left < protocol.GuessLimit(2, 2)-1 {
					t.Errorf("2 of 2: guardian %d has %d guesses left", i+1, left)
				}
			}
		})
	}
}

func (w *world) enrolAt(t int, servers []string, pin string) *guard.Slot {
	w.Helper()
	p, err := guard.NewPlan(backup, t, servers)
	w.must(err)
	slot, s, err := w.begin(p, pin, "")
	w.must(err)
	w.settle(s)
	return slot
}

// A server that lies from the first is named when the PIN is enrolled, and nothing that
// was enrolled before is touched.
func TestLiarAtEnrolment(t *testing.T) {
	w := newWorld(t, 3)
	old := w.enrol(2, pin, "")
	w.After(func(s string, r protocol.Request, reply []byte) ([]byte, error) {
		var c protocol.Created
		if s == w.Names[1] && protocol.ParseReply(reply, &c) == nil {
			c.Evaluated = c.Key
			return protocol.Reply(c), nil
		}
		return reply, nil
	})
	p, err := w.client.Replace(t.Context(), old, guard.Owner(owner), 2, w.Names)
	w.must(err)
	_, _, err = w.begin(p, "2580", "")
	l, ok := errors.AsType[*guard.LiarError](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	if d := cmp.Diff([]string{w.Names[1]}, l.Servers); d != "" {
		t.Error(d)
	}
	w.After(nil)
	w.must(w.client.Abandon(t.Context(), p))
	o, err := w.open(old, pin, "")
	w.must(err)
	w.finish(o)
}

// A guardian that evaluates falsely and then does not prove is left out.
func TestNoProof(t *testing.T) {
	w := newWorld(t, 3)
	slot := w.enrol(2, pin, "")
	w.After(func(s string, r protocol.Request, reply []byte) ([]byte, error) {
		e, ok := r.Payload.(protocol.Evaluate)
		switch {
		case !ok || s != w.Names[0]:
			return reply, nil
		case e.WithProof == 1:
			return nil, guardtest.ErrNetwork
		}
		return protocol.Reply(protocol.Evaluated{Element: e.Blinded, Left: 4}), nil
	})
	o, err := w.open(slot, pin, "")
	w.must(err)
	w.finish(o)
}
