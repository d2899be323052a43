// Package cln knows which files of a Core Lightning node are kept, and when not.
//
// A node comes back with two files of its directory: hsm_secret, from which all of its
// keys follow, and emergency.recover, which lightningd writes anew at every change of a
// channel, and which asks the peers to close. Its database is never kept: an old copy
// of it can cost all that is in the channels.
//
//	node, err := cln.Find("", wallet.Mainnet)
//	secret, err := node.Secret()
//	files, err := file.New(file.Config{Paths: node.Paths(), Name: node.Item, Required: true})
//	err = cln.New(node, secret.SHA256, files).Run(ctx, save)
//
// The files are watched by another source; this one lets a change pass only while the
// directory is still that node's.
package cln

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/source"
	"github.com/satchel-backup/satchel/wallet"
)

// The items.
const (
	ItemSecret  = "lightning/cln/hsm_secret"
	ItemRecover = "lightning/cln/emergency.recover"
)

const (
	secretFile   = "hsm_secret"
	recoverFile  = "emergency.recover"
	databaseFile = "lightningd.sqlite3"

	maxSecret     = 1024 // bytes
	plainSize     = 32
	encryptedSize = 73 // header, 32 bytes and tag of libsodium's secretstream
	hashSize      = 32 // what words begin with: zeros, or the hash of the seed that a passphrase leads to

	// emptyRecover is the size of an emergency.recover without a channel: 16 bytes, in
	// 41 of libsodium's secretstream.
	emptyRecover = 16 + 41
)

var (
	// ErrNotFound says that there is no directory of a Core Lightning node.
	ErrNotFound = errors.New("no Core Lightning node found")
	// ErrDatabase says that the node's database was named: it is never kept.
	ErrDatabase = errors.New("this is the database of a Core Lightning node: a node that is started with an old copy of it can lose all that is in its channels")
	// ErrNetwork says that the node is on another network than the wallet.
	ErrNetwork = errors.New("this node is on another network")
	// ErrSecret says that a file hsm_secret is none that Core Lightning writes.
	ErrSecret = errors.New("this is not an hsm_secret of Core Lightning")
	// ErrOtherNode says that the hsm_secret in the directory is not the one that is kept:
	// it is another node, or its hsm_secret was encrypted or decrypted since.
	ErrOtherNode = errors.New("the hsm_secret is another one than is kept: nothing of this node is saved")
	// ErrGone says that the directory has no hsm_secret any more.
	ErrGone = errors.New("the node's hsm_secret is not there: nothing of this node is saved")
)

// Form is how an hsm_secret is kept.
type Form string

// The forms.
const (
	Plain       Form = "plain"                   // 32 bytes
	Encrypted   Form = "encrypted"               // with a password, in nodes made before 25.12
	Words       Form = "words"                   // BIP 39, in nodes made since 25.12
	LockedWords Form = "words with a passphrase" // that is not in the file
)

// Locked reports whether the node asks for a password or passphrase that is not in the
// file: without it the file is of no use.
func (f Form) Locked() bool { return f == Encrypted || f == LockedWords }

// FormOf tells the form of an hsm_secret by its bytes, as lightningd does. It returns
// ErrSecret for what is none.
func FormOf(value []byte) (Form, error) {
	switch n := len(value); {
	case n == plainSize:
		return Plain, nil
	case n == encryptedSize:
		return Encrypted, nil
	case n < hashSize || n > maxSecret:
		return "", ErrSecret
	}
	words := secret.New(bytes.TrimRight(value[hashSize:], "\n\x00"))
	defer words.Wipe()
	if _, err := wallet.ParseWords(words); err != nil {
		return "", ErrSecret
	}
	if bytes.Equal(value[:hashSize], make([]byte, hashSize)) {
		return Words, nil
	}
	return LockedWords, nil
}

// Node is a node's directory.
type Node struct {
	Dir     string         // that of the network, with hsm_secret in it
	Network wallet.Network // "" if the directory's name does not tell
}

