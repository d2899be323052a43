package protocol

import "github.com/cloudflare/circl/group"

// BlindBy blinds with a scalar that is given, for the vectors of RFC 9497.
func BlindBy(input, scalar []byte) (*Blinding, error) {
	s := group.Ristretto255.NewScalar()
	if err := s.UnmarshalBinary(scalar); err != nil {
		return nil, err
	}
	return blind(input, s)
}
