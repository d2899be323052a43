package rclone_test

import (
	"testing"

	"github.com/satchel-backup/satchel/internal/cloudtest"
	"github.com/satchel-backup/satchel/store"
)

// A wallet is made, changed and lost, and comes back from this place alone.
func TestJourney(t *testing.T) {
	cloud := t.TempDir()
	cloudtest.Journey(t, func() store.Store { return open(t, cloud, "cloud:Wallets", standinBucket+"=1") })
}
