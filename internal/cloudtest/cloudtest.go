// Package cloudtest holds the tests of stores that are clouds: each fault of the fake
// cloud at each request of each method, other accounts, dead grants, full and busy
// clouds, and uploads in parts; and the life of a wallet in any store. It stands beside
// storetest, which tests what all stores have in common.
//
//	func TestCloud(t *testing.T) {
//		cloudtest.Run(t, func(t *testing.T, c *fakecloud.Cloud, in *cloudtest.SignIn, a *fakecloud.Account) store.Store { … })
//	}
package cloudtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store"
)

// Open returns a store of an account, which is its owner, signed in by in, over
// c.Transport. Objects of more than Part bytes must go in parts of Part bytes.
type Open func(t *testing.T, c *fakecloud.Cloud, in *SignIn, a *fakecloud.Account) store.Store

// Part is what one request of an upload in parts carries in these tests.
const Part = 16 << 10

// SignIn is a sign-in at the fake cloud. It is a web.Tokens.
type SignIn struct {
	cloud *fakecloud.Cloud

	mu      sync.Mutex
	account *fakecloud.Account // nil: the grant is dead; guarded by mu
	token   string             // guarded by mu
	renewed int                // guarded by mu
	given   func(token string) // guarded by mu
	scopes  []string           // guarded by mu
}

var _ web.Tokens = (*SignIn)(nil)

// NewSignIn returns the sign-in of an account.
func NewSignIn(c *fakecloud.Cloud, a *fakecloud.Account) *SignIn {
	return &SignIn{cloud: c, account: a}
}

// Token implements web.Tokens.
func (s *SignIn) Token(_ context.Context, stale string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == "" || stale == s.token {
		if stale != "" {
			s.renewed++
		}
		if s.account == nil {
			return "", store.ErrSignIn
		}
		if s.token = s.cloud.Token(s.account); s.scopes != nil {
			s.token = s.cloud.DriveToken(s.account, s.scopes...)
		}
		if s.given != nil {
			s.given(s.token)
		}
	}
	return s.token, nil
}

// Scoped makes the tokens from the next one on allow no more than scopes of Google Drive.
func (s *SignIn) Scoped(scopes ...string) *SignIn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scopes = scopes
	return s
}

// Given has f called with each new token from now on. It does nothing if s is nil.
func (s *SignIn) Given(f func(token string)) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = f
}

// As makes the tokens from the next one on be another account's; with nil there is none.
func (s *SignIn) As(a *fakecloud.Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account = a
}

// Renewed returns how often a token was refused and another one given.
func (s *SignIn) Renewed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewed
}

// Faults returns every fault.
func Faults() []fakecloud.Fault {
	return []fakecloud.Fault{
		fakecloud.Unauthorized, fakecloud.RateLimited, fakecloud.ServerError, fakecloud.Applied, fakecloud.Cut, fakecloud.CutApplied,
		fakecloud.CutAnswer, fakecloud.Hang, fakecloud.Full, fakecloud.Torn, fakecloud.HalfAnswer, fakecloud.Page,
	}
}

// passes are the faults after which the same call succeeds, if they strike once.
var passes = []fakecloud.Fault{
	fakecloud.Unauthorized, fakecloud.RateLimited, fakecloud.ServerError, fakecloud.Applied, fakecloud.Cut, fakecloud.CutApplied,
	fakecloud.CutAnswer, fakecloud.Hang, fakecloud.Torn,
}

// Run tests the stores that open returns.
func Run(t *testing.T, open Open) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, open Open)
	}{
		{"Faults", faults},
		{"WrongAccount", wrongAccount},
		{"SwappedInFlight", swapped},
		{"DeadGrant", deadGrant},
		{"Expired", expired},
		{"Busy", busy},
		{"Full", full},
		{"Resumed", resumed},
		{"UploadsForgotten", forgotten},
		{"Lag", lag},
		{"Journey", journey},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open) })
	}
}

// scene is a cloud with two accounts, of which one has objects.
type scene struct {
	cloud    *fakecloud.Cloud
	ann, bob *fakecloud.Account
	in       *SignIn
	store    store.Store
	old      store.Object // a/old, as listed
}

var (
	old   = []byte("the old object")
	large = bytes.Repeat([]byte("0123456789abcde\n"), (2*Part+Part/2)/16)
)

