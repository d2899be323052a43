package fakelnd

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/btcsuite/btcd/wire/v2"
)

// What follows is lnd as it is restored, and as it opens a channel that is paid for by
// hand: the calls that change something.

// changes are what these calls need.
var changes = map[string][]Permission{
	"POST /v1/channels/backup/restore": {{"offchain", "write"}},
	"GET /v1/getrecoveryinfo":          {{"info", "read"}},
	"GET /v1/balance/blockchain":       {{"onchain", "read"}},
	"GET /v1/transactions/fee":         {{"onchain", "read"}},
	"POST /v1/peers":                   {{"peers", "write"}},
	"POST /v1/channels/stream":         {{"onchain", "write"}, {"offchain", "write"}},
	"POST /v1/funding/step":            {{"onchain", "write"}, {"offchain", "write"}},
	"POST /v2/wallet/psbt/fund":        {{"onchain", "write"}},
	"POST /v2/wallet/psbt/finalize":    {{"onchain", "write"}},
	"POST /v2/wallet/tx":               {{"onchain", "write"}},
	"GET /v2/wallet/tx":                {{"onchain", "read"}},
	"POST /v2/wallet/utxos/leases":     {{"onchain", "read"}},
	"POST /v2/wallet/utxos/release":    {{"onchain", "write"}},
	"DELETE /v1/channels/abandon/":     {{"offchain", "write"}},
}

// Wallet is what the node has beside its channels. The lock of the Node guards it.
type Wallet struct {
	// Seeds are the nodes that words, as one line, or extended keys make: a public key
	// each. Others are refused.
	Seeds map[string]string
	// Passphrase is that of all Seeds.
	Passphrase string
	// Unreachable are addresses of peers that nobody answers at.
	Unreachable []string
	// Refuse, if not "", is why peers do not want a channel.
	Refuse string
	// Silent are peers that accept a channel and never sign.
	Silent bool
	// Nested makes the coins of the kind np2wkh: signing changes a transaction's id.
	Nested bool
	// Published, if not nil, is told of each transaction that is sent, with the channel
	// that it pays for. An error of it is one of sending.
	Published func(point string) error

	window   int
	password []byte
	restored [][]byte
	stood    int
	coins    []wire.OutPoint
	leases   map[wire.OutPoint]string // by whom, in hex
	offers   map[string]*offer        // by pending id, in hex
	sent     map[string]bool          // txid
	log      []string
}

// offer is a channel that is about to be.
type offer struct {
	peer    string
	script  []byte
	amount  int64
	pending chan string // gets the channel once the peer signed
	gone    chan struct{}

	verified bool
}

// coinValue is what each coin is worth, in satoshi.
const coinValue = 10_000_000

// AddCoins puts coins into the wallet.
func (n *Node) AddCoins(count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for range count {
		var o wire.OutPoint
		rand.Read(o.Hash[:])
		n.Wallet.coins = append(n.Wallet.coins, o)
	}
}

// Cut makes these addresses unreachable for it, also while it answers.
func (n *Node) Cut(hosts ...string) { n.locked(func() { n.Wallet.Unreachable = hosts }) }

// Leases counts the coins that are reserved.
func (n *Node) Leases() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.Wallet.leases)
}

// Coins counts the coins that are not spent.
func (n *Node) Coins() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.Wallet.coins)
}

// Sent reports whether a transaction was sent.
func (n *Node) Sent(txid string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.Wallet.sent[txid]
}

// Offers counts the channels that are about to be.
func (n *Node) Offers() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.Wallet.offers)
}

// Channels lists the channels in a state.
func (n *Node) Channels(state ChannelState) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var points []string
	for _, c := range n.channels {
		if c.State == state {
			points = append(points, c.Point)
		}
	}
	return points
}

// Restored returns the backups that the node was given, in their order.
func (n *Node) Restored() [][]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.Wallet.restored)
}

// Log returns all calls in their order, as "METHOD /path".
func (n *Node) Log() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.Wallet.log)
}

// Wipe makes it a node without a wallet, and with nothing else.
func (n *Node) Wipe() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.State, n.channels, n.peers = "NON_EXISTING", nil, nil
	n.macaroons, n.rootKeys = map[string][]Permission{}, map[string]uint64{}
	n.hangUp()
}

// Restart is lnd ending and starting again: what is in memory alone is gone.
func (n *Node) Restart() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, o := range n.Wallet.offers {
		close(o.gone)
		delete(n.Wallet.offers, id)
	}
	n.hangUp()
}

