package seal

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"io"

	"filippo.io/age"
)

// Recipient is the payload recipient.
func Recipient(d *DeviceKey) *age.HybridRecipient { return d.recipient }

// Plaintext is what SealSnapshot encrypts.
func Plaintext(d *DeviceKey, s *Snapshot) ([]byte, error) { return s.encode(d.writer) }

// WriterMAC is the MAC of a device over the text before its MAC line.
func WriterMAC(d *DeviceKey, text []byte) []byte {
	m := hmac.New(sha256.New, d.writer.Open())
	m.Write(text)
	return m.Sum(nil)
}

// ParseSnapshot is OpenSnapshot after decryption.
func ParseSnapshot(k *Keys, plain io.Reader, name SnapshotName) (*Snapshot, error) {
	return k.parseSnapshot(plain, name)
}

// ReadLines reads lines as a snapshot's until there is an error.
func ReadLines(plain io.Reader) error {
	l := &lineReader{r: bufio.NewReaderSize(plain, MaxLine)}
	for {
		if _, err := l.next(); err != nil {
			return err
		}
	}
}

// ParseItemLine and ItemLine read and write an item line of a snapshot.
func ParseItemLine(text []byte) (Item, error) { return parseItem(text) }
func ItemLine(it Item) []byte                 { return line(it.json()) }

// Derive shows a derived key.
func Derive(k *Keys, info string) []byte { return k.derive(info).Open() }

// Secrets are the bytes of k and d that must not be printed.
func (k *Keys) Secrets() [][]byte {
	return [][]byte{k.key.Open(), k.name.Open(), k.owner.Open(), []byte(k.identity.String()), Derive(k, "satchel/v1/payload")}
}
func (d *DeviceKey) Secrets() [][]byte {
	return [][]byte{d.name.Open(), d.writer.Open(), d.head.Open()}
}

// Encrypt seals any plaintext to any recipient.
func Encrypt(plain []byte, r age.Recipient) []byte {
	out, err := encrypt(plain, r)
	if err != nil {
		panic(err)
	}
	return out
}