func newScene(t *testing.T, open Open) *scene {
	t.Helper()
	s := &scene{cloud: fakecloud.New()}
	s.cloud.RetryAfter, s.cloud.PartUnit = 3, Part
	s.ann, s.bob = s.cloud.AddAccount("1001", "ann@example.org"), s.cloud.AddAccount("1002", "bob@example.org")
	for _, name := range []string{"a/old", "a/b/other", "c"} {
		if err := s.fresh(t, open, s.ann).Put(t.Context(), name, old); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.fresh(t, open, s.ann).List(t.Context(), "a/old")
	if err != nil || len(list) != 1 {
		t.Fatalf("got %v, %v, want one object", list, err)
	}
	s.old = list[0]
	s.in = NewSignIn(s.cloud, s.ann)
	s.store = open(t, s.cloud, s.in, s.ann)
	return s
}

// fresh returns a store that knows nothing of what was done before.
func (s *scene) fresh(t *testing.T, open Open, a *fakecloud.Account) store.Store {
	return open(t, s.cloud, NewSignIn(s.cloud, a), a)
}

// total returns how many requests there were.
func (s *scene) total() int {
	n := 0
	for _, k := range s.cloud.Counts() {
		n += k
	}
	return n
}

// call is one call of a store, and what must be true if it says yes.
type call struct {
	name string
	do   func(t *testing.T, s store.Store) error
	// yes checks in a store without faults, after the call said so.
	yes func(t *testing.T, s store.Store)
}

func calls() []call {
	put := func(name string, data []byte) call {
		return call{
			do: func(t *testing.T, s store.Store) error { return s.Put(t.Context(), name, data) },
			yes: func(t *testing.T, s store.Store) {
				t.Helper()
				if got, err := s.Get(t.Context(), name, store.Sum(data), 2<<20); err != nil || !bytes.Equal(got, data) {
					t.Errorf("Put said yes, and then %d bytes, %v", len(got), err)
				}
				list, err := s.List(t.Context(), name)
				if err != nil || len(list) != 1 || list[0].Size != int64(len(data)) {
					t.Errorf("Put said yes, and then it is listed as %v, %v", list, err)
				}
			},
		}
	}
	named := func(name string, c call) call { c.name = name; return c }
	return []call{
		named("put", put("a/new", []byte("the new object"))),
		named("put again", put("a/old", old)),
		named("put empty", put("d/e/f", nil)),
		named("put large", put("a/large", large)),
		{
			name: "get",
			do: func(t *testing.T, s store.Store) error {
				got, err := s.Get(t.Context(), "a/old", store.Sum(old), 100)
				if err == nil && !bytes.Equal(got, old) {
					t.Errorf("Get said yes and returned %q", got)
				}
				return err
			},
		},
		{
			name: "get without hash",
			do: func(t *testing.T, s store.Store) error {
				got, err := s.Get(t.Context(), "a/old", "", 100)
				if err == nil && !bytes.Equal(got, old) {
					t.Errorf("Get said yes and returned %q", got)
				}
				return err
			},
		},
		{
			name: "list",
			do: func(t *testing.T, s store.Store) error {
				list, err := s.List(t.Context(), "a/")
				if err == nil && len(list) != 2 {
					t.Errorf("List said yes and returned %v", list)
				}
				return err
			},
		},
		{
			name: "delete",
			do: func(t *testing.T, s store.Store) error {
				list, err := s.List(t.Context(), "c")
				if err != nil {
					return err
				}
				if len(list) != 1 {
					t.Fatalf("List said yes and returned %v", list)
				}
				return s.Delete(t.Context(), list[0])
			},
			yes: func(t *testing.T, s store.Store) {
				t.Helper()
				if list, err := s.List(t.Context(), ""); err != nil || len(list) != 2 {
					t.Errorf("Delete said yes, and then %v, %v", list, err)
				}
			},
		},
	}
}

// faults strikes each request of each call with each fault, once and from then on. R1, R2,
// R9, R14.
func faults(t *testing.T, open Open) {
	for _, c := range calls() {
		n := 0 // requests without a fault
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t, open)
			before := s.total()
			if err := c.do(t, s.store); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			n = s.total() - before
			if c.yes != nil {
				c.yes(t, s.fresh(t, open, s.ann))
			}
		})
		for _, fault := range Faults() {
			for at := range n {
				for _, always := range []bool{false, true} {
					synctest.Test(t, func(t *testing.T) { strike(t, open, c, fault, at, n, always) })
				}
			}
		}
	}
}

