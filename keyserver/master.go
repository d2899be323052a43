package keyserver

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/satchel-backup/satchel/secret"
)

// MasterSize is the length of a master key in bytes.
const MasterSize = 32

// ErrMaster says that no master key of this server opens a record.
var ErrMaster = errors.New("no master key opens this record")

// Master seals records. New records are sealed under the first key; the others open
// what is not sealed anew yet. It is safe for concurrent use.
type Master struct {
	keys atomic.Pointer[masterKeys]
}

type masterKeys struct {
	list   []masterKey
	nonces []byte
}

type masterKey struct {
	id  [4]byte
	key []byte
}

// NewMaster returns the master of one or more keys of MasterSize bytes, the newest
// first.
func NewMaster(keys ...secret.Bytes) (*Master, error) {
	m := &Master{}
	if err := m.Set(keys...); err != nil {
		return nil, err
	}
	return m, nil
}

// Set replaces the keys, as they are to be while records are sealed anew: a key that is
// new to other servers of the database is not the first before all of them have it.
func (m *Master) Set(keys ...secret.Bytes) error {
	set := &masterKeys{}
	for _, k := range keys {
		if k.Len() != MasterSize {
			return fmt.Errorf("a master key has %d bytes, not %d", k.Len(), MasterSize)
		}
		id, err := hkdf.Key(sha256.New, k.Open(), nil, "satchel/v1/master-id", 4)
		if err != nil {
			return err
		}
		seal, err := hkdf.Key(sha256.New, k.Open(), nil, "satchel/v1/record", chacha20poly1305.KeySize)
		if err != nil {
			return err
		}
		set.list = append(set.list, masterKey{[4]byte(id), seal})
	}
	if len(set.list) == 0 {
		return errors.New("no master key")
	}
	var err error
	set.nonces, err = hkdf.Key(sha256.New, keys[0].Open(), nil, "satchel/v1/nonce", 32)
	if err != nil {
		return err
	}
	m.keys.Store(set)
	return nil
}

// ID names the key that new records are sealed under. It tells nothing about the key.
func (m *Master) ID() string { return hex.EncodeToString(m.keys.Load().list[0].id[:]) }

// current reports whether a record is sealed under the first key.
func (m *Master) current(b []byte) bool {
	return len(b) >= 4 && [4]byte(b) == m.keys.Load().list[0].id
}

// has reports whether there is a key of the name that a record gives.
func (m *Master) has(b []byte) bool {
	return len(b) >= 4 && slices.ContainsFunc(m.keys.Load().list, func(k masterKey) bool { return k.id == [4]byte(b) })
}

// seal seals a record for its place in the database. A record in another place does not
// open.
func (m *Master) seal(id ID, b []byte) ([]byte, error) {
	k := m.keys.Load().list[0]
	aead, err := chacha20poly1305.NewX(k.key)
	if err != nil {
		return nil, err
	}
	out := append([]byte{}, k.id[:]...)
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	out = append(out, nonce...)
	return aead.Seal(out, nonce, b, id[:]), nil
}

func (m *Master) open(id ID, b []byte) ([]byte, error) {
	if len(b) < 4+chacha20poly1305.NonceSizeX {
		return nil, ErrMaster
	}
	for _, k := range m.keys.Load().list {
		if [4]byte(b) != k.id {
			continue
		}
		aead, err := chacha20poly1305.NewX(k.key)
		if err != nil {
			return nil, err
		}
		nonce, sealed := b[4:4+aead.NonceSize()], b[4+aead.NonceSize():]
		if out, err := aead.Open(nil, nonce, sealed, id[:]); err == nil {
			return out, nil
		}
	}
	return nil, ErrMaster
}
