// Package onepassword keeps a store in a vault of 1Password, by running the
// user's own "op" command (1Password CLI, version 2):
//
//	s, err := onepassword.New("Private/Backups", onepassword.Config{})
//
// Each object is a document with the tag "satchel", whose title is the object's
// name and its size: "NAME (123 bytes)". The name after the vault, if there is
// one, begins all titles. The sign-in stays with op, which asks the user in its
// own way: by the 1Password app, by a session in the environment, or by a service
// account's token. Documents that people or other programs made are left alone.
//
// 1Password allows several documents of one title, and so two objects of one
// name: Get finds the right one, and documents are deleted by their ids. Put looks
// first, under a lock of this process, but two machines at once can make two.
// Deleted documents stay in 1Password's "Recently Deleted" for a while.
//
// Each step runs op once, a second or so: a Put lists and creates, a Get lists and
// fetches, and asks once more where the number of bytes is another than the title says.
// Its cache is not used, for it would show what was put and not what is
// there. This is a place for few and small objects: 1 GB is all that an
// account of one person holds.
//
// What op says to people is never read, and all its errors have one exit code.
// What went wrong is found out by asking it who is signed in and whether the vault
// is there; that an account is full is not told apart from other trouble.
//
// It was written from 1Password's documentation and tested with a stand-in that
// behaves as that says. It was never run against the real op.
package onepassword

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/internal/program"
	"github.com/satchel-backup/satchel/store"
)

// Config holds what may be chosen. Its zero value is the usual one.
type Config struct {
	// Program is op's name or path; "" means "op".
	Program string
	// Env is the environment of op, which may hold its session or token; nil means
	// this process's own.
	Env []string
	// Account is the ID of the account that was enrolled, as [Store.Account] tells
	// it. Before every write, and before "there is none" is said, the account that is
	// signed in is compared with it. "" means that any will do.
	Account string
}

// Account is who is signed in.
type Account struct {
	ID   string // of the account and its user, for Config.Account
	Name string // for people: the e-mail address, or the sign-in address of a service account
}

// Limits on what op may answer.
const (
	maxListing = 64 << 20 // bytes in the listing of a vault
	maxAnswer  = 1 << 20  // bytes in any other answer
)

// maxTitle is the number of bytes in the longest title.
const maxTitle = 2 * store.MaxName

// Facts behind store.ErrUnreachable.
var (
	ErrNotInstalled = errors.New("op, the command of 1Password, is not installed, or not where programs are looked for")
	ErrNoVault      = errors.New("1Password has no such vault for this account")
	ErrRefused      = errors.New("op could not do it")
)

var (
	errGarbage = errors.New("op's answer cannot be read")
	errPart    = errors.New("op gave another number of bytes than the document has")
)

// Store is a [store.Store] in a vault of 1Password.
type Store struct {
	program, vault, prefix, account string
	env                             []string

	// turn holds one token, for one who runs op: it asks the user, and two questions
	// at once would help nobody.
	turn chan struct{}
}

var _ store.Store = (*Store)(nil)

// New returns the store at an address such as "Private" or "Private/Backups": a
// vault's name or id, and what the titles begin with. It runs nothing.
func New(address string, c Config) (*Store, error) {
	vault, prefix, named := strings.Cut(address, "/")
	if vault == "" || len(vault) > store.MaxName || strings.ContainsFunc(vault, func(r rune) bool { return r < ' ' }) {
		return nil, errors.New("opening 1Password: the address is not the name of a vault, or of a vault and a folder")
	}
	if named {
		if err := store.CheckName(prefix); err != nil || len(prefix) > store.MaxPart {
			return nil, errors.New("opening 1Password: the name after the vault is not usable")
		}
		prefix += "/"
	}
	if c.Program == "" {
		c.Program = "op"
	}
	s := &Store{program: c.Program, vault: vault, prefix: prefix, account: c.Account, env: c.Env, turn: make(chan struct{}, 1)}
	return s, nil
}

// Address returns what New takes.
func (s *Store) Address() string { return strings.TrimSuffix(s.vault+"/"+s.prefix, "/") }

// lock waits for the turn to run op.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case s.turn <- struct{}{}:
		return func() { <-s.turn }, ctx.Err()
	case <-ctx.Done():
		return func() {}, ctx.Err()
	}
}

// op runs op. The caller has the turn.
func (s *Store) op(ctx context.Context, limit int64, args ...string) ([]byte, error) {
	// It stays in the terminal's session: by that the app knows whom it has let in.
	out, err := program.Run(ctx, program.Command{
		Path: s.program, Args: append([]string{"--cache=false", "--no-color"}, args...), Env: s.env, Limit: limit,
	})
	if errors.Is(err, program.ErrNotInstalled) {
		return nil, fmt.Errorf("%w: %w", store.ErrUnreachable, ErrNotInstalled)
	}
	return out, err
}

