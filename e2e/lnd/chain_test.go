package lnd

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A chain is a regtest chain of its own: a btcd that makes blocks when it is told to.
type chain struct {
	rpc    string // address
	cert   string // path
	client *http.Client

	mu    sync.Mutex
	coins []coin // that pay the nodes
}

type coin struct {
	txid string
	sats int64
}

const (
	rpcUser, rpcPassword = "satchel", "regtest"

	// minerAddress belongs to everybody: the script is OP_TRUE, and who spends from it
	// signs nothing. So paying from it needs no wallet.
	minerAddress = "2ND8PB9RrfCaAcjfjP1Y6nAgFd9zWHYX4DN"
	minerInput   = "0151" // pushes the script

	// segwitHeight is where segregated witness holds on a regtest chain of btcd: three
	// windows of 144 blocks.
	segwitHeight = 3*144 + 1

	coinbaseSats = 50e8 // of the first 149 blocks
	maturity     = 100  // blocks
)

// newChain starts a chain on which lnd can work.
func newChain(t testing.TB) *chain {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "btcd.conf") // It would make one elsewhere.
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := &chain{rpc: freeAddress(t), cert: filepath.Join(dir, "rpc.cert")}
	start(t, "btcd", exec.Command(filepath.Join(lndBin, "btcd"),
		"--regtest", "--datadir="+filepath.Join(dir, "data"), "--logdir="+filepath.Join(dir, "logs"), "--configfile="+config,
		"--rpccert="+c.cert, "--rpckey="+filepath.Join(dir, "rpc.key"), "--rpclisten="+c.rpc, "--rpcuser="+rpcUser, "--rpcpass="+rpcPassword,
		"--debuglevel=warn", "--listen="+freeAddress(t), "--nobanning", "--txindex", "--miningaddr="+minerAddress, "--rpcmaxclients=100", "--rpcmaxwebsockets=100"))
	eventually(t, startLimit, "btcd answers", func() error {
		pem, err := os.ReadFile(c.cert)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s is not written yet", c.cert)
		}
		c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}, Timeout: time.Minute}
		return c.call("getblockcount", nil)
	})
	c.mine(t, segwitHeight)
	for height := 1; height < 100; height++ {
		var hash string
		c.must(t, "getblockhash", &hash, height)
		var b block
		c.must(t, "getblock", &b, hash, 1)
		c.coins = append(c.coins, coin{b.Tx[0], coinbaseSats})
	}
	return c
}

type block struct {
	Height int64    `json:"height"`
	Tx     []string `json:"tx"`
}

