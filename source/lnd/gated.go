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
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/secret"
)

// lnd sends the transaction that pays into a new channel before the channel's backup
// leaves it. A gated open turns that round: lnd negotiates the channel with a
// transaction that it signs and does not send (psbt_shim with no_publish), and only when
// a backup that knows the channel is protected, the transaction is sent. What it needs to
// go on, or to undo it, after a crash is in a record on this device before each step:
//
//	state       what may be at lnd                       after a crash
//	begun       a peer that was offered a channel,       undone
//	            coins reserved under the lock of the record
//	signed      the same, and a pending channel. The     sent once protected, if the channel
//	            record holds the signed transaction      is pending; else undone
//	publishing  the transaction may be out               sent again
//	abandoning  as for signed; the transaction was       undone
//	            never sent, and the record has lost it
//
// lnd could also be told to go on without the signatures (skip_finalize). Then the id of
// the transaction must not change when it is signed, which it does where a coin of the
// kind np2wkh pays; lnd does not notice, and the money would be locked for good.
//
// An open that is resumed after the reservation of its coins is undone, unless lnd knows
// the transaction: the peer forgets a channel that is not paid for after two weeks, and
// then only this node could bring the money back.
//
// A transaction is sent in the state publishing only, which comes after the backup was
// protected; and undone is nothing that was in that state, unless lnd says that it does
// not know the transaction. Coins are reserved for reservedFor at most, whatever becomes
// of the record.

// Facts of a gated open. The client's own errors say what went wrong at lnd.
var (
	// ErrUnfinished says that an earlier open was not finished: ResumeGated does that.
	ErrUnfinished = errors.New("an earlier open of a channel is not finished")
	// ErrNoOpening says that there is nothing to resume.
	ErrNoOpening = errors.New("no open of a channel is unfinished")
	// ErrPeerRefused says that the channel was not agreed on, with the reason.
	ErrPeerRefused = errors.New("the channel was not agreed on")
	// ErrNotSafe says that the backup with the new channel could not be protected, so
	// the transaction was not sent.
	ErrNotSafe = errors.New("the backup that knows the channel is not protected")
	// ErrOldLND says that this lnd does not tell which channels are in a backup.
	ErrOldLND = errors.New("lnd before 0.19 does not say which channels a backup knows")
	// ErrNotPublished says that lnd did not take the transaction.
	ErrNotPublished = errors.New("the transaction was not sent")
	// ErrTooLate says that an open was begun so long ago that its transaction must not be
	// sent any more.
	ErrTooLate = errors.New("the open was begun too long ago: its coins are not reserved any more, and the peer may have forgotten the channel")
	// ErrPublished says that an open cannot be undone: its transaction is out.
	ErrPublished = errors.New("the transaction of the channel is out already")
	// ErrCoins says that lnd's wallet cannot pay for a channel now. Nothing was begun.
	ErrCoins = errors.New("lnd has not enough coins that are confirmed and free")
	// ErrPeerAway says that lnd is not connected to the peer. Nothing was begun.
	ErrPeerAway = errors.New("lnd is not connected to the peer")
)

// Point is a moment of a gated open, for tests: what is done by then is on this
// device's disk or at lnd.
type Point string

// The points in their order. Between any two of them the process may die.
const (
	PointBegun      Point = "begun"      // the record is on the disk
	PointOffered    Point = "offered"    // the peer accepts, and lnd asks for a transaction
	PointReserved   Point = "reserved"   // coins are reserved
	PointVerified   Point = "verified"   // lnd knows the transaction
	PointFinalized  Point = "finalized"  // lnd signed it
	PointSigned     Point = "signed"     // it is in the record
	PointAgreed     Point = "agreed"     // lnd was told to go on with it
	PointPending    Point = "pending"    // the peer signed, the channel is pending
	PointProtected  Point = "protected"  // a backup that knows the channel is protected
	PointPublishing Point = "publishing" // the record says that it goes out
	PointPublished  Point = "published"  // lnd sent it
	PointReleased   Point = "released"   // the coins' reservation is gone, the record still there
	PointAbandoning Point = "abandoning" // the record says that it will never go out
	PointCancelled  Point = "cancelled"  // lnd forgot the offer
	PointAbandoned  Point = "abandoned"  // lnd forgot the channel
)

