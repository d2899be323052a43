package gdrive

// SetChunk makes what is larger than n bytes go in chunks of n bytes.
func (s *Store) SetChunk(n int) { s.small, s.chunk = n, n }
