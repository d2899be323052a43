package satcheltest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store/storetest"
)

// App is a wallet's app, installed on a device and not running.
//
// It gives the Config to satchel as it is; it may add Software, Progress and
// Logger. Its own files, if it has any, are in the directory above cfg.Dir and
// nowhere else.
type App interface {
	// Start is what happens when the user opens the app: it opens the wallet of
	// this device or, only if there was none, makes one with its backup. An error
	// means that the user has no wallet before him. That a place does not answer
	// is no such error: it is told on the Screen.
	Start(ctx context.Context, cfg satchel.Config) (Wallet, error)
	// Restore is what happens when the user of a new device types what opens his
	// backup: the Code of the Screen on which the wallet was made. After an error
	// without a Wallet the device is as it was.
	Restore(ctx context.Context, cfg satchel.Config, code secret.Bytes) (Wallet, error)
}

// Wallet is an app that runs with its wallet. What the backup gives and refuses
// may be returned as an error or be the Screen's Problem, whichever the app does.
type Wallet interface {
	// Change is what happens when the user writes a note: a label, a contact, any
	// text that the backup keeps. It returns when the note was kept and the places
	// were tried once.
	Change(ctx context.Context, note string) error
	// Refresh is what the app does by itself now and then: bring up what is late,
	// check, or both.
	Refresh(ctx context.Context) error
	// Screen is what the user sees now. It asks no place.
	Screen() Screen
	// Remove removes the wallet from this device, and closes it.
	Remove(ctx context.Context) error
	// Close ends the app.
	Close() error
}

// Screen is what a wallet shows to its user.
type Screen struct {
	// Wallet tells this wallet from every other, and is the same wherever it is
	// restored: the fingerprint, or the first address.
	Wallet string
	// Notes are those that were given to Change, in any order.
	Notes []string
	// Protected is whether the user is told that all of it is backed up.
	Protected bool
	// Problem is what the user is told that is wrong with the backup, nil if
	// nothing is. satchel.CodeOf understands it.
	Problem error
	// Code is what opens the backup, as the user is to write it down. It is
	// wanted of the Start that made the wallet; elsewhere it may be empty. Every
	// wallet has another.
	Code secret.Bytes
}

// Journey walks a wallet through what happens to its users and fails where the
// wallet loses something, or says what is not so. Each part of the way is a
// subtest with devices and a cloud of its own:
//
//	go test -run TestJourney/PlaceFull
//
// The wallet's own words, the Code and the notes must never reach a cloud in
// clear, in no part of the way. No place is asked over a network, and nothing
// sleeps; what time it takes is mostly that of the wallet's ways in.
func Journey(t *testing.T, app App) {
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) { p.walk(t, app) })
	}
}

// part is one part of the way.
type part struct {
	name string
	run  func(*walk)
}

var parts = []part{
	{"NewWallet", newWallet},
	{"Killed", killed},
	{"KilledBeforeUpload", func(w *walk) { killedWhileSaving(w, storetest.NotApplied) }},
	{"KilledAfterUpload", func(w *walk) { killedWhileSaving(w, storetest.Applied) }},
	{"NoNetworkAtFirst", noNetworkAtFirst},
	{"PlaceUnreachable", func(w *walk) {
		badPlace(w, "cannot be reached", storetest.Any, storetest.Unreachable, satchel.CodeUnreachable)
	}},
	{"PlaceFull", func(w *walk) { badPlace(w, "is full", storetest.Put, storetest.Full, satchel.CodeFull) }},
	{"SignInNeeded", func(w *walk) {
		badPlace(w, "wants the user to sign in again", storetest.Any, storetest.SignIn, satchel.CodeSignIn)
	}},
	{"WrongAccount", func(w *walk) {
		badPlace(w, "is signed in to another account", storetest.Any, storetest.WrongAccount, satchel.CodeWrongAccount)
	}},
	{"PlaceLies", func(w *walk) {
		badPlace(w, "says that it has taken everything, and keeps nothing", storetest.Put, storetest.Drop, satchel.CodeDamaged)
	}},
	{"PlaceDamages", func(w *walk) {
		badPlace(w, "keeps other bytes than it was given", storetest.Put, storetest.Flip, satchel.CodeDamaged)
	}},
	{"PlaceLosesEverything", placeLosesEverything},
	{"NewDevice", newDevice},
	{"OlderDevice", olderDevice},
	{"WrongCode", wrongCode},
	{"NothingToRestore", nothingToRestore},
	{"PlaceSilentAtRestore", placeSilentAtRestore},
	{"TwoWallets", twoWallets},
	{"NotOverwritten", notOverwritten},
	{"KeychainLocked", keychainLocked},
	{"KeychainLost", keychainLost},
	{"RemovedHere", removedHere},
}

