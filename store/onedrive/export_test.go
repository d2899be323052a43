package onedrive

// SetChunk makes uploads of more than n bytes go in parts of n.
func (s *Store) SetChunk(n int) { s.single, s.chunk = n, n }

// QuickXor is quickXor.
func QuickXor(data []byte) string { return quickXor(data) }
