package lnd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/secret"
)

// State is how far lnd has started.
type State string

// The states that lnd knows.
const (
	NonExisting    State = "NON_EXISTING"
	Locked         State = "LOCKED"
	Unlocked       State = "UNLOCKED"
	RPCActive      State = "RPC_ACTIVE"
	ServerActive   State = "SERVER_ACTIVE"
	WaitingToStart State = "WAITING_TO_START"
)

// State asks how far lnd has started. It needs no macaroon.
func (n *Node) State(ctx context.Context) (State, error) {
	var out struct {
		State State `json:"state"`
	}
	if err := n.Call(ctx, http.MethodGet, "/v1/state", nil, &out); err != nil {
		return "", err
	}
	switch out.State {
	case NonExisting, Locked, Unlocked, RPCActive, ServerActive, WaitingToStart:
		return out.State, nil
	}
	return "", ErrNotLND
}

// Info is what lnd says about itself.
type Info struct {
	PubKey        string // 66 characters of hex
	Alias         string
	Version       string
	Network       string // mainnet, testnet, testnet4, signet, simnet or regtest
	SyncedToChain bool
	SyncedToGraph bool
	Height        uint32
	URIs          []string // pubkey@address, as announced
}

// Info asks lnd about itself. It needs info:read.
func (n *Node) Info(ctx context.Context) (Info, error) {
	var out struct {
		PubKey        string   `json:"identity_pubkey"`
		Alias         string   `json:"alias"`
		Version       string   `json:"version"`
		SyncedToChain bool     `json:"synced_to_chain"`
		SyncedToGraph bool     `json:"synced_to_graph"`
		Height        uint32   `json:"block_height"`
		URIs          []string `json:"uris"`
		Chains        []struct {
			Network string `json:"network"`
		} `json:"chains"`
	}
	if err := n.Call(ctx, http.MethodGet, "/v1/getinfo", nil, &out); err != nil {
		return Info{}, err
	}
	if !isPubKey(out.PubKey) || len(out.Chains) == 0 {
		return Info{}, ErrNotLND
	}
	return Info{
		PubKey: out.PubKey, Alias: out.Alias, Version: out.Version, Network: out.Chains[0].Network,
		SyncedToChain: out.SyncedToChain, SyncedToGraph: out.SyncedToGraph, Height: out.Height, URIs: out.URIs,
	}, nil
}

func isPubKey(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 33 && (b[0] == 2 || b[0] == 3)
}

// Backup is a backup of all channels of a node.
type Backup struct {
	Multi    []byte   // as lnd encrypted it; never the same bytes twice
	Channels []string // the channels in it as txid:index, sorted
	Singles  []Single // a backup of each channel alone, in any order
}

// Single is a backup of one channel, as lnd encrypted it.
type Single struct {
	Channel string `json:"channel"` // txid:index
	Backup  []byte `json:"backup"`
}

// wireBackup is a Backup as lnd sends it.
type wireBackup struct {
	Singles struct {
		Backups []struct {
			Point wirePoint `json:"chan_point"`
			Data  []byte    `json:"chan_backup"`
		} `json:"chan_backups"`
	} `json:"single_chan_backups"`
	Multi struct {
		Points []wirePoint `json:"chan_points"`
		Data   []byte      `json:"multi_chan_backup"`
	} `json:"multi_chan_backup"`
}

type wirePoint struct {
	Bytes []byte `json:"funding_txid_bytes"` // in the order of hashing
	Str   string `json:"funding_txid_str"`   // in the order of reading
	Index uint32 `json:"output_index"`
}

func (p wirePoint) String() string {
	txid := p.Str
	if len(p.Bytes) > 0 {
		b := slices.Clone(p.Bytes)
		slices.Reverse(b)
		txid = hex.EncodeToString(b)
	}
	return txid + ":" + strconv.FormatUint(uint64(p.Index), 10)
}

// minMulti is the size of a backup of no channel: nonce, tag, version and number.
const minMulti = 24 + 16 + 1 + 4

