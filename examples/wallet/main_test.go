package main

import (
	"path/filepath"
	"testing"

	"github.com/satchel-backup/satchel/wallet"
)

func TestBackup(t *testing.T) {
	keys, err := wallet.New(wallet.Testnet, 12, "")
	if err != nil {
		t.Fatal(err)
	}
	b, code, err := startBackup(t.Context(), filepath.Join(t.TempDir(), "cloud"), keys)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := keepLabels(t.Context(), b, []byte("{}\n")); err != nil {
		t.Fatal(err)
	}
	if st := b.Status(); !st.Protected || st.Generation != 2 || code.Empty() {
		t.Errorf("got protected %v at generation %d", st.Protected, st.Generation)
	}
}
