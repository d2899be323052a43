package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A passphrase as a person might choose it; it is in no list.
const passphrase = "Vierzehn Kähne & 3 Ochsen am Kai"

// The promise of docs/format.md: the stock age command opens a backup, and nothing
// of ours is needed.
func TestStockAge(t *testing.T) {
	m := newMachine(t)
	version, err := exec.Command(filepath.Join(bin, "age"), "--version").Output()
	if err != nil || strings.TrimSpace(string(version)) != ageVersion {
		t.Fatalf("age is %q, want %s (%v)", version, ageVersion, err)
	}

	w := m.create(t, "create", "mainnet", nil)
	w.satchel(t, []string{w.code, passphrase}, "slot", "add", "passphrase", "--secret-fd", "3", "--new-secret-fd", "4")
	labels := []byte(`{"type":"addr","ref":"` + firstOf(t, w.firsts(t), "bip84", false)[0] + `","label":"Rent"}` + "\n")
	w.write(t, "labels.jsonl", labels)
	w.satchel(t, nil, "put", "labels", "labels.jsonl")
	large := make([]byte, 3_000_001)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(large)
	w.write(t, "large.bin", large)
	w.satchel(t, nil, "backup", "large.bin")
	words, generation := w.words(t), w.generation(t)

	// From here on there is only the folder and a secret: the device is lost.
	folder := filepath.Join(t.TempDir(), filepath.Base(w.folder))
	if err := os.CopyFS(folder, os.DirFS(w.folder)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(m.home); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(m.home, 0o700); err != nil {
		t.Fatal(err)
	}

	t.Run("recovery code", func(t *testing.T) {
		text := m.age(t, folder, w.code, `age -d -i slots/recovery-code-*.age items/keys/*.age`)
		if got := member(t, text, "words"); got != words {
			t.Error("the words are not those of satchel export words")
		}
		if got := member(t, text, "fingerprint"); got != w.fingerprint {
			t.Errorf("got fingerprint %s, want %s", got, w.fingerprint)
		}
	})
	t.Run("passphrase", func(t *testing.T) {
		text := m.age(t, folder, passphrase, `age -d -i slots/passphrase-*.age items/keys/*.age`)
		if got := member(t, text, "words"); got != words {
			t.Error("the words are not those of satchel export words")
		}
	})
	t.Run("snapshot", func(t *testing.T) {
		text := m.age(t, folder, passphrase, `age -d -i slots/passphrase-*.age "$(ls snapshots/*.age | tail -n 1)"`)
		lines := snapshotLines(t, text)
		header := lines[0]
		if header["satchel-snapshot"] != 1.0 || header["epoch"] != 1.0 || header["generation"] != float64(generation) || header["kind"] != "delta" {
			t.Errorf("the newest snapshot is %v", header)
		}
		item := itemLine(t, lines, "file/large.bin")
		sum := sha256.Sum256(large)
		if item["size"] != float64(len(large)) || item["sha256"] != hex.EncodeToString(sum[:]) {
			t.Errorf("size %v and hash %v are not those of the file", item["size"], item["sha256"])
		}

		// The large item is an object; its last zero bytes are padding.
		object, _ := item["object"].(string)
		padded := m.age(t, folder, w.code, `age -d -i slots/recovery-code-*.age items/*/*-`+object+`.age`)
		if len(padded) < len(large) || !bytes.Equal(padded[:len(large)], large) {
			t.Error("the item, cut to its size, is not the file")
		}
		if rest := bytes.Trim(padded[len(large):], "\x00"); len(rest) > 0 {
			t.Error("the padding is not zero")
		}

		// The snapshot before has the labels inline.
		text = m.age(t, folder, w.code, `age -d -i slots/recovery-code-*.age "$(ls snapshots/*.age | tail -n 2 | head -n 1)"`)
		data, _ := itemLine(t, snapshotLines(t, text), "labels")["data"].(string)
		got, err := base64.StdEncoding.DecodeString(data)
		if err != nil || !bytes.Equal(got, labels) {
			t.Errorf("got labels %q (%v), want %q", got, err, labels)
		}
	})
	t.Run("batchpass", func(t *testing.T) {
		// Without a terminal, with the plugin that comes with age.
		for kind, secret := range map[string]string{"recovery-code": w.code, "passphrase": passphrase} {
			cmd := exec.Command("bash", "-euc", `
				umask 077
				age -d -j batchpass slots/`+kind+`-*.age >../identity 3< <(printf %s "$SECRET")
				age -d -i ../identity items/keys/*.age
				rm ../identity`)
			cmd.Dir, cmd.Env = folder, append(m.env(), "AGE_PASSPHRASE_FD=3", "SECRET="+secret)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			text, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, stderr.String())
			}
			if got := member(t, text, "words"); got != words {
				t.Errorf("%s: the words are not those of satchel export words", kind)
			}
		}
	})
	t.Run("wrong code", func(t *testing.T) {
		other := newMachine(t).create(t, "create", "mainnet", nil).code
		if text, err := m.tryAge(t, folder, other, `age -d -i slots/recovery-code-*.age items/keys/*.age`); err == nil || len(text) > 0 {
			t.Errorf("another wallet's code: %d bytes, %v", len(text), err)
		}
	})
}

// age runs a command of a person's in the backup's folder and types the secret when age
// asks for it on the terminal. It returns the standard output.
func (m machine) age(t *testing.T, folder, secret, command string) []byte {
	t.Helper()
	out, err := m.tryAge(t, folder, secret, command)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return out
}

func (m machine) tryAge(t *testing.T, folder, secret, command string) ([]byte, error) {
	t.Helper()
	cmd := exec.Command("bash", "-euc", command)
	cmd.Dir, cmd.Env = folder, m.env()
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	asked := 0
	screen, err := onTerminal(t, cmd, func(prompt string) (string, error) {
		if asked++; asked > 1 || !strings.Contains(prompt, "passphrase for identity file") {
			return "", errors.New("not what age asks, or asked twice")
		}
		return secret, nil
	})
	if asked == 0 {
		t.Errorf("%s: age asked for nothing", command)
	}
	if err != nil {
		t.Logf("the terminal:\n%s", screen)
	}
	return stdout.Bytes(), err
}

func (m machine) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.home, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// member reads a line "name: value" of the item keys, as a person does.
func member(t *testing.T, text []byte, name string) string {
	t.Helper()
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.TrimSuffix(value, "\n")
		}
	}
	t.Fatalf("no line %q", name)
	return ""
}

// snapshotLines reads the JSON lines of a snapshot and checks their frame.
func snapshotLines(t *testing.T, text []byte) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for line := range bytes.Lines(text) {
		var v map[string]any
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("line %d is not JSON: %v", len(lines)+1, err)
		}
		lines = append(lines, v)
	}
	if len(lines) < 3 {
		t.Fatalf("got %d lines", len(lines))
	}
	if _, ok := lines[len(lines)-2]["pad"]; !ok {
		t.Error("the last but one line is not the pad")
	}
	if mac, _ := lines[len(lines)-1]["mac"].(string); len(mac) != 64 {
		t.Error("the last line is not the MAC")
	}
	return lines
}

func itemLine(t *testing.T, lines []map[string]any, name string) map[string]any {
	t.Helper()
	i := slices.IndexFunc(lines, func(l map[string]any) bool { return l["item"] == name })
	if i < 0 {
		t.Fatalf("no line of the item %s", name)
	}
	return lines[i]
}
