package lnd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/secret"
)

// What brings a node back that lost its disk. lnd makes its wallet from the seed, looks
// for its coins, and asks each peer of a channel in the backups to close it. It is never
// told to close a channel itself: a backup does not hold the newest state of a channel,
// and whoever publishes an older one loses all that is in it.

var (
	// ErrSeed says that lnd does not take the words for a seed of its own.
	ErrSeed = errors.New("lnd does not take these words: they are not an lnd node's, or damaged")
	// ErrSeedPassphrase says that the words are right and their passphrase is not.
	ErrSeedPassphrase = errors.New("the passphrase of the node's words is not this")
	// ErrSeedNetwork says that an extended key is of another network than the node.
	ErrSeedNetwork error = &fact{"the key is of another network than the node", ErrNetwork}
	// ErrPassword says that lnd does not take a new password for its wallet.
	ErrPassword = errors.New("lnd wants a password of 8 characters or more")
	// ErrHasWallet says that lnd has a wallet already. Nothing was changed.
	ErrHasWallet = errors.New("lnd has a wallet already")
	// ErrLess says that lnd cannot restore from a channel backup, which holds a channel that
	// lnd itself knew from a backup only. Channels that lnd read before it are restored.
	ErrLess = errors.New("lnd cannot restore from this channel backup: lnd made it while the node was being restored")
	// ErrPeer says that lnd could not reach another node.
	ErrPeer = errors.New("the peer cannot be reached now")
)

// minPassword is lnd's own bound.
const minPassword = 8

// NewWallet is what a node's wallet is made from.
type NewWallet struct {
	// Words are the node's 24 (aezeed), as one line; XPrv is an extended master key.
	// One of them is set.
	Words, XPrv secret.Bytes
	// Passphrase is that of the words, empty if they have none.
	Passphrase secret.Bytes
	// Birthday is since when an extended key is in use; the zero time if that is not
	// known. The words say so themselves.
	Birthday time.Time
	// Password is what unlocks the wallet from now on.
	Password secret.Bytes
	// Window is how many unused addresses in a row end the search for coins.
	Window int
	// Backup, if there is one, holds the channels whose peers are asked to close them,
	// before lnd takes any call of theirs.
	Backup []byte
}

// InitWallet makes the wallet of a node that has none, and returns the macaroon that
// allows all. It is not repeated by lnd, and a call that fails with ErrUnreachable may
// have been done.
func (n *Node) InitWallet(ctx context.Context, w NewWallet) (admin secret.Bytes, err error) {
	if w.Password.Len() < minPassword {
		return secret.Bytes{}, ErrPassword
	}
	in := map[string]any{"wallet_password": w.Password.Open(), "recovery_window": w.Window}
	if w.XPrv.Empty() {
		in["cipher_seed_mnemonic"] = strings.Fields(string(w.Words.Open()))
		in["aezeed_passphrase"] = w.Passphrase.Open()
	} else {
		in["extended_master_key"] = string(w.XPrv.Open())
		if !w.Birthday.IsZero() {
			in["extended_master_key_birthday_timestamp"] = fmt.Sprint(w.Birthday.Unix())
		}
	}
	if len(w.Backup) > 0 {
		in["channel_backups"] = map[string]any{"multi_chan_backup": map[string]any{"multi_chan_backup": w.Backup}}
	}
	var out struct {
		Admin []byte `json:"admin_macaroon"`
	}
	err = n.Call(ctx, http.MethodPost, "/v1/initwallet", in, &out)
	for _, known := range []struct {
		text string
		err  error
	}{
		{"wallet already exists", ErrHasWallet},
		{"invalid passphrase", ErrSeedPassphrase},
		{"wrong seed version", ErrSeed},
		{"checksum doesn't match", ErrSeed},
		{"must be for network", ErrSeedNetwork},
		{"password must have", ErrPassword},
	} {
		if says(err, known.text) {
			return secret.Bytes{}, known.err
		}
	}
	if errors.Is(err, ErrUnlocked) {
		return secret.Bytes{}, ErrHasWallet
	}
	if err != nil {
		return secret.Bytes{}, err
	}
	defer clear(out.Admin)
	return secret.New(out.Admin), nil
}

// RestoreBackup has lnd ask the peers of the channels in a backup to close them. Channels
// that it knows are left alone. It is ErrBackup if the backup is of another node or
// damaged, and ErrLess if lnd exported it of channels that it was given back itself: over
// such a channel, also one that it has, it stands still for minutes. It needs
// offchain:write.
func (n *Node) RestoreBackup(ctx context.Context, multi []byte) error {
	return n.restore(ctx, map[string]any{"multi_chan_backup": multi})
}

