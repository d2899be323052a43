package lnd

import (
	"fmt"
	"maps"
	"slices"
	"testing"
)

// count compares what the node has on the chain with what it had in its wallet and in
// channels at a height: nothing may be missing but fees.
func (r *runner) count(t testing.TB, height, inWallet int64, inChannels map[string]int64) {
	t.Helper()
	commitments := r.chain.closings(t, height, slices.Collect(maps.Keys(inChannels))...)
	s := r.sweeps(t, height, commitments)
	var sum int64
	for _, v := range inChannels {
		sum += v
	}
	if s.main != sum {
		t.Errorf("%d sats came out of the channels, want %d", s.main, sum)
	}
	got, want := r.confirmed(t), inWallet+sum+s.anchors-s.fees
	if got != want {
		t.Errorf("the node has %d sats, want %d: %d in the wallet, %d in channels, %d in anchors, less fees of %d", got, want, inWallet, sum, s.anchors, s.fees)
	}
	t.Logf("%d sats: %d were in the wallet, %d in channels, %d in anchors; fees %d", got, inWallet, sum, s.anchors, s.fees)
}

// spent is what the transactions of a node after a height tell, when all the money of its
// channels came home.
type spent struct {
	fees    int64 // of its own transactions
	anchors int64 // that it took
	main    int64 // that it took besides
}

// sweeps looks at every transaction after a height which the node made.
func (n *node) sweeps(t testing.TB, after int64, commitments map[string]bool) spent {
	t.Helper()
	own := n.own(t)
	var s spent
	for _, tx := range n.chain.since(t, after) {
		if commitments[tx.Txid] || !own[tx.Txid] {
			continue
		}
		s.fees += n.chain.fee(t, tx)
		for _, in := range tx.Vin {
			if !commitments[in.Txid] {
				continue // From its wallet, or an earlier sweep.
			}
			if v := n.chain.transaction(t, in.Txid).out(t, in.Vout); v == anchorSats {
				s.anchors += v
			} else {
				s.main += v
			}
		}
	}
	return s
}

// own are the transactions that pay to nobody but the node, as it knows.
func (n *node) own(t testing.TB) map[string]bool {
	t.Helper()
	var list struct {
		Transactions []struct {
			Hash    string `json:"tx_hash"`
			Outputs []struct {
				Ours bool `json:"is_our_address"`
			} `json:"output_details"`
		}
	}
	n.must(t, "GET", "/v1/transactions?end_height=-1", nil, &list)
	own := map[string]bool{}
	for _, tx := range list.Transactions {
		own[tx.Hash] = len(tx.Outputs) > 0
		for _, o := range tx.Outputs {
			if !o.Ours {
				own[tx.Hash] = false
			}
		}
	}
	return own
}

// closings waits until every channel is closed by a transaction that is in the pool or in
// a block, and returns them.
func (c *chain) closings(t testing.TB, after int64, points ...string) map[string]bool {
	t.Helper()
	var found map[string]bool
	eventually(t, waitLimit, "all channels are closed", func() error {
		found = map[string]bool{}
		for _, tx := range c.since(t, after) {
			for _, in := range tx.Vin {
				for _, p := range points {
					if fmt.Sprintf("%s:%d", in.Txid, in.Vout) == p {
						found[tx.Txid] = true
					}
				}
			}
		}
		if len(found) < len(points) {
			return fmt.Errorf("%d of %d are", len(found), len(points))
		}
		return nil
	})
	return found
}

// sweep mines until all the money of the node's channels is in its wallet.
func (n *node) sweep(t testing.TB) {
	t.Helper()
	const blocks = 400 // A time lock of a small channel is 144.
	for range blocks {
		p := n.pending(t)
		if len(p.Opening)+len(p.Forced)+len(p.Waiting) == 0 && len(n.channels(t)) == 0 {
			return
		}
		n.chain.mine(t, 1)
		n.synced(t)
	}
	t.Fatalf("%s still waits: %+v", n.name, n.pending(t))
}