// call asks btcd for something and decodes the result into v, unless that is nil.
func (c *chain) call(method string, v any, params ...any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return err
	}
	req, err := http.NewRequest("POST", "https://"+c.rpc, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.SetBasicAuth(rpcUser, rpcPassword)
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Result json.RawMessage
		Error  *struct {
			Code    int
			Message string
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("btcd, %s: %w", method, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("btcd, %s: %s (%d)", method, answer.Error.Message, answer.Error.Code)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(answer.Result, v)
}

func (c *chain) must(t testing.TB, method string, v any, params ...any) {
	t.Helper()
	if err := c.call(method, v, params...); err != nil {
		t.Fatal(err)
	}
}

// mine makes blocks with what waits in the pool.
func (c *chain) mine(t testing.TB, blocks int) {
	t.Helper()
	c.must(t, "generate", nil, blocks)
}

func (c *chain) height(t testing.TB) int64 {
	t.Helper()
	var height int64
	c.must(t, "getblockcount", &height)
	return height
}

// pool is the transactions that wait for a block.
func (c *chain) pool(t testing.TB) []string {
	t.Helper()
	var ids []string
	c.must(t, "getrawmempool", &ids)
	return ids
}

// pay sends to an address, in a block of its own. btcd does not make transactions to
// segwit addresses, only to those that wrap them.
func (c *chain) pay(t testing.TB, address string, sats int64) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	const fee = 10_000
	if len(c.coins) == 0 || c.coins[0].sats <= sats+fee {
		t.Fatalf("the miner cannot pay %d sats", sats)
	}
	from := c.coins[0]
	c.coins = c.coins[1:]
	var raw string
	c.must(t, "createrawtransaction", &raw, []map[string]any{{"txid": from.txid, "vout": 0}},
		map[string]any{address: btc(sats), minerAddress: btc(from.sats - sats - fee)})
	// The one input's script is empty: a length of 0, after version, number of inputs,
	// transaction and output.
	const at = 2 * (4 + 1 + 32 + 4)
	if raw[at:at+2] != "00" {
		t.Fatalf("not the transaction that was asked for: %s", raw)
	}
	c.must(t, "sendrawtransaction", nil, raw[:at]+"02"+minerInput+raw[at+2:])
	c.mine(t, 1)
}

func btc(sats int64) json.Number {
	return json.Number(fmt.Sprintf("%d.%08d", sats/1e8, sats%1e8))
}

// A transaction is what btcd tells of one.
type transaction struct {
	Txid string `json:"txid"`
	Hex  string `json:"hex"`
	Vin  []struct {
		Txid     string `json:"txid"`
		Vout     int    `json:"vout"`
		Coinbase string `json:"coinbase"`
	} `json:"vin"`
	Vout []struct {
		Value        json.Number `json:"value"`
		ScriptPubKey struct {
			Hex       string   `json:"hex"`
			Type      string   `json:"type"`
			Addresses []string `json:"addresses"`
		} `json:"scriptPubKey"`
	} `json:"vout"`
	Confirmations int64 `json:"confirmations"`
}

// out is what an output holds.
func (tx transaction) out(t testing.TB, i int) int64 {
	t.Helper()
	whole, part, _ := strings.Cut(tx.Vout[i].Value.String(), ".")
	if strings.ContainsAny(whole+part, "eE-") || len(part) > 8 {
		f, err := tx.Vout[i].Value.Float64()
		if err != nil {
			t.Fatal(err)
		}
		return int64(f*1e8 + 0.5)
	}
	var sats int64
	if _, err := fmt.Sscanf(whole+part+strings.Repeat("0", 8-len(part)), "%d", &sats); err != nil {
		t.Fatal(err)
	}
	return sats
}

func (c *chain) transaction(t testing.TB, txid string) transaction {
	t.Helper()
	var tx transaction
	c.must(t, "getrawtransaction", &tx, txid, 1)
	return tx
}

// fee is what a transaction left to the miner.
func (c *chain) fee(t testing.TB, tx transaction) int64 {
	t.Helper()
	var fee int64
	for _, in := range tx.Vin {
		fee += c.transaction(t, in.Txid).out(t, in.Vout)
	}
	for i := range tx.Vout {
		fee -= tx.out(t, i)
	}
	return fee
}

// since returns the transactions of the blocks after a height, and of the pool, without
// those that pay the miner.
func (c *chain) since(t testing.TB, height int64) []transaction {
	t.Helper()
	ids := c.pool(t)
	for h := c.height(t); h > height; h-- {
		var hash string
		c.must(t, "getblockhash", &hash, h)
		var b block
		c.must(t, "getblock", &b, hash, 1)
		ids = append(ids, b.Tx[1:]...)
	}
	var txs []transaction
	for _, id := range ids {
		txs = append(txs, c.transaction(t, id))
	}
	return txs
}

const (
	startLimit = time.Minute     // until a program serves
	waitLimit  = 2 * time.Minute // until something happened that nothing delays
	poll       = 50 * time.Millisecond
)

// eventually waits until f returns nil, and fails the test if it does not in time.
func eventually(t testing.TB, limit time.Duration, what string, f func() error) {
	t.Helper()
	eventuallyEvery(t, poll, limit, what, f)
}

// eventuallyEvery is eventually for what is looked at more often, or less.
func eventuallyEvery(t testing.TB, every, limit time.Duration, what string, f func() error) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited %v until %s: %v", limit, what, err)
		}
		time.Sleep(every)
	}
}

var ports struct {
	sync.Mutex
	given map[string]bool
}

// freeAddress returns an address on this machine that nothing listens on. It is not one
// of those that the system gives to outgoing connections, so that a node can be started
// there again.
func freeAddress(t testing.TB) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.given == nil {
		ports.given = map[string]bool{}
	}
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		l, err := net.Listen("tcp", address)
		if err != nil || ports.given[address] {
			if err == nil {
				l.Close()
			}
			continue
		}
		l.Close()
		ports.given[address] = true
		return address
	}
	t.Fatal("no port is free")
	return ""
}
