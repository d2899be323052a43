package onepassword_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/onepassword"
	"github.com/satchel-backup/satchel/store/storetest"
)

// open returns a store whose op is the stand-in, with variables such as
// "STANDIN_FAULT=hang".
func open(t *testing.T, dir, address, account string, vars ...string) *onepassword.Store {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := onepassword.New(address, onepassword.Config{
		Program: self, Account: account, Env: append(os.Environ(), append(vars, standinDir+"="+dir, quickEnd)...),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s store.Store, name, data string) {
	t.Helper()
	if err := s.Put(t.Context(), name, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, t.TempDir(), "Private/My Backups", "") })
}

// everyCall checks what each method says, and that no error is taken for absence.
func everyCall(t *testing.T, s store.Store, want error, text string) {
	t.Helper()
	ctx := t.Context()
	for what, err := range map[string]error{
		"Put":    s.Put(ctx, "a/b", []byte("four")),
		"Get":    func() error { _, err := s.Get(ctx, "a/b", "", 9); return err }(),
		"List":   func() error { _, err := s.List(ctx, ""); return err }(),
		"Delete": s.Delete(ctx, store.Object{Name: "a/b", ID: "id7"}),
	} {
		if !errors.Is(err, want) || errors.Is(err, store.ErrNotExist) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v, want %v and %q", what, err, want, text)
		}
	}
}

// R5.
func TestErrors(t *testing.T) {
	everyCall(t, open(t, t.TempDir(), "Private", "", standinFault+"=signed out"), store.ErrSignIn, "")
	everyCall(t, open(t, t.TempDir(), "Private", "X/A", standinFault+"=signed out"), store.ErrSignIn, "")
	everyCall(t, open(t, t.TempDir(), "Elsewhere", ""), store.ErrUnreachable, "no such vault")
	everyCall(t, open(t, t.TempDir(), "--help", ""), store.ErrUnreachable, "no such vault")
	everyCall(t, open(t, t.TempDir(), "Private", "", standinFault+"=refuse@item list"), store.ErrUnreachable, "could not")
	s, err := onepassword.New("Private", onepassword.Config{Program: "no-such-op"})
	if err != nil {
		t.Fatal(err)
	}
	everyCall(t, s, store.ErrUnreachable, "not installed")
	if _, err := s.Account(t.Context()); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}

