package onedrive

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"slices"
)

// quickXor is Microsoft's QuickXorHash in base64: 160 bits into which each byte is
// XORed, turned by eleven bits more than the one before it, and at last the length. It
// tells what was damaged by chance, and nothing of who meant harm.
func quickXor(data []byte) string {
	var h [20]byte
	var round [160]byte // After so many bytes it is turned as in the beginning.
	for part := range slices.Chunk(data, len(round)) {
		subtle.XORBytes(round[:], round[:], part)
	}
	at := 0 // bits
	for _, b := range round {
		v := uint16(b) << (at % 8)
		h[at/8] ^= byte(v)
		h[(at/8+1)%20] ^= byte(v >> 8)
		at = (at + 11) % 160
	}
	n := binary.LittleEndian.Uint64(h[12:]) ^ uint64(len(data))
	binary.LittleEndian.PutUint64(h[12:], n)
	return base64.StdEncoding.EncodeToString(h[:])
}
