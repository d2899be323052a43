package file

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/satchel-backup/satchel/seal"
)

// itemName returns the item of a file: "file/<base>" where base is the last
// element of a configured path, and for a file below a configured directory,
// "file/<base>/<relative path>". rel is "." for the path itself. Bytes that look
// alike are one name: it is in NFC. An error means that the file has no item.
func itemName(base, rel string) (string, error) {
	name := "file/" + base
	if rel != "." {
		name += "/" + filepath.ToSlash(rel)
	}
	name = norm.NFC.String(name)
	if path.Clean(name) != name {
		return "", ErrName // Elements vanish: the name would be another file's.
	}
	return name, checkName(name)
}

// checkName returns ErrName unless an item can have the name and a device alone
// may change it.
func checkName(name string) error {
	if len(name) > seal.MaxItemName {
		return fmt.Errorf("%w: with its folders it has %d bytes, and an item name holds %d", ErrName, len(name), seal.MaxItemName)
	}
	if err := seal.CheckItemName(name); err != nil {
		return fmt.Errorf("%w: %w", ErrName, err)
	}
	if seal.OwnerItem(name) {
		return fmt.Errorf("%w: only the owner changes it", ErrName)
	}
	return nil
}

// alike reports whether two names of files may be one on a file system that
// ignores case or writes accents in its own way.
func alike(a, b string) bool {
	return a == b || strings.EqualFold(norm.NFC.String(a), norm.NFC.String(b))
}