// unlocker serves what needs no macaroon.
func (n *Node) unlocker(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path != "/v1/initwallet" {
		return false
	}
	if n.State != "NON_EXISTING" {
		text := "wallet already exists"
		if n.active() {
			text = "wallet already unlocked, WalletUnlocker service is no longer available"
		}
		fail(w, http.StatusInternalServerError, 2, text)
		return true
	}
	var in struct {
		Password   []byte   `json:"wallet_password"`
		Words      []string `json:"cipher_seed_mnemonic"`
		XPrv       string   `json:"extended_master_key"`
		Passphrase []byte   `json:"aezeed_passphrase"`
		Window     int      `json:"recovery_window"`
		Backups    struct {
			Multi struct {
				Data []byte `json:"multi_chan_backup"`
			} `json:"multi_chan_backup"`
		} `json:"channel_backups"`
	}
	if json.NewDecoder(r.Body).Decode(&in) != nil {
		fail(w, http.StatusBadRequest, 3, "proto: syntax error")
		return true
	}
	pubKey, known := n.Wallet.Seeds[strings.Join(in.Words, " ")+in.XPrv]
	switch {
	case len(in.Password) < 8:
		fail(w, http.StatusInternalServerError, 2, "password must have at least 8 characters")
		return true
	case !known:
		fail(w, http.StatusInternalServerError, 2, "mnemonic phrase checksum doesn't match")
		return true
	case string(in.Passphrase) != n.Wallet.Passphrase:
		fail(w, http.StatusInternalServerError, 2, "invalid passphrase")
		return true
	}
	n.PubKey, n.Wallet.window, n.Wallet.password = pubKey, in.Window, in.Password
	n.State = "SERVER_ACTIVE"
	if data := in.Backups.Multi.Data; len(data) > 0 {
		n.Wallet.restored = append(n.Wallet.restored, data)
		pubKey, lines := decrypt(data)
		n.restore(pubKey, lines) // The real one ends if it is refused.
	}
	n.mu.Unlock()
	admin := n.Admin()
	n.mu.Lock()
	json.NewEncoder(w).Encode(map[string]any{"admin_macaroon": admin})
	return true
}

// restore takes a backup in, channel by channel, and returns what the real one says of
// the first that it cannot restore. Where the wallet is made with it, the real one ends.
func (n *Node) restore(pubKey string, lines []string) (refusal string) {
	if pubKey != n.PubKey {
		return "unable to unpack chan backup: chacha20poly1305: message authentication failed"
	}
	for _, l := range lines {
		point, whole := strings.CutSuffix(l, closing)
		if !whole { // It looks for the key first, for minutes, also of a channel that is there.
			n.Wallet.stood++
			return "unable to unpack chan backup: could not derive private key for legacy channel revocation root format: unable to derive private key"
		}
		if !slices.ContainsFunc(n.channels, func(c Channel) bool { return c.Point == point }) {
			n.channels = append(n.channels, Channel{Point: point, Peer: NewPubKey(), State: Closing, Restored: true})
		}
	}
	return ""
}

// Stood returns how often the node was handed a backup that it stood still over.
func (n *Node) Stood() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.Wallet.stood
}

