package keyserver

import (
	"context"

	"github.com/satchel-backup/satchel/protocol"
)

// Rekey puts another secret key in the place of the one that was drawn for an account,
// for vectors.
func (s *Server) Rekey(ctx context.Context, a protocol.Account, scalar [32]byte) error {
	h, err := s.load(ctx, a, 0)
	if err != nil {
		return err
	}
	h.key.Secret = scalar
	return s.save(ctx, h)
}

// Record is a record as it is kept, before it is sealed.
type Record = record

// RecordVersion is the first byte of it.
const RecordVersion = recordVersion

// ParseRecord reads one.
func ParseRecord(b []byte) (*Record, error) { return parseRecord(b) }

// Encode returns its bytes.
func (r *record) Encode() []byte { return r.bytes() }
