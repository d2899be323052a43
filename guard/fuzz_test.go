package guard_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"github.com/satchel-backup/satchel/guard"
	"github.com/satchel-backup/satchel/slot"
)

// bodyIdentity keeps the body of a stanza and opens nothing.
type bodyIdentity struct{ body []byte }

func (b *bodyIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	b.body = stanzas[0].Body
	return nil, age.ErrIncorrectIdentity
}

var _ age.Identity = (*bodyIdentity)(nil)

// What is read is written as the same bytes.
func FuzzParseSlot(f *testing.F) {
	paths, err := filepath.Glob(filepath.Join(vectorDir, "*.json"))
	if err != nil || len(paths) == 0 {
		f.Fatalf("no vectors: %v", err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		var v vector
		if err := json.Unmarshal(text, &v); err != nil {
			f.Fatal(err)
		}
		var b bodyIdentity
		if _, err := age.Decrypt(bytes.NewReader(v.Data), &b); err == nil || b.body == nil && v.Name != "body-empty" {
			f.Fatalf("%s: no body", path)
		}
		f.Add(b.body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := guard.ParseSlot(body)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Bytes(), body) {
			t.Errorf("%x is read as %x", body, s.Bytes())
		}
		stanza := &age.Stanza{Type: "satchel-pin", Args: []string{"1", hashOf(body)}, Body: body}
		if _, err := slot.ParsePIN([]*age.Stanza{stanza}); err != nil {
			t.Errorf("the stanza of a sound body: %v", err)
		}
	})
}