// wallet answers the calls that change something, and reports whether it is one.
func (n *Node) wallet(w http.ResponseWriter, r *http.Request) (out any, ok bool) {
	wal := &n.Wallet
	refuse := func(text string) (any, bool) {
		fail(w, http.StatusInternalServerError, 2, text)
		return nil, false
	}
	read := func(v any) bool {
		if json.NewDecoder(r.Body).Decode(v) != nil {
			fail(w, http.StatusBadRequest, 3, "proto: syntax error")
			return false
		}
		return true
	}
	switch path := r.URL.Path; {
	case path == "/v1/channels/backup/restore":
		var in struct {
			Multi   []byte `json:"multi_chan_backup"`
			Singles struct {
				Backups []struct {
					Data []byte `json:"chan_backup"`
				} `json:"chan_backups"`
			} `json:"chan_backups"`
		}
		if !read(&in) {
			return nil, false
		}
		if n.State != "SERVER_ACTIVE" {
			return refuse("server is still in the process of starting")
		}
		for _, b := range in.Singles.Backups {
			pubKey, lines := decrypt(b.Data)
			if refusal := n.restore(strings.TrimPrefix(pubKey, single), lines); refusal != "" {
				return refuse(refusal)
			}
		}
		if len(in.Multi) > 0 {
			pubKey, lines := decrypt(in.Multi)
			if pubKey == n.PubKey {
				n.Wallet.restored = append(n.Wallet.restored, in.Multi)
			}
			if refusal := n.restore(pubKey, lines); refusal != "" {
				return refuse(refusal)
			}
		}
		return map[string]any{"num_restored": 1}, true
	case path == "/v1/getrecoveryinfo":
		return map[string]any{"recovery_mode": wal.window > 0, "recovery_finished": true, "progress": 1}, true
	case path == "/v1/balance/blockchain":
		return map[string]any{"confirmed_balance": strconv.Itoa(coinValue * len(wal.coins)), "unconfirmed_balance": "0"}, true
	case path == "/v1/transactions/fee":
		amount := 0
		for key, value := range r.URL.Query() {
			if strings.HasPrefix(key, "AddrToAmount[") {
				amount, _ = strconv.Atoi(value[0])
			}
		}
		if free := coinValue * (len(wal.coins) - len(wal.leases)); amount == 0 || amount >= free {
			return refuse("insufficient funds available to construct transaction")
		}
		return map[string]any{"fee_sat": "310", "sat_per_vbyte": "2"}, true
	case path == "/v1/peers":
		var in struct {
			Addr struct{ PubKey, Host string } `json:"addr"`
		}
		if !read(&in) {
			return nil, false
		}
		if slices.Contains(wal.Unreachable, in.Addr.Host) {
			return refuse("dial tcp: connection refused")
		}
		n.peers = append(n.peers, peer{in.Addr.PubKey, in.Addr.Host, false})
		return map[string]any{}, true
	case path == "/v1/funding/step":
		return n.step(w, r)
	case path == "/v2/wallet/psbt/fund":
		return n.fund(w, r)
	case path == "/v2/wallet/psbt/finalize":
		var in struct {
			PSBT []byte `json:"funded_psbt"`
		}
		if !read(&in) {
			return nil, false
		}
		tx, err := unsigned(in.PSBT)
		if err != nil {
			return refuse("could not parse PSBT")
		}
		for _, i := range tx.TxIn {
			i.Witness = wire.TxWitness{bytes.Repeat([]byte{1}, 71), bytes.Repeat([]byte{2}, 33)}
			if wal.Nested {
				i.SignatureScript = []byte{0x16, 0x00, 0x14}
			}
		}
		var raw bytes.Buffer
		tx.Serialize(&raw)
		return map[string]any{"raw_final_tx": raw.Bytes()}, true
	case path == "/v2/wallet/tx" && r.Method == http.MethodPost:
		var in struct {
			Tx []byte `json:"tx_hex"`
		}
		var tx wire.MsgTx
		if !read(&in) {
			return nil, false
		}
		if tx.Deserialize(bytes.NewReader(in.Tx)) != nil {
			return refuse("unexpected EOF")
		}
		txid := tx.TxHash().String()
		if wal.sent[txid] {
			return map[string]any{}, true
		}
		for _, i := range tx.TxIn {
			if !slices.Contains(wal.coins, i.PreviousOutPoint) {
				return refuse("output already spent")
			}
		}
		point := ""
		for _, c := range n.channels {
			if strings.HasPrefix(c.Point, txid+":") {
				point = c.Point
			}
		}
		if wal.Published != nil {
			if err := wal.Published(point); err != nil {
				return refuse(err.Error())
			}
		}
		for _, i := range tx.TxIn {
			wal.coins = slices.DeleteFunc(wal.coins, func(o wire.OutPoint) bool { return o == i.PreviousOutPoint })
		}
		if wal.sent == nil {
			wal.sent = map[string]bool{}
		}
		wal.sent[txid] = true
		return map[string]any{"publish_error": ""}, true
	case path == "/v2/wallet/tx":
		if !wal.sent[r.URL.Query().Get("txid")] {
			return refuse("no transaction found")
		}
		return map[string]any{"tx_hash": r.URL.Query().Get("txid")}, true
	case path == "/v2/wallet/utxos/leases":
		list := []any{}
		for o, id := range wal.leases {
			b, _ := hex.DecodeString(id)
			list = append(list, map[string]any{"id": b, "outpoint": map[string]any{"txid_str": o.Hash.String(), "output_index": o.Index}})
		}
		return map[string]any{"locked_utxos": list}, true
	case path == "/v2/wallet/utxos/release":
		var in struct {
			ID       []byte `json:"id"`
			Outpoint struct {
				TxID  string `json:"txid_str"`
				Index uint32 `json:"output_index"`
			} `json:"outpoint"`
		}
		if !read(&in) {
			return nil, false
		}
		for o, id := range wal.leases {
			if o.Hash.String() == in.Outpoint.TxID && o.Index == in.Outpoint.Index && id == hex.EncodeToString(in.ID) {
				delete(wal.leases, o)
				return map[string]any{}, true
			}
		}
		return refuse("output is not locked by this id")
	case strings.HasPrefix(path, "/v1/channels/abandon/"):
		if r.URL.Query().Get("i_know_what_i_am_doing") != "true" {
			return refuse("AbandonChannel RPC call only available in dev builds")
		}
		rest := strings.Split(strings.TrimPrefix(path, "/v1/channels/abandon/"), "/")
		point := strings.Join(rest, ":")
		n.channels = slices.DeleteFunc(n.channels, func(c Channel) bool { return c.Point == point })
		n.tell()
		return map[string]any{}, true
	}
	fail(w, http.StatusNotFound, 5, "Not Found")
	return nil, false
}

