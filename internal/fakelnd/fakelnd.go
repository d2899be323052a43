// Package fakelnd is a Lightning node for tests: the part of lnd's REST interface that
// Satchel reads, with faults.
//
//	node := fakelnd.New("regtest")
//	srv := httptest.NewTLSServer(node)
//	point := node.AddChannel()
//
// It was written from the source of lnd v0.20.1-beta and from answers of a real one. It is
// no proof that lnd behaves like it: what is shown with it is shown with the real one too.
package fakelnd

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Fault is what the node does wrong with one kind of call.
type Fault string

const (
	None Fault = ""
	// Hang answers nothing until the caller goes away.
	Hang Fault = "hang"
	// Cut sends half an answer and hangs up.
	Cut Fault = "cut"
	// Garbage answers with a page that is no JSON.
	Garbage Fault = "garbage"
	// Endless answers without an end and without a line's end.
	Endless Fault = "endless"
	// Fail answers with an error that means nothing.
	Fail Fault = "fail"
	// Between answers two calls with the error that lnd has while a channel is between two
	// of its parts, and then goes on.
	Between Fault = "between"
	// Empty answers with an empty object.
	Empty Fault = "empty"
	// Late answers five seconds after it looked.
	Late Fault = "late"
	// Old answers as before the newest channel.
	Old Fault = "old"
)

// Permission is one that a macaroon gives.
type Permission struct{ Entity, Action string }

// Channel is a channel of the node.
type Channel struct {
	Point string // txid:index
	Peer  string
	State ChannelState
	// Restored says that the node knows the channel from a backup only. It stays so.
	Restored bool
}

// ChannelState is where the node lists a channel.
type ChannelState string

const (
	Opening   ChannelState = "opening"
	Open      ChannelState = "open"
	Closing   ChannelState = "closing" // its closing transaction waits for a block
	Forced    ChannelState = "forced"  // closed by one side; its money is locked for a while
	Closed    ChannelState = "closed"
	Forgotten ChannelState = "forgotten" // no list has it, as after the node was wiped
)

// Node is the fake. It is an http.Handler; methods may be called concurrently.
type Node struct {
	mu sync.Mutex // guards all below

	State   string // of /v1/state
	PubKey  string
	Alias   string
	Network string
	URIs    []string
	Wallet  Wallet
	Mute    bool // it does not tell which channels are in a backup, as before 0.19

	channels  []Channel
	peers     []peer
	announced map[string][]string
	macaroons map[string][]Permission // by hex
	rootKeys  map[string]uint64       // by hex
	faults    map[string]Fault        // by path
	between   int                     // calls that failed so
	calls     map[string]int          // by path
	streams   map[*stream]struct{}
}

type peer struct {
	pubKey, address string
	inbound         bool
}

type stream struct {
	lines chan []byte
	end   chan struct{}
}

// New returns a node that runs and is unlocked, with no channel, and one macaroon, that
// of Admin.
func New(network string) *Node {
	n := &Node{
		State: "SERVER_ACTIVE", PubKey: NewPubKey(), Alias: "fake", Network: network,
		announced: map[string][]string{}, macaroons: map[string][]Permission{}, rootKeys: map[string]uint64{},
		faults: map[string]Fault{}, calls: map[string]int{}, streams: map[*stream]struct{}{},
	}
	return n
}

// NewPubKey returns a public key that nobody has the private one of.
func NewPubKey() string {
	b := make([]byte, 33)
	rand.Read(b)
	b[0] = 2 + b[0]&1
	return hex.EncodeToString(b)
}

// NewPoint returns the name of a channel that is none.
func NewPoint() string {
	b := make([]byte, 32)
	rand.Read(b)
	return hex.EncodeToString(b) + ":" + strconv.Itoa(int(b[0]&1))
}

// everything is what an admin's macaroon allows.
func everything() []Permission {
	var all []Permission
	for _, e := range []string{"onchain", "offchain", "address", "message", "peers", "info", "invoices", "signer", "macaroon"} {
		for _, a := range []string{"read", "write", "generate"} {
			all = append(all, Permission{e, a})
		}
	}
	return all
}

// Admin makes a macaroon that allows everything.
func (n *Node) Admin() []byte { return n.Macaroon(0, everything()...) }

// Macaroon makes a macaroon.
func (n *Node) Macaroon(rootKey uint64, permissions ...Permission) []byte {
	mac := encode(permissions)
	n.mu.Lock()
	defer n.mu.Unlock()
	key := hex.EncodeToString(mac)
	n.macaroons[key], n.rootKeys[key] = slices.Clone(permissions), rootKey
	return mac
}