// Points lists them all, in their order.
func Points() []Point {
	return []Point{PointBegun, PointOffered, PointReserved, PointVerified, PointFinalized, PointSigned, PointAgreed, PointPending,
		PointProtected, PointPublishing, PointPublished, PointReleased, PointAbandoning, PointCancelled, PointAbandoned}
}

// GatedConfig is what a gated open needs.
type GatedConfig struct {
	// Node is the node, with a macaroon that may spend. It is not kept.
	Node *Node
	// Journal is the path of the record on this device.
	Journal string
	// Protect saves what the node has now, and returns the channel backup that is
	// protected then: fetched again from as many places as must hold it, and compared.
	Protect func(ctx context.Context) (scb []byte, err error)
	// Report, if not nil, is told of each point that is reached.
	Report func(Point)
	// Settle is how long lnd may take to end what it was told to forget. Zero means ten
	// seconds.
	Settle time.Duration
	// Now tells the time; nil means time.Now.
	Now func() time.Time
}

// NewChannel is a channel that is to be opened.
type NewChannel struct {
	Peer        string // its node id, in hex
	Host        string // where it is reached; empty if lnd is connected to it
	Amount      int64  // satoshi that this node puts in
	Push        int64  // of those, what the peer gets at once
	SatPerVByte uint64 // fee of the transaction; 0 lets lnd choose for a few blocks
	Private     bool   // not announced to the network
}

// Opening is the record of a gated open.
type Opening struct {
	Version   int       `json:"version"`
	State     string    `json:"state"`
	Begun     time.Time `json:"begun"`
	Node      string    `json:"node"` // id of the node that opens
	Peer      string    `json:"peer"`
	Amount    int64     `json:"amount"`
	PendingID string    `json:"pending_id"` // by which lnd knows the offer
	Lock      string    `json:"lock"`       // by which lnd knows the reserved coins
	Point     string    `json:"channel_point,omitempty"`
	TxID      string    `json:"txid,omitempty"`
	Tx        []byte    `json:"tx,omitempty"` // signed; whoever has it can open the channel
}

// States of an Opening.
const (
	stateBegun      = "begun"
	stateSigned     = "signed"
	statePublishing = "publishing"
	stateAbandoning = "abandoning"
)

const (
	openingVersion = 1
	maxOpening     = 1 << 20        // bytes of the record
	reservedFor    = 24 * time.Hour // how long lnd reserves the coins
	openLabel      = "satchel: gated open of a channel"
	settle         = 10 * time.Second
	settlePoll     = 250 * time.Millisecond
	connectFor     = "30" // seconds
	openBlocks     = 6    // within which the transaction shall confirm, if no fee is given
)