// walk is one part of the way as it is walked.
type walk struct {
	TB
	app    App
	clock  *Clock
	clouds []*Cloud
	used   []*session
	secret map[string][]byte   // what no cloud may see, by what it is
	words  map[string][][]byte // the words of wallets, by fingerprint
	notes  int
}

func (p part) walk(t TB, app App) {
	w := &walk{TB: t, app: app, clock: new(Clock), secret: map[string][]byte{}, words: map[string][][]byte{}}
	defer func() {
		for _, s := range w.used {
			s.close()
		}
		w.nothingInClear()
	}()
	p.run(w)
}

func (w *walk) cloud() *Cloud {
	c := NewCloud(fmt.Sprintf("mem:%d", len(w.clouds)+1))
	w.clouds = append(w.clouds, c)
	return c
}

// nothingInClear looks for the words in everything that was sent (R19).
func (w *walk) nothingInClear() {
	w.Helper()
	for _, what := range slices.Sorted(maps.Keys(w.secret)) {
		for _, c := range w.clouds {
			if c.Leaks(w.secret[what]) {
				w.Errorf("%s went to the cloud in clear: only sealed bytes may leave the device", what)
			}
		}
	}
	for fingerprint, words := range w.words { // In whatever form: as a sentence, as JSON, a word a line.
		for _, c := range w.clouds {
			if slices.ContainsFunc(c.Sent(), func(call storetest.Call) bool {
				return !slices.ContainsFunc(words, func(word []byte) bool { return !bytes.Contains(call.Data, word) })
			}) {
				w.Errorf("the words of the wallet %s went to the cloud in clear: only sealed bytes may leave the device", fingerprint)
			}
		}
	}
}

// session is an app that runs on a device.
type session struct {
	*walk
	device *Device
	wallet Wallet
	closed bool
}

// session takes note of a wallet that the app returned.
func (w *walk) session(d *Device, wal Wallet) *session {
	s := &session{walk: w, device: d, wallet: wal}
	w.used = append(w.used, s)
	w.guard(d)
	if code := wal.Screen().Code; !code.Empty() {
		w.secret["what opens the backup"] = code.Open()
	}
	return s
}

// guard adds the words of the device's wallet to what no cloud may see.
func (w *walk) guard(d *Device) {
	w.Helper()
	err := d.inspect(func(b *satchel.Backup) error {
		k, err := b.Keys()
		if err != nil {
			return nil // The words are kept elsewhere.
		}
		if w.words[k.Fingerprint()] != nil {
			return nil
		}
		w.words[k.Fingerprint()] = bytes.Fields(k.Words().Sentence().Open())
		add := func(what string, s secret.Bytes, err error) {
			if err == nil && !s.Empty() {
				w.secret[what+" of the wallet "+k.Fingerprint()] = s.Open()
			}
		}
		seed, err := k.Seed()
		add("the seed", seed, err)
		add("the seed in hex", secret.FromString(hex.EncodeToString(seed.Open())), err)
		add("the BIP 39 passphrase", k.Passphrase(), nil)
		return nil
	})
	if err != nil {
		w.Fatalf("satchel cannot open the backup of the wallet that runs: %v\nthe wallet must keep it in the Dir, and its key in the Keychain, of the Config that it was given", err)
	}
}