// R10: nothing is written into another account, also when it changes in mid-flight.
func TestWrongAccount(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	mine := open(t, dir, "Private", "X/A")
	put(t, mine, "a", "mine")
	list, err := mine.List(ctx, "")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	for _, user := range []string{"Y/A", "X/B", "x/a"} {
		theirs := open(t, dir, "Private", "X/A", standinUser+"="+user)
		if err := theirs.Put(ctx, "b", nil); !errors.Is(err, store.ErrWrongAccount) {
			t.Errorf("Put: got %v, want ErrWrongAccount", err)
		}
		if err := theirs.Put(ctx, "a", []byte("mine")); !errors.Is(err, store.ErrWrongAccount) {
			t.Errorf("Put again: got %v, want ErrWrongAccount", err)
		}
		if err := theirs.Delete(ctx, list[0]); !errors.Is(err, store.ErrWrongAccount) {
			t.Errorf("Delete: got %v, want ErrWrongAccount", err)
		}
		// R2: that the other account has none says nothing.
		if _, err := theirs.Get(ctx, "b", "", 9); !errors.Is(err, store.ErrWrongAccount) {
			t.Errorf("Get: got %v, want ErrWrongAccount", err)
		}
		if _, err := theirs.List(ctx, "b"); !errors.Is(err, store.ErrWrongAccount) {
			t.Errorf("List: got %v, want ErrWrongAccount", err)
		}
	}
	if now, err := mine.List(ctx, ""); err != nil || len(now) != 1 {
		t.Errorf("got %v, %v, want the one object", now, err)
	}
	a, err := mine.Account(ctx)
	if diff := cmp.Diff(onepassword.Account{ID: "X/A", Name: "ann@example.org"}, a); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// The app lets whoami know nothing until another command has made it ask.
func TestShyAccount(t *testing.T) {
	s := open(t, t.TempDir(), "Private", "X/A", standinFault+"=shy")
	put(t, s, "a", "x")
}

// R9: who said no is not asked again: each run that needs the account may be a
// question on the screen.
func TestSignedOut(t *testing.T) {
	for account, want := range map[string]string{"": "item whoami", "X/A": "whoami vault"} {
		log := filepath.Join(t.TempDir(), "log")
		s := open(t, t.TempDir(), "Private", account, standinFault+"=signed out", standinLog+"="+log)
		if err := s.Put(t.Context(), "a", nil); !errors.Is(err, store.ErrSignIn) {
			t.Errorf("got %v, want ErrSignIn", err)
		}
		data, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		var verbs []string
		for line := range strings.Lines(string(data)) {
			verbs = append(verbs, strings.Fields(line)[2])
		}
		if got := strings.Join(verbs, " "); got != want {
			t.Errorf("account %q: ran %s, want %s", account, got, want)
		}
	}
}

// R2, R18.
func TestGarbage(t *testing.T) {
	dir := t.TempDir()
	put(t, open(t, dir, "Private", ""), "a", "some content")
	for _, fault := range []string{"garbage", "nothing", "half", "huge"} {
		s := open(t, dir, "Private", "", standinFault+"="+fault+"@item list")
		for what, err := range map[string]error{
			"Put":  s.Put(t.Context(), "new", nil),
			"Get":  func() error { _, err := s.Get(t.Context(), "a", "", 9); return err }(),
			"List": func() error { _, err := s.List(t.Context(), ""); return err }(),
		} {
			if err == nil || errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrExist) {
				t.Errorf("%s, %s: got %v", fault, what, err)
			}
		}
	}
	for _, fault := range []string{"garbage", "nothing", "huge"} {
		s := open(t, dir, "Private", "X/A", standinFault+"="+fault+"@whoami")
		if err := s.Put(t.Context(), "new", nil); err == nil {
			t.Errorf("%s: no error", fault)
		}
	}
	for _, fault := range []string{"garbage", "nothing", "huge", "short"} {
		s := open(t, dir, "Private", "", standinFault+"="+fault+"@document get")
		for _, want := range []store.Hash{"", store.Sum([]byte("some content"))} {
			// R5: the document itself has the bytes that its title says.
			if got, err := s.Get(t.Context(), "a", want, 99); !errors.Is(err, store.ErrUnreachable) || errors.Is(err, store.ErrDamaged) {
				t.Errorf("%s: got %q, %v, want ErrUnreachable", fault, got, err)
			}
		}
	}
	// One that has other bytes indeed is damaged, unless that cannot be asked.
	standin{dir, ""}.add("short (9 bytes)", nil, []byte("torn"))
	standin{dir, ""}.add("long (4 bytes)", nil, []byte("too long"))
	for _, name := range []string{"short", "long"} {
		if got, err := open(t, dir, "Private", "").Get(t.Context(), name, "", 99); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("%s: got %q, %v, want ErrDamaged", name, got, err)
		}
		for _, fault := range []string{"garbage", "nothing", "huge", "refuse"} {
			s := open(t, dir, "Private", "", standinFault+"="+fault+"@item get")
			if got, err := s.Get(t.Context(), name, "", 99); !errors.Is(err, store.ErrUnreachable) || errors.Is(err, store.ErrDamaged) {
				t.Errorf("%s, %s: got %q, %v, want ErrUnreachable", name, fault, got, err)
			}
		}
	}
}

// R1, R7.
func TestLies(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := open(t, dir, "Private", "", standinFault+"=drop@document create")
	put(t, s, "a", "content")
	if _, err := s.Get(ctx, "a", store.Sum([]byte("content")), 9); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	s = open(t, dir, "Private", "", standinFault+"=applied@document create")
	if err := s.Put(ctx, "a", []byte("content")); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
	put(t, s, "a", "content") // The retry makes no second one.
	if list, err := s.List(ctx, ""); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v, want one", list, err)
	}
}