// UnfinishedGated returns the record of an open that was not finished, or ErrNoOpening.
func UnfinishedGated(journal string) (Opening, error) {
	var o Opening
	data, err := durable.Disk{}.ReadFile(journal, maxOpening)
	if errors.Is(err, fs.ErrNotExist) {
		return o, ErrNoOpening
	}
	if err != nil {
		return o, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil || o.Version != openingVersion {
		return o, fmt.Errorf("%s is not what satchel wrote, or a newer one did", journal)
	}
	return o, nil
}

// opener is one run of OpenGated, ResumeGated or AbandonGated.
type opener struct {
	GatedConfig
	o Opening
}

func newOpener(cfg GatedConfig) *opener {
	if cfg.Report == nil {
		cfg.Report = func(Point) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Settle == 0 {
		cfg.Settle = settle
	}
	return &opener{GatedConfig: cfg}
}

// keep makes the record durable.
func (g *opener) keep() error {
	data, err := json.Marshal(g.o)
	if err != nil {
		return err
	}
	if err := (durable.Disk{}).WriteFile(g.Journal, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("keeping the record of the open: %w", err)
	}
	return nil
}

// done removes the record.
func (g *opener) done() error {
	if err := (durable.Disk{}).Remove(g.Journal); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the record of the open: %w", err)
	}
	return nil
}

// Prepare does what can be done before a peer is asked for a channel: it connects lnd to
// the peer, and lets lnd choose coins without reserving any. fee is about what the
// transaction costs, in satoshi; 0 if lnd cannot say.
//
// A peer that agreed on a channel which then comes to nothing counts it as pending for
// two weeks, and many allow one at a time. So everything that can fail had better fail here:
// ErrCoins, ErrPeerAway, ErrPermission.
func Prepare(ctx context.Context, node *Node, ch NewChannel) (fee int64, err error) {
	info, err := node.Info(ctx)
	if err != nil {
		return 0, err
	}
	if fee, err = node.fee(ctx, info.Network, ch); err != nil {
		return 0, err
	}
	if _, err := node.Pending(ctx); err != nil {
		return 0, err
	}
	// To forget an offer that there never was shows whether the macaroon may spend.
	none := secret.Random(32)
	g := opener{GatedConfig: GatedConfig{Node: node}, o: Opening{PendingID: hex.EncodeToString(none.Open())}}
	switch err := g.cancel(ctx); {
	case errors.Is(err, ErrPermission):
		return 0, &PermissionError{Lacks: []Permission{{"onchain", "write"}, {"offchain", "write"}}}
	case err != nil:
		return 0, err
	}
	if err := node.connect(ctx, ch); err != nil {
		if _, answered := errors.AsType[*AnswerError](err); answered {
			err = fmt.Errorf("%w: %w", ErrPeerAway, err)
		}
		return 0, err
	}
	peers, err := node.Peers(ctx)
	switch {
	case errors.Is(err, ErrPermission):
		return fee, nil // lnd says so itself, before it asks the peer.
	case err != nil:
		return 0, err
	case !slices.ContainsFunc(peers, func(p Peer) bool { return p.PubKey == ch.Peer }):
		return 0, ErrPeerAway
	}
	return fee, nil
}

// fee asks what it costs to pay for a channel. The output of a channel pays to the hash of
// a script, and which one does not matter.
func (n *Node) fee(ctx context.Context, network string, ch NewChannel) (int64, error) {
	params, ok := map[string]*chaincfg.Params{
		"mainnet": &chaincfg.MainNetParams, "testnet": &chaincfg.TestNet3Params, "testnet4": &chaincfg.TestNet3Params,
		"signet": &chaincfg.SigNetParams, "regtest": &chaincfg.RegressionNetParams, "simnet": &chaincfg.SimNetParams,
	}[network]
	if !ok {
		return 0, nil
	}
	some, err := address.NewAddressWitnessScriptHash(make([]byte, 32), params)
	if err != nil {
		return 0, nil
	}
	query := url.Values{
		"AddrToAmount[" + some.EncodeAddress() + "]": {fmt.Sprint(ch.Amount)}, "target_conf": {fmt.Sprint(openBlocks)}, "min_confs": {"1"},
	}
	var out struct {
		Fee  int64  `json:"fee_sat,string"`
		Rate uint64 `json:"sat_per_vbyte,string"`
	}
	err = n.Call(ctx, http.MethodGet, "/v1/transactions/fee?"+query.Encode(), nil, &out)
	if _, answered := errors.AsType[*AnswerError](err); answered {
		if says(err, "insufficient funds") {
			return 0, fmt.Errorf("%w: %w", ErrCoins, err)
		}
		return 0, nil // It cannot say, and says in its time whether it can pay.
	}
	if err != nil {
		return 0, err
	}
	if ch.SatPerVByte > 0 && out.Rate > 0 {
		// It chose coins for a rate of its own: as many bytes at the rate that is wanted.
		return int64(float64(out.Fee) / float64(out.Rate) * float64(ch.SatPerVByte)), nil
	}
	return out.Fee, nil
}

// OpenGated opens a channel, gated, and returns its funding outpoint. If it returns an error
// before the channel was agreed on, or because the backup could not be protected, what
// was begun is undone; if that failed as well, the record stays, as after a crash: see
// UnfinishedGated and ResumeGated.
func OpenGated(ctx context.Context, cfg GatedConfig, ch NewChannel) (point string, err error) {
	if _, err := UnfinishedGated(cfg.Journal); !errors.Is(err, ErrNoOpening) {
		if err == nil {
			err = ErrUnfinished
		}
		return "", err
	}
	g := newOpener(cfg)
	node, err := g.node(ctx)
	if err != nil {
		return "", err
	}
	if err := g.Node.connect(ctx, ch); err != nil {
		return "", err
	}
	id, lock := secret.Random(32), secret.Random(32)
	g.o = Opening{
		Version: openingVersion, State: stateBegun, Begun: g.Now().UTC().Truncate(time.Second), Node: node, Peer: ch.Peer, Amount: ch.Amount,
		PendingID: hex.EncodeToString(id.Open()), Lock: hex.EncodeToString(lock.Open()),
	}
	// Nothing is at lnd yet. From here on, whatever is there is found by the two ids.
	if err := g.keep(); err != nil {
		return "", err
	}
	g.Report(PointBegun)
	if err := g.negotiate(ctx, ch); err != nil {
		return "", g.giveUp(ctx, err)
	}
	return g.finish(ctx)
}

// ResumeGated finishes an open that was cut short: it sends the transaction once the backup
// is protected, or undoes the open if the channel was not agreed on or the backup cannot
// be protected. point is "" if it was undone, err says why.
func ResumeGated(ctx context.Context, cfg GatedConfig) (point string, err error) {
	g, err := g0(ctx, cfg)
	if err != nil {
		return "", err
	}
	if err := g.tooLate(ctx); errors.Is(err, ErrTooLate) {
		return "", g.giveUp(ctx, err)
	} else if err != nil {
		return "", err
	}
	switch g.o.State {
	case stateAbandoning:
		return "", g.undo(ctx)
	case stateBegun:
		return "", g.giveUp(ctx, fmt.Errorf("%w: it was cut short before", ErrPeerRefused))
	case stateSigned:
		// What was told lnd last may still be on its way to the peer, or was not told. After
		// the cancelling it comes to an end, this or that.
		if err := g.cancel(ctx); err != nil {
			return "", err
		}
		known, err := g.becomesPending(ctx, g.Settle)
		if err != nil {
			return "", err
		}
		if !known {
			return "", g.giveUp(ctx, fmt.Errorf("%w: it was cut short before", ErrPeerRefused))
		}
	}
	return g.finish(ctx)
}

// AbandonGated undoes an open that was cut short. It fails with ErrPublished if the
// transaction may be out.
func AbandonGated(ctx context.Context, cfg GatedConfig) error {
	g, err := g0(ctx, cfg)
	if err != nil {
		return err
	}
	if g.o.State == statePublishing {
		known, err := g.becomesKnown(ctx)
		if err != nil {
			return err
		}
		if known {
			return ErrPublished
		}
	}
	return g.abandon(ctx)
}

// tooLate returns ErrTooLate if the transaction must not be sent any more, and was not.
func (g *opener) tooLate(ctx context.Context) error {
	if g.o.State != stateSigned && g.o.State != statePublishing || g.Now().Sub(g.o.Begun) < reservedFor {
		return nil
	}
	if g.o.State == statePublishing {
		if known, err := g.becomesKnown(ctx); known || err != nil {
			return err
		}
	}
	return ErrTooLate
}

// g0 takes up the record.
func g0(ctx context.Context, cfg GatedConfig) (*opener, error) {
	g := newOpener(cfg)
	var err error
	if g.o, err = UnfinishedGated(cfg.Journal); err != nil {
		return nil, err
	}
	node, err := g.node(ctx)
	if err != nil {
		return nil, err
	}
	if node != g.o.Node {
		return nil, ErrOtherNode
	}
	return g, nil
}

// finish takes a channel that is pending at lnd to its end.
func (g *opener) finish(ctx context.Context) (string, error) {
	if g.o.State == stateSigned {
		known, err := g.isPending(ctx)
		if err != nil {
			return "", err
		}
		if !known {
			return "", g.giveUp(ctx, fmt.Errorf("%w: lnd does not know it any more", ErrPeerRefused))
		}
		if err := g.protect(ctx); err != nil {
			if ctx.Err() != nil {
				return "", err // Interrupted: ResumeGated tries again.
			}
			return "", g.giveUp(ctx, fmt.Errorf("%w: %w", ErrNotSafe, err))
		}
		g.Report(PointProtected)
		g.o.State = statePublishing
		// If we crash before this is durable, nothing was sent; after it, it is sent again.
		if err := g.keep(); err != nil {
			return "", err
		}
		g.Report(PointPublishing)
	}
	if err := g.publish(ctx); err != nil {
		return "", err
	}
	g.Report(PointPublished)
	// The coins are spent now, so a reservation that stays is no harm: it ends by itself.
	_ = g.release(ctx)
	g.Report(PointReleased)
	return g.o.Point, g.done()
}

// giveUp undoes what was begun, because of err.
func (g *opener) giveUp(ctx context.Context, err error) error {
	// An interruption must not leave coins reserved if that can be helped.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if undone := g.abandon(ctx); undone != nil {
		return errors.Join(err, fmt.Errorf("undoing it: %w: %w", ErrUnfinished, undone))
	}
	return err
}

