package lnd

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/satchel-backup/satchel/secret"
)

// Permission is one that a macaroon of lnd's gives.
type Permission struct {
	Entity string `json:"entity"`
	Action string `json:"action"`
}

// String returns it as lncli bakemacaroon takes it.
func (p Permission) String() string { return p.Entity + ":" + p.Action }

// Permissions is what a [Source] needs, exactly: the backup and the lists of channels
// (offchain:read), who the node is and what others announced (info:read), and the
// addresses of its peers (peers:read). It moves no money and changes nothing.
func Permissions() []Permission {
	return []Permission{{"offchain", "read"}, {"info", "read"}, {"peers", "read"}}
}

// Bake makes a macaroon with [Permissions], under a root key of its own, so that it can
// be revoked alone, and proves that it works. The Node's macaroon must allow
// macaroon:generate, as lnd's admin.macaroon does; it is used for this and not kept.
func (n *Node) Bake(ctx context.Context) (mac secret.Bytes, rootKey uint64, err error) {
	var b [8]byte
	rand.Read(b[:])
	// Some clients read it as a signed number; 0 is that of lnd's own macaroons.
	rootKey = binary.BigEndian.Uint64(b[:])>>1 | 1<<32
	mac, err = n.BakeMacaroon(ctx, rootKey, Permissions()...)
	if errors.Is(err, ErrPermission) {
		return secret.Bytes{}, 0, &PermissionError{Lacks: []Permission{{"macaroon", "generate"}}}
	}
	if err != nil {
		return secret.Bytes{}, 0, fmt.Errorf("baking a macaroon: %w", err)
	}
	if err := n.With(mac).Prove(ctx); err != nil {
		return secret.Bytes{}, 0, fmt.Errorf("proving the new macaroon: %w", err)
	}
	return mac, rootKey, nil
}

// With returns the same connection with another macaroon.
func (n *Node) With(macaroon secret.Bytes) *Node {
	other := *n
	other.macaroon = macaroon
	return &other
}

// Prove makes the calls that a [Source] makes, all of which only read. What the macaroon
// lacks is told in a *PermissionError; another error is that of the first call which has
// one.
func (n *Node) Prove(ctx context.Context) error {
	permissions := Permissions()
	offchain, info, peers := permissions[0], permissions[1], permissions[2]
	var lacks []Permission
	for _, c := range []struct {
		needs Permission
		call  func() error
	}{
		{info, func() error {
			me, err := n.Info(ctx)
			if err == nil {
				_, err = n.Announced(ctx, me.PubKey)
			}
			return err
		}},
		{offchain, func() error { _, err := n.Export(ctx); return err }},
		{offchain, func() error { _, err := n.Pending(ctx); return err }},
		{offchain, func() error { _, err := n.Closed(ctx); return err }},
		{peers, func() error { _, err := n.Peers(ctx); return err }},
	} {
		err := c.call()
		switch {
		case errors.Is(err, ErrPermission):
			if !slices.Contains(lacks, c.needs) {
				lacks = append(lacks, c.needs)
			}
		case err != nil:
			return err
		}
	}
	if len(lacks) > 0 {
		return &PermissionError{Lacks: lacks}
	}
	return nil
}

// Beyond returns what a macaroon allows besides [Permissions]. A macaroon says itself what
// it allows, to who can read its form; of one whose form is another one than lnd 0.20
// writes nothing is known, and nothing returned. Caveats, which take something away again,
// do not count.
func Beyond(macaroon secret.Bytes) []Permission {
	var beyond []Permission
	for _, p := range allows(macaroon.Open()) {
		if !slices.Contains(Permissions(), p) && !slices.Contains(beyond, p) {
			beyond = append(beyond, p)
		}
	}
	return beyond
}

// Of the form of a macaroon: version 2, as libmacaroons has it, with an identifier as the
// "bakery" that lnd uses has it (its version 3, a message in protocol buffers).
const (
	macaroonV2    = 2
	fieldLocation = 1
	fieldID       = 2

	bakeryV3  = 3
	idOps     = 3 // fields of the identifier, and of each of its operations
	opEntity  = 1
	opActions = 2
)

// allows reads the permissions of a macaroon, nil if it cannot.
func allows(mac []byte) []Permission {
	if len(mac) == 0 || len(mac) > maxMacaroon || mac[0] != macaroonV2 {
		return nil
	}
	rest, id := mac[1:], []byte(nil)
	for id == nil {
		field, n := binary.Uvarint(rest)
		if n <= 0 || field != fieldLocation && field != fieldID {
			return nil
		}
		data, more, ok := counted(rest[n:])
		if !ok {
			return nil
		}
		if rest = more; field == fieldID {
			id = data
		}
	}
	if len(id) == 0 || id[0] != bakeryV3 {
		return nil
	}
	var all []Permission
	for field, op := range messageFields(id[1:]) {
		if field != idOps {
			continue
		}
		var p Permission
		for field, text := range messageFields(op) {
			switch field {
			case opEntity:
				p.Entity = string(text)
			case opActions:
				p.Action = string(text)
				all = append(all, p)
			}
		}
	}
	return all
}

// messageFields goes through the fields of a message that are bytes, in their order, and
// ends at anything else.
func messageFields(message []byte) iter.Seq2[uint64, []byte] {
	const isBytes = 2
	return func(yield func(uint64, []byte) bool) {
		for len(message) > 0 {
			tag, n := binary.Uvarint(message)
			if n <= 0 || tag&7 != isBytes {
				return
			}
			data, rest, ok := counted(message[n:])
			if !ok || !yield(tag>>3, data) {
				return
			}
			message = rest
		}
	}
}

// counted takes bytes off that their number stands before.
func counted(b []byte) (data, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(size)], b[n+int(size):], true
}
