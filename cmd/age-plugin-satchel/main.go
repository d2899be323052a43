// Command age-plugin-satchel lets the stock age command open a PIN slot of a Satchel
// backup. With the program in the PATH,
//
//	age -d -j satchel slots/pin-….age | age -d -i - items/keys/….age
//
// asks for the PIN, and then the slot's key servers. What it prints in between is the key
// file, which opens everything in the folder. It writes no slots: satchel does.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/guard/https"
	"github.com/satchel-backup/satchel/protocol"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/slot"
)

func main() { os.Exit(mainCode()) }

// patience is how long the key servers may take in all.
const patience = 2 * time.Minute

// passphrases is how often a passphrase may be mistyped. It costs no guess.
const passphrases = 3

func mainCode() int {
	p, err := plugin.New("satchel")
	if err != nil {
		fmt.Fprintln(os.Stderr, "age-plugin-satchel:", err)
		return 1
	}
	p.HandleIdentity(func(data []byte) (age.Identity, error) {
		if len(data) > 0 {
			return nil, errors.New("an identity of this plugin holds nothing: use -j satchel")
		}
		return &identity{p}, nil
	})
	return p.Main()
}

// identity opens PIN slots, and asks the user through the program that started it.
type identity struct{ *plugin.Plugin }

var _ age.Identity = (*identity)(nil)

// Unwrap implements age.Identity.
func (i *identity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	s, err := slot.ParsePIN(stanzas)
	if err != nil {
		return nil, err
	}
	// The slot may come from anybody, and its servers learn that somebody asks.
	servers := strings.Join(s.Servers(), ", ")
	yes, err := i.Confirm(fmt.Sprintf("this PIN slot names the key servers %s: ask them?", servers), "ask them", "stop")
	if err != nil {
		return nil, err
	}
	if !yes {
		return nil, errors.New("the key servers were not asked")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := &guard.Client{Transport: &https.Transport{}, Trusted: func(string) bool { return true }}
	if err := i.standing(ctx, client, s); err != nil {
		return nil, err
	}
	pin, err := i.RequestValue("PIN:", true)
	if err != nil {
		return nil, err
	}
	r, err := client.Recover(s, secret.FromString(pin))
	if err != nil {
		return nil, err
	}
	o, err := r.Open(ctx)
	if wrong, ok := errors.AsType[*guard.WrongPINError](err); ok {
		return nil, wrongPIN(wrong.GuessesLeft)
	}
	if err != nil {
		return nil, err
	}
	key, err := i.fileKey(s, o)
	if err != nil {
		return nil, err
	}
	told, err := o.Finish(ctx)
	if err != nil {
		return nil, err
	}
	wrong := 0
	for _, g := range told {
		wrong = max(wrong, g.Wrong)
		if g.Err != nil {
			i.DisplayMessage(fmt.Sprintf("key server %s was not told that the PIN was right: %v", g.Server, g.Err))
		}
	}
	if wrong > 0 {
		i.DisplayMessage(fmt.Sprintf("wrong guesses since the last success: %d", wrong))
	}
	for _, liar := range o.Liars() {
		i.DisplayMessage(fmt.Sprintf("key server %s gave a false answer", liar))
	}
	return key.Open(), nil
}

// wrongPIN is all that is to be said of one: age shows it as the reason, and adds lines of
// its own.
func wrongPIN(left int) error {
	switch left {
	case 0:
		return errors.New("wrong PIN, and no guess left at one key server or more: only another slot opens the backup for sure")
	case 1:
		return errors.New("wrong PIN, nothing was opened: 1 guess left, after which the key servers erase what they keep")
	}
	return fmt.Errorf("wrong PIN, nothing was opened: %d guesses left", left)
}

// standing tells, before the PIN is asked for, how many guesses there are, and refuses a
// slot that the key servers do not know.
func (i *identity) standing(ctx context.Context, client *guard.Client, s *guard.Slot) error {
	list, err := client.Status(ctx, s)
	if err != nil {
		return err
	}
	damaged, left := 0, -1
	for _, g := range list {
		if g.Damaged {
			damaged++
		} else if g.Err == nil && g.State == protocol.StateActive && (left < 0 || int(g.Left) < left) {
			left = int(g.Left)
		}
	}
	if damaged > len(list)-s.Threshold {
		return guard.ErrSlotDamaged
	}
	if left >= 0 {
		return i.DisplayMessage(fmt.Sprintf("guesses left: %d or more", left))
	}
	return nil
}

func (i *identity) fileKey(s *guard.Slot, o *guard.Opened) (secret.Bytes, error) {
	if s.Passphrase == nil {
		return o.FileKey(secret.Bytes{})
	}
	for try := 1; ; try++ {
		typed, err := i.RequestValue("passphrase of the PIN slot:", true)
		if err != nil {
			return secret.Bytes{}, err
		}
		key, err := o.FileKey(secret.FromString(typed))
		if err == nil || try == passphrases || !errors.Is(err, guard.ErrPassphrase) {
			return key, err
		}
		i.DisplayMessage(err.Error())
	}
}