// R7: titles repeat; the right one is found, and each is deleted by its id.
func TestTwins(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := open(t, dir, "Private/B", "")
	put(t, s, "a", "good")
	standin{dir, ""}.add("B/a (4 bytes)", nil, []byte("torn"))
	standin{dir, ""}.add("B/a (9 bytes)", nil, []byte("torn"))
	for _, data := range []string{"good", "torn"} {
		if got, err := s.Get(ctx, "a", store.Sum([]byte(data)), 99); string(got) != data {
			t.Errorf("got %q, %v, want %q", got, err, data)
		}
	}
	if _, err := s.Get(ctx, "a", store.Sum([]byte("other")), 99); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
	list, err := s.List(ctx, "a")
	if err != nil || len(list) != 3 {
		t.Fatalf("got %v, %v, want three", list, err)
	}
	if err := s.Delete(ctx, list[0]); err != nil {
		t.Error(err)
	}
	if got, err := s.Get(ctx, "a", "", 99); string(got) != "torn" {
		t.Errorf("got %q, %v, want the other", got, err)
	}
}

// Documents that no Put made are not seen, and not touched.
func TestOthersDocuments(t *testing.T) {
	dir := t.TempDir()
	for _, title := range []string{
		"Passport", "Passport (scan)", "B/x", "B/x (1 byte)", "B/x (01 bytes)", "B/x(1 bytes)", "B/ (1 bytes)", "B/../x (1 bytes)",
		"B/x (99999999999 bytes)", "x (1 bytes)", "Bx (1 bytes)", "B/x (1 bytes) ", "B/x (-1 bytes)", "B/x\n (1 bytes)", "B/" + strings.Repeat("n", 600) + " (1 bytes)",
	} {
		standin{dir, ""}.add(title, nil, []byte("x"))
	}
	s := open(t, dir, "Private/B", "")
	if list, err := s.List(t.Context(), ""); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v, want none", list, err)
	}
	put(t, s, "x (2 bytes)", "x") // A name may look like a title.
	list, err := s.List(t.Context(), "")
	want := []store.Object{{Name: "x (2 bytes)", Size: 1, ID: "id16", Modified: time.Date(2026, 11, 26, 12, 0, 16, 0, time.UTC)}}
	if diff := cmp.Diff(want, list); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestHang(t *testing.T) {
	s := open(t, t.TempDir(), "Private", "", standinFault+"=hang")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	errs := make(chan error)
	for range 3 {
		go func() { errs <- s.Put(ctx, "a", nil) }()
	}
	for range 3 {
		if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline's", err)
		}
	}
}

// R19: command lines are seen by everyone on the machine.
func TestCommandLines(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	s := open(t, t.TempDir(), "Private/B", "X/A", standinLog+"="+log, "OP_SERVICE_ACCOUNT_TOKEN=hush")
	put(t, s, "w/a", "the bytes")
	if _, err := s.Get(t.Context(), "w/a", store.Sum([]byte("the bytes")), 99); err != nil {
		t.Error(err)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var verbs []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, "the bytes") || strings.Contains(line, "hush") {
			t.Errorf("command line: %s", line)
		}
		words := strings.Fields(strings.NewReplacer("--cache=false ", "", "--no-color ", "").Replace(line))
		verbs = append(verbs, words[0])
		if words[0] != "whoami" {
			verbs[len(verbs)-1] += " " + words[1]
		}
	}
	// What a change costs.
	if diff := cmp.Diff([]string{"whoami", "item list", "document create", "item list", "document get"}, verbs); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
}

func TestAddress(t *testing.T) {
	for _, address := range []string{"Private", "Private/My Backups", "a b", "Private/a/b"} {
		s, err := onepassword.New(address, onepassword.Config{})
		if err != nil || s.Address() != address {
			t.Errorf("%q: got %v", address, err)
		}
	}
	for _, address := range []string{"", "/x", "Private/", "Private/.x", "Private/../x", "Private//x", "a\nb", "Private/x "} {
		if _, err := onepassword.New(address, onepassword.Config{}); err == nil {
			t.Errorf("%q: no error", address)
		}
	}
}