// start opens the app, which must succeed.
func (w *walk) start(d *Device, when string) *session {
	w.Helper()
	wal, err := w.app.Start(w.Context(), d.Config())
	if err != nil || wal == nil {
		w.Fatalf("the app does not start %s: got %s, %v", when, oneOrNone(wal), err)
	}
	return w.session(d, wal)
}

// create starts the app on a new device.
func (w *walk) create(clouds ...*Cloud) *session {
	w.Helper()
	s := w.start(NewDevice(w.TB, w.clock, clouds...), "on a new device")
	if s.screen().Code.Empty() {
		w.Fatalf("a new wallet must show what opens its backup (Screen.Code): nobody could restore it")
	}
	return s
}

// restore restores on the device, which must succeed.
func (w *walk) restore(d *Device, code secret.Bytes) *session {
	w.Helper()
	wal, err := w.app.Restore(w.Context(), d.Config(), code)
	if err != nil || wal == nil {
		w.Fatalf("the backup cannot be restored: got %s, %v", oneOrNone(wal), err)
	}
	return w.session(d, wal)
}

// oneOrNone stands for a wallet, which may hold what must not be printed.
func oneOrNone(wal Wallet) string {
	if wal == nil {
		return "no wallet"
	}
	return "a wallet"
}

// mustNotRestore returns the error of a restore that must fail. The device is
// then as it was.
func (w *walk) mustNotRestore(d *Device, code secret.Bytes, when string) error {
	w.Helper()
	wal, err := w.app.Restore(w.Context(), d.Config(), code)
	if wal != nil {
		w.used = append(w.used, &session{walk: w, device: d, wallet: wal})
	}
	if err == nil || wal != nil {
		w.Fatalf("a restore %s must be an error and no wallet: got %s, %v", when, oneOrNone(wal), err)
	}
	return err
}

// screen is what the wallet shows, the notes sorted.
func (s *session) screen() Screen {
	sc := s.wallet.Screen()
	sc.Notes = slices.Sorted(slices.Values(sc.Notes))
	return sc
}

func (s *session) close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	return s.wallet.Close()
}

// kill ends the app without a word and closes its remains, which reach nothing.
func (s *session) kill() {
	s.Helper()
	s.device.Kill()
	s.close()
}

// note returns a note that was not there before.
func (w *walk) note() string {
	w.notes++
	n := fmt.Sprintf("for the green bicycle, instalment %d", w.notes)
	w.secret[fmt.Sprintf("the note %q", n)] = []byte(n)
	return n
}

// change makes a change that must succeed and be protected.
func (s *session) change() string {
	s.Helper()
	n := s.note()
	if err := s.wallet.Change(s.Context(), n); err != nil {
		s.Fatalf("a change is an error, and nothing is wrong with the place: %v", err)
	}
	s.keeps(n)
	s.protected("after a change")
	return n
}

func (s *session) keeps(notes ...string) {
	s.Helper()
	shown := s.screen().Notes
	for _, n := range notes {
		if !slices.Contains(shown, n) {
			s.Errorf("a change is lost: the wallet shows %q, without %q", shown, n)
		}
	}
}

// honest fails if the wallet says protected and is not. It is the one thing that
// no wallet may do.
func (s *session) honest(when string) {
	s.Helper()
	if !s.screen().Protected {
		return
	}
	if err := s.device.Prove(s.Context()); err != nil {
		s.Errorf("the wallet says that it is protected %s, and the place does not hold what would bring it back: %v", when, err)
	}
}

