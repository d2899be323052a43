package keychain

import "time"

// Ring is the system under a Store, for tests.
type Ring = ring

// NewStore returns a Store on a fake system.
func NewStore(r Ring, wait time.Duration) *Store { return newStore(r, wait) }

// OpenWith is Open with a fake system.
func OpenWith(s *Store, dir string) (Keychain, Kind, string) { return open(s, dir) }

// Decode and Encode are the text form.
var (
	Decode = decode
	Encode = encode
)
