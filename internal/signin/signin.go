// Package signin keeps what this device signs in to the user's clouds with, and gets it:
// a provider's tokens by the browser, a password by asking.
//
//	k := &signin.Keeper{Dir: dir, Keychain: keys}
//	tokens, err := provider.Ask(ctx, open, nil)  // the user says yes in the browser
//	...                                          // whose account is it?
//	err = k.Put(signin.Record{Address: "gdrive:ann@example.org", Account: id, Tokens: tokens})
//	...
//	client := web.New(web.Config{Tokens: k.Source("gdrive:ann@example.org", provider)})
//
// Each sign-in is a file, sealed with XChaCha20-Poly1305 under a key that the keychain
// holds. Who copies the files alone has nothing.
package signin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/keychain"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
)

const (
	keyName  = "sign-ins" // in the keychain
	suffix   = ".signin"
	maxFile  = 64 << 10
	lockTime = time.Minute // how long another process may refresh
	lockStep = 20 * time.Millisecond
)

// ErrKey says that the key under which sign-ins are sealed is not in the keychain any
// more. Signing in again makes another one.
var ErrKey = fmt.Errorf("the key that seals the sign-ins is gone: %w", store.ErrSignIn)

// Record is one sign-in.
type Record struct {
	Address string // what it opens, as a person would type it, such as "gdrive:ann@example.org"
	// Account is the provider's own lasting id of the account, "" where there is none. It
	// stays when the user signs out: the next sign-in must be to the same one.
	Account  string
	Tokens   Tokens       // of providers that give some
	Password secret.Bytes // of others
	// Client is what the program itself signs in with, at providers that want it.
	Client       string
	ClientSecret secret.Bytes
}

// Tokens are what a provider gave.
type Tokens struct {
	Access  secret.Bytes
	Expires time.Time    // of Access; zero if the provider did not say
	Refresh secret.Bytes // empty if it was refused: the user has to sign in again
}

// recordJSON is a record as it is sealed.
type recordJSON struct {
	Account      string    `json:"account,omitempty"`
	Access       []byte    `json:"access,omitempty"`
	Expires      time.Time `json:"expires,omitzero"`
	Refresh      []byte    `json:"refresh,omitempty"`
	Password     []byte    `json:"password,omitempty"`
	Client       string    `json:"client,omitempty"`
	ClientSecret []byte    `json:"client_secret,omitempty"`
}

// fileJSON is the file of a record. The address is in clear, and bound to what is sealed.
type fileJSON struct {
	Version int    `json:"satchel-signin"`
	Address string `json:"address"`
	Whose   string `json:"whose,omitempty"` // as whose returns it
	Sealed  []byte `json:"sealed"`
}

// whose stands for an account in clear: the next sign-in is compared with it, also where
// what is sealed cannot be opened any more.
func whose(address, account string) string {
	if account == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(address + "\x00" + account))
	return hex.EncodeToString(sum[:])
}

// Keeper keeps sign-ins in a directory. Methods may be called concurrently, and by
// several processes.
type Keeper struct {
	Dir      string // made when it is needed
	Keychain func() (keychain.Keychain, error)
	Now      func() time.Time // nil means time.Now
}

func (k *Keeper) now() time.Time {
	if k.Now != nil {
		return k.Now()
	}
	return time.Now()
}

func (k *Keeper) path(address string) string {
	sum := sha256.Sum256([]byte(address))
	return filepath.Join(k.Dir, hex.EncodeToString(sum[:8])+suffix)
}

// key returns the key that seals.
func (k *Keeper) key() (secret.Bytes, error) {
	chain, err := k.Keychain()
	if err != nil {
		return secret.Bytes{}, err
	}
	key, err := chain.Get(keyName)
	switch {
	case errors.Is(err, keychain.ErrNotFound):
		return secret.Bytes{}, ErrKey
	case err == nil && key.Len() != chacha20poly1305.KeySize:
		return secret.Bytes{}, keychain.ErrDamaged
	}
	return key, err
}

// keyOrNew returns it, or makes one if there is none, or nothing that it sealed. The
// caller holds the lock.
func (k *Keeper) keyOrNew() (secret.Bytes, error) {
	list, err := k.List()
	if err != nil {
		return secret.Bytes{}, err
	}
	if len(list) > 0 {
		key, err := k.key()
		if !errors.Is(err, ErrKey) {
			return key, err
		}
	}
	chain, err := k.Keychain()
	if err != nil {
		return secret.Bytes{}, err
	}
	key := secret.Random(chacha20poly1305.KeySize)
	return key, chain.Set(keyName, key)
}