// abandon decides that the transaction is never sent, and undoes the open.
func (g *opener) abandon(ctx context.Context) error {
	if g.o.State != stateAbandoning {
		g.o.State, g.o.Tx = stateAbandoning, nil
		if err := g.keep(); err != nil {
			return err
		}
		g.Report(PointAbandoning)
	}
	return g.undo(ctx)
}

// undo makes lnd forget the open. It may be called again.
func (g *opener) undo(ctx context.Context) error {
	if err := g.cancel(ctx); err != nil {
		return err
	}
	g.Report(PointCancelled)
	if g.o.Point != "" {
		// lnd may have gone on before it was cancelled.
		known, err := g.becomesPending(ctx, g.Settle)
		if err != nil {
			return err
		}
		if known {
			txid, index, _ := strings.Cut(g.o.Point, ":")
			// The flag is for channels that are not paid for. This one never will be: its
			// transaction was not sent, and is not in the record any more.
			if err := g.Node.Call(ctx, http.MethodDelete, "/v1/channels/abandon/"+txid+"/"+index+"?i_know_what_i_am_doing=true", nil, nil); err != nil {
				return fmt.Errorf("abandoning the channel: %w", err)
			}
		}
		g.Report(PointAbandoned)
	}
	if err := g.release(ctx); err != nil {
		return err
	}
	g.Report(PointReleased)
	return g.done()
}

