package protocol

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/oprf"
	"github.com/cloudflare/circl/zk/dleq"
)

// The function is the VOPRF of RFC 9497 with ristretto255 and SHA-512, in verifiable
// mode. A proof is made only when it is asked for: without one, the evaluation is the
// same element.
var (
	suite = oprf.SuiteRistretto255
	curve = group.Ristretto255
)

// labelKey is the info from which the key of an account is derived.
const labelKey = "satchel/v1/oprf-key"

// Element is an element of ristretto255, not the identity, in its canonical encoding.
type Element [ElementSize]byte

// Proof is the proof that an evaluation used a key.
type Proof [ProofSize]byte

var (
	// ErrElement says that bytes encode no element, not canonically, or the identity.
	ErrElement = errors.New("not a usable element of the group")
	// ErrProof says that an evaluation is not what the key of the account gives.
	ErrProof = errors.New("the evaluation is not proven")
)

// point decodes an element. The identity would give every key the same evaluation.
func (e Element) point() (group.Element, error) {
	p := curve.NewElement()
	if err := p.UnmarshalBinary(e[:]); err != nil || p.IsIdentity() {
		return nil, ErrElement
	}
	again, err := p.MarshalBinaryCompress()
	if err != nil || !bytes.Equal(again, e[:]) {
		return nil, ErrElement
	}
	return p, nil
}

func elementOf(p group.Element) (Element, error) {
	b, err := p.MarshalBinaryCompress()
	if err != nil || len(b) != ElementSize || p.IsIdentity() {
		return Element{}, ErrElement
	}
	return Element(b), nil
}

// Check returns ErrElement unless the element is usable.
func (e Element) Check() error { _, err := e.point(); return err }

// Point is an element that was checked, for who evaluates it later: to decode it costs a
// sixth of the evaluation.
type Point struct{ p group.Element }

// Point returns ErrElement unless the element is usable.
func (e Element) Point() (Point, error) {
	p, err := e.point()
	return Point{p}, err
}

// Blinding is one input, blinded: what the client keeps until it has the evaluation.
type Blinding struct {
	data    *oprf.FinalizeData
	request *oprf.EvaluationRequest
	Blinded Element // for the server
}

// anyKey is a public key for one who blinds: the library wants one, and blinding does
// not use it.
var anyKey = sync.OnceValue(func() *oprf.PublicKey {
	k, err := oprf.DeriveKey(suite, oprf.VerifiableMode, make([]byte, SeedSize), nil)
	if err != nil {
		panic(err) // A seed of zeros is as good as any.
	}
	return k.Public()
})

// Blind blinds an input with a fresh random scalar, so that nothing about the input is
// in what the server sees.
func Blind(input []byte) (*Blinding, error) {
	return blind(input, curve.RandomNonZeroScalar(rand.Reader))
}

func blind(input []byte, by group.Scalar) (*Blinding, error) {
	data, request, err := oprf.NewVerifiableClient(suite, anyKey()).DeterministicBlind([][]byte{input}, []oprf.Blind{by})
	if err != nil {
		return nil, fmt.Errorf("blinding: %w", err)
	}
	e, err := elementOf(request.Elements[0])
	if err != nil {
		return nil, fmt.Errorf("blinding: %w", err)
	}
	return &Blinding{data, request, e}, nil
}

// Finalize returns the output of the function, 64 bytes, from an evaluation that nobody
// has proven: a server that lies gives another output.
func (b *Blinding) Finalize(evaluated Element) ([]byte, error) {
	p, err := evaluated.point()
	if err != nil {
		return nil, err
	}
	out, err := oprf.NewClient(suite).Finalize(b.data, &oprf.Evaluation{Elements: []oprf.Evaluated{p}})
	if err != nil {
		return nil, fmt.Errorf("unblinding: %w", err)
	}
	return out[0], nil
}

// Verify returns ErrProof unless the key behind the public key evaluated this blinding
// to that element.
func (b *Blinding) Verify(key Element, evaluated Element, proof Proof) error {
	e, err := evaluated.point()
	if err != nil {
		return err
	}
	if err := key.Check(); err != nil {
		return err
	}
	var public oprf.PublicKey
	if err := public.UnmarshalBinary(suite, key[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	var p dleq.Proof
	if err := p.UnmarshalBinary(curve, proof[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	_, err = oprf.NewVerifiableClient(suite, &public).Finalize(b.data, &oprf.Evaluation{Elements: []oprf.Evaluated{e}, Proof: &p})
	if err != nil {
		return ErrProof
	}
	return nil
}

// Key is the secret key of one account, on the server.
type Key struct{ private *oprf.PrivateKey }

// SeedSize is the number of random bytes that a key is derived from.
const SeedSize = 32

// DeriveKey derives the key of an account from a random seed (RFC 9497, DeriveKeyPair).
func DeriveKey(seed [SeedSize]byte) (*Key, error) {
	k, err := oprf.DeriveKey(suite, oprf.VerifiableMode, seed[:], []byte(labelKey))
	if err != nil {
		return nil, fmt.Errorf("deriving a key: %w", err)
	}
	return &Key{k}, nil
}

// ParseKey reads what Bytes returned.
func ParseKey(b []byte) (*Key, error) {
	var k oprf.PrivateKey
	if err := k.UnmarshalBinary(suite, b); err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	return &Key{&k}, nil
}

// Public returns the public key.
func (k *Key) Public() (Element, error) {
	b, err := k.private.Public().MarshalBinary()
	if err != nil || len(b) != ElementSize {
		return Element{}, fmt.Errorf("making a public key: %w", err)
	}
	return Element(b), nil
}

// Bytes returns the secret scalar, 32 bytes.
func (k *Key) Bytes() ([]byte, error) { return k.private.MarshalBinary() }

// Evaluate evaluates the function on a blinded element.
func (k *Key) Evaluate(blinded Element) (Element, error) {
	p, err := blinded.Point()
	if err != nil {
		return Element{}, err
	}
	return k.EvaluatePoint(p)
}

// EvaluatePoint evaluates the function on a blinded element that was checked.
func (k *Key) EvaluatePoint(blinded Point) (Element, error) {
	ev, err := oprf.NewServer(suite, k.private).Evaluate(&oprf.EvaluationRequest{Elements: []oprf.Blinded{blinded.p}})
	if err != nil {
		return Element{}, fmt.Errorf("evaluating: %w", err)
	}
	return elementOf(ev.Elements[0])
}

// Prove evaluates and proves that it was with this key.
func (k *Key) Prove(blinded Element) (Element, Proof, error) {
	p, err := blinded.point()
	if err != nil {
		return Element{}, Proof{}, err
	}
	ev, err := oprf.NewVerifiableServer(suite, k.private).Evaluate(&oprf.EvaluationRequest{Elements: []oprf.Blinded{p}})
	if err != nil {
		return Element{}, Proof{}, fmt.Errorf("evaluating: %w", err)
	}
	e, err := elementOf(ev.Elements[0])
	if err != nil {
		return Element{}, Proof{}, err
	}
	proof, err := ev.Proof.MarshalBinary()
	if err != nil || len(proof) != ProofSize {
		return Element{}, Proof{}, fmt.Errorf("proving: %w", err)
	}
	return e, Proof(proof), nil
}
