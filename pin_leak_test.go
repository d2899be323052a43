package satchel_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudflare/circl/group"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"

	satchel "github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/https"
	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/front"
	"github.com/satchel-backup/satchel/keyserver/sqlite"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
	"github.com/satchel-backup/satchel/wallet"
)

// heap is all that was kept, logged, exported or sent, by where it was. It is safe for
// concurrent use.
type heap struct {
	mu sync.Mutex
	m  map[string]*bytes.Buffer
}

func (h *heap) add(where string, b []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m == nil {
		h.m = map[string]*bytes.Buffer{}
	}
	if h.m[where] == nil {
		h.m[where] = &bytes.Buffer{}
	}
	h.m[where].Write(b)
	h.m[where].WriteByte(0) // What stands in two pieces is not in either.
}

// has returns where the needle is.
func (h *heap) has(needle []byte) (where []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, b := range h.m {
		if bytes.Contains(b.Bytes(), needle) {
			where = append(where, name)
		}
	}
	slices.Sort(where)
	return where
}

// to is a writer to one place of the heap.
type to struct {
	h     *heap
	where string
}

// Write implements io.Writer.
func (w to) Write(b []byte) (int, error) { w.h.add(w.where, b); return len(b), nil }

// keyServer is a key server with all that satchel-keyserver has, whose every byte is
// looked at.
type keyServer struct {
	h      *heap
	name   string
	dir    string
	admin  string
	counts front.Counts
}