// protected fails unless the wallet is protected, rightly, and says so.
func (s *session) protected(when string) {
	s.Helper()
	s.honest(when)
	sc := s.screen()
	if !sc.Protected {
		s.Errorf("the wallet does not say that it is protected %s, and the place is in order", when)
	}
	if sc.Problem != nil {
		s.Errorf("the wallet tells of a problem %s, and the place is in order: %v", when, sc.Problem)
	}
}

// catchesUp fails unless the wallet is protected again by itself. It may need one
// Refresh to notice and another to mend.
func (s *session) catchesUp(when string) {
	s.Helper()
	err := s.wallet.Refresh(s.Context())
	s.honest(when)
	if err != nil || !s.screen().Protected {
		err = s.wallet.Refresh(s.Context())
	}
	if err != nil {
		s.Errorf("Refresh is still an error %s: %v", when, err)
	}
	s.protected(when + " and a Refresh")
}

// tells fails unless the user was told of what is wrong, with this code: in the
// error or on the screen.
func (s *session) tells(err error, want satchel.Code, what, when string) {
	s.Helper()
	told := errors.Join(err, s.screen().Problem)
	switch got := satchel.CodeOf(told); {
	case told == nil:
		s.Errorf("%s, and the user is not told %s: neither an error nor the Screen's Problem", what, when)
	case got != want:
		s.Errorf("%s, and the user is told something else %s: code %d, want %d: %v", what, when, got, want, told)
	}
}

// same fails unless the session shows what was shown elsewhere.
func (s *session) same(want Screen, where string) {
	s.Helper()
	got := s.screen()
	if got.Wallet != want.Wallet {
		s.Errorf("%s is another wallet: got %s, want %s", where, got.Wallet, want.Wallet)
	}
	if !slices.Equal(got.Notes, want.Notes) {
		s.Errorf("%s is not in the state that was backed up: it shows %q, want %q", where, got.Notes, want.Notes)
	}
}

// restorable fails unless a stranger's new device becomes what this one shows.
func (s *session) restorable(code secret.Bytes, clouds ...*Cloud) {
	s.Helper()
	want := s.screen()
	s.close()
	again := s.restore(NewDevice(s.TB, s.clock, clouds...), code)
	again.same(want, "what was restored on a new device")
	again.protected("after a restore")
	again.close()
}

// oneBackup fails unless the cloud holds the backup of one wallet.
func (w *walk) oneBackup(c *Cloud) {
	w.Helper()
	folders := map[string]bool{}
	for name := range c.Objects() {
		if folder, _, ok := strings.Cut(name, "/"); ok {
			folders[folder] = true
		}
	}
	if len(folders) != 1 {
		w.Errorf("one wallet was made, and the cloud holds %d backups: %q", len(folders), slices.Sorted(maps.Keys(folders)))
	}
}

func newWallet(w *walk) {
	c := w.cloud()
	s := w.create(c)
	s.protected("after it was made")
	s.change()
	s.change()
	w.oneBackup(c)
	want := s.screen()
	if err := s.close(); err != nil {
		w.Errorf("closing the app: %v", err)
	}
	again := w.start(s.device, "again after it was closed")
	again.same(want, "what is opened again")
	again.protected("after it was opened again")
	again.keeps(again.change())
	w.oneBackup(c)
}

func killed(w *walk) {
	c := w.cloud()
	s := w.create(c)
	code := s.screen().Code
	for range 2 {
		s.change()
		want := s.screen()
		s.kill()
		s = w.start(s.device, "after it was killed")
		s.same(want, "what is opened after the app was killed")
		s.protected("after it was killed and opened again")
	}
	w.oneBackup(c)
	s.restorable(code, c)
}

