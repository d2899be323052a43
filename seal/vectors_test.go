package seal_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/satchel-backup/satchel/seal"
	"github.com/satchel-backup/satchel/secret"
	"github.com/satchel-backup/satchel/store"
)

const vectorDir = "../testdata/vectors/format"

// vector is one file of testdata/vectors/format; its README.md says what the
// fields mean.
type vector struct {
	Name       string          `json:"name"`
	Comment    string          `json:"comment"`
	Kind       string          `json:"kind"`
	Expect     string          `json:"expect"`
	BackupID   string          `json:"backup_id,omitempty"`
	BackupKey  string          `json:"backup_key,omitempty"`
	Epoch      uint64          `json:"epoch,omitempty"`
	Device     string          `json:"device,omitempty"`
	Passphrase string          `json:"passphrase,omitempty"`
	Form       string          `json:"form,omitempty"`
	Text       *string         `json:"text,omitempty"`
	Path       string          `json:"path,omitempty"`
	Line       string          `json:"line,omitempty"`
	Data       []byte          `json:"data,omitempty"`
	Want       json.RawMessage `json:"want,omitempty"`
}

// R11, R15, R18: every committed vector ends as it says.
func TestVectors(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(vectorDir, "*.json"))
	if err != nil || len(paths) < 200 {
		t.Fatalf("%d vectors, %v", len(paths), err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var v vector
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			if want := v.Name + ".json"; filepath.Base(path) != want {
				t.Errorf("vector is in %s, want %s", path, want)
			}
			got, err := v.read(t)
			if verdict(err) != v.Expect {
				t.Fatalf("got %s (%v), want %s: %s", verdict(err), err, v.Expect, v.Comment)
			}
			if err != nil {
				if n, ok := errors.AsType[*seal.NewerError](err); ok {
					got = map[string]any{"version": n.Version, "software": n.Software}
				} else {
					return
				}
			}
			b, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			var x, y any
			if json.Unmarshal(b, &x) != nil || json.Unmarshal(v.Want, &y) != nil {
				t.Fatal("vector without want")
			}
			if diff := cmp.Diff(y, x); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func verdict(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, seal.ErrNewer):
		return "newer"
	case errors.Is(err, seal.ErrForged):
		return "forged"
	case errors.Is(err, seal.ErrNotOurs):
		return "not-ours"
	case errors.Is(err, seal.ErrTruncated):
		return "truncated"
	case errors.Is(err, seal.ErrDamaged):
		return "damaged"
	case errors.Is(err, age.ErrIncorrectIdentity):
		return "wrong-secret"
	}
	return "none"
}