func (w *wireBackup) backup() (Backup, error) {
	b := Backup{Multi: w.Multi.Data}
	for _, p := range w.Multi.Points {
		b.Channels = append(b.Channels, p.String())
	}
	slices.Sort(b.Channels)
	b.Channels = slices.Compact(b.Channels)
	for _, single := range w.Singles.Backups {
		c := single.Point.String()
		if _, ok := slices.BinarySearch(b.Channels, c); ok && len(single.Data) > 0 {
			b.Singles = append(b.Singles, Single{c, single.Data})
		}
	}
	if !slices.ContainsFunc(b.Channels, notChannel) && len(b.Multi) >= minMulti {
		return b, nil
	}
	return Backup{}, ErrNotLND
}

func notChannel(s string) bool { return !isChannel(s) }

// isChannel reports whether s is txid:index.
func isChannel(s string) bool {
	txid, index, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(txid)
	n, errIndex := strconv.ParseUint(index, 10, 32)
	return err == nil && len(b) == 32 && txid == strings.ToLower(txid) && errIndex == nil && strconv.FormatUint(n, 10) == index
}

// Export asks for a backup of all channels that there are. It needs offchain:read.
func (n *Node) Export(ctx context.Context) (Backup, error) {
	var out wireBackup
	if err := n.Call(ctx, http.MethodGet, "/v1/channels/backup", nil, &out); err != nil {
		return Backup{}, err
	}
	return out.backup()
}

// Subscribe listens until ctx ends or the connection does, and calls event with a
// backup of all channels whenever one was opened or closed; an error of event ends it
// and is returned. It needs offchain:read.
//
// listening, if not nil, is called when lnd was asked. It answers nothing before the
// first event, so that a channel that opens just then may be missed: Export a moment
// after it, and again later. A connection that died is noticed within two minutes; an
// lnd that hangs is not.
func (n *Node) Subscribe(ctx context.Context, listening func(), event func(Backup) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, written := sent(ctx)
	if listening != nil {
		told := make(chan struct{})
		defer func() { cancel(); <-told }()
		go func() {
			defer close(told)
			select {
			case <-written:
				listening()
			case <-ctx.Done():
			}
		}()
	}
	resp, err := n.send(ctx, &n.stream, http.MethodGet, "/v1/channels/backup/subscribe", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := readLine(lines, n.limit)
		if err != nil && len(bytes.TrimSpace(line)) == 0 {
			if errors.Is(err, ErrTooLong) {
				return err
			}
			return n.away(ctx, err)
		}
		var out struct {
			Result *wireBackup  `json:"result"`
			Error  *wireFailure `json:"error"`
		}
		switch {
		case json.Unmarshal(line, &out) != nil:
			if err != nil && !errors.Is(err, io.EOF) {
				return n.away(ctx, err) // It was cut off.
			}
			return ErrNotLND
		case out.Error != nil:
			return out.Error.error(resp.StatusCode)
		case out.Result == nil:
			return ErrNotLND
		}
		backup, err := out.Result.backup()
		if err != nil {
			return err
		}
		if err := event(backup); err != nil {
			return err
		}
	}
}

// readLine returns a line of at most limit bytes without its end.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, ErrTooLong
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimSuffix(line, []byte("\n")), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return line, err
		}
	}
}

// Verify asks lnd whether a backup of all channels is one of its own, and which channels
// are in it. It is ErrBackup if not. lnd before 0.19 does not tell the channels: known is
// then false. It needs offchain:read.
func (n *Node) Verify(ctx context.Context, multi []byte) (channels []string, known bool, err error) {
	in := map[string]any{"multi_chan_backup": map[string]any{"multi_chan_backup": multi}}
	var out struct {
		Points *[]string `json:"chan_points"`
	}
	err = n.Call(ctx, http.MethodPost, "/v1/channels/backup/verify", in, &out)
	if err != nil || out.Points == nil {
		return nil, false, err
	}
	if slices.ContainsFunc(*out.Points, notChannel) {
		return nil, false, ErrNotLND
	}
	slices.Sort(*out.Points)
	return slices.Compact(*out.Points), true, nil
}

