package seal_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
)

// seeds calls add with every vector of the kinds.
func seeds(f *testing.F, kinds string, add func(v vector)) {
	paths, err := filepath.Glob(filepath.Join(vectorDir, "*.json"))
	if err != nil || len(paths) == 0 {
		f.Fatal("no vectors")
	}
	for _, path := range paths {
		var v vector
		if text, err := os.ReadFile(path); err != nil || json.Unmarshal(text, &v) != nil {
			f.Fatal(path)
		}
		if strings.Contains(kinds, v.Kind) {
			if v.Text != nil && v.Data == nil {
				v.Data = []byte(*v.Text)
			}
			add(v)
		}
	}
}

// R18: what parses re-encodes to the same bytes.
func FuzzParseKeyFile(f *testing.F) {
	seeds(f, "keyfile", func(v vector) { f.Add(v.Data) })
	f.Fuzz(func(t *testing.T, text []byte) {
		if k, err := seal.ParseKeyFile(secret.New(text)); err == nil && !bytes.Equal(k.KeyFile().Open(), text) {
			t.Errorf("%q becomes another file", text)
		}
	})
}

func FuzzParseDeviceKey(f *testing.F) {
	seeds(f, "device", func(v vector) { f.Add(v.Data) })
	f.Fuzz(func(t *testing.T, text []byte) {
		if d, err := seal.ParseDeviceKey(secret.New(text)); err == nil && !bytes.Equal(d.Marshal().Open(), text) {
			t.Errorf("%q becomes another key", text)
		}
	})
}

func FuzzParseNames(f *testing.F) {
	seeds(f, "name", func(v vector) { f.Add(string(v.Data)) })
	f.Fuzz(func(t *testing.T, s string) {
		forms := 0
		if n, ok := seal.ParseSnapshotPath(s); ok {
			if forms++; n.Path() != s {
				t.Errorf("%q becomes %q", s, n.Path())
			}
		}
		if n, ok := seal.ParseSlotPath(s); ok {
			if forms++; n.Path() != s {
				t.Errorf("%q becomes %q", s, n.Path())
			}
		}
		if n, ok := seal.ParseObjectPath(s); ok {
			if forms++; n.Path() != s {
				t.Errorf("%q becomes %q", s, n.Path())
			}
		}
		if forms > 1 || forms == 1 && store.CheckName(s) != nil {
			t.Errorf("%q is %d names", s, forms)
		}
		if n, err := seal.ParseSnapshotName(s); err == nil && n.String() != s {
			t.Errorf("%q becomes %q", s, n)
		}
		if label, ok := seal.FolderLabel(s); ok && !strings.Contains(s, label) {
			t.Errorf("folder %q has label %q", s, label)
		}
		folder := seal.Folder(s, seal.BackupID{})
		if label, ok := seal.FolderLabel(folder); !ok || label != seal.CleanLabel(s) || seal.CleanLabel(label) != label || store.CheckName(folder) != nil {
			t.Errorf("label %q becomes folder %q with label %q", s, folder, label)
		}
		if seal.CheckItemName(s) == nil && (s == "" || strings.HasPrefix(s, "/") || strings.Contains(s, "\n")) {
			t.Errorf("%q is an item's name", s)
		}
	})
}

func FuzzParseItemLine(f *testing.F) {
	seeds(f, "plaintext item owner-mac", func(v vector) {
		f.Add([]byte(v.Line))
		for line := range bytes.Lines(v.Data) {
			f.Add(line)
		}
	})
	f.Fuzz(func(t *testing.T, text []byte) {
		if it, err := seal.ParseItemLine(text); err == nil && !bytes.Equal(seal.ItemLine(it), text) {
			t.Errorf("%q becomes %q", text, seal.ItemLine(it))
		}
	})
}

// FuzzParseSnapshot gives the fuzzer the writer's MAC: it changes the lines
// before the padding.
func FuzzParseSnapshot(f *testing.F) {
	k := fixedKeys(0)
	n := seal.SnapshotName{Epoch: 2, Generation: 7, Device: seal.DeviceID(fixed(8, 0xd0)), Hash: fakeHash}
	d := k.Device(n.Epoch, n.Device)
	seeds(f, "plaintext", func(v vector) {
		f.Add(v.Data, false)
		if i := bytes.Index(v.Data, []byte(`{"pad"`)); i >= 0 {
			f.Add(v.Data[:i], true)
		}
	})
	f.Fuzz(func(t *testing.T, text []byte, sign bool) {
		if sign {
			text = []byte(finish(d, string(text)))
		}
		for n.Generation = 7; n.Generation <= 8; n.Generation++ {
			s, err := seal.ParseSnapshot(k, bytes.NewReader(text), n)
			if err != nil {
				continue
			}
			again, err := seal.Plaintext(d, s)
			if err != nil || !bytes.Equal(again, text) {
				t.Errorf("%q becomes %q, %v", text, again, err)
			}
		}
	})
}

// FuzzOpenObject opens hostile objects under their right hash.
func FuzzOpenObject(f *testing.F) {
	k := fixedKeys(0)
	seeds(f, "item snapshot", func(v vector) { f.Add(v.Data, int64(140), int64(0)); f.Add(v.Data, int64(140), int64(50)) })
	f.Fuzz(func(t *testing.T, data []byte, size, offset int64) {
		it := seal.Item{Name: "labels", Version: 7, Size: size, Object: store.Sum(data)}
		k.OpenItem(&it, data)
		it.Object, it.Pack, it.Offset = "", seal.ObjectName{Version: 7, Hash: store.Sum(data)}, offset
		k.OpenItem(&it, data)
		n := seal.SnapshotName{Epoch: 2, Generation: 7, Device: seal.DeviceID(fixed(8, 0xd0)), Hash: store.Sum(data)}
		k.OpenSnapshot(n, data)
		if err := k.Opens(seal.ObjectName{Dir: "keys", Version: 1, Hash: store.Sum(data[:len(data)/2])}, data); err == nil {
			t.Error("opens under another hash")
		}
	})
}

// FuzzOpenPlaintext seals hostile plaintexts of items rightly.
func FuzzOpenPlaintext(f *testing.F) {
	k := fixedKeys(0)
	d := k.Device(1, seal.DeviceID{})
	f.Add([]byte("value"), int64(5), int64(0))
	f.Add(make([]byte, 144), int64(140), int64(4))
	f.Fuzz(func(t *testing.T, plain []byte, size, offset int64) {
		data := seal.Encrypt(plain, seal.Recipient(d))
		it := seal.Item{Name: "labels", Version: 7, Size: size, Object: store.Sum(data)}
		if _, err := k.OpenItem(&it, data); err == nil {
			t.Error("a value without its SHA-256 opens")
		}
		it.Object, it.Pack, it.Offset = "", seal.ObjectName{Version: 7, Hash: store.Sum(data)}, offset
		if _, err := k.OpenItem(&it, data); err == nil {
			t.Error("a value without its SHA-256 opens")
		}
	})
}

func FuzzOpenSlot(f *testing.F) {
	seeds(f, "slot", func(v vector) { f.Add(v.Data) })
	f.Fuzz(func(t *testing.T, data []byte) {
		id, err := age.NewScryptIdentity("secret")
		if err != nil {
			t.Fatal(err)
		}
		id.SetMaxWorkFactor(10) // Package slot holds the limits.
		if k, err := seal.OpenSlot(data, id); err == nil {
			t.Errorf("%q opens: %v", data, k)
		}
	})
}