// strike makes the call with a fault at one of its n requests.
func strike(t *testing.T, open Open, c call, fault fakecloud.Fault, at, n int, always bool) {
	s := newScene(t, open)
	var mu sync.Mutex // Some stores make requests at once.
	seen, struck := 0, false
	s.cloud.Fault = func(string, *http.Request) fakecloud.Fault {
		mu.Lock()
		defer mu.Unlock()
		seen++
		if seen-1 == at || always && seen-1 > at {
			struck = true
			return fault
		}
		return fakecloud.None
	}
	what := fmt.Sprintf("%s, %s at request %d of %d, always %v", c.name, fault, at+1, n, always)
	err := c.do(t, s.store)
	s.cloud.Fault = nil
	if !struck {
		t.Errorf("%s: it did not strike", what)
	}
	if most := n + 10; seen > most {
		t.Errorf("%s: %d requests, want at most %d", what, seen, most)
	}
	if err == nil && c.yes != nil {
		c.yes(t, s.fresh(t, open, s.ann))
	}
	if t.Failed() {
		t.Fatal(what)
	}
	if !always && slices.Contains(passes, fault) && err != nil {
		t.Errorf("%s: got %v, want success", what, err)
	}
	if err == nil {
		return
	}
	var want error
	switch fault {
	case fakecloud.Unauthorized:
		want = store.ErrSignIn
	case fakecloud.Full:
		want = store.ErrFull
	default:
		want = store.ErrUnreachable
	}
	if !errors.Is(err, want) || errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrExist) || errors.Is(err, store.ErrDamaged) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
	if c.name == "delete" {
		return // It may be done.
	}
	// Nothing that was there suffered, and it can be done again.
	if got, err := s.fresh(t, open, s.ann).Get(t.Context(), "c", store.Sum(old), 100); err != nil {
		t.Errorf("%s: then another object is %q, %v", what, got, err)
	}
	time.Sleep(time.Hour)
	if err := c.do(t, s.store); err != nil {
		t.Errorf("%s: and again without it: %v", what, err)
	} else if c.yes != nil {
		c.yes(t, s.fresh(t, open, s.ann))
	}
}

// each makes every call that needs nothing of the others, and hands on what it said.
func (s *scene) each(t *testing.T, check func(what string, err error)) {
	t.Helper()
	ctx := t.Context()
	check("Put", s.store.Put(ctx, "a/new", []byte("the new object")))
	check("Put of a large object", s.store.Put(ctx, "a/large", large))
	_, err := s.store.Get(ctx, "a/old", "", 100)
	check("Get", err)
	_, err = s.store.Get(ctx, "absent", "", 100)
	check("Get of what is absent", err)
	_, err = s.store.List(ctx, "")
	check("List", err)
	check("Delete", s.store.Delete(ctx, s.old))
}

// R10: another account's token is not used.
func wrongAccount(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, open)
		s.in.As(s.bob)
		s.each(t, func(what string, err error) {
			if !errors.Is(err, store.ErrWrongAccount) {
				t.Errorf("%s: got %v, want ErrWrongAccount", what, err)
			}
		})
		for _, a := range []*fakecloud.Account{s.ann, s.bob} {
			want := map[*fakecloud.Account]int{s.ann: 3}[a]
			if list, err := s.fresh(t, open, a).List(t.Context(), ""); err != nil || len(list) != want {
				t.Errorf("%s has %v, %v, want %d", a.Email, list, err, want)
			}
		}
	})
}

// R10: it does not matter when the other account is signed in. Requests that have their
// token, or need none, may still be answered; nothing reaches the other account.
func swapped(t *testing.T, open Open) {
	for at := 1; ; at++ {
		reached := true
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t, open)
			seen := 0
			s.cloud.Fault = func(string, *http.Request) fakecloud.Fault {
				if seen++; seen == at {
					s.in.As(s.bob)
					s.cloud.Expire()
				}
				return fakecloud.None
			}
			err := s.store.Put(t.Context(), "a/large", large)
			reached = seen >= at
			s.cloud.Fault = nil
			if err == nil {
				if got, err := s.fresh(t, open, s.ann).Get(t.Context(), "a/large", store.Sum(large), 2<<20); err != nil {
					t.Errorf("at request %d: Put said yes, and then %d bytes, %v", at, len(got), err)
				}
			} else if !errors.Is(err, store.ErrWrongAccount) {
				t.Errorf("at request %d: got %v, want ErrWrongAccount", at, err)
			}
			if list, err := s.fresh(t, open, s.bob).List(t.Context(), ""); err != nil || len(list) != 0 {
				t.Errorf("at request %d: the other account has %v, %v", at, list, err)
			}
		})
		if !reached || t.Failed() {
			return
		}
	}
}

// R9: a grant that was taken back is sign-in needed, at once.
func deadGrant(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, open)
		if _, err := s.store.List(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		s.cloud.Revoke(s.ann)
		s.in.As(nil)
		start, before := time.Now(), s.total()
		s.each(t, func(what string, err error) {
			if !errors.Is(err, store.ErrSignIn) {
				t.Errorf("%s: got %v, want ErrSignIn", what, err)
			}
		})
		if n := s.total() - before; n > 6 {
			t.Errorf("%d requests for six calls", n)
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("took %v", took)
		}
	})
}

