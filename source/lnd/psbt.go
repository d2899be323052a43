package lnd

import (
	"bytes"
	"errors"

	"github.com/btcsuite/btcd/wire/v2"
)

// maxPSBT bounds what is read of a PSBT (BIP 174).
const maxPSBT = 1 << 20

// errPSBT says that what lnd gave is not the transaction that was asked for.
var errPSBT = errors.New("what lnd gave is not the transaction that was asked for")

// readTemplate returns the output that lnd asks to be paid: that of a PSBT whose
// transaction has one output. It comes first in a PSBT of version 0.
func readTemplate(psbt []byte) (*wire.TxOut, error) {
	const (
		magic       = "psbt\xff"
		transaction = "\x01\x00" // the key of the transaction
	)
	rest, ok := bytes.CutPrefix(psbt, []byte(magic+transaction))
	if !ok {
		return nil, errPSBT
	}
	raw, err := wire.ReadVarBytes(bytes.NewReader(rest), 0, maxPSBT, "transaction")
	if err != nil {
		return nil, errPSBT
	}
	var tx wire.MsgTx
	if err := tx.DeserializeNoWitness(bytes.NewReader(raw)); err != nil || len(tx.TxOut) != 1 {
		return nil, errPSBT
	}
	return tx.TxOut[0], nil
}
