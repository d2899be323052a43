package keychain

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/satchel-backup/satchel/secret"
)

// service is the name under which people find the entries in their keychain.
const service = "Satchel"

// How long to wait. The system may be asking the user for a password; a person
// who is setting up a device waits less patiently than the rest of the program.
const (
	callWait  = time.Minute
	probeWait = 15 * time.Second
)

// ring is what Store needs of the system: text under names.
type ring interface {
	Get(service, name string) (string, error)
	Set(service, name, text string) error
	Delete(service, name string) error
}

// library is the ring of the system.
type library struct{}

func (library) Get(service, name string) (string, error) {
	if err := reachable(); err != nil {
		return "", err
	}
	return keyring.Get(service, name)
}

func (library) Set(service, name, text string) error {
	if err := reachable(); err != nil {
		return err
	}
	return keyring.Set(service, name, text)
}

func (library) Delete(service, name string) error {
	if err := reachable(); err != nil {
		return err
	}
	return keyring.Delete(service, name)
}

// reachable returns an error where no D-Bus session exists. The library would
// start one for this process alone, which nobody unlocks and which stays behind.
func reachable() error {
	switch runtime.GOOS {
	case "windows", "darwin", "ios":
		return nil
	}
	if bus := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); bus != "" && bus != "autolaunch:" {
		return nil
	}
	for _, bus := range []string{os.Getenv("XDG_RUNTIME_DIR") + "/bus", fmt.Sprintf("/run/user/%d/bus", os.Getuid())} {
		if _, err := os.Stat(bus); err == nil {
			return nil
		}
	}
	return errors.New("no desktop session")
}

// Store is the keychain of the system: the Keychain on a Mac, the Credential
// Manager on Windows, the Secret Service (GNOME Keyring, KWallet, KeePassXC)
// elsewhere.
type Store struct {
	ring ring
	wait time.Duration
	// turn holds one token. Who has it talks to the system; one at a time, since
	// the library mixes up the answers of two that both ask the user.
	turn chan struct{}
}

var _ Keychain = (*Store)(nil)

// System returns the keychain of the system. A call waits up to a minute, while
// the system may ask the user to unlock it.
func System() *Store { return newStore(library{}, callWait) }

func newStore(r ring, wait time.Duration) *Store {
	return &Store{ring: r, wait: wait, turn: make(chan struct{}, 1)}
}

// Where implements [Keychain].
func (s *Store) Where() string {
	switch runtime.GOOS {
	case "darwin", "ios":
		return "the macOS keychain"
	case "windows":
		return "the Windows Credential Manager"
	}
	return "the desktop's keyring"
}

// do runs f, which talks to the system, and gives up waiting for it when the
// time is over. A call that the system never answers cannot be ended: its
// goroutine keeps the turn, so that there is never more than one.
func (s *Store) do(deadline <-chan time.Time, f func() (string, error)) (string, error) {
	type answer struct {
		text string
		err  error
	}
	noAnswer := fmt.Errorf("%w: %w", ErrUnavailable, errors.New("it did not answer in time"))
	select {
	case s.turn <- struct{}{}:
	case <-deadline:
		return "", noAnswer
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-s.turn }()
		defer func() {
			// The library panics when the session ends while the user is being asked.
			if r := recover(); r != nil {
				done <- answer{"", errors.New("the session ended")}
			}
		}()
		text, err := f()
		done <- answer{text, err}
	}()
	select {
	case a := <-done:
		if a.err != nil && !errors.Is(a.err, keyring.ErrNotFound) {
			return "", fmt.Errorf("%w: %w", ErrUnavailable, a.err)
		}
		return a.text, a.err
	case <-deadline:
		return "", noAnswer
	}
}

func (s *Store) get(deadline <-chan time.Time, name string) (string, error) {
	return s.do(deadline, func() (string, error) { return s.ring.Get(service, name) })
}

// set stores text and reads it back: the Secret Service says yes also when the
// user dismissed its question.
func (s *Store) set(deadline <-chan time.Time, name, text string) error {
	_, err := s.do(deadline, func() (string, error) { return "", s.ring.Set(service, name, text) })
	if err != nil {
		return err
	}
	got, err := s.get(deadline, name)
	if errors.Is(err, keyring.ErrNotFound) || err == nil && got != text {
		return fmt.Errorf("%w: %w", ErrUnavailable, errors.New("it did not keep what it was given"))
	}
	return err
}

// delete removes the entry and looks whether it is gone.
func (s *Store) delete(deadline <-chan time.Time, name string) error {
	_, err := s.do(deadline, func() (string, error) { return "", s.ring.Delete(service, name) })
	if err != nil && !errors.Is(err, keyring.ErrNotFound) {
		return err
	}
	_, err = s.get(deadline, name)
	switch {
	case errors.Is(err, keyring.ErrNotFound):
		return nil
	case err == nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, errors.New("it did not delete what it was asked to"))
	}
	return err
}

// probe finds out whether the keychain keeps an entry and gives it back.
func (s *Store) probe(wait time.Duration) error {
	deadline := after(wait)
	name := "probe-" + strings.ToLower(rand.Text())
	err := s.set(deadline, name, rand.Text())
	if err != nil {
		// Perhaps it was stored and not read back. There is nothing secret in it.
		s.delete(deadline, name)
		return err
	}
	return s.delete(deadline, name)
}

// after is time.After with a channel that stays ready, for several receivers.
func after(wait time.Duration) <-chan time.Time {
	c := make(chan time.Time)
	time.AfterFunc(wait, func() { close(c) })
	return c
}

// Get implements [Keychain]. "None" is believed only of a keychain that keeps
// an entry when it is tried: a Mac whose keychain is missing, or a desktop that
// opened another collection, say "none" too.
func (s *Store) Get(name string) (secret.Bytes, error) {
	if err := checkName(name); err != nil {
		return secret.Bytes{}, fmt.Errorf("getting secret: %w", err)
	}
	text, err := s.get(after(s.wait), name)
	if errors.Is(err, keyring.ErrNotFound) {
		if err = s.probe(s.wait); err == nil {
			err = ErrNotFound
		}
	}
	var b secret.Bytes
	if err == nil {
		b, err = decode(text)
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("getting secret: %w", err)
	}
	return b, nil
}

// Set implements [Keychain].
func (s *Store) Set(name string, b secret.Bytes) error {
	err := checkName(name)
	var text string
	if err == nil {
		text, err = encode(b)
	}
	if err == nil {
		err = s.set(after(s.wait), name, text)
	}
	if err != nil {
		return fmt.Errorf("storing secret: %w", err)
	}
	return nil
}

// Delete implements [Keychain].
func (s *Store) Delete(name string) error {
	err := checkName(name)
	if err == nil {
		err = s.delete(after(s.wait), name)
	}
	if err != nil {
		return fmt.Errorf("deleting secret: %w", err)
	}
	return nil
}