// killedWhileSaving: the change is safe on the device or was never made, in the
// same way everywhere.
func killedWhileSaving(w *walk, call storetest.Fault) {
	c := w.cloud()
	s := w.create(c)
	code := s.screen().Code
	first := s.change()
	app := s.device.killAt(storetest.Put, call)
	s.wallet.Change(w.Context(), w.note()) // What it says nobody hears.
	if !app.dead.Load() {
		w.Fatalf("a change sends nothing to the place: it is not backed up")
	}
	s.close()
	s = w.start(s.device, "after it was killed while it saved a change")
	s.honest("after it was killed while it saved a change")
	s.keeps(first)
	s.catchesUp("after it was killed while it saved a change")
	w.oneBackup(c)
	s.restorable(code, c)
}

func noNetworkAtFirst(w *walk) {
	c := w.cloud()
	d := NewDevice(w.TB, w.clock, c)
	c.Set(storetest.Any, storetest.Unreachable)
	wal, err := w.app.Start(w.Context(), d.Config())
	var s *session
	var code secret.Bytes
	if wal != nil {
		s = w.session(d, wal)
		if err != nil {
			w.Fatalf("Start returns a wallet and an error: does the user have a wallet before him? %v", err)
		}
		first := s.screen()
		code = first.Code
		s.honest("before its place was ever reached")
		s.tells(nil, satchel.CodeUnreachable, "the place of a new wallet cannot be reached", "after Start")
		s.kill()
		s = w.start(d, "without a network")
		if got := s.screen(); got.Wallet != first.Wallet {
			w.Fatalf("a wallet that was made without a network is lost, and another one was made: got %s, want %s", got.Wallet, first.Wallet)
		}
		c.Mend()
	} else {
		d.Kill()
		c.Mend()
		s = w.start(d, "when the network is back")
		code = s.screen().Code
	}
	s.catchesUp("after the network was back")
	w.oneBackup(c)
	if code.Empty() {
		w.Fatalf("the wallet was made when Start failed without a network, and its user never saw what opens the backup (Screen.Code): nobody could restore it")
	}
	s.restorable(code, c)
}

// badPlace: whatever the place does, the wallet never says protected when it is
// not, keeps the change, says what is wrong, and mends it by itself (R1, R5).
func badPlace(w *walk, what string, op storetest.Op, fault storetest.Fault, code satchel.Code) {
	c := w.cloud()
	s := w.create(c)
	secret := s.screen().Code
	first := s.change()

	c.Set(op, fault)
	what, second := "the place "+what, w.note()
	when := fmt.Sprintf("when %s at a change", what)
	err := s.wallet.Change(w.Context(), second)
	s.honest(when)
	s.tells(err, code, what, "after a change")
	s.keeps(first)
	if err == nil {
		s.keeps(second)
	}

	shown := s.screen().Notes
	s.kill()
	s = w.start(s.device, "when "+what)
	s.honest(when + ", after the app was killed and opened again")
	s.keeps(shown...)
	err = s.wallet.Refresh(w.Context())
	s.honest(when + ", after a Refresh")
	if op == storetest.Any || slices.Contains(shown, second) { // Else nothing is late.
		s.tells(err, code, what, "after a Refresh")
	}

	c.Mend()
	s.catchesUp("after the place was in order again")
	s.keeps(shown...)
	s.keeps(s.change())
	s.restorable(secret, c)
}

// placeLosesEverything: what a place lost is put back from the device (R8).
func placeLosesEverything(w *walk) {
	c := w.cloud()
	s := w.create(c)
	code := s.screen().Code
	s.change()
	c.Lose()
	s.catchesUp("after the place lost all that it held")
	c.Lose()
	s.change()
	s.kill()
	c.Lose()
	s = w.start(s.device, "after the place lost all that it held")
	s.catchesUp("after the place lost all that it held while the app was not running")
	w.oneBackup(c)
	s.restorable(code, c)
}