// encode makes a macaroon of the form of a real one, signed by nobody.
func encode(permissions []Permission) []byte {
	field := func(tag byte, data []byte) []byte {
		return append(binary.AppendUvarint([]byte{tag}, uint64(len(data))), data...)
	}
	nonce, signature := make([]byte, 16), make([]byte, 32)
	rand.Read(nonce)
	rand.Read(signature)
	id := append([]byte{3}, field(1<<3|2, nonce)...)
	id = append(id, field(2<<3|2, []byte("0"))...)
	for _, p := range permissions {
		id = append(id, field(3<<3|2, append(field(1<<3|2, []byte(p.Entity)), field(2<<3|2, []byte(p.Action))...))...)
	}
	mac := append([]byte{2}, field(1, []byte("lnd"))...)
	mac = append(mac, field(2, id)...)
	return append(append(mac, 0, 0), field(6, signature)...)
}

// Revoke makes all macaroons of a root key worthless.
func (n *Node) Revoke(rootKey uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.revoke(rootKey)
}

func (n *Node) revoke(rootKey uint64) {
	for mac, key := range n.rootKeys {
		if key == rootKey {
			delete(n.macaroons, mac)
			delete(n.rootKeys, mac)
		}
	}
}

// Allows returns what the macaroons of a root key allow.
func (n *Node) Allows(rootKey uint64) []Permission {
	n.mu.Lock()
	defer n.mu.Unlock()
	for mac, key := range n.rootKeys {
		if key == rootKey {
			return slices.Clone(n.macaroons[mac])
		}
	}
	return nil
}

// Set changes what State says, and ends all streams if the node is not active then.
func (n *Node) Set(state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.State = state
	if !n.active() {
		n.hangUp()
	}
}

func (n *Node) active() bool { return n.State == "SERVER_ACTIVE" || n.State == "RPC_ACTIVE" }

// HangUp ends all streams, as a restart does.
func (n *Node) HangUp() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hangUp()
}

func (n *Node) hangUp() {
	for s := range n.streams {
		close(s.end)
		delete(n.streams, s)
	}
}

// Become makes it another node, without channels, as after its directory was wiped.
func (n *Node) Become(pubKey, network string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.PubKey, n.Network, n.channels = pubKey, network, nil
	n.hangUp()
}

// Pretend makes it answer as another node, without an end of what listens.
func (n *Node) Pretend(pubKey string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.PubKey = pubKey
}

// Fail makes the calls of a path go wrong from now on.
func (n *Node) Fail(path string, f Fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults[path] = f
}

// Calls returns how often a path was asked for.
func (n *Node) Calls(path string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls[path]
}

// Streams returns how many listen.
func (n *Node) Streams() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.streams)
}

// AddPeer connects a peer.
func (n *Node) AddPeer(pubKey, address string, inbound bool, announced ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.peers = append(n.peers, peer{pubKey, address, inbound})
	n.announced[pubKey] = announced
}

// AddChannel opens a channel with a new peer, tells those who listen, and returns it.
func (n *Node) AddChannel() string {
	c := Channel{Point: NewPoint(), Peer: NewPubKey(), State: Open}
	n.Change(c)
	return c.Point
}

// Change adds a channel or changes the state of one, and tells those who listen.
func (n *Node) Change(channels ...Channel) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.change(channels...)
	n.tell()
}

// Quietly is Change and tells nobody, as when an event is lost.
func (n *Node) Quietly(channels ...Channel) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.change(channels...)
}

func (n *Node) change(channels ...Channel) {
	for _, c := range channels {
		i := slices.IndexFunc(n.channels, func(o Channel) bool { return o.Point == c.Point })
		if i < 0 {
			n.channels = append(n.channels, c)
			continue
		}
		if c.Peer == "" {
			c.Peer = n.channels[i].Peer
		}
		c.Restored = c.Restored || n.channels[i].Restored
		n.channels[i] = c
	}
}

// Backup returns a backup of all channels, as an export does.
func (n *Node) Backup() []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	multi, _ := n.backup()
	return multi
}

// backup returns the channels that are in a backup: those of which a commitment counts.
func (n *Node) backup() (multi []byte, points []string) {
	var lines []string
	for _, c := range n.channels {
		if c.State == Opening || c.State == Open || c.State == Closing {
			points = append(points, c.Point)
			lines = append(lines, line(c))
		}
	}
	return encrypt(n.PubKey, lines), points
}