// node returns the id of the node.
func (g *opener) node(ctx context.Context) (string, error) {
	info, err := g.Node.Info(ctx)
	return info.PubKey, err
}

// connect connects lnd to the peer.
func (n *Node) connect(ctx context.Context, ch NewChannel) error {
	if ch.Host == "" {
		return nil
	}
	body := map[string]any{"addr": map[string]string{"pubkey": ch.Peer, "host": ch.Host}, "timeout": connectFor}
	err := n.Call(ctx, http.MethodPost, "/v1/peers", body, nil)
	if err != nil && !says(err, "already connected") {
		return fmt.Errorf("connecting to the peer: %w", err)
	}
	return nil
}

// update is what lnd tells of an open.
type update struct {
	Fund *struct {
		PSBT []byte `json:"psbt"`
	} `json:"psbt_fund"`
	Pending *struct{} `json:"chan_pending"`
}

// negotiate agrees with the peer on the channel, up to where it is pending.
func (g *opener) negotiate(ctx context.Context, ch NewChannel) error {
	peer, err := hex.DecodeString(ch.Peer)
	if err != nil {
		return fmt.Errorf("the node id of the peer: %w", err)
	}
	body := map[string]any{
		"node_pubkey": peer, "local_funding_amount": fmt.Sprint(ch.Amount), "push_sat": fmt.Sprint(ch.Push), "private": ch.Private,
		"funding_shim": map[string]any{"psbt_shim": map[string]any{"pending_chan_id": g.bytes(g.o.PendingID), "no_publish": true}},
	}
	pending := false
	var funding error // on this side
	err = g.Node.listen(ctx, http.MethodPost, "/v1/channels/stream", body, func(line json.RawMessage) error {
		var u update
		if err := json.Unmarshal(line, &u); err != nil {
			return err
		}
		switch {
		case u.Fund != nil && g.o.State == stateBegun:
			g.Report(PointOffered)
			funding = g.fund(ctx, ch, u.Fund.PSBT)
			return funding
		case u.Pending != nil && g.o.State == stateSigned:
			pending = true
			g.Report(PointPending)
			return errEnough
		}
		return nil
	})
	switch {
	case pending:
		return nil
	case funding != nil:
		return funding
	case err == nil:
		err = errors.New("lnd ended the call")
	case g.o.State == stateSigned:
		// lnd may be there already, and only its answer be lost.
		if known, e := g.becomesPending(ctx, g.Settle); e == nil && known {
			return nil
		}
	}
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %w", ErrPeerRefused, err)
}

