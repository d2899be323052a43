package seal_test

import (
	"bytes"
	"testing"

	"github.com/satchel-backup/satchel/seal"
)

// One pack after another is opened in the same room, shorter and longer ones.
func TestOpenPackInto(t *testing.T) {
	keys := seal.NewKeys()
	device := keys.Device(1, seal.NewDeviceID())
	var room []byte
	for i, n := range []int{100_000, 10, 0, 90_000, 300_000} {
		value := bytes.Repeat([]byte{byte(i + 1)}, n)
		name, sealed, err := seal.SealPack(device, uint64(i+1), [][]byte{value, {7}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := keys.OpenPackInto(room, name, sealed)
		if err != nil || !bytes.HasPrefix(got, append(value, 7)) {
			t.Fatalf("%d bytes: got %d, %v", n, len(got), err)
		}
		if want, err := keys.OpenPack(name, sealed); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: in a room of its own it is another, %v", n, err)
		}
		if i > 0 && n < 100_000 && &got[0] != &room[0] {
			t.Errorf("%d bytes: the room was not taken", n)
		}
		sealed[len(sealed)-1] ^= 1
		if _, err := keys.OpenPackInto(got, name, sealed); err == nil {
			t.Error("a damaged pack was opened")
		}
		sealed[len(sealed)-1] ^= 1
		if room, err = keys.OpenPackInto(got, name, sealed); err != nil {
			t.Fatal(err)
		}
	}
}
