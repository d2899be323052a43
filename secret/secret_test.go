package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel/secret"
)

// R19: no way of printing a secret, or a struct that holds one, shows it.
func TestNeverPrinted(t *testing.T) {
	const word = "abandon"
	s := secret.FromString(word)
	holder := struct {
		Public secret.Bytes
		hidden secret.Bytes
		ptr    *secret.Bytes
	}{s, s, &s}

	var out bytes.Buffer
	for _, v := range []any{s, &s, holder, &holder, []secret.Bytes{s}, map[string]secret.Bytes{"k": s}, fmt.Errorf("x: %v", s)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "s", s, "holder", holder)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "s", s, "holder", holder)
	j, err := json.Marshal(map[string]any{"s": s, "holder": holder})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)

	for _, leak := range []string{word, fmt.Sprintf("%x", word), fmt.Sprintf("%X", word), "97 98 97", "0x61, 0x62"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("output contains %q:\n%s", leak, out.String())
		}
	}
}

func TestBytes(t *testing.T) {
	in := []byte("key")
	s := secret.New(in)
	in[0] = 'X'
	if got := string(s.Open()); got != "key" {
		t.Errorf("got %q, want the bytes at the time of New", got)
	}
	if !s.Equal(secret.FromString("key")) || s.Equal(secret.FromString("kez")) || s.Equal(secret.Bytes{}) {
		t.Error("Equal is wrong")
	}
	var zero secret.Bytes
	if !zero.Empty() || zero.Len() != 0 || zero.Open() != nil {
		t.Error("the zero value is not the empty secret")
	}
	if secret.Random(32).Equal(secret.Random(32)) {
		t.Error("two random secrets are equal")
	}
	s.Wipe()
	if !bytes.Equal(s.Open(), []byte{0, 0, 0}) {
		t.Error("Wipe left bytes")
	}
}
