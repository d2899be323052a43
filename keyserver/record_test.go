package keyserver_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/satchel-backup/satchel/keyserver"
)

// A record is what package encoding/binary makes of it, as it was always written.
func TestRecordBytes(t *testing.T) {
	recordSize := binary.Size(keyserver.Record{})
	source := rand.NewChaCha8([32]byte{1})
	for range 100 {
		random := make([]byte, recordSize)
		source.Read(random)
		r, err := keyserver.ParseRecord(append([]byte{keyserver.RecordVersion}, random...))
		if err != nil {
			t.Fatal(err)
		}
		var want keyserver.Record
		if _, err := binary.Decode(random, binary.BigEndian, &want); err != nil || *r != want {
			t.Errorf("got %+v, want %+v, %v", r, want, err)
		}
		if got := r.Encode(); !bytes.Equal(got[1:], random) || got[0] != keyserver.RecordVersion {
			t.Errorf("got %x, want %x", got, random)
		}
	}
	for _, b := range [][]byte{nil, {1}, make([]byte, 1+recordSize), append([]byte{1}, make([]byte, recordSize-1)...), append([]byte{1}, make([]byte, recordSize+1)...)} {
		if _, err := keyserver.ParseRecord(b); err == nil {
			t.Errorf("%d bytes were a record", len(b))
		}
	}
}
