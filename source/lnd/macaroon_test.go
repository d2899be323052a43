package lnd_test

import (
	"encoding/hex"
	"slices"
	"testing"

	"github.com/satchel-backup/satchel/internal/fakelnd"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/source/lnd"
)

// readonly is the readonly.macaroon of a real lnd v0.20.1-beta, of a node that is no more.
const readonly = "0201036c6e6402ac01030a10bbcb2e94f432eac3e5c42abd3a0554b41201301a0f0a07616464726573731204726561641a0c0a04696e666f1204726561641a100a08696e766f69636573" +
	"1204726561641a100a086d616361726f6f6e1204726561641a0f0a076d6573736167651204726561641a100a086f6666636861696e1204726561641a0f0a076f6e636861696e1204726561641a0d0a05" +
	"70656572731204726561641a0e0a067369676e657212047265616400000620337104ae8beebc9d6cd04a6c1a01b08e8b19afdc019ee7337f9134e572b12c96"

// What a macaroon may do besides what is needed is read from itself; of what has another
// form nothing is said.
func TestBeyond(t *testing.T) {
	real, err := hex.DecodeString(readonly)
	if err != nil {
		t.Fatal(err)
	}
	node := fakelnd.New("regtest")
	needed := []fakelnd.Permission{{Entity: "offchain", Action: "read"}, {Entity: "info", Action: "read"}, {Entity: "peers", Action: "read"}}
	for name, test := range map[string]struct {
		mac  []byte
		want []string
	}{
		"a real one":  {real, []string{"address:read", "invoices:read", "macaroon:read", "message:read", "onchain:read", "signer:read"}},
		"what is due": {node.Macaroon(1, needed...), nil},
		"more":        {node.Macaroon(1, append(needed, fakelnd.Permission{Entity: "onchain", Action: "write"})...), []string{"onchain:write"}},
		"nothing":     {nil, nil},
		"other form":  {append([]byte{1}, real[1:]...), nil},
		"a long size": {[]byte{2, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, nil},
	} {
		var got []string
		for _, p := range lnd.Beyond(secret.New(test.mac)) {
			got = append(got, p.String())
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
	for i := range real { // Wherever it ends, and whatever a byte becomes.
		lnd.Beyond(secret.New(real[:i]))
		other := slices.Clone(real)
		other[i] ^= 0xff
		lnd.Beyond(secret.New(other))
	}
}