// step moves an offer on.
func (n *Node) step(w http.ResponseWriter, r *http.Request) (any, bool) {
	type step struct {
		ID   []byte `json:"pending_chan_id"`
		PSBT []byte `json:"funded_psbt"`
		Tx   []byte `json:"final_raw_tx"`
	}
	var in struct {
		Cancel *step `json:"shim_cancel"`
		Verify *step `json:"psbt_verify"`
		Final  *step `json:"psbt_finalize"`
	}
	if json.NewDecoder(r.Body).Decode(&in) != nil || in.Cancel == nil && in.Verify == nil && in.Final == nil {
		fail(w, http.StatusBadRequest, 3, "proto: syntax error")
		return nil, false
	}
	refuse := func(text string) (any, bool) {
		fail(w, http.StatusInternalServerError, 2, text)
		return nil, false
	}
	id := hex.EncodeToString(cmp.Or(in.Cancel, in.Verify, in.Final).ID)
	o := n.Wallet.offers[id]
	if o == nil {
		return refuse("no funding intent found for pendingChannelID(" + id + ")")
	}
	if in.Cancel != nil {
		close(o.gone)
		delete(n.Wallet.offers, id)
		return map[string]any{}, true
	}
	tx := &wire.MsgTx{}
	var err error
	if in.Verify != nil {
		tx, err = unsigned(in.Verify.PSBT)
	} else if !o.verified {
		return refuse("invalid state. got output_known expected verified")
	} else {
		err = tx.Deserialize(bytes.NewReader(in.Final.Tx))
	}
	if err != nil {
		return refuse("error parsing psbt")
	}
	i := slices.IndexFunc(tx.TxOut, func(out *wire.TxOut) bool { return out.Value == o.amount && bytes.Equal(out.PkScript, o.script) })
	if i < 0 {
		return refuse("funding output not found in PSBT")
	}
	if o.verified = true; in.Final == nil || n.Wallet.Silent {
		return map[string]any{}, true
	}
	point := tx.TxHash().String() + ":" + strconv.Itoa(i)
	n.channels = append(n.channels, Channel{Point: point, Peer: o.peer, State: Opening})
	n.tell()
	o.pending <- point
	delete(n.Wallet.offers, id)
	return map[string]any{}, true
}

// fund reserves a coin for a template.
func (n *Node) fund(w http.ResponseWriter, r *http.Request) (any, bool) {
	var in struct {
		PSBT []byte `json:"psbt"`
		Lock []byte `json:"custom_lock_id"`
	}
	tx := &wire.MsgTx{}
	if json.NewDecoder(r.Body).Decode(&in) == nil {
		tx, _ = unsigned(in.PSBT)
	}
	if tx == nil || len(tx.TxOut) != 1 || len(in.Lock) != 32 {
		fail(w, http.StatusInternalServerError, 2, "could not parse PSBT")
		return nil, false
	}
	wal := &n.Wallet
	for _, o := range wal.coins {
		if wal.leases[o] != "" {
			continue
		}
		if wal.leases == nil {
			wal.leases = map[wire.OutPoint]string{}
		}
		wal.leases[o] = hex.EncodeToString(in.Lock)
		tx.AddTxIn(wire.NewTxIn(&o, nil, nil))
		change := append([]byte{0x00, 0x14}, bytes.Repeat([]byte{7}, 20)...)
		tx.TxOut = append([]*wire.TxOut{wire.NewTxOut(coinValue-tx.TxOut[0].Value-1000, change)}, tx.TxOut...)
		script := append([]byte{0x00, 0x14}, bytes.Repeat([]byte{9}, 20)...)
		if wal.Nested {
			script = append(append([]byte{0xa9, 0x14}, bytes.Repeat([]byte{9}, 20)...), 0x87)
		}
		return map[string]any{"funded_psbt": packet(tx, script), "change_output_index": 0, "locked_utxos": []any{}}, true
	}
	fail(w, http.StatusInternalServerError, 2, "could not fund PSBT: not enough witness outputs to create funding transaction")
	return nil, false
}