func newDevice(w *walk) {
	c := w.cloud()
	old := w.create(c)
	code := old.screen().Code
	old.change()
	w.clock.Set(w.clock.Now().Add(-365 * 24 * time.Hour)) // Clocks of phones are wrong; the newest state is the newest.
	old.change()
	want := old.screen()
	old.kill()

	s := w.restore(NewDevice(w.TB, w.clock, c), code)
	s.same(want, "what was restored on a new device")
	s.protected("after a restore")
	s.change()
	want = s.screen()
	s.kill()
	s = w.start(s.device, "after it was restored")
	s.same(want, "what is opened after a restore")
	s.protected("after it was restored and opened again")
	w.oneBackup(c)
	s.restorable(code, c)
}

// olderDevice: one device writes. The one that was restored from stops, says why,
// and harms nothing (R16).
func olderDevice(w *walk) {
	const what = "another device has taken over this backup"
	c := w.cloud()
	old := w.create(c)
	code := old.screen().Code
	old.change()
	s := w.restore(NewDevice(w.TB, w.clock, c), code)
	s.change()
	want, there := s.screen(), c.Objects()

	stopped := func(err error, when string) {
		w.Helper()
		old.tells(err, satchel.CodeOtherDevice, what, when)
		if old.screen().Protected {
			w.Errorf("%s, and the older device says that it is protected %s: what is changed there is not backed up any more", what, when)
		}
		if !maps.Equal(c.Objects(), there) {
			w.Errorf("%s, and the older device changed what the place holds %s", what, when)
			there = c.Objects()
		}
	}
	stopped(old.wallet.Change(w.Context(), w.note()), "after a change")
	stopped(old.wallet.Refresh(w.Context()), "after a Refresh")
	old.kill()
	wal, err := w.app.Start(w.Context(), old.device.Config())
	if wal == nil {
		w.Fatalf("the older device does not start after another has taken over: %v\nits wallet is still good and its user may need it; only the backup goes on elsewhere", err)
	}
	old = w.session(old.device, wal)
	stopped(cmp.Or(old.wallet.Refresh(w.Context()), err), "after it was opened again and a Refresh")

	s.same(want, "the newer device")
	s.change()
	s.restorable(code, c)
}

func wrongCode(w *walk) {
	c := w.cloud()
	s, other := w.create(c), w.create(w.cloud())
	code, wrong := s.screen().Code, other.screen().Code
	if code.Equal(wrong) {
		w.Fatalf("two wallets have the same Screen.Code: whoever has one could open the other")
	}
	s.change()
	want := s.screen()
	s.kill()
	d := NewDevice(w.TB, w.clock, c)
	err := w.mustNotRestore(d, wrong, "with the code of another wallet")
	if got := satchel.CodeOf(err); got != satchel.CodeWrongSecret {
		w.Errorf("a wrong code is told as something else: code %d, want %d: %v", got, satchel.CodeWrongSecret, err)
	}
	w.restore(d, code).same(want, "what was restored after a wrong code")
	w.oneBackup(c)
}

// nothingToRestore, and placeSilentAtRestore: none is told from unknown, and
// neither is answered with a new wallet (R2, R3, R5).
func nothingToRestore(w *walk) {
	other := w.create(w.cloud())
	empty := w.cloud()
	err := w.mustNotRestore(NewDevice(w.TB, w.clock, empty), other.screen().Code, "from an empty place")
	if got := satchel.CodeOf(err); got != satchel.CodeNoBackup {
		w.Errorf("that there is no backup is told as something else: code %d, want %d: %v", got, satchel.CodeNoBackup, err)
	}
	if n := len(empty.Objects()); n > 0 {
		w.Errorf("a restore that found nothing left %d objects in the place", n)
	}
}

