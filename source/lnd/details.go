package lnd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
)

// Kinds of seed that lnd's wallet can be made from.
const (
	SeedAezeed = "aezeed" // 24 words of lnd's own kind
	SeedXprv   = "xprv"   // an extended private key
)

// nodeItem is the JSON of ItemNode.
type nodeItem struct {
	Format         int      `json:"format"`         // 1
	Implementation string   `json:"implementation"` // lnd
	Version        string   `json:"version"`
	Network        string   `json:"network"`
	Node           string   `json:"node"` // public key
	Alias          string   `json:"alias"`
	Seed           string   `json:"seed,omitempty"` // SeedAezeed, SeedXprv, or not known
	Addresses      []string `json:"addresses"`      // pubkey@host:port, as announced
}

// The JSON of ItemPeers.
type (
	peersItem struct {
		Format int        `json:"format"` // 1
		Peers  []peerItem `json:"peers"`
	}
	peerItem struct {
		Node      string   `json:"node"` // public key
		Alias     string   `json:"alias,omitempty"`
		Addresses []string `json:"addresses"` // host:port
		Channels  []string `json:"channels"`  // txid:index
	}
)

const (
	maxPeers     = 10_000
	maxAddresses = 8   // of one peer
	maxText      = 256 // bytes of an alias or address
)

// encode returns the JSON of an item.
func encode(item any) []byte {
	data, err := json.Marshal(item)
	if err != nil {
		panic(err) // Strings and numbers.
	}
	return data
}

func (i Info) item(seed string) nodeItem {
	return nodeItem{
		Format: 1, Implementation: "lnd", Version: short(i.Version), Network: i.Network, Node: i.PubKey, Alias: short(i.Alias), Seed: seed,
		Addresses: shortList(i.URIs),
	}
}

func short(s string) string { return s[:min(len(s), maxText)] }

func shortList(list []string) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		if len(s) <= maxText && len(out) < maxAddresses {
			out = append(out, s)
		}
	}
	return out
}

// peers asks which nodes the channels are with and where those are. What was known
// before stays where nothing newer is heard: of peers that are away, and of channels
// that the node has forgotten and a backup that is kept knows.
func (n *Node) peers(ctx context.Context, before []byte, inBackups map[string]bool) ([]byte, error) {
	open, err := n.Open(ctx)
	if err != nil {
		return nil, err
	}
	pending, err := n.Pending(ctx)
	if err != nil {
		return nil, err
	}
	connected, err := n.Peers(ctx)
	if err != nil {
		return nil, err
	}
	peers := map[string]*peerItem{}
	listed := map[string]bool{}
	for _, c := range slices.Concat(open, pending.Opening, pending.Closing, pending.Forced) {
		if !isPubKey(c.Peer) || listed[c.Point] {
			continue
		}
		listed[c.Point] = true
		p := peers[c.Peer]
		if p == nil && len(peers) == maxPeers {
			continue
		}
		if p == nil {
			p = &peerItem{Node: c.Peer}
			peers[c.Peer] = p
		}
		p.Channels = append(p.Channels, c.Point)
	}
	for _, c := range connected {
		if p := peers[c.PubKey]; p != nil && !c.Inbound {
			p.Addresses = append(p.Addresses, c.Address)
		}
	}
	for _, p := range peers {
		a, err := n.Announced(ctx, p.Node)
		if err != nil {
			return nil, err
		}
		p.Alias = short(a.Alias)
		p.Addresses = append(p.Addresses, a.Addresses...)
	}
	var old peersItem
	if len(before) > maxItem || json.Unmarshal(before, &old) != nil || old.Format != 1 {
		old = peersItem{}
	}
	for _, o := range old.Peers {
		p := peers[o.Node]
		for _, c := range o.Channels {
			if listed[c] || !inBackups[c] {
				continue
			}
			if p == nil {
				p = &peerItem{Node: o.Node, Alias: o.Alias}
				peers[o.Node] = p
			}
			p.Channels = append(p.Channels, c)
		}
		if p != nil && len(p.Addresses) == 0 {
			p.Addresses, p.Alias = o.Addresses, cmp.Or(p.Alias, o.Alias)
		}
	}
	item := peersItem{Format: 1, Peers: []peerItem{}}
	for _, key := range slices.Sorted(maps.Keys(peers)) {
		p := peers[key]
		slices.Sort(p.Addresses)
		p.Addresses = shortList(slices.Compact(p.Addresses))
		slices.Sort(p.Channels)
		p.Channels = slices.Compact(p.Channels)
		item.Peers = append(item.Peers, *p)
	}
	return encode(item), nil
}

// fate is what became of a channel.
type fate int

const (
	unheard fate = iota // no list has it
	living              // every backup has it
	ending              // closed by one side, its money still locked: no backup has it
	closedForGood
)

// fates asks what became of all channels.
func (n *Node) fates(ctx context.Context) (map[string]fate, error) {
	fates := map[string]fate{}
	// A channel goes from one list to the next meanwhile, and the lists are asked for in
	// the order of its life. The first that has it counts.
	add := func(f fate, list []Channel) {
		for _, c := range list {
			if fates[c.Point] == unheard {
				fates[c.Point] = f
			}
		}
	}
	before, err := n.Pending(ctx)
	if err != nil {
		return nil, err
	}
	open, err := n.Open(ctx)
	if err != nil {
		return nil, err
	}
	after, err := n.Pending(ctx)
	if err != nil {
		return nil, err
	}
	closed, err := n.Closed(ctx)
	if err != nil {
		return nil, err
	}
	add(living, slices.Concat(before.Opening, open, before.Closing, after.Opening, after.Closing))
	add(ending, slices.Concat(before.Forced, after.Forced))
	add(closedForGood, closed)
	return fates, nil
}

// dead reports whether no retry with what the Config holds can help.
func dead(err error) bool {
	for _, e := range []error{ErrMacaroon, ErrPermission, ErrCertificate, ErrOtherNode, ErrNetwork, ErrAddress} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
