package protocol_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/protocol"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The test vectors of RFC 9497, appendix A.1.2: ristretto255-SHA512, verifiable mode.
func TestRFC9497(t *testing.T) {
	key, err := protocol.ParseKey(unhex(t, "e6f73f344b79b379f1a0dd37e07ff62e38d9f71345ce62ae3a9bc60b04ccd909"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.Public()
	if err != nil || hex.EncodeToString(public[:]) != "c803e2cc6b05fc15064549b5920659ca4a77b2cca6f04f6b357009335476ad4e" {
		t.Fatalf("public key %x, %v", public, err)
	}
	for _, v := range []struct{ input, blinded, evaluated, proof, output string }{
		{
			"00",
			"863f330cc1a1259ed5a5998a23acfd37fb4351a793a5b3c090b642ddc439b945",
			"aa8fa048764d5623868679402ff6108d2521884fa138cd7f9c7669a9a014267e",
			"ddef93772692e535d1a53903db24367355cc2cc78de93b3be5a8ffcc6985dd066d4346421d17bf5117a2a1ff0fcb2a759f58a539dfbe857a40bce4cf49ec600d",
			"b58cfbe118e0cb94d79b5fd6a6dafb98764dff49c14e1770b566e42402da1a7da4d8527693914139caee5bd03903af43a491351d23b430948dd50cde10d32b3c",
		},
		{
			"5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
			"cc0b2a350101881d8a4cba4c80241d74fb7dcbfde4a61fde2f91443c2bf9ef0c",
			"60a59a57208d48aca71e9e850d22674b611f752bed48b36f7a91b372bd7ad468",
			"401a0da6264f8cf45bb2f5264bc31e109155600babb3cd4e5af7d181a2c9dc0a67154fabf031fd936051dec80b0b6ae29c9503493dde7393b722eafdf5a50b02",
			"8a9a2f3c7f085b65933594309041fc1898d42d0858e59f90814ae90571a6df60356f4610bf816f27afdd84f47719e480906d27ecd994985890e5f539e7ea74b6",
		},
	} {
		b, err := protocol.BlindBy(unhex(t, v.input), unhex(t, "64d37aed22a27f5191de1c1d69fadb899d8862b58eb4220029e036ec4c1f6706"))
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b.Blinded[:]); got != v.blinded {
			t.Errorf("blinded %s, want %s", got, v.blinded)
		}
		e, err := key.Evaluate(b.Blinded)
		if err != nil || hex.EncodeToString(e[:]) != v.evaluated {
			t.Errorf("evaluated %x, %v, want %s", e, err, v.evaluated)
		}
		if err := b.Verify(public, e, protocol.Proof(unhex(t, v.proof))); err != nil {
			t.Errorf("the proof of the RFC: %v", err)
		}
		out, err := b.Finalize(e)
		if err != nil || hex.EncodeToString(out) != v.output {
			t.Errorf("output %x, %v, want %s", out, err, v.output)
		}
		same, proof, err := key.Prove(b.Blinded)
		if err != nil || same != e {
			t.Errorf("evaluated %x under proof, %v", same, err)
		}
		if err := b.Verify(public, e, proof); err != nil {
			t.Errorf("our own proof: %v", err)
		}
	}
}

// A server that evaluates with another key, or proves something else, is found out.
func TestLies(t *testing.T) {
	key, err := protocol.DeriveKey([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	other, err := protocol.DeriveKey([32]byte{2})
	if err != nil {
		t.Fatal(err)
	}
	public, _ := key.Public()
	theirs, _ := other.Public()
	b, err := protocol.Blind([]byte("1234"))
	if err != nil {
		t.Fatal(err)
	}
	e, proof, err := key.Prove(b.Blinded)
	if err != nil {
		t.Fatal(err)
	}
	e2, proof2, err := other.Prove(b.Blinded)
	if err != nil {
		t.Fatal(err)
	}
	later, err := protocol.Blind([]byte("1234"))
	if err != nil {
		t.Fatal(err)
	}
	flipped := proof
	flipped[40] ^= 1
	for what, c := range map[string]struct {
		b      *protocol.Blinding
		key, e protocol.Element
		proof  protocol.Proof
	}{
		"another key":        {b, public, e2, proof2},
		"another public key": {b, theirs, e, proof},
		"another element":    {b, public, e2, proof},
		"another proof":      {b, public, e, proof2},
		"a flipped proof":    {b, public, e, flipped},
		"a stale evaluation": {later, public, e, proof},
		"nothing":            {b, public, protocol.Element{}, proof},
		"no key":             {b, protocol.Element{}, e, proof},
	} {
		if err := c.b.Verify(c.key, c.e, c.proof); !errors.Is(err, protocol.ErrProof) && !errors.Is(err, protocol.ErrElement) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if b.Blinded == later.Blinded {
		t.Error("two blindings of one input are the same")
	}
}

// The identity, and what encodes no element or encodes one in a second way, is refused
// by both sides.
func TestElements(t *testing.T) {
	key, err := protocol.DeriveKey([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	b, err := protocol.Blind([]byte("1234"))
	if err != nil {
		t.Fatal(err)
	}
	// From RFC 9496, appendix A.2: non-canonical and negative field elements, and more.
	for _, s := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"00ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"f3ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"ed57ffd8c914fb201471d1c3d245ce3c746fcbe63a3679d51b6a516ebebe0e20",
		"c34c4e1826e5d403b78e246e88aa051c36ccf0aafebffe137d148a2bf9104562",
		"26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371",
		"4eac077a713c57b4f4397629a4145982c661f48044dd3f96427d40b147d9742f",
		"3eb858e78f5a7254d8c9731174a94f76755fd3941c0ac93735c07ba14579630e",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		e := protocol.Element(unhex(t, s))
		if err := e.Check(); !errors.Is(err, protocol.ErrElement) {
			t.Errorf("%s: got %v", s, err)
		}
		if _, err := key.Evaluate(e); !errors.Is(err, protocol.ErrElement) {
			t.Errorf("evaluating %s: got %v", s, err)
		}
		if _, _, err := key.Prove(e); !errors.Is(err, protocol.ErrElement) {
			t.Errorf("proving %s: got %v", s, err)
		}
		if _, err := b.Finalize(e); !errors.Is(err, protocol.ErrElement) {
			t.Errorf("unblinding %s: got %v", s, err)
		}
	}
}

func TestGuessLimit(t *testing.T) {
	for _, c := range []struct{ t, n, want int }{{1, 1, 10}, {2, 3, 5}, {3, 5, 3}, {1, 2, 5}, {1, 10, 1}, {10, 10, 10}, {6, 10, 2}} {
		if got := protocol.GuessLimit(c.t, c.n); got != c.want {
			t.Errorf("%d of %d: %d guesses, want %d", c.t, c.n, got, c.want)
		}
	}
	// Whoever has t - 1 servers needs one of the other n - t + 1 for each guess.
	for n := 1; n <= protocol.MaxGuardians; n++ {
		for k := 1; k <= n; k++ {
			if all := protocol.GuessLimit(k, n) * (n - k + 1); all > protocol.MaxGuesses {
				t.Errorf("%d of %d: %d guesses in all", k, n, all)
			}
		}
	}
}

func keyFrom(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func publicOf(k ed25519.PrivateKey) protocol.Public {
	return protocol.Public(k.Public().(ed25519.PublicKey))
}

// requests has one of each kind.
func requests() (ed25519.PrivateKey, []protocol.Payload) {
	access, proof, owner, head := keyFrom(1), keyFrom(2), keyFrom(3), keyFrom(4)
	account := protocol.AccountOf(access.Public().(ed25519.PublicKey))
	old := protocol.Account{9}
	return access, []protocol.Payload{
		protocol.Create{Blinded: protocol.Element{7}, Limit: 5},
		protocol.Create{Blinded: protocol.Element{7}, Limit: 5, Replaces: old, By: protocol.ByProofKey, Allowed: protocol.AllowReplace(proof, old, account)},
		protocol.NewConfirm(proof, account, publicOf(owner), 3, publicOf(head), [32]byte{8}),
		protocol.Evaluate{Attempt: protocol.Attempt{5}, Blinded: protocol.Element{6}, Slot: [32]byte{8}, WithProof: 1},
		protocol.NewFinish(proof, account, protocol.Attempt{5}, protocol.Nonce{}),
		protocol.AskStatus{},
		protocol.PutHead{Head: protocol.NewHead(head, 3, 77, [16]byte{1, 2}, 1)},
		protocol.NewInstallEpoch(owner, 4, publicOf(head)),
		protocol.NewDelete(owner, account, protocol.ByOwner),
	}
}

func TestRequests(t *testing.T) {
	access, list := requests()
	for _, p := range list {
		t.Run(fmt.Sprintf("%T", p), func(t *testing.T) {
			b := protocol.Sign(access, 12345, p)
			if len(b) > protocol.MaxMessage {
				t.Errorf("%d bytes, more than MaxMessage", len(b))
			}
			r, err := protocol.ParseRequest(b)
			if err != nil {
				t.Fatal(err)
			}
			want := protocol.Request{
				Access: publicOf(access), Account: protocol.AccountOf(access.Public().(ed25519.PublicKey)), Seq: 12345, Payload: p,
			}
			if d := cmp.Diff(want, r); d != "" {
				t.Error(d)
			}
			// Every bit is under the signature, and every length is wrong but one.
			for i := range b {
				bad := bytes.Clone(b)
				bad[i] ^= 0x40
				if _, err := protocol.ParseRequest(bad); err == nil {
					t.Errorf("byte %d may change", i)
				}
			}
			for n := range b {
				if _, err := protocol.ParseRequest(b[:n]); err == nil {
					t.Errorf("may be cut to %d bytes", n)
				}
			}
			if _, err := protocol.ParseRequest(append(b, 0)); err == nil {
				t.Error("may be longer")
			}
		})
	}
	newer := protocol.Sign(access, 1, protocol.AskStatus{})
	newer[0] = 2
	if _, err := protocol.ParseRequest(newer); !errors.Is(err, protocol.ErrNewerProtocol) {
		t.Errorf("version 2: got %v", err)
	}
}

// A second signature holds for one account, one statement and one key.
func TestStatements(t *testing.T) {
	key, other := keyFrom(2), keyFrom(3)
	a, b := protocol.Account{1}, protocol.Account{2}
	confirm := protocol.NewConfirm(key, a, publicOf(other), 1, publicOf(other), [32]byte{1})
	finish := protocol.NewFinish(key, a, protocol.Attempt{1}, protocol.Nonce{})
	head := protocol.NewHead(key, 1, 2, [16]byte{3}, 0)
	epoch := protocol.NewInstallEpoch(key, 2, publicOf(other))
	del := protocol.NewDelete(key, a, protocol.ByOwner)
	create := protocol.Create{Replaces: a, Allowed: protocol.AllowReplace(key, a, b)}
	if !confirm.Valid(a) || !finish.OpenedBy(publicOf(key), a) || !head.SignedBy(publicOf(key)) ||
		!epoch.InstalledBy(publicOf(key)) || !del.AllowedBy(publicOf(key), a) || !create.AllowedBy(publicOf(key), b) {
		t.Fatal("what was signed does not verify")
	}
	if confirm.Valid(b) || finish.OpenedBy(publicOf(key), b) || del.AllowedBy(publicOf(key), b) || create.AllowedBy(publicOf(key), a) {
		t.Error("a signature holds for another account")
	}
	if finish.OpenedBy(publicOf(other), a) || head.SignedBy(publicOf(other)) || epoch.InstalledBy(publicOf(other)) ||
		del.AllowedBy(publicOf(other), a) || create.AllowedBy(publicOf(other), b) {
		t.Error("a signature holds for another key")
	}
	later := confirm
	later.Slot[0]++
	ahead := head
	ahead.Generation++
	again := finish
	again.Attempt[0]++
	if later.Valid(a) || ahead.SignedBy(publicOf(key)) || again.OpenedBy(publicOf(key), a) {
		t.Error("a signature holds for something else")
	}
	// The one statement is not another one: a signed Delete is no Finish.
	if (&protocol.Finish{Opened: del.Allowed}).OpenedBy(publicOf(key), a) {
		t.Error("a signature holds for another statement")
	}
}

func TestReplies(t *testing.T) {
	want := protocol.Proven{Element: protocol.Element{1}, Left: 3, Key: protocol.Element{2}, Proof: protocol.Proof{3}}
	b := protocol.Reply(want)
	var got protocol.Proven
	if err := protocol.ParseReply(b, &got); err != nil || got != want {
		t.Errorf("got %v, %v", got, err)
	}
	got = protocol.Proven{}
	for n := range b {
		if err := protocol.ParseReply(b[:n], &got); err == nil || got != (protocol.Proven{}) {
			t.Errorf("may be cut to %d bytes: %v", n, got)
		}
	}
	if err := protocol.ParseReply(append(b, 0), &got); !errors.Is(err, protocol.ErrMalformed) {
		t.Errorf("longer: %v", err)
	}
	if err := protocol.ParseReply(b, nil); !errors.Is(err, protocol.ErrMalformed) {
		t.Errorf("an answer where none is expected: %v", err)
	}
	if err := protocol.ParseReply(protocol.Reply(nil), nil); err != nil {
		t.Error(err)
	}
	if n := len(protocol.Reply(protocol.Status{})); n > protocol.MaxMessage {
		t.Errorf("a status has %d bytes", n)
	}
	for code := protocol.CodeUnknown; code <= protocol.CodeNewer; code++ {
		want := &protocol.Refusal{Code: code}
		switch code {
		case protocol.CodeLocked:
			want.Locked = protocol.Locked{Until: 1e12, Left: 2}
		case protocol.CodeSequence:
			want.Sequence = protocol.Sequence{Last: 7, Now: 1e12}
		case protocol.CodeConflict:
			want.Head = protocol.Head{Epoch: 2, Generation: 9}
		}
		got, ok := errors.AsType[*protocol.Refusal](protocol.ParseReply(want.Reply(), nil))
		if !ok || *got != *want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if got.Error() == fmt.Sprintf("code %d", code) {
			t.Errorf("code %d has no text", code)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	access, list := requests()
	for _, p := range list {
		f.Add(protocol.Sign(access, 1, p))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := protocol.ParseRequest(b)
		if err != nil {
			return
		}
		// What is accepted has one spelling. The signature is over it.
		again := protocol.Sign(access, r.Seq, r.Payload)
		if len(again) != len(b) || r.Access == publicOf(access) && !bytes.Equal(again, b) {
			t.Errorf("%x is accepted as %x", b, again)
		}
	})
}

func FuzzParseReply(f *testing.F) {
	f.Add(protocol.Reply(protocol.Evaluated{Left: 1}))
	f.Add((&protocol.Refusal{Code: protocol.CodeLocked}).Reply())
	f.Fuzz(func(t *testing.T, b []byte) {
		var v protocol.Evaluated
		err := protocol.ParseReply(b, &v)
		if err == nil && !bytes.Equal(protocol.Reply(v), b) {
			t.Errorf("%x is accepted as %x", b, protocol.Reply(v))
		}
		if r, ok := errors.AsType[*protocol.Refusal](err); ok && !bytes.Equal(r.Reply(), b) {
			t.Errorf("%x is accepted as %x", b, r.Reply())
		}
	})
}
