package slot_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"filippo.io/age"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/guardtest"
	format "github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
)

// pinSlot enrols a PIN for a backup at all servers.
func pinSlot(t *testing.T, s *guardtest.Servers, c *guard.Client, keys *format.Keys, pin, passphrase string) []byte {
	t.Helper()
	plan, err := guard.NewPlan(guard.ID(keys.ID()), 2, s.Names)
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.Enrol(t.Context(), plan, secret.FromString(pin), secret.FromString(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	object, err := format.SealSlot(keys, slot.PINRecipient(e))
	if err != nil {
		t.Fatal(err)
	}
	back, err := format.OpenSlot(object, slot.EnrolledPIN(e))
	if err != nil || back.ID() != keys.ID() {
		t.Fatalf("what was written does not open: %v", err)
	}
	owner := make([]byte, 32)
	settlement, err := e.Settlement(owner, 1, owner)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := c.Settle(t.Context(), settlement); err != nil || !left.Done() {
		t.Fatalf("settling: %+v, %v", left, err)
	}
	if _, err := format.SealSlot(keys, slot.PINRecipient(e)); err == nil {
		t.Error("an enrolment writes two slots")
	}
	return object
}

// openPIN opens a slot as a restore does.
func openPIN(t *testing.T, c *guard.Client, object []byte, backup guard.ID, pin, passphrase string) error {
	t.Helper()
	s, err := slot.ReadPIN(object, backup)
	if err != nil {
		return err
	}
	r, err := c.Recover(s, secret.FromString(pin))
	if err != nil {
		return err
	}
	o, err := r.Open(t.Context())
	if err != nil {
		return err
	}
	keys, err := format.OpenSlot(object, slot.PINIdentity(o, secret.FromString(passphrase)))
	if err != nil {
		return err
	}
	if guard.ID(keys.ID()) != s.Backup {
		return fmt.Errorf("keys of another backup")
	}
	told, err := o.Finish(t.Context())
	for _, g := range told {
		err = errors.Join(err, g.Err)
	}
	return err
}

func TestPIN(t *testing.T) {
	s := guardtest.New(t, 3)
	c := s.Client()
	keys := format.NewKeys()
	id := guard.ID(keys.ID())
	object := pinSlot(t, s, c, keys, "4917", "")
	if err := openPIN(t, c, object, id, "4917", ""); err != nil {
		t.Error(err)
	}
	if err := openPIN(t, c, object, guard.ID{}, "4917", ""); err != nil {
		t.Errorf("where the id is not known: %v", err)
	}
	err := openPIN(t, c, object, id, "4918", "")
	if w, ok := errors.AsType[*guard.WrongPINError](err); !ok || w.GuessesLeft != 4 {
		t.Errorf("a wrong PIN: got %v", err)
	}
	object = pinSlot(t, s, c, keys, "4917", "Zanzibar")
	if err := openPIN(t, c, object, id, "4917", "Zanzibar"); err != nil {
		t.Error(err)
	}
	if err := openPIN(t, c, object, id, "4917", "zanzibar"); !errors.Is(err, slot.ErrWrongSecret) || !errors.Is(err, guard.ErrPassphrase) {
		t.Errorf("a wrong passphrase: got %v", err)
	}
	if k, err := slot.ParseKind("pin"); err != nil || k != slot.KindPIN {
		t.Errorf("got %v, %v", k, err)
	}
}

// A slot that was changed by one bit anywhere in its stanza, or that belongs to another
// backup, is refused before anything is sent.
func TestChangedPINSlot(t *testing.T) {
	s := guardtest.New(t, 3)
	c := s.Client()
	keys, others := format.NewKeys(), format.NewKeys()
	object := pinSlot(t, s, c, keys, "4917", "Zanzibar")
	theirs := pinSlot(t, s, c, others, "4917", "Zanzibar")
	before := s.Sent()
	if err := openPIN(t, c, theirs, guard.ID(keys.ID()), "4917", "Zanzibar"); !errors.Is(err, slot.ErrOtherBackup) {
		t.Errorf("the slot of another backup: got %v", err)
	}
	end := bytes.Index(object, []byte("\n---"))
	for i := len("age-encryption.org/v1\n"); i < end; i++ {
		for bit := range 8 {
			bad := bytes.Clone(object)
			bad[i] ^= 1 << bit
			if _, err := slot.ReadPIN(bad, guard.ID(keys.ID())); err == nil {
				t.Errorf("bit %d of byte %d, %q, may change", bit, i, object[i])
			}
		}
	}
	if got := s.Sent() - before; got != 0 {
		t.Errorf("%d requests were sent", got)
	}
	if _, err := slot.ReadPIN(object, guard.ID(keys.ID())); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// What was recovered opens its own slot and no other one.
func TestPINIdentity(t *testing.T) {
	s := guardtest.New(t, 3)
	c := s.Client()
	keys := format.NewKeys()
	a, b := pinSlot(t, s, c, keys, "4917", ""), pinSlot(t, s, c, keys, "4917", "")
	read, err := slot.ReadPIN(a, guard.ID{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Recover(read, secret.FromString("4917"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := r.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := slot.PINIdentity(o, secret.Bytes{})
	if _, err := format.OpenSlot(b, id); !errors.Is(err, guard.ErrSlotDamaged) {
		t.Errorf("another slot: got %v", err)
	}
	code, _ := slot.NewRecoveryCode()
	other, err := format.SealSlot(keys, recipient(t, code))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := format.OpenSlot(other, id); !errors.Is(err, slot.ErrKind) {
		t.Errorf("a slot of a recovery code: got %v", err)
	}
	if _, err := slot.ReadPIN(other, guard.ID{}); !errors.Is(err, slot.ErrKind) {
		t.Errorf("a slot of a recovery code: got %v", err)
	}
	if _, err := format.OpenSlot(a, code.Identity()); !errors.Is(err, slot.ErrKind) {
		t.Errorf("a PIN slot with a recovery code: got %v", err)
	}
	if _, err := slot.ReadPIN([]byte("no age file"), guard.ID{}); !errors.Is(err, slot.ErrParameters) {
		t.Errorf("no age file: got %v", err)
	}
	// No other recipient may stand beside it.
	plan, err := guard.NewPlan(guard.ID{}, 1, s.Names)
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.Enrol(t.Context(), plan, secret.FromString("1"), secret.Bytes{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := age.Encrypt(&bytes.Buffer{}, slot.PINRecipient(e), slot.PINRecipient(e)); err == nil {
		t.Error("a PIN slot may have a second recipient")
	}
}