// Get returns the sign-in for an address. If there is none the error is store.ErrSignIn.
func (k *Keeper) Get(address string) (Record, error) {
	f, err := k.read(k.path(address))
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, store.ErrSignIn
	}
	if err != nil {
		return Record{}, fmt.Errorf("reading a sign-in: %w", err)
	}
	if f.Address != address {
		return Record{}, fmt.Errorf("reading a sign-in: its file is of another address: %w", store.ErrSignIn)
	}
	key, err := k.key()
	if err != nil {
		return Record{}, fmt.Errorf("reading a sign-in: %w", err)
	}
	aead, err := chacha20poly1305.NewX(key.Open())
	if err != nil {
		return Record{}, err
	}
	damaged := fmt.Errorf("reading a sign-in: its file is damaged: %w", store.ErrSignIn)
	if len(f.Sealed) < aead.NonceSize() {
		return Record{}, damaged
	}
	plain, err := aead.Open(nil, f.Sealed[:aead.NonceSize()], f.Sealed[aead.NonceSize():], []byte(address))
	if err != nil {
		return Record{}, damaged
	}
	defer clear(plain)
	var j recordJSON
	if err := json.Unmarshal(plain, &j); err != nil {
		return Record{}, damaged
	}
	return Record{
		Address: address, Account: j.Account, Password: secret.New(j.Password), Client: j.Client, ClientSecret: secret.New(j.ClientSecret),
		Tokens: Tokens{Access: secret.New(j.Access), Expires: j.Expires, Refresh: secret.New(j.Refresh)},
	}, nil
}

// Whose reports whether the sign-in for an address is, or was, to this account. It is not
// known where there is none, or none that names an account. The keychain is not asked.
func (k *Keeper) Whose(address, account string) (same, known bool) {
	f, err := k.read(k.path(address))
	if err != nil || f.Address != address || f.Whose == "" {
		return false, false
	}
	return f.Whose == whose(address, account), true
}

// Kept returns when the sign-in for an address was kept or changed last, the zero time if
// there is none.
func (k *Keeper) Kept(address string) time.Time {
	info, err := os.Stat(k.path(address))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func (k *Keeper) read(path string) (fileJSON, error) {
	var f fileJSON
	data, err := durable.Disk{}.ReadFile(path, maxFile)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(data, &f); err != nil || f.Version != 1 {
		return f, fmt.Errorf("%s is not what satchel wrote: %w", filepath.Base(path), store.ErrSignIn)
	}
	return f, nil
}

// Put keeps a sign-in, in place of an earlier one of its address. After a crash there is
// the earlier one or this one.
func (k *Keeper) Put(ctx context.Context, r Record) error {
	unlock, err := k.lock(ctx, k.lockOf(r.Address))
	if err != nil {
		return fmt.Errorf("keeping a sign-in: %w", err)
	}
	defer unlock()
	if err := k.put(ctx, r); err != nil {
		return fmt.Errorf("keeping a sign-in: %w", err)
	}
	return nil
}

// put is Put for who holds the lock of the sign-in. It is not given up half-way: a
// provider may have ended what was there before.
func (k *Keeper) put(ctx context.Context, r Record) error {
	unlock, err := k.lock(context.WithoutCancel(ctx), dirLock)
	if err != nil {
		return err
	}
	defer unlock()
	key, err := k.keyOrNew()
	if err != nil {
		return err
	}
	aead, err := chacha20poly1305.NewX(key.Open())
	if err != nil {
		return err
	}
	plain, err := json.Marshal(recordJSON{
		Account: r.Account, Password: r.Password.Open(), Client: r.Client, ClientSecret: r.ClientSecret.Open(),
		Access: r.Tokens.Access.Open(), Expires: r.Tokens.Expires, Refresh: r.Tokens.Refresh.Open(),
	})
	if err != nil {
		return err
	}
	defer clear(plain)
	nonce := secret.Random(aead.NonceSize()).Open()
	data, err := json.Marshal(fileJSON{Version: 1, Address: r.Address, Whose: whose(r.Address, r.Account), Sealed: aead.Seal(nonce, nonce, plain, []byte(r.Address))})
	if err != nil {
		return err
	}
	if len(data) >= maxFile {
		return errors.New("it is too long")
	}
	return durable.Disk{}.WriteFile(k.path(r.Address), append(data, '\n'), 0o600)
}

// Delete forgets the sign-in for an address. That there is none is no error.
func (k *Keeper) Delete(address string) error {
	if err := (durable.Disk{}).Remove(k.path(address)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting a sign-in: %w", err)
	}
	return nil
}

// List returns the addresses of all sign-ins. It opens none: the keychain is not asked.
func (k *Keeper) List() ([]string, error) {
	entries, err := os.ReadDir(k.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing the sign-ins: %w", err)
	}
	var list []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), suffix) || durable.IsTemp(e.Name()) {
			continue
		}
		path := filepath.Join(k.Dir, e.Name())
		if f, err := k.read(path); err == nil && k.path(f.Address) == path {
			list = append(list, f.Address)
		}
	}
	return list, nil
}

// lockOf is the lock of one sign-in: of two processes that refresh one token the second
// finds what the first got. It is held while a provider is asked, so each has its own.
func (k *Keeper) lockOf(address string) string {
	return strings.TrimSuffix(filepath.Base(k.path(address)), suffix) + ".lock"
}

// dirLock is held while a sign-in is written, and the key made that seals it.
const dirLock = "lock"

// lock waits for a lock.
func (k *Keeper) lock(ctx context.Context, name string) (unlock func(), err error) {
	var disk durable.Disk
	if err := disk.MkdirAll(k.Dir, 0o700); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(lockTime)
	for {
		l, err := disk.Lock(filepath.Join(k.Dir, name))
		if err == nil {
			return func() { l.Unlock() }, nil
		}
		if !errors.Is(err, durable.ErrLocked) {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("another satchel is signing in: %w", store.ErrUnreachable)
		}
		timer := time.NewTimer(lockStep)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}