// closing ends the line of a channel in a backup that holds all: a closing transaction,
// which is longer than anything else that differs.
const closing = "\tclosing transaction: ........................................................................"

func line(c Channel) string {
	if c.Restored {
		return c.Point
	}
	return c.Point + closing
}

// Seal makes what stands for a backup of all channels here: never the same bytes twice,
// and as long as its content.
func Seal(pubKey string, points ...string) []byte {
	var lines []string
	for _, p := range points {
		lines = append(lines, line(Channel{Point: p}))
	}
	return encrypt(pubKey, lines)
}

// single begins a backup of one channel.
const single = "single "

func encrypt(pubKey string, lines []string) []byte {
	nonce := make([]byte, 24)
	rand.Read(nonce)
	text := strings.Join(append([]string{pubKey}, lines...), "\n")
	sealed := []byte(text)
	for i := range sealed {
		sealed[i] ^= nonce[i%len(nonce)]
	}
	return append(nonce, sealed...)
}

// Unseal returns the node and the channels of a backup.
func Unseal(multi []byte) (pubKey string, points []string) {
	pubKey, lines := decrypt(multi)
	for _, l := range lines {
		point, _, _ := strings.Cut(l, "\t")
		points = append(points, point)
	}
	return pubKey, points
}

// Less returns the channels of a backup which it holds no more of than the node knew from
// another backup: nothing can be restored of them.
func Less(multi []byte) (points []string) {
	_, lines := decrypt(multi)
	return slices.DeleteFunc(lines, func(l string) bool { return strings.HasSuffix(l, closing) })
}

func decrypt(multi []byte) (pubKey string, lines []string) {
	if len(multi) < 24 {
		return "", nil
	}
	nonce, sealed := multi[:24], bytes.Clone(multi[24:])
	for i := range sealed {
		sealed[i] ^= nonce[i%len(nonce)]
	}
	parts := strings.Split(string(sealed), "\n")
	return parts[0], parts[1:]
}

func (n *Node) snapshot() map[string]any {
	multi, points := n.backup()
	chanPoints, singles := []any{}, []any{}
	for _, p := range points {
		txid, index, _ := strings.Cut(p, ":")
		b, _ := hex.DecodeString(txid)
		slices.Reverse(b)
		i, _ := strconv.Atoi(index)
		point := map[string]any{"funding_txid_bytes": b, "output_index": i}
		chanPoints = append(chanPoints, point)
		c := n.channels[slices.IndexFunc(n.channels, func(c Channel) bool { return c.Point == p })]
		singles = append(singles, map[string]any{"chan_point": point, "chan_backup": encrypt(single+n.PubKey, []string{line(c)})})
	}
	return map[string]any{
		"single_chan_backups": map[string]any{"chan_backups": singles},
		"multi_chan_backup":   map[string]any{"chan_points": chanPoints, "multi_chan_backup": multi},
	}
}

func (n *Node) tell() {
	line, _ := json.Marshal(map[string]any{"result": n.snapshot()})
	n.push(append(line, '\n'))
}

func (n *Node) push(line []byte) {
	for s := range n.streams {
		select {
		case s.lines <- line:
		default:
			close(s.end) // It does not listen.
			delete(n.streams, s)
		}
	}
}

// Push sends bytes to those who listen.
func (n *Node) Push(line []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.push(line)
}

// needs is what the real one asks for (rpcserver.go, MainRPCServerPermissions).
var needs = map[string]Permission{
	"GET /v1/getinfo":                   {"info", "read"},
	"GET /v1/channels/backup":           {"offchain", "read"},
	"GET /v1/channels/backup/subscribe": {"offchain", "read"},
	"POST /v1/channels/backup/verify":   {"offchain", "read"},
	"GET /v1/channels":                  {"offchain", "read"},
	"GET /v1/channels/pending":          {"offchain", "read"},
	"GET /v1/channels/closed":           {"offchain", "read"},
	"GET /v1/peers":                     {"peers", "read"},
	"GET /v1/graph/node/":               {"info", "read"},
	"POST /v1/macaroon":                 {"macaroon", "generate"},
	"DELETE /v1/macaroon/":              {"macaroon", "write"},
}