// Channel is a channel of the node.
type Channel struct {
	Point    string // txid:index
	Peer     string // the other node's public key
	Capacity int64  // satoshis
	Local    int64  // satoshis that are the node's
	Active   bool   // of an open channel: the peer is there
	// Restored says that lnd knows no more of the channel than a backup told it, and waits
	// for the peer to close it. What lnd itself exports of such a channel is less than that
	// backup: of channels of today's kind nothing can be restored from it.
	Restored bool
}

type wireChannel struct {
	Point    string `json:"channel_point"`
	Peer     string `json:"remote_pubkey"`
	PeerNode string `json:"remote_node_pub"`
	Capacity int64  `json:"capacity,string"`
	Local    int64  `json:"local_balance,string"`
	Active   bool   `json:"active"`
	Flags    string `json:"chan_status_flags"`
}

// restoredFlag is among the flags of a channel that lnd knows from a backup only.
const restoredFlag = "ChanStatusRestored"

// channel returns w if it has the shape of a channel.
func (w wireChannel) channel() (Channel, error) {
	c := Channel{Point: w.Point, Peer: w.Peer, Capacity: w.Capacity, Local: w.Local, Active: w.Active, Restored: strings.Contains(w.Flags, restoredFlag)}
	if c.Peer == "" {
		c.Peer = w.PeerNode
	}
	if !isChannel(c.Point) {
		return Channel{}, ErrNotLND
	}
	return c, nil
}