func (v *vector) keys(t *testing.T) *seal.Keys {
	id, err := seal.ParseBackupID(v.BackupID)
	if err != nil {
		t.Fatal(err)
	}
	key, err := hex.DecodeString(v.BackupKey)
	if err != nil {
		t.Fatal(err)
	}
	k, err := seal.DeriveKeys(id, secret.New(key))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// read does what the vector's kind asks for and returns what it found, in the
// form of Want.
func (v *vector) read(t *testing.T) (any, error) {
	switch v.Kind {
	case "derivation":
		return v.derivation(t)
	case "padme":
		var table [][2]int64
		if err := json.Unmarshal(v.Want, &table); err != nil {
			return nil, err
		}
		for i := range table {
			table[i][1] = seal.Padded(table[i][0])
		}
		return table, nil
	case "owner-mac":
		it, err := seal.ParseItemLine([]byte(v.Line))
		if err != nil {
			return nil, err
		}
		if err := v.keys(t).Verify(&it); err != nil {
			return nil, err
		}
		return map[string]string{"owner": hex.EncodeToString(it.Owner)}, nil
	case "name":
		return v.name()
	case "keyfile":
		k, err := seal.ParseKeyFile(secret.New(v.Data))
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(k.KeyFile().Open(), v.Data) {
			t.Error("does not encode to the same bytes")
		}
		return keyFileWant(k), nil
	case "device":
		d, err := seal.ParseDeviceKey(secret.New(v.Data))
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(d.Marshal().Open(), v.Data) {
			t.Error("does not encode to the same bytes")
		}
		return map[string]any{"backup": d.Backup().String(), "epoch": d.Epoch(), "device": d.Device().String()}, nil
	case "slot":
		n, ok := seal.ParseSlotPath(v.Path)
		if !ok {
			t.Fatal("path")
		}
		if n.Hash != store.Sum(v.Data) {
			return nil, seal.ErrDamaged
		}
		id, err := age.NewScryptIdentity(v.Passphrase)
		if err != nil {
			t.Fatal(err)
		}
		k, err := seal.OpenSlot(v.Data, id)
		if err != nil {
			return nil, err
		}
		return keyFileWant(k), nil
	case "item":
		k := v.keys(t)
		it, err := seal.ParseItemLine([]byte(v.Line))
		if err != nil {
			t.Fatal(err)
		}
		n, _ := k.ItemObject(&it)
		if n.Path() != v.Path {
			t.Errorf("got path %s, want %s", n.Path(), v.Path)
		}
		value, err := k.OpenItem(&it, v.Data)
		if err != nil {
			return nil, err
		}
		return map[string]any{"value": value}, nil
	case "snapshot", "plaintext":
		k := v.keys(t)
		n, ok := seal.ParseSnapshotPath(v.Path)
		if !ok {
			t.Fatal("path")
		}
		var s *seal.Snapshot
		var err error
		if v.Kind == "snapshot" {
			s, err = k.OpenSnapshot(n, v.Data)
		} else {
			if v.Text != nil {
				v.Data = []byte(*v.Text)
			}
			s, err = seal.ParseSnapshot(k, bytes.NewReader(v.Data), n)
		}
		if err != nil {
			return nil, err
		}
		for i := range s.Items {
			if err := k.Verify(&s.Items[i]); err != nil {
				return nil, err
			}
		}
		want := snapshotWant(t, k, s)
		if v.Kind == "plaintext" {
			if want["plaintext"] != string(v.Data) {
				t.Error("does not encode to the same bytes")
			}
			delete(want, "plaintext")
		}
		return want, nil
	}
	t.Fatalf("unknown kind %q", v.Kind)
	return nil, nil
}

func keyFileWant(k *seal.Keys) any {
	text := k.KeyFile().Open()
	return map[string]string{"backup_id": k.ID().String(), "text": string(text)}
}

func (v *vector) derivation(t *testing.T) (any, error) {
	k := v.keys(t)
	device, err := seal.ParseDeviceID(v.Device)
	if err != nil {
		return nil, err
	}
	d := k.Device(v.Epoch, device)
	secrets, mine := k.Secrets(), d.Secrets()
	dirs := map[string]string{}
	for _, name := range []string{"keys", "descriptors", "labels", "lightning/scb", `file/ä "b".txt`} {
		if dirs[name] = k.Dir(name); dirs[name] != d.Dir(name) {
			t.Error("the device's directory is another")
		}
	}
	if k.PackDir() != d.PackDir() {
		t.Error("the device's directory of packs is another")
	}
	if !k.Head(v.Epoch).Equal(d.Head()) {
		t.Error("the device's head key is another")
	}
	return map[string]any{
		"payload_seed": hex.EncodeToString(secrets[4]),
		"identity":     string(secrets[3]),
		"recipient":    seal.Recipient(d).String(),
		"name_key":     hex.EncodeToString(secrets[1]),
		"owner_public": hex.EncodeToString(k.Owner().Public().(ed25519.PublicKey)),
		"owner_key":    hex.EncodeToString(secrets[2]),
		"writer_key":   hex.EncodeToString(mine[1]),
		"head_seed":    hex.EncodeToString(mine[2]),
		"head_public":  hex.EncodeToString(d.Head().Public().(ed25519.PublicKey)),
		"dirs":         dirs,
		"pack_dir":     k.PackDir(),
	}, nil
}

func (v *vector) name() (any, error) {
	text := *v.Text
	switch v.Form {
	case "item":
		if seal.CheckItemName(text) != nil {
			return nil, seal.ErrDamaged
		}
		return map[string]any{"item": text}, nil
	case "path":
		if n, ok := seal.ParseSnapshotPath(text); ok && n.Path() == text {
			return map[string]any{"is": "snapshot", "epoch": n.Epoch, "generation": n.Generation, "device": n.Device.String(), "hash": n.Hash}, nil
		}
		if n, ok := seal.ParseSlotPath(text); ok && n.Path() == text {
			return map[string]any{"is": "slot", "kind": n.Kind, "id": n.ID.String(), "hash": n.Hash}, nil
		}
		if n, ok := seal.ParseObjectPath(text); ok && n.Path() == text {
			return map[string]any{"is": "item", "dir": n.Dir, "version": n.Version, "hash": n.Hash}, nil
		}
		return nil, seal.ErrNotOurs
	}
	return nil, errors.New("unknown form")
}

// snapshotWant is a parsed snapshot in a form for every language.
func snapshotWant(t *testing.T, k *seal.Keys, s *seal.Snapshot) map[string]any {
	plain, err := seal.Plaintext(k.Device(s.Epoch, s.Device), s)
	if err != nil {
		t.Error(err)
	}
	past := []any{}
	for _, n := range s.Past {
		past = append(past, n.String())
	}
	var slots []any
	for _, sl := range s.Slots {
		slots = append(slots, map[string]any{"kind": sl.Kind, "id": sl.ID.String(), "path": sl.Path()})
	}
	var listed any
	if s.HasSlots {
		listed = append([]any{}, slots...)
	}
	items := []any{}
	for i := range s.Items {
		it := &s.Items[i]
		m := map[string]any{"item": it.Name, "version": it.Version, "required": it.Required}
		object, isObject := k.ItemObject(it)
		switch {
		case it.Removed:
			m["place"] = "removed"
			items = append(items, m)
			continue
		case it.Inline:
			m["place"], m["value"] = "data", base64.StdEncoding.EncodeToString(it.Data)
		case !it.In.IsZero():
			m["place"], m["path"] = "snapshot", it.In.Path()
		case it.Pack.Hash != "":
			m["place"], m["path"], m["offset"] = "pack", object.Path(), it.Offset
		default:
			m["place"], m["path"] = "object", object.Path()
		}
		if isObject == (it.Inline || !it.In.IsZero()) {
			t.Errorf("item %d: ItemObject says %v", i, isObject)
		}
		m["size"], m["sha256"] = it.Size, hex.EncodeToString(it.SHA256[:])
		items = append(items, m)
	}
	return map[string]any{
		"plaintext": string(plain), "backup": s.Backup.String(), "epoch": s.Epoch, "generation": s.Generation,
		"device": s.Device.String(), "parent": s.Parent.String(), "time": s.Time.Format("2006-01-02T15:04:05Z"),
		"software": s.Software, "kind": string(s.Kind), "past": past, "slots": listed, "items": items,
	}
}