// needed returns what a call needs.
func needed(key string) (need []Permission, known bool) {
	for _, k := range []string{key, key[:strings.LastIndexByte(key, '/')+1]} {
		if p, ok := needs[k]; ok {
			return []Permission{p}, true
		}
	}
	for path, p := range changes {
		if path == key || strings.HasSuffix(path, "/") && strings.HasPrefix(key, path) {
			return p, true
		}
	}
	return nil, false
}

const subscribe = "/v1/channels/backup/subscribe"

// ServeHTTP implements http.Handler.
func (n *Node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	n.calls[r.URL.Path]++
	n.Wallet.log = append(n.Wallet.log, r.Method+" "+r.URL.Path)
	fault := n.faults[r.URL.Path]
	if fault == None {
		fault = n.faults["*"]
	}
	if fault == Between {
		if n.between++; n.between > 2 {
			fault, n.between, n.faults[r.URL.Path] = None, 0, None
		}
	}
	n.mu.Unlock()
	switch fault {
	case Hang:
		<-r.Context().Done()
		return
	case Cut:
		w.Header().Set("Content-Length", "1000")
		w.Write([]byte(`{"half":`))
		return
	case Garbage:
		w.Write([]byte("<html>It works!</html>"))
		return
	case Endless:
		for r.Context().Err() == nil {
			if _, err := w.Write(bytes.Repeat([]byte(`{"a":"`), 10_000)); err != nil {
				return
			}
		}
		return
	case Fail:
		fail(w, http.StatusInternalServerError, 2, "something went wrong with \x1b[31mhunter2")
		return
	case Between:
		fail(w, http.StatusInternalServerError, 2, "unable to find arbitrator")
		return
	case Empty:
		w.Write([]byte("{}"))
		return
	}
	switch r.URL.Path {
	case subscribe:
		n.stream(w, r)
		return
	case "/v1/channels/stream":
		n.open(w, r)
		return
	}
	if fault == Late {
		rec := httptest.NewRecorder()
		n.locked(func() { n.answer(rec, r) })
		time.Sleep(5 * time.Second)
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes())
		return
	}
	n.locked(func() {
		if all := n.channels; fault == Old && len(all) > 0 {
			n.channels = all[:len(all)-1]
			defer func() { n.channels = all }()
		}
		n.answer(w, r)
	})
}

func (n *Node) locked(do func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	do()
}

func fail(w http.ResponseWriter, status, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"code": code, "message": message, "details": []any{}})
}

// allowed answers unless the call is allowed now.
func (n *Node) allowed(w http.ResponseWriter, r *http.Request) bool {
	need, known := needed(r.Method + " " + r.URL.Path)
	texts := map[string]string{
		"LOCKED":           "wallet locked, unlock it to enable full RPC access",
		"NON_EXISTING":     "wallet not created, create one to enable full RPC access",
		"WAITING_TO_START": "waiting to start, RPC services not available",
		"UNLOCKED":         "the RPC server is in the process of starting up, but not yet ready to accept calls",
	}
	mac := r.Header.Get("Grpc-Metadata-macaroon")
	permissions, good := n.macaroons[mac]
	switch {
	case !known:
		fail(w, http.StatusNotFound, 5, "Not Found")
	case !n.active():
		fail(w, http.StatusInternalServerError, 2, texts[n.State])
	case mac == "":
		fail(w, http.StatusInternalServerError, 2, "expected 1 macaroon, got 0")
	case !good:
		fail(w, http.StatusInternalServerError, 2, "verification failed: signature mismatch after caveat verification")
	case slices.ContainsFunc(need, func(p Permission) bool { return !slices.Contains(permissions, p) }):
		fail(w, http.StatusInternalServerError, 2, "permission denied")
	default:
		return true
	}
	return false
}