// open serves an open of a channel until it is pending.
func (n *Node) open(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Peer   []byte `json:"node_pubkey"`
		Amount int64  `json:"local_funding_amount,string"`
		Shim   struct {
			PSBT struct {
				ID        []byte `json:"pending_chan_id"`
				NoPublish bool   `json:"no_publish"`
			} `json:"psbt_shim"`
		} `json:"funding_shim"`
	}
	n.mu.Lock()
	ok := n.allowed(w, r)
	refused := n.Wallet.Refuse
	n.mu.Unlock()
	if !ok {
		return
	}
	if json.NewDecoder(r.Body).Decode(&in) != nil || !in.Shim.PSBT.NoPublish || len(in.Shim.PSBT.ID) != 32 {
		fail(w, http.StatusBadRequest, 3, "proto: syntax error")
		return
	}
	line := func(v any) {
		json.NewEncoder(w).Encode(v)
		w.(http.Flusher).Flush()
	}
	if refused != "" {
		line(map[string]any{"error": map[string]any{"code": 2, "message": refused}})
		return
	}
	o := &offer{peer: hex.EncodeToString(in.Peer), amount: in.Amount, pending: make(chan string, 1), gone: make(chan struct{})}
	o.script = append([]byte{0x00, 0x20}, bytes.Repeat([]byte{5}, 32)...)
	n.mu.Lock()
	if n.Wallet.offers == nil {
		n.Wallet.offers = map[string]*offer{}
	}
	n.Wallet.offers[hex.EncodeToString(in.Shim.PSBT.ID)] = o
	n.mu.Unlock()
	template := wire.NewMsgTx(2)
	template.AddTxOut(wire.NewTxOut(o.amount, o.script))
	line(map[string]any{"result": map[string]any{"psbt_fund": map[string]any{"funding_amount": strconv.FormatInt(o.amount, 10), "psbt": packet(template, nil)}, "pending_chan_id": in.Shim.PSBT.ID}})
	select {
	case point := <-o.pending:
		txid, index, _ := strings.Cut(point, ":")
		b, _ := hex.DecodeString(txid)
		slices.Reverse(b)
		i, _ := strconv.Atoi(index)
		line(map[string]any{"result": map[string]any{"chan_pending": map[string]any{"txid": b, "output_index": i}}})
		<-r.Context().Done() // The real one goes on until the channel is open.
	case <-o.gone:
		line(map[string]any{"error": map[string]any{"code": 2, "message": "user canceled funding"}})
	case <-r.Context().Done():
	}
}

// packet is a PSBT of a transaction; script is what its inputs spend from.
func packet(tx *wire.MsgTx, script []byte) []byte {
	var raw, b bytes.Buffer
	tx.SerializeNoWitness(&raw)
	b.WriteString("psbt\xff")
	field := func(key byte, value []byte) {
		b.Write([]byte{1, key})
		wire.WriteVarBytes(&b, 0, value)
	}
	field(0, raw.Bytes())
	b.WriteByte(0)
	for range tx.TxIn {
		var out bytes.Buffer
		out.Write([]byte{0x80, 0x96, 0x98, 0, 0, 0, 0, 0})
		wire.WriteVarBytes(&out, 0, script)
		field(1, out.Bytes())
		b.WriteByte(0)
	}
	for range tx.TxOut {
		b.WriteByte(0)
	}
	return b.Bytes()
}

// unsigned returns the transaction of a PSBT that packet made, or lnd.
func unsigned(data []byte) (*wire.MsgTx, error) {
	r := bytes.NewReader(bytes.TrimPrefix(data, []byte("psbt\xff\x01\x00")))
	raw, err := wire.ReadVarBytes(r, 0, 1<<20, "tx")
	if err != nil {
		return nil, err
	}
	tx := &wire.MsgTx{}
	return tx, tx.DeserializeNoWitness(bytes.NewReader(raw))
}

// Macaroons returns all macaroons that count.
func (n *Node) Macaroons() [][]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list [][]byte
	for mac := range n.macaroons {
		b, _ := hex.DecodeString(mac)
		list = append(list, b)
	}
	return list
}