// errEnough ends a stream that has told what is needed.
var errEnough = errors.New("enough")

// fund reserves coins for the transaction that lnd asks for, has it signed, and tells lnd
// to go on with it.
func (g *opener) fund(ctx context.Context, ch NewChannel, template []byte) error {
	want, err := readTemplate(template)
	if err != nil {
		return err
	}
	if want.Value != ch.Amount {
		return errPSBT
	}
	body := map[string]any{
		"psbt": template, "custom_lock_id": g.bytes(g.o.Lock), "lock_expiration_seconds": fmt.Sprint(int64(reservedFor / time.Second)), "min_confs": 1,
	}
	if ch.SatPerVByte > 0 {
		body["sat_per_vbyte"] = fmt.Sprint(ch.SatPerVByte)
	} else {
		body["target_conf"] = openBlocks
	}
	var funded struct {
		PSBT []byte `json:"funded_psbt"`
	}
	if err := g.Node.Call(ctx, http.MethodPost, "/v2/wallet/psbt/fund", body, &funded); err != nil {
		return fmt.Errorf("reserving coins: %w", err)
	}
	g.Report(PointReserved)
	if err := g.step(ctx, "psbt_verify", map[string]any{"funded_psbt": funded.PSBT, "pending_chan_id": g.bytes(g.o.PendingID)}); err != nil {
		return fmt.Errorf("showing lnd the transaction: %w", err)
	}
	g.Report(PointVerified)
	if err := g.sign(ctx, funded.PSBT, want); err != nil {
		return err
	}
	if err := g.step(ctx, "psbt_finalize", map[string]any{"final_raw_tx": g.o.Tx, "pending_chan_id": g.bytes(g.o.PendingID)}); err != nil {
		return fmt.Errorf("going on with the transaction: %w", err)
	}
	g.Report(PointAgreed)
	return nil
}

// sign lets lnd sign the transaction, and keeps it.
func (g *opener) sign(ctx context.Context, funded []byte, want *wire.TxOut) error {
	var signed struct {
		Tx []byte `json:"raw_final_tx"`
	}
	if err := g.Node.Call(ctx, http.MethodPost, "/v2/wallet/psbt/finalize", map[string]any{"funded_psbt": funded}, &signed); err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	g.Report(PointFinalized)
	var tx wire.MsgTx
	if err := tx.Deserialize(bytes.NewReader(signed.Tx)); err != nil {
		return errPSBT
	}
	index := slices.IndexFunc(tx.TxOut, func(out *wire.TxOut) bool { return out.Value == want.Value && bytes.Equal(out.PkScript, want.PkScript) })
	if index < 0 {
		return errors.New("the transaction that lnd made does not pay for the channel")
	}
	g.o.State, g.o.Tx, g.o.TxID = stateSigned, signed.Tx, tx.TxHash().String()
	g.o.Point = fmt.Sprintf("%s:%d", g.o.TxID, index)
	// If we crash after this, the channel may be pending at lnd; it is found by its point.
	if err := g.keep(); err != nil {
		return err
	}
	g.Report(PointSigned)
	return nil
}

func (g *opener) bytes(text string) []byte {
	b, _ := hex.DecodeString(text) // The record holds what Open wrote; lnd refuses anything else.
	return b
}

func (g *opener) step(ctx context.Context, name string, body map[string]any) error {
	return g.Node.Call(ctx, http.MethodPost, "/v1/funding/step", map[string]any{name: body}, nil)
}

// cancel makes lnd forget the offer. What became a channel by then stays one.
func (g *opener) cancel(ctx context.Context) error {
	err := g.step(ctx, "shim_cancel", map[string]any{"pending_chan_id": g.bytes(g.o.PendingID)})
	if err != nil && !says(err, "no funding intent found") {
		return fmt.Errorf("cancelling the offer: %w", err)
	}
	return nil
}

// protect has a backup protected, of which lnd itself says that it knows the channel.
func (g *opener) protect(ctx context.Context) error {
	scb, err := g.Protect(ctx)
	if err != nil {
		return err
	}
	channels, known, err := g.Node.Verify(ctx, scb)
	switch {
	case err != nil:
		return err
	case !known:
		return ErrOldLND
	case !slices.Contains(channels, g.o.Point):
		return fmt.Errorf("it lacks %s", g.o.Point)
	}
	return nil
}