func (n *Node) answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/state" {
		json.NewEncoder(w).Encode(map[string]any{"state": n.State})
		return
	}
	if n.unlocker(w, r) || !n.allowed(w, r) {
		return
	}
	list := func(key string, state ChannelState) []any {
		l := []any{}
		for _, c := range n.channels {
			if c.State == state {
				flags := "ChanStatusDefault"
				if c.Restored {
					flags = "ChanStatusLocalDataLoss|ChanStatusRestored"
				}
				l = append(l, map[string]any{"channel_point": c.Point, key: c.Peer, "capacity": "100000", "local_balance": "50000", "settled_balance": "50000", "chan_status_flags": flags})
			}
		}
		return l
	}
	wrap := func(l []any) []any {
		for i := range l {
			l[i] = map[string]any{"channel": l[i]}
		}
		return l
	}
	var out any
	switch path := r.URL.Path; {
	case path == "/v1/getinfo":
		out = map[string]any{
			"identity_pubkey": n.PubKey, "alias": n.Alias, "version": "0.20.1-beta fake", "synced_to_chain": true, "synced_to_graph": true,
			"block_height": 100, "uris": append([]string{}, n.URIs...), "chains": []any{map[string]any{"chain": "bitcoin", "network": n.Network}},
		}
	case path == "/v1/channels/backup":
		out = n.snapshot()
	case path == "/v1/channels/backup/verify":
		var in struct {
			Multi struct {
				Data []byte `json:"multi_chan_backup"`
			} `json:"multi_chan_backup"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			fail(w, http.StatusBadRequest, 3, "proto: syntax error")
			return
		}
		pubKey, points := Unseal(in.Multi.Data)
		if pubKey != n.PubKey {
			fail(w, http.StatusInternalServerError, 2, "invalid multi channel backup: chacha20poly1305: message authentication failed")
			return
		}
		out = map[string]any{"chan_points": append([]string{}, points...)}
		if n.Mute {
			out = map[string]any{}
		}
	case path == "/v1/channels":
		out = map[string]any{"channels": list("remote_pubkey", Open)}
	case path == "/v1/channels/closed":
		out = map[string]any{"channels": list("remote_pubkey", Closed)}
	case path == "/v1/channels/pending":
		out = map[string]any{
			"total_limbo_balance": "0", "pending_open_channels": wrap(list("remote_node_pub", Opening)),
			"waiting_close_channels": wrap(list("remote_node_pub", Closing)), "pending_force_closing_channels": wrap(list("remote_node_pub", Forced)),
		}
	case path == "/v1/peers" && r.Method == http.MethodGet:
		l := []any{}
		for _, p := range n.peers {
			l = append(l, map[string]any{"pub_key": p.pubKey, "address": p.address, "inbound": p.inbound})
		}
		out = map[string]any{"peers": l}
	case strings.HasPrefix(path, "/v1/graph/node/"):
		addresses, ok := n.announced[strings.TrimPrefix(path, "/v1/graph/node/")]
		if !ok {
			fail(w, http.StatusNotFound, 5, "unable to find node")
			return
		}
		l := []any{}
		for _, a := range addresses {
			l = append(l, map[string]any{"network": "tcp", "addr": a})
		}
		out = map[string]any{"node": map[string]any{"alias": "peer", "addresses": l}}
	case path == "/v1/macaroon":
		var in struct {
			Permissions []struct{ Entity, Action string }
			RootKey     string `json:"root_key_id"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Permissions) == 0 {
			fail(w, http.StatusBadRequest, 3, "proto: syntax error")
			return
		}
		rootKey, err := strconv.ParseUint(in.RootKey, 10, 64)
		if err != nil {
			fail(w, http.StatusBadRequest, 3, "proto: invalid value for uint64")
			return
		}
		var permissions []Permission
		for _, p := range in.Permissions {
			permissions = append(permissions, Permission(p))
		}
		n.mu.Unlock()
		mac := n.Macaroon(rootKey, permissions...)
		n.mu.Lock()
		out = map[string]any{"macaroon": hex.EncodeToString(mac)}
	case strings.HasPrefix(path, "/v1/macaroon/"):
		rootKey, err := strconv.ParseUint(strings.TrimPrefix(path, "/v1/macaroon/"), 10, 64)
		if err != nil || rootKey == 0 {
			fail(w, http.StatusInternalServerError, 2, "the specified ID cannot be deleted")
			return
		}
		n.revoke(rootKey)
		out = map[string]any{"deleted": true}
	default:
		var ok bool
		if out, ok = n.wallet(w, r); !ok {
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(out)
}

// stream sends no headers before the first event, as the real one.
func (n *Node) stream(w http.ResponseWriter, r *http.Request) {
	s := &stream{lines: make(chan []byte, 100), end: make(chan struct{})}
	n.mu.Lock()
	ok := n.allowed(w, r)
	if ok {
		n.streams[s] = struct{}{}
	}
	n.mu.Unlock()
	if !ok {
		return
	}
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.streams, s)
	}()
	for {
		select {
		case line := <-s.lines:
			if _, err := w.Write(line); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		case <-s.end:
			panic(http.ErrAbortHandler) // The connection ends, without an end of the answer.
		case <-r.Context().Done():
			return
		}
	}
}
