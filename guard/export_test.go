package guard

import (
	"crypto/ed25519"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/math/polynomial"

	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// Fixed returns an enrolment whose randomness is given: the slot has everything but
// shares, commitments and the wrapped key; coefficients are those of the polynomial, the
// first is the secret.
func Fixed(s *Slot, coefficients, outputs [][]byte, passphrase secret.Bytes) (*Enrolment, error) {
	var c []group.Scalar
	for _, b := range coefficients {
		v, err := scalar(b)
		if err != nil {
			return nil, err
		}
		c = append(c, v)
	}
	p := polynomial.New(c)
	var shares []group.Scalar
	for i := range s.Guardians {
		shares = append(shares, p.Evaluate(group.Ristretto255.NewScalar().SetUint64(uint64(i+1))))
	}
	e := &Enrolment{opener: opener{s, secret.New(coefficients[0])}, plan: &Plan{Accounts: make([]Planned, len(s.Guardians))}, passphrase: passphrase}
	return e, s.hide(shares, outputs)
}

// Input returns what the function is evaluated on.
func (s *Slot) Input(pin secret.Bytes) (secret.Bytes, error) { return s.PIN.input(pin) }

// Account returns a guardian's account.
func (g *Guardian) Account() protocol.Account { return g.account().id() }

// Unmask returns the share that an output gives.
func (g *Guardian) Unmask(output []byte) ([]byte, error) {
	s, err := g.unmask(output)
	if err != nil {
		return nil, err
	}
	return s.MarshalBinary()
}

// Combine puts a secret together.
func (s *Slot) Combine(numbers []int, shares [][]byte) (*Opened, error) {
	var list []group.Scalar
	for _, b := range shares {
		v, err := scalar(b)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	value, err := combine(s.Threshold, numbers, list)
	return &Opened{opener: opener{s, value}}, err
}

// Right reports whether the secret is the one that the slot commits to.
func (o *Opened) Right() bool { return o.right() }

// Secret returns the secret.
func (o *Opened) Secret() []byte { return o.secret.Open() }

// ProofPublic returns the public proof key of guardian i.
func (o *Opened) ProofPublic(i int) protocol.Public {
	k := o.proofKey(o.slot.Guardians[i].account().id())
	return protocol.Public(k[32:])
}

// Stretched returns Argon2id of a normalised text.
func (k *KDF) Stretched(text secret.Bytes) secret.Bytes { return k.stretch(text) }

// AccessKey returns what requests at a guardian are signed with.
func AccessKey(g *Guardian) ed25519.PrivateKey { return g.account().access }
