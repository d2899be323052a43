// Package protocol holds the messages between a guard and a key server, byte by
// byte, and the little cryptography that both need: docs/protocol.md in Go.
//
// A key server guards one secret key for each account. It evaluates a verifiable
// oblivious pseudorandom function (RFC 9497) on what a client blinded, a limited
// number of times, and never learns a PIN or anything that a PIN could be tested
// with. The client of many key servers is package guard, the server package
// keyserver.
//
// Every request carries the public access key of its account and a signature over
// its bytes, so that a server can turn strangers away before it looks anything up:
//
//	body := protocol.Sign(access, seq, protocol.Evaluate{Attempt: a, Blinded: e, Slot: s})
//	...
//	req, err := protocol.ParseRequest(body)
//
// All numbers are big-endian and all fields have fixed sizes; what has another
// length is [ErrMalformed].
package protocol

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Labels say what a hash or a signature is of, so that none can stand for another.
const (
	labelAccount = "satchel/v1/account\n"
	labelRequest = "satchel/v1/request\n"
	labelConfirm = "satchel/v1/confirm\n"
	labelFinish  = "satchel/v1/finish\n"
	labelReplace = "satchel/v1/replace\n"
	labelHead    = "satchel/v1/head\n"
	labelEpoch   = "satchel/v1/epoch\n"
	labelDelete  = "satchel/v1/delete\n"
)

// Version is the first byte of every message.
const Version = 1

// Path is where requests are posted, below the name of a server.
const Path = "/satchel/v1"

// ContentType is that of requests and replies.
const ContentType = "application/vnd.satchel.guard"

// Sizes in bytes.
const (
	ElementSize   = 32 // of a group element of ristretto255
	ProofSize     = 64 // of a proof of RFC 9497, two scalars
	SignatureSize = ed25519.SignatureSize
	PublicSize    = ed25519.PublicKeySize

	// MaxMessage is the size of the longest request and of the longest reply.
	MaxMessage = 512
)

// Limits that servers and clients agree on.
const (
	// MaxGuesses is the most guesses that an account may have.
	MaxGuesses = 10
	// LifeGuesses is how many wrong guesses an account takes in its life.
	LifeGuesses = 50
	// MaxAhead is how far the sequence number of a request may be ahead of the
	// server's clock, or of the last one.
	MaxAhead = 10 * time.Minute
	// PendingLife is how long an account lives that is not confirmed.
	PendingLife = 7 * 24 * time.Hour
	// MaxGuardians is the most key servers that guard one secret.
	MaxGuardians = 10
)

// GuessLimit returns how many guesses each of n guardians allows, so that with t - 1 of
// them corrupt no more than MaxGuesses are had in all: ⌊10 / (n − t + 1)⌋, at least 1.
func GuessLimit(t, n int) int { return max(1, MaxGuesses/(n-t+1)) }

// ErrMalformed says that bytes are no message of this protocol.
var ErrMalformed = errors.New("malformed message")

// ErrNewerProtocol says that a message is of a later version of the protocol.
var ErrNewerProtocol = errors.New("newer version of the key-server protocol")

// ErrSignature says that a signature is not that of the key that it names.
var ErrSignature = errors.New("wrong signature")

// Account names an account at one key server: SHA-256 of a label and the public access
// key. It tells nothing about its owner, and is another one at each server.
type Account [32]byte

// AccountOf returns the account of a public access key.
func AccountOf(access ed25519.PublicKey) Account {
	h := sha256.New()
	h.Write([]byte(labelAccount))
	h.Write(access)
	return Account(h.Sum(nil))
}

// String returns the account in hex.
func (a Account) String() string { return hex.EncodeToString(a[:]) }

// Signature is one of Ed25519 (RFC 8032).
type Signature [SignatureSize]byte

// Public is a public key of Ed25519.
type Public [PublicSize]byte

// signed reports whether sig is the signature of key over a label and parts.
func (p Public) signed(sig Signature, label string, parts ...[]byte) bool {
	return ed25519.Verify(p[:], statement(label, parts), sig[:])
}

func sign(key ed25519.PrivateKey, label string, parts ...[]byte) Signature {
	return Signature(ed25519.Sign(key, statement(label, parts)))
}

// statement is what is signed. All parts have fixed sizes.
func statement(label string, parts [][]byte) []byte {
	b := []byte(label)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// Code is what a reply says.
type Code byte

const (
	CodeOK          Code = 0
	CodeUnknown     Code = 1  // there is no such account
	CodeErased      Code = 2  // too many wrong guesses: the key is gone for ever
	CodeLocked      Code = 3  // no guess before a time; Locked
	CodeSlotDamaged Code = 4  // the slot is not the one that was registered
	CodeSequence    Code = 5  // the request is old, or too far ahead; Sequence
	CodeSignature   Code = 6  // the request is not signed by its access key
	CodeMalformed   Code = 7  // the request is no message of this protocol
	CodeDenied      Code = 8  // the second signature, or the nonce, is wrong
	CodeExists      Code = 9  // the account was made with another element
	CodePending     Code = 10 // the account is not confirmed
	CodeConflict    Code = 11 // the head is further, or in another epoch; Head
	CodeUnavailable Code = 12 // try again later; whether anything was changed is not known
	CodeToken       Code = 13 // the server wants a registration token
	CodeNewer       Code = 14 // the request is of a later version
)

var codeTexts = map[Code]string{
	CodeOK:          "ok",
	CodeUnknown:     "no such account",
	CodeErased:      "erased after too many wrong guesses",
	CodeLocked:      "locked after wrong guesses",
	CodeSlotDamaged: "another slot than the registered one",
	CodeSequence:    "sequence number out of order",
	CodeSignature:   "wrong signature of the request",
	CodeMalformed:   "malformed request",
	CodeDenied:      "not allowed",
	CodeExists:      "the account exists",
	CodePending:     "the account is not confirmed",
	CodeConflict:    "the head is further or of another epoch",
	CodeUnavailable: "the server cannot answer now",
	CodeToken:       "registration token needed",
	CodeNewer:       "newer version of the protocol",
}

func (c Code) String() string {
	if s, ok := codeTexts[c]; ok {
		return s
	}
	return fmt.Sprintf("code %d", byte(c))
}
