package folder

import "context"

// SetFetch sets what asks the system to download a file.
func SetFetch(s *Store, f func(ctx context.Context, file string)) { s.fetch = f }
