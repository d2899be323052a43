package seal

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/satchel-backup/satchel/store"
	"golang.org/x/text/unicode/norm"
)

// BackupID names a backup, for ever: 16 random bytes.
type BackupID [16]byte

// DeviceID names one device in one backup, until its next restore: 8 random bytes.
type DeviceID [8]byte

// SlotID names a slot: 8 random bytes.
type SlotID [8]byte

// NewDeviceID returns a random id.
func NewDeviceID() (id DeviceID) { rand.Read(id[:]); return id }

// NewSlotID returns a random id.
func NewSlotID() (id SlotID) { rand.Read(id[:]); return id }

func (id BackupID) String() string { return hex.EncodeToString(id[:]) }
func (id DeviceID) String() string { return hex.EncodeToString(id[:]) }
func (id SlotID) String() string   { return hex.EncodeToString(id[:]) }

// ParseBackupID reads 32 lower-case hex digits.
func ParseBackupID(s string) (id BackupID, err error) {
	err = parseHex(id[:], s)
	return id, err
}

// ParseDeviceID reads 16 lower-case hex digits.
func ParseDeviceID(s string) (id DeviceID, err error) {
	err = parseHex(id[:], s)
	return id, err
}

// ParseSlotID reads 16 lower-case hex digits.
func ParseSlotID(s string) (id SlotID, err error) {
	err = parseHex(id[:], s)
	return id, err
}

// parseHex fills dst from lower-case hex digits of exactly its length.
func parseHex(dst []byte, s string) error {
	if len(s) != 2*len(dst) || s != strings.ToLower(s) {
		return fmt.Errorf("not %d lower-case hex digits: %w", 2*len(dst), ErrDamaged)
	}
	if _, err := hex.Decode(dst, []byte(s)); err != nil {
		return fmt.Errorf("not %d lower-case hex digits: %w", 2*len(dst), ErrDamaged)
	}
	return nil
}

// Names of the objects beside slots, items and snapshots.
const (
	ReadmeName = "README.txt"
	HintName   = "backup.json"

	folderPrefix = "BitcoinWalletBackup-"
	maxLabel     = 40 // runes
)

// FolderPrefix begins the name of every backup's folder.
const FolderPrefix = folderPrefix

// Folder returns the name of a backup's folder. Characters of the label that
// are not letters, digits, space, "_" or "-" become "-"; a long label is cut.
func Folder(label string, id BackupID) string {
	return folderPrefix + CleanLabel(label) + "-" + id.String()[:4]
}

// CleanLabel returns the label as [Folder] spells it: "Wallet" if nothing is left.
func CleanLabel(label string) string {
	usable := func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) || r == ' ' || r == '_' {
			return r
		}
		return '-'
	}
	// Bytes that are not UTF-8 go first: what follows them is not normalized.
	runes := []rune(norm.NFC.String(strings.Map(usable, strings.ToValidUTF8(strings.TrimSpace(label), "-"))))
	if s := strings.Trim(string(runes[:min(len(runes), maxLabel)]), "- "); s != "" {
		return s
	}
	return "Wallet"
}

// FolderLabel returns the label in a folder's name, and whether the name is a
// backup folder's at all. It is a hint for people.
func FolderLabel(folder string) (label string, ok bool) {
	rest, ok := strings.CutPrefix(folder, folderPrefix)
	i := strings.LastIndexByte(rest, '-')
	if !ok || i < 1 {
		return "", false
	}
	return rest[:i], true
}

// SnapshotName is the name of a snapshot's object, and says what it claims to be.
type SnapshotName struct {
	Epoch      uint64
	Generation uint64
	Device     DeviceID
	Hash       store.Hash
}

// IsZero reports whether the name is empty, as the parent of generation 1 is.
func (n SnapshotName) IsZero() bool { return n == SnapshotName{} }

// valid reports whether String returns a name that ParseSnapshotName reads.
func (n SnapshotName) valid() bool {
	_, err := parseHash(string(n.Hash))
	return err == nil && 1 <= n.Epoch && n.Epoch <= MaxEpoch && 1 <= n.Generation && n.Generation <= MaxGeneration
}

// String returns the name without folder and ending, "" for the zero name.
func (n SnapshotName) String() string {
	if n.IsZero() {
		return ""
	}
	return fmt.Sprintf("%06d-%010d-%s-%s", n.Epoch, n.Generation, n.Device, n.Hash)
}

// Path returns the name below the backup's folder.
func (n SnapshotName) Path() string { return "snapshots/" + n.String() + ".age" }

// Compare orders names by epoch, then generation.
func (n SnapshotName) Compare(o SnapshotName) int {
	switch {
	case n.Epoch != o.Epoch:
		return cmp.Compare(n.Epoch, o.Epoch)
	default:
		return cmp.Compare(n.Generation, o.Generation)
	}
}

// ParseSnapshotName reads what String returns; "" is the zero name.
func ParseSnapshotName(s string) (n SnapshotName, err error) {
	if s == "" {
		return n, nil
	}
	p := strings.Split(s, "-")
	if len(p) != 4 {
		return SnapshotName{}, fmt.Errorf("not a snapshot's name: %w", ErrDamaged)
	}
	if n.Epoch, err = parseNumber(p[0], 6); err != nil {
		return SnapshotName{}, err
	}
	if n.Generation, err = parseNumber(p[1], 10); err != nil {
		return SnapshotName{}, err
	}
	if n.Device, err = ParseDeviceID(p[2]); err != nil {
		return SnapshotName{}, err
	}
	if n.Hash, err = parseHash(p[3]); err != nil {
		return SnapshotName{}, err
	}
	return n, nil
}