// RestoreSingles is RestoreBackup with backups of single channels.
func (n *Node) RestoreSingles(ctx context.Context, singles ...Single) error {
	list := []any{}
	for _, s := range singles {
		// Which channel it is stands in the backup itself.
		list = append(list, map[string]any{"chan_backup": s.Backup})
	}
	return n.restore(ctx, map[string]any{"chan_backups": map[string]any{"chan_backups": list}})
}

func (n *Node) restore(ctx context.Context, in any) error {
	err := n.Call(ctx, http.MethodPost, "/v1/channels/backup/restore", in, nil)
	switch {
	case says(err, "already exists"):
		return nil
	case says(err, "could not derive private key"):
		return ErrLess
	case says(err, "unable to unpack"):
		return ErrBackup
	}
	return err
}

// Recovery is how far lnd's search for coins is.
type Recovery struct {
	On       bool
	Finished bool
	Progress float64 // 0 to 1
}

// Recovery asks how far the search for coins is. It needs info:read.
func (n *Node) Recovery(ctx context.Context) (Recovery, error) {
	var out struct {
		On       bool    `json:"recovery_mode"`
		Finished bool    `json:"recovery_finished"`
		Progress float64 `json:"progress"`
	}
	err := n.Call(ctx, http.MethodGet, "/v1/getrecoveryinfo", nil, &out)
	return Recovery(out), err
}

// Connect has lnd connect to another node at an address. It tries on by itself. It needs
// peers:write.
func (n *Node) Connect(ctx context.Context, pubKey, address string) error {
	in := map[string]any{"addr": map[string]string{"pubkey": pubKey, "host": address}, "perm": true}
	err := n.Call(ctx, http.MethodPost, "/v1/peers", in, nil)
	if _, ok := errors.AsType[*AnswerError](err); ok {
		if says(err, "already connected") {
			return nil
		}
		return ErrPeer
	}
	return err
}

// Balance is the money in lnd's wallet on the chain, in satoshi.
type Balance struct {
	Confirmed   int64
	Unconfirmed int64
}

// Balance asks for the money in lnd's wallet on the chain. It needs onchain:read.
func (n *Node) Balance(ctx context.Context) (Balance, error) {
	var out struct {
		Confirmed   int64 `json:"confirmed_balance,string"`
		Unconfirmed int64 `json:"unconfirmed_balance,string"`
	}
	err := n.Call(ctx, http.MethodGet, "/v1/balance/blockchain", nil, &out)
	return Balance(out), err
}

// Ending is how far the end of a channel is.
type Ending string

const (
	// WaitsForPeer says that the peer was asked to close the channel, or will be once it
	// can be reached.
	WaitsForPeer Ending = "waits for the peer to close it"
	// WaitsForBlock says that a closing transaction waits for a block.
	WaitsForBlock Ending = "closing, waits for a block"
	// WaitsForTime says that the money comes back when a time lock ends, or is being
	// swept to the wallet.
	WaitsForTime Ending = "closed, the money is on its way back"
)

// EndingChannel is a channel that ends.
type EndingChannel struct {
	Channel
	Ending    Ending
	Limbo     int64 // satoshi on their way back
	Recovered int64 // satoshi that came back
	Blocks    int   // WaitsForTime: until the time lock ends; 0 or less once it has
}

// Ending lists the channels that end, and how far each is. It needs offchain:read.
func (n *Node) Ending(ctx context.Context) ([]EndingChannel, error) {
	var out struct {
		Waiting []struct {
			Channel wireChannel `json:"channel"`
			Limbo   int64       `json:"limbo_balance,string"`
			Closing string      `json:"closing_txid"`
		} `json:"waiting_close_channels"`
		Forced []struct {
			Channel   wireChannel `json:"channel"`
			Limbo     int64       `json:"limbo_balance,string"`
			Recovered int64       `json:"recovered_balance,string"`
			Blocks    int         `json:"blocks_til_maturity"`
		} `json:"pending_force_closing_channels"`
	}
	if err := n.pending(ctx, &out); err != nil {
		return nil, err
	}
	var list []EndingChannel
	for _, w := range out.Waiting {
		c, err := w.Channel.channel()
		if err != nil {
			return nil, err
		}
		ending := WaitsForPeer
		if w.Closing != "" {
			ending = WaitsForBlock
		}
		list = append(list, EndingChannel{Channel: c, Ending: ending, Limbo: w.Limbo})
	}
	for _, w := range out.Forced {
		c, err := w.Channel.channel()
		if err != nil {
			return nil, err
		}
		list = append(list, EndingChannel{Channel: c, Ending: WaitsForTime, Limbo: w.Limbo, Recovered: w.Recovered, Blocks: w.Blocks})
	}
	return list, nil
}