func newKeyServer(t *testing.T, h *heap, i int) *keyServer {
	t.Helper()
	s := &keyServer{h: h, dir: t.TempDir()}
	db, err := sqlite.Open(t.Context(), filepath.Join(s.dir, "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(to{h, fmt.Sprintf("log of key server %d", i)}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	master, err := keyserver.NewMaster(secret.Random(keyserver.MasterSize))
	if err != nil {
		t.Fatal(err)
	}
	srv, err := keyserver.New(t.Context(), keyserver.Config{Records: db, Master: master, Answered: s.counts.Answered, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	var listeners [2]net.Listener
	for i := range listeners {
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	s.name, s.admin = "http://"+listeners[0].Addr().String(), "http://"+listeners[1].Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	f := front.New(front.Config{Answer: srv, Check: srv.Check, Counts: &s.counts, Drain: time.Second, Logger: log})
	go func() { ended <- f.Serve(ctx, listeners[0], listeners[1]) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// look takes what the server has stored, and what it exports, as it is now.
func (s *keyServer) look(t *testing.T) {
	t.Helper()
	for path, data := range files(t, s.dir) {
		s.h.add("stored: "+s.name+" "+filepath.Base(path), []byte(data))
	}
	for _, path := range []string{"/metrics", "/healthz"} {
		resp, err := http.Get(s.admin + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		s.h.add("exported: "+s.name, text)
	}
}

// wire is a round tripper that keeps what goes over it, in both directions.
type wire struct {
	h *heap
	// unconfirmed, if not empty, is the key server that no confirm reaches.
	unconfirmed atomic.Pointer[string]
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	out, err := httputil.DumpRequestOut(r, true)
	if err != nil {
		return nil, err
	}
	w.h.add("sent to a key server", out)
	_, body, _ := bytes.Cut(out, []byte("\r\n\r\n"))
	if name := w.unconfirmed.Load(); name != nil && "http://"+r.URL.Host == *name && len(body) > 1 && body[1] == byte(protocol.OpConfirm) {
		return nil, errors.New("the network is down")
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	in, err := httputil.DumpResponse(resp, true)
	if err != nil {
		return nil, err
	}
	w.h.add("came from a key server", in)
	return resp, nil
}

// pinSecrets is a client of its own, after docs/protocol.md: it returns all that a PIN
// slot of 2 of n is made of, on the way from the PIN to the file key. It costs a guess at
// the first two guardians.
func pinSecrets(t *testing.T, s *guard.Slot, pin, passphrase string) map[string][]byte {
	t.Helper()
	stretch := func(k *guard.KDF, text string) []byte {
		return argon2.IDKey([]byte(text), k.Salt[:], uint32(k.Passes), k.Memory, k.Lanes, 32)
	}
	all := map[string][]byte{"Argon2 of the PIN": stretch(&s.PIN, pin)}
	input := append([]byte("satchel/v1/pin-input\n"), all["Argon2 of the PIN"]...)
	hash, transport := s.Hash(), &https.Transport{}
	var shares [2]group.Scalar
	for i := range shares {
		g := &s.Guardians[i]
		access := ed25519.NewKeyFromSeed(g.Access[:])
		account := protocol.AccountOf(access.Public().(ed25519.PublicKey))
		b, err := protocol.Blind(input)
		if err != nil {
			t.Fatal(err)
		}
		body := protocol.Sign(access, uint64(time.Now().UnixMilli())+1000, protocol.Evaluate{Attempt: protocol.Attempt{1}, Blinded: b.Blinded, Slot: hash})
		reply, err := transport.Send(t.Context(), g.Server, body)
		if err != nil {
			t.Fatal(err)
		}
		var e protocol.Evaluated
		if err := protocol.ParseReply(reply, &e); err != nil {
			t.Fatal(err)
		}
		y, err := b.Finalize(e.Element)
		if err != nil {
			t.Fatal(err)
		}
		all[fmt.Sprint("output ", i)] = y
		shares[i] = group.Ristretto255.NewScalar()
		if err := shares[i].UnmarshalBinary(g.Share[:]); err != nil {
			t.Fatal(err)
		}
		mask := group.Ristretto255.HashToScalar(y, append([]byte("satchel/v1/share-mask\n"), account[:]...))
		shares[i].Sub(shares[i], mask)
		for name, v := range map[string]group.Scalar{"mask ": mask, "share ": shares[i]} {
			if all[fmt.Sprint(name, i)], err = v.MarshalBinary(); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Through 1 and 2, at 0: twice the first less the second.
	value := group.Ristretto255.NewScalar().Add(shares[0], shares[0])
	S, err := value.Sub(value, shares[1]).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	all["unlock secret"] = S
	body := s.Bytes()
	public := body[:len(body)-3*32]
	both := S
	commitment, wrap := "satchel/v1/pin-commitment", "satchel/v1/pin-wrap"
	if s.Passphrase != nil {
		all["Argon2 of the passphrase"] = stretch(s.Passphrase, passphrase)
		both = append(bytes.Clone(S), all["Argon2 of the passphrase"]...)
		wrap = "satchel/v1/pin-passphrase-wrap"
	} else {
		public = body[:len(body)-2*32]
	}
	salt := sha256.Sum256(append([]byte("satchel/v1/pin-public\n"), public...))
	derive := func(key []byte, salt []byte, info string) []byte {
		b, err := hkdf.Key(sha256.New, key, salt, info, 32)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if !bytes.Equal(derive(S, salt[:], commitment), s.Commitment[:]) {
		t.Fatal("this is not the unlock secret: the test would search for nothing")
	}
	all["wrapping key"] = derive(both, salt[:], wrap)
	for i := range s.Guardians {
		account := protocol.AccountOf(ed25519.NewKeyFromSeed(s.Guardians[i].Access[:]).Public().(ed25519.PublicKey))
		all[fmt.Sprint("proof key ", i)] = derive(S, nil, "satchel/v1/proof-key\n"+string(account[:]))
	}
	c, err := chacha20poly1305.New(all["wrapping key"])
	if err != nil {
		t.Fatal(err)
	}
	if all["age's file key"], err = c.Open(nil, make([]byte, chacha20poly1305.NonceSize), s.Wrapped[:], nil); err != nil {
		t.Fatal(err)
	}
	return all
}

// written returns needles as they are and as text encodings write them.
func written(t *testing.T, needles map[string][]byte) map[string][]byte {
	t.Helper()
	all := maps.Clone(needles)
	for name, n := range needles {
		if len(n) < 8 {
			t.Fatalf("%s is too short to search for", name)
		}
		all[name+" in hex"] = fmt.Appendf(nil, "%x", n)
		all[name+" in HEX"] = fmt.Appendf(nil, "%X", n)
		all[name+" as a list"] = []byte(strings.Trim(fmt.Sprint(n), "[]"))
		if len(n) >= 32 {
			all["first half of "+name], all["second half of "+name] = n[:len(n)/2], n[len(n)/2:]
		}
		for i := range min(3, len(n)-8) { // base64 at each of its three phases
			for kind, e := range map[string]*base64.Encoding{"base64": base64.StdEncoding, "base64url": base64.URLEncoding} {
				text := e.EncodeToString(n[i:])
				all[fmt.Sprintf("%s in %s, phase %d", name, kind, i)] = []byte(text[:len(text)/4*4-4])
			}
		}
	}
	return all
}

// R12, R19: on the whole way of a wallet with a PIN, nothing that the key servers store,
// log or export, nothing that goes over the wire, nothing that is brought to the place,
// written to a device or logged there shows the PIN, what it is stretched to, the secret
// it unlocks, or anything of the wallet.
func TestPINLeaksNothing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := &heap{}
	var servers []*keyServer
	var names []string
	for i := range 3 {
		s := newKeyServer(t, h, i+1)
		servers, names = append(servers, s), append(names, s.name)
	}
	entropy := secret.Random(16).Open()
	words, err := wallet.WordsFromEntropy(secret.New(entropy), wallet.English)
	if err != nil {
		t.Fatal(err)
	}
	k, err := wallet.Import(words, wallet.ImportConfig{Network: wallet.Mainnet})
	if err != nil {
		t.Fatal(err)
	}
	seed, err := k.Seed()
	if err != nil {
		t.Fatal(err)
	}
	private, err := k.PrivateAccount(wallet.BIP84, 0)
	if err != nil {
		t.Fatal(err)
	}
	cloud := &storetest.Faulty{Inner: &mem.Store{}, Record: true}
	cfg := config(t, cloud)
	cfg.Logger = slog.New(slog.NewTextHandler(to{h, "log of the devices"}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	network := &wire{h: h}
	cfg.Guardians = &guard.Client{
		Transport: &https.Transport{Client: &http.Client{Transport: network}},
		Trusted:   func(name string) bool { return slices.Contains(names, name) },
		KDF:       &guard.KDF{Passes: 1, Lanes: 1, Memory: 8 << 10},
	}
	needles := map[string][]byte{}
	// look takes what stands anywhere between two steps.
	look := func(dirs ...string) {
		t.Helper()
		for _, s := range servers {
			s.look(t)
		}
		for _, dir := range dirs {
			for path, data := range files(t, dir) {
				h.add("on a device: "+path, []byte(path+data))
			}
		}
	}
	secretsOf := func(t *testing.T, cfg satchel.Config, which, pin, passphrase string) *guard.Slot {
		t.Helper()
		found, err := satchel.Find(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range objects(t, cloud.Inner, found[0].Folder+"/slots/pin-") {
			s, err := slot.ReadPIN([]byte(data), guard.ID(fromHex(found[0].ID)))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for name, n := range pinSecrets(t, s, pin, passphrase) {
				needles[which+" "+name] = n
			}
			return s
		}
		t.Fatal("no PIN slot")
		return nil
	}

	const label, wrongPIN = "for the bicycle of Ann", "4 Kraniche 1971"
	pins, passphrases := []string{"4 Kraniche 1917", "402917 Reiher"}, []string{"Vierzehn Kähne am Kai", "Drei Ochsen im Stall"}
	code, printed := slot.NewRecoveryCode()
	b, err := satchel.Create(ctx, cfg, satchel.Plan{Label: "Samantha", Keys: k, Slots: []slot.Secret{code}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	setPIN := func(b *satchel.Backup, i int) satchel.SlotInfo {
		t.Helper()
		info, err := unlock(t, b, code).SetPIN(ctx, satchel.PINPlan{PIN: pin(pins[i]), Passphrase: pin(passphrases[i]), Servers: names, Threshold: 2})
		if err != nil && !errors.Is(err, guard.ErrPending) {
			t.Fatal(err)
		}
		return info
	}
	setPIN(b, 0)
	look(cfg.Dir)
	save(t, b, item("labels", label), item("contacts/of-ann", strings.Repeat(label, 200)))
	old := secretsOf(t, cfg, "first", pins[0], passphrases[0])
	second := newDevice(t, cfg)
	_, _, err = openPIN(t, second, wrongPIN, passphrases[0])
	isErr(t, err, guard.ErrWrongPIN, satchel.CodeWrongSecret)
	look(cfg.Dir)
	o, _, err := openPIN(t, second, pins[0], passphrases[0])
	if err != nil {
		t.Fatal(err)
	}
	b2, _, err := o.Restore(ctx, second, satchel.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer b2.Close()
	look(second.Dir)
	// One key server misses the end of the change, which is logged, and is told later.
	network.unconfirmed.Store(&names[2])
	info := setPIN(b2, 1)
	look(second.Dir)
	network.unconfirmed.Store(nil)
	if _, err := b2.Sync(ctx); err != nil || b2.Status().PINPending {
		t.Fatalf("%v, %+v", err, b2.Status())
	}
	secretsOf(t, second, "second", pins[1], passphrases[1])
	third := newDevice(t, cfg)
	_, _, err = openPIN(t, third, pins[1], passphrases[0])
	isErr(t, err, guard.ErrPassphrase, satchel.CodeWrongSecret)
	if o, _, err = openPIN(t, third, pins[1], passphrases[1]); err != nil {
		t.Fatal(err)
	}
	b3, _, err := o.Restore(ctx, third, satchel.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer b3.Close()
	save(t, b3, item("labels", label+"!"))
	look(cfg.Dir, second.Dir, third.Dir)
	if err := unlock(t, b3, code).RemoveSlot(ctx, info.ID); err != nil {
		t.Fatal(err)
	}
	look(third.Dir)
	for _, c := range cloud.Sent() {
		h.add("brought to the place", append([]byte(c.Name+"\n"), c.Data...))
	}

	file := string(keysOf(t, cloud.Inner, code).KeyFile().Open())
	_, backupKey, _ := strings.Cut(file, "satchel-backup-key: ")
	_, identity, _ := strings.Cut(file, "AGE-SECRET-KEY")
	maps.Copy(needles, map[string][]byte{
		"words": words.Sentence().Open(), "entropy": entropy, "seed": seed.Open(), "xprv": private.XPrv().Open(),
		"label": []byte(label), "item name": []byte("contacts/of-ann"), "wrong PIN": []byte(wrongPIN), "recovery code": printed.Open(),
		"first PIN": []byte(pins[0]), "second PIN": []byte(pins[1]), "first passphrase": []byte(passphrases[0]), "second passphrase": []byte(passphrases[1]),
		"backup key": fromHex(backupKey[:64]), "payload identity": []byte(identity),
	})
	needles = written(t, needles)
	for name, n := range needles {
		for _, where := range h.has(n) {
			t.Errorf("%s: %s", where, name)
		}
	}

	// The search finds what is there, in every place that is searched, and would find
	// each of the needles.
	access := ed25519.NewKeyFromSeed(old.Guardians[0].Access[:]).Public().(ed25519.PublicKey)
	account := protocol.AccountOf(access)
	hash := old.Hash()
	for what, c := range map[string]struct {
		needle []byte
		where  string
	}{
		"an access key on the wire":  {access, "sent to a key server"},
		"a slot hash on the wire":    {hash[:], "sent to a key server"},
		"a public key from a server": {[]byte(protocol.ContentType), "came from a key server"},
		"an account in a database":   {account[:], "stored: " + names[0]},
		"the slot in the place":      {old.Commitment[:], "brought to the place"},
		"the folder in the place":    {[]byte("BitcoinWalletBackup-Samantha"), "brought to the place"},
		"a counter":                  {[]byte("satchel_keyserver_answers_total{op=\"evaluate\",code=\"0\""), "exported: " + names[0]},
		"a line of the devices' log": {[]byte("the key servers do not know all of the new PIN"), "log of the devices"},
		"the device's own record":    {[]byte("satchel"), "on a device: " + third.Dir},
	} {
		where := h.has(c.needle)
		if what == "the slot in the place" {
			where = h.has([]byte(base64.StdEncoding.EncodeToString(old.Bytes())[:48])) // The first line of its stanza.
		}
		if !slices.ContainsFunc(where, func(w string) bool { return strings.HasPrefix(w, c.where) }) {
			t.Errorf("the search does not find %s: only in %q", what, where)
		}
	}
	for name, n := range needles {
		planted := &heap{}
		planted.add("planted", slices.Concat([]byte{1, 2, 3}, n, []byte{4}))
		if len(planted.has(n)) != 1 {
			t.Errorf("the search does not find %s", name)
		}
	}
	if got := hex.EncodeToString(needles["first unlock secret"]); len(got) != 64 {
		t.Errorf("the unlock secret is %s", got)
	}
}