// refused reports whether op ran and ended with an error of its own.
func refused(err error) bool {
	_, ok := errors.AsType[*program.ExitError](err)
	return ok
}

// explain finds out why op refused.
func (s *Store) explain(ctx context.Context, err error) error {
	if !refused(err) {
		return err
	}
	if _, err := s.signedIn(ctx, false); err != nil {
		return err
	}
	if _, err := s.op(ctx, maxAnswer, "vault", "get", "--format=json", "--", s.vault); refused(err) {
		return fmt.Errorf("%w: %w", store.ErrUnreachable, ErrNoVault)
	}
	return fmt.Errorf("%w: %w: %w", store.ErrUnreachable, ErrRefused, err)
}

// signedIn returns who is signed in. With ask, 1Password may ask the user; once a
// command that needs the account was refused, nobody should be asked again.
func (s *Store) signedIn(ctx context.Context, ask bool) (Account, error) {
	out, err := s.op(ctx, maxAnswer, "whoami", "--format=json")
	if ask && refused(err) {
		// It asks nobody, and may not know yet what the app would allow.
		if _, err = s.op(ctx, maxAnswer, "vault", "list", "--format=json"); err == nil {
			out, err = s.op(ctx, maxAnswer, "whoami", "--format=json")
		}
	}
	switch {
	case refused(err):
		return Account{}, fmt.Errorf("%w: %w", store.ErrSignIn, err)
	case err != nil:
		return Account{}, err
	}
	var who struct {
		URL     string `json:"url"`
		Email   string `json:"email"`
		Account string `json:"account_uuid"`
		User    string `json:"user_uuid"`
	}
	if err := json.Unmarshal(out, &who); err != nil || who.Account == "" || who.User == "" {
		return Account{}, fmt.Errorf("%w: %w", store.ErrUnreachable, errGarbage)
	}
	a := Account{ID: who.Account + "/" + who.User, Name: who.Email}
	if a.Name == "" {
		a.Name = who.URL
	}
	return a, nil
}

// Account returns who is signed in. It may make 1Password ask the user.
func (s *Store) Account(ctx context.Context) (Account, error) {
	unlock, err := s.lock(ctx)
	defer unlock()
	var a Account
	if err == nil {
		a, err = s.signedIn(ctx, true)
	}
	if err != nil {
		return Account{}, fmt.Errorf("asking for the account: %w", err)
	}
	return a, nil
}

// checkAccount returns store.ErrWrongAccount if another account is signed in than
// the one enrolled.
func (s *Store) checkAccount(ctx context.Context) error {
	if s.account == "" {
		return nil
	}
	a, err := s.signedIn(ctx, true)
	if err == nil && a.ID != s.account {
		err = store.ErrWrongAccount
	}
	return err
}

// title returns the title of the document that holds the object.
func (s *Store) title(name string, size int) string {
	return s.prefix + name + " (" + strconv.Itoa(size) + " bytes)"
}

// parseTitle returns what title took.
func (s *Store) parseTitle(title string) (name string, size int64, ok bool) {
	rest, ok := strings.CutPrefix(title, s.prefix)
	if !ok || len(title) > maxTitle {
		return "", 0, false
	}
	rest, ok = strings.CutSuffix(rest, " bytes)")
	i := strings.LastIndex(rest, " (")
	if !ok || i < 0 || store.CheckName(rest[:i]) != nil {
		return "", 0, false
	}
	name = rest[:i]
	size, err := strconv.ParseInt(rest[i+2:], 10, 64)
	return name, size, err == nil && size >= 0 && size <= store.MaxObject && s.title(name, int(size)) == title
}

// validID reports whether an id looks like one of 1Password's.
func validID(id string) bool {
	other := func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') }
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, other)
}

