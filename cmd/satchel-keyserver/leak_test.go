package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
	"golang.org/x/crypto/argon2"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/https"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
)

// tap is a proxy in front of a server, which keeps every byte that passes.
type tap struct {
	name string

	mu  sync.Mutex
	all bytes.Buffer
}

func (t *tap) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all.Write(b)
}

func (w *world) tap(s *server) *tap {
	w.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { l.Close() })
	t := &tap{name: "http://" + l.Addr().String()}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", s.addr())
			if err != nil {
				in.Close()
				continue
			}
			go func() { io.Copy(io.MultiWriter(out, t), in); out.Close() }()
			go func() { io.Copy(io.MultiWriter(in, t), out); in.Close() }()
		}
	}()
	return t
}

// After a whole life of a PIN at real servers, with wrong guesses, a change and a
// passphrase: neither the files of a server, its logs and metrics, nor anything that
// passed between it and the client holds the PIN, what follows from it, or what it opens.
func TestLeak(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var worlds []*world
	var servers []*server
	var taps []*tap
	var names []string
	for range 3 {
		one := newWorld(t)
		s := one.serve()
		tap := one.tap(s)
		worlds, servers, taps, names = append(worlds, one), append(servers, s), append(taps, tap), append(names, tap.name)
	}
	client := &guard.Client{Transport: &https.Transport{Client: w.client}, Trusted: func(string) bool { return true }, KDF: &guard.KDF{Passes: 1, Lanes: 1, Memory: 8 << 10}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	owner, head := newKey(), newKey()
	public := func(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }
	fileKey := secret.Random(guard.FileKeySize)
	pins := []string{"4917-quartz-orchid", "258013-velvet-anchor"} // so long that chance does not make them
	passphrase := "correct horse battery"
	secrets := map[string][]byte{"file key": fileKey.Open(), "passphrase": []byte(passphrase), "owner's key": owner.Seed(), "head key": head.Seed()}
	for i, p := range pins {
		secrets[fmt.Sprint("PIN ", i)] = []byte(p)
	}
	var old *guard.Slot
	for i, pin := range pins {
		var plan *guard.Plan
		var err error
		if old == nil {
			plan, err = guard.NewPlan(guard.ID{7}, 2, names)
		} else {
			plan, err = client.Replace(ctx, old, guard.Owner(owner), 2, names)
		}
		must(err)
		e, err := client.Enrol(ctx, plan, secret.FromString(pin), secret.FromString(passphrase))
		must(err)
		slot, err := e.Wrap(fileKey)
		must(err)
		s, err := e.Settlement(public(owner), 1, public(head))
		must(err)
		_, err = client.Settle(ctx, s)
		must(err)
		for _, typed := range []string{"wrong", pin} {
			r, err := client.Recover(slot, secret.FromString(typed))
			must(err)
			o, err := r.Open(ctx)
			if typed != pin {
				if err == nil {
					t.Fatal("a wrong PIN opens")
				}
				continue
			}
			must(err)
			_, err = o.FileKey(secret.FromString(passphrase))
			must(err)
			_, err = o.Finish(ctx)
			must(err)
		}
		must(client.PutHead(ctx, slot, protocol.NewHead(head, 1, uint64(i+1), [16]byte{1}, 0), nil))
		for what, b := range derived(t, w, slot, pin, client.Transport) {
			secrets[fmt.Sprintf("%s of PIN %d", what, i)] = b
		}
		old = slot
	}

	seen := map[string][]byte{}
	for i, s := range servers {
		_, metrics := s.get("/metrics")
		seen[fmt.Sprintf("metrics %d", i)] = []byte(metrics)
		read := func(when string) {
			must(filepath.WalkDir(worlds[i].data(), func(path string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					var b []byte
					if b, err = os.ReadFile(path); err == nil {
						seen[fmt.Sprintf("%s %d %s", d.Name(), i, when)] = b
					}
				}
				return err
			}))
		}
		read("while it runs") // with the log of the database
		s.stop()
		read("afterwards")
		seen[fmt.Sprintf("log %d", i)] = []byte(s.log.String())
		taps[i].mu.Lock()
		seen[fmt.Sprintf("wire %d", i)] = bytes.Clone(taps[i].all.Bytes())
		taps[i].mu.Unlock()
	}
	contains := func(b, s []byte) bool {
		for _, form := range []string{string(s), hex.EncodeToString(s), strings.ToUpper(hex.EncodeToString(s))} {
			if bytes.Contains(b, []byte(form)) {
				return true
			}
		}
		// In a base64 text it may begin at any of three places; what its neighbours have a
		// part in is left out.
		for shift := range 3 {
			for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				text := e.EncodeToString(append(make([]byte, shift), s...))
				if core := text[(shift*8+5)/6 : len(text)-1]; len(core) > 8 && bytes.Contains(b, []byte(core)) {
					return true
				}
			}
		}
		return false
	}
	for where, b := range seen {
		for what, s := range secrets {
			if contains(b, s) {
				t.Errorf("%s holds the %s", where, what)
			}
		}
	}
	// That it can be seen: the wire holds what it must, and the records were read.
	for i := range servers {
		hash := old.Hash()
		if !contains(seen[fmt.Sprintf("wire %d", i)], hash[:]) {
			t.Errorf("wire %d was not recorded", i)
		}
		if len(seen[fmt.Sprintf("records.db %d afterwards", i)]) == 0 || len(seen[fmt.Sprintf("records.db-wal %d while it runs", i)]) == 0 || len(seen[fmt.Sprintf("log %d", i)]) == 0 {
			t.Errorf("the files of server %d were not read", i)
		}
	}
	t.Logf("%d secrets in no form in %d places", len(secrets), len(seen))
}

