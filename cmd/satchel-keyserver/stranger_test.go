package main

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/protocol"
)

// states are accounts as they can stand.
var states = []string{"unknown", "pending", "active", "erased"}

func (w *world) inStates(s *server) map[string]*account {
	w.Helper()
	pending, active, erased := w.account(), w.account().enrol(s.url, 10), w.account().enrol(s.url, 1)
	if err := errors.Join(pending.create(s.url, 1), erased.guess(s.url)); err != nil {
		w.Fatal(err)
	}
	w.later(time.Hour)
	erased.seq.Store(uint64(w.now().UnixMilli()))
	if err := erased.guess(s.url); code(err) != protocol.CodeErased {
		w.Fatal(err)
	}
	return map[string]*account{"unknown": w.account(), "pending": pending, "active": active, "erased": erased}
}

// forged is a request for an account, signed by another key than its own.
func (a *account) forged(p protocol.Payload) []byte {
	good := protocol.Sign(a.access, uint64(a.w.now().UnixMilli()), p)
	bad := protocol.Sign(newKey(), uint64(a.w.now().UnixMilli()), p)
	return append(good[:len(good)-protocol.SignatureSize], bad[len(bad)-protocol.SignatureSize:]...)
}

// Who has no access key of an account learns nothing about it: whatever is asked, the
// same bytes for one that is unknown, pending, active, erased.
func TestStranger(t *testing.T) {
	w := newWorld(t)
	s := w.serve()
	all := w.inStates(s)
	thief := newKey()
	key := protocol.Public(thief.Public().(ed25519.PublicKey))
	for _, p := range []protocol.Payload{
		protocol.Create{Blinded: blind("1").Blinded, Limit: 10},
		protocol.NewConfirm(thief, protocol.Account{}, key, 1, key, [32]byte{}),
		protocol.Evaluate{Attempt: protocol.Attempt{1}, Blinded: blind("1").Blinded},
		protocol.NewFinish(thief, protocol.Account{}, protocol.Attempt{1}, protocol.Nonce{}),
		protocol.AskStatus{},
		protocol.PutHead{Head: protocol.NewHead(thief, 1, 1, [16]byte{}, 0)},
		protocol.NewInstallEpoch(thief, 2, key),
		protocol.Delete{},
	} {
		var first string
		for _, state := range states {
			r, err := w.client.Post(s.url, "", bytes.NewReader(all[state].forged(p)))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r.Body)
			r.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			if want := []byte{protocol.Version, byte(protocol.CodeSignature)}; !bytes.Equal(b, want) || r.StatusCode != http.StatusOK {
				t.Errorf("%T, %s: got %d, %x, want %x", p, state, r.StatusCode, b, want)
			}
			r.Header.Del("Date")
			whole := fmt.Sprint(r.Proto, r.Status, r.Header, r.ContentLength, r.TransferEncoding, r.Trailer, b)
			if first == "" {
				first = whole
			}
			if whole != first {
				t.Errorf("%T, %s: got %s, want %s", p, state, whole, first)
			}
		}
	}
}

// timingEnv is how often TestStrangerTime asks about each account.
const timingEnv = "SATCHEL_TIMING"

// Nor does the time of the answer tell. That the measurement could see it is shown by
// one that it does see: a holder, who is told, of an account that is there and of one
// that is not.
func TestStrangerTime(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv(timingEnv))
	if err != nil {
		t.Skip("set " + timingEnv + " to how often each account is asked about to run this")
	}
	w := newWorld(t)
	s := w.serve()
	all := w.inStates(s)
	c, err := net.Dial("tcp", s.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	ask := func(body []byte) time.Duration {
		request := append(fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", protocol.Path, len(body)), body...)
		start := time.Now()
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(in, nil)
		took := time.Since(start)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		return took
	}
	bodies := map[string][]byte{}
	kinds := slices.Clone(states)
	for _, state := range states {
		bodies[state] = all[state].forged(protocol.Evaluate{Attempt: protocol.Attempt{1}, Blinded: blind("1").Blinded})
	}
	for _, state := range []string{"unknown", "active"} {
		kind := state + ", to its holder"
		bodies[kind], kinds = protocol.Sign(all[state].access, 1, protocol.AskStatus{}), append(kinds, kind)
	}
	took := map[string][]float64{}
	for i := range n + n/10 {
		for _, k := range rand.Perm(len(kinds)) { // So that whatever else the machine does falls on all alike.
			d := ask(bodies[kinds[k]])
			if i >= n/10 { // warm
				took[kinds[k]] = append(took[kinds[k]], float64(d)/1e3)
			}
		}
	}
	for _, kind := range kinds {
		t.Logf("%-24s %d times, median %.2f µs, p10 %.2f, p90 %.2f", kind, len(took[kind]), quantile(took[kind], 0.5), quantile(took[kind], 0.1), quantile(took[kind], 0.9))
	}
	check := func(a, b string, same bool) {
		t.Helper()
		z := mannWhitney(took[a], took[b])
		t.Logf("%s against %s: medians %+.2f µs, Mann-Whitney z = %+.2f", a, b, quantile(took[b], 0.5)-quantile(took[a], 0.5), z)
		// |z| above 4 comes by chance once in 16,000 times.
		if math.Abs(z) > 4 == same {
			t.Errorf("%s and %s: told apart: %v", a, b, same)
		}
	}
	for i, a := range states {
		for _, b := range states[i+1:] {
			check(a, b, true)
		}
	}
	check(kinds[4], kinds[5], false)
}

func quantile(list []float64, q float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[int(q*float64(len(list)-1))]
}

// mannWhitney returns how many standard deviations the sum of ranks of a is from what it
// is when a and b come from one distribution.
func mannWhitney(a, b []float64) float64 {
	type value struct {
		v   float64
		ofA bool
	}
	var all []value
	for _, v := range a {
		all = append(all, value{v, true})
	}
	for _, v := range b {
		all = append(all, value{v, false})
	}
	slices.SortFunc(all, func(x, y value) int { return cmp.Compare(x.v, y.v) })
	ranks := 0.0
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].v == all[i].v {
			j++
		}
		rank := float64(i+1+j) / 2 // Equal ones share theirs.
		for ; i < j; i++ {
			if all[i].ofA {
				ranks += rank
			}
		}
	}
	n, m := float64(len(a)), float64(len(b))
	u := ranks - n*(n+1)/2
	return (u - n*m/2) / math.Sqrt(n*m*(n+m+1)/12)
}