// all lists the objects of the vault. The caller has the turn.
func (s *Store) all(ctx context.Context) ([]store.Object, error) {
	out, err := s.op(ctx, maxListing, "item", "list", "--categories=Document", "--vault="+s.vault, "--format=json")
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	var items []struct {
		ID      string    `json:"id"`
		Title   string    `json:"title"`
		Created time.Time `json:"created_at"`
	}
	if err := json.Unmarshal(out, &items); err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrListing, errGarbage)
	}
	var list []store.Object
	for _, item := range items {
		name, size, ok := s.parseTitle(item.Title)
		if !ok {
			continue
		}
		if !validID(item.ID) {
			return nil, fmt.Errorf("%w: %w", store.ErrListing, errGarbage)
		}
		list = append(list, store.Object{Name: name, Size: size, Modified: item.Created, ID: item.ID})
	}
	return list, nil
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	err := store.CheckPut(name, data)
	if err == nil {
		err = s.put(ctx, name, data)
	}
	if err != nil {
		return fmt.Errorf("putting object: %w", err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, name string, data []byte) error {
	unlock, err := s.lock(ctx)
	defer unlock()
	if err != nil {
		return err
	}
	if err := s.checkAccount(ctx); err != nil {
		return err
	}
	list, err := s.all(ctx)
	if err != nil {
		return err
	}
	switch _, err := s.pick(ctx, list, name, store.Sum(data), int64(len(data))); {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrTooLarge):
		return store.ErrExist
	case !errors.Is(err, store.ErrNotExist):
		return err
	}

	// Not by a pipe: op would take the end of a satchel that is killed for the end of
	// the document.
	f, err := os.CreateTemp("", "satchel-*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	_, err = s.op(ctx, maxAnswer, "document", "create", f.Name(), "--title="+s.title(name, len(data)),
		"--file-name="+path.Base(name), "--tags=satchel", "--vault="+s.vault, "--format=json")
	if err != nil {
		return s.explain(ctx, err)
	}
	return nil
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	err := store.CheckName(name)
	var data []byte
	if err == nil {
		data, err = s.get(ctx, name, want, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("getting object: %w", err)
	}
	return data, nil
}

func (s *Store) get(ctx context.Context, name string, want store.Hash, limit int64) ([]byte, error) {
	unlock, err := s.lock(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	list, err := s.all(ctx)
	if err != nil {
		return nil, err
	}
	data, err := s.pick(ctx, list, name, want, limit)
	if errors.Is(err, store.ErrNotExist) {
		// In the vault of another account, "none" would be no answer.
		if wrong := s.checkAccount(ctx); wrong != nil {
			err = wrong
		}
	}
	return data, err
}

// pick fetches the listed objects of the name until one has the wanted hash.
func (s *Store) pick(ctx context.Context, list []store.Object, name string, want store.Hash, limit int64) ([]byte, error) {
	none := store.ErrNotExist
	for _, o := range list {
		if o.Name != name {
			continue
		}
		if o.Size > limit {
			none = store.ErrTooLarge
			continue
		}
		// A document that is longer than its title says is not what Put made.
		data, err := s.op(ctx, o.Size, "document", "get", o.ID, "--vault="+s.vault)
		long := errors.Is(err, program.ErrOutput)
		if err != nil && !long {
			return nil, s.explain(ctx, err)
		}
		if !long && int64(len(data)) == o.Size && want.Matches(data) {
			return append([]byte{}, data...), nil
		}
		if long || int64(len(data)) != o.Size {
			// That op gave a part of it, or a text beside it, says nothing of the document.
			switch size, err := s.size(ctx, o.ID); {
			case err != nil:
				return nil, err
			case long && size <= o.Size, !long && size != int64(len(data)):
				return nil, fmt.Errorf("%w: %w", store.ErrUnreachable, errPart)
			}
		}
		if none == store.ErrNotExist {
			none = store.ErrDamaged
		}
	}
	return nil, none
}

// size returns how many bytes a document has, as 1Password knows it.
func (s *Store) size(ctx context.Context, id string) (int64, error) {
	out, err := s.op(ctx, maxAnswer, "item", "get", id, "--vault="+s.vault, "--format=json")
	if err != nil && !errors.Is(err, program.ErrOutput) {
		return 0, s.explain(ctx, err)
	}
	var item struct {
		Files []struct {
			Size *int64 `json:"size"`
		} `json:"files"`
	}
	if err != nil || json.Unmarshal(out, &item) != nil || len(item.Files) != 1 || item.Files[0].Size == nil {
		return 0, fmt.Errorf("%w: %w", store.ErrUnreachable, errGarbage)
	}
	return *item.Files[0].Size, nil
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, prefix string) ([]store.Object, error) {
	list, err := s.list(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("listing objects: %w", err)
	}
	return list, nil
}

func (s *Store) list(ctx context.Context, prefix string) ([]store.Object, error) {
	unlock, err := s.lock(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	all, err := s.all(ctx)
	if err != nil {
		return nil, err
	}
	var list []store.Object
	for _, o := range all {
		if strings.HasPrefix(o.Name, prefix) {
			list = append(list, o)
		}
	}
	if list == nil {
		return nil, s.checkAccount(ctx) // As in get.
	}
	return list, nil
}

// Delete implements [store.Store]. It goes by the object's ID alone.
func (s *Store) Delete(ctx context.Context, o store.Object) error {
	if err := s.delete(ctx, o); err != nil {
		return fmt.Errorf("deleting object: %w", err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, o store.Object) error {
	if !validID(o.ID) {
		return errors.New("unusable id of an object")
	}
	unlock, err := s.lock(ctx)
	defer unlock()
	if err != nil {
		return err
	}
	if err := s.checkAccount(ctx); err != nil {
		return err
	}
	_, err = s.op(ctx, maxAnswer, "item", "delete", o.ID, "--vault="+s.vault)
	if !refused(err) {
		return err
	}
	// Perhaps it is gone: op has one code for everything.
	list, listErr := s.all(ctx)
	if listErr != nil {
		return listErr
	}
	for _, there := range list {
		if there.ID == o.ID {
			return s.explain(ctx, err)
		}
	}
	return nil
}
