package seal_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
)

var update = flag.Bool("update", false, "write testdata/vectors/format anew")

// maker writes vectors. Its keys and ids are fixed; age's bytes are random.
type maker struct {
	t         *testing.T
	k, otherK *seal.Keys
	d         *seal.DeviceKey // of epoch 2
	device    seal.DeviceID
	n         int
}

const fakeHash = "00112233445566778899aabbccddeeff"

func fixed(n, first int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(first + i)
	}
	return b
}

func fixedKeys(first int) *seal.Keys {
	k, err := seal.DeriveKeys(seal.BackupID(fixed(16, first)), secret.New(fixed(32, first+32)))
	if err != nil {
		panic(err)
	}
	return k
}

func TestUpdateVectors(t *testing.T) {
	if !*update {
		t.Skip("without -update")
	}
	old, err := filepath.Glob(filepath.Join(vectorDir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	m := &maker{t: t, k: fixedKeys(0), otherK: fixedKeys(100), device: seal.DeviceID(fixed(8, 0xd0))}
	m.d = m.k.Device(2, m.device)
	m.plain()
	m.names()
	m.keyFiles()
	m.deviceKeys()
	m.slots()
	m.items()
	m.ownerMACs()
	m.snapshots()
	t.Logf("%d vectors", m.n)
}

func (m *maker) put(v vector) {
	m.t.Helper()
	v.Name = v.Kind + "-" + v.Name
	switch v.Kind {
	case "derivation", "owner-mac", "item", "snapshot", "plaintext":
		v.BackupID, v.BackupKey = hex.EncodeToString(fixed(16, 0)), hex.EncodeToString(fixed(32, 32))
	}
	if v.Want == nil && (v.Expect == "ok" || v.Expect == "newer") {
		got, err := v.read(m.t)
		if verdict(err) != v.Expect {
			m.t.Fatalf("%s: %v", v.Name, err)
		}
		if newer, ok := errors.AsType[*seal.NewerError](err); ok {
			got = map[string]any{"version": newer.Version, "software": newer.Software}
		}
		if v.Want, err = json.Marshal(got); err != nil {
			m.t.Fatal(err)
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		m.t.Fatal(err)
	}
	path := filepath.Join(vectorDir, v.Name+".json")
	if _, err := os.Stat(path); err == nil {
		m.t.Fatalf("two vectors %s", v.Name)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		m.t.Fatal(err)
	}
	m.n++
}

func (m *maker) plain() {
	m.put(vector{Name: "epoch-2", Comment: "every derived key of a fixed id and backup key, the identity text, and the directories of items", Kind: "derivation", Expect: "ok", Epoch: 2, Device: m.device.String()})
	var table [][2]int64
	for _, n := range []int64{0, 1, 2, 3, 4, 7, 8, 9, 10, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 255, 256, 257, 1000, 1023, 1024, 1025, 2048, 2049, 3000, 4097, 65535, 65536, 65537, 1_000_000, 16_777_217, 67_108_863, 67_108_864} {
		table = append(table, [2]int64{n, seal.Padded(n)})
	}
	want, _ := json.Marshal(table)
	m.put(vector{Name: "table", Comment: "lengths and their PADMÉ lengths", Kind: "padme", Expect: "ok", Want: want})
}

func (m *maker) names() {
	h := fakeHash
	for _, c := range []struct{ name, path string }{
		{"snapshot", "snapshots/000002-0000000007-d0d1d2d3d4d5d6d7-" + h + ".age"},
		{"snapshot-highest", "snapshots/999999-9999999999-ffffffffffffffff-" + h + ".age"},
		{"slot", "slots/recovery-code-0102030405060708-" + h + ".age"},
		{"slot-unknown-kind", "slots/a-2-0102030405060708-" + h + ".age"},
		{"keys", "items/keys/0000000001-" + h + ".age"},
		{"item", "items/" + h + "/0000000001-" + h + ".age"},
	} {
		m.put(vector{Name: "path-" + c.name, Comment: "a name of the format", Kind: "name", Form: "path", Expect: "ok", Text: &c.path})
	}
	for _, c := range []struct{ name, path string }{
		{"empty", ""},
		{"folder-missing", "000002-0000000007-d0d1d2d3d4d5d6d7-" + h + ".age"},
		{"ending-missing", "snapshots/000002-0000000007-d0d1d2d3d4d5d6d7-" + h},
		{"nested", "snapshots/x/000002-0000000007-d0d1d2d3d4d5d6d7-" + h + ".age"},
		{"epoch-zero", "snapshots/000000-0000000007-d0d1d2d3d4d5d6d7-" + h + ".age"},
		{"epoch-short", "snapshots/00002-0000000007-d0d1d2d3d4d5d6d7-" + h + ".age"},
		{"epoch-long", "snapshots/1000000-0000000007-d0d1d2d3d4d5d6d7-" + h + ".age"},
		{"generation-zero", "snapshots/000002-0000000000-d0d1d2d3d4d5d6d7-" + h + ".age"},
		{"generation-sign", "snapshots/000002-+000000007-d0d1d2d3d4d5d6d7-" + h + ".age"},
		{"generation-underscore", "snapshots/000002-00000_0007-d0d1d2d3d4d5d6d7-" + h + ".age"},
		{"device-upper-case", "snapshots/000002-0000000007-D0d1d2d3d4d5d6d7-" + h + ".age"},
		{"device-short", "snapshots/000002-0000000007-d0d1d2d3d4d5d6-" + h + ".age"},
		{"hash-long", "snapshots/000002-0000000007-d0d1d2d3d4d5d6d7-" + h + "00.age"},
		{"hash-missing", "snapshots/000002-0000000007-d0d1d2d3d4d5d6d7.age"},
		{"ending-upper-case", "snapshots/000002-0000000007-d0d1d2d3d4d5d6d7-" + h + ".AGE"},
		{"copy", "snapshots/000002-0000000007-d0d1d2d3d4d5d6d7-" + h + " (1).age"},
		{"slot-without-kind", "slots/-0102030405060708-" + h + ".age"},
		{"slot-kind-upper-case", "slots/PIN-0102030405060708-" + h + ".age"},
		{"slot-kind-long", "slots/" + strings.Repeat("a", 33) + "-0102030405060708-" + h + ".age"},
		{"slot-id-short", "slots/pin-01020304050607-" + h + ".age"},
		{"item-dir-by-name", "items/labels/0000000001-" + h + ".age"},
		{"item-dir-upper-case", "items/" + strings.ToUpper(h) + "/0000000001-" + h + ".age"},
		{"item-version-zero", "items/keys/0000000000-" + h + ".age"},
		{"item-version-short", "items/keys/1-" + h + ".age"},
		{"item-dots", "items/../0000000001-" + h + ".age"},
		{"readme", "README.txt"},
	} {
		m.put(vector{Name: "path-bad-" + c.name, Comment: "not a name of the format: left alone", Kind: "name", Form: "path", Expect: "not-ours", Text: &c.path})
	}
	for _, c := range []struct{ name, item string }{
		{"plain", "labels"}, {"elements", "lightning/monitors/00ff"}, {"quote-and-umlaut", `file/ä "b".txt`},
		{"three-dots", "file/..."}, {"longest", strings.Repeat("n", 255)},
	} {
		m.put(vector{Name: "item-" + c.name, Comment: "an item's name", Kind: "name", Form: "item", Expect: "ok", Text: &c.item})
	}
	for _, c := range badItemNames {
		m.put(vector{Name: "item-bad-" + c.name, Comment: "not an item's name", Kind: "name", Form: "item", Expect: "damaged", Text: &c.item})
	}
}

var badItemNames = []struct{ name, item string }{
	{"empty", ""}, {"absolute", "/etc/passwd"}, {"trailing-slash", "file/"}, {"empty-element", "file//a"},
	{"dot", "file/./a"}, {"dot-dot", "file/../../a"}, {"only-dot-dot", ".."}, {"backslash", `file\a`}, {"line-feed", "a\nb"},
	{"nul", "a\x00"}, {"delete", "a\x7f"}, {"c1-control", "a\u0085b"}, {"line-separator", "a\u2028b"},
	{"paragraph-separator", "a\u2029b"}, {"decomposed", "file/a\u0308"}, {"long", strings.Repeat("n", 256)},
	{"long-in-bytes", strings.Repeat("ä", 128)},
}

func (m *maker) keyFiles() {
	good := string(m.k.KeyFile().Open())
	other := strings.Split(string(m.otherK.KeyFile().Open()), "\n")
	lines := strings.Split(good, "\n")
	m.put(vector{Name: "ok", Comment: "the plaintext of a slot", Kind: "keyfile", Expect: "ok", Data: []byte(good)})
	for _, c := range []struct{ name, comment, expect, text string }{
		{"empty", "no bytes", "damaged", ""},
		{"cut-short", "the last line is missing", "damaged", good[:strings.Index(good, "AGE")]},
		{"no-line-feed", "the last line feed is missing", "damaged", strings.TrimSuffix(good, "\n")},
		{"line-after-the-end", "a sixth line", "damaged", good + "# more\n"},
		{"empty-line-after-the-end", "a sixth, empty line", "damaged", good + "\n"},
		{"crlf", "lines ended by CR LF", "damaged", strings.ReplaceAll(good, "\n", "\r\n")},
		{"first-line", "another first line", "damaged", replace(m.t, good, "Whoever", "Anybody who")},
		{"space-at-end", "a space at the end of a line", "damaged", replace(m.t, good, "key-file: 1\n", "key-file: 1 \n")},
		{"version-zero", "version 0", "damaged", replace(m.t, good, "key-file: 1\n", "key-file: 0\n")},
		{"version-01", "version with a leading zero", "damaged", replace(m.t, good, "key-file: 1\n", "key-file: 02\n")},
		{"version-sign", "version with a sign", "damaged", replace(m.t, good, "key-file: 1\n", "key-file: +2\n")},
		{"version-text", "version followed by text", "damaged", replace(m.t, good, "key-file: 1\n", "key-file: 2x\n")},
		{"version-long", "version of more than nine digits", "damaged", replace(m.t, good, "key-file: 1\n", "key-file: 1000000000\n")},
		{"version-without-prefix", "the second line is a number only", "damaged", replace(m.t, good, "# satchel-key-file: 1\n", "2\n")},
		{"id-upper-case", "backup id in upper case", "damaged", replace(m.t, good, "0a0b0c0d0e0f", "0A0B0C0D0E0F")},
		{"id-other", "id of another backup: the identity does not follow from it", "damaged", replace(m.t, good, lines[2], other[2])},
		{"key-upper-case", "backup key in upper case", "damaged", replace(m.t, good, "3a3b3c3d3e3f", "3A3B3C3D3E3F")},
		{"key-other", "backup key of another backup: the identity does not follow from it", "damaged", replace(m.t, good, lines[3], other[3])},
		{"key-short", "a backup key of 31 bytes", "damaged", replace(m.t, good, "3f\n", "\n")},
		{"lines-swapped", "key before id", "damaged", replace(m.t, good, lines[2]+"\n"+lines[3], lines[3]+"\n"+lines[2])},
		{"identity-other", "the identity of another backup", "damaged", replace(m.t, good, lines[4], other[4])},
		{"identity-lower-case", "the identity in lower case", "damaged", replace(m.t, good, lines[4], strings.ToLower(lines[4]))},
		{"too-long", "more than 4,096 bytes", "damaged", good + strings.Repeat("#", 4096) + "\n"},
		{"newer", "version 2", "newer", replace(m.t, good, "key-file: 1\n", "key-file: 2\n")},
		{"newer-unknown-lines", "version 12, of which only the second line can be read", "newer", "# Something else.\n# satchel-key-file: 12\n# more\n"},
	} {
		m.put(vector{Name: c.name, Comment: c.comment, Kind: "keyfile", Expect: c.expect, Data: []byte(c.text)})
	}
}

func (m *maker) deviceKeys() {
	good := string(m.d.Marshal().Open())
	m.put(vector{Name: "ok", Comment: "a device key as Satchel keeps it", Kind: "device", Expect: "ok", Data: []byte(good)})
	for _, c := range []struct{ name, comment, expect, text string }{
		{"cut-short", "the last byte is missing", "damaged", good[:len(good)-1]},
		{"line-feed", "a line feed at the end", "damaged", good + "\n"},
		{"white-space", "a space after a colon", "damaged", replace(m.t, good, `"epoch":2`, `"epoch": 2`)},
		{"unknown-member", "a member that version 1 does not have", "damaged", replace(m.t, good, `"epoch":2`, `"epoch":2,"more":1`)},
		{"repeated-member", "epoch twice", "damaged", replace(m.t, good, `"epoch":2`, `"epoch":3,"epoch":2`)},
		{"member-case", "a member's name in upper case", "damaged", replace(m.t, good, `"epoch":2`, `"EPOCH":2`)},
		{"epoch-zero", "epoch 0", "damaged", replace(m.t, good, `"epoch":2`, `"epoch":0`)},
		{"epoch-high", "epoch 1,000,000", "damaged", replace(m.t, good, `"epoch":2`, `"epoch":1000000`)},
		{"recipient", "a recipient that is not of age", "damaged", replace(m.t, good, `"age1pq1`, `"age1pq1q`)},
		{"version-zero", "version 0", "damaged", replace(m.t, good, `key":1`, `key":0`)},
		{"newer", "version 2, with other members", "newer", `{"satchel-device-key":2,"backup":7}`},
	} {
		m.put(vector{Name: c.name, Comment: c.comment, Kind: "device", Expect: c.expect, Data: []byte(c.text)})
	}
}

// sealTo is an age file for any recipients.
func (m *maker) sealTo(plain []byte, to ...age.Recipient) []byte {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	if err != nil {
		m.t.Fatal(err)
	}
	w.Write(plain)
	if err := w.Close(); err != nil {
		m.t.Fatal(err)
	}
	return b.Bytes()
}

func (m *maker) seal(plain []byte) []byte { return m.sealTo(plain, seal.Recipient(m.d)) }

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

func (m *maker) slots() {
	const code = "0123-4567-89ab-cdef-ghjk-mnpq-rstv-wxyz-0000"
	slot := func(logN int, pass, text string) []byte {
		r, err := age.NewScryptRecipient(pass)
		if err != nil {
			m.t.Fatal(err)
		}
		r.SetWorkFactor(logN)
		return m.sealTo([]byte(text), r)
	}
	good := string(m.k.KeyFile().Open())
	put := func(name, comment, expect, kind, pass string, data, named []byte) {
		path := seal.SlotName{Kind: kind, ID: seal.SlotID(fixed(8, 0x51)), Hash: store.Sum(named)}.Path()
		m.put(vector{Name: name, Comment: comment, Kind: "slot", Expect: expect, Passphrase: pass, Path: path, Data: data})
	}
	whole := slot(10, code, good)
	put("recovery-code", "a recovery code, given to age as printed", "ok", "recovery-code", code, whole, whole)
	pass := slot(14, "Grüße an alle ", good)
	put("passphrase", "a passphrase with other letters than ASCII and a space at its end", "ok", "passphrase", "Grüße an alle ", pass, pass)
	words := slot(10, strings.Repeat("0f", 32), good)
	put("words", "64 hex digits derived from the words", "ok", "words", strings.Repeat("0f", 32), words, words)
	put("wrong-secret", "another recovery code", "wrong-secret", "recovery-code", "1"+code[1:], whole, whole)
	put("bit-flip", "one bit of the file key's stanza differs: the hash in the name tells it from a wrong secret", "damaged", "recovery-code", code, flip(whole, 90), whole)
	put("cut-short", "the last byte is missing", "damaged", "recovery-code", code, whole[:len(whole)-1], whole)
	cut := whole[:len(whole)-200]
	put("cut-short-renamed", "cut short within the payload, under the name of what is left", "damaged", "recovery-code", code, cut, cut)
	bad := slot(10, code, strings.TrimSuffix(good, "\n"))
	put("key-file-damaged", "the key file inside lacks its last line feed", "damaged", "recovery-code", code, bad, bad)
	bad = slot(10, code, good+strings.Repeat("#", 4096))
	put("key-file-too-long", "the key file inside is over 4,096 bytes", "damaged", "recovery-code", code, bad, bad)
	next := slot(10, code, replace(m.t, good, "key-file: 1\n", "key-file: 2\n"))
	put("newer", "a key file of version 2 inside", "newer", "recovery-code", code, next, next)
}

func (m *maker) items() {
	value := []byte(strings.Repeat("labels\n", 20)) // 140 bytes, padded to 144
	pad := func(n int, with byte) []byte { return append(bytes.Clone(value), bytes.Repeat([]byte{with}, n)...) }
	type place struct {
		pack   bool
		offset int64
	}
	put := func(name, comment, expect string, it seal.Item, data, named []byte, p place) {
		if p.pack {
			it.Pack, it.Offset = seal.ObjectName{Version: 9, Hash: store.Sum(named)}, p.offset
		} else {
			it.Object = store.Sum(named)
		}
		n, _ := m.k.ItemObject(&it)
		m.put(vector{Name: name, Comment: comment, Kind: "item", Expect: expect, Line: string(seal.ItemLine(it)), Path: n.Path(), Data: data})
	}
	it := seal.NewItem("labels", 7, value)
	object := func(name, comment, expect string, plain []byte) {
		data := m.seal(plain)
		put(name, comment, expect, it, data, data, place{})
	}
	object("ok", "a value of 140 bytes in an object of 144", "ok", pad(4, 0))
	empty := m.seal(nil)
	put("empty", "a value of no bytes", "ok", seal.NewItem("settings", 7, nil), empty, empty, place{})
	one := m.seal([]byte{0})
	put("one-zero-byte", "a value of one zero byte", "ok", seal.NewItem("settings", 7, []byte{0}), one, one, place{})
	packed := append(append(bytes.Repeat([]byte{'x'}, 50), value...), make([]byte, 2)...) // 190 bytes and 2 zeros
	pack := m.seal(packed)
	put("pack", "the second value of a pack", "ok", it, pack, pack, place{true, 50})
	put("pack-empty-at-end", "a value of no bytes at the very end of a pack", "ok", seal.NewItem("settings", 7, nil), pack, pack, place{true, 192})

	object("not-padded", "no padding", "damaged", pad(0, 0))
	object("padding-short", "one zero too few", "damaged", pad(3, 0))
	object("padding-long", "one zero too many", "damaged", pad(5, 0))
	object("padding-next-length", "padded to the next PADMÉ length but one", "damaged", pad(20, 0))
	object("padding-not-zero", "the last byte of the padding is 1", "damaged", append(pad(3, 0), 1))
	object("value-other", "one byte differs from the line's SHA-256", "damaged", flip(pad(4, 0), 5))
	object("value-short", "the object ends before the value does", "damaged", value[:128])
	object("value-long", "much more than the size in the line", "damaged", make([]byte, 1024))
	good := m.seal(pad(4, 0))
	put("hash", "another object under this name: the last byte differs", "damaged", it, flip(good, len(good)-1), good, place{})
	put("cut-short", "the last 101 bytes are missing", "truncated", it, good[:len(good)-101], good, place{})
	put("cut-short-in-header", "ends within the age header", "truncated", it, good[:500], good, place{})
	put("no-bytes", "an empty file", "truncated", it, nil, good, place{})
	flipped := flip(good, len(good)-1)
	put("bit-flip-renamed", "the last byte differs, under the name of what it is now", "damaged", it, flipped, flipped, place{})
	mac := flip(good, bytes.Index(good, []byte("--- "))+6)
	put("header-mac", "the MAC of the age header differs", "damaged", it, mac, mac, place{})
	after := append(bytes.Clone(good), 0)
	put("byte-after-the-end", "one byte after the age payload", "damaged", it, after, after, place{})
	other := m.sealTo(pad(4, 0), seal.Recipient(m.otherK.Device(2, m.device)))
	put("other-backup", "sealed to another backup", "not-ours", it, other, other, place{})
	x, err := age.GenerateX25519Identity()
	if err != nil {
		m.t.Fatal(err)
	}
	classic := m.sealTo(pad(4, 0), x.Recipient())
	put("other-recipient", "sealed to an X25519 recipient", "not-ours", it, classic, classic, place{})
	two := m.sealTo(pad(4, 0), seal.Recipient(m.d), seal.Recipient(m.otherK.Device(2, m.device)))
	put("two-recipients", "sealed to this backup and to another", "damaged", it, two, two, place{})
	var armored bytes.Buffer
	w := armor.NewWriter(&armored)
	w.Write(good)
	w.Close()
	put("armored", "an armored age file", "damaged", it, armored.Bytes(), armored.Bytes(), place{})
	text := []byte(strings.Repeat("no age file\n", 20))
	put("not-age", "not an age file", "damaged", it, text, text, place{})
	put("pack-offset-beyond", "the place ends one byte after the pack", "damaged", it, pack, pack, place{true, 53})
	put("pack-offset-far", "the place begins after the pack", "damaged", it, pack, pack, place{true, 60_000_000})
	put("pack-offset-other", "the place is one byte off", "damaged", it, pack, pack, place{true, 51})
	loose := m.seal(packed[:191])
	put("pack-not-padded", "the pack does not have a PADMÉ length", "damaged", it, loose, loose, place{true, 50})
}

func (m *maker) ownerMACs() {
	value := seal.NewItem(seal.ItemDescriptors, 7, []byte("{}"))
	value.Required, value.Object = true, fakeHash
	gone := seal.Item{Name: seal.ItemKeys, Version: 8, Removed: true}
	for _, c := range []struct {
		name, comment, expect string
		it                    seal.Item
		change                func(*seal.Item)
	}{
		{"value", "descriptors with a value", "ok", value, func(*seal.Item) {}},
		{"removed", "keys, removed", "ok", gone, func(*seal.Item) {}},
		{"other-place", "the MAC does not cover where the value stands", "ok", value, func(it *seal.Item) { it.Object = "ffeeddccbbaa99887766554433221100" }},
		{"other-version", "a MAC for version 7 under version 8", "forged", value, func(it *seal.Item) { it.Version = 8 }},
		{"other-size", "a MAC for another size", "forged", value, func(it *seal.Item) { it.Size = 3 }},
		{"other-sha256", "a MAC for another value", "forged", value, func(it *seal.Item) { it.SHA256[31] ^= 1 }},
		{"other-name", "the MAC of descriptors at keys", "forged", value, func(it *seal.Item) { it.Name = seal.ItemKeys }},
		{"bit-flip", "one bit of the MAC differs", "forged", value, func(it *seal.Item) { it.Owner = flip(it.Owner, 31) }},
		{"value-as-removed", "the MAC of a value at a removed line", "forged", value, func(it *seal.Item) { *it = seal.Item{Name: it.Name, Version: 7, Removed: true, Owner: it.Owner} }},
	} {
		it := c.it
		m.k.Sign(&it)
		c.change(&it)
		m.put(vector{Name: c.name, Comment: c.comment, Kind: "owner-mac", Expect: c.expect, Line: string(seal.ItemLine(it))})
	}
	m.otherK.Sign(&value)
	m.put(vector{Name: "other-backup", Comment: "the MAC of another backup's owner", Kind: "owner-mac", Expect: "forged", Line: string(seal.ItemLine(value))})
}

// replace replaces old, which stands once in s.
func replace(t *testing.T, s, old, with string) string {
	t.Helper()
	if strings.Count(s, old) != 1 {
		t.Fatalf("%q stands %d times in\n%s", old, strings.Count(s, old), s)
	}
	return strings.Replace(s, old, with, 1)
}

// finish adds pad and MAC lines to the lines of a snapshot.
func finish(d *seal.DeviceKey, body string) string { return finishPad(d, body, 0, '0') }

func finishPad(d *seal.DeviceKey, body string, more int, digit byte) string {
	bare := len(body) + 11 + 75
	n := int(seal.Padded(int64(bare))) - bare + more
	zeros := bytes.Repeat([]byte{'0'}, n)
	if digit != '0' {
		zeros[n-1] = digit // Whoever asks for another digit has padding.
	}
	return signed(d, body+`{"pad":"`+string(zeros)+"\"}\n")
}

func signed(d *seal.DeviceKey, body string) string {
	return body + `{"mac":"` + hex.EncodeToString(seal.WriterMAC(d, []byte(body))) + "\"}\n"
}

// ownerOf returns the member that signs an owner item.
func ownerOf(k *seal.Keys, name string, version uint64, value string) string {
	it := seal.NewItem(name, version, []byte(value))
	it.Required = true
	k.Sign(&it)
	return `"owner":"` + hex.EncodeToString(it.Owner) + `"`
}

func body(plain string) string { return plain[:strings.Index(plain, `{"pad"`)] }

// vectorSnapshots returns the checkpoint and the delta that the vectors alter.
func vectorSnapshots(t *testing.T, k *seal.Keys, d *seal.DeviceKey) (checkpoint, delta, deltaSlots string) {
	parent := seal.SnapshotName{Epoch: 2, Generation: 6, Device: d.Device(), Hash: fakeHash}
	at := func(name string, version uint64, value string, required bool) seal.Item {
		it := seal.NewItem(name, version, []byte(value))
		it.Required = required
		return it
	}
	keys := at("keys", 1, strings.Repeat("words\n", 170)+"\n\n\n\n", true)
	keys.Object = "0123456789abcdef0123456789abcdef"
	desc := at("descriptors", 7, `{"d":1}`, true)
	desc.Inline, desc.Data = true, []byte(`{"d":1}`)
	k.Sign(&keys)
	k.Sign(&desc)
	contacts := at("contacts", 3, "alice", false)
	contacts.Pack, contacts.Offset = seal.ObjectName{Version: 5, Hash: "fedcba9876543210fedcba9876543210"}, 17
	file := at(`file/ä "b".txt`, 4, strings.Repeat("x", 3000), true)
	file.Object = "89abcdef0123456789abcdef01234567"
	labels := at("labels", 5, "label", false)
	labels.In = seal.SnapshotName{Epoch: 1, Generation: 5, Device: seal.DeviceID(fixed(8, 0xe0)), Hash: fakeHash}
	slots := []seal.SlotName{
		{Kind: "recovery-code", ID: seal.SlotID(fixed(8, 1)), Hash: "11111111111111111111111111111111"},
		{Kind: "words", ID: seal.SlotID(fixed(8, 2)), Hash: "22222222222222222222222222222222"},
	}
	now := mustTime("2026-11-23T02:24:00Z")
	encode := func(s *seal.Snapshot) string {
		s.Time, s.Software = now, "satchel/0.1.0"
		n, data, err := seal.SealSnapshot(d, s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.OpenSnapshot(n, data); err != nil {
			t.Fatal(err)
		}
		plain, err := seal.Plaintext(d, s)
		if err != nil {
			t.Fatal(err)
		}
		return string(plain)
	}
	checkpoint = encode(&seal.Snapshot{Generation: 7, Parent: parent, Kind: seal.Checkpoint, HasSlots: true, Slots: slots,
		Items: []seal.Item{keys, desc, contacts, file, labels}})
	parent.Generation = 7
	small := at("labels", 8, "new label", false)
	small.Inline, small.Data = true, []byte("new label")
	big := at("file/big", 8, strings.Repeat("y", 5000), false)
	big.Object = "76543210fedcba9876543210fedcba98"
	gone := seal.Item{Name: "contacts", Version: 8, Removed: true}
	noDesc := seal.Item{Name: "descriptors", Version: 8, Removed: true}
	k.Sign(&noDesc)
	delta = encode(&seal.Snapshot{Generation: 8, Parent: parent, Kind: seal.Delta, Items: []seal.Item{small, big, gone, noDesc}})
	deltaSlots = encode(&seal.Snapshot{Generation: 8, Parent: parent, Kind: seal.Delta, HasSlots: true, Slots: slots[:1]})
	return checkpoint, delta, deltaSlots
}

func (m *maker) snapshots() {
	t := m.t
	check, delta, deltaSlots := vectorSnapshots(t, m.k, m.d)
	nameOf := func(plain string) seal.SnapshotName {
		n := seal.SnapshotName{Epoch: 2, Generation: 7, Device: m.device}
		if strings.Contains(plain, `"generation":8`) {
			n.Generation = 8
		}
		return n
	}
	under := func(name, comment, expect string, n seal.SnapshotName, plain string) {
		v := vector{Name: name, Comment: comment, Kind: "plaintext", Expect: expect}
		switch {
		case slices.Contains([]string{"checkpoint", "delta", "delta-slots", "past", "end", "white-space", "mac-other", "owner-other", "backup-other", "ends-after-header", "empty", "newer"}, name):
			v.Kind, v.Data = "snapshot", m.seal([]byte(plain))
			n.Hash = store.Sum(v.Data)
		case utf8.ValidString(plain):
			n.Hash, v.Text = fakeHash, &plain
		default:
			n.Hash, v.Data = fakeHash, []byte(plain)
		}
		v.Path = n.Path()
		m.put(v)
	}
	// raw takes a whole plaintext, bad the lines before the padding.
	raw := func(name, comment, expect, plain string) {
		t.Helper()
		under(name, comment, expect, nameOf(plain), plain)
	}
	bad := func(name, comment, lines string) { t.Helper(); raw(name, comment, "damaged", finish(m.d, lines)) }
	c, d := body(check), body(delta)
	in := func(name, comment, old, with string) { t.Helper(); bad(name, comment, replace(t, c, old, with)) }
	inDelta := func(name, comment, old, with string) { t.Helper(); bad(name, comment, replace(t, d, old, with)) }
	item := func(name string) string { // the line of an item of the checkpoint
		i := strings.Index(c, `{"item":"`+name)
		return c[i : i+strings.IndexByte(c[i:], '\n')+1]
	}
	header := c[:strings.IndexByte(c, '\n')+1]

	raw("checkpoint", "a checkpoint with every place but removed", "ok", check)
	raw("delta", "a delta with data, an object, a removed item and a removed owner item", "ok", delta)
	raw("delta-slots", "a delta that only replaces the list of slots", "ok", deltaSlots)
	raw("delta-empty", "a delta without any change", "ok", finish(m.d, replace(t, d[:strings.IndexByte(d, '\n')+1], `"items":4`, `"items":0`)))
	raw("delta-no-slots", "a delta that says there are no slots", "ok", finish(m.d, replace(t, d, `"items":4`, `"slots":0,"items":4`)))
	empty := sha256.Sum256(nil)
	raw("data-empty", "inline data of no bytes", "ok", finish(m.d, replace(t, replace(t, replace(t, d, `"size":9`, `"size":0`), sumOf("new label"), hex.EncodeToString(empty[:])), b64("new label"), "")))
	large := strings.Repeat("z", 2048)
	raw("data-largest", "inline data of 2,048 bytes", "ok", finish(m.d, replace(t, replace(t, replace(t, d, `"size":9`, `"size":2048`), sumOf("new label"), sumOf(large)), b64("new label"), b64(large))))
	first := replace(t, replace(t, header, `"generation":7`, `"generation":1`), `"parent":"000002-0000000006-`+m.device.String()+"-"+fakeHash+`"`, `"parent":""`)
	first = replace(t, replace(t, first, `"slots":2`, `"slots":0`), `"items":5`, `"items":2`)
	kd := []string{string(m.signedLine("descriptors")), string(m.signedLine("keys"))}
	one := seal.SnapshotName{Epoch: 2, Generation: 1, Device: m.device}
	under("first", "generation 1, with both owner items removed and no slots", "ok", one, finish(m.d, first+kd[0]+kd[1]))

	// Spelling.
	in("white-space", "a space after a colon", `"epoch":2`, `"epoch": 2`)
	in("space-at-line-end", "a space before a line feed", `"items":5}`, `"items":5} `)
	bad("crlf", "lines ended by CR LF", strings.ReplaceAll(c, "\n", "\r\n"))
	in("empty-line", "an empty line between two items", "\n"+`{"item":"keys"`, "\n\n"+`{"item":"keys"`)
	bad("byte-order-mark", "a byte order mark at the start", "\ufeff"+c)
	in("member-order-header", "epoch after generation", `"epoch":2,"generation":7`, `"generation":7,"epoch":2`)
	in("member-order-item", "version before item", `"item":"contacts","version":3`, `"version":3,"item":"contacts"`)
	in("unknown-member-header", "an unknown member in the header", `"items":5}`, `"items":5,"x":1}`)
	in("unknown-member-item", "an unknown member in an item line", `"offset":17}`, `"offset":17,"x":1}`)
	in("unknown-member-slot", "an unknown member in a slot line", `"22222222222222222222222222222222"}`, `"22222222222222222222222222222222","x":1}`)
	in("repeated-member-header", "epoch twice", `"epoch":2`, `"epoch":1,"epoch":2`)
	in("repeated-member-item", "size twice", `"size":3000`, `"size":1,"size":3000`)
	in("member-case", "a member's name in upper case", `"item":"contacts"`, `"ITEM":"contacts"`)
	in("null-member", "a member that is null", `"offset":17}`, `"offset":17,"data":null}`)
	in("escaped-character", `a character written as \u0061`, `"item":"contacts"`, `"item":"cont\u0061cts"`)
	in("escaped-slash", `a slash written as \/`, `"item":"file/`, `"item":"file\/`)
	in("escaped-umlaut", `ä written as \u00e4`, "ä", `\u00e4`)
	in("invalid-utf-8", "a byte that is not UTF-8 in a name", "ä", "\xe4")
	in("lone-surrogate", "half of a surrogate pair, in UTF-8's manner", "ä", "\xed\xa0\x80")
	in("sha256-upper-case", "SHA-256 in upper case", sumOf("alice"), strings.ToUpper(sumOf("alice")))
	in("sha256-short", "SHA-256 of 62 digits", sumOf("alice"), sumOf("alice")[:62])
	in("device-upper-case", "device id in upper case", `"device":"d0d1`, `"device":"D0D1`)
	in("object-upper-case", "an object's hash in upper case", "89abcdef0123456789abcdef01234567", "89ABCDEF0123456789abcdef01234567")
	in("object-short", "an object's hash of 30 digits", "89abcdef0123456789abcdef01234567", "89abcdef0123456789abcdef012345")
	in("object-empty", "an object without a hash", "89abcdef0123456789abcdef01234567", "")
	in("number-leading-zero", "a number with a leading zero", `"size":3000`, `"size":03000`)
	in("number-exponent", "a number with an exponent", `"size":3000`, `"size":3e3`)
	in("number-fraction", "a number with a fraction", `"size":3000`, `"size":3000.0`)
	in("number-plus", "a number with a plus sign", `"size":3000`, `"size":+3000`)
	in("number-negative", "a negative number", `"size":3000`, `"size":-3000`)
	in("number-minus-zero", "minus zero", `"offset":17`, `"offset":-0`)
	in("number-quoted", "a number as a string", `"size":3000`, `"size":"3000"`)
	in("number-huge", "a number of 30 digits", `"size":3000`, `"size":300000000000000000000000000000`)
	in("number-2-to-the-64", "2^64 + 3000, which wraps to 3000", `"size":3000`, `"size":18446744073709554616`)
	in("size-over-limit", "a size over 64 MiB", `"size":3000`, `"size":67108865`)
	in("required-false", "required written out as false", `"size":5,"sha256":"`+sumOf("alice")+`"`, `"size":5,"sha256":"`+sumOf("alice")+`","required":false`)
	in("line-too-long", "a line of more than 4,096 bytes", `"version":1,"size"`, `"version":1`+strings.Repeat(" ", 4096)+`,"size"`)

	// Header.
	in("time-impossible", "30 February", "2026-11-23T", "2026-02-30T")
	in("time-leap-second", "a leap second", "02:24:00Z", "23:59:60Z")
	in("time-fraction", "a fraction of a second", "02:24:00Z", "02:24:00.5Z")
	in("time-zone", "an offset instead of Z", "02:24:00Z", "02:24:00+00:00")
	in("time-year-zero", "the year 0000", "2026-11-23T", "0000-11-23T")
	in("software-empty", "no software", "satchel/0.1.0", "")
	in("software-character", "a character that software must not have", "satchel/0.1.0", "satchel<0.1.0")
	in("software-long", "software of 65 characters", "satchel/0.1.0", strings.Repeat("s", 65))
	in("kind-unknown", "a kind that is neither checkpoint nor delta", `"kind":"checkpoint"`, `"kind":"full"`)
	in("version-zero", "version 0", `{"satchel-snapshot":1,`, `{"satchel-snapshot":0,`)
	in("items-too-few", "one item line more than the header says", `"items":5`, `"items":4`)
	in("items-too-many", "one item line less than the header says", `"items":5`, `"items":6`)
	in("items-over-limit", "more items than the format allows", `"items":5`, `"items":262145`)
	in("items-negative", "a negative number of items", `"items":5`, `"items":-1`)
	in("slots-too-few", "one slot line more than the header says", `"slots":2`, `"slots":1`)
	in("slots-too-many", "one slot line less than the header says", `"slots":2`, `"slots":3`)
	in("slots-negative", "a negative number of slots", `"slots":2`, `"slots":-1`)
	bad("slots-over-limit", "65 slots", replace(t, header, `"slots":2`, `"slots":65`)+slotLines(65)+c[strings.Index(c, `{"item"`):])
	slots := strings.SplitAfter(c[len(header):strings.Index(c, `{"item"`)], "\n")
	bad("slots-missing", "a checkpoint without slots", replace(t, header, `"slots":2,`, "")+c[strings.Index(c, `{"item"`):])
	bad("slots-unsorted", "slots in descending order", header+slots[1]+slots[0]+c[strings.Index(c, `{"item"`):])
	bad("slots-repeated", "one slot twice", header+slots[0]+slots[0]+c[strings.Index(c, `{"item"`):])
	in("slot-kind", "a slot's kind in upper case", `"slot":"words"`, `"slot":"WORDS"`)
	in("slot-kind-empty", "a slot without a kind", `"slot":"words"`, `"slot":""`)
	in("slot-id-short", "a slot id of 14 digits", `"id":"0203040506070809"`, `"id":"02030405060708"`)
	in("slot-hash-short", "a slot's hash of 30 digits", `"22222222222222222222222222222222"`, `"222222222222222222222222222222"`)

	// Header and name.
	n := nameOf(check)
	n.Epoch = 3
	under("name-epoch", "the name says another epoch", "damaged", n, check)
	n = nameOf(check)
	n.Generation = 9
	under("name-generation", "the name says another generation", "damaged", n, check)
	n = nameOf(check)
	n.Device = seal.DeviceID(fixed(8, 0xe0))
	under("name-device", "the name says another device", "damaged", n, check)
	raw("backup-other", "the id of another backup in the header", "not-ours", finish(m.d, replace(t, c, m.k.ID().String(), m.otherK.ID().String())))

	// Parent.
	parent := `"parent":"000002-0000000006-` + m.device.String() + "-" + fakeHash + `"`
	in("parent-missing", "generation 7 without a parent", parent, `"parent":""`)
	under("parent-unexpected", "generation 1 with a parent", "damaged", one, finish(m.d, replace(t, first, `"parent":""`, `"parent":"000001-0000000001-d0d1d2d3d4d5d6d7-`+fakeHash+`"`)+kd[0]+kd[1]))
	in("parent-generation-lower", "the parent is of generation 5", "000002-0000000006-", "000002-0000000005-")
	in("parent-generation-same", "the parent is of the same generation", "000002-0000000006-", "000002-0000000007-")
	in("parent-epoch-later", "the parent is of a later epoch", "000002-0000000006-", "000003-0000000006-")
	in("parent-device-other", "the parent is of another device in the same epoch", "000002-0000000006-d0", "000002-0000000006-ff")
	in("parent-spelling", "the parent's epoch has five digits", "000002-0000000006-", "00002-0000000006-")
	inDelta("delta-epoch-other", "a delta on a parent of an earlier epoch", "000002-0000000007-", "000001-0000000007-")
	inDelta("delta-device-other", "a delta on another device's snapshot", "000002-0000000007-d0", "000002-0000000007-ff")
	inDelta("delta-generation", "a delta that leaves out a generation", "000002-0000000007-", "000002-0000000006-")
	under("delta-first", "generation 1 as a delta", "damaged", one, finish(m.d, replace(t, first, "checkpoint", "delta")+kd[0]+kd[1]))

	// Past.
	pastLine := func(epoch, generation int, device string) string {
		return fmt.Sprintf(`{"past":"%06d-%010d-%s-%s"}`+"\n", epoch, generation, device, fakeHash)
	}
	withPast := func(plain string, n int, lines string) string {
		end := strings.IndexByte(plain, '\n') + 1
		return replace(t, plain[:end], `"kind":"checkpoint"`, fmt.Sprintf(`"kind":"checkpoint","past":%d`, n)) + lines + plain[end:]
	}
	const e0 = "e0e1e2e3e4e5e6e7"
	crossed := replace(t, c, "000002-0000000006-"+m.device.String(), "000001-0000000006-"+e0)
	own := pastLine(1, 5, e0)
	inPast := func(name, comment string, n int, lines string) {
		t.Helper()
		bad("past-"+name, comment, withPast(c, n, lines))
	}
	raw("past", "a checkpoint in the middle of its epoch, with the end of the epoch before", "ok", finish(m.d, withPast(c, 1, own)))
	raw("past-parent", "the first checkpoint of an epoch: its parent ends the past", "ok", finish(m.d, withPast(crossed, 1, pastLine(1, 6, e0))))
	nine := nameOf(check)
	nine.Epoch = 9
	ninth := m.k.Device(9, m.device)
	late := replace(t, c, `"epoch":2`, `"epoch":9`)
	three := pastLine(1, 2, e0) + pastLine(4, 3, "e1e1e2e3e4e5e6e7") + pastLine(8, 6, "e2e1e2e3e4e5e6e7")
	eighth := replace(t, late, "000002-0000000006-"+m.device.String(), "000008-0000000006-e2e1e2e3e4e5e6e7")
	under("past-three", "a past that passes over epochs, as it does after branches", "ok", nine, finish(ninth, withPast(eighth, 3, three)))
	bad("past-parent-missing", "the first checkpoint of an epoch, without a past", crossed)
	bad("past-parent-other", "the first checkpoint of an epoch, and its past ends elsewhere", withPast(crossed, 1, own))
	bad("past-in-delta", "a delta with a past", strings.Replace(replace(t, d, `"kind":"delta"`, `"kind":"delta","past":1`), "\n", "\n"+own, 1))
	inPast("zero", "a past of no lines, written out", 0, "")
	inPast("negative", "a negative number of past lines", -1, "")
	inPast("too-few", "one past line more than the header says", 1, own+own)
	inPast("too-many", "one past line less than the header says", 2, own)
	inPast("own-epoch", "a past that ends in the epoch of the checkpoint", 1, pastLine(2, 5, e0))
	inPast("generation", "a past that ends at the parent's generation, in an earlier epoch", 1, pastLine(1, 6, e0))
	inPast("spelling", "an epoch of five digits", 1, strings.Replace(own, "000001-", "00001-", 1))
	inPast("empty", "a past line without a name", 1, `{"past":""}`+"\n")
	inPast("unknown-member", "an unknown member in a past line", 1, strings.Replace(own, `"}`, `","x":1}`, 1))
	under("past-unsorted", "a past in the wrong order", "damaged", nine, finish(ninth, withPast(late, 2, pastLine(4, 3, e0)+pastLine(1, 2, e0))))
	under("past-epoch-twice", "one epoch twice in a past", "damaged", nine, finish(ninth, withPast(late, 2, pastLine(1, 2, e0)+pastLine(1, 3, e0))))
	under("past-generation-back", "a past whose generations go back", "damaged", nine, finish(ninth, withPast(late, 2, pastLine(1, 3, e0)+pastLine(4, 2, e0))))
	var many strings.Builder
	for i := range 1001 {
		many.WriteString(pastLine(1+i, 1+i, e0))
	}
	last := nameOf(check)
	last.Epoch, last.Generation = 5000, 5001
	far := replace(t, replace(t, replace(t, c, `"epoch":2`, `"epoch":5000`), `"generation":7`, `"generation":5001`), "000002-0000000006-", "005000-0000005000-")
	far = replace(t, far, `"item":"descriptors","version":7`, `"item":"descriptors","version":5001`)
	far = replace(t, far, item("descriptors")[strings.Index(item("descriptors"), `"owner"`):][:74], ownerOf(m.k, "descriptors", 5001, `{"d":1}`))
	under("past-longest", "a past of 1,000 epochs", "ok", last, finish(m.k.Device(5000, m.device), withPast(far, 1000, many.String()[len(pastLine(1, 1, e0)):])))
	under("past-over-limit", "a past of 1,001 epochs", "damaged", last, finish(m.k.Device(5000, m.device), withPast(far, 1001, many.String())))
	// The end of a backup that another one replaced: no way in, no items, the last epoch.
	ending := strings.Replace(strings.Replace(withPast(crossed, 1, pastLine(1, 6, e0)), `"epoch":2`, `"epoch":999999`, 1), `"slots":2`, `"slots":0`, 1)
	ending = replace(t, ending[:strings.Index(ending, `{"slot"`)], `"items":5`, `"items":2`)
	end := nameOf(check)
	end.Epoch = seal.MaxEpoch
	under("end", "the end of a backup: a checkpoint of epoch 999999 without slots, in which both owner items are removed", "ok", end, finish(m.k.Device(seal.MaxEpoch, m.device), ending+kd[0]+kd[1]))

	// Items.
	bad("items-unsorted", "two items in the wrong order", replace(t, replace(t, c, item("contacts"), ""), item("descriptors"), item("descriptors")+item("contacts")))
	bad("items-repeated", "one item twice", replace(t, replace(t, c, item("contacts"), item("contacts")+item("contacts")), `"items":5`, `"items":6`))
	bad("keys-missing", "a checkpoint without keys", replace(t, replace(t, c, item("keys"), ""), `"items":5`, `"items":4`))
	bad("descriptors-missing", "a checkpoint without descriptors", replace(t, replace(t, c, item("descriptors"), ""), `"items":5`, `"items":4`))
	inDelta("item-version-high", "an item of a later generation", `"item":"file/big","version":8`, `"item":"file/big","version":9`)
	in("item-version-zero", "an item of generation 0", `"item":"contacts","version":3`, `"item":"contacts","version":0`)
	in("item-no-place", "an item that stands nowhere", `,"object":"89abcdef0123456789abcdef01234567"`, "")
	in("item-two-places", "an item that stands in two places", `"offset":17}`, `"offset":17,"object":"89abcdef0123456789abcdef01234567"}`)
	in("item-two-places-in-order", "an item that stands in two places, members in order", `"pack":"0000000005`, `"object":"89abcdef0123456789abcdef01234567","pack":"0000000005`)
	in("item-size-missing", "an item without a size", `"version":4,"size":3000`, `"version":4`)
	for _, b := range badItemNames {
		quoted := b.item
		switch b.name {
		case "dot-dot", "decomposed": // As an example: the names have vectors of their own.
		case "line-separator": // JSON does without an escape, Go's writer does not.
			quoted = "file/" + quoted
		default:
			continue
		}
		in("item-name-"+b.name, "an item's name that is not allowed: "+b.name, `file/ä \"b\".txt`, quoted)
	}
	in("item-name-long", "an item's name of 256 bytes", `file/ä \"b\".txt`, "file/"+strings.Repeat("n", 251))
	in("item-name-backslash", "a backslash in an item's name", `file/ä \"b\".txt`, `file/a\\b`)
	in("data-other", "inline data that does not match its SHA-256", b64(`{"d":1}`), b64(`{"d":2}`))
	in("data-size", "inline data of another size", `"item":"descriptors","version":7,"size":7`, `"item":"descriptors","version":7,"size":8`)
	in("data-no-padding", "base64 without padding", b64(`{"d":1}`), strings.TrimRight(b64(`{"d":1}`), "="))
	in("data-loose-bits", "base64 whose last bits are not zero", b64(`{"d":1}`), replace(t, b64(`{"d":1}`), "fQ==", "fR=="))
	in("data-other-alphabet", "base64 of the URL alphabet", `"data":"`+b64(`{"d":1}`), `"data":"_-`+b64(`{"d":1}`)[2:])
	in("data-line-feed-escape", `base64 broken by \n`, b64(`{"d":1}`), `eyJk\nIjoxfQ==`)
	tooLarge := strings.Repeat("z", 2049)
	bad("data-too-large", "inline data of 2,049 bytes", replace(t, replace(t, replace(t, d, `"size":9`, `"size":2049`), sumOf("new label"), sumOf(tooLarge)), b64("new label"), b64(tooLarge)))
	inDelta("data-older", "inline data of an earlier version", `"item":"labels","version":8`, `"item":"labels","version":7`)
	ref := `"snapshot":"000001-0000000005-e0e1e2e3e4e5e6e7-` + fakeHash + `"`
	labels5 := `"item":"labels","version":5`
	refer := func(name, comment string, version int, to string) {
		t.Helper()
		bad("reference-"+name, comment, replace(t, replace(t, c, labels5, fmt.Sprintf(`"item":"labels","version":%d`, version)), ref, `"snapshot":"`+to+`"`))
	}
	refer("itself", "a reference to this generation", 7, "000002-0000000007-d0d1d2d3d4d5d6d7-"+fakeHash)
	refer("later", "a reference to a later generation; version as late", 8, "000002-0000000008-d0d1d2d3d4d5d6d7-"+fakeHash)
	refer("version", "a reference to a snapshot of another generation than the version", 4, "000001-0000000005-e0e1e2e3e4e5e6e7-"+fakeHash)
	refer("epoch-later", "a reference to a later epoch", 5, "000003-0000000005-e0e1e2e3e4e5e6e7-"+fakeHash)
	refer("device-other", "a reference to another device in the parent's epoch", 5, "000002-0000000005-e0e1e2e3e4e5e6e7-"+fakeHash)
	refer("not-the-parent", "a reference at the parent's generation that is not the parent", 6, "000002-0000000006-d0d1d2d3d4d5d6d7-"+strings.Repeat("9", 32))
	refer("spelling", "a reference to generation 0", 5, "000001-0000000000-e0e1e2e3e4e5e6e7-"+fakeHash)
	refer("empty", "a reference to no snapshot", 5, "")
	bad("reference-too-large", "a reference for a value that cannot be inline", replace(t, c, `"version":5,"size":5`, `"version":5,"size":2049`))
	pack := `"pack":"0000000005-fedcba9876543210fedcba9876543210"`
	in("pack-version-zero", "a pack of generation 0", pack, `"pack":"0000000000-fedcba9876543210fedcba9876543210"`)
	in("pack-version-high", "a pack of a later generation", pack, `"pack":"0000000008-fedcba9876543210fedcba9876543210"`)
	in("pack-version-short", "a pack's version without leading zeros", pack, `"pack":"5-fedcba9876543210fedcba9876543210"`)
	in("pack-hash", "a pack's hash of 30 digits", pack, `"pack":"0000000005-fedcba9876543210fedcba98765432"`)
	in("pack-offset-missing", "a pack without an offset", `,"offset":17`, "")
	in("pack-offset-negative", "a negative offset", `"offset":17`, `"offset":-1`)
	in("pack-offset-beyond", "a place that ends after 64 MiB", `"offset":17`, `"offset":67108860`)
	bad("offset-without-pack", "an offset at an object", replace(t, c, `"object":"89abcdef0123456789abcdef01234567"`, `"object":"89abcdef0123456789abcdef01234567","offset":0`))
	keysLine := item("keys")
	bad("keys-inline", "keys inline", replace(t, d, `"items":4`, `"items":5`)[:strings.Index(d, `{"item":"labels"`)]+m.inlineKeys()+d[strings.Index(d, `{"item":"labels"`):])
	bad("keys-by-reference", "keys by reference", replace(t, c, keysLine, m.keysAt(func(it *seal.Item) {
		it.In = seal.SnapshotName{Epoch: 1, Generation: 1, Device: seal.DeviceID(fixed(8, 0xe0)), Hash: fakeHash}
	})))
	bad("keys-in-pack", "keys in a pack", replace(t, c, keysLine, m.keysAt(func(it *seal.Item) { it.Pack = seal.ObjectName{Version: 5, Hash: fakeHash} })))
	bad("keys-not-required", "keys that are not required", replace(t, c, keysLine, replace(t, keysLine, `"required":true,`, "")))
	bad("descriptors-not-required", "descriptors that are not required", replace(t, c, item("descriptors"), replace(t, item("descriptors"), `"required":true,`, "")))
	owner := keysLine[strings.Index(keysLine, `"owner"`):strings.Index(keysLine, `"object"`)]
	in("owner-missing", "keys without an owner MAC", owner, "")
	in("owner-unexpected", "an owner MAC at an item that has none", `"pack":"0000000005`, owner+`"pack":"0000000005`)
	in("owner-short", "an owner MAC of 62 digits", owner, owner[:len(owner)-4]+`",`)
	in("owner-empty", "an empty owner MAC", owner, `"owner":"",`)
	raw("owner-other", "one digit of an owner MAC differs", "forged", finish(m.d, replace(t, c, owner, `"owner":"`+other(owner[9:10])+owner[10:])))
	in("removed-in-checkpoint", "a removed item in a checkpoint", item("contacts"), `{"item":"contacts","version":3,"removed":true}`+"\n")
	inDelta("removed-false", "removed written out as false", `"removed":true}`, `"removed":false}`)
	inDelta("removed-with-size", "a removed item with a size", `{"item":"contacts","version":8,"removed":true}`, `{"item":"contacts","version":8,"size":5,"removed":true}`)
	inDelta("removed-with-object", "a removed item with an object", `{"item":"contacts","version":8,"removed":true}`, `{"item":"contacts","version":8,"removed":true,"object":"89abcdef0123456789abcdef01234567"}`)
	inDelta("removed-required", "a removed item that is required", `{"item":"contacts","version":8,"removed":true}`, `{"item":"contacts","version":8,"required":true,"removed":true}`)

	// Padding and MAC.
	raw("pad-missing", "no pad line", "damaged", signed(m.d, c))
	raw("pad-long", "one zero too many", "damaged", finishPad(m.d, c, 1, '0'))
	raw("pad-short", "one zero too few", "damaged", finishPad(m.d, c, -1, '0'))
	raw("pad-not-zero", "the last digit is 1", "damaged", finishPad(m.d, c, 0, '1'))
	raw("pad-next-length", "padded to the next PADMÉ length but one", "damaged", finishPad(m.d, c, int(seal.Padded(int64(len(check)+1)))-len(check), '0'))
	macAt := strings.Index(check, `{"mac"`)
	raw("mac-other", "one digit of the MAC differs", "forged", check[:macAt+8]+other(check[macAt+8:macAt+9])+check[macAt+9:])
	raw("mac-of-other-device", "the MAC of another device of this epoch", "forged", finish(m.k.Device(2, seal.DeviceID(fixed(8, 0xe0))), c))
	raw("mac-of-other-epoch", "the MAC of this device in another epoch", "forged", finish(m.k.Device(1, m.device), c))
	raw("mac-of-other-backup", "the MAC of another backup's device of the same id", "forged", finish(m.otherK.Device(2, m.device), c))
	raw("mac-upper-case", "the MAC in upper case", "damaged", check[:macAt+8]+strings.ToUpper(check[macAt+8:macAt+72])+check[macAt+72:])
	raw("mac-space", "a space in the MAC line", "damaged", check[:macAt]+replace(t, check[macAt:], `"mac":`, `"mac": `))
	raw("mac-missing", "no MAC line", "truncated", check[:macAt])
	raw("changed-after-mac", "an item's size was changed after the MAC was made", "forged", replace(t, check, `"offset":17`, `"offset":18`))
	raw("byte-after-the-end", "an empty line after the MAC line", "damaged", check+"\n")
	raw("no-last-line-feed", "the last line feed is missing", "truncated", check[:len(check)-1])
	raw("ends-in-header", "the plaintext ends within the header", "truncated", check[:40])
	raw("ends-after-header", "the plaintext ends after the header", "truncated", header)
	raw("ends-in-items", "the plaintext ends between two items", "truncated", check[:strings.Index(check, `{"item":"keys"`)])
	raw("ends-in-pad", "the plaintext ends within the pad line", "truncated", check[:strings.Index(check, `{"pad"`)+10])
	under("empty", "an empty plaintext", "truncated", nameOf(check), "")

	// Versions.
	raw("newer", "version 2, with software and unknown members", "newer", `{"satchel-snapshot":2,"software":"satchel/9.9.9","new":{"a":[1]},"generation":7}`+"\nanything\n")
	raw("newer-no-software", "version 12 without software", "newer", `{"satchel-snapshot":12}`+"\n")
	raw("newer-odd-software", "version 2 with a software that must not be shown", "newer", `{"satchel-snapshot":2,"software":"<b>\u001b[2J"}`+"\n")
	raw("newer-not-json", "version 2 in which only the number can be read", "newer", `{"satchel-snapshot":2,binary`+"\n")
	raw("newer-leading-zero", "a version with a leading zero", "damaged", `{"satchel-snapshot":02,"software":"satchel/9.9.9"}`+"\n")
	raw("newer-long", "a version of ten digits", "damaged", `{"satchel-snapshot":2000000000,"software":"satchel/9.9.9"}`+"\n")
	raw("newer-not-first", "a version that is not the first member", "damaged", `{"software":"satchel/9.9.9","satchel-snapshot":2}`+"\n")

	// Objects.
	good := m.seal([]byte(deltaSlots))
	object := func(name, comment, expect string, data, named []byte) {
		n := nameOf(deltaSlots)
		n.Hash = store.Sum(named)
		m.put(vector{Name: "object-" + name, Comment: comment, Kind: "snapshot", Expect: expect, Path: n.Path(), Data: data})
	}
	object("bit-flip", "the last byte differs", "damaged", flip(good, len(good)-1), good)
	object("bit-flip-renamed", "the last byte differs, under the name of what it is now", "damaged", flip(good, len(good)-1), flip(good, len(good)-1))
	object("cut-short", "the last 100 bytes are missing", "truncated", good[:len(good)-100], good)
	object("cut-short-in-header", "ends within the age header", "truncated", good[:700], good)
	object("cut-short-in-header-renamed", "ends within the age header, under the name of what is left", "truncated", good[:700], good[:700])
	object("cut-short-renamed", "ends within the payload, under the name of what is left", "damaged", good[:len(good)-100], good[:len(good)-100])
	object("no-bytes", "an empty file", "truncated", nil, good)
	otherRecipient := m.sealTo([]byte(deltaSlots), seal.Recipient(m.otherK.Device(2, m.device)))
	object("other-backup", "sealed to another backup", "not-ours", otherRecipient, otherRecipient)
	two := m.sealTo([]byte(deltaSlots), seal.Recipient(m.d), seal.Recipient(m.otherK.Device(2, m.device)))
	object("two-recipients", "sealed to this backup and to another", "damaged", two, two)
}

func (m *maker) signedLine(name string) []byte {
	it := seal.Item{Name: name, Version: 1, Removed: true}
	m.k.Sign(&it)
	return seal.ItemLine(it)
}

func (m *maker) keysAt(place func(*seal.Item)) string {
	it := seal.NewItem("keys", 1, []byte("words\n"))
	if place(&it); !it.In.IsZero() || it.Pack.Hash != "" {
		it.Required = true
	}
	m.k.Sign(&it)
	return string(seal.ItemLine(it))
}

func (m *maker) inlineKeys() string {
	it := seal.NewItem("keys", 8, []byte("words\n"))
	it.Required, it.Inline, it.Data = true, true, []byte("words\n")
	m.k.Sign(&it)
	return string(seal.ItemLine(it))
}

func slotLines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"slot":"words","id":"%016x","object":"%s"}`+"\n", i, fakeHash)
	}
	return b.String()
}

func sumOf(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }
func b64(s string) string   { return base64.StdEncoding.EncodeToString([]byte(s)) }

// other is another hex digit.
func other(digit string) string {
	if digit == "0" {
		return "1"
	}
	return "0"
}