// dirs are the names of the networks' directories.
var dirs = []struct {
	name    string
	network wallet.Network
}{
	{"bitcoin", wallet.Mainnet}, {"testnet", wallet.Testnet}, {"testnet4", wallet.Testnet}, {"signet", wallet.Signet}, {"regtest", wallet.Regtest},
}

// Directories lists where lightningd's directory is on this machine if it is where
// lightningd or one of the usual node systems puts it. Most of them do not exist.
func Directories() []string {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil
	}
	return []string{
		filepath.Join(home, ".lightning"),
		filepath.Join(home, "umbrel", "app-data", "core-lightning", "data", "lightningd"), // Umbrel
		"/home/bitcoin/.lightning",                                                        // RaspiBlitz
		"/var/lib/clightning",                                                             // nix-bitcoin
	}
}

// Find looks at a directory: lightningd's, or that of one network in it; "" for the
// first of [Directories] in which there is a node. The node is on the given network,
// else the error is ErrNetwork. Errors beside: ErrNotFound, ErrDatabase, and those of the
// operating system, such as fs.ErrPermission.
func Find(dir string, network wallet.Network) (*Node, error) {
	if dir == "" {
		var first error
		for _, dir := range Directories() {
			n, err := Find(dir, network)
			if err == nil {
				return n, nil
			}
			if !errors.Is(err, ErrNotFound) && first == nil {
				first = err
			}
		}
		if first != nil {
			return nil, first
		}
		return nil, fmt.Errorf("%w; looked in %s", ErrNotFound, strings.Join(Directories(), ", "))
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	switch base := filepath.Base(dir); {
	case strings.HasPrefix(base, databaseFile):
		return nil, ErrDatabase
	case base == secretFile || base == recoverFile:
		dir = filepath.Dir(dir)
	}
	switch there, err := has(dir); {
	case err != nil:
		return nil, err
	case there:
		n := &Node{Dir: dir, Network: networkOf(dir)}
		if n.Network != "" && n.Network != network {
			return nil, fmt.Errorf("%w: it is on %s, the wallet on %s", ErrNetwork, n.Network, network)
		}
		return n, nil
	}
	other := wallet.Network("")
	for _, d := range dirs {
		sub := filepath.Join(dir, d.name)
		there, err := has(sub)
		switch {
		case err != nil && d.network == network:
			return nil, err
		case !there:
		case d.network == network:
			return &Node{Dir: sub, Network: network}, nil
		default:
			other = d.network
		}
	}
	if other != "" {
		return nil, fmt.Errorf("%w: it is on %s, the wallet on %s", ErrNetwork, other, network)
	}
	return nil, fmt.Errorf("%w in %s: it has no hsm_secret", ErrNotFound, dir)
}

// has reports whether a directory holds an hsm_secret.
func has(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, secretFile))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrPermission):
		return false, fmt.Errorf("looking into %s: %w", dir, fs.ErrPermission)
	}
	return false, nil // Not there, or no directory.
}

func networkOf(dir string) wallet.Network {
	for _, d := range dirs {
		if d.name == filepath.Base(dir) {
			return d.network
		}
	}
	return ""
}

// HasDatabase reports whether a path is the database of a node, or a directory with one
// in it, or in it that of a network.
func HasDatabase(path string) bool {
	if strings.HasPrefix(filepath.Base(path), databaseFile) {
		return true
	}
	for _, sub := range []string{"", "bitcoin", "testnet", "testnet4", "signet", "regtest"} {
		if _, err := os.Stat(filepath.Join(path, sub, databaseFile)); err == nil {
			return true
		}
	}
	return false
}

// Paths are the files that are kept.
func (n *Node) Paths() []string {
	return []string{filepath.Join(n.Dir, secretFile), filepath.Join(n.Dir, recoverFile)}
}

// Item is the item of a file, "" for one that is not kept.
func (n *Node) Item(path string) string {
	switch path {
	case filepath.Join(n.Dir, secretFile):
		return ItemSecret
	case filepath.Join(n.Dir, recoverFile):
		return ItemRecover
	}
	return ""
}

