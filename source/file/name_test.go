package file_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"

	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/source/file"
)

func TestItemName(t *testing.T) {
	for _, c := range []struct{ base, rel, want string }{
		{"wallet.dat", ".", "file/wallet.dat"},
		{".wallet", "a/b", "file/.wallet/a/b"},
		{"e\u0301", "u\u0308", "file/\u00e9/\u00fc"},
		{"a b", "c:d", "file/a b/c:d"},
		{strings.Repeat("x", 250), ".", "file/" + strings.Repeat("x", 250)},
		{strings.Repeat("x", 251), ".", ""},
		{"a", "..", ""},
		{"a", "../b", ""},
		{"a", "b/../c", ""},
		{"a", "b//c", ""},
		{"a", "", ""},
		{"", ".", ""},
		{"/", ".", ""},
		{"..", ".", ""},
		{"a\\b", ".", ""},
		{"a\nb", ".", ""},
		{"a\u2028b", ".", ""},
		{"a\xff", ".", ""},
	} {
		got, err := file.ItemName(c.base, c.rel)
		if c.want == "" {
			if !errors.Is(err, file.ErrName) {
				t.Errorf("%q %q: got %q, %v, want %v", c.base, c.rel, got, err, file.ErrName)
			}
		} else if got != c.want || err != nil {
			t.Errorf("%q %q: got %q, %v, want %q", c.base, c.rel, got, err, c.want)
		}
	}
}

// What has a name has one that an item can have, below "file/", and no other
// file has it but one that looks alike.
func FuzzItemName(f *testing.F) {
	f.Add("wallet.dat", ".")
	f.Add("d", "a/b")
	f.Add("e\u0301", "u\u0308/..")
	f.Add("d", "./a")
	f.Fuzz(func(t *testing.T, base, rel string) {
		name, err := file.ItemName(base, rel)
		if err != nil {
			if !errors.Is(err, file.ErrName) {
				t.Errorf("an error of no known kind: %v", err)
			}
			return
		}
		if seal.CheckItemName(name) != nil || seal.OwnerItem(name) {
			t.Errorf("%q is no name of an item", name)
		}
		rest, ok := strings.CutPrefix(name, "file/"+norm.NFC.String(base))
		if !ok || (rel == ".") != (rest == "") || rest != "" && rest != "/"+norm.NFC.String(rel) {
			t.Errorf("%q %q: got %q", base, rel, name)
		}
		again, err := file.ItemName(norm.NFC.String(base), norm.NFC.String(rel))
		if err != nil || again != name {
			t.Errorf("%q: got %q, %v in NFC", name, again, err)
		}
	})
}
