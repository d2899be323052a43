package durable

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Limits of a log. What is beyond them is ErrTooLarge and not written.
const (
	MaxRecord = 64 << 20  // bytes in a record
	MaxGroup  = 128 << 20 // bytes in the records of one AppendAll, with 4 for each record
	MaxLog    = 1 << 30   // bytes in the file
)

var (
	// ErrCorrupt says that a log is damaged in a way that no crash explains:
	// intact records stand behind the damage, or its beginning is missing. The
	// file was left as it is.
	ErrCorrupt = errors.New("log is corrupt")
	// ErrReopen says that the log can no longer tell what is in its file, after
	// an error that the system reported. The caller opens it again.
	ErrReopen = errors.New("log must be opened again")
)

// The file begins with logMagic, a random salt of 8 bytes, and the CRC-32C of
// both. Groups follow, one for each append:
//
//	length of the body   4 bytes, big-endian
//	CRC-32C of the body  4 bytes
//	CRC-32C of the salt, the group's offset in the file (8 bytes) and the 8 bytes before
//	body                 for each record its length (4 bytes) and its bytes
//
// A checksum here finds accidents, not attacks: whoever can write the file can
// write what he likes. Salt and offset keep bytes inside a record, or blocks of
// an older file, from passing for a group. A group is written in one piece and
// flushed before the next one is begun, so only the last can be torn, in whatever
// order the disk wrote its blocks.
const (
	logMagic    = "satchlg1"
	logHeader   = 20
	groupHeader = 12
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Log is an append-only file of opaque records. Methods may be called
// concurrently. One Log at a time may be at a file: the caller holds a [Lock].
type Log struct {
	disk Disk
	path string

	mu     sync.Mutex
	salt   [8]byte // of the file; guarded by mu
	size   int64   // its good length; guarded by mu
	dirty  bool    // what a failed append left may stand behind size; guarded by mu
	broken bool    // a failed Rewrite left the file unknown; guarded by mu
}

// OpenLog opens the log at path, or begins an empty one, and returns the records
// in it, in the order of their appending. If a crash interrupted the last
// append, what it left is removed, and cut is the number of bytes that were; the
// records of that append were never promised to anybody. Damage of another kind
// is ErrCorrupt. Records returned are durable, also where the process that
// appended them died before it knew.
func (d Disk) OpenLog(path string) (l *Log, records [][]byte, cut int64, err error) {
	defer func() {
		if err != nil {
			l, records, cut = nil, nil, 0
			err = fmt.Errorf("opening log: %w", err)
		}
	}()
	l = &Log{disk: d, path: path}
	f, err := d.openRegular(path, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil, 0, l.replace(nil)
	}
	if err != nil {
		return nil, nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, 0, err
	}
	if info.Size() > MaxLog {
		return nil, nil, 0, ErrTooLarge
	}
	l.salt, records, l.size, err = readLog(f, info.Size())
	if err != nil {
		return nil, nil, 0, err
	}
	if cut = info.Size() - l.size; cut > 0 {
		// A crash here leaves the torn group, and the next opening cuts it.
		err = d.step(OpTruncate, path, func() error { return f.Truncate(l.size) })
		if err != nil {
			return nil, nil, 0, err
		}
	}
	// The process that wrote may have died before it flushed.
	if err = d.step(OpSync, path, f.Sync); err != nil {
		return nil, nil, 0, err
	}
	return l, records, cut, d.syncDir(filepath.Dir(path))
}

// Append adds a record. When it returns nil the record is durable. When it
// returns an error the record is not in the log, unless the log could not be
// mended: then a crash may leave it there, and the next append mends first, or
// fails.
func (l *Log) Append(record []byte) error { return l.AppendAll([][]byte{record}) }

// AppendAll adds records, all or none of them, as Append does. One call costs no
// more flushes than one Append.
func (l *Log) AppendAll(records [][]byte) error {
	if len(records) == 0 {
		return nil
	}
	if err := checkSizes(records); err != nil {
		return fmt.Errorf("appending to log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.append(records); err != nil {
		return fmt.Errorf("appending to log: %w", err)
	}
	return nil
}

// append writes one group. The caller holds mu.
func (l *Log) append(records [][]byte) error {
	if l.broken {
		return ErrReopen
	}
	f, err := l.disk.openRegular(l.path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	if l.dirty {
		if err := l.mend(f); err != nil {
			return err
		}
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != l.size {
		return fmt.Errorf("another wrote the file: %w", ErrCorrupt)
	}
	group := appendGroup(nil, l.salt, l.size, records)
	if l.size+int64(len(group)) > MaxLog {
		return ErrTooLarge
	}
	l.dirty = true
	// A crash before the end of the flush leaves a whole group or a torn one.
	err = l.disk.step(OpAppend, l.path, func() error { _, err := f.WriteAt(group, l.size); return err })
	if err == nil {
		err = l.disk.step(OpSync, l.path, f.Sync)
	}
	if err != nil {
		return errors.Join(err, l.mend(f))
	}
	l.size += int64(len(group))
	l.dirty = false
	return nil
}

// mend cuts off what a failed append left. The caller holds mu.
func (l *Log) mend(f *os.File) error {
	err := l.disk.step(OpTruncate, l.path, func() error { return f.Truncate(l.size) })
	if err == nil {
		err = l.disk.step(OpSync, l.path, f.Sync)
	}
	if err != nil {
		return fmt.Errorf("mending: %w", err)
	}
	l.dirty = false
	return nil
}

// Rewrite replaces the content of the log. After a crash the file is the old
// one or the new one, whole. When Rewrite returns nil it is the new one. When it
// returns an error it is the old one and appending goes on, unless the error is
// ErrReopen.
func (l *Log) Rewrite(records [][]byte) error {
	for _, r := range records {
		if len(r) > MaxRecord {
			return fmt.Errorf("rewriting log: %w", ErrTooLarge)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return fmt.Errorf("rewriting log: %w", ErrReopen)
	}
	if err := l.replace(records); err != nil {
		return fmt.Errorf("rewriting log: %w", err)
	}
	return nil
}

// replace writes a new file. The caller holds mu, or is alone.
func (l *Log) replace(records [][]byte) error {
	var salt [8]byte
	rand.Read(salt[:])
	size := int64(logHeader)
	for _, r := range records {
		size += groupHeader + 4 + int64(len(r))
	}
	if size > MaxLog {
		return ErrTooLarge
	}
	data := make([]byte, 0, size)
	data = append(data, logMagic...)
	data = append(data, salt[:]...)
	data = binary.BigEndian.AppendUint32(data, crc32.Checksum(data, castagnoli))
	for _, r := range records {
		data = appendGroup(data, salt, int64(len(data)), [][]byte{r})
	}
	if err := l.disk.WriteFile(l.path, data, 0o600); err != nil {
		// The salt tells which of the two files stands there now.
		there, lookErr := l.readSalt()
		switch {
		case lookErr == nil && there == salt && l.disk.syncDir(filepath.Dir(l.path)) == nil:
			// The new one, and durable after all.
		case lookErr == nil && there == l.salt && l.size > 0:
			return err
		default:
			l.broken = true
			return errors.Join(err, ErrReopen)
		}
	}
	l.salt, l.size, l.dirty = salt, int64(len(data)), false
	return nil
}

// readSalt returns the salt of the file at the log's path.
func (l *Log) readSalt() (salt [8]byte, err error) {
	f, err := l.disk.openRegular(l.path, os.O_RDONLY)
	if err != nil {
		return salt, err
	}
	defer f.Close()
	_, err = f.ReadAt(salt[:], int64(len(logMagic)))
	return salt, err
}

// Unchanged reports whether the file is as this Log left it: nobody else appended
// to it or wrote it anew, and no error left it in doubt.
func (l *Log) Unchanged() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken || l.dirty {
		return false
	}
	info, err := l.disk.files().Lstat(l.path)
	if err != nil || info.Size() != l.size {
		return false
	}
	salt, err := l.readSalt()
	return err == nil && salt == l.salt
}

// Size returns the length of the file, for a caller who decides when to Rewrite.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}

func checkSizes(records [][]byte) error {
	total := 0
	for _, r := range records {
		if len(r) > MaxRecord {
			return ErrTooLarge
		}
		if total += 4 + len(r); total > MaxGroup {
			return ErrTooLarge
		}
	}
	return nil
}

// appendGroup appends to data the group that stands at offset in the file.
func appendGroup(data []byte, salt [8]byte, offset int64, records [][]byte) []byte {
	start := len(data)
	data = append(data, make([]byte, groupHeader)...)
	for _, r := range records {
		data = binary.BigEndian.AppendUint32(data, uint32(len(r)))
		data = append(data, r...)
	}
	head, body := data[start:start+groupHeader], data[start+groupHeader:]
	binary.BigEndian.PutUint32(head, uint32(len(body)))
	binary.BigEndian.PutUint32(head[4:], crc32.Checksum(body, castagnoli))
	binary.BigEndian.PutUint32(head[8:], headSum(salt, offset, head))
	return data
}

// headSum returns the checksum over the first 8 bytes of a group's header.
func headSum(salt [8]byte, offset int64, head []byte) uint32 {
	var b [24]byte
	copy(b[:], salt[:])
	binary.BigEndian.PutUint64(b[8:], uint64(offset))
	copy(b[16:], head[:8])
	return crc32.Checksum(b[:], castagnoli)
}

// readLog returns what is in a log of size bytes, and the length of its good
// part: less than size if the last group is torn.
func readLog(r io.ReaderAt, size int64) (salt [8]byte, records [][]byte, good int64, err error) {
	var header [logHeader]byte
	if size < logHeader {
		// The file was made in one piece, so no crash explains this.
		return salt, nil, 0, fmt.Errorf("no beginning: %w", ErrCorrupt)
	}
	if _, err := r.ReadAt(header[:], 0); err != nil {
		return salt, nil, 0, err
	}
	sum := binary.BigEndian.Uint32(header[logHeader-4:])
	if string(header[:len(logMagic)]) != logMagic || sum != crc32.Checksum(header[:logHeader-4], castagnoli) {
		return salt, nil, 0, fmt.Errorf("not a log: %w", ErrCorrupt)
	}
	copy(salt[:], header[len(logMagic):])

	good = logHeader
	for good < size {
		body, state, err := readGroup(r, salt, good, size)
		if err != nil {
			return salt, nil, 0, err
		}
		switch state {
		case groupTorn:
			return salt, records, good, nil
		case groupUnknown:
			more, err := groupFollows(r, salt, good+1, size)
			if err != nil {
				return salt, nil, 0, err
			}
			if more {
				return salt, nil, 0, fmt.Errorf("damaged at byte %d: %w", good, ErrCorrupt)
			}
			return salt, records, good, nil
		case groupDamaged:
			return salt, nil, 0, fmt.Errorf("damaged at byte %d: %w", good, ErrCorrupt)
		}
		good += groupHeader + int64(len(body))
		for len(body) > 0 {
			if len(body) < 4 {
				return salt, nil, 0, fmt.Errorf("malformed group: %w", ErrCorrupt)
			}
			n := int64(binary.BigEndian.Uint32(body))
			if n > MaxRecord || n > int64(len(body)-4) {
				return salt, nil, 0, fmt.Errorf("malformed group: %w", ErrCorrupt)
			}
			records = append(records, body[4:4+n:4+n])
			body = body[4+n:]
		}
	}
	return salt, records, good, nil
}

type groupState int

const (
	groupGood    groupState = iota
	groupTorn               // the header is good and the file ends with or inside the body
	groupUnknown            // the header is not good
	groupDamaged            // the header is good, the body is not, and something follows
)

// readGroup reads the group at offset.
func readGroup(r io.ReaderAt, salt [8]byte, offset, size int64) (body []byte, state groupState, err error) {
	var head [groupHeader]byte
	if size-offset < groupHeader {
		return nil, groupUnknown, nil
	}
	if _, err := r.ReadAt(head[:], offset); err != nil {
		return nil, 0, err
	}
	if binary.BigEndian.Uint32(head[8:]) != headSum(salt, offset, head[:]) {
		return nil, groupUnknown, nil
	}
	length := int64(binary.BigEndian.Uint32(head[:]))
	if length < 4 || length > MaxGroup {
		return nil, groupDamaged, nil // Nothing that was written here.
	}
	end := offset + groupHeader + length
	if end > size {
		return nil, groupTorn, nil
	}
	body = make([]byte, length)
	if _, err := r.ReadAt(body, offset+groupHeader); err != nil {
		return nil, 0, err
	}
	switch {
	case crc32.Checksum(body, castagnoli) == binary.BigEndian.Uint32(head[4:]):
		return body, groupGood, nil
	case end == size:
		return nil, groupTorn, nil
	default:
		return nil, groupDamaged, nil
	}
}

// groupFollows reports whether a group begins at offset or later. Its body must
// be good, because a header alone is right by chance once in 2^32 places; a
// second good header needs no such proof, which bounds the work.
func groupFollows(r io.ReaderAt, salt [8]byte, offset, size int64) (bool, error) {
	in := bufio.NewReaderSize(io.NewSectionReader(r, offset, size-offset), 1<<16)
	heads := 0
	for ; size-offset >= groupHeader; offset++ {
		head, err := in.Peek(groupHeader)
		if err != nil {
			return false, err
		}
		if binary.BigEndian.Uint32(head[8:]) == headSum(salt, offset, head) {
			heads++
			_, state, err := readGroup(r, salt, offset, size)
			if err != nil {
				return false, err
			}
			if state == groupGood || heads > 1 {
				return true, nil
			}
		}
		in.Discard(1)
	}
	return false, nil
}