// Secret is what can be told of an hsm_secret without showing it.
type Secret struct {
	Form   Form
	SHA256 [sha256.Size]byte
}

// Secret reads the node's hsm_secret. It returns ErrSecret, ErrGone, or the error of
// reading it.
func (n *Node) Secret() (Secret, error) {
	value, err := durable.Disk{}.ReadFile(filepath.Join(n.Dir, secretFile), maxSecret)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Secret{}, ErrGone
	case errors.Is(err, durable.ErrTooLarge):
		return Secret{}, ErrSecret
	case err != nil:
		return Secret{}, fmt.Errorf("reading the node's hsm_secret: %w", err)
	}
	defer clear(value)
	form, err := FormOf(value)
	return Secret{form, sha256.Sum256(value)}, err
}

// Same returns nil if the directory has the hsm_secret of this SHA-256, else ErrOtherNode
// or the errors of Secret.
func (n *Node) Same(kept [sha256.Size]byte) error {
	s, err := n.Secret()
	if s.SHA256 == kept {
		return nil // Whatever it is, it is what is kept.
	}
	if err != nil && !errors.Is(err, ErrSecret) {
		return err
	}
	return ErrOtherNode
}

// Source is a source of a node's files.
type Source struct {
	// Kept, if not nil, returns the value that is kept of an item, or an error. With it an
	// emergency.recover without a channel, as lightningd makes it where it finds none,
	// does not take the place of one with channels: that becomes an item below its name.
	Kept func(item string) (secret.Bytes, error)

	node  *Node
	kept  [sha256.Size]byte
	files source.Source
}

var _ source.Source = (*Source)(nil)

// New returns a source that hands on what files, a source of the node's Paths, finds,
// while the hsm_secret in the directory is the one that is kept.
func New(node *Node, kept [sha256.Size]byte, files source.Source) *Source {
	return &Source{node: node, kept: kept, files: files}
}

// Run is as in [source.Source]. It ends with ErrOtherNode, ErrGone or the error of reading
// the hsm_secret when that is not there as it is kept: a node that was set up anew in the
// directory must not take the place of the one that is to be saved.
func (s *Source) Run(ctx context.Context, save func(ctx context.Context, changes ...source.Change) error) error {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := s.files.Run(inner, s.Guard(func(err error) { cancel(err) }, save))
	if ctx.Err() == nil && inner.Err() != nil {
		return context.Cause(inner)
	}
	return err
}

// Guard returns save, for changes while the directory is still the node's. Otherwise the
// changes are refused, and failed, if not nil, is told why.
func (s *Source) Guard(failed func(error), save func(ctx context.Context, changes ...source.Change) error) func(ctx context.Context, changes ...source.Change) error {
	return func(ctx context.Context, changes ...source.Change) error {
		if err := s.node.Same(s.kept); err != nil {
			if failed != nil {
				failed(err)
			}
			return err
		}
		// One that is being made has no bytes at first; the next look finds it whole.
		changes = slices.DeleteFunc(slices.Clone(changes), func(c source.Change) bool {
			return c.Name == ItemRecover && !c.Remove && len(c.Value) < emptyRecover
		})
		if len(changes) == 0 {
			return nil
		}
		return save(ctx, s.withOlder(changes)...)
	}
}

// withOlder adds the emergency.recover that would be lost, if there is one.
func (s *Source) withOlder(changes []source.Change) []source.Change {
	for _, c := range changes {
		if c.Name != ItemRecover || len(c.Value) > emptyRecover || s.Kept == nil {
			continue
		}
		if old, err := s.Kept(ItemRecover); err == nil && old.Len() > emptyRecover {
			return append(changes, source.Change{Name: OlderItem(ItemRecover, old), Value: old.Open()})
		}
	}
	return changes
}

// OlderItem is the item of an older value of an item, by the first digits of its hash.
func OlderItem(item string, value secret.Bytes) string {
	sum := sha256.Sum256(value.Open())
	return fmt.Sprintf("%s/%x", item, sum[:4])
}
