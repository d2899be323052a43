package keychain_test

import (
	"testing"

	"github.com/satchel-backup/satchel/internal/cloudtest"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/keychain"
)

// A wallet is made, changed and lost, and comes back from this place alone.
func TestJourney(t *testing.T) {
	k, locks := newRing(), t.TempDir()
	cloudtest.Journey(t, func() store.Store {
		s, err := keychain.New("", keychain.Config{Keychain: k, Dir: locks})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