func channels(wire []wireChannel) ([]Channel, error) {
	list := make([]Channel, 0, len(wire))
	for _, w := range wire {
		c, err := w.channel()
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// Open lists the open channels. It needs offchain:read.
func (n *Node) Open(ctx context.Context) ([]Channel, error) {
	var out struct {
		Channels []wireChannel `json:"channels"`
	}
	if err := n.Call(ctx, http.MethodGet, "/v1/channels", nil, &out); err != nil {
		return nil, err
	}
	return channels(out.Channels)
}

// Pending is what becomes, or is about to end.
type Pending struct {
	Opening []Channel
	// Closing are those whose closing transaction waits for a block, and Forced those
	// that were closed by one side: their money comes back when its time locks end.
	Closing []Channel
	Forced  []Channel
	Limbo   int64 // satoshis that are on their way back to the wallet
}

// pending asks for the channels that are opened or closed. lnd has none of them for a moment
// when one of them is closed: it is asked again then, for some seconds.
func (n *Node) pending(ctx context.Context, out any) error {
	for try := 1; ; try++ {
		err := n.Call(ctx, http.MethodGet, "/v1/channels/pending", nil, out)
		if try == pendingTries || !says(err, "unable to find arbitrator") {
			return err
		}
		select {
		case <-time.After(pendingPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

const (
	pendingTries = 20
	pendingPause = 250 * time.Millisecond
)

// Pending lists the channels that are opened or closed. It needs offchain:read.
func (n *Node) Pending(ctx context.Context) (Pending, error) {
	type list []struct {
		Channel wireChannel `json:"channel"`
	}
	var out struct {
		Limbo   int64 `json:"total_limbo_balance,string"`
		Opening list  `json:"pending_open_channels"`
		Closing list  `json:"waiting_close_channels"`
		Forced  list  `json:"pending_force_closing_channels"`
	}
	if err := n.pending(ctx, &out); err != nil {
		return Pending{}, err
	}
	p := Pending{Limbo: out.Limbo}
	for _, l := range []struct {
		from list
		to   *[]Channel
	}{{out.Opening, &p.Opening}, {out.Closing, &p.Closing}, {out.Forced, &p.Forced}} {
		for _, w := range l.from {
			c, err := w.Channel.channel()
			if err != nil {
				return Pending{}, err
			}
			*l.to = append(*l.to, c)
		}
	}
	return p, nil
}

// Closed lists the channels that are closed for good: all their money is where it
// belongs, or the channel never came to be. It needs offchain:read.
func (n *Node) Closed(ctx context.Context) ([]Channel, error) {
	var out struct {
		Channels []struct {
			Point    string `json:"channel_point"`
			Peer     string `json:"remote_pubkey"`
			Capacity int64  `json:"capacity,string"`
			Settled  int64  `json:"settled_balance,string"`
		} `json:"channels"`
	}
	if err := n.Call(ctx, http.MethodGet, "/v1/channels/closed", nil, &out); err != nil {
		return nil, err
	}
	list := make([]Channel, 0, len(out.Channels))
	for _, c := range out.Channels {
		if !isChannel(c.Point) {
			return nil, ErrNotLND
		}
		list = append(list, Channel{Point: c.Point, Peer: c.Peer, Capacity: c.Capacity, Local: c.Settled})
	}
	return list, nil
}

// Peer is a node that this one is connected to.
type Peer struct {
	PubKey  string
	Address string // as connected; the port is not its own if Inbound
	Inbound bool
}

// Peers lists the peers. It needs peers:read.
func (n *Node) Peers(ctx context.Context) ([]Peer, error) {
	var out struct {
		Peers []struct {
			PubKey  string `json:"pub_key"`
			Address string `json:"address"`
			Inbound bool   `json:"inbound"`
		} `json:"peers"`
	}
	if err := n.Call(ctx, http.MethodGet, "/v1/peers", nil, &out); err != nil {
		return nil, err
	}
	list := make([]Peer, 0, len(out.Peers))
	for _, p := range out.Peers {
		if !isPubKey(p.PubKey) {
			return nil, ErrNotLND
		}
		list = append(list, Peer(p))
	}
	return list, nil
}

// Announced is what a node tells the network about itself.
type Announced struct {
	Alias     string
	Addresses []string // host:port
}

// Announced asks what a node announced, itself or another one. A node that announced
// nothing, as far as lnd has heard, is no error. It needs info:read.
func (n *Node) Announced(ctx context.Context, pubKey string) (Announced, error) {
	if !isPubKey(pubKey) {
		return Announced{}, errors.New("not a node's public key")
	}
	var out struct {
		Node struct {
			Alias     string `json:"alias"`
			Addresses []struct {
				Addr string `json:"addr"`
			} `json:"addresses"`
		} `json:"node"`
	}
	err := n.Call(ctx, http.MethodGet, "/v1/graph/node/"+pubKey, nil, &out)
	if ae, ok := errors.AsType[*AnswerError](err); ok && ae.Status == http.StatusNotFound {
		return Announced{}, nil
	}
	if err != nil {
		return Announced{}, err
	}
	a := Announced{Alias: out.Node.Alias}
	for _, addr := range out.Node.Addresses {
		a.Addresses = append(a.Addresses, addr.Addr)
	}
	return a, nil
}

// BakeMacaroon asks lnd for a macaroon that allows the permissions. Those that are made
// under one root key id are revoked together. It needs macaroon:generate.
func (n *Node) BakeMacaroon(ctx context.Context, rootKey uint64, permissions ...Permission) (secret.Bytes, error) {
	in := struct {
		Permissions []Permission `json:"permissions"`
		RootKey     uint64       `json:"root_key_id,string"`
	}{permissions, rootKey}
	var out struct {
		Macaroon string `json:"macaroon"`
	}
	if err := n.Call(ctx, http.MethodPost, "/v1/macaroon", in, &out); err != nil {
		return secret.Bytes{}, err
	}
	mac, err := hex.DecodeString(out.Macaroon)
	if err != nil || len(mac) == 0 || len(mac) > maxMacaroon {
		return secret.Bytes{}, ErrNotLND
	}
	defer clear(mac)
	return secret.New(mac), nil
}

// RevokeMacaroons revokes all macaroons of a root key. It needs macaroon:write.
func (n *Node) RevokeMacaroons(ctx context.Context, rootKey uint64) error {
	return n.Call(ctx, http.MethodDelete, fmt.Sprintf("/v1/macaroon/%d", rootKey), nil, nil)
}