func placeSilentAtRestore(w *walk) {
	c := w.cloud()
	s := w.create(c)
	code := s.screen().Code
	s.change()
	want := s.screen()
	s.kill()
	d := NewDevice(w.TB, w.clock, c)
	for _, silent := range []struct {
		fault storetest.Fault
		want  satchel.Code
	}{
		{storetest.Unreachable, satchel.CodeUnreachable},
		{storetest.ListError, satchel.CodeListing},
		{storetest.SignIn, satchel.CodeSignIn},
	} {
		c.Set(storetest.List, silent.fault)
		err := w.mustNotRestore(d, code, "from a place that does not answer")
		if got := satchel.CodeOf(err); got != silent.want {
			w.Errorf("that the place does not answer (%s) is told as something else: code %d, want %d: %v", silent.fault, got, silent.want, err)
		}
	}
	c.Mend()
	w.restore(d, code).same(want, "what was restored when the place answered again")
	w.oneBackup(c)
}

// twoWallets: of several backups in one account each is restorable (R3).
func twoWallets(w *walk) {
	c := w.cloud()
	one, two := w.create(c), w.create(c)
	oneCode, twoCode := one.screen().Code, two.screen().Code
	if one.screen().Wallet == two.screen().Wallet {
		w.Fatalf("two devices made the same wallet, or Screen.Wallet does not tell one from another: %s", one.screen().Wallet)
	}
	one.change()
	two.change()
	one.change()
	one.restorable(oneCode, c)
	two.restorable(twoCode, c)
}

// notOverwritten: a wallet is never replaced by another (R15).
func notOverwritten(w *walk) {
	c := w.cloud()
	other, s := w.create(c), w.create(c)
	code := other.screen().Code
	s.change()
	want := s.screen()
	other.kill()
	s.close()
	w.mustNotRestore(s.device, code, "of another wallet over the one that is on the device")
	w.start(s.device, "after a restore that was refused").same(want, "what is on the device after a restore that was refused")
}

// keychainLocked: a key that cannot be had now is not a first start.
func keychainLocked(w *walk) {
	c := w.cloud()
	s := w.create(c)
	s.change()
	want := s.screen()
	s.kill()
	s.device.Keychain.Lock()
	w.mustNotStart(s.device, "with a locked keychain")
	s.device.Keychain.Unlock()
	s = w.start(s.device, "after the keychain was unlocked")
	s.same(want, "what is opened after the keychain was unlocked")
	s.protected("after the keychain was unlocked")
	w.oneBackup(c)
}

func keychainLost(w *walk) {
	c := w.cloud()
	s := w.create(c)
	code := s.screen().Code
	s.change()
	want := s.screen()
	s.kill()
	s.device.Keychain.Lose()
	w.mustNotStart(s.device, "with a keychain that lost its key")
	w.oneBackup(c)
	w.restore(NewDevice(w.TB, w.clock, c), code).same(want, "what was restored after the keychain was lost")
}

func (w *walk) mustNotStart(d *Device, when string) {
	w.Helper()
	wal, err := w.app.Start(w.Context(), d.Config())
	if wal != nil {
		w.used = append(w.used, &session{walk: w, device: d, wallet: wal})
		w.Fatalf("a start %s must be an error that the user sees, and no wallet: it shows the wallet %s, %v", when, wal.Screen().Wallet, err)
	}
	if err == nil {
		w.Fatalf("a start %s must be an error that the user sees: got neither a wallet nor an error", when)
	}
}

// removedHere: deleting here is not deleting there (R20).
func removedHere(w *walk) {
	c := w.cloud()
	s := w.create(c)
	code := s.screen().Code
	s.change()
	want, there := s.screen(), c.Objects()
	s.closed = true // By Remove.
	if err := s.wallet.Remove(w.Context()); err != nil {
		w.Fatalf("removing the wallet from this device: %v", err)
	}
	now := c.Objects()
	for _, name := range slices.Sorted(maps.Keys(there)) {
		if now[name] != there[name] {
			w.Fatalf("removing the wallet from this device removed its backup from the cloud too: %s is gone", name)
		}
	}
	again := w.restore(s.device, code)
	again.same(want, "what was restored on the device from which it had been removed")
	again.protected("after a restore")
}