// derived computes what follows from a PIN, as docs/protocol.md says and without the
// client's code: it spends a guess at each guardian for it.
func derived(t *testing.T, w *world, slot *guard.Slot, pin string, transport guard.Transport) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	u := argon2.IDKey([]byte(pin), slot.PIN.Salt[:], uint32(slot.PIN.Passes), slot.PIN.Memory, slot.PIN.Lanes, 32)
	input := append([]byte("satchel/v1/pin-input\n"), u...)
	all["Argon2 output"], all["salt"] = u, slot.PIN.Salt[:]
	var shares []secretsharing.Share
	for i := range slot.Guardians {
		g := &slot.Guardians[i]
		access := ed25519.NewKeyFromSeed(g.Access[:])
		id := protocol.AccountOf(access.Public().(ed25519.PublicKey))
		b, err := protocol.Blind(input)
		if err != nil {
			t.Fatal(err)
		}
		var attempt protocol.Attempt
		rand.Read(attempt[:])
		var e protocol.Evaluated
		reply, err := transport.Send(context.Background(), g.Server, protocol.Sign(access, uint64(w.now().UnixMilli())+1000, protocol.Evaluate{Attempt: attempt, Blinded: b.Blinded, Slot: slot.Hash()}))
		if err == nil {
			err = protocol.ParseReply(reply, &e)
		}
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.Finalize(e.Element)
		if err != nil {
			t.Fatal(err)
		}
		share := group.Ristretto255.NewScalar()
		if err := share.UnmarshalBinary(g.Share[:]); err != nil {
			t.Fatal(err)
		}
		share.Sub(share, group.Ristretto255.HashToScalar(y, append([]byte("satchel/v1/share-mask\n"), id[:]...)))
		bare, err := share.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		shares = append(shares, secretsharing.Share{ID: group.Ristretto255.NewScalar().SetUint64(uint64(i + 1)), Value: share})
		at := fmt.Sprint(" at ", i+1)
		all["VOPRF output"+at], all["share"+at], all["masked share"+at], all["access seed"+at] = y, bare, g.Share[:], g.Access[:]
	}
	element, err := group.Ristretto255.HashToElement(input, []byte("HashToGroup-OPRFV1-\x01-ristretto255-SHA512")).MarshalBinaryCompress()
	if err != nil {
		t.Fatal(err)
	}
	all["element of the input"] = element
	value, err := secretsharing.Recover(1, shares)
	if err != nil {
		t.Fatal(err)
	}
	s, err := value.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	all["unlock secret"] = s
	// It is the right one: the slot commits to it.
	public := slot.Bytes()
	public = public[:len(public)-len(slot.Wrapped)-len(slot.Second)-len(slot.Commitment)]
	salt := sha256.Sum256(append([]byte("satchel/v1/pin-public\n"), public...))
	if c, err := hkdf.Key(sha256.New, s, salt[:], "satchel/v1/pin-commitment", 32); err != nil || !bytes.Equal(c, slot.Commitment[:]) {
		t.Fatal("the secret that was put together here is another one", err)
	}
	for i := range slot.Guardians {
		access := ed25519.NewKeyFromSeed(slot.Guardians[i].Access[:])
		id := protocol.AccountOf(access.Public().(ed25519.PublicKey))
		if all[fmt.Sprint("proof seed at ", i+1)], err = hkdf.Key(sha256.New, s, nil, "satchel/v1/proof-key\n"+string(id[:]), 32); err != nil {
			t.Fatal(err)
		}
	}
	return all
}