// publish sends the transaction. It may be sent again.
func (g *opener) publish(ctx context.Context) error {
	var answer struct {
		Error string `json:"publish_error"`
	}
	err := g.Node.Call(ctx, http.MethodPost, "/v2/wallet/tx", map[string]any{"tx_hex": g.o.Tx, "label": openLabel}, &answer)
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	if err == nil {
		return nil
	}
	// It may be out from a try before.
	if known, e := g.transactionKnown(ctx); e == nil && known {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrNotPublished, err)
}

// transactionKnown reports whether lnd's wallet knows the transaction: then it was sent.
func (g *opener) transactionKnown(ctx context.Context) (bool, error) {
	err := g.Node.Call(ctx, http.MethodGet, "/v2/wallet/tx?txid="+g.o.TxID, nil, nil)
	switch {
	case err == nil:
		return true, nil
	case says(err, "not found"), says(err, "no transaction"):
		return false, nil
	}
	return false, err
}

// becomesKnown is transactionKnown for a decision that cannot be taken back: lnd may still
// be at sending what it was given before the line broke.
func (g *opener) becomesKnown(ctx context.Context) (bool, error) {
	return g.becomes(ctx, g.Settle, g.transactionKnown)
}

// isPending reports whether lnd has the channel.
func (g *opener) isPending(ctx context.Context) (bool, error) {
	p, err := g.Node.Pending(ctx)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(p.Opening, func(c Channel) bool { return c.Point == g.o.Point }) {
		return true, nil
	}
	// In the state publishing it may be open by now; nobody asks then.
	return false, nil
}

// becomesPending waits for the channel for a while.
func (g *opener) becomesPending(ctx context.Context, wait time.Duration) (bool, error) {
	return g.becomes(ctx, wait, g.isPending)
}

// becomes waits for a while until something is so.
func (g *opener) becomes(ctx context.Context, wait time.Duration, is func(context.Context) (bool, error)) (bool, error) {
	for began := time.Now(); ; {
		known, err := is(ctx)
		if known || err != nil || time.Since(began) >= wait {
			return known, err
		}
		select {
		case <-time.After(settlePoll):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// release ends the reservation of the coins.
func (g *opener) release(ctx context.Context) error {
	type outpoint struct {
		TxID  string `json:"txid_str"`
		Index uint32 `json:"output_index"`
	}
	var leases struct {
		Locked []struct {
			ID       []byte   `json:"id"`
			Outpoint outpoint `json:"outpoint"`
		} `json:"locked_utxos"`
	}
	if err := g.Node.Call(ctx, http.MethodPost, "/v2/wallet/utxos/leases", map[string]any{}, &leases); err != nil {
		return fmt.Errorf("listing reserved coins: %w", err)
	}
	for _, l := range leases.Locked {
		if hex.EncodeToString(l.ID) != g.o.Lock {
			continue
		}
		body := map[string]any{"id": l.ID, "outpoint": l.Outpoint}
		if err := g.Node.Call(ctx, http.MethodPost, "/v2/wallet/utxos/release", body, nil); err != nil {
			return fmt.Errorf("releasing a reserved coin: %w", err)
		}
	}
	return nil
}

// listen makes a call that answers with a line for each thing that happens, until event
// returns an error, which is returned, or lnd ends it.
func (n *Node) listen(ctx context.Context, method, path string, in any, event func(json.RawMessage) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := n.send(ctx, &n.stream, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := readLine(lines, maxFailure)
		if errors.Is(err, io.EOF) && len(bytes.TrimSpace(line)) == 0 {
			return nil
		}
		if err != nil {
			return n.away(ctx, err)
		}
		var out struct {
			Result json.RawMessage `json:"result"`
			Error  *wireFailure    `json:"error"`
		}
		switch {
		case json.Unmarshal(line, &out) != nil:
			return ErrNotLND
		case out.Error != nil:
			return out.Error.error(resp.StatusCode)
		}
		if err := event(out.Result); err != nil {
			return err
		}
	}
}

// says reports whether lnd's own words for an error contain text, in small letters. lnd
// has no codes for these.
func says(err error, text string) bool {
	e, ok := errors.AsType[*AnswerError](err)
	return ok && strings.Contains(strings.ToLower(e.Message), text)
}
