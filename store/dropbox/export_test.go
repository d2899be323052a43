package dropbox

// SetChunk makes uploads of more than n bytes go in parts of n.
func (s *Store) SetChunk(n int) { s.chunk = n }

// ContentHash is contentHash.
func ContentHash(data []byte) string { return contentHash(data) }

// ASCIIJSON is asciiJSON.
func ASCIIJSON(v any) (string, error) { return asciiJSON(v) }