// R9: a token that ran out is renewed once.
func expired(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, open)
		for i := range 3 {
			if err := s.store.Put(t.Context(), fmt.Sprint("x/", i), old); err != nil {
				t.Errorf("got %v", err)
			}
			s.cloud.Expire()
		}
		if n := s.in.Renewed(); n != 2 {
			t.Errorf("renewed %d times, want 2", n)
		}
	})
}

// R9: a cloud that asks for a pause gets it.
func busy(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, open)
		s.cloud.RetryAfter = 900
		s.cloud.Fault = func(string, *http.Request) fakecloud.Fault { return fakecloud.RateLimited }
		before := s.total()
		for range 3 {
			s.each(t, func(what string, err error) {
				if later, ok := errors.AsType[*web.LaterError](err); !ok || later.After <= 0 || !errors.Is(err, store.ErrUnreachable) {
					t.Errorf("%s: got %v, want a LaterError", what, err)
				}
			})
		}
		if n := s.total() - before; n > 1 {
			t.Errorf("%d requests in a quarter of an hour in which none is wanted", n)
		}
		s.cloud.Fault = nil
		time.Sleep(time.Hour)
		if err := s.store.Put(t.Context(), "a/new", old); err != nil {
			t.Errorf("after the pause: %v", err)
		}
	})
}

// R14: full is said, and is over when there is room.
func full(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, open)
		s.ann.Quota = 100
		for name, data := range map[string][]byte{"small": make([]byte, 90), "large": large} {
			if err := s.store.Put(t.Context(), name, data); !errors.Is(err, store.ErrFull) {
				t.Errorf("%s: got %v, want ErrFull", name, err)
			}
			if _, err := s.store.Get(t.Context(), name, "", 100); !errors.Is(err, store.ErrNotExist) {
				t.Errorf("%s: got %v, want ErrNotExist", name, err)
			}
		}
		s.ann.Quota = 1 << 20
		if err := s.store.Put(t.Context(), "large", large); err != nil {
			t.Errorf("with room: %v", err)
		}
	})
}

// An upload that broke off does not start over.
func resumed(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, open)
		sent, broken := int64(0), true
		s.cloud.Fault = func(_ string, r *http.Request) fakecloud.Fault {
			if r.ContentLength < Part/2 {
				return fakecloud.None
			}
			if sent += r.ContentLength; broken && sent > 2*Part {
				return fakecloud.Cut
			}
			return fakecloud.None
		}
		if err := s.store.Put(t.Context(), "a/large", large); !errors.Is(err, store.ErrUnreachable) {
			t.Fatalf("got %v, want ErrUnreachable", err)
		}
		sent, broken = 0, false
		if err := s.store.Put(t.Context(), "a/large", large); err != nil {
			t.Fatal(err)
		}
		if sent > Part {
			t.Errorf("sent %d bytes again, want at most %d", sent, Part)
		}
		if got, err := s.fresh(t, open, s.ann).Get(t.Context(), "a/large", store.Sum(large), 2<<20); err != nil {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	})
}

// An upload that the cloud forgot starts over.
func forgotten(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, open)
		sent := int64(0)
		s.cloud.Fault = func(_ string, r *http.Request) fakecloud.Fault {
			if r.ContentLength < Part/2 {
				return fakecloud.None
			}
			if sent += r.ContentLength; sent > 2*Part && sent < 3*Part {
				s.cloud.ForgetUploads(s.ann)
			}
			return fakecloud.None
		}
		if err := s.store.Put(t.Context(), "a/large", large); err != nil {
			t.Fatal(err)
		}
		if got, err := s.fresh(t, open, s.ann).Get(t.Context(), "a/large", store.Sum(large), 2<<20); err != nil {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	})
}

// R6: what a listing does not show yet can be had by its name, and is put only once.
func lag(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, open)
		s.cloud.Lag = 1
		for range 2 {
			if err := s.store.Put(t.Context(), "a/new", []byte("new")); err != nil {
				t.Fatal(err)
			}
			if got, err := s.store.Get(t.Context(), "a/new", "", 100); err != nil || string(got) != "new" {
				t.Errorf("got %q, %v", got, err)
			}
			if list, err := s.store.List(t.Context(), "a/"); err != nil || len(list) != 2 {
				t.Errorf("with lag: got %v, %v, want two", list, err)
			}
		}
		s.cloud.Lag = 0
		if list, err := s.store.List(t.Context(), "a/"); err != nil || len(list) != 3 {
			t.Errorf("got %v, %v, want three", list, err)
		}
	})
}