// ParseSnapshotPath reads what Path returns and reports whether it is one.
func ParseSnapshotPath(path string) (SnapshotName, bool) {
	s, ok := objectStem(path, "snapshots/")
	if !ok {
		return SnapshotName{}, false
	}
	n, err := ParseSnapshotName(s)
	return n, err == nil && !n.IsZero()
}

// SlotName is the name of a slot's object.
type SlotName struct {
	Kind string // "passphrase", "recovery-code", "words", … or one of a newer format
	ID   SlotID
	Hash store.Hash
}

// Path returns the name below the backup's folder.
func (n SlotName) Path() string {
	return "slots/" + n.Kind + "-" + n.ID.String() + "-" + string(n.Hash) + ".age"
}

// ParseSlotPath reads what Path returns and reports whether it is one.
func ParseSlotPath(path string) (SlotName, bool) {
	s, ok := objectStem(path, "slots/")
	if !ok || len(s) < 1+1+16+1+32 {
		return SlotName{}, false
	}
	i := len(s) - 32
	j := i - 1 - 16
	if s[i-1] != '-' || s[j-1] != '-' {
		return SlotName{}, false
	}
	n := SlotName{Kind: s[:j-1]}
	var err error
	if n.Hash, err = parseHash(s[i:]); err != nil || !validKind(n.Kind) {
		return SlotName{}, false
	}
	n.ID, err = ParseSlotID(s[j : i-1])
	return n, err == nil
}

// validKind reports whether a slot kind is 1 to 32 characters of a-z, 0-9 and "-".
func validKind(k string) bool {
	return k != "" && len(k) <= 32 && strings.Trim(k, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// ObjectName is the name of an item's or a pack's object.
type ObjectName struct {
	Dir     string // "keys", or 32 hex digits
	Version uint64 // the generation that wrote it
	Hash    store.Hash
}

// Path returns the name below the backup's folder.
func (n ObjectName) Path() string {
	return fmt.Sprintf("items/%s/%010d-%s.age", n.Dir, n.Version, n.Hash)
}

// ParseObjectPath reads what Path returns and reports whether it is one.
func ParseObjectPath(path string) (ObjectName, bool) {
	s, ok := objectStem(path, "items/")
	dir, s, cut := strings.Cut(s, "/")
	if !ok || !cut {
		return ObjectName{}, false
	}
	if _, err := parseHash(dir); err != nil && dir != ItemKeys {
		return ObjectName{}, false
	}
	n := ObjectName{Dir: dir}
	v, h, _ := strings.Cut(s, "-")
	var err error
	if n.Version, err = parseNumber(v, 10); err != nil {
		return ObjectName{}, false
	}
	n.Hash, err = parseHash(h)
	return n, err == nil
}

func objectStem(path, dir string) (string, bool) {
	s, ok := strings.CutPrefix(path, dir)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(s, ".age")
}

// parseNumber reads a decimal of exactly width digits that is not zero.
func parseNumber(s string, width int) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || len(s) != width || n == 0 {
		return 0, fmt.Errorf("not a number of %d digits: %w", width, ErrDamaged)
	}
	return n, nil
}

func parseHash(s string) (store.Hash, error) {
	var b [16]byte
	return store.Hash(s), parseHex(b[:], s)
}

// Names of items that have a meaning to Satchel itself.
const (
	ItemKeys        = "keys"
	ItemDescriptors = "descriptors"
	ItemLabels      = "labels"
)

// OwnerItem reports whether an item is taken from the owner only: "keys" and
// "descriptors".
func OwnerItem(name string) bool { return name == ItemKeys || name == ItemDescriptors }

// MaxItemName is the longest item name, in bytes.
const MaxItemName = 255

// CheckItemName returns an error unless name can name an item: NFC, 1 to 255
// bytes, elements joined by "/", none empty, "." or "..", no control
// characters, line separators or backslashes. The error does not quote it.
func CheckItemName(name string) error {
	if name == "" || len(name) > MaxItemName || !utf8.ValidString(name) || !norm.NFC.IsNormalString(name) {
		return fmt.Errorf("item name is not 1 to %d bytes of UTF-8 in NFC", MaxItemName)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("item name has an empty, %q or %q element", ".", "..")
		}
	}
	if strings.ContainsFunc(name, func(r rune) bool {
		return unicode.IsControl(r) || r == '\\' || r == '\u2028' || r == '\u2029'
	}) {
		return fmt.Errorf("item name has a control character, line separator or backslash")
	}
	return nil
}

// IsZero reports whether the id is the zero value, which no slot has.
func (id SlotID) IsZero() bool { return id == SlotID{} }

// NewSlotName returns the name of a new slot's object.
func NewSlotName(kind string, object []byte) SlotName {
	return SlotName{Kind: kind, ID: NewSlotID(), Hash: store.Sum(object)}
}
